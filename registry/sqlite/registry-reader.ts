/**
 * Reads, on the main thread and at once: a few microseconds each from SQLite's page cache, cheaper than any trip to another thread. The
 * connection is read-only and every call reads one snapshot that includes all answered changes.
 */
import type { DatabaseSync, StatementSync } from 'node:sqlite';

import { ApplianceError } from '../../server/core/errors.ts';
import type { FileId, RouterId } from '../../server/core/ids.ts';
import type { Inode } from '../inode.ts';
import type { EntriesOutcome, LookupOutcome, NamedEntry, OutboxEntry, OwnerRecord, PoolUsage, RouterRecord } from '../ports.ts';
import { corrupt } from '../record-check.ts';
import {
  allRows,
  ENTRY_COLUMN_COUNT,
  entryColumns,
  entryFromRow,
  firstRow,
  INODE_COLUMN_COUNT,
  inodeColumns,
  inodeRecordFromRow,
  prefixed,
  prepareArrays,
} from './inode-rows.ts';
import { OPERATION_COLUMNS, operationOutcomeFromRow, OUTBOX_COLUMNS, outboxEntryFromRow } from './outbox-rows.ts';
import { OWNER_COLUMNS, ownerFromRow, ROUTER_COLUMNS, routerFromRow } from './owner-rows.ts';
import { type Meta, metaFromRow, openReader, SELECT_META } from './schema.ts';
import { registryError } from './sqlite-errors.ts';

interface Statements {
  readonly db: DatabaseSync;
  readonly inode: StatementSync;
  readonly lookup: StatementSync;
  readonly entries: StatementSync;
  readonly begin: StatementSync;
  readonly commit: StatementSync;
  readonly meta: StatementSync;
  readonly tombstones: StatementSync;
  readonly owner: StatementSync;
  readonly ownedBy: StatementSync;
  readonly routers: StatementSync;
  readonly pending: StatementSync;
}

/** At the bound all are forgotten: reading one again costs microseconds. */
const CACHED_INODES_MAX = 1_024;

export class RegistryReader {
  readonly #path: string;
  readonly #onCorruption: (message: string) => void;
  #statements: Statements | null = null;
  #closed = false;
  /** Live inodes as they were read since the last change: GETATTR and ACCESS of the same few directories make most calls. */
  readonly #inodes = new Map<FileId, Inode>();

  /** Opens the database with the first read. `onCorruption` hears of every damaged record that a read met. */
  constructor(path: string, onCorruption: (message: string) => void) {
    this.#path = path;
    this.#onCorruption = onCorruption;
  }

  close(): void {
    this.#closed = true;
    this.#disconnect();
  }

  #disconnect(): void {
    this.#statements?.db.close();
    this.#statements = null;
  }

  /** Something was or may have been committed: what was read before may be old. */
  changed(): void {
    this.#inodes.clear();
  }

  inode(fileid: FileId, inodeGeneration: number | null): Inode | null {
    const inode = this.#inodes.get(fileid) ?? this.#readInode(fileid);
    return inode !== null && (inodeGeneration === null || inode.inodeGeneration === inodeGeneration) ? inode : null;
  }

  #readInode(fileid: FileId): Inode | null {
    try {
      const row = firstRow(this.#open().inode, fileid);
      if (row === undefined) return null;
      const { inode } = inodeRecordFromRow(row, 0);
      if (inode.state !== 'live') return null;
      if (this.#inodes.size >= CACHED_INODES_MAX) this.#inodes.clear();
      this.#inodes.set(fileid, inode);
      return inode;
    } catch (error) {
      throw this.#failed(error);
    }
  }

  lookup(directory: FileId, name: Uint8Array): LookupOutcome {
    try {
      const row = firstRow(this.#open().lookup, name, directory);
      if (row === undefined) return { kind: 'stale' };
      const { inode: found } = inodeRecordFromRow(row, 0);
      if (found.state !== 'live') return { kind: 'stale' };
      if (found.type !== 'directory') return { kind: 'not-directory', inode: found };
      if (row[INODE_COLUMN_COUNT] === null) return { kind: 'absent', directory: found };
      const { fileid } = entryFromRow(row, INODE_COLUMN_COUNT);
      return { kind: 'found', inode: this.#named(row, INODE_COLUMN_COUNT + ENTRY_COLUMN_COUNT, directory, fileid), directory: found };
    } catch (error) {
      throw this.#failed(error);
    }
  }

  entries(directory: FileId, afterCookie: number, limit: number): EntriesOutcome {
    try {
      const statements = this.#open();
      // One instant for both; decoded when the snapshot is closed, since a damaged record throws.
      statements.begin.run();
      const row = firstRow(statements.inode, directory);
      // One row more than asked for tells whether this is the end.
      const rows = row === undefined ? [] : allRows(statements.entries, directory, afterCookie, limit + 1);
      statements.commit.run();
      if (row === undefined) return { kind: 'stale' };
      const { inode: found } = inodeRecordFromRow(row, 0);
      if (found.state !== 'live') return { kind: 'stale' };
      if (found.type !== 'directory') return { kind: 'not-directory', inode: found };
      const eof = rows.length <= limit;
      if (!eof) rows.pop();
      const entries = rows.map((columns): NamedEntry => {
        const { name, cookie, fileid } = entryFromRow(columns, 0);
        return { name, cookie, inode: this.#named(columns, ENTRY_COLUMN_COUNT, directory, fileid) };
      });
      return { kind: 'entries', directory: found, entries, eof };
    } catch (error) {
      throw this.#failed(error);
    }
  }

  #named(row: readonly unknown[], at: number, directory: FileId, fileid: FileId): Inode {
    const where = `table entry, directory ${directory}`;
    if (row[at] === null) return corrupt(where, `names ${fileid}, which does not exist`);
    const { inode } = inodeRecordFromRow(row, at);
    if (inode.state !== 'live') return corrupt(where, `names ${fileid}, which is unlinked`);
    return inode;
  }

  usage(): PoolUsage {
    const { inodes, usedBytes } = this.meta();
    return { inodes, usedBytes };
  }

  position(): { generation: number; sequence: number } {
    const { generation, sequence } = this.meta();
    return { generation, sequence };
  }

  /** Identity and counters. */
  meta(): Meta {
    try {
      return metaFromRow(firstRow(this.#open().meta));
    } catch (error) {
      throw this.#failed(error);
    }
  }

  tombstones(after: FileId, limit: number): { inode: Inode; sinceMs: number }[] {
    try {
      return allRows(this.#open().tombstones, after, limit).map((row) => {
        const { inode, unlinkedMs } = inodeRecordFromRow(row, 0);
        return { inode, sinceMs: unlinkedMs ?? corrupt(`table inode ${inode.fileid}`, 'a tombstone without time') };
      });
    } catch (error) {
      throw this.#failed(error);
    }
  }

  owner(fileid: FileId): OwnerRecord | null {
    try {
      const row = firstRow(this.#open().owner, fileid);
      return row === undefined ? null : ownerFromRow(row).owner;
    } catch (error) {
      throw this.#failed(error);
    }
  }

  ownedBy(router: RouterId, after: FileId, limit: number): OwnerRecord[] {
    try {
      return allRows(this.#open().ownedBy, router, after, limit).map((row) => ownerFromRow(row).owner);
    } catch (error) {
      throw this.#failed(error);
    }
  }

  routers(): RouterRecord[] {
    try {
      return allRows(this.#open().routers).map(routerFromRow);
    } catch (error) {
      throw this.#failed(error);
    }
  }

  pending(after: number, limit: number): OutboxEntry[] {
    try {
      return allRows(this.#open().pending, after, limit).map((row): OutboxEntry => {
        // Behind the entry's five columns and checksum: those of the operation, if it is remembered.
        const outcome = row[6] === null ? null : operationOutcomeFromRow(row, 6);
        return { ...outboxEntryFromRow(row), outcome };
      });
    } catch (error) {
      throw this.#failed(error);
    }
  }

  #open(): Statements {
    if (this.#closed) throw new ApplianceError('registry-unavailable', 'the registry is closed');
    return (this.#statements ??= prepare(this.#path));
  }

  /** Translates what a read threw; a connection that SQLite failed on is opened anew by the next read. */
  #failed(error: unknown): unknown {
    const known = registryError(error, this.#path);
    if (known !== error) this.#disconnect();
    if (known instanceof ApplianceError && known.code === 'registry-corrupt') this.#onCorruption(known.message);
    return known;
  }
}

function prepare(path: string): Statements {
  const db = openReader(path);
  return {
    db,
    inode: prepareArrays(db, `SELECT ${inodeColumns('i')} FROM inode AS i WHERE i.fileid = ?`),
    // One statement, so that all rows are of one instant.
    lookup: prepareArrays(
      db,
      `SELECT ${inodeColumns('d')}, ${entryColumns('e')}, ${inodeColumns('i')} FROM inode AS d
         LEFT JOIN entry AS e ON e.directory = d.fileid AND e.name = ?1 LEFT JOIN inode AS i ON i.fileid = e.fileid WHERE d.fileid = ?2`,
    ),
    entries: prepareArrays(
      db,
      `SELECT ${entryColumns('e')}, ${inodeColumns('i')} FROM entry AS e INDEXED BY entry_cookie
         LEFT JOIN inode AS i ON i.fileid = e.fileid WHERE e.directory = ? AND e.cookie > ? ORDER BY e.cookie LIMIT ?`,
    ),
    begin: db.prepare('BEGIN'),
    commit: db.prepare('COMMIT'),
    meta: prepareArrays(db, SELECT_META),
    tombstones: prepareArrays(db, `SELECT ${inodeColumns('i')} FROM inode AS i WHERE i.state = 1 AND i.fileid > ? ORDER BY i.fileid LIMIT ?`),
    owner: prepareArrays(db, `SELECT ${OWNER_COLUMNS}, crc FROM owner WHERE fileid = ?`),
    ownedBy: prepareArrays(db, `SELECT ${OWNER_COLUMNS}, crc FROM owner WHERE router = ? AND fileid > ? ORDER BY fileid LIMIT ?`),
    routers: prepareArrays(db, `SELECT ${ROUTER_COLUMNS}, crc FROM router ORDER BY id`),
    pending: prepareArrays(
      db,
      `SELECT ${prefixed('o', OUTBOX_COLUMNS)}, ${prefixed('p', OPERATION_COLUMNS)} FROM outbox AS o
         LEFT JOIN operation AS p ON p.id = o.operation_id AND p.verb = o.verb WHERE o.sequence > ? ORDER BY o.sequence LIMIT ?`,
    ),
  };
}
