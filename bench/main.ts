/**
 * `npm run bench`: vferry and NFS-Ganesha on the same disk under the same load, alternating; see `options.ts` for the flags. With `backends` or `cluster`
 * as the first word: Storage Backends (`backends.ts`), or two routers of a cluster (`cluster.ts`).
 * Ends with exit code 1 only when something did not work, not when a goal was missed.
 */
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';

import { benchBackends } from './backends.ts';
import type { BenchCase } from './cases.ts';
import { CACHED_REGION_BYTES, CASES } from './cases.ts';
import { benchCluster } from './cluster.ts';
import { hottest, profileWhile } from './cpu-profile.ts';
import { measureDiskLimit } from './disk-limit.ts';
import { writeDocsBlock } from './docs-block.ts';
import { LoadProcess } from './load-process.ts';
import type { LoadResult, Workload } from './nfs-load.ts';
import { BLOCK_BYTES } from './nfs-load.ts';
import type { BenchOptions } from './options.ts';
import { parseOptions, USAGE } from './options.ts';
import { isInside, namespaceObstacle, runInside } from './private-namespace.ts';
import type { CaseScore, Score } from './score.ts';
import { isGeneratorTooSlow, judge, median, scoreOf, summaryLine, table } from './score.ts';
import { cpuTicks, machineTicks, settle, startGanesha, startRecordLoop, startVferry } from './targets.ts';

const INSPECTOR_PORT = 9339;
/** One short run before the measured ones, so that both servers and the generator are compiled and their caches filled. */
const WARM_UP_SECONDS = 0.4;
/** Uploads, checkpoints and preallocation begin up to a second after the last write. */
const QUIET_AFTER_WRITES_MS = 1300;

function workOf(bench: BenchCase, options: BenchOptions, seconds: number, seed: number): Workload {
  const regionBytes = bench.region === 'cached' ? Math.min(CACHED_REGION_BYTES, options.fileBytes) : options.fileBytes;
  return { ...bench.work, regionBytes, seconds, seed };
}

/** Writes the file twice: the first touch of page cache and of fresh disk blocks is several times slower (toolchain.md 7). */
async function fill(load: LoadProcess, fileBytes: number): Promise<void> {
  const work: Workload = {
    kind: 'write-sequential',
    outstanding: 8,
    ioBytes: 2 ** 20,
    stability: 'UNSTABLE',
    regionBytes: fileBytes,
    seconds: 60,
    seed: 99,
  };
  for (let pass = 0; pass < 2; pass++) await load.run(work);
}

async function warmUp(load: LoadProcess, bench: BenchCase, options: BenchOptions): Promise<void> {
  if (bench.work.kind === 'write-sequential') return;
  if (bench.region === 'cached') {
    // Every block once, in the size that will be asked for: whatever a server keeps in RAM is there then.
    const regionBytes = Math.min(CACHED_REGION_BYTES, options.fileBytes);
    const pass = { kind: 'read-sequential', outstanding: 32, ioBytes: BLOCK_BYTES, stability: 'UNSTABLE', isOnePass: true } as const;
    await load.run({ ...pass, regionBytes, seconds: 60, seed: 99 });
  }
  await load.run(workOf(bench, options, WARM_UP_SECONDS, options.seed + 1000));
}

async function measure(bench: BenchCase, loads: readonly LoadProcess[], loop: LoadProcess, options: BenchOptions): Promise<CaseScore> {
  const runs = new Map<LoadProcess, LoadResult[]>(loads.map((load) => [load, []]));
  let unsettledRounds = 0;
  const foreignPercents: number[] = [];
  const targets = loads.map((load) => load.target);
  const isWriting = bench.work.kind === 'mix' || bench.work.kind.startsWith('write');
  for (const load of loads) await warmUp(load, bench, options);
  for (let round = 0; round < options.rounds; round++) {
    // Whoever begins changes, so that neither always finds the disk as the other left it.
    for (const load of round % 2 === 0 ? loads : loads.toReversed()) {
      const quietMs = isWriting || round === 0 ? QUIET_AFTER_WRITES_MS : 0;
      if (!(await settle(targets, quietMs))) unsettledRounds += 1;
      const ticksBefore = machineTicks() - targets.reduce((sum, target) => sum + cpuTicks(target.pid), 0);
      const run = await load.run(workOf(bench, options, options.seconds, options.seed + round));
      const ticks = machineTicks() - targets.reduce((sum, target) => sum + cpuTicks(target.pid), 0) - ticksBefore;
      foreignPercents.push(Math.max(0, ((ticks * 10 - run.cpuMs) / run.elapsedMs) * 100));
      runs.get(load)!.push(run);
    }
  }
  const scores = new Map(loads.map((load) => [load.target.name, scoreOf(runs.get(load)!)]));
  const ceilings: Score[] = [];
  for (let round = 0; round < 2; round++)
    ceilings.push(scoreOf([await loop.run(workOf(bench, options, Math.min(1, options.seconds), options.seed))]));
  return {
    bench,
    vferry: scores.get('vferry') ?? null,
    ganesha: scores.get('ganesha') ?? null,
    ceiling: ceilings.toSorted((a, b) => b.operationsPerSecond - a.operationsPerSecond)[0]!,
    unsettledRounds,
    foreignPercent: median(foreignPercents),
  };
}

async function diskLimits(scratch: string, seconds: number): Promise<string[]> {
  const lines: string[] = [];
  for (const outstanding of [1, 32]) {
    const { operationsPerSecond, histogram } = await measureDiskLimit(join(scratch, 'disk-limit'), outstanding, seconds);
    lines.push(
      `group-committed fdatasync of 4 KiB records on a preallocated file, ${outstanding} outstanding: ${operationsPerSecond.toFixed(0)} op/s, ` +
        `p50 ${histogram.quantileUs(0.5).toFixed(0)} us, p99 ${histogram.quantileUs(0.99).toFixed(0)} us`,
    );
  }
  return lines;
}

function commandOutput(program: string, args: readonly string[]): string {
  try {
    return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    // Only a line of the heading: a machine without git or dpkg still gets its table.
    return 'unknown';
  }
}

function heading(options: BenchOptions, args: readonly string[]): string[] {
  const cpus = os.cpus();
  const root = join(import.meta.dirname, '..');
  return [
    `machine: ${cpus.length} x ${cpus[0]?.model.trim() ?? 'unknown'}, ${(os.totalmem() / 2 ** 30).toFixed(0)} GiB RAM, kernel ${os.release()}`,
    `versions: Node ${process.versions.node}, vferry ${commandOutput('git', ['-C', root, 'describe', '--always', '--dirty'])}, ` +
      `NFS-Ganesha ${commandOutput('dpkg-query', ['-W', '-f=${Version}', 'nfs-ganesha'])}`,
    `command: npm run bench${args.length === 0 ? '' : ` -- ${args.join(' ')}`}   (${options.rounds} rounds of ${options.seconds} s, file ` +
      `${options.fileBytes / 2 ** 20} MiB, cached region ${CACHED_REGION_BYTES / 2 ** 20} MiB, seed ${options.seed}, data in ${options.directory}, ${new Date().toISOString()})`,
    'one connection each; pairs are vferry / Ganesha; ratio = operations per second; ceiling = the generator against a bare record loop',
  ];
}

async function profile(scratch: string, name: string, options: BenchOptions): Promise<void> {
  const bench = CASES.find((one) => one.name === name)!;
  await using vferry = await startVferry(scratch, { command: options.vferryCommand, nodeArgs: [`--inspect=127.0.0.1:${INSPECTOR_PORT}`] });
  await using load = await LoadProcess.start(vferry, options.fileName);
  await fill(load, options.fileBytes);
  await warmUp(load, bench, options);
  await settle([vferry], QUIET_AFTER_WRITES_MS);
  const results: LoadResult[] = [];
  const taken = await profileWhile(INSPECTOR_PORT, async () => {
    const endMs = performance.now() + options.seconds * 1000;
    do results.push(await load.run(workOf(bench, options, options.seconds, options.seed)));
    while (performance.now() < endMs);
  });
  const score = scoreOf(results);
  const rate = `${score.operationsPerSecond.toFixed(0)} op/s, ${score.megabytesPerSecond.toFixed(0)} MB/s, p50 ${score.p50Us.toFixed(0)} us, p99 ${score.p99Us.toFixed(0)} us`;
  console.log(`${bench.title}: ${rate} (while profiled)\nself time of vferry's main thread:`);
  for (const line of hottest(taken, 40)) console.log(line);
  const path = join(options.directory, `${name}.cpuprofile`);
  fs.writeFileSync(path, JSON.stringify(taken));
  console.log(`profile: ${path}`);
}

async function compare(scratch: string, options: BenchOptions, args: readonly string[]): Promise<void> {
  const cases = CASES.filter((one) => options.filters.length === 0 || options.filters.some((filter) => one.name.includes(filter)));
  const head = heading(options, args);
  for (const line of head) console.log(line);
  await using stack = new AsyncDisposableStack();
  const loop = stack.use(await LoadProcess.start(stack.use(await startRecordLoop()), options.fileName));
  const loads: LoadProcess[] = [];
  if (options.only !== 'ganesha') {
    const vferry = stack.use(await startVferry(scratch, { command: options.vferryCommand, nodeArgs: [] }));
    loads.push(stack.use(await LoadProcess.start(vferry, options.fileName)));
  }
  if (options.only !== 'vferry') {
    const obstacle = isInside() ? null : (namespaceObstacle() ?? 'not in a private network namespace');
    if (obstacle === null) loads.push(stack.use(await LoadProcess.start(stack.use(await startGanesha(scratch)), options.fileName)));
    else console.log(`without NFS-Ganesha: ${obstacle}`);
  }
  for (const load of loads) await fill(load, options.fileBytes);
  const scores: CaseScore[] = [];
  for (const bench of cases) {
    const score = await measure(bench, loads, loop, options);
    scores.push(score);
    console.log(summaryLine(score));
  }
  const limits = await diskLimits(scratch, Math.min(2, options.seconds));
  const missed = scores.filter((score) => judge(score).missed.length > 0).map((score) => score.bench.name);
  const bound = scores.filter(isGeneratorTooSlow).map((score) => score.bench.name);
  const foreign = median(scores.map((score) => score.foreignPercent));
  const tail = [
    ...limits,
    `CPU used by others while measuring: ${foreign.toFixed(0)} % of one core (median; the kernel's disk threads included); load average at the end: ${os.loadavg()[0]!.toFixed(1)}`,
    bound.length === 0 ? 'The generator was nowhere the bottleneck.' : `The generator bounds: ${bound.join(', ')}.`,
    missed.length === 0 ? 'Every goal with a peer to compare with is met.' : `Missed goals: ${missed.join(', ')}.`,
  ];
  console.log(`\n${table(scores)}\n\n${tail.join('\n')}`);
  if (options.writeDocs) {
    writeDocsBlock('bench', [...head.map((line) => `- ${line}`), '', table(scores), '', ...tail.map((line) => `- ${line}`)].join('\n'));
  }
}

async function main(args: readonly string[]): Promise<number> {
  if (args[0] === 'backends') return await benchBackends(args.slice(1));
  if (args[0] === 'cluster') return await benchCluster(args.slice(1));
  if (args.includes('--help')) {
    console.log(USAGE);
    return 0;
  }
  let options: BenchOptions;
  try {
    options = parseOptions(args);
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${USAGE}`);
    return 2;
  }
  const scratchRoot = process.env['BENCH_SCRATCH'];
  if (scratchRoot !== undefined) {
    if (options.profile === null) await compare(scratchRoot, options, args);
    else await profile(scratchRoot, options.profile, options);
    return 0;
  }
  // This outer process owns the scratch directory, so that it goes whatever becomes of the inner one.
  fs.mkdirSync(options.directory, { recursive: true });
  const scratch = fs.mkdtempSync(join(options.directory, 'run-'));
  process.env['BENCH_SCRATCH'] = scratch;
  try {
    const obstacle = namespaceObstacle();
    if (obstacle === null) return await runInside([import.meta.filename, ...args]);
    return await main(args);
  } finally {
    fs.rmSync(scratch, { recursive: true, force: true });
  }
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
}
