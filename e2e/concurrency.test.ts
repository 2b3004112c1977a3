/** Many clients at once: what each sees must be explicable, and nobody may be starved or make memory grow without bound. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Stability, Status } from '../server/nfsd/file-system.ts';
import { connectStore } from './datastore-client.ts';
import { RegisterLoad } from './register-load.ts';
import { RouterProcess } from './router-process.ts';
import type { StoreClient } from './store-client.ts';
import { stackOf } from './test-stack.ts';

const MIB = 1024 * 1024;

test('16 connections with 64 requests each on overlapping blocks see only what registers can show', async (t) => {
  const router = await RouterProcess.forTest(t, { environment: { VFERRY_CACHE_RAM_BYTES: '2MiB' } });
  const clients = await connectMany(t, router, 16);
  const [first] = clients;
  assert.ok(first !== undefined);
  const load = await RegisterLoad.create(first, 20_260_201);
  const started = performance.now();
  await load.run(clients, 64, 24_000);
  const rate = Math.round(24_000 / ((performance.now() - started) / 1000));

  // And after all of it, and after a kill, the last state is one that the writes can have left.
  await load.check(first);
  await load.commit(first);
  await router.kill();
  await router.start();
  const [again] = await connectMany(t, router, 1);
  assert.ok(again !== undefined);
  await load.check(again);
  t.diagnostic(`${rate} operations/s checked`);
});

test('4,096 outstanding 64 KiB writes on one connection are all acknowledged, memory stays bounded, GETATTR elsewhere answers', async (t) => {
  const router = await RouterProcess.forTest(t, { environment: { VFERRY_CACHE_RAM_BYTES: '64MiB' } });
  const [bulk, other] = await connectMany(t, router, 2);
  assert.ok(bulk !== undefined && other !== undefined);
  const { handle } = await bulk.create(bulk.root, 'bulk-flat.vmdk', 'guarded', { mode: 0o600 });
  assert.equal((await bulk.setattr(handle, { sizeBytes: 4096 * 65_536 })).status, Status.OK);
  const idle = router.memory().residentBytes;

  const writes = Array.from({ length: 4096 }, (_, index) =>
    bulk.write(handle, index * 65_536, Buffer.alloc(65_536, (index % 255) + 1), Stability.FILE_SYNC),
  );
  let done = false;
  const all = Promise.all(writes).finally(() => (done = true));
  let worstMs = 0;
  let asked = 0;
  while (!done) {
    const asking = performance.now();
    assert.equal((await other.getattr(other.root)).status, Status.OK);
    worstMs = Math.max(worstMs, performance.now() - asking);
    asked += 1;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  for (const answer of await all) assert.deepEqual([answer.status, answer.countBytes], [Status.OK, 65_536]);
  const { peakBytes } = router.memory();
  t.diagnostic(
    `RSS idle ${Math.round(idle / MIB)} MiB, peak ${Math.round(peakBytes / MIB)} MiB; GETATTR asked ${asked} times, worst ${Math.round(worstMs)} ms`,
  );
  assert.ok(worstMs < 50_000, `GETATTR took ${worstMs} ms`);
  // 256 MiB are under way; what may be in memory is bounded per connection (64 MiB), plus the 64 MiB cache and what V8 has not collected yet.
  assert.ok(peakBytes < 640 * MIB, `peak of ${Math.round(peakBytes / MIB)} MiB`);

  for (const index of [0, 1, 2047, 4095]) {
    const { data } = await other.read(handle, index * 65_536, 65_536);
    assert.ok(data.equals(Buffer.alloc(65_536, (index % 255) + 1)), `write ${index}`);
  }
});

async function connectMany(t: Parameters<typeof stackOf>[0], router: RouterProcess, count: number): Promise<StoreClient[]> {
  const clients: StoreClient[] = [];
  for (let index = 0; index < count; index += 1) clients.push(stackOf(t).use(await connectStore(router)));
  return clients;
}
