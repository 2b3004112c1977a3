import assert from 'node:assert/strict';
import { test } from 'node:test';

import { bytes, objectStoreConformance, rejectsWith } from './conformance.ts';
import { FaultyStore } from './faulty-store.ts';
import { MemoryStore } from './memory/memory-store.ts';
import { MeteredStore } from './metered-store.ts';
import { StoreError } from './object-store.ts';
import type { StoreObserver } from './store-observer.ts';
import { seededRandom, VirtualClock } from './virtual-clock.ts';

const deaf: StoreObserver = { requestStarted() {}, requestDone() {} };

objectStoreConformance('MeteredStore', () => {
  const store = new MeteredStore({ inner: new MemoryStore(), observers: [deaf], clock: new VirtualClock() });
  return Promise.resolve({ store, close: () => Promise.resolve() });
});

test('every request is told with its kind, outcome, payload bytes and duration, the failed and aborted ones too', async () => {
  const clock = new VirtualClock();
  const told: unknown[][] = [];
  let started = 0;
  let lastBucket = 'bucket';
  const observer: StoreObserver = {
    requestStarted: () => {
      started += 1;
    },
    requestDone: ({ kind, bucket }, outcome, payloadBytes, durationMs) => {
      assert.equal(bucket, kind === 'list-buckets' ? '' : lastBucket);
      told.push([kind, outcome, payloadBytes, durationMs]);
    },
  };
  const faulty = new FaultyStore({ inner: new MemoryStore(), clock, random: seededRandom(1) });
  const store = new MeteredStore({ inner: faulty, observers: [observer], clock });
  await store.createBucket('bucket');
  await store.put('bucket', 'object', bytes(Buffer.alloc(100)));
  await store.put('bucket', 'object', bytes(Buffer.alloc(100)));
  await store.get('bucket', 'object', { offsetBytes: 0, lengthBytes: 7 });
  await store.get('bucket', 'nothing');
  await store.head('bucket', 'object');
  await store.head('bucket', 'nothing');
  await store.list('bucket', '', '', 10);
  await store.listBuckets('', 10);
  await rejectsWith(store.deleteBucket('bucket'), 'denied');
  await store.delete('bucket', 'object');
  lastBucket = 'missing';
  await rejectsWith(store.put('missing', 'object', bytes(Buffer.alloc(5))), 'absent');
  lastBucket = 'bucket';
  await rejectsWith(store.head('bucket', 'object', AbortSignal.abort()), 'retry');
  faulty.setFaults({ failBefore: 1, failClass: 'no-space', delay: 1, delayMsMax: 1000 });
  await rejectsWith(clock.run(store.put('bucket', 'other', bytes(Buffer.alloc(5)))), 'no-space');
  const lastMs = told.at(-1)?.pop() as number;
  assert.ok(lastMs > 0 && lastMs <= 1000);
  assert.deepEqual(
    told.map((entry) => entry.slice(0, 3)),
    [
      ['create-bucket', 'ok', 0],
      ['put', 'ok', 100],
      ['put', 'exists', 0],
      ['get', 'ok', 7],
      ['get', 'not-found', 0],
      ['head', 'ok', 0],
      ['head', 'not-found', 0],
      ['list', 'ok', 0],
      ['list-buckets', 'ok', 0],
      ['delete-bucket', 'denied', 0],
      ['delete', 'ok', 0],
      ['put', 'absent', 0],
      ['head', 'aborted', 0],
      ['put', 'no-space', 0],
    ],
  );
  assert.equal(started, told.length);
});

test('an attempt whose time was over is told apart from one that the caller gave up, and several observers hear the same', async () => {
  const heard: string[][] = [[], []];
  const observers = heard.map((list): StoreObserver => ({
    requestStarted: ({ kind, payloadBytesMax }) => list.push(`${kind} ${payloadBytesMax}`),
    requestDone: (_request, outcome, _bytes, _durationMs, error) => list.push(`${outcome} ${error?.message ?? ''}`),
  }));
  const clock = new VirtualClock();
  const store = new MeteredStore({
    inner: new FaultyStore({ inner: new MemoryStore(), clock, random: seededRandom(1) }, { hang: 1 }),
    observers,
    clock,
  });
  for (const [index, reason] of [new StoreError('retry', 'no answer within 5 ms'), new Error('the caller has gone')].entries()) {
    const controller = new AbortController();
    const call =
      index === 0
        ? store.get('bucket', 'object', undefined, controller.signal)
        : store.put('bucket', 'object', bytes(Buffer.alloc(7)), controller.signal);
    await new Promise((resolve) => setImmediate(resolve));
    controller.abort(reason);
    await rejectsWith(call, 'retry');
  }
  for (const list of heard) assert.deepEqual(list, ['get Infinity', 'timeout no answer within 5 ms', 'put 7', 'aborted put bucket/object: aborted']);
});
