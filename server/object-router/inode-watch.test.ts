import assert from 'node:assert/strict';
import { test } from 'node:test';

import { VirtualClock } from '../../backends/virtual-clock.ts';
import type { Inode } from '../../registry/inode.ts';
import { ApplianceError } from '../core/errors.ts';
import type { FileId } from '../core/ids.ts';
import { silentLogger } from '../core/logger.ts';
import { InodeWatch } from './inode-watch.ts';
import type { OpenObjects, ServedObject } from './open-objects.ts';

/** Half a minute: what a removal that could not be told is promised (decision 0028). */
const PROMISED_MS = 30_000;

function inodeOf(fileid: number, mode: number, ctime = 1): Inode {
  return { fileid, inodeGeneration: 7, mode, uid: 0, gid: 0, nlink: 1, parent: null, ctime: { seconds: ctime, nanoseconds: 0 } } as unknown as Inode;
}

class World {
  readonly clock = new VirtualClock();
  readonly live = new Map<number, Inode>();
  readonly tombstones = new Set<number>();
  readonly served = new Map<number, ServedObject>();
  readonly held = new Set<number>();
  /** Reads wait for it. */
  gate: Promise<unknown> = Promise.resolve();
  isAway = false;
  /** Records that cannot be read. */
  readonly damaged = new Set<number>();
  /** Every read, by time. */
  readonly reads: { readonly fileid: number; readonly atMs: number }[] = [];
  readonly watch: InodeWatch;

  constructor() {
    const objects: Pick<OpenObjects, 'all' | 'get' | 'held' | 'observe' | 'unlink'> = {
      all: () => this.served.values(),
      get: (fileid) => this.served.get(fileid),
      held: (fileid) => (this.held.has(fileid) ? Promise.resolve() : null),
      observe: (inode) => {
        (this.served.get(inode.fileid) as ServedObject).inode = inode;
      },
      unlink: async (fileid) => {
        (this.served.get(fileid) as ServedObject).unlinked = true;
      },
    };
    this.watch = new InodeWatch({
      objects,
      namespace: {
        inode: async (fileid) => {
          if (this.isAway) throw new ApplianceError('registry-unavailable', 'it is away', { retryable: true });
          if (this.damaged.has(fileid)) throw new ApplianceError('registry-corrupt', 'no inode');
          this.reads.push({ fileid, atMs: this.clock.monotonicMs() });
          const inode = this.live.get(fileid) ?? null;
          await this.gate;
          return inode;
        },
        tombstones: async (after) =>
          [...this.tombstones]
            .filter((fileid) => fileid > after)
            .sort((a, b) => a - b)
            .map((fileid) => ({ inode: inodeOf(fileid, 0), sinceMs: 0 })),
      },
      clock: this.clock,
      logger: silentLogger,
    });
    this.watch.start();
  }

  open(fileid: number): ServedObject {
    const inode = inodeOf(fileid, 0o644);
    this.live.set(fileid, inode);
    const served = { driven: { fileid: fileid as FileId }, inode, unlinked: false } as unknown as ServedObject;
    this.served.set(fileid, served);
    return served;
  }

  wait(ms: number): Promise<void> {
    return this.clock.run(this.clock.sleep(ms));
  }
}

test('what another router removed or changed is known within half a minute, though nobody tells', async () => {
  const world = new World();
  const [kept, removed, changed] = [world.open(1), world.open(2), world.open(3)];
  const before = kept.inode;
  await world.wait(5000);
  world.live.delete(2);
  world.tombstones.add(2);
  const now = inodeOf(3, 0o600, 2);
  world.live.set(3, now);
  await world.wait(PROMISED_MS);
  assert.deepEqual([removed.unlinked, changed.inode, kept.inode === before, kept.unlinked], [true, now, true, false]);
  // Also after the registry was away for a while.
  world.isAway = true;
  await world.wait(60_000);
  world.isAway = false;
  world.live.delete(1);
  world.tombstones.add(1);
  await world.wait(PROMISED_MS);
  assert.equal(kept.unlinked, true);
  await world.watch.stop();
});

test('an inode that the registry does not know and has no tombstone of was not removed', async () => {
  const world = new World();
  const served = world.open(2);
  world.live.delete(2);
  world.tombstones.add(3);
  await world.wait(PROMISED_MS);
  assert.equal(served.unlinked, false);
  await world.watch.stop();
});

test('what was heard while the registry was asked is not put back, and nothing is changed of an object that is on its way', async () => {
  const world = new World();
  const [served, moving] = [world.open(1), world.open(2)];
  const answering = Promise.withResolvers<void>();
  world.gate = answering.promise;
  const older = inodeOf(1, 0o600, 2);
  world.live.set(1, older);
  world.held.add(2);
  const begin = moving.inode;
  world.live.set(2, inodeOf(2, 0o600, 2));
  await world.clock.run(world.clock.sleep(15_000));
  const newer = inodeOf(1, 0o640, 3);
  world.live.set(1, newer);
  served.inode = newer;
  answering.resolve();
  await world.wait(1000);
  assert.deepEqual([served.inode, moving.inode], [newer, begin]);
  world.held.delete(2);
  await world.wait(PROMISED_MS);
  assert.equal(moving.inode.mode, 0o600);
  await world.watch.stop();
});

test('the reads of thousands of open objects are spread over the whole period', async () => {
  const world = new World();
  for (let fileid = 1; fileid <= 4000; fileid += 1) world.open(fileid);
  // The first round was of what was open then: nothing.
  await world.wait(PROMISED_MS);
  const perObject = new Map<number, number>();
  const perPart = new Map<number, number>();
  for (const { fileid, atMs } of world.reads) {
    perObject.set(fileid, (perObject.get(fileid) ?? 0) + 1);
    const part = Math.floor(atMs / 100);
    perPart.set(part, (perPart.get(part) ?? 0) + 1);
  }
  assert.deepEqual([perObject.size, Math.min(...perObject.values()), Math.max(...perObject.values())], [4000, 2, 2]);
  // 40 in 100 ms is even.
  assert.ok(Math.max(...perPart.values()) <= 60, `${Math.max(...perPart.values())} reads in 100 ms`);
  // It does not wait for the end of the period.
  const beganMs = world.clock.monotonicMs();
  await world.watch.stop();
  assert.equal(world.clock.monotonicMs(), beganMs);
});

test('an older inode than this router was told of is not taken over: the registry has forgotten, and will be told again', async () => {
  const world = new World();
  const served = world.open(1);
  const told = inodeOf(1, 0o640, 5);
  served.inode = told;
  // Before the change, and with the owner's copy of its time.
  for (const forgotten of [inodeOf(1, 0o644, 1), inodeOf(1, 0o644, 5)]) {
    world.live.set(1, forgotten);
    await world.wait(PROMISED_MS);
    assert.equal(served.inode, told);
  }
  const later = inodeOf(1, 0o600, 6);
  world.live.set(1, later);
  await world.wait(PROMISED_MS);
  assert.equal(served.inode, later);
  await world.watch.stop();
});

test('an inode that cannot be read keeps nobody from looking at the others', async () => {
  const world = new World();
  for (let fileid = 1; fileid <= 100; fileid += 1) world.open(fileid);
  world.damaged.add(1);
  const changed = inodeOf(100, 0o600, 2);
  world.live.set(100, changed);
  await world.wait(PROMISED_MS);
  assert.equal(world.served.get(100)?.inode, changed);
  await world.watch.stop();
});
