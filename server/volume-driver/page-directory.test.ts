import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { PageDirectory, PAGES_MAX } from './page-directory.ts';

test('pages are found under any order of inserts and removes', () => {
  // Few different numbers, so that chains of the hash table are cut in the middle often.
  const page = fc.oneof(fc.nat(60), fc.nat(PAGES_MAX - 1));
  fc.assert(
    fc.property(fc.array(fc.record({ page, insert: fc.boolean() }), { maxLength: 400 }), (steps) => {
      const directory = new PageDirectory();
      const model = new Map<number, number>();
      for (const step of steps) {
        const slot = model.get(step.page);
        assert.equal(directory.find(step.page), slot ?? -1);
        if (step.insert && slot === undefined) {
          const added = directory.insert(step.page);
          assert.ok(![...model.values()].includes(added));
          model.set(step.page, added);
        } else if (!step.insert && slot !== undefined) {
          directory.remove(slot);
          model.delete(step.page);
        }
      }
      for (const [each, slot] of model) assert.equal(directory.find(each), slot);
      assert.equal(directory.count, model.size);
      assert.equal([...Array(directory.slotEnd).keys()].filter((slot) => directory.isUsed(slot)).length, model.size);
    }),
    { numRuns: 300 },
  );
});

test('a new page is empty, whatever its slot held before', () => {
  const directory = new PageDirectory();
  const slot = directory.insert(5);
  directory.mapped[slot] = 7;
  directory.flags[slot] = 3;
  directory.row[slot] = 9;
  directory.remove(slot);
  assert.equal(directory.insert(6), slot);
  assert.deepEqual(
    [directory.mapped[slot], directory.flags[slot], directory.row[slot], directory.frame[slot], directory.spill[slot]],
    [0, 0, 0, -1, -1],
  );
});

test('the directory of a fully mapped 1 TiB volume costs at most 12 MB when opened, 14 when grown', () => {
  const grown = new PageDirectory();
  for (let page = 0; page < 262_144; page += 1) grown.insert(page);
  assert.ok(grown.memoryBytes <= 14_000_000, `${grown.memoryBytes}`);
  const opened = new PageDirectory();
  opened.reserve(262_144);
  for (let page = 0; page < 262_144; page += 1) opened.insert(page * 61);
  assert.ok(opened.memoryBytes <= 12_000_000, `${opened.memoryBytes}`);
  assert.equal(opened.find(262_143 * 61) >= 0, true);
  assert.equal(opened.find(7), -1);
});
