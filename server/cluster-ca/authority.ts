/**
 * Makes what a cluster's routers know each other by: its certificate authority, a router's key with a request, the certificate that the authority
 * signs for it, and the list of those that are revoked. Keys are EC P-256. All texts are PEM. No files, no clock of its own.
 */
// oxlint-disable-next-line import/no-unassigned-import -- it changes `Reflect`, before the package below is loaded
import './reflect-metadata.ts';
import { type webcrypto, X509Certificate } from 'node:crypto';

import * as x509 from '@peculiar/x509';

import { ApplianceError } from '../core/errors.ts';
import type { RouterId } from '../core/ids.ts';
import { ROUTER_ID, routerUri } from './router-certificate.ts';

const KEY = { name: 'ECDSA', namedCurve: 'P-256' } as const;
const SIGNATURE = { ...KEY, hash: 'SHA-256' } as const;
const DAY_MS = 24 * 3600 * 1000;
/** Clocks of hosts differ. */
const BACKDATED_MS = 3600 * 1000;

export const AUTHORITY_DAYS = 3650;
export const CERTIFICATE_DAYS = 397;

/** A certificate and its private key (PKCS #8). */
export interface KeyedCertificate {
  readonly certificate: string;
  readonly key: string;
}

/** What the environment gives: `crypto` makes keys and signatures; `nowMs` is wall clock. */
export interface AuthorityDependencies {
  readonly crypto: webcrypto.Crypto;
  readonly nowMs: number;
}

/** A new authority that signs certificates of routers and nothing else. `cluster`: for people, in its name. */
export async function makeAuthority({ crypto, nowMs }: AuthorityDependencies, cluster: string): Promise<KeyedCertificate> {
  const keys = await crypto.subtle.generateKey(KEY, true, ['sign', 'verify']);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned(
    {
      serialNumber: serialNumber(crypto),
      // Told apart from the authority of another cluster of that name.
      name: [{ CN: [`vferry cluster ${cluster}`] }, { OU: [serialNumber(crypto).slice(0, 16)] }],
      notBefore: new Date(nowMs - BACKDATED_MS),
      notAfter: new Date(nowMs + AUTHORITY_DAYS * DAY_MS),
      keys,
      signingAlgorithm: SIGNATURE,
      extensions: [
        new x509.BasicConstraintsExtension(true, 0, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey, false, crypto),
      ],
    },
    crypto,
  );
  return { certificate: pemOf(certificate), key: await keyPem(crypto, keys.privateKey) };
}

/** A new key for a router, and a request for its certificate (PKCS #10) that proves possession of the key. */
export async function makeRequest({ crypto }: AuthorityDependencies, router: RouterId): Promise<{ readonly request: string; readonly key: string }> {
  const keys = await crypto.subtle.generateKey(KEY, true, ['sign', 'verify']);
  const request = await x509.Pkcs10CertificateRequestGenerator.create(
    { name: [{ CN: [router] }], keys, signingAlgorithm: SIGNATURE, extensions: [routerName(router)] },
    crypto,
  );
  return { request: pemOf(request), key: await keyPem(crypto, keys.privateKey) };
}

/**
 * Signs a request, which may be hostile: only its public key is taken, and its name if that is a router's.
 * @throws ApplianceError `certificate-request-invalid`.
 */
export async function signRequest(
  { crypto, nowMs }: AuthorityDependencies,
  authority: KeyedCertificate,
  request: string,
): Promise<{ readonly router: RouterId; readonly certificate: string; readonly serial: string }> {
  const { router, publicKey } = await checkedRequest(crypto, request);
  const issuer = new x509.X509Certificate(authority.certificate);
  const serial = serialNumber(crypto);
  const certificate = await x509.X509CertificateGenerator.create(
    {
      serialNumber: serial,
      subject: new x509.Name([{ CN: [router] }]),
      issuer: issuer.subjectName,
      notBefore: new Date(nowMs - BACKDATED_MS),
      // Never longer than the authority itself.
      notAfter: new Date(Math.min(nowMs + CERTIFICATE_DAYS * DAY_MS, issuer.notAfter.getTime())),
      publicKey,
      signingKey: await importKey(crypto, authority.key),
      signingAlgorithm: SIGNATURE,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
        routerName(router),
        await x509.SubjectKeyIdentifierExtension.create(publicKey, false, crypto),
        await x509.AuthorityKeyIdentifierExtension.create(await issuer.publicKey.export(crypto), false, crypto),
      ],
    },
    crypto,
  );
  return { router, certificate: pemOf(certificate), serial };
}

/** The list of revoked certificates (CRL) with exactly these serial numbers; valid as long as the authority. */
export async function makeRevocations(
  { crypto, nowMs }: AuthorityDependencies,
  authority: KeyedCertificate,
  revoked: readonly { readonly serial: string; readonly atMs: number }[],
): Promise<string> {
  const issuer = new x509.X509Certificate(authority.certificate);
  const list = await x509.X509CrlGenerator.create(
    {
      issuer: issuer.subjectName,
      thisUpdate: new Date(nowMs - BACKDATED_MS),
      nextUpdate: issuer.notAfter,
      signingAlgorithm: SIGNATURE,
      signingKey: await importKey(crypto, authority.key),
      entries: revoked.map(({ serial, atMs }) => ({ serialNumber: serial, revocationDate: new Date(atMs), reason: x509.X509CrlReason.unspecified })),
    },
    crypto,
  );
  // OpenSSL reads no other label.
  return pemOf(list).replaceAll(/(BEGIN|END) CRL/g, '$1 X509 CRL');
}

/** SHA-256 of the DER form: 64 lower-case hex digits. */
export function fingerprintOf(certificate: string): string {
  return new X509Certificate(certificate).fingerprint256.replaceAll(':', '').toLowerCase();
}

async function checkedRequest(crypto: webcrypto.Crypto, text: string): Promise<{ router: RouterId; publicKey: webcrypto.CryptoKey }> {
  const invalid = (why: string, cause?: unknown): ApplianceError =>
    new ApplianceError('certificate-request-invalid', `the certificate request is not valid: ${why}`, { cause });
  try {
    const request = new x509.Pkcs10CertificateRequest(text);
    const router = request.subjectName.getField('CN')[0] ?? '';
    if (!ROUTER_ID.test(router)) throw invalid('it names no router');
    const publicKey = (await request.publicKey.export(KEY, ['verify'], crypto)) as webcrypto.CryptoKey;
    if (!(await request.verify(crypto))) throw invalid('its signature is wrong');
    return { router: router as RouterId, publicKey };
  } catch (error) {
    throw error instanceof ApplianceError ? error : invalid('it cannot be read', error);
  }
}

function routerName(router: RouterId): x509.SubjectAlternativeNameExtension {
  return new x509.SubjectAlternativeNameExtension([{ type: 'url', value: routerUri(router) }]);
}

/** 128 random bits, positive and not zero at the front, as DER wants it. */
function serialNumber(crypto: webcrypto.Crypto): string {
  const bytes = crypto.getRandomValues(Buffer.alloc(16));
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return bytes.toString('hex');
}

async function keyPem(crypto: webcrypto.Crypto, key: webcrypto.CryptoKey): Promise<string> {
  return `${x509.PemConverter.encode(await crypto.subtle.exportKey('pkcs8', key), x509.PemConverter.PrivateKeyTag)}\n`;
}

function importKey(crypto: webcrypto.Crypto, pem: string): Promise<webcrypto.CryptoKey> {
  return crypto.subtle.importKey('pkcs8', x509.PemConverter.decodeFirst(pem), KEY, false, ['sign']);
}

function pemOf(data: { toString(format: 'pem'): string }): string {
  return `${data.toString('pem').trim()}\n`;
}
