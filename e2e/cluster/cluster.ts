/**
 * A whole cluster on this machine: a Redis, a Storage Backend and routers as real processes, each with an address of its own in 127/8, the same NFS
 * port, and port 111 where wanted. What `npm run cluster` starts, and what the tests of this folder break.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

import { type Backend, startSwift } from '../backends/backend-fixture.ts';
import { freePorts } from '../free-port.ts';
import { RouterProcess } from '../router-process.ts';
import { scratchDirectory, scratchFor } from '../scratch.ts';
import { NetworkPath, startRelay } from '../services/network-path.ts';
import { RedisService, SENTINEL_MASTER } from '../services/redis.ts';
import { passed, stackOf } from '../test-stack.ts';
import { certify } from './certify.ts';
import { ClusterRouter } from './cluster-router.ts';
import { Operator } from './operator.ts';

export interface ClusterOptions {
  /** Exists and belongs to the caller; holds everything of the routers and Redis. */
  readonly directory: string;
  /** Default 2. */
  readonly routers?: number;
  /** Default: one Redis. `sentinel`: a primary, two replicas and three sentinels. */
  readonly redis?: 'standalone' | 'sentinel';
  /** Default `directory`: one that all share. `swift`: one of its own. */
  readonly backend?: 'directory' | 'swift' | Backend;
  /** Default false. True: the ways between the parts go through relays, so that they can be cut. The way to Redis only with `standalone`, to the backend only with a service. */
  readonly cuttable?: boolean;
  /** Default false. Port 111 on each router's address, for clients that cannot be told ports. */
  readonly portMapper?: boolean;
  /** Default: a free one. */
  readonly nfsPort?: number;
  /** First three numbers of the routers' addresses. Default: at random. */
  readonly network?: string;
  /** Where `A`, `B`, ... and `redis` run. Default: all on this machine's loopback. Elsewhere the peers' way is TLS, with certificates made here; `cuttable` is for loopback only. */
  readonly places?: (name: string) => Place;
  /** `VFERRY_*` settings of all routers. */
  readonly environment?: Readonly<Record<string, string>>;
  /** `cluster.*` settings of all routers, by name. */
  readonly cluster?: Readonly<Record<string, string | number>>;
  readonly vpool?: string;
}

export interface Place {
  readonly address: string;
  /** To put in front of a command, which keeps its pid. */
  readonly prefix: readonly string[];
}

/** All thresholds at once: moves because of I/O happen only when an operator or a test asks for them (0), or soon. */
export function thresholds(operations: number): Readonly<Record<string, number>> {
  return { volumeReadThreshold: operations, volumeWriteThreshold: operations, fileReadThreshold: operations, fileWriteThreshold: operations };
}

const NAMES = ['A', 'B', 'C', 'D', 'E', 'F', 'G', 'H'];

export class Cluster implements AsyncDisposable {
  readonly routers: readonly ClusterRouter[];
  readonly redis: RedisService;
  readonly backend: Backend | null;
  /** Of all routers: NFS and MOUNT. */
  readonly nfsPort: number;
  readonly operator: Operator;
  /** Where everything of the routers and Redis is. */
  readonly directory: string;
  readonly #stack: AsyncDisposableStack;

  private constructor(parts: {
    readonly routers: readonly ClusterRouter[];
    readonly redis: RedisService;
    readonly backend: Backend | null;
    readonly nfsPort: number;
    readonly directory: string;
    readonly stack: AsyncDisposableStack;
  }) {
    this.routers = parts.routers;
    this.redis = parts.redis;
    this.backend = parts.backend;
    this.nfsPort = parts.nfsPort;
    this.directory = parts.directory;
    this.operator = new Operator(this);
    this.#stack = parts.stack;
  }

  /** Starts everything: the first router alone, since it makes the vPool, then the others at once. */
  static async start(options: ClusterOptions): Promise<Cluster> {
    const cluster = await Cluster.create(options);
    try {
      await cluster.startRouters();
      return cluster;
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Services run, routers are not started yet. */
  static async create(options: ClusterOptions): Promise<Cluster> {
    await using stack = new AsyncDisposableStack();
    const sentinel = options.redis === 'sentinel';
    const redis = stack.use(
      await RedisService.start({
        directory: join(options.directory, 'redis'),
        ...(sentinel ? { replicas: 2, sentinels: 3 } : {}),
        ...(options.places === undefined ? {} : { place: options.places('redis') }),
      }),
    );
    const backend = await backendOf(options, stack);
    const nfsPort = options.nfsPort ?? (await freePorts(1))[0] ?? 0;
    const network = options.network ?? `127.${1 + Math.floor(Math.random() * 250)}.${Math.floor(Math.random() * 256)}`;
    const routers: ClusterRouter[] = [];
    for (const name of NAMES.slice(0, options.routers ?? 2)) {
      const place = options.places?.(name) ?? { address: `${network}.${routers.length + 1}`, prefix: [] };
      routers.push(await makeRouter({ name, place, nfsPort, options, redis, backend, stack }));
    }
    if (options.places !== undefined) await certify(routers.map(({ process }) => process.dataDirectory));
    return new Cluster({ routers, redis, backend, nfsPort, directory: options.directory, stack: stack.move() });
  }

  /** A started cluster that ends with the test, and shows the routers' logs when that fails. */
  static async forTest(t: TestContext, options: Omit<ClusterOptions, 'directory'> = {}): Promise<Cluster> {
    const cluster = await Cluster.createForTest(t, options);
    await cluster.startRouters();
    return cluster;
  }

  /** Like `forTest`, with routers that are not started yet. */
  static async createForTest(t: TestContext, options: Omit<ClusterOptions, 'directory'> = {}): Promise<Cluster> {
    const directory = await scratchFor(t, 'cluster');
    const cluster = await Cluster.create({ ...options, directory });
    stackOf(t).defer(async () => {
      if (!passed(t)) for (const { name, process } of cluster.routers) t.diagnostic(`log of router ${name}:\n${process.logTail()}`);
      await cluster[Symbol.asyncDispose]();
    });
    return cluster;
  }

  /** Starts those that do not run. */
  async startRouters(environment: Readonly<Record<string, string>> = {}): Promise<void> {
    const [first, ...others] = this.routers.filter((router) => !router.process.running);
    await first?.process.start(environment);
    await Promise.all(others.map((router) => router.process.start(environment)));
  }

  router(index: number): ClusterRouter {
    const router = this.routers[index];
    if (router === undefined) throw new Error(`the cluster has no router ${index}`);
    return router;
  }

  /** A and B. */
  get pair(): readonly [ClusterRouter, ClusterRouter] {
    return [this.router(0), this.router(1)];
  }

  /** The routers stop as systemd stops them, all at once, then the services. @throws Error when a router does not stop well. */
  async stop(): Promise<void> {
    await Promise.all(this.routers.filter((router) => router.process.running).map((router) => router.process.stop()));
    await this[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

interface RouterParts {
  readonly name: string;
  readonly place: Place;
  readonly nfsPort: number;
  readonly options: ClusterOptions;
  readonly redis: RedisService;
  readonly backend: Backend | null;
  readonly stack: AsyncDisposableStack;
}

async function makeRouter({ name, place: { address, prefix }, nfsPort, options, redis, backend, stack }: RouterParts): Promise<ClusterRouter> {
  const home = join(options.directory, name);
  const [adminPort = 0, peerPort = 0] = await freePorts(2);
  const relay = async (port: number | null | undefined): Promise<NetworkPath | null> =>
    options.cuttable === true && port !== null && port !== undefined ? stack.use(await NetworkPath.to(port)) : null;
  const sentinel = options.redis === 'sentinel';
  const registry = await relay(sentinel ? null : redis.primary.port);
  const toBackend = await relay(backend?.port);
  // A relay connects to 127.0.0.1 only: there the router listens for its peers.
  const peers = await relay(peerPort);
  const peerAddress = peers === null ? address : '127.0.0.1';
  const ports = sentinel ? redis.sentinels.map((node) => node.port) : [registry?.port ?? redis.primary.port];
  const settings = {
    // Where others could reach it, it must be said who may.
    ...(options.places === undefined ? {} : { exports: { clients: [`${address}/24`] } }),
    registry: {
      kind: 'redis',
      redis: {
        urls: ports.map((port) => `redis://${redis.primary.host}:${port}`),
        ...(sentinel ? { mode: 'sentinel', sentinelName: SENTINEL_MASTER } : {}),
      },
    },
    cluster: {
      listen: peerAddress,
      port: peerPort,
      advertise: `${peerAddress}:${peers?.port ?? peerPort}`,
      certificates: options.places === undefined ? 'none' : join(home, 'cluster'),
      ...options.cluster,
    },
  };
  // JSON is YAML.
  const config = `${home}.yaml`;
  await writeFile(config, JSON.stringify(settings, null, 2));
  const process = await RouterProcess.create({
    dataDirectory: home,
    ports: { nfs: nfsPort, admin: adminPort },
    listen: address,
    portMapper: options.portMapper ?? false,
    vpool: options.vpool ?? 'vpool1',
    // A member that was killed begins anew only when its former life is over in the registry, on a machine that does other things.
    // Gone with us, even if we are killed; and Ctrl-C is for us alone, who stop them in order.
    prefix: ['setpriv', '--pdeathsig', 'KILL', 'setsid', ...prefix],
    ...(options.places === undefined ? {} : { adminHost: address }),
    environment: {
      VFERRY_CONFIG: config,
      ...(options.portMapper === true ? { VFERRY_NFS_PORTMAP: 'required' } : {}),
      ...(backend === null ? { VFERRY_VPOOL_BACKEND_PATH: join(options.directory, 'backend') } : backend.environment(toBackend?.port)),
      ...soonClean(options.environment ?? {}),
      ...options.environment,
    },
  });
  // Changes are taken from the router's own machine only.
  if (options.places !== undefined)
    stack.use(startRelay(prefix, { host: address, port: adminPort }, { host: '127.0.0.1', port: adminPort }, `${home}.relay`));
  stack.use(process);
  return new ClusterRouter(name, process, { registry, backend: toBackend, peers });
}

/** Who wants segments uploaded soon waits for objects to be clean, without a copy of any call on its way. */
function soonClean({ VFERRY_LOG_SEAL_AFTER_MS: sealAfter }: Readonly<Record<string, string>>): Record<string, string> {
  return sealAfter === undefined ? {} : { VFERRY_CLUSTER_CLEAN_AFTER_MS: sealAfter };
}

async function backendOf(options: ClusterOptions, stack: AsyncDisposableStack): Promise<Backend | null> {
  if (options.backend === undefined || options.backend === 'directory') return null;
  if (options.backend !== 'swift') return options.backend;
  return await startSwift(stack, { scratch: await scratchDirectory('swift', options.directory) });
}
