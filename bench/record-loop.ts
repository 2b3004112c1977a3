/**
 * A process that answers the load generator with the right shapes and does nothing else: no decoding, no data kept. What the generator
 * reaches against it is the ceiling of generator, sockets and Node together on this machine. Usage: record-loop.ts (prints its port).
 */
import net from 'node:net';

import { CALL_HEADER_BYTES, MOUNT_PROGRAM, NfsProcedure } from './nfs-calls.ts';

const RECEIVE_BYTES = 1 << 20;
const HANDLE_BYTES = 32;
const SEND_BYTES = 1 << 20;
const PAYLOAD = Buffer.alloc(1 << 20, 0x5a);

interface Connection {
  readonly socket: net.Socket;
  slab: Buffer;
  from: number;
  to: number;
}

function replyWith(results: number[]): Buffer {
  const reply = Buffer.alloc(28 + 4 * results.length);
  reply.writeUInt32BE(0x80000000 + reply.length - 4, 0);
  reply.writeUInt32BE(1, 8);
  for (const [index, value] of results.entries()) reply.writeUInt32BE(value >>> 0, 28 + 4 * index);
  return reply;
}

const ATTRIBUTES = Array.from({ length: 21 }, (_, index) => index + 1);
const HANDLE = [HANDLE_BYTES, ...Array.from({ length: HANDLE_BYTES / 4 }, (_, index) => index)];
const REPLIES = new Map<number, Buffer>([
  [NfsProcedure.NULL, replyWith([])],
  [NfsProcedure.GETATTR, replyWith([0, ...ATTRIBUTES])],
  [NfsProcedure.LOOKUP, replyWith([0, ...HANDLE, 1, ...ATTRIBUTES, 1, ...ATTRIBUTES])],
  [NfsProcedure.READ, replyWith([0, 1, ...ATTRIBUTES, 0, 0, 0])],
  [NfsProcedure.WRITE, replyWith([0, 0, 1, ...ATTRIBUTES, 0, 2, 0, 0])],
  [NfsProcedure.COMMIT, replyWith([0, 0, 1, ...ATTRIBUTES, 0, 0])],
  [NfsProcedure.CREATE, replyWith([0, 1, ...HANDLE, 1, ...ATTRIBUTES, 0, 1, ...ATTRIBUTES])],
  [NfsProcedure.REMOVE, replyWith([0, 0, 1, ...ATTRIBUTES])],
]);
const MOUNT_REPLY = replyWith([0, ...HANDLE, 1, 1]);

/** The beginning of a call is all that is looked at: header, handle, offset, count. */
const CALL_HEAD_BYTES = CALL_HEADER_BYTES + 4 + 64 + 12;

function answer(connection: Connection, head: Buffer, at: number): void {
  const isMount = head.readUInt32BE(at + 16) === MOUNT_PROGRAM;
  const procedure = head.readUInt32BE(at + 24);
  const reply = isMount ? MOUNT_REPLY : REPLIES.get(procedure);
  if (reply === undefined) throw new Error(`procedure ${procedure} is not answered here`);
  const isRead = !isMount && procedure === NfsProcedure.READ;
  if (connection.slab.length - connection.to < reply.length + 4) turnSlab(connection);
  const start = connection.to;
  const slab = connection.slab;
  reply.copy(slab, start);
  head.copy(slab, start + 4, at + 4, at + 8);
  connection.to = start + reply.length;
  if (isMount || (procedure !== NfsProcedure.READ && procedure !== NfsProcedure.WRITE)) return;
  const behindHandle = at + CALL_HEADER_BYTES + 4 + HANDLE_BYTES;
  const count = head.readUInt32BE(behindHandle + 8);
  if (!isRead) {
    slab.writeUInt32BE(count, connection.to - 16);
    return;
  }
  slab.writeUInt32BE(0x80000000 + reply.length - 4 + count, start);
  slab.writeUInt32BE(count, connection.to - 12);
  slab.writeUInt32BE(count, connection.to - 4);
  const offsetBytes = head.readUInt32BE(behindHandle) * 2 ** 32 + head.readUInt32BE(behindHandle + 4);
  slab.writeUInt32BE(offsetBytes / 4096, connection.to);
  connection.to += 4;
  if (count <= 8192 && slab.length - connection.to >= count) {
    // As a server would: the data is copied into the reply.
    PAYLOAD.copy(slab, connection.to, 0, count - 4);
    connection.to += count - 4;
    return;
  }
  flush(connection);
  connection.socket.write(PAYLOAD.subarray(0, count - 4));
}

function turnSlab(connection: Connection): void {
  flush(connection);
  connection.slab = Buffer.allocUnsafeSlow(SEND_BYTES);
  connection.from = 0;
  connection.to = 0;
}

function flush(connection: Connection): void {
  if (connection.to === connection.from) return;
  connection.socket.write(connection.slab.subarray(connection.from, connection.to));
  connection.from = connection.to;
}

function serve(accepted: net.Socket): void {
  // An accepted socket gets a fixed receive buffer only this way (toolchain.md 7).
  const source = accepted as net.Socket & { _handle: unknown };
  const handle = source._handle;
  source._handle = null;
  accepted.destroy();
  const head = Buffer.alloc(CALL_HEAD_BYTES);
  let headBytes = 0;
  let left = 0;
  const receive = (received: Buffer, bytesRead: number): void => {
    let at = 0;
    while (at < bytesRead) {
      if (left === 0) {
        if (headBytes === 0 && bytesRead - at >= 4) {
          // The usual case: the whole call lies in this chunk.
          const length = received.readUInt32BE(at) & 0x7fffffff;
          if (bytesRead - at >= length + 4) {
            answer(connection, received, at);
            at += length + 4;
            continue;
          }
        }
        while (headBytes < 4 && at < bytesRead) head[headBytes++] = received[at++]!;
        if (headBytes < 4) return;
        left = head.readUInt32BE(0) & 0x7fffffff;
      }
      const taken = Math.min(left, bytesRead - at);
      if (headBytes < CALL_HEAD_BYTES) headBytes += received.copy(head, headBytes, at, at + Math.min(taken, CALL_HEAD_BYTES - headBytes));
      at += taken;
      left -= taken;
      if (left === 0) {
        answer(connection, head, 0);
        headBytes = 0;
      }
    }
  };
  const socket = new net.Socket({
    handle,
    onread: {
      buffer: Buffer.allocUnsafeSlow(RECEIVE_BYTES),
      callback: (bytesRead: number, received: Uint8Array) => {
        connection.socket.cork();
        receive(received as Buffer, bytesRead);
        flush(connection);
        connection.socket.uncork();
        return true;
      },
    },
  } as net.SocketConstructorOpts);
  const connection: Connection = { socket, slab: Buffer.allocUnsafeSlow(SEND_BYTES), from: 0, to: 0 };
  socket.on('error', () => socket.destroy());
  socket.setNoDelay(true);
  socket.resume();
}

const server = net.createServer({ pauseOnConnect: true }, serve);
server.listen(0, '127.0.0.1', () => {
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('not a TCP address');
  process.stdout.write(`${address.port}\n`);
});
