/** Objects of an S3 service: AWS, Ceph radosgw, Swift's s3api, MinIO and alike. What each needs is in docs/OPERATIONS.md. */
import { createHash } from 'node:crypto';
import type { Readable } from 'node:stream';

import {
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  type GetObjectCommandOutput,
  HeadObjectCommand,
  ListBucketsCommand,
  ListObjectsV2Command,
  type ListObjectsV2CommandOutput,
  PutObjectCommand,
  type S3Client,
} from '@aws-sdk/client-s3';

import { abortedError, throwIfAborted } from '../abort.ts';
import { assertLimit, assertRange, OBJECT_BYTES_MAX, requireNamesToDelete } from '../call-arguments.ts';
import { deleteEach } from '../delete-each.ts';
import { type FileBody, FilePart } from '../file-part.ts';
import { bodySizeBytes, readBody } from '../object-body.ts';
import { isBucketName, isObjectName, requireBucketName, requireObjectName } from '../object-name.ts';
import { type ByteRange, type GetOutcome, type ObjectBody, type ObjectStore, StoreError } from '../object-store.ts';
import { readAnswer } from './s3-body.ts';
import { makeS3Client, type S3Timeouts } from './s3-client.ts';
import type { S3StoreConfig } from './s3-config.ts';
import { deleteErrorOf, isWithoutCredentials, s3Failure, type S3Failure, storeErrorOf } from './s3-error.ts';

/** A larger part of a file is sent while it is read. */
const IN_MEMORY_BYTES_MAX = 1024 * 1024;
/** What the services give in one page. */
const LIST_PAGE_MAX = 1000;
/** Names of one multi-object delete: a service that deletes them one after the other must be done before the attempt counts as lost. */
const DELETE_BATCH = 250;
/** Statuses and codes of a service that has no multi-object delete. */
const NO_MULTI_DELETE = new Set([400, 404, 405, 411, 501]);

/**
 * Errors of each request are classed in `s3-error.ts`; nothing is repeated here, but for a whole object whose bytes do not have the MD5 that
 * its ETag says. Constructing does no I/O.
 */
export class S3Store implements ObjectStore {
  readonly description: string;
  readonly putIsAtomic: boolean;
  readonly #config: S3StoreConfig;
  readonly #timeouts: S3Timeouts | undefined;
  #made: S3Client | null = null;
  #multiDelete = true;
  #hadCredentials = false;
  /** Whether this service's ETags are MD5s of what was put, as a put has shown; null: none has yet. */
  #etagsAreMd5: boolean | null = null;

  constructor(config: S3StoreConfig, timeouts?: S3Timeouts) {
    this.#config = config;
    this.#timeouts = timeouts;
    const where = new URL(config.endpoint ?? `https://s3.${config.region}.amazonaws.com`);
    this.description = `s3:${where.protocol}//${where.host}${where.pathname === '/' ? '' : where.pathname}`;
    this.putIsAtomic = config.conditionalPut;
  }

  /** Closes the connections; calls under way fail. */
  async close(): Promise<void> {
    this.#made?.destroy();
    this.#made = null;
  }

  async createBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    requireBucketName(bucket);
    const what = `create bucket ${bucket}`;
    const outcome = await this.#attempt(what, signal, (client, options) => client.send(new CreateBucketCommand({ Bucket: bucket }), options));
    if (outcome.kind === 'failed' && outcome.failure.code !== 'BucketAlreadyOwnedByYou') throw storeErrorOf(outcome.failure, what);
  }

  async deleteBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    requireBucketName(bucket);
    const what = `delete bucket ${bucket}`;
    const outcome = await this.#attempt(what, signal, (client, options) => client.send(new DeleteBucketCommand({ Bucket: bucket }), options));
    if (outcome.kind === 'done') return;
    const { failure } = outcome;
    if (failure.code === 'NoSuchBucket') return;
    if (failure.status === 409 && failure.code !== 'OperationAborted') throw new StoreError('denied', `${what}: it holds objects`);
    throw storeErrorOf(failure, what);
  }

  async listBuckets(after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    assertLimit(limit);
    const names: string[] = [];
    let token: string | undefined;
    do {
      const input = token === undefined ? {} : { ContinuationToken: token };
      const page = await this.#send('list buckets', signal, (client, options) => client.send(new ListBucketsCommand(input), options));
      for (const { Name } of page.Buckets ?? []) if (Name !== undefined && Name > after && isBucketName(Name)) names.push(Name);
      token = page.ContinuationToken === '' ? undefined : page.ContinuationToken;
    } while (token !== undefined);
    // ASCII: the order of UTF-16 units is the byte order.
    names.sort();
    return { names: names.slice(0, limit), more: names.length > limit };
  }

  async put(bucket: string, name: string, body: ObjectBody, signal?: AbortSignal): Promise<'written' | 'exists'> {
    requireObjectName(bucket, name);
    const what = `put ${bucket}/${name}`;
    throwIfAborted(signal, what);
    const sizeBytes = bodySizeBytes(body);
    if (sizeBytes > OBJECT_BYTES_MAX) throw new StoreError('denied', `${what}: ${sizeBytes} bytes, an object has at most ${OBJECT_BYTES_MAX}`);
    if (body.kind === 'file' && sizeBytes > IN_MEMORY_BYTES_MAX) return this.#putFile(bucket, name, body, what, signal);
    const [only] = body.kind === 'bytes' && body.chunks.length === 1 ? body.chunks : [];
    const bytes = only ?? (await readBody(body));
    return this.#put(bucket, name, { bytes, sizeBytes, md5: createHash('md5').update(bytes).digest() }, what, signal);
  }

  async get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
    requireObjectName(bucket, name);
    assertRange(range);
    const what = `get ${bucket}/${name}`;
    if (range === undefined) return this.#getWhole(bucket, name, what, signal);
    if (range.lengthBytes === 0) {
      const outcome = await this.head(bucket, name, signal);
      return outcome.kind === 'absent' ? outcome : { kind: 'found', bytes: Buffer.allocUnsafeSlow(0) };
    }
    const answer = await this.#get(bucket, name, range, what, signal);
    return answer.kind === 'found' ? { kind: 'found', bytes: answer.bytes } : answer;
  }

  async head(bucket: string, name: string, signal?: AbortSignal): Promise<{ kind: 'found'; sizeBytes: number } | { kind: 'absent' }> {
    requireObjectName(bucket, name);
    const what = `head ${bucket}/${name}`;
    const command = new HeadObjectCommand({ Bucket: bucket, Key: name });
    const outcome = await this.#attempt(what, signal, (client, options) => client.send(command, options));
    if (outcome.kind === 'failed') {
      if (outcome.failure.status === 404) return { kind: 'absent' };
      throw storeErrorOf(outcome.failure, what);
    }
    const sizeBytes = outcome.value.ContentLength;
    if (sizeBytes === undefined) throw new StoreError('retry', `${what}: the answer does not say how long the object is`);
    return { kind: 'found', sizeBytes };
  }

  async delete(bucket: string, name: string, signal?: AbortSignal): Promise<void> {
    requireObjectName(bucket, name);
    const what = `delete ${bucket}/${name}`;
    const command = new DeleteObjectCommand({ Bucket: bucket, Key: name });
    const outcome = await this.#attempt(what, signal, (client, options) => client.send(command, options));
    if (outcome.kind === 'failed' && outcome.failure.status !== 404) throw storeErrorOf(outcome.failure, what);
  }

  async deleteMany(bucket: string, names: readonly string[], signal?: AbortSignal): Promise<void> {
    requireNamesToDelete(bucket, names);
    throwIfAborted(signal, `delete ${names.length} objects of ${bucket}`);
    for (let start = 0; start < names.length; start += DELETE_BATCH) {
      const batch = names.slice(start, start + DELETE_BATCH);
      if (this.#multiDelete && (await this.#deleteBatch(bucket, batch, signal))) continue;
      await deleteEach(batch, (name) => this.delete(bucket, name, signal));
      // Only now: it was this kind of request that the service refused, not the bucket, the key or the clock.
      this.#multiDelete = false;
    }
  }

  async list(bucket: string, prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    requireBucketName(bucket);
    assertLimit(limit);
    let token: string | undefined;
    for (;;) {
      const input = {
        Bucket: bucket,
        Prefix: prefix,
        MaxKeys: Math.min(limit, LIST_PAGE_MAX),
        // A stranger's key may have bytes that XML cannot carry; ours are the same in this encoding.
        EncodingType: 'url',
        ...(token === undefined ? { StartAfter: after } : { ContinuationToken: token }),
      } as const;
      const page = await this.#send(`list ${bucket}`, signal, (client, options) => client.send(new ListObjectsV2Command(input), options));
      const names = namesOf(page, prefix, after, `list ${bucket}`);
      token = page.NextContinuationToken;
      if (page.IsTruncated !== true || token === undefined) return { names, more: false };
      // A page of strangers' keys only must not end the listing.
      if (names.length > 0) return { names, more: true };
    }
  }

  async #putFile(bucket: string, name: string, body: FileBody, what: string, signal: AbortSignal | undefined): Promise<'written' | 'exists'> {
    const part = new FilePart(body);
    try {
      const md5 = await part.md5();
      const stream = part.stream();
      // Nobody else would tell the request that no more bytes are coming.
      const unreadable = new AbortController();
      stream.on('error', (error) => unreadable.abort(error));
      const either = signal === undefined ? unreadable.signal : AbortSignal.any([signal, unreadable.signal]);
      try {
        return await this.#put(bucket, name, { bytes: stream, sizeBytes: body.lengthBytes, md5 }, what, either);
      } catch (error) {
        if (unreadable.signal.aborted) throw unreadable.signal.reason;
        throw error;
      } finally {
        stream.destroy();
      }
    } finally {
      part.close();
    }
  }

  async #put(
    bucket: string,
    name: string,
    body: { readonly bytes: Uint8Array | Readable; readonly sizeBytes: number; readonly md5: Buffer },
    what: string,
    signal: AbortSignal | undefined,
  ): Promise<'written' | 'exists'> {
    const { conditionalPut } = this.#config;
    const command = new PutObjectCommand({
      Bucket: bucket,
      Key: name,
      Body: body.bytes,
      ContentLength: body.sizeBytes,
      ContentMD5: body.md5.toString('base64'),
      ContentType: 'application/octet-stream',
      ...(conditionalPut ? { IfNoneMatch: '*' } : {}),
    });
    const outcome = await this.#attempt(what, signal, (client, options) => client.send(command, options));
    if (outcome.kind === 'done') {
      const etag = plainMd5(outcome.value);
      if (etag !== null) this.#etagsAreMd5 = etag === body.md5.toString('hex');
      return 'written';
    }
    const { failure } = outcome;
    if (conditionalPut && failure.status === 412) return 'exists';
    if (conditionalPut && failure.status === 501) {
      throw new StoreError(
        'denied',
        `${what}: the service does not support If-None-Match, though it did when the vPool was made (${failure.code}, status 501)`,
      );
    }
    throw storeErrorOf(failure, what);
  }

  /** False: the service has no such request. */
  async #deleteBatch(bucket: string, names: readonly string[], signal: AbortSignal | undefined): Promise<boolean> {
    const what = `delete ${names.length} objects of ${bucket}`;
    const input = { Bucket: bucket, Delete: { Objects: names.map((name) => ({ Key: name })), Quiet: true } };
    const outcome = await this.#attempt(what, signal, (client, options) => client.send(new DeleteObjectsCommand(input), options));
    if (outcome.kind === 'failed') {
      const { failure } = outcome;
      if (failure.code === 'NoSuchBucket') return true;
      if (failure.status !== null && NO_MULTI_DELETE.has(failure.status) && storeErrorOf(failure, what).class === 'denied') return false;
      throw storeErrorOf(failure, what);
    }
    const errors = outcome.value.Errors ?? [];
    const refused = errors.find(({ Code }) => Code !== 'NoSuchKey');
    if (refused !== undefined) throw deleteErrorOf(refused.Code, refused.Message, `${what} (${errors.length} failed)`);
    return true;
  }

  /** The whole object, with the bytes that its ETag says, where that says anything. */
  async #getWhole(bucket: string, name: string, what: string, signal: AbortSignal | undefined): Promise<GetOutcome> {
    const first = await this.#get(bucket, name, undefined, what, signal);
    if (first.kind === 'absent') return first;
    if (this.#isIntact(first)) return { kind: 'found', bytes: first.bytes };
    // A bit may have flipped on the way, or the service notices now (Swift serves a bad copy once, then another or none).
    const second = await this.#get(bucket, name, undefined, what, signal);
    if (second.kind === 'absent') return second;
    if (this.#isIntact(second)) return { kind: 'found', bytes: second.bytes };
    if (this.#etagsAreMd5 === null && first.bytes.equals(second.bytes)) {
      // The same bytes twice: this service's ETags are something else that looks like an MD5. The layers above have checksums of their own.
      this.#etagsAreMd5 = false;
      return { kind: 'found', bytes: second.bytes };
    }
    throw new StoreError('corrupt', `${what}: its bytes do not have the MD5 that its ETag says, twice`);
  }

  #isIntact(answer: { readonly bytes: Buffer; readonly md5: string | null }): boolean {
    if (answer.md5 === null || this.#etagsAreMd5 === false) return true;
    return createHash('md5').update(answer.bytes).digest('hex') === answer.md5;
  }

  async #get(
    bucket: string,
    name: string,
    range: ByteRange | undefined,
    what: string,
    signal: AbortSignal | undefined,
  ): Promise<{ kind: 'absent' } | { kind: 'found'; bytes: Buffer; md5: string | null }> {
    const part = range === undefined ? {} : { Range: `bytes=${range.offsetBytes}-${range.offsetBytes + range.lengthBytes - 1}` };
    const command = new GetObjectCommand({ Bucket: bucket, Key: name, ...part });
    const outcome = await this.#attempt(what, signal, async (client, options) => {
      const answer = await client.send(command, options);
      const bytes = await readAnswer(answer.Body as Readable, answer.ContentLength);
      return { bytes: range === undefined ? bytes : partOf(answer, bytes, range), md5: plainMd5(answer) };
    });
    if (outcome.kind === 'done') return { kind: 'found', ...outcome.value };
    const { failure } = outcome;
    if (failure.status === 404) return { kind: 'absent' };
    // The range begins at or behind the end.
    if (failure.status === 416 && range !== undefined) return { kind: 'found', bytes: Buffer.allocUnsafeSlow(0), md5: null };
    throw storeErrorOf(failure, what);
  }

  /** The answer. @throws StoreError for every failure. */
  async #send<T>(what: string, signal: AbortSignal | undefined, request: Request<T>): Promise<T> {
    const outcome = await this.#attempt(what, signal, request);
    if (outcome.kind === 'failed') throw storeErrorOf(outcome.failure, what);
    return outcome.value;
  }

  /** @throws StoreError when it was aborted, or is one already. */
  async #attempt<T>(
    what: string,
    signal: AbortSignal | undefined,
    request: Request<T>,
  ): Promise<{ kind: 'done'; value: T } | { kind: 'failed'; failure: S3Failure }> {
    throwIfAborted(signal, what);
    this.#made ??= makeS3Client(this.#config, this.#timeouts);
    try {
      const value = await request(this.#made, signal === undefined ? {} : { abortSignal: signal });
      this.#hadCredentials = true;
      return { kind: 'done', value };
    } catch (error) {
      if (signal !== undefined && signal.aborted) throw abortedError(signal, what);
      if (error instanceof StoreError) throw error;
      const failure = s3Failure(error);
      // They could not be renewed: who gives them out is down, which is no reason to give up.
      if (this.#hadCredentials && isWithoutCredentials(failure)) throw new StoreError('retry', `${what}: ${failure.code}; ${failure.message}`);
      return { kind: 'failed', failure };
    }
  }
}

type Request<T> = (client: S3Client, options: { abortSignal?: AbortSignal }) => Promise<T>;

/** The bytes of `range` in an answer to a request for it. @throws Error when the answer is about other bytes. */
function partOf(answer: GetObjectCommandOutput, bytes: Buffer, range: ByteRange): Buffer {
  if (answer.ContentRange === undefined) {
    // The service took no notice of the range, which HTTP allows.
    const part = bytes.subarray(range.offsetBytes, range.offsetBytes + range.lengthBytes);
    const own = Buffer.allocUnsafeSlow(part.byteLength);
    own.set(part);
    return own;
  }
  const match = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(answer.ContentRange);
  const [first, last, total] = (match ?? []).slice(1).map(Number) as [number?, number?, number?];
  const fits = first === range.offsetBytes && last !== undefined && last - first + 1 === bytes.byteLength && bytes.byteLength <= range.lengthBytes;
  const cut = bytes.byteLength < range.lengthBytes && last !== undefined && total !== last + 1;
  if (!fits || cut)
    throw new Error(`asked for ${range.lengthBytes} bytes at ${range.offsetBytes}, the answer is ${bytes.byteLength} of another range`);
  return bytes;
}

/**
 * Our names in a page of a listing; strangers' are left out. @throws StoreError `retry` unless they begin with `prefix` and ascend from `after`: else whoever
 * goes on after the last one would be given the same page for ever, by a service that does not know `start-after` for instance.
 */
function namesOf(page: ListObjectsV2CommandOutput, prefix: string, after: string, what: string): string[] {
  const names: string[] = [];
  let previous = after;
  for (const { Key } of page.Contents ?? []) {
    if (Key === undefined || !isObjectName(Key)) continue;
    if (!Key.startsWith(prefix) || Key <= previous)
      throw new StoreError('retry', `${what}: the listing is not in order after ${JSON.stringify(previous)}`);
    names.push(Key);
    previous = Key;
  }
  return names;
}

/** The MD5 in hex that an ETag is; null when it says that it is none (multipart, encrypted with a customer's or KMS's key). */
function plainMd5(answer: {
  ETag?: string | undefined;
  ServerSideEncryption?: string | undefined;
  SSECustomerAlgorithm?: string | undefined;
}): string | null {
  if (answer.SSECustomerAlgorithm !== undefined || answer.ServerSideEncryption?.startsWith('aws:kms') === true) return null;
  return /^"?([0-9a-f]{32})"?$/.exec(answer.ETag ?? '')?.[1] ?? null;
}
