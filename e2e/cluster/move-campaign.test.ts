/** Something bad at every step of a move (move-campaign.ts). Every combination, and longer stops: `npm run soak:cluster`. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';

import { MOVE_FAIL_POINTS } from '../../server/core/fail-points.ts';
import type { Backend } from '../backends/backend-fixture.ts';
import { HostileStore } from '../hostile-store/hostile-store.ts';
import { stackOf } from '../test-stack.ts';
import { Cluster, thresholds } from './cluster.ts';
import { MoveCampaign, type MovePlan } from './move-campaign.ts';
import { HARMS } from './move-harms.ts';

const SETTINGS = { VFERRY_LOG_SEGMENT_BYTES: '4MiB', VFERRY_LOG_SEAL_AFTER_MS: '300ms', VFERRY_LOG_CHECKPOINT_AFTER_BYTES: '16MiB' };

async function campaign(t: TestContext, seed: number, plans: readonly MovePlan[]): Promise<void> {
  const store = stackOf(t).use(await HostileStore.start(seed));
  const backend: Backend = { name: 'swift', port: null, environment: () => store.environment, store: null };
  const cluster = await Cluster.createForTest(t, {
    backend,
    cuttable: true,
    cluster: { ...thresholds(0), cooldownMs: 0 },
    environment: SETTINGS,
  });
  const result = await new MoveCampaign({ cluster, store, seed, plans, progress: (line) => t.diagnostic(line) }).run();
  t.diagnostic(`${result.operations} operations, the longest ${Math.round(result.longestMs)} ms`);
  const missed = plans.map(({ point, harm }) => `${point} ${harm}`).filter((name) => !result.hit.has(name));
  assert.deepEqual(missed, [], 'steps that were never reached');
}

test('kill -9 at every step of a move, of giver and receiver: one owner, running, nothing acknowledged lost', async (t) => {
  await campaign(
    t,
    20_261_101,
    MOVE_FAIL_POINTS.map((point) => ({ point, harm: 'kill' })),
  );
});

test('other things that go wrong at steps of a move, each kind once: one owner, running, nothing acknowledged lost', async (t) => {
  const harms = HARMS.filter((harm) => harm !== 'kill');
  const points = MOVE_FAIL_POINTS.length;
  // Steps that are far from each other, and other ones for each kind; all combinations are the soak's.
  const plans = harms.map((harm, index) => ({ harm, point: MOVE_FAIL_POINTS[(index * 7 + 4) % points] ?? 'move.give-frozen' }));
  await campaign(t, 20_261_102, plans);
});
