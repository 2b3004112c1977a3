/** The command with a fake router as a child process. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

import type { FakeRouterPlan } from './fake-router-main.ts';

const MAIN = join(import.meta.dirname, 'fake-router-main.ts');

export interface Finished {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export class CommandChild implements AsyncDisposable {
  readonly process: ChildProcess;
  stdout = '';
  stderr = '';
  readonly #closed: Promise<unknown>;

  constructor(args: readonly string[], plan: FakeRouterPlan = {}, environment: Readonly<Record<string, string>> = {}, readStdout = true) {
    const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('VFERRY_') && !name.startsWith('NODE_')));
    this.process = spawn(process.execPath, [MAIN, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...inherited, FAKE_ROUTER: JSON.stringify(plan), ...environment },
    });
    if (readStdout) this.process.stdout?.on('data', (chunk: Buffer) => (this.stdout += chunk.toString()));
    this.process.stderr?.on('data', (chunk: Buffer) => (this.stderr += chunk.toString()));
    this.#closed = once(this.process, readStdout ? 'close' : 'exit');
  }

  /** Until it exits. */
  async finished(): Promise<Finished> {
    await this.#closed;
    return { code: this.process.exitCode, signal: this.process.signalCode, stdout: this.stdout, stderr: this.stderr };
  }

  /** Until its output has a match. @throws Error with the output when it ends without. */
  async until(pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const match = pattern.exec(this.stdout) ?? pattern.exec(this.stderr);
      if (match !== null) return match;
      if (this.process.exitCode !== null || this.process.signalCode !== null) {
        throw new Error(`ended (${this.process.exitCode}) without ${pattern}:\n${this.stdout}${this.stderr}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.process.exitCode === null && this.process.signalCode === null) this.process.kill('SIGKILL');
    this.process.stdout?.resume();
    await this.#closed;
  }
}

/** Runs the command to its end. */
export async function command(
  args: readonly string[],
  plan: FakeRouterPlan = {},
  environment: Readonly<Record<string, string>> = {},
): Promise<Finished> {
  await using child = new CommandChild(args, plan, environment);
  return await child.finished();
}
