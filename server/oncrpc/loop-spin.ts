/**
 * Keeps the event loop turning for a moment after the last message, instead of sleeping at once in the kernel's poll.
 *
 * Waking a sleeping thread on another CPU costs more than serving a cached READ (35 us and up on a virtual machine; docs/PERFORMANCE.md):
 * a client with one call outstanding pays it at every call, and one with many pays it at every pause. A loop that is still turning sees
 * the next call at once. It spins only while nothing is being executed: a call that waits for a disk needs the CPU for the disk's threads.
 */
import type { Clock } from '../core/time.ts';

export class LoopSpin {
  readonly #clock: Clock;
  readonly #spinMs: number;
  readonly #isExecuting: () => boolean;
  #untilMs = 0;
  #isTurning = false;
  readonly #turn = (): void => {
    if (this.#isExecuting() || this.#clock.monotonicMs() >= this.#untilMs) this.#isTurning = false;
    else this.#clock.soon(this.#turn);
  };

  /** `spinMs` 0 switches it off. `isExecuting`: some call is not answered yet. */
  constructor(clock: Clock, spinMs: number, isExecuting: () => boolean) {
    this.#clock = clock;
    this.#spinMs = spinMs;
    this.#isExecuting = isExecuting;
  }

  /** Something was received or answered: spin for `spinMs` from now on. */
  extend(): void {
    if (this.#spinMs <= 0) return;
    this.#untilMs = this.#clock.monotonicMs() + this.#spinMs;
    if (this.#isTurning || this.#isExecuting()) return;
    this.#isTurning = true;
    this.#clock.soon(this.#turn);
  }
}
