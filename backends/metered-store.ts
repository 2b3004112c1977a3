import type { Clock } from '../server/core/time.ts';
import { bodySizeBytes } from './object-body.ts';
import { type ByteRange, type GetOutcome, type ObjectBody, type ObjectStore, StoreError } from './object-store.ts';
import type { StoreObserver, StoreOutcome, StoreRequestKind } from './store-observer.ts';

/** Tells an observer about every request of `inner`, and changes nothing. Below the RetryingStore it counts attempts, above it calls. */
export class MeteredStore implements ObjectStore {
  readonly #inner: ObjectStore;
  readonly #observer: StoreObserver;
  readonly #clock: Clock;

  constructor(components: { inner: ObjectStore; observer: StoreObserver; clock: Clock }) {
    this.#inner = components.inner;
    this.#observer = components.observer;
    this.#clock = components.clock;
  }

  get description(): string {
    return this.#inner.description;
  }

  get putIsAtomic(): boolean {
    return this.#inner.putIsAtomic;
  }

  createBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    return this.#metered('create-bucket', signal, () => this.#inner.createBucket(bucket, signal), isOk);
  }

  deleteBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    return this.#metered('delete-bucket', signal, () => this.#inner.deleteBucket(bucket, signal), isOk);
  }

  listBuckets(after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    return this.#metered('list-buckets', signal, () => this.#inner.listBuckets(after, limit, signal), isOk);
  }

  put(bucket: string, name: string, body: ObjectBody, signal?: AbortSignal): Promise<'written' | 'exists'> {
    return this.#metered(
      'put',
      signal,
      () => this.#inner.put(bucket, name, body, signal),
      (outcome) => (outcome === 'written' ? 'ok' : 'exists'),
      (outcome) => (outcome === 'written' ? bodySizeBytes(body) : 0),
    );
  }

  get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
    return this.#metered(
      'get',
      signal,
      () => this.#inner.get(bucket, name, range, signal),
      isFound,
      (outcome) => (outcome.kind === 'found' ? outcome.bytes.byteLength : 0),
    );
  }

  head(bucket: string, name: string, signal?: AbortSignal): Promise<{ kind: 'found'; sizeBytes: number } | { kind: 'absent' }> {
    return this.#metered('head', signal, () => this.#inner.head(bucket, name, signal), isFound);
  }

  delete(bucket: string, name: string, signal?: AbortSignal): Promise<void> {
    return this.#metered('delete', signal, () => this.#inner.delete(bucket, name, signal), isOk);
  }

  deleteMany(bucket: string, names: readonly string[], signal?: AbortSignal): Promise<void> {
    return this.#metered('delete-many', signal, () => this.#inner.deleteMany(bucket, names, signal), isOk);
  }

  list(bucket: string, prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    return this.#metered('list', signal, () => this.#inner.list(bucket, prefix, after, limit, signal), isOk);
  }

  async #metered<T>(
    kind: StoreRequestKind,
    signal: AbortSignal | undefined,
    request: () => Promise<T>,
    outcomeOf: (result: T) => StoreOutcome,
    bytesOf?: (result: T) => number,
  ): Promise<T> {
    const startedMs = this.#clock.monotonicMs();
    this.#observer.requestStarted(kind);
    let result: T;
    try {
      result = await request();
    } catch (error) {
      // Anything but a StoreError is a bug below; it is counted as a failure and goes on its way.
      const outcome = signal?.aborted === true ? 'aborted' : error instanceof StoreError ? error.class : 'retry';
      this.#observer.requestDone(kind, outcome, 0, this.#clock.monotonicMs() - startedMs);
      throw error;
    }
    this.#observer.requestDone(kind, outcomeOf(result), bytesOf?.(result) ?? 0, this.#clock.monotonicMs() - startedMs);
    return result;
  }
}

function isOk(): StoreOutcome {
  return 'ok';
}

function isFound(result: { kind: 'found' | 'absent' }): StoreOutcome {
  return result.kind === 'found' ? 'ok' : 'not-found';
}
