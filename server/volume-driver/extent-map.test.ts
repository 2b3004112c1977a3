import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  contentOf,
  CheckpointStore,
  describeCheckpoint,
  collect,
  MemoryDisk,
  nextTurn,
  openPool,
  segment,
  storeCheckpoint,
  TERM,
} from './extent-map.fixture.ts';
import { BLOCKS_MAX, ExtentMap } from './extent-map.ts';
import { openCheckpoint } from './open-checkpoint.ts';
import { FRAME_BYTES } from './page-image.ts';
import type { PagePoolLimits } from './page-pool.ts';
import { countingRowIds, SegmentTable } from './segment-table.ts';

async function world(limits: Partial<PagePoolLimits> = {}) {
  const disk = new MemoryDisk();
  const pool = await openPool(disk, { bytesMax: 16 * FRAME_BYTES, ...limits });
  const table = new SegmentTable(countingRowIds());
  const store = new CheckpointStore();
  const map = new ExtentMap({ pool, table, source: store.sourceOf(table) });
  const row = table.add(segment(1));
  async function put(block: number, count: number, toRow = row, offset = 0): Promise<void> {
    await map.pin(block, count);
    map.set(
      block,
      count,
      toRow,
      offset,
      Array.from({ length: count }, (_, index) => block + index + 1),
      0,
    );
    map.unpin(block, count);
  }
  async function drop(block: number, count: number): Promise<void> {
    await map.pinExisting(block, count);
    map.unmap(block, count);
    map.unpin(block, count);
  }
  return { disk, pool, table, store, map, row, put, drop };
}

test('a set is read back, holes are row 0, and blocks of a run lie 4096 bytes apart', async () => {
  const { map, put, row, table } = await world();
  await put(1020, 8, row, 512);
  const [rows, offsets, crcs] = [new Uint32Array(10), new Uint32Array(10), new Uint32Array(10)];
  assert.equal(map.read(1019, 10, rows, offsets, crcs), true);
  assert.deepEqual([...rows], [0, ...Array.from({ length: 8 }, () => row), 0]);
  assert.deepEqual([...offsets], [0, ...Array.from({ length: 8 }, (_, index) => 512 + 4096 * index), 0]);
  assert.deepEqual([...crcs], [0, 1021, 1022, 1023, 1024, 1025, 1026, 1027, 1028, 0]);
  assert.equal(map.mappedBlocks, 8);
  assert.equal(table.live(row), 8);
  assert.deepEqual(await map.verify(), []);
});

test('overwriting moves references from the old row to the new one', async () => {
  const { map, put, drop, row, table } = await world();
  const other = table.add(segment(2));
  await put(0, 100);
  await put(50, 100, other);
  assert.equal(table.live(row), 50);
  assert.equal(table.live(other), 100);
  await drop(40, 20);
  assert.equal(table.live(row), 40);
  assert.equal(table.live(other), 90);
  assert.equal(map.mappedBlocks, 130);
  assert.deepEqual([...table.unreferencedRows()], []);
  await drop(0, 60);
  assert.deepEqual([...table.unreferencedRows()], [row]);
  assert.deepEqual(await map.verify(), []);
});

test('the last block of a 64 TiB object works, and an empty map has no directory to speak of', async () => {
  const { map, put } = await world();
  assert.ok(map.directory.memoryBytes < 4096);
  await put(BLOCKS_MAX - 1, 1);
  assert.deepEqual(await contentOf(map), new Map([[BLOCKS_MAX - 1, `1 0 ${BLOCKS_MAX}`]]).set(BLOCKS_MAX - 1, `1 0 ${BLOCKS_MAX % 2 ** 32}`));
  await map.truncate(BLOCKS_MAX - 1);
  assert.equal(map.mappedBlocks, 0);
  assert.equal(map.directory.pages, 0);
});

test('unmapping pages that are not there takes no frame and leaves nothing behind', async () => {
  const { map, drop, pool } = await world();
  await drop(5_000_000, 8 * 1024);
  assert.equal(map.directory.pages, 0);
  assert.equal(map.dirtyPages, 0);
  assert.equal(pool.stats.framesUsed, 0);
});

test('a volume of 100 times the pool stays within the pool: pages are spilled and come back', async () => {
  const { map, put, pool, disk } = await world();
  const pages = 1600;
  for (let page = 0; page < pages; page += 1) await put(page * 1024 + (page % 1024), 1);
  assert.equal(pool.stats.framesAllocated, 16);
  assert.ok(pool.stats.framesDirty <= 16);
  assert.ok(pool.stats.spilledPages >= pages - 16);
  assert.ok((disk.files.get('/spill')?.byteLength ?? 0) <= 2 * pages * FRAME_BYTES);
  assert.equal(map.mappedBlocks, pages);
  assert.deepEqual(await map.verify(), []);
  assert.equal((await contentOf(map)).get(700 * 1024 + 700), `1 0 ${700 * 1024 + 701}`);
  await map.truncate(0);
  assert.equal(pool.stats.spilledPages, 0);
  assert.equal(pool.stats.framesUsed, 0);
  assert.equal(map.directory.pages, 0);
});

test('read says false for a page that left, and readLoading brings it back', async () => {
  const { map, put } = await world();
  for (let page = 0; page < 40; page += 1) await put(page * 1024, 1);
  const [rows, offsets, crcs] = [new Uint32Array(1), new Uint32Array(1), new Uint32Array(1)];
  assert.equal(map.read(0, 1, rows, offsets, crcs), false);
  await map.readLoading(0, 1, rows, offsets, crcs);
  assert.equal(crcs[0], 1);
  assert.equal(map.read(0, 1, rows, offsets, crcs), true);
});

test('pins beyond the pool wait their turn, and everybody gets one', async () => {
  const { map, row, pool } = await world();
  const order: number[] = [];
  let unitsMin = pool.framesMax;
  const writers = Array.from({ length: 64 }, async (_, index) => {
    const block = index * 3 * 1024 + 1000;
    await map.pin(block, 48);
    unitsMin = Math.min(unitsMin, pool.stats.unitsFree);
    await nextTurn();
    map.set(block, 48, row, 0, new Uint32Array(48).fill(9), 0);
    map.unpin(block, 48);
    order.push(index);
  });
  await Promise.all(writers);
  assert.equal(order.length, 64);
  assert.equal(unitsMin, 0);
  assert.equal(pool.stats.unitsFree, 16);
  assert.equal(map.mappedBlocks, 64 * 48);
  assert.deepEqual(await map.verify(), []);
});

test('a disk that cannot take spilled pages makes pin fail, loses nothing, and recovers', async () => {
  const { map, put, disk, pool } = await world();
  for (let page = 0; page < 8; page += 1) await put(page * 1024, 1);
  disk.writeError = Object.assign(new Error('no space'), { code: 'ENOSPC' });
  await assert.rejects(
    async () => {
      for (let page = 8; page < 40; page += 1) await put(page * 1024, 1);
    },
    { code: 'ENOSPC' },
  );
  assert.equal(pool.stats.spillError, disk.writeError);
  assert.equal(pool.stats.unitsFree, 16);
  const before = map.mappedBlocks;
  disk.writeError = null;
  await put(100 * 1024, 1);
  assert.equal(pool.stats.spillError, null);
  assert.equal(map.mappedBlocks, before + 1);
  assert.deepEqual(await map.verify(), []);
});

test('a bit that flips in the spill file is found, never served', async () => {
  const { map, put, disk } = await world();
  for (let page = 0; page < 100; page += 1) await put(page * 1024, 1);
  const file = disk.files.get('/spill');
  assert.ok(file !== undefined);
  for (let at = 4100; at < file.byteLength; at += FRAME_BYTES) file[at] = file[at]! ^ 1;
  await assert.rejects(map.load(0, 1), { code: 'spill-corrupt' });
});

test('a checkpoint holds the instant it began, whatever is written while it is encoded', async () => {
  const { map, put, drop, table, store, row, pool } = await world();
  for (let page = 0; page < 50; page += 1) await put(page * 1024, 3);
  const before = await contentOf(map);
  const frozen = map.beginCheckpoint();
  assert.equal(frozen.mappedBlocks, 150);
  const other = table.add(segment(2));
  const encoding = collect(frozen.encode(describeCheckpoint(1)));
  for (let page = 0; page < 70; page += 1) await put(page * 1024 + 1, 3, other);
  await drop(10 * 1024, 2048);
  await map.truncate(40 * 1024);
  const after = await contentOf(map);
  const bytes = await encoding;
  const own = table.add({ kind: 'checkpoint', bucket: '', objectUuid: '', term: TERM, number: 1, sizeBytes: bytes.byteLength });
  store.objects.set(table.objectName(own), bytes);
  frozen.commit(own);
  assert.equal(table.live(own), 50);
  assert.deepEqual(await map.verify(), []);
  assert.deepEqual(await contentOf(map), after);
  const opened = await openCheckpoint({ reader: store.readerOf(table.objectName(own)), pool, rowIds: countingRowIds(), sourceOf: store.sourceOf });
  assert.deepEqual(await contentOf(opened.map), before);
  assert.deepEqual(await opened.map.verify(), []);
  assert.equal(opened.table.objectName(row), table.objectName(row));
  assert.equal(opened.header.sequence, 1000);
  opened.map.close();
});

test('after a commit clean pages are evicted without spilling and come back from the object', async () => {
  const { map, put, table, store, pool } = await world();
  for (let page = 0; page < 200; page += 1) await put(page * 1024, 1);
  const content = await contentOf(map);
  await storeCheckpoint(map.beginCheckpoint(), table, store, 1);
  assert.equal(map.dirtyPages, 0);
  assert.equal(pool.stats.spilledPages, 0);
  assert.equal(pool.stats.framesDirty, 0);
  assert.deepEqual(await contentOf(map), content);
  assert.ok(store.reads > 150);
  assert.equal(pool.stats.spilledPages, 0);
});

test('an abandoned checkpoint leaves its pages to the next one', async () => {
  const { map, put, table, store, pool } = await world();
  for (let page = 0; page < 30; page += 1) await put(page * 1024, 1);
  const frozen = map.beginCheckpoint();
  await put(5 * 1024, 9);
  await map.truncate(25 * 1024);
  frozen.abandon();
  const row = await storeCheckpoint(map.beginCheckpoint(), table, store, 2);
  assert.equal(table.live(row), 25);
  const opened = await openCheckpoint({ reader: store.readerOf(table.objectName(row)), pool, rowIds: countingRowIds(), sourceOf: store.sourceOf });
  assert.deepEqual(await contentOf(opened.map), await contentOf(map));
  opened.map.close();
  assert.deepEqual(await map.verify(), []);
});

test('a checkpoint without changes is a manifest only, and empty ones open', async () => {
  const { map, table, store, pool } = await world();
  const row = await storeCheckpoint(map.beginCheckpoint(), table, store, 1);
  const opened = await openCheckpoint({ reader: store.readerOf(table.objectName(row)), pool, rowIds: countingRowIds(), sourceOf: store.sourceOf });
  assert.equal(opened.map.mappedBlocks, 0);
  assert.equal(opened.table.live(opened.ownRow), 0);
});

test('checkpoint objects that are mostly superseded are rewritten and lose their last page', async () => {
  const { map, put, table, store, row } = await world({ bytesMax: 64 * FRAME_BYTES });
  const pages = 300;
  for (let page = 0; page < pages; page += 1) await put(page * 1024, 1024);
  const rows: number[] = [];
  let failures = 0;
  for (let number = 1; number <= 16; number += 1) {
    const rewritten = await map.prepareCheckpoint();
    if (rewritten > 0 && failures === 0) {
      // The object that is to be emptied cannot be read now: this checkpoint comes to nothing, and the next one does it all.
      failures += 1;
      store.readError = new Error('unreachable');
      const frozen = map.beginCheckpoint();
      await assert.rejects(collect(frozen.encode(describeCheckpoint(number))), /unreachable/);
      frozen.abandon();
      store.readError = null;
      await map.prepareCheckpoint();
    }
    rows.push(await storeCheckpoint(map.beginCheckpoint(), table, store, number));
    // Nearly all of them change each time, a few never: those keep every old object alive without compaction.
    for (let page = number; page < pages; page += 1) await put(page * 1024, 1, row, number * 4096);
  }
  assert.equal(failures, 1);
  let totalBytes = 0;
  for (const each of table.rows()) if (table.holdsPages(each) && table.live(each) > 0) totalBytes += table.sizeBytes(each);
  assert.ok(totalBytes <= 2 * pages * (FRAME_BYTES + 64) + (16 << 20) + 2 * pages * FRAME_BYTES, `${totalBytes} bytes of checkpoints`);
  assert.ok(rows.filter((each) => table.live(each) === 0).length >= 8);
  assert.deepEqual(await map.verify(), []);
});

test('a page that is being read from the spill file while a commit frees its slot comes from the object', async () => {
  const { map, put, table, store, row } = await world({ dirtyShareMax: 0 });
  for (let page = 0; page < 40; page += 1) await put(page * 1024, 2);
  const content = await contentOf(map);
  const frozen = map.beginCheckpoint();
  const bytes = await collect(frozen.encode(describeCheckpoint(1)));
  const own = table.add({ kind: 'checkpoint', bucket: '', objectUuid: '', term: TERM, number: 1, sizeBytes: bytes.byteLength });
  store.objects.set(table.objectName(own), bytes);
  const pages = [0, 1, 2, 3].filter((page) => !map.read(page * 1024, 1, new Uint32Array(1), new Uint32Array(1), new Uint32Array(1)));
  assert.ok(pages.length > 0);
  const loading = pages.map((page) => map.load(page * 1024, 1));
  frozen.commit(own);
  // Takes the slots over at once: every page that gets dirty is spilled.
  for (let page = 100; page < 160; page += 1) {
    assert.equal(map.pin(page * 1024, 9), undefined);
    map.set(page * 1024, 9, row, 0, new Uint32Array(9).fill(7), 0);
    map.unpin(page * 1024, 9);
  }
  await Promise.all(loading);
  await map.truncate(100 * 1024);
  assert.deepEqual(await contentOf(map), content);
  assert.deepEqual(await map.verify(), []);
});

test('a page that is clean when a checkpoint begins is in it as it was, changed or not', async () => {
  const { map, put, table, store, pool } = await world();
  await put(0, 5);
  await storeCheckpoint(map.beginCheckpoint(), table, store, 1);
  await put(9 * 1024, 1);
  const before = await contentOf(map);
  const frozen = map.beginCheckpoint();
  await put(3, 40);
  const row = await storeCheckpoint(frozen, table, store, 2);
  const opened = await openCheckpoint({ reader: store.readerOf(table.objectName(row)), pool, rowIds: countingRowIds(), sourceOf: store.sourceOf });
  assert.deepEqual(await contentOf(opened.map), before);
  opened.map.close();
});

test('a row that is free when a checkpoint begins is not in it, though another takes its place', async () => {
  const { map, put, table, store, pool } = await world();
  await put(0, 5);
  const unused = table.add(segment(2));
  table.free(unused);
  const frozen = map.beginCheckpoint();
  table.add(segment(3));
  const row = await storeCheckpoint(frozen, table, store, 1);
  const opened = await openCheckpoint({ reader: store.readerOf(table.objectName(row)), pool, rowIds: countingRowIds(), sourceOf: store.sourceOf });
  assert.deepEqual(
    [...opened.table.rows()].map((each) => opened.table.number(each)),
    [1, 1],
  );
  opened.map.close();
});

test('copies for a running checkpoint are bounded: beyond an eighth of the pool frozen pages go by way of the spill file', async () => {
  const { map, put, table, store, pool } = await world({ bytesMax: 64 * FRAME_BYTES, dirtyShareMax: 1 });
  for (let page = 0; page < 50; page += 1) await put(page * 1024, 1);
  const before = await contentOf(map);
  const frozen = map.beginCheckpoint();
  for (let page = 0; page < 50; page += 1) await put(page * 1024 + 7, 1);
  assert.equal(frozen.copies, 8);
  assert.equal(pool.stats.spilledPages, 42);
  const row = await storeCheckpoint(frozen, table, store, 1);
  assert.equal(pool.stats.spilledPages, 0);
  const opened = await openCheckpoint({ reader: store.readerOf(table.objectName(row)), pool, rowIds: countingRowIds(), sourceOf: store.sourceOf });
  assert.deepEqual(await contentOf(opened.map), before);
  opened.map.close();
});

test('pages that are made and emptied again and again leave no memory behind', async () => {
  const { map, put, drop } = await world();
  const before = map.directory.memoryBytes;
  for (let count = 0; count < 20_000; count += 1) {
    const block = (count % 7) * 1024;
    await put(block, 1);
    await drop(block, 1);
  }
  assert.equal(map.dirtyPages, 0);
  assert.equal(map.directory.memoryBytes, before);
});

test('a spill file at its bound makes pin fail as retryable, and a checkpoint makes room', async () => {
  const { map, put, table, store } = await world({ spillBytesMax: 4 * FRAME_BYTES });
  let page = 0;
  await assert.rejects(
    async () => {
      for (; page < 100; page += 1) await put(page * 1024, 1);
    },
    { code: 'spill-full', retryable: true },
  );
  assert.ok(page >= 20);
  await storeCheckpoint(map.beginCheckpoint(), table, store, 1);
  for (let more = page; more < page + 12; more += 1) await put(more * 1024, 1);
  assert.equal(map.mappedBlocks, page + 12);
  assert.deepEqual(await map.verify(), []);
});

test('a page whose image cannot be read fails its readers, holds nothing back, and is read once it can be', async () => {
  const { map, put, table, store, pool } = await world();
  for (let page = 0; page < 40; page += 1) await put(page * 1024, 1);
  const row = await storeCheckpoint(map.beginCheckpoint(), table, store, 1);
  const bytes = store.objects.get(table.objectName(row));
  assert.ok(bytes !== undefined);
  bytes[200] = bytes[200]! ^ 1;
  await assert.rejects(
    map.load(0, 40 * 1024).catch(() => map.load(0, 16 * 1024)),
    { code: 'checkpoint-corrupt' },
  );
  assert.equal(pool.stats.unitsFree, 16);
  await map.load(39 * 1024, 1);
  await assert.rejects(map.truncate(0), { code: 'checkpoint-corrupt' });
  bytes[200] = bytes[200] ^ 1;
  await map.truncate(0);
  assert.equal(map.mappedBlocks, 0);
});

test('a page that changed while it was being spilled, and was committed before that ended, comes from the object', async () => {
  const { map, put, table, store, disk, pool } = await world({ dirtyShareMax: 0 });
  disk.held = [];
  await put(0, 2);
  await put(1024, 2);
  assert.ok(disk.held.length > 0, 'the first page is being spilled');
  await put(5, 3);
  await storeCheckpoint(map.beginCheckpoint(), table, store, 1);
  disk.letGo();
  assert.equal(pool.stats.spilledPages, 0);
  const content = await contentOf(map);
  for (let page = 10; page < 30; page += 1) await put(page * 1024, 1);
  await map.truncate(10 * 1024);
  assert.deepEqual(await contentOf(map), content);
});

test('a spill that fails after its page was committed leaves the page clean', async () => {
  const { map, put, table, store, disk, pool } = await world({ dirtyShareMax: 0 });
  disk.held = [];
  await put(0, 2);
  await put(1024, 2);
  await storeCheckpoint(map.beginCheckpoint(), table, store, 1);
  disk.writeError = new Error('broken');
  disk.letGo();
  assert.equal(pool.stats.framesDirty, 0);
  assert.equal(pool.stats.spillError, disk.writeError);
});
