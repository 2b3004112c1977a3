import assert from 'node:assert/strict';
import { test } from 'node:test';

import { StoreError } from '../../backends/object-store.ts';
import { VirtualClock } from '../../backends/virtual-clock.ts';
import { silentLogger } from '../core/logger.ts';
import { BackendReads } from './backend-reads.ts';
import type { Look } from './backend-reads.ts';

const RIGHT: Look<string> = { kind: 'right', value: 'bytes' };
const ABSENT: Look<string> = { kind: 'absent' };
const WRONG: Look<string> = { kind: 'wrong', message: 'does not match its CRC' };

/** Asks with these looks, one after the other; the last one stays. */
function setUp(damagedAfterMs = 60_000): { clock: VirtualClock; reads: BackendReads; ask(...looks: Look<string>[]): Promise<string> } {
  const clock = new VirtualClock();
  const reads = new BackendReads({ clock, logger: silentLogger }, { damagedAfterMs });
  return {
    clock,
    reads,
    ask: (...looks) => clock.run(reads.ask('block 1', 'block-corrupt', (attempt) => Promise.resolve(looks[Math.min(attempt, looks.length - 1)]!))),
  };
}

test('what is absent, or wrong, is asked for again, four times within about two seconds', async () => {
  const { clock, reads, ask } = setUp();
  assert.equal(await ask(ABSENT, WRONG, WRONG, RIGHT), 'bytes');
  assert.equal(clock.monotonicMs(), 2000);
  assert.deepEqual(reads.statistics(), { wrongAnswers: 2, absentAnswers: 1 });
  assert.equal(reads.problem, null);
});

test('what stays absent is never an error for good: the caller comes back, and the operator sees it until it is there', async () => {
  const { clock, reads, ask } = setUp();
  for (let look = 0; look < 20; look += 1) {
    await assert.rejects(ask(ABSENT), { name: 'StoreError', class: 'retry' });
    clock.advance(10_000);
  }
  assert.match(reads.problem?.message ?? '', /block 1 is not visible on the backend/);
  assert.equal(await ask(RIGHT), 'bytes');
  assert.equal(reads.problem, null);
});

test('what is wrong may be right later, until it was wrong at every look for a minute', async () => {
  const { clock, reads, ask } = setUp();
  await assert.rejects(ask(WRONG), { name: 'StoreError', class: 'retry' });
  assert.match(reads.problem?.message ?? '', /block 1 does not match its CRC/);
  clock.advance(50_000);
  await assert.rejects(ask(WRONG), { class: 'retry' });
  clock.advance(10_000);
  await assert.rejects(ask(WRONG), { code: 'block-corrupt' });
  assert.equal(await ask(RIGHT), 'bytes');
  await assert.rejects(ask(WRONG), { class: 'retry' }, 'it was right in between');
});

test('a copy that was taken out of service after a wrong answer is absent, not damaged', async () => {
  const { clock, ask } = setUp();
  await assert.rejects(ask(WRONG, ABSENT), { class: 'retry' });
  clock.advance(100_000);
  await assert.rejects(ask(ABSENT), { class: 'retry' });
});

test('a store that notices wrong bytes itself gave a wrong answer; its other errors are passed on at once', async () => {
  const { clock, reads } = setUp();
  let looks = 0;
  const corrupt = reads.ask('block 1', 'block-corrupt', () => {
    looks += 1;
    return looks < 3 ? Promise.reject(new StoreError('corrupt', 'ETag')) : Promise.resolve(RIGHT);
  });
  assert.equal(await clock.run(corrupt), 'bytes');
  const denied = reads.ask('block 2', 'block-corrupt', () => Promise.reject(new StoreError('denied', 'no')));
  await assert.rejects(clock.run(denied), { class: 'denied' });
});

test('who only wants to know is told at once that it is damaged', async () => {
  await assert.rejects(setUp(0).ask(WRONG), { code: 'block-corrupt' });
});

test('a place that nobody met for an hour is no problem any more, and places are bounded', async () => {
  const { clock, reads } = setUp();
  for (let place = 0; place < 300; place += 1)
    await assert.rejects(clock.run(reads.ask(`block ${place}`, 'block-corrupt', () => Promise.resolve(ABSENT))));
  assert.match(reads.problem?.message ?? '', /and 255 more/);
  clock.advance(3_600_001);
  assert.equal(reads.problem, null);
});
