/**
 * One TCP connection of the server: records in, replies out.
 *
 * Calls are executed in the order in which they arrive, one after another as they are parsed; a call whose dispatch did not finish
 * holds nobody up. Replies leave in the order in which they were finished, all of one loop turn in one write. What is in flight is
 * bounded: at a bound nothing more is parsed or read until half of it is free again.
 */
import type { Socket } from 'node:net';

import type { CallService } from './call-service.ts';
import { RecordReader } from './record-reader.ts';
import { CredentialReader } from './rpc-credential.ts';
import type { RpcLimits } from './rpc-limits.ts';
import type { RpcObserver } from './rpc-observer.ts';
import type { RpcProgram } from './rpc-program.ts';
import { SHARED_REGION_BYTES_MAX } from './send-buffer.ts';
import type { SendBuffer, SendBufferPool } from './send-buffer.ts';
import { RECORD_MARK_BYTES } from './server-call.ts';
import type { ReplyPath, ServerCall } from './server-call.ts';

/** Replies are handed to the socket at the end of the turn, or when this much has come together. */
const EARLY_FLUSH_BYTES = 256 * 1024;
const NOTHING = Buffer.alloc(0);

/** What a connection asks of the server that it belongs to. */
export interface ConnectionHost {
  readonly service: CallService;
  readonly pool: SendBufferPool;
  readonly limits: RpcLimits;
  readonly observer: RpcObserver;
  /** Calls dispatched and not finished, over all connections. */
  outstandingCalls: number;
  /** Calls `turn` of the connection once, after the poll phase of this loop turn. */
  atEndOfTurn(connection: TcpConnection): void;
  /** Adds to the bytes in flight over all connections. */
  charge(bytes: number): void;
  /** True while the server-wide bound is met; the connection is told by `turn` when it is not any more. */
  isOverloaded(connection: TcpConnection): boolean;
  /** Adds to the bytes of incomplete records over all connections. */
  chargePartial(bytes: number): void;
  closed(connection: TcpConnection, reason: string): void;
}

/** Finished replies that lie behind one another in one buffer. */
interface Segment {
  readonly buffer: SendBuffer;
  readonly start: number;
  end: number;
  pins: number;
}

export class TcpConnection implements ReplyPath {
  readonly transport = 'tcp';
  readonly clientAddress: string;
  readonly clientPort: number;
  readonly #host: ConnectionHost;
  readonly #programs: readonly RpcProgram[];
  readonly #socket: Socket;
  readonly #records: RecordReader;
  readonly #credentials = new CredentialReader();

  /** Calls dispatched and not finished. */
  outstanding = 0;
  /** Call messages being executed and send buffers held, in bytes. */
  inFlightBytes = 0;
  /** Set by the host while this connection waits in its list for the end of the turn. */
  isTurnScheduled = false;
  /** Anything received / sent since the host looked last; it clears them. */
  hasReceived = true;
  hasSent = true;

  #isBlocked = false;
  #isServing = false;
  /** Executes no more calls. */
  #isEnding = false;
  /** The client sends no more, but may wait for replies. */
  #isInputEnded = false;
  #isClosed = false;
  #closeReason = 'closed by the client';
  #partialBytes = 0;

  #slab: SendBuffer | null = null;
  #segments: Segment[] = [];
  #segmentsBytes = 0;
  #batch: Segment[] = [];
  #batchBytes = 0;
  /** Finished calls whose objects may be used again when the turn is over. */
  #finished: ServerCall[] = [];
  readonly #onSent: (error?: Error | null) => void;

  constructor(host: ConnectionHost, programs: readonly RpcProgram[], socket: Socket, clientAddress: string, clientPort: number) {
    this.#host = host;
    this.#programs = programs;
    this.#socket = socket;
    this.clientAddress = clientAddress;
    this.clientPort = clientPort;
    this.#records = new RecordReader(host.limits.recordBytesMax);
    this.#onSent = () => this.#sent();
    socket.on('error', (error) => {
      this.#closeReason = error.message;
    });
    socket.on('end', () => {
      this.#isInputEnded = true;
      this.#endIfDone();
    });
    socket.on('close', () => this.#onClose());
  }

  /** True while there is nothing to execute, to send or to wait for. */
  get isIdle(): boolean {
    return this.outstanding === 0 && this.#segments.length === 0 && this.#batch.length === 0;
  }

  get isBlocked(): boolean {
    return this.#isBlocked;
  }

  get isMidRecord(): boolean {
    return this.#records.isMidRecord;
  }

  get partialBytes(): number {
    return this.#partialBytes;
  }

  get isSending(): boolean {
    return this.#batch.length > 0;
  }

  /** Takes a chunk from the socket. Returns false when reading must stop until `resume`. */
  receive(chunk: Buffer): boolean {
    // Still read and thrown away: closing a socket with unread input would reset it, and the last replies with it.
    if (this.#isEnding) return true;
    this.hasReceived = true;
    this.#host.observer.received(chunk.length);
    this.#records.push(chunk);
    this.#serveRecords();
    return !this.#isBlocked;
  }

  /** The end of a loop turn in which something happened to this connection. */
  turn(): void {
    this.isTurnScheduled = false;
    this.#recycle();
    if (this.#isClosed) return;
    this.#flush();
    if (this.#isBlocked && this.#isBelowHalf()) {
      this.#isBlocked = false;
      this.#host.observer.resumed();
      this.#serveRecords();
      if (!this.#isBlocked) this.#socket.resume();
    }
    this.#endIfDone();
  }

  /** Executes no more calls; ends when everything outstanding is answered. */
  end(): void {
    this.#isEnding = true;
    this.#closeReason = 'server shutting down';
    if (this.#isBlocked) this.#socket.resume();
    this.#endIfDone();
  }

  /** Closes at once. Running calls finish, their replies go nowhere. */
  destroy(reason: string): void {
    this.#isEnding = true;
    this.#closeReason = reason;
    this.#records.clear();
    this.#chargePartial(0);
    this.#socket.destroy();
  }

  reserve(call: ServerCall, sizeBytes: number): void {
    const size = (sizeBytes + 3) & ~3;
    let buffer: SendBuffer | null;
    if (size > SHARED_REGION_BYTES_MAX) {
      buffer = this.#host.pool.take(size);
      this.#charge(buffer.bytes.length);
    } else {
      buffer = this.#slab;
      if (buffer === null || buffer.bytes.length - buffer.used < size) {
        // The old slab lives on in its pinned regions; the last of them gives it back.
        buffer = this.#slab = this.#host.pool.takeSlab();
        this.#charge(buffer.bytes.length);
      }
    }
    call.region = buffer;
    call.regionStart = buffer.used;
    call.regionEnd = buffer.used += size;
    buffer.pins += 1;
  }

  cancel(call: ServerCall): void {
    const buffer = call.region!;
    if (call.regionEnd === buffer.used) buffer.used = call.regionStart;
    call.region = null;
    this.#unpin(buffer, 1);
  }

  send(call: ServerCall): void {
    const buffer = call.region!;
    const start = call.regionStart;
    const end = call.replyEnd;
    call.region = null;
    // The room that the reply did not need, while nobody else has taken room behind it.
    if (call.regionEnd === buffer.used) buffer.used = end;
    this.outstanding -= 1;
    this.#host.outstandingCalls -= 1;
    this.#charge(-call.requestBytes);
    this.#finished.push(call);
    if (!this.#isServing) this.#host.atEndOfTurn(this);
    if (this.#isClosed) {
      this.#unpin(buffer, 1);
      return;
    }
    const mark = 0x8000_0000 | (end - start - RECORD_MARK_BYTES);
    const bytes = buffer.bytes;
    bytes[start] = mark >>> 24;
    bytes[start + 1] = mark >>> 16;
    bytes[start + 2] = mark >>> 8;
    bytes[start + 3] = mark;
    const last = this.#segments.length === 0 ? undefined : this.#segments[this.#segments.length - 1];
    if (last !== undefined && last.buffer === buffer && last.end === start) {
      last.end = end;
      last.pins += 1;
    } else {
      this.#segments.push({ buffer, start, end, pins: 1 });
    }
    this.#segmentsBytes += end - start;
    if (this.#segmentsBytes >= EARLY_FLUSH_BYTES) this.#flush();
  }

  #serveRecords(): void {
    // Entered again from a program that finishes another call: the loop below is running already.
    if (this.#isServing) return;
    this.#isServing = true;
    const records = this.#records;
    const service = this.#host.service;
    while (!this.#isBlocked && !this.#isEnding) {
      const state = records.next();
      if (state === 'more') break;
      if (state !== 'record') {
        this.destroy(state === 'too-long' ? 'record longer than the limit' : 'record in too many fragments');
        break;
      }
      const call = service.take(this);
      call.load(this, records.buffer, records.start, records.end, records.chunks);
      this.outstanding += 1;
      this.#host.outstandingCalls += 1;
      this.#charge(call.requestBytes);
      if (!service.serve(call, this.#programs, this.#credentials)) {
        this.outstanding -= 1;
        this.#host.outstandingCalls -= 1;
        this.#charge(-call.requestBytes);
        service.recycle(call);
        this.destroy('a record that is not an RPC call');
        break;
      }
      if (this.#isAtBound()) this.#block();
    }
    this.#isServing = false;
    this.#chargePartial(this.#isEnding ? 0 : records.partialBytes);
    this.#recycle();
    this.#flush();
  }

  #isAtBound(): boolean {
    const limits = this.#host.limits;
    return (
      this.inFlightBytes >= limits.connectionBytesMax ||
      this.outstanding >= limits.outstandingCallsMax ||
      this.#segmentsBytes + this.#batchBytes >= limits.unsentBytesMax ||
      this.#host.isOverloaded(this)
    );
  }

  #isBelowHalf(): boolean {
    const limits = this.#host.limits;
    return (
      this.inFlightBytes <= limits.connectionBytesMax / 2 &&
      this.outstanding <= limits.outstandingCallsMax / 2 &&
      this.#segmentsBytes + this.#batchBytes <= limits.unsentBytesMax / 2 &&
      !this.#host.isOverloaded(this)
    );
  }

  #block(): void {
    // `receive` says so to the socket; in `turn` it is not reading yet.
    this.#isBlocked = true;
    this.#host.observer.paused();
    // Everything may be free again by the end of this turn: nothing else would come to look.
    this.#host.atEndOfTurn(this);
  }

  #flush(): void {
    if (this.#batch.length > 0 || this.#segments.length === 0 || this.#isClosed) return;
    const batch = this.#segments;
    this.#segments = this.#batch;
    this.#batch = batch;
    this.#batchBytes = this.#segmentsBytes;
    this.#segmentsBytes = 0;
    const socket = this.#socket;
    if (batch.length > 1) socket.cork();
    for (let i = 0; i < batch.length; i++) {
      const { buffer, start, end } = batch[i]!;
      socket.write(buffer.bytes.subarray(start, end));
    }
    if (batch.length > 1) socket.uncork();
    // The system took all of it: a callback would cost a turn of its own. Otherwise nothing, behind what is under way, says when it has.
    if (socket.writableLength === 0) this.#sent();
    else socket.write(NOTHING, this.#onSent);
  }

  #sent(): void {
    // After an error the bytes stay pinned until `close`: libuv may still read them.
    if (this.#isClosed || this.#batch.length === 0 || this.#socket.destroyed) return;
    this.hasSent = true;
    this.#host.observer.sent(this.#batchBytes);
    this.#releaseAll(this.#batch);
    this.#batchBytes = 0;
    this.#flush();
    if (this.#isBlocked) this.#host.atEndOfTurn(this);
    this.#endIfDone();
  }

  #endIfDone(): void {
    if (this.isIdle && (this.#isEnding || (this.#isInputEnded && !this.#isBlocked))) this.#socket.end();
  }

  #onClose(): void {
    this.#isClosed = true;
    this.#isEnding = true;
    this.#releaseAll(this.#batch);
    this.#releaseAll(this.#segments);
    this.#batchBytes = 0;
    this.#segmentsBytes = 0;
    this.#records.clear();
    this.#chargePartial(0);
    this.#host.closed(this, this.#closeReason);
  }

  #releaseAll(segments: Segment[]): void {
    for (let i = 0; i < segments.length; i++) this.#unpin(segments[i]!.buffer, segments[i]!.pins);
    segments.length = 0;
  }

  #unpin(buffer: SendBuffer, pins: number): void {
    buffer.pins -= pins;
    if (buffer.pins > 0) return;
    if (buffer === this.#slab) this.#slab = null;
    this.#charge(-buffer.bytes.length);
    this.#host.pool.give(buffer);
  }

  #charge(bytes: number): void {
    this.inFlightBytes += bytes;
    this.#host.charge(bytes);
  }

  #chargePartial(partialBytes: number): void {
    const change = partialBytes - this.#partialBytes;
    if (change === 0) return;
    this.#partialBytes = partialBytes;
    // Last, because the host may answer with `destroy`.
    this.#host.chargePartial(change);
  }

  #recycle(): void {
    const finished = this.#finished;
    for (let i = 0; i < finished.length; i++) this.#host.service.recycle(finished[i]!);
    finished.length = 0;
  }
}
