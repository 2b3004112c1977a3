/** Many clients at once: what each sees must be explicable, and nobody may be starved or make memory grow without bound. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Stability, Status } from '../server/nfsd/file-system.ts';
import { RegisterModel } from './concurrency-model.ts';
import { connectStore } from './datastore-client.ts';
import { SeededRandom } from './random.ts';
import { RouterProcess } from './router-process.ts';
import type { StoreClient } from './store-client.ts';
import { stackOf } from './test-stack.ts';

const MIB = 1024 * 1024;

test('16 connections with 64 requests each on overlapping blocks see only what registers can show', async (t) => {
  const router = await RouterProcess.forTest(t, { environment: { VFERRY_CACHE_RAM_BYTES: '2MiB' } });
  const sectors = 8192;
  const seed = 20_260_201;
  const random = new SeededRandom(seed);
  const clients = await connectMany(t, router, 16);
  const [first] = clients;
  assert.ok(first !== undefined);
  const { handle } = await first.create(first.root, 'shared-flat.vmdk', 'guarded', { mode: 0o600 });
  assert.equal((await first.setattr(handle, { sizeBytes: sectors * 512 })).status, Status.OK);

  const model = new RegisterModel(1, sectors);
  let left = 24_000;
  const problems: string[] = [];
  const worker = async (client: StoreClient): Promise<void> => {
    while (left > 0 && problems.length === 0) {
      left -= 1;
      const count = random.pick([1, 3, 8, 8, 8, 8, 16, 64]);
      const hot = random.chance(0.5) ? 256 : sectors;
      // Blocks mostly, and some that begin in the middle of a block.
      const sector = random.chance(0.8) ? random.below((hot - count) / 8) * 8 : random.below(hot - count);
      if (random.chance(0.5)) {
        const write = model.beginWrite(sector, count);
        const stability = random.pick([Stability.UNSTABLE, Stability.FILE_SYNC]);
        const answer = await client.write(handle, sector * 512, model.payload(write, sector, count), stability);
        if (answer.status !== Status.OK || answer.countBytes !== count * 512) problems.push(`WRITE: ${JSON.stringify(answer)}`);
        model.endWrite(write);
      } else {
        const began = model.now();
        const answer = await client.read(handle, sector * 512, count * 512);
        if (answer.status !== Status.OK || answer.data.length !== count * 512)
          problems.push(`READ: status ${answer.status}, ${answer.data.length} bytes`);
        else {
          const problem = model.checkRead(began, sector, answer.data);
          if (problem !== null) problems.push(problem);
        }
      }
    }
  };
  const started = performance.now();
  await Promise.all(clients.flatMap((client) => Array.from({ length: 64 }, () => worker(client))));
  assert.deepEqual(problems, [], `seed ${seed}`);
  const rate = Math.round(24_000 / ((performance.now() - started) / 1000));

  // And after all of it, and after a kill, the last state is one that the writes can have left.
  const check = async (client: StoreClient): Promise<void> => {
    for (let sector = 0; sector < sectors; sector += 512) {
      const began = model.now();
      const answer = await client.read(handle, sector * 512, 512 * 512);
      assert.equal(model.checkRead(began, sector, answer.data), null, `seed ${seed}`);
    }
  };
  await check(first);
  assert.equal((await first.commit(handle)).status, Status.OK);
  await router.kill();
  await router.start();
  const [again] = await connectMany(t, router, 1);
  assert.ok(again !== undefined);
  await check(again);
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
  assert.ok(worstMs < 5000, `GETATTR took ${worstMs} ms`);
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
