/**
 * The local SSD's segments of one vPool: `log/` holds what is not released yet (the write-ahead logs), `cache/` what the backend has too and
 * may be evicted, `pool/` preallocated or recycled files that the next segments start in. One flat directory each: a start reads three
 * directories, and one fsync of `log/` covers every segment that was prepared meanwhile. What other routers are about to hand over is apart from
 * them (`replica-files.ts`).
 */
import { basename, join } from 'node:path';

import { assert } from '../core/assert.ts';
import type { Disk, DiskFile } from '../core/disk.ts';
import { ApplianceError, errorCode } from '../core/errors.ts';
import { failPoint } from '../core/fail-points.ts';
import { compareEpoch, sameTerm } from '../core/ids.ts';
import type { ObjectUuid, Term } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import type { Clock } from '../core/time.ts';
import { ReplicaFiles } from './replica-files.ts';
import type { ReplicaSegment } from './replica-files.ts';
import { SegmentReaders } from './segment-readers.ts';

export interface SegmentFilesSettings {
  /** Directory of the vPool's local state; `log`, `cache`, `pool` are made in it. */
  readonly directory: string;
  /** Size of preallocated files. */
  readonly segmentFileBytes: number;
  /** Files kept ready in `pool/`. */
  readonly poolFilesMax: number;
  readonly cacheBytesMax: number;
  /** Free space that must remain on the file system; below it no new segment is started. */
  readonly reserveBytes: number;
  /** Whether evicted files may be overwritten by new segments: false when the backend shares them (hard links). */
  readonly recycle: boolean;
}

/** Files that are made ahead of need at first; doubled whenever a segment found none. */
const POOL_FILES_FIRST = 2;

export interface LocalSegment {
  readonly uuid: ObjectUuid;
  readonly number: number;
  readonly term: Term;
  path: string;
  /** Bytes that count: what was appended so far, or the sealed size. */
  bytes: number;
  place: 'log' | 'cache';
  lastUse: number;
}

/** A file for a new segment. */
export interface PreparedSegment {
  readonly file: DiskFile;
  readonly segment: LocalSegment;
  /** Size of the file when it is a hole, without blocks of the disk behind it; 0 when it has them, or grows as it is written. */
  readonly holeBytes: number;
}

const NAME = /^([0-9a-f]{32})\.(\d{10,16})\.(\d+)-(\d+)-([0-9a-f]{16})\.seg$/;
const FILL_BYTES = 1024 * 1024;

function keyOf(uuid: ObjectUuid, number: number): string {
  return `${uuid}.${number}`;
}

function nameOf(uuid: ObjectUuid, number: number, term: Term): string {
  return `${uuid}.${String(number).padStart(10, '0')}.${term.generation}-${term.counter}-${term.nonce}.seg`;
}

export class SegmentFiles {
  /** Copies of logs that other routers own still. */
  readonly replicas: ReplicaFiles;
  readonly #disk: Disk;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #settings: SegmentFilesSettings;
  readonly #segments = new Map<string, LocalSegment>();
  readonly #byObject = new Map<ObjectUuid, Map<number, LocalSegment>>();
  /** Files of segments that are there twice and do not count. */
  readonly #doubles = new Map<ObjectUuid, LocalSegment[]>();
  readonly #pool: string[] = [];
  readonly #readers: SegmentReaders;
  #poolCounter = 0;
  #poolTarget: number;
  #filling = false;
  #dirtyBytes = 0;
  #drainedBytes = 0;
  #cacheBytes = 0;
  #freeBytes = Infinity;
  #directorySync: Promise<void> | null = null;
  #directorySyncNext: Promise<void> | null = null;
  #useCounter = 0;
  #evicting = false;
  #appendedSinceTick = 0;
  #closed = false;
  #spaceProblem: string | null = null;
  #gone: ApplianceError | null = null;

  private constructor(components: { disk: Disk; clock: Clock; logger: Logger }, settings: SegmentFilesSettings) {
    this.#disk = components.disk;
    this.#clock = components.clock;
    this.#logger = components.logger;
    this.#settings = settings;
    this.#readers = new SegmentReaders(components);
    this.replicas = new ReplicaFiles(components, join(settings.directory, 'replica'));
    this.#poolTarget = Math.min(POOL_FILES_FIRST, settings.poolFilesMax);
  }

  /** Learns what is there and looks after nothing: for checks that change nothing. */
  static async openToRead(components: { disk: Disk; clock: Clock; logger: Logger }, directory: string): Promise<SegmentFiles> {
    const files = new SegmentFiles(components, {
      directory,
      segmentFileBytes: 0,
      poolFilesMax: 0,
      cacheBytesMax: Infinity,
      reserveBytes: 0,
      recycle: false,
    });
    await files.#learn();
    return files;
  }

  /** Makes the directories and learns what is there. */
  static async open(components: { disk: Disk; clock: Clock; logger: Logger }, settings: SegmentFilesSettings): Promise<SegmentFiles> {
    const files = new SegmentFiles(components, settings);
    for (const place of ['log', 'cache', 'pool', 'replica']) await components.disk.makeDirectory(join(settings.directory, place));
    await files.#learn();
    await files.#learnPool();
    await files.replicas.learn();
    await files.#tick();
    return files;
  }

  /** A directory that is missing holds nothing: what should be there the registry says. */
  async #namesIn(place: string): Promise<string[]> {
    try {
      return await this.#disk.list(join(this.#settings.directory, place));
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return [];
      throw error;
    }
  }

  async #learn(): Promise<void> {
    for (const place of ['log', 'cache'] as const) {
      for (const name of await this.#namesIn(place)) {
        const match = NAME.exec(name);
        if (match === null) {
          this.#logger.warn(
            { file: join(this.#settings.directory, place, name) },
            'a file that is no segment lies among the segments; it is left alone',
          );
          continue;
        }
        const path = join(this.#settings.directory, place, name);
        const [, uuid = '', number = '', generation = '', counter = '', nonce = ''] = match;
        const size = await this.#disk.size(path);
        this.#addFound({
          uuid: uuid as ObjectUuid,
          number: Number(number),
          term: { generation: Number(generation), counter: Number(counter), nonce },
          path,
          // A file of full size was open: how much of it counts is known when its log is recovered. Counted whole, the open logs of a few
          // hundred volumes would pass the bound of dirty bytes, and every write would wait for the recovery of all objects.
          bytes: place === 'log' && size >= this.#settings.segmentFileBytes ? 0 : size,
          place,
          lastUse: 0,
        });
      }
    }
  }

  /**
   * A number may be there twice: a change of a directory that was not synced was undone by a power cut, so a file that was moved or deleted is back
   * under its former name. The younger term counts, or else the file in `log/`; the other one is left to the object's recovery.
   */
  #addFound(segment: LocalSegment): void {
    const there = this.#segments.get(keyOf(segment.uuid, segment.number));
    if (there === undefined) {
      this.#add(segment);
      return;
    }
    const older = compareEpoch(there.term, segment.term) >= 0 ? segment : there;
    this.#logger.warn({ file: older.path, other: older === segment ? there.path : segment.path }, 'a segment is on the local disk twice');
    if (older === there) {
      this.#remove(there);
      this.#add(segment);
    }
    const doubles = this.#doubles.get(segment.uuid) ?? [];
    doubles.push(older);
    this.#doubles.set(segment.uuid, doubles);
  }

  /** Of the segments with one number this is the one that counts. */
  prefer(segment: LocalSegment): void {
    const there = this.#segments.get(keyOf(segment.uuid, segment.number));
    const doubles = this.#doubles.get(segment.uuid);
    if (there === segment || there === undefined || doubles === undefined) return;
    this.#remove(there);
    this.#add(segment);
    doubles[doubles.indexOf(segment)] = there;
  }

  /** Files of the last run are used again where recycling is allowed. */
  async #learnPool(): Promise<void> {
    for (const name of await this.#disk.list(join(this.#settings.directory, 'pool'))) {
      const path = join(this.#settings.directory, 'pool', name);
      // `free`: filled with zeros, never used. `used`: an evicted segment, which without recycling may be the backend's object, too.
      if (/^free-\d+\.seg$/.test(name) || (this.#settings.recycle && /^used-\d+\.seg$/.test(name))) this.#pool.push(path);
      else await this.#disk.unlink(path);
      this.#poolCounter = Math.max(this.#poolCounter, Number(/^(?:free|used)-(\d{1,12})\.seg$/.exec(name)?.[1] ?? 0));
    }
  }

  /** Bytes in segments that are not released: what would be lost with this machine. */
  get dirtyBytes(): number {
    return this.#dirtyBytes;
  }

  /** Bytes that ceased to be dirty since the start: released, or dropped because nobody needs them. */
  get drainedBytes(): number {
    return this.#drainedBytes;
  }

  get cacheBytes(): number {
    return this.#cacheBytes;
  }

  /** Free bytes of the local file system at the last look (once a second). */
  get freeBytes(): number {
    return this.#freeBytes;
  }

  /** What is wrong with the local disk, or null. */
  get problem(): string | null {
    return this.#spaceProblem;
  }

  /** Why nothing may be written now although open files would take it: the directory is not there any more. Null when it is. */
  get gone(): Error | null {
    return this.#gone;
  }

  /** Uuids that have unreleased segments. */
  *dirtyObjects(): Iterable<ObjectUuid> {
    for (const [uuid, segments] of this.#byObject) {
      for (const segment of segments.values()) {
        if (segment.place === 'log') {
          yield uuid;
          break;
        }
      }
    }
  }

  /** Every uuid with a local segment. */
  objects(): Iterable<ObjectUuid> {
    return this.#byObject.keys();
  }

  /** Local segments of an object in order of number; a number that is there twice comes twice. */
  segmentsOf(uuid: ObjectUuid): LocalSegment[] {
    return [...(this.#byObject.get(uuid)?.values() ?? []), ...(this.#doubles.get(uuid) ?? [])].sort((a, b) => a.number - b.number);
  }

  /** The local segment of that number, and of that term if one is given: what other routers wrote meanwhile has other terms. */
  segment(uuid: ObjectUuid, number: number, term: Term | null = null): LocalSegment | null {
    const segment = this.#segments.get(keyOf(uuid, number));
    return segment === undefined || (term !== null && !sameTerm(segment.term, term)) ? null : segment;
  }

  /**
   * A file for a new segment, in place and with its name durable. Contents are arbitrary (an earlier life's); the segment's salt tells them apart.
   * Rejects with `ENOSPC` when the reserve would be touched and no ready file is left.
   */
  async prepare(uuid: ObjectUuid, number: number, term: Term, preallocate: boolean): Promise<PreparedSegment> {
    const path = join(this.#settings.directory, 'log', nameOf(uuid, number, term));
    const ready = preallocate ? this.#pool.pop() : undefined;
    if (preallocate && ready === undefined) this.#poolTarget = Math.min(this.#settings.poolFilesMax, this.#poolTarget * 2);
    if (ready === undefined) await this.requireRoom();
    const file = await this.#fileAt(path, ready, preallocate);
    try {
      await this.#syncLogDirectory();
    } catch (error) {
      await file.close();
      throw error;
    }
    failPoint('log.segment-created');
    const segment: LocalSegment = { uuid, number, term, path, bytes: 0, place: 'log', lastUse: 0 };
    this.#add(segment);
    return { file, segment, holeBytes: preallocate && ready === undefined ? this.#settings.segmentFileBytes : 0 };
  }

  /** @throws ApplianceError `ENOSPC` when no file may be begun: the reserve would be touched. */
  async requireRoom(): Promise<void> {
    if (this.#freeBytes < this.#settings.reserveBytes) await this.#look();
    if (this.#freeBytes >= this.#settings.reserveBytes) return;
    throw new ApplianceError(
      'ENOSPC',
      `${this.#settings.directory} has ${this.#freeBytes} bytes free, less than the reserve of ${this.#settings.reserveBytes}; free space on that file system`,
      { retryable: true },
    );
  }

  /** The file at `path`, made or moved there. One that an attempt before this one left half made is replaced: its segment was never begun. */
  async #fileAt(path: string, ready: string | undefined, preallocate: boolean): Promise<DiskFile> {
    if (ready !== undefined) {
      try {
        await this.#disk.rename(ready, path);
      } catch (error) {
        this.#pool.push(ready);
        throw error;
      }
      return this.#disk.open(path, 'read-write');
    }
    let file: DiskFile;
    try {
      file = await this.#disk.create(path);
    } catch (error) {
      if (errorCode(error) !== 'EEXIST') throw error;
      await this.#disk.unlink(path);
      file = await this.#disk.create(path);
    }
    try {
      // A hole of full size: appends then change no size, so a sync has less to journal (measured: 4.0x for 1 MiB writes on cold pages).
      if (preallocate) await file.truncate(this.#settings.segmentFileBytes);
    } catch (error) {
      await file.close();
      throw error;
    }
    return file;
  }

  /** Whether the unused end of a sealed segment's file should be cut off: it is large, or the file is to become an object as it is. */
  isWasteful(sealedBytes: number): boolean {
    return !this.#settings.recycle || sealedBytes < this.#settings.segmentFileBytes * 0.8;
  }

  /** Appended bytes of a segment in `log/`. */
  grow(segment: LocalSegment, bytes: number): void {
    // Dropped meanwhile: its object was removed.
    if (!this.#isKnown(segment)) return;
    this.#dirtyBytes += bytes - segment.bytes;
    this.#appendedSinceTick += bytes - segment.bytes;
    segment.bytes = bytes;
  }

  /**
   * A copy that another router made for us belongs to an object that is owned here now: it is one of its segments, complete, durable and not released.
   * It stays where it is until `settle`. A copy with the same number that is here already gives way.
   */
  enter(replica: ReplicaSegment, bytes: number): LocalSegment {
    const { uuid, number, term, path } = replica;
    const there = this.#segments.get(keyOf(uuid, number));
    if (there !== undefined) {
      this.#remove(there);
      const doubles = this.#doubles.get(uuid) ?? [];
      doubles.push(there);
      this.#doubles.set(uuid, doubles);
    }
    const segment: LocalSegment = { uuid, number, term, path, bytes, place: 'log', lastUse: 0 };
    this.#add(segment);
    this.replicas.give(replica);
    return segment;
  }

  /** Moves segments that were entered to `log/`, durably; and what they took the place of is dropped. */
  async settle(uuid: ObjectUuid): Promise<void> {
    // First these: one may have the very name that a segment is about to get.
    for (const segment of this.segmentsOf(uuid)) if (!this.#isKnown(segment)) await this.drop(segment);
    let moved = false;
    for (const segment of this.segmentsOf(uuid)) {
      if (segment.place !== 'log' || !segment.path.startsWith(`${this.replicas.directory}/`)) continue;
      moved = (await this.#move(segment, 'log')) || moved;
    }
    if (moved) await this.#syncLogDirectory();
  }

  /** Only this router has it, whatever was believed before: it is not cache any more. */
  async keep(segment: LocalSegment): Promise<void> {
    if (segment.place === 'log' || !this.#isKnown(segment)) return;
    // First what protects it from eviction, then its name.
    segment.place = 'log';
    this.#cacheBytes -= segment.bytes;
    this.#dirtyBytes += segment.bytes;
    if (await this.#move(segment, 'log')) await this.#syncLogDirectory();
  }

  /** The segment's object belongs to another router: what is here is a copy of what that one has, and may be evicted. */
  async cede(segment: LocalSegment): Promise<void> {
    if (segment.place === 'cache' || !this.#isKnown(segment)) return;
    segment.place = 'cache';
    segment.lastUse = ++this.#useCounter;
    this.#dirtyBytes -= segment.bytes;
    this.#drainedBytes += segment.bytes;
    this.#cacheBytes += segment.bytes;
    await this.#move(segment, 'cache');
    if (this.#cacheBytes > this.#settings.cacheBytesMax) this.#evictSoon();
  }

  /** Gives a segment's file the name that it has in `place`. False: it was dropped meanwhile. */
  async #move(segment: LocalSegment, place: 'log' | 'cache'): Promise<boolean> {
    const path = join(this.#settings.directory, place, nameOf(segment.uuid, segment.number, segment.term));
    const former = segment.path;
    if (path === former) return true;
    try {
      await this.#disk.rename(former, path);
    } catch (error) {
      if (errorCode(error) === 'ENOENT' && !this.#isKnown(segment)) return false;
      throw error;
    }
    if (!this.#isKnown(segment)) {
      await this.#disk.unlink(path);
      return false;
    }
    this.#readers.forget(former);
    segment.path = path;
    return true;
  }

  /** The backend has it and the registry's root says so: it is now cache. */
  async release(segment: LocalSegment): Promise<void> {
    if (segment.place === 'cache') return;
    const path = join(this.#settings.directory, 'cache', nameOf(segment.uuid, segment.number, segment.term));
    failPoint('release.before-rename');
    try {
      await this.#disk.rename(segment.path, path);
    } catch (error) {
      // Dropped before: there is nothing left to do, and whoever waits for it must not wait for ever.
      if (errorCode(error) === 'ENOENT' && !this.#isKnown(segment)) return;
      throw error;
    }
    failPoint('release.after-rename');
    if (!this.#isKnown(segment)) {
      // Dropped meanwhile, by a name that it did not have any more.
      await this.#disk.unlink(path);
      return;
    }
    this.#readers.forget(segment.path);
    segment.path = path;
    segment.place = 'cache';
    segment.lastUse = ++this.#useCounter;
    this.#dirtyBytes -= segment.bytes;
    this.#drainedBytes += segment.bytes;
    this.#cacheBytes += segment.bytes;
    if (this.#cacheBytes > this.#settings.cacheBytesMax) this.#evictSoon();
  }

  /**
   * Whether a copy of an uploaded segment may be added to the cache: the cache is not off, the disk not short, and the backend not on the same disk
   * (it shares files with us then, and a copy would only take room).
   */
  mayKeep(bytes: number): boolean {
    return (
      !this.#closed &&
      this.#settings.recycle &&
      bytes <= this.#settings.cacheBytesMax * 0.5 &&
      !this.#isShort &&
      this.#freeBytes - bytes > this.#settings.reserveBytes * 2
    );
  }

  /** Where a file can be made that is to be adopted. Whatever is left there by a crash is gone after the next start. */
  scratchPath(name: string): string {
    return join(this.#settings.directory, 'pool', `${name}.tmp`);
  }

  /**
   * Takes a complete and durable copy of an uploaded segment, made at a `scratchPath`, into the cache. False, and the file is gone, when a segment
   * of that number is here already.
   */
  async adopt(identity: { uuid: ObjectUuid; number: number; term: Term }, path: string, bytes: number): Promise<boolean> {
    const { uuid, number, term } = identity;
    const there = this.#segments.get(keyOf(uuid, number));
    // A cached one of another term is of no use: the object's history went on without it.
    if (there !== undefined && there.place === 'cache' && !sameTerm(there.term, term)) await this.drop(there);
    if (this.#closed || this.#segments.has(keyOf(uuid, number))) {
      await this.#disk.unlink(path);
      return false;
    }
    const target = join(this.#settings.directory, 'cache', nameOf(uuid, number, term));
    try {
      await this.#disk.rename(path, target);
    } catch (error) {
      await this.#disk.unlink(path);
      throw error;
    }
    if (this.#segments.has(keyOf(uuid, number))) {
      await this.#disk.unlink(target);
      return false;
    }
    this.#freeBytes -= bytes;
    this.#add({ uuid, number, term, path: target, bytes, place: 'cache', lastUse: ++this.#useCounter });
    if (this.#cacheBytes > this.#settings.cacheBytesMax) this.#evictSoon();
    return true;
  }

  /** Puts a rebuilt file in a segment's place, durably. */
  async replace(segment: LocalSegment, path: string, bytes: number): Promise<void> {
    await this.#disk.rename(path, segment.path);
    await this.#disk.syncDirectory(join(segment.path, '..'));
    if (!this.#isKnown(segment)) {
      await this.#disk.unlink(segment.path);
      return;
    }
    this.#readers.forget(segment.path);
    if (segment.place === 'log') this.#dirtyBytes += bytes - segment.bytes;
    else this.#cacheBytes += bytes - segment.bytes;
    segment.bytes = bytes;
  }

  /** Deletes a local copy (its object is gone, or nothing in it is needed). */
  async drop(segment: LocalSegment): Promise<void> {
    if (!this.#isKnown(segment)) {
      const doubles = this.#doubles.get(segment.uuid);
      const at = doubles?.indexOf(segment) ?? -1;
      if (doubles === undefined || at < 0) return;
      doubles.splice(at, 1);
      if (doubles.length === 0) this.#doubles.delete(segment.uuid);
    } else this.#remove(segment);
    this.#readers.forget(segment.path);
    // Under pressure the space is wanted, not the file.
    const recycle = this.#isRecyclable(segment) && this.#pool.length < this.#settings.poolFilesMax && !this.#isShort;
    try {
      if (recycle) {
        const path = join(this.#settings.directory, 'pool', `used-${++this.#poolCounter}.seg`);
        await this.#disk.rename(segment.path, path);
        this.#pool.push(path);
      } else await this.#disk.unlink(segment.path);
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') throw error;
    }
  }

  /** Less is free than is comfortable. */
  get #isShort(): boolean {
    return this.#freeBytes < this.#settings.reserveBytes * 2;
  }

  /**
   * An object that nobody knows: what is in the cache is dropped, what may be nowhere else is moved to `orphans/` and left there for people
   * (invariant 8: nothing is deleted on a guess). Returns the number of files moved.
   */
  async setAside(uuid: ObjectUuid): Promise<number> {
    let moved = 0;
    for (const segment of this.segmentsOf(uuid)) {
      if (segment.place === 'cache') {
        await this.drop(segment);
        continue;
      }
      if (await this.setAsideSegment(segment)) moved += 1;
    }
    return moved;
  }

  /** Moves a file out of the way, for people. False: it was not there any more. */
  async setAsideSegment(segment: LocalSegment): Promise<boolean> {
    const directory = join(this.#settings.directory, 'orphans');
    await this.#disk.makeDirectory(directory);
    try {
      await this.#disk.rename(segment.path, join(directory, basename(segment.path)));
    } catch (error) {
      if (errorCode(error) === 'ENOENT' && !this.#isKnown(segment)) return false;
      throw error;
    }
    if (this.#isKnown(segment)) this.#remove(segment);
    this.#readers.forget(segment.path);
    return true;
  }

  /** Drops every local copy of an object. */
  async dropObject(uuid: ObjectUuid): Promise<void> {
    await this.replicas.discard(uuid);
    for (const segment of this.segmentsOf(uuid)) await this.drop(segment);
  }

  /** Reads `target.length` bytes of a local segment; short only at its end. */
  read(segment: LocalSegment, offsetBytes: number, target: Uint8Array): Promise<number> {
    segment.lastUse = ++this.#useCounter;
    return this.#readers.read(segment.path, offsetBytes, target);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#readers.close();
    await this.#directorySyncNext;
    await this.#directorySync;
  }

  #isKnown(segment: LocalSegment): boolean {
    return this.#segments.get(keyOf(segment.uuid, segment.number)) === segment;
  }

  /** Forgets a segment, not its file. */
  #remove(segment: LocalSegment): void {
    this.#segments.delete(keyOf(segment.uuid, segment.number));
    const siblings = this.#byObject.get(segment.uuid);
    siblings?.delete(segment.number);
    if (siblings?.size === 0) this.#byObject.delete(segment.uuid);
    if (segment.place === 'log') {
      this.#dirtyBytes -= segment.bytes;
      this.#drainedBytes += segment.bytes;
    } else this.#cacheBytes -= segment.bytes;
  }

  #isRecyclable(segment: LocalSegment): boolean {
    return this.#settings.recycle && segment.bytes >= this.#settings.segmentFileBytes * 0.8;
  }

  #add(segment: LocalSegment): void {
    const key = keyOf(segment.uuid, segment.number);
    assert(!this.#segments.has(key), `segment ${key} exists twice`);
    this.#segments.set(key, segment);
    let siblings = this.#byObject.get(segment.uuid);
    if (siblings === undefined) {
      siblings = new Map();
      this.#byObject.set(segment.uuid, siblings);
    }
    siblings.set(segment.number, segment);
    if (segment.place === 'log') this.#dirtyBytes += segment.bytes;
    else this.#cacheBytes += segment.bytes;
  }

  /** Joins the fsync of `log/` that starts next: one covers everybody who prepared a segment meanwhile. */
  #syncLogDirectory(): Promise<void> {
    if (this.#directorySyncNext !== null) return this.#directorySyncNext;
    const start = (): Promise<void> => {
      this.#directorySyncNext = null;
      const sync = this.#disk.syncDirectory(join(this.#settings.directory, 'log')).finally(() => {
        if (this.#directorySync === sync) this.#directorySync = null;
      });
      this.#directorySync = sync;
      return sync;
    };
    if (this.#directorySync === null) return start();
    const next = this.#directorySync.then(start, start);
    this.#directorySyncNext = next;
    return next;
  }

  async #look(): Promise<void> {
    try {
      // Files that are open can be written for ever after their directory went; what is acknowledged then would be lost with this process.
      await this.#disk.size(join(this.#settings.directory, 'log'));
      this.#gone = null;
      this.#freeBytes = (await this.#disk.space(this.#settings.directory)).freeBytes;
      this.#spaceProblem =
        this.#freeBytes < this.#settings.reserveBytes
          ? `only ${this.#freeBytes} bytes are free in ${this.#settings.directory}; writes slow down or stop`
          : null;
    } catch (error) {
      this.#spaceProblem = `${this.#settings.directory} cannot be examined: ${(error as Error).message}`;
      if (errorCode(error) === 'ENOENT' || errorCode(error) === 'ENOTDIR') {
        this.#gone = new ApplianceError('EIO', `${this.#settings.directory} has vanished: bring the data directory back, or stop this router`, {
          retryable: true,
        });
      }
    }
  }

  /** Once a second: free space, eviction under pressure, filling the pool while the disk is quiet. */
  async #tick(): Promise<void> {
    if (this.#closed) return;
    await this.#look();
    if (this.#isShort) this.#evictSoon();
    const appended = this.#appendedSinceTick;
    this.#appendedSinceTick = 0;
    if (this.#mayFill(appended)) this.#fillSoon();
    if (!this.#closed) {
      this.#clock.after(1000, () => {
        this.#tick().catch((error: unknown) => this.#logger.error({ err: error }, 'looking after the local segments failed'));
      });
    }
  }

  #evictSoon(): void {
    if (this.#evicting) return;
    this.#evicting = true;
    this.#evict().then(
      () => (this.#evicting = false),
      (error: unknown) => {
        this.#evicting = false;
        this.#logger.error({ err: error }, 'evicting cached segments failed; the local disk may fill up');
      },
    );
  }

  async #evict(): Promise<void> {
    // Ready files first, but for those that let a writer go on where no new file may be begun.
    while (this.#isShort && this.#pool.length > POOL_FILES_FIRST) {
      await this.#disk.unlink(this.#pool.pop() as string);
      this.#freeBytes += this.#settings.segmentFileBytes;
    }
    const cached = [...this.#segments.values()].filter((segment) => segment.place === 'cache').sort((a, b) => a.lastUse - b.lastUse);
    const target = this.#settings.cacheBytesMax * 0.9;
    for (const segment of cached) {
      if (this.#cacheBytes <= target && !this.#isShort) return;
      if (segment.place !== 'cache') continue;
      const wasShort = this.#isShort;
      await this.drop(segment);
      if (wasShort) this.#freeBytes += segment.bytes;
    }
  }

  #fillSoon(): void {
    if (this.#filling) return;
    this.#filling = true;
    this.#fill().then(
      () => (this.#filling = false),
      (error: unknown) => {
        this.#filling = false;
        this.#logger.warn({ err: error }, 'preallocating segment files failed; new segments grow as they are written');
      },
    );
  }

  /** Files of real zeros: a hole would have to be allocated at the first sync, which is what preallocation is to avoid. */
  async #fill(): Promise<void> {
    const zeros = Buffer.alloc(FILL_BYTES);
    while (this.#mayFill(this.#appendedSinceTick)) {
      const path = join(this.#settings.directory, 'pool', `free-${++this.#poolCounter}.seg`);
      const file = await this.#disk.create(path);
      let complete = false;
      try {
        for (let at = 0; at < this.#settings.segmentFileBytes; at += FILL_BYTES) {
          const part = zeros.subarray(0, Math.min(FILL_BYTES, this.#settings.segmentFileBytes - at));
          await new Promise<void>((resolve, reject) => file.write(at, [part], (error) => (error === null ? resolve() : reject(error))));
        }
        await new Promise<void>((resolve, reject) => file.sync((error) => (error === null ? resolve() : reject(error))));
        complete = true;
      } finally {
        await file.close();
        if (!complete) await this.#disk.unlink(path);
      }
      this.#pool.push(path);
      // The next look at the disk is up to a second away.
      this.#freeBytes -= this.#settings.segmentFileBytes;
    }
  }

  /** Ready files are a convenience: none is made beside writes, nor from space that somebody could need soon. */
  #mayFill(appendedBytes: number): boolean {
    const spareBytes = this.#freeBytes - this.#settings.segmentFileBytes;
    return appendedBytes < FILL_BYTES && this.#pool.length < this.#poolTarget && spareBytes > this.#settings.reserveBytes * 4 && !this.#closed;
  }
}
