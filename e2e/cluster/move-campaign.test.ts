/** Something bad at every step of a move (move-campaign.ts). Every harm at every step, and longer stops: `npm run soak:cluster -- --only harm`. */
import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';

import { MOVE_FAIL_POINTS } from '../../server/core/fail-points.ts';
import type { Backend } from '../backends/backend-fixture.ts';
import { HostileStore } from '../hostile-store/hostile-store.ts';
import { stackOf } from '../test-stack.ts';
import { Cluster, thresholds } from './cluster.ts';
import { keepEvidence } from './evidence.ts';
import { MoveCampaign, type MovePlan } from './move-campaign.ts';
import { HARMS } from './move-harms.ts';

const SETTINGS = { VFERRY_LOG_SEGMENT_BYTES: '4MiB', VFERRY_LOG_SEAL_AFTER_MS: '300ms', VFERRY_LOG_CHECKPOINT_AFTER_BYTES: '16MiB' };

async function campaign(t: TestContext, seed: number, plans: readonly MovePlan[], pauseMs = 0): Promise<void> {
  const store = stackOf(t).use(await HostileStore.start(seed));
  const backend: Backend = { name: 'swift', port: null, environment: () => store.environment, store: null };
  const cluster = await Cluster.createForTest(t, {
    backend,
    cuttable: true,
    cluster: { ...thresholds(0), cooldownMs: 0 },
    environment: SETTINGS,
  });
  const run = new MoveCampaign({ cluster, store, seed, plans, pauseMs, progress: (line) => t.diagnostic(line) });
  try {
    const result = await run.run();
    t.diagnostic(`${result.operations} operations, the longest ${Math.round(result.longestMs)} ms`);
    const missed = plans.map(({ point, harm }) => `${point} ${harm}`).filter((name) => !result.hit.has(name));
    assert.deepEqual(missed, [], 'steps that were never reached');
  } catch (error) {
    // All of the logs and disks: what goes wrong here is rare.
    const kept = join(tmpdir(), 'vferry-violations', `move-campaign-${seed}-${Date.now()}`);
    await keepEvidence(kept, cluster, error, [`seed ${seed}`, ...plans.map(({ point, harm }) => `${point} ${harm}`)]);
    t.diagnostic(`kept in ${kept}`);
    throw error;
  }
}

test('kill -9 at every step of a move, of giver and receiver: one owner, running, nothing acknowledged lost', async (t) => {
  await campaign(
    t,
    20_261_101,
    MOVE_FAIL_POINTS.map((point) => ({ point, harm: 'kill' })),
  );
});

/** At each step one of them, so that each comes at two or three. */
const OTHERS = HARMS.filter((harm) => harm !== 'kill' && harm !== 'stop:60');
const ROTATED = MOVE_FAIL_POINTS.map((point, index): MovePlan => ({ point, harm: OTHERS[(index * 5 + 3) % OTHERS.length] ?? 'error' }));

test('other things that go wrong at every step of a move, each at some: one owner, running, nothing acknowledged lost', async (t) => {
  // Side by side, since most of it is waiting.
  await Promise.all(
    [0, 1].map((half) =>
      campaign(
        t,
        20_261_102 + half,
        ROTATED.filter((_, index) => index % 2 === half),
        5,
      ),
    ),
  );
  assert.deepEqual(
    OTHERS.filter((harm) => !ROTATED.some((plan) => plan.harm === harm)),
    [],
  );
});
