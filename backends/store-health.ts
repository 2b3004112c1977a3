import type { Logger } from '../server/core/logger.ts';
import type { RetryObserver, StoreObserver, StoreOutcome, StoreRequestKind } from './store-observer.ts';

/**
 * Why a store does not take what it is given, while it is tried again: retries hide it from those who wait (`RetryingStore` may try for a minute),
 * but people must know at once. Passes everything on to `inner`.
 */
export class StoreHealth implements StoreObserver, RetryObserver {
  readonly #inner: StoreObserver & RetryObserver;
  readonly #logger: Logger;
  /** Last failure by the first word of what was tried (`put`, `get`, `create`), until a request of that kind is done again. */
  readonly #failing = new Map<string, Error>();

  constructor(components: { inner: StoreObserver & RetryObserver; logger: Logger }) {
    this.#inner = components.inner;
    this.#logger = components.logger;
  }

  /** The last failure that is not over, or null. */
  get problem(): Error | null {
    return [...this.#failing.values()].at(-1) ?? null;
  }

  willRetry(what: string, attempt: number, delayMs: number, error: Error): void {
    this.#inner.willRetry(what, attempt, delayMs, error);
    const kind = firstWord(what, ' ');
    if (!this.#failing.has(kind)) this.#logger.warn({ err: error, request: what }, 'a request to the backend failed and is tried again');
    this.#failing.set(kind, error);
  }

  requestStarted(kind: StoreRequestKind): void {
    this.#inner.requestStarted(kind);
  }

  requestDone(kind: StoreRequestKind, outcome: StoreOutcome, payloadBytes: number, durationMs: number): void {
    this.#inner.requestDone(kind, outcome, payloadBytes, durationMs);
    if (this.#failing.size === 0 || !(outcome === 'ok' || outcome === 'exists' || outcome === 'not-found')) return;
    if (this.#failing.delete(firstWord(kind, '-'))) this.#logger.info({ request: kind }, 'the backend takes requests of this kind again');
  }
}

function firstWord(text: string, separator: string): string {
  const end = text.indexOf(separator);
  return end === -1 ? text : text.slice(0, end);
}
