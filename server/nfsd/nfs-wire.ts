/**
 * Codecs of the types that NFSv3 procedures share (RFC 1813 §2.5, §2.6). Each decoder mirrors its encoder; the server uses one
 * direction, the client the other. Decoders throw XdrError; encoders never fail when the caller has asked for enough room.
 */
import type { Timestamp } from '../core/time.ts';
import { XdrError } from '../oncrpc/xdr-error.ts';
import type { XdrReader } from '../oncrpc/xdr-reader.ts';
import type { XdrWriter } from '../oncrpc/xdr-writer.ts';
import type { Attributes, ErrorStatus, FileType, Handle, PreAttributes, SetAttributes, Status, Wcc } from './file-system.ts';

/** NFS program number and its only version here, RFC 1813 §2. */
export const NFS_PROGRAM = 100_003;
export const NFS_VERSION = 3;

/** NFS3_FHSIZE, §2.4: the wire's limit. FileSystem handles are at most 56 bytes (ESXi's limit). */
export const HANDLE_BYTES_MAX = 64;
/** Longest filename3 that is read off the wire; longer ones are GARBAGE_ARGS, those over NAME_BYTES_MAX are NAMETOOLONG. */
export const NAME_WIRE_BYTES_MAX = 4096;
/** name_max of PATHCONF. */
export const NAME_BYTES_MAX = 255;
/** Longest nfspath3 (symlink target). */
export const PATH_BYTES_MAX = 4096;
/** NFS3_COOKIEVERFSIZE, NFS3_CREATEVERFSIZE, NFS3_WRITEVERFSIZE, §2.4. */
export const VERIFIER_BYTES = 8;

/** Encoded sizes in bytes, for asking a writer for enough room. */
export const FATTR3_BYTES = 84;
export const POST_OP_ATTR_BYTES_MAX = 4 + FATTR3_BYTES;
export const WCC_DATA_BYTES_MAX = 4 + 24 + POST_OP_ATTR_BYTES_MAX;
export const HANDLE_BYTES_ENCODED_MAX = 4 + HANDLE_BYTES_MAX;

/** nfs_fh3, §2.5. Borrowed from the received record. */
export function decodeHandle(reader: XdrReader): Handle {
  return reader.opaque(HANDLE_BYTES_MAX);
}

/** nfstime3, §2.5. Nanoseconds are passed on as they are: who uses a client's time checks it. */
export function decodeTime(reader: XdrReader): Timestamp {
  return { seconds: reader.uint32(), nanoseconds: reader.uint32() };
}

export function encodeTime(writer: XdrWriter, time: Timestamp): void {
  writer.uint32(time.seconds);
  writer.uint32(time.nanoseconds);
}

/**
 * A uint64 as a number: exact up to 2^53-1, nearest double above. For values that are compared with a maximum before anything is done
 * with them (a double above 2^53-1 stays above it).
 */
export function decodeUint64Nearest(reader: XdrReader): number {
  const high = reader.uint32();
  return high * 0x1_0000_0000 + reader.uint32();
}

/** A uint64 as a number; what lies above 2^53-1 becomes 2^53-1. For sizes and counts a server reports. */
export function decodeUint64Clamped(reader: XdrReader): number {
  return Math.min(decodeUint64Nearest(reader), Number.MAX_SAFE_INTEGER);
}

/** A uint64 from a number or a bigint (tests and clients send what servers must survive). */
export function encodeUint64(writer: XdrWriter, value: number | bigint): void {
  if (typeof value === 'bigint') writer.uint64(value);
  else writer.uint64FromNumber(value);
}

// One file system has one fsid: splitting the bigint for every reply would cost more than the rest of fattr3.
let fsidSplit = 0n;
let fsidHigh = 0;
let fsidLow = 0;

/** fattr3, §2.5. rdev is always 0: there are no devices. */
export function encodeAttributes(writer: XdrWriter, attributes: Attributes): void {
  if (attributes.fsid !== fsidSplit) {
    fsidSplit = attributes.fsid;
    fsidHigh = Number((fsidSplit >> 32n) & 0xffff_ffffn);
    fsidLow = Number(fsidSplit & 0xffff_ffffn);
  }
  writer.uint32(attributes.type);
  writer.uint32(attributes.mode);
  writer.uint32(attributes.nlink);
  writer.uint32(attributes.uid);
  writer.uint32(attributes.gid);
  writer.uint64FromNumber(attributes.sizeBytes);
  writer.uint64FromNumber(attributes.usedBytes);
  writer.uint32(0);
  writer.uint32(0);
  writer.uint32(fsidHigh);
  writer.uint32(fsidLow);
  writer.uint64FromNumber(attributes.fileid);
  encodeTime(writer, attributes.atime);
  encodeTime(writer, attributes.mtime);
  encodeTime(writer, attributes.ctime);
}

export function decodeAttributes(reader: XdrReader): Attributes {
  const type = reader.uint32();
  if (type < 1 || type > 7) throw new XdrError('bad-discriminant');
  const mode = reader.uint32();
  const nlink = reader.uint32();
  const uid = reader.uint32();
  const gid = reader.uint32();
  const sizeBytes = decodeUint64Clamped(reader);
  const usedBytes = decodeUint64Clamped(reader);
  reader.fixed(8); // rdev
  const fsid = reader.uint64();
  return {
    type: type as FileType,
    mode,
    nlink,
    uid,
    gid,
    sizeBytes,
    usedBytes,
    fsid,
    fileid: decodeUint64Clamped(reader),
    atime: decodeTime(reader),
    mtime: decodeTime(reader),
    ctime: decodeTime(reader),
  };
}

/** post_op_attr, §2.6. */
export function encodePostOpAttributes(writer: XdrWriter, attributes: Attributes | null): void {
  if (attributes === null) {
    writer.uint32(0);
    return;
  }
  writer.uint32(1);
  encodeAttributes(writer, attributes);
}

export function decodePostOpAttributes(reader: XdrReader): Attributes | null {
  return reader.bool() ? decodeAttributes(reader) : null;
}

/** wcc_data, §2.6: pre_op_attr (size, mtime, ctime), then post_op_attr. */
export function encodeWcc(writer: XdrWriter, wcc: Wcc): void {
  const before = wcc.before;
  if (before === null) writer.uint32(0);
  else {
    writer.uint32(1);
    writer.uint64FromNumber(before.sizeBytes);
    encodeTime(writer, before.mtime);
    encodeTime(writer, before.ctime);
  }
  encodePostOpAttributes(writer, wcc.after);
}

export function decodeWcc(reader: XdrReader): Wcc {
  const before: PreAttributes | null = reader.bool()
    ? { sizeBytes: decodeUint64Clamped(reader), mtime: decodeTime(reader), ctime: decodeTime(reader) }
    : null;
  return { before, after: decodePostOpAttributes(reader) };
}

/** post_op_fh3, §2.6. */
export function encodePostOpHandle(writer: XdrWriter, handle: Handle | null): void {
  if (handle === null) {
    writer.uint32(0);
    return;
  }
  writer.uint32(1);
  writer.opaque(handle);
}

export function decodePostOpHandle(reader: XdrReader): Handle | null {
  return reader.bool() ? decodeHandle(reader) : null;
}

/** The nfsstat3 at the head of every result. */
export function decodeStatus(reader: XdrReader): Status {
  return reader.uint32() as Status;
}

/** A status known not to be OK. */
export function errorStatus(status: Status): ErrorStatus {
  return status as ErrorStatus;
}

/** time_how, §2.5. */
const DONT_CHANGE = 0;
const SET_TO_SERVER_TIME = 1;
const SET_TO_CLIENT_TIME = 2;

function decodeSetTime(reader: XdrReader): Timestamp | 'server' | null {
  switch (reader.uint32()) {
    case DONT_CHANGE:
      return null;
    case SET_TO_SERVER_TIME:
      return 'server';
    case SET_TO_CLIENT_TIME:
      return decodeTime(reader);
    default:
      throw new XdrError('bad-discriminant');
  }
}

function encodeSetTime(writer: XdrWriter, time: Timestamp | 'server' | null): void {
  if (time === null) writer.uint32(DONT_CHANGE);
  else if (time === 'server') writer.uint32(SET_TO_SERVER_TIME);
  else {
    writer.uint32(SET_TO_CLIENT_TIME);
    encodeTime(writer, time);
  }
}

/**
 * sattr3, §2.5: mode, uid, gid, size, atime, mtime. `sizeBytes` above 2^53-1 comes out as the nearest double, for `checkSetAttributes`
 * to refuse; the mode is cut to its 12 permission bits.
 */
export function decodeSetAttributes(reader: XdrReader): SetAttributes {
  return {
    mode: reader.bool() ? reader.uint32() & 0o7777 : null,
    uid: reader.bool() ? reader.uint32() : null,
    gid: reader.bool() ? reader.uint32() : null,
    sizeBytes: reader.bool() ? decodeUint64Nearest(reader) : null,
    atime: decodeSetTime(reader),
    mtime: decodeSetTime(reader),
  };
}

export function encodeSetAttributes(writer: XdrWriter, changes: SetAttributes): void {
  encodeOptionalUint32(writer, changes.mode);
  encodeOptionalUint32(writer, changes.uid);
  encodeOptionalUint32(writer, changes.gid);
  writer.bool(changes.sizeBytes !== null);
  if (changes.sizeBytes !== null) encodeUint64(writer, Number.isSafeInteger(changes.sizeBytes) ? changes.sizeBytes : BigInt(changes.sizeBytes));
  encodeSetTime(writer, changes.atime);
  encodeSetTime(writer, changes.mtime);
}

function encodeOptionalUint32(writer: XdrWriter, value: number | null): void {
  writer.bool(value !== null);
  if (value !== null) writer.uint32(value);
}

/** Nothing set. */
export const NO_CHANGES: SetAttributes = { mode: null, uid: null, gid: null, sizeBytes: null, atime: null, mtime: null };
