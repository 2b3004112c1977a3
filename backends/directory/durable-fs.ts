/** Synchronous file system steps that are durable when they return. They throw Node's system errors. */
import * as fs from 'node:fs';
import { dirname } from 'node:path';

import { errorCode } from '../../server/core/errors.ts';

/** Makes creates, renames and unlinks in `directory` durable. */
export function syncDirectory(directory: string): void {
  const fd = fs.openSync(directory, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/** Creates a directory and its missing parents, and makes their entries durable. One that exists is success, and is synced too. */
export function makeDirectories(directory: string): void {
  const first = fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
  // Without a new directory the entry still may not be on disk: whoever made it may have died before the sync.
  const top = first ?? directory;
  for (let path = directory; path.length >= top.length; path = dirname(path)) syncDirectory(dirname(path));
}

/** Writes all of `bytes` at `offsetBytes`: a short write is asked for again, and then meets its error (ENOSPC). */
export function writeAll(fd: number, bytes: Uint8Array, offsetBytes: number): void {
  let done = 0;
  while (done < bytes.byteLength) done += fs.writeSync(fd, bytes, done, bytes.byteLength - done, offsetBytes + done);
}

/** Fills `target` from `offsetBytes` and returns how many bytes there were: fewer only at the end of the file. */
export function readAll(fd: number, target: Uint8Array, targetOffset: number, lengthBytes: number, offsetBytes: number): number {
  let done = 0;
  while (done < lengthBytes) {
    const count = fs.readSync(fd, target, targetOffset + done, lengthBytes - done, offsetBytes + done);
    if (count === 0) break;
    done += count;
  }
  return done;
}

/** Removes a file; returns whether there was one. */
export function unlinkIfThere(path: string): boolean {
  try {
    fs.unlinkSync(path);
    return true;
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return false;
    throw error;
  }
}
