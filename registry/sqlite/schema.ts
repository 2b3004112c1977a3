/** The SQLite database of a registry: tables, versions, how it is created and opened. Every column: docs/formats/registry.md. */
import * as fs from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { pathToFileURL } from 'node:url';

import { ApplianceError } from '../../server/core/errors.ts';
import type { FileId } from '../../server/core/ids.ts';
import { timestampOf } from '../../server/core/time.ts';
import { DIRECTORY_BYTES, FILEID_MIN, NAME_BYTES_MAX, valuesFromInode } from '../inode-record.ts';
import type { Inode } from '../inode.ts';
import { corrupt, HEX_32, integerOf, patternOf, textOf } from '../record-check.ts';
import { firstRow, INODE_ROW_COLUMNS, prepareArrays } from './inode-rows.ts';
import { checkRow, rowChecksum } from './row-checksum.ts';

/** `PRAGMA application_id`: "vfRg". */
export const APPLICATION_ID = 0x76665267;
/** `PRAGMA user_version`: the version of the tables. A program refuses a higher one. */
export const FORMAT_VERSION = 1;
/** The root directory's number: the first one. */
export const ROOT_FILEID = FILEID_MIN;

/** Counters of table meta; they move in every transaction. */
export interface Counters {
  /** Last change sequence given out. */
  sequence: number;
  /** Outbox entries up to this sequence were released. */
  released: number;
  nextFileid: number;
  inodes: number;
  usedBytes: number;
  /** Rows of table operation. */
  operations: number;
}

/** Identity and counters, one row. */
export interface Meta extends Counters {
  readonly vpoolName: string;
  /** 32 lower-case hex digits. */
  readonly vpoolUuid: string;
  /** Registry generation: 1 for SQLite, which never forgets; part of every term. */
  readonly generation: number;
}

const TABLES = `
  CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    vpool_name TEXT NOT NULL,
    vpool_uuid TEXT NOT NULL,
    generation INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    released INTEGER NOT NULL,
    next_fileid INTEGER NOT NULL,
    inodes INTEGER NOT NULL,
    used_bytes INTEGER NOT NULL,
    operations INTEGER NOT NULL,
    probe INTEGER NOT NULL DEFAULT 0,
    crc INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE inode (
    fileid INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL,
    type INTEGER NOT NULL,
    class INTEGER NOT NULL,
    state INTEGER NOT NULL,
    mode INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    nlink INTEGER NOT NULL,
    size INTEGER NOT NULL,
    used INTEGER NOT NULL,
    atime_s INTEGER NOT NULL,
    atime_ns INTEGER NOT NULL,
    mtime_s INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_s INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    parent INTEGER,
    verifier BLOB,
    target BLOB,
    uuid TEXT,
    next_cookie INTEGER,
    unlinked_ms INTEGER,
    inline BLOB,
    crc INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX inode_tombstone ON inode (fileid) WHERE state = 1;
  CREATE TABLE entry (
    directory INTEGER NOT NULL,
    name BLOB NOT NULL CHECK (length(name) BETWEEN 1 AND ${NAME_BYTES_MAX}),
    cookie INTEGER NOT NULL,
    fileid INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (directory, name)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX entry_cookie ON entry (directory, cookie, fileid, crc);
  CREATE TABLE owner (
    fileid INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL,
    router TEXT NOT NULL,
    incarnation TEXT NOT NULL,
    generation INTEGER NOT NULL,
    counter INTEGER NOT NULL,
    nonce TEXT NOT NULL,
    counter_max INTEGER NOT NULL,
    state TEXT NOT NULL,
    moving TEXT NOT NULL,
    root TEXT NOT NULL,
    protection TEXT NOT NULL,
    verifier BLOB NOT NULL,
    crc INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX owner_router ON owner (router, fileid);
  CREATE TABLE router (
    id TEXT PRIMARY KEY,
    incarnation TEXT NOT NULL UNIQUE,
    addresses TEXT NOT NULL,
    version TEXT NOT NULL,
    lease_counter INTEGER NOT NULL,
    dead INTEGER NOT NULL CHECK (dead IN (0, 1)),
    crc INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE dead_incarnation (
    ordinal INTEGER PRIMARY KEY,
    incarnation TEXT NOT NULL UNIQUE,
    router TEXT NOT NULL
  ) STRICT;
  CREATE INDEX dead_incarnation_router ON dead_incarnation (router, ordinal);
  CREATE TABLE operation (
    ordinal INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    verb TEXT NOT NULL,
    client TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    crc INTEGER NOT NULL,
    UNIQUE (id, verb)
  ) STRICT;
  CREATE INDEX operation_client ON operation (client, ordinal);
  CREATE TABLE outbox (
    sequence INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL,
    operation_id TEXT,
    verb TEXT NOT NULL,
    after_image TEXT NOT NULL,
    crc INTEGER NOT NULL
  ) STRICT;
`;

/** What a new registry is made with. */
export interface NewRegistry {
  readonly vpoolName: string;
  readonly vpoolUuid: string;
  readonly rootGeneration: number;
  readonly nowMs: number;
}

/**
 * Opens the writing connection. With `create`, a missing or empty file becomes a registry (one transaction: a crash leaves an empty file);
 * without, a missing file is an error, so that a vanished directory never turns into an empty namespace.
 * @throws ApplianceError `registry-foreign` (not a registry, or another vPool's), `registry-version`; SQLite's errors as they are.
 */
export function openWriter(path: string, vpoolName: string, create: NewRegistry | null): DatabaseSync {
  const db = new DatabaseSync(existingOnly(path, create === null ? 'rw' : 'rwc'), { timeout: 5_000 });
  try {
    db.exec('PRAGMA cache_size = -65536; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON');
    if (isEmpty(db)) {
      if (create === null) throw new ApplianceError('registry-foreign', `registry ${path} is empty: it was there before; restore it`);
      createTables(db, create);
      syncDirectory(dirname(path));
    }
    checkVersion(db, path);
    const mode = db.prepare('PRAGMA journal_mode = WAL').get()?.['journal_mode'];
    if (mode !== 'wal') {
      throw new ApplianceError('registry-unavailable', `registry ${path}: write-ahead logging is refused (mode ${String(mode)}); use a local disk`);
    }
    // Checkpoints are run by the worker between transactions, when answers have gone out.
    db.exec('PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = 67108864');
    const meta = readMeta(db);
    if (meta.vpoolName !== vpoolName) {
      throw new ApplianceError('registry-foreign', `registry ${path} is of vPool "${meta.vpoolName}", not "${vpoolName}"; check the data directory`);
    }
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

/** Opens a read-only connection to a registry that has been opened for writing. */
export function openReader(path: string): DatabaseSync {
  const db = new DatabaseSync(existingOnly(path, 'ro'), { readOnly: true, timeout: 1_000 });
  try {
    db.exec('PRAGMA cache_size = -32768; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON');
    checkVersion(db, path);
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

/** Columns of table meta but for `one`, `probe` and the checksum. */
export const META_COLUMNS = [
  'vpool_name',
  'vpool_uuid',
  'generation',
  'sequence',
  'released',
  'next_fileid',
  'inodes',
  'used_bytes',
  'operations',
] as const;

/** The one row of table meta, from its columns META_COLUMNS and crc. @throws ApplianceError `registry-corrupt`. */
export function metaFromRow(row: readonly unknown[] | undefined): Meta {
  const where = 'table meta';
  if (row === undefined) return corrupt(where, 'there is no row');
  const count = (at: number): number => integerOf(row[at], 0, Number.MAX_SAFE_INTEGER, where, META_COLUMNS[at] ?? '');
  const meta = {
    vpoolName: textOf(row[0], 256, where, 'vpool_name'),
    vpoolUuid: patternOf(row[1], HEX_32, where, 'vpool_uuid'),
    generation: integerOf(row[2], 1, Number.MAX_SAFE_INTEGER, where, 'generation'),
    sequence: count(3),
    released: count(4),
    nextFileid: count(5),
    inodes: count(6),
    usedBytes: count(7),
    operations: count(8),
  };
  checkRow(row, 0, META_COLUMNS.length, where);
  return meta;
}

/** Reads table meta. */
export const SELECT_META = `SELECT ${META_COLUMNS.join(', ')}, crc FROM meta`;

/** Identity and counters of the registry. @throws ApplianceError `registry-corrupt`. */
export function readMeta(db: DatabaseSync): Meta {
  return metaFromRow(firstRow(prepareArrays(db, SELECT_META)));
}

function existingOnly(path: string, mode: 'ro' | 'rw' | 'rwc'): URL {
  const url = pathToFileURL(path);
  url.searchParams.set('mode', mode);
  return url;
}

function pragma(db: DatabaseSync, name: string): unknown {
  return Object.values(db.prepare(`PRAGMA ${name}`).get() ?? {})[0];
}

function isEmpty(db: DatabaseSync): boolean {
  return pragma(db, 'application_id') === 0 && pragma(db, 'user_version') === 0 && db.prepare('SELECT 1 FROM sqlite_schema').get() === undefined;
}

function createTables(db: DatabaseSync, create: NewRegistry): void {
  const time = timestampOf(create.nowMs);
  const root: Inode = {
    fileid: ROOT_FILEID as FileId,
    inodeGeneration: create.rootGeneration,
    type: 'directory',
    class: 'none',
    state: 'live',
    mode: 0o755,
    uid: 0,
    gid: 0,
    nlink: 2,
    sizeBytes: DIRECTORY_BYTES,
    usedBytes: DIRECTORY_BYTES,
    atime: time,
    mtime: time,
    ctime: time,
    parent: ROOT_FILEID as FileId,
    exclusiveVerifier: null,
    symlinkTarget: null,
    inlineBytes: null,
    uuid: null,
  };
  db.exec('BEGIN IMMEDIATE');
  db.exec(TABLES);
  const rootRow = [...valuesFromInode(root), 3, null];
  insert(db, 'inode', INODE_ROW_COLUMNS, rootRow);
  insert(db, 'meta', META_COLUMNS, [create.vpoolName, create.vpoolUuid, 1, 0, 0, ROOT_FILEID + 1, 1, DIRECTORY_BYTES, 0]);
  db.exec(`PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${FORMAT_VERSION}`);
  db.exec('COMMIT');
}

function insert(db: DatabaseSync, table: string, columns: readonly string[], values: readonly (number | string | Uint8Array | null)[]): void {
  const places = values.map(() => '?').join(', ');
  db.prepare(`INSERT INTO ${table} (${columns.join(', ')}, crc) VALUES (${places}, ?)`).run(...values, rowChecksum(values, 0, values.length));
}

function checkVersion(db: DatabaseSync, path: string): void {
  const application = pragma(db, 'application_id');
  if (application !== APPLICATION_ID) {
    throw new ApplianceError(
      'registry-foreign',
      `${path} is not a vferry registry (application id ${String(application)}, expected ${APPLICATION_ID})`,
    );
  }
  const version = pragma(db, 'user_version');
  if (version !== FORMAT_VERSION) {
    throw new ApplianceError(
      'registry-version',
      `registry ${path} has format version ${String(version)}, this program knows version ${FORMAT_VERSION}; use the program that wrote it`,
    );
  }
}

function syncDirectory(path: string): void {
  const fd = fs.openSync(path, 'r');
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}
