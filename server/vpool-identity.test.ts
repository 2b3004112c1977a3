import assert from 'node:assert/strict';
import { test } from 'node:test';

import { FaultyStore } from '../backends/faulty-store.ts';
import type { StoreFaults } from '../backends/faulty-store.ts';
import { MemoryStore } from '../backends/memory/memory-store.ts';
import { seededRandom, VirtualClock } from '../backends/virtual-clock.ts';
import { errorCode } from './core/errors.ts';
import type { Settings } from './settings/settings.ts';
import { putIdentity, requireIdentity } from './vpool-identity.ts';

const UUID = '0123456789abcdef0123456789abcdef';
const settings = {
  vpool: { name: 'vpool1', backend: { kind: 'swift', layout: 'buckets', swift: { authUrl: 'http://127.0.0.1:1/auth/v1.0', user: 'a:b' } } },
} as unknown as Settings;

async function recognised(seed: number, faults: Partial<StoreFaults>, uuid = UUID): Promise<void> {
  const clock = new VirtualClock();
  const store = new FaultyStore({ inner: new MemoryStore(), clock, random: seededRandom(seed) });
  await clock.run(putIdentity(store, { settings, uuid }, clock));
  store.setFaults(faults);
  await clock.run(requireIdentity(store, { settings, uuid: UUID }, clock, { unreachableMs: 60_000 }));
}

test('a store that wavers, and gets bytes wrong on the way, is still recognised', async () => {
  for (let seed = 1; seed <= 200; seed += 1) await recognised(seed, { waver: 0.2, flipGet: 0.05, truncateGet: 0.05, failBefore: 0.3 });
});

test('a new bucket that is not seen at once is waited for', async () => {
  const clock = new VirtualClock();
  const store = new FaultyStore({ inner: new MemoryStore(), clock, random: seededRandom(1) }, { bucketLagMsMax: 5000 });
  await clock.run(putIdentity(store, { settings, uuid: UUID }, clock));
  await clock.run(requireIdentity(store, { settings, uuid: UUID }, clock, { unreachableMs: 0 }));
});

test("another vPool's identity is refused", async () => {
  await assert.rejects(recognised(1, {}, 'f'.repeat(32)), (error) => errorCode(error) !== undefined);
  await assert.rejects(recognised(1, { flipGet: 1 }), (error) => errorCode(error) === 'backend-foreign');
});
