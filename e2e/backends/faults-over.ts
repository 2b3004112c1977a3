/**
 * The Storage Backend breaks under a router at work, in every way that a test can arrange: writes go on until the bound of dirty data, then wait; nothing
 * fails and nothing is lost; reads of what is cached go on; it is told within a second or so, and is over by itself.
 */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';

import { Stability, Status } from '../../server/nfsd/file-system.ts';
import { connectStore } from '../datastore-client.ts';
import { allWell, problemsOf } from '../faults/problem.ts';
import { metric } from '../metrics-page.ts';
import { SeededRandom } from '../random.ts';
import { RouterProcess } from '../router-process.ts';
import { StampedVolume } from '../stamped-volume.ts';
import type { StoreClient } from '../store-client.ts';
import type { Backend } from './backend-fixture.ts';
import { coldRestart, drained } from './cold-restart.ts';

const MIB = 1024 * 1024;
const BLOCK_BYTES = 65_536;
const VOLUME_BYTES = 40 * MIB;
/** A block that is written first and then only read: it is in the RAM cache. */
const CACHED_BYTES = 4 * MIB;
const DIRTY_BYTES_MAX = 24 * MIB;

/** Small segments that go up soon, and a bound of dirty data that a few seconds of load reach. */
export const FAULT_SETTINGS = {
  VFERRY_LOG_SEGMENT_BYTES: '4MiB',
  VFERRY_LOG_SEAL_AFTER_MS: '300ms',
  VFERRY_LOG_DIRTY_BYTES_MAX: String(DIRTY_BYTES_MAX),
  VFERRY_CACHE_RAM_BYTES: '32MiB',
};

export interface BackendFault {
  /** What is done, for the name of the test: `the object server is killed`. */
  readonly name: string;
  breakIt(): Promise<void> | void;
  repairIt(): Promise<void> | void;
  /** False: the backend still takes objects, so nothing needs to be told and no write waits. Default true. */
  readonly stopsUploads?: boolean;
}

/** How long a write may wait: as long as the fault and the recovery take. A hard NFS mount waits for ever. */
const PATIENCE_MS = 240_000;

/** A volume under 8 writers that never stop by themselves and keep count of what they were told. */
class Writers {
  readonly statuses = new Map<number, number>();
  written = 0;
  /** Longest time that a write took. */
  longestMs = 0;
  readonly #volume: StampedVolume;
  readonly #random: SeededRandom;
  #over = false;

  constructor(volume: StampedVolume, seed: number) {
    this.#volume = volume;
    this.#random = new SeededRandom(seed);
  }

  end(): void {
    this.#over = true;
  }

  /** Rejects when a write got no answer within `PATIENCE_MS`. */
  async run(client: StoreClient): Promise<void> {
    const worker = async (): Promise<void> => {
      while (!this.#over) {
        const blocks = (this.#volume.sizeBytes - CACHED_BYTES) / BLOCK_BYTES;
        const offsetBytes = CACHED_BYTES + this.#random.below(blocks) * BLOCK_BYTES;
        if (!this.#volume.model.isFree(offsetBytes, BLOCK_BYTES)) {
          await new Promise((resolve) => setTimeout(resolve, 1));
          continue;
        }
        const started = performance.now();
        const status = await this.#volume.write(client, offsetBytes, BLOCK_BYTES, Stability.FILE_SYNC);
        this.longestMs = Math.max(this.longestMs, performance.now() - started);
        this.statuses.set(status, (this.statuses.get(status) ?? 0) + 1);
        if (status === Status.OK) this.written += 1;
        else await new Promise((resolve) => setTimeout(resolve, 100));
      }
    };
    await Promise.all(Array.from({ length: 8 }, worker));
  }
}

/** Each fault in turn at one router, as subtests of `t`. */
export async function faultsOver(t: TestContext, backend: Backend, vpool: string, faults: readonly BackendFault[], path?: number): Promise<void> {
  const router = await RouterProcess.createForTest(t, { vpool, environment: { ...FAULT_SETTINGS, ...backend.environment(path) } });
  await router.start();
  let id = 0;
  for (const fault of faults) {
    id += 1;
    const volumeId = id;
    await t.test(`${backend.name}: ${fault.name}`, async (sub) => {
      await throughFault(sub, router, fault, volumeId);
    });
  }
  await coldRestart(router);
  await router.stop();
  const checked = await router.fsck();
  assert.equal(checked.code, 0, checked.output);
}

async function throughFault(t: TestContext, router: RouterProcess, fault: BackendFault, id: number): Promise<void> {
  await using client = await connectStore(router, { timeoutMs: PATIENCE_MS });
  const volume = await StampedVolume.create(client, id, VOLUME_BYTES);
  for (let at = 0; at < CACHED_BYTES; at += MIB) assert.equal(await volume.write(client, at, MIB, Stability.FILE_SYNC), Status.OK);
  const cached = volume.model.current(0, CACHED_BYTES);
  await drained(router);
  const writers = new Writers(volume, id);
  const running = writers.run(client);
  running.catch(() => undefined);
  try {
    await until('load', () => writers.written > 100);
    const brokenAt = performance.now();
    await fault.breakIt();
    const repaired = async (): Promise<void> => {
      await fault.repairIt();
    };
    try {
      if (fault.stopsUploads === false) await goesOn(t, writers);
      else await waitsAtTheBound(t, { router, writers, client, volume, cached, brokenAt });
    } finally {
      await repaired();
    }
    const repairedAt = performance.now();
    const before = writers.written;
    await router.waitForReadyz(allWell);
    await until('writes after the repair', () => writers.written > before + 50);
    t.diagnostic(
      `well ${Math.round(performance.now() - repairedAt)} ms after the repair; ${writers.written} writes, the longest took ${Math.round(writers.longestMs)} ms`,
    );
  } finally {
    writers.end();
    await running;
  }
  for (const [status, count] of writers.statuses) {
    // JUKEBOX is "later", which no guest sees; anything else would be an error in the VM.
    assert.ok(status === Status.OK || status === Status.JUKEBOX, `${count} writes were answered with status ${status}`);
  }
  assert.deepEqual(await volume.verify(client), []);
  await coldRestart(router);
  await using again = await connectStore(router, { timeoutMs: PATIENCE_MS });
  assert.deepEqual(await volume.verify(again), [], 'read back from the backend');
  // The next fault gets a datastore that has the space and the time to itself.
  assert.equal((await again.remove(again.root, volume.name)).status, Status.OK);
}

interface Outage {
  readonly router: RouterProcess;
  readonly writers: Writers;
  readonly client: StoreClient;
  readonly volume: StampedVolume;
  readonly cached: Buffer;
  readonly brokenAt: number;
}

async function waitsAtTheBound(t: TestContext, outage: Outage): Promise<void> {
  const { router, writers, volume, cached, brokenAt } = outage;
  const before = writers.written;
  const told = await router.waitForReadyz((answer) => answer.status !== 0 && problemsOf(answer).codes.includes('backend'));
  t.diagnostic(`told after ${Math.round(performance.now() - brokenAt)} ms: ${problemsOf(told).text}`);
  // They go on as far as the bound allows, and stop there.
  await until('the bound of dirty data', async () => problemsOf(await router.http('/readyz')).codes.includes('dirty-bound'));
  const dirtyBytes = metric((await router.http('/metrics')).body, 'vferry_dirty_bytes');
  t.diagnostic(`${writers.written - before} writes after it broke, ${dirtyBytes} bytes dirty at the bound of ${DIRTY_BYTES_MAX}`);
  assert.ok(writers.written > before, 'no write was acknowledged after the backend had gone');
  // What was admitted may pass the bound by what is under way, and by the heads of the records.
  assert.ok(dirtyBytes < DIRTY_BYTES_MAX * 1.25, `${dirtyBytes} bytes are dirty`);
  // Another client, since a client's own connection may be held back.
  await using reader = await connectStore(router, { timeoutMs: PATIENCE_MS });
  for (let at = 0; at < CACHED_BYTES; at += MIB) {
    const answer = await reader.read(volume.handle, at, BLOCK_BYTES);
    assert.equal(answer.status, Status.OK, 'a READ of cached data');
    assert.ok(answer.data.equals(cached.subarray(at, at + BLOCK_BYTES)), `wrong data at ${at}`);
  }
  assert.equal((await reader.getattr(volume.handle)).status, Status.OK);
}

async function goesOn(t: TestContext, writers: Writers): Promise<void> {
  const before = writers.written;
  await until('writes go on', () => writers.written > before + 400);
  t.diagnostic(`${writers.written - before} writes meanwhile`);
}

async function until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
  const started = performance.now();
  while (!(await isSo())) {
    if (performance.now() - started > PATIENCE_MS) throw new Error(`${what}: not within ${PATIENCE_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
