/**
 * An error out of nowhere at every named place. The router may answer errors while it lasts, or stop with a message; it may not lose what it
 * acknowledged, hang, or need more than a restart.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { FAIL_POINTS } from '../../server/core/fail-points.ts';
import { Status } from '../../server/nfsd/file-system.ts';
import { crashSettings } from '../crash/crash-settings.ts';
import { connectStore } from '../datastore-client.ts';
import { RouterProcess } from '../router-process.ts';
import { allWell } from './problem.ts';
import { SteadyLoad } from './steady-load.ts';

const MIB = 1024 * 1024;
/** Starts that the points are spread over; neighbours, which follow each other in the code, come into different ones. */
const ROUNDS = 5;

test('an error at any fail point loses nothing that was acknowledged and is over when the next start is', async (t) => {
  const router = await RouterProcess.createForTest(t, { environment: crashSettings });
  await router.start();
  const load = await SteadyLoad.create(router, 1, 24 * MIB);
  await load.run(({ written }) => written > 200);
  await router.stop();
  const silent: string[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const names = FAIL_POINTS.filter((_name, index) => index % ROUNDS === round);
    const logged = router.log.length;
    router.launch({ VFERRY_FAIL_POINTS: names.map((name) => `${name}=error@2`).join(',') });
    const outcome = await router.waitReady();
    if (outcome === 'ready') await churn(router, load, `round-${round}`);
    if (router.running) await router.kill();
    else assert.equal((await router.exited()).code, 1, `${names.join(', ')}\n${router.logTail()}`);
    const log = router.log.slice(logged);
    silent.push(...names.filter((name) => !log.includes(`fail point ${name} `)));
    await router.start();
    await router.waitForReadyz(allWell);
    assert.deepEqual(await load.verify(), [], names.join(', '));
    await router.stop();
  }
  t.diagnostic(`of these nothing was logged: ${silent.join(', ') || 'none'}`);
  // An error at a registry commit or a claim is an answer to somebody, not a line of the log; most must be told to the operator.
  assert.ok(silent.length < FAIL_POINTS.length / 2, 'most errors left no trace: either they were not hit or they were swallowed');
});

/** A second of everything: writes, a file that grows, a volume that comes and goes. Errors are expected; only a hang is not. */
async function churn(router: RouterProcess, load: SteadyLoad, name: string): Promise<void> {
  const files = (async () => {
    await using client = await connectStore(router, { timeoutMs: 60_000 });
    for (let index = 0; index < 12; index += 1) {
      for (const [file, sizeBytes] of [
        [`${name}-${index}-flat.vmdk`, 512 * 1024],
        [`${name}-${index}.log`, 20_000],
      ] as const) {
        const created = await client.create(client.root, file, 'unchecked', { mode: 0o600 });
        if (created.status !== Status.OK) continue;
        await client.write(created.handle, 0, Buffer.alloc(sizeBytes, index + 1), 2);
        await client.remove(client.root, file);
      }
    }
  })();
  let failures = 0;
  try {
    await Promise.all([files, load.run(({ written }) => written > 150)]);
  } catch (error) {
    // A router that stopped takes its connections along; one that runs and does not answer is the bug this test is for.
    failures += 1;
    if (!(await router.isGone(60_000))) throw new Error(`${name}: the router runs but does not answer`, { cause: error });
  }
  if (failures === 0 && router.running) await load.untilWritten();
}
