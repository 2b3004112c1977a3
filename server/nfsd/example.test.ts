import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';

import { NfsClient } from './nfs-client.ts';

test('the example serves NFS and MOUNT on the port it prints', async () => {
  const server = spawn(process.execPath, [new URL('example.ts', import.meta.url).pathname, '0'], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const [line] = (await once(server.stdout, 'data')) as [Buffer];
    const port = /nfsport=(\d+)/.exec(line.toString())?.[1];
    assert.ok(port !== undefined, line.toString());
    const client = await NfsClient.connect({ host: '127.0.0.1', nfsPort: Number(port) });
    try {
      const mounted = await client.mount('/export');
      assert.equal(mounted.status, 0);
    } finally {
      await client.close();
    }
  } finally {
    server.kill('SIGKILL');
    await once(server, 'exit');
  }
});
