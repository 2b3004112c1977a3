import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ObjectModel } from './object-model.ts';

const SIZE = 8192;

function volume(): { model: ObjectModel; actual: Buffer } {
  return { model: new ObjectModel(7, SIZE, SIZE), actual: Buffer.alloc(SIZE) };
}

test('a durable write that is there is no violation, one that is missing is', () => {
  for (const there of [true, false]) {
    const { model, actual } = volume();
    const change = model.begin('write', 1000, 3000);
    if (there) model.payload(change).copy(actual, 1000);
    model.answered(change, true, 'v');
    const { violations } = model.verifyAndAdopt(actual);
    assert.equal(violations.length === 0, there, violations.join('\n'));
  }
});

test('a write that was never answered may be there or not, sector by sector, but not torn within one', () => {
  for (const [bytes, good] of [
    [0, true],
    [512, true],
    [3072, true],
    [100, false],
    [512 + 16, false],
  ] as const) {
    const { model, actual } = volume();
    model.payload(model.begin('write', 1024, 3072)).copy(actual, 1024, 0, bytes);
    assert.equal(model.verifyAndAdopt(actual).violations.length === 0, good, `${bytes} bytes written`);
  }
});

test('a block older than its last acknowledged write is a violation that names both', () => {
  const { model, actual } = volume();
  const first = model.begin('write', 0, 4096);
  model.payload(first).copy(actual);
  model.answered(first, true, 'v');
  model.answered(model.begin('write', 0, 4096), true, 'v');
  const { violations } = model.verifyAndAdopt(actual);
  assert.equal(violations.length, 8);
  assert.match(violations[0] ?? '', /found \+0: write 1 of object 7; durable was \+0: write 2 of object 7/);
});

test('data answered UNSTABLE may be lost, which is told; after a COMMIT with its verifier it may not', () => {
  for (const [verifier, commits] of [
    ['v', false],
    ['v', true],
    ['other', true],
  ] as const) {
    const { model, actual } = volume();
    model.answered(model.begin('write', 512, 512), false, 'v');
    if (commits) assert.equal(model.committed(model.commitScope(), verifier).length, verifier === 'v' ? 0 : 1);
    const result = model.verifyAndAdopt(actual);
    const mustBeThere = commits && verifier === 'v';
    assert.equal(result.violations.length, mustBeThere ? 1 : 0);
    assert.equal(result.lostUnstable, !mustBeThere);
  }
});

test('of two unstable writes to a sector the second alone is reordering, the first alone is loss', () => {
  const cases = [
    { first: true, second: true, violations: 0, lost: false },
    { first: true, second: false, violations: 0, lost: true },
    { first: false, second: true, violations: 1, lost: false },
    { first: false, second: false, violations: 0, lost: true },
  ];
  for (const expected of cases) {
    const { model, actual } = volume();
    const writes = [model.begin('write', 0, 400), model.begin('write', 100, 400)];
    writes.forEach((write, index) => {
      if (index === 0 ? expected.first : expected.second) model.payload(write).copy(actual, write.offsetBytes);
      model.answered(write, false, 'v');
    });
    const result = model.verifyAndAdopt(actual);
    assert.equal(result.violations.length, expected.violations, JSON.stringify(expected));
    assert.equal(result.lostUnstable, expected.lost, JSON.stringify(expected));
  }
});

test('an uncommitted write under a durable one may be gone where the durable one does not cover it', () => {
  const { model, actual } = volume();
  model.answered(model.begin('write', 0, 512), false, 'v');
  const durable = model.begin('write', 256, 256);
  model.payload(durable).copy(actual, 256);
  model.answered(durable, true, 'v');
  assert.deepEqual(model.verifyAndAdopt(actual), { violations: [], lostUnstable: true });
});

test('sizes: extending writes and truncates that were answered hold, others are alternatives', () => {
  const model = new ObjectModel(1, SIZE, 100);
  model.answered(model.begin('write', 100, 100), true, 'v');
  model.begin('write', 200, 300);
  assert.deepEqual(model.verifyAndAdopt(model.current(0, 200)).violations, []);
  model.answered(model.begin('truncate', 50, 0), true, '');
  assert.equal(model.currentSizeBytes(), 50);
  assert.match(model.verifyAndAdopt(Buffer.alloc(60)).violations[0] ?? '', /size 60, possible are 50/);
});

test('what lay behind a shrunken end reads as zeros after growing again', () => {
  const model = new ObjectModel(1, SIZE, 0);
  const before = model.begin('write', 0, 2000);
  model.answered(before, true, 'v');
  model.answered(model.begin('truncate', 700, 0), true, '');
  model.answered(model.begin('truncate', 2000, 0), true, '');
  const stale = model.payload(before);
  assert.notEqual(model.verifyAndAdopt(stale).violations.length, 0);
});

test('what was adopted after a crash must stay', () => {
  const { model, actual } = volume();
  model.payload(model.begin('write', 0, 512)).copy(actual);
  assert.deepEqual(model.verifyAndAdopt(actual).violations, []);
  assert.equal(model.verifyAndAdopt(Buffer.alloc(SIZE)).violations.length, 1);
});

test('a range is free unless a write without an answer touches one of its sectors', () => {
  const { model } = volume();
  const change = model.begin('write', 600, 10);
  assert.equal(model.isFree(512, 1), false);
  assert.equal(model.isFree(0, 513), false);
  assert.equal(model.isFree(0, 512), true);
  assert.equal(model.isFree(1024, 512), true);
  model.answered(change, false, 'v');
  assert.equal(model.isFree(512, 1), true);
});
