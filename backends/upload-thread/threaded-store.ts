/**
 * An ObjectStore whose work is done by worker threads, so that neither a hanging file server nor signing and TLS ever stop
 * the NFS loop, and libuv's pool stays free for the segment log. Bodies of kind `file` cross as paths, results of get without a copy.
 *
 * Scheduling: slow calls (everything but get and head) leave one thread free if there are two or more, so that a guest's read never waits
 * behind an upload, be it in a system call of the directory store or for the CPU that digests and encrypts. Of a store that blocks its thread
 * a thread does one slow call at a time; of one that waits for a network, many. Otherwise the least busy thread gets the next call. At most
 * `pipelineDepth` calls are at a thread; the others wait here, first come, first served, and leave at once when aborted.
 *
 * A thread that ends unexpectedly rejects its calls as `retry` and is replaced, after a growing pause if it does so again and again.
 */
import { Buffer } from 'node:buffer';

import { assert } from '../../server/core/assert.ts';
import type { Logger } from '../../server/core/logger.ts';
import type { Clock } from '../../server/core/time.ts';
import { abortedError, throwIfAborted } from '../abort.ts';
import { type ByteRange, type GetOutcome, type ObjectBody, type ObjectStore, StoreError } from '../object-store.ts';
import { describeHostedStore, type HostedStoreConfig } from './hosted-store.ts';
import type { StoreCall } from './protocol.ts';
import { type PendingCall, startStoreWorker, type StartWorker, StoreThread } from './store-thread.ts';

export interface ThreadedStoreSettings {
  readonly store: HostedStoreConfig;
  /** Worker threads. Default 2: one for uploads, both for reads. */
  readonly threads?: number;
  /** Calls sent to one thread before it answered the first. Default 4 where they follow each other (it hides the 50 us that waking it takes), 64 on a network. */
  readonly pipelineDepth?: number;
}

/** A thread that lived this long is replaced at once; a shorter life doubles the pause before its successor. */
const HEALTHY_AFTER_MS = 10_000;
const RESTART_DELAY_MS_MIN = 100;
const RESTART_DELAY_MS_MAX = 10_000;
/** How long `close` waits for running calls. */
const CLOSE_WITHIN_MS = 2000;
const PIPELINE_DEPTH_BLOCKING = 4;
const PIPELINE_DEPTH_NETWORK = 64;
const SLOW_PER_THREAD_NETWORK = 16;

export class ThreadedStore implements ObjectStore, AsyncDisposable {
  readonly description: string;
  readonly putIsAtomic: boolean;
  readonly #config: HostedStoreConfig;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #startWorker: StartWorker;
  readonly #threadCount: number;
  readonly #pipelineDepth: number;
  readonly #slowPerThread: number;
  readonly #threads = new Set<StoreThread>();
  readonly #fastQueue = new Set<PendingCall>();
  readonly #slowQueue = new Set<PendingCall>();
  readonly #restarts = new Set<() => void>();
  #restartDelayMs = 0;
  #nextId = 1;
  #closed = false;

  constructor(components: { clock: Clock; logger: Logger; startWorker?: StartWorker }, settings: ThreadedStoreSettings) {
    // Threads are started at any time, also while the backend is not mounted: they must never take a bare mount point for a new backend.
    const { store } = settings.store;
    assert(store.kind !== 'directory' || !store.initialize, 'the backend is initialized before its threads start');
    const { description, putIsAtomic, blocks } = describeHostedStore(settings.store);
    this.description = description;
    this.putIsAtomic = putIsAtomic;
    this.#config = settings.store;
    this.#clock = components.clock;
    this.#logger = components.logger;
    this.#startWorker = components.startWorker ?? startStoreWorker;
    this.#threadCount = Math.max(1, settings.threads ?? 2);
    this.#pipelineDepth = Math.max(1, settings.pipelineDepth ?? (blocks ? PIPELINE_DEPTH_BLOCKING : PIPELINE_DEPTH_NETWORK));
    this.#slowPerThread = blocks ? 1 : SLOW_PER_THREAD_NETWORK;
    for (let count = 0; count < this.#threadCount; count += 1) this.#startThread();
  }

  /** For metrics. */
  get load(): { threads: number; running: number; queued: number } {
    let running = 0;
    for (const thread of this.#threads) running += thread.load;
    return { threads: this.#threads.size, running, queued: this.#fastQueue.size + this.#slowQueue.size };
  }

  createBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    return this.#call({ kind: 'create-bucket', bucket }, signal);
  }

  deleteBucket(bucket: string, signal?: AbortSignal): Promise<void> {
    return this.#call({ kind: 'delete-bucket', bucket }, signal);
  }

  listBuckets(after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    return this.#call({ kind: 'list-buckets', after, limit }, signal);
  }

  /** See the port. The file of a `file` body must not change before the object was read back, also after an abort: the thread may still read it. */
  put(bucket: string, name: string, body: ObjectBody, signal?: AbortSignal): Promise<'written' | 'exists'> {
    return this.#call({ kind: 'put', bucket, name, body }, signal);
  }

  async get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
    const outcome = await this.#call<{ kind: 'absent' } | { kind: 'found'; bytes: Uint8Array }>({ kind: 'get', bucket, name, range }, signal);
    if (outcome.kind === 'absent') return outcome;
    const { bytes } = outcome;
    return { kind: 'found', bytes: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength) };
  }

  head(bucket: string, name: string, signal?: AbortSignal): Promise<{ kind: 'found'; sizeBytes: number } | { kind: 'absent' }> {
    return this.#call({ kind: 'head', bucket, name }, signal);
  }

  delete(bucket: string, name: string, signal?: AbortSignal): Promise<void> {
    return this.#call({ kind: 'delete', bucket, name }, signal);
  }

  deleteMany(bucket: string, names: readonly string[], signal?: AbortSignal): Promise<void> {
    return this.#call({ kind: 'delete-many', bucket, names }, signal);
  }

  list(bucket: string, prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<{ names: string[]; more: boolean }> {
    return this.#call({ kind: 'list', bucket, prefix, after, limit }, signal);
  }

  /**
   * Rejects what waits, lets running calls finish for up to 2 s, ends the threads. Returns how many hang in a system call and
   * were left behind: they keep the process from exiting (Node joins its threads), so the caller has to end it with a signal.
   */
  async close(): Promise<{ stuckThreads: number }> {
    this.#closed = true;
    for (const cancel of this.#restarts) cancel();
    for (const queue of [this.#fastQueue, this.#slowQueue]) {
      for (const pending of queue) pending.reject(new StoreError('retry', `${pending.call.kind}: ${this.description} is closed`));
      queue.clear();
    }
    const ended = Promise.all([...this.#threads].map((thread) => thread.close()));
    let cancelTimer = (): void => {};
    const late = new Promise<void>((resolve) => {
      cancelTimer = this.#clock.after(CLOSE_WITHIN_MS, resolve);
    });
    await Promise.race([ended, late]);
    cancelTimer();
    const stuckThreads = this.#threads.size;
    for (const thread of this.#threads) thread.letGo();
    return { stuckThreads };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #call<T>(call: StoreCall, signal: AbortSignal | undefined): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      throwIfAborted(signal, call.kind);
      if (this.#closed) throw new StoreError('retry', `${call.kind}: ${this.description} is closed`);
      const onAbort = (): void => {
        this.#abandon(pending);
        if (signal !== undefined) reject(abortedError(signal, call.kind));
      };
      const settled = (): void => signal?.removeEventListener('abort', onAbort);
      const pending: PendingCall = {
        id: this.#nextId,
        call,
        slow: call.kind !== 'get' && call.kind !== 'head',
        abandoned: false,
        resolve: (value) => {
          settled();
          resolve(value as T);
        },
        reject: (error) => {
          settled();
          reject(error);
        },
      };
      this.#nextId += 1;
      signal?.addEventListener('abort', onAbort, { once: true });
      (pending.slow ? this.#slowQueue : this.#fastQueue).add(pending);
      this.#dispatch();
    });
  }

  #abandon(pending: PendingCall): void {
    const queue = pending.slow ? this.#slowQueue : this.#fastQueue;
    if (queue.delete(pending)) return;
    for (const thread of this.#threads) if (thread.has(pending)) thread.abandon(pending);
    // A slow call that nobody waits for no longer counts as an upload in progress.
    this.#dispatch();
  }

  #dispatch(): void {
    for (const pending of this.#fastQueue) {
      // Behind a slow call only where there is nothing else: with more threads one is free of them, or will be soon.
      const thread = this.#leastBusy((candidate) => candidate.slowLoad === 0 || this.#threadCount === 1);
      if (thread === null) break;
      this.#fastQueue.delete(pending);
      thread.send(pending);
    }
    for (const pending of this.#slowQueue) {
      let uploading = 0;
      for (const thread of this.#threads) if (thread.uploads) uploading += 1;
      const mayStart = uploading < Math.max(1, this.#threadCount - 1);
      const thread = this.#leastBusy((candidate) => candidate.slowLoad < this.#slowPerThread && (mayStart || candidate.uploads));
      if (thread === null) break;
      this.#slowQueue.delete(pending);
      thread.send(pending);
    }
  }

  /** The accepted thread with fewest calls; null when none has room. */
  #leastBusy(accepts: (thread: StoreThread) => boolean): StoreThread | null {
    let best: StoreThread | null = null;
    for (const thread of this.#threads) {
      const room = thread.ready && thread.load < this.#pipelineDepth;
      if (room && accepts(thread) && (best === null || thread.load < best.load)) best = thread;
    }
    return best;
  }

  #startThread(): void {
    const startedMs = this.#clock.monotonicMs();
    const thread = new StoreThread(this.#startWorker(this.#config), {
      onFree: () => this.#dispatch(),
      onExit: (ended, reason) => {
        this.#threads.delete(ended);
        if (!this.#closed) this.#replaceThread(reason, this.#clock.monotonicMs() - startedMs);
      },
    });
    this.#threads.add(thread);
  }

  #replaceThread(reason: string, livedMs: number): void {
    const healthy = livedMs >= HEALTHY_AFTER_MS;
    this.#restartDelayMs = healthy ? 0 : Math.min(RESTART_DELAY_MS_MAX, Math.max(RESTART_DELAY_MS_MIN, this.#restartDelayMs * 2));
    this.#logger.error(
      { store: this.description, reason, restartDelayMs: this.#restartDelayMs },
      "a store's thread ended unexpectedly; it is started again",
    );
    const cancel = this.#clock.after(this.#restartDelayMs, () => {
      this.#restarts.delete(cancel);
      this.#startThread();
    });
    this.#restarts.add(cancel);
  }
}
