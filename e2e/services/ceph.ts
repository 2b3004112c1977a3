/**
 * Real Ceph on loopback from Debian's packages: one monitor, one OSD on a sparse file, one radosgw with its S3 and Swift APIs. Everything is in
 * one directory; a second start over it finds what the first left. No manager: radosgw does not need one.
 */
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

import { CreateBucketCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';

import { run } from '../command.ts';
import { freePorts } from '../free-port.ts';
import { scratchFor } from '../scratch.ts';
import { stackOf } from '../test-stack.ts';
import { Daemon } from './daemon.ts';

export interface CephOptions {
  /** Made if missing. Holds configuration, data (sparse: some hundred MB are used) and logs. */
  readonly directory: string;
}

/** What a cluster keeps for its life: the monitor's address is part of its data. */
interface Identity {
  readonly fsid: string;
  readonly osdUuid: string;
  readonly monitorPort: number;
  readonly rgwPort: number;
}

const OSD_SIZE_BYTES = 8 * 2 ** 30;

export class CephService implements AsyncDisposable {
  readonly directory: string;
  /** `http://127.0.0.1:port`, path style. */
  readonly s3Endpoint: string;
  readonly accessKeyId = 'labaccess';
  readonly secretAccessKey = 'labsecret';
  /** Auth v1 of radosgw's Swift API: user `test:tester`, key `testing`. */
  readonly swiftAuthUrl: string;
  readonly swiftUser = 'test:tester';
  readonly swiftKey = 'testing';
  readonly rgwPort: number;
  readonly #identity: Identity;
  readonly #mon: Daemon;
  readonly #osd: Daemon;
  readonly #rgw: Daemon;

  private constructor(directory: string, identity: Identity) {
    this.directory = directory;
    this.#identity = identity;
    this.rgwPort = identity.rgwPort;
    this.s3Endpoint = `http://127.0.0.1:${identity.rgwPort}`;
    this.swiftAuthUrl = `${this.s3Endpoint}/auth/v1.0`;
    const daemon = (name: string, ...command: string[]): Daemon =>
      new Daemon({ name, command: [...command, '-c', join(directory, 'ceph.conf'), '-f'], logFile: join(directory, 'log', `${name}.out`) });
    this.#mon = daemon('ceph-mon', 'ceph-mon', '-i', 'a');
    this.#osd = daemon('ceph-osd', 'ceph-osd', '-i', '0');
    this.#rgw = daemon('radosgw', 'radosgw', '-n', 'client.rgw');
  }

  /** Starts everything and waits until S3 takes an object: 5 to 10 s for a new directory. @throws Error with the log of what failed. */
  static async start(options: CephOptions): Promise<CephService> {
    const identity = await loadIdentity(options.directory);
    const ceph = new CephService(options.directory, identity);
    try {
      await ceph.#startAll();
      return ceph;
    } catch (error) {
      await ceph.stop();
      throw error;
    }
  }

  /** A cluster of its own for one test, in a scratch directory. */
  static async forTest(t: TestContext): Promise<CephService> {
    const directory = await scratchFor(t, 'ceph');
    return stackOf(t).use(await CephService.start({ directory }));
  }

  /** The gateway: what S3 clients talk to. `stop` is SIGTERM, `kill` SIGKILL, `pause` SIGSTOP. */
  get rgw(): ServicePart {
    return this.#part(this.#rgw, () => this.#startRgw());
  }

  /** The store below the gateway: paused or stopped, requests at the gateway hang. */
  get osd(): ServicePart {
    return this.#part(this.#osd, () => this.#startOsd());
  }

  /** Makes every put fail with `QuotaExceeded` (403), or work again: a quota of the user that holds at once. */
  async fill(full: boolean): Promise<void> {
    const quota = [...this.#radosgwAdmin(), 'quota'];
    if (full) await run([...quota, 'set', '--quota-scope', 'user', '--uid', 'test', '--max-size', '1']);
    await run([...quota, full ? 'enable' : 'disable', '--quota-scope', 'user', '--uid', 'test']);
  }

  /** Ends all daemons; their data stays. */
  async stop(): Promise<void> {
    await this.#rgw.kill();
    // Without a monitor that knows of it, an OSD takes long to say good-bye; its journal makes a kill safe.
    await this.#osd.kill();
    await this.#mon.stop();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  #part(daemon: Daemon, start: () => Promise<void>): ServicePart {
    return {
      pid: () => daemon.pid,
      start,
      stop: () => daemon.stop(),
      kill: () => daemon.kill(),
      pause: () => daemon.pause(),
      resume: () => daemon.resume(),
    };
  }

  async #startAll(): Promise<void> {
    await this.#writeConfiguration();
    const made = existsSync(join(this.directory, 'made'));
    if (!made) await this.#makeMonitor();
    this.#mon.start();
    await this.#mon.waitUntil(() => listens(this.#identity.monitorPort));
    if (!made) await this.#makeOsd();
    await this.#startOsd();
    if (!made) await this.#makeUser();
    await this.#startRgw();
    await this.#firstObject();
    await writeFile(join(this.directory, 'made'), '');
  }

  async #startOsd(): Promise<void> {
    // Of the last life, if there was one: otherwise reads wait until its lease is over.
    await this.#ceph('osd', 'down', '0', '--definitely-dead');
    this.#osd.start();
    await this.#osd.waitUntil(() => this.#osdIsUp());
  }

  async #startRgw(): Promise<void> {
    this.#rgw.start();
    await this.#rgw.waitUntil(() => listens(this.rgwPort));
  }

  /** Whether the monitor knows of this very process: after a crash the map says "up" of the dead one. */
  async #osdIsUp(): Promise<boolean> {
    const { stdout } = await this.#ceph('osd', 'dump', '--format', 'json');
    const { osds } = JSON.parse(stdout.toString()) as { osds: { up: number; public_addrs: { addrvec: { nonce: number }[] } }[] };
    return osds[0]?.up === 1 && osds[0].public_addrs.addrvec[0]?.nonce === this.#osd.pid;
  }

  #ceph(...args: string[]): ReturnType<typeof run> {
    return run(['ceph', '-c', join(this.directory, 'ceph.conf'), '--connect-timeout', '30', ...args]);
  }

  async #makeMonitor(): Promise<void> {
    const { fsid, monitorPort } = this.#identity;
    const map = join(this.directory, 'monmap');
    await run(['monmaptool', '--create', '--clobber', '--fsid', fsid, '--addv', 'a', `[v2:127.0.0.1:${monitorPort}]`, map]);
    await run(['ceph-mon', '--mkfs', '-i', 'a', '-c', join(this.directory, 'ceph.conf'), '--monmap', map]);
  }

  async #makeOsd(): Promise<void> {
    await this.#ceph('osd', 'new', this.#identity.osdUuid);
    await run(['ceph-osd', '-i', '0', '-c', join(this.directory, 'ceph.conf'), '--mkfs', '--osd-uuid', this.#identity.osdUuid]);
  }

  #radosgwAdmin(): string[] {
    return ['radosgw-admin', '-n', 'client.rgw', '-c', join(this.directory, 'ceph.conf')];
  }

  async #makeUser(): Promise<void> {
    const admin = this.#radosgwAdmin();
    const keys = ['--access-key', this.accessKeyId, '--secret', this.secretAccessKey];
    await run([...admin, 'user', 'create', '--uid', 'test', '--display-name', 'test', ...keys]);
    const swiftKey = ['--key-type', 'swift', '--secret', this.swiftKey];
    await run([...admin, 'subuser', 'create', '--uid', 'test', '--subuser', this.swiftUser, '--access', 'full', ...swiftKey]);
  }

  /** Pools are made when first needed, which takes seconds: it must not be a test's first request that waits. */
  async #firstObject(): Promise<void> {
    const client = new S3Client({
      endpoint: this.s3Endpoint,
      region: 'us-east-1',
      forcePathStyle: true,
      credentials: { accessKeyId: this.accessKeyId, secretAccessKey: this.secretAccessKey },
    });
    try {
      await client.send(new CreateBucketCommand({ Bucket: 'warm-up' }));
      await client.send(new PutObjectCommand({ Bucket: 'warm-up', Key: 'first', Body: 'x' }));
    } finally {
      client.destroy();
    }
  }

  async #writeConfiguration(): Promise<void> {
    const { fsid, monitorPort, rgwPort } = this.#identity;
    for (const part of ['log', 'run', 'mon', 'osd', 'rgw']) await mkdir(join(this.directory, part), { recursive: true });
    const lines = [
      '[global]',
      `fsid = ${fsid}`,
      `mon_host = [v2:127.0.0.1:${monitorPort}]`,
      'mon_initial_members = a',
      'auth_cluster_required = none',
      'auth_service_required = none',
      'auth_client_required = none',
      // radosgw asks for "secure" by default, which auth "none" cannot give: it would hang for ever.
      'ms_mon_client_mode = crc',
      'ms_bind_msgr1 = false',
      'public_network = 127.0.0.0/8',
      'cluster_network = 127.0.0.0/8',
      `run_dir = ${this.directory}/run`,
      `admin_socket = ${this.directory}/run/$name.asok`,
      `crash_dir = ${this.directory}/run`,
      `log_file = ${this.directory}/log/$name.log`,
      'mon_cluster_log_file = /dev/null',
      'osd_pool_default_size = 1',
      'osd_pool_default_min_size = 1',
      'osd_pool_default_pg_num = 4',
      'osd_pool_default_pgp_num = 4',
      'osd_pool_default_pg_autoscale_mode = off',
      'osd_crush_chooseleaf_type = 0',
      'mon_allow_pool_size_one = true',
      'mon_allow_pool_delete = true',
      'mon_max_pg_per_osd = 1000',
      '[mon]',
      // Every pool and every boot is a change of the map; a second between two of them would be most of the start.
      'paxos_propose_interval = 0.02',
      'paxos_min_wait = 0.01',
      `mon_data = ${this.directory}/mon`,
      'mon_data_avail_crit = 1',
      'mon_data_avail_warn = 2',
      '[osd]',
      `osd_data = ${this.directory}/osd`,
      'osd_objectstore = bluestore',
      `bluestore_block_size = ${OSD_SIZE_BYTES}`,
      'bluestore_block_db_create = false',
      'bluestore_block_wal_create = false',
      'osd_memory_target = 939524096',
      // A lease for reads that ran out while the OSD stood still is never renewed where there is no replica: its placement groups then wait for
      // ever ("waiting for readable"). 10 minutes; after a crash #startOsd says that nobody has it any more.
      'osd_pool_default_read_lease_ratio = 30',
      // A new bucket is announced to all gateways, and one that was killed is waited for as long as it counts as one: 4 s instead of 30 s.
      'osd_client_watch_timeout = 4',
      '[client.rgw]',
      `rgw_data = ${this.directory}/rgw`,
      // Without tcp_nodelay each GET and each error takes 44 ms.
      `rgw_frontends = beast endpoint=127.0.0.1:${rgwPort} tcp_nodelay=1`,
      'rgw_swift_account_in_url = true',
      `rgw_swift_url = ${this.s3Endpoint}`,
      'rgw_enable_usage_log = false',
      'rgw_run_sync_thread = false',
      'objecter_tick_interval = 1',
      '',
    ];
    await writeFile(join(this.directory, 'ceph.conf'), lines.join('\n'));
  }
}

/** A daemon of a service that tests may break. `start` resolves when it serves again, `stop` and `kill` when it is gone. */
export interface ServicePart {
  pid(): number;
  start(): Promise<void>;
  stop(): Promise<void>;
  kill(): Promise<void>;
  pause(): void;
  resume(): void;
}

async function loadIdentity(directory: string): Promise<Identity> {
  await mkdir(directory, { recursive: true });
  const file = join(directory, 'identity.json');
  if (existsSync(file)) return JSON.parse(await readFile(file, 'utf8')) as Identity;
  const [monitorPort = 0, rgwPort = 0] = await freePorts(2);
  const identity = { fsid: randomUUID(), osdUuid: randomUUID(), monitorPort, rgwPort };
  await writeFile(file, JSON.stringify(identity));
  return identity;
}

/** Whether somebody takes connections at the port. */
function listens(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(port, '127.0.0.1');
  socket.once('connect', () => resolve(true));
  socket.once('error', () => resolve(false));
  return promise.finally(() => socket.destroy());
}
