/**
 * The routers of the cluster as this one sees them: asks the registry once a second, and declares dead whose lease counter stood still for a whole lease
 * and its margin on this router's own clock, while this router's own renewals went on (design section 5 [!]). Dead is for good: the registry never lets
 * that incarnation do anything again.
 */
import type { Membership, RouterRecord } from '../../registry/ports.ts';
import { errorCode } from '../core/errors.ts';
import type { Incarnation, RouterId } from '../core/ids.ts';
import type { Lease } from '../core/lease.ts';
import type { Logger } from '../core/logger.ts';
import type { Clock } from '../core/time.ts';
import type { Member, Members } from './peer-port.ts';

const EVERY_MS = 1000;
/** As the lease's own margin: clocks run at different speeds, and an answer that was given in time may still be on its way. */
const MARGIN_MS = 1000;
const RETIRED_MAX = 4096;
const QUESTIONED_MAX = 4096;

interface Seen {
  record: RouterRecord;
  /** When this (incarnation, counter) was first seen, on the monotonic clock; moved forward whenever this router itself was not in order. */
  sinceMs: number;
}

export class MemberWatch implements Members {
  readonly self: RouterId;
  readonly #membership: Membership;
  readonly #lease: Lease;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #leaseMs: number;
  readonly #seen = new Map<RouterId, Seen>();
  readonly #listeners: (() => void)[] = [];
  /** Incarnations that were replaced or forgotten. One that was pushed out of it is questioned again. */
  readonly #retired = new Set<Incarnation>();
  /** Incarnations that were asked about and are not known, and since when. */
  readonly #questioned = new Map<Incarnation, number>();
  #asked = false;
  #stop: (() => void) | null = null;
  #running: Promise<void> | null = null;
  #stopped = false;

  constructor(components: { membership: Membership; lease: Lease; clock: Clock; logger: Logger }, self: RouterId, settings: { leaseMs: number }) {
    this.self = self;
    this.#membership = components.membership;
    this.#lease = components.lease;
    this.#clock = components.clock;
    this.#logger = components.logger;
    this.#leaseMs = settings.leaseMs;
  }

  /** Looks once, then every second. Rejects as the registry does. */
  async start(): Promise<void> {
    await this.look();
    this.#schedule();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#stop?.();
    await this.#running;
  }

  get(router: RouterId): Member | null {
    const seen = this.#seen.get(router);
    return seen === undefined ? null : this.#member(seen);
  }

  list(): readonly Member[] {
    return [...this.#seen.values()].map((seen) => this.#member(seen));
  }

  isDead(router: RouterId, incarnation: Incarnation): boolean {
    const seen = this.#seen.get(router);
    if (seen !== undefined && seen.record.incarnation === incarnation) return seen.record.dead;
    if (this.#retired.has(incarnation)) return true;
    // An older one than is known, or one that has just joined: the registry's next answer tells. What it does not show then is over.
    if (!this.#questioned.has(incarnation)) {
      if (this.#questioned.size >= QUESTIONED_MAX) this.#questioned.clear();
      this.#questioned.set(incarnation, this.#clock.monotonicMs());
    }
    this.#hurry();
    return false;
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  #member({ record, sinceMs }: Seen): Member {
    const { id, incarnation, addresses, dead } = record;
    return { id, incarnation, addresses, dead, silentMs: Math.max(0, this.#clock.monotonicMs() - sinceMs) };
  }

  /** Somebody is heard of who is not known: looks soon. */
  hurry(router: RouterId): void {
    if (!this.#seen.has(router)) this.#hurry();
  }

  #hurry(): void {
    if (this.#running !== null || this.#stopped || this.#stop === null) return;
    this.#stop();
    this.#schedule(0);
  }

  #schedule(delayMs = EVERY_MS): void {
    this.#stop = this.#clock.after(delayMs, () => {
      this.#running = this.look()
        .catch((error: unknown) => {
          if (errorCode(error) === undefined) throw error;
          // What was seen says nothing about the time in which nothing could be seen.
          this.#restartClocks();
          this.#logger.debug({ err: error }, 'the registry does not say who is in the cluster');
        })
        .finally(() => {
          this.#running = null;
          if (!this.#stopped) this.#schedule();
        });
    });
  }

  /** It is over for good. */
  #retire(incarnation: Incarnation): void {
    if (this.#retired.size >= RETIRED_MAX) {
      const [oldest] = this.#retired;
      if (oldest !== undefined) this.#retired.delete(oldest);
    }
    this.#retired.add(incarnation);
  }

  #restartClocks(): void {
    const nowMs = this.#clock.monotonicMs();
    for (const seen of this.#seen.values()) seen.sinceMs = nowMs;
  }

  /** Asks the registry now. */
  async look(): Promise<void> {
    const askedMs = this.#clock.monotonicMs();
    const records = await this.#membership.routers();
    const nowMs = this.#clock.monotonicMs();
    let changed = !this.#asked;
    this.#asked = true;
    // Without a lease well in hand its own view of time is no judge of others.
    if (!this.#lease.valid || this.#lease.leftMs < this.#leaseMs / 4) this.#restartClocks();
    const present = new Set<RouterId>();
    for (const record of records) {
      present.add(record.id);
      const seen = this.#seen.get(record.id);
      if (seen === undefined) {
        this.#seen.set(record.id, { record, sinceMs: nowMs });
        changed = true;
        continue;
      }
      const same = seen.record.incarnation === record.incarnation && seen.record.dead === record.dead;
      if (!same) changed = true;
      if (seen.record.incarnation !== record.incarnation) this.#retire(seen.record.incarnation);
      if (!same || seen.record.leaseCounter !== record.leaseCounter) seen.sinceMs = nowMs;
      seen.record = record;
    }
    for (const [id, { record }] of this.#seen) {
      if (present.has(id)) continue;
      this.#retire(record.incarnation);
      this.#seen.delete(id);
      changed = true;
    }
    for (const [incarnation, sinceMs] of this.#questioned) {
      if (sinceMs > askedMs) continue;
      this.#questioned.delete(incarnation);
      if (!records.some((record) => record.incarnation === incarnation)) {
        this.#retire(incarnation);
        changed = true;
      }
    }
    for (const { record, sinceMs } of this.#seen.values()) {
      if (record.id === this.self || record.dead || nowMs - sinceMs <= this.#leaseMs + MARGIN_MS) continue;
      if (!this.#lease.valid) break;
      const outcome = await this.#membership.markDead(record.id, record.incarnation, record.leaseCounter);
      const seen = this.#seen.get(record.id);
      if (seen === undefined) continue;
      if (outcome === 'dead') {
        this.#logger.warn(
          { router: record.id, incarnation: record.incarnation, silentMs: Math.round(nowMs - sinceMs) },
          'a router is dead: its lease ran out',
        );
        seen.record = { ...record, dead: true };
        changed = true;
      } else seen.sinceMs = this.#clock.monotonicMs();
    }
    if (changed) for (const listener of this.#listeners) listener();
  }
}
