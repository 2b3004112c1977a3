/**
 * The writing side of the tables, inside one transaction at a time. Every put and drop of a namespace or ownership record goes through here and
 * is noted for the after-image, and usage is counted along, so that neither can be forgotten by a verb.
 */
import type { DatabaseSync, StatementSync } from 'node:sqlite';

import { AssertionError } from '../../server/core/assert.ts';
import { ApplianceError } from '../../server/core/errors.ts';
import type { FileId, Incarnation, RouterId } from '../../server/core/ids.ts';
import { type AfterImage, encodeAfterImage, type NamedRecord } from '../after-image.ts';
import { INODE_COLUMNS, inodeFromValues, type InodeRecord, valuesFromInode } from '../inode-record.ts';
import type { Inode } from '../inode.ts';
import type { OwnerEntry } from '../owner-record.ts';
import type { RouterRecord } from '../ports.ts';
import { corrupt, integerOf } from '../record-check.ts';
import { cookieOf, fileidOf, firstRow, inodeColumns, inodeRecordFromRow, prepareArrays } from './inode-rows.ts';
import { OWNER_COLUMNS, ownerFromRow, ownerValues, ROUTER_COLUMNS, routerFromRow, routerValues } from './owner-rows.ts';

/** The counters of table meta while a transaction runs. */
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

/** Dead incarnations remembered per router; a router that restarts more often forgets the oldest, which cannot have a process any more. */
const DEAD_INCARNATIONS_MAX = 1_024;

export class Records {
  readonly #loadCounters: StatementSync;
  readonly #saveCounters: StatementSync;
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
  #saved = '';
  readonly #inodes = new Map<FileId, InodeRecord | null>();
  readonly #entries: (NamedRecord | { readonly directory: FileId; readonly name: Uint8Array; readonly fileid: null })[] = [];
  readonly #owners = new Map<FileId, OwnerEntry | null>();

  constructor(db: DatabaseSync) {
    this.#loadCounters = prepareArrays(db, 'SELECT sequence, released, next_fileid, inodes, used_bytes, operations FROM meta WHERE one = 1');
    this.#saveCounters = db.prepare(
      'UPDATE meta SET sequence = ?, released = ?, next_fileid = ?, inodes = ?, used_bytes = ?, operations = ? WHERE one = 1',
    );
    const columns = [...INODE_COLUMNS, 'next_cookie', 'unlinked_ms'];
    this.#selectInode = prepareArrays(db, `SELECT ${inodeColumns('i')} FROM inode AS i WHERE i.fileid = ?`);
    this.#insertInode = db.prepare(`INSERT INTO inode (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})`);
    this.#updateInode = db.prepare(`UPDATE inode SET ${columns.map((column, at) => `${column} = ?${at + 1}`).join(', ')} WHERE fileid = ?1`);
    this.#deleteInode = db.prepare('DELETE FROM inode WHERE fileid = ?');
    this.#selectEntry = prepareArrays(db, 'SELECT cookie, fileid FROM entry WHERE directory = ? AND name = ?');
    this.#insertEntry = db.prepare('INSERT INTO entry (directory, name, cookie, fileid) VALUES (?, ?, ?, ?)');
    this.#deleteEntry = db.prepare('DELETE FROM entry WHERE directory = ? AND name = ?');
    this.#anyEntry = prepareArrays(db, 'SELECT 1 FROM entry WHERE directory = ? LIMIT 1');
    this.#selectOwner = prepareArrays(db, `SELECT ${OWNER_COLUMNS} FROM owner WHERE fileid = ?`);
    this.#putOwner = db.prepare(`INSERT OR REPLACE INTO owner (${OWNER_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`);
    this.#deleteOwner = db.prepare('DELETE FROM owner WHERE fileid = ?');
    this.#insertOutbox = db.prepare('INSERT INTO outbox (sequence, generation, operation_id, verb, after_image) VALUES (?, ?, ?, ?, ?)');
    this.#deleteOutbox = db.prepare('DELETE FROM outbox WHERE sequence <= ?');
    this.#selectRouter = prepareArrays(db, `SELECT ${ROUTER_COLUMNS} FROM router WHERE id = ?`);
    this.#selectIncarnation = prepareArrays(db, 'SELECT id FROM router WHERE incarnation = ? AND dead = 0');
    this.#putRouter = db.prepare(`INSERT OR REPLACE INTO router (${ROUTER_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)`);
    this.#selectDead = prepareArrays(db, 'SELECT 1 FROM dead_incarnation WHERE incarnation = ?');
    this.#insertDead = db.prepare('INSERT OR IGNORE INTO dead_incarnation (incarnation, router) VALUES (?, ?)');
    this.#pruneDead = db.prepare(
      `DELETE FROM dead_incarnation WHERE router = ?1 AND ordinal <
         (SELECT ordinal FROM dead_incarnation WHERE router = ?1 ORDER BY ordinal DESC LIMIT 1 OFFSET ${DEAD_INCARNATIONS_MAX - 1})`,
    );
  }

  /** Reads the counters: at the start of a transaction. */
  loadCounters(): void {
    const where = 'table meta';
    const row = firstRow(this.#loadCounters);
    if (row === undefined) return corrupt(where, 'there is no row');
    const count = (at: number, field: string): number => integerOf(row[at], 0, Number.MAX_SAFE_INTEGER, where, field);
    this.counters = {
      sequence: count(0, 'sequence'),
      released: count(1, 'released'),
      nextFileid: count(2, 'next_fileid'),
      inodes: count(3, 'inodes'),
      usedBytes: count(4, 'used_bytes'),
      operations: count(5, 'operations'),
    };
    this.#saved = JSON.stringify(this.counters);
  }

  /** Writes the counters if they changed: before the commit. */
  saveCounters(): void {
    if (JSON.stringify(this.counters) === this.#saved) return;
    const { sequence, released, nextFileid, inodes, usedBytes, operations } = this.counters;
    this.#saveCounters.run(sequence, released, nextFileid, inodes, usedBytes, operations);
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
    this.#insertOutbox.run(this.counters.sequence, generation, operationId, verb, encodeAfterImage(this.#image()));
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
    this.#insertInode.run(...writableValues(record.inode), record.nextCookie, record.unlinkedMs);
    this.#count(record.inode, 1);
    this.#inodes.set(record.inode.fileid, record);
  }

  /** `before`: the record as it was read in this verb. `noted` false leaves it out of the after-image (lazy copies of owned attributes). */
  updateInode(before: InodeRecord, record: InodeRecord, noted = true): void {
    this.#updateInode.run(...writableValues(record.inode), record.nextCookie, record.unlinkedMs);
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

  entry(directory: FileId, name: Uint8Array): { cookie: number; fileid: FileId } | null {
    const row = firstRow(this.#selectEntry, directory, name);
    if (row === undefined) return null;
    const where = `table entry ${directory}`;
    return { cookie: cookieOf(row[0], where), fileid: fileidOf(row[1], where) };
  }

  putEntry(entry: NamedRecord): void {
    this.#insertEntry.run(entry.directory, entry.name, entry.cookie, entry.fileid);
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
    this.#putOwner.run(...ownerValues(entry));
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
    this.#putRouter.run(...routerValues(router));
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
