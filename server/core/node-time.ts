import { randomBytes } from 'node:crypto';
import { performance } from 'node:perf_hooks';

import type { Clock, Random } from './time.ts';

/** The machine's clock. */
export const systemClock: Clock = {
  wallMs: () => Date.now() + (performance.now() % 1),
  monotonicMs: () => performance.now(),
  after(delayMs, callback) {
    const timer = setTimeout(callback, delayMs);
    timer.unref();
    return () => clearTimeout(timer);
  },
  soon(callback) {
    setImmediate(callback);
  },
  sleep: (delayMs) => new Promise((resolve) => setTimeout(resolve, delayMs).unref()),
};

/** The machine's cryptographic randomness. */
export const systemRandom: Random = {
  bytes: (count) => randomBytes(count),
  fraction: () => randomBytes(4).readUInt32LE(0) / 2 ** 32,
};

/** Monotonic milliseconds that all threads of this process share; `systemClock.monotonicMs` counts from the start of its own thread. */
export function processMonotonicMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / 1e6;
}
