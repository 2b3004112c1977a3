/** The Storage Backend goes away, turns read-only or is slow. */
import assert from 'node:assert/strict';
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { Status } from '../../server/nfsd/file-system.ts';
import { connectStore } from '../datastore-client.ts';
import { RouterProcess } from '../router-process.ts';
import { scratchFor } from '../scratch.ts';
import { stackOf } from '../test-stack.ts';
import { allWell, complains } from './problem.ts';
import { smallDisk } from './small-disk.ts';
import { SteadyLoad } from './steady-load.ts';

const MIB = 1024 * 1024;
/** Little is kept on this side, so that reads need the backend. */
const LITTLE_CACHE = { VFERRY_LOG_SEAL_AFTER_MS: '200ms', VFERRY_CACHE_SSD_BYTES: '0B', VFERRY_CACHE_RAM_BYTES: '1MiB' };

test('a backend that vanishes does not stop writes, is told, never yields wrong data, and is caught up with when it is back', async (t) => {
  const backend = join(await scratchFor(t, 'backend'), 'backend');
  const router = await RouterProcess.forTest(t, { environment: { ...LITTLE_CACHE, VFERRY_VPOOL_BACKEND_PATH: backend } });
  const load = await SteadyLoad.create(router, 1, 48 * MIB);
  await load.run(({ written }) => written > 700);
  await router.waitForReadyz(allWell);
  await rename(backend, `${backend}.gone`);

  const outcome = await load.run(({ written }) => written > 200);
  assert.ok(outcome.written > 200, `only ${outcome.written} writes: ${JSON.stringify([...outcome.statuses])}, ${outcome.silent} silent`);
  const told = await router.waitForReadyz(complains);
  t.diagnostic(told.body);
  // Reads of what is only there wait or fail; what is answered must be right.
  await using client = await connectStore(router, { timeoutMs: 4000 });
  const expected = load.volume.model.current(0, load.volume.sizeBytes);
  let [good, bad] = [0, 0];
  for (let at = 0; at < load.volume.sizeBytes && bad < 4; at += MIB) {
    const answer = await client.read(load.volume.handle, at, 65_536).catch(() => null);
    if (answer === null || answer.status !== Status.OK) {
      bad += 1;
      if (answer !== null)
        assert.ok(answer.status === Status.IO || answer.status === Status.JUKEBOX, `READ was answered with status ${answer.status}`);
    } else {
      good += 1;
      assert.ok(answer.data.equals(expected.subarray(at, at + 65_536)), `wrong data at ${at}`);
    }
  }
  t.diagnostic(`${good} READs were answered without the backend, ${bad} not`);

  await rename(`${backend}.gone`, backend);
  await router.waitForReadyz(allWell);
  assert.deepEqual(await load.verify(), []);
  await router.kill();
  await router.start();
  assert.deepEqual(await load.verify(), []);
});

test('a backend that turns read-only is told and loses nothing', async (t) => {
  const disk = await smallDisk(stackOf(t), 256);
  const router = await RouterProcess.forTest(t, {
    prefix: disk.namespace.prefix,
    environment: { ...LITTLE_CACHE, VFERRY_VPOOL_BACKEND_PATH: join(disk.path, 'backend') },
  });
  const load = await SteadyLoad.create(router, 1, 32 * MIB);
  await load.run(({ written }) => written > 200);
  await disk.cut();
  const outcome = await load.run(({ written }) => written > 200);
  assert.ok(outcome.written > 200, `only ${outcome.written} writes: ${JSON.stringify([...outcome.statuses])}, ${outcome.silent} silent`);
  t.diagnostic((await router.waitForReadyz(complains)).body);
  await router.kill();
  await disk.repair();
  await router.start();
  await router.waitForReadyz(allWell);
  assert.deepEqual(await load.verify(), []);
});

test('a backend at which every upload takes a quarter of a second slows down nothing but itself', async (t) => {
  const router = await RouterProcess.forTest(t);
  await router.stop();
  await router.start({ ...LITTLE_CACHE, VFERRY_FAIL_POINTS: 'upload.before-put=delay:250@1+' });
  const load = await SteadyLoad.create(router, 1, 48 * MIB);
  const started = performance.now();
  const outcome = await load.run(({ written }) => written > 600, 10_000);
  t.diagnostic(`${outcome.written} writes of 64 KiB in ${Math.round(performance.now() - started)} ms`);
  assert.deepEqual([...outcome.statuses.keys()], [Status.OK]);
  assert.equal(outcome.silent, 0);
  assert.deepEqual(await load.verify(), []);
  await router.stop();
  await router.start();
  assert.deepEqual(await load.verify(), []);
});
