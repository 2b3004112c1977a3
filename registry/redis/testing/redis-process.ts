/** A redis-server of a test file's own: in memory only, on a free port. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Redis } from 'ioredis';

import { freePorts } from '../../../e2e/free-port.ts';

export class RedisProcess implements AsyncDisposable {
  readonly port: number;
  readonly #child: ChildProcess;
  readonly #directory: string;

  private constructor(port: number, child: ChildProcess, directory: string) {
    this.port = port;
    this.#child = child;
    this.#directory = directory;
  }

  /** `options`: more of redis-server's. */
  static async start(options: readonly string[] = []): Promise<RedisProcess> {
    const [port = 0] = await freePorts(1);
    const directory = mkdtempSync(join(tmpdir(), 'vferry-redis-'));
    // The kernel kills it when we die.
    const child = spawn(
      'setpriv',
      [
        '--pdeathsig',
        'KILL',
        'redis-server',
        '--port',
        String(port),
        '--bind',
        '127.0.0.1',
        '--save',
        '',
        '--dir',
        directory,
        '--appendonly',
        'no',
        ...options,
      ],
      {
        stdio: 'ignore',
      },
    );
    const started = new RedisProcess(port, child, directory);
    const redis = new Redis({ port, host: '127.0.0.1', retryStrategy: () => 20, maxRetriesPerRequest: 200 });
    // Refused connections until it listens.
    redis.on('error', () => undefined);
    await redis.ping();
    redis.disconnect();
    return started;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await gone;
    rmSync(this.#directory, { recursive: true });
  }
}
