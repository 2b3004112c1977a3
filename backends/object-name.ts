import { StoreError } from './object-store.ts';

/** Longest object name, in characters (all ASCII). */
const OBJECT_NAME_LENGTH_MAX = 200;

const OBJECT_NAME = /^[A-Za-z0-9._-]{1,200}$/;
const BUCKET_NAME = /^[a-z0-9](?:[a-z0-9.-]{1,61})[a-z0-9]$/;

/** True for `[A-Za-z0-9._-]{1,200}` without two dots in a row, and not a lone dot: such a name is safe as a file name on every store. */
export function isObjectName(name: string): boolean {
  return OBJECT_NAME.test(name) && name !== '.' && !name.includes('..');
}

/** True for `[a-z0-9.-]{3,63}` that begins and ends with a letter or digit, without two dots in a row (the rule of S3). */
export function isBucketName(bucket: string): boolean {
  return BUCKET_NAME.test(bucket) && !bucket.includes('..');
}

/** @throws StoreError `denied` for a name that no store accepts. */
export function requireBucketName(bucket: string): void {
  if (!isBucketName(bucket)) {
    throw new StoreError('denied', `bucket name ${quoted(bucket)} refused: 3 to 63 of a-z 0-9 . - are allowed, no dot or dash at an end, no ".."`);
  }
}

/** @throws StoreError `denied` for a bucket or object name that no store accepts. */
export function requireObjectName(bucket: string, name: string): void {
  requireBucketName(bucket);
  if (!isObjectName(name)) {
    throw new StoreError('denied', `object name ${quoted(name)} refused: 1 to ${OBJECT_NAME_LENGTH_MAX} of A-Z a-z 0-9 . _ - are allowed, no ".."`);
  }
}

function quoted(text: string): string {
  return JSON.stringify(text.length > 250 ? `${text.slice(0, 250)}...` : text);
}
