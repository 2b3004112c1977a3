/** The tools of libnfs (Debian: libnfs-utils) on the datastore: an NFSv3 client that is not ours. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { run } from '../command.ts';
import { RouterProcess } from '../router-process.ts';
import { scratchFor } from '../scratch.ts';
import { privateRouter } from './private-router.ts';

test('nfs-cp and nfs-cat bring back every byte of a file and of a volume, nfs-ls lists them with their sizes', async (t) => {
  const scratch = await scratchFor(t, 'libnfs');
  const router = await RouterProcess.forTest(t);
  const query = `nfsport=${router.nfsPort}&mountport=${router.nfsPort}&version=3`;
  const url = (name: string): string => `nfs://127.0.0.1/${router.vpool}/${name}?${query}`;

  // Sizes around the inline limit, a block, a transfer (libnfs asks for rtmax/wtmax) and a segment; names of all three classes.
  const files = new Map<string, Buffer>([
    ['empty.vmx', Buffer.alloc(0)],
    ['small.vmx', randomBytes(139)],
    ['limit.nvram', randomBytes(4096)],
    ['flips.log', randomBytes(4097)],
    ['file.vmsn', randomBytes(3 * 1024 * 1024 + 17)],
    ['disk-flat.vmdk', randomBytes(9 * 1024 * 1024 + 512)],
  ]);
  for (const [name, content] of files) {
    await writeFile(join(scratch, name), content);
    await run(['nfs-cp', join(scratch, name), url(name)]);
  }
  let checks = 0;
  const check = async (): Promise<void> => {
    for (const [name, content] of files) {
      checks += 1;
      // nfs-cp does not overwrite.
      const back = join(scratch, `back-${checks}`);
      await run(['nfs-cp', url(name), back]);
      assert.ok((await readFile(back)).equals(content), `${name} through nfs-cp`);
      assert.ok((await run(['nfs-cat', url(name)])).stdout.equals(content), `${name} through nfs-cat`);
    }
    const listing = (await run(['nfs-ls', `nfs://127.0.0.1/${router.vpool}?${query}`])).stdout.toString();
    const sizes = new Map(
      listing
        .split('\n')
        .map((line) => line.trim().split(/\s+/))
        .filter((words) => words.length >= 6)
        .map((words) => [words[5], Number(words[4])]),
    );
    for (const [name, content] of files) assert.equal(sizes.get(name), content.length, `size of ${name} in\n${listing}`);
  };
  await check();
  await router.stop();
  await router.start();
  await check();
  await router.kill();
  await router.start();
  await check();
});

test('libnfs finds a router through its port mapper on 111 and lists its export', async (t) => {
  const { prefix, url, router } = await privateRouter(t);
  const registered = (await run([...prefix, 'rpcinfo', '-p', '127.0.0.1'])).stdout.toString();
  assert.match(registered, /100003\s+3\s+tcp\s+2049/);
  assert.match(registered, /100005\s+3\s+tcp\s+\d+/);
  const mounts = (await run([...prefix, 'showmount', '--no-headers', '-e', '127.0.0.1'])).stdout.toString();
  assert.match(mounts, new RegExp(`^/${router.vpool}\\s`));
  await run([...prefix, 'nfs-ls', url]);
});
