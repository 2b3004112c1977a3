/** An object that goes from router to router while both sides use it as hard as they can; what everybody reads must be what a register can show. */
import type { TestContext } from 'node:test';

import { connectStore } from '../datastore-client.ts';
import { connectPatiently, Patience } from '../patient-client.ts';
import { RegisterLoad } from '../register-load.ts';
import type { StoreClient } from '../store-client.ts';
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
}

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
      const client = options.patient === true ? await connectPatiently(address, {}, patience) : await connectStore(address, { timeoutMs: 60_000 });
      clients.push(timedClient(client, stalls));
    }
    const [first, second] = clients;
    if (first === undefined || second === undefined) throw new Error('two clients at least');
    const load = await RegisterLoad.create(first, options.seed, options.name);
    let over = false;
    const running = load.runUntil(clients, options.lanes ?? 32, () => over);
    running.catch(() => (over = true));
    const path = `/${options.name}`;
    const seen = { quietMs: [] as number[], stallsMs: [] as number[], heldMs: [] as number[], tookMs: [] as number[] };
    try {
      await operator.waitForOwner(path, a);
      for (let move = 0; move < options.moves && !over; move += 1) {
        await new Promise((resolve) => setTimeout(resolve, options.pauseMs ?? 200));
        seen.quietMs.push(stalls.take().longestMs);
        const began = performance.now();
        const report = await operator.move(path, move % 2 === 0 ? b : a);
        seen.tookMs.push(performance.now() - began);
        seen.stallsMs.push(stalls.take().longestMs);
        if (report?.heldMs !== null && report?.heldMs !== undefined) seen.heldMs.push(report.heldMs);
      }
    } finally {
      over = true;
    }
    const operations = await running;
    await load.check(first);
    await load.check(second);
    const sorted = (values: readonly number[]): number[] => values.toSorted((one, other) => one - other);
    return {
      operations,
      jukebox: patience.times,
      quietMs: sorted(seen.quietMs),
      stallsMs: sorted(seen.stallsMs),
      heldMs: sorted(seen.heldMs),
      tookMs: sorted(seen.tookMs),
    };
  } finally {
    await Promise.all(clients.map((client) => client[Symbol.asyncDispose]()));
  }
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
