/**
 * Real OpenStack Swift for tests, from Debian's packages: proxy, account, container and object server and memcached, on free loopback ports,
 * everything in one directory. tempauth and s3api are on the same proxy port. Parts can be stopped, frozen and filled while it runs.
 */
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, globSync, mkdirSync, openSync, readSync, writeFileSync, writeSync, closeSync } from 'node:fs';
import { get as httpGet } from 'node:http';
import { get as httpsGet } from 'node:https';
import { connect } from 'node:net';
import { userInfo } from 'node:os';
import { join } from 'node:path';

import { run } from '../command.ts';
import { freePorts } from '../free-port.ts';
import { Daemon } from './daemon.ts';
import { HASH_PREFIX, HASH_SUFFIX, type SwiftPorts, type SwiftTuning, swiftConfFiles } from './swift-conf.ts';

const PYTHON = '/usr/bin/python3';
const LAUNCHER = join(import.meta.dirname, 'swift-launch.py');
const PACKAGES = 'swift-proxy swift-account swift-container swift-object python3-swift memcached openssl';
const PARTS = ['memcached', 'account', 'container', 'object', 'proxy'] as const;

export type SwiftPart = (typeof PARTS)[number];

export interface SwiftServiceOptions extends Partial<SwiftTuning> {
  /** Absolute, may have a Swift that was stopped or killed before: its data is kept. On a file system with user xattrs (ext4, not tmpfs before 6.6). */
  readonly directory: string;
  /** The proxy speaks HTTPS only, with a certificate of a CA made in `DIRECTORY/etc` (see `caFile`). Default false. */
  readonly tls?: boolean;
  /** Copies of each object, on devices of their own behind one object server. Default 1. */
  readonly replicas?: number;
}

export class SwiftService implements AsyncDisposable {
  readonly directory: string;
  readonly ports: SwiftPorts;
  /** tempauth's user, and the S3 access key. */
  readonly user = 'test:tester';
  /** tempauth's key, and the S3 secret. */
  readonly key = 'testing';
  /** A user of the same account who may do nothing: 403. */
  readonly powerlessUser = { user: 'test:reader', key: 'reading' } as const;
  readonly account = 'AUTH_test';
  readonly s3Region = 'us-east-1';
  /** PEM of the CA to trust; null without TLS. */
  readonly caFile: string | null;
  readonly #daemons: Readonly<Record<SwiftPart, Daemon>>;
  readonly #replicas: number;
  #tuning: SwiftTuning;

  /** Starts it and waits until it serves. @throws Error naming the packages that are missing, or with a log's end. */
  static async start(options: SwiftServiceOptions): Promise<SwiftService> {
    await checkPackages();
    const [proxy = 0, account = 0, container = 0, object = 0, memcached = 0] = await freePorts(5);
    const service = new SwiftService(options, { proxy, account, container, object, memcached });
    try {
      await service.#startAll();
    } catch (error) {
      await service[Symbol.asyncDispose]();
      throw error;
    }
    return service;
  }

  private constructor(options: SwiftServiceOptions, ports: SwiftPorts) {
    this.directory = options.directory;
    this.ports = ports;
    this.caFile = options.tls === true ? join(options.directory, 'etc', 'ca.crt') : null;
    this.#replicas = options.replicas ?? 1;
    this.#tuning = {
      tokenLifeSeconds: options.tokenLifeSeconds ?? 86_400,
      ratelimit: options.ratelimit ?? null,
      nodeTimeoutSeconds: options.nodeTimeoutSeconds ?? 10,
      full: options.full ?? false,
    };
    const swift = (kind: Exclude<SwiftPart, 'memcached'>): Daemon =>
      this.#daemon(kind, [PYTHON, LAUNCHER, 'serve', this.#etc(), `${kind}-server`, this.#etc(`${kind}-server.conf`)]);
    const cache = ['memcached', '-l', '127.0.0.1', '-p', String(ports.memcached), '-U', '0', '-m', '32', '-u', userInfo().username];
    this.#daemons = {
      memcached: this.#daemon('memcached', cache),
      account: swift('account'),
      container: swift('container'),
      object: swift('object'),
      proxy: swift('proxy'),
    };
  }

  /** `http://127.0.0.1:PORT`, or https with TLS. */
  get endpoint(): string {
    return `${this.caFile === null ? 'http' : 'https'}://127.0.0.1:${this.ports.proxy}`;
  }

  get authUrl(): string {
    return `${this.endpoint}/auth/v1.0`;
  }

  get storageUrl(): string {
    return `${this.endpoint}/v1/${this.account}`;
  }

  /** Access key `user`, secret `key`, region `s3Region`, path style. */
  get s3Endpoint(): string {
    return this.endpoint;
  }

  /** Pid of a running part. @throws Error when it does not run. */
  pid(part: SwiftPart): number {
    return this.#daemons[part].pid;
  }

  /** Ends a part at once, as a crash does. Stopping memcached ends every token for good. */
  async stop(part: SwiftPart): Promise<void> {
    await this.#daemons[part].kill();
  }

  /** Starts a stopped part on its old port, and waits until it serves. */
  async startPart(part: SwiftPart): Promise<void> {
    const daemon = this.#daemons[part];
    daemon.start();
    await daemon.waitUntil(() => (part === 'memcached' ? canConnect(this.ports.memcached) : this.#isHealthy(part)));
  }

  /** Freezes a part: connections stay open, nothing answers; the proxy gives a server up after `nodeTimeoutSeconds`. */
  pause(part: SwiftPart): void {
    this.#daemons[part].pause();
  }

  resume(part: SwiftPart): void {
    this.#daemons[part].resume();
  }

  /** Fills or empties the device, by a restart of the object server: PUT answers 503 when full, DELETE and GET work. */
  async fill(full: boolean): Promise<void> {
    await this.tune({ full });
  }

  /** Changes settings, by restarts of the proxy and the object server. */
  async tune(change: Partial<SwiftTuning>): Promise<void> {
    this.#tuning = { ...this.#tuning, ...change };
    this.#writeConf();
    for (const part of change.full === undefined ? (['proxy'] as const) : (['object', 'proxy'] as const)) {
      if (part === 'proxy' && Object.keys(change).every((name) => name === 'full')) continue;
      await this.stop(part);
      await this.startPart(part);
    }
  }

  /** One pass of the object updater: listings catch up with PUTs that were taken while the container server was down. */
  async updateListings(): Promise<void> {
    await run([PYTHON, LAUNCHER, 'update', this.#etc(), this.#etc('object-server.conf')]);
  }

  /** Ends all tokens as their expiry does: flushes memcached. */
  async forgetTokens(): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const socket = connect(this.ports.memcached, '127.0.0.1', () => socket.write('flush_all\r\n'));
    socket.once('data', () => resolve());
    socket.once('error', reject);
    await promise.finally(() => socket.destroy());
  }

  /** The files that an object's bytes are in, one for each replica that there is. */
  dataFiles(container: string, object: string): string[] {
    const hash = createHash('md5').update(`${HASH_PREFIX}/${this.account}/${container}/${object}${HASH_SUFFIX}`).digest('hex');
    return globSync(join(this.directory, 'srv/*/objects/*/*', hash, '*.data')).toSorted();
  }

  /** Inverts one byte of a stored object behind Swift's back, in one of its replicas. */
  flipByte(container: string, object: string, offsetBytes: number, replica = 0): void {
    const path = this.dataFiles(container, object)[replica];
    if (path === undefined) throw new Error(`${container}/${object} has no replica ${replica}`);
    const fd = openSync(path, 'r+');
    try {
      const byte = Buffer.alloc(1);
      if (readSync(fd, byte, 0, 1, offsetBytes) !== 1) throw new Error(`${container}/${object} has no byte ${offsetBytes}`);
      byte[0] = (byte[0] ?? 0) ^ 0xff;
      writeSync(fd, byte, 0, 1, offsetBytes);
    } finally {
      closeSync(fd);
    }
  }

  /** Ends all daemons; the data stays. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(PARTS.map((part) => this.#daemons[part].kill()));
  }

  async #startAll(): Promise<void> {
    for (const name of ['etc', ...Array.from({ length: this.#replicas }, (_, index) => `srv/d${index + 1}`)])
      mkdirSync(join(this.directory, name), { recursive: true });
    this.#writeConf();
    if (this.caFile !== null && !existsSync(this.caFile)) await this.#makeCertificates();
    const { account, container, object } = this.ports;
    await run([PYTHON, LAUNCHER, 'rings', this.#etc(), String(this.#replicas), String(account), String(container), String(object)]);
    await Promise.all(PARTS.map((part) => this.startPart(part)));
  }

  #writeConf(): void {
    const input = {
      directory: this.directory,
      ports: this.ports,
      tuning: this.#tuning,
      user: this.user,
      key: this.key,
      tls: this.caFile !== null,
      systemUser: userInfo().username,
    };
    for (const [name, text] of Object.entries(swiftConfFiles(input))) writeFileSync(this.#etc(name), text, { mode: 0o600 });
  }

  async #makeCertificates(): Promise<void> {
    const openssl = async (...args: string[]): Promise<void> => void (await run(['openssl', ...args], { cwd: this.#etc() }));
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
    await openssl('req', '-x509', ...key, '-keyout', 'ca.key', '-out', 'ca.crt', '-days', '2', '-subj', '/CN=vferry test CA');
    await openssl('req', ...key, '-keyout', 'proxy.key', '-out', 'proxy.csr', '-subj', '/CN=127.0.0.1');
    writeFileSync(this.#etc('proxy.ext'), 'subjectAltName = IP:127.0.0.1, DNS:localhost\n');
    const signing = ['-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'proxy.ext'];
    await openssl('x509', '-req', '-in', 'proxy.csr', ...signing, '-out', 'proxy.crt');
    chmodSync(this.#etc('proxy.key'), 0o600);
  }

  async #isHealthy(kind: Exclude<SwiftPart, 'memcached'>): Promise<boolean> {
    const tls = kind === 'proxy' && this.caFile !== null;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const url = `${tls ? 'https' : 'http'}://127.0.0.1:${this.ports[kind]}/healthcheck`;
    const options = { agent: false, timeout: 2000, ...(tls ? { rejectUnauthorized: false } : {}) } as const;
    const request = (tls ? httpsGet : httpGet)(url, options, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    request.once('error', () => resolve(false));
    request.once('timeout', () => request.destroy());
    return await promise;
  }

  #daemon(name: SwiftPart, command: readonly string[]): Daemon {
    return new Daemon({ name: `swift ${name}`, command, logFile: join(this.directory, 'log', `${name}.log`) });
  }

  #etc(name = ''): string {
    return join(this.directory, 'etc', name);
  }
}

async function checkPackages(): Promise<void> {
  const there = existsSync(PYTHON) && existsSync('/usr/bin/memcached') && existsSync('/usr/bin/openssl');
  const modules = 'import swift.proxy.server, swift.account.server, swift.container.server, swift.obj.server';
  const swift = there ? await run([PYTHON, '-c', modules], { allowedCodes: [0, 1] }) : null;
  if (swift?.code !== 0) {
    throw new Error(`Swift is not installed: apt-get install --no-install-recommends ${PACKAGES}\n${swift?.stderr ?? ''}`);
  }
}

function canConnect(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(port, '127.0.0.1', () => resolve(true));
  socket.once('error', () => resolve(false));
  return promise.finally(() => socket.destroy());
}
