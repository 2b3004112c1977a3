/**
 * One page of an extent map: its frame in memory and its image in a checkpoint object (docs/formats/checkpoint.md).
 *
 * A frame is 3072 words of a Uint32Array: for each block its row, offset and CRC, side by side, so that a look-up touches one cache
 * line. Row 0 is a hole; its offset and CRC are 0.
 * An image is a 16-byte head and the entries: all of them (dense), or a bitmap and the mapped ones (sparse), whichever is shorter.
 */
import { endianness } from 'node:os';
import { crc32 } from 'node:zlib';

import { assert } from '../core/assert.ts';

// Images and spilled frames are copies of typed arrays: the formats are little endian.
assert(endianness() === 'LE', 'vferry runs on little-endian machines only');

export const PAGE_BLOCKS = 1024;
/** Words of an entry: row, offset, CRC. */
export const ENTRY_WORDS = 3;
export const FRAME_WORDS = ENTRY_WORDS * PAGE_BLOCKS;
export const FRAME_BYTES = 4 * FRAME_WORDS;
const ENTRY_BYTES = 4 * ENTRY_WORDS;

const HEAD_BYTES = 16;
const BITMAP_BYTES = PAGE_BLOCKS / 8;
const MAGIC = 0x4750; // 'PG'
const DENSE = 1;
const SPARSE = 2;
/** From this many mapped blocks on the dense image is not longer. */
const DENSE_FROM = Math.ceil((FRAME_BYTES - BITMAP_BYTES) / ENTRY_BYTES);
export const IMAGE_BYTES_MAX = HEAD_BYTES + FRAME_BYTES;

/** Length of the image of a page with `mapped` blocks, 1 to 1024. */
export function imageBytes(mapped: number): number {
  return mapped >= DENSE_FROM ? IMAGE_BYTES_MAX : HEAD_BYTES + BITMAP_BYTES + ENTRY_BYTES * mapped;
}

/** The bytes of a frame, for the spill file. */
export function frameBytes(frame: Uint32Array): Uint8Array {
  return new Uint8Array(frame.buffer, frame.byteOffset, FRAME_BYTES);
}

/** Writes the image of `frame` to the start of `target` (at least `imageBytes(mapped)` long); returns its crc32. */
export function encodeImage(target: Buffer, page: number, mapped: number, frame: Uint32Array): number {
  const length = imageBytes(mapped);
  const dense = mapped >= DENSE_FROM;
  target.fill(0, 0, HEAD_BYTES);
  target.writeUInt16LE(MAGIC, 0);
  target.writeUInt8(dense ? DENSE : SPARSE, 2);
  target.writeUInt32LE(page, 4);
  target.writeUInt16LE(mapped, 8);
  if (dense) target.set(frameBytes(frame), HEAD_BYTES);
  else encodeSparse(target, mapped, frame);
  return crc32(target.subarray(0, length));
}

function encodeSparse(target: Buffer, mapped: number, frame: Uint32Array): void {
  target.fill(0, HEAD_BYTES, HEAD_BYTES + BITMAP_BYTES);
  let at = HEAD_BYTES + BITMAP_BYTES;
  for (let index = 0; index < PAGE_BLOCKS; index += 1) {
    const word = index * ENTRY_WORDS;
    if (frame[word] === 0) continue;
    const byte = HEAD_BYTES + (index >> 3);
    target[byte] = target[byte]! | (1 << (index & 7));
    target.writeUInt32LE(frame[word]!, at);
    target.writeUInt32LE(frame[word + 1]!, at + 4);
    target.writeUInt32LE(frame[word + 2]!, at + 8);
    at += ENTRY_BYTES;
  }
  assert(at === imageBytes(mapped), `page has not ${mapped} mapped blocks`);
}

/**
 * Reads an image of the page `page` with `mapped` blocks into `frame`. `isRow` says whether blocks may point to a row.
 * Returns what is wrong with it, or null; after a complaint the frame's contents mean nothing. The caller checks the CRC.
 */
export function decodeImage(image: Uint8Array, page: number, mapped: number, frame: Uint32Array, isRow: (row: number) => boolean): string | null {
  if (image.byteLength < HEAD_BYTES || image.byteLength !== imageBytes(mapped)) return `image has ${image.byteLength} bytes`;
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const dense = mapped >= DENSE_FROM;
  if (view.getUint16(0, true) !== MAGIC) return 'image has no magic';
  if (view.getUint16(2, true) !== (dense ? DENSE : SPARSE)) return 'image is of another kind';
  if (view.getUint32(4, true) !== page) return `image is of page ${view.getUint32(4, true)}`;
  if (view.getUint32(8, true) !== mapped || view.getUint32(12, true) !== 0) return 'image has another number of blocks';
  if (dense) frameBytes(frame).set(image.subarray(HEAD_BYTES));
  else if (!decodeSparse(view, mapped, frame)) return 'bitmap does not fit the number of blocks';
  let count = 0;
  let lastRow = 0;
  for (let index = 0; index < PAGE_BLOCKS; index += 1) {
    const word = index * ENTRY_WORDS;
    const row = frame[word]!;
    if (row === 0) {
      if (frame[word + 1] !== 0 || frame[word + 2] !== 0) return `hole at ${index} is not zero`;
      continue;
    }
    count += 1;
    if (row === lastRow) continue;
    if (!isRow(row)) return `block ${index} points to row ${row}`;
    lastRow = row;
  }
  return count === mapped ? null : `image maps ${count} blocks`;
}

function decodeSparse(view: DataView, mapped: number, frame: Uint32Array): boolean {
  frame.fill(0);
  let taken = 0;
  for (let byte = 0; byte < BITMAP_BYTES; byte += 1) {
    const bits = view.getUint8(HEAD_BYTES + byte);
    if (bits === 0) continue;
    for (let bit = 0; bit < 8; bit += 1) {
      if ((bits & (1 << bit)) === 0) continue;
      if (taken === mapped) return false;
      const word = (byte * 8 + bit) * ENTRY_WORDS;
      const at = HEAD_BYTES + BITMAP_BYTES + taken * ENTRY_BYTES;
      frame[word] = view.getUint32(at, true);
      frame[word + 1] = view.getUint32(at + 4, true);
      frame[word + 2] = view.getUint32(at + 8, true);
      taken += 1;
    }
  }
  return taken === mapped;
}
