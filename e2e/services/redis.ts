/** Real Redis on loopback from Debian's packages: a primary, replicas of it and sentinels that watch it, each of which a test may break. */
import { mkdir, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

import { freePorts } from '../free-port.ts';
import { scratchFor } from '../scratch.ts';
import { stackOf } from '../test-stack.ts';
import { Daemon } from './daemon.ts';

export interface RedisOptions {
  /** Made if missing; holds configuration, data and logs. */
  readonly directory: string;
  /** Default 0. */
  readonly replicas?: number;
  /** Default 0; with any, a majority of them fails over to a replica. Their master's name is `SENTINEL_MASTER`. */
  readonly sentinels?: number;
  /** How long the primary may be silent before a sentinel calls it down. Default 2000: below that a busy machine looks like a failure. */
  readonly downAfterMs?: number;
  /** Lines for the configuration of the primary and the replicas. */
  readonly configuration?: readonly string[];
  /** Of a primary alone: where it runs, when that is not this machine's loopback. `prefix`: what to put in front of its command. */
  readonly place?: { readonly address: string; readonly prefix: readonly string[] };
}

const LOOPBACK = { address: '127.0.0.1', prefix: [] };

export const SENTINEL_MASTER = 'vferry';

/** A Redis or sentinel. `start` resolves when it answers, `stop` and `kill` when it is gone. */
export class RedisNode {
  readonly host: string;
  readonly port: number;
  readonly #daemon: Daemon;

  constructor(host: string, port: number, daemon: Daemon) {
    this.host = host;
    this.port = port;
    this.#daemon = daemon;
  }

  get pid(): number {
    return this.#daemon.pid;
  }

  async start(): Promise<void> {
    this.#daemon.start();
    await this.#daemon.waitUntil(() => this.#answers());
  }

  stop(): Promise<void> {
    return this.#daemon.stop();
  }

  kill(): Promise<void> {
    return this.#daemon.kill();
  }

  pause(): void {
    this.#daemon.pause();
  }

  resume(): void {
    this.#daemon.resume();
  }

  /** One command in Redis's inline form, without spaces in its arguments. Resolves with the first line of the answer, for a bulk answer with its text. */
  command(...words: string[]): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const socket = connect(this.port, this.host, () => socket.write(`${words.join(' ')}\r\n`));
    let text = '';
    socket.setTimeout(60_000, () => socket.destroy(new Error(`redis on port ${this.port} does not answer`)));
    socket.on('data', (chunk) => {
      text += chunk.toString();
      const answer = completeAnswer(text);
      if (answer === null) return;
      resolve(answer);
      socket.destroy();
    });
    socket.once('error', reject);
    socket.once('close', () => reject(new Error(`redis on port ${this.port} closed the connection`)));
    return promise;
  }

  /** Waits until `INFO <section>` has a line `<line>`. @throws Error when it has not in time. */
  async waitForInfo(section: string, line: string, timeoutMs = 240_000): Promise<void> {
    await this.waitForLine(['INFO', section], line, timeoutMs);
  }

  /** Waits until the answer to a command has this line. @throws Error when it has not in time. */
  async waitForLine(command: readonly string[], line: string, timeoutMs = 240_000): Promise<void> {
    await this.#daemon.waitUntil(async () => {
      const answer = await this.command(...command).catch(() => '');
      return answer.split('\r\n').includes(line);
    }, timeoutMs);
  }

  async #answers(): Promise<boolean> {
    return (await this.command('PING').catch(() => '')) === '+PONG';
  }
}

export class RedisService implements AsyncDisposable {
  /** The primary at the start; after a failover another is. */
  readonly primary: RedisNode;
  readonly replicas: readonly RedisNode[];
  readonly sentinels: readonly RedisNode[];

  private constructor(primary: RedisNode, replicas: readonly RedisNode[], sentinels: readonly RedisNode[]) {
    this.primary = primary;
    this.replicas = replicas;
    this.sentinels = sentinels;
  }

  /** Starts all parts, and resolves when replicas are in sync and sentinels know of each other. */
  static async start(options: RedisOptions): Promise<RedisService> {
    const replicaCount = options.replicas ?? 0;
    const sentinelCount = options.sentinels ?? 0;
    const [primaryPort = 0, ...others] = await freePorts(1 + replicaCount + sentinelCount);
    const primary = await redisNode(options.directory, 'primary', primaryPort, options.configuration ?? [], options.place);
    const replicas: RedisNode[] = [];
    for (const [index, port] of others.slice(0, replicaCount).entries()) {
      replicas.push(
        await redisNode(options.directory, `replica-${index}`, port, [...(options.configuration ?? []), `replicaof 127.0.0.1 ${primaryPort}`]),
      );
    }
    const sentinels: RedisNode[] = [];
    for (const [index, port] of others.slice(replicaCount).entries()) {
      const quorum = Math.floor(sentinelCount / 2) + 1;
      sentinels.push(await sentinelNode(options.directory, `sentinel-${index}`, port, primaryPort, quorum, options.downAfterMs ?? 2000));
    }
    const service = new RedisService(primary, replicas, sentinels);
    try {
      await service.#startAll();
      return service;
    } catch (error) {
      await service.stop();
      throw error;
    }
  }

  /** A service of its own for one test, in a scratch directory. */
  static async forTest(t: TestContext, options: Omit<RedisOptions, 'directory'> = {}): Promise<RedisService> {
    const directory = await scratchFor(t, 'redis');
    return stackOf(t).use(await RedisService.start({ ...options, directory }));
  }

  async stop(): Promise<void> {
    // The sentinels first, or they would see a primary die.
    for (const node of [...this.sentinels, ...this.replicas, this.primary]) await node.stop();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #startAll(): Promise<void> {
    await this.primary.start();
    for (const replica of this.replicas) await replica.start();
    // Before the sentinels start, or they learn of the replicas 10 s later.
    for (const replica of this.replicas) await replica.waitForInfo('replication', 'master_link_status:up');
    for (const sentinel of this.sentinels) await sentinel.start();
    const seen = `master0:name=${SENTINEL_MASTER},status=ok,address=127.0.0.1:${this.primary.port},slaves=${this.replicas.length},sentinels=${this.sentinels.length}`;
    for (const sentinel of this.sentinels) await sentinel.waitForInfo('sentinel', seen);
  }
}

async function redisNode(
  directory: string,
  name: string,
  port: number,
  more: readonly string[],
  place: RedisOptions['place'] = LOOPBACK,
): Promise<RedisNode> {
  const lines = [
    ...common(port, place.address),
    'appendonly yes',
    'appendfsync always',
    'save ""',
    'repl-diskless-sync-delay 0',
    'replica-announce-ip 127.0.0.1',
    'enable-debug-command local',
  ];
  return node(directory, name, port, [...place.prefix, 'redis-server'], [...lines, ...more], place.address);
}

async function sentinelNode(
  directory: string,
  name: string,
  port: number,
  primaryPort: number,
  quorum: number,
  downAfterMs: number,
): Promise<RedisNode> {
  const lines = [
    ...common(port, LOOPBACK.address),
    'sentinel announce-ip 127.0.0.1',
    `sentinel monitor ${SENTINEL_MASTER} 127.0.0.1 ${primaryPort} ${quorum}`,
    `sentinel down-after-milliseconds ${SENTINEL_MASTER} ${downAfterMs}`,
    `sentinel failover-timeout ${SENTINEL_MASTER} 5000`,
    `sentinel parallel-syncs ${SENTINEL_MASTER} 1`,
  ];
  return node(directory, name, port, ['redis-sentinel'], lines, LOOPBACK.address);
}

function common(port: number, address: string): string[] {
  return [`port ${port}`, `bind ${address}`, 'daemonize no', 'protected-mode no'];
}

/** Redis and sentinels rewrite their configuration: it is made once, and kept over a restart of the part. */
async function node(
  directory: string,
  name: string,
  port: number,
  command: readonly string[],
  lines: readonly string[],
  host: string,
): Promise<RedisNode> {
  const home = join(directory, name);
  await mkdir(home, { recursive: true });
  const configuration = join(home, `${name}.conf`);
  await writeFile(configuration, [...lines, `dir ${home}`, ''].join('\n'));
  return new RedisNode(host, port, new Daemon({ name, command: [...command, configuration], logFile: join(home, 'log') }));
}

/** The answer in `text`, as soon as it is all there: `+OK` and alike as they are, a bulk string without its frame. */
function completeAnswer(text: string): string | null {
  const end = text.indexOf('\r\n');
  if (end === -1) return null;
  if (!text.startsWith('$')) return text.slice(0, end);
  const length = Number(text.slice(1, end));
  if (length < 0) return '';
  const body = text.slice(end + 2);
  // Bytes, not characters; what tests ask for is ASCII.
  return body.length >= length + 2 ? body.slice(0, length) : null;
}
