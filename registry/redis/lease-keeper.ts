/**
 * The lease of this router's incarnation, on the main thread: what the lease's thread has won is valid until its deadline, unless this loop stood still or the machine was
 * suspended. Over is over: `lapsed` is called once, and whoever gets it starts a new incarnation.
 */
import { Worker } from 'node:worker_threads';
import { crc32 } from 'node:zlib';

import { assert } from '../../server/core/assert.ts';
import { ApplianceError } from '../../server/core/errors.ts';
import type { Lease } from '../../server/core/lease.ts';
import type { Logger } from '../../server/core/logger.ts';
import type { Clock } from '../../server/core/time.ts';
import { LeaseMemory } from './lease-memory.ts';
import { LEASE_MARGIN_MS, type LeaseMessage, type LeaseWorkerData } from './lease-protocol.ts';
import type { RedisRegistrySettings } from './redis-settings.ts';

const TICK_MS = 200;
/** A loop that stood still for longer must not go on where it was, whatever its lease says (design section 5). */
const STANDSTILL_MS = 5_000;

export interface LeaseClocks {
  readonly clock: Clock;
  /** `clock.monotonicMs` as all threads of the process see it. */
  readonly processMonotonicMs: () => number;
  /** Seconds since boot, time in suspend included (CLOCK_BOOTTIME). */
  readonly uptimeSeconds: () => number;
}

/** What happens to the lease. `durationMs`: of one renewal with its WAIT. */
export interface LeaseObserver {
  readonly renewed: (durationMs: number) => void;
  readonly failed: (durationMs: number) => void;
  /** Called once. */
  readonly lapsed: (error: Error) => void;
}

export class LeaseKeeper implements Lease, AsyncDisposable {
  readonly memory = new LeaseMemory();
  readonly #clocks: LeaseClocks;
  readonly #logger: Logger;
  readonly #settings: { readonly redis: RedisRegistrySettings; readonly vpoolName: string };
  readonly #observer: LeaseObserver;
  readonly #offsetMs: number;
  #worker: Worker | null = null;
  #exited: Promise<void> = Promise.resolve();
  #closed = false;
  #over = false;
  #tickedAtMs: number;
  /** Wall clock and time since boot less monotonic clock at the last tick: they grow only by a suspend or a set clock. */
  #wallAheadMs: number;
  #uptimeAheadMs: number;
  #trouble: string | null = null;

  constructor(
    components: LeaseClocks & { readonly logger: Logger } & LeaseObserver,
    settings: { readonly redis: RedisRegistrySettings; readonly vpoolName: string },
  ) {
    const { clock, processMonotonicMs, uptimeSeconds } = components;
    this.#clocks = components;
    this.#logger = components.logger;
    this.#observer = components;
    this.#settings = settings;
    this.#offsetMs = processMonotonicMs() - clock.monotonicMs();
    this.#tickedAtMs = clock.monotonicMs();
    this.#wallAheadMs = clock.wallMs() - this.#tickedAtMs;
    this.#uptimeAheadMs = uptimeSeconds() * 1000 - this.#tickedAtMs;
  }

  /** Begins with the lease that a join won, which was sent at `sentAtMs` of `clock`. Once. */
  start(router: string, incarnation: string, sentAtMs: number): void {
    assert(this.#worker === null && !this.#closed, 'one lease for one incarnation');
    const { redis, vpoolName } = this.#settings;
    this.memory.deadlineMs = sentAtMs + this.#offsetMs + redis.leaseMs - LEASE_MARGIN_MS;
    const data: LeaseWorkerData = { redis, vpoolName, router, incarnation, buffer: this.memory.buffer };
    const worker = new Worker(new URL('./lease-worker.ts', import.meta.url), { workerData: data, name: 'vferry-lease' });
    this.#worker = worker;
    worker.on('message', (message: LeaseMessage) => {
      if (message.kind === 'over') this.#end(new ApplianceError(message.code, message.message));
      else if (message.kind === 'failed') {
        if (this.#trouble === null) this.#logger.warn({ reason: message.message }, 'the lease could not be renewed');
        this.#trouble = message.message;
        this.#observer.failed(message.durationMs);
      } else {
        if (this.#trouble !== null) this.#logger.info({}, 'the lease is renewed again');
        this.#trouble = null;
        this.#observer.renewed(message.durationMs);
      }
    });
    worker.on('error', (error) => this.#end(new ApplianceError('lease-lapsed', `the lease's thread failed: ${String(error)}`, { cause: error })));
    this.#exited = new Promise((resolve) => worker.once('exit', () => resolve()));
    this.#look();
    this.#tick();
  }

  get valid(): boolean {
    if (this.#over || this.#worker === null) return false;
    const { clock } = this.#clocks;
    const nowMs = clock.monotonicMs();
    if (nowMs + this.#offsetMs < this.memory.deadlineMs && clock.wallMs() - nowMs - this.#wallAheadMs < STANDSTILL_MS) return true;
    this.#look();
    return !this.#over;
  }

  get leftMs(): number {
    if (this.#over || this.#worker === null) return 0;
    return Math.max(0, this.memory.deadlineMs - this.#offsetMs - this.#clocks.clock.monotonicMs());
  }

  /** Why renewals fail at present, or null. */
  get trouble(): string | null {
    return this.#trouble;
  }

  /** Send time of the last confirmed renewal on the primary `identity`, on `clock`; -Infinity: none. */
  confirmedAtMs(identity: string | null): number {
    const { confirmedAtMs, identityCrc } = this.memory;
    if (confirmedAtMs === 0 || (identity !== null && identityCrc !== (crc32(identity) | 0))) return -Infinity;
    return confirmedAtMs - this.#offsetMs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#over = true;
    this.memory.end();
    this.#worker?.postMessage('end');
    await this.#exited;
  }

  #tick(): void {
    if (this.#closed || this.#over) return;
    this.#clocks.clock.after(TICK_MS, () => {
      this.#look();
      this.#tick();
    });
  }

  /** Judges what happened since the last look; a loop that came this far lives. */
  #look(): void {
    if (this.#closed || this.#over) return;
    const { clock, uptimeSeconds } = this.#clocks;
    const nowMs = clock.monotonicMs();
    const wallAheadMs = clock.wallMs() - nowMs;
    const uptimeAheadMs = uptimeSeconds() * 1000 - nowMs;
    const stoodMs = Math.max(nowMs - this.#tickedAtMs, wallAheadMs - this.#wallAheadMs, uptimeAheadMs - this.#uptimeAheadMs);
    this.#tickedAtMs = nowMs;
    this.#wallAheadMs = wallAheadMs;
    this.#uptimeAheadMs = uptimeAheadMs;
    if (stoodMs > STANDSTILL_MS) {
      this.#end(new ApplianceError('lease-lapsed', `this process stood still, or the machine was suspended, for ${Math.round(stoodMs)} ms`));
    } else if (nowMs + this.#offsetMs >= this.memory.deadlineMs) {
      this.#end(new ApplianceError('lease-lapsed', `the lease lapsed: ${this.#trouble ?? 'it was not renewed in time'}`));
    } else this.memory.beat();
  }

  #end(error: Error): void {
    if (this.#over) return;
    this.#over = true;
    this.memory.end();
    this.#worker?.postMessage('end');
    if (!this.#closed) this.#clocks.clock.soon(() => this.#observer.lapsed(error));
  }
}
