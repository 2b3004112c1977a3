import type { Clock, Random } from '../server/core/time.ts';
import { abortedError, pause, throwIfAborted } from './abort.ts';
import { bodySizeBytes, readBody } from './object-body.ts';
import { type ByteRange, type GetOutcome, type ObjectBody, type ObjectStore, StoreError, type StoreErrorClass } from './object-store.ts';

/** Probabilities are per call, 0 to 1; times are upper bounds, each case draws its own. Everything is off by default. */
export interface StoreFaults {
  /** The call fails with `failClass` and has no effect. */
  readonly failBefore: number;
  readonly failClass: StoreErrorClass;
  /** The call has its effect, but its answer is lost: it fails with class `retry`. */
  readonly loseAnswer: number;
  /** A put or delete fails with class `retry` and has its effect later, up to so long: the service goes on with what its client gave up. */
  readonly applyLate: number;
  readonly applyLateMsMax: number;
  /** The call waits, up to `delayMsMax`. */
  readonly delay: number;
  readonly delayMsMax: number;
  /** The call never ends until its signal fires. */
  readonly hang: number;
  /** A call begins a storm: it and every call in the next `stormMs` fails with class `retry`, as a service that answers 503. */
  readonly storm: number;
  readonly stormMs: number;
  /** Payload of all puts and gets together passes at this speed, in turn; 0: at once. */
  readonly bytesPerSecond: number;
  /** get and head show a new object up to this long after its put. */
  readonly visibleLagMsMax: number;
  /** For up to this long after a put whose answer was lost, every get, head or put sees the object or not, at random. */
  readonly halfVisibleMsMax: number;
  /** A put that does not see an object of its name (as get would not) replaces it and says `written`: its check is not atomic. */
  readonly blindPut: number;
  /** get and head do not find an object that they showed before; a list leaves out one of its names. */
  readonly waver: number;
  /** get and head show a deleted object up to this long after its delete. */
  readonly undeadMsMax: number;
  /** Up to this long after it was made, a bucket is not found by put and list. */
  readonly bucketLagMsMax: number;
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
  applyLate: 0,
  applyLateMsMax: 0,
  delay: 0,
  delayMsMax: 0,
  hang: 0,
  storm: 0,
  stormMs: 0,
  bytesPerSecond: 0,
  visibleLagMsMax: 0,
  halfVisibleMsMax: 0,
  blindPut: 0,
  waver: 0,
  undeadMsMax: 0,
  bucketLagMsMax: 0,
  listLagMsMax: 0,
  truncateGet: 0,
  flipGet: 0,
  truncatePut: 0,
  flipPut: 0,
};

interface LateEffect {
  readonly atMs: number;
  apply(): Promise<unknown>;
}

/**
 * A store that misbehaves as told: for tests and simulation. The same random sequence and calls give the same faults. What it hides, still shows and
 * has yet to do belongs to the store and not to its caller: it outlives a caller that dies, as a service does.
 */
export class FaultyStore implements ObjectStore {
  readonly #inner: ObjectStore;
  readonly #clock: Clock;
  readonly #random: Random;
  #faults: StoreFaults;
  #stormEndMs = -Infinity;
  /** Monotonic time at which the payload that was sent so far has passed. */
  #pipeFreeMs = 0;
  /** Monotonic time from which get and head show an object for sure, by `bucket/name`; until then not at all, or at random. */
  readonly #visibleAtMs = new Map<string, number>();
  readonly #halfVisibleUntilMs = new Map<string, number>();
  /** Monotonic time from which list tells the truth about an object that was put, or deleted. */
  readonly #listedAtMs = new Map<string, number>();
  readonly #forgottenAtMs = new Map<string, number>();
  readonly #undead = new Map<string, { readonly untilMs: number; readonly bytes: Buffer }>();
  readonly #bucketAtMs = new Map<string, number>();
  #late: LateEffect[] = [];

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

  /** Replaces the faults from the next call on; what is not named is off. A storm that runs ends; what lags keeps lagging until its time. */
  setFaults(faults: Partial<StoreFaults>): void {
    this.#faults = { ...NO_FAULTS, ...faults };
    this.#stormEndMs = -Infinity;
    this.#pipeFreeMs = 0;
  }

  createBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    return this.#call(`create bucket ${bucket}`, signal, async () => {
      const isNew = this.#faults.bucketLagMsMax > 0 && !(await this.#hasBucket(bucket));
      await this.#inner.createBucket(bucket, signal);
      if (isNew) this.#lag(this.#bucketAtMs, bucket, this.#faults.bucketLagMsMax);
    });
  }

  deleteBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    return this.#call(`delete bucket ${bucket}`, signal, () => this.#inner.deleteBucket(bucket, signal));
  }

  listBuckets(after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    return this.#call('list buckets', signal, () => this.#inner.listBuckets(after, limit, signal));
  }

  put(bucket: string, name: string, body: ObjectBody, signal?: AbortSignal): Promise<'written' | 'exists'> {
    return this.#send(bucket, name, body, false, signal);
  }

  /** A put that replaces what is there, as Swift's without a condition: one step, so that whatever goes wrong, and however late it comes, the old or the new bytes are there. */
  async replace(bucket: string, name: string, body: ObjectBody, signal?: AbortSignal): Promise<void> {
    await this.#send(bucket, name, body, true, signal);
  }

  async #send(bucket: string, name: string, body: ObjectBody, over: boolean, signal: AbortSignal | undefined): Promise<'written' | 'exists'> {
    const what = `put ${bucket}/${name}`;
    let written = false;
    try {
      return await this.#call(what, signal, async () => {
        this.#requireBucket(bucket);
        await this.#transfer(bodySizeBytes(body), signal, what);
        const sent = await this.#damagedBody(body);
        if (this.#happens(this.#faults.applyLate)) {
          // The caller gets its buffers back with the error.
          const kept: ObjectBody = { kind: 'bytes', chunks: [await readBody(sent)] };
          throw this.#defer(what, () => this.#put(bucket, name, kept, over));
        }
        const outcome = await this.#put(bucket, name, sent, over, signal);
        written = outcome === 'written';
        return outcome === 'replaced' ? 'written' : outcome;
      });
    } catch (error) {
      if (written) this.#lag(this.#halfVisibleUntilMs, `${bucket}/${name}`, this.#faults.halfVisibleMsMax);
      throw error;
    }
  }

  async #put(bucket: string, name: string, body: ObjectBody, over: boolean, signal?: AbortSignal): Promise<'written' | 'replaced' | 'exists'> {
    const key = `${bucket}/${name}`;
    const replaces = over && (await this.#inner.head(bucket, name, signal)).kind === 'found';
    const deletes = replaces || (this.#isHidden(key) && this.#happens(this.#faults.blindPut));
    if (deletes) await this.#inner.delete(bucket, name, signal);
    // Who gives up in between does not leave nothing.
    const outcome = await this.#inner.put(bucket, name, body, deletes ? undefined : signal);
    // What was shown is not hidden by bytes that come over it.
    if (replaces) return 'replaced';
    if (outcome === 'written') {
      this.#lag(this.#visibleAtMs, key, this.#faults.visibleLagMsMax);
      this.#lag(this.#listedAtMs, key, this.#faults.listLagMsMax);
      this.#forgottenAtMs.delete(key);
      this.#undead.delete(key);
    }
    return outcome;
  }

  get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
    const what = `get ${bucket}/${name}`;
    return this.#call<GetOutcome>(what, signal, async () => {
      const outcome = await this.#seen(bucket, name, range, signal);
      if (outcome.kind === 'absent') return outcome;
      await this.#transfer(outcome.bytes.byteLength, signal, what);
      return { kind: 'found', bytes: this.#damaged(outcome.bytes, this.#faults.truncateGet, this.#faults.flipGet) };
    });
  }

  async #seen(bucket: string, name: string, range: ByteRange | undefined, signal: AbortSignal | undefined): Promise<GetOutcome> {
    const key = `${bucket}/${name}`;
    const outcome = await this.#inner.get(bucket, name, range, signal);
    if (outcome.kind === 'found') return this.#isHidden(key) || this.#happens(this.#faults.waver) ? { kind: 'absent' } : outcome;
    const bytes = this.#undeadBytes(key);
    if (bytes === null) return outcome;
    const part = range === undefined ? bytes : bytes.subarray(range.offsetBytes, range.offsetBytes + range.lengthBytes);
    return { kind: 'found', bytes: Buffer.from(part) };
  }

  head(bucket: string, name: string, signal?: AbortSignal): Promise<{ kind: 'found'; sizeBytes: number } | { kind: 'absent' }> {
    return this.#call<{ kind: 'found'; sizeBytes: number } | { kind: 'absent' }>(`head ${bucket}/${name}`, signal, async () => {
      const key = `${bucket}/${name}`;
      const outcome = await this.#inner.head(bucket, name, signal);
      if (outcome.kind === 'found') return this.#isHidden(key) || this.#happens(this.#faults.waver) ? { kind: 'absent' } : outcome;
      const bytes = this.#undeadBytes(key);
      return bytes === null ? outcome : { kind: 'found', sizeBytes: bytes.byteLength };
    });
  }

  delete(bucket: string, name: string, signal?: AbortSignal): Promise<void> {
    const what = `delete ${bucket}/${name}`;
    return this.#call(what, signal, async () => {
      if (this.#happens(this.#faults.applyLate)) throw this.#defer(what, () => this.#delete(bucket, name));
      await this.#delete(bucket, name, signal);
    });
  }

  deleteMany(bucket: string, names: readonly string[], signal?: AbortSignal): Promise<void> {
    const what = `delete ${names.length} objects of ${bucket}`;
    return this.#call(what, signal, async () => {
      const deleteAll = async (attempt?: AbortSignal): Promise<void> => {
        for (const name of names) await this.#delete(bucket, name, attempt);
      };
      if (this.#happens(this.#faults.applyLate)) throw this.#defer(what, () => deleteAll());
      await deleteAll(signal);
    });
  }

  async #delete(bucket: string, name: string, signal?: AbortSignal): Promise<void> {
    const key = `${bucket}/${name}`;
    const { undeadMsMax, listLagMsMax } = this.#faults;
    const wasThere = (await this.#inner.head(bucket, name, signal)).kind === 'found';
    const wasListed = wasThere && !this.#pending(this.#listedAtMs, key);
    const shown: GetOutcome =
      undeadMsMax > 0 && wasThere && !this.#isHidden(key) ? await this.#inner.get(bucket, name, undefined, signal) : { kind: 'absent' };
    await this.#inner.delete(bucket, name, signal);
    for (const times of [this.#visibleAtMs, this.#halfVisibleUntilMs, this.#listedAtMs]) times.delete(key);
    if (wasListed) this.#lag(this.#forgottenAtMs, key, listLagMsMax);
    if (shown.kind === 'found')
      this.#undead.set(key, { untilMs: this.#clock.monotonicMs() + this.#random.fraction() * undeadMsMax, bytes: shown.bytes });
  }

  list(bucket: string, prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    return this.#call(`list ${bucket}`, signal, async () => {
      this.#requireBucket(bucket);
      const names: string[] = [];
      // The inner pages are read through, so that names left out and put back cannot make a page empty or too long.
      for (let from = after; ;) {
        const inner = await this.#inner.list(bucket, prefix, from, limit, signal);
        names.push(...inner.names.filter((name) => !this.#pending(this.#listedAtMs, `${bucket}/${name}`)));
        if (!inner.more || names.length > limit) break;
        from = inner.names.at(-1) ?? from;
      }
      if (names.length > 0 && this.#happens(this.#faults.waver)) names.splice(Math.floor(this.#random.fraction() * names.length), 1);
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
    if (this.#late.length > 0) await this.#applyLate();
    const result = await request();
    if (this.#happens(faults.loseAnswer)) throw new StoreError('retry', `${what}: injected loss of the answer`);
    return result;
  }

  /** The error to answer with when an effect is put off. */
  #defer(what: string, apply: () => Promise<unknown>): StoreError {
    this.#late.push({ atMs: this.#clock.monotonicMs() + this.#random.fraction() * this.#faults.applyLateMsMax, apply });
    return new StoreError('retry', `${what}: injected late effect`);
  }

  /** Effects come late, but before the first call that could see that they are too late. */
  async #applyLate(): Promise<void> {
    const nowMs = this.#clock.monotonicMs();
    const due = this.#late.filter((effect) => effect.atMs <= nowMs).sort((a, b) => a.atMs - b.atMs);
    this.#late = this.#late.filter((effect) => effect.atMs > nowMs);
    for (const effect of due) {
      try {
        await effect.apply();
      } catch (error) {
        // Its bucket is gone: nobody is there to be told.
        if (!(error instanceof StoreError) || error.class !== 'absent') throw error;
      }
    }
  }

  /** Waits until `bytes` have passed behind what was sent before. */
  async #transfer(bytes: number, signal: AbortSignal | undefined, what: string): Promise<void> {
    const { bytesPerSecond } = this.#faults;
    if (bytesPerSecond === 0 || bytes === 0) return;
    const nowMs = this.#clock.monotonicMs();
    this.#pipeFreeMs = Math.max(nowMs, this.#pipeFreeMs) + (bytes / bytesPerSecond) * 1000;
    await pause(this.#clock, this.#pipeFreeMs - nowMs, signal, what);
  }

  #requireBucket(bucket: string): void {
    if (this.#pending(this.#bucketAtMs, bucket)) throw new StoreError('absent', `bucket ${bucket} does not exist (injected lag)`);
  }

  async #hasBucket(bucket: string): Promise<boolean> {
    try {
      await this.#inner.list(bucket, '', '', 1);
      return true;
    } catch (error) {
      if (error instanceof StoreError && error.class === 'absent') return false;
      throw error;
    }
  }

  /** Whether this call does not see an object that is there. */
  #isHidden(key: string): boolean {
    if (this.#pending(this.#visibleAtMs, key)) return true;
    return this.#pending(this.#halfVisibleUntilMs, key) && this.#happens(0.5);
  }

  #undeadBytes(key: string): Buffer | null {
    const undead = this.#undead.get(key);
    if (undead === undefined) return null;
    if (undead.untilMs > this.#clock.monotonicMs()) return undead.bytes;
    this.#undead.delete(key);
    return null;
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
