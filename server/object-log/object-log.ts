/**
 * The log of one object: the segment on the SSD is the write-ahead log, there is no second write (design section 6).
 *
 * Records get one continuous sequence. They are written in order, several per write; a sync covers what was written before it began, and the
 * next batch is written while it runs. A record is applied (`apply`) and answered (`done`) strictly in sequence: a stable one when every
 * record up to it is durable, an unstable one when it is written. What is not durable stays in memory, so that a failed write or sync can be
 * made good in a new segment: the failed file is never synced again.
 *
 * Its parts: the records in RAM (`record-queue.ts`), the segment that is written (`open-segment.ts`), those that are sealed behind it (`sealing.ts`) and the
 * next one (`segment-supply.ts`). Not here: what records mean (the driver), uploading, recovery after a restart (`recovery.ts`).
 */
import { assert } from '../core/assert.ts';
import { ApplianceError, errorCode } from '../core/errors.ts';
import { toldToFail } from '../core/fail-points.ts';
import type { Histogram } from '../core/histogram.ts';
import type { Logger } from '../core/logger.ts';
import type { Clock, Random } from '../core/time.ts';
import type { LogEvents } from './log-events.ts';
import type { LogRecord } from './log-record.ts';
import type { OpenSegment } from './open-segment.ts';
import { RecordQueue } from './record-queue.ts';
import { Sealing } from './sealing.ts';
import type { PreparedSegment, SegmentFiles } from './segment-files.ts';
import { SegmentSupply } from './segment-supply.ts';
import type { LogIdentity } from './segment-supply.ts';

/** Most bytes of one write to the segment. */
const BATCH_BYTES_MAX = 4 * 1024 * 1024;
/** Un-synced bytes of unstable records at which a sync starts by itself. */
const UNSYNCED_SYNC_BYTES = 8 * 1024 * 1024;
const RETRY_AFTER_FAULT_MS = 1000;
const RETRY_PREPARE_MS = 100;

export interface ObjectLogSettings {
  /** Payload bytes after which a segment is sealed. */
  readonly segmentBytes: number;
  /** Whether segments start in preallocated files (volumes) or grow as they are written (files). */
  readonly preallocate: boolean;
  /** How long records wait for a segment when the disk is full. */
  readonly patienceMs: number;
}

export class ObjectLog {
  readonly #files: SegmentFiles;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #syncLatency: Histogram;
  readonly #events: LogEvents;
  readonly #settings: ObjectLogSettings;
  readonly #identity: LogIdentity;
  readonly #queue: RecordQueue;
  readonly #supply: SegmentSupply;
  readonly #sealing: Sealing;

  readonly #firstSegment: number;
  #lastBegun: number;
  #durableSequence: number;
  #current: OpenSegment | null = null;
  /** The segment that `seal` wants sealed although it is not full. */
  #sealWanted: OpenSegment | null = null;
  #relocating: Promise<void> | null = null;
  #writing = false;
  #scheduled = false;
  #rotating = false;
  #fault: Error | null = null;
  /** No segment could be begun for a while: appends are refused with this. */
  #blocked: Error | null = null;
  #faultGeneration = 0;
  #closed = false;
  /** Why nothing may be appended although the log is well: the object is being given away. */
  #held: Error | null = null;
  /** Called when there is more to copy, or the log had a fault. */
  #watcher: (() => void) | null = null;
  #idleWaiters: (() => void)[] = [];
  #sealWaiters: (() => void)[] = [];
  /** Up to where somebody wants the log durable that waits for no record of it. */
  #syncWanted = 0;
  #syncWaiters: (() => void)[] = [];

  constructor(
    components: { files: SegmentFiles; clock: Clock; random: Random; logger: Logger; syncLatency: Histogram; events: LogEvents },
    identity: LogIdentity,
    settings: ObjectLogSettings,
    start: { nextSegment: number; nextSequence: number },
  ) {
    this.#files = components.files;
    this.#clock = components.clock;
    this.#logger = components.logger;
    this.#syncLatency = components.syncLatency;
    this.#events = components.events;
    this.#identity = identity;
    this.#settings = settings;
    this.#firstSegment = start.nextSegment;
    this.#lastBegun = start.nextSegment - 1;
    this.#durableSequence = start.nextSequence - 1;
    this.#queue = new RecordQueue(start.nextSequence);
    this.#supply = new SegmentSupply(components, identity, settings, start.nextSegment);
    this.#sealing = new Sealing(components, {
      written: (segment) => {
        if (!segment.syncing) this.#sync(segment);
      },
      durable: () => this.#advance(),
      closed: (segment) => this.#sealed(segment),
      failed: (error) => this.#fail(error),
    });
  }

  /** Sequence of the last record that was appended, and of the last that is durable. */
  get lastSequence(): number {
    return this.#queue.nextSequence - 1;
  }
  get durableSequence(): number {
    return this.#durableSequence;
  }
  /** Number of the segment that holds, or will hold, the first record that is not applied. */
  get nextAppliedSegment(): number {
    return this.#queue.firstWrittenUnapplied?.segmentNumber ?? this.#current?.local.number ?? this.#lastBegun + 1;
  }
  /** Number of the last segment with records; all records appended and written so far are in it or before it. */
  get lastBegunSegment(): number {
    return this.#lastBegun;
  }
  /** Whether anything was written in this term. */
  get hasBegun(): boolean {
    return this.#lastBegun >= this.#firstSegment;
  }
  /** Milliseconds that the open segment has been open with records in it; 0 when there is none. */
  get openSegmentAgeMs(): number {
    return this.#current === null || this.#current.payloadBytes + this.#current.index.count === 0
      ? 0
      : this.#clock.monotonicMs() - this.#current.openedAtMs;
  }
  get openSegmentBytes(): number {
    return this.#current?.writeOffset ?? 0;
  }
  /** What stops the log at the moment, or null. */
  get problem(): Error | null {
    return this.#fault ?? this.#blocked;
  }
  get idle(): boolean {
    return this.#queue.isAllWritten && this.#queue.isAllApplied && this.#sealing.isEmpty && (!this.#rotating || this.#blocked !== null);
  }
  /** Faults so far: who waited for a segment compares. */
  get faults(): number {
    return this.#faultGeneration;
  }
  /** Records that a fault moved have not all got their new place: the map refers to a damaged segment. */
  get moving(): boolean {
    return this.#queue.moving;
  }

  /** Records that are appended but not applied, newest last: for read-modify-write of a block. */
  pendingNewestFirst(): Iterable<LogRecord> {
    return this.#queue.pendingNewestFirst();
  }
  /** False: `pendingNewestFirst` has nothing. */
  get hasPending(): boolean {
    return this.#queue.hasPending;
  }

  /** Refuses appends with `reason` from here on, until it is null; what was appended before goes on. */
  hold(reason: Error | null): void {
    this.#held = reason;
  }

  /** `watcher` is called, perhaps within the caller's turn, when bytes were written, a segment was sealed or the log had a fault. One at a time; null: nobody. */
  watch(watcher: (() => void) | null): void {
    this.#watcher = watcher;
  }

  /** Whether this segment, of which `LocalSegment.bytes` were written, may still grow. One that may not is sealed, or was never begun. */
  isGrowing(number: number): boolean {
    return this.#current?.local.number === number || this.#sealing.has(number);
  }

  /** Appends a record; its `done` is called when it is answered. Throws the fault while the log is out of order. */
  append(record: LogRecord): void {
    if (this.#held !== null) throw this.#held;
    const problem = this.problem ?? this.#files.gone;
    if (problem !== null) throw problem;
    if (this.#closed) throw new ApplianceError('object-closing', 'the object is being closed', { retryable: true });
    this.#queue.add(record);
    this.#schedule();
  }

  /** Begins to make the next segment's file, which the next record would have to wait for. `made`: it is being made already; it is the log's from here on. */
  prepareAhead(made: Promise<PreparedSegment> | null = null): void {
    // Whoever takes it hears of its failure.
    if (this.#current === null && !this.#supply.hasPrepared && !this.#rotating && !this.#closed) void this.#supply.prepare(made);
    else assert(made === null, 'a segment is made ahead for a log that has not begun one');
  }

  /** Of the next segment whose file is to be made. */
  get nextSegment(): number {
    return this.#supply.nextNumber;
  }

  /** Seals the open segment if it holds anything, whatever is being appended; if the log is held, behind everything that was. Resolves when it is sealed, or when a fault prevents that. */
  async seal(): Promise<void> {
    const current = this.#current;
    if (current !== null && current.index.count > 0) {
      this.#sealWanted = current;
      this.#schedule();
    }
    const last = this.#lastBegun;
    const faults = this.#faultGeneration;
    const isSealed = (): boolean =>
      (this.#current?.index.count === 0 || (this.#current?.local.number ?? Infinity) > last) && !this.#sealing.hasUpTo(last);
    while (faults === this.#faultGeneration && this.problem === null && !this.#closed && !isSealed()) {
      await new Promise<void>((resolve) => this.#sealWaiters.push(resolve));
    }
  }

  /** Resolves when everything appended so far is durable. Rejects with ApplianceError `log-fault` or `object-closing` when a fault, or the end of the log, prevents that. */
  async sync(): Promise<void> {
    const wanted = this.lastSequence;
    const faults = this.#faultGeneration;
    this.#syncWanted = Math.max(this.#syncWanted, wanted);
    this.#schedule();
    while (this.#durableSequence < wanted) {
      if (faults !== this.#faultGeneration || this.problem !== null)
        throw new ApplianceError('log-fault', `the log of ${this.#identity.objectUuid} had a fault before it was durable`, { retryable: true });
      if (this.#closed) throw new ApplianceError('object-closing', 'the object is being closed', { retryable: true });
      await new Promise<void>((resolve) => this.#syncWaiters.push(resolve));
    }
  }

  #wakeSyncers(): void {
    if (this.#syncWaiters.length === 0) return;
    const waiters = this.#syncWaiters;
    this.#syncWaiters = [];
    for (const wake of waiters) wake();
  }

  #wakeSealers(): void {
    this.#wakeSyncers();
    const waiters = this.#sealWaiters;
    this.#sealWaiters = [];
    for (const wake of waiters) wake();
  }

  get #quiet(): boolean {
    return this.idle && !this.#writing;
  }

  /** Resolves when everything appended so far is answered and no segment is being sealed; at once while a fault keeps the log from going on. */
  drained(): Promise<void> {
    if (this.#quiet || this.#fault !== null) return Promise.resolve();
    return new Promise((resolve) => this.#idleWaiters.push(resolve));
  }

  /**
   * Ends the log: waits for what is under way, closes its file. Appends are refused from here on. What a fault kept from being durable is given up:
   * it was answered UNSTABLE, and the disk says so.
   */
  async close(): Promise<void> {
    await this.drained();
    this.#closed = true;
    this.#wakeSealers();
    await this.#relocating;
    await this.#supply.close();
    const current = this.#current;
    this.#current = null;
    if (current === null) return;
    try {
      if (current.syncedSequence < current.writtenSequence) {
        await new Promise<void>((resolve, reject) => current.sync((error) => (error === null ? resolve() : reject(error))));
      }
    } finally {
      await current.close();
    }
    if (current.index.count === 0) await this.#files.drop(current.local);
  }

  #schedule(): void {
    if (this.#scheduled || this.#writing) return;
    this.#scheduled = true;
    this.#clock.soon(() => {
      this.#scheduled = false;
      this.#pump();
    });
  }

  #pump(): void {
    if (this.#closed) return;
    // Of a log that is held the seal is the last thing: it goes to the disk with what is before it, by one sync.
    if (this.#held === null) this.#sealIfWanted();
    while (!this.#writing && !this.#rotating && this.#fault === null && !this.#queue.isAllWritten) {
      const current = this.#current;
      if (current === null || current.payloadBytes >= this.#settings.segmentBytes) {
        this.#rotate();
        return;
      }
      this.#writeBatch(current);
    }
    if (this.#queue.isAllWritten) this.#sealIfWanted();
    this.#syncWhereNeeded();
  }

  #sealIfWanted(): void {
    const wanted = this.#sealWanted;
    if (wanted === null || this.#writing || this.#rotating || this.#fault !== null) return;
    this.#sealWanted = null;
    if (wanted !== this.#current) return;
    this.#current = null;
    this.#sealing.begin(wanted, this.#durableSequence);
  }

  #writeBatch(segment: OpenSegment): void {
    const queue = this.#queue;
    const end = queue.batchEnd(Math.min(BATCH_BYTES_MAX, this.#settings.segmentBytes - segment.payloadBytes));
    const startOffset = segment.writeOffset;
    const buffers = segment.encodeBatch(queue.records, queue.unwritten, end, this.#durableSequence);
    queue.handedOn(end);
    this.#lastBegun = segment.local.number;
    const lastSequence = segment.lastSequence;
    const generation = this.#faultGeneration;
    this.#writing = true;
    const told = toldToFail('log.before-write');
    if (told !== null) {
      this.#fail(told);
      return;
    }
    segment.write(startOffset, buffers, (problem) => {
      if (generation !== this.#faultGeneration) return;
      this.#writing = false;
      const error = problem ?? toldToFail('log.after-write');
      if (error !== null) {
        this.#fail(error);
        return;
      }
      segment.writtenSequence = lastSequence;
      this.#files.grow(segment.local, segment.writeOffset);
      if (this.#watcher !== null) this.#watcher();
      this.#advance();
      // A small write is done at once and the loop in #pump goes on; a large one comes back here later.
      this.#schedule();
      this.#syncWhereNeeded();
    });
    if (segment.payloadBytes > this.#settings.segmentBytes / 4 && !this.#closed) void this.#supply.prepare();
  }

  #syncWhereNeeded(): void {
    const current = this.#current;
    if (current === null || current.syncing || current.writtenSequence === current.syncedSequence || this.#fault !== null) return;
    if (this.#held !== null && this.#sealWanted === current) return;
    // Someone waits for durability exactly when the oldest unapplied record is written and stable.
    const waiting = this.#queue.firstUnapplied;
    const someoneWaits = waiting !== undefined && waiting.stable && waiting.sequence <= current.writtenSequence;
    const isWanted = current.syncedSequence < this.#syncWanted;
    if (!someoneWaits && !isWanted && !this.moving && this.#queue.unsyncedBytes < UNSYNCED_SYNC_BYTES) return;
    this.#sync(current);
  }

  #sync(segment: OpenSegment): void {
    segment.syncing = true;
    const target = segment.writtenSequence;
    const sealWritten = segment.sealWritten;
    const generation = this.#faultGeneration;
    const started = this.#clock.monotonicMs();
    segment.sync((problem) => {
      if (generation !== this.#faultGeneration) return;
      segment.syncing = false;
      const error = problem ?? toldToFail('log.after-sync');
      if (error !== null) {
        this.#fail(error);
        return;
      }
      this.#syncLatency.observe(this.#clock.monotonicMs() - started);
      segment.syncedSequence = target;
      if (sealWritten) {
        segment.sealDurable = true;
        this.#sealing.finish();
      } else if (segment.sealWritten) this.#sync(segment);
      this.#advance();
      this.#syncWhereNeeded();
    });
  }

  /** Applies and answers what is ready, in sequence. */
  #advance(): void {
    const durable = this.#sealing.durableSequence(this.#durableSequence, this.#current);
    this.#durableSequence = durable;
    this.#queue.applyReady(durable, this.#writing ? (this.#current?.writtenSequence ?? durable) : Infinity, this.#events);
    this.#queue.releaseDurable(durable);
    if (this.#queue.toRelocate.length > 0) this.#relocate();
    this.#wakeSyncers();
    this.#wakeIdle();
  }

  /** Gives moved records their new place, as often as it takes. */
  #relocate(): void {
    if (this.#relocating !== null || this.#closed) return;
    const records = this.#queue.toRelocate.slice();
    this.#relocating = this.#events.relocate(records).then(
      () => {
        this.#relocating = null;
        this.#queue.relocated(records);
        if (this.#closed) return;
        if (this.#queue.toRelocate.length > 0) this.#relocate();
        else if (!this.moving) this.#events.relocated();
      },
      (error: unknown) => {
        this.#relocating = null;
        this.#logger.warn({ err: error, object: this.#identity.objectUuid }, 'data that a fault moved cannot be entered in the extent map yet');
        this.#clock.after(RETRY_AFTER_FAULT_MS, () => this.#relocate());
      },
    );
  }

  #wakeIdle(): void {
    if (this.#idleWaiters.length === 0 || (!this.#quiet && this.#fault === null)) return;
    const waiters = this.#idleWaiters;
    this.#idleWaiters = [];
    for (const wake of waiters) wake();
  }

  /** Seals the full segment and goes on in the next one, which was usually prepared in time. */
  #rotate(): void {
    this.#rotating = true;
    const full = this.#current;
    const generation = this.#faultGeneration;
    const started = this.#clock.monotonicMs();
    const take = (): void => {
      if (generation !== this.#faultGeneration || this.#closed) return;
      this.#supply.take().then(
        (next) => {
          if (generation !== this.#faultGeneration || this.#closed) return;
          this.#supply.ended();
          this.#rotating = false;
          this.#blocked = null;
          this.#current = this.#begin(next);
          if (full !== null) this.#sealing.begin(full, this.#durableSequence);
          this.#pump();
        },
        (error: unknown) => {
          if (generation !== this.#faultGeneration || this.#closed) return;
          this.#supply.ended();
          // A full disk usually gets room when segments are uploaded: records wait. After a while they are refused, and so are new ones.
          if (this.#clock.monotonicMs() - started > this.#settings.patienceMs || !isFull(error)) this.#refuseUnwritten(error as Error);
          this.#clock.after(RETRY_PREPARE_MS, take);
        },
      );
    };
    take();
  }

  /** No segment can be begun: what is not written is answered with the reason. What is written is safe where it is. */
  #refuseUnwritten(error: Error): void {
    if (this.#blocked === null)
      this.#logger.error({ err: error, object: this.#identity.objectUuid }, 'no new segment can be begun; writes are refused until one can');
    this.#blocked = error;
    this.#wakeSealers();
    this.#queue.refuseUnwritten(error);
    this.#wakeIdle();
  }

  #begin(prepared: PreparedSegment): OpenSegment {
    const baseSequence = (this.#queue.firstUnwritten?.sequence ?? this.#queue.nextSequence) || 1;
    this.#events.opened(prepared.segment);
    return this.#supply.begin(prepared, baseSequence);
  }

  #sealed(segment: OpenSegment): void {
    this.#advance();
    this.#events.sealed(segment.local, segment.writeOffset, segment.lastSequence);
    this.#watcher?.();
    this.#wakeSealers();
    this.#wakeIdle();
  }

  /**
   * A write or sync failed: nothing is known of these files beyond the last good sync. They are left alone; everything that is not durable is
   * still in memory and goes into a new segment once the disk takes it. Until then nothing is acknowledged and new writes are refused.
   */
  #fail(error: Error): void {
    this.#faultGeneration += 1;
    this.#fault = error;
    this.#writing = false;
    this.#rotating = false;
    this.#sealWanted = null;
    this.#syncWanted = 0;
    // A segment on its way is the next one: numbers have no gaps.
    this.#supply.putBack();
    const damaged = this.#sealing.takeUnsealed();
    if (this.#current !== null) damaged.push(this.#current);
    this.#current = null;
    this.#logger.error(
      { err: error, object: this.#identity.objectUuid, durableSequence: this.#durableSequence },
      'writing the log failed; it continues in a new segment',
    );
    for (const segment of damaged) {
      segment.close().catch((closing: unknown) => this.#logger.warn({ err: closing, file: segment.local.path }, 'closing a failed segment failed'));
    }
    const { kept, refused } = this.#queue.startOver(this.#durableSequence);
    for (const record of refused) record.answer(error);
    this.#events.fault(
      damaged.map((segment) => segment.local),
      this.#durableSequence,
      kept,
    );
    if (!this.moving) this.#events.relocated();
    this.#renewVerifier(this.#faultGeneration);
    this.#watcher?.();
    this.#wakeSealers();
    this.#wakeIdle();
  }

  #renewVerifier(generation: number): void {
    if (generation !== this.#faultGeneration || this.#closed) return;
    this.#events.renewVerifier().then(
      () => this.#resume(generation),
      (failure: unknown) => {
        this.#logger.error(
          { err: failure, object: this.#identity.objectUuid },
          'the fault of the log could not be recorded; the object stays read-only until it can',
        );
        this.#clock.after(RETRY_AFTER_FAULT_MS, () => this.#renewVerifier(generation));
      },
    );
  }

  /** Tries a new segment; goes on when there is one. */
  #resume(generation: number): void {
    if (generation !== this.#faultGeneration || this.#closed) return;
    this.#supply.prepare().then(
      (prepared) => {
        // Closed meanwhile: `close` has it.
        if (generation !== this.#faultGeneration || this.#closed) return;
        this.#supply.ended();
        this.#fault = null;
        this.#current = this.#begin(prepared);
        this.#logger.info({ object: this.#identity.objectUuid, segment: prepared.segment.number }, 'the log continues in a new segment');
        this.#pump();
      },
      (error: unknown) => {
        if (generation !== this.#faultGeneration || this.#closed) return;
        this.#supply.ended();
        this.#fault = error as Error;
        this.#clock.after(RETRY_AFTER_FAULT_MS, () => this.#resume(generation));
      },
    );
  }
}

function isFull(error: unknown): boolean {
  return errorCode(error) === 'ENOSPC';
}
