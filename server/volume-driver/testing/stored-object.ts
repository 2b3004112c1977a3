/** An object whose blocks are on the backend and nowhere else, read as a router reads it: for tests and benchmarks of reading. */
import { crc32 } from 'node:zlib';

import type { ObjectStore } from '../../../backends/object-store.ts';
import { BlockCache } from '../../../cache/block-cache.ts';
import type { ObjectUuid } from '../../core/ids.ts';
import { silentLogger } from '../../core/logger.ts';
import type { Clock } from '../../core/time.ts';
import { BackendReads } from '../backend-reads.ts';
import { BlockObject } from '../block-object.ts';
import { BlockReader } from '../block-reader.ts';
import type { LocalSegments } from '../block-reader.ts';
import { collect, describeCheckpoint, MemoryDisk, nextTurn, TERM } from '../extent-map.fixture.ts';
import { ExtentMap } from '../extent-map.ts';
import { openCheckpoint } from '../open-checkpoint.ts';
import { PagePool } from '../page-pool.ts';
import type { PageSource } from '../page-residence.ts';
import { ReadAheadBudget } from '../read-ahead-budget.ts';
import { ReadAhead, ReadAheadStatistics } from '../read-ahead.ts';
import { countingRowIds, SegmentTable } from '../segment-table.ts';
import { volumeNames } from '../storage-names.ts';
import { StoredPages } from '../stored-pages.ts';

const BLOCK = 4096;
const UUID = '00112233445566778899aabbccddeeff' as ObjectUuid;
const NAMES = volumeNames('vpool1');
const IDS = countingRowIds();
const TIME = { seconds: 1, nanoseconds: 0 };
/** Before every 256 blocks of a segment: a record head, as a sequential writer leaves it. */
const HEAD_BYTES = 1104;
const RECORD_BLOCKS = 256;

export const BUCKET = NAMES.bucket(UUID, '');

export interface StoredObjectSettings {
  readonly cacheBytes: number;
  readonly readAheadBytesMax: number;
  readonly readAheadRequestsMax?: number;
  readonly mapBytes?: number;
}

export class StoredObject {
  readonly object: BlockObject;
  readonly map: ExtentMap;
  readonly table: SegmentTable;
  readonly readAhead: ReadAhead;
  readonly budget: ReadAheadBudget;
  readonly statistics: ReadAheadStatistics;
  readonly reads: BackendReads;
  readonly #store: ObjectStore;
  readonly #pool: PagePool;
  #segments: number;

  private constructor(
    parts: {
      map: ExtentMap;
      table: SegmentTable;
      pool: PagePool;
      store: ObjectStore;
      clock: Clock;
      segments: number;
      files: LocalSegments;
      reads: BackendReads;
    },
    blocks: number,
    settings: StoredObjectSettings,
  ) {
    const { map, table, store, clock, files } = parts;
    this.map = map;
    this.table = table;
    this.#pool = parts.pool;
    this.#store = store;
    this.#segments = parts.segments;
    this.reads = parts.reads;
    this.budget = new ReadAheadBudget({ bytesMax: settings.readAheadBytesMax, requestsMax: settings.readAheadRequestsMax ?? 12 });
    this.statistics = new ReadAheadStatistics();
    const cache = new BlockCache({ limitBytes: settings.cacheBytes, slabBytes: 1024 * 1024 });
    const components = { uuid: UUID, map, table, names: NAMES, files, store, cache, clock };
    this.readAhead = new ReadAhead({ ...components, budget: this.budget, recall: null, former: () => null }, this.statistics);
    this.object = new BlockObject(
      {
        map,
        table,
        cache,
        readAhead: this.readAhead,
        reader: new BlockReader({ files, store, reads: this.reads, recall: null, cache, names: NAMES, logger: silentLogger }),
        // Nothing is written through it.
        admission: null as never,
        hooks: null as never,
      },
      { uuid: UUID, term: TERM },
      { sizeBytes: blocks * BLOCK, atime: TIME, mtime: TIME, ctime: TIME, unstableOpen: false },
      0,
      { patienceMs: 1000 },
    );
  }

  /**
   * Stores `order` (block numbers in the order in which they were written; what is not named is a hole), `segmentBlocks` to a segment, and a
   * checkpoint, and opens it from that: no page of the map is in RAM. `content` gives the 4 KiB of a block.
   */
  static async make(
    components: { store: ObjectStore; clock: Clock; files?: LocalSegments; whileStoring?: ObjectStore },
    blocks: number,
    order: readonly number[],
    segmentBlocks: number,
    content: (block: number) => Buffer,
    settings: StoredObjectSettings,
  ): Promise<StoredObject> {
    const { store, clock } = components;
    const to = components.whileStoring ?? store;
    const pool = await PagePool.open({ disk: new MemoryDisk(), spillPath: '/spill', yieldToLoop: nextTurn }, { bytesMax: 2 ** 26 });
    const table = new SegmentTable(IDS);
    const map = new ExtentMap({ pool, table, source: { read: () => Promise.reject(new Error('nothing is stored yet')) } });
    await to.createBucket(BUCKET);
    let segments = 0;
    for (let from = 0; from < order.length; from += segmentBlocks) {
      segments += 1;
      await storeSegment(to, map, table, segments, order.slice(from, from + segmentBlocks), content);
    }
    const description = describeCheckpoint(1);
    const frozen = map.beginCheckpoint();
    const bytes = await collect(frozen.encode(description));
    const row = table.add({ kind: 'checkpoint', bucket: '', objectUuid: '', term: TERM, number: 1, sizeBytes: bytes.byteLength });
    await to.put(BUCKET, table.objectName(row), { kind: 'bytes', chunks: [bytes] });
    frozen.commit(row);
    map.close();
    await pool.close();

    const coldPool = await PagePool.open(
      { disk: new MemoryDisk(), spillPath: '/spill', yieldToLoop: nextTurn },
      { bytesMax: settings.mapBytes ?? 2 ** 26 },
    );
    const reads = new BackendReads({ clock, logger: silentLogger });
    const sourceOf = (of: SegmentTable): PageSource => new StoredPages({ store, reads, names: NAMES }, UUID, of);
    const opened = await openCheckpoint({
      reader: {
        description: 'checkpoint',
        size: () => Promise.resolve(bytes.byteLength),
        read: (at, length) => Promise.resolve(bytes.subarray(at, at + length)),
      },
      pool: coldPool,
      rowIds: IDS,
      sourceOf,
    });
    const files = components.files ?? { segment: () => null, read: () => Promise.reject(new Error('there are no local segments')) };
    return new StoredObject({ map: opened.map, table: opened.table, pool: coldPool, store, clock, segments, files, reads }, blocks, settings);
  }

  /** Writes these blocks again, as a segment that is on the backend at once. */
  async overwrite(blocks: readonly number[], content: (block: number) => Buffer): Promise<void> {
    this.#segments += 1;
    await storeSegment(this.#store, this.map, this.table, this.#segments, blocks, content);
  }

  async read(offsetBytes: number, countBytes: number): Promise<Buffer> {
    const target = Buffer.alloc(countBytes, 0xee);
    return target.subarray(0, await this.object.read(offsetBytes, target));
  }

  async close(): Promise<void> {
    await this.object.close();
    await this.#pool.close();
  }
}

async function storeSegment(
  store: ObjectStore,
  map: ExtentMap,
  table: SegmentTable,
  number: number,
  blocks: readonly number[],
  content: (block: number) => Buffer,
): Promise<void> {
  const row = table.add({ kind: 'segment', bucket: '', objectUuid: '', term: TERM, number, sizeBytes: 0 });
  const chunks: Buffer[] = [Buffer.alloc(4096, 0xaa)];
  let at = 4096;
  const places: number[] = [];
  const crcs: number[] = [];
  blocks.forEach((block, index) => {
    if (index % RECORD_BLOCKS === 0) {
      chunks.push(Buffer.alloc(HEAD_BYTES, 0xbb));
      at += HEAD_BYTES;
    }
    const bytes = content(block);
    chunks.push(bytes);
    places.push(at);
    crcs.push(crc32(bytes));
    at += BLOCK;
  });
  await store.put(BUCKET, table.objectName(row), { kind: 'bytes', chunks });
  table.setSizeBytes(row, at);
  for (const [index, block] of blocks.entries()) {
    await map.pin(block, 1);
    map.set(block, 1, row, places[index]!, crcs, index);
    map.unpin(block, 1);
  }
}
