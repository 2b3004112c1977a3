/**
 * The servers under load, each a process of its own below a scratch directory: vferry, NFS-Ganesha (with the rpcbind it insists on) and
 * the bare record loop. Every one is ended by its pid.
 */
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { NfsLoad } from './nfs-load.ts';

const START_MS_MAX = 30_000;
const STOP_MS_MAX = 10_000;

/** A running NFS server. */
export interface Target extends AsyncDisposable {
  readonly name: string;
  /** Default 127.0.0.1. */
  readonly host?: string;
  readonly pid: number;
  readonly nfsPort: number;
  readonly mountPort: number;
  readonly exportPath: string;
}

/** `program` started with its output in `logPath`. */
function start(program: string, args: readonly string[], logPath: string): ChildProcess {
  const log = fs.openSync(logPath, 'a');
  const child = spawn(program, args, { stdio: ['ignore', log, log] });
  fs.closeSync(log);
  return child;
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS_MAX);
  await ended;
  clearTimeout(timer);
}

/** Polls `probe` until it does not throw; gives up when the process ends or takes too long, with the end of its log. */
async function untilReady(name: string, child: ChildProcess, logPath: string, probe: () => Promise<void>): Promise<void> {
  const endMs = performance.now() + START_MS_MAX;
  for (;;) {
    try {
      await probe();
      return;
    } catch (error) {
      const isOver = child.exitCode !== null || child.signalCode !== null || performance.now() > endMs;
      if (isOver) {
        await stop(child);
        throw new Error(`${name} does not answer (${String(error)}); the end of its log:\n${fs.readFileSync(logPath, 'utf8').slice(-2000)}`, {
          cause: error,
        });
      }
      await delay(100);
    }
  }
}

async function pingNfs(port: number): Promise<void> {
  const load = await NfsLoad.connect('127.0.0.1', port);
  try {
    await load.ping();
  } finally {
    await load[Symbol.asyncDispose]();
  }
}

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('not a TCP address');
  return address.port;
}

export interface VferryOptions {
  /** Words of the command line; `{data}`, `{nfs}`, `{admin}` are replaced. Null: this checkout's `server/main.ts serve`. */
  readonly command: readonly string[] | null;
  /** Arguments for Node itself, such as `--inspect=...`. */
  readonly nodeArgs: readonly string[];
}

/** A fresh vferry in `scratch/vferry`. */
export async function startVferry(scratch: string, options: VferryOptions): Promise<Target> {
  const [nfsPort, adminPort] = [await freePort(), await freePort()];
  const data = join(scratch, 'vferry');
  const main = join(import.meta.dirname, '..', 'server', 'main.ts');
  const standard = [
    main,
    'serve',
    '--data',
    '{data}',
    '--listen',
    '127.0.0.1',
    '--nfs-port',
    '{nfs}',
    '--admin-port',
    '{admin}',
    '--vpool',
    'vpool1',
  ];
  const words = (options.command ?? [...standard, '--no-portmap']).map((word) =>
    word.replace('{data}', data).replace('{nfs}', String(nfsPort)).replace('{admin}', String(adminPort)),
  );
  const logPath = join(scratch, 'vferry.log');
  const child = start(process.execPath, [...options.nodeArgs, ...words], logPath);
  await untilReady('vferry', child, logPath, async () => {
    if (options.command === null) {
      const response = await fetch(`http://127.0.0.1:${adminPort}/readyz`);
      if (!response.ok) throw new Error(`/readyz says ${response.status}`);
    }
    await pingNfs(nfsPort);
  });
  return targetOf('vferry', child, nfsPort, nfsPort, () => stop(child));
}

/**
 * NFS-Ganesha exporting `scratch/ganesha` as /vpool1. It exits without a port mapper, so this must run in a network namespace of its own
 * (`private-namespace.ts`), where rpcbind may have port 111.
 */
export async function startGanesha(scratch: string): Promise<Target> {
  const [nfsPort, mountPort] = [await freePort(), await freePort()];
  const directory = join(scratch, 'ganesha');
  fs.mkdirSync(directory);
  const configPath = join(scratch, 'ganesha.conf');
  fs.writeFileSync(
    configPath,
    `NFS_CORE_PARAM { Protocols = 3; Enable_UDP = false; Enable_NLM = false; Enable_RQUOTA = false; Bind_addr = 127.0.0.1;
  NFS_Port = ${nfsPort}; MNT_Port = ${mountPort}; mount_path_pseudo = true; }
NFSv4 { Graceless = true; }
EXPORT { Export_Id = 1; Path = "${directory}"; Pseudo = /vpool1; Access_Type = RW; Protocols = 3; Transports = TCP; SecType = sys;
  Squash = No_Root_Squash; PrivilegedPort = false; FSAL { Name = VFS; } }
`,
  );
  const rpcbindLog = join(scratch, 'rpcbind.log');
  const rpcbind = start('rpcbind', ['-f', '-w'], rpcbindLog);
  await untilReady('rpcbind', rpcbind, rpcbindLog, async () => {
    const socket = net.connect(111, '127.0.0.1');
    await once(socket, 'connect');
    socket.destroy();
  });
  const logPath = join(scratch, 'ganesha.log');
  const outputPath = join(scratch, 'ganesha.out');
  const child = start('ganesha.nfsd', ['-F', '-f', configPath, '-L', logPath, '-p', join(scratch, 'ganesha.pid'), '-N', 'NIV_EVENT'], outputPath);
  try {
    await untilReady('ganesha', child, logPath, () => pingNfs(nfsPort));
  } catch (error) {
    await stop(rpcbind);
    throw error;
  }
  return targetOf('ganesha', child, nfsPort, mountPort, async () => {
    await stop(child);
    await stop(rpcbind);
  });
}

export async function startRecordLoop(): Promise<Target> {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'record-loop.ts')], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  const port = Number(line.toString());
  return targetOf('record loop', child, port, port, () => stop(child));
}

function targetOf(name: string, child: ChildProcess, nfsPort: number, mountPort: number, dispose: () => Promise<void>): Target {
  if (child.pid === undefined) throw new Error(`${name} did not start`);
  return { name, pid: child.pid, nfsPort, mountPort, exportPath: '/vpool1', [Symbol.asyncDispose]: dispose };
}

/** CPU time that the whole machine has spent so far, idle and waiting for disks left out; in clock ticks of 10 ms. */
export function machineTicks(): number {
  const [, user, nice, system, , , irq, softirq, steal] = fs.readFileSync('/proc/stat', 'latin1').split('\n', 1)[0]!.split(/ +/).map(Number);
  return (user ?? 0) + (nice ?? 0) + (system ?? 0) + (irq ?? 0) + (softirq ?? 0) + (steal ?? 0);
}

/** CPU that a process has used so far, in clock ticks of 10 ms. */
export function cpuTicks(pid: number): number {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

const SETTLE_STEP_MS = 150;
const SETTLE_MS_MAX = 10_000;

/**
 * Waits until none of the servers has done anything for `quietMs`, so that background work of one is not charged to the other.
 * False: one was still busy after `SETTLE_MS_MAX`.
 */
export async function settle(targets: readonly Target[], quietMs: number): Promise<boolean> {
  const endMs = performance.now() + SETTLE_MS_MAX;
  const total = (): number => targets.reduce((sum, target) => sum + cpuTicks(target.pid), 0);
  let quietSinceMs = performance.now();
  for (let before = total(); performance.now() < endMs;) {
    await delay(SETTLE_STEP_MS);
    const after = total();
    if (after - before > 1) quietSinceMs = performance.now();
    else if (performance.now() - quietSinceMs >= quietMs) return true;
    before = after;
  }
  return false;
}
