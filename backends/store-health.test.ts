import assert from 'node:assert/strict';
import { test } from 'node:test';

import { silentLogger } from '../server/core/logger.ts';
import { StoreHealth } from './store-health.ts';
import type { RetryObserver, StoreObserver } from './store-observer.ts';
import { VirtualClock } from './virtual-clock.ts';

const heard: string[] = [];
const inner: StoreObserver & RetryObserver = {
  requestStarted: (kind) => heard.push(`started ${kind}`),
  requestDone: (kind, outcome) => heard.push(`done ${kind} ${outcome}`),
  willRetry: (what) => heard.push(`retry ${what}`),
};

/** What people are told. (A function, so that the type checker does not believe that a getter answers the same twice.) */
function told(health: StoreHealth): string | null {
  return health.problem?.message ?? null;
}

test('a failure is a problem until its next attempt is over, whatever other requests do', () => {
  const clock = new VirtualClock();
  const health = new StoreHealth({ inner, clock, logger: silentLogger });
  assert.equal(told(health), null);
  health.willRetry('put bucket/large', 1, 8000, new Error('no space left'));
  health.requestDone('put', 'ok', 10, 1);
  clock.advance(9000);
  assert.equal(told(health), 'no space left');
  health.willRetry('put bucket/large', 2, 8000, new Error('still no space left'));
  clock.advance(9000);
  assert.equal(told(health), 'still no space left');
  clock.advance(1000);
  assert.equal(told(health), null);
});

test('everything is passed on', () => {
  heard.length = 0;
  const health = new StoreHealth({ inner, clock: new VirtualClock(), logger: silentLogger });
  health.requestStarted('list');
  health.requestDone('list', 'retry', 0, 1);
  health.willRetry('list bucket', 1, 50, new Error('x'));
  assert.deepEqual(heard, ['started list', 'done list retry', 'retry list bucket']);
});
