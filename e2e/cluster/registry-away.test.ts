/** Redis goes away under a cluster at work: for a moment, for longer than the leases last, and for good with Sentinel in charge. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { pattern } from '../../server/nfsd/conformance/contents.ts';
import { Stability, Status } from '../../server/nfsd/file-system.ts';
import { SeededRandom } from '../random.ts';
import { scratchFor } from '../scratch.ts';
import { stackOf } from '../test-stack.ts';
import { Cluster, thresholds } from './cluster.ts';
import { ROUNDS, type Round } from './soak-rounds.ts';
import { WanderingClient } from './wandering-client.ts';

test('Redis is away for 3 s: open volumes are served all the time, on both routers; names wait; nothing is lost', async (t) => {
  const cluster = await Cluster.forTest(t, { cluster: thresholds(0) });
  const [a, b] = cluster.pair;
  const h1 = stackOf(t).use(await WanderingClient.connect({ routers: [a], machineName: 'H1' }));
  const h2 = stackOf(t).use(await WanderingClient.connect({ routers: [b], machineName: 'H2' }));
  const disks = await Promise.all(
    [h1, h2].map(async (host, index) => {
      const { handle } = await host.create(host.root, `x${index}-flat.vmdk`, 'guarded', { mode: 0o600 });
      assert.equal((await host.write(handle, 0, pattern(4096, 0), Stability.FILE_SYNC)).status, Status.OK);
      return handle;
    }),
  );
  // Whose an object is, is asked of the registry once: then both routers know the way.
  for (const host of [h1, h2]) for (const disk of disks) assert.equal((await host.read(disk, 0, 4096)).status, Status.OK);
  await cluster.redis.primary.kill();
  const name = h1.create(h1.root, 'while-away.vmx', 'guarded', { mode: 0o600 });
  let worstMs = 0;
  const began = performance.now();
  // However slow the machine is: Redis comes back when they were served.
  for (let turn = 1; turn <= 3 || performance.now() - began < 3000; turn += 1) {
    for (const host of [h1, h2]) {
      for (const disk of disks) {
        const asked = performance.now();
        const bytes = pattern(4096, turn);
        assert.equal((await host.write(disk, (turn % 64) * 4096, bytes, Stability.FILE_SYNC)).status, Status.OK);
        assert.ok((await host.read(disk, (turn % 64) * 4096, 4096)).data.equals(bytes));
        worstMs = Math.max(worstMs, performance.now() - asked);
      }
    }
  }
  await cluster.redis.primary.start();
  assert.equal((await name).status, Status.OK);
  assert.equal((await h2.lookup(h2.root, 'while-away.vmx')).status, Status.OK);
  t.diagnostic(`a WRITE and a READ took at most ${worstMs.toFixed(0)} ms while Redis was away`);
  // Served, and not held until it was back.
  assert.ok(worstMs < 20_000, `${worstMs} ms`);
});

test('Redis is away for longer than the leases last: nobody serves what may be served elsewhere, and all goes on by itself when it is back', async (t) => {
  const cluster = await Cluster.forTest(t, { cluster: thresholds(0) });
  const [a, b] = cluster.pair;
  const h1 = stackOf(t).use(await WanderingClient.connect({ routers: [a], machineName: 'H1' }));
  const h2 = stackOf(t).use(await WanderingClient.connect({ routers: [b], machineName: 'H2' }));
  const { handle } = await h1.create(h1.root, 'x-flat.vmdk', 'guarded', { mode: 0o600 });
  assert.equal((await h1.write(handle, 0, pattern(65_536, 1), Stability.FILE_SYNC)).status, Status.OK);
  await cluster.redis.primary.kill();
  await new Promise((resolve) => setTimeout(resolve, 10_000));
  let answered = false;
  const reads = [h1, h2].map((host) => host.read(handle, 0, 65_536).finally(() => (answered = true)));
  await new Promise((resolve) => setTimeout(resolve, 3000));
  assert.equal(answered, false, 'a router without a lease answered');
  const back = performance.now();
  await cluster.redis.primary.start();
  for (const read of reads) assert.ok((await read).data.equals(pattern(65_536, 1)));
  t.diagnostic(`served again ${((performance.now() - back) / 1000).toFixed(1)} s after Redis was back`);
  for (const host of [h2, h1]) {
    assert.equal((await host.write(handle, 4096, pattern(4096, 2), Stability.FILE_SYNC)).status, Status.OK);
    assert.ok((await host.read(handle, 4096, 4096)).data.equals(pattern(4096, 2)));
  }
});

test('a primary hangs under two hosts and moves, Sentinel promotes a replica: nothing acknowledged is lost, and the old primary comes back', async (t) => {
  const round: Round = {
    clusters: [],
    random: new SeededRandom(12),
    directory: await scratchFor(t, 'sentinel'),
    stack: stackOf(t),
    say: (line: string) => t.diagnostic(line),
    keepDirectory: await scratchFor(t, 'kept'),
    matrix: null,
    moves: 0,
  };
  t.diagnostic((await ROUNDS['sentinel']?.(round)) ?? 'no such round');
});
