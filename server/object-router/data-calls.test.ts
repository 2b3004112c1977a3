import assert from 'node:assert/strict';
import { test } from 'node:test';

import { VirtualClock } from '../../backends/virtual-clock.ts';
import { ApplianceError } from '../core/errors.ts';
import { Stability, Status } from '../nfsd/file-system.ts';
import type { Caller } from '../nfsd/file-system.ts';
import { DataCalls } from './data-calls.ts';
import type { ServedObject } from './open-objects.ts';
import { Repetitions } from './repetitions.ts';
import type { RouterCore } from './router-core.ts';

const SETTINGS = { fileSizeMaxBytes: 2 ** 40, allWritesStable: false };
const RIGHTS = { uid: 0, gid: 0, gids: [] };

/** A file of 512 bytes that anybody may write, driven so. */
function servedBy(driven: object): ServedObject {
  return {
    unlinked: false,
    users: 0,
    changers: 0,
    inode: { type: 'file', mode: 0o666, uid: 0, gid: 0 },
    ownIo: { writes: 0 },
    driven: Object.defineProperties({ fileid: 100 }, Object.getOwnPropertyDescriptors(driven)),
    attributes: () => ({ sizeBytes: 512 }),
  } as unknown as ServedObject;
}

test('a WRITE that waited here until its object was given away is as old as it is: it may not begin elsewhere as if it had just come', async () => {
  const clock = new VirtualClock();
  clock.advance(1000);
  const arrivedMs = clock.monotonicMs();
  const held = Promise.withResolvers<{ kind: 'refused'; error: Error }>();
  const served = servedBy({ write: () => held.promise });
  let sinceMs = Number.NaN;
  const core = {
    clock,
    now: () => ({ seconds: 0, nanoseconds: 0 }),
    served: () => served,
    places: { cluster: { repetitions: new Repetitions(clock, 16) }, lease: { valid: true } },
    anywhere: (_handle: unknown, _everywhere: unknown, _open: boolean, startedMs: number) => {
      sinceMs = startedMs;
      return Promise.resolve(Status.JUKEBOX);
    },
  } as unknown as RouterCore;
  const calls = new DataCalls(core, SETTINGS);
  const caller = { uid: 0, gid: 0, gids: [], writeIdentity: () => undefined } as unknown as Caller;
  const answer = calls.write(caller, Buffer.alloc(8), 0, 512, [Buffer.alloc(512)], Stability.FILE_SYNC, null);
  clock.advance(20_000);
  held.resolve({ kind: 'refused', error: new ApplianceError('object-held', 'it is on its way to another router', { retryable: true }) });
  assert.equal((await answer)?.status, Status.JUKEBOX);
  assert.equal(sinceMs, arrivedMs);
});

test('a WRITE that is answered once more is known for as long again: a copy that was sent before that answer is not done over newer data', async () => {
  const clock = new VirtualClock();
  let written = 0;
  let repeated: Promise<void> | undefined;
  const served = servedBy({
    repeated: () => repeated,
    write: () => {
      written += 1;
      return Promise.resolve({ kind: 'changed', before: {}, stable: true });
    },
  });
  const core = {
    now: () => ({ seconds: 0, nanoseconds: 0 }),
    places: { cluster: { repetitions: new Repetitions(clock, 16) }, lease: { valid: true } },
  } as unknown as RouterCore;
  const calls = new DataCalls(core, SETTINGS);
  const write = async (xid: number): Promise<number | undefined> =>
    (await calls.writeServed(RIGHTS, served, 0, 512, [Buffer.alloc(512)], Stability.FILE_SYNC, Uint32Array.of(1, xid, 3, 4)))?.status;
  assert.equal(await write(1), Status.OK);
  // Its answer was lost. One copy is sent through a router that cannot reach us, another one comes through and is answered.
  clock.advance(25_000);
  assert.equal(await write(1), Status.OK);
  assert.equal(await write(2), Status.OK);
  clock.advance(24_000);
  assert.equal(await write(1), Status.OK);
  assert.equal(written, 2);
  // The object was clean: nobody may take it over who knows nothing of the copies.
  const confirming = Promise.withResolvers<void>();
  repeated = confirming.promise;
  let isAnswered = false;
  const answer = write(1).finally(() => {
    isAnswered = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual([isAnswered, served.users], [false, 1]);
  confirming.resolve();
  assert.equal(await answer, Status.OK);
  repeated = Promise.reject(new ApplianceError('fenced', 'it is another router’s', { retryable: true }));
  assert.equal(await write(1), undefined, 'it is looked for');
  assert.deepEqual([written, served.users], [2, 0]);
});

test('the answer to an UNSTABLE WRITE that is repeated has a verifier that no COMMIT has: what it wrote may be gone since, and only who was answered can tell', async () => {
  let verifier = Buffer.from('before..');
  const served = servedBy({
    repeated: () => undefined,
    write: (...[, , , stable]: readonly unknown[]) => Promise.resolve({ kind: 'changed', before: {}, stable }),
    commit: () => null,
    get verifier() {
      return verifier;
    },
  });
  const core = {
    now: () => ({ seconds: 0, nanoseconds: 0 }),
    places: { cluster: { repetitions: new Repetitions(new VirtualClock(), 16) }, lease: { valid: true } },
  } as unknown as RouterCore;
  const calls = new DataCalls(core, SETTINGS);
  const write = async (xid: number, stability: Stability): Promise<string> => {
    const answer = await calls.writeServed(RIGHTS, served, 0, 512, [Buffer.alloc(512)], stability, Uint32Array.of(1, xid, 3, 4));
    assert.ok(answer?.status === Status.OK && answer.committed === stability);
    return Buffer.from(answer.verifier).toString();
  };
  const commit = async (): Promise<string> => {
    const answer = await calls.commitServed(RIGHTS, served);
    assert.ok(answer?.status === Status.OK);
    return Buffer.from(answer.verifier).toString();
  };
  assert.equal(await write(1, Stability.UNSTABLE), await commit());
  assert.equal(await write(2, Stability.FILE_SYNC), 'before..');
  // Done and remembered, not answered; then the log had a fault and the process died, and what was not synced is gone.
  verifier = Buffer.from('renewed.');
  assert.notEqual(await write(1, Stability.UNSTABLE), await commit());
  assert.equal(await write(2, Stability.FILE_SYNC), 'renewed.');
});

test('a WRITE that was done is remembered also without a lease, and never answered then', async () => {
  const clock = new VirtualClock();
  const repetitions = new Repetitions(clock, 16);
  const served = servedBy({ write: () => Promise.resolve({ kind: 'changed', before: {}, stable: true }) });
  let isLeft = false;
  const never = Promise.withResolvers<never>();
  const places = {
    cluster: { repetitions },
    lease: { valid: false },
    noAnswer: () => {
      isLeft = true;
      return never.promise;
    },
  };
  const core = { now: () => ({ seconds: 0, nanoseconds: 0 }), places } as unknown as RouterCore;
  const calls = new DataCalls(core, SETTINGS);
  const call = Uint32Array.of(1, 2, 3, 4);
  void calls.writeServed(RIGHTS, served, 0, 512, [Buffer.alloc(512)], Stability.FILE_SYNC, call);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual([isLeft, repetitions.isDone(100, call)], [true, true]);
});

test('a READ that ends without a lease is not answered: another router may have newer data', async () => {
  const bytes = Promise.withResolvers<number>();
  const served = servedBy({ read: () => bytes.promise });
  const lease = { valid: true };
  const core = { places: { cluster: null, lease } } as unknown as RouterCore;
  const calls = new DataCalls(core, SETTINGS);
  const read = async (): Promise<Status | undefined> => (await calls.readServed(RIGHTS, served, 0, Buffer.alloc(512)))?.status;
  const inTime = read();
  bytes.resolve(512);
  assert.equal(await inTime, Status.OK);
  const late = read();
  lease.valid = false;
  assert.equal(await late, Status.JUKEBOX);
  assert.equal(served.users, 0);
});
