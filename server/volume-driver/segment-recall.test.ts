import assert from 'node:assert/strict';
import { test } from 'node:test';

import { MemoryStore } from '../../backends/memory/memory-store.ts';
import type { ByteRange, GetOutcome } from '../../backends/object-store.ts';
import { StoreError } from '../../backends/object-store.ts';
import { seededRandom } from '../../backends/virtual-clock.ts';
import { silentLogger } from '../core/logger.ts';
import { SegmentFiles } from '../object-log/segment-files.ts';
import { FaultyDisk } from '../object-log/testing/faulty-disk.ts';
import { buildSegment, DIRECTORY, termOf, UUID } from '../object-log/testing/segment-builder.ts';
import { SegmentRecall } from './segment-recall.ts';
import { countingRowIds, SegmentTable } from './segment-table.ts';
import { volumeNames } from './storage-names.ts';
import { SimulatedClock, SimulatedRouter, SimulatedWorld } from './testing/simulated-router.ts';

const KIB = 1024;
const BLOCK = 4096;
const NAMES = volumeNames('vpool1');
const TERM = termOf(1);

class AnsweringStore extends MemoryStore {
  gets = 0;
  answer: (outcome: GetOutcome, signal?: AbortSignal) => GetOutcome | Promise<GetOutcome> = (outcome) => outcome;

  override async get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
    this.gets += 1;
    return this.answer(await super.get(bucket, name, range), signal);
  }
}

/** One segment of 40 blocks on a store, none on the disk. */
async function setUp(cacheBytesMax = 4096 * KIB, recycle = true) {
  const disk = new FaultyDisk(seededRandom(3));
  const clock = new SimulatedClock(() => disk.pending > 0);
  const process = disk.process();
  const open = (): Promise<SegmentFiles> =>
    clock.run(
      SegmentFiles.open(
        { disk: process, clock, logger: silentLogger },
        { directory: DIRECTORY, segmentFileBytes: 200 * KIB, poolFilesMax: 4, cacheBytesMax, reserveBytes: 4096, recycle },
      ),
    );
  const files = await open();
  const store = new AnsweringStore();
  const bytes = buildSegment({ number: 7, term: TERM, base: 1, blocks: [16, 1, 0, 23], sealed: true }).bytes;
  const table = new SegmentTable(countingRowIds());
  const row = table.add({ kind: 'segment', bucket: '', objectUuid: '', term: TERM, number: 7, sizeBytes: bytes.length });
  await store.createBucket(NAMES.bucket(UUID, ''));
  await store.put(NAMES.bucket(UUID, ''), table.objectName(row), { kind: 'bytes', chunks: [bytes] });
  const recall = new SegmentRecall({ store, files, disk: process, clock, logger: silentLogger });
  return {
    disk,
    clock,
    files,
    store,
    bytes,
    table,
    row,
    recall,
    open,
    fetched: (requests: number, each = BLOCK): void => {
      for (let request = 0; request < requests; request += 1) recall.fetched(UUID, NAMES, table, row, each);
    },
    turns: () => clock.run(clock.sleep(50)),
    left: (place: string): string[] => disk.files(`${DIRECTORY}/${place}/`).filter((path) => !/free-\d+\.seg$/.test(path)),
  };
}

test('a segment comes back when its reads have cost as much as the whole of it, and is found by the next start', async () => {
  const { fetched, turns, files, store, bytes, open, clock, recall, left } = await setUp();
  fetched(3);
  await turns();
  assert.equal(store.gets, 0, 'three reads are not worth 160 KiB');
  fetched(1);
  fetched(10);
  await turns();
  assert.equal(store.gets, 1);
  assert.deepEqual(recall.statistics(), { recalled: 1, failures: 0 });
  assert.deepEqual(left('pool'), []);
  for (const at of [files, await open()]) {
    const segment = at.segment(UUID, 7);
    assert.deepEqual([segment?.place, segment?.bytes, segment?.term], ['cache', bytes.length, TERM]);
    const target = Buffer.alloc(bytes.length);
    assert.equal(await clock.run(at.read(segment!, 0, target)), bytes.length);
    assert.ok(target.equals(bytes));
    assert.equal(at.cacheBytes, bytes.length);
    assert.equal(at.dirtyBytes, 0);
  }
});

test('one pass over a segment in large reads does not bring it back, a second one does', async () => {
  const { fetched, turns, store, recall, bytes } = await setUp();
  fetched(1, bytes.length);
  await turns();
  assert.equal(store.gets, 0);
  fetched(1, bytes.length);
  await turns();
  assert.equal(recall.statistics().recalled, 1);
});

const BAD_ANSWERS: readonly { name: string; answer: (outcome: GetOutcome) => GetOutcome }[] = [
  { name: 'is absent', answer: () => ({ kind: 'absent' }) },
  { name: 'is cut off', answer: (outcome) => (outcome.kind === 'found' ? { kind: 'found', bytes: outcome.bytes.subarray(0, -1) } : outcome) },
  {
    name: 'has one wrong bit in a block',
    answer: (outcome) => {
      if (outcome.kind === 'found') outcome.bytes[100_000]! ^= 8;
      return outcome;
    },
  },
  {
    name: 'has one wrong bit in its index',
    answer: (outcome) => {
      if (outcome.kind === 'found') outcome.bytes[outcome.bytes.length - 100]! ^= 8;
      return outcome;
    },
  },
  {
    name: 'is another segment',
    answer: () => ({ kind: 'found', bytes: buildSegment({ number: 8, term: TERM, base: 1, blocks: [16, 1, 0, 23], sealed: true }).bytes }),
  },
  {
    name: 'is an error',
    answer: () => {
      throw new StoreError('retry', 'not now');
    },
  },
];

for (const { name, answer } of BAD_ANSWERS) {
  test(`an answer that ${name} is not kept, and is not asked for again at once`, async () => {
    const { fetched, turns, store, recall, files, left, clock } = await setUp();
    store.answer = answer;
    fetched(10);
    await turns();
    fetched(10);
    await turns();
    assert.equal(store.gets, 1);
    assert.deepEqual(recall.statistics(), { recalled: 0, failures: 1 });
    assert.equal(files.segment(UUID, 7), null);
    assert.deepEqual([...left('pool'), ...left('cache')], []);
    store.answer = (outcome) => outcome;
    await clock.run(clock.sleep(30_000));
    fetched(10);
    await turns();
    assert.equal(recall.statistics().recalled, 1);
  });
}

test('a disk that fails, or is short, or the one of the backend, or a small cache, keeps reads where they are, and no file is left', async () => {
  const failing = await setUp();
  failing.disk.setFaults({ writeError: 1 });
  failing.fetched(10);
  await failing.turns();
  assert.deepEqual(failing.recall.statistics(), { recalled: 0, failures: 1 });
  assert.deepEqual([...failing.left('pool'), ...failing.left('cache')], []);

  const short = await setUp();
  short.disk.capacityBytes = short.disk.usedBytes + 100 * KIB;
  await short.clock.run(short.clock.sleep(2000));
  short.fetched(10);
  await short.turns();
  assert.equal(short.store.gets, 0);

  const shared = await setUp(4096 * KIB, false);
  shared.fetched(10);
  await shared.turns();
  assert.equal(shared.store.gets, 0);

  const small = await setUp(200 * KIB);
  small.fetched(10);
  await small.turns();
  assert.equal(small.store.gets, 0);
});

test('a segment that nobody needs any more when it comes is not kept', async () => {
  const { fetched, turns, store, table, row, files, left } = await setUp();
  store.answer = (outcome) => {
    table.free(row);
    return outcome;
  };
  fetched(10);
  await turns();
  assert.equal(store.gets, 1);
  assert.equal(files.segment(UUID, 7), null);
  assert.deepEqual(left('pool'), []);
});

test('closing ends what is under way and leaves nothing behind', async () => {
  const { fetched, turns, store, recall, clock, left } = await setUp();
  store.answer = (_outcome, signal) =>
    new Promise((_resolve, reject) => signal?.addEventListener('abort', () => reject(new StoreError('retry', 'aborted')), { once: true }));
  fetched(10);
  await turns();
  await clock.run(recall.close());
  fetched(10);
  await turns();
  assert.equal(store.gets, 1);
  assert.deepEqual(left('pool'), []);
});

test('a volume that is read again and again from the backend is read from the local disk in the end', async () => {
  const random = seededRandom(8);
  const world = new SimulatedWorld(new FaultyDisk(random), random, 'volume');
  const router = await SimulatedRouter.start(
    world,
    {
      segmentBytes: 64 * KIB,
      segmentFileBytes: 80 * KIB,
      checkpointAfterBytes: 256 * KIB,
      dirtyBytesMax: 4096 * KIB,
      cacheBytes: 320 * KIB,
      graceTimeMs: 60_000,
      recycle: true,
    },
    silentLogger,
  );
  const object = await router.clock.run(router.driver.open(world.inode));
  const time = { seconds: 1_700_000_000, nanoseconds: 0 };
  for (let block = 0; block < 160; block += 1) {
    const written = await router.clock.run(object.write(block * BLOCK, BLOCK, [Buffer.alloc(BLOCK, block + 1)], true, time));
    assert.equal(written.kind, 'changed');
  }
  await router.clock.run(object.flush(router.clock.monotonicMs() + 60_000));
  assert.equal(router.files.dirtyBytes, 0);
  const read = async (block: number): Promise<void> => {
    const target = Buffer.alloc(BLOCK);
    await router.clock.run(Promise.resolve(object.read(block * BLOCK, target)));
    assert.ok(target.equals(Buffer.alloc(BLOCK, block + 1)), `block ${block}`);
  };
  assert.equal(router.files.segment(world.inode.uuid!, 1), null, 'it was evicted');
  for (const block of [0, 5, 10, 1, 6, 11]) await read(block);
  await router.clock.run(router.clock.sleep(1000));
  assert.equal(router.files.segment(world.inode.uuid!, 1)?.place, 'cache');
  // Neither the backend nor the RAM cache has it any more.
  router.store.setFaults({ failBefore: 1, failClass: 'denied' });
  for (const block of [2, 7, 12]) await read(block);
  await router.clock.run(object.close());
});
