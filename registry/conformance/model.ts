/**
 * A namespace that is as plain as can be: arrays and whole copies, no index. The property test runs the same verbs here and in the registry and
 * compares every answer. Random parts (fileid, generation, uuid) and cookies are taken over from the registry's answers.
 */
import type { FileId } from '../../server/core/ids.ts';
import { laterThan, type Timestamp } from '../../server/core/time.ts';
import type { Inode } from '../inode.ts';
import type { InodeChanges } from '../inode.ts';
import type { InlineWriteOutcome, LinkOutcome, NewInode, RemoveOutcome, RenameOutcome, SetAttributesOutcome } from '../ports.ts';

export interface ModelName {
  readonly directory: FileId;
  readonly name: string;
  readonly fileid: FileId;
}

type CreatedKind = 'created' | 'exists' | 'stale' | 'not-directory';

export class ModelNamespace {
  /** Live inodes. */
  inodes: Inode[];
  names: ModelName[] = [];
  tombstones: Inode[] = [];
  readonly #inlineBytesMax: number;

  constructor(root: Inode, inlineBytesMax: number) {
    this.inodes = [root];
    this.#inlineBytesMax = inlineBytesMax;
  }

  get(fileid: FileId): Inode | undefined {
    return this.inodes.find((inode) => inode.fileid === fileid);
  }

  at(directory: FileId, name: string): Inode | undefined {
    const found = this.names.find((entry) => entry.directory === directory && entry.name === name);
    return found === undefined ? undefined : this.get(found.fileid);
  }

  /** What creating something must answer. */
  creationKind(directory: FileId, name: string): CreatedKind {
    const parent = this.get(directory);
    if (parent === undefined) return 'stale';
    if (parent.type !== 'directory') return 'not-directory';
    return this.at(directory, name) === undefined ? 'created' : 'exists';
  }

  /** Takes over what was created, after checking that it is what was asked. */
  add(directory: FileId, name: string, created: Inode, now: Timestamp): { inode: Inode; before: Inode; after: Inode } {
    this.inodes.push(created);
    this.names.push({ directory, name, fileid: created.fileid });
    return { inode: created, ...this.#touch(directory, now, created.type === 'directory' ? 1 : 0) };
  }

  /** The inode that createFile makes of `file`, given the random parts. */
  static newFile(file: NewInode, drawn: Pick<Inode, 'fileid' | 'inodeGeneration' | 'uuid'>, now: Timestamp): Inode {
    return {
      ...drawn,
      type: 'file',
      class: file.class,
      state: 'live',
      mode: file.mode,
      uid: file.uid,
      gid: file.gid,
      nlink: 1,
      sizeBytes: file.sizeBytes,
      usedBytes: 0,
      atime: file.atime ?? now,
      mtime: file.mtime ?? now,
      ctime: now,
      parent: null,
      exclusiveVerifier: file.exclusiveVerifier,
      symlinkTarget: null,
      inlineBytes: file.class === 'inline' ? new Uint8Array(0) : null,
    };
  }

  remove(directory: FileId, name: string, now: Timestamp, wantDirectory: boolean): RemoveOutcome {
    const parent = this.get(directory);
    if (parent === undefined) return { kind: 'stale' };
    if (parent.type !== 'directory') return { kind: 'not-directory', inode: parent };
    const inode = this.at(directory, name);
    if (inode === undefined) return { kind: 'absent', directory: parent };
    if (!wantDirectory && inode.type === 'directory') return { kind: 'is-directory', directory: parent };
    if (wantDirectory && inode.type !== 'directory') return { kind: 'not-a-directory', directory: parent };
    if (wantDirectory && this.names.some((entry) => entry.directory === inode.fileid)) return { kind: 'not-empty', directory: parent };
    this.#dropName(directory, name);
    const after = this.#unlink(inode, now);
    return { kind: 'removed', inode: after, directory: this.#touch(directory, now, wantDirectory ? -1 : 0) };
  }

  link(object: FileId, directory: FileId, name: string, now: Timestamp): LinkOutcome {
    const inode = this.get(object);
    if (inode === undefined) return { kind: 'object-stale' };
    const parent = this.get(directory);
    if (parent === undefined) return { kind: 'stale' };
    if (parent.type !== 'directory') return { kind: 'not-directory', inode: parent };
    if (inode.type === 'directory') return { kind: 'is-directory', directory: parent };
    const taken = this.at(directory, name);
    if (taken !== undefined) return { kind: 'exists', inode: taken, directory: parent };
    const after = this.#put({ ...inode, nlink: inode.nlink + 1, ctime: laterThan(inode.ctime, now) });
    this.names.push({ directory, name, fileid: object });
    return { kind: 'linked', inode: after, directory: this.#touch(directory, now, 0) };
  }

  rename(fromDirectory: FileId, fromName: string, toDirectory: FileId, toName: string, now: Timestamp): RenameOutcome {
    const from = this.get(fromDirectory);
    if (from?.type !== 'directory') return { kind: from === undefined ? 'stale' : 'not-directory', which: 'from' };
    const to = this.get(toDirectory);
    if (to?.type !== 'directory') return { kind: to === undefined ? 'stale' : 'not-directory', which: 'to' };
    const source = this.at(fromDirectory, fromName);
    if (source === undefined) return { kind: 'absent', from, to };
    const target = this.at(toDirectory, toName);
    if (target === source) return { kind: 'unchanged', from, to };
    if (source.type === 'directory' && this.#path(toDirectory).includes(source.fileid)) return { kind: 'invalid', from, to };
    if (target !== undefined) {
      if ((target.type === 'directory') !== (source.type === 'directory')) return { kind: 'target-exists', from, to };
      if (this.names.some((entry) => entry.directory === target.fileid)) return { kind: 'target-not-empty', from, to };
    }
    this.#dropName(fromDirectory, fromName);
    let replaced: Inode | null = null;
    if (target !== undefined) {
      this.#dropName(toDirectory, toName);
      replaced = this.#unlink(target, now);
    }
    this.names.push({ directory: toDirectory, name: toName, fileid: source.fileid });
    const isDirectory = source.type === 'directory';
    const inode = this.#put({ ...source, ctime: laterThan(source.ctime, now), parent: isDirectory ? toDirectory : null });
    const left = isDirectory ? -1 : 0;
    const came = isDirectory && target === undefined ? 1 : 0;
    if (fromDirectory === toDirectory) {
      const change = this.#touch(fromDirectory, now, left + came);
      return { kind: 'renamed', inode, from: change, to: change, replaced };
    }
    return { kind: 'renamed', inode, from: this.#touch(fromDirectory, now, left), to: this.#touch(toDirectory, now, came), replaced };
  }

  setAttributes(fileid: FileId, changes: InodeChanges, guardCtime: Timestamp | null, now: Timestamp): SetAttributesOutcome {
    const before = this.get(fileid);
    if (before === undefined) return { kind: 'stale' };
    if (guardCtime !== null && (guardCtime.seconds !== before.ctime.seconds || guardCtime.nanoseconds !== before.ctime.nanoseconds)) {
      return { kind: 'guard-mismatch', inode: before };
    }
    const { sizeBytes } = changes;
    if (sizeBytes !== null && (before.class !== 'inline' || sizeBytes > this.#inlineBytesMax)) return { kind: 'class-changed', inode: before };
    const { mode, uid, gid, atime, mtime } = changes;
    if (mode === null && uid === null && gid === null && atime === null && mtime === null && sizeBytes === null) {
      return { kind: 'changed', before, after: before };
    }
    let after: Inode = { ...before, ctime: laterThan(before.ctime, now) };
    if (sizeBytes !== null) {
      const contents = (before.inlineBytes ?? new Uint8Array(0)).slice(0, sizeBytes);
      after = { ...after, sizeBytes, inlineBytes: contents, usedBytes: sectors(contents), mtime: laterThan(before.mtime, now) };
    }
    if (mode !== null) after = { ...after, mode: mode % 0o10000 };
    if (uid !== null) after = { ...after, uid };
    if (gid !== null) after = { ...after, gid };
    if (atime !== null) after = { ...after, atime };
    if (mtime !== null) after = { ...after, mtime };
    return { kind: 'changed', before, after: this.#put(after) };
  }

  writeInline(fileid: FileId, offsetBytes: number, bytes: Uint8Array, now: Timestamp): InlineWriteOutcome {
    const before = this.get(fileid);
    if (before === undefined) return { kind: 'stale' };
    if (before.class !== 'inline') return { kind: 'class-changed', inode: before };
    if (bytes.byteLength === 0) return { kind: 'written', before, after: before };
    const end = offsetBytes + bytes.byteLength;
    if (end > this.#inlineBytesMax) return { kind: 'too-large', inode: before };
    const contents = Array.from(before.inlineBytes ?? []);
    while (contents.length < end) contents.push(0);
    bytes.forEach((byte, at) => (contents[offsetBytes + at] = byte));
    const inlineBytes = Uint8Array.from(contents);
    const after = this.#put({
      ...before,
      inlineBytes,
      sizeBytes: Math.max(before.sizeBytes, end),
      usedBytes: sectors(inlineBytes),
      mtime: laterThan(before.mtime, now),
      ctime: laterThan(before.ctime, now),
    });
    return { kind: 'written', before, after };
  }

  flipToFile(fileid: FileId): SetAttributesOutcome {
    const before = this.get(fileid);
    if (before === undefined) return { kind: 'stale' };
    if (before.class === 'file') return { kind: 'changed', before, after: before };
    if (before.class !== 'inline') return { kind: 'class-changed', inode: before };
    return { kind: 'changed', before, after: this.#put({ ...before, class: 'file' }) };
  }

  dropTombstone(fileid: FileId): void {
    this.tombstones = this.tombstones.filter((inode) => inode.fileid !== fileid);
  }

  usage(): { inodes: number; usedBytes: number } {
    return { inodes: this.inodes.length, usedBytes: this.inodes.reduce((sum, inode) => sum + inode.usedBytes, 0) };
  }

  #path(directory: FileId): FileId[] {
    const inode = this.get(directory);
    if (inode?.parent === null || inode?.parent === undefined) return [directory];
    return inode.parent === directory ? [directory] : [directory, ...this.#path(inode.parent)];
  }

  #dropName(directory: FileId, name: string): void {
    this.names = this.names.filter((entry) => entry.directory !== directory || entry.name !== name);
  }

  #unlink(inode: Inode, now: Timestamp): Inode {
    const ctime = laterThan(inode.ctime, now);
    if (inode.type !== 'directory' && inode.nlink > 1) return this.#put({ ...inode, ctime, nlink: inode.nlink - 1 });
    const gone: Inode = { ...inode, ctime, nlink: 0, state: 'unlinked' };
    this.inodes = this.inodes.filter((other) => other.fileid !== inode.fileid);
    if (inode.class === 'file' || inode.class === 'volume') this.tombstones.push(gone);
    return gone;
  }

  #touch(directory: FileId, now: Timestamp, links: number): { before: Inode; after: Inode } {
    const before = this.get(directory);
    if (before === undefined) throw new Error('the model touches a directory that it has');
    const after = { ...before, nlink: before.nlink + links, mtime: laterThan(before.mtime, now), ctime: laterThan(before.ctime, now) };
    return { before, after: this.#put(after) };
  }

  #put(inode: Inode): Inode {
    this.inodes = this.inodes.map((other) => (other.fileid === inode.fileid ? inode : other));
    return inode;
  }
}

function sectors(bytes: Uint8Array): number {
  return Math.floor((bytes.byteLength + 511) / 512) * 512;
}
