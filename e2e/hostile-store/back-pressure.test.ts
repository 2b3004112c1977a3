/**
 * The backend goes away, refuses, hangs and crawls under a router at work. Writes go on until the bound of dirty data is near and then at the pace of the
 * backend; nobody gets an error; what is cached is read all the time; the state is told within a second or so and over soon after the backend is back.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';

import { Stability, Status } from '../../server/nfsd/file-system.ts';
import { drained } from '../backends/cold-restart.ts';
import { connectStore } from '../datastore-client.ts';
import { allWell, complains, problemsOf } from '../faults/problem.ts';
import { metric } from '../metrics-page.ts';
import { RouterProcess, WAIT_MS_MAX } from '../router-process.ts';
import { StampedVolume } from '../stamped-volume.ts';
import type { StoreClient } from '../store-client.ts';
import { stackOf } from '../test-stack.ts';
import { type HostileFaults, HostileStore } from './hostile-store.ts';

const MIB = 1024 * 1024;
const DIRTY_BYTES_MAX = 48 * MIB;
const CACHED_BYTES = 4 * MIB;
const SETTINGS = {
  VFERRY_LOG_SEGMENT_BYTES: '4MiB',
  VFERRY_LOG_SEAL_AFTER_MS: '300ms',
  VFERRY_LOG_DIRTY_BYTES_MAX: String(DIRTY_BYTES_MAX),
  VFERRY_CACHE_RAM_BYTES: '64MiB',
};

/** Writes to one volume that never stop by themselves. */
class Writer {
  readonly volume: StampedVolume;
  readonly #client: StoreClient;
  readonly #blockBytes: number;
  readonly #pauseMs: number;
  readonly #running: Promise<unknown>;
  readonly statuses = new Map<number, number>();
  bytes = 0;
  longestMs = 0;
  #over = false;
  #next = CACHED_BYTES;

  /** `lanes` writes at a time, each lane with `pauseMs` between them. */
  constructor(client: StoreClient, volume: StampedVolume, lanes: number, blockBytes: number, pauseMs: number) {
    this.#client = client;
    this.volume = volume;
    this.#blockBytes = blockBytes;
    this.#pauseMs = pauseMs;
    this.#running = Promise.all(Array.from({ length: lanes }, () => this.#lane()));
    this.#running.catch(() => undefined);
  }

  async #lane(): Promise<void> {
    while (!this.#over) {
      const at = this.#next;
      this.#next = at + 2 * this.#blockBytes > this.volume.sizeBytes ? CACHED_BYTES : at + this.#blockBytes;
      if (this.volume.model.isFree(at, this.#blockBytes)) {
        const began = performance.now();
        const status = await this.volume.write(this.#client, at, this.#blockBytes, Stability.FILE_SYNC);
        this.longestMs = Math.max(this.longestMs, performance.now() - began);
        this.statuses.set(status, (this.statuses.get(status) ?? 0) + 1);
        if (status === Status.OK) this.bytes += this.#blockBytes;
      }
      await new Promise((resolve) => setTimeout(resolve, this.#pauseMs));
    }
  }

  async end(): Promise<void> {
    this.#over = true;
    await this.#running;
  }

  takeLongestMs(): number {
    const { longestMs } = this;
    this.longestMs = 0;
    return longestMs;
  }
}

interface Scene {
  readonly t: TestContext;
  readonly hostile: HostileStore;
  readonly router: RouterProcess;
  readonly greedy: Writer;
  readonly modest: Writer;
}

test('whatever the backend does for a while, no write fails, none is lost, and cached data is read', async (t) => {
  const hostile = stackOf(t).use(await HostileStore.start(3));
  const router = await RouterProcess.forTest(t, { environment: { ...SETTINGS, ...hostile.environment } });
  const connect = async (): Promise<StoreClient> => stackOf(t).use(await connectStore(router, { timeoutMs: WAIT_MS_MAX }));
  const [first, second, third] = [await connect(), await connect(), await connect()];
  const volumes = [await StampedVolume.create(first, 1, 48 * MIB), await StampedVolume.create(second, 2, 16 * MIB)] as const;
  for (let at = 0; at < CACHED_BYTES; at += MIB) assert.equal(await volumes[0].write(first, at, MIB, Stability.FILE_SYNC), Status.OK);
  const cached = volumes[0].model.current(0, CACHED_BYTES);
  await drained(router);

  const greedy = new Writer(first, volumes[0], 8, 65_536, 0);
  const modest = new Writer(second, volumes[1], 1, 4096, 20);
  let [reads, slowestReadMs, over] = [0, 0, false];
  const reading = (async (): Promise<void> => {
    for (; !over; reads += 1) {
      const at = (reads % (CACHED_BYTES / 65_536)) * 65_536;
      const began = performance.now();
      const answer = await third.read(volumes[0].handle, at, 65_536);
      slowestReadMs = Math.max(slowestReadMs, performance.now() - began);
      assert.equal(answer.status, Status.OK);
      assert.ok(answer.data.equals(cached.subarray(at, at + 65_536)), `wrong data at ${at}`);
      await pause(20);
    }
  })();
  reading.catch(() => undefined);
  const scene: Scene = { t, hostile, router, greedy, modest };
  try {
    const baseMs = await outage(scene, 'down', async () => await hostile.server.stopListening());
    await outage(scene, 'answering 503', () => hostile.setFaults({ http: { unavailable: 1, retryAfterSeconds: 1 } }));
    await outage(scene, 'refusing every token', () => hostile.setFaults({ http: { revokeTokens: 1 } }));
    // Long enough for a look at the backend to time out: from a shorter one a swallowed request is given up by its own limit of silence.
    const movesMs = await outage(scene, 'hanging', () => hostile.setFaults({ store: { hang: 1 } }), 8000);
    // Requests that were swallowed are asked again, long before their connections are given up (half a minute); a slow machine takes its time for all.
    assert.ok(movesMs < 20_000 + 10 * baseMs, `uploads went on ${movesMs} ms after the repair, ${baseMs} ms where nothing hung`);
    await crawl(scene);
  } finally {
    over = true;
    hostile.setFaults({});
    await hostile.server.listen();
    await Promise.all([greedy.end(), modest.end()]);
  }
  await reading;
  for (const { statuses } of [greedy, modest]) {
    for (const [status, count] of statuses) assert.ok(status === Status.OK || status === Status.JUKEBOX, `${count} writes had status ${status}`);
  }
  t.diagnostic(
    `${reads} cached READs, the slowest took ${Math.round(slowestReadMs)} ms; peak of memory ${Math.round(router.memory().peakBytes / MIB)} MiB`,
  );
  assert.ok(slowestReadMs < 20_000, `a cached READ took ${slowestReadMs} ms`);
  assert.ok(router.memory().peakBytes < 640 * MIB);
  await drained(router);
  for (const volume of volumes) assert.deepEqual(await volume.verify(third), []);
  await router.stop();
  assert.equal((await router.fsck()).code, 0);
});

/** It breaks until the bound is near, and is repaired. @returns milliseconds until uploads went on. */
async function outage(
  { t, hostile, router, greedy, modest }: Scene,
  name: string,
  breakIt: () => Promise<void> | void,
  lastsMs = 1000,
): Promise<number> {
  await router.waitForReadyz(allWell);
  const writtenBefore = greedy.bytes;
  const brokenAt = performance.now();
  await breakIt();
  await router.waitForReadyz((answer) => complains(answer) && problemsOf(answer).codes.some((code) => code === 'backend'));
  const toldMs = performance.now() - brokenAt;
  await until(`${name}: writes slow down`, async () =>
    problemsOf(await router.http('/readyz')).codes.some((code) => /writes-slowed|dirty-bound/.test(code)),
  );
  await pause(lastsMs);
  const dirtyBytes = metric((await router.http('/metrics')).body, 'vferry_dirty_bytes');
  assert.ok(dirtyBytes < DIRTY_BYTES_MAX * 1.2, `${name}: ${dirtyBytes} dirty`);
  assert.ok(greedy.bytes > writtenBefore, `${name}: no write was acknowledged`);
  modest.takeLongestMs();
  hostile.setFaults({});
  await hostile.server.listen();
  const repairedAt = performance.now();
  const dirtyThen = metric((await router.http('/metrics')).body, 'vferry_dirty_bytes');
  await until(`${name}: uploads go on`, async () => metric((await router.http('/metrics')).body, 'vferry_dirty_bytes') < dirtyThen - 4 * MIB);
  const movesMs = performance.now() - repairedAt;
  await until(`${name}: it is told to be well`, async () => !problemsOf(await router.http('/readyz')).codes.includes('backend'));
  const wellMs = performance.now() - repairedAt;
  t.diagnostic(
    `${name}: told after ${Math.round(toldMs)} ms; uploads go on ${Math.round(movesMs)} ms after the repair, told well after ${Math.round(wellMs)} ms; ` +
      `longest write of the modest volume ${Math.round(modest.takeLongestMs())} ms, of the greedy one ${Math.round(greedy.takeLongestMs())} ms`,
  );
  return movesMs;
}

/** The backend takes 2 MiB a second: so do the writers, without stopping, and the one that wants little hardly notices. */
async function crawl({ t, hostile, router, greedy, modest }: Scene): Promise<void> {
  const slow: HostileFaults = { http: { bytesPerSecond: 2 * MIB } };
  hostile.setFaults(slow);
  await until('writes slow down', async () => problemsOf(await router.http('/readyz')).codes.some((code) => /writes-slowed|dirty-bound/.test(code)));
  // Until the first uploads are through nobody knows how slow it is.
  await pause(7000);
  const rates: number[] = [];
  for (let window = 0; window < 3; window += 1) {
    modest.takeLongestMs();
    greedy.takeLongestMs();
    const [before, began] = [greedy.bytes, performance.now()];
    await until('the writers go on at the pace of the backend', async () => greedy.bytes >= before + MIB && performance.now() - began >= 2000);
    rates.push((greedy.bytes - before) / MIB / ((performance.now() - began) / 1000));
  }
  t.diagnostic(
    `2 MiB/s: ${rates.map((rate) => rate.toFixed(2)).join(' ')} MiB/s; longest write ${Math.round(greedy.takeLongestMs())} ms, of the modest volume ${Math.round(modest.takeLongestMs())} ms`,
  );
}

async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const began = performance.now();
  while (!(await isSo())) {
    if (performance.now() - began > WAIT_MS_MAX) throw new Error(`${what}: not within ${WAIT_MS_MAX} ms`);
    await pause(25);
  }
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
