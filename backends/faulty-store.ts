import type { Clock, Random } from '../server/core/time.ts';
import { abortedError, pause, throwIfAborted } from './abort.ts';
import { readBody } from './object-body.ts';
import { type ByteRange, type GetOutcome, type ObjectBody, type ObjectStore, StoreError, type StoreErrorClass } from './object-store.ts';

/** Probabilities are per call, 0 to 1. Everything is off by default. */
export interface StoreFaults {
  /** The call fails with `failClass` and has no effect. */
  readonly failBefore: number;
  readonly failClass: StoreErrorClass;
  /** The call has its effect, but its answer is lost: it fails with class `retry`. */
  readonly loseAnswer: number;
  /** The call waits, up to `delayMsMax`. */
  readonly delay: number;
  readonly delayMsMax: number;
  /** The call never ends until its signal fires. */
  readonly hang: number;
  /** A call begins a storm: it and every call in the next `stormMs` fails with class `retry`, as a service that answers 503. */
  readonly storm: number;
  readonly stormMs: number;
  /** get and head show a new object up to this long after its put. */
  readonly visibleLagMsMax: number;
  /** list shows a put, and forgets a delete, up to this long after it. */
  readonly listLagMsMax: number;
  /** get gives fewer bytes than there are; one bit of them is wrong. */
  readonly truncateGet: number;
  readonly flipGet: number;
  /** What is stored is shorter than the body; one bit of it is wrong. The put says `written`. */
  readonly truncatePut: number;
  readonly flipPut: number;
}

const NO_FAULTS: StoreFaults = {
  failBefore: 0,
  failClass: 'retry',
  loseAnswer: 0,
  delay: 0,
  delayMsMax: 0,
  hang: 0,
  storm: 0,
  stormMs: 0,
  visibleLagMsMax: 0,
  listLagMsMax: 0,
  truncateGet: 0,
  flipGet: 0,
  truncatePut: 0,
  flipPut: 0,
};

/** A store that misbehaves as told: for tests and simulation. The same random sequence and calls give the same faults. */
export class FaultyStore implements ObjectStore {
  readonly #inner: ObjectStore;
  readonly #clock: Clock;
  readonly #random: Random;
  #faults: StoreFaults;
  #stormEndMs = -Infinity;
  /** Monotonic time from which get and head show an object, by `bucket/name`. */
  readonly #visibleAtMs = new Map<string, number>();
  /** Monotonic time from which list tells the truth about an object that was put, or deleted. */
  readonly #listedAtMs = new Map<string, number>();
  readonly #forgottenAtMs = new Map<string, number>();

  constructor(components: { inner: ObjectStore; clock: Clock; random: Random }, faults: Partial<StoreFaults> = {}) {
    this.#inner = components.inner;
    this.#clock = components.clock;
    this.#random = components.random;
    this.#faults = { ...NO_FAULTS, ...faults };
  }

  get description(): string {
    return `faulty ${this.#inner.description}`;
  }

  get putIsAtomic(): boolean {
    return this.#inner.putIsAtomic;
  }

  /** Replaces the faults from the next call on; what is not named is off. A storm that runs ends. */
  setFaults(faults: Partial<StoreFaults>): void {
    this.#faults = { ...NO_FAULTS, ...faults };
    this.#stormEndMs = -Infinity;
  }

  createBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    return this.#call(`create bucket ${bucket}`, signal, () => this.#inner.createBucket(bucket, signal));
  }

  deleteBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    return this.#call(`delete bucket ${bucket}`, signal, () => this.#inner.deleteBucket(bucket, signal));
  }

  listBuckets(after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    return this.#call('list buckets', signal, () => this.#inner.listBuckets(after, limit, signal));
  }

  put(bucket: string, name: string, body: ObjectBody, signal?: AbortSignal): Promise<'written' | 'exists'> {
    return this.#call(`put ${bucket}/${name}`, signal, async () => {
      const outcome = await this.#inner.put(bucket, name, await this.#damagedBody(body), signal);
      if (outcome === 'written') {
        const key = `${bucket}/${name}`;
        this.#lag(this.#visibleAtMs, key, this.#faults.visibleLagMsMax);
        this.#lag(this.#listedAtMs, key, this.#faults.listLagMsMax);
        this.#forgottenAtMs.delete(key);
      }
      return outcome;
    });
  }

  get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
    return this.#call<GetOutcome>(`get ${bucket}/${name}`, signal, async () => {
      const outcome = await this.#inner.get(bucket, name, range, signal);
      if (outcome.kind === 'absent' || this.#pending(this.#visibleAtMs, `${bucket}/${name}`)) return { kind: 'absent' };
      return { kind: 'found', bytes: this.#damaged(outcome.bytes, this.#faults.truncateGet, this.#faults.flipGet) };
    });
  }

  head(bucket: string, name: string, signal?: AbortSignal): Promise<{ kind: 'found'; sizeBytes: number } | { kind: 'absent' }> {
    return this.#call<{ kind: 'found'; sizeBytes: number } | { kind: 'absent' }>(`head ${bucket}/${name}`, signal, async () => {
      const outcome = await this.#inner.head(bucket, name, signal);
      return this.#pending(this.#visibleAtMs, `${bucket}/${name}`) ? { kind: 'absent' } : outcome;
    });
  }

  delete(bucket: string, name: string, signal?: AbortSignal): Promise<void> {
    return this.#call(`delete ${bucket}/${name}`, signal, async () => {
      const key = `${bucket}/${name}`;
      const wasListed = !this.#pending(this.#listedAtMs, key) && (await this.#inner.head(bucket, name, signal)).kind === 'found';
      await this.#inner.delete(bucket, name, signal);
      this.#visibleAtMs.delete(key);
      this.#listedAtMs.delete(key);
      if (wasListed) this.#lag(this.#forgottenAtMs, key, this.#faults.listLagMsMax);
    });
  }

  list(bucket: string, prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    return this.#call(`list ${bucket}`, signal, async () => {
      const names: string[] = [];
      // The inner pages are read through, so that names left out and put back cannot make a page empty or too long.
      for (let from = after; ;) {
        const inner = await this.#inner.list(bucket, prefix, from, limit, signal);
        names.push(...inner.names.filter((name) => !this.#pending(this.#listedAtMs, `${bucket}/${name}`)));
        if (!inner.more || names.length > limit) break;
        from = inner.names.at(-1) ?? from;
      }
      const known = new Set(names);
      for (const key of this.#forgottenAtMs.keys()) {
        const name = key.slice(bucket.length + 1);
        const ours = key.startsWith(`${bucket}/`) && name.startsWith(prefix) && name > after && !known.has(name);
        if (ours && this.#pending(this.#forgottenAtMs, key)) names.push(name);
      }
      names.sort();
      return { names: names.slice(0, limit), more: names.length > limit };
    });
  }

  async #call<T>(what: string, signal: AbortSignal | undefined, request: () => Promise<T>): Promise<T> {
    throwIfAborted(signal, what);
    const faults = this.#faults;
    if (this.#happens(faults.delay)) await pause(this.#clock, this.#random.fraction() * faults.delayMsMax, signal, what);
    if (this.#happens(faults.hang)) await untilAborted(signal, what);
    if (this.#happens(faults.storm)) this.#stormEndMs = this.#clock.monotonicMs() + faults.stormMs;
    if (this.#clock.monotonicMs() < this.#stormEndMs) throw new StoreError('retry', `${what}: injected storm (503)`);
    if (this.#happens(faults.failBefore)) throw new StoreError(faults.failClass, `${what}: injected failure (${faults.failClass})`);
    const result = await request();
    if (this.#happens(faults.loseAnswer)) throw new StoreError('retry', `${what}: injected loss of the answer`);
    return result;
  }

  #happens(probability: number): boolean {
    return probability > 0 && this.#random.fraction() < probability;
  }

  async #damagedBody(body: ObjectBody): Promise<ObjectBody> {
    const { truncatePut, flipPut } = this.#faults;
    if (truncatePut === 0 && flipPut === 0) return body;
    return { kind: 'bytes', chunks: [this.#damaged(await readBody(body), truncatePut, flipPut)] };
  }

  /** `bytes` (which we own) or less of them. */
  #damaged(bytes: Buffer, truncate: number, flip: number): Buffer {
    let result = bytes;
    if (result.byteLength > 0 && this.#happens(truncate)) result = result.subarray(0, Math.floor(this.#random.fraction() * result.byteLength));
    if (result.byteLength > 0 && this.#happens(flip)) {
      const bit = Math.floor(this.#random.fraction() * result.byteLength * 8);
      result[bit >>> 3] = (result[bit >>> 3] as number) ^ (1 << (bit & 7));
    }
    return result;
  }

  #lag(times: Map<string, number>, key: string, lagMsMax: number): void {
    if (lagMsMax > 0) times.set(key, this.#clock.monotonicMs() + this.#random.fraction() * lagMsMax);
  }

  /** True while `key` is to be hidden (or still shown); forgets it when its time has come. */
  #pending(times: Map<string, number>, key: string): boolean {
    const atMs = times.get(key);
    if (atMs === undefined) return false;
    if (atMs > this.#clock.monotonicMs()) return true;
    times.delete(key);
    return false;
  }
}

/** Never resolves; rejects when the signal fires. */
function untilAborted(signal: AbortSignal | undefined, what: string): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal === undefined) return;
    const onAbort = (): void => reject(abortedError(signal, what));
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
  });
}
