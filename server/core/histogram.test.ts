import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { Histogram } from './histogram.ts';

test('cumulative counts are exact at powers of two of a microsecond, bounds inclusive', () => {
  const micros = fc.oneof(
    fc.integer({ min: 0, max: 2 ** 27 }).map((eighths) => eighths / 8),
    fc.nat({ max: 27 }).map((exponent) => 2 ** exponent),
  );
  fc.assert(
    fc.property(fc.array(micros, { maxLength: 200 }), (values) => {
      const histogram = new Histogram();
      for (const value of values) histogram.observe(value / 1000);
      assert.equal(histogram.count, values.length);
      for (let exponent = 0; exponent <= 31; exponent++) {
        assert.equal(histogram.countUpToMicros(exponent), values.filter((value) => value <= 2 ** exponent).length, `2^${exponent} µs`);
      }
    }),
  );
});

test('a quantile is never below the true one and at most half above it', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 2, max: 10_000_000 }), { minLength: 1, maxLength: 300 }),
      fc.constantFrom(0.5, 0.9, 0.99, 1),
      (values, fraction) => {
        const histogram = new Histogram();
        for (const value of values) histogram.observe(value / 1000);
        const sorted = values.toSorted((a, b) => a - b);
        const exact = (sorted[Math.ceil(sorted.length * fraction) - 1] ?? 0) / 1000;
        const found = histogram.quantileMs(fraction);
        assert.ok(found >= exact && found <= exact * 1.5, `${found} for ${exact}`);
      },
    ),
  );
});

test('clock jumps and absurd durations are counted, not lost', () => {
  const histogram = new Histogram();
  for (const value of [-5, Number.NaN, 0, Number.POSITIVE_INFINITY, 1e12]) histogram.observe(value);
  assert.equal(histogram.count, 5);
  assert.equal(histogram.countUpToMicros(0), 3);
  assert.equal(histogram.countUpToMicros(30), 3);
});

test('an empty histogram answers zeros', () => {
  const histogram = new Histogram();
  assert.deepEqual([histogram.count, histogram.sumMs, histogram.maxMs, histogram.quantileMs(0.99)], [0, 0, 0, 0]);
});
