/** A guest that writes faster than its log is copied (decision 0038). */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { VirtualClock } from '../../backends/virtual-clock.ts';
import { errorCode } from '../core/errors.ts';
import type { DrivenObject, MoveSource } from '../object-router/driver-port.ts';
import type { LogPosition } from '../object-router/peer-port.ts';
import { accepted, BLOCK, KIB, Pair, write } from './testing/object-pair.ts';
import { WritePace } from './write-pace.ts';

const PART_BYTES = 256 * KIB;
/** A part each: 0.64 KiB in a millisecond. */
const PART_MS = 400;
const WRITE_BYTES = 16 * KIB;
const PAUSE_MS = 20;

/** Writes 0.8 KiB in a millisecond, but waits for each write: as a guest would. */
class Writer {
  readonly tookMs: number[] = [];
  readonly ended: Promise<void>;
  #over = false;

  constructor(pair: Pair, object: DrivenObject) {
    this.ended = this.#run(pair, object);
  }

  end(): Promise<void> {
    this.#over = true;
    return this.ended;
  }

  async #run(pair: Pair, object: DrivenObject): Promise<void> {
    const { clock } = pair.cluster;
    for (let block = 0; !this.#over; block = (block + WRITE_BYTES / BLOCK) % 256) {
      const beganMs = clock.monotonicMs();
      const outcome = await write(object, block * BLOCK, 7, WRITE_BYTES);
      this.tookMs.push(clock.monotonicMs() - beganMs);
      if (outcome.kind === 'refused' && errorCode(outcome.error) === 'object-held') return;
      accepted(outcome);
      await clock.sleep(PAUSE_MS);
    }
  }
}

/** Copies until little is behind, or for `msMax`. Returns what is behind. */
async function copy(pair: Pair, source: MoveSource, msMax: number): Promise<number> {
  const { clock } = pair.cluster;
  let at: LogPosition = source.offer.from;
  const untilMs = clock.monotonicMs() + msMax;
  for (;;) {
    const { pieces, behindBytes } = await source.read(at, PART_BYTES, 0);
    for (const { segment, offsetBytes, bytes, sealedBytes } of pieces) {
      const end = offsetBytes + bytes.length;
      at = end === sealedBytes ? { segment: segment + 1, offsetBytes: 0 } : { segment, offsetBytes: end };
    }
    if (behindBytes < PART_BYTES || clock.monotonicMs() > untilMs) return behindBytes;
    await clock.sleep(PART_MS);
  }
}

async function filled(bytes: number): Promise<{ readonly pair: Pair; readonly object: DrivenObject }> {
  const pair = await Pair.start('volume', { segmentBytes: 1024 * KIB });
  pair.backend({ hang: 1 });
  const object = await pair.open(pair.a);
  for (let at = 0; at < bytes; at += PART_BYTES) accepted(await pair.run(write(object, at, 1, PART_BYTES)));
  return { pair, object };
}

test('a guest that writes faster than its log is copied is slowed down, each write a little, until the copy is done', async () => {
  const { pair, object } = await filled(1536 * KIB);
  const source = await pair.run(object.giveAway());
  const writer = new Writer(pair, object);
  const behindBytes = await pair.run(copy(pair, source, 20_000));
  assert.ok(behindBytes < PART_BYTES, `${behindBytes} bytes are behind after 20 s`);
  assert.ok(source.slowedMs > 1000, `writes were slowed down for ${source.slowedMs} ms`);
  const longestMs = Math.max(...writer.tookMs);
  assert.ok(longestMs >= 1 && longestMs <= 410, `a write took ${longestMs} ms`);
  source.thaw();
  const before = writer.tookMs.length;
  await pair.run(pair.cluster.clock.sleep(500));
  await pair.run(writer.end());
  assert.ok(Math.max(...writer.tookMs.slice(before + 1)) < 2, 'an attempt that is over slows nobody down');
});

test('a guest that is slower than the copy does not wait, nor does anybody in the first second', async () => {
  const { pair, object } = await filled(1024 * KIB);
  const source = await pair.run(object.giveAway());
  const writer = new Writer(pair, object);
  await pair.run(copy(pair, source, 900));
  assert.equal(source.slowedMs, 0);
  source.thaw();
  await pair.run(writer.end());
});

test('a write that waits for the copy is not held behind the freeze: it is told at once that the object is held', async () => {
  const { pair, object } = await filled(1536 * KIB);
  const source = await pair.run(object.giveAway());
  const writers = Array.from({ length: 2 }, () => new Writer(pair, object));
  await pair.run(copy(pair, source, 2400));
  assert.ok(source.slowedMs > 0);
  const { clock } = pair.cluster;
  const beganMs = clock.monotonicMs();
  const frozen = pair.run(source.freeze());
  await Promise.all(writers.map(({ ended }) => ended));
  assert.ok(clock.monotonicMs() - beganMs < 2, `they were told after ${clock.monotonicMs() - beganMs} ms`);
  await frozen;
  source.thaw();
});

test('writes pass in order of arrival, at the speed that is set, and none waits longer than it may', async () => {
  const clock = new VirtualClock();
  const pace = new WritePace(clock);
  assert.equal(pace.pass(1_000_000), undefined, 'nothing is set yet');
  pace.set(100, 50);
  const passed: [number, number][] = [];
  for (let index = 0; index < 20; index += 1) {
    void Promise.resolve(pace.pass(1000)).then(() => passed.push([index, clock.monotonicMs()]));
  }
  await clock.run(clock.sleep(200));
  assert.deepEqual(
    passed.map(([index]) => index),
    Array.from({ length: 20 }, (_, index) => index),
  );
  // 10 ms each, of which two have passed before; then the longest wait.
  assert.deepEqual(
    passed.map(([, ms]) => ms),
    [0, 0, 0, 10, 20, 30, 40, ...Array.from({ length: 13 }, () => 50)],
  );
  assert.equal(pace.slowedMs, 50);
  const late = pace.pass(100_000);
  const next = pace.pass(1);
  assert.ok(late === undefined && next !== undefined);
  pace.end();
  await next;
  pace.set(1, 1000);
  assert.equal(pace.pass(1_000_000), undefined, 'it has ended');
});
