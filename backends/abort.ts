import type { Clock } from '../server/core/time.ts';
import { StoreError } from './object-store.ts';

/** What an aborted call rejects with: class `retry`, the signal's reason as cause. Who aborted it knows from the signal. */
export function abortedError(signal: AbortSignal, what: string): StoreError {
  return new StoreError('retry', `${what}: aborted`, signal.reason);
}

/** @throws StoreError (see `abortedError`) when the signal has fired. */
export function throwIfAborted(signal: AbortSignal | undefined, what: string): void {
  if (signal !== undefined && signal.aborted) throw abortedError(signal, what);
}

/** Sleeps `delayMs` on `clock`. @throws StoreError (see `abortedError`) as soon as the signal fires. */
export function pause(clock: Clock, delayMs: number, signal: AbortSignal | undefined, what: string): Promise<void> {
  if (signal === undefined) return clock.sleep(delayMs);
  if (signal.aborted) return Promise.reject(abortedError(signal, what));
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      cancel();
      reject(abortedError(signal, what));
    };
    const cancel = clock.after(delayMs, () => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    });
    signal.addEventListener('abort', onAbort, { once: true });
  });
}
