import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';

import { MemoryStore } from '../../backends/memory/memory-store.ts';
import type { ByteRange, GetOutcome } from '../../backends/object-store.ts';
import { VirtualClock } from '../../backends/virtual-clock.ts';
import type { ObjectUuid } from '../core/ids.ts';
import { silentLogger } from '../core/logger.ts';
import { BackendReads } from './backend-reads.ts';
import { TERM } from './extent-map.fixture.ts';
import { countingRowIds, SegmentTable } from './segment-table.ts';
import { volumeNames } from './storage-names.ts';
import { StoredPages } from './stored-pages.ts';

const UUID = '00112233445566778899aabbccddeeff' as ObjectUuid;
const NAMES = volumeNames('vpool1');

class CountingStore extends MemoryStore {
  readonly ranges: string[] = [];
  /** Damages this many answers to come. */
  damage = 0;

  override async get(bucket: string, name: string, range?: ByteRange): Promise<GetOutcome> {
    this.ranges.push(`${range?.offsetBytes}+${range?.lengthBytes}`);
    const answer = await super.get(bucket, name, range);
    if (this.damage > 0 && answer.kind === 'found') {
      this.damage -= 1;
      answer.bytes[100]! ^= 1;
    }
    return answer;
  }
}

async function setUp() {
  const store = new CountingStore();
  const clock = new VirtualClock();
  const table = new SegmentTable(countingRowIds());
  const bytes = Buffer.from(Uint8Array.from({ length: 200_000 }, (_, index) => (index * 31) ^ (index >>> 8)));
  const rows = [1, 2].map((number) => table.add({ kind: 'checkpoint', bucket: '', objectUuid: '', term: TERM, number, sizeBytes: bytes.length }));
  await store.createBucket(NAMES.bucket(UUID, ''));
  for (const row of rows) await store.put(NAMES.bucket(UUID, ''), table.objectName(row), { kind: 'bytes', chunks: [bytes] });
  const pages = new StoredPages({ store, reads: new BackendReads({ clock, logger: silentLogger }), names: NAMES }, UUID, table);
  const part = (at: number, length: number): Buffer => bytes.subarray(at, at + length);
  const read = (row: number, at: number, length: number): Promise<Buffer> => pages.read(rows[row]!, at, length, crc32(part(at, length)));
  return { store, clock, part, read };
}

test('pages of one object that are asked for in one turn and lie near each other are one request', async () => {
  const { store, clock, part, read } = await setUp();
  const places = [
    [0, 24_000, 12_000],
    [0, 0, 12_000],
    [0, 12_032, 11_000],
    [1, 36_000, 500],
    [0, 100_000, 12_000],
  ] as const;
  const answers = await clock.run(Promise.all(places.map(([row, at, length]) => read(row, at, length))));
  for (const [index, [, at, length]] of places.entries()) assert.ok(answers[index]!.equals(part(at, length)));
  assert.deepEqual(store.ranges, ['0+36000', '100000+12000', '36000+500']);
});

test('a page that came wrong with others is asked for again by itself', async () => {
  const { store, clock, part, read } = await setUp();
  store.damage = 1;
  const answers = await clock.run(Promise.all([read(0, 0, 5000), read(0, 5000, 5000)]));
  assert.ok(answers[0].equals(part(0, 5000)) && answers[1].equals(part(5000, 5000)));
  assert.deepEqual(store.ranges, ['0+10000', '0+5000']);
});

test('a page of an object that is not there is waited for', async () => {
  const { clock, read, store } = await setUp();
  const [name] = (await store.list(NAMES.bucket(UUID, ''), 'ckp', '', 1)).names;
  await store.delete(NAMES.bucket(UUID, ''), name!);
  await assert.rejects(clock.run(read(0, 0, 5000)), { name: 'StoreError', class: 'retry' });
  assert.equal(store.ranges.length, 4);
});
