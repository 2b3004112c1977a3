/** RENAME: one transaction over two directories, the moved inode and what its new name denoted before. */
import type { FileId } from '../../server/core/ids.ts';
import type { InodeRecord } from '../inode-record.ts';
import type { Inode } from '../inode.ts';
import type { DirectoryChange, RenameOutcome } from '../ports.ts';
import { corrupt } from '../record-check.ts';
import { cookieFor, namedInode } from './name-verbs.ts';
import { isRefusal, liveDirectory, type Step, touchDirectory, unlinkOne, withCtime } from './verb-step.ts';

/** Deeper trees are refused as corrupt: only a cycle has no end. */
const DEPTH_MAX = 1_000_000;

export function rename(step: Step, fromDirectory: FileId, fromName: Uint8Array, toDirectory: FileId, toName: Uint8Array): RenameOutcome {
  const { records } = step;
  const from = liveDirectory(step, fromDirectory);
  if (isRefusal(from)) return { kind: from.kind, which: 'from' };
  const to = liveDirectory(step, toDirectory);
  if (isRefusal(to)) return { kind: to.kind, which: 'to' };
  const refused = (kind: 'absent' | 'unchanged' | 'target-not-empty' | 'target-exists' | 'invalid'): RenameOutcome => ({
    kind,
    from: from.inode,
    to: to.inode,
  });

  const source = records.entry(fromDirectory, fromName);
  if (source === null) return refused('absent');
  const target = records.entry(toDirectory, toName);
  // RFC 1813 §3.3.14: if both refer to the same file, rename succeeds without doing anything.
  if (target !== null && target.fileid === source.fileid) return refused('unchanged');
  const moved = namedInode(step, fromDirectory, source.fileid);
  const isDirectory = moved.inode.type === 'directory';
  if (isDirectory && fromDirectory !== toDirectory && isBelow(step, to, source.fileid)) return refused('invalid');
  const replaced = target === null ? null : namedInode(step, toDirectory, target.fileid);
  if (replaced !== null) {
    // RFC 1813 §3.3.14: the source object and the target must be compatible: both non-directories, or both directories and the target empty.
    if ((replaced.inode.type === 'directory') !== isDirectory) return refused('target-exists');
    if (isDirectory && !records.isEmptyDirectory(replaced.inode.fileid)) return refused('target-not-empty');
  }

  records.dropEntry(fromDirectory, fromName);
  let replacedAfter: Inode | null = null;
  if (replaced !== null) {
    records.dropEntry(toDirectory, toName);
    replacedAfter = unlinkOne(step, replaced);
  }
  // A name that stays keeps its cookie: a listing in progress must not miss it.
  const cookie = target?.cookie ?? cookieFor(to);
  records.putEntry({ directory: toDirectory, name: toName, cookie, fileid: source.fileid });
  const nextCookie = target === null ? cookie + 1 : cookieFor(to);
  const inode: Inode = { ...withCtime(moved.inode, step.mutation.now), parent: isDirectory ? toDirectory : null };
  records.updateInode(moved, { ...moved, inode });

  const lost = isDirectory ? 1 : 0;
  const gained = isDirectory && replaced === null ? 1 : 0;
  let fromChange: DirectoryChange;
  let toChange: DirectoryChange;
  if (fromDirectory === toDirectory) {
    fromChange = touchDirectory(step, from, { nlink: from.inode.nlink - lost + gained, nextCookie });
    toChange = fromChange;
  } else {
    fromChange = touchDirectory(step, from, { nlink: from.inode.nlink - lost });
    toChange = touchDirectory(step, to, { nlink: to.inode.nlink + gained, nextCookie });
  }
  return { kind: 'renamed', inode, from: fromChange, to: toChange, replaced: replacedAfter };
}

/** Whether `directory` is `ancestor` or somewhere below it. */
function isBelow(step: Step, directory: InodeRecord, ancestor: FileId): boolean {
  let current = directory.inode;
  for (let depth = 0; depth < DEPTH_MAX; depth += 1) {
    if (current.fileid === ancestor) return true;
    const { parent } = current;
    if (parent === null || parent === current.fileid) return false;
    const above = step.records.inode(parent);
    if (above === null || above.inode.type !== 'directory' || above.inode.state !== 'live') {
      return corrupt(`table inode ${current.fileid}`, `its parent ${parent} is not a live directory`);
    }
    current = above.inode;
  }
  return corrupt(`table inode ${directory.inode.fileid}`, 'its parents form a cycle');
}
