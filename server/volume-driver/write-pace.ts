/** Lets the writes of one object pass at a given speed, in order of arrival, each after a bounded wait: while its log is copied to another router (decision 0038). */
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { Clock } from '../core/time.ts';

/** What may pass at once although it is faster: writes come in batches. */
const BURST_MS = 20;

interface PacedWrite {
  readonly dueMs: number;
  readonly pass: () => void;
}

export class WritePace {
  readonly #clock: Clock;
  #bytesPerMs = Infinity;
  #waitMsMax = 0;
  /** When what was let pass so far would have passed at this speed. */
  #paidMs = -Infinity;
  /** In order of arrival, which is that of their times. */
  #waiting: PacedWrite[] = [];
  #cancelTimer: (() => void) | null = null;
  #waitedFromMs = 0;
  #slowedMs = 0;
  #ended = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** How long some write had to wait, altogether. */
  get slowedMs(): number {
    return this.#waiting.length === 0 ? this.#slowedMs : this.#slowedMs + this.#clock.monotonicMs() - this.#waitedFromMs;
  }

  /** Whether writes pass without waiting. */
  get isOpen(): boolean {
    return this.#bytesPerMs === Infinity;
  }

  /** From here on. A write waits for `waitMsMax` at most, whatever comes of the speed. Who waits already is not touched. */
  set(bytesPerMs: number, waitMsMax: number): void {
    if (this.#ended) return;
    this.#bytesPerMs = bytesPerMs;
    this.#waitMsMax = waitMsMax;
  }

  /** All that wait pass now, and all that come, for good. */
  end(): void {
    this.#ended = true;
    this.#bytesPerMs = Infinity;
    this.#cancelTimer?.();
    this.#cancelTimer = null;
    this.#letPass(Infinity);
  }

  /** Resolves, if it is to wait at all, when a write of `bytes` may go on. */
  pass(bytes: number): MaybePromise<void> {
    if (this.#bytesPerMs === Infinity) return undefined;
    const nowMs = this.#clock.monotonicMs();
    const dueMs = Math.min(Math.max(this.#paidMs, nowMs - BURST_MS), nowMs + this.#waitMsMax);
    this.#paidMs = dueMs + bytes / this.#bytesPerMs;
    if (dueMs <= nowMs && this.#waiting.length === 0) return undefined;
    return new Promise((resolve) => {
      if (this.#waiting.length === 0) this.#waitedFromMs = nowMs;
      this.#waiting.push({ dueMs, pass: resolve });
      if (this.#cancelTimer === null) this.#wakeAt(dueMs - nowMs);
    });
  }

  #wakeAt(delayMs: number): void {
    this.#cancelTimer = this.#clock.after(Math.max(1, delayMs), () => {
      this.#cancelTimer = null;
      const nowMs = this.#clock.monotonicMs();
      this.#letPass(nowMs);
      const [next] = this.#waiting;
      if (next !== undefined && this.#cancelTimer === null) this.#wakeAt(next.dueMs - nowMs);
    });
  }

  #letPass(untilMs: number): void {
    let count = 0;
    for (const { dueMs } of this.#waiting) {
      if (dueMs > untilMs) break;
      count += 1;
    }
    if (count === 0) return;
    const passing = this.#waiting.slice(0, count);
    this.#waiting = this.#waiting.slice(count);
    if (this.#waiting.length === 0) this.#slowedMs += this.#clock.monotonicMs() - this.#waitedFromMs;
    for (const { pass } of passing) pass();
  }
}
