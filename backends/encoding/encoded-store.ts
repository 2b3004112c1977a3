/**
 * Objects that are compressed and encrypted on their way to another store (docs/formats/encoded-object.md). Plaintext is cut in frames that are
 * encoded on their own, so a ranged read costs a request for its frames, and one more when the object's header is not known.
 *
 * What was written before encoding was switched on is read as it is, kinds and keys may be mixed: every object says how it was written. Works
 * synchronously on its frames: a router hosts it in a worker.
 */
import { abortedError, throwIfAborted } from '../abort.ts';
import { assertRange, requireNamesToDelete } from '../call-arguments.ts';
import { bodySizeBytes, readBody } from '../object-body.ts';
import { requireObjectName } from '../object-name.ts';
import { type ByteRange, type GetOutcome, type ObjectBody, type ObjectStore, StoreError } from '../object-store.ts';
import { decodeSpan, type FrameSpan, spanOf } from './decoder.ts';
import { encodeObject } from './encoder.ts';
import type { EncodingConfig } from './encoding-config.ts';
import { KeyRing, PUBLIC_KEY } from './key-ring.ts';
import { type KnownObject, LayoutCache } from './layout-cache.ts';
import { FIRST_READ_BYTES, looksEncoded, MAGIC_BYTES, type ObjectLayout, readHeader } from './object-header.ts';

/** Layouts of 6,000 segments of 16 MiB that are compressed: 100 GB. */
const CACHE_BYTES = 24 * 1024 * 1024;

type Head = { kind: 'found'; sizeBytes: number } | { kind: 'absent' };

/** What the beginning of an object told. */
interface FirstRead {
  readonly known: KnownObject;
  /** The object's first bytes, at most `FIRST_READ_BYTES`; fewer: it has no more. Empty when somebody else read it. */
  readonly bytes: Buffer;
}

/** See the module comment. `cacheBytes` bounds what is kept of objects' headers. */
export class EncodedStore implements ObjectStore {
  readonly description: string;
  readonly putIsAtomic: boolean;
  readonly #inner: ObjectStore;
  readonly #keys: KeyRing;
  readonly #isCompressed: boolean;
  readonly #refuseUnencrypted: boolean;
  readonly #cache: LayoutCache;
  /** First reads under way, so that many reads of an object that is not known do not all begin with one. */
  readonly #firstReads = new Map<string, Promise<unknown>>();

  /** @throws AssertionError when the key for new objects is not among the keys, or an id is not its key's. */
  constructor(inner: ObjectStore, config: EncodingConfig, cacheBytes: number = CACHE_BYTES) {
    this.#inner = inner;
    this.#keys = new KeyRing(config);
    this.#isCompressed = config.compression === 'zstd';
    this.#refuseUnencrypted = config.refuseUnencrypted ?? false;
    this.#cache = new LayoutCache(cacheBytes);
    this.description = inner.description;
    this.putIsAtomic = inner.putIsAtomic;
  }

  createBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    return this.#inner.createBucket(bucket, signal);
  }

  deleteBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    return this.#inner.deleteBucket(bucket, signal);
  }

  listBuckets(after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    return this.#inner.listBuckets(after, limit, signal);
  }

  async put(bucket: string, name: string, body: ObjectBody, signal?: AbortSignal): Promise<'written' | 'exists'> {
    requireObjectName(bucket, name);
    throwIfAborted(signal, `put ${bucket}/${name}`);
    const root = this.#keys.forWriting;
    this.#cache.delete(bucket, name);
    if (!this.#isCompressed && root === PUBLIC_KEY && !looksEncoded(await beginningOf(body))) {
      const outcome = await this.#inner.put(bucket, name, body, signal);
      if (outcome === 'written') this.#cache.set(bucket, name, 'plain');
      return outcome;
    }
    const { bytes, layout } = await encodeObject(bucket, name, body, this.#isCompressed, root, signal);
    const outcome = await this.#inner.put(bucket, name, { kind: 'bytes', chunks: [bytes] }, signal);
    // The head that follows a put needs no read then. What exists may be something else.
    if (outcome === 'written') this.#cache.set(bucket, name, layout);
    return outcome;
  }

  async get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
    requireObjectName(bucket, name);
    assertRange(range);
    const attempt = (): Promise<GetOutcome> =>
      range === undefined ? this.#getWhole(bucket, name, signal) : this.#getRange(bucket, name, range, signal);
    return this.#onceMore(bucket, name, attempt);
  }

  /** Size before encoding. The object's stored size is looked at too: an object that is cut off or longer is `corrupt`. */
  async head(bucket: string, name: string, signal?: AbortSignal): Promise<Head> {
    requireObjectName(bucket, name);
    return this.#onceMore(bucket, name, () => this.#head(bucket, name, signal));
  }

  async delete(bucket: string, name: string, signal?: AbortSignal): Promise<void> {
    requireObjectName(bucket, name);
    this.#cache.delete(bucket, name);
    return this.#inner.delete(bucket, name, signal);
  }

  async deleteMany(bucket: string, names: readonly string[], signal?: AbortSignal): Promise<void> {
    requireNamesToDelete(bucket, names);
    for (const name of names) this.#cache.delete(bucket, name);
    return this.#inner.deleteMany(bucket, names, signal);
  }

  list(bucket: string, prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    return this.#inner.list(bucket, prefix, after, limit, signal);
  }

  /** What does not fit may be a bit that flipped on the way, or a header of another version of the object: the second time it counts. */
  async #onceMore<T>(bucket: string, name: string, attempt: () => Promise<T>): Promise<T> {
    try {
      return await attempt();
    } catch (error) {
      this.#cache.delete(bucket, name);
      if (!(error instanceof StoreError) || error.class !== 'corrupt') throw error;
    }
    try {
      return await attempt();
    } catch (error) {
      this.#cache.delete(bucket, name);
      throw error;
    }
  }

  async #head(bucket: string, name: string, signal: AbortSignal | undefined): Promise<Head> {
    const stored = await this.#inner.head(bucket, name, signal);
    if (stored.kind === 'absent') return stored;
    const known = this.#cache.get(bucket, name) ?? (await this.#firstRead(bucket, name, signal))?.known;
    if (known === undefined) return { kind: 'absent' };
    if (known === 'plain') return stored;
    if (known.storedBytes !== stored.sizeBytes) {
      throw new StoreError('corrupt', `${bucket}/${name} has ${stored.sizeBytes} bytes instead of ${known.storedBytes}`);
    }
    return { kind: 'found', sizeBytes: known.parameters.plainBytes };
  }

  async #getWhole(bucket: string, name: string, signal: AbortSignal | undefined): Promise<GetOutcome> {
    const stored = await this.#inner.get(bucket, name, undefined, signal);
    if (stored.kind === 'absent') return stored;
    const known = await this.#learn(bucket, name, stored.bytes, signal);
    if (known === 'plain') return stored;
    if (known.storedBytes !== stored.bytes.byteLength) {
      throw new StoreError('corrupt', `${bucket}/${name} has ${stored.bytes.byteLength} bytes instead of ${known.storedBytes}`);
    }
    const span = spanOf(known, 0, known.parameters.plainBytes);
    return this.#decoded(bucket, name, known, span, stored.bytes.subarray(span.storedStart, span.storedEnd), signal);
  }

  async #getRange(bucket: string, name: string, range: ByteRange, signal: AbortSignal | undefined): Promise<GetOutcome> {
    throwIfAborted(signal, `get ${bucket}/${name}`);
    const cached = this.#cache.get(bucket, name);
    const first = cached === undefined ? await this.#firstRead(bucket, name, signal) : { known: cached, bytes: Buffer.alloc(0) };
    if (first === null) return { kind: 'absent' };
    const { known } = first;
    if (known === 'plain') return this.#getPlainRange(bucket, name, range, first.bytes, signal);

    const plainStart = Math.min(range.offsetBytes, known.parameters.plainBytes);
    const plainEnd = Math.min(plainStart + range.lengthBytes, known.parameters.plainBytes);
    const span = spanOf(known, plainStart, plainEnd);
    if (span.storedEnd <= first.bytes.byteLength) {
      return this.#decoded(bucket, name, known, span, first.bytes.subarray(span.storedStart, span.storedEnd), signal);
    }
    if (plainStart === plainEnd) {
      // Nothing to read, but whether the object is there must be asked.
      const head = await this.#inner.head(bucket, name, signal);
      return head.kind === 'absent' ? head : { kind: 'found', bytes: Buffer.alloc(0) };
    }
    const frames = { offsetBytes: span.storedStart, lengthBytes: span.storedEnd - span.storedStart };
    const stored = await this.#inner.get(bucket, name, frames, signal);
    if (stored.kind === 'absent') {
      this.#cache.delete(bucket, name);
      return stored;
    }
    return this.#decoded(bucket, name, known, span, stored.bytes, signal);
  }

  async #getPlainRange(bucket: string, name: string, range: ByteRange, first: Buffer, signal: AbortSignal | undefined): Promise<GetOutcome> {
    const end = range.offsetBytes + range.lengthBytes;
    const isAll = first.byteLength > 0 && first.byteLength < FIRST_READ_BYTES;
    if (!isAll && end > first.byteLength) return this.#inner.get(bucket, name, range, signal);
    const part = first.subarray(range.offsetBytes, end);
    const bytes = Buffer.allocUnsafeSlow(part.byteLength);
    bytes.set(part);
    return { kind: 'found', bytes };
  }

  async #decoded(
    bucket: string,
    name: string,
    layout: ObjectLayout,
    span: FrameSpan,
    stored: Buffer,
    signal: AbortSignal | undefined,
  ): Promise<GetOutcome> {
    return { kind: 'found', bytes: await decodeSpan(layout, span, stored, `${bucket}/${name}`, signal) };
  }

  /** Reads the beginning of an object that is not known, or waits for somebody who does; null: it is absent. */
  async #firstRead(bucket: string, name: string, signal: AbortSignal | undefined): Promise<FirstRead | null> {
    const key = `${bucket}/${name}`;
    const running = this.#firstReads.get(key);
    if (running !== undefined) {
      await settledOrAborted(running, signal, `get ${key}`);
      const known = this.#cache.get(bucket, name);
      if (known !== undefined) return { known, bytes: Buffer.alloc(0) };
    }
    const reading = this.#readBeginning(bucket, name, signal);
    const settled = reading.then(
      () => undefined,
      () => undefined,
    );
    this.#firstReads.set(key, settled);
    try {
      return await reading;
    } finally {
      if (this.#firstReads.get(key) === settled) this.#firstReads.delete(key);
    }
  }

  async #readBeginning(bucket: string, name: string, signal: AbortSignal | undefined): Promise<FirstRead | null> {
    const first = await this.#inner.get(bucket, name, { offsetBytes: 0, lengthBytes: FIRST_READ_BYTES }, signal);
    return first.kind === 'absent' ? null : { known: await this.#learn(bucket, name, first.bytes, signal), bytes: first.bytes };
  }

  /** Reads a header and keeps what it says. @throws StoreError as `readHeader`, and `corrupt` for what must be encrypted and is not. */
  async #learn(bucket: string, name: string, beginning: Buffer, signal: AbortSignal | undefined): Promise<KnownObject> {
    const layout = readHeader(beginning, bucket, name, this.#keys);
    if (this.#refuseUnencrypted && (layout === null || layout.parameters.keyId === null)) {
      throw new StoreError('corrupt', `${bucket}/${name} is not encrypted, and in this vPool every object is: somebody else put it there`);
    }
    if (layout === null && beginning.byteLength < MAGIC_BYTES) {
      // So little of an answer does not tell a plain object from an encoded one that was cut off.
      const head = await this.#inner.head(bucket, name, signal);
      if (head.kind === 'absent' || head.sizeBytes !== beginning.byteLength) {
        throw new StoreError('corrupt', `${bucket}/${name}: the answer ended after ${beginning.byteLength} bytes`);
      }
    }
    const known = layout ?? 'plain';
    this.#cache.set(bucket, name, known);
    return known;
  }
}

/** The first bytes of a body, as many as `looksEncoded` looks at. */
async function beginningOf(body: ObjectBody): Promise<Buffer> {
  if (body.kind === 'file') return readBody({ ...body, lengthBytes: Math.min(body.lengthBytes, MAGIC_BYTES) });
  const size = Math.min(bodySizeBytes(body), MAGIC_BYTES);
  const beginning = Buffer.alloc(size);
  let position = 0;
  for (const chunk of body.chunks) {
    if (position === size) break;
    const part = chunk.subarray(0, size - position);
    beginning.set(part, position);
    position += part.byteLength;
  }
  return beginning;
}

/** Waits for a promise that never rejects. @throws StoreError when the signal fires before. */
function settledOrAborted(promise: Promise<unknown>, signal: AbortSignal | undefined, what: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(abortedError(signal as AbortSignal, what));
    if (signal?.aborted === true) {
      onAbort();
      return;
    }
    signal?.addEventListener('abort', onAbort, { once: true });
    void promise.then(() => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
  });
}
