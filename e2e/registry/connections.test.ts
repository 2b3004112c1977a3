/** Ways to a Redis: TLS with client certificates, an ACL user, a Cluster; and a Redis that is not fit. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { Member, redisSettings } from '../../registry/redis/testing/linked-registry.ts';
import { systemClock } from '../../server/core/node-time.ts';
import { run } from '../command.ts';
import { freePorts } from '../free-port.ts';
import { scratchFor } from '../scratch.ts';
import { type RedisNode, RedisService } from '../services/redis.ts';

/** A registry that works: one change, one read. */
async function assertWorks(member: Member): Promise<void> {
  const { namespace } = member.registry;
  const name = new Uint8Array(Buffer.from('directory'));
  const made = await namespace.createDirectory(member.mutation('c|1'), namespace.root, name, {
    mode: 0o755,
    uid: 0,
    gid: 0,
    atime: null,
    mtime: null,
  });
  assert.equal(made.kind, 'created');
  assert.equal((await namespace.lookup(namespace.root, name)).kind, 'found');
  assert.equal(member.registry.health(), null);
  assert.equal(member.registry.lease.valid, true);
}

/** Waits until the lease ends later than it did when this was called. */
async function renewed({ registry }: Member): Promise<void> {
  const endsAtMs = (): number => systemClock.monotonicMs() + registry.lease.leftMs;
  const beforeMs = endsAtMs();
  const deadlineMs = systemClock.monotonicMs() + 240_000;
  while (endsAtMs() < beforeMs + 300) {
    assert.ok(systemClock.monotonicMs() < deadlineMs && registry.lease.valid, 'the lease was not renewed');
    await systemClock.sleep(20);
  }
}

/** A CA, and a certificate of it for 127.0.0.1. */
async function certificates(t: TestContext): Promise<{ ca: string; cert: string; key: string }> {
  const directory = await scratchFor(t, 'tls');
  const path = (name: string): string => join(directory, name);
  const subject = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  await run(['openssl', 'req', '-x509', ...subject, '-keyout', path('ca.key'), '-out', path('ca.pem'), '-subj', '/CN=test CA']);
  await run(['openssl', 'req', ...subject.slice(0, -2), '-keyout', path('key.pem'), '-out', path('request.pem'), '-subj', '/CN=redis']);
  await writeFile(path('extensions'), 'subjectAltName=IP:127.0.0.1\n');
  const signed = ['openssl', 'x509', '-req', '-in', path('request.pem'), '-CA', path('ca.pem'), '-CAkey', path('ca.key'), '-CAcreateserial'];
  await run([...signed, '-days', '2', '-extfile', path('extensions'), '-out', path('cert.pem')]);
  return { ca: path('ca.pem'), cert: path('cert.pem'), key: path('key.pem') };
}

test('TLS: the server must be of the CA, the client shows its certificate; the lease goes the same way', async (t) => {
  const { ca, cert, key } = await certificates(t);
  const [tlsPort = 0] = await freePorts(1);
  const configuration = [`tls-port ${tlsPort}`, `tls-ca-cert-file ${ca}`, `tls-cert-file ${cert}`, `tls-key-file ${key}`, 'tls-auth-clients yes'];
  await RedisService.forTest(t, { configuration });
  const settings = { ...redisSettings([]), urls: [`rediss://127.0.0.1:${tlsPort}`] };
  await using member = await Member.joined({ vpoolName: 'tls', settings: { ...settings, caFile: ca, certFile: cert, keyFile: key } });
  await assertWorks(member);
  await renewed(member);
  // Without the CA the server is anybody; without a certificate the server refuses.
  await assert.rejects(Member.open({ vpoolName: 'tls', settings, openTimeoutMs: 3_000 }), /certificate|self-signed|signed/);
  await assert.rejects(Member.open({ vpoolName: 'tls', settings: { ...settings, caFile: ca }, openTimeoutMs: 3_000 }), {
    code: 'registry-unavailable',
  });
});

test('an ACL user with no more rights than the docs give it; a wrong password is told', async (t) => {
  const directory = await scratchFor(t, 'acl');
  const passwordFile = join(directory, 'password');
  await writeFile(passwordFile, 'secret\n');
  const rights = '~vf:* +@all -@dangerous +info +config|get';
  const { primary } = await RedisService.forTest(t, { configuration: [`user vferry on >secret ${rights}`] });
  const settings = redisSettings([primary.port], { username: 'vferry' });
  await using member = await Member.joined({ vpoolName: 'acl', settings: { ...settings, passwordFile } });
  await assertWorks(member);
  await renewed(member);
  assert.equal(member.registry.health(), null, 'renewals are allowed, too');
  for await (const problem of member.registry.verify()) assert.fail(problem);
  await assert.rejects(Member.open({ vpoolName: 'acl', settings: { ...settings, password: 'wrong' }, openTimeoutMs: 3_000 }), /WRONGPASS/);
});

function clusterNode(t: TestContext, busPort: number): Promise<RedisService> {
  return RedisService.forTest(t, { configuration: ['cluster-enabled yes', 'cluster-node-timeout 2000', `cluster-port ${busPort}`] });
}

test('Redis Cluster: the node that serves the slot of the vPool is found from any other', async (t) => {
  const [seedBus = 0, serverBus = 0] = await freePorts(2);
  const seed = await clusterNode(t, seedBus);
  const server = await clusterNode(t, serverBus);
  assert.equal(await seed.primary.command('CLUSTER', 'ADDSLOTSRANGE', '0', '99'), '+OK');
  assert.equal(await server.primary.command('CLUSTER', 'ADDSLOTSRANGE', '100', '16383'), '+OK');
  assert.equal(await seed.primary.command('CLUSTER', 'MEET', '127.0.0.1', String(server.primary.port), String(serverBus)), '+OK');
  const deadlineMs = systemClock.monotonicMs() + 240_000;
  for (const { primary } of [seed, server]) {
    while (!(await primary.command('CLUSTER', 'INFO')).includes('cluster_state:ok')) {
      assert.ok(systemClock.monotonicMs() < deadlineMs, 'the Cluster is well');
      await systemClock.sleep(50);
    }
  }
  await using member = await Member.joined({ vpoolName: 'sharded', settings: redisSettings([seed.primary.port], { mode: 'cluster' }) });
  await assertWorks(member);
  assert.notEqual(await server.primary.command('HGET', 'vf:{sharded}:meta', 'vpool_uuid'), '', 'the registry is on the node of its slot');
});

test('Redis Cluster: of two nodes that both say that the slot is theirs, the one with the newer configuration counts, whoever answers first', async (t) => {
  const nodes: RedisNode[] = [];
  // They do not know of each other, as when one was cut off and replaced.
  for (const [index, busPort] of (await freePorts(2)).entries()) {
    const { primary } = await clusterNode(t, busPort);
    assert.equal(await primary.command('CLUSTER', 'SET-CONFIG-EPOCH', String(index + 4)), '+OK');
    assert.equal(await primary.command('CLUSTER', 'ADDSLOTSRANGE', '0', '16383'), '+OK');
    await primary.waitForLine(['CLUSTER', 'INFO'], 'cluster_state:ok');
    nodes.push(primary);
  }
  const [former, current] = nodes.map(({ port }) => port);
  assert.ok(former !== undefined && current !== undefined);
  const vpoolName = 'claimed-twice';
  // Asked so often, the former one is the first to answer.
  const ports = [...Array.from({ length: 8 }, () => former), current];
  await using member = await Member.joined({ vpoolName, settings: redisSettings(ports, { mode: 'cluster' }) });
  assert.equal(member.registry.health(), null);
  assert.equal(await nodes[0]?.command('DBSIZE'), ':0');
  assert.notEqual(await nodes[1]?.command('HGET', `vf:{${vpoolName}}:meta`, 'vpool_uuid'), '');
});

test('a Redis that would throw keys away when its memory is full is refused at the start', async (t) => {
  const { primary } = await RedisService.forTest(t, { configuration: ['maxmemory 100mb', 'maxmemory-policy allkeys-lru'] });
  const options = { vpoolName: 'evicts', settings: redisSettings([primary.port]) };
  await assert.rejects(Member.open(options), { code: 'registry-unfit' });
  assert.equal(await primary.command('CONFIG', 'SET', 'maxmemory-policy', 'noeviction'), '+OK');
  await using member = await Member.joined(options);
  await assertWorks(member);
});

test('a running router waits while its Redis is not fit, says why, and goes on when it is again', async (t) => {
  const { primary } = await RedisService.forTest(t, { configuration: ['maxmemory-policy allkeys-lru'] });
  await primary.command('CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
  await using member = await Member.joined({ vpoolName: 'unfit', settings: redisSettings([primary.port]), patienceMs: 2_000 });
  await assertWorks(member);
  // It starts with its own settings again.
  await primary.kill();
  await primary.start();
  const { namespace } = member.registry;
  const look = async (): Promise<string> => (await namespace.lookup(namespace.root, new Uint8Array(Buffer.from('directory')))).kind;
  const deadlineMs = systemClock.monotonicMs() + 240_000;
  while (!/maxmemory-policy allkeys-lru/.test(member.registry.health() ?? '')) {
    assert.ok(systemClock.monotonicMs() < deadlineMs, member.registry.health() ?? 'well');
    await assert.rejects(look(), { code: 'registry-unavailable' });
    await systemClock.sleep(20);
  }
  await assert.rejects(look(), { code: 'registry-unavailable' });
  await primary.command('CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
  while ((await look().catch(() => 'away')) !== 'found') assert.ok(systemClock.monotonicMs() < deadlineMs);
});

test('a Redis that keeps nothing is a problem that health names; one that could lose a little is a warning', async (t) => {
  const { primary } = await RedisService.forTest(t);
  await primary.command('CONFIG', 'SET', 'appendfsync', 'everysec');
  await using careless = await Member.joined({ vpoolName: 'everysec', settings: redisSettings([primary.port]) });
  assert.equal(careless.registry.health(), null);
  assert.match(careless.registry.warnings()[0] ?? '', /appendfsync everysec/);
  await primary.command('CONFIG', 'SET', 'appendonly', 'no');
  await using forgetful = await Member.joined({ vpoolName: 'memory', settings: redisSettings([primary.port]) });
  assert.match(forgetful.registry.health() ?? '', /appendonly no/);
});
