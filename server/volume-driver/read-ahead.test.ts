import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { FaultyStore } from '../../backends/faulty-store.ts';
import { MemoryStore } from '../../backends/memory/memory-store.ts';
import type { ByteRange, GetOutcome, ObjectStore } from '../../backends/object-store.ts';
import { StoreError } from '../../backends/object-store.ts';
import { seededRandom, VirtualClock } from '../../backends/virtual-clock.ts';
import type { LocalSegment } from '../object-log/local-segment.ts';
import type { LocalSegments } from './block-reader.ts';
import { ReadAheadBudget } from './read-ahead-budget.ts';
import { BUCKET, StoredObject } from './testing/stored-object.ts';
import type { StoredObjectSettings } from './testing/stored-object.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const BLOCK = 4096;

/** A store that remembers what it was asked for, and answers after a time. */
class AskedStore extends MemoryStore {
  readonly gets: { name: string; range: ByteRange | undefined }[] = [];
  readonly clock: VirtualClock;
  delayMs = 0;
  running = 0;
  runningMax = 0;
  /** What an answer waits for. */
  hold: (name: string, range: ByteRange | undefined) => Promise<void> | null = () => null;
  /** Called before the answer; may throw, or change it. */
  answer: (outcome: GetOutcome, name: string, range: ByteRange | undefined) => GetOutcome = (outcome) => outcome;

  constructor(clock: VirtualClock) {
    super();
    this.clock = clock;
  }

  override async get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
    this.gets.push({ name, range });
    this.running += 1;
    this.runningMax = Math.max(this.runningMax, this.running);
    try {
      await this.hold(name, range);
      if (this.delayMs > 0) await this.clock.sleep(this.delayMs);
      if (signal?.aborted === true) throw new StoreError('retry', 'aborted');
      return this.answer(await super.get(bucket, name, range), name, range);
    } finally {
      this.running -= 1;
    }
  }

  /** Reads as from a local file: without being asked. `prefix` of the name. */
  async peek(prefix: string, offsetBytes: number, target: Uint8Array): Promise<number> {
    const [name] = (await this.list(BUCKET, prefix, '', 1)).names;
    const answer = await super.get(BUCKET, name!, { offsetBytes, lengthBytes: target.length });
    assert.ok(answer.kind === 'found');
    target.set(answer.bytes);
    return answer.bytes.length;
  }

  /** Bytes of segments that were asked for. */
  get askedBytes(): number {
    return this.gets.reduce((sum, get) => sum + (get.name.startsWith('seg') ? (get.range?.lengthBytes ?? 0) : 0), 0);
  }
}

function contentOf(block: number, version = 0): Buffer {
  const bytes = Buffer.alloc(BLOCK, (block * 7 + version * 13) & 0xff);
  bytes.writeUInt32LE(block, 0);
  bytes.writeUInt32LE(version, 4);
  return bytes;
}

const expected = (fromBlock: number, count: number): Buffer =>
  Buffer.concat(Array.from({ length: count }, (_, index) => contentOf(fromBlock + index)));
const inOrder = (blocks: number): number[] => Array.from({ length: blocks }, (_, block) => block);

interface Setting {
  readonly clock: VirtualClock;
  readonly store: AskedStore;
  readonly stored: StoredObject;
  read(offsetBytes: number, countBytes: number): Promise<Buffer>;
}

async function setUp(
  blocks: number,
  settings: Partial<StoredObjectSettings> = {},
  order: readonly number[] = inOrder(blocks),
  wrap: (store: AskedStore, clock: VirtualClock) => ObjectStore = (store) => store,
  files?: (store: AskedStore) => LocalSegments,
): Promise<Setting> {
  const clock = new VirtualClock();
  const store = new AskedStore(clock);
  const stored = await StoredObject.make(
    { store: wrap(store, clock), clock, whileStoring: store, ...(files === undefined ? {} : { files: files(store) }) },
    blocks,
    order,
    4096,
    contentOf,
    {
      cacheBytes: 0,
      readAheadBytesMax: 32 * MIB,
      ...settings,
    },
  );
  store.gets.length = 0;
  store.delayMs = 10;
  return { clock, store, stored, read: (offsetBytes, countBytes) => clock.run(stored.read(offsetBytes, countBytes)) };
}

async function readAll(setting: Setting, ioBytes: number, fromBytes: number, toBytes: number): Promise<void> {
  for (let at = fromBytes; at < toBytes; at += ioBytes) {
    const bytes = await setting.read(at, ioBytes);
    assert.ok(bytes.equals(expected(at / BLOCK, ioBytes / BLOCK)), `at ${at}`);
  }
}

test('a cold sequential read asks for few large ranges, each byte about once, and most of them before they are read', async () => {
  const setting = await setUp(8192);
  await readAll(setting, 256 * KIB, 0, 32 * MIB);
  const { stored, store } = setting;
  const segments = store.gets.filter((get) => get.name.startsWith('seg'));
  assert.ok(segments.length <= 24, `${segments.length} requests`);
  assert.ok(store.askedBytes < 32.5 * MIB, `${store.askedBytes} bytes`);
  assert.ok(stored.statistics.hitBlocks > 7600, `${stored.statistics.hitBlocks} hits`);
  assert.ok(setting.store.runningMax >= 4, 'several at a time');
  await setting.clock.run(stored.close());
  assert.equal(stored.budget.bytes, 0);
});

test('a cold random read of 4 KiB fetches that block and the page of the map, at most 64 KiB', async () => {
  const setting = await setUp(16_384);
  const random = seededRandom(3);
  for (let read = 0; read < 100; read += 1) {
    const block = Math.floor(random.fraction() * 16_384);
    const before = setting.store.gets.length;
    assert.ok((await setting.read(block * BLOCK, BLOCK)).equals(contentOf(block)));
    const bytes = setting.store.gets.slice(before).reduce((sum, get) => sum + (get.range?.lengthBytes ?? Infinity), 0);
    assert.ok(bytes <= 64 * KIB, `${bytes} bytes for block ${block}`);
  }
  assert.equal(setting.stored.statistics.requests, 0);
  await setting.clock.run(setting.stored.close());
});

test('neighbours with a small gap are one request, those with a large one are two', async () => {
  // Blocks 0 and 1 lie 4 blocks apart in the segment, 2 and 3 lie 6 apart.
  const order = [0, 10, 11, 12, 1, 13, 14, 15, 16, 2, 17, 18, 19, 20, 21, 3];
  const setting = await setUp(32, { readAheadBytesMax: 0 }, order);
  await setting.read(0, BLOCK);
  setting.store.gets.length = 0;
  assert.ok((await setting.read(0, 2 * BLOCK)).equals(expected(0, 2)));
  assert.deepEqual(
    setting.store.gets.map((get) => get.range?.lengthBytes),
    [5 * BLOCK],
  );
  setting.store.gets.length = 0;
  assert.ok((await setting.read(2 * BLOCK, 2 * BLOCK)).equals(expected(2, 2)));
  assert.deepEqual(
    setting.store.gets.map((get) => get.range?.lengthBytes),
    [BLOCK, BLOCK],
  );
  await setting.clock.run(setting.stored.close());
});

test('readers of the same block at the same time cost one request', async () => {
  const setting = await setUp(64);
  await setting.read(0, BLOCK);
  setting.store.gets.length = 0;
  const answers = await setting.clock.run(Promise.all(Array.from({ length: 10 }, () => setting.stored.read(20 * BLOCK, BLOCK))));
  for (const bytes of answers) assert.ok(bytes.equals(contentOf(20)));
  assert.equal(setting.store.gets.length, 1);
  await setting.clock.run(setting.stored.close());
});

test('a stream that stops costs no more than its window, and what is left of it is let go after some seconds', async () => {
  const setting = await setUp(16_384);
  await readAll(setting, 64 * KIB, 0, MIB);
  await setting.clock.run(setting.clock.sleep(200));
  const { stored, store } = setting;
  assert.ok(store.askedBytes <= 6 * MIB, `${store.askedBytes} bytes for 1 MiB that was read`);
  assert.ok(stored.budget.bytes > 0);
  const asked = store.gets.length;
  await setting.clock.run(setting.clock.sleep(10_000));
  assert.equal(stored.budget.bytes, 0);
  assert.equal(store.gets.length, asked, 'nothing more was asked for');
  assert.ok(stored.statistics.unreadBlocks > 0);
  await setting.clock.run(stored.close());
  assert.equal(setting.clock.pending, 0, 'no timer is left');
});

test('streams together stay within the budget, and one that rests gives way', async () => {
  const setting = await setUp(65_536, { readAheadBytesMax: 8 * MIB });
  const { stored } = setting;
  let most = 0;
  for (let step = 0; step < 40; step += 1) {
    for (let reader = 0; reader < 4; reader += 1) {
      const at = reader * 64 * MIB + step * 256 * KIB;
      assert.ok((await setting.read(at, 256 * KIB)).equals(expected(at / BLOCK, 64)));
      most = Math.max(most, stored.budget.bytes);
    }
  }
  assert.ok(most <= 8 * MIB && most > 4 * MIB, `${most} bytes`);
  const before = stored.statistics.hitBlocks;
  await setting.clock.run(setting.clock.sleep(1500));
  await readAll(setting, 256 * KIB, 10 * MIB, 20 * MIB);
  assert.ok(stored.statistics.hitBlocks - before > 2000, 'one stream alone has the room of those that rest');
  await setting.clock.run(stored.close());
  assert.equal(stored.budget.bytes, 0);
});

test('requests under way are bounded; a reader does not wait for a turn', async () => {
  const setting = await setUp(16_384, { readAheadRequestsMax: 2 }, shuffled(16_384, 9));
  await readAll(setting, 64 * KIB, 0, MIB);
  const { store } = setting;
  assert.ok(store.runningMax >= 16, 'before there is a stream');
  store.runningMax = 0;
  await setting.clock.run(setting.clock.sleep(25));
  assert.equal(store.runningMax, 2);
  await setting.clock.run(setting.stored.read(MIB, 64 * KIB));
  assert.ok(store.runningMax > 2, 'what the reader needs is asked for at once');
  await setting.clock.run(setting.stored.close());
});

function shuffled(blocks: number, seed: number): number[] {
  const random = seededRandom(seed);
  const order = inOrder(blocks);
  for (let index = blocks - 1; index > 0; index -= 1) {
    const other = Math.floor(random.fraction() * (index + 1));
    [order[index], order[other]] = [order[other]!, order[index]!];
  }
  return order;
}

test('holes and the end of the object end nothing: a stream goes on behind a hole', async () => {
  const order = inOrder(4096).filter((block) => block < 512 || block >= 1500);
  const setting = await setUp(4000, {}, order);
  for (let at = 0; at < 4000 * BLOCK; at += 128 * KIB) {
    const bytes = await setting.read(at, 128 * KIB);
    for (let index = 0; index * BLOCK < bytes.length; index += 1) {
      const block = at / BLOCK + index;
      const want = block < 512 || block >= 1500 ? contentOf(block) : Buffer.alloc(BLOCK);
      assert.ok(bytes.subarray(index * BLOCK, (index + 1) * BLOCK).equals(want), `block ${block}`);
    }
  }
  assert.ok(setting.stored.statistics.hitBlocks > 2700, `${setting.stored.statistics.hitBlocks} hits`);
  await setting.clock.run(setting.stored.close());
});

test('nothing is read ahead of what is on the local disk, and what leaves it is', async () => {
  const local = new Set([1, 2]);
  const setting = await setUp(12_288, {}, inOrder(12_288), undefined, (store) => ({
    segment: (_uuid, number) => (local.has(number) ? ({ number, path: `${number}` } as LocalSegment) : null),
    read: (segment, offsetBytes, target) => store.peek(`seg-${String(segment.number).padStart(10, '0')}`, offsetBytes, target),
  }));
  await readAll(setting, 256 * KIB, 0, 24 * MIB);
  assert.equal(setting.store.askedBytes, 0);
  local.clear();
  await readAll(setting, 256 * KIB, 24 * MIB, 40 * MIB);
  assert.ok(setting.stored.statistics.hitBlocks > 3500);
  await setting.clock.run(setting.stored.close());
});

test('blocks in the RAM cache are not fetched again, and keep their stream alive', async () => {
  const setting = await setUp(4096, { cacheBytes: 8 * MIB });
  for (let index = 0; index < 1024; index += 1) await setting.read((1024 + ((index * 389) % 1024)) * BLOCK, BLOCK);
  setting.store.gets.length = 0;
  await readAll(setting, 64 * KIB, 0, 16 * MIB);
  assert.ok(setting.store.askedBytes < 12.5 * MIB, `${setting.store.askedBytes} bytes`);
  await setting.clock.run(setting.stored.close());
});

test('an error while reading ahead fails no read', async () => {
  const setting = await setUp(4096);
  setting.store.answer = (outcome, name, range) => {
    if (name.startsWith('seg') && (range?.lengthBytes ?? 0) > 128 * KIB + 2000) throw new StoreError('denied', 'too much');
    return outcome;
  };
  await readAll(setting, 128 * KIB, 0, 16 * MIB);
  assert.ok(setting.stored.statistics.failures > 0);
  assert.equal(setting.stored.budget.bytes, 0);
  await setting.clock.run(setting.stored.close());
});

test('what was read ahead with a wrong bit, or cut off, is not believed but read again', async () => {
  const setting = await setUp(4096);
  let answers = 0;
  setting.store.answer = (outcome, name, range) => {
    if (!name.startsWith('seg') || outcome.kind === 'absent' || (range?.lengthBytes ?? 0) < MIB) return outcome;
    answers += 1;
    if (answers % 2 === 0) return { kind: 'found', bytes: outcome.bytes.subarray(0, 1000) };
    for (let at = 2000; at < outcome.bytes.length; at += 70_000) outcome.bytes[at]! ^= 4;
    return outcome;
  };
  await readAll(setting, 128 * KIB, 0, 16 * MIB);
  assert.ok(answers >= 2, `${answers} answers`);
  await setting.clock.run(setting.stored.close());
});

test('a block whose ranges the store keeps answering wrong is asked for as a whole object, of which the store has a right copy', async () => {
  const setting = await setUp(64);
  let wholes = 0;
  setting.store.answer = (outcome, name, range) => {
    if (!name.startsWith('seg') || outcome.kind === 'absent') return outcome;
    if (range === undefined) wholes += 1;
    else if (wholes === 0) outcome.bytes[5]! ^= 1;
    return outcome;
  };
  assert.ok((await setting.read(8 * BLOCK, BLOCK)).equals(contentOf(8)));
  assert.equal(wholes, 1);
  assert.equal(setting.stored.reads.problem, null);
  await setting.clock.run(setting.stored.close());
});

test('wrong bytes for ever are JUKEBOX for a minute and then an I/O error, and a problem all the time; never data', async () => {
  const setting = await setUp(64);
  setting.store.answer = (outcome, name) => {
    if (name.startsWith('seg') && outcome.kind === 'found') outcome.bytes.fill(0x55);
    return outcome;
  };
  await assert.rejects(setting.read(8 * BLOCK, BLOCK), { class: 'retry' });
  assert.match(setting.stored.reads.problem?.message ?? '', /block at \d+ of vf-vpool1-\w+\/seg-\S+ does not match its CRC/);
  setting.clock.advance(60_000);
  await assert.rejects(setting.read(8 * BLOCK, BLOCK), { code: 'block-corrupt' });
  setting.store.answer = (outcome) => outcome;
  assert.ok((await setting.read(8 * BLOCK, BLOCK)).equals(contentOf(8)));
  assert.equal(setting.stored.reads.problem, null);
  await setting.clock.run(setting.stored.close());
});

test('a read that the backend does not answer is told to come back after 15 s, and what comes later does not touch its buffer', async () => {
  const setting = await setUp(4096, { readAheadBytesMax: 8 * MIB });
  const { clock, stored, store } = setting;
  // The page of the map, a block, and several runs of which one is answered.
  for (const [hung, fromBlock] of [
    [/^ckp/, 1030],
    [/^seg/, 0],
    [/^seg-0000000001/, 40],
  ] as const) {
    let answer = (): void => {};
    const answered = new Promise<void>((resolve) => (answer = resolve));
    store.hold = (name) => (hung.test(name) ? answered : null);
    const target = Buffer.alloc(2 * BLOCK, 0xee);
    const started = clock.monotonicMs();
    await assert.rejects(clock.run(Promise.resolve(stored.object.read(fromBlock * BLOCK, target))), { name: 'StoreError', class: 'retry' });
    const waitedMs = clock.monotonicMs() - started;
    assert.ok(waitedMs >= 15_000 && waitedMs < 16_000, `${waitedMs} ms`);
    store.hold = () => null;
    answer();
    await clock.run(clock.sleep(100));
    assert.ok(
      target.every((byte) => byte === 0xee),
      'the buffer was the caller’s again',
    );
    assert.ok((await setting.read(fromBlock * BLOCK, 2 * BLOCK)).equals(expected(fromBlock, 2)));
  }
  await clock.run(stored.close());
});

test('readers that come back again and again for the same page of the map wait for one load of it, and so does the end of the object', async () => {
  const setting = await setUp(4096, { readAheadBytesMax: 0 });
  const { clock, stored, store } = setting;
  let answer = (): void => {};
  const answered = new Promise<void>((resolve) => (answer = resolve));
  store.hold = () => answered;
  for (let attempt = 0; attempt < 4; attempt += 1) await assert.rejects(clock.run(stored.read(1030 * BLOCK, BLOCK)), { class: 'retry' });
  assert.equal(store.running, 1);
  let closed = false;
  const closing = stored.close().finally(() => (closed = true));
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(closed, false);
  answer();
  await clock.run(closing);
});

test('a read of which one part failed ends when its other parts did: they write into the same buffer', async () => {
  // Block 0 and block 1 lie far apart.
  const setting = await setUp(4096, { readAheadBytesMax: 0 }, [0, ...inOrder(4096).slice(2), 1]);
  const { clock, stored, store } = setting;
  await setting.read(100 * BLOCK, BLOCK);
  store.answer = (outcome, _name, range) => {
    if ((range?.offsetBytes ?? 0) < MIB) throw new StoreError('denied', 'no');
    return outcome;
  };
  store.delayMs = 0;
  let answer = (): void => {};
  const answered = new Promise<void>((resolve) => (answer = resolve));
  store.hold = (_name, range) => ((range?.offsetBytes ?? 0) < MIB ? null : answered);
  let settled = false;
  const reading = stored.read(0, 2 * BLOCK).finally(() => (settled = true));
  reading.catch(() => undefined);
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(settled, false);
  answer();
  await assert.rejects(clock.run(reading), { class: 'denied' });
  await clock.run(stored.close());
});

test('a reader that waits too long for what is read ahead is told to come back, too', async () => {
  const setting = await setUp(4096);
  const { clock, stored, store } = setting;
  await readAll(setting, 128 * KIB, 0, MIB);
  let answer = (): void => {};
  const answered = new Promise<void>((resolve) => (answer = resolve));
  store.hold = () => answered;
  // Whatever is here already is read, then somebody waits.
  const started = clock.monotonicMs();
  await assert.rejects(readAll(setting, 128 * KIB, MIB, 16 * MIB), { name: 'StoreError', class: 'retry' });
  assert.ok(clock.monotonicMs() - started < 31_000);
  store.hold = () => null;
  answer();
  await clock.run(clock.sleep(6000));
  await readAll(setting, 128 * KIB, 0, 16 * MIB);
  await clock.run(stored.close());
  assert.equal(stored.budget.bytes, 0);
});

test('an object that closes while it reads ahead lets go of all of it, and waits for the pages that it loads', async () => {
  for (const waitMs of [0, 5, 15, 25]) {
    const setting = await setUp(16_384);
    await readAll(setting, 256 * KIB, 0, MIB);
    await setting.clock.run(setting.clock.sleep(waitMs));
    await setting.clock.run(setting.stored.close());
    assert.equal(setting.stored.budget.bytes, 0);
    await setting.clock.run(setting.clock.sleep(1000));
    assert.equal(setting.clock.pending, 0);
  }
});

test('streams that need more pages than the pool has frames do not load them in circles', async () => {
  const setting = await setUp(65_536, { mapBytes: 16 * 12 * KIB });
  for (let at = 0; at < 32 * MIB; at += MIB) {
    const readers = Array.from({ length: 8 }, (_, reader) => setting.stored.read(reader * 32 * MIB + at, MIB));
    for (const [reader, bytes] of (await setting.clock.run(Promise.all(readers))).entries())
      assert.ok(bytes.equals(expected((reader * 32 * MIB + at) / BLOCK, 256)));
  }
  const pages = setting.store.gets.filter((get) => get.name.startsWith('ckp')).length;
  assert.ok(pages <= 300, `${pages} loads of 64 pages`);
  await setting.clock.run(setting.stored.close());
});

test('the budget gives turns to objects that wait', () => {
  const budget = new ReadAheadBudget({ bytesMax: 100, requestsMax: 1 });
  const started: string[] = [];
  const member = (name: string) => ({
    streamCount: 1,
    releaseIdle() {},
    startQueued: () => void (budget.takeRequest(members[name]!, false) && started.push(name)),
  });
  const members: Record<string, ReturnType<typeof member>> = { a: member('a'), b: member('b'), c: member('c') };
  assert.ok(budget.takeRequest(members['a']!, false));
  for (const name of ['b', 'a', 'c']) assert.ok(!budget.takeRequest(members[name]!, false));
  for (let turn = 0; turn < 3; turn += 1) budget.giveRequest();
  assert.deepEqual(started, ['b', 'a', 'c']);
});

/** Reads of several streams and of random places beside overwrites, over a store that lags, cuts off, flips and fails. */
async function history(seed: number): Promise<{ reads: number; failed: number; hits: number }> {
  const random = seededRandom(seed);
  const int = (below: number): number => Math.floor(random.fraction() * below);
  const blocks = 6000;
  let faulty: FaultyStore | null = null;
  const setting = await setUp(
    blocks,
    { cacheBytes: int(2) * 4 * MIB, readAheadBytesMax: [1, 8, 32][int(3)]! * MIB, mapBytes: 16 * 12 * KIB },
    int(2) === 0 ? inOrder(blocks) : shuffled(blocks, seed),
    (store, clock) => (faulty = new FaultyStore({ inner: store, clock, random })),
  );
  const { clock, stored, store } = setting;
  store.delayMs = int(3) * 7;
  const versions = new Uint32Array(blocks);
  const begun = new Uint32Array(blocks);
  const outcome = { reads: 0, failed: 0, hits: 0 };
  const running: Promise<void>[] = [];

  const read = async (fromBlock: number, count: number): Promise<void> => {
    const before = versions.slice(fromBlock, fromBlock + count);
    let bytes: Buffer;
    try {
      bytes = await stored.read(fromBlock * BLOCK, count * BLOCK);
    } catch (error) {
      assert.ok(error instanceof StoreError && error.class === 'retry', String(error));
      outcome.failed += 1;
      return;
    }
    outcome.reads += 1;
    for (let index = 0; index < count; index += 1) {
      const block = bytes.subarray(index * BLOCK, (index + 1) * BLOCK);
      const version = block.readUInt32LE(4);
      assert.ok(
        version >= before[index]! && version <= begun[fromBlock + index]!,
        `block ${fromBlock + index}: version ${version} is older than ${before[index]}`,
      );
      assert.ok(block.equals(contentOf(fromBlock + index, version)), `block ${fromBlock + index}`);
    }
  };
  const overwrite = async (fromBlock: number, count: number): Promise<void> => {
    const list = Array.from({ length: count }, (_, index) => fromBlock + index);
    for (const block of list) begun[block]! += 1;
    await stored.overwrite(list, (block) => contentOf(block, begun[block]));
    for (const block of list) versions[block] = begun[block]!;
  };

  const streams = Array.from({ length: 1 + int(3) }, () => ({ at: int(blocks / 2), io: [8, 16, 64, 256][int(4)]! }));
  const writing = new Set<number>();
  for (let step = 0; step < 120; step += 1) {
    if (step % 30 === 0)
      faulty!.setFaults(int(2) === 0 ? {} : { failBefore: 0, truncateGet: 0.1 * int(3), flipGet: 0.1 * int(3), delay: 0.3, delayMsMax: 50 });
    for (const stream of streams) {
      const count = Math.min(stream.io, blocks - stream.at);
      if (count > 0) running.push(read(stream.at, count));
      stream.at = count > 0 ? stream.at + count : int(blocks / 2);
    }
    if (int(3) === 0) running.push(read(int(blocks - 8), 1 + int(8)));
    if (int(4) === 0) {
      // Ahead of a stream, where it reads soon, or anywhere; one writer of a block at a time.
      const near = streams[0]!.at + int(200);
      const from = Math.min(blocks - 16, int(2) === 0 ? near : int(blocks - 16));
      const count = 1 + int(16);
      const list = Array.from({ length: count }, (_, index) => from + index);
      if (!list.some((block) => writing.has(block))) {
        for (const block of list) writing.add(block);
        running.push(overwrite(from, count).finally(() => list.forEach((block) => writing.delete(block))));
      }
    }
    if (int(3) === 0) await clock.run(Promise.all(running.splice(0)));
    else await clock.run(clock.sleep(int(20)));
  }
  await clock.run(Promise.all(running));
  outcome.hits = stored.statistics.hitBlocks;
  await clock.run(stored.close());
  assert.equal(stored.budget.bytes, 0);
  return outcome;
}

test('whatever is written, and however the store answers, a read shows what was there, never anything older, and never wrong bytes', async () => {
  const sum = { reads: 0, failed: 0, hits: 0 };
  const nothingOlder = fc.asyncProperty(fc.integer({ min: 1, max: 1_000_000 }), async (seed) => {
    const { reads, failed, hits } = await history(seed);
    sum.reads += reads;
    sum.failed += failed;
    sum.hits += hits;
  });
  await fc.assert(nothingOlder, { seed: 20261122, numRuns: 4, endOnFailure: true });
  assert.ok(sum.reads > 20 * sum.failed && sum.hits > 1300, JSON.stringify(sum));
  await fc.assert(nothingOlder, { numRuns: 2, endOnFailure: true });
});
