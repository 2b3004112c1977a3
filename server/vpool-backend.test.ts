import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { generateKey, parseKeys } from '../backends/encoding/key-file.ts';
import { ApplianceError, errorCode } from './core/errors.ts';
import { silentLogger } from './core/logger.ts';
import { systemClock, systemRandom } from './core/node-time.ts';
import type { Clock } from './core/time.ts';
import { readVpoolFile, type VpoolFile } from './data-directory.ts';
import { fsckDataDirectory } from './fsck.ts';
import { loadSettings } from './settings/load.ts';
import type { Settings } from './settings/settings.ts';
import { stuckThreads } from './stuck-threads.ts';
import { openBackend, type OpenedBackend, recordedStoreConfig } from './vpool-backend.ts';
import type { ProbeOptions } from './vpool-port.ts';
import { createVpool, testBackend } from './vpool.ts';

const PROBE: ProbeOptions = { effort: 'quick', progress: () => undefined, signal: new AbortController().signal };
const UUID = '0123456789abcdef0123456789abcdef';
const IDENTITY = `vf-vpool1-01234567-ns/vpool-${UUID}`;

/** Patience passes five times as fast: not so fast that a file system on a slow machine is taken for one that hangs. */
const HASTY: Clock = {
  ...systemClock,
  monotonicMs: () => systemClock.monotonicMs() * 5,
  after: (delayMs, callback) => systemClock.after(delayMs / 5, callback),
  sleep: (delayMs) => systemClock.sleep(delayMs / 5),
};

/** A scratch directory with a data directory and a backend directory in it. */
class Place {
  readonly root = mkdtempSync(join(tmpdir(), 'vferry-backend-'));
  readonly vpool = { directory: join(this.root, 'vpool'), uuid: UUID };
  readonly backend = join(this.root, 'backend');

  static for(t: TestContext): Place {
    const place = new Place();
    t.after(() => rmSync(place.root, { recursive: true, force: true }));
    cpSync(mkdtempSync(join(place.root, 'empty-')), place.vpool.directory, { recursive: true });
    return place;
  }

  /** Keys are below `vpool.backend`. */
  settings(flags: Readonly<Record<string, string>> = {}): Settings {
    const kind = flags['kind'] ?? 'directory';
    const all = { ...(kind === 'directory' ? { path: this.backend } : {}), ...flags };
    return loadSettings({
      flags: new Map(Object.entries(all).map(([key, value]) => [`vpool.backend.${key}`, value])),
      flagLabels: new Map(),
      environment: {},
      configPath: null,
      machine: { workingDirectory: this.root, memoryBytes: 2 ** 33 },
    }).settings;
  }

  open(flags: Readonly<Record<string, string>> = {}, uuid = UUID): Promise<OpenedBackend> {
    return openBackend(this.settings(flags), { ...this.vpool, uuid }, { clock: HASTY, random: systemRandom, logger: silentLogger });
  }

  file(): VpoolFile {
    const file = readVpoolFile(this.vpool.directory);
    assert.ok(file !== null);
    return file;
  }

  /** A key file with these lines. */
  keyFile(...keys: readonly string[]): string {
    const path = join(this.root, `keys-${keys.length}-${keys[0]?.slice(0, 4).replace(/\W/g, '-') ?? ''}`);
    writeFileSync(path, keys.map((key) => `${key}\n`).join(''));
    return path;
  }
}

/** Rejects with that code, and with a message that matches. */
async function refused(promise: Promise<unknown>, code: string, message: RegExp): Promise<void> {
  const error = await promise.then(
    () => assert.fail(`opened, expected ${code}`),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof ApplianceError, String(error));
  assert.equal(errorCode(error), code, error.message);
  assert.match(error.message, message);
}

const idOf = (key: string): string => parseKeys(key)[0]?.id ?? '';

test('a new vPool: the backend is probed, gets its identity, and is remembered', async (t) => {
  const place = Place.for(t);
  const opened = await place.open();
  assert.equal(opened.problem, null);
  const { createdAt, ...identity } = JSON.parse(readFileSync(join(place.backend, 'buckets', IDENTITY), 'utf8')) as Record<string, unknown>;
  assert.match(String(createdAt), /^\d{4}-\d\d-\d\dT.*Z$/);
  assert.deepEqual(identity, {
    format: 'vferry-vpool',
    version: 1,
    uuid: UUID,
    name: 'vpool1',
    layout: 'buckets',
  });
  const { probe, ...file } = place.file();
  assert.equal(probe?.verdict, 'fit');
  assert.deepEqual(file, {
    version: 2,
    uuid: UUID,
    backend: { kind: 'directory', path: place.backend },
    layout: { kind: 'buckets' },
    fence: 'backend',
    identity: true,
    encoded: false,
    keys: [],
    unencrypted: true,
    linked: true,
  });
  // Nothing of the probe is left.
  assert.deepEqual(readdirSync(place.backend).toSorted(), ['.tmp', 'buckets', 'vferry-backend.json']);
  assert.deepEqual(opened.config, {
    store: { kind: 'directory', path: place.backend, vpoolUuid: UUID, initialize: false, linkFiles: true },
    layout: { kind: 'buckets' },
    encoding: null,
  });
});

test('a creation that was interrupted before it was remembered is done again', async (t) => {
  const place = Place.for(t);
  await place.open();
  rmSync(join(place.vpool.directory, 'vpool.json'));
  await place.open();
  assert.equal(place.file().identity, true);
});

test('a vPool of the first version opens, and gets an identity', async (t) => {
  const place = Place.for(t);
  await place.open();
  rmSync(join(place.backend, 'buckets', IDENTITY));
  const first = { version: 1, uuid: UUID, backend: { kind: 'directory', path: place.backend }, linked: true };
  writeFileSync(join(place.vpool.directory, 'vpool.json'), JSON.stringify(first));
  const opened = await place.open();
  assert.equal(opened.problem, null);
  assert.ok(existsSync(join(place.backend, 'buckets', IDENTITY)));
  const { probe, identity, linked, fence } = place.file();
  assert.deepEqual({ probe, identity, linked, fence }, { probe: null, identity: true, linked: true, fence: 'backend' });
});

test('hard links once used are remembered, whatever the settings say later', async (t) => {
  const place = Place.for(t);
  await place.open({ hardLinks: 'false' });
  assert.equal(place.file().linked, false);
  await place.open();
  const { config } = await place.open({ hardLinks: 'false' });
  assert.ok(config.store.kind === 'directory' && config.store.linkFiles === false);
  assert.equal(place.file().linked, true);
});

test('another kind, layout or bucket than the vPool was made with is refused', async (t) => {
  const place = Place.for(t);
  await place.open();
  await refused(place.open({ layout: 'prefix' }), 'backend-changed', /was made with layout buckets, but the settings say prefix/);
  await refused(place.open({ kind: 's3' }), 'backend-changed', /was made with a backend of kind directory, but the settings say s3/);
  const other = Place.for(t);
  await other.open({ layout: 'prefix', bucket: 'vms' });
  assert.deepEqual(other.file().layout, { kind: 'prefix', bucket: 'vms' });
  assert.deepEqual((await other.open({ layout: 'prefix' })).config.layout, { kind: 'prefix', bucket: 'vms' });
  await refused(other.open({ layout: 'prefix', bucket: 'other' }), 'backend-changed', /was made with bucket vms, but the settings say other/);
});

test('with layout prefix all is in one bucket, named after the vPool unless the settings name it', async (t) => {
  const place = Place.for(t);
  await place.open({ layout: 'prefix' });
  assert.deepEqual(place.file().layout, { kind: 'prefix', bucket: 'vf-vpool1-01234567' });
  assert.deepEqual(readdirSync(join(place.backend, 'buckets')), ['vf-vpool1-01234567']);
  assert.deepEqual(readdirSync(join(place.backend, 'buckets', 'vf-vpool1-01234567')), [`vf-vpool1-01234567-ns.vpool-${UUID}`]);
});

test('a backend that was moved is taken where its identity is found, and refused elsewhere', async (t) => {
  const place = Place.for(t);
  await place.open();
  const moved = join(place.root, 'moved');
  await refused(
    place.open({ path: moved }),
    'backend-changed',
    /has its objects in directory .*backend, but the settings name directory .*moved, where they cannot/,
  );
  renameSync(place.backend, moved);
  await place.open({ path: moved });
  assert.deepEqual(place.file().backend, { kind: 'directory', path: moved });
});

test("another vPool's backend is refused, also at the same address", async (t) => {
  const place = Place.for(t);
  await place.open();
  const other = Place.for(t);
  await other.open({}, 'f'.repeat(32));
  rmSync(place.backend, { recursive: true });
  cpSync(other.backend, place.backend, { recursive: true });
  await assert.rejects(place.open(), /is the backend of another vPool/);
});

test("an identity object that says another vPool's uuid, or nothing, is refused", async (t) => {
  const place = Place.for(t);
  await place.open();
  for (const text of [`{"format":"vferry-vpool","version":1,"uuid":"${'f'.repeat(32)}"}`, '[]', 'null', '', '{"format":"x"', '\0']) {
    writeFileSync(join(place.backend, 'buckets', IDENTITY), text);
    await refused(place.open(), 'backend-foreign', /is not the identity of vPool 0123456789abcdef/);
  }
});

test('a backend without the identity object is refused, by fsck too', async (t) => {
  const place = Place.for(t);
  const settings = place.settings();
  const { uuid } = await createVpool(settings, PROBE);
  const fsck = (): Promise<unknown> => fsckDataDirectory(settings, silentLogger, () => undefined);
  await fsck();
  const bucket = `vf-vpool1-${uuid.slice(0, 8)}-ns`;
  rmSync(join(place.backend, 'buckets', bucket, `vpool-${uuid}`));
  await refused(fsck(), 'backend-foreign', new RegExp(`answers, but has no ${bucket}/vpool-${uuid}: it is not the backend of vPool vpool1`));
  const vpool = { directory: join(settings.data, 'vpools', 'vpool1'), uuid };
  const open = openBackend(settings, vpool, { clock: HASTY, random: systemRandom, logger: silentLogger });
  await refused(open, 'backend-foreign', /answers, but has no/);
});

test('a registry of another vPool is refused', async (t) => {
  const place = Place.for(t);
  await place.open();
  await refused(place.open({}, 'f'.repeat(32)), 'registry-foreign', /belongs to vPool 0123456789abcdef/);
});

test('a backend that is not there is no reason not to start; it is confirmed when it is back', async (t) => {
  const place = Place.for(t);
  await place.open();
  renameSync(place.backend, `${place.backend}.gone`);
  const opened = await place.open();
  assert.match(opened.problem?.message ?? '', /is not mounted/);
  const stop = new AbortController();
  const confirmed = opened.confirmed(stop.signal);
  renameSync(`${place.backend}.gone`, place.backend);
  await confirmed;
  assert.equal(opened.problem, null);
});

test('a backend that comes back as another one is told at once', async (t) => {
  const place = Place.for(t);
  await place.open();
  renameSync(place.backend, `${place.backend}.gone`);
  const opened = await place.open();
  const confirmed = opened.confirmed(new AbortController().signal);
  renameSync(`${place.backend}.gone`, place.backend);
  writeFileSync(join(place.backend, 'buckets', IDENTITY), 'something else');
  await refused(confirmed, 'backend-foreign', /is not the identity/);
});

test('a file system that hangs does not hang the start: what is local is served until it answers', async (t) => {
  const place = Place.for(t);
  await place.open();
  const { promise: server, resolve: comesBack } = Promise.withResolvers<void>();
  let asked = 0;
  const stat = (): Promise<void> => {
    asked += 1;
    return server;
  };
  const before = stuckThreads.count;
  const opened = await openBackend(place.settings(), place.vpool, { clock: HASTY, random: systemRandom, logger: silentLogger, stat });
  assert.match(opened.problem?.message ?? '', /the file system of directory .*backend does not answer/);
  assert.ok(opened.config.store.kind === 'directory' && opened.config.store.linkFiles !== true);
  assert.equal(stuckThreads.count, before + 1, 'whoever ends the process must know that a thread hangs');
  const confirmed = opened.confirmed(new AbortController().signal);
  await systemClock.sleep(500);
  assert.equal(asked, 1, 'each question holds a thread');
  comesBack();
  await confirmed;
  assert.equal(opened.problem, null);
  assert.equal(stuckThreads.count, before);
});

test('waiting for a backend ends with the router', async (t) => {
  const place = Place.for(t);
  await place.open();
  renameSync(place.backend, `${place.backend}.gone`);
  const opened = await place.open();
  const stop = new AbortController();
  const confirmed = opened.confirmed(stop.signal);
  stop.abort();
  await confirmed;
  assert.notEqual(opened.problem, null);
});

test('encoding is remembered before the first encoded object, and for ever', async (t) => {
  const place = Place.for(t);
  await place.open();
  assert.equal((await place.open({ compression: 'zstd' })).config.encoding?.compression, 'zstd');
  assert.equal(place.file().encoded, true);
  const off = await place.open();
  assert.deepEqual(off.config.encoding, { compression: 'none', encryptWith: null, keys: [], refuseUnencrypted: false });
  assert.ok(off.config.store.kind === 'directory' && off.config.store.linkFiles === false, 'a file cannot be the object when objects are encoded');
  assert.equal(statSync(place.vpool.directory).isDirectory(), true);
});

test('keys: encrypting, rotating, turning it off; a key that objects need is missed', async (t) => {
  const place = Place.for(t);
  const [old, current] = [generateKey(systemRandom), generateKey(systemRandom)];
  const encrypted = await place.open({ encryption: 'aes-256-gcm', keyFile: place.keyFile(old) });
  assert.equal(encrypted.config.encoding?.encryptWith, idOf(old));
  assert.deepEqual([place.file().encoded, place.file().keys], [true, [idOf(old)]]);

  const rotated = await place.open({ encryption: 'aes-256-gcm', keyFile: place.keyFile(current, old) });
  assert.equal(rotated.config.encoding?.encryptWith, idOf(current));
  assert.deepEqual(place.file().keys, [idOf(old), idOf(current)]);

  const off = await place.open({ keyFile: place.keyFile(current, old) });
  assert.equal(off.config.encoding?.encryptWith, null);
  assert.equal(off.config.encoding?.keys.length, 2);

  const missing = new RegExp(`are encrypted with key ${idOf(old)}, which is not in .*keys-1.*: a wrong key file, or a key was removed`);
  await refused(place.open({ encryption: 'aes-256-gcm', keyFile: place.keyFile(current) }), 'encryption-key-missing', missing);
  await refused(place.open(), 'encryption-key-missing', /which is not in nothing \(set vpool\.backend\.keyFile\)/);
  const wrong = place.open({ encryption: 'aes-256-gcm', key: generateKey(systemRandom) });
  await refused(wrong, 'encryption-key-missing', new RegExp(`key ${idOf(old)}, ${idOf(current)}, which is not in vpool\\.backend\\.key`));
  // Nothing was recorded of what was refused.
  assert.deepEqual(place.file().keys, [idOf(old), idOf(current)]);
  assert.throws(() => recordedStoreConfig(place.settings(), place.file()), /encrypted with key/);
});

test('in a vPool that was always encrypted what is not is refused; not so as soon as it was switched off once, or had a life before', async (t) => {
  const key = generateKey(systemRandom);
  const place = Place.for(t);
  const keyFile = place.keyFile(key);
  const on = { encryption: 'aes-256-gcm', keyFile };
  assert.equal((await place.open(on)).config.encoding?.refuseUnencrypted, true);
  assert.equal((await place.open(on)).config.encoding?.refuseUnencrypted, true);
  assert.equal(place.file().unencrypted, false);
  assert.equal((await place.open({ keyFile })).config.encoding?.refuseUnencrypted, false);
  assert.equal(place.file().unencrypted, true);
  assert.equal((await place.open(on)).config.encoding?.refuseUnencrypted, false);

  const plainFirst = Place.for(t);
  await plainFirst.open();
  assert.equal((await plainFirst.open({ encryption: 'aes-256-gcm', keyFile: plainFirst.keyFile(key) })).config.encoding?.refuseUnencrypted, false);
});

test('keys that cannot be read are found out before a vPool is made, and no message has a key in it', async (t) => {
  const place = Place.for(t);
  const encryption = 'aes-256-gcm';
  await refused(
    place.open({ encryption, keyFile: '/nonexistent/keys' }),
    'secret-unreadable',
    /vpool\.backend\.keyFile: cannot read \/nonexistent\/keys/,
  );
  await refused(place.open({ encryption, key: 'hunter2' }), 'encryption-key-invalid', /^(?!.*hunter2).*line 1/);
  assert.equal(existsSync(place.backend), false);
});

test('secrets in files are read; empty and missing ones are told', async (t) => {
  const place = Place.for(t);
  const swift = { kind: 'swift', 'swift.authUrl': 'http://127.0.0.1:1/auth/v1.0', 'swift.user': 'u' };
  const file: VpoolFile = {
    version: 2,
    uuid: UUID,
    backend: { kind: 'swift', authUrl: 'http://127.0.0.1:1/auth/v1.0', storageUrl: null, user: 'u', project: null, region: null },
    layout: { kind: 'buckets' },
    fence: 'registry',
    identity: true,
    probe: null,
    encoded: false,
    keys: [],
    unencrypted: true,
    linked: false,
  };
  const keyFile = join(place.root, 'secret');
  writeFileSync(keyFile, 'pass word\nsecond line\n');
  const { store } = recordedStoreConfig(place.settings({ ...swift, 'swift.keyFile': keyFile }), file);
  assert.ok(store.kind === 'swift' && store.auth.version === 1 && store.auth.key === 'pass word');
  writeFileSync(keyFile, '\n');
  assert.throws(() => recordedStoreConfig(place.settings({ ...swift, 'swift.keyFile': keyFile }), file), /has an empty first line/);
  assert.throws(() => recordedStoreConfig(place.settings({ ...swift, 'swift.keyFile': '/nonexistent' }), file), /cannot read \/nonexistent/);

  // With nobody there: no vPool is made, one that exists starts.
  await refused(
    place.open({ ...swift, 'swift.key': 'k' }),
    'backend-unfit',
    /no vPool can be made on swift http:\/\/127\.0\.0\.1:1\/auth\/v1\.0 as u: unfit, because it cannot make a bucket: .*ECONNREFUSED/,
  );
  assert.equal(existsSync(join(place.vpool.directory, 'vpool.json')), false);
  writeFileSync(join(place.vpool.directory, 'vpool.json'), JSON.stringify(file));
  const opened = await place.open({ ...swift, 'swift.key': 'k' });
  assert.notEqual(opened.problem, null);
  const moved = place.open({ ...swift, 'swift.key': 'k', 'swift.authUrl': 'http://127.0.0.1:2/auth/v1.0' });
  await refused(moved, 'backend-changed', /has its objects in swift http:\/\/127\.0\.0\.1:1/);
});

test('a damaged vpool.json is refused with its name', async (t) => {
  const place = Place.for(t);
  await place.open();
  const path = join(place.vpool.directory, 'vpool.json');
  const good = readFileSync(path, 'utf8');
  for (const text of [
    '',
    '{',
    '[]',
    good.replace('"version":2', '"version":3'),
    good.replace('"fence":"backend"', '"fence":"none"'),
    good.replace('{', '{"x":1,'),
  ]) {
    writeFileSync(path, text);
    await refused(place.open(), 'data-unusable', /vpool\.json is damaged/);
  }
});

test('vpool create makes what serve finds, once; backend test leaves nothing', async (t) => {
  const place = Place.for(t);
  const settings = place.settings();
  const said: string[] = [];
  const report = await testBackend(settings.vpool.backend, { ...PROBE, progress: (text) => said.push(text) });
  assert.equal(report.verdict, 'fit');
  assert.equal(existsSync(place.backend), false);
  assert.ok(said.length > 3);
  const created = await createVpool(settings, PROBE);
  assert.match(created.uuid, /^[0-9a-f]{32}$/);
  assert.equal(created.backend, `directory ${place.backend}`);
  await refused(createVpool(settings, PROBE), 'vpool-exists', /has a vPool vpool1 already/);
  const vpool = { directory: join(settings.data, 'vpools', 'vpool1'), uuid: created.uuid };
  const opened = await openBackend(settings, vpool, { clock: systemClock, random: systemRandom, logger: silentLogger });
  assert.notEqual(opened.file.probe?.figures['uploadBytesPerSecond'], null);
});

test('vpool create and fsck refuse a registry in Redis instead of making or praising one of their own', async (t) => {
  const settings = Place.for(t).settings();
  const shared = { ...settings, registry: { ...settings.registry, kind: 'redis' as const } };
  await refused(createVpool(shared, PROBE), 'registry-shared', /the first router that starts makes the vPool/);
  assert.equal(existsSync(settings.data), false);
  await createVpool(settings, PROBE);
  await refused(
    fsckDataDirectory(shared, silentLogger, () => undefined),
    'registry-shared',
    /the registry of this vPool is in Redis/,
  );
});

test('a directory that cannot be written is unfit', async (t) => {
  const place = Place.for(t);
  writeFileSync(place.backend, 'a file');
  const report = await testBackend(place.settings({ path: join(place.backend, 'x') }).vpool.backend, PROBE);
  assert.equal(report.verdict, 'unfit');
  assert.match(report.findings[0]?.text ?? '', /cannot be written: ENOTDIR/);
});
