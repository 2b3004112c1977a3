/**
 * Offline check of a registry: every row on its own, every record against every other, SQLite's own check. All joins run inside SQLite over
 * its indexes, so that a million inodes need no memory here.
 */
import type { DatabaseSync } from 'node:sqlite';

import { ApplianceError } from '../../server/core/errors.ts';
import { decodeAfterImage } from '../after-image.ts';
import { decodeOutcome, isVerb } from '../outcome-codec.ts';
import { corrupt } from '../record-check.ts';
import { ENTRY_COLUMNS, entryFromRow, inodeColumns, inodeRecordFromRow, prepareArrays } from './inode-rows.ts';
import { OPERATION_COLUMNS, operationOutcomeFromRow, OUTBOX_COLUMNS, outboxEntryFromRow } from './outbox-rows.ts';
import { OWNER_COLUMNS, ownerFromRow, ROUTER_COLUMNS, routerFromRow } from './owner-rows.ts';
import { openReader, readMeta, ROOT_FILEID } from './schema.ts';
import { registryError } from './sqlite-errors.ts';

/** Rows checked before the event loop gets a turn. */
const ROWS_PER_TURN = 1_000;

/** Queries that find what must not be; each row is one message. */
const RULES: readonly { readonly sql: string; readonly message: (row: readonly unknown[]) => string }[] = [
  {
    sql: 'SELECT e.directory, hex(e.name), e.fileid FROM entry e LEFT JOIN inode i ON i.fileid = e.fileid WHERE i.fileid IS NULL OR i.state <> 0',
    message: ([directory, name, fileid]) => `entry ${text(name)} of directory ${directory} names inode ${fileid}, which is not there or unlinked`,
  },
  {
    sql: `SELECT e.directory, hex(e.name) FROM entry e LEFT JOIN inode d ON d.fileid = e.directory WHERE d.fileid IS NULL OR d.type <> 1 OR d.state <> 0`,
    message: ([directory, name]) => `entry ${text(name)} is in ${directory}, which is not a live directory`,
  },
  {
    sql: 'SELECT directory, cookie, count(*) FROM entry INDEXED BY entry_cookie GROUP BY directory, cookie HAVING count(*) > 1',
    message: ([directory, cookie, count]) => `directory ${directory} has ${count} entries with cookie ${cookie}`,
  },
  {
    sql: 'SELECT e.directory, hex(e.name), e.cookie, d.next_cookie FROM entry e JOIN inode d ON d.fileid = e.directory WHERE e.cookie >= d.next_cookie OR e.cookie < 3',
    message: ([directory, name, cookie, next]) =>
      `entry ${text(name)} of directory ${directory} has cookie ${cookie}, the directory's next is ${next}`,
  },
  {
    sql: `SELECT i.fileid, i.nlink, coalesce(n.names, 0) FROM inode i LEFT JOIN (SELECT fileid, count(*) AS names FROM entry GROUP BY fileid) n ON n.fileid = i.fileid
            WHERE i.type <> 1 AND i.nlink <> coalesce(n.names, 0)`,
    message: ([fileid, nlink, names]) => `inode ${fileid} has ${nlink} links and ${names} names`,
  },
  {
    sql: `SELECT d.fileid, d.nlink, coalesce(s.count, 0) FROM inode d
            LEFT JOIN (SELECT e.directory, count(*) AS count FROM entry e JOIN inode i ON i.fileid = e.fileid WHERE i.type = 1 GROUP BY e.directory) s
              ON s.directory = d.fileid WHERE d.type = 1 AND d.nlink <> 2 + coalesce(s.count, 0)`,
    message: ([fileid, nlink, count]) => `directory ${fileid} has ${nlink} links and ${count} subdirectories`,
  },
  {
    sql: `SELECT i.fileid, coalesce(n.names, 0) FROM inode i LEFT JOIN (SELECT fileid, count(*) AS names FROM entry GROUP BY fileid) n ON n.fileid = i.fileid
            WHERE i.type = 1 AND coalesce(n.names, 0) <> (i.fileid <> ${ROOT_FILEID})`,
    message: ([fileid, names]) => `directory ${fileid} has ${names} names`,
  },
  {
    sql: 'SELECT i.fileid, i.parent, e.directory FROM entry e JOIN inode i ON i.fileid = e.fileid WHERE i.type = 1 AND i.parent <> e.directory',
    message: ([fileid, parent, directory]) => `directory ${fileid} has parent ${parent} and its name in ${directory}`,
  },
  {
    sql: `WITH RECURSIVE reached (fileid) AS (
            SELECT ${ROOT_FILEID} UNION SELECT i.fileid FROM reached r JOIN entry e ON e.directory = r.fileid JOIN inode i ON i.fileid = e.fileid WHERE i.type = 1
          ) SELECT fileid FROM inode WHERE type = 1 AND fileid NOT IN (SELECT fileid FROM reached)`,
    message: ([fileid]) => `directory ${fileid} is not reachable from the root`,
  },
  {
    sql: `SELECT ${ROOT_FILEID} WHERE NOT EXISTS (SELECT 1 FROM inode WHERE fileid = ${ROOT_FILEID} AND type = 1 AND state = 0 AND parent = ${ROOT_FILEID})`,
    message: ([fileid]) => `the root directory ${fileid} is missing or its own parent no more`,
  },
  {
    sql: 'SELECT i.fileid, m.next_fileid FROM inode i JOIN meta m ON m.one = 1 WHERE i.fileid >= m.next_fileid',
    message: ([fileid, next]) => `inode ${fileid} is at or above the fileid counter ${next}`,
  },
  {
    sql: 'SELECT fileid, class FROM inode WHERE state = 1 AND class NOT IN (2, 3)',
    message: ([fileid, inodeClass]) => `tombstone ${fileid} is of class ${inodeClass}, which has no data elsewhere`,
  },
  {
    sql: 'SELECT o.fileid FROM owner o LEFT JOIN inode i ON i.fileid = o.fileid WHERE i.fileid IS NULL OR i.class NOT IN (2, 3) OR i.uuid <> o.uuid',
    message: ([fileid]) => `owner record ${fileid} has no file or volume with its number and uuid`,
  },
  {
    sql: 'SELECT o.fileid, o.router FROM owner o LEFT JOIN router r ON r.id = o.router WHERE r.id IS NULL',
    message: ([fileid, router]) => `owner record ${fileid} names router ${router}, which never joined`,
  },
  {
    sql: 'SELECT o.fileid, o.generation, m.generation FROM owner o JOIN meta m ON m.one = 1 WHERE o.generation > m.generation',
    message: ([fileid, term, generation]) => `owner record ${fileid} has a term of generation ${term}, the registry is at ${generation}`,
  },
  {
    sql: `SELECT m.inodes, m.used_bytes, count(i.fileid), coalesce(sum(i.used), 0) FROM meta m LEFT JOIN inode i ON i.state = 0 GROUP BY m.one
            HAVING m.inodes <> count(i.fileid) OR m.used_bytes <> coalesce(sum(i.used), 0)`,
    message: ([inodes, used, counted, sum]) => `usage says ${inodes} inodes and ${used} bytes, there are ${counted} and ${sum}`,
  },
  {
    sql: `SELECT m.released, m.sequence, count(o.sequence), min(o.sequence), max(o.sequence) FROM meta m LEFT JOIN outbox o ON 1 GROUP BY m.one
            HAVING m.released > m.sequence OR count(o.sequence) <> m.sequence - m.released
              OR (count(o.sequence) > 0 AND (min(o.sequence) <> m.released + 1 OR max(o.sequence) <> m.sequence))`,
    message: ([released, sequence, count, first, last]) =>
      `the outbox has ${count} entries from ${first} to ${last}, expected all from ${Number(released) + 1} to ${sequence}`,
  },
  {
    sql: 'SELECT m.operations, count(o.ordinal) FROM meta m LEFT JOIN operation o ON 1 GROUP BY m.one HAVING m.operations <> count(o.ordinal)',
    message: ([operations, counted]) => `the counter says ${operations} remembered operations, there are ${counted}`,
  },
];

/** Messages of everything that is wrong with the registry at `path`; none when all is well. Opens a connection of its own. */
export async function* verifyRegistry(path: string): AsyncGenerator<string> {
  const db = openReader(path);
  try {
    // One snapshot for all: records are compared with each other.
    db.exec('BEGIN');
    yield* checkDatabase(db, path);
  } finally {
    db.close();
  }
}

async function* checkDatabase(db: DatabaseSync, path: string): AsyncGenerator<string> {
  try {
    for (const row of db.prepare('PRAGMA integrity_check').all()) {
      const message = String(row['integrity_check']);
      if (message !== 'ok') yield `SQLite: ${message}`;
    }
    yield* attempt(() => void readMeta(db));
    yield* checkRows(db, `SELECT ${inodeColumns('i')} FROM inode AS i`, (row) => void inodeRecordFromRow(row, 0));
    yield* checkRows(db, `SELECT ${OWNER_COLUMNS}, crc FROM owner`, (row) => void ownerFromRow(row));
    yield* checkRows(db, `SELECT ${ROUTER_COLUMNS}, crc FROM router`, (row) => void routerFromRow(row));
    yield* checkRows(db, `SELECT ${ENTRY_COLUMNS}, crc FROM entry`, (row) => void entryFromRow(row, 0));
    yield* checkRows(db, `SELECT ${OPERATION_COLUMNS}, crc FROM operation`, checkOperation);
    yield* checkRows(db, `SELECT ${OUTBOX_COLUMNS}, crc FROM outbox`, checkOutboxEntry);
    for (const rule of RULES) {
      for (const row of prepareArrays(db, rule.sql).iterate()) yield rule.message(row as unknown as readonly unknown[]);
      await turn();
    }
  } catch (error) {
    // A database too damaged to go on with: that is a finding too.
    const known = registryError(error, path);
    if (!(known instanceof ApplianceError)) throw known;
    yield known.message;
  }
}

async function* checkRows(db: DatabaseSync, sql: string, check: (row: readonly unknown[]) => void): AsyncGenerator<string> {
  let rows = 0;
  for (const row of prepareArrays(db, sql).iterate()) {
    yield* attempt(() => check(row as unknown as readonly unknown[]));
    rows += 1;
    if (rows % ROWS_PER_TURN === 0) await turn();
  }
}

function* attempt(check: () => void): Generator<string> {
  try {
    check();
  } catch (error) {
    if (!(error instanceof ApplianceError)) throw error;
    yield error.message;
  }
}

function checkOperation(row: readonly unknown[]): void {
  const where = `table operation "${String(row[0])}"`;
  const verb = String(row[1]);
  if (!isVerb(verb)) corrupt(where, `unknown verb ${verb}`);
  decodeOutcome(verb, operationOutcomeFromRow(row, 0), where);
}

function checkOutboxEntry(row: readonly unknown[]): void {
  const entry = outboxEntryFromRow(row);
  decodeAfterImage(entry.afterImage, `table outbox ${entry.sequence}`);
}

function text(name: unknown): string {
  return JSON.stringify(Buffer.from(String(name), 'hex').toString('latin1'));
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
