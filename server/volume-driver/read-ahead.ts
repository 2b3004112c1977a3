/**
 * Reads ahead of sequential readers of one object, as far as its blocks are on the backend only: what a stream will ask for next is looked up in the
 * extent map (whose pages are loaded ahead, too), joined into few large requests, and kept as chunks until it is read (read-ahead-chunks.ts).
 *
 * How far: at first eight reads, so that a short stream costs little; twice as far whenever a reader had to wait, up to four times what was read and what
 * the budget gives. A stream that stops leaves at most that much unread, and lets go of it after some seconds. Nothing here ever fails a read: what
 * could not be read ahead is read when it is asked for.
 */
import type { ObjectStore } from '../../backends/object-store.ts';
import type { BlockCache } from '../../cache/block-cache.ts';
import type { ObjectUuid } from '../core/ids.ts';
import type { Clock } from '../core/time.ts';
import type { FormerOwner } from '../object-router/driver-port.ts';
import type { LocalSegments } from './block-reader.ts';
import { BLOCK_BYTES } from './extent-map.ts';
import type { ExtentMap } from './extent-map.ts';
import { PAGE_BLOCKS } from './page-image.ts';
import type { ReadAheadBudget } from './read-ahead-budget.ts';
import { ReadAheadChunks } from './read-ahead-chunks.ts';
import type { Chunk } from './read-ahead-chunks.ts';
import { SequentialStreams } from './read-ahead-streams.ts';
import type { Stream } from './read-ahead-streams.ts';
import type { SegmentRecall } from './segment-recall.ts';
import type { SegmentTable } from './segment-table.ts';
import type { StorageNames } from './storage-names.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
/** Furthest ahead of one stream. */
const WINDOW_BYTES_MAX = 64 * MIB;
/** How far ahead of a long stream at least. */
const LONG_WINDOW_BYTES = 16 * MIB;
/** How far ahead at first, in reads. */
const WINDOW_READS = 8;
const PAGE_BYTES = PAGE_BLOCKS * BLOCK_BYTES;
/** Steps of planning, and so what one request asks for but for what lies between its blocks. */
const STEP_BYTES_MAX = 2 * PAGE_BYTES;
const STEPS_PER_WINDOW = 4;
const STEP_BLOCKS_MAX = 2 * PAGE_BLOCKS;
/** Bytes between two blocks that are fetched along: cheaper than one more request. */
const GAP_BYTES_MAX = 16 * KIB;
/** Chunks behind the end of their stream by more than this will not be read any more: those who come late are late by less. */
const BEHIND_BYTES = 16 * MIB;
/** A stream without a read for so long is over. */
const IDLE_MS = 5000;
/** No reading ahead for so long after it failed: the reader meets the same, and waits for it. */
const PAUSE_MS = 1000;
/** Pages of the extent map that are loaded together, ahead of what is planned, at most. */
const PAGES_AHEAD = 16;
/** With more chunks than this waiting for their turn nothing more is planned: a reader of scattered blocks is ahead enough then. */
const QUEUED_MAX = 64;

/** Where map.read puts its answer; used before anything waits, so one set serves all objects. */
const stepRows = new Uint32Array(STEP_BLOCKS_MAX);
const stepOffsets = new Uint32Array(STEP_BLOCKS_MAX);
const stepCrcs = new Uint32Array(STEP_BLOCKS_MAX);
/** Wanted blocks of a step: row * 2^32 + offset. */
const stepKeys = new Float64Array(STEP_BLOCKS_MAX);
const WORD = 2 ** 32;

export interface ReadAheadComponents {
  readonly uuid: ObjectUuid;
  readonly map: ExtentMap;
  readonly table: SegmentTable;
  readonly names: StorageNames;
  readonly files: LocalSegments;
  readonly store: ObjectStore;
  readonly cache: BlockCache;
  readonly clock: Clock;
  readonly budget: ReadAheadBudget;
  readonly recall: SegmentRecall | null;
  /** As BlockReader.former. */
  readonly former: () => FormerOwner | null;
}

/** Counters of a vPool. */
export class ReadAheadStatistics {
  /** Blocks that readers took from what was read ahead. */
  hitBlocks = 0;
  /** Blocks that were read ahead and let go unread. */
  unreadBlocks = 0;
  requests = 0;
  failures = 0;
}

export class ReadAhead {
  readonly chunks: ReadAheadChunks;
  readonly #components: ReadAheadComponents;
  readonly #statistics: ReadAheadStatistics;
  readonly #streams: SequentialStreams;
  readonly #loading = new Map<number, Promise<void>>();
  #idleTimer: (() => void) | null = null;
  #closed = false;

  constructor(components: ReadAheadComponents, statistics: ReadAheadStatistics) {
    this.#components = components;
    this.#statistics = statistics;
    this.#streams = new SequentialStreams((stream) => this.#ended(stream));
    this.chunks = new ReadAheadChunks(components, {
      streamCount: () => this.#streams.streams.length,
      releaseIdle: (sinceMs) => this.#streams.endIdle(sinceMs),
      failed: (chunk) => this.#failed(chunk),
    });
  }

  /** Whether there is a stream: then reads that found everything in RAM are observed as well, or it would lose its place. */
  get active(): boolean {
    return this.#streams.streams.length > 0;
  }

  /** Takes note of a read, and reads ahead where it belongs to a stream. `sizeBytes`: the object's. Costs a random read some ten comparisons. */
  observe(offsetBytes: number, lengthBytes: number, sizeBytes: number): void {
    if (this.#components.budget.bytesMax === 0 || this.#closed) return;
    const stream = this.#streams.observe(offsetBytes, lengthBytes, this.#components.clock.monotonicMs());
    if (stream === null) return;
    stream.sizeBytes = sizeBytes;
    this.#advance(stream);
    this.#watchIdle();
  }

  /** Stops. Resolves when nothing of it uses the extent map any more. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#idleTimer?.();
    this.#idleTimer = null;
    this.#streams.endIdle(Infinity);
    await Promise.allSettled(this.#loading.values());
  }

  /** Plans what is missing between where the stream is and where its window ends. */
  #advance(stream: Stream): void {
    const { budget, clock } = this.#components;
    if (this.#closed || stream.ended || clock.monotonicMs() < stream.pausedUntilMs) return;
    this.#widen(stream, Math.min(WINDOW_BYTES_MAX, budget.shareBytes));
    if (stream.plannedBytes < stream.endBytes) stream.plannedBytes = Math.ceil(stream.endBytes / BLOCK_BYTES) * BLOCK_BYTES;
    const target = Math.min(stream.endBytes + stream.windowBytes, stream.sizeBytes);
    // Not for every small read a small request: a part of the window at a time, in steps that end where pages of the map do.
    const stepBytes = Math.max(BLOCK_BYTES, Math.min(STEP_BYTES_MAX, 2 ** Math.floor(Math.log2(stream.windowBytes / STEPS_PER_WINDOW))));
    while (stream.plannedBytes < target && this.chunks.queued < QUEUED_MAX) {
      const from = stream.plannedBytes;
      const to = Math.min(from - (from % stepBytes) + stepBytes, Math.ceil(stream.sizeBytes / BLOCK_BYTES) * BLOCK_BYTES);
      if (to > target && to < stream.sizeBytes) break;
      const planned = this.#planStep(stream, from, to);
      if (planned === 'full') break;
      if (planned === 'not-resident') {
        this.#loadForStep(stream, Math.floor(from / PAGE_BYTES), Math.floor((to - 1) / PAGE_BYTES));
        break;
      }
      stream.plannedBytes = to;
      this.#loadAhead(stream, Math.floor(to / PAGE_BYTES));
    }
    this.#sweep(stream);
  }

  #widen(stream: Stream, limitBytes: number): void {
    const first = WINDOW_READS * stream.largestReadBytes;
    let windowBytes = stream.windowBytes === 0 ? first : stream.windowBytes;
    if (stream.waits > stream.waitsSeen) windowBytes *= 2;
    stream.waitsSeen = stream.waits;
    // A long stream is worth large requests even where small ones are fast enough.
    windowBytes = Math.max(windowBytes, Math.min(stream.readBytes / 2, LONG_WINDOW_BYTES));
    stream.windowBytes = Math.min(windowBytes, limitBytes, Math.max(4 * stream.readBytes, first));
  }

  /** Puts the blocks of a part of one page that only the backend has on their way. */
  #planStep(stream: Stream, fromBytes: number, toBytes: number): 'planned' | 'full' | 'not-resident' {
    const { map, table, cache } = this.#components;
    const first = fromBytes / BLOCK_BYTES;
    const count = (toBytes - fromBytes) / BLOCK_BYTES;
    if (!map.read(first, count, stepRows, stepOffsets, stepCrcs)) return 'not-resident';
    let wanted = 0;
    let sorted = true;
    let row = 0;
    let remote = false;
    for (let index = 0; index < count; index += 1) {
      const blockRow = stepRows[index] as number;
      if (blockRow === 0) continue;
      if (blockRow !== row) {
        row = blockRow;
        remote = this.#isRemote(row);
      }
      if (!remote) continue;
      const offsetBytes = stepOffsets[index] as number;
      const segmentId = table.globalId(row);
      if (cache.has(segmentId, offsetBytes)) continue;
      const key = row * WORD + offsetBytes;
      if (wanted > 0 && key < (stepKeys[wanted - 1] as number)) sorted = false;
      stepKeys[wanted] = key;
      wanted += 1;
    }
    if (!sorted) stepKeys.subarray(0, wanted).sort();
    return this.#requestRuns(stream, wanted, toBytes) ? 'planned' : 'full';
  }

  #isRemote(row: number): boolean {
    const { table, files, uuid } = this.#components;
    if (table.kind(row) !== 'segment') return true;
    const owner = table.objectUuid(row);
    return files.segment(owner === '' ? uuid : (owner as ObjectUuid), table.number(row), table.term(row)) === null;
  }

  /** One chunk for each run of the first `wanted` keys; false when the budget ended before. Those that were made stay, and are found the next time. */
  #requestRuns(stream: Stream, wanted: number, objectEndBytes: number): boolean {
    const { table, budget, clock, uuid, names, recall } = this.#components;
    let blocks = 0;
    let start = 0;
    let last = 0;
    for (let index = 0; index <= wanted; index += 1) {
      const key = index < wanted ? (stepKeys[index] as number) : Infinity;
      if (blocks > 0 && key - last - BLOCK_BYTES <= GAP_BYTES_MAX && Math.floor(key / WORD) === Math.floor(start / WORD)) {
        last = key;
        blocks += 1;
        continue;
      }
      if (blocks > 0) {
        const row = Math.floor(start / WORD);
        const lengthBytes = last + BLOCK_BYTES - start;
        if (!budget.takeBytes(lengthBytes, clock.monotonicMs())) return false;
        if (stream.ended) {
          // It rested, and making room for it ended it.
          budget.giveBytes(lengthBytes);
          return false;
        }
        const owner = (table.objectUuid(row) === '' ? uuid : table.objectUuid(row)) as ObjectUuid;
        this.#statistics.requests += 1;
        this.chunks.add({
          stream,
          segmentId: table.globalId(row),
          bucket: names.bucket(owner, table.bucket(row)),
          name: names.object(owner, table.bucket(row), table.objectName(row)),
          segment: owner === uuid && table.kind(row) === 'segment' ? { number: table.number(row), term: table.term(row) } : null,
          offsetBytes: start % WORD,
          lengthBytes,
          blocks,
          objectEndBytes,
        });
        recall?.fetched(uuid, names, table, row, lengthBytes);
      }
      blocks = 0;
      if (index === wanted) break;
      // Another stream, or an attempt that ran out of budget, has it on its way already.
      if (this.chunks.find(table.globalId(Math.floor(key / WORD)), key % WORD, BLOCK_BYTES) !== null) continue;
      start = key;
      last = key;
      blocks = 1;
    }
    return true;
  }

  /** Loads the pages that the next step needs. */
  #loadForStep(stream: Stream, first: number, last: number): void {
    if (stream.loadedPage === last) {
      // It was loaded a moment ago, and one of them had to leave for others: reading ahead would only make that worse.
      stream.pausedUntilMs = this.#components.clock.monotonicMs() + PAUSE_MS;
      stream.loadedPage = -1;
      return;
    }
    this.#loadPages(stream, first, last);
  }

  /** Loads pages from `first` on, in time for the steps that need them, and many together. */
  #loadAhead(stream: Stream, first: number): void {
    const pages = Math.min(PAGES_AHEAD, Math.ceil(stream.windowBytes / PAGE_BYTES));
    const last = Math.min(first + pages, Math.ceil(stream.sizeBytes / PAGE_BYTES)) - 1;
    const middle = Math.min(first + (pages >>> 1), last);
    if (middle < first || this.#loading.has(middle) || this.#isResident(middle)) return;
    this.#loadPages(stream, first, last);
  }

  #isResident(page: number): boolean {
    return this.#components.map.read(page * PAGE_BLOCKS, 1, stepRows, stepOffsets, stepCrcs);
  }

  #loadPages(stream: Stream, first: number, last: number): void {
    const { map, clock } = this.#components;
    for (let page = first; page <= last; page += 1) {
      if (this.#loading.has(page) || this.#isResident(page)) continue;
      const loading = map
        .load(page * PAGE_BLOCKS, 1)
        .then(
          () => {
            stream.loadedPage = page;
          },
          () => {
            // The reader who comes here meets the same error, and answers it.
            stream.pausedUntilMs = clock.monotonicMs() + PAUSE_MS;
          },
        )
        .finally(() => {
          this.#loading.delete(page);
          this.#advance(stream);
        });
      this.#loading.set(page, loading);
    }
  }

  #failed(chunk: Chunk): void {
    this.#statistics.failures += 1;
    chunk.plan.stream.pausedUntilMs = this.#components.clock.monotonicMs() + PAUSE_MS;
  }

  /** `blocks` of a chunk were delivered. */
  taken(chunk: Chunk, blocks: number): void {
    this.#statistics.hitBlocks += blocks;
    this.chunks.taken(chunk, blocks);
  }

  /** Now and then: what the stream has passed. */
  #sweep(stream: Stream): void {
    if (stream.endBytes < stream.sweptBytes + BEHIND_BYTES / 4 || this.chunks.count === 0) return;
    stream.sweptBytes = stream.endBytes;
    const passed = stream.endBytes - BEHIND_BYTES;
    this.#statistics.unreadBlocks += this.chunks.dropWhere((plan) => plan.stream === stream && plan.objectEndBytes < passed);
  }

  #ended(stream: Stream): void {
    if (this.chunks.count > 0) this.#statistics.unreadBlocks += this.chunks.dropWhere((plan) => plan.stream === stream);
  }

  #watchIdle(): void {
    if (this.#idleTimer !== null || this.#closed) return;
    this.#idleTimer = this.#components.clock.after(IDLE_MS, () => {
      this.#idleTimer = null;
      this.#streams.endIdle(this.#components.clock.monotonicMs() - IDLE_MS + 1);
      if (this.active) this.#watchIdle();
    });
  }
}
