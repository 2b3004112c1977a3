import assert from 'node:assert/strict';
import { test } from 'node:test';

import { type Logger, silentLogger } from '../server/core/logger.ts';
import { BackendState } from './backend-state.ts';
import { StoreError, type StoreErrorClass } from './object-store.ts';
import type { StoreOutcome, StoreRequest, StoreRequestKind } from './store-observer.ts';
import { VirtualClock } from './virtual-clock.ts';

class Bench {
  readonly clock = new VirtualClock();
  readonly lines: string[] = [];
  readonly state: BackendState;
  recoveries = 0;

  constructor() {
    const note = (_fields: object, message: string): void => void this.lines.push(message);
    const logger: Logger = { ...silentLogger, info: note, warn: note };
    this.state = new BackendState({ clock: this.clock, logger });
    this.state.onRecovered(() => {
      this.recoveries += 1;
    });
  }

  /** What people are told. (A method, so that the type checker does not believe that a getter answers the same twice.) */
  told(): string {
    const { condition, message } = this.state.report;
    return message === null ? condition : `${condition}: ${message}`;
  }

  start(kind: StoreRequestKind, payloadBytesMax = 0): StoreRequest {
    const request = { kind, bucket: 'bucket', payloadBytesMax, startedMs: this.clock.monotonicMs() };
    this.state.requestStarted(request);
    return request;
  }

  end(request: StoreRequest, outcome: StoreOutcome): void {
    const failed = ['retry', 'timeout', 'denied', 'no-space', 'corrupt', 'absent', 'aborted'].includes(outcome);
    const error = failed
      ? new StoreError(outcome === 'timeout' || outcome === 'aborted' ? 'retry' : (outcome as StoreErrorClass), `it says ${outcome}`)
      : null;
    this.state.requestDone(request, outcome, 0, 0, error);
  }

  ask(kind: StoreRequestKind, outcome: StoreOutcome, payloadBytesMax = 0): void {
    this.end(this.start(kind, payloadBytesMax), outcome);
  }

  /** Time passes; it is looked at as often as the watch does. */
  pass(milliseconds: number): void {
    for (let passed = 0; passed < milliseconds; passed += 250) {
      this.clock.advance(Math.min(250, milliseconds - passed));
      this.state.look();
    }
  }

  /** A request that waits for its next attempt; `resumed` says when it was let go. */
  waiting(kind: StoreRequestKind, delayMs: number, attempts = 1): { resumedMs: number | null; cancel: () => void } {
    const waiter = { resumedMs: null as number | null, cancel: (): void => {} };
    waiter.cancel = this.state.wait({ kind, attempts, delayMs, error: new StoreError('retry', '503') }, () => {
      assert.equal(waiter.resumedMs, null, 'resumed twice');
      waiter.resumedMs = this.clock.monotonicMs();
    });
    return waiter;
  }
}

test('one failure among successes is no news', () => {
  const bench = new Bench();
  for (let count = 0; count < 100; count += 1) {
    bench.ask('put', count % 10 === 5 ? 'retry' : 'ok', 4 << 20);
    bench.ask('get', count % 10 === 6 ? 'retry' : 'ok', 4096);
    bench.pass(100);
    assert.equal(bench.told(), 'up');
  }
  assert.deepEqual(bench.lines, []);
});

test('within a second of the first failure after which nothing succeeds it is down, and the first success ends that: one line of log each', () => {
  const bench = new Bench();
  bench.pass(60_000);
  bench.ask('put', 'ok');
  bench.pass(100);
  for (let count = 0; count < 20; count += 1) {
    bench.ask('put', 'retry');
    bench.pass(50);
  }
  assert.equal(bench.told(), 'down: nothing succeeds: it says retry');
  bench.ask('put', 'ok');
  assert.equal(bench.told(), 'up');
  assert.deepEqual(bench.lines, ['the backend is down', 'the backend is well again']);
  assert.equal(bench.recoveries, 1);
});

test('a single failure that nobody follows up with a success is seen within a second too', () => {
  const bench = new Bench();
  bench.pass(60_000);
  bench.ask('head', 'retry');
  assert.equal(bench.told(), 'up');
  bench.pass(500);
  assert.equal(bench.told(), 'down: nothing succeeds: it says retry');
});

test('writing may fail while reading goes on', () => {
  const bench = new Bench();
  for (let count = 0; count < 20; count += 1) {
    bench.ask('put', 'retry');
    bench.ask('get', 'ok');
    bench.pass(100);
  }
  assert.equal(bench.told(), 'down: writing fails: it says retry');
  bench.ask('get', 'ok');
  assert.equal(bench.told(), 'down: writing fails: it says retry');
  bench.ask('delete', 'ok');
  assert.equal(bench.told(), 'up');
});

test('no room and no permission are known at once; what is smaller or of another kind does not end them', () => {
  const bench = new Bench();
  bench.ask('put', 'ok');
  bench.ask('put', 'no-space', 4 << 20);
  assert.equal(bench.told(), 'full: it says no-space');
  bench.ask('put', 'ok', 100);
  bench.ask('get', 'ok');
  assert.equal(bench.told(), 'full: it says no-space');
  bench.ask('put', 'ok', 4 << 20);
  assert.equal(bench.told(), 'up');
  bench.ask('put', 'denied');
  bench.ask('delete', 'ok');
  assert.equal(bench.told(), 'denied: it says denied');
  bench.ask('put', 'exists');
  assert.equal(bench.told(), 'up');
  assert.equal(bench.recoveries, 2);
  // A bucket that is not empty is no refusal.
  bench.ask('delete-bucket', 'denied');
  assert.equal(bench.told(), 'up');
});

test('what nobody tries again is forgotten', () => {
  const bench = new Bench();
  bench.ask('put', 'no-space', 4 << 20);
  bench.pass(29_000);
  assert.equal(bench.state.condition, 'full');
  bench.pass(2000);
  assert.equal(bench.told(), 'up');
});

test('a small request without an answer for a second makes it slow, a large one does not; the answer ends it', () => {
  const bench = new Bench();
  const large = bench.start('put', 16 << 20);
  bench.pass(10_000);
  assert.equal(bench.told(), 'up');
  const small = bench.start('get', 4096);
  bench.pass(1000);
  assert.equal(bench.told(), 'up');
  bench.pass(250);
  assert.equal(bench.told(), 'slow: a get has had no answer for 1250 ms');
  bench.end(large, 'ok');
  assert.equal(bench.state.condition, 'slow');
  bench.end(small, 'ok');
  assert.equal(bench.told(), 'up');
  assert.equal(bench.state.pending, 0);
});

test('a request that runs out of time, with nothing else answered, makes it down', () => {
  const bench = new Bench();
  bench.ask('get', 'ok');
  const hanging = bench.start('head');
  bench.pass(5000);
  assert.equal(bench.state.condition, 'slow');
  bench.end(hanging, 'timeout');
  assert.equal(bench.told(), 'down: nothing succeeds: it says timeout');
});

test('what looks late because this process stood still is no sign', () => {
  const bench = new Bench();
  const request = bench.start('head');
  bench.clock.advance(5000);
  bench.state.look(true);
  assert.equal(bench.told(), 'up');
  bench.end(request, 'ok');
  bench.pass(1000);
  assert.deepEqual(bench.lines, []);
});

test('requests that the caller gave up, and answers such as "absent", say nothing against it', () => {
  const bench = new Bench();
  for (const outcome of ['aborted', 'absent', 'not-found', 'corrupt', 'exists'] as const)
    for (let count = 0; count < 5; count += 1) bench.ask('get', outcome);
  bench.pass(5000);
  assert.equal(bench.told(), 'up');
});

test('a request that fails again and again while others succeed makes it slow until it is through', () => {
  const bench = new Bench();
  bench.ask('get', 'ok');
  const waiter = bench.waiting('get', 1000, 3);
  assert.equal(bench.told(), 'slow: a get failed 3 times: 503');
  bench.clock.advance(1000);
  bench.ask('get', 'ok');
  assert.equal(waiter.resumedMs, 1000);
  assert.equal(bench.told(), 'up');
});

test('while nothing succeeds one waiting request goes ahead each second; when one succeeds all follow at once', () => {
  const bench = new Bench();
  bench.pass(10_000);
  for (let count = 0; count < 3; count += 1) bench.ask('put', 'retry');
  const fromMs = bench.clock.monotonicMs();
  const waiters = Array.from({ length: 6 }, () => bench.waiting('put', 10_000, 5));
  const resumed = (): (number | null)[] => waiters.map(({ resumedMs }) => (resumedMs === null ? null : resumedMs - fromMs));
  bench.pass(1000);
  assert.deepEqual(resumed(), [1000, null, null, null, null, null]);
  bench.ask('put', 'retry');
  bench.pass(1000);
  assert.deepEqual(resumed(), [1000, 2000, null, null, null, null]);
  bench.ask('put', 'ok');
  assert.deepEqual(resumed(), [1000, 2000, 2000, 2000, 2000, 2000]);
  assert.deepEqual(bench.lines, ['the backend is down', 'the backend is well again']);
  assert.equal(bench.clock.pending, 0);
});

test('when reading works again one write goes ahead to see whether writing does', () => {
  const bench = new Bench();
  bench.pass(10_000);
  for (const kind of ['put', 'get'] as const) for (let count = 0; count < 3; count += 1) bench.ask(kind, 'retry');
  const [put, otherPut, get] = [bench.waiting('put', 10_000), bench.waiting('put', 10_000), bench.waiting('get', 10_000)];
  bench.ask('head', 'not-found');
  assert.ok(get.resumedMs !== null && put.resumedMs !== null);
  assert.equal(otherPut.resumedMs, null);
  bench.ask('put', 'ok');
  assert.ok(otherPut.resumedMs !== null);
});

test('while some requests succeed the others keep to their delays: an overloaded store asks for that', () => {
  const bench = new Bench();
  bench.ask('put', 'ok');
  const waiter = bench.waiting('put', 10_000);
  for (let count = 0; count < 50; count += 1) {
    for (let failures = 0; failures < 4; failures += 1) bench.ask('put', 'retry');
    bench.ask('put', 'ok');
    bench.pass(100);
  }
  assert.equal(waiter.resumedMs, null);
  assert.equal(bench.recoveries, 0);
  waiter.cancel();
  assert.equal(bench.clock.pending, 0);
  assert.equal(bench.state.waitingRetries, 0);
});
