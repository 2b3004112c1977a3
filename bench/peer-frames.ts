/**
 * Micro benchmark of the way between routers: PeerServer and Http2PeerNetwork in two processes on loopback, plain text, an object in memory behind it.
 * Usage: node bench/peer-frames.ts [seconds per case [beginning of a case's name]]; BENCH_PROF=directory writes CPU profiles of the serving process,
 * BENCH_TLS=1 measures with certificates.
 *
 * Calls are real PeerService calls: codec, credit, CRCs and promises of both ends are in the figures. CPU is what both processes used, per frame pair.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';

import { silentLogger } from '../server/core/logger.ts';
import { systemClock, systemRandom } from '../server/core/node-time.ts';
import type { PeerService } from '../server/object-router/peer-port.ts';
import { Http2PeerNetwork } from '../server/peer/http2-peer-network.ts';
import type { PeerTls } from '../server/peer/peer-identity.ts';
import { PeerServer } from '../server/peer/peer-server.ts';
import { clusterCertificates } from '../server/peer/testing/certificates.ts';
import { MemoryPeerService } from '../server/peer/testing/memory-peer-service.ts';
import { CALLER, FixedMembers, INCARNATION_A, INCARNATION_B, ROUTER_A, ROUTER_B, TARGET, VPOOL } from '../server/peer/testing/two-ends.ts';

interface Case {
  readonly name: string;
  readonly kind: 'getattr' | 'read' | 'write';
  readonly countBytes: number;
  readonly outstanding: number;
}

const KIB = 1024;
const MIB = 1 << 20;
const CASES: readonly Case[] = [
  { name: 'getattr', kind: 'getattr', countBytes: 0, outstanding: 1 },
  { name: 'getattr', kind: 'getattr', countBytes: 0, outstanding: 32 },
  { name: 'read 4 KiB', kind: 'read', countBytes: 4 * KIB, outstanding: 1 },
  { name: 'read 4 KiB', kind: 'read', countBytes: 4 * KIB, outstanding: 32 },
  { name: 'read 4 KiB', kind: 'read', countBytes: 4 * KIB, outstanding: 256 },
  { name: 'write 4 KiB', kind: 'write', countBytes: 4 * KIB, outstanding: 1 },
  { name: 'write 4 KiB', kind: 'write', countBytes: 4 * KIB, outstanding: 32 },
  { name: 'write 4 KiB', kind: 'write', countBytes: 4 * KIB, outstanding: 256 },
  { name: 'read 1 MiB', kind: 'read', countBytes: MIB, outstanding: 1 },
  { name: 'read 1 MiB', kind: 'read', countBytes: MIB, outstanding: 8 },
  { name: 'write 1 MiB', kind: 'write', countBytes: MIB, outstanding: 1 },
  { name: 'write 1 MiB', kind: 'write', countBytes: MIB, outstanding: 8 },
];

interface Ends {
  readonly a: PeerTls;
  readonly b: PeerTls;
}

async function serve(): Promise<void> {
  const [{ tls }] = (await once(process, 'message')) as [{ tls: PeerTls | null }];
  const service = new MemoryPeerService(ROUTER_B, INCARNATION_B);
  const server = new PeerServer({
    service: () => service,
    clock: systemClock,
    logger: silentLogger,
    tls,
    self: { router: ROUTER_B, incarnation: INCARNATION_B, vpoolUuid: VPOOL },
  });
  const { port } = await server.listen('127.0.0.1', 0);
  process.on('message', () => {
    const usage = process.cpuUsage();
    process.send?.({ cpuMs: (usage.user + usage.system) / 1000, rssBytes: process.memoryUsage.rss() });
    service.calls.length = 0;
  });
  process.on('disconnect', () => void server.close());
  process.send?.({ port });
}

async function run(
  peer: PeerService,
  one: Case,
  seconds: number,
): Promise<{ rate: number; medianMs: number; p99Ms: number; ownCpuMs: number; elapsedMs: number }> {
  const data = Buffer.alloc(one.countBytes, 7);
  const latencies: number[] = [];
  let calls = 0;
  let isMeasuring = false;
  let isDone = false;
  async function worker(): Promise<void> {
    const into = Buffer.alloc(one.countBytes);
    while (!isDone) {
      const started = performance.now();
      if (one.kind === 'getattr') await peer.getattr(TARGET);
      else if (one.kind === 'read') await peer.read(TARGET, CALLER, 0, into);
      else await peer.write(TARGET, CALLER, 0, data.length, [data], 2);
      if (!isMeasuring) continue;
      calls += 1;
      if (calls % 7 === 0) latencies.push(performance.now() - started);
    }
  }
  const workers = Array.from({ length: one.outstanding }, worker);
  await systemSleep(400);
  isMeasuring = true;
  const start = performance.now();
  const cpu = process.cpuUsage();
  await systemSleep(seconds * 1000);
  const elapsedMs = performance.now() - start;
  const used = process.cpuUsage(cpu);
  const rate = (calls * 1000) / elapsedMs;
  isDone = true;
  await Promise.all(workers);
  latencies.sort((a, b) => a - b);
  return {
    rate,
    medianMs: latencies[latencies.length >> 1] ?? 0,
    p99Ms: latencies[Math.floor(latencies.length * 0.99)] ?? 0,
    ownCpuMs: (used.user + used.system) / 1000,
    elapsedMs,
  };
}

function systemSleep(delayMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, delayMs));
}

async function main(): Promise<void> {
  const seconds = Number(process.argv[2] ?? 2);
  const only = process.argv[3];
  const profiles = process.env['BENCH_PROF'];
  const ends: Ends | null = process.env['BENCH_TLS'] === undefined ? null : await clusterCertificates();
  const child = fork(import.meta.filename, ['serve'], { execArgv: profiles === undefined ? [] : ['--cpu-prof', '--cpu-prof-dir', profiles] });
  child.send({ tls: ends === null ? null : { ca: String(ends.b.ca), cert: String(ends.b.cert), key: String(ends.b.key) } });
  const [{ port }] = (await once(child, 'message')) as [{ port: number }];
  const members = new FixedMembers(ROUTER_A);
  members.set(ROUTER_B, INCARNATION_B, port);
  const network = new Http2PeerNetwork({
    members,
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
    tls: ends?.a ?? null,
    self: { router: ROUTER_A, incarnation: INCARNATION_A, vpoolUuid: VPOOL },
  });
  const usage = async (): Promise<{ cpuMs: number; rssBytes: number }> => {
    child.send('usage');
    const [reply] = (await once(child, 'message')) as [{ cpuMs: number; rssBytes: number }];
    return reply;
  };
  const peer = network.peer(ROUTER_B);
  await peer.write(TARGET, CALLER, 0, MIB, [Buffer.alloc(MIB, 1)], 2);
  for (const one of CASES) {
    if (only !== undefined && !one.name.startsWith(only)) continue;
    const before = await usage();
    const { rate, medianMs, p99Ms, ownCpuMs, elapsedMs } = await run(peer, one, seconds);
    const after = await usage();
    const serverUs = ((after.cpuMs - before.cpuMs) * 1000) / (rate * (elapsedMs + 400) * 0.001);
    const parts = [
      one.name.padEnd(12),
      `x${one.outstanding}`.padEnd(5),
      `${Math.round(rate)} call/s`.padStart(15),
      one.countBytes > 0 ? `${((rate * one.countBytes) / 1e9).toFixed(2)} GB/s` : '         ',
      `median ${medianMs.toFixed(3)} ms, p99 ${p99Ms.toFixed(3)} ms`,
      `CPU per call: caller ${((ownCpuMs * 1000) / ((rate * elapsedMs) / 1000)).toFixed(1)} us, owner ${serverUs.toFixed(1)} us`,
      `owner RSS ${Math.round(after.rssBytes / 1e6)} MB`,
    ];
    console.log(parts.join('  '));
  }
  network.close();
  child.disconnect();
  await once(child, 'exit');
}

if (process.argv[2] === 'serve') await serve();
else await main();
