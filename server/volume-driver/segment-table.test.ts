import assert from 'node:assert/strict';
import { test } from 'node:test';

import { segment, TERM } from './extent-map.fixture.ts';
import { countingRowIds, SegmentTable } from './segment-table.ts';

test('rows are numbered from 1, and a freed one is reused under a new global id', () => {
  const table = new SegmentTable(countingRowIds());
  const rows = Array.from({ length: 100 }, (_, index) => table.add(segment(index)));
  assert.deepEqual(
    rows,
    Array.from({ length: 100 }, (_, index) => index + 1),
  );
  const before = table.globalId(50);
  table.free(50);
  assert.equal(table.isUsed(50), false);
  assert.equal(table.holdsBlocks(50), false);
  assert.equal(table.usedRows, 99);
  assert.equal(table.add({ ...segment(1234), kind: 'checkpoint', bucket: 'b', objectUuid: 'a'.repeat(32) }), 50);
  assert.notEqual(table.globalId(50), before);
  assert.deepEqual(table.row(50), { kind: 'checkpoint', bucket: 'b', objectUuid: 'a'.repeat(32), term: TERM, number: 1234, sizeBytes: 4 << 20 });
  assert.equal(table.objectName(50), 'ckp-0000001234-1-7-0123456789abcdef');
});

test('two tables of a process never share a global id', () => {
  const ids = countingRowIds();
  const [one, other] = [new SegmentTable(ids), new SegmentTable(ids)];
  const all = [one, other, one, other].map((table) => table.globalId(table.add(segment(1))));
  assert.equal(new Set(all).size, 4);
});

test('a row with references cannot be freed, nor a row twice', () => {
  const table = new SegmentTable(countingRowIds());
  const row = table.add(segment(1));
  table.adjustLive(row, 3);
  assert.throws(() => table.free(row), /3 references/);
  table.adjustLive(row, -3);
  table.free(row);
  assert.throws(() => table.free(row), /not in use/);
});

test('a count below zero is told and stays at zero', () => {
  const table = new SegmentTable(countingRowIds());
  const row = table.add(segment(1));
  table.adjustLive(row, 1);
  assert.equal(table.miscounts, 0);
  table.adjustLive(row, -2);
  assert.equal(table.live(row), 0);
  assert.equal(table.miscounts, 1);
});

test('rows can be freed while those without references are listed', () => {
  const table = new SegmentTable(countingRowIds());
  for (let number = 0; number < 10; number += 1) table.adjustLive(table.add(segment(number)), number % 2);
  for (const row of table.unreferencedRows()) table.free(row);
  assert.deepEqual([...table.rows()], [2, 4, 6, 8, 10]);
  assert.deepEqual([...table.unreferencedRows()], []);
});

test('a frozen table keeps its rows until it thaws', () => {
  const table = new SegmentTable(countingRowIds());
  const [kept, freed] = [table.add(segment(1)), table.add(segment(2))];
  table.adjustLive(kept, 5);
  const frozen = table.freeze();
  table.adjustLive(kept, 1);
  table.free(freed);
  const added = table.add(segment(3));
  assert.equal(frozen.live[kept], 5);
  assert.equal(table.isUsed(freed), false);
  assert.deepEqual(
    [freed, added].map((row) => table.isFrozenRow(row)),
    [true, false],
  );
  assert.equal(table.objectName(freed), 'seg-0000000002-1-7-0123456789abcdef');
  assert.notEqual(added, freed);
  table.thaw();
  assert.equal(table.isFrozenRow(freed), false);
  assert.equal(table.add(segment(4)), freed);
});

test('100,000 rows cost less than 5 MB', () => {
  const table = new SegmentTable(countingRowIds());
  for (let number = 0; number < 100_000; number += 1) table.add(segment(number));
  assert.ok(table.memoryBytes < 5_000_000, `${table.memoryBytes}`);
});
