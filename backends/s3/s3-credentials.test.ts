/** Where credentials come from when the settings have none: the shared file, the environment, the role of an instance (EC2's metadata service). */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { rejectsWith, withDirectory } from '../conformance.ts';
import type { S3StoreConfig } from './s3-config.ts';
import { type ScriptedS3, withScriptedS3 } from './scripted-s3.fixture.ts';

/** Replaces all `AWS_*` variables until the end of the test. Without others, no metadata service is asked. */
function environment(t: TestContext, variables: Readonly<Record<string, string>>): void {
  const saved = { ...process.env };
  t.after(() => {
    process.env = saved;
  });
  for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) delete process.env[name];
  Object.assign(process.env, { AWS_CONFIG_FILE: '/nonexistent', AWS_SHARED_CREDENTIALS_FILE: '/nonexistent', ...variables });
}

/** Runs `body` with a store that has to find its credentials, over a service that deletes whatever is asked for. */
function withoutCredentials(body: (scripted: ScriptedS3) => Promise<void>, changes: Partial<S3StoreConfig> = {}): Promise<void> {
  return withScriptedS3((_, response) => void response.writeHead(204).end(), body, { credentials: null, ...changes });
}

function accessKeysOf({ requests }: ScriptedS3): (string | undefined)[] {
  return requests.map(({ headers }) => /Credential=([^/]+)\//.exec(headers.authorization ?? '')?.[1]);
}

test('the environment, with its session token', async (t) => {
  environment(t, { AWS_ACCESS_KEY_ID: 'from-environment', AWS_SECRET_ACCESS_KEY: 'secret-7531', AWS_SESSION_TOKEN: 'session-of-environment' });
  await withoutCredentials(async (scripted) => {
    await scripted.store.delete('bucket', 'name');
    assert.deepEqual(accessKeysOf(scripted), ['from-environment']);
    assert.equal(scripted.requests[0]?.headers['x-amz-security-token'], 'session-of-environment');
  });
});

test('the profile of the shared credentials file that the settings name, and only that', (t) =>
  withDirectory(async (directory) => {
    const file = join(directory, 'credentials');
    const profile = (name: string): string => `[${name}]\naws_access_key_id = key-of-${name}\naws_secret_access_key = secret-7531\n`;
    writeFileSync(file, profile('default') + profile('vferry'));
    environment(t, { AWS_SHARED_CREDENTIALS_FILE: file, AWS_EC2_METADATA_DISABLED: 'true' });
    await withoutCredentials(
      async (scripted) => {
        await scripted.store.delete('bucket', 'name');
        assert.deepEqual(accessKeysOf(scripted), ['key-of-vferry']);
      },
      { profile: 'vferry' },
    );
    await withoutCredentials(
      async ({ store, requests }) => {
        assert.match((await rejectsWith(store.delete('bucket', 'name'), 'denied')).message, /CredentialsProviderError/);
        assert.equal(requests.length, 0);
      },
      { profile: 'of-nobody' },
    );
  }));

test('nothing anywhere is denied, with all the places named', async (t) => {
  environment(t, { AWS_EC2_METADATA_DISABLED: 'true' });
  await withoutCredentials(async ({ store, requests }) => {
    const error = await rejectsWith(store.delete('bucket', 'name'), 'denied');
    assert.match(error.message, /no credentials in the settings, the environment, the shared file or from the instance/);
    assert.equal(requests.length, 0);
  });
});

/** A service that gives out credentials, numbered, or fails. */
interface Issuer {
  readonly url: string;
  issued: number;
  fails: boolean;
  validMs: number;
}

async function issuer(t: TestContext): Promise<Issuer> {
  const state = { url: '', issued: 0, fails: false, validMs: 60_000 };
  const server = createServer((request, response) => {
    const path = request.url ?? '';
    if (state.fails) response.writeHead(500).end();
    else if (path === '/latest/api/token') response.end('token');
    else if (/\/security-credentials\/?$/.test(path)) response.end('role');
    else {
      state.issued += 1;
      const keys = { AccessKeyId: `key-${state.issued}`, SecretAccessKey: 'secret-7531', Token: `session-${state.issued}` };
      response.end(JSON.stringify({ Code: 'Success', ...keys, Expiration: new Date(Date.now() + state.validMs).toISOString() }));
    }
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  state.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return state;
}

test('the role of an instance', async (t) => {
  const metadata = await issuer(t);
  environment(t, { AWS_EC2_METADATA_SERVICE_ENDPOINT: metadata.url });
  await withoutCredentials(async (scripted) => {
    await scripted.store.delete('bucket', 'name');
    assert.deepEqual(accessKeysOf(scripted), ['key-1']);
    assert.equal(scripted.requests[0]?.headers['x-amz-security-token'], 'session-1');
  });
});

test('the role of a container: keys are renewed when they end, and who gives them out may be down for a while', async (t) => {
  const agent = await issuer(t);
  environment(t, { AWS_CONTAINER_CREDENTIALS_FULL_URI: `${agent.url}/keys` });
  await withoutCredentials(async (scripted) => {
    const { store } = scripted;
    // Over when they arrive: the next request needs new ones.
    agent.validMs = -1000;
    await store.delete('bucket', 'name');
    agent.fails = true;
    await rejectsWith(store.delete('bucket', 'name'), 'retry');
    agent.fails = false;
    agent.validMs = 3_600_000;
    await store.delete('bucket', 'name');
    await store.delete('bucket', 'name');
    const [first, ...renewed] = accessKeysOf(scripted);
    assert.equal(renewed.length, 2);
    assert.ok(renewed.every((key) => key === `key-${agent.issued}` && key !== first));
  });
});
