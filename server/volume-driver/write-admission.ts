/**
 * Back-pressure of a vPool's writes (invariant 10): acknowledged bytes that are not on the backend are bounded. Near the bound writes slow down
 * smoothly; at it they wait until something was uploaded. They don't fail.
 */
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { Clock } from '../core/time.ts';

/** Share of the bound from which on writes are slowed down. */
const SLOW_FROM = 0.75;
/** Delay of a write of 1 MiB just below the bound; smaller ones in proportion. */
const DELAY_MS_MAX = 400;
const LOOK_EVERY_MS = 20;

export class WriteAdmission {
  readonly #clock: Clock;
  readonly #dirtyBytes: () => number;
  readonly #dirtyBytesMax: number;
  #waiting = 0;

  constructor(clock: Clock, dirtyBytes: () => number, dirtyBytesMax: number) {
    this.#clock = clock;
    this.#dirtyBytes = dirtyBytes;
    this.#dirtyBytesMax = dirtyBytesMax;
  }

  /** Writes that wait at the bound now. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Whether a write may pass at once. */
  get isOpen(): boolean {
    return this.#dirtyBytes() / this.#dirtyBytesMax < SLOW_FROM;
  }

  /** Lets a write of `bytes` pass, at once or later. `false`: it waited `patienceMs` and the bound is still reached. */
  admit(bytes: number, patienceMs: number): MaybePromise<boolean> {
    if (this.isOpen) return true;
    return this.#wait(bytes, patienceMs);
  }

  async #wait(bytes: number, patienceMs: number): Promise<boolean> {
    const started = this.#clock.monotonicMs();
    this.#waiting += 1;
    try {
      for (;;) {
        const fill = this.#dirtyBytes() / this.#dirtyBytesMax;
        if (fill < 1) {
          const share = Math.max(0, (fill - SLOW_FROM) / (1 - SLOW_FROM));
          const delayMs = DELAY_MS_MAX * share * share * Math.min(1, bytes / 1_048_576);
          if (delayMs >= 1) await this.#clock.sleep(delayMs);
          return true;
        }
        if (this.#clock.monotonicMs() - started > patienceMs) return false;
        await this.#clock.sleep(LOOK_EVERY_MS);
      }
    } finally {
      this.#waiting -= 1;
    }
  }
}
