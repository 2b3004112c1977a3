/**
 * Finds out by trying whether a store can hold a vPool, and how well: what it says about itself is not believed. Works in a bucket of its own, which
 * it removes again. Every call is bounded, transient failures are tried again a few times.
 */
import type { Clock, Random } from '../../server/core/time.ts';
import { type ObjectStore, StoreError } from '../object-store.ts';
import type { ProbeFigures, ProbeFinding, ProbeReport } from './probe-report.ts';

/** A store with connections of its own. */
export interface ProbedStore extends AsyncDisposable {
  readonly store: ObjectStore;
}

export interface ProbeComponents {
  /** Makes another store on the same backend. `conditionalPut` is for stores that have the choice. */
  readonly open: (conditionalPut: boolean) => Promise<ProbedStore>;
  /** Whether the store has a choice of conditional or plain puts. */
  readonly hasConditionalPut: boolean;
  /** The backend's clock minus ours, in milliseconds; rejects when it does not answer. Null: it has none. */
  readonly clockSkewMs: ((signal: AbortSignal) => Promise<number | null>) | null;
  readonly clock: Clock;
  readonly random: Random;
  /** Is told what comes next, for people. */
  readonly progress: (text: string) => void;
  /** Ends the probe early; it still cleans up. */
  readonly signal?: AbortSignal | undefined;
}

export interface ProbeSettings {
  /** Bucket to make and remove. */
  readonly bucket: string;
  /** quick: some seconds, for a vPool that is made on the way. none: the medium is not measured, for a local directory. */
  readonly effort: 'full' | 'quick' | 'none';
  /** A clock that is off by more than this is a reason to refuse (S3 refuses the requests themselves); null: never. */
  readonly clockSkewMsMax: number | null;
}

const KIB = 1024;
const MIB = 1024 * KIB;
const CALL_MS_MAX = 30_000;
const CLOCK_MS_MAX = 5000;
const ATTEMPTS = 4;
const FIRST_DELAY_MS = 200;
/** What the engine waits for an object that it just wrote (put-verified.ts). */
const VISIBLE_MS_MAX = 30_000;
const POLL_MS = 50;
const LAG_OBJECTS = 5;
/** A shorter lag is not worth a word. */
const LAG_MS_NOTABLE = 1000;
const WRITERS = 8;
const PARALLEL = 4;
const CLEANUP_ATTEMPTS = 5;
const SKEW_MS_NOTABLE = 120_000;
const SLOW_BYTES_PER_SECOND = 5 * MIB;
const EFFORTS = {
  full: { rounds: 8, latencies: 20, objectBytes: 16 * MIB },
  quick: { rounds: 3, latencies: 5, objectBytes: 4 * MIB },
  none: { rounds: 3, latencies: 0, objectBytes: 0 },
} as const;
const INTERRUPTED = 'the probe was interrupted';
/** With its bucket in front (prefix-layout/) a name has at most this many characters. */
const NAME_LENGTH_MAX = 200;
/** What is in names of the engine. */
const NAMES = ['vf-pool-0123456789abcdef0123456789abcdef.seg-0000000042-1-23-00ff00ff00ff00ff', 'A_b.c-d'];

/** Never rejects for what the store does: that is in the report. */
export async function probeStore(components: ProbeComponents, settings: ProbeSettings): Promise<ProbeReport> {
  const probe = new Probe(components, settings);
  await probe.run();
  return probe.report();
}

/** The rest of the probe makes no sense; the finding says why. */
class Unfit extends Error {}

class Probe {
  readonly #components: ProbeComponents;
  readonly #settings: ProbeSettings;
  readonly #findings: ProbeFinding[] = [];
  readonly #names = new Set<string>();
  readonly #figures: { -readonly [K in keyof ProbeFigures]: ProbeFigures[K] } = {
    readAfterWriteMs: null,
    listAfterWriteMs: null,
    clockSkewMs: null,
    putMs: null,
    getMs: null,
    uploadBytesPerSecond: null,
    downloadBytesPerSecond: null,
  };
  readonly #opened: ProbedStore[] = [];
  #store: ObjectStore | null = null;
  #conditionalPut: boolean;
  #atomic = false;
  #madeBucket = false;

  constructor(components: ProbeComponents, settings: ProbeSettings) {
    this.#components = components;
    this.#settings = settings;
    this.#conditionalPut = components.hasConditionalPut;
  }

  report(): ProbeReport {
    const has = (weight: ProbeFinding['weight']): boolean => this.#findings.some((finding) => finding.weight === weight);
    const fence = this.#atomic && this.#store?.putIsAtomic === true ? 'backend' : 'registry';
    return {
      verdict: has('unfit') ? 'unfit' : has('but') ? 'fit-but' : 'fit',
      findings: this.#findings,
      fence,
      conditionalPut: this.#conditionalPut && fence === 'backend',
      figures: this.#figures,
    };
  }

  async run(): Promise<void> {
    const effort = EFFORTS[this.#settings.effort];
    try {
      await this.#skew();
      this.#components.progress(`making bucket ${this.#settings.bucket}`);
      await this.#makeStore();
      await this.#call('make a bucket', (store, signal) => store.createBucket(this.#settings.bucket, signal));
      this.#madeBucket = true;
      if (this.#conditionalPut) await this.#tryConditionalPut();
      await this.#contents();
      await this.#lags();
      await this.#race(effort.rounds);
      if (effort.latencies > 0) await this.#latency(effort.latencies);
      if (effort.objectBytes > 0) await this.#throughput(effort.objectBytes);
      await this.#deletes();
    } catch (error) {
      if (!(error instanceof Unfit)) throw error;
      this.#find('unfit', error.message);
    } finally {
      await this.#cleanUp();
    }
  }

  async #skew(): Promise<void> {
    const { clockSkewMs, progress } = this.#components;
    if (clockSkewMs === null) return;
    progress('asking for its time');
    let skewMs: number | null = null;
    try {
      skewMs = await this.#interruptible(clockSkewMs, CLOCK_MS_MAX);
    } catch {
      // Why nothing answers the store says better, with its next call.
    }
    this.#figures.clockSkewMs = skewMs;
    const off = Math.abs(skewMs ?? 0);
    const { clockSkewMsMax } = this.#settings;
    if (clockSkewMsMax !== null && off > clockSkewMsMax) {
      throw new Unfit(
        `its clock and this machine's differ by ${Math.round(off / 1000)} s, and it refuses requests from more than ${clockSkewMsMax / 1000} s away: set the clock (NTP)`,
      );
    }
    if (off > SKEW_MS_NOTABLE) this.#find('but', `its clock and this machine's differ by ${Math.round(off / 1000)} s: set the clock (NTP)`);
  }

  /** The conditional put must work, refuse a second one, and leave the first in place; otherwise puts are plain from here on. */
  async #tryConditionalPut(): Promise<void> {
    const [first, second] = [this.#bytes(100), this.#bytes(100)];
    let why: string;
    try {
      await this.#put('conditional', first);
      if ((await this.#put('conditional', second)) === 'exists') return;
      why = 'ignores the header If-None-Match and overwrites';
    } catch (error) {
      if (!(error instanceof Unfit)) throw error;
      // If a plain put fails too, that one says why.
      why = 'refuses the header If-None-Match';
    }
    this.#conditionalPut = false;
    await this.#makeStore();
    await this.#put('plain', first);
    this.#find('but', `it ${why}: two routers that believe to own the same disk are kept apart by the registry alone`);
  }

  /** Bytes come back as they were, whole and in part; names of every form; what is there twice. */
  async #contents(): Promise<void> {
    this.#components.progress('writing and reading back');
    const body = this.#bytes(300 * KIB);
    await this.#put('content', body);
    const whole = await this.#getVisible('content');
    if (!whole.equals(body)) throw new Unfit(`an object of ${body.byteLength} bytes came back different (${whole.byteLength} bytes)`);
    for (const [offsetBytes, lengthBytes] of [
      [4096, 4096],
      [1, 65_537],
      [body.byteLength - 10, 100],
      [body.byteLength + 5, 10],
    ] as const) {
      const expected = body.subarray(offsetBytes, offsetBytes + lengthBytes);
      const part = await this.#again(
        () =>
          this.#call('read a part of an object', (store, signal) =>
            store.get(this.#settings.bucket, 'content', { offsetBytes, lengthBytes }, signal),
          ),
        (answer) => answer.kind === 'found' && answer.bytes.equals(expected),
      );
      if (part.kind !== 'found' || !part.bytes.equals(expected)) {
        const got = part.kind === 'found' ? `${part.bytes.byteLength} bytes` : 'nothing';
        throw new Unfit(
          `it does not serve ranges: asked for ${lengthBytes} bytes at ${offsetBytes} of ${body.byteLength}, it gave ${got} instead of these ${expected.byteLength}`,
        );
      }
    }
    const head = await this.#again(
      () => this.#call('look at an object', (store, signal) => store.head(this.#settings.bucket, 'content', signal)),
      (answer) => answer.kind === 'found' && answer.sizeBytes === body.byteLength,
    );
    if (head.kind !== 'found' || head.sizeBytes !== body.byteLength) {
      throw new Unfit(`HEAD says ${head.kind === 'found' ? `${head.sizeBytes} bytes` : 'absent'} of an object of ${body.byteLength} bytes`);
    }
    for (const name of [...NAMES, 'x'.repeat(NAME_LENGTH_MAX - 1 - this.#settings.bucket.length)]) {
      const content = this.#bytes(10);
      await this.#put(name, content);
      if (!(await this.#getVisible(name)).equals(content)) throw new Unfit(`it mixes up the name ${name}`);
    }
    const again = await this.#put('content', this.#bytes(20));
    const now = await this.#getVisible('content');
    if (again === 'exists' && !now.equals(body)) throw new Unfit('it said that an object exists, and overwrote it all the same');
    if (again === 'written') this.#find('note', 'a second put of the same name overwrites; vferry never writes a name twice');
  }

  /** How long a new object stays invisible to get and to list. */
  async #lags(): Promise<void> {
    this.#components.progress('looking how soon new objects are visible');
    const { clock } = this.#components;
    let [readMs, listMs] = [0, 0];
    for (let index = 0; index < LAG_OBJECTS; index += 1) {
      const name = `lag-${index}`;
      await this.#put(name, this.#bytes(64));
      const writtenMs = clock.monotonicMs();
      await this.#getVisible(name, (waitedMs) => (readMs = Math.max(readMs, waitedMs)));
      for (let looks = 0; ; looks += 1) {
        const page = await this.#call('list a bucket', (store, signal) => store.list(this.#settings.bucket, 'lag-', '', 100, signal));
        if (page.names.includes(name)) {
          if (looks > 0) listMs = Math.max(listMs, clock.monotonicMs() - writtenMs);
          break;
        }
        if (clock.monotonicMs() - writtenMs > VISIBLE_MS_MAX) {
          listMs = Infinity;
          break;
        }
        await clock.sleep(POLL_MS);
      }
      if (listMs === Infinity) break;
    }
    if (listMs !== Infinity) await this.#pages();
    this.#figures.readAfterWriteMs = readMs;
    this.#figures.listAfterWriteMs = listMs === Infinity ? null : listMs;
    if (readMs > LAG_MS_NOTABLE) this.#find('but', `a new object is visible only after ${Math.round(readMs)} ms; uploads take that much longer`);
    if (listMs === Infinity)
      this.#find('but', `a new object is not in a listing after ${VISIBLE_MS_MAX / 1000} s; a rebuild would not find what is new`);
    else if (listMs > LAG_MS_NOTABLE) this.#find('but', `a new object is in a listing only after ${Math.round(listMs)} ms`);
  }

  /** What is deleted later is found by listing: in order, page by page, by prefix. */
  async #pages(): Promise<void> {
    const expected = Array.from({ length: LAG_OBJECTS }, (_, index) => `lag-${index}`);
    const listed: string[] = [];
    for (let more = true; more && listed.length <= LAG_OBJECTS;) {
      const after = listed.at(-1) ?? '';
      const page = await this.#call('list a bucket', (store, signal) => store.list(this.#settings.bucket, 'lag-', after, 2, signal));
      listed.push(...page.names);
      more = page.more && page.names.length > 0;
    }
    // A listing that forgets what it showed is one that lags; one that repeats, or mixes up, is none.
    if (listed.every((name, index) => expected.includes(name) && name > (listed[index - 1] ?? ''))) return;
    throw new Unfit(`it does not list by prefix, in order and page by page: ${listed.slice(0, 10).join(', ')} instead of ${expected.join(', ')}`);
  }

  /** Writers with connections of their own put different bodies under one name, all at once: exactly one may win. */
  async #race(rounds: number): Promise<void> {
    this.#components.progress(`${WRITERS} writers at a time create the same object, ${rounds} times`);
    const writers: ObjectStore[] = [];
    for (let index = 0; index < WRITERS; index += 1) writers.push((await this.#open()).store);
    let [judged, bad] = [0, 0];
    for (let round = 0; round < rounds; round += 1) {
      const name = this.#named(`race-${round}`);
      const bodies = writers.map(() => this.#bytes(round % 2 === 0 ? 64 : 256 * KIB));
      const outcomes = await Promise.all(
        writers.map(async (store, index) => {
          const body = { kind: 'bytes', chunks: [bodies[index] ?? Buffer.alloc(0)] } as const;
          try {
            return await this.#interruptible((signal) => store.put(this.#settings.bucket, name, body, signal));
          } catch (error) {
            if (error instanceof StoreError) return 'unknown';
            throw error;
          }
        }),
      );
      const winners = outcomes.flatMap((outcome, index) => (outcome === 'written' ? [index] : []));
      if (this.#components.signal?.aborted === true) throw new Unfit(INTERRUPTED);
      if (outcomes.every((outcome) => outcome === 'unknown')) continue;
      judged += 1;
      const stored = await this.#getVisible(name);
      const holder = bodies.findIndex((body) => body.equals(stored));
      // A lost answer may hide the winner, never a second one.
      const fine = holder !== -1 && (winners.length === 1 ? winners[0] === holder : winners.length === 0 && outcomes[holder] === 'unknown');
      if (!fine) bad += 1;
    }
    this.#atomic = judged > 0 && bad === 0;
    if (this.#atomic && this.#store?.putIsAtomic === true) return;
    const claims = this.#store?.putIsAtomic === true;
    if (claims && bad > 0) {
      if (!this.#conditionalPut)
        throw new Unfit(`creating an object only if it is absent failed in ${bad} of ${judged} rounds: another writer was overwritten`);
      this.#find(
        'but',
        `creating an object only if it is absent is not atomic there (${bad} of ${judged} rounds): two routers that believe to own the same disk are kept apart by the registry alone`,
      );
    } else if (claims) {
      this.#find(
        'but',
        'whether creating an object only if it is absent is atomic could not be found out; the registry alone keeps two routers apart',
      );
    } else if (!this.#findings.some(({ weight }) => weight === 'but')) {
      this.#find(
        'note',
        'the store cannot create an object atomically: two routers that believe to own the same disk are kept apart by the registry alone',
      );
    }
  }

  async #latency(count: number): Promise<void> {
    this.#components.progress('measuring latency');
    const puts: number[] = [];
    const gets: number[] = [];
    for (let index = 0; index < count; index += 1) {
      const body = this.#bytes(4 * KIB);
      puts.push(await this.#timed(() => this.#put(`latency-${index}`, body)));
      gets.push(await this.#timed(() => this.#getVisible(`latency-${index}`)));
    }
    this.#figures.putMs = median(puts);
    this.#figures.getMs = median(gets);
  }

  async #throughput(objectBytes: number): Promise<void> {
    this.#components.progress(`measuring throughput with ${PARALLEL} objects of ${objectBytes / MIB} MiB at a time`);
    const bodies = Array.from({ length: PARALLEL }, () => this.#bytes(objectBytes));
    const all = PARALLEL * objectBytes * 1000;
    const upMs = await this.#timed(() => Promise.all(bodies.map((body, index) => this.#put(`large-${index}`, body))));
    for (const index of bodies.keys()) await this.#getVisible(`large-${index}`, undefined, true);
    const downMs = await this.#timed(() =>
      Promise.all(
        bodies.map(async (body, index) => {
          if (!(await this.#getVisible(`large-${index}`)).equals(body)) throw new Unfit(`an object of ${objectBytes / MIB} MiB came back different`);
        }),
      ),
    );
    this.#figures.uploadBytesPerSecond = Math.round(all / upMs);
    this.#figures.downloadBytesPerSecond = Math.round(all / downMs);
    for (const [bytes, way] of [
      [all / upMs, 'upload'],
      [all / downMs, 'download'],
    ] as const) {
      if (bytes < SLOW_BYTES_PER_SECOND)
        this.#find('but', `${way} is slow: ${(bytes / 1e6).toPrecision(2)} MB/s; sustained writes of guests will be no faster`);
    }
  }

  async #deletes(): Promise<void> {
    this.#components.progress('deleting');
    const { clock } = this.#components;
    await this.#call('delete an object', (store, signal) => store.delete(this.#settings.bucket, 'content', signal));
    const startedMs = clock.monotonicMs();
    for (;;) {
      const found = await this.#call('look for a deleted object', (store, signal) => store.head(this.#settings.bucket, 'content', signal));
      if (found.kind === 'absent') return;
      if (clock.monotonicMs() - startedMs > VISIBLE_MS_MAX) {
        this.#find('but', `a deleted object is still there after ${VISIBLE_MS_MAX / 1000} s (versioning, retention?): space may never be freed`);
        return;
      }
      await clock.sleep(POLL_MS);
    }
  }

  async #cleanUp(): Promise<void> {
    const { bucket } = this.#settings;
    try {
      if (this.#store !== null) await this.#removeBucket(this.#store);
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
      // A bucket that was refused is not there.
      if (this.#madeBucket) this.#find('but', `the probe could not clean up: delete bucket ${bucket} yourself (${(error as Error).message})`);
    }
    for (const opened of this.#opened) await opened[Symbol.asyncDispose]();
  }

  async #removeBucket(store: ObjectStore): Promise<void> {
    const { bucket } = this.#settings;
    for (let attempt = 1; ; attempt += 1) {
      try {
        await this.#bounded((signal) => store.deleteMany(bucket, [...this.#names], signal));
        await this.#bounded((signal) => store.deleteBucket(bucket, signal));
        return;
      } catch (error) {
        if (!(error instanceof StoreError) || attempt === CLEANUP_ATTEMPTS || !this.#madeBucket) throw error;
        await this.#components.clock.sleep(FIRST_DELAY_MS * 2 ** attempt);
      }
    }
  }

  async #makeStore(): Promise<void> {
    this.#store = (await this.#open()).store;
  }

  async #open(): Promise<ProbedStore> {
    const opened = await this.#components.open(this.#conditionalPut);
    this.#opened.push(opened);
    return opened;
  }

  async #put(name: string, body: Buffer): Promise<'written' | 'exists'> {
    this.#named(name);
    let again = false;
    const outcome = await this.#call('write an object', (store, signal) => {
      const first = !again;
      again = true;
      return store
        .put(this.#settings.bucket, name, { kind: 'bytes', chunks: [body] }, signal)
        .then((said) => (said === 'exists' && !first ? 'written' : said));
    });
    return outcome;
  }

  /** Waits until the object is there; `waited` is told how long it was not, if it was not at once. `headOnly` answers no bytes. */
  async #getVisible(name: string, waited?: (ms: number) => void, headOnly = false): Promise<Buffer> {
    const { clock } = this.#components;
    const startedMs = clock.monotonicMs();
    for (let looks = 0; ; looks += 1) {
      const outcome = await this.#call<{ kind: 'found'; bytes?: Buffer } | { kind: 'absent' }>('read an object', (store, signal) =>
        headOnly ? store.head(this.#settings.bucket, name, signal) : store.get(this.#settings.bucket, name, undefined, signal),
      );
      const elapsedMs = clock.monotonicMs() - startedMs;
      if (outcome.kind === 'found') {
        if (looks > 0) waited?.(elapsedMs);
        return outcome.bytes ?? Buffer.alloc(0);
      }
      if (elapsedMs > VISIBLE_MS_MAX) throw new Unfit(`an object that it took is not there after ${VISIBLE_MS_MAX / 1000} s`);
      await clock.sleep(POLL_MS);
    }
  }

  /** What was there a moment ago may waver: one wrong answer is none. The last answer, if none was right. */
  async #again<T>(ask: () => Promise<T>, isRight: (answer: T) => boolean): Promise<T> {
    for (let look = 1; ; look += 1) {
      const answer = await ask();
      if (isRight(answer) || look === ATTEMPTS) return answer;
      await this.#components.clock.sleep(FIRST_DELAY_MS * 2 ** (look - 1));
    }
  }

  /** Transient failures are tried again, and so is a bucket that is not there yet. @throws Unfit */
  async #call<T>(what: string, call: (store: ObjectStore, signal: AbortSignal) => Promise<T>): Promise<T> {
    const store = this.#store;
    if (store === null) throw new Unfit('there is no store');
    const startedMs = this.#components.clock.monotonicMs();
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#interruptible((signal) => call(store, signal));
      } catch (error) {
        if (!(error instanceof StoreError)) throw error;
        if (this.#components.signal?.aborted === true) throw new Unfit(INTERRUPTED);
        if (error.class === 'absent' && this.#madeBucket && this.#components.clock.monotonicMs() - startedMs < VISIBLE_MS_MAX) {
          attempt = 0;
          await this.#components.clock.sleep(POLL_MS);
          continue;
        }
        if (error.class !== 'retry' || attempt === ATTEMPTS) throw new Unfit(`it cannot ${what}: ${error.message}`);
        await this.#components.clock.sleep(FIRST_DELAY_MS * 2 ** (attempt - 1));
      }
    }
  }

  #interruptible<T>(call: (signal: AbortSignal) => Promise<T>, withinMs = CALL_MS_MAX): Promise<T> {
    const { signal } = this.#components;
    return this.#bounded((bound) => call(signal === undefined ? bound : AbortSignal.any([bound, signal])), withinMs);
  }

  async #bounded<T>(call: (signal: AbortSignal) => Promise<T>, withinMs = CALL_MS_MAX): Promise<T> {
    const controller = new AbortController();
    const cancel = this.#components.clock.after(withinMs, () => controller.abort(new Error(`no answer within ${withinMs / 1000} s`)));
    try {
      return await call(controller.signal);
    } finally {
      cancel();
    }
  }

  async #timed(work: () => Promise<unknown>): Promise<number> {
    const startedMs = this.#components.clock.monotonicMs();
    await work();
    return Math.max(0.001, this.#components.clock.monotonicMs() - startedMs);
  }

  #bytes(count: number): Buffer {
    return this.#components.random.bytes(count);
  }

  #named(name: string): string {
    this.#names.add(name);
    return name;
  }

  #find(weight: ProbeFinding['weight'], text: string): void {
    this.#findings.push({ weight, text });
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((first, second) => first - second)[Math.floor(values.length / 2)] ?? 0;
}
