import type { StoreErrorClass } from './object-store.ts';

export const STORE_REQUEST_KINDS = ['create-bucket', 'delete-bucket', 'list-buckets', 'put', 'get', 'head', 'delete', 'delete-many', 'list'] as const;
export type StoreRequestKind = (typeof STORE_REQUEST_KINDS)[number];

/** ok: done, found or written. exists, not-found: answers, not failures. aborted: the caller's signal. Else the class of the StoreError. */
export type StoreOutcome = 'ok' | 'exists' | 'not-found' | 'aborted' | StoreErrorClass;

/** Told about every request to a store (metering, cost accounting). Called synchronously, must not throw. */
export interface StoreObserver {
  requestStarted(kind: StoreRequestKind): void;
  /** `payloadBytes`: of the body of a put that was `ok`, of the result of a get; else 0. */
  requestDone(kind: StoreRequestKind, outcome: StoreOutcome, payloadBytes: number, durationMs: number): void;
}

/** Told by a RetryingStore about every attempt that failed and will be made again. */
export interface RetryObserver {
  willRetry(what: string, attempt: number, delayMs: number, error: Error): void;
}
