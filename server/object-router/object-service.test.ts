import assert from 'node:assert/strict';
import { test } from 'node:test';

import { VirtualClock } from '../../backends/virtual-clock.ts';
import type { Inode } from '../../registry/inode.ts';
import type { Namespace, OwnerRecord } from '../../registry/ports.ts';
import { ApplianceError } from '../core/errors.ts';
import type { FileId, Incarnation, RouterId, Term } from '../core/ids.ts';
import { silentLogger } from '../core/logger.ts';
import { Stability, Status } from '../nfsd/file-system.ts';
import type { AttributeCalls } from './attribute-calls.ts';
import type { DataCalls } from './data-calls.ts';
import type { DrivenObject, ObjectDriver } from './driver-port.ts';
import { GarbageSchedule } from './garbage-schedule.ts';
import { ObjectService } from './object-service.ts';
import { OpenObjects } from './open-objects.ts';
import type { OwnedRecords } from './owned-records.ts';
import { OwnerCache } from './owner-cache.ts';
import { Repetitions } from './repetitions.ts';
import type { RouterCore } from './router-core.ts';
import { RouterMoveHost } from './router-move-host.ts';

const DISK = 100 as FileId;
const SELF = { router: 'b'.repeat(32) as RouterId, incarnation: '1'.repeat(32) as Incarnation };
const OWNER = { fileid: DISK, router: SELF.router, incarnation: SELF.incarnation } as OwnerRecord;

function inodeOf(mode: number, ctime: number): Inode {
  return { fileid: DISK, inodeGeneration: 7, mode, ctime: { seconds: ctime, nanoseconds: 0 } } as Inode;
}

const DRIVEN = {
  fileid: DISK,
  observeTime: () => undefined,
  isClean: true,
  garbageDueMs: null,
  close: () => Promise.resolve(),
} as unknown as DrivenObject;

/** A router at which an object arrives: held, and not served yet. */
async function arriving() {
  const clock = new VirtualClock();
  const registry: { inode: Inode | null; isAway: boolean } = { inode: inodeOf(0o644, 1), isAway: false };
  const namespace = {
    inode: () => {
      if (registry.isAway) return Promise.reject(new ApplianceError('registry-unavailable', 'it is away', { retryable: true }));
      return Promise.resolve(registry.inode);
    },
  } as unknown as Namespace;
  const garbage = await GarbageSchedule.open({ read: () => Promise.resolve(null), write: () => Promise.resolve() }, silentLogger);
  const objects = new OpenObjects(
    { driver: {} as ObjectDriver, namespace, garbage, clock, logger: silentLogger },
    { fsid: 1n, handleOf: () => Buffer.alloc(0) },
  );
  const service = new ObjectService(
    {
      core: {
        objects,
        clock,
        registry: { namespace },
        places: {
          lease: { valid: true },
          find: async () => {
            await objects.held(DISK);
            return { kind: 'here', served: objects.get(DISK) };
          },
        },
      } as unknown as RouterCore,
      data: { writeServed: () => ({ status: Status.OK }), readServed: () => ({ status: Status.OK }) } as unknown as DataCalls,
      attributes: {} as AttributeCalls,
    },
    SELF,
  );
  const host = new RouterMoveHost({
    namespace,
    objects,
    owners: new OwnerCache(),
    repetitions: new Repetitions(clock, 16),
    records: { received: () => undefined } as unknown as OwnedRecords,
    clock,
    logger: silentLogger,
  });
  return { clock, registry, objects, service, host };
}

async function turns(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

for (const change of ['removal', 'change of mode'] as const) {
  test(`a ${change} of an object that is just arriving is answered when the object is served and shows it`, async () => {
    const { registry, objects, service } = await arriving();
    const release = objects.hold(DISK);
    const known = registry.inode as Inode;
    registry.inode = change === 'removal' ? null : inodeOf(0o600, 2);
    let isAnswered = false;
    const answered = service.inodeChanged(DISK).then(() => {
      isAnswered = true;
    });
    await turns();
    assert.equal(isAnswered, false);
    // As the receiver does: with what the registry said a moment before.
    const served = objects.adopt(DRIVEN, known);
    release();
    await answered;
    assert.deepEqual([served.unlinked, served.inode.mode], change === 'removal' ? [true, 0o644] : [false, 0o600]);
  });

  test(`a ${change} that only the router was told from which an object came is asked for when it has arrived, as soon as the registry answers`, async () => {
    const { clock, registry, objects, host } = await arriving();
    const known = registry.inode as Inode;
    registry.inode = change === 'removal' ? null : inodeOf(0o600, 2);
    registry.isAway = true;
    host.adopt(DRIVEN, known, OWNER);
    const served = objects.get(DISK);
    assert.ok(served !== undefined);
    await turns();
    assert.deepEqual([served.unlinked, served.inode], [false, known]);
    registry.isAway = false;
    await clock.run(clock.sleep(1000));
    assert.deepEqual([served.unlinked, served.inode.mode], change === 'removal' ? [true, 0o644] : [false, 0o600]);
  });
}

test('what is sent to an owner is executed in the term that it was sent to, and in no later one of the same router', async () => {
  const { registry, objects, service } = await arriving();
  const term = (counter: number): Term => ({ generation: 1, counter, nonce: 'ab'.repeat(8) });
  objects.adopt({ ...DRIVEN, term: term(7) }, registry.inode as Inode);
  const caller = { uid: 0, gid: 0, gids: [], address: '10.0.0.1', operationId: 'c|1' };
  const write = (counter: number) =>
    service.write({ fileid: DISK, inodeGeneration: 7, term: term(counter) }, caller, 0, 4, [Buffer.alloc(4)], Stability.FILE_SYNC);
  assert.equal((await write(7)).kind, 'done');
  // It was here in term 5, was given away, and came back: who still writes to term 5 may have been overtaken by what was written elsewhere.
  assert.deepEqual(await write(5), { kind: 'not-owner', hint: { ...SELF, term: term(7) } });
});

for (const { waitedMs, kind } of [
  { waitedMs: 50, kind: 'done' },
  { waitedMs: 1500, kind: 'not-owner' },
] as const) {
  test(`what meets a new owner in the moment of its activation is ${kind === 'done' ? 'done there, not sent once more' : 'sent again if that took long'}`, async () => {
    const { clock, registry, objects, service } = await arriving();
    const release = objects.hold(DISK);
    const term: Term = { generation: 1, counter: 7, nonce: 'ab'.repeat(8) };
    const target = { fileid: DISK, inodeGeneration: 7, term };
    const caller = { uid: 0, gid: 0, gids: [], address: '10.0.0.1', operationId: 'c|1' };
    const written = service.write(target, caller, 0, 4, [Buffer.alloc(4)], Stability.FILE_SYNC);
    const read = service.read(target, caller, 0, Buffer.alloc(4));
    const older = service.read({ ...target, term: { ...term, counter: 5 } }, caller, 0, Buffer.alloc(4));
    await clock.run(clock.sleep(waitedMs));
    const served = objects.adopt({ ...DRIVEN, term }, registry.inode as Inode);
    release();
    assert.deepEqual([(await written).kind, (await read).kind, (await older).kind], [kind, kind, 'not-owner']);
    const count = kind === 'done' ? 1 : 0;
    assert.deepEqual([served.peerIo.reads, served.peerIo.writes], [count, count]);
  });
}
