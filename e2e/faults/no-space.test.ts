/** Full disks: the local one that holds the log, and the backend's. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';

import { Status } from '../../server/nfsd/file-system.ts';
import { RouterProcess } from '../router-process.ts';
import { scratchFor } from '../scratch.ts';
import { stackOf } from '../test-stack.ts';
import { allWell, complains } from './problem.ts';
import { smallDisk } from './small-disk.ts';
import { SteadyLoad } from './steady-load.ts';

const MIB = 1024 * 1024;

test('a full local disk makes writes wait or fail with NOSPC, is told, loses nothing, and ends when there is space again', async (t) => {
  const disk = await smallDisk(stackOf(t), 224);
  await disk.fill(96);
  // The backend is elsewhere, and slow to get anything: the log has nowhere to go.
  const backend = join(await scratchFor(t, 'backend'), 'backend');
  const router = await RouterProcess.forTest(t, {
    dataDirectory: join(disk.path, 'data'),
    prefix: disk.namespace.prefix,
    environment: {
      VFERRY_VPOOL_BACKEND_PATH: backend,
      VFERRY_CACHE_SSD_BYTES: '16MiB',
      VFERRY_LOG_SEAL_AFTER_MS: '200ms',
      VFERRY_CACHE_RAM_BYTES: '16MiB',
    },
  });
  const load = await SteadyLoad.create(router, 1, 200 * MIB);
  await disk.namespace.shell(`mv ${backend} ${backend}.gone`);
  const outcome = await load.run(({ statuses }) => (statuses.get(Status.NOSPC) ?? 0) > 20);
  t.diagnostic(`${outcome.written} writes, then statuses ${JSON.stringify([...outcome.statuses])}, ${outcome.silent} silent`);
  assert.ok(outcome.written > 100, 'the disk was full from the start: this test would prove nothing');
  for (const status of outcome.statuses.keys()) assert.ok([Status.OK, Status.NOSPC, Status.JUKEBOX].includes(status as never), `status ${status}`);
  const told = await router.waitForReadyz(complains);
  t.diagnostic(told.body);
  assert.deepEqual(await load.verify(), []);

  await disk.free();
  await disk.namespace.shell(`mv ${backend}.gone ${backend}`);
  await load.untilWritten();
  await router.waitForReadyz(allWell);
  assert.deepEqual(await load.verify(), []);
  await router.kill();
  await router.start();
  assert.deepEqual(await load.verify(), []);
});

test('a full backend lets writes go on until the bound of un-uploaded data, is told, loses nothing, and drains when there is space again', async (t) => {
  const disk = await smallDisk(stackOf(t), 64);
  await disk.fill(44);
  const router = await RouterProcess.forTest(t, {
    prefix: disk.namespace.prefix,
    environment: {
      VFERRY_VPOOL_BACKEND_PATH: join(disk.path, 'backend'),
      VFERRY_LOG_SEGMENT_BYTES: '4MiB',
      VFERRY_LOG_DIRTY_BYTES_MAX: '32MiB',
      VFERRY_LOG_SEAL_AFTER_MS: '200ms',
      VFERRY_CACHE_SSD_BYTES: '16MiB',
    },
  });
  const load = await SteadyLoad.create(router, 1, 40 * MIB);
  const outcome = await load.run(({ statuses }) => [...statuses].some(([status, count]) => status !== 0 && count > 4));
  t.diagnostic(`${outcome.written} writes, then statuses ${JSON.stringify([...outcome.statuses])}, ${outcome.silent} silent`);
  for (const status of outcome.statuses.keys()) assert.ok([Status.OK, Status.NOSPC, Status.JUKEBOX].includes(status as never), `status ${status}`);
  assert.ok(outcome.written * 65_536 < 80 * MIB, 'more was taken than the backend and the bound allow');
  // Not only that writes wait: why.
  const told = await router.waitForReadyz((answer) => complains(answer) && /no space/i.test(answer.body));
  t.diagnostic(told.body);
  assert.deepEqual(await load.verify(), []);

  await disk.free();
  await load.untilWritten();
  await router.waitForReadyz(allWell);
  assert.deepEqual(await load.verify(), []);
  await router.kill();
  await router.start();
  assert.deepEqual(await load.verify(), []);
});
