import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { Worker } from 'node:worker_threads';

import { errorCode } from '../../server/core/errors.ts';
import { silentLogger } from '../../server/core/logger.ts';
import { systemClock } from '../../server/core/node-time.ts';
import { bytes, objectStoreConformance, readAllOf, rejectsWith, withDirectory } from '../conformance.ts';
import { initializeBackendDirectory } from '../directory/backend-marker.ts';
import type { BareStoreConfig, HostedStoreConfig } from './hosted-store.ts';
import { startStoreWorker } from './store-thread.ts';
import { ThreadedStore, type ThreadedStoreSettings } from './threaded-store.ts';

function config(path: string) {
  return { kind: 'directory', path, vpoolUuid: 'c'.repeat(32), initialize: false } as const;
}

/** A new backend directory and the configuration of its store. */
function initialized(path: string): HostedStoreConfig {
  initializeBackendDirectory(config(path));
  return hosted(config(path));
}

function hosted(store: BareStoreConfig): HostedStoreConfig {
  return { store, layout: { kind: 'buckets' }, encoding: null };
}

const components = { clock: systemClock, logger: silentLogger };

{
  // One store for all: starting its threads is the dearest part.
  let opened: Promise<{ store: ThreadedStore; path: string }> | null = null;
  const open = async (): Promise<{ store: ThreadedStore; path: string }> => {
    const path = await mkdtemp(join(tmpdir(), 'vferry-store-'));
    return { store: new ThreadedStore(components, { store: initialized(path) }), path };
  };
  after(async () => {
    if (opened === null) return;
    const { store, path } = await opened;
    await store.close();
    await rm(path, { recursive: true });
  });
  objectStoreConformance('ThreadedStore over a directory', async () => {
    opened ??= open();
    return { store: (await opened).store, close: () => Promise.resolve() };
  });
}

interface World {
  readonly store: ThreadedStore;
  /** Workers in the order of their start. */
  readonly workers: Worker[];
  readonly directory: string;
  /** Path of a FIFO: a put of it hangs its thread in open(2) until `release`. */
  readonly fifo: string;
}

/** Runs `body` with a store of `threads` threads and the bucket `bucket`, and ends both. */
function withStore(settings: Partial<ThreadedStoreSettings>, body: (world: World) => Promise<void>): Promise<void> {
  return withDirectory(async (directory) => {
    const workers: Worker[] = [];
    const startWorker = (what: HostedStoreConfig): Worker => {
      const worker = startStoreWorker(what);
      workers.push(worker);
      return worker;
    };
    const fifo = join(directory, 'fifo');
    execFileSync('mkfifo', [fifo]);
    const store = new ThreadedStore({ ...components, startWorker }, { store: initialized(join(directory, 'backend')), ...settings });
    try {
      await store.createBucket('bucket');
      await store.put('bucket', 'object', bytes(Buffer.from('content')));
      await body({ store, workers, directory, fifo });
    } finally {
      // A test that failed half way must not leave a thread hanging: it would keep the process for ever.
      const closed = store.close();
      await release(fifo, closed);
      assert.deepEqual(await closed, { stuckThreads: 0 });
    }
  });
}

/** Gives a thread that hangs in open(2) of the FIFO, or will, its partner, until `settled` is. */
async function release(fifo: string, settled: Promise<unknown>): Promise<void> {
  let done = false;
  const end = (): void => {
    done = true;
  };
  settled.then(end, end);
  while (!done) {
    try {
      fs.closeSync(fs.openSync(fifo, fs.constants.O_WRONLY | fs.constants.O_NONBLOCK));
    } catch (error) {
      // Nobody waits for a partner now.
      if (errorCode(error) !== 'ENXIO') throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

async function eventually(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2));
}

test('while a put hangs in a system call, reads go on, its signal ends the wait, and other uploads go on', () =>
  withStore({ threads: 2 }, async ({ store, fifo }) => {
    const controller = new AbortController();
    const hanging = store.put('bucket', 'hanging', { kind: 'file', path: fifo, offsetBytes: 0, lengthBytes: 10 }, controller.signal);
    for (let count = 0; count < 20; count += 1) assert.equal((await readAllOf(store, 'bucket', 'object')).toString(), 'content');
    // Uploads leave a thread to the reads, so this one waits until nobody waits for the first.
    const second = store.put('bucket', 'second', bytes(Buffer.from('x')));
    await readAllOf(store, 'bucket', 'object');
    assert.equal(store.load.queued, 1);
    controller.abort();
    await rejectsWith(hanging, 'retry');
    assert.equal(await second, 'written');
    assert.equal(store.load.running, 1);
    await release(
      fifo,
      eventually(() => store.load.running === 0),
    );
    assert.deepEqual(await store.head('bucket', 'hanging'), { kind: 'absent' });
  }));

test('when all threads hang, calls wait here and their signals end them; afterwards everything works', () =>
  withStore({ threads: 1 }, async ({ store, fifo }) => {
    const hanging = store.put('bucket', 'hanging', { kind: 'file', path: fifo, offsetBytes: 0, lengthBytes: 10 });
    const controller = new AbortController();
    const waiting = Array.from({ length: 10 }, () => rejectsWith(store.get('bucket', 'object', undefined, controller.signal), 'retry'));
    const patient = store.get('bucket', 'object');
    controller.abort();
    await Promise.all(waiting);
    // Three of them are at the thread already and cannot be called back; those that waited here are gone.
    assert.deepEqual(store.load, { threads: 1, running: 4, queued: 1 });
    const refused = rejectsWith(hanging, 'retry');
    await release(fifo, refused);
    assert.match((await refused).message, /ESPIPE/);
    assert.equal((await patient).kind, 'found');
  }));

test('a worker that dies rejects its calls as retry and is replaced', () =>
  withStore({ threads: 1 }, async ({ store, workers, fifo }) => {
    const hanging = rejectsWith(store.put('bucket', 'hanging', { kind: 'file', path: fifo, offsetBytes: 0, lengthBytes: 10 }), 'retry');
    const queued = Array.from({ length: 6 }, () => store.get('bucket', 'object').catch((error: unknown) => error));
    await eventually(() => store.load.running === 4);
    const terminated = workers[0]?.terminate();
    await release(fifo, hanging);
    assert.match((await hanging).message, /thread ended/);
    await terminated;
    const outcomes = await Promise.all(queued);
    assert.equal(outcomes.filter((outcome) => outcome instanceof Error).length, 3, 'those that were at the thread');
    assert.equal(workers.length, 2);
    assert.equal((await readAllOf(store, 'bucket', 'object')).toString(), 'content');
  }));

test('a worker that cannot even start fails no call: they wait, and end by their signals', async () => {
  let started = 0;
  const errors: { restartDelayMs?: number }[] = [];
  const store = new ThreadedStore(
    {
      clock: systemClock,
      logger: { ...silentLogger, error: (fields) => errors.push(fields) },
      startWorker: () => {
        started += 1;
        return startStoreWorker(hosted({ ...config('/nonexistent'), path: 7 as unknown as string }));
      },
    },
    { store: hosted(config('/nonexistent')), threads: 1 },
  );
  const controller = new AbortController();
  const waiting = rejectsWith(store.head('bucket', 'object', controller.signal), 'retry');
  await eventually(() => errors.length >= 3);
  assert.ok(started >= 3);
  assert.deepEqual(
    errors.slice(0, 3).map((fields) => fields.restartDelayMs),
    [100, 200, 400],
  );
  assert.equal(store.load.queued, 1);
  controller.abort();
  assert.match((await waiting).message, /aborted/);
  await store.close();
});

test('threads never initialize a backend', () => {
  assert.throws(() => new ThreadedStore(components, { store: hosted({ ...config('/nonexistent'), initialize: true }) }), /initialized before/);
});

test('bytes of a body may change as soon as the put settled, by abort too, and results have memory of their own', () =>
  withStore({ threads: 2 }, async ({ store }) => {
    const slab = randomBytes(1 << 20);
    const body = slab.subarray(1000, 201_000);
    const expected = Buffer.from(body);
    const put = store.put('bucket', 'slice', bytes(body));
    slab.fill(0);
    assert.equal(await put, 'written');
    const found = await readAllOf(store, 'bucket', 'slice');
    assert.deepEqual(found, expected);
    assert.equal(found.buffer.byteLength, expected.byteLength);
  }));

test('close lets a running put finish, rejects what waits, and later calls too; no temporary file stays', () =>
  withDirectory(async (directory) => {
    const store = new ThreadedStore(components, { store: initialized(directory), threads: 2 });
    await store.createBucket('bucket');
    const puts = Array.from({ length: 5 }, (_, index) =>
      store.put('bucket', `o${index}`, bytes(randomBytes(1 << 20))).then(
        (outcome) => outcome,
        (error: Error) => error.message,
      ),
    );
    await store.close();
    const outcomes = await Promise.all(puts);
    assert.equal(outcomes[0], 'written');
    for (const outcome of outcomes.slice(1)) assert.match(outcome, /is closed/);
    await rejectsWith(store.head('bucket', 'o0'), 'retry');
    assert.deepEqual(fs.readdirSync(join(directory, '.tmp')), []);
    assert.deepEqual(fs.readdirSync(join(directory, 'buckets', 'bucket')), ['o0']);
  }));

test('a thread that hangs for good is reported by close, which does not wait for it', () =>
  withDirectory(async (directory) => {
    const fifo = join(directory, 'fifo');
    execFileSync('mkfifo', [fifo]);
    let fire = (): void => {};
    const clock = {
      ...systemClock,
      after: (_delayMs: number, callback: () => void) => {
        fire = callback;
        return () => {};
      },
    };
    const store = new ThreadedStore({ clock, logger: silentLogger }, { store: initialized(join(directory, 'backend')), threads: 1 });
    await store.createBucket('bucket');
    const hanging = rejectsWith(store.put('bucket', 'hanging', { kind: 'file', path: fifo, offsetBytes: 0, lengthBytes: 10 }), 'retry');
    const closing = store.close();
    fire();
    assert.deepEqual(await closing, { stuckThreads: 1 });
    await release(fifo, hanging);
    assert.match((await hanging).message, /thread ended/);
  }));
