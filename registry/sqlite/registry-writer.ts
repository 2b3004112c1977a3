/**
 * The main thread's side of the worker: collects the verbs of one loop turn into one message, settles their promises when the worker has
 * committed them, starts the worker again when it died, and knows what is wrong.
 */
import { Worker } from 'node:worker_threads';

import { assert, AssertionError } from '../../server/core/assert.ts';
import { ApplianceError } from '../../server/core/errors.ts';
import type { Logger } from '../../server/core/logger.ts';
import type { Clock } from '../../server/core/time.ts';
import { decodeOutcome, type Outcomes, type Verb } from '../outcome-codec.ts';
import type { Mutation } from '../ports.ts';
import type { Answer, Failure, Request, RequestBatch, VerbArguments, WorkerMessage, WorkerSettings } from './worker-protocol.ts';

/** Verbs that may wait at once; more are refused as `registry-unavailable`, which nfsd answers with "try again later". */
const PENDING_MAX = 65_536;
const RESTART_MS_FIRST = 50;
const RESTART_MS_MAX = 5_000;
/** While something is wrong, a harmless write is tried this often, so that health recovers without a client. */
const PROBE_MS = 1_000;

interface Pending {
  readonly verb: Verb | null;
  readonly resolve: (outcome: unknown) => void;
  readonly reject: (error: Error) => void;
}

export class RegistryWriter {
  readonly #settings: WorkerSettings;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #script: URL;
  readonly #onChange: () => void;
  readonly #pending = new Map<number, Pending>();
  #worker: Worker | null = null;
  #ready = false;
  #queue: Request[] = [];
  #flushing = false;
  #nextId = 1;
  #restartMs = RESTART_MS_FIRST;
  #cancelTimer: (() => void) | null = null;
  #cancelProbe: (() => void) | null = null;
  #closed = false;
  #trouble: Failure | null = null;
  #corruption: string | null = null;

  /** `onChange` is called before anybody hears of a commit, or that one may have been. `script`: the worker's module; tests give one that dies. */
  constructor(
    components: { clock: Clock; logger: Logger; onChange: () => void },
    settings: WorkerSettings,
    script = new URL('./registry-worker.ts', import.meta.url),
  ) {
    this.#script = script;
    this.#settings = settings;
    this.#clock = components.clock;
    this.#logger = components.logger;
    this.#onChange = components.onChange;
  }

  /** Starts the worker, which opens the database (and makes it when there is none). @throws ApplianceError when it refuses. */
  async open(): Promise<void> {
    const failure = await this.#start(this.#settings);
    if (failure !== null) {
      this.#closed = true;
      throw errorFrom(failure);
    }
  }

  /** Why the registry cannot take changes, or what is corrupt; null when all is well. */
  health(): string | null {
    return this.#corruption ?? this.#trouble?.message ?? null;
  }

  /** Notes damage that a read met: it stays in health until the process ends, since only a person can repair it. */
  noteCorruption(message: string): void {
    if (this.#corruption === null) this.#logger.error({ problem: message }, 'the registry is corrupt');
    this.#corruption ??= message;
  }

  /** Executes a verb. Byte strings in `args` must have buffers of their own: they are cloned with all of their buffer. */
  call<V extends Verb>(verb: V, mutation: Mutation | null, args: VerbArguments[V]): Promise<Outcomes[V]> {
    return new Promise<Outcomes[V]>((resolve, reject) => {
      if (this.#closed) throw new ApplianceError('registry-unavailable', 'the registry is closed');
      if (this.#pending.size >= PENDING_MAX) {
        throw new ApplianceError('registry-unavailable', `${PENDING_MAX} changes wait for the registry`, { retryable: true });
      }
      const id = this.#nextId++;
      this.#pending.set(id, { verb, resolve: resolve as (outcome: unknown) => void, reject });
      this.#send({ kind: 'verb', id, verb, mutation, arguments: args });
    });
  }

  /** Waits for what is under way, closes the database and ends the worker. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#cancelTimer?.();
    this.#cancelProbe?.();
    const worker = this.#worker;
    if (worker === null) {
      this.#rejectAll(new ApplianceError('registry-unavailable', 'the registry was closed while its worker was down', { retryable: true }));
      return;
    }
    const exited = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
    await new Promise<void>((resolve) => {
      const id = this.#nextId++;
      this.#pending.set(id, { verb: null, resolve: () => resolve(), reject: () => resolve() });
      this.#send({ kind: 'close', id });
    });
    await exited;
  }

  #send(request: Request): void {
    this.#queue.push(request);
    if (this.#flushing || !this.#ready) return;
    this.#flushing = true;
    // Behind the callbacks of this turn: what they ask for goes out in one message and one transaction.
    this.#clock.soon(() => this.#flush());
  }

  #flush(): void {
    this.#flushing = false;
    if (!this.#ready || this.#worker === null || this.#queue.length === 0) return;
    const batch: RequestBatch = { requests: this.#queue, wallOffsetMs: this.#clock.wallMs() - Date.now() };
    this.#queue = [];
    this.#worker.postMessage(batch);
  }

  /** Starts a worker; resolves with null when it is ready, or why it is not. */
  #start(settings: WorkerSettings): Promise<Failure | null> {
    const worker = new Worker(this.#script, { workerData: settings, name: 'registry' });
    this.#worker = worker;
    return new Promise((resolve) => {
      let crash: Error | null = null;
      worker.on('error', (error) => (crash = error instanceof Error ? error : new Error(String(error))));
      worker.on('message', (message: WorkerMessage) => {
        if (message.kind === 'answers') this.#settle(message.answers, message.trouble);
        else if (message.kind === 'refused') {
          this.#worker = null;
          resolve(message.failure);
        } else {
          this.#ready = true;
          resolve(null);
          this.#flush();
        }
      });
      worker.on('exit', (code) => {
        const failure: Failure = {
          code: 'registry-unavailable',
          message: `the registry's worker ended with code ${code}${crash === null ? '' : `: ${crash.message}`}`,
          retryable: true,
        };
        resolve(failure);
        if (this.#worker === worker) this.#died(failure);
      });
    });
  }

  #died(failure: Failure): void {
    const wasReady = this.#ready;
    this.#ready = false;
    this.#worker = null;
    this.#queue = [];
    this.#onChange();
    this.#rejectAll(errorFrom(failure));
    if (this.#closed || !wasReady) return;
    this.#logger.error({ problem: failure.message }, 'the registry worker died and is started again');
    this.#setTrouble(failure);
    this.#restartLater();
  }

  #restartLater(): void {
    this.#cancelTimer = this.#clock.after(this.#restartMs, () => {
      // The registry is there: never make a new one in its place.
      void this.#start({ ...this.#settings, create: null }).then((refusal) => {
        if (refusal === null) {
          if (this.#closed) return;
          this.#restartMs = RESTART_MS_FIRST;
          this.#probe();
          return;
        }
        this.#ready = false;
        this.#worker = null;
        this.#setTrouble(refusal);
        this.#queue = [];
        this.#rejectAll(errorFrom(refusal));
        if (this.#closed) return;
        this.#restartMs = Math.min(this.#restartMs * 2, RESTART_MS_MAX);
        this.#restartLater();
      });
    });
  }

  #settle(answers: readonly Answer[], trouble: Failure | null): void {
    this.#onChange();
    if (trouble !== null) this.#setTrouble(trouble);
    else if (this.#trouble !== null && answers.some((answer) => 'outcome' in answer)) {
      this.#logger.info({}, 'the registry works again');
      this.#trouble = null;
    }
    for (const answer of answers) {
      const pending = this.#pending.get(answer.id);
      assert(pending !== undefined, 'the worker answers what was asked, once');
      this.#pending.delete(answer.id);
      if ('failure' in answer) {
        if (answer.failure.code === 'registry-corrupt') this.noteCorruption(answer.failure.message);
        pending.reject(errorFrom(answer.failure));
      } else if ('bug' in answer) pending.reject(new AssertionError(answer.bug));
      else if (pending.verb === null) pending.resolve(null);
      else this.#resolveOutcome(pending, pending.verb, answer.outcome);
    }
  }

  #resolveOutcome(pending: Pending, verb: Verb, outcome: string): void {
    try {
      pending.resolve(decodeOutcome(verb, outcome, `stored outcome of ${verb}`));
    } catch (error) {
      const failure = error instanceof Error ? error : new Error(String(error));
      this.noteCorruption(failure.message);
      pending.reject(failure);
    }
  }

  #setTrouble(failure: Failure): void {
    if (this.#trouble?.message !== failure.message)
      this.#logger.error({ code: failure.code, problem: failure.message }, 'the registry cannot take changes');
    this.#trouble = failure;
    if (this.#cancelProbe === null && !this.#closed) {
      this.#cancelProbe = this.#clock.after(PROBE_MS, () => {
        this.#cancelProbe = null;
        if (this.#trouble === null) return;
        if (this.#ready) this.#probe();
        else this.#setTrouble(this.#trouble);
      });
    }
  }

  #probe(): void {
    const id = this.#nextId++;
    const done = (): void => {};
    this.#pending.set(id, { verb: null, resolve: done, reject: done });
    this.#send({ kind: 'probe', id });
  }

  #rejectAll(error: Error): void {
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of pending) reject(error);
  }
}

function errorFrom(failure: Failure): ApplianceError {
  return new ApplianceError(failure.code, failure.message, { retryable: failure.retryable });
}
