/**
 * The link of a running router: keeps a session to the primary of the current generation, makes the next one when it ends, and holds calls meanwhile. What was
 * certainly not executed, reads, and changes that carry an operation id are tried again until their patience is over.
 */
import type { RegistryObserver } from '../../server/core/cluster-observer.ts';
import { ApplianceError, isEnvironmentError } from '../../server/core/errors.ts';
import type { Logger } from '../../server/core/logger.ts';
import type { Clock, Random } from '../../server/core/time.ts';
import type { OutboxEntry } from '../ports.ts';
import { confirmKeyOf, inspectPrimary, type PrimaryState } from './generation-record.ts';
import { credentialsOf, RedisConnection, unavailable } from './redis-connection.ts';
import { type Deficiencies, deficienciesOf } from './redis-deficiencies.ts';
import { redisKeys } from './redis-keys.ts';
import { type CallOutcome, type LinkCounts, LinkSession, type ScriptCall } from './redis-link-session.ts';
import type { EntryOf, LuaScript, RedisLink, ScriptArgument, ScriptReply } from './redis-link.ts';
import { findPrimary } from './redis-primary.ts';
import type { RedisRegistrySettings } from './redis-settings.ts';

/** Changes of one connection wait for each other's WAIT: a few connections keep the way full. */
const CHANGERS = 3;
const READERS = 1;
/** Calls that wait for a session; beyond that they are refused at once. */
const WAITING_MAX = 10_000;
const RETRY_MS = 100;
const SWEEP_MS = 100;

export interface LiveLinkSettings {
  readonly redis: RedisRegistrySettings;
  readonly vpoolName: string;
  /** How long a call is held or tried again before it rejects. */
  readonly patienceMs: number;
}

/** Decides what the data of a primary are worth. */
export interface Settler {
  /**
   * Resolves with the generation to work in as soon as this primary's data may be trusted; runs recovery rounds for as long as it takes. Rejects with
   * ApplianceError when the connection ends or nothing can be done now; one that is not retryable ends the link for good.
   */
  settle(connection: RedisConnection, state: PrimaryState): Promise<number>;
  /** What is wrong with the data, or null. */
  readonly problem: string | null;
}

export interface LiveLinkComponents {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly settler: Settler;
  readonly observer: RegistryObserver | null;
  /** Makes an entry durable. */
  readonly append: (entry: OutboxEntry) => Promise<void>;
  /** When the lease's thread last confirmed on the primary `identity`: monotonic send time, or -Infinity. */
  readonly leaseConfirmedAtMs: (identity: string) => number;
  /** A primary was found to be another one than before, or went: what was confirmed on it counts no more. */
  readonly onSession: (generation: number) => void;
}

interface HeldCall {
  readonly kind: 'change' | 'read';
  readonly call: ScriptCall;
  readonly deadlineMs: number;
}

export class LiveRedisLink implements RedisLink, AsyncDisposable {
  readonly #components: LiveLinkComponents;
  readonly #settings: LiveLinkSettings;
  readonly counts: LinkCounts & { retries: number; sessions: number } = {
    roundTrips: 0,
    changes: 0,
    reads: 0,
    readsRepeated: 0,
    waitsShort: 0,
    retries: 0,
    sessions: 0,
  };
  #session: LinkSession | null = null;
  #held: HeldCall[] = [];
  #sweeping = false;
  #generation = 0;
  #confirmedAtMs = -Infinity;
  #trouble: string | null = 'no connection to Redis yet';
  #ended: ApplianceError | null = null;
  #running: Promise<void> | null = null;
  readonly #opened = Promise.withResolvers<void>();
  #deficiencies: Deficiencies = { problem: null, warnings: [] };
  #connection: RedisConnection | null = null;

  constructor(components: LiveLinkComponents, settings: LiveLinkSettings) {
    this.#components = components;
    this.#settings = settings;
    this.#opened.promise.catch(() => undefined);
  }

  /** Begins to connect. Resolves with the first session; rejects with the reason when there is none after `timeoutMs`, or never can be. */
  async open(timeoutMs: number): Promise<void> {
    this.#running ??= this.#run();
    const cancel = this.#components.clock.after(timeoutMs, () => {
      this.#opened.reject(unavailable(`the registry could not be opened within ${timeoutMs} ms: ${this.problem ?? ''}`));
    });
    try {
      await this.#opened.promise;
    } finally {
      cancel();
    }
  }

  get generation(): number {
    return this.#generation;
  }

  get problem(): string | null {
    if (this.#components.settler.problem !== null) return this.#components.settler.problem;
    if (this.#session === null) return `the registry cannot be reached: ${this.#trouble ?? 'connecting'}`;
    return this.#deficiencies.problem;
  }

  /** What is not as it should be in this Redis's configuration. */
  get warnings(): readonly string[] {
    return this.#deficiencies.warnings;
  }

  /** Monotonic send time of the newest write of this router that is confirmed. */
  get confirmedAtMs(): number {
    return Math.max(this.#confirmedAtMs, this.#session?.confirmedAtMs ?? -Infinity);
  }

  change(script: LuaScript, keys: readonly string[], args: readonly ScriptArgument[], entryOf?: EntryOf, repeatable = false): Promise<ScriptReply> {
    this.counts.changes += 1;
    const keep = (reply: ScriptReply): Promise<void> | null => {
      const entry = entryOf?.(reply) ?? null;
      return entry === null ? null : this.#components.append(entry);
    };
    return this.#call('change', script, keys, args, keep, repeatable);
  }

  read(script: LuaScript, keys: readonly string[], args: readonly ScriptArgument[]): Promise<ScriptReply> {
    this.counts.reads += 1;
    return this.#call('read', script, keys, args, null, true);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#finish(new ApplianceError('registry-unavailable', 'the registry is closed'));
    await this.#running;
  }

  #call(
    kind: HeldCall['kind'],
    script: LuaScript,
    keys: readonly string[],
    args: readonly ScriptArgument[],
    keep: ScriptCall['keep'],
    repeatable: boolean,
  ): Promise<ScriptReply> {
    const { clock, observer } = this.#components;
    const startedAtMs = clock.monotonicMs();
    const deadlineMs = startedAtMs + this.#settings.patienceMs;
    return new Promise((resolve, reject) => {
      const settle = (outcome: CallOutcome): void => {
        const isLost = outcome.kind === 'lost';
        const again = isLost && (outcome.executed === 'no' || repeatable);
        observer?.roundTrip(kind, again ? 'retried' : outcome.kind === 'reply' ? 'ok' : 'failed', clock.monotonicMs() - startedAtMs);
        if (outcome.kind === 'reply') resolve(outcome.reply);
        else if (outcome.kind === 'failed') reject(outcome.error);
        else if (again) {
          this.counts.retries += 1;
          this.#hold({ kind, call, deadlineMs }, reject, outcome.reason);
        } else reject(outcome.reason);
      };
      const call: ScriptCall = { script, keys, args, keep, settle };
      this.#dispatch({ kind, call, deadlineMs }, reject);
    });
  }

  #dispatch(held: HeldCall, reject: (error: Error) => void): void {
    const session = this.#session;
    if (session === null || session.isOver) this.#hold(held, reject, null);
    else if (held.kind === 'change') session.change(held.call);
    else session.read(held.call);
  }

  #hold(held: HeldCall, reject: (error: Error) => void, reason: ApplianceError | null): void {
    if (this.#ended !== null) reject(this.#ended);
    else if (this.#held.length >= WAITING_MAX || this.#components.clock.monotonicMs() >= held.deadlineMs)
      reject(reason ?? unavailable(this.problem ?? 'the registry is busy'));
    else {
      this.#held.push(held);
      this.#sweepLater();
    }
  }

  /** Gives up what waited too long. */
  #sweepLater(): void {
    if (this.#sweeping) return;
    this.#sweeping = true;
    this.#components.clock.after(SWEEP_MS, () => {
      this.#sweeping = false;
      const nowMs = this.#components.clock.monotonicMs();
      const late = this.#held.filter((held) => nowMs >= held.deadlineMs);
      this.#held = this.#held.filter((held) => nowMs < held.deadlineMs);
      for (const held of late) held.call.settle({ kind: 'failed', error: unavailable(this.problem ?? 'the registry did not answer in time') });
      if (this.#held.length > 0) this.#sweepLater();
    });
  }

  #finish(reason: ApplianceError): void {
    if (this.#ended !== null) return;
    this.#ended = reason;
    this.#connection?.close();
    this.#session?.end(reason);
    for (const held of this.#held.splice(0)) held.call.settle({ kind: 'failed', error: reason });
    this.#opened.reject(reason);
  }

  async #run(): Promise<void> {
    const { clock, logger, random } = this.#components;
    while (this.#ended === null) {
      try {
        const session = await this.#connect();
        this.#trouble = null;
        this.#session = session;
        this.#opened.resolve();
        for (const { kind, call } of this.#held.splice(0)) session[kind](call);
        const reason = await session.ended;
        this.#confirmedAtMs = this.confirmedAtMs;
        this.#trouble = reason.message;
        if (this.#ended === null) logger.warn({ err: reason }, 'connection to the registry lost');
      } catch (error) {
        if (!isEnvironmentError(error)) throw error;
        if (this.#trouble !== error.message && this.#ended === null) logger.warn({ err: error }, 'the registry cannot be used');
        this.#trouble = error.message;
        // At the start it is told and ends; later somebody may make it good: the settings of a promoted Redis, the local disk.
        if (this.counts.sessions === 0 && error instanceof ApplianceError && !error.retryable) this.#finish(error);
      }
      this.#session = null;
      // Not all routers at once.
      if (this.#ended === null) await clock.sleep(RETRY_MS * (0.5 + random.fraction()));
    }
  }

  async #connect(): Promise<LinkSession> {
    const { clock, logger, settler } = this.#components;
    const { redis, vpoolName } = this.#settings;
    const metaKey = redisKeys(vpoolName).meta;
    const primary = await findPrimary(redis, metaKey, clock);
    const open = (): Promise<RedisConnection> =>
      RedisConnection.open(primary.address, redis, { clock, credentials: credentialsOf(redis), name: 'vferry' });
    const connections: RedisConnection[] = [];
    try {
      const control = await open();
      connections.push(control);
      this.#connection = control;
      if (this.#ended !== null) throw this.#ended;
      const state = await inspectPrimary(control, metaKey, redis.commandTimeoutMs);
      const generation = await settler.settle(control, state);
      const more = await Promise.allSettled(Array.from({ length: CHANGERS + READERS - 1 }, open));
      for (const opened of more) if (opened.status === 'fulfilled') connections.push(opened.value);
      const failed = more.find((opened) => opened.status === 'rejected');
      if (failed !== undefined) throw failed.reason;
      const states = await Promise.all(connections.slice(1).map((connection) => inspectPrimary(connection, metaKey, redis.commandTimeoutMs)));
      if (states.some((now) => now.identity !== state.identity)) throw unavailable('the primary changed while it was connected to');
      const deficiencies = await deficienciesOf(control, state, redis);
      for (const warning of deficiencies.warnings) if (!this.#deficiencies.warnings.includes(warning)) logger.warn({}, warning);
      this.#deficiencies = deficiencies;
      if (this.#ended !== null) throw this.#ended;
      this.#generation = generation;
      this.#components.onSession(generation);
      this.counts.sessions += 1;
      const session = new LinkSession(
        { clock, counts: this.counts, otherConfirmedAtMs: () => this.#components.leaseConfirmedAtMs(state.identity) },
        {
          generation,
          metaKey,
          confirmKey: confirmKeyOf(vpoolName),
          replicasMin: redis.replicasMin,
          commandTimeoutMs: redis.commandTimeoutMs,
          confirmedMsMax: primary.downAfterMs / 2,
        },
        { changers: connections.slice(0, CHANGERS), readers: connections.slice(CHANGERS) },
      );
      return session;
    } catch (error) {
      for (const connection of connections) connection.close();
      throw error;
    } finally {
      this.#connection = null;
    }
  }
}
