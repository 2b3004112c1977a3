/** Verbs on one inode: attributes, inline contents, the flip to class file, tombstones. */
import { type FileId, sameTerm, type Term } from '../../server/core/ids.ts';
import { compareTimestamp, laterThan, type Timestamp } from '../../server/core/time.ts';
import { inlineUsedBytes, type InodeRecord } from '../inode-record.ts';
import type { Inode, InodeChanges, InodeClass } from '../inode.ts';
import type { InlineWriteOutcome, OwnedCopy, SetAttributesOutcome } from '../ports.ts';
import type { Step } from './verb-step.ts';
import type { OwnedAttributes } from './worker-protocol.ts';

export function setAttributes(
  step: Step,
  fileid: FileId,
  changes: InodeChanges,
  guardCtime: Timestamp | null,
  expectClass: InodeClass | null,
): SetAttributesOutcome {
  const record = liveInode(step, fileid);
  if (record === null) return { kind: 'stale' };
  const before = record.inode;
  if (guardCtime !== null && compareTimestamp(guardCtime, before.ctime) !== 0) return { kind: 'guard-mismatch', inode: before };
  if (expectClass !== null && expectClass !== before.class) return { kind: 'class-changed', inode: before };
  const { sizeBytes } = changes;
  // Only an inline file has its size here, and only up to the limit: beyond it, the caller flips it first and lets the owner resize.
  if (sizeBytes !== null && (before.class !== 'inline' || sizeBytes > step.inlineBytesMax)) return { kind: 'class-changed', inode: before };
  if (Object.values(changes).every((value) => value === null)) return { kind: 'changed', before, after: before };

  const { now } = step.mutation;
  const resized: Partial<Inode> =
    sizeBytes === null ? {} : { ...inlineContents(trimmed(before, sizeBytes)), sizeBytes, mtime: laterThan(before.mtime, now) };
  const after: Inode = {
    ...before,
    ...resized,
    mode: changes.mode === null ? before.mode : changes.mode & 0o7777,
    uid: changes.uid ?? before.uid,
    gid: changes.gid ?? before.gid,
    atime: changes.atime ?? before.atime,
    mtime: changes.mtime ?? resized.mtime ?? before.mtime,
    ctime: laterThan(before.ctime, now),
  };
  step.records.updateInode(record, { ...record, inode: after });
  return { kind: 'changed', before, after };
}

export function writeInline(step: Step, fileid: FileId, offsetBytes: number, bytes: Uint8Array): InlineWriteOutcome {
  const record = liveInode(step, fileid);
  if (record === null) return { kind: 'stale' };
  const before = record.inode;
  if (before.class !== 'inline') return { kind: 'class-changed', inode: before };
  const end = offsetBytes + bytes.byteLength;
  // RFC 1813 §3.3.7: a count of 0 succeeds and writes nothing, wherever it points.
  if (bytes.byteLength === 0) return { kind: 'written', before, after: before };
  if (end > step.inlineBytesMax) return { kind: 'too-large', inode: before };
  const old = before.inlineBytes ?? new Uint8Array(0);
  const contents = new Uint8Array(Math.max(old.byteLength, end));
  contents.set(old);
  contents.set(bytes, offsetBytes);
  const { now } = step.mutation;
  const after: Inode = {
    ...before,
    ...inlineContents(contents),
    sizeBytes: Math.max(before.sizeBytes, end),
    mtime: laterThan(before.mtime, now),
    ctime: laterThan(before.ctime, now),
  };
  step.records.updateInode(record, { ...record, inode: after });
  return { kind: 'written', before, after };
}

export function flipToFile(step: Step, fileid: FileId): SetAttributesOutcome {
  const record = liveInode(step, fileid);
  if (record === null) return { kind: 'stale' };
  const before = record.inode;
  if (before.class === 'file') return { kind: 'changed', before, after: before };
  if (before.class !== 'inline') return { kind: 'class-changed', inode: before };
  const after: Inode = { ...before, class: 'file' };
  step.records.updateInode(record, { ...record, inode: after });
  return { kind: 'changed', before, after };
}

export function dropInlineBase(step: Step, fileid: FileId, term: Term): null {
  const record = liveInode(step, fileid);
  if (record === null || record.inode.class !== 'file' || record.inode.inlineBytes === null || !isOwnerTerm(step, fileid, term)) return null;
  step.records.updateInode(record, { ...record, inode: { ...record.inode, inlineBytes: null } });
  return null;
}

export function putOwnedAttributes(step: Step, batch: readonly OwnedAttributes[]): null {
  for (const owned of batch) {
    const record = liveInode(step, owned.fileid);
    if (record === null || !isOwnerTerm(step, owned.fileid, owned.term)) continue;
    step.records.updateInode(record, { ...record, inode: withCopy(record.inode, owned) }, false);
  }
  return null;
}

/** The inode with what its owner told. */
export function withCopy(inode: Inode, { sizeBytes, usedBytes, atime, mtime, ctime }: OwnedCopy): Inode {
  // Renames and links moved the registry's ctime on; the owner may not know of them yet.
  return { ...inode, sizeBytes, usedBytes, atime, mtime, ctime: compareTimestamp(ctime, inode.ctime) > 0 ? ctime : inode.ctime };
}

export function dropTombstone(step: Step, fileid: FileId): null {
  const record = step.records.inode(fileid);
  if (record === null || record.inode.state !== 'unlinked') return null;
  step.records.deleteInode(record);
  if (step.records.owner(fileid) !== null) step.records.dropOwner(fileid);
  return null;
}

function liveInode(step: Step, fileid: FileId): InodeRecord | null {
  const record = step.records.inode(fileid);
  return record === null || record.inode.state !== 'live' ? null : record;
}

function isOwnerTerm(step: Step, fileid: FileId, term: Term): boolean {
  const entry = step.records.owner(fileid);
  return entry !== null && sameTerm(entry.owner.term, term);
}

/** Stored bytes of an inline file cut to `sizeBytes`; growing stores nothing, missing bytes are zero. */
function trimmed(inode: Inode, sizeBytes: number): Uint8Array {
  const old = inode.inlineBytes ?? new Uint8Array(0);
  return old.byteLength <= sizeBytes ? old : old.slice(0, sizeBytes);
}

function inlineContents(inlineBytes: Uint8Array): Pick<Inode, 'inlineBytes' | 'usedBytes'> {
  return { inlineBytes, usedBytes: inlineUsedBytes(inlineBytes.byteLength) };
}
