import assert from 'node:assert/strict';
import { test } from 'node:test';

import { AssertionError } from '../core/assert.ts';
import { MetricRegistry } from './metric-registry.ts';
import { NfsMetrics } from './nfs-metrics.ts';
import { StoreMetrics } from './store-metrics.ts';

/** Lines of the exposition that begin with `prefix`. */
async function lines(registry: MetricRegistry, prefix: string): Promise<string[]> {
  return (await registry.text()).split('\n').filter((line) => line.startsWith(prefix));
}

test('sources are read at every scrape', async () => {
  const registry = new MetricRegistry();
  let bytes = 1;
  registry.gaugeSource('vferry_dirty_bytes', 'Bytes not on the backend yet.', () => bytes);
  assert.deepEqual(await lines(registry, 'vferry_dirty_bytes'), ['vferry_dirty_bytes 1']);
  bytes = 2;
  assert.deepEqual(await lines(registry, 'vferry_dirty_bytes'), ['vferry_dirty_bytes 2']);
  assert.deepEqual(await lines(registry, '# '), ['# HELP vferry_dirty_bytes Bytes not on the backend yet.', '# TYPE vferry_dirty_bytes gauge']);
});

test('label sets of one name are one family', async () => {
  const registry = new MetricRegistry();
  registry.counterSource('vferry_cache_hits_total', 'Reads answered by a cache.', () => 3, { cache: 'ram' });
  registry.counterSource('vferry_cache_hits_total', 'Reads answered by a cache.', () => 4, { cache: 'ssd' });
  assert.deepEqual(await lines(registry, 'vferry_cache'), ['vferry_cache_hits_total{cache="ram"} 3', 'vferry_cache_hits_total{cache="ssd"} 4']);
  assert.equal((await lines(registry, '# TYPE')).length, 1);
});

test('a counter may have label sets that come and go', async () => {
  const registry = new MetricRegistry();
  const buckets = ['a'];
  registry.counterSamples('vferry_bucket_requests_total', 'By bucket.', () =>
    buckets.map((bucket, index) => ({ labels: { bucket }, value: index + 1 })),
  );
  assert.deepEqual(await lines(registry, 'vferry_bucket'), ['vferry_bucket_requests_total{bucket="a"} 1']);
  buckets.push('b');
  assert.deepEqual(await lines(registry, 'vferry_bucket'), [
    'vferry_bucket_requests_total{bucket="a"} 1',
    'vferry_bucket_requests_total{bucket="b"} 2',
  ]);
});

test('announcing twice, another kind for a name, and wrong names are bugs', () => {
  const registry = new MetricRegistry();
  const zero = (): number => 0;
  registry.gaugeSource('vferry_x', 'x', zero);
  assert.throws(() => registry.gaugeSource('vferry_x', 'x', zero), AssertionError);
  assert.throws(() => registry.counterSource('vferry_y', 'y', zero), AssertionError);
  assert.throws(() => registry.counterSamples('vferry_y', 'y', () => []), AssertionError);
  assert.throws(() => registry.histogram('vferry_latency_ms', 'z'), AssertionError);
  assert.throws(() => registry.gaugeSource('vferry-z', 'z', zero), AssertionError);
  registry.counterSource('vferry_z_total', 'z', zero);
  assert.throws(() => registry.gaugeSource('vferry_z_total', 'z', zero, { a: 'b' }), AssertionError);
});

test('a histogram is exported in seconds with cumulative buckets', async () => {
  const registry = new MetricRegistry();
  const histogram = registry.histogram('vferry_log_sync_seconds', 'fdatasync of the segment log.', { disk: 'a' });
  histogram.observe(0.03125);
  histogram.observe(1);
  histogram.observe(100_000);
  const text = await lines(registry, 'vferry_log_sync_seconds');
  assert.equal(text[0], 'vferry_log_sync_seconds_bucket{disk="a",le="0.000016"} 0');
  assert.ok(text.includes('vferry_log_sync_seconds_bucket{disk="a",le="0.000032"} 1'));
  assert.ok(text.includes('vferry_log_sync_seconds_bucket{disk="a",le="0.001024"} 2'));
  assert.deepEqual(text.slice(-3), [
    'vferry_log_sync_seconds_bucket{disk="a",le="+Inf"} 3',
    'vferry_log_sync_seconds_sum{disk="a"} 100.00103125',
    'vferry_log_sync_seconds_count{disk="a"} 3',
  ]);
});

test('NFS calls are counted by procedure and status, with bytes and what is in flight', async () => {
  const registry = new MetricRegistry();
  const nfs = new NfsMetrics(registry);
  const call = (procedure: number, status: number, bytesRead = 0, bytesWritten = 0): void => {
    nfs.started(procedure);
    nfs.finished(procedure, status, 0.25, bytesRead, bytesWritten);
  };
  call(6, 0, 4096);
  call(6, 0, 4096);
  call(6, 70);
  call(7, 28, 0, 512);
  call(1, 10_008);
  call(21, 0);
  call(1, -1);
  call(99, 0);
  call(7, 4242);
  nfs.started(7);
  assert.deepEqual((await lines(registry, 'vferry_nfs_operations_total')).toSorted(), [
    'vferry_nfs_operations_total{procedure="commit",status="ok"} 1',
    'vferry_nfs_operations_total{procedure="getattr",status="jukebox"} 1',
    'vferry_nfs_operations_total{procedure="getattr",status="refused"} 1',
    'vferry_nfs_operations_total{procedure="read",status="ok"} 2',
    'vferry_nfs_operations_total{procedure="read",status="stale"} 1',
    'vferry_nfs_operations_total{procedure="unknown",status="ok"} 1',
    'vferry_nfs_operations_total{procedure="write",status="nospc"} 1',
    'vferry_nfs_operations_total{procedure="write",status="other"} 1',
  ]);
  assert.deepEqual(await lines(registry, 'vferry_nfs_operations_in_flight'), ['vferry_nfs_operations_in_flight 1']);
  assert.deepEqual(await lines(registry, 'vferry_nfs_read_bytes_total'), ['vferry_nfs_read_bytes_total 8192']);
  assert.deepEqual(await lines(registry, 'vferry_nfs_written_bytes_total'), ['vferry_nfs_written_bytes_total 512']);
  assert.deepEqual(await lines(registry, 'vferry_nfs_operation_seconds_count{procedure="read"}'), [
    'vferry_nfs_operation_seconds_count{procedure="read"} 3',
  ]);
});

test('backend requests are counted by kind and outcome, with bytes, latency and retries', async () => {
  const registry = new MetricRegistry();
  const store = new StoreMetrics(registry);
  for (const [kind, outcome, bytes] of [
    ['put', 'ok', 100],
    ['put', 'ok', 100],
    ['put', 'retry', 0],
    ['get', 'ok', 7],
    ['get', 'not-found', 0],
  ] as const) {
    const request = { kind, bucket: 'bucket', payloadBytesMax: bytes, startedMs: 0 };
    store.requestStarted(request);
    store.requestDone(request, outcome, bytes, 10);
  }
  store.requestStarted({ kind: 'list', bucket: 'bucket', payloadBytesMax: 0, startedMs: 0 });
  store.willRetry('put a/b', 1, 50, new Error('503'));
  assert.deepEqual(
    (await lines(registry, 'vferry_backend')).filter((line) => !line.includes('_bucket')),
    [
      'vferry_backend_requests_total{kind="put",outcome="ok"} 2',
      'vferry_backend_requests_total{kind="put",outcome="retry"} 1',
      'vferry_backend_requests_total{kind="get",outcome="ok"} 1',
      'vferry_backend_requests_total{kind="get",outcome="not-found"} 1',
      'vferry_backend_request_seconds_sum{kind="put"} 0.03',
      'vferry_backend_request_seconds_count{kind="put"} 3',
      'vferry_backend_request_seconds_sum{kind="get"} 0.02',
      'vferry_backend_request_seconds_count{kind="get"} 2',
      'vferry_backend_requests_in_flight 1',
      'vferry_backend_written_bytes_total 200',
      'vferry_backend_read_bytes_total 7',
      'vferry_backend_retries_total 1',
    ],
  );
});

test('the process is measured: memory, event loop', async () => {
  const registry = new MetricRegistry();
  registry.addProcessMetrics();
  const text = await registry.text();
  assert.match(text, /^process_resident_memory_bytes \d+$/m);
  assert.match(text, /^nodejs_eventloop_lag_p99_seconds [\d.e-]+$/m);
});
