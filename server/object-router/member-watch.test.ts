import assert from 'node:assert/strict';
import { test } from 'node:test';

import { VirtualClock } from '../../backends/virtual-clock.ts';
import type { Membership, RouterRecord } from '../../registry/ports.ts';
import { ApplianceError } from '../core/errors.ts';
import type { Incarnation, RouterId } from '../core/ids.ts';
import { silentLogger } from '../core/logger.ts';
import { MemberWatch } from './member-watch.ts';

const A = 'a'.repeat(32) as RouterId;
const B = 'b'.repeat(32) as RouterId;
const LEASE_MS = 7000;

function record(id: RouterId, leaseCounter: number, incarnation = '1'.repeat(32)): RouterRecord {
  return { id, incarnation: incarnation as Incarnation, addresses: ['peer://127.0.0.1:1'], version: 'test', leaseCounter, dead: false };
}

class World {
  readonly clock = new VirtualClock();
  readonly lease = { valid: true, leftMs: LEASE_MS };
  records: RouterRecord[] = [record(A, 1), record(B, 1)];
  away = false;
  readonly declaredDead: [RouterId, number][] = [];
  readonly watch: MemberWatch;
  changes = 0;

  constructor() {
    const membership = {
      routers: () =>
        this.away ? Promise.reject(new ApplianceError('registry-unavailable', 'away', { retryable: true })) : Promise.resolve(this.records),
      markDead: (id: RouterId, _incarnation: Incarnation, counter: number) => {
        const there = this.records.find((other) => other.id === id);
        if (there === undefined || there.leaseCounter !== counter) return Promise.resolve('conflict' as const);
        this.declaredDead.push([id, counter]);
        this.records = this.records.map((other) => (other.id === id ? { ...other, dead: true } : other));
        return Promise.resolve('dead' as const);
      },
    } as unknown as Membership;
    this.watch = new MemberWatch({ membership, lease: this.lease, clock: this.clock, logger: silentLogger }, A, { leaseMs: LEASE_MS });
    this.watch.onChange(() => {
      this.changes += 1;
    });
  }

  renew(id: RouterId): void {
    this.records = this.records.map((other) => (other.id === id ? { ...other, leaseCounter: other.leaseCounter + 1 } : other));
  }

  async seconds(count: number): Promise<void> {
    for (let second = 0; second < count; second += 1) {
      this.clock.advance(1000);
      for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
    }
  }
}

test('a router whose lease counter stands still for a lease and its margin is declared dead, not before', async () => {
  const world = new World();
  await world.watch.start();
  for (let second = 0; second < 5; second += 1) {
    world.renew(B);
    await world.seconds(1);
  }
  await world.seconds(8);
  assert.deepEqual(world.declaredDead, []);
  assert.equal(world.watch.isDead(B, record(B, 1).incarnation), false);
  const before = world.changes;
  await world.seconds(2);
  assert.deepEqual(world.declaredDead, [[B, 6]]);
  assert.equal(world.watch.isDead(B, record(B, 1).incarnation), true);
  assert.equal(world.watch.get(B)?.dead, true);
  assert.equal(world.changes, before + 1);
  await world.watch.stop();
});

test('time in which the registry could not be asked, or in which its own lease was short, is not held against anybody', async () => {
  for (const trouble of ['registry', 'lease'] as const) {
    const world = new World();
    await world.watch.start();
    await world.seconds(6);
    if (trouble === 'registry') world.away = true;
    else world.lease.leftMs = 1000;
    await world.seconds(3);
    world.away = false;
    world.lease.leftMs = LEASE_MS;
    await world.seconds(7);
    assert.deepEqual(world.declaredDead, [], trouble);
    await world.seconds(3);
    assert.equal(world.declaredDead.length, 1, trouble);
    await world.watch.stop();
  }
});

test('without a lease it declares nobody dead', async () => {
  const world = new World();
  await world.watch.start();
  world.lease.valid = false;
  world.lease.leftMs = 0;
  await world.seconds(30);
  assert.deepEqual(world.declaredDead, []);
  await world.watch.stop();
});

test('a router that came back is another incarnation: the former one is dead, the new one is not', async () => {
  const world = new World();
  await world.watch.start();
  world.records = [record(A, 1), record(B, 1, '2'.repeat(32))];
  await world.seconds(1);
  assert.equal(world.watch.isDead(B, '1'.repeat(32) as Incarnation), true);
  assert.equal(world.watch.isDead(B, '2'.repeat(32) as Incarnation), false);
  await world.watch.stop();
});

test('an incarnation that is not known is dead once the registry, asked after that, does not show it; a new one is not', async () => {
  const world = new World();
  const stranger = 'c'.repeat(32) as RouterId;
  const [before, next] = ['3'.repeat(32) as Incarnation, '4'.repeat(32) as Incarnation];
  await world.watch.start();
  assert.equal(world.watch.isDead(stranger, before), false);
  // B came back a moment ago, which its owner records say before the next look at the members.
  world.records = [record(A, 1), record(B, 1, next)];
  assert.equal(world.watch.isDead(B, next), false);
  world.clock.advance(1);
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
  assert.equal(world.watch.isDead(stranger, before), true);
  assert.equal(world.watch.isDead(B, next), false);
  assert.equal(world.watch.isDead(B, '1'.repeat(32) as Incarnation), true);
  await world.watch.stop();
});

test('who is heard of and not known is looked for at once', async () => {
  const world = new World();
  const stranger = 'c'.repeat(32) as RouterId;
  await world.watch.start();
  world.records = [...world.records, record(stranger, 1)];
  world.watch.hurry(B);
  world.clock.advance(1);
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
  assert.equal(world.watch.get(stranger), null);
  world.watch.hurry(stranger);
  world.clock.advance(1);
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
  assert.equal(world.watch.get(stranger)?.id, stranger);
  await world.watch.stop();
});
