/** Encryption as an operator meets it: switched on for data that is there, a rotated key, a key that is missing; nothing readable on the backend. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { globSync, readFileSync, statSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { keyId } from '../../backends/encoding/key-file.ts';
import { Stability, Status } from '../../server/nfsd/file-system.ts';
import { connectStore } from '../datastore-client.ts';
import { RouterProcess } from '../router-process.ts';
import { drained } from './cold-restart.ts';

const MIB = 1024 * 1024;
const [FIRST, SECOND] = ['first', 'second'].map((word) => createHash('sha256').update(`the ${word} key`).digest());
assert.ok(FIRST !== undefined && SECOND !== undefined);

function encrypted(...keys: Buffer[]): Record<string, string> {
  return {
    VFERRY_VPOOL_BACKEND_COMPRESSION: 'zstd',
    VFERRY_VPOOL_BACKEND_ENCRYPTION: 'aes-256-gcm',
    VFERRY_VPOOL_BACKEND_KEY: keys.map((key) => key.toString('base64')).join(','),
  };
}

/** What a guest wrote into `name`: it can be searched for. */
function contentOf(name: string): Buffer {
  return Buffer.alloc(2 * MIB, `the guest wrote this into ${name}; `);
}

async function write(router: RouterProcess, name: string): Promise<void> {
  await using client = await connectStore(router);
  const created = await client.create(client.root, name, 'guarded', { mode: 0o600 });
  assert.equal(created.status, Status.OK);
  const content = contentOf(name);
  for (let at = 0; at < content.byteLength; at += MIB) {
    assert.equal((await client.write(created.handle, at, content.subarray(at, at + MIB), Stability.FILE_SYNC)).status, Status.OK);
  }
  await drained(router);
}

/** Reads everything, with no local copy to read from. */
async function verify(router: RouterProcess, names: readonly string[]): Promise<void> {
  await using client = await connectStore(router);
  for (const name of names) {
    const { handle } = await client.lookup(client.root, name);
    for (let at = 0; at < 2 * MIB; at += 256 * 1024) {
      const answer = await client.read(handle, at, 256 * 1024);
      assert.equal(answer.status, Status.OK);
      assert.ok(answer.data.equals(contentOf(name).subarray(at, at + 256 * 1024)), `${name} at ${at}`);
    }
  }
}

test('encryption is switched on, a key rotated, and missed', async (t) => {
  const environment = { VFERRY_LOG_SEGMENT_BYTES: '4MiB', VFERRY_LOG_SEAL_AFTER_MS: '300ms' };
  const router = await RouterProcess.createForTest(t, { environment });
  const restart = async (settings: Record<string, string>): Promise<void> => {
    await router.stop();
    await rm(join(router.dataDirectory, 'vpools', router.vpool, 'cache'), { recursive: true });
    await router.start(settings);
  };
  const readable = (name: string): boolean =>
    globSync('backend/**/*', { cwd: router.dataDirectory })
      .map((path) => join(router.dataDirectory, path))
      .some((path) => statSync(path).isFile() && readFileSync(path).includes(contentOf(name).subarray(0, 100)));

  await router.start();
  await write(router, 'before-flat.vmdk');
  assert.ok(readable('before-flat.vmdk'), 'the search finds what is there');

  await restart(encrypted(FIRST));
  await write(router, 'first-flat.vmdk');
  await verify(router, ['before-flat.vmdk']);

  await restart(encrypted(SECOND, FIRST));
  await write(router, 'second-flat.vmdk');
  await restart(encrypted(SECOND, FIRST));
  await verify(router, ['before-flat.vmdk', 'first-flat.vmdk', 'second-flat.vmdk']);
  for (const name of ['first-flat.vmdk', 'second-flat.vmdk']) assert.ok(!readable(name), `${name} can be read on the backend`);

  await router.stop();
  for (const settings of [{}, encrypted(SECOND)]) {
    router.launch(settings);
    const exit = await router.waitReady();
    assert.ok(exit !== 'ready' && exit.code !== 0 && exit.code !== null, JSON.stringify(exit));
    assert.match(router.logTail(), new RegExp(`encrypted with key ${keyId(FIRST)}`));
  }
  // But for the lines in which this test's own harness says what it starts.
  const log = router.log.replaceAll(/^--- start .*$/gm, '');
  for (const key of [FIRST, SECOND]) assert.ok(!log.includes(key.toString('base64')) && !log.includes(key.toString('hex')), 'a key is in the log');

  // Off again: what is there stays readable, and new data is plain.
  await router.start({ VFERRY_VPOOL_BACKEND_KEY: encrypted(FIRST, SECOND)['VFERRY_VPOOL_BACKEND_KEY'] ?? '' });
  await verify(router, ['before-flat.vmdk', 'first-flat.vmdk', 'second-flat.vmdk']);
  await write(router, 'after-flat.vmdk');
  assert.ok(readable('after-flat.vmdk'));
});
