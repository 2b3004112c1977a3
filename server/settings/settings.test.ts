import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import fc from 'fast-check';

import { loadSettings } from './load.ts';
import { printSettings, printSettingsJson } from './print.ts';
import { settingKeys } from './schema.ts';
import { SettingsError } from './settings-error.ts';
import type { Settings } from './settings.ts';
import { settingsTable } from './testing/settings-table.ts';

const MACHINE = { workingDirectory: '/work', memoryBytes: 8 * 2 ** 30 };

/** The least that a backend of each kind needs. */
const SWIFT_FLAGS = {
  'vpool.backend.kind': 'swift',
  'vpool.backend.swift.authUrl': 'http://127.0.0.1:8080/auth/v1.0',
  'vpool.backend.swift.user': 'test:tester',
  'vpool.backend.swift.key': 'hunter2',
};
const S3_FLAGS = { 'vpool.backend.kind': 's3' };
const REDIS_FLAGS = {
  ...S3_FLAGS,
  'registry.kind': 'redis',
  'registry.redis.mode': 'sentinel',
  'registry.redis.urls': 'redis://10.0.0.1:26379',
  'registry.redis.sentinelName': 'mymaster',
};

interface Given {
  readonly yaml?: string;
  readonly environment?: Readonly<Record<string, string>>;
  readonly flags?: Readonly<Record<string, string>>;
}

/** Loads with the YAML text in a file `v.yaml`, whose directory is cut from messages. */
function load(given: Given) {
  const directory = mkdtempSync(join(tmpdir(), 'vferry-settings-'));
  try {
    const path = join(directory, 'v.yaml');
    if (given.yaml !== undefined) writeFileSync(path, given.yaml);
    const flags = new Map(Object.entries(given.flags ?? {}));
    return loadSettings({
      flags,
      flagLabels: new Map([...flags.keys()].map((key) => [key, `--flag-of-${key}`])),
      environment: given.environment ?? {},
      configPath: given.yaml === undefined ? null : path,
      machine: MACHINE,
    });
  } catch (error) {
    if (error instanceof SettingsError) throw new SettingsError(error.problems.map((problem) => problem.replaceAll(`${directory}/`, '')));
    throw error;
  } finally {
    rmSync(directory, { recursive: true });
  }
}

function settingsOf(given: Given): Settings {
  return load(given).settings;
}

function pathOf({ vpool }: Settings): string | null {
  return vpool.backend.kind === 'directory' ? vpool.backend.path : null;
}

/** Every problem of settings that are refused. */
function problemsOf(given: Given): readonly string[] {
  try {
    load(given);
  } catch (error) {
    if (error instanceof SettingsError) return error.problems;
    throw error;
  }
  return [];
}

test('without anything there are complete defaults', () => {
  assert.deepEqual(settingsOf({}), {
    data: '/work/data',
    vpool: {
      name: 'vpool1',
      backend: {
        kind: 'directory',
        layout: 'buckets',
        bucket: null,
        concurrency: 16,
        compression: 'none',
        encryption: 'none',
        keyFile: null,
        key: null,
        path: '/work/data/backend',
        hardLinks: true,
        prices: { currency: 'USD', putPerThousand: 0, getPerThousand: 0, deletePerThousand: 0, outPerGigabyte: 0, storagePerGigabyteMonth: 0 },
      },
      inlineBytesMax: 4096,
      volumePatterns: ['*-flat.vmdk', '*-delta.vmdk', '*-sesparse.vmdk', '*.raw', '*.vswp'],
      allWritesStable: false,
      durability: 'local',
      graceTimeMs: 24 * 3600 * 1000,
      capacityBytes: null,
    },
    registry: {
      kind: 'sqlite',
      redis: {
        urls: [],
        mode: 'standalone',
        sentinelName: null,
        username: null,
        password: null,
        passwordFile: null,
        sentinelPassword: null,
        caFile: null,
        certFile: null,
        keyFile: null,
        replicasMin: 0,
        commandTimeoutMs: 1000,
      },
    },
    cluster: {
      listen: '127.0.0.1',
      port: 2050,
      advertise: null,
      certificates: 'none',
      leaseMs: 7000,
      cleanAfterMs: 30_000,
      volumeReadThreshold: 1024,
      volumeWriteThreshold: 1024,
      fileReadThreshold: 1024,
      fileWriteThreshold: 1024,
      movesMax: 2,
      cooldownMs: 60_000,
      decayMs: 60_000,
    },
    nfs: { listen: '127.0.0.1', port: 2049, mountPort: null, portmap: 'auto', inflightBytesMaxPerConnection: 64 * 2 ** 20, connectionsMax: 1024 },
    exports: { clients: ['127.0.0.0/8', '::1/128'], squash: 'none', anonymousUid: 65_534, anonymousGid: 65_534 },
    cache: { ramBytes: 512 * 2 ** 20, mapBytes: 256 * 2 ** 20, ssdBytes: 16 * 2 ** 30 },
    log: { segmentBytes: 16 * 2 ** 20, dirtyBytesMax: 4 * 2 ** 30, sealAfterMs: 30_000, checkpointAfterBytes: 2 ** 30 },
    admin: { listen: '127.0.0.1', port: 8080 },
    logging: { level: 'info', format: 'auto' },
  });
});

test('every key of the settings has an entry, a distinct variable and a description; nothing else has one', () => {
  const leaves = (value: unknown, path: string): string[] =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.entries(value).flatMap(([key, child]) => leaves(child, path === '' ? key : `${path}.${key}`))
      : [path];
  const kindsOfBackend = [{}, { flags: SWIFT_FLAGS }, { flags: S3_FLAGS }].map((given) => settingsOf(given));
  assert.deepEqual(
    settingKeys.map((entry) => entry.key).toSorted(),
    [...new Set(kindsOfBackend.flatMap((settings) => leaves(settings, '')))].toSorted(),
  );
  assert.equal(new Set(settingKeys.map((entry) => entry.variable)).size, settingKeys.length);
  for (const { setting, variable } of settingKeys) {
    assert.match(setting.description, /^[A-Z].*\.$/);
    assert.match(variable, /^VFERRY_[A-Z]+(_[A-Z][A-Z0-9]*)*$/);
  }
});

test('a small machine gets a small RAM cache', () => {
  const { settings } = loadSettings({
    flags: new Map(),
    flagLabels: new Map(),
    environment: {},
    configPath: null,
    machine: { ...MACHINE, memoryBytes: 2 ** 30 },
  });
  assert.equal(settings.cache.ramBytes, 128 * 2 ** 20);
});

test('flags win over environment, environment over file, file over defaults, key by key', () => {
  const settings = settingsOf({
    yaml: 'nfs: { port: 1, mountPort: 2, connectionsMax: 3 }\nadmin: { port: 4 }',
    environment: { VFERRY_NFS_PORT: '11', VFERRY_MOUNT_PORT: '12' },
    flags: { 'nfs.port': '21' },
  });
  assert.deepEqual([settings.nfs.port, settings.nfs.mountPort, settings.nfs.connectionsMax, settings.admin.port], [21, 12, 3, 4]);
});

test('a wrong value in the file is refused even when a flag overrides another key of its section', () => {
  assert.deepEqual(problemsOf({ yaml: 'nfs:\n  connectionsMax: 0', flags: { 'nfs.port': '21' } }), [
    'v.yaml:2:3: nfs.connectionsMax is 0; it must be a whole number from 1 to 100000',
  ]);
});

test('relative paths belong to the file they are written in, or to the working directory', () => {
  const inFile = load({ yaml: 'data: d\nvpool: { backend: { path: ../b } }' }).settings;
  assert.match(inFile.data, /vferry-settings-[^/]+\/d$/);
  assert.equal(pathOf(inFile), join(tmpdir(), 'b'));
  const elsewhere = settingsOf({ flags: { data: 'd' }, environment: { VFERRY_VPOOL_BACKEND_PATH: '/mnt/b' } });
  assert.equal(elsewhere.data, '/work/d');
  assert.equal(pathOf(elsewhere), '/mnt/b');
  assert.equal(pathOf(settingsOf({ flags: { data: '/srv/d' } })), '/srv/d/backend');
});

test('unknown keys are errors with line, column and the likely meaning', () => {
  const keys = 'listen, port, mountPort, portmap, inflightBytesMaxPerConnection, connectionsMax';
  assert.deepEqual(problemsOf({ yaml: 'nfs:\n  prot: 2049\nexport: {}\n' }), [
    `v.yaml:2:3: unknown key nfs.prot (did you mean port?); allowed here: ${keys}`,
    'v.yaml:3:1: unknown key export (did you mean exports?); allowed here: data, vpool, registry, cluster, nfs, exports, cache, log, admin, logging',
  ]);
  assert.deepEqual(problemsOf({ yaml: 'vpool: { backend: { prices: { get: 1 } } }' }), [
    'v.yaml:1:31: unknown key vpool.backend.prices.get; allowed here: ' +
      'currency, putPerThousand, getPerThousand, deletePerThousand, outPerGigabyte, storagePerGigabyteMonth',
  ]);
  assert.match(problemsOf({ yaml: '__proto__: { port: 1 }' })[0] ?? '', /^v\.yaml:1:1: unknown key __proto__/);
  assert.match(problemsOf({ yaml: 'nfs: { constructor: 1 }' })[0] ?? '', /^v\.yaml:1:8: unknown key nfs\.constructor/);
});

test('unknown environment variables are errors, except those of other parts', () => {
  assert.deepEqual(problemsOf({ environment: { VFERRY_NFS_PROT: '1', VFERRY_XYZZY: '', OTHER: '1' } }), [
    'VFERRY_NFS_PROT: unknown environment variable (did you mean VFERRY_NFS_PORT?)',
    'VFERRY_XYZZY: unknown environment variable',
  ]);
  assert.deepEqual(problemsOf({ environment: { VFERRY_FAIL_POINTS: 'x', VFERRY_BEGUN_ANEW: '1' } }), []);
});

test('the message names where the value is from, the key, the value and what is allowed', () => {
  const allowed = 'a port from 0 (any free one) to 65535';
  assert.deepEqual(problemsOf({ yaml: 'nfs:\n  port: 70000\n' }), [`v.yaml:2:3: nfs.port is 70000; it must be ${allowed}`]);
  assert.deepEqual(problemsOf({ environment: { VFERRY_NFS_PORT: '' } }), [`VFERRY_NFS_PORT: nfs.port is ""; it must be ${allowed}`]);
  assert.deepEqual(problemsOf({ flags: { 'nfs.port': '-1' } }), [`--flag-of-nfs.port: nfs.port is "-1"; it must be ${allowed}`]);
  assert.deepEqual(problemsOf({ yaml: 'nfs:\n  port:\n' }), [`v.yaml:2:3: nfs.port is empty; it must be ${allowed}`]);
  const long = problemsOf({ flags: { 'nfs.port': 'x'.repeat(500) } })[0] ?? '';
  assert.ok(long.length < 200 && long.includes('xxx...'));
});

/** One wrong value per kind of setting, and the words that explain it. */
const REFUSED: readonly (readonly [string, string, string])[] = [
  ['vpool.name', 'a/b', 'a name of 1 to 63 letters, digits, ".", "_" and "-" that begins with a letter or digit'],
  ['vpool.name', '..', 'a name of 1 to 63 letters'],
  ['vpool.backend.kind', 'S3', 'one of directory, swift, s3'],
  ['vpool.backend.layout', 'bucket', 'one of auto, buckets, prefix'],
  ['vpool.backend.bucket', 'My_Bucket', 'a bucket name of 3 to 63 lower-case letters, digits'],
  ['vpool.backend.bucket', 'a..b', 'a bucket name of 3 to 63 lower-case letters, digits'],
  ['vpool.backend.concurrency', '0', 'a whole number from 1 to 256'],
  ['vpool.backend.compression', 'gzip', 'one of none, zstd'],
  ['vpool.backend.encryption', 'aes', 'one of none, aes-256-gcm'],
  ['vpool.backend.swift.authUrl', 'keystone:5000', 'a URL that begins with http:// or https://, without user'],
  ['vpool.backend.swift.authVersion', '2', 'auto, or one of 1, 3'],
  ['vpool.backend.s3.endpoint', 'https://h/?x=1', 'a URL that begins with http:// or https://, without user'],
  ['vpool.backend.s3.pathStyle', 'yes', 'auto, or true or false'],
  ['vpool.backend.prices.putPerThousand', '-1', 'a number from 0 to 1000000 with at most 6 decimals'],
  ['vpool.backend.prices.putPerThousand', '0.0000001', 'a number from 0 to 1000000 with at most 6 decimals'],
  ['vpool.backend.path', '', 'a directory path'],
  ['vpool.inlineBytesMax', '65KiB', 'a size from 0B to 64KiB: bytes, or a number with B, KiB, MiB, GiB, TiB or PiB such as 4GiB'],
  ['vpool.volumePatterns', 'a/b', 'a list of 0 to 100: file name patterns of at most 255 characters, with * and ? as wildcards and without "/"'],
  ['vpool.allWritesStable', 'yes', 'true or false'],
  ['vpool.durability', 'dtl', 'local (nothing else exists yet)'],
  ['vpool.graceTimeMs', '1 week', 'a time from 0ms to 366d: milliseconds, or a number with ms, s, m, h or d such as 24h'],
  ['vpool.capacityBytes', '1', 'auto, or a size from 1MiB to'],
  ['nfs.listen', 'localhost', 'an IP address such as 127.0.0.1, 0.0.0.0 or ::1 (no host name)'],
  ['nfs.mountPort', 'same', 'auto, or a port from 0 (any free one) to 65535'],
  ['nfs.portmap', 'yes', 'one of auto, off, required'],
  ['nfs.inflightBytesMaxPerConnection', '1MiB', 'a size from 2MiB to 1GiB'],
  ['nfs.connectionsMax', '1_000', 'a whole number from 1 to 100000'],
  ['exports.clients', '10.0.0.0/33', 'a list of 1 to 1000: networks in CIDR notation such as 192.168.10.0/24, or single IP addresses'],
  ['exports.clients', '', 'a list of 1 to 1000'],
  ['exports.squash', 'no', 'one of none, root, all'],
  ['exports.anonymousUid', '-2', 'a whole number from 0 to 4294967295'],
  ['cache.ramBytes', '1_000', 'a size from 1MiB to 8TiB'],
  ['cache.mapBytes', '4G', 'a size from 1MiB to 8TiB'],
  ['cache.ssdBytes', '1.0000001KiB', 'a size from 0B to'],
  ['log.segmentBytes', '1MiB', 'a size from 4MiB to 64MiB'],
  ['log.segmentBytes', '010MiB', 'a size from 4MiB to 64MiB'],
  ['log.dirtyBytesMax', 'much', 'a size from 16MiB to'],
  ['log.sealAfterMs', '60sec', 'a time from 10ms to 1d'],
  ['log.checkpointAfterBytes', '1e9', 'a size from 4MiB to 1TiB'],
  ['admin.listen', '*', 'an IP address'],
  ['admin.port', '080', 'a port from 0'],
  ['logging.level', 'INFO', 'one of debug, info, warn, error'],
  ['logging.format', 'text', 'one of auto, human, json'],
  ['registry.kind', 'etcd', 'one of sqlite, redis'],
  ['registry.redis.urls', 'redis://host:6379/0', 'a list of 1 to 32: URLs redis://host:port or rediss://host:port (TLS), without user'],
  ['registry.redis.urls', 'redis://host', 'a list of 1 to 32: URLs redis://host:port'],
  ['registry.redis.mode', 'single', 'one of standalone, sentinel, cluster'],
  ['registry.redis.replicasMin', '9', 'a whole number from 0 to 8'],
  ['cluster.listen', 'localhost', 'an IP address'],
  ['cluster.advertise', '10.0.0.1', 'auto, or host:port, such as 192.168.10.5:2050'],
  ['cluster.advertise', '10.0.0.1:0', 'auto, or host:port'],
  ['cluster.advertise', '[10.0.0.1]:2050', 'auto, or host:port'],
  ['cluster.leaseMs', '5s', 'a time from 6s to 1m'],
  ['cluster.movesMax', '0', 'a whole number from 1 to 64'],
  ['cluster.volumeReadThreshold', '-1', 'a whole number from 0 to'],
  ['data', '', 'a directory path'],
];

for (const [key, value, allowed] of REFUSED) {
  test(`${key}: "${value}" is refused with the allowed values`, () => {
    const problems = problemsOf({ flags: { [key]: value } });
    assert.equal(problems.length, 1);
    assert.ok(problems[0]?.startsWith(`--flag-of-${key}: ${key} is ${JSON.stringify(value)}; it must be ${allowed}`), problems[0]);
  });
}

test('every setting is refused with a message when it is nonsense', () => {
  for (const { key, setting } of settingKeys) {
    const shown = setting.secret === true ? 'set' : '"\\u0000"';
    assert.deepEqual(problemsOf({ flags: { [key]: '\0' } }), [`--flag-of-${key}: ${key} is ${shown}; it must be ${setting.kind.allowed}`]);
  }
});

test('YAML: yes, 010, 1_000, 0x10 and 1e3 are refused, not interpreted', () => {
  assert.match(problemsOf({ yaml: 'vpool: { allWritesStable: yes }' })[0] ?? '', /allWritesStable is "yes"; it must be true or false/);
  assert.match(problemsOf({ yaml: 'nfs: { port: 1_000 }' })[0] ?? '', /nfs\.port is "1_000"; it must be a port/);
  for (const text of ['010', '0x10', '0o10', '1e3', '+5']) {
    assert.deepEqual(problemsOf({ yaml: `nfs: { port: ${text} }` }), [
      `v.yaml:1:14: nfs.port is ${text}; write numbers in plain decimal without leading zeros, and text in quotes`,
    ]);
  }
  assert.equal(settingsOf({ yaml: 'nfs: { portmap: off }' }).nfs.portmap, 'off');
  assert.match(problemsOf({ yaml: 'vpool: { name: 123 }' })[0] ?? '', /vpool\.name is 123; it must be a name/);
  assert.match(
    problemsOf({ yaml: 'cache: { ramBytes: 99999999999999999999 }' })[0] ?? '',
    /cache\.ramBytes is 100000000000000000000; it must be a size/,
  );
});

test('YAML: syntax errors, duplicate keys, aliases, tags, lists and several documents name their place', () => {
  assert.match(problemsOf({ yaml: 'nfs:\n\tport: 1' })[0] ?? '', /^v\.yaml:2:1: Tabs/);
  assert.match(problemsOf({ yaml: 'nfs: {}\nnfs: {}' })[0] ?? '', /^v\.yaml:2:1: Map keys must be unique/);
  assert.match(problemsOf({ yaml: 'admin: &a { port: 1 }\nnfs: *a' })[0] ?? '', /^v\.yaml:2:6: aliases \(\*name\) are not supported/);
  assert.match(problemsOf({ yaml: 'nfs: !evil { port: 1 }' })[0] ?? '', /^v\.yaml:1:6: Unresolved tag/);
  assert.match(problemsOf({ yaml: '- nfs' })[0] ?? '', /^v\.yaml:1:1: a settings file is a mapping of sections/);
  assert.match(problemsOf({ yaml: 'nfs: {}\n---\nnfs: {}' })[0] ?? '', /^v\.yaml:\d:\d: .*multiple documents/);
  assert.match(problemsOf({ yaml: '1: 2' })[0] ?? '', /^v\.yaml:1:1: every key must be plain text/);
  assert.match(problemsOf({ yaml: 'nfs: 7' })[0] ?? '', /^v\.yaml:1:1: nfs is 7; it must be a section with the keys listen, port/);
});

test('an empty file and empty sections are no settings, not wrong ones', () => {
  for (const yaml of ['', '# nothing\n', 'nfs:\n', 'nfs:\n  # port: 1\nvpool:\n  backend:\n']) assert.deepEqual(settingsOf({ yaml }), settingsOf({}));
});

test('a settings file that cannot be read is named', () => {
  const missing = { flags: new Map<string, string>(), flagLabels: new Map<string, string>(), machine: MACHINE };
  for (const [configPath, environment] of [
    ['/nonexistent/v.yaml', {}],
    [null, { VFERRY_CONFIG: '/nonexistent/v.yaml' }],
  ] as const) {
    assert.throws(
      () => loadSettings({ ...missing, configPath, environment }),
      /^SettingsError: \/nonexistent\/v\.yaml: cannot read the settings file: ENOENT/,
    );
  }
});

test('all problems are reported together', () => {
  const problems = problemsOf({ yaml: 'nfs: { port: 010 }\nx: 1', environment: { VFERRY_NOPE: '1' }, flags: { 'vpool.name': '/' } });
  assert.equal(problems.length, 3);
});

test('sizes and times take plain numbers and units', () => {
  const settings = settingsOf({
    yaml: 'cache: { ramBytes: 1.5GiB, mapBytes: 67108864, ssdBytes: 0 }\nlog: { sealAfterMs: 90s, dirtyBytesMax: "1073741824" }\nvpool: { graceTimeMs: 500 }',
    environment: { VFERRY_LOG_SEGMENT_BYTES: '8 MiB' },
  });
  assert.deepEqual(settings.cache, { ramBytes: 1.5 * 2 ** 30, mapBytes: 64 * 2 ** 20, ssdBytes: 0 });
  assert.deepEqual([settings.log.sealAfterMs, settings.log.dirtyBytesMax, settings.log.segmentBytes], [90_000, 2 ** 30, 8 * 2 ** 20]);
  assert.equal(settings.vpool.graceTimeMs, 500);
});

test('networks: a single address is a network of one, lists may be YAML lists or text with commas', () => {
  assert.deepEqual(settingsOf({ yaml: 'exports: { clients: [10.1.2.3, "fd00::/8"] }' }).exports.clients, ['10.1.2.3/32', 'fd00::/8']);
  assert.deepEqual(settingsOf({ flags: { 'exports.clients': '10.0.0.0/8, ::1' } }).exports.clients, ['10.0.0.0/8', '::1/128']);
});

test('an address that others reach needs a list of clients', () => {
  for (const listen of ['0.0.0.0', '::', '192.168.1.4']) {
    const [problem, ...rest] = problemsOf({ flags: { 'nfs.listen': listen } });
    assert.ok(
      problem?.startsWith(`--flag-of-nfs.listen: exports.clients must be set when nfs.listen is ${listen}, which other machines can reach`),
      problem,
    );
    assert.deepEqual(rest, []);
    assert.deepEqual(problemsOf({ flags: { 'nfs.listen': listen, 'exports.clients': '192.168.1.0/24' } }), []);
  }
  for (const listen of ['127.0.0.2', '::1']) assert.deepEqual(problemsOf({ flags: { 'nfs.listen': listen } }), []);
});

test('the admin port follows NFS on loopback only', () => {
  const adminListen = (flags: Record<string, string>): string => settingsOf({ flags }).admin.listen;
  assert.equal(adminListen({ 'nfs.listen': '127.0.0.2' }), '127.0.0.2');
  assert.equal(adminListen({ 'nfs.listen': '0.0.0.0', 'exports.clients': '10.0.0.0/8' }), '127.0.0.1');
  assert.equal(adminListen({ 'admin.listen': '0.0.0.0' }), '0.0.0.0');
});

test('a MOUNT port equal to the NFS port is no port of its own', () => {
  assert.equal(settingsOf({ flags: { 'nfs.port': '5000', 'nfs.mountPort': '5000' } }).nfs.mountPort, null);
  assert.equal(settingsOf({ flags: { 'nfs.port': '5000', 'nfs.mountPort': '5001' } }).nfs.mountPort, 5001);
  assert.equal(settingsOf({ flags: { 'nfs.port': '0', 'nfs.mountPort': '0' } }).nfs.mountPort, 0);
});

test('keys that contradict each other are refused', () => {
  const one = (flags: Record<string, string>): string => {
    const problems = problemsOf({ flags });
    assert.equal(problems.length, 1);
    return problems[0] ?? '';
  };
  assert.match(one({ 'admin.port': '2049' }), /^--flag-of-admin\.port: admin\.port is 2049, which is nfs\.port already; it must be another one$/);
  assert.match(one({ 'admin.port': '7', 'nfs.mountPort': '7' }), /admin\.port is 7, which is nfs\.mountPort already/);
  assert.match(
    one({ 'log.dirtyBytesMax': '100MiB', 'log.segmentBytes': '64MiB' }),
    /log\.dirtyBytesMax is 100MiB; it must be at least four segments .*256MiB$/,
  );
  assert.match(
    one({ 'log.checkpointAfterBytes': '4MiB', 'log.segmentBytes': '8MiB' }),
    /log\.checkpointAfterBytes is 4MiB; it must be at least one segment/,
  );
  assert.match(one({ 'cache.ramBytes': '9GiB' }), /cache\.ramBytes is 9GiB; it must be less than the memory of this machine, 8GiB$/);
  assert.match(
    one({ data: '/srv', 'vpool.backend.path': '/srv/' }),
    /vpool\.backend\.path is the data directory \/srv; it must be another directory/,
  );
  assert.deepEqual(problemsOf({ flags: { 'admin.port': '2049', 'admin.listen': '127.0.0.9' } }), []);
});

test('what config print shows reads back as the same settings', () => {
  const name = fc.constantFrom('vpool1', 'true', 'null', '1e3', '007', 'a.b-c_d', '1', 'No', 'off');
  const bytes = fc.integer({ min: 2 ** 26, max: 2 ** 33 });
  fc.assert(
    fc.property(
      name,
      bytes,
      fc.boolean(),
      fc.integer({ min: 10, max: 86_400_000 }),
      fc.constantFrom('auto', '0', '7'),
      (pool, size, stable, ms, mountPort) => {
        const { settings, origins } = load({
          flags: {
            'vpool.name': pool,
            'cache.ramBytes': String(size),
            'vpool.allWritesStable': String(stable),
            'log.sealAfterMs': String(ms),
            'nfs.mountPort': mountPort,
            'vpool.volumePatterns': '*.raw,#x?,a: b,"q',
            data: '/srv/# odd: "name',
          },
        });
        assert.deepEqual(settingsOf({ yaml: printSettings(settings, origins) }), settings);
        assert.deepEqual(JSON.parse(printSettingsJson(settings)), settings);
      },
    ),
    { numRuns: 40 },
  );
});

test('what config print shows of a backend reads back as the same settings, but for its secrets', () => {
  const swift = { ...SWIFT_FLAGS, 'vpool.backend.swift.user': '007', 'vpool.backend.layout': 'prefix' };
  const prices = { 'vpool.backend.prices.getPerThousand': '0.000001', 'vpool.backend.prices.putPerThousand': '999999.999999' };
  const s3 = { ...S3_FLAGS, ...prices, 'vpool.backend.s3.pathStyle': 'true', 'vpool.backend.s3.profile': 'true' };
  const keystone = { ...SWIFT_FLAGS, 'vpool.backend.swift.project': '007', 'vpool.backend.swift.region': 'null' };
  for (const flags of [swift, keystone, s3]) {
    const { settings, origins } = load({ flags });
    const printed = printSettings(settings, origins);
    const secrets: Record<string, string> = flags !== s3 ? { VFERRY_VPOOL_BACKEND_SWIFT_KEY: 'hunter2' } : {};
    assert.deepEqual(settingsOf({ yaml: printed.replace(/^ *key: \*+ #.*$/gm, ''), environment: secrets }), settings);
  }
});

/** Every secret with a value that must never be seen, in settings that are valid. */
const SECRETS: readonly Readonly<Record<string, string>>[] = [
  { ...SWIFT_FLAGS, 'vpool.backend.encryption': 'aes-256-gcm', 'vpool.backend.key': 'hunter2-key' },
  {
    'vpool.backend.kind': 'swift',
    'vpool.backend.swift.authUrl': 'https://keystone/v3',
    'vpool.backend.swift.applicationCredentialId': 'id',
    'vpool.backend.swift.applicationCredentialSecret': 'hunter2-ac',
  },
  {
    ...S3_FLAGS,
    'vpool.backend.s3.accessKeyId': 'id',
    'vpool.backend.s3.secretAccessKey': 'hunter2',
    'vpool.backend.s3.sessionToken': 'hunter2-token',
  },
  { ...REDIS_FLAGS, 'registry.redis.password': 'hunter2', 'registry.redis.sentinelPassword': 'hunter2-sentinel' },
];

test('no secret is shown by config print, as YAML or as JSON', () => {
  const seen = new Set<string>();
  for (const flags of SECRETS) {
    const { settings, origins } = load({ flags });
    assert.ok(JSON.stringify(settings).includes('hunter2'));
    for (const text of [printSettings(settings, origins), printSettingsJson(settings)]) {
      assert.doesNotMatch(text, /hunter2/);
      for (const { key, setting } of settingKeys) {
        if (setting.secret !== true || !(key in flags)) continue;
        seen.add(key);
        assert.match(text, new RegExp(`^ *"?${key.split('.').at(-1)}"?: "?\\*{8}`, 'm'));
      }
    }
  }
  assert.deepEqual([...seen].toSorted(), settingKeys.flatMap(({ key, setting }) => (setting.secret === true ? [key] : [])).toSorted());
});

test('no message shows a secret: of a wrong kind, in a wrong place, without quotes, beside its file', () => {
  const messages = [
    { yaml: 'vpool: { backend: { kind: swift, swift: { key: [hunter2] } } }' },
    { yaml: 'vpool: { backend: { kind: swift, swift: hunter2 } }' },
    { yaml: 'vpool: { backend: [hunter2] }' },
    { yaml: 'vpool: { backend: { kind: swift, swift: { key: 0x68756e746572 } } }' },
    { yaml: 'vpool: { backend: { kind: swift, swift: { key: !hunter2 x } } }', tagMayBeSeen: true },
    { flags: { ...SWIFT_FLAGS, 'vpool.backend.swift.key': 'hunter2\0' } },
    { flags: { ...SWIFT_FLAGS, 'vpool.backend.kind': 's3' } },
    { flags: { ...SWIFT_FLAGS, 'vpool.backend.swift.keyFile': '/k', 'vpool.backend.swift.applicationCredentialSecret': 'hunter2' } },
    { flags: { ...S3_FLAGS, 'vpool.backend.s3.secretAccessKey': 'hunter2', 'vpool.backend.s3.sessionToken': 'hunter2' } },
    { flags: { 'vpool.backend.key': 'hunter2', 'vpool.backend.keyFile': '/k' } },
    { environment: { VFERRY_VPOOL_BACKEND_KEY: 'hunter2\0' } },
    { flags: { 'registry.redis.password': 'hunter2' } },
    { flags: { ...REDIS_FLAGS, 'registry.redis.password': 'hunter2', 'registry.redis.passwordFile': '/k' } },
    { flags: { ...REDIS_FLAGS, 'registry.redis.urls': 'redis://me:hunter2@10.0.0.1:6379' } },
    { yaml: 'registry: { redis: { urls: [redis://hunter2@h:1, rediss://:hunter2@h:1] } }' },
    { yaml: 'vpool: { backend: { swift: { authUrl: "http://me:hunter2@swift/auth/v1.0" } } }' },
  ];
  for (const { tagMayBeSeen, ...given } of messages) {
    const problems = problemsOf(given).join('\n');
    assert.notEqual(problems, '', JSON.stringify(given));
    if (tagMayBeSeen !== true) assert.doesNotMatch(problems, /hunter2|68756e746572/);
  }
});

test('the file parser never throws anything but SettingsError', () => {
  const fragment = fc.constantFrom(
    'nfs',
    ':',
    ' ',
    '\n',
    '  ',
    'port',
    '1',
    '{',
    '}',
    '[',
    ']',
    '&a',
    '*a',
    '!!',
    '"',
    "'",
    '|',
    '>',
    '-',
    '?',
    '\t',
    '#',
    '%',
    '~',
    '<<',
  );
  fc.assert(
    fc.property(fc.array(fragment, { maxLength: 25 }), (parts) => {
      problemsOf({ yaml: parts.join('') });
    }),
    { numRuns: 500 },
  );
});

test('README.md has the table of all settings as they are', () => {
  const readme = readFileSync(join(import.meta.dirname, '../../README.md'), 'utf8');
  const table = settingsTable();
  assert.ok(readme.includes(table), `the settings table of README.md must be:\n${table}`);
});

test('the settings file in README.md is valid', () => {
  const readme = readFileSync(join(import.meta.dirname, '../../README.md'), 'utf8');
  const yaml = /```yaml\n(.*?)```/s.exec(readme)?.[1] ?? 'no: yaml';
  assert.equal(settingsOf({ yaml }).vpool.name, 'gold');
});
