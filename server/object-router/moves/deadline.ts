import { ApplianceError } from '../../core/errors.ts';
import type { Clock } from '../../core/time.ts';

/** As `promise`, but rejects with ApplianceError `move-timeout` after `timeoutMs`; what comes later is dropped. */
export function within<T>(clock: Clock, promise: Promise<T>, timeoutMs: number, what: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const cancel = clock.after(timeoutMs, () =>
      reject(new ApplianceError('move-timeout', `${what} took longer than ${timeoutMs} ms`, { retryable: true })),
    );
    promise.then(
      (value) => {
        cancel();
        resolve(value);
      },
      (error: unknown) => {
        cancel();
        reject(error instanceof Error ? error : new Error(String(error)));
      },
    );
  });
}
