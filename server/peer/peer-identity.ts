/** Who is at an end of a session, and what proves it. */
import type { X509Certificate } from 'node:crypto';

import type { Incarnation, RouterId } from '../core/ids.ts';

export interface PeerSelf {
  readonly router: RouterId;
  readonly incarnation: Incarnation;
  readonly vpoolUuid: string;
}

/** PEM texts: the cluster's certificate authority, this router's certificate and its key. */
export interface PeerTls {
  readonly ca: string | Buffer;
  readonly cert: string | Buffer;
  readonly key: string | Buffer;
  /** Revocations of the authority, if there are any. */
  readonly crl?: string | Buffer | null;
}

/**
 * The router that a certificate names: by its common name and the URI `vferry:router:<id>` in its alternative names alike (docs/formats: cluster certificates).
 * Null: it is no router's. That the cluster's authority signed it is TLS's to check.
 */
export function certifiedRouter(certificate: X509Certificate | undefined): RouterId | null {
  const uri = /(?:^|, )URI:vferry:router:([0-9a-f]{32})(?:,|$)/.exec(certificate?.subjectAltName ?? '')?.[1];
  const name = /(?:^|\n)CN=([0-9a-f]{32})(?:\n|$)/.exec(certificate?.subject ?? '')?.[1];
  return uri !== undefined && uri === name ? (uri as RouterId) : null;
}

/** The options that both ends give to TLS: each shows its certificate and takes only those of the cluster's authority. */
export function tlsOptions(tls: PeerTls): {
  ca: string | Buffer;
  cert: string | Buffer;
  key: string | Buffer;
  crl?: string | Buffer;
  minVersion: 'TLSv1.3';
  rejectUnauthorized: true;
} {
  const { ca, cert, key, crl } = tls;
  return { ca, cert, key, ...(crl === undefined || crl === null ? {} : { crl }), minVersion: 'TLSv1.3', rejectUnauthorized: true };
}
