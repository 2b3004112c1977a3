/** The rounds of `npm run soak:cluster`: each starts a cluster, does one thing to it for long, and says in a line what came of it. */
import assert from 'node:assert/strict';
import { join } from 'node:path';

import { lockContents } from '../../server/nfsd/conformance/contents.ts';
import { GUARDED, made, succeeded } from '../../server/nfsd/conformance/server-under-test.ts';
import { Stability } from '../../server/nfsd/file-system.ts';
import { NfsClient } from '../../server/nfsd/nfs-client.ts';
import type { Backend } from '../backends/backend-fixture.ts';
import { run } from '../command.ts';
import { HostileStore } from '../hostile-store/hostile-store.ts';
import { metric } from '../metrics-page.ts';
import type { SeededRandom } from '../random.ts';
import { RegisterLoad } from '../register-load.ts';
import { scratchDirectory } from '../scratch.ts';
import { NetworkPath } from '../services/network-path.ts';
import type { ClusterRouter } from './cluster-router.ts';
import { Cluster, type ClusterOptions, thresholds } from './cluster.ts';
import { inPrivateNetwork } from './cut-cables-in-network.ts';
import { CABLE_HOSTS, CABLES } from './cut-cables.ts';
import { keepEvidence } from './evidence.ts';
import { HarmMatrix, type Lane } from './harm-matrix.ts';
import { LiveVm } from './live-vm.ts';
import { lockRace } from './lock-race.ts';
import { HARMS, type Harm } from './move-harms.ts';
import { pingPong, type PingPongResult } from './ping-pong.ts';
import { PrivateNetwork } from './private-network.ts';
import { twoHosts } from './two-hosts.ts';
import { VmotionReplay } from './vmotion-replay.ts';
import { WanderingClient } from './wandering-client.ts';

export interface Round {
  readonly random: SeededRandom;
  /** Empty; gone after the round. */
  readonly directory: string;
  readonly stack: AsyncDisposableStack;
  readonly say: (line: string) => void;
  /** Clusters that were started: what they have is kept when something is wrong. */
  readonly clusters: Cluster[];
  /** Of each ping-pong. Issue 4 wants 200. */
  readonly moves: number;
  /** Where what is wrong is kept. */
  readonly keepDirectory: string;
  /** Of `harm`; null where that is not run. */
  readonly matrix: { readonly recordFile: string; readonly lanes: number; readonly harms: readonly string[] | null; readonly untilMs: number } | null;
}

const SETTINGS = { VFERRY_LOG_SEGMENT_BYTES: '4MiB', VFERRY_LOG_SEAL_AFTER_MS: '300ms', VFERRY_LOG_CHECKPOINT_AFTER_BYTES: '16MiB' };

const MIB = 1024 * 1024;

/** By name; each returns what it measured. @throws Error, AssertionError when something was wrong. */
export const ROUNDS: Readonly<Record<string, (round: Round) => Promise<string>>> = {
  /** 200 moves under 16 x 32 operations from both sides. */
  'ping-pong': async (round) => {
    const cluster = await clusterOf(round, { cluster: { ...thresholds(0), cooldownMs: 0 } });
    return moved(await pingPong(cluster, { moves: round.moves, seed: round.random.uint32(), name: 'ping-flat.vmdk', progress: round.say }));
  },

  /** The same over a backend that takes a second for each PUT. What waits for it comes to the bound, and all of it is copied by each move: the bound is low. */
  'ping-pong-slow-backend': async (round) => {
    const { store, backend } = await hostile(round);
    const environment = { VFERRY_LOG_DIRTY_BYTES_MAX: '128MiB' };
    const cluster = await clusterOf(round, { backend, environment, cluster: { ...thresholds(0), cooldownMs: 0 } });
    store.setFaults({ http: { putDelayMs: 1000 } });
    return moved(
      await pingPong(cluster, {
        moves: round.moves,
        seed: round.random.uint32(),
        name: 'ping-flat.vmdk',
        patient: true,
        moveMsMax: 600_000,
        progress: round.say,
      }),
    );
  },

  /** The same with at least 256 MiB that are on no backend, in every move, and not many more: writers are faster than the backend, and slowed down from 75 % of the room on. */
  'ping-pong-dirty': async (round) => {
    const { store, backend } = await hostile(round);
    const environment = { VFERRY_LOG_DIRTY_BYTES_MAX: '400MiB', VFERRY_LOG_CHECKPOINT_AFTER_BYTES: '1GiB' };
    const cluster = await clusterOf(round, { backend, environment, cluster: { ...thresholds(0), cooldownMs: 0 } });
    store.setFaults({ http: { putDelayMs: 500, putDelayFromBytes: 128 * 1024 } });
    const dirtyBytes = async (router: ClusterRouter): Promise<number> => metric((await router.process.http('/metrics')).body, 'vferry_dirty_bytes');
    const result = await pingPong(cluster, {
      moves: round.moves,
      seed: round.random.uint32(),
      name: 'ping-flat.vmdk',
      filledBytes: 256 * MIB,
      moveMsMax: 600_000,
      progress: round.say,
      patient: true,
      beforeMove: async (owner) => {
        const deadlineMs = performance.now() + 60_000;
        while ((await dirtyBytes(owner)) < 256 * MIB) {
          assert.ok(performance.now() < deadlineMs, 'the load does not write 256 MiB in a minute');
          await wait(100);
        }
      },
    });
    return `${moved(result)}; copied by a move: ${Math.round((result.copiedBytes[0] ?? 0) / MIB)} to ${Math.round((result.copiedBytes.at(-1) ?? 0) / MIB)} MiB`;
  },

  /** The same with a write buffer that is full all the time: writes wait for room while they move along. */
  'ping-pong-full-buffer': async (round) => {
    const { store, backend } = await hostile(round);
    const environment = { VFERRY_LOG_DIRTY_BYTES_MAX: '32MiB' };
    const cluster = await clusterOf(round, { backend, environment, cluster: { ...thresholds(0), cooldownMs: 0 } });
    store.setFaults({ http: { putDelayMs: 3000, putDelayFromBytes: 128 * 1024 } });
    return moved(
      await pingPong(cluster, {
        moves: round.moves,
        seed: round.random.uint32(),
        name: 'ping-flat.vmdk',
        patient: true,
        moveMsMax: 600_000,
        progress: round.say,
      }),
    );
  },

  /** Every harm at every step, until the time is over; the next run goes on from the record. */
  harm: async (round) => {
    const { matrix, say, random, keepDirectory } = round;
    if (matrix === null) throw new Error('harm: no matrix');
    const harms = matrix.harms?.map(
      (name): Harm => HARMS.find((harm) => harm === name) ?? assert.fail(`there is no harm ${name}, but ${HARMS.join(', ')}`),
    );
    return await new HarmMatrix({
      ...matrix,
      harms: harms ?? HARMS,
      random,
      say,
      makeLane: async (name): Promise<Lane> => {
        await using stack = new AsyncDisposableStack();
        const home = stack.use(await scratchDirectory(name, round.directory)).path;
        const store = stack.use(await HostileStore.start(random.uint32()));
        const backend: Backend = { name: 'swift', port: null, environment: () => store.environment, store: null };
        const cluster = stack.use(
          await Cluster.create({ directory: home, backend, cuttable: true, cluster: { ...thresholds(0), cooldownMs: 0 }, environment: SETTINGS }),
        );
        const owned = stack.move();
        return { cluster, store, [Symbol.asyncDispose]: () => owned.disposeAsync() };
      },
      keep: async (name, { cluster }, error, plans) => {
        const directory = join(keepDirectory, `${name}-${Date.now()}`);
        await keepEvidence(
          directory,
          cluster,
          error,
          plans.map(({ point, harm }) => `${point} ${harm}`),
        );
        say(`${name}: kept in ${directory}`);
      },
    }).run();
  },

  /** Every cable of a private network, pulled for moments and for longer than a lease. */
  cables: async (round) => {
    const network = round.stack.use(await PrivateNetwork.create(CABLE_HOSTS));
    const cuts = CABLES.flatMap((cable) => [2, 6, 15, 40].map((seconds) => `${cable}:${seconds}`));
    for (let index = cuts.length - 1; index > 0; index -= 1) cuts.push(...cuts.splice(round.random.below(index + 1), 1));
    const kept = join(round.keepDirectory, `cables-${Date.now()}`);
    const options = { directory: round.directory, seed: round.random.uint32(), cuts: cuts.join(','), kept, say: round.say };
    const { ok, lines } = await inPrivateNetwork(network, options);
    assert.ok(ok, lines.at(-1));
    return lines.at(-1) ?? '';
  },

  /** A primary dies or hangs, Sentinel fails over; two hosts read and write, the object moves. */
  sentinel: async (round) => {
    const { random } = round;
    const cluster = await clusterOf(round, { redis: 'sentinel', cluster: { ...thresholds(0), cooldownMs: 0 } });
    const [a, b] = cluster.pair;
    const h1 = round.stack.use(await WanderingClient.connect({ routers: [a, b], machineName: 'H1' }));
    const h2 = round.stack.use(await WanderingClient.connect({ routers: [b, a], machineName: 'H2' }));
    const load = await RegisterLoad.create(h1, random.uint32(), 'x-flat.vmdk', { stableOnly: true });
    let over = false;
    const running = load.runUntil([h1, h2], 8, () => over);
    running.catch(() => (over = true));
    const names = namespaceLoad(h2, () => over);
    names.catch(() => (over = true));
    const hang = random.chance(0.5);
    try {
      await cluster.operator.move('/x-flat.vmdk', b);
      if (hang) cluster.redis.primary.pause();
      else await cluster.redis.primary.kill();
      await wait(random.between(6000, 15_000));
      if (hang) cluster.redis.primary.resume();
      else await cluster.redis.primary.start();
      await cluster.operator.move('/x-flat.vmdk', a);
    } finally {
      over = true;
    }
    const operations = await running;
    await load.check(h1);
    return `the primary ${hang ? 'hung' : 'died'}; ${operations} operations, ${await names} names, the longest ${Math.round(Math.max(h1.longestMs, h2.longestMs))} ms`;
  },

  /** esxi 34. */
  'lock-race': async (round) => {
    const cluster = await clusterOf(round, { cluster: thresholds(0) });
    await lockRace(round.stack.use(await twoHosts(cluster)), 1000);
    return '1000 rounds, one winner each';
  },

  /** esxi 35: once a second for ten minutes. */
  'lock-liveness': async (round) => {
    const cluster = await clusterOf(round, { cluster: thresholds(0) });
    const { h1, h2, root } = round.stack.use(await twoHosts(cluster));
    const lock = Buffer.from(made(await h1.create(root, '.lck-35', GUARDED)).handle);
    for (let second = 1; second <= 600; second += 1) {
      succeeded(await h1.write(lock, 0, lockContents('H1', second), Stability.FILE_SYNC));
      assert.ok(succeeded(await h2.read(lock, 0, 84)).data.equals(lockContents('H1', second)), `second ${second}`);
      await wait(1000);
    }
    return '600 renewals, each read at once';
  },

  /** esxi 39: a hundred switches. */
  vmotion: async (round) => {
    const cluster = await clusterOf(round, { cluster: { ...thresholds(64), cooldownMs: 500, movesMax: 4 } });
    const hosts = round.stack.use(await twoHosts(cluster));
    const machine = await VmotionReplay.powerOn(hosts.h1, await hosts.directory(), 20);
    for (let turn = 0; turn < 100; turn += 1) {
      const [from, to, name] = turn % 2 === 0 ? ([hosts.h1, hosts.h2, 'H2'] as const) : ([hosts.h2, hosts.h1, 'H1'] as const);
      await machine.work(from, 400);
      await machine.move(from, to, name);
      await machine.work(to, 800);
    }
    return `switches of 20 disks: ${machine.timings}`;
  },

  /** A real machine, ten times there and back. */
  'live-migration': async (round) => {
    const cluster = await clusterOf(round, { portMapper: true, nfsPort: 2049, cluster: { ...thresholds(200), cooldownMs: 1000 } });
    const [a, b] = cluster.pair;
    await run(['qemu-img', 'create', '-f', 'raw', `${a.url}/vm-flat.vmdk`, '32M']);
    const vm = round.stack.use(await LiveVm.boot(round.directory, `${a.url}/vm-flat.vmdk`, 32));
    const longest: number[] = [];
    for (let turn = 0; turn < 20; turn += 1) {
      const to = turn % 2 === 0 ? b : a;
      await vm.migrate(`${to.url}/vm-flat.vmdk`);
      await cluster.operator.waitForOwner('/vm-flat.vmdk', to);
      const report = await vm.report();
      assert.deepEqual([report.errors, report.wrong], [0, 0]);
      longest.push(report.longestMs);
      await wait(round.random.between(500, 3000));
    }
    await vm.verifyAndEnd();
    return `20 migrations, longest I/O around each: ${quantiles(longest.toSorted((x, y) => x - y))}`;
  },

  /** esxi 42. */
  'network-loss': async (round) => {
    const cluster = await clusterOf(round, { cluster: thresholds(0) });
    const [, b] = cluster.pair;
    const way = round.stack.use(await NetworkPath.to(b.process.nfsPort, b.address));
    for (const seconds of [20, 40, 130]) {
      const host = await NfsClient.connect({ host: '127.0.0.1', nfsPort: way.port, timeoutMs: 300_000 });
      const root = Buffer.from(succeeded(await host.mount(`/${b.process.vpool}`)).handle);
      const disk = Buffer.from(made(await host.create(root, `loss-${seconds}-flat.vmdk`, GUARDED)).handle);
      way.cut();
      const stuck = host.write(disk, 0, lockContents('H1', seconds), Stability.FILE_SYNC);
      await wait(seconds * 1000);
      way.restore();
      succeeded(await stuck);
      succeeded(await host.getattr(root));
      assert.ok(succeeded(await host.read(disk, 0, 84)).data.equals(lockContents('H1', seconds)));
      await host.close();
    }
    return 'nothing for 20, 40 and 130 s, and then everything';
  },

  /** esxi 41: the backend answers nothing for 15 s and for 60 s. */
  'backend-freeze': async (round) => {
    const { store, backend } = await hostile(round);
    const cluster = await clusterOf(round, { backend, cluster: thresholds(0) });
    const { h1, h2, root } = round.stack.use(await twoHosts(cluster));
    const disk = Buffer.from(made(await h1.create(root, 'x-flat.vmdk', GUARDED)).handle);
    let worstMs = 0;
    for (const seconds of [15, 60]) {
      store.setFaults({ http: { stall: 1 } });
      const began = performance.now();
      for (let turn = 0; performance.now() - began < seconds * 1000; turn += 1) {
        for (const host of [h1, h2]) {
          const asked = performance.now();
          succeeded(await host.getattr(root));
          worstMs = Math.max(worstMs, performance.now() - asked);
          succeeded(await host.write(disk, (turn % 64) * 4096, Buffer.alloc(4096, turn), Stability.FILE_SYNC));
        }
        await wait(20);
      }
      store.setFaults({});
      await cluster.operator.waitFor('/x-flat.vmdk', (volume) => volume.protection === 'clean');
    }
    assert.ok(worstMs < 50_000, `GETATTR took ${worstMs} ms`);
    return `15 and 60 s, GETATTR at most ${Math.round(worstMs)} ms`;
  },

  /** esxi 14: ten minutes without a call, on the same connection. */
  idle: async (round) => {
    const cluster = await clusterOf(round, { cluster: thresholds(0) });
    const { h1, h2, root } = round.stack.use(await twoHosts(cluster));
    await wait(600_000);
    for (const host of [h1, h2]) succeeded(await host.getattr(root));
    return 'ten minutes without a call, then an answer';
  },
};

async function createCluster(round: Round, options: Omit<ClusterOptions, 'directory'>): Promise<Cluster> {
  const directory = join(round.directory, 'cluster');
  await run(['mkdir', '-p', directory]);
  const cluster = round.stack.use(await Cluster.create({ ...options, directory, environment: { ...SETTINGS, ...options.environment } }));
  round.clusters.push(cluster);
  return cluster;
}

async function clusterOf(round: Round, options: Omit<ClusterOptions, 'directory'>): Promise<Cluster> {
  const cluster = await createCluster(round, options);
  await cluster.startRouters();
  return cluster;
}

async function hostile(round: Round): Promise<{ readonly store: HostileStore; readonly backend: Backend }> {
  const store = round.stack.use(await HostileStore.start(round.random.uint32()));
  // The store is in this process's memory, and an hour of overwriting is more than a machine has: what is dead has to go.
  const environment = { ...store.environment, VFERRY_VPOOL_GRACE_TIME_MS: '5s' };
  return { store, backend: { name: 'swift', port: null, environment: () => environment, store: null } };
}

/** Makes names, renames them and takes them away again: what was answered must be so. Returns how many. */
async function namespaceLoad(client: WanderingClient, over: () => boolean): Promise<number> {
  let made_ = 0;
  for (; !over(); made_ += 1) {
    const [from, to] = [`n-${made_}`, `m-${made_}`];
    assert.equal((await client.create(client.root, from, 'guarded', { mode: 0o600 })).status, 0);
    assert.equal((await client.rename(client.root, from, client.root, to)).status, 0);
    assert.equal((await client.lookup(client.root, to)).status, 0);
    assert.equal((await client.lookup(client.root, from)).status, 2);
    if (made_ % 2 === 0) assert.equal((await client.remove(client.root, to)).status, 0);
  }
  const names = new Set((await client.list(client.root)).map(({ name }) => name));
  for (let index = 0; index < made_; index += 1) assert.equal(names.has(`m-${index}`), index % 2 === 1, `m-${index}`);
  return made_;
}

function moved({ tookMs, operations, jukebox, stallsMs, quietMs, heldMs }: PingPongResult): string {
  return (
    `${tookMs.length} moves of ${quantiles(tookMs)}; ${operations} operations, ${jukebox} told to come back; ` +
    `longest around a move: ${quantiles(stallsMs)}; between moves: ${quantiles(quietMs)}; held: ${quantiles(heldMs)}`
  );
}

function quantiles(sorted: readonly number[]): string {
  const at = (share: number): string => (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN).toFixed(0);
  return `median ${at(0.5)}, p99 ${at(0.99)}, max ${at(1)} ms`;
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
