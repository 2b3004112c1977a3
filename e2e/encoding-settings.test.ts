/** Compression and encryption are switched on, changed and off over the life of a vPool; everything that was ever written stays readable, with its keys only. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { Status } from '../server/nfsd/file-system.ts';
import { connectStore } from './datastore-client.ts';
import { RouterProcess } from './router-process.ts';
import { StampedVolume } from './stamped-volume.ts';

const MIB = 1024 * 1024;
const REGION_BYTES = 2 * MIB;
const FILE_SYNC = 2;

const key = (name: string): string => createHash('sha256').update(name).digest('base64');
const AES = { VFERRY_VPOOL_BACKEND_ENCRYPTION: 'aes-256-gcm' };

/** The life of the vPool: in each phase a region of its own is written. */
const PHASES: readonly Readonly<Record<string, string>>[] = [
  {},
  { ...AES, VFERRY_VPOOL_BACKEND_COMPRESSION: 'zstd', VFERRY_VPOOL_BACKEND_KEY: key('first') },
  { ...AES, VFERRY_VPOOL_BACKEND_KEY: `${key('second')}\n${key('first')}` },
  { VFERRY_VPOOL_BACKEND_KEY: `${key('second')}\n${key('first')}` },
];

test('encoding is switched over the life of a vPool, and keys that are missing or wrong are refused before anything is served', async (t) => {
  const router = await RouterProcess.createForTest(t, { environment: { VFERRY_CACHE_SSD_BYTES: '0B', VFERRY_LOG_SEAL_AFTER_MS: '100ms' } });
  let volume: StampedVolume | null = null;
  for (const [phase, environment] of PHASES.entries()) {
    await router.start(environment);
    await using client = await connectStore(router);
    volume ??= await StampedVolume.create(client, 1, PHASES.length * REGION_BYTES);
    assert.deepEqual(await volume.verify(client), [], `start of phase ${phase}`);
    for (let at = 0; at < REGION_BYTES; at += 65_536) {
      assert.equal(await volume.write(client, phase * REGION_BYTES + at, 65_536, FILE_SYNC), Status.OK);
    }
    await router.stop();
    // What is read next comes from the backend.
    rmSync(join(router.dataDirectory, 'vpools', 'vpool1', 'cache'), { recursive: true, force: true });
  }

  const { keys, encoded } = JSON.parse(readFileSync(join(router.dataDirectory, 'vpools', 'vpool1', 'vpool.json'), 'utf8')) as {
    keys: string[];
    encoded: boolean;
  };
  assert.equal(encoded, true);
  assert.equal(keys.length, 2);
  assert.ok(readdirSync(join(router.dataDirectory, 'backend', 'buckets')).length > 1);

  for (const environment of [{ VFERRY_VPOOL_BACKEND_KEY: key('second') }, { ...AES, VFERRY_VPOOL_BACKEND_KEY: key('wrong') }]) {
    router.launch(environment);
    assert.equal((await router.exited()).code, 1, JSON.stringify(environment));
    const told = router.log.slice(router.log.lastIndexOf('--- start'));
    assert.match(told, new RegExp(`cannot serve: objects of this vPool are encrypted with key .*${keys[0]}`));
    assert.doesNotMatch(told, /"ready"/);
    assert.ok(!told.slice(told.indexOf('\n')).includes(key('second').slice(0, 20)));
  }
  assert.equal((await router.fsck()).code, 2);

  await router.start(PHASES.at(-1) ?? {});
  await using client = await connectStore(router);
  assert.deepEqual(await volume?.verify(client), []);
});
