/**
 * Random operations on files of every class, with everything so small that data is sealed, uploaded, checkpointed, evicted, recycled and reclaimed all
 * the time, against byte models; the router is stopped or killed between rounds, and fsck must find nothing. `SEED=n` repeats a run's choices, `ROUNDS=n`
 * makes it longer.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { connectStore } from './datastore-client.ts';
import { RandomActor } from './random-actor.ts';
import { SeededRandom } from './random.ts';
import { RouterProcess } from './router-process.ts';
import type { StoreClient } from './store-client.ts';

const TIGHT = {
  VFERRY_LOG_SEGMENT_BYTES: '4MiB',
  VFERRY_LOG_SEAL_AFTER_MS: '100ms',
  VFERRY_LOG_CHECKPOINT_AFTER_BYTES: '4MiB',
  VFERRY_VPOOL_GRACE_TIME_MS: '0s',
  VFERRY_CACHE_RAM_BYTES: '1MiB',
  VFERRY_CACHE_MAP_BYTES: '1MiB',
  VFERRY_CACHE_SSD_BYTES: '0',
};
const ACTORS = 6;
const ROUNDS = Number(process.env['ROUNDS'] ?? 3);
const ROUND_MS = Number(process.env['ROUND_MS'] ?? 1500);
const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));

for (const hardLinks of ['true', 'false']) {
  test(`random operations, restarts and kills leave what the models say (hardLinks ${hardLinks})`, async (t) => {
    t.diagnostic(`SEED=${SEED}`);
    const router = await RouterProcess.forTest(t, { environment: { ...TIGHT, VFERRY_VPOOL_BACKEND_HARD_LINKS: hardLinks } });
    const random = new SeededRandom(SEED);
    const actors = Array.from({ length: ACTORS }, (_, index) => new RandomActor(`actor-${index}`, new SeededRandom(Math.imul(SEED, 31) + index)));
    {
      await using client = await connectStore(router, { timeoutMs: 60_000 });
      for (const actor of actors) await actor.begin(client);
    }
    for (let round = 0; round < ROUNDS; round += 1) {
      // The last one ends well, so that fsck has everything before it.
      const clean = round === ROUNDS - 1 || random.chance(0.5);
      await runRound(router, actors, clean, random.between(ROUND_MS / 4, ROUND_MS));
      const { code, output } = await router.fsck();
      assert.equal(code, 0, `SEED=${SEED}, round ${round}, ${clean ? 'stopped' : 'killed'}: fsck\n${output}`);
      await router.start();
      await using client = await connectStore(router, { timeoutMs: 60_000 });
      for (const actor of actors) await actor.meet(client, clean);
    }
    t.diagnostic(`${actors.reduce((sum, actor) => sum + actor.operations, 0)} operations`);
    {
      await using client = await connectStore(router, { timeoutMs: 60_000 });
      for (const actor of actors) await actor.end(client);
    }
    await router.stop();
    assert.equal((await router.fsck()).code, 0, `SEED=${SEED}: fsck after everything was removed`);
  });
}

/** All actors work for `durationMs`; then the router is stopped (`clean`, when they are done) or killed (while they work). */
async function runRound(router: RouterProcess, actors: readonly RandomActor[], clean: boolean, durationMs: number): Promise<void> {
  const clients: StoreClient[] = [];
  let over = false;
  try {
    const working = actors.map(async (actor) => {
      const client = await connectStore(router, { timeoutMs: 60_000 });
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
