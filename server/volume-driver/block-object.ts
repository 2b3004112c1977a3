/**
 * A block device of one object over its log, extent map and stores: reads, writes, commit, resize (design section 6). It serves volumes and,
 * with another write-back, files. One owner, one thread: state changes happen between awaits, so there are no locks but the ones below.
 *
 * Visibility: a write enters the extent map when it is answered, never before; a READ never shows what can vanish. Order: records are applied in
 * the sequence of the log. Blocks that a write covers in part are read, modified and written under a lock of their range.
 */
import type { BlockCache } from '../../cache/block-cache.ts';
import { assert } from '../core/assert.ts';
import type { ObjectUuid, Term } from '../core/ids.ts';
import { isPending } from '../core/maybe-promise.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import { laterThan } from '../core/time.ts';
import type { Timestamp } from '../core/time.ts';
import type { LocalSegment } from '../object-log/local-segment.ts';
import { LogRecord } from '../object-log/log-record.ts';
import type { ObjectLog } from '../object-log/object-log.ts';
import { BLOCK_BYTES, encodeTimes, RecordFlag, RecordKind } from '../object-log/segment-codec.ts';
import { AppliedState } from './applied-state.ts';
import type { BlockObjectState, ObjectAttributes } from './applied-state.ts';
import { BlockContents } from './block-contents.ts';
import type { BlockReader } from './block-reader.ts';
import type { ExtentMap } from './extent-map.ts';
import { RangeLocks } from './range-locks.ts';
import type { RangeLock } from './range-locks.ts';
import type { ReadAhead } from './read-ahead.ts';
import { SegmentRows } from './segment-rows.ts';
import type { SegmentTable } from './segment-table.ts';
import { Truncation } from './truncation.ts';
import type { WriteAdmission } from './write-admission.ts';
import type { WritePace } from './write-pace.ts';
import { planBlocks } from './write-plan.ts';

/** Why a change was not made. `error` says more. */
export interface Refusal {
  readonly kind: 'refused';
  readonly error: Error;
}

export interface Changed {
  readonly kind: 'changed';
  readonly before: ObjectAttributes;
  readonly after: ObjectAttributes;
  /** Whether it is durable at its tier. */
  readonly stable: boolean;
}

export interface BlockObjectHooks {
  /** Confirms in the registry that the object has data that only this router holds; before the first answer after it was clean. */
  confirmUnprotected(): MaybePromise<void>;
  /** These blocks were written or dropped. */
  touched(startBlock: number, blockCount: number): void;
  /** The change of this call is durable and visible, and it will be answered when something else has ended, too: by then its name may be behind a seal (decision 0035). */
  logged(call: Uint32Array): void;
}

export class BlockObject {
  readonly uuid: ObjectUuid;
  readonly term: Term;
  readonly map: ExtentMap;
  readonly table: SegmentTable;
  /** Closed before the map is. */
  readonly readAhead: ReadAhead;
  readonly #admission: WriteAdmission;
  readonly #hooks: BlockObjectHooks;
  readonly #patienceMs: number;
  #log: ObjectLog | null = null;
  /** While the log is copied to another router. */
  #pace: WritePace | null = null;

  readonly #rows: SegmentRows;
  readonly #applied: AppliedState;
  readonly #contents: BlockContents;
  /** Size and time after everything that was appended. */
  #pendingSizeBytes: number;
  #lastTime: Timestamp;
  /** A COMMIT has something to do. */
  #unstableOpen: boolean;
  /** An UNSTABLE record is in the log, or on its way before all that follow, with no COMMIT behind it: a recovery will see it. */
  #windowOpen: boolean;
  /** The COMMIT under way. */
  #committing: Promise<null | Refusal> | null = null;
  readonly #locks = new RangeLocks();
  /** Shrinks that are durable and whose blocks are still to be dropped. */
  readonly #truncation: Truncation;

  constructor(
    components: {
      map: ExtentMap;
      table: SegmentTable;
      reader: BlockReader;
      readAhead: ReadAhead;
      cache: BlockCache;
      admission: WriteAdmission;
      hooks: BlockObjectHooks;
    },
    identity: { uuid: ObjectUuid; term: Term },
    state: BlockObjectState,
    appliedSequence: number,
    settings: { patienceMs: number },
  ) {
    this.uuid = identity.uuid;
    this.term = identity.term;
    this.map = components.map;
    this.table = components.table;
    this.readAhead = components.readAhead;
    this.#admission = components.admission;
    this.#hooks = components.hooks;
    this.#patienceMs = settings.patienceMs;
    this.#rows = new SegmentRows(components.table);
    this.#applied = new AppliedState({ ...components, rows: this.#rows, events: components.hooks }, state, appliedSequence);
    this.#contents = new BlockContents({ ...components, applied: this.#applied }, identity.uuid);
    this.#truncation = new Truncation(components.map);
    this.#pendingSizeBytes = state.sizeBytes;
    this.#lastTime = state.ctime;
    this.#unstableOpen = state.unstableOpen;
    this.#windowOpen = state.unstableOpen;
  }

  /** The log is made after the object, since it calls the object back. */
  attachLog(log: ObjectLog): void {
    this.#log = log;
    this.#contents.attachLog(log);
  }

  get attributes(): ObjectAttributes {
    return this.#applied.attributes;
  }
  get usedBytes(): number {
    return this.map.mappedBlocks * BLOCK_BYTES;
  }
  /** Sequence up to which the extent map and the attributes are: always a prefix of the log. */
  get appliedSequence(): number {
    return this.#applied.sequence;
  }
  /** Whether the applied prefix of the log ends with UNSTABLE data and no COMMIT behind it: what a checkpoint of it must say. */
  get appliedUnstableOpen(): boolean {
    return this.#applied.unstableOpen;
  }
  /** True while a shrink is between its record and the extent map: no checkpoint may begin. */
  get busy(): boolean {
    return this.#locks.exclusive || this.#truncation.isPending;
  }

  /** Writes wait for `pace` before they begin; null: for nothing. Who has them wait lets them go, too. */
  paceWrites(pace: WritePace | null): void {
    this.#pace = pace;
  }

  /** Nothing is appended for a while: who waits for room to write is told so by the log now, not when there is room. */
  held(): void {
    this.#admission.excuse(this);
  }

  /** ctime and such that the registry made for this object: times never run back. */
  observeTime(time: Timestamp): void {
    this.#lastTime = laterThan(this.#lastTime, time);
    this.#applied.observeTime(time);
  }

  /**
   * Reads into `target` from `offsetBytes`; returns the bytes read, short only at the end. Synchronous when everything is in RAM.
   * Rejects as BlockReader.fetch does.
   */
  read(offsetBytes: number, target: Buffer): MaybePromise<number> {
    return this.#contents.read(offsetBytes, target);
  }

  /** Gives the memory of the map back, once nothing uses it: also not a load of pages that nobody waits for any more. */
  async close(): Promise<void> {
    await this.readAhead.close();
    await this.#contents.loadsEnded();
    this.map.close();
  }

  /**
   * Writes the `countBytes` of `chunks`. Resolves when they are durable (`stable`) or appended; `Changed.stable` says which.
   * The chunks belong to the object from now on. `countBytes` > 0. `call`: who recovers the log learns that this call was done.
   */
  write(
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stable: boolean,
    now: Timestamp,
    call: Uint32Array | null = null,
  ): Promise<Changed | Refusal> {
    const first = Math.floor(offsetBytes / BLOCK_BYTES);
    const last = Math.floor((offsetBytes + countBytes - 1) / BLOCK_BYTES);
    if ((this.#pace === null || this.#pace.isOpen) && !this.busy && !this.#locks.isLocked(first, last) && this.#admission.isOpen) {
      const confirmed = this.#hooks.confirmUnprotected();
      if (!isPending(confirmed)) {
        const blocks = this.#contents.wholeBlocksInRam(offsetBytes, countBytes, chunks, first, last);
        if (blocks !== null) {
          const pinned = this.map.pin(first, last - first + 1);
          if (!isPending(pinned)) return this.#append(first, last, blocks, offsetBytes + countBytes, stable, now, call);
          return this.#writeWhenPinned(pinned, first, last, blocks, offsetBytes + countBytes, stable, now, call);
        }
      }
    }
    return this.#writeSlowly(offsetBytes, countBytes, chunks, first, last, stable, now, call);
  }

  async #writeWhenPinned(
    pinned: Promise<void>,
    first: number,
    last: number,
    blocks: readonly Uint8Array[],
    endBytes: number,
    stable: boolean,
    now: Timestamp,
    call: Uint32Array | null,
  ): Promise<Changed | Refusal> {
    const lock = this.#locks.lock(first, last);
    try {
      await pinned;
      await this.#confirmed(first, last - first + 1);
      return this.#appendUnlocking(lock, first, last, blocks, endBytes, stable, now, call);
    } catch (error) {
      lock.release();
      return { kind: 'refused', error: error as Error };
    }
  }

  /**
   * Waits until the registry knows that the object has data which only this router holds, and appends may follow in the same turn: what was confirmed
   * before a wait may have been taken back. Gives the pins of a range back when it fails.
   */
  async #confirmed(pinnedBlock = 0, pinnedCount = 0): Promise<void> {
    try {
      for (let pending = this.#hooks.confirmUnprotected(); isPending(pending); pending = this.#hooks.confirmUnprotected()) await pending;
    } catch (error) {
      if (pinnedCount > 0) this.map.unpin(pinnedBlock, pinnedCount);
      throw error;
    }
  }

  #appendUnlocking(
    lock: RangeLock,
    first: number,
    last: number,
    blocks: readonly Uint8Array[],
    endBytes: number,
    stable: boolean,
    now: Timestamp,
    call: Uint32Array | null,
  ): Promise<Changed | Refusal> {
    const result = this.#append(first, last, blocks, endBytes, stable, now, call);
    lock.release();
    return result;
  }

  async #writeSlowly(
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    first: number,
    last: number,
    stable: boolean,
    now: Timestamp,
    call: Uint32Array | null,
  ): Promise<Changed | Refusal> {
    const paced = this.#pace?.pass(countBytes);
    if (paced !== undefined) await paced;
    const admitted = this.#admission.admit(this, countBytes, this.#patienceMs);
    if (!(isPending(admitted) ? await admitted : admitted)) return { kind: 'refused', error: new OverloadedError() };
    let lock: RangeLock | null = null;
    try {
      await this.#hooks.confirmUnprotected();
      lock = await this.#locks.lockWhenFree(first, last);
      await this.#truncation.finish();
      const blocks =
        this.#contents.wholeBlocksInRam(offsetBytes, countBytes, chunks, first, last) ??
        (await this.#contents.wholeBlocks(offsetBytes, countBytes, chunks, first, last));
      await this.map.pin(first, last - first + 1);
      await this.#confirmed(first, last - first + 1);
      const held = lock;
      lock = null;
      return await this.#appendUnlocking(held, first, last, blocks, offsetBytes + countBytes, stable, now, call);
    } catch (error) {
      return { kind: 'refused', error: error as Error };
    } finally {
      lock?.release();
    }
  }

  /** Appends whole blocks whose pages are pinned. The pins are given back when the last record is answered. */
  #append(
    first: number,
    last: number,
    blocks: readonly Uint8Array[],
    endBytes: number,
    stable: boolean,
    now: Timestamp,
    call: Uint32Array | null = null,
  ): Promise<Changed | Refusal> {
    const count = last - first + 1;
    const records = planBlocks(first, count, blocks);
    nameCall(records.at(-1), call);
    // The first UNSTABLE write after a COMMIT is made durable with its mark: from then on a recovery knows that un-synced data may be missing.
    const answeredStable = stable || !this.#windowOpen;
    if (!stable) this.#unstableOpen = this.#windowOpen = true;
    const time = laterThan(this.#lastTime, now);
    this.#lastTime = time;
    if (endBytes > this.#pendingSizeBytes) this.#pendingSizeBytes = endBytes;
    return new Promise((resolve) => {
      let before: ObjectAttributes | null = null;
      let left = records.length;
      let failure: Error | null = null;
      const done = (error: Error | null): void => {
        before ??= this.#applied.before;
        failure ??= error;
        if (error !== null) this.#appendFailed();
        left -= 1;
        if (left > 0) return;
        this.map.unpin(first, count);
        resolve(failure === null ? { kind: 'changed', before, after: this.attributes, stable } : { kind: 'refused', error: failure });
      };
      for (const record of records) {
        record.newSizeBytes = this.#pendingSizeBytes;
        record.seconds = time.seconds;
        record.nanoseconds = time.nanoseconds;
        record.endBytes = endBytes;
        record.stable = answeredStable;
        if (!stable) record.flags |= RecordFlag.UNSTABLE;
        record.done = done;
        this.#appendRecord(record);
      }
    });
  }

  /** A record is not in the log after all: what was counted on it is not there either. */
  #appendFailed(): void {
    this.#windowOpen = false;
    let sizeBytes = this.attributes.sizeBytes;
    for (const newest of this.#log?.pendingNewestFirst() ?? []) {
      if (!newest.moved) sizeBytes = newest.newSizeBytes;
      break;
    }
    this.#pendingSizeBytes = sizeBytes;
  }

  #appendRecord(record: LogRecord): void {
    assert(this.#log !== null);
    try {
      this.#log.append(record);
    } catch (error) {
      record.answer(error as Error);
    }
  }

  /** Resolves when everything that was answered UNSTABLE before the call is durable. */
  commit(now: Timestamp): MaybePromise<null | Refusal> {
    // A COMMIT that is under way covers what was answered before it was sent, and nothing was answered UNSTABLE since.
    if (!this.#unstableOpen) return this.#committing;
    const confirmed = this.#hooks.confirmUnprotected();
    if (isPending(confirmed)) {
      return confirmed.then(
        () => this.commit(now),
        (error: unknown): Refusal => ({ kind: 'refused', error: error as Error }),
      );
    }
    this.#unstableOpen = this.#windowOpen = false;
    const record = new LogRecord(RecordKind.COMMIT_MARK, 0, 0, null, [], 0, null);
    record.newSizeBytes = this.#pendingSizeBytes;
    record.seconds = this.#lastTime.seconds;
    record.nanoseconds = this.#lastTime.nanoseconds;
    const committing = new Promise<null | Refusal>((resolve) => {
      record.done = (error) => {
        if (this.#committing === committing) this.#committing = null;
        if (error !== null) {
          this.#unstableOpen = true;
          this.#appendFailed();
        }
        resolve(error === null ? null : { kind: 'refused', error });
      };
    });
    this.#committing = committing;
    this.#appendRecord(record);
    return committing;
  }

  /**
   * SETATTR of size and times; null = leave. Growing is O(1); shrinking drops what lies behind and holds other writes meanwhile.
   * Durable when it resolves.
   */
  async setAttributes(
    changes: { sizeBytes: number | null; atime: Timestamp | null; mtime: Timestamp | null },
    now: Timestamp,
    call: Uint32Array | null = null,
  ): Promise<Changed | Refusal> {
    try {
      await this.#hooks.confirmUnprotected();
      // Each of these waits may let another shrink begin.
      do {
        while (this.#locks.exclusive) await this.#locks.untilShared();
        await this.#truncation.finish();
        await this.#confirmed();
      } while (this.busy);
      const sizeBytes = changes.sizeBytes;
      if (sizeBytes === null || sizeBytes >= this.#pendingSizeBytes) return await this.#appendAttributes(changes, now, call);
      return await this.#exclusively(() => this.#shrink(sizeBytes, changes, now, call));
    } catch (error) {
      return { kind: 'refused', error: error as Error };
    }
  }

  #appendAttributes(
    changes: { sizeBytes: number | null; atime: Timestamp | null; mtime: Timestamp | null },
    now: Timestamp,
    call: Uint32Array | null,
  ): Promise<Changed | Refusal> {
    const ctime = laterThan(this.#lastTime, now);
    this.#lastTime = ctime;
    const atime = changes.atime ?? this.attributes.atime;
    // RFC 1813 §3.3.2 leaves it open; like every POSIX server, a size that was set counts as a modification.
    const mtime = changes.mtime ?? (changes.sizeBytes === null ? this.attributes.mtime : ctime);
    const times = encodeTimes([atime.seconds, atime.nanoseconds, mtime.seconds, mtime.nanoseconds, ctime.seconds, ctime.nanoseconds]);
    const record = new LogRecord(RecordKind.ATTRIBUTES, 0, 0, null, [times], times.length, times);
    nameCall(record, call);
    if (changes.sizeBytes !== null) {
      this.#pendingSizeBytes = changes.sizeBytes;
      record.endBytes = changes.sizeBytes;
    }
    record.newSizeBytes = this.#pendingSizeBytes;
    record.seconds = ctime.seconds;
    record.nanoseconds = ctime.nanoseconds;
    return new Promise((resolve) => {
      record.done = (error) => {
        if (error !== null) this.#appendFailed();
        resolve(
          error === null ? { kind: 'changed', before: this.#applied.before, after: this.attributes, stable: true } : { kind: 'refused', error },
        );
      };
      this.#appendRecord(record);
    });
  }

  async #shrink(
    sizeBytes: number,
    changes: { sizeBytes: number | null; atime: Timestamp | null; mtime: Timestamp | null },
    now: Timestamp,
    call: Uint32Array | null,
  ): Promise<Changed | Refusal> {
    const edge = sizeBytes % BLOCK_BYTES;
    if (edge !== 0) {
      // Bytes behind the end are always zero on disk, so that growing again shows zeros.
      const block = Math.floor(sizeBytes / BLOCK_BYTES);
      const content = await this.#contents.content(block);
      if (content.subarray(edge).some((byte) => byte !== 0)) {
        content.fill(0, edge);
        await this.map.pin(block, 1);
        await this.#confirmed(block, 1);
        const cleared = await this.#append(block, block, [content], 0, true, now);
        if (cleared.kind === 'refused') return cleared;
      }
    }
    await this.#confirmed();
    const result = await this.#appendAttributes(changes, now, call);
    if (result.kind === 'refused') return result;
    if (call !== null) this.#hooks.logged(call);
    this.#truncation.begin(Math.ceil(sizeBytes / BLOCK_BYTES));
    // The new size is durable and all that readers see; blocks that cannot be dropped now are dropped before anything is written again.
    await this.#truncation.finish().catch(() => undefined);
    return result;
  }

  /** Runs `work` while no write is under way or begins. */
  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    return this.#locks.exclusively(async () => {
      await this.#log?.drained();
      // A fault, or a full disk: not the time for it, and nobody else shall wait for it either.
      const problem = this.#log?.problem ?? null;
      if (problem !== null) throw problem;
      return await work();
    });
  }

  /** LogEvents.opened: a row for the new segment. */
  segmentOpened(segment: LocalSegment): void {
    this.#rows.open(segment);
  }

  /** Table row of a segment that is not on the backend, or one of the newest. */
  rowOfSegment(number: number): number | null {
    return this.#rows.get(number) ?? null;
  }

  /** Gives a recovered segment its row, unless the checkpoint has it. */
  adoptSegment(number: number, row: number): void {
    this.#rows.adopt(number, row);
  }

  /** LogEvents.apply: what the record says becomes visible. Called again for a record that a fault moved. */
  apply(record: LogRecord): void {
    this.#applied.apply(record);
  }

  /** LogEvents.fault: what was refused does not count towards the size of what is kept, nor as the record that shows UNSTABLE data to a recovery. */
  faulted(kept: readonly LogRecord[]): void {
    this.#windowOpen = false;
    let sizeBytes = this.attributes.sizeBytes;
    for (const record of kept) {
      if (record.moved) continue;
      sizeBytes = Math.max(sizeBytes, record.endBytes);
      record.newSizeBytes = sizeBytes;
    }
    this.#pendingSizeBytes = sizeBytes;
  }

  /**
   * LogEvents.relocate: blocks that the map still shows where a fault left them are shown where they are now; those written since stay as they are.
   * Pins one record's pages at a time: whoever holds pins while waiting for more may wait for ever.
   */
  relocate(records: readonly LogRecord[]): Promise<void> {
    return this.#applied.relocate(records);
  }
}

/** The record is the last one of this call. */
function nameCall(record: LogRecord | undefined, call: Uint32Array | null): void {
  if (call === null || record === undefined) return;
  record.call = call;
  record.flags |= RecordFlag.CALL;
}

/** The dirty bound was reached for longer than a client should wait: ask it to come back. */
export class OverloadedError extends Error {
  readonly code = 'overloaded';
  constructor() {
    super('the bound of data that is not on the backend yet is reached, and the backend takes nothing');
    this.name = 'OverloadedError';
  }
}
