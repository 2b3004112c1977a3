/**
 * `npm run soak:crash -- --kills 200 --seed S --backend B`: the crash test for as long as you like, over a directory, a hostile Swift (`hostile`), a real one (`swift`) or Ceph (`s3`). Of six
 * ends three are kills at fail points in turn, then come a kill at a random time, a power cut and a stop under load. Prints the seed first; ends with fsck; exits 1 on a violation or when a fail point was never reached in a run that visits all of them.
 */
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { DirectoryStore } from '../../backends/directory/directory-store.ts';
import { FAIL_POINTS } from '../../server/core/fail-points.ts';
import { type Backend, directoryBackend, startCeph, startSwift } from '../backends/backend-fixture.ts';
import { drained } from '../backends/cold-restart.ts';
import { Campaign, type EndPlan } from '../crash/campaign.ts';
import { crashSettings } from '../crash/crash-settings.ts';
import { allWell } from '../faults/problem.ts';
import { smallDisk } from '../faults/small-disk.ts';
import { ChangingWeather } from '../hostile-store/changing-weather.ts';
import { HostileStore } from '../hostile-store/hostile-store.ts';
import { connectPatiently } from '../patient-client.ts';
import { SeededRandom } from '../random.ts';
import { RouterProcess } from '../router-process.ts';
import { scratchDirectory } from '../scratch.ts';

const { values } = parseArgs({
  options: { kills: { type: 'string', default: '200' }, seed: { type: 'string' }, backend: { type: 'string', default: 'directory' } },
});
if (!['directory', 'hostile', 'swift', 's3'].includes(values.backend)) throw new Error('--backend is directory, hostile, swift or s3');
const overHostile = values.backend === 'hostile';
const kills = Number(values.kills);
const seed = Number(values.seed ?? Math.floor(Math.random() * 0x1_0000_0000));
if (!Number.isSafeInteger(kills) || kills < 1 || !Number.isSafeInteger(seed)) throw new Error('--kills and --seed are whole numbers');
console.log(`seed ${seed}, ${kills} kills, ${values.backend} backend`);

const random = new SeededRandom(seed);
let nextPoint = 0;
const plans = Array.from({ length: kills }, (_, index): EndPlan => {
  const name = FAIL_POINTS[nextPoint % FAIL_POINTS.length];
  if (index % 6 === 1) return { kind: 'random' };
  // In a network namespace of its own, where the disk is, the router would not see a Swift in this process.
  if (index % 6 === 3) return { kind: overHostile ? 'random' : 'power-cut' };
  if (index % 6 === 5) return { kind: 'stop' };
  nextPoint += 1;
  // Deep hits come under load, the first ones often in the start already.
  return { kind: 'fail-point', name: name ?? 'log.before-write', hit: random.chance(0.5) ? random.between(1, 3) : random.between(4, 40) };
});

await using stack = new AsyncDisposableStack();
const told = (line: string): void => console.log(line);
const started = performance.now();
const { router, campaign, calm } = overHostile ? await hostileCampaign() : await friendlyCampaign();
const result = await campaign.run();
for (const violation of result.violations) console.error(`VIOLATION ${violation}`);
if (result.violations.length === 0) await calm();

console.log(
  `${result.kills} kills, ${result.operations} acknowledged operations, ${result.losses} times UNSTABLE data went along, ${Math.round((performance.now() - started) / 1000)} s`,
);
for (const name of FAIL_POINTS) console.log(`  ${name}: ${result.hits.get(name) ?? 0}`);
let damage = '';
if (result.violations.length === 0) {
  await router.stop();
  const checked = await router.fsck();
  if (checked.code !== 0) damage = checked.output;
}
const missed = nextPoint >= FAIL_POINTS.length ? FAIL_POINTS.filter((name) => !result.hits.has(name)) : [];
if (result.violations.length > 0 || missed.length > 0 || damage !== '') {
  if (damage !== '') console.error(`fsck:\n${damage}`);
  if (missed.length > 0) console.error(`never hit: ${missed.join(', ')}`);
  console.error(`again: npm run soak:crash -- --kills ${kills} --seed ${seed} --backend ${values.backend}\n${router.logTail()}`);
  process.exitCode = 1;
} else {
  console.log('nothing acknowledged was lost, nothing was torn');
}

interface Prepared {
  readonly router: RouterProcess;
  readonly campaign: Campaign;
  /** Ends what makes the backend bad, and waits until it has everything. */
  calm(): Promise<void>;
}

async function friendlyCampaign(): Promise<Prepared> {
  const disk = await smallDisk(stack, 4096);
  const backend = await backendOf(values.backend);
  const soaked = stack.use(
    await RouterProcess.create({
      dataDirectory: join(disk.path, 'data'),
      prefix: disk.namespace.prefix,
      environment: { ...crashSettings, ...backend.environment() },
    }),
  );
  return { router: soaked, campaign: new Campaign({ router: soaked, seed, plans, disk, patienceMs: 10_000, progress: told }), calm: async () => {} };
}

async function hostileCampaign(): Promise<Prepared> {
  const scratch = stack.use(await scratchDirectory('soak')).path;
  const objects = new DirectoryStore({ kind: 'directory', path: join(scratch, 'objects'), vpoolUuid: '0'.repeat(32), initialize: true });
  const hostile = stack.use(await HostileStore.start(seed, objects));
  const environment = { ...crashSettings, ...hostile.environment };
  const soaked = stack.use(await RouterProcess.create({ dataDirectory: join(scratch, 'data'), environment }));
  await soaked.start();
  await soaked.stop();
  const weather = stack.use(new ChangingWeather(hostile, seed, told));
  return {
    router: soaked,
    campaign: new Campaign({ router: soaked, seed, plans, patienceMs: 10_000, progress: told, connect: connectPatiently }),
    calm: async () => {
      await weather[Symbol.asyncDispose]();
      if (!soaked.running) return;
      await drained(soaked, 120_000);
      await soaked.waitForReadyz(allWell);
      console.log(
        `${hostile.server.seen.length} of the last requests: ${hostile.server.seen.filter(({ status }) => status === 0 || status >= 400).length} failed`,
      );
    },
  };
}

async function backendOf(name: string): Promise<Backend> {
  if (name === 'swift') return await startSwift(stack);
  return name === 's3' ? await startCeph(stack) : directoryBackend;
}
