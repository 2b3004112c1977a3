/**
 * What a power cut or a bad disk leaves of the last segment, done by hand after a kill -9 (which alone loses nothing that was written: the page cache survives it).
 * A torn tail costs what was never promised; damage to what was promised is told, never cut off.
 */
import assert from 'node:assert/strict';
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';

import { Stability, Status } from '../../server/nfsd/file-system.ts';
import { RECORD_MAGIC } from '../../server/object-log/segment-codec.ts';
import { connectStore } from '../datastore-client.ts';
import { SeededRandom } from '../random.ts';
import { RouterProcess } from '../router-process.ts';
import { StampedVolume } from '../stamped-volume.ts';
import type { StoreClient } from '../store-client.ts';
import { stackOf } from '../test-stack.ts';
import { busiestSegment, flipBit, localSegments } from './local-segments.ts';

const MIB = 1024 * 1024;
const BLOCKS = 120;

/** A router that uploads nothing by itself while the test runs, and a volume whose `BLOCKS` first blocks are durable. */
async function prepare(t: TestContext): Promise<{ router: RouterProcess; client: StoreClient; volume: StampedVolume }> {
  const router = await RouterProcess.forTest(t, { environment: { VFERRY_LOG_SEGMENT_BYTES: '4MiB', VFERRY_LOG_SEAL_AFTER_MS: '1h' } });
  const client = stackOf(t).use(await connectStore(router));
  const volume = await StampedVolume.create(client, 1, 8 * MIB);
  for (let block = 0; block < BLOCKS; block += 1) assert.equal(await volume.write(client, block * 4096, 4096, Stability.FILE_SYNC), Status.OK);
  return { router, client, volume };
}

const TAILS: readonly {
  readonly name: string;
  readonly damage: (path: string, bytes: Buffer, from: number, to: number, random: SeededRandom) => void;
}[] = [
  { name: 'is cut off', damage: (path, _bytes, from, to, random) => truncateSync(path, random.between(from, to - 1)) },
  {
    name: 'became zeros',
    damage: (path, bytes, from, to, random) => {
      bytes.fill(0, random.between(from, to - 1), to);
      writeFileSync(path, bytes);
    },
  },
  {
    name: 'became garbage',
    damage: (path, bytes, from, to, random) => {
      for (let at = random.between(from, to - 1); at < to; at += 1) bytes[at] = random.below(256);
      writeFileSync(path, bytes);
    },
  },
  {
    name: 'lost one page in its middle',
    damage: (path, bytes, from, to, random) => {
      const at = random.between(from, to - 4097);
      bytes.fill(0, at, at + 4096);
      writeFileSync(path, bytes);
    },
  },
  { name: 'has one bit flipped', damage: (path, _bytes, from, to, random) => flipBit(path, random.between(from, to - 1)) },
];

for (const { name, damage } of TAILS) {
  test(`when the tail of un-synced writes ${name}, everything synced is there and the verifier tells of the rest`, async (t) => {
    const seed = 20_260_301;
    const random = new SeededRandom(seed);
    const { router, client, volume } = await prepare(t);
    const synced = busiestSegment(router.dataDirectory, router.vpool);
    assert.ok(synced.scan.records.length >= BLOCKS, 'the synced blocks are not all in one local segment: this test would prove nothing');
    // Over synced blocks and over blocks never written: both must come back as they were or as they became.
    for (let block = BLOCKS / 2; block < BLOCKS * 1.5; block += 1) await volume.write(client, block * 4096, 4096, Stability.UNSTABLE);
    const verifier = volume.verifier;
    await router.kill();
    const after = busiestSegment(router.dataDirectory, router.vpool);
    assert.equal(after.path, synced.path);
    assert.ok(after.scan.endOffset >= synced.scan.endOffset + BLOCKS * 4096, 'the un-synced writes are not behind the synced ones');
    damage(after.path, after.bytes, synced.scan.endOffset, after.scan.endOffset, random);

    await router.start();
    const again = stackOf(t).use(await connectStore(router));
    const { status, verifier: newVerifier } = await again.commit(volume.handle);
    assert.equal(status, Status.OK);
    const { content, statuses } = await volume.read(again);
    assert.deepEqual(statuses, []);
    const { violations, lostUnstable } = volume.model.verifyAndAdopt(content);
    assert.deepEqual(violations, [], `seed ${seed}`);
    assert.equal(lostUnstable, true, 'nothing was lost: the damage missed, this test proved nothing');
    assert.notEqual(newVerifier, verifier);
    // The log goes on behind the cut, and what it takes now survives the next kill.
    assert.equal(await volume.write(again, 4096, 8192, Stability.FILE_SYNC), Status.OK);
    await router.kill();
    await router.start();
    assert.deepEqual(await volume.verify(stackOf(t).use(await connectStore(router))), []);
  });
}

const MIDDLES: readonly { readonly name: string; readonly place: (segment: ReturnType<typeof busiestSegment>) => number }[] = [
  { name: 'the data of a synced block', place: ({ scan }) => (scan.records[40]?.payloadOffset ?? 0) + 1000 },
  { name: 'the header of a synced record', place: ({ scan }) => (scan.records[60]?.endOffset ?? 0) + 9 },
  { name: 'the header of the segment', place: () => 70 },
];

for (const { name, place } of MIDDLES) {
  test(`a flipped bit in ${name} is reported, served to nobody, and nothing behind it is thrown away`, async (t) => {
    const { router, volume } = await prepare(t);
    await router.kill();
    const segment = busiestSegment(router.dataDirectory, router.vpool);
    const offset = place(segment);
    flipBit(segment.path, offset);

    router.launch();
    const answer = await router.waitForReadyz(({ body }) => /"problems":\[\{/.test(body) && !/"code":"starting"/.test(body));
    t.diagnostic(`/readyz: ${answer.status} ${answer.body}`);
    const client = stackOf(t).use(await connectStore(router));
    const { content, statuses } = await volume.read(client);
    assert.notEqual(statuses.length, 0, 'every READ was answered as if nothing had happened');
    for (const status of statuses) assert.ok(status === Status.IO || status === Status.JUKEBOX, `READ was answered with status ${status}`);
    // READs of 256 KiB that were answered must be right.
    const expected = volume.model.current(0, volume.sizeBytes);
    for (let at = 0; at < content.length; at += 262_144) {
      const part = content.subarray(at, at + 262_144);
      assert.ok(part.equals(expected.subarray(at, at + 262_144)) || part.every((byte) => byte === 0), `wrong data served at ${at}`);
    }
    // The rest of the datastore works.
    const other = await StampedVolume.create(client, 2, MIB);
    assert.equal(await other.write(client, 0, 4096, Stability.FILE_SYNC), Status.OK);
    await router.kill();

    // The operator gets the good copy back (here: the bit flips back): nothing was truncated meanwhile.
    assert.ok(statSync(segment.path).size >= segment.scan.endOffset);
    const now = readFileSync(segment.path);
    now[offset] = segment.bytes[offset] ?? 0;
    writeFileSync(segment.path, now);
    await router.start();
    const healed = stackOf(t).use(await connectStore(router));
    assert.deepEqual(await volume.verify(healed), []);
    assert.deepEqual(await other.verify(healed), []);
  });
}

test('recycled segment files full of records of deleted volumes never show these after a kill', async (t) => {
  const router = await RouterProcess.forTest(t, {
    // An SSD cache of nothing: what was uploaded is evicted at once, and its file becomes the next segment.
    environment: {
      VFERRY_LOG_SEGMENT_BYTES: '4MiB',
      VFERRY_LOG_SEAL_AFTER_MS: '1h',
      VFERRY_CACHE_SSD_BYTES: '0B',
      VFERRY_VPOOL_GRACE_TIME_MS: '0s',
      VFERRY_VPOOL_BACKEND_HARD_LINKS: 'false',
    },
  });
  let client = stackOf(t).use(await connectStore(router));
  let recycled = 0;
  for (let round = 1; round <= 6; round += 1) {
    const filler = await StampedVolume.create(client, round, 16 * MIB);
    // Three and a half segments at a time, so that some are full and one is open.
    for (let at = 0; at < 14 * MIB; at += 65_536) assert.equal(await filler.write(client, at, 65_536, Stability.UNSTABLE), Status.OK);
    assert.equal(await filler.commit(client), Status.OK);
    const kept = await StampedVolume.create(client, round + 100, MIB);
    for (let block = 0; block < 40; block += 1) assert.equal(await kept.write(client, block * 4096, 4096, Stability.FILE_SYNC), Status.OK);
    await router.kill();
    for (const { bytes, scan } of localSegments(router.dataDirectory, router.vpool)) {
      if (!scan.sealed && bytes.indexOf(RECORD_MAGIC, scan.endOffset) !== -1) recycled += 1;
    }
    await router.start();
    client = stackOf(t).use(await connectStore(router));
    assert.deepEqual(await kept.verify(client), [], `round ${round}`);
    assert.deepEqual(await filler.verify(client), [], `round ${round}`);
    assert.equal((await client.remove(client.root, filler.name)).status, Status.OK);
  }
  t.diagnostic(`${recycled} open segments had old records behind their end`);
  assert.notEqual(recycled, 0, 'no file was ever recycled: this test proved nothing');
});
