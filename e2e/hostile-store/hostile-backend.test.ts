/**
 * The promise of the whole project over a store at its worst: kills, stops and random operations as over a good one (crash.test.ts, random-operations.test.ts),
 * while the store lags, wavers, resurrects, acts late, loses answers, breaks connections, cuts and flips bytes, refuses tokens and storms. Longer:
 * `npm run soak:crash -- --backend hostile`.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { bytesFromBackend, drained } from '../backends/cold-restart.ts';
import { Campaign, type EndPlan } from '../crash/campaign.ts';
import { crashSettings } from '../crash/crash-settings.ts';
import { allWell } from '../faults/problem.ts';
import { connectPatiently, Patience } from '../patient-client.ts';
import { randomRounds, TIGHT_SETTINGS } from '../random-rounds.ts';
import { RegisterLoad } from '../register-load.ts';
import { RouterProcess } from '../router-process.ts';
import type { StoreClient } from '../store-client.ts';
import { stackOf } from '../test-stack.ts';
import { HostileStore } from './hostile-store.ts';
import { HOSTILE_WEATHER } from './weather.ts';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));

test('kills over a hostile store lose nothing that was acknowledged; in good weather everything goes up, and fsck finds nothing', async (t) => {
  t.diagnostic(`SEED=${SEED}`);
  const hostile = stackOf(t).use(await HostileStore.start(SEED));
  const router = await RouterProcess.createForTest(t, { environment: { ...crashSettings, ...hostile.environment } });
  const plans: EndPlan[] = [{ kind: 'random' }, { kind: 'fail-point', name: 'root.before-update', hit: 2 }, { kind: 'stop' }];
  // The vPool is made in good weather: the probe, which measures lags and works around failures, would take half a minute.
  await router.start();
  await router.stop();
  hostile.setFaults(HOSTILE_WEATHER);
  const patience = new Patience();
  const campaign = new Campaign({
    router,
    seed: SEED,
    plans,
    patienceMs: 8000,
    progress: (line) => t.diagnostic(line),
    connect: (address, options) => connectPatiently(address, options, patience),
  });
  const result = await campaign.run();
  assert.deepEqual(result.violations, [], `SEED=${SEED}`);
  assert.equal(result.kills, plans.length);
  assert.ok(result.operations > 200, `only ${result.operations} operations`);

  hostile.setFaults({});
  await drained(router);
  await router.waitForReadyz(allWell);
  await router.stop();
  const checked = await router.fsck();
  assert.equal(checked.code, 0, `SEED=${SEED}\n${checked.output}\n${requestsFor(checked.output, hostile)}`);
  t.diagnostic(
    `${result.operations} operations, ${patience.times} times JUKEBOX, ${hostile.server.seen.length} requests, ${hostile.server.seen.filter(({ status }) => status === 0 || status >= 400).length} of them failed`,
  );
});

/** What was asked of the store for the segments that fsck names: whether we or the store lost them. */
function requestsFor(output: string, { server }: HostileStore): string {
  const names = new Set(output.match(/seg-[0-9a-f-]+/g));
  return server.seen
    .filter(({ url }) => names.has(url.split('/').at(-1) ?? ''))
    .map(({ atMs, method, url, status, bodyBytes }) => `${Math.round(atMs)} ${method} ${url} ${status} ${bodyBytes}`)
    .join('\n');
}

test('random operations, restarts and kills over a hostile store leave what the models say', async (t) => {
  t.diagnostic(`SEED=${SEED}`);
  const hostile = stackOf(t).use(await HostileStore.start(SEED));
  const router = await RouterProcess.forTest(t, { environment: { ...TIGHT_SETTINGS, ...hostile.environment } });
  hostile.setFaults(HOSTILE_WEATHER);
  const operations = await randomRounds({
    router,
    seed: SEED,
    rounds: 2,
    roundMs: 2000,
    fairWeather: { begin: () => hostile.setFaults({}), end: () => hostile.setFaults(HOSTILE_WEATHER) },
  });
  t.diagnostic(`${operations} operations, ${hostile.server.seen.length} requests`);
});

test('many requests at once on overlapping blocks see only what registers can show, though blocks come from a hostile store', async (t) => {
  t.diagnostic(`SEED=${SEED}`);
  const hostile = stackOf(t).use(await HostileStore.start(SEED));
  const router = await RouterProcess.forTest(t, { environment: { ...TIGHT_SETTINGS, ...hostile.environment } });
  const patience = new Patience();
  const clients: StoreClient[] = [];
  for (let index = 0; index < 4; index += 1) clients.push(stackOf(t).use(await connectPatiently(router, { timeoutMs: 240_000 }, patience)));
  const [first] = clients;
  assert.ok(first !== undefined);
  const load = await RegisterLoad.create(first, SEED);
  hostile.setFaults(HOSTILE_WEATHER);
  await load.run(clients, 16, 1000);
  // Now it is on the backend, and next to nothing of it here.
  await drained(router);
  await load.run(clients, 16, 200);
  await load.commit(first);
  const readBytes = await bytesFromBackend(router);
  assert.ok(readBytes > 30_000, `only ${readBytes} bytes came from the backend`);
  await router.kill();
  // What was read in that weather was judged; the rest may be read faster.
  hostile.setFaults({});
  await router.start();
  const again = stackOf(t).use(await connectPatiently(router, { timeoutMs: 240_000 }, patience));
  await load.check(again);
  t.diagnostic(`${readBytes} bytes from the backend, ${patience.times} times JUKEBOX, ${hostile.server.seen.length} requests`);
});
