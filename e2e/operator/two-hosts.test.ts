/**
 * A cluster of two "hosts" as README.md and docs/OPERATIONS.md say it: certificates and settings by the commands, Redis with an ACL user that may do no more
 * than the docs give it, peers by TLS; then the operator's day: look, move, pin, drain, and take over what a dead router left.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';

import type { MovesReport, RouterReport, VolumeReport } from '../../server/cluster-port.ts';
import { Stability } from '../../server/nfsd/file-system.ts';
import { connectStore } from '../datastore-client.ts';
import { freePorts } from '../free-port.ts';
import { RouterProcess } from '../router-process.ts';
import { scratchFor } from '../scratch.ts';
import { RedisService } from '../services/redis.ts';
import { stackOf } from '../test-stack.ts';

const MAIN = join(import.meta.dirname, '../../server/main.ts');
const MIB = 2 ** 20;

interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Starts `vferry`, with `input` as its standard input; `done` resolves when it ended. */
function vferry(t: TestContext, args: readonly string[], input = ''): { child: ChildProcess; done: Promise<Ran> } {
  const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('VFERRY_') && !name.startsWith('NODE_')));
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ['pipe', 'pipe', 'pipe'], env: environment });
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  let [out, err] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()));
  const { promise, resolve } = Promise.withResolvers<Ran>();
  child.once('close', (code) => resolve({ code, out, err }));
  stackOf(t).defer(async () => {
    child.kill('SIGKILL');
    await promise;
  });
  return { child, done: promise };
}

async function run(t: TestContext, ...args: string[]): Promise<Ran> {
  return await vferry(t, args).done;
}

async function succeed(t: TestContext, ...args: string[]): Promise<string> {
  const { code, out, err } = await run(t, ...args);
  assert.equal(code, 0, `vferry ${args.join(' ')}\n${out}${err}`);
  return out;
}

/** Asks until the answer is as wanted. */
async function eventually<T>(ask: () => Promise<T>, wanted: (answer: T) => boolean): Promise<T> {
  for (let attempt = 0; ; attempt += 1) {
    const answer = await ask();
    if (wanted(answer)) return answer;
    assert.ok(attempt < 960, `still ${JSON.stringify(answer)}`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

test('two hosts become a cluster by token, and an operator moves, drains and takes over', { timeout: 900_000 }, async (t) => {
  const directory = await scratchFor(t, 'two-hosts');
  const redis = stackOf(t).use(await RedisService.start({ directory: join(directory, 'redis') }));
  // As in docs/OPERATIONS.md.
  const acl = ['~vf:{gold}:*', '&*', '-@all', '+@all', '-@dangerous', '+info', '+config|get'];
  assert.equal(await redis.primary.command('ACL', 'SETUSER', 'vferry', 'on', '>hunter2', ...acl), '+OK');
  const shared = join(directory, 'shared');
  await mkdir(shared);
  writeFileSync(join(directory, 'password'), 'hunter2\n', { mode: 0o600 });
  const [nfsPort = 0, peerPort = 0, adminA = 0, adminB = 0] = await freePorts(4);
  const network = `127.${1 + (process.pid % 250)}.77`;

  // The first host.
  const configA = join(directory, 'a.yaml');
  const dataA = join(directory, 'a');
  writeFileSync(
    configA,
    JSON.stringify({
      data: dataA,
      vpool: { name: 'gold', backend: { kind: 'directory', path: shared } },
      registry: {
        kind: 'redis',
        redis: { urls: [`redis://127.0.0.1:${redis.primary.port}`], username: 'vferry', passwordFile: join(directory, 'password') },
      },
      cluster: { listen: `${network}.1`, port: peerPort, certificates: join(dataA, 'cluster'), leaseMs: '6s' },
      nfs: { listen: `${network}.1`, port: nfsPort, portmap: 'off' },
      admin: { listen: '127.0.0.1', port: adminA },
      // What is written stays on the router that owns it, until it is told otherwise.
      log: { sealAfterMs: '1h' },
    }),
  );
  await succeed(t, 'cluster', 'init', '--config', configA);
  const routerOn = async (host: 'A' | 'B', dataDirectory: string, config: string, adminPort: number): Promise<RouterProcess> =>
    await RouterProcess.forTest(t, {
      dataDirectory,
      ports: { nfs: nfsPort, admin: adminPort },
      listen: `${network}.${host === 'A' ? 1 : 2}`,
      vpool: 'gold',
      environment: { VFERRY_CONFIG: config },
    });
  const a = await routerOn('A', dataA, configA, adminA);

  // The second one.
  const offer = vferry(t, ['cluster', 'token', '--config', configA, '--join-port', '0']);
  const token = await new Promise<string>((resolve) => offer.child.stdout?.once('data', (chunk: Buffer) => resolve(chunk.toString().trim())));
  const configB = join(directory, 'b.yaml');
  const dataB = join(directory, 'b');
  const joined = await vferry(t, ['cluster', 'join', '-', '--data', dataB], `${token}\n`).done;
  assert.equal(joined.code, 0, joined.err);
  const settings = joined.out;
  assert.equal((await offer.done).code, 0);
  assert.doesNotMatch(settings, /hunter2/);
  writeFileSync(
    configB,
    `${settings
      .replace(/^cluster:\n {2}# listen: .*$/m, `cluster:\n  listen: ${network}.2\n  port: ${peerPort}\n  certificates: ${dataB}/cluster`)
      .replace(/^nfs:\n {2}# listen: .*$/m, `nfs:\n  listen: ${network}.2`)}log: { sealAfterMs: 1h }\n`,
  );
  const b = await routerOn('B', dataB, configB, adminB);
  // Both are on one machine: a command of one host is that with its admin port.
  const onA = ['--admin-port', String(adminA)];
  const onB = ['--admin-port', String(adminB)];

  const routersOf = async (host: readonly string[]): Promise<readonly RouterReport[]> =>
    (JSON.parse(await succeed(t, 'router', 'list', '--json', ...host)) as { routers: RouterReport[] }).routers;
  const routers = await eventually(
    () => routersOf(onA),
    (list) => list.length === 2 && list.every(({ state, connection }) => state === 'running' && connection?.connected !== false),
  );
  const idB = routers.find(({ self }) => !self)?.id ?? '';
  assert.equal(routers.find(({ self }) => !self)?.peer, `${network}.2:${peerPort}`);
  const status = await succeed(t, 'status', ...onA);
  assert.match(status, /^peers {7}at .*, TLS, certificate until 20/m);

  // A's certificates are of no use to anybody else.
  cpSync(join(dataA, 'cluster'), join(directory, 'stolen'), { recursive: true });
  const thief = await RouterProcess.createForTest(t, {
    dataDirectory: join(directory, 'thief'),
    vpool: 'gold',
    environment: { VFERRY_CONFIG: configB, VFERRY_CLUSTER_CERTIFICATES: join(directory, 'stolen'), VFERRY_CLUSTER_PORT: '0' },
  });
  thief.launch();
  assert.equal((await thief.exited()).code, 1);
  assert.match(thief.log, /"code":"certificate-unusable".*is of router/);

  // A disk that is written through A and read through B.
  await using clientA = await connectStore(a, { timeoutMs: 240_000 });
  await using clientB = await connectStore(b, { timeoutMs: 240_000 });
  const disk = '/vm-flat.vmdk';
  const data = Buffer.alloc(MIB, 7);
  const created = await clientA.create(clientA.root, disk.slice(1), 'guarded', { sizeBytes: 64 * MIB });
  assert.equal((await clientA.write(created.handle, 0, data, Stability.FILE_SYNC)).status, 0);
  const readThroughB = async (): Promise<void> => {
    const answer = await clientB.read(created.handle, 0, MIB);
    assert.equal(answer.status, 0);
    assert.ok(answer.data.equals(data));
  };
  await readThroughB();
  const volume = async (host: readonly string[]): Promise<VolumeReport | undefined> =>
    (JSON.parse(await succeed(t, 'volume', 'list', '--json', ...host)) as { volumes: VolumeReport[] }).volumes.find(({ path }) => path === disk);
  assert.notEqual((await volume(onB))?.router, idB);

  // Move, pin, drain.
  assert.match(await succeed(t, 'volume', 'move', disk, idB.slice(0, 10), '--wait', ...onA), /^\/vm-flat\.vmdk is on router .*; I\/O was held for /);
  assert.equal((await volume(onA))?.router, idB);
  const moves = JSON.parse(await succeed(t, 'move', 'list', '--json', ...onA)) as MovesReport;
  assert.deepEqual(
    moves.history.map(({ path, phase, reason, to }) => ({ path, phase, reason, to })),
    [{ path: disk, phase: 'moved', reason: 'operator', to: idB }],
  );
  await succeed(t, 'volume', 'pin', disk, ...onB);
  assert.equal((await volume(onB))?.pinned, true);
  assert.equal((await run(t, 'volume', 'takeover', disk, '--force', '--yes', ...onA)).code, 1);
  const drained = await run(t, 'router', 'drain', '--wait', ...onB);
  assert.equal(drained.code, 0, drained.err);
  assert.match(drained.out, /^\[={30}\] 1 of 1 objects, .*drained\n/);
  assert.notEqual((await volume(onA))?.router, idB);
  assert.equal((await routersOf(onB)).find(({ self }) => self)?.state, 'drained');
  const refused = await run(t, 'volume', 'move', disk, idB, ...onB);
  assert.equal(refused.code, 1);
  assert.match(refused.err, /drained/);
  await succeed(t, 'router', 'undrain', ...onB);
  await readThroughB();

  // A dies with what it acknowledged and has not uploaded.
  const last = Buffer.alloc(4096, 9);
  assert.equal((await clientA.write(created.handle, 0, last, Stability.FILE_SYNC)).status, 0);
  await a.kill();
  await eventually(
    () => routersOf(onB),
    (list) => list.some(({ id, state }) => id !== idB && state === 'dead'),
  );
  const waiting = await eventually(
    () => volume(onB),
    (report) => report?.state === 'recovering',
  );
  assert.match(waiting?.reason ?? '', /\w/);
  const unwilling = await run(t, 'volume', 'takeover', disk, ...onB);
  assert.equal(unwilling.code, 1);
  assert.match(unwilling.out, /Given up for good:\n {2}- Everything that was acknowledged after record \d+/);
  assert.match(unwilling.err, /needs --force/);
  assert.equal((await run(t, 'volume', 'takeover', disk, '--force', ...onB)).code, 2);
  const taken = await succeed(t, 'volume', 'takeover', disk, '--force', '--yes', ...onB);
  assert.match(taken, new RegExp(`${disk.slice(1)} is served by router ${idB.slice(0, 12)}\\.\\n$`));
  // What the backend had is served: the last write was given up.
  await readThroughB();
  assert.equal((await volume(onB))?.router, idB);

  // A comes back as a new incarnation, and serves what is B's by asking B.
  await a.start();
  await using again = await connectStore(a, { timeoutMs: 240_000 });
  const answer = await again.read(created.handle, 0, MIB);
  assert.equal(answer.status, 0);
  assert.ok(answer.data.equals(data));
  assert.equal(readFileSync(join(dataA, 'router.json'), 'utf8').includes(idB), false);
  rmSync(join(directory, 'stolen'), { recursive: true });
});
