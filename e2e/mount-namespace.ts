/**
 * A private mount table: disks of any size and temper can be mounted there without this machine noticing, and they are gone with the namespace. Needs root.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';

import { run } from './command.ts';

export class MountNamespace implements AsyncDisposable {
  readonly #holder: ChildProcess;
  readonly #pid: number;

  private constructor(holder: ChildProcess, pid: number) {
    this.#holder = holder;
    this.#pid = pid;
  }

  static async create(): Promise<MountNamespace> {
    // It says a word when it is inside; before that, nsenter would enter the namespace of everybody.
    const holder = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', 'echo inside; exec sleep 100000'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(holder.stdout, 'data');
    if (holder.pid === undefined) throw new Error('unshare did not start');
    return new MountNamespace(holder, holder.pid);
  }

  /** What to put in front of a command to run it inside; the command keeps the pid of the prefix. */
  get prefix(): readonly string[] {
    return ['nsenter', '--mount', '--target', String(this.#pid), '--'];
  }

  /** Runs a shell script inside. @throws Error when it fails. */
  async shell(script: string): Promise<string> {
    return (await run([...this.prefix, 'sh', '-euc', script])).stdout.toString();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#holder.exitCode !== null || this.#holder.signalCode !== null) return;
    this.#holder.kill('SIGKILL');
    await once(this.#holder, 'exit');
  }
}
