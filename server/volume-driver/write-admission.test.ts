import assert from 'node:assert/strict';
import { test } from 'node:test';

import { VirtualClock } from '../../backends/virtual-clock.ts';
import { isPending } from '../core/maybe-promise.ts';
import { WriteAdmission } from './write-admission.ts';

const KIB = 1024;
const MIB = 1024 * 1024;

/** A log that drains to a backend in lumps, as segments do, and writers that want more than that. */
class World {
  readonly clock = new VirtualClock();
  readonly writes: WriteAdmission;
  dirtyBytes = 0;
  drainedBytes = 0;
  /** Bytes per second; read at each lump. */
  drainPerSecond = 0;
  readonly #lumpBytes: number;
  #lumpAtMs = 0;

  constructor(dirtyBytesMax: number, lumpBytes = 4 * MIB) {
    this.#lumpBytes = lumpBytes;
    this.writes = new WriteAdmission({ clock: this.clock, dirtyBytes: () => this.dirtyBytes, drainedBytes: () => this.drainedBytes }, dirtyBytesMax);
  }

  #drain(): void {
    const nowMs = this.clock.monotonicMs();
    if (this.drainPerSecond === 0) {
      this.#lumpAtMs = nowMs;
      return;
    }
    const everyMs = (this.#lumpBytes / this.drainPerSecond) * 1000;
    while (nowMs - this.#lumpAtMs >= everyMs) {
      this.#lumpAtMs += everyMs;
      const bytes = Math.min(this.#lumpBytes, this.dirtyBytes);
      this.dirtyBytes -= bytes;
      this.drainedBytes += bytes;
    }
  }

  /** Time passes; admitted writes are appended, lumps go. */
  async pass(milliseconds: number, each?: (nowMs: number) => void): Promise<void> {
    for (let passed = 0; passed < milliseconds; passed += 1) {
      this.clock.advance(1);
      this.#drain();
      await settled();
      each?.(this.clock.monotonicMs());
    }
  }

  /** A client that keeps `depth` writes of `bytes` under way, each at least `pauseMs` after the last one's answer. */
  writer(bytes: number, depth: number, pauseMs = 0): Writer {
    const writer: Writer = { volume: {}, bytes: 0, refused: 0, waits: [], stopped: false };
    const lane = async (): Promise<void> => {
      while (!writer.stopped) {
        const fromMs = this.clock.monotonicMs();
        const admitted = await this.writes.admit(writer.volume, bytes, 15_000);
        writer.waits.push(this.clock.monotonicMs() - fromMs);
        if (admitted) {
          writer.bytes += bytes;
          this.dirtyBytes += bytes;
        } else writer.refused += 1;
        await this.clock.sleep(Math.max(pauseMs, 0.1));
      }
    };
    for (let count = 0; count < depth; count += 1) void lane();
    return writer;
  }
}

interface Writer {
  readonly volume: object;
  bytes: number;
  refused: number;
  waits: number[];
  stopped: boolean;
}

async function settled(): Promise<void> {
  for (let turn = 0; turn < 4; turn += 1) await Promise.resolve();
}

function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

test('far from the bound writes pass at once', () => {
  const world = new World(1000);
  world.dirtyBytes = 740;
  assert.ok(world.writes.isOpen);
  assert.equal(world.writes.condition, 'open');
  assert.equal(world.writes.admit({}, 1 << 20, 0), true);
});

test('writers that want more than the backend takes get what it takes; the fill settles below the bound', async (t) => {
  for (const [drainPerSecond, boundBytes, writeBytes] of [
    [20 * MIB, 512 * MIB, 64 * KIB],
    [2 * MIB, 128 * MIB, 64 * KIB],
    [100 * MIB, 1024 * MIB, 256 * KIB],
  ] as const) {
    const world = new World(boundBytes);
    world.drainPerSecond = drainPerSecond;
    world.dirtyBytes = 0.7 * boundBytes;
    const writers = Array.from({ length: 4 }, () => world.writer(writeBytes, 8));
    await world.pass(40_000);
    const fills: number[] = [];
    const before = writers.reduce((sum, { bytes }) => sum + bytes, 0);
    for (const writer of writers) writer.waits = [];
    await world.pass(20_000, () => fills.push(world.writes.fill));
    const rate = (writers.reduce((sum, { bytes }) => sum + bytes, 0) - before) / 20;
    const what = `drain ${drainPerSecond / MIB} MiB/s: rate ${(rate / MIB).toFixed(2)} MiB/s, fill ${Math.min(...fills).toFixed(3)} to ${Math.max(...fills).toFixed(3)}`;
    assert.ok(Math.abs(rate / drainPerSecond - 1) < 0.1, what);
    assert.ok(Math.max(...fills) < 1 && Math.min(...fills) > 0.75, what);
    // No write meets a wall: all wait about as long as their share of the drain makes them.
    t.diagnostic(what);
    const waits = writers.flatMap((writer) => writer.waits);
    const expectedMs = ((4 * 8 * writeBytes) / drainPerSecond) * 1000;
    assert.ok(
      quantile(waits, 0.99) < 3 * expectedMs + 50,
      `${what}: p50 ${quantile(waits, 0.5)} p99 ${quantile(waits, 0.99)} ms, expected ${expectedMs}`,
    );
    assert.deepEqual(
      writers.map(({ refused }) => refused),
      [0, 0, 0, 0],
    );
    assert.ok(Math.abs(world.writes.drainBytesPerSecond / drainPerSecond - 1) < 0.5, what);
    for (const writer of writers) writer.stopped = true;
  }
});

test('a backend that takes its data in lumps with long pauses between them is followed smoothly, too', async (t) => {
  const world = new World(128 * MIB, 16 * MIB);
  world.drainPerSecond = MIB;
  world.dirtyBytes = 0.7 * 128 * MIB;
  const writer = world.writer(64 * KIB, 8);
  await world.pass(80_000);
  const rates: number[] = [];
  let before = writer.bytes;
  for (let window = 0; window < 20; window += 1) {
    await world.pass(4000);
    rates.push((writer.bytes - before) / 4 / MIB);
    before = writer.bytes;
  }
  t.diagnostic(`MiB/s in windows of 4 s: ${rates.map((rate) => rate.toFixed(2)).join(' ')}`);
  const mean = rates.reduce((sum, rate) => sum + rate, 0) / rates.length;
  assert.ok(Math.abs(mean - 1) < 0.15, `mean ${mean}`);
  assert.ok(Math.min(...rates) > 0.2 && Math.max(...rates) < 4, `${Math.min(...rates)} to ${Math.max(...rates)}`);
  writer.stopped = true;
});

test('slowing down begins gently: nobody meets a cliff at three quarters of the bound', async () => {
  const world = new World(1024 * MIB);
  world.drainPerSecond = 10 * MIB;
  const writer = world.writer(256 * KIB, 4);
  const rates: { readonly fill: number; readonly rate: number }[] = [];
  let former = 0;
  await world.pass(30_000, (nowMs) => {
    if (nowMs % 500 !== 0) return;
    rates.push({ fill: world.writes.fill, rate: ((writer.bytes - former) / MIB) * 2 });
    former = writer.bytes;
  });
  const slowed = rates.filter(({ fill }) => fill > 0.75);
  assert.ok((slowed[0]?.rate ?? 0) > 100, 'just above it writes are much faster than the drain');
  // From one half second to the next the rate never falls to less than a quarter while the fill moves by less than 2 %.
  for (const [index, { fill, rate }] of slowed.entries()) {
    const next = slowed[index + 1];
    if (next !== undefined && next.fill - fill < 0.02) assert.ok(next.rate > rate / 4, `${rate} then ${next.rate} MiB/s at ${next.fill}`);
  }
  writer.stopped = true;
});

test('one greedy volume does not starve one that writes little', async () => {
  const world = new World(256 * MIB);
  world.drainPerSecond = 8 * MIB;
  world.dirtyBytes = 0.8 * 256 * MIB;
  const greedy = world.writer(MIB, 64);
  await world.pass(20_000);
  const modest = world.writer(4 * KIB, 1, 20);
  await world.pass(20_000);
  greedy.stopped = true;
  modest.stopped = true;
  // It waits for what the write before it has to pay, not for the 64 that wait.
  assert.ok(
    quantile(modest.waits, 0.5) < 200 && quantile(modest.waits, 0.99) < 500,
    `p50 ${quantile(modest.waits, 0.5)}, p99 ${quantile(modest.waits, 0.99)}`,
  );
  assert.ok(modest.waits.length > 80, String(modest.waits.length));
  assert.ok(greedy.bytes / 40 > 6 * MIB, 'the greedy one still gets the rest');
});

test('volumes that want the same get the same', async () => {
  const world = new World(256 * MIB);
  world.drainPerSecond = 8 * MIB;
  world.dirtyBytes = 0.85 * 256 * MIB;
  const [few, many, large] = [world.writer(64 * KIB, 4), world.writer(64 * KIB, 40), world.writer(512 * KIB, 8)];
  await world.pass(30_000);
  for (const writer of [few, many, large]) writer.stopped = true;
  const bytes = [few, many, large].map((writer) => writer.bytes / MIB);
  assert.ok(Math.max(...bytes) / Math.min(...bytes) < 1.3, String(bytes));
});

test('while nothing drains writes get slower and slower, and at last are asked to come back after their patience; then they go on', async () => {
  const world = new World(256 * MIB);
  world.dirtyBytes = 0.75 * 256 * MIB;
  const writer = world.writer(MIB, 8);
  const fills: number[] = [];
  await world.pass(150_000, (nowMs) => {
    if (nowMs % 20_000 === 0) fills.push(world.writes.fill);
  });
  assert.ok((fills[0] ?? 1) < 0.95 && Math.max(...fills) < 1.04, String(fills));
  assert.ok(
    fills.every((fill, index) => index === 0 || fill >= (fills[index - 1] ?? 0)),
    String(fills),
  );
  assert.ok(writer.refused > 0 && Math.max(...writer.waits) < 15_100, String(Math.max(...writer.waits)));
  assert.equal(world.writes.condition, 'stopped');
  assert.equal(world.writes.statistics.refused, writer.refused);
  world.drainPerSecond = 50 * MIB;
  const before = writer.bytes;
  await world.pass(10_000);
  assert.ok((writer.bytes - before) / 10 > 25 * MIB, `${(writer.bytes - before) / 10 / MIB} MiB/s`);
  writer.stopped = true;
});

test('at the bound nothing passes; when there is room what waits passes, no more than there is room for', async () => {
  const world = new World(1000 * KIB);
  world.dirtyBytes = 1000 * KIB;
  const waiting = Array.from({ length: 100 }, () => world.writes.admit({}, 64 * KIB, 15_000));
  assert.ok(waiting.every((write) => isPending(write)));
  let admitted = 0;
  for (const write of waiting) {
    void Promise.resolve(write).then((passed) => {
      if (passed) {
        admitted += 1;
        world.dirtyBytes += 64 * KIB;
      }
    });
  }
  await world.pass(5000);
  assert.equal(admitted, 0);
  assert.equal(world.writes.waiting, 100);
  world.dirtyBytes = 0;
  await world.pass(100);
  assert.ok(admitted >= 11 && world.dirtyBytes < 1100 * KIB, `${admitted} admitted, ${world.dirtyBytes / KIB} KiB dirty`);
  await world.pass(20_000);
  assert.equal(world.writes.waiting, 0);
});

test('a write that waited longer than a client should is told so, and nothing is left behind', async () => {
  const world = new World(1000);
  world.dirtyBytes = 2000;
  const started = world.clock.monotonicMs();
  assert.equal(await world.clock.run(Promise.resolve(world.writes.admit({}, 4096, 15_000))), false);
  const waitedMs = world.clock.monotonicMs() - started;
  assert.ok(waitedMs >= 15_000 && waitedMs <= 15_100, String(waitedMs));
  assert.equal(world.writes.waiting, 0);
  world.dirtyBytes = 0;
  await world.pass(100);
  assert.equal(world.clock.pending, 0, 'no timer while nothing is to be looked at');
});

test('however many writes wait, there is one timer', () => {
  const world = new World(1000);
  world.dirtyBytes = 2000;
  for (let count = 0; count < 1000; count += 1) void world.writes.admit({}, 4096, 15_000);
  assert.equal(world.clock.pending, 1);
});

test('what nobody wanted for a while is not given out at once afterwards', async () => {
  const world = new World(256 * MIB);
  world.drainPerSecond = 10 * MIB;
  world.dirtyBytes = 0.6 * 256 * MIB;
  const writer = world.writer(256 * KIB, 8);
  await world.pass(15_000);
  writer.stopped = true;
  await world.pass(2000);
  world.drainPerSecond = 0;
  world.dirtyBytes = 0.9 * 256 * MIB;
  await world.pass(3000);
  let [passed, waiting] = [0, 0];
  while (waiting < 100) {
    if (isPending(world.writes.admit({}, 64 * KIB, 15_000))) waiting += 1;
    else passed += 1;
  }
  assert.ok(passed <= 8, `${passed} writes passed in one moment`);
});

test('what moves here with a write buffer that is full gets what the backend took before, from the first second on', async () => {
  const world = new World(128 * MIB);
  world.drainPerSecond = 4 * MIB;
  const first = world.writer(64 * KIB, 64);
  await world.pass(60_000);
  // The object goes to another router, and with it all that waited.
  first.stopped = true;
  world.writes.excuse(first.volume);
  const admitted = async (): Promise<number> => {
    world.drainedBytes += world.dirtyBytes;
    world.dirtyBytes = 0;
    await world.pass(5000);
    world.dirtyBytes = 116 * MIB;
    const writer = world.writer(4 * KIB, 512);
    await world.pass(2000);
    writer.stopped = true;
    world.writes.excuse(writer.volume);
    return writer.bytes;
  };
  for (const time of ['once', 'twice', 'three times']) {
    const bytes = await admitted();
    assert.ok(bytes > 4 * MIB && bytes < 24 * MIB, `moved here ${time}: ${bytes} bytes in two seconds, of which the backend took 8 MiB`);
  }
  // A backend that takes nothing any more is not believed for long.
  await admitted();
  world.drainPerSecond = 0;
  world.dirtyBytes = 120 * MIB;
  world.writer(4 * KIB, 512);
  await world.pass(60_000);
  assert.ok(world.dirtyBytes <= 128 * MIB + 4 * KIB * 8, `${world.dirtyBytes}`);
  assert.ok(world.writes.drainBytesPerSecond < MIB / 4, `${world.writes.drainBytesPerSecond}`);
});
