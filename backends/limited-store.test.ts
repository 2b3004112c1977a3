import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { bytes, objectStoreConformance, rejectsWith } from './conformance.ts';
import { LimitedStore } from './limited-store.ts';
import { MemoryStore } from './memory/memory-store.ts';
import type { ObjectStore } from './object-store.ts';
import { PrefixLayoutStore } from './prefix-layout/prefix-layout-store.ts';

objectStoreConformance('LimitedStore', () => {
  const store = new LimitedStore(new MemoryStore(), { concurrencyMax: 2, bytesInFlightMax: 100_000, wholeGetBytes: 50_000 });
  return Promise.resolve({ store, close: () => Promise.resolve() });
});

/** A store whose gets run until told to end; `running` are their names in order of start. */
function manual(): { store: ObjectStore; running: string[]; started: string[]; end: (name: string) => Promise<void> } {
  const running: string[] = [];
  const started: string[] = [];
  const enders = new Map<string, () => void>();
  const store = new MemoryStore();
  store.get = (bucket, name) => {
    const key = `${bucket}/${name}`;
    running.push(key);
    started.push(key);
    return new Promise((resolve) => enders.set(key, () => resolve({ kind: 'absent' })));
  };
  const end = async (key: string): Promise<void> => {
    running.splice(running.indexOf(key), 1);
    enders.get(key)?.();
    await turns();
  };
  return { store, running, started, end };
}

async function turns(): Promise<void> {
  for (let count = 0; count < 10; count += 1) await Promise.resolve();
}

function range(lengthBytes: number): { offsetBytes: number; lengthBytes: number } {
  return { offsetBytes: 0, lengthBytes };
}

test('no more requests run at a time than allowed, and the next starts when one ends', async () => {
  const inner = manual();
  const store = new LimitedStore(inner.store, { concurrencyMax: 2, bytesInFlightMax: 1e9, wholeGetBytes: 1 });
  const all = ['1', '2', '3', '4'].map((name) => store.get('bkt', name));
  await turns();
  assert.deepEqual(inner.running, ['bkt/1', 'bkt/2']);
  assert.deepEqual(store.load, { running: 2, runningBytes: 2, queued: 2 });
  await inner.end('bkt/2');
  assert.deepEqual(inner.running, ['bkt/1', 'bkt/3']);
  await inner.end('bkt/1');
  await inner.end('bkt/3');
  await inner.end('bkt/4');
  await Promise.all(all);
  assert.deepEqual(store.load, { running: 0, runningBytes: 0, queued: 0 });
});

test('buckets take turns: one with many requests waiting delays another by one', async () => {
  const inner = manual();
  const store = new LimitedStore(inner.store, { concurrencyMax: 1, bytesInFlightMax: 1e9, wholeGetBytes: 1 });
  const all = [1, 2, 3, 4, 5].map((index) => store.get('greedy', `${index}`));
  all.push(store.get('modest', '1'), store.get('modest', '2'), store.get('third', '1'));
  await turns();
  while (inner.running.length > 0) await inner.end(inner.running[0] as string);
  await Promise.all(all);
  assert.deepEqual(inner.started, ['greedy/1', 'greedy/2', 'modest/1', 'third/1', 'greedy/3', 'modest/2', 'greedy/4', 'greedy/5']);
});

test('bytes in flight are bounded, a request larger than the bound runs alone, and small ones do not overtake it', async () => {
  const inner = manual();
  const store = new LimitedStore(inner.store, { concurrencyMax: 10, bytesInFlightMax: 100, wholeGetBytes: 60 });
  const all = [store.get('bkt', 'a', range(70)), store.get('bkt', 'huge', range(1000)), store.get('bkt', 'b', range(10)), store.get('bkt', 'whole')];
  await turns();
  assert.deepEqual(inner.running, ['bkt/a']);
  await inner.end('bkt/a');
  assert.deepEqual(inner.running, ['bkt/huge']);
  await inner.end('bkt/huge');
  assert.deepEqual(inner.running, ['bkt/b', 'bkt/whole']);
  assert.equal(store.load.runningBytes, 70);
  await inner.end('bkt/b');
  await inner.end('bkt/whole');
  await Promise.all(all);
});

test('a waiting request that is aborted leaves the queue at once, and one that it blocked starts', async () => {
  const inner = manual();
  const store = new LimitedStore(inner.store, { concurrencyMax: 10, bytesInFlightMax: 100, wholeGetBytes: 60 });
  const first = store.get('bkt', 'a', range(70));
  const controller = new AbortController();
  const huge = store.get('bkt', 'huge', range(1000), controller.signal);
  const small = store.get('bkt', 'b', range(10));
  await turns();
  controller.abort();
  await rejectsWith(huge, 'retry');
  assert.deepEqual(inner.started, ['bkt/a', 'bkt/b']);
  assert.equal(store.load.queued, 0);
  await inner.end('bkt/a');
  await inner.end('bkt/b');
  await Promise.all([first, small]);
  assert.deepEqual(inner.started, ['bkt/a', 'bkt/b']);
});

test('reads do not wait for uploads that hold every place, nor uploads for reads', async () => {
  const inner = manual();
  const store = new LimitedStore(inner.store, { concurrencyMax: 1, bytesInFlightMax: 100, wholeGetBytes: 60 });
  let endPut = (): void => {};
  inner.store.put = () => new Promise((resolve) => (endPut = () => resolve('written')));
  const put = store.put('bkt', 'upload', bytes(Buffer.alloc(100)));
  const waiting = store.put('bkt', 'another', bytes(Buffer.alloc(100)));
  const get = store.get('bkt', 'a');
  const head = store.head('bkt', 'b');
  await turns();
  assert.deepEqual(inner.running, ['bkt/a']);
  assert.deepEqual(store.load, { running: 2, runningBytes: 160, queued: 2 });
  await inner.end('bkt/a');
  await Promise.all([get, head]);
  assert.deepEqual(store.load, { running: 1, runningBytes: 100, queued: 1 });
  endPut();
  await put;
  endPut();
  await waiting;
});

test('uploads go as many at a time as the pace says, buckets in turn; small puts do not wait for them', async () => {
  const inner = manual();
  const running: string[] = [];
  const ends: (() => void)[] = [];
  inner.store.put = (bucket, name) => {
    running.push(`${bucket}/${name}`);
    return new Promise((resolve) => ends.push(() => resolve('written')));
  };
  const pace = { limit: 1 };
  const store = new LimitedStore(inner.store, { concurrencyMax: 4, bytesInFlightMax: 1e9, wholeGetBytes: 1 }, pace);
  const large = Buffer.alloc(1024 * 1024);
  const all = ['1', '2', '3'].map((name) => store.put('greedy', name, bytes(large)));
  all.push(store.put('modest', '1', bytes(large)), store.put('modest', 'small', bytes(Buffer.alloc(10))));
  await turns();
  assert.deepEqual(running, ['greedy/1', 'modest/small']);
  assert.equal(store.lanes.others.queued, 3);
  pace.limit = 2;
  ends[0]?.();
  await turns();
  assert.deepEqual(running, ['greedy/1', 'modest/small', 'greedy/2', 'modest/1']);
  for (let index = 1; index < 5; index += 1) {
    ends[index]?.();
    await turns();
  }
  await Promise.all(all);
  assert.deepEqual(store.load, { running: 0, runningBytes: 0, queued: 0 });
});

test('whatever comes, ends or is aborted: the bounds hold, nothing is forgotten, and the end is idle', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 4 }),
      fc.array(fc.tuple(fc.constantFrom('come', 'come', 'end', 'abort'), fc.nat(3), fc.nat(150)), { maxLength: 60 }),
      async (concurrencyMax, steps) => {
        const inner = manual();
        const store = new LimitedStore(inner.store, { concurrencyMax, bytesInFlightMax: 200, wholeGetBytes: 1 });
        const waiting: { controller: AbortController; done: Promise<unknown>; key: string }[] = [];
        let settled = 0;
        for (const [index, [action, bucket, size]] of steps.entries()) {
          if (action === 'come') {
            const controller = new AbortController();
            const done = store.get(`bucket${bucket}`, `${index}`, range(size), controller.signal).then(
              () => (settled += 1),
              () => (settled += 1),
            );
            waiting.push({ controller, done, key: `bucket${bucket}/${index}` });
          } else if (action === 'end' && inner.running.length > 0) {
            await inner.end(inner.running[size % inner.running.length] as string);
          } else if (action === 'abort' && waiting.length > 0) {
            const chosen = waiting[size % waiting.length];
            if (chosen !== undefined && !inner.started.includes(chosen.key)) chosen.controller.abort();
          }
          await turns();
          assert.ok(inner.running.length <= concurrencyMax);
          assert.ok(store.load.runningBytes <= 200);
          assert.equal(store.load.running, inner.running.length);
          assert.equal(store.load.running + store.load.queued + settled, waiting.length);
        }
        while (inner.running.length > 0) await inner.end(inner.running[0] as string);
        await Promise.all(waiting.map(({ done }) => done));
        assert.deepEqual(store.load, { running: 0, runningBytes: 0, queued: 0 });
      },
    ),
    { numRuns: 100 },
  );
});

test('volumes take turns also where all share one bucket of the store', async () => {
  const inner = new MemoryStore();
  await inner.createBucket('shared');
  const started: string[] = [];
  const put = inner.put.bind(inner);
  inner.put = async (bucket, name, body) => {
    started.push(name.slice(0, name.indexOf('.')));
    await new Promise((resolve) => setImmediate(resolve));
    return await put(bucket, name, body);
  };
  const store = new LimitedStore(new PrefixLayoutStore(inner, 'shared'), { concurrencyMax: 2, bytesInFlightMax: 1000, wholeGetBytes: 1 });
  for (const volume of ['vf-greedy', 'vf-modest']) await store.createBucket(volume);
  started.length = 0;
  const greedy = Array.from({ length: 200 }, (_, index) => store.put('vf-greedy', `o${index}`, bytes(Buffer.alloc(10))));
  await store.put('vf-modest', 'o', bytes(Buffer.alloc(10)));
  assert.ok(started.filter((volume) => volume === 'vf-greedy').length <= 5, String(started));
  const { others, reads } = store.lanes;
  assert.equal(others.running, 2);
  assert.ok(others.queued > 190);
  assert.deepEqual(reads, { running: 0, runningBytes: 0, queued: 0 });
  await Promise.all(greedy);
  assert.deepEqual(store.lanes.others, { running: 0, runningBytes: 0, queued: 0 });
});
