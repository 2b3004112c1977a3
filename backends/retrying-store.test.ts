import assert from 'node:assert/strict';
import { test } from 'node:test';

import { bytes, objectStoreConformance, readAllOf, rejectsWith } from './conformance.ts';
import { FaultyStore } from './faulty-store.ts';
import { MemoryStore } from './memory/memory-store.ts';
import { type ObjectStore, StoreError, type StoreErrorClass } from './object-store.ts';
import { RETRY_DEFAULTS, RetryingStore, type RetrySettings } from './retrying-store.ts';
import type { RetryPacer, WaitingRetry } from './store-observer.ts';
import { seededRandom, VirtualClock } from './virtual-clock.ts';

objectStoreConformance('RetryingStore', () => {
  const store = new RetryingStore({ inner: new MemoryStore(), clock: new VirtualClock(), random: seededRandom(1) });
  return Promise.resolve({ store, close: () => Promise.resolve() });
});

/** A store whose head fails with the given errors, one a call, and then finds 1 byte. */
function failing(errors: StoreErrorClass[]): { store: ObjectStore; calls: () => number } {
  let calls = 0;
  const store = new MemoryStore();
  store.head = () => {
    const errorClass = errors[calls];
    calls += 1;
    return errorClass === undefined
      ? Promise.resolve({ kind: 'found', sizeBytes: 1 })
      : Promise.reject(new StoreError(errorClass, `failure ${calls}`));
  };
  return { store, calls: () => calls };
}

function retrying(inner: ObjectStore, settings: Partial<RetrySettings>, seed = 7): { store: RetryingStore; clock: VirtualClock; delays: number[] } {
  const clock = new VirtualClock();
  const delays: number[] = [];
  const observer = { willRetry: (_what: string, _attempt: number, delayMs: number): number => delays.push(delayMs) };
  const store = new RetryingStore({ inner, clock, random: seededRandom(seed), observer }, { ...RETRY_DEFAULTS, ...settings });
  return { store, clock, delays };
}

test('a call that fails with class retry is repeated until it works', async () => {
  const inner = failing(['retry', 'retry', 'retry']);
  const { store, clock } = retrying(inner.store, {});
  assert.deepEqual(await clock.run(store.head('bucket', 'object')), { kind: 'found', sizeBytes: 1 });
  assert.equal(inner.calls(), 4);
  assert.equal(clock.pending, 0);
});

test('each pause is drawn from nought to a bound that doubles up to its maximum', async () => {
  const seen: number[][] = [];
  for (let seed = 0; seed < 200; seed += 1) {
    const inner = failing(Array.from({ length: 8 }, () => 'retry' as const));
    const { store, clock, delays } = retrying(inner.store, { firstDelayMs: 100, delayMsMax: 1000 }, seed);
    await clock.run(store.head('bucket', 'object'));
    seen.push(delays);
  }
  for (const [index, bound] of [100, 200, 400, 800, 1000, 1000, 1000, 1000].entries()) {
    const delays = seen.map((run) => run[index] as number);
    assert.ok(Math.max(...delays) < bound && Math.max(...delays) > bound * 0.9, `bound of pause ${index}`);
    assert.ok(Math.min(...delays) < bound * 0.1, `full jitter of pause ${index}`);
  }
});

test('no-space is repeated too, but after a longer pause', async () => {
  const { store, clock, delays } = retrying(failing(['no-space', 'no-space']).store, { firstDelayMs: 1, noSpaceDelayMs: 8000 });
  await clock.run(store.head('bucket', 'object'));
  assert.equal(delays.length, 2);
  for (const delayMs of delays) assert.ok(delayMs >= 4000 && delayMs <= 8000);
});

test('absent, denied and corrupt are not repeated, and neither is a bug', async () => {
  for (const errorClass of ['absent', 'denied', 'corrupt'] as const) {
    const inner = failing([errorClass]);
    await rejectsWith(retrying(inner.store, {}).store.head('bucket', 'object'), errorClass);
    assert.equal(inner.calls(), 1);
  }
  const broken = new MemoryStore();
  broken.head = () => Promise.reject(new TypeError('a bug'));
  await assert.rejects(retrying(broken, {}).store.head('bucket', 'object'), TypeError);
});

test('when the time is up the last error is given, with what was tried', async () => {
  const inner = failing(Array.from({ length: 1000 }, () => 'retry' as const));
  const { store, clock } = retrying(inner.store, { deadlineMs: 5000 });
  const error = await rejectsWith(clock.run(store.head('bucket', 'object')), 'retry');
  assert.match(error.message, /failure \d+; gave up after \d+ attempts in \d+ ms/);
  assert.ok(clock.monotonicMs() <= 5000);
  assert.ok(inner.calls() > 3);
});

test('an attempt without an answer is aborted and repeated', async () => {
  let attempts = 0;
  const inner = new MemoryStore();
  inner.head = (_bucket, _name, signal) => {
    attempts += 1;
    if (attempts === 3) return Promise.resolve({ kind: 'absent' });
    return new Promise((_resolve, reject) => signal?.addEventListener('abort', () => reject(new StoreError('retry', 'aborted')), { once: true }));
  };
  const { store, clock } = retrying(inner, { attemptTimeoutMs: 1000 });
  assert.deepEqual(await clock.run(store.head('bucket', 'object')), { kind: 'absent' });
  assert.ok(clock.monotonicMs() >= 2000);
  assert.equal(clock.pending, 0);

  const hanging = new FaultyStore({ inner: new MemoryStore(), clock, random: seededRandom(1) }, { hang: 1 });
  const impatient = new RetryingStore(
    { inner: hanging, clock, random: seededRandom(1) },
    { ...RETRY_DEFAULTS, attemptTimeoutMs: 1000, deadlineMs: 1500 },
  );
  assert.match((await rejectsWith(clock.run(impatient.head('bucket', 'object')), 'retry')).message, /no answer within 1000 ms; gave up after/);
});

test('the signal ends a pause and a running attempt at once, and no further attempt is made', async () => {
  const inner = failing(Array.from({ length: 10 }, () => 'retry' as const));
  const pausing = retrying(inner.store, { firstDelayMs: 1e6, delayMsMax: 1e6, deadlineMs: Infinity });
  const controller = new AbortController();
  const paused = pausing.store.head('bucket', 'object', controller.signal);
  await new Promise((resolve) => setImmediate(resolve));
  controller.abort();
  await rejectsWith(paused, 'retry');
  assert.equal(inner.calls(), 1);
  assert.equal(pausing.clock.pending, 0);

  const clock = new VirtualClock();
  const hanging = retrying(new FaultyStore({ inner: new MemoryStore(), clock, random: seededRandom(1) }, { hang: 1 }), {});
  const second = new AbortController();
  const running = hanging.store.head('bucket', 'object', second.signal);
  await new Promise((resolve) => setImmediate(resolve));
  second.abort();
  await rejectsWith(running, 'retry');
  assert.equal(hanging.clock.pending, 0);
});

test('over a store that fails and loses answers all the time, every put ends up stored once and whole', async () => {
  const clock = new VirtualClock();
  const faulty = new FaultyStore({ inner: new MemoryStore(), clock, random: seededRandom(3) });
  const store = new RetryingStore({ inner: faulty, clock, random: seededRandom(4) }, { ...RETRY_DEFAULTS, deadlineMs: Infinity });
  await store.createBucket('bucket');
  faulty.setFaults({ failBefore: 0.4, loseAnswer: 0.4, delay: 0.5, delayMsMax: 100 });
  const outcomes = await clock.run(
    Promise.all(Array.from({ length: 100 }, (_, index) => store.put('bucket', `o${index}`, bytes(Buffer.from(`content ${index}`))))),
  );
  assert.ok(outcomes.includes('exists'), 'some answer was lost');
  faulty.setFaults({});
  for (let index = 0; index < 100; index += 1) assert.equal((await readAllOf(store, 'bucket', `o${index}`)).toString(), `content ${index}`);
});

/** A store whose puts and gets end only when their attempt is aborted; tells how long that took. */
function patient(clock: VirtualClock): { store: ObjectStore; abortedAfterMs: Map<string, number> } {
  const abortedAfterMs = new Map<string, number>();
  const store = new MemoryStore();
  const hang = <T>(name: string, signal: AbortSignal | undefined): Promise<T> => {
    const fromMs = clock.monotonicMs();
    return new Promise((_resolve, reject) => {
      signal?.addEventListener(
        'abort',
        () => {
          abortedAfterMs.set(name, clock.monotonicMs() - fromMs);
          reject(new StoreError('retry', 'aborted'));
        },
        { once: true },
      );
    });
  };
  store.put = (_bucket, name, _body, signal) => hang(name, signal);
  store.get = (_bucket, name, _range, signal) => hang(name, signal);
  return { store, abortedAfterMs };
}

test('the more bytes are under way to the store, the longer an attempt may take; what comes from it counts for itself', async () => {
  const clock = new VirtualClock();
  const { store: inner, abortedAfterMs } = patient(clock);
  const store = new RetryingStore(
    { inner, clock, random: seededRandom(1) },
    { ...RETRY_DEFAULTS, attemptTimeoutMs: 1000, bytesPerMsMin: 100, deadlineMs: 0 },
  );
  const calls = [
    store.put('bucket', 'small', bytes(Buffer.alloc(0))),
    store.put('bucket', 'first', bytes(Buffer.alloc(400_000))),
    store.put('bucket', 'second', bytes(Buffer.alloc(200_000))),
    store.get('bucket', 'range', { offsetBytes: 0, lengthBytes: 50_000 }),
  ].map((call) => rejectsWith(call as Promise<unknown>, 'retry'));
  await clock.run(Promise.all(calls));
  assert.deepEqual(Object.fromEntries(abortedAfterMs), { small: 1000, range: 1500, first: 7000, second: 7000 });
  // Nothing is under way any more.
  abortedAfterMs.clear();
  await clock.run(rejectsWith(store.put('bucket', 'third', bytes(Buffer.alloc(100_000))), 'retry'));
  assert.deepEqual(Object.fromEntries(abortedAfterMs), { third: 2000 });
});

test('a segment that goes up over a slow link is not given up while it is under way', async () => {
  const clock = new VirtualClock();
  const inner = new MemoryStore();
  await inner.createBucket('bucket');
  const write = inner.put.bind(inner);
  // 16 at a time over 1 MB/s: 16 MiB each take 268 s together.
  inner.put = async (bucket, name, body, signal) => {
    await Promise.race([
      clock.sleep(268_000),
      new Promise((_resolve, reject) => signal?.addEventListener('abort', () => reject(new StoreError('retry', 'aborted')))),
    ]);
    return await write(bucket, name, body);
  };
  const store = new RetryingStore({ inner, clock, random: seededRandom(1) });
  const body = bytes(Buffer.alloc(16 << 20));
  const puts = Array.from({ length: 16 }, (_, index) => store.put('bucket', `o${index}`, body));
  assert.deepEqual(new Set(await clock.run(Promise.all(puts))), new Set(['written']));
});

test('a pacer may end a pause early, and is told what waits; an abort takes the waiting request back', async () => {
  const inner = failing(['retry', 'no-space', 'retry']);
  const clock = new VirtualClock();
  const waiting: (WaitingRetry & { resume: () => void })[] = [];
  let cancelled = 0;
  const pacer: RetryPacer = {
    wait(retry, resume) {
      waiting.push({ ...retry, resume });
      return () => {
        cancelled += 1;
      };
    },
  };
  const store = new RetryingStore({ inner: inner.store, clock, random: seededRandom(1), pacer });
  const controller = new AbortController();
  const call = store.head('bucket', 'object', controller.signal);
  for (const [index, message] of ['failure 1', 'failure 2'].entries()) {
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual([waiting[index]?.kind, waiting[index]?.attempts, waiting[index]?.error.message], ['head', index + 1, message]);
    waiting[index]?.resume();
  }
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(clock.monotonicMs(), 0, 'no time has passed');
  controller.abort();
  await rejectsWith(call, 'retry');
  assert.equal(cancelled, 1);
  assert.equal(inner.calls(), 3);
});

test('a small read that later ones overtake is made again, after a time that doubles; one that nobody overtakes waits', async () => {
  const clock = new VirtualClock();
  const inner = new MemoryStore();
  const attemptsMs: number[] = [];
  let stuck = 3;
  inner.head = (_bucket, name, signal) => {
    if (name !== 'stuck') return clock.sleep(10).then(() => ({ kind: 'absent' }) as const);
    attemptsMs.push(clock.monotonicMs());
    stuck -= 1;
    if (stuck < 0) return Promise.resolve({ kind: 'absent' });
    return new Promise((_resolve, reject) => signal?.addEventListener('abort', () => reject(new StoreError('retry', 'aborted')), { once: true }));
  };
  const store = new RetryingStore(
    { inner, clock, random: seededRandom(1), pacer: { wait: (_retry, resume) => clock.after(0, resume) } },
    { ...RETRY_DEFAULTS, attemptTimeoutMs: 20_000, overtakenAfterMs: 2000 },
  );
  let over = false;
  const busy = (async () => {
    while (!over) await Promise.all([store.head('bucket', 'other'), clock.sleep(500)]);
  })();
  assert.deepEqual(await clock.run(store.head('bucket', 'stuck')), { kind: 'absent' });
  over = true;
  await clock.run(busy);
  const [first = 0, second = 0, third = 0, fourth = 0] = attemptsMs;
  assert.ok(second - first >= 2000 && second - first < 3600, String(attemptsMs));
  assert.ok(third - second >= 4000 && third - second < 5600, String(attemptsMs));
  assert.ok(fourth - third >= 8000 && fourth - third < 9600, String(attemptsMs));

  stuck = 1;
  attemptsMs.length = 0;
  await clock.run(store.head('bucket', 'stuck'));
  assert.equal((attemptsMs[1] ?? 0) - (attemptsMs[0] ?? 0), 20_000, 'nothing overtook it');
  assert.equal(clock.pending, 0);
});

test('an attempt that an outage may have killed is made again when told so, once; what began later goes on', async () => {
  let calls = 0;
  const inner = new MemoryStore();
  inner.put = (_bucket, _name, _body, signal) => {
    calls += 1;
    return new Promise((_resolve, reject) =>
      signal?.addEventListener('abort', () => reject(new StoreError('retry', 'aborted', signal.reason)), { once: true }),
    );
  };
  const { store, clock, delays } = retrying(inner, { firstDelayMs: 0 });
  const controller = new AbortController();
  const call = store.put('bucket', 'object', bytes(Buffer.from('x')), controller.signal);
  clock.advance(1000);
  store.restart(0);
  assert.equal(calls, 1, 'it began later');
  store.restart(500);
  await clock.run(clock.sleep(1));
  assert.equal(calls, 2);
  store.restart(10_000);
  await clock.run(clock.sleep(1));
  assert.equal(calls, 2, 'the second attempt is left alone');
  assert.equal(delays.length, 1);
  controller.abort();
  await rejectsWith(call, 'retry');
});
