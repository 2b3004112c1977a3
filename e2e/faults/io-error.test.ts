/** Disks that lie or break: a write error that shows only at the sync, and errors at every named place. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';

import { Status } from '../../server/nfsd/file-system.ts';
import { RouterProcess } from '../router-process.ts';
import { scratchFor } from '../scratch.ts';
import { stackOf } from '../test-stack.ts';
import { allWell, complains } from './problem.ts';
import { thinDisk } from './small-disk.ts';
import { SteadyLoad } from './steady-load.ts';

const MIB = 1024 * 1024;

test('a write error that shows only at the sync is never acknowledged over: writes fail, it is told, and all that was acknowledged is there', async (t) => {
  const disk = await thinDisk(stackOf(t), 512, 100);
  const router = await RouterProcess.forTest(t, {
    dataDirectory: join(disk.path, 'data'),
    prefix: disk.namespace.prefix,
    environment: { VFERRY_VPOOL_BACKEND_PATH: join(await scratchFor(t, 'backend'), 'backend'), VFERRY_LOG_SEAL_AFTER_MS: '1h' },
  });
  const load = await SteadyLoad.create(router, 1, 160 * MIB);
  const outcome = await load.run(({ statuses }) => [...statuses].some(([status, count]) => status !== 0 && count > 10));
  t.diagnostic(`${outcome.written} writes, then statuses ${JSON.stringify([...outcome.statuses])}, ${outcome.silent} silent`);
  assert.ok(outcome.written > 50, 'the disk was broken from the start: this test would prove nothing');
  for (const status of outcome.statuses.keys())
    assert.ok([Status.OK, Status.IO, Status.NOSPC, Status.JUKEBOX].includes(status as never), `status ${status}`);
  const told = await router.waitForReadyz((answer) => answer.status === 0 || complains(answer), 2000);
  t.diagnostic(told.body);

  await disk.grow(700);
  if (!router.running) await router.start();
  await load.untilWritten(20_000);
  await router.waitForReadyz(allWell, 20_000);
  assert.deepEqual(await load.verify(), []);
  await router.kill();
  await router.start();
  assert.deepEqual(await load.verify(), []);
});
