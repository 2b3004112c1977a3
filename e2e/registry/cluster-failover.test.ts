/** A Redis Cluster whose shard of the vPool fails over: the new primary is found, what it lacks is brought back, nothing acknowledged is lost. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';

import { Member, redisSettings } from '../../registry/redis/testing/linked-registry.ts';
import { systemClock } from '../../server/core/node-time.ts';
import { RedisClusterService } from '../services/redis-cluster.ts';
import { stackOf } from '../test-stack.ts';
import { NamespaceLoad } from './namespace-load.ts';
import { OwnershipLoad } from './ownership-load.ts';

const NODE_TIMEOUT_MS = 2_000;

/** Three routers that know all nodes; the first that each asks is the one that will fail. */
async function members(t: TestContext, service: RedisClusterService): Promise<Member[]> {
  const settings = redisSettings(
    service.nodes.map(({ port }) => port),
    // Leases are not the question: on a busy machine a failover may take longer than one.
    { mode: 'cluster', replicasMin: 1, leaseMs: 20_000 },
  );
  const all: Member[] = [];
  for (let index = 0; index < 3; index += 1) all.push(stackOf(t).use(await Member.joined({ vpoolName: 'shard', settings })));
  return all;
}

for (const [what, strike] of [
  ['is killed', (service: RedisClusterService) => service.primary.kill()],
  ['hangs, and comes back as a stale one', async (service: RedisClusterService) => service.primary.pause()],
  ['is replaced while it lives', (service: RedisClusterService) => replace(service)],
] as const) {
  test(`the primary of the vPool's slot ${what}: names and owners change on at its successor, and nothing acknowledged is lost or done twice`, async (t) => {
    const service = await RedisClusterService.forTest(t, 'vf:{shard}:meta', NODE_TIMEOUT_MS);
    const routers = await members(t, service);
    const names = new NamespaceLoad(routers, 2, 11);
    const owners = await OwnershipLoad.create(routers, 4);
    names.start();
    owners.start();
    await Promise.all([names.more(200), owners.more(60)]);
    await strike(service);
    const struckAtMs = systemClock.monotonicMs();
    await Promise.all([names.more(300), owners.more(90)]);
    t.diagnostic(
      `longest change ${Math.round(names.longestMs)} ms, 300 of names and 90 of owners ${Math.round(systemClock.monotonicMs() - struckAtMs)} ms after the blow`,
    );
    if (what.startsWith('hangs')) service.primary.resume();
    // On a fast machine all of that may be over before the Cluster has acted.
    while (routers.some(({ registry }) => registry.counts().generation < 2)) await names.more(20);
    await Promise.all([names.more(200), owners.more(60)]);
    await names.stop();
    await owners.stop();
    await owners.verify();
    await names.verify((name) => name.startsWith('travels-'));
    for (const { registry, lapses } of routers) {
      assert.deepEqual(lapses, [], 'no lease was lost');
      assert.equal(registry.lease.valid, true);
    }
    assert.match(await successor(service), /role:master/);
  });
}

/** Redis gives it up, and says so in its log only, when primary and replica are not through with it in 5 s: on a busy machine it takes more than one attempt. */
async function replace(service: RedisClusterService): Promise<void> {
  const [replica] = service.replicas;
  assert.ok(replica !== undefined);
  const isPromoted = async (): Promise<boolean> => (await replica.command('INFO', 'replication')).includes('role:master');
  while (!(await isPromoted())) {
    const answer = await replica.command('CLUSTER', 'FAILOVER');
    assert.ok(answer === '+OK' || (await isPromoted()), answer);
    for (let looks = 0; looks < 60 && !(await isPromoted()); looks += 1) await systemClock.sleep(100);
  }
}

/** What the replica that was promoted says of itself. */
async function successor(service: RedisClusterService): Promise<string> {
  const infos = await Promise.all(service.replicas.map((replica) => replica.command('INFO', 'replication')));
  return infos.find((info) => info.includes('role:master')) ?? infos.join();
}
