/** The certificates of a cluster, for the command (composition of cluster-ca-port.ts). */
import { webcrypto } from 'node:crypto';
import { join } from 'node:path';

import type { CertificateReport, ClusterCertificates, OfferOptions } from './cluster-ca-port.ts';
import { type AuthorityDependencies, fingerprintOf, makeAuthority, makeRequest, makeRevocations, signRequest } from './cluster-ca/authority.ts';
import { CertificateFiles } from './cluster-ca/certificate-files.ts';
import { joinWith } from './cluster-ca/join-client.ts';
import { type JoinServer, startJoinServer } from './cluster-ca/join-server.ts';
import { SECRET_BYTES, readToken, splitAddress, writeToken } from './cluster-ca/join-token.ts';
import { type RouterCertificates, checkCertificates } from './cluster-ca/router-certificate.ts';
import { ApplianceError } from './core/errors.ts';
import type { RouterId } from './core/ids.ts';
import { systemClock, systemRandom } from './core/node-time.ts';
import { routerIdOf } from './data-directory.ts';
import type { Settings } from './settings/settings.ts';

export const clusterCertificates: ClusterCertificates = { init, offer, join: joinCluster, renew, revoke, show };

function filesOf({ cluster, data }: Settings): CertificateFiles {
  return new CertificateFiles(cluster.certificates === 'none' ? join(data, 'cluster') : cluster.certificates);
}

function dependencies(): AuthorityDependencies {
  return { crypto: webcrypto, nowMs: systemClock.wallMs() };
}

function reportOf(files: CertificateFiles, certificates: RouterCertificates): CertificateReport {
  return {
    directory: files.directory,
    router: certificates.router,
    endsAt: new Date(certificates.endsAtMs).toISOString(),
    authority: certificates.authorityFingerprint,
    canSign: files.hasAuthority,
  };
}

function checked(files: CertificateFiles, router: RouterId | null): RouterCertificates {
  return checkCertificates(files.read(), files.directory, router, systemClock.wallMs());
}

async function init(settings: Settings): Promise<CertificateReport> {
  const files = filesOf(settings);
  if (files.authorityCertificate() !== null) {
    throw new ApplianceError(
      'cluster-exists',
      `${files.directory} has certificates of a cluster already; vferry cluster show says which, vferry cluster renew renews`,
    );
  }
  const router = routerIdOf(settings.data, systemRandom);
  files.writeAuthority(await makeAuthority(dependencies(), settings.vpool.name));
  return await certifySelf(files, router);
}

/** A new key and certificate for this router, by the authority that is here. */
async function certifySelf(files: CertificateFiles, router: RouterId): Promise<CertificateReport> {
  const authority = files.readAuthority();
  const { request, key } = await makeRequest(dependencies(), router);
  const { certificate, serial } = await signRequest(dependencies(), authority, request);
  noteIssued(files, router, serial, null);
  const revocations = await revocationsOf(files);
  const texts = { authority: authority.certificate, certificate, key, revocations };
  const usable = checkCertificates(texts, files.directory, router, systemClock.wallMs());
  files.write(texts);
  return reportOf(files, usable);
}

function noteIssued(files: CertificateFiles, router: RouterId, serial: string, address: string | null): void {
  files.writeIssued([...files.issued(), { router, serial, atMs: Math.floor(systemClock.wallMs()), address, revokedAtMs: null }]);
}

/** Made anew from what was issued: the list is always there, so that a router can be revoked later without new settings anywhere. */
async function revocationsOf(files: CertificateFiles): Promise<string> {
  const revoked = files.issued().flatMap(({ serial, revokedAtMs }) => (revokedAtMs === null ? [] : [{ serial, atMs: revokedAtMs }]));
  return await makeRevocations(dependencies(), files.readAuthority(), revoked);
}

async function offer(settings: Settings, options: OfferOptions): Promise<number> {
  const files = filesOf(settings);
  const authority = files.readAuthority();
  const own = checked(files, null);
  const secret = systemRandom.bytes(SECRET_BYTES);
  const endsAtMs = Math.floor(systemClock.wallMs() + options.validMs);
  let joined = 0;
  await using server = await startJoinServer(options.listen, {
    certificate: own.certificate,
    authority: own.authority,
    key: own.key,
    secret,
    endsAtMs,
    uses: options.uses,
    now: () => systemClock.wallMs(),
    async sign(request, address) {
      const { router, certificate, serial } = await signRequest(dependencies(), authority, request);
      noteIssued(files, router, serial, address);
      const answer = { certificate, authority: authority.certificate, revocations: await revocationsOf(files), settings: options.sharedSettings };
      return { router, answer };
    },
    joined(router, address) {
      joined += 1;
      options.joined(router, address, files.issued().filter((issued) => issued.router === router).length > 1);
    },
    refused: options.refused,
  });
  const address = options.address ?? addressOf(options.listen.host, server);
  if (splitAddress(address) === null) throw new ApplianceError('token-invalid', `${address} is no address that a token can name; say host:port`);
  options.offered(
    writeToken({ fingerprint: fingerprintOf(authority.certificate), address, secret, endsAtMs }),
    address,
    new Date(endsAtMs).toISOString(),
  );
  await untilOver(server, options);
  return joined;
}

function addressOf(host: string, server: JoinServer): string {
  return host.includes(':') ? `[${host}]:${server.port}` : `${host}:${server.port}`;
}

async function untilOver(server: JoinServer, { signal, validMs }: OfferOptions): Promise<void> {
  const over = Promise.withResolvers<void>();
  const timer = setTimeout(() => over.resolve(), validMs);
  const abort = (): void => over.resolve();
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  try {
    await Promise.race([server.done, over.promise]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
  }
}

async function joinCluster(settings: Settings, text: string): Promise<{ report: CertificateReport; sharedSettings: string }> {
  const token = readToken(text);
  if (token === null) {
    throw new ApplianceError(
      'token-invalid',
      'this is no token of vferry cluster token, or a part of it is missing: it begins with vfj1- and is one word',
    );
  }
  const files = filesOf(settings);
  const present = files.authorityCertificate();
  if (present !== null && fingerprintOf(present) !== token.fingerprint) {
    throw new ApplianceError('other-cluster', `${files.directory} has certificates of another cluster; move that directory away to join this one`);
  }
  const router = routerIdOf(settings.data, systemRandom);
  const { certificates, settings: sharedSettings } = await joinWith(dependencies(), token, router);
  files.write(certificates);
  return { report: reportOf(files, certificates), sharedSettings };
}

async function renew(settings: Settings): Promise<CertificateReport> {
  const files = filesOf(settings);
  if (!files.hasAuthority && files.authorityCertificate() !== null) {
    throw new ApplianceError(
      'certificate-missing',
      `${files.directory} has no ca-key.pem: the authority is on another host. Make a token there (vferry cluster token) and say vferry cluster join TOKEN here again; that renews, too`,
    );
  }
  return await certifySelf(files, routerIdOf(settings.data, systemRandom));
}

async function revoke(settings: Settings, beginning: string): Promise<{ router: RouterId; certificates: number; list: string }> {
  const files = filesOf(settings);
  files.readAuthority();
  const issued = files.issued();
  const routers = [...new Set(issued.map(({ router }) => router))].filter((router) => beginning !== '' && router.startsWith(beginning));
  const [router] = routers;
  if (router === undefined || routers.length > 1) {
    throw new ApplianceError(
      'no-such-router',
      `${router === undefined ? 'no router' : 'more than one router'} whose id begins with "${beginning}" has got a certificate here`,
    );
  }
  if (router === checked(files, null).router)
    throw new ApplianceError('no-such-router', 'that is this router, whose host has the authority; it cannot revoke itself');
  const atMs = Math.floor(systemClock.wallMs());
  let certificates = 0;
  files.writeIssued(
    issued.map((entry) => {
      if (entry.router !== router || entry.revokedAtMs !== null) return entry;
      certificates += 1;
      return { ...entry, revokedAtMs: atMs };
    }),
  );
  files.writeRevocations(await revocationsOf(files));
  return { router: router as RouterId, certificates, list: join(files.directory, 'crl.pem') };
}

async function show(settings: Settings): Promise<CertificateReport> {
  const files = filesOf(settings);
  return reportOf(files, checked(files, null));
}
