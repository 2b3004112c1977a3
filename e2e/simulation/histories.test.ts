/** The judges of the simulation see what they are there to see. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { BlockHistory } from './block-history.ts';
import { NameHistory } from './name-history.ts';

test('a read of what was acknowledged is fine, of what was overwritten before it began is not', () => {
  const history = new BlockHistory(1, 4);
  const first = history.begin(10, 0, 2, true);
  history.answeredStable(20, first, 0, 2);
  assert.equal(history.check(21, 22, 0, history.payload(first, 0, 2)), null);
  const second = history.begin(30, 0, 1, true);
  assert.equal(history.check(31, 32, 0, history.payload(first, 0, 1)), null, 'the second write is still under way');
  history.answeredStable(40, second, 0, 1);
  assert.equal(history.check(39, 45, 0, history.payload(first, 0, 1)), null, 'the read began before the second write was over');
  assert.match(String(history.check(41, 45, 0, history.payload(first, 0, 1))), /write 1 .* but write 2 came wholly after it/);
  assert.match(String(history.check(41, 45, 1, Buffer.alloc(512))), /write 0/);
});

test('who has seen a stable write proves it; an unstable one may be lost until it is committed with its verifier', () => {
  const history = new BlockHistory(1, 1);
  const first = history.begin(10, 0, 1, true);
  assert.equal(history.check(11, 12, 0, history.payload(first, 0, 1)), null);
  assert.match(String(history.check(13, 14, 0, Buffer.alloc(512))), /write 0/);
  const second = history.begin(20, 0, 1, false);
  history.answeredUnstable(21, second, 0, 1, 'a');
  assert.equal(history.check(22, 23, 0, history.payload(second, 0, 1)), null);
  assert.equal(history.check(24, 25, 0, history.payload(first, 0, 1)), null, 'lost');
  history.committed(26, 27, 'b');
  assert.equal(history.check(28, 29, 0, history.payload(first, 0, 1)), null, 'committed with another verifier: lost');
  const third = history.begin(30, 0, 1, false);
  history.answeredUnstable(31, third, 0, 1, 'a');
  history.committed(32, 33, 'a');
  assert.match(String(history.check(34, 35, 0, history.payload(first, 0, 1))), /write 3 came wholly after/);
});

test('torn sectors and foreign bytes are seen', () => {
  const history = new BlockHistory(1, 2);
  const first = history.begin(1, 0, 1, true);
  const second = history.begin(1, 0, 1, true);
  const torn = history.payload(first, 0, 1);
  history.payload(second, 0, 1).copy(torn, 256, 256);
  assert.match(String(history.check(2, 3, 0, torn)), /torn/);
  assert.match(String(history.check(2, 3, 1, history.payload(first, 0, 1))), /torn or foreign/);
});

test('names: one order explains the answers, or none does', () => {
  const history = new NameHistory();
  const done = (fileid: number) => ({ kind: 'done', fileid }) as const;
  history.begin(1, { kind: 'create', name: 'a' })(5, done(100));
  history.begin(2, { kind: 'create', name: 'a' })(6, { kind: 'refused' });
  history.begin(7, { kind: 'lookup', name: 'a' })(8, done(100));
  history.begin(9, { kind: 'rename', name: 'a', to: 'b' })(10, done(0));
  history.begin(11, { kind: 'lookup', name: 'b' })(12, done(100));
  assert.equal(history.check(), null);
  history.begin(13, { kind: 'lookup', name: 'a' })(14, done(100));
  assert.match(String(history.check()), /no order explains/);
});

test('names: of two creates that were both told created, one is too many; an unknown one may have happened late', () => {
  const twice = new NameHistory();
  twice.begin(1, { kind: 'create', name: 'a' })(5, { kind: 'done', fileid: 100 });
  twice.begin(1, { kind: 'create', name: 'a' })(5, { kind: 'done', fileid: 101 });
  assert.match(String(twice.check()), /no order/);
  const late = new NameHistory();
  late.begin(1, { kind: 'create', name: 'a' });
  late.begin(10, { kind: 'lookup', name: 'a' })(11, { kind: 'done', fileid: 0 });
  late.begin(20, { kind: 'lookup', name: 'a' })(21, { kind: 'done', fileid: 7 });
  assert.equal(late.check(), null);
  late.begin(30, { kind: 'lookup', name: 'a' })(31, { kind: 'done', fileid: 8 });
  assert.match(String(late.check()), /no order/);
});
