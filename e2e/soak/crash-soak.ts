/**
 * `npm run soak:crash -- --kills 200 --seed S`: the crash test for as long as you like. Two kills in three are at fail points in turn, one at a random time.
 * Prints the seed first; exits 1 on a violation or when a fail point was never reached in a run that visits all of them.
 */
import { parseArgs } from 'node:util';

import { FAIL_POINTS } from '../../server/core/fail-points.ts';
import { Campaign, type KillPlan } from '../crash/campaign.ts';
import { crashSettings } from '../crash/crash-settings.ts';
import { SeededRandom } from '../random.ts';
import { RouterProcess } from '../router-process.ts';
import { scratchDirectory } from '../scratch.ts';

const { values } = parseArgs({ options: { kills: { type: 'string', default: '200' }, seed: { type: 'string' } } });
const kills = Number(values.kills);
const seed = Number(values.seed ?? Math.floor(Math.random() * 0x1_0000_0000));
if (!Number.isSafeInteger(kills) || kills < 1 || !Number.isSafeInteger(seed)) throw new Error('--kills and --seed are whole numbers');
console.log(`seed ${seed}, ${kills} kills`);

const random = new SeededRandom(seed);
let nextPoint = 0;
const plans = Array.from({ length: kills }, (_, index): KillPlan => {
  const name = FAIL_POINTS[nextPoint % FAIL_POINTS.length];
  if (index % 3 === 2 || name === undefined) return { kind: 'random' };
  nextPoint += 1;
  return { kind: 'fail-point', name, hit: random.between(1, 4) };
});

await using scratch = await scratchDirectory('crash-soak');
await using router = await RouterProcess.create({ dataDirectory: scratch.path, environment: crashSettings });
const started = performance.now();
const result = await new Campaign({ router, seed, plans, progress: (line) => console.log(line) }).run();

console.log(`${result.kills} kills, ${result.operations} acknowledged operations, ${Math.round((performance.now() - started) / 1000)} s`);
for (const name of FAIL_POINTS) console.log(`  ${name}: ${result.hits.get(name) ?? 0}`);
const missed = nextPoint >= FAIL_POINTS.length ? FAIL_POINTS.filter((name) => !result.hits.has(name)) : [];
if (result.violations.length > 0 || missed.length > 0) {
  for (const violation of result.violations) console.error(`VIOLATION ${violation}`);
  if (missed.length > 0) console.error(`never hit: ${missed.join(', ')}`);
  console.error(`again: npm run soak:crash -- --kills ${kills} --seed ${seed}\n${router.logTail()}`);
  process.exitCode = 1;
} else {
  console.log('nothing acknowledged was lost, nothing was torn');
}
