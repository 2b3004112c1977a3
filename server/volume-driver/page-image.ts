/**
 * One page of an extent map: its frame in memory and its image in a checkpoint object (docs/formats/checkpoint.md).
 *
 * A frame is a Uint32Array of 3072 words in three planes of 1024: rows, offsets, CRCs. Row 0 is a hole; its offset and CRC are 0.
 * An image is a 16-byte head and the entries: all of them (dense), or a bitmap and the mapped ones (sparse), whichever is shorter.
 */
import { endianness } from 'node:os';
import { crc32 } from 'node:zlib';

import { assert } from '../core/assert.ts';

// Images and spilled frames are copies of typed arrays: the formats are little endian.
assert(endianness() === 'LE', 'vferry runs on little-endian machines only');

export const PAGE_BLOCKS = 1024;
export const FRAME_WORDS = 3 * PAGE_BLOCKS;
export const FRAME_BYTES = 4 * FRAME_WORDS;
/** Where the planes of a frame start. */
export const OFFSETS = PAGE_BLOCKS;
export const CRCS = 2 * PAGE_BLOCKS;

const HEAD_BYTES = 16;
const BITMAP_BYTES = PAGE_BLOCKS / 8;
const MAGIC = 0x4750; // 'PG'
const DENSE = 1;
const SPARSE = 2;
/** From this many mapped blocks on the dense image is not longer. */
const DENSE_FROM = Math.ceil((FRAME_BYTES - BITMAP_BYTES) / 12);
export const IMAGE_BYTES_MAX = HEAD_BYTES + FRAME_BYTES;

/** Length of the image of a page with `mapped` blocks, 1 to 1024. */
export function imageBytes(mapped: number): number {
  return mapped >= DENSE_FROM ? IMAGE_BYTES_MAX : HEAD_BYTES + BITMAP_BYTES + 12 * mapped;
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
  let rows = HEAD_BYTES + BITMAP_BYTES;
  let offsets = rows + 4 * mapped;
  let crcs = offsets + 4 * mapped;
  for (let index = 0; index < PAGE_BLOCKS; index += 1) {
    const row = frame[index]!;
    if (row === 0) continue;
    const byte = HEAD_BYTES + (index >> 3);
    target[byte] = target[byte]! | (1 << (index & 7));
    target.writeUInt32LE(row, rows);
    target.writeUInt32LE(frame[OFFSETS + index]!, offsets);
    target.writeUInt32LE(frame[CRCS + index]!, crcs);
    rows += 4;
    offsets += 4;
    crcs += 4;
  }
  assert(rows === HEAD_BYTES + BITMAP_BYTES + 4 * mapped, `page has not ${mapped} mapped blocks`);
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
    const row = frame[index]!;
    if (row === 0) {
      if (frame[OFFSETS + index] !== 0 || frame[CRCS + index] !== 0) return `hole at ${index} is not zero`;
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
  const rows = HEAD_BYTES + BITMAP_BYTES;
  for (let byte = 0; byte < BITMAP_BYTES; byte += 1) {
    const bits = view.getUint8(HEAD_BYTES + byte);
    if (bits === 0) continue;
    for (let bit = 0; bit < 8; bit += 1) {
      if ((bits & (1 << bit)) === 0) continue;
      if (taken === mapped) return false;
      const index = byte * 8 + bit;
      frame[index] = view.getUint32(rows + 4 * taken, true);
      frame[OFFSETS + index] = view.getUint32(rows + 4 * (mapped + taken), true);
      frame[CRCS + index] = view.getUint32(rows + 4 * (2 * mapped + taken), true);
      taken += 1;
    }
  }
  return taken === mapped;
}
