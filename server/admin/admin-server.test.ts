import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { test } from 'node:test';

import { ApplianceError } from '../core/errors.ts';
import { type Logger, silentLogger } from '../core/logger.ts';
import type { BackendHealth, BackendTraffic, BackendUsage, Readiness, Router, RouterStatus } from '../router-port.ts';
import { type ProcessPhase, type StatusReport, startAdminServer } from './admin-server.ts';

const HEALTH: BackendHealth = { condition: 'up', since: '2026-01-01T00:00:00.000Z', message: null };
const TRAFFIC: BackendTraffic = { requests: { put: 3 }, failed: 1, writtenBytes: 100, readBytes: 0, cost: 0.5, costPerMonth: 30 };

const STATUS: RouterStatus = {
  vpool: 'vpool1',
  version: '1.2.3',
  routerId: 'aa',
  incarnation: 'bb',
  startedAt: '2026-01-01T00:00:00.000Z',
  addresses: { listen: '127.0.0.1', nfsPort: 2049, mountPort: 2049, portmap: 'none' },
  backend: 'directory:/x',
  backendStorage: { bucket: null, fence: 'backend', compression: 'none', encryptionKey: null },
  backendHealth: HEALTH,
  backendTraffic: { ...TRAFFIC, currency: 'USD' },
  volumesOpen: 0,
  dirtyBytes: 0,
  inodes: 1,
  usedBytes: 0,
  freeBytes: 1,
  clients: [],
  problems: [],
};

function backendUsage(bucketsMax: number): Promise<BackendUsage> {
  return Promise.resolve({
    backend: STATUS.backend,
    health: HEALTH,
    since: STATUS.startedAt,
    seconds: 60,
    currency: 'USD',
    total: TRAFFIC,
    buckets: Array.from({ length: bucketsMax }, (_, index) => ({ ...TRAFFIC, bucket: `b${index}`, content: 'volume' as const, path: null })),
    others: { ...TRAFFIC, bucketCount: 7 },
    storage: { usedBytes: 1, costPerMonth: 0 },
  });
}

/** An admin server over a router that says what `state` says. */
async function start(state: { phase: ProcessPhase; readiness: Readiness | null; metrics?: () => Promise<string>; logger?: Logger }) {
  const router = (): Router | null => {
    const { readiness } = state;
    if (readiness === null) return null;
    return { addresses: STATUS.addresses, cluster: null, status: () => STATUS, ready: () => readiness, backendUsage, close: () => Promise.resolve() };
  };
  const server = await startAdminServer(
    { listen: '127.0.0.1', port: 0 },
    {
      subject: { phase: () => state.phase, router },
      metrics: { contentType: 'text/plain; version=0.0.4', text: state.metrics ?? (() => Promise.resolve('a 1\n')) },
      logger: state.logger ?? silentLogger,
    },
  );
  return { server, url: `http://127.0.0.1:${server.port}` };
}

const PROBLEM = { code: 'disk-full', message: 'Free space on /data.' };

test('/readyz is 200 when the router is ready and 503 with the problems when it is not', async () => {
  const state = { phase: 'running' as ProcessPhase, readiness: { ready: true, problems: [PROBLEM] } };
  const { server, url } = await start(state);
  await using _ = server;
  const ready = await fetch(`${url}/readyz`);
  assert.equal(ready.status, 200);
  assert.deepEqual(await ready.json(), { ready: true, problems: [PROBLEM] });
  state.readiness = { ready: false, problems: [PROBLEM] };
  const notReady = await fetch(`${url}/readyz`);
  assert.equal(notReady.status, 503);
  assert.deepEqual(await notReady.json(), { ready: false, problems: [PROBLEM] });
});

test('a router that starts or stops is not ready, but alive', async () => {
  const state = { phase: 'starting' as ProcessPhase, readiness: null as Readiness | null };
  const { server, url } = await start(state);
  await using _ = server;
  assert.equal((await fetch(`${url}/readyz`)).status, 503);
  assert.equal((await fetch(`${url}/healthz`)).status, 200);
  assert.equal(((await (await fetch(`${url}/status`)).json()) as StatusReport).router, null);
  state.readiness = { ready: true, problems: [] };
  assert.equal((await fetch(`${url}/readyz`)).status, 503);
  state.phase = 'stopping';
  const stopping = await fetch(`${url}/readyz`);
  assert.equal(stopping.status, 503);
  assert.match(await stopping.text(), /shutting down/);
  assert.equal((await fetch(`${url}/healthz`)).status, 200);
});

test('/status has readiness and the router', async () => {
  const { server, url } = await start({ phase: 'running', readiness: { ready: true, problems: [] } });
  await using _ = server;
  assert.deepEqual(await (await fetch(`${url}/status`)).json(), { phase: 'running', ready: true, problems: [], router: STATUS, cluster: null });
});

test('/metrics is the exposition with its content type', async () => {
  const { server, url } = await start({ phase: 'running', readiness: null });
  await using _ = server;
  const response = await fetch(`${url}/metrics`);
  assert.equal(await response.text(), 'a 1\n');
  assert.match(response.headers.get('content-type') ?? '', /^text\/plain; version=0\.0\.4/);
});

test('what does not exist is 404 in JSON, other methods too', async () => {
  const { server, url } = await start({ phase: 'running', readiness: null });
  await using _ = server;
  for (const request of [fetch(`${url}/nothing`), fetch(`${url}/status`, { method: 'POST', body: 'x' }), fetch(`${url}/%ff`)]) {
    const response = await request;
    assert.ok(response.status === 404 || response.status === 400 || response.status === 415, String(response.status));
    assert.equal(typeof ((await response.json()) as { code: string }).code, 'string');
  }
});

test('a failure inside is 500 without its details, and logged', async () => {
  const logged: string[] = [];
  const logger = {
    ...silentLogger,
    error: (fields: object, message: string) => void logged.push(`${message} ${String((fields as { err: Error }).err)}`),
  };
  const { server, url } = await start({ phase: 'running', readiness: null, metrics: () => Promise.reject(new Error('inner /secret/path')), logger });
  await using _ = server;
  const response = await fetch(`${url}/metrics`);
  assert.equal(response.status, 500);
  assert.doesNotMatch(await response.text(), /secret/);
  assert.deepEqual(logged, ['admin request failed Error: inner /secret/path']);
});

test('garbage and oversized headers get an error, never a crash', async () => {
  const { server, url } = await start({ phase: 'running', readiness: null });
  await using _ = server;
  for (const bytes of ['\u0000\u0001\u0002\r\n\r\n', 'GET / HTTP/9.9\r\n\r\n', `GET / HTTP/1.1\r\nx: ${'y'.repeat(100_000)}\r\n\r\n`]) {
    const { promise, resolve } = Promise.withResolvers<string>();
    const socket = connect(server.port, '127.0.0.1', () => socket.write(bytes, 'latin1'));
    let answer = '';
    socket.on('data', (chunk) => (answer += chunk.toString()));
    socket.on('error', () => resolve(answer));
    socket.on('close', () => resolve(answer));
    assert.match(await promise, /^(HTTP\/1\.1 4\d\d|$)/);
  }
  assert.equal((await fetch(`${url}/healthz`)).status, 200);
});

test('closing does not wait for a client in the middle of a request', async () => {
  const { server } = await start({ phase: 'running', readiness: null });
  const { promise, resolve } = Promise.withResolvers<void>();
  const socket = connect(server.port, '127.0.0.1', () => socket.write('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /hea'));
  socket.once('data', () => resolve());
  await promise;
  const closed = Promise.withResolvers<void>();
  socket.on('error', () => undefined);
  socket.on('close', () => closed.resolve());
  await server[Symbol.asyncDispose]();
  await closed.promise;
});

test('a taken port rejects with what to do', async () => {
  const { server } = await start({ phase: 'running', readiness: null });
  await using _ = server;
  await assert.rejects(
    startAdminServer(
      { listen: '127.0.0.1', port: server.port },
      {
        subject: { phase: () => 'running', router: () => null },
        metrics: { contentType: '', text: () => Promise.resolve('') },
        logger: silentLogger,
      },
    ),
    (error: unknown) => error instanceof ApplianceError && error.code === 'admin-port-unavailable' && error.message.includes('EADDRINUSE'),
  );
});

test('/backend/usage tells the buckets that cost most, as many as asked for, within a bound', async () => {
  const state = { phase: 'running' as ProcessPhase, readiness: { ready: true, problems: [] } as Readiness | null };
  const { server, url } = await start(state);
  await using _ = server;
  for (const [query, count] of [
    ['', 20],
    ['?limit=3', 3],
    ['?limit=0', 0],
  ] as const) {
    const answer = await fetch(`${url}/backend/usage${query}`);
    assert.equal(answer.status, 200);
    assert.deepEqual(await answer.json(), await backendUsage(count));
  }
  for (const limit of ['-1', '10001', 'x', '1.5', '']) {
    const answer = await fetch(`${url}/backend/usage?limit=${limit}`);
    assert.equal(answer.status, limit === '' ? 200 : 400, limit);
  }
  state.readiness = null;
  assert.equal((await fetch(`${url}/backend/usage`)).status, 503);
});
