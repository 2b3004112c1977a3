/** SETATTR, RFC 1813 §3.3.2. */
import { isPending } from '../../core/maybe-promise.ts';
import type { Timestamp } from '../../core/time.ts';
import type { XdrReader } from '../../oncrpc/xdr-reader.ts';
import type { XdrWriter } from '../../oncrpc/xdr-writer.ts';
import type { ErrorStatus, Handle, SetAttributes, WccResult } from '../file-system.ts';
import { Status } from '../file-system.ts';
import { refuse } from '../nfs-call.ts';
import type { NfsCall, NfsContext } from '../nfs-call.ts';
import { decodeHandle, decodeSetAttributes, decodeTime, encodeSetAttributes, encodeTime } from '../nfs-wire.ts';
import { replyWcc } from './wcc-result.ts';

/** SETATTR3args: struct { nfs_fh3 object; sattr3 new_attributes; sattrguard3 guard; } */
export interface SetattrArgs {
  readonly object: Handle;
  readonly changes: SetAttributes;
  /** sattrguard3: union switch (bool check) { case TRUE: nfstime3 obj_ctime; case FALSE: void; } */
  readonly guardCtime: Timestamp | null;
}

export function decodeSetattrArgs(reader: XdrReader): SetattrArgs {
  const args = {
    object: decodeHandle(reader),
    changes: decodeSetAttributes(reader),
    guardCtime: reader.bool() ? decodeTime(reader) : null,
  };
  reader.assertEnd();
  return args;
}

export function encodeSetattrArgs(writer: XdrWriter, args: SetattrArgs): void {
  writer.opaque(args.object);
  encodeSetAttributes(writer, args.changes);
  writer.bool(args.guardCtime !== null);
  if (args.guardCtime !== null) encodeTime(writer, args.guardCtime);
}

/**
 * What is wrong with the values of a sattr3, or null: a size that no file can have is FBIG (RFC 1813 §3.3.2 names NOSPC and DQUOT for lack of room, which
 * this is not), a time whose nanoseconds are a second or more is INVAL.
 */
export function setAttributesError(changes: SetAttributes): ErrorStatus | null {
  if (changes.sizeBytes !== null && changes.sizeBytes > Number.MAX_SAFE_INTEGER) return Status.FBIG;
  if (isBadTime(changes.atime) || isBadTime(changes.mtime)) return Status.INVAL;
  return null;
}

function isBadTime(time: Timestamp | 'server' | null): boolean {
  return time !== null && time !== 'server' && time.nanoseconds > 999_999_999;
}

export function serveSetattr(context: NfsContext, call: NfsCall): void | Promise<void> {
  const { object, changes, guardCtime } = decodeSetattrArgs(call.args);
  const error = setAttributesError(changes);
  if (error !== null) return refuse(context, call, error, object);
  const result = context.fileSystem.setattr(call, object, changes, guardCtime);
  if (isPending(result)) return result.then((settled: WccResult) => replyWcc(call, settled));
  replyWcc(call, result);
}
