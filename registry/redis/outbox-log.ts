/**
 * This router's redo log of registry changes: appended and synced before a verb answers, handed to the namespace archive, and kept for a while after that, since
 * it is what a recovery round makes a forgetful Redis whole from. Files of some MiB in one directory; the oldest go when all in them is on the backend and some
 * minutes old. One writer; the caller holds the lock of the data directory.
 */
import { join } from 'node:path';

import { assert } from '../../server/core/assert.ts';
import type { Disk, DiskFile } from '../../server/core/disk.ts';
import { ApplianceError } from '../../server/core/errors.ts';
import type { Clock } from '../../server/core/time.ts';
import type { OutboxEntry } from '../ports.ts';
import { decodeLogRecord, encodeLogRecord, type LogRecord, nextLogRecord, OUTBOX_LOG_VERSION } from './outbox-log-format.ts';

export interface OutboxLogSettings {
  /** A file that has reached this is followed by the next. */
  readonly fileBytes: number;
  /** How long entries stay at least after they were written, and how many files. */
  readonly keptMs: number;
  readonly keptFilesMin: number;
  /** Bound on all files: beyond it old ones go earlier, and when nothing in them may go, changes are refused. */
  readonly bytesMax: number;
}

export const OUTBOX_LOG_DEFAULTS: OutboxLogSettings = {
  fileBytes: 8 * 1024 * 1024,
  keptMs: 15 * 60_000,
  keptFilesMin: 2,
  bytesMax: 1024 * 1024 * 1024,
};

/** Where an entry is. */
interface Place {
  readonly sequence: number;
  /** Its number among all entries that this log ever had: what came later may have a lower sequence. */
  readonly ordinal: number;
  readonly file: LogFile;
  readonly offset: number;
  readonly length: number;
}

interface LogFile {
  readonly name: string;
  readonly number: number;
  bytes: number;
  /** Ordinals below are in this file or an older one. */
  ordinalEnd: number;
  sequenceMax: number;
  /** Monotonic clock of the last entry; of files found at the start: when they were found. */
  lastAtMs: number;
}

interface Waiter {
  readonly frame: Buffer;
  readonly entry: OutboxEntry | null;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

const NAME = /^log-(\d{12})$/;

export class OutboxLog {
  readonly #disk: Disk;
  readonly #clock: Clock;
  readonly #directory: string;
  readonly #settings: OutboxLogSettings;
  readonly #files: LogFile[] = [];
  #handle: DiskFile | null = null;
  /** By sequence: entries still in files; a repeated one is kept once. */
  readonly #places = new Map<number, Place>();
  /** Ascending; rebuilt when something out of order came. */
  #order: number[] = [];
  #ordered = true;
  #ordinal = 0;
  /** Of the newest file, also of one that could not be made. */
  #number = 0;
  #dropped = 0;
  #released = 0;
  #releasedBefore = 0;
  /** What the last reader of `pending` could have seen: entries appended later are not released by what he releases. */
  #seenBefore = 0;
  #sequenceMax = 0;
  #queue: Waiter[] = [];
  #flushing: Promise<void> | null = null;
  /** Whoever touches the last file waits for its turn here. */
  #turn: Promise<void> = Promise.resolve();
  #failure: Error | null = null;
  #damage: string | null = null;

  private constructor(components: { disk: Disk; clock: Clock }, directory: string, settings: OutboxLogSettings) {
    this.#disk = components.disk;
    this.#clock = components.clock;
    this.#directory = directory;
    this.#settings = settings;
  }

  /** Opens or makes the log. @throws ApplianceError `registry-corrupt`; the disk's errors as they are. */
  static async open(
    components: { disk: Disk; clock: Clock },
    directory: string,
    settings: OutboxLogSettings = OUTBOX_LOG_DEFAULTS,
  ): Promise<OutboxLog> {
    const log = new OutboxLog(components, directory, settings);
    await components.disk.makeDirectory(directory);
    const numbers = (await components.disk.list(directory))
      .map((name) => NAME.exec(name)?.[1])
      .filter((number) => number !== undefined)
      .map(Number)
      .sort((a, b) => a - b);
    for (const number of numbers) await log.#load(number);
    log.#seenBefore = log.#ordinal;
    // Never appended to a file that another life wrote: its tail may be torn.
    await log.#nextFile();
    return log;
  }

  /** Highest sequence of an entry that was deleted after it had been on the backend: nothing up to it can be had from here for certain. 0: none. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Highest sequence that this log ever had. */
  get sequenceMax(): number {
    return this.#sequenceMax;
  }

  get bytes(): number {
    let bytes = 0;
    for (const file of this.#files) bytes += file.bytes;
    return bytes;
  }

  /** Entries that are not on the backend yet. */
  get pendingCount(): number {
    let count = 0;
    for (const place of this.#places.values()) if (!this.#isReleased(place)) count += 1;
    return count;
  }

  /** Why the last append failed, or null: the next one begins a new file. */
  get failure(): Error | null {
    return this.#failure;
  }

  /** What was found damaged at the opening, or null. */
  get damage(): string | null {
    return this.#damage;
  }

  /** Appends an entry, unless it is there; resolves when it is durable. Rejects with the disk's error; nothing is known of the entry then, and it may be appended again. */
  append(entry: OutboxEntry): Promise<void> {
    // One that is there is durable, or on its way in front of what is appended now.
    return this.#write({ kind: 'entry', entry }, entry);
  }

  /** Entries with sequence > `after` that are not released, in order. */
  async pending(after: number, limit: number): Promise<OutboxEntry[]> {
    this.#seenBefore = this.#ordinal;
    return this.#read(after, limit, (place) => !this.#isReleased(place));
  }

  /**
   * All entries with sequence > `after` that are still there, in order, also those that are on their way to the disk: what a recovery round asks for. They will be acknowledged, and if
   * Redis has forgotten them, nobody else brings them back.
   */
  async entriesAfter(after: number, limit: number): Promise<OutboxEntry[]> {
    await this.#flushing;
    return this.#read(after, limit, () => true);
  }

  /** Entries up to `sequence` that the last `pending` could have seen are on the backend. */
  async release(sequence: number): Promise<void> {
    const before = this.#seenBefore;
    if (sequence <= this.#released && before <= this.#releasedBefore) return;
    this.#released = Math.max(sequence, this.#released);
    this.#releasedBefore = Math.max(before, this.#releasedBefore);
    await this.#write({ kind: 'released', sequence: this.#released, before: this.#releasedBefore }, null);
    await this.#trim();
  }

  async close(): Promise<void> {
    while (this.#flushing !== null) await this.#flushing;
    await this.#inTurn(async () => {
      await this.#handle?.close();
      this.#handle = null;
    });
  }

  #isReleased(place: Place): boolean {
    return place.sequence <= this.#released && place.ordinal < this.#releasedBefore;
  }

  async #read(after: number, limit: number, wanted: (place: Place) => boolean): Promise<OutboxEntry[]> {
    if (!this.#ordered) {
      this.#order = [...this.#places.keys()].sort((a, b) => a - b);
      this.#ordered = true;
    }
    const places: Place[] = [];
    for (let at = firstAbove(this.#order, after); at < this.#order.length && places.length < limit; at += 1) {
      const place = this.#places.get(this.#order[at] ?? 0);
      if (place !== undefined && wanted(place)) places.push(place);
    }
    const handles = new Map<LogFile, DiskFile>();
    try {
      const entries: OutboxEntry[] = [];
      for (const place of places) {
        let handle = handles.get(place.file);
        if (handle === undefined) {
          handle = await this.#disk.open(join(this.#directory, place.file.name), 'read');
          handles.set(place.file, handle);
        }
        const bytes = Buffer.alloc(place.length);
        await readAll(handle, place.offset, bytes);
        const decoded = decodeLogRecord(bytes, 0, `outbox ${place.file.name} at ${place.offset}`);
        if (decoded?.record.kind !== 'entry') {
          throw new ApplianceError('registry-corrupt', `outbox ${place.file.name} at ${place.offset}: what was written there is not there any more`);
        }
        entries.push(decoded.record.entry);
      }
      return entries;
    } finally {
      for (const handle of handles.values()) await handle.close();
    }
  }

  #write(record: LogRecord, entry: OutboxEntry | null): Promise<void> {
    if (entry !== null && this.bytes > this.#settings.bytesMax) {
      return Promise.reject(
        new ApplianceError(
          'registry-no-space',
          `the outbox log in ${this.#directory} has ${this.bytes} bytes that are not on the backend yet; let the backend catch up`,
          { retryable: true },
        ),
      );
    }
    return new Promise((resolve, reject) => {
      this.#queue.push({ frame: encodeLogRecord(record), entry, resolve, reject });
      this.#flushing ??= this.#flush();
    });
  }

  /** One after another: what came during a sync goes out with the next one. */
  async #flush(): Promise<void> {
    // What one loop turn brings goes out together.
    await new Promise<void>((resolve) => this.#clock.soon(resolve));
    while (this.#queue.length > 0) await this.#inTurn(() => this.#flushBatch());
    // In the turn that saw the queue empty: what comes from now on begins the next one.
    this.#flushing = null;
  }

  /** Runs `task` when all before it are done. `task` does not reject, or only to who waits for it. */
  #inTurn(task: () => Promise<void>): Promise<void> {
    const mine = this.#turn.then(task);
    this.#turn = mine.catch(() => undefined);
    return mine;
  }

  async #flushBatch(): Promise<void> {
    const batch = this.#queue;
    this.#queue = [];
    try {
      const frames: Buffer[] = [];
      const written: { waiter: Waiter; offset: number }[] = [];
      let file = this.#files.at(-1);
      assert(file !== undefined, 'the log is open');
      // After a failed sync nothing is known of what was written to that file: never another byte there.
      if (file.bytes >= this.#settings.fileBytes || this.#failure !== null) {
        await this.#nextFile();
        file = this.#files.at(-1);
        assert(file !== undefined, 'a new file was made');
      }
      assert(this.#handle !== null, 'the last file is open');
      let offset = file.bytes;
      for (const waiter of batch) {
        if (waiter.entry !== null && this.#places.has(waiter.entry.sequence)) continue;
        if (waiter.entry !== null && written.some((other) => other.waiter.entry?.sequence === waiter.entry?.sequence)) continue;
        written.push({ waiter, offset });
        frames.push(waiter.frame);
        offset += waiter.frame.byteLength;
      }
      if (frames.length > 0) {
        await writeAll(this.#handle, file.bytes, frames);
        await syncAll(this.#handle);
      }
      file.bytes = offset;
      this.#failure = null;
      for (const { waiter, offset: at } of written) if (waiter.entry !== null) this.#place(waiter.entry.sequence, file, at, waiter.frame.byteLength);
      for (const waiter of batch) waiter.resolve();
    } catch (error) {
      this.#failure = error as Error;
      for (const waiter of batch) waiter.reject(this.#failure);
    }
  }

  #place(sequence: number, file: LogFile, offset: number, length: number): void {
    this.#places.set(sequence, { sequence, ordinal: this.#ordinal, file, offset, length });
    this.#ordinal += 1;
    if (sequence > (this.#order.at(-1) ?? 0)) {
      if (this.#ordered) this.#order.push(sequence);
    } else this.#ordered = false;
    file.ordinalEnd = this.#ordinal;
    file.sequenceMax = Math.max(file.sequenceMax, sequence);
    file.lastAtMs = this.#clock.monotonicMs();
    this.#sequenceMax = Math.max(this.#sequenceMax, sequence);
  }

  async #nextFile(): Promise<void> {
    try {
      await this.#makeFile();
    } catch (error) {
      // Nothing is written until one could be made.
      this.#failure = error as Error;
      throw error;
    }
  }

  async #makeFile(): Promise<void> {
    await this.#handle?.close();
    this.#handle = null;
    this.#number += 1;
    const number = this.#number;
    const name = `log-${String(number).padStart(12, '0')}`;
    const handle = await this.#disk.create(join(this.#directory, name));
    this.#handle = handle;
    const head = encodeLogRecord({
      kind: 'head',
      version: OUTBOX_LOG_VERSION,
      dropped: this.#dropped,
      released: this.#released,
      releasedBefore: this.#releasedBefore,
      ordinal: this.#ordinal,
    });
    await writeAll(handle, 0, [head]);
    await syncAll(handle);
    await this.#disk.syncDirectory(this.#directory);
    this.#files.push({
      name,
      number,
      bytes: head.byteLength,
      ordinalEnd: this.#ordinal,
      sequenceMax: this.#dropped,
      lastAtMs: this.#clock.monotonicMs(),
    });
  }

  async #load(number: number): Promise<void> {
    const name = `log-${String(number).padStart(12, '0')}`;
    const path = join(this.#directory, name);
    const handle = await this.#disk.open(path, 'read');
    const bytes = Buffer.alloc(await handle.size());
    try {
      await readAll(handle, 0, bytes);
    } finally {
      await handle.close();
    }
    const file: LogFile = { name, number, bytes: bytes.byteLength, ordinalEnd: this.#ordinal, sequenceMax: 0, lastAtMs: this.#clock.monotonicMs() };
    this.#files.push(file);
    this.#number = number;
    let damagedAt: number | null = null;
    for (let offset = 0; ;) {
      const decoded = decodeLogRecord(bytes, offset, `outbox ${name} at ${offset}`);
      if (decoded === null) {
        // Nothing whole behind it: the tail that a crash tore.
        const behind = nextLogRecord(bytes, offset);
        if (behind === null) break;
        damagedAt = offset;
        offset = behind;
        continue;
      }
      const { record, next } = decoded;
      if (damagedAt !== null && record.kind === 'entry') {
        this.#damage = `the outbox log ${path} is damaged at ${damagedAt}: should Redis forget changes from before ${record.entry.sequence}, some of them cannot be brought back`;
        this.#dropped = Math.max(this.#dropped, record.entry.sequence - 1);
        damagedAt = null;
      }
      if (record.kind === 'entry') this.#place(record.entry.sequence, file, offset, next - offset);
      else if (record.kind === 'released') {
        this.#released = Math.max(this.#released, record.sequence);
        this.#releasedBefore = Math.max(this.#releasedBefore, record.before);
      } else {
        this.#dropped = Math.max(this.#dropped, record.dropped);
        this.#released = Math.max(this.#released, record.released);
        this.#releasedBefore = Math.max(this.#releasedBefore, record.releasedBefore);
        this.#ordinal = Math.max(this.#ordinal, record.ordinal);
      }
      offset = next;
    }
  }

  /** Deletes the oldest files in which everything is on the backend and old enough, or that are beyond the bound. */
  async #trim(): Promise<void> {
    const { keptFilesMin, keptMs, bytesMax } = this.#settings;
    const gone: LogFile[] = [];
    let bytesLeft = this.bytes;
    const held = new Set<LogFile>();
    for (const place of this.#places.values()) if (!this.#isReleased(place)) held.add(place.file);
    for (const file of this.#files.slice(0, -Math.max(1, keptFilesMin))) {
      const isOld = this.#clock.monotonicMs() - file.lastAtMs >= keptMs;
      if (held.has(file) || (!isOld && bytesLeft <= bytesMax / 2)) break;
      gone.push(file);
      bytesLeft -= file.bytes;
    }
    if (gone.length === 0) return;
    await this.#inTurn(async () => {
      for (const file of gone) this.#dropped = Math.max(this.#dropped, file.sequenceMax);
      for (const place of [...this.#places.values()]) if (gone.includes(place.file)) this.#places.delete(place.sequence);
      this.#ordered = false;
      // A head says what is gone before it is.
      await this.#nextFile();
      this.#files.splice(0, gone.length);
      for (const file of gone) await this.#disk.unlink(join(this.#directory, file.name));
      await this.#disk.syncDirectory(this.#directory);
    });
  }
}

function firstAbove(sorted: readonly number[], value: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle] ?? 0) > value) high = middle;
    else low = middle + 1;
  }
  return low;
}

function writeAll(file: DiskFile, offset: number, buffers: readonly Uint8Array[]): Promise<void> {
  return new Promise((resolve, reject) => file.write(offset, buffers, (error) => (error === null ? resolve() : reject(error))));
}

function syncAll(file: DiskFile): Promise<void> {
  return new Promise((resolve, reject) => file.sync((error) => (error === null ? resolve() : reject(error))));
}

function readAll(file: DiskFile, offset: number, target: Buffer): Promise<void> {
  return new Promise((resolve, reject) =>
    file.read(offset, target, (error, bytesRead) => {
      if (error !== null) reject(error);
      else if (bytesRead !== target.byteLength) reject(new ApplianceError('registry-corrupt', `${file.path} ends at ${offset + bytesRead}`));
      else resolve();
    }),
  );
}
