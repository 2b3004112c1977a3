/**
 * Connections to one primary in one generation: group commit of changes, confirmed reads. Ends as a whole at the first sign that the primary may be another one,
 * hangs, or lost its replicas; the link makes the next one through Sentinel.
 */
import type { ApplianceError } from '../../server/core/errors.ts';
import type { Clock } from '../../server/core/time.ts';
import { CONFIRM } from './generation-record.ts';
import { type RedisAnswer, type RedisCommand, type RedisConnection, unavailable } from './redis-connection.ts';
import type { LuaScript, ScriptArgument, ScriptReply } from './redis-link.ts';

/** Scripts of one batch, so that the first of them does not wait too long for the last. */
const BATCH_MAX = 64;

/** How often a write is confirmed when nobody changes anything. */
const WATCH_MS = 500;

/** Error codes of Redis that say: nothing was executed, and this is not the place (now). */
const NOT_EXECUTED = new Set([
  'READONLY',
  'LOADING',
  'MASTERDOWN',
  'NOREPLICAS',
  'MISCONF',
  'OOM',
  'BUSY',
  'MOVED',
  'ASK',
  'TRYAGAIN',
  'CLUSTERDOWN',
  'UNBLOCKED',
  'NOSCRIPT',
  'NOAUTH',
  'NOPERM',
  'WRONGPASS',
]);

/** `lost`: the session ended and it was certainly not executed; the link may put it into the next one. */
export type CallOutcome =
  | { readonly kind: 'reply'; readonly reply: ScriptReply }
  | { readonly kind: 'failed'; readonly error: Error }
  | { readonly kind: 'lost'; readonly reason: ApplianceError; readonly executed: 'no' | 'unknown' };

export interface ScriptCall {
  readonly script: LuaScript;
  readonly keys: readonly string[];
  readonly args: readonly ScriptArgument[];
  /** Changes: makes what the reply leaves durable; its promise is waited for. null for reads. */
  readonly keep: ((reply: ScriptReply) => Promise<void> | null) | null;
  readonly settle: (outcome: CallOutcome) => void;
}

export interface SessionSettings {
  readonly generation: number;
  readonly metaKey: string;
  readonly confirmKey: string;
  readonly replicasMin: number;
  readonly commandTimeoutMs: number;
  /** Age of a confirmation up to which a read may rest on it. */
  readonly confirmedMsMax: number;
}

export interface LinkCounts {
  roundTrips: number;
  changes: number;
  reads: number;
  /** Reads that had to wait for a confirming write, or were asked again. */
  readsRepeated: number;
  waitsShort: number;
}

export class LinkSession {
  readonly generation: number;
  readonly #settings: SessionSettings;
  readonly #clock: Clock;
  readonly #counts: LinkCounts;
  readonly #otherConfirmedAtMs: () => number;
  readonly #changers: readonly RedisConnection[];
  readonly #readers: readonly RedisConnection[];
  readonly #busy = new Set<RedisConnection>();
  #changes: ScriptCall[] = [];
  #reads: ScriptCall[] = [];
  #confirmedAtMs: number;
  #reason: ApplianceError | null = null;
  readonly #ended = Promise.withResolvers<ApplianceError>();
  #pumping = false;
  #confirmSentAtMs = -Infinity;

  /** `otherConfirmedAtMs`: when the lease's thread last confirmed on this same primary, or -Infinity. */
  constructor(
    components: { readonly clock: Clock; readonly counts: LinkCounts; readonly otherConfirmedAtMs: () => number },
    settings: SessionSettings,
    connections: { readonly changers: readonly RedisConnection[]; readonly readers: readonly RedisConnection[] },
  ) {
    this.#clock = components.clock;
    this.#counts = components.counts;
    this.#otherConfirmedAtMs = components.otherConfirmedAtMs;
    this.#settings = settings;
    this.generation = settings.generation;
    this.#changers = connections.changers;
    this.#readers = connections.readers;
    this.#confirmedAtMs = -Infinity;
    for (const connection of [...connections.changers, ...connections.readers]) {
      connection.onEnd(() => this.end(unavailable(`the connection to Redis at ${connection.address.host}:${connection.address.port} ended`)));
    }
    this.#watch();
  }

  /** An idle session, too, notices that its primary hangs, was demoted or lost its replicas: others may wait for this router in a recovery round. */
  #watch(): void {
    this.#clock.after(WATCH_MS, () => {
      if (this.#reason !== null) return;
      const idle = this.#changers.find((connection) => !this.#busy.has(connection));
      if (idle !== undefined && this.#clock.monotonicMs() - this.#confirmSentAtMs >= WATCH_MS) this.#send(idle, [], true);
      this.#watch();
    });
  }

  /** Resolves with the reason when the session is over. */
  get ended(): Promise<ApplianceError> {
    return this.#ended.promise;
  }

  get isOver(): boolean {
    return this.#reason !== null;
  }

  /** Monotonic send time of the last write that is confirmed, also by the lease's thread on this primary. */
  get confirmedAtMs(): number {
    return Math.max(this.#confirmedAtMs, this.#otherConfirmedAtMs());
  }

  change(call: ScriptCall): void {
    this.#changes.push(call);
    this.#pumpSoon();
  }

  read(call: ScriptCall): void {
    this.#reads.push(call);
    this.#pumpSoon();
  }

  /** Ends it: all connections closed, all calls settled as lost. */
  end(reason: ApplianceError): void {
    if (this.#reason !== null) return;
    this.#reason = reason;
    for (const connection of [...this.#changers, ...this.#readers]) connection.close();
    const waiting = [...this.#changes, ...this.#reads];
    this.#changes = [];
    this.#reads = [];
    for (const call of waiting) call.settle({ kind: 'lost', reason, executed: 'no' });
    this.#ended.resolve(reason);
  }

  /** What comes in one turn goes out together. */
  #pumpSoon(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    queueMicrotask(() => {
      this.#pumping = false;
      this.#pump();
    });
  }

  #pump(): void {
    if (this.#reason !== null) {
      const reason = this.#reason;
      for (const call of [...this.#changes.splice(0), ...this.#reads.splice(0)]) call.settle({ kind: 'lost', reason, executed: 'no' });
      return;
    }
    for (const connection of this.#changers) {
      if (this.#changes.length === 0) break;
      if (!this.#busy.has(connection)) this.#send(connection, this.#changes.splice(0, BATCH_MAX), true);
    }
    for (const connection of this.#readers) {
      if (this.#reads.length === 0) break;
      if (this.#busy.has(connection)) continue;
      const isStale = this.#settings.replicasMin > 0 && this.#clock.monotonicMs() - this.confirmedAtMs > this.#settings.confirmedMsMax / 2;
      this.#send(connection, this.#reads.splice(0, BATCH_MAX), isStale);
    }
  }

  #send(connection: RedisConnection, calls: readonly ScriptCall[], confirm: boolean): void {
    const { generation, metaKey, confirmKey, replicasMin, commandTimeoutMs } = this.#settings;
    const commands: RedisCommand[] = calls.map(({ script, keys, args }) => ({ kind: 'script', script, keys, args: [generation, ...args] }));
    // Refusals and repetitions write nothing, and a WAIT behind nothing proves nothing: there is always a write in front of it.
    const waits = confirm && replicasMin > 0;
    if (waits || calls.length === 0) commands.push({ kind: 'script', script: CONFIRM, keys: [metaKey, confirmKey], args: [generation] });
    if (waits) {
      commands.push({ kind: 'plain', words: ['WAIT', replicasMin, Math.ceil(commandTimeoutMs / 2)] });
    }
    const sentAtMs = this.#clock.monotonicMs();
    if (confirm) this.#confirmSentAtMs = sentAtMs;
    const kept: (Promise<void> | null)[] = [];
    let keepFailure: Error | null = null;
    const onReply = (index: number, reply: ScriptReply): void => {
      const keep = calls[index]?.keep;
      if (keep === null || keep === undefined) return;
      try {
        kept[index] = keep(reply);
        // Waited for below; here only so that a rejection before that is none that nobody sees.
        kept[index]?.catch(() => undefined);
      } catch (error) {
        keepFailure = error as Error;
      }
    };
    this.#busy.add(connection);
    this.#counts.roundTrips += 1;
    void connection
      .run(commands, commandTimeoutMs, onReply)
      .then(
        (answers) => this.#answered(calls, answers, { waits, sentAtMs, kept, keepFailure }),
        (error: unknown) => {
          const reason = error as ApplianceError;
          this.end(reason);
          for (const call of calls) call.settle({ kind: 'lost', reason, executed: 'unknown' });
        },
      )
      .finally(() => {
        this.#busy.delete(connection);
        this.#pump();
      });
  }

  #answered(
    calls: readonly ScriptCall[],
    answers: readonly RedisAnswer[],
    batch: { waits: boolean; sentAtMs: number; kept: readonly (Promise<void> | null)[]; keepFailure: Error | null },
  ): void {
    const { replicasMin, confirmedMsMax } = this.#settings;
    let short: ApplianceError | null = null;
    if (batch.waits) {
      const [confirmed, waited] = answers.slice(calls.length);
      if (confirmed?.kind !== 'reply') short = this.#refused(confirmed);
      else if (waited?.kind !== 'reply' || typeof waited.reply !== 'number') short = this.#refused(waited);
      else if (waited.reply < replicasMin) {
        this.#counts.waitsShort += 1;
        short = unavailable(`only ${waited.reply} of ${replicasMin} replicas of Redis confirmed in time; the outcome is unknown`);
      }
      if (short === null) this.#confirmedAtMs = Math.max(this.#confirmedAtMs, batch.sentAtMs);
    } else if (calls.length === 0 && answers[0]?.kind !== 'reply') short = this.#refused(answers[0]);
    else if (replicasMin === 0 && answers.every((answer) => answer.kind === 'reply'))
      this.#confirmedAtMs = Math.max(this.#confirmedAtMs, batch.sentAtMs);
    if (short !== null) this.end(short);
    const isFresh = replicasMin === 0 || this.#clock.monotonicMs() - this.confirmedAtMs <= confirmedMsMax;
    for (const [index, call] of calls.entries()) {
      const answer = answers[index];
      if (answer === undefined) call.settle({ kind: 'lost', reason: unavailable('Redis answered too little'), executed: 'unknown' });
      else if (answer.kind === 'refused') this.#settleRefused(call, answer.code, answer.error);
      else if (short !== null) call.settle({ kind: 'lost', reason: short, executed: 'unknown' });
      else if (call.keep === null) {
        if (isFresh) call.settle({ kind: 'reply', reply: answer.reply });
        else {
          this.#counts.readsRepeated += 1;
          this.#reads.push(call);
        }
      } else if (batch.keepFailure !== null) call.settle({ kind: 'failed', error: batch.keepFailure });
      else {
        const kept = batch.kept[index] ?? null;
        if (kept === null) call.settle({ kind: 'reply', reply: answer.reply });
        else
          kept.then(
            () => call.settle({ kind: 'reply', reply: answer.reply }),
            (error: unknown) => call.settle({ kind: 'failed', error: error as Error }),
          );
      }
    }
  }

  #settleRefused(call: ScriptCall, code: string, error: Error): void {
    if (code === 'GENERATION' || NOT_EXECUTED.has(code)) {
      const reason = unavailable(`Redis refuses: ${error.message}`, error);
      this.end(reason);
      call.settle({ kind: 'lost', reason, executed: 'no' });
    } else call.settle({ kind: 'failed', error });
  }

  #refused(answer: RedisAnswer | undefined): ApplianceError {
    return unavailable(`Redis does not confirm: ${answer?.kind === 'refused' ? answer.error.message : 'no such answer'}`);
  }
}
