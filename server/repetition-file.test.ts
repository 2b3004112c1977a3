import assert from 'node:assert/strict';
import { mkdtempSync, openSync, closeSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';

import { VirtualClock } from '../backends/virtual-clock.ts';
import { REPETITION_WINDOW_MS } from './object-router/peer-port.ts';
import { Repetitions } from './object-router/repetitions.ts';
import { RepetitionFile } from './repetition-file.ts';
import type { RepetitionFileOptions } from './repetition-file.ts';

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

test('the next life goes on behind the newest, also over the end of the ring', async (t) => {
  const directory = scratch(t);
  const clock = new VirtualClock();
  const live = async (from: number, to: number): Promise<void> => {
    using file = RepetitionFile.open(directory, () => clock.monotonicMs());
    const repetitions = new Repetitions(clock, 2 ** 10, file);
    for (let key = from; key < to; key += 1) repetitions.remember(100, words(key));
    await Promise.resolve();
  };
  const end = 2 ** 19;
  await live(0, end - 5);
  clock.advance(10_000);
  await live(end - 5, end + 5);
  await live(end + 5, end + 8);
  using later = RepetitionFile.open(directory, () => clock.monotonicMs());
  const keys = [...later.load()].map((call) => call.words[0] as number);
  assert.deepEqual([keys.length, keys[0]], [end, 8]);
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

/** The machine as it is up for the `boot`th time, for `uptimeMs`. */
function rebooted(directory: string, boot: number, uptimeMs = REPETITION_WINDOW_MS, options: RepetitionFileOptions = {}): RepetitionFile {
  return RepetitionFile.open(
    directory,
    () => uptimeMs,
    () => uptimeMs,
    { bootId: `0000000${boot}-0000-4000-8000-000000000000`, ...options },
  );
}

function keysOf(file: RepetitionFile): (number | undefined)[] {
  return [...file.load()].map((call) => call.words[0]);
}

test('a file of before a reboot says nothing that is not proven, and the machine must have been up for a while', async (t) => {
  const directory = scratch(t);
  {
    using file = rebooted(directory, 1);
    new Repetitions(new VirtualClock(), 2 ** 10, file).remember(100, words(1));
    await Promise.resolve();
  }
  {
    using file = rebooted(directory, 2, REPETITION_WINDOW_MS - 4000);
    assert.deepEqual([file.waitMs, file.isLost], [4000, true]);
    assert.deepEqual(keysOf(file), []);
  }
  {
    // The first life of this boot was killed while it waited, or recovered.
    using file = rebooted(directory, 2, REPETITION_WINDOW_MS - 3000);
    assert.deepEqual([file.waitMs, file.isLost], [3000, true]);
    new Repetitions(new VirtualClock(), 2 ** 10, file).remember(100, words(2));
    await Promise.resolve();
    file.settled();
  }
  // It is this boot's file from then on.
  using again = rebooted(directory, 2, REPETITION_WINDOW_MS - 2000);
  assert.deepEqual([again.waitMs, again.isLost, keysOf(again)], [0, false, [2]]);
});

test('what was kept of an object is believed after any number of reboots, and nothing else; the lives of each boot know it, too', async (t) => {
  const directory = scratch(t);
  const remembered = async (file: RepetitionFile, ...calls: [number, number][]): Promise<Repetitions> => {
    const repetitions = new Repetitions(new VirtualClock(), 2 ** 10, file);
    for (const [fileid, key] of calls) repetitions.remember(fileid, words(key));
    await Promise.resolve();
    return repetitions;
  };
  {
    using file = rebooted(directory, 1, 1e9);
    const repetitions = await remembered(file, [100, 1], [101, 2]);
    let isDurable = false;
    await repetitions.keep(100, () => {
      // As late as this: its change may be in the page cache only.
      repetitions.remember(100, words(3));
      isDurable = true;
      return Promise.resolve();
    });
    assert.equal(isDurable, true);
    await remembered(file, [100, 4]);
  }
  {
    using file = rebooted(directory, 2, 5);
    assert.deepEqual(keysOf(file), [1]);
    await remembered(file, [100, 5], [101, 6]);
  }
  {
    using file = rebooted(directory, 2, 6);
    assert.deepEqual(keysOf(file), [1, 5, 6]);
    const repetitions = await remembered(file);
    await repetitions.keep(101, () => Promise.resolve());
  }
  {
    using file = rebooted(directory, 3);
    assert.deepEqual(keysOf(file), [1, 6]);
    const repetitions = await remembered(file);
    repetitions.forget(100);
  }
  using file = rebooted(directory, 4);
  assert.deepEqual(keysOf(file), [6]);
});

test('a keep is over when its mark is on the disk, and many wait for one sync', async (t) => {
  const directory = scratch(t);
  const syncs: (() => void)[] = [];
  using file = rebooted(directory, 1, 1000, { sync: () => new Promise((resolve) => syncs.push(resolve)) });
  const repetitions = new Repetitions(new VirtualClock(), 2 ** 10, file);
  const ended: number[] = [];
  const keeps = [1, 2, 3].map(async (key) => {
    await repetitions.keep(100 + key, () => Promise.resolve());
    ended.push(key);
  });
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual([syncs.length, ended], [1, []]);
  syncs[0]?.();
  await new Promise((resolve) => setImmediate(resolve));
  // The others' marks may have come behind its begin.
  while (ended.length < 3) {
    syncs.pop()?.();
    await new Promise((resolve) => setImmediate(resolve));
  }
  await Promise.all(keeps);
  assert.ok(syncs.length <= 2);
});

test('a sync that failed is told once and never repeated, and nobody waits for another', async (t) => {
  const directory = scratch(t);
  const failures: Error[] = [];
  let syncs = 0;
  const sync = (): Promise<void> => {
    syncs += 1;
    return Promise.reject(new Error('EIO'));
  };
  using file = rebooted(directory, 1, 1000, { sync, failed: (error) => void failures.push(error) });
  const repetitions = new Repetitions(new VirtualClock(), 2 ** 10, file);
  for (let round = 0; round < 3; round += 1) await repetitions.keep(100, () => Promise.resolve());
  assert.deepEqual([syncs, failures.length, file.problem?.message], [1, 1, 'EIO']);
});

test('what was too old when the power was cut is not believed, and a damaged header says nothing', async (t) => {
  const directory = scratch(t);
  let nowMs = 1000;
  const open = (boot: string): RepetitionFile =>
    RepetitionFile.open(
      directory,
      () => nowMs,
      () => REPETITION_WINDOW_MS,
      { bootId: boot.repeat(36) },
    );
  {
    using file = open('a');
    const repetitions = new Repetitions(new VirtualClock(), 2 ** 10, file);
    repetitions.remember(100, words(1));
    await Promise.resolve();
    nowMs += REPETITION_WINDOW_MS + 3000;
    repetitions.remember(100, words(2));
    await repetitions.keep(100, () => Promise.resolve());
  }
  nowMs = 1000;
  {
    using file = open('b');
    assert.deepEqual(keysOf(file), [2]);
  }
  const fd = openSync(join(directory, 'repetitions.ring'), 'r+');
  writeSync(fd, Buffer.from([0xff]), 0, 1, 50);
  closeSync(fd);
  using file = open('b');
  assert.deepEqual([keysOf(file), file.isLost, file.waitMs], [[], true, REPETITION_WINDOW_MS]);
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
  // The first has number 1.
  writeSync(fd, Buffer.from([0xff]), 0, 1, 64 + 40);
  closeSync(fd);
  using later = RepetitionFile.open(directory, () => clock.monotonicMs());
  assert.deepEqual(
    [...later.load()].map((call) => call.words[0]),
    [2],
  );
});
