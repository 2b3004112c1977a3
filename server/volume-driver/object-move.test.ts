/** An object that goes from one router to another while it is written: what the engine does of a handover (design section 10, decision 0023). */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { seededRandom } from '../../backends/virtual-clock.ts';
import type { OwnerRecord } from '../../registry/ports.ts';
import { errorCode } from '../core/errors.ts';
import { failPointError, watchFailPoints } from '../core/fail-points.ts';
import { silentLogger } from '../core/logger.ts';
import type { Logger } from '../core/logger.ts';
import { settleForeign } from '../object-log/foreign-segments.ts';
import type { DrivenObject, ObjectChange } from '../object-router/driver-port.ts';
import type { LogPiece } from '../object-router/peer-port.ts';
import { surveyObjects } from '../object-router/startup-recovery.ts';
import { SimulatedCluster } from './testing/simulated-cluster.ts';
import type { ClusterNode } from './testing/simulated-cluster.ts';
import type { SimulationSettings } from './testing/simulated-router.ts';

const KIB = 1024;
const BLOCK = 4096;
const NOW = { seconds: 1_700_000_000, nanoseconds: 0 };

function accepted(change: ObjectChange): void {
  assert.equal(change.kind, 'changed', change.kind === 'refused' ? String(change.error) : '');
}

function write(object: DrivenObject, offsetBytes: number, fill: number, countBytes = BLOCK, stable = true): Promise<ObjectChange> {
  return object.write(offsetBytes, countBytes, [Buffer.alloc(countBytes, fill)], stable, NOW);
}

function resize(object: DrivenObject, sizeBytes: number): Promise<ObjectChange> {
  return object.setAttributes({ sizeBytes, atime: null, mtime: null }, NOW);
}

async function contents(object: DrivenObject): Promise<Buffer> {
  const target = Buffer.alloc(object.attributes().sizeBytes, 0xee);
  assert.equal(await object.read(0, target), target.length);
  return target;
}

async function refusedWith(code: string, work: Promise<unknown>): Promise<void> {
  await assert.rejects(work, (error) => errorCode(error) === code);
}

/** Two routers, and the object open at the first one. */
class Pair {
  readonly cluster: SimulatedCluster;
  readonly a: ClusterNode;
  readonly b: ClusterNode;

  private constructor(cluster: SimulatedCluster) {
    this.cluster = cluster;
    const [a, b] = cluster.nodes;
    assert.ok(a !== undefined && b !== undefined);
    this.a = a;
    this.b = b;
  }

  static async start(
    objectClass: 'volume' | 'file' = 'volume',
    settings: Partial<SimulationSettings> = {},
    logger: Logger = silentLogger,
  ): Promise<Pair> {
    return new Pair(await SimulatedCluster.start(seededRandom(11), objectClass, 2, settings, logger));
  }

  run<T>(promise: PromiseLike<T> | T): Promise<T> {
    return this.cluster.run(promise);
  }

  open(node: ClusterNode): Promise<DrivenObject> {
    return this.cluster.open(node);
  }

  move(from: ClusterNode, object: DrivenObject, to: ClusterNode): Promise<DrivenObject> {
    return this.run(this.cluster.move(from, object, to));
  }

  /** All of it is on the backend. */
  async clean(object: DrivenObject): Promise<void> {
    for (let second = 0; second < 100 && !(object.isClean && this.cluster.commons.owner?.protection.kind === 'clean'); second += 1) {
      object.tick();
      await this.run(this.cluster.clock.sleep(1000));
    }
    assert.ok(object.isClean, String(object.problem));
  }

  backend(faults: Parameters<SimulatedCluster['commons']['faultyStore']['setFaults']>[0]): void {
    this.cluster.commons.faultyStore.setFaults(faults);
  }

  /** Names of what the backend has of the object. */
  async stored(): Promise<string[]> {
    const { store } = this.cluster.commons;
    const names: string[] = [];
    for (const bucket of (await store.listBuckets('', 100)).names) names.push(...(await store.list(bucket, '', '', 10_000)).names);
    return names;
  }

  replicaFiles(node: ClusterNode): string[] {
    return node.disk.files('/vpool/replica/');
  }
}

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
  for (let n = 0; n < 40; n += 1) accepted(await pair.run(write(object, n * BLOCK, 1 + n)));
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
  for (let n = 0; n < 40; n += 1) accepted(await pair.run(write(object, n * BLOCK, 1 + n)));
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
    const move = await pair.run(cluster.begin(a, object, b));
    await pair.run(cluster.catchUp(move));
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
  for (let n = 0; n < 40; n += 1) accepted(await pair.run(write(object, n * BLOCK, 1 + n)));
  const move = await pair.run(cluster.begin(a, object, b));
  await pair.run(cluster.catchUp(move));
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
  const target = await pair.run(contents(moved));
  for (let n = 0; n < 40; n += 1) assert.equal(target[n * BLOCK], 1 + n);
});

test('a receiver that dies before the switch leaves nothing that counts; the start deletes it', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  for (let n = 0; n < 40; n += 1) accepted(await pair.run(write(object, n * BLOCK, 1 + n)));
  const move = await pair.run(cluster.begin(a, object, b));
  await pair.run(cluster.catchUp(move));
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
  for (let n = 0; n < 40; n += 1) accepted(await pair.run(write(object, n * BLOCK, 1 + n)));
  const move = await pair.run(cluster.begin(a, object, b));
  await pair.run(cluster.catchUp(move));
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
    const dying = await pair.run(cluster.begin(a, object, b));
    await pair.run(cluster.catchUp(dying));
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
  for (let n = 0; n < 40; n += 1) accepted(await pair.run(write(object, n * BLOCK, 1 + n)));
  const move = await pair.run(cluster.begin(a, object, b));
  await pair.run(cluster.catchUp(move));
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
  const target = await pair.run(contents(moved));
  for (let n = 0; n < 40; n += 1) assert.equal(target[n * BLOCK], 1 + n);
  assert.deepEqual(pair.replicaFiles(b), []);
});

test('what a giver kept as cache is an owner’s log again when the receiver died with the only other copy', async () => {
  const pair = await Pair.start('volume', { cacheBytes: 4096 * KIB });
  const { a, b, cluster } = pair;
  pair.backend({ failBefore: 1 });
  const object = await pair.open(a);
  for (let n = 0; n < 40; n += 1) accepted(await pair.run(write(object, n * BLOCK, 1 + n)));
  await pair.run(cluster.clock.sleep(2000));
  pair.backend({});
  const move = await pair.run(cluster.begin(a, object, b));
  await pair.run(cluster.catchUp(move));
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
  const target = await pair.run(contents(again));
  for (let n = 0; n < 40; n += 1) assert.equal(target[n * BLOCK], 1 + n);
  pair.backend({});
  await pair.clean(again);
});

test('a segment of a term that does not count is not read, whatever its number', async () => {
  const warnings: string[] = [];
  const logger: Logger = { ...silentLogger, warn: (_fields: unknown, message?: string) => warnings.push(String(message)), child: () => logger };
  const pair = await Pair.start('volume', { cacheBytes: 4096 * KIB }, logger);
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  accepted(await pair.run(write(object, 0, 1)));
  await pair.clean(object);
  accepted(await pair.run(write(object, 0, 2)));
  const { owner } = cluster.commons;
  assert.ok(owner !== null);
  // Somebody decided to go on without what only A had: B owns it from the last checkpoint on.
  a.kill(false);
  cluster.commons.owner = { ...owner, protection: { kind: 'clean' } };
  const taken = await pair.open(b);
  accepted(await pair.run(write(taken, 0, 3)));
  await pair.clean(taken);
  await cluster.restart(a);
  const stale = a.router.files.segmentsOf(owner.uuid);
  assert.ok(stale.some((segment) => segment.place === 'log'));
  // A has it as a cached one now, of the right number and the wrong term.
  for (const segment of stale) await pair.run(a.router.files.cede(segment));
  b.kill(false);
  const back = await pair.open(a);
  assert.equal((await pair.run(contents(back)))[0], 3);
  // Its CRC would have said so, too, and somebody would have been told that the disk is bad.
  assert.deepEqual(
    warnings.filter((message) => message.includes('CRC')),
    [],
  );
});

test('a takeover is claimed on the backend before the object is served; an own term is not', async () => {
  const pair = await Pair.start();
  const { a, b } = pair;
  const object = await pair.open(a);
  assert.deepEqual(await pair.stored(), [], 'the first term of a new object waits for its first upload');
  accepted(await pair.run(write(object, 0, 1)));
  await pair.clean(object);
  await refusedWith('not-owner', pair.open(b));
  a.kill(false);
  const claims = async (): Promise<string[]> => (await pair.stored()).filter((name) => name.includes('claim-'));
  const before = (await claims()).length;
  const taken = await pair.open(b);
  assert.equal((await claims()).length, before + 1);
  assert.deepEqual(await pair.run(contents(taken)), Buffer.alloc(BLOCK, 1));
  await pair.run(taken.close());
  const reopened = await pair.open(b);
  assert.equal((await claims()).length, before + 1, 'an own re-opening puts no claim');
  await pair.run(reopened.close());
});

test('a takeover whose claim the backend does not take fails, and the next attempt owes it still', async () => {
  const pair = await Pair.start();
  const { a, b } = pair;
  const object = await pair.open(a);
  accepted(await pair.run(write(object, 0, 1)));
  // Without a checkpoint nothing but the claim is asked of the backend.
  a.kill(true);
  pair.cluster.commons.owner = { ...pair.cluster.commons.owner!, protection: { kind: 'clean' } };
  pair.backend({ failBefore: 1 });
  await assert.rejects(pair.open(b));
  assert.equal(pair.cluster.commons.owner?.router, b.id, 'the registry says already that it is ours');
  await assert.rejects(pair.open(b), 'an own object by now, but its claim is owed');
  pair.backend({});
  const taken = await pair.open(b);
  assert.ok((await pair.stored()).some((name) => name.includes('claim-')));
  await pair.run(taken.close());
});

test('a new term is above every counter that the router knows of', async () => {
  const pair = await Pair.start();
  const { a, cluster } = pair;
  const object = await pair.run(a.router.driver.open(cluster.commons.inode, 4711));
  assert.ok(object.term.counter > 4711);
  await pair.run(object.close());
});

test('an epoch that somebody else claimed on the backend is not received', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  accepted(await pair.run(write(object, 0, 1)));
  await pair.clean(object);
  const { owner } = cluster.commons;
  assert.ok(owner !== null);
  const [bucket = ''] = (await cluster.commons.store.listBuckets('', 10)).names;
  const name = `claim-0-${owner.term.counter + 1}`;
  await cluster.commons.store.put(bucket, name, { kind: 'bytes', chunks: [Buffer.from('another one\n')] });
  await refusedWith('fenced', pair.run(cluster.begin(a, object, b)));
  accepted(await pair.run(write(object, 0, 2)));
  // That number is burnt; the next one is free.
  assert.equal((await pair.run(contents(await pair.move(a, object, b))))[0], 2);
});

test('what is no part of the log that was offered is refused, and the object stays where it is', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  const changes: ((piece: LogPiece) => LogPiece)[] = [
    (piece) => ({ ...piece, segment: piece.segment + 1 }),
    (piece) => ({ ...piece, offsetBytes: piece.offsetBytes + 1 }),
    (piece) => ({ ...piece, term: { ...piece.term, counter: piece.term.counter + 1 } }),
    (piece) => ({ ...piece, sealedBytes: (piece.sealedBytes ?? 0) + 1 }),
    (piece) => ({ ...piece, sealedBytes: null }),
    (piece) => ({ ...piece, bytes: Buffer.from(piece.bytes).fill(0, 200, 201) }),
    (piece) => ({ ...piece, bytes: Buffer.concat([piece.bytes, Buffer.alloc(64)]) }),
  ];
  for (const change of changes) {
    pair.backend({ failBefore: 1 });
    for (let n = 0; n < 40; n += 1) accepted(await pair.run(write(object, n * BLOCK, 1 + n)));
    pair.backend({});
    const move = await pair.run(cluster.begin(a, object, b));
    const { pieces } = await pair.run(move.source.read(move.replica.position, 1024 * KIB, 0));
    const [first] = pieces;
    assert.ok(first !== undefined && first.sealedBytes === first.bytes.length);
    await refusedWith('replica-damaged', pair.run(move.replica.append([change(first)])));
    // Of what was refused nothing is used, whoever asks.
    const discarded = move.replica.discard();
    await refusedWith('replica-damaged', pair.run(move.replica.sync()));
    await pair.run(discarded);
    assert.deepEqual(pair.replicaFiles(b), []);
    move.source.thaw();
  }
  const moved = await pair.move(a, object, b);
  const target = await pair.run(contents(moved));
  for (let n = 0; n < 40; n += 1) assert.equal(target[n * BLOCK], 1 + n);
});

test('a copy that does not fit the owner record is left for a recovery, which it serves', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  for (let n = 0; n < 20; n += 1) accepted(await pair.run(write(object, n * BLOCK, 1 + n)));
  const move = await pair.run(cluster.begin(a, object, b));
  await pair.run(cluster.catchUp(move));
  const end = await pair.run(cluster.freeze(move));
  const owner = await pair.run(cluster.transfer(move, end));
  move.source.cede();
  await refusedWith('replica-damaged', pair.run(move.replica.activate({ ...owner, root: { ...owner.root, checkpoint: 'ckp-another' } })));
  await pair.run(move.replica.discard());
  assert.ok(pair.replicaFiles(b).length > 0, 'whoever discards it now does not know what he has');
  const opened = await pair.open(b);
  const target = await pair.run(contents(opened));
  for (let n = 0; n < 20; n += 1) assert.equal(target[n * BLOCK], 1 + n);
});

test('a giver that names another end of its log than it sends ends no process: the copy is left for a recovery', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  for (let n = 0; n < 20; n += 1) accepted(await pair.run(write(object, n * BLOCK, 1 + n)));
  const move = await pair.run(cluster.begin(a, object, b));
  await pair.run(cluster.catchUp(move));
  move.replica.prepare(7);
  const owner = await pair.run(cluster.transfer(move, await pair.run(cluster.freeze(move))));
  move.source.cede();
  await refusedWith('replica-damaged', pair.run(move.replica.activate(owner)));
  assert.deepEqual(b.disk.files('/vpool/log/'), []);
  const target = await pair.run(contents(await pair.open(b)));
  for (let n = 0; n < 20; n += 1) assert.equal(target[n * BLOCK], 1 + n);
});

test('a giver that dies between the switch and its renames has copies at its next start, and no orphans', async () => {
  const pair = await Pair.start('volume', { cacheBytes: 4096 * KIB });
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  pair.backend({ failBefore: 1 });
  for (let n = 0; n < 40; n += 1) accepted(await pair.run(write(object, n * BLOCK, 1 + n)));
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

test('an object on its way here is not opened beside its copy, and is when the copy is gone', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  accepted(await pair.run(write(object, 0, 1)));
  const move = await pair.run(cluster.begin(a, object, b));
  await refusedWith('object-held', pair.open(b));
  await pair.run(cluster.catchUp(move));
  const end = await pair.run(cluster.freeze(move));
  await pair.run(cluster.transfer(move, end));
  move.source.cede();
  await refusedWith('object-held', pair.open(b));
  await refusedWith(
    'replica-damaged',
    pair.run(move.replica.activate(cluster.commons.owner!).then((moved) => moved.close().then(() => move.replica.sync()))),
  );
  const opened = await pair.open(b);
  assert.deepEqual(await pair.run(contents(opened)), Buffer.alloc(BLOCK, 1));
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
