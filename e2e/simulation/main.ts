/**
 * `npm run sim -- [--seeds N] [--from S] [--profile faults|calm|steps|both-killed-then-move|switch] [--seconds N] [--keep-going] [--trace]`: plays histories of simulated
 * clusters; a seed that fails prints how to play it again. `--seconds`: of processor time, then no new one is begun.
 * `npm run sim -- --mutants [--only TEXT] [--seeds N] [--seconds N] [--tests]`: takes guards out of a copy of the sources, one at a time, and says after which seed that was found,
 * or by which unit test; `--tests`: those alone.
 */
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';

import { runMutants } from './mutation/run.ts';
import { type ProfileName, PROFILES } from './profiles.ts';
import { simulateCluster, SimulationFailure } from './simulation.ts';
import { tracingLogger } from './tracing-logger.ts';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string' },
    seconds: { type: 'string' },
    mutants: { type: 'boolean', default: false },
    tests: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
    from: { type: 'string', default: '1' },
    profile: { type: 'string', default: 'faults' },
    trace: { type: 'boolean', default: false },
    'keep-going': { type: 'boolean', default: false },
  },
});
const profile = PROFILES.find((name) => name === values.profile);
if (profile === undefined) throw new Error(`--profile is one of ${PROFILES.join(', ')}`);
const from = Number(values.from);
const print = (line: string): void => void process.stdout.write(`${line}\n`);

if (values.mutants) {
  const settings = {
    seeds: Number(values.seeds ?? 200),
    from,
    seconds: Number(values.seconds ?? 120),
    only: values.only,
    testsOnly: values.tests,
    print,
  };
  const missed = await runMutants(settings);
  print(`${missed.length} were not found`);
} else process.exitCode = await playAll(profile, Number(values.seeds ?? 1000), Number(values.seconds ?? Infinity));

/** Returns 1 if one failed. */
async function playAll(profile: ProfileName, count: number, secondsMax: number): Promise<number> {
  const began = performance.now();
  const totals: Record<string, number> = {};
  let failed = 0;
  let seed = from;
  for (; seed < from + count && cpuSeconds() < secondsMax; seed += 1) {
    const seedBegan = performance.now();
    try {
      const outcome = await simulateCluster(seed, { profile, ...(values.trace ? { logger: tracingLogger, trace: print } : {}) });
      for (const [name, value] of Object.entries(outcome)) if (typeof value === 'number') totals[name] = (totals[name] ?? 0) + value;
      for (const [name, value] of Object.entries(outcome.faults)) totals[name] = (totals[name] ?? 0) + value;
      totals['slowest ms'] = Math.max(totals['slowest ms'] ?? 0, Math.round(performance.now() - seedBegan));
    } catch (error) {
      failed += 1;
      print(
        `seed ${seed}: ${error instanceof SimulationFailure ? error.message : error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
      );
      print(`  again: npm run sim -- --seeds 1 --from ${seed}${profile === 'faults' ? '' : ` --profile ${profile}`} --trace`);
      if (!values['keep-going']) break;
    }
  }
  const seconds = (performance.now() - began) / 1000;
  const perHour = (ofSeconds: number): number => Math.round(((seed - from) / ofSeconds) * 3600);
  const memoryMiB = Math.round(process.memoryUsage().rss / 2 ** 20);
  const speed = { lastSeed: seed - 1, seconds: Math.round(seconds), seedsPerHour: perHour(seconds), seedsPerHourOfProcessor: perHour(cpuSeconds()) };
  print(JSON.stringify({ ...speed, failed, memoryMiB, ...totals }));
  return failed > 0 ? 1 : 0;
}

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}
