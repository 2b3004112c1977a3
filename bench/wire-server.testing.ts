/**
 * A slow and careful NFS server for the tests of the load generator: it decodes every call, remembers what it saw, and can answer wrong.
 */
import { once } from 'node:events';
import net from 'node:net';

import { CALL_HEADER_BYTES, MOUNT_PROGRAM, NfsProcedure } from './nfs-calls.ts';

export interface WireServer extends AsyncDisposable {
  readonly port: number;
  readonly writes: { offsetBytes: number; stamps: number[] }[];
  readonly names: Set<string>;
  created: number;
  commits: number;
  outstandingMax: number;
}

/** What a READ is answered with instead of its data. */
export type WireFault = 'status' | 'short' | 'wrong-block' | 'xid' | 'close';

const HANDLE = Buffer.alloc(32, 7);
const ATTRIBUTES = Buffer.alloc(84, 1);

function words(...values: number[]): Buffer {
  const out = Buffer.alloc(4 * values.length);
  for (const [index, value] of values.entries()) out.writeUInt32BE(value, 4 * index);
  return out;
}

export async function startWireServer(options: { readonly fault?: WireFault }): Promise<WireServer> {
  const sockets = new Set<net.Socket>();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    let received = Buffer.alloc(0);
    const waiting: Buffer[] = [];
    socket.on('data', (chunk) => {
      received = Buffer.concat([received, chunk]);
      while (received.length >= 4) {
        const end = 4 + (received.readUInt32BE(0) & 0x7fffffff);
        if (received.length < end) break;
        waiting.push(received.subarray(0, end));
        received = received.subarray(end);
      }
      state.outstandingMax = Math.max(state.outstandingMax, waiting.length);
      // A turn later, so that everything outstanding has come together.
      setImmediate(() => {
        for (const call of waiting.splice(0)) answer(socket, call);
      });
    });
  });

  function answer(socket: net.Socket, call: Buffer): void {
    const procedure = call.readUInt32BE(24);
    const isMount = call.readUInt32BE(16) === MOUNT_PROGRAM;
    let xid = call.readUInt32BE(4);
    let results: Buffer;
    const args = call.subarray(CALL_HEADER_BYTES);
    const name = (): string => args.toString('latin1', 4 + 32 + 4, 4 + 32 + 4 + args.readUInt32BE(4 + 32));
    const offsetBytes = args.length >= 44 ? args.readUInt32BE(36) * 2 ** 32 + args.readUInt32BE(40) : 0;
    if (isMount) results = Buffer.concat([words(0, 32), HANDLE, words(1, 1)]);
    else if (procedure === NfsProcedure.LOOKUP) results = Buffer.concat([words(0, 32), HANDLE, words(0, 0)]);
    else if (procedure === NfsProcedure.CREATE) {
      const status = state.names.has(name()) ? 17 : 0;
      state.names.add(name());
      state.created += 1;
      results = Buffer.concat([words(status, 0, 0, 0, 0)]);
    } else if (procedure === NfsProcedure.REMOVE) results = words(state.names.delete(name()) ? 0 : 2, 0, 0);
    else if (procedure === NfsProcedure.COMMIT) {
      state.commits += 1;
      results = words(0, 0, 0, 1, 2);
    } else if (procedure === NfsProcedure.WRITE) {
      const count = args.readUInt32BE(44);
      const stamps = Array.from({ length: count / 4096 }, (_, block) => args.readUInt32BE(56 + block * 4096));
      state.writes.push({ offsetBytes, stamps });
      results = Buffer.concat([words(0, 1), Buffer.alloc(24), words(1), ATTRIBUTES, words(count, 2, 1, 2)]);
    } else if (procedure === NfsProcedure.READ) {
      if (options.fault === 'close') {
        socket.destroy();
        return;
      }
      if (options.fault === 'xid') xid += 256;
      const count = options.fault === 'short' ? 4000 : args.readUInt32BE(44);
      const data = Buffer.alloc(count);
      data.writeUInt32BE(offsetBytes / 4096 + (options.fault === 'wrong-block' ? 1 : 0), 0);
      results = Buffer.concat([words(options.fault === 'status' ? 5 : 0, 1), ATTRIBUTES, words(count, 0, count), data]);
    } else throw new Error(`procedure ${procedure}`);
    socket.write(Buffer.concat([words(0x80000000 + 24 + results.length, xid, 1, 0, 0, 0, 0), results]));
  }

  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('not a TCP address');
  const state: WireServer = {
    port: address.port,
    writes: [],
    names: new Set<string>(),
    created: 0,
    commits: 0,
    outstandingMax: 0,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
  return state;
}
