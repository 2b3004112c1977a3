/** ONC RPC client (RFC 5531): tests, benchmarks and health checks use it. */
import dgram from 'node:dgram';
import net from 'node:net';

import { ApplianceError } from '../core/errors.ts';
import { systemClock, systemRandom } from '../core/node-time.ts';
import type { Clock, Random } from '../core/time.ts';
import { RecordReader } from './record-reader.ts';
import { encodeCredential, NO_CREDENTIAL } from './rpc-credential.ts';
import {
  ACCEPT_GARBAGE_ARGS,
  ACCEPT_PROC_UNAVAIL,
  ACCEPT_PROG_MISMATCH,
  ACCEPT_PROG_UNAVAIL,
  ACCEPT_SUCCESS,
  AUTH_BODY_BYTES_MAX,
  AUTH_NONE,
  MSG_CALL,
  MSG_REPLY,
  REJECT_AUTH_ERROR,
  REPLY_ACCEPTED,
  RPC_VERSION,
} from './rpc-message.ts';
import type { Refusal } from './rpc-message.ts';
import type { RpcCredential } from './rpc-program.ts';
import { XdrReader } from './xdr-reader.ts';
import { XdrWriter } from './xdr-writer.ts';

const CALL_HEADER_BYTES_MAX = 24 + 2 * (8 + AUTH_BODY_BYTES_MAX);
const RECORD_MARK_BYTES = 4;
const DEFAULT_ARGS_BYTES_MAX = 4096;
const DEFAULT_RECORD_BYTES_MAX = 4 * 1024 * 1024 + 64 * 1024;

/** The server answered that it does not execute the call. */
export class RpcRejectedError extends Error {
  readonly refusal: Refusal;

  constructor(refusal: Refusal) {
    super(`RPC call refused: ${JSON.stringify(refusal)}`);
    this.name = 'RpcRejectedError';
    this.refusal = refusal;
  }
}

export interface RpcCallOptions {
  /** Gives up after this time with ApplianceError `rpc-timeout`; the call may still be executed. Default: waits for ever. */
  readonly timeoutMs?: number;
  /** Room for the arguments. */
  readonly argsBytesMax?: number;
  /** Instead of the client's own. */
  readonly credential?: RpcCredential;
  /** Instead of the next one: for retransmissions. */
  readonly xid?: number;
}

export interface RpcClientOptions {
  readonly host: string;
  readonly port: number;
  /** Source address and port, for servers that look at them. */
  readonly localAddress?: string;
  readonly localPort?: number;
  readonly credential?: RpcCredential;
  readonly connectTimeoutMs?: number;
  /** Longest reply accepted. */
  readonly recordBytesMax?: number;
  readonly clock?: Clock;
  readonly random?: Random;
}

interface Waiting {
  readonly resolve: (results: XdrReader) => void;
  readonly reject: (error: Error) => void;
  readonly cancelTimeout: (() => void) | null;
}

/** An AUTH_SYS credential with plausible defaults. */
export function authSys(fields: Partial<Omit<RpcCredential, 'flavor'>> = {}): RpcCredential {
  return { flavor: 'sys', uid: 0, gid: 0, gids: [], machineName: 'vferry', stamp: 0, ...fields };
}

/**
 * One TCP connection with any number of calls outstanding; replies may come in any order. When the connection ends, whatever is
 * outstanding fails with ApplianceError `rpc-connection-lost`; connecting again is the caller's matter.
 */
export class RpcClient {
  readonly #socket: net.Socket;
  readonly #clock: Clock;
  readonly #credential: Buffer;
  readonly #records: RecordReader;
  readonly #waiting = new Map<number, Waiting>();
  #nextXid: number;
  #isCorked = false;
  #lost: ApplianceError | null = null;
  readonly #closed: Promise<void>;

  private constructor(socket: net.Socket, options: RpcClientOptions) {
    this.#socket = socket;
    this.#clock = options.clock ?? systemClock;
    this.#credential = encodeCredential(options.credential ?? NO_CREDENTIAL);
    this.#records = new RecordReader(options.recordBytesMax ?? DEFAULT_RECORD_BYTES_MAX);
    // Random: a server remembers replies by xid, also those to an earlier connection of this host.
    this.#nextXid = (options.random ?? systemRandom).bytes(4).readUInt32BE(0);
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('error', (error) => this.#fail(error));
    this.#closed = new Promise((resolve) => {
      socket.on('close', () => {
        this.#fail(null);
        resolve();
      });
    });
  }

  /** @throws ApplianceError `rpc-connect-failed`. */
  static connect(options: RpcClientOptions): Promise<RpcClient> {
    const clock = options.clock ?? systemClock;
    return new Promise((resolve, reject) => {
      const socket = net.connect({
        host: options.host,
        port: options.port,
        noDelay: true,
        ...(options.localAddress === undefined ? {} : { localAddress: options.localAddress }),
        ...(options.localPort === undefined ? {} : { localPort: options.localPort }),
      });
      const fail = (cause: unknown): void => {
        socket.destroy();
        reject(new ApplianceError('rpc-connect-failed', `cannot connect to ${options.host} port ${options.port}`, { retryable: true, cause }));
      };
      const cancelTimeout = clock.after(options.connectTimeoutMs ?? 10_000, () => fail(new Error('timeout')));
      socket.once('error', (error) => {
        cancelTimeout();
        fail(error);
      });
      socket.once('connect', () => {
        cancelTimeout();
        socket.removeAllListeners('error');
        resolve(new RpcClient(socket, options));
      });
    });
  }

  get localPort(): number {
    return this.#socket.localPort ?? 0;
  }

  /** Calls without a reply yet. */
  get outstanding(): number {
    return this.#waiting.size;
  }

  /**
   * Calls a procedure; all calls of one turn leave in one write. Resolves to a reader at the results.
   * @throws RpcRejectedError when the server refuses it; ApplianceError `rpc-timeout`, `rpc-connection-lost`, `rpc-bad-reply`.
   */
  call(
    program: number,
    version: number,
    procedure: number,
    encodeArgs: ((args: XdrWriter) => void) | null,
    options: RpcCallOptions = {},
  ): Promise<XdrReader> {
    const xid = options.xid ?? this.#takeXid();
    const credential = options.credential === undefined ? this.#credential : encodeCredential(options.credential);
    const argsBytesMax = encodeArgs === null ? 0 : (options.argsBytesMax ?? DEFAULT_ARGS_BYTES_MAX);
    const record = encodeCall(xid, program, version, procedure, credential, encodeArgs, argsBytesMax);
    return new Promise((resolve, reject) => {
      if (this.#lost !== null) {
        reject(this.#lost);
        return;
      }
      let cancelTimeout: (() => void) | null = null;
      if (options.timeoutMs !== undefined) {
        cancelTimeout = this.#clock.after(options.timeoutMs, () => {
          this.#waiting.delete(xid);
          reject(timeoutError(program, procedure, options.timeoutMs));
        });
      }
      this.#waiting.set(xid, { resolve, reject, cancelTimeout });
      this.#send(record);
    });
  }

  /** Sends bytes as they are, outside of any call: for tests of what a server does with them. */
  sendRaw(bytes: Buffer): void {
    this.#socket.write(bytes);
  }

  /** Stops and restarts reading, as a client does that cannot keep up. */
  pauseReading(): void {
    this.#socket.pause();
  }

  resumeReading(): void {
    this.#socket.resume();
  }

  /** Resolves when the connection has ended, whoever ended it. */
  closed(): Promise<void> {
    return this.#closed;
  }

  /** Closes the connection; outstanding calls fail. */
  async close(): Promise<void> {
    this.#socket.destroy();
    await this.#closed;
  }

  #takeXid(): number {
    do this.#nextXid = (this.#nextXid + 1) >>> 0;
    while (this.#waiting.has(this.#nextXid));
    return this.#nextXid;
  }

  #send(record: Buffer): void {
    if (!this.#isCorked) {
      this.#isCorked = true;
      this.#socket.cork();
      process.nextTick(() => {
        this.#isCorked = false;
        this.#socket.uncork();
      });
    }
    this.#socket.write(record);
  }

  #receive(chunk: Buffer): void {
    this.#records.push(chunk);
    for (;;) {
      const state = this.#records.next();
      if (state === 'more') return;
      if (state !== 'record') {
        this.#socket.destroy(new Error(`reply ${state}`));
        return;
      }
      const { buffer, start, end, chunks } = this.#records;
      const reader = new XdrReader([]);
      if (chunks === null) reader.reset(buffer, start, end);
      else reader.resetChunks(chunks);
      this.#reply(reader);
    }
  }

  #reply(reader: XdrReader): void {
    if (reader.remaining < 8) {
      this.#socket.destroy(new Error('reply too short'));
      return;
    }
    const xid = reader.uint32();
    const waiting = this.#waiting.get(xid);
    // Late: its call has timed out.
    if (waiting === undefined) return;
    this.#waiting.delete(xid);
    waiting.cancelTimeout?.();
    let refusal: Refusal | null;
    try {
      refusal = readReplyHeader(reader);
    } catch (cause) {
      waiting.reject(new ApplianceError('rpc-bad-reply', 'the server sent a reply that does not decode', { cause }));
      return;
    }
    if (refusal === null) waiting.resolve(reader);
    else waiting.reject(new RpcRejectedError(refusal));
  }

  #fail(cause: Error | null): void {
    this.#lost ??= new ApplianceError('rpc-connection-lost', 'the RPC connection has ended', { retryable: true, cause });
    for (const waiting of this.#waiting.values()) {
      waiting.cancelTimeout?.();
      waiting.reject(this.#lost);
    }
    this.#waiting.clear();
  }
}

export interface UdpCallOptions extends RpcCallOptions {
  readonly host: string;
  readonly port: number;
  readonly timeoutMs: number;
  readonly clock?: Clock;
  readonly random?: Random;
}

/**
 * One call by UDP, sent once (again: call again). Resolves to a reader at the results.
 * @throws RpcRejectedError; ApplianceError `rpc-timeout`, `rpc-send-failed`, `rpc-bad-reply`.
 */
export function callUdp(
  program: number,
  version: number,
  procedure: number,
  encodeArgs: ((args: XdrWriter) => void) | null,
  options: UdpCallOptions,
): Promise<XdrReader> {
  const xid = options.xid ?? (options.random ?? systemRandom).bytes(4).readUInt32BE(0);
  const credential = encodeCredential(options.credential ?? NO_CREDENTIAL);
  const record = encodeCall(xid, program, version, procedure, credential, encodeArgs, options.argsBytesMax ?? DEFAULT_ARGS_BYTES_MAX);
  const socket = dgram.createSocket(options.host.includes(':') ? 'udp6' : 'udp4');
  return new Promise<XdrReader>((resolve, reject) => {
    const cancelTimeout = (options.clock ?? systemClock).after(options.timeoutMs, () => reject(timeoutError(program, procedure, options.timeoutMs)));
    const fail = (cause: Error): void => {
      cancelTimeout();
      reject(new ApplianceError('rpc-send-failed', `cannot send to UDP ${options.host} port ${options.port}`, { retryable: true, cause }));
    };
    socket.on('error', fail);
    socket.on('message', (message) => {
      const reader = new XdrReader([message]);
      if (reader.remaining < 8 || reader.uint32() !== xid) return;
      cancelTimeout();
      try {
        const refusal = readReplyHeader(reader);
        if (refusal === null) resolve(reader);
        else reject(new RpcRejectedError(refusal));
      } catch (cause) {
        reject(new ApplianceError('rpc-bad-reply', 'the server sent a reply that does not decode', { cause }));
      }
    });
    socket.send(record.subarray(RECORD_MARK_BYTES), options.port, options.host, (error) => {
      if (error !== null) fail(error);
    });
  }).finally(() => socket.close());
}

/** A call as one record with its mark. `credential` is encoded with flavor and length. */
export function encodeCall(
  xid: number,
  program: number,
  version: number,
  procedure: number,
  credential: Buffer,
  encodeArgs: ((args: XdrWriter) => void) | null,
  argsBytesMax: number,
): Buffer {
  const record = Buffer.allocUnsafe(RECORD_MARK_BYTES + CALL_HEADER_BYTES_MAX + argsBytesMax);
  const writer = new XdrWriter(record, RECORD_MARK_BYTES);
  writer.uint32(xid);
  writer.uint32(MSG_CALL);
  writer.uint32(RPC_VERSION);
  writer.uint32(program);
  writer.uint32(version);
  writer.uint32(procedure);
  writer.fixed(credential);
  writer.uint32(AUTH_NONE);
  writer.uint32(0);
  if (encodeArgs !== null) encodeArgs(writer);
  record.writeUInt32BE((0x8000_0000 | writer.position) >>> 0, 0);
  return record.subarray(0, writer.endOffset);
}

/** Reads what stands between xid and results. Returns why the call was refused, or null. @throws XdrError. */
function readReplyHeader(reader: XdrReader): Refusal | null {
  if (reader.uint32() !== MSG_REPLY) throw new Error('not a reply');
  if (reader.uint32() !== REPLY_ACCEPTED) {
    if (reader.uint32() === REJECT_AUTH_ERROR) return { reason: 'auth-error', stat: reader.uint32() };
    return { reason: 'rpc-mismatch' };
  }
  reader.uint32();
  reader.opaque(AUTH_BODY_BYTES_MAX);
  switch (reader.uint32()) {
    case ACCEPT_SUCCESS:
      return null;
    case ACCEPT_PROG_UNAVAIL:
      return { reason: 'program-unavailable' };
    case ACCEPT_PROG_MISMATCH:
      return { reason: 'program-mismatch', low: reader.uint32(), high: reader.uint32() };
    case ACCEPT_PROC_UNAVAIL:
      return { reason: 'procedure-unavailable' };
    case ACCEPT_GARBAGE_ARGS:
      return { reason: 'garbage-args' };
    default:
      return { reason: 'system-error' };
  }
}

function timeoutError(program: number, procedure: number, timeoutMs: number | undefined): ApplianceError {
  return new ApplianceError('rpc-timeout', `no reply to program ${program} procedure ${procedure} within ${timeoutMs} ms`, { retryable: true });
}
