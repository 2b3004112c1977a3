/** WRITE, RFC 1813 §3.3.7: the data stay in the chunks in which they arrived. */
import { isPending } from '../../core/maybe-promise.ts';
import { XdrError } from '../../oncrpc/xdr-error.ts';
import type { XdrReader } from '../../oncrpc/xdr-reader.ts';
import type { XdrWriter } from '../../oncrpc/xdr-writer.ts';
import type { Handle, Stability, WriteAnswer } from '../file-system.ts';
import { Status } from '../file-system.ts';
import { refuse } from '../nfs-call.ts';
import type { NfsCall, NfsContext } from '../nfs-call.ts';
import { decodeHandle, decodeStatus, decodeWcc, encodeUint64, encodeWcc, errorStatus, VERIFIER_BYTES, WCC_DATA_BYTES_MAX } from '../nfs-wire.ts';

/** stable_how: enum { UNSTABLE = 0, DATA_SYNC = 1, FILE_SYNC = 2 } */
export function decodeStability(reader: XdrReader): Stability {
  const value = reader.uint32();
  if (value > 2) throw new XdrError('bad-discriminant');
  return value as Stability;
}

/**
 * WRITE3args: struct { nfs_fh3 file; offset3 offset; count3 count; stable_how stable; opaque data<>; }
 *
 * A count that is not the length of the data is INVAL; a range that ends where no file can reach is FBIG. The size of the data is
 * limited by the RPC layer's record limit only: all of it is written, above wtmax too (esxi.md 1.2).
 */
export function serveWrite(context: NfsContext, call: NfsCall): void | Promise<void> {
  const args = call.args;
  const object = decodeHandle(args);
  const high = args.uint32();
  const low = args.uint32();
  const count = args.uint32();
  const stability = decodeStability(args);
  const { countBytes, chunks } = args.opaqueChunks(0xffff_ffff);
  args.assertEnd();
  if (count !== countBytes) return refuse(context, call, Status.INVAL, object);
  let offsetBytes = high * 0x1_0000_0000 + low;
  if (offsetBytes + countBytes > Number.MAX_SAFE_INTEGER) {
    if (countBytes > 0) return refuse(context, call, Status.FBIG, object);
    offsetBytes = Number.MAX_SAFE_INTEGER;
  }
  call.bytesWritten = countBytes;
  call.reply = reply;
  const result = context.fileSystem.write(call, object, offsetBytes, countBytes, chunks, stability, call);
  if (result === null) call.isLate = true;
  else if (isPending(result)) return result.then((settled) => reply(call, settled));
  else reply(call, result);
}

/** WRITE3resok: struct { wcc_data file_wcc; count3 count; stable_how committed; writeverf3 verf; }; resfail: wcc_data. */
function reply(call: NfsCall, result: WriteAnswer): void {
  const writer = call.begin(4 + WCC_DATA_BYTES_MAX + 8 + VERIFIER_BYTES);
  writer.uint32(result.status);
  encodeWcc(writer, result.wcc);
  if (result.status === Status.OK) {
    writer.uint32(result.countBytes);
    writer.uint32(result.committed);
    writer.fixed(result.verifier);
  }
  call.finish(result.status);
}

/** `countOverride` puts another count than the data's length on the wire (tests). */
export function encodeWriteArgs(
  writer: XdrWriter,
  object: Handle,
  offsetBytes: number | bigint,
  data: Uint8Array,
  stability: Stability,
  countOverride?: number,
): void {
  writer.opaque(object);
  encodeUint64(writer, offsetBytes);
  writer.uint32(countOverride ?? data.length);
  writer.uint32(stability);
  writer.opaque(data);
}

export function decodeWriteResult(reader: XdrReader): WriteAnswer {
  const status = decodeStatus(reader);
  const wcc = decodeWcc(reader);
  if (status !== Status.OK) return { status: errorStatus(status), wcc };
  return { status, wcc, countBytes: reader.uint32(), committed: decodeStability(reader), verifier: reader.fixed(VERIFIER_BYTES) };
}
