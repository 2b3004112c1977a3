/** What every new inode has, whoever keeps it. */
import type { FileId } from '../server/core/ids.ts';
import type { Timestamp } from '../server/core/time.ts';
import type { Inode } from './inode.ts';
import type { SharedAttributes } from './verb-arguments.ts';

/** Fields that new inodes of all types have in common. */
export function freshInode(
  fileid: FileId,
  inodeGeneration: number,
  attributes: SharedAttributes,
  now: Timestamp,
): Omit<Inode, 'type' | 'nlink' | 'sizeBytes' | 'usedBytes'> {
  return {
    fileid,
    inodeGeneration,
    class: 'none',
    state: 'live',
    mode: attributes.mode & 0o7777,
    uid: attributes.uid,
    gid: attributes.gid,
    atime: attributes.atime ?? now,
    mtime: attributes.mtime ?? now,
    ctime: now,
    parent: null,
    exclusiveVerifier: null,
    symlinkTarget: null,
    inlineBytes: null,
    uuid: null,
  };
}
