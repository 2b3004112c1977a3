/** An object that goes from one router to another while it is written: what the engine does of a handover (design section 10, decision 0023). */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { seededRandom } from '../../backends/virtual-clock.ts';
import type { DrivenObject, ObjectChange } from '../object-router/driver-port.ts';
import { SimulatedCluster } from './testing/simulated-cluster.ts';
import type { ClusterNode } from './testing/simulated-cluster.ts';

const BLOCK = 4096;
const NOW = { seconds: 1_700_000_000, nanoseconds: 0 };

function accepted(change: ObjectChange): void {
  assert.equal(change.kind, 'changed', change.kind === 'refused' ? String(change.error) : '');
}

function write(object: DrivenObject, offsetBytes: number, fill: number, countBytes = BLOCK, stable = true): Promise<ObjectChange> {
  return object.write(offsetBytes, countBytes, [Buffer.alloc(countBytes, fill)], stable, NOW);
}

async function contents(object: DrivenObject): Promise<Buffer> {
  const target = Buffer.alloc(object.attributes().sizeBytes, 0xee);
  assert.equal(await object.read(0, target), target.length);
  return target;
}

function pair(cluster: SimulatedCluster): [ClusterNode, ClusterNode] {
  const [a, b] = cluster.nodes;
  assert.ok(a !== undefined && b !== undefined);
  return [a, b];
}

for (const objectClass of ['volume', 'file'] as const) {
  test(`a ${objectClass} moves under writes, and everything acknowledged is there, also after a restart of the receiver`, async () => {
    const cluster = await SimulatedCluster.start(seededRandom(11), objectClass);
    const [a, b] = pair(cluster);
    const object = await cluster.open(a);
    const model = Buffer.alloc(400 * BLOCK);
    let size = 0;
    const put = async (at: DrivenObject, block: number, fill: number, count = 1): Promise<void> => {
      const change = await write(at, block * BLOCK, fill, count * BLOCK, fill % 3 !== 0);
      accepted(change);
      model.fill(fill, block * BLOCK, (block + count) * BLOCK);
      size = Math.max(size, (block + count) * BLOCK);
    };
    for (let n = 0; n < 120; n += 1) await cluster.run(put(object, (n * 7) % 390, 1 + (n % 250), 1 + (n % 5)));
    await cluster.run(object.flush(Infinity));
    for (let n = 0; n < 60; n += 1) await cluster.run(put(object, (n * 11) % 390, 1 + (n % 200), 3));

    let over = false;
    const writer = (async (): Promise<number> => {
      for (let n = 0; ; n += 1) {
        if (over) return n;
        await put(object, (n * 13) % 390, 1 + (n % 255), 2);
      }
    })();
    const move = await cluster.run(cluster.begin(a, object, b));
    for (let n = 0; n < 20; n += 1) await cluster.run(cluster.fetch(move));
    over = true;
    const written = await cluster.run(writer);
    assert.ok(written > 20, `${written} writes were made during the move`);
    const end = await cluster.run(cluster.freeze(move));
    const refused = await cluster.run(write(object, 0, 255));
    assert.ok(refused.kind === 'refused' && (refused.error as Error & { code: string }).code === 'object-held');
    const owner = await cluster.run(cluster.transfer(move, end));
    move.source.cede();
    const calls = cluster.commons.storeCalls;
    const moved = await cluster.run(move.replica.activate(owner));
    assert.equal(cluster.commons.storeCalls, calls, 'nothing was asked of the backend');
    await cluster.run(object.close());
    assert.equal(a.router.files.dirtyBytes, 0, 'what the giver keeps is cache');
    assert.deepEqual(moved.verifier, owner.verifier);
    assert.equal(moved.attributes().sizeBytes, size);
    assert.deepEqual(await cluster.run(contents(moved)), model.subarray(0, size));
    for (let n = 0; n < 40; n += 1) await cluster.run(put(moved, (n * 17) % 390, 1 + (n % 255), 1));
    assert.deepEqual(await cluster.run(contents(moved)), model.subarray(0, size));

    assert.equal(await cluster.run(moved.commit(NOW)), null);
    b.kill(true);
    await cluster.restart(b);
    const again = await cluster.open(b);
    assert.deepEqual(await cluster.run(contents(again)), model.subarray(0, size));
    assert.deepEqual(again.verifier, owner.verifier, 'nothing un-synced was lost');
    await cluster.run(again.flush(Infinity));
    assert.ok(again.isClean);

    // Home again, from what the backend has alone: the receiver's disk is new.
    b.kill(false);
    const third = await cluster.open(a);
    assert.deepEqual(await cluster.run(contents(third)), model.subarray(0, size));
  });
}
