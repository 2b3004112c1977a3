import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { test } from 'node:test';

import { ApplianceError } from '../core/errors.ts';
import { ECHO_PROGRAM, ECHO_VERSION } from './echo-program.ts';
import { until, withEchoServer } from './echo-server.ts';
import { callUdp, RpcClient } from './rpc-client.ts';

const HOST = '127.0.0.1';

function hasCode(code: string): (error: unknown) => boolean {
  return (error) => error instanceof ApplianceError && error.code === code;
}

/** A server that answers every connection with `reply`, whatever it is asked. */
async function withCannedServer(reply: Buffer, body: (port: number) => Promise<void>): Promise<void> {
  const server = net.createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', () => socket.write(reply));
  });
  server.listen(0, HOST);
  await once(server, 'listening');
  try {
    await body((server.address() as net.AddressInfo).port);
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
}

test('a thousand calls outstanding are answered, each with its own reply', () =>
  withEchoServer(async ({ port }) => {
    const client = await RpcClient.connect({ host: HOST, port });
    const calls = Array.from({ length: 1000 }, (_, i) => client.call(ECHO_PROGRAM, ECHO_VERSION, 1 + (i % 2), (args) => args.string(`call ${i}`)));
    assert.equal(client.outstanding, 1000);
    const replies = await Promise.all(calls);
    assert.ok(replies.every((reply, i) => reply.string(100) === `call ${i}`));
    assert.equal(client.outstanding, 0);
    await client.close();
  }));

test('a call without a reply times out, and its late reply disturbs nobody', () =>
  withEchoServer(async ({ port, program }) => {
    const client = await RpcClient.connect({ host: HOST, port });
    await assert.rejects(
      client.call(ECHO_PROGRAM, ECHO_VERSION, 8, (args) => args.opaque(Buffer.alloc(1)), { timeoutMs: 20 }),
      hasCode('rpc-timeout'),
    );
    await until(() => program.heldCalls === 1);
    program.releaseHeld();
    await client.call(ECHO_PROGRAM, ECHO_VERSION, 0, null, { timeoutMs: 240_000 });
    await client.close();
  }));

test('calls outstanding fail when the connection is lost, and later ones at once', () =>
  withEchoServer(async ({ port, program, server }) => {
    const client = await RpcClient.connect({ host: HOST, port });
    const call = assert.rejects(
      client.call(ECHO_PROGRAM, ECHO_VERSION, 8, (args) => args.opaque(Buffer.alloc(1))),
      hasCode('rpc-connection-lost'),
    );
    await until(() => program.heldCalls === 1);
    await server.close(0);
    await call;
    await client.closed();
    await assert.rejects(client.call(ECHO_PROGRAM, ECHO_VERSION, 0, null), hasCode('rpc-connection-lost'));
  }));

test('the source port can be chosen', () =>
  withEchoServer(async ({ port }) => {
    const probe = net.createServer().listen(0, HOST);
    await once(probe, 'listening');
    const free = (probe.address() as net.AddressInfo).port;
    await new Promise((resolve) => probe.close(resolve));
    const client = await RpcClient.connect({ host: HOST, port, localAddress: HOST, localPort: free });
    assert.equal(client.localPort, free);
    await client.close();
  }));

test('nobody listening is rpc-connect-failed, and by UDP rpc-timeout', async () => {
  const probe = net.createServer().listen(0, HOST);
  await once(probe, 'listening');
  const { port } = probe.address() as net.AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  await assert.rejects(RpcClient.connect({ host: HOST, port }), hasCode('rpc-connect-failed'));
  await assert.rejects(callUdp(1, 1, 0, null, { host: HOST, port, timeoutMs: 20 }), hasCode('rpc-timeout'));
});

test('a reply that does not decode fails its call, and a reply that is too long the connection', async () => {
  // xid 5, then a truncated reply.
  await withCannedServer(Buffer.from('8000000c000000050000000100000000', 'hex'), async (port) => {
    const client = await RpcClient.connect({ host: HOST, port });
    await assert.rejects(client.call(1, 1, 1, null, { xid: 5 }), hasCode('rpc-bad-reply'));
    await client.close();
  });
  for (const junk of ['ffffffff', '8000000400000005']) {
    await withCannedServer(Buffer.from(junk, 'hex'), async (port) => {
      const client = await RpcClient.connect({ host: HOST, port });
      await assert.rejects(client.call(1, 1, 1, null, { xid: 5 }), hasCode('rpc-connection-lost'));
      await client.closed();
    });
  }
});
