/**
 * Objects in an account of OpenStack Swift, over its own API: a bucket is a container. Nothing is retried here but a request whose token had
 * ended, and a whole read whose bytes did not match their MD5 (see `get`).
 */
import { createHash } from 'node:crypto';

import { systemClock } from '../../server/core/node-time.ts';
import type { Clock } from '../../server/core/time.ts';
import { assertLimit, assertRange, OBJECT_BYTES_MAX, requireNamesToDelete } from '../call-arguments.ts';
import { deleteEach } from '../delete-each.ts';
import { bodySizeBytes, readBody } from '../object-body.ts';
import { isBucketName, isObjectName, requireBucketName, requireObjectName } from '../object-name.ts';
import { type ByteRange, type GetOutcome, type ObjectBody, type ObjectStore, StoreError } from '../object-store.ts';
import { describeHostedStore } from '../upload-thread/hosted-store.ts';
import { readCaFile } from './ca-file.ts';
import { refusal, RetryAfter, statusText } from './swift-answer.ts';
import { authenticate } from './swift-auth.ts';
import type { SwiftStoreConfig } from './swift-config.ts';
import { type HttpAnswer, HttpConnections, type HttpRequest } from './swift-http.ts';
import { PAGE_BYTES_MAX, PAGE_NAMES_MAX, parseListing } from './swift-listing.ts';
import { type SwiftSession, SwiftSessions } from './swift-sessions.ts';

export interface SwiftComponents {
  readonly clock?: Clock;
  /** See `HttpSettings`. Default 20 s. */
  readonly silenceMsMax?: number;
}

const SILENCE_MS_MAX = 20_000;
/** No answer but a listing and a read has a body that anyone reads. */
const NO_BODY_BYTES_MAX = 64 * 1024;
/** From this size on a body is worth asking first, when bodies got lost before. */
const ASK_FIRST_BYTES = 64 * 1024;
/** A cluster may allow less than Swift's stock pages, but hardly less than this. */
const PAGE_NAMES_MIN = 100;

interface StoreCall {
  readonly method: HttpRequest['method'];
  /** Below the account, no slash in front; query included. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly chunks?: readonly Uint8Array[];
  readonly answerBytesMax?: number;
}

/** See the module comment. Constructing does no I/O. */
export class SwiftStore implements ObjectStore {
  readonly description: string;
  /** `If-None-Match: *` refuses an accidental overwrite, but is checked before the body: of concurrent writers several may win. */
  readonly putIsAtomic = false;
  readonly #config: SwiftStoreConfig;
  readonly #clock: Clock;
  readonly #silenceMsMax: number;
  readonly #sessions: SwiftSessions;
  readonly #reads: RetryAfter;
  readonly #writes: RetryAfter;
  #connections: HttpConnections | null = null;
  #closed = false;
  /** Whether a token was ever good for anything here: a 401 for a new one is then a passing fault of the cluster's, not a wrong setting. */
  #tokenWorked = false;
  /** A connection broke under a body: perhaps the server refused it with an answer that got lost (an ended token, say). */
  #bodiesGetLost = false;
  #pageNamesMax = PAGE_NAMES_MAX;

  constructor(config: SwiftStoreConfig, components: SwiftComponents = {}) {
    this.#config = config;
    this.#clock = components.clock ?? systemClock;
    this.#silenceMsMax = components.silenceMsMax ?? SILENCE_MS_MAX;
    this.description = describeHostedStore({ store: config, layout: { kind: 'buckets' }, encoding: null }).description;
    this.#sessions = new SwiftSessions(() => authenticate(this.#open(), config), this.#clock);
    this.#reads = new RetryAfter(this.#clock);
    this.#writes = new RetryAfter(this.#clock);
  }

  /** Ends all connections; calls that run reject with class `retry`, and so do later ones. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#connections?.close();
  }

  async createBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    requireBucketName(bucket);
    const what = `create bucket ${bucket}`;
    const answer = await this.#call(what, { method: 'PUT', path: bucket, chunks: [] }, signal);
    if (answer.status === 404) throw this.#noAccount(what, answer);
    requireSuccess(what, answer);
  }

  async deleteBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    requireBucketName(bucket);
    const what = `delete bucket ${bucket}`;
    const answer = await this.#call(what, { method: 'DELETE', path: bucket }, signal);
    if (answer.status === 409) throw new StoreError('denied', `${statusText(what, answer)}: it holds objects`);
    if (answer.status !== 404) requireSuccess(what, answer);
  }

  async listBuckets(after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    assertLimit(limit);
    return await this.#pages('list buckets', '', '', after, limit, isBucketName, signal);
  }

  async list(bucket: string, prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    requireBucketName(bucket);
    assertLimit(limit);
    return await this.#pages(`list ${bucket}`, bucket, prefix, after, limit, isObjectName, signal);
  }

  async put(bucket: string, name: string, body: ObjectBody, signal?: AbortSignal): Promise<'written' | 'exists'> {
    requireObjectName(bucket, name);
    const what = `put ${bucket}/${name}`;
    const sizeBytes = bodySizeBytes(body);
    if (sizeBytes > OBJECT_BYTES_MAX) throw new StoreError('denied', `${what}: ${sizeBytes} bytes, an object has at most ${OBJECT_BYTES_MAX}`);
    const chunks = body.kind === 'bytes' ? body.chunks : [await readBody(body)];
    const md5 = md5Of(chunks);
    // The server compares the body that it got with ETag, and answers 422 if that is another.
    const headers = { ETag: md5, 'Content-Type': 'application/octet-stream' };
    const path = `${bucket}/${name}`;
    const first = await this.#call(what, { method: 'PUT', path, headers: { ...headers, 'If-None-Match': '*' }, chunks }, signal);
    const isThere = first.status === 412;
    if (isThere) {
      // One replica is enough for this answer, perhaps all that is left of a put that failed half way. The same bytes are put once more: then they are on
      // a majority. Other bytes are never replaced.
      const found = await this.#call(what, { method: 'HEAD', path }, signal);
      if (found.status === 404) throw new StoreError('retry', `${what}: it exists (412), but is not visible`);
      requireSuccess(what, found);
      if (md5In(found) !== md5) return 'exists';
    }
    const answer = isThere ? await this.#call(what, { method: 'PUT', path, headers, chunks }, signal) : first;
    if (answer.status === 404) throw new StoreError('absent', `${statusText(what, answer)}: bucket ${bucket} does not exist`);
    requireSuccess(what, answer);
    const stored = md5In(answer);
    if (stored !== null && stored !== md5)
      throw new StoreError('retry', `${statusText(what, answer)}, but it stored other bytes: their MD5 is ${stored}, not ${md5}`);
    return isThere ? 'exists' : 'written';
  }

  /**
   * A whole object is compared with its MD5: Swift serves a damaged replica once, sets it aside, and takes another one then. So the read is
   * repeated at once; two equal wrong answers are class `corrupt`. Parts cannot be compared; who reads parts has checksums of its own.
   */
  async get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
    requireObjectName(bucket, name);
    assertRange(range);
    const what = `get ${bucket}/${name}`;
    const path = `${bucket}/${name}`;
    if (range === undefined) return await this.#getWhole(what, path, signal);
    if (range.lengthBytes === 0) {
      const head = await this.head(bucket, name, signal);
      return head.kind === 'absent' ? head : { kind: 'found', bytes: Buffer.alloc(0) };
    }
    const end = range.offsetBytes + range.lengthBytes;
    const headers = { Range: `bytes=${range.offsetBytes}-${end - 1}` };
    const answer = await this.#call(what, { method: 'GET', path, headers, answerBytesMax: OBJECT_BYTES_MAX }, signal);
    if (answer.status === 404) return { kind: 'absent' };
    if (answer.status === 416) return { kind: 'found', bytes: Buffer.alloc(0) };
    requireSuccess(what, answer);
    // A server may ignore the range; then it sent the whole object.
    if (answer.status !== 206) return { kind: 'found', bytes: Buffer.from(answer.body.subarray(range.offsetBytes, end)) };
    requireThatPart(what, answer, range);
    return { kind: 'found', bytes: answer.body };
  }

  async head(bucket: string, name: string, signal?: AbortSignal): Promise<{ kind: 'found'; sizeBytes: number } | { kind: 'absent' }> {
    requireObjectName(bucket, name);
    const what = `head ${bucket}/${name}`;
    const answer = await this.#call(what, { method: 'HEAD', path: `${bucket}/${name}` }, signal);
    if (answer.status === 404) return { kind: 'absent' };
    requireSuccess(what, answer);
    const sizeBytes = Number(answer.headers['content-length'] ?? Number.NaN);
    if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0) throw new StoreError('retry', `${statusText(what, answer)} without a size`);
    return { kind: 'found', sizeBytes };
  }

  async delete(bucket: string, name: string, signal?: AbortSignal): Promise<void> {
    requireObjectName(bucket, name);
    const what = `delete ${bucket}/${name}`;
    const answer = await this.#call(what, { method: 'DELETE', path: `${bucket}/${name}` }, signal);
    if (answer.status !== 404) requireSuccess(what, answer);
  }

  /** One request for each: Swift's bulk request does no less work, but all of it in one place, in one answer that takes as long. */
  async deleteMany(bucket: string, names: readonly string[], signal?: AbortSignal): Promise<void> {
    requireNamesToDelete(bucket, names);
    await deleteEach(names, (name) => this.delete(bucket, name, signal));
  }

  async #getWhole(what: string, path: string, signal: AbortSignal | undefined): Promise<GetOutcome> {
    let wrong: string | null = null;
    for (;;) {
      const answer = await this.#call(what, { method: 'GET', path, answerBytesMax: OBJECT_BYTES_MAX }, signal);
      if (answer.status === 404) return { kind: 'absent' };
      requireSuccess(what, answer);
      const expected = md5In(answer);
      const found = md5Of([answer.body]);
      if (expected === null || found === expected) return { kind: 'found', bytes: answer.body };
      if (wrong !== null) {
        const message = `${statusText(what, answer)} with other bytes than were stored: their MD5 is ${found}, not ${expected}`;
        throw new StoreError(wrong === found ? 'corrupt' : 'retry', message);
      }
      wrong = found;
    }
  }

  /** Names that `keep` accepts, over as many pages as it takes: a page may be short without being the last, only an empty one is. */
  async #pages(
    what: string,
    container: string,
    prefix: string,
    after: string,
    limit: number,
    keep: (name: string) => boolean,
    signal: AbortSignal | undefined,
  ): Promise<{ names: string[]; more: boolean }> {
    const names: string[] = [];
    let marker = after;
    for (;;) {
      const wanted = Math.min(limit + 1 - names.length, this.#pageNamesMax);
      const query = new URLSearchParams({ format: 'json', limit: String(wanted) });
      if (prefix !== '') query.set('prefix', prefix);
      if (marker !== '') query.set('marker', marker);
      const answer = await this.#call(what, { method: 'GET', path: `${container}?${query}`, answerBytesMax: PAGE_BYTES_MAX }, signal);
      if (answer.status === 412 && wanted > PAGE_NAMES_MIN) {
        this.#pageNamesMax = Math.max(PAGE_NAMES_MIN, Math.floor(wanted / 10));
        continue;
      }
      if (answer.status === 404) {
        throw container === '' ? this.#noAccount(what, answer) : new StoreError('absent', `${statusText(what, answer)}: the bucket does not exist`);
      }
      requireSuccess(what, answer);
      const page = parseListing(answer.body, prefix, marker, what);
      for (const name of page) {
        if (!keep(name)) continue;
        if (names.length === limit) return { names, more: true };
        names.push(name);
      }
      marker = page.at(-1) ?? '';
      if (page.length === 0) return { names, more: false };
    }
  }

  /** Sends the request with the token in use; once more with a new one if that has ended. */
  async #call(what: string, call: StoreCall, signal: AbortSignal | undefined): Promise<HttpAnswer> {
    const direction = call.method === 'PUT' || call.method === 'DELETE' ? this.#writes : this.#reads;
    await direction.wait(signal, what);
    const session = await this.#sessions.current(signal, what);
    let answer = await this.#send(what, call, session, signal);
    if (answer.status === 401) {
      answer = await this.#send(what, call, await this.#sessions.after(session, signal, what), signal);
      if (answer.status === 401) {
        const text = `${statusText(what, answer)} to a token that was just granted`;
        throw this.#tokenWorked
          ? new StoreError('retry', text)
          : new StoreError('denied', `${text}; do the authentication URL and the storage URL belong to one cluster?`);
      }
    }
    if (answer.status < 300) this.#tokenWorked = true;
    direction.note(answer);
    return answer;
  }

  async #send(what: string, call: StoreCall, session: SwiftSession, signal: AbortSignal | undefined): Promise<HttpAnswer> {
    const { method, path, headers, chunks, answerBytesMax = NO_BODY_BYTES_MAX } = call;
    const isLarge = chunks !== undefined && bodySizeBytes({ kind: 'bytes', chunks }) >= ASK_FIRST_BYTES;
    try {
      const answer = await this.#open().exchange({
        method,
        url: new URL(`${session.storageUrl}/${path}`),
        headers: { ...headers, 'X-Auth-Token': session.token },
        ...(chunks === undefined ? {} : { chunks }),
        expectContinue: isLarge && this.#bodiesGetLost,
        answerBytesMax,
        signal,
        what,
      });
      if (isLarge && answer.status < 300) this.#bodiesGetLost = false;
      return answer;
    } catch (error) {
      if (isLarge) this.#bodiesGetLost = true;
      throw error;
    }
  }

  #open(): HttpConnections {
    if (this.#closed) throw new StoreError('retry', `${this.description}: closed`);
    this.#connections ??= new HttpConnections(this.#clock, {
      silenceMsMax: this.#silenceMsMax,
      ca: this.#config.caFile === null ? null : readCaFile(this.#config.caFile),
    });
    return this.#connections;
  }

  #noAccount(what: string, answer: HttpAnswer): StoreError {
    return new StoreError('denied', `${statusText(what, answer)}: the account does not exist; is the storage URL right?`);
  }
}

function requireSuccess(what: string, answer: HttpAnswer): void {
  if (answer.status < 200 || answer.status >= 300) throw refusal(what, answer);
}

/** @throws StoreError `retry` unless the body is the range, cut at the object's end. */
function requireThatPart(what: string, answer: HttpAnswer, range: ByteRange): void {
  const [, first = '', last = '', size = ''] = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/.exec(answer.headers['content-range'] ?? '') ?? [];
  const end = Math.min(range.offsetBytes + range.lengthBytes, Number(size));
  if (size === '' || Number(first) !== range.offsetBytes || Number(last) !== end - 1 || answer.body.byteLength !== end - range.offsetBytes) {
    throw new StoreError('retry', `${statusText(what, answer)} with another part than bytes ${range.offsetBytes} to ${end - 1}`);
  }
}

function md5Of(chunks: readonly Uint8Array[]): string {
  const hash = createHash('md5');
  for (const chunk of chunks) hash.update(chunk);
  return hash.digest('hex');
}

/** Null when the ETag is something else than an MD5, as that of an object made of parts. */
function md5In(answer: HttpAnswer): string | null {
  const etag = /^"?([0-9a-f]{32})"?$/i.exec(answer.headers.etag ?? '')?.[1];
  return etag === undefined || answer.headers['x-static-large-object'] !== undefined ? null : etag.toLowerCase();
}
