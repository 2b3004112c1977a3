/** What a verb works with while it runs in its transaction. */
import type { FileId } from '../../server/core/ids.ts';
import { laterThan, type Timestamp } from '../../server/core/time.ts';
import type { InodeRecord } from '../inode-record.ts';
import type { Inode } from '../inode.ts';
import type { DirectoryChange, DirectoryRefusal, Mutation } from '../ports.ts';
import type { Records } from './records.ts';

export interface Step {
  readonly records: Records;
  readonly mutation: Mutation;
  /** Registry generation. */
  readonly generation: number;
  readonly inlineBytesMax: number;
}

/** A live directory, or why it is none. */
export function liveDirectory(step: Step, fileid: FileId): InodeRecord | DirectoryRefusal {
  const record = step.records.inode(fileid);
  if (record === null || record.inode.state !== 'live') return { kind: 'stale' };
  if (record.inode.type !== 'directory') return { kind: 'not-directory', inode: record.inode };
  return record;
}

export function isRefusal(value: InodeRecord | DirectoryRefusal): value is DirectoryRefusal {
  return 'kind' in value;
}

/** Stores a directory whose names changed: times, and what else the caller says. */
export function touchDirectory(step: Step, before: InodeRecord, fields: { nlink?: number; nextCookie?: number } = {}): DirectoryChange {
  const { now } = step.mutation;
  const after: InodeRecord = {
    inode: {
      ...before.inode,
      nlink: fields.nlink ?? before.inode.nlink,
      mtime: laterThan(before.inode.mtime, now),
      ctime: laterThan(before.inode.ctime, now),
    },
    nextCookie: fields.nextCookie ?? before.nextCookie,
    unlinkedMs: null,
  };
  step.records.updateInode(before, after);
  return { before: before.inode, after: after.inode };
}

function millisecondsOf(time: Timestamp): number {
  return time.seconds * 1_000 + Math.floor(time.nanoseconds / 1_000_000);
}

/** An inode with a later ctime. */
export function withCtime(inode: Inode, now: Timestamp): Inode {
  return { ...inode, ctime: laterThan(inode.ctime, now) };
}

/**
 * Takes one name's link away. The last one: what has data elsewhere stays as a tombstone, everything else is gone at once.
 * Answers the after-image.
 */
export function unlinkOne(step: Step, record: InodeRecord): Inode {
  const changed = withCtime(record.inode, step.mutation.now);
  if (record.inode.type === 'directory' || record.inode.nlink === 1) {
    const inode: Inode = { ...changed, nlink: 0, state: 'unlinked' };
    if (inode.class === 'file' || inode.class === 'volume')
      step.records.updateInode(record, { inode, nextCookie: null, unlinkedMs: millisecondsOf(step.mutation.now) });
    else step.records.deleteInode(record);
    return inode;
  }
  const inode: Inode = { ...changed, nlink: record.inode.nlink - 1 };
  step.records.updateInode(record, { inode, nextCookie: record.nextCookie, unlinkedMs: null });
  return inode;
}
