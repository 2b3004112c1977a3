/** `npm run sim -- [--seeds N] [--from S] [--profile faults|calm|steps|both-killed-then-move] [--trace]`: plays histories of simulated clusters; a seed that fails prints how to play it again. */
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';

import { PROFILES } from './profiles.ts';
import { simulateCluster, SimulationFailure } from './simulation.ts';
import { tracingLogger } from './tracing-logger.ts';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '1000' },
    from: { type: 'string', default: '1' },
    profile: { type: 'string', default: 'faults' },
    trace: { type: 'boolean', default: false },
    'keep-going': { type: 'boolean', default: false },
  },
});
const profile = PROFILES.find((name) => name === values.profile);
if (profile === undefined) throw new Error(`--profile is one of ${PROFILES.join(', ')}`);
const from = Number(values.from);
const count = Number(values.seeds);
const began = performance.now();
const totals: Record<string, number> = {};
let failed = 0;

for (let seed = from; seed < from + count; seed += 1) {
  const seedBegan = performance.now();
  try {
    const outcome = await simulateCluster(seed, { profile, ...(values.trace ? { logger: tracingLogger } : {}) });
    for (const [name, value] of Object.entries(outcome)) if (typeof value === 'number') totals[name] = (totals[name] ?? 0) + value;
    for (const [name, value] of Object.entries(outcome.faults)) totals[name] = (totals[name] ?? 0) + value;
    totals['slowest ms'] = Math.max(totals['slowest ms'] ?? 0, Math.round(performance.now() - seedBegan));
  } catch (error) {
    failed += 1;
    if (error instanceof SimulationFailure) {
      if (values.trace) process.stdout.write(`${error.trace.join('\n')}\n`);
      process.stdout.write(`seed ${seed}: ${error.message}\n`);
    } else process.stdout.write(`seed ${seed}: ${error instanceof Error ? error.stack : String(error)}\n`);
    process.stdout.write(`  again: npm run sim -- --seeds 1 --from ${seed}${profile === 'faults' ? '' : ` --profile ${profile}`} --trace\n`);
    if (!values['keep-going']) break;
  }
}

const seconds = (performance.now() - began) / 1000;
process.stdout.write(
  `${JSON.stringify({ seconds: Math.round(seconds), failed, memoryMiB: Math.round(process.memoryUsage().rss / 2 ** 20), ...totals })}\n`,
);
process.exitCode = failed > 0 ? 1 : 0;
