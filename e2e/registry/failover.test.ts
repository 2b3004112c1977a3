/** What Redis forgets at a failover or a restart is brought back: no acknowledged change is lost, none is executed twice. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';

import { Member, type MemberOptions, redisSettings } from '../../registry/redis/testing/linked-registry.ts';
import { systemClock } from '../../server/core/node-time.ts';
import { NetworkPath } from '../services/network-path.ts';
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
      // Longer than Sentinel takes on a busy machine: that leases last is not the question here.
      { mode: 'sentinel', sentinelName: SENTINEL_MASTER, replicasMin: 1, leaseMs: 20_000 },
    ),
  };
}

/** Waits until a replica has all that the primary has. */
async function replicates(service: RedisService): Promise<void> {
  const deadlineMs = systemClock.monotonicMs() + 240_000;
  for (;;) {
    const info = await service.primary.command('INFO', 'replication');
    const wanted = /master_repl_offset:(\d+)/.exec(info)?.[1];
    if (wanted !== undefined && new RegExp(`state=online,offset=${wanted},`).test(info)) return;
    assert.ok(systemClock.monotonicMs() < deadlineMs, info);
    await systemClock.sleep(50);
  }
}

for (const [what, strike] of [
  ['is killed', (service: RedisService) => service.primary.kill()],
  ['hangs, and comes back as a stale one', async (service: RedisService) => service.primary.pause()],
  // It goes on taking changes until Sentinel tells it.
  [
    'is replaced while it lives',
    async (service: RedisService) => assert.equal(await service.sentinels[0]?.command('SENTINEL', 'FAILOVER', SENTINEL_MASTER), '+OK'),
  ],
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
    // On a fast machine all of that may be over before Sentinel has acted.
    while (routers.some(({ registry }) => registry.counts().generation < 2)) await load.more(20);
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

test('a replica that had got nothing for a while is promoted: what only the other one had is brought back, though it was acknowledged long before', async (t) => {
  const service = await RedisService.forTest(t, { replicas: 2, sentinels: 3 });
  const [complete, lagging] = service.replicas;
  assert.ok(complete !== undefined && lagging !== undefined);
  // Sentinel takes the one with the most data, unless it must not.
  assert.equal(await complete.command('CONFIG', 'SET', 'replica-priority', '0'), '+OK');
  const routers = await members(t, overSentinels(service));
  const load = new NamespaceLoad(routers, 2, 3);
  load.start();
  await load.more(100);
  // As behind a cut cable: it keeps what it has, and is a replica still.
  assert.equal(await lagging.command('REPLICAOF', '127.0.0.1', '1'), '+OK');
  await load.more(200);
  await service.primary.kill();
  await load.more(200);
  await load.stop();
  const info = await lagging.command('INFO', 'replication');
  assert.match(info, /role:master/, 'the lagging one was promoted');
  const replayed = routers.reduce((sum, { registry }) => sum + registry.counts().replayed, 0);
  assert.ok(replayed >= 150, `${replayed} changes were brought back`);
  await load.verify();
  assert.deepEqual(
    routers.flatMap(({ lapses }) => lapses),
    [],
  );
});

test('a primary that has lost its replicas answers no read and acknowledges no change: it may have been replaced', async (t) => {
  const service = await RedisService.forTest(t, { replicas: 1, sentinels: 1, downAfterMs: 2_000 });
  const settings = { ...overSentinels(service).settings, commandTimeoutMs: 400, leaseMs: 3_000 };
  const [replica] = service.replicas;
  assert.ok(replica !== undefined);
  const name = new Uint8Array(Buffer.from('file'));
  // Nobody writes anything: only a write of the reader's own, with its WAIT, shows that the replica is gone.
  const reader = stackOf(t).use(await Member.open({ vpoolName: 'alone', settings, patienceMs: 200 }));
  const { namespace, ownership } = reader.registry;
  // Two hundred milliseconds of patience are little on a slow machine.
  const look = async (): Promise<string> => (await namespace.lookup(namespace.root, name)).kind;
  for (let looks = 0; (await look().catch(() => 'unavailable')) !== 'absent'; looks += 1) assert.ok(looks < 1000, 'no read came through');
  replica.pause();
  // Half of down-after: until then nobody can have been promoted, and reads may rest on what was confirmed before.
  await systemClock.sleep(1_100);
  for (let look = 0; look < 4; look += 1) {
    await assert.rejects(async () => namespace.lookup(namespace.root, name), { code: 'registry-unavailable' });
    await assert.rejects(async () => ownership.owner(namespace.root), { code: 'registry-unavailable' });
  }
  replica.resume();
  await replicates(service);
  const member = stackOf(t).use(await Member.joined({ vpoolName: 'alone', settings, patienceMs: 1_000 }));
  const file = { class: 'inline', mode: 0o644, uid: 0, gid: 0, sizeBytes: 0, atime: null, mtime: null, exclusiveVerifier: null } as const;
  replica.pause();
  await assert.rejects(member.registry.namespace.createFile(member.mutation('c|1'), namespace.root, name, file), { code: 'registry-unavailable' });
  const deadlineMs = systemClock.monotonicMs() + 240_000;
  while (member.registry.lease.valid && systemClock.monotonicMs() < deadlineMs) await systemClock.sleep(20);
  assert.equal(member.registry.lease.valid, false, 'nor is a lease renewed');
  replica.resume();
  await replicates(service);
  const again = stackOf(t).use(await Member.joined({ vpoolName: 'alone', settings: { ...settings, leaseMs: 20_000 }, patienceMs: 120_000 }));
  const created = await again.registry.namespace.createFile(again.mutation('c|1'), namespace.root, name, file);
  assert.equal(created.kind, 'created', 'the one that was not acknowledged, or the first: once');
  assert.ok(created.kind === 'created');
  const found = await again.registry.namespace.lookup(namespace.root, name);
  assert.ok(found.kind === 'found' && found.inode.fileid === created.inode.fileid);
});

test('replies that get lost: asked again with the same operation id, each change is executed once', async (t) => {
  const service = await RedisService.forTest(t);
  const paths = [stackOf(t).use(await NetworkPath.to(service.primary.port)), stackOf(t).use(await NetworkPath.to(service.primary.port))];
  const routers: Member[] = [];
  for (const path of paths) {
    const settings = redisSettings([path.port], { commandTimeoutMs: 300 });
    routers.push(stackOf(t).use(await Member.joined({ vpoolName: 'lost', settings, patienceMs: 60_000 })));
  }
  const load = new NamespaceLoad(routers, 4, 5);
  load.start();
  for (let round = 0; round < 6; round += 1) {
    await load.more(60);
    const path = paths[round % 2];
    const asked = routers[round % 2]?.registry.counts().retries ?? 0;
    path?.cut();
    // A change in which the answer is missing: there is one as long as clients run.
    const deadlineMs = systemClock.monotonicMs() + 240_000;
    while (routers[round % 2]?.registry.counts().retries === asked) {
      assert.ok(systemClock.monotonicMs() < deadlineMs, 'nothing was asked again');
      await systemClock.sleep(20);
    }
    path?.restore();
  }
  await load.more(100);
  await load.stop();
  await load.verify();
  const { retries, generation } = routers[0]?.registry.counts() ?? { retries: 0, generation: 0 };
  assert.ok(retries > 0, 'some had to be asked again');
  assert.equal(generation, 1, 'and Redis was the same all the time');
});
