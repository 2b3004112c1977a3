/** The guess of Redis's clock: never ahead, behind by a round trip at most, whatever the wall clocks say. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { RedisClock } from './redis-clock.ts';

/** A router's clocks: the wall clock may say anything. */
class Clocks {
  nowMs = 5_000;
  wallOffsetMs = 1_700_000_000_000;
  monotonicMs(): number {
    return this.nowMs;
  }
  wallMs(): number {
    return this.nowMs + this.wallOffsetMs;
  }
}

const REDIS_AHEAD_MS = 86_400_000;

test('a deadline is never later on Redis’s clock than its caller meant, and earlier by the slowest sample at most', () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.record({ idleMs: fc.nat({ max: 8_000 }), toMs: fc.nat({ max: 40 }), backMs: fc.nat({ max: 40 }), validMs: fc.nat({ max: 20_000 }) }),
      ),
      (calls) => {
        const clocks = new Clocks();
        const guess = new RedisClock(clocks);
        let slowestMs = 0;
        for (const { idleMs, toMs, backMs, validMs } of calls) {
          clocks.nowMs += idleMs;
          if (guess.known) {
            const deadline = Number(guess.deadline(clocks.wallMs() + validMs));
            const meant = clocks.nowMs + REDIS_AHEAD_MS + validMs;
            assert.ok(deadline <= meant, 'never later');
            assert.ok(deadline >= meant - slowestMs - 1, 'earlier by a round trip at most');
          }
          const sentMs = clocks.nowMs;
          clocks.nowMs += toMs;
          const redisMs = Math.floor(clocks.nowMs + REDIS_AHEAD_MS);
          clocks.nowMs += backMs;
          guess.sample(redisMs, sentMs);
          slowestMs = Math.max(slowestMs, toMs + backMs);
        }
      },
    ),
  );
});

test('a wall clock that jumps between two calls does not matter; what is over is over on any clock; never is never', () => {
  const clocks = new Clocks();
  const guess = new RedisClock(clocks);
  assert.equal(guess.known, false);
  guess.sample(1_000_000, clocks.nowMs);
  clocks.wallOffsetMs += 3_600_000;
  assert.equal(guess.deadline(clocks.wallMs() + 500), '1000500');
  assert.equal(guess.deadline(clocks.wallMs() - 1), '0');
  assert.equal(guess.deadline(Infinity), '');
});

test('a slow reply does not spoil a good sample, but replaces an old one; what was forgotten is not used', () => {
  const clocks = new Clocks();
  const guess = new RedisClock(clocks);
  const deadlineNow = (): number => Number(guess.deadline(clocks.wallMs()));
  guess.sample(clocks.nowMs, clocks.nowMs);
  clocks.nowMs += 1_000;
  guess.sample(clocks.nowMs - 900, clocks.nowMs - 1_000);
  assert.equal(deadlineNow(), clocks.nowMs, 'the fast sample counts on');
  clocks.nowMs += 10_000;
  guess.sample(clocks.nowMs - 900, clocks.nowMs - 1_000);
  assert.equal(deadlineNow(), clocks.nowMs - 900, 'an old one is replaced');
  guess.forget();
  assert.equal(guess.known, false);
  guess.sample(clocks.nowMs + 7, clocks.nowMs - 1_000);
  assert.equal(deadlineNow(), clocks.nowMs + 7, 'any is better than none');
});
