/** The crash campaign with its objects on a given backend, ended by a start that has nothing but the backend to read from, and by fsck. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';

import { Campaign, type EndPlan } from '../crash/campaign.ts';
import { crashSettings } from '../crash/crash-settings.ts';
import { RouterProcess } from '../router-process.ts';
import type { Backend } from './backend-fixture.ts';
import { bytesFromBackend, coldRestart } from './cold-restart.ts';

/** Kills where the backend has a part in it, at random times between them. */
export const BACKEND_PLANS: readonly EndPlan[] = [
  { kind: 'random' },
  { kind: 'fail-point', name: 'upload.after-put', hit: 5 },
  { kind: 'fail-point', name: 'root.before-update', hit: 3 },
  { kind: 'random' },
  { kind: 'fail-point', name: 'checkpoint.after-put', hit: 3 },
  { kind: 'stop' },
  { kind: 'fail-point', name: 'reclaim.after-delete', hit: 2 },
  { kind: 'fail-point', name: 'upload.before-put', hit: 8 },
];

export interface CampaignOverOptions {
  readonly backend: Backend;
  readonly vpool: string;
  readonly seed: number;
  readonly plans?: readonly EndPlan[];
  /** More settings. */
  readonly environment?: Readonly<Record<string, string>>;
}

/** Returns the router, ready: its data is verified, by reads from the backend. */
export async function campaignOver(t: TestContext, options: CampaignOverOptions): Promise<void> {
  const { backend, vpool, seed, plans = BACKEND_PLANS } = options;
  const environment = { ...crashSettings, ...backend.environment(), ...options.environment };
  const router = await RouterProcess.createForTest(t, { vpool, environment });
  const campaign = new Campaign({ router, seed, plans, progress: (line) => t.diagnostic(line) });
  const result = await campaign.run();
  assert.deepEqual(result.violations, [], `seed ${seed}`);
  assert.equal(result.kills, plans.length);
  assert.ok(result.operations > plans.length * 30, `only ${result.operations} operations`);

  await coldRestart(router);
  assert.deepEqual(await campaign.verify(), [], 'read back from the backend');
  const readBytes = await bytesFromBackend(router);
  assert.ok(readBytes > 1024 * 1024, `only ${readBytes} bytes came from the backend: this verification proved nothing`);
  t.diagnostic(`${result.kills} ends, ${result.operations} acknowledged operations, ${readBytes} bytes read back from the backend`);

  await router.stop();
  const checked = await router.fsck();
  assert.equal(checked.code, 0, checked.output);
}
