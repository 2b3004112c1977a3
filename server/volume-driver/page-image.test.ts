import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { decodeImage, encodeImage, ENTRY_WORDS, FRAME_WORDS, IMAGE_BYTES_MAX, imageBytes } from './page-image.ts';

const anyRow = (): boolean => true;
const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });

function frameOf(indexes: Iterable<number>, seed: number): Uint32Array {
  const frame = new Uint32Array(FRAME_WORDS);
  for (const index of indexes) {
    frame.set([1 + (index % 5), Math.imul(index, seed), Math.imul(index + 1, seed ^ 0x5bd1e995)], index * ENTRY_WORDS);
  }
  return frame;
}

test('an image is read back, sparse or dense, at every number of blocks where the kind changes', () => {
  for (const mapped of [1, 2, 7, 8, 9, 1000, 1011, 1012, 1013, 1014, 1023, 1024]) {
    const frame = frameOf(Array(mapped).keys(), 77);
    const image = Buffer.alloc(IMAGE_BYTES_MAX, 0xff);
    encodeImage(image, 5, mapped, frame);
    const back = new Uint32Array(FRAME_WORDS).fill(1);
    assert.equal(decodeImage(image.subarray(0, imageBytes(mapped)), 5, mapped, back, anyRow), null, `${mapped}`);
    assert.deepEqual(back, frame);
    assert.ok(imageBytes(mapped) <= IMAGE_BYTES_MAX);
  }
});

test('any set of blocks survives the way to an image and back', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.nat(1023), { minLength: 1, maxLength: 1024 }), u32, (indexes, seed) => {
      const frame = frameOf(indexes, seed);
      const image = Buffer.alloc(imageBytes(indexes.length));
      encodeImage(image, 9, indexes.length, frame);
      const back = new Uint32Array(FRAME_WORDS);
      assert.equal(decodeImage(image, 9, indexes.length, back, anyRow), null);
      assert.deepEqual(back, frame);
    }),
  );
});

test('an image of another page, size, kind or with forbidden rows is refused', () => {
  const frame = frameOf([3, 4, 700], 3);
  const image = Buffer.alloc(imageBytes(3));
  encodeImage(image, 9, 3, frame);
  const target = new Uint32Array(FRAME_WORDS);
  assert.match(decodeImage(image, 8, 3, target, anyRow) ?? '', /of page 9/);
  assert.match(decodeImage(image, 9, 4, target, anyRow) ?? '', /bytes/);
  assert.match(decodeImage(image.subarray(0, 20), 9, 3, target, anyRow) ?? '', /bytes/);
  assert.match(decodeImage(image, 9, 3, target, (row) => row !== 1 + (700 % 5)) ?? '', /points to row/);
  const dense = Buffer.alloc(IMAGE_BYTES_MAX);
  encodeImage(dense, 9, 1024, frameOf(Array(1024).keys(), 3));
  dense.writeUInt32LE(0, 16);
  assert.match(decodeImage(dense, 9, 1024, target, anyRow) ?? '', /not zero|maps 1023/);
});

test('hostile images end in a complaint or in a frame that agrees with its counts', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1024 }),
      fc.array(fc.record({ at: fc.nat(IMAGE_BYTES_MAX), byte: fc.nat(255) }), { maxLength: 6 }),
      (mapped, changes) => {
        const image = Buffer.alloc(imageBytes(mapped));
        encodeImage(image, 1, mapped, frameOf(Array(mapped).keys(), 5));
        for (const change of changes) image[change.at % image.byteLength] = change.byte;
        const target = new Uint32Array(FRAME_WORDS);
        const complaint = decodeImage(image, 1, mapped, target, (row) => row < 6);
        if (complaint !== null) return;
        const rows = target.filter((_, word) => word % ENTRY_WORDS === 0);
        assert.equal(rows.filter((row) => row !== 0).length, mapped);
        assert.ok(rows.every((row) => row < 6));
      },
    ),
    { numRuns: 500 },
  );
});
