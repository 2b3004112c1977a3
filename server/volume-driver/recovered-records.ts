import type { Term } from '../core/ids.ts';
/** Applies the records that a recovery found behind a checkpoint, or that come from another router, to the extent map. */
import type { Clock, Timestamp } from '../core/time.ts';
import { RecordKind } from '../object-log/segment-codec.ts';
import type { DecodedRecord } from '../object-log/segment-codec.ts';
import type { BlockObjectState } from './block-object.ts';
import { BLOCK_BYTES } from './extent-map.ts';
import type { ExtentMap } from './extent-map.ts';
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

/**
 * Applies `segments` in order; `rows` (segment number -> table row) is completed. Returns size and times after the last record.
 */
export async function applyRecovered(
  map: ExtentMap,
  table: SegmentTable,
  rows: Map<number, number>,
  segments: readonly SegmentRecords[],
  from: RecoveredState,
  clock: Clock,
): Promise<RecoveredState> {
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
    for (const record of segment.records) {
      state = await applyRecord(map, row, record, state);
      turn += 1;
      if (turn % TURN_RECORDS === 0) await new Promise<void>((resolve) => clock.soon(resolve));
    }
  }
  return state;
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
