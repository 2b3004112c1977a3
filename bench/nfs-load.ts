/**
 * The load: one TCP connection that keeps a number of NFSv3 calls outstanding, checks every reply and takes its latency.
 *
 * Speed comes from doing little: records are encoded once into a ring of cells and only patched (xid, offset, stamp), everything that
 * becomes free in one turn goes out in one write, replies are looked at in place in one fixed receive buffer.
 * Every 4 KiB block written carries its block number in the first word, and every READ must return the number of its first block.
 */
import { once } from 'node:events';
import net from 'node:net';

import { LatencyHistogram } from './latency-histogram.ts';
import type { CallTemplate } from './nfs-calls.ts';
import {
  commitCall,
  createCall,
  createNamedCall,
  getattrCall,
  lookupCall,
  mountCall,
  nextRandom,
  nullCall,
  readCall,
  removeCall,
  writeCall,
  XID_AT,
} from './nfs-calls.ts';
import { REPLY_HEAD_BYTES, ReplyParser } from './reply-parser.ts';

export const BLOCK_BYTES = 4096;
/** The slot is the low byte of the xid. */
export const OUTSTANDING_MAX = 256;
const RECEIVE_BYTES = 1 << 20;
/** A server that answers nothing for so long is broken, not slow. */
const SILENCE_MS_MAX = 30_000;
export const SLOW_MS = 40;
export const SLOW_CALLS_MAX = 1024;

export interface Workload {
  readonly kind: 'getattr' | 'read-random' | 'write-random' | 'mix' | 'read-sequential' | 'write-sequential' | 'create-remove';
  readonly outstanding: number;
  /** Bytes of one READ or WRITE; 0 for the others. */
  readonly ioBytes: number;
  readonly stability: 'UNSTABLE' | 'FILE_SYNC';
  /** The part of the file that is read or written, from its start; a multiple of `ioBytes`. */
  readonly regionBytes: number;
  /** New calls are issued for so long; one pass over the region takes as long as it takes. */
  readonly seconds: number;
  /** Sequential only: stop at the end of the region. Default true for writes, false for reads. */
  readonly isOnePass?: boolean;
  /** Seed of offsets and of the mix; not 0. */
  readonly seed: number;
}

/** `sentAtMs`: wall clock; `block`: of 4 KiB, the first one. */
export interface SlowCall {
  readonly kind: string;
  readonly block: number;
  readonly sentAtMs: number;
  readonly tookMs: number;
}

/** What one run gave. Times from the first call to the last reply, COMMIT included. */
export interface LoadResult {
  readonly operations: number;
  readonly payloadBytes: number;
  readonly elapsedMs: number;
  readonly latencyCounts: Float64Array;
  readonly latencyMaxUs: number;
  /** The call that waited longest; null: there was none. */
  readonly slowest: SlowCall | null;
  /** Calls that waited longer than SLOW_MS, in the order of their answers; the first SLOW_CALLS_MAX of them. */
  readonly slow: readonly SlowCall[];
  /** CPU of this process in ms. */
  readonly cpuMs: number;
}

const Kind = { IDLE: 0, GETATTR: 1, READ: 2, WRITE: 3, COMMIT: 4, CREATE: 5, REMOVE: 6 } as const;
const KIND_NAMES = ['idle', 'GETATTR', 'READ', 'WRITE', 'COMMIT', 'CREATE', 'REMOVE'];

/** One connection to an NFS server. Not for concurrent runs. */
export class NfsLoad implements AsyncDisposable {
  readonly #socket: net.Socket;
  readonly #xids = new Float64Array(OUTSTANDING_MAX);
  readonly #kinds = new Uint8Array(OUTSTANDING_MAX);
  readonly #blocks = new Float64Array(OUTSTANDING_MAX);
  readonly #sentAt = new Float64Array(OUTSTANDING_MAX);
  readonly #names = new Uint32Array(OUTSTANDING_MAX);
  readonly #free = new Uint8Array(OUTSTANDING_MAX);
  #freeCount = 0;
  #sequence = 1;
  #now = 0;
  #histogram = new LatencyHistogram();
  #operations = 0;
  #slowest: SlowCall | null = null;
  #slow: SlowCall[] = [];
  #ioBytes = 0;
  #committedMin = 0;
  #turn: () => void = () => {};
  #failure: Error | null = null;
  #fail: (error: Error) => void = () => {};
  #onSetupReply: ((head: Buffer) => void) | null = null;

  private constructor(socket: net.Socket) {
    this.#socket = socket;
  }

  static async connect(host: string, port: number): Promise<NfsLoad> {
    const parser = new ReplyParser((head, at, replyBytes) => load.#reply(head, at, replyBytes));
    const buffer = Buffer.allocUnsafeSlow(RECEIVE_BYTES);
    const socket = net.connect({
      host,
      port,
      noDelay: true,
      onread: {
        buffer,
        callback: (bytesRead, received) => {
          load.#now = performance.now();
          try {
            parser.feed(received as Buffer, bytesRead);
            load.#turn();
          } catch (error) {
            load.#stop(error as Error);
          }
          return true;
        },
      },
    });
    const load: NfsLoad = new NfsLoad(socket);
    await once(socket, 'connect');
    socket.on('error', (error) => load.#stop(error));
    socket.on('close', () => load.#stop(new Error('the server closed the connection')));
    return load;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#socket.destroyed) return;
    this.#socket.destroy();
    await once(this.#socket, 'close');
  }

  /** Waits for the answer to NULL. */
  async ping(): Promise<void> {
    await this.#call(nullCall());
  }

  /** MNT: the handle of the export's root. */
  async mount(path: string): Promise<Buffer> {
    const head = await this.#call(mountCall(path));
    const status = head.readUInt32BE(24);
    if (status !== 0) throw new Error(`MNT ${path}: status ${status}`);
    return Buffer.from(head.subarray(32, 32 + head.readUInt32BE(28)));
  }

  /** The handle of `name`, created if it isn't there. */
  async open(directory: Buffer, name: string): Promise<Buffer> {
    const created = await this.#call(createNamedCall(directory, name));
    if (created.readUInt32BE(24) !== 0) throw new Error(`CREATE ${name}: status ${created.readUInt32BE(24)}`);
    const head = await this.#call(lookupCall(directory, name));
    if (head.readUInt32BE(24) !== 0) throw new Error(`LOOKUP ${name}: status ${head.readUInt32BE(24)}`);
    return Buffer.from(head.subarray(32, 32 + head.readUInt32BE(28)));
  }

  /** Runs `work` on `file` (a child of `directory`) until its time or region is over and everything was answered. Rejects on the first wrong reply. */
  async run(work: Workload, directory: Buffer, file: Buffer): Promise<LoadResult> {
    if (work.outstanding < 1 || work.outstanding > OUTSTANDING_MAX) throw new Error(`1 to ${OUTSTANDING_MAX} outstanding`);
    this.#histogram = new LatencyHistogram();
    this.#operations = 0;
    this.#slowest = null;
    this.#slow = [];
    this.#ioBytes = work.ioBytes;
    this.#committedMin = work.stability === 'FILE_SYNC' ? 2 : 0;
    this.#freeCount = work.outstanding;
    for (let slot = 0; slot < work.outstanding; slot++) {
      this.#free[slot] = work.outstanding - 1 - slot;
      this.#kinds[slot] = Kind.IDLE;
      this.#names[slot] = 0;
    }
    const issuer = this.#issuer(work, directory, file);
    const cpuStart = process.cpuUsage();
    const startMs = performance.now();
    const endMs = startMs + work.seconds * 1000;
    this.#now = startMs;
    let isCommitSent = !(work.kind === 'write-sequential' && work.stability === 'UNSTABLE');
    const commit = commitCall(file).bytes;
    await this.#whileRunning((done) => {
      this.#turn = () => {
        while (this.#freeCount > 0 && (this.#now < endMs || issuer.mustGoOn()) && issuer.issue()) {}
        issuer.flush();
        if (this.#freeCount < work.outstanding) return;
        if (!isCommitSent) {
          isCommitSent = true;
          const slot = this.#take(Kind.COMMIT, 0);
          commit.writeUInt32BE(this.#xids[slot]!, XID_AT);
          this.#sentAt[slot] = performance.now();
          this.#socket.write(commit);
        } else done();
      };
      this.#turn();
    });
    const elapsedMs = this.#now - startMs;
    const cpu = process.cpuUsage(cpuStart);
    const operations = this.#operations;
    return {
      operations,
      payloadBytes: operations * work.ioBytes,
      elapsedMs,
      latencyCounts: this.#histogram.counts,
      latencyMaxUs: this.#histogram.maxUs,
      slowest: this.#slowest,
      slow: this.#slow,
      cpuMs: (cpu.user + cpu.system) / 1000,
    };
  }

  /** Calls are written into a ring of cells; a cell is used again only when a later call was answered, so the kernel has long taken its bytes. */
  #issuer(work: Workload, directory: Buffer, file: Buffer): { issue(): boolean; flush(): void; mustGoOn(): boolean } {
    const templates = templatesFor(work, directory, file);
    const cellBytes = Math.max(...templates.map((template) => template.bytes.length));
    const cellCount = cellBytes > 32_768 ? work.outstanding + 1 : 4 * work.outstanding;
    const first = templates[0]!;
    const isUniform = templates.length === 1;
    const ring = Buffer.alloc(cellBytes * cellCount);
    if (isUniform) for (let cell = 0; cell < cellCount; cell++) ring.set(first.bytes, cell * cellBytes);
    const ioBlocks = work.ioBytes / BLOCK_BYTES;
    const regionIos = work.ioBytes === 0 ? 0 : Math.floor(work.regionBytes / work.ioBytes);
    const isSequential = work.kind === 'read-sequential' || work.kind === 'write-sequential';
    const isOnePass = work.isOnePass ?? work.kind === 'write-sequential';
    let random = work.seed >>> 0;
    let next = 0;
    let cell = 0;
    let sentFrom = 0;
    let writeAt = 0;
    const flushed: number[] = [];

    const issue = (): boolean => {
      if (isOnePass && next === regionIos) return false;
      let template = first;
      let kind: number = Kind.GETATTR;
      if (work.kind === 'read-random' || work.kind === 'read-sequential') kind = Kind.READ;
      else if (work.kind === 'write-random' || work.kind === 'write-sequential') kind = Kind.WRITE;
      else if (work.kind === 'mix') {
        random = nextRandom(random);
        const isRead = random % 10 < 7;
        kind = isRead ? Kind.READ : Kind.WRITE;
        template = templates[isRead ? 0 : 1]!;
      } else if (work.kind === 'create-remove') {
        const slot = this.#free[this.#freeCount - 1]!;
        const isCreate = this.#names[slot] === 0;
        kind = isCreate ? Kind.CREATE : Kind.REMOVE;
        template = templates[isCreate ? 0 : 1]!;
      }
      // Whatever does not fit behind the last call starts again at the front; cells that wrap are sent in two pieces.
      if (isUniform) {
        if (cell === cellCount) {
          this.#send(ring, sentFrom, writeAt);
          cell = 0;
          writeAt = 0;
          sentFrom = 0;
        }
        cell += 1;
      } else {
        if (writeAt + template.bytes.length > ring.length) {
          this.#send(ring, sentFrom, writeAt);
          writeAt = 0;
          sentFrom = 0;
        }
        ring.set(template.bytes, writeAt);
      }
      const at = writeAt;
      writeAt += template.bytes.length;
      let block = 0;
      if (template.offsetAt >= 0) {
        let io: number;
        if (isSequential) {
          io = next++;
          if (!isOnePass && next === regionIos) next = 0;
        } else {
          random = nextRandom(random);
          io = random % regionIos;
        }
        const offsetBytes = io * work.ioBytes;
        block = io * ioBlocks;
        ring.writeUInt32BE(Math.floor(offsetBytes / 2 ** 32), at + template.offsetAt);
        ring.writeUInt32BE(offsetBytes % 2 ** 32, at + template.offsetAt + 4);
        if (template.payloadAt >= 0) {
          let payload = at + template.payloadAt;
          for (let i = 0; i < ioBlocks; i++, payload += BLOCK_BYTES) {
            ring.writeUInt32BE(block + i, payload);
            ring.writeUInt32BE(this.#sequence & 0x7fffffff, payload + 4);
          }
        }
      }
      const slot = this.#take(kind, block);
      ring.writeUInt32BE(this.#xids[slot]!, at + XID_AT);
      if (template.digitsAt >= 0) {
        if (kind === Kind.CREATE) this.#names[slot] = this.#sequence % 100_000_000;
        let digits = this.#names[slot]!;
        for (let i = 7; i >= 0; i--) {
          ring[at + template.digitsAt + i] = 48 + (digits % 10);
          digits = Math.floor(digits / 10);
        }
        if (kind === Kind.REMOVE) this.#names[slot] = 0;
      }
      flushed.push(slot);
      return true;
    };
    const flush = (): void => {
      if (flushed.length === 0) return;
      const now = performance.now();
      for (const slot of flushed) this.#sentAt[slot] = now;
      flushed.length = 0;
      this.#send(ring, sentFrom, writeAt);
      sentFrom = writeAt;
    };
    // A file that was created is removed again although the time is over.
    const mustGoOn = (): boolean => {
      if (isOnePass) return true;
      if (work.kind !== 'create-remove') return false;
      for (let i = this.#freeCount - 1; i >= 0; i--) {
        const slot = this.#free[i]!;
        if (this.#names[slot] === 0) continue;
        this.#free[i] = this.#free[this.#freeCount - 1]!;
        this.#free[this.#freeCount - 1] = slot;
        return true;
      }
      return false;
    };
    return { issue, flush, mustGoOn };
  }

  #send(ring: Buffer, from: number, to: number): void {
    if (to > from) this.#socket.write(ring.subarray(from, to));
  }

  /** Takes the free slot on top; its xid was not used for the last 2^24 calls of the slot. */
  #take(kind: number, block: number): number {
    const slot = this.#free[--this.#freeCount]!;
    this.#sequence += 1;
    this.#xids[slot] = ((this.#sequence << 8) | slot) >>> 0;
    this.#kinds[slot] = kind;
    this.#blocks[slot] = block;
    return slot;
  }

  #reply(head: Buffer, at: number, replyBytes: number): void {
    if (this.#onSetupReply !== null) {
      this.#onSetupReply(Buffer.from(head.subarray(at, at + Math.min(replyBytes, REPLY_HEAD_BYTES))));
      return;
    }
    const slot = head[at + 3]!;
    const kind = this.#kinds[slot]!;
    const xid = word(head, at);
    if (kind === Kind.IDLE || xid !== this.#xids[slot]) throw new Error(`a reply to xid ${xid}, which is not outstanding`);
    if (word(head, at + 8) !== 0 || word(head, at + 16) !== 0 || word(head, at + 20) !== 0)
      throw new Error(`RPC-level refusal of ${KIND_NAMES[kind]}`);
    const status = word(head, at + 24);
    if (status !== 0) throw new Error(`${KIND_NAMES[kind]}: status ${status}`);
    if (kind === Kind.READ) this.#checkRead(head, at, replyBytes, this.#blocks[slot]!);
    else if (kind === Kind.WRITE) this.#checkWrite(head, at);
    this.#kinds[slot] = Kind.IDLE;
    this.#free[this.#freeCount++] = slot;
    if (kind === Kind.COMMIT) return;
    const tookMs = this.#now - this.#sentAt[slot]!;
    const isSlow = tookMs > SLOW_MS && this.#slow.length < SLOW_CALLS_MAX;
    if (isSlow || tookMs > (this.#slowest?.tookMs ?? 0)) {
      const sentAtMs = performance.timeOrigin + this.#sentAt[slot]!;
      const call: SlowCall = { kind: KIND_NAMES[kind] ?? '', block: this.#blocks[slot]!, sentAtMs, tookMs };
      if (isSlow) this.#slow.push(call);
      if (tookMs > (this.#slowest?.tookMs ?? 0)) this.#slowest = call;
    }
    this.#histogram.record(tookMs);
    this.#operations += 1;
  }

  /** READ3resok: post_op_attr, count, eof, data<> (RFC 1813 §3.3.6). */
  #checkRead(head: Buffer, at: number, replyBytes: number, block: number): void {
    const behindAttributes = at + (head[at + 31] === 1 ? 116 : 32);
    const count = word(head, behindAttributes);
    const dataBytes = word(head, behindAttributes + 8);
    const headBytes = behindAttributes + 12 - at;
    if (count !== this.#ioBytes || dataBytes !== count || replyBytes !== headBytes + count) {
      throw new Error(`READ of ${this.#ioBytes} bytes at block ${block}: count ${count}, data ${dataBytes}, reply ${replyBytes}`);
    }
    const stamp = word(head, behindAttributes + 12);
    if (stamp !== block) throw new Error(`READ of block ${block} returned the data of block ${stamp}`);
  }

  /** WRITE3resok: wcc_data, count, committed, verf (RFC 1813 §3.3.7). */
  #checkWrite(head: Buffer, at: number): void {
    let p = at + 28;
    p += head[p + 3] === 1 ? 28 : 4;
    p += head[p + 3] === 1 ? 88 : 4;
    if (word(head, p) !== this.#ioBytes) throw new Error(`WRITE of ${this.#ioBytes} bytes: count ${word(head, p)}`);
    if (word(head, p + 4) < this.#committedMin) throw new Error('a FILE_SYNC WRITE was answered with less');
  }

  async #call(template: CallTemplate): Promise<Buffer> {
    const { promise, resolve } = Promise.withResolvers<Buffer>();
    const bytes = Buffer.from(template.bytes);
    this.#sequence += 1;
    bytes.writeUInt32BE((this.#sequence << 8) >>> 0, XID_AT);
    await this.#whileRunning((done) => {
      this.#onSetupReply = (head) => {
        resolve(head);
        done();
      };
      this.#socket.write(bytes);
    });
    this.#onSetupReply = null;
    return await promise;
  }

  /** Runs `start` and waits until it says done, the connection fails, or nothing came for too long. */
  async #whileRunning(start: (done: () => void) => void): Promise<void> {
    if (this.#failure !== null) throw this.#failure;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#fail = reject;
    this.#now = performance.now();
    const watch = setInterval(() => {
      if (performance.now() - this.#now > SILENCE_MS_MAX) this.#stop(new Error(`no reply for ${SILENCE_MS_MAX} ms`));
    }, 1000);
    try {
      start(resolve);
      await promise;
    } finally {
      clearInterval(watch);
      this.#turn = () => {};
      this.#fail = () => {};
    }
  }

  #stop(error: Error): void {
    this.#failure ??= error;
    this.#turn = () => {};
    this.#fail(this.#failure);
    this.#socket.destroy();
  }
}

function templatesFor(work: Workload, directory: Buffer, file: Buffer): CallTemplate[] {
  const stability = work.stability === 'FILE_SYNC' ? 2 : 0;
  switch (work.kind) {
    case 'getattr':
      return [getattrCall(file)];
    case 'read-random':
    case 'read-sequential':
      return [readCall(file, work.ioBytes)];
    case 'write-random':
    case 'write-sequential':
      return [writeCall(file, work.ioBytes, stability, work.seed)];
    case 'mix':
      return [readCall(file, work.ioBytes), writeCall(file, work.ioBytes, stability, work.seed)];
    case 'create-remove':
      return [createCall(directory, 'f'), removeCall(directory, 'f')];
  }
}

function word(bytes: Buffer, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}
