import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { VirtualClock } from '../../backends/virtual-clock.ts';
import { REPETITION_WINDOW_MS, REPETITIONS_BYTES_MAX } from './peer-port.ts';
import { hexOfWords, Repetitions, wordsOfHex, wordsOfText } from './repetitions.ts';

const ENTRY_BYTES = 20;

function words(...values: number[]): Uint32Array {
  return Uint32Array.from(values);
}

test('a call that ended well is known for the window, and not longer', () => {
  const clock = new VirtualClock();
  const repetitions = new Repetitions(clock, 16);
  repetitions.remember(100, words(1, 2, 3, 4));
  clock.advance(REPETITION_WINDOW_MS);
  assert.equal(repetitions.isDone(100, words(1, 2, 3, 4)), true);
  assert.equal(repetitions.isDone(101, words(1, 2, 3, 4)), false);
  assert.equal(repetitions.isDone(100, words(1, 2, 3, 5)), false);
  clock.advance(1);
  assert.equal(repetitions.isDone(100, words(1, 2, 3, 4)), false);
});

test('a repetition of a running call joins it; one of a call that failed is a new call', async () => {
  const repetitions = new Repetitions(new VirtualClock(), 16);
  const key = words(7, 7, 7, 7);
  const failing = Promise.withResolvers<{ ok: boolean }>();
  const first = repetitions.run(100, key, failing.promise);
  assert.equal(repetitions.running(100, key), first);
  assert.equal(repetitions.running(101, key), null);
  failing.resolve({ ok: false });
  await first;
  assert.equal(repetitions.running(100, key), null);
  assert.equal(repetitions.isDone(100, key), false);
  await assert.rejects(repetitions.run(100, words(8, 8, 8, 8), Promise.reject(new Error('a bug'))));
  assert.equal(repetitions.running(100, words(8, 8, 8, 8)), null);
});

test('calls that a log has count as done, once each', () => {
  const repetitions = new Repetitions(new VirtualClock(), 16);
  repetitions.remember(100, words(1, 1, 1, 1));
  repetitions.recovered(100, [words(1, 1, 1, 1), words(2, 2, 2, 2)]);
  assert.equal(repetitions.isDone(100, words(2, 2, 2, 2)), true);
  assert.equal(repetitions.isDone(101, words(2, 2, 2, 2)), false);
  assert.equal(repetitions.size, 2);
});

test('words that the caller reuses do not change what is remembered', async () => {
  const repetitions = new Repetitions(new VirtualClock(), 16);
  const scratch = words(1, 1, 1, 1);
  const call = Promise.withResolvers<void>();
  const running = repetitions.run(100, scratch, call.promise);
  repetitions.remember(100, scratch);
  scratch.fill(2);
  assert.equal(repetitions.running(100, words(1, 1, 1, 1)), running);
  call.resolve();
  await running;
  assert.equal(repetitions.running(100, words(1, 1, 1, 1)), null);
  assert.equal(repetitions.isDone(100, words(1, 1, 1, 1)), true);
  assert.equal(repetitions.isDone(100, words(2, 2, 2, 2)), false);
});

test('it behaves like a list of the last calls, whatever is remembered, forgotten, exported and imported', () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('remember' as const), fileid: fc.integer({ min: 100, max: 103 }), key: fc.integer({ min: 0, max: 40 }) }),
    fc.record({ kind: fc.constant('advance' as const), ms: fc.integer({ min: 0, max: REPETITION_WINDOW_MS }) }),
    fc.record({ kind: fc.constant('forget' as const), fileid: fc.integer({ min: 100, max: 103 }) }),
    fc.record({ kind: fc.constant('handOver' as const), fileid: fc.integer({ min: 100, max: 103 }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const clock = new VirtualClock();
      const capacity = 16;
      let repetitions = new Repetitions(clock, capacity);
      let model: { fileid: number; key: number; atMs: number }[] = [];
      for (const next of steps) {
        const nowMs = clock.monotonicMs();
        if (next.kind === 'remember') {
          repetitions.remember(next.fileid, words(next.key, 1, next.key % 3, 0));
          model.push({ fileid: next.fileid, key: next.key, atMs: nowMs });
          // What was forgotten before keeps its place: the bound counts it.
          if (model.length > capacity) model.shift();
        } else if (next.kind === 'advance') clock.advance(next.ms);
        else if (next.kind === 'forget') {
          repetitions.forget(next.fileid);
          model = model.map((entry) => (entry.fileid === next.fileid ? { ...entry, fileid: -1 } : entry));
        } else {
          const bytes = repetitions.export(next.fileid);
          repetitions = new Repetitions(clock, capacity);
          assert.equal(repetitions.import(next.fileid, bytes), true);
          model = model.filter((entry) => entry.fileid === next.fileid && nowMs - entry.atMs <= REPETITION_WINDOW_MS);
          model = model.map((entry) => ({ ...entry, atMs: nowMs }));
        }
        const since = clock.monotonicMs() - REPETITION_WINDOW_MS;
        model = model.filter((entry) => entry.atMs >= since);
        for (let fileid = 100; fileid <= 103; fileid += 1) {
          for (let key = 0; key <= 40; key += 1) {
            const expected = model.some((entry) => entry.fileid === fileid && entry.key === key);
            assert.equal(repetitions.isDone(fileid, words(key, 1, key % 3, 0)), expected, `${fileid} ${key}`);
          }
        }
      }
    }),
    { numRuns: 300 },
  );
});

test('what is handed over is bounded, the newest first, and anything else is refused', () => {
  const clock = new VirtualClock();
  const repetitions = new Repetitions(clock, 2 ** 18);
  const count = 150_000;
  for (let key = 0; key < count; key += 1) repetitions.remember(100, words(key, 0, 0, 0));
  const bytes = repetitions.export(100);
  assert.ok(bytes.length <= REPETITIONS_BYTES_MAX && bytes.length > REPETITIONS_BYTES_MAX - 2 * ENTRY_BYTES);
  const other = new Repetitions(clock, 2 ** 18);
  assert.equal(other.import(100, bytes), true);
  assert.equal(other.isDone(100, words(count - 1, 0, 0, 0)), true);
  assert.equal(other.isDone(100, words(0, 0, 0, 0)), false);
  assert.equal(other.import(100, Buffer.alloc(ENTRY_BYTES + 1)), false);
  assert.equal(other.import(100, Buffer.alloc(REPETITIONS_BYTES_MAX + ENTRY_BYTES)), false);
});

test('a WRITE is known by the same words at the router that forwards it and at the owner', () => {
  const key = words(0, 0xffff_ffff, 0x8000_0000, 1);
  const back = new Uint32Array(4);
  assert.equal(wordsOfHex(hexOfWords(key), back), true);
  assert.deepEqual(back, key);
  for (const text of ['', 'x'.repeat(32), hexOfWords(key).slice(1)]) assert.equal(wordsOfHex(text, back), false);
  assert.notDeepEqual(wordsOfText('a'), wordsOfText('b'));
});
