/**
 * `npm run bench -- backends`: a router over each Storage Backend in turn, real Swift and real Ceph on this machine's loopback among them. What they give
 * here says little of what they give elsewhere: they share the processors with the router and the load. Requests, bytes and ratios are the point.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { type Backend, directoryBackend, s3apiOf, startCeph, startSwift, type SwiftBackend } from '../e2e/backends/backend-fixture.ts';
import { RouterProcess } from '../e2e/router-process.ts';
import { scratchDirectory } from '../e2e/scratch.ts';
import { type BackendUnderTest, measureBackend, type MeasureOptions } from './backend-measure.ts';
import { type BackendScore, backendTable, missedGoals } from './backend-score.ts';
import { optionsOf } from './command-line.ts';
import { writeDocsBlock } from './docs-block.ts';

const NAMES = ['directory', 'swift', 's3', 's3api', 'swift-encoded'] as const;
type Name = (typeof NAMES)[number];

const USAGE = `usage: npm run bench -- backends [NAME ...] [options]
  NAME               of ${NAMES.join(', ')}: the directory in the data directory (hard links), Swift, S3 of Ceph radosgw, S3 of Swift, Swift with zstd and AES-256-GCM
  --size MIB         file size in MiB (256)
  --seconds S        length of a run of random operations (3)
  --rounds N         cold sequential reads (2)
  --seed N           (1)
  --write-docs       write the table to docs/PERFORMANCE.md
`;

/** Open segments do not wait 30 s for more when a run is over. */
const SEAL_AFTER = '2s';

/** Where the services keep their data: elsewhere they have disks of their own, here their fsync must not wait for the router's, nor the router's for theirs. */
const MEMORY = '/dev/shm';

interface Options extends Omit<MeasureOptions, 'progress'> {
  readonly names: readonly Name[];
  readonly writeDocs: boolean;
}

/** The exit code. */
export async function benchBackends(args: readonly string[]): Promise<number> {
  const options = optionsOf(args, USAGE, parse);
  if (typeof options === 'number') return options;
  const head = heading(options, args);
  for (const line of head) print(line);
  const scores = await measureAll(options);
  const missed = missedGoals(scores);
  const table = backendTable(scores);
  const verdict = missed.length === 0 ? 'Every goal is met.' : `Missed: ${missed.join('; ')}.`;
  print(`\n${table}\n\n${verdict}`);
  if (options.writeDocs) writeDocsBlock('bench-backends', [...head.map((line) => `- ${line}`), '', table, '', `- ${verdict}`].join('\n'));
  return 0;
}

async function measureAll(options: Options): Promise<BackendScore[]> {
  const scores: BackendScore[] = [];
  const measure = async (
    name: Name,
    backend: Backend,
    hold: BackendUnderTest['hold'],
    more: Readonly<Record<string, string>> = {},
  ): Promise<void> => {
    if (!options.names.includes(name)) return;
    await using scratch = await scratchDirectory(`bench-${name}`);
    const environment = { VFERRY_LOG_SEAL_AFTER_MS: SEAL_AFTER, ...backend.environment(), ...more };
    await using router = await RouterProcess.create({ dataDirectory: join(scratch.path, 'data'), vpool: name, environment });
    await router.start();
    scores.push(await measureBackend({ name, router, store: backend.store, hold }, { ...options, progress: print }));
    await router.stop(30_000);
  };
  await measure('directory', directoryBackend, null);
  if (options.names.some((name) => name === 'swift' || name === 's3api' || name === 'swift-encoded')) {
    await using stack = new AsyncDisposableStack();
    const swift = await startSwift(stack, { scratch: await scratchDirectory('bench-swift', MEMORY) });
    const hold = holdOf(swift);
    for (const part of ['proxy', 'object', 'container', 'account', 'memcached'] as const) yieldTo(swift.service.pid(part));
    await measure('swift', swift, hold);
    await measure('s3api', s3apiOf(swift), hold);
    const key = createHash('sha256').update('bench').digest('hex');
    await measure('swift-encoded', swift, hold, {
      VFERRY_VPOOL_BACKEND_COMPRESSION: 'zstd',
      VFERRY_VPOOL_BACKEND_ENCRYPTION: 'aes-256-gcm',
      VFERRY_VPOOL_BACKEND_KEY: key,
    });
  }
  if (options.names.includes('s3')) {
    await using stack = new AsyncDisposableStack();
    const ceph = await startCeph(stack, { scratch: await scratchDirectory('bench-ceph', MEMORY) });
    for (const part of [ceph.service.rgw, ceph.service.osd]) yieldTo(part.pid());
    await measure('s3', ceph, { pause: () => ceph.service.rgw.pause(), resume: () => ceph.service.rgw.resume() });
  }
  return NAMES.flatMap((name) => scores.filter((score) => score.name === name));
}

function holdOf({ service }: SwiftBackend): BackendUnderTest['hold'] {
  return { pause: () => service.pause('proxy'), resume: () => service.resume('proxy') };
}

/** Lowest priority for all threads of a service: elsewhere it has processors of its own, here it must not take the router's. */
function yieldTo(pid: number): void {
  for (const thread of readdirSync(`/proc/${pid}/task`)) os.setPriority(Number(thread), os.constants.priority.PRIORITY_LOW);
}

function heading(options: Options, args: readonly string[]): string[] {
  const cpus = os.cpus();
  const version = execFileSync('git', ['-C', join(import.meta.dirname, '..'), 'describe', '--always', '--dirty'], { encoding: 'utf8' }).trim();
  return [
    `machine: ${cpus.length} x ${cpus[0]?.model.trim() ?? 'unknown'}, ${(os.totalmem() / 2 ** 30).toFixed(0)} GiB RAM, kernel ${os.release()}; load average before: ${os.loadavg()[0]?.toFixed(1)}`,
    `versions: Node ${process.versions.node}, vferry ${version}`,
    `command: npm run bench -- backends${args.length === 0 ? '' : ` ${args.join(' ')}`}   (file ${options.fileBytes / 2 ** 20} MiB, ${options.seconds} s, ${options.rounds} rounds, sealAfterMs ${SEAL_AFTER}, ${new Date().toISOString()})`,
    'the services run on the same processors as the router and the load, with the lowest priority, their data in memory; amplification and PUTs include claims, checkpoints and whatever else the router writes',
  ];
}

/** @throws Error with a message for the user. */
function parse(args: readonly string[]): Options {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      size: { type: 'string', default: '256' },
      seconds: { type: 'string', default: '3' },
      rounds: { type: 'string', default: '2' },
      seed: { type: 'string', default: '1' },
      'write-docs': { type: 'boolean', default: false },
    },
  });
  const names = positionals.map((name) => {
    const known = NAMES.find((one) => one === name);
    if (known === undefined) throw new Error(`no backend is named ${name}`);
    return known;
  });
  return {
    names: names.length === 0 ? NAMES : names,
    fileBytes: Math.floor(number('size', values.size, 64, 65_536)) * 2 ** 20,
    seconds: number('seconds', values.seconds, 0.5, 600),
    rounds: Math.floor(number('rounds', values.rounds, 1, 100)),
    seed: Math.floor(number('seed', values.seed, 1, 2 ** 31)),
    writeDocs: values['write-docs'],
  };
}

function number(name: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (!Number.isFinite(value) || value < least || value > most) throw new Error(`--${name}: a number from ${least} to ${most}, not ${text}`);
  return value;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
