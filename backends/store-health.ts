import type { Logger } from '../server/core/logger.ts';
import type { Clock } from '../server/core/time.ts';
import type { RetryObserver, StoreObserver, StoreOutcome, StoreRequestKind } from './store-observer.ts';

/** How long an attempt may take before its earlier failure is forgotten; if it fails as well, the problem goes on. */
const ATTEMPT_MS = 2000;

/**
 * Why a store does not take what it is given, while it is tried again: retries hide it from those who wait (a `RetryingStore` may try for a minute),
 * but people must know at once. Other requests may succeed meanwhile (a small object still fits on a full disk), so a failure is a problem
 * until its own next attempt is over. Passes everything on to `inner`.
 */
export class StoreHealth implements StoreObserver, RetryObserver {
  readonly #inner: StoreObserver & RetryObserver;
  readonly #clock: Clock;
  readonly #logger: Logger;
  /** By what was tried. As many entries as requests are being repeated. */
  readonly #failing = new Map<string, { readonly error: Error; readonly untilMs: number }>();

  constructor(components: { inner: StoreObserver & RetryObserver; clock: Clock; logger: Logger }) {
    this.#inner = components.inner;
    this.#clock = components.clock;
    this.#logger = components.logger;
  }

  /** The last failure that is not over, or null. */
  get problem(): Error | null {
    this.#forget();
    return [...this.#failing.values()].at(-1)?.error ?? null;
  }

  willRetry(what: string, attempt: number, delayMs: number, error: Error): void {
    this.#inner.willRetry(what, attempt, delayMs, error);
    this.#forget();
    if (this.#failing.size === 0) this.#logger.warn({ err: error, request: what }, 'a request to the backend failed and is tried again');
    this.#failing.set(what, { error, untilMs: this.#clock.monotonicMs() + delayMs + ATTEMPT_MS });
  }

  requestStarted(kind: StoreRequestKind): void {
    this.#inner.requestStarted(kind);
  }

  requestDone(kind: StoreRequestKind, outcome: StoreOutcome, payloadBytes: number, durationMs: number): void {
    this.#inner.requestDone(kind, outcome, payloadBytes, durationMs);
  }

  #forget(): void {
    const nowMs = this.#clock.monotonicMs();
    for (const [what, { untilMs }] of this.#failing) if (untilMs <= nowMs) this.#failing.delete(what);
  }
}
