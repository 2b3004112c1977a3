/** FSSTAT, FSINFO and PATHCONF, RFC 1813 §3.3.18 to §3.3.20. */
import { isPending } from '../../core/maybe-promise.ts';
import type { XdrReader } from '../../oncrpc/xdr-reader.ts';
import type { Attributes, AttributedResult, FsInfo, FsStat } from '../file-system.ts';
import { Status } from '../file-system.ts';
import type { NfsCall, NfsContext } from '../nfs-call.ts';
import {
  decodeHandle,
  decodePostOpAttributes,
  decodeStatus,
  decodeTime,
  decodeUint64Clamped,
  encodePostOpAttributes,
  encodeTime,
  errorStatus,
  NAME_BYTES_MAX,
  POST_OP_ATTR_BYTES_MAX,
} from '../nfs-wire.ts';

type FsStatResult = AttributedResult<{ stat: FsStat; attributes: Attributes | null }>;
type FsInfoResult = AttributedResult<{ info: FsInfo; attributes: Attributes | null }>;
type FileSystemPathConfResult = AttributedResult<{ linkMax: number; attributes: Attributes | null }>;

/** PATHCONF3resok as a client sees it. */
export interface PathConf {
  readonly linkMax: number;
  readonly nameMaxBytes: number;
  readonly noTrunc: boolean;
  readonly chownRestricted: boolean;
  readonly caseInsensitive: boolean;
  readonly casePreserving: boolean;
}
type PathConfResult = AttributedResult<{ pathConf: PathConf; attributes: Attributes | null }>;

/** FSF3_* bits of FSINFO, §3.3.19. */
export const FsProperty = { LINK: 0x1, SYMLINK: 0x2, HOMOGENEOUS: 0x8, CANSETTIME: 0x10 } as const;

/** FSSTAT3args: struct { nfs_fh3 fsroot; }; any object of the file system will do. */
export function serveFsstat(context: NfsContext, call: NfsCall): void | Promise<void> {
  const object = decodeHandle(call.args);
  call.args.assertEnd();
  const result = context.fileSystem.fsstat(call, object);
  if (isPending(result)) return result.then((settled) => replyFsstat(call, settled));
  replyFsstat(call, result);
}

/** FSSTAT3resok: struct { post_op_attr; size3 tbytes, fbytes, abytes, tfiles, ffiles, afiles; uint32 invarsec; }; resfail: post_op_attr. */
function replyFsstat(call: NfsCall, result: FsStatResult): void {
  if (result.status !== Status.OK) return call.fail(result.status, result.attributes);
  const { stat } = result;
  const writer = call.begin(4 + POST_OP_ATTR_BYTES_MAX + 52);
  writer.uint32(Status.OK);
  encodePostOpAttributes(writer, result.attributes);
  writer.uint64FromNumber(stat.totalBytes);
  writer.uint64FromNumber(stat.freeBytes);
  writer.uint64FromNumber(stat.availableBytes);
  writer.uint64FromNumber(stat.totalFiles);
  writer.uint64FromNumber(stat.freeFiles);
  writer.uint64FromNumber(stat.availableFiles);
  writer.uint32(stat.invariantSeconds);
  call.finish(Status.OK);
}

export function decodeFsstatResult(reader: XdrReader): FsStatResult {
  const status = decodeStatus(reader);
  const attributes = decodePostOpAttributes(reader);
  if (status !== Status.OK) return { status: errorStatus(status), attributes };
  const stat = {
    totalBytes: decodeUint64Clamped(reader),
    freeBytes: decodeUint64Clamped(reader),
    availableBytes: decodeUint64Clamped(reader),
    totalFiles: decodeUint64Clamped(reader),
    freeFiles: decodeUint64Clamped(reader),
    availableFiles: decodeUint64Clamped(reader),
    invariantSeconds: reader.uint32(),
  };
  return { status, attributes, stat };
}

/** FSINFO3args: struct { nfs_fh3 fsroot; } */
export function serveFsinfo(context: NfsContext, call: NfsCall): void | Promise<void> {
  const object = decodeHandle(call.args);
  call.args.assertEnd();
  const result = context.fileSystem.fsinfo(call, object);
  if (isPending(result)) return result.then((settled) => replyFsinfo(call, settled));
  replyFsinfo(call, result);
}

/**
 * FSINFO3resok: struct { post_op_attr; uint32 rtmax, rtpref, rtmult, wtmax, wtpref, wtmult, dtpref; size3 maxfilesize; nfstime3 time_delta;
 * uint32 properties; }; resfail: post_op_attr.
 */
function replyFsinfo(call: NfsCall, result: FsInfoResult): void {
  if (result.status !== Status.OK) return call.fail(result.status, result.attributes);
  const { info } = result;
  const writer = call.begin(4 + POST_OP_ATTR_BYTES_MAX + 48);
  writer.uint32(Status.OK);
  encodePostOpAttributes(writer, result.attributes);
  writer.uint32(info.readMaxBytes);
  writer.uint32(info.readPreferredBytes);
  writer.uint32(info.readMultipleBytes);
  writer.uint32(info.writeMaxBytes);
  writer.uint32(info.writePreferredBytes);
  writer.uint32(info.writeMultipleBytes);
  writer.uint32(info.readdirPreferredBytes);
  writer.uint64FromNumber(info.fileSizeMaxBytes);
  encodeTime(writer, info.timeDelta);
  writer.uint32(info.properties);
  call.finish(Status.OK);
}

export function decodeFsinfoResult(reader: XdrReader): FsInfoResult {
  const status = decodeStatus(reader);
  const attributes = decodePostOpAttributes(reader);
  if (status !== Status.OK) return { status: errorStatus(status), attributes };
  const info = {
    readMaxBytes: reader.uint32(),
    readPreferredBytes: reader.uint32(),
    readMultipleBytes: reader.uint32(),
    writeMaxBytes: reader.uint32(),
    writePreferredBytes: reader.uint32(),
    writeMultipleBytes: reader.uint32(),
    readdirPreferredBytes: reader.uint32(),
    fileSizeMaxBytes: decodeUint64Clamped(reader),
    timeDelta: decodeTime(reader),
    properties: reader.uint32(),
  };
  return { status, attributes, info };
}

/** PATHCONF3args: struct { nfs_fh3 object; } */
export function servePathconf(context: NfsContext, call: NfsCall): void | Promise<void> {
  const object = decodeHandle(call.args);
  call.args.assertEnd();
  const result = context.fileSystem.pathconf(call, object);
  if (isPending(result)) return result.then((settled) => replyPathconf(call, settled));
  replyPathconf(call, result);
}

/**
 * PATHCONF3resok: struct { post_op_attr; uint32 linkmax; uint32 name_max; bool no_trunc, chown_restricted, case_insensitive,
 * case_preserving; }; resfail: post_op_attr.
 */
function replyPathconf(call: NfsCall, result: FileSystemPathConfResult): void {
  if (result.status !== Status.OK) return call.fail(result.status, result.attributes);
  const writer = call.begin(4 + POST_OP_ATTR_BYTES_MAX + 24);
  writer.uint32(Status.OK);
  encodePostOpAttributes(writer, result.attributes);
  writer.uint32(result.linkMax);
  writer.uint32(NAME_BYTES_MAX);
  writer.bool(true);
  writer.bool(true);
  writer.bool(false);
  writer.bool(true);
  call.finish(Status.OK);
}

export function decodePathconfResult(reader: XdrReader): PathConfResult {
  const status = decodeStatus(reader);
  const attributes = decodePostOpAttributes(reader);
  if (status !== Status.OK) return { status: errorStatus(status), attributes };
  const pathConf = {
    linkMax: reader.uint32(),
    nameMaxBytes: reader.uint32(),
    noTrunc: reader.bool(),
    chownRestricted: reader.bool(),
    caseInsensitive: reader.bool(),
    casePreserving: reader.bool(),
  };
  return { status, attributes, pathConf };
}
