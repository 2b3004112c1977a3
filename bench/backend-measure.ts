/** Measures one Storage Backend under a router: writes and how they get there, cold reads, and what uploads do to those who wait for the router. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { makeStore } from '../backends/make-store.ts';
import type { BareStoreConfig } from '../backends/upload-thread/hosted-store.ts';
import { coldRestart, drained } from '../e2e/backends/cold-restart.ts';
import { metric } from '../e2e/metrics-page.ts';
import type { RouterProcess } from '../e2e/router-process.ts';
import type { BackendScore, BackendTraffic, RandomReadScore, SequentialReadScore, UploadEffect, WriteScore } from './backend-score.ts';
import { LatencyHistogram } from './latency-histogram.ts';
import { LoadProcess } from './load-process.ts';
import type { LoadResult, Workload } from './nfs-load.ts';
import type { PlainDownload } from './plain-download.ts';
import { median } from './score.ts';
import type { Target } from './targets.ts';
import { addSizes } from './vpool-objects.ts';

const MIB = 2 ** 20;
const DRAIN_MS_MAX = 300_000;
/** Small enough for the RAM cache, in front of the file. */
const CACHED_BYTES = 32 * MIB;

export interface BackendUnderTest {
  readonly name: string;
  /** Started; gone with its caller. */
  readonly router: RouterProcess;
  /** Null: the directory backend of that router. */
  readonly store: BareStoreConfig | null;
  /** Stops the backend from taking anything, and lets it go on: for an upload with a backlog. Null where that can't be done. */
  readonly hold: { readonly pause: () => void; readonly resume: () => void } | null;
}

export interface MeasureOptions {
  readonly fileBytes: number;
  /** Length of a run of random operations. */
  readonly seconds: number;
  /** Cold sequential reads and plain downloads, in turn. */
  readonly rounds: number;
  readonly seed: number;
  readonly progress: (line: string) => void;
}

export async function measureBackend(under: BackendUnderTest, options: MeasureOptions): Promise<BackendScore> {
  const measurement = new Measurement(under, options);
  const sequentialWrite = await measurement.writes('sequential write', {
    kind: 'write-sequential',
    outstanding: 8,
    ioBytes: MIB,
    stability: 'UNSTABLE',
    regionBytes: options.fileBytes,
    seconds: 600,
  });
  const sequentialRead = await measurement.sequentialReads();
  const randomRead = await measurement.randomReads();
  const randomWrite = await measurement.writes('random write', {
    kind: 'write-random',
    outstanding: 32,
    ioBytes: 4096,
    stability: 'FILE_SYNC',
    regionBytes: options.fileBytes,
    seconds: options.seconds * 2,
  });
  const uploadEffect = await measurement.uploadEffect();
  return { name: under.name, sequentialWrite, sequentialRead, randomRead, randomWrite, uploadEffect };
}

type Work = Omit<Workload, 'seed'>;

class Measurement {
  readonly #under: BackendUnderTest;
  readonly #options: MeasureOptions;
  /** Of the objects on the backend, by bucket and name. */
  readonly #sizes = new Map<string, number>();

  constructor(under: BackendUnderTest, options: MeasureOptions) {
    this.#under = under;
    this.#options = options;
  }

  async writes(title: string, work: Work): Promise<WriteScore> {
    const { router } = this.#under;
    await this.#settled();
    const before = await this.#traffic();
    const storedBefore = await this.#storedBytes();
    const run = await this.#run('bench-flat.vmdk', work);
    const acknowledged = performance.now();
    await drained(router, DRAIN_MS_MAX);
    const drainMs = performance.now() - acknowledged;
    // Checkpoints follow when an object is quiet: they belong to what was written.
    await this.#settled();
    const score: WriteScore = {
      guestBytes: run.payloadBytes,
      operationsPerSecond: (run.operations / run.elapsedMs) * 1000,
      megabytesPerSecond: run.payloadBytes / run.elapsedMs / 1000,
      drainMs,
      traffic: difference(await this.#traffic(), before),
      storedBytes: (await this.#storedBytes()) - storedBefore,
    };
    this.#progress(`${title}: ${score.megabytesPerSecond.toFixed(0)} MB/s, drained after ${(drainMs / 1000).toFixed(1)} s`);
    return score;
  }

  async sequentialReads(): Promise<SequentialReadScore> {
    const { router } = this.#under;
    const { fileBytes, rounds } = this.#options;
    const rates: number[] = [];
    const plainRates: number[] = [];
    let traffic: BackendTraffic | null = null;
    for (let round = 0; round < rounds; round += 1) {
      await coldRestart(router);
      const before = await this.#traffic();
      const run = await this.#run('bench-flat.vmdk', {
        kind: 'read-sequential',
        outstanding: 8,
        ioBytes: MIB,
        stability: 'UNSTABLE',
        regionBytes: fileBytes,
        seconds: 600,
        isOnePass: true,
      });
      rates.push(run.payloadBytes / run.elapsedMs / 1000);
      traffic = difference(await this.#traffic(), before);
      const plain = await this.#plainDownload();
      plainRates.push(plain.bytes / plain.elapsedMs / 1000);
    }
    if (traffic === null) throw new Error('no rounds');
    const score = { megabytesPerSecond: median(rates), plainMegabytesPerSecond: median(plainRates), guestBytes: fileBytes, traffic };
    this.#progress(
      `cold sequential read: ${rates.map((rate) => rate.toFixed(0)).join(', ')} MB/s; plain download: ${plainRates.map((rate) => rate.toFixed(0)).join(', ')} MB/s`,
    );
    return score;
  }

  async randomReads(): Promise<RandomReadScore> {
    await coldRestart(this.#under.router);
    const before = await this.#traffic();
    const run = await this.#run('bench-flat.vmdk', {
      kind: 'read-random',
      outstanding: 8,
      ioBytes: 4096,
      stability: 'UNSTABLE',
      regionBytes: this.#options.fileBytes,
      seconds: this.#options.seconds,
    });
    const traffic = difference(await this.#traffic(), before);
    const histogram = new LatencyHistogram(run.latencyCounts, run.latencyMaxUs);
    const operationsPerSecond = (run.operations / run.elapsedMs) * 1000;
    this.#progress(`cold random read: ${operationsPerSecond.toFixed(0)} op/s`);
    return { operations: run.operations, operationsPerSecond, p50Us: histogram.quantileUs(0.5), p99Us: histogram.quantileUs(0.99), traffic };
  }

  /** Small writes and cached reads of one file, without and with an upload of another. */
  async uploadEffect(): Promise<UploadEffect> {
    const { router, hold } = this.#under;
    await using small = await this.#load('small-flat.vmdk');
    const write: Work = { kind: 'write-random', outstanding: 4, ioBytes: 4096, stability: 'FILE_SYNC', regionBytes: CACHED_BYTES, seconds: 0.5 };
    const read: Work = { ...write, kind: 'read-random', stability: 'UNSTABLE' };
    const fill: Work = { ...write, kind: 'write-sequential', outstanding: 8, ioBytes: MIB, stability: 'UNSTABLE', seconds: 60 };
    await this.#order(small, fill);
    await this.#order(small, { ...read, kind: 'read-sequential', ioBytes: 65_536, seconds: 60, isOnePass: true });
    await this.#settled();
    const idle = await this.#p99s(small, write, read, 4, () => true);

    hold?.pause();
    const backlogBytes = this.#options.fileBytes;
    await this.#run('backlog-flat.vmdk', { ...fill, regionBytes: backlogBytes, seconds: 600 });
    hold?.resume();
    const uploading = await this.#whenUploading(backlogBytes);
    const before = await this.#traffic();
    const startMs = performance.now();
    const busy = uploading ? await this.#p99s(small, write, read, 12, async () => (await this.#dirtyBytes()) > 48 * MIB) : null;
    const traffic = difference(await this.#traffic(), before);
    const uploadMegabytesPerSecond = busy === null ? null : traffic.writtenBytes / (performance.now() - startMs) / 1000;
    await drained(router, DRAIN_MS_MAX);
    this.#progress(
      `p99 of writes ${idle?.write.toFixed(0)} -> ${busy?.write.toFixed(0) ?? '-'} us, of cached reads ${idle?.read.toFixed(0)} -> ${busy?.read.toFixed(0) ?? '-'} us`,
    );
    return {
      writeP99Us: idle?.write ?? 0,
      writeP99UploadingUs: busy?.write ?? null,
      readP99Us: idle?.read ?? 0,
      readP99UploadingUs: busy?.read ?? null,
      uploadMegabytesPerSecond,
    };
  }

  /** Writes and reads in turn, at most `pairs` times as long as `goesOn`; null when not even one pair was done in it. */
  async #p99s(
    load: LoadProcess,
    write: Work,
    read: Work,
    pairs: number,
    goesOn: () => boolean | Promise<boolean>,
  ): Promise<{ write: number; read: number } | null> {
    const writes = new LatencyHistogram();
    const reads = new LatencyHistogram();
    let done = 0;
    while (done < pairs) {
      const written = await this.#order(load, write);
      const readBack = await this.#order(load, read);
      // A pair that outlasted the upload is not one beside it.
      if (!(await goesOn())) break;
      writes.add(new LatencyHistogram(written.latencyCounts, written.latencyMaxUs));
      reads.add(new LatencyHistogram(readBack.latencyCounts, readBack.latencyMaxUs));
      done += 1;
    }
    return done === 0 ? null : { write: writes.quantileUs(0.99), read: reads.quantileUs(0.99) };
  }

  /** Waits until a backlog is being worked off; false when there is none any more. */
  async #whenUploading(backlogBytes: number): Promise<boolean> {
    for (;;) {
      const dirtyBytes = await this.#dirtyBytes();
      if (dirtyBytes < backlogBytes / 4) return false;
      if (dirtyBytes < backlogBytes * 0.97) return true;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Nothing is dirty and nothing is asked of the backend. */
  async #settled(): Promise<void> {
    const { router } = this.#under;
    await drained(router, DRAIN_MS_MAX);
    let before = await this.#traffic();
    for (let quiet = 0; quiet < 3;) {
      await new Promise((resolve) => setTimeout(resolve, 500));
      const now = await this.#traffic();
      quiet = now.puts === before.puts && now.gets === before.gets ? quiet + 1 : 0;
      before = now;
    }
  }

  get #storeConfig(): BareStoreConfig {
    return this.#under.store ?? directoryConfig(this.#under.router);
  }

  async #storedBytes(): Promise<number> {
    await using made = await makeStore({ store: this.#storeConfig, layout: { kind: 'buckets' }, encoding: null });
    await addSizes(made.store, this.#under.router.vpool, this.#sizes);
    return [...this.#sizes.values()].reduce((sum, sizeBytes) => sum + sizeBytes, 0);
  }

  async #plainDownload(): Promise<PlainDownload> {
    const { router } = this.#under;
    const config = JSON.stringify(this.#storeConfig);
    const program = join(import.meta.dirname, 'plain-download.ts');
    const { stdout } = await promisify(execFile)(process.execPath, [program, router.vpool], { env: { ...process.env, BENCH_STORE: config } });
    return JSON.parse(stdout) as PlainDownload;
  }

  async #run(fileName: string, work: Work): Promise<LoadResult> {
    await using load = await this.#load(fileName);
    return await this.#order(load, work);
  }

  async #order(load: LoadProcess, work: Work): Promise<LoadResult> {
    return await load.run({ ...work, seed: this.#options.seed });
  }

  #load(fileName: string): Promise<LoadProcess> {
    const { router, name } = this.#under;
    const target: Target = {
      name,
      pid: router.pid,
      nfsPort: router.nfsPort,
      mountPort: router.nfsPort,
      exportPath: `/${router.vpool}`,
      async [Symbol.asyncDispose]() {},
    };
    return LoadProcess.start(target, fileName);
  }

  async #dirtyBytes(): Promise<number> {
    return metric((await this.#under.router.http('/metrics')).body, 'vferry_dirty_bytes');
  }

  async #traffic(): Promise<BackendTraffic> {
    const page = (await this.#under.router.http('/metrics')).body;
    const requests = (kind: string): number => metric(page, 'vferry_backend_requests_total', { kind });
    const [puts, gets, heads] = [requests('put'), requests('get'), requests('head')];
    return {
      puts,
      gets,
      heads,
      others: metric(page, 'vferry_backend_requests_total') - puts - gets - heads,
      writtenBytes: metric(page, 'vferry_backend_written_bytes_total'),
      readBytes: metric(page, 'vferry_backend_read_bytes_total'),
    };
  }

  #progress(line: string): void {
    this.#options.progress(`${this.#under.name}: ${line}`);
  }
}

function difference(after: BackendTraffic, before: BackendTraffic): BackendTraffic {
  return {
    puts: after.puts - before.puts,
    gets: after.gets - before.gets,
    heads: after.heads - before.heads,
    others: after.others - before.others,
    writtenBytes: after.writtenBytes - before.writtenBytes,
    readBytes: after.readBytes - before.readBytes,
  };
}

function directoryConfig(router: RouterProcess): BareStoreConfig {
  const known = JSON.parse(readFileSync(join(router.dataDirectory, 'vpools', router.vpool, 'vpool.json'), 'utf8')) as { uuid: string };
  return { kind: 'directory', path: join(router.dataDirectory, 'backend'), vpoolUuid: known.uuid, initialize: false };
}
