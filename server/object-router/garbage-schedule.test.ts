import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { FileId } from '../core/ids.ts';
import { silentLogger } from '../core/logger.ts';
import { GarbageSchedule } from './garbage-schedule.ts';
import type { HintFile } from './garbage-schedule.ts';

function memoryFile(text: string | null): HintFile & { text: string | null; writes: number } {
  return {
    text,
    writes: 0,
    async read() {
      return this.text;
    },
    async write(next) {
      this.text = next;
      this.writes += 1;
    },
  };
}

const a = 100 as FileId;
const b = 101 as FileId;

test('an object is due from its time on, also after a restart', async () => {
  const file = memoryFile(null);
  const schedule = await GarbageSchedule.open(file, silentLogger);
  schedule.note(a, 1000);
  schedule.note(b, 2000);
  assert.deepEqual(schedule.dueAt(999, 10), []);
  await schedule.save();
  const again = await GarbageSchedule.open(file, silentLogger);
  assert.deepEqual(again.dueAt(1000, 10), [a]);
  assert.deepEqual(again.dueAt(5000, 10), [a, b]);
  assert.deepEqual(again.dueAt(5000, 1), [a]);
});

test('what has nothing to delete any more is forgotten; the file is written only when something changed', async () => {
  const file = memoryFile(null);
  const schedule = await GarbageSchedule.open(file, silentLogger);
  await schedule.save();
  assert.equal(file.writes, 0);
  schedule.note(a, 1000);
  await schedule.save();
  schedule.note(a, 1000);
  await schedule.save();
  assert.equal(file.writes, 1);
  schedule.note(a, null);
  await schedule.save();
  assert.equal(file.writes, 2);
  assert.deepEqual((await GarbageSchedule.open(file, silentLogger)).dueAt(9999, 10), []);
});

test('a damaged file of hints is ignored', async () => {
  for (const text of ['', '{', '[]', '{"version":1,"due":[[0,1]]}', '{"version":2,"due":[]}', '{"version":1,"due":[["x",1]]}']) {
    const schedule = await GarbageSchedule.open(memoryFile(text), silentLogger);
    assert.deepEqual(schedule.dueAt(Infinity, 10), [], text);
  }
});

test('a write that fails is tried again', async () => {
  const file = memoryFile(null);
  let failing = true;
  const schedule = await GarbageSchedule.open(
    {
      read: () => file.read(),
      async write(text) {
        if (failing) throw new Error('no space');
        await file.write(text);
      },
    },
    silentLogger,
  );
  schedule.note(a, 1);
  await schedule.save();
  assert.equal(file.text, null);
  failing = false;
  await schedule.save();
  assert.notEqual(file.text, null);
});
