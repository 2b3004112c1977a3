import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { AssertionError } from '../core/assert.ts';
import { XdrError } from './xdr-error.ts';
import type { XdrErrorReason } from './xdr-error.ts';
import { XdrReader } from './xdr-reader.ts';
import { XdrWriter } from './xdr-writer.ts';

function hex(text: string): Buffer {
  return Buffer.from(text.replaceAll(' ', ''), 'hex');
}

function written(encode: (writer: XdrWriter) => void): string {
  const writer = new XdrWriter(Buffer.alloc(256, 0xee));
  encode(writer);
  return writer.written().toString('hex');
}

function fails(reason: XdrErrorReason, read: () => unknown): void {
  assert.throws(read, (error) => error instanceof XdrError && error.reason === reason);
}

test('RFC 4506 §4.2: an unsigned integer is big-endian in four bytes', () => {
  assert.equal(
    written((w) => w.uint32(0xfedc_ba98)),
    'fedcba98',
  );
  assert.equal(new XdrReader([hex('fedcba98')]).uint32(), 0xfedc_ba98);
});

test('RFC 4506 §4.1: a signed integer is in two complement notation', () => {
  assert.equal(
    written((w) => w.int32(-2)),
    'fffffffe',
  );
  assert.equal(new XdrReader([hex('fffffffe')]).int32(), -2);
});

test('RFC 4506 §4.4: a boolean is 0 or 1, anything else does not decode', () => {
  const reader = new XdrReader([hex('00000001 00000000 00000002')]);
  assert.equal(reader.bool(), true);
  assert.equal(reader.bool(), false);
  fails('bad-bool', () => reader.bool());
});

test('RFC 4506 §4.5: a hyper is eight bytes, exact as bigint and as number up to 2^53-1', () => {
  for (const value of [0n, 1n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 32n + 1n, 2n ** 53n - 1n]) {
    const expected = value.toString(16).padStart(16, '0');
    assert.equal(
      written((w) => w.uint64(value)),
      expected,
    );
    assert.equal(
      written((w) => w.uint64FromNumber(Number(value))),
      expected,
    );
    assert.equal(new XdrReader([hex(expected)]).uint64(), value);
    assert.equal(new XdrReader([hex(expected)]).uint64AsNumber(), Number(value));
  }
  for (const value of ['0020000000000000', '0020000000000001', 'ffffffffffffffff']) {
    fails('unsafe-integer', () => new XdrReader([hex(value)]).uint64AsNumber());
    assert.equal(new XdrReader([hex(value)]).uint64(), BigInt(`0x${value}`));
  }
});

test('RFC 4506 §4.10: variable-length opaque is a count, the bytes, and zeros up to a multiple of four', () => {
  assert.equal(
    written((w) => w.opaque(hex('0102030405'))),
    '000000050102030405000000',
  );
  const reader = new XdrReader([hex('00000005 0102030405000000 0000002a')]);
  assert.equal(reader.opaque(5).toString('hex'), '0102030405');
  assert.equal(reader.uint32(), 42);
  reader.assertEnd();
});

test('RFC 4506 §4.11: a string is its bytes, one character each', () => {
  assert.equal(
    written((w) => w.string('sillyprog')),
    '0000000973696c6c7970726f67000000',
  );
  assert.equal(new XdrReader([hex('00000002 e9ff0000')]).string(2), '\u00e9\u00ff');
});

test('RFC 4506 §3: an empty opaque has no padding', () => {
  assert.equal(
    written((w) => w.opaque(Buffer.alloc(0))),
    '00000000',
  );
  assert.equal(new XdrReader([hex('00000000')]).opaque(0).length, 0);
});

test('a count above the declared maximum is too long, and a count above the message is truncated, without allocating it', () => {
  fails('too-long', () => new XdrReader([hex('00000005 0102030405000000')]).opaque(4));
  const before = process.memoryUsage().arrayBuffers;
  for (const count of ['7fffffff', '80000000', 'fffffffd', 'ffffffff']) {
    fails('truncated', () => new XdrReader([hex(`${count} 01020304`)]).opaque(0xffff_ffff));
    fails('truncated', () => new XdrReader([hex(`${count} 01020304`)]).string(0xffff_ffff));
    fails('truncated', () => new XdrReader([hex(`${count} 01020304`)]).opaqueChunks(0xffff_ffff));
  }
  assert.ok(process.memoryUsage().arrayBuffers - before < 1_000_000);
});

test('a message that ends early is truncated wherever it ends, and bytes left over are trailing', () => {
  fails('truncated', () => new XdrReader([]).uint32());
  fails('truncated', () => new XdrReader([hex('000000')]).uint32());
  fails('truncated', () => new XdrReader([hex('00'), hex('0000')]).uint32());
  fails('truncated', () => new XdrReader([hex('00000000 000000')]).uint64());
  fails('truncated', () => new XdrReader([hex('00000001 01')]).opaque(9));
  fails('trailing-bytes', () => new XdrReader([hex('00')]).assertEnd());
});

test('items are the same however the message is cut into chunks', () => {
  const message = Buffer.alloc(256);
  const writer = new XdrWriter(message);
  writer.uint32(7);
  writer.opaque(hex('a1a2a3a4a5a6a7'));
  writer.uint64(0x1122_3344_5566n);
  writer.string('name');
  writer.bool(true);
  writer.opaque(hex('b1b2b3b4b5'));
  writer.fixed(hex('c1c2c3'));
  const bytes = writer.written();
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: bytes.length }), { maxLength: 12 }), (cuts) => {
      const edges = [0, ...cuts.sort((a, b) => a - b), bytes.length];
      const reader = new XdrReader(edges.slice(1).map((edge, i) => bytes.subarray(edges[i], edge)));
      assert.equal(reader.remaining, bytes.length);
      assert.equal(reader.uint32(), 7);
      assert.equal(reader.opaque(7).toString('hex'), 'a1a2a3a4a5a6a7');
      assert.equal(reader.uint64AsNumber(), 0x1122_3344_5566);
      assert.equal(reader.string(8), 'name');
      assert.equal(reader.bool(), true);
      const payload = reader.opaqueChunks(5);
      assert.equal(payload.countBytes, 5);
      assert.equal(Buffer.concat(payload.chunks).toString('hex'), 'b1b2b3b4b5');
      assert.ok(payload.chunks.every((chunk) => chunk.length > 0));
      assert.equal(reader.fixed(3).toString('hex'), 'c1c2c3');
      reader.assertEnd();
    }),
    { seed: 1813, numRuns: 500 },
  );
});

test('opaqueChunks hands out slices of the received chunks, not copies', () => {
  const first = hex('00000006 010203');
  const second = hex('040506 0000');
  const payload = new XdrReader([first, second]).opaqueChunks(6);
  first[4] = 0xaa;
  second[0] = 0xbb;
  assert.deepEqual(
    payload.chunks.map((chunk) => chunk.toString('hex')),
    ['aa0203', 'bb0506'],
  );
});

test('a reader pointed at a range of a buffer stays within it', () => {
  const reader = new XdrReader([]);
  reader.reset(hex('00000001 00000002 00000003'), 4, 8);
  assert.equal(reader.remaining, 4);
  assert.equal(reader.uint32(), 2);
  fails('truncated', () => reader.uint32());
});

test('rewind drops what was written, reserve leaves room, alignment counts from the start of the region', () => {
  const buffer = Buffer.alloc(32, 0xee);
  const writer = new XdrWriter(buffer, 2, 30);
  writer.uint32(1);
  const mark = writer.position;
  writer.uint32(2);
  writer.rewind(mark);
  writer.reserve(3).fill(0x11);
  writer.pad();
  assert.equal(writer.position, 8);
  assert.equal(writer.remaining, 20);
  assert.equal(writer.written().toString('hex'), '0000000111111100');
  assert.equal(buffer.toString('hex', 0, 2), 'eeee');
  assert.throws(() => writer.rewind(9), AssertionError);
});

test('writing behind the end of the region is a bug, and touches nothing behind it', () => {
  const buffer = Buffer.alloc(12, 0xee);
  const writer = new XdrWriter(buffer, 0, 6);
  writer.uint32(0);
  assert.throws(() => writer.uint32(1), AssertionError);
  assert.throws(() => writer.opaque(Buffer.alloc(3)), AssertionError);
  assert.throws(() => writer.reserve(3), AssertionError);
  assert.equal(buffer.toString('hex', 4), 'eeeeeeeeeeeeeeee');
});
