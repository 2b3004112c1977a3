import assert from 'node:assert/strict';
import { test } from 'node:test';

import { objectStoreConformance } from './conformance.ts';
import { HeldStore } from './held-store.ts';
import { MemoryStore } from './memory/memory-store.ts';
import { StoreError } from './object-store.ts';

objectStoreConformance('HeldStore that lets everything pass', async () => ({
  store: new HeldStore(new MemoryStore(), () => null),
  close: () => Promise.resolve(),
}));

test('while there is a reason no request gets through, and each can be made again', async () => {
  const inner = new MemoryStore();
  await inner.createBucket('bucket');
  await inner.put('bucket', 'object', { kind: 'bytes', chunks: [Buffer.from('content')] });
  let reason: Error | null = new Error('it was not seen yet');
  const store = new HeldStore(inner, () => reason);
  const calls: (() => Promise<unknown>)[] = [
    () => store.createBucket('other'),
    () => store.deleteBucket('bucket'),
    () => store.listBuckets('', 10),
    () => store.put('bucket', 'new', { kind: 'bytes', chunks: [] }),
    () => store.get('bucket', 'object'),
    () => store.head('bucket', 'object'),
    () => store.delete('bucket', 'object'),
    () => store.deleteMany('bucket', ['object']),
    () => store.list('bucket', '', '', 10),
  ];
  for (const call of calls) {
    await assert.rejects(call, (error) => error instanceof StoreError && error.class === 'retry' && /it was not seen yet/.test(error.message));
  }
  assert.deepEqual((await inner.listBuckets('', 10)).names, ['bucket']);
  assert.deepEqual((await inner.list('bucket', '', '', 10)).names, ['object']);
  reason = null;
  assert.equal((await store.get('bucket', 'object')).kind, 'found');
});
