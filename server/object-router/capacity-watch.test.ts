import assert from 'node:assert/strict';
import { test } from 'node:test';

import { VirtualClock } from '../../backends/virtual-clock.ts';
import type { Registry } from '../../registry/ports.ts';
import type { Disk } from '../core/disk.ts';
import { CapacityWatch } from './capacity-watch.ts';

class World {
  readonly clock = new VirtualClock();
  space: () => Promise<{ totalBytes: number; freeBytes: number }> = () => Promise.resolve({ totalBytes: 1000, freeBytes: 300 });
  pendingBytes = 0;
  usedBytes = 600;

  watch(capacityBytes: number | null): CapacityWatch {
    const disk: Pick<Disk, 'space'> = { space: () => this.space() };
    const registry = { namespace: { usage: () => ({ inodes: 7, usedBytes: this.usedBytes }) } };
    return new CapacityWatch(
      { disk: disk as Disk, clock: this.clock, registry: registry as unknown as Registry, pendingBytes: () => this.pendingBytes },
      { path: '/backend', capacityBytes },
    );
  }

  async pass(milliseconds: number): Promise<void> {
    this.clock.advance(milliseconds);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test('without a set capacity the file system of the backend says it; removed data that is kept for a while counts as free', async () => {
  const world = new World();
  world.pendingBytes = 50;
  const watch = world.watch(null);
  await watch.start();
  assert.deepEqual([watch.totalBytes, watch.freeBytes, watch.usage.usedBytes], [1000, 350, 600]);
  world.pendingBytes = 10_000;
  await world.pass(1000);
  assert.deepEqual([watch.totalBytes, watch.freeBytes], [1000, 1000]);
  watch.stop();
  assert.equal(world.clock.pending, 0);
});

test('with one, what is used is taken off', async () => {
  const world = new World();
  world.space = () => Promise.reject(new Error('nobody asks the disk'));
  const watch = world.watch(5000);
  await watch.start();
  assert.deepEqual([watch.totalBytes, watch.freeBytes, watch.problem], [5000, 4400, null]);
  world.usedBytes = 6000;
  await world.pass(1000);
  assert.deepEqual([watch.totalBytes, watch.freeBytes], [5000, 0]);
  watch.stop();
});

test('a file system that is away is a problem until it is back; the last figures stand', async () => {
  const world = new World();
  const watch = world.watch(null);
  await watch.start();
  const there = world.space;
  world.space = () => Promise.reject(new Error('not mounted'));
  await world.pass(1000);
  assert.equal(watch.problem?.message, 'not mounted');
  assert.deepEqual([watch.totalBytes, watch.freeBytes], [1000, 300]);
  world.space = there;
  await world.pass(1000);
  assert.equal((watch.problem as Error | null)?.message, undefined);
  watch.stop();
});

test('a file system that hangs does not hold the start up, and is asked once, not every second anew', async () => {
  const world = new World();
  let asked = 0;
  let answer = (_space: { totalBytes: number; freeBytes: number }): void => {};
  world.space = () => {
    asked += 1;
    return new Promise((resolve) => {
      answer = resolve;
    });
  };
  const watch = world.watch(null);
  await world.clock.run(watch.start());
  assert.equal(world.clock.monotonicMs(), 2000);
  await world.pass(10_000);
  assert.equal(asked, 1);
  answer({ totalBytes: 10, freeBytes: 5 });
  await world.pass(0);
  assert.deepEqual([watch.totalBytes, watch.freeBytes], [10, 5]);
  watch.stop();
  assert.equal(world.clock.pending, 0);
});
