/**
 * The log of one object: the segment on the SSD is the write-ahead log, there is no second write (design section 6).
 *
 * Records get one continuous sequence. They are written in order, several per write; a sync covers what was written before it began, and the
 * next batch is written while it runs. A record is applied (`apply`) and answered (`done`) strictly in sequence: a stable one when every
 * record up to it is durable, an unstable one when it is written. What is not durable stays in memory, so that a failed write or sync can be
 * made good in a new segment: the failed file is never synced again.
 *
 * Not here: what records mean (the driver), uploading, recovery after a restart (`recovery.ts`).
 */
import { crc32 } from 'node:zlib';

import type { ClosedEpoch } from '../../registry/ports.ts';
import { assert } from '../core/assert.ts';
import { ApplianceError, errorCode } from '../core/errors.ts';
import { failPoint } from '../core/fail-points.ts';
import type { FailPoint } from '../core/fail-points.ts';
import type { Histogram } from '../core/histogram.ts';
import type { ObjectUuid, Term } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import type { Clock, Random } from '../core/time.ts';
import { LogRecord } from './log-record.ts';
import { OpenSegment } from './open-segment.ts';
import {
  encodeFooter,
  encodeRecordHead,
  encodeSegmentHeader,
  RecordKind,
  recordHeadBytes,
  SEAL_FOOTER_BYTES,
  SEGMENT_HEADER_BYTES,
} from './segment-codec.ts';
import type { LocalSegment, PreparedSegment, SegmentFiles } from './segment-files.ts';

/** Most bytes of one write to the segment. */
const BATCH_BYTES_MAX = 4 * 1024 * 1024;
/** Un-synced bytes of unstable records at which a sync starts by itself. */
const UNSYNCED_SYNC_BYTES = 8 * 1024 * 1024;
/** Un-synced bytes at which unstable records wait like stable ones: they are all kept in memory. */
const UNSYNCED_BYTES_MAX = 64 * 1024 * 1024;
/** Batches up to this size fill a hole file ahead of themselves; larger ones allocate enough at a time. */
const SMALL_BATCH_BYTES_MAX = 256 * 1024;
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

export interface LogEvents {
  /** Makes a record's effect visible. Called once for each, in sequence. */
  apply(record: LogRecord): void;
  /** A segment is complete: index and footer are durable. */
  sealed(segment: LocalSegment, totalBytes: number, lastSequence: number): void;
  /** A new segment begins: the driver gives it a row in its segment table before any record of it is applied. */
  opened(segment: LocalSegment): void;
  /**
   * A write or sync failed. `damaged` segments hold records up to `durableSequence` and must be sealed by copy, once `relocated` was called. `kept`
   * will be written again in a new segment: those that are `moved` were applied already and keep their effect, the others are applied then.
   */
  fault(damaged: readonly LocalSegment[], durableSequence: number, kept: readonly LogRecord[]): void;
  /** After a fault, data answered UNSTABLE may be gone: resolves when the object has a new write verifier. Called again when it rejects. */
  renewVerifier(): Promise<void>;
  /** Records that a fault moved are durable in their new place: what still shows the former one must show that. Called again when it rejects. */
  relocate(records: readonly LogRecord[]): Promise<void>;
  /** Nothing refers to the damaged segments of a fault any more but for records up to its `durableSequence`. */
  relocated(): void;
}

export class ObjectLog {
  readonly #files: SegmentFiles;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #logger: Logger;
  readonly #syncLatency: Histogram;
  readonly #events: LogEvents;
  readonly #settings: ObjectLogSettings;
  readonly #identity: { vpoolUuid: string; objectUuid: ObjectUuid; term: Term; cut: ClosedEpoch | null };

  /** Everything not durable, in order; [0, #applied) is applied. */
  #records: LogRecord[] = [];
  #head = 0;
  #applied = 0;
  /** First record not handed to a write yet. */
  #unwritten = 0;
  #nextSequence: number;
  readonly #firstSegment: number;
  #nextSegment: number;
  #lastBegun: number;
  #durableSequence: number;
  #current: OpenSegment | null = null;
  #older: OpenSegment[] = [];
  #prepared: Promise<PreparedSegment> | null = null;
  /** The prepared segment that a rotation waits for. */
  #taken: Promise<PreparedSegment> | null = null;
  /** The segment that `seal` wants sealed although it is not full. */
  #sealWanted: OpenSegment | null = null;
  /** Moved records that are durable in their new place. */
  #toRelocate: LogRecord[] = [];
  #relocating: Promise<void> | null = null;
  #writing = false;
  #scheduled = false;
  #unsyncedBytes = 0;
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

  constructor(
    components: { files: SegmentFiles; clock: Clock; random: Random; logger: Logger; syncLatency: Histogram; events: LogEvents },
    identity: { vpoolUuid: string; objectUuid: ObjectUuid; term: Term; cut: ClosedEpoch | null },
    settings: ObjectLogSettings,
    start: { nextSegment: number; nextSequence: number },
  ) {
    this.#files = components.files;
    this.#clock = components.clock;
    this.#random = components.random;
    this.#logger = components.logger;
    this.#syncLatency = components.syncLatency;
    this.#events = components.events;
    this.#identity = identity;
    this.#settings = settings;
    this.#firstSegment = start.nextSegment;
    this.#nextSegment = start.nextSegment;
    this.#lastBegun = start.nextSegment - 1;
    this.#nextSequence = start.nextSequence;
    this.#durableSequence = start.nextSequence - 1;
  }

  /** Sequence of the last record that was appended, and of the last that is durable. */
  get lastSequence(): number {
    return this.#nextSequence - 1;
  }
  get durableSequence(): number {
    return this.#durableSequence;
  }
  /** Number of the segment that holds, or will hold, the first record that is not applied. */
  get nextAppliedSegment(): number {
    const record = this.#records[this.#applied];
    if (record !== undefined && this.#applied < this.#unwritten) return record.segmentNumber;
    return this.#current?.local.number ?? this.#lastBegun + 1;
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
    return (
      this.#unwritten === this.#records.length &&
      this.#applied === this.#unwritten &&
      this.#older.length === 0 &&
      (!this.#rotating || this.#blocked !== null)
    );
  }
  /** Faults so far: who waited for a segment compares. */
  get faults(): number {
    return this.#faultGeneration;
  }
  /** Records that a fault moved have not all got their new place: the map refers to a damaged segment. */
  get moving(): boolean {
    return this.#toRelocate.length > 0 || this.#records[this.#head]?.moved === true;
  }

  /** Records that are appended but not applied, newest last: for read-modify-write of a block. */
  *pendingNewestFirst(): Iterable<LogRecord> {
    const from = this.moving ? this.#head : this.#applied;
    for (let index = this.#records.length - 1; index >= from; index -= 1) yield this.#records[index] as LogRecord;
    for (let index = this.#toRelocate.length - 1; index >= 0; index -= 1) yield this.#toRelocate[index] as LogRecord;
  }
  /** False: `pendingNewestFirst` has nothing. */
  get hasPending(): boolean {
    return this.#records.length > this.#applied || this.moving;
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
    if (this.#current?.local.number === number) return true;
    for (let index = 0; index < this.#older.length; index += 1) if (this.#older[index]?.local.number === number) return true;
    return false;
  }

  /** Appends a record; its `done` is called when it is answered. Throws the fault while the log is out of order. */
  append(record: LogRecord): void {
    if (this.#held !== null) throw this.#held;
    const problem = this.problem ?? this.#files.gone;
    if (problem !== null) throw problem;
    if (this.#closed) throw new ApplianceError('object-closing', 'the object is being closed', { retryable: true });
    record.sequence = this.#nextSequence;
    this.#nextSequence += 1;
    if (this.#unsyncedBytes > UNSYNCED_BYTES_MAX) record.stable = true;
    this.#unsyncedBytes += record.payloadBytes;
    this.#records.push(record);
    this.#schedule();
  }

  /** Begins to make the next segment's file, which the next record would have to wait for. `made`: it is being made already; it is the log's from here on. */
  prepareAhead(made: Promise<PreparedSegment> | null = null): void {
    if (this.#current === null && this.#prepared === null && !this.#rotating && !this.#closed) this.#prepared = this.#prepareNext(made);
    else assert(made === null, 'a segment is made ahead for a log that has not begun one');
  }

  /** Of the next segment whose file is to be made. */
  get nextSegment(): number {
    return this.#nextSegment;
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
      (this.#current?.index.count === 0 || (this.#current?.local.number ?? Infinity) > last) &&
      !this.#older.some((segment) => segment.local.number <= last);
    while (faults === this.#faultGeneration && this.problem === null && !this.#closed && !isSealed()) {
      await new Promise<void>((resolve) => this.#sealWaiters.push(resolve));
    }
  }

  #wakeSealers(): void {
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
    const prepared = await (this.#prepared ?? this.#taken)?.catch(() => null);
    this.#prepared = this.#taken = null;
    if (prepared !== undefined && prepared !== null) {
      await prepared.file.close();
      await this.#files.drop(prepared.segment);
    }
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
    while (!this.#writing && !this.#rotating && this.#fault === null && this.#unwritten < this.#records.length) {
      const current = this.#current;
      if (current === null || current.payloadBytes >= this.#settings.segmentBytes) {
        this.#rotate();
        return;
      }
      this.#writeBatch(current);
    }
    if (this.#unwritten === this.#records.length) this.#sealIfWanted();
    this.#syncWhereNeeded();
  }

  #sealIfWanted(): void {
    const wanted = this.#sealWanted;
    if (wanted === null || this.#writing || this.#rotating || this.#fault !== null) return;
    this.#sealWanted = null;
    if (wanted !== this.#current) return;
    this.#current = null;
    this.#startSeal(wanted);
  }

  #writeBatch(segment: OpenSegment): void {
    const term = this.#identity.term;
    const first = this.#unwritten;
    let end = first;
    let headBytes = 0;
    let payloadBytes = 0;
    while (end < this.#records.length && payloadBytes < BATCH_BYTES_MAX && segment.payloadBytes + payloadBytes < this.#settings.segmentBytes) {
      const record = this.#records[end] as LogRecord;
      headBytes += recordHeadBytes(record);
      payloadBytes += record.payloadBytes;
      end += 1;
    }
    const heads = Buffer.allocUnsafe(headBytes);
    const buffers: Uint8Array[] = segment.writeOffset === 0 ? [segment.header] : [];
    let offset = segment.writeOffset === 0 ? SEGMENT_HEADER_BYTES : segment.writeOffset;
    const startOffset = segment.writeOffset;
    let headAt = 0;
    for (let index = first; index < end; index += 1) {
      const record = this.#records[index] as LogRecord;
      const payloadCrc = record.times === null ? 0 : crc32(record.times);
      const headEnd = encodeRecordHead(heads, headAt, record, term, segment.salt, this.#durableSequence, payloadCrc);
      buffers.push(heads.subarray(headAt, headEnd));
      offset += headEnd - headAt;
      headAt = headEnd;
      record.segmentNumber = segment.local.number;
      record.payloadOffset = offset;
      const chunks = record.chunks;
      for (let chunk = 0; chunk < chunks.length; chunk += 1) buffers.push(chunks[chunk] as Uint8Array);
      offset += record.payloadBytes;
      segment.index.add(record, record.payloadOffset, record.times);
      segment.lastSequence = record.sequence;
    }
    if (payloadBytes <= SMALL_BATCH_BYTES_MAX) {
      const zeros = segment.zerosBehind(offset);
      if (zeros !== null) buffers.push(zeros);
    }
    this.#unwritten = end;
    this.#lastBegun = segment.local.number;
    segment.writeOffset = offset;
    segment.payloadBytes += payloadBytes;
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
    if (segment.payloadBytes > this.#settings.segmentBytes / 4 && this.#prepared === null && !this.#closed) this.#prepared = this.#prepareNext();
  }

  #syncWhereNeeded(): void {
    const current = this.#current;
    if (current === null || current.syncing || current.writtenSequence === current.syncedSequence || this.#fault !== null) return;
    if (this.#held !== null && this.#sealWanted === current) return;
    // Someone waits for durability exactly when the oldest unapplied record is written and stable.
    const waiting = this.#records[this.#applied];
    const someoneWaits = waiting !== undefined && waiting.stable && waiting.sequence <= current.writtenSequence;
    if (!someoneWaits && !this.moving && this.#unsyncedBytes < UNSYNCED_SYNC_BYTES) return;
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
        this.#finishSeals();
      } else if (segment.sealWritten) this.#sync(segment);
      this.#advance();
      this.#syncWhereNeeded();
    });
  }

  /** Applies and answers what is ready, in sequence. */
  #advance(): void {
    let durable = this.#durableSequence;
    let complete = true;
    for (const segment of this.#older) {
      durable = Math.max(durable, segment.syncedSequence);
      if (segment.syncedSequence < segment.lastSequence) {
        complete = false;
        break;
      }
    }
    if (complete && this.#current !== null) durable = Math.max(durable, this.#current.syncedSequence);
    this.#durableSequence = durable;
    while (this.#applied < this.#unwritten) {
      const record = this.#records[this.#applied] as LogRecord;
      if (record.stable ? record.sequence > durable : this.#writing && record.sequence > this.#writtenSequence()) break;
      this.#applied += 1;
      this.#events.apply(record);
      const done = record.done;
      record.done = null;
      if (done !== null) done(null);
    }
    while (this.#head < this.#applied) {
      const record = this.#records[this.#head] as LogRecord;
      if (record.sequence > durable) break;
      this.#unsyncedBytes -= record.payloadBytes;
      if (record.moved) this.#toRelocate.push(record);
      else record.release();
      this.#head += 1;
    }
    if (this.#toRelocate.length > 0) this.#relocate();
    if (this.#head === this.#records.length) {
      this.#records = [];
      this.#head = this.#applied = this.#unwritten = 0;
    } else if (this.#head > 512) {
      this.#records.splice(0, this.#head);
      this.#applied -= this.#head;
      this.#unwritten -= this.#head;
      this.#head = 0;
    }
    this.#wakeIdle();
  }

  #writtenSequence(): number {
    return this.#current?.writtenSequence ?? this.#durableSequence;
  }

  /** Gives moved records their new place, as often as it takes. */
  #relocate(): void {
    if (this.#relocating !== null || this.#closed) return;
    const records = this.#toRelocate.slice();
    this.#relocating = this.#events.relocate(records).then(
      () => {
        this.#relocating = null;
        this.#toRelocate.splice(0, records.length);
        for (const record of records) record.release();
        if (this.#closed) return;
        if (this.#toRelocate.length > 0) this.#relocate();
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
      const prepared = this.#prepared ?? this.#prepareNext();
      this.#prepared = null;
      this.#taken = prepared;
      prepared.then(
        (next) => {
          if (generation !== this.#faultGeneration || this.#closed) return;
          this.#taken = null;
          this.#rotating = false;
          this.#blocked = null;
          this.#current = this.#begin(next);
          if (full !== null) this.#startSeal(full);
          this.#pump();
        },
        (error: unknown) => {
          if (generation !== this.#faultGeneration || this.#closed) return;
          this.#taken = null;
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
    const refused = this.#records.splice(this.#unwritten);
    const first = refused[0];
    if (first === undefined) return;
    this.#nextSequence = first.sequence;
    for (const record of refused) {
      this.#unsyncedBytes -= record.payloadBytes;
      const done = record.done;
      record.done = null;
      if (done !== null) done(error);
    }
    this.#wakeIdle();
  }

  #prepareNext(made: Promise<PreparedSegment> | null = null): Promise<PreparedSegment> {
    const number = this.#nextSegment;
    this.#nextSegment += 1;
    const prepared = made ?? this.#files.prepare(this.#identity.objectUuid, number, this.#identity.term, this.#settings.preallocate);
    // Numbers have no gaps: what could not be prepared gives its number back. Whoever takes the segment sees the rejection.
    prepared.catch(() => {
      this.#nextSegment = number;
      if (this.#prepared === prepared) this.#prepared = null;
    });
    return prepared;
  }

  #begin(prepared: PreparedSegment): OpenSegment {
    const salt = this.#random.bytes(4).readUInt32LE(0);
    const baseSequence = (this.#records[this.#unwritten]?.sequence ?? this.#nextSequence) || 1;
    const cut = this.#identity.cut;
    const header = encodeSegmentHeader({
      vpoolUuid: this.#identity.vpoolUuid,
      objectUuid: this.#identity.objectUuid,
      term: this.#identity.term,
      number: prepared.segment.number,
      salt,
      baseSequence,
      createdWallMs: this.#clock.wallMs(),
      cut: cut === null ? null : { term: cut.term, lastSegment: cut.lastSegment, lastSequence: cut.lastSequence },
    });
    this.#events.opened(prepared.segment);
    return new OpenSegment(prepared, salt, header, baseSequence, this.#clock.monotonicMs());
  }

  #startSeal(segment: OpenSegment): void {
    this.#older.push(segment);
    const told = toldToFail('log.before-seal');
    if (told !== null) {
      this.#fail(told);
      return;
    }
    const payload = Buffer.from(segment.index.payload());
    const head = Buffer.allocUnsafe(recordHeadBytes({ kind: RecordKind.SEAL, flags: 0, blockCount: 0 }));
    const seal = new LogRecord(RecordKind.SEAL, 0, segment.index.count, null, [payload], payload.length, null);
    // The seal is not a record of the object: it repeats the last sequence.
    seal.sequence = segment.lastSequence;
    encodeRecordHead(head, 0, seal, this.#identity.term, segment.salt, this.#durableSequence, crc32(payload));
    const indexOffset = segment.writeOffset + head.length;
    const totalBytes = indexOffset + payload.length + SEAL_FOOTER_BYTES;
    const footer = encodeFooter(
      {
        sealOffset: segment.writeOffset,
        indexOffset,
        indexBytes: payload.length,
        entryCount: segment.index.count,
        lastSequence: segment.lastSequence,
        totalBytes,
      },
      segment.salt,
    );
    const generation = this.#faultGeneration;
    segment.write(segment.writeOffset, [head, payload, footer], (error) => {
      if (generation !== this.#faultGeneration) return;
      if (error !== null) {
        this.#fail(error);
        return;
      }
      segment.writeOffset = totalBytes;
      segment.sealWritten = true;
      if (!segment.syncing) this.#sync(segment);
    });
  }

  /**
   * In their order, however the disk answers: a segment whose records follow on some that a fault may still take back is not sealed, and one that was forgotten
   * before those are durable would never be known to be.
   */
  #finishSeals(): void {
    for (const segment of [...this.#older]) {
      if (segment.sealed) continue;
      if (!segment.sealDurable || this.#fault !== null) return;
      this.#finishSeal(segment);
    }
  }

  #finishSeal(segment: OpenSegment): void {
    const told = toldToFail('log.after-seal');
    if (told !== null) {
      this.#fail(told);
      return;
    }
    segment.sealed = true;
    this.#advance();
    void this.#closeSealed(segment);
  }

  /** The seal is durable: what happens to the file from here on is no fault of the log. */
  async #closeSealed(segment: OpenSegment): Promise<void> {
    try {
      // The seal is found with or without the unused tail of the file; cutting it costs a journal commit, so only a large one is cut.
      if (this.#files.isWasteful(segment.writeOffset)) await segment.file.truncate(segment.writeOffset);
    } catch (error) {
      this.#logger.warn({ err: error, file: segment.local.path }, 'cutting a sealed segment to its size failed');
    }
    try {
      await segment.close();
    } catch (error) {
      this.#logger.warn({ err: error, file: segment.local.path }, 'closing a sealed segment failed');
    }
    this.#files.grow(segment.local, segment.writeOffset);
    this.#older = this.#older.filter((other) => other !== segment);
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
    // A segment on its way is the next one: numbers have no gaps.
    this.#prepared ??= this.#taken;
    this.#taken = null;
    const damaged = this.#older.filter((segment) => !segment.sealed);
    if (this.#current !== null) damaged.push(this.#current);
    this.#older = this.#older.filter((segment) => segment.sealed);
    this.#current = null;
    this.#logger.error(
      { err: error, object: this.#identity.objectUuid, durableSequence: this.#durableSequence },
      'writing the log failed; it continues in a new segment',
    );
    for (const segment of damaged) {
      segment.close().catch((closing: unknown) => this.#logger.warn({ err: closing, file: segment.local.path }, 'closing a failed segment failed'));
    }
    // Whoever waits for durability learns now that it did not come; what was answered UNSTABLE, or is yet to be, stays and is written again.
    const kept: LogRecord[] = [];
    const refused: LogRecord[] = [];
    let moved = 0;
    for (let index = this.#head; index < this.#records.length; index += 1) {
      const record = this.#records[index] as LogRecord;
      if (record.sequence <= this.#durableSequence) continue;
      if (index < this.#applied) {
        if (!record.moved) record.move();
        kept.push(record);
        moved += 1;
      } else if (record.stable) refused.push(record);
      else kept.push(record);
    }
    this.#records = kept;
    this.#head = 0;
    this.#applied = moved;
    this.#unwritten = 0;
    this.#unsyncedBytes = kept.reduce((sum, record) => sum + record.payloadBytes, 0);
    this.#nextSequence = this.#durableSequence + 1;
    for (const record of kept) {
      record.sequence = this.#nextSequence;
      record.stable = true;
      this.#nextSequence += 1;
    }
    for (const record of refused) {
      const done = record.done;
      record.done = null;
      if (done !== null) done(error);
    }
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
    const attempt = this.#prepared ?? this.#prepareNext();
    this.#prepared = attempt;
    attempt.then(
      (prepared) => {
        // Closed meanwhile: `close` has it.
        if (generation !== this.#faultGeneration || this.#closed) return;
        this.#prepared = null;
        this.#fault = null;
        this.#current = this.#begin(prepared);
        this.#logger.info({ object: this.#identity.objectUuid, segment: prepared.segment.number }, 'the log continues in a new segment');
        this.#pump();
      },
      (error: unknown) => {
        if (generation !== this.#faultGeneration || this.#closed) return;
        this.#prepared = null;
        this.#fault = error as Error;
        this.#clock.after(RETRY_AFTER_FAULT_MS, () => this.#resume(generation));
      },
    );
  }
}

function isFull(error: unknown): boolean {
  return errorCode(error) === 'ENOSPC';
}

/** A fail point of the log: being told to fail is a fault of the disk. */
function toldToFail(name: FailPoint): Error | null {
  try {
    failPoint(name);
    return null;
  } catch (error) {
    return error as Error;
  }
}
