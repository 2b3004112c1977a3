/**
 * Signs for hosts that have a token, over TLS with this router's own certificate, for as long as an operator offers it. Its address is in the token; the
 * joining host knows the authority by the fingerprint in it. Everything that comes is hostile until its secret was right.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Server, createServer } from 'node:https';
import type { AddressInfo } from 'node:net';

import { z } from 'zod';

import { ApplianceError, errorCode } from '../core/errors.ts';
import type { RouterId } from '../core/ids.ts';

export const JOIN_PATH = '/vferry/join/1';
export const JOIN_BYTES_MAX = 256 * 1024;

const CONNECTIONS_MAX = 32;
const REQUEST_TIMEOUT_MS = 10_000;

const requestSchema = z.strictObject({ secret: z.string().max(128), request: z.string().max(16_384) });

/** What a joining host gets. `settings`: YAML, for people. */
export interface JoinAnswer {
  readonly certificate: string;
  readonly authority: string;
  readonly revocations: string | null;
  readonly settings: string;
}

export interface JoinOffer {
  /** PEM, of this router and the authority: what it shows. */
  readonly certificate: string;
  readonly authority: string;
  readonly key: string;
  readonly secret: Buffer;
  readonly endsAtMs: number;
  /** Hosts that may join with this token. */
  readonly uses: number;
  readonly now: () => number;
  /** Signs; rejects with ApplianceError `certificate-request-invalid`. */
  readonly sign: (request: string, address: string) => Promise<{ readonly router: RouterId; readonly answer: JoinAnswer }>;
  readonly joined: (router: RouterId, address: string) => void;
  readonly refused: (address: string, reason: string) => void;
}

export interface JoinServer extends AsyncDisposable {
  readonly port: number;
  /** Resolves when the last host that may has joined and got its answer. Rejects on a bug. */
  readonly done: Promise<void>;
}

/** Rejects with ApplianceError `join-port-unavailable`. */
export async function startJoinServer(listen: { readonly host: string; readonly port: number }, offer: JoinOffer): Promise<JoinServer> {
  const { promise: done, resolve, reject } = Promise.withResolvers<void>();
  // Its fate is the caller's business once it is asked for.
  done.catch(() => undefined);
  const session = new JoinSession(offer, resolve);
  const server = createServer(
    {
      key: offer.key,
      // With the authority, so that the other side sees the certificate whose fingerprint it knows.
      cert: `${offer.certificate}${offer.authority}`,
      minVersion: 'TLSv1.3',
      requestTimeout: REQUEST_TIMEOUT_MS,
      headersTimeout: REQUEST_TIMEOUT_MS,
      handshakeTimeout: REQUEST_TIMEOUT_MS,
    },
    (request, response) => void session.answer(request, response).catch(reject),
  );
  server.maxConnections = CONNECTIONS_MAX;
  // Somebody who is no vferry.
  server.on('tlsClientError', (error, socket) => {
    // A joining host looks at the certificate first, on a connection that it breaks off.
    if (errorCode(error) !== 'ECONNRESET') offer.refused(socket.remoteAddress ?? '?', `no TLS connection: ${errorCode(error) ?? error.message}`);
  });
  await listening(server, listen);
  return {
    port: (server.address() as AddressInfo).port,
    done,
    [Symbol.asyncDispose]: () =>
      new Promise((closed) => {
        server.close(() => closed());
        server.closeAllConnections();
      }),
  };
}

async function listening(server: Server, { host, port }: { readonly host: string; readonly port: number }): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen(port, host, resolve);
  try {
    await promise;
  } catch (error) {
    throw new ApplianceError('join-port-unavailable', `cannot listen on ${host}:${port} for joining routers: ${String(errorCode(error) ?? error)}`, {
      cause: error,
    });
  }
}

class JoinSession {
  readonly #offer: JoinOffer;
  readonly #finished: () => void;
  readonly #digest: Buffer;
  #usesLeft: number;
  #answersLeft: number;

  constructor(offer: JoinOffer, finished: () => void) {
    this.#offer = offer;
    this.#finished = finished;
    this.#digest = digest(offer.secret);
    this.#usesLeft = offer.uses;
    this.#answersLeft = offer.uses;
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const address = request.socket.remoteAddress ?? '?';
    const refuse = (status: number, code: string, message: string): void => {
      this.#offer.refused(address, message);
      send(response, status, { code, message });
    };
    if (request.method !== 'POST' || request.url !== JOIN_PATH) {
      refuse(404, 'not-found', `this only signs certificates for vferry cluster join (POST ${JOIN_PATH})`);
      return;
    }
    const body = await bodyOf(request);
    const parsed = body === null ? null : requestSchema.safeParse(parseJson(body));
    if (parsed === null || !parsed.success) {
      refuse(400, 'bad-request', 'this is no request of vferry cluster join');
      return;
    }
    if (!timingSafeEqual(digest(Buffer.from(parsed.data.secret, 'base64url')), this.#digest)) {
      refuse(403, 'token-unknown', 'this token is not the one that is offered here now; make a new one (vferry cluster token)');
      return;
    }
    if (this.#offer.now() >= this.#offer.endsAtMs) {
      refuse(403, 'token-expired', `this token ended at ${new Date(this.#offer.endsAtMs).toISOString()}; make a new one (vferry cluster token)`);
      return;
    }
    if (this.#usesLeft === 0) {
      refuse(403, 'token-used', 'this token was used already; make a new one (vferry cluster token)');
      return;
    }
    this.#usesLeft -= 1;
    try {
      const { router, answer } = await this.#offer.sign(parsed.data.request, address);
      this.#offer.joined(router, address);
      response.once('close', () => this.#answered());
      send(response, 200, answer);
    } catch (error) {
      this.#usesLeft += 1;
      if (!(error instanceof ApplianceError)) throw error;
      refuse(400, error.code, error.message);
    }
  }

  #answered(): void {
    this.#answersLeft -= 1;
    if (this.#answersLeft === 0) this.#finished();
  }
}

/** Null: too long, or it broke off. */
async function bodyOf(request: IncomingMessage): Promise<string | null> {
  let text = '';
  try {
    for await (const chunk of request.setEncoding('utf8')) {
      text += String(chunk);
      if (text.length > JOIN_BYTES_MAX) return null;
    }
  } catch {
    return null;
  }
  return text;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function send(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json', connection: 'close' }).end(JSON.stringify(body));
}

function digest(secret: Buffer): Buffer {
  return createHash('sha256').update(secret).digest();
}
