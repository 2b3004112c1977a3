/**
 * A complete FileSystem in memory: the example of the port, and what the protocol tests run against. Nothing survives the process, so
 * `committed` is a courtesy: stable is whatever was asked for.
 */
import type { Clock, Random, Timestamp } from '../core/time.ts';
import { laterThan, timestampOf } from '../core/time.ts';
import type {
  AttributedResult,
  Attributes,
  Caller,
  Created,
  CreateHow,
  DirectoryEntry,
  ErrorStatus,
  FileSystem,
  FsInfo,
  FsStat,
  Handle,
  Result,
  SetAttributes,
  Stability,
  Wcc,
  WccResult,
} from './file-system.ts';
import { FileType, Status } from './file-system.ts';
import { MemoryInode, parseMemoryHandle } from './memory-inode.ts';
import { grantedAccess, Permission, permits } from './permission.ts';
import { FsProperty } from './procedures/fsstat.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const LINK_MAX = 65_000;
const ZERO_VERIFIER = Buffer.alloc(8);
const NO_WCC: Wcc = { before: null, after: null };
const DOT = Buffer.from('.');
const DOT_DOT = Buffer.from('..');

export interface MemoryFileSystemSettings {
  /** Name of the export, without slashes. */
  readonly exportName: string;
  /** Bytes of file contents at most: beyond is NOSPC. */
  readonly capacityBytes: number;
}

/** Files at most, as FSSTAT tells and CREATE keeps. */
const FILES_MAX = 10_000_000;

export class MemoryFileSystem implements FileSystem {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #settings: MemoryFileSystemSettings;
  readonly #fsid: bigint;
  readonly #verifier: Buffer;
  readonly #inodes = new Map<number, MemoryInode>();
  readonly #root: MemoryInode;
  #nextFileid = 64;
  #usedBytes = 0;

  constructor(components: { readonly clock: Clock; readonly random: Random }, settings: MemoryFileSystemSettings) {
    this.#clock = components.clock;
    this.#random = components.random;
    this.#settings = settings;
    this.#fsid = this.#random.bytes(8).readBigUInt64BE();
    this.#verifier = this.#random.bytes(8);
    this.#root = this.#newInode(FileType.DIR, { uid: 0, gid: 0 }, null, 0o755);
  }

  mount(_caller: Caller, path: string): Result<{ handle: Handle }> {
    const [exportName, ...names] = path.split('/');
    if (exportName !== this.#settings.exportName) return { status: Status.NOENT };
    let inode = this.#root;
    for (const name of names) {
      if (inode.directory === null) return { status: Status.NOTDIR };
      const entry = inode.directory.get(name);
      if (entry === null) return { status: Status.NOENT };
      inode = this.#inodes.get(entry.fileid)!;
    }
    return inode.directory === null ? { status: Status.NOTDIR } : { status: Status.OK, handle: inode.handle() };
  }

  getattr(_caller: Caller, object: Handle): Result<{ attributes: Attributes }> {
    const inode = this.#find(object);
    return typeof inode === 'number' ? { status: inode } : { status: Status.OK, attributes: inode.attributes() };
  }

  setattr(caller: Caller, object: Handle, changes: SetAttributes, guardCtime: Timestamp | null): WccResult {
    const inode = this.#find(object);
    if (typeof inode === 'number') return { status: inode, wcc: NO_WCC };
    const before = inode.before();
    const ctime = inode.ctime;
    if (guardCtime !== null && (guardCtime.seconds !== ctime.seconds || guardCtime.nanoseconds !== ctime.nanoseconds)) {
      return { status: Status.NOT_SYNC, wcc: inode.unchanged() };
    }
    const error = setattrError(caller, inode, changes);
    if (error !== null) return { status: error, wcc: inode.unchanged() };
    const now = this.#now(inode);
    if (changes.sizeBytes !== null) this.#resize(inode, changes.sizeBytes, now);
    apply(inode, changes, now);
    inode.ctime = now;
    inode.changed();
    return { status: Status.OK, wcc: { before, after: inode.attributes() } };
  }

  lookup(
    caller: Caller,
    directory: Handle,
    name: Uint8Array,
  ): AttributedResult<{ handle: Handle; attributes: Attributes | null; directoryAttributes: Attributes | null }> {
    const parent = this.#directory(caller, directory, Permission.EXECUTE);
    if (typeof parent === 'number') return this.#attributed(parent, directory);
    const text = latin1(name);
    const directoryAttributes = parent.attributes();
    let found: MemoryInode;
    if (text === '.') found = parent;
    else if (text === '..') found = parent.parent;
    else {
      const entry = parent.directory!.get(text);
      if (entry === null) return { status: Status.NOENT, attributes: directoryAttributes };
      found = this.#inodes.get(entry.fileid)!;
    }
    return { status: Status.OK, handle: found.handle(), attributes: found.attributes(), directoryAttributes };
  }

  access(caller: Caller, object: Handle, mask: number): AttributedResult<{ granted: number; attributes: Attributes | null }> {
    const inode = this.#find(object);
    if (typeof inode === 'number') return { status: inode, attributes: null };
    return { status: Status.OK, granted: grantedAccess(caller, inode, mask), attributes: inode.attributes() };
  }

  readlink(_caller: Caller, object: Handle): AttributedResult<{ target: Uint8Array; attributes: Attributes | null }> {
    const inode = this.#find(object);
    if (typeof inode === 'number') return { status: inode, attributes: null };
    if (inode.target === null) return { status: Status.INVAL, attributes: inode.attributes() };
    return { status: Status.OK, target: inode.target, attributes: inode.attributes() };
  }

  read(
    caller: Caller,
    object: Handle,
    offsetBytes: number,
    target: Buffer,
  ): AttributedResult<{ bytesRead: number; eof: boolean; attributes: Attributes | null }> {
    const inode = this.#find(object);
    if (typeof inode === 'number') return { status: inode, attributes: null };
    const content = inode.content;
    if (content === null) return { status: Status.INVAL, attributes: inode.attributes() };
    // The owner may always: the check was made when the file was opened, which NFSv3 does not see (RFC 1813 §4.4).
    if (caller.uid !== inode.uid && !permits(caller, inode, Permission.READ) && !permits(caller, inode, Permission.EXECUTE)) {
      return { status: Status.ACCES, attributes: inode.attributes() };
    }
    const bytesRead = Math.max(0, Math.min(target.length, inode.sizeBytes - offsetBytes));
    content.read(offsetBytes, target.subarray(0, bytesRead));
    return { status: Status.OK, bytesRead, eof: offsetBytes + bytesRead >= inode.sizeBytes, attributes: inode.attributes() };
  }

  write(
    caller: Caller,
    object: Handle,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stability: Stability,
  ): WccResult<{ countBytes: number; committed: Stability; verifier: Uint8Array }> {
    const inode = this.#find(object);
    if (typeof inode === 'number') return { status: inode, wcc: NO_WCC };
    const content = inode.content;
    if (content === null) return { status: Status.INVAL, wcc: inode.unchanged() };
    if (caller.uid !== inode.uid && !permits(caller, inode, Permission.WRITE)) return { status: Status.ACCES, wcc: inode.unchanged() };
    if (this.#usedBytes + content.growthBytes(offsetBytes, countBytes) > this.#settings.capacityBytes) {
      return { status: Status.NOSPC, wcc: inode.unchanged() };
    }
    const before = inode.before();
    if (countBytes > 0) {
      const usedBefore = content.usedBytes;
      let at = offsetBytes;
      for (const chunk of chunks) {
        content.write(at, chunk);
        at += chunk.length;
      }
      this.#usedBytes += content.usedBytes - usedBefore;
      inode.sizeBytes = Math.max(inode.sizeBytes, offsetBytes + countBytes);
      const now = this.#now(inode);
      inode.mtime = now;
      inode.ctime = now;
      inode.changed();
    }
    const wcc = { before, after: inode.attributes() };
    return { status: Status.OK, wcc, countBytes, committed: stability, verifier: this.#verifier };
  }

  commit(_caller: Caller, object: Handle, _offsetBytes: number, _countBytes: number): WccResult<{ verifier: Uint8Array }> {
    const inode = this.#find(object);
    if (typeof inode === 'number') return { status: inode, wcc: NO_WCC };
    if (inode.content === null) return { status: Status.INVAL, wcc: inode.unchanged() };
    return { status: Status.OK, wcc: inode.unchanged(), verifier: this.#verifier };
  }

  create(caller: Caller, directory: Handle, name: Uint8Array, how: CreateHow): WccResult<Created> {
    const parent = this.#directory(caller, directory, 0);
    if (typeof parent === 'number') return this.#failedIn(parent, directory);
    const entry = parent.directory!.get(latin1(name));
    if (entry !== null) return this.#createOver(caller, parent, this.#inodes.get(entry.fileid)!, how);
    const attributes = how.mode === 'exclusive' ? null : how.attributes;
    return this.#make(caller, parent, name, FileType.REG, attributes, (inode, now) => {
      if (how.mode === 'exclusive') inode.exclusiveVerifier = Buffer.from(how.verifier);
      else if (how.attributes.sizeBytes !== null) this.#resize(inode, how.attributes.sizeBytes, now);
    });
  }

  mkdir(caller: Caller, directory: Handle, name: Uint8Array, attributes: SetAttributes): WccResult<Created> {
    const parent = this.#vacant(caller, directory, name);
    if (typeof parent === 'number') return this.#failedIn(parent, directory);
    return this.#make(caller, parent, name, FileType.DIR, attributes, (inode) => {
      inode.parent = parent;
      parent.nlink += 1;
    });
  }

  symlink(caller: Caller, directory: Handle, name: Uint8Array, target: Uint8Array, attributes: SetAttributes): WccResult<Created> {
    const parent = this.#vacant(caller, directory, name);
    if (typeof parent === 'number') return this.#failedIn(parent, directory);
    return this.#make(caller, parent, name, FileType.LNK, attributes, (inode) => {
      inode.target = Buffer.from(target);
      inode.sizeBytes = target.length;
    });
  }

  remove(caller: Caller, directory: Handle, name: Uint8Array): WccResult {
    return this.#unlink(caller, directory, latin1(name), (inode) => (inode.directory === null ? null : Status.ISDIR));
  }

  rmdir(caller: Caller, directory: Handle, name: Uint8Array): WccResult {
    return this.#unlink(caller, directory, latin1(name), (inode) => {
      if (inode.directory === null) return Status.NOTDIR;
      return inode.directory.size > 0 ? Status.NOTEMPTY : null;
    });
  }

  rename(
    caller: Caller,
    fromDirectory: Handle,
    fromName: Uint8Array,
    toDirectory: Handle,
    toName: Uint8Array,
  ): { status: Status; fromWcc: Wcc; toWcc: Wcc } {
    const from = this.#directory(caller, fromDirectory, Permission.WRITE | Permission.EXECUTE);
    const to = this.#directory(caller, toDirectory, Permission.WRITE | Permission.EXECUTE);
    if (typeof from === 'number' || typeof to === 'number') {
      const status = typeof from === 'number' ? from : (to as ErrorStatus);
      return { status, fromWcc: this.#wccOf(fromDirectory), toWcc: this.#wccOf(toDirectory) };
    }
    const fromBefore = from.before();
    const toBefore = to.before();
    const status = this.#rename(caller, from, latin1(fromName), to, latin1(toName));
    return {
      status,
      fromWcc: { before: fromBefore, after: from.attributes() },
      toWcc: { before: toBefore, after: to.attributes() },
    };
  }

  link(caller: Caller, object: Handle, directory: Handle, name: Uint8Array): { status: Status; attributes: Attributes | null; directoryWcc: Wcc } {
    const inode = this.#find(object);
    const parent = this.#vacant(caller, directory, name);
    const attributes = typeof inode === 'number' ? null : inode.attributes();
    if (typeof inode === 'number') return { status: inode, attributes, directoryWcc: this.#wccOf(directory) };
    if (typeof parent === 'number') return { status: parent, attributes, directoryWcc: this.#wccOf(directory) };
    if (inode.directory !== null) return { status: Status.ISDIR, attributes, directoryWcc: parent.unchanged() };
    if (inode.nlink >= LINK_MAX) return { status: Status.MLINK, attributes, directoryWcc: parent.unchanged() };
    const before = parent.before();
    parent.directory!.add(latin1(name), inode.fileid);
    inode.nlink += 1;
    inode.ctime = this.#now(inode);
    inode.changed();
    this.#touch(parent);
    return { status: Status.OK, attributes: inode.attributes(), directoryWcc: { before, after: parent.attributes() } };
  }

  readdir(
    caller: Caller,
    directory: Handle,
    cookie: number,
    _cookieVerifier: Uint8Array,
    limit: number,
    wantAttributes: boolean,
  ): AttributedResult<{ entries: readonly DirectoryEntry[]; eof: boolean; attributes: Attributes | null; cookieVerifier: Uint8Array }> {
    const inode = this.#directory(caller, directory, Permission.READ);
    if (typeof inode === 'number') return this.#attributed(inode, directory);
    const entries: DirectoryEntry[] = [];
    let eof = true;
    const add = (make: () => DirectoryEntry): boolean => {
      if (entries.length >= limit) eof = false;
      else entries.push(make());
      return eof;
    };
    if (cookie < 1) add(() => inode.entry(DOT, 1, wantAttributes));
    if (cookie < 2) add(() => inode.parent.entry(DOT_DOT, 2, wantAttributes));
    inode.directory!.after(cookie, (entry) => add(() => this.#inodes.get(entry.fileid)!.entry(entry.name, entry.cookie, wantAttributes)));
    return { status: Status.OK, entries, eof, attributes: inode.attributes(), cookieVerifier: ZERO_VERIFIER };
  }

  fsstat(_caller: Caller, object: Handle): AttributedResult<{ stat: FsStat; attributes: Attributes | null }> {
    const inode = this.#find(object);
    if (typeof inode === 'number') return { status: inode, attributes: null };
    const freeBytes = this.#settings.capacityBytes - this.#usedBytes;
    const freeFiles = FILES_MAX - this.#inodes.size;
    const stat = {
      totalBytes: this.#settings.capacityBytes,
      freeBytes,
      availableBytes: freeBytes,
      totalFiles: FILES_MAX,
      freeFiles,
      availableFiles: freeFiles,
      invariantSeconds: 0,
    };
    return { status: Status.OK, stat, attributes: inode.attributes() };
  }

  fsinfo(_caller: Caller, object: Handle): AttributedResult<{ info: FsInfo; attributes: Attributes | null }> {
    const inode = this.#find(object);
    if (typeof inode === 'number') return { status: inode, attributes: null };
    const info = {
      readMaxBytes: MIB,
      readPreferredBytes: MIB,
      readMultipleBytes: 4 * KIB,
      writeMaxBytes: MIB,
      writePreferredBytes: MIB,
      writeMultipleBytes: 4 * KIB,
      readdirPreferredBytes: 64 * KIB,
      fileSizeMaxBytes: Number.MAX_SAFE_INTEGER,
      timeDelta: { seconds: 0, nanoseconds: 1 },
      properties: FsProperty.LINK | FsProperty.SYMLINK | FsProperty.HOMOGENEOUS | FsProperty.CANSETTIME,
    };
    return { status: Status.OK, info, attributes: inode.attributes() };
  }

  pathconf(_caller: Caller, object: Handle): AttributedResult<{ linkMax: number; attributes: Attributes | null }> {
    const inode = this.#find(object);
    if (typeof inode === 'number') return { status: inode, attributes: null };
    return { status: Status.OK, linkMax: LINK_MAX, attributes: inode.attributes() };
  }

  /** BADHANDLE for what never was a handle of ours, STALE for one whose object is gone. */
  #find(handle: Handle): MemoryInode | ErrorStatus {
    const parsed = parseMemoryHandle(handle);
    if (parsed === null) return Status.BADHANDLE;
    const inode = this.#inodes.get(parsed.fileid);
    return inode === undefined || inode.generation !== parsed.generation ? Status.STALE : inode;
  }

  #directory(caller: Caller, handle: Handle, bits: number): MemoryInode | ErrorStatus {
    const inode = this.#find(handle);
    if (typeof inode === 'number') return inode;
    if (inode.directory === null) return Status.NOTDIR;
    return permits(caller, inode, bits) ? inode : Status.ACCES;
  }

  /** The directory, when `name` can be made in it. */
  #vacant(caller: Caller, directory: Handle, name: Uint8Array): MemoryInode | ErrorStatus {
    const parent = this.#directory(caller, directory, 0);
    if (typeof parent === 'number') return parent;
    return parent.directory!.get(latin1(name)) === null ? parent : Status.EXIST;
  }

  #createOver(caller: Caller, parent: MemoryInode, inode: MemoryInode, how: CreateHow): WccResult<Created> {
    const wcc = parent.unchanged();
    if (how.mode === 'guarded') return { status: Status.EXIST, wcc };
    if (how.mode === 'exclusive') {
      // RFC 1813 §3.3.8: the same verifier is the same call sent again.
      if (inode.exclusiveVerifier === null || !inode.exclusiveVerifier.equals(how.verifier)) return { status: Status.EXIST, wcc };
      return { status: Status.OK, wcc, handle: inode.handle(), attributes: inode.attributes() };
    }
    if (inode.content === null) return { status: Status.EXIST, wcc };
    // Of the attributes only the size counts for a file that exists (O_TRUNC), as open(2) has it.
    if (how.attributes.sizeBytes !== null) {
      if (!permits(caller, inode, Permission.WRITE)) return { status: Status.ACCES, wcc };
      const now = this.#now(inode);
      this.#resize(inode, how.attributes.sizeBytes, now);
      inode.ctime = now;
      inode.changed();
    }
    return { status: Status.OK, wcc, handle: inode.handle(), attributes: inode.attributes() };
  }

  #make(
    caller: Caller,
    parent: MemoryInode,
    name: Uint8Array,
    type: FileType,
    attributes: SetAttributes | null,
    finish: (inode: MemoryInode, now: Timestamp) => void,
  ): WccResult<Created> {
    if (!permits(caller, parent, Permission.WRITE | Permission.EXECUTE)) return { status: Status.ACCES, wcc: parent.unchanged() };
    if (this.#inodes.size >= FILES_MAX) return { status: Status.NOSPC, wcc: parent.unchanged() };
    const before = parent.before();
    const mode = type === FileType.DIR ? 0o755 : type === FileType.LNK ? 0o777 : 0o644;
    const inode = this.#newInode(type, caller, parent, mode);
    finish(inode, inode.ctime);
    if (attributes !== null) apply(inode, caller.uid === 0 ? attributes : { ...attributes, uid: null }, inode.ctime);
    inode.changed();
    parent.directory!.add(latin1(name), inode.fileid);
    this.#touch(parent);
    return { status: Status.OK, wcc: { before, after: parent.attributes() }, handle: inode.handle(), attributes: inode.attributes() };
  }

  #newInode(type: FileType, owner: { uid: number; gid: number }, parent: MemoryInode | null, mode: number): MemoryInode {
    const inherits = parent !== null && (parent.mode & 0o2000) !== 0;
    const inode = new MemoryInode({
      fileid: this.#nextFileid++,
      generation: this.#random.bytes(8).readBigUInt64BE(),
      type,
      mode,
      uid: owner.uid,
      gid: inherits ? parent.gid : owner.gid,
      now: timestampOf(this.#clock.wallMs()),
      fsid: this.#fsid,
    });
    this.#inodes.set(inode.fileid, inode);
    return inode;
  }

  #unlink(caller: Caller, directory: Handle, name: string, check: (inode: MemoryInode) => ErrorStatus | null): WccResult {
    const parent = this.#directory(caller, directory, Permission.WRITE | Permission.EXECUTE);
    if (typeof parent === 'number') return { status: parent, wcc: this.#wccOf(directory) };
    const entry = parent.directory!.get(name);
    if (entry === null) return { status: Status.NOENT, wcc: parent.unchanged() };
    const inode = this.#inodes.get(entry.fileid)!;
    const error = check(inode) ?? stickyError(caller, parent, inode);
    if (error !== null) return { status: error, wcc: parent.unchanged() };
    const before = parent.before();
    parent.directory!.remove(name);
    this.#drop(inode, parent);
    this.#touch(parent);
    return { status: Status.OK, wcc: { before, after: parent.attributes() } };
  }

  /** One name less. The last one takes the inode with it: nothing is open in NFSv3. */
  #drop(inode: MemoryInode, parent: MemoryInode): void {
    if (inode.directory !== null) {
      parent.nlink -= 1;
      inode.nlink = 0;
    } else inode.nlink -= 1;
    if (inode.nlink === 0) {
      this.#inodes.delete(inode.fileid);
      this.#usedBytes -= inode.content?.usedBytes ?? 0;
      return;
    }
    inode.ctime = this.#now(inode);
    inode.changed();
  }

  #rename(caller: Caller, from: MemoryInode, fromName: string, to: MemoryInode, toName: string): Status {
    const source = from.directory!.get(fromName);
    if (source === null) return Status.NOENT;
    const moved = this.#inodes.get(source.fileid)!;
    const target = to.directory!.get(toName);
    // RFC 1813 §3.3.14: both names are the same object: nothing to do.
    if (target !== null && target.fileid === source.fileid) return Status.OK;
    const sticky = stickyError(caller, from, moved);
    if (sticky !== null) return sticky;
    if (moved.directory !== null)
      for (let up = to; ; up = up.parent) {
        if (up === moved) return Status.INVAL;
        if (up === up.parent) break;
      }
    if (target !== null) {
      const victim = this.#inodes.get(target.fileid)!;
      if (victim.directory === null && moved.directory !== null) return Status.NOTDIR;
      if (victim.directory !== null && moved.directory === null) return Status.ISDIR;
      if (victim.directory !== null && victim.directory.size > 0) return Status.NOTEMPTY;
      const victimSticky = stickyError(caller, to, victim);
      if (victimSticky !== null) return victimSticky;
      to.directory!.remove(toName);
      this.#drop(victim, to);
    }
    from.directory!.remove(fromName);
    to.directory!.add(toName, moved.fileid);
    if (moved.directory !== null) {
      moved.parent = to;
      from.nlink -= 1;
      to.nlink += 1;
    }
    moved.ctime = this.#now(moved);
    moved.changed();
    this.#touch(from);
    if (to !== from) this.#touch(to);
    return Status.OK;
  }

  #resize(inode: MemoryInode, sizeBytes: number, now: Timestamp): void {
    const content = inode.content!;
    if (sizeBytes < inode.sizeBytes) {
      const usedBefore = content.usedBytes;
      content.truncate(sizeBytes);
      this.#usedBytes += content.usedBytes - usedBefore;
    }
    inode.sizeBytes = sizeBytes;
    inode.mtime = now;
  }

  #touch(inode: MemoryInode): void {
    const now = this.#now(inode);
    inode.mtime = now;
    inode.ctime = now;
    inode.changed();
  }

  #now(inode: MemoryInode): Timestamp {
    return laterThan(inode.ctime, timestampOf(this.#clock.wallMs()));
  }

  #wccOf(handle: Handle): Wcc {
    const inode = this.#find(handle);
    return typeof inode === 'number' ? NO_WCC : inode.unchanged();
  }

  #attributed(status: ErrorStatus, handle: Handle): { status: ErrorStatus; attributes: Attributes | null } {
    return { status, attributes: this.#wccOf(handle).after };
  }

  #failedIn(status: ErrorStatus, directory: Handle): { status: ErrorStatus; wcc: Wcc } {
    return { status, wcc: this.#wccOf(directory) };
  }
}

function latin1(name: Uint8Array): string {
  return Buffer.from(name.buffer, name.byteOffset, name.byteLength).toString('latin1');
}

/** chmod, chown, truncate and utimes have different rules, as in POSIX. */
function setattrError(caller: Caller, inode: MemoryInode, changes: SetAttributes): ErrorStatus | null {
  if (changes.sizeBytes !== null && inode.content === null) return inode.directory === null ? Status.INVAL : Status.ISDIR;
  if (caller.uid === 0) return null;
  const owns = caller.uid === inode.uid;
  if (changes.mode !== null && !owns) return Status.PERM;
  if (changes.uid !== null && changes.uid !== inode.uid) return Status.PERM;
  if (changes.gid !== null && changes.gid !== inode.gid && !(owns && (changes.gid === caller.gid || caller.gids.includes(changes.gid))))
    return Status.PERM;
  const mayWrite = owns || permits(caller, inode, Permission.WRITE);
  if (changes.sizeBytes !== null && !mayWrite) return Status.ACCES;
  for (const time of [changes.atime, changes.mtime]) {
    if (time === 'server' && !mayWrite) return Status.ACCES;
    if (time !== null && time !== 'server' && !owns) return Status.PERM;
  }
  return null;
}

/** Everything but the size and ctime. */
function apply(inode: MemoryInode, changes: SetAttributes, now: Timestamp): void {
  if (changes.mode !== null) inode.mode = changes.mode;
  if (changes.uid !== null) inode.uid = changes.uid;
  if (changes.gid !== null) inode.gid = changes.gid;
  if (changes.atime !== null) inode.atime = changes.atime === 'server' ? now : changes.atime;
  if (changes.mtime !== null) inode.mtime = changes.mtime === 'server' ? now : changes.mtime;
}

/** In a sticky directory only root and the owners of directory or object take a name away. */
function stickyError(caller: Caller, parent: MemoryInode, inode: MemoryInode): ErrorStatus | null {
  const restricted = (parent.mode & 0o1000) !== 0 && caller.uid !== 0 && caller.uid !== parent.uid && caller.uid !== inode.uid;
  return restricted ? Status.PERM : null;
}
