/** What a kill must not do to the times of a file whose data nobody writes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Stability, Status } from '../server/nfsd/file-system.ts';
import { connectStore } from './datastore-client.ts';
import { RouterProcess } from './router-process.ts';
import type { FileHandle, StoreClient } from './store-client.ts';

const CHANGES: readonly (readonly [string, (client: StoreClient, file: FileHandle) => Promise<{ readonly status: number }>])[] = [
  ['LINK', (client, file) => client.link(file, client.root, 'second')],
  ['REMOVE of one of two names', (client) => client.remove(client.root, 'second')],
  ['RENAME', (client) => client.rename(client.root, 'vm-flat.vmdk', client.root, 'other-flat.vmdk')],
  ['SETATTR of the mode', (client, file) => client.setattr(file, { mode: 0o640 })],
];

test('the ctime that a change of names or mode gave to an open volume is the same after a kill', async (t) => {
  const router = await RouterProcess.forTest(t);
  let file: FileHandle;
  {
    await using client = await connectStore(router);
    file = (await client.create(client.root, 'vm-flat.vmdk', 'guarded', { mode: 0o600 })).handle;
    assert.equal((await client.write(file, 0, Buffer.alloc(8192, 7), Stability.FILE_SYNC)).status, Status.OK);
  }
  for (const [name, change] of CHANGES) {
    await using client = await connectStore(router);
    // Opened and read, so that its owner has times of its own.
    assert.equal((await client.read(file, 0, 1)).status, Status.OK);
    assert.equal((await change(client, file)).status, Status.OK, name);
    const { attributes } = await client.getattr(file);
    await router.kill();
    await router.start();
    await using again = await connectStore(router);
    assert.deepEqual((await again.getattr(file)).attributes, attributes, name);
  }
});
