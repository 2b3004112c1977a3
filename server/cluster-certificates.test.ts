/** The certificates of a cluster on three "hosts": directories. Real keys, real TLS. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { chmodSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import type { OfferOptions } from './cluster-ca-port.ts';
import { CertificateFiles } from './cluster-ca/certificate-files.ts';
import { readToken, writeToken } from './cluster-ca/join-token.ts';
import { type RouterCertificates, checkCertificates } from './cluster-ca/router-certificate.ts';
import { clusterCertificates } from './cluster-certificates.ts';
import type { RouterId } from './core/ids.ts';
import { systemRandom } from './core/node-time.ts';
import { openDataDirectory } from './data-directory.ts';
import { loadSettings } from './settings/load.ts';
import type { Settings } from './settings/settings.ts';

class Hosts implements Disposable {
  readonly directory = mkdtempSync(join(tmpdir(), 'vferry-cluster-ca-'));

  settings(host: string): Settings {
    const { settings } = loadSettings({
      flags: new Map([['data', join(this.directory, host)]]),
      flagLabels: new Map(),
      environment: {},
      configPath: null,
      machine: { workingDirectory: this.directory, memoryBytes: 2 ** 33 },
    });
    return settings;
  }

  file(host: string, name: string): string {
    return join(this.directory, host, 'cluster', name);
  }

  [Symbol.dispose](): void {
    rmSync(this.directory, { recursive: true });
  }
}

/** What a router that serves does. */
function load(directory: string, router: RouterId): RouterCertificates {
  return checkCertificates(new CertificateFiles(directory).read(), directory, router, Date.now());
}

interface Offer {
  readonly token: Promise<string>;
  readonly joined: string[];
  readonly refused: string[];
  readonly controller: AbortController;
  readonly over: Promise<number>;
}

function offer(settings: Settings, change: Partial<OfferOptions> = {}): Offer {
  const { promise: token, resolve, reject } = Promise.withResolvers<string>();
  const [joined, refused, controller] = [[] as string[], [] as string[], new AbortController()];
  const over = clusterCertificates.offer(settings, {
    listen: { host: '127.0.0.1', port: 0 },
    address: null,
    validMs: 60_000,
    uses: 1,
    sharedSettings: 'vpool: { name: gold }\n',
    signal: controller.signal,
    offered: resolve,
    joined: (router, _address, again) => void joined.push(`${router} ${again}`),
    refused: (_address, reason) => void refused.push(reason),
    ...change,
  });
  over.catch(reject);
  token.catch(() => undefined);
  return { token, joined, refused, controller, over };
}

test('an authority, two routers that join, and all files for their owner only', async () => {
  using hosts = new Hosts();
  const [a, b, c] = [hosts.settings('a'), hosts.settings('b'), hosts.settings('c')];
  const first = await clusterCertificates.init(a);
  assert.equal(first.canSign, true);
  assert.equal(first.directory, join(hosts.directory, 'a', 'cluster'));
  const offered = offer(a, { uses: 2 });
  const token = await offered.token;
  const [second, third] = await Promise.all([clusterCertificates.join(b, token), clusterCertificates.join(c, token)]);
  assert.equal(await offered.over, 2);
  assert.equal(second.sharedSettings, 'vpool: { name: gold }\n');
  const routers = [first.router, second.report.router, third.report.router];
  assert.equal(new Set(routers).size, 3);
  assert.deepEqual(offered.joined.toSorted(), [`${routers[1]} false`, `${routers[2]} false`].toSorted());
  assert.deepEqual(new Set([first, second.report, third.report].map(({ authority }) => authority)).size, 1);
  assert.equal(second.report.canSign, false);
  for (const [host, names] of [
    ['a', ['ca-key.pem', 'ca.pem', 'crl.pem', 'issued.json', 'router-key.pem', 'router.pem']],
    ['b', ['ca.pem', 'crl.pem', 'router-key.pem', 'router.pem']],
  ] as const) {
    const directory = join(hosts.directory, host, 'cluster');
    assert.deepEqual(readdirSync(directory).toSorted(), names);
    assert.equal(statSync(directory).mode & 0o777, 0o700);
    for (const name of names) assert.equal(statSync(join(directory, name)).mode & 0o777, 0o600, name);
  }
  // What a router that serves loads; its data directory may be locked then.
  using directory = openDataDirectory(b.data, systemRandom);
  assert.equal(directory.routerId, second.report.router);
  const tls = load(second.report.directory, directory.routerId);
  assert.equal(tls.endsAtMs, Date.parse(second.report.endsAt));
  assert.ok(tls.revocations?.includes('X509 CRL'));
  assert.deepEqual(await clusterCertificates.show(b), second.report);
  assert.throws(() => load(second.report.directory, first.router), { code: 'certificate-unusable' });
});

test('joining again, and renewing where the authority is, give a new key and certificate for the same router', async () => {
  using hosts = new Hosts();
  const [a, b] = [hosts.settings('a'), hosts.settings('b')];
  const first = await clusterCertificates.init(a);
  const keys = new Set<string>();
  const serials = new Set<string>();
  for (const again of [false, true]) {
    const offered = offer(a);
    const { report } = await clusterCertificates.join(b, await offered.token);
    await offered.over;
    assert.deepEqual(offered.joined, [`${report.router} ${again}`]);
    keys.add(readFileSync(hosts.file('b', 'router-key.pem'), 'utf8'));
    serials.add(new X509Certificate(readFileSync(hosts.file('b', 'router.pem'))).serialNumber);
  }
  assert.deepEqual([keys.size, serials.size], [2, 2]);
  const before = readFileSync(hosts.file('a', 'router.pem'), 'utf8');
  const renewed = await clusterCertificates.renew(a);
  assert.equal(renewed.router, first.router);
  assert.notEqual(readFileSync(hosts.file('a', 'router.pem'), 'utf8'), before);
  await assert.rejects(clusterCertificates.renew(b), {
    code: 'certificate-missing',
    message: /the authority is on another host.*vferry cluster join TOKEN/,
  });
  await assert.rejects(clusterCertificates.renew(hosts.settings('new')), { code: 'certificate-missing' });
});

test('a second authority, and another cluster, do not replace what is there', async () => {
  using hosts = new Hosts();
  const [a, b, other] = [hosts.settings('a'), hosts.settings('b'), hosts.settings('other')];
  await clusterCertificates.init(a);
  await clusterCertificates.init(other);
  const certificate = readFileSync(hosts.file('a', 'ca.pem'), 'utf8');
  await assert.rejects(clusterCertificates.init(a), { code: 'cluster-exists', message: /vferry cluster show/ });
  const offered = offer(a);
  await clusterCertificates.join(b, await offered.token);
  const foreign = offer(other);
  await assert.rejects(clusterCertificates.join(b, await foreign.token), { code: 'other-cluster' });
  await assert.rejects(clusterCertificates.init(b), { code: 'cluster-exists' });
  foreign.controller.abort();
  assert.equal(await foreign.over, 0);
  assert.equal(readFileSync(hosts.file('b', 'ca.pem'), 'utf8'), certificate);
});

test('an offer ends with its time or with the signal, and nobody joins after that', async () => {
  using hosts = new Hosts();
  const [a, b] = [hosts.settings('a'), hosts.settings('b')];
  await clusterCertificates.init(a);
  const short = offer(a, { validMs: 1 });
  const token = await short.token;
  assert.equal(await short.over, 0);
  await assert.rejects(clusterCertificates.join(b, token), { code: 'join-unreachable' });
  const interrupted = offer(a, { signal: AbortSignal.abort() });
  assert.equal(await interrupted.over, 0);
  assert.deepEqual(readdirSync(join(hosts.directory, 'b')).includes('cluster'), false);
});

test('a token of another address, a spoilt one, and an address that is none', async () => {
  using hosts = new Hosts();
  const [a, b] = [hosts.settings('a'), hosts.settings('b')];
  await clusterCertificates.init(a);
  const offered = offer(a, { address: 'router-a.example.com:2051' });
  const token = readToken(await offered.token);
  assert.ok(token !== null);
  assert.equal(token.address, 'router-a.example.com:2051');
  offered.controller.abort();
  await offered.over;
  await assert.rejects(clusterCertificates.join(b, (await offered.token).slice(0, -5)), {
    code: 'token-invalid',
    message: /a part of it is missing/,
  });
  await assert.rejects(clusterCertificates.join(b, writeToken({ ...token, address: '127.0.0.1:1' })), { code: 'join-unreachable' });
  await assert.rejects(offer(a, { address: 'nowhere' }).over, { code: 'token-invalid' });
});

test('what was revoked is on the list that the next router gets, and the list grows', async () => {
  using hosts = new Hosts();
  const [a, b, c] = [hosts.settings('a'), hosts.settings('b'), hosts.settings('c')];
  const first = await clusterCertificates.init(a);
  const join1 = offer(a);
  const { report } = await clusterCertificates.join(b, await join1.token);
  await join1.over;
  const revoked = await clusterCertificates.revoke(a, report.router.slice(0, 8));
  assert.deepEqual(revoked, { router: report.router, certificates: 1, list: hosts.file('a', 'crl.pem') });
  assert.equal((await clusterCertificates.revoke(a, report.router)).certificates, 0);
  const join2 = offer(a);
  await clusterCertificates.join(c, await join2.token);
  await join2.over;
  const list = Buffer.from(readFileSync(hosts.file('c', 'crl.pem'), 'utf8').split('\n').slice(1, -2).join(''), 'base64').toString('hex');
  const serialOf = (host: string): string => new X509Certificate(readFileSync(hosts.file(host, 'router.pem'))).serialNumber.toLowerCase();
  assert.ok(list.includes(serialOf('b')));
  assert.ok(!list.includes(serialOf('c')));
  await assert.rejects(clusterCertificates.revoke(a, first.router), { code: 'no-such-router', message: /it cannot revoke itself/ });
  await assert.rejects(clusterCertificates.revoke(a, 'zz'), { code: 'no-such-router', message: /^no router whose id begins with "zz"/ });
  await assert.rejects(clusterCertificates.revoke(a, ''), { code: 'no-such-router' });
  await assert.rejects(clusterCertificates.revoke(b, first.router), { code: 'certificate-missing' });
});

test('a key that others may read, a damaged journal and missing files are said with what to do', async () => {
  using hosts = new Hosts();
  const a = hosts.settings('a');
  await assert.rejects(clusterCertificates.show(a), { code: 'certificate-missing', message: /ca\.pem: this router has not joined a cluster yet/ });
  const { directory, router } = await clusterCertificates.init(a);
  chmodSync(hosts.file('a', 'router-key.pem'), 0o640);
  assert.throws(() => load(directory, router), {
    code: 'certificate-unusable',
    message: /has mode 0640, so others may read the key; chmod 600/,
  });
  chmodSync(hosts.file('a', 'router-key.pem'), 0o600);
  writeFileSync(hosts.file('a', 'issued.json'), '{"version":1,"issued":[{}]}');
  assert.throws(() => new CertificateFiles(directory).issued(), { code: 'certificate-unusable', message: /issued\.json is damaged/ });
  rmSync(hosts.file('a', 'ca-key.pem'));
  await assert.rejects(offer(a).over, { code: 'certificate-missing', message: /the authority of the cluster is on another host/ });
});
