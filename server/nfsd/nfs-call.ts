/** One NFS call while it is served: the Caller that the FileSystem sees, the reply being written, and what the observer is told. */
import { crc32 } from 'node:zlib';

import { assert } from '../core/assert.ts';
import { isPending } from '../core/maybe-promise.ts';
import type { RpcCall } from '../oncrpc/rpc-program.ts';
import type { XdrReader } from '../oncrpc/xdr-reader.ts';
import type { XdrWriter } from '../oncrpc/xdr-writer.ts';
import type { ExportDecision } from './export-access.ts';
import type { Attributes, Caller, ErrorStatus, FileSystem, Handle, Later, ReadAnswer, WriteAnswer } from './file-system.ts';
import { Status } from './file-system.ts';
import { encodePostOpAttributes, encodeWcc, WCC_DATA_BYTES_MAX } from './nfs-wire.ts';
import { FAILURE_SHAPES } from './procedure-table.ts';

/** What every procedure gets. */
export interface NfsContext {
  readonly fileSystem: FileSystem;
  /** A READ of more is answered with this much (never an error: esxi.md 1.2). */
  readonly readBytesMax: number;
  /** A READDIR or READDIRPLUS page is never longer, whatever the client asks. */
  readonly readdirBytesMax: number;
}

/** What a call that is answered later tells the program that serves it. */
export interface LateCalls {
  /** Its reply is queued. */
  finished(call: NfsCall): void;
  /** It cannot be answered because of a bug. */
  broken(call: NfsCall, error: unknown): void;
}

const NO_GIDS: readonly number[] = [];
const NO_TARGET = Buffer.alloc(0);

export class NfsCall implements Caller, Later<ReadAnswer | WriteAnswer> {
  readonly rpc: RpcCall;
  readonly procedure: number;
  readonly uid: number;
  readonly gid: number;
  readonly gids: readonly number[];
  readonly address: string;
  /** The export is read-only for this client. */
  readonly readOnly: boolean;
  readonly startedMs: number;
  /** nfsstat3 of the reply; -1 until there is one. */
  status = -1;
  bytesRead = 0;
  bytesWritten = 0;
  /** The file system answers it by `settle`, without a promise: `reply` writes what it says. READ's bytes are in `target` then. */
  isLate = false;
  reply: ((call: NfsCall, answer: never) => void) | null = null;
  target: Buffer = NO_TARGET;
  readonly #late: LateCalls;
  #writer: XdrWriter | null = null;
  #start = 0;
  #operationId: string | null = null;

  constructor(rpc: RpcCall, decision: Exclude<ExportDecision, 'denied'>, startedMs: number, late: LateCalls) {
    const credential = rpc.credential;
    const squashed = decision.squash !== 'none' && (decision.squash === 'all' || credential.uid === 0);
    this.rpc = rpc;
    this.procedure = rpc.procedure;
    this.uid = squashed ? decision.anonymousUid : credential.uid;
    this.gid = squashed ? decision.anonymousGid : credential.gid;
    this.gids = squashed ? NO_GIDS : credential.gids;
    this.address = rpc.clientAddress;
    this.readOnly = decision.readOnly;
    this.startedMs = startedMs;
    this.#late = late;
  }

  get args(): XdrReader {
    return this.rpc.args;
  }

  operationId(): string {
    if (this.#operationId === null) {
      const { clientAddress, credential, xid } = this.rpc;
      this.#operationId = `${clientAddress}|${credential.machineName}|${credential.stamp}|${xid}|${this.rpc.messageHash()}`;
    }
    return this.#operationId;
  }

  writeIdentity(offsetBytes: number, countBytes: number, chunks: readonly Uint8Array[], into: Uint32Array): number {
    const { clientAddress, credential, xid } = this.rpc;
    let crc = 0;
    for (const chunk of chunks) crc = crc32(chunk, crc);
    into[0] = crc32(`${clientAddress}|${credential.machineName}|${credential.stamp}|${credential.uid}`);
    into[1] = xid;
    into[2] = crc;
    into[3] = (offsetBytes % 0x1_0000_0000) ^ Math.imul(Math.floor(offsetBytes / 0x1_0000_0000), 0x9e37_79b1) ^ Math.imul(countBytes, 0x85eb_ca6b);
    return crc;
  }

  settle(answer: ReadAnswer | WriteAnswer): void {
    assert(this.reply !== null, 'an answer to a call that waits for none');
    try {
      this.reply(this, answer as never);
    } catch (error) {
      this.#late.broken(this, error);
    }
  }

  broken(error: unknown): void {
    this.#late.broken(this, error);
  }

  /** Starts the reply; `resultBytesMax` includes the status word. */
  begin(resultBytesMax: number): XdrWriter {
    assert(this.#writer === null, 'a call is answered once');
    const writer = this.rpc.beginReply(resultBytesMax);
    this.#writer = writer;
    this.#start = writer.position;
    return writer;
  }

  /** The writer of a reply that was begun, back at its first byte. */
  beginAgain(): XdrWriter {
    assert(this.#writer !== null, 'no reply was begun');
    this.#writer.rewind(this.#start);
    return this.#writer;
  }

  /** Queues the reply. */
  finish(status: number): void {
    assert(this.#writer !== null && this.status === -1, 'finish follows begin, once');
    this.status = status;
    this.rpc.finish(this.#writer);
    if (this.isLate) this.#late.finished(this);
  }

  /**
   * Answers with a resfail: `attributes` are the object's or (first) directory's after the operation; `second` those of RENAME's target
   * directory or LINK's directory. A reply that was begun is dropped.
   */
  fail(status: ErrorStatus, attributes: Attributes | null = null, second: Attributes | null = null): void {
    const writer = this.#writer === null ? this.begin(4 + 2 * WCC_DATA_BYTES_MAX) : this.beginAgain();
    writer.uint32(status);
    switch (FAILURE_SHAPES[this.procedure]) {
      case 'post-op':
        encodePostOpAttributes(writer, attributes);
        break;
      case 'wcc':
        encodeWcc(writer, { before: null, after: attributes });
        break;
      case 'two-wcc':
        encodeWcc(writer, { before: null, after: attributes });
        encodeWcc(writer, { before: null, after: second });
        break;
      case 'post-op-and-wcc':
        encodePostOpAttributes(writer, attributes);
        encodeWcc(writer, { before: null, after: second });
        break;
      default:
    }
    this.finish(status);
  }
}

/**
 * Refuses a call for a reason that nfsd itself found (a bad name, a bad count), with the attributes that RFC 1813 §3.1 asks for. A
 * handle that is no good is the better answer, then that is given.
 */
export function refuse(context: NfsContext, call: NfsCall, status: ErrorStatus, object: Handle, second: Handle | null = null): void | Promise<void> {
  const first = context.fileSystem.getattr(call, object);
  const other = second === null ? null : context.fileSystem.getattr(call, second);
  const reply = (a: Awaited<typeof first>, b: Awaited<typeof other>): void => {
    if (a.status !== Status.OK) return call.fail(a.status, null, b?.status === Status.OK ? b.attributes : null);
    if (b !== null && b.status !== Status.OK) return call.fail(b.status, a.attributes);
    call.fail(status, a.attributes, b?.attributes ?? null);
  };
  if (!isPending(first) && (other === null || !isPending(other))) return reply(first, other);
  return Promise.all([first, other]).then(([a, b]) => reply(a, b));
}
