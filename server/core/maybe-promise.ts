/**
 * A result that is there already, or will be. Hot operations (READ from the cache, GETATTR) answer synchronously and cost
 * no promise; the same call answers with a promise when it has to wait.
 */
export type MaybePromise<T> = T | Promise<T>;

/** True when a MaybePromise has to be awaited. */
export function isPending<T>(value: MaybePromise<T>): value is Promise<T> {
  return value instanceof Promise;
}
