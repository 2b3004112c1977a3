/**
 * A disk in memory that keeps what real ones keep and loses what they may lose: writes go to a page cache; at a power cut every 512-byte sector
 * that was not synced, and every directory change that was not, may be there or not. Errors, short writes and slow calls are drawn from a seeded
 * generator. After a failed sync the pages count as clean (Linux): a later sync of the same file proves nothing.
 *
 * A process sees the disk through `process()`; once that process is dead its calls have no effect and never return.
 */
import { dirname } from 'node:path';

import { AssertionError } from '../../core/assert.ts';
import type { Disk, DiskFile } from '../../core/disk.ts';
import type { Random } from '../../core/time.ts';

const SECTOR_BYTES = 512;
/** Writes up to this many bytes are done at once, as in server/core/node-disk.ts. */
const SYNC_WRITE_BYTES_MAX = 8 * 1024;

export interface DiskFaults {
  /** Probability of each, per call. */
  readonly writeError: number;
  readonly shortWrite: number;
  readonly syncError: number;
  readonly readError: number;
  readonly metadataError: number;
}

export const NO_DISK_FAULTS: DiskFaults = { writeError: 0, shortWrite: 0, syncError: 0, readError: 0, metadataError: 0 };

interface Inode {
  /** What readers see. */
  cached: Buffer;
  /** What a power cut leaves for sure. */
  durable: Buffer;
  /** Sectors that differ and may or may not have reached the medium. */
  readonly dirty: Set<number>;
  /** A failed sync: these are as uncertain as dirty ones, but no later sync settles them. */
  readonly lost: Set<number>;
}

interface EntryChange {
  readonly inode: Inode;
  readonly from: string | null;
  readonly to: string | null;
}

function systemError(code: string, call: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${call} '${path}'`), { code, syscall: call });
}

export class FaultyDisk {
  readonly #random: Random;
  #faults: DiskFaults = NO_DISK_FAULTS;
  #entries = new Map<string, Inode>();
  #durableEntries = new Map<string, Inode>();
  #changes: EntryChange[] = [];
  #directories = new Set<string>(['/']);
  /** Bytes that all files together may have; writes beyond are ENOSPC. */
  capacityBytes = Infinity;
  /** Calls under way. */
  pending = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  setFaults(faults: Partial<DiskFaults>): void {
    this.#faults = { ...NO_DISK_FAULTS, ...faults };
  }

  get usedBytes(): number {
    let bytes = 0;
    for (const inode of new Set(this.#entries.values())) bytes += inode.cached.length;
    return bytes;
  }

  /** Files below a directory, with their contents: for tests that damage them. */
  files(prefix: string): string[] {
    return [...this.#entries.keys()].filter((path) => path.startsWith(prefix)).sort();
  }

  /** The bytes of a file, to be looked at or damaged in place (on the medium as well). */
  damage(path: string, change: (bytes: Buffer) => Buffer): void {
    const inode = this.#entries.get(path);
    if (inode === undefined) throw systemError('ENOENT', 'damage', path);
    inode.cached = change(Buffer.from(inode.cached));
    inode.durable = Buffer.from(inode.cached);
    inode.dirty.clear();
  }

  /** Forgets a file as if it had never been. */
  lose(path: string): void {
    this.#entries.delete(path);
    this.#durableEntries.delete(path);
  }

  /** What is left after the machine lost power. Processes must be dead before. */
  powerCut(): void {
    const dropped = new Set<Inode | string>();
    for (const change of this.#changes) {
      const touched = [change.inode, change.from, change.to].filter((entry) => entry !== null);
      if (this.#random.fraction() < 0.5 && !touched.some((entry) => dropped.has(entry))) this.#apply(this.#durableEntries, change);
      else for (const entry of touched) dropped.add(entry);
    }
    this.#changes = [];
    this.#entries = new Map(this.#durableEntries);
    for (const inode of new Set(this.#entries.values())) this.#settle(inode);
  }

  /** Everything is on the medium: an orderly stop of the machine. */
  settle(): void {
    for (const inode of new Set(this.#entries.values())) {
      inode.durable = Buffer.from(inode.cached);
      inode.dirty.clear();
      inode.lost.clear();
    }
    this.#durableEntries = new Map(this.#entries);
    this.#changes = [];
  }

  #settle(inode: Inode): void {
    const longest = Math.max(inode.cached.length, inode.durable.length);
    const sizes = [inode.cached.length, inode.durable.length];
    const size = inode.cached.length === inode.durable.length ? longest : (sizes[Math.floor(this.#random.fraction() * 2)] ?? longest);
    const settled = Buffer.alloc(size);
    inode.durable.copy(settled, 0, 0, Math.min(size, inode.durable.length));
    for (const sector of [...inode.dirty, ...inode.lost]) {
      if (this.#random.fraction() < 0.5) continue;
      const at = sector * SECTOR_BYTES;
      if (at < size && at < inode.cached.length) inode.cached.copy(settled, at, at, Math.min(at + SECTOR_BYTES, size, inode.cached.length));
    }
    inode.cached = settled;
    inode.durable = Buffer.from(settled);
    inode.dirty.clear();
    inode.lost.clear();
  }

  #apply(entries: Map<string, Inode>, change: EntryChange): void {
    if (change.from !== null && entries.get(change.from) === change.inode) entries.delete(change.from);
    if (change.to !== null) entries.set(change.to, change.inode);
  }

  #change(change: EntryChange): void {
    this.#apply(this.#entries, change);
    this.#changes.push(change);
  }

  /** Makes changes in `directory` durable, and those they rest on. */
  #syncDirectory(directory: string): void {
    const needed = new Set<Inode | string>();
    const kept: EntryChange[] = [];
    const applied: EntryChange[] = [];
    for (const change of this.#changes.toReversed()) {
      const paths = [change.from, change.to].filter((path) => path !== null);
      if (needed.has(change.inode) || paths.some((path) => needed.has(path) || dirname(path) === directory)) {
        needed.add(change.inode);
        for (const path of paths) needed.add(path);
        applied.push(change);
      } else kept.push(change);
    }
    for (const change of applied.toReversed()) this.#apply(this.#durableEntries, change);
    this.#changes = kept.toReversed();
  }

  #hits(probability: number): boolean {
    return probability > 0 && this.#random.fraction() < probability;
  }

  /** The disk as a new process sees it. `nextTurn`: how it waits for a turn of its event loop. */
  process(nextTurn: (callback: () => void) => void = setImmediate): Disk & { die(): void } {
    let alive = true;
    const never = new Promise<never>(() => undefined);
    /** Runs `work` some turns later, unless the process is dead by then. */
    const later = (work: () => void): void => {
      this.pending += 1;
      let turns = 1 + Math.floor(this.#random.fraction() * 4);
      const turn = (): void => {
        turns -= 1;
        if (turns > 0) {
          nextTurn(turn);
          return;
        }
        this.pending -= 1;
        if (alive) work();
      };
      nextTurn(turn);
    };
    const call = <T>(name: string, path: string, work: () => T): Promise<T> => {
      if (!alive) return never;
      return new Promise((resolve, reject) =>
        later(() => {
          try {
            if (this.#hits(this.#faults.metadataError)) throw systemError('EIO', name, path);
            resolve(work());
          } catch (error) {
            reject(error);
          }
        }),
      );
    };
    const inodeAt = (path: string, name: string): Inode => {
      const inode = this.#entries.get(path);
      if (inode === undefined) throw systemError('ENOENT', name, path);
      return inode;
    };
    const fileOf = (path: string, inode: Inode): DiskFile => {
      let open = true;
      let calls = 0;
      const begun = <T extends unknown[]>(done: (...result: T) => void): ((...result: T) => void) => {
        calls += 1;
        return (...result) => {
          calls -= 1;
          done(...result);
        };
      };
      return {
        path,
        size: () => call('fstat', path, () => inode.cached.length),
        write: (offsetBytes, buffers, answer) => {
          if (!alive) return;
          const done = begun(answer);
          const bytes = Buffer.concat(buffers);
          const work = (): void => {
            if (!open) return done(systemError('EBADF', 'write', path));
            if (this.#hits(this.#faults.writeError)) return done(systemError('EIO', 'write', path));
            const grows = Math.max(0, offsetBytes + bytes.length - inode.cached.length);
            const full = this.usedBytes + grows > this.capacityBytes;
            const short = full || this.#hits(this.#faults.shortWrite);
            this.#write(inode, offsetBytes, short ? bytes.subarray(0, Math.floor(this.#random.fraction() * bytes.length)) : bytes);
            done(short ? systemError('ENOSPC', 'write', path) : null);
          };
          if (bytes.length <= SYNC_WRITE_BYTES_MAX) work();
          else later(work);
        },
        sync: (answer) => {
          if (!alive) return;
          const done = begun(answer);
          // What counts is what was written before the call.
          const covered = new Set(inode.dirty);
          later(() => {
            if (!open) return done(systemError('EBADF', 'fdatasync', path));
            if (this.#hits(this.#faults.syncError)) {
              for (const sector of inode.dirty) inode.lost.add(sector);
              inode.dirty.clear();
              return done(systemError('EIO', 'fdatasync', path));
            }
            this.#sync(inode, covered);
            done(null);
          });
        },
        read: (offsetBytes, target, answer) => {
          if (!alive) return;
          const done = begun(answer);
          later(() => {
            if (!open) return done(systemError('EBADF', 'read', path), 0);
            if (this.#hits(this.#faults.readError)) return done(systemError('EIO', 'read', path), 0);
            const part = inode.cached.subarray(offsetBytes, offsetBytes + target.length);
            target.set(part);
            done(null, part.length);
          });
        },
        truncate: (sizeBytes) =>
          call('ftruncate', path, () => {
            const grows = sizeBytes - inode.cached.length;
            inode.cached = grows > 0 ? Buffer.concat([inode.cached, Buffer.alloc(grows)]) : Buffer.from(inode.cached.subarray(0, sizeBytes));
          }),
        close: () => {
          if (!open) throw new AssertionError(`${path} is closed twice`);
          if (calls > 0 && alive)
            throw new AssertionError(`${path} is closed while ${calls} calls on it are under way: its descriptor may become another file's`);
          open = false;
          return alive ? Promise.resolve() : never;
        },
      };
    };
    return {
      die: () => {
        alive = false;
      },
      open: (path) => call('open', path, () => fileOf(path, inodeAt(path, 'open'))),
      create: (path) =>
        call('open', path, () => {
          if (this.#entries.has(path)) throw systemError('EEXIST', 'open', path);
          if (!this.#directories.has(dirname(path))) throw systemError('ENOENT', 'open', path);
          const inode: Inode = { cached: Buffer.alloc(0), durable: Buffer.alloc(0), dirty: new Set(), lost: new Set() };
          this.#change({ inode, from: null, to: path });
          return fileOf(path, inode);
        }),
      rename: (from, to) => call('rename', from, () => this.#change({ inode: inodeAt(from, 'rename'), from, to })),
      unlink: (path) => call('unlink', path, () => this.#change({ inode: inodeAt(path, 'unlink'), from: path, to: null })),
      size: (path) => call('stat', path, () => (this.#directories.has(path) ? 0 : inodeAt(path, 'stat').cached.length)),
      list: (directory) =>
        call('scandir', directory, () => {
          if (!this.#directories.has(directory)) throw systemError('ENOENT', 'scandir', directory);
          return [...this.#entries.keys()].filter((path) => dirname(path) === directory).map((path) => path.slice(directory.length + 1));
        }),
      makeDirectory: async (directory) => {
        if (!alive) return never;
        for (let path = directory; !this.#directories.has(path); path = dirname(path)) this.#directories.add(path);
      },
      syncDirectory: (directory) => call('fsync', directory, () => this.#syncDirectory(directory)),
      space: (path) =>
        call('statfs', path, () => ({
          freeBytes: Math.max(0, Math.min(2 ** 40, this.capacityBytes) - this.usedBytes),
          totalBytes: Math.min(2 ** 40, this.capacityBytes),
        })),
    };
  }

  /** Reads a file, now: for stores that are given paths. */
  readNow(path: string, offsetBytes: number, lengthBytes: number): Buffer {
    const inode = this.#entries.get(path);
    if (inode === undefined) throw systemError('ENOENT', 'read', path);
    return Buffer.from(inode.cached.subarray(offsetBytes, offsetBytes + lengthBytes));
  }

  #write(inode: Inode, offsetBytes: number, bytes: Buffer): void {
    const end = offsetBytes + bytes.length;
    if (end > inode.cached.length) inode.cached = Buffer.concat([inode.cached, Buffer.alloc(end - inode.cached.length)]);
    bytes.copy(inode.cached, offsetBytes);
    for (let sector = Math.floor(offsetBytes / SECTOR_BYTES); sector * SECTOR_BYTES < end; sector += 1) inode.dirty.add(sector);
  }

  #sync(inode: Inode, covered: ReadonlySet<number>): void {
    const size = inode.cached.length;
    if (inode.durable.length !== size) {
      const durable = Buffer.alloc(size);
      inode.durable.copy(durable);
      inode.durable = durable;
    }
    for (const sector of covered) {
      const at = sector * SECTOR_BYTES;
      if (at < inode.cached.length) inode.cached.copy(inode.durable, at, at, Math.min(at + SECTOR_BYTES, size));
      inode.dirty.delete(sector);
    }
  }
}
