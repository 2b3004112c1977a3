/**
 * The promise of the whole project over a store at its worst: kills, stops and random operations as over a good one (crash.test.ts, random-operations.test.ts),
 * while the store lags, wavers, resurrects, acts late, loses answers, breaks connections, cuts and flips bytes, refuses tokens and storms. Longer:
 * `npm run soak:crash -- --backend hostile`.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { drained } from '../backends/cold-restart.ts';
import { Campaign, type EndPlan } from '../crash/campaign.ts';
import { crashSettings } from '../crash/crash-settings.ts';
import { allWell } from '../faults/problem.ts';
import { connectPatiently, Patience } from '../patient-client.ts';
import { randomRounds, TIGHT_SETTINGS } from '../random-rounds.ts';
import { RouterProcess } from '../router-process.ts';
import { stackOf } from '../test-stack.ts';
import { HostileStore } from './hostile-store.ts';
import { HOSTILE_WEATHER } from './weather.ts';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));

test('kills over a hostile store lose nothing that was acknowledged; in good weather everything goes up, and fsck finds nothing', async (t) => {
  t.diagnostic(`SEED=${SEED}`);
  const hostile = stackOf(t).use(await HostileStore.start(SEED));
  const router = await RouterProcess.createForTest(t, { environment: { ...crashSettings, ...hostile.environment } });
  const plans: EndPlan[] = [
    { kind: 'random' },
    { kind: 'fail-point', name: 'root.before-update', hit: 2 },
    { kind: 'stop' },
    { kind: 'fail-point', name: 'checkpoint.after-put', hit: 1 },
  ];
  // The vPool is made in good weather: a store that shows no object right after its put is refused, as it should be.
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
  assert.ok(result.operations > 500, `only ${result.operations} operations`);

  hostile.setFaults({});
  await drained(router);
  await router.waitForReadyz(allWell, 20_000);
  await router.stop();
  const checked = await router.fsck();
  assert.equal(checked.code, 0, checked.output);
  t.diagnostic(
    `${result.operations} operations, ${patience.times} times JUKEBOX, ${hostile.server.seen.length} requests, ${hostile.server.seen.filter(({ status }) => status === 0 || status >= 400).length} of them failed`,
  );
});

test('random operations, restarts and kills over a hostile store leave what the models say', async (t) => {
  t.diagnostic(`SEED=${SEED}`);
  const hostile = stackOf(t).use(await HostileStore.start(SEED));
  const router = await RouterProcess.forTest(t, { environment: { ...TIGHT_SETTINGS, ...hostile.environment } });
  hostile.setFaults(HOSTILE_WEATHER);
  const operations = await randomRounds({
    router,
    seed: SEED,
    rounds: 2,
    roundMs: 3000,
    fairWeather: { begin: () => hostile.setFaults({}), end: () => hostile.setFaults(HOSTILE_WEATHER) },
  });
  t.diagnostic(`${operations} operations, ${hostile.server.seen.length} requests`);
});
