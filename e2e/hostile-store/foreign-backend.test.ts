/** What is acknowledged must not be brought to a backend that is not the vPool's, and then be dropped here. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { MemoryStore } from '../../backends/memory/memory-store.ts';
import { Stability, Status } from '../../server/nfsd/file-system.ts';
import { connectStore } from '../datastore-client.ts';
import { RouterProcess } from '../router-process.ts';
import { stackOf } from '../test-stack.ts';
import { HostileStore } from './hostile-store.ts';

const MIB = 1024 * 1024;

/** Deletes everything: what answers then is another backend at the same address. */
async function empty(store: MemoryStore): Promise<void> {
  for (const bucket of (await store.listBuckets('', 1000)).names) {
    const { names } = await store.list(bucket, '', '', 1000);
    if (names.length > 0) await store.deleteMany(bucket, names);
    await store.deleteBucket(bucket);
  }
}

test('a backend that was away at the start and comes back as another one gets nothing before it is found out', async (t) => {
  const inner = new MemoryStore();
  const hostile = stackOf(t).use(await HostileStore.start(5, inner));
  const router = await RouterProcess.forTest(t, {
    environment: { VFERRY_LOG_SEGMENT_BYTES: '4MiB', VFERRY_LOG_SEAL_AFTER_MS: '300ms', ...hostile.environment },
  });
  await router.stop();
  await hostile.server.stopListening();
  await empty(inner);

  await router.start();
  {
    await using client = await connectStore(router, { timeoutMs: 240_000 });
    const disk = await client.create(client.root, 'a-flat.vmdk', 'guarded', {});
    for (let at = 0; at < 8 * MIB; at += MIB) {
      const written = await client.write(disk.handle, at, Buffer.alloc(MIB, 1 + at / MIB), Stability.FILE_SYNC);
      assert.equal(written.status, Status.OK);
    }
  }
  await hostile.server.listen();
  const exit = await router.exited();
  assert.equal(exit.code, 1);
  assert.match(router.log, /backend-foreign/);
  assert.equal(inner.objectCount, 0);
});
