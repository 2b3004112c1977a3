/** `npm run cluster`: three routers that a person can mount, and an end on Ctrl-C that leaves nothing. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { GUARDED, made, succeeded } from '../../server/nfsd/conformance/server-under-test.ts';
import { Stability } from '../../server/nfsd/file-system.ts';
import { NfsClient } from '../../server/nfsd/nfs-client.ts';
import { freePorts } from '../free-port.ts';

test('one command starts three routers of one datastore, says how to mount them, and stops everything on Ctrl-C', async () => {
  const [port = 0] = await freePorts(1);
  const main = join(import.meta.dirname, 'cluster-main.ts');
  const child = spawn(process.execPath, [main, '--backend', 'directory', '--nfs-port', String(port)], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  let output = '';
  try {
    const ready = Promise.withResolvers<void>();
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString();
      if (/^Redis \d+$/m.test(output)) ready.resolve();
    });
    void ended.then(() => ready.reject(new Error(`it ended:\n${output}`)));
    await ready.promise;
    const mounts = [...output.matchAll(/^[ABC] {2}mount .* (127[\d.]+):\/vpool1 .*admin (http\S+)$/gm)].map((match) => match[1] ?? '');
    assert.equal(mounts.length, 3);
    const hosts = await Promise.all(mounts.map((host) => NfsClient.connect({ host, nfsPort: port, timeoutMs: 240_000 })));
    const [first] = hosts;
    assert.ok(first !== undefined);
    const root = Buffer.from(succeeded(await first.mount('/vpool1')).handle);
    const disk = Buffer.from(made(await first.create(root, 'disk.raw', GUARDED)).handle);
    for (const [index, host] of hosts.entries()) succeeded(await host.write(disk, index * 4096, Buffer.alloc(4096, index + 1), Stability.FILE_SYNC));
    for (const host of hosts) {
      const { data } = succeeded(await host.read(disk, 0, 3 * 4096));
      assert.ok(data.equals(Buffer.concat([1, 2, 3].map((byte) => Buffer.alloc(4096, byte)))));
      await host.close();
    }
  } finally {
    child.kill('SIGINT');
  }
  assert.equal(await ended, 0, output);
  const directory = /routers in (\S+)/.exec(output)?.[1] ?? '';
  assert.ok(directory.startsWith('/') && !existsSync(directory), 'its directory is left behind');
});
