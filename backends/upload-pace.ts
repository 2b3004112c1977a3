import type { StoreObserver, StoreOutcome, StoreRequest } from './store-observer.ts';

/** A put of less is no upload that others would have to wait for. */
export const UPLOAD_BYTES_MIN = 1024 * 1024;
/** An upload that takes longer says that too many share the way to the store: all of them would be done late, and none before. */
const SLOW_MS = 20_000;
/** Uploads that take less leave room for one more. */
const FAST_MS = 10_000;
const START = 4;

/**
 * How many uploads go at a time, by how long their attempts take: it is an observer of those, below the retries, whose pauses say nothing of the way. On a slow link many at once gain nothing: nothing is done, and so no dirty data is released, before
 * all are; and a peer that gets a sixteenth of such a link looks as if it was silent. A store that is far away but has the bandwidth gets as many as allowed.
 */
export class UploadPace implements StoreObserver {
  readonly #max: number;
  #limit: number;
  #changedMs = -Infinity;

  constructor(max: number) {
    this.#max = max;
    this.#limit = Math.min(START, max);
  }

  /** Uploads that may go at a time: 1 to `max`. */
  get limit(): number {
    return this.#limit;
  }

  requestStarted(): void {}

  requestDone(request: StoreRequest, outcome: StoreOutcome, _payloadBytes: number, durationMs: number): void {
    if (request.kind !== 'put' || request.payloadBytesMax < UPLOAD_BYTES_MIN || outcome === 'aborted') return;
    if (durationMs > SLOW_MS) {
      // Those that began under the former limit say nothing of this one.
      if (request.startedMs < this.#changedMs) return;
      this.#limit = Math.max(1, Math.floor(this.#limit / 2));
      this.#changedMs = request.startedMs + durationMs;
    } else if (durationMs < FAST_MS && (outcome === 'ok' || outcome === 'exists')) this.#limit = Math.min(this.#max, this.#limit + 1);
  }
}
