/** The other end of `generator.ts`: starts it and gives it orders. */
import type { ChildProcess } from 'node:child_process';
import { fork } from 'node:child_process';
import { once } from 'node:events';

import type { GeneratorAnswer, GeneratorOrder } from './generator.ts';
import type { LoadResult, Workload } from './nfs-load.ts';
import type { Target } from './targets.ts';

/** A generator connected to one server. */
export class LoadProcess implements AsyncDisposable {
  readonly target: Target;
  readonly #child: ChildProcess;

  private constructor(target: Target, child: ChildProcess) {
    this.target = target;
    this.#child = child;
  }

  static async start(target: Target, fileName: string): Promise<LoadProcess> {
    const child = fork(new URL('generator.ts', import.meta.url), { serialization: 'advanced' });
    const load = new LoadProcess(target, child);
    const { host = '127.0.0.1', nfsPort, mountPort, exportPath } = target;
    try {
      await load.#order({ order: 'connect', host, nfsPort, mountPort, exportPath, fileName });
    } catch (error) {
      await load[Symbol.asyncDispose]();
      throw error;
    }
    return load;
  }

  get pid(): number {
    const { pid } = this.#child;
    if (pid === undefined) throw new Error('the load has no process');
    return pid;
  }

  /** @throws Error with the target's name when a reply was wrong or the server went away. */
  async run(work: Workload): Promise<LoadResult> {
    const result = await this.#order({ order: 'run', work });
    if (result === null) throw new Error('a run without a result');
    return result;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill('SIGKILL');
    await once(this.#child, 'exit');
  }

  async #order(order: GeneratorOrder): Promise<LoadResult | null> {
    const { promise, resolve, reject } = Promise.withResolvers<LoadResult | null>();
    const onExit = (code: number | null): void => reject(new Error(`the load generator for ${this.target.name} ended with ${code}`));
    this.#child.once('exit', onExit);
    this.#child.once('message', (answer) => {
      const message = answer as GeneratorAnswer;
      if ('error' in message) reject(new Error(`${this.target.name}: ${message.error}`));
      else resolve(message.result);
    });
    this.#child.send(order);
    try {
      return await promise;
    } finally {
      this.#child.off('exit', onExit);
    }
  }
}
