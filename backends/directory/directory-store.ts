/**
 * Objects as files of a local or mounted file system; layout in docs/formats/backend-directory.md.
 *
 * Every call does its work with SYNCHRONOUS system calls before its promise exists, on the thread that calls. That is on
 * purpose: libuv's four pool threads belong to the whole process, and a hanging file server would take them one by one until
 * the segment log's fdatasync waits for it too. So a router hosts this store in a worker (`upload-thread/`), where it may hang
 * alone; only tools and tests use it directly.
 */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';

import { errorCode } from '../../server/core/errors.ts';
import { throwIfAborted } from '../abort.ts';
import { assertLimit, assertRange, OBJECT_BYTES_MAX, requireNamesToDelete } from '../call-arguments.ts';
import { bodySizeBytes, fileBodyError, fileBodyShort } from '../object-body.ts';
import { isBucketName, isObjectName, requireBucketName, requireObjectName } from '../object-name.ts';
import { type ByteRange, type GetOutcome, type ObjectBody, type ObjectStore, StoreError } from '../object-store.ts';
import {
  BUCKETS_DIRECTORY,
  initializeBackendDirectory,
  type MarkerStamp,
  TEMPORARY_DIRECTORY,
  TEMPORARY_PREFIX,
  verifyMarker,
} from './backend-marker.ts';
import { readAll, syncDirectory, unlinkIfThere, writeAll } from './durable-fs.ts';
import { classifyFsError } from './fs-error.ts';

/** Plain data, so that it can be handed to a worker. */
export interface DirectoryStoreConfig {
  readonly kind: 'directory';
  /** Absolute path of the backend's root. */
  readonly path: string;
  /** The vPool's uuid, 32 lower-case hex digits: what the root's marker file must say. */
  readonly vpoolUuid: string;
  /**
   * True only while the vPool is being created: the root, its directories and its marker are made at the first call. Never
   * for a vPool that exists, nor in a thread (which may start again at any time), or a bare mount point would silently be filled.
   */
  readonly initialize: boolean;
  /**
   * A whole local file becomes the object by a hard link where the file system allows it: no byte is copied or stored twice. Then nobody may ever
   * change or recycle a file that was put, only unlink it. Default false.
   */
  readonly linkFiles?: boolean;
}

/** A file body is copied in steps of this size, with a check of the signal between two steps. */
const STEP_BYTES = 1024 * 1024;
/** A temporary file not touched for this long belongs to no running put. A put that is slower fails when it is gone, and is retried. */
const ORPHAN_AGE_MS = 15 * 60 * 1000;

const { O_RDONLY, O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK } = fs.constants;

/** The names of a bucket as read for one page, kept for the page that continues it. At most one is kept. */
interface Listing {
  readonly bucket: string;
  readonly prefix: string;
  /** Last name of the page. */
  readonly last: string;
  readonly names: readonly string[];
}

/** See the module comment. Constructing does no I/O: a directory that is not mounted yet is an error of the calls, class `retry`. */
export class DirectoryStore implements ObjectStore {
  readonly description: string;
  /** link(2) fails when the name exists, on NFS too. */
  readonly putIsAtomic = true;
  readonly #config: DirectoryStoreConfig;
  readonly #bucketsPath: string;
  readonly #temporaryPath: string;
  readonly #step = Buffer.allocUnsafeSlow(STEP_BYTES);
  #marker: MarkerStamp | null = null;
  #orphansRemoved = false;
  #listing: Listing | null = null;

  constructor(config: DirectoryStoreConfig) {
    this.#config = config;
    this.description = `directory:${config.path}`;
    this.#bucketsPath = join(config.path, BUCKETS_DIRECTORY);
    this.#temporaryPath = join(config.path, TEMPORARY_DIRECTORY);
  }

  async createBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    requireBucketName(bucket);
    this.#run(`create bucket ${bucket}`, signal, () => {
      try {
        // Never recursive: if the mount goes between the marker check and here, nothing is made on the bare mount point.
        fs.mkdirSync(join(this.#bucketsPath, bucket), 0o700);
      } catch (error) {
        if (errorCode(error) !== 'EEXIST') throw error;
      }
      // Also for one that existed: whoever made it may have died before this sync.
      syncDirectory(this.#bucketsPath);
    });
  }

  async deleteBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    requireBucketName(bucket);
    this.#run(`delete bucket ${bucket}`, signal, (what) => {
      try {
        fs.rmdirSync(join(this.#bucketsPath, bucket));
      } catch (error) {
        const code = errorCode(error);
        if (code === 'ENOTEMPTY' || code === 'EEXIST') throw new StoreError('denied', `${what}: it holds objects`, error);
        if (code !== 'ENOENT') throw error;
      }
      syncDirectory(this.#bucketsPath);
    });
  }

  async listBuckets(after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    assertLimit(limit);
    return this.#run('list buckets', signal, () => {
      const names = fs.readdirSync(this.#bucketsPath).filter(isBucketName).sort();
      return page(names, '', after, limit);
    });
  }

  async put(bucket: string, name: string, body: ObjectBody, signal?: AbortSignal): Promise<'written' | 'exists'> {
    requireObjectName(bucket, name);
    return this.#run(`put ${bucket}/${name}`, signal, (what) => {
      const sizeBytes = bodySizeBytes(body);
      if (sizeBytes > OBJECT_BYTES_MAX) throw new StoreError('denied', `${what}: ${sizeBytes} bytes, an object has at most ${OBJECT_BYTES_MAX}`);
      const directory = join(this.#bucketsPath, bucket);
      const target = join(directory, name);
      if (!this.#isThere(directory)) throw new StoreError('absent', `${what}: bucket ${bucket} does not exist`);
      if (this.#isThere(target)) return this.#exists(directory);
      return this.#putNew(directory, target, body, what, signal);
    });
  }

  async get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
    requireObjectName(bucket, name);
    assertRange(range);
    return this.#run<GetOutcome>(`get ${bucket}/${name}`, signal, (what) => {
      const fd = this.#openObject(bucket, name);
      if (fd === null) return { kind: 'absent' };
      try {
        const sizeBytes = this.#sizeOf(fd, what);
        const offsetBytes = Math.min(range?.offsetBytes ?? 0, sizeBytes);
        const lengthBytes = Math.min(range?.lengthBytes ?? sizeBytes, sizeBytes - offsetBytes);
        if (lengthBytes > OBJECT_BYTES_MAX) {
          throw new StoreError('corrupt', `${what}: the file has ${sizeBytes} bytes, no object has more than ${OBJECT_BYTES_MAX}`);
        }
        // Memory of its own and nothing besides: a worker transfers it to another thread.
        const bytes = Buffer.allocUnsafeSlow(lengthBytes);
        const found = readAll(fd, bytes, 0, lengthBytes, offsetBytes);
        if (found !== lengthBytes) throw new StoreError('corrupt', `${what}: the file shrank while it was read`);
        return { kind: 'found', bytes };
      } finally {
        fs.closeSync(fd);
      }
    });
  }

  async head(bucket: string, name: string, signal?: AbortSignal): Promise<{ kind: 'found'; sizeBytes: number } | { kind: 'absent' }> {
    requireObjectName(bucket, name);
    return this.#run<{ kind: 'found'; sizeBytes: number } | { kind: 'absent' }>(`head ${bucket}/${name}`, signal, (what) => {
      const fd = this.#openObject(bucket, name);
      if (fd === null) return { kind: 'absent' };
      try {
        return { kind: 'found', sizeBytes: this.#sizeOf(fd, what) };
      } finally {
        fs.closeSync(fd);
      }
    });
  }

  async delete(bucket: string, name: string, signal?: AbortSignal): Promise<void> {
    requireObjectName(bucket, name);
    this.#run(`delete ${bucket}/${name}`, signal, () => {
      const directory = join(this.#bucketsPath, bucket);
      // Durable, or an object that came back after a power cut would be nobody's: its name has left the garbage list.
      if (unlinkIfThere(join(directory, name))) syncDirectory(directory);
    });
  }

  async deleteMany(bucket: string, names: readonly string[], signal?: AbortSignal): Promise<void> {
    requireNamesToDelete(bucket, names);
    this.#run(`delete ${names.length} objects of ${bucket}`, signal, () => {
      const directory = join(this.#bucketsPath, bucket);
      let removed = false;
      for (const name of names) removed = unlinkIfThere(join(directory, name)) || removed;
      if (removed) syncDirectory(directory);
    });
  }

  async list(bucket: string, prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    requireBucketName(bucket);
    assertLimit(limit);
    return this.#run(`list ${bucket}`, signal, (what) => {
      // A listing of n names in pages reads the directory once, not n / limit times; the port allows it to lag.
      const known = this.#listing;
      const continued = known !== null && known.bucket === bucket && known.prefix === prefix && known.last === after;
      const names = continued ? known.names : this.#readBucket(bucket, what);
      const result = page(names, prefix, after, limit);
      this.#listing = result.more ? { bucket, prefix, last: result.names.at(-1) ?? '', names } : null;
      return result;
    });
  }

  #run<T>(what: string, signal: AbortSignal | undefined, work: (what: string) => T): T {
    throwIfAborted(signal, what);
    if (this.#marker === null && this.#config.initialize) initializeBackendDirectory(this.#config);
    this.#marker = verifyMarker(this.#config, this.#marker);
    try {
      return work(what);
    } catch (error) {
      // The mount may have gone in the middle: then that is the thing to say, whatever the step that noticed it met.
      if (!(error instanceof StoreError) || error.class === 'absent') this.#marker = verifyMarker(this.#config, this.#marker);
      throw classifyFsError(error, what);
    }
  }

  #putNew(directory: string, target: string, body: ObjectBody, what: string, signal: AbortSignal | undefined): 'written' | 'exists' {
    if (this.#config.linkFiles === true && body.kind === 'file') {
      const linked = this.#linkFile(directory, target, body, what);
      if (linked !== null) return linked;
    }
    const temporary = join(this.#temporaryPath, `${TEMPORARY_PREFIX}put-${process.pid}-${randomBytes(8).toString('hex')}`);
    const fd = fs.openSync(temporary, O_WRONLY | O_CREAT | O_EXCL, 0o600);
    try {
      try {
        if (!this.#orphansRemoved) this.#removeOrphans(fs.fstatSync(fd).mtimeMs);
        if (body.kind === 'bytes') writeChunks(fd, body.chunks);
        else this.#copyFile(fd, body.path, body.offsetBytes, body.lengthBytes, what, signal);
        fs.fdatasyncSync(fd);
      } finally {
        fs.closeSync(fd);
      }
      throwIfAborted(signal, what);
      try {
        fs.linkSync(temporary, target);
      } catch (error) {
        if (errorCode(error) === 'EEXIST') return this.#exists(directory);
        if (errorCode(error) === 'ENOENT' && !this.#isThere(directory)) throw new StoreError('absent', `${what}: the bucket was deleted`, error);
        throw error;
      }
      syncDirectory(directory);
      return 'written';
    } finally {
      removeTemporary(temporary);
    }
  }

  /** Null: this file cannot be linked (another file system, only a part of it), copy it. */
  #linkFile(directory: string, target: string, body: ObjectBody & { kind: 'file' }, what: string): 'written' | 'exists' | null {
    if (body.offsetBytes !== 0) return null;
    const fd = fromLocalFile(body.path, () => fs.openSync(body.path, O_RDONLY));
    try {
      if (fs.fstatSync(fd).size !== body.lengthBytes) return null;
      // Its data was synced by whoever wrote it; its size perhaps not.
      fromLocalFile(body.path, () => fs.fsyncSync(fd));
    } finally {
      fs.closeSync(fd);
    }
    try {
      fs.linkSync(body.path, target);
    } catch (error) {
      switch (errorCode(error)) {
        case 'EEXIST':
          return this.#exists(directory);
        case 'EXDEV':
        case 'EPERM':
        case 'EMLINK':
        case 'EOPNOTSUPP':
          return null;
        case 'ENOENT':
          if (!this.#isThere(directory)) throw new StoreError('absent', `${what}: the bucket was deleted`, error);
          throw error;
        default:
          throw error;
      }
    }
    syncDirectory(directory);
    return 'written';
  }

  /** Who made the object may have died between link and sync, or its answer was lost there: only after this sync is it durable. */
  #exists(directory: string): 'exists' {
    syncDirectory(directory);
    return 'exists';
  }

  #copyFile(fd: number, path: string, offsetBytes: number, lengthBytes: number, what: string, signal: AbortSignal | undefined): void {
    const source = fromLocalFile(path, () => fs.openSync(path, O_RDONLY));
    try {
      for (let done = 0; done < lengthBytes;) {
        throwIfAborted(signal, what);
        const want = Math.min(STEP_BYTES, lengthBytes - done);
        const found = fromLocalFile(path, () => readAll(source, this.#step, 0, want, offsetBytes + done));
        if (found !== want) throw fileBodyShort(path, offsetBytes, lengthBytes, done + found);
        writeAll(fd, want === STEP_BYTES ? this.#step : this.#step.subarray(0, want), done);
        done += want;
      }
    } finally {
      fs.closeSync(source);
    }
  }

  /** What a crashed process left in the temporary directory. `nowMs` is the file system's own clock: a file server's may differ from ours. */
  #removeOrphans(nowMs: number): void {
    for (const name of fs.readdirSync(this.#temporaryPath)) {
      if (!name.startsWith(TEMPORARY_PREFIX)) continue;
      const path = join(this.#temporaryPath, name);
      const stat = fs.lstatSync(path, { throwIfNoEntry: false });
      if (stat !== undefined && stat.isFile() && nowMs - stat.mtimeMs > ORPHAN_AGE_MS) unlinkIfThere(path);
    }
    this.#orphansRemoved = true;
  }

  /** Descriptor of an object's file, or null without one. O_NONBLOCK: whatever a stranger put there, a FIFO must not hang us. */
  #openObject(bucket: string, name: string): number | null {
    try {
      return fs.openSync(join(this.#bucketsPath, bucket, name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') throw error;
      // "Absent" is an answer that callers act on: be sure that it is about this backend, and not about an empty mount point.
      this.#marker = verifyMarker(this.#config, this.#marker);
      return null;
    }
  }

  #sizeOf(fd: number, what: string): number {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) throw new StoreError('denied', `${what}: it is not a regular file`);
    return stat.size;
  }

  #isThere(path: string): boolean {
    return fs.lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  }

  #readBucket(bucket: string, what: string): string[] {
    try {
      // The format's names are ASCII: the order of UTF-16 units is the byte order.
      return fs.readdirSync(join(this.#bucketsPath, bucket)).filter(isObjectName).sort();
    } catch (error) {
      if (errorCode(error) === 'ENOENT') throw new StoreError('absent', `${what}: the bucket does not exist`, error);
      throw error;
    }
  }
}

function writeChunks(fd: number, chunks: readonly Uint8Array[]): void {
  let position = 0;
  for (const chunk of chunks) {
    writeAll(fd, chunk, position);
    position += chunk.byteLength;
  }
}

/** Errors of the local source are told apart from those of the backend: they ask for another remedy. */
function fromLocalFile<T>(path: string, step: () => T): T {
  try {
    return step();
  } catch (error) {
    throw fileBodyError(path, error);
  }
}

function removeTemporary(path: string): void {
  try {
    unlinkIfThere(path);
  } catch {
    // The outcome of the put is decided already, and this must not hide it: a later store removes the orphan.
  }
}

/** A page of sorted `names`: binary search for `after`, then those with the prefix. */
function page(names: readonly string[], prefix: string, after: string, limit: number): { names: string[]; more: boolean } {
  let low = 0;
  let high = names.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((names[middle] as string) > after) high = middle;
    else low = middle + 1;
  }
  const found: string[] = [];
  for (let index = low; index < names.length; index += 1) {
    const name = names[index] as string;
    if (!name.startsWith(prefix)) {
      if (name > prefix) break;
      continue;
    }
    if (found.length === limit) return { names: found, more: true };
    found.push(name);
  }
  return { names: found, more: false };
}
