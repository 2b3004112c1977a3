import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { LatencyHistogram } from './latency-histogram.ts';

test('a quantile is at most 4 % above the sample of that rank', () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: 0.001, max: 100_000, noNaN: true }), { minLength: 1, maxLength: 200 }),
      fc.double({ min: 0.01, max: 1, noNaN: true }),
      (samplesMs, fraction) => {
        const histogram = new LatencyHistogram();
        for (const ms of samplesMs) histogram.record(ms);
        const sorted = samplesMs.map((ms) => ms * 1000).toSorted((a, b) => a - b);
        const exact = sorted[Math.ceil(sorted.length * fraction) - 1]!;
        const found = histogram.quantileUs(fraction);
        assert.ok(found >= exact * 0.999_999 && found <= exact * 1.04 + 1, `${found} for ${exact}`);
      },
    ),
  );
});

test('adding histograms is recording everything in one', () => {
  const [a, b, both] = [new LatencyHistogram(), new LatencyHistogram(), new LatencyHistogram()];
  for (let ms = 0.01; ms < 300; ms *= 1.3) {
    (ms < 5 ? a : b).record(ms);
    both.record(ms);
  }
  a.add(new LatencyHistogram(b.counts, b.maxUs));
  assert.deepEqual(a.counts, both.counts);
  assert.equal(a.maxUs, both.maxUs);
});

test('an empty histogram has quantiles of 0', () => {
  assert.equal(new LatencyHistogram().quantileUs(0.99), 0);
});
