import assert from 'node:assert/strict';
import { mkdtempSync, openSync, closeSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';

import { VirtualClock } from '../backends/virtual-clock.ts';
import { REPETITION_WINDOW_MS } from './object-router/peer-port.ts';
import { Repetitions } from './object-router/repetitions.ts';
import { RepetitionFile } from './repetition-file.ts';

function scratch(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'vferry-repetitions-'));
  t.after(() => rmSync(directory, { recursive: true }));
  return directory;
}

function words(key: number): Uint32Array {
  return Uint32Array.from([key, 1, 2, 3]);
}

test('what a process remembered, its next life knows, before any answer could have left', async (t) => {
  const directory = scratch(t);
  const clock = new VirtualClock();
  const file = RepetitionFile.open(directory, () => clock.monotonicMs());
  assert.deepEqual([file.waitMs, file.isLost], [0, false]);
  const repetitions = new Repetitions(clock, 2 ** 12, file);
  const call = async (): Promise<void> => {
    await Promise.resolve();
    repetitions.remember(100, words(1));
  };
  await repetitions.run(100, words(1), call());
  // Nothing of the first life is asked to write anything any more: it was killed.
  using later = RepetitionFile.open(directory, () => clock.monotonicMs());
  const next = new Repetitions(clock, 2 ** 12, later);
  assert.equal(next.isDone(100, words(1)), true);
  assert.equal(next.isDone(100, words(2)), false);
  file[Symbol.dispose]();
});

test('batches go over the end of the ring, and the newest count', async (t) => {
  const directory = scratch(t);
  const clock = new VirtualClock();
  const count = 2 ** 19 + 700;
  {
    using file = RepetitionFile.open(directory, () => clock.monotonicMs());
    const repetitions = new Repetitions(clock, 2 ** 10, file);
    for (let key = 0; key < count; key += 1) {
      repetitions.remember(100, words(key));
      if (key === count - 600) clock.advance(1000);
    }
    await Promise.resolve();
  }
  using later = RepetitionFile.open(directory, () => clock.monotonicMs());
  const keys = [...later.load()].map((call) => call.words[0] as number);
  assert.equal(keys.length, 2 ** 19);
  const kept = new Set(keys);
  assert.ok(kept.has(count - 1) && kept.has(count - 2 ** 19) && !kept.has(count - 2 ** 19 - 1));
});

test('the next life goes on behind the newest, also where the ring ends in the middle of their second', async (t) => {
  const directory = scratch(t);
  const clock = new VirtualClock();
  const live = async (from: number, to: number): Promise<void> => {
    using file = RepetitionFile.open(directory, () => clock.monotonicMs());
    const repetitions = new Repetitions(clock, 2 ** 10, file);
    for (let key = from; key < to; key += 1) repetitions.remember(100, words(key));
    await Promise.resolve();
  };
  const end = 2 ** 19;
  // As if the ring had been filled up to five before its end.
  await live(0, 1);
  const fd = openSync(join(directory, 'repetitions.ring'), 'r+');
  const record = Buffer.alloc(32);
  readSync(fd, record, 0, 32, 64);
  writeSync(fd, record, 0, 32, 64 + (end - 6) * 32);
  writeSync(fd, Buffer.alloc(32), 0, 32, 64);
  closeSync(fd);
  clock.advance(10_000);
  await live(end - 5, end + 5);
  await live(end + 5, end + 8);
  using later = RepetitionFile.open(directory, () => clock.monotonicMs());
  const keys = [...later.load()].map((call) => call.words[0] as number);
  assert.deepEqual(
    keys.slice(-13),
    Array.from({ length: 13 }, (_, index) => end - 5 + index),
  );
});

test('calls older than the window are left where they are', async (t) => {
  const directory = scratch(t);
  const clock = new VirtualClock();
  {
    using file = RepetitionFile.open(directory, () => clock.monotonicMs());
    new Repetitions(clock, 2 ** 10, file).remember(100, words(1));
    await Promise.resolve();
  }
  clock.advance(REPETITION_WINDOW_MS + 3000);
  using later = RepetitionFile.open(directory, () => clock.monotonicMs());
  assert.deepEqual([...later.load()], []);
});

test('the wall clock may be set: calls stay in their order, and none is too old by it', async (t) => {
  const directory = scratch(t);
  const clock = new VirtualClock();
  const wall = t.mock.method(Date, 'now', () => 1_000_000_000_000);
  const live = async (...keys: number[]): Promise<void> => {
    using file = RepetitionFile.open(directory);
    const repetitions = new Repetitions(clock, 2 ** 10, file);
    for (const key of keys) repetitions.remember(100, words(key));
    await Promise.resolve();
  };
  await live(1, 2);
  wall.mock.mockImplementation(() => 1_000_000_000_000 - 3_600_000);
  await live(3, 4);
  wall.mock.mockImplementation(() => 1_000_000_000_000 + 3_600_000);
  using later = RepetitionFile.open(directory);
  assert.deepEqual(
    [...later.load()].map((call) => call.words[0]),
    [1, 2, 3, 4],
  );
});

test('a file of another version says nothing, and its copies are waited for', async (t) => {
  const directory = scratch(t);
  RepetitionFile.open(directory)[Symbol.dispose]();
  const fd = openSync(join(directory, 'repetitions.ring'), 'r+');
  writeSync(fd, Buffer.from('VFREP001'), 0, 8, 0);
  closeSync(fd);
  using later = RepetitionFile.open(directory);
  assert.deepEqual([later.waitMs, later.isLost], [REPETITION_WINDOW_MS, true]);
});

test('a file of before a reboot says nothing, and the machine must have been up for a while', async (t) => {
  const directory = scratch(t);
  const clock = new VirtualClock();
  {
    using file = RepetitionFile.open(directory, () => clock.monotonicMs());
    new Repetitions(clock, 2 ** 10, file).remember(100, words(1));
    await Promise.resolve();
  }
  const fd = openSync(join(directory, 'repetitions.ring'), 'r+');
  writeSync(fd, Buffer.from('00000000-0000-0000-0000-000000000000'), 0, 36, 8);
  closeSync(fd);
  const uptimeMs = { value: REPETITION_WINDOW_MS - 4000 };
  {
    using rebooted = RepetitionFile.open(
      directory,
      () => clock.monotonicMs(),
      () => uptimeMs.value,
    );
    assert.deepEqual([rebooted.waitMs, rebooted.isLost], [4000, true]);
    assert.deepEqual([...rebooted.load()], []);
  }
  // It is this boot's file from then on.
  using again = RepetitionFile.open(
    directory,
    () => clock.monotonicMs(),
    () => uptimeMs.value,
  );
  assert.deepEqual([again.waitMs, again.isLost], [0, false]);
});

test('damaged records are passed over', async (t) => {
  const directory = scratch(t);
  const clock = new VirtualClock();
  {
    using file = RepetitionFile.open(directory, () => clock.monotonicMs());
    const repetitions = new Repetitions(clock, 2 ** 10, file);
    repetitions.remember(100, words(1));
    repetitions.remember(100, words(2));
    await Promise.resolve();
  }
  const fd = openSync(join(directory, 'repetitions.ring'), 'r+');
  writeSync(fd, Buffer.from([0xff]), 0, 1, 64);
  closeSync(fd);
  using later = RepetitionFile.open(directory, () => clock.monotonicMs());
  assert.deepEqual(
    [...later.load()].map((call) => call.words[0]),
    [2],
  );
});
