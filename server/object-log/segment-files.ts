/**
 * The local SSD's segments of one vPool: `log/` holds what is not released yet (the write-ahead logs), `cache/` what the backend has too and
 * may be evicted, `pool/` preallocated or recycled files that the next segments start in. One flat directory each: a start reads three
 * directories, and one fsync of `log/` covers every segment that was prepared meanwhile. What other routers are about to hand over is apart from
 * them (`replica-files.ts`).
 *
 * Here a segment's file gets its names, one after the other, and its end. What is there is counted in `segment-inventory.ts`, `pool/` is `ready-files.ts`.
 */
import { basename, join } from 'node:path';

import type { Disk, DiskFile } from '../core/disk.ts';
import { errorCode } from '../core/errors.ts';
import { failPoint } from '../core/fail-points.ts';
import { sameTerm } from '../core/ids.ts';
import type { ObjectUuid, Term } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import type { Clock } from '../core/time.ts';
import { JoinedSync } from './joined-sync.ts';
import { parseSegmentFileName, segmentFileName } from './local-segment.ts';
import type { LocalSegment } from './local-segment.ts';
import { LocalSpace } from './local-space.ts';
import { ReadyFiles } from './ready-files.ts';
import { ReplicaFiles } from './replica-files.ts';
import type { ReplicaSegment } from './replica-files.ts';
import { SegmentInventory } from './segment-inventory.ts';
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

/** A file for a new segment. */
export interface PreparedSegment {
  readonly file: DiskFile;
  readonly segment: LocalSegment;
  /** Size of the file when it is a hole, without blocks of the disk behind it; 0 when it has them, or grows as it is written. */
  readonly holeBytes: number;
}

export class SegmentFiles {
  /** Copies of logs that other routers own still. */
  readonly replicas: ReplicaFiles;
  readonly #disk: Disk;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #settings: SegmentFilesSettings;
  readonly #inventory = new SegmentInventory();
  readonly #space: LocalSpace;
  readonly #ready: ReadyFiles;
  readonly #readers: SegmentReaders;
  /** One fsync of `log/` covers everybody who prepared a segment meanwhile. */
  readonly #logDirectory: JoinedSync;
  #evicting = false;
  readonly #toDrop: LocalSegment[] = [];
  #dropping = false;
  #appendedSinceTick = 0;
  #closed = false;

  private constructor(components: { disk: Disk; clock: Clock; logger: Logger }, settings: SegmentFilesSettings) {
    this.#disk = components.disk;
    this.#clock = components.clock;
    this.#logger = components.logger;
    this.#settings = settings;
    this.#readers = new SegmentReaders(components);
    this.replicas = new ReplicaFiles(components, join(settings.directory, 'replica'), (path) => this.#readers.forget(path));
    this.#space = new LocalSpace(components, settings);
    this.#ready = new ReadyFiles(
      { ...components, space: this.#space },
      {
        directory: join(settings.directory, 'pool'),
        fileBytes: settings.segmentFileBytes,
        filesMax: settings.poolFilesMax,
        recycle: settings.recycle,
      },
    );
    this.#logDirectory = new JoinedSync(() => components.disk.syncDirectory(join(settings.directory, 'log')));
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
    await files.#ready.learn();
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
        const path = join(this.#settings.directory, place, name);
        const identity = parseSegmentFileName(name);
        if (identity === null) {
          this.#logger.warn({ file: path }, 'a file that is no segment lies among the segments; it is left alone');
          continue;
        }
        const size = await this.#disk.size(path);
        // A file of full size was open: how much of it counts is known when its log is recovered. Counted whole, the open logs of a few
        // hundred volumes would pass the bound of dirty bytes, and every write would wait for the recovery of all objects.
        const bytes = place === 'log' && size >= this.#settings.segmentFileBytes ? 0 : size;
        const pair = this.#inventory.addFound({ ...identity, path, bytes, place, lastUse: 0 });
        if (pair !== null) this.#logger.warn({ file: pair[1].path, other: pair[0].path }, 'a segment is on the local disk twice');
      }
    }
  }

  /** Of the segments with one number this is the one that counts. */
  prefer(segment: LocalSegment): void {
    this.#inventory.prefer(segment);
  }

  /** Bytes in segments that are not released: what would be lost with this machine. */
  get dirtyBytes(): number {
    return this.#inventory.dirtyBytes;
  }

  /** Bytes that ceased to be dirty since the start: released, or dropped because nobody needs them. */
  get drainedBytes(): number {
    return this.#inventory.drainedBytes;
  }

  get cacheBytes(): number {
    return this.#inventory.cacheBytes;
  }

  /** Free bytes of the local file system at the last look (once a second). */
  get freeBytes(): number {
    return this.#space.freeBytes;
  }

  /** What is wrong with the local disk, or null. */
  get problem(): string | null {
    return this.#space.problem;
  }

  /** Why nothing may be written now although open files would take it: the directory is not there any more. Null when it is. */
  get gone(): Error | null {
    return this.#space.gone;
  }

  /** Uuids that have unreleased segments. */
  dirtyObjects(): Iterable<ObjectUuid> {
    return this.#inventory.dirtyObjects();
  }

  /** Every uuid with a local segment. */
  objects(): Iterable<ObjectUuid> {
    return this.#inventory.objects();
  }

  /** Local segments of an object in order of number; a number that is there twice comes twice. */
  segmentsOf(uuid: ObjectUuid): LocalSegment[] {
    return this.#inventory.segmentsOf(uuid);
  }

  /** The local segment of that number, and of that term if one is given: what other routers wrote meanwhile has other terms. */
  segment(uuid: ObjectUuid, number: number, term: Term | null = null): LocalSegment | null {
    return this.#inventory.segment(uuid, number, term);
  }

  /**
   * A file for a new segment, in place and with its name durable. Contents are arbitrary (an earlier life's); the segment's salt tells them apart.
   * Rejects with `ENOSPC` when the reserve would be touched and no ready file is left.
   */
  async prepare(uuid: ObjectUuid, number: number, term: Term, preallocate: boolean): Promise<PreparedSegment> {
    const path = this.#path('log', uuid, number, term);
    const ready = preallocate ? this.#ready.take() : undefined;
    if (ready === undefined) await this.requireRoom();
    const file = await this.#fileAt(path, ready, preallocate);
    try {
      await this.#logDirectory.join();
    } catch (error) {
      await file.close();
      throw error;
    }
    failPoint('log.segment-created');
    const segment: LocalSegment = { uuid, number, term, path, bytes: 0, place: 'log', lastUse: 0 };
    this.#inventory.add(segment);
    return { file, segment, holeBytes: preallocate && ready === undefined ? this.#settings.segmentFileBytes : 0 };
  }

  /** @throws ApplianceError `ENOSPC` when no file may be begun: the reserve would be touched. */
  requireRoom(): Promise<void> {
    return this.#space.requireRoom();
  }

  /** The file at `path`, made or moved there. One that an attempt before this one left half made is replaced: its segment was never begun. */
  async #fileAt(path: string, ready: string | undefined, preallocate: boolean): Promise<DiskFile> {
    if (ready !== undefined) {
      try {
        await this.#disk.rename(ready, path);
      } catch (error) {
        this.#ready.putBack(ready);
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
    if (!this.#inventory.isKnown(segment)) return;
    this.#appendedSinceTick += bytes - segment.bytes;
    this.#inventory.resize(segment, bytes);
  }

  /** A replica that is whole will be read soon, if it comes to be a segment. */
  expect(replica: ReplicaSegment): void {
    if (this.replicas.has(replica)) this.#readers.expect(replica.path);
  }

  /**
   * A copy that another router made for us belongs to an object that is owned here now: it is one of its segments, complete, durable and not released.
   * It stays where it is until `settle`. A copy with the same number that is here already gives way.
   */
  enter(replica: ReplicaSegment, bytes: number): LocalSegment {
    const { uuid, number, term, path } = replica;
    const segment: LocalSegment = { uuid, number, term, path, bytes, place: 'log', lastUse: 0 };
    this.#inventory.supersede(segment);
    this.replicas.give(replica);
    return segment;
  }

  /** Moves segments that were entered to `log/`, durably; and what they took the place of is dropped. */
  async settle(uuid: ObjectUuid): Promise<void> {
    // First these: one may have the very name that a segment is about to get.
    for (const segment of this.segmentsOf(uuid)) if (!this.#inventory.isKnown(segment)) await this.drop(segment);
    let moved = false;
    for (const segment of this.segmentsOf(uuid)) {
      if (segment.place !== 'log' || !segment.path.startsWith(`${this.replicas.directory}/`)) continue;
      moved = (await this.#move(segment, 'log')) || moved;
    }
    if (moved) await this.#logDirectory.join();
  }

  /** Only this router has it, whatever was believed before: it is not cache any more. */
  async keep(segment: LocalSegment): Promise<void> {
    if (segment.place === 'log' || !this.#inventory.isKnown(segment)) return;
    // First what protects it from eviction, then its name.
    this.#inventory.toLog(segment);
    if (await this.#move(segment, 'log')) await this.#logDirectory.join();
  }

  /** The segment's object belongs to another router: what is here is a copy of what that one has, and may be evicted. */
  async cede(segment: LocalSegment): Promise<void> {
    if (segment.place === 'cache' || !this.#inventory.isKnown(segment)) return;
    this.#inventory.toCache(segment);
    await this.#move(segment, 'cache');
    this.#boundCache();
  }

  /** Gives a segment's file the name that it has in `place`. False: it was dropped meanwhile. */
  async #move(segment: LocalSegment, place: 'log' | 'cache'): Promise<boolean> {
    const path = this.#path(place, segment.uuid, segment.number, segment.term);
    const former = segment.path;
    if (path === former) return true;
    try {
      await this.#disk.rename(former, path);
    } catch (error) {
      if (errorCode(error) === 'ENOENT' && !this.#inventory.isKnown(segment)) return false;
      throw error;
    }
    if (!this.#inventory.isKnown(segment)) {
      await this.#disk.unlink(path);
      return false;
    }
    this.#readers.renamed(former, path);
    segment.path = path;
    return true;
  }

  /** The backend has it and the registry's root says so: it is now cache. */
  async release(segment: LocalSegment): Promise<void> {
    if (segment.place === 'cache') return;
    const path = this.#path('cache', segment.uuid, segment.number, segment.term);
    failPoint('release.before-rename');
    try {
      await this.#disk.rename(segment.path, path);
    } catch (error) {
      // Dropped before: there is nothing left to do, and whoever waits for it must not wait for ever.
      if (errorCode(error) === 'ENOENT' && !this.#inventory.isKnown(segment)) return;
      throw error;
    }
    failPoint('release.after-rename');
    if (!this.#inventory.isKnown(segment)) {
      // Dropped meanwhile, by a name that it did not have any more.
      await this.#disk.unlink(path);
      return;
    }
    this.#readers.renamed(segment.path, path);
    segment.path = path;
    this.#inventory.toCache(segment);
    this.#boundCache();
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
      !this.#space.isShort &&
      this.#space.wouldLeave(bytes, 2)
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
    const there = this.#inventory.segment(uuid, number);
    // A cached one of another term is of no use: the object's history went on without it.
    if (there !== null && there.place === 'cache' && !sameTerm(there.term, term)) await this.drop(there);
    if (this.#closed || this.#inventory.has(uuid, number)) {
      await this.#disk.unlink(path);
      return false;
    }
    const target = this.#path('cache', uuid, number, term);
    try {
      await this.#disk.rename(path, target);
    } catch (error) {
      await this.#disk.unlink(path);
      throw error;
    }
    if (this.#inventory.has(uuid, number)) {
      await this.#disk.unlink(target);
      return false;
    }
    this.#space.took(bytes);
    const segment: LocalSegment = { uuid, number, term, path: target, bytes, place: 'cache', lastUse: 0 };
    this.#inventory.touch(segment);
    this.#inventory.add(segment);
    this.#boundCache();
    return true;
  }

  /** Puts a rebuilt file in a segment's place, durably. */
  async replace(segment: LocalSegment, path: string, bytes: number): Promise<void> {
    await this.#disk.rename(path, segment.path);
    await this.#disk.syncDirectory(join(segment.path, '..'));
    if (!this.#inventory.isKnown(segment)) {
      await this.#disk.unlink(segment.path);
      return;
    }
    this.#readers.forget(segment.path);
    this.#inventory.resize(segment, bytes);
  }

  /** Deletes a local copy (its object is gone, or nothing in it is needed). */
  async drop(segment: LocalSegment): Promise<void> {
    if (!this.#inventory.forget(segment)) return;
    this.#readers.forget(segment.path);
    // Under pressure the space is wanted, not the file.
    const recycle = this.#ready.wants(segment.bytes) && !this.#space.isShort;
    try {
      if (recycle) await this.#ready.recycle(segment.path);
      else await this.#disk.unlink(segment.path);
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') throw error;
    }
  }

  /**
   * Drops it in the background, behind all others that are to go: on a file system that discards what it frees, one takes as long as a sync, and a thread of the pool; a
   * hundred at once would keep every sync waiting (decision 0039). What cannot be deleted is found, as cache, by the next start.
   */
  dropSoon(segment: LocalSegment): void {
    this.#toDrop.push(segment);
    if (this.#dropping) return;
    this.#dropping = true;
    void this.#dropThem();
  }

  async #dropThem(): Promise<void> {
    for (let segment = this.#toDrop.shift(); segment !== undefined && !this.#closed; segment = this.#toDrop.shift()) {
      try {
        await this.drop(segment);
      } catch (error) {
        this.#logger.warn({ err: error, file: segment.path }, 'dropping a dead segment failed');
      }
    }
    this.#dropping = false;
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
      if (errorCode(error) === 'ENOENT' && !this.#inventory.isKnown(segment)) return false;
      throw error;
    }
    if (this.#inventory.isKnown(segment)) this.#inventory.forget(segment);
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
    this.#inventory.touch(segment);
    return this.#readers.read(segment.path, offsetBytes, target);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#readers.close();
    await this.#logDirectory.ended();
  }

  #path(place: 'log' | 'cache', uuid: ObjectUuid, number: number, term: Term): string {
    return join(this.#settings.directory, place, segmentFileName(uuid, number, term));
  }

  /** Once a second: free space, eviction under pressure, filling the pool while the disk is quiet. */
  async #tick(): Promise<void> {
    if (this.#closed) return;
    await this.#space.look();
    if (this.#space.isShort) this.#evictSoon();
    this.#ready.fillSoon(() => (this.#closed ? Infinity : this.#appendedSinceTick));
    this.#appendedSinceTick = 0;
    if (!this.#closed) {
      this.#clock.after(1000, () => {
        this.#tick().catch((error: unknown) => this.#logger.error({ err: error }, 'looking after the local segments failed'));
      });
    }
  }

  #boundCache(): void {
    if (this.#inventory.cacheBytes > this.#settings.cacheBytesMax) this.#evictSoon();
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
    await this.#ready.makeRoom();
    const target = this.#settings.cacheBytesMax * 0.9;
    for (const segment of this.#inventory.cached()) {
      if (this.#inventory.cacheBytes <= target && !this.#space.isShort) return;
      if (segment.place !== 'cache') continue;
      const wasShort = this.#space.isShort;
      await this.drop(segment);
      if (wasShort) this.#space.gave(segment.bytes);
    }
  }
}
