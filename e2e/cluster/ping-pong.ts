/** An object that goes from router to router while both sides use it as hard as they can; what everybody reads must be what a register can show. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';

import { Stability, Status } from '../../server/nfsd/file-system.ts';
import { fillStamp } from '../crash/stamp.ts';
import { connectStore } from '../datastore-client.ts';
import { connectPatiently, Patience } from '../patient-client.ts';
import { REGISTERS_BYTES, RegisterLoad } from '../register-load.ts';
import type { StoreClient } from '../store-client.ts';
import type { ClusterRouter } from './cluster-router.ts';
import type { Cluster } from './cluster.ts';
import { Stalls, timedClient } from './timed-client.ts';

export interface PingPongOptions {
  readonly moves: number;
  readonly seed: number;
  readonly name: string;
  /** Half of them at A, half at B. Default 16. */
  readonly connections?: number;
  /** Requests under way on each. Default 32. */
  readonly lanes?: number;
  /** Default false: JUKEBOX is an error like any other. */
  readonly patient?: boolean;
  /** Between two moves. Default 200 ms. */
  readonly pauseMs?: number;
  /** Written behind what the load uses, before the first move, and read at the end. Default 0; a multiple of 256 KiB. */
  readonly filledBytes?: number;
  /** Called before each move of the router that owns the object. */
  readonly beforeMove?: (owner: ClusterRouter) => Promise<void>;
  /** Told every 20 moves. */
  readonly progress?: (line: string) => void;
  /** After this time four moves are enough: a slow machine takes a minute for each. Default: all are made. */
  readonly enoughAfterMs?: number;
  /** How long a move may take. Default: four minutes. */
  readonly moveMsMax?: number;
}

export interface PingPongResult {
  readonly operations: number;
  readonly jukebox: number;
  /** Longest operation in each pause between moves, in milliseconds, sorted: what so many of them take without a move. */
  readonly quietMs: readonly number[];
  /** Longest operation around each move, in milliseconds, sorted. */
  readonly stallsMs: readonly number[];
  /** How long I/O was held, as the routers say, sorted. */
  readonly heldMs: readonly number[];
  readonly tookMs: readonly number[];
  /** Of each move, sorted. */
  readonly copiedBytes: readonly number[];
}

const FILL_BYTES = 256 * 1024;

/** @throws AssertionError when an answer cannot be explained, Error when a move does not happen. */
export async function pingPong(cluster: Cluster, options: PingPongOptions): Promise<PingPongResult> {
  const [a, b] = cluster.pair;
  const { operator } = cluster;
  const patience = new Patience();
  const stalls = new Stalls();
  const clients: StoreClient[] = [];
  try {
    for (let index = 0; index < (options.connections ?? 16); index += 1) {
      const address = (index % 2 === 0 ? a : b).process;
      const client = options.patient === true ? await connectPatiently(address, {}, patience) : await connectStore(address, { timeoutMs: 240_000 });
      clients.push(timedClient(client, stalls));
    }
    const [first, second] = clients;
    if (first === undefined || second === undefined) throw new Error('two clients at least');
    const load = await RegisterLoad.create(first, options.seed, options.name);
    await fill(first, load, options.filledBytes ?? 0);
    let over = false;
    const running = load.runUntil(clients, options.lanes ?? 32, () => over);
    running.catch(() => (over = true));
    const path = `/${options.name}`;
    const seen = { quietMs: [] as number[], stallsMs: [] as number[], heldMs: [] as number[], tookMs: [] as number[], copiedBytes: [] as number[] };
    try {
      await operator.waitForOwner(path, a);
      const startedMs = performance.now();
      for (let move = 0; move < options.moves && !over; move += 1) {
        if (move >= 4 && performance.now() - startedMs > (options.enoughAfterMs ?? Infinity)) break;
        await new Promise((resolve) => setTimeout(resolve, options.pauseMs ?? 200));
        const [from, to] = move % 2 === 0 ? [a, b] : [b, a];
        await options.beforeMove?.(from);
        seen.quietMs.push(stalls.take().longestMs);
        const began = performance.now();
        const report = await operator.move(path, to, options.moveMsMax);
        seen.tookMs.push(performance.now() - began);
        seen.stallsMs.push(stalls.take().longestMs);
        if (report?.heldMs !== null && report?.heldMs !== undefined) seen.heldMs.push(report.heldMs);
        if (report !== null) seen.copiedBytes.push(report.copiedBytes);
        if (move % 20 === 19) options.progress?.(`${move + 1} moves, longest operation so far ${Math.round(Math.max(...seen.stallsMs))} ms`);
      }
    } finally {
      over = true;
    }
    const operations = await running;
    for (const client of [first, second]) {
      await load.check(client);
      await checkFilled(client, load, options.filledBytes ?? 0);
    }
    const sorted = (values: readonly number[]): number[] => values.toSorted((one, other) => one - other);
    return {
      operations,
      jukebox: patience.times,
      quietMs: sorted(seen.quietMs),
      stallsMs: sorted(seen.stallsMs),
      heldMs: sorted(seen.heldMs),
      tookMs: sorted(seen.tookMs),
      copiedBytes: sorted(seen.copiedBytes),
    };
  } finally {
    await Promise.all(clients.map((client) => client[Symbol.asyncDispose]()));
  }
}

async function fill(client: StoreClient, load: RegisterLoad, bytes: number): Promise<void> {
  for (let at = 0; at < bytes; at += FILL_BYTES) {
    const answer = await client.write(load.handle, REGISTERS_BYTES + at, filled(at), Stability.FILE_SYNC);
    assert.deepEqual([answer.status, answer.countBytes], [Status.OK, FILL_BYTES]);
  }
}

async function checkFilled(client: StoreClient, load: RegisterLoad, bytes: number): Promise<void> {
  for (let at = 0; at < bytes; at += FILL_BYTES) {
    const answer = await client.read(load.handle, REGISTERS_BYTES + at, FILL_BYTES);
    assert.ok(
      answer.status === Status.OK && answer.data.equals(filled(at)),
      `what was written behind the load is not there: +${at}, status ${answer.status}`,
    );
  }
}

function filled(at: number): Buffer {
  const data = Buffer.alloc(FILL_BYTES);
  fillStamp(data, 2, 1, REGISTERS_BYTES + at);
  return data;
}

export function tell(t: Pick<TestContext, 'diagnostic'>, what: string, result: PingPongResult): void {
  const of = (values: readonly number[]): string => {
    const at = (share: number): string => (values[Math.min(values.length - 1, Math.floor(values.length * share))] ?? Number.NaN).toFixed(0);
    return `median ${at(0.5)}, p99 ${at(0.99)}, max ${at(1)} ms`;
  };
  t.diagnostic(`${what}: ${result.tookMs.length} moves under ${result.operations} checked operations, ${result.jukebox} told to come back`);
  t.diagnostic(
    `${what}: longest operation around a move: ${of(result.stallsMs)}, without one: ${of(result.quietMs)}; I/O held: ${of(result.heldMs)}; a move: ${of(result.tookMs)}`,
  );
}
