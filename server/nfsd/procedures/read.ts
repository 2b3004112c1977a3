/** READ, RFC 1813 §3.3.6: the file system reads straight into the reply. */
import { assert } from '../../core/assert.ts';
import { isPending } from '../../core/maybe-promise.ts';
import type { XdrReader } from '../../oncrpc/xdr-reader.ts';
import type { Attributes, AttributedResult, Handle, ReadAnswer } from '../file-system.ts';
import { Status } from '../file-system.ts';
import { refuse } from '../nfs-call.ts';
import type { NfsCall, NfsContext } from '../nfs-call.ts';
import { decodeHandle, decodePostOpAttributes, decodeStatus, encodePostOpAttributes, errorStatus, POST_OP_ATTR_BYTES_MAX } from '../nfs-wire.ts';

export type ReadResult = AttributedResult<{ data: Buffer; eof: boolean; attributes: Attributes | null }>;

/** status, post_op_attr, count, eof, length of the data */
const HEAD_BYTES = 4 + POST_OP_ATTR_BYTES_MAX + 12;

/** Largest offset that the protocol's 64 bits may mean (off_t is signed everywhere). */
export const OFFSET_MAX = 2n ** 63n - 1n;

/**
 * READ3args: struct { nfs_fh3 file; offset3 offset; count3 count; }
 *
 * A range that ends behind 2^63-1 is INVAL. No file reaches 2^53, so a read that starts there reads nothing and is at the end.
 */
export function serveRead(context: NfsContext, call: NfsCall): void | Promise<void> {
  const args = call.args;
  const object = decodeHandle(args);
  const high = args.uint32();
  const low = args.uint32();
  const count = args.uint32();
  args.assertEnd();
  let offsetBytes = high * 0x1_0000_0000 + low;
  let countBytes = count > context.readBytesMax ? context.readBytesMax : count;
  if (high > 0x1f_ffff) {
    if (((BigInt(high) << 32n) | BigInt(low)) + BigInt(count) > OFFSET_MAX) return refuse(context, call, Status.INVAL, object);
    offsetBytes = Number.MAX_SAFE_INTEGER;
    countBytes = 0;
  }
  return read(context, call, object, offsetBytes, countBytes);
}

function read(context: NfsContext, call: NfsCall, object: Handle, offsetBytes: number, countBytes: number): void | Promise<void> {
  // Exactly what a full answer takes: then answers lie behind one another and leave as one piece.
  const writer = call.begin(HEAD_BYTES + countBytes + (-countBytes & 3));
  writer.skip(HEAD_BYTES);
  const target = writer.reserve(countBytes);
  call.target = target;
  call.reply = reply;
  const result = context.fileSystem.read(call, object, offsetBytes, target, call);
  if (result === null) call.isLate = true;
  else if (isPending(result)) return result.then((settled) => reply(call, settled));
  else reply(call, result);
}

/** READ3resok: struct { post_op_attr file_attributes; count3 count; bool eof; opaque data<>; }; resfail: post_op_attr. */
function reply(call: NfsCall, result: ReadAnswer): void {
  if (result.status !== Status.OK) return call.fail(result.status, result.attributes);
  const { target } = call;
  const bytesRead = result.bytesRead;
  assert(bytesRead <= target.length, 'more was read than there is room for');
  const writer = call.beginAgain();
  // Without attributes the head is 84 bytes shorter than the room left for it: the data move to the front.
  writer.uint32(Status.OK);
  encodePostOpAttributes(writer, result.attributes);
  writer.uint32(bytesRead);
  writer.bool(result.eof);
  writer.uint32(bytesRead);
  if (result.attributes === null) target.copy(writer.reserve(bytesRead), 0, 0, bytesRead);
  else writer.skip(bytesRead);
  writer.pad();
  call.bytesRead = bytesRead;
  call.finish(Status.OK);
}

/** `data` is a view of the reply. */
export function decodeReadResult(reader: XdrReader): ReadResult {
  const status = decodeStatus(reader);
  const attributes = decodePostOpAttributes(reader);
  if (status !== Status.OK) return { status: errorStatus(status), attributes };
  const countBytes = reader.uint32();
  const eof = reader.bool();
  const data = reader.opaque(0xffff_ffff);
  assert(data.length === countBytes, 'READ reply: count and length of the data differ');
  return { status, attributes, eof, data };
}
