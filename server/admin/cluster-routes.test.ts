import assert from 'node:assert/strict';
import { request } from 'node:http';
import { networkInterfaces } from 'node:os';
import { test } from 'node:test';

import type { ClusterControl } from '../cluster-port.ts';
import { ApplianceError } from '../core/errors.ts';
import { silentLogger } from '../core/logger.ts';
import { startAdminServer } from './admin-server.ts';
import { isThisMachine } from './cluster-routes.ts';
import { A, B, MOVE, NO_DRAIN, ROUTERS, STATUS, VOLUME, routerWith, scriptedCluster } from './testing/scripted-cluster.ts';

interface Answer {
  readonly status: number;
  readonly body: unknown;
}

/** An admin server over a scripted cluster; `ask` sends a request to it. */
async function start(change: Partial<ClusterControl> | null = {}, listen = '127.0.0.1') {
  const asked: string[] = [];
  const router = routerWith(change === null ? null : scriptedCluster(asked, change));
  const server = await startAdminServer(
    { listen, port: 0 },
    {
      subject: { phase: () => 'running', router: () => router },
      metrics: { contentType: 'text/plain', text: () => Promise.resolve('') },
      logger: silentLogger,
    },
  );
  const ask = async (
    method: string,
    path: string,
    body?: unknown,
    options: { headers?: Record<string, string>; host?: string; localAddress?: string } = {},
  ): Promise<Answer> => {
    const text = body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body);
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const headers = { ...(text === undefined ? {} : { 'content-type': 'application/json' }), ...options.headers };
    const { host = '127.0.0.1', localAddress } = options;
    request({ host, port: server.port, path, method, headers, ...(localAddress === undefined ? {} : { localAddress }) }, (response) => {
      let received = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => (received += chunk));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: JSON.parse(received) as unknown }));
    })
      .once('error', reject)
      .end(text);
    return await promise;
  };
  return { server, asked, ask };
}

const OBJECT = { kind: 'path', path: '/vm1/vm1-flat.vmdk' };
const PATH = encodeURIComponent(OBJECT.path);

test('reports are what the cluster says', async () => {
  const { server, asked, ask } = await start();
  await using _ = server;
  const json = (value: unknown): unknown => JSON.parse(JSON.stringify(value));
  assert.deepEqual(await ask('GET', '/cluster'), { status: 200, body: json(STATUS) });
  assert.deepEqual(await ask('GET', '/cluster/routers'), { status: 200, body: { routers: json(ROUTERS) } });
  assert.deepEqual(await ask('GET', '/cluster/volumes'), { status: 200, body: { volumes: [json(VOLUME)], next: null } });
  assert.equal((await ask('GET', `/cluster/volumes?router=${B}&after=x&limit=7`)).status, 200);
  assert.deepEqual(await ask('GET', `/cluster/volume?object=${PATH}`), { status: 200, body: json(VOLUME) });
  assert.equal((await ask('GET', '/cluster/volume?object=100')).status, 200);
  assert.deepEqual(await ask('GET', '/cluster/moves'), { status: 200, body: { running: [json(MOVE)], history: [] } });
  assert.deepEqual(await ask('GET', '/cluster/drain'), { status: 200, body: json(NO_DRAIN) });
  assert.equal((await ask('GET', `/cluster/takeover?object=${PATH}`)).status, 200);
  assert.deepEqual(asked, [
    'volumes {"router":null,"after":null,"limit":100}',
    `volumes {"router":"${B}","after":"x","limit":7}`,
    `volume ${JSON.stringify(OBJECT)}`,
    'volume {"kind":"fileid","fileid":100}',
    `plan ${JSON.stringify(OBJECT)}`,
  ]);
});

test('changes are passed on as they were asked for', async () => {
  const { server, asked, ask } = await start();
  await using _ = server;
  const object = OBJECT.path;
  assert.deepEqual(await ask('POST', '/cluster/moves', { object, to: B }), { status: 200, body: { kind: 'started', move: MOVE } });
  assert.deepEqual(await ask('DELETE', '/cluster/moves/m1'), { status: 200, body: { kind: 'aborted' } });
  assert.equal((await ask('POST', '/cluster/drain', {})).status, 200);
  assert.equal((await ask('POST', '/cluster/drain')).status, 200);
  assert.equal((await ask('DELETE', '/cluster/drain')).status, 200);
  assert.deepEqual(await ask('DELETE', `/cluster/routers/${B}`), { status: 200, body: { kind: 'forgotten', router: B } });
  assert.equal((await ask('POST', '/cluster/pin', { object, pinned: true })).status, 200);
  assert.equal((await ask('POST', '/cluster/takeover', { object: '100', term: 't', force: false })).status, 200);
  assert.deepEqual(asked, [
    `move ${JSON.stringify(OBJECT)} ${B}`,
    'cancel m1',
    'drain',
    'drain',
    'undrain',
    `forget ${B}`,
    `pin ${JSON.stringify(OBJECT)} true`,
    'takeover {"kind":"fileid","fileid":100} t false',
  ]);
});

test('what is no object, router, page or body is 400 and reaches nobody', async () => {
  const { server, asked, ask } = await start();
  await using _ = server;
  const wrong: readonly (readonly [string, string, unknown?])[] = [
    ['GET', '/cluster/volume'],
    ['GET', '/cluster/volume?object='],
    ['GET', '/cluster/volume?object=/'],
    ['GET', '/cluster/volume?object=vm1'],
    ['GET', '/cluster/volume?object=63'],
    ['GET', '/cluster/volume?object=0100'],
    ['GET', '/cluster/volume?object=9999999999999999'],
    ['GET', '/cluster/volume?object=%2Fa%00b'],
    ['GET', '/cluster/volume?object=100&object=101'],
    ['GET', '/cluster/volumes?limit=0'],
    ['GET', '/cluster/volumes?limit=1001'],
    ['GET', '/cluster/volumes?limit=1e2'],
    ['GET', '/cluster/volumes?router=aa'],
    ['GET', '/cluster/volumes?what=1'],
    ['POST', '/cluster/moves', { object: '100' }],
    ['POST', '/cluster/moves', { object: 100, to: B }],
    ['POST', '/cluster/moves', { object: '100', to: 'b' }],
    ['POST', '/cluster/moves', { object: '100', to: B, more: 1 }],
    ['POST', '/cluster/moves', []],
    ['POST', '/cluster/moves', '{'],
    ['POST', '/cluster/drain', { all: true }],
    ['DELETE', '/cluster/routers/ab'],
    ['POST', '/cluster/pin', { object: '100', pinned: 'true' }],
    ['POST', '/cluster/takeover', { object: '100', term: 't' }],
    ['POST', '/cluster/takeover', { object: '100', term: '', force: true }],
  ];
  for (const [method, path, body] of wrong) {
    const answer = await ask(method, path, body);
    assert.equal(answer.status, 400, `${method} ${path} ${JSON.stringify(body)}`);
    assert.equal(typeof (answer.body as { code: string }).code, 'string');
  }
  assert.deepEqual(asked, []);
  assert.match(
    ((await ask('POST', '/cluster/moves', { object: 'x', to: B })).body as { message: string }).message,
    /^body\.object: a fileid, or a path/,
  );
});

test('a refusal is 404, 409 or 503 with its code and whether it is worth a retry', async () => {
  for (const [code, status] of [
    ['no-such-object', 404],
    ['no-such-router', 404],
    ['owner-unavailable', 503],
    ['router-unavailable', 503],
    ['busy', 409],
    ['not-clean', 409],
    ['changed', 409],
  ] as const) {
    const refusal = { kind: 'refused', code, message: 'why', retryable: status === 503 } as const;
    const { server, ask } = await start({ takeover: () => Promise.resolve(refusal), volume: () => Promise.resolve(refusal) });
    await using _ = server;
    const expected = { status, body: { code, message: 'why', retryable: status === 503 } };
    assert.deepEqual(await ask('POST', '/cluster/takeover', { object: '100', term: 't', force: true }), expected);
    assert.deepEqual(await ask('GET', '/cluster/volume?object=100'), expected);
  }
  const { server, ask } = await start();
  await using _ = server;
  assert.equal((await ask('DELETE', '/cluster/moves/m2')).status, 404);
});

test('a registry that is away is 503; a bug is 500 without its details', async () => {
  const { server, ask } = await start({
    volumes: () => Promise.reject(new ApplianceError('registry-unavailable', 'Redis does not answer', { retryable: true })),
    routers: () => Promise.reject(new Error('secret inner state')),
  });
  await using _ = server;
  assert.deepEqual(await ask('GET', '/cluster/volumes'), {
    status: 503,
    body: { code: 'registry-unavailable', message: 'Redis does not answer', retryable: true },
  });
  const bug = await ask('GET', '/cluster/routers');
  assert.equal(bug.status, 500);
  assert.doesNotMatch(JSON.stringify(bug.body), /secret/);
});

test('a router on its own says that it has no cluster', async () => {
  const { server, ask } = await start(null);
  await using _ = server;
  for (const [method, path] of [
    ['GET', '/cluster'],
    ['GET', '/cluster/routers'],
    ['POST', '/cluster/drain'],
  ] as const) {
    const answer = await ask(method, path);
    assert.equal(answer.status, 409);
    assert.equal((answer.body as { code: string }).code, 'no-cluster');
  }
});

/** Every call that changes something. */
const CHANGES: readonly (readonly [string, string, unknown?])[] = [
  ['POST', '/cluster/moves', { object: '100', to: A }],
  ['DELETE', '/cluster/moves/m1'],
  ['POST', '/cluster/drain', {}],
  ['DELETE', '/cluster/drain'],
  ['DELETE', `/cluster/routers/${B}`],
  ['POST', '/cluster/pin', { object: '100', pinned: false }],
  ['POST', '/cluster/takeover', { object: '100', term: 't', force: true }],
];

test('no change is taken from a web page', async () => {
  const { server, asked, ask } = await start();
  await using _ = server;
  for (const headers of [{ origin: 'http://127.0.0.1:8080' }, { origin: 'null' }, { 'sec-fetch-site': 'same-origin' }]) {
    for (const [method, path, body] of CHANGES) {
      const answer = await ask(method, path, body, { headers });
      assert.equal(answer.status, 403, path);
      assert.equal((answer.body as { code: string }).code, 'not-from-here');
    }
    assert.equal((await ask('GET', '/cluster', undefined, { headers })).status, 200);
  }
  assert.deepEqual(asked, []);
});

test('another machine is told from this one', () => {
  for (const [remote, local] of [
    ['127.0.0.1', '127.0.0.1'],
    ['127.9.9.9', '127.0.0.1'],
    ['::1', '::1'],
    ['::ffff:127.0.0.1', '::ffff:127.0.0.1'],
    ['10.0.0.1', '10.0.0.1'],
    ['::ffff:10.0.0.1', '10.0.0.1'],
  ] as const) {
    assert.equal(isThisMachine(remote, local), true, remote);
  }
  for (const remote of ['10.0.0.2', '::ffff:10.0.0.2', 'fe80::1', '127.example.com', '', '1270.0.0.1', '::ffff:7f00:1']) {
    assert.equal(isThisMachine(remote, '10.0.0.1'), false, remote);
    assert.equal(isThisMachine(remote, ''), false, remote);
  }
});

test('a change is taken from this machine by whatever address', async () => {
  const { server, asked, ask } = await start({}, '0.0.0.0');
  await using _ = server;
  assert.equal((await ask('POST', '/cluster/drain', {}, { host: '127.0.0.1', localAddress: '127.0.0.9' })).status, 200);
  const own = Object.values(networkInterfaces())
    .flat()
    .find((entry) => entry?.family === 'IPv4' && !entry.internal)?.address;
  if (own === undefined) return;
  assert.equal((await ask('POST', '/cluster/drain', {}, { host: own })).status, 200);
  assert.deepEqual(asked, ['drain', 'drain']);
  // As another machine would: from an address that is neither loopback nor the one that is asked.
  for (const [method, path, body] of CHANGES) {
    const answer = await ask(method, path, body, { localAddress: own });
    assert.equal(answer.status, 403);
    assert.match((answer.body as { message: string }).message, /^Changes are taken from this machine only, not from /);
  }
  assert.equal((await ask('GET', '/cluster', undefined, { localAddress: own })).status, 200);
  assert.equal(asked.length, 2);
});
