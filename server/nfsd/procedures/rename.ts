/** RENAME and LINK, RFC 1813 §3.3.14, §3.3.15. */
import { isPending } from '../../core/maybe-promise.ts';
import type { XdrReader } from '../../oncrpc/xdr-reader.ts';
import type { Attributes, Status, Wcc } from '../file-system.ts';
import { decodeName, newNameError, oldNameError } from '../names.ts';
import { refuse } from '../nfs-call.ts';
import type { NfsCall, NfsContext } from '../nfs-call.ts';
import {
  decodeHandle,
  decodePostOpAttributes,
  decodeStatus,
  decodeWcc,
  encodePostOpAttributes,
  encodeWcc,
  POST_OP_ATTR_BYTES_MAX,
  WCC_DATA_BYTES_MAX,
} from '../nfs-wire.ts';

export interface RenameResult {
  readonly status: Status;
  readonly fromWcc: Wcc;
  readonly toWcc: Wcc;
}

export interface LinkResult {
  readonly status: Status;
  readonly attributes: Attributes | null;
  readonly directoryWcc: Wcc;
}

/** RENAME3args: struct { diropargs3 from; diropargs3 to; } */
export function serveRename(context: NfsContext, call: NfsCall): void | Promise<void> {
  const fromDirectory = decodeHandle(call.args);
  const fromName = decodeName(call.args);
  const toDirectory = decodeHandle(call.args);
  const toName = decodeName(call.args);
  call.args.assertEnd();
  const error = oldNameError(fromName) ?? oldNameError(toName);
  if (error !== null) return refuse(context, call, error, fromDirectory, toDirectory);
  const result = context.fileSystem.rename(call, fromDirectory, fromName, toDirectory, toName);
  if (isPending(result)) return result.then((settled) => replyRename(call, settled));
  replyRename(call, result);
}

/** RENAME3resok and resfail: struct { wcc_data fromdir_wcc; wcc_data todir_wcc; } */
function replyRename(call: NfsCall, result: RenameResult): void {
  const writer = call.begin(4 + 2 * WCC_DATA_BYTES_MAX);
  writer.uint32(result.status);
  encodeWcc(writer, result.fromWcc);
  encodeWcc(writer, result.toWcc);
  call.finish(result.status);
}

export function decodeRenameResult(reader: XdrReader): RenameResult {
  return { status: decodeStatus(reader), fromWcc: decodeWcc(reader), toWcc: decodeWcc(reader) };
}

/** LINK3args: struct { nfs_fh3 file; diropargs3 link; } */
export function serveLink(context: NfsContext, call: NfsCall): void | Promise<void> {
  const object = decodeHandle(call.args);
  const directory = decodeHandle(call.args);
  const name = decodeName(call.args);
  call.args.assertEnd();
  const error = newNameError(name);
  if (error !== null) return refuse(context, call, error, object, directory);
  const result = context.fileSystem.link(call, object, directory, name);
  if (isPending(result)) return result.then((settled) => replyLink(call, settled));
  replyLink(call, result);
}

/** LINK3resok and resfail: struct { post_op_attr file_attributes; wcc_data linkdir_wcc; } */
function replyLink(call: NfsCall, result: LinkResult): void {
  const writer = call.begin(4 + POST_OP_ATTR_BYTES_MAX + WCC_DATA_BYTES_MAX);
  writer.uint32(result.status);
  encodePostOpAttributes(writer, result.attributes);
  encodeWcc(writer, result.directoryWcc);
  call.finish(result.status);
}

export function decodeLinkResult(reader: XdrReader): LinkResult {
  return { status: decodeStatus(reader), attributes: decodePostOpAttributes(reader), directoryWcc: decodeWcc(reader) };
}
