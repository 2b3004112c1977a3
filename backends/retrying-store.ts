import type { Clock, Random } from '../server/core/time.ts';
import { abortedError, throwIfAborted } from './abort.ts';
import { bodySizeBytes } from './object-body.ts';
import { type ByteRange, type GetOutcome, type ObjectBody, type ObjectStore, StoreError } from './object-store.ts';
import type { RetryObserver, RetryPacer, StoreRequestKind } from './store-observer.ts';

export interface RetrySettings {
  /** Upper bound of the pause after the first failure; it doubles with every further one. */
  readonly firstDelayMs: number;
  /** Where the doubling ends. */
  readonly delayMsMax: number;
  /** The pause after `no-space` is drawn from the half below this: an operator has to act, asking faster does not help. */
  readonly noSpaceDelayMs: number;
  /** An attempt without payload is aborted after this long. The inner store must settle an aborted call promptly. Infinity: none ever is. */
  readonly attemptTimeoutMs: number;
  /** Payload gets more time: attempts share the way to the store, so what counts is the most that is under way in its direction while it runs. */
  readonly bytesPerMsMin: number;
  /**
   * A small read without an answer for this long, while one that started a second later has its own, sits on a connection that died or at a server that
   * hangs: it is made again. Doubles with every attempt, for services that need their time to find another server. Infinity: never.
   */
  readonly overtakenAfterMs: number;
  /** No attempt starts later than this after the call; running out of time rejects with the last error. Infinity: only the signal ends it. */
  readonly deadlineMs: number;
}

export const RETRY_DEFAULTS: RetrySettings = {
  firstDelayMs: 50,
  delayMsMax: 10_000,
  noSpaceDelayMs: 10_000,
  attemptTimeoutMs: 30_000,
  // 4 Mbit/s: sixteen segments of 16 MiB at a time over a link of 1 MB/s take half of what they get.
  bytesPerMsMin: 524,
  overtakenAfterMs: 5000,
  deadlineMs: 60_000,
};

/** What a get without a range is taken for: its size is not known before the answer. */
const WHOLE_GET_BYTES = 4 * 1024 * 1024;
const SMALL_READ_BYTES = 256 * 1024;
/** A read that started this much later and has its answer has overtaken. */
const OVERTAKES_BY_MS = 1000;
const LOOK_EVERY_MS = 1000;

interface Traveller {
  readonly bytes: number;
  /** The most bytes, its own included, that were under way at a time since it started. */
  peakBytes: number;
}

/** Payload under way in one direction. */
class SharedWay {
  readonly #travellers = new Set<Traveller>();
  #bytes = 0;

  enter(bytes: number): Traveller {
    const traveller: Traveller = { bytes, peakBytes: 0 };
    this.#travellers.add(traveller);
    this.#bytes += bytes;
    if (bytes > 0) for (const other of this.#travellers) other.peakBytes = Math.max(other.peakBytes, this.#bytes);
    return traveller;
  }

  leave(traveller: Traveller): void {
    this.#travellers.delete(traveller);
    this.#bytes -= traveller.bytes;
  }
}

interface RunningAttempt {
  readonly what: string;
  readonly startedMs: number;
  readonly controller: AbortController;
}

interface Call {
  readonly kind: StoreRequestKind;
  /** For messages. */
  readonly what: string;
  readonly payloadBytes: number;
}

/**
 * Repeats calls of `inner` that failed with class `retry` or `no-space`, with exponential backoff and full jitter: each pause
 * is uniform in [0, bound), so that many callers who failed together do not come back together; a pacer may end pauses early. All other classes pass through.
 *
 * A `put` whose answer was lost may have been applied: its repetition then answers `exists`, and the caller settles that by
 * reading back (`put-verified.ts`).
 */
export class RetryingStore implements ObjectStore {
  readonly #inner: ObjectStore;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #observer: RetryObserver | undefined;
  readonly #pacer: RetryPacer;
  readonly #settings: RetrySettings;
  /** First attempts under way. */
  readonly #first = new Set<RunningAttempt>();
  readonly #toStore = new SharedWay();
  readonly #fromStore = new SharedWay();
  /** Start of the youngest small read that was answered. */
  #answeredFromMs = -Infinity;

  constructor(
    components: { inner: ObjectStore; clock: Clock; random: Random; observer?: RetryObserver; pacer?: RetryPacer },
    settings: RetrySettings = RETRY_DEFAULTS,
  ) {
    this.#inner = components.inner;
    this.#clock = components.clock;
    this.#random = components.random;
    this.#observer = components.observer;
    this.#pacer = components.pacer ?? { wait: ({ delayMs }, resume) => components.clock.after(delayMs, resume) };
    this.#settings = settings;
  }

  get description(): string {
    return this.#inner.description;
  }

  get putIsAtomic(): boolean {
    return this.#inner.putIsAtomic;
  }

  createBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    const call: Call = { kind: 'create-bucket', what: `create bucket ${bucket}`, payloadBytes: 0 };
    return this.#retried(call, signal, (attempt) => this.#inner.createBucket(bucket, attempt));
  }

  deleteBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    const call: Call = { kind: 'delete-bucket', what: `delete bucket ${bucket}`, payloadBytes: 0 };
    return this.#retried(call, signal, (attempt) => this.#inner.deleteBucket(bucket, attempt));
  }

  listBuckets(after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    const call: Call = { kind: 'list-buckets', what: 'list buckets', payloadBytes: 0 };
    return this.#retried(call, signal, (attempt) => this.#inner.listBuckets(after, limit, attempt));
  }

  put(bucket: string, name: string, body: ObjectBody, signal?: AbortSignal): Promise<'written' | 'exists'> {
    const call: Call = { kind: 'put', what: `put ${bucket}/${name}`, payloadBytes: bodySizeBytes(body) };
    return this.#retried(call, signal, (attempt) => this.#inner.put(bucket, name, body, attempt));
  }

  get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
    const call: Call = { kind: 'get', what: `get ${bucket}/${name}`, payloadBytes: range?.lengthBytes ?? WHOLE_GET_BYTES };
    return this.#retried(call, signal, (attempt) => this.#inner.get(bucket, name, range, attempt));
  }

  head(bucket: string, name: string, signal?: AbortSignal): Promise<{ kind: 'found'; sizeBytes: number } | { kind: 'absent' }> {
    const call: Call = { kind: 'head', what: `head ${bucket}/${name}`, payloadBytes: 0 };
    return this.#retried(call, signal, (attempt) => this.#inner.head(bucket, name, attempt));
  }

  delete(bucket: string, name: string, signal?: AbortSignal): Promise<void> {
    const call: Call = { kind: 'delete', what: `delete ${bucket}/${name}`, payloadBytes: 0 };
    return this.#retried(call, signal, (attempt) => this.#inner.delete(bucket, name, attempt));
  }

  deleteMany(bucket: string, names: readonly string[], signal?: AbortSignal): Promise<void> {
    const call: Call = { kind: 'delete-many', what: `delete ${names.length} objects of ${bucket}`, payloadBytes: 0 };
    return this.#retried(call, signal, (attempt) => this.#inner.deleteMany(bucket, names, attempt));
  }

  list(bucket: string, prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    const call: Call = { kind: 'list', what: `list ${bucket}`, payloadBytes: 0 };
    return this.#retried(call, signal, (attempt) => this.#inner.list(bucket, prefix, after, limit, attempt));
  }

  /**
   * Makes the attempts again that began before `startedBeforeMs` (monotonic) and are the first of their call: for when an outage is over, with which their
   * connections may have died without a word.
   */
  restart(startedBeforeMs: number): void {
    for (const { what, startedMs, controller } of this.#first) {
      if (startedMs < startedBeforeMs)
        controller.abort(new StoreError('retry', `${what}: no answer, though the outage in which it was under way is over`));
    }
  }

  async #retried<T>(call: Call, signal: AbortSignal | undefined, request: (attempt: AbortSignal | undefined) => Promise<T>): Promise<T> {
    const startedMs = this.#clock.monotonicMs();
    for (let attempt = 1; ; attempt += 1) {
      throwIfAborted(signal, call.what);
      let failure: StoreError;
      try {
        return await this.#attempt(call, attempt, signal, request);
      } catch (error) {
        if (!(error instanceof StoreError) || (error.class !== 'retry' && error.class !== 'no-space')) throw error;
        if (signal?.aborted === true) throw abortedError(signal, call.what);
        failure = error;
      }
      const delayMs = this.#delayMs(failure, attempt);
      const elapsedMs = this.#clock.monotonicMs() - startedMs;
      if (elapsedMs + delayMs > this.#settings.deadlineMs) {
        throw new StoreError(failure.class, `${failure.message}; gave up after ${attempt} attempts in ${Math.round(elapsedMs)} ms`, failure);
      }
      this.#observer?.willRetry(call.what, attempt, delayMs, failure);
      await this.#pause(call, attempt, delayMs, failure, signal);
    }
  }

  #pause(call: Call, attempts: number, delayMs: number, error: StoreError, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        cancel();
        if (signal !== undefined) reject(abortedError(signal, call.what));
      };
      const cancel = this.#pacer.wait({ kind: call.kind, attempts, delayMs, error }, () => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      });
      signal?.addEventListener('abort', onAbort, { once: true });
    });
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
  async #attempt<T>(
    call: Call,
    number: number,
    signal: AbortSignal | undefined,
    request: (attempt: AbortSignal | undefined) => Promise<T>,
  ): Promise<T> {
    if (this.#settings.attemptTimeoutMs === Infinity) return request(signal);
    const { attemptTimeoutMs, bytesPerMsMin } = this.#settings;
    const controller = new AbortController();
    const onAbort = (): void => controller.abort(signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    const way = call.kind === 'put' ? this.#toStore : this.#fromStore;
    const traveller = way.enter(call.payloadBytes);
    let waitedMs = 0;
    let cancel = (): void => {};
    const wait = (): void => {
      const timeoutMs = attemptTimeoutMs + (call.payloadBytes > 0 ? traveller.peakBytes / bytesPerMsMin : 0);
      if (waitedMs >= timeoutMs) {
        controller.abort(new StoreError('retry', `${call.what}: no answer within ${Math.round(timeoutMs)} ms`));
        return;
      }
      // More may have joined it when this time is over.
      cancel = this.#clock.after(timeoutMs - waitedMs, wait);
      waitedMs = timeoutMs;
    };
    wait();
    const startedMs = this.#clock.monotonicMs();
    const running: RunningAttempt = { what: call.what, startedMs, controller };
    // Once: over a way that is only slow, what is begun again and again is never done.
    if (number === 1) this.#first.add(running);
    const isSmallRead = isRead(call.kind) && call.payloadBytes <= SMALL_READ_BYTES;
    const cancelLook = isSmallRead ? this.#lookForOvertaking(call, startedMs, this.#settings.overtakenAfterMs * 2 ** (number - 1), controller) : null;
    try {
      const result = await request(controller.signal);
      if (isSmallRead) this.#answeredFromMs = Math.max(this.#answeredFromMs, startedMs);
      return result;
    } catch (error) {
      // The attempt ran out of time, which is not the caller's abort: say so, instead of "aborted".
      const timedOut = controller.signal.aborted && signal?.aborted !== true;
      if (timedOut && error instanceof StoreError && error.class === 'retry') throw controller.signal.reason;
      throw error;
    } finally {
      cancel();
      cancelLook?.();
      this.#first.delete(running);
      way.leave(traveller);
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /** Returns a function that ends it. */
  #lookForOvertaking(call: Call, startedMs: number, afterMs: number, controller: AbortController): () => void {
    if (afterMs === Infinity) return () => {};
    const look = (): void => {
      if (this.#answeredFromMs >= startedMs + OVERTAKES_BY_MS) {
        const waitedMs = Math.round(this.#clock.monotonicMs() - startedMs);
        controller.abort(new StoreError('retry', `${call.what}: no answer within ${waitedMs} ms, while later requests have theirs`));
      } else cancel = this.#clock.after(LOOK_EVERY_MS, look);
    };
    let cancel = this.#clock.after(afterMs, look);
    return () => cancel();
  }
}

function isRead(kind: StoreRequestKind): boolean {
  return kind === 'get' || kind === 'head' || kind === 'list' || kind === 'list-buckets';
}
