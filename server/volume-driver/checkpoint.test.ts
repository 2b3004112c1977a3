import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';

import fc from 'fast-check';

import { errorCode } from '../core/errors.ts';
import { FOOTER_BYTES, MANIFEST_HEAD_BYTES, PAGE_RECORD_BYTES, ROW_RECORD_BYTES, TERM_RECORD_BYTES } from './checkpoint-codec.ts';
import {
  CheckpointStore,
  collect,
  contentOf,
  describeCheckpoint,
  MemoryDisk,
  type Model,
  openPool,
  readerOf,
  segment,
  sorted,
  storeCheckpoint,
  TERM,
} from './extent-map.fixture.ts';
import { ExtentMap } from './extent-map.ts';
import { type OpenedCheckpoint, openCheckpoint } from './open-checkpoint.ts';
import { FRAME_BYTES } from './page-image.ts';
import type { PagePool } from './page-pool.ts';
import { countingRowIds, SegmentTable } from './segment-table.ts';

const OTHER_UUID = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa';
const GARBAGE = [
  { bucket: '', name: 'seg-0000000001-1-6-00000000000000aa', sizeBytes: 4_194_304, sinceMs: 1_700_000_000_000.25 },
  { bucket: 'elsewhere', name: 'ckp-0000000002-1-6-00000000000000aa', sizeBytes: 99, sinceMs: 1_700_000_000_001 },
];

interface Built {
  readonly store: CheckpointStore;
  readonly pool: PagePool;
  readonly table: SegmentTable;
  readonly map: ExtentMap;
  /** The newest checkpoint: pages in itself and in an older one, rows of all kinds, garbage. */
  readonly bytes: Buffer;
  readonly content: Model;
}

async function build(): Promise<Built> {
  const pool = await openPool(new MemoryDisk(), { bytesMax: 64 * FRAME_BYTES });
  const table = new SegmentTable(countingRowIds());
  const store = new CheckpointStore();
  const map = new ExtentMap({ pool, table, source: store.sourceOf(table) });
  const rows = [
    table.add(segment(1)),
    table.add({ ...segment(2), bucket: 'parent-bucket', objectUuid: OTHER_UUID, term: { generation: 2, counter: 1, nonce: 'ffffffffffffffff' } }),
    table.add({ ...segment(3), kind: 'piece', bucket: 'shared' }),
  ];
  async function put(block: number, count: number, row: number): Promise<void> {
    await map.pin(block, count);
    map.set(
      block,
      count,
      row,
      4096,
      Array.from({ length: count }, (_, index) => block + index),
      0,
    );
    map.unpin(block, count);
  }
  await put(0, 2048, rows[0]!);
  await put(10 * 1024 + 5, 7, rows[1]!);
  await storeCheckpoint(map.beginCheckpoint(), table, store, 4);
  await put(1024 + 3, 2, rows[2]!);
  await put(99 * 1024, 1, rows[1]!);
  const content = await contentOf(map);
  const frozen = map.beginCheckpoint();
  const bytes = await collect(frozen.encode(describeCheckpoint(5, { garbage: GARBAGE })));
  const row = table.add({ kind: 'checkpoint', bucket: '', objectUuid: '', term: TERM, number: 5, sizeBytes: bytes.byteLength });
  store.objects.set(table.objectName(row), bytes);
  frozen.commit(row);
  return { store, pool, table, map, bytes, content };
}

async function open(built: Built, bytes: Buffer): Promise<OpenedCheckpoint> {
  // Pages of the opened object are read from the same hostile bytes.
  const own = 'ckp-0000000005-1-7-0123456789abcdef';
  built.store.objects.set(own, bytes);
  try {
    return await openCheckpoint({ reader: readerOf('test', bytes), pool: built.pool, rowIds: countingRowIds(), sourceOf: built.store.sourceOf });
  } catch (error) {
    built.store.objects.set(own, built.bytes);
    throw error;
  }
}

test('what a checkpoint says is what was said: rows, header, garbage, blocks', async () => {
  const built = await build();
  const opened = await open(built, built.bytes);
  for (const row of built.table.rows()) {
    const name = built.table.objectName(row);
    const other = [...opened.table.rows()].find((each) => opened.table.objectName(each) === name);
    assert.ok(other !== undefined, name);
    assert.deepEqual(opened.table.row(other), built.table.row(row));
    assert.equal(opened.table.live(other), built.table.live(row), name);
  }
  const { garbage: _, ...fields } = describeCheckpoint(5);
  assert.deepEqual(
    { ...opened.header, attributes: opened.header.attributes.toString() },
    { ...fields, mappedBlocks: 2056, attributes: 'attributes' },
  );
  assert.deepEqual(opened.garbage, GARBAGE);
  assert.deepEqual(sorted(await contentOf(opened.map)), sorted(built.content));
  assert.deepEqual(await opened.map.verify(), []);
  const globalIds = [...opened.table.rows()].map((row) => opened.table.globalId(row));
  assert.equal(new Set(globalIds).size, globalIds.length);
});

test('a row freed and one added during a checkpoint do not change what it says', async () => {
  const built = await build();
  const { map, table, store } = built;
  const unused = table.add(segment(7));
  const frozen = map.beginCheckpoint();
  table.free(unused);
  const later = table.add(segment(8));
  assert.notEqual(later, unused);
  const bytes = await collect(frozen.encode(describeCheckpoint(6)));
  const row = table.add({ kind: 'checkpoint', bucket: '', objectUuid: '', term: TERM, number: 6, sizeBytes: bytes.byteLength });
  store.objects.set(table.objectName(row), bytes);
  frozen.commit(row);
  const opened = await openCheckpoint({ reader: readerOf('test', bytes), pool: built.pool, rowIds: countingRowIds(), sourceOf: store.sourceOf });
  const names = [...opened.table.rows()].map((each) => opened.table.objectName(each));
  assert.ok(names.includes('seg-0000000007-1-7-0123456789abcdef'));
  assert.ok(!names.includes('seg-0000000008-1-7-0123456789abcdef'));
  assert.equal(table.add(segment(9)), unused);
});

test('version 1, byte for byte: one sparse page, one row', async () => {
  const pool = await openPool(new MemoryDisk(), { bytesMax: 16 * FRAME_BYTES });
  const table = new SegmentTable(countingRowIds());
  const map = new ExtentMap({ pool, table, source: new CheckpointStore().sourceOf(table) });
  const row = table.add(segment(3));
  await map.pin(2 * 1024 + 9, 1);
  map.set(2 * 1024 + 9, 1, row, 0x1000, [0xdeadbeef], 0);
  const bytes = await collect(map.beginCheckpoint().encode(describeCheckpoint(1, { attributes: Buffer.from('hi') })));
  const words = (text: string): string => text.replace(/#.*$/gm, '').replace(/\s+/g, '');
  const expected = words(`
    # header
    5646434b50303031 01000000 86000000          # magic, version, length 134
    00112233445566778899aabbccddeeff            # object uuid
    ffeeddccbbaa99887766554433221100            # vPool uuid
    0100000000000000 0700000000000000 0123456789abcdef  # term
    0100000000000000 e803000000000000           # checkpoint 1, sequence 1000
    0200000000000000 0000000000 3e0000          # next segment 2, 62 TiB
    0100000000000000 00108056febc7842           # 1 mapped block, created 1,700,000,000,001 ms
    02000000 00000000 6869                      # attributes "hi"
    ${hexOfCrc(bytes, 0, 130)}
  `);
  assert.equal(bytes.toString('hex', 0, 134), expected);
  assert.equal(bytes.toString('hex', 134, 192), '00'.repeat(58), 'images begin at a multiple of 64');
  const image = words(`
    5047 02 00 02000000 0100 0000 00000000      # 'PG', sparse, page 2, 1 block
    0002 ${'00'.repeat(126)}                    # bit 9
    01000000 00100000 efbeadde                  # row 1, offset, crc
  `);
  assert.equal(bytes.toString('hex', 192, 192 + 156), image);
  const manifest = words(`
    5646434b4d414e31 01000000 01000000 02000000 # magic, 1 page, 1 row, rows end at 2
    01000000 00000000 00000000 00000000         # 1 term, no uuids, no buckets
    00000000 00000000 ${'00'.repeat(20)}        # no garbage
    0100000000000000 0700000000000000 0123456789abcdef
    01000000 01 00 0000 00000000 00000000       # row 1, segment, own bucket, own uuid, term 0
    0300000000000000 0000400000000000           # number 3, 4 MiB
    01000000 00000000                           # 1 reference
    02000000 00000000 03000000 ${hexOfCrc(bytes, 192, 348)} 9c00 0100  # page 2, this object, 3 x 64, crc, 156 bytes, 1 block
  `);
  assert.equal(bytes.toString('hex', 348, 348 + 148), manifest);
  const footer = words(`
    5646434b454e4431 01000000 86000000          # magic, version, header length
    3002000000000000 5c01000000000000 9400000000000000  # object 560, manifest at 348, 148 long
    ${hexOfCrc(bytes, 348, 496)} ${hexOfCrc(bytes, 0, 134)}
    01000000 0000000000000000                   # 1 image
    ${hexOfCrc(bytes, 496, 556)}
  `);
  assert.equal(bytes.toString('hex', 496), footer);
});

function hexOfCrc(bytes: Buffer, from: number, to: number): string {
  const crc = Buffer.alloc(4);
  crc.writeUInt32LE(crc32(bytes.subarray(from, to)));
  return crc.toString('hex');
}

/** Makes all CRCs outside the page images right again. */
function repairCrcs(bytes: Buffer): void {
  if (bytes.byteLength < FOOTER_BYTES) return;
  const footer = bytes.subarray(bytes.byteLength - FOOTER_BYTES);
  const headerBytes = footer.readUInt32LE(12);
  if (headerBytes >= 132 && headerBytes <= bytes.byteLength) {
    bytes.writeUInt32LE(crc32(bytes.subarray(0, headerBytes - 4)), headerBytes - 4);
    footer.writeUInt32LE(crc32(bytes.subarray(0, headerBytes)), 44);
  }
  const manifestAt = footer.readUInt32LE(24);
  if (manifestAt <= bytes.byteLength - FOOTER_BYTES) footer.writeUInt32LE(crc32(bytes.subarray(manifestAt, bytes.byteLength - FOOTER_BYTES)), 40);
  footer.writeUInt32LE(crc32(footer.subarray(0, 60)), 60);
}

const mutation = fc.oneof(
  fc.record({ kind: fc.constant('flip' as const), at: fc.nat(), bit: fc.nat(7) }),
  fc.record({
    kind: fc.constant('word' as const),
    at: fc.nat(),
    value: fc.oneof(fc.nat(40), fc.integer(), fc.constantFrom(-1, 0x7fffffff, -0x80000000, 0xffff)),
  }),
  fc.record({ kind: fc.constant('cut' as const), at: fc.nat() }),
  fc.record({ kind: fc.constant('copy' as const), at: fc.nat(), from: fc.nat(), length: fc.nat(200) }),
);

/** Mutations fall near the end (manifest and footer), at the start (header), or anywhere. */
function mutate(original: Buffer, changes: readonly (typeof mutation extends fc.Arbitrary<infer T> ? T : never)[], where: number): Buffer {
  let bytes = Buffer.from(original);
  const at = (raw: number): number => {
    const size = bytes.byteLength;
    if (size === 0) return 0;
    return where === 0 ? raw % size : where === 1 ? raw % Math.min(160, size) : size - 1 - (raw % Math.min(700, size));
  };
  for (const change of changes) {
    const from = at(change.at);
    if (bytes.byteLength === 0) break;
    if (change.kind === 'flip') bytes[from] = bytes[from]! ^ (1 << change.bit);
    else if (change.kind === 'cut') bytes = Buffer.from(bytes.subarray(0, from));
    else if (change.kind === 'word') {
      if (from + 4 <= bytes.byteLength) bytes.writeInt32LE(change.value | 0, from);
    } else bytes.copyWithin(from, change.from % bytes.byteLength, (change.from % bytes.byteLength) + change.length);
  }
  return bytes;
}

test('a checkpoint whose bytes changed is refused as corrupt, or says exactly the same', async () => {
  const built = await build();
  let refused = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(mutation, { minLength: 1, maxLength: 4 }), fc.integer({ min: 0, max: 2 }), async (changes, where) => {
      const bytes = mutate(built.bytes, changes, where);
      let opened: OpenedCheckpoint;
      try {
        opened = await open(built, bytes);
        assert.deepEqual(sorted(await contentOf(opened.map)), sorted(built.content));
      } catch (error) {
        if (errorCode(error) !== 'checkpoint-corrupt') throw error;
        refused += 1;
        return;
      }
      assert.deepEqual(await opened.map.verify(), []);
      opened.map.close();
    }),
    { numRuns: Number(process.env['CHECKPOINT_RUNS'] ?? 400) },
  );
  assert.ok(refused > 100);
});

test('a checkpoint with any fields under right CRCs is refused or opened, and nothing that follows crashes', async () => {
  const built = await build();
  let opens = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(mutation, { minLength: 1, maxLength: 4 }), fc.integer({ min: 1, max: 2 }), async (changes, where) => {
      const bytes = mutate(built.bytes, changes, where);
      repairCrcs(bytes);
      try {
        const { map, table } = await open(built, bytes);
        opens += 1;
        const row = table.add(segment(77));
        for (const block of [0, 1024, 10 * 1024, 99 * 1024]) {
          await map.pin(block, 9);
          map.set(block, 9, row, 0, new Uint32Array(9), 0);
          map.unpin(block, 9);
        }
        await map.truncate(1);
        const frozen = map.beginCheckpoint();
        await collect(frozen.encode(describeCheckpoint(8)));
        frozen.abandon();
      } catch (error) {
        if (errorCode(error) !== 'checkpoint-corrupt' && !/is not stored/.test((error as Error).message)) throw error;
      }
    }),
    { numRuns: Number(process.env['CHECKPOINT_RUNS'] ?? 400) },
  );
  assert.ok(opens > 10, `${opens} opened`);
});

test('each reference of a manifest that points nowhere is named', async () => {
  const built = await build();
  const manifestAt = built.bytes.readUInt32LE(built.bytes.byteLength - FOOTER_BYTES + 24);
  const head = built.bytes.subarray(manifestAt);
  const [pages, rows] = [head.readUInt32LE(8), head.readUInt32LE(12)];
  const rowsAt = manifestAt + MANIFEST_HEAD_BYTES + head.readUInt32LE(20) * TERM_RECORD_BYTES + head.readUInt32LE(24) * 16 + head.readUInt32LE(32);
  const pagesAt = rowsAt + rows * ROW_RECORD_BYTES;
  const garbageAt = pagesAt + pages * PAGE_RECORD_BYTES;
  const cases: [string, number, number, RegExp][] = [
    ['page beyond 64 TiB', pagesAt, 2 ** 24, /bad fields/],
    ['page twice', pagesAt, built.bytes.readUInt32LE(pagesAt + PAGE_RECORD_BYTES), /there twice/],
    ['page in a segment', pagesAt + 4, 1, /points to row 1/],
    ['page in a row that is not there', pagesAt + 4, 4_000_000, /points to row 4000000/],
    ['page outside its object', pagesAt + 8, 0x7fffffff, /outside its object/],
    ['row 0', rowsAt, 0, /bad fields/],
    ['rows out of order', rowsAt + ROW_RECORD_BYTES, 1, /out of order/],
    ['kind', rowsAt + 4, 9, /bad fields/],
    ['bucket', rowsAt + 6, 99, /outside the lists/],
    ['uuid', rowsAt + 8, 99, /outside the lists/],
    ['term', rowsAt + 12, 99, /outside the lists/],
    ['references', rowsAt + 32, 5, /references/],
    ['garbage name', garbageAt + 20, 0x41414141, /bad entry/],
    ['page count', manifestAt + 8, pages + 1, /counts make/],
    ['row count', manifestAt + 12, 2 ** 24, /impossible counts/],
    ['mapped blocks', 104, 1, /the header says/],
  ];
  for (const [what, at, value, message] of cases) {
    const bytes = Buffer.from(built.bytes);
    if (what === 'kind') bytes.writeUInt8(value, at);
    else if (what === 'bucket') bytes.writeUInt16LE(value, at);
    else bytes.writeUInt32LE(value, at);
    repairCrcs(bytes);
    await assert.rejects(open(built, bytes), { code: 'checkpoint-corrupt', message }, what);
  }
});
