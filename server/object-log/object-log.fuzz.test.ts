import assert from 'node:assert/strict';
import { test } from 'node:test';

import { fuzzObjectLog } from './object-log.fuzz.ts';

test('damaged segment files never crash a recovery, and never become records that nobody wrote', async () => {
  const outcome = await fuzzObjectLog(20_261_122, 400);
  assert.ok(outcome.found > 40 && outcome.damaged > 40, JSON.stringify(outcome));
});
