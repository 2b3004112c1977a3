import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import fc from 'fast-check';

import { scratchFor } from '../../e2e/scratch.ts';
import type { DiskFile } from '../../server/core/disk.ts';
import { nodeDisk } from '../../server/core/node-disk.ts';
import { systemClock } from '../../server/core/node-time.ts';
import type { OutboxEntry } from '../ports.ts';
import { decodeLogRecord, encodeLogRecord } from './outbox-log-format.ts';
import { OUTBOX_LOG_DEFAULTS, OutboxLog, type OutboxLogSettings } from './outbox-log.ts';

const COMPONENTS = { disk: nodeDisk, clock: systemClock };

function entry(sequence: number, text = ''): OutboxEntry {
  return { generation: 1, sequence, operationId: `c|${sequence}`, verb: 'createFile', afterImage: `{"version":1,"x":"${text}"}`, outcome: 'null' };
}

function sequences(entries: readonly OutboxEntry[]): number[] {
  return entries.map(({ sequence }) => sequence);
}

async function emptyLog(t: TestContext, settings: Partial<OutboxLogSettings> = {}): Promise<{ directory: string; open: () => Promise<OutboxLog> }> {
  const directory = join(await scratchFor(t, 'outbox'), 'log');
  return { directory, open: () => OutboxLog.open(COMPONENTS, directory, { ...OUTBOX_LOG_DEFAULTS, ...settings }) };
}

test('entries come back in sequence order, whatever order they came in, each once, also after a restart', async (t) => {
  const { open } = await emptyLog(t);
  const log = await open();
  await Promise.all([3, 1, 2, 3, 5].map((sequence) => log.append(entry(sequence))));
  await log.append(entry(2));
  await log.append(entry(4));
  assert.deepEqual(sequences(await log.pending(0, 100)), [1, 2, 3, 4, 5]);
  assert.deepEqual(sequences(await log.pending(2, 2)), [3, 4]);
  assert.deepEqual(await log.pending(4, 1), [entry(5)]);
  await log.close();
  const again = await open();
  assert.deepEqual(sequences(await again.pending(0, 100)), [1, 2, 3, 4, 5]);
  assert.equal(again.sequenceMax, 5);
  await again.append(entry(6));
  assert.deepEqual(sequences(await again.pending(4, 100)), [5, 6]);
  await again.close();
});

test('what is released is pending no more, also after a restart, but is there still for a recovery round', async (t) => {
  const { open } = await emptyLog(t);
  const log = await open();
  for (const sequence of [1, 2, 3, 4]) await log.append(entry(sequence));
  await log.pending(0, 100);
  await log.release(3);
  assert.deepEqual(sequences(await log.pending(0, 100)), [4]);
  await log.close();
  const again = await open();
  assert.deepEqual(sequences(await again.pending(0, 100)), [4]);
  assert.deepEqual(sequences(await again.entriesAfter(1, 100)), [2, 3, 4]);
  await again.close();
});

test('a change that was logged after the archive looked is not released with what it saw, though its sequence is lower', async (t) => {
  const { open } = await emptyLog(t);
  const log = await open();
  await log.append(entry(2));
  assert.deepEqual(sequences(await log.pending(0, 100)), [2]);
  await log.append(entry(1));
  await log.release(2);
  assert.deepEqual(sequences(await log.pending(0, 100)), [1]);
  await log.close();
  const again = await open();
  assert.deepEqual(sequences(await again.pending(0, 100)), [1]);
  await again.release(2);
  assert.deepEqual(sequences(await again.pending(0, 100)), []);
  await again.close();
});

test('a torn tail is cut at any byte: what was whole in front of it is there, and the log goes on', async (t) => {
  const { directory, open } = await emptyLog(t);
  const log = await open();
  for (const sequence of [1, 2, 3]) await log.append(entry(sequence, 'some text'));
  await log.close();
  const [name = ''] = fs.readdirSync(directory);
  const whole = fs.readFileSync(join(directory, name));
  const ends: number[] = [];
  for (let at = 0; ;) {
    const decoded = decodeLogRecord(whole, at, 'test');
    if (decoded === null) break;
    at = decoded.next;
    ends.push(at);
  }
  assert.equal(ends.at(-1), whole.byteLength);
  for (const cut of [0, 5, (ends[0] ?? 0) - 1, ends[0] ?? 0, (ends[1] ?? 0) + 3, (ends[2] ?? 0) + 8, (ends[3] ?? 0) - 1]) {
    for (const file of fs.readdirSync(directory)) fs.unlinkSync(join(directory, file));
    fs.writeFileSync(join(directory, name), whole.subarray(0, cut));
    const again = await open();
    const expected = ends.slice(1).filter((end) => end <= cut).length;
    assert.deepEqual(sequences(await again.pending(0, 100)), [1, 2, 3].slice(0, expected), `cut at ${cut}`);
    assert.equal(again.damage, null);
    await again.append(entry(9));
    await again.close();
    const last = await open();
    assert.deepEqual(sequences(await last.pending(3, 100)), [9]);
    await last.close();
  }
});

test('a flipped bit with whole records behind it is no torn tail: it is told, they count, and the log is not whole up to there', async (t) => {
  const { directory, open } = await emptyLog(t);
  const log = await open();
  for (const sequence of [1, 2, 3]) await log.append(entry(sequence, 'some text'));
  await log.close();
  const [name = ''] = fs.readdirSync(directory);
  const whole = fs.readFileSync(join(directory, name));
  const first = decodeLogRecord(whole, 0, 'test')?.next ?? 0;
  const second = decodeLogRecord(whole, first, 'test')?.next ?? 0;
  whole[second + 20] = (whole[second + 20] ?? 0) ^ 1;
  fs.writeFileSync(join(directory, name), whole);
  const again = await open();
  assert.deepEqual(sequences(await again.pending(0, 100)), [1, 3]);
  assert.match(again.damage ?? '', /damaged/);
  assert.equal(again.dropped, 2);
  await again.close();
});

test('old files go when all in them is on the backend and old enough; the log remembers up to where it is no longer whole', async (t) => {
  const { directory, open } = await emptyLog(t, { fileBytes: 1_000, keptMs: 0, keptFilesMin: 2 });
  const log = await open();
  for (let sequence = 1; sequence <= 40; sequence += 1) await log.append(entry(sequence, 'x'.repeat(100)));
  assert.ok(fs.readdirSync(directory).length > 6);
  await log.pending(0, 100);
  await log.release(20);
  assert.ok(log.dropped > 0 && log.dropped <= 20, `dropped up to ${log.dropped}`);
  assert.equal((await log.entriesAfter(log.dropped, 100))[0]?.sequence, log.dropped + 1, 'nothing is missing above');
  const { dropped } = log;
  await log.close();
  const again = await open();
  assert.equal(again.dropped, dropped);
  assert.deepEqual(sequences(await again.pending(0, 2)), [21, 22]);
  await again.release(40);
  assert.ok(fs.readdirSync(directory).length <= 4);
  await again.append(entry(41));
  assert.deepEqual(sequences(await again.pending(0, 10)), [41]);
  await again.close();
  const kept = await OutboxLog.open(COMPONENTS, directory, { ...OUTBOX_LOG_DEFAULTS, fileBytes: 1_000 });
  for (let sequence = 42; sequence <= 80; sequence += 1) await kept.append(entry(sequence, 'x'.repeat(100)));
  await kept.pending(0, 100);
  await kept.release(80);
  assert.equal((await kept.entriesAfter(41, 100)).length, 39, 'younger ones stay');
  await kept.close();
});

test('at its bound the log refuses changes, and takes them again when the backend has caught up', async (t) => {
  const { open } = await emptyLog(t, { fileBytes: 1_000, keptMs: 60_000, keptFilesMin: 1, bytesMax: 10_000 });
  const log = await open();
  let sequence = 0;
  const append = (): Promise<void> => log.append(entry((sequence += 1), 'x'.repeat(100)));
  await assert.rejects(
    async () => {
      for (;;) await append();
    },
    { code: 'registry-no-space' },
  );
  await log.pending(0, 1_000);
  await log.release(sequence);
  await append();
  await log.close();
});

test('after a failed sync nothing is written to that file any more, since nobody knows what is in it; the log goes on in another', async (t) => {
  const directory = join(await scratchFor(t, 'outbox'), 'log');
  let fail = false;
  const faulty = (file: DiskFile): DiskFile => ({
    path: file.path,
    size: () => file.size(),
    write: (offset, buffers, done) => file.write(offset, buffers, done),
    sync: (done) => (fail ? done(new Error('EIO')) : file.sync(done)),
    read: (offset, target, done) => file.read(offset, target, done),
    truncate: (size) => file.truncate(size),
    close: () => file.close(),
  });
  const disk = { ...nodeDisk, create: async (path: string) => faulty(await nodeDisk.create(path)) };
  const log = await OutboxLog.open({ disk, clock: systemClock }, directory);
  await log.append(entry(1));
  fail = true;
  await assert.rejects(log.append(entry(2)), /EIO/);
  assert.match(log.failure?.message ?? '', /EIO/);
  await assert.rejects(log.append(entry(3)), /EIO/);
  fail = false;
  const before = fs.readdirSync(directory).length;
  await log.append(entry(3));
  await log.append(entry(2));
  assert.ok(fs.readdirSync(directory).length > before);
  assert.equal(log.failure, null);
  await log.close();
  const again = await OutboxLog.open(COMPONENTS, directory);
  assert.deepEqual(sequences(await again.pending(0, 10)), [1, 2, 3]);
  await again.close();
});

test('a recovery round gets what is on its way to the disk, too: it will be acknowledged', async (t) => {
  const directory = join(await scratchFor(t, 'outbox'), 'log');
  const held: (() => void)[] = [];
  let holds = false;
  const slow = (file: DiskFile): DiskFile => ({
    path: file.path,
    size: () => file.size(),
    write: (offset, buffers, done) => file.write(offset, buffers, done),
    sync: (done) => (holds ? held.push(() => file.sync(done)) : file.sync(done)),
    read: (offset, target, done) => file.read(offset, target, done),
    truncate: (size) => file.truncate(size),
    close: () => file.close(),
  });
  const disk = { ...nodeDisk, create: async (path: string) => slow(await nodeDisk.create(path)) };
  const log = await OutboxLog.open({ disk, clock: systemClock }, directory);
  await log.append(entry(1));
  holds = true;
  const appended = log.append(entry(2));
  while (held.length === 0) await new Promise((resolve) => setImmediate(resolve));
  const behind = log.append(entry(3));
  const asked = log.entriesAfter(0, 10);
  holds = false;
  for (const go of held) go();
  assert.deepEqual(sequences(await asked), [1, 2, 3]);
  await Promise.all([appended, behind]);
  await log.close();
});

test('log records survive their encoding, and no bytes make the decoder fail otherwise than it may', () => {
  const fields = {
    generation: fc.integer({ min: 1, max: 2 ** 52 }),
    sequence: fc.integer({ min: 1, max: 2 ** 52 }),
    operationId: fc.option(fc.string({ unit: 'grapheme' })),
    verb: fc.string({ maxLength: 60 }),
    afterImage: fc.string({ unit: 'grapheme' }),
    outcome: fc.option(fc.string()),
  };
  const records = fc.record(fields, { noNullPrototype: true });
  fc.assert(
    fc.property(records, (given) => {
      const bytes = encodeLogRecord({ kind: 'entry', entry: given });
      assert.deepEqual(decodeLogRecord(bytes, 0, 'test'), { record: { kind: 'entry', entry: given }, next: bytes.byteLength });
      assert.equal(decodeLogRecord(bytes.subarray(0, bytes.byteLength - 1), 0, 'test'), null);
    }),
    { numRuns: 200 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (given) => {
      assert.equal(decodeLogRecord(Buffer.from(given), 0, 'test'), null);
    }),
    { numRuns: 500 },
  );
});
