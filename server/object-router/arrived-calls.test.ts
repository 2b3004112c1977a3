import assert from 'node:assert/strict';
import { test } from 'node:test';

import { VirtualClock } from '../../backends/virtual-clock.ts';
import { ArrivedCalls, CALL_ENTRY_BYTES, KEY_WORDS } from './arrived-calls.ts';

/** Calls `from` to `to`, all of this age. */
function entries(from: number, to: number, ageMs: number): Buffer {
  const bytes = Buffer.alloc((to - from) * CALL_ENTRY_BYTES);
  for (let key = from; key < to; key += 1) {
    bytes.writeUInt32LE(key, (key - from) * CALL_ENTRY_BYTES);
    bytes.writeUInt32LE(ageMs, (key - from) * CALL_ENTRY_BYTES + KEY_WORDS * 4);
  }
  return bytes;
}

function has(calls: ArrivedCalls, key: number): boolean {
  return calls.has(Uint32Array.of(key, 0, 0, 0), 0);
}

test('of an object that is copied for longer than its calls are remembered, the newest calls are kept: the move goes on', () => {
  const clock = new VirtualClock();
  clock.advance(100_000);
  const calls = new ArrivedCalls(clock, 100, 256);
  let taken = 0;
  for (let key = 0; key < 2000; key += 100) {
    assert.equal(
      calls.add(entries(key, key + 100, 5), () => {
        taken += 1;
      }),
      true,
    );
    clock.advance(1000);
    assert.ok(calls.count <= 256);
    for (let known = Math.max(0, key - 28); known < key + 100; known += 1) assert.equal(has(calls, known), true);
    assert.equal(has(calls, key + 100), false);
  }
  assert.equal(taken, 2000);
  assert.equal(has(calls, 0), false);
  const at = Buffer.alloc(KEY_WORDS * 4);
  calls.writeKey(calls.count - 1, at, 0);
  assert.deepEqual(
    [at.readUInt32LE(0), calls.endedMs(calls.count - 1), calls.newestMs],
    [1999, clock.monotonicMs() - 1005, clock.monotonicMs() - 1005],
  );
});
