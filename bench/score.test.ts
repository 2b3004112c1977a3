import assert from 'node:assert/strict';
import { test } from 'node:test';

import { CASES } from './cases.ts';
import type { CaseScore, Score } from './score.ts';
import { isGeneratorTooSlow, judge, median, table } from './score.ts';

const WRITE_32 = CASES.find((one) => one.name === 'write-32')!;

function score(operationsPerSecond: number, p99Us: number): Score {
  return {
    operationsPerSecond,
    megabytesPerSecond: 1,
    p50Us: 1,
    p99Us,
    maxUs: 2000,
    generatorPercent: 10,
    spread: [operationsPerSecond, operationsPerSecond],
  };
}

function caseScore(vferry: Score | null, ganesha: Score | null): CaseScore {
  return { bench: WRITE_32, vferry, ganesha, ceiling: score(100_000, 1), unsettledRounds: 0, foreignPercent: 0 };
}

test('a goal is missed by the ratio or by the p99 at 32 outstanding', () => {
  assert.deepEqual(judge(caseScore(score(50_000, 900), score(10_000, 1000))).missed, []);
  assert.deepEqual(judge(caseScore(score(49_000, 900), score(10_000, 1000))).missed, ['ratio 4.90 < 5']);
  assert.deepEqual(judge(caseScore(score(50_000, 1100), score(10_000, 1000))).missed, ["p99 1.10 times Ganesha's"]);
});

test('without a peer there is no verdict', () => {
  assert.deepEqual(judge(caseScore(score(1, 1), null)), { ratio: null, p99Ratio: null, missed: [] });
});

test('a ceiling near what was measured is pointed out', () => {
  assert.equal(isGeneratorTooSlow(caseScore(score(90_000, 1), null)), true);
  assert.equal(isGeneratorTooSlow(caseScore(score(50_000, 1), null)), false);
});

test('the median of an even number of rounds is between the middle two', () => {
  assert.equal(median([4, 1, 3, 2]), 2.5);
  assert.equal(median([9, 1, 5]), 5);
});

test('every row of the table has a cell for every column', () => {
  const lines = table([caseScore(score(1, 1), null), caseScore(score(1, 1), score(1, 1))]).split('\n');
  assert.deepEqual(new Set(lines.map((line) => line.split('|').length)).size, 1);
});
