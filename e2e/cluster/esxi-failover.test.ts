/** The checks of esxi.md 10 about hosts that move, routers that die and ways that break, on two routers. Longer versions: `npm run soak:cluster`. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { lockContents, pattern } from '../../server/nfsd/conformance/contents.ts';
import { failed, GUARDED, listAll, made, namesOf, succeeded } from '../../server/nfsd/conformance/server-under-test.ts';
import { Stability, Status } from '../../server/nfsd/file-system.ts';
import { NfsClient } from '../../server/nfsd/nfs-client.ts';
import { authSys } from '../../server/oncrpc/rpc-client.ts';
import type { Backend } from '../backends/backend-fixture.ts';
import { HostileStore } from '../hostile-store/hostile-store.ts';
import { NetworkPath } from '../services/network-path.ts';
import { stackOf } from '../test-stack.ts';
import { clientByTurns } from './client-by-turns.ts';
import { Cluster, thresholds } from './cluster.ts';
import { Timings, twoHosts } from './two-hosts.ts';
import { VmotionReplay } from './vmotion-replay.ts';

const MIB = 1024 * 1024;

test('esxi 13: 4,096 outstanding 64 KiB writes to B of a disk that A serves are all acknowledged, memory stays bounded, GETATTR answers on both', async (t) => {
  const cluster = await Cluster.forTest(t, { cluster: thresholds(0), environment: { VFERRY_CACHE_RAM_BYTES: '64MiB' } });
  const { h1, h2, root } = stackOf(t).use(await twoHosts(cluster));
  const { handle } = made(await h1.create(root, 'bulk-flat.vmdk', GUARDED));
  succeeded(await h1.write(handle, 0, Buffer.alloc(4096, 1), Stability.FILE_SYNC));
  const bulk = stackOf(t).use(await disposable(cluster));
  let done = false;
  const writes = Array.from({ length: 4096 }, (_, index) =>
    bulk.client.write(handle, index * 65_536, Buffer.alloc(65_536, (index % 255) + 1), Stability.FILE_SYNC),
  );
  const all = Promise.all(writes).finally(() => (done = true));
  const timings = new Timings();
  while (!done) {
    for (const host of [h1, h2]) succeeded(await timings.measure(() => host.getattr(root)));
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  for (const answer of await all) assert.deepEqual([answer.status, succeeded(answer).countBytes], [Status.OK, 65_536]);
  const peaks = cluster.routers.map(({ process }) => process.memory().peakBytes);
  t.diagnostic(`GETATTR of the root: ${timings}; peak RSS ${peaks.map((bytes) => Math.round(bytes / MIB)).join(' and ')} MiB`);
  assert.ok(timings.max < 50_000, String(timings));
  for (const peak of peaks) assert.ok(peak < 768 * MIB, `peak of ${Math.round(peak / MIB)} MiB`);
  for (const index of [0, 1, 2047, 4095]) {
    assert.ok(succeeded(await h1.read(handle, index * 65_536, 65_536)).data.equals(Buffer.alloc(65_536, (index % 255) + 1)), `write ${index}`);
  }
});

test('esxi 39: a machine with 20 disks moves between H1 at A and H2 at B and back, under I/O, while its disks follow; nothing it wrote is missing', async (t) => {
  const cluster = await Cluster.forTest(t, { cluster: { ...thresholds(64), cooldownMs: 500, movesMax: 4 } });
  const hosts = stackOf(t).use(await twoHosts(cluster));
  const machine = await VmotionReplay.powerOn(hosts.h1, await hosts.directory(), 20);
  for (let round = 0; round < 10; round += 1) {
    const [from, to, name] = round % 2 === 0 ? ([hosts.h1, hosts.h2, 'H2'] as const) : ([hosts.h2, hosts.h1, 'H1'] as const);
    await machine.work(from, 400);
    await machine.move(from, to, name);
    await machine.work(to, 800);
  }
  t.diagnostic(`switches of 20 disks: ${machine.timings} (the goal is 500 ms)`);
  assert.ok(machine.timings.max < 50_000, String(machine.timings));
});

test('esxi 40: A dies under calls of H1, who sends them again to B: each has its first answer, its lock is renewed in time, and back again', async (t) => {
  const cluster = await Cluster.forTest(t, { cluster: thresholds(0) });
  const [a, b] = cluster.pair;
  const credential = authSys({ machineName: 'H1', stamp: 40 });
  const atA = await a.nfs({ credential });
  const root = Buffer.from(succeeded(await atA.mount(`/${a.process.vpool}`)).handle);
  const directory = Buffer.from(made(await atA.mkdir(root, 'failover', { mode: 0o755 })).handle);
  const lock = Buffer.from(made(await atA.create(directory, '.lck-40', GUARDED)).handle);
  succeeded(await atA.write(lock, 0, lockContents('H1', 1), Stability.FILE_SYNC));
  const disk = Buffer.from(made(await atA.create(directory, 'x-flat.vmdk', GUARDED)).handle);
  const bytes = pattern(65_536, 1);
  succeeded(await atA.write(disk, 0, bytes, Stability.FILE_SYNC));
  const xid = 0x2800_0000 + process.pid * 16;
  made(await atA.create(directory, 'gone', GUARDED));
  made(await atA.create(directory, 'from', GUARDED));
  const first = made(await atA.create(directory, 'made', GUARDED, { xid }));
  succeeded(await atA.remove(directory, 'gone', { xid: xid + 1 }));
  assert.equal((await atA.rename(directory, 'from', directory, 'to', { xid: xid + 2 })).status, Status.OK);
  const { localPort } = atA.rpc;
  const renewed = performance.now();
  await a.process.kill();
  await atA.rpc.closed();

  // From the same source port, as ESXi does; the address that stays the same on real hosts is another one here.
  const atB = stackOf(t).use(await disposable(cluster, 1, { credential }));
  succeeded(await atB.client.write(lock, 0, lockContents('H1', 2), Stability.FILE_SYNC));
  const gapMs = performance.now() - renewed;
  t.diagnostic(`lock renewed ${gapMs.toFixed(0)} ms after the last time, source port was ${localPort}`);
  assert.ok(gapMs < 100_000, `${gapMs} ms`);
  assert.deepEqual(made(await atB.client.create(directory, 'made', GUARDED, { xid })), first);
  succeeded(await atB.client.remove(directory, 'gone', { xid: xid + 1 }));
  assert.equal((await atB.client.rename(directory, 'from', directory, 'to', { xid: xid + 2 })).status, Status.OK);
  failed(await atB.client.create(directory, 'made', GUARDED), Status.EXIST);

  // Back again.
  await a.process.start();
  const again = stackOf(t).use(await disposable(cluster, 0, { credential }));
  assert.deepEqual(made(await again.client.create(directory, 'made', GUARDED, { xid })), first);
  assert.ok(succeeded(await again.client.read(lock, 0, 84)).data.equals(lockContents('H1', 2)));
  await eventually(async () => {
    const read = await atB.client.read(disk, 0, 65_536);
    if (read.status === Status.JUKEBOX) return false;
    assert.ok(succeeded(read).data.equals(bytes));
    return true;
  });
  assert.equal(b.process.running, true);
});

test('esxi 40: what a dead router had brought to the backend is served by the other one', async (t) => {
  const cluster = await Cluster.forTest(t, { cluster: thresholds(0), environment: { VFERRY_LOG_SEAL_AFTER_MS: '100ms' } });
  const [a] = cluster.pair;
  const { h1, h2, root } = stackOf(t).use(await twoHosts(cluster));
  const { handle } = made(await h1.create(root, 'x-flat.vmdk', GUARDED));
  const disk = Buffer.from(handle);
  const bytes = pattern(MIB, 3);
  succeeded(await h1.write(disk, 0, bytes, Stability.FILE_SYNC));
  await cluster.operator.waitFor('/x-flat.vmdk', (volume) => volume.protection === 'clean');
  await a.process.kill();
  const died = performance.now();
  await eventually(async () => {
    const read = await h2.read(disk, 0, MIB);
    if (read.status === Status.JUKEBOX) return false;
    assert.ok(succeeded(read).data.equals(bytes));
    return true;
  });
  succeeded(await h2.write(disk, 0, pattern(4096, 4), Stability.FILE_SYNC));
  const tookMs = performance.now() - died;
  t.diagnostic(`served by B ${(tookMs / 1000).toFixed(1)} s after the death of A`);
  // 12 s is the goal, and ESXi's limit 29 s; the machine of the tests may be slow.
  assert.ok(tookMs < 120_000, `${tookMs} ms`);
});

test('esxi 41: the backend is away for 3 s: no errors, and GETATTR of the root and lock renewals answer in time on both routers', async (t) => {
  const store = stackOf(t).use(await HostileStore.start(41));
  const backend: Backend = { name: 'swift', port: null, environment: () => store.environment, store: null };
  const cluster = await Cluster.forTest(t, { backend, cluster: thresholds(0), environment: { VFERRY_LOG_SEAL_AFTER_MS: '100ms' } });
  const { h1, h2, root } = stackOf(t).use(await twoHosts(cluster));
  const disk = Buffer.from(made(await h1.create(root, 'x-flat.vmdk', GUARDED)).handle);
  const lock = Buffer.from(made(await h1.create(root, '.lck-41', GUARDED)).handle);
  succeeded(await h1.write(disk, 0, pattern(4096, 0), Stability.FILE_SYNC));
  await store.server.stopListening();
  const timings = new Timings();
  const began = performance.now();
  for (let round = 0; performance.now() - began < 3000; round += 1) {
    for (const host of [h1, h2]) {
      succeeded(await timings.measure(() => host.getattr(root)));
      succeeded(await timings.measure(() => host.write(lock, 0, lockContents('H1', round), Stability.FILE_SYNC)));
      succeeded(await host.write(disk, (round % 64) * 4096, pattern(4096, round), Stability.FILE_SYNC));
      assert.ok(succeeded(await host.read(disk, (round % 64) * 4096, 4096)).data.equals(pattern(4096, round)));
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await store.server.listen();
  await cluster.operator.waitFor('/x-flat.vmdk', (volume) => volume.protection === 'clean');
  t.diagnostic(`GETATTR and renewals: ${timings}`);
  assert.ok(timings.max < 50_000, String(timings));
});

test('esxi 42: nothing arrives between a host and its router for 4 s: the host mounts again at once, and old handles work', async (t) => {
  const cluster = await Cluster.forTest(t, { cluster: thresholds(0) });
  const [, b] = cluster.pair;
  const way = stackOf(t).use(await NetworkPath.to(b.process.nfsPort, b.address));
  const connect = (): Promise<NfsClient> => NfsClient.connect({ host: '127.0.0.1', nfsPort: way.port, timeoutMs: 240_000 });
  const host = await connect();
  const root = Buffer.from(succeeded(await host.mount(`/${b.process.vpool}`)).handle);
  const disk = Buffer.from(made(await host.create(root, 'x-flat.vmdk', GUARDED)).handle);
  way.cut();
  const stuck = host.write(disk, 0, pattern(4096, 1), Stability.FILE_SYNC);
  await new Promise((resolve) => setTimeout(resolve, 4000));
  way.restore();
  assert.equal(succeeded(await stuck).countBytes, 4096);
  const again = await connect();
  assert.deepEqual(Buffer.from(succeeded(await again.mount(`/${b.process.vpool}`)).handle), root);
  succeeded(await again.fsinfo(root));
  succeeded(await again.getattr(root));
  assert.ok(succeeded(await again.read(disk, 0, 4096)).data.equals(pattern(4096, 1)));
  await Promise.all([host.close(), again.close()]);
});

test('esxi 43: 64 hosts with heartbeats and locks at both routers are answered beside one that writes as fast as it can', async (t) => {
  const cluster = await Cluster.forTest(t, { cluster: thresholds(0) });
  const { h1, root } = stackOf(t).use(await twoHosts(cluster));
  const bulk = Buffer.from(made(await h1.create(root, 'bulk-flat.vmdk', GUARDED)).handle);
  let over = false;
  const writers = Array.from({ length: 32 }, async (_, lane) => {
    for (let turn = 0; !over; turn += 1)
      succeeded(await h1.write(bulk, (lane * 64 + (turn % 64)) * 65_536, Buffer.alloc(65_536, turn + 1), Stability.FILE_SYNC));
  });
  const timings = new Timings();
  const hosts = await Promise.all(
    Array.from({ length: 64 }, (_, index) => cluster.router(index % 2).nfs({ credential: authSys({ machineName: `host-${index}` }) })),
  );
  try {
    await Promise.all(
      hosts.map(async (host, index) => {
        const lock = Buffer.from(made(await host.create(root, `.lck-host-${index}`, GUARDED)).handle);
        for (let beat = 1; beat <= 8; beat += 1) {
          succeeded(await timings.measure(() => host.getattr(root)));
          succeeded(await timings.measure(() => host.write(lock, 0, lockContents(`host-${index}`, beat), Stability.FILE_SYNC)));
          await new Promise((resolve) => setTimeout(resolve, 300));
        }
      }),
    );
  } finally {
    over = true;
    await Promise.all([...writers, ...hosts.map((host) => host.close())]);
  }
  t.diagnostic(`heartbeats and renewals: ${timings} (the goal is a p99 of 10 ms, on a machine of its own)`);
  assert.ok(timings.max < 50_000, String(timings));
});

test('esxi 44: the life of a virtual machine, each call through the other router: nothing is left of it', async (t) => {
  const cluster = await Cluster.forTest(t, { cluster: thresholds(0) });
  const [a, b] = cluster.pair;
  const host = clientByTurns([await a.nfs(), await b.nfs()]);
  stackOf(t).defer(() => host.close());
  const root = Buffer.from(succeeded(await host.mount(`/${a.process.vpool}`)).handle);
  const handleOf = async (directory: Buffer, name: string): Promise<Buffer> => Buffer.from(made(await host.create(directory, name, GUARDED)).handle);
  const write = async (file: Buffer, bytes: Buffer, at = 0): Promise<void> => void succeeded(await host.write(file, at, bytes, Stability.FILE_SYNC));

  const vm = Buffer.from(made(await host.mkdir(root, 'vm1', { mode: 0o755 })).handle);
  for (const name of ['vm1.vmx', 'vm1.vmdk', 'vm1.vmsd', 'vm1.nvram']) await write(await handleOf(vm, name), pattern(700, name.length));
  const flat = await handleOf(vm, 'vm1-flat.vmdk');
  succeeded(await host.setattr(flat, { sizeBytes: 40 * 2 ** 30 }));
  // Power on.
  const lock = await handleOf(vm, '.lck-vm1');
  await write(lock, lockContents('H1', 1));
  const swap = await handleOf(vm, 'vm1-1.vswp');
  succeeded(await host.setattr(swap, { sizeBytes: 2 ** 30 }));
  const log = await handleOf(vm, 'vmware.log');
  for (let line = 0; line < 40; line += 1) await write(log, Buffer.alloc(300, line + 1), line * 300);
  for (let block = 0; block < 64; block += 1) await write(flat, pattern(65_536, block), block * 2 ** 24);
  // vmx~ over vmx.
  await write(await handleOf(vm, 'vm1.vmx~'), pattern(900, 9));
  assert.equal((await host.rename(vm, 'vm1.vmx~', vm, 'vm1.vmx')).status, Status.OK);
  // Snapshot with memory, writes into the delta, consolidation.
  await write(await handleOf(vm, 'vm1-Snapshot1.vmsn'), pattern(4 * MIB, 2));
  const delta = await handleOf(vm, 'vm1-000001-delta.vmdk');
  for (let grain = 0; grain < 32; grain += 1) await write(delta, pattern(65_536, 100 + grain), grain * 65_536);
  for (let grain = 0; grain < 32; grain += 1) {
    const { data } = succeeded(await host.read(delta, grain * 65_536, 65_536));
    await write(flat, data, grain * 2 ** 24);
  }
  for (const name of ['vm1-000001-delta.vmdk', 'vm1-Snapshot1.vmsn']) succeeded(await host.remove(vm, name));
  for (let grain = 0; grain < 32; grain += 1) {
    assert.ok(succeeded(await host.read(flat, grain * 2 ** 24, 65_536)).data.equals(pattern(65_536, 100 + grain)));
  }
  // Rename of the machine, clone, power off, deletion.
  assert.equal((await host.rename(vm, 'vm1-flat.vmdk', vm, 'renamed-flat.vmdk')).status, Status.OK);
  assert.equal((await host.rename(root, 'vm1', root, 'renamed')).status, Status.OK);
  const clone = await handleOf(vm, 'clone-flat.vmdk');
  for (let block = 0; block < 64; block += 1) await write(clone, succeeded(await host.read(flat, block * 2 ** 24, 65_536)).data, block * 65_536);
  succeeded(await host.remove(vm, '.lck-vm1'));
  succeeded(await host.remove(vm, 'vm1-1.vswp'));
  for (const name of namesOf(await listAll(host, vm, 65_536))) succeeded(await host.remove(vm, name));
  assert.deepEqual(namesOf(await listAll(host, vm, 65_536)), []);
  succeeded(await host.rmdir(root, 'renamed'));
  assert.deepEqual(namesOf(await listAll(host, root, 65_536)), []);
  for (const handle of [flat, clone, lock, swap, log]) failed(await host.getattr(handle), Status.STALE);
});

/** A client of a router of the cluster (default B) that is closed with the test. */
async function disposable(cluster: Cluster, router = 1, options: Parameters<(typeof cluster.routers)[0]['nfs']>[0] = {}) {
  const client = await cluster.router(router).nfs(options);
  return { client, [Symbol.asyncDispose]: () => client.close() };
}

/** Asks until it says true. @throws Error after four minutes. */
async function eventually(ask: () => Promise<boolean>): Promise<void> {
  const began = performance.now();
  while (!(await ask())) {
    if (performance.now() - began > 240_000) throw new Error('not in 240 s');
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
