/** What keeps the registry fast and small: every statement uses an index, and what is remembered has a bound. */
import assert from 'node:assert/strict';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { test } from 'node:test';

import type { Incarnation } from '../../server/core/ids.ts';
import { bytesOf, INLINE, ROUTER, World } from '../conformance/world.ts';
import { OperationMemory } from './operation-memory.ts';
import { Records } from './records.ts';
import { RegistryReader } from './registry-reader.ts';
import { SQLITE_REGISTRY_DEFAULTS } from './sqlite-registry.ts';
import { TestRegistry } from './testing/test-registry.ts';

/** A connection that notes the SQL it prepares. */
class NotingDatabase extends DatabaseSync {
  readonly prepared: string[] = [];
  override prepare(sql: string): StatementSync {
    this.prepared.push(sql);
    return super.prepare(sql);
  }
}

test('no verb and no read scans a table: all are O(log n)', async (t) => {
  await using place = await TestRegistry.open();
  const db = new NotingDatabase(place.path, { timeout: 5_000 });
  new Records(db);
  new OperationMemory(db, SQLITE_REGISTRY_DEFAULTS.operations);
  const prepare = t.mock.method(DatabaseSync.prototype, 'prepare');
  const reader = new RegistryReader(place.path, () => {});
  reader.usage();
  const reads = prepare.mock.calls.map((call) => call.arguments[0]);
  prepare.mock.restore();
  const statements = [...db.prepared, ...reads].filter((sql) => /^(SELECT|UPDATE|DELETE|INSERT)/.test(sql));
  assert.ok(statements.length > 30, `${statements.length} statements`);
  // One row; a handful of routers; the oldest rows in the order of their key.
  const mayScan = [
    /FROM meta$/,
    /^UPDATE meta/,
    /FROM router ORDER BY id$/,
    /DELETE FROM operation WHERE ordinal IN \(SELECT ordinal FROM operation ORDER BY ordinal LIMIT/,
  ];
  for (const sql of statements) {
    const plan = db
      .prepare(`EXPLAIN QUERY PLAN ${sql}`)
      .all()
      .map((row) => String(row['detail']));
    if (mayScan.some((allowed) => allowed.test(sql))) continue;
    for (const detail of plan) assert.doesNotMatch(detail, /^SCAN (?!CONSTANT ROW)|TEMP B-TREE|AUTOMATIC/, `${sql}: ${plan.join('; ')}`);
  }
  reader.close();
  db.close();
});

test('the memory of operations is bounded: beyond it the oldest are forgotten, whoever asked', async () => {
  const operations = { ...SQLITE_REGISTRY_DEFAULTS.operations, keptMax: 50 };
  await using place = await TestRegistry.open({ ...SQLITE_REGISTRY_DEFAULTS, operations });
  const world = await World.open(async () => place);
  for (let index = 0; index < 80; index += 1) {
    await world.namespace.createFile(world.mutation({ operationId: `client${index}|1` }), world.root, bytesOf(`f${index}`), INLINE);
  }
  const kind = async (index: number): Promise<string> =>
    (await world.namespace.createFile(world.mutation({ operationId: `client${index}|1` }), world.root, bytesOf(`f${index}`), INLINE)).kind;
  assert.equal(await kind(79), 'created', 'remembered');
  assert.equal(await kind(30), 'created', 'remembered');
  assert.equal(await kind(29), 'exists', 'forgotten');
  await world.assertSound();
});

test('dead incarnations are remembered by the thousand, not for ever', async () => {
  await using place = await TestRegistry.open();
  const { membership } = place.registry;
  const incarnation = (index: number): Incarnation => index.toString(16).padStart(32, '0') as Incarnation;
  for (let first = 0; first < 1_100; first += 100) {
    await Promise.all(Array.from({ length: 100 }, (_, at) => membership.join(ROUTER, incarnation(first + at), [], 'test')));
  }
  const db = new DatabaseSync(place.path, { readOnly: true });
  assert.equal(db.prepare('SELECT count(*) AS count FROM dead_incarnation').get()?.['count'], 1_024);
  db.close();
  await assert.rejects(membership.join(ROUTER, incarnation(1_050), [], 'test'), { code: 'incarnation-dead' });
});

test('20,000 names in a directory: listing in pages reads each once; every name is found', async () => {
  await using place = await TestRegistry.open();
  const world = await World.open(async () => place);
  const count = 20_000;
  for (let first = 0; first < count; first += 1_000) {
    await Promise.all(Array.from({ length: 1_000 }, (_, at) => world.file(`file-${first + at}`)));
  }
  const listed = await world.list(world.root, 128);
  assert.equal(listed.length, count);
  assert.equal(new Set(listed.map((entry) => entry.cookie)).size, count);
  assert.deepEqual(await world.namespace.usage(), { inodes: count + 1, usedBytes: 4_096 });
  for (let index = 0; index < count; index += 97) assert.notEqual(await world.find(`file-${index}`), null);
});

test('the write-ahead log is written back while the registry runs, and does not grow with it', async () => {
  await using place = await TestRegistry.open({ ...SQLITE_REGISTRY_DEFAULTS, checkpointPages: 100 });
  const world = await World.open(async () => place);
  const db = new DatabaseSync(place.path, { readOnly: true });
  let most = 0;
  for (let index = 0; index < 300; index += 1) {
    await world.file(`file-${index}`);
    most = Math.max(most, Number(db.prepare('PRAGMA wal_checkpoint(NOOP)').get()?.['log']));
  }
  db.close();
  assert.ok(most > 100 && most < 1_000, `${most} pages`);
});
