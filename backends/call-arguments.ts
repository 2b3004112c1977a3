import { assert } from '../server/core/assert.ts';
import { requireBucketName, requireObjectName } from './object-name.ts';
import { type ByteRange, DELETE_MANY_MAX } from './object-store.ts';

/**
 * Largest object that any store takes or gives whole: above every segment, page and manifest size, below what hurts in memory. 256 MiB, and room for
 * what encryption adds to them (encoding/).
 */
export const OBJECT_BYTES_MAX = 257 * 1024 * 1024;

/** A range is made by us, never by a client: a bad one is a bug. @throws AssertionError */
export function assertRange(range: ByteRange | undefined): void {
  if (range === undefined) return;
  assert(Number.isSafeInteger(range.offsetBytes) && range.offsetBytes >= 0, `range offset ${range.offsetBytes}`);
  assert(Number.isSafeInteger(range.lengthBytes) && range.lengthBytes >= 0, `range length ${range.lengthBytes}`);
}

/** @throws StoreError `denied` for a hostile name, before anything is deleted; AssertionError for too many. */
export function requireNamesToDelete(bucket: string, names: readonly string[]): void {
  assert(names.length <= DELETE_MANY_MAX, `${names.length} names to delete`);
  requireBucketName(bucket);
  for (const name of names) requireObjectName(bucket, name);
}

/** @throws AssertionError when a listing is asked for no names: it would never end. */
export function assertLimit(limit: number): void {
  assert(Number.isSafeInteger(limit) && limit > 0, `list limit ${limit}`);
}
