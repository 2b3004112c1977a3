/** SwiftStore against a scripted server: what no healthy Swift does, and what is asked in which words. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import { createServer } from 'node:net';
import { test } from 'node:test';

import { bytes, readAllOf } from '../conformance.ts';
import type { StoreErrorClass } from '../object-store.ts';
import { VirtualClock } from '../virtual-clock.ts';
import { rejectsSafely, ScriptedSwift } from './scripted-swift.fixture.ts';
import type { SwiftStoreConfig } from './swift-config.ts';
import { parseListing } from './swift-listing.ts';
import { type SwiftComponents, SwiftStore } from './swift-store.ts';

/** A test with a scripted Swift and a store of it; both end with it. */
function scripted(
  sentence: string,
  body: (swift: ScriptedSwift, store: SwiftStore) => Promise<void>,
  change: Partial<SwiftStoreConfig> = {},
  components: SwiftComponents = {},
): void {
  test(sentence, async () => {
    await using swift = await ScriptedSwift.start();
    const store = new SwiftStore(swift.config(change), components);
    try {
      await body(swift, store);
    } finally {
      await store.close();
    }
  });
}

/** @throws Error when it does not come true in two minutes. */
async function until(condition: () => boolean): Promise<void> {
  for (let waitedMs = 0; !condition(); waitedMs += 5) {
    if (waitedMs > 120_000) throw new Error(`never: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const md5 = (content: string | Buffer): string => createHash('md5').update(content).digest('hex');
const CONTENT = Buffer.from('some bytes');

for (const [status, errorClass] of [
  [400, 'denied'],
  [403, 'denied'],
  [405, 'denied'],
  [301, 'denied'],
  [408, 'retry'],
  [409, 'retry'],
  [413, 'no-space'],
  [422, 'retry'],
  [429, 'retry'],
  [498, 'retry'],
  [500, 'retry'],
  [502, 'retry'],
  [503, 'retry'],
  [504, 'retry'],
  [507, 'no-space'],
  [599, 'retry'],
] as const satisfies readonly (readonly [number, StoreErrorClass])[]) {
  scripted(`status ${status} is class ${errorClass} for every call, and the message says which request it was`, async (swift, store) => {
    swift.script = () => ({ status, headers: { 'X-Trans-Id': 'tx0123', Location: 'http://elsewhere/' }, body: 'x'.repeat(1000) });
    const calls: readonly (readonly [string, Promise<unknown>])[] = [
      ['put bucket/name', store.put('bucket', 'name', bytes(CONTENT))],
      ['get bucket/name', store.get('bucket', 'name')],
      ['get bucket/name', store.get('bucket', 'name', { offsetBytes: 0, lengthBytes: 1 })],
      ['head bucket/name', store.head('bucket', 'name')],
      ['delete bucket/name', store.delete('bucket', 'name')],
      ['list bucket', store.list('bucket', '', '', 10)],
      ['list buckets', store.listBuckets('', 10)],
      ['create bucket bucket', store.createBucket('bucket')],
      ...(status === 409 ? [] : [['delete bucket bucket', store.deleteBucket('bucket')] as const]),
    ];
    const errors = await Promise.all(calls.map(([, promise]) => rejectsSafely(promise, errorClass)));
    errors.forEach((error, index) => {
      assert.ok(error.message.startsWith(`${calls[index]?.[0]}: Swift answered ${status} (transaction tx0123)`), error.message);
    });
    assert.equal(swift.authentications.length, 1);
  });
}

scripted('what the server writes into its headers cannot get into a message, unless it looks like a transaction id', async (swift, store) => {
  swift.script = () => ({ status: 503, headers: { 'X-Trans-Id': 'tx <script>' } });
  assert.equal((await rejectsSafely(store.head('bucket', 'name'), 'retry')).message, 'head bucket/name: Swift answered 503');
});

scripted('an account that does not exist is no empty account', async (_swift, store) => {
  for (const call of [store.listBuckets('', 10), store.createBucket('bucket')]) {
    assert.match((await rejectsSafely(call, 'denied')).message, /the account does not exist/);
  }
});

scripted('many requests whose token ends together cause one authentication, and each is sent once more', async (swift, store) => {
  swift.script = () => ({ status: 200, headers: { ETag: md5(CONTENT) }, body: CONTENT });
  await store.get('bucket', 'name');
  swift.ended = 1;
  swift.requests.length = 0;
  const answers = await Promise.all(Array.from({ length: 50 }, (_, index) => store.get('bucket', `object-${index}`)));
  for (const answer of answers) assert.deepEqual(answer, { kind: 'found', bytes: CONTENT });
  assert.equal(swift.authentications.length, 2);
  const refused = swift.requests.filter((request) => request.headers['x-auth-token'] === 'token-1').map((request) => request.path);
  const repeated = swift.requests.filter((request) => request.headers['x-auth-token'] === 'token-2').map((request) => request.path);
  assert.equal(refused.length, 50);
  assert.deepEqual(repeated.toSorted(), refused.toSorted());
});

scripted('a refusal that comes late, when others got a new token already, causes no authentication', async (swift, store) => {
  const late = Promise.withResolvers<void>();
  swift.script = async (request) => {
    if (request.path.endsWith('/late') && request.headers['x-auth-token'] === 'token-1') {
      await late.promise;
      return { status: 401 };
    }
    return { status: 204 };
  };
  const slow = store.delete('bucket', 'late');
  await until(() => swift.requests.length > 0);
  swift.ended = 1;
  await store.delete('bucket', 'other');
  late.resolve();
  await slow;
  assert.equal(swift.authentications.length, 2);
});

scripted('an aborted call leaves the authentication to the others who wait for it', async (swift, store) => {
  const gate = Promise.withResolvers<void>();
  const controller = new AbortController();
  swift.onHead = (request, response) => {
    if (request.url?.startsWith('/auth') !== true) return false;
    swift.granted += 1;
    const headers = { 'X-Auth-Token': 'token-1', 'X-Storage-Url': `${swift.origin}/v1/AUTH_x` };
    void gate.promise.then(() => response.writeHead(200, headers).end());
    return true;
  };
  swift.script = () => ({ status: 204 });
  const aborted = store.delete('bucket', 'aborted', controller.signal);
  const other = store.delete('bucket', 'other');
  controller.abort(new Error('enough'));
  await rejectsSafely(aborted, 'retry');
  gate.resolve();
  await other;
  assert.equal(swift.granted, 1);
});

scripted('a new token that is refused at once is a wrong setting when none ever worked, and a passing fault when one did', async (swift, store) => {
  swift.ended = 1_000_000;
  const error = await rejectsSafely(store.head('bucket', 'name'), 'denied');
  assert.match(error.message, /belong to one cluster/);
  swift.ended = 0;
  assert.deepEqual(await store.head('bucket', 'name'), { kind: 'absent' });
  await store.delete('bucket', 'name');
  swift.script = () => ({ status: 204 });
  await store.delete('bucket', 'name');
  swift.ended = 1_000_000;
  await rejectsSafely(store.head('bucket', 'name'), 'retry');
});

for (const [status, errorClass] of [
  [401, 'denied'],
  [403, 'denied'],
  [404, 'denied'],
  [300, 'denied'],
  [429, 'retry'],
  [498, 'retry'],
  [500, 'retry'],
  [503, 'retry'],
] as const) {
  scripted(`an authentication answered ${status} is class ${errorClass}`, async (swift, store) => {
    swift.authAnswer = () => ({ status });
    const error = await rejectsSafely(store.put('bucket', 'name', bytes(CONTENT)), errorClass);
    assert.match(error.message, new RegExp(`^authenticate at ${swift.origin}/auth/v1\\.0: .*${status}`));
    assert.equal(swift.requests.length, 0);
  });
}

scripted('an authentication without a token, without a storage URL, or with a strange one is denied with what to look at', async (swift, store) => {
  for (const [headers, message] of [
    [{}, /no usable X-Auth-Token/],
    [{ 'X-Auth-Token': 'token-1 with blanks', 'X-Storage-Url': swift.origin }, /no usable X-Auth-Token/],
    [{ 'X-Auth-Token': 'x1' }, /named no storage URL/],
    [{ 'X-Auth-Token': 'x1', 'X-Storage-Url': 'file:///etc/passwd' }, /not an http/],
    [{ 'X-Auth-Token': 'x1', 'X-Storage-Url': 'http://user:very-secret-key@host/v1' }, /not an http/],
    [{ 'X-Auth-Token': 'x1', 'X-Storage-Url': 'http://very-secret-key@host/v1' }, /not an http/],
    [{ 'X-Auth-Token': 'x1', 'X-Storage-Url': 'nonsense' }, /not an http/],
  ] as const) {
    swift.authAnswer = () => ({ status: 200, headers });
    assert.match((await rejectsSafely(store.head('bucket', 'name'), 'denied')).message, message);
  }
});

test('a cluster that is not reachable is class retry', async () => {
  const port = await new Promise<number>((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
  await using swift = await ScriptedSwift.start();
  const auth = { version: 1, url: `http://127.0.0.1:${port}/auth/v1.0`, user: 'account:user', key: 'very-secret-key' } as const;
  const store = new SwiftStore(swift.config({ auth }));
  assert.match((await rejectsSafely(store.head('bucket', 'name'), 'retry')).message, /ECONNREFUSED/);
  await store.close();
});

scripted('a put says what it sends: length, MD5, and that the name must be new', async (swift, store) => {
  swift.script = () => ({ status: 201, headers: { ETag: `"${md5(CONTENT).toUpperCase()}"` } });
  assert.equal(await store.put('bucket', 'name', { kind: 'bytes', chunks: [CONTENT.subarray(0, 4), CONTENT.subarray(4)] }), 'written');
  const [request] = swift.requests;
  assert.equal(`${request?.method} ${request?.path}`, 'PUT /v1/AUTH_x/bucket/name');
  assert.deepEqual(request?.body, CONTENT);
  assert.equal(request.headers.etag, md5(CONTENT));
  assert.equal(request.headers['if-none-match'], '*');
  assert.equal(request.headers['content-length'], '10');
});

scripted('one replica is enough to say that a name exists: the same bytes are put once more, others never', async (swift, store) => {
  let etag = md5(CONTENT);
  swift.script = ({ method, headers }) => {
    if (method === 'HEAD') return etag === '' ? { status: 404 } : { status: 200, headers: { ETag: etag } };
    return { status: headers['if-none-match'] === undefined ? 201 : 412 };
  };
  const methods = (): string[] => swift.requests.splice(0).map((request) => `${request.method} ${request.headers['if-none-match'] ?? ''}`.trim());
  assert.equal(await store.put('bucket', 'name', bytes(CONTENT)), 'exists');
  assert.deepEqual(methods(), ['PUT *', 'HEAD', 'PUT']);
  etag = md5('other');
  assert.equal(await store.put('bucket', 'name', bytes(CONTENT)), 'exists');
  assert.deepEqual(methods(), ['PUT *', 'HEAD']);
  etag = '';
  await rejectsSafely(store.put('bucket', 'name', bytes(CONTENT)), 'retry');
});

scripted('a put that the server acknowledges with another MD5 is not taken as written', async (swift, store) => {
  swift.script = () => ({ status: 201, headers: { ETag: md5('other') } });
  assert.match((await rejectsSafely(store.put('bucket', 'name', bytes(CONTENT)), 'retry')).message, /it stored other bytes/);
});

scripted('wrong bytes are read once more: then right ones are right, the same wrong ones corrupt, others may pass', async (swift, store) => {
  const answers: string[] = [];
  swift.script = () => ({ status: 200, headers: { ETag: md5(CONTENT) }, body: answers.shift() ?? '' });
  answers.push('damaged!!!', 'some bytes');
  assert.deepEqual(await readAllOf(store, 'bucket', 'name'), CONTENT);
  answers.push('damaged!!!', 'damaged!!!');
  await rejectsSafely(store.get('bucket', 'name'), 'corrupt');
  answers.push('damaged!!!', 'DAMAGED!!!');
  await rejectsSafely(store.get('bucket', 'name'), 'retry');
  assert.equal(swift.requests.length, 6);
});

scripted('an ETag that is no MD5 of the bytes is not compared', async (swift, store) => {
  swift.script = () => ({ status: 200, headers: { ETag: `${md5('parts')}-2` }, body: CONTENT });
  assert.deepEqual(await readAllOf(store, 'bucket', 'name'), CONTENT);
  swift.script = () => ({ status: 200, headers: { ETag: `"${md5('parts')}"`, 'X-Static-Large-Object': 'True' }, body: CONTENT });
  assert.deepEqual(await readAllOf(store, 'bucket', 'name'), CONTENT);
});

scripted('a part must be the part that was asked for', async (swift, store) => {
  const range = { offsetBytes: 5, lengthBytes: 100 };
  const part = (contentRange: string | null, body: string): void => {
    swift.script = () => ({ status: 206, headers: contentRange === null ? {} : { 'Content-Range': contentRange }, body });
  };
  part('bytes 5-9/10', 'bytes');
  assert.deepEqual(await store.get('bucket', 'name', range), { kind: 'found', bytes: Buffer.from('bytes') });
  assert.equal(swift.requests[0]?.headers.range, 'bytes=5-104');
  for (const [contentRange, body] of [
    [null, 'bytes'],
    ['bytes 0-4/10', 'some '],
    ['bytes 5-8/10', 'byte'],
    ['bytes 5-9/10', 'byte'],
    ['bytes 4-9/10', 'bytes'],
    ['bytes 5-8/10', 'bytes'],
    ['bytes 5-9/1000', 'bytes'],
    ['bytes 5-9/*', 'bytes'],
    ['lines 5-9/10', 'bytes'],
  ] as const) {
    part(contentRange, body);
    await rejectsSafely(store.get('bucket', 'name', range), 'retry');
  }
});

scripted('a server that ignores ranges is understood', async (swift, store) => {
  swift.script = () => ({ status: 200, body: CONTENT });
  const get = async (offsetBytes: number, lengthBytes: number): Promise<string> => {
    const outcome = await store.get('bucket', 'name', { offsetBytes, lengthBytes });
    return outcome.kind === 'found' ? outcome.bytes.toString() : 'absent';
  };
  assert.equal(await get(5, 3), 'byt');
  assert.equal(await get(5, 100), 'bytes');
  assert.equal(await get(50, 100), '');
});

scripted('one connection serves many calls, those with error pages and without bodies too', async (swift, store) => {
  swift.script = (request) => ({ status: request.method === 'DELETE' ? 503 : 201, body: request.method === 'HEAD' ? '' : 'x'.repeat(10_000) });
  for (let turn = 0; turn < 5; turn += 1) {
    await store.put('bucket', 'name', bytes(CONTENT));
    await store.get('bucket', 'name');
    await rejectsSafely(store.delete('bucket', 'name'), 'retry');
  }
  assert.equal(swift.connections, 1);
});

scripted('half an answer is no answer', async (swift, store) => {
  swift.script = (_request, raw) => {
    raw.writeHead(200, { 'Content-Length': '1000', ETag: md5(CONTENT) });
    raw.write('x'.repeat(999), () => raw.destroy());
    return 'silence';
  };
  await rejectsSafely(store.get('bucket', 'name'), 'retry');
  await rejectsSafely(store.list('bucket', '', '', 10), 'retry');
  swift.script = (_request, raw) => {
    raw.write('[{"name": "a"}', () => raw.destroy());
    return 'silence';
  };
  await rejectsSafely(store.list('bucket', '', '', 10), 'retry');
  swift.script = () => 'cut';
  await rejectsSafely(store.put('bucket', 'name', bytes(CONTENT)), 'retry');
  await rejectsSafely(store.head('bucket', 'name'), 'retry');
});

scripted('what is no HTTP does not bring secrets into the error', async (swift, store) => {
  swift.script = (request, raw) => {
    raw.socket?.end(`HTTP/1.1 200 OK\r\nX-Auth-Token: ${String(request.headers['x-auth-token'])}\r\nContent-Length: x\r\n\r\n`);
    return 'silence';
  };
  await rejectsSafely(store.get('bucket', 'name'), 'retry');
});

scripted('an answer larger than any object is refused before it is in memory', async (swift, store) => {
  swift.script = (_request, raw) => {
    raw.writeHead(200, { 'Content-Length': String(2 ** 40) });
    raw.write('x');
    return 'silence';
  };
  assert.match((await rejectsSafely(store.get('bucket', 'name'), 'retry')).message, /1099511627776 bytes, more than/);
  swift.script = () => ({ status: 204, body: '' });
  await store.delete('bucket', 'name');
});

scripted('an answer of unknown length is read up to what it may have', async (swift, store) => {
  swift.script = (_request, raw) => {
    const more = (): void => void (raw.destroyed || raw.write('x'.repeat(16_384), () => setImmediate(more)));
    more();
    return 'silence';
  };
  assert.match((await rejectsSafely(store.delete('bucket', 'name'), 'retry')).message, /more than the 65536/);
  await until(() => swift.closedByPeer > 0);
});

scripted('an endless error page ends the connection, and the status counts', async (swift, store) => {
  swift.script = (_request, raw) => {
    raw.writeHead(503);
    const more = (): void => void (raw.destroyed || raw.write('x'.repeat(16_384), () => setImmediate(more)));
    more();
    return 'silence';
  };
  await rejectsSafely(store.get('bucket', 'name'), 'retry');
  await until(() => swift.closedByPeer > 0);
});

scripted(
  'a server that goes silent is given up: before its answer, in it, and while a body is sent',
  async (swift, store) => {
    swift.script = () => 'silence';
    assert.match((await rejectsSafely(store.head('bucket', 'name'), 'retry')).message, /silent for \d+ ms/);
    swift.script = (_request, raw) => {
      raw.writeHead(200, { 'Content-Length': '10' });
      raw.write('x');
      return 'silence';
    };
    await rejectsSafely(store.get('bucket', 'name'), 'retry');
    swift.onHead = (request) => {
      request.pause();
      return request.method === 'PUT';
    };
    await rejectsSafely(store.put('bucket', 'name', bytes(randomBytes(16 * 1024 * 1024))), 'retry');
    await until(() => swift.closedByPeer >= 2);
  },
  {},
  { silenceMsMax: 150 },
);

/** Tells how often the store looked at it: it does so at each byte of progress. */
class WatchedClock extends VirtualClock {
  looks = 0;

  override monotonicMs(): number {
    this.looks += 1;
    return super.monotonicMs();
  }
}

test('a server that is slow but not silent is waited for', async () => {
  await using swift = await ScriptedSwift.start();
  const clock = new WatchedClock();
  const store = new SwiftStore(swift.config(), { clock, silenceMsMax: 250 });
  const { promise: headSent, resolve } = Promise.withResolvers<ServerResponse>();
  swift.script = (_request, raw) => {
    raw.writeHead(200, { 'Content-Length': '8' });
    resolve(raw);
    return 'silence';
  };
  const read = readAllOf(store, 'bucket', 'name');
  const raw = await headSent;
  for (let sent = 0; sent < 8; sent += 1) {
    const { looks } = clock;
    raw.write('x');
    await until(() => clock.looks > looks);
    clock.advance(200);
  }
  assert.equal((await read).toString(), 'xxxxxxxx');
  await store.close();
});

scripted('an abort ends the connection at once, with the reason as cause', async (swift, store) => {
  swift.script = () => 'silence';
  const controller = new AbortController();
  const reason = new Error('enough');
  const call = store.get('bucket', 'name', undefined, controller.signal);
  await until(() => swift.requests.length > 0);
  controller.abort(reason);
  assert.equal((await rejectsSafely(call, 'retry')).cause, reason);
  await until(() => swift.closedByPeer > 0);
});

scripted('closing the store ends the calls that run', async (swift, store) => {
  swift.script = () => 'silence';
  const call = store.get('bucket', 'name');
  await until(() => swift.requests.length > 0);
  await store.close();
  await rejectsSafely(call, 'retry');
  await rejectsSafely(store.head('bucket', 'name'), 'retry');
});

scripted(
  'a refusal that is lost under a large body shows at the next put, which asks before it sends',
  async (swift, store) => {
    const body = randomBytes(8 * 1024 * 1024);
    swift.script = (request) => ({ status: 201, headers: { ETag: md5(request.body) } });
    await store.put('bucket', 'first', bytes(body));
    swift.ended = 1;
    let lost = 0;
    swift.onHead = (request, response) => {
      if (request.headers['x-auth-token'] !== 'token-1') return false;
      // As a load balancer may do: the connection is reset instead of 401.
      response.socket?.resetAndDestroy();
      lost += 1;
      return true;
    };
    await rejectsSafely(store.put('bucket', 'second', bytes(body)), 'retry');
    swift.onHead = null;
    assert.equal(await store.put('bucket', 'second', bytes(body)), 'written');
    assert.equal(swift.refusedBeforeBody, 1);
    assert.equal(lost, 1);
    assert.equal(swift.authentications.length, 2);
    const last = swift.requests.at(-1);
    assert.equal(last?.headers.expect, '100-continue');
    assert.deepEqual(last.body, body);
    assert.equal(await store.put('bucket', 'third', bytes(body)), 'written');
    assert.equal(swift.requests.at(-1)?.headers.expect, undefined);
  },
  {},
  // Who asks first waits for the answer for as long as it takes.
  { clock: new VirtualClock() },
);

test('a pause that the server asks for is kept, by writes and reads apart, and is bounded', async () => {
  await using swift = await ScriptedSwift.start();
  const clock = new VirtualClock();
  const store = new SwiftStore(swift.config(), { clock, silenceMsMax: 3_600_000 });
  swift.script = (request) => (request.method === 'GET' ? { status: 200, body: CONTENT } : { status: 503, headers: { 'Retry-After': '3' } });
  await rejectsSafely(store.delete('bucket', 'name'), 'retry');
  await store.get('bucket', 'name');
  assert.equal(clock.monotonicMs(), 0);

  swift.script = () => ({ status: 429, headers: { 'Retry-After': '86400' } });
  const held = store.delete('bucket', 'name');
  const controller = new AbortController();
  const aborted = rejectsSafely(store.delete('bucket', 'other', controller.signal), 'retry');
  await new Promise(setImmediate);
  controller.abort();
  await aborted;
  clock.advance(2999);
  await new Promise(setImmediate);
  assert.equal(swift.requests.length, 2);
  clock.advance(1);
  await rejectsSafely(held, 'retry');

  swift.script = () => ({ status: 204 });
  const again = store.delete('bucket', 'name');
  clock.advance(9999);
  await new Promise(setImmediate);
  assert.equal(swift.requests.length, 3);
  clock.advance(1);
  await again;

  swift.script = () => ({ status: 503, headers: { 'Retry-After': new Date(clock.wallMs() + 2000).toUTCString() } });
  await rejectsSafely(store.delete('bucket', 'name'), 'retry');
  swift.script = () => ({ status: 204 });
  const dated = store.delete('bucket', 'name');
  await new Promise(setImmediate);
  assert.equal(swift.requests.length, 5);
  clock.advance(2000);
  await dated;
  await store.close();
});

scripted('a listing is asked for in pages that Swift allows, until an empty one', async (swift, store) => {
  const names = Array.from({ length: 25_000 }, (_, index) => `n${String(index).padStart(6, '0')}`);
  swift.script = (request) => {
    const query = new URL(request.path, swift.origin).searchParams;
    const limit = Number(query.get('limit'));
    if (limit > 10_000) return { status: 412 };
    const marker = query.get('marker') ?? '';
    const page = names.filter((name) => name > marker).slice(0, limit);
    return { status: 200, body: JSON.stringify(page.map((name) => ({ name, bytes: 1, hash: 'x' }))) };
  };
  assert.deepEqual(await store.list('bucket', '', '', 30_000), { names, more: false });
  assert.equal(swift.requests.length, 4);
  assert.deepEqual(await store.list('bucket', '', names[9] ?? '', 12_000), { names: names.slice(10, 12_010), more: true });
  const { searchParams, pathname } = new URL(swift.requests[0]?.path ?? '', swift.origin);
  assert.equal(pathname, '/v1/AUTH_x/bucket');
  assert.deepEqual(Object.fromEntries(searchParams), { format: 'json', limit: '10000' });
});

scripted('a cluster with smaller pages, and one that gives less than was asked for, are understood', async (swift, store) => {
  const names = Array.from({ length: 700 }, (_, index) => `n${String(index).padStart(6, '0')}`);
  swift.script = (request) => {
    const query = new URL(request.path, swift.origin).searchParams;
    if (Number(query.get('limit')) > 500) return { status: 412 };
    const page = names.filter((name) => name > (query.get('marker') ?? '')).slice(0, 40);
    return { status: 200, body: JSON.stringify(page.map((name) => ({ name }))) };
  };
  assert.deepEqual(await store.list('bucket', '', '', 5000), { names, more: false });
});

scripted('names that are not ours are left out, whole pages of them too', async (swift, store) => {
  const names = ['a/b', 'a b', 'good', '\u00fc', '\u{10000}'];
  swift.script = (request) => {
    const query = new URL(request.path, swift.origin).searchParams;
    const marker = Buffer.from(query.get('marker') ?? '');
    const page = names
      .map((name) => Buffer.from(name))
      .toSorted(Buffer.compare)
      .filter((name) => Buffer.compare(name, marker) > 0)
      .slice(0, Number(query.get('limit')));
    return { status: 200, body: JSON.stringify(page.map((name) => ({ name: name.toString() }))) };
  };
  assert.deepEqual(await store.list('bucket', '', '', 1), { names: ['good'], more: false });
});

scripted('a hostile listing is refused as retry', async (swift, store) => {
  for (const body of [
    '{"name": "a"}',
    'null',
    '["a"]',
    '[{"subdir": "a"}]',
    '[{"name": 5}]',
    '[{"name": "a"}',
    '<html>',
    '[{"name": "pb"}, {"name": "pa"}]',
    '[{"name": "pa"}, {"name": "pa"}]',
    '[{"name": "other"}]',
    '[{"name": "q"}]',
    '[{"name": "p"}]',
  ]) {
    swift.script = () => ({ status: 200, body });
    await rejectsSafely(store.list('bucket', 'p', 'p', 10), 'retry');
  }
  assert.throws(() => parseListing(Buffer.from('[{"name": "q"}]'), 'p', 'p', 'list bucket'), /not in order/);
});
