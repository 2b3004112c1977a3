import { StoreError } from '../object-store.ts';

/** Swift's stock `container_listing_limit` and `account_listing_limit`; a larger limit is refused (412). */
export const PAGE_NAMES_MAX = 10_000;
/** A page of the longest names, with all that Swift says about each, is about 7 MB. */
export const PAGE_BYTES_MAX = 64 * 1024 * 1024;

/**
 * Names of one page of a JSON listing, as the server ordered them, names that are not ours included.
 * @throws StoreError `retry` unless it is an array of things with names that begin with `prefix` and ascend from `after` in byte order, so that
 *   paging always ends: a listing has no checksum.
 */
export function parseListing(body: Buffer, prefix: string, after: string, what: string): string[] {
  if (body.byteLength === 0) return [];
  let entries: unknown;
  try {
    entries = JSON.parse(body.toString('utf8'));
  } catch {
    throw new StoreError('retry', `${what}: the listing is not JSON`);
  }
  if (!Array.isArray(entries)) throw new StoreError('retry', `${what}: the listing is not an array`);
  const names: string[] = [];
  let previous = Buffer.from(after);
  for (const entry of entries as unknown[]) {
    const name = typeof entry === 'object' && entry !== null && 'name' in entry ? entry.name : undefined;
    if (typeof name !== 'string') throw new StoreError('retry', `${what}: the listing has an entry without a name`);
    const bytes = Buffer.from(name);
    if (!name.startsWith(prefix) || Buffer.compare(bytes, previous) <= 0) throw new StoreError('retry', `${what}: the listing is not in order`);
    names.push(name);
    previous = bytes;
  }
  return names;
}
