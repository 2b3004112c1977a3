/** Keystone v3, played by a script: what is asked, and what of a catalog is taken. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { StoreErrorClass } from '../object-store.ts';
import { VirtualClock } from '../virtual-clock.ts';
import { rejectsSafely, SECRET, ScriptedSwift } from './scripted-swift.fixture.ts';
import { authenticate } from './swift-auth.ts';
import type { SwiftAuth, SwiftStoreConfig } from './swift-config.ts';
import { SwiftStore } from './swift-store.ts';

const PASSWORD = {
  kind: 'password',
  user: 'vferry',
  userDomain: 'Default',
  password: SECRET,
  project: 'storage',
  projectDomain: 'Default',
} as const;

function keystoneAuth(url: string, credentials: Extract<SwiftAuth, { version: 3 }>['credentials'] = PASSWORD): SwiftAuth {
  return { version: 3, url, credentials };
}

/** A catalog as Keystone gives it: two regions, three interfaces, another service. */
function catalog(origin: string): unknown[] {
  const endpoint = (kind: string, region: string) => ({ interface: kind, region, region_id: region, url: `${origin}/v1/AUTH_x_${kind}_${region}` });
  return [
    { type: 'identity', endpoints: [{ interface: 'public', region: 'north', region_id: 'north', url: `${origin}/v3` }] },
    { type: 'object-store', endpoints: ['admin', 'internal', 'public'].flatMap((kind) => [endpoint(kind, 'north'), endpoint(kind, 'south')]) },
  ];
}

function grant(swift: ScriptedSwift, token: Record<string, unknown> = {}): void {
  swift.authAnswer = () => {
    swift.granted += 1;
    const body = JSON.stringify({
      token: { issued_at: '2026-01-01T00:00:00.000000Z', expires_at: '2026-01-01T01:00:00.000000Z', catalog: catalog(swift.origin), ...token },
    });
    return { status: 201, headers: { 'X-Subject-Token': `token-${swift.granted}`, 'Content-Type': 'application/json' }, body };
  };
}

/** Where a store with these settings sends its requests. */
async function accountOf(swift: ScriptedSwift, change: Partial<SwiftStoreConfig>): Promise<string> {
  const store = new SwiftStore(swift.config({ auth: keystoneAuth(swift.origin), ...change }));
  await store.head('bucket', 'name');
  await store.close();
  return /^\/v1\/(.*)\/bucket\/name$/.exec(swift.requests.at(-1)?.path ?? '')?.[1] ?? 'elsewhere';
}

async function refusedAs(swift: ScriptedSwift, change: Partial<SwiftStoreConfig>, errorClass: StoreErrorClass): Promise<string> {
  const store = new SwiftStore(swift.config({ auth: keystoneAuth(swift.origin), ...change }));
  const { message } = await rejectsSafely(store.head('bucket', 'name'), errorClass);
  await store.close();
  return message;
}

test('a password is sent as the Identity API v3 says, scoped to the project, and the token is used', async () => {
  await using swift = await ScriptedSwift.start();
  grant(swift);
  await accountOf(swift, {});
  const [request] = swift.authentications;
  assert.equal(`${request?.method} ${request?.path}`, 'POST /v3/auth/tokens');
  assert.equal(request?.headers['content-type'], 'application/json');
  assert.deepEqual(JSON.parse(String(request.body)), {
    auth: {
      identity: { methods: ['password'], password: { user: { name: 'vferry', domain: { name: 'Default' }, password: SECRET } } },
      scope: { project: { name: 'storage', domain: { name: 'Default' } } },
    },
  });
  assert.equal(swift.requests[0]?.headers['x-auth-token'], 'token-1');
});

test('an application credential is sent without a scope: it has its own', async () => {
  await using swift = await ScriptedSwift.start();
  grant(swift);
  await accountOf(swift, { auth: keystoneAuth(swift.origin, { kind: 'application-credential', id: 'abc', secret: SECRET }) });
  assert.deepEqual(JSON.parse(String(swift.authentications[0]?.body)), {
    auth: { identity: { methods: ['application_credential'], application_credential: { id: 'abc', secret: SECRET } } },
  });
});

test('the URL may be given with or without /v3, or as far as the tokens', async () => {
  await using swift = await ScriptedSwift.start();
  grant(swift);
  for (const path of ['', '/', '/v3', '/v3/', '/v3/auth/tokens']) await accountOf(swift, { auth: keystoneAuth(`${swift.origin}${path}`) });
  await accountOf(swift, { auth: keystoneAuth(`${swift.origin}/identity`) });
  const paths = swift.authentications.map((request) => request.path);
  assert.deepEqual(paths, [...Array<string>(5).fill('/v3/auth/tokens'), '/identity/v3/auth/tokens']);
});

test('the endpoint is that of the interface and the region; without a region the first of the interface', async () => {
  await using swift = await ScriptedSwift.start();
  grant(swift);
  assert.equal(await accountOf(swift, {}), 'AUTH_x_public_north');
  assert.equal(await accountOf(swift, { region: 'south' }), 'AUTH_x_public_south');
  assert.equal(await accountOf(swift, { region: 'south', endpointInterface: 'internal' }), 'AUTH_x_internal_south');
  assert.equal(await accountOf(swift, { endpointInterface: 'admin' }), 'AUTH_x_admin_north');
  assert.equal(await accountOf(swift, { storageUrl: `${swift.origin}/v1/AUTH_x_mine/` }), 'AUTH_x_mine');
});

test('a catalog without the endpoint is denied, and says which it has', async () => {
  await using swift = await ScriptedSwift.start();
  grant(swift);
  assert.match(await refusedAs(swift, { region: 'west' }, 'denied'), /no object-store public endpoint in region west; it has: .*public in south/);
  for (const hostile of [undefined, null, 5, [], [null], [{ type: 'object-store' }], [{ type: 'object-store', endpoints: [null, { url: 5 }] }]]) {
    grant(swift, { catalog: hostile });
    assert.match(await refusedAs(swift, {}, 'denied'), /no object-store public endpoint; it has no object store/);
  }
  grant(swift, { catalog: [{ type: 'object-store', endpoints: [{ interface: 'public', url: 'ftp://host/' }] }] });
  assert.match(await refusedAs(swift, {}, 'denied'), /not an http/);
});

test('an answer that is no JSON may be a passing fault; one without a token is not Keystone', async () => {
  await using swift = await ScriptedSwift.start();
  swift.authAnswer = () => ({ status: 201, headers: { 'X-Subject-Token': 'token-1' }, body: '<html> token-1' });
  assert.match(await refusedAs(swift, {}, 'retry'), /not JSON/);
  swift.authAnswer = () => ({ status: 201, body: '{}' });
  assert.match(await refusedAs(swift, {}, 'denied'), /no usable X-Subject-Token/);
  swift.authAnswer = () => ({ status: 401 });
  assert.match(await refusedAs(swift, {}, 'denied'), /wrong user, key, password, project or domain/);
});

test("a token's life is the difference of Keystone's own times, and it is renewed before its end", async () => {
  await using swift = await ScriptedSwift.start();
  grant(swift);
  const clock = new VirtualClock();
  const store = new SwiftStore(swift.config({ auth: keystoneAuth(swift.origin) }), { clock, silenceMsMax: 86_400_000 });
  await store.head('bucket', 'name');
  clock.advance(54 * 60_000);
  await store.head('bucket', 'name');
  assert.equal(swift.authentications.length, 1);
  clock.advance(60_000);
  await store.head('bucket', 'name');
  for (let looks = 0; swift.granted < 2; looks += 1) {
    assert.ok(looks < 24_000, 'the token was never renewed');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  clock.advance(6 * 60_000);
  await store.head('bucket', 'name');
  assert.equal(swift.authentications.length, 2);
  assert.deepEqual(new Set(swift.requests.slice(0, 2).map((request) => request.headers['x-auth-token'])), new Set(['token-1']));
  assert.equal(swift.requests.at(-1)?.headers['x-auth-token'], 'token-2');
  await store.close();
});

test('a storage URL without TLS is refused when authentication was over TLS, unless the settings name it', async () => {
  const named = (storageUrl: string) => ({
    exchange: () => Promise.resolve({ status: 200, headers: { 'x-auth-token': 'token-1', 'x-storage-url': storageUrl }, body: Buffer.alloc(0) }),
  });
  const settings = (storageUrl: string | null): SwiftStoreConfig => ({
    kind: 'swift',
    auth: { version: 1, url: 'https://auth/v1.0', user: 'account:user', key: SECRET },
    region: null,
    endpointInterface: 'public',
    storageUrl,
    caFile: null,
  });
  const error = await rejectsSafely(authenticate(named('http://storage/v1/AUTH_x'), settings(null)), 'denied');
  assert.match(error.message, /without TLS \(http:\/\/storage\)/);
  assert.equal((await authenticate(named('https://storage/v1/AUTH_x/'), settings(null))).storageUrl, 'https://storage/v1/AUTH_x');
  assert.equal((await authenticate(named('https://x/'), settings('http://inside/v1/AUTH_x'))).storageUrl, 'http://inside/v1/AUTH_x');
});
