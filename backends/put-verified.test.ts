import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';

import { bytes, readAllOf, rejectsWith, withDirectory } from './conformance.ts';
import { EncodedStore } from './encoding/encoded-store.ts';
import { FaultyStore, type StoreFaults } from './faulty-store.ts';
import { MemoryStore } from './memory/memory-store.ts';
import type { ObjectBody } from './object-store.ts';
import { PUT_VERIFIED_DEFAULTS, putVerified, type PutVerifiedOptions, type PutVerifiedOutcome } from './put-verified.ts';
import { RETRY_DEFAULTS, RetryingStore } from './retrying-store.ts';
import { seededRandom, VirtualClock } from './virtual-clock.ts';

const content = randomBytes(2 * 1024 * 1024 + 17);
const byContent = { settings: { ...PUT_VERIFIED_DEFAULTS, compare: 'content' } } as const;

class World {
  readonly clock = new VirtualClock();
  readonly inner = new MemoryStore();
  readonly store: FaultyStore;

  constructor(faults: Partial<StoreFaults> = {}, seed = 1) {
    this.store = new FaultyStore({ inner: this.inner, clock: this.clock, random: seededRandom(seed) }, faults);
  }

  async put(body: ObjectBody = bytes(content), options: PutVerifiedOptions = {}): Promise<PutVerifiedOutcome> {
    await this.inner.createBucket('bucket');
    return this.clock.run(putVerified({ store: this.store, clock: this.clock, random: seededRandom(9) }, 'bucket', 'object', body, options));
  }
}

test('a new object is stored by this call; the same put again finds it stored earlier', async () => {
  const world = new World();
  assert.deepEqual(await world.put(), { kind: 'stored', by: 'this-call' });
  assert.deepEqual(await world.put(), { kind: 'stored', by: 'earlier' });
  assert.deepEqual(await world.put(bytes(content), { bodyCrc: crc32(content) }), { kind: 'stored', by: 'earlier' });
});

test('a name that holds other bytes, of another or of the same size, is a conflict and stays as it is', async () => {
  for (const other of [Buffer.from('short'), randomBytes(content.byteLength)]) {
    const world = new World();
    await world.inner.createBucket('bucket');
    await world.inner.put('bucket', 'object', bytes(other));
    assert.equal((await world.put()).kind, 'conflict');
    assert.deepEqual(await readAllOf(world.inner, 'bucket', 'object'), other);
  }
});

test('a lost answer is settled by a second put', async () => {
  const world = new World({ loseAnswer: 1 });
  await rejectsWith(world.put(), 'retry');
  world.store.setFaults({});
  assert.deepEqual(await world.put(), { kind: 'stored', by: 'earlier' });

  const once = new World();
  const { put } = once.inner;
  let calls = 0;
  once.inner.put = async (...call) => {
    calls += 1;
    const outcome = await put.apply(once.inner, call);
    if (calls === 1) once.store.setFaults({});
    return outcome;
  };
  once.store.setFaults({ loseAnswer: 0.9999 });
  // The faults were those of the time when the call began, so this answer is lost and the next is not.
  assert.deepEqual(await once.put(), { kind: 'stored', by: 'earlier' });
  assert.equal(calls, 2);
});

test('an object that becomes visible late is waited for; one that does not in time is class retry', async () => {
  const world = new World({ visibleLagMsMax: 20_000 });
  assert.deepEqual(await world.put(), { kind: 'stored', by: 'this-call' });
  assert.ok(world.clock.monotonicMs() > 0);
  const hopeless = new World({ visibleLagMsMax: 1e9 });
  assert.match((await rejectsWith(hopeless.put(), 'retry')).message, /does not show it/);
  assert.ok(hopeless.clock.monotonicMs() <= PUT_VERIFIED_DEFAULTS.visibleWithinMs);
});

test('an object that was cut short in the store is a conflict; a flipped bit is one when contents are compared', async () => {
  assert.equal((await new World({ truncatePut: 1 }).put()).kind, 'conflict');
  assert.equal((await new World({ flipPut: 1 }).put(bytes(content), byContent)).kind, 'conflict');
  assert.deepEqual(await new World().put(bytes(content), byContent), { kind: 'stored', by: 'this-call' });
  assert.equal((await new World().put(bytes(content), { ...byContent, bodyCrc: crc32(content) ^ 1 })).kind, 'conflict');
});

test('so it is over a store that checks what it reads; a local file that is gone is not the object of another', async () => {
  await withDirectory(async (directory) => {
    const path = join(directory, 'gone');
    const inner = new MemoryStore();
    const store = new EncodedStore(inner, { compression: 'zstd', encryptWith: null, keys: [] });
    const components = { store, clock: new VirtualClock(), random: seededRandom(9) };
    await store.createBucket('bucket');
    for (const [name, damage] of [
      ['cut', (stored: Buffer) => stored.subarray(0, -1)],
      ['flipped', (stored: Buffer) => stored.fill(0, 500_000, 500_001)],
    ] as const) {
      await store.put('bucket', name, bytes(content));
      const stored = await readAllOf(inner, 'bucket', name);
      await inner.delete('bucket', name);
      await inner.put('bucket', name, bytes(damage(stored)));
      assert.equal((await putVerified(components, 'bucket', name, bytes(content), byContent)).kind, 'conflict', name);
    }
    await store.put('bucket', 'whole', bytes(content));
    await rejectsWith(putVerified(components, 'bucket', 'whole', { kind: 'file', path, offsetBytes: 0, lengthBytes: content.byteLength }), 'corrupt');
  });
});

test('a bit that flips on the way back is no conflict', async () => {
  let stored = 0;
  for (let seed = 0; seed < 20; seed += 1) {
    const world = new World({ flipGet: 0.1 }, seed);
    if ((await world.put(bytes(content), byContent)).kind === 'stored') stored += 1;
  }
  assert.ok(stored >= 15, `${stored} of 20`);
});

test('a file body is compared with what is in the file', () =>
  withDirectory(async (directory) => {
    const path = join(directory, 'segment');
    await writeFile(path, Buffer.concat([Buffer.alloc(100), content, Buffer.alloc(5)]));
    const body: ObjectBody = { kind: 'file', path, offsetBytes: 100, lengthBytes: content.byteLength };
    const world = new World();
    await world.inner.createBucket('bucket');
    await world.inner.put('bucket', 'object', bytes(content));
    assert.deepEqual(await world.put(body), { kind: 'stored', by: 'earlier' });
    assert.equal((await world.put({ ...body, offsetBytes: 101 })).kind, 'conflict');
  }));

test('errors other than retry pass through, and an aborted put is not repeated', async () => {
  await rejectsWith(new World({ failBefore: 1, failClass: 'no-space' }).put(), 'no-space');
  const world = new World();
  await rejectsWith(world.put(bytes(content), { signal: AbortSignal.abort() }), 'retry');
  assert.equal(world.inner.objectCount, 0);
});

test('with retries below, every put through a storm of faults ends stored and whole', async () => {
  for (let seed = 0; seed < 10; seed += 1) {
    const world = new World(
      { failBefore: 0.2, loseAnswer: 0.3, delay: 0.3, delayMsMax: 1000, visibleLagMsMax: 3000, storm: 0.02, stormMs: 5000 },
      seed,
    );
    await world.inner.createBucket('bucket');
    const store = new RetryingStore(
      { inner: world.store, clock: world.clock, random: seededRandom(seed) },
      { ...RETRY_DEFAULTS, deadlineMs: Infinity },
    );
    const outcomes = await world.clock.run(
      Promise.all(
        Array.from({ length: 20 }, (_, index) =>
          putVerified({ store, clock: world.clock, random: seededRandom(seed) }, 'bucket', `o${index}`, bytes(content.subarray(index, 5000 * index))),
        ),
      ),
    );
    for (const [index, outcome] of outcomes.entries()) {
      assert.equal(outcome.kind, 'stored');
      assert.deepEqual(await readAllOf(world.inner, 'bucket', `o${index}`), content.subarray(index, 5000 * index));
    }
  }
});
