/** Routers that die in a move of an object: what their next start finds, and deletes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { OwnerRecord } from '../../registry/ports.ts';
import { silentLogger } from '../core/logger.ts';
import { settleForeign } from '../object-log/foreign-segments.ts';
import { surveyObjects } from '../object-router/startup-recovery.ts';
import { accepted, BLOCK, contents, KIB, Pair, refusedWith, write } from './testing/object-pair.ts';

test('a receiver that dies before the switch leaves nothing that counts; the start deletes it', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  await pair.fill(object, 40);
  const move = await pair.copy(object);
  await pair.run(move.replica.sync());
  b.kill(true);
  move.source.thaw();
  await cluster.restart(b);
  assert.ok(pair.replicaFiles(b).length > 0);
  assert.equal(b.router.files.dirtyBytes, 0);
  const survey = (): Promise<readonly unknown[]> =>
    pair.run(surveyObjects({ registry: b.router.registry, files: b.router.files, router: b.id, logger: silentLogger, given: null }));
  await survey();
  assert.ok(pair.replicaFiles(b).length > 0, 'the giver could still let go in this attempt');
  const next = await pair.run(cluster.begin(a, object, b));
  assert.deepEqual(pair.replicaFiles(b), [], 'a new attempt replaces what the former one left');
  await pair.run(cluster.catchUp(next));
  b.kill(true);
  next.source.thaw();
  await cluster.restart(b);
  const { owner } = cluster.commons;
  cluster.commons.owner = { ...owner!, moving: null };
  await survey();
  assert.deepEqual(pair.replicaFiles(b), [], 'no attempt is under way any more');
});

test('the file that is made ready while an attempt comes to its end goes with the attempt, and is begun when that comes well', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  const logFiles = (): string[] => b.disk.files('/vpool/log/');
  const object = await pair.open(a);
  await pair.fill(object, 40);
  const move = await pair.copy(object);
  await pair.run(cluster.freeze(move));
  assert.equal(logFiles().length, 1);
  move.source.thaw();
  await pair.run(move.replica.discard());
  assert.deepEqual(logFiles(), [], 'an attempt that came to nothing');
  const given = {
    fileidOf: () => null,
    settle: (of: OwnerRecord) => settleForeign({ disk: b.disk.process(), files: b.router.files }, of),
  };
  for (const isSurveyed of [true, false]) {
    accepted(await pair.run(write(object, 0, 97)));
    const dying = await pair.copy(object);
    await pair.run(cluster.freeze(dying));
    await pair.run(cluster.clock.sleep(100));
    assert.equal(logFiles().length, 1);
    b.kill(false);
    dying.source.thaw();
    await cluster.restart(b);
    if (!isSurveyed) continue;
    await pair.run(surveyObjects({ registry: b.router.registry, files: b.router.files, router: b.id, logger: silentLogger, given }));
    assert.deepEqual([logFiles(), b.disk.files('/vpool/orphans/')], [[], []], 'nothing was ever written to it: no orphan for people');
  }
  accepted(await pair.run(write(object, 0, 98)));
  const third = await pair.run(cluster.begin(a, object, b));
  assert.deepEqual(logFiles(), [], 'what a life of the router left that died is gone before the next attempt');
  await pair.run(cluster.catchUp(third));
  const end = await pair.run(cluster.freeze(third));
  await pair.run(cluster.clock.sleep(100));
  const [ready] = logFiles();
  const owner = await pair.run(cluster.transfer(third, end));
  third.source.cede();
  const moved = await pair.run(third.replica.activate(owner));
  accepted(await pair.run(write(moved, 0, 99)));
  assert.deepEqual(
    b.router.files
      .segmentsOf(owner.uuid)
      .filter((segment) => segment.number > end.lastSegment)
      .map((segment) => segment.path),
    [`/vpool/log/${ready?.split('/').at(-1)}`],
    'what is written first goes into it',
  );
  b.kill(true);
  await cluster.restart(b);
  const again = await pair.open(b);
  assert.equal((await pair.run(contents(again)))[0], 99);
});

test('a receiver that dies after it confirmed finds its copy when the giver lets go nevertheless', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  await pair.fill(object, 40);
  const move = await pair.copy(object);
  const end = await pair.run(cluster.freeze(move));
  b.kill(true);
  await cluster.restart(b);
  await pair.run(surveyObjects({ registry: b.router.registry, files: b.router.files, router: b.id, logger: silentLogger, given: null }));
  await pair.run(cluster.transfer(move, end));
  move.source.cede();
  a.kill(true);
  const found = await pair.run(
    surveyObjects({ registry: b.router.registry, files: b.router.files, router: b.id, logger: silentLogger, given: null }),
  );
  assert.deepEqual(found, [100], 'it is to be opened');
  const moved = await pair.open(b);
  await pair.assertFilled(moved, 40);
  assert.deepEqual(pair.replicaFiles(b), []);
});

test('what a giver kept as cache is an owner’s log again when the receiver died with the only other copy', async () => {
  const pair = await Pair.start('volume', { cacheBytes: 4096 * KIB });
  const { a, b, cluster } = pair;
  pair.backend({ failBefore: 1 });
  const object = await pair.open(a);
  await pair.fill(object, 40);
  await pair.run(cluster.clock.sleep(2000));
  pair.backend({});
  const move = await pair.copy(object);
  pair.backend({ failBefore: 1 });
  const end = await pair.run(cluster.freeze(move));
  const owner = await pair.run(cluster.transfer(move, end));
  move.source.cede();
  const moved = await pair.run(move.replica.activate(owner));
  await pair.run(object.close());
  accepted(await pair.run(write(moved, 0, 1)));
  b.kill(true);
  await refusedWith('object-recovering', pair.open(a));
  // Somebody decides to go on without what only B had.
  cluster.commons.owner = { ...cluster.commons.owner!, protection: { kind: 'clean' } };
  pair.backend({});
  const again = await pair.open(a);
  pair.backend({ failBefore: 1 });
  const uuid = cluster.commons.owner.uuid;
  const uploaded = cluster.commons.owner.root.uploadedSegment;
  const needed = a.router.files.segmentsOf(uuid).filter((segment) => segment.number > uploaded);
  assert.ok(needed.length > 0);
  for (const segment of needed) assert.equal(segment.place, 'log', `segment ${segment.number} could be evicted`);
  assert.ok(a.router.files.dirtyBytes > 0);
  await pair.assertFilled(again, 40);
  pair.backend({});
  await pair.clean(again);
});

test('a giver that dies between the switch and its renames has copies at its next start, and no orphans', async () => {
  const pair = await Pair.start('volume', { cacheBytes: 4096 * KIB });
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  pair.backend({ failBefore: 1 });
  await pair.fill(object, 40);
  pair.backend({});
  const move = await pair.run(cluster.begin(a, object, b));
  // Only the claim of the attempt came through.
  pair.backend({ failBefore: 1 });
  await pair.run(cluster.catchUp(move));
  const end = await pair.run(cluster.freeze(move));
  const owner = await pair.run(cluster.transfer(move, end));
  assert.equal(owner.root.uploadedSegment, 0);
  pair.backend({});
  a.kill(true);
  const moved = await pair.run(move.replica.activate(owner));
  await cluster.restart(a);
  const { files, registry } = a.router;
  const waiting = files.segmentsOf(owner.uuid).filter((segment) => segment.place === 'log').length;
  assert.ok(waiting > 2, `${waiting} segments`);
  const given = {
    fileidOf: () => object.fileid,
    settle: (of: OwnerRecord) => settleForeign({ disk: a.disk.process(), files }, of),
  };
  await pair.run(surveyObjects({ registry, files, router: a.id, logger: silentLogger, given }));
  assert.equal(files.dirtyBytes, 0);
  assert.ok(files.cacheBytes > 40 * BLOCK, `${files.cacheBytes} bytes`);
  assert.deepEqual(a.disk.files('/vpool/orphans/'), []);
  // What no owner has is kept for people.
  cluster.commons.owner = { ...owner, root: { ...owner.root, closedEpochs: [{ ...owner.root.closedEpochs[0]!, lastSegment: 1 }] } };
  a.kill(false);
  await cluster.restart(a);
  const again = a.router.files;
  for (const segment of again.segmentsOf(owner.uuid)) if (segment.number > 1) await pair.run(again.keep(segment));
  assert.ok((await pair.run(settleForeign({ disk: a.disk.process(), files: again }, cluster.commons.owner))) > 0);
  assert.ok(a.disk.files('/vpool/orphans/').length > 0);
  void moved;
});
