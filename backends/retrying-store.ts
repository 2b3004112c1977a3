import type { Clock, Random } from '../server/core/time.ts';
import { abortedError, pause, throwIfAborted } from './abort.ts';
import { type ByteRange, type GetOutcome, type ObjectBody, type ObjectStore, StoreError } from './object-store.ts';
import type { RetryObserver } from './store-observer.ts';

export interface RetrySettings {
  /** Upper bound of the pause after the first failure; it doubles with every further one. */
  readonly firstDelayMs: number;
  /** Where the doubling ends. */
  readonly delayMsMax: number;
  /** The pause after `no-space` is drawn from the half below this: an operator has to act, asking faster does not help. */
  readonly noSpaceDelayMs: number;
  /** An attempt is aborted after this long. The inner store must settle an aborted call promptly. Infinity: never. */
  readonly attemptTimeoutMs: number;
  /** No attempt starts later than this after the call; running out of time rejects with the last error. Infinity: only the signal ends it. */
  readonly deadlineMs: number;
}

export const RETRY_DEFAULTS: RetrySettings = {
  firstDelayMs: 50,
  delayMsMax: 10_000,
  noSpaceDelayMs: 10_000,
  attemptTimeoutMs: 30_000,
  deadlineMs: 60_000,
};

/**
 * Repeats calls of `inner` that failed with class `retry` or `no-space`, with exponential backoff and full jitter: each pause
 * is uniform in [0, bound), so that many callers who failed together do not come back together. All other classes pass through.
 *
 * A `put` whose answer was lost may have been applied: its repetition then answers `exists`, and the caller settles that by
 * reading back (`put-verified.ts`).
 */
export class RetryingStore implements ObjectStore {
  readonly #inner: ObjectStore;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #observer: RetryObserver | undefined;
  readonly #settings: RetrySettings;

  constructor(components: { inner: ObjectStore; clock: Clock; random: Random; observer?: RetryObserver }, settings: RetrySettings = RETRY_DEFAULTS) {
    this.#inner = components.inner;
    this.#clock = components.clock;
    this.#random = components.random;
    this.#observer = components.observer;
    this.#settings = settings;
  }

  get description(): string {
    return this.#inner.description;
  }

  get putIsAtomic(): boolean {
    return this.#inner.putIsAtomic;
  }

  createBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    return this.#retried(`create bucket ${bucket}`, signal, (attempt) => this.#inner.createBucket(bucket, attempt));
  }

  deleteBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    return this.#retried(`delete bucket ${bucket}`, signal, (attempt) => this.#inner.deleteBucket(bucket, attempt));
  }

  listBuckets(after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    return this.#retried('list buckets', signal, (attempt) => this.#inner.listBuckets(after, limit, attempt));
  }

  put(bucket: string, name: string, body: ObjectBody, signal?: AbortSignal): Promise<'written' | 'exists'> {
    return this.#retried(`put ${bucket}/${name}`, signal, (attempt) => this.#inner.put(bucket, name, body, attempt));
  }

  get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
    return this.#retried(`get ${bucket}/${name}`, signal, (attempt) => this.#inner.get(bucket, name, range, attempt));
  }

  head(bucket: string, name: string, signal?: AbortSignal): Promise<{ kind: 'found'; sizeBytes: number } | { kind: 'absent' }> {
    return this.#retried(`head ${bucket}/${name}`, signal, (attempt) => this.#inner.head(bucket, name, attempt));
  }

  delete(bucket: string, name: string, signal?: AbortSignal): Promise<void> {
    return this.#retried(`delete ${bucket}/${name}`, signal, (attempt) => this.#inner.delete(bucket, name, attempt));
  }

  deleteMany(bucket: string, names: readonly string[], signal?: AbortSignal): Promise<void> {
    const what = `delete ${names.length} objects of ${bucket}`;
    return this.#retried(what, signal, (attempt) => this.#inner.deleteMany(bucket, names, attempt));
  }

  list(bucket: string, prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    return this.#retried(`list ${bucket}`, signal, (attempt) => this.#inner.list(bucket, prefix, after, limit, attempt));
  }

  async #retried<T>(what: string, signal: AbortSignal | undefined, request: (attempt: AbortSignal | undefined) => Promise<T>): Promise<T> {
    const startedMs = this.#clock.monotonicMs();
    for (let attempt = 1; ; attempt += 1) {
      throwIfAborted(signal, what);
      let failure: StoreError;
      try {
        return await this.#attempt(what, signal, request);
      } catch (error) {
        if (!(error instanceof StoreError) || (error.class !== 'retry' && error.class !== 'no-space')) throw error;
        if (signal?.aborted === true) throw abortedError(signal, what);
        failure = error;
      }
      const delayMs = this.#delayMs(failure, attempt);
      const elapsedMs = this.#clock.monotonicMs() - startedMs;
      if (elapsedMs + delayMs > this.#settings.deadlineMs) {
        throw new StoreError(failure.class, `${failure.message}; gave up after ${attempt} attempts in ${Math.round(elapsedMs)} ms`, failure);
      }
      this.#observer?.willRetry(what, attempt, delayMs, failure);
      await pause(this.#clock, delayMs, signal, what);
    }
  }

  #delayMs(failure: StoreError, attempt: number): number {
    const fraction = this.#random.fraction();
    if (failure.class === 'no-space') return this.#settings.noSpaceDelayMs * (0.5 + fraction / 2);
    return fraction * Math.min(this.#settings.delayMsMax, this.#settings.firstDelayMs * 2 ** (attempt - 1));
  }

  /**
   * One attempt with its own time limit. It is awaited even when aborted: until the inner call settles it may still read the
   * body, which goes back to the caller when this promise settles.
   */
  async #attempt<T>(what: string, signal: AbortSignal | undefined, request: (attempt: AbortSignal | undefined) => Promise<T>): Promise<T> {
    const { attemptTimeoutMs } = this.#settings;
    if (attemptTimeoutMs === Infinity) return request(signal);
    const controller = new AbortController();
    const onAbort = (): void => controller.abort(signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    const cancel = this.#clock.after(attemptTimeoutMs, () => {
      controller.abort(new StoreError('retry', `${what}: no answer within ${attemptTimeoutMs} ms`));
    });
    try {
      return await request(controller.signal);
    } catch (error) {
      // The attempt ran out of time, which is not the caller's abort: say so, instead of "aborted".
      const timedOut = controller.signal.aborted && signal?.aborted !== true;
      if (timedOut && error instanceof StoreError && error.class === 'retry') throw controller.signal.reason;
      throw error;
    } finally {
      cancel();
      signal?.removeEventListener('abort', onAbort);
    }
  }
}
