/** Test support: an HTTP server that plays Swift and Keystone as a test says, and remembers what it was asked. */
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { inspect } from 'node:util';

import { rejectsWith } from '../conformance.ts';
import type { StoreError, StoreErrorClass } from '../object-store.ts';
import type { SwiftStoreConfig } from './swift-config.ts';

export interface ScriptedRequest {
  readonly method: string;
  /** With the query. */
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

export interface ScriptedAnswer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
}

/** What to do with a request under `/v1/AUTH_x/`; `raw` for what no answer can say (silence, half an answer). */
type Script = (request: ScriptedRequest, raw: ServerResponse) => ScriptedAnswer | 'silence' | 'cut' | Promise<ScriptedAnswer>;

/** Must never be in a message. */
export const SECRET = 'very-secret-key';

export class ScriptedSwift implements AsyncDisposable {
  /** Below the account, authentication excluded, in the order of arrival. */
  readonly requests: ScriptedRequest[] = [];
  readonly authentications: ScriptedRequest[] = [];
  /** Tokens that were granted: `token-1`, `token-2` ... */
  granted = 0;
  /** Tokens up to this number are answered 401. */
  ended = 0;
  /** Answers to authentications instead of a grant. */
  authAnswer: ((request: ScriptedRequest) => ScriptedAnswer) | null = null;
  /** Answers when the token is good. */
  script: Script = () => ({ status: 404 });
  /** Called as soon as a request's head is here, before its body: true when it was answered already. */
  onHead: ((request: IncomingMessage, raw: ServerResponse) => boolean) | null = null;
  /** Connections that there ever were. */
  connections = 0;
  /** Connections that the peer ended. */
  closedByPeer = 0;
  /** Requests with an ended token whose body was announced (`Expect`) and, rightly, never sent. */
  refusedBeforeBody = 0;
  readonly #server: Server;

  static async start(): Promise<ScriptedSwift> {
    const scripted = new ScriptedSwift();
    await new Promise<void>((resolve) => scripted.#server.listen(0, '127.0.0.1', resolve));
    return scripted;
  }

  private constructor() {
    this.#server = createServer((request, response) => {
      if (this.onHead?.(request, response) === true) return;
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.once('error', () => undefined);
      request.once('end', () => {
        const { method = '', url = '', headers } = request;
        void this.#answer({ method, path: url, headers, body: Buffer.concat(chunks) }, response);
      });
    });
    this.#server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => {
      if (this.#isGood(request.headers)) {
        response.writeContinue();
        this.#server.emit('request', request, response);
        return;
      }
      // Long enough for a body that does not wait to be seen; shorter than the second after which one may come unasked.
      setTimeout(() => {
        if (request.readableLength === 0) this.refusedBeforeBody += 1;
        response.writeHead(401).end();
      }, 100);
    });
    this.#server.on('connection', (socket) => {
      this.connections += 1;
      socket.once('close', () => (this.closedByPeer += 1));
    });
  }

  get origin(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  config(change: Partial<SwiftStoreConfig> = {}): SwiftStoreConfig {
    const auth = { version: 1, url: `${this.origin}/auth/v1.0`, user: 'account:user', key: SECRET } as const;
    return { kind: 'swift', auth, region: null, endpointInterface: 'public', storageUrl: null, caFile: null, ...change };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(request: ScriptedRequest, raw: ServerResponse): Promise<void> {
    const answer = request.path.startsWith('/v1/AUTH_x') ? await this.#storage(request, raw) : this.#authenticate(request);
    if (answer === 'silence') return;
    if (answer === 'cut') {
      raw.destroy();
      return;
    }
    raw.writeHead(answer.status, { ...answer.headers });
    raw.end(answer.body ?? '');
  }

  #authenticate(request: ScriptedRequest): ScriptedAnswer {
    this.authentications.push(request);
    if (this.authAnswer !== null) return this.authAnswer(request);
    this.granted += 1;
    return { status: 200, headers: { 'X-Auth-Token': `token-${this.granted}`, 'X-Storage-Url': `${this.origin}/v1/AUTH_x` } };
  }

  #storage(request: ScriptedRequest, raw: ServerResponse): ReturnType<Script> {
    this.requests.push(request);
    return this.#isGood(request.headers) ? this.script(request, raw) : { status: 401 };
  }

  #isGood(headers: IncomingHttpHeaders): boolean {
    return Number(/^token-(\d+)$/.exec(String(headers['x-auth-token']))?.[1]) > this.ended;
  }
}

/** Asserts the class, and that neither the key nor a token is anywhere in the error. */
export async function rejectsSafely(promise: Promise<unknown>, errorClass: StoreErrorClass): Promise<StoreError> {
  const error = await rejectsWith(promise, errorClass);
  const all = `${inspect(error, { depth: 20, showHidden: true })} ${error.stack ?? ''}`;
  if (all.includes(SECRET) || /token-\d/.test(all)) throw new Error(`a secret is in the error: ${all}`);
  return error;
}
