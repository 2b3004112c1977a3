/**
 * The promise of the whole project: what was acknowledged is there after a kill -9, whenever it comes. Long version: `npm run soak:crash`.
 * The router keeps its defaults but for sizes and times that would let segments, checkpoints and deletions happen only in hours.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';

import { FAIL_POINTS } from '../../server/core/fail-points.ts';
import { type SmallDisk, smallDisk } from '../faults/small-disk.ts';
import { SeededRandom } from '../random.ts';
import { RouterProcess } from '../router-process.ts';
import { stackOf } from '../test-stack.ts';
import { Campaign, type CampaignResult, type EndPlan, everyFailPoint } from './campaign.ts';
import { crashSettings } from './crash-settings.ts';

async function campaign(t: TestContext, seed: number, plans: readonly EndPlan[], disk?: SmallDisk): Promise<CampaignResult> {
  const router = await RouterProcess.createForTest(t, {
    environment: crashSettings,
    ...(disk === undefined ? {} : { dataDirectory: join(disk.path, 'data'), prefix: disk.namespace.prefix }),
  });
  const result = await new Campaign({ router, seed, plans, progress: (line) => t.diagnostic(line), ...(disk === undefined ? {} : { disk }) }).run();
  assert.deepEqual(result.violations, [], `seed ${seed}`);
  t.diagnostic(`${result.kills} ends, ${result.operations} acknowledged operations, ${result.losses} times UNSTABLE data went along`);
  await router.stop();
  const checked = await router.fsck();
  assert.equal(checked.code, 0, checked.output);
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

test('power cuts, which take along all that was not synced, lose nothing that was acknowledged as stable; stops under load lose nothing at all', async (t) => {
  const disk = await smallDisk(stackOf(t), 2048);
  const plans: EndPlan[] = Array.from({ length: 9 }, (_, index) => ({ kind: index % 3 === 2 ? 'stop' : 'power-cut' }));
  const result = await campaign(t, 20_260_104, plans, disk);
  assert.equal(result.kills, 9);
});
