/** LOOKUP, RFC 1813 §3.3.3. */
import { isPending } from '../../core/maybe-promise.ts';
import type { XdrReader } from '../../oncrpc/xdr-reader.ts';
import type { Attributes, AttributedResult, Handle } from '../file-system.ts';
import { Status } from '../file-system.ts';
import { decodeName, nameError } from '../names.ts';
import { refuse } from '../nfs-call.ts';
import type { NfsCall, NfsContext } from '../nfs-call.ts';
import {
  decodeHandle,
  decodePostOpAttributes,
  decodeStatus,
  encodePostOpAttributes,
  errorStatus,
  HANDLE_BYTES_ENCODED_MAX,
  POST_OP_ATTR_BYTES_MAX,
} from '../nfs-wire.ts';

type LookupResult = AttributedResult<{ handle: Handle; attributes: Attributes | null; directoryAttributes: Attributes | null }>;

/** LOOKUP3args: struct { diropargs3 what; } with diropargs3: struct { nfs_fh3 dir; filename3 name; } */
export function serveLookup(context: NfsContext, call: NfsCall): void | Promise<void> {
  const directory = decodeHandle(call.args);
  const name = decodeName(call.args);
  call.args.assertEnd();
  const error = nameError(name);
  if (error !== null) return refuse(context, call, error, directory);
  const result = context.fileSystem.lookup(call, directory, name);
  if (isPending(result)) return result.then((settled) => reply(call, settled));
  reply(call, result);
}

/** LOOKUP3resok: struct { nfs_fh3 object; post_op_attr obj_attributes; post_op_attr dir_attributes; }; resfail: post_op_attr dir_attributes. */
function reply(call: NfsCall, result: LookupResult): void {
  if (result.status !== Status.OK) return call.fail(result.status, result.attributes);
  const writer = call.begin(4 + HANDLE_BYTES_ENCODED_MAX + 2 * POST_OP_ATTR_BYTES_MAX);
  writer.uint32(Status.OK);
  writer.opaque(result.handle);
  encodePostOpAttributes(writer, result.attributes);
  encodePostOpAttributes(writer, result.directoryAttributes);
  call.finish(Status.OK);
}

export function decodeLookupResult(reader: XdrReader): LookupResult {
  const status = decodeStatus(reader);
  if (status !== Status.OK) return { status: errorStatus(status), attributes: decodePostOpAttributes(reader) };
  return {
    status,
    handle: decodeHandle(reader),
    attributes: decodePostOpAttributes(reader),
    directoryAttributes: decodePostOpAttributes(reader),
  };
}
