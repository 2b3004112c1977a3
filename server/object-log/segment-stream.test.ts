import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { errorCode } from '../core/errors.ts';
import { scanBytes } from './segment-scan.ts';
import { SegmentStream } from './segment-stream.ts';
import { buildSegment, termOf, UUID } from './testing/segment-builder.ts';

const VPOOL = 'ffeeddccbbaa99887766554433221100';
const IDENTITY = { uuid: UUID, number: 7, term: termOf(3) };

function built(blocks: readonly number[], base = 11, calls = false): Buffer {
  return buildSegment({ number: 7, term: IDENTITY.term, base, blocks, sealed: true, calls }).bytes;
}

/** Feeds `bytes` cut at `cuts`; the records that came out. */
function take(stream: SegmentStream, bytes: Buffer, cuts: readonly number[]): ReturnType<SegmentStream['take']> {
  const records: ReturnType<SegmentStream['take']> = [];
  let from = 0;
  for (const cut of [...new Set(cuts.map((cut) => cut % bytes.length)), bytes.length].sort((a, b) => a - b)) {
    // A buffer that is somebody else's afterwards.
    const piece = Buffer.from(bytes.subarray(from, cut));
    records.push(...stream.take(piece));
    piece.fill(0xee);
    from = cut;
  }
  return records;
}

const segments = fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 1, maxLength: 8 });

test('wherever pieces end, the records are those that a scan of the whole segment finds', () => {
  fc.assert(
    fc.property(segments, fc.array(fc.nat(), { maxLength: 12 }), fc.boolean(), (blocks, cuts, calls) => {
      const bytes = built(blocks, 11, calls);
      const stream = new SegmentStream(IDENTITY, VPOOL, 11);
      const records = take(stream, bytes, cuts);
      assert.deepEqual(records, scanBytes(bytes, IDENTITY).records);
      assert.ok(stream.sealed);
      assert.equal(stream.bytes, bytes.length);
      assert.equal(stream.lastSequence, 10 + blocks.length);
    }),
    { numRuns: 200 },
  );
});

test('no flipped bit goes through: the piece is refused, or the segment never becomes whole', () => {
  fc.assert(
    fc.property(segments, fc.array(fc.nat(), { maxLength: 4 }), fc.nat(), fc.integer({ min: 0, max: 7 }), (blocks, cuts, at, bit) => {
      const bytes = built(blocks);
      bytes[at % bytes.length]! ^= 1 << bit;
      const stream = new SegmentStream(IDENTITY, VPOOL, 11);
      try {
        take(stream, bytes, cuts);
        assert.ok(!stream.sealed);
      } catch (error) {
        assert.equal(errorCode(error), 'replica-damaged');
      }
    }),
    { numRuns: 500 },
  );
});

test('arbitrary bytes end in records or in replica-damaged', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 3000 }), fc.boolean(), (garbage, behindHeader) => {
      const stream = new SegmentStream(IDENTITY, VPOOL, 11);
      if (behindHeader) stream.take(built([1]).subarray(0, 128));
      try {
        stream.take(Buffer.from(garbage));
      } catch (error) {
        assert.equal(errorCode(error), 'replica-damaged');
      }
    }),
    { numRuns: 500 },
  );
});

test('a segment of another object, number, term, vPool or place in the log is refused at its header', () => {
  const bytes = built([1, 2]);
  const refused = (stream: SegmentStream): void => {
    assert.throws(
      () => stream.take(bytes),
      (error) => errorCode(error) === 'replica-damaged',
    );
  };
  refused(new SegmentStream({ ...IDENTITY, uuid: 'f'.repeat(32) }, VPOOL, 11));
  refused(new SegmentStream({ ...IDENTITY, number: 8 }, VPOOL, 11));
  refused(new SegmentStream({ ...IDENTITY, term: termOf(4) }, VPOOL, 11));
  refused(new SegmentStream({ ...IDENTITY, term: { ...IDENTITY.term, nonce: 'f'.repeat(16) } }, VPOOL, 11));
  refused(new SegmentStream(IDENTITY, 'a'.repeat(32), 11));
  refused(new SegmentStream(IDENTITY, VPOOL, 10));
  refused(new SegmentStream(IDENTITY, VPOOL, 12));
});

test('nothing may follow the seal, and a head that promises too much is not waited for', () => {
  const bytes = built([1]);
  const sealed = new SegmentStream(IDENTITY, VPOOL, 11);
  sealed.take(bytes);
  assert.throws(() => sealed.take(Buffer.alloc(1)), /behind its seal/);
  assert.throws(() => new SegmentStream(IDENTITY, VPOOL, 11).take(Buffer.concat([bytes, Buffer.alloc(1)])), /behind its seal/);
  const promising = Buffer.from(bytes.subarray(0, 128 + 72));
  promising.writeUInt32LE(2 ** 31, 128 + 28);
  assert.throws(() => new SegmentStream(IDENTITY, VPOOL, 11).take(promising), /no valid record/);
});
