/**
 * All buckets of the caller in one real bucket, for stores that limit the number of buckets or let only an operator make them:
 * the object `name` of `bucket` is `<bucket>.<name>` there (docs/formats/object-names.md). A bucket of the caller has no dot, so the
 * first one ends it.
 *
 * What differs from real buckets: a bucket is there as long as it holds objects. So it cannot be missing for a put, an
 * empty one is not listed, and a list of one that never was is empty.
 */
import { throwIfAborted } from '../abort.ts';
import { assertLimit } from '../call-arguments.ts';
import { isBucketName, isObjectName, requireBucketName, requireObjectName } from '../object-name.ts';
import { type ByteRange, type GetOutcome, type ObjectBody, type ObjectStore, StoreError } from '../object-store.ts';

/** Page size of a search for buckets while names that are not ours are in the way. */
const FOREIGN_PAGE_NAMES = 1000;

/** See the module comment. `realBucket` is made at the first `createBucket` if it is not there. */
export class PrefixLayoutStore implements ObjectStore {
  readonly description: string;
  readonly putIsAtomic: boolean;
  readonly #inner: ObjectStore;
  readonly #realBucket: string;
  #realBucketIsThere = false;

  constructor(inner: ObjectStore, realBucket: string) {
    this.#inner = inner;
    this.#realBucket = realBucket;
    this.description = `${inner.description}/${realBucket}`;
    this.putIsAtomic = inner.putIsAtomic;
  }

  /** Looks before it makes the real bucket: the credentials may not be allowed to. */
  async createBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    requireDotless(bucket);
    throwIfAborted(signal, `create bucket ${bucket}`);
    if (this.#realBucketIsThere) return;
    if ((await this.#listOrAbsent('', '', 1, signal)) === null) await this.#inner.createBucket(this.#realBucket, signal);
    this.#realBucketIsThere = true;
  }

  async deleteBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    requireDotless(bucket);
    throwIfAborted(signal, `delete bucket ${bucket}`);
    if (await this.#hasObjects(bucket, signal)) {
      throw new StoreError('denied', `delete bucket ${bucket}: bucket ${this.#realBucket} holds objects with this prefix`);
    }
  }

  /** One request per bucket found, and one for each way to end such a name before a dash: `vf`, `vf-pool`. */
  async listBuckets(after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    assertLimit(limit);
    throwIfAborted(signal, 'list buckets');
    const names: string[] = [];
    for await (const bucket of this.#bucketsAfter(after, signal)) {
      if (names.length === limit) return { names, more: true };
      names.push(bucket);
    }
    return { names, more: false };
  }

  async put(bucket: string, name: string, body: ObjectBody, signal?: AbortSignal): Promise<'written' | 'exists'> {
    return this.#inner.put(this.#realBucket, realName(bucket, name), body, signal);
  }

  async get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
    return this.#inner.get(this.#realBucket, realName(bucket, name), range, signal);
  }

  async head(bucket: string, name: string, signal?: AbortSignal): Promise<{ kind: 'found'; sizeBytes: number } | { kind: 'absent' }> {
    return this.#inner.head(this.#realBucket, realName(bucket, name), signal);
  }

  async delete(bucket: string, name: string, signal?: AbortSignal): Promise<void> {
    return this.#inner.delete(this.#realBucket, realName(bucket, name), signal);
  }

  async deleteMany(bucket: string, names: readonly string[], signal?: AbortSignal): Promise<void> {
    requireDotless(bucket);
    return this.#inner.deleteMany(
      this.#realBucket,
      names.map((name) => realName(bucket, name)),
      signal,
    );
  }

  async list(bucket: string, prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    requireDotless(bucket);
    assertLimit(limit);
    const start = `${bucket}.`;
    // Behind `<bucket>.` itself, which a stranger may have made: it is no name of ours.
    const page = await this.#inner.list(this.#realBucket, start + prefix, start + after, limit, signal);
    return { names: page.names.map((name) => name.slice(start.length)), more: page.more };
  }

  /**
   * Bucket names greater than `after`, in byte order. The store sorts names in which a bucket is followed by a dot: there `a-b` comes before `a`
   * (a dash sorts before the dot), but in a listing of buckets after it. So before a bucket is given out, the shorter ones are looked
   * for that end before one of its dashes. The search comes across them again later, and then passes over them.
   */
  async *#bucketsAfter(after: string, signal: AbortSignal | undefined): AsyncGenerator<string, void, undefined> {
    const knownEmpty = new Set<string>();
    let last = after;
    let position = after;
    let pageNames = 1;
    for (;;) {
      const page = await this.#listOrAbsent('', position, pageNames, signal);
      if (page === null) return;
      for (const name of page.names) {
        if (name <= position) continue;
        const bucket = name.slice(0, Math.max(0, name.indexOf('.')));
        if (!isBucketName(bucket)) {
          position = name;
          pageNames = FOREIGN_PAGE_NAMES;
          continue;
        }
        // '/' is right behind '.' and in no name: this is past all objects of that bucket.
        position = `${bucket}/`;
        pageNames = 1;
        if (bucket <= last) continue;
        for (const shorter of endingBeforeDash(bucket)) {
          if (shorter <= last || knownEmpty.has(shorter)) continue;
          if (await this.#hasObjects(shorter, signal)) {
            yield shorter;
            last = shorter;
          } else {
            knownEmpty.add(shorter);
          }
        }
        yield bucket;
        last = bucket;
      }
      if (!page.more) return;
    }
  }

  async #hasObjects(bucket: string, signal: AbortSignal | undefined): Promise<boolean> {
    const page = await this.#listOrAbsent(`${bucket}.`, `${bucket}.`, 1, signal);
    return page !== null && page.names.length > 0;
  }

  /** Null: the real bucket is not there. */
  async #listOrAbsent(
    prefix: string,
    after: string,
    limit: number,
    signal: AbortSignal | undefined,
  ): Promise<{ names: string[]; more: boolean } | null> {
    try {
      return await this.#inner.list(this.#realBucket, prefix, after, limit, signal);
    } catch (error) {
      if (error instanceof StoreError && error.class === 'absent') return null;
      throw error;
    }
  }
}

/** The bucket names that `bucket` makes when it ends before one of its dashes, the shortest first. */
function endingBeforeDash(bucket: string): string[] {
  const found: string[] = [];
  for (let dash = bucket.indexOf('-'); dash !== -1; dash = bucket.indexOf('-', dash + 1)) {
    const shorter = bucket.slice(0, dash);
    if (isBucketName(shorter)) found.push(shorter);
  }
  return found;
}

/** @throws StoreError `denied` for a bucket that cannot be a prefix. */
function requireDotless(bucket: string): void {
  requireBucketName(bucket);
  if (bucket.includes('.')) throw new StoreError('denied', `bucket name ${bucket} refused: with all objects in one bucket it cannot have a dot`);
}

/** @throws StoreError `denied` for names that are refused, do not fit together, or would make two dots in a row. */
function realName(bucket: string, name: string): string {
  requireDotless(bucket);
  requireObjectName(bucket, name);
  const joined = `${bucket}.${name}`;
  if (!isObjectName(joined)) {
    throw new StoreError(
      'denied',
      `object name ${joined} refused: bucket and name together have at most 200 characters, and no name begins with a dot`,
    );
  }
  return joined;
}
