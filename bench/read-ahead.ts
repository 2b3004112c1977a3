/**
 * Micro-benchmark of reading from the backend: `node bench/read-ahead.ts [MiB]`. One process, no sockets: an object that is only on a store in memory
 * that answers as a distant one does (a delay, and so many bytes a second for each request), read cold, beside a plain parallel download of the same objects.
 */
import { LimitedStore } from '../backends/limited-store.ts';
import { MemoryStore } from '../backends/memory/memory-store.ts';
import type { ByteRange, GetOutcome } from '../backends/object-store.ts';
import { systemClock } from '../server/core/node-time.ts';
import { BUCKET, StoredObject } from '../server/volume-driver/testing/stored-object.ts';

const MIB = 1024 * 1024;
const BLOCK = 4096;
const SEGMENT_BLOCKS = 4096;
const totalMib = Number(process.argv[2] ?? 512);

/** Answers after `delayMs` and the time that the bytes take. They are not copied: a worker thread hands them over without touching them, too. */
class DistantStore extends MemoryStore {
  delayMs = 0;
  bytesPerMs = Infinity;
  requests = 0;
  bytes = 0;
  readonly #whole = new Map<string, Buffer>();

  override async get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
    let whole = this.#whole.get(`${bucket}/${name}`);
    if (whole === undefined) {
      const answer = await super.get(bucket, name);
      if (answer.kind === 'absent') return answer;
      whole = answer.bytes;
      this.#whole.set(`${bucket}/${name}`, whole);
    }
    const bytes = range === undefined ? whole : whole.subarray(range.offsetBytes, range.offsetBytes + range.lengthBytes);
    this.requests += 1;
    this.bytes += bytes.length;
    await new Promise((resolve) => setTimeout(resolve, this.delayMs + bytes.length / this.bytesPerMs));
    signal?.throwIfAborted();
    return { kind: 'found', bytes };
  }
}

const content = Array.from({ length: 256 }, (_, index) => Buffer.alloc(BLOCK, index));
const blocks = (totalMib * MIB) / BLOCK;

async function download(store: DistantStore, parallel: number): Promise<number> {
  const names = (await store.list(BUCKET, 'seg', '', 100_000)).names;
  const started = performance.now();
  const one = async (): Promise<void> => {
    for (let name = names.shift(); name !== undefined; name = names.shift()) await store.get(BUCKET, name);
  };
  await Promise.all(Array.from({ length: parallel }, one));
  return (totalMib / (performance.now() - started)) * 1000;
}

async function read(
  object: StoredObject,
  ioBytes: number,
  outstanding: number,
  offsets: Iterator<number>,
): Promise<{ mibPerSecond: number; cpuMsPerMib: number }> {
  const cpu = process.cpuUsage();
  const started = performance.now();
  let total = 0;
  const one = async (): Promise<void> => {
    const target = Buffer.alloc(ioBytes);
    for (let next = offsets.next(); next.done !== true; next = offsets.next()) {
      const bytes = await object.object.read(next.value, target);
      total += bytes;
    }
  };
  await Promise.all(Array.from({ length: outstanding }, one));
  const seconds = (performance.now() - started) / 1000;
  const used = process.cpuUsage(cpu);
  return { mibPerSecond: total / MIB / seconds, cpuMsPerMib: (used.user + used.system) / 1000 / (total / MIB) };
}

function* sequence(ioBytes: number): Generator<number, undefined> {
  for (let at = 0; at < blocks * BLOCK; at += ioBytes) yield at;
  return undefined;
}

function* scattered(count: number): Generator<number, undefined> {
  let seed = 7;
  for (let index = 0; index < count; index += 1) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    yield Math.floor((seed / 2 ** 32) * blocks) * BLOCK;
  }
  return undefined;
}

const distant = new DistantStore();
const limited = new LimitedStore(distant, { concurrencyMax: 16, bytesInFlightMax: 256 * MIB, wholeGetBytes: 4 * MIB });
const order = Array.from({ length: blocks }, (_, block) => block);

for (const [delayMs, mbPerSecond] of [
  [20, 100],
  [5, 100],
  [20, 25],
  [0, 1e6],
] as const) {
  distant.delayMs = 0;
  distant.bytesPerMs = Infinity;
  const make = (readAheadBytesMax: number): Promise<StoredObject> =>
    StoredObject.make(
      { store: limited, clock: systemClock, whileStoring: distant },
      blocks,
      order,
      SEGMENT_BLOCKS,
      (block) => content[block & 255]!,
      {
        cacheBytes: 64 * MIB,
        readAheadBytesMax,
      },
    );
  const run = async (what: string, readAheadBytesMax: number, ioBytes: number, outstanding: number, offsets: Iterator<number>): Promise<void> => {
    distant.delayMs = 0;
    distant.bytesPerMs = Infinity;
    const object = await make(readAheadBytesMax);
    distant.delayMs = delayMs;
    distant.bytesPerMs = mbPerSecond * 1000;
    distant.requests = distant.bytes = 0;
    const { mibPerSecond, cpuMsPerMib } = await read(object, ioBytes, outstanding, offsets);
    const { hitBlocks, unreadBlocks } = object.statistics;
    await object.close();
    console.log(
      `  ${what.padEnd(44)} ${mibPerSecond.toFixed(1).padStart(8)} MiB/s  ${cpuMsPerMib.toFixed(2)} ms CPU/MiB  ${distant.requests} GETs, ` +
        `${(distant.bytes / MIB).toFixed(1)} MiB fetched; ${hitBlocks} hits, ${unreadBlocks} unread`,
    );
  };
  console.log(`${delayMs} ms, ${mbPerSecond} MB/s a connection`);
  await make(0).then((object) => object.close());
  // Once beforehand: what is touched for the first time costs more than all the rest.
  await download(distant, 8);
  distant.delayMs = delayMs;
  distant.bytesPerMs = mbPerSecond * 1000;
  console.log(`  plain download of whole objects, 8 at a time   ${(await download(distant, 8)).toFixed(1).padStart(6)} MiB/s`);
  await run('1 MiB sequential, 1 outstanding', 128 * MIB, MIB, 1, sequence(MIB));
  await run('1 MiB sequential, 8 outstanding', 128 * MIB, MIB, 8, sequence(MIB));
  await run('1 MiB sequential, 8, no reading ahead', 0, MIB, 8, sequence(MIB));
  await run('64 KiB sequential, 4 outstanding', 128 * MIB, 64 * 1024, 4, sequence(64 * 1024));
  await run('4 KiB random, 16 outstanding', 128 * MIB, BLOCK, 16, scattered(500));
}
