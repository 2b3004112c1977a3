import assert from 'node:assert/strict';
import { test } from 'node:test';

import { silentLogger } from '../server/core/logger.ts';
import { BackendState } from './backend-state.ts';
import { BackendWatch } from './backend-watch.ts';
import { StoreError } from './object-store.ts';
import { VirtualClock } from './virtual-clock.ts';

type Behaviour = 'answers' | 'fails' | 'hangs';

class Bench {
  readonly clock = new VirtualClock();
  readonly state = new BackendState({ clock: this.clock, logger: silentLogger });
  readonly watch: BackendWatch;
  backend: Behaviour = 'answers';
  connecting: Behaviour = 'answers';
  wanted = false;
  probes = 0;
  looks = 0;

  constructor(probesAreFree = false) {
    this.watch = new BackendWatch({
      clock: this.clock,
      state: this.state,
      probe: (signal) => this.#probe(signal),
      reachable: probesAreFree ? null : (signal) => this.#reachable(signal),
      wanted: () => this.wanted,
    });
    this.watch.start();
  }

  async #probe(signal: AbortSignal): Promise<void> {
    this.probes += 1;
    const request = { kind: 'head', bucket: 'bucket', payloadBytesMax: 0, startedMs: this.clock.monotonicMs() } as const;
    this.state.requestStarted(request);
    try {
      await as(this.backend, signal);
    } catch (error) {
      const hung = signal.aborted && signal.reason instanceof StoreError;
      this.state.requestDone(request, signal.aborted && !hung ? 'aborted' : hung ? 'timeout' : 'retry', 0, 0, error as Error);
      throw error;
    }
    this.state.requestDone(request, 'not-found', 0, 0, null);
  }

  async #reachable(signal: AbortSignal): Promise<void> {
    this.looks += 1;
    await as(this.connecting, signal);
  }

  /** A request of somebody else. */
  ask(outcome: 'ok' | 'retry' = 'ok'): void {
    const request = { kind: 'put', bucket: 'bucket', payloadBytesMax: 1, startedMs: this.clock.monotonicMs() } as const;
    this.state.requestStarted(request);
    this.state.requestDone(request, outcome, 1, 1, outcome === 'ok' ? null : new StoreError('retry', '503'));
  }

  async pass(seconds: number, each?: () => void): Promise<void> {
    for (let passed = 0; passed < seconds * 20; passed += 1) {
      this.clock.advance(50);
      each?.();
      for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
    }
  }
}

async function as(behaviour: Behaviour, signal: AbortSignal): Promise<void> {
  if (behaviour === 'fails') throw new StoreError('retry', 'connection refused');
  if (behaviour === 'hangs') {
    await new Promise<never>((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(new StoreError('retry', 'aborted')), { once: true });
    });
  }
}

test('while other requests succeed nothing is asked', async () => {
  const bench = new Bench();
  await bench.pass(60, () => bench.ask());
  assert.deepEqual([bench.probes, bench.looks], [0, 0]);
});

test('an idle backend on a network is looked at each second without a request, and probed once in five minutes', async () => {
  const bench = new Bench();
  await bench.pass(1200);
  assert.ok(bench.looks > 1100 && bench.looks <= 1200, String(bench.looks));
  assert.ok(bench.probes >= 4 && bench.probes <= 5, String(bench.probes));
  assert.equal(bench.state.condition, 'up');
});

test('a directory is looked at each second: that is free', async () => {
  const bench = new Bench(true);
  await bench.pass(60);
  assert.ok(bench.probes > 50 && bench.probes <= 60, String(bench.probes));
});

test('when nothing listens any more, an idle backend is down within two seconds, and up within two when it is back', async () => {
  const bench = new Bench();
  await bench.pass(60);
  bench.connecting = 'fails';
  bench.backend = 'fails';
  await bench.pass(2);
  assert.equal(bench.state.condition, 'down');
  const former = bench.probes;
  await bench.pass(60);
  assert.ok(bench.probes - former <= 61, 'no more than a probe a second');
  bench.connecting = 'answers';
  bench.backend = 'answers';
  await bench.pass(2);
  assert.equal(bench.state.condition, 'up');
  const after = bench.probes;
  await bench.pass(60);
  assert.equal(bench.probes, after, 'well again, it is left alone');
});

test('while something is wanted and nothing is answered it is probed each second: a backend that hangs is slow, then down', async () => {
  const bench = new Bench();
  await bench.pass(5);
  const idle = bench.probes;
  bench.wanted = true;
  bench.backend = 'hangs';
  await bench.pass(2.5);
  assert.equal(bench.probes, idle + 1, 'one probe at a time');
  assert.equal(bench.state.condition, 'slow');
  await bench.pass(5);
  assert.equal(bench.state.condition, 'down');
  bench.backend = 'answers';
  await bench.pass(7);
  assert.equal(bench.state.condition, 'up');
  bench.wanted = false;
});

test('a probe a second goes on while something is wanted of a backend that is up: its requests are all large', async () => {
  const bench = new Bench();
  bench.wanted = true;
  await bench.pass(30);
  assert.ok(bench.probes >= 14 && bench.probes <= 30, String(bench.probes));
});

test('stopped, it leaves no timer and gives a running probe up without calling that a failure', async () => {
  const bench = new Bench(true);
  bench.backend = 'hangs';
  await bench.pass(1.5);
  bench.watch.stop();
  await bench.pass(1);
  assert.equal(bench.clock.pending, 0);
  assert.equal(bench.state.pending, 0);
  assert.equal(bench.state.failedMs, -Infinity);
});

test('attempts of others that fail say as much as a probe: none is made beside them', async () => {
  const bench = new Bench();
  await bench.pass(10);
  const before = bench.probes;
  bench.wanted = true;
  await bench.pass(30, () => bench.ask('retry'));
  assert.equal(bench.state.condition, 'down');
  assert.equal(bench.probes, before);
  // They have given up: somebody has to ask.
  await bench.pass(2);
  assert.equal(bench.probes, before + 1);
  assert.equal(bench.state.condition, 'down', 'what answers a HEAD may still refuse a PUT');
});
