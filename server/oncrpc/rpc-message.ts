/** Numbers of RFC 5531 §9 and the encoding of replies that carry no results. */
import type { XdrWriter } from './xdr-writer.ts';

export const MSG_CALL = 0;
export const MSG_REPLY = 1;
export const RPC_VERSION = 2;

export const REPLY_ACCEPTED = 0;
export const REPLY_DENIED = 1;

export const ACCEPT_SUCCESS = 0;
export const ACCEPT_PROG_UNAVAIL = 1;
export const ACCEPT_PROG_MISMATCH = 2;
export const ACCEPT_PROC_UNAVAIL = 3;
export const ACCEPT_GARBAGE_ARGS = 4;
export const ACCEPT_SYSTEM_ERR = 5;

export const REJECT_RPC_MISMATCH = 0;
export const REJECT_AUTH_ERROR = 1;

export const AUTH_NONE = 0;
export const AUTH_SYS = 1;
export const AUTH_SHORT = 2;

/** auth_stat values (RFC 5531 §9) that a server answers with. */
export const AUTH_BADCRED = 1;
export const AUTH_REJECTEDCRED = 2;
export const AUTH_BADVERF = 3;
export const AUTH_TOOWEAK = 5;

/** Body of a credential or verifier (RFC 5531 §8.2). */
export const AUTH_BODY_BYTES_MAX = 400;

/** xid, REPLY, MSG_ACCEPTED, verifier AUTH_NONE of length 0, accept_stat: what stands before the results. */
export const ACCEPTED_HEADER_BYTES = 24;

/** Why a call was not executed: the refusals of RFC 5531 §9, with what they carry. */
export type Refusal =
  | { readonly reason: 'rpc-mismatch' }
  | { readonly reason: 'auth-error'; readonly stat: number }
  | { readonly reason: 'program-unavailable' }
  | { readonly reason: 'program-mismatch'; readonly low: number; readonly high: number }
  | { readonly reason: 'procedure-unavailable' }
  | { readonly reason: 'garbage-args' }
  | { readonly reason: 'system-error' };
export type RefusalReason = Refusal['reason'];

/** Room that any refusal needs. */
export const REFUSAL_BYTES_MAX = 32;

/** Writes a reply message that says no. */
export function writeRefusal(writer: XdrWriter, xid: number, refusal: Refusal): void {
  writer.uint32(xid);
  writer.uint32(MSG_REPLY);
  switch (refusal.reason) {
    case 'rpc-mismatch':
      writer.uint32(REPLY_DENIED);
      writer.uint32(REJECT_RPC_MISMATCH);
      writer.uint32(RPC_VERSION);
      writer.uint32(RPC_VERSION);
      return;
    case 'auth-error':
      writer.uint32(REPLY_DENIED);
      writer.uint32(REJECT_AUTH_ERROR);
      writer.uint32(refusal.stat);
      return;
    case 'program-unavailable':
      writeAccepted(writer, ACCEPT_PROG_UNAVAIL);
      return;
    case 'program-mismatch':
      writeAccepted(writer, ACCEPT_PROG_MISMATCH);
      writer.uint32(refusal.low);
      writer.uint32(refusal.high);
      return;
    case 'procedure-unavailable':
      writeAccepted(writer, ACCEPT_PROC_UNAVAIL);
      return;
    case 'garbage-args':
      writeAccepted(writer, ACCEPT_GARBAGE_ARGS);
      return;
    case 'system-error':
      writeAccepted(writer, ACCEPT_SYSTEM_ERR);
  }
}

function writeAccepted(writer: XdrWriter, acceptStat: number): void {
  writer.uint32(REPLY_ACCEPTED);
  writer.uint32(AUTH_NONE);
  writer.uint32(0);
  writer.uint32(acceptStat);
}
