/** Settings of registry and cluster: what depends on what, and what contradicts. How values and secrets are read is in settings.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { type LoadedSettings, loadSettings } from './load.ts';
import { printSettings, printSharedSettings } from './print.ts';
import { SettingsError } from './settings-error.ts';
import type { Settings } from './settings.ts';

function load(flags: Readonly<Record<string, string>>): LoadedSettings {
  const entries = Object.entries(flags);
  return loadSettings({
    flags: new Map(entries),
    flagLabels: new Map(entries.map(([key]) => [key, '--flag'])),
    environment: {},
    configPath: null,
    machine: { workingDirectory: '/work', memoryBytes: 8 * 2 ** 30 },
  });
}

function settingsOf(flags: Readonly<Record<string, string>>): Settings {
  return load(flags).settings;
}

function problemsOf(flags: Readonly<Record<string, string>>): readonly string[] {
  try {
    load(flags);
  } catch (error) {
    if (error instanceof SettingsError) return error.problems;
    throw error;
  }
  return [];
}

/** A router of a cluster with the least that it needs. */
const REDIS = { 'registry.kind': 'redis', 'registry.redis.urls': 'redis://10.0.0.9:6379', 'vpool.backend.path': '/shared' };
const SENTINEL = {
  ...REDIS,
  'registry.redis.mode': 'sentinel',
  'registry.redis.urls': 'redis://10.0.0.9:26379, redis://10.0.0.10:26379, redis://[fd00::9]:26379',
  'registry.redis.sentinelName': 'mymaster',
};
const TLS = { ...REDIS, 'registry.redis.urls': 'rediss://redis.example.com:6380' };
/** Listens where other machines reach it. */
const OPEN = { ...REDIS, 'cluster.listen': '10.0.0.1' };

test('a router of a cluster has its registry in Redis', () => {
  const { kind, redis } = settingsOf(REDIS).registry;
  assert.equal(kind, 'redis');
  assert.deepEqual(redis.urls, ['redis://10.0.0.9:6379']);
  assert.deepEqual(settingsOf(SENTINEL).registry.redis.urls, ['redis://10.0.0.9:26379', 'redis://10.0.0.10:26379', 'redis://[fd00::9]:26379']);
  assert.equal(
    settingsOf({ ...REDIS, 'registry.redis.mode': 'cluster', 'registry.redis.urls': 'redis://a:1,redis://b:2' }).registry.redis.urls.length,
    2,
  );
});

test('one replica must have a change before it is answered, except with a single Redis', () => {
  const replicasMin = (flags: Readonly<Record<string, string>>): number => settingsOf(flags).registry.redis.replicasMin;
  assert.equal(replicasMin(REDIS), 0);
  assert.equal(replicasMin(SENTINEL), 1);
  assert.equal(replicasMin({ ...REDIS, 'registry.redis.mode': 'cluster' }), 1);
  assert.equal(replicasMin({ ...SENTINEL, 'registry.redis.replicasMin': '0' }), 0);
  assert.equal(replicasMin({ ...REDIS, 'registry.redis.replicasMin': '2' }), 2);
});

test('files become absolute', () => {
  const { redis } = settingsOf({
    ...TLS,
    'registry.redis.caFile': 'ca.pem',
    'registry.redis.certFile': 'c.pem',
    'registry.redis.keyFile': '/k.pem',
    'registry.redis.passwordFile': 'pw',
  }).registry;
  assert.deepEqual([redis.caFile, redis.certFile, redis.keyFile, redis.passwordFile], ['/work/ca.pem', '/work/c.pem', '/k.pem', '/work/pw']);
});

test('peers are encrypted unless they listen on loopback; the certificates are in the data directory', () => {
  const certificates = (flags: Readonly<Record<string, string>>): string => settingsOf(flags).cluster.certificates;
  assert.equal(certificates(REDIS), 'none');
  assert.equal(certificates({ ...REDIS, 'cluster.listen': '::1' }), 'none');
  assert.equal(certificates(OPEN), '/work/data/cluster');
  assert.equal(certificates({ ...OPEN, data: '/srv' }), '/srv/cluster');
  assert.equal(certificates({ ...REDIS, 'cluster.certificates': 'c' }), '/work/c');
  assert.equal(certificates({ ...REDIS, 'cluster.certificates': 'none' }), 'none');
  assert.deepEqual(problemsOf({ ...OPEN, 'cluster.certificates': 'none' }), [
    '--flag: cluster.certificates is none, but cluster.listen is 10.0.0.1, which other machines can reach; make certificates with vferry cluster init',
  ]);
});

test('a router on its own is as it was: nothing of a cluster is asked of it', () => {
  assert.deepEqual(problemsOf({ 'cluster.listen': '0.0.0.0', 'cluster.certificates': 'none', 'cluster.port': '2049', 'cluster.leaseMs': '6s' }), []);
  // Where backend and data are one directory, it is not shared.
  assert.deepEqual(problemsOf({ 'vpool.backend.path': '/work/data/b' }), []);
});

test('what is for Redis is refused while the registry is SQLite: a second router would make a datastore of its own', () => {
  const only = (key: string): string =>
    `--flag: registry.redis.${key} is for a registry of kind redis, but registry.kind is sqlite; remove it or set registry.kind: redis`;
  assert.deepEqual(problemsOf({ 'registry.redis.urls': 'redis://a:1' }), [only('urls')]);
  assert.deepEqual(problemsOf({ 'registry.redis.passwordFile': '/k', 'registry.redis.sentinelName': 'x' }), [
    only('sentinelName'),
    only('passwordFile'),
  ]);
});

/** What is changed or taken away, and the one thing that is said then. */
const CONTRADICTIONS: readonly (readonly [string, Readonly<Record<string, string | null>>, string])[] = [
  [
    'no URL',
    { ...REDIS, 'registry.redis.urls': null },
    'settings: registry.redis.urls must be set with a registry of kind redis, for example [redis://192.168.10.5:6379]',
  ],
  [
    'two single Redis',
    { ...REDIS, 'registry.redis.urls': 'redis://a:1,redis://b:2' },
    '--flag: registry.redis.urls has 2 URLs, but registry.redis.mode is standalone, which has one; set mode to sentinel or cluster',
  ],
  [
    'some with TLS',
    { ...SENTINEL, 'registry.redis.urls': 'redis://a:1,rediss://b:2' },
    '--flag: registry.redis.urls mixes redis:// and rediss://; all must be of one kind',
  ],
  [
    'no name at the Sentinels',
    { ...SENTINEL, 'registry.redis.sentinelName': null },
    'settings: registry.redis.sentinelName must be set with mode sentinel: the name of the primary, for example mymaster',
  ],
  [
    'a name without Sentinels',
    { ...REDIS, 'registry.redis.sentinelName': 'x' },
    '--flag: registry.redis.sentinelName is for registry.redis.mode sentinel, but the mode is standalone',
  ],
  [
    'a password for Sentinels without any',
    { ...REDIS, 'registry.redis.sentinelPassword': 'x' },
    '--flag: registry.redis.sentinelPassword is for registry.redis.mode sentinel, but the mode is standalone',
  ],
  [
    'two passwords',
    { ...REDIS, 'registry.redis.password': 'x', 'registry.redis.passwordFile': '/k' },
    '--flag: registry.redis.password and registry.redis.passwordFile are both set; remove one of them',
  ],
  [
    'a user without password',
    { ...REDIS, 'registry.redis.username': 'x' },
    'settings: registry.redis.password must be set (or registry.redis.passwordFile) with registry.redis.username',
  ],
  [
    'a CA without TLS',
    { ...REDIS, 'registry.redis.caFile': '/ca' },
    '--flag: registry.redis.caFile is for rediss:// (TLS), but registry.redis.urls has redis://',
  ],
  [
    'a certificate without key',
    { ...TLS, 'registry.redis.certFile': '/c' },
    'settings: registry.redis.keyFile must be set with registry.redis.certFile',
  ],
  [
    'a key without certificate',
    { ...TLS, 'registry.redis.keyFile': '/k' },
    'settings: registry.redis.certFile must be set with registry.redis.keyFile',
  ],
  [
    'a wildcard that nobody can reach',
    { ...OPEN, 'cluster.listen': '0.0.0.0' },
    'settings: cluster.advertise must be set when cluster.listen is 0.0.0.0: the address and port that other routers reach this one at',
  ],
  ['the port of NFS', { ...REDIS, 'cluster.port': '2049' }, '--flag: cluster.port is 2049, which is nfs.port already; it must be another one'],
  [
    'the port of MOUNT',
    { ...REDIS, 'cluster.port': '7', 'nfs.mountPort': '7' },
    '--flag: cluster.port is 7, which is nfs.mountPort already; it must be another one',
  ],
  ['the admin port', { ...REDIS, 'cluster.port': '8080' }, '--flag: cluster.port is 8080, which is admin.port already; it must be another one'],
  [
    'a lease that one lost answer ends',
    { ...REDIS, 'cluster.leaseMs': '6s', 'registry.redis.commandTimeoutMs': '2s' },
    '--flag: cluster.leaseMs is 6s; it must be at least 7s with registry.redis.commandTimeoutMs 2s, or one lost answer ends it',
  ],
  [
    'a backend that the others do not have',
    { ...REDIS, 'vpool.backend.path': null },
    'settings: vpool.backend.path is /work/data/backend, inside the data directory of this router; with a registry of kind redis it must be a directory that all routers share',
  ],
];

for (const [name, flags, problem] of CONTRADICTIONS) {
  test(`refused with what to do: ${name}`, () => {
    const given = Object.fromEntries(Object.entries(flags).filter((entry): entry is [string, string] => entry[1] !== null));
    assert.deepEqual(problemsOf(given), [problem]);
  });
}

test('with an address that others reach, a wildcard is fine; ports on other addresses do not collide', () => {
  assert.deepEqual(problemsOf({ ...OPEN, 'cluster.listen': '0.0.0.0', 'cluster.advertise': 'r1.example.com:2050' }), []);
  assert.deepEqual(problemsOf({ ...OPEN, 'cluster.port': '2049' }), []);
  assert.deepEqual(problemsOf({ ...REDIS, 'cluster.port': '0' }), []);
  for (const advertise of ['10.0.0.1:2050', 'r-1.example.com:1', '[fd00::1]:65535']) {
    assert.equal(settingsOf({ ...REDIS, 'cluster.advertise': advertise }).cluster.advertise, advertise);
  }
});

test('what config print shows of a cluster reads back as the same settings', () => {
  for (const flags of [
    REDIS,
    SENTINEL,
    { ...OPEN, 'cluster.advertise': 'h:1', 'cluster.volumeReadThreshold': '0' },
    { ...TLS, 'registry.redis.caFile': '/ca' },
    {},
  ]) {
    const { settings, origins } = load(flags);
    const lines = printSettings(settings, origins).split('\n');
    // As flags: the file itself is read in settings.test.ts.
    const path: string[] = [];
    const again: Record<string, string> = {};
    for (const line of lines) {
      const match = /^( *)(\w+):(?: (.*?))?(?: # .*)?$/.exec(line);
      if (match === null) continue;
      path.length = (match[1] ?? '').length / 2;
      path.push(match[2] ?? '');
      const value = match[3];
      if (value !== undefined) again[path.join('.')] = value.replaceAll(/^\[|\]$|"/g, '');
    }
    assert.deepEqual(settingsOf(again), settings);
  }
});

test('the settings that routers share are those of the datastore, not of the host, and no secret', () => {
  const { settings, origins } = load({
    ...SENTINEL,
    'registry.redis.password': 'hunter2',
    'vpool.name': 'gold',
    'vpool.backend.keyFile': '/etc/keys',
    'exports.clients': '10.0.0.0/8',
    'nfs.listen': '10.0.0.1',
    'cluster.listen': '10.0.0.1',
    'cluster.movesMax': '4',
    'admin.port': '9000',
    data: '/srv',
  });
  assert.equal(
    printSharedSettings(settings, origins),
    [
      'vpool:',
      '  name: gold',
      '  backend:',
      '    kind: directory',
      '    keyFile: /etc/keys # copy this file to this host',
      '    path: /shared',
      'registry:',
      '  kind: redis',
      '  redis:',
      '    urls: ["redis://10.0.0.9:26379", "redis://10.0.0.10:26379", "redis://[fd00::9]:26379"]',
      '    mode: sentinel',
      '    sentinelName: mymaster',
      '    # password: a secret; set it here too',
      'cluster:',
      '  # listen: an address of this host',
      '  leaseMs: 7s',
      '  movesMax: 4',
      'nfs:',
      '  # listen: an address of this host',
      'exports:',
      '  clients: ["10.0.0.0/8"]',
      '',
    ].join('\n'),
  );
});
