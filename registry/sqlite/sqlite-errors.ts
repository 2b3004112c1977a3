/** Translates what SQLite reports into the registry's error codes. */
import { ApplianceError } from '../../server/core/errors.ts';

const BUSY = 5;
const LOCKED = 6;
const READONLY = 8;
const INTERRUPT = 9;
const IOERR = 10;
const CORRUPT = 11;
const FULL = 13;
const CANTOPEN = 14;
const CONSTRAINT = 19;
const NOTADB = 26;
/** Extended codes of IOERR that say that the bytes are wrong, not that the disk failed. */
const IOERR_DATA = IOERR | (32 << 8);
const IOERR_CORRUPTFS = IOERR | (33 << 8);

export interface SqliteError extends Error {
  readonly code: 'ERR_SQLITE_ERROR';
  readonly errcode: number;
}

/** True for what node:sqlite throws on behalf of SQLite. */
export function isSqliteError(error: unknown): error is SqliteError {
  return error instanceof Error && 'code' in error && error.code === 'ERR_SQLITE_ERROR' && 'errcode' in error && typeof error.errcode === 'number';
}

/** A row that the tables do not allow: ends one statement, not the transaction. */
export function isConstraint(error: SqliteError): boolean {
  return (error.errcode & 0xff) === CONSTRAINT;
}

/**
 * The ApplianceError for anything that a database call threw; other errors (assertions) are passed through.
 * `path` names the database in the message, which says what to do.
 */
export function registryError(error: unknown, path: string): unknown {
  if (error instanceof Error && 'code' in error && error.code === 'ERR_OUT_OF_RANGE') {
    return new ApplianceError('registry-corrupt', `registry ${path}: a stored number is above 2^53; run "vferry fsck"`, { cause: error });
  }
  if (!isSqliteError(error)) return error;
  const detail = `${error.message} (SQLite ${error.errcode})`;
  switch (error.errcode & 0xff) {
    case FULL:
      return new ApplianceError('registry-no-space', `registry ${path}: no space left: ${detail}; free space on its file system`, {
        retryable: true,
        cause: error,
      });
    case CORRUPT:
    case NOTADB:
    case CONSTRAINT:
      return new ApplianceError('registry-corrupt', `registry ${path}: ${detail}; stop the router and run "vferry fsck"`, { cause: error });
    case IOERR:
      if (error.errcode === IOERR_DATA || error.errcode === IOERR_CORRUPTFS) {
        return new ApplianceError('registry-corrupt', `registry ${path}: ${detail}; stop the router and run "vferry fsck"`, { cause: error });
      }
      return new ApplianceError('registry-unavailable', `registry ${path}: the disk fails: ${detail}`, { retryable: true, cause: error });
    case READONLY:
    case CANTOPEN:
      return new ApplianceError('registry-unavailable', `registry ${path} cannot be written: ${detail}; check its directory and its mount`, {
        retryable: true,
        cause: error,
      });
    case BUSY:
    case LOCKED:
    case INTERRUPT:
      return new ApplianceError('registry-unavailable', `registry ${path} is locked by another process: ${detail}`, {
        retryable: true,
        cause: error,
      });
    default:
      return new ApplianceError('registry-unavailable', `registry ${path}: ${detail}`, { retryable: true, cause: error });
  }
}
