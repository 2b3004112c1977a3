import assert from 'node:assert/strict';
import { test } from 'node:test';

import { type BackendScore, backendTable, type BackendTraffic, missedGoals } from './backend-score.ts';

const GIB = 2 ** 30;

function traffic(change: Partial<BackendTraffic>): BackendTraffic {
  return { puts: 0, gets: 0, heads: 0, others: 0, writtenBytes: 0, readBytes: 0, ...change };
}

/** Exactly at every goal. */
function atTheGoals(): BackendScore {
  const write = {
    guestBytes: GIB,
    operationsPerSecond: 1,
    megabytesPerSecond: 1,
    drainMs: 1,
    traffic: traffic({ puts: 270 }),
    storedBytes: GIB * 1.05,
  };
  return {
    name: 'swift',
    sequentialWrite: write,
    sequentialRead: { megabytesPerSecond: 80, plainMegabytesPerSecond: 100, guestBytes: GIB, traffic: traffic({}) },
    randomRead: { operations: 10, operationsPerSecond: 1, p50Us: 1, p99Us: 1, traffic: traffic({ readBytes: 655_360 }) },
    randomWrite: write,
    uploadEffect: { writeP99Us: 100, writeP99UploadingUs: 200, readP99Us: 10, readP99UploadingUs: null, uploadMegabytesPerSecond: 1 },
  };
}

test('what reaches its goals exactly misses none; a figure without an upload beside it is no miss', () => {
  assert.deepEqual(missedGoals([atTheGoals()]), []);
  assert.doesNotMatch(backendTable([atTheGoals()]), /missed/);
});

test('each goal that is missed is told once, with the backend and the row', () => {
  const good = atTheGoals();
  const worse: BackendScore = {
    ...good,
    sequentialWrite: { ...good.sequentialWrite, traffic: traffic({ puts: 271 }), storedBytes: GIB * 1.06 },
    sequentialRead: { ...good.sequentialRead, megabytesPerSecond: 79 },
    randomRead: { ...good.randomRead, traffic: traffic({ readBytes: 655_370 }) },
    uploadEffect: { ...good.uploadEffect, writeP99UploadingUs: 201 },
  };
  const missed = missedGoals([good, { ...worse, name: 's3' }]);
  assert.equal(missed.length, 5);
  for (const line of missed) assert.match(line, /^s3: /);
  assert.match(missed.join('\n'), /sequential write .* PUTs per GiB/);
  assert.equal(backendTable([good, worse]).match(/missed/g)?.length, 5);
});
