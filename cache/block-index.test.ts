import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { BlockIndex } from './block-index.ts';

/** Few keys, so that they collide, wrap around the end of the table and are removed from the middle of runs. */
const key = fc.tuple(fc.constantFrom(0, 1, 2, 0x7fffffff, 0x80000000, 0xffffffff), fc.constantFrom(0, 64, 4096, 8192, 0xfffff000, 0xffffffff));

test('the index answers as a Map does after any inserts and removals, full or nearly empty', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 20 }), fc.array(fc.tuple(fc.boolean(), key), { maxLength: 200 }), (capacity, steps) => {
      const index = new BlockIndex(capacity);
      const model = new Map<string, { key: [number, number]; slot: number }>();
      let nextSlot = 0;
      for (const [insert, [segmentId, offsetBytes]] of steps) {
        const name = `${segmentId}/${offsetBytes}`;
        const entry = index.find(segmentId, offsetBytes);
        assert.equal(entry >= 0, model.has(name));
        if (insert && entry < 0 && model.size < capacity) {
          index.insert(segmentId, offsetBytes, nextSlot);
          model.set(name, { key: [segmentId, offsetBytes], slot: nextSlot });
          nextSlot += 1;
        } else if (!insert && entry >= 0) {
          index.remove(entry);
          model.delete(name);
        }
        assert.equal(index.count, model.size);
        for (const {
          key: [segment, offset],
          slot,
        } of model.values())
          assert.equal(index.slot(index.find(segment, offset)), slot);
      }
    }),
    { numRuns: 300 },
  );
});

test('heat belongs to its entry and moves with it', () => {
  const index = new BlockIndex(500);
  for (let slot = 0; slot < 500; slot += 1) index.insert(slot % 7, slot * 4096, slot);
  for (let slot = 0; slot < 500; slot += 1) index.setHeat(index.find(slot % 7, slot * 4096), slot % 4);
  for (let slot = 0; slot < 500; slot += 3) index.remove(index.find(slot % 7, slot * 4096));
  for (let slot = 0; slot < 500; slot += 1) {
    const entry = index.find(slot % 7, slot * 4096);
    if (slot % 3 === 0) assert.equal(entry, -1);
    else assert.equal(index.heat(entry), slot % 4);
  }
});

test('an index that is full refuses another key: a bug of its owner', () => {
  const index = new BlockIndex(2);
  index.insert(1, 0, 0);
  index.insert(2, 0, 1);
  assert.throws(() => index.insert(3, 0, 2), /full/);
});
