/**
 * Locks of block ranges of one object, for what has to wait between reading blocks and appending them. A write that waits for nothing takes none: it
 * only looks whether it may pass.
 */

import { assert } from '../core/assert.ts';

/** Held by one writer over blocks `first` to `last`. */
export interface RangeLock {
  readonly first: number;
  readonly last: number;
  readonly released: Promise<void>;
  readonly release: () => void;
}

export class RangeLocks {
  readonly #locks: RangeLock[] = [];
  #exclusive: Promise<void> | null = null;

  /** Somebody has, or waits for, the whole object. */
  get exclusive(): boolean {
    return this.#exclusive !== null;
  }

  /** Whether a block of the range is locked. */
  isLocked(first: number, last: number): boolean {
    for (const lock of this.#locks) if (first <= lock.last && last >= lock.first) return true;
    return false;
  }

  /** Locks a range that is free. */
  lock(first: number, last: number): RangeLock {
    const { promise: released, resolve: wake } = Promise.withResolvers<void>();
    const lock: RangeLock = {
      first,
      last,
      released,
      release: () => {
        const at = this.#locks.indexOf(lock);
        if (at >= 0) this.#locks.splice(at, 1);
        wake();
      },
    };
    this.#locks.push(lock);
    return lock;
  }

  /** Locks a range as soon as nobody holds a block of it, or the whole object. */
  async lockWhenFree(first: number, last: number): Promise<RangeLock> {
    for (;;) {
      if (this.#exclusive !== null) await this.#exclusive;
      else {
        const conflict = this.#locks.find((lock) => first <= lock.last && last >= lock.first);
        if (conflict === undefined) return this.lock(first, last);
        await conflict.released;
      }
    }
  }

  /** Resolves when nobody has the whole object. */
  async untilShared(): Promise<void> {
    while (this.#exclusive !== null) await this.#exclusive;
  }

  /** Runs `work` when all ranges are released; none can be locked until it has ended. Only while `exclusive` is false. */
  async exclusively<T>(work: () => Promise<T>): Promise<T> {
    assert(this.#exclusive === null, 'one owner of the whole object at a time: look at `exclusive` right before');
    const { promise, resolve: release } = Promise.withResolvers<void>();
    this.#exclusive = promise;
    try {
      while (this.#locks.length > 0) await this.#locks[0]?.released;
      return await work();
    } finally {
      this.#exclusive = null;
      release();
    }
  }
}
