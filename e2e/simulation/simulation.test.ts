/** Histories of simulated clusters; `npm run sim` plays as many as one likes. A failure names the seed and how to play it again. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { ProfileName } from './profiles.ts';
import { type Outcome, simulateCluster, SimulationFailure } from './simulation.ts';

const CALM_SEEDS = 20;
const FAULTY_SEEDS = 150;
const STEP_SEEDS = 3;

async function play(seed: number, profile: ProfileName): Promise<Outcome> {
  try {
    return await simulateCluster(seed, { profile });
  } catch (error) {
    if (!(error instanceof SimulationFailure)) throw error;
    throw new Error(`seed ${seed}; npm run sim -- --seeds 1 --from ${seed} --profile ${profile} --trace\n${error.message}`, { cause: error });
  }
}

test('without faults objects move between routers under load, and nobody is asked to come back', async () => {
  let moves = 0;
  for (let seed = 1; seed <= CALM_SEEDS; seed += 1) moves += (await play(seed, 'calm')).ownerChanges;
  assert.ok(moves > CALM_SEEDS / 2, `objects moved ${moves} times`);
});

test('whatever fails: one owner at a time, acknowledged writes are there through every router, names are linearizable, everything runs again', async (t) => {
  const met: Record<string, number> = {};
  const sums = { ownerChanges: 0, jukeboxes: 0, retransmissions: 0, lives: 0 };
  for (let seed = 1; seed <= FAULTY_SEEDS; seed += 1) {
    const outcome = await play(seed, 'faults');
    for (const [name, count] of Object.entries(outcome.faults)) met[name] = (met[name] ?? 0) + count;
    for (const name of ['ownerChanges', 'jukeboxes', 'retransmissions', 'lives'] as const) sums[name] += outcome[name];
  }
  t.diagnostic(JSON.stringify({ ...sums, ...met }));
  assert.equal(Object.keys(met).length, 26, 'every kind of fault was met');
  assert.ok(sums.ownerChanges > FAULTY_SEEDS, 'objects changed their owner');
  assert.ok(sums.retransmissions > 5 * FAULTY_SEEDS, 'calls were sent again');
});

test('whatever happens at named steps of a move, to a volume that two hosts write to without pause: nothing acknowledged is lost', async (t) => {
  let steps = 0;
  for (let seed = 1; seed <= STEP_SEEDS; seed += 1) {
    for (const profile of ['steps', 'both-killed-then-move', 'switch'] as const) steps += (await play(seed, profile)).stepsReached;
  }
  t.diagnostic(`${steps} steps`);
  assert.ok(steps > 4 * STEP_SEEDS, `${steps} steps were reached`);
});

test('a seed is a history: played twice, every event is the same', async () => {
  for (const seed of [3, 11, 23]) assert.deepEqual(await play(seed, 'faults'), await play(seed, 'faults'));
});
