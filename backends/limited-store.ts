import { abortedError, throwIfAborted } from './abort.ts';
import { bodySizeBytes } from './object-body.ts';
import type { ByteRange, GetOutcome, ObjectBody, ObjectStore } from './object-store.ts';
import { UPLOAD_BYTES_MIN, type UploadPace } from './upload-pace.ts';

/** Each of the two lanes, reads (get, head) and all other requests, has these bounds for itself. */
export interface LimitSettings {
  /** Requests running at a time. */
  readonly concurrencyMax: number;
  /** Payload bytes of running requests together; one larger request runs alone. */
  readonly bytesInFlightMax: number;
  /** What a get without a range is counted as: its size is not known before the answer. */
  readonly wholeGetBytes: number;
}

export interface LaneLoad {
  readonly running: number;
  readonly runningBytes: number;
  /** Requests that wait for their turn. */
  readonly queued: number;
}

interface Waiting {
  readonly bytes: number;
  readonly start: () => void;
}

/**
 * Bounds the requests and bytes that are under way at `inner`. Who comes at the bound waits; the queue has one small entry per
 * waiting caller, and callers are bounded by what they hold while they wait. Buckets (volumes) take turns, and within a bucket it
 * is first come, first served: a volume with a thousand segments to upload delays another one by one request, not by a thousand.
 *
 * Uploads (puts of 1 MiB and more) are as many at a time as `pace` says.
 *
 * Reads have a lane of their own: uploads that wait for a full backend to get space, holding their places while the
 * RetryingStore below pauses, must not keep guests from reading what is there.
 */
export class LimitedStore implements ObjectStore {
  readonly #inner: ObjectStore;
  readonly #wholeGetBytes: number;
  readonly #reads: Lane;
  readonly #others: Lane;
  /** In front of `others`. */
  readonly #uploads: Lane;
  readonly #pace: Pick<UploadPace, 'limit'> | null;

  constructor(inner: ObjectStore, settings: LimitSettings, pace: Pick<UploadPace, 'limit'> | null = null) {
    this.#inner = inner;
    this.#wholeGetBytes = settings.wholeGetBytes;
    this.#pace = pace;
    this.#reads = new Lane(settings.bytesInFlightMax, () => settings.concurrencyMax);
    this.#others = new Lane(settings.bytesInFlightMax, () => settings.concurrencyMax);
    this.#uploads = new Lane(Infinity, () => pace?.limit ?? Infinity);
  }

  get description(): string {
    return this.#inner.description;
  }

  get putIsAtomic(): boolean {
    return this.#inner.putIsAtomic;
  }

  /** For metrics: of each lane. */
  get lanes(): { reads: LaneLoad; others: LaneLoad } {
    const others = this.#others.load;
    return { reads: this.#reads.load, others: { ...others, queued: others.queued + this.#uploads.load.queued } };
  }

  /** Of both lanes together. */
  get load(): LaneLoad {
    const { reads, others } = this.lanes;
    return {
      running: reads.running + others.running,
      runningBytes: reads.runningBytes + others.runningBytes,
      queued: reads.queued + others.queued,
    };
  }

  createBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    return this.#others.run(bucket, 0, `create bucket ${bucket}`, signal, () => this.#inner.createBucket(bucket, signal));
  }

  deleteBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    return this.#others.run(bucket, 0, `delete bucket ${bucket}`, signal, () => this.#inner.deleteBucket(bucket, signal));
  }

  listBuckets(after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    return this.#others.run('', 0, 'list buckets', signal, () => this.#inner.listBuckets(after, limit, signal));
  }

  put(bucket: string, name: string, body: ObjectBody, signal?: AbortSignal): Promise<'written' | 'exists'> {
    const what = `put ${bucket}/${name}`;
    const bytes = bodySizeBytes(body);
    const put = (): Promise<'written' | 'exists'> => this.#inner.put(bucket, name, body, signal);
    if (this.#pace === null || bytes < UPLOAD_BYTES_MIN) return this.#others.run(bucket, bytes, what, signal, put);
    return this.#uploads.run(bucket, 0, what, signal, () => this.#others.run(bucket, bytes, what, signal, put));
  }

  get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
    const bytes = range?.lengthBytes ?? this.#wholeGetBytes;
    return this.#reads.run(bucket, bytes, `get ${bucket}/${name}`, signal, () => this.#inner.get(bucket, name, range, signal));
  }

  head(bucket: string, name: string, signal?: AbortSignal): Promise<{ kind: 'found'; sizeBytes: number } | { kind: 'absent' }> {
    return this.#reads.run(bucket, 0, `head ${bucket}/${name}`, signal, () => this.#inner.head(bucket, name, signal));
  }

  delete(bucket: string, name: string, signal?: AbortSignal): Promise<void> {
    return this.#others.run(bucket, 0, `delete ${bucket}/${name}`, signal, () => this.#inner.delete(bucket, name, signal));
  }

  deleteMany(bucket: string, names: readonly string[], signal?: AbortSignal): Promise<void> {
    return this.#others.run(bucket, 0, `delete ${names.length} objects of ${bucket}`, signal, () => this.#inner.deleteMany(bucket, names, signal));
  }

  list(bucket: string, prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    return this.#others.run(bucket, 0, `list ${bucket}`, signal, () => this.#inner.list(bucket, prefix, after, limit, signal));
  }
}

/** One queue with its bounds. */
class Lane {
  readonly #bytesInFlightMax: number;
  readonly #concurrencyMax: () => number;
  /** Waiting requests by bucket; the first bucket is next, and goes to the end when it was served. */
  readonly #queues = new Map<string, Set<Waiting>>();
  #running = 0;
  #runningBytes = 0;
  #queued = 0;

  constructor(bytesInFlightMax: number, concurrencyMax: () => number) {
    this.#bytesInFlightMax = bytesInFlightMax;
    this.#concurrencyMax = concurrencyMax;
  }

  get load(): LaneLoad {
    return { running: this.#running, runningBytes: this.#runningBytes, queued: this.#queued };
  }

  /** Runs `request` when it is its turn. */
  async run<T>(bucket: string, bytes: number, what: string, signal: AbortSignal | undefined, request: () => Promise<T>): Promise<T> {
    throwIfAborted(signal, what);
    if (this.#queued > 0 || !this.#fits(bytes)) await this.#turn(bucket, bytes, what, signal);
    else this.#enter(bytes);
    try {
      return await request();
    } finally {
      this.#running -= 1;
      this.#runningBytes -= bytes;
      this.#startWaiting();
    }
  }

  #fits(bytes: number): boolean {
    if (this.#running === 0) return true;
    return this.#running < this.#concurrencyMax() && this.#runningBytes + bytes <= this.#bytesInFlightMax;
  }

  #enter(bytes: number): void {
    this.#running += 1;
    this.#runningBytes += bytes;
  }

  /** Resolves when it is this request's turn; its place is then taken already. */
  #turn(bucket: string, bytes: number, what: string, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiting: Waiting = {
        bytes,
        start: () => {
          signal?.removeEventListener('abort', onAbort);
          resolve();
        },
      };
      const onAbort = (): void => {
        this.#leaveQueue(bucket, waiting);
        // It may have been the one that was too large to fit while those behind it do.
        this.#startWaiting();
        if (signal !== undefined) reject(abortedError(signal, what));
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      const queue = this.#queues.get(bucket);
      if (queue === undefined) this.#queues.set(bucket, new Set([waiting]));
      else queue.add(waiting);
      this.#queued += 1;
    });
  }

  #leaveQueue(bucket: string, waiting: Waiting): void {
    const queue = this.#queues.get(bucket);
    if (queue === undefined || !queue.delete(waiting)) return;
    this.#queued -= 1;
    if (queue.size === 0) this.#queues.delete(bucket);
  }

  #startWaiting(): void {
    for (;;) {
      const [next] = this.#queues;
      if (next === undefined) return;
      const [bucket, queue] = next;
      const [waiting] = queue;
      // Strictly in turn: smaller requests do not overtake a large one, or it would never start.
      if (waiting === undefined || !this.#fits(waiting.bytes)) return;
      this.#leaveQueue(bucket, waiting);
      if (queue.size > 0) {
        this.#queues.delete(bucket);
        this.#queues.set(bucket, queue);
      }
      this.#enter(waiting.bytes);
      waiting.start();
    }
  }
}
