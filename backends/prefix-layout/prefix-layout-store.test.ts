import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import fc from 'fast-check';

import { bytes, objectStoreConformance, rejectsWith } from '../conformance.ts';
import { withDirectory } from '../conformance.ts';
import { DirectoryStore } from '../directory/directory-store.ts';
import { MemoryStore } from '../memory/memory-store.ts';
import { StoreError } from '../object-store.ts';
import { PrefixLayoutStore } from './prefix-layout-store.ts';

const REAL = 'the-bucket';

objectStoreConformance(
  'PrefixLayoutStore over memory',
  () => Promise.resolve({ store: new PrefixLayoutStore(new MemoryStore(), REAL), close: () => Promise.resolve() }),
  { bucketsAreReal: false },
);

/** Counts its lists, and how often a bucket is made. */
class CountingStore extends MemoryStore {
  lists = 0;
  made = 0;

  override createBucket(...call: Parameters<MemoryStore['createBucket']>): Promise<void> {
    this.made += 1;
    return super.createBucket(...call);
  }

  override list(...call: Parameters<MemoryStore['list']>): Promise<{ names: string[]; more: boolean }> {
    this.lists += 1;
    return super.list(...call);
  }
}

async function storeWith(buckets: readonly string[], inner: MemoryStore = new MemoryStore()): Promise<PrefixLayoutStore> {
  await inner.createBucket(REAL);
  const store = new PrefixLayoutStore(inner, REAL);
  for (const bucket of buckets) for (const name of ['a', 'b-1', 'z.z']) await store.put(bucket, name, bytes(Buffer.from(name)));
  return store;
}

async function allBuckets(store: PrefixLayoutStore, limit: number): Promise<string[]> {
  const all: string[] = [];
  for (;;) {
    const page = await store.listBuckets(all.at(-1) ?? '', limit);
    assert.ok(page.names.length <= limit && (!page.more || page.names.length === limit));
    all.push(...page.names);
    if (!page.more) return all;
  }
}

test('objects are in the one bucket, under their bucket and their name', async () => {
  const inner = new MemoryStore();
  const store = await storeWith(['vf-pool-1', 'vf-pool-2'], inner);
  assert.deepEqual((await inner.list(REAL, '', '', 10)).names, [
    'vf-pool-1.a',
    'vf-pool-1.b-1',
    'vf-pool-1.z.z',
    'vf-pool-2.a',
    'vf-pool-2.b-1',
    'vf-pool-2.z.z',
  ]);
  assert.deepEqual(await inner.listBuckets('', 10), { names: [REAL], more: false });
  await store.delete('vf-pool-1', 'z.z');
  await store.deleteMany('vf-pool-1', ['a', 'b-1']);
  assert.deepEqual((await inner.list(REAL, '', '', 10)).names, ['vf-pool-2.a', 'vf-pool-2.b-1', 'vf-pool-2.z.z']);
});

describe('the one bucket', () => {
  test('is made once, when it is not there', async () => {
    const inner = new CountingStore();
    const store = new PrefixLayoutStore(inner, REAL);
    await store.createBucket('vf-pool-1');
    await store.createBucket('vf-pool-2');
    assert.deepEqual([inner.made, inner.lists], [1, 1]);
  });

  test('need not be made by credentials that may not, when it is there', async () => {
    const inner = new MemoryStore();
    await inner.createBucket(REAL);
    inner.createBucket = () => Promise.reject(new StoreError('denied', 'not for you'));
    const store = new PrefixLayoutStore(inner, REAL);
    await store.createBucket('vf-pool-1');
    assert.equal(await store.put('vf-pool-1', 'object', bytes(Buffer.from('x'))), 'written');
    await rejectsWith(new PrefixLayoutStore(inner, 'another').createBucket('vf-pool-1'), 'denied');
  });

  test('that is not there holds nothing, and is absent to a put', async () => {
    const store = new PrefixLayoutStore(new MemoryStore(), REAL);
    assert.deepEqual(await store.listBuckets('', 10), { names: [], more: false });
    assert.deepEqual(await store.get('vf-pool-1', 'object'), { kind: 'absent' });
    await store.deleteBucket('vf-pool-1');
    await rejectsWith(store.put('vf-pool-1', 'object', bytes(Buffer.from('x'))), 'absent');
  });
});

describe('a listing of buckets', () => {
  test('is in byte order although the store sorts a dash before the dot', async () => {
    const buckets = ['abc', 'abc-d', 'abc-d-e', 'abc-d-f', 'abc0', 'abcd', 'abd'];
    const store = await storeWith(buckets);
    for (const limit of [1, 2, 100]) assert.deepEqual(await allBuckets(store, limit), buckets);
    assert.deepEqual(await store.listBuckets('abc-d', 2), { names: ['abc-d-e', 'abc-d-f'], more: true });
  });

  test('is what a store with real buckets lists, for any names and any place to go on from', async () => {
    const name = fc.stringMatching(/^[ab0](-?[ab0]){2,6}$/);
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(name, { maxLength: 12 }),
        fc.oneof(name, fc.string({ maxLength: 4 })),
        fc.integer({ min: 1, max: 5 }),
        async (buckets, after, limit) => {
          const store = await storeWith(buckets);
          const sorted = [...buckets].sort();
          assert.deepEqual(await allBuckets(store, limit), sorted);
          const greater = sorted.filter((bucket) => bucket > after);
          assert.deepEqual(await store.listBuckets(after, limit), { names: greater.slice(0, limit), more: greater.length > limit });
        },
      ),
      { numRuns: 300 },
    );
  });

  test('takes one request for a bucket, and a few for what its names have in common', async () => {
    const inner = new CountingStore();
    const buckets = Array.from({ length: 200 }, (_, index) => `vf-my-pool-${index.toString(16).padStart(32, '0')}`);
    const store = await storeWith(buckets, inner);
    inner.lists = 0;
    assert.deepEqual((await store.listBuckets('', 1000)).names, buckets);
    assert.ok(inner.lists <= 205, `${inner.lists} lists`);
  });

  test('passes over thousands of names that are not ours by pages', async () => {
    const inner = new CountingStore();
    const store = await storeWith(['vf-pool-1', 'zz-pool'], inner);
    for (let index = 0; index < 2500; index += 1) {
      await inner.put(REAL, `foreign-${index}`, bytes(Buffer.alloc(0)));
      await inner.put(REAL, `x-UPPER${index}.txt`, bytes(Buffer.alloc(0)));
    }
    inner.lists = 0;
    assert.deepEqual(await store.listBuckets('', 10), { names: ['vf-pool-1', 'zz-pool'], more: false });
    assert.ok(inner.lists < 20, `${inner.lists} lists`);
  });
});

test('what a stranger put into the one bucket is no object of ours', async () => {
  const inner = new MemoryStore();
  const store = await storeWith(['abc'], inner);
  for (const name of ['abc.', 'abc', 'abcd', 'abc-x']) await inner.put(REAL, name, bytes(Buffer.alloc(0)));
  assert.deepEqual(await store.list('abc', '', '', 10), { names: ['a', 'b-1', 'z.z'], more: false });
  assert.deepEqual(await store.list('abc', 'z', 'b-1', 10), { names: ['z.z'], more: false });
  await store.deleteMany('abc', ['a', 'b-1', 'z.z']);
  await store.deleteBucket('abc');
});

test('over a directory everything is as over memory', async () => {
  await withDirectory(async (path) => {
    const inner = new DirectoryStore({ kind: 'directory', path, vpoolUuid: '0'.repeat(32), initialize: true });
    const store = new PrefixLayoutStore(inner, REAL);
    await store.createBucket('abc');
    for (const bucket of ['abc', 'abc-d', 'abc0']) await store.put(bucket, 'object', bytes(Buffer.from(bucket)));
    assert.deepEqual(await allBuckets(store, 2), ['abc', 'abc-d', 'abc0']);
    assert.deepEqual(await store.list('abc', '', '', 1), { names: ['object'], more: false });
    await rejectsWith(store.deleteBucket('abc'), 'denied');
  });
});
