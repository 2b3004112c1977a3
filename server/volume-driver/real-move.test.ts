/** Moves over real files and the SQLite registry: what the simulated disk and registry cannot show. */
import assert from 'node:assert/strict';
import { mkdtemp, readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import type { DrivenObject } from '../object-router/driver-port.ts';
import { RealRouters } from './testing/real-routers.ts';

const MIB = 1024 * 1024;
const BLOCK = 4096;
const NOW = { seconds: 1_700_000_000, nanoseconds: 0 };
const SETTINGS = { segmentBytes: 2 * MIB, dirtyBytesMax: 1024 * MIB, checkpointAfterBytes: 8 * MIB };

async function put(object: DrivenObject, offsetBytes: number, bytes: Buffer, stable = true): Promise<void> {
  const change = await object.write(offsetBytes, bytes.length, [Buffer.from(bytes)], stable, NOW);
  assert.equal(change.kind, 'changed', change.kind === 'refused' ? String(change.error) : '');
}

for (const objectClass of ['volume', 'file'] as const) {
  test(`a ${objectClass} goes from directory to directory and back, under writes, and opens again after its router did`, async () => {
    const directory = await mkdtemp(join(tmpdir(), 'vferry-move-'));
    await using routers = await RealRouters.open(directory, SETTINGS);
    const a = await routers.start('a');
    const b = await routers.start('b');
    const inode = await routers.create(a, objectClass === 'volume' ? 'disk-flat.vmdk' : 'notes.log', objectClass);
    const model = Buffer.alloc(24 * MIB);
    let next = 1;
    const step = async (at: DrivenObject): Promise<void> => {
      const offset = ((next * 7919) % 5800) * BLOCK + (next % 3 === 0 ? 512 : 0);
      const bytes = Buffer.alloc(((next % 9) + 1) * 2560, next % 251);
      await put(at, offset, bytes, next % 4 !== 0);
      bytes.copy(model, offset);
      next += 1;
    };
    let object = await a.driver.open(inode);
    await put(object, 0, model);
    for (let count = 0; count < 200; count += 1) await step(object);
    let [here, there] = [a, b];
    for (let round = 0; round < 3; round += 1) {
      const giver = object;
      const moved = await routers.move(here, giver, there, step, async () => {
        for (let count = 0; count < 5; count += 1) await step(giver);
      });
      object = moved.object;
      for (let count = 0; count < 50; count += 1) await step(object);
      [here, there] = [there, here];
    }
    const size = object.attributes().sizeBytes;
    const read = Buffer.alloc(size);
    await object.read(0, read);
    assert.ok(read.equals(model.subarray(0, size)));
    await object.flush(performance.now() + 30_000);
    await object.close();
    for (const router of [a, b]) {
      assert.equal(router.files.dirtyBytes, 0);
      assert.deepEqual(await readdir(join(directory, router.router.charAt(0), 'replica')), []);
    }
    await b.close();
    const again = await routers.start('b');
    const reopened = await again.driver.open(routers.inode(inode.fileid));
    const found = Buffer.alloc(size);
    await reopened.read(0, found);
    assert.ok(found.equals(model.subarray(0, size)));
    await reopened.close();
  });
}
