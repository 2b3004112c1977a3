/** One daemon of a test service: a child process that is ended by pid, and by the kernel if the test itself is killed. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';

export interface DaemonOptions {
  /** For messages. */
  readonly name: string;
  /** Program and arguments; it must stay in the foreground. */
  readonly command: readonly string[];
  /** Gets its standard output and error, appended; its directory is made. */
  readonly logFile: string;
  readonly environment?: Readonly<Record<string, string>>;
  /** How long `stop` waits before it kills. Default 10 s. */
  readonly stopWithinMs?: number;
}

export class Daemon implements AsyncDisposable {
  readonly #options: DaemonOptions;
  #child: ChildProcess | null = null;
  #exited: Promise<void> = Promise.resolve();
  #spawnError: Error | null = null;

  constructor(options: DaemonOptions) {
    this.#options = options;
  }

  get running(): boolean {
    return this.#child !== null && this.#child.exitCode === null && this.#child.signalCode === null && this.#spawnError === null;
  }

  /** @throws Error when it does not run. */
  get pid(): number {
    const pid = this.running ? this.#child?.pid : undefined;
    if (pid === undefined) throw new Error(`${this.#options.name} does not run`);
    return pid;
  }

  /** Spawns it; one that runs is left alone. Whether it serves is for the caller to find out (`waitUntil`). */
  start(): void {
    if (this.running) return;
    const { command, logFile, environment } = this.#options;
    mkdirSync(dirname(logFile), { recursive: true });
    const log = openSync(logFile, 'a');
    // The kernel kills it when we die: a test that was killed must not leave a service behind. (It dies with our thread: start it on the main one.)
    // A group of its own: Ctrl-C is for us, who stop it in order.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...command], {
      detached: true,
      stdio: ['ignore', log, log],
      env: { ...process.env, ...environment },
    });
    closeSync(log);
    this.#spawnError = null;
    this.#exited = new Promise((resolve) => {
      child.once('exit', () => resolve());
      child.once('error', (error) => {
        this.#spawnError = error;
        resolve();
      });
    });
    this.#child = child;
  }

  /** Polls `isUp` until it says true. @throws Error with the end of the log when the daemon exits, or in `timeoutMs`. */
  async waitUntil(isUp: () => Promise<boolean>, timeoutMs = 240_000): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      if (!this.running) throw new Error(`${this.#options.name} ended:\n${await this.#logTail()}`, { cause: this.#spawnError });
      if (await isUp()) return;
      if (performance.now() > deadline) throw new Error(`${this.#options.name} is not up after ${timeoutMs} ms:\n${await this.#logTail()}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Stands still until `resume`: its connections stay open and say nothing. */
  pause(): void {
    process.kill(this.pid, 'SIGSTOP');
  }

  resume(): void {
    process.kill(this.pid, 'SIGCONT');
  }

  /** Ends it the polite way, or after a while the other. One that does not run is success. */
  async stop(): Promise<void> {
    if (!this.running) return;
    const pid = this.pid;
    process.kill(pid, 'SIGTERM');
    // A paused one gets the signal only when it goes on.
    process.kill(pid, 'SIGCONT');
    const timer = setTimeout(() => this.#child?.kill('SIGKILL'), this.#options.stopWithinMs ?? 10_000);
    await this.#exited;
    clearTimeout(timer);
  }

  /** SIGKILL: a crash. One that does not run is success. */
  async kill(): Promise<void> {
    if (this.running) process.kill(this.pid, 'SIGKILL');
    await this.#exited;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #logTail(): Promise<string> {
    const text = await readFile(this.#options.logFile, 'utf8').catch(() => '(no log)');
    return text.slice(-4000);
  }
}
