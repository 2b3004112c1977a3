import type { Term } from '../core/ids.ts';
/** Applies the records that a recovery found behind a checkpoint, or that come from another router, to the extent map. */
import type { Clock, Timestamp } from '../core/time.ts';
import { RecordKind } from '../object-log/segment-codec.ts';
import type { DecodedRecord } from '../object-log/segment-codec.ts';
import type { BlockObjectState } from './applied-state.ts';
import { BLOCK_BYTES } from './extent-map.ts';
import type { ExtentMap } from './extent-map.ts';
import { PAGE_BLOCKS } from './page-image.ts';
import type { SegmentTable } from './segment-table.ts';

export type RecoveredState = BlockObjectState;

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
/** Records after which other work of the event loop gets its turn. */
const TURN_RECORDS = 2000;
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
  let state = from;
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
      state = await applyRecord(map, row, records[index] as DecodedRecord, state);
      turn += 1;
      if (turn % TURN_RECORDS === 0) await new Promise<void>((resolve) => clock.soon(resolve));
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

async function applyRecord(map: ExtentMap, row: number, record: DecodedRecord, state: RecoveredState): Promise<RecoveredState> {
  const time: Timestamp = { seconds: record.seconds, nanoseconds: record.nanoseconds };
  switch (record.kind) {
    case RecordKind.DATA:
      await map.pin(record.startBlock, record.blockCount);
      map.set(record.startBlock, record.blockCount, row, record.payloadOffset, record.crcs, 0);
      map.unpin(record.startBlock, record.blockCount);
      return { ...state, sizeBytes: record.newSizeBytes, mtime: time, ctime: time };
    case RecordKind.ZERO:
      for (let done = 0; done < record.blockCount; done += UNMAP_BLOCKS) {
        const count = Math.min(UNMAP_BLOCKS, record.blockCount - done);
        await map.pinExisting(record.startBlock + done, count);
        map.unmap(record.startBlock + done, count);
        map.unpin(record.startBlock + done, count);
      }
      return { ...state, sizeBytes: record.newSizeBytes, mtime: time, ctime: time };
    case RecordKind.ATTRIBUTES: {
      if (record.newSizeBytes < state.sizeBytes) await map.truncate(Math.ceil(record.newSizeBytes / BLOCK_BYTES));
      const at = (index: number): Timestamp => ({ seconds: record.times[index] ?? 0, nanoseconds: record.times[index + 1] ?? 0 });
      return { ...state, sizeBytes: record.newSizeBytes, atime: at(0), mtime: at(2), ctime: at(4) };
    }
    case RecordKind.COMMIT_MARK:
    case RecordKind.SNAPSHOT_MARK:
    case RecordKind.TERM_START:
    case RecordKind.SEAL:
      return state;
  }
}
