/** Random operations, restarts and kills (random-rounds.ts). `SEED=n` repeats a run's choices, `ROUNDS=n` makes it longer. */
import { test } from 'node:test';

import { randomRounds, TIGHT_SETTINGS } from './random-rounds.ts';
import { RouterProcess } from './router-process.ts';

const ROUNDS = Number(process.env['ROUNDS'] ?? 3);
const ROUND_MS = Number(process.env['ROUND_MS'] ?? 1500);
const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));

for (const hardLinks of ['true', 'false']) {
  test(`random operations, restarts and kills leave what the models say (hardLinks ${hardLinks})`, async (t) => {
    t.diagnostic(`SEED=${SEED}`);
    const router = await RouterProcess.forTest(t, { environment: { ...TIGHT_SETTINGS, VFERRY_VPOOL_BACKEND_HARD_LINKS: hardLinks } });
    const operations = await randomRounds({ router, seed: SEED, rounds: ROUNDS, roundMs: ROUND_MS });
    t.diagnostic(`${operations} operations`);
  });
}
