import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { BLOCK_BYTES, BlockCache } from './block-cache.ts';

const target = Buffer.alloc(BLOCK_BYTES);

/** Content of a location: any two differ, and so do any two places in one. */
function contentOf(segmentId: number, offsetBytes: number): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  for (let position = 0; position < BLOCK_BYTES; position += 16) {
    block.writeUInt32LE(segmentId, position);
    block.writeUInt32LE(offsetBytes, position + 4);
    block.writeUInt32LE(position, position + 8);
  }
  return block;
}

function read(cache: BlockCache, segmentId: number, offsetBytes: number): boolean {
  return cache.get(segmentId, offsetBytes, target, 0, 0, BLOCK_BYTES);
}

test('a block is found where it was put, whole and in part', () => {
  const cache = new BlockCache({ limitBytes: 1 << 20 });
  const source = Buffer.concat([Buffer.alloc(100), contentOf(7, 64)]);
  assert.equal(read(cache, 7, 64), false);
  cache.put(7, 64, source, 100);
  assert.equal(read(cache, 7, 64), true);
  assert.deepEqual(target, contentOf(7, 64));
  const part = Buffer.alloc(20, 0xee);
  assert.equal(cache.get(7, 64, part, 3, 4090, 6), true);
  assert.deepEqual(part.subarray(3, 9), contentOf(7, 64).subarray(4090));
  assert.deepEqual([part[2], part[9]], [0xee, 0xee]);
  assert.equal(cache.has(7, 65), false);
  assert.equal(cache.has(64, 7), false);
});

test('a block that spans chunks of any sizes is put together', () => {
  const block = contentOf(1, 2);
  fc.assert(
    fc.property(fc.nat(5000), fc.array(fc.integer({ min: 0, max: 3000 }), { minLength: 0, maxLength: 12 }), fc.nat(500), (before, sizes, behind) => {
      const whole = Buffer.concat([Buffer.alloc(before, 1), block, Buffer.alloc(behind, 2)]);
      const chunks: Buffer[] = [];
      let position = 0;
      for (const size of sizes) {
        chunks.push(whole.subarray(position, position + size));
        position += size;
      }
      chunks.push(whole.subarray(position));
      const cache = new BlockCache({ limitBytes: BLOCK_BYTES });
      cache.putChunks(1, 2, [Buffer.alloc(10, 3), ...chunks], 1, before);
      assert.ok(read(cache, 1, 2));
      assert.ok(target.equals(block));
    }),
    { numRuns: 300 },
  );
  const cache = new BlockCache({ limitBytes: BLOCK_BYTES });
  assert.throws(() => cache.putChunks(1, 2, [Buffer.alloc(4000), Buffer.alloc(95)], 0, 0), /whole block/);
});

test('every hit is what was put, against a model, at any size and order; the limit holds', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 40 }),
      fc.array(fc.tuple(fc.constantFrom('put', 'get', 'get', 'has', 'drop'), fc.integer({ min: 0, max: 7 }), fc.integer({ min: 0, max: 15 })), {
        maxLength: 400,
      }),
      (blocks, steps) => {
        const cache = new BlockCache({ limitBytes: blocks * BLOCK_BYTES, slabBytes: 4 * BLOCK_BYTES });
        const model = new Map<string, Buffer>();
        const locations: [number, number][] = [];
        for (const [action, segmentId, index] of steps) {
          const offsetBytes = 64 + index * 4128;
          const name = `${segmentId}/${offsetBytes}`;
          if (action === 'put') {
            if (!model.has(name)) locations.push([segmentId, offsetBytes]);
            model.set(name, contentOf(segmentId, offsetBytes));
            cache.put(segmentId, offsetBytes, contentOf(segmentId, offsetBytes), 0);
            assert.ok(cache.has(segmentId, offsetBytes), 'what was put last is there');
          } else if (action === 'get') {
            if (read(cache, segmentId, offsetBytes)) assert.deepEqual(target, model.get(name));
          } else if (action === 'drop') {
            cache.dropSegment(segmentId);
          } else if (cache.has(segmentId, offsetBytes)) {
            assert.ok(model.has(name));
          }
        }
        const present = locations.filter(([segmentId, offsetBytes]) => cache.has(segmentId, offsetBytes)).length;
        // Nothing leaves before the cache is full.
        assert.ok(present >= Math.min(blocks, locations.length) && present <= blocks);
        assert.equal(cache.statistics().bytes, present * BLOCK_BYTES);
        assert.ok(cache.statistics().allocatedBytes <= blocks * BLOCK_BYTES);
      },
    ),
    { numRuns: 200 },
  );
});

test('a sequential scan ten times as large as the cache, each block read once behind a read-ahead, does not flush the hot blocks', () => {
  const blocks = 1000;
  const cache = new BlockCache({ limitBytes: blocks * BLOCK_BYTES, slabBytes: 64 * BLOCK_BYTES });
  const source = Buffer.alloc(BLOCK_BYTES);
  for (let index = 0; index < 500; index += 1) cache.put(1, index * 4096, source, 0);
  for (let round = 0; round < 2; round += 1) for (let index = 0; index < 500; index += 1) read(cache, 1, index * 4096);
  for (let index = 0; index < 10 * blocks; index += 1) {
    cache.put(2, index * 4096, source, 0);
    assert.ok(read(cache, 2, index * 4096));
  }
  let hot = 0;
  for (let index = 0; index < 500; index += 1) if (cache.has(1, index * 4096)) hot += 1;
  // The bound on the work of one eviction lets a few go when all of them have to move at once.
  assert.ok(hot >= 495, `${hot} of 500`);
});

test('a block that comes back soon after it left is kept over a scan', () => {
  const blocks = 1000;
  const cache = new BlockCache({ limitBytes: blocks * BLOCK_BYTES, slabBytes: 64 * BLOCK_BYTES });
  const source = Buffer.alloc(BLOCK_BYTES);
  const scan = (segmentId: number, count: number): void => {
    for (let index = 0; index < count; index += 1) cache.put(segmentId, index * 4096, source, 0);
  };
  for (let index = 0; index < 50; index += 1) cache.put(1, index * 4096, source, 0);
  scan(2, blocks);
  let left = 0;
  for (let index = 0; index < 50; index += 1) if (!cache.has(1, index * 4096)) left += 1;
  assert.equal(left, 50);
  for (let index = 0; index < 50; index += 1) cache.put(1, index * 4096, source, 0);
  scan(3, 2 * blocks);
  let kept = 0;
  for (let index = 0; index < 50; index += 1) if (cache.has(1, index * 4096)) kept += 1;
  assert.ok(kept >= 45, `${kept} of 50`); // a trace may have been overwritten by another
});

test('the blocks of a dropped segment go first, however hot, and the others stay', () => {
  const cache = new BlockCache({ limitBytes: 100 * BLOCK_BYTES, slabBytes: 16 * BLOCK_BYTES });
  const source = Buffer.alloc(BLOCK_BYTES);
  for (const segmentId of [1, 0xffffffff]) {
    for (let index = 0; index < 40; index += 1) {
      cache.put(segmentId, index * 4096, source, 0);
      for (let round = 0; round < 4; round += 1) read(cache, segmentId, index * 4096);
    }
  }
  cache.dropSegment(0xffffffff);
  for (let index = 0; index < 60; index += 1) cache.put(3, index * 4096, source, 0);
  const count = (segmentId: number): number => Array.from({ length: 40 }, (_, index) => cache.has(segmentId, index * 4096)).filter(Boolean).length;
  assert.deepEqual([count(1), count(0xffffffff)], [40, 0]);
});

test('memory is taken slab by slab as blocks come, and never more than the limit', () => {
  const cache = new BlockCache({ limitBytes: 10 * BLOCK_BYTES + 100, slabBytes: 4 * BLOCK_BYTES });
  const allocated: number[] = [];
  for (let index = 0; index < 30; index += 1) {
    cache.put(1, index * 4096, contentOf(1, index), 0);
    allocated.push(cache.statistics().allocatedBytes / BLOCK_BYTES);
  }
  assert.deepEqual(allocated.slice(0, 12), [4, 4, 4, 4, 8, 8, 8, 8, 10, 10, 10, 10]);
  assert.equal(allocated.at(-1), 10);
  assert.deepEqual({ ...cache.statistics() }, { hits: 0, misses: 0, evictions: 20, bytes: 40960, allocatedBytes: 40960, limitBytes: 40960 });
});

test('a cache with a limit below one block is off', () => {
  const cache = new BlockCache({ limitBytes: 4095 });
  cache.put(1, 0, contentOf(1, 0), 0);
  assert.equal(read(cache, 1, 0), false);
  assert.equal(cache.statistics().misses, 1);
});

test('a part that reaches out of its block, a short source or target, and keys beyond 32 bits are bugs', () => {
  const cache = new BlockCache({ limitBytes: 1 << 16 });
  cache.put(1, 0, contentOf(1, 0), 0);
  assert.throws(() => cache.get(1, 0, target, 0, 4000, 97), /one block/);
  assert.throws(() => cache.get(1, 0, Buffer.alloc(10), 0, 0, 11), /too short/);
  assert.throws(() => cache.put(1, 4096, Buffer.alloc(BLOCK_BYTES), 1), /whole block/);
  assert.throws(() => cache.put(2 ** 32, 0, contentOf(1, 0), 0), /32-bit/);
  assert.throws(() => cache.put(1, 2 ** 32, contentOf(1, 0), 0), /32-bit/);
});
