import assert from 'node:assert/strict';
import { test } from 'node:test';

import { NO_DRAIN, ROUTERS, STATUS } from './admin/testing/scripted-cluster.ts';
import type { ClusterStatus } from './cluster-port.ts';
import { clusterProblems } from './cluster-problems.ts';

const NOW_MS = Date.UTC(2026, 0, 1);
const DAY_MS = 24 * 3600 * 1000;

function problemsOf(change: Partial<ClusterStatus>): string[] {
  return clusterProblems({ ...STATUS, ...change }, NOW_MS).map(({ code, message }) => `${code}: ${message}`);
}

test('a cluster in order, with a router that is dead, has no problems', () => {
  assert.deepEqual(problemsOf({}), []);
  assert.deepEqual(problemsOf({ certificateEndsAtMs: null }), []);
});

test('a certificate that ends within 30 days is a problem, and that it ended is another', () => {
  assert.deepEqual(problemsOf({ certificateEndsAtMs: NOW_MS + 30 * DAY_MS }), []);
  assert.match(
    problemsOf({ certificateEndsAtMs: NOW_MS + 30 * DAY_MS - 1 }).join(),
    /^certificate: this router's certificate ends at 2026-01-30T.* renew it/,
  );
  assert.match(problemsOf({ certificateEndsAtMs: NOW_MS }).join(), /^certificate: .* ended at 2026-01-01T00:00:00\.000Z: other routers refuse it/);
});

test('a router that lives and cannot be reached is a problem, with the reason', () => {
  const [self, other] = ROUTERS;
  assert.ok(self !== undefined && other !== undefined);
  for (const state of ['running', 'silent', 'draining'] as const) {
    assert.deepEqual(problemsOf({ routers: [self, { ...other, state }] }), [
      `peer: no connection to router ${other.id} at an unknown address, which is ${state}: what it owns is not served here (refused)`,
    ]);
  }
  assert.deepEqual(
    problemsOf({ routers: [self, { ...other, state: 'running', connection: { connected: true, roundTripMs: 1, problem: null } }] }),
    [],
  );
});

test('a drain that does not get on is a problem, one that does is none', () => {
  assert.deepEqual(problemsOf({ drain: { ...NO_DRAIN, phase: 'moving', done: 1, total: 4 } }), []);
  assert.deepEqual(problemsOf({ drain: { ...NO_DRAIN, phase: 'stuck', done: 1, total: 4, problem: 'nobody takes it' } }), [
    'drain: the drain of this router does not get on, 3 objects are left: nobody takes it',
  ]);
});
