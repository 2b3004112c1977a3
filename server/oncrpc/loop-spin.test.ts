import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Clock } from '../core/time.ts';
import { LoopSpin } from './loop-spin.ts';

/** A clock whose `soon` callbacks wait in `turns` until the test runs them. */
function loop(): { clock: Clock; turns: (() => void)[]; run: (nowMs: number) => void } {
  const turns: (() => void)[] = [];
  const state = { nowMs: 0 };
  const refuse = (): never => assert.fail('a spin needs only the time and the next turn');
  const clock: Clock = { wallMs: refuse, monotonicMs: () => state.nowMs, after: refuse, soon: (turn) => turns.push(turn), sleep: refuse };
  const run = (nowMs: number): void => {
    state.nowMs = nowMs;
    for (const turn of turns.splice(0)) turn();
  };
  return { clock, turns, run };
}

test('the loop turns until the time since the last message is over', () => {
  const { clock, turns, run } = loop();
  const spin = new LoopSpin(clock, 0.1, () => false);
  spin.extend();
  run(0.06);
  assert.equal(turns.length, 1);
  spin.extend();
  assert.equal(turns.length, 1, 'one turn is scheduled however often it is extended');
  run(0.15);
  assert.equal(turns.length, 1);
  run(0.17);
  assert.equal(turns.length, 0);
  spin.extend();
  assert.equal(turns.length, 1, 'the next message begins again');
});

test('the loop sleeps while a call is being executed', () => {
  const { clock, turns, run } = loop();
  let isExecuting = true;
  const spin = new LoopSpin(clock, 0.1, () => isExecuting);
  spin.extend();
  assert.equal(turns.length, 0);
  isExecuting = false;
  spin.extend();
  assert.equal(turns.length, 1);
  isExecuting = true;
  run(0.01);
  assert.equal(turns.length, 0, 'a call that began stops it');
});

test('a spin time of 0 never keeps the loop awake', () => {
  const { clock, turns } = loop();
  new LoopSpin(clock, 0, () => false).extend();
  assert.equal(turns.length, 0);
});
