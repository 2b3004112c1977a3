/** Reads at the new owner of what is neither there nor soon to be had from the backend (decision 0037). */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { seededRandom } from '../../backends/virtual-clock.ts';
import type { CededSegments, DrivenObject, FormerAnswer, FormerOwner } from '../object-router/driver-port.ts';
import { SimulatedCluster } from './testing/simulated-cluster.ts';
import type { ClusterNode } from './testing/simulated-cluster.ts';

const BLOCK = 4096;
const BLOCKS = 64;
const NOW = { seconds: 1_700_000_000, nanoseconds: 0 };

type Ask = (left: CededSegments, segment: number, offsetBytes: number, lengthBytes: number) => Promise<FormerAnswer>;

const fromCache: Ask = async (left, segment, offsetBytes, lengthBytes) => (await left.read(segment, offsetBytes, lengthBytes))?.bytes ?? null;

/** A volume of `BLOCKS` blocks that is on the backend and moved to another router; the former one is asked by way of `ask`. */
async function moved(ask: Ask): Promise<{ cluster: SimulatedCluster; a: ClusterNode; object: DrivenObject; asked: () => number }> {
  const cluster = await SimulatedCluster.start(seededRandom(5), 'volume', 2);
  const [a, b] = cluster.nodes;
  assert.ok(a !== undefined && b !== undefined);
  const object = await cluster.open(a);
  for (let block = 0; block < BLOCKS; block += 1) {
    const change = await cluster.run(object.write(block * BLOCK, BLOCK, [Buffer.alloc(BLOCK, block + 1)], true, NOW));
    assert.equal(change.kind, 'changed');
  }
  await cluster.run(object.flush(Infinity));
  let left: CededSegments | null = null;
  let asked = 0;
  const former: FormerOwner = {
    read: (segment, _term, offsetBytes, lengthBytes) => {
      asked += 1;
      return left === null ? null : ask(left, segment, offsetBytes, lengthBytes);
    },
  };
  const move = await cluster.run(cluster.begin(a, object, b, former));
  await cluster.run(cluster.catchUp(move));
  const end = await cluster.run(cluster.freeze(move));
  const owner = await cluster.run(cluster.transfer(move, end));
  left = move.source.cede();
  const arrived = await cluster.run(move.replica.activate(owner));
  await cluster.run(object.close());
  return { cluster, a, object: arrived, asked: () => asked };
}

function assertRight(bytes: Buffer): void {
  for (let block = 0; block < BLOCKS; block += 1)
    assert.ok(
      bytes.subarray(block * BLOCK, (block + 1) * BLOCK).every((byte) => byte === block + 1),
      `block ${block}`,
    );
}

async function readAll({ cluster, object }: { cluster: SimulatedCluster; object: DrivenObject }): Promise<Buffer> {
  const target = Buffer.alloc(BLOCKS * BLOCK);
  // Neither one behind the other, which is read ahead, nor all at once.
  for (let n = 0; n < BLOCKS; n += 1) {
    const block = (n * 37) % BLOCKS;
    assert.equal(await cluster.run(object.read(block * BLOCK, target.subarray(block * BLOCK, (block + 1) * BLOCK))), BLOCK);
  }
  return target;
}

test('what the former owner has is read from it while the backend answers nothing at all', async () => {
  const world = await moved(fromCache);
  // The map comes from the backend; what else is read with it does not matter.
  await world.cluster.run(world.object.read(0, Buffer.alloc(BLOCK)));
  world.cluster.commons.faultyStore.setFaults({ hang: 1 });
  assertRight(await readAll(world));
  const whole = Buffer.alloc(BLOCKS * BLOCK);
  assert.equal(await world.cluster.run(world.object.read(0, whole)), whole.length);
  assertRight(whole);
  world.cluster.commons.faultyStore.setFaults({});
});

test('wrong or short bytes of the former owner are no data: the backend is asked', async () => {
  const world = await moved(async (left, segment, offsetBytes, lengthBytes) => {
    const bytes = Buffer.from((await left.read(segment, offsetBytes, lengthBytes))?.bytes ?? Buffer.alloc(0));
    if (segment % 2 === 0) return bytes.subarray(0, bytes.length - 1);
    bytes.writeUInt8(bytes.readUInt8(100) ^ 1, 100);
    return bytes;
  });
  assertRight(await readAll(world));
  assert.ok(world.asked() > 1);
});

test('a former owner that does not have it any more is no error', async () => {
  const world = await moved(fromCache);
  const { files } = world.a.router;
  for (const uuid of [...files.objects()]) for (const segment of files.segmentsOf(uuid)) await world.cluster.run(files.drop(segment));
  assertRight(await readAll(world));
  assert.ok(world.asked() > 1);
});

test('when the former owner is late the backend is asked, too, and whoever has it first answers; the other one touches nothing any more', async () => {
  const late: (() => void)[] = [];
  const world = await moved((left, segment, offsetBytes, lengthBytes) =>
    Promise.resolve({
      late: new Promise((resolve) =>
        late.push(() => void left.read(segment, offsetBytes, lengthBytes).then((piece) => resolve(piece?.bytes ?? null))),
      ),
    }),
  );
  const { cluster, object } = world;
  const target = Buffer.alloc(BLOCK);
  assert.equal(await cluster.run(object.read(3 * BLOCK, target)), BLOCK);
  assert.ok(target.every((byte) => byte === 4));
  target.fill(0xee);
  for (const answer of late.splice(0)) answer();
  await cluster.turns(20);
  assert.ok(
    target.every((byte) => byte === 0xee),
    'it is the caller’s',
  );

  for (const answer of late.splice(0)) answer();
  await cluster.turns(20);
  cluster.commons.faultyStore.setFaults({ hang: 1 });
  const reading = cluster.run(object.read(9 * BLOCK, target));
  await cluster.turns(20);
  for (const answer of late.splice(0)) answer();
  assert.equal(await reading, BLOCK);
  assert.ok(target.every((byte) => byte === 10));
  cluster.commons.faultyStore.setFaults({});
});

test('when neither the former owner nor the backend has it the client hears of the backend’s error', async () => {
  const world = await moved(() => Promise.resolve({ late: Promise.resolve(null) }));
  world.cluster.commons.faultyStore.setFaults({ failBefore: 1 });
  await assert.rejects(world.cluster.run(Promise.resolve(world.object.read(0, Buffer.alloc(BLOCK)))), { name: 'StoreError' });
  world.cluster.commons.faultyStore.setFaults({});
});

test('what is read ahead comes from the former owner, too', async () => {
  const world = await moved(fromCache);
  const { cluster, object } = world;
  await cluster.run(object.read(0, Buffer.alloc(BLOCK)));
  cluster.commons.faultyStore.setFaults({ hang: 1 });
  const target = Buffer.alloc(BLOCKS * BLOCK);
  for (let block = 0; block < BLOCKS; block += 1)
    assert.equal(await cluster.run(object.read(block * BLOCK, target.subarray(block * BLOCK, (block + 1) * BLOCK))), BLOCK);
  assertRight(target);
  assert.ok(world.asked() < BLOCKS, `${world.asked()} requests for ${BLOCKS} blocks that lie one behind the other`);
  cluster.commons.faultyStore.setFaults({});
});
