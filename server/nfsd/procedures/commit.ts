/** COMMIT, RFC 1813 §3.3.21. */
import { isPending } from '../../core/maybe-promise.ts';
import type { XdrReader } from '../../oncrpc/xdr-reader.ts';
import type { WccResult } from '../file-system.ts';
import { Status } from '../file-system.ts';
import type { NfsCall, NfsContext } from '../nfs-call.ts';
import {
  decodeHandle,
  decodeStatus,
  decodeUint64Clamped,
  decodeWcc,
  encodeWcc,
  errorStatus,
  VERIFIER_BYTES,
  WCC_DATA_BYTES_MAX,
} from '../nfs-wire.ts';

export type CommitResult = WccResult<{ verifier: Uint8Array }>;

/** COMMIT3args: struct { nfs_fh3 file; offset3 offset; count3 count; }; count 0 means to the end; behind the end of the file is fine. */
export function serveCommit(context: NfsContext, call: NfsCall): void | Promise<void> {
  const object = decodeHandle(call.args);
  const offsetBytes = decodeUint64Clamped(call.args);
  const countBytes = call.args.uint32();
  call.args.assertEnd();
  const result = context.fileSystem.commit(call, object, offsetBytes, countBytes);
  if (isPending(result)) return result.then((settled) => reply(call, settled));
  reply(call, result);
}

/** COMMIT3resok: struct { wcc_data file_wcc; writeverf3 verf; }; resfail: wcc_data. */
function reply(call: NfsCall, result: CommitResult): void {
  const writer = call.begin(4 + WCC_DATA_BYTES_MAX + VERIFIER_BYTES);
  writer.uint32(result.status);
  encodeWcc(writer, result.wcc);
  if (result.status === Status.OK) writer.fixed(result.verifier);
  call.finish(result.status);
}

export function decodeCommitResult(reader: XdrReader): CommitResult {
  const status = decodeStatus(reader);
  const wcc = decodeWcc(reader);
  return status === Status.OK ? { status, wcc, verifier: reader.fixed(VERIFIER_BYTES) } : { status: errorStatus(status), wcc };
}
