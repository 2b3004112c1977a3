/** A lease lapses when it must, once, for good, and not before. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test, type TestContext } from 'node:test';

import { LeaseKeeper } from '../../registry/redis/lease-keeper.ts';
import { Member, redisSettings } from '../../registry/redis/testing/linked-registry.ts';
import type { Incarnation } from '../../server/core/ids.ts';
import { silentLogger } from '../../server/core/logger.ts';
import { processMonotonicMs, systemClock } from '../../server/core/node-time.ts';
import type { Clock } from '../../server/core/time.ts';
import { RedisService } from '../services/redis.ts';
import { stackOf } from '../test-stack.ts';

interface Look {
  readonly atMs: number;
  readonly valid: boolean;
  readonly lapses: readonly string[];
}

/** A process with a lease, and what it said of it. */
class LeaseProcess {
  readonly looks: Look[] = [];
  readonly #child: ChildProcess;

  constructor(t: TestContext, port: number, leaseMs: number, blockMs = 0) {
    const child = spawn(process.execPath, [join(import.meta.dirname, 'testing', 'lease-main.ts'), String(port), String(leaseMs), String(blockMs)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    this.#child = child;
    createInterface({ input: child.stdout }).on('line', (line) => this.looks.push(JSON.parse(line) as Look));
    stackOf(t).defer(async () => {
      const gone = once(child, 'exit');
      child.kill('SIGCONT');
      child.kill('SIGTERM');
      await gone;
    });
  }

  signal(name: 'SIGSTOP' | 'SIGCONT'): void {
    this.#child.kill(name);
  }

  async until(condition: (look: Look) => boolean, timeoutMs = 240_000): Promise<Look> {
    const deadlineMs = systemClock.monotonicMs() + timeoutMs;
    for (;;) {
      const found = this.looks.find(condition);
      if (found !== undefined) return found;
      assert.ok(systemClock.monotonicMs() < deadlineMs, `the process said ${JSON.stringify(this.looks.at(-1))} last`);
      await systemClock.sleep(10);
    }
  }
}

test('a process that is stopped for longer than its lease sees that it is over before it answers anything; shorter, and it goes on', async (t) => {
  const { primary } = await RedisService.forTest(t);
  const child = new LeaseProcess(t, primary.port, 10_000);
  await child.until((look) => look.valid);
  child.signal('SIGSTOP');
  await systemClock.sleep(400);
  child.signal('SIGCONT');
  const resumedAtMs = processMonotonicMs();
  await child.until((look) => look.atMs > resumedAtMs + 1_000);
  assert.ok(child.looks.every((look) => look.valid));
  child.signal('SIGSTOP');
  await systemClock.sleep(9_100);
  const beforeMs = processMonotonicMs();
  child.signal('SIGCONT');
  const first = await child.until((look) => look.atMs > beforeMs);
  assert.equal(first.valid, false, 'the first thing that it sees');
  const later = await child.until((look) => look.atMs > beforeMs + 1_500);
  assert.equal(later.valid, false, 'never again');
  assert.equal(later.lapses.length, 1);
});

test('a main loop that stands still is not kept alive by the thread that renews', async (t) => {
  const { primary } = await RedisService.forTest(t);
  const child = new LeaseProcess(t, primary.port, 4_000, 4_500);
  const over = await child.until((look) => !look.valid);
  const before = child.looks[child.looks.indexOf(over) - 1];
  assert.ok(before?.valid === true && over.atMs - before.atMs >= 4_500, 'seen in the turn in which the loop was blocked');
  await child.until((look) => look.lapses.length > 0);
});

test('a loop that stood still for more than 5 s must begin anew, however long its lease is', async (t) => {
  const { primary } = await RedisService.forTest(t);
  const child = new LeaseProcess(t, primary.port, 30_000, 5_500);
  const over = await child.until((look) => look.lapses.length > 0);
  assert.match(over.lapses[0] ?? '', /stood still/);
});

test('Redis away: what is owned goes on for the lease less a second after the last renewal, then ends', async (t) => {
  const { primary } = await RedisService.forTest(t);
  // Renewed each second: a slow machine may miss some.
  const leaseMs = 10_000;
  const member = stackOf(t).use(
    await Member.joined({ vpoolName: 'away', settings: redisSettings([primary.port], { leaseMs, commandTimeoutMs: 500 }), patienceMs: 100 }),
  );
  const { registry } = member;
  await systemClock.sleep(1_500);
  primary.pause();
  // What Redis answered before it stood still has arrived, in the thread and here.
  for (let turn = 0; turn < 20; turn += 1) await systemClock.sleep(25);
  const lastConfirmedAtMs = systemClock.monotonicMs() - registry.confirmedAgoMs;
  const beforeMs = systemClock.monotonicMs();
  const { leftMs } = registry.lease;
  const afterMs = systemClock.monotonicMs();
  assert.ok(leftMs > 0, 'it is not over at once');
  // On a busy machine looks may be far apart: each is compared with the time that passed.
  for (;;) {
    const earliestMs = systemClock.monotonicMs();
    if (!registry.lease.valid) break;
    assert.ok(earliestMs <= afterMs + leftMs + 1, `${earliestMs - afterMs - leftMs} ms too long`);
    await systemClock.sleep(5);
  }
  assert.ok(systemClock.monotonicMs() >= beforeMs + leftMs - 1, 'not before');
  assert.ok(systemClock.monotonicMs() - lastConfirmedAtMs >= leaseMs - 2_100, 'and the last renewal was about as long ago as it may be');
  primary.resume();
  await systemClock.sleep(1_500);
  assert.equal(registry.lease.valid, false, 'it does not come back');
  assert.equal(registry.lease.leftMs, 0);
  assert.equal(member.lapses.length, 1);
});

test('an incarnation that was replaced, or marked dead, loses its lease within seconds, and its changes are refused', async (t) => {
  const { primary } = await RedisService.forTest(t);
  const options = { vpoolName: 'replaced', settings: redisSettings([primary.port]) };
  const [replaced, killed, other] = [
    stackOf(t).use(await Member.joined(options)),
    stackOf(t).use(await Member.joined(options)),
    stackOf(t).use(await Member.joined(options)),
  ];
  const { membership } = other.registry;
  await membership.join(replaced.router, '9'.repeat(32) as Incarnation, [], 'test');
  const record = (await membership.routers()).find((router) => router.id === killed.router);
  let counter = record?.leaseCounter ?? 0;
  // Its renewals run against the mark.
  while ((await membership.markDead(killed.router, killed.incarnation, counter)) === 'conflict') {
    counter = (await membership.routers()).find((router) => router.id === killed.router)?.leaseCounter ?? 0;
  }
  for (const member of [replaced, killed]) {
    const deadlineMs = systemClock.monotonicMs() + 240_000;
    while (member.lapses.length === 0 && systemClock.monotonicMs() < deadlineMs) await systemClock.sleep(20);
    assert.deepEqual(
      member.lapses.map((error) => (error as { code?: string }).code),
      ['incarnation-dead'],
    );
    assert.equal(member.registry.lease.valid, false);
    const { namespace } = member.registry;
    const attributes = { mode: 0o755, uid: 0, gid: 0, atime: null, mtime: null };
    await assert.rejects(namespace.createDirectory(member.mutation(), namespace.root, Buffer.from('late'), attributes), { code: 'incarnation-dead' });
  }
  assert.equal(other.registry.lease.valid, true);
});

for (const ahead of ['wall clock', 'time since boot'] as const) {
  test(`a suspended machine: the ${ahead} runs ahead of the monotonic clock, and the lease is over`, async (t) => {
    let aheadMs = 0;
    const clock: Clock = {
      ...systemClock,
      wallMs: () => systemClock.wallMs() + (ahead === 'wall clock' ? aheadMs : 0),
    };
    const lapses: Error[] = [];
    const keeper = stackOf(t).use(
      new LeaseKeeper(
        {
          clock,
          processMonotonicMs,
          uptimeSeconds: () => (processMonotonicMs() + (ahead === 'time since boot' ? aheadMs : 0)) / 1000,
          logger: silentLogger,
          renewed: () => undefined,
          failed: () => undefined,
          lapsed: (error) => lapses.push(error),
        },
        // Nobody listens there: only the lease that the join won counts.
        { redis: redisSettings([1], { leaseMs: 60_000 }), vpoolName: 'suspend' },
      ),
    );
    assert.equal(keeper.valid, false, 'there is none before the join');
    keeper.start('a'.repeat(32), '1'.repeat(32), clock.monotonicMs());
    assert.equal(keeper.valid, true);
    aheadMs = 4_000;
    await systemClock.sleep(500);
    assert.equal(keeper.valid, true, 'a clock that was set by some seconds is none');
    aheadMs += 6_000;
    if (ahead === 'wall clock') assert.equal(keeper.valid, false, 'seen at once');
    const deadlineMs = systemClock.monotonicMs() + 240_000;
    while (keeper.valid && systemClock.monotonicMs() < deadlineMs) await systemClock.sleep(20);
    assert.equal(keeper.valid, false);
    aheadMs = 0;
    await systemClock.sleep(300);
    assert.equal(keeper.valid, false, 'never again');
    assert.equal(lapses.length, 1);
  });
}
