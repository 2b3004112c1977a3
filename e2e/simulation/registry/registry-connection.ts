/**
 * A router's connection to the simulated registry: requests that take time, get lost on their way there or back, and wait out a recovery round; the lease,
 * renewed once a second; the redo log of what was answered, which is on the router's disk and comes back to the registry in a recovery round.
 */
import type { ClusterRegistry, OutboxEntry, OwnerRecord, RouterRecord } from '../../../registry/ports.ts';
import type { VerbRequest } from '../../../registry/sqlite/worker-protocol.ts';
import { ApplianceError, errorCode } from '../../../server/core/errors.ts';
import type { Incarnation, RouterId } from '../../../server/core/ids.ts';
import type { Random } from '../../../server/core/time.ts';
import type { ProcessTime, Schedule } from '../schedule.ts';
import { Lane, type Way } from '../ways.ts';
import { registryPorts } from './registry-ports.ts';
import type { RegistryServer } from './registry-server.ts';

const COMMAND_TIMEOUT_MS = 1000;
/** How wrong a second of a machine may be, and more. */
const CLOCK_RATE_MAX = 0.01;
const RENEW_EVERY_MS = 1000;
const LEASE_MARGIN_MS = 1000;
const STANDSTILL_MS = 5000;
/** Redo entries are kept this long: no failover forgets more. */
const REDO_MS = 30_000;

/** Redo log of a machine: survives its processes. */
export class RedoLog {
  #entries: { readonly atMs: number; readonly entry: OutboxEntry }[] = [];

  append(atMs: number, entry: OutboxEntry): void {
    this.#entries.push({ atMs, entry });
    if ((this.#entries[0]?.atMs ?? atMs) < atMs - 2 * REDO_MS) this.#entries = this.#entries.filter((kept) => kept.atMs >= atMs - REDO_MS);
  }

  entries(): OutboxEntry[] {
    return this.#entries.map(({ entry }) => entry);
  }
}

export interface RegistryConnectionOptions {
  readonly server: RegistryServer;
  readonly schedule: Schedule;
  readonly time: ProcessTime;
  readonly random: Random;
  readonly way: Way;
  /** Of its answers. */
  readonly wayBack: Way;
  readonly router: RouterId;
  readonly incarnation: Incarnation;
  readonly redo: RedoLog;
  readonly leaseMs: number;
  readonly owned: () => readonly OwnerRecord[];
  readonly lapsed: (error: Error) => void;
}

export class RegistryConnection {
  readonly registry: ClusterRegistry;
  readonly router: RouterId;
  readonly incarnation: Incarnation;
  readonly #options: RegistryConnectionOptions;
  readonly #there: Lane;
  readonly #back: Lane;
  #record: RouterRecord | null = null;
  #deadlineMs = -Infinity;
  #lapsed = false;
  #closed = false;
  #confirmedMs = -Infinity;
  #lastTurnMs: number;

  constructor(options: RegistryConnectionOptions) {
    this.#options = options;
    this.router = options.router;
    this.incarnation = options.incarnation;
    this.#there = new Lane(options.schedule, options.random, options.way);
    this.#back = new Lane(options.schedule, options.random, options.wayBack);
    this.#lastTurnMs = options.time.monotonicMs();
    const { server, random } = options;
    // As the registry on Redis does (decision 0020): what the caller gave up is not executed behind what it did then. One of a client is known by its operation id.
    const inTime = (request: VerbRequest): VerbRequest => {
      const { mutation } = request;
      if (mutation === null || mutation.operationId !== null) return request;
      const notAfterMs = Math.min(mutation.notAfterMs, options.time.wallMs() + COMMAND_TIMEOUT_MS * (1 - CLOCK_RATE_MAX));
      return { ...request, mutation: { ...mutation, notAfterMs } };
    };
    const ports = registryPorts(
      server,
      {
        change: (asked) => {
          const request = inTime(asked);
          return this.#ask(() => server.execute(request, options.time.wallMs())).then(({ outcome, entry, sentMs }) => {
            if (entry !== null) options.redo.append(options.schedule.nowMs, entry);
            this.#confirmedMs = Math.max(this.#confirmedMs, sentMs);
            return outcome as never;
          });
        },
        read: (work) => this.#ask(() => ({ outcome: work(), entry: null })).then(({ outcome }) => outcome),
      },
      random,
    );
    const { join } = ports.membership;
    const connection = this;
    this.registry = {
      vpool: server.vpool,
      ...ports,
      membership: {
        ...ports.membership,
        join: async (router, incarnation, addresses, version) => {
          const sentMs = options.time.monotonicMs();
          const record = await join(router, incarnation, addresses, version);
          this.#record = record;
          this.#deadlineMs = sentMs + options.leaseMs - LEASE_MARGIN_MS;
          this.#renewLater();
          this.#watch();
          return record;
        },
      },
      lease: {
        get valid() {
          return connection.#isValid();
        },
        get leftMs() {
          return connection.#isValid() ? connection.#deadlineMs - options.time.monotonicMs() : 0;
        },
      },
      get confirmedAgoMs() {
        return options.time.monotonicMs() - connection.#confirmedMs;
      },
      health: () => (connection.#isValid() ? null : 'the lease lapsed'),
      async *verify() {
        yield* server.records.problems();
      },
      [Symbol.asyncDispose]: () => {
        this.close();
        return Promise.resolve();
      },
    };
  }

  close(): void {
    this.#closed = true;
  }

  /** Whether this connection can take part in a recovery round. */
  get takesPart(): boolean {
    return !this.#closed && !this.#lapsed && this.#options.time.alive;
  }

  /** Brings what this router knows to the registry, if it gets there: one that is just starting, what its former life was told. */
  contribute(): void {
    const { time, server } = this.#options;
    time.enter(() => {
      const { router } = this;
      const record = this.#record;
      if (record !== null && !this.#isValid()) return;
      const owned = record === null ? [] : this.#options.owned();
      const redo = this.#options.redo.entries();
      this.#there.send(() => server.contribute({ router, record, redo, owned }));
    });
  }

  #isValid(): boolean {
    if (this.#lapsed || this.#closed) return false;
    if (this.#options.time.monotonicMs() < this.#deadlineMs) return true;
    this.#lapse('it was not renewed in time');
    return false;
  }

  #lapse(reason: string): void {
    if (this.#lapsed || this.#closed) return;
    this.#lapsed = true;
    if (this.#record === null) return;
    const error = new ApplianceError('incarnation-dead', `the lease lapsed: ${reason}`);
    this.#options.time.after(0, () => {
      if (!this.#closed) this.#options.lapsed(error);
    });
  }

  /** The watchdog: looks whether the loop stood still. */
  #watch(): void {
    const { time } = this.#options;
    const nowMs = time.monotonicMs();
    if (nowMs - this.#lastTurnMs > STANDSTILL_MS) this.#lapse('the loop stood still');
    this.#lastTurnMs = nowMs;
    this.#isValid();
    if (!this.#lapsed && !this.#closed) time.after(250, () => this.#watch());
  }

  #renewLater(): void {
    this.#options.time.after(RENEW_EVERY_MS, () => {
      if (this.#lapsed || this.#closed) return;
      const sentMs = this.#options.time.monotonicMs();
      this.registry.membership.renew(this.router, this.incarnation).then(
        (record) => {
          this.#record = record;
          if (!this.#lapsed) this.#deadlineMs = Math.max(this.#deadlineMs, sentMs + this.#options.leaseMs - LEASE_MARGIN_MS);
        },
        (error: unknown) => {
          if (errorCode(error) === 'incarnation-dead') this.#lapse('another router, or a new incarnation, declared this one dead');
          else if (errorCode(error) !== 'registry-unavailable') throw error;
        },
      );
      this.#renewLater();
    });
  }

  #ask<T extends { outcome: unknown; entry: OutboxEntry | null }>(work: () => T): Promise<T & { sentMs: number }> {
    const { time, server, schedule } = this.#options;
    const sentMs = time.monotonicMs();
    return new Promise((resolve, reject) => {
      // Killed in the middle of a turn: the rest of it has no effect.
      if (!time.alive) return;
      if (this.#closed) return reject(new ApplianceError('registry-unavailable', 'the registry is closed', { retryable: true }));
      const cancel = time.after(COMMAND_TIMEOUT_MS, () =>
        reject(new ApplianceError('registry-unavailable', 'the registry does not answer', { retryable: true })),
      );
      const answer = (deliver: () => void): void => {
        const { primary } = server;
        this.#back.send(() => {
          // The connection ended with that primary.
          if (server.primary !== primary) return;
          time.enter(() => {
            cancel();
            deliver();
          });
        });
      };
      const arrive = (): void => {
        if (server.inRound) {
          // Clients of a registry that is being put together again wait, as long as they have patience.
          schedule.after(20, arrive);
          return;
        }
        let result: T;
        try {
          result = work();
        } catch (error) {
          answer(() => reject(error));
          return;
        }
        answer(() => resolve({ ...result, sentMs }));
      };
      this.#there.send(arrive);
    });
  }
}
