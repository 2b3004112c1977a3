/**
 * Seeded fuzzing of record marking, call headers, credentials and the server's answers, over real sockets.
 *
 * What must hold for any bytes: every record is answered with a well-formed reply, or the connection is closed; nothing throws;
 * memory in flight returns to zero; the next client is served.
 */
import assert from 'node:assert/strict';

import type { AssertionError } from '../core/assert.ts';
import type { Logger } from '../core/logger.ts';
import { silentLogger } from '../core/logger.ts';
import { Dice } from '../core/testing/dice.ts';
import { ECHO_PROGRAM, ECHO_VERSION } from './echo-program.ts';
import { until, withEchoServer } from './echo-server.ts';
import { RawConnection } from './raw-connection.ts';
import { authSys, callUdp, encodeCall, RpcClient } from './rpc-client.ts';
import { encodeCredential } from './rpc-credential.ts';
import { XdrReader } from './xdr-reader.ts';

const CALLS_PER_CONNECTION_MAX = 20;
const IN_FLIGHT_BYTES_MAX = 8 * 1024 * 1024;

/** Small numbers that lengths, counts and enums turn on, and the edges of integers. */
const INTERESTING = [
  0, 1, 2, 3, 4, 16, 17, 255, 256, 400, 401, 4096, 65_535, 65_536, 0x7fff_ffff, 0x8000_0000, 0x8000_0001, 0xffff_fffc, 0xffff_ffff,
];

export interface FuzzReport {
  readonly connections: number;
  readonly replies: number;
  readonly closedEarly: number;
}

/** Sends `iterations` connections full of damaged calls. Throws (assertion) when the server does not cope; the message carries the seed. */
export async function fuzzRpc(seed: number, iterations: number): Promise<FuzzReport> {
  const dice = new Dice(seed);
  const bugs: AssertionError[] = [];
  const unexpected: string[] = [];
  const logger: Logger = {
    ...silentLogger,
    error: (fields) => {
      const { err, procedure } = fields as { err?: Error; procedure?: string };
      // Procedure 6 throws on purpose.
      if (procedure !== 'proc6') unexpected.push(`${procedure}: ${err?.stack}`);
    },
  };
  let replies = 0;
  let closedEarly = 0;
  await withEchoServer(
    async ({ port, udpPort, server, program }) => {
      for (let i = 0; i < iterations; i++) {
        const where = `seed ${seed}, connection ${i}`;
        const connection = await RawConnection.open(port);
        const stream = damagedStream(dice);
        for (let at = 0; at < stream.length;) {
          const step = dice.pick([1, 3, 7, 64, 1000, 100_000]);
          await connection.send(stream.subarray(at, at + step));
          at += step;
          // Single bytes take for ever on a long stream.
          if (at > 2000 && step < 64) at = await sendRest(connection, stream, at);
        }
        assert.ok(server.usage.inFlightBytes < IN_FLIGHT_BYTES_MAX, `${where}: ${server.usage.inFlightBytes} bytes in flight`);
        connection.half();
        await until(() => {
          program.releaseHeld();
          return connection.isClosed;
        });
        for (const reply of connection.replies) assertReply(reply, where);
        replies += connection.replies.length;
        if (connection.replies.length === 0) closedEarly += 1;
        if (dice.below(8) === 0) await sendDatagram(dice, udpPort);
      }
      program.releaseHeld();
      await until(() => {
        program.releaseHeld();
        return server.usage.outstandingCalls === 0 && server.usage.connections === 0;
      });
      assert.equal(server.usage.inFlightBytes, 0, `seed ${seed}: memory left in flight`);
      assert.equal(server.usage.partialBytes, 0, `seed ${seed}: partial records left`);
      const client = await RpcClient.connect({ host: '127.0.0.1', port });
      await client.call(ECHO_PROGRAM, ECHO_VERSION, 0, null, { timeoutMs: 5000 });
      await client.close();
    },
    { logger, onBug: (bug) => bugs.push(bug), limits: { recordBytesMax: 1024 * 1024, connectionBytesMax: 4 * 1024 * 1024 } },
  );
  assert.deepEqual(bugs, [], `seed ${seed}: assertions failed`);
  assert.deepEqual(unexpected, [], `seed ${seed}: unexpected errors`);
  return { connections: iterations, replies, closedEarly };
}

async function sendRest(connection: RawConnection, stream: Buffer, at: number): Promise<number> {
  await connection.send(stream.subarray(at));
  return stream.length;
}

/** Some calls, each possibly damaged, some cut into fragments, possibly with an end that never comes. */
function damagedStream(dice: Dice): Buffer {
  const parts: Buffer[] = [];
  const calls = 1 + dice.below(CALLS_PER_CONNECTION_MAX);
  for (let i = 0; i < calls; i++) parts.push(damagedRecord(dice));
  const stream = Buffer.concat(parts);
  switch (dice.below(8)) {
    case 0:
      return stream.subarray(0, dice.below(stream.length + 1));
    case 1:
      return Buffer.concat([stream, dice.bytes(dice.below(64))]);
    case 2:
      stream[dice.below(stream.length)]! ^= 1 << dice.below(8);
      return stream;
    default:
      return stream;
  }
}

function damagedRecord(dice: Dice): Buffer {
  const payload = dice.bytes(dice.pick([0, 1, 4, 13, 400, 5000]));
  const credential = encodeCredential(
    dice.below(3) === 0
      ? { ...authSys(), flavor: 'none' }
      : authSys({ uid: dice.below(3), gids: Array.from({ length: dice.below(17) }, (_, i) => i), machineName: 'fuzz' }),
  );
  const record = encodeCall(
    dice.below(4),
    ECHO_PROGRAM,
    ECHO_VERSION,
    dice.below(10),
    credential,
    (args) => args.opaque(payload),
    payload.length + 8,
  );
  let body: Buffer = Buffer.from(record.subarray(4));
  for (let damage = dice.below(4); damage > 0; damage--) body = damaged(dice, body);
  return fragmented(dice, body);
}

function damaged(dice: Dice, body: Buffer): Buffer {
  if (body.length === 0) return body;
  switch (dice.below(6)) {
    case 0:
      body[dice.below(body.length)] = dice.below(256);
      return body;
    case 1: {
      // A word in the header or the credential: where all the lengths and enums are.
      const at = 4 * dice.below(Math.max(Math.floor(Math.min(body.length, 120) / 4), 1));
      if (at + 4 <= body.length) body.writeUInt32BE(dice.pick(INTERESTING), at);
      return body;
    }
    case 2:
      return body.subarray(0, dice.below(body.length));
    case 3:
      return Buffer.concat([body, dice.bytes(dice.below(20))]);
    case 4: {
      const at = dice.below(body.length);
      return Buffer.concat([body.subarray(0, at), body.subarray(at + dice.below(12))]);
    }
    default:
      return body;
  }
}

function fragmented(dice: Dice, body: Buffer): Buffer {
  const size = dice.below(3) === 0 ? dice.pick([1, 2, 5, 50, 1000]) : body.length;
  const parts: Buffer[] = [];
  let at = 0;
  do {
    const part = body.subarray(at, at + Math.max(size, 1));
    at += part.length;
    const mark = Buffer.alloc(4);
    mark.writeUInt32BE(((at >= body.length ? 0x8000_0000 : 0) | part.length) >>> 0);
    if (dice.below(10) === 0) parts.push(Buffer.alloc(4));
    parts.push(mark, part);
  } while (at < body.length);
  return Buffer.concat(parts);
}

async function sendDatagram(dice: Dice, port: number): Promise<void> {
  const { createSocket } = await import('node:dgram');
  const socket = createSocket('udp4');
  socket.on('message', (reply) => assertReply(reply, 'UDP'));
  await new Promise((resolve) => socket.send(damagedRecord(dice).subarray(4), port, '127.0.0.1', resolve));
  // Answered whatever went before it.
  await callUdp(ECHO_PROGRAM, ECHO_VERSION, 0, null, { host: '127.0.0.1', port, timeoutMs: 5000 });
  await new Promise<void>((resolve) => socket.close(() => resolve()));
}

/** A reply message of RFC 5531 §9, whole. Results of successful calls are not looked at. */
function assertReply(reply: Buffer, where: string): void {
  const reader = new XdrReader([reply]);
  reader.uint32();
  assert.equal(reader.uint32(), 1, `${where}: not a reply`);
  const isDenied = reader.bool();
  if (isDenied) {
    if (reader.bool()) assert.ok([1, 2, 3, 5].includes(reader.uint32()), `${where}: unknown auth_stat`);
    else assert.deepEqual([reader.uint32(), reader.uint32()], [2, 2], where);
    reader.assertEnd();
    return;
  }
  assert.equal(reader.uint64(), 0n, `${where}: verifier`);
  const acceptStat = reader.uint32();
  assert.ok(acceptStat <= 5, `${where}: unknown accept_stat`);
  if (acceptStat === 2) assert.deepEqual([reader.uint32(), reader.uint32()], [3, 3], where);
  if (acceptStat !== 0) reader.assertEnd();
  assert.equal(reply.length % 4, 0, `${where}: not a multiple of four`);
}
