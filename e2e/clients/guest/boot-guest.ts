/**
 * Boots a Linux guest in QEMU (software emulation: there is no KVM where these tests run), runs a shell script in it and returns what the script
 * said and its exit status. The guest sees this machine's 127.0.0.1 as 10.0.2.2.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { scratchDirectory } from '../../scratch.ts';
import { type ArchiveEntry, cpioArchive } from './cpio.ts';
import { guestKernel } from './guest-kernel.ts';

export interface GuestOptions {
  /** For busybox sh. Its standard output and error are the lines of the result; its standard input is what `onLine` sends. */
  readonly script?: string;
  /** Instead of a script: boots on into /sbin/init of this device, with an ext4 file system (see `vm-image.ts`). */
  readonly rootDevice?: string;
  /** More files for the guest, next to the script in /job. */
  readonly files?: readonly ArchiveEntry[];
  /** Values of QEMU's -drive; `if=virtio,format=raw,cache=none,file=nfs://...`. The first is /dev/vda. */
  readonly drives?: readonly string[];
  readonly timeoutS: number;
  readonly memoryMiB?: number;
  /** e.g. NetworkNamespace.prefix. */
  readonly prefix?: readonly string[];
  /** Sees every line while the guest runs; `send` writes a line to the script's standard input. */
  readonly onLine?: (line: string, send: (line: string) => void) => void;
}

export interface GuestResult {
  /** Exit status of the script; null when the guest ended without saying it (crash). */
  readonly status: number | null;
  readonly lines: readonly string[];
  /** The kernel's messages. */
  readonly console: string;
}

/** Runs one guest to its end. @throws Error with the lines and the console when it takes longer than `timeoutS` or QEMU fails. */
export async function bootGuest(options: GuestOptions): Promise<GuestResult> {
  await using scratch = await scratchDirectory('guest');
  const { kernelPath, initramfsPath } = await guestKernel();
  const initramfs = join(scratch.path, 'initramfs');
  const job: ArchiveEntry[] = [...(options.files ?? [])];
  if (options.script !== undefined) job.push({ kind: 'file', path: 'job/script', content: options.script });
  if (options.rootDevice !== undefined) job.push({ kind: 'file', path: 'job/root', content: options.rootDevice });
  await writeFile(initramfs, Buffer.concat([await readFile(initramfsPath), cpioArchive(job)]));
  const consoleLog = join(scratch.path, 'console');
  const [program, ...args] = qemuCommand(options, kernelPath, initramfs, consoleLog);
  if (program === undefined) throw new Error('no command');
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  return await attend(child, options, consoleLog);
}

function qemuCommand(options: GuestOptions, kernelPath: string, initramfs: string, consoleLog: string): string[] {
  const command = [...(options.prefix ?? []), 'qemu-system-x86_64', '-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', '1'];
  command.push('-m', String(options.memoryMiB ?? 512), '-display', 'none', '-no-reboot', '-nodefaults', '-no-user-config');
  command.push('-kernel', kernelPath, '-initrd', initramfs, '-append', 'console=ttyS0 panic=-1 quiet no_timer_check');
  command.push('-serial', `file:${consoleLog}`, '-netdev', 'user,id=net', '-device', 'virtio-net-pci,netdev=net,romfile=');
  command.push('-device', 'virtio-serial-pci', '-chardev', 'stdio,id=result,signal=off', '-device', 'virtserialport,chardev=result,name=result');
  for (const drive of options.drives ?? []) command.push('-drive', drive);
  return command;
}

async function attend(child: ChildProcess, options: GuestOptions, consoleLog: string): Promise<GuestResult> {
  const lines: string[] = [];
  let status: number | null = null;
  let rest = '';
  let errorText = '';
  const send = (line: string): void => {
    child.stdin?.write(`${line}\n`);
  };
  child.stdin?.on('error', () => undefined);
  child.stderr?.on('data', (chunk: Buffer) => (errorText += chunk.toString()));
  child.stdout?.on('data', (chunk: Buffer) => {
    const pieces = (rest + chunk.toString('latin1')).split('\n');
    rest = pieces.pop() ?? '';
    for (const piece of pieces) {
      const line = piece.replace(/\r$/, '');
      const exit = /^EXIT (\d+)$/.exec(line);
      if (exit === null) {
        lines.push(line);
        options.onLine?.(line, send);
      } else {
        status = Number(exit[1]);
      }
    }
  });
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  child.once('error', reject);
  child.once('close', (code) => resolve(code ?? -1));
  let tooSlow = false;
  const timer = setTimeout(() => {
    tooSlow = true;
    child.kill('SIGKILL');
  }, options.timeoutS * 1000);
  try {
    const code = await promise;
    const consoleText = await readFile(consoleLog, 'latin1').catch(() => '');
    if (tooSlow || code !== 0) {
      const what = tooSlow ? `was not done after ${options.timeoutS} s` : `ended with QEMU's exit code ${code}`;
      throw new Error(`the guest ${what}\n${errorText}\n--- lines\n${lines.slice(-40).join('\n')}\n--- console\n${consoleText.slice(-4000)}`);
    }
    return { status, lines, console: consoleText };
  } finally {
    clearTimeout(timer);
    if (child.exitCode === null) child.kill('SIGKILL');
  }
}
