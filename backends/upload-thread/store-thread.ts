import { Worker } from 'node:worker_threads';

import { StoreError } from '../object-store.ts';
import type { HostedStoreConfig } from './hosted-store.ts';
import type { FromWorker, Reply, StoreCall } from './protocol.ts';

/** A call on its way: queued, then sent to one thread, then settled. */
export interface PendingCall {
  readonly id: number;
  readonly call: StoreCall;
  /** Uploads and everything else but get and head. */
  readonly slow: boolean;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
  /** The caller has gone (aborted): its promise is settled, but the thread may still be busy with it. */
  abandoned: boolean;
}

/** Makes the worker of a store; tests hand in their own to get hold of it. */
export type StartWorker = (config: HostedStoreConfig) => Worker;

export const startStoreWorker: StartWorker = (config) =>
  new Worker(new URL('./worker.ts', import.meta.url), { workerData: config, name: 'vferry-store' });

/** One worker from its start to its exit, and the calls that it has. */
export class StoreThread {
  readonly #worker: Worker;
  readonly #calls = new Map<number, PendingCall>();
  readonly #exited: Promise<void>;
  readonly #slow = new Set<PendingCall>();
  #failure: string | null = null;
  #ready = false;

  /** `onFree` is called when the thread may take another call, `onExit` once, after all calls that were left have been rejected as `retry`. */
  constructor(worker: Worker, events: { onFree: () => void; onExit: (thread: StoreThread, reason: string) => void }) {
    this.#worker = worker;
    worker.on('message', (message: FromWorker) => {
      if (message.kind === 'ready') this.#ready = true;
      else this.#settle(message);
      events.onFree();
    });
    worker.on('error', (error: unknown) => {
      this.#failure = error instanceof Error ? error.message : String(error);
    });
    this.#exited = new Promise((resolve) => {
      worker.on('exit', (code) => {
        const reason = this.#failure ?? `exit code ${code}`;
        for (const pending of this.#calls.values()) {
          pending.reject(new StoreError('retry', `${pending.call.kind}: the store's thread ended (${reason}); whether it had an effect is unknown`));
        }
        this.#calls.clear();
        this.#slow.clear();
        events.onExit(this, reason);
        resolve();
      });
    });
  }

  /** False until the worker runs and has made its store: one that fails in that has no calls to lose. */
  get ready(): boolean {
    return this.#ready;
  }

  /** Calls that the thread has, abandoned ones included: it is not free before it answered. */
  get load(): number {
    return this.#calls.size;
  }

  /** Slow calls that the thread has, abandoned ones included. */
  get slowLoad(): number {
    return this.#slow.size;
  }

  /** Whether somebody still waits for one of its slow calls. */
  get uploads(): boolean {
    for (const pending of this.#slow) if (!pending.abandoned) return true;
    return false;
  }

  /** Sends a call. The bytes of a body are copied into memory of their own, which is handed over. */
  send(pending: PendingCall): void {
    this.#calls.set(pending.id, pending);
    if (pending.slow) this.#slow.add(pending);
    const { call } = pending;
    if (call.kind === 'put' && call.body.kind === 'bytes') {
      // A view must not be posted as it is: the structured clone would copy the whole slab that it lies in.
      const bytes = concatenated(call.body.chunks);
      this.#worker.postMessage({ kind: 'call', id: pending.id, call: { ...call, body: { kind: 'bytes', chunks: [bytes] } } }, [bytes.buffer]);
    } else {
      this.#worker.postMessage({ kind: 'call', id: pending.id, call });
    }
  }

  /** Tells the worker that nobody waits for this call any more; the thread has it until it answers. */
  abandon(pending: PendingCall): void {
    pending.abandoned = true;
    this.#worker.postMessage({ kind: 'abort', id: pending.id });
  }

  has(pending: PendingCall): boolean {
    return this.#calls.has(pending.id);
  }

  /** Asks the worker to end when it has answered everything; resolves when it has. */
  close(): Promise<void> {
    this.#worker.postMessage({ kind: 'close' });
    return this.#exited;
  }

  /** For a worker that hangs in a system call: nothing can stop it, but it need not keep the event loop alive. */
  letGo(): void {
    this.#worker.unref();
    void this.#worker.terminate();
  }

  #settle(reply: Reply): void {
    const pending = this.#calls.get(reply.id);
    if (pending === undefined) return;
    this.#calls.delete(reply.id);
    this.#slow.delete(pending);
    switch (reply.kind) {
      case 'done':
        pending.resolve(reply.value);
        return;
      case 'failed':
        pending.reject(new StoreError(reply.class, reply.message));
        return;
      case 'bug':
        pending.reject(new Error(`bug in the store's thread: ${reply.message}`));
    }
  }
}

function concatenated(chunks: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  let total = 0;
  for (const chunk of chunks) total += chunk.byteLength;
  const bytes = new Uint8Array(total);
  let position = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, position);
    position += chunk.byteLength;
  }
  return bytes;
}
