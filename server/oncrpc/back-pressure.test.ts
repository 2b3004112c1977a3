/** Every queue of a connection is bounded: at the bound the server stops reading, and goes on by itself. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { silentLogger } from '../core/logger.ts';
import type { Clock } from '../core/time.ts';
import { ECHO_PROGRAM, ECHO_VERSION } from './echo-program.ts';
import { until, withEchoServer } from './echo-server.ts';
import { RawConnection } from './raw-connection.ts';
import { authSys, encodeCall, RpcClient } from './rpc-client.ts';
import { encodeCredential } from './rpc-credential.ts';

const HOST = '127.0.0.1';
const KIB = 1024;
const MIB = 1024 * KIB;

function heldCall(xid: number, payloadBytes: number): Buffer {
  const credential = encodeCredential(authSys());
  return encodeCall(xid, ECHO_PROGRAM, ECHO_VERSION, 8, credential, (args) => args.opaque(Buffer.alloc(payloadBytes)), payloadBytes + 8);
}

function zerosCall(xid: number, replyBytes: number): Buffer {
  return encodeCall(xid, ECHO_PROGRAM, ECHO_VERSION, 3, encodeCredential(authSys()), (args) => args.uint32(replyBytes), 4);
}

/** Lets the event loop go round: enough for whatever is on its way over loopback to arrive and be looked at. */
async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setTimeout(resolve, 1));
}

/** A clock whose timers run when the test says so. */
class ManualClock implements Clock {
  #nowMs = 0;
  readonly #timers = new Set<{ atMs: number; run: () => void }>();

  wallMs(): number {
    return this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, run: () => void): () => void {
    const timer = { atMs: this.#nowMs + delayMs, run };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  soon(run: () => void): void {
    setImmediate(run);
  }

  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => this.after(delayMs, resolve));
  }

  advance(ms: number): void {
    this.#nowMs += ms;
    for (const timer of this.#timers) {
      if (timer.atMs > this.#nowMs) continue;
      this.#timers.delete(timer);
      timer.run();
    }
  }
}

test('4096 outstanding 64 KiB calls on one connection are all answered; memory stays bounded, and another connection is served meanwhile', () =>
  withEchoServer(async ({ port, server, program, observer }) => {
    const calls = 4096;
    const connection = await RawConnection.open(port);
    const record = heldCall(0, 64 * KIB);
    const before = process.memoryUsage().arrayBuffers;
    const sending = (async () => {
      for (let xid = 1; xid <= calls; xid++) {
        record.writeUInt32BE(xid, 4);
        await connection.send(Buffer.from(record));
      }
    })();
    await until(() => observer.counts['paused'] === 1);
    await settle();
    const atBound = server.usage;
    assert.ok(atBound.inFlightBytes >= 48 * MIB && atBound.inFlightBytes < 49 * MIB, `${atBound.inFlightBytes} bytes in flight`);
    assert.ok(program.heldCalls < 800, `${program.heldCalls} of ${calls} calls dispatched`);
    // The bound, twice: the client of this test is in the same process. All calls together are 256 MiB.
    assert.ok(process.memoryUsage().arrayBuffers - before < 128 * MIB, `${process.memoryUsage().arrayBuffers - before} bytes of buffers`);

    const other = await RpcClient.connect({ host: HOST, port });
    await other.call(ECHO_PROGRAM, ECHO_VERSION, 0, null, { timeoutMs: 240_000 });

    // A quarter done is not enough to go on, half is.
    program.releaseHeld(Math.floor(program.heldCalls / 4));
    await settle();
    assert.equal(observer.counts['resumed'], undefined);
    while (connection.replies.length < calls) {
      program.releaseHeld();
      assert.ok(server.usage.inFlightBytes < 49 * MIB);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await sending;
    assert.ok((observer.counts['resumed'] ?? 0) >= 1);
    assert.equal(new Set(connection.replies.map((reply) => reply.readUInt32BE(0))).size, calls);
    await until(() => server.usage.inFlightBytes === 0);
    await connection.close();
    await other.close();
  }));

test('small calls are bounded by their number', () =>
  withEchoServer(
    async ({ port, program, observer }) => {
      const connection = await RawConnection.open(port);
      await connection.send(Buffer.concat(Array.from({ length: 1000 }, (_, i) => heldCall(i, 4))));
      await until(() => observer.counts['paused'] === 1);
      await settle();
      assert.equal(program.heldCalls, 100);
      program.releaseHeld(49);
      await settle();
      assert.equal(program.heldCalls, 51);
      program.releaseHeld(1);
      await until(() => program.heldCalls === 100);
      while (connection.replies.length < 1000) {
        program.releaseHeld();
        await new Promise((resolve) => setImmediate(resolve));
      }
      await connection.close();
    },
    { limits: { outstandingCallsMax: 100 } },
  ));

test('a client that does not read stops its own calls, not those of others, and loses no reply when it reads again', () =>
  withEchoServer(async ({ port, server, observer }) => {
    const slow = await RpcClient.connect({ host: HOST, port });
    slow.pauseReading();
    const replyBytes = 256 * KIB;
    const calls = Array.from({ length: 400 }, () => slow.call(ECHO_PROGRAM, ECHO_VERSION, 3, (args) => args.uint32(replyBytes)));
    await until(() => observer.counts['paused'] === 1);
    await settle();
    // 100 MiB of replies were asked for.
    assert.ok(server.usage.inFlightBytes < 24 * MIB, `${server.usage.inFlightBytes} bytes in flight`);
    const other = await RpcClient.connect({ host: HOST, port });
    assert.equal((await other.call(ECHO_PROGRAM, ECHO_VERSION, 3, (args) => args.uint32(replyBytes))).remaining, replyBytes + 4);
    slow.resumeReading();
    for (const reply of await Promise.all(calls)) assert.equal(reply.remaining, replyBytes + 4);
    await until(() => server.usage.inFlightBytes === 0);
    await slow.close();
    await other.close();
  }));

test('a client that goes away while it reads nothing leaves nothing behind', () =>
  withEchoServer(async ({ port, server, observer }) => {
    const slow = await RpcClient.connect({ host: HOST, port });
    slow.pauseReading();
    const calls = Array.from({ length: 200 }, () => slow.call(ECHO_PROGRAM, ECHO_VERSION, 3, (args) => args.uint32(256 * KIB)));
    await until(() => observer.counts['paused'] === 1);
    await slow.close();
    assert.ok((await Promise.allSettled(calls)).every((result) => result.status === 'rejected'));
    await until(() => server.usage.connections === 0);
    assert.equal(server.usage.inFlightBytes, 0);
  }));

test('the bound over all connections holds heavy ones back, never a light one, and lets all go on', () =>
  withEchoServer(
    async ({ port, server, program, observer }) => {
      const heavy = await Promise.all(Array.from({ length: 4 }, () => RawConnection.open(port)));
      const calls = 64;
      const sending = heavy.map((connection) => connection.send(Buffer.concat(Array.from({ length: calls }, (_, i) => heldCall(i, 64 * KIB)))));
      await until(() => observer.counts['paused'] === 4);
      await settle();
      assert.ok(server.usage.inFlightBytes < 6 * MIB, `${server.usage.inFlightBytes} bytes in flight`);
      const light = await RpcClient.connect({ host: HOST, port });
      await light.call(ECHO_PROGRAM, ECHO_VERSION, 1, (args) => args.opaque(Buffer.alloc(64 * KIB)), { argsBytesMax: 65 * KIB, timeoutMs: 240_000 });
      while (heavy.some((connection) => connection.replies.length < calls)) {
        program.releaseHeld();
        await new Promise((resolve) => setImmediate(resolve));
      }
      await Promise.all(sending);
      await until(() => server.usage.inFlightBytes === 0);
      await Promise.all([...heavy.map((connection) => connection.close()), light.close()]);
    },
    { limits: { serverBytesMax: 4 * MIB, connectionBytesFloor: 512 * KIB } },
  ));

test('records that do not end are bounded over all connections: the most silent, biggest one is closed', () =>
  withEchoServer(
    async ({ port, server }) => {
      const connections = await Promise.all(Array.from({ length: 8 }, () => RawConnection.open(port)));
      const part = heldCall(1, 4 * MIB).subarray(0, 3 * MIB);
      await Promise.allSettled(connections.map((connection) => connection.send(part)));
      await until(() => server.usage.connections === 2);
      await until(() => server.usage.partialBytes > 5.9 * MIB);
      assert.ok(server.usage.partialBytes <= 8 * MIB);
      await Promise.all(connections.map((connection) => connection.close()));
      await until(() => server.usage.connections === 0);
      assert.equal(server.usage.partialBytes, 0);
    },
    { limits: { partialBytesMax: 8 * MIB } },
  ));

test('an idle connection is never closed; one that stops in the middle of a record or takes no reply is, after the stall time', async () => {
  const clock = new ManualClock();
  await withEchoServer(
    async ({ port, server, program, observer }) => {
      const idle = await RawConnection.open(port);
      await idle.send(zerosCall(1, 4));
      await idle.waitForReplies(1);
      const waiting = await RawConnection.open(port);
      await waiting.send(heldCall(2, 4));
      await until(() => program.heldCalls === 1);
      const halfway = await RawConnection.open(port);
      await halfway.send(zerosCall(1, 4).subarray(0, 10));
      const deaf = await RpcClient.connect({ host: HOST, port });
      deaf.pauseReading();
      const unread = Promise.allSettled(
        Array.from({ length: 100 }, () => deaf.call(ECHO_PROGRAM, ECHO_VERSION, 3, (args) => args.uint32(256 * KIB))),
      );
      await until(() => observer.counts['paused'] === 1);
      await settle();
      assert.equal(server.usage.connections, 4);
      for (let sweep = 0; sweep < 4; sweep++) {
        clock.advance(45_000);
        assert.equal(halfway.isClosed, false);
      }
      clock.advance(45_000);
      await halfway.waitForClose();
      await until(() => server.usage.connections === 2);
      for (let sweep = 0; sweep < 100; sweep++) clock.advance(45_000);
      program.releaseHeld();
      await waiting.waitForReplies(1);
      await idle.send(zerosCall(3, 4));
      await idle.waitForReplies(2);
      assert.equal(idle.isClosed || waiting.isClosed, false);
      await deaf.close();
      await unread;
      await Promise.all([idle.close(), waiting.close()]);
    },
    { clock, logger: silentLogger },
  );
});
