import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { StoreOutcome } from './store-observer.ts';
import { UploadPace } from './upload-pace.ts';

const MIB = 1024 * 1024;

function ended(pace: UploadPace, startedMs: number, endedMs: number, outcome: StoreOutcome, payloadBytesMax = 16 * MIB): void {
  pace.requestDone({ kind: 'put', bucket: 'bucket', payloadBytesMax, startedMs }, outcome, 0, endedMs - startedMs);
}

/** Uploads of 16 MiB, always as many as allowed, over a link and streams of given speeds (MiB/s); the limit after each second of `seconds`. */
function simulate(
  pace: UploadPace,
  seconds: number,
  linkSpeed: number,
  streamSpeed: number,
): { limits: number[]; firstMs: number; doneBytes: number } {
  let running: { startedMs: number; leftBytes: number }[] = [];
  const limits: number[] = [];
  let [firstMs, doneBytes] = [Infinity, 0];
  for (let nowMs = 0; nowMs < seconds * 1000; nowMs += 100) {
    while (running.length < pace.limit) running.push({ startedMs: nowMs, leftBytes: 16 * MIB });
    const each = (Math.min(streamSpeed, linkSpeed / running.length) * MIB) / 10;
    for (const upload of running) upload.leftBytes -= each;
    for (const upload of running) {
      if (upload.leftBytes > 0) continue;
      firstMs = Math.min(firstMs, nowMs);
      doneBytes += 16 * MIB;
      ended(pace, upload.startedMs, nowMs, 'ok');
    }
    running = running.filter(({ leftBytes }) => leftBytes > 0);
    if (nowMs % 1000 === 0) limits.push(pace.limit);
  }
  return { limits, firstMs, doneBytes };
}

test('over a slow link few go at a time: what was begun is done soon', () => {
  const pace = new UploadPace(16);
  const { limits, firstMs } = simulate(pace, 400, 1, 100);
  assert.ok(firstMs < 70_000);
  assert.ok(
    limits.slice(200).every((limit) => limit === 1),
    String(limits.slice(200, 220)),
  );
});

test('over a fast link, and to a store that is fast only with many streams, as many go as allowed', () => {
  const fast = new UploadPace(16);
  simulate(fast, 30, 200, 200);
  assert.equal(fast.limit, 16);
  const far = new UploadPace(16);
  const { doneBytes } = simulate(far, 120, 1000, 2);
  assert.equal(far.limit, 16);
  assert.ok(doneBytes > 100 * 20 * MIB);
});

test('attempts that last make it careful, also those that fail; quick failures and small objects do not; it is never less than one, and recovers', () => {
  const pace = new UploadPace(8);
  ended(pace, 0, 100, 'retry');
  ended(pace, 0, 50_000, 'aborted');
  ended(pace, 0, 50_000, 'ok', 1000);
  assert.equal(pace.limit, 4);
  for (let round = 1; round < 6; round += 1) ended(pace, round * 60_000, round * 60_000 + 59_000, 'timeout');
  assert.equal(pace.limit, 1);
  for (let round = 0; round < 20; round += 1) ended(pace, 400_000 + round, 400_500 + round, 'ok');
  assert.equal(pace.limit, 8);
});
