import assert from 'node:assert/strict';
import { test } from 'node:test';

import { seededRandom, VirtualClock } from '../../backends/virtual-clock.ts';
import type { ClosedEpoch, Root } from '../../registry/ports.ts';
import type { Disk } from '../core/disk.ts';
import { silentLogger } from '../core/logger.ts';
import { findLogEnd } from './recovery.ts';
import type { LogEnd } from './recovery.ts';
import { SegmentFiles } from './segment-files.ts';
import { scanLocalSegment, sealByCopy } from './segment-scan.ts';
import type { SegmentBytes } from './segment-scan.ts';
import { FaultyDisk } from './testing/faulty-disk.ts';
import { buildSegment, DIRECTORY, placeSegment, termOf, UUID } from './testing/segment-builder.ts';
import type { BuiltSegment } from './testing/segment-builder.ts';

const T1 = termOf(1);
const T2 = termOf(2);
const EMPTY: Root = { checkpoint: null, uploadedSegment: 0, uploadedSequence: 0, closedEpochs: [] };

async function newDisk(): Promise<Disk> {
  const disk = new FaultyDisk(seededRandom(1)).process();
  for (const place of ['log', 'cache', 'pool']) await disk.makeDirectory(`${DIRECTORY}/${place}`);
  return disk;
}

interface Options {
  readonly root?: Partial<Root>;
  readonly ownerTerm?: typeof T1;
  readonly from?: { segment: number; sequence: number; unstableOpen: boolean };
  readonly remote?: (number: number) => SegmentBytes;
}

async function find(disk: Disk, options: Options = {}): Promise<{ end: LogEnd; files: SegmentFiles }> {
  const files = await SegmentFiles.openToRead({ disk, clock: new VirtualClock(), logger: silentLogger }, DIRECTORY);
  const open = options.remote ?? ((number: number) => assert.fail(`segment ${number} was asked of the backend`));
  const end = await findLogEnd(
    { disk, files, remote: { open: (number) => Promise.resolve(open(number)) } },
    { uuid: UUID, ownerTerm: options.ownerTerm ?? T1, root: { ...EMPTY, ...options.root } },
    options.from ?? { segment: 1, sequence: 0, unstableOpen: false },
  );
  return { end, files };
}

async function log(segments: readonly (BuiltSegment & { change?: (bytes: Buffer, offsets: number[]) => Buffer })[]): Promise<Disk> {
  const disk = await newDisk();
  for (const segment of segments) {
    const { bytes, offsets } = buildSegment(segment);
    await placeSegment(disk, segment.number, segment.term, segment.change?.(bytes, offsets) ?? bytes);
  }
  return disk;
}

function found(end: LogEnd): LogEnd & { kind: 'found' } {
  assert.equal(end.kind, 'found', end.kind === 'damaged' ? end.reason : '');
  assert.ok(end.kind === 'found');
  return end;
}

function damaged(end: LogEnd): string {
  assert.equal(end.kind, 'damaged');
  return (end as LogEnd & { kind: 'damaged' }).reason;
}

const flip = (offset: number) => (bytes: Buffer) => {
  bytes[offset] = bytes[offset]! ^ 4;
  return bytes;
};

test('a whole log is found: sealed segments and the open one', async () => {
  const disk = await log([
    { number: 1, term: T1, base: 1, blocks: [1, 1], sealed: true, durable: 2 },
    { number: 2, term: T1, base: 3, blocks: [1, 2, 1], durable: 2 },
  ]);
  const end = found((await find(disk)).end);
  assert.deepEqual([end.lastSegment, end.lastSequence, end.unstableOpen, end.leftovers.length], [2, 5, false, 0]);
  assert.deepEqual(
    end.segments.map((segment) => segment.records.length),
    [2, 3],
  );
});

test('a torn tail is cut at every byte where it may be torn', async () => {
  const { bytes, offsets } = buildSegment({ number: 1, term: T1, base: 1, blocks: [1, 1, 1], durable: 0 });
  for (const length of [128, 129, offsets[1]! - 1, offsets[1]!, offsets[1]! + 71, offsets[2]! + 76, offsets[2]! + 80, bytes.length - 1]) {
    const disk = await newDisk();
    await placeSegment(disk, 1, T1, Buffer.concat([bytes.subarray(0, length), Buffer.alloc(5000)]));
    const end = found((await find(disk)).end);
    assert.equal(end.lastSequence, length < offsets[1]! ? 0 : length < offsets[2]! ? 1 : 2, `cut at ${length}`);
  }
});

test('a flipped byte before a record that proves durability is reported, wherever it is, and nothing is cut', async () => {
  const { offsets, bytes } = buildSegment({ number: 1, term: T1, base: 1, blocks: [1, 1, 1], durable: 2 });
  for (const at of [0, 20, 127, offsets[0]!, offsets[0]! + 30, offsets[0]! + 74, offsets[0]! + 200, offsets[1]! + 4, offsets[1]! + 4000]) {
    const disk = await newDisk();
    const path = await placeSegment(disk, 1, T1, flip(at)(Buffer.from(bytes)));
    assert.match(damaged((await find(disk)).end), /damaged/, `byte ${at}`);
    assert.equal(await disk.size(path), bytes.length);
  }
});

test('records of an earlier life of a recycled file are no part of the log', async () => {
  const old = buildSegment({ number: 1, term: T1, base: 1, blocks: [1, 1, 1, 1, 1], durable: 4, salt: 99 }).bytes;
  const now = buildSegment({ number: 7, term: T1, base: 30, blocks: [1, 1], durable: 29 }).bytes;
  const disk = await newDisk();
  await placeSegment(disk, 7, T1, Buffer.concat([now, old.subarray(now.length)]));
  const end = found((await find(disk, { from: { segment: 7, sequence: 29, unstableOpen: false } })).end);
  assert.equal(end.lastSequence, 31);
  // A file that was made ready and never begun holds a whole segment of its former life.
  await placeSegment(disk, 8, T1, old);
  const again = found((await find(disk, { from: { segment: 7, sequence: 29, unstableOpen: false } })).end);
  assert.deepEqual([again.lastSegment, again.lastSequence, again.leftovers.map((segment) => segment.number)], [7, 31, [8]]);
});

test('a file that is missing although a later one is there is damage, not the end', async () => {
  const disk = await log([
    { number: 1, term: T1, base: 1, blocks: [1], sealed: true, durable: 1 },
    { number: 3, term: T1, base: 3, blocks: [1], durable: 0 },
  ]);
  assert.match(damaged((await find(disk)).end), /segment 2 is neither on the local disk nor on the backend/);
});

test('what was written behind a gap that nobody was told is durable is left over', async () => {
  const disk = await log([
    { number: 1, term: T1, base: 1, blocks: [1, 1, 1], durable: 0, change: (bytes, offsets) => bytes.subarray(0, offsets[2]) },
    { number: 2, term: T1, base: 4, blocks: [1], durable: 1 },
  ]);
  const end = found((await find(disk)).end);
  assert.deepEqual([end.lastSegment, end.lastSequence, end.leftovers.map((segment) => segment.number)], [1, 2, [2]]);
});

test('the same gap is damage when a later record says that the missing one was durable', async () => {
  const disk = await log([
    { number: 1, term: T1, base: 1, blocks: [1, 1, 1], durable: 0, change: (bytes, offsets) => bytes.subarray(0, offsets[2]) },
    { number: 2, term: T1, base: 4, blocks: [1], durable: 3 },
  ]);
  assert.match(damaged((await find(disk)).end), /records 3 to 3 are missing/);
});

test('a gap that a fault left is closed by the segment in which the records were written again', async () => {
  // Record 3 and 4 of segment 1 and all of segment 2 were not durable when the sync failed: they are in segment 3, others in their place.
  const disk = await log([
    { number: 1, term: T1, base: 1, blocks: [1, 1, 1, 1], durable: 0, change: (bytes, offsets) => bytes.subarray(0, offsets[3]) },
    { number: 2, term: T1, base: 5, blocks: [1, 1], durable: 2 },
    { number: 3, term: T1, base: 3, blocks: [2, 2], durable: 2 },
  ]);
  const { end, files } = await find(disk);
  const { segments, lastSegment, lastSequence, leftovers } = found(end);
  assert.deepEqual([lastSegment, lastSequence, leftovers.length], [3, 4, 0]);
  assert.deepEqual(
    segments.map((segment) => segment.records.map((record) => record.sequence)),
    [[1, 2], [], [3, 4]],
  );
  // Sealing the skipped one by copy must not claim what it had.
  const skipped = segments[1]!;
  const components = { disk, files, random: seededRandom(2), vpoolUuid: 'ffeeddccbbaa99887766554433221100' };
  await sealByCopy(components, skipped.local!, skipped.scan, skipped.lastSequence);
  const after = await scanLocalSegment(disk, files, skipped.local!);
  assert.deepEqual([after.sealed, after.records.length, after.header?.baseSequence, after.durableSequence], [true, 0, 3, 2]);
  assert.equal(found((await find(disk)).end).lastSequence, 4);
});

test('a sealed segment that is copied stays the same to the byte: the backend may have it already', async () => {
  const built = { number: 1, term: T1, base: 1, blocks: [1, 1], sealed: true, durable: 1 };
  const disk = await log([built]);
  const { end, files } = await find(disk);
  const local = files.segment(UUID, 1)!;
  const components = { disk, files, random: seededRandom(2), vpoolUuid: 'ffeeddccbbaa99887766554433221100' };
  const sealedBytes = await sealByCopy(components, local, found(end).segments[0]!.scan, 2);
  const { bytes } = buildSegment(built);
  const copy = Buffer.alloc(bytes.length + 1);
  assert.equal(await files.read(local, 0, copy), bytes.length);
  assert.equal(sealedBytes, bytes.length);
  assert.ok(copy.subarray(0, bytes.length).equals(bytes));
});

test('a recovery that dies after it made the log durable, and before it told of the calls in it, leaves them to the next one', async () => {
  const names = async (saysDurable?: number): Promise<(number | undefined)[]> => {
    const disk = await log([{ number: 1, term: T1, base: 1, blocks: [1, 1, 1], calls: true, durable: 1 }]);
    const { end, files } = await find(disk);
    const components = { disk, files, random: seededRandom(2), vpoolUuid: 'ffeeddccbbaa99887766554433221100' };
    await sealByCopy(components, files.segment(UUID, 1)!, found(end).segments[0]!.scan, 3, saysDurable);
    const again = found((await find(disk)).end);
    assert.equal(again.segments[0]!.scan.sealed, true);
    return again.segments[0]!.records.map((record) => record.call?.[1]);
  };
  assert.deepEqual(await names(1), [1, 2, 3]);
  // What is said to be durable is read from the index, which does not name calls.
  assert.deepEqual(await names(), [undefined, undefined, undefined]);
});

test('records that a fault moved count where they are now, not where they were', async () => {
  const disk = await log([
    { number: 1, term: T1, base: 1, blocks: [1, 1, 1, 1, 1], durable: 2 },
    { number: 2, term: T1, base: 3, blocks: [3], durable: 2 },
  ]);
  const { segments, lastSequence } = found((await find(disk)).end);
  assert.equal(lastSequence, 3);
  assert.deepEqual(
    segments.map((segment) => segment.records.map((record) => [record.sequence, record.blockCount])),
    [
      [
        [1, 1],
        [2, 1],
      ],
      [[3, 3]],
    ],
  );
});

test('a seal that reached the disk before the records in front of it proves nothing: they are read', async () => {
  const segment: BuiltSegment = { number: 1, term: T1, base: 1, blocks: [1, 1, 1], sealed: true, durable: 1 };
  const { offsets } = buildSegment(segment);
  const lost = await log([{ ...segment, change: (bytes) => Buffer.from(bytes).fill(0, offsets[2], offsets[2]! + 512) }]);
  const end = found((await find(lost)).end);
  assert.equal(end.lastSequence, 2);
  // Proven to be durable, it is damage.
  const proven = await log([{ ...segment, durable: 3, change: (bytes) => Buffer.from(bytes).fill(0, offsets[2], offsets[2]! + 512) }]);
  const { end: trusted } = await find(proven);
  assert.equal(found(trusted).provenSequence, 3, 'blocks of proven records are checked when they are read');
});

test('an epoch ends where it was closed, whatever more its segments hold', async () => {
  const closed: ClosedEpoch = { term: T1, lastSegment: 1, lastSequence: 2 };
  const disk = await log([
    { number: 1, term: T1, base: 1, blocks: [1, 1, 1, 1], durable: 0 },
    { number: 2, term: T2, base: 3, blocks: [1], durable: 2, cut: closed },
  ]);
  const end = found((await find(disk, { ownerTerm: T2, root: { closedEpochs: [closed] } })).end);
  assert.deepEqual([end.lastSegment, end.lastSequence], [2, 3]);
  assert.deepEqual(
    end.segments.map((segment) => segment.records.length),
    [2, 1],
  );
});

test('an epoch that was closed behind what is there is damage', async () => {
  const closed: ClosedEpoch = { term: T1, lastSegment: 1, lastSequence: 5 };
  const disk = await log([{ number: 1, term: T1, base: 1, blocks: [1, 1], durable: 0 }]);
  assert.match(damaged((await find(disk, { ownerTerm: T2, root: { closedEpochs: [closed] } })).end), /closed at 5|up to 5/);
});

test('segments of a fenced term are left over, whatever they hold', async () => {
  const closed: ClosedEpoch = { term: T1, lastSegment: 1, lastSequence: 1 };
  const disk = await log([
    { number: 1, term: T1, base: 1, blocks: [1], sealed: true, durable: 1 },
    { number: 2, term: T1, base: 2, blocks: [1, 1, 1], sealed: true, durable: 4 },
  ]);
  const end = found((await find(disk, { ownerTerm: T2, root: { closedEpochs: [closed] } })).end);
  assert.deepEqual([end.lastSequence, end.leftovers.map((segment) => [segment.number, segment.term.counter])], [1, [[2, 1]]]);
});

test('of a number that is there twice the one of the right term counts, and the other is left over', async () => {
  const closed: ClosedEpoch = { term: T1, lastSegment: 1, lastSequence: 1 };
  const disk = await log([
    { number: 1, term: T1, base: 1, blocks: [1], sealed: true, durable: 1 },
    { number: 2, term: T1, base: 2, blocks: [1, 1, 1], durable: 1 },
    { number: 2, term: T2, base: 2, blocks: [1], durable: 1, cut: closed },
  ]);
  const { end, files } = await find(disk, { ownerTerm: T2, root: { closedEpochs: [closed] } });
  assert.equal(found(end).lastSequence, 2);
  assert.deepEqual(
    found(end).leftovers.map((segment) => segment.term.counter),
    [1],
  );
  assert.equal(files.segment(UUID, 2)?.term.counter, 2);
});

test('part of a header and no record behind it is a first write that failed, not damage', async () => {
  const disk = await log([
    { number: 1, term: T1, base: 1, blocks: [1], sealed: true, durable: 1 },
    { number: 2, term: T1, base: 2, blocks: [1], change: (bytes) => Buffer.concat([bytes.subarray(0, 60), Buffer.alloc(8000)]) },
    { number: 3, term: T1, base: 2, blocks: [1], durable: 1 },
  ]);
  const end = found((await find(disk)).end);
  assert.deepEqual([end.lastSegment, end.lastSequence], [3, 2]);
});

test('the verifier has to change exactly when UNSTABLE records end without a COMMIT behind them', async () => {
  const cases: [number[], boolean, boolean][] = [
    [[1, 1], false, false],
    [[1, 1], true, true],
    [[1, 0], true, false],
    [[1, 0, 1], true, true],
    [[], true, false],
  ];
  for (const [blocks, unstable, expected] of cases) {
    const disk = await log([{ number: 1, term: T1, base: 1, blocks, unstable, durable: 0 }]);
    assert.equal(found((await find(disk)).end).unstableOpen, expected, JSON.stringify(blocks));
  }
  const disk = await log([{ number: 1, term: T1, base: 1, blocks: [1], durable: 0 }]);
  assert.equal(found((await find(disk, { from: { segment: 1, sequence: 0, unstableOpen: true } })).end).unstableOpen, true, 'as the checkpoint said');
});

test('what the root says is on the backend is read there when the local copy is damaged or gone', async () => {
  const segment: BuiltSegment = { number: 1, term: T1, base: 1, blocks: [1, 1], sealed: true, durable: 2 };
  const { bytes, offsets } = buildSegment(segment);
  const remote = (): SegmentBytes => ({
    sizeBytes: bytes.length,
    read: (offset, length) => Promise.resolve(bytes.subarray(offset, offset + length)),
  });
  const root = { uploadedSegment: 1, uploadedSequence: 2 };
  for (const change of [flip(bytes.length - 20), flip(3), (whole: Buffer) => whole.subarray(0, offsets[1])]) {
    const disk = await log([{ ...segment, change: (whole) => change(Buffer.from(whole)) }]);
    assert.equal(found((await find(disk, { root, remote })).end).lastSequence, 2);
  }
  assert.equal(found((await find(await newDisk(), { root, remote })).end).lastSequence, 2);
});

test('a segment on the backend that is not what the root says is damage', async () => {
  const { bytes } = buildSegment({ number: 1, term: T2, base: 1, blocks: [1, 1], sealed: true, durable: 2 });
  const remote = (): SegmentBytes => ({
    sizeBytes: bytes.length,
    read: (offset, length) => Promise.resolve(bytes.subarray(offset, offset + length)),
  });
  assert.match(damaged((await find(await newDisk(), { root: { uploadedSegment: 1, uploadedSequence: 2 }, remote })).end), /header of segment 1/);
});

test('segments that only the backend has are asked for together, since each takes some requests', async () => {
  const files = await SegmentFiles.openToRead({ disk: await newDisk(), clock: new VirtualClock(), logger: silentLogger }, DIRECTORY);
  const built = Array.from({ length: 20 }, (_, index) =>
    buildSegment({ number: index + 1, term: T1, base: 1 + index * 2, blocks: [1, 1], sealed: true }),
  );
  let running = 0;
  let together = 0;
  const open = async (number: number): Promise<SegmentBytes> => {
    running += 1;
    together = Math.max(together, running);
    await new Promise((resolve) => setImmediate(resolve));
    running -= 1;
    const { bytes } = built[number - 1] as { bytes: Buffer };
    return { sizeBytes: bytes.length, read: (at, length) => Promise.resolve(bytes.subarray(at, at + length)) };
  };
  const root = { ...EMPTY, uploadedSegment: 20, uploadedSequence: 40 };
  const from = { segment: 1, sequence: 0, unstableOpen: false };
  const components = { disk: new FaultyDisk(seededRandom(1)).process(), files, remote: { open } };
  const end = found(await findLogEnd(components, { uuid: UUID, ownerTerm: T1, root }, from));
  assert.equal(end.lastSequence, 40);
  assert.equal(together, 8);
  // Of a log whose end comes from elsewhere only the beginning is looked for.
  const some = found(await findLogEnd(components, { uuid: UUID, ownerTerm: T1, root }, from, 12));
  assert.deepEqual([some.lastSegment, some.lastSequence, some.segments.length], [12, 24, 12]);
});
