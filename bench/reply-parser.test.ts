import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { REPLY_HEAD_BYTES, ReplyParser } from './reply-parser.ts';

/** A record of `payload` in fragments that end at `cuts`. */
function fragmented(payload: Buffer, cuts: readonly number[]): Buffer {
  const ends = [...new Set([...cuts.filter((cut) => cut < payload.length), payload.length])].toSorted((a, b) => a - b);
  let start = 0;
  const parts: Buffer[] = [];
  for (const end of ends) {
    const mark = Buffer.alloc(4);
    mark.writeUInt32BE((end === payload.length ? 0x80000000 : 0) + end - start, 0);
    parts.push(mark, payload.subarray(start, end));
    start = end;
  }
  return Buffer.concat(parts);
}

test('replies come out whole however they are cut into fragments and chunks', () => {
  const record = fc.record({ sizeBytes: fc.integer({ min: 24, max: 700 }), cuts: fc.array(fc.integer({ min: 1, max: 700 }), { maxLength: 3 }) });
  fc.assert(
    fc.property(fc.array(record, { minLength: 1, maxLength: 6 }), fc.infiniteStream(fc.integer({ min: 1, max: 300 })), (records, sizes) => {
      const payloads = records.map(({ sizeBytes }, index) => Buffer.from(Array.from({ length: sizeBytes }, (_, at) => (at * 7 + index) & 0xff)));
      const stream = Buffer.concat(payloads.map((payload, index) => fragmented(payload, records[index]!.cuts)));
      const seen: { head: string; replyBytes: number }[] = [];
      const parser = new ReplyParser((head, at, replyBytes) => {
        seen.push({ head: head.toString('hex', at, at + Math.min(replyBytes, REPLY_HEAD_BYTES)), replyBytes });
      });
      for (let at = 0; at < stream.length;) {
        const size = Math.min(sizes.next().value as number, stream.length - at);
        parser.feed(stream.subarray(at, at + size), size);
        at += size;
      }
      const expected = payloads.map((payload) => ({
        head: payload.toString('hex', 0, Math.min(payload.length, REPLY_HEAD_BYTES)),
        replyBytes: payload.length,
      }));
      assert.deepEqual(seen, expected);
    }),
  );
});
