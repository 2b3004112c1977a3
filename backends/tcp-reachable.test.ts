import assert from 'node:assert/strict';
import { type AddressInfo, createServer } from 'node:net';
import { test } from 'node:test';

import { rejectsWith } from './conformance.ts';
import { TcpReachable } from './tcp-reachable.ts';

const never = new AbortController().signal;

test('what listens is reachable, by address and by name, and is asked for nothing', async () => {
  let bytes = 0;
  let connections = 0;
  const server = createServer((socket) => {
    connections += 1;
    socket.on('data', (chunk) => {
      bytes += chunk.length;
    });
    socket.on('error', () => undefined);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  for (const host of ['127.0.0.1', 'localhost']) {
    const reachable = new TcpReachable(`http://${host}:${port}/v1/AUTH_test`, () => 0);
    await reachable.check(never);
    await reachable.check(never);
  }
  const closed = new Promise((resolve) => server.close(resolve));
  await closed;
  assert.equal(connections, 4);
  assert.equal(bytes, 0);
  const error = await rejectsWith(new TcpReachable(`http://127.0.0.1:${port}/`, () => 0).check(never), 'retry');
  assert.match(error.message, /ECONNREFUSED/);
});

test('a name that means nothing is not reachable, and who has waited long enough is let go', async () => {
  const reachable = new TcpReachable('https://no-such-host.invalid/', () => 0);
  await rejectsWith(reachable.check(AbortSignal.timeout(10_000)), 'retry');
  await rejectsWith(reachable.check(AbortSignal.abort()), 'retry');
});
