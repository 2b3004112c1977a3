/**
 * CPU of an operation that goes to the wrong router, by process: forwarder, owner and load, against the same at the owner, in short rounds by turns. Of each
 * figure the least disturbed round counts, so that it can be compared on a machine where others work as well.
 * Usage: node bench/forwarded-cpu.ts [rounds [beginning of a case's name]]; BENCH_PROF=1 prints the functions that took the time at both routers;
 * BENCH_ALONE=1 lets the three processes go before all others during a round (SCHED_RR, needs root): what an idle machine would show, on one that is not. Rounds are
 * short and have pauses, but whoever else is there stands still meanwhile.
 */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import type { ClusterRouter } from '../e2e/cluster/cluster-router.ts';
import { Cluster, thresholds } from '../e2e/cluster/cluster.ts';
import { freePorts } from '../e2e/free-port.ts';
import { scratchDirectory } from '../e2e/scratch.ts';
import { hottest, profileWhile } from './cpu-profile.ts';
import { LoadProcess } from './load-process.ts';
import type { Workload } from './nfs-load.ts';

const MIB = 2 ** 20;
const FILE = 'bench-flat.vmdk';
const SECONDS = 0.4;
const WARM_SECONDS = 3;
const FUNCTIONS = 45;
/** Behind each round with priority: others get twice the time. */
const PAUSE_MS = 800;

type Case = Pick<Workload, 'kind' | 'outstanding' | 'ioBytes' | 'regionBytes'> & { readonly name: string };

const CASES: readonly Case[] = [
  { name: 'read 4 KiB at 32', kind: 'read-random', outstanding: 32, ioBytes: 4096, regionBytes: 64 * MIB },
  { name: 'read 4 KiB at 1', kind: 'read-random', outstanding: 1, ioBytes: 4096, regionBytes: 64 * MIB },
  { name: 'mix 4 KiB at 32', kind: 'mix', outstanding: 32, ioBytes: 4096, regionBytes: 64 * MIB },
  { name: 'write 4 KiB at 32', kind: 'write-random', outstanding: 32, ioBytes: 4096, regionBytes: 64 * MIB },
  { name: 'Read 1 MiB at 8', kind: 'read-sequential', outstanding: 8, ioBytes: MIB, regionBytes: 64 * MIB },
];

interface Run {
  readonly perSecond: number;
  readonly cpuUs: { readonly owner: number; readonly forwarder: number; readonly load: number };
}

/** Before everybody else, or as everybody else: all threads of the processes. */
function prefer(pids: readonly number[], isPreferred: boolean): void {
  for (const pid of pids) execFileSync('chrt', [isPreferred ? '-r' : '-o', '-a', '-p', isPreferred ? '1' : '0', String(pid)]);
}

/** Time on a processor of all threads that a process has. */
function cpuUsOf(pid: number): number {
  let totalNs = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`))
    totalNs += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'latin1').split(' ')[0]);
  return totalNs / 1000;
}

function loadOn(router: ClusterRouter): Promise<LoadProcess> {
  const { nfsPort, pid, vpool } = router.process;
  const target = {
    name: router.name,
    host: router.address,
    pid,
    nfsPort,
    mountPort: nfsPort,
    exportPath: `/${vpool}`,
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
  return LoadProcess.start(target, FILE);
}

async function main(): Promise<void> {
  const rounds = Number(process.argv[2] ?? 10);
  const only = process.argv[3] ?? '';
  const isProfiling = process.env['BENCH_PROF'] !== undefined;
  const isAlone = process.env['BENCH_ALONE'] !== undefined;
  await using scratch = await scratchDirectory('bench-forwarded');
  await using cluster = await Cluster.create({ directory: scratch.path, cluster: { ...thresholds(0), cooldownMs: 0 } });
  const [a, b] = cluster.pair;
  const [portA = 0, portB = 0] = await freePorts(2);
  const inspected = (port: number): Record<string, string> => (isProfiling ? { NODE_OPTIONS: `--inspect=127.0.0.1:${port}` } : {});
  await a.process.start(inspected(portA));
  await b.process.start(inspected(portB));
  await using local = await loadOn(a);
  const common = { stability: 'FILE_SYNC', seed: 1 } as const;
  await local.run({ kind: 'write-sequential', outstanding: 8, ioBytes: MIB, regionBytes: 64 * MIB, seconds: 60, ...common, stability: 'UNSTABLE' });
  await using remote = await loadOn(b);

  const run = async (load: LoadProcess, one: Case, seed: number, seconds = SECONDS): Promise<Run> => {
    const { name: _, ...work } = one;
    const [owner, forwarder] = [cpuUsOf(a.process.pid), cpuUsOf(b.process.pid)];
    const pids = isAlone && seconds === SECONDS ? [a.process.pid, b.process.pid, load.pid] : [];
    prefer(pids, true);
    const result = await load.run({ ...common, ...work, seconds, seed }).finally(() => prefer(pids, false));
    if (pids.length > 0) await sleep(PAUSE_MS);
    const each = (us: number): number => us / result.operations;
    return {
      perSecond: (result.operations * 1000) / result.elapsedMs,
      cpuUs: {
        owner: each(cpuUsOf(a.process.pid) - owner),
        forwarder: each(cpuUsOf(b.process.pid) - forwarder),
        load: each(result.cpuMs * 1000),
      },
    };
  };
  for (const one of CASES) {
    if (!one.name.startsWith(only)) continue;
    for (const load of [local, remote]) await run(load, one, 1000, WARM_SECONDS);
    const runs: { local: Run[]; forwarded: Run[] } = { local: [], forwarded: [] };
    for (let round = 0; round < rounds; round += 1) {
      runs.local.push(await run(local, one, round + 1));
      runs.forwarded.push(await run(remote, one, round + 1));
    }
    const [here, there] = [runs.local, runs.forwarded].map((side) => Math.max(...side.map((x) => x.perSecond))) as [number, number];
    const us = (side: Run[], who: keyof Run['cpuUs']): string => Math.min(...side.map((x) => x.cpuUs[who])).toFixed(1);
    console.log(
      `${one.name.padEnd(18)} local ${here.toFixed(0)} op/s: owner ${us(runs.local, 'owner')} us, load ${us(runs.local, 'load')} us` +
        ` | forwarded ${there.toFixed(0)} op/s (${(there / here).toFixed(2)}): forwarder ${us(runs.forwarded, 'forwarder')} us, owner ${us(runs.forwarded, 'owner')} us, load ${us(runs.forwarded, 'load')} us`,
    );
    if (!isProfiling) continue;
    for (const [name, port] of [
      ['forwarder', portB],
      ['owner', portA],
    ] as const) {
      const profile = await profileWhile(port, async () => {
        await run(remote, one, 77);
      });
      console.log(
        `  ${name}:\n${hottest(profile, FUNCTIONS)
          .map((line) => `    ${line}`)
          .join('\n')}`,
      );
    }
  }
}

await main();
