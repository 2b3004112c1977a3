/**
 * The joining side: finds the authority that the token names by its fingerprint in what the other side shows, connects again trusting nobody but that one,
 * and only then says the secret. What comes back is checked like any certificate.
 */
import type { X509Certificate } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { type PeerCertificate, connect } from 'node:tls';

import { z } from 'zod';

import { ApplianceError, errorCode } from '../core/errors.ts';
import type { RouterId } from '../core/ids.ts';
import { type AuthorityDependencies, makeRequest } from './authority.ts';
import { JOIN_BYTES_MAX, JOIN_PATH, type JoinAnswer } from './join-server.ts';
import { type JoinToken, splitAddress } from './join-token.ts';
import { type RouterCertificates, checkCertificates, isRouterCertificate } from './router-certificate.ts';

const CONNECT_TIMEOUT_MS = 10_000;
const CHAIN_MAX = 4;

const answerSchema = z.strictObject({
  certificate: z.string().max(16_384),
  authority: z.string().max(16_384),
  revocations: z.string().max(JOIN_BYTES_MAX).nullable(),
  settings: z.string().max(JOIN_BYTES_MAX),
});
const refusalSchema = z.object({ code: z.string(), message: z.string() });

export interface Joined {
  readonly certificates: RouterCertificates;
  /** YAML: the settings that all routers of the cluster share. From the authority's host; shown to people, not applied. */
  readonly settings: string;
}

/**
 * Rejects with ApplianceError: `join-unreachable`, `join-untrusted` (whoever answers is not of the cluster that the token names), `join-refused`,
 * `certificate-unusable`.
 */
export async function joinWith(dependencies: AuthorityDependencies, token: JoinToken, router: RouterId): Promise<Joined> {
  const authority = await authorityAt(token);
  const { request, key } = await makeRequest(dependencies, router);
  const answer = await ask(token, authority, request);
  if (answer.authority.trim() !== authority.trim()) throw untrusted(token, 'it answers with another authority than it shows');
  const { certificate, revocations, settings } = answer;
  const texts = { authority: answer.authority, certificate, key, revocations };
  return { certificates: checkCertificates(texts, `the answer of ${token.address}`, router, dependencies.nowMs), settings };
}

/** PEM of the certificate with the token's fingerprint in the chain of who answers. Nothing is believed and nothing said on this connection. */
async function authorityAt(token: JoinToken): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<X509Certificate | undefined>();
  const socket = connect({ ...endpoint(token), rejectUnauthorized: false, minVersion: 'TLSv1.3', timeout: CONNECT_TIMEOUT_MS });
  socket.once('secureConnect', () => resolve(socket.getPeerX509Certificate()));
  socket.once('timeout', () => reject(new Error('no answer')));
  socket.once('error', reject);
  try {
    let certificate = await promise;
    for (let depth = 0; certificate !== undefined && depth < CHAIN_MAX; depth++) {
      if (certificate.fingerprint256.replaceAll(':', '').toLowerCase() === token.fingerprint) return `${certificate.toString().trim()}\n`;
      certificate = certificate.issuerCertificate;
    }
  } catch (error) {
    throw unreachable(token, error);
  } finally {
    socket.destroy();
  }
  throw untrusted(token, 'it does not show the authority whose fingerprint is in the token');
}

async function ask(token: JoinToken, authority: string, request: string): Promise<JoinAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const call = httpsRequest(
    {
      ...endpoint(token),
      path: JOIN_PATH,
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      ca: [authority],
      minVersion: 'TLSv1.3',
      agent: false,
      signal: AbortSignal.timeout(2 * CONNECT_TIMEOUT_MS),
      // A router is known by its URI, not by host names. Everything else was verified against the authority before this is asked.
      checkServerIdentity: (_host: string, shown: PeerCertificate) =>
        isRouterCertificate(shown.raw) ? undefined : new Error('its certificate is not that of a router'),
    },
    resolve,
  );
  call.once('error', reject);
  call.end(JSON.stringify({ secret: token.secret.toString('base64url'), request }));
  let response: IncomingMessage;
  let text = '';
  try {
    response = await promise;
    for await (const chunk of response.setEncoding('utf8')) {
      text += String(chunk);
      if (text.length > 4 * JOIN_BYTES_MAX) throw new Error('its answer is too long');
    }
  } catch (error) {
    throw /^(ERR_TLS|CERT_|UNABLE_TO|SELF_SIGNED|DEPTH_ZERO)/.test(errorCode(error) ?? '') || /certificate/.test((error as Error).message)
      ? untrusted(token, (error as Error).message)
      : unreachable(token, error);
  }
  const body = parseJson(text);
  if (response.statusCode === 200) {
    const answer = answerSchema.safeParse(body);
    if (answer.success) return answer.data;
  }
  const refusal = refusalSchema.safeParse(body);
  const why = refusal.success ? refusal.data.message : `it answers ${response.statusCode} with what is no answer`;
  throw new ApplianceError('join-refused', `${token.address} does not let this router join: ${why}`);
}

function endpoint(token: JoinToken): { host: string; port: number } {
  const address = splitAddress(token.address);
  // A token is read by `readToken`, which sees to it.
  if (address === null) throw new ApplianceError('join-unreachable', `${token.address} is no address`);
  return { host: address.host, port: address.port };
}

function unreachable(token: JoinToken, cause: unknown): ApplianceError {
  const why = errorCode(cause) ?? (cause as Error).message;
  return new ApplianceError(
    'join-unreachable',
    `nobody at ${token.address} lets routers join (${why}); vferry cluster token must be running there until this router has joined`,
    { retryable: true, cause },
  );
}

function untrusted(token: JoinToken, why: string): ApplianceError {
  return new ApplianceError('join-untrusted', `who answers at ${token.address} is not trusted: ${why}`);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
