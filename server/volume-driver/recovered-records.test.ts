import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';

import { MemoryStore } from '../../backends/memory/memory-store.ts';
import type { GetOutcome } from '../../backends/object-store.ts';
import { systemClock } from '../core/node-time.ts';
import type { Clock } from '../core/time.ts';
import { RecordKind } from '../object-log/segment-codec.ts';
import type { DecodedRecord } from '../object-log/segment-codec.ts';
import { MemoryDisk, openPool, TERM } from './extent-map.fixture.ts';
import { ExtentMap } from './extent-map.ts';
import { FRAME_BYTES } from './page-image.ts';
import { applyRecovered } from './recovered-records.ts';
import { countingRowIds, SegmentTable } from './segment-table.ts';
import { StoredObject } from './testing/stored-object.ts';

const BLOCK = 4096;
const PAGES = 400;
const CONTENT = Buffer.alloc(BLOCK, 1);

test('the pages that records need are asked for together, so that a far backend is waited for once and not for each', async () => {
  const store = new MemoryStore();
  // Two blocks of each page, and far enough from each other that no two pages come with one request.
  const blocks = Array.from({ length: PAGES * 2 }, (_, index) => Math.floor(index / 2) * 1024 + (index % 2) * 512);
  const stored = await StoredObject.make({ store, clock: systemClock }, PAGES * 1024, blocks, 4096, () => CONTENT, {
    cacheBytes: 2 ** 20,
    readAheadBytesMax: 0,
  });
  let running = 0;
  let together = 0;
  let rounds = 0;
  const get = store.get.bind(store);
  store.get = async (...call: Parameters<typeof get>): Promise<GetOutcome> => {
    if (running === 0) rounds += 1;
    running += 1;
    together = Math.max(together, running);
    await systemClock.sleep(5);
    running -= 1;
    return get(...call);
  };
  const record = (index: number): DecodedRecord => ({
    kind: RecordKind.DATA,
    flags: 0,
    sequence: 1 + index,
    // Not in the order in which pages lie in the checkpoint.
    startBlock: ((index * 37) % PAGES) * 1024 + 7,
    blockCount: 1,
    newSizeBytes: PAGES * 1024 * BLOCK,
    seconds: 1,
    nanoseconds: 0,
    durableSequence: 0,
    payloadOffset: 4096 * (1 + index),
    payloadBytes: BLOCK,
    crcs: Uint32Array.of(crc32(CONTENT)),
    times: [],
    call: null,
    endOffset: 4096 * (2 + index),
  });
  const time = { seconds: 1, nanoseconds: 0 };
  const from = { sizeBytes: 0, atime: time, mtime: time, ctime: time, unstableOpen: false };
  const segment = { number: 9, term: TERM, sizeBytes: 0, records: Array.from({ length: PAGES }, (_, index) => record(index)) };
  await applyRecovered(stored.map, stored.table, new Map(), [segment], from, systemClock, 4000);
  assert.equal(stored.map.mappedBlocks, PAGES * 3);
  assert.ok(rounds <= 4, `${rounds} rounds of requests, at most ${together} together`);
  await stored.close();
});

test('many records, or large ones, leave turns to others', async () => {
  const pool = await openPool(new MemoryDisk(), { bytesMax: 64 * FRAME_BYTES });
  const time = { seconds: 1, nanoseconds: 0 };
  const from = { sizeBytes: 0, atime: time, mtime: time, ctime: time, unstableOpen: true };
  const turnsOf = async (count: number, blockCount: number): Promise<number> => {
    let turns = 0;
    const clock: Clock = {
      wallMs: () => 0,
      monotonicMs: () => 0,
      after: () => assert.fail('nothing is waited for'),
      sleep: () => assert.fail('nothing is waited for'),
      soon: (callback) => {
        turns += 1;
        setImmediate(callback);
      },
    };
    const table = new SegmentTable(countingRowIds());
    const map = new ExtentMap({ pool, table, source: { read: () => assert.fail('nothing is stored') } });
    const records = Array.from({ length: count }, (_, index): DecodedRecord => ({
      kind: RecordKind.DATA,
      flags: 0,
      sequence: 1 + index,
      startBlock: (index * blockCount) % (4 * 1024),
      blockCount,
      newSizeBytes: 1 + index,
      seconds: 1 + index,
      nanoseconds: 0,
      durableSequence: 0,
      payloadOffset: 4096,
      payloadBytes: blockCount * BLOCK,
      crcs: new Uint32Array(blockCount),
      times: [],
      call: null,
      endOffset: 4096,
    }));
    const state = await applyRecovered(map, table, new Map(), [{ number: 9, term: TERM, sizeBytes: 0, records }], from, clock, 64);
    const last = { seconds: count, nanoseconds: 0 };
    assert.deepEqual(state, { ...from, sizeBytes: count, mtime: last, ctime: last });
    map.close();
    return turns;
  };
  assert.equal(await turnsOf(10_000, 1), 5);
  assert.equal(await turnsOf(1000, 256), 8);
  assert.equal(from.sizeBytes, 0, 'what it began with is the caller’s');
  await pool.close();
});
