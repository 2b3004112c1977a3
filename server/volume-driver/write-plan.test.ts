import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';

import fc from 'fast-check';

import { BLOCK_BYTES, RECORD_BLOCKS_MAX, RecordKind } from '../object-log/segment-codec.ts';
import { copyChunks, planBlocks, sliceChunks } from './write-plan.ts';

/** Blocks as numbers: 0 a block of zeros, 1 one of random-looking bytes, others zeros but for one byte at that place. */
const block = fc.oneof(fc.constant(0), fc.constant(0), fc.constant(1), fc.integer({ min: 2, max: BLOCK_BYTES + 1 }));
const cuts = fc.array(fc.nat(40 * BLOCK_BYTES), { maxLength: 12 });

function blockOf(what: number, index: number): Buffer {
  if (what === 1) return Buffer.alloc(BLOCK_BYTES, `block ${index}.`);
  const bytes = Buffer.alloc(BLOCK_BYTES);
  if (what > 1) bytes[what - 2] = 1 + (index & 0x7f);
  return bytes;
}

/** Cuts bytes at any places, empty chunks included. */
function chunked(bytes: Buffer, at: readonly number[]): Buffer[] {
  const places = [0, ...at.filter((place) => place <= bytes.length).toSorted((a, b) => a - b), bytes.length];
  return places.slice(1).map((end, index) => bytes.subarray(places[index], end));
}

test('records say exactly the blocks that were written, zeros without payload, wherever chunks end', () => {
  fc.assert(
    fc.property(fc.array(block, { minLength: 1, maxLength: 40 }), cuts, fc.nat(1000), (blocks, at, startBlock) => {
      const content = Buffer.concat(blocks.map(blockOf));
      const records = planBlocks(startBlock, blocks.length, chunked(content, at));
      let next = startBlock;
      for (const record of records) {
        assert.equal(record.startBlock, next);
        assert.ok(record.blockCount > 0);
        const from = (next - startBlock) * BLOCK_BYTES;
        const expected = content.subarray(from, from + record.blockCount * BLOCK_BYTES);
        if (record.kind === RecordKind.ZERO) {
          assert.ok(expected.every((byte) => byte === 0));
          assert.deepEqual([record.payloadBytes, record.chunks.length, record.crcs.length], [0, 0, 0]);
        } else {
          assert.equal(record.kind, RecordKind.DATA);
          assert.ok(Buffer.concat(record.chunks).equals(expected));
          assert.equal(record.payloadBytes, expected.length);
          for (let index = 0; index < record.blockCount; index += 1) {
            const bytes = expected.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
            assert.ok(
              bytes.some((byte) => byte !== 0),
              'a block of zeros has no payload',
            );
            assert.equal(record.crcs[index], crc32(bytes));
          }
        }
        next += record.blockCount;
      }
      assert.equal(next, startBlock + blocks.length);
      for (let index = 1; index < records.length; index += 1) assert.notEqual(records[index]!.kind, records[index - 1]!.kind, 'runs are whole');
    }),
  );
});

test('a write larger than a record becomes several', () => {
  const count = RECORD_BLOCKS_MAX + 1;
  const records = planBlocks(5, count, [Buffer.alloc(count * BLOCK_BYTES, 7)]);
  assert.deepEqual(
    records.map((record) => [record.startBlock, record.blockCount]),
    [
      [5, RECORD_BLOCKS_MAX],
      [5 + RECORD_BLOCKS_MAX, 1],
    ],
  );
  assert.equal(planBlocks(5, RECORD_BLOCKS_MAX, [Buffer.alloc(RECORD_BLOCKS_MAX * BLOCK_BYTES, 7)]).length, 1);
});

test('slices of chunks are what slices of their concatenation are, without a copy', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.array(fc.nat(200), { maxLength: 6 }), fc.nat(200), fc.nat(200), (bytes, at, from, length) => {
      const whole = Buffer.from(bytes);
      const chunks = chunked(whole, at);
      const parts = sliceChunks(chunks, from, length);
      const expected = whole.subarray(from, from + length);
      assert.ok(Buffer.concat(parts).equals(expected));
      for (const part of parts) assert.equal(part.buffer, whole.buffer);
      const target = Buffer.alloc(300, 0xee);
      copyChunks(chunks, from, length, target, 50);
      assert.ok(target.subarray(50, 50 + expected.length).equals(expected));
      assert.ok(target.subarray(0, 50).every((byte) => byte === 0xee) && target.subarray(50 + expected.length).every((byte) => byte === 0xee));
    }),
  );
});
