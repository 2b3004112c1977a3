/** A SQLite registry whose file is not what it should be, or whose worker dies. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';

import type { FileId } from '../../server/core/ids.ts';
import { silentLogger } from '../../server/core/logger.ts';
import { systemRandom } from '../../server/core/node-time.ts';
import { bytesOf, INCARNATION, INLINE, NO_CHANGES, rejectsWith, ROUTER, VOLUME, World } from '../conformance/world.ts';
import { RegistryWriter } from './registry-writer.ts';
import { openSqliteRegistry, SQLITE_REGISTRY_DEFAULTS } from './sqlite-registry.ts';
import { TestClock, TestRegistry } from './testing/test-registry.ts';

/** Runs SQL on the database behind the registry's back. */
function tamper(place: TestRegistry, sql: string): void {
  const db = new DatabaseSync(place.path, { timeout: 5_000 });
  db.exec(sql);
  db.close();
}

async function refusal(place: TestRegistry, vpoolName = 'vpool1'): Promise<unknown> {
  const options = { path: place.path, vpoolName, clock: place.clock, random: systemRandom, logger: silentLogger };
  try {
    await using registry = await openSqliteRegistry(options);
    return registry.vpool;
  } catch (error) {
    assert.ok(error instanceof Error && 'code' in error, String(error));
    return error.code;
  }
}

test('a registry of another vPool, of a newer version, or of another program is refused and left as it is', async () => {
  await using place = await TestRegistry.open();
  await place.stop();
  assert.equal(await refusal(place, 'vpool2'), 'registry-foreign');
  tamper(place, 'PRAGMA user_version = 2');
  assert.equal(await refusal(place), 'registry-version');
  tamper(place, 'PRAGMA user_version = 1; PRAGMA application_id = 1');
  assert.equal(await refusal(place), 'registry-foreign');
  tamper(place, `PRAGMA application_id = ${0x76665267}; DELETE FROM meta`);
  assert.equal(await refusal(place), 'registry-corrupt');
  fs.writeFileSync(place.path, 'this is no database, '.repeat(1_000));
  assert.equal(await refusal(place), 'registry-corrupt');
  assert.equal(fs.readFileSync(place.path, 'utf8').startsWith('this is no database'), true);
  fs.rmSync(place.directory, { recursive: true });
  assert.equal(await refusal(place), 'registry-unavailable', 'a missing directory is not made');
});

test('a damaged record is refused by name, on reading and on changing, and stays in health; everything else goes on', async () => {
  await using place = await TestRegistry.open();
  const world = await World.open(async () => place);
  const bad = await world.file('bad');
  const good = await world.file('good');
  tamper(place, `UPDATE inode SET nlink = 0 WHERE fileid = ${bad.fileid}`);
  const message = new RegExp(`table inode ${bad.fileid}: state live with 0 links`);
  assert.throws(() => place.registry.namespace.inode(bad.fileid, null), { code: 'registry-corrupt', message });
  assert.throws(() => place.registry.namespace.lookup(world.root, bytesOf('bad')), { code: 'registry-corrupt', message });
  assert.throws(() => place.registry.namespace.entries(world.root, 0, 10), { code: 'registry-corrupt', message });
  const outcomes = await Promise.allSettled([
    world.namespace.setAttributes(world.mutation(), good.fileid, { ...NO_CHANGES, mode: 0o600 }, null, null),
    world.namespace.setAttributes(world.mutation(), bad.fileid, { ...NO_CHANGES, mode: 0o600 }, null, null),
    world.namespace.createFile(world.mutation(), world.root, bytesOf('new'), INLINE),
  ]);
  assert.deepEqual(
    outcomes.map((outcome) => outcome.status),
    ['fulfilled', 'rejected', 'fulfilled'],
    'one transaction, one verb that fails',
  );
  assert.match(String(world.registry.health()), message);
  assert.equal((await world.live(good.fileid)).mode, 0o600);
  assert.notEqual(await world.find('new'), null);
});

test('every kind of damaged row is refused, never handed out', async () => {
  const damages: readonly [sql: (fileid: number) => string, read: (place: TestRegistry, fileid: FileId) => unknown][] = [
    ...[
      'generation = -1',
      `generation = ${2 ** 48}`,
      'type = 9',
      'class = 7',
      'class = 0',
      'class = 1',
      'state = 1',
      'state = 5',
      'mode = 65536',
      'uid = -1',
      'size = -1',
      'size = 9007199254740993',
      'used = -5',
      'atime_ns = 1000000000',
      'ctime_s = 4294967296',
      'parent = 64',
      "verifier = x'00'",
      "target = x'61'",
      "uuid = 'nonsense'",
      'uuid = NULL',
      'next_cookie = 3',
      'unlinked_ms = 1',
      "inline = x'00'",
      `inline = zeroblob(70000)`,
    ].map((change): [(fileid: number) => string, (place: TestRegistry, fileid: FileId) => unknown] => [
      (fileid) => `UPDATE inode SET ${change} WHERE fileid = ${fileid}`,
      (place, fileid) => place.registry.namespace.inode(fileid, null),
    ]),
    ...[
      "uuid = 'x'",
      "router = ''",
      "incarnation = 'Z'",
      'generation = -1',
      'counter = 5',
      "nonce = 'short'",
      "state = 'running'",
      `state = '{"kind":"strange"}'`,
      `state = '{"kind":"halted"}'`,
      `moving = '[]'`,
      `root = '{}'`,
      `root = '{"checkpoint":null,"uploadedSegment":-1,"uploadedSequence":0,"closedEpochs":[]}'`,
      `root = '{"checkpoint":null,"uploadedSegment":0,"uploadedSequence":0,"closedEpochs":[{}]}'`,
      `protection = '{"kind":"protected","replicas":["x"]}'`,
      "verifier = x'00'",
    ].map((change): [(fileid: number) => string, (place: TestRegistry, fileid: FileId) => unknown] => [
      (fileid) => `UPDATE owner SET ${change} WHERE fileid = ${fileid}`,
      (place, fileid) => place.registry.ownership.owner(fileid),
    ]),
  ];
  await using place = await TestRegistry.open();
  const world = await World.open(async () => place);
  for (const [index, [sql, read]] of damages.entries()) {
    const inode = await world.file(`v${index}`, VOLUME);
    await world.ownership.claim(world.mutation(), inode.fileid, ROUTER, null, null, 'c'.repeat(16));
    read(place, inode.fileid);
    tamper(place, sql(inode.fileid));
    // Any change makes reads look at the file again.
    await world.registry.membership.renew(ROUTER, INCARNATION);
    let found: unknown;
    assert.throws(() => (found = read(place, inode.fileid)), { code: 'registry-corrupt' }, `${sql(inode.fileid)} gave ${JSON.stringify(found)}`);
  }
});

test('a remembered outcome that was damaged is refused, not answered', async () => {
  await using place = await TestRegistry.open();
  const world = await World.open(async () => place);
  const mutation = world.mutation({ operationId: 'c|1' });
  await world.namespace.createFile(mutation, world.root, bytesOf('f'), INLINE);
  for (const outcome of [
    '',
    'null',
    '{}',
    '{"kind":"removed"}',
    '{"kind":"created"}',
    '{"kind":"__proto__"}',
    '{"kind":"created","inode":{},"directory":[]}',
  ]) {
    tamper(place, `UPDATE operation SET outcome = '${outcome}'`);
    await rejectsWith(world.namespace.createFile(mutation, world.root, bytesOf('f'), INLINE), 'registry-corrupt');
  }
});

/** The name is found, or the read is refused: nothing else is true of it. */
function lookUp(place: TestRegistry, name: string): void {
  assert.equal(place.registry.namespace.lookup(place.registry.namespace.root, bytesOf(name)).kind, 'found');
}

test('a flipped bit in the contents of an inline file is found, though SQLite sees nothing wrong', async () => {
  await using place = await TestRegistry.open();
  const world = await World.open(async () => place);
  const inode = await world.file('vm.vmx');
  await world.namespace.writeInline(world.mutation(), inode.fileid, 0, bytesOf('scsi0.present = "TRUE"'));
  await place.stop();
  const bytes = fs.readFileSync(place.path);
  const at = bytes.indexOf('scsi0.present');
  assert.equal(bytes.indexOf('scsi0.present', at + 1), -1, 'once in the file; elsewhere it is base64');
  bytes[at + 3] = (bytes[at + 3] ?? 0) ^ 0x04;
  fs.writeFileSync(place.path, bytes);
  await place.start();
  assert.throws(() => place.registry.namespace.inode(inode.fileid, null), { code: 'registry-corrupt', message: /checksum/ });
  await rejectsWith(world.namespace.writeInline(world.mutation(), inode.fileid, 0, bytesOf('x')), 'registry-corrupt');
});

test('a plausible change in any checked table is found by its checksum', async () => {
  await using place = await TestRegistry.open();
  const world = await World.open(async () => place);
  const inode = await world.file('f', VOLUME);
  await world.file('g');
  await world.ownership.claim(world.mutation({ operationId: 'c|1' }), inode.fileid, ROUTER, null, null, 'c'.repeat(16));
  for (const [change, back] of [
    ['UPDATE inode SET uid = uid + 1', 'UPDATE inode SET uid = uid - 1'],
    [`UPDATE entry SET fileid = fileid + 1 WHERE fileid = ${inode.fileid}`, `UPDATE entry SET fileid = fileid - 1 WHERE name = x'66'`],
    ['UPDATE owner SET counter_max = 77', 'UPDATE owner SET counter_max = 1'],
    ["UPDATE router SET version = 'tess'", "UPDATE router SET version = 'test'"],
    ['UPDATE meta SET used_bytes = used_bytes + 1', 'UPDATE meta SET used_bytes = used_bytes - 1'],
    ["UPDATE operation SET client = 'd'", "UPDATE operation SET client = 'c'"],
    ['UPDATE outbox SET generation = 2', 'UPDATE outbox SET generation = 1'],
  ] as const) {
    tamper(place, change);
    const problems: string[] = [];
    for await (const problem of place.registry.verify()) problems.push(problem);
    assert.ok(
      problems.some((problem) => problem.includes('its checksum does not match')),
      `${change}: ${problems.join('; ')}`,
    );
    tamper(place, back);
  }
  await world.assertSound();
});

test('a page of garbage in the file is corruption, never data', async () => {
  await using place = await TestRegistry.open();
  const world = await World.open(async () => place);
  const names = Array.from({ length: 500 }, (_, index) => `file-${index}-${'x'.repeat(100)}`);
  await Promise.all(names.map((name) => world.file(name)));
  await place.stop();
  const bytes = fs.readFileSync(place.path);
  const at = bytes.indexOf('file-250-');
  assert.ok(at > 0);
  bytes.fill(0xa5, Math.floor(at / 4096) * 4096, Math.floor(at / 4096) * 4096 + 4096);
  fs.writeFileSync(place.path, bytes);
  await place.start();
  let refused = 0;
  for (const read of [() => place.registry.namespace.entries(world.root, 0, 1_000), ...names.map((name) => () => lookUp(place, name))]) {
    try {
      read();
    } catch (error) {
      assert.ok(error instanceof Error && 'code' in error && error.code === 'registry-corrupt', String(error));
      refused += 1;
    }
  }
  assert.ok(refused > 0);
  assert.match(String(place.registry.health()), /fsck/);
  const problems: string[] = [];
  for await (const problem of place.registry.verify()) problems.push(problem);
  assert.ok(problems.length > 0);
});

test('the worker dies: what was under way is unavailable, a new one is started, and an operation asked again has one effect', async () => {
  await using place = await TestRegistry.open();
  await place.stop();
  const clock = new TestClock();
  const writer = new RegistryWriter(
    { clock, logger: silentLogger, onChange: () => {} },
    { ...SQLITE_REGISTRY_DEFAULTS, path: place.path, vpoolName: 'vpool1', create: null },
    new URL('./testing/dying-worker.ts', import.meta.url),
  );
  await writer.open();
  try {
    await writer.call('join', null, [ROUTER, INCARNATION, [], 'test']);
    let deaths = 0;
    for (let index = 0; index < 60; index += 1) {
      const mutation = { operationId: `c|${index}`, incarnation: INCARNATION, now: { seconds: 1, nanoseconds: 1 }, notAfterMs: Infinity };
      const name = bytesOf(`f${index}`);
      const create = async (): Promise<string> => {
        const drawn = { inodeGeneration: 1, uuid: systemRandom.bytes(16).toString('hex') as never };
        return (await writer.call('createFile', mutation, [64 as FileId, name, INLINE, drawn])).kind;
      };
      try {
        assert.equal(await create(), 'created');
      } catch (error) {
        assert.ok(error instanceof Error && 'code' in error && error.code === 'registry-unavailable', String(error));
        assert.match(String(writer.health()), /worker ended with code 7/);
        deaths += 1;
        assert.equal(await create(), 'created');
        assert.equal(writer.health(), null);
      }
    }
    assert.ok(deaths >= 2, `${deaths} deaths`);
  } finally {
    await writer.close();
  }
  await place.start();
  const world = new World(place);
  assert.equal((await world.names()).length, 60);
  await world.assertSound();
});

test('a worker that cannot start again: verbs and health say why, and closing does not wait for it', async () => {
  await using place = await TestRegistry.open();
  await place.stop();
  for (const closeAtOnce of [true, false]) {
    const writer = new RegistryWriter(
      { clock: new TestClock(), logger: silentLogger, onChange: () => {} },
      { ...SQLITE_REGISTRY_DEFAULTS, path: place.path, vpoolName: 'vpool1', create: null },
      new URL('./testing/dying-worker.ts', import.meta.url),
    );
    await writer.open();
    fs.renameSync(place.path, `${place.path}.away`);
    const renew = (): Promise<unknown> => writer.call('join', null, [ROUTER, INCARNATION, [], 'test']);
    while (!/worker ended with code 7/.test(String(writer.health()))) await rejectsWith(renew(), 'registry-unavailable');
    if (!closeAtOnce) {
      await rejectsWith(renew(), 'registry-unavailable');
      assert.match(String(writer.health()), /unable to open database file/);
    }
    const waiting = renew().then(
      () => 'done',
      (error: unknown) => (error as { code: string }).code,
    );
    await writer.close();
    assert.equal(await waiting, 'registry-unavailable');
    fs.renameSync(`${place.path}.away`, place.path);
  }
});

test('a closed registry refuses verbs; closing twice is harmless; the files are whole without a log', async () => {
  await using place = await TestRegistry.open();
  const { registry } = place;
  const pending = registry.membership.join(ROUTER, INCARNATION, [], 'test');
  await registry[Symbol.asyncDispose]();
  assert.equal((await pending).incarnation, INCARNATION, 'what was under way is finished');
  await registry[Symbol.asyncDispose]();
  assert.throws(() => registry.namespace.inode(registry.namespace.root, null), { code: 'registry-unavailable' });
  await rejectsWith(registry.membership.renew(ROUTER, INCARNATION), 'registry-unavailable');
  assert.deepEqual(fs.readdirSync(place.directory), ['registry.db']);
});
