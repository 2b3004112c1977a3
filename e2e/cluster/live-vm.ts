/**
 * A virtual machine with its disk on the datastore that does I/O, verifies it and moves: from one QEMU, which has the disk by one router's address, to another
 * QEMU, which has it by another's. Software emulation; the guest's I/O goes through libnfs inside QEMU.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { cpioArchive } from '../clients/guest/cpio.ts';
import { guestKernel } from '../clients/guest/guest-kernel.ts';
import { stampedIo } from '../clients/guest/stamped-io.ts';
import { QmpClient } from './qmp-client.ts';

export interface VmReport {
  readonly operations: number;
  /** Longest I/O as the guest saw it; it sees no time while it is paused. */
  readonly longestMs: number;
  readonly errors: number;
  readonly wrong: number;
}

export interface Migration {
  /** As QEMU measured it: the guest stood still. */
  readonly downtimeMs: number;
  readonly totalMs: number;
}

interface Machine {
  readonly child: ChildProcess;
  readonly qmp: QmpClient;
}

const MEMORY_MIB = 192;

export class LiveVm implements AsyncDisposable {
  readonly #scratch: string;
  readonly #initramfs: string;
  readonly #kernel: string;
  #machine: Machine | null = null;
  #machines = 0;
  #reports = 0;
  readonly #lines: string[] = [];
  #onLine: ((line: string) => void) | null = null;

  private constructor(scratch: string, kernel: string, initramfs: string) {
    this.#scratch = scratch;
    this.#kernel = kernel;
    this.#initramfs = initramfs;
  }

  /** Boots it with `diskUrl` and waits until its I/O on the first `diskMib` MiB goes. `scratch` exists and belongs to the caller. */
  static async boot(scratch: string, diskUrl: string, diskMib: number): Promise<LiveVm> {
    const { kernelPath, initramfsPath } = await guestKernel();
    const initramfs = join(scratch, 'initramfs');
    const job = cpioArchive([
      { kind: 'file', path: 'job/stamped-io', content: await readFile(await stampedIo()), executable: true },
      { kind: 'file', path: 'job/script', content: `exec /job/stamped-io /dev/vda ${diskMib}\n` },
    ]);
    await writeFile(initramfs, Buffer.concat([await readFile(initramfsPath), job]));
    const vm = new LiveVm(scratch, kernelPath, initramfs);
    try {
      vm.#machine = await vm.#start(diskUrl, null);
      await vm.#line(/^started$/, 600_000);
      return vm;
    } catch (error) {
      await vm[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** What the guest said. */
  get lines(): readonly string[] {
    return this.#lines;
  }

  /** What happened since the last report. */
  async report(): Promise<VmReport> {
    this.#reports += 1;
    this.#send(`report ${this.#reports}`);
    const line = await this.#line(new RegExp(`^report ${this.#reports} `), 600_000);
    const number = (key: string): number => Number(new RegExp(`${key}=(\\d+)`).exec(line)?.[1] ?? Number.NaN);
    return { operations: number('operations'), longestMs: number('longest_us') / 1000, errors: number('errors'), wrong: number('wrong') };
  }

  /** Moves the running machine to a new QEMU, which has the disk by another URL. @throws Error when QEMU gives up. */
  async migrate(diskUrl: string): Promise<Migration> {
    const source = this.#present();
    const socket = join(this.#scratch, `migration-${this.#machines}`);
    const target = await this.#start(diskUrl, socket);
    await source.qmp.execute('migrate-set-parameters', { 'max-bandwidth': 4 * 2 ** 30, 'downtime-limit': 500 });
    await source.qmp.execute('migrate', { uri: `unix:${socket}` });
    for (;;) {
      const state = (await source.qmp.execute('query-migrate')) as Record<string, unknown>;
      if (state['status'] === 'completed') {
        await endMachine(source);
        this.#machine = target;
        return { downtimeMs: Number(state['downtime']), totalMs: Number(state['total-time']) };
      }
      if (state['status'] === 'failed' || state['status'] === 'cancelled') {
        await endMachine(target);
        throw new Error(`the migration failed: ${JSON.stringify(state)}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Ends the I/O, lets the guest read everything again, and ends the machine. @throws Error when the guest found anything wrong. */
  async verifyAndEnd(): Promise<void> {
    const { child } = this.#present();
    this.#send('stop');
    const verdict = await this.#line(/^EXIT \d+$/, 600_000);
    if (child.exitCode === null) await once(child, 'close');
    if (verdict !== 'EXIT 0') throw new Error(`the guest says:\n${this.#lines.slice(-20).join('\n')}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#machine !== null) await endMachine(this.#machine);
  }

  #present(): Machine {
    if (this.#machine === null) throw new Error('the machine does not run');
    return this.#machine;
  }

  #send(line: string): void {
    this.#present().child.stdin?.write(`${line}\n`);
  }

  async #line(wanted: RegExp, timeoutMs: number): Promise<string> {
    const present = this.#lines.find((line) => wanted.test(line));
    if (present !== undefined) return present;
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const timer = setTimeout(() => reject(new Error(`no line ${wanted} in ${timeoutMs} ms:\n${this.#lines.slice(-20).join('\n')}`)), timeoutMs);
    this.#onLine = (line) => {
      if (wanted.test(line)) resolve(line);
    };
    return await promise.finally(() => {
      clearTimeout(timer);
      this.#onLine = null;
    });
  }

  async #start(diskUrl: string, incoming: string | null): Promise<Machine> {
    this.#machines += 1;
    const control = join(this.#scratch, `qmp-${this.#machines}`);
    const command = ['setpriv', '--pdeathsig', 'KILL', 'qemu-system-x86_64', '-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', '1'];
    command.push('-m', String(MEMORY_MIB), '-display', 'none', '-no-reboot', '-nodefaults', '-no-user-config');
    command.push('-kernel', this.#kernel, '-initrd', this.#initramfs, '-append', 'console=ttyS0 panic=-1 quiet no_timer_check');
    command.push('-serial', `file:${join(this.#scratch, `console-${this.#machines}`)}`);
    command.push('-device', 'virtio-serial-pci', '-chardev', 'stdio,id=result,signal=off', '-device', 'virtserialport,chardev=result,name=result');
    command.push('-drive', `if=virtio,format=raw,cache=none,file=${diskUrl}`, '-qmp', `unix:${control},server=on,wait=off`);
    if (incoming !== null) command.push('-incoming', `unix:${incoming}`);
    const [program = '', ...args] = command;
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    child.stdin.on('error', () => undefined);
    child.stderr.on('data', (chunk: Buffer) => this.#lines.push(`qemu: ${chunk.toString().trim()}`));
    let rest = '';
    child.stdout.on('data', (chunk: Buffer) => {
      const pieces = (rest + chunk.toString('latin1')).split('\n');
      rest = pieces.pop() ?? '';
      for (const piece of pieces) {
        const line = piece.replace(/\r$/, '');
        this.#lines.push(line);
        this.#onLine?.(line);
      }
    });
    try {
      return { child, qmp: await QmpClient.connect(control) };
    } catch (error) {
      child.kill('SIGKILL');
      throw new Error(`QEMU did not start:\n${this.#lines.slice(-10).join('\n')}`, { cause: error });
    }
  }
}

async function endMachine({ child, qmp }: Machine): Promise<void> {
  await qmp[Symbol.asyncDispose]();
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'close');
}
