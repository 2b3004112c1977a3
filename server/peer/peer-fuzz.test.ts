import assert from 'node:assert/strict';
import { test } from 'node:test';

import { fuzzPeers } from './peer.fuzz.ts';

test('damaged frames end their session or are answered; calls to a peer that answers nonsense are settled', async () => {
  for (const seed of [1, 2]) {
    const report = await fuzzPeers(seed, 600);
    // The run must have met everything.
    assert.ok(report.answers > 10 && report.closed > 10, JSON.stringify(report));
    assert.ok(report.succeeded > 10 && report.failed > 10, JSON.stringify(report));
  }
});
