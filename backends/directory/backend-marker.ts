/**
 * The marker file of a backend directory: it says whose directory this is, and its absence says that the file system that
 * should be mounted here is not (docs/formats/backend-directory.md). Synchronous, see `directory-store.ts`.
 */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';

import { errorCode } from '../../server/core/errors.ts';
import { StoreError } from '../object-store.ts';
import { makeDirectories, readAll, syncDirectory, unlinkIfThere, writeAll } from './durable-fs.ts';
import { classifyFsError } from './fs-error.ts';

const MARKER_FILE = 'vferry-backend.json';
export const BUCKETS_DIRECTORY = 'buckets';
export const TEMPORARY_DIRECTORY = '.tmp';

const FORMAT = 'vferry-directory-backend';
const VERSION = 1;
const MARKER_BYTES_MAX = 4096;

export interface BackendDirectoryIdentity {
  /** Absolute path of the backend's root. */
  readonly path: string;
  /** The vPool's uuid: 32 lower-case hex digits. */
  readonly vpoolUuid: string;
}

/** What tells one mounted marker file from another without reading it again. */
export interface MarkerStamp {
  readonly device: number;
  readonly inode: number;
  readonly changedMs: number;
}

/**
 * Makes `path` the backend directory of a vPool: directories first, the marker last and only if absent, all durable on
 * return. Done again for the same vPool it is success.
 * @throws StoreError `denied` when the directory belongs to another vPool or holds buckets without a marker.
 */
export function initializeBackendDirectory(identity: BackendDirectoryIdentity): void {
  try {
    makeDirectories(identity.path);
    makeDirectories(join(identity.path, TEMPORARY_DIRECTORY));
    makeDirectories(join(identity.path, BUCKETS_DIRECTORY));
    if (!fs.existsSync(join(identity.path, MARKER_FILE))) createMarker(identity);
  } catch (error) {
    throw classifyFsError(error, `initialize the backend directory ${identity.path}`);
  }
  verifyMarker(identity, null);
}

/**
 * Checks that the directory is there and is this vPool's. With the stamp of an earlier check it costs one stat.
 * @throws StoreError `retry` when there is no marker (not mounted), `denied` for another vPool's, `corrupt` for an unreadable one.
 */
export function verifyMarker(identity: BackendDirectoryIdentity, known: MarkerStamp | null): MarkerStamp {
  const path = join(identity.path, MARKER_FILE);
  try {
    const stat = fs.statSync(path);
    if (known !== null && stat.ino === known.inode && stat.dev === known.device && stat.ctimeMs === known.changedMs) return known;
    const uuid = parseMarker(path, readMarker(path));
    if (uuid !== identity.vpoolUuid) {
      throw new StoreError('denied', `${identity.path} is the backend of another vPool (${uuid}, expected ${identity.vpoolUuid}): check the mount`);
    }
    return { device: stat.dev, inode: stat.ino, changedMs: stat.ctimeMs };
  } catch (error) {
    const code = errorCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') {
      throw new StoreError('retry', `the backend directory ${identity.path} is not mounted, or was removed: it has no ${MARKER_FILE}`, error);
    }
    throw classifyFsError(error, `read ${path}`);
  }
}

function createMarker(identity: BackendDirectoryIdentity): void {
  if (fs.readdirSync(join(identity.path, BUCKETS_DIRECTORY)).length > 0) {
    throw new StoreError(
      'denied',
      `${identity.path} has buckets but no ${MARKER_FILE}: it is not an empty directory; restore the marker or use another directory`,
    );
  }
  const temporary = join(identity.path, TEMPORARY_DIRECTORY, `${TEMPORARY_PREFIX}marker-${randomBytes(8).toString('hex')}`);
  const fd = fs.openSync(temporary, 'wx', 0o600);
  try {
    writeAll(fd, Buffer.from(`${JSON.stringify({ format: FORMAT, version: VERSION, vpoolUuid: identity.vpoolUuid })}\n`), 0);
    fs.fdatasyncSync(fd);
    fs.linkSync(temporary, join(identity.path, MARKER_FILE));
    syncDirectory(identity.path);
  } catch (error) {
    // Another thread or router was faster: the caller verifies what it wrote.
    if (errorCode(error) !== 'EEXIST') throw error;
  } finally {
    fs.closeSync(fd);
    unlinkIfThere(temporary);
  }
}

/** Every temporary file starts so: what does not is never touched. */
export const TEMPORARY_PREFIX = 'vferry-';

function readMarker(path: string): string {
  const fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  try {
    const bytes = Buffer.alloc(MARKER_BYTES_MAX);
    return bytes.toString('utf8', 0, readAll(fd, bytes, 0, bytes.byteLength, 0));
  } finally {
    fs.closeSync(fd);
  }
}

function parseMarker(path: string, text: string): string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new StoreError('corrupt', `${path} is not JSON: restore it (docs/formats/backend-directory.md)`, error);
  }
  if (typeof value !== 'object' || value === null || !('format' in value) || value.format !== FORMAT) {
    throw new StoreError('corrupt', `${path} is not a marker of a vferry backend directory`);
  }
  if (!('version' in value) || value.version !== VERSION) {
    throw new StoreError('denied', `${path} has a version that this vferry does not know (it knows ${VERSION}): use a newer vferry`);
  }
  if (!('vpoolUuid' in value) || typeof value.vpoolUuid !== 'string' || !/^[0-9a-f]{32}$/.test(value.vpoolUuid)) {
    throw new StoreError('corrupt', `${path} holds no vPool uuid`);
  }
  return value.vpoolUuid;
}
