/** The hostile store is a Swift when it is well, and as bad as told when it is not: what is proven over it rests on this. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { type TestContext, test } from 'node:test';

import { stackOf } from '../test-stack.ts';
import { HostileStore } from './hostile-store.ts';

class Client {
  readonly store: HostileStore;
  token = '';
  account = '';

  constructor(store: HostileStore) {
    this.store = store;
  }

  async authenticate(key = this.store.environment['VFERRY_VPOOL_BACKEND_SWIFT_KEY'] ?? ''): Promise<number> {
    const { environment } = this.store;
    const answer = await fetch(environment['VFERRY_VPOOL_BACKEND_SWIFT_AUTH_URL'] ?? '', {
      headers: { 'x-auth-user': environment['VFERRY_VPOOL_BACKEND_SWIFT_USER'] ?? '', 'x-auth-key': key },
    });
    this.token = answer.headers.get('x-auth-token') ?? '';
    this.account = answer.headers.get('x-storage-url') ?? '';
    return answer.status;
  }

  call(method: string, path: string, headers: Record<string, string> = {}, body?: string): Promise<Response> {
    return fetch(`${this.account}${path}`, {
      method,
      headers: { 'x-auth-token': this.token, ...headers },
      ...(body === undefined ? {} : { body }),
      signal: AbortSignal.timeout(2000),
    });
  }

  async status(method: string, path: string, headers: Record<string, string> = {}, body?: string): Promise<number> {
    const answer = await this.call(method, path, headers, body);
    await answer.arrayBuffer();
    return answer.status;
  }
}

async function start(t: TestContext): Promise<Client> {
  const client = new Client(stackOf(t).use(await HostileStore.start(1)));
  assert.equal(await client.authenticate(), 200);
  return client;
}

const md5 = (text: string): string => createHash('md5').update(text).digest('hex');

test('without faults it answers as Swift does', async (t) => {
  const client = await start(t);
  assert.equal(await new Client(client.store).authenticate('wrong'), 401);
  assert.equal(await client.status('PUT', '/cont/o', {}, 'x'), 404, 'no such container');
  assert.equal(await client.status('PUT', '/cont'), 201);
  assert.equal(await client.status('PUT', '/cont/o', { etag: md5('other') }, 'content'), 422);
  assert.equal(await client.status('GET', '/cont/o'), 404);
  assert.equal(await client.status('PUT', '/cont/o', { etag: md5('content'), 'if-none-match': '*' }, 'content'), 201);
  assert.equal(await client.status('PUT', '/cont/o', { 'if-none-match': '*' }, 'other'), 412);
  const whole = await client.call('GET', '/cont/o');
  assert.deepEqual([whole.status, await whole.text(), whole.headers.get('etag')], [200, 'content', md5('content')]);
  const part = await client.call('GET', '/cont/o', { range: 'bytes=3-99' });
  assert.deepEqual([part.status, await part.text(), part.headers.get('content-range')], [206, 'tent', 'bytes 3-6/7']);
  assert.equal(await client.status('GET', '/cont/o', { range: 'bytes=7-8' }), 416);
  const head = await client.call('HEAD', '/cont/o');
  assert.deepEqual([head.status, head.headers.get('content-length')], [200, '7']);
  assert.equal(await client.status('PUT', '/cont/o', {}, 'replaced'), 201);
  assert.equal(await (await client.call('GET', '/cont/o')).text(), 'replaced');
  for (const name of ['a', 'b', 'p1', 'p2']) assert.equal(await client.status('PUT', `/cont/${name}`, {}, ''), 201);
  const listed = (await (await client.call('GET', '/cont?format=json&prefix=p&marker=p1&limit=10')).json()) as { name: string }[];
  assert.deepEqual(
    listed.map(({ name }) => name),
    ['p2'],
  );
  assert.equal(await client.status('GET', '/cont?limit=10001'), 412);
  assert.equal(await client.status('DELETE', '/cont'), 409);
  for (const name of ['a', 'b', 'p1', 'p2', 'o']) assert.equal(await client.status('DELETE', `/cont/${name}`), 204);
  assert.equal(await client.status('DELETE', '/cont/o'), 404);
  assert.equal(await client.status('DELETE', '/cont'), 204);
  assert.equal(await client.status('GET', '/cont'), 404);
  client.store.revokeTokens();
  assert.equal(await client.status('GET', ''), 401);
  assert.equal(client.store.server.counts.get('DELETE'), 8);
});

test('every fault of the wire is what it says', async (t) => {
  const client = await start(t);
  const { store } = client;
  const content = 'c'.repeat(100_000);
  await client.status('PUT', '/cont');
  await client.status('PUT', '/cont/o', {}, content);

  store.setFaults({ http: { resetRequest: 1 } });
  await assert.rejects(client.status('PUT', '/cont/reset', {}, content));
  store.setFaults({ http: { loseAnswer: 1 } });
  await assert.rejects(client.status('PUT', '/cont/applied', {}, content));
  store.setFaults({});
  assert.equal(await client.status('HEAD', '/cont/reset'), 404);
  assert.equal(await client.status('HEAD', '/cont/applied'), 200);

  for (const fault of ['resetBody', 'shortBody'] as const) {
    store.setFaults({ http: { [fault]: 1 } });
    await assert.rejects(client.status('GET', '/cont/o'), fault);
  }
  store.setFaults({ http: { flipBody: 1 } });
  const flipped = await client.call('GET', '/cont/o');
  assert.equal(flipped.headers.get('etag'), md5(content));
  assert.notEqual(await flipped.text(), content);
  store.setFaults({ http: { flipRequest: 1 } });
  assert.equal(await client.status('PUT', '/cont/flipped', { etag: md5(content) }, content), 422);
  store.setFaults({ http: { rateLimit: 1 } });
  assert.equal(await client.status('GET', '/cont/o'), 498);
  store.setFaults({ http: { unavailable: 1, retryAfterSeconds: 7 } });
  const refused = await client.call('GET', '/cont/o');
  assert.deepEqual([refused.status, refused.headers.get('retry-after')], [503, '7']);
  store.setFaults({ http: { revokeTokens: 1 } });
  assert.equal(await client.status('GET', '/cont/o'), 401);
  store.setFaults({});
  assert.equal(await client.status('GET', '/cont/o'), 401);
  await client.authenticate();

  store.setFaults({ http: { stall: 1 } });
  await assert.rejects(client.status('GET', '/cont/o'), { name: 'TimeoutError' });
  store.setFaults({ http: { bytesPerSecond: 200_000 } });
  const began = performance.now();
  await Promise.all([client.status('GET', '/cont/o'), client.status('PUT', '/cont/slow', {}, content)]);
  const tookMs = performance.now() - began;
  assert.ok(tookMs > 800 && tookMs < 60_000, `200 kB at 200 kB/s took ${Math.round(tookMs)} ms`);
});

test('while nobody listens connections are refused; afterwards everything is there', async (t) => {
  const client = await start(t);
  await client.status('PUT', '/cont');
  await client.store.server.stopListening();
  await assert.rejects(client.status('HEAD', '/cont'));
  await client.store.server.listen();
  assert.equal(await client.status('HEAD', '/cont'), 204);
});

test('faults of the store show as Swift would show them', async (t) => {
  const client = await start(t);
  await client.status('PUT', '/cont');
  client.store.setFaults({ store: { visibleLagMsMax: 1e9, listLagMsMax: 1e9 } });
  assert.equal(await client.status('PUT', '/cont/o', {}, 'x'), 201);
  assert.equal(await client.status('GET', '/cont/o'), 404);
  assert.equal(await (await client.call('GET', '/cont')).text(), '');
  client.store.setFaults({ store: { failBefore: 1 } });
  assert.equal(await client.status('GET', '/cont/o'), 503);
  client.store.setFaults({ store: { failBefore: 1, failClass: 'no-space' } });
  assert.equal(await client.status('PUT', '/cont/p', {}, 'x'), 507);
  client.store.setFaults({ store: { loseAnswer: 1 } });
  assert.equal(await client.status('PUT', '/cont/p', {}, 'x'), 503);
  client.store.setFaults({});
  assert.equal(await client.status('GET', '/cont/p'), 200);
});

test('a PUT without a condition replaces in one step: bytes that are put again are never gone, now or later, whatever goes wrong', async (t) => {
  const client = await start(t);
  assert.equal(await client.status('PUT', '/cont'), 201);
  assert.equal(await client.status('PUT', '/cont/o', {}, 'content'), 201);
  const statuses = new Set<number>();
  for (let round = 0; round < 60; round += 1) {
    client.store.setFaults({
      store: { applyLate: 0.4, applyLateMsMax: 20, delay: 0.3, delayMsMax: 5 },
      http: { resetRequest: 0.1, loseAnswer: 0.1 },
    });
    statuses.add(await client.status('PUT', '/cont/o', {}, 'content').catch(() => 0));
    client.store.setFaults({});
    assert.equal(await client.status('PUT', '/cont/o', {}, 'content'), 201);
    assert.equal(await client.status('GET', '/cont/o'), 200, `round ${round}`);
  }
  assert.deepEqual(
    [...statuses].sort((a, b) => a - b),
    [0, 201, 503],
  );
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.equal(await (await client.call('GET', '/cont/o')).text(), 'content');
});
