import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';

import fc from 'fast-check';

import { Crc32Join } from './crc32-join.ts';

test('joining the CRCs of blocks gives the CRC of all of them', () => {
  const blockBytes = 64;
  const join = new Crc32Join(blockBytes);
  const block = fc.uint8Array({ minLength: blockBytes, maxLength: blockBytes });
  fc.assert(
    fc.property(fc.array(block, { minLength: 1, maxLength: 20 }), (blocks) => {
      const joined = blocks.map((one) => crc32(one)).reduce((before, crc) => join.join(before, crc));
      assert.equal(joined, crc32(Buffer.concat(blocks)));
    }),
  );
});

test('blocks of 4 KiB', () => {
  const join = new Crc32Join(4096);
  const [a, b] = [Buffer.alloc(4096, 1), Buffer.alloc(4096, 200)];
  assert.equal(join.join(crc32(a), crc32(b)), crc32(Buffer.concat([a, b])));
});
