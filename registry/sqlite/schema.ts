/** The SQLite database of a registry: tables, versions, how it is created and opened. Every column: docs/formats/registry.md. */
import * as fs from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { pathToFileURL } from 'node:url';

import { ApplianceError } from '../../server/core/errors.ts';
import { FILEID_MIN, NAME_BYTES_MAX } from '../inode-record.ts';
import { corrupt, HEX_32, integerOf, patternOf, textOf } from '../record-check.ts';

/** `PRAGMA application_id`: "vfRg". */
export const APPLICATION_ID = 0x76665267;
/** `PRAGMA user_version`: the version of the tables. A program refuses a higher one. */
export const FORMAT_VERSION = 1;
/** The root directory's number: the first one. */
export const ROOT_FILEID = FILEID_MIN;

/** Counters and identity, one row. */
export interface Meta {
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
    probe INTEGER NOT NULL
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
    inline BLOB
  ) STRICT;
  CREATE INDEX inode_tombstone ON inode (fileid) WHERE state = 1;
  CREATE TABLE entry (
    directory INTEGER NOT NULL,
    name BLOB NOT NULL CHECK (length(name) BETWEEN 1 AND ${NAME_BYTES_MAX}),
    cookie INTEGER NOT NULL,
    fileid INTEGER NOT NULL,
    PRIMARY KEY (directory, name)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX entry_cookie ON entry (directory, cookie, fileid);
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
    verifier BLOB NOT NULL
  ) STRICT;
  CREATE INDEX owner_router ON owner (router, fileid);
  CREATE TABLE router (
    id TEXT PRIMARY KEY,
    incarnation TEXT NOT NULL UNIQUE,
    addresses TEXT NOT NULL,
    version TEXT NOT NULL,
    lease_counter INTEGER NOT NULL,
    dead INTEGER NOT NULL CHECK (dead IN (0, 1))
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE dead_incarnation (
    ordinal INTEGER PRIMARY KEY,
    incarnation TEXT NOT NULL UNIQUE,
    router TEXT NOT NULL
  ) STRICT;
  CREATE TABLE operation (
    ordinal INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    verb TEXT NOT NULL,
    client TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    UNIQUE (id, verb)
  ) STRICT;
  CREATE INDEX operation_client ON operation (client, ordinal);
  CREATE TABLE outbox (
    sequence INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL,
    operation_id TEXT,
    verb TEXT NOT NULL,
    after_image TEXT NOT NULL
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

/** Identity of the registry. @throws ApplianceError `registry-corrupt`. */
export function readMeta(db: DatabaseSync): Meta {
  const where = 'table meta';
  const row = db.prepare('SELECT vpool_name, vpool_uuid, generation FROM meta WHERE one = 1').get();
  if (row === undefined) return corrupt(where, 'there is no row');
  return {
    vpoolName: textOf(row['vpool_name'], 256, where, 'vpool_name'),
    vpoolUuid: patternOf(row['vpool_uuid'], HEX_32, where, 'vpool_uuid'),
    generation: integerOf(row['generation'], 1, Number.MAX_SAFE_INTEGER, where, 'generation'),
  };
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
  const seconds = Math.floor(create.nowMs / 1000);
  const nanoseconds = Math.floor(create.nowMs - seconds * 1000) * 1_000_000;
  db.exec('BEGIN IMMEDIATE');
  db.exec(TABLES);
  db.prepare(
    `INSERT INTO inode (fileid, generation, type, class, state, mode, uid, gid, nlink, size, used, atime_s, atime_ns, mtime_s, mtime_ns, ctime_s, ctime_ns,
       parent, next_cookie) VALUES (?, ?, 1, 0, 0, ?, 0, 0, 2, 4096, 4096, ?, ?, ?, ?, ?, ?, ?, 3)`,
  ).run(ROOT_FILEID, create.rootGeneration, 0o755, seconds, nanoseconds, seconds, nanoseconds, seconds, nanoseconds, ROOT_FILEID);
  db.prepare('INSERT INTO meta VALUES (1, ?, ?, 1, 0, 0, ?, 1, 4096, 0, 0)').run(create.vpoolName, create.vpoolUuid, ROOT_FILEID + 1);
  db.exec(`PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${FORMAT_VERSION}`);
  db.exec('COMMIT');
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
