import assert from 'node:assert/strict';
import { test } from 'node:test';

import { fuzzNfsd } from './nfsd.fuzz.ts';

for (const seed of [1, 2, 3]) {
  test(`20,000 mutated calls of NFS, MOUNT and port mapper are answered or refused, seed ${seed}`, () => {
    const outcome = fuzzNfsd(seed, 20_000);
    // Half-broken messages get through, and broken ones do not: both ways were taken often.
    assert.ok(
      outcome.succeeded > 1000 && outcome.garbage > 1000 && outcome.refused > 10 && outcome.answered > outcome.succeeded + 1000,
      JSON.stringify(outcome),
    );
    assert.equal(outcome.answered + outcome.garbage + outcome.refused, 20_000);
  });
}

test('the same seed is the same run', () => {
  assert.deepEqual(fuzzNfsd(99, 500), fuzzNfsd(99, 500));
});
