import assert from 'node:assert/strict';
import { test } from 'node:test';

import { silentLogger } from '../server/core/logger.ts';
import { StoreHealth } from './store-health.ts';
import type { RetryObserver, StoreObserver } from './store-observer.ts';

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

test('a failure that is retried is a problem until a request of its kind is done, whatever others do', () => {
  const health = new StoreHealth({ inner, logger: silentLogger });
  assert.equal(told(health), null);
  health.willRetry('put bucket/name', 1, 50, new Error('no space left'));
  health.requestDone('put', 'no-space', 0, 1);
  assert.equal(told(health), 'no space left');
  health.requestDone('get', 'ok', 10, 1);
  assert.notEqual(told(health), null);
  health.requestDone('put', 'ok', 10, 1);
  assert.equal(told(health), null);
  health.willRetry('create bucket b', 1, 50, new Error('gone'));
  health.requestDone('create-bucket', 'ok', 0, 1);
  assert.equal(told(health), null);
});

test('everything is passed on', () => {
  heard.length = 0;
  const health = new StoreHealth({ inner, logger: silentLogger });
  health.requestStarted('list');
  health.requestDone('list', 'retry', 0, 1);
  health.willRetry('list bucket', 1, 50, new Error('x'));
  assert.deepEqual(heard, ['started list', 'done list retry', 'retry list bucket']);
});
