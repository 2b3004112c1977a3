/** The extent map against one map entry per block, on a pool of 16 frames, with checkpoints and a disk that delays. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import {
  CheckpointStore,
  collect,
  contentOf,
  describeCheckpoint,
  MemoryDisk,
  type Model,
  nextTurn,
  openPool,
  segment,
  sorted,
  TERM,
} from './extent-map.fixture.ts';
import { ExtentMap } from './extent-map.ts';
import type { FrozenCheckpoint } from './frozen-checkpoint.ts';
import { openCheckpoint } from './open-checkpoint.ts';
import { FRAME_BYTES, PAGE_BLOCKS } from './page-image.ts';
import type { PagePool } from './page-pool.ts';
import { countingRowIds, type RowIds, SegmentTable } from './segment-table.ts';

/** 48 pages, three times the pool, in two far regions of the address space. */
const block = fc.integer({ min: 0, max: 48 * PAGE_BLOCKS - 1 }).map((at) => (at < 40 * PAGE_BLOCKS ? at : at + 5_000_000 * PAGE_BLOCKS));
const count = fc.oneof({ weight: 4, arbitrary: fc.integer({ min: 1, max: 40 }) }, { weight: 1, arbitrary: fc.integer({ min: 900, max: 3000 }) });

type Step =
  | { kind: 'set' | 'unmap' | 'read' | 'set-many'; block: number; count: number }
  | { kind: 'truncate'; block: number }
  | { kind: 'checkpoint' | 'begin' | 'encode' | 'commit' | 'abandon' | 'turn' | 'new-segment' | 'reopen' | 'free-rows' };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 12, arbitrary: fc.record({ kind: fc.constant('set' as const), block, count }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('set-many' as const), block, count: fc.integer({ min: 4, max: 30 }) }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('unmap' as const), block, count }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('read' as const), block, count }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('truncate' as const), block }) },
  ...(['checkpoint', 'begin', 'encode', 'commit', 'turn', 'new-segment', 'free-rows'] as const).map((kind) => ({
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant(kind) }),
  })),
  ...(['abandon', 'reopen'] as const).map((kind) => ({ weight: 1, arbitrary: fc.record({ kind: fc.constant(kind) }) })),
);

class World {
  readonly store = new CheckpointStore();
  readonly pool: PagePool;
  readonly ids: RowIds = countingRowIds();
  table: SegmentTable;
  map: ExtentMap;
  model: Model = new Map();
  row: number;
  segments = 1;
  checkpoints = 0;
  frozen: { checkpoint: FrozenCheckpoint; model: Model; encoding: Promise<Buffer> | null } | null = null;
  /** Name of the newest committed checkpoint and what it must contain. */
  committed: { name: string; model: Model } | null = null;
  stamp = 0;

  constructor(pool: PagePool) {
    this.pool = pool;
    this.table = new SegmentTable(this.ids);
    this.map = new ExtentMap({ pool, table: this.table, source: this.store.sourceOf(this.table) });
    this.row = this.table.add(segment(1));
  }

  async run(each: Step): Promise<void> {
    switch (each.kind) {
      case 'set':
        return this.set(each.block, each.count);
      case 'set-many': {
        // Many at once: they wait for each other's frames and for units.
        const all = Array.from({ length: each.count }, (_, index) => this.set(each.block + index * 700, 1 + (index % 9)));
        await Promise.all(all);
        return;
      }
      case 'unmap':
        await this.map.pinExisting(each.block, each.count);
        this.map.unmap(each.block, each.count);
        for (let index = 0; index < each.count; index += 1) this.model.delete(each.block + index);
        this.map.unpin(each.block, each.count);
        return;
      case 'read':
        return this.read(each.block, each.count);
      case 'truncate':
        await this.map.truncate(each.block);
        for (const at of this.model.keys()) if (at >= each.block) this.model.delete(at);
        return;
      case 'checkpoint':
        for (const kind of ['begin', 'encode', 'commit'] as const) await this.run({ kind });
        return;
      case 'begin':
        if (this.frozen !== null) return;
        await this.map.prepareCheckpoint();
        this.frozen = { checkpoint: this.map.beginCheckpoint(), model: new Map(this.model), encoding: null };
        assert.equal(this.frozen.checkpoint.mappedBlocks, this.model.size);
        return;
      case 'encode':
        if (this.frozen === null || this.frozen.encoding !== null) return;
        this.checkpoints += 1;
        this.frozen.encoding = collect(this.frozen.checkpoint.encode(describeCheckpoint(this.checkpoints)));
        return;
      case 'commit':
        return this.commit();
      case 'abandon':
        await this.frozen?.encoding;
        this.frozen?.checkpoint.abandon();
        this.frozen = null;
        return;
      case 'turn':
        return nextTurn();
      case 'new-segment':
        this.segments += 1;
        this.row = this.table.add(segment(this.segments));
        return;
      case 'free-rows':
        for (const row of this.table.unreferencedRows()) {
          if (row === this.row) continue;
          this.table.free(row);
        }
        return;
      case 'reopen':
        return this.reopen();
    }
  }

  async set(block: number, count: number): Promise<void> {
    await this.map.pin(block, count);
    const offset = (this.stamp % 1000) * 8;
    const crcs = Array.from({ length: count }, () => (this.stamp += 1));
    this.map.set(block, count, this.row, offset, [0, ...crcs], 1);
    for (const [index, crc] of crcs.entries()) this.model.set(block + index, `${this.segments} ${offset + 4096 * index} ${crc}`);
    if (this.stamp % 3 === 0) await nextTurn();
    this.map.unpin(block, count);
  }

  async read(block: number, count: number): Promise<void> {
    const arrays = [new Uint32Array(count), new Uint32Array(count), new Uint32Array(count)] as const;
    await this.map.readLoading(block, count, ...arrays);
    for (let index = 0; index < count; index += 1) {
      const row = arrays[0][index]!;
      const expected = this.model.get(block + index);
      const got = row === 0 ? undefined : `${this.table.number(row)} ${arrays[1][index]} ${arrays[2][index]}`;
      assert.equal(got, expected, `block ${block + index}`);
    }
  }

  async commit(): Promise<void> {
    if (this.frozen === null || this.frozen.encoding === null) return;
    const { checkpoint, model, encoding } = this.frozen;
    const bytes = await encoding;
    assert.equal(bytes.byteLength, checkpoint.objectBytes);
    const row = this.table.add({ kind: 'checkpoint', bucket: '', objectUuid: '', term: TERM, number: this.checkpoints, sizeBytes: bytes.byteLength });
    const name = this.table.objectName(row);
    this.store.objects.set(name, bytes);
    checkpoint.commit(row);
    this.frozen = null;
    this.committed = { name, model };
  }

  /** A crash: everything that no checkpoint has is gone. */
  async reopen(): Promise<void> {
    if (this.committed === null) return;
    await this.frozen?.encoding;
    this.frozen?.checkpoint.abandon();
    this.frozen = null;
    this.map.close();
    const opened = await openCheckpoint({
      reader: this.store.readerOf(this.committed.name),
      pool: this.pool,
      rowIds: this.ids,
      sourceOf: this.store.sourceOf,
    });
    this.map = opened.map;
    this.table = opened.table;
    this.model = new Map(this.committed.model);
    this.segments += 1;
    this.row = this.table.add(segment(this.segments));
    assert.equal(this.map.mappedBlocks, this.model.size);
  }

  async check(): Promise<void> {
    assert.deepEqual(await this.map.verify(), []);
    assert.equal(this.table.miscounts, 0);
    assert.equal(this.map.mappedBlocks, this.model.size);
    assert.deepEqual(sorted(await contentOf(this.map)), sorted(this.model));
    assert.ok(this.pool.stats.framesAllocated <= 16);
  }
}

for (const delayed of [false, true]) {
  test(`the extent map is one map entry per block, with a disk that answers ${delayed ? 'later' : 'at once'}`, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), fc.constantFrom(0, 0.25, 1), async (steps, dirtyShareMax) => {
        const disk = new MemoryDisk();
        disk.delayed = delayed;
        const world = new World(await openPool(disk, { bytesMax: 16 * FRAME_BYTES, dirtyShareMax }));
        for (const each of steps) await world.run(each);
        await world.check();
        await world.run({ kind: 'abandon' });
        await world.check();
        await world.run({ kind: 'begin' });
        await world.run({ kind: 'encode' });
        await world.run({ kind: 'commit' });
        await world.run({ kind: 'reopen' });
        await world.check();
        world.map.close();
        // Spills that were under way end here.
        await world.pool.close();
        assert.deepEqual(
          { used: world.pool.stats.framesUsed, spilled: world.pool.stats.spilledPages, units: world.pool.stats.unitsFree },
          { used: 0, spilled: 0, units: 16 },
        );
        assert.equal(disk.files.size, 0);
      }),
      { numRuns: Number(process.env['EXTENT_MAP_RUNS'] ?? 40) },
    );
  });
}
