/**
 * Port between the RPC layer and the programs it serves (RFC 5531): NFS, MOUNT, port mapper are RpcPrograms.
 */
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { XdrReader } from './xdr-reader.ts';
import type { XdrWriter } from './xdr-writer.ts';

/** Checked credential of a call. AUTH_NONE calls have uid and gid 65534 (nobody), no gids, empty machine name. */
export interface RpcCredential {
  readonly flavor: 'none' | 'sys';
  readonly uid: number;
  readonly gid: number;
  readonly gids: readonly number[];
  readonly machineName: string;
  readonly stamp: number;
}

/**
 * One call, from the moment its header and credential were accepted until its reply is queued.
 *
 * `args` is positioned at the procedure's arguments. It reads from the received chunks without copying; slices it hands out stay valid
 * as long as they are referenced (chunks are never reused).
 */
export interface RpcCall {
  readonly xid: number;
  readonly program: number;
  readonly version: number;
  readonly procedure: number;
  readonly credential: RpcCredential;
  readonly clientAddress: string;
  readonly clientPort: number;
  readonly transport: 'tcp' | 'udp';
  readonly args: XdrReader;
  /** 128-bit hash (hex) of the whole call message with its credential, xid excluded. Computed when first asked for. */
  messageHash(): string;
  /**
   * Starts the accepted/SUCCESS reply: a writer positioned behind the RPC header, with room for `resultBytesMax` bytes of results.
   * The room is part of the connection's send slab: no copy follows. To answer later, keep the writer and call `finish` later, or better
   * begin when the results are there: room that is reserved holds its slab. Begun again, what was begun before is dropped.
   */
  beginReply(resultBytesMax: number): XdrWriter;
  /**
   * Queues the reply begun; it is sent with the other replies of this loop turn in one write. The call is over: its object serves another
   * one after this turn, unless a promise that `dispatch` returned is still pending.
   */
  finish(writer: XdrWriter): void;
}

/** What `dispatch` says when the call cannot be executed (accept_stat, RFC 5531 §9); null = it replies (or has replied) through the call. */
export type DispatchRefusal = null | 'procedure-unavailable' | 'garbage-args' | 'system-error' | 'auth-too-weak';

export interface RpcProgram {
  readonly program: number;
  readonly versionFirst: number;
  readonly versionLast: number;
  /** Name for metrics and logs: `nfs`, `mount`, `portmap`. */
  readonly name: string;
  /** Procedure name for metrics and logs. */
  procedureName(version: number, procedure: number): string;
  /** True for procedures whose reply must be remembered for retransmissions (not idempotent): the duplicate request cache serves them. */
  isCached(version: number, procedure: number): boolean;
  /** Executes a call. An XdrError thrown while decoding is GARBAGE_ARGS; any other rejection is a bug: SYSTEM_ERR and a log line. */
  dispatch(call: RpcCall): MaybePromise<DispatchRefusal>;
}
