/**
 * What the Object Registry knows of an inode (design section 5). Two writers, split: mode, uid, gid, nlink, names, state belong to the
 * registry; size, used and times of an owned object belong to its owner, whose lazy copy never touches the first group.
 */
import type { FileId, ObjectUuid } from '../server/core/ids.ts';
import type { Timestamp } from '../server/core/time.ts';

/** Where an inode's bytes are. `none`: directories and symlinks. The class belongs to the inode, never to its present name. */
export type InodeClass = 'none' | 'inline' | 'file' | 'volume';

export interface Inode {
  readonly fileid: FileId;
  /** Random, below 2^48, drawn at creation: tells a handle of a reused number apart. */
  readonly inodeGeneration: number;
  readonly type: 'file' | 'directory' | 'symlink';
  readonly class: InodeClass;
  readonly state: 'live' | 'unlinked';
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly nlink: number;
  /** For owned classes (file, volume) the owner's lazy copy. Directories: 4096. Inline: exact. */
  readonly sizeBytes: number;
  readonly usedBytes: number;
  readonly atime: Timestamp;
  readonly mtime: Timestamp;
  readonly ctime: Timestamp;
  /** Directories only: the parent's fileid (the root's is its own). */
  readonly parent: FileId | null;
  /** 8 bytes of EXCLUSIVE create, kept exactly; null otherwise. */
  readonly exclusiveVerifier: Uint8Array | null;
  readonly symlinkTarget: Uint8Array | null;
  /** Class inline: the contents (not longer than sizeBytes; missing bytes are zero). Class file: the base that a root does not cover yet. */
  readonly inlineBytes: Uint8Array | null;
  /** Class file and volume (and inline files, which may become one): identity of the data, names its bucket or prefix. */
  readonly uuid: ObjectUuid | null;
}

/** Registry part of a change of attributes; null = leave. */
export interface InodeChanges {
  readonly mode: number | null;
  readonly uid: number | null;
  readonly gid: number | null;
  /** Inline files only; for owned classes the owner changes it. */
  readonly sizeBytes: number | null;
  readonly atime: Timestamp | null;
  readonly mtime: Timestamp | null;
}

/**
 * Write verifier that an inline file shows, and keeps when it becomes an object of class file: the first 8 bytes of its uuid. Inline files are
 * durable before every answer, so it changes with the first recovery of the object that may have lost something, not before.
 */
export function inlineVerifier(inode: Inode): Uint8Array {
  return Buffer.from((inode.uuid ?? '').slice(0, 16).padEnd(16, '0'), 'hex');
}
