/**
 * Checksums of rows (invariant 9: a flipped bit is detected, never served as data). SQLite checks the shape of its pages, not the bytes in
 * them, so every row of ours carries a CRC of its columns.
 */
import { crc32 } from 'node:zlib';

import { corrupt } from '../record-check.ts';

/** Wider than any row of ours; every column takes 9 bytes in it. */
const COLUMNS_MAX = 64;
const scratch = new Uint8Array(COLUMNS_MAX * 9);
const view = new DataView(scratch.buffer);

/**
 * CRC-32 of the columns `values[first ... last)`: first of a tag and a float64 for each of them (0 null, 1 number: its value, 2 text and
 * 3 bytes: its length), then of the UTF-8 of every text and of every byte string, in order.
 */
export function rowChecksum(values: readonly unknown[], first: number, last: number): number {
  let at = 0;
  for (let index = first; index < last; index += 1) {
    const value = values[index];
    if (typeof value === 'number') {
      scratch[at] = 1;
      view.setFloat64(at + 1, value, true);
    } else if (typeof value === 'string') {
      scratch[at] = 2;
      view.setFloat64(at + 1, value.length, true);
    } else if (value instanceof Uint8Array) {
      scratch[at] = 3;
      view.setFloat64(at + 1, value.byteLength, true);
    } else {
      scratch[at] = 0;
      view.setFloat64(at + 1, 0, true);
    }
    at += 9;
  }
  let checksum = crc32(scratch.subarray(0, at));
  for (let index = first; index < last; index += 1) {
    const value = values[index];
    if (typeof value === 'string' || value instanceof Uint8Array) checksum = crc32(value, checksum);
  }
  return checksum;
}

/** Compares the column behind `values[first ... last)` with the checksum of them. @throws ApplianceError `registry-corrupt`. */
export function checkRow(values: readonly unknown[], first: number, last: number, where: string): void {
  if (values[last] !== rowChecksum(values, first, last)) corrupt(where, 'its checksum does not match');
}
