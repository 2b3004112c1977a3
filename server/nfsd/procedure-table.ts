/** The 22 procedures of NFSv3 (RFC 1813 §3.3): numbers, names, and what the dispatcher must know of each. */

export const NfsProcedure = {
  NULL: 0,
  GETATTR: 1,
  SETATTR: 2,
  LOOKUP: 3,
  ACCESS: 4,
  READLINK: 5,
  READ: 6,
  WRITE: 7,
  CREATE: 8,
  MKDIR: 9,
  SYMLINK: 10,
  MKNOD: 11,
  REMOVE: 12,
  RMDIR: 13,
  RENAME: 14,
  LINK: 15,
  READDIR: 16,
  READDIRPLUS: 17,
  FSSTAT: 18,
  FSINFO: 19,
  PATHCONF: 20,
  COMMIT: 21,
} as const;
export type NfsProcedure = (typeof NfsProcedure)[keyof typeof NfsProcedure];

/** Procedure names by number, in lower case: for metrics and logs. */
export const NFS_PROCEDURE_NAMES: readonly string[] = Object.keys(NfsProcedure).map((name) => name.toLowerCase());

/** What follows the status in the resfail arm of the procedure's result. */
export type FailureShape = 'nothing' | 'post-op' | 'wcc' | 'two-wcc' | 'post-op-and-wcc';

/** By procedure number. */
export const FAILURE_SHAPES: readonly FailureShape[] = [
  'nothing', // NULL
  'nothing', // GETATTR
  'wcc', // SETATTR
  'post-op', // LOOKUP
  'post-op', // ACCESS
  'post-op', // READLINK
  'post-op', // READ
  'wcc', // WRITE
  'wcc', // CREATE
  'wcc', // MKDIR
  'wcc', // SYMLINK
  'wcc', // MKNOD
  'wcc', // REMOVE
  'wcc', // RMDIR
  'two-wcc', // RENAME
  'post-op-and-wcc', // LINK
  'post-op', // READDIR
  'post-op', // READDIRPLUS
  'post-op', // FSSTAT
  'post-op', // FSINFO
  'post-op', // PATHCONF
  'wcc', // COMMIT
];

/**
 * RFC 1813 §4.5: a repeated call of these that had succeeded would fail (or do harm) when executed again; their replies are remembered.
 * WRITE and COMMIT repeat harmlessly.
 */
export function isNonIdempotent(procedure: number): boolean {
  return procedure === NfsProcedure.SETATTR || (procedure >= NfsProcedure.CREATE && procedure <= NfsProcedure.LINK);
}

/** Procedures that change something: refused on a read-only export. */
export function isChanging(procedure: number): boolean {
  return procedure === NfsProcedure.WRITE || isNonIdempotent(procedure);
}
