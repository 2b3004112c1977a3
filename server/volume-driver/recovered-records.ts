/** Applies the records that a recovery found behind a checkpoint, or that come from another router, to the extent map. */
import type { Term } from '../core/ids.ts';
import { isPending } from '../core/maybe-promise.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { Clock, Timestamp } from '../core/time.ts';
import { RecordKind } from '../object-log/segment-codec.ts';
import type { DecodedRecord } from '../object-log/segment-codec.ts';
import type { BlockObjectState } from './applied-state.ts';
import { BLOCK_BYTES } from './extent-map.ts';
import type { ExtentMap } from './extent-map.ts';
import { PAGE_BLOCKS } from './page-image.ts';
import type { SegmentTable } from './segment-table.ts';

export type RecoveredState = BlockObjectState;

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** Records of one segment, in order. */
export interface SegmentRecords {
  readonly number: number;
  readonly term: Term;
  /** Size of the segment on the backend; 0 while it need not be there. */
  readonly sizeBytes: number;
  readonly records: readonly DecodedRecord[];
}

/** Blocks unmapped at a time: a range of zeros may be larger than the page pool. */
const UNMAP_BLOCKS = 4096;
/** Records of one block after which other work of the event loop gets its turn: one or two milliseconds. */
const TURN_RECORDS = 2000;
/** So many blocks take as long as another record. */
const BLOCKS_PER_RECORD = 16;
/** Pages of the map that are asked for together, ahead of the records that need them: one after the other a far backend would take minutes. */
const PAGES_AHEAD_MAX = 256;
/** Where map.read puts the answer that nobody looks at. */
const scratch = { rows: new Uint32Array(1), offsets: new Uint32Array(1), crcs: new Uint32Array(1) };

/**
 * Applies `segments` in order; `rows` (segment number -> table row) is completed. Returns size and times after the last record.
 * `framesMax`: pages that fit in RAM.
 */
export async function applyRecovered(
  map: ExtentMap,
  table: SegmentTable,
  rows: Map<number, number>,
  segments: readonly SegmentRecords[],
  from: RecoveredState,
  clock: Clock,
  framesMax: number,
): Promise<RecoveredState> {
  const pagesAhead = Math.min(PAGES_AHEAD_MAX, Math.max(1, Math.floor(framesMax / 4)));
  const state = { ...from };
  let turn = 0;
  for (const segment of segments) {
    let row = rows.get(segment.number);
    if (row === undefined) {
      row = table.add({
        kind: 'segment',
        bucket: '',
        objectUuid: '',
        term: segment.term,
        number: segment.number,
        sizeBytes: segment.sizeBytes,
      });
      rows.set(segment.number, row);
    }
    const { records } = segment;
    let loaded = 0;
    for (let index = 0; index < records.length; index += 1) {
      if (index === loaded) loaded = await loadAhead(map, records, index, pagesAhead);
      // Nearly always without waiting: a promise for each of hundred thousands of records takes longer than all the rest.
      const pending = applyRecord(map, row, records[index] as DecodedRecord, state);
      if (isPending(pending)) await pending;
      turn += 1 + Math.min(TURN_RECORDS, Math.floor((records[index] as DecodedRecord).blockCount / BLOCKS_PER_RECORD));
      if (turn < TURN_RECORDS) continue;
      turn = 0;
      await new Promise<void>((resolve) => clock.soon(resolve));
    }
  }
  return state;
}

/** Brings the pages of the next records to RAM; returns the index of the first record whose pages are not asked for. What fails shows again when it is needed. */
async function loadAhead(map: ExtentMap, records: readonly DecodedRecord[], from: number, pagesMax: number): Promise<number> {
  const pages = new Set<number>();
  let end = from;
  let lastPage = -1;
  for (; end < records.length && pages.size < pagesMax; end += 1) {
    const { startBlock, blockCount } = records[end] as DecodedRecord;
    if (blockCount === 0 || blockCount > UNMAP_BLOCKS) continue;
    const last = Math.floor((startBlock + blockCount - 1) / PAGE_BLOCKS);
    for (let page = Math.floor(startBlock / PAGE_BLOCKS); page <= last; page += 1) {
      if (page !== lastPage) pages.add(page);
      lastPage = page;
    }
  }
  const loads: Promise<void>[] = [];
  for (const page of pages) {
    const block = page * PAGE_BLOCKS;
    if (!map.read(block, 1, scratch.rows, scratch.offsets, scratch.crcs)) loads.push(map.load(block, 1));
  }
  if (loads.length > 0) await Promise.allSettled(loads);
  return end;
}

/** Changes `state`. */
function applyRecord(map: ExtentMap, row: number, record: DecodedRecord, state: Mutable<RecoveredState>): MaybePromise<void> {
  switch (record.kind) {
    case RecordKind.DATA: {
      const pinned = map.pin(record.startBlock, record.blockCount);
      if (isPending(pinned)) return pinned.then(() => applyData(map, row, record, state));
      return applyData(map, row, record, state);
    }
    case RecordKind.ZERO:
      return applyZero(map, record, state);
    case RecordKind.ATTRIBUTES:
      return applyAttributes(map, record, state);
    case RecordKind.COMMIT_MARK:
    case RecordKind.SNAPSHOT_MARK:
    case RecordKind.TERM_START:
    case RecordKind.SEAL:
      return undefined;
  }
}

function applyData(map: ExtentMap, row: number, record: DecodedRecord, state: Mutable<RecoveredState>): void {
  map.set(record.startBlock, record.blockCount, row, record.payloadOffset, record.crcs, 0);
  map.unpin(record.startBlock, record.blockCount);
  written(record, state);
}

async function applyZero(map: ExtentMap, record: DecodedRecord, state: Mutable<RecoveredState>): Promise<void> {
  for (let done = 0; done < record.blockCount; done += UNMAP_BLOCKS) {
    const count = Math.min(UNMAP_BLOCKS, record.blockCount - done);
    await map.pinExisting(record.startBlock + done, count);
    map.unmap(record.startBlock + done, count);
    map.unpin(record.startBlock + done, count);
  }
  written(record, state);
}

async function applyAttributes(map: ExtentMap, record: DecodedRecord, state: Mutable<RecoveredState>): Promise<void> {
  if (record.newSizeBytes < state.sizeBytes) await map.truncate(Math.ceil(record.newSizeBytes / BLOCK_BYTES));
  const at = (index: number): Timestamp => ({ seconds: record.times[index] ?? 0, nanoseconds: record.times[index + 1] ?? 0 });
  state.sizeBytes = record.newSizeBytes;
  state.atime = at(0);
  state.mtime = at(2);
  state.ctime = at(4);
}

function written(record: DecodedRecord, state: Mutable<RecoveredState>): void {
  const time: Timestamp = { seconds: record.seconds, nanoseconds: record.nanoseconds };
  state.sizeBytes = record.newSizeBytes;
  state.mtime = time;
  state.ctime = time;
}
