/**
 * What OpenStack Swift would answer, over a store: the part of its API that vferry needs (auth v1, containers, objects, listings), as Swift 2.30
 * behaves. Knows nothing of sockets; what goes wrong on the wire is `hostile-server.ts`.
 */
import { createHash, randomBytes } from 'node:crypto';

import { type ObjectBody, type ObjectStore, StoreError } from '../../backends/object-store.ts';

/** A request that has arrived as a whole. Header names are in lower case. */
export interface SwiftRequest {
  readonly method: string;
  /** With query. */
  readonly url: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
  readonly signal: AbortSignal;
}

export interface SwiftAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  /** Of HEAD: what GET would have. */
  readonly bodyBytes?: number;
}

/** A store that can also do what a PUT of Swift's does without a condition: replace, in one step. */
export interface ReplacingStore extends ObjectStore {
  replace(bucket: string, name: string, body: ObjectBody, signal?: AbortSignal): Promise<void>;
}

export interface SwiftAccount {
  readonly user: string;
  readonly key: string;
  /** Path of the account: `/v1/AUTH_test`. */
  readonly path: string;
}

const LIST_MAX = 10_000;
const EMPTY = Buffer.alloc(0);

export class SwiftAnswers {
  readonly #store: ReplacingStore;
  readonly #account: SwiftAccount;
  readonly #tokens = new Set<string>();
  /** ETag and size by `container/object`, of the bytes as they were sent: what is stored or shown of them may be wrong. */
  readonly #etags = new Map<string, string>();
  #authentications = 0;

  constructor(store: ReplacingStore, account: SwiftAccount) {
    this.#store = store;
    this.#account = account;
  }

  /** How often somebody authenticated. */
  get authentications(): number {
    return this.#authentications;
  }

  /** No token given so far is valid any more. */
  revokeTokens(): void {
    this.#tokens.clear();
  }

  /** `origin`: how the client reaches this server, `http://127.0.0.1:1234`. Never rejects for what a store does. */
  async answer(request: SwiftRequest, origin: string): Promise<SwiftAnswer> {
    const url = new URL(request.url, origin);
    if (url.pathname.startsWith('/auth/')) return this.#authenticate(request, origin);
    const account = this.#account.path;
    if (url.pathname !== account && !url.pathname.startsWith(`${account}/`)) return plain(404);
    if (!this.#tokens.has(header(request, 'x-auth-token'))) return plain(401);
    const [container = '', ...rest] = url.pathname.slice(account.length + 1).split('/');
    try {
      if (container === '') return await this.#onAccount(request, url.searchParams);
      if (rest.length === 0 || (rest.length === 1 && rest[0] === '')) return await this.#onContainer(request, decodeURIComponent(container), url);
      return await this.#onObject(request, decodeURIComponent(container), decodeURIComponent(rest.join('/')));
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
      return plain(STATUS_OF_CLASS[error.class]);
    }
  }

  #authenticate(request: SwiftRequest, origin: string): SwiftAnswer {
    const user = header(request, 'x-auth-user') || header(request, 'x-storage-user');
    const key = header(request, 'x-auth-key') || header(request, 'x-storage-pass');
    if (request.method !== 'GET') return plain(405);
    if (user !== this.#account.user || key !== this.#account.key) return plain(401);
    const token = `AUTH_tk${randomBytes(16).toString('hex')}`;
    this.#tokens.add(token);
    this.#authentications += 1;
    const url = `${origin}${this.#account.path}`;
    return plain(200, { 'x-auth-token': token, 'x-storage-token': token, 'x-storage-url': url, 'x-auth-token-expires': '86399' });
  }

  async #onAccount(request: SwiftRequest, query: URLSearchParams): Promise<SwiftAnswer> {
    if (request.method === 'HEAD') return plain(204);
    if (request.method !== 'GET') return plain(405);
    const limit = limitOf(query);
    if (limit === null) return plain(412);
    const { names } = await this.#store.listBuckets(query.get('marker') ?? '', limit, request.signal);
    return listing(
      query,
      names,
      names.map((name) => ({ name, count: 0, bytes: 0, last_modified: LAST_MODIFIED })),
    );
  }

  async #onContainer(request: SwiftRequest, container: string, url: URL): Promise<SwiftAnswer> {
    const query = url.searchParams;
    switch (request.method) {
      case 'PUT':
        await this.#store.createBucket(container, request.signal);
        return plain(201);
      case 'DELETE':
        try {
          await this.#store.list(container, '', '', 1, request.signal);
          await this.#store.deleteBucket(container, request.signal);
          return plain(204);
        } catch (error) {
          if (error instanceof StoreError && error.class === 'denied') return plain(409);
          throw error;
        }
      case 'HEAD':
        await this.#store.list(container, '', '', 1, request.signal);
        return plain(204, { 'x-container-object-count': '0', 'x-container-bytes-used': '0' });
      case 'GET': {
        const limit = limitOf(query);
        if (limit === null) return plain(412);
        const { names } = await this.#store.list(container, query.get('prefix') ?? '', query.get('marker') ?? '', limit, request.signal);
        const entries = names.map((name) => ({
          name,
          hash: this.#etags.get(`${container}/${name}`) ?? '',
          bytes: 0,
          content_type: 'application/octet-stream',
          last_modified: LAST_MODIFIED,
        }));
        return listing(query, names, entries);
      }
      default:
        return plain(405);
    }
  }

  async #onObject(request: SwiftRequest, container: string, name: string): Promise<SwiftAnswer> {
    switch (request.method) {
      case 'PUT':
        return this.#put(request, container, name);
      case 'GET':
      case 'HEAD':
        return this.#read(request, container, name);
      case 'DELETE': {
        const there = await this.#store.head(container, name, request.signal);
        // As Swift does: an object server that does not have it remembers the delete all the same.
        await this.#store.delete(container, name, request.signal);
        return plain(there.kind === 'found' ? 204 : 404);
      }
      default:
        return plain(405);
    }
  }

  async #read(request: SwiftRequest, container: string, name: string): Promise<SwiftAnswer> {
    const there = await this.#store.head(container, name, request.signal);
    if (there.kind === 'absent') return plain(404);
    const headers = {
      etag: this.#etags.get(`${container}/${name}`) ?? '',
      'content-type': 'application/octet-stream',
      'accept-ranges': 'bytes',
      'last-modified': new Date(0).toUTCString(),
      'x-timestamp': '0.00000',
    };
    if (request.method === 'HEAD') return { status: 200, headers, body: EMPTY, bodyBytes: there.sizeBytes };
    const range = rangeOf(header(request, 'range'), there.sizeBytes);
    if (range === 'unsatisfiable') return plain(416, { 'content-range': `bytes */${there.sizeBytes}` });
    const found = await this.#store.get(
      container,
      name,
      range === null ? undefined : { offsetBytes: range.from, lengthBytes: range.to - range.from },
      request.signal,
    );
    if (found.kind === 'absent') return plain(404);
    if (range === null) return { status: 200, headers, body: found.bytes };
    return { status: 206, headers: { ...headers, 'content-range': `bytes ${range.from}-${range.to - 1}/${there.sizeBytes}` }, body: found.bytes };
  }

  async #put(request: SwiftRequest, container: string, name: string): Promise<SwiftAnswer> {
    const sum = md5(request.body);
    const claimed = header(request, 'etag').replaceAll('"', '').toLowerCase();
    if (claimed !== '' && claimed !== sum) return plain(422);
    const condition = header(request, 'if-none-match');
    if (condition !== '' && condition !== '*') return plain(400);
    const body: ObjectBody = { kind: 'bytes', chunks: [request.body] };
    if (condition === '') await this.#store.replace(container, name, body, request.signal);
    else if ((await this.#store.put(container, name, body, request.signal)) === 'exists') return plain(412);
    this.#etags.set(`${container}/${name}`, sum);
    return plain(201, { etag: sum, 'last-modified': new Date(0).toUTCString() });
  }
}

const LAST_MODIFIED = '2026-01-01T00:00:00.000000';

const STATUS_OF_CLASS = { retry: 503, absent: 404, denied: 403, 'no-space': 507, corrupt: 500 } as const;

function plain(status: number, headers: Readonly<Record<string, string>> = {}): SwiftAnswer {
  const text = status >= 400 ? Buffer.from(`<html><h1>${status}</h1></html>`) : EMPTY;
  return { status, headers: { 'content-type': 'text/html; charset=UTF-8', ...headers }, body: text };
}

function listing(query: URLSearchParams, names: readonly string[], entries: readonly object[]): SwiftAnswer {
  if (query.get('format') === 'json')
    return { status: 200, headers: { 'content-type': 'application/json; charset=utf-8' }, body: Buffer.from(JSON.stringify(entries)) };
  if (names.length === 0) return plain(204);
  return { status: 200, headers: { 'content-type': 'text/plain; charset=utf-8' }, body: Buffer.from(names.map((name) => `${name}\n`).join('')) };
}

function limitOf(query: URLSearchParams): number | null {
  const limit = Number(query.get('limit') ?? LIST_MAX);
  return Number.isInteger(limit) && limit > 0 && limit <= LIST_MAX ? limit : null;
}

/** `bytes=a-b`, `bytes=a-` and `bytes=-n`; null: no range that has to be looked at. */
function rangeOf(text: string, sizeBytes: number): { from: number; to: number } | 'unsatisfiable' | null {
  const match = /^bytes=(\d*)-(\d*)$/.exec(text);
  if (match === null || (match[1] === '' && match[2] === '')) return null;
  if (match[1] === '') {
    const count = Number(match[2]);
    return count === 0 || sizeBytes === 0 ? 'unsatisfiable' : { from: Math.max(0, sizeBytes - count), to: sizeBytes };
  }
  const from = Number(match[1]);
  if (from >= sizeBytes) return 'unsatisfiable';
  return { from, to: match[2] === '' ? sizeBytes : Math.min(sizeBytes, Number(match[2]) + 1) };
}

function header(request: SwiftRequest, name: string): string {
  const value = request.headers[name];
  return Array.isArray(value) ? (value[0] ?? '') : (value ?? '');
}

function md5(bytes: Buffer): string {
  return createHash('md5').update(bytes).digest('hex');
}
