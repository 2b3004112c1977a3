/** What a router's certificate says, and whether a router may use it. No dependency but Node: a router that serves needs this. */
import { createPrivateKey, X509Certificate } from 'node:crypto';

import { ApplianceError, errorCode } from '../core/errors.ts';
import type { RouterId } from '../core/ids.ts';

export const ROUTER_ID: RegExp = /^[0-9a-f]{32}$/;

/** PEM texts of the files of the directory `cluster.certificates`. */
export interface CertificateTexts {
  /** `ca.pem` */
  readonly authority: string;
  /** `router.pem` */
  readonly certificate: string;
  /** `router-key.pem` */
  readonly key: string;
  /** `crl.pem`: for the option `crl` of TLS; null if there is none. */
  readonly revocations: string | null;
}

/** Certificates that were checked: they fit together, name this router, and are in force. */
export interface RouterCertificates extends CertificateTexts {
  readonly router: RouterId;
  /** Wall clock. */
  readonly endsAtMs: number;
  /** SHA-256 of the authority's certificate: 64 hex digits; the same on all routers of a cluster. */
  readonly authorityFingerprint: string;
}

/** The URI in the subject alternative name. */
export function routerUri(router: RouterId): string {
  return `vferry:router:${router}`;
}

/** The router that a certificate names, in its URI and its common name alike; null: it is no router's. */
export function routerOf(certificate: X509Certificate): RouterId | null {
  const uri = /(?:^|, )URI:vferry:router:([0-9a-f]{32})(?:,|$)/.exec(certificate.subjectAltName ?? '')?.[1];
  const name = /(?:^|\n)CN=([0-9a-f]{32})(?:\n|$)/.exec(certificate.subject)?.[1];
  return uri !== undefined && uri === name ? (uri as RouterId) : null;
}

/** Of a certificate in DER form, as TLS gives it; anything may be in it. */
export function isRouterCertificate(der: Buffer): boolean {
  try {
    return routerOf(new X509Certificate(der)) !== null;
  } catch {
    return false;
  }
}

/**
 * `where`: the directory, for messages. `router`: who wants to use them; null: whoever they name.
 * @throws ApplianceError `certificate-unusable` (they do not fit together, or are another router's), `certificate-expired`.
 */
export function checkCertificates(texts: CertificateTexts, where: string, router: RouterId | null, nowMs: number): RouterCertificates {
  const unusable = (why: string): never => {
    throw new ApplianceError('certificate-unusable', `the certificates in ${where} cannot be used: ${why}`);
  };
  const authority = parsed(texts.authority) ?? unusable('ca.pem is no certificate');
  const certificate = parsed(texts.certificate) ?? unusable('router.pem is no certificate');
  if (!authority.ca) unusable('ca.pem is no certificate authority');
  if (!certificate.checkIssued(authority) || !certificate.verify(authority.publicKey)) {
    unusable('router.pem was not signed by the authority in ca.pem; join the cluster again (vferry cluster join)');
  }
  let fits: boolean;
  try {
    fits = certificate.checkPrivateKey(createPrivateKey(texts.key));
  } catch (error) {
    return unusable(`router-key.pem is no private key (${String(errorCode(error) ?? error)})`);
  }
  if (!fits) unusable('router-key.pem is not the key of router.pem; join the cluster again (vferry cluster join)');
  const named = routerOf(certificate) ?? unusable('router.pem names no router');
  if (router !== null && named !== router) {
    unusable(`router.pem is of router ${named}, but this data directory is router ${router}; every router joins for itself (vferry cluster join)`);
  }
  for (const [file, { validFromDate, validToDate }] of [
    ['ca.pem', authority],
    ['router.pem', certificate],
  ] as const) {
    if (nowMs < validFromDate.getTime()) {
      unusable(`${file} begins at ${validFromDate.toISOString()}, and it is ${new Date(nowMs).toISOString()} here; set the clock`);
    }
    if (nowMs >= validToDate.getTime()) {
      throw new ApplianceError(
        'certificate-expired',
        `${where}/${file} ended at ${validToDate.toISOString()}, and it is ${new Date(nowMs).toISOString()}; ` +
          (file === 'ca.pem' ? 'make a new authority (vferry cluster init) and let every router join it' : 'renew it (vferry cluster renew)'),
      );
    }
  }
  return {
    ...texts,
    router: named,
    endsAtMs: Math.min(certificate.validToDate.getTime(), authority.validToDate.getTime()),
    authorityFingerprint: authority.fingerprint256.replaceAll(':', '').toLowerCase(),
  };
}

function parsed(text: string): X509Certificate | null {
  try {
    return new X509Certificate(text);
  } catch {
    return null;
  }
}
