/** Router and backend in trouble at the same time, and a backend whose bytes rot. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';

import { makeStore } from '../../backends/make-store.ts';
import { Status } from '../../server/nfsd/file-system.ts';
import { connectStore } from '../datastore-client.ts';
import { allWell, problemsOf } from '../faults/problem.ts';
import { SteadyLoad } from '../faults/steady-load.ts';
import { RouterProcess } from '../router-process.ts';
import type { SwiftBackend } from './backend-fixture.ts';
import { coldRestart, drained } from './cold-restart.ts';
import { FAULT_SETTINGS } from './faults-over.ts';

const MIB = 1024 * 1024;

/** A router is killed while its backend is away, and has to start without it. */
export async function killedDuringOutage(t: TestContext, backend: SwiftBackend, vpool: string): Promise<void> {
  const router = await RouterProcess.forTest(t, { vpool, environment: { ...FAULT_SETTINGS, ...backend.environment() } });
  const load = await SteadyLoad.create(router, 1, 32 * MIB);
  await load.run(({ written }) => written > 150);
  await backend.service.stop('object');
  const before = await load.run(({ written }) => written > 60);
  assert.ok(before.written > 60, `only ${before.written} writes: ${JSON.stringify([...before.statuses])}, ${before.silent} silent`);
  await router.kill();

  router.launch();
  assert.equal(await router.waitReady(), 'ready');
  await router.waitForReadyz((answer) => problemsOf(answer).codes.includes('backend'));
  // Whatever it does without its backend, it invents nothing: a READ gives what was written, or is told to wait.
  await using client = await connectStore(router, { timeoutMs: 3000 });
  const answer = await client.read(load.volume.handle, 0, 65_536).catch(() => null);
  if (answer?.status === Status.OK) assert.ok(answer.data.equals(load.volume.model.current(0, 65_536)));
  else assert.ok(answer === null || answer.status === Status.JUKEBOX, `READ was answered with status ${answer?.status}`);
  await backend.service.startPart('object');

  await router.waitForReadyz(allWell);
  assert.deepEqual(await load.verify(), []);
  await load.untilWritten();
  await coldRestart(router);
  assert.deepEqual(await load.verify(), [], 'read back from the backend');
}

/** A byte of an object flips on Swift's disk: 200 with wrong bytes once, then the object is gone (services.md). There is one replica here: its data is lost. */
export async function rottenObject(t: TestContext, backend: SwiftBackend, vpool: string): Promise<void> {
  const router = await RouterProcess.forTest(t, { vpool, environment: { ...FAULT_SETTINGS, ...backend.environment() } });
  const load = await SteadyLoad.create(router, 1, 24 * MIB);
  await load.run(({ written }) => written > 200);
  await coldRestart(router);
  assert.deepEqual(await load.verify(), []);

  assert.ok(backend.store !== null);
  await using made = await makeStore({ store: backend.store, layout: { kind: 'buckets' }, encoding: null });
  const { names: buckets } = await made.store.listBuckets('', 1000);
  const bucket = buckets.find((name) => new RegExp(`^vf-${vpool}-[0-9a-f]{32}$`).test(name)) ?? '';
  const segments = (await made.store.list(bucket, 'seg-', '', 1000)).names;
  const victim = segments[Math.floor(segments.length / 2)] ?? '';
  await coldRestart(router);
  backend.service.flipByte(bucket, victim, 2 * MIB);

  await using client = await connectStore(router, { timeoutMs: 30_000 });
  const expected = load.volume.model.current(0, load.volume.sizeBytes);
  let [good, bad] = [0, 0];
  for (let at = 0; at < load.volume.sizeBytes && bad < 2; at += 65_536) {
    const answer = await client.read(load.volume.handle, at, 65_536).catch(() => null);
    if (answer?.status === Status.OK) {
      good += 1;
      assert.ok(answer.data.equals(expected.subarray(at, at + 65_536)), `wrong data at ${at}`);
    } else {
      bad += 1;
      assert.ok(answer === null || answer.status === Status.IO || answer.status === Status.JUKEBOX, `READ was answered with ${answer?.status}`);
    }
  }
  t.diagnostic(`${good} READs were right, ${bad} were refused or not answered within 30 s`);
  assert.ok(good > 0 && bad > 0, `${good} good, ${bad} bad`);
  await client[Symbol.asyncDispose]();
  await drained(router);
  await router.kill();
  const checked = await router.fsck();
  assert.equal(checked.code, 1, checked.output);
  assert.match(checked.output, /DAMAGE/);
  assert.ok(
    checked.output.includes(victim.slice(0, 14)) || checked.output.includes(`segment ${Number(victim.slice(4, 14))}`),
    checked.output.slice(0, 2000),
  );
}
