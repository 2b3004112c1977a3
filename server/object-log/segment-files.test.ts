import assert from 'node:assert/strict';
import { test } from 'node:test';

import { seededRandom } from '../../backends/virtual-clock.ts';
import { errorCode } from '../core/errors.ts';
import type { FileId, ObjectUuid } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import { silentLogger } from '../core/logger.ts';
import { SimulatedClock } from '../volume-driver/testing/simulated-router.ts';
import type { LocalSegment } from './local-segment.ts';
import { SegmentFiles } from './segment-files.ts';
import type { SegmentFilesSettings } from './segment-files.ts';
import { FaultyDisk } from './testing/faulty-disk.ts';
import { buildSegment, DIRECTORY, placeSegment, segmentName, termOf, UUID } from './testing/segment-builder.ts';

const MIB = 1024 * 1024;
const FILE_BYTES = 64 * 1024;
const T1 = termOf(1);
const T2 = termOf(2);

class World {
  readonly disk = new FaultyDisk(seededRandom(3));
  readonly process = this.disk.process();
  readonly clock = new SimulatedClock(() => this.disk.pending > 0);
  readonly warnings: string[] = [];
  readonly logger: Logger = { ...silentLogger, warn: (_fields, message) => this.warnings.push(message) };

  run<T>(promise: Promise<T>): Promise<T> {
    return this.clock.run(promise);
  }

  open(settings: Partial<SegmentFilesSettings> = {}): Promise<SegmentFiles> {
    return this.run(
      SegmentFiles.open(
        { disk: this.process, clock: this.clock, logger: this.logger },
        { directory: DIRECTORY, segmentFileBytes: FILE_BYTES, poolFilesMax: 4, cacheBytesMax: MIB, reserveBytes: 4096, recycle: true, ...settings },
      ),
    );
  }

  /** A segment as a log leaves it: `bytes` of it written, closed. */
  async written(files: SegmentFiles, number: number, bytes: number, fill = number): Promise<LocalSegment> {
    const { file, segment } = await this.run(files.prepare(UUID, number, T1, true));
    await this.run(
      new Promise<void>((resolve, reject) => file.write(0, [Buffer.alloc(bytes, fill)], (error) => (error === null ? resolve() : reject(error)))),
    );
    await file.close();
    files.grow(segment, bytes);
    return segment;
  }

  names(place: string): string[] {
    return this.disk.files(`${DIRECTORY}/${place}/`).map((path) => path.slice(DIRECTORY.length + place.length + 2));
  }
}

test('a segment is found again by its name: object, number and term', async () => {
  const world = new World();
  const files = await world.open();
  const segment = await world.written(files, 12, 5000);
  assert.deepEqual(world.names('log'), [segmentName(12, T1)]);
  assert.equal(files.dirtyBytes, 5000);
  const again = await world.open();
  assert.deepEqual([again.segment(UUID, 12)?.path, again.segment(UUID, 12)?.term, [...again.dirtyObjects()]], [segment.path, T1, [UUID]]);
});

test('a new segment has its name durable before it is handed out', async () => {
  const world = new World();
  const files = await world.open();
  await world.run(files.prepare(UUID, 1, T1, true));
  world.process.die();
  world.disk.powerCut();
  assert.deepEqual(world.names('log'), [segmentName(1, T1)]);
});

test('files that are no segments are left alone and told', async () => {
  const world = new World();
  await world.open();
  for (const name of ['notes.txt', `${UUID}.1.0-1-0000000000000001.seg`, `${UUID}.0000000001.0-1-00.seg`]) {
    const file = await world.run(world.process.create(`${DIRECTORY}/log/${name}`));
    await file.close();
  }
  const files = await world.open();
  assert.deepEqual([...files.objects()], []);
  assert.equal(world.warnings.length, 3);
  assert.equal(world.names('log').length, 3);
});

test('released segments are cache and are evicted least recently used first', async () => {
  const world = new World();
  const files = await world.open({ cacheBytesMax: 3 * 60_000, recycle: false });
  const segments: LocalSegment[] = [];
  for (let number = 1; number <= 3; number += 1) segments.push(await world.written(files, number, 60_000));
  for (const segment of segments) await world.run(files.release(segment));
  assert.equal(files.dirtyBytes, 0);
  assert.equal(files.cacheBytes, 180_000);
  const target = Buffer.alloc(10);
  await world.run(files.read(segments[0]!, 0, target));
  assert.ok(target.every((byte) => byte === 1));
  const fourth = await world.written(files, 4, 60_000);
  await world.run(files.release(fourth));
  await world.run(world.clock.sleep(100));
  assert.equal(files.segment(UUID, 2), null, 'the one that was not used for longest');
  assert.notEqual(files.segment(UUID, 1), null);
});

test('what was just uploaded stays for reading while the cache has room, also when new segments find no file ready; what is evicted becomes one', async () => {
  const world = new World();
  // So little is free beside the reserve that no file is made ready: the pool is short from the start.
  const files = await world.open({ cacheBytesMax: 4 * 60_000, reserveBytes: 2 ** 38 });
  const segments: LocalSegment[] = [];
  for (let number = 1; number <= 5; number += 1) segments.push(await world.written(files, number, 60_000));
  assert.deepEqual(world.names('pool'), []);
  for (const segment of segments.slice(0, 4)) await world.run(files.release(segment));
  await world.run(world.clock.sleep(100));
  for (const segment of segments.slice(0, 4)) assert.equal(files.segment(UUID, segment.number)?.place, 'cache');
  assert.deepEqual(world.names('pool'), []);
  await world.run(files.release(segments[4] as LocalSegment));
  await world.run(world.clock.sleep(100));
  assert.equal(files.segment(UUID, 5)?.place, 'cache');
  assert.equal(files.segment(UUID, 1), null);
  assert.match(world.names('pool').join(), /^used-/);
});

test('a recycled file is a new segment whose old content is still there: only its salt tells', async () => {
  const world = new World();
  const files = await world.open({ cacheBytesMax: 0 });
  await world.run(world.clock.sleep(3000));
  const first = await world.written(files, 1, 60_000, 0xaa);
  await world.run(files.release(first));
  await world.run(files.drop(first));
  const used = world.names('pool').filter((name) => name.startsWith('used-'));
  const seen: number[] = [];
  for (let number = 2; number < 8; number += 1) {
    const { file } = await world.run(files.prepare(UUID, number, T1, true));
    const byte = Buffer.alloc(1);
    await world.run(new Promise<void>((resolve) => file.read(0, byte, () => resolve())));
    seen.push(byte[0]!);
  }
  assert.equal(seen.filter((byte) => byte === 0xaa).length, used.length);
  assert.equal(used.length, 1);
});

test('without recycling a file that the backend may share is never written again', async () => {
  const world = new World();
  const files = await world.open({ recycle: false });
  const first = await world.written(files, 1, 60_000, 0xaa);
  await world.run(files.release(first));
  await world.run(files.drop(first));
  assert.deepEqual(
    world.names('pool').filter((name) => name.startsWith('used-')),
    [],
  );
});

test('below the reserve no segment is begun in a new file, but one that is ready may be used', async () => {
  const world = new World();
  const files = await world.open();
  await world.run(world.clock.sleep(3000));
  const ready = world.names('pool').length;
  assert.ok(ready > 0);
  world.disk.capacityBytes = world.disk.usedBytes + 1000;
  await world.run(world.clock.sleep(2000));
  assert.match(files.problem ?? '', /only 1000 bytes are free/);
  for (let number = 1; number <= ready; number += 1) await world.run(files.prepare(UUID, number, T1, true));
  await assert.rejects(world.run(files.prepare(UUID, ready + 1, T1, true)), (error) => errorCode(error) === 'ENOSPC');
  world.disk.capacityBytes = Infinity;
  await world.run(files.prepare(UUID, ready + 1, T1, true));
});

test('a prepare that failed half-way can be repeated', async () => {
  const world = new World();
  const files = await world.open();
  for (let attempt = 0; attempt < 100; attempt += 1) {
    world.disk.setFaults({ metadataError: 0.7 });
    const failed = await world.run(
      files.prepare(UUID, 1, T1, true).then(
        () => false,
        () => true,
      ),
    );
    world.disk.setFaults({});
    if (!failed) return;
  }
  await world.run(files.prepare(UUID, 1, T1, true));
});

test('a prepare that failed after the file was made does not stand in its own way', async () => {
  const world = new World();
  const files = await world.open();
  await placeSegment(world.process, 1, T1, Buffer.alloc(10));
  const { segment } = await world.run(files.prepare(UUID, 1, T1, false));
  assert.equal(segment.number, 1);
});

test('a reader of a segment that is released, dropped or replaced meanwhile gets its bytes or an error, never others', async () => {
  const world = new World();
  const files = await world.open({ poolFilesMax: 1 });
  const segment = await world.written(files, 1, 60_000, 0x11);
  const target = Buffer.alloc(1000);
  const reading = files.read(segment, 100, target).then(
    (count) => count === 1000 && target.every((byte) => byte === 0x11),
    (error: unknown) => errorCode(error) === 'ENOENT',
  );
  const releasing = files.release(segment);
  assert.ok(await world.run(reading));
  await world.run(releasing);
  const again = files.read(segment, 0, target).then(
    (count) => count === 1000 && target.every((byte) => byte === 0x11),
    (error: unknown) => errorCode(error) === 'ENOENT',
  );
  await world.run(files.drop(segment));
  assert.ok(await world.run(again));
});

test('a segment that is dropped while it is released is gone, and counts nowhere', async () => {
  for (let turns = 0; turns < 8; turns += 1) {
    const world = new World();
    const files = await world.open();
    const segment = await world.written(files, 1, 5000);
    const releasing = files.release(segment);
    for (let turn = 0; turn < turns; turn += 1) await world.clock.turn();
    await world.run(files.drop(segment));
    await world.run(releasing.catch(() => undefined));
    assert.deepEqual([files.dirtyBytes, files.cacheBytes, files.segment(UUID, 1)], [0, 0, null]);
    assert.deepEqual([...world.names('log'), ...world.names('cache')], []);
    // Appended bytes of a log that ends are not counted any more either.
    files.grow(segment, 9000);
    assert.equal(files.dirtyBytes, 0);
  }
});

test('segments that are dropped in the background go one after the other, also when one cannot', async () => {
  const world = new World();
  const files = await world.open({ recycle: false });
  const segments: LocalSegment[] = [];
  for (let number = 1; number <= 6; number += 1) segments.push(await world.written(files, number, 5000));
  let [underWay, most, asked] = [0, 0, 0];
  const unlink = world.process.unlink.bind(world.process);
  world.process.unlink = async (path) => {
    asked += 1;
    if (asked === 2) throw new Error('no');
    underWay += 1;
    most = Math.max(most, underWay);
    try {
      await world.clock.sleep(10);
      await unlink(path);
    } finally {
      underWay -= 1;
    }
  };
  for (const segment of segments.slice(0, 5)) files.dropSoon(segment);
  await world.run(world.clock.sleep(100));
  assert.deepEqual([asked, most], [5, 1]);
  assert.deepEqual(world.warnings, ['dropping a dead segment failed']);
  assert.deepEqual(files.segmentsOf(UUID), [segments[5]]);
  files.dropSoon(segments[5] as LocalSegment);
  await world.run(world.clock.sleep(20));
  assert.deepEqual(files.segmentsOf(UUID), []);
});

test('a segment that was dropped is released already', async () => {
  const world = new World();
  const files = await world.open();
  for (const bytes of [1000, FILE_BYTES]) {
    const segment = await world.written(files, 1, bytes);
    await world.run(files.drop(segment));
    await world.run(files.release(segment));
    assert.deepEqual([files.dirtyBytes, files.cacheBytes, world.names('cache')], [0, 0, []]);
  }
});

test('a number that is there twice does not keep the router from starting: the younger term counts', async () => {
  const world = new World();
  await world.open();
  const { bytes } = buildSegment({ number: 2, term: T1, base: 1, blocks: [1] });
  await placeSegment(world.process, 2, T1, bytes, 'cache');
  await placeSegment(world.process, 2, T2, bytes);
  const files = await world.open();
  assert.equal(files.segment(UUID, 2)?.term.counter, 2);
  assert.deepEqual(
    files
      .segmentsOf(UUID)
      .map((segment) => segment.term.counter)
      .toSorted((a, b) => a - b),
    [1, 2],
  );
  assert.equal(files.dirtyBytes, bytes.length);
  assert.equal(files.cacheBytes, 0);
  for (const segment of files.segmentsOf(UUID)) await world.run(files.drop(segment));
  assert.deepEqual([...world.names('log'), ...world.names('cache'), ...files.objects()], []);
});

test('segments of an unknown object are set aside, not deleted: only what the backend has may go', async () => {
  const world = new World();
  const files = await world.open();
  const released = await world.written(files, 1, 5000);
  await world.written(files, 2, 6000);
  await world.run(files.release(released));
  assert.equal(await world.run(files.setAside(UUID)), 1);
  assert.deepEqual(world.names('orphans'), [segmentName(2, T1)]);
  assert.deepEqual([...world.names('log'), ...world.names('cache')], []);
  assert.deepEqual([files.dirtyBytes, files.cacheBytes, [...files.objects()]], [0, 0, []]);
});

test('half-made files of the last run go away, whatever their names', async () => {
  const world = new World();
  await world.open();
  for (const name of [`rebuild-${'9'.repeat(32)}-4.tmp`, 'free-x.seg', 'free-7.seg']) {
    const file = await world.run(world.process.create(`${DIRECTORY}/pool/${name}`));
    await file.close();
  }
  const files = await world.open();
  await world.run(world.clock.sleep(3000));
  await world.run(files.prepare(UUID, 1, T1, true));
  await world.run(world.clock.sleep(3000));
  const names = world.names('pool');
  assert.ok(names.length > 0);
  for (const name of names) assert.match(name, /^free-\d{1,2}\.seg$/);
  await world.run(files.close());
});

test('an object without segments has none, and dropping what is not there is nothing', async () => {
  const world = new World();
  const files = await world.open();
  assert.deepEqual(files.segmentsOf('f'.repeat(32) as ObjectUuid), []);
  await world.run(files.dropObject('f'.repeat(32) as ObjectUuid));
});

test('a segment that is open for reading stays open when its file gets another name', async () => {
  const world = new World();
  const opened: string[] = [];
  const open = world.process.open.bind(world.process);
  world.process.open = (path, mode) => {
    opened.push(path);
    return open(path, mode);
  };
  const files = await world.open();
  const segment = await world.written(files, 1, 5000);
  const former = segment.path;
  opened.length = 0;
  const target = Buffer.alloc(5000);
  assert.equal(await world.run(files.read(segment, 0, target)), 5000);
  await world.run(files.release(segment));
  assert.notEqual(segment.path, former);
  assert.equal(await world.run(files.read(segment, 0, target.fill(0))), 5000);
  assert.deepEqual([opened, target], [[former], Buffer.alloc(5000, 1)]);
  // Whoever gets the former name, or this one, is not it.
  await world.run(files.drop(segment));
  const next = await world.written(files, 1, 5000, 9);
  assert.equal(next.path, former);
  await world.run(files.read(next, 0, target));
  await world.run(files.release(next));
  await world.run(files.read(next, 0, target.fill(0)));
  assert.deepEqual(target, Buffer.alloc(5000, 9));
});

test('replicas that are to be read soon are open before anybody reads, and closed when they are deleted', async () => {
  const world = new World();
  const files = await world.open();
  const identity = { fileid: 7 as FileId, uuid: UUID, term: T1, attempt: T2 };
  const made = await world.run(Promise.all([1, 2].map((number) => files.replicas.create({ ...identity, number }))));
  const [kept, deleted] = made.map(({ segment }) => segment);
  for (const { file } of made) {
    await world.run(new Promise<void>((resolve) => file.write(0, [Buffer.alloc(4096, 5)], () => resolve())));
    await file.close();
  }
  assert.ok(kept !== undefined && deleted !== undefined);
  for (const replica of [kept, deleted]) files.expect(replica);
  await world.run(world.clock.sleep(1));
  const segment = files.enter(kept, 4096);
  let opens = 0;
  const open = world.process.open.bind(world.process);
  world.process.open = (path, mode) => {
    opens += 1;
    return open(path, mode);
  };
  await world.run(files.settle(UUID));
  const target = Buffer.alloc(4096);
  assert.equal(await world.run(files.read(segment, 0, target)), 4096);
  assert.deepEqual([opens, target], [0, Buffer.alloc(4096, 5)]);
  await world.run(files.replicas.discard(UUID));
  await assert.rejects(world.run(files.read({ ...segment, path: deleted.path }, 0, target)), (error) => errorCode(error) === 'ENOENT');
  // It is gone: nobody opens it for nothing.
  files.expect(deleted);
  assert.equal(opens, 1);
});
