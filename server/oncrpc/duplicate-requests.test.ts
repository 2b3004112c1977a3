/** Calls that must not run twice, over sockets. The cache itself is tested in duplicate-request-cache.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ECHO_PROGRAM, ECHO_VERSION } from './echo-program.ts';
import { until, withEchoServer } from './echo-server.ts';
import { authSys, callUdp, RpcClient } from './rpc-client.ts';
import type { RpcCallOptions } from './rpc-client.ts';

const HOST = '127.0.0.1';

function counted(client: RpcClient, xid: number, options: RpcCallOptions = {}): Promise<number> {
  return client.call(ECHO_PROGRAM, ECHO_VERSION, 4, null, { ...options, xid }).then((reply) => reply.uint32());
}

function held(client: RpcClient, xid: number): Promise<number> {
  return client.call(ECHO_PROGRAM, ECHO_VERSION, 5, null, { xid }).then((reply) => reply.uint32());
}

test('a retransmission gets the first reply and does not run again, on the same connection and on a new one', () =>
  withEchoServer(async ({ port, program, observer }) => {
    const first = await RpcClient.connect({ host: HOST, port, credential: authSys() });
    assert.equal(await counted(first, 7), 1);
    assert.equal(await counted(first, 7), 1);
    await first.close();
    const second = await RpcClient.connect({ host: HOST, port, credential: authSys() });
    assert.equal(await counted(second, 7), 1);
    assert.equal(program.runs, 1);
    assert.equal(observer.counts['replayed'], 2);
    await second.close();
  }));

test('another xid, another credential or other arguments are another call', () =>
  withEchoServer(async ({ port }) => {
    const client = await RpcClient.connect({ host: HOST, port, credential: authSys() });
    assert.equal(await counted(client, 1), 1);
    assert.equal(await counted(client, 2), 2);
    assert.equal(await counted(client, 1, { credential: authSys({ uid: 5 }) }), 3);
    assert.equal(await client.call(ECHO_PROGRAM, ECHO_VERSION, 4, (args) => args.uint32(0), { xid: 1 }).then((reply) => reply.uint32()), 4);
    assert.equal(await counted(client, 1), 1);
    await client.close();
  }));

test('procedures that are not cached run again', () =>
  withEchoServer(async ({ port, observer }) => {
    const client = await RpcClient.connect({ host: HOST, port });
    for (let i = 0; i < 2; i++) await client.call(ECHO_PROGRAM, ECHO_VERSION, 1, (args) => args.opaque(Buffer.alloc(4)), { xid: 5 });
    assert.equal(observer.counts['replayed'], undefined);
    await client.close();
  }));

test('duplicates of a running call join it: it runs once, and each is answered on the connection where it asked', () =>
  withEchoServer(async ({ port, program, observer, server }) => {
    const clients = await Promise.all(Array.from({ length: 3 }, () => RpcClient.connect({ host: HOST, port })));
    const calls = [held(clients[0]!, 9)];
    await until(() => program.heldCalls === 1);
    calls.push(held(clients[1]!, 9), held(clients[2]!, 9));
    await until(() => observer.counts['joined'] === 2);
    assert.equal(program.heldCalls, 1);
    program.releaseHeld();
    assert.deepEqual(await Promise.all(calls), [1, 1, 1]);
    assert.equal(program.runs, 1);
    await until(() => server.usage.inFlightBytes === 0 && server.usage.outstandingCalls === 0);
    await Promise.all(clients.map((client) => client.close()));
  }));

test('a call whose client went away still completes, and the reconnected client gets its reply', () =>
  withEchoServer(async ({ port, program }) => {
    const first = await RpcClient.connect({ host: HOST, port });
    const lost = assert.rejects(held(first, 3));
    await until(() => program.heldCalls === 1);
    await first.close();
    await lost;
    const second = await RpcClient.connect({ host: HOST, port });
    const again = held(second, 3);
    // A NULL call behind it: when that is answered, the duplicate has been looked at.
    await second.call(ECHO_PROGRAM, ECHO_VERSION, 0, null);
    program.releaseHeld();
    assert.equal(await again, 1);
    assert.equal(await held(second, 3), 1);
    assert.equal(program.runs, 1);
    await second.close();
  }));

test('the port mapper way round, by UDP and TCP: the transport does not matter', () =>
  withEchoServer(async ({ port, udpPort, program }) => {
    const client = await RpcClient.connect({ host: HOST, port });
    assert.equal(await counted(client, 11), 1);
    const reply = await callUdp(ECHO_PROGRAM, ECHO_VERSION, 4, null, { host: HOST, port: udpPort, timeoutMs: 240_000, xid: 11 });
    assert.equal(reply.uint32(), 1);
    assert.equal(program.runs, 1);
    await client.close();
  }));
