/** Verbs that make and remove names: create, link, remove. One transaction each; semantics in ports.ts. */
import { assert } from '../../server/core/assert.ts';
import type { FileId } from '../../server/core/ids.ts';
import { freshInode } from '../fresh-inode.ts';
import { DIRECTORY_BYTES, inlineUsedBytes, type InodeRecord } from '../inode-record.ts';
import type { Inode } from '../inode.ts';
import type { CreateOutcome, LinkOutcome, NewInode, RemoveOutcome } from '../ports.ts';
import { corrupt } from '../record-check.ts';
import type { SharedAttributes } from '../verb-arguments.ts';
import { isRefusal, liveDirectory, type Step, touchDirectory, unlinkOne, withCtime } from './verb-step.ts';
import type { DrawnInode } from './worker-protocol.ts';

/** Names of one file; PATHCONF says so too. */
export const LINK_MAX = 32_000;

export function createFile(step: Step, directory: FileId, name: Uint8Array, file: NewInode, drawn: DrawnInode): CreateOutcome {
  assert(file.class !== 'none', 'a file has a class');
  assert(file.class !== 'inline' || file.sizeBytes <= step.inlineBytesMax, 'an inline file is not larger than the limit');
  return create(step, directory, name, (fileid) => ({
    ...freshInode(fileid, drawn.inodeGeneration, file, step.mutation.now),
    type: 'file',
    class: file.class,
    nlink: 1,
    sizeBytes: file.sizeBytes,
    usedBytes: 0,
    exclusiveVerifier: file.exclusiveVerifier,
    inlineBytes: file.class === 'inline' ? new Uint8Array(0) : null,
    uuid: drawn.uuid,
  }));
}

export function createDirectory(step: Step, directory: FileId, name: Uint8Array, attributes: SharedAttributes, drawn: DrawnInode): CreateOutcome {
  return create(step, directory, name, (fileid) => ({
    ...freshInode(fileid, drawn.inodeGeneration, attributes, step.mutation.now),
    type: 'directory',
    nlink: 2,
    sizeBytes: DIRECTORY_BYTES,
    usedBytes: DIRECTORY_BYTES,
    parent: directory,
  }));
}

export function createSymlink(
  step: Step,
  directory: FileId,
  name: Uint8Array,
  target: Uint8Array,
  attributes: SharedAttributes,
  drawn: DrawnInode,
): CreateOutcome {
  return create(step, directory, name, (fileid) => ({
    ...freshInode(fileid, drawn.inodeGeneration, attributes, step.mutation.now),
    type: 'symlink',
    nlink: 1,
    sizeBytes: target.byteLength,
    usedBytes: inlineUsedBytes(target.byteLength),
    symlinkTarget: target,
  }));
}

function create(step: Step, directory: FileId, name: Uint8Array, make: (fileid: FileId) => Inode): CreateOutcome {
  const { records } = step;
  const parent = liveDirectory(step, directory);
  if (isRefusal(parent)) return parent;
  const taken = records.entry(directory, name);
  if (taken !== null) return { kind: 'exists', inode: namedInode(step, directory, taken.fileid).inode, directory: parent.inode };
  const inode = make(records.nextFileid());
  const cookie = cookieFor(parent);
  const isDirectory = inode.type === 'directory';
  records.insertInode({ inode, nextCookie: isDirectory ? 3 : null, unlinkedMs: null });
  records.putEntry({ directory, name, cookie, fileid: inode.fileid });
  const change = touchDirectory(step, parent, { nlink: parent.inode.nlink + (isDirectory ? 1 : 0), nextCookie: cookie + 1 });
  return { kind: 'created', inode, directory: change };
}

export function link(step: Step, object: FileId, directory: FileId, name: Uint8Array): LinkOutcome {
  const { records } = step;
  const target = records.inode(object);
  if (target === null || target.inode.state !== 'live') return { kind: 'object-stale' };
  const parent = liveDirectory(step, directory);
  if (isRefusal(parent)) return parent;
  if (target.inode.type === 'directory') return { kind: 'is-directory', directory: parent.inode };
  const taken = records.entry(directory, name);
  if (taken !== null) return { kind: 'exists', inode: namedInode(step, directory, taken.fileid).inode, directory: parent.inode };
  if (target.inode.nlink >= LINK_MAX) return { kind: 'too-many-links', directory: parent.inode };
  const cookie = cookieFor(parent);
  const inode: Inode = { ...withCtime(target.inode, step.mutation.now), nlink: target.inode.nlink + 1 };
  records.updateInode(target, { ...target, inode });
  records.putEntry({ directory, name, cookie, fileid: object });
  return { kind: 'linked', inode, directory: touchDirectory(step, parent, { nextCookie: cookie + 1 }) };
}

export function remove(step: Step, directory: FileId, name: Uint8Array): RemoveOutcome {
  const { records } = step;
  const parent = liveDirectory(step, directory);
  if (isRefusal(parent)) return parent;
  const entry = records.entry(directory, name);
  if (entry === null) return { kind: 'absent', directory: parent.inode };
  const record = namedInode(step, directory, entry.fileid);
  if (record.inode.type === 'directory') return { kind: 'is-directory', directory: parent.inode };
  records.dropEntry(directory, name);
  const inode = unlinkOne(step, record);
  return { kind: 'removed', inode, directory: touchDirectory(step, parent) };
}

export function removeDirectory(step: Step, directory: FileId, name: Uint8Array): RemoveOutcome {
  const { records } = step;
  const parent = liveDirectory(step, directory);
  if (isRefusal(parent)) return parent;
  const entry = records.entry(directory, name);
  if (entry === null) return { kind: 'absent', directory: parent.inode };
  const record = namedInode(step, directory, entry.fileid);
  if (record.inode.type !== 'directory') return { kind: 'not-a-directory', directory: parent.inode };
  if (!records.isEmptyDirectory(entry.fileid)) return { kind: 'not-empty', directory: parent.inode };
  records.dropEntry(directory, name);
  const inode = unlinkOne(step, record);
  return { kind: 'removed', inode, directory: touchDirectory(step, parent, { nlink: parent.inode.nlink - 1 }) };
}

/** The inode that an entry names: there is one, and it is live. */
export function namedInode(step: Step, directory: FileId, fileid: FileId): InodeRecord {
  const record = step.records.inode(fileid);
  if (record === null || record.inode.state !== 'live')
    return corrupt(`table entry, directory ${directory}`, `names ${fileid}, which is not a live inode`);
  return record;
}

/** The cookie that the next name of a directory gets. */
export function cookieFor(directory: InodeRecord): number {
  assert(directory.nextCookie !== null, 'a directory has a cookie counter');
  return directory.nextCookie;
}
