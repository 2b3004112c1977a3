/** ACCESS, RFC 1813 §3.3.4. */
import { isPending } from '../../core/maybe-promise.ts';
import type { XdrReader } from '../../oncrpc/xdr-reader.ts';
import type { Attributes, AttributedResult } from '../file-system.ts';
import { Status } from '../file-system.ts';
import type { NfsCall, NfsContext } from '../nfs-call.ts';
import { decodeHandle, decodePostOpAttributes, decodeStatus, encodePostOpAttributes, errorStatus, POST_OP_ATTR_BYTES_MAX } from '../nfs-wire.ts';
import { AccessBit } from '../permission.ts';

type AccessResult = AttributedResult<{ granted: number; attributes: Attributes | null }>;

const CHANGING_BITS = AccessBit.MODIFY | AccessBit.EXTEND | AccessBit.DELETE;

/** ACCESS3args: struct { nfs_fh3 object; uint32 access; } */
export function serveAccess(context: NfsContext, call: NfsCall): void | Promise<void> {
  const object = decodeHandle(call.args);
  const asked = call.args.uint32();
  call.args.assertEnd();
  const mask = call.readOnly ? asked & ~CHANGING_BITS : asked;
  const result = context.fileSystem.access(call, object, mask);
  if (isPending(result)) return result.then((settled) => reply(call, mask, settled));
  reply(call, mask, result);
}

/** ACCESS3resok: struct { post_op_attr obj_attributes; uint32 access; }; resfail: post_op_attr. */
function reply(call: NfsCall, mask: number, result: AccessResult): void {
  if (result.status !== Status.OK) return call.fail(result.status, result.attributes);
  const writer = call.begin(4 + POST_OP_ATTR_BYTES_MAX + 4);
  writer.uint32(Status.OK);
  encodePostOpAttributes(writer, result.attributes);
  // Some clients take every bit set as granted, asked for or not (esxi.md 4): never one more than asked.
  writer.uint32(result.granted & mask);
  call.finish(Status.OK);
}

export function decodeAccessResult(reader: XdrReader): AccessResult {
  const status = decodeStatus(reader);
  const attributes = decodePostOpAttributes(reader);
  return status === Status.OK ? { status, attributes, granted: reader.uint32() } : { status: errorStatus(status), attributes };
}
