/** Packed form of inodes and names in Redis (docs/formats/redis.md): what the scripts read with `struct`. Checked when read. */
import type { FileId } from '../../server/core/ids.ts';
import type { NamedRecord } from '../after-image.ts';
import { INODE_CLASSES, INODE_STATES, INODE_TYPES, inodeFromValues, type InodeRecord, NAME_BYTES_MAX } from '../inode-record.ts';
import type { Inode } from '../inode.ts';
import type { OwnedCopy } from '../ports.ts';
import { corrupt } from '../record-check.ts';

/** Version of packed records; a reader refuses another. */
export const PACKED_VERSION = 1;
const HEAD_BYTES = 113;
const HIGH = 2 ** 32;
const FLAG = { verifier: 1, uuid: 2, target: 4, inline: 8, unlinked: 16 } as const;

/** An integer of 8 bytes, little-endian; above 2^53 it is not exact, and every check refuses it. */
export function integer64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * HIGH;
}

/** `value`: an integer from 0 to 2^53 - 1. */
export function putInteger64(bytes: Buffer, at: number, value: number): void {
  const high = Math.floor(value / HIGH);
  bytes.writeUInt32LE(value - high * HIGH, at);
  bytes.writeUInt32LE(high, at + 4);
}

/** Big-endian, for keys of sorted sets. */
export function orderedInteger64(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(8);
  const high = Math.floor(value / HIGH);
  bytes.writeUInt32BE(high, 0);
  bytes.writeUInt32BE(value - high * HIGH, 4);
  return bytes;
}

/** `sequence`: change that the record is of. */
export function packInode(record: InodeRecord, sequence: number): Buffer {
  const { inode } = record;
  const verifier = inode.exclusiveVerifier ?? new Uint8Array(0);
  const uuid = inode.uuid ?? '';
  const target = inode.symlinkTarget ?? new Uint8Array(0);
  const inline = inode.inlineBytes ?? new Uint8Array(0);
  const bytes = Buffer.allocUnsafe(HEAD_BYTES + verifier.byteLength + uuid.length + target.byteLength + inline.byteLength);
  bytes[0] = PACKED_VERSION;
  putInteger64(bytes, 1, sequence);
  putInteger64(bytes, 9, inode.fileid);
  putInteger64(bytes, 17, inode.inodeGeneration);
  bytes[25] = INODE_TYPES.indexOf(inode.type);
  bytes[26] = INODE_CLASSES.indexOf(inode.class);
  bytes[27] = INODE_STATES.indexOf(inode.state);
  bytes.writeUInt16LE(inode.mode, 28);
  bytes.writeUInt32LE(inode.uid, 30);
  bytes.writeUInt32LE(inode.gid, 34);
  bytes.writeUInt32LE(inode.nlink, 38);
  putInteger64(bytes, 42, inode.sizeBytes);
  putInteger64(bytes, 50, inode.usedBytes);
  let at = 58;
  for (const time of [inode.atime, inode.mtime, inode.ctime]) {
    bytes.writeUInt32LE(time.seconds, at);
    bytes.writeUInt32LE(time.nanoseconds, at + 4);
    at += 8;
  }
  putInteger64(bytes, 82, inode.parent ?? 0);
  putInteger64(bytes, 90, record.nextCookie ?? 0);
  putInteger64(bytes, 98, record.unlinkedMs ?? 0);
  bytes[106] =
    (inode.exclusiveVerifier === null ? 0 : FLAG.verifier) +
    (inode.uuid === null ? 0 : FLAG.uuid) +
    (inode.symlinkTarget === null ? 0 : FLAG.target) +
    (inode.inlineBytes === null ? 0 : FLAG.inline) +
    (inode.state === 'unlinked' ? FLAG.unlinked : 0);
  bytes.writeUInt16LE(target.byteLength, 107);
  bytes.writeUInt32LE(inline.byteLength, 109);
  bytes.set(verifier, HEAD_BYTES);
  at = HEAD_BYTES + verifier.byteLength;
  at += bytes.write(uuid, at, 'latin1');
  bytes.set(target, at);
  bytes.set(inline, at + target.byteLength);
  return bytes;
}

/** Inverse of `packInode`. Byte strings of the result have buffers of their own. @throws ApplianceError `registry-corrupt`. */
export function unpackInode(bytes: Buffer, where: string): InodeRecord {
  if (bytes.byteLength < HEAD_BYTES || bytes[0] !== PACKED_VERSION) {
    return corrupt(where, `an inode record of ${bytes.byteLength} bytes, version ${bytes[0] ?? 'none'}`);
  }
  const flags = bytes[106] ?? 0;
  const targetLength = bytes.readUInt16LE(107);
  const inlineLength = bytes.readUInt32LE(109);
  const uuidAt = HEAD_BYTES + ((flags & FLAG.verifier) === 0 ? 0 : 8);
  const targetAt = uuidAt + ((flags & FLAG.uuid) === 0 ? 0 : 32);
  const inlineAt = targetAt + targetLength;
  if (inlineAt + inlineLength !== bytes.byteLength || (flags & ~31) !== 0) return corrupt(where, 'the parts of an inode record do not add up');
  if ((targetLength > 0 && (flags & FLAG.target) === 0) || (inlineLength > 0 && (flags & FLAG.inline) === 0)) {
    return corrupt(where, 'an inode record has bytes that it does not name');
  }
  const parent = integer64(bytes, 82);
  const inode = inodeFromValues(
    [
      integer64(bytes, 9),
      integer64(bytes, 17),
      bytes[25],
      bytes[26],
      bytes[27],
      bytes.readUInt16LE(28),
      bytes.readUInt32LE(30),
      bytes.readUInt32LE(34),
      bytes.readUInt32LE(38),
      integer64(bytes, 42),
      integer64(bytes, 50),
      bytes.readUInt32LE(58),
      bytes.readUInt32LE(62),
      bytes.readUInt32LE(66),
      bytes.readUInt32LE(70),
      bytes.readUInt32LE(74),
      bytes.readUInt32LE(78),
      parent === 0 ? null : parent,
      (flags & FLAG.verifier) === 0 ? null : copyOf(bytes, HEAD_BYTES, 8),
      (flags & FLAG.target) === 0 ? null : copyOf(bytes, targetAt, targetLength),
      (flags & FLAG.uuid) === 0 ? null : bytes.toString('latin1', uuidAt, targetAt),
      (flags & FLAG.inline) === 0 ? null : copyOf(bytes, inlineAt, inlineLength),
    ],
    0,
    where,
  );
  const nextCookie = integer64(bytes, 90);
  const unlinkedMs = integer64(bytes, 98);
  if ((inode.state === 'unlinked') !== ((flags & FLAG.unlinked) !== 0)) return corrupt(`${where} ${inode.fileid}`, 'state and flags disagree');
  if (!Number.isSafeInteger(unlinkedMs) || !Number.isSafeInteger(nextCookie)) return corrupt(`${where} ${inode.fileid}`, 'a number is out of bounds');
  const isDirectory = inode.type === 'directory' && inode.state === 'live';
  if (isDirectory && nextCookie < 3) return corrupt(`${where} ${inode.fileid}`, `the next cookie is ${nextCookie}`);
  return { inode, nextCookie: isDirectory ? nextCookie : null, unlinkedMs: inode.state === 'unlinked' ? unlinkedMs : null };
}

/** What the owner of an object tells of it, as the scripts' `takeCopy` reads it. */
export function packCopy(copy: OwnedCopy): Buffer {
  const packed = Buffer.allocUnsafe(40);
  putInteger64(packed, 0, copy.sizeBytes);
  putInteger64(packed, 8, copy.usedBytes);
  for (const [index, time] of [copy.atime, copy.mtime, copy.ctime].entries()) {
    packed.writeUInt32LE(time.seconds, 16 + index * 8);
    packed.writeUInt32LE(time.nanoseconds, 20 + index * 8);
  }
  return packed;
}

/** Change that a packed record (inode, name, owner) is of. */
export function packedSequence(bytes: Buffer): number {
  return integer64(bytes, 1);
}

/** A live or unlinked inode of `unpackInode`, without what only the registry uses. */
export function inodeOf(bytes: Buffer, where: string): Inode {
  return unpackInode(bytes, where).inode;
}

const LISTED_HEAD_BYTES = 24;

/** A member of the sorted set of names. */
export function unpackListed(bytes: Buffer, where: string): NamedRecord {
  if (bytes.byteLength <= LISTED_HEAD_BYTES || bytes.byteLength > LISTED_HEAD_BYTES + NAME_BYTES_MAX) {
    return corrupt(where, `a name record has ${bytes.byteLength} bytes`);
  }
  const number = (at: number): number => bytes.readUInt32BE(at) * HIGH + bytes.readUInt32BE(at + 4);
  return checkedName(number(0), number(8), number(16), copyOf(bytes, LISTED_HEAD_BYTES, bytes.byteLength - LISTED_HEAD_BYTES), where);
}

const ENTRY_BYTES = 25;

/** A field and value of the hash of names. */
export function unpackEntry(field: Buffer, value: Buffer, where: string): NamedRecord & { readonly sequence: number } {
  const slash = field.indexOf(0x2f);
  if (value.byteLength !== ENTRY_BYTES || value[0] !== PACKED_VERSION || slash <= 0) return corrupt(where, 'an entry of the wrong form');
  const name = copyOf(field, slash + 1, field.byteLength - slash - 1);
  const record = checkedName(Number(field.toString('latin1', 0, slash)), integer64(value, 9), integer64(value, 17), name, where);
  return { ...record, sequence: packedSequence(value) };
}

/** What the after-image says of a name that was put. */
export function unpackPutName(bytes: Buffer, where: string): NamedRecord {
  if (bytes.byteLength <= LISTED_HEAD_BYTES) return corrupt(where, 'a name of the wrong form');
  const name = copyOf(bytes, LISTED_HEAD_BYTES, bytes.byteLength - LISTED_HEAD_BYTES);
  return checkedName(integer64(bytes, 0), integer64(bytes, 8), integer64(bytes, 16), name, where);
}

export function packPutName(entry: NamedRecord): Buffer {
  const bytes = Buffer.allocUnsafe(LISTED_HEAD_BYTES + entry.name.byteLength);
  putInteger64(bytes, 0, entry.directory);
  putInteger64(bytes, 8, entry.cookie);
  putInteger64(bytes, 16, entry.fileid);
  bytes.set(entry.name, LISTED_HEAD_BYTES);
  return bytes;
}

/** A fileid, and what follows it. */
export function unpackFileid(bytes: Buffer, where: string): FileId {
  const fileid = bytes.byteLength < 8 ? 0 : integer64(bytes, 0);
  return isFileid(fileid) ? (fileid as FileId) : corrupt(where, `${fileid} is no fileid`);
}

export function packFileid(fileid: FileId, name: Uint8Array = new Uint8Array(0)): Buffer {
  const bytes = Buffer.allocUnsafe(8 + name.byteLength);
  putInteger64(bytes, 0, fileid);
  bytes.set(name, 8);
  return bytes;
}

function checkedName(directory: number, cookie: number, fileid: number, name: Uint8Array, where: string): NamedRecord {
  if (
    !isFileid(directory) ||
    !isFileid(fileid) ||
    !Number.isSafeInteger(cookie) ||
    cookie < 3 ||
    name.byteLength === 0 ||
    name.byteLength > NAME_BYTES_MAX
  ) {
    return corrupt(where, `an entry of directory ${directory} with cookie ${cookie}, fileid ${fileid} and a name of ${name.byteLength} bytes`);
  }
  return { directory: directory as FileId, name, cookie, fileid: fileid as FileId };
}

function isFileid(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 64;
}

/** Bytes in a buffer of their own: replies are slices of what the socket read. */
export function copyOf(bytes: Buffer, at: number, length: number): Uint8Array {
  const copy = new Uint8Array(length);
  bytes.copy(copy, 0, at, at + length);
  return copy;
}
