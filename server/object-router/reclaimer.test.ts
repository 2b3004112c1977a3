/** Removed objects go from a store whose listings lag, which acts late and fails, without a rest, and their record not before. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { FaultyStore } from '../../backends/faulty-store.ts';
import type { StoreFaults } from '../../backends/faulty-store.ts';
import { MemoryStore } from '../../backends/memory/memory-store.ts';
import { StoreError } from '../../backends/object-store.ts';
import type { ObjectStore } from '../../backends/object-store.ts';
import { seededRandom, VirtualClock } from '../../backends/virtual-clock.ts';
import type { Inode } from '../../registry/inode.ts';
import type { Namespace } from '../../registry/ports.ts';
import type { FileId, Incarnation, ObjectUuid } from '../core/ids.ts';
import { silentLogger } from '../core/logger.ts';
import { Reclaimer } from './reclaimer.ts';
import type { ReclaimSettings } from './reclaimer.ts';

const GRACE_MS = 5000;

class World {
  readonly clock = new VirtualClock();
  readonly inner = new MemoryStore();
  readonly store: FaultyStore;
  readonly tombstones = new Map<number, { inode: Inode; sinceMs: number }>();

  constructor(seed = 1) {
    this.store = new FaultyStore({ inner: this.inner, clock: this.clock, random: seededRandom(seed) });
  }

  /** A removed volume (its own bucket) or file (a prefix in a shared one) with `count` stored objects. */
  async removed(fileid: number, kind: 'volume' | 'file', count: number): Promise<void> {
    const uuid = uuidOf(fileid);
    const bucket = kind === 'volume' ? `bucket-${uuid}` : 'shared';
    await this.inner.createBucket(bucket);
    const faulted = this.store;
    for (let index = 0; index < count; index += 1) {
      const name = kind === 'volume' ? `object-${index}` : `${uuid}.object-${index}`;
      await this.clock.run(faulted.put(bucket, name, { kind: 'bytes', chunks: [Buffer.from('x')] }).catch(() => undefined));
    }
    const inode = { fileid: fileid as FileId, uuid, class: kind, usedBytes: 10 } as unknown as Inode;
    this.tombstones.set(fileid, { inode, sinceMs: this.clock.wallMs() });
  }

  reclaimer(settings: Partial<ReclaimSettings> = {}, store: ObjectStore = this.store): Reclaimer {
    const namespace: Pick<Namespace, 'tombstones' | 'dropTombstone'> = {
      tombstones: async (after, limit) =>
        [...this.tombstones.values()]
          .filter(({ inode }) => inode.fileid > after)
          .sort((a, b) => a.inode.fileid - b.inode.fileid)
          .slice(0, limit),
      dropTombstone: (_mutation, fileid) => {
        this.tombstones.delete(fileid);
        return Promise.resolve();
      },
    };
    return new Reclaimer(
      {
        namespace: namespace as Namespace,
        store,
        names: {
          locate: (inode, uuid) =>
            inode.class === 'volume'
              ? { bucket: `bucket-${uuid}`, prefix: '', ownBucket: true }
              : { bucket: 'shared', prefix: `${uuid}.`, ownBucket: false },
        },
        dropLocal: () => Promise.resolve(),
        unlink: () => Promise.resolve(),
        mayDelete: () => true,
        ended: () => Promise.resolve(),
        mutation: () => ({ operationId: null, incarnation: 'i' as Incarnation, now: { seconds: 0, nanoseconds: 0 }, notAfterMs: Infinity }),
        clock: this.clock,
        logger: silentLogger,
      },
      { graceTimeMs: GRACE_MS, settleMs: 60_000, ...settings },
    );
  }

  /** Lets rounds pass until every tombstone is gone; virtual milliseconds that took. */
  async drained(withinMs: number): Promise<number> {
    const beganMs = this.clock.monotonicMs();
    while (this.tombstones.size > 0) {
      assert.ok(this.clock.monotonicMs() - beganMs < withinMs, `${this.tombstones.size} tombstones are left after ${withinMs} ms`);
      await this.clock.run(this.clock.sleep(500));
    }
    return this.clock.monotonicMs() - beganMs;
  }
}

function uuidOf(fileid: number): ObjectUuid {
  return String(fileid).padStart(32, '0') as ObjectUuid;
}

const LAGGING: Partial<StoreFaults> = {
  listLagMsMax: 15_000,
  visibleLagMsMax: 5000,
  undeadMsMax: 20_000,
  applyLate: 0.2,
  applyLateMsMax: 15_000,
  loseAnswer: 0.1,
  failBefore: 0.1,
  waver: 0.1,
};

test('what listings showed late, and what was put late, is gone with its record; nothing of others goes', async () => {
  for (let seed = 1; seed <= 40; seed += 1) {
    const world = new World(seed);
    world.store.setFaults(LAGGING);
    await world.removed(1, 'volume', 30);
    await world.removed(2, 'file', 30);
    await world.inner.put('shared', `${uuidOf(3)}.object-0`, { kind: 'bytes', chunks: [] });
    const reclaimer = world.reclaimer();
    reclaimer.start();
    await world.drained(1_000_000);
    // Whatever was under way has happened by now.
    await world.clock.run(world.clock.sleep(100_000));
    world.store.setFaults({});
    await world.store.listBuckets('', 10);
    assert.deepEqual((await world.inner.listBuckets('', 10)).names, ['shared'], `seed ${seed}`);
    assert.deepEqual((await world.inner.list('shared', '', '', 100)).names, [`${uuidOf(3)}.object-0`], `seed ${seed}`);
    await reclaimer.stop();
  }
});

test('a bucket that is "not there" for a moment is not taken for empty', async () => {
  const world = new World();
  await world.removed(1, 'volume', 3);
  let blind = true;
  const store = new Proxy<ObjectStore>(world.store, {
    get: (target, property) => {
      const value: unknown = Reflect.get(target, property, target);
      if (property === 'list' && blind) return () => Promise.reject(new StoreError('absent', 'no such bucket'));
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  world.reclaimer({}, store).start();
  await world.clock.run(world.clock.sleep(GRACE_MS + 30_000));
  assert.equal(world.tombstones.size, 1);
  blind = false;
  await world.drained(300_000);
  assert.equal(world.inner.objectCount, 0);
});

test('where listings show what is there, an object is gone in the first round after its grace time, and not before', async () => {
  const world = new World();
  await world.removed(1, 'volume', 3);
  await world.removed(2, 'file', 0);
  const reclaimer = world.reclaimer({ settleMs: 0 });
  reclaimer.start();
  await world.clock.run(world.clock.sleep(GRACE_MS - 1000));
  assert.equal(world.inner.objectCount, 3);
  assert.equal(reclaimer.pendingBytes, 20);
  await world.drained(5000);
  assert.equal(world.inner.objectCount, 0);
  assert.deepEqual((await world.inner.listBuckets('', 10)).names, ['shared']);
});

test('one object that cannot be deleted does not keep the others, and is a problem until it can', async () => {
  const world = new World();
  for (const fileid of [1, 2, 3]) await world.removed(fileid, 'volume', 1);
  let stuck = true;
  const store = new Proxy<ObjectStore>(world.store, {
    get: (target, property) => {
      const value: unknown = Reflect.get(target, property, target);
      if (property === 'deleteMany')
        return (bucket: string, names: readonly string[]) =>
          stuck && bucket.endsWith('1') ? Promise.reject(new StoreError('denied', 'locked')) : world.store.deleteMany(bucket, names);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  const reclaimer = world.reclaimer({ settleMs: 0 }, store);
  reclaimer.start();
  await world.clock.run(world.clock.sleep(GRACE_MS + 3000));
  assert.deepEqual([...world.tombstones.keys()], [1]);
  assert.match(String(reclaimer.problem), /locked/);
  stuck = false;
  await world.drained(5000);
  await world.clock.run(world.clock.sleep(3000));
  assert.equal(reclaimer.problem, null);
});

test('what could not be deleted is tried when the backend works again, not when the next round is due', async () => {
  const world = new World();
  await world.removed(1, 'volume', 3);
  const reclaimer = world.reclaimer({ graceTimeMs: 3_600_000, settleMs: 0 });
  await world.clock.run(world.clock.sleep(3_600_000));
  world.store.setFaults({ failBefore: 1 });
  reclaimer.start();
  await world.clock.run(world.clock.sleep(1000));
  assert.notEqual(reclaimer.problem, null);
  world.store.setFaults({});
  reclaimer.backendRecovered();
  await world.drained(1000);
  assert.equal(reclaimer.problem, null);
  // Nothing is wrong: no round of its own.
  const { pending } = world.clock;
  reclaimer.backendRecovered();
  assert.equal(world.clock.pending, pending);
  await reclaimer.stop();
});
