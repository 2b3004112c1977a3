/** Space of the datastore, looked at once a second, so that FSSTAT answers at once. */
import type { PoolUsage, Registry } from '../../registry/ports.ts';
import type { Disk } from '../core/disk.ts';
import type { Clock } from '../core/time.ts';
import type { Capacity } from './attribute-calls.ts';

const EVERY_MS = 1000;
const FIRST_LOOK_MS_MAX = 2000;

export class CapacityWatch implements Capacity {
  readonly #components: { disk: Disk; clock: Clock; registry: Registry; pendingBytes: () => number };
  readonly #settings: { path: string; capacityBytes: number | null };
  #totalBytes = 0;
  #freeBytes = 0;
  #usage: PoolUsage = { inodes: 0, usedBytes: 0 };
  #problem: Error | null = null;
  #cancel: (() => void) | null = null;
  #stopped = false;

  /** `pendingBytes`: deleted data that waits for its grace time, which counts as free. */
  constructor(
    components: { disk: Disk; clock: Clock; registry: Registry; pendingBytes: () => number },
    settings: { path: string; capacityBytes: number | null },
  ) {
    this.#components = components;
    this.#settings = settings;
  }

  get totalBytes(): number {
    return this.#totalBytes;
  }
  get freeBytes(): number {
    return this.#freeBytes;
  }
  get usage(): PoolUsage {
    return this.#usage;
  }
  get problem(): Error | null {
    return this.#problem;
  }

  /** Looks once, then goes on by itself. A backend directory that is not there, or hangs, is a problem, no reason not to start. */
  async start(): Promise<void> {
    const first = this.#look().finally(() => this.#schedule());
    await new Promise<void>((resolve) => {
      const cancel = this.#components.clock.after(FIRST_LOOK_MS_MAX, resolve);
      void first.then(() => {
        cancel();
        resolve();
      });
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel?.();
  }

  #schedule(): void {
    if (this.#stopped) return;
    this.#cancel = this.#components.clock.after(EVERY_MS, () => {
      void this.#look().finally(() => this.#schedule());
    });
  }

  async #look(): Promise<void> {
    try {
      this.#usage = await this.#components.registry.namespace.usage();
      const { capacityBytes } = this.#settings;
      if (capacityBytes === null) {
        const space = await this.#components.disk.space(this.#settings.path);
        this.#totalBytes = space.totalBytes;
        this.#freeBytes = Math.min(space.totalBytes, space.freeBytes + this.#components.pendingBytes());
      } else {
        this.#totalBytes = capacityBytes;
        this.#freeBytes = Math.max(0, capacityBytes - this.#usage.usedBytes);
      }
      this.#problem = null;
    } catch (error) {
      this.#problem = error as Error;
    }
  }
}
