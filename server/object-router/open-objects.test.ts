import assert from 'node:assert/strict';
import { test } from 'node:test';

import { StoreError } from '../../backends/object-store.ts';
import { VirtualClock } from '../../backends/virtual-clock.ts';
import type { Inode } from '../../registry/inode.ts';
import type { Namespace } from '../../registry/ports.ts';
import { ApplianceError } from '../core/errors.ts';
import type { FileId } from '../core/ids.ts';
import { type Logger, silentLogger } from '../core/logger.ts';
import type { DrivenObject, ObjectDriver } from './driver-port.ts';
import { GarbageSchedule } from './garbage-schedule.ts';
import { OpenObjects } from './open-objects.ts';

test('objects that could not be opened while the backend was away are opened some at a time when it is back, all of them', async () => {
  const clock = new VirtualClock();
  let away = true;
  let opening = 0;
  let openingMax = 0;
  const driver: ObjectDriver = {
    async open(inode) {
      opening += 1;
      openingMax = Math.max(openingMax, opening);
      await new Promise((resolve) => setImmediate(resolve));
      opening -= 1;
      if (away) throw new StoreError('retry', 'the backend is away');
      const quiet = { isClean: true, problem: null, garbageDueMs: null, observeTime: () => undefined };
      return { fileid: inode.fileid, ...quiet } as unknown as DrivenObject;
    },
    receive: () => Promise.reject(new Error('nothing moves here')),
  };
  const namespace = {
    inode: (fileid: FileId) => Promise.resolve({ fileid, ctime: { seconds: 0, nanoseconds: 0 } } as Inode),
  } as unknown as Namespace;
  const garbage = await GarbageSchedule.open({ read: () => Promise.resolve(null), write: () => Promise.resolve() }, silentLogger);
  const objects = new OpenObjects({ driver, namespace, garbage, clock, logger: silentLogger }, { fsid: 1n, handleOf: () => Buffer.alloc(0) });
  for (let fileid = 100; fileid < 150; fileid += 1) await assert.rejects(objects.open(fileid as FileId));
  away = false;
  openingMax = 0;
  clock.advance(600);
  objects.backendRecovered();
  for (let turn = 0; turn < 1000 && objects.count < 50; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(objects.count, 50);
  assert.ok(openingMax >= 2 && openingMax <= 4, `${openingMax} at a time`);
});

test('a hint of garbage of an object that went to another router, which a crash left behind, is dropped and no problem', async () => {
  const clock = new VirtualClock();
  let opens = 0;
  const driver: ObjectDriver = {
    open() {
      opens += 1;
      return Promise.reject(new ApplianceError('object-recovering', 'another router has writes of it', { retryable: true }));
    },
    receive: () => Promise.reject(new Error('nothing moves here')),
  };
  const namespace = {
    inode: (fileid: FileId) => Promise.resolve({ fileid, ctime: { seconds: 0, nanoseconds: 0 } } as Inode),
  } as unknown as Namespace;
  const hints = JSON.stringify({ version: 1, due: [[100, 0]] });
  const garbage = await GarbageSchedule.open({ read: () => Promise.resolve(hints), write: () => Promise.resolve() }, silentLogger);
  const objects = new OpenObjects({ driver, namespace, garbage, clock, logger: silentLogger }, { fsid: 1n, handleOf: () => Buffer.alloc(0) });
  for (let second = 0; second < 30; second += 1) {
    clock.advance(1000);
    for (let turn = 0; turn < 10; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(opens, 1);
  assert.deepEqual([...objects.problems()], []);
});

test('an object that could not be opened here and was taken over elsewhere is no problem of this router any more, and not tried for ever', async () => {
  const clock = new VirtualClock();
  let opens = 0;
  let isElsewhere = false;
  const driver: ObjectDriver = {
    open() {
      opens += 1;
      return Promise.reject(new ApplianceError('object-recovering', 'its writes are not here', { retryable: true }));
    },
    receive: () => Promise.reject(new Error('nothing moves here')),
  };
  const namespace = {
    inode: (fileid: FileId) => Promise.resolve({ fileid, ctime: { seconds: 0, nanoseconds: 0 } } as Inode),
  } as unknown as Namespace;
  const garbage = await GarbageSchedule.open({ read: () => Promise.resolve(null), write: () => Promise.resolve() }, silentLogger);
  const objects = new OpenObjects(
    { driver, namespace, garbage, clock, logger: silentLogger, isElsewhere: () => Promise.resolve(isElsewhere) },
    { fsid: 1n, handleOf: () => Buffer.alloc(0) },
  );
  const passSeconds = async (seconds: number): Promise<void> => {
    for (let second = 0; second < seconds; second += 1) {
      clock.advance(1000);
      for (let turn = 0; turn < 10; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    }
  };
  await assert.rejects(objects.open(100 as FileId), { code: 'object-recovering' });
  await passSeconds(30);
  assert.ok(opens >= 3, 'it is tried again');
  assert.deepEqual(
    [...objects.problems()].map(({ fileid }) => fileid),
    [100],
  );
  isElsewhere = true;
  await passSeconds(15);
  assert.deepEqual([...objects.problems()], []);
  assert.equal(objects.hasFailed(100), false);
  const before = opens;
  await passSeconds(60);
  assert.equal(opens, before);
});

test('a stop tells what could not be flushed or closed, and flushes the others', async () => {
  const told: string[] = [];
  const tell = (fields: object, message: string): void => void told.push(`${(fields as { fileid: number }).fileid} ${message}`);
  const logger: Logger = { ...silentLogger, warn: tell, error: tell };
  const flushed: number[] = [];
  const driver: ObjectDriver = {
    open: (inode) =>
      Promise.resolve({
        fileid: inode.fileid,
        isClean: false,
        problem: null,
        garbageDueMs: null,
        observeTime: () => undefined,
        flush() {
          if (inode.fileid < 140) return Promise.reject(new Error('the disk fails'));
          flushed.push(inode.fileid);
          return Promise.resolve();
        },
        close: () => (inode.fileid === 141 ? Promise.reject(new Error('the disk fails')) : Promise.resolve()),
      } as unknown as DrivenObject),
    receive: () => Promise.reject(new Error('nothing moves here')),
  };
  const namespace = {
    inode: (fileid: FileId) => Promise.resolve({ fileid, ctime: { seconds: 0, nanoseconds: 0 } } as Inode),
  } as unknown as Namespace;
  const garbage = await GarbageSchedule.open({ read: () => Promise.resolve(null), write: () => Promise.resolve() }, silentLogger);
  const clock = new VirtualClock();
  const objects = new OpenObjects({ driver, namespace, garbage, clock, logger }, { fsid: 1n, handleOf: () => Buffer.alloc(0) });
  for (let fileid = 100; fileid < 150; fileid += 1) await objects.open(fileid as FileId);
  await clock.run(objects.close(clock.monotonicMs() + 10_000));
  assert.equal(flushed.length, 10);
  assert.equal(told.filter((line) => line.includes('backend before the stop')).length, 40);
  assert.deepEqual(
    told.filter((line) => line.includes('closing')),
    ['141 closing an object at the stop failed'],
  );
});
