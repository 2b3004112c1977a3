/**
 * `npm run soak:crash -- --kills 200 --seed S`: the crash test for as long as you like. Of six ends three are kills at fail points in turn, then come a kill
 * at a random time, a power cut and a stop under load. Prints the seed first; ends with fsck; exits 1 on a violation or when a fail point was never reached in a run that visits all of them.
 */
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { FAIL_POINTS } from '../../server/core/fail-points.ts';
import { Campaign, type EndPlan } from '../crash/campaign.ts';
import { crashSettings } from '../crash/crash-settings.ts';
import { smallDisk } from '../faults/small-disk.ts';
import { SeededRandom } from '../random.ts';
import { RouterProcess } from '../router-process.ts';

const { values } = parseArgs({ options: { kills: { type: 'string', default: '200' }, seed: { type: 'string' } } });
const kills = Number(values.kills);
const seed = Number(values.seed ?? Math.floor(Math.random() * 0x1_0000_0000));
if (!Number.isSafeInteger(kills) || kills < 1 || !Number.isSafeInteger(seed)) throw new Error('--kills and --seed are whole numbers');
console.log(`seed ${seed}, ${kills} kills`);

const random = new SeededRandom(seed);
let nextPoint = 0;
const plans = Array.from({ length: kills }, (_, index): EndPlan => {
  const name = FAIL_POINTS[nextPoint % FAIL_POINTS.length];
  if (index % 6 === 1) return { kind: 'random' };
  if (index % 6 === 3) return { kind: 'power-cut' };
  if (index % 6 === 5) return { kind: 'stop' };
  nextPoint += 1;
  // Deep hits come under load, the first ones often in the start already.
  return { kind: 'fail-point', name: name ?? 'log.before-write', hit: random.chance(0.5) ? random.between(1, 3) : random.between(4, 40) };
});

await using stack = new AsyncDisposableStack();
const disk = await smallDisk(stack, 4096);
const router = stack.use(
  await RouterProcess.create({ dataDirectory: join(disk.path, 'data'), prefix: disk.namespace.prefix, environment: crashSettings }),
);
const started = performance.now();
const result = await new Campaign({ router, seed, plans, disk, patienceMs: 10_000, progress: (line) => console.log(line) }).run();

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
  for (const violation of result.violations) console.error(`VIOLATION ${violation}`);
  if (damage !== '') console.error(`fsck:\n${damage}`);
  if (missed.length > 0) console.error(`never hit: ${missed.join(', ')}`);
  console.error(`again: npm run soak:crash -- --kills ${kills} --seed ${seed}\n${router.logTail()}`);
  process.exitCode = 1;
} else {
  console.log('nothing acknowledged was lost, nothing was torn');
}
