/** Certificates of a cluster's authority for the two ends of tests. */
import { webcrypto } from 'node:crypto';

import { makeAuthority, makeRequest, signRequest } from '../../cluster-ca/authority.ts';
import type { KeyedCertificate } from '../../cluster-ca/authority.ts';
import type { RouterId } from '../../core/ids.ts';
import type { PeerTls } from '../peer-identity.ts';
import { ROUTER_A, ROUTER_B } from './two-ends.ts';

const dependencies = { crypto: webcrypto, nowMs: Date.now() };

export function makeTestAuthority(): Promise<KeyedCertificate> {
  return makeAuthority(dependencies, 'test');
}

/** Certificate and key of a router, with `authority` as whom it trusts. */
export async function certificateOf(authority: KeyedCertificate, router: RouterId): Promise<PeerTls> {
  const { request, key } = await makeRequest(dependencies, router);
  const { certificate } = await signRequest(dependencies, authority, request);
  return { ca: authority.certificate, cert: certificate, key };
}

/** For both ends, of one authority. */
export async function clusterCertificates(): Promise<{ readonly a: PeerTls; readonly b: PeerTls }> {
  const authority = await makeTestAuthority();
  return { a: await certificateOf(authority, ROUTER_A), b: await certificateOf(authority, ROUTER_B) };
}
