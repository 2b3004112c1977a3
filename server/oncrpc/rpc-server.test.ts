import assert from 'node:assert/strict';
import { test } from 'node:test';

import { AssertionError } from '../core/assert.ts';
import { ApplianceError } from '../core/errors.ts';
import { silentLogger } from '../core/logger.ts';
import { systemClock } from '../core/node-time.ts';
import { ECHO_PROGRAM, ECHO_VERSION, EchoProgram } from './echo-program.ts';
import { until, withEchoServer } from './echo-server.ts';
import { RawConnection } from './raw-connection.ts';
import { authSys, callUdp, encodeCall, RpcClient, RpcRejectedError } from './rpc-client.ts';
import { encodeCredential } from './rpc-credential.ts';
import type { DispatchRefusal, RpcCall, RpcCredential, RpcProgram } from './rpc-program.ts';
import { RpcServer } from './rpc-server.ts';

const HOST = '127.0.0.1';

function echoCall(xid: number, payload: Buffer, credential: RpcCredential = authSys()): Buffer {
  return encodeCall(xid, ECHO_PROGRAM, ECHO_VERSION, 1, encodeCredential(credential), (args) => args.opaque(payload), payload.length + 8);
}

/** The same call as fragments of at most `size` bytes. */
function fragmented(call: Buffer, size: number): Buffer {
  const body = call.subarray(4);
  const parts: Buffer[] = [];
  for (let at = 0; at < body.length; at += size) {
    const part = body.subarray(at, at + size);
    const mark = Buffer.alloc(4);
    mark.writeUInt32BE(((at + size >= body.length ? 0x8000_0000 : 0) | part.length) >>> 0);
    parts.push(mark, part);
  }
  return Buffer.concat(parts);
}

/** A program made of one function. */
class OneProcedure implements RpcProgram {
  readonly program = 77;
  readonly versionFirst = 1;
  readonly versionLast = 2;
  readonly name = 'one';
  readonly dispatch: (call: RpcCall) => DispatchRefusal | Promise<DispatchRefusal>;

  constructor(dispatch: (call: RpcCall) => DispatchRefusal | Promise<DispatchRefusal>) {
    this.dispatch = dispatch;
  }

  procedureName(): string {
    return 'one';
  }

  isCached(): boolean {
    return false;
  }
}

async function withProgram(program: RpcProgram, body: (port: number, bugs: AssertionError[], server: RpcServer) => Promise<void>): Promise<void> {
  const bugs: AssertionError[] = [];
  const server = new RpcServer({ clock: systemClock, logger: silentLogger, onBug: (bug) => bugs.push(bug) });
  try {
    await body((await server.listenTcp({ host: HOST, port: 0, programs: [program] })).port, bugs, server);
  } finally {
    await server.close(0);
  }
}

test('payloads of any size come back, from programs that answer at once and from those that answer later', () =>
  withEchoServer(async ({ port, server }) => {
    const client = await RpcClient.connect({ host: HOST, port, credential: authSys() });
    (await client.call(ECHO_PROGRAM, ECHO_VERSION, 0, null)).assertEnd();
    for (const procedure of [1, 2]) {
      for (const size of [0, 1, 100, 65_500, 65_536, 70_000, 1_048_576, 4 * 1024 * 1024]) {
        const payload = Buffer.alloc(size, size % 251);
        const reply = await client.call(ECHO_PROGRAM, ECHO_VERSION, procedure, (args) => args.opaque(payload), { argsBytesMax: size + 8 });
        assert.ok(reply.opaque(size).equals(payload), `${size} bytes`);
        reply.assertEnd();
      }
    }
    await until(() => server.usage.inFlightBytes === 0);
    await client.close();
  }));

test('a call cut at every byte boundary, between two writes of the client, is answered', () =>
  withEchoServer(async ({ port }) => {
    const connection = await RawConnection.open(port);
    const call = echoCall(1, Buffer.from('cut me'));
    for (let cut = 1; cut < call.length; cut++) {
      call.writeUInt32BE(cut, 4);
      await connection.send(Buffer.from(call.subarray(0, cut)));
      // Nagle is off, so each write is a segment; whether they meet again in the server's buffer does not matter.
      await connection.send(Buffer.from(call.subarray(cut)));
    }
    await connection.waitForReplies(call.length - 1);
    assert.deepEqual(
      connection.replies.map((reply) => reply.readUInt32BE(0)),
      Array.from({ length: call.length - 1 }, (_, i) => i + 1),
    );
    assert.ok(connection.replies.every((reply) => reply.toString('latin1', 28, 34) === 'cut me'));
    await connection.close();
  }));

test('records of fragments of 1, 2, 3 ... bytes are answered', () =>
  withEchoServer(async ({ port }) => {
    const connection = await RawConnection.open(port);
    const call = echoCall(9, Buffer.from('fragments'));
    for (let size = 1; size < call.length; size++) await connection.send(fragmented(call, size));
    await connection.waitForReplies(call.length - 1);
    assert.equal(connection.replies.length, call.length - 1);
    assert.ok(connection.replies.every((reply) => reply.toString('latin1', 28, 37) === 'fragments'));
    await connection.close();
  }));

test('64 calls in one segment get 64 replies, in one write', () =>
  withEchoServer(async ({ port, observer }) => {
    const connection = await RawConnection.open(port);
    await connection.send(Buffer.concat(Array.from({ length: 64 }, (_, i) => echoCall(i + 1, Buffer.alloc(16)))));
    await connection.waitForReplies(64);
    assert.deepEqual(new Set(connection.replies.map((reply) => reply.readUInt32BE(0))).size, 64);
    assert.equal(observer.counts['writes'], 1);
    await connection.close();
  }));

test('calls that finish in one turn later on are answered in one write, too', () =>
  withEchoServer(async ({ port, observer, program }) => {
    const client = await RpcClient.connect({ host: HOST, port });
    const calls = Array.from({ length: 50 }, () => client.call(ECHO_PROGRAM, ECHO_VERSION, 8, (args) => args.opaque(Buffer.alloc(10))));
    await until(() => program.heldCalls === 50);
    program.releaseHeld();
    await Promise.all(calls);
    assert.equal(observer.counts['writes'], 1);
    await client.close();
  }));

test('a call that waits holds nobody up: replies come in the order in which they are finished', () =>
  withEchoServer(async ({ port, program }) => {
    const client = await RpcClient.connect({ host: HOST, port });
    const order: string[] = [];
    const slow = client.call(ECHO_PROGRAM, ECHO_VERSION, 8, (args) => args.opaque(Buffer.alloc(1))).then(() => order.push('slow'));
    await client.call(ECHO_PROGRAM, ECHO_VERSION, 0, null).then(() => order.push('fast'));
    program.releaseHeld();
    await slow;
    assert.deepEqual(order, ['fast', 'slow']);
    await client.close();
  }));

test('a record over the cap closes the connection at its header, without allocating anything for it', () =>
  withEchoServer(
    async ({ port, server }) => {
      const before = process.memoryUsage().arrayBuffers;
      const connections: RawConnection[] = [];
      for (let i = 0; i < 20; i++) {
        const connection = await RawConnection.open(port);
        connections.push(connection);
        await connection.send(Buffer.from('ffffffff', 'hex'));
        await connection.waitForClose();
      }
      // 20 times 2 GiB were announced; receive slabs of 64 KiB each are what was there before the header.
      assert.ok(process.memoryUsage().arrayBuffers - before < 16 * 1024 * 1024);
      assert.equal(server.usage.partialBytes, 0);

      const fits = await RawConnection.open(port);
      await fits.send(echoCall(1, Buffer.alloc(1000 - 100)));
      await fits.waitForReplies(1);
      assert.equal(fits.replies.length, 1);
      await fits.send(echoCall(1, Buffer.alloc(1000)));
      await fits.waitForClose();
    },
    { limits: { recordBytesMax: 1000 } },
  ));

test('a WRITE-like record of 4 MiB is accepted by default', () =>
  withEchoServer(async ({ port, program }) => {
    const client = await RpcClient.connect({ host: HOST, port });
    const size = 4 * 1024 * 1024;
    const call = client.call(ECHO_PROGRAM, ECHO_VERSION, 8, (args) => args.opaque(Buffer.alloc(size)), { argsBytesMax: size + 8 });
    await until(() => program.heldCalls === 1);
    program.releaseHeld();
    assert.equal((await call).uint32(), size);
    await client.close();
  }));

test('the credential reaches the program, and changes when the client changes it', async () => {
  const seen: RpcCredential[] = [];
  const program = new OneProcedure((call) => {
    seen.push(call.credential);
    call.finish(call.beginReply(0));
    return null;
  });
  await withProgram(program, async (port) => {
    const root = authSys({ machineName: 'esx', gids: Array.from({ length: 16 }, (_, i) => i) });
    const client = await RpcClient.connect({ host: HOST, port, credential: root });
    await client.call(77, 1, 1, null);
    await client.call(77, 2, 1, null);
    await client.call(77, 1, 1, null, { credential: authSys({ uid: 1000, gid: 100, machineName: 'other', stamp: 5 }) });
    await client.call(77, 1, 1, null, { credential: authSys({ uid: 1001, gid: 100, machineName: 'other', stamp: 5 }) });
    await client.call(77, 1, 1, null, { credential: { ...authSys(), flavor: 'none' } });
    await client.call(77, 1, 1, null);
    assert.deepEqual(seen[0], root);
    assert.equal(seen[0], seen[1], 'the same bytes are parsed once');
    assert.deepEqual(
      seen.map((credential) => [credential.flavor, credential.uid, credential.machineName]),
      [
        ['sys', 0, 'esx'],
        ['sys', 0, 'esx'],
        ['sys', 1000, 'other'],
        ['sys', 1001, 'other'],
        ['none', 65534, ''],
        ['sys', 0, 'esx'],
      ],
    );
    await client.close();
  });
});

test('the message hash is of the call with its credential, without its xid', async () => {
  const hashes: string[] = [];
  const program = new OneProcedure((call) => {
    hashes.push(call.messageHash());
    call.finish(call.beginReply(0));
    return null;
  });
  await withProgram(program, async (port) => {
    const client = await RpcClient.connect({ host: HOST, port, credential: authSys() });
    const large = { argsBytesMax: 300_008 };
    for (const xid of [1, 2]) await client.call(77, 1, 1, (args) => args.opaque(Buffer.alloc(5)), { xid });
    for (const xid of [1, 2]) await client.call(77, 1, 1, (args) => args.opaque(Buffer.alloc(300_000)), { ...large, xid });
    await client.call(77, 1, 1, (args) => args.opaque(Buffer.alloc(5, 1)));
    await client.call(77, 1, 2, (args) => args.opaque(Buffer.alloc(5)));
    await client.call(77, 1, 1, (args) => args.opaque(Buffer.alloc(5)), { credential: authSys({ uid: 1 }) });
    assert.match(hashes[0]!, /^[0-9a-f]{32}$/);
    assert.equal(hashes[0], hashes[1]);
    assert.equal(hashes[2], hashes[3]);
    assert.equal(new Set(hashes).size, 5);
    await client.close();
  });
});

test('a reply begun twice is sent once, as begun last, and a program that fails after beginning one answers SYSTEM_ERR', async () => {
  const program = new OneProcedure((call) => {
    const first = call.beginReply(100);
    first.uint32(1);
    if (call.procedure === 2) throw new Error('on purpose');
    if (call.procedure === 3) throw new AssertionError('a bug');
    const second = call.beginReply(200_000);
    second.uint32(2);
    call.finish(second);
    return null;
  });
  await withProgram(program, async (port, bugs, server) => {
    const client = await RpcClient.connect({ host: HOST, port });
    const reply = await client.call(77, 1, 1, null);
    assert.equal(reply.uint32(), 2);
    reply.assertEnd();
    for (const procedure of [2, 3]) {
      await assert.rejects(
        client.call(77, 1, procedure, null),
        (error) => error instanceof RpcRejectedError && error.refusal.reason === 'system-error',
      );
    }
    assert.equal(bugs.length, 1, 'a bug is reported, an unexpected error only logged');
    await until(() => server.usage.inFlightBytes === 0);
    await client.close();
  });
});

test('a call whose promise is still pending keeps its object, though its reply is sent and other calls follow', async () => {
  const xids: [number, number][] = [];
  const program = new OneProcedure(async (call) => {
    const { xid } = call;
    call.finish(call.beginReply(0));
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
    xids.push([xid, call.xid]);
    throw new Error('after the reply');
  });
  await withProgram(program, async (port) => {
    const client = await RpcClient.connect({ host: HOST, port });
    for (let i = 0; i < 20; i++) await client.call(77, 1, 1, null);
    await until(() => xids.length === 20);
    assert.ok(xids.every(([own, later]) => own === later));
    await client.close();
  });
});

test('a program that writes more than the room it asked for is a bug: SYSTEM_ERR, and nothing of it is sent', async () => {
  const program = new OneProcedure((call) => {
    const writer = call.beginReply(4);
    writer.uint32(1);
    writer.uint32(2);
    call.finish(writer);
    return null;
  });
  await withProgram(program, async (port, bugs) => {
    const client = await RpcClient.connect({ host: HOST, port });
    await assert.rejects(client.call(77, 1, 1, null), RpcRejectedError);
    assert.equal(bugs.length, 1);
    await client.close();
  });
});

test('eight connections of one host do not disturb each other, nor does the loss of one', () =>
  withEchoServer(async ({ port, program, server }) => {
    const clients = await Promise.all(Array.from({ length: 8 }, () => RpcClient.connect({ host: HOST, port })));
    const calls = clients.map((client) => client.call(ECHO_PROGRAM, ECHO_VERSION, 8, (args) => args.opaque(Buffer.alloc(10))));
    await until(() => program.heldCalls === 8);
    await clients[0]!.close();
    await assert.rejects(calls[0]!, (error) => error instanceof ApplianceError && error.code === 'rpc-connection-lost');
    program.releaseHeld();
    assert.equal((await Promise.all(calls.slice(1))).length, 7);
    await until(() => server.usage.connections === 7 && server.usage.inFlightBytes === 0);
    await Promise.all(clients.map((client) => client.close()));
  }));

test('a client that says it will send no more still gets its replies', () =>
  withEchoServer(async ({ port, program }) => {
    const connection = await RawConnection.open(port);
    await connection.send(echoCall(1, Buffer.alloc(1)));
    await connection.send(encodeCall(2, ECHO_PROGRAM, ECHO_VERSION, 8, encodeCredential(authSys()), (args) => args.opaque(Buffer.alloc(1)), 8));
    connection.half();
    await until(() => program.heldCalls === 1);
    program.releaseHeld();
    await connection.waitForClose();
    assert.equal(connection.replies.length, 2);
  }));

test('connections above the limit are refused, and accepted again when one is gone', () =>
  withEchoServer(
    async ({ port, observer, server }) => {
      const clients = [await RpcClient.connect({ host: HOST, port }), await RpcClient.connect({ host: HOST, port })];
      const refused = await RawConnection.open(port);
      await refused.waitForClose();
      assert.equal(observer.counts['refused connection'], 1);
      await clients[0]!.call(ECHO_PROGRAM, ECHO_VERSION, 0, null);
      await clients[0]!.close();
      await until(() => server.usage.connections === 1);
      const next = await RpcClient.connect({ host: HOST, port });
      await next.call(ECHO_PROGRAM, ECHO_VERSION, 0, null);
      await next.close();
      await clients[1]!.close();
    },
    { limits: { connectionsMax: 2 } },
  ));

test('a port in use is an error that says so', () =>
  withEchoServer(async ({ port, udpPort, server }) => {
    const isInUse = (error: unknown): boolean => error instanceof ApplianceError && error.code === 'EADDRINUSE' && /port \d+/.test(error.message);
    await assert.rejects(server.listenTcp({ host: HOST, port, programs: [] }), isInUse);
    await assert.rejects(server.listenUdp({ host: HOST, port: udpPort, programs: [] }), isInUse);
  }));

test('programs are served on every port that names them', () =>
  withEchoServer(async ({ port, server }) => {
    const one = new OneProcedure((call) => {
      call.finish(call.beginReply(0));
      return null;
    });
    const second = await server.listenTcp({ host: HOST, port: 0, programs: [new EchoProgram(), one] });
    const client = await RpcClient.connect({ host: HOST, port: second.port });
    await client.call(ECHO_PROGRAM, ECHO_VERSION, 0, null);
    await client.call(77, 2, 0, null);
    const first = await RpcClient.connect({ host: HOST, port });
    await assert.rejects(first.call(77, 2, 0, null), (error) => error instanceof RpcRejectedError && error.refusal.reason === 'program-unavailable');
    await client.close();
    await first.close();
  }));

test('close lets running calls finish, executes no new ones, and refuses connections', async () => {
  const server = new RpcServer({ clock: systemClock, logger: silentLogger });
  const program = new EchoProgram();
  const { port } = await server.listenTcp({ host: HOST, port: 0, programs: [program] });
  const client = await RpcClient.connect({ host: HOST, port });
  const idle = await RpcClient.connect({ host: HOST, port });
  const running = client.call(ECHO_PROGRAM, ECHO_VERSION, 8, (args) => args.opaque(Buffer.alloc(1)));
  await until(() => program.heldCalls === 1);
  const closing = server.close(60_000);
  await idle.closed();
  await assert.rejects(RpcClient.connect({ host: HOST, port }), (error) => error instanceof ApplianceError && error.code === 'rpc-connect-failed');
  const late = assert.rejects(client.call(ECHO_PROGRAM, ECHO_VERSION, 0, null), ApplianceError);
  program.releaseHeld();
  assert.equal((await running).uint32(), 1);
  await late;
  await closing;
  assert.equal(server.usage.inFlightBytes, 0);
});

test('close gives up on calls that do not finish by the deadline; what they answer later goes nowhere', async () => {
  const server = new RpcServer({ clock: systemClock, logger: silentLogger });
  const program = new EchoProgram();
  const { port } = await server.listenTcp({ host: HOST, port: 0, programs: [program] });
  const client = await RpcClient.connect({ host: HOST, port });
  const running = assert.rejects(
    client.call(ECHO_PROGRAM, ECHO_VERSION, 8, (args) => args.opaque(Buffer.alloc(1))),
    ApplianceError,
  );
  await until(() => program.heldCalls === 1);
  await server.close(10);
  await running;
  program.releaseHeld();
  assert.equal(server.usage.inFlightBytes, 0);
});

test('calls by UDP are answered, at once and later, and refused like any other', () =>
  withEchoServer(async ({ udpPort, program }) => {
    const to = { host: HOST, port: udpPort, timeoutMs: 240_000 };
    const payload = Buffer.from('datagram');
    for (const procedure of [1, 2]) {
      const reply = await callUdp(ECHO_PROGRAM, ECHO_VERSION, procedure, (args) => args.opaque(payload), { ...to, credential: authSys() });
      assert.equal(reply.opaque(8).toString(), 'datagram');
    }
    await assert.rejects(callUdp(1, 1, 1, null, to), (error) => error instanceof RpcRejectedError && error.refusal.reason === 'program-unavailable');
    const held = callUdp(ECHO_PROGRAM, ECHO_VERSION, 8, (args) => args.opaque(payload), to);
    await until(() => program.heldCalls === 1);
    program.releaseHeld();
    assert.equal((await held).uint32(), 8);
  }));

test('datagrams beyond the limit of calls executing are dropped, and replies that fit no datagram are not sent', () =>
  withEchoServer(
    async ({ udpPort, program, server }) => {
      const to = { host: HOST, port: udpPort, timeoutMs: 240_000 };
      const held = [1, 2].map(() => callUdp(ECHO_PROGRAM, ECHO_VERSION, 8, (args) => args.opaque(Buffer.alloc(4)), to));
      await until(() => program.heldCalls === 2);
      const isTimeout = (error: unknown): boolean => error instanceof ApplianceError && error.code === 'rpc-timeout';
      await assert.rejects(callUdp(ECHO_PROGRAM, ECHO_VERSION, 0, null, { ...to, timeoutMs: 50 }), isTimeout);
      program.releaseHeld();
      await Promise.all(held);
      const tooLong = callUdp(ECHO_PROGRAM, ECHO_VERSION, 3, (args) => args.uint32(70_000), { ...to, timeoutMs: 50 });
      await assert.rejects(tooLong, isTimeout);
      await callUdp(ECHO_PROGRAM, ECHO_VERSION, 0, null, to);
      assert.equal(server.usage.outstandingCalls, 0);
    },
    { limits: { datagramCallsMax: 2 } },
  ));

test('a datagram that is no call is not answered', () =>
  withEchoServer(async ({ udpPort, server }) => {
    const raw = await import('node:dgram').then((dgram) => dgram.createSocket('udp4'));
    for (const hex of ['', '00', '0000000100000001', 'ffffffff']) {
      await new Promise((resolve) => raw.send(Buffer.from(hex, 'hex'), udpPort, HOST, resolve));
    }
    raw.on('message', () => assert.fail('answered'));
    // The server takes datagrams in order: when this one is answered, the others were looked at.
    await callUdp(ECHO_PROGRAM, ECHO_VERSION, 0, null, { host: HOST, port: udpPort, timeoutMs: 240_000 });
    assert.equal(server.usage.outstandingCalls, 0);
    await new Promise<void>((resolve) => raw.close(() => resolve()));
  }));
