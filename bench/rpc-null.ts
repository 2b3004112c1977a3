/**
 * Micro benchmark of the RPC layer: server and load generator in two processes on loopback, one connection.
 * Usage: node bench/rpc-null.ts [seconds per case]
 *
 * The generator writes pre-encoded calls and counts record marks, so that it costs less than what it measures.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';

import { silentLogger } from '../server/core/logger.ts';
import { systemClock } from '../server/core/node-time.ts';
import { ECHO_PROGRAM, ECHO_VERSION, EchoProgram } from '../server/oncrpc/echo-program.ts';
import { authSys, encodeCall } from '../server/oncrpc/rpc-client.ts';
import { encodeCredential } from '../server/oncrpc/rpc-credential.ts';
import type { DispatchRefusal, RpcCall } from '../server/oncrpc/rpc-program.ts';
import { RpcServer } from '../server/oncrpc/rpc-server.ts';

/** Takes WRITE-like arguments (procedure 9) without touching the payload, and answers READ-like ones (10) from one buffer. */
class BenchProgram extends EchoProgram {
  readonly #data = Buffer.alloc(1024 * 1024, 1);

  override dispatch(call: RpcCall): DispatchRefusal | Promise<DispatchRefusal> {
    if (call.procedure === 9) {
      const { countBytes } = call.args.opaqueChunks(4 * 1024 * 1024);
      const writer = call.beginReply(120);
      writer.uint32(countBytes);
      call.finish(writer);
      return null;
    }
    if (call.procedure === 10) {
      const countBytes = call.args.uint32();
      const writer = call.beginReply(countBytes + 128);
      writer.uint32(countBytes);
      this.#data.copy(writer.reserve(countBytes), 0, 0, countBytes);
      call.finish(writer);
      return null;
    }
    return super.dispatch(call);
  }
}

interface Case {
  readonly name: string;
  readonly procedure: number;
  readonly argsBytes: number;
  readonly outstanding: number;
  readonly countBytes: number;
}

const CASES: readonly Case[] = [
  { name: 'NULL', procedure: 0, argsBytes: 0, outstanding: 1, countBytes: 0 },
  { name: 'NULL', procedure: 0, argsBytes: 0, outstanding: 32, countBytes: 0 },
  { name: 'echo 100 B', procedure: 1, argsBytes: 100, outstanding: 32, countBytes: 0 },
  { name: 'echo 100 B by promise', procedure: 2, argsBytes: 100, outstanding: 32, countBytes: 0 },
  { name: 'write 4 KiB', procedure: 9, argsBytes: 4096, outstanding: 32, countBytes: 4096 },
  { name: 'read 4 KiB', procedure: 10, argsBytes: -4096, outstanding: 32, countBytes: 4096 },
  { name: 'write 1 MiB', procedure: 9, argsBytes: 1 << 20, outstanding: 8, countBytes: 1 << 20 },
  { name: 'read 1 MiB', procedure: 10, argsBytes: -(1 << 20), outstanding: 8, countBytes: 1 << 20 },
];

async function serve(): Promise<void> {
  const server = new RpcServer({ clock: systemClock, logger: silentLogger });
  const { port } = await server.listenTcp({ host: '127.0.0.1', port: 0, programs: [new BenchProgram()] });
  process.on('message', () => {
    const usage = process.cpuUsage();
    process.send?.({ cpuMs: (usage.user + usage.system) / 1000, rssBytes: process.memoryUsage.rss() });
  });
  process.on('disconnect', () => void server.close(100));
  process.send?.({ port });
}

/** Counts replies in the stream and calls back with how many more there were. */
function replyCounter(onReplies: (count: number) => void): (chunk: Buffer) => void {
  let skip = 0;
  let header = 0;
  let headerBytes = 0;
  return (chunk) => {
    let at = 0;
    let count = 0;
    while (at < chunk.length) {
      if (skip > 0) {
        const step = Math.min(skip, chunk.length - at);
        skip -= step;
        at += step;
        if (skip === 0) count += 1;
        continue;
      }
      header = (header << 8) | chunk[at]!;
      at += 1;
      headerBytes += 1;
      if (headerBytes === 4) {
        skip = header & 0x7fff_ffff;
        headerBytes = 0;
        header = 0;
      }
    }
    if (count > 0) onReplies(count);
  };
}

async function run(port: number, one: Case, seconds: number): Promise<number> {
  const credential = encodeCredential(authSys({ machineName: 'esx01.example.org', gids: [0, 1, 2] }));
  const record = encodeCall(
    1,
    ECHO_PROGRAM,
    ECHO_VERSION,
    one.procedure,
    credential,
    (args) => {
      if (one.argsBytes > 0) args.opaque(Buffer.alloc(one.argsBytes, 5));
      else if (one.argsBytes < 0) args.uint32(-one.argsBytes);
    },
    Math.max(one.argsBytes, 0) + 8,
  );
  const batch = Buffer.concat(Array.from({ length: one.outstanding }, () => record));
  let calls = 0;
  let isMeasuring = false;
  let isDone = false;
  const count = replyCounter((replies) => {
    if (isMeasuring) calls += replies;
    if (!isDone) socket.write(batch.subarray(0, replies * record.length));
  });
  const receiveBuffer = Buffer.alloc(256 * 1024);
  const socket = net.connect({
    host: '127.0.0.1',
    port,
    noDelay: true,
    onread: {
      buffer: receiveBuffer,
      callback: (countBytes) => {
        count(receiveBuffer.subarray(0, countBytes));
        return true;
      },
    },
  });
  await once(socket, 'connect');
  socket.write(batch);
  await systemSleep(500);
  isMeasuring = true;
  const start = performance.now();
  await systemSleep(seconds * 1000);
  const elapsedS = (performance.now() - start) / 1000;
  isDone = true;
  const rate = calls / elapsedS;
  socket.destroy();
  await once(socket, 'close');
  return rate;
}

function systemSleep(delayMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, delayMs));
}

async function main(): Promise<void> {
  const seconds = Number(process.argv[2] ?? 2);
  const only = process.argv[3];
  const child = fork(import.meta.filename, ['serve'], {
    execArgv: process.env['BENCH_PROF'] === undefined ? [] : ['--cpu-prof', '--cpu-prof-dir', process.env['BENCH_PROF']],
  });
  const [{ port }] = (await once(child, 'message')) as [{ port: number }];
  const usage = async (): Promise<{ cpuMs: number; rssBytes: number }> => {
    child.send('usage');
    const [reply] = (await once(child, 'message')) as [{ cpuMs: number; rssBytes: number }];
    return reply;
  };
  for (const one of CASES) {
    if (only !== undefined && !one.name.startsWith(only)) continue;
    const before = await usage();
    const own = process.cpuUsage();
    const rate = await run(port, one, seconds);
    const ownAfter = process.cpuUsage(own);
    const after = await usage();
    const wallMs = (seconds + 0.5) * 1000;
    const parts = [
      one.name.padEnd(24),
      `x${one.outstanding}`.padEnd(5),
      `${Math.round(rate)} op/s`.padStart(14),
      one.countBytes > 0 ? `${((rate * one.countBytes) / 1e9).toFixed(2)} GB/s` : '',
      `server ${Math.round(((after.cpuMs - before.cpuMs) / wallMs) * 100)} % CPU`,
      `generator ${Math.round(((ownAfter.user + ownAfter.system) / 1000 / wallMs) * 100)} % CPU`,
      `server RSS ${Math.round(after.rssBytes / 1e6)} MB`,
    ];
    console.log(parts.join('  '));
  }
  child.disconnect();
  await once(child, 'exit');
}

if (process.argv[2] === 'serve') await serve();
else await main();
