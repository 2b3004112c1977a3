/** What an answer of Swift means for the caller of a store. */
import type { Clock } from '../../server/core/time.ts';
import { pause } from '../abort.ts';
import { StoreError, type StoreErrorClass } from '../object-store.ts';
import { dateMs, type HttpAnswer } from './swift-http.ts';

/** A server may ask for a pause; it gets at most this one: it may be wrong by hours, and writes wait. */
const RETRY_AFTER_MS_MAX = 10_000;

/** `put bucket/name: Swift answered 503 (transaction tx...)`: the number finds the request in the cluster's logs. */
export function statusText(what: string, answer: HttpAnswer): string {
  const transaction = answer.headers['x-trans-id'];
  const known = typeof transaction === 'string' && /^[\w.-]{1,100}$/.test(transaction);
  return `${what}: Swift answered ${answer.status}${known ? ` (transaction ${transaction})` : ''}`;
}

/** The error for an answer that is no success and has no meaning of its own for this call. */
export function refusal(what: string, answer: HttpAnswer): StoreError {
  const { status } = answer;
  const text = statusText(what, answer);
  if (status >= 300 && status < 400) return new StoreError('denied', `${text}, a redirect; set the URL that it leads to`);
  return new StoreError(classOf(status), status === 403 ? `${text}: the user may not do that` : text);
}

function classOf(status: number): StoreErrorClass {
  switch (status) {
    case 404:
      return 'absent';
    // 413 is what a quota answers: no object of ours is larger than any limit on size.
    case 413:
    case 507:
      return 'no-space';
    // 409: another request was just at the same name. 422: the body was damaged on its way. 498: rate limit (not a token!).
    case 408:
    case 409:
    case 422:
    case 425:
    case 429:
    case 498:
      return 'retry';
    default:
      // 1xx and other nonsense too: whoever answers so is hardly Swift, and may be replaced by it in a moment.
      return status >= 400 && status < 500 ? 'denied' : 'retry';
  }
}

/** Holds calls back while the server asked for a pause (`Retry-After`, seconds or a date). */
export class RetryAfter {
  readonly #clock: Clock;
  #untilMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  note(answer: HttpAnswer): void {
    const header = answer.headers['retry-after'];
    if (header === undefined || answer.status < 400) return;
    const delayMs = /^\d{1,9}$/.test(header) ? Number(header) * 1000 : dateMs(header) - this.#clock.wallMs();
    if (delayMs > 0) this.#untilMs = Math.max(this.#untilMs, this.#clock.monotonicMs() + Math.min(delayMs, RETRY_AFTER_MS_MAX));
  }

  /** Null when there is nothing to wait for. @throws StoreError `retry` when the signal fires. */
  wait(signal: AbortSignal | undefined, what: string): Promise<void> | null {
    const delayMs = this.#untilMs - this.#clock.monotonicMs();
    return delayMs > 0 ? pause(this.#clock, delayMs, signal, what) : null;
  }
}
