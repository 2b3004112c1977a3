import assert from 'node:assert/strict';
import { test } from 'node:test';

import { silentLogger } from '../core/logger.ts';
import { systemClock } from '../core/node-time.ts';
import { ECHO_PROGRAM, ECHO_VERSION, EchoProgram } from './echo-program.ts';
import { authSys, RpcClient } from './rpc-client.ts';
import { RpcServer } from './rpc-server.ts';

test('echo, null and async calls are answered', async () => {
  const server = new RpcServer({ clock: systemClock, logger: silentLogger });
  const { port } = await server.listenTcp({ host: '127.0.0.1', port: 0, programs: [new EchoProgram()] });
  const client = await RpcClient.connect({ host: '127.0.0.1', port, credential: authSys() });
  (await client.call(ECHO_PROGRAM, ECHO_VERSION, 0, null)).assertEnd();
  for (const procedure of [1, 2]) {
    for (const size of [0, 1, 100, 70_000, 3_000_000]) {
      const payload = Buffer.alloc(size, 7);
      const reply = await client.call(ECHO_PROGRAM, ECHO_VERSION, procedure, (w) => w.opaque(payload), { argsBytesMax: size + 8 });
      assert.ok(reply.opaque(size).equals(payload));
    }
  }
  await client.close();
  await server.close(1000);
  assert.equal(server.usage.inFlightBytes, 0);
});
