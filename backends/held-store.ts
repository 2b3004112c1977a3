import { type ByteRange, type GetOutcome, type ObjectBody, type ObjectStore, StoreError } from './object-store.ts';

/**
 * Keeps everything from a store as long as there is a reason to: then each request rejects with class `retry`, and none gets to `inner`. For a
 * backend that was away at the start: what is brought to another one that answers at its address would be dropped here, and lost.
 */
export class HeldStore implements ObjectStore {
  readonly #inner: ObjectStore;
  readonly #reason: () => Error | null;

  /** `reason`: asked at every request; null: let it pass. */
  constructor(inner: ObjectStore, reason: () => Error | null) {
    this.#inner = inner;
    this.#reason = reason;
  }

  get description(): string {
    return this.#inner.description;
  }

  get putIsAtomic(): boolean {
    return this.#inner.putIsAtomic;
  }

  async createBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    this.#requireFree(`create bucket ${bucket}`);
    return this.#inner.createBucket(bucket, signal);
  }

  async deleteBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    this.#requireFree(`delete bucket ${bucket}`);
    return this.#inner.deleteBucket(bucket, signal);
  }

  async listBuckets(after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    this.#requireFree('list buckets');
    return this.#inner.listBuckets(after, limit, signal);
  }

  async put(bucket: string, name: string, body: ObjectBody, signal?: AbortSignal): Promise<'written' | 'exists'> {
    this.#requireFree(`put ${bucket}/${name}`);
    return this.#inner.put(bucket, name, body, signal);
  }

  async get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
    this.#requireFree(`get ${bucket}/${name}`);
    return this.#inner.get(bucket, name, range, signal);
  }

  async head(bucket: string, name: string, signal?: AbortSignal): Promise<{ kind: 'found'; sizeBytes: number } | { kind: 'absent' }> {
    this.#requireFree(`head ${bucket}/${name}`);
    return this.#inner.head(bucket, name, signal);
  }

  async delete(bucket: string, name: string, signal?: AbortSignal): Promise<void> {
    this.#requireFree(`delete ${bucket}/${name}`);
    return this.#inner.delete(bucket, name, signal);
  }

  async deleteMany(bucket: string, names: readonly string[], signal?: AbortSignal): Promise<void> {
    this.#requireFree(`delete ${names.length} objects of ${bucket}`);
    return this.#inner.deleteMany(bucket, names, signal);
  }

  async list(bucket: string, prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    this.#requireFree(`list ${bucket}`);
    return this.#inner.list(bucket, prefix, after, limit, signal);
  }

  #requireFree(what: string): void {
    const reason = this.#reason();
    if (reason !== null) throw new StoreError('retry', `${what}: not before the backend was recognised: ${reason.message}`, reason);
  }
}
