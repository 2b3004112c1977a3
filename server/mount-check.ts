/** Whether a directory's file system answers at all, before anything touches it on the main thread: calls on a mount whose server is gone never end. */
import { stat } from 'node:fs/promises';

import type { Clock } from './core/time.ts';
import { stuckThreads } from './stuck-threads.ts';

export class MountCheck {
  readonly #path: string;
  readonly #clock: Clock;
  readonly #stat: (path: string) => Promise<unknown>;
  #pending: Promise<void> | null = null;

  constructor(path: string, clock: Clock, statPath: (path: string) => Promise<unknown> = stat) {
    this.#path = path;
    this.#clock = clock;
    this.#stat = statPath;
  }

  /** True for any answer, an error too. One question at a time: each that is not answered holds a thread of libuv's pool. */
  async responds(withinMs: number): Promise<boolean> {
    this.#pending ??= this.#ask();
    const { promise: late, resolve } = Promise.withResolvers<false>();
    const cancel = this.#clock.after(withinMs, () => resolve(false));
    try {
      return await Promise.race([this.#pending.then(() => true), late]);
    } finally {
      cancel();
    }
  }

  async #ask(): Promise<void> {
    stuckThreads.count += 1;
    try {
      await this.#stat(this.#path);
    } catch {
      // What is wrong there is found out by those who use it.
    } finally {
      stuckThreads.count -= 1;
      this.#pending = null;
    }
  }
}
