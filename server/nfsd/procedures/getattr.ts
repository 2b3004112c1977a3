/** GETATTR, RFC 1813 §3.3.1. */
import { isPending } from '../../core/maybe-promise.ts';
import type { XdrReader } from '../../oncrpc/xdr-reader.ts';
import type { Attributes, Result } from '../file-system.ts';
import { Status } from '../file-system.ts';
import type { NfsCall, NfsContext } from '../nfs-call.ts';
import { decodeAttributes, decodeHandle, decodeStatus, encodeAttributes, errorStatus, FATTR3_BYTES } from '../nfs-wire.ts';

/** GETATTR3args: struct { nfs_fh3 object; } */
export function serveGetattr(context: NfsContext, call: NfsCall): void | Promise<void> {
  const object = decodeHandle(call.args);
  call.args.assertEnd();
  const result = context.fileSystem.getattr(call, object);
  if (isPending(result)) return result.then((settled) => reply(call, settled));
  reply(call, result);
}

/** GETATTR3resok: struct { fattr3 obj_attributes; }; GETATTR3resfail: void. */
function reply(call: NfsCall, result: Result<{ attributes: Attributes }>): void {
  if (result.status !== Status.OK) return call.fail(result.status);
  const writer = call.begin(4 + FATTR3_BYTES);
  writer.uint32(Status.OK);
  encodeAttributes(writer, result.attributes);
  call.finish(Status.OK);
}

export function decodeGetattrResult(reader: XdrReader): Result<{ attributes: Attributes }> {
  const status = decodeStatus(reader);
  return status === Status.OK ? { status, attributes: decodeAttributes(reader) } : { status: errorStatus(status) };
}
