import assert from 'node:assert/strict';
import { test } from 'node:test';

import { VirtualClock } from '../../backends/virtual-clock.ts';
import { isPending } from '../core/maybe-promise.ts';
import { WriteAdmission } from './write-admission.ts';

function admission(): { clock: VirtualClock; set: (bytes: number) => void; writes: WriteAdmission } {
  const clock = new VirtualClock();
  let dirtyBytes = 0;
  const set = (bytes: number): void => {
    dirtyBytes = bytes;
  };
  return { clock, set, writes: new WriteAdmission(clock, () => dirtyBytes, 1000) };
}

test('far from the bound writes pass at once', () => {
  const { writes, set } = admission();
  set(740);
  assert.ok(writes.isOpen);
  assert.equal(writes.admit(1 << 20, 0), true);
});

test('near the bound writes slow down smoothly, and the more the larger they are', async () => {
  const { clock, writes, set } = admission();
  const delays: number[] = [];
  for (const [dirtyBytes, bytes] of [
    [760, 1 << 20],
    [850, 1 << 20],
    [990, 1 << 20],
    [990, 1 << 18],
  ] as const) {
    set(dirtyBytes);
    assert.ok(!writes.isOpen);
    const started = clock.monotonicMs();
    assert.equal(await clock.run(Promise.resolve(writes.admit(bytes, 0))), true);
    delays.push(clock.monotonicMs() - started);
  }
  const [little = 0, more = 0, much = 0, small = 0] = delays;
  assert.ok(little < more && more < much && much <= 400, String(delays));
  assert.ok(small < much / 2, String(delays));
});

test('at the bound writes wait, and pass when something was uploaded', async () => {
  const { clock, writes, set } = admission();
  set(1000);
  const waiting = writes.admit(4096, 15_000);
  assert.ok(isPending(waiting));
  clock.advance(5000);
  assert.equal(writes.waiting, 1);
  set(100);
  assert.equal(await clock.run(waiting), true);
  assert.equal(writes.waiting, 0);
});

test('a write that waited longer than a client should is told so', async () => {
  const { clock, writes, set } = admission();
  set(2000);
  const started = clock.monotonicMs();
  assert.equal(await clock.run(Promise.resolve(writes.admit(4096, 15_000))), false);
  const waitedMs = clock.monotonicMs() - started;
  assert.ok(waitedMs >= 15_000 && waitedMs < 15_100, String(waitedMs));
  assert.equal(writes.waiting, 0);
});
