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
