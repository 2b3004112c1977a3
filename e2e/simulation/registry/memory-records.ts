/**
 * Records of a registry in memory, for the verbs that SQLite runs (registry/sqlite/*-verbs.ts): the same semantics word for word. Every change knows how to
 * be taken back, so that a verb that throws leaves nothing, and a failover can forget the last seconds.
 */
import { type AfterImage, encodeAfterImage, type NamedRecord } from '../../../registry/after-image.ts';
import { inodeFromValues, type InodeRecord, valuesFromInode } from '../../../registry/inode-record.ts';
import type { Inode } from '../../../registry/inode.ts';
import type { OwnerEntry } from '../../../registry/owner-record.ts';
import type { OutboxEntry, RouterRecord } from '../../../registry/ports.ts';
import type { Records } from '../../../registry/sqlite/records.ts';
import { AssertionError } from '../../../server/core/assert.ts';
import type { FileId, Incarnation, RouterId } from '../../../server/core/ids.ts';

/** What the verbs use of SQLite's records. */
export type VerbRecords = Omit<Records, 'loadCounters' | 'saveCounters'>;

interface MemoryCounters {
  sequence: number;
  released: number;
  nextFileid: number;
  inodes: number;
  usedBytes: number;
  operations: number;
}

export interface RememberedOperation {
  readonly outcome: string;
  readonly client: string;
  readonly ordinal: number;
  atMs: number;
}

/** Changes since a moment can be taken back for so long. */
const UNDO_MS_MAX = 60_000;

export class MemoryRecords implements VerbRecords {
  readonly inodes = new Map<FileId, InodeRecord>();
  /** By directory, then by name in latin1. */
  readonly names = new Map<FileId, Map<string, NamedRecord>>();
  readonly owners = new Map<FileId, OwnerEntry>();
  readonly routers = new Map<RouterId, RouterRecord>();
  readonly dead = new Set<Incarnation>();
  readonly operations = new Map<string, RememberedOperation>();
  outbox: OutboxEntry[] = [];
  counters: MemoryCounters;

  #undo: { readonly atMs: number; readonly takeBack: () => void }[] = [];
  #nowMs = 0;
  readonly #imageInodes = new Map<FileId, InodeRecord | null>();
  readonly #imageEntries: (NamedRecord | { readonly directory: FileId; readonly name: Uint8Array; readonly fileid: null })[] = [];
  readonly #imageOwners = new Map<FileId, OwnerEntry | null>();

  constructor(root: Inode) {
    this.inodes.set(root.fileid, { inode: root, nextCookie: 3, unlinkedMs: null });
    this.names.set(root.fileid, new Map());
    this.counters = { sequence: 0, released: 0, nextFileid: root.fileid + 1, inodes: 1, usedBytes: root.usedBytes, operations: 0 };
  }

  /** Runs `work` at `nowMs` of the world's time, all of it or nothing. */
  transaction<T>(nowMs: number, work: () => T): T {
    this.#nowMs = nowMs;
    while (this.#undo.length > 0 && (this.#undo[0]?.atMs ?? nowMs) < nowMs - 2 * UNDO_MS_MAX) {
      this.#undo = this.#undo.filter(({ atMs }) => atMs >= nowMs - UNDO_MS_MAX);
    }
    const mark = this.#undo.length;
    const counters = { ...this.counters };
    try {
      const result = work();
      if (this.counters.sequence !== counters.sequence || this.#undo.length > mark) {
        this.#undo.push({
          atMs: nowMs,
          takeBack: () => {
            this.counters = counters;
          },
        });
      }
      return result;
    } catch (error) {
      while (this.#undo.length > mark) this.#undo.pop()?.takeBack();
      this.counters = counters;
      throw error;
    }
  }

  /** Everything since `sinceMs` never was. */
  forget(sinceMs: number): void {
    for (let last = this.#undo.at(-1); last !== undefined && last.atMs >= sinceMs; last = this.#undo.at(-1)) {
      this.#undo.pop();
      last.takeBack();
    }
  }

  #put<K, V>(map: Map<K, V>, key: K, value: V | undefined): void {
    const before = map.get(key);
    const had = map.has(key);
    if (value === undefined) map.delete(key);
    else map.set(key, value);
    this.#undo.push({
      atMs: this.#nowMs,
      takeBack: () => {
        if (had) map.set(key, before as V);
        else map.delete(key);
      },
    });
  }

  clearImage(): void {
    this.#imageInodes.clear();
    this.#imageEntries.length = 0;
    this.#imageOwners.clear();
  }

  writeOutbox(generation: number, operationId: string | null, verb: string): void {
    if (this.#imageInodes.size === 0 && this.#imageEntries.length === 0 && this.#imageOwners.size === 0) return;
    this.counters.sequence += 1;
    const afterImage = encodeAfterImage(this.#image());
    this.pushOutbox({ generation, sequence: this.counters.sequence, operationId, verb, afterImage, outcome: null });
  }

  pushOutbox(entry: OutboxEntry): void {
    this.outbox.push(entry);
    this.#undo.push({
      atMs: this.#nowMs,
      takeBack: () => {
        while ((this.outbox.at(-1)?.sequence ?? 0) >= entry.sequence) this.outbox.pop();
      },
    });
  }

  #image(): AfterImage {
    const inodes: InodeRecord[] = [];
    const droppedInodes: FileId[] = [];
    const entries: NamedRecord[] = [];
    const droppedEntries: { directory: FileId; name: Uint8Array }[] = [];
    const owners: OwnerEntry[] = [];
    const droppedOwners: FileId[] = [];
    for (const [fileid, record] of this.#imageInodes) {
      if (record === null) droppedInodes.push(fileid);
      else inodes.push(record);
    }
    for (const entry of this.#imageEntries) {
      if (entry.fileid === null) droppedEntries.push({ directory: entry.directory, name: entry.name });
      else entries.push(entry);
    }
    for (const [fileid, entry] of this.#imageOwners) {
      if (entry === null) droppedOwners.push(fileid);
      else owners.push(entry);
    }
    return { inodes, droppedInodes, entries, droppedEntries, owners, droppedOwners };
  }

  releaseOutbox(sequence: number): void {
    const last = Math.min(sequence, this.counters.sequence);
    if (last <= this.counters.released) return;
    this.outbox = this.outbox.filter((entry) => entry.sequence > last);
    this.counters.released = last;
  }

  nextFileid(): FileId {
    const fileid = this.counters.nextFileid;
    this.counters.nextFileid += 1;
    return fileid as FileId;
  }

  inode(fileid: FileId): InodeRecord | null {
    return this.inodes.get(fileid) ?? null;
  }

  insertInode(record: InodeRecord): void {
    this.#store(record);
    if (record.inode.type === 'directory') this.#put(this.names, record.inode.fileid, new Map<string, NamedRecord>());
    this.#count(record.inode, 1);
    this.#imageInodes.set(record.inode.fileid, record);
  }

  updateInode(before: InodeRecord, record: InodeRecord, noted = true): void {
    this.#store(record);
    this.#count(before.inode, -1);
    this.#count(record.inode, 1);
    if (noted) this.#imageInodes.set(record.inode.fileid, record);
  }

  #store(record: InodeRecord): void {
    try {
      inodeFromValues(valuesFromInode(record.inode), 0, 'inode to be stored');
    } catch (error) {
      throw new AssertionError(error instanceof Error ? error.message : String(error));
    }
    this.#put(this.inodes, record.inode.fileid, record);
  }

  deleteInode(before: InodeRecord): void {
    const { fileid } = before.inode;
    this.#put(this.inodes, fileid, undefined);
    if (this.names.has(fileid)) this.#put(this.names, fileid, undefined);
    this.#count(before.inode, -1);
    this.#imageInodes.set(fileid, null);
  }

  #count(inode: Inode, sign: 1 | -1): void {
    if (inode.state !== 'live') return;
    this.counters.inodes += sign;
    this.counters.usedBytes += sign * inode.usedBytes;
  }

  entry(directory: FileId, name: Uint8Array): NamedRecord | null {
    return this.names.get(directory)?.get(latin1(name)) ?? null;
  }

  putEntry(entry: NamedRecord): void {
    const names = this.names.get(entry.directory);
    if (names === undefined) throw new AssertionError(`${entry.directory} is no directory`);
    this.#put(names, latin1(entry.name), entry);
    this.#imageEntries.push(entry);
  }

  dropEntry(directory: FileId, name: Uint8Array): void {
    const names = this.names.get(directory);
    if (names !== undefined) this.#put(names, latin1(name), undefined);
    this.#imageEntries.push({ directory, name, fileid: null });
  }

  isEmptyDirectory(directory: FileId): boolean {
    return (this.names.get(directory)?.size ?? 0) === 0;
  }

  owner(fileid: FileId): OwnerEntry | null {
    return this.owners.get(fileid) ?? null;
  }

  putOwner(entry: OwnerEntry): void {
    this.#put(this.owners, entry.owner.fileid, entry);
    this.#imageOwners.set(entry.owner.fileid, entry);
  }

  dropOwner(fileid: FileId): void {
    this.#put(this.owners, fileid, undefined);
    this.#imageOwners.set(fileid, null);
  }

  router(id: RouterId): RouterRecord | null {
    return this.routers.get(id) ?? null;
  }

  putRouter(router: RouterRecord): void {
    this.#put(this.routers, router.id, router);
  }

  routerOf(incarnation: Incarnation): RouterId | null {
    for (const router of this.routers.values()) if (router.incarnation === incarnation && !router.dead) return router.id;
    return null;
  }

  isDead(incarnation: Incarnation): boolean {
    return this.dead.has(incarnation);
  }

  bury(_router: RouterId, incarnation: Incarnation): void {
    if (this.dead.has(incarnation)) return;
    this.dead.add(incarnation);
    this.#undo.push({ atMs: this.#nowMs, takeBack: () => void this.dead.delete(incarnation) });
  }

  /** A remembered answer; `null` forgets it. */
  putOperation(key: string, operation: RememberedOperation | null): void {
    this.counters.operations += operation === null ? -1 : 1;
    this.#put(this.operations, key, operation ?? undefined);
  }

  /** Puts the records of an after-image in place: what a redo does. */
  apply(image: AfterImage): void {
    for (const record of image.inodes) {
      const before = this.inode(record.inode.fileid);
      if (before === null) this.insertInode(record);
      else this.updateInode(before, record);
    }
    for (const { directory, name } of image.droppedEntries) this.dropEntry(directory, name);
    for (const entry of image.entries) this.putEntry(entry);
    for (const fileid of image.droppedInodes) {
      const before = this.inode(fileid);
      if (before !== null) this.deleteInode(before);
    }
    for (const entry of image.owners) this.putOwner(entry);
    for (const fileid of image.droppedOwners) this.dropOwner(fileid);
  }

  /** What is wrong between the records. */
  *problems(): Iterable<string> {
    const links = new Map<FileId, number>();
    for (const [directory, names] of this.names) {
      const parent = this.inode(directory);
      if (parent === null || parent.inode.type !== 'directory' || parent.inode.state !== 'live') {
        if (names.size > 0) yield `directory ${directory} has names and is none`;
        continue;
      }
      let directories = 0;
      const cookies = new Set<number>();
      for (const [text, entry] of names) {
        const named = this.inode(entry.fileid);
        if (named === null || named.inode.state !== 'live') yield `${text} of ${directory} names ${entry.fileid}, which is not live`;
        else if (named.inode.type === 'directory') {
          directories += 1;
          if (named.inode.parent !== directory) yield `directory ${entry.fileid} has another parent than ${directory}`;
        }
        links.set(entry.fileid, (links.get(entry.fileid) ?? 0) + 1);
        if (cookies.has(entry.cookie)) yield `directory ${directory} has cookie ${entry.cookie} twice`;
        cookies.add(entry.cookie);
        if (entry.cookie >= (parent.nextCookie ?? 0)) yield `${text} of ${directory} has cookie ${entry.cookie}, the next is ${parent.nextCookie}`;
      }
      if (parent.inode.nlink !== 2 + directories) yield `directory ${directory} has ${parent.inode.nlink} links and ${directories} directories`;
    }
    let live = 0;
    let usedBytes = 0;
    for (const { inode } of this.inodes.values()) {
      if (inode.state === 'live') {
        live += 1;
        usedBytes += inode.usedBytes;
      }
      if (inode.type === 'directory') continue;
      const names = links.get(inode.fileid) ?? 0;
      if (inode.nlink !== names) yield `inode ${inode.fileid} has ${inode.nlink} links and ${names} names`;
    }
    if (live !== this.counters.inodes || usedBytes !== this.counters.usedBytes) yield 'the use of the vPool is counted wrong';
    for (const { owner, counterMax } of this.owners.values()) {
      const inode = this.inode(owner.fileid)?.inode;
      if (inode === undefined || inode.uuid !== owner.uuid) yield `owner record ${owner.fileid} belongs to no inode`;
      if (counterMax < owner.term.counter) yield `owner record ${owner.fileid} has a counter above its highest`;
    }
  }
}

export function latin1(name: Uint8Array): string {
  return Buffer.from(name.buffer, name.byteOffset, name.byteLength).toString('latin1');
}
