import type { Clock } from '../server/core/time.ts';
import { bodySizeBytes } from './object-body.ts';
import { type ByteRange, type GetOutcome, type ObjectBody, type ObjectStore, StoreError } from './object-store.ts';
import type { StoreObserver, StoreOutcome, StoreRequest, StoreRequestKind } from './store-observer.ts';

/** Tells observers about every request of `inner`, and changes nothing. Below the RetryingStore it counts attempts, above it calls. */
export class MeteredStore implements ObjectStore {
  readonly #inner: ObjectStore;
  readonly #observers: readonly StoreObserver[];
  readonly #clock: Clock;

  constructor(components: { inner: ObjectStore; observers: readonly StoreObserver[]; clock: Clock }) {
    this.#inner = components.inner;
    this.#observers = components.observers;
    this.#clock = components.clock;
  }

  get description(): string {
    return this.#inner.description;
  }

  get putIsAtomic(): boolean {
    return this.#inner.putIsAtomic;
  }

  createBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    return this.#metered('create-bucket', bucket, 0, signal, () => this.#inner.createBucket(bucket, signal), isOk);
  }

  deleteBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    return this.#metered('delete-bucket', bucket, 0, signal, () => this.#inner.deleteBucket(bucket, signal), isOk);
  }

  listBuckets(after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    return this.#metered('list-buckets', '', 0, signal, () => this.#inner.listBuckets(after, limit, signal), isOk);
  }

  put(bucket: string, name: string, body: ObjectBody, signal?: AbortSignal): Promise<'written' | 'exists'> {
    return this.#metered(
      'put',
      bucket,
      bodySizeBytes(body),
      signal,
      () => this.#inner.put(bucket, name, body, signal),
      (outcome) => (outcome === 'written' ? 'ok' : 'exists'),
      (outcome) => (outcome === 'written' ? bodySizeBytes(body) : 0),
    );
  }

  get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
    return this.#metered(
      'get',
      bucket,
      range?.lengthBytes ?? Infinity,
      signal,
      () => this.#inner.get(bucket, name, range, signal),
      isFound,
      (outcome) => (outcome.kind === 'found' ? outcome.bytes.byteLength : 0),
    );
  }

  head(bucket: string, name: string, signal?: AbortSignal): Promise<{ kind: 'found'; sizeBytes: number } | { kind: 'absent' }> {
    return this.#metered('head', bucket, 0, signal, () => this.#inner.head(bucket, name, signal), isFound);
  }

  delete(bucket: string, name: string, signal?: AbortSignal): Promise<void> {
    return this.#metered('delete', bucket, 0, signal, () => this.#inner.delete(bucket, name, signal), isOk);
  }

  deleteMany(bucket: string, names: readonly string[], signal?: AbortSignal): Promise<void> {
    return this.#metered('delete-many', bucket, 0, signal, () => this.#inner.deleteMany(bucket, names, signal), isOk);
  }

  list(bucket: string, prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    return this.#metered('list', bucket, 0, signal, () => this.#inner.list(bucket, prefix, after, limit, signal), isOk);
  }

  async #metered<T>(
    kind: StoreRequestKind,
    bucket: string,
    payloadBytesMax: number,
    signal: AbortSignal | undefined,
    call: () => Promise<T>,
    outcomeOf: (result: T) => StoreOutcome,
    bytesOf?: (result: T) => number,
  ): Promise<T> {
    const startedMs = this.#clock.monotonicMs();
    const request: StoreRequest = { kind, bucket, payloadBytesMax, startedMs };
    for (const observer of this.#observers) observer.requestStarted(request);
    let result: T;
    try {
      result = await call();
    } catch (error) {
      const outcome = failureOutcome(error, signal);
      const durationMs = this.#clock.monotonicMs() - startedMs;
      // "Aborted" says nothing; the reason says how long nobody answered.
      const told = (outcome === 'timeout' ? signal?.reason : error) as Error;
      for (const observer of this.#observers) observer.requestDone(request, outcome, 0, durationMs, told);
      throw error;
    }
    const durationMs = this.#clock.monotonicMs() - startedMs;
    const [outcome, bytes] = [outcomeOf(result), bytesOf?.(result) ?? 0];
    for (const observer of this.#observers) observer.requestDone(request, outcome, bytes, durationMs, null);
    return result;
  }
}

/** Anything but a StoreError is a bug below; it is counted as a failure and goes on its way. Who aborts because of the time says so with a StoreError as reason. */
function failureOutcome(error: unknown, signal: AbortSignal | undefined): StoreOutcome {
  if (signal?.aborted === true) return signal.reason instanceof StoreError ? 'timeout' : 'aborted';
  return error instanceof StoreError ? error.class : 'retry';
}

function isOk(): StoreOutcome {
  return 'ok';
}

function isFound(result: { kind: 'found' | 'absent' }): StoreOutcome {
  return result.kind === 'found' ? 'ok' : 'not-found';
}
