import assert from 'node:assert/strict';
import { test } from 'node:test';

import { systemRandom } from '../../server/core/node-time.ts';
import { FaultyStore, type StoreFaults } from '../faulty-store.ts';
import { MemoryStore } from '../memory/memory-store.ts';
import { type ByteRange, type GetOutcome, type ObjectBody, type ObjectStore, StoreError } from '../object-store.ts';
import { VirtualClock } from '../virtual-clock.ts';
import { type ProbeReport, probeText } from './probe-report.ts';
import { probeStore, type ProbeSettings } from './probe.ts';

const MINUTE = 60_000;

interface Scenario {
  /** Makes a store of the backend; called for every store that the probe opens. */
  readonly open: (conditionalPut: boolean) => ObjectStore;
  readonly hasConditionalPut?: boolean;
  readonly clockSkewMs?: (signal: AbortSignal) => Promise<number | null>;
  readonly settings?: Partial<ProbeSettings>;
  readonly clock?: VirtualClock;
  /** Called with each step; what it aborts ends the probe. */
  readonly step?: (text: string, interrupt: AbortController) => void;
}

/** The report, with every text joined for matching; every store that was opened must have been closed. */
async function probed(scenario: Scenario): Promise<ProbeReport & { readonly text: string; readonly tookMs: number }> {
  const clock = scenario.clock ?? new VirtualClock();
  const startedMs = clock.monotonicMs();
  let open = 0;
  const interrupt = new AbortController();
  const report = await clock.run(
    probeStore(
      {
        async open(conditionalPut) {
          open += 1;
          return {
            store: scenario.open(conditionalPut),
            async [Symbol.asyncDispose]() {
              open -= 1;
            },
          };
        },
        hasConditionalPut: scenario.hasConditionalPut ?? false,
        clockSkewMs: scenario.clockSkewMs ?? null,
        clock,
        random: systemRandom,
        progress: (text) => scenario.step?.(text, interrupt),
        signal: interrupt.signal,
      },
      { bucket: 'vf-probe', effort: 'quick', clockSkewMsMax: null, ...scenario.settings },
    ),
  );
  assert.equal(open, 0, 'a store was left open');
  assert.equal(clock.pending, 0, 'a timer was left');
  return { ...report, text: probeText(report), tookMs: clock.monotonicMs() - startedMs };
}

/** A store that misbehaves as told, over one that the test looks at. */
function faulty(faults: Partial<StoreFaults>): { inner: MemoryStore; clock: VirtualClock; open: () => ObjectStore } {
  const clock = new VirtualClock();
  const inner = new MemoryStore();
  const store = new FaultyStore({ inner, clock, random: systemRandom }, faults);
  return { inner, clock, open: () => store };
}

/** A store whose put can replace: `check` looks first whether the name is taken. Between look and write there is time. */
class PlainStore extends MemoryStore {
  readonly #claims: boolean;
  readonly #check: boolean;

  constructor(options: { claims: boolean; check: boolean }) {
    super();
    this.#claims = options.claims;
    this.#check = options.check;
  }

  override async put(bucket: string, name: string, body: ObjectBody, signal?: AbortSignal): Promise<'written' | 'exists'> {
    if (this.#check && (await this.head(bucket, name)).kind === 'found') return 'exists';
    for (let turns = 0; turns < 100; turns += 1) await Promise.resolve();
    for (;;) {
      await this.delete(bucket, name);
      if ((await super.put(bucket, name, body, signal)) === 'written') return 'written';
    }
  }

  as(): ObjectStore {
    const claims = this.#claims;
    return new Proxy<ObjectStore>(this, {
      get: (target, property) => {
        if (property === 'putIsAtomic') return claims;
        const value: unknown = Reflect.get(target, property, target);
        return typeof value === 'function' ? (value.bind(target) as unknown) : value;
      },
    });
  }
}

test('a store that does what it should is fit, and nothing is left on it', async () => {
  const store = new MemoryStore();
  const report = await probed({ open: () => store });
  assert.deepEqual([report.verdict, report.fence, report.findings], ['fit', 'backend', []]);
  assert.deepEqual(await store.listBuckets('', 10), { names: [], more: false });
  const { clockSkewMs, ...measured } = report.figures;
  assert.equal(clockSkewMs, null);
  for (const [name, value] of Object.entries(measured)) assert.ok(value !== null && Number.isFinite(value), name);
  assert.match(report.text, /^fit\nfence {7}backend: /);
});

test('effort none measures no speed', async () => {
  const store = new MemoryStore();
  const { figures } = await probed({ open: () => store, settings: { effort: 'none' } });
  assert.deepEqual([figures.putMs, figures.getMs, figures.uploadBytesPerSecond, figures.downloadBytesPerSecond], [null, null, null, null]);
  assert.equal(figures.readAfterWriteMs, 0);
});

test('a store that looks and then writes, like Swift, is fit, and its fence is the registry', async () => {
  const store = new PlainStore({ claims: false, check: true });
  const report = await probed({ open: () => store.as() });
  assert.deepEqual([report.verdict, report.fence], ['fit', 'registry']);
  assert.match(report.text, /note {8}the store cannot create an object atomically/);
});

test('a store that claims to be atomic and is not is unfit when it has no other way', async () => {
  const store = new PlainStore({ claims: true, check: true });
  const report = await probed({ open: () => store.as() });
  assert.deepEqual([report.verdict, report.fence], ['unfit', 'registry']);
  assert.match(report.text, /^unfit, because creating an object only if it is absent failed in \d of 3 rounds: another writer was overwritten$/m);
});

test('a conditional put that is honoured makes the backend the fence', async () => {
  const store = new MemoryStore();
  const asked: boolean[] = [];
  const open = (conditionalPut: boolean): ObjectStore => {
    asked.push(conditionalPut);
    return store;
  };
  const report = await probed({ open, hasConditionalPut: true });
  assert.deepEqual([report.verdict, report.fence, report.conditionalPut], ['fit', 'backend', true]);
  assert.ok(asked.every(Boolean));
});

test('a conditional put that is ignored is not used: fit, but only the registry is the fence', async () => {
  const store = new PlainStore({ claims: true, check: false });
  const plain = new Proxy(store.as(), { get: (target, property): unknown => (property === 'putIsAtomic' ? false : Reflect.get(target, property)) });
  const report = await probed({ open: (conditionalPut) => (conditionalPut ? store.as() : plain), hasConditionalPut: true });
  assert.deepEqual([report.verdict, report.fence, report.conditionalPut], ['fit-but', 'registry', false]);
  assert.match(report.text, /^fit, but it ignores the header If-None-Match and overwrites: two routers/);
  assert.match(report.text, /a second put of the same name overwrites/);
});

test('a conditional put that is refused is not used', async () => {
  const store = new PlainStore({ claims: false, check: false });
  const put = (): Promise<never> => Promise.reject(new StoreError('denied', '501 NotImplemented'));
  const refusing = new Proxy(store.as(), { get: (target, property): unknown => (property === 'put' ? put : Reflect.get(target, property)) });
  const report = await probed({
    open: (conditionalPut) => (conditionalPut ? refusing : store.as()),
    hasConditionalPut: true,
  });
  assert.deepEqual([report.verdict, report.fence, report.conditionalPut], ['fit-but', 'registry', false]);
  assert.match(report.text, /^fit, but it refuses the header If-None-Match: two routers/);
});

test('a conditional put that is honoured one at a time but not in a race is not relied on', async () => {
  const store = new PlainStore({ claims: true, check: true });
  const report = await probed({ open: () => store.as(), hasConditionalPut: true });
  assert.deepEqual([report.verdict, report.fence, report.conditionalPut], ['fit-but', 'registry', false]);
  assert.match(report.text, /is not atomic there \(\d of 3 rounds\)/);
});

test('a store that ignores ranges is unfit', async () => {
  class NoRanges extends MemoryStore {
    override get(bucket: string, name: string, _range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
      return super.get(bucket, name, undefined, signal);
    }
  }
  const store = new NoRanges();
  const report = await probed({ open: () => store });
  assert.equal(report.verdict, 'unfit');
  assert.match(report.text, /^unfit, because it does not serve ranges: asked for 4096 bytes at 4096 of 307200, it gave 307200 bytes/);
  assert.equal(store.objectCount, 0);
});

test('a store that gives other bytes than it got is unfit', async () => {
  const report = await probed(faulty({ flipPut: 1 }));
  assert.match(report.text, /^unfit, because an object of 307200 bytes came back different/);
});

test('a store that says exists and overwrites is unfit', async () => {
  class Liar extends MemoryStore {
    override async put(bucket: string, name: string, body: ObjectBody): Promise<'written' | 'exists'> {
      const existed = (await this.head(bucket, name)).kind === 'found';
      await this.delete(bucket, name);
      await super.put(bucket, name, body);
      return existed ? 'exists' : 'written';
    }
  }
  const store = new Liar();
  assert.match((await probed({ open: () => store })).text, /^unfit, because it said that an object exists, and overwrote it all the same/);
});

test('a store that refuses the names of vferry is unfit', async () => {
  class ShortNames extends MemoryStore {
    override put(bucket: string, name: string, body: ObjectBody): Promise<'written' | 'exists'> {
      return name.length > 150 ? Promise.reject(new StoreError('denied', 'KeyTooLong')) : super.put(bucket, name, body);
    }
  }
  const store = new ShortNames();
  assert.match((await probed({ open: () => store })).text, /^unfit, because it cannot write an object: KeyTooLong/);
});

test('new objects that are visible late are a weakness, later than the engine waits a reason to refuse', async () => {
  const late = await probed(faulty({ visibleLagMsMax: 8000 }));
  assert.equal(late.verdict, 'fit-but');
  assert.match(late.text, /a new object is visible only after \d+ ms/);
  assert.ok((late.figures.readAfterWriteMs ?? 0) > 1000 && (late.figures.readAfterWriteMs ?? 0) < 9000);
  const never = await probed(faulty({ visibleLagMsMax: 1e9 }));
  assert.match(never.text, /^unfit, because an object that it took is not there after 30 s/);
});

test('listings that lag are a weakness, with the time they take, or without an end', async () => {
  const late = await probed(faulty({ listLagMsMax: 8000 }));
  assert.equal(late.verdict, 'fit-but');
  assert.match(late.text, /a new object is in a listing only after \d+ ms/);
  const never = await probed(faulty({ listLagMsMax: 1e9 }));
  assert.equal(never.verdict, 'fit-but');
  assert.equal(never.figures.listAfterWriteMs, null);
  assert.match(never.text, /a new object is not in a listing after 30 s/);
});

test('a store that lists without order, without prefix or without pages is unfit', async () => {
  type Page = Promise<{ names: string[]; more: boolean }>;
  class Reversed extends MemoryStore {
    override async list(bucket: string, prefix: string, after: string, limit: number): Page {
      const page = await super.list(bucket, prefix, after, limit);
      return { ...page, names: page.names.toReversed() };
    }
  }
  class NoPrefix extends MemoryStore {
    override list(bucket: string, _prefix: string, after: string, limit: number): Page {
      return super.list(bucket, '', after, limit);
    }
  }
  class NoPages extends MemoryStore {
    override list(bucket: string, prefix: string, _after: string, limit: number): Page {
      return super.list(bucket, prefix, '', limit);
    }
  }
  for (const store of [new Reversed(), new NoPrefix(), new NoPages()]) {
    assert.match((await probed({ open: () => store })).text, /^unfit, because it does not list by prefix, in order and page by page/);
  }
});

test('credentials that may do nothing are a reason to refuse, in the words of the store', async () => {
  const report = await probed(faulty({ failBefore: 1, failClass: 'denied' }));
  assert.equal(report.verdict, 'unfit');
  assert.match(report.text, /^unfit, because it cannot make a bucket: .*vf-probe/);
  assert.ok(report.tookMs < 10_000);
});

test('a store that fails now and then is fit', async () => {
  for (let round = 0; round < 3; round += 1) {
    const scenario = faulty({ failBefore: 0.03, loseAnswer: 0.03 });
    const report = await probed(scenario);
    assert.deepEqual([report.verdict, report.fence], ['fit', 'backend'], report.text);
    assert.equal(scenario.inner.objectCount, 0);
  }
});

test('a store that never answers is given up in bounded time', async () => {
  const report = await probed(faulty({ hang: 1 }));
  assert.equal(report.verdict, 'unfit');
  assert.ok(report.tookMs < 10 * MINUTE, `${report.tookMs} ms`);
});

test('a clock that is far off is a reason to refuse where requests would be, else a weakness', async () => {
  const store = new MemoryStore();
  const at = (skewMs: number, clockSkewMsMax: number | null): Promise<ProbeReport & { text: string }> =>
    probed({ open: () => store, clockSkewMs: () => Promise.resolve(skewMs), settings: { clockSkewMsMax } });
  assert.match((await at(16 * MINUTE, 15 * MINUTE)).text, /^unfit, because its clock and this machine's differ by 960 s, and it refuses/);
  assert.match((await at(-16 * MINUTE, 15 * MINUTE)).text, /^unfit, because its clock/);
  assert.match((await at(16 * MINUTE, null)).text, /^fit, but its clock and this machine's differ by 960 s: set the clock/);
  const close = await at(-3000, 15 * MINUTE);
  assert.equal(close.verdict, 'fit');
  assert.match(close.text, /^clock {7}3 s behind this machine's$/m);
});

test('a clock that cannot be asked for is not a reason to refuse: the store says itself what is wrong', async () => {
  const store = new MemoryStore();
  const clockSkewMs = (): Promise<never> => Promise.reject(new Error('connect ECONNREFUSED 127.0.0.1:1'));
  const report = await probed({ open: () => store, clockSkewMs });
  assert.deepEqual([report.verdict, report.figures.clockSkewMs], ['fit', null]);
  const silent = await probed({ open: () => store, clockSkewMs: (signal) => new Promise((_, reject) => signal.addEventListener('abort', reject)) });
  assert.equal(silent.verdict, 'fit');
  assert.ok(silent.tookMs < 10_000);
});

test('a slow store is fit, but slow', async () => {
  const report = await probed(faulty({ bytesPerSecond: 1_000_000 }));
  assert.equal(report.verdict, 'fit-but');
  assert.match(report.text, /^fit, but:\n {2}- upload is slow: 1\.0 MB\/s.*\n {2}- download is slow: 1\.0 MB\/s/);
});

test('what cannot be deleted is told: a weakness of the store, and what the probe leaves behind', async () => {
  class Keeper extends MemoryStore {
    override delete(): Promise<void> {
      return Promise.resolve();
    }
    override deleteMany(): Promise<void> {
      return Promise.resolve();
    }
  }
  const store = new Keeper();
  const report = await probed({ open: () => store });
  assert.equal(report.verdict, 'fit-but');
  assert.match(report.text, /a deleted object is still there after 30 s/);
  assert.match(report.text, /the probe could not clean up: delete bucket vf-probe yourself/);
});

test('a probe that is interrupted cleans up, at whatever step', async () => {
  const steps: string[] = [];
  const first = new MemoryStore();
  await probed({ open: () => first, step: (text) => steps.push(text), clockSkewMs: () => Promise.resolve(0) });
  assert.ok(steps.length >= 7);
  for (const at of steps) {
    const store = new MemoryStore();
    const report = await probed({
      open: () => store,
      clockSkewMs: () => Promise.resolve(0),
      step: (text, interrupt) => {
        if (text.split(' ')[0] === at.split(' ')[0]) interrupt.abort();
      },
    });
    assert.match(report.text, /^unfit, because the probe was interrupted/, at);
    assert.deepEqual(await store.listBuckets('', 10), { names: [], more: false }, at);
  }
});

test('what was written is removed when the probe fails half-way', async () => {
  class Headless extends MemoryStore {
    override head(): Promise<{ kind: 'absent' }> {
      return Promise.resolve({ kind: 'absent' });
    }
  }
  const store = new Headless();
  assert.match((await probed({ open: () => store })).text, /^unfit, because HEAD says absent/);
  assert.deepEqual(await store.listBuckets('', 10), { names: [], more: false });
});
