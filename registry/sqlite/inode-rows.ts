/** Rows of the tables inode and entry, for both connections. Statements answer arrays: half the cost of objects. */
import type { DatabaseSync, StatementSync } from 'node:sqlite';

import type { FileId } from '../../server/core/ids.ts';
import type { NamedRecord } from '../after-image.ts';
import { FILEID_MIN, INODE_COLUMNS, inodeFromValues, type InodeRecord, NAME_BYTES_MAX } from '../inode-record.ts';
import { corrupt, integerOf } from '../record-check.ts';
import { checkRow } from './row-checksum.ts';

/** A column list for a joined table, its checksum column behind the others. */
export function prefixed(alias: string, columns: string): string {
  return `${columns}, crc`
    .split(', ')
    .map((column) => `${alias}.${column}`)
    .join(', ');
}

/** Columns of table inode but for the checksum over them. */
export const INODE_ROW_COLUMNS = [...INODE_COLUMNS, 'next_cookie', 'unlinked_ms'] as const;

/** Column list with the internal columns last; `alias` as in `FROM inode AS alias`. */
export function inodeColumns(alias: string): string {
  return prefixed(alias, INODE_ROW_COLUMNS.join(', '));
}
/** Number of columns that `inodeColumns` names. */
export const INODE_COLUMN_COUNT = INODE_ROW_COLUMNS.length + 1;

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
  checkRow(row, at, at + INODE_ROW_COLUMNS.length, where);
  return {
    inode,
    nextCookie: nextCookie === null ? null : integerOf(nextCookie, 3, Number.MAX_SAFE_INTEGER, where, 'next_cookie'),
    unlinkedMs: unlinkedMs === null ? null : integerOf(unlinkedMs, 0, Number.MAX_SAFE_INTEGER, where, 'unlinked_ms'),
  };
}

export function fileidOf(value: unknown, where: string): FileId {
  return integerOf(value, FILEID_MIN, Number.MAX_SAFE_INTEGER, where, 'fileid') as FileId;
}

function cookieOf(value: unknown, where: string): number {
  return integerOf(value, 3, Number.MAX_SAFE_INTEGER, where, 'cookie');
}

export const ENTRY_COLUMNS = 'directory, name, cookie, fileid';
/** Number of columns that `entryColumns` names. */
export const ENTRY_COLUMN_COUNT = 5;

export function entryColumns(alias: string): string {
  return prefixed(alias, ENTRY_COLUMNS);
}

/** An entry from the columns ENTRY_COLUMNS and crc, which begin at `row[at]`. @throws ApplianceError `registry-corrupt`. */
export function entryFromRow(row: readonly unknown[], at: number): NamedRecord {
  const directory = fileidOf(row[at], 'table entry');
  const where = `table entry, directory ${directory}`;
  const name = row[at + 1];
  if (!(name instanceof Uint8Array) || name.byteLength === 0 || name.byteLength > NAME_BYTES_MAX)
    return corrupt(where, 'a name is not 1 to 255 bytes');
  const entry = { directory, name, cookie: cookieOf(row[at + 2], where), fileid: fileidOf(row[at + 3], where) };
  checkRow(row, at, at + ENTRY_COLUMN_COUNT - 1, `${where}, name ${JSON.stringify(Buffer.from(name).toString('latin1'))}`);
  return entry;
}
