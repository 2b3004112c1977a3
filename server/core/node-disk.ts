import * as fs from 'node:fs';
import { dirname } from 'node:path';

import { assert } from './assert.ts';
import type { Disk, DiskFile } from './disk.ts';
import { ApplianceError } from './errors.ts';
import { systemClock } from './node-time.ts';

/** Up to this many bytes a write goes into the page cache at once: cheaper than a trip through the thread pool (toolchain.md 7). */
const SYNC_WRITE_BYTES_MAX = 256 * 1024;

/**
 * Small reads are mostly of pages that the page cache has: a system call of 1 us, against 60-100 us by way of the thread pool (toolchain.md 7), and tens of ms
 * where others wait for the disk there. Whether the page is there cannot be asked, so it is tried: a read that was slow came from the disk and stopped the event
 * loop for that long; after it all reads go through the pool for a while, twice as long each time that happens in a row. One that was slow while this process
 * read nothing from any disk only lost its processor to others (decision 0037).
 */
const SYNC_READ_BYTES_MAX = 64 * 1024;
const SLOW_READ_MS = 1;
const POOL_FIRST_MS = 500;
const POOL_MS_MAX = 30_000;
/** Quick reads in a row after which a slow one counts as the first again. */
const FORGIVEN_AFTER = 20_000;
const reads = { poolUntilMs: 0, pauseMs: POOL_FIRST_MS, quick: 0, blocks: 0 };

function mayReadAtOnce(bytes: number): boolean {
  return bytes <= SYNC_READ_BYTES_MAX && (reads.poolUntilMs === 0 || systemClock.monotonicMs() > reads.poolUntilMs);
}

function readTook(startedMs: number): void {
  const now = systemClock.monotonicMs();
  if (now - startedMs < SLOW_READ_MS) {
    reads.quick += 1;
    if (reads.quick === FORGIVEN_AFTER) reads.pauseMs = POOL_FIRST_MS;
    return;
  }
  // Of the whole process: uploads may have read them. 0: never anything, or the kernel does not count.
  const blocks = process.resourceUsage().fsRead;
  const isFromCache = blocks > 0 && blocks === reads.blocks;
  reads.blocks = blocks;
  if (isFromCache) return;
  reads.quick = 0;
  reads.poolUntilMs = now + reads.pauseMs;
  reads.pauseMs = Math.min(POOL_MS_MAX, reads.pauseMs * 2);
}

class NodeDiskFile implements DiskFile {
  readonly path: string;
  readonly #fd: number;
  /** Calls in the thread pool. */
  #calls = 0;
  #closed = false;

  constructor(path: string, fd: number) {
    this.path = path;
    this.#fd = fd;
  }

  size(): Promise<number> {
    return fs.promises.stat(this.path).then((stat) => stat.size);
  }

  write(offsetBytes: number, buffers: readonly Uint8Array[], done: (error: Error | null) => void): void {
    this.#requireOpen('write');
    let total = 0;
    for (const buffer of buffers) total += buffer.byteLength;
    if (total <= SYNC_WRITE_BYTES_MAX) {
      let error: Error | null = null;
      try {
        const written = fs.writevSync(this.#fd, buffers, offsetBytes);
        // A short write is not an error to the system (toolchain.md 7): the next byte would have met ENOSPC.
        if (written !== total) error = shortWrite(this.path, offsetBytes, written, total);
      } catch (thrown) {
        error = thrown as Error;
      }
      done(error);
      return;
    }
    this.#calls += 1;
    fs.writev(this.#fd, buffers as Uint8Array[], offsetBytes, (error, written) => {
      this.#calls -= 1;
      if (error !== null) done(error);
      else done(written === total ? null : shortWrite(this.path, offsetBytes, written, total));
    });
  }

  sync(done: (error: Error | null) => void): void {
    this.#requireOpen('sync');
    this.#calls += 1;
    fs.fdatasync(this.#fd, (error) => {
      this.#calls -= 1;
      done(error);
    });
  }

  read(offsetBytes: number, target: Uint8Array, done: (error: Error | null, bytesRead: number) => void): void {
    this.#requireOpen('read');
    if (mayReadAtOnce(target.byteLength)) {
      let bytesRead = 0;
      let error: Error | null = null;
      try {
        const startedMs = systemClock.monotonicMs();
        bytesRead = fs.readSync(this.#fd, target, 0, target.byteLength, offsetBytes);
        readTook(startedMs);
      } catch (thrown) {
        error = thrown as Error;
      }
      if (error !== null || bytesRead === target.byteLength || bytesRead === 0) {
        done(error, bytesRead);
        return;
      }
      this.read(offsetBytes + bytesRead, target.subarray(bytesRead), (next, more) => done(next, bytesRead + more));
      return;
    }
    this.#calls += 1;
    fs.read(this.#fd, target, 0, target.byteLength, offsetBytes, (error, bytesRead) => {
      this.#calls -= 1;
      if (error !== null || bytesRead === target.byteLength || bytesRead === 0) done(error, bytesRead);
      else {
        // A short read before the end of the file is legal (a signal, a limit of one call): ask for the rest.
        this.read(offsetBytes + bytesRead, target.subarray(bytesRead), (next, more) => done(next, bytesRead + more));
      }
    });
  }

  truncate(sizeBytes: number): Promise<void> {
    this.#requireOpen('truncate');
    this.#calls += 1;
    return new Promise((resolve, reject) =>
      fs.ftruncate(this.#fd, sizeBytes, (error) => {
        this.#calls -= 1;
        if (error === null) resolve();
        else reject(error);
      }),
    );
  }

  close(): Promise<void> {
    // A second close, or one under a call, would hit whatever file has been given this number meanwhile.
    this.#requireOpen('close');
    assert(this.#calls === 0, `${this.path} is closed while ${this.#calls} calls on it are under way`);
    this.#closed = true;
    return new Promise((resolve, reject) => fs.close(this.#fd, (error) => (error ? reject(error) : resolve())));
  }

  #requireOpen(call: string): void {
    assert(!this.#closed, `${call} on ${this.path}, which is closed`);
  }
}

function shortWrite(path: string, offsetBytes: number, written: number, total: number): Error {
  return new ApplianceError(
    'ENOSPC',
    `wrote ${written} of ${total} bytes at ${offsetBytes} of ${path}: no space left; free space on this file system`,
  );
}

function open(path: string, flags: number): Promise<DiskFile> {
  return new Promise((resolve, reject) =>
    fs.open(path, flags, 0o600, (error, fd) => (error === null ? resolve(new NodeDiskFile(path, fd)) : reject(error))),
  );
}

/** The machine's file system. */
export const nodeDisk: Disk = {
  open: (path, mode) => open(path, mode === 'read' ? fs.constants.O_RDONLY : fs.constants.O_RDWR),
  create: (path) => open(path, fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_EXCL),
  rename: (from, to) => fs.promises.rename(from, to),
  unlink: (path) => fs.promises.unlink(path),
  size: async (path) => (await fs.promises.stat(path)).size,
  list: (directory) => fs.promises.readdir(directory),
  async makeDirectory(directory) {
    const first = await fs.promises.mkdir(directory, { recursive: true });
    if (first === undefined) return;
    // The new entries live in the parents, up to the parent of the first directory made.
    for (let path = directory; path.length >= first.length; path = dirname(path)) await this.syncDirectory(dirname(path));
  },
  async syncDirectory(directory) {
    const handle = await fs.promises.open(directory, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  },
  async space(path) {
    const stat = await fs.promises.statfs(path);
    return { freeBytes: stat.bavail * stat.bsize, totalBytes: stat.blocks * stat.bsize };
  },
};
