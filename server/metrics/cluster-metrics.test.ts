import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { ClusterStatus } from '../cluster-port.ts';
import type { RouterId } from '../core/ids.ts';
import { ClusterMetrics } from './cluster-metrics.ts';
import { MetricRegistry } from './metric-registry.ts';

/** Lines of the exposition that begin with `prefix`, without buckets. */
async function lines(registry: MetricRegistry, prefix: string): Promise<string[]> {
  return (await registry.text()).split('\n').filter((line) => line.startsWith(prefix) && !line.includes('_bucket'));
}

const A = 'aa'.repeat(16) as RouterId;
const B = 'bb'.repeat(16) as RouterId;

const STATUS: ClusterStatus = {
  registry: 'redis',
  registryProblem: null,
  generation: 3,
  leaseLeftMs: 5500,
  peerAddress: '10.0.0.1:2050',
  encrypted: true,
  certificateEndsAtMs: 1_893_456_000_000,
  routers: [
    { id: A, self: true, state: 'running', peer: null, silentMs: 0, connection: null },
    { id: B, self: false, state: 'running', peer: null, silentMs: 10, connection: { connected: true, roundTripMs: 0.5, problem: null } },
    {
      id: 'cc' as RouterId,
      self: false,
      state: 'dead',
      peer: null,
      silentMs: 10,
      connection: { connected: false, roundTripMs: null, problem: 'gone' },
    },
  ],
  owned: { clean: 4, unprotected: 2, protected: 0 },
  recovering: 1,
  movesRunning: 0,
  drain: { phase: 'moving', startedAt: null, done: 3, total: 7, copiedBytes: 0, behindBytes: 0, failed: [], problem: null },
};

test('forwarded operations are counted by kind, direction and outcome, with bytes and latency', async () => {
  const registry = new MetricRegistry();
  const metrics = new ClusterMetrics(registry, () => null);
  metrics.forwarded('read', 'sent', 'done', 1, 4096);
  metrics.forwarded('read', 'sent', 'done', 1, 4096);
  metrics.forwarded('inode-changed', 'received', 'failed', 2, 0);
  metrics.forwarded('write', 'received', 'not-owner', 2, 512);
  assert.deepEqual(await lines(registry, 'vferry_forward'), [
    'vferry_forwarded_operations_total{kind="read",direction="sent",outcome="done"} 2',
    'vferry_forwarded_operations_total{kind="write",direction="received",outcome="not-owner"} 1',
    'vferry_forwarded_operations_total{kind="inode-changed",direction="received",outcome="failed"} 1',
    'vferry_forwarded_bytes_total{direction="sent"} 8192',
    'vferry_forwarded_bytes_total{direction="received"} 512',
    'vferry_forward_seconds_sum{kind="read",direction="sent"} 0.002',
    'vferry_forward_seconds_count{kind="read",direction="sent"} 2',
    'vferry_forward_seconds_sum{kind="write",direction="received"} 0.002',
    'vferry_forward_seconds_count{kind="write",direction="received"} 1',
    'vferry_forward_seconds_sum{kind="inode-changed",direction="received"} 0.002',
    'vferry_forward_seconds_count{kind="inode-changed",direction="received"} 1',
  ]);
});

test('moves are counted by direction and end, with the stall of those that were given', async () => {
  const registry = new MetricRegistry();
  const metrics = new ClusterMetrics(registry, () => null);
  for (let count = 0; count < 3; count++) metrics.moveStarted('given');
  metrics.writersSlowed(1500);
  metrics.writersSlowed(250);
  metrics.moveDone('given', 2000, 31.25, 1000);
  metrics.moveAborted('given', 'peer-unavailable');
  metrics.moveStarted('received');
  metrics.moveDone('received', 1000, null, 7);
  assert.deepEqual(await lines(registry, 'vferry_move'), [
    'vferry_moves_started_total{direction="given"} 3',
    'vferry_moves_started_total{direction="received"} 1',
    'vferry_moves_done_total{direction="given"} 1',
    'vferry_moves_done_total{direction="received"} 1',
    'vferry_moves_aborted_total{direction="given",reason="peer-unavailable"} 1',
    'vferry_moved_bytes_total{direction="given"} 1000',
    'vferry_moved_bytes_total{direction="received"} 7',
    'vferry_moves_running{direction="given"} 1',
    'vferry_moves_running{direction="received"} 0',
    'vferry_move_seconds_sum{direction="given"} 2',
    'vferry_move_seconds_count{direction="given"} 1',
    'vferry_move_seconds_sum{direction="received"} 1',
    'vferry_move_seconds_count{direction="received"} 1',
    'vferry_move_stall_seconds_sum 0.03125',
    'vferry_move_stall_seconds_count 1',
    'vferry_move_slowed_seconds_total 1.75',
  ]);
});

test('reasons of aborted moves are bounded', async () => {
  const registry = new MetricRegistry();
  const metrics = new ClusterMetrics(registry, () => null);
  for (let reason = 0; reason < 100; reason++) metrics.moveAborted('received', `r${reason}`);
  const counted = await lines(registry, 'vferry_moves_aborted_total');
  assert.equal(counted.length, 65);
  assert.ok(counted.includes('vferry_moves_aborted_total{direction="received",reason="other"} 36'));
});

test('attempts at the registry, recovery rounds and takeovers are counted', async () => {
  const registry = new MetricRegistry();
  const metrics = new ClusterMetrics(registry, () => null);
  metrics.roundTrip('change', 'ok', 1);
  metrics.roundTrip('change', 'retried', 1000);
  metrics.roundTrip('renew', 'ok', 0.5);
  metrics.recoveryRound(250);
  metrics.takenOver(true);
  metrics.takenOver(false);
  metrics.takenOver(false);
  assert.deepEqual(await lines(registry, 'vferry_registry'), [
    'vferry_registry_calls_total{call="change",outcome="ok"} 1',
    'vferry_registry_calls_total{call="change",outcome="retried"} 1',
    'vferry_registry_calls_total{call="renew",outcome="ok"} 1',
    'vferry_registry_call_seconds_sum{call="change"} 1.001',
    'vferry_registry_call_seconds_count{call="change"} 2',
    'vferry_registry_call_seconds_sum{call="renew"} 0.0005',
    'vferry_registry_call_seconds_count{call="renew"} 1',
    'vferry_registry_recovery_seconds_sum 0.25',
    'vferry_registry_recovery_seconds_count 1',
  ]);
  assert.deepEqual(await lines(registry, 'vferry_takeovers_total'), [
    'vferry_takeovers_total{forced="true"} 1',
    'vferry_takeovers_total{forced="false"} 2',
  ]);
});

test('lease, peers, objects and drain are what the cluster says at the scrape; without one there are none', async () => {
  const registry = new MetricRegistry();
  let status: ClusterStatus | null = null;
  new ClusterMetrics(registry, () => status);
  assert.deepEqual(await lines(registry, 'vferry_lease_left'), []);
  assert.deepEqual(await lines(registry, 'vferry_routers'), []);
  status = STATUS;
  assert.deepEqual(
    (await lines(registry, 'vferry_')).filter((line) => !/^vferry_(moves_running|move_stall|move_slowed|registry_recovery)/.test(line)),
    [
      'vferry_lease_left_seconds 5.5',
      'vferry_registry_generation 3',
      'vferry_registry_up 1',
      'vferry_owned_objects{protection="clean"} 4',
      'vferry_owned_objects{protection="unprotected"} 2',
      'vferry_owned_objects{protection="protected"} 0',
      'vferry_recovering_objects 1',
      'vferry_drain_objects_left 4',
      'vferry_routers{state="running"} 2',
      'vferry_routers{state="dead"} 1',
      `vferry_peer_connected{router="${B}"} 1`,
      'vferry_peer_connected{router="cc"} 0',
      `vferry_peer_round_trip_seconds{router="${B}"} 0.0005`,
      'vferry_certificate_end_timestamp_seconds 1893456000',
    ],
  );
  status = { ...STATUS, registryProblem: 'it does not answer', certificateEndsAtMs: null };
  assert.deepEqual(await lines(registry, 'vferry_registry_up'), ['vferry_registry_up 0']);
  assert.deepEqual(await lines(registry, 'vferry_certificate'), []);
});
