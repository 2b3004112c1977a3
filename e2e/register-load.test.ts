import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Stability } from '../server/nfsd/file-system.ts';
import { RegisterLoad } from './register-load.ts';
import type { StoreClient } from './store-client.ts';

/** A volume in memory; `lieAt`: from that READ on it shows what was there before the last write of each byte. */
function volume(lieAt = Number.POSITIVE_INFINITY): StoreClient {
  let reads = 0;
  let bytes = Buffer.alloc(0);
  let before = bytes;
  const nothing = (): never => assert.fail('is not called');
  return {
    root: new Uint8Array(1),
    create: () => Promise.resolve({ status: 0, handle: new Uint8Array(1), attributes: null }),
    setattr: (_, { sizeBytes = 0 }) => {
      bytes = Buffer.alloc(sizeBytes);
      before = Buffer.alloc(sizeBytes);
      return Promise.resolve({ status: 0 });
    },
    write: async (_, offsetBytes, data) => {
      await Promise.resolve();
      bytes.copy(before, offsetBytes, offsetBytes, offsetBytes + data.length);
      bytes.set(data, offsetBytes);
      return { status: 0, countBytes: data.length, committed: Stability.FILE_SYNC, verifier: '', answeredBy: 'B' };
    },
    read: async (_, offsetBytes, countBytes) => {
      await Promise.resolve();
      reads += 1;
      const data = Buffer.from((reads > lieAt ? before : bytes).subarray(offsetBytes, offsetBytes + countBytes));
      return { status: 0, data, eof: false, answeredBy: 'A' };
    },
    getattr: nothing,
    lookup: nothing,
    commit: nothing,
    mkdir: nothing,
    remove: nothing,
    rmdir: nothing,
    rename: nothing,
    link: nothing,
    list: nothing,
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

test('a volume that shows what was written last is fine', async () => {
  const client = volume();
  const load = await RegisterLoad.create(client, 1);
  await load.run([client, client], 8, 3000);
  await load.check(client);
});

test('a volume that shows something older is found out, with the history of that sector: who wrote it, when, and who answered', async () => {
  const client = volume(500);
  const load = await RegisterLoad.create(client, 1);
  await assert.rejects(load.run([client, client], 8, 3000), (error: Error) => {
    assert.match(error.message, /^seed 1:\nsector \d+: holds write \d+, but write \d+ came wholly after it/);
    assert.match(error.message, /write \d+: sectors \d+\+\d+, client [01], sent [\d:.]+, answered [\d:.]+ by B {2}<- read/);
    assert.match(error.message, /\nread: write \d+, client [01], sent [\d:.]+, answered [\d:.]+ by A/);
    assert.match(error.message, /\nread again by client 1: write \d+ A/);
    return true;
  });
});
