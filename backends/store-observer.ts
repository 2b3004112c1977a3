import type { StoreErrorClass } from './object-store.ts';

export const STORE_REQUEST_KINDS = ['create-bucket', 'delete-bucket', 'list-buckets', 'put', 'get', 'head', 'delete', 'delete-many', 'list'] as const;
export type StoreRequestKind = (typeof STORE_REQUEST_KINDS)[number];

/**
 * ok: done, found or written. exists, not-found: answers, not failures. aborted: the caller's signal. timeout: its time was over before an
 * answer came. Else the class of the StoreError.
 */
export type StoreOutcome = 'ok' | 'exists' | 'not-found' | 'aborted' | 'timeout' | StoreErrorClass;

/** One attempt at a store: the same object is told at its start and at its end. */
export interface StoreRequest {
  readonly kind: StoreRequestKind;
  /** As the caller names it, whatever the layout on the backend; '' for `list-buckets`. */
  readonly bucket: string;
  /** Of the body of a put, of the range of a get (Infinity: the whole object); else 0. */
  readonly payloadBytesMax: number;
  /** Monotonic. */
  readonly startedMs: number;
}

/** Told about every request to a store (metering, cost accounting, health). Called synchronously, must not throw. */
export interface StoreObserver {
  requestStarted(request: StoreRequest): void;
  /** `payloadBytes`: of the body of a put that was `ok`, of the result of a get; else 0. `error`: what it failed with, else null. */
  requestDone(request: StoreRequest, outcome: StoreOutcome, payloadBytes: number, durationMs: number, error: Error | null): void;
}

/** Told by a RetryingStore about every attempt that failed and will be made again. */
export interface RetryObserver {
  willRetry(what: string, attempt: number, delayMs: number, error: Error): void;
}

/** A request that waits for its next attempt. */
export interface WaitingRetry {
  readonly kind: StoreRequestKind;
  /** Attempts that failed so far. */
  readonly attempts: number;
  readonly delayMs: number;
  /** What the last attempt failed with. */
  readonly error: Error;
}

/** Who decides when a failed attempt is made again, within its delay: nobody needs to sleep on when the backend is seen to work again. */
export interface RetryPacer {
  /** Calls `resume` once, after `delayMs` or earlier. Returns a function that cancels it. */
  wait(retry: WaitingRetry, resume: () => void): () => void;
}
