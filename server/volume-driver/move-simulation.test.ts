/** An object that moves between routers against the dumb model (testing/move-simulation.ts). `SEEDS=17,300-400` replays histories. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { simulateMoves } from './testing/move-simulation.ts';
import type { MoveOutcomes } from './testing/move-simulation.ts';

const { SEEDS } = process.env;

function seeds(text: string): number[] {
  return text.split(',').flatMap((part) => {
    const [from = NaN, to = from] = part.split('-').map(Number);
    assert.ok(to >= from, `SEEDS: ${part} is no seed and no range`);
    return Array.from({ length: to - from + 1 }, (_, index) => from + index);
  });
}

test('wherever an object moves, and whatever goes wrong on the way, what was acknowledged is there, once, and nothing is refused for it', async () => {
  const total: Partial<Record<keyof MoveOutcomes, number>> = {};
  for (const seed of seeds(SEEDS ?? '1-30')) {
    try {
      for (const [what, count] of Object.entries(await simulateMoves(seed)) as [keyof MoveOutcomes, number][])
        total[what] = (total[what] ?? 0) + count;
    } catch (error) {
      throw new Error(`SEEDS=${seed}: ${String(error)}`, { cause: error });
    }
  }
  // A simulation in which nothing happens proves nothing.
  for (const [what, count] of Object.entries(total)) assert.ok(count > 0, `${what}: ${count}`);
});
