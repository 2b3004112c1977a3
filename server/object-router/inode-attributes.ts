/** Inodes as NFS shows them, and who may do what with them. */
import type { Inode } from '../../registry/inode.ts';
import type { Timestamp } from '../core/time.ts';
import { FileType } from '../nfsd/file-system.ts';
import type { Attributes, Caller, PreAttributes, SetAttributes } from '../nfsd/file-system.ts';

const TYPES = { file: FileType.REG, directory: FileType.DIR, symlink: FileType.LNK } as const;

/** What the owner of an object knows better than its registry record. */
export interface OwnedAttributes {
  readonly sizeBytes: number;
  readonly usedBytes: number;
  readonly atime: Timestamp;
  readonly mtime: Timestamp;
  readonly ctime: Timestamp;
}

/** fattr3 of an inode; `owned` replaces the record's lazy copies. */
export function attributesOf(inode: Inode, fsid: bigint, owned: OwnedAttributes | null): Attributes {
  const from = owned ?? inode;
  return {
    type: TYPES[inode.type],
    mode: inode.mode,
    nlink: inode.nlink,
    uid: inode.uid,
    gid: inode.gid,
    sizeBytes: from.sizeBytes,
    usedBytes: from.usedBytes,
    fsid,
    fileid: inode.fileid,
    atime: from.atime,
    mtime: from.mtime,
    ctime: from.ctime,
  };
}

/** wcc_attr of a record. */
export function preAttributesOf(from: { sizeBytes: number; mtime: Timestamp; ctime: Timestamp }): PreAttributes {
  return { sizeBytes: from.sizeBytes, mtime: from.mtime, ctime: from.ctime };
}

/** Whose permissions are looked at. */
export type Rights = Pick<Caller, 'uid' | 'gid' | 'gids'>;

export const Permission = { READ: 4, WRITE: 2, EXECUTE: 1 } as const;

/** True when the caller may do all of `wanted` (Permission bits). uid 0 may everything: squashing happened before (esxi.md 1.1). */
export function isPermitted(inode: Inode, caller: Rights, wanted: number): boolean {
  if (caller.uid === 0) return true;
  let bits = inode.mode;
  if (caller.uid === inode.uid) bits = inode.mode >> 6;
  else if (caller.gid === inode.gid || caller.gids.includes(inode.gid)) bits = inode.mode >> 3;
  return (bits & wanted) === wanted;
}

/** As isPermitted for I/O: an owner who opened a file before a chmod goes on, as on every NFS server without open. */
export function mayDoIo(inode: Inode, caller: Rights, wanted: number): boolean {
  return caller.uid === inode.uid || isPermitted(inode, caller, wanted);
}

/** RFC 1813 §3.3.4. */
export const Access = { READ: 1, LOOKUP: 2, MODIFY: 4, EXTEND: 8, DELETE: 16, EXECUTE: 32 } as const;

/** The part of `mask` that is granted. */
export function grantedAccess(inode: Inode, caller: Rights, mask: number): number {
  const read = isPermitted(inode, caller, Permission.READ);
  const write = isPermitted(inode, caller, Permission.WRITE);
  const execute = isPermitted(inode, caller, Permission.EXECUTE);
  let granted = read ? Access.READ : 0;
  if (write) granted |= Access.MODIFY | Access.EXTEND;
  if (inode.type === 'directory') {
    if (execute) granted |= Access.LOOKUP;
    if (write && execute) granted |= Access.DELETE;
  } else if (execute) granted |= Access.EXECUTE;
  // DELETE of a file is a right on its directory: a hint, granted to who may do everything (RFC 1813 §3.3.4).
  if (caller.uid === 0) granted = mask & (Access.READ | Access.LOOKUP | Access.MODIFY | Access.EXTEND | Access.DELETE | Access.EXECUTE);
  return granted & mask;
}

/** True when the caller may make these changes (POSIX chmod, chown, utimes, truncate). */
export function maySetAttributes(inode: Inode, caller: Rights, changes: SetAttributes): boolean {
  if (caller.uid === 0) return true;
  const owner = caller.uid === inode.uid;
  if (changes.mode !== null && !owner) return false;
  if (changes.uid !== null && changes.uid !== inode.uid) return false;
  if (changes.gid !== null && changes.gid !== inode.gid && !(owner && (caller.gid === changes.gid || caller.gids.includes(changes.gid))))
    return false;
  if (changes.sizeBytes !== null && !mayDoIo(inode, caller, Permission.WRITE)) return false;
  const explicitTime = (changes.atime !== null && changes.atime !== 'server') || (changes.mtime !== null && changes.mtime !== 'server');
  if (explicitTime && !owner) return false;
  return (changes.atime === null && changes.mtime === null) || owner || isPermitted(inode, caller, Permission.WRITE);
}
