/** What a connection hands to its socket, seen on a socket that only takes notes. */
import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { test } from 'node:test';

import { silentLogger } from '../core/logger.ts';
import { CallService } from './call-service.ts';
import { DUPLICATE_REQUEST_CACHE_LIMITS, DuplicateRequestCache } from './duplicate-request-cache.ts';
import { ECHO_PROGRAM, ECHO_VERSION, EchoProgram } from './echo-program.ts';
import { authSys, encodeCall } from './rpc-client.ts';
import { encodeCredential } from './rpc-credential.ts';
import { RPC_LIMITS } from './rpc-limits.ts';
import { silentRpcObserver } from './rpc-observer.ts';
import { SendBufferPool } from './send-buffer.ts';
import { TcpConnection } from './tcp-connection.ts';

class NotingSocket extends EventEmitter {
  readonly writes: Buffer[] = [];
  /** The system takes what is written before `write` returns. */
  takesAtOnce = false;
  writableLength = 0;
  readonly #callbacks: (() => void)[] = [];

  write(bytes: Buffer, done?: () => void): void {
    if (bytes.length > 0) this.writes.push(bytes);
    if (!this.takesAtOnce) this.writableLength += bytes.length;
    if (done !== undefined) this.#callbacks.push(done);
  }

  /** The system has taken everything written so far. */
  taken(): void {
    this.writableLength = 0;
    for (const done of this.#callbacks.splice(0)) done();
  }

  cork(): void {}
  uncork(): void {}
  resume(): void {}
  end(): void {}
  destroy(): void {}
}

function connect(): { connection: TcpConnection; socket: NotingSocket; program: EchoProgram; pool: SendBufferPool } {
  const socket = new NotingSocket();
  const program = new EchoProgram();
  const pool = new SendBufferPool(RPC_LIMITS.freeBufferBytesMax);
  const clock = { wallMs: () => 0, monotonicMs: () => 0, after: () => () => {}, soon() {}, sleep: () => Promise.resolve() };
  const host = {
    service: new CallService({
      duplicates: new DuplicateRequestCache(DUPLICATE_REQUEST_CACHE_LIMITS, clock),
      observer: silentRpcObserver,
      logger: silentLogger,
      onBug: (error: Error) => {
        throw error;
      },
    }),
    pool,
    limits: RPC_LIMITS,
    outstandingCalls: 0,
    observer: silentRpcObserver,
    atEndOfTurn() {},
    charge() {},
    isOverloaded: () => false,
    chargePartial() {},
    closed() {},
  };
  return { connection: new TcpConnection(host, [program], socket as unknown as Socket, '192.0.2.1', 1000), socket, program, pool };
}

function calls(procedure: number, count: number, payloadBytes: number): Buffer {
  const credential = encodeCredential(authSys());
  const encode = (xid: number): Buffer =>
    encodeCall(xid, ECHO_PROGRAM, ECHO_VERSION, procedure, credential, (args) => args.opaque(Buffer.alloc(payloadBytes, xid)), payloadBytes + 8);
  return Buffer.concat(Array.from({ length: count }, (_, i) => encode(i)));
}

test('replies that are finished one after another are one contiguous piece, without gaps for room that they did not need', () => {
  const { connection, socket } = connect();
  assert.equal(connection.receive(calls(1, 64, 5)), true);
  assert.equal(socket.writes.length, 1);
  // Record mark, header, count, 5 bytes padded to 8: the program had asked for 5 + 8.
  assert.equal(socket.writes[0]!.length, 64 * (4 + 24 + 4 + 8));
});

test('while a write is under way, replies gather for the next one', () => {
  const { connection, socket } = connect();
  connection.receive(calls(1, 1, 4));
  for (let i = 0; i < 10; i++) connection.receive(calls(1, 1, 4));
  assert.equal(socket.writes.length, 1);
  socket.taken();
  assert.equal(socket.writes.length, 2);
  assert.equal(socket.writes[1]!.length, 10 * (4 + 24 + 8));
});

test('what the system takes at once is free again at once, and waits for no callback', () => {
  const { connection, socket, pool } = connect();
  socket.takesAtOnce = true;
  connection.receive(calls(1, 10, 1000));
  assert.ok(pool.freeBytes > 0);
  assert.deepEqual([connection.inFlightBytes, connection.isIdle], [0, true]);
  connection.receive(calls(1, 1, 4));
  assert.equal(socket.writes.length, 2);
});

test('bytes handed to the socket are not touched until it has taken them', () => {
  const { connection, socket } = connect();
  connection.receive(calls(1, 100, 3000));
  const before = socket.writes.map((bytes) => Buffer.from(bytes));
  for (let i = 0; i < 20; i++) connection.receive(calls(1, 100, 3000));
  assert.ok(socket.writes.slice(0, before.length).every((bytes, i) => bytes.equals(before[i]!)));
});

test('send buffers go back to the pool when everything cut from them is sent, and not before', () => {
  const { connection, socket, program, pool } = connect();
  connection.receive(calls(1, 10, 1000));
  assert.equal(pool.freeBytes, 0);
  socket.taken();
  assert.ok(pool.freeBytes > 0);
  assert.equal(connection.inFlightBytes, 0);

  connection.receive(calls(8, 3, 10));
  program.releaseHeld(1);
  connection.turn();
  socket.taken();
  program.releaseHeld();
  connection.turn();
  socket.taken();
  assert.equal(connection.outstanding, 0);
  assert.equal(connection.inFlightBytes, 0);
});

test('replies above 64 KiB have a buffer of their own, which is used again', () => {
  const { connection, socket, pool } = connect();
  const free: number[] = [];
  for (let i = 0; i < 5; i++) {
    connection.receive(calls(1, 1, 1024 * 1024));
    socket.taken();
    free.push(pool.freeBytes);
  }
  assert.ok(free[0]! >= 1024 * 1024);
  assert.deepEqual(new Set(free).size, 1);
});

test('what arrives after the end was announced is thrown away, not kept', () => {
  const { connection, socket, program } = connect();
  connection.receive(calls(8, 1, 4));
  connection.end();
  for (let i = 0; i < 10; i++) assert.equal(connection.receive(calls(1, 1, 1000).subarray(0, 500)), true);
  assert.equal(connection.isMidRecord, false);
  program.releaseHeld();
  connection.turn();
  assert.equal(socket.writes.length, 1);
});
