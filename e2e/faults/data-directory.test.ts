/** The data directory goes away or may not be written any more. */
import assert from 'node:assert/strict';
import { rename } from 'node:fs/promises';
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

test('a read-only data directory, or a read-only place to make one, is refused at start with a message that names it', async (t) => {
  const disk = await smallDisk(stackOf(t), 64);
  await disk.namespace.shell(`mkdir ${disk.path}/there; mount -o remount,ro ${disk.path}`);
  for (const name of ['there', 'not-there']) {
    const router = await RouterProcess.createForTest(t, { dataDirectory: join(disk.path, name), prefix: disk.namespace.prefix });
    router.launch();
    const exit = await router.exited();
    assert.equal(exit.code, 1, router.log);
    assert.match(router.log, new RegExp(`${disk.path}/${name}.*(read-?only|EROFS)`, 'i'), name);
  }
});

test('a file system that turns read-only under the router is told; what was acknowledged is there after the repair', async (t) => {
  const disk = await smallDisk(stackOf(t), 256);
  const router = await RouterProcess.forTest(t, {
    dataDirectory: join(disk.path, 'data'),
    prefix: disk.namespace.prefix,
    environment: { VFERRY_VPOOL_BACKEND_PATH: join(await scratchFor(t, 'backend'), 'backend') },
  });
  const load = await SteadyLoad.create(router, 1, 32 * MIB);
  await load.run(({ written }) => written > 100);
  // What ext4 does by itself when it meets a broken disk.
  await disk.cut();
  const outcome = await load.run(({ statuses }) => [...statuses].some(([status, count]) => status !== 0 && count > 10), 2000);
  t.diagnostic(`${outcome.written} writes, then statuses ${JSON.stringify([...outcome.statuses])}, ${outcome.silent} silent`);
  for (const status of outcome.statuses.keys())
    assert.ok([Status.OK, Status.IO, Status.ROFS, Status.NOSPC, Status.JUKEBOX].includes(status as never), `status ${status}`);
  assert.equal(outcome.written, 0, 'writes were acknowledged on a file system that takes nothing any more');
  const told = await router.waitForReadyz((answer) => answer.status === 0 || complains(answer));
  t.diagnostic(told.body);

  await router.kill();
  await disk.repair();
  await router.start();
  assert.deepEqual(await load.verify(), []);
  await load.untilWritten();
});

test('a data directory that vanishes is told, and serves again when it is back', async (t) => {
  const scratch = await scratchFor(t, 'vanishing');
  const data = join(scratch, 'data');
  const router = await RouterProcess.forTest(t, { dataDirectory: data, environment: { VFERRY_LOG_SEAL_AFTER_MS: '300ms' } });
  const load = await SteadyLoad.create(router, 1, 32 * MIB);
  await load.run(({ written }) => written > 100);
  await rename(data, `${data}.gone`);
  const told = await router.waitForReadyz((answer) => answer.status === 0 || complains(answer));
  t.diagnostic(told.body);
  await load
    .run(({ written, statuses }) => written > 300 || [...statuses].some(([status, count]) => status !== 0 && count > 10), 2000)
    .catch(() => null);
  await rename(`${data}.gone`, data);
  if (!router.running) await router.start();
  await load.untilWritten();
  await router.waitForReadyz(allWell);
  assert.deepEqual(await load.verify(), []);
  await router.kill();
  await router.start();
  assert.deepEqual(await load.verify(), []);
});
