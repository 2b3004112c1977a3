/** Histories that went wrong once, one by one; random ones are in crash-simulation.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { seededRandom } from '../../backends/virtual-clock.ts';
import type { DiskFile } from '../core/disk.ts';
import { type Logger, silentLogger } from '../core/logger.ts';
import { FaultyDisk } from '../object-log/testing/faulty-disk.ts';
import type { DrivenObject, ObjectChange } from '../object-router/driver-port.ts';
import { MemoryDisk, openPool, readerOf } from './extent-map.fixture.ts';
import { openCheckpoint } from './open-checkpoint.ts';
import { countingRowIds } from './segment-table.ts';
import { SimulatedRouter, SimulatedWorld } from './testing/simulated-router.ts';
import type { SimulationSettings } from './testing/simulated-router.ts';

const KIB = 1024;
const BLOCK = 4096;
const NOW = { seconds: 1_700_000_000, nanoseconds: 0 };
const SETTINGS: SimulationSettings = {
  segmentBytes: 64 * KIB,
  segmentFileBytes: 80 * KIB,
  checkpointAfterBytes: 1024 * KIB,
  dirtyBytesMax: 64 * 1024 * KIB,
  cacheBytes: 0,
  graceTimeMs: 0,
  recycle: true,
};

interface Life {
  readonly world: SimulatedWorld;
  readonly router: SimulatedRouter;
  readonly object: DrivenObject;
  run<T>(promise: PromiseLike<T> | T): Promise<T>;
  write(offsetBytes: number, fill: number, countBytes?: number, stable?: boolean): Promise<ObjectChange>;
  turns(count: number): Promise<void>;
}

async function start(world?: SimulatedWorld, settings: Partial<SimulationSettings> = {}, logger: Logger = silentLogger): Promise<Life> {
  const random = seededRandom(7);
  const at = world ?? new SimulatedWorld(new FaultyDisk(random), random, 'volume');
  const router = await SimulatedRouter.start(at, { ...SETTINGS, ...settings }, logger);
  const run = <T>(promise: PromiseLike<T> | T): Promise<T> => router.clock.run(Promise.resolve(promise));
  const object = await run(router.driver.open(at.inode));
  return {
    world: at,
    router,
    object,
    run,
    write: (offsetBytes, fill, countBytes = BLOCK, stable = true) =>
      object.write(offsetBytes, countBytes, [Buffer.alloc(countBytes, fill)], stable, NOW),
    turns: async (count) => {
      for (let turn = 0; turn < count; turn += 1) await router.clock.turn();
    },
  };
}

/** The machine loses power, and starts again. */
async function powerCut(life: Life): Promise<Life> {
  life.router.kill();
  life.world.disk.setFaults({});
  life.world.disk.powerCut();
  return start(life.world);
}

async function read(life: Life, offsetBytes: number, countBytes = BLOCK): Promise<Buffer> {
  const target = Buffer.alloc(countBytes, 0xee);
  return target.subarray(0, await life.run(life.object.read(offsetBytes, target)));
}

function accepted(change: ObjectChange): void {
  assert.equal(change.kind, 'changed', change.kind === 'refused' ? String(change.error) : '');
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

test('a COMMIT that comes while another is under way is not answered before that one', async () => {
  const life = await start();
  accepted(await life.run(life.write(0, 1, BLOCK, false)));
  accepted(await life.run(life.write(BLOCK, 2, BLOCK, false)));
  const first = life.object.commit(NOW);
  const second = life.object.commit(NOW);
  let answered = false;
  void Promise.resolve(second).then(() => (answered = true));
  await Promise.resolve();
  assert.ok(!answered, 'nothing was synced yet');
  assert.equal(await life.run(first), null);
  assert.equal(await life.run(second), null);
});

test('the size does not keep what a refused write would have added', async () => {
  const life = await start();
  accepted(await life.run(life.write(0, 1)));
  life.world.disk.setFaults({ syncError: 1 });
  assert.equal((await life.run(life.write(100 * BLOCK, 2))).kind, 'refused');
  life.world.disk.setFaults({});
  await life.run(life.router.clock.sleep(3000));
  accepted(await life.run(life.write(BLOCK, 3)));
  assert.equal(life.object.attributes().sizeBytes, 2 * BLOCK);
});

test('after a fault that lost the first UNSTABLE write, the next one is seen by a recovery as the first', async () => {
  let life = await start();
  accepted(await life.run(life.write(0, 1)));
  life.world.disk.setFaults({ syncError: 1 });
  assert.equal((await life.run(life.write(BLOCK, 2, BLOCK, false))).kind, 'refused');
  life.world.disk.setFaults({});
  await life.run(life.router.clock.sleep(3000));
  accepted(await life.run(life.write(BLOCK, 3, BLOCK, false)));
  accepted(await life.run(life.write(2 * BLOCK, 4, BLOCK, false)));
  const verifier = hex(life.object.verifier);
  life = await powerCut(life);
  // The last write was never synced: gone or not, the client must learn that it may be.
  assert.notEqual(hex(life.object.verifier), verifier);
});

test('data answered UNSTABLE survives fault after fault, and is never shown in an older state', async () => {
  let life = await start();
  accepted(await life.run(life.write(0, 1)));
  accepted(await life.run(life.write(0, 2, BLOCK, false)));
  for (let fill = 3; fill < 9; fill += 1) accepted(await life.run(life.write(0, fill, BLOCK, false)));
  const verifier = hex(life.object.verifier);
  life.world.disk.setFaults({ syncError: 1 });
  assert.notEqual(await life.run(life.object.commit(NOW)), null);
  for (let turn = 0; turn < 400; turn += 1) {
    await life.turns(1);
    if (turn % 40 === 0) {
      const bytes = await read(life, 0);
      assert.ok(
        bytes.every((byte) => byte === 8),
        `block 0 is ${bytes[0]}`,
      );
    }
  }
  life.world.disk.setFaults({});
  await life.run(life.router.clock.sleep(5000));
  assert.equal(life.object.problem, null);
  assert.notEqual(hex(life.object.verifier), verifier);
  assert.equal(await life.run(life.object.commit(NOW)), null);
  life = await powerCut(life);
  assert.ok((await read(life, 0)).every((byte) => byte === 8));
});

test('a fault with more UNSTABLE data on more pages than the pool has frames ends', async () => {
  const life = await start(undefined, { segmentBytes: 1024 * KIB, segmentFileBytes: 1200 * KIB });
  for (let page = 0; page < 60; page += 1) accepted(await life.run(life.write(page * 1024 * BLOCK, 1 + page, BLOCK, false)));
  life.world.disk.setFaults({ syncError: 1 });
  assert.notEqual(await life.run(life.object.commit(NOW)), null);
  life.world.disk.setFaults({});
  await life.run(life.router.clock.sleep(5000));
  assert.equal(life.object.problem, null);
  assert.equal(await life.run(life.object.commit(NOW)), null);
  for (let page = 0; page < 60; page += 1) assert.equal((await read(life, page * 1024 * BLOCK))[0], 1 + page);
  assert.equal(life.router.pool.stats.unitsFree, life.router.pool.framesMax);
});

test('a fault while the next segment is awaited leaves no hole in the numbers: everything is uploaded in the end', async () => {
  const life = await start();
  for (let round = 0; round < 12; round += 1) {
    life.world.disk.setFaults({ syncError: round % 3 === 0 ? 0.5 : 0 });
    const writes = Array.from({ length: 20 }, (_, index) => life.write(index * 16 * BLOCK, round + 1, 15 * BLOCK));
    await life.run(Promise.all(writes));
  }
  life.world.disk.setFaults({});
  for (let second = 0; second < 120 && !life.object.isClean; second += 1) {
    life.object.tick();
    await life.run(life.router.clock.sleep(1000));
  }
  assert.ok(life.object.isClean, String(life.object.problem));
  assert.equal(life.router.files.dirtyBytes, 0);
});

test('an object that had a fault and nothing to write again becomes clean without another write', async () => {
  const life = await start();
  accepted(await life.run(life.write(0, 1)));
  life.world.disk.setFaults({ syncError: 1 });
  assert.equal((await life.run(life.write(0, 2))).kind, 'refused');
  life.world.disk.setFaults({});
  for (let second = 0; second < 60 && !life.object.isClean; second += 1) {
    life.object.tick();
    await life.run(life.router.clock.sleep(1000));
  }
  assert.ok(life.object.isClean, String(life.object.problem));
});

test('an object closes although a fault keeps its log from going on', async () => {
  const life = await start();
  accepted(await life.run(life.write(0, 1)));
  life.world.disk.setFaults({ syncError: 1, writeError: 1, metadataError: 1 });
  assert.equal((await life.run(life.write(0, 2))).kind, 'refused');
  await life.router.clock.run(life.object.close(), 5000);
  const refused = await life.run(life.write(0, 3));
  assert.equal(refused.kind, 'refused');
  const after = await powerCut(life);
  assert.equal((await read(after, 0))[0], 1);
});

test('the change that makes an object clean tells size and times itself: what was told before may be forgotten between the two', async () => {
  const life = await start();
  life.world.commons.forgetsCopies = true;
  accepted(await life.run(life.write(0, 1, 3 * BLOCK)));
  for (let second = 0; second < 60 && life.world.owner?.protection.kind !== 'clean'; second += 1) {
    life.object.tick();
    await life.run(life.router.clock.sleep(1000));
  }
  assert.equal(life.world.owner?.protection.kind, 'clean');
  assert.deepEqual([life.world.inode.sizeBytes, life.world.inode.mtime], [3 * BLOCK, life.object.attributes().mtime]);
});

test('a write that waits for its pages while the object becomes clean is not acknowledged as clean', async () => {
  const life = await start();
  accepted(await life.run(life.write(0, 1)));
  for (let second = 0; second < 60 && !life.object.isClean; second += 1) {
    life.object.tick();
    await life.run(life.router.clock.sleep(1000));
  }
  assert.equal(life.world.owner?.protection.kind, 'clean');
  // An unaligned write on a page that has to be loaded: it waits between being admitted and being appended, and ticks go on meanwhile.
  const protections: (string | undefined)[] = [];
  const writes = Array.from({ length: 40 }, async (_, index) => {
    await life.turns(index * 5);
    accepted(await life.write((index + 1) * 1024 * BLOCK + 100, 7, 50));
    protections.push(life.world.owner?.protection.kind);
  });
  let ended = false;
  const all = Promise.all(writes).finally(() => (ended = true));
  while (!ended) {
    life.object.tick();
    await life.turns(1);
  }
  await all;
  assert.deepEqual(new Set(protections), new Set(['unprotected']));
  assert.equal(protections.length, 40);
});

test('a segment is sealed and a checkpoint made while writes never pause', async () => {
  const life = await start(undefined, { checkpointAfterBytes: 64 * KIB });
  let stop = false;
  const writer = async (lane: number): Promise<void> => {
    for (let round = 0; !stop; round += 1) accepted(await life.write((lane * 8 + (round % 8)) * BLOCK, 1 + (round % 200)));
  };
  const writers = Array.from({ length: 16 }, (_, lane) => writer(lane));
  for (let turn = 0; turn < 6000 && (life.world.owner?.root.checkpoint ?? null) === null; turn += 1) await life.turns(1);
  stop = true;
  await life.run(Promise.all(writers));
  assert.notEqual(life.world.owner?.root.checkpoint ?? null, null, 'no checkpoint under load');
});

test('a segment that is sealed before the one in front of it is not forgotten: its records are answered', async () => {
  const random = seededRandom(7);
  const disk = new FaultyDisk(random);
  const process = disk.process.bind(disk);
  let first: string | null = null;
  const held: (() => void)[] = [];
  let holds = false;
  disk.process = (nextTurn) => {
    const inner = process(nextTurn);
    const slow = (path: string, file: DiskFile): DiskFile => {
      if (path.startsWith('/vpool/log/')) first ??= path;
      return {
        ...file,
        sync: (done) => {
          file.sync((error) => {
            if (path === first && holds) held.push(() => done(error));
            else done(error);
          });
        },
      };
    };
    return {
      ...inner,
      create: async (path) => slow(path, await inner.create(path)),
      open: async (path, writable) => slow(path, await inner.open(path, writable)),
    };
  };
  const life = await start(new SimulatedWorld(disk, random, 'volume'));
  holds = true;
  const first16 = life.write(0, 1, 16 * BLOCK);
  await life.turns(20);
  let answered = false;
  const behind = life.write(0, 2).then((change) => {
    answered = true;
    return change;
  });
  await life.turns(100);
  const flushed = life.object.flush(life.router.clock.monotonicMs() + 5000);
  await life.turns(200);
  assert.equal(held.length, 1, 'the sync of the first segment takes long');
  assert.equal(answered, false);
  holds = false;
  held[0]?.();
  accepted(await life.run(first16));
  accepted(await life.run(behind));
  await life.run(flushed);
  assert.equal((await read(life, 0))[0], 2);
});

test('what only the page cache had is durable before a recovery tells of it', async () => {
  let life = await start();
  accepted(await life.run(life.write(0, 1)));
  accepted(await life.run(life.write(0, 2, BLOCK, false)));
  accepted(await life.run(life.write(BLOCK, 3, BLOCK, false)));
  // The process is killed: the kernel still has everything.
  life.router.kill();
  life = await start(life.world);
  const before = [(await read(life, 0))[0], (await read(life, BLOCK))[0]];
  assert.deepEqual(before, [2, 3]);
  life = await powerCut(life);
  assert.deepEqual([(await read(life, 0))[0], (await read(life, BLOCK))[0]], before);
});

test('a shrink whose blocks cannot be dropped at once never shows them again', async () => {
  let life = await start();
  for (let page = 0; page < 40; page += 1) accepted(await life.run(life.write(page * 1024 * BLOCK, 9)));
  for (let second = 0; second < 60 && !life.object.isClean; second += 1) {
    life.object.tick();
    await life.run(life.router.clock.sleep(1000));
  }
  await life.run(life.object.close());
  life.router.kill();
  // Pages now come from the backend, which is away.
  life = await start(life.world);
  life.router.store.setFaults({ failBefore: 1 });
  accepted(await life.run(life.object.setAttributes({ sizeBytes: BLOCK, atime: null, mtime: null }, NOW)));
  const grown = await life.run(life.object.setAttributes({ sizeBytes: 40 * 1024 * BLOCK, atime: null, mtime: null }, NOW));
  if (grown.kind === 'changed')
    for (let page = 1; page < 40; page += 1) assert.ok((await read(life, page * 1024 * BLOCK)).every((byte) => byte === 0));
  life.router.store.setFaults({});
  accepted(await life.run(life.object.setAttributes({ sizeBytes: 40 * 1024 * BLOCK, atime: null, mtime: null }, NOW)));
  for (let page = 1; page < 40; page += 1)
    assert.ok(
      (await read(life, page * 1024 * BLOCK)).every((byte) => byte === 0),
      `page ${page}`,
    );
});

test('a shrink that drops its blocks for long is known as done before it is answered: by then its log may be sealed, which names no calls', async () => {
  let life = await start();
  for (let page = 0; page < 40; page += 1) accepted(await life.run(life.write(page * 1024 * BLOCK, 9)));
  for (let second = 0; second < 60 && !life.object.isClean; second += 1) {
    life.object.tick();
    await life.run(life.router.clock.sleep(1000));
  }
  await life.run(life.object.close());
  life.router.kill();
  life = await start(life.world);
  life.router.store.setFaults({ failBefore: 1 });
  let answered = false;
  const shrinking = life.object
    .setAttributes({ sizeBytes: BLOCK, atime: null, mtime: null }, NOW, Uint32Array.of(77, 0, 0, 0))
    .finally(() => (answered = true));
  const { recoveredCalls } = life.world.commons;
  for (let turn = 0; turn < 10_000 && !recoveredCalls.has(77) && !answered; turn += 1) await life.router.clock.turn();
  assert.ok(recoveredCalls.has(77) && !answered);
  accepted(await life.run(shrinking));
});

test('after a power cut, which takes the memory of completed calls, a recovery tells of those in sealed segments, too', async () => {
  // What is sealed is cut to its size.
  let life = await start(undefined, { segmentFileBytes: 4096 * KIB });
  life.router.store.setFaults({ failBefore: 1 });
  const { commons } = life.world;
  const count = 60;
  for (let call = 1; call <= count; call += 1)
    accepted(await life.run(life.object.write(0, BLOCK, [Buffer.alloc(BLOCK, call)], true, NOW, Uint32Array.of(call, 0, 0, 0))));
  assert.equal(commons.recoveredCalls.size, 0);
  life.router.kill();
  life = await start(life.world);
  assert.ok(commons.recoveredCalls.size < count / 2, 'those that were answered somebody remembers');
  commons.isMemoryLost = true;
  life = await powerCut(life);
  assert.deepEqual(
    [...commons.recoveredCalls].toSorted((a, b) => a - b),
    Array.from({ length: count }, (_, index) => index + 1),
  );
  assert.equal((await read(life, 0))[0], count);
});

test('of a segment that is on the backend only a recovery reads back the calls, too, also if it is evicted just then', async () => {
  const settings = { segmentFileBytes: 4096 * KIB, cacheBytes: 4096 * KIB, checkpointAfterBytes: 4096 * KIB };
  const life = await start(undefined, settings);
  const { commons } = life.world;
  for (let call = 1; call <= 40; call += 1)
    accepted(await life.run(life.object.write(0, BLOCK, [Buffer.alloc(BLOCK, call)], true, NOW, Uint32Array.of(call, 0, 0, 0))));
  await life.run(life.router.clock.sleep(600));
  assert.ok(life.router.files.cacheBytes > 0, 'sealed segments are on the backend, and no checkpoint covers them');
  life.router.kill();
  commons.isMemoryLost = true;
  const router = await SimulatedRouter.start(life.world, { ...SETTINGS, ...settings }, silentLogger);
  const { files } = router;
  const keep = files.keep.bind(files);
  let evicted = 0;
  // Called for what is not on the backend, when the end of the log is known.
  files.keep = async (segment) => {
    for (const cached of files.segmentsOf(segment.uuid).filter(({ place }) => place === 'cache')) {
      await files.drop(cached);
      evicted += 1;
    }
    await keep(segment);
  };
  const object = await router.clock.run(router.driver.open(life.world.inode));
  assert.ok(evicted > 0);
  const target = Buffer.alloc(BLOCK);
  assert.equal(await router.clock.run(Promise.resolve(object.read(0, target))), BLOCK);
  assert.equal(target[0], 40);
  assert.deepEqual(
    [...commons.recoveredCalls].toSorted((a, b) => a - b),
    Array.from({ length: 40 }, (_, index) => index + 1),
  );
});

test('no checkpoint is published before the calls in it are said to outlive a power cut', async () => {
  const life = await start(undefined, { checkpointAfterBytes: 256 * KIB });
  const { commons } = life.world;
  const gate = Promise.withResolvers<void>();
  let kept = 0;
  commons.keepCalls = async (durable) => {
    await durable();
    kept += 1;
    await gate.promise;
  };
  for (let block = 1; block < 100; block += 1) accepted(await life.run(life.write(block * BLOCK, block)));
  await life.run(life.router.clock.sleep(5000));
  assert.deepEqual([kept, commons.owner?.root.checkpoint], [1, null]);
  gate.resolve();
  await life.run(life.router.clock.sleep(5000));
  assert.equal(typeof commons.owner?.root.checkpoint, 'string');
});

test('what was written before the calls of a checkpoint are kept is durable when they are said to be, also what nobody wants durable', async () => {
  const life = await start(undefined, { checkpointAfterBytes: 256 * KIB });
  let written = 0;
  let durable = 0;
  life.world.commons.keepCalls = async (makeDurable) => {
    const until = written;
    await makeDurable();
    durable = until;
    await new Promise(() => undefined);
  };
  while (durable === 0 && written < 500) {
    accepted(await life.run(life.write((written + 1) * BLOCK, written + 1, BLOCK, false)));
    written += 1;
  }
  assert.ok(durable > 64);
  const next = await powerCut(life);
  for (let block = 1; block <= durable; block += 1) assert.equal((await read(next, block * BLOCK))[0], block & 0xff);
});

test('a checkpoint whose calls cannot be kept because of the log is made anew', async () => {
  const life = await start(undefined, { checkpointAfterBytes: 256 * KIB });
  const { commons } = life.world;
  let asked = 0;
  commons.keepCalls = (durable) => {
    asked += 1;
    return asked === 1 ? Promise.reject(new Error('told to')) : durable();
  };
  for (let block = 1; block < 100; block += 1) accepted(await life.run(life.write(block * BLOCK, block)));
  for (let second = 0; second < 30 && commons.owner?.root.checkpoint === null; second += 1) {
    life.object.tick();
    await life.run(life.router.clock.sleep(1000));
  }
  assert.ok(asked > 1 && typeof commons.owner?.root.checkpoint === 'string');
});

test('while the backend is away writes go on up to the bound, wait there, and go on when it is back', async () => {
  const life = await start(undefined, { dirtyBytesMax: 512 * KIB });
  life.router.store.setFaults({ failBefore: 1 });
  let outcomes = '';
  for (let round = 0; round < 12; round += 1) {
    const change = await life.run(life.write((round % 4) * 16 * BLOCK, 1 + round, 16 * BLOCK));
    outcomes += change.kind === 'changed' ? '+' : '-';
    life.object.tick();
  }
  assert.match(outcomes, /^\+{6,}[-+]*--$/, 'accepted up to the bound, slower and slower, then asked to come back');
  assert.ok(life.router.files.dirtyBytes < 640 * KIB, String(life.router.files.dirtyBytes));
  assert.notEqual(life.object.problem, null);
  // Minutes later it is back; nobody has to do anything.
  await life.run(life.router.clock.sleep(300_000));
  life.router.store.setFaults({});
  const waiting = life.write(0, 99, 16 * BLOCK);
  for (let second = 0; second < 60; second += 1) {
    life.object.tick();
    await life.run(life.router.clock.sleep(1000));
  }
  accepted(await life.run(waiting));
  assert.equal(life.object.problem, null);
  assert.equal((await read(life, 0))[0], 99);
});

test('an outage is one line of the log for an object, however long it lasts; what waited goes up when it is told that it is over', async () => {
  const lines: string[] = [];
  const logger: Logger = { ...silentLogger, warn: (_fields, message) => void lines.push(message), child: () => logger };
  const life = await start(undefined, {}, logger);
  life.router.store.setFaults({ failBefore: 1 });
  accepted(await life.run(life.write(0, 1)));
  for (let second = 0; second < 120; second += 1) {
    life.object.tick();
    await life.run(life.router.clock.sleep(1000));
  }
  assert.notEqual(life.object.problem, null);
  assert.deepEqual(lines, ['the backend does not take this object at the moment; its data stays on the local disk']);
  life.router.store.setFaults({});
  life.object.backendRecovered();
  await life.run(life.router.clock.sleep(2000));
  assert.equal(life.object.problem, null);
  assert.equal(life.router.files.dirtyBytes, 0);
});

test('the last byte of the largest object can be written and read', async () => {
  const life = await start();
  const end = 2 ** 46;
  accepted(await life.run(life.write(end - 100, 5, 100)));
  assert.equal(life.object.attributes().sizeBytes, end);
  const bytes = await read(life, end - 200, 300);
  assert.equal(bytes.length, 200);
  assert.ok(bytes.subarray(0, 100).every((byte) => byte === 0) && bytes.subarray(100).every((byte) => byte === 5));
  const after = await powerCut(life);
  assert.equal((await read(after, end - 1, 10)).length, 1);
});

test('writes, a shrink and more writes at once leave what one order of them leaves', async () => {
  let life = await start();
  accepted(await life.run(life.write(0, 1, 64 * BLOCK)));
  const before = Array.from({ length: 8 }, (_, index) => life.write(index * BLOCK + 100, 2, 50));
  const shrink = life.object.setAttributes({ sizeBytes: 4 * BLOCK + 10, atime: null, mtime: null }, NOW);
  const grow = life.object.setAttributes({ sizeBytes: 32 * BLOCK, atime: null, mtime: null }, NOW);
  const after = Array.from({ length: 4 }, (_, index) => life.write((8 + index) * BLOCK + 7, 3, 20));
  for (const change of await life.run(Promise.all([...before, shrink, grow, ...after]))) accepted(change);
  const check = async (at: Life): Promise<Buffer> => {
    const { sizeBytes } = at.object.attributes();
    const bytes = await read(at, 0, 64 * BLOCK);
    assert.equal(bytes.length, sizeBytes);
    // Behind the cut there is nothing but what was written after it, if it was.
    for (let place = 4 * BLOCK + 10; place < sizeBytes; place += 1) {
      const index = Math.floor(place / BLOCK);
      const fromEnd = place - index * BLOCK;
      const allowed = index >= 8 && index < 12 && fromEnd >= 7 && fromEnd < 27 ? [0, 3] : index < 8 && fromEnd >= 100 && fromEnd < 150 ? [0, 2] : [0];
      assert.ok(allowed.includes(bytes[place]!), `byte ${place} is ${bytes[place]}`);
    }
    return Buffer.from(bytes);
  };
  const first = await check(life);
  life = await powerCut(life);
  assert.ok(first.equals(await check(life)));
});

test('a checkpoint made while segments are still going up knows the sizes of all that were sealed', async () => {
  const life = await start(undefined, { checkpointAfterBytes: 160 * KIB });
  life.router.store.setFaults({ delay: 1, delayMsMax: 10_000 });
  const writes = Array.from({ length: 100 }, (_, index) => life.write(index * BLOCK, 1 + index));
  for (const change of await life.run(Promise.all(writes))) accepted(change);
  const { store } = life.world;
  const checkpointName = async (): Promise<{ bucket: string; name: string } | null> => {
    for (const bucket of (await store.listBuckets('', 10)).names) {
      const [name] = (await store.list(bucket, 'ckp-', '', 1)).names;
      if (name !== undefined) return { bucket, name };
    }
    return null;
  };
  let place = await checkpointName();
  for (let waited = 0; place === null && waited < 2000; waited += 1) {
    await life.run(life.router.clock.sleep(100));
    place = await checkpointName();
  }
  assert.ok(place !== null, 'no checkpoint was made');
  const found = await store.get(place.bucket, place.name);
  assert.ok(found.kind === 'found');
  await using stack = new AsyncDisposableStack();
  const pool = await openPool(new MemoryDisk(), { bytesMax: 1024 * KIB });
  stack.defer(() => pool.close());
  const opened = await openCheckpoint({
    reader: readerOf('test', found.bytes),
    pool,
    rowIds: countingRowIds(),
    sourceOf: () => ({ read: () => assert.fail('no page is needed') }),
  });
  stack.defer(() => opened.map.close());
  const segments = [...opened.table.rows()]
    .filter((row) => opened.table.kind(row) === 'segment')
    .sort((a, b) => opened.table.number(a) - opened.table.number(b));
  assert.ok(segments.length > 4, `only ${segments.length} segments: nothing was under way`);
  // The last one may have been open.
  for (const row of segments.slice(0, -1)) assert.ok(opened.table.sizeBytes(row) > 0, `segment ${opened.table.number(row)} has no size`);
});
