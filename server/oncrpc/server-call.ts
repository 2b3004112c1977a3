/** The one implementation of RpcCall, and the seam between a call and the socket that its reply goes out on. */
import { createHash } from 'node:crypto';

import { assert } from '../core/assert.ts';
import type { CallKey } from './duplicate-request-cache.ts';
import { NO_CREDENTIAL } from './rpc-credential.ts';
import { ACCEPT_SUCCESS, ACCEPTED_HEADER_BYTES, AUTH_NONE, MSG_REPLY, REPLY_ACCEPTED } from './rpc-message.ts';
import type { RpcCall, RpcCredential } from './rpc-program.ts';
import type { SendBuffer } from './send-buffer.ts';
import { XdrReader } from './xdr-reader.ts';
import { XdrWriter } from './xdr-writer.ts';

const EMPTY = Buffer.alloc(0);

/** Room in front of every reply for the record mark; datagrams leave it unused. */
export const RECORD_MARK_BYTES = 4;

/** No reply is meant to be near this; it keeps sizes within 31 bits. */
const REPLY_BYTES_MAX = 256 * 1024 * 1024;

/** Where a call came from: gives room for its reply and sends it. */
export interface ReplyPath {
  readonly transport: 'tcp' | 'udp';
  readonly clientAddress: string;
  readonly clientPort: number;
  /** Sets `region`, `regionStart` and `regionEnd` of the call to `sizeBytes` of memory. */
  reserve(call: ServerCall, sizeBytes: number): void;
  /** Gives the room reserved last back, unsent. */
  cancel(call: ServerCall): void;
  /** Queues bytes [regionStart, replyEnd) of the call's region. The call is over. */
  send(call: ServerCall): void;
}

/** Hears that a reply is complete, before it is queued. */
export interface ReplyListener {
  replyReady(call: ServerCall): void;
}

/**
 * `running`: accepted, no reply begun. `replying`: a region is reserved. `finished`: the reply is queued; the object may serve another
 * call as soon as the loop turn is over.
 */
type Phase = 'free' | 'running' | 'replying' | 'finished';

/** A call in the server. Objects are used again and again, so a program must not touch a call after the turn in which it finished it. */
export class ServerCall implements RpcCall {
  xid = 0;
  program = 0;
  version = 0;
  procedure = 0;
  credential: RpcCredential = NO_CREDENTIAL;
  readonly args: XdrReader = new XdrReader([]);
  path: ReplyPath;
  phase: Phase = 'free';
  /** Bytes of the call message; they count against the connection until the reply is queued. */
  requestBytes = 0;
  /** Set while the duplicate request cache waits for the reply. */
  key: CallKey | null = null;
  /** A promise of the program still refers to this call. */
  isAwaited = false;

  region: SendBuffer | null = null;
  regionStart = 0;
  regionEnd = 0;
  replyEnd = 0;

  readonly #writer: XdrWriter = new XdrWriter(EMPTY);
  readonly #listener: ReplyListener;
  #buffer: Buffer = EMPTY;
  #start = 0;
  #end = 0;
  #chunks: Buffer[] | null = null;

  constructor(path: ReplyPath, listener: ReplyListener) {
    this.path = path;
    this.#listener = listener;
  }

  get clientAddress(): string {
    return this.path.clientAddress;
  }

  get clientPort(): number {
    return this.path.clientPort;
  }

  get transport(): 'tcp' | 'udp' {
    return this.path.transport;
  }

  /** Makes this the call whose message is bytes [start, end) of `buffer`, or `chunks` where they are given. */
  load(path: ReplyPath, buffer: Buffer, start: number, end: number, chunks: Buffer[] | null): void {
    assert(this.phase === 'free', 'ServerCall: loaded while in use');
    this.path = path;
    this.phase = 'running';
    this.#buffer = buffer;
    this.#start = start;
    this.#end = end;
    this.#chunks = chunks;
    if (chunks === null) this.args.reset(buffer, start, end);
    else this.args.resetChunks(chunks);
    this.requestBytes = this.args.remaining;
  }

  /** Forgets everything, so that an idle object keeps no memory alive. */
  free(): void {
    this.phase = 'free';
    this.key = null;
    this.args.release();
    this.#buffer = EMPTY;
    this.#chunks = null;
    this.credential = NO_CREDENTIAL;
  }

  messageHash(): string {
    return this.digest('').toString('hex', 0, 16);
  }

  /** sha256 of `prefix` and the call message without its xid. */
  digest(prefix: string): Buffer {
    const hash = createHash('sha256').update(prefix, 'latin1');
    if (this.#chunks === null) return hash.update(this.#buffer.subarray(this.#start + 4, this.#end)).digest();
    let skip = 4;
    for (const chunk of this.#chunks) {
      if (chunk.length > skip) hash.update(chunk.subarray(skip));
      skip = Math.max(skip - chunk.length, 0);
    }
    return hash.digest();
  }

  beginReply(resultBytesMax: number): XdrWriter {
    const writer = this.beginMessage(ACCEPTED_HEADER_BYTES + resultBytesMax);
    writer.uint32(this.xid);
    writer.uint32(MSG_REPLY);
    writer.uint32(REPLY_ACCEPTED);
    writer.uint32(AUTH_NONE);
    writer.uint32(0);
    writer.uint32(ACCEPT_SUCCESS);
    writer.reset(this.region!.bytes, this.regionStart + RECORD_MARK_BYTES + ACCEPTED_HEADER_BYTES, this.regionEnd);
    return writer;
  }

  /** Starts a reply message of any kind: a writer at its xid. Drops the reply begun before, if any. */
  beginMessage(messageBytesMax: number): XdrWriter {
    if (this.phase === 'replying') this.path.cancel(this);
    else assert(this.phase === 'running', 'RpcCall: reply begun after the call was finished');
    assert(messageBytesMax <= REPLY_BYTES_MAX, 'RpcCall: a program must bound the size of its replies itself');
    this.path.reserve(this, RECORD_MARK_BYTES + messageBytesMax);
    this.phase = 'replying';
    this.#writer.reset(this.region!.bytes, this.regionStart + RECORD_MARK_BYTES, this.regionEnd);
    return this.#writer;
  }

  finish(writer: XdrWriter): void {
    assert(writer === this.#writer, 'RpcCall: finished with a writer of another call');
    this.finishAt(writer.endOffset);
  }

  /** Queues the reply that ends at byte `replyEnd` of the region's buffer. */
  finishAt(replyEnd: number): void {
    assert(this.phase === 'replying', 'RpcCall: finished twice, or without a reply begun');
    this.phase = 'finished';
    this.replyEnd = replyEnd;
    if (this.key !== null) this.#listener.replyReady(this);
    this.path.send(this);
  }

  /** The reply message from its xid on: valid until it is sent. */
  replyMessage(): Buffer {
    return this.region!.bytes.subarray(this.regionStart + RECORD_MARK_BYTES, this.replyEnd);
  }
}
