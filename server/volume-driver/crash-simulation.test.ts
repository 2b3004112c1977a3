/** The whole engine of an object against the dumb model (testing/crash-simulation.ts). `SEEDS=17,300-400` replays histories. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { fuzzCrashes } from './crash-simulation.fuzz.ts';
import { simulate } from './testing/crash-simulation.ts';
import type { SimulationOutcome } from './testing/crash-simulation.ts';

const SEEDS = process.env['SEEDS'] ?? '1-60';

function seeds(text: string): number[] {
  return text.split(',').flatMap((part) => {
    const [from = NaN, to = from] = part.split('-').map(Number);
    assert.ok(to >= from, `SEEDS: ${part} is no seed and no range`);
    return Array.from({ length: to - from + 1 }, (_, index) => from + index);
  });
}

test('whatever crashes and faults come, what was acknowledged is there, untorn, and the verifier tells of the rest', async () => {
  const total: SimulationOutcome = { lives: 0, writes: 0, refused: 0, crashes: 0, verifierChanges: 0, uploads: 0 };
  for (const seed of seeds(SEEDS)) {
    let outcome: SimulationOutcome;
    try {
      outcome = await simulate(seed);
    } catch (error) {
      throw new Error(`SEEDS=${seed}: ${String(error)}`, { cause: error });
    }
    for (const key of Object.keys(total) as (keyof SimulationOutcome)[]) total[key] += outcome[key];
  }
  await fuzzCrashes(1_000_000, 20);
  // A simulation in which nothing happens proves nothing.
  for (const [what, count] of Object.entries(total)) assert.ok(count > 0, `${what}: ${count}`);
});
