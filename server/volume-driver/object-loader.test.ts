import assert from 'node:assert/strict';
import { test } from 'node:test';

import { seededRandom } from '../../backends/virtual-clock.ts';
import { silentLogger } from '../core/logger.ts';
import { FaultyDisk } from '../object-log/testing/faulty-disk.ts';
import type { DrivenObject } from '../object-router/driver-port.ts';
import { SimulatedRouter, SimulatedWorld } from './testing/simulated-router.ts';
import type { SimulationSettings } from './testing/simulated-router.ts';

const KIB = 1024;
const BLOCK = 4096;
const BLOCKS = 300;
const TIME = { seconds: 1_700_000_000, nanoseconds: 0 };
const SETTINGS: SimulationSettings = {
  segmentBytes: 64 * KIB,
  segmentFileBytes: 80 * KIB,
  checkpointAfterBytes: 4096 * KIB,
  dirtyBytesMax: 64 * 1024 * KIB,
  cacheBytes: 0,
  graceTimeMs: 60_000,
  recycle: false,
};

/** An object with a checkpoint and, with `segments`, uploaded segments behind it, of which the next router has nothing but what is on the backend. */
async function stored(seed: number, segments: boolean): Promise<SimulatedWorld> {
  const random = seededRandom(seed);
  const world = new SimulatedWorld(new FaultyDisk(random), random, 'volume');
  const router = await SimulatedRouter.start(world, SETTINGS, silentLogger);
  const object = await router.clock.run(router.driver.open(world.inode));
  const write = async (block: number): Promise<void> => {
    const change = await router.clock.run(object.write(block * BLOCK, BLOCK, [Buffer.alloc(BLOCK, block + 1)], true, TIME));
    assert.equal(change.kind, 'changed');
  };
  for (let block = 0; block < BLOCKS / 2; block += 1) await write(block);
  await router.clock.run(object.flush(router.clock.monotonicMs() + 60_000));
  for (let block = BLOCKS / 2; block < BLOCKS; block += 1) await write(block);
  if (segments) {
    for (let look = 0; look < 100 && router.files.dirtyBytes > 100 * KIB; look += 1) {
      object.tick();
      await router.clock.run(router.clock.sleep(100));
    }
  } else await router.clock.run(object.flush(router.clock.monotonicMs() + 60_000));
  assert.ok(world.owner?.root.checkpoint !== null);
  router.kill();
  return world;
}

/** Opens, again and again as long as it is told to; returns how often it was. */
async function open(router: SimulatedRouter, world: SimulatedWorld): Promise<{ object: DrivenObject; refusals: number }> {
  for (let refusals = 0; refusals < 50; refusals += 1) {
    const opening = router.driver.open(world.inode);
    try {
      return { object: await router.clock.run(opening), refusals };
    } catch (error) {
      assert.equal((error as { class?: string }).class, 'retry', String(error));
    }
  }
  throw new Error('it does not open');
}

for (const segments of [false, true]) {
  test(`an object opens over a store that cuts answers off and flips bits, with ${segments ? 'segments behind its checkpoint' : 'a checkpoint alone'}`, async () => {
    let wrongAnswers = 0;
    for (let seed = 1; seed <= 12; seed += 1) {
      const world = await stored(seed, segments);
      const router = await SimulatedRouter.start(world, SETTINGS, silentLogger);
      router.store.setFaults({ flipGet: 0.15, truncateGet: 0.1 });
      const { object } = await open(router, world);
      for (let block = 0; block < BLOCKS; block += 16) {
        const target = Buffer.alloc(4 * BLOCK);
        try {
          await router.clock.run(Promise.resolve(object.read(block * BLOCK, target)));
        } catch (error) {
          assert.equal((error as { class?: string }).class, 'retry', String(error));
          continue;
        }
        for (let index = 0; index < 4; index += 1)
          assert.ok(target.subarray(index * BLOCK, (index + 1) * BLOCK).equals(Buffer.alloc(BLOCK, block + index + 1)));
      }
      wrongAnswers += router.driver.reads.statistics().wrongAnswers;
      router.store.setFaults({});
      await router.clock.run(object.close());
    }
    assert.ok(wrongAnswers > 25, `${wrongAnswers} wrong answers`);
  });
}

test('a checkpoint that stays damaged is waited for a minute, and then refused as damaged', async () => {
  const world = await stored(3, false);
  const router = await SimulatedRouter.start(world, SETTINGS, silentLogger);
  router.store.setFaults({ truncateGet: 1 });
  await assert.rejects(router.clock.run(router.driver.open(world.inode)), { class: 'retry' });
  assert.match(router.driver.reads.problem?.message ?? '', /^checkpoint \S+ckp-/);
  await router.clock.run(router.clock.sleep(60_000));
  await assert.rejects(router.clock.run(router.driver.open(world.inode)), { code: 'checkpoint-corrupt' });
  router.store.setFaults({});
  const object = await router.clock.run(router.driver.open(world.inode));
  assert.equal(router.driver.reads.problem, null);
  await router.clock.run(object.close());
});
