import type { Clock } from '../server/core/time.ts';
import { type BackendState } from './backend-state.ts';
import { StoreError } from './object-store.ts';

/** How often the state is looked at: what is wrong has to be visible within a second. */
const LOOK_EVERY_MS = 250;
/** A look that comes this much late says that the process itself stood still. */
const STALL_MS = 500;
const CHECK_EVERY_MS = 1000;
const PROBE_TIMEOUT_MS = 5000;
/** How long the backend is believed to be well without any request: 8640 requests a month. */
const IDLE_PROBE_EVERY_MS = 300_000;

export interface BackendWatchComponents {
  readonly clock: Clock;
  readonly state: BackendState;
  /** Asks for one small object that need not exist; told to the state as a request. */
  readonly probe: (signal: AbortSignal) => Promise<unknown>;
  /** Whether something listens where the backend should be, without a request: rejects if not. Null: a probe costs nothing. */
  readonly reachable: ((signal: AbortSignal) => Promise<void>) | null;
  /** Whether somebody wants something of the backend that it does not take at the moment. */
  readonly wanted: () => boolean;
}

/**
 * Asks the backend only when nothing else does. While requests succeed that is proof enough. While something is wanted and nothing is answered, it
 * is probed each second. An idle one is looked at each second without a request, and probed each 5 minutes.
 */
export class BackendWatch {
  readonly #components: BackendWatchComponents;
  #checking = false;
  #checkedMs = -Infinity;
  #probedMs = -Infinity;
  #unreachable: Error | null = null;
  #abort: AbortController | null = null;
  #cancel: (() => void) | null = null;
  #stopped = false;

  constructor(components: BackendWatchComponents) {
    this.#components = components;
  }

  /** The first look is a probe. A backend that does not answer is a state, no reason not to start (server/vpool-backend.ts). */
  start(): void {
    this.#schedule();
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel?.();
    this.#abort?.abort();
  }

  #schedule(): void {
    if (this.#stopped) return;
    const { clock, state } = this.#components;
    const dueMs = clock.monotonicMs() + LOOK_EVERY_MS;
    this.#cancel = clock.after(LOOK_EVERY_MS, () => {
      const nowMs = clock.monotonicMs();
      state.look(nowMs - dueMs > STALL_MS);
      if (!this.#checking && nowMs - this.#checkedMs >= CHECK_EVERY_MS) void this.#check(nowMs);
      this.#schedule();
    });
  }

  async #check(nowMs: number): Promise<void> {
    const { state, reachable, wanted } = this.#components;
    this.#checkedMs = nowMs;
    if (nowMs - state.succeededMs < CHECK_EVERY_MS) {
      this.#unreachable = null;
      return;
    }
    const troubled = wanted() || state.condition !== 'up' || this.#unreachable !== null;
    // Attempts of others that fail say as much as a probe.
    if (troubled && nowMs - state.failedMs < CHECK_EVERY_MS) return;
    this.#checking = true;
    try {
      if (reachable !== null) await this.#reach(reachable);
      const idleProbe = nowMs - Math.max(state.succeededMs, this.#probedMs) >= IDLE_PROBE_EVERY_MS;
      if (reachable === null || this.#unreachable !== null || troubled || idleProbe) await this.#probe(PROBE_TIMEOUT_MS);
    } catch {
      // The state was told.
    } finally {
      this.#checking = false;
    }
  }

  async #reach(reachable: (signal: AbortSignal) => Promise<void>): Promise<void> {
    try {
      await this.#timed(CHECK_EVERY_MS, reachable);
      this.#unreachable = null;
    } catch (error) {
      this.#unreachable = error as Error;
    }
  }

  async #probe(timeoutMs: number): Promise<void> {
    this.#probedMs = this.#components.clock.monotonicMs();
    await this.#timed(timeoutMs, this.#components.probe);
  }

  async #timed<T>(timeoutMs: number, call: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const controller = new AbortController();
    this.#abort = controller;
    const cancel = this.#components.clock.after(timeoutMs, () => controller.abort(new StoreError('retry', `no answer within ${timeoutMs} ms`)));
    try {
      return await call(controller.signal);
    } finally {
      cancel();
      this.#abort = null;
    }
  }
}
