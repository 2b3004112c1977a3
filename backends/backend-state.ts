import type { Logger } from '../server/core/logger.ts';
import type { Clock } from '../server/core/time.ts';
import type { RetryPacer, StoreObserver, StoreOutcome, StoreRequest, StoreRequestKind, WaitingRetry } from './store-observer.ts';

/**
 * up: it answers. slow: small requests stay unanswered, or some fail again and again while others succeed. full: it has no room. denied: it refuses
 * (credentials, policy, read-only). down: nothing that is asked of it succeeds.
 */
export const BACKEND_CONDITIONS = ['up', 'slow', 'full', 'denied', 'down'] as const;
export type BackendCondition = (typeof BACKEND_CONDITIONS)[number];

export interface BackendReport {
  readonly condition: BackendCondition;
  /** Wall clock, milliseconds, since when it is in this condition. */
  readonly sinceMs: number;
  /** What was seen; null when it is up. */
  readonly message: string | null;
}

/** A request of at most this many payload bytes is small: it is answered in far less than a second by a store that is well. */
const SMALL_BYTES = 256 * 1024;
/** A small request without an answer for this long is a sign that the backend is slow; nothing succeeding for this long, that it is down. */
const PATIENCE_MS = 1000;
/** One failure among successes is nothing that people must know of: so many, or one that lasts so long, are. */
const FAILURES_MIN = 3;
const FAILURE_AGE_MS = 500;
/** A failure of something that nobody tried again is forgotten. */
const LAPSE_MS = 30_000;
/** While requests wait for their next attempt, one of them goes ahead this long after the last attempt. */
const PILOT_EVERY_MS = 1000;
/** A store without space gets it back from people, and what is tried are whole segments. */
const PILOT_EVERY_FULL_MS = 2000;

type FailureClass = 'retry' | 'timeout' | 'denied' | 'no-space';

interface Failure {
  readonly class: FailureClass;
  readonly kind: StoreRequestKind;
  readonly message: string;
  readonly payloadBytes: number;
  /** Of the first since the last success. */
  readonly sinceMs: number;
  /** Of the last. */
  readonly atMs: number;
  readonly count: number;
}

interface Waiting {
  readonly retry: WaitingRetry;
  readonly resume: () => void;
}

/** Reading and writing fail for reasons of their own: a full store is still read. */
class Side {
  readonly name: 'read' | 'write';
  succeededMs = -Infinity;
  failure: Failure | null = null;
  pilotMs = -Infinity;
  /** In order of arrival. */
  readonly waiting = new Set<Waiting>();

  constructor(name: 'read' | 'write') {
    this.name = name;
  }

  /** Nothing of this side succeeds any more, and that is no accident. */
  isDown(nowMs: number): boolean {
    const { failure } = this;
    if (failure === null || (failure.class !== 'retry' && failure.class !== 'timeout')) return false;
    return isSerious(failure, nowMs) && nowMs - this.succeededMs >= PATIENCE_MS;
  }
}

function isSerious(failure: Failure, nowMs: number): boolean {
  if (failure.class === 'denied' || failure.class === 'no-space' || failure.class === 'timeout') return true;
  return failure.count >= FAILURES_MIN || nowMs - failure.sinceMs >= FAILURE_AGE_MS;
}

/**
 * How the Storage Backend is, told from the requests that are made of it anyway (invariant 11): no request is made here. What is wrong is seen
 * within a second of the first evidence, a request that hangs included; `look` has to be called a few times a second for that. Each change is
 * one line of the log.
 *
 * As pacer of the retries it shortens an outage: one waiting request goes ahead each second, and the first success lets all others follow.
 */
export class BackendState implements StoreObserver, RetryPacer {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #read = new Side('read');
  readonly #write = new Side('write');
  /** Small requests without an answer, oldest first. */
  readonly #small = new Set<StoreRequest>();
  #large = 0;
  #succeededMs = -Infinity;
  #failedMs = -Infinity;
  #condition: BackendCondition = 'up';
  #message: string | null = null;
  #sinceMs: number;
  #changes = 0;
  readonly #onRecovered: (() => void)[] = [];

  constructor(components: { clock: Clock; logger: Logger }) {
    this.#clock = components.clock;
    this.#logger = components.logger;
    this.#sinceMs = components.clock.wallMs();
  }

  get report(): BackendReport {
    return { condition: this.#condition, sinceMs: this.#sinceMs, message: this.#message };
  }

  get condition(): BackendCondition {
    return this.#condition;
  }

  /** How often the condition changed. */
  get changes(): number {
    return this.#changes;
  }

  /** Monotonic time of the last success; -Infinity: none yet. */
  get succeededMs(): number {
    return this.#succeededMs;
  }

  /** Monotonic time of the last failure; -Infinity: none yet. */
  get failedMs(): number {
    return this.#failedMs;
  }

  /** Requests that wait for an answer or for their next attempt. */
  get pending(): number {
    return this.#small.size + this.#large + this.#read.waiting.size + this.#write.waiting.size;
  }

  /** Requests that wait for their next attempt. */
  get waitingRetries(): number {
    return this.#read.waiting.size + this.#write.waiting.size;
  }

  /** `callback` is called whenever the backend does again what it did not do before. */
  onRecovered(callback: () => void): void {
    this.#onRecovered.push(callback);
  }

  requestStarted(request: StoreRequest): void {
    if (request.payloadBytesMax <= SMALL_BYTES) this.#small.add(request);
    else this.#large += 1;
  }

  requestDone(request: StoreRequest, outcome: StoreOutcome, _payloadBytes: number, _durationMs: number, error: Error | null): void {
    if (!this.#small.delete(request)) this.#large -= 1;
    if (outcome === 'aborted') return;
    const failed =
      outcome === 'retry' || outcome === 'timeout' || outcome === 'no-space' || (outcome === 'denied' && request.kind !== 'delete-bucket');
    if (failed) this.#failed(request, outcome, error);
    else this.#succeeded(request);
  }

  /** See RetryPacer. */
  wait(retry: WaitingRetry, resume: () => void): () => void {
    const side = this.#sideOf(retry.kind);
    const waiting: Waiting = {
      retry,
      resume: () => {
        end();
        resume();
      },
    };
    const cancelTimer = this.#clock.after(retry.delayMs, waiting.resume);
    const end = (): void => {
      cancelTimer();
      side.waiting.delete(waiting);
    };
    side.waiting.add(waiting);
    this.#evaluate();
    return end;
  }

  /** To be called a few times a second. `stalled`: this process stood still, so what looks late may have been answered long ago. */
  look(stalled = false): void {
    this.#evaluate(stalled);
    const nowMs = this.#clock.monotonicMs();
    for (const side of [this.#read, this.#write]) {
      const { failure } = side;
      if (failure === null) continue;
      const everyMs = failure.class === 'no-space' ? PILOT_EVERY_FULL_MS : PILOT_EVERY_MS;
      if (nowMs - Math.max(failure.atMs, side.pilotMs) >= everyMs) this.#sendPilot(side, nowMs);
    }
  }

  #sideOf(kind: StoreRequestKind): Side {
    return kind === 'get' || kind === 'head' || kind === 'list' || kind === 'list-buckets' ? this.#read : this.#write;
  }

  #sendPilot(side: Side, nowMs: number): void {
    const [oldest] = side.waiting;
    if (oldest === undefined) return;
    side.pilotMs = nowMs;
    oldest.resume();
  }

  #failed(request: StoreRequest, failureClass: FailureClass, error: Error | null): void {
    const nowMs = this.#clock.monotonicMs();
    this.#failedMs = nowMs;
    const side = this.#sideOf(request.kind);
    side.failure = {
      class: failureClass,
      kind: request.kind,
      message: error?.message ?? failureClass,
      payloadBytes: request.payloadBytesMax,
      sinceMs: side.failure?.sinceMs ?? nowMs,
      atMs: nowMs,
      count: (side.failure?.count ?? 0) + 1,
    };
    this.#evaluate();
  }

  #succeeded(request: StoreRequest): void {
    const nowMs = this.#clock.monotonicMs();
    this.#succeededMs = nowMs;
    const side = this.#sideOf(request.kind);
    const { failure } = side;
    // While other requests succeed, those that failed keep to their delays: an overloaded store asks for that.
    const wasAway = side.isDown(nowMs) || failure?.class === 'denied' || failure?.class === 'no-space';
    side.succeededMs = nowMs;
    if (failure === null || !refutes(request, failure)) {
      if (this.#condition !== 'up') this.#evaluate();
      return;
    }
    side.failure = null;
    if (wasAway) {
      for (const waiting of [...side.waiting]) waiting.resume();
      // What answers one kind of request may answer the other: one attempt shows it.
      const other = side === this.#read ? this.#write : this.#read;
      if (other.failure !== null) this.#sendPilot(other, nowMs);
    }
    this.#evaluate();
    if (wasAway) for (const callback of this.#onRecovered) callback();
  }

  #evaluate(stalled = false): void {
    const nowMs = this.#clock.monotonicMs();
    for (const side of [this.#read, this.#write]) {
      if (side.failure !== null && side.waiting.size === 0 && nowMs - side.failure.atMs > LAPSE_MS) side.failure = null;
    }
    const { condition, message } = this.#seen(nowMs, stalled);
    this.#message = message;
    if (condition === this.#condition) return;
    const former = this.#condition;
    const lastedMs = Math.round(this.#clock.wallMs() - this.#sinceMs);
    this.#condition = condition;
    this.#sinceMs = this.#clock.wallMs();
    this.#changes += 1;
    if (condition === 'up') this.#logger.info({ former, lastedMs }, 'the backend is well again');
    else this.#logger.warn({ condition, former, reason: message }, `the backend is ${condition}`);
  }

  #seen(nowMs: number, stalled: boolean): { condition: BackendCondition; message: string | null } {
    for (const side of [this.#read, this.#write]) {
      if (!side.isDown(nowMs) || side.failure === null) continue;
      const other = side === this.#read ? this.#write : this.#read;
      const answers = nowMs - other.succeededMs < PATIENCE_MS;
      const what = !answers ? 'nothing succeeds' : side.name === 'read' ? 'reading fails' : 'writing fails';
      return { condition: 'down', message: `${what}: ${side.failure.message}` };
    }
    for (const [failureClass, condition] of [
      ['denied', 'denied'],
      ['no-space', 'full'],
    ] as const) {
      for (const { failure } of [this.#write, this.#read]) if (failure?.class === failureClass) return { condition, message: failure.message };
    }
    const [oldest] = this.#small;
    const ageMs = oldest === undefined ? 0 : nowMs - oldest.startedMs;
    if (oldest !== undefined && ageMs > PATIENCE_MS && (!stalled || this.#condition === 'slow')) {
      return { condition: 'slow', message: `a ${oldest.kind} has had no answer for ${Math.round(ageMs)} ms` };
    }
    for (const { waiting } of [this.#read, this.#write]) {
      for (const { retry } of waiting) {
        if (retry.attempts >= FAILURES_MIN) {
          return { condition: 'slow', message: `a ${retry.kind} failed ${retry.attempts} times: ${retry.error.message}` };
        }
      }
    }
    return { condition: 'up', message: null };
  }
}

/** Whether the success of `request` shows that what `failure` was about is over. */
function refutes(request: StoreRequest, failure: Failure): boolean {
  switch (failure.class) {
    case 'retry':
    case 'timeout':
      return true;
    case 'denied':
      return request.kind === failure.kind;
    case 'no-space':
      // A small object still fits where a large one does not.
      return request.kind === failure.kind && request.payloadBytesMax >= failure.payloadBytes;
  }
}
