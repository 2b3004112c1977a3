import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';

import fc from 'fast-check';

import type { Term } from '../core/ids.ts';
import {
  BLOCK_BYTES,
  decodeFooter,
  decodeIndex,
  decodeRecord,
  decodeSegmentHeader,
  encodeFooter,
  encodeRecordHead,
  encodeSegmentHeader,
  encodeTimes,
  readUint53,
  RECORD_HEADER_BYTES,
  RecordFlag,
  RecordKind,
  recordHeadBytes,
  SEAL_FOOTER_BYTES,
  SEGMENT_HEADER_BYTES,
  SegmentIndex,
  verifyPayload,
  writeUint53,
} from './segment-codec.ts';
import type { EncodableRecord, SegmentHeader } from './segment-codec.ts';

const TERM: Term = { generation: 1, counter: 7, nonce: '0123456789abcdef' };
const SALT = 0xc0ffee11;
const HEADER: SegmentHeader = {
  vpoolUuid: '00112233445566778899aabbccddeeff',
  objectUuid: 'ffeeddccbbaa99887766554433221100',
  term: TERM,
  number: 5,
  salt: SALT,
  baseSequence: 1000,
  createdWallMs: 1_700_000_000_000,
  cut: { term: { generation: 1, counter: 6, nonce: 'fedcba9876543210' }, lastSegment: 4, lastSequence: 999 },
};

function record(fields: Partial<EncodableRecord> & Pick<EncodableRecord, 'kind'>): EncodableRecord {
  return {
    flags: 0,
    sequence: 1000,
    startBlock: 16,
    blockCount: 0,
    newSizeBytes: 131_072,
    seconds: 1_700_000_000,
    nanoseconds: 5,
    crcs: new Uint32Array(0),
    payloadBytes: 0,
    call: null,
    ...fields,
  };
}

function encode(from: EncodableRecord, payload: Buffer, durableSequence = 998, salt = SALT): Buffer {
  const bytes = Buffer.alloc(recordHeadBytes(from) + payload.length);
  const end = encodeRecordHead(bytes, 0, from, TERM, salt, durableSequence, from.kind === RecordKind.DATA ? 0 : crc32(payload));
  payload.copy(bytes, end);
  return bytes;
}

function dataRecord(blocks: number, fill = 0x5a): { from: EncodableRecord; payload: Buffer } {
  const payload = Buffer.alloc(blocks * BLOCK_BYTES, fill);
  const crcs = Uint32Array.from({ length: blocks }, (_, index) => crc32(payload.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES)));
  return { from: record({ kind: RecordKind.DATA, flags: RecordFlag.UNSTABLE, blockCount: blocks, crcs, payloadBytes: payload.length }), payload };
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes)
    .toString('hex')
    .replace(/(.{32})(?=.)/g, '$1 ');
}

test('the segment header, byte for byte; that of version 1 is read, one of the future is not', () => {
  assert.equal(hex(encodeSegmentHeader(HEADER)), GOLDEN_HEADER);
  assert.deepEqual(decodeSegmentHeader(Buffer.from(GOLDEN_HEADER.replaceAll(' ', ''), 'hex')), HEADER);
  const other = (version: number): Buffer => {
    const bytes = encodeSegmentHeader(HEADER);
    bytes.writeUInt32LE(version, 8);
    bytes.writeUInt32LE(crc32(bytes.subarray(0, 124)), 124);
    return bytes;
  };
  assert.deepEqual(decodeSegmentHeader(other(1)), HEADER);
  for (const version of [0, 3]) assert.equal(decodeSegmentHeader(other(version)), null);
});

test('a record that says of which call it is, is read so from its head; the index does not say it', () => {
  const call = Uint32Array.of(0xdead_beef, 1, 0xffff_ffff, 4);
  const times = encodeTimes([1, 2, 3, 4, 5, 6]);
  const { from: data, payload } = dataRecord(2);
  const attributes = record({ kind: RecordKind.ATTRIBUTES, startBlock: 0, payloadBytes: times.length });
  const zero = record({ kind: RecordKind.ZERO, blockCount: 3 });
  for (const { plain, bytes } of [
    { plain: data, bytes: payload },
    { plain: attributes, bytes: times },
    { plain: zero, bytes: Buffer.alloc(0) },
  ]) {
    const from = { ...plain, flags: plain.flags | RecordFlag.CALL, call };
    const encoded = encode(from, bytes);
    const decoded = decodeRecord(encoded, 0, TERM, SALT);
    assert.ok(decoded !== null);
    assert.deepEqual(decoded.call, call);
    assert.deepEqual(decoded.crcs, plain.crcs);
    assert.equal(decoded.endOffset, encoded.length);
    assert.ok(verifyPayload(encoded, decoded));
    assert.equal(decodeRecord(encode(plain, bytes), 0, TERM, SALT)?.call, null);
    // Every bit of the identity counts.
    for (let at = recordHeadBytes(plain); at < recordHeadBytes(from); at += 1) {
      const flipped = Buffer.from(encoded);
      flipped[at]! ^= 1;
      assert.equal(decodeRecord(flipped, 0, TERM, SALT), null);
    }
    const index = new SegmentIndex();
    index.add(from, 4096, from.kind === RecordKind.ATTRIBUTES ? times : null);
    const [entry] = decodeIndex(Buffer.from(index.payload()), 1) ?? [];
    assert.equal(entry?.call, null);
    assert.equal(entry?.flags, plain.flags);
  }
});

test('version 1 of record heads, byte for byte: DATA, ZERO, ATTRIBUTES', () => {
  const { from, payload } = dataRecord(2);
  assert.equal(hex(encode(from, payload).subarray(0, 80)), GOLDEN_DATA);
  assert.equal(hex(encode(record({ kind: RecordKind.ZERO, sequence: 1001, blockCount: 3 }), Buffer.alloc(0))), GOLDEN_ZERO);
  const times = encodeTimes([1, 2, 3, 4, 5, 6]);
  const attributes = record({ kind: RecordKind.ATTRIBUTES, sequence: 1002, startBlock: 0, payloadBytes: times.length });
  assert.equal(hex(encode(attributes, times)), GOLDEN_ATTRIBUTES);
});

test('version 1 of seal and footer, byte for byte', () => {
  assert.equal(hex(sealOf([]).seal), GOLDEN_SEAL);
  assert.equal(hex(sealOf([]).footer), GOLDEN_FOOTER);
});

function sealOf(records: readonly { from: EncodableRecord; at: number; times: Buffer | null }[]): { seal: Buffer; footer: Buffer; index: Buffer } {
  const index = new SegmentIndex();
  for (const { from, at, times } of records) index.add(from, at, times);
  const payload = Buffer.from(index.payload());
  const seal = encode(
    record({ kind: RecordKind.SEAL, startBlock: 0, blockCount: records.length, newSizeBytes: 0, payloadBytes: payload.length }),
    payload,
  );
  const footer = encodeFooter(
    {
      sealOffset: 128,
      indexOffset: 200,
      indexBytes: payload.length,
      entryCount: records.length,
      lastSequence: 1000,
      totalBytes: 200 + payload.length + SEAL_FOOTER_BYTES,
    },
    SALT,
  );
  return { seal, footer, index: payload };
}

const GOLDEN_HEADER =
  '56465345473030310200000011eeffc0 00112233445566778899aabbccddeeff ffeeddccbbaa99887766554433221100 01000000070000000123456789abcdef 0500000000000000e803000000000000 0068e5cf8b0100000100000006000000 fedcba98765432100400000000000000 e703000000000000010000008de3f353';
const GOLDEN_DATA =
  '5646523101010000e803000000000000 10000000000000000200000000200000 000002000000000000f1536505000000 e6030000000000000100000007000000 00000000ab0c6d68dd51d57cdd51d57c';
const GOLDEN_ZERO =
  '5646523102000000e903000000000000 10000000000000000300000000000000 000002000000000000f1536505000000 e6030000000000000100000007000000 0000000009ccc12c';
const GOLDEN_ATTRIBUTES =
  '5646523103000000ea03000000000000 00000000000000000000000018000000 000002000000000000f1536505000000 e6030000000000000100000007000000 be076faf438789a10100000002000000 03000000040000000500000006000000';
const GOLDEN_SEAL =
  '5646523107000000e803000000000000 00000000000000000000000000000000 000000000000000000f1536505000000 e6030000000000000100000007000000 00000000dbe66625';
const GOLDEN_FOOTER =
  '5646534547454e448000000000000000 c8000000000000000000000000000000 e8030000000000000801000000000000 000000000000000000000000104e61b0';

const uint53 = fc.maxSafeNat();
const uint32 = fc.nat(0xffff_ffff);
const term = fc.record(
  {
    generation: uint32,
    counter: uint32,
    nonce: fc.uint8Array({ minLength: 8, maxLength: 8 }).map((bytes) => Buffer.from(bytes).toString('hex')),
  },
  { noNullPrototype: true },
);
const uuid = fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => Buffer.from(bytes).toString('hex'));
const small = fc.nat(2 ** 40);

test('numbers of 64 bits survive, those that are not exact are NaN', () => {
  fc.assert(
    fc.property(uint53, (value) => {
      const bytes = Buffer.alloc(8);
      writeUint53(bytes, value, 0);
      assert.equal(readUint53(bytes, 0), value);
      assert.equal(bytes.readBigUInt64LE(0), BigInt(value));
    }),
  );
  assert.ok(Number.isNaN(readUint53(Buffer.from('0000000000002000', 'hex'), 0)));
});

test('every header comes back as it was', () => {
  const cut = fc.option(fc.record({ term, lastSegment: small, lastSequence: small }, { noNullPrototype: true }));
  fc.assert(
    fc.property(
      fc.record(
        { vpoolUuid: uuid, objectUuid: uuid, term, number: small, salt: uint32, baseSequence: small, createdWallMs: small, cut },
        { noNullPrototype: true },
      ),
      (header) => assert.deepEqual(decodeSegmentHeader(encodeSegmentHeader(header)), header),
    ),
  );
});

test('every record comes back as it was, and under another salt or term it is none', () => {
  const fields = fc.record(
    {
      kind: fc.constantFrom(RecordKind.ZERO, RecordKind.COMMIT_MARK, RecordKind.SNAPSHOT_MARK, RecordKind.TERM_START),
      flags: fc.constantFrom(0, RecordFlag.UNSTABLE),
      sequence: small,
      startBlock: fc.nat(2 ** 30),
      blockCount: fc.nat(1032),
      newSizeBytes: fc.nat(2 ** 40),
      seconds: uint32,
      nanoseconds: fc.nat(999_999_999),
    },
    { noNullPrototype: true },
  );
  fc.assert(
    fc.property(fields, uint32, small, (given, salt, durable) => {
      const from = record({ ...given, blockCount: given.kind === RecordKind.ZERO ? given.blockCount + 1 : 0 });
      const bytes = encode(from, Buffer.alloc(0), durable, salt);
      const decoded = decodeRecord(bytes, 0, TERM, salt);
      assert.ok(decoded !== null);
      assert.deepEqual({ ...given, blockCount: from.blockCount }, pick(decoded, Object.keys(given) as (keyof typeof given)[]));
      assert.equal(decoded.durableSequence, durable);
      assert.equal(decodeRecord(bytes, 0, TERM, (salt ^ 1) >>> 0), null);
      assert.equal(decodeRecord(bytes, 0, { ...TERM, counter: 8 }, salt), null);
    }),
  );
});

function pick<T extends object, K extends keyof T>(from: T, keys: readonly K[]): Pick<T, K> {
  return Object.fromEntries(keys.map((key) => [key, from[key]])) as Pick<T, K>;
}

test('the index says of every record what the record says', () => {
  const times = encodeTimes([1, 2, 3, 4, 5, 6]);
  const { from } = dataRecord(3);
  const zero = record({ kind: RecordKind.ZERO, sequence: 1001, blockCount: 7 });
  const attributes = record({ kind: RecordKind.ATTRIBUTES, sequence: 1002, payloadBytes: times.length });
  const { index } = sealOf([
    { from, at: 200, times: null },
    { from: zero, at: 20_000, times: null },
    { from: attributes, at: 20_072, times },
  ]);
  const entries = decodeIndex(index, 3);
  assert.deepEqual(
    entries?.map((entry) => [entry.kind, entry.sequence, entry.startBlock, entry.blockCount, entry.payloadOffset, entry.payloadBytes, entry.flags]),
    [
      [RecordKind.DATA, 1000, 16, 3, 200, 3 * BLOCK_BYTES, RecordFlag.UNSTABLE],
      [RecordKind.ZERO, 1001, 16, 7, 20_000, 0, 0],
      [RecordKind.ATTRIBUTES, 1002, 16, 0, 20_072, 24, 0],
    ],
  );
  assert.deepEqual([...(entries?.[0]?.crcs ?? [])], [...from.crcs]);
  assert.deepEqual(entries?.[2]?.times, [1, 2, 3, 4, 5, 6]);
  assert.equal(decodeIndex(index, 2), null, 'entries that nobody counted');
  assert.equal(decodeIndex(index, 4), null, 'an entry too few');
});

test('a block that is not the one that its head was written for is found', () => {
  const { from, payload } = dataRecord(2);
  const bytes = encode(from, payload);
  const decoded = decodeRecord(bytes, 0, TERM, SALT);
  assert.ok(decoded !== null && verifyPayload(bytes, decoded));
  bytes[bytes.length - 1] = 0;
  assert.ok(!verifyPayload(bytes, decoded));
  assert.ok(!verifyPayload(bytes.subarray(0, bytes.length - 1), decoded), 'a payload that ends too early');
});

/** What the mutation changed. */
const mutation = fc.record({ at: fc.nat(20_000), bit: fc.nat(7) });

test('no flipped bit in header, record head, index or footer goes unseen', () => {
  const { from, payload } = dataRecord(2);
  const times = encodeTimes([1, 2, 3, 4, 5, 6]);
  const { seal, footer } = sealOf([{ from, at: 200, times: null }]);
  const attributes = encode(record({ kind: RecordKind.ATTRIBUTES, payloadBytes: times.length }), times);
  const targets: { bytes: Buffer; decode: (bytes: Buffer) => unknown; protectedBytes: number }[] = [
    { bytes: encodeSegmentHeader(HEADER), decode: decodeSegmentHeader, protectedBytes: SEGMENT_HEADER_BYTES },
    { bytes: encode(from, payload), decode: (bytes) => decodeRecord(bytes, 0, TERM, SALT), protectedBytes: RECORD_HEADER_BYTES + 8 },
    { bytes: attributes, decode: (bytes) => decodeRecord(bytes, 0, TERM, SALT), protectedBytes: attributes.length },
    { bytes: seal, decode: (bytes) => decodeRecord(bytes, 0, TERM, SALT), protectedBytes: seal.length },
    { bytes: footer, decode: (bytes) => decodeFooter(bytes, SALT), protectedBytes: SEAL_FOOTER_BYTES },
  ];
  for (const { bytes, decode, protectedBytes } of targets) {
    assert.notEqual(decode(bytes), null);
    fc.assert(
      fc.property(mutation, ({ at, bit }) => {
        const changed = Buffer.from(bytes);
        const index = at % protectedBytes;
        changed[index] = changed[index]! ^ (1 << bit);
        assert.equal(decode(changed), null, `bit ${bit} of byte ${index}`);
      }),
    );
  }
});

test('bytes of any kind are refused without a throw, wherever they end', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(300), fc.nat(10), (noise, at, count) => {
      const bytes = Buffer.from(noise);
      assert.equal(decodeSegmentHeader(bytes), null);
      assert.equal(decodeRecord(bytes, at, TERM, SALT), null);
      assert.equal(decodeFooter(bytes, SALT), null);
      const entries = decodeIndex(bytes, count);
      assert.ok(entries === null || entries.length === count);
    }),
  );
  const { from, payload } = dataRecord(1);
  const whole = encode(from, payload);
  for (let length = 0; length < RECORD_HEADER_BYTES + 4; length += 1) assert.equal(decodeRecord(whole.subarray(0, length), 0, TERM, SALT), null);
});

/** A record head whose CRC is right whatever it says: written by a program, not by an accident. */
function forged(change: (head: Buffer) => void, from: EncodableRecord, payload: Buffer): Buffer {
  const bytes = encode(from, payload);
  change(bytes);
  const tableEnd = recordHeadBytes(from);
  const crc = crc32(bytes.subarray(0, 68), SALT);
  bytes.writeUInt32LE(tableEnd === RECORD_HEADER_BYTES ? crc : crc32(bytes.subarray(RECORD_HEADER_BYTES, tableEnd), crc), 68);
  return bytes;
}

test('records that no version of this program wrote are refused, right CRC or not', () => {
  const { from, payload } = dataRecord(2);
  const none = Buffer.alloc(0);
  const zero = record({ kind: RecordKind.ZERO, blockCount: 1 });
  const times = encodeTimes([1, 2, 3, 4, 5, 6]);
  const attributes = record({ kind: RecordKind.ATTRIBUTES, payloadBytes: 24 });
  const decode = (bytes: Buffer): unknown => decodeRecord(bytes, 0, TERM, SALT);
  assert.notEqual(decode(forged(() => undefined, from, payload)), null, 'the forger can forge');
  assert.equal(decode(forged((head) => head.writeUInt32LE(9, 4), zero, none)), null, 'kind');
  assert.equal(decode(forged((head) => head.writeUInt32LE(0, 24), from, payload)), null, 'DATA of no blocks');
  assert.equal(decode(forged((head) => head.writeUInt32LE(4096, 28), from, payload)), null, 'DATA of 2 blocks with 1');
  assert.equal(decode(forged((head) => head.writeBigUInt64LE(2n ** 63n, 8), zero, none)), null, 'a sequence that is no number');
  assert.equal(decode(forged((head) => head.writeBigUInt64LE(2n ** 34n, 16), zero, none)), null, 'blocks behind the largest object');
  assert.equal(decode(forged((head) => head.writeBigUInt64LE(2n ** 47n, 32), zero, none)), null, 'a size above the largest');
  assert.equal(decode(forged((head) => head.writeUInt32LE(0, 24), zero, none)), null, 'ZERO of no blocks');
  assert.equal(decode(forged((head) => head.writeUInt32LE(1_000_000_000, 44), zero, none)), null, 'a second of 1e9 ns');
  assert.equal(decode(forged((head) => head.writeUInt32LE(0, 28), attributes, times)), null, 'ATTRIBUTES without times');
  assert.equal(decode(encode(attributes, encodeTimes([1, 1_000_000_000, 3, 4, 5, 6]))), null, 'a time that is none');
});
