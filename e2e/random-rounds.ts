/**
 * Rounds of random operations on files of every class, against byte models, each ended by a stop or a kill, fsck and a new start. Everything is so small
 * that data is sealed, uploaded, checkpointed, evicted, recycled and reclaimed all the time.
 */
import assert from 'node:assert/strict';

import { connectPatiently } from './patient-client.ts';
import { RandomActor } from './random-actor.ts';
import { SeededRandom } from './random.ts';
import type { RouterProcess } from './router-process.ts';
import type { StoreClient } from './store-client.ts';

export const TIGHT_SETTINGS: Readonly<Record<string, string>> = {
  VFERRY_LOG_SEGMENT_BYTES: '4MiB',
  VFERRY_LOG_SEAL_AFTER_MS: '100ms',
  VFERRY_LOG_CHECKPOINT_AFTER_BYTES: '4MiB',
  VFERRY_VPOOL_GRACE_TIME_MS: '0s',
  VFERRY_CACHE_RAM_BYTES: '1MiB',
  VFERRY_CACHE_MAP_BYTES: '1MiB',
  VFERRY_CACHE_SSD_BYTES: '0',
};

const ACTORS = 6;
const PATIENCE_MS = 240_000;

export interface RandomRounds {
  /** Ready. It is stopped at the end. */
  readonly router: RouterProcess;
  readonly seed: number;
  readonly rounds: number;
  /** Longest time of a round's operations. */
  readonly roundMs: number;
  /** Around every fsck, for faults that it is not meant to meet. */
  readonly fairWeather?: { begin(): void; end(): void };
}

/** @throws AssertionError when a file is not what its model says, or fsck finds anything. Returns how many operations were answered. */
export async function randomRounds(options: RandomRounds): Promise<number> {
  const { router, seed, rounds, roundMs } = options;
  const random = new SeededRandom(seed);
  const actors = Array.from({ length: ACTORS }, (_, index) => new RandomActor(`actor-${index}`, new SeededRandom(Math.imul(seed, 31) + index)));
  {
    await using client = await connectPatiently(router, { timeoutMs: PATIENCE_MS });
    for (const actor of actors) await actor.begin(client);
  }
  for (let round = 0; round < rounds; round += 1) {
    // The last one ends well, so that fsck has everything before it.
    const clean = round === rounds - 1 || random.chance(0.5);
    await runRound(router, actors, clean, random.between(roundMs / 4, roundMs));
    await checked(options, `SEED=${seed}, round ${round}, ${clean ? 'stopped' : 'killed'}`);
    await router.start();
    await using client = await connectPatiently(router, { timeoutMs: PATIENCE_MS });
    for (const actor of actors) await actor.meet(client, clean);
  }
  {
    await using client = await connectPatiently(router, { timeoutMs: PATIENCE_MS });
    for (const actor of actors) await actor.end(client);
  }
  await router.stop();
  await checked(options, `SEED=${seed}, after everything was removed`);
  return actors.reduce((sum, actor) => sum + actor.operations, 0);
}

async function checked({ router, fairWeather }: RandomRounds, when: string): Promise<void> {
  fairWeather?.begin();
  const { code, output } = await router.fsck();
  assert.equal(code, 0, `${when}: fsck\n${output}`);
  fairWeather?.end();
}

/** All actors work for `durationMs`; then the router is stopped (`clean`, when they are done) or killed (while they work). */
async function runRound(router: RouterProcess, actors: readonly RandomActor[], clean: boolean, durationMs: number): Promise<void> {
  const clients: StoreClient[] = [];
  let over = false;
  try {
    const working = actors.map(async (actor) => {
      const client = await connectPatiently(router, { timeoutMs: PATIENCE_MS });
      clients.push(client);
      actor.attach(client);
      while (!over && (await actor.step()));
    });
    const timer = setTimeout(() => {
      over = clean;
      if (!clean) void router.kill();
    }, durationMs);
    await Promise.all(working).finally(() => clearTimeout(timer));
    if (clean) await router.stop();
    else await router.exited();
  } finally {
    for (const client of clients) await client[Symbol.asyncDispose]();
  }
}
