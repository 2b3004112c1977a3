/** Entry of a store worker: hosts one store and answers calls. What blocks here blocks nobody else (see `threaded-store.ts`). */
import { parentPort, type Transferable, workerData } from 'node:worker_threads';

import { assert } from '../../server/core/assert.ts';
import { makeStore } from '../make-store.ts';
import { type GetOutcome, StoreError } from '../object-store.ts';
import type { HostedStoreConfig } from './hosted-store.ts';
import type { FromWorker, Reply, StoreCall, ToWorker } from './protocol.ts';

assert(parentPort !== null, 'this file is the entry of a worker');
const port = parentPort;
const made = await makeStore(workerData as HostedStoreConfig);
const { store } = made;
const running = new Map<number, AbortController>();
let closing = false;

port.on('message', (message: ToWorker) => {
  switch (message.kind) {
    case 'call':
      void serve(message.id, message.call);
      return;
    case 'abort':
      // Reaches a call only in a store that awaits something; most of the directory store's calls are over before this is read.
      running.get(message.id)?.abort();
      return;
    case 'close':
      closing = true;
      void end();
  }
});

port.postMessage({ kind: 'ready' } satisfies FromWorker);

async function serve(id: number, call: StoreCall): Promise<void> {
  const controller = new AbortController();
  running.set(id, controller);
  let reply: Reply;
  let transfer: Transferable[] = [];
  try {
    const value = await perform(call, controller.signal);
    if (call.kind === 'get') transfer = ownMemory(value as GetOutcome);
    reply = { kind: 'done', id, value };
  } catch (error) {
    if (error instanceof StoreError) reply = { kind: 'failed', id, class: error.class, message: error.message };
    else reply = { kind: 'bug', id, message: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  }
  running.delete(id);
  port.postMessage(reply, transfer);
  await end();
}

/** After the last answer of a store that is being closed: its connections would keep the thread alive. */
async function end(): Promise<void> {
  if (!closing || running.size > 0) return;
  await made[Symbol.asyncDispose]();
  port.close();
}

function perform(call: StoreCall, signal: AbortSignal): Promise<unknown> {
  switch (call.kind) {
    case 'create-bucket':
      return store.createBucket(call.bucket, signal);
    case 'delete-bucket':
      return store.deleteBucket(call.bucket, signal);
    case 'list-buckets':
      return store.listBuckets(call.after, call.limit, signal);
    case 'put':
      return store.put(call.bucket, call.name, call.body, signal);
    case 'get':
      return store.get(call.bucket, call.name, call.range, signal);
    case 'head':
      return store.head(call.bucket, call.name, signal);
    case 'delete':
      return store.delete(call.bucket, call.name, signal);
    case 'delete-many':
      return store.deleteMany(call.bucket, call.names, signal);
    case 'list':
      return store.list(call.bucket, call.prefix, call.after, call.limit, signal);
  }
}

/** The memory of a result, to be handed over instead of copied, if nothing else lives in it. */
function ownMemory(outcome: GetOutcome): Transferable[] {
  if (outcome.kind === 'absent') return [];
  const { buffer } = outcome.bytes;
  return buffer instanceof ArrayBuffer && buffer.byteLength === outcome.bytes.byteLength ? [buffer] : [];
}
