import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { VirtualClock } from '../../backends/virtual-clock.ts';
import { CALL_ENTRY_BYTES } from './arrived-calls.ts';
import { REPETITION_WINDOW_MS } from './peer-port.ts';
import { hexOfWords, JOURNAL_ENTRY_BYTES, Repetitions, wordsOfHex, wordsOfText } from './repetitions.ts';
import type { RememberedCall, RepetitionJournal } from './repetitions.ts';

function words(...values: number[]): Uint32Array {
  return Uint32Array.from({ length: 4 }, (_, word) => values[word] ?? 0);
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
    fc.record({
      kind: fc.constant('handOver' as const),
      fileid: fc.integer({ min: 100, max: 103 }),
      entries: fc.integer({ min: 1, max: 20 }),
    }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const clock = new VirtualClock();
      const capacity = 16;
      let repetitions = new Repetitions(clock, capacity);
      let model: { fileid: number; key: number; atMs: number; arrived: boolean }[] = [];
      for (const next of steps) {
        const nowMs = clock.monotonicMs();
        if (next.kind === 'remember') {
          repetitions.remember(next.fileid, words(next.key, 1, next.key % 3, 0));
          model.push({ fileid: next.fileid, key: next.key, atMs: nowMs, arrived: false });
          // What was forgotten before keeps its place: the bound counts it.
          const own = model.filter((entry) => !entry.arrived);
          if (own.length > capacity) model.splice(model.indexOf(own[0]!), 1);
        } else if (next.kind === 'advance') clock.advance(next.ms);
        else if (next.kind === 'forget') {
          repetitions.forget(next.fileid);
          model = model.map((entry) => (entry.fileid === next.fileid ? { ...entry, fileid: -1 } : entry));
        } else {
          const other = new Repetitions(clock, capacity);
          handOver(repetitions, other, next.fileid, next.entries);
          repetitions = other;
          model = model.filter((entry) => entry.fileid === next.fileid && nowMs - entry.atMs <= REPETITION_WINDOW_MS);
          // The bound is of the ring: what arrived has its own.
          model = model.map((entry) => ({ ...entry, arrived: true }));
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

/** In parts of `entries`, as while a move copies. Returns how many. */
function handOver(from: Repetitions, to: Repetitions, fileid: number, entries: number): number {
  const calls = to.arriving(fileid);
  let at = 0;
  for (let parts = 1; ; parts += 1) {
    const { bytes, next, behind } = from.after(fileid, at, entries * CALL_ENTRY_BYTES);
    assert.ok(bytes.length <= entries * CALL_ENTRY_BYTES);
    assert.equal(to.arrive(calls, bytes), true);
    at = next;
    if (behind > 0) continue;
    to.arrived(calls);
    return parts;
  }
}

test('all that is remembered is handed over, part by part, also what came meanwhile, and keeps its age over any number of moves', () => {
  const clock = new VirtualClock();
  let owner = new Repetitions(clock, 2 ** 17);
  const count = 100_000;
  for (let key = 0; key < count; key += 1) owner.remember(100 + (key & 1), words(key, 0, 0, 0));
  const first = clock.monotonicMs();
  for (let move = 1; move <= 4; move += 1) {
    clock.advance(10_000);
    owner.remember(100, words(move, 1, 0, 0));
    const next = new Repetitions(clock, 2 ** 17);
    assert.ok(handOver(owner, next, 100, 3000) > 10);
    owner.forget(100);
    assert.equal(owner.isDone(100, words(0, 0, 0, 0)), false);
    owner = next;
    for (let key = 0; key < count; key += 1111) assert.equal(owner.isDone(100, words(key, 0, 0, 0)), (key & 1) === 0);
  }
  clock.advance(REPETITION_WINDOW_MS - (clock.monotonicMs() - first) + 1);
  assert.equal(owner.isDone(100, words(0, 0, 0, 0)), false);
  assert.equal(owner.isDone(100, words(1, 1, 0, 0)), true);
  assert.equal(owner.after(100, 0, 1e6).bytes.length, 4 * CALL_ENTRY_BYTES);
});

test('a part that is asked for behind the last one has only what ended since, and none of other objects', () => {
  const clock = new VirtualClock();
  const repetitions = new Repetitions(clock, 16);
  repetitions.remember(100, words(1));
  const { next } = repetitions.after(100, 0, 1000);
  assert.equal(repetitions.after(100, next, 1000).bytes.length, 0);
  repetitions.remember(101, words(2));
  repetitions.remember(100, words(3));
  const later = repetitions.after(100, next, 1000);
  assert.deepEqual([later.bytes.length, later.bytes.readUInt32LE(0), later.behind], [CALL_ENTRY_BYTES, 3, 0]);
  assert.equal(repetitions.after(100, Number.MAX_SAFE_INTEGER, 1000).bytes.length, 0);
  // The ring has gone on over what was read.
  for (let key = 0; key < 40; key += 1) repetitions.remember(100, words(key, 9));
  assert.equal(repetitions.after(100, next, 1000).bytes.length, 16 * CALL_ENTRY_BYTES);
});

test('what comes back is what was remembered meanwhile; what was forgotten before does not come back with it', () => {
  const clock = new VirtualClock();
  const repetitions = new Repetitions(clock, 16);
  repetitions.remember(100, words(1));
  repetitions.forget(100);
  const calls = repetitions.arriving(100);
  const elsewhere = new Repetitions(clock, 16);
  elsewhere.remember(100, words(2));
  repetitions.arrive(calls, elsewhere.after(100, 0, 1000).bytes);
  assert.equal(repetitions.isDone(100, words(2)), false, 'not before all of it is here');
  repetitions.arrived(calls);
  assert.deepEqual([repetitions.isDone(100, words(1)), repetitions.isDone(100, words(2))], [false, true]);
  repetitions.remember(100, words(1));
  assert.equal(repetitions.isDone(100, words(1)), true);
});

test('what was forgotten of an object the next life does not know either; what was remembered behind it, and of others, it does', () => {
  const clock = new VirtualClock();
  const journaled: RememberedCall[] = [];
  const still = { end: 0, prove: () => undefined, sync: () => Promise.resolve() };
  const journal: RepetitionJournal = {
    ...still,
    load: () => journaled.slice(),
    append: (entries) => {
      for (let at = 0; at < entries.length; at += JOURNAL_ENTRY_BYTES)
        journaled.push({ fileid: entries.readDoubleLE(at + 16), words: words(entries.readUInt32LE(at), entries.readUInt32LE(at + 4)) });
    },
  };
  const nextLife = (): Repetitions => new Repetitions(clock, 16, { ...still, load: () => journaled.slice(), append: () => undefined });
  const giver = new Repetitions(clock, 16);
  giver.remember(100, words(1));
  const repetitions = new Repetitions(clock, 16, journal);
  // A move brings them and is broken off; then the object is taken over by force, and what they wrote is given up.
  const calls = repetitions.arriving(100);
  repetitions.arrive(calls, giver.after(100, 0, 1000).bytes);
  repetitions.arrived(calls);
  repetitions.remember(101, words(1));
  repetitions.forget(100);
  assert.deepEqual([repetitions.isDone(100, words(1)), nextLife().isDone(100, words(1)), nextLife().isDone(101, words(1))], [false, false, true]);
  giver.remember(100, words(2));
  repetitions.arrive(repetitions.arriving(100), giver.after(100, 0, 1000).bytes);
  assert.equal(nextLife().isDone(100, words(2)), true);
  // The next attempt brings what its giver knows: another one that was given the object by force, perhaps.
  repetitions.arriving(100);
  assert.equal(nextLife().isDone(100, words(2)), false);
});

test('bytes that are no remembered calls are refused', () => {
  const repetitions = new Repetitions(new VirtualClock(), 16);
  const calls = repetitions.arriving(100);
  assert.equal(repetitions.arrive(calls, Buffer.alloc(CALL_ENTRY_BYTES + 1)), false);
  assert.equal(repetitions.arrive(calls, Buffer.alloc((2 ** 20 + 1) * CALL_ENTRY_BYTES)), false);
  assert.equal(calls.count, 0);
});

test('a WRITE is known by the same words at the router that forwards it and at the owner', () => {
  const key = words(0, 0xffff_ffff, 0x8000_0000, 1);
  const back = new Uint32Array(4);
  assert.equal(wordsOfHex(hexOfWords(key), back), true);
  assert.deepEqual(back, key);
  for (const text of ['', 'x'.repeat(32), hexOfWords(key).slice(1)]) assert.equal(wordsOfHex(text, back), false);
  assert.notDeepEqual(wordsOfText('a'), wordsOfText('b'));
});
