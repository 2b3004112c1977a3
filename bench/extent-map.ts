/** Micro-benchmark of server/volume-driver/extent-map.ts: `node bench/extent-map.ts`. Nanoseconds per operation, best of five rounds; a 1 TiB volume's checkpoint at the end. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { ObjectUuid } from '../server/core/ids.ts';
import { nodeDisk } from '../server/core/node-disk.ts';
import { ExtentMap } from '../server/volume-driver/extent-map.ts';
import { openCheckpoint } from '../server/volume-driver/open-checkpoint.ts';
import { PagePool } from '../server/volume-driver/page-pool.ts';
import type { PageSource } from '../server/volume-driver/page-residence.ts';
import { countingRowIds, SegmentTable } from '../server/volume-driver/segment-table.ts';

const OPERATIONS = 1_000_000;
const TERM = { generation: 1, counter: 1, nonce: '0123456789abcdef' };
const directory = await mkdtemp(join(tmpdir(), 'vferry-extent-map-'));
const yieldToLoop = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const objects = new Map<number, Buffer>();
const source: PageSource = {
  read: (row, offsetBytes, lengthBytes) => Promise.resolve((objects.get(row) ?? Buffer.alloc(0)).subarray(offsetBytes, offsetBytes + lengthBytes)),
};
const ids = countingRowIds();

function best(name: string, operations: number, round: () => void): void {
  let bestNs = Infinity;
  for (let count = 0; count < 5; count += 1) {
    const started = process.hrtime.bigint();
    round();
    bestNs = Math.min(bestNs, Number(process.hrtime.bigint() - started) / operations);
  }
  print(name, bestNs, 'ns');
}

function print(name: string, value: number, unit: string): void {
  console.log(`${name.padEnd(64)} ${value.toFixed(1).padStart(10)} ${unit}`);
}

async function once<T>(name: string, work: () => T | Promise<T>): Promise<T> {
  const started = performance.now();
  const result = await work();
  print(name, performance.now() - started, 'ms');
  return result;
}

function newMap(pool: PagePool): { map: ExtentMap; table: SegmentTable; rows: number[] } {
  const table = new SegmentTable(ids);
  const map = new ExtentMap({ pool, table, source });
  const rows = Array.from({ length: 64 }, (_, number) =>
    table.add({ kind: 'segment', bucket: '', objectUuid: '', term: TERM, number, sizeBytes: 4 << 20 }),
  );
  return { map, table, rows };
}

let seed = 1;
function random(limit: number): number {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return Math.floor((seed / 2 ** 32) * limit);
}

function describe(number: number): Parameters<ReturnType<ExtentMap['beginCheckpoint']>['encode']>[0] {
  return {
    objectUuid: '0'.repeat(32) as ObjectUuid,
    vpoolUuid: '0'.repeat(32),
    term: TERM,
    number,
    sequence: 0,
    nextSegment: 1,
    objectSizeBytes: 2 ** 40,
    attributes: Buffer.alloc(0),
    createdMs: 0,
    garbage: [],
  };
}

const pool = await PagePool.open({ disk: nodeDisk, spillPath: join(directory, 'spill'), yieldToLoop }, { bytesMax: 256 << 20, dirtyShareMax: 1 });
const crcs = new Uint32Array(4096).map((_, index) => index);
const into = [new Uint32Array(4096), new Uint32Array(4096), new Uint32Array(4096)] as const;

for (const [label, blocks] of [
  ['1 GiB', 2 ** 18],
  ['64 GiB', 2 ** 24],
] as const) {
  const { map, rows } = newMap(pool);
  for (let block = 0; block < blocks; block += 1024) {
    await map.pin(block, 1024);
    map.set(block, 1024, rows[0] ?? 1, 0, crcs, 0);
    map.unpin(block, 1024);
  }
  console.log(`volume of ${label}, fully mapped, pages resident`);
  best('  pin + set + unpin, 1 block, random', OPERATIONS, () => {
    for (let count = 0; count < OPERATIONS; count += 1) {
      const block = random(blocks);
      void map.pin(block, 1);
      map.set(block, 1, rows[count & 63] ?? 1, 4096, crcs, count & 4095);
      map.unpin(block, 1);
    }
  });
  best('  pin + set + unpin, 16 blocks, random', OPERATIONS / 4, () => {
    for (let count = 0; count < OPERATIONS / 4; count += 1) {
      const block = random(blocks - 16);
      void map.pin(block, 16);
      map.set(block, 16, rows[count & 63] ?? 1, 4096, crcs, count & 1023);
      map.unpin(block, 16);
    }
  });
  await map.pin(0, 1024);
  best('  set alone, 1 block, one page', OPERATIONS, () => {
    for (let count = 0; count < OPERATIONS; count += 1) map.set(count & 1023, 1, rows[count & 63] ?? 1, 4096, crcs, count & 4095);
  });
  map.unpin(0, 1024);
  best('  read, 1 block, random', OPERATIONS, () => {
    for (let count = 0; count < OPERATIONS; count += 1) map.read(random(blocks), 1, ...into);
  });
  best('  read, 16 blocks, random', OPERATIONS, () => {
    for (let count = 0; count < OPERATIONS; count += 1) map.read(random(blocks - 16), 16, ...into);
  });
  best('  read, 256 blocks, random', OPERATIONS / 10, () => {
    for (let count = 0; count < OPERATIONS / 10; count += 1) map.read(random(blocks - 256), 256, ...into);
  });
  await once('  truncate to nothing', () => map.truncate(0));
  map.close();
}

console.log('volume of 1 TiB, fully mapped, pool of 256 MiB (3.2 GiB of pages)');
const { map, table, rows } = newMap(pool);
const spilled = await once('  set all blocks, 1024 at a time, spilling', async () => {
  for (let block = 0; block < 2 ** 28; block += 1024) {
    await map.pin(block, 1024);
    map.set(block, 1024, rows[0] ?? 1, 0, crcs, 0);
    map.unpin(block, 1024);
  }
  return pool.stats;
});
console.log(`  ${spilled.spilledPages} pages spilled, directory ${(map.directory.memoryBytes / 2 ** 20).toFixed(1)} MiB`);
const frozen = await once('  beginCheckpoint of 262,144 dirty pages (one pause)', () => map.beginCheckpoint());
// The images would need 3.2 GiB here: they are dropped and only the manifest is kept, at its place.
let parts: { at: number; bytes: Uint8Array }[] = [];
let at = 0;
const byteCount = await once('  encode', async () => {
  for await (const chunk of frozen.encode(describe(1))) {
    parts.push({ at, bytes: chunk });
    at += chunk.byteLength;
    if (parts.length > 40) parts = [...parts.slice(0, 1), ...parts.slice(2)];
  }
  return at;
});
const row = table.add({ kind: 'checkpoint', bucket: '', objectUuid: '', term: TERM, number: 1, sizeBytes: byteCount });
await once('  commit (one pause)', () => frozen.commit(row));
const opened = await once('  open', () =>
  openCheckpoint({
    reader: {
      description: 'bench',
      size: () => Promise.resolve(byteCount),
      read: (offsetBytes, lengthBytes) => {
        const bytes = Buffer.alloc(lengthBytes);
        for (const part of parts) {
          const from = Math.max(offsetBytes, part.at);
          const to = Math.min(offsetBytes + lengthBytes, part.at + part.bytes.byteLength);
          if (from < to) bytes.set(part.bytes.subarray(from - part.at, to - part.at), from - offsetBytes);
        }
        return Promise.resolve(bytes);
      },
    },
    pool,
    rowIds: ids,
    sourceOf: () => source,
  }),
);
console.log(
  `  object of ${(byteCount / 2 ** 20).toFixed(0)} MiB, directory after opening ${(opened.map.directory.memoryBytes / 2 ** 20).toFixed(1)} MiB`,
);
opened.map.close();
map.close();
await pool.close();
await rm(directory, { recursive: true });
