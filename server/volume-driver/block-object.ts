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
import type { BlockReader, MissingBlock } from './block-reader.ts';
import type { ExtentMap } from './extent-map.ts';
import { PAGE_BLOCKS } from './page-image.ts';
import { RangeLocks } from './range-locks.ts';
import type { RangeLock } from './range-locks.ts';
import type { ReadAhead } from './read-ahead.ts';
import type { SegmentTable } from './segment-table.ts';
import type { WriteAdmission } from './write-admission.ts';
import { copyChunks, mergeEdges, planBlocks, ZERO_BLOCK } from './write-plan.ts';

/** Records up to this many blocks leave their blocks in the RAM cache: larger ones are sequential and come back from the page cache. */
const CACHE_WRITES_BLOCKS_MAX = 64;
/** Rows of this many segments are remembered by number, and those of all that are not uploaded. */
export const SEGMENT_ROWS_KEPT = 64;
const SCRATCH_BLOCKS = 1088;
/** Pages that so many blocks can lie on. */
const LOAD_PAGES_MAX = Math.ceil(SCRATCH_BLOCKS / PAGE_BLOCKS) + 1;
/** Where map.read puts its answer; used before anything waits, so one set serves all objects. */
const scratchRows = new Uint32Array(SCRATCH_BLOCKS);
const scratchOffsets = new Uint32Array(SCRATCH_BLOCKS);
const scratchCrcs = new Uint32Array(SCRATCH_BLOCKS);

/** What the owner knows of an object; the registry has a lazy copy. Immutable snapshots. */
export interface ObjectAttributes {
  readonly sizeBytes: number;
  readonly atime: Timestamp;
  readonly mtime: Timestamp;
  readonly ctime: Timestamp;
}

export interface BlockObjectState extends ObjectAttributes {
  /** UNSTABLE data may be un-synced: no COMMIT was durable since. */
  readonly unstableOpen: boolean;
}

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
  readonly #reader: BlockReader;
  readonly #cache: BlockCache;
  readonly #admission: WriteAdmission;
  readonly #hooks: BlockObjectHooks;
  readonly #patienceMs: number;
  #log: ObjectLog | null = null;

  #attributes: ObjectAttributes;
  /** Size and time after everything that was appended. */
  #pendingSizeBytes: number;
  #lastTime: Timestamp;
  /** A COMMIT has something to do. */
  #unstableOpen: boolean;
  /** An UNSTABLE record is in the log, or on its way before all that follow, with no COMMIT behind it: a recovery will see it. */
  #windowOpen: boolean;
  /** The COMMIT under way. */
  #committing: Promise<null | Refusal> | null = null;
  /** A shrink that is durable but could not drop all blocks behind the end yet: the first of them. */
  #untruncated: number | null = null;
  #truncating: Promise<void> | null = null;
  #appliedUnstableOpen: boolean;
  #appliedSequence: number;
  #before: ObjectAttributes;
  readonly #locks = new RangeLocks();
  readonly #rows = new Map<number, number>();
  /** Loads of pages of the map for reads, by first page and number of pages. */
  readonly #loads = new Map<number, Promise<void>>();

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
    this.#reader = components.reader;
    this.readAhead = components.readAhead;
    this.#cache = components.cache;
    this.#admission = components.admission;
    this.#hooks = components.hooks;
    this.#patienceMs = settings.patienceMs;
    this.#attributes = { sizeBytes: state.sizeBytes, atime: state.atime, mtime: state.mtime, ctime: state.ctime };
    this.#before = this.#attributes;
    this.#pendingSizeBytes = state.sizeBytes;
    this.#lastTime = state.ctime;
    this.#unstableOpen = state.unstableOpen;
    this.#windowOpen = state.unstableOpen;
    this.#appliedUnstableOpen = state.unstableOpen;
    this.#appliedSequence = appliedSequence;
  }

  /** The log is made after the object, since it calls the object back. */
  attachLog(log: ObjectLog): void {
    this.#log = log;
  }

  get attributes(): ObjectAttributes {
    return this.#attributes;
  }
  get usedBytes(): number {
    return this.map.mappedBlocks * BLOCK_BYTES;
  }
  /** Sequence up to which the extent map and the attributes are: always a prefix of the log. */
  get appliedSequence(): number {
    return this.#appliedSequence;
  }
  /** Whether the applied prefix of the log ends with UNSTABLE data and no COMMIT behind it: what a checkpoint of it must say. */
  get appliedUnstableOpen(): boolean {
    return this.#appliedUnstableOpen;
  }
  /** True while a shrink is between its record and the extent map: no checkpoint may begin. */
  get busy(): boolean {
    return this.#locks.exclusive || this.#untruncated !== null;
  }

  /** Nothing is appended for a while: who waits for room to write is told so by the log now, not when there is room. */
  held(): void {
    this.#admission.excuse(this);
  }

  /** ctime and such that the registry made for this object: times never run back. */
  observeTime(time: Timestamp): void {
    this.#lastTime = laterThan(this.#lastTime, time);
    if (
      this.#attributes.ctime.seconds < time.seconds ||
      (this.#attributes.ctime.seconds === time.seconds && this.#attributes.ctime.nanoseconds < time.nanoseconds)
    ) {
      this.#attributes = { ...this.#attributes, ctime: time };
    }
  }

  /**
   * Reads into `target` from `offsetBytes`; returns the bytes read, short only at the end. Synchronous when everything is in RAM.
   * Rejects as BlockReader.fetch does.
   */
  read(offsetBytes: number, target: Buffer): MaybePromise<number> {
    const length = Math.min(target.length, this.#attributes.sizeBytes - offsetBytes);
    if (length <= 0) return 0;
    const first = Math.floor(offsetBytes / BLOCK_BYTES);
    const count = Math.floor((offsetBytes + length - 1) / BLOCK_BYTES) - first + 1;
    if (count > SCRATCH_BLOCKS) return this.#readInParts(offsetBytes, target.subarray(0, length));
    if (!this.map.read(first, count, scratchRows, scratchOffsets, scratchCrcs)) {
      const loaded = this.#reader.reads.patiently(`map of object ${this.uuid}`, () => this.#loadPages(first, count));
      return loaded.then(() => this.read(offsetBytes, target));
    }
    const missing = this.#fromCache(offsetBytes, length, first, count, target);
    if (missing === null) {
      if (this.readAhead.active) this.readAhead.observe(offsetBytes, length, this.#attributes.sizeBytes);
      return length;
    }
    const fetched = this.#reader.fetch(this.uuid, this.table, missing, target, this.readAhead);
    this.readAhead.observe(offsetBytes, length, this.#attributes.sizeBytes);
    return fetched.then(() => length);
  }

  /** Who was told to come back finds the load that he began still under way, and joins it: one for the same pages, however long it takes. */
  #loadPages(first: number, count: number): Promise<void> {
    const firstPage = Math.floor(first / PAGE_BLOCKS);
    const lastPage = Math.floor((first + count - 1) / PAGE_BLOCKS);
    const key = firstPage * LOAD_PAGES_MAX + lastPage - firstPage;
    let loading = this.#loads.get(key);
    if (loading === undefined) {
      loading = this.map.load(first, count).finally(() => this.#loads.delete(key));
      this.#loads.set(key, loading);
    }
    return loading;
  }

  /** Gives the memory of the map back, once nothing uses it: also not a load of pages that nobody waits for any more. */
  async close(): Promise<void> {
    await this.readAhead.close();
    while (this.#loads.size > 0) await Promise.allSettled(this.#loads.values());
    this.map.close();
  }

  /** Copies what is in RAM or zero; returns what is not, or null. Uses the scratch arrays that map.read filled. */
  #fromCache(offsetBytes: number, length: number, first: number, count: number, target: Buffer): MissingBlock[] | null {
    let missing: MissingBlock[] | null = null;
    const end = offsetBytes + length;
    for (let index = 0; index < count; index += 1) {
      const blockStart = (first + index) * BLOCK_BYTES;
      const from = offsetBytes > blockStart ? offsetBytes - blockStart : 0;
      const to = end < blockStart + BLOCK_BYTES ? end - blockStart : BLOCK_BYTES;
      const targetOffset = blockStart + from - offsetBytes;
      const row = scratchRows[index] as number;
      if (row === 0) {
        target.fill(0, targetOffset, targetOffset + to - from);
        continue;
      }
      const offset = scratchOffsets[index] as number;
      if (this.#cache.get(this.table.globalId(row), offset, target, targetOffset, from, to - from)) continue;
      missing ??= [];
      missing.push({ row, offsetBytes: offset, crc: scratchCrcs[index] as number, targetOffset, from, length: to - from });
    }
    return missing;
  }

  async #readInParts(offsetBytes: number, target: Buffer): Promise<number> {
    const partBytes = (SCRATCH_BLOCKS - 2) * BLOCK_BYTES;
    let total = 0;
    while (total < target.length) {
      const bytes = await this.read(offsetBytes + total, target.subarray(total, total + partBytes));
      if (bytes === 0) break;
      total += bytes;
    }
    return total;
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
    if (!this.busy && !this.#locks.isLocked(first, last) && this.#admission.isOpen) {
      const confirmed = this.#hooks.confirmUnprotected();
      if (!isPending(confirmed)) {
        const blocks = this.#wholeBlocks(offsetBytes, countBytes, chunks, first, last);
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
    const admitted = this.#admission.admit(this, countBytes, this.#patienceMs);
    if (!(isPending(admitted) ? await admitted : admitted)) return { kind: 'refused', error: new OverloadedError() };
    let lock: RangeLock | null = null;
    try {
      await this.#hooks.confirmUnprotected();
      lock = await this.#locks.lockWhenFree(first, last);
      await this.#finishTruncate();
      let blocks = this.#wholeBlocks(offsetBytes, countBytes, chunks, first, last);
      if (blocks === null) {
        const headBase = offsetBytes % BLOCK_BYTES === 0 ? null : await this.#blockContent(first);
        const tailBase =
          (offsetBytes + countBytes) % BLOCK_BYTES === 0 ? null : first === last && headBase !== null ? headBase : await this.#blockContent(last);
        blocks = mergeEdges(offsetBytes, countBytes, chunks, first, last, headBase, tailBase);
      }
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

  /** Chunks of whole blocks, edges merged with what is there; null when an edge is not in RAM. */
  #wholeBlocks(offsetBytes: number, countBytes: number, chunks: readonly Uint8Array[], first: number, last: number): readonly Uint8Array[] | null {
    const headPartial = offsetBytes % BLOCK_BYTES !== 0;
    const tailPartial = (offsetBytes + countBytes) % BLOCK_BYTES !== 0;
    if (!headPartial && !tailPartial) return chunks;
    const headBase = headPartial ? this.#blockInRam(first) : null;
    if (headPartial && headBase === null) return null;
    const tailBase = !tailPartial ? null : first === last && headBase !== null ? headBase : this.#blockInRam(last);
    if (tailPartial && tailBase === null) return null;
    return mergeEdges(offsetBytes, countBytes, chunks, first, last, headBase, tailBase);
  }

  /** Content of a block as of everything appended, in a buffer of its own; null when it is not in RAM. */
  #blockInRam(block: number): Buffer | null {
    const pending = this.#pendingBlock(block);
    if (pending !== null) return pending;
    if (!this.map.read(block, 1, scratchRows, scratchOffsets, scratchCrcs)) return null;
    const row = scratchRows[0] as number;
    if (row === 0) return Buffer.from(ZERO_BLOCK);
    const target = Buffer.allocUnsafe(BLOCK_BYTES);
    return this.#cache.get(this.table.globalId(row), scratchOffsets[0] as number, target, 0, 0, BLOCK_BYTES) ? target : null;
  }

  #pendingBlock(block: number): Buffer | null {
    const log = this.#log;
    if (log === null || !log.hasPending) return null;
    for (const record of log.pendingNewestFirst()) {
      if (block < record.startBlock || block >= record.startBlock + record.blockCount) continue;
      if (record.kind === RecordKind.ZERO) return Buffer.from(ZERO_BLOCK);
      if (record.kind !== RecordKind.DATA) continue;
      const target = Buffer.allocUnsafe(BLOCK_BYTES);
      copyChunks(record.chunks, (block - record.startBlock) * BLOCK_BYTES, BLOCK_BYTES, target, 0);
      return target;
    }
    return null;
  }

  /** As #blockInRam, from wherever it is. Only under a lock of the block: nobody appends to it meanwhile. */
  async #blockContent(block: number): Promise<Buffer> {
    for (;;) {
      const inRam = this.#blockInRam(block);
      if (inRam !== null) return inRam;
      await this.map.load(block, 1);
      if (!this.map.read(block, 1, scratchRows, scratchOffsets, scratchCrcs)) continue;
      const row = scratchRows[0] as number;
      if (row === 0) return Buffer.from(ZERO_BLOCK);
      const target = Buffer.allocUnsafe(BLOCK_BYTES);
      const wanted = {
        row,
        offsetBytes: scratchOffsets[0] as number,
        crc: scratchCrcs[0] as number,
        targetOffset: 0,
        from: 0,
        length: BLOCK_BYTES,
      };
      await this.#reader.fetch(this.uuid, this.table, [wanted], target);
      return target;
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
        before ??= this.#before;
        failure ??= error;
        if (error !== null) this.#appendFailed();
        left -= 1;
        if (left > 0) return;
        this.map.unpin(first, count);
        resolve(failure === null ? { kind: 'changed', before, after: this.#attributes, stable } : { kind: 'refused', error: failure });
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
    let sizeBytes = this.#attributes.sizeBytes;
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
      const done = record.done;
      record.done = null;
      done?.(error as Error);
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
        await this.#finishTruncate();
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
    const atime = changes.atime ?? this.#attributes.atime;
    // RFC 1813 §3.3.2 leaves it open; like every POSIX server, a size that was set counts as a modification.
    const mtime = changes.mtime ?? (changes.sizeBytes === null ? this.#attributes.mtime : ctime);
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
        resolve(error === null ? { kind: 'changed', before: this.#before, after: this.#attributes, stable: true } : { kind: 'refused', error });
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
      const content = await this.#blockContent(block);
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
    this.#untruncated = Math.ceil(sizeBytes / BLOCK_BYTES);
    // The new size is durable and all that readers see; blocks that cannot be dropped now are dropped before anything is written again.
    await this.#finishTruncate().catch(() => undefined);
    return result;
  }

  /** Rejects as loading pages of the map does: then nothing may be written or grow yet. */
  async #finishTruncate(): Promise<void> {
    while (this.#untruncated !== null) {
      const from = this.#untruncated;
      this.#truncating ??= this.map.truncate(from).finally(() => {
        this.#truncating = null;
      });
      await this.#truncating;
      if (this.#untruncated === from && this.#truncating === null) this.#untruncated = null;
    }
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
    const row = this.table.add({ kind: 'segment', bucket: '', objectUuid: '', term: segment.term, number: segment.number, sizeBytes: 0 });
    this.#rows.set(segment.number, row);
    for (const [number, row] of this.#rows) {
      if (number >= segment.number - SEGMENT_ROWS_KEPT) break;
      // Not uploaded yet: its size is still to be entered.
      if (this.table.isUsed(row) && this.table.sizeBytes(row) === 0) continue;
      this.#rows.delete(number);
    }
  }

  /** Table row of a segment that is not on the backend, or one of the newest. */
  rowOfSegment(number: number): number | null {
    return this.#rows.get(number) ?? null;
  }

  /** Gives a recovered segment its row, unless the checkpoint has it. */
  adoptSegment(number: number, row: number): void {
    this.#rows.set(number, row);
  }

  /** LogEvents.apply: what the record says becomes visible. Called again for a record that a fault moved. */
  apply(record: LogRecord): void {
    const before = this.#attributes;
    this.#before = before;
    if ((record.flags & RecordFlag.UNSTABLE) !== 0) this.#appliedUnstableOpen = true;
    else if (record.kind === RecordKind.COMMIT_MARK) this.#appliedUnstableOpen = false;
    const time = { seconds: record.seconds, nanoseconds: record.nanoseconds };
    switch (record.kind) {
      case RecordKind.DATA: {
        const row = this.#rows.get(record.segmentNumber);
        assert(row !== undefined, `segment ${record.segmentNumber} has no row`);
        this.map.set(record.startBlock, record.blockCount, row, record.payloadOffset, record.crcs, 0);
        if (record.blockCount <= CACHE_WRITES_BLOCKS_MAX) this.#keepInRam(record, this.table.globalId(row));
        this.#attributes = { sizeBytes: record.newSizeBytes, atime: before.atime, mtime: time, ctime: time };
        break;
      }
      case RecordKind.ZERO:
        this.map.unmap(record.startBlock, record.blockCount);
        this.#attributes = { sizeBytes: record.newSizeBytes, atime: before.atime, mtime: time, ctime: time };
        break;
      case RecordKind.ATTRIBUTES: {
        const bytes = record.times as Buffer;
        this.#attributes = {
          sizeBytes: record.newSizeBytes,
          atime: { seconds: bytes.readUInt32LE(0), nanoseconds: bytes.readUInt32LE(4) },
          mtime: { seconds: bytes.readUInt32LE(8), nanoseconds: bytes.readUInt32LE(12) },
          ctime: { seconds: bytes.readUInt32LE(16), nanoseconds: bytes.readUInt32LE(20) },
        };
        break;
      }
      case RecordKind.COMMIT_MARK:
      case RecordKind.SNAPSHOT_MARK:
      case RecordKind.TERM_START:
      case RecordKind.SEAL:
        break;
    }
    this.#appliedSequence = record.sequence;
    if (record.blockCount > 0) this.#hooks.touched(record.startBlock, record.blockCount);
  }

  /** LogEvents.fault: what was refused does not count towards the size of what is kept, nor as the record that shows UNSTABLE data to a recovery. */
  faulted(kept: readonly LogRecord[]): void {
    this.#windowOpen = false;
    let sizeBytes = this.#attributes.sizeBytes;
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
  async relocate(records: readonly LogRecord[]): Promise<void> {
    for (const record of records) {
      if (record.kind !== RecordKind.DATA) continue;
      const { startBlock, blockCount } = record;
      const former = this.#rows.get(record.formerSegment);
      const row = this.#rows.get(record.segmentNumber);
      assert(former !== undefined && row !== undefined, `segments ${record.formerSegment} and ${record.segmentNumber} have rows`);
      await this.map.pin(startBlock, blockCount);
      this.map.read(startBlock, blockCount, scratchRows, scratchOffsets, scratchCrcs);
      for (let index = 0; index < blockCount; index += 1) {
        if (scratchRows[index] !== former || scratchOffsets[index] !== record.formerOffset + index * BLOCK_BYTES) continue;
        this.map.set(startBlock + index, 1, row, record.payloadOffset + index * BLOCK_BYTES, record.crcs, index);
      }
      this.map.unpin(startBlock, blockCount);
      this.#hooks.touched(startBlock, blockCount);
    }
  }

  #keepInRam(record: LogRecord, segmentId: number): void {
    const chunks = record.chunks;
    let chunk = 0;
    let at = 0;
    for (let block = 0; block < record.blockCount; block += 1) {
      this.#cache.putChunks(segmentId, record.payloadOffset + block * BLOCK_BYTES, chunks, chunk, at);
      at += BLOCK_BYTES;
      while (chunk < chunks.length && at >= (chunks[chunk] as Uint8Array).length) {
        at -= (chunks[chunk] as Uint8Array).length;
        chunk += 1;
      }
    }
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
