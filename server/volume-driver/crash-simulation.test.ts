/** The whole engine of an object against the dumb model (testing/crash-simulation.ts). `SEEDS=17,300-400` replays histories. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { fuzzCrashes } from './crash-simulation.fuzz.ts';
import { simulate } from './testing/crash-simulation.ts';
import type { SimulatedBackend, SimulationOutcome } from './testing/crash-simulation.ts';

const { SEEDS } = process.env;

function seeds(text: string): number[] {
  return text.split(',').flatMap((part) => {
    const [from = NaN, to = from] = part.split('-').map(Number);
    assert.ok(to >= from, `SEEDS: ${part} is no seed and no range`);
    return Array.from({ length: to - from + 1 }, (_, index) => from + index);
  });
}

async function histories(list: readonly number[], backend: SimulatedBackend): Promise<void> {
  const total: SimulationOutcome = { lives: 0, writes: 0, refused: 0, crashes: 0, verifierChanges: 0, uploads: 0 };
  for (const seed of list) {
    let outcome: SimulationOutcome;
    try {
      outcome = await simulate(seed, backend);
    } catch (error) {
      throw new Error(`SEEDS=${seed}, ${backend} backend: ${String(error)}`, { cause: error });
    }
    for (const key of Object.keys(total) as (keyof SimulationOutcome)[]) total[key] += outcome[key];
  }
  // A simulation in which nothing happens proves nothing.
  for (const [what, count] of Object.entries(total)) assert.ok(count > 0, `${what}: ${count}`);
}

test('whatever crashes and faults come, what was acknowledged is there, untorn, and the verifier tells of the rest', async () => {
  await histories(seeds(SEEDS ?? '1-60'), 'plain');
  await fuzzCrashes(1_000_000, 20);
});

test('the same over a store that lags, wavers, forgets, resurrects, acts late, lies about bytes and storms; no client gets more than JUKEBOX for it', async () => {
  await histories(seeds(SEEDS ?? '1-40'), 'hostile');
});
