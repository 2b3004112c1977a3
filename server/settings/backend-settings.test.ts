/** Settings of a backend: what depends on its kind, and what contradicts. How values and secrets are read is in settings.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { BackendSettings } from './backend-settings.ts';
import { loadSettings } from './load.ts';
import { SettingsError } from './settings-error.ts';

/** Keys are below `vpool.backend`. */
function backendOf(flags: Readonly<Record<string, string>>): BackendSettings {
  const entries = Object.entries(flags).map(([key, value]) => [`vpool.backend.${key}`, value] as const);
  return loadSettings({
    flags: new Map(entries),
    flagLabels: new Map(entries.map(([key]) => [key, '--flag'])),
    environment: {},
    configPath: null,
    machine: { workingDirectory: '/work', memoryBytes: 8 * 2 ** 30 },
  }).settings.vpool.backend;
}

/** Without where they come from and the common prefix. */
function problemsOf(flags: Readonly<Record<string, string>>): string[] {
  try {
    backendOf(flags);
  } catch (error) {
    if (error instanceof SettingsError) return error.problems.map((problem) => problem.replaceAll('vpool.backend.', ''));
    throw error;
  }
  return [];
}

const TEMPAUTH = { kind: 'swift', 'swift.authUrl': 'http://swift/auth/v1.0', 'swift.user': 'test:tester', 'swift.key': 'testing' };
const KEYSTONE = { kind: 'swift', 'swift.authUrl': 'https://keystone:5000/v3', 'swift.user': 'u', 'swift.key': 'k', 'swift.project': 'p' };
const APPLICATION = {
  kind: 'swift',
  'swift.authUrl': 'https://keystone:5000/v3',
  'swift.applicationCredentialId': 'id',
  'swift.applicationCredentialSecret': 's',
};
const AWS = { kind: 's3' };
const OWN_S3 = { kind: 's3', 's3.endpoint': 'https://s3.example.com:9000', 's3.accessKeyId': 'id', 's3.secretAccessKey': 's' };

function swiftOf(flags: Readonly<Record<string, string>>) {
  const backend = backendOf(flags);
  assert.ok(backend.kind === 'swift');
  return backend.swift;
}

function s3Of(flags: Readonly<Record<string, string>>) {
  const backend = backendOf(flags);
  assert.ok(backend.kind === 's3');
  return backend.s3;
}

test('a layout that is not chosen is buckets on directory and swift, and prefix on s3', () => {
  for (const [flags, layout] of [
    [{}, 'buckets'],
    [TEMPAUTH, 'buckets'],
    [AWS, 'prefix'],
  ] as const) {
    assert.equal(backendOf(flags).layout, layout);
    assert.equal(backendOf({ ...flags, layout: 'buckets' }).layout, 'buckets');
    assert.equal(backendOf({ ...flags, layout: 'prefix' }).layout, 'prefix');
  }
});

test('the version of authentication follows from the URL, a project or an application credential, unless it is said', () => {
  assert.equal(swiftOf(TEMPAUTH).authVersion, 1);
  assert.equal(swiftOf(KEYSTONE).authVersion, 3);
  assert.equal(swiftOf({ ...KEYSTONE, 'swift.authUrl': 'https://keystone/identity' }).authVersion, 3);
  assert.equal(swiftOf({ ...APPLICATION, 'swift.authUrl': 'https://keystone/identity' }).authVersion, 3);
  assert.equal(swiftOf({ ...TEMPAUTH, 'swift.authUrl': 'http://swift/v3/auth', 'swift.authVersion': '1' }).authVersion, 1);
});

test('domains default to Default and the interface to public, where Keystone wants them', () => {
  const of = (flags: Readonly<Record<string, string>>): unknown[] => {
    const { userDomain, projectDomain, interface: endpoint } = swiftOf(flags);
    return [userDomain, projectDomain, endpoint];
  };
  assert.deepEqual(of(KEYSTONE), ['Default', 'Default', 'public']);
  assert.deepEqual(of({ ...KEYSTONE, 'swift.userDomain': 'a', 'swift.projectDomain': 'b', 'swift.interface': 'internal' }), ['a', 'b', 'internal']);
  assert.deepEqual(of(APPLICATION), [null, null, 'public']);
  assert.deepEqual(of(TEMPAUTH), [null, null, null]);
});

test('the bucket is in the path of the URL except on AWS', () => {
  assert.equal(s3Of(AWS).pathStyle, false);
  assert.equal(s3Of({ ...AWS, 's3.endpoint': 'https://s3.eu-west-1.amazonaws.com' }).pathStyle, false);
  assert.equal(s3Of(OWN_S3).pathStyle, true);
  assert.equal(s3Of({ ...OWN_S3, 's3.endpoint': 'https://amazonaws.com.example.org' }).pathStyle, true);
  assert.equal(s3Of({ ...OWN_S3, 's3.pathStyle': 'false' }).pathStyle, false);
  assert.equal(s3Of({ ...AWS, 's3.pathStyle': 'true' }).pathStyle, true);
});

test('prices are those of AWS there, nothing elsewhere, and what is said', () => {
  assert.deepEqual(backendOf(AWS).prices, {
    currency: 'USD',
    putPerThousand: 0.005,
    getPerThousand: 0.0004,
    deletePerThousand: 0,
    outPerGigabyte: 0.09,
    storagePerGigabyteMonth: 0.023,
  });
  for (const flags of [{}, TEMPAUTH, OWN_S3]) assert.equal(backendOf(flags).prices.putPerThousand, 0);
  assert.equal(backendOf({ ...TEMPAUTH, 'prices.putPerThousand': '0.01', 'prices.currency': 'EUR' }).prices.putPerThousand, 0.01);
});

test('files named in settings become absolute', () => {
  const swift = backendOf({ ...TEMPAUTH, 'swift.caFile': 'ca.pem', keyFile: 'k' });
  assert.ok(swift.kind === 'swift');
  assert.deepEqual([swift.swift.caFile, swift.keyFile], ['/work/ca.pem', '/work/k']);
  const { 'swift.key': _key, ...withoutKey } = TEMPAUTH;
  assert.equal(swiftOf({ ...withoutKey, 'swift.keyFile': 'pw' }).keyFile, '/work/pw');
  const { 's3.secretAccessKey': _secret, ...withoutSecret } = OWN_S3;
  assert.equal(s3Of({ ...withoutSecret, 's3.secretAccessKeyFile': '/run/secrets/s3' }).secretAccessKeyFile, '/run/secrets/s3');
});

test('what belongs to another kind of backend is refused', () => {
  assert.deepEqual(problemsOf({ 'swift.user': 'x', 's3.region': 'y' }), [
    '--flag: swift.user is for a backend of kind swift, but kind is directory; remove it or change the kind',
    '--flag: s3.region is for a backend of kind s3, but kind is directory; remove it or change the kind',
  ]);
  assert.deepEqual(problemsOf({ ...AWS, path: '/b', hardLinks: 'true' }), [
    '--flag: path is for a backend of kind directory, but kind is s3; remove it or change the kind',
    '--flag: hardLinks is for a backend of kind directory, but kind is s3; remove it or change the kind',
  ]);
  assert.deepEqual(problemsOf({ ...TEMPAUTH, 's3.endpoint': 'http://x' }), [
    '--flag: s3.endpoint is for a backend of kind s3, but kind is swift; remove it or change the kind',
  ]);
});

test('a bucket without layout prefix is refused', () => {
  assert.deepEqual(problemsOf({ ...TEMPAUTH, bucket: 'vms' }), ['--flag: bucket is the one bucket of layout prefix, but layout is buckets']);
  assert.equal(backendOf({ ...TEMPAUTH, bucket: 'vms', layout: 'prefix' }).bucket, 'vms');
  assert.equal(backendOf({ ...AWS, bucket: 'vms' }).bucket, 'vms');
});

test('encryption needs a key, from one place', () => {
  assert.deepEqual(problemsOf({ encryption: 'aes-256-gcm' }), [
    '--flag: encryption is aes-256-gcm, which needs a key: set keyFile (vferry key generate makes one)',
  ]);
  assert.deepEqual(problemsOf({ encryption: 'aes-256-gcm', key: 'x', keyFile: '/k' }), ['--flag: keyFile and key are both set; remove one of them']);
  // Keys without encryption read what was encrypted before.
  assert.deepEqual(problemsOf({ encryption: 'none', keyFile: '/k' }), []);
});

/** What is taken away, and what is said then. */
const MISSING: readonly (readonly [Readonly<Record<string, string>>, string, string])[] = [
  [TEMPAUTH, 'swift.authUrl', 'settings: swift.authUrl must be set with kind swift'],
  [TEMPAUTH, 'swift.user', 'settings: swift.user must be set with authentication v1'],
  [TEMPAUTH, 'swift.key', 'settings: swift.key must be set (or swift.keyFile) with a user'],
  [KEYSTONE, 'swift.user', 'settings: swift.user must be set (or swift.applicationCredentialId) with Keystone'],
  [KEYSTONE, 'swift.key', 'settings: swift.key must be set (or swift.keyFile) with a user'],
  [KEYSTONE, 'swift.project', 'settings: swift.project must be set with a user of Keystone'],
  [
    APPLICATION,
    'swift.applicationCredentialSecret',
    'settings: swift.applicationCredentialSecret must be set (or swift.keyFile) with swift.applicationCredentialId',
  ],
  [OWN_S3, 's3.secretAccessKey', 'settings: s3.secretAccessKey must be set (or s3.secretAccessKeyFile) with s3.accessKeyId'],
];

for (const [complete, key, message] of MISSING) {
  test(`${complete['kind'] === 'swift' ? `${complete['swift.authUrl']} ` : ''}${key} is missed when it is not there`, () => {
    assert.deepEqual(problemsOf(complete), []);
    assert.deepEqual(problemsOf(Object.fromEntries(Object.entries(complete).filter(([other]) => other !== key))), [message]);
  });
}

test('credentials that contradict each other are refused', () => {
  const both = '; remove one of them';
  assert.deepEqual(problemsOf({ ...TEMPAUTH, 'swift.keyFile': '/k' }), [`--flag: swift.key and swift.keyFile are both set${both}`]);
  assert.deepEqual(problemsOf({ ...TEMPAUTH, 'swift.region': 'r' }), [
    '--flag: swift.region is for Keystone (swift.authVersion 3), but swift.authVersion is 1',
  ]);
  assert.deepEqual(problemsOf({ ...APPLICATION, 'swift.user': 'u' }), [
    '--flag: swift.user is set beside swift.applicationCredentialId, which stands for user and project',
  ]);
  assert.deepEqual(problemsOf({ ...KEYSTONE, 'swift.applicationCredentialSecret': 's' }), [
    '--flag: swift.applicationCredentialSecret is set without swift.applicationCredentialId',
  ]);
  assert.deepEqual(problemsOf({ ...OWN_S3, 's3.secretAccessKeyFile': '/k' }), [
    `--flag: s3.secretAccessKey and s3.secretAccessKeyFile are both set${both}`,
  ]);
  assert.deepEqual(problemsOf({ ...OWN_S3, 's3.profile': 'p' }), [`--flag: s3.accessKeyId and s3.profile are both set${both}`]);
  assert.deepEqual(problemsOf({ ...AWS, 's3.sessionToken': 't' }), ['--flag: s3.sessionToken is set without s3.accessKeyId']);
});
