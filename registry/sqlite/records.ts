/**
 * The writing side of the tables, inside one transaction at a time. Every put and drop of a namespace or ownership record goes through here and
 * is noted for the after-image, and usage is counted along, so that neither can be forgotten by a verb.
 */
import type { DatabaseSync, StatementSync } from 'node:sqlite';

import { AssertionError } from '../../server/core/assert.ts';
import { ApplianceError } from '../../server/core/errors.ts';
import type { FileId, Incarnation, RouterId } from '../../server/core/ids.ts';
import { type AfterImage, encodeAfterImage, type NamedRecord } from '../after-image.ts';
import { inodeFromValues, type InodeRecord, valuesFromInode } from '../inode-record.ts';
import type { Inode } from '../inode.ts';
import type { OwnerEntry } from '../owner-record.ts';
import type { RouterRecord } from '../ports.ts';
import { ENTRY_COLUMNS, entryFromRow, firstRow, INODE_ROW_COLUMNS, inodeColumns, inodeRecordFromRow, prepareArrays } from './inode-rows.ts';
import { OUTBOX_COLUMNS } from './outbox-rows.ts';
import { OWNER_COLUMNS, ownerFromRow, ownerValues, ROUTER_COLUMNS, routerFromRow, routerValues } from './owner-rows.ts';
import { rowChecksum } from './row-checksum.ts';
import { type Counters, META_COLUMNS, metaFromRow, SELECT_META } from './schema.ts';

/** Dead incarnations remembered per router; a router that restarts more often forgets the oldest, which cannot have a process any more. */
const DEAD_INCARNATIONS_MAX = 1_024;

export class Records {
  readonly #loadMeta: StatementSync;
  readonly #saveMeta: StatementSync;
  readonly #selectInode: StatementSync;
  readonly #insertInode: StatementSync;
  readonly #updateInode: StatementSync;
  readonly #deleteInode: StatementSync;
  readonly #selectEntry: StatementSync;
  readonly #insertEntry: StatementSync;
  readonly #deleteEntry: StatementSync;
  readonly #anyEntry: StatementSync;
  readonly #selectOwner: StatementSync;
  readonly #putOwner: StatementSync;
  readonly #deleteOwner: StatementSync;
  readonly #insertOutbox: StatementSync;
  readonly #deleteOutbox: StatementSync;
  readonly #selectRouter: StatementSync;
  readonly #selectIncarnation: StatementSync;
  readonly #putRouter: StatementSync;
  readonly #selectDead: StatementSync;
  readonly #insertDead: StatementSync;
  readonly #pruneDead: StatementSync;

  counters: Counters = { sequence: 0, released: 0, nextFileid: 0, inodes: 0, usedBytes: 0, operations: 0 };
  #identity: (string | number)[] = [];
  #saved = '';
  readonly #inodes = new Map<FileId, InodeRecord | null>();
  readonly #entries: (NamedRecord | { readonly directory: FileId; readonly name: Uint8Array; readonly fileid: null })[] = [];
  readonly #owners = new Map<FileId, OwnerEntry | null>();

  constructor(db: DatabaseSync) {
    this.#loadMeta = prepareArrays(db, SELECT_META);
    this.#saveMeta = db.prepare(`UPDATE meta SET ${[...META_COLUMNS, 'crc'].map((column) => `${column} = ?`).join(', ')}`);
    const columns = [...INODE_ROW_COLUMNS, 'crc'];
    this.#selectInode = prepareArrays(db, `SELECT ${inodeColumns('i')} FROM inode AS i WHERE i.fileid = ?`);
    this.#insertInode = db.prepare(`INSERT INTO inode (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})`);
    this.#updateInode = db.prepare(`UPDATE inode SET ${columns.map((column, at) => `${column} = ?${at + 1}`).join(', ')} WHERE fileid = ?1`);
    this.#deleteInode = db.prepare('DELETE FROM inode WHERE fileid = ?');
    this.#selectEntry = prepareArrays(db, `SELECT ${ENTRY_COLUMNS}, crc FROM entry WHERE directory = ? AND name = ?`);
    this.#insertEntry = db.prepare(`INSERT INTO entry (${ENTRY_COLUMNS}, crc) VALUES (?, ?, ?, ?, ?)`);
    this.#deleteEntry = db.prepare('DELETE FROM entry WHERE directory = ? AND name = ?');
    this.#anyEntry = prepareArrays(db, 'SELECT 1 FROM entry WHERE directory = ? LIMIT 1');
    this.#selectOwner = prepareArrays(db, `SELECT ${OWNER_COLUMNS}, crc FROM owner WHERE fileid = ?`);
    this.#putOwner = db.prepare(`INSERT OR REPLACE INTO owner (${OWNER_COLUMNS}, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`);
    this.#deleteOwner = db.prepare('DELETE FROM owner WHERE fileid = ?');
    this.#insertOutbox = db.prepare(`INSERT INTO outbox (${OUTBOX_COLUMNS}, crc) VALUES (?, ?, ?, ?, ?, ?)`);
    this.#deleteOutbox = db.prepare('DELETE FROM outbox WHERE sequence <= ?');
    this.#selectRouter = prepareArrays(db, `SELECT ${ROUTER_COLUMNS}, crc FROM router WHERE id = ?`);
    this.#selectIncarnation = prepareArrays(db, 'SELECT id FROM router WHERE incarnation = ? AND dead = 0');
    this.#putRouter = db.prepare(`INSERT OR REPLACE INTO router (${ROUTER_COLUMNS}, crc) VALUES (?, ?, ?, ?, ?, ?, ?)`);
    this.#selectDead = prepareArrays(db, 'SELECT 1 FROM dead_incarnation WHERE incarnation = ?');
    this.#insertDead = db.prepare('INSERT OR IGNORE INTO dead_incarnation (incarnation, router) VALUES (?, ?)');
    this.#pruneDead = db.prepare(
      `DELETE FROM dead_incarnation WHERE router = ?1 AND ordinal <
         (SELECT ordinal FROM dead_incarnation WHERE router = ?1 ORDER BY ordinal DESC LIMIT 1 OFFSET ${DEAD_INCARNATIONS_MAX - 1})`,
    );
  }

  /** Reads the counters: at the start of a transaction. */
  loadCounters(): void {
    const { vpoolName, vpoolUuid, generation, ...counters } = metaFromRow(firstRow(this.#loadMeta));
    this.#identity = [vpoolName, vpoolUuid, generation];
    this.counters = counters;
    this.#saved = JSON.stringify(counters);
  }

  /** Writes the counters if they changed: before the commit. */
  saveCounters(): void {
    if (JSON.stringify(this.counters) === this.#saved) return;
    const { sequence, released, nextFileid, inodes, usedBytes, operations } = this.counters;
    runWithChecksum(this.#saveMeta, [...this.#identity, sequence, released, nextFileid, inodes, usedBytes, operations]);
  }

  /** Forgets what was noted for the after-image: at the start of a verb. */
  clearImage(): void {
    this.#inodes.clear();
    this.#entries.length = 0;
    this.#owners.clear();
  }

  /** Writes the outbox entry of the running verb, if it changed a record. */
  writeOutbox(generation: number, operationId: string | null, verb: string): void {
    if (this.#inodes.size === 0 && this.#entries.length === 0 && this.#owners.size === 0) return;
    this.counters.sequence += 1;
    runWithChecksum(this.#insertOutbox, [this.counters.sequence, generation, operationId, verb, encodeAfterImage(this.#image())]);
  }

  #image(): AfterImage {
    const image = {
      inodes: [] as InodeRecord[],
      droppedInodes: [] as FileId[],
      entries: [] as NamedRecord[],
      droppedEntries: [] as { directory: FileId; name: Uint8Array }[],
      owners: [] as OwnerEntry[],
      droppedOwners: [] as FileId[],
    };
    for (const [fileid, record] of this.#inodes) {
      if (record === null) image.droppedInodes.push(fileid);
      else image.inodes.push(record);
    }
    for (const entry of this.#entries) {
      if (entry.fileid === null) image.droppedEntries.push({ directory: entry.directory, name: entry.name });
      else image.entries.push(entry);
    }
    for (const [fileid, entry] of this.#owners) {
      if (entry === null) image.droppedOwners.push(fileid);
      else image.owners.push(entry);
    }
    return image;
  }

  /** Forgets outbox entries up to and including `sequence`. */
  releaseOutbox(sequence: number): void {
    const last = Math.min(sequence, this.counters.sequence);
    if (last <= this.counters.released) return;
    this.#deleteOutbox.run(last);
    this.counters.released = last;
  }

  /** Draws a number that was never used. */
  nextFileid(): FileId {
    if (this.counters.nextFileid >= Number.MAX_SAFE_INTEGER) throw new ApplianceError('registry-no-space', 'the fileids of this vPool are used up');
    const fileid = this.counters.nextFileid;
    this.counters.nextFileid += 1;
    return fileid as FileId;
  }

  inode(fileid: FileId): InodeRecord | null {
    const row = firstRow(this.#selectInode, fileid);
    return row === undefined ? null : inodeRecordFromRow(row, 0);
  }

  insertInode(record: InodeRecord): void {
    runWithChecksum(this.#insertInode, [...writableValues(record.inode), record.nextCookie, record.unlinkedMs]);
    this.#count(record.inode, 1);
    this.#inodes.set(record.inode.fileid, record);
  }

  /** `before`: the record as it was read in this verb. `noted` false leaves it out of the after-image (lazy copies of owned attributes). */
  updateInode(before: InodeRecord, record: InodeRecord, noted = true): void {
    runWithChecksum(this.#updateInode, [...writableValues(record.inode), record.nextCookie, record.unlinkedMs]);
    this.#count(before.inode, -1);
    this.#count(record.inode, 1);
    if (noted) this.#inodes.set(record.inode.fileid, record);
  }

  deleteInode(before: InodeRecord): void {
    this.#deleteInode.run(before.inode.fileid);
    this.#count(before.inode, -1);
    this.#inodes.set(before.inode.fileid, null);
  }

  /** Usage counts live inodes. */
  #count(inode: Inode, sign: 1 | -1): void {
    if (inode.state !== 'live') return;
    this.counters.inodes += sign;
    this.counters.usedBytes += sign * inode.usedBytes;
  }

  entry(directory: FileId, name: Uint8Array): NamedRecord | null {
    const row = firstRow(this.#selectEntry, directory, name);
    return row === undefined ? null : entryFromRow(row, 0);
  }

  putEntry(entry: NamedRecord): void {
    runWithChecksum(this.#insertEntry, [entry.directory, entry.name, entry.cookie, entry.fileid]);
    this.#entries.push(entry);
  }

  dropEntry(directory: FileId, name: Uint8Array): void {
    this.#deleteEntry.run(directory, name);
    this.#entries.push({ directory, name, fileid: null });
  }

  isEmptyDirectory(directory: FileId): boolean {
    return firstRow(this.#anyEntry, directory) === undefined;
  }

  owner(fileid: FileId): OwnerEntry | null {
    const row = firstRow(this.#selectOwner, fileid);
    return row === undefined ? null : ownerFromRow(row);
  }

  putOwner(entry: OwnerEntry): void {
    runWithChecksum(this.#putOwner, ownerValues(entry));
    this.#owners.set(entry.owner.fileid, entry);
  }

  dropOwner(fileid: FileId): void {
    this.#deleteOwner.run(fileid);
    this.#owners.set(fileid, null);
  }

  router(id: RouterId): RouterRecord | null {
    const row = firstRow(this.#selectRouter, id);
    return row === undefined ? null : routerFromRow(row);
  }

  putRouter(router: RouterRecord): void {
    runWithChecksum(this.#putRouter, routerValues(router));
  }

  /** The router whose live incarnation this is; null when it is dead, replaced or unknown. */
  routerOf(incarnation: Incarnation): RouterId | null {
    const row = firstRow(this.#selectIncarnation, incarnation);
    return row === undefined ? null : (String(row[0]) as RouterId);
  }

  isDead(incarnation: Incarnation): boolean {
    return firstRow(this.#selectDead, incarnation) !== undefined;
  }

  /** Remembers that an incarnation is dead, for good. */
  bury(router: RouterId, incarnation: Incarnation): void {
    this.#insertDead.run(incarnation, router);
    this.#pruneDead.run(router);
  }
}

/** Runs a statement whose last parameter is the checksum of the others. */
function runWithChecksum(statement: StatementSync, values: (number | string | Uint8Array | null)[]): void {
  statement.run(...values, rowChecksum(values, 0, values.length));
}

/** Values of an inode that a reader will accept. @throws AssertionError when a verb or its caller made an impossible inode. */
function writableValues(inode: Inode): (number | string | Uint8Array | null)[] {
  const values = valuesFromInode(inode);
  try {
    inodeFromValues(values, 0, 'inode to be stored');
  } catch (error) {
    throw new AssertionError(error instanceof Error ? error.message : String(error));
  }
  return values;
}
