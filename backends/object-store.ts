import { ApplianceError } from '../server/core/errors.ts';

/**
 * Port of a Storage Backend: immutable objects in buckets (design section 8, invariant 6).
 *
 * Contract
 * - Objects are write-once. `put` never replaces: a name that exists answers `exists` (where the store can tell) and the caller
 *   settles a lost answer by reading back.
 * - A `put` that resolved is durable. It is readable for sure only after a read-back: the store may be eventually consistent.
 * - In a bucket that is not there, get and head answer `absent`, delete is success, put and list reject with class `absent`.
 * - An aborted call rejects with class `retry`, the signal's reason as cause.
 * - `absent` means "not visible now", which is not "never written": who holds a name from a root waits and retries.
 * - Calls may run concurrently and in any number; wrappers bound them. Nothing is retried here (see `retrying-store.ts`).
 * - `signal` aborts the call; whether it had an effect is then unknown.
 * - Failures reject with `StoreError`, classed by what the caller should do.
 */
export interface ObjectStore {
  /** Human-readable name with no secret in it, for logs: `directory:/var/lib/vferry/backend`. */
  readonly description: string;
  /** Whether `put` is create-if-absent atomically, even among several writers: the fence strength `backend`. */
  readonly putIsAtomic: boolean;
  /** Makes a bucket; one that exists is success. */
  createBucket(bucket: string, signal?: AbortSignal): Promise<void>;
  /** Removes an empty bucket; an absent one is success. A bucket with objects rejects with class `denied`. */
  deleteBucket(bucket: string, signal?: AbortSignal): Promise<void>;
  /** Bucket names greater than `after` in byte order, at most `limit`. */
  listBuckets(after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }>;
  /** Creates an object; a missing bucket rejects with class `absent`. The body is borrowed until the promise settles. */
  put(bucket: string, name: string, body: ObjectBody, signal?: AbortSignal): Promise<'written' | 'exists'>;
  /** Whole object, or the bytes of `range`; a range past the end is cut there (possibly to nothing). The result is owned by the caller. */
  get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome>;
  head(bucket: string, name: string, signal?: AbortSignal): Promise<{ kind: 'found'; sizeBytes: number } | { kind: 'absent' }>;
  /** Deletes an object; an absent one is success. */
  delete(bucket: string, name: string, signal?: AbortSignal): Promise<void>;
  /** Deletes objects, at most `DELETE_MANY_MAX`; absent ones are success. When it rejects, some may be deleted: the whole call can be repeated. */
  deleteMany(bucket: string, names: readonly string[], signal?: AbortSignal): Promise<void>;
  /** Names with `prefix` greater than `after` in byte order, at most `limit`. May lag behind puts and deletes: never evidence of absence. */
  list(bucket: string, prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }>;
}

/** What S3 takes in one request. */
export const DELETE_MANY_MAX = 1000;

export interface ByteRange {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** Bytes in memory, or a part of a local file (so that an upload thread can read it without the main loop touching the payload). */
export type ObjectBody =
  | { readonly kind: 'bytes'; readonly chunks: readonly Uint8Array[] }
  | { readonly kind: 'file'; readonly path: string; readonly offsetBytes: number; readonly lengthBytes: number };

export type GetOutcome = { readonly kind: 'found'; readonly bytes: Buffer } | { readonly kind: 'absent' };

/** retry: later may work. absent: bucket missing. denied: credentials, policy, read-only. no-space: quota or disk full. corrupt: bytes are wrong. */
export type StoreErrorClass = 'retry' | 'absent' | 'denied' | 'no-space' | 'corrupt';

/** Its `code` is `store-` and the class. */
export class StoreError extends ApplianceError {
  readonly class: StoreErrorClass;

  constructor(errorClass: StoreErrorClass, message: string, cause?: unknown) {
    super(`store-${errorClass}`, message, { retryable: errorClass === 'retry', cause });
    this.name = 'StoreError';
    this.class = errorClass;
  }
}
