/** Runs scripts for the namespace, ownership and membership of one vPool: arguments in, one round trip, a checked reply out. */
import { AssertionError } from '../../server/core/assert.ts';
import { ApplianceError } from '../../server/core/errors.ts';
import type { Clock, Random } from '../../server/core/time.ts';
import { encodeAfterImage } from '../after-image.ts';
import { encodeOutcome, type Outcomes, type Verb } from '../outcome-codec.ts';
import type { Mutation, OutboxEntry } from '../ports.ts';
import { corrupt } from '../record-check.ts';
import { checkedMutation } from '../verb-arguments.ts';
import { STATUS, type VerbScript } from './lua-pieces.ts';
import { unpackChanges, unpackOutcome } from './packed-outcome.ts';
import { COUNTERS_SCRIPT } from './read-scripts.ts';
import { RedisClock } from './redis-clock.ts';
import type { RedisKeys } from './redis-keys.ts';
import type { RedisLink, ScriptArgument, ScriptReply } from './redis-link.ts';

/** Changes of unknown outcome that are asked about at once; more of them are left as they are. */
const UNSETTLED_MAX = 1_024;
const SETTLE_MS_FIRST = 100;
const SETTLE_MS_MAX = 5_000;
const PATIENCE_MS = 5_000;

export interface RedisVerbsComponents {
  readonly link: RedisLink;
  readonly keys: RedisKeys;
  readonly clock: Clock;
  readonly random: Random;
  /** After this a router gives up a change of its own and asks anew, with another operation id. Not less than the link's patience. Default 5 s. */
  readonly patienceMs?: number;
}

export class RedisVerbs {
  readonly #link: RedisLink;
  readonly #keys: RedisKeys;
  readonly #clock: Clock;
  readonly #redisClock: RedisClock;
  readonly #patienceMs: number;
  readonly #keyNames = new Map<VerbScript, readonly string[]>();
  readonly #unsettled = new Set<string>();
  /** Drawn anew: an incarnation may open its registry twice. */
  readonly #id: string;
  #internalOperations = 0;
  /** Of the Redis whose clock is known. */
  #generation = 0;
  #corruption: string | null = null;

  constructor(components: RedisVerbsComponents) {
    this.#link = components.link;
    this.#keys = components.keys;
    this.#clock = components.clock;
    this.#redisClock = new RedisClock(components.clock);
    this.#patienceMs = components.patienceMs ?? PATIENCE_MS;
    this.#id = components.random.bytes(8).toString('hex');
  }

  /** The first damage that a reply showed, or null: it stays, since only a person can repair it. */
  get corruption(): string | null {
    return this.#corruption;
  }

  /**
   * Executes a mutating verb. The outbox entry of its reply is with the link before this resolves.
   *
   * Every change has an operation id in Redis, an internal one where the caller gave none: so the link may ask again when an answer is lost, and what was
   * executed finds its way into the outbox though nobody was answered.
   */
  async mutate<V extends Verb>(verb: V, script: VerbScript, mutation: Mutation, args: readonly ScriptArgument[]): Promise<Outcomes[V]> {
    const { operationId, incarnation, now, notAfterMs: allowedMs } = checkedMutation(mutation);
    // What its caller gave up may lie in the buffer of a connection that broke, and come when the network is back: behind the change that was asked for after it,
    // `clean` over `unprotected`. One of a client is known by its operation id.
    const notAfterMs = operationId === null ? Math.min(allowedMs, this.#clock.wallMs() + this.#patienceMs) : allowedMs;
    if (this.#generation !== this.#link.generation) {
      this.#generation = this.#link.generation;
      this.#redisClock.forget();
    }
    while (notAfterMs !== Infinity && !this.#redisClock.known) {
      const sentMs = this.#clock.monotonicMs();
      const counters = await this.read(COUNTERS_SCRIPT, []);
      this.#redisClock.sample(numberAt(counters, 4, 'Redis counters'), sentMs);
    }
    const sentMs = this.#clock.monotonicMs();
    const operation = operationId === null ? this.#internalOperation(verb) : `${verb} ${operationId}`;
    const sent = [
      incarnation,
      operation,
      now.seconds,
      now.nanoseconds,
      this.#redisClock.deadline(notAfterMs),
      Math.floor(this.#clock.wallMs()),
      ...args,
    ];
    let entry: OutboxEntry | null = null;
    let outcome: { readonly value: Outcomes[V] } | null = null;
    let failure: unknown;
    // Everything is decoded before the entry goes out: nothing that is not understood gets into the redo log.
    const entryOf = (reply: ScriptReply): OutboxEntry | null => {
      entry = null;
      outcome = null;
      failure = null;
      try {
        // Late: whether it was, or the guess was wrong, the next one is better.
        if (numberAt(reply, 0, `Redis reply of ${verb}`) === STATUS.late) this.#redisClock.forget();
        this.#redisClock.sample(numberAt(reply, 1, `Redis reply of ${verb}`), sentMs);
        const decoded = this.#decoded(verb, reply, operationId);
        outcome = { value: decoded.outcome };
        entry = decoded.entry;
      } catch (error) {
        failure = error;
      }
      return entry;
    };
    const names = this.#names(script);
    try {
      await this.#guarded(() => this.#link.change(script, names, sent, entryOf, true));
    } catch (error) {
      if (operation !== '' && error instanceof ApplianceError && error.retryable) {
        void this.#settle(operation, () => this.#link.change(script, names, [...sent.slice(0, 4), '0', ...sent.slice(5)], entryOf, true));
      }
      throw error;
    }
    if (outcome === null) throw this.#noted(failure ?? new ApplianceError('registry-unavailable', 'the link lost a reply', { retryable: true }));
    return (outcome as { readonly value: Outcomes[V] }).value;
  }

  /** Its own client, so that it pushes out nobody's; none for the owners' lazy copies, which are the same when repeated and in no outbox. */
  #internalOperation(verb: Verb): string {
    if (verb === 'putOwnedAttributes') return '';
    this.#internalOperations += 1;
    return `${verb} ~${this.#id}|${this.#internalOperations}`;
  }

  /**
   * The outcome of a change is not known, and its caller was told so. If it was executed, its entry must get into the outbox, or the backend's archive has a
   * gap: asks until Redis answers, with a not-after time that is over, so that it can only be remembered.
   */
  async #settle(operation: string, recall: () => Promise<ScriptReply>): Promise<void> {
    if (this.#unsettled.has(operation) || this.#unsettled.size >= UNSETTLED_MAX) return;
    this.#unsettled.add(operation);
    try {
      for (let waitMs = SETTLE_MS_FIRST; ; waitMs = Math.min(waitMs * 2, SETTLE_MS_MAX)) {
        await this.#clock.sleep(waitMs);
        try {
          await recall();
          return;
        } catch (error) {
          // Closed, or a reply that cannot be understood: nothing more can be learned.
          if (!(error instanceof ApplianceError) || !error.retryable) return;
        }
      }
    } finally {
      this.#unsettled.delete(operation);
    }
  }

  /** Runs a script that changes something and leaves nothing in the outbox: one that has the same effect when it is run twice. */
  async change(script: VerbScript, args: readonly ScriptArgument[]): Promise<ScriptReply> {
    return this.#guarded(() => this.#link.change(script, this.#names(script), args, undefined, true));
  }

  async read(script: VerbScript, args: readonly ScriptArgument[]): Promise<ScriptReply> {
    return this.#guarded(() => this.#link.read(script, this.#names(script), args));
  }

  /** Decodes a reply; damage is remembered for health. */
  checked<T>(decode: () => T): T {
    try {
      return decode();
    } catch (error) {
      throw this.#noted(error);
    }
  }

  #names(script: VerbScript): readonly string[] {
    let names = this.#keyNames.get(script);
    if (names === undefined) {
      names = script.keys.map((key) => this.#keys[key]);
      this.#keyNames.set(script, names);
    }
    return names;
  }

  #decoded<V extends Verb>(verb: V, reply: ScriptReply, operationId: string | null): { outcome: Outcomes[V]; entry: OutboxEntry | null } {
    const where = `Redis reply of ${verb}`;
    const status = numberAt(reply, 0, where);
    if (status !== STATUS.done) throw refusal(verb, status, bytesAt(reply, 2, where).toString());
    const generation = numberAt(reply, 2, where);
    const sequence = numberAt(reply, 3, where);
    const changes = bytesAt(reply, 5, where);
    const outcome = unpackOutcome(verb, bytesAt(reply, 4, where), changes, where);
    if (sequence === 0) return { outcome, entry: null };
    return {
      outcome,
      entry: {
        generation,
        sequence,
        operationId,
        verb,
        afterImage: encodeAfterImage(unpackChanges(changes, where)),
        outcome: operationId === null ? null : encodeOutcome(verb, outcome),
      },
    };
  }

  async #guarded(call: () => Promise<ScriptReply>): Promise<ScriptReply> {
    try {
      return await call();
    } catch (error) {
      throw this.#noted(errorFrom(error));
    }
  }

  #noted(error: unknown): unknown {
    if (error instanceof ApplianceError && error.code === 'registry-corrupt') this.#corruption ??= error.message;
    return error;
  }
}

/** The error of every verb that a dead incarnation calls. */
export function incarnationDead(): ApplianceError {
  return new ApplianceError('incarnation-dead', 'this incarnation was replaced, left or was marked dead; it must stop');
}

function refusal(verb: Verb, status: number, message: string): Error {
  switch (status) {
    case STATUS.dead:
      return incarnationDead();
    case STATUS.late:
      return new ApplianceError('registry-unavailable', `${verb} came to Redis after its deadline and was not executed`, { retryable: true });
    case STATUS.bug:
      return new AssertionError(message);
    case STATUS.full:
      return new ApplianceError('registry-no-space', message === '' ? 'the fileids of this vPool are used up' : message);
    case STATUS.unavailable:
      return new ApplianceError('registry-unavailable', message, { retryable: true });
    default:
      return new ApplianceError('registry-corrupt', `Redis: ${message}; run "vferry fsck" on this vPool`);
  }
}

/** What a script's own error means; what the link says is passed on. */
function errorFrom(error: unknown): unknown {
  if (error instanceof ApplianceError || !(error instanceof Error) || error.name !== 'ReplyError') return error;
  const { message } = error;
  if (message.startsWith('OOM'))
    return new ApplianceError('registry-no-space', `Redis has no memory left: ${message}`, { retryable: true, cause: error });
  if (message.startsWith('WRONGTYPE') || message.includes('user_script:')) {
    return new ApplianceError('registry-corrupt', `Redis holds what is no record: ${message}`, { cause: error });
  }
  return new ApplianceError('registry-unavailable', `Redis refuses: ${message}`, { retryable: true, cause: error });
}

function elementOf(reply: ScriptReply, at: number): ScriptReply | undefined {
  return Array.isArray(reply) ? (reply as readonly ScriptReply[])[at] : undefined;
}

export function numberAt(reply: ScriptReply, at: number, where: string): number {
  const value = elementOf(reply, at);
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : corrupt(where, `element ${at} is no count`);
}

/** An integer that Redis keeps as text. */
export function decimalAt(reply: ScriptReply, at: number, where: string): number {
  const text = bytesAt(reply, at, where).toString();
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  return Number.isSafeInteger(value) ? value : corrupt(where, `element ${at} is no count but ${JSON.stringify(text.slice(0, 40))}`);
}

export function bytesAt(reply: ScriptReply, at: number, where: string): Buffer {
  const value = elementOf(reply, at);
  return Buffer.isBuffer(value) ? value : corrupt(where, `element ${at} is no byte string`);
}

export function listAt(reply: ScriptReply, at: number, where: string): readonly ScriptReply[] {
  return listOfReply(elementOf(reply, at) ?? null, where);
}

export function listOfReply(reply: ScriptReply, where: string): readonly ScriptReply[] {
  return Array.isArray(reply) ? (reply as readonly ScriptReply[]) : corrupt(where, 'a list was expected');
}

/** The bytes of a reply that is a byte string or nil. */
export function bytesOrNull(reply: ScriptReply | undefined, where: string): Buffer | null {
  if (reply === null || Buffer.isBuffer(reply)) return reply;
  return corrupt(where, 'a byte string was expected');
}
