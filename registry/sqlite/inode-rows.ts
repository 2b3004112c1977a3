/** Rows of the tables inode and entry, for both connections. Statements answer arrays: half the cost of objects. */
import type { DatabaseSync, StatementSync } from 'node:sqlite';

import type { FileId } from '../../server/core/ids.ts';
import { FILEID_MIN, INODE_COLUMNS, inodeFromValues, type InodeRecord } from '../inode-record.ts';
import { corrupt, integerOf } from '../record-check.ts';

/** Column list with the internal columns last; `alias` as in `FROM inode AS alias`. */
export function inodeColumns(alias: string): string {
  return [...INODE_COLUMNS, 'next_cookie', 'unlinked_ms'].map((column) => `${alias}.${column}`).join(', ');
}
/** Number of columns that `inodeColumns` names. */
export const INODE_COLUMN_COUNT = INODE_COLUMNS.length + 2;

/** Prepares a statement that answers arrays. */
export function prepareArrays(db: DatabaseSync, sql: string): StatementSync {
  const statement = db.prepare(sql);
  statement.setReturnArrays(true);
  return statement;
}

/** The first row of a statement made by `prepareArrays`. */
export function firstRow(statement: StatementSync, ...parameters: (number | string | Uint8Array | null)[]): readonly unknown[] | undefined {
  return statement.get(...parameters) as unknown as readonly unknown[] | undefined;
}

/** All rows of a statement made by `prepareArrays`. */
export function allRows(statement: StatementSync, ...parameters: (number | string | Uint8Array | null)[]): (readonly unknown[])[] {
  return statement.all(...parameters) as unknown as (readonly unknown[])[];
}

/** The inode whose columns begin at `row[at]`. @throws ApplianceError `registry-corrupt`. */
export function inodeRecordFromRow(row: readonly unknown[], at: number): InodeRecord {
  const inode = inodeFromValues(row, at, 'table inode');
  const where = `table inode ${inode.fileid}`;
  const nextCookie = row[at + INODE_COLUMNS.length];
  const unlinkedMs = row[at + INODE_COLUMNS.length + 1];
  if ((nextCookie === null) === (inode.type === 'directory')) corrupt(where, 'next_cookie is for directories only');
  if ((unlinkedMs === null) === (inode.state === 'unlinked')) corrupt(where, 'unlinked_ms is for tombstones only');
  return {
    inode,
    nextCookie: nextCookie === null ? null : integerOf(nextCookie, 3, Number.MAX_SAFE_INTEGER, where, 'next_cookie'),
    unlinkedMs: unlinkedMs === null ? null : integerOf(unlinkedMs, 0, Number.MAX_SAFE_INTEGER, where, 'unlinked_ms'),
  };
}

export function fileidOf(value: unknown, where: string): FileId {
  return integerOf(value, FILEID_MIN, Number.MAX_SAFE_INTEGER, where, 'fileid') as FileId;
}

export function cookieOf(value: unknown, where: string): number {
  return integerOf(value, 3, Number.MAX_SAFE_INTEGER, where, 'cookie');
}
