/**
 * Virtual time of a whole cluster: one queue of events in an order that the seed alone decides. Nothing here waits for the real clock; between two events
 * every promise that can settle settles.
 */
import { AsyncLocalStorage } from 'node:async_hooks';

import type { Clock } from '../../server/core/time.ts';

interface ScheduledEvent {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
  cancelled: boolean;
}

export class Schedule {
  #nowMs = 0;
  #order = 0;
  /** Binary heap by (time, order). */
  readonly #heap: ScheduledEvent[] = [];
  /** Events that ran. */
  count = 0;

  /** Milliseconds since the world began. */
  get nowMs(): number {
    return this.#nowMs;
  }

  /** Runs `run` after `delayMs`, behind what is already due then. Returns a function that cancels it. */
  after(delayMs: number, run: () => void): () => void {
    this.#order += 1;
    const event: ScheduledEvent = { atMs: this.#nowMs + Math.max(0, delayMs), order: this.#order, run, cancelled: false };
    this.#push(event);
    return () => {
      event.cancelled = true;
    };
  }

  /** Resolves after `delayMs`. */
  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      this.after(delayMs, resolve);
    });
  }

  /** Runs events until the promise is settled and gives its result. @throws when nothing is left to do, or `eventsMax` did not suffice. */
  async run<T>(promise: Promise<T>, eventsMax = 2_000_000): Promise<T> {
    let settled = false;
    const done = (): void => {
      settled = true;
    };
    promise.then(done, done);
    for (let events = 0; ; events += 1) {
      await new Promise((resolve) => setImmediate(resolve));
      if (settled) return promise;
      if (events > eventsMax) throw new Error(`nothing came of it in ${eventsMax} events; it is ${Math.round(this.#nowMs)} ms`);
      if (!this.#step()) throw new Error(`nothing is left to do at ${Math.round(this.#nowMs)} ms, and yet it waits`);
    }
  }

  #step(): boolean {
    for (;;) {
      const event = this.#pop();
      if (event === undefined) return false;
      if (event.cancelled) continue;
      this.#nowMs = event.atMs;
      this.count += 1;
      event.run();
      return true;
    }
  }

  #push(event: ScheduledEvent): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const above = (at - 1) >> 1;
      const parent = heap[above] as ScheduledEvent;
      if (!isBefore(event, parent)) break;
      heap[at] = parent;
      at = above;
    }
    heap[at] = event;
  }

  #pop(): ScheduledEvent | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined || first === last) return first;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= heap.length) break;
      if (below + 1 < heap.length && isBefore(heap[below + 1] as ScheduledEvent, heap[below] as ScheduledEvent)) below += 1;
      const child = heap[below] as ScheduledEvent;
      if (isBefore(last, child)) break;
      heap[at] = child;
      at = below;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(a: ScheduledEvent, b: ScheduledEvent): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

/** Clocks of a machine: its monotonic one began some time ago, its wall clock is wrong by some seconds. Both survive the processes on it. */
export interface MachineClocks {
  readonly monotonicOffsetMs: number;
  /** Its seconds are this much longer than true ones. */
  readonly rate: number;
  wallOffsetMs: number;
}

/**
 * One life of a process: whatever happens in it is an event of this object. Killed, nothing of it happens any more; stopped (SIGSTOP), its events wait
 * and then happen all at once, in their order, while the clocks went on.
 */
export class ProcessTime implements Clock {
  static readonly #current = new AsyncLocalStorage<ProcessTime>();
  readonly #schedule: Schedule;
  readonly #clocks: MachineClocks;
  #alive = true;
  #stoppedAtMs: number | null = null;
  #waiting: (() => void)[] = [];
  /** Told at SIGCONT, before anything else happens, for how long the process stood. */
  onContinued: ((stoodMs: number) => void) | null = null;

  constructor(schedule: Schedule, clocks: MachineClocks) {
    this.#schedule = schedule;
    this.#clocks = clocks;
  }

  /** The process whose code runs now, whatever that waited for; undefined: the world's. */
  static get current(): ProcessTime | undefined {
    return ProcessTime.#current.getStore();
  }

  get alive(): boolean {
    return this.#alive;
  }

  get stopped(): boolean {
    return this.#stoppedAtMs !== null;
  }

  wallMs(): number {
    return 1_700_000_000_000 + this.#schedule.nowMs + this.#clocks.wallOffsetMs;
  }

  monotonicMs(): number {
    return this.#clocks.monotonicOffsetMs + this.#schedule.nowMs * this.#clocks.rate;
  }

  after(delayMs: number, callback: () => void): () => void {
    let cancelled = false;
    const cancel = this.#schedule.after(delayMs / this.#clocks.rate, () => {
      this.enter(() => {
        if (!cancelled) callback();
      });
    });
    return () => {
      cancelled = true;
      cancel();
    };
  }

  soon(callback: () => void): void {
    this.after(0, callback);
  }

  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      this.after(delayMs, resolve);
    });
  }

  /** Something comes from outside: happens now, when the process goes on, or never. */
  enter(work: () => void): void {
    if (!this.#alive) return;
    if (this.#stoppedAtMs === null) ProcessTime.#current.run(this, work);
    else this.#waiting.push(work);
  }

  kill(): void {
    this.#alive = false;
    this.#waiting = [];
  }

  stop(): void {
    this.#stoppedAtMs ??= this.#schedule.nowMs;
  }

  continue(): void {
    if (this.#stoppedAtMs === null) return;
    const stoodMs = this.#schedule.nowMs - this.#stoppedAtMs;
    this.#stoppedAtMs = null;
    const waiting = this.#waiting;
    this.#waiting = [];
    if (this.#alive) this.onContinued?.(stoodMs);
    for (const work of waiting) this.after(0, work);
  }
}
