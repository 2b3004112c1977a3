/** Results that are a status and wcc_data in both arms: SETATTR3res, REMOVE3res, RMDIR3res (RFC 1813 §3.3.2, §3.3.12, §3.3.13). */
import type { XdrReader } from '../../oncrpc/xdr-reader.ts';
import type { WccResult } from '../file-system.ts';
import { Status } from '../file-system.ts';
import type { NfsCall } from '../nfs-call.ts';
import { decodeStatus, decodeWcc, encodeWcc, errorStatus, WCC_DATA_BYTES_MAX } from '../nfs-wire.ts';

export function replyWcc(call: NfsCall, result: WccResult): void {
  const writer = call.begin(4 + WCC_DATA_BYTES_MAX);
  writer.uint32(result.status);
  encodeWcc(writer, result.wcc);
  call.finish(result.status);
}

export function decodeWccResult(reader: XdrReader): WccResult {
  const status = decodeStatus(reader);
  const wcc = decodeWcc(reader);
  return status === Status.OK ? { status, wcc } : { status: errorStatus(status), wcc };
}
