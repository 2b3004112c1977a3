/** An object that goes from one router to another while it is written: what moves, and stays right (design section 10, decision 0023). */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { errorCode } from '../core/errors.ts';
import { failPointError, watchFailPoints } from '../core/fail-points.ts';
import type { DrivenObject } from '../object-router/driver-port.ts';
import { accepted, BLOCK, contents, KIB, NOW, Pair, resize, write } from './testing/object-pair.ts';

for (const objectClass of ['volume', 'file'] as const) {
  test(`a ${objectClass} moves under writes, and everything acknowledged is there, also after a restart of the receiver`, async () => {
    const pair = await Pair.start(objectClass);
    const { a, b, cluster } = pair;
    const object = await pair.open(a);
    const model = Buffer.alloc(400 * BLOCK);
    let size = 0;
    const put = async (at: DrivenObject, block: number, fill: number, count = 1): Promise<void> => {
      accepted(await write(at, block * BLOCK, fill, count * BLOCK, fill % 3 !== 0));
      model.fill(fill, block * BLOCK, (block + count) * BLOCK);
      size = Math.max(size, (block + count) * BLOCK);
    };
    for (let n = 0; n < 120; n += 1) await pair.run(put(object, (n * 7) % 390, 1 + (n % 250), 1 + (n % 5)));
    await pair.run(object.flush(Infinity));
    for (let n = 0; n < 60; n += 1) await pair.run(put(object, (n * 11) % 390, 1 + (n % 200), 3));

    let over = false;
    const writer = (async (): Promise<number> => {
      for (let n = 0; ; n += 1) {
        if (over) return n;
        await put(object, (n * 13) % 390, 1 + (n % 255), 2);
      }
    })();
    const move = await pair.run(cluster.begin(a, object, b));
    for (let n = 0; n < 20; n += 1) await pair.run(cluster.fetch(move));
    over = true;
    const written = await pair.run(writer);
    assert.ok(written > 20, `${written} writes were made during the move`);
    const end = await pair.run(cluster.freeze(move));
    const refused = await pair.run(write(object, 0, 255));
    assert.ok(refused.kind === 'refused' && errorCode(refused.error) === 'object-held');
    const owner = await pair.run(cluster.transfer(move, end));
    move.source.cede();
    const moved = await pair.run(move.replica.activate(owner));
    await pair.run(object.close());
    assert.equal(a.router.files.dirtyBytes, 0, 'what the giver keeps is cache');
    assert.ok(a.router.files.cacheBytes > 0);
    assert.deepEqual(moved.verifier, owner.verifier);
    assert.equal(moved.attributes().sizeBytes, size);
    assert.deepEqual(await pair.run(contents(moved)), model.subarray(0, size));
    for (let n = 0; n < 40; n += 1) await pair.run(put(moved, (n * 17) % 390, 1 + (n % 255), 1));
    assert.deepEqual(await pair.run(contents(moved)), model.subarray(0, size));

    assert.equal(await pair.run(moved.commit(NOW)), null);
    b.kill(true);
    await cluster.restart(b);
    const again = await pair.open(b);
    assert.deepEqual(await pair.run(contents(again)), model.subarray(0, size));
    assert.deepEqual(again.verifier, owner.verifier, 'nothing un-synced was lost');
    await pair.clean(again);
    assert.deepEqual(pair.replicaFiles(b), []);

    // Home again, from what the backend has alone.
    b.kill(false);
    const third = await pair.open(a);
    assert.deepEqual(await pair.run(contents(third)), model.subarray(0, size));
  });
}

test('between freeze and the first write at the receiver nothing is asked of backend or registry but the change of owner', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  pair.backend({ failBefore: 1 });
  const object = await pair.open(a);
  for (let n = 0; n < 30; n += 1) accepted(await pair.run(write(object, n * BLOCK, 1 + n)));
  pair.backend({});
  const move = await pair.run(cluster.begin(a, object, b));
  await pair.run(cluster.catchUp(move));
  // From here on the backend answers nothing at all.
  pair.backend({ hang: 1 });
  const before = cluster.commons.registryCalls;
  const end = await pair.run(cluster.freeze(move));
  const owner = await pair.run(cluster.transfer(move, end));
  move.source.cede();
  const moved = await pair.run(move.replica.activate(owner));
  const target = Buffer.alloc(30 * BLOCK);
  assert.equal(await pair.run(moved.read(0, target)), target.length);
  for (let n = 0; n < 30; n += 1) assert.ok(target.subarray(n * BLOCK, (n + 1) * BLOCK).every((byte) => byte === 1 + n));
  accepted(await pair.run(write(moved, 0, 99)));
  assert.equal(cluster.commons.registryCalls - before, 1);
  assert.ok(b.router.files.dirtyBytes >= 31 * BLOCK, 'what the receiver has is not on the backend yet, and counts');
  pair.backend({});
});

test('data answered UNSTABLE moves with its window: COMMIT finds it at the receiver, under the same verifier', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  accepted(await pair.run(write(object, 0, 1, BLOCK, false)));
  accepted(await pair.run(write(object, BLOCK, 2, BLOCK, false)));
  const verifier = Buffer.from(object.verifier);
  const moved = await pair.move(a, object, b);
  assert.deepEqual(Buffer.from(moved.verifier), verifier);
  assert.equal(await pair.run(moved.commit(NOW)), null);
  b.kill(true);
  await cluster.restart(b);
  const again = await pair.open(b);
  assert.deepEqual(Buffer.from(again.verifier), verifier);
  assert.deepEqual(await pair.run(contents(again)), Buffer.concat([Buffer.alloc(BLOCK, 1), Buffer.alloc(BLOCK, 2)]));
});

test('a window of UNSTABLE data that moved is still open when the receiver dies: the verifier changes', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  accepted(await pair.run(write(object, 0, 1, BLOCK, false)));
  const moved = await pair.move(a, object, b);
  accepted(await pair.run(write(moved, BLOCK, 2, BLOCK, false)));
  const verifier = Buffer.from(moved.verifier);
  b.kill(true);
  await cluster.restart(b);
  assert.notDeepEqual(Buffer.from((await pair.open(b)).verifier), verifier);
});

test('an error of the fail point behind an activation leaves one keeper of the object, and no second', async (t) => {
  const pair = await Pair.start();
  const { a, b } = pair;
  const object = await pair.open(a);
  accepted(await pair.run(write(object, 0, 1)));
  let hits = 0;
  watchFailPoints((name) => {
    if (name !== 'move.replica-activated') return;
    hits += 1;
    throw failPointError(name);
  });
  t.after(() => watchFailPoints(null));
  const moved = await pair.move(a, object, b);
  assert.equal(hits, 1);
  accepted(await pair.run(write(moved, BLOCK, 2)));
  await pair.clean(moved);
  const bytes = await pair.run(contents(moved));
  assert.deepEqual([bytes[0], bytes[BLOCK]], [1, 2]);
});

test('what was written in terms before this one, and is on no backend yet, moves too', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  pair.backend({ failBefore: 1 });
  let object = await pair.open(a);
  const model = Buffer.alloc(80 * BLOCK);
  for (let term = 0; term < 4; term += 1) {
    for (let n = 0; n < 20; n += 1) {
      const block = (n * 3 + term * 7) % 80;
      accepted(await pair.run(write(object, block * BLOCK, 1 + term * 20 + n)));
      model.fill(1 + term * 20 + n, block * BLOCK, (block + 1) * BLOCK);
    }
    a.kill(true);
    await cluster.restart(a);
    object = await pair.open(a);
  }
  await pair.run(cluster.clock.sleep(2000));
  pair.backend({});
  const moved = await pair.move(a, object, b);
  const size = moved.attributes().sizeBytes;
  assert.deepEqual(await pair.run(contents(moved)), model.subarray(0, size));
  await pair.clean(moved);
  a.kill(false);
  b.kill(true);
  await cluster.restart(b);
  assert.deepEqual(await pair.run(contents(await pair.open(b))), model.subarray(0, size));
});

test('to and fro: what a router has of the object from earlier is used or replaced, and never shown', async () => {
  const pair = await Pair.start('volume', { cacheBytes: 4096 * KIB });
  const { a, b } = pair;
  let object = await pair.open(a);
  const model = Buffer.alloc(64 * BLOCK);
  let [here, there] = [a, b];
  for (let round = 0; round < 12; round += 1) {
    for (let n = 0; n < 25; n += 1) {
      const block = (n * 5 + round) % 64;
      accepted(await pair.run(write(object, block * BLOCK, 1 + ((round * 25 + n) % 255))));
      model.fill(1 + ((round * 25 + n) % 255), block * BLOCK, (block + 1) * BLOCK);
    }
    if (round % 5 === 4) await pair.clean(object);
    object = await pair.move(here, object, there);
    [here, there] = [there, here];
    const size = object.attributes().sizeBytes;
    assert.deepEqual(await pair.run(contents(object)), model.subarray(0, size), `round ${round}`);
  }
  await pair.clean(object);
  assert.equal(a.router.files.dirtyBytes + b.router.files.dirtyBytes, 0);
});

test('an object that nobody writes to goes to and fro without growing its record', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  let object = await pair.open(a);
  accepted(await pair.run(write(object, 0, 1)));
  let [here, there] = [a, b];
  for (let round = 0; round < 6; round += 1) {
    object = await pair.move(here, object, there);
    [here, there] = [there, here];
  }
  assert.equal(cluster.commons.owner?.root.closedEpochs.length, 1);
  await pair.clean(object);
  assert.deepEqual(await pair.run(contents(object)), Buffer.alloc(BLOCK, 1));
});

test('the segments of a file that moved die at its checkpoint as if they had been written here', async () => {
  const pair = await Pair.start('file');
  const { a, b } = pair;
  const object = await pair.open(a);
  for (let n = 0; n < 60; n += 1) accepted(await pair.run(write(object, (n % 20) * BLOCK, 1 + n)));
  const moved = await pair.move(a, object, b);
  await pair.clean(moved);
  const stored = await pair.stored();
  assert.ok(stored.some((name) => name.includes('obj-')));
  assert.ok(!stored.some((name) => name.includes('seg-')), stored.join(' '));
});

test('the inline bytes of a flipped file move with the log that they are the beginning of', async () => {
  const pair = await Pair.start('file');
  const { a, b, cluster } = pair;
  cluster.commons.inode = { ...cluster.commons.inode, inlineBytes: Buffer.from('the first words'), sizeBytes: 15 };
  const object = await pair.open(a);
  const moved = await pair.move(a, object, b);
  assert.equal((await pair.run(contents(moved))).toString(), 'the first words');
  await pair.clean(moved);
  assert.equal(cluster.commons.inode.inlineBytes, null, 'the receiver forgets the base once a root covers it');
});

test('a shrink that could not drop its blocks yet is whole at the receiver', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  let object = await pair.open(a);
  for (let page = 0; page < 30; page += 1) accepted(await pair.run(write(object, page * 1024 * BLOCK, 9)));
  await pair.clean(object);
  await pair.run(object.close());
  a.kill(false);
  await cluster.restart(a);
  object = await pair.open(a);
  pair.backend({ failBefore: 1 });
  accepted(await pair.run(resize(object, BLOCK)));
  const source = await pair.run(object.giveAway());
  source.thaw();
  pair.backend({});
  const moved = await pair.move(a, object, b);
  assert.equal(moved.attributes().sizeBytes, BLOCK);
  accepted(await pair.run(resize(moved, 30 * 1024 * BLOCK)));
  const target = Buffer.alloc(BLOCK);
  for (let page = 1; page < 30; page += 1) {
    await pair.run(moved.read(page * 1024 * BLOCK, target));
    assert.ok(
      target.every((byte) => byte === 0),
      `page ${page}`,
    );
  }
});

test('an object is not clean before it has rested: who takes it over knows nothing of the calls that were completed a moment ago', async () => {
  const restMs = 5_000;
  const pair = await Pair.start('volume', { restMs });
  const { a, b, cluster } = pair;
  const cleanAfterMs = async (object: DrivenObject, fromMs: number): Promise<number> => {
    for (let look = 0; look < 200 && cluster.commons.owner?.protection.kind !== 'clean'; look += 1) {
      object.tick();
      await pair.run(cluster.clock.sleep(100));
    }
    return cluster.clock.monotonicMs() - fromMs;
  };
  const object = await pair.open(a);
  accepted(await pair.run(write(object, 0, 1)));
  const first = await cleanAfterMs(object, cluster.clock.monotonicMs());
  assert.ok(first >= restMs && first < restMs + 2_000, `clean ${first} ms after the last write`);
  accepted(await pair.run(write(object, 0, 2)));
  const writtenMs = cluster.clock.monotonicMs();
  const moved = await pair.move(a, object, b);
  const second = await cleanAfterMs(moved, writtenMs);
  assert.ok(second >= restMs && second < restMs + 2_000, `clean ${second} ms after the last write, behind a move`);
  accepted(await pair.run(write(moved, 0, 3)));
  const flushedFromMs = cluster.clock.monotonicMs();
  await pair.run(moved.flush(Infinity));
  assert.ok(cluster.clock.monotonicMs() - flushedFromMs < restMs, 'a router that stops does not wait for it');
  assert.equal(cluster.commons.owner?.protection.kind, 'unprotected', 'and says nothing that is not so');
  await pair.run(cluster.clock.sleep(restMs));
  await pair.run(moved.flush(Infinity));
  assert.equal(cluster.commons.owner?.protection.kind, 'clean', 'what has rested is free for others when its router stops');
  await pair.run(moved.repeated());
  const protection = (): string | undefined => cluster.commons.owner?.protection.kind;
  assert.equal(protection(), 'unprotected', 'a call that is answered once more has copies under way');
  await pair.run(cluster.clock.sleep(restMs / 2));
  moved.tick();
  await pair.run(cluster.clock.sleep(restMs / 4));
  await pair.run(moved.repeated());
  const repeatedMs = cluster.clock.monotonicMs();
  const third = await cleanAfterMs(moved, repeatedMs);
  assert.ok(third >= restMs && third < restMs + 2_000, `clean ${third} ms after a call was answered once more`);
});

for (const isGivenAway of [false, true]) {
  test(`what arrived is put in its place ${isGivenAway ? 'at once when it is given away again' : 'a moment after those who were held are answered'}`, async () => {
    const pair = await Pair.start();
    const { a, b, cluster } = pair;
    const object = await pair.open(a);
    for (let n = 0; n < 30; n += 1) accepted(await pair.run(write(object, n * BLOCK, 1 + n)));
    const move = await pair.run(cluster.begin(a, object, b));
    await pair.run(cluster.catchUp(move));
    const owner = await pair.run(cluster.transfer(move, await pair.run(cluster.freeze(move))));
    const moved = await pair.run(move.replica.activate(owner));
    const activatedMs = cluster.clock.monotonicMs();
    assert.equal((await pair.run(contents(moved)))[0], 1);
    if (isGivenAway) {
      let renamedMs = Infinity;
      watchFailPoints((name) => {
        if (name === 'move.replica-renamed') renamedMs = cluster.clock.monotonicMs();
      });
      try {
        (await pair.run(moved.giveAway())).thaw();
      } finally {
        watchFailPoints(null);
      }
      assert.ok(renamedMs - activatedMs < 50, `${renamedMs - activatedMs} ms`);
      return;
    }
    await pair.run(cluster.clock.sleep(70));
    assert.ok(pair.replicaFiles(b).length > 0);
    await pair.run(cluster.clock.sleep(100));
    assert.deepEqual(pair.replicaFiles(b), []);
  });
}

test('a copy is not said to be complete before all of it is durable', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  /** Syncs that the receiver's disk has not done yet; null: it does them at once. */
  let waiting: (() => void)[] | null = null;
  const process = b.disk.process.bind(b.disk);
  b.disk.process = (nextTurn) => {
    const disk = process(nextTurn);
    const create = disk.create.bind(disk);
    disk.create = async (path) => {
      const file = await create(path);
      const sync = file.sync.bind(file);
      file.sync = (done) => (waiting === null || !path.includes('/replica/') ? sync(done) : void waiting.push(() => sync(done)));
      return file;
    };
    return disk;
  };
  b.kill(false);
  await cluster.restart(b);
  const object = await pair.open(a);
  await pair.fill(object, 40);
  const move = await pair.copy(object);
  waiting = [];
  let isSaid = false;
  const frozen = cluster.freeze(move).then((end) => {
    isSaid = true;
    return end;
  });
  await pair.run(cluster.clock.sleep(1000));
  assert.ok(waiting.length > 0 && !isSaid, 'the disk has not synced it');
  const owed = waiting;
  waiting = null;
  for (const sync of owed) sync();
  const owner = await pair.run(cluster.transfer(move, await pair.run(frozen)));
  move.source.cede();
  b.kill(true);
  await pair.run(object.close());
  await cluster.restart(b);
  assert.equal(cluster.commons.owner?.router, owner.router);
  await pair.assertFilled(await pair.open(b), 40);
});
