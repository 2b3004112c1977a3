import { systemClock } from '../../core/node-time.ts';
import type { Clock } from '../../core/time.ts';

/** Time that passes only when a test says so; turns of the event loop are real. */
export class SteppedClock implements Clock {
  #nowMs = 1_000_000;
  readonly #timers = new Set<{ readonly atMs: number; readonly callback: () => void }>();

  wallMs(): number {
    return this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, callback: () => void): () => void {
    const timer = { atMs: this.#nowMs + delayMs, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  soon(callback: () => void): void {
    systemClock.soon(callback);
  }

  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => this.after(delayMs, resolve));
  }

  /** Lets time pass; timers run in their order. */
  advance(ms: number): void {
    const endMs = this.#nowMs + ms;
    for (;;) {
      let next: { readonly atMs: number; readonly callback: () => void } | null = null;
      for (const timer of this.#timers) if (timer.atMs <= endMs && (next === null || timer.atMs < next.atMs)) next = timer;
      if (next === null) break;
      this.#timers.delete(next);
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.callback();
    }
    this.#nowMs = endMs;
  }

  /** Time passed while the process stood still: no timer ran yet. */
  jump(ms: number): void {
    this.#nowMs += ms;
  }
}

/** Waits, over turns of the event loop, until it is so. */
export async function until(isSo: () => boolean, what: string): Promise<void> {
  const deadlineMs = systemClock.monotonicMs() + 240_000;
  while (!isSo()) {
    if (systemClock.monotonicMs() > deadlineMs) throw new Error(`it never happened that ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/**
 * Waits until what was sent between two ends in this process has arrived and was answered: the kernel hands bytes of the loopback on at once, and each
 * way through sockets, relay and frames takes turns of the one event loop, however slow the machine is.
 */
export async function settled(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 10));
  for (let turn = 0; turn < 50; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}
