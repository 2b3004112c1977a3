/** What Redis forgets at a failover or a restart is brought back: no acknowledged change is lost, none is executed twice. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';

import { Member, type MemberOptions, redisSettings } from '../../registry/redis/testing/linked-registry.ts';
import { systemClock } from '../../server/core/node-time.ts';
import { RedisService, SENTINEL_MASTER } from '../services/redis.ts';
import { stackOf } from '../test-stack.ts';
import { NamespaceLoad } from './namespace-load.ts';

/** Three routers of one vPool over `service`. */
async function members(t: TestContext, options: MemberOptions): Promise<Member[]> {
  const all: Member[] = [];
  for (let index = 0; index < 3; index += 1) all.push(stackOf(t).use(await Member.joined(options)));
  return all;
}

function overSentinels(service: RedisService): MemberOptions {
  return {
    vpoolName: 'failover',
    settings: redisSettings(
      service.sentinels.map((node) => node.port),
      { mode: 'sentinel', sentinelName: SENTINEL_MASTER, replicasMin: 1 },
    ),
  };
}

for (const [what, strike] of [
  ['is killed', (service: RedisService) => service.primary.kill()],
  ['hangs, and comes back as a stale one', async (service: RedisService) => service.primary.pause()],
] as const) {
  test(`a primary that ${what} under load: Sentinel promotes another, a recovery round, and nothing acknowledged is lost or done twice`, async (t) => {
    const service = await RedisService.forTest(t, { replicas: 2, sentinels: 3 });
    const routers = await members(t, overSentinels(service));
    const load = new NamespaceLoad(routers, 2, 1);
    load.start();
    await load.more(200);
    await strike(service);
    const struckAtMs = systemClock.monotonicMs();
    await load.more(300);
    t.diagnostic(
      `longest change ${Math.round(load.longestMs)} ms, 300 changes ${Math.round(systemClock.monotonicMs() - struckAtMs)} ms after the blow`,
    );
    if (what.startsWith('hangs')) service.primary.resume();
    await load.more(200);
    await load.stop();
    await load.verify();
    for (const { registry, lapses } of routers) {
      assert.ok(registry.counts().generation >= 2, 'a new generation');
      assert.deepEqual(lapses, [], 'no lease was lost');
      assert.equal(registry.lease.valid, true);
    }
  });
}
