import assert from 'node:assert/strict';
import { test } from 'node:test';

import { bytes, objectStoreConformance, readAllOf, rejectsWith } from './conformance.ts';
import { FaultyStore, type StoreFaults } from './faulty-store.ts';
import { MemoryStore } from './memory/memory-store.ts';
import { StoreError } from './object-store.ts';
import { seededRandom, VirtualClock } from './virtual-clock.ts';

async function faulty(faults: Partial<StoreFaults>, seed = 1): Promise<{ store: FaultyStore; inner: MemoryStore; clock: VirtualClock }> {
  const clock = new VirtualClock();
  const inner = new MemoryStore();
  const store = new FaultyStore({ inner, clock, random: seededRandom(seed) });
  await store.createBucket('bucket');
  store.setFaults(faults);
  return { store, inner, clock };
}

objectStoreConformance('FaultyStore without faults', () => {
  const store = new FaultyStore({ inner: new MemoryStore(), clock: new VirtualClock(), random: seededRandom(1) });
  return Promise.resolve({ store, close: () => Promise.resolve() });
});

test('fail before: the call fails with the class asked for and has no effect', async () => {
  const { store, inner } = await faulty({ failBefore: 1, failClass: 'denied' });
  await rejectsWith(store.put('bucket', 'object', bytes(Buffer.from('x'))), 'denied');
  assert.equal(inner.objectCount, 0);
});

test('a lost answer: the call fails with class retry and has its effect', async () => {
  const { store, inner } = await faulty({ loseAnswer: 1 });
  await rejectsWith(store.put('bucket', 'object', bytes(Buffer.from('x'))), 'retry');
  assert.equal((await readAllOf(inner, 'bucket', 'object')).toString(), 'x');
});

test('delay: the call takes up to so long, and the signal ends it', async () => {
  const { store, clock } = await faulty({ delay: 1, delayMsMax: 500 });
  await clock.run(store.head('bucket', 'object'));
  assert.ok(clock.monotonicMs() > 0 && clock.monotonicMs() <= 500);
  const controller = new AbortController();
  const call = store.head('bucket', 'object', controller.signal);
  controller.abort();
  await rejectsWith(call, 'retry');
  assert.equal(clock.pending, 0);
});

test('hang: only the signal ends the call', async () => {
  const { store } = await faulty({ hang: 1 });
  const controller = new AbortController();
  const call = store.head('bucket', 'object', controller.signal);
  await new Promise((resolve) => setImmediate(resolve));
  controller.abort();
  await rejectsWith(call, 'retry');
});

test('a storm fails every call for its time, and the calls after it work', async () => {
  const { store, clock } = await faulty({ storm: 1, stormMs: 1000 });
  await rejectsWith(store.head('bucket', 'object'), 'retry');
  store.setFaults({ storm: 0.000001, stormMs: 1000 });
  assert.equal((await store.head('bucket', 'object')).kind, 'absent');
  store.setFaults({ storm: 1, stormMs: 1000 });
  await rejectsWith(store.head('bucket', 'object'), 'retry');
  clock.advance(999);
  await rejectsWith(store.list('bucket', '', '', 1), 'retry');
  store.setFaults({});
  await store.list('bucket', '', '', 1);
});

test('delayed visibility: get and head say absent for a while, put says exists', async () => {
  const { store, clock } = await faulty({ visibleLagMsMax: 1000 });
  await store.put('bucket', 'object', bytes(Buffer.from('x')));
  assert.deepEqual(await store.get('bucket', 'object'), { kind: 'absent' });
  assert.deepEqual(await store.head('bucket', 'object'), { kind: 'absent' });
  assert.equal(await store.put('bucket', 'object', bytes(Buffer.from('y'))), 'exists');
  clock.advance(1000);
  assert.equal((await readAllOf(store, 'bucket', 'object')).toString(), 'x');
});

test('stale list: a put shows late, a delete shows late, pages stay within their limit and none is empty that says more', async () => {
  const { store, clock } = await faulty({});
  for (const name of ['a', 'b', 'c', 'd']) await store.put('bucket', name, bytes(Buffer.from(name)));
  store.setFaults({ listLagMsMax: 1000 });
  for (const name of ['a0', 'a1', 'a2', 'a3', 'a4', 'e']) await store.put('bucket', name, bytes(Buffer.from(name)));
  await store.delete('bucket', 'b');
  await store.delete('bucket', 'e');
  assert.deepEqual(await store.list('bucket', '', '', 10), { names: ['a', 'b', 'c', 'd'], more: false });
  assert.deepEqual(await store.list('bucket', '', 'a', 2), { names: ['b', 'c'], more: true });
  assert.deepEqual(await store.list('bucket', '', 'c', 1), { names: ['d'], more: false });
  clock.advance(1000);
  assert.deepEqual((await store.list('bucket', '', '', 10)).names, ['a', 'a0', 'a1', 'a2', 'a3', 'a4', 'c', 'd']);
});

test('half visible: for a while after a put whose answer was lost, some calls see the object and some do not; a blind put replaces it', async () => {
  const { store, clock } = await faulty({ loseAnswer: 1 });
  store.setFaults({ loseAnswer: 1, halfVisibleMsMax: 1000 });
  await rejectsWith(store.put('bucket', 'object', bytes(Buffer.from('first'))), 'retry');
  store.setFaults({});
  const kinds = new Set<string>();
  for (let call = 0; call < 32; call += 1) kinds.add((await store.head('bucket', 'object')).kind);
  assert.deepEqual([...kinds].sort(), ['absent', 'found']);
  store.setFaults({ blindPut: 1 });
  const outcomes = new Set<string>();
  for (let call = 0; call < 32; call += 1) outcomes.add(await store.put('bucket', 'object', bytes(Buffer.from('second'))));
  assert.deepEqual([...outcomes].sort(), ['exists', 'written']);
  clock.advance(1000);
  assert.equal((await readAllOf(store, 'bucket', 'object')).toString(), 'second');
  assert.equal(await store.put('bucket', 'object', bytes(Buffer.from('third'))), 'exists', 'what everybody sees is not replaced');
});

test('replace: the old or the new bytes are there at every moment, though its answer is lost, it comes late, or whoever asked for it is gone', async () => {
  const { store, inner, clock } = await faulty({});
  await store.put('bucket', 'object', bytes(Buffer.from('first')));
  store.setFaults({ visibleLagMsMax: 1000, halfVisibleMsMax: 1000, loseAnswer: 1 });
  await rejectsWith(store.replace('bucket', 'object', bytes(Buffer.from('second'))), 'retry');
  store.setFaults({});
  for (let call = 0; call < 32; call += 1) assert.equal((await readAllOf(store, 'bucket', 'object')).toString(), 'second', 'it stays visible');
  store.setFaults({ applyLate: 1, applyLateMsMax: 1000 });
  await rejectsWith(store.replace('bucket', 'object', bytes(Buffer.from('third'))), 'retry');
  store.setFaults({});
  await store.replace('bucket', 'object', bytes(Buffer.from('third')));
  clock.advance(1000);
  assert.equal((await readAllOf(store, 'bucket', 'object')).toString(), 'third');
  store.setFaults({ delay: 1, delayMsMax: 1000 });
  const controller = new AbortController();
  const replaced = store.replace('bucket', 'object', bytes(Buffer.from('fourth')), controller.signal);
  controller.abort();
  await rejectsWith(replaced, 'retry');
  assert.equal((await readAllOf(inner, 'bucket', 'object')).toString(), 'third');
  store.setFaults({});
  await store.replace('bucket', 'new', bytes(Buffer.from('fifth')));
  assert.equal((await readAllOf(inner, 'bucket', 'new')).toString(), 'fifth');
});

test('waver: what was visible is absent now and then, and lists leave out a name; nothing is lost', async () => {
  const { store } = await faulty({});
  for (const name of ['a', 'b']) await store.put('bucket', name, bytes(Buffer.from('x')));
  store.setFaults({ waver: 1 });
  assert.deepEqual(await store.get('bucket', 'a'), { kind: 'absent' });
  assert.deepEqual(await store.head('bucket', 'a'), { kind: 'absent' });
  assert.equal((await store.list('bucket', '', '', 10)).names.length, 1);
  store.setFaults({});
  assert.deepEqual((await store.list('bucket', '', '', 10)).names, ['a', 'b']);
});

test('undead: a deleted object is shown for a while, whole and in ranges', async () => {
  const { store, clock } = await faulty({});
  await store.put('bucket', 'object', bytes(Buffer.from('content')));
  store.setFaults({ undeadMsMax: 1000 });
  await store.delete('bucket', 'object');
  assert.deepEqual(await store.head('bucket', 'object'), { kind: 'found', sizeBytes: 7 });
  assert.deepEqual(await store.get('bucket', 'object', { offsetBytes: 3, lengthBytes: 10 }), { kind: 'found', bytes: Buffer.from('tent') });
  clock.advance(1000);
  assert.deepEqual(await store.get('bucket', 'object'), { kind: 'absent' });
});

test('a late effect: the call fails, what it asked for happens afterwards, with the bytes of then', async () => {
  const { store, inner, clock } = await faulty({ applyLate: 1, applyLateMsMax: 1000 });
  const body = Buffer.from('late');
  await rejectsWith(store.put('bucket', 'object', bytes(body)), 'retry');
  body.fill(0);
  assert.equal(inner.objectCount, 0);
  store.setFaults({});
  clock.advance(1000);
  assert.equal((await readAllOf(store, 'bucket', 'object')).toString(), 'late');
  store.setFaults({ applyLate: 1, applyLateMsMax: 1000 });
  await rejectsWith(store.delete('bucket', 'object'), 'retry');
  assert.equal(inner.objectCount, 1);
  store.setFaults({});
  clock.advance(1000);
  assert.deepEqual(await store.head('bucket', 'object'), { kind: 'absent' });
});

test('bandwidth: payload passes at the speed asked for, one after the other', async () => {
  const { store, clock } = await faulty({ bytesPerSecond: 1000 });
  await clock.run(Promise.all([store.put('bucket', 'a', bytes(Buffer.alloc(500))), store.put('bucket', 'b', bytes(Buffer.alloc(500)))]));
  assert.equal(clock.monotonicMs(), 1000);
  await clock.run(store.get('bucket', 'a', { offsetBytes: 0, lengthBytes: 100 }));
  assert.equal(clock.monotonicMs(), 1100);
  const controller = new AbortController();
  const call = store.get('bucket', 'a', undefined, controller.signal);
  controller.abort();
  await rejectsWith(call, 'retry');
});

test('a new bucket is not found for a while by put and list; one that was there already is', async () => {
  const { store, clock } = await faulty({ bucketLagMsMax: 1000 });
  await store.createBucket('bucket');
  await store.createBucket('new');
  await store.put('bucket', 'object', bytes(Buffer.from('x')));
  await rejectsWith(store.put('new', 'object', bytes(Buffer.from('x'))), 'absent');
  await rejectsWith(store.list('new', '', '', 1), 'absent');
  clock.advance(1000);
  assert.equal(await store.put('new', 'object', bytes(Buffer.from('x'))), 'written');
});

test('bytes are damaged on the way out, or in the store, as asked', async () => {
  const content = Buffer.alloc(1000, 7);
  const out = await faulty({});
  await out.store.put('bucket', 'object', bytes(content));
  out.store.setFaults({ truncateGet: 1 });
  const short = await readAllOf(out.store, 'bucket', 'object');
  assert.ok(short.byteLength < 1000 && short.equals(content.subarray(0, short.byteLength)));
  out.store.setFaults({ flipGet: 1 });
  assert.equal(differentBits(await readAllOf(out.store, 'bucket', 'object'), content), 1);
  out.store.setFaults({});
  assert.deepEqual(await readAllOf(out.store, 'bucket', 'object'), content);

  const inside = await faulty({ flipPut: 1 });
  assert.equal(await inside.store.put('bucket', 'flipped', bytes(content)), 'written');
  inside.store.setFaults({ truncatePut: 1 });
  assert.equal(await inside.store.put('bucket', 'short', bytes(content)), 'written');
  assert.equal(differentBits(await readAllOf(inside.inner, 'bucket', 'flipped'), content), 1);
  assert.ok((await readAllOf(inside.inner, 'bucket', 'short')).byteLength < 1000);
  assert.ok(
    content.every((byte) => byte === 7),
    'the body is only borrowed',
  );
});

test('the same seed gives the same faults, another one others', async () => {
  const history = async (seed: number): Promise<string> => {
    const { store } = await faulty({ failBefore: 0.3, loseAnswer: 0.3 }, seed);
    let text = '';
    for (let index = 0; index < 64; index += 1) {
      text += await store.put('bucket', `o${index % 20}`, bytes(Buffer.from('x'))).then(
        (outcome) => outcome.charAt(0),
        (error: unknown) => (error instanceof StoreError && error.message.includes('loss') ? 'l' : 'f'),
      );
    }
    return text;
  };
  assert.equal(await history(5), await history(5));
  assert.notEqual(await history(5), await history(6));
  assert.match(await history(5), /^(?=.*w)(?=.*e)(?=.*l)(?=.*f)/);
});

function differentBits(first: Buffer, second: Buffer): number {
  assert.equal(first.byteLength, second.byteLength);
  let count = 0;
  for (let index = 0; index < first.byteLength; index += 1) {
    for (let rest = (first[index] as number) ^ (second[index] as number); rest > 0; rest >>= 1) count += rest & 1;
  }
  return count;
}
