/** Inodes, directories and handles of the in-memory file system. */
import type { Timestamp } from '../core/time.ts';
import type { Attributes, DirectoryEntry, FileType, Handle, PreAttributes, Wcc } from './file-system.ts';
import { FileType as Type } from './file-system.ts';
import { SparseContent } from './sparse-content.ts';

/** `mfs1`, fileid, generation: 20 bytes. */
const HANDLE_MAGIC = 0x6d66_7331;
const HANDLE_BYTES = 20;

export interface MemoryEntry {
  readonly name: Buffer;
  readonly cookie: number;
  readonly fileid: number;
  removed: boolean;
}

/** Names of a directory: by name, and in the order of their cookies, which count up from 3 and are never used again. */
export class MemoryDirectory {
  readonly #byName = new Map<string, MemoryEntry>();
  /** In cookie order, with removed entries until there are too many of them. */
  #order: MemoryEntry[] = [];
  #nextCookie = 3;

  get size(): number {
    return this.#byName.size;
  }

  get(name: string): MemoryEntry | null {
    return this.#byName.get(name) ?? null;
  }

  add(name: string, fileid: number): void {
    const entry = { name: Buffer.from(name, 'latin1'), cookie: this.#nextCookie++, fileid, removed: false };
    this.#byName.set(name, entry);
    this.#order.push(entry);
  }

  remove(name: string): void {
    const entry = this.#byName.get(name);
    if (entry === undefined) return;
    this.#byName.delete(name);
    entry.removed = true;
    if (this.#order.length > 64 && this.#order.length > 2 * this.#byName.size) this.#order = this.#order.filter((e) => !e.removed);
  }

  /** Entries behind `cookie` in order, until `take` says no. */
  after(cookie: number, take: (entry: MemoryEntry) => boolean): void {
    let low = 0;
    let high = this.#order.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#order[middle]!.cookie <= cookie) low = middle + 1;
      else high = middle;
    }
    for (let i = low; i < this.#order.length; i++) {
      const entry = this.#order[i]!;
      if (!entry.removed && !take(entry)) return;
    }
  }
}

export interface MemoryInodeInit {
  readonly fileid: number;
  readonly generation: bigint;
  readonly type: FileType;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly now: Timestamp;
  readonly fsid: bigint;
}

export class MemoryInode {
  readonly fileid: number;
  readonly generation: bigint;
  readonly type: FileType;
  mode: number;
  uid: number;
  gid: number;
  nlink = 1;
  sizeBytes = 0;
  atime: Timestamp;
  mtime: Timestamp;
  ctime: Timestamp;
  readonly content: SparseContent | null;
  readonly directory: MemoryDirectory | null;
  /** Directories: the parent; the root is its own. */
  parent: MemoryInode = this;
  exclusiveVerifier: Buffer | null = null;
  target: Buffer | null = null;
  readonly #fsid: bigint;
  #snapshot: Attributes | null = null;
  #handle: Buffer | null = null;

  constructor(init: MemoryInodeInit) {
    this.fileid = init.fileid;
    this.generation = init.generation;
    this.type = init.type;
    this.mode = init.mode;
    this.uid = init.uid;
    this.gid = init.gid;
    this.atime = init.now;
    this.mtime = init.now;
    this.ctime = init.now;
    this.#fsid = init.fsid;
    this.content = init.type === Type.REG ? new SparseContent() : null;
    this.directory = init.type === Type.DIR ? new MemoryDirectory() : null;
    if (init.type === Type.DIR) {
      this.nlink = 2;
      this.sizeBytes = 4096;
    }
  }

  /** To be called after every change: the next `attributes` is a new snapshot. */
  changed(): void {
    this.#snapshot = null;
  }

  attributes(): Attributes {
    this.#snapshot ??= {
      type: this.type,
      mode: this.mode,
      nlink: this.nlink,
      uid: this.uid,
      gid: this.gid,
      sizeBytes: this.sizeBytes,
      usedBytes: this.content?.usedBytes ?? 0,
      fsid: this.#fsid,
      fileid: this.fileid,
      atime: this.atime,
      mtime: this.mtime,
      ctime: this.ctime,
    };
    return this.#snapshot;
  }

  before(): PreAttributes {
    return { sizeBytes: this.sizeBytes, mtime: this.mtime, ctime: this.ctime };
  }

  /** wcc_data of an operation that changed nothing. */
  unchanged(): Wcc {
    return { before: this.before(), after: this.attributes() };
  }

  handle(): Handle {
    if (this.#handle === null) {
      this.#handle = Buffer.alloc(HANDLE_BYTES);
      this.#handle.writeUInt32BE(HANDLE_MAGIC, 0);
      this.#handle.writeBigUInt64BE(BigInt(this.fileid), 4);
      this.#handle.writeBigUInt64BE(this.generation, 12);
    }
    return this.#handle;
  }

  entry(name: Buffer, cookie: number, wantAttributes: boolean): DirectoryEntry {
    return {
      fileid: this.fileid,
      name,
      cookie,
      attributes: wantAttributes ? this.attributes() : null,
      handle: wantAttributes ? this.handle() : null,
    };
  }
}

/** What a handle names, or null when it is none of ours. */
export function parseMemoryHandle(handle: Handle): { readonly fileid: number; readonly generation: bigint } | null {
  if (handle.length !== HANDLE_BYTES) return null;
  const view = new DataView(handle.buffer, handle.byteOffset, handle.byteLength);
  if (view.getUint32(0) !== HANDLE_MAGIC) return null;
  const fileid = view.getBigUint64(4);
  return fileid > BigInt(Number.MAX_SAFE_INTEGER) ? null : { fileid: Number(fileid), generation: view.getBigUint64(12) };
}
