import { throwIfAborted } from '../abort.ts';
import { assertLimit, assertRange, requireNamesToDelete } from '../call-arguments.ts';
import { readBody } from '../object-body.ts';
import { requireBucketName, requireObjectName } from '../object-name.ts';
import { type ByteRange, type GetOutcome, type ObjectBody, type ObjectStore, StoreError } from '../object-store.ts';

/**
 * Objects in memory, for tests, simulation and as the plainest statement of the port's contract. Nothing is bounded and
 * nothing survives the process. `readObjectBody` turns a body into bytes (simulation passes one that reads its simulated disk).
 */
export class MemoryStore implements ObjectStore {
  readonly description = 'memory';
  readonly putIsAtomic = true;
  readonly #buckets = new Map<string, Map<string, Buffer>>();
  readonly #readObjectBody: (body: ObjectBody) => Promise<Buffer>;

  constructor(readObjectBody: (body: ObjectBody) => Promise<Buffer> = readBody) {
    this.#readObjectBody = readObjectBody;
  }

  /** Number of objects in all buckets. */
  get objectCount(): number {
    let count = 0;
    for (const objects of this.#buckets.values()) count += objects.size;
    return count;
  }

  async createBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    requireBucketName(bucket);
    throwIfAborted(signal, `create bucket ${bucket}`);
    if (!this.#buckets.has(bucket)) this.#buckets.set(bucket, new Map());
  }

  async deleteBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    requireBucketName(bucket);
    throwIfAborted(signal, `delete bucket ${bucket}`);
    const count = this.#buckets.get(bucket)?.size ?? 0;
    if (count > 0) throw new StoreError('denied', `bucket ${bucket} holds ${count} objects: only an empty one can be deleted`);
    this.#buckets.delete(bucket);
  }

  async listBuckets(after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    assertLimit(limit);
    throwIfAborted(signal, 'list buckets');
    return page([...this.#buckets.keys()], '', after, limit);
  }

  async put(bucket: string, name: string, body: ObjectBody, signal?: AbortSignal): Promise<'written' | 'exists'> {
    requireObjectName(bucket, name);
    throwIfAborted(signal, `put ${bucket}/${name}`);
    this.#objects(bucket);
    const bytes = await this.#readObjectBody(body);
    throwIfAborted(signal, `put ${bucket}/${name}`);
    // Looked up again: the bucket may have gone while the body was read.
    const objects = this.#objects(bucket);
    if (objects.has(name)) return 'exists';
    objects.set(name, bytes);
    return 'written';
  }

  async get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
    requireObjectName(bucket, name);
    assertRange(range);
    throwIfAborted(signal, `get ${bucket}/${name}`);
    const object = this.#buckets.get(bucket)?.get(name);
    if (object === undefined) return { kind: 'absent' };
    const part = range === undefined ? object : object.subarray(range.offsetBytes, range.offsetBytes + range.lengthBytes);
    const bytes = Buffer.allocUnsafeSlow(part.byteLength);
    bytes.set(part);
    return { kind: 'found', bytes };
  }

  async head(bucket: string, name: string, signal?: AbortSignal): Promise<{ kind: 'found'; sizeBytes: number } | { kind: 'absent' }> {
    requireObjectName(bucket, name);
    throwIfAborted(signal, `head ${bucket}/${name}`);
    const object = this.#buckets.get(bucket)?.get(name);
    return object === undefined ? { kind: 'absent' } : { kind: 'found', sizeBytes: object.byteLength };
  }

  async delete(bucket: string, name: string, signal?: AbortSignal): Promise<void> {
    requireObjectName(bucket, name);
    throwIfAborted(signal, `delete ${bucket}/${name}`);
    this.#buckets.get(bucket)?.delete(name);
  }

  async deleteMany(bucket: string, names: readonly string[], signal?: AbortSignal): Promise<void> {
    requireNamesToDelete(bucket, names);
    throwIfAborted(signal, `delete ${names.length} objects of ${bucket}`);
    const objects = this.#buckets.get(bucket);
    for (const name of names) objects?.delete(name);
  }

  async list(bucket: string, prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    requireBucketName(bucket);
    assertLimit(limit);
    throwIfAborted(signal, `list ${bucket}`);
    return page([...this.#objects(bucket).keys()], prefix, after, limit);
  }

  #objects(bucket: string): Map<string, Buffer> {
    const objects = this.#buckets.get(bucket);
    if (objects === undefined) throw new StoreError('absent', `bucket ${bucket} does not exist`);
    return objects;
  }
}

function page(all: string[], prefix: string, after: string, limit: number): { names: string[]; more: boolean } {
  // Names are ASCII, so the order of UTF-16 units, which JavaScript compares by, is the byte order.
  const matching = all.filter((name) => name > after && name.startsWith(prefix)).sort();
  return { names: matching.slice(0, limit), more: matching.length > limit };
}
