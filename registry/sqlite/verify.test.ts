/** The offline check finds every kind of contradiction between records. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';

import type { FileId, Incarnation, RouterId } from '../../server/core/ids.ts';
import { bytesOf, ROUTER, VOLUME, World } from '../conformance/world.ts';
import { TestRegistry } from './testing/test-registry.ts';

/** A namespace with something of everything; fileids from 65 up in this order. */
async function furnish(world: World): Promise<void> {
  const d = await world.directory('d'); // 65
  await world.directory('e', d.fileid); // 66
  const f = await world.file('f'); // 67
  await world.namespace.link(world.mutation(), f.fileid, d.fileid, bytesOf('g'));
  const v = await world.file('v', VOLUME); // 68
  await world.ownership.claim(world.mutation({ operationId: 'c|1' }), v.fileid, ROUTER, null, null, 'c'.repeat(16));
  const w = await world.file('w', VOLUME); // 69
  await world.ownership.claim(world.mutation(), w.fileid, ROUTER, null, null, 'd'.repeat(16));
  await world.namespace.remove(world.mutation(), world.root, bytesOf('w'));
  await world.registry.outbox.release(2);
}

const DAMAGES: readonly (readonly [sql: string, message: RegExp])[] = [
  ['DELETE FROM inode WHERE fileid = 67', /entry "f" of directory 64 names inode 67, which is not there or unlinked/],
  [`UPDATE entry SET fileid = 69 WHERE name = x'76'`, /entry "v" of directory 64 names inode 69, which is not there or unlinked/],
  ["INSERT INTO entry VALUES (67, x'61', 3, 67, 0)", /entry "a" is in 67, which is not a live directory/],
  [`UPDATE entry SET cookie = 3 WHERE directory = 64 AND name = x'66'`, /directory 64 has 2 entries with cookie 3/],
  [`UPDATE entry SET cookie = 99 WHERE directory = 64 AND name = x'66'`, /entry "f" of directory 64 has cookie 99, the directory's next is 7/],
  ['UPDATE inode SET nlink = 3 WHERE fileid = 67', /inode 67 has 3 links and 2 names/],
  [`DELETE FROM entry WHERE name = x'67'`, /inode 67 has 2 links and 1 names/],
  ['UPDATE inode SET nlink = 5 WHERE fileid = 65', /directory 65 has 5 links and 1 subdirectories/],
  [`INSERT INTO entry VALUES (64, x'7a', 6, 66, 0)`, /directory 66 has 2 names/],
  ['UPDATE inode SET parent = 64 WHERE fileid = 66', /directory 66 has parent 64 and its name in 65/],
  [`DELETE FROM entry WHERE name = x'64'; INSERT INTO entry VALUES (66, x'64', 3, 65, 0)`, /directory 66 is not reachable from the root/],
  ['UPDATE inode SET parent = 65 WHERE fileid = 64', /the root directory 64 is missing or its own parent no more/],
  ['UPDATE meta SET next_fileid = 68', /inode 68 is at or above the fileid counter 68/],
  ['UPDATE inode SET class = 1 WHERE fileid = 69', /tombstone 69 is of class 1/],
  ['DELETE FROM inode WHERE fileid = 69', /owner record 69 has no file or volume with its number and uuid/],
  [`UPDATE owner SET uuid = '${'e'.repeat(32)}' WHERE fileid = 68`, /owner record 68 has no file or volume with its number and uuid/],
  [`UPDATE owner SET router = '${'f'.repeat(32)}' WHERE fileid = 68`, /owner record 68 names router f{32}, which never joined/],
  ['UPDATE owner SET generation = 9 WHERE fileid = 68', /owner record 68 has a term of generation 9, the registry is at 1/],
  ['UPDATE meta SET inodes = 7', /usage says 7 inodes and 12288 bytes, there are 5 and 12288/],
  ['UPDATE meta SET used_bytes = 1', /usage says 5 inodes and 1 bytes, there are 5 and 12288/],
  ['DELETE FROM outbox WHERE sequence = 4', /the outbox has 6 entries from 3 to 9, expected all from 3 to 9/],
  ['DELETE FROM outbox WHERE sequence = 9', /the outbox has 6 entries from 3 to 8, expected all from 3 to 9/],
  ['UPDATE meta SET released = 99', /the outbox has 7 entries from 3 to 9, expected all from 100 to 9/],
  ['UPDATE meta SET operations = 3', /the counter says 3 remembered operations, there are 1/],
  [`UPDATE operation SET verb = 'dance'`, /unknown verb dance/],
  [`UPDATE outbox SET after_image = '{"version":2}' WHERE sequence = 5`, /table outbox 5: /],
  ['DELETE FROM meta', /table meta: there is no row/],
  ['UPDATE inode SET mode = -1 WHERE fileid = 66', /table inode 66: mode is -1/],
  ['UPDATE router SET dead = 1', /table router a{32}: its checksum does not match/],
];

test('a sound registry has no message; every damage has its own', async () => {
  await using place = await TestRegistry.open();
  const world = await World.open(async () => place);
  await furnish(world);
  await world.assertSound();
  // One connection for all: the file must not be closed, or its last writer would be somebody else.
  const db = new DatabaseSync(place.path, { timeout: 5_000 });
  try {
    for (const [sql, expected] of DAMAGES) {
      db.exec('VACUUM INTO ' + `'${place.directory}/backup.db'`);
      db.exec(sql);
      const problems: string[] = [];
      for await (const problem of place.registry.verify()) problems.push(problem);
      assert.ok(
        problems.some((problem) => expected.test(problem)),
        `${sql}: ${problems.join('\n')}`,
      );
      restore(db, `${place.directory}/backup.db`);
    }
  } finally {
    db.close();
  }
  await world.assertSound();
});

function restore(db: DatabaseSync, backup: string): void {
  db.exec(`ATTACH '${backup}' AS backup; BEGIN`);
  for (const row of db.prepare("SELECT name FROM backup.sqlite_schema WHERE type = 'table'").all()) {
    const table = String(row['name']);
    db.exec(`DELETE FROM main.${table}; INSERT INTO main.${table} SELECT * FROM backup.${table}`);
  }
  db.exec(`COMMIT; DETACH backup`);
  rmSync(backup);
}

test('verify reads one instant while the registry goes on changing', async () => {
  await using place = await TestRegistry.open();
  const world = await World.open(async () => place);
  await Promise.all(Array.from({ length: 3_000 }, (_, index) => world.file(`f${index}`)));
  const problems: string[] = [];
  let running = true;
  const changing = (async () => {
    for (let index = 0; running; index += 1) {
      await world.namespace.rename(world.mutation(), world.root, bytesOf(`f${index % 100}`), world.root, bytesOf('moving'));
      await world.namespace.rename(world.mutation(), world.root, bytesOf('moving'), world.root, bytesOf(`f${index % 100}`));
    }
  })();
  for await (const problem of place.registry.verify()) problems.push(problem);
  running = false;
  await changing;
  assert.deepEqual(problems, []);
});

test('a router that left may still be named by the records of what it owned', async () => {
  await using place = await TestRegistry.open();
  const world = await World.open(async () => place);
  const [router, incarnation] = ['b'.repeat(32) as RouterId, '2'.repeat(32) as Incarnation];
  await world.registry.membership.join(router, incarnation, [], 'test');
  const { fileid } = await world.file('v', VOLUME);
  await world.ownership.claim(world.mutation({ incarnation }), fileid, router, null, null, 'c'.repeat(16));
  await world.registry.membership.leave(router, incarnation);
  await world.namespace.remove(world.mutation(), world.root, bytesOf('v'));
  assert.equal((await world.namespace.tombstones(0 as FileId, 10)).length, 1);
  await world.assertSound();
});
