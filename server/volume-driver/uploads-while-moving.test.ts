/** An object that moves again and again while its segments go up slowly, and a write buffer that fills up meanwhile (decision 0038). */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { accepted, KIB, Pair, write } from './testing/object-pair.ts';

/** Room for eight segments of 64 KiB. */
const ROOM_BYTES = 512 * KIB;

test('an object that is moved as fast as can be, with little room left for writes, gets some of it to the backend at each of its owners', async () => {
  const pair = await Pair.start('volume', { dirtyBytesMax: ROOM_BYTES });
  const { cluster } = pair;
  let [from, to] = [pair.a, pair.b];
  let object = await pair.open(from);
  let arrived = 0;
  for (let at = 0; at < 12; at += 1) {
    // A segment takes a second, and more of it comes all the time.
    pair.backend({ bytesPerSecond: 64 * KIB });
    for (let block = 0; block < 20; block += 1) accepted(await pair.run(write(object, block * 16 * KIB, 1 + at, 16 * KIB)));
    // Segments are sealed behind the writes.
    await pair.run(cluster.clock.sleep(50));
    const move = await pair.run(cluster.begin(from, object, to));
    const { uploadedSegment } = move.owner.root;
    assert.ok(uploadedSegment > arrived, `owner ${at}: nothing went up, the root ends with segment ${uploadedSegment}`);
    await pair.run(cluster.catchUp(move));
    const owner = await pair.run(cluster.transfer(move, await pair.run(cluster.freeze(move))));
    move.source.cede();
    arrived = owner.root.uploadedSegment;
    [object] = await pair.run(Promise.all([move.replica.activate(owner), object.close()]));
    [from, to] = [to, from];
  }
});

test('a backend that takes nothing keeps no object where it is for longer than some seconds, and one with room for writes not at all', async () => {
  const pair = await Pair.start('volume', { dirtyBytesMax: ROOM_BYTES });
  const { clock } = pair.cluster;
  const object = await pair.open(pair.a);
  pair.backend({ hang: 1 });
  accepted(await pair.run(write(object, 0, 1, 128 * KIB)));
  let beganMs = clock.monotonicMs();
  (await pair.run(object.giveAway())).thaw();
  assert.ok(clock.monotonicMs() - beganMs < 100, `it took ${clock.monotonicMs() - beganMs} ms`);
  accepted(await pair.run(write(object, 0, 1, 256 * KIB)));
  beganMs = clock.monotonicMs();
  (await pair.run(object.giveAway())).thaw();
  const tookMs = clock.monotonicMs() - beganMs;
  assert.ok(tookMs > 5000 && tookMs < 15_000, `it took ${tookMs} ms`);
});

test('an object that is moved under load, at each owner before a checkpoint would be due there, has one all the same', async () => {
  // 128 KiB of log while it moves; about 90 are written at each.
  const pair = await Pair.start('volume', { checkpointAfterBytes: 1024 * KIB });
  const { cluster } = pair;
  let [from, to] = [pair.a, pair.b];
  let object = await pair.open(from);
  for (let at = 0; at < 6; at += 1) {
    let over = false;
    const load = (async () => {
      for (let block = 0; !over; block += 1) {
        accepted(await write(object, (block % 64) * 4 * KIB, 1 + at));
        await cluster.clock.sleep(30);
      }
    })();
    await pair.run(cluster.clock.sleep(700));
    over = true;
    await pair.run(load);
    object = await pair.move(from, object, to);
    [from, to] = [to, from];
  }
  const { root } = cluster.commons.owner ?? assert.fail('nobody owns it');
  assert.ok(root.checkpoint !== null, 'no owner made a checkpoint');
});

test('a checkpoint that every move made give way is waited for, by a move that comes when one was due long ago', async () => {
  const pair = await Pair.start('volume', { checkpointAfterBytes: 256 * KIB });
  const object = await pair.open(pair.a);
  // Half a second for each segment.
  pair.backend({ bytesPerSecond: 128 * KIB });
  for (const change of await pair.run(Promise.all(Array.from({ length: 80 }, (_, block) => write(object, block * 4 * KIB, 1))))) accepted(change);
  const { commons } = pair.cluster;
  assert.equal(commons.owner?.root.checkpoint, null);
  const source = await pair.run(object.giveAway());
  assert.ok(commons.owner?.root.checkpoint !== null, 'it gave way');
  source.thaw();
});

test('where twice as much is behind it is waited for however much has to go up first, and its own PUT as well', async () => {
  const pair = await Pair.start('volume', { checkpointAfterBytes: 256 * KIB });
  const { clock, commons } = pair.cluster;
  const object = await pair.open(pair.a);
  const store = commons.faultyStore;
  const put = store.put.bind(store);
  store.put = async (bucket, name, body) => {
    await clock.sleep(name.includes('ckp-') ? 15_000 : 2500);
    return put(bucket, name, body);
  };
  // Nine segments of 64 KiB, four at a time.
  const writes = Array.from({ length: 140 }, (_, block) => write(object, block * 4 * KIB, 1));
  for (const change of await pair.run(Promise.all(writes))) accepted(change);
  const beganMs = clock.monotonicMs();
  const source = await pair.run(object.giveAway());
  assert.ok(clock.monotonicMs() - beganMs > 18_000, `it took ${clock.monotonicMs() - beganMs} ms`);
  assert.ok(commons.owner?.root.checkpoint !== null, 'it gave way');
  source.thaw();
});

test('an object of which nothing is behind its checkpoint is given away at once, however large the segment in which that ended', async () => {
  // That of a segment.
  const pair = await Pair.start('volume', { checkpointAfterBytes: 64 * KIB });
  const { clock } = pair.cluster;
  let object = await pair.open(pair.a);
  for (let at = 0; at < 3; at += 1) accepted(await pair.run(write(object, at * 64 * KIB, 1 + at, 64 * KIB)));
  await pair.run(clock.sleep(400));
  object = await pair.move(pair.a, object, pair.b);
  await pair.run(clock.sleep(300));
  const beganMs = clock.monotonicMs();
  (await pair.run(object.giveAway())).thaw();
  assert.ok(clock.monotonicMs() - beganMs < 1000, `it took ${clock.monotonicMs() - beganMs} ms`);
});

test('of a backend that takes nothing such a checkpoint is waited for no longer than some seconds', async () => {
  const pair = await Pair.start('volume', { checkpointAfterBytes: 256 * KIB });
  const { clock } = pair.cluster;
  const object = await pair.open(pair.a);
  pair.backend({ hang: 1 });
  for (let block = 0; block < 80; block += 1) accepted(await pair.run(write(object, block * 4 * KIB, 1)));
  const beganMs = clock.monotonicMs();
  (await pair.run(object.giveAway())).thaw();
  const tookMs = clock.monotonicMs() - beganMs;
  assert.ok(tookMs > 1000 && tookMs < 5000, `it took ${tookMs} ms`);
});

test('what is sealed because of its age is not, while whole segments wait for the backend', async () => {
  const pair = await Pair.start('volume');
  const { clock } = pair.cluster;
  const object = await pair.open(pair.a);
  pair.backend({ failBefore: 1 });
  for (let segment = 0; segment < 8; segment += 1) accepted(await pair.run(write(object, segment * 64 * KIB, 1, 64 * KIB)));
  const { uuid } = pair.cluster.commons.inode;
  assert.ok(uuid !== null);
  const segments = (): number => pair.a.router.files.segmentsOf(uuid).length;
  const before = segments();
  for (let second = 0; second < 10; second += 1) {
    accepted(await pair.run(write(object, 0, 2)));
    object.tick();
    await pair.run(clock.sleep(1000));
  }
  assert.ok(segments() <= before + 1, `${segments() - before} segments for ten blocks`);
  pair.backend({});
  await pair.clean(object);
});
