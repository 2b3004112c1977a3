import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { RecordReader } from './record-reader.ts';
import type { RecordState } from './record-reader.ts';

function fragment(bytes: Buffer, isLast: boolean): Buffer {
  const header = Buffer.alloc(4);
  header.writeUInt32BE(((isLast ? 0x8000_0000 : 0) | bytes.length) >>> 0);
  return Buffer.concat([header, bytes]);
}

/** A copy with memory of its own, so that it is nobody's neighbour there. */
function apart(bytes: Buffer): Buffer {
  const copy = Buffer.alloc(bytes.length);
  bytes.copy(copy);
  return copy;
}

function recordOf(reader: RecordReader): Buffer {
  return reader.chunks === null ? reader.buffer.subarray(reader.start, reader.end) : Buffer.concat(reader.chunks);
}

/** Pushes chunks one by one, reading after each: the records found, and the state at the end. */
function readAll(reader: RecordReader, chunks: readonly Buffer[]): { records: string[]; state: RecordState } {
  const records: string[] = [];
  let state: RecordState = 'more';
  for (const chunk of chunks) {
    reader.push(chunk);
    while ((state = reader.next()) === 'record') records.push(recordOf(reader).toString('hex'));
  }
  return { records, state };
}

const FIRST = Buffer.from('00112233445566778899aabbccddeeff', 'hex');
const SECOND = Buffer.from('f0f1f2f3', 'hex');

test('RFC 5531 §11: the first bit of the header marks the last fragment, the other 31 are its length', () => {
  const stream = Buffer.from('00000004aabbccdd80000002eeff', 'hex');
  assert.deepEqual(readAll(new RecordReader(64), [stream]), { records: ['aabbccddeeff'], state: 'more' });
});

test('two records are found whatever byte the stream is cut at', () => {
  const stream = Buffer.concat([fragment(FIRST.subarray(0, 7), false), fragment(FIRST.subarray(7), true), fragment(SECOND, true)]);
  for (let cut = 0; cut <= stream.length; cut++) {
    const pieces = [apart(stream.subarray(0, cut)), apart(stream.subarray(cut))];
    assert.deepEqual(readAll(new RecordReader(64), pieces).records, [FIRST.toString('hex'), SECOND.toString('hex')], `cut at ${cut}`);
  }
});

test('a record is found however it is cut into fragments', () => {
  for (let cut = 0; cut <= FIRST.length; cut++) {
    const stream = Buffer.concat([fragment(FIRST.subarray(0, cut), false), fragment(FIRST.subarray(cut), true), fragment(SECOND, true)]);
    assert.deepEqual(readAll(new RecordReader(64), [stream]).records, [FIRST.toString('hex'), SECOND.toString('hex')], `fragment of ${cut}`);
  }
});

test('any stream of fragments in any pieces gives its records back', () => {
  const record = fc.array(fc.uint8Array({ maxLength: 40 }), { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(fc.array(record, { maxLength: 8 }), fc.array(fc.nat(400), { maxLength: 20 }), fc.boolean(), (records, cuts, copy) => {
      const stream = Buffer.concat(records.flatMap((parts) => parts.map((part, i) => fragment(Buffer.from(part), i === parts.length - 1))));
      const edges = [0, ...cuts.map((cut) => Math.min(cut, stream.length)).sort((a, b) => a - b), stream.length];
      const pieces = edges.slice(1).map((edge, i) => stream.subarray(edges[i], edge));
      const found = readAll(new RecordReader(200), copy ? pieces.map(apart) : pieces);
      assert.deepEqual(
        found.records,
        records.map((parts) => Buffer.concat(parts).toString('hex')),
      );
      assert.equal(found.state === 'more' || stream.length === 0, true);
    }),
    { seed: 5531, numRuns: 400 },
  );
});

test('a record that arrives in several chunks stays in them: nothing is copied', () => {
  const chunks = [apart(Buffer.from('8000000801020304', 'hex')), apart(Buffer.from('05060708', 'hex'))];
  const reader = new RecordReader(64);
  reader.push(chunks[0]!);
  assert.equal(reader.next(), 'more');
  reader.push(chunks[1]!);
  assert.equal(reader.next(), 'record');
  chunks[0]![4] = 0xaa;
  chunks[1]![0] = 0xbb;
  assert.deepEqual(
    reader.chunks?.map((chunk) => chunk.toString('hex')),
    ['aa020304', 'bb060708'],
  );
});

test('reads that follow one another in one buffer are one slice, also byte by byte', () => {
  const slab = Buffer.concat([fragment(FIRST, true)]);
  const reader = new RecordReader(64);
  for (let i = 0; i < slab.length - 1; i++) {
    reader.push(slab.subarray(i, i + 1));
    assert.equal(reader.next(), 'more');
  }
  reader.push(slab.subarray(-1));
  assert.equal(reader.next(), 'record');
  assert.equal(reader.chunks, null);
  assert.equal(recordOf(reader).buffer, slab.buffer);
});

test('a record over the cap is refused at its header, in one fragment or in the sum of several', () => {
  assert.equal(readAll(new RecordReader(16), [Buffer.from('80000011', 'hex')]).state, 'too-long');
  assert.equal(readAll(new RecordReader(16), [Buffer.from('ffffffff', 'hex')]).state, 'too-long');
  assert.equal(readAll(new RecordReader(16), [fragment(FIRST, false), Buffer.from('00000001', 'hex')]).state, 'too-long');
  assert.equal(readAll(new RecordReader(15), [fragment(FIRST, true)]).state, 'too-long');
  assert.equal(readAll(new RecordReader(16), [fragment(FIRST, true)]).records.length, 1);
});

test('empty fragments are part of the protocol, but not endlessly many of them', () => {
  const empty = Buffer.from('00000000', 'hex');
  const some = Buffer.concat([...Array.from({ length: 100 }, () => empty), fragment(SECOND, true)]);
  assert.deepEqual(readAll(new RecordReader(64), [some]).records, ['f0f1f2f3']);
  assert.equal(readAll(new RecordReader(64), [Buffer.alloc(4 * 4097)]).state, 'too-many-fragments');
});

test('the owner may stop between two records and go on later, while more arrives', () => {
  const reader = new RecordReader(64);
  reader.push(Buffer.concat([fragment(FIRST, true), fragment(SECOND, true)]));
  assert.equal(reader.next(), 'record');
  reader.push(fragment(FIRST, true));
  assert.equal(reader.isMidRecord, true);
  assert.equal(reader.next(), 'record');
  assert.equal(recordOf(reader).toString('hex'), 'f0f1f2f3');
  assert.equal(reader.next(), 'record');
  assert.equal(reader.next(), 'more');
  assert.equal(reader.isMidRecord, false);
});

test('isMidRecord and partialBytes tell an idle stream from one that stopped halfway', () => {
  const reader = new RecordReader(64);
  reader.push(Buffer.from('80', 'hex'));
  assert.equal(reader.next(), 'more');
  assert.equal(reader.isMidRecord, true);
  reader.push(Buffer.from('000004aabb', 'hex'));
  assert.equal(reader.next(), 'more');
  assert.equal(reader.partialBytes, 2);
  reader.clear();
  assert.equal(reader.partialBytes, 0);
  assert.equal(reader.isMidRecord, false);
});
