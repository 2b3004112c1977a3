/**
 * What a move of an object costs below the object-router, without a network: `node bench/object-move.ts [moves]`. Two drivers on real directories (below
 * TMPDIR), one SQLite registry, a store in memory. The stall is the time from the hold at the giver to the first answered write at the receiver.
 */
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { DrivenObject } from '../server/object-router/driver-port.ts';
import { RealRouters } from '../server/volume-driver/testing/real-routers.ts';
import type { MoveTimes, RealRouter } from '../server/volume-driver/testing/real-routers.ts';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
const BLOCK = 4096;
const OUTSTANDING = 32;
const moves = Number(process.argv[2] ?? 100);
const NOW = { seconds: 1_700_000_000, nanoseconds: 0 };

const routers = await RealRouters.open(await mkdtemp(join(tmpdir(), 'vferry-object-move-')), {
  segmentBytes: 16 * MIB,
  dirtyBytesMax: 4 * GIB,
  checkpointAfterBytes: GIB,
});
let storeBytes = 0;
let storeRequests = 0;
const get = routers.store.get.bind(routers.store);
routers.store.get = async (...call: Parameters<typeof get>) => {
  const answer = await get(...call);
  storeRequests += 1;
  if (answer.kind === 'found') storeBytes += answer.bytes.length;
  return answer;
};

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}

async function put(object: DrivenObject, block: number, count = 1): Promise<void> {
  const change = await object.write(block * BLOCK, count * BLOCK, [Buffer.alloc(count * BLOCK, (block % 255) + 1)], true, NOW);
  if (change.kind === 'refused') throw change.error;
}

/** Writes at `OUTSTANDING` blocks in `lanes` ways until `isOver`. What is held is not counted. */
function writers(object: DrivenObject, blocks: number, isOver: () => boolean): Promise<unknown> {
  let next = 0;
  const lane = async (): Promise<void> => {
    while (!isOver()) {
      next += 1;
      const change = await object.write(((next * 7919) % blocks) * BLOCK, BLOCK, [Buffer.alloc(BLOCK, next)], true, NOW);
      if (change.kind === 'refused') return;
    }
  };
  return Promise.all(Array.from({ length: OUTSTANDING }, lane));
}

const a = await routers.start('a');
const b = await routers.start('b');

async function stalls(): Promise<void> {
  const inode = await routers.create(a, 'stall-flat.vmdk', 'volume');
  let object = await a.driver.open(inode);
  const blocks = (256 * MIB) / BLOCK;
  let [here, there]: [RealRouter, RealRouter] = [a, b];
  const times: MoveTimes[] = [];
  for (let move = 0; move < moves; move += 1) {
    let over = false;
    const load = writers(object, blocks, () => over);
    await new Promise((resolve) => setTimeout(resolve, 20));
    const moved = await routers.move(here, object, there, (arrived) => put(arrived, move));
    over = true;
    await load;
    times.push(moved.times);
    object = moved.object;
    [here, there] = [there, here];
  }
  for (const what of ['stallMs', 'freezeMs', 'tailMs', 'transferMs', 'activateMs', 'attachMs', 'copyMs'] as const) {
    const values = times.map((time) => time[what]);
    console.log(
      `${`${what}, ${moves} moves, ${OUTSTANDING} durable 4 KiB writers`.padEnd(56)} p50 ${quantile(values, 0.5).toFixed(2)}  p99 ${quantile(values, 0.99).toFixed(2)}  max ${Math.max(...values).toFixed(2)}`,
    );
  }
  await object.close();
}

async function dirty(): Promise<void> {
  const inode = await routers.create(a, 'dirty-flat.vmdk', 'volume');
  const object = await a.driver.open(inode);
  // Nothing goes up: all of it has to be copied.
  const { put: store } = routers.store;
  routers.store.put = (bucket, name, body) =>
    name.includes('claim-') ? store.call(routers.store, bucket, name, body) : new Promise(() => undefined);
  for (let block = 0; block < (256 * MIB) / BLOCK; block += 256) await put(object, block, 256);
  const { object: moved, times } = await routers.move(a, object, b, (arrived) => put(arrived, 1));
  routers.store.put = store;
  console.log(
    `256 MiB not on the backend: copied in ${times.copyMs.toFixed(0)} ms (${(times.copiedBytes / MIB / (times.copyMs / 1000)).toFixed(0)} MiB/s), stall ${times.stallMs.toFixed(2)} ms (freeze ${times.freezeMs.toFixed(2)}, tail ${times.tailMs.toFixed(2)}, activate ${times.activateMs.toFixed(2)})`,
  );
  void moved;
}

async function sizes(): Promise<void> {
  for (const [name, sizeBytes, pages] of [
    ['1 GiB', GIB, 256],
    ['64 GiB', 64 * GIB, 16_384],
    ['1 TiB', 1024 * GIB, 65_536],
  ] as const) {
    const inode = await routers.create(a, `size-${pages}-flat.vmdk`, 'volume', sizeBytes);
    const object = await a.driver.open(inode);
    const step = sizeBytes / BLOCK / pages;
    for (let page = 0; page < pages; page += 64) await Promise.all(Array.from({ length: 64 }, (_, at) => put(object, (page + at) * step)));
    await object.flush(performance.now() + 120_000);
    for (let count = 0; count < 1000; count += 1) await put(object, ((count * 7919) % pages) * step);
    storeBytes = storeRequests = 0;
    const { object: moved, times } = await routers.move(a, object, b, (arrived) => put(arrived, 0));
    console.log(
      `${name.padEnd(7)} ${String(pages).padStart(6)} pages mapped, 1,000 writes behind the checkpoint: attach ${times.attachMs.toFixed(1)} ms, copy ${times.copyMs.toFixed(1)} ms, stall ${times.stallMs.toFixed(2)} ms; the store gave ${(storeBytes / 1024).toFixed(0)} KiB in ${storeRequests} requests`,
    );
    await moved.close();
  }
}

try {
  await stalls();
  await sizes();
  await dirty();
} finally {
  await routers[Symbol.asyncDispose]();
}
// The store that takes nothing has calls that never end.
process.exit(0);
