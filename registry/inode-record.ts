/**
 * Stored form of inodes, checked when read. A row of the SQLite table and the JSON object of outcomes and after-images
 * (docs/formats/registry.md) both go through `inodeFromValues`, so that there is one set of rules.
 */
import type { FileId, ObjectUuid } from '../server/core/ids.ts';
import type { Timestamp } from '../server/core/time.ts';
import type { Inode, InodeClass } from './inode.ts';
import { base64From, base64Of, corrupt, HEX_32, integerOf, memberOf, patternOf, recordOf } from './record-check.ts';

export const INODE_TYPES = ['file', 'directory', 'symlink'] as const;
export const INODE_CLASSES = ['none', 'inline', 'file', 'volume'] as const satisfies readonly InodeClass[];
export const INODE_STATES = ['live', 'unlinked'] as const;

/** Fileids: above 63, below 2^53. */
export const FILEID_MIN = 64;
/** Generations are random numbers below 2^48. */
export const INODE_GENERATION_MAX = 2 ** 48 - 1;
export const NAME_BYTES_MAX = 255;
/** What a directory says of its size. */
export const DIRECTORY_BYTES = 4_096;
export const SYMLINK_BYTES_MAX = 4096;
export const EXCLUSIVE_VERIFIER_BYTES = 8;
/** No record holds more inline bytes than this, whatever the vPool's limit is: bounds every stored record. */
export const INLINE_BYTES_CEILING = 64 * 1024;
const UINT32_MAX = 0xffff_ffff;

/** What FATTR3 `used` says of bytes kept in the record: whole 512-byte sectors, so that nothing non-empty looks like a hole. */
export function inlineUsedBytes(lengthBytes: number): number {
  return Math.ceil(lengthBytes / 512) * 512;
}

/** An inode with what only the registry itself uses. */
export interface InodeRecord {
  readonly inode: Inode;
  /** Directories: the cookie that the next name gets. Others: null. */
  readonly nextCookie: number | null;
  /** Tombstones: wall clock of the unlink in milliseconds. Others: null. */
  readonly unlinkedMs: number | null;
}

/**
 * Columns of an inode in the order of `inodeFromValues`. Type, class and state are indexes into INODE_TYPES, INODE_CLASSES, INODE_STATES;
 * bytes are Uint8Array; absent values null.
 */
export const INODE_COLUMNS = [
  'fileid',
  'generation',
  'type',
  'class',
  'state',
  'mode',
  'uid',
  'gid',
  'nlink',
  'size',
  'used',
  'atime_s',
  'atime_ns',
  'mtime_s',
  'mtime_ns',
  'ctime_s',
  'ctime_ns',
  'parent',
  'verifier',
  'target',
  'uuid',
  'inline',
] as const;

/** Builds an inode from `values[at ...]` in the order of INODE_COLUMNS. Byte strings are taken over. @throws ApplianceError `registry-corrupt`. */
export function inodeFromValues(values: readonly unknown[], at: number, table: string): Inode {
  const fileid = values[at];
  const where = table;
  const number = integerOf(fileid, FILEID_MIN, Number.MAX_SAFE_INTEGER, where, 'fileid') as FileId;
  const key = `${table} ${number}`;
  const type = INODE_TYPES[integerOf(values[at + 2], 0, 2, key, 'type')] ?? 'file';
  const inodeClass = INODE_CLASSES[integerOf(values[at + 3], 0, 3, key, 'class')] ?? 'none';
  const state = INODE_STATES[integerOf(values[at + 4], 0, 1, key, 'state')] ?? 'live';
  const uuid = values[at + 20];
  const parent = values[at + 17];
  const inode: Inode = {
    fileid: number,
    inodeGeneration: integerOf(values[at + 1], 0, INODE_GENERATION_MAX, key, 'generation'),
    type,
    class: inodeClass,
    state,
    mode: integerOf(values[at + 5], 0, 0o7777, key, 'mode'),
    uid: integerOf(values[at + 6], 0, UINT32_MAX, key, 'uid'),
    gid: integerOf(values[at + 7], 0, UINT32_MAX, key, 'gid'),
    nlink: integerOf(values[at + 8], 0, UINT32_MAX, key, 'nlink'),
    sizeBytes: integerOf(values[at + 9], 0, Number.MAX_SAFE_INTEGER, key, 'size'),
    usedBytes: integerOf(values[at + 10], 0, Number.MAX_SAFE_INTEGER, key, 'used'),
    atime: timestampFrom(values[at + 11], values[at + 12], key, 'atime'),
    mtime: timestampFrom(values[at + 13], values[at + 14], key, 'mtime'),
    ctime: timestampFrom(values[at + 15], values[at + 16], key, 'ctime'),
    parent: parent === null ? null : (integerOf(parent, FILEID_MIN, Number.MAX_SAFE_INTEGER, key, 'parent') as FileId),
    exclusiveVerifier: bytesOrNull(values[at + 18], EXCLUSIVE_VERIFIER_BYTES, key, 'verifier'),
    symlinkTarget: bytesOrNull(values[at + 19], SYMLINK_BYTES_MAX, key, 'target'),
    inlineBytes: bytesOrNull(values[at + 21], INLINE_BYTES_CEILING, key, 'inline'),
    uuid: uuid === null ? null : (patternOf(uuid, HEX_32, key, 'uuid') as ObjectUuid),
  };
  checkShape(inode, key);
  return inode;
}

/** What must hold between the fields of one inode. */
function checkShape(inode: Inode, where: string): void {
  if ((inode.type === 'file') === (inode.class === 'none')) corrupt(where, `a ${inode.type} cannot be of class ${inode.class}`);
  if ((inode.type === 'directory') !== (inode.parent !== null)) corrupt(where, 'parent is for directories only');
  if ((inode.type === 'symlink') !== (inode.symlinkTarget !== null)) corrupt(where, 'target is for symlinks only');
  if ((inode.type === 'file') !== (inode.uuid !== null)) corrupt(where, 'uuid is for files only');
  if (inode.inlineBytes !== null && inode.class !== 'inline' && inode.class !== 'file') corrupt(where, `class ${inode.class} has no inline bytes`);
  if (inode.class === 'inline' && (inode.inlineBytes === null || inode.inlineBytes.byteLength > inode.sizeBytes)) {
    corrupt(where, 'an inline file needs its bytes, not more than its size');
  }
  if ((inode.nlink === 0) !== (inode.state === 'unlinked')) corrupt(where, `state ${inode.state} with ${inode.nlink} links`);
}

/** Values of an inode in the order of INODE_COLUMNS. Byte strings are shared, not copied. */
export function valuesFromInode(inode: Inode): (number | string | Uint8Array | null)[] {
  return [
    inode.fileid,
    inode.inodeGeneration,
    INODE_TYPES.indexOf(inode.type),
    INODE_CLASSES.indexOf(inode.class),
    INODE_STATES.indexOf(inode.state),
    inode.mode,
    inode.uid,
    inode.gid,
    inode.nlink,
    inode.sizeBytes,
    inode.usedBytes,
    inode.atime.seconds,
    inode.atime.nanoseconds,
    inode.mtime.seconds,
    inode.mtime.nanoseconds,
    inode.ctime.seconds,
    inode.ctime.nanoseconds,
    inode.parent,
    inode.exclusiveVerifier,
    inode.symlinkTarget,
    inode.uuid,
    inode.inlineBytes,
  ];
}

/** The JSON object of an inode; times are [seconds, nanoseconds], bytes base64, null fields left out. */
export function jsonFromInode(inode: Inode): Record<string, unknown> {
  const json: Record<string, unknown> = {
    fileid: inode.fileid,
    generation: inode.inodeGeneration,
    type: inode.type,
    class: inode.class,
    state: inode.state,
    mode: inode.mode,
    uid: inode.uid,
    gid: inode.gid,
    nlink: inode.nlink,
    size: inode.sizeBytes,
    used: inode.usedBytes,
    atime: [inode.atime.seconds, inode.atime.nanoseconds],
    mtime: [inode.mtime.seconds, inode.mtime.nanoseconds],
    ctime: [inode.ctime.seconds, inode.ctime.nanoseconds],
  };
  if (inode.parent !== null) json['parent'] = inode.parent;
  if (inode.exclusiveVerifier !== null) json['verifier'] = base64From(inode.exclusiveVerifier);
  if (inode.symlinkTarget !== null) json['target'] = base64From(inode.symlinkTarget);
  if (inode.uuid !== null) json['uuid'] = inode.uuid;
  if (inode.inlineBytes !== null) json['inline'] = base64From(inode.inlineBytes);
  return json;
}

/** Inverse of `jsonFromInode`. @throws ApplianceError `registry-corrupt`. */
export function inodeFromJson(value: unknown, where: string): Inode {
  const json = recordOf(value, where, 'inode');
  const atime = pairOf(json['atime'], where, 'atime');
  const mtime = pairOf(json['mtime'], where, 'mtime');
  const ctime = pairOf(json['ctime'], where, 'ctime');
  const values: unknown[] = [
    json['fileid'],
    json['generation'],
    INODE_TYPES.indexOf(memberOf(json['type'], INODE_TYPES, where, 'type')),
    INODE_CLASSES.indexOf(memberOf(json['class'], INODE_CLASSES, where, 'class')),
    INODE_STATES.indexOf(memberOf(json['state'], INODE_STATES, where, 'state')),
    json['mode'],
    json['uid'],
    json['gid'],
    json['nlink'],
    json['size'],
    json['used'],
    atime[0],
    atime[1],
    mtime[0],
    mtime[1],
    ctime[0],
    ctime[1],
    json['parent'] ?? null,
    optionalBytes(json['verifier'], EXCLUSIVE_VERIFIER_BYTES, where, 'verifier'),
    optionalBytes(json['target'], SYMLINK_BYTES_MAX, where, 'target'),
    json['uuid'] ?? null,
    optionalBytes(json['inline'], INLINE_BYTES_CEILING, where, 'inline'),
  ];
  return inodeFromValues(values, 0, where);
}

function pairOf(value: unknown, where: string, field: string): readonly unknown[] {
  if (!Array.isArray(value) || value.length !== 2) return corrupt(where, `${field} is not [seconds, nanoseconds]`);
  return value;
}

function optionalBytes(value: unknown, bytesMax: number, where: string, field: string): Uint8Array | null {
  return value === undefined ? null : base64Of(value, bytesMax, where, field);
}

function timestampFrom(seconds: unknown, nanoseconds: unknown, where: string, field: string): Timestamp {
  return {
    seconds: integerOf(seconds, 0, UINT32_MAX, where, field),
    nanoseconds: integerOf(nanoseconds, 0, 999_999_999, where, field),
  };
}

function bytesOrNull(value: unknown, bytesMax: number, where: string, field: string): Uint8Array | null {
  if (value === null) return null;
  if (!(value instanceof Uint8Array) || value.byteLength > bytesMax)
    return corrupt(where, `${field} is not a byte string of at most ${bytesMax} bytes`);
  if (field === 'verifier' && value.byteLength !== EXCLUSIVE_VERIFIER_BYTES) return corrupt(where, `${field} has ${value.byteLength} bytes`);
  return value;
}
