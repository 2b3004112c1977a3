/** An attempt to give an object away: what keeps it from beginning, what ends it, and that it leaves nothing behind. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { errorCode } from '../core/errors.ts';
import type { ObjectChange } from '../object-router/driver-port.ts';
import { accepted, BLOCK, contents, KIB, NOW, Pair, refusedWith, resize, write } from './testing/object-pair.ts';

test('an attempt that is given up leaves nothing behind: writes, checkpoints and releases go on', async () => {
  const pair = await Pair.start('volume', { checkpointAfterBytes: 256 * KIB });
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  accepted(await pair.run(write(object, 0, 1)));
  const move = await pair.run(cluster.begin(a, object, b));
  for (let n = 0; n < 200; n += 1) accepted(await pair.run(write(object, (n % 50) * BLOCK, 1 + n, 2 * BLOCK)));
  for (let n = 0; n < 20; n += 1) {
    object.tick();
    await pair.run(cluster.clock.sleep(1000));
  }
  const { owner } = cluster.commons;
  assert.equal(owner?.root.checkpoint, null, 'no checkpoint is made meanwhile');
  assert.ok((owner?.root.uploadedSegment ?? 0) > 10, 'uploads and the root go on');
  const uploaded = a.router.files.segmentsOf(owner.uuid).filter((segment) => segment.number <= owner.root.uploadedSegment);
  assert.ok(uploaded.length > 10 && uploaded.every((segment) => segment.place === 'log'), 'nothing is released');
  await pair.run(cluster.catchUp(move));
  await pair.run(cluster.freeze(move));
  const held = await pair.run(write(object, 0, 77));
  assert.ok(held.kind === 'refused' && errorCode(held.error) === 'object-held');
  const shrink = await pair.run(resize(object, BLOCK));
  assert.ok(shrink.kind === 'refused' && errorCode(shrink.error) === 'object-held');
  assert.equal(object.attributes().sizeBytes, 51 * BLOCK, 'what was held has no effect');
  move.source.thaw();
  await pair.run(move.replica.discard());
  assert.deepEqual(pair.replicaFiles(b), []);
  accepted(await pair.run(write(object, 0, 77)));
  await pair.clean(object);
  assert.notEqual(cluster.commons.owner?.root.checkpoint, null);
  assert.equal(a.router.files.dirtyBytes, 0);
  await refusedWith('object-busy', pair.run(move.source.read(move.replica.position, 1000, 0)));
});

test('an object may be thawed while its log is being frozen, at any moment: it goes on, and moves the next time', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  for (let turns = 0; turns < 24; turns += 1) {
    const begun = write(object, turns * BLOCK, 1 + turns, BLOCK, turns % 2 === 0);
    const source = await pair.run(object.giveAway());
    // It may have ended before.
    const freezing = source.freeze().catch((error: unknown) => assert.equal(errorCode(error), 'object-busy'));
    await cluster.turns(turns);
    source.thaw();
    const first = await pair.run(begun);
    if (first.kind === 'refused') accepted(await pair.run(write(object, turns * BLOCK, 1 + turns)));
    accepted(await pair.run(write(object, (100 + turns) * BLOCK, 101 + turns)));
    await pair.run(freezing);
  }
  const moved = await pair.move(a, object, b);
  const bytes = await pair.run(contents(moved));
  for (let turns = 0; turns < 24; turns += 1) assert.deepEqual([bytes[turns * BLOCK], bytes[(100 + turns) * BLOCK]], [1 + turns, 101 + turns]);
});

test('an object that is busy otherwise is not given away, and can be later', async () => {
  const pair = await Pair.start('volume', { checkpointAfterBytes: 64 * KIB });
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  accepted(await pair.run(write(object, 0, 1)));
  const first = await pair.run(object.giveAway());
  await refusedWith('object-busy', pair.run(object.giveAway()));
  first.thaw();

  // A checkpoint that the backend takes its time for.
  pair.backend({ failBefore: 1 });
  await pair.fill(object, 40);
  await cluster.turns(20);
  pair.backend({});
  object.backendRecovered();
  const segments = async (): Promise<number> => (await pair.stored()).filter((name) => name.startsWith('seg-')).length;
  for (let turn = 0; (await pair.run(segments())) < 3; turn += 1) {
    assert.ok(turn < 2000, 'segments go up');
    await cluster.turns(1);
  }
  pair.backend({ bytesPerSecond: 100 });
  await cluster.turns(20);
  const startedMs = cluster.clock.monotonicMs();
  await refusedWith('object-busy', pair.run(object.giveAway()));
  assert.ok(cluster.clock.monotonicMs() - startedMs < 3500, `after ${cluster.clock.monotonicMs() - startedMs} ms`);
  pair.backend({});
  await pair.clean(object);

  a.disk.setFaults({ syncError: 1 });
  assert.equal((await pair.run(write(object, 0, 2))).kind, 'refused');
  await refusedWith('object-busy', pair.run(object.giveAway()));
  a.disk.setFaults({});
  await pair.clean(object);
  accepted(await pair.run(write(object, 0, 3)));
  const moved = await pair.move(a, object, b);
  assert.equal((await pair.run(contents(moved)))[0], 3);
});

test('a checkpoint that waits for a slow backend gives way at once, and is made after the attempt', async () => {
  const pair = await Pair.start('volume', { checkpointAfterBytes: 64 * KIB });
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  pair.backend({ failBefore: 1 });
  await pair.fill(object, 40);
  await cluster.turns(20);
  // Each segment takes many seconds.
  pair.backend({ bytesPerSecond: 2000 });
  object.backendRecovered();
  await cluster.turns(20);
  const startedMs = cluster.clock.monotonicMs();
  const source = await pair.run(object.giveAway());
  assert.ok(cluster.clock.monotonicMs() - startedMs < 1000, `after ${cluster.clock.monotonicMs() - startedMs} ms`);
  for (let n = 0; n < 40; n += 1) accepted(await pair.run(write(object, n * BLOCK, 101 + n)));
  source.thaw();
  pair.backend({});
  await pair.clean(object);
  assert.notEqual(cluster.commons.owner?.root.checkpoint, null);
  const moved = await pair.move(a, object, b);
  const bytes = await pair.run(contents(moved));
  for (let n = 0; n < 40; n += 1) assert.equal(bytes[n * BLOCK], 101 + n);
});

test('a fault of the log ends the attempt, whenever it comes', async () => {
  for (const when of ['while it is copied', 'while it is frozen'] as const) {
    const pair = await Pair.start();
    const { a, b, cluster } = pair;
    const object = await pair.open(a);
    accepted(await pair.run(write(object, 0, 1)));
    const move = await pair.copy(object);
    a.disk.setFaults({ syncError: 1 });
    if (when === 'while it is copied') {
      const waiting = move.source.read(move.replica.position, 1000, 60_000);
      const ended = refusedWith('object-busy', pair.run(waiting));
      assert.equal((await pair.run(write(object, 0, 2))).kind, 'refused');
      await ended;
    }
    await refusedWith('object-busy', pair.run(move.source.freeze()));
    move.source.thaw();
    a.disk.setFaults({});
    await pair.run(cluster.clock.sleep(5000));
    accepted(await pair.run(write(object, 0, 3)));
    await pair.clean(object);
    await pair.run(move.replica.discard());
    assert.equal((await pair.run(contents(await pair.move(a, object, b))))[0], 3, when);
  }
});

test('who waits for room to write hears of the hold at once', async () => {
  const pair = await Pair.start('volume', { dirtyBytesMax: 512 * KIB });
  const { a, cluster } = pair;
  const object = await pair.open(a);
  pair.backend({ failBefore: 1 });
  let stopped: Promise<ObjectChange> | null = null;
  for (let n = 0; stopped === null; n += 1) {
    const change = write(object, (n % 8) * 16 * BLOCK, 1 + n, 16 * BLOCK);
    const answered = await pair.run(Promise.race([change, cluster.clock.sleep(3000).then(() => null)]));
    if (answered === null) stopped = change;
    assert.ok(n < 100);
  }
  const source = await pair.run(object.giveAway());
  const startedMs = cluster.clock.monotonicMs();
  await pair.run(source.freeze());
  const refused = await pair.run(stopped);
  assert.ok(refused.kind === 'refused' && errorCode(refused.error) === 'object-held', refused.kind);
  assert.ok(cluster.clock.monotonicMs() - startedMs < 100, `after ${cluster.clock.monotonicMs() - startedMs} ms`);
  source.thaw();
  pair.backend({});
  await pair.clean(object);
});

test('a write that still reads what lies around it when the object is held changes nothing', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  let object = await pair.open(a);
  accepted(await pair.run(write(object, 0, 1)));
  await pair.clean(object);
  await pair.run(object.close());
  a.kill(false);
  await cluster.restart(a);
  object = await pair.open(a);
  const source = await pair.run(object.giveAway());
  // The page of the map comes from the backend, slowly.
  pair.backend({ bytesPerSecond: 5000 });
  const edge = object.write(100, 50, [Buffer.alloc(50, 7)], true, NOW);
  await cluster.turns(5);
  const end = await pair.run(source.freeze());
  const held = await pair.run(edge);
  assert.ok(held.kind === 'refused' && errorCode(held.error) === 'object-held', held.kind);
  assert.equal(object.attributes().sizeBytes, BLOCK);
  assert.equal(end.termWrote, false);
  source.thaw();
  pair.backend({});
  const moved = await pair.move(a, object, b);
  assert.deepEqual(await pair.run(contents(moved)), Buffer.alloc(BLOCK, 1));
});

test('what the former owner still sends to backend and registry has no effect, and nobody waits for it', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  await pair.fill(object, 40);
  const move = await pair.copy(object);
  const end = await pair.run(cluster.freeze(move));
  pair.backend({ delay: 1, delayMsMax: 60_000 });
  object.tick();
  await cluster.turns(10);
  const owner = await pair.run(cluster.transfer(move, end));
  move.source.cede();
  const startedMs = cluster.clock.monotonicMs();
  await pair.run(object.close());
  assert.ok(cluster.clock.monotonicMs() - startedMs < 1000, 'closing does not wait for the backend');
  assert.equal(object.problem, null);
  pair.backend({});
  const moved = await pair.run(move.replica.activate(owner));
  await pair.run(cluster.clock.sleep(120_000));
  assert.equal(cluster.commons.owner?.router, b.id);
  await pair.clean(moved);
  await pair.assertFilled(moved, 40);
});

test('an object that is being given away is not clean while only this router has what was written', async () => {
  const pair = await Pair.start('file', { restMs: 0 });
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  accepted(await pair.run(write(object, 0, 1)));
  const move = await pair.run(cluster.begin(a, object, b));
  for (let second = 0; second < 20; second += 1) {
    object.tick();
    await pair.run(cluster.clock.sleep(1000));
  }
  assert.deepEqual(
    (await pair.stored()).filter((name) => name.includes('checkpoint')),
    [],
    'no checkpoint is made meanwhile',
  );
  assert.equal(cluster.commons.owner?.protection.kind, 'unprotected');
  move.source.thaw();
  await pair.clean(object);
});

test('a copy into which something could not be written is never said to be durable', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  await pair.fill(object, 10);
  const move = await pair.run(cluster.begin(a, object, b));
  b.disk.setFaults({ writeError: 1 });
  await assert.rejects(pair.run(cluster.catchUp(move)));
  b.disk.setFaults({});
  await assert.rejects(pair.run(move.replica.sync()));
  move.source.thaw();
  await pair.run(move.replica.discard());
});
