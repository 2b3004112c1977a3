/**
 * What of an object's log is visible: the extent map, size and times, after a prefix of the log's records. Records are applied in sequence, once each,
 * within one turn; those that a fault moved get their new place without being applied again.
 */
import type { BlockCache } from '../../cache/block-cache.ts';
import { assert } from '../core/assert.ts';
import { compareTimestamp } from '../core/time.ts';
import type { Timestamp } from '../core/time.ts';
import type { LogRecord } from '../object-log/log-record.ts';
import { BLOCK_BYTES, RECORD_BLOCKS_MAX, RecordFlag, RecordKind } from '../object-log/segment-codec.ts';
import type { ExtentMap } from './extent-map.ts';
import type { SegmentRows } from './segment-rows.ts';
import type { SegmentTable } from './segment-table.ts';

/** Records up to this many blocks leave their blocks in the RAM cache: larger ones are sequential and come back from the page cache. */
const CACHE_WRITES_BLOCKS_MAX = 64;
/** Where map.read puts its answer; used before anything waits, so one set serves all objects. */
const scratchRows = new Uint32Array(RECORD_BLOCKS_MAX);
const scratchOffsets = new Uint32Array(RECORD_BLOCKS_MAX);
const scratchCrcs = new Uint32Array(RECORD_BLOCKS_MAX);

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

export class AppliedState {
  readonly #map: ExtentMap;
  readonly #table: SegmentTable;
  readonly #rows: SegmentRows;
  readonly #cache: BlockCache;
  readonly #events: { touched(startBlock: number, blockCount: number): void };
  #attributes: ObjectAttributes;
  #before: ObjectAttributes;
  #unstableOpen: boolean;
  #sequence: number;

  /** `sequence`: of the last record whose effect `state` and the map have. */
  constructor(
    components: {
      map: ExtentMap;
      table: SegmentTable;
      rows: SegmentRows;
      cache: BlockCache;
      events: { touched(startBlock: number, blockCount: number): void };
    },
    state: BlockObjectState,
    sequence: number,
  ) {
    this.#map = components.map;
    this.#table = components.table;
    this.#rows = components.rows;
    this.#cache = components.cache;
    this.#events = components.events;
    this.#attributes = { sizeBytes: state.sizeBytes, atime: state.atime, mtime: state.mtime, ctime: state.ctime };
    this.#before = this.#attributes;
    this.#unstableOpen = state.unstableOpen;
    this.#sequence = sequence;
  }

  get attributes(): ObjectAttributes {
    return this.#attributes;
  }
  /** As they were before the last record. */
  get before(): ObjectAttributes {
    return this.#before;
  }
  /** Sequence of the last record: always a prefix of the log. */
  get sequence(): number {
    return this.#sequence;
  }
  /** Whether the prefix ends with UNSTABLE data and no COMMIT behind it. */
  get unstableOpen(): boolean {
    return this.#unstableOpen;
  }

  /** ctime that the registry made: times never run back. */
  observeTime(time: Timestamp): void {
    if (compareTimestamp(this.#attributes.ctime, time) < 0) this.#attributes = { ...this.#attributes, ctime: time };
  }

  /** LogEvents.apply. Pages of the blocks are pinned. */
  apply(record: LogRecord): void {
    const before = this.#attributes;
    this.#before = before;
    if ((record.flags & RecordFlag.UNSTABLE) !== 0) this.#unstableOpen = true;
    else if (record.kind === RecordKind.COMMIT_MARK) this.#unstableOpen = false;
    const time = { seconds: record.seconds, nanoseconds: record.nanoseconds };
    switch (record.kind) {
      case RecordKind.DATA: {
        const row = this.#rows.get(record.segmentNumber);
        assert(row !== undefined, `segment ${record.segmentNumber} has no row`);
        this.#map.set(record.startBlock, record.blockCount, row, record.payloadOffset, record.crcs, 0);
        if (record.blockCount <= CACHE_WRITES_BLOCKS_MAX) this.#keepInRam(record, this.#table.globalId(row));
        this.#attributes = { sizeBytes: record.newSizeBytes, atime: before.atime, mtime: time, ctime: time };
        break;
      }
      case RecordKind.ZERO:
        this.#map.unmap(record.startBlock, record.blockCount);
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
    this.#sequence = record.sequence;
    if (record.blockCount > 0) this.#events.touched(record.startBlock, record.blockCount);
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
      await this.#map.pin(startBlock, blockCount);
      this.#map.read(startBlock, blockCount, scratchRows, scratchOffsets, scratchCrcs);
      for (let index = 0; index < blockCount; index += 1) {
        if (scratchRows[index] !== former || scratchOffsets[index] !== record.formerOffset + index * BLOCK_BYTES) continue;
        this.#map.set(startBlock + index, 1, row, record.payloadOffset + index * BLOCK_BYTES, record.crcs, index);
      }
      this.#map.unpin(startBlock, blockCount);
      this.#events.touched(startBlock, blockCount);
    }
  }
}
