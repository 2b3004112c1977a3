import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { StoreRequestKind } from './store-observer.ts';
import { requestCost, type StorePrices, StoreUsage, type StoreUsageSettings } from './store-usage.ts';

const PRICES: StorePrices = {
  currency: 'USD',
  putPerThousand: 5,
  getPerThousand: 0.4,
  deletePerThousand: 0.1,
  outPerGigabyte: 90,
  storagePerGigabyteMonth: 23,
};

function usageOf(settings: Partial<StoreUsageSettings> = {}): {
  usage: StoreUsage;
  ask: (kind: StoreRequestKind, bucket: string, bytes?: number, failed?: boolean) => void;
} {
  const usage = new StoreUsage(settings);
  return {
    usage,
    ask(kind, bucket, bytes = 0, failed = false) {
      const request = { kind, bucket, payloadBytesMax: bytes, startedMs: 0 };
      usage.requestStarted(request);
      usage.requestDone(request, failed ? 'retry' : 'ok', failed ? 0 : bytes, 1, failed ? new Error('503') : null);
    },
  };
}

function requestsOf(
  rows: readonly { bucket: string | null; requests: Readonly<Partial<Record<StoreRequestKind, number>>> }[],
): Record<string, number> {
  return Object.fromEntries(rows.map((row) => [row.bucket ?? 'other', Object.values(row.requests).reduce((a, b) => a + b, 0)]));
}

test('requests and bytes are counted by bucket and kind, the failed ones too, and summed exactly', () => {
  const { usage, ask } = usageOf();
  ask('create-bucket', 'volume-a');
  ask('put', 'volume-a', 4_194_304);
  ask('put', 'volume-a', 4_194_304, true);
  ask('get', 'volume-a', 4096);
  ask('get', 'volume-b', 1000);
  ask('list-buckets', '');
  const { buckets, others } = usage.top(2, (row) => row.writtenBytes + row.readBytes);
  assert.deepEqual(buckets, [
    { bucket: 'volume-a', requests: { 'create-bucket': 1, put: 2, get: 1 }, failed: 1, writtenBytes: 4_194_304, readBytes: 4096 },
    { bucket: 'volume-b', requests: { get: 1 }, failed: 0, writtenBytes: 0, readBytes: 1000 },
  ]);
  assert.deepEqual(others, { bucket: null, requests: { 'list-buckets': 1 }, failed: 0, writtenBytes: 0, readBytes: 0, bucketCount: 1 });
  assert.deepEqual(usage.total, {
    bucket: null,
    requests: { 'create-bucket': 1, 'list-buckets': 1, put: 2, get: 2 },
    failed: 1,
    writtenBytes: 4_194_304,
    readBytes: 5096,
  });
  assert.equal(usage.requests, 6);
});

test('each kind costs what its price says, and so do bytes that are read', () => {
  const { usage, ask } = usageOf();
  for (const kind of ['create-bucket', 'put', 'list', 'list-buckets'] as const) ask(kind, 'a', 0);
  assert.ok(Math.abs(requestCost(usage.total, PRICES) - (4 * 5) / 1000) < 1e-12);
  for (const kind of ['get', 'head'] as const) ask(kind, 'a', 0);
  for (const kind of ['delete', 'delete-many', 'delete-bucket'] as const) ask(kind, 'a', 0);
  ask('get', 'a', 1e9);
  assert.ok(Math.abs(requestCost(usage.total, PRICES) - (20 + 3 * 0.4 + 0.3) / 1000 - 90) < 1e-9);
});

test('however many buckets there are, memory is bounded and the total exact: those with least requests are told together', () => {
  const { usage, ask } = usageOf({ bucketsMax: 100 });
  for (let volume = 0; volume < 5000; volume += 1) {
    ask('put', `volume-${volume}`, 10);
    // One that is always busy keeps its row.
    ask('get', 'busy', 1);
  }
  const { buckets, others } = usage.top(Infinity, (row) => row.readBytes);
  assert.ok(buckets.length <= 100, String(buckets.length));
  assert.equal(buckets[0]?.bucket, 'busy');
  assert.equal(buckets[0]?.readBytes, 5000);
  assert.equal(usage.total.writtenBytes, 50_000);
  assert.equal(usage.total.requests.put, 5000);
  assert.equal(others.writtenBytes + buckets.reduce((sum, row) => sum + row.writtenBytes, 0), 50_000);
});

test('time series are bounded; a bucket that becomes busy gets one from an idle one; each counter only grows while it is shown', () => {
  const { usage, ask } = usageOf({ seriesMax: 3, rankEveryMs: 1000 });
  for (const bucket of ['a', 'b', 'c', 'd', 'e']) ask('put', bucket, 1);
  assert.deepEqual(requestsOf(usage.series(0)), { a: 1, b: 1, c: 1, other: 2 });
  for (let count = 0; count < 10; count += 1) ask('put', 'e', 1);
  ask('put', 'b', 1);
  // Not ranked again yet.
  assert.deepEqual(requestsOf(usage.series(999)), { a: 1, b: 2, c: 1, other: 12 });
  assert.deepEqual(requestsOf(usage.series(1000)), { b: 2, c: 1, e: 0, other: 12 });
  ask('put', 'e', 1);
  ask('put', 'a', 1);
  assert.deepEqual(requestsOf(usage.series(1001)), { b: 2, c: 1, e: 1, other: 13 });
  assert.equal(usage.requests, 18);
});
