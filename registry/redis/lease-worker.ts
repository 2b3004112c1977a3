/** Entry of the lease's thread: renews the lease of one incarnation with a connection of its own, while the main loop lives. */
import { parentPort, workerData } from 'node:worker_threads';
import { crc32 } from 'node:zlib';

import { assert } from '../../server/core/assert.ts';
import { errorCode } from '../../server/core/errors.ts';
import { processMonotonicMs, systemClock } from '../../server/core/node-time.ts';
import { LeaseMemory } from './lease-memory.ts';
import { LEASE_MARGIN_MS, type LeaseMessage, type LeaseWorkerData, RENEW_EVERY_MS } from './lease-protocol.ts';
import { LeaseRenewal } from './lease-renewal.ts';

/** How often it looks whether something is to be done. */
const STEP_MS = 100;

const port = parentPort;
assert(port !== null, 'the lease lives in a worker thread');
const data = workerData as LeaseWorkerData;
const memory = new LeaseMemory(data.buffer);
const renewal = new LeaseRenewal(systemClock, data, (identity) => {
  memory.identityCrc = crc32(identity) | 0;
});
port.on('message', () => {
  memory.end();
});

const post = (message: LeaseMessage): void => port.postMessage(message);

/** Runs until the lease is over. The deadline counts from before a renewal is sent, and a lease that lapsed is never renewed. */
async function keep(): Promise<void> {
  let beatSeen = memory.heartbeat;
  let nextAtMs = processMonotonicMs() + RENEW_EVERY_MS / 2;
  let trouble: string | null = null;
  while (!memory.isOver) {
    await new Promise<void>((resolve) => {
      systemClock.after(STEP_MS, resolve);
    });
    const nowMs = processMonotonicMs();
    if (nowMs >= memory.deadlineMs) {
      memory.end();
      post({ kind: 'over', code: 'lease-lapsed', message: `the lease lapsed: ${trouble ?? 'the main loop stood still'}` });
      return;
    }
    const beat = memory.heartbeat;
    if (nowMs < nextAtMs || beat === beatSeen) continue;
    try {
      const kind = await renewal.renew(memory.generation);
      if (kind === 'dead') {
        memory.end();
        post({ kind: 'over', code: 'incarnation-dead', message: `incarnation ${data.incarnation} was replaced or marked dead` });
        return;
      }
      // It came too late: what lapsed meanwhile stays so.
      if (processMonotonicMs() >= memory.deadlineMs) continue;
      memory.confirmedAtMs = nowMs;
      memory.deadlineMs = Math.max(memory.deadlineMs, nowMs + data.redis.leaseMs - LEASE_MARGIN_MS);
      beatSeen = beat;
      nextAtMs = nowMs + RENEW_EVERY_MS;
      trouble = null;
      post({ kind: 'renewed', durationMs: processMonotonicMs() - nowMs });
    } catch (error) {
      if (errorCode(error) === undefined) throw error;
      trouble = (error as Error).message;
      post({ kind: 'failed', message: trouble, durationMs: processMonotonicMs() - nowMs });
    }
  }
}

await keep();
renewal.close();
port.close();
