/** READLINK, RFC 1813 §3.3.5. */
import { isPending } from '../../core/maybe-promise.ts';
import type { XdrReader } from '../../oncrpc/xdr-reader.ts';
import type { Attributes, AttributedResult } from '../file-system.ts';
import { Status } from '../file-system.ts';
import type { NfsCall, NfsContext } from '../nfs-call.ts';
import {
  decodeHandle,
  decodePostOpAttributes,
  decodeStatus,
  encodePostOpAttributes,
  errorStatus,
  PATH_BYTES_MAX,
  POST_OP_ATTR_BYTES_MAX,
} from '../nfs-wire.ts';

type ReadlinkResult = AttributedResult<{ target: Uint8Array; attributes: Attributes | null }>;

/** READLINK3args: struct { nfs_fh3 symlink; } */
export function serveReadlink(context: NfsContext, call: NfsCall): void | Promise<void> {
  const object = decodeHandle(call.args);
  call.args.assertEnd();
  const result = context.fileSystem.readlink(call, object);
  if (isPending(result)) return result.then((settled) => reply(call, settled));
  reply(call, result);
}

/** READLINK3resok: struct { post_op_attr symlink_attributes; nfspath3 data; }; resfail: post_op_attr. */
function reply(call: NfsCall, result: ReadlinkResult): void {
  if (result.status !== Status.OK) return call.fail(result.status, result.attributes);
  const writer = call.begin(4 + POST_OP_ATTR_BYTES_MAX + 8 + result.target.length);
  writer.uint32(Status.OK);
  encodePostOpAttributes(writer, result.attributes);
  writer.opaque(result.target);
  call.finish(Status.OK);
}

export function decodeReadlinkResult(reader: XdrReader): ReadlinkResult {
  const status = decodeStatus(reader);
  const attributes = decodePostOpAttributes(reader);
  return status === Status.OK ? { status, attributes, target: reader.opaque(PATH_BYTES_MAX) } : { status: errorStatus(status), attributes };
}
