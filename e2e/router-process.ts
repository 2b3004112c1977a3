/**
 * A vferry router as a child process: what tests start, kill and start again. It runs the same command as a person does
 * (`node server/main.ts serve`), knows nothing of the router's inside, and is always ended by pid.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

import { run } from './command.ts';
import { freePorts } from './free-port.ts';
import { scratchFor } from './scratch.ts';
import { passed, stackOf } from './test-stack.ts';

const REPOSITORY = join(import.meta.dirname, '..');
/** Node 24, whatever started the tests. */
const NODE = process.execPath;
const MAIN = join(REPOSITORY, 'server', 'main.ts');

/** How long tests wait for what must come. Much longer than it takes: how long it took is printed, and says more of the machine than of the router. */
export const WAIT_MS_MAX = 240_000;

export interface RouterOptions {
  /** Exists already and belongs to the caller, so that it survives this process. */
  readonly dataDirectory: string;
  /** More `VFERRY_*` settings, for the whole life of this object (see also `start`). */
  readonly environment?: Readonly<Record<string, string>>;
  /** More flags behind the usual ones. */
  readonly flags?: readonly string[];
  /** Default: two free ports. In a network namespace of its own: 2049 and 8080. */
  readonly ports?: { readonly nfs: number; readonly admin: number };
  /** Address of NFS and the port mapper. Default 127.0.0.1; another of 127/8 has a port 111 of its own. */
  readonly listen?: string;
  /** Where its admin port, which listens on its loopback, is reached from here. Default 127.0.0.1. */
  readonly adminHost?: string;
  /** Default false: no port mapper, `--no-portmap`. */
  readonly portMapper?: boolean;
  /** A command that runs what follows it and keeps its pid, e.g. `NetworkNamespace.prefix`. */
  readonly prefix?: readonly string[];
  /** True when the admin port is reachable through `prefix` only. */
  readonly privateNetwork?: boolean;
  readonly vpool?: string;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface HttpAnswer {
  readonly status: number;
  readonly body: string;
}

export class RouterProcess implements AsyncDisposable {
  readonly dataDirectory: string;
  readonly nfsPort: number;
  readonly adminPort: number;
  readonly vpool: string;
  readonly listen: string;
  readonly adminHost: string;
  readonly #options: RouterOptions;
  #child: ChildProcess | null = null;
  #exit: Promise<Exit> | null = null;
  #log = '';
  #onLine: ((line: string) => void) | null = null;
  /** Milliseconds from spawn to the first 200 of /readyz of the last start. */
  startedInMs = 0;

  private constructor(options: RouterOptions, nfsPort: number, adminPort: number) {
    this.#options = options;
    this.dataDirectory = options.dataDirectory;
    this.nfsPort = nfsPort;
    this.adminPort = adminPort;
    this.vpool = options.vpool ?? 'vpool1';
    this.listen = options.listen ?? '127.0.0.1';
    this.adminHost = options.adminHost ?? '127.0.0.1';
  }

  /** A router that is not started yet. */
  static async create(options: RouterOptions): Promise<RouterProcess> {
    if (options.ports !== undefined) return new RouterProcess(options, options.ports.nfs, options.ports.admin);
    const [nfsPort, adminPort] = await freePorts(2);
    return new RouterProcess(options, nfsPort ?? 0, adminPort ?? 0);
  }

  /** A started and ready router that ends with the test, and shows its log when that fails. */
  static async forTest(t: TestContext, options: Partial<RouterOptions> = {}): Promise<RouterProcess> {
    const router = await RouterProcess.createForTest(t, options);
    await router.start();
    return router;
  }

  /** Like `forTest`, but not started yet. Without a data directory it gets one that goes with the test. */
  static async createForTest(t: TestContext, options: Partial<RouterOptions> = {}): Promise<RouterProcess> {
    const dataDirectory = options.dataDirectory ?? (await scratchFor(t, 'data'));
    const router = await RouterProcess.create({ ...options, dataDirectory });
    stackOf(t).defer(async () => {
      if (!passed(t)) t.diagnostic(`log of the router:\n${router.logTail()}`);
      await router[Symbol.asyncDispose]();
    });
    return router;
  }

  /** All it wrote on standard output and error, over all its starts. */
  get log(): string {
    return this.#log;
  }

  /** Calls `listener` with every line that it writes from now on. */
  onLine(listener: (line: string) => void): void {
    this.#onLine = listener;
  }

  logTail(): string {
    return this.#log.slice(-8000);
  }

  get running(): boolean {
    return this.#child !== null && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error('the router is not started');
    return pid;
  }

  /**
   * Starts it and waits until it is ready. `environment` holds for this start only.
   * @throws Error with the log when it exits or is not ready in time (it is killed then).
   */
  async start(environment: Readonly<Record<string, string>> = {}): Promise<void> {
    this.launch(environment);
    const outcome = await this.waitReady();
    if (outcome === 'ready') return;
    throw new Error(`the router exited (${JSON.stringify(outcome)}) instead of getting ready:\n${this.logTail()}`);
  }

  /** Spawns it without waiting: for starts that are meant to die, or to be slow. */
  launch(environment: Readonly<Record<string, string>> = {}): void {
    if (this.running) throw new Error('the router runs already');
    const command = [...(this.#options.prefix ?? []), NODE, MAIN, 'serve', ...this.#flags()];
    const [program, ...args] = command;
    if (program === undefined) throw new Error('no command');
    const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('VFERRY_') && !name.startsWith('NODE_')));
    const child = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      cwd: tmpdir(),
      env: { ...inherited, ...this.#options.environment, ...environment },
    });
    this.#log += `--- start ${JSON.stringify(environment)}\n`;
    let line = '';
    const append = (chunk: Buffer): void => {
      this.#log += chunk.toString();
      if (this.#onLine !== null) {
        const lines = (line + chunk.toString()).split('\n');
        line = lines.pop() ?? '';
        for (const whole of lines) this.#onLine(whole);
      }
      // A bound, so that a soak of hours does not eat the memory of the test.
      if (this.#log.length > 4_000_000) this.#log = this.#log.slice(-2_000_000);
    };
    child.stdout.on('data', append);
    child.stderr.on('data', append);
    const { promise, resolve, reject } = Promise.withResolvers<Exit>();
    child.once('error', reject);
    child.once('close', (code, signal) => resolve({ code, signal }));
    // Whoever waits for its end learns that it could not be started (`exited`); there may be nobody.
    promise.catch(() => undefined);
    this.#child = child;
    this.#exit = promise;
  }

  #flags(): string[] {
    const flags = ['--data', this.dataDirectory, '--listen', this.listen, '--nfs-port', String(this.nfsPort), '--admin-port', String(this.adminPort)];
    flags.push('--admin-listen', '127.0.0.1');
    flags.push('--vpool', this.vpool);
    if (this.#options.portMapper !== true) flags.push('--no-portmap');
    return [...flags, ...(this.#options.flags ?? [])];
  }

  /** Waits for /readyz to answer 200, or for the exit of the process. @throws Error when neither happens in time. */
  async waitReady(timeoutMs = WAIT_MS_MAX): Promise<'ready' | Exit> {
    const child = this.#child;
    if (child === null) throw new Error('the router is not started');
    const started = performance.now();
    for (;;) {
      if (child.exitCode !== null || child.signalCode !== null) return await this.exited();
      const answer = await this.#readyz();
      if (answer.status === 200) {
        this.startedInMs = performance.now() - started;
        return 'ready';
      }
      if (performance.now() - started > timeoutMs) {
        await this.kill();
        throw new Error(`the router was not ready after ${timeoutMs} ms; /readyz: ${answer.status} ${answer.body}\n${this.logTail()}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** How the present or last process ended, as soon as it has. */
  async exited(): Promise<Exit> {
    if (this.#exit === null) throw new Error('the router is not started');
    return await this.#exit;
  }

  /** Whether it is gone, or goes within `timeoutMs`: its sockets close a moment before its parent hears of it. */
  async isGone(timeoutMs: number): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const timer = setTimeout(() => resolve(false), timeoutMs);
    const gone = await Promise.race([this.exited().then(() => true), promise]);
    clearTimeout(timer);
    return gone;
  }

  /** kill -9 by default; returns when the process is gone. No error when it is gone already. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<Exit | null> {
    if (this.#child === null) return null;
    if (this.running) this.#child.kill(signal);
    return await this.exited();
  }

  /** Stops all its threads where they are (system calls under way end, but it does not hear of it). Only `kill` is good for it afterwards. */
  async freeze(): Promise<void> {
    process.kill(this.pid, 'SIGSTOP');
    const moving = (): boolean =>
      readdirSync(`/proc/${this.pid}/task`).some((task) => {
        const status = readFileSync(`/proc/${this.pid}/task/${task}/stat`, 'latin1');
        // The state follows the name in parentheses: T is stopped, D is inside a system call that ends before anything else happens.
        return !/^[TD]$/.test(status.slice(status.lastIndexOf(')') + 2)[0] ?? '');
      });
    for (let waited = 0; moving(); waited += 1) {
      if (waited > 10_000) throw new Error('the router does not stop moving after SIGSTOP');
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  /** A clean stop as systemd does it. @throws Error unless it exits 0 within `timeoutMs`. */
  async stop(timeoutMs = 60_000): Promise<void> {
    if (this.#child === null) return;
    this.#child.kill('SIGTERM');
    if (!(await this.isGone(timeoutMs))) {
      await this.kill();
      throw new Error(`the router did not stop within ${timeoutMs} ms after SIGTERM:\n${this.logTail()}`);
    }
    const exit = await this.exited();
    if (exit.code !== 0) throw new Error(`the router stopped with ${JSON.stringify(exit)}:\n${this.logTail()}`);
  }

  /** `vferry fsck` on the data directory of this stopped router. Code 0: clean, 1: damage, 2: it could not run. */
  async fsck(): Promise<{ readonly code: number; readonly output: string }> {
    if (this.running) throw new Error('fsck: the router runs');
    const command = [...(this.#options.prefix ?? []), NODE, MAIN, 'fsck', '--data', this.dataDirectory, '--vpool', this.vpool];
    const environment = this.#options.environment ?? {};
    const { code, stdout, stderr } = await run(command, { environment, cwd: tmpdir(), timeoutMs: 600_000, allowedCodes: [0, 1, 2] });
    return { code, output: `${stdout.toString()}${stderr}` };
  }

  /** GET on the admin port. */
  async http(path: string): Promise<HttpAnswer> {
    const url = `http://${this.adminHost}:${this.adminPort}${path}`;
    if (this.#options.privateNetwork === true) return await httpThrough(this.#options.prefix ?? [], url);
    const response = await fetch(url, { signal: AbortSignal.timeout(30_000) });
    return { status: response.status, body: await response.text() };
  }

  /** Waits until /readyz answers as `wanted` says. @throws Error with the last answer when it does not in time. */
  async waitForReadyz(wanted: (answer: HttpAnswer) => boolean, timeoutMs = WAIT_MS_MAX): Promise<HttpAnswer> {
    const started = performance.now();
    for (;;) {
      const answer = await this.#readyz();
      if (wanted(answer)) return answer;
      if (performance.now() - started > timeoutMs) {
        throw new Error(`/readyz after ${timeoutMs} ms: ${answer.status} ${answer.body}\n${this.logTail()}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Status 0: it does not answer (yet), the body says why; who waits for another answer shows that at the end. */
  async #readyz(): Promise<HttpAnswer> {
    try {
      return await this.http('/readyz');
    } catch (error) {
      return { status: 0, body: String(error) };
    }
  }

  /** Resident memory in bytes now (VmRSS) and at most so far (VmHWM). */
  memory(): { readonly residentBytes: number; readonly peakBytes: number } {
    const status = readFileSync(`/proc/${this.pid}/status`, 'latin1');
    const read = (key: string): number => Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? Number.NaN) * 1024;
    return { residentBytes: read('VmRSS'), peakBytes: read('VmHWM') };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

/** fetch from inside another network namespace: a short-lived Node, since this process cannot enter it. */
async function httpThrough(prefix: readonly string[], url: string): Promise<HttpAnswer> {
  const program = `fetch(${JSON.stringify(url)}).then(async (r) => console.log(JSON.stringify({ status: r.status, body: await r.text() })))`;
  const result = await run([...prefix, NODE, '-e', program], { timeoutMs: 60_000 });
  return JSON.parse(result.stdout.toString()) as HttpAnswer;
}
