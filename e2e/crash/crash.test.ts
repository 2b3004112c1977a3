/**
 * The promise of the whole project: what was acknowledged is there after a kill -9, whenever it comes. Long version: `npm run soak:crash`.
 * The router keeps its defaults but for sizes and times that would let segments, checkpoints and deletions happen only in hours.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';

import { FAIL_POINTS } from '../../server/core/fail-points.ts';
import { SeededRandom } from '../random.ts';
import { RouterProcess } from '../router-process.ts';
import { Campaign, type KillPlan, everyFailPoint } from './campaign.ts';
import { crashSettings } from './crash-settings.ts';

async function campaign(t: TestContext, seed: number, plans: readonly KillPlan[]): Promise<Awaited<ReturnType<Campaign['run']>>> {
  const router = await RouterProcess.createForTest(t, { environment: crashSettings });
  const result = await new Campaign({ router, seed, plans, progress: (line) => t.diagnostic(line) }).run();
  assert.deepEqual(result.violations, [], `seed ${seed}`);
  t.diagnostic(`${result.kills} kills, ${result.operations} acknowledged operations`);
  return result;
}

test('a dozen kills at random times lose nothing that was acknowledged and tear nothing', async (t) => {
  const result = await campaign(
    t,
    20_260_101,
    Array.from({ length: 12 }, () => ({ kind: 'random' })),
  );
  assert.equal(result.kills, 12);
  // A run that wrote next to nothing would prove next to nothing.
  assert.ok(result.operations > 2000, `only ${result.operations} operations`);
});

test('a kill at every named fail point loses nothing that was acknowledged, and every point is reached', async (t) => {
  const random = new SeededRandom(20_260_102);
  const result = await campaign(t, 20_260_103, everyFailPoint(random, 2));
  assert.deepEqual(
    FAIL_POINTS.filter((name) => !result.hits.has(name)),
    [],
    'fail points that were never hit',
  );
});
