import { errorCode } from '../../server/core/errors.ts';
import { StoreError, type StoreErrorClass } from '../object-store.ts';

/**
 * What the caller of a store should do about a system error in the backend directory. ENOENT is not here: what it means
 * depends on which part of the path is missing, so it falls to `retry` when nobody looked.
 */
const CLASS_BY_CODE: Readonly<Record<string, StoreErrorClass>> = {
  ENOSPC: 'no-space',
  EDQUOT: 'no-space',
  EMLINK: 'no-space', // the file system's limit of directory entries
  EACCES: 'denied',
  EPERM: 'denied',
  EROFS: 'denied',
  EFBIG: 'denied',
  // Something that is not ours sits at the path, or the file system cannot do what the format needs (hard links, fsync of a directory).
  ELOOP: 'denied',
  ENOTDIR: 'denied',
  EISDIR: 'denied',
  EINVAL: 'denied',
  ENOTSUP: 'denied',
  EOPNOTSUPP: 'denied',
  ENOSYS: 'denied',
};

const ADVICE_BY_CODE: Readonly<Record<string, string>> = {
  ENOSPC: 'the file system is full: free space on it',
  EDQUOT: 'the quota is used up: raise it or free space',
  EROFS: 'the file system is read-only: remount it read-write (after an error, check it first)',
  EACCES: 'permission denied: the directory must belong to the user that runs vferry',
  EPERM: 'not permitted: the file system must allow hard links and the user that runs vferry must own the directory',
  EIO: 'input/output error: the disk or the mount below it fails',
  ESTALE: 'stale file handle: the file server changed below the mount; mount it again',
  ENOTCONN: 'the mount has lost its server; mount it again',
  EMFILE: 'this process has too many open files',
};

/** A system error met while doing `what` (a phrase such as `put b/n`), classed. A StoreError passes through unchanged. */
export function classifyFsError(error: unknown, what: string): StoreError {
  if (error instanceof StoreError) return error;
  const code = errorCode(error) ?? 'unknown';
  const text = error instanceof Error ? error.message : String(error);
  const advice = ADVICE_BY_CODE[code];
  return new StoreError(CLASS_BY_CODE[code] ?? 'retry', `${what}: ${advice === undefined ? '' : `${advice} `}(${text})`, error);
}
