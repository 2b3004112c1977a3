/** What a backend that lost or damaged an object means for those who read it (decision 0017): they are asked to come back, and see the right bytes when it has them again. */
import assert from 'node:assert/strict';
import { globSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { Stability, Status } from '../../server/nfsd/file-system.ts';
import { coldRestart } from '../backends/cold-restart.ts';
import { connectStore } from '../datastore-client.ts';
import { RouterProcess } from '../router-process.ts';
import { StampedVolume } from '../stamped-volume.ts';
import type { StoreClient } from '../store-client.ts';
import { stackOf } from '../test-stack.ts';

const MIB = 1024 * 1024;

test('an object that the backend lost, or damaged, is waited for, told to the operator, found by fsck, and read when it is right again', async (t) => {
  const router = await RouterProcess.forTest(t, { environment: { VFERRY_VPOOL_BACKEND_HARD_LINKS: 'false', VFERRY_LOG_SEAL_AFTER_MS: '1s' } });
  const first = await connectStore(router);
  const volume = await StampedVolume.create(first, 1, 2 * MIB);
  for (let at = 0; at < 2 * MIB; at += MIB) assert.equal(await volume.write(first, at, MIB, Stability.FILE_SYNC), Status.OK);
  await first[Symbol.asyncDispose]();
  await coldRestart(router);
  const [path] = globSync(join(router.dataDirectory, 'backend', '**', '*seg-*'));
  assert.ok(path !== undefined);
  const right = readFileSync(path);

  const isWaitedFor = async (client: StoreClient, problem: RegExp): Promise<void> => {
    const { content, statuses } = await volume.read(client);
    assert.ok(statuses.length > 0 && statuses.every((status) => status === Status.JUKEBOX), `READs were answered ${statuses.join(', ')}`);
    const expected = volume.model.current(0, volume.sizeBytes);
    for (let at = 0; at < content.length; at += 262_144) {
      const part = content.subarray(at, at + 262_144);
      assert.ok(part.equals(expected.subarray(at, at + 262_144)) || part.every((byte) => byte === 0), `wrong data at ${at}`);
    }
    const { status, body } = await router.http('/readyz');
    assert.equal(status, 200, body);
    assert.match(body, /"code":"backend-objects"/);
    assert.match(body, problem);
  };
  const isRight = async (client: StoreClient): Promise<void> => {
    assert.deepEqual(await volume.verify(client), []);
    assert.doesNotMatch((await router.http('/readyz')).body, /backend-objects/);
  };

  const client = await connectStore(router);
  renameSync(path, `${path}.lost`);
  await isWaitedFor(client, /seg-\S+ is not visible on the backend/);
  renameSync(`${path}.lost`, path);
  await isRight(client);
  await client[Symbol.asyncDispose]();

  await coldRestart(router);
  const wrong = Buffer.from(right);
  for (let at = 100_000; at < wrong.length; at += 100_000) wrong[at]! ^= 1;
  writeFileSync(path, wrong);
  await isWaitedFor(stackOf(t).use(await connectStore(router)), /seg-\S+ does not match its CRC/);
  await router.stop();
  const checked = await router.fsck();
  assert.equal(checked.code, 1, checked.output);
  assert.match(checked.output, /seg-\S+: .*block \d+ at \d+ does not match its CRC/);
  writeFileSync(path, right);
  assert.equal((await router.fsck()).code, 0);
  await router.start();
  await isRight(stackOf(t).use(await connectStore(router)));
});
