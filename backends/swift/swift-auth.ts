/** Authentication of one account: auth v1 and Keystone v3. One request, one session; when to ask again is `SwiftSessions`' business. */
import { StoreError } from '../object-store.ts';
import type { SwiftAuth, SwiftStoreConfig } from './swift-config.ts';
import { dateMs, type HttpAnswer, type HttpConnections, type HttpRequest } from './swift-http.ts';

/** What an authentication gave. The token is a secret. */
export interface SwiftGrant {
  readonly token: string;
  /** Account URL without a slash at its end. */
  readonly storageUrl: string;
  /** How long the token lives; null: not said. */
  readonly lifeMs: number | null;
}

/** What authentication needs of `HttpConnections`. */
type Exchanger = Pick<HttpConnections, 'exchange'>;

const ANSWER_BYTES_MAX = 4 * 1024 * 1024;
/** A life that nobody believes is taken as not said. */
const LIFE_MS_MAX = 400 * 24 * 3600 * 1000;

/** @throws StoreError `denied`: wrong credentials, URL or catalog; `retry`: unreachable, overloaded, broken. */
export async function authenticate(connections: Exchanger, config: SwiftStoreConfig): Promise<SwiftGrant> {
  const { auth } = config;
  const authUrl = httpUrl(auth.url, 'the authentication URL');
  return auth.version === 1 ? await versionOne(connections, config, auth, authUrl) : await keystone(connections, config, auth, authUrl);
}

async function versionOne(connections: Exchanger, config: SwiftStoreConfig, auth: Extract<SwiftAuth, { version: 1 }>, url: URL): Promise<SwiftGrant> {
  const headers = { 'X-Auth-User': auth.user, 'X-Auth-Key': auth.key };
  const answer = await ask(connections, url, { method: 'GET', headers });
  const header = (name: string): string | undefined => single(answer.headers[name]);
  const lifeSeconds = Number(header('x-auth-token-expires') ?? Number.NaN);
  return {
    token: requireToken(header('x-auth-token') ?? header('x-storage-token'), url, 'X-Auth-Token'),
    storageUrl: accountUrl(config, url, header('x-storage-url')),
    lifeMs: believableLife(lifeSeconds * 1000),
  };
}

async function keystone(connections: Exchanger, config: SwiftStoreConfig, auth: Extract<SwiftAuth, { version: 3 }>, base: URL): Promise<SwiftGrant> {
  const url = new URL(base);
  const path = url.pathname.replace(/\/+$/, '').replace(/\/auth\/tokens$/, '');
  url.pathname = `${path.endsWith('/v3') ? path : `${path}/v3`}/auth/tokens`;
  const body = Buffer.from(JSON.stringify({ auth: identityOf(auth) }));
  const headers = { 'Content-Type': 'application/json', Accept: 'application/json' };
  const answer = await ask(connections, url, { method: 'POST', headers, chunks: [body] });
  const token = fieldOf(parseJson(answer.body, url), 'token');
  const life = dateMs(fieldOf(token, 'expires_at')) - dateMs(fieldOf(token, 'issued_at'));
  return {
    token: requireToken(single(answer.headers['x-subject-token']), url, 'X-Subject-Token'),
    storageUrl: accountUrl(config, url, config.storageUrl === null ? endpointIn(fieldOf(token, 'catalog'), config) : undefined),
    // The difference of two times of Keystone's clock: ours may go wrong.
    lifeMs: believableLife(life),
  };
}

function identityOf({ credentials }: Extract<SwiftAuth, { version: 3 }>): object {
  if (credentials.kind === 'application-credential') {
    const { id, secret } = credentials;
    return { identity: { methods: ['application_credential'], application_credential: { id, secret } } };
  }
  const { user, userDomain, password, project, projectDomain } = credentials;
  return {
    identity: { methods: ['password'], password: { user: { name: user, domain: { name: userDomain }, password } } },
    scope: { project: { name: project, domain: { name: projectDomain } } },
  };
}

/** The object-store endpoint of the wanted interface and region. @throws StoreError `denied` that says what the catalog has. */
function endpointIn(catalog: unknown, { region, endpointInterface }: SwiftStoreConfig): string {
  const seen: string[] = [];
  for (const service of arrayOf(catalog)) {
    if (fieldOf(service, 'type') !== 'object-store') continue;
    for (const endpoint of arrayOf(fieldOf(service, 'endpoints'))) {
      const where = fieldOf(endpoint, 'region_id') ?? fieldOf(endpoint, 'region');
      const url = fieldOf(endpoint, 'url');
      if (typeof url !== 'string') continue;
      const matches = fieldOf(endpoint, 'interface') === endpointInterface && (region === null || where === region);
      if (matches) return url;
      seen.push(`${printable(String(fieldOf(endpoint, 'interface')))} in ${printable(String(where))}`);
    }
  }
  const wanted = `${endpointInterface} endpoint${region === null ? '' : ` in region ${region}`}`;
  const has =
    seen.length === 0 ? 'it has no object store: has the project one, and the user a role in it?' : `it has: ${seen.slice(0, 10).join(', ')}`;
  throw new StoreError('denied', `Keystone's catalog has no object-store ${wanted}; ${has}`);
}

async function ask(connections: Exchanger, url: URL, request: Pick<HttpRequest, 'method' | 'headers' | 'chunks'>): Promise<HttpAnswer> {
  const what = `authenticate at ${url.origin}${url.pathname}`;
  const answer = await connections.exchange({ ...request, url, what, answerBytesMax: ANSWER_BYTES_MAX });
  const { status } = answer;
  if (status >= 200 && status < 300) return answer;
  if (status === 401 || status === 403) throw new StoreError('denied', `${what}: refused (${status}): wrong user, key, password, project or domain`);
  if (status >= 500 || status === 408 || status === 429 || status === 498) throw new StoreError('retry', `${what}: answered ${status}`);
  throw new StoreError('denied', `${what}: answered ${status}; is this the URL of the right version of authentication?`);
}

function accountUrl(config: SwiftStoreConfig, authUrl: URL, granted: string | undefined): string {
  if (config.storageUrl !== null) return withoutSlash(httpUrl(config.storageUrl, 'the storage URL'));
  if (granted === undefined)
    throw new StoreError('denied', `${authUrl.origin} named no storage URL; is this the URL of the right version of authentication?`);
  const url = httpUrl(granted, `the storage URL that ${authUrl.origin} named`);
  if (authUrl.protocol === 'https:' && url.protocol !== 'https:') {
    throw new StoreError(
      'denied',
      `${authUrl.origin} named a storage URL without TLS (${url.origin}), over which the token could be read by others; set the storage URL in the settings if that is meant`,
    );
  }
  return withoutSlash(url);
}

/** @throws StoreError `denied` unless it is http(s), without user information, query or fragment. */
function httpUrl(text: string, what: string): URL {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol) || url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') {
    // Not quoted: a password may be in it.
    throw new StoreError('denied', `${what} is not an http(s) URL of only host, port and path`);
  }
  return url;
}

function withoutSlash(url: URL): string {
  return url.href.replace(/\/+$/, '');
}

function requireToken(token: string | undefined, url: URL, header: string): string {
  if (token === undefined || !/^[\x21-\x7e]{1,16384}$/.test(token)) {
    throw new StoreError('denied', `${url.origin} granted no usable ${header}; is this the URL of the right version of authentication?`);
  }
  return token;
}

function believableLife(lifeMs: number): number | null {
  return lifeMs > 0 && lifeMs <= LIFE_MS_MAX ? lifeMs : null;
}

function parseJson(body: Buffer, url: URL): unknown {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch {
    // The parser's message quotes the text.
    throw new StoreError('retry', `authenticate at ${url.origin}: the answer is not JSON`);
  }
}

function fieldOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Object.getOwnPropertyDescriptor(value, name)?.value : undefined;
}

function arrayOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function single(header: string | string[] | undefined): string | undefined {
  return typeof header === 'string' ? header : undefined;
}

function printable(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, 60);
}
