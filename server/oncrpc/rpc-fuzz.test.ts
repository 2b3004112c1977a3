import assert from 'node:assert/strict';
import { test } from 'node:test';

import { fuzzRpc } from './rpc.fuzz.ts';

test('damaged records, headers and credentials are answered or end the connection, and leave nothing behind', async () => {
  for (const seed of [1, 2, 3]) {
    const report = await fuzzRpc(seed, 100);
    // The run must have met both.
    assert.ok(report.replies > 100, `${report.replies} replies`);
    assert.ok(report.closedEarly > 0);
  }
});
