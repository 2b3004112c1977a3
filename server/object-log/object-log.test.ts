import assert from 'node:assert/strict';
import { test } from 'node:test';

import { seededRandom } from '../../backends/virtual-clock.ts';
import { errorCode } from '../core/errors.ts';
import { Histogram } from '../core/histogram.ts';
import { silentLogger } from '../core/logger.ts';
import { SimulatedClock } from '../volume-driver/testing/simulated-router.ts';
import { LogRecord } from './log-record.ts';
import { ObjectLog } from './object-log.ts';
import { RecordKind } from './segment-codec.ts';
import { SegmentFiles } from './segment-files.ts';
import { scanLocalSegment } from './segment-scan.ts';
import { FaultyDisk } from './testing/faulty-disk.ts';
import { DIRECTORY, termOf, UUID } from './testing/segment-builder.ts';

const MIB = 1024 * 1024;

/** A log of its own, whose records nobody but the test waits for. */
class World {
  readonly disk = new FaultyDisk(seededRandom(5));
  readonly process = this.disk.process();
  readonly clock = new SimulatedClock(() => this.disk.pending > 0);
  readonly applied: number[] = [];
  files!: SegmentFiles;
  log!: ObjectLog;

  run<T>(promise: Promise<T>): Promise<T> {
    return this.clock.run(promise);
  }

  async open(): Promise<ObjectLog> {
    this.files = await this.run(
      SegmentFiles.open(
        { disk: this.process, clock: this.clock, logger: silentLogger },
        { directory: DIRECTORY, segmentFileBytes: MIB, poolFilesMax: 0, cacheBytesMax: MIB, reserveBytes: 0, recycle: false },
      ),
    );
    const done = (): Promise<void> => Promise.resolve();
    this.log = new ObjectLog(
      {
        files: this.files,
        clock: this.clock,
        random: seededRandom(6),
        logger: silentLogger,
        syncLatency: new Histogram(),
        events: {
          apply: (record) => this.applied.push(record.sequence),
          sealed: () => undefined,
          opened: () => undefined,
          fault: () => undefined,
          renewVerifier: done,
          relocate: done,
          relocated: () => undefined,
        },
      },
      { vpoolUuid: 'f'.repeat(32), objectUuid: UUID, term: termOf(1), cut: null },
      { segmentBytes: MIB, preallocate: false, patienceMs: 1000 },
      { nextSegment: 1, nextSequence: 1 },
    );
    return this.log;
  }

  /** A record that is answered when it is written: only `sync` makes it durable. Resolves then. */
  append(): Promise<void> {
    const record = new LogRecord(RecordKind.COMMIT_MARK, 0, 0, null, [], 0, null);
    record.stable = false;
    const answered = new Promise<void>((resolve, reject) => {
      record.done = (error) => (error === null ? resolve() : reject(error));
    });
    this.log.append(record);
    return answered;
  }

  /** Sequences in the last segment that a power cut at this moment leaves. What is in a damaged one before it proves nothing. */
  async afterPowerCut(): Promise<number[]> {
    this.process.die();
    this.disk.powerCut();
    const process = this.disk.process();
    const files = await this.run(SegmentFiles.openToRead({ disk: process, clock: this.clock, logger: silentLogger }, DIRECTORY));
    const last = files.segment(UUID, this.log.lastBegunSegment);
    assert.ok(last !== null, `segment ${this.log.lastBegunSegment} is gone`);
    return (await this.run(scanLocalSegment(process, files, last))).records.map((record) => record.sequence);
  }
}

test('what nobody waited for is durable once a sync has said so', async () => {
  const world = new World();
  const log = await world.open();
  await world.run(world.append());
  await world.run(world.append());
  assert.equal(log.durableSequence, 0);
  await world.run(log.sync());
  assert.equal(log.durableSequence, 2);
  assert.deepEqual(await world.afterPowerCut(), [1, 2]);
});

for (const [what, faults] of [
  ['a sync of the disk', { syncError: 1 }],
  ['a write', { writeError: 1 }],
] as const) {
  test(`${what} that fails fails the sync that waits for it, and the next one makes all durable in another segment`, async () => {
    const world = new World();
    const log = await world.open();
    await world.run(world.append());
    world.disk.setFaults(faults);
    const second = world.append();
    second.catch(() => undefined);
    await assert.rejects(world.run(log.sync()), (error) => errorCode(error) === 'log-fault');
    assert.equal(log.durableSequence, 0);
    // Nobody is told that it is durable as long as the disk is broken, and nobody is left waiting.
    await assert.rejects(world.run(log.sync()), (error) => errorCode(error) === 'log-fault');
    world.disk.setFaults({});
    while (log.problem !== null) await world.run(world.clock.sleep(100));
    await world.run(log.sync());
    await world.run(second);
    assert.equal(log.durableSequence, 2);
    assert.deepEqual(world.applied, [1, 2]);
    assert.deepEqual(await world.afterPowerCut(), [1, 2]);
  });
}

test('a sync that waits for room on a full disk is told when the log gives up', async () => {
  const world = new World();
  const log = await world.open();
  world.disk.capacityBytes = 0;
  const first = world.append();
  first.catch(() => undefined);
  await assert.rejects(world.run(log.sync()), (error) => errorCode(error) === 'log-fault');
  await assert.rejects(world.run(first));
});

test('a sync that comes when the log is closing ends with it', async () => {
  const world = new World();
  const log = await world.open();
  await world.run(world.append());
  world.disk.setFaults({ syncError: 1 });
  const closing = log.close();
  const syncing = log.sync();
  await Promise.allSettled([world.run(closing), world.run(assert.rejects(syncing))]);
  await assert.rejects(syncing, (error) => ['object-closing', 'log-fault'].includes(errorCode(error) ?? ''));
});
