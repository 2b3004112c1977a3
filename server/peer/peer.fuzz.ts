/**
 * Seeded fuzzing of what routers send each other, over real connections: a hostile caller against PeerServer, a hostile owner against Http2PeerNetwork.
 *
 * What must hold for any bytes: nothing throws but within the session that sent them; every call is answered or its session closed; every call made is settled;
 * the next session is served.
 */
import assert from 'node:assert/strict';
import http2 from 'node:http2';
import type { AddressInfo } from 'node:net';
import { crc32 } from 'node:zlib';

import type { Logger } from '../core/logger.ts';
import { silentLogger } from '../core/logger.ts';
import { systemClock, systemRandom } from '../core/node-time.ts';
import { Dice } from '../core/testing/dice.ts';
import type { PeerService } from '../object-router/peer-port.ts';
import { encodeAnswer } from './answer-codec.ts';
import type { Answers } from './answer-codec.ts';
import { FrameReader } from './frame-reader.ts';
import { FrameKind, HEAD_BYTES } from './frame.ts';
import { putHelloAnswer } from './hello.ts';
import { Http2PeerNetwork } from './http2-peer-network.ts';
import { PeerServer } from './peer-server.ts';
import type { CallKind, PeerRequest } from './request-codec.ts';
import { frameBytes } from './testing/collected-frames.ts';
import { bytesOf, GOLDEN_FRAMES } from './testing/golden-frames.ts';
import { MemoryPeerService } from './testing/memory-peer-service.ts';
import { RawPeer, requestBytes } from './testing/raw-peer.ts';
import { until } from './testing/stepped-clock.ts';
import { CALLER, FixedMembers, INCARNATION_A, INCARNATION_B, ROUTER_A, ROUTER_B, TARGET, VPOOL } from './testing/two-ends.ts';
import { putU32, WireWriter } from './wire-writer.ts';

/** Small numbers that lengths, counts and enums turn on, and the edges of integers. */
const INTERESTING = [0, 1, 2, 3, 16, 17, 63, 64, 255, 256, 4095, 4096, 4097, 65_535, 0x10_0000, 0x100_0001, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
const NO_CHANGES = { mode: null, uid: null, gid: null, sizeBytes: null, atime: null, mtime: null };

export interface PeerFuzzReport {
  readonly sessions: number;
  readonly answers: number;
  readonly closed: number;
  /** Calls of the hostile owner's peer that were answered, and that failed. */
  readonly succeeded: number;
  readonly failed: number;
}

/** `iterations` frames or so to a server, and as many answers to a caller. Throws (assertion) with the seed when one does not cope. */
export async function fuzzPeers(seed: number, iterations: number): Promise<PeerFuzzReport> {
  const dice = new Dice(seed);
  const problems: string[] = [];
  const logger: Logger = { ...silentLogger, error: (fields, message) => void problems.push(`${message}: ${(fields as { err?: Error }).err?.stack}`) };
  const served = await fuzzServer(dice, Math.ceil(iterations / 20), logger, `seed ${seed}`);
  const called = await fuzzCaller(dice, Math.ceil(iterations / 20), logger, `seed ${seed}`);
  assert.deepEqual(problems, [], `seed ${seed}`);
  return { ...served, ...called };
}

async function fuzzServer(
  dice: Dice,
  sessions: number,
  logger: Logger,
  where: string,
): Promise<Pick<PeerFuzzReport, 'sessions' | 'answers' | 'closed'>> {
  const service = new MemoryPeerService(ROUTER_B, INCARNATION_B);
  const self = { router: ROUTER_B, incarnation: INCARNATION_B, vpoolUuid: VPOOL };
  const bugs: unknown[] = [];
  const server = new PeerServer({
    service: () => guarded(service),
    clock: systemClock,
    logger,
    tls: null,
    self,
    onBug: (bug) => void bugs.push(bug),
  });
  const { port } = await server.listen('127.0.0.1', 0);
  let answers = 0;
  let closed = 0;
  for (let session = 1; session <= sessions; session++) {
    const peer = new RawPeer(port);
    const lane = dice.below(3);
    const welcome = await peer.hello({ session, lane });
    assert.equal(welcome?.kind, 'welcome', `${where}, session ${session}`);
    const stream = Buffer.concat(Array.from({ length: 1 + dice.below(20) }, () => anyRequestFrame(dice, lane)));
    for (let at = 0; at < stream.length && !peer.isClosed;) {
      const step = dice.pick([1, 27, 29, 500, 100_000]);
      // Single bytes take for ever on a long stream.
      peer.send(stream.subarray(at, (at += step < 29 && stream.length - at > 500 ? stream.length : step)));
      if (dice.below(2) === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    // An answer to this says that all before was taken; none comes when the server waits for the rest of a frame.
    peer.send(frameBytes({ kind: FrameKind.PING, isAnswer: false, requestId: 0, ageMs: 0, sentMs: 0 }, Buffer.alloc(0), []));
    for (let waited = 0; waited < 10 && !peer.isClosed && peer.frames.at(-1)!.head.kind !== FrameKind.PING; waited++) await systemClock.sleep(1);
    answers += peer.frames.length - 1;
    if (peer.isClosed) closed += 1;
    peer.close();
  }
  const last = new RawPeer(port);
  await last.hello({ session: sessions + 1 });
  last.call(1, { kind: FrameKind.GETATTR, target: TARGET });
  await until(() => last.frames.length === 2, `${where}: the next session is served`);
  last.close();
  await server.close();
  assert.deepEqual(bugs, [], where);
  return { sessions, answers, closed };
}

/** The service of the server: what arrives was validated. */
function guarded(service: MemoryPeerService): PeerService {
  return new Proxy(service, {
    get(target, name) {
      const method = (target as unknown as Record<string | symbol, unknown>)[name];
      if (typeof method !== 'function') return method;
      return (...args: unknown[]) => {
        if (name === 'write') {
          const [, , offsetBytes, countBytes, chunks] = args as [unknown, unknown, number, number, Uint8Array[]];
          assert.equal(
            chunks.reduce((sum, chunk) => sum + chunk.length, 0),
            countBytes,
          );
          // The memory of the example is small.
          if (offsetBytes > 1_000_000) return { kind: 'done', result: { status: 27, wcc: { before: null, after: null } } };
        }
        if (name === 'read' && (args[2] as number) > 1_000_000) return { kind: 'done', result: { status: 22, attributes: null } };
        return (method as (...args: unknown[]) => unknown).apply(target, args);
      };
    },
  });
}

function anyRequestFrame(dice: Dice, lane: number): Buffer {
  const requests: readonly (readonly PeerRequest[])[] = [
    [
      { kind: FrameKind.GETATTR, target: TARGET },
      { kind: FrameKind.ATTRIBUTES_OF, targetsCount: 2, targets: [TARGET, TARGET] },
      { kind: FrameKind.COMMIT, target: TARGET, caller: CALLER },
      { kind: FrameKind.SETATTR, target: TARGET, caller: CALLER, changes: NO_CHANGES, guardCtime: null },
      { kind: FrameKind.MOVE_ASK, target: TARGET, from: ROUTER_A, nonce: '0011223344556677', reason: 'io' },
      { kind: FrameKind.MOVE_ABORT, fileid: TARGET.fileid, attempt: TARGET.term, reason: 'enough' },
    ],
    [
      { kind: FrameKind.READ, target: TARGET, caller: CALLER, offsetBytes: 0, countBytes: 5000 },
      { kind: FrameKind.WRITE, target: TARGET, caller: CALLER, offsetBytes: 10, stability: 2, countBytes: 300, chunks: [Buffer.alloc(300, 1)] },
    ],
    [
      {
        kind: FrameKind.MOVE_FETCH,
        fileid: TARGET.fileid,
        attempt: TARGET.term,
        from: { segment: 1, offsetBytes: 0, calls: 0 },
        bytesMax: 5000,
        waitMs: 0,
      },
    ],
  ];
  // Frames of the right lane mostly: anything else ends the session at once.
  const frame = dice.below(60) === 0 ? bytesOf(dice.pick(Object.values(GOLDEN_FRAMES))) : requestBytes(dice.below(1000), dice.pick(requests[lane]!));
  return dice.below(8) === 0 ? damaged(dice, frame) : frame;
}

async function fuzzCaller(dice: Dice, sessions: number, logger: Logger, where: string): Promise<Pick<PeerFuzzReport, 'succeeded' | 'failed'>> {
  const hostile = http2.createServer();
  const streams = new Set<http2.ServerHttp2Stream>();
  hostile.on('sessionError', () => {});
  hostile.on('session', (session) => session.on('error', () => {}));
  hostile.on('stream', (stream) => {
    streams.add(stream);
    stream.on('error', () => {});
    stream.on('close', () => streams.delete(stream));
    stream.respond({ ':status': 200 });
    let isGreeted = false;
    const reader = new FrameReader({
      begin: () => null,
      end(head) {
        if (head.kind === FrameKind.PING) return;
        if (isGreeted) {
          stream.write(anyAnswerFrame(dice, head.kind as CallKind, head.requestId));
          return;
        }
        isGreeted = true;
        const args = new WireWriter();
        putHelloAnswer(args, { kind: 'welcome', version: 1, creditBytes: 1024 * 1024 });
        stream.write(frameBytes({ kind: FrameKind.HELLO, isAnswer: true, requestId: 0, ageMs: 0, sentMs: 0 }, args.written(), []));
      },
    });
    stream.on('data', (chunk: Buffer) => reader.push(chunk));
  });
  await new Promise<void>((resolve) => hostile.listen(0, '127.0.0.1', resolve));
  const members = new FixedMembers(ROUTER_A);
  members.set(ROUTER_B, INCARNATION_B, (hostile.address() as AddressInfo).port);
  const self = { router: ROUTER_A, incarnation: INCARNATION_A, vpoolUuid: VPOOL };
  let succeeded = 0;
  let failed = 0;
  for (let session = 0; session < sessions; session++) {
    const network = new Http2PeerNetwork(
      { members, clock: systemClock, random: systemRandom, logger, tls: null, self },
      { silenceMs: 400, pingIntervalMs: 100, callTimeoutMs: 200 },
    );
    const peer = network.peer(ROUTER_B);
    const calls: (() => unknown)[] = [
      () => peer.getattr(TARGET),
      () => peer.read(TARGET, CALLER, 0, Buffer.alloc(1000)),
      () => peer.write(TARGET, CALLER, 0, 10, [Buffer.alloc(10)], 2),
      () => peer.attributesOf([TARGET, TARGET]),
      () => peer.moveFetch(TARGET.fileid, TARGET.term, { segment: 1, offsetBytes: 0, calls: 0 }, 1000, 0),
      () => peer.moveFreeze(TARGET.fileid, TARGET.term, { segment: 1, offsetBytes: 0, calls: 0 }),
      () => peer.moveConfirm(TARGET.fileid, TARGET.term, 1),
      () => peer.moveAsk(TARGET, ROUTER_A, '0011223344556677', 'io'),
    ];
    const settled = await Promise.allSettled(Array.from({ length: 20 }, () => Promise.resolve().then(dice.pick(calls))));
    for (const one of settled) {
      if (one.status === 'fulfilled') succeeded += 1;
      else {
        failed += 1;
        assert.equal((one.reason as { name?: unknown }).name, 'ApplianceError', `${where}: ${String((one.reason as Error).stack)}`);
      }
    }
    network.close();
  }
  for (const stream of streams) stream.destroy();
  await new Promise<void>((resolve) => hostile.close(() => resolve()));
  return { succeeded, failed };
}

function anyAnswerFrame(dice: Dice, kind: CallKind, requestId: number): Buffer {
  const notFound = { kind: 'not-owner', hint: null } as const;
  const attributes = new MemoryPeerService(ROUTER_B, INCARNATION_B).attributes(TARGET.fileid);
  const answers: Partial<Record<CallKind, unknown>> = {
    [FrameKind.GETATTR]: { kind: 'done', result: { status: 0, attributes } },
    [FrameKind.ATTRIBUTES_OF]: [attributes, null],
    [FrameKind.READ]: { kind: 'done', result: { status: 0, bytesRead: dice.pick([0, 1, 999, 1000, 1000, 1000, 1000, 1001]), eof: true, attributes } },
    [FrameKind.WRITE]: {
      kind: 'done',
      result: { status: 0, wcc: { before: null, after: attributes }, countBytes: 10, committed: 2, verifier: Buffer.alloc(8) },
    },
    [FrameKind.MOVE_FETCH]: {
      pieces: [{ segment: 1, term: TARGET.term, offsetBytes: 0, bytes: Buffer.alloc(100), sealedBytes: null }],
      behindBytes: 0,
      calls: { bytes: Buffer.alloc(40), next: 2, behind: 0 },
    },
    [FrameKind.MOVE_FREEZE]: null,
    [FrameKind.MOVE_CONFIRM]: { kind: 'aborted', reason: 'no' },
    [FrameKind.MOVE_ASK]: { kind: 'refused', reason: 'no', retryable: true },
  };
  const args = new WireWriter();
  const payload = encodeAnswer(kind, (kind in answers ? answers[kind] : notFound) as Answers[CallKind], args, Buffer.alloc(1001));
  const frame = frameBytes({ kind, isAnswer: true, requestId, ageMs: 0, sentMs: 0 }, args.written(), payload);
  return dice.below(12) === 0 ? damaged(dice, frame) : frame;
}

/** A frame with something wrong in it, mostly with CRCs that fit, so that what is behind them sees it. */
function damaged(dice: Dice, frame: Buffer): Buffer {
  let bytes = Buffer.from(frame);
  for (let count = dice.below(3); count > 0; count--) {
    switch (dice.below(6)) {
      case 0:
        bytes[dice.below(bytes.length)] = dice.below(256);
        break;
      case 1: {
        // A word behind the CRC: lengths, numbers, counts.
        const at = 4 + 4 * dice.below(Math.max(Math.floor(bytes.length / 4) - 1, 1));
        if (at + 4 <= bytes.length) putU32(bytes, at, dice.pick(INTERESTING));
        break;
      }
      case 2:
        bytes = bytes.subarray(0, dice.below(bytes.length + 1));
        break;
      case 3:
        bytes = Buffer.concat([bytes, dice.bytes(dice.below(40))]);
        break;
      case 4: {
        const at = dice.below(bytes.length);
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + dice.below(9))]);
        break;
      }
      default:
        break;
    }
    if (bytes.length === 0) return bytes;
  }
  if (dice.below(8) === 0 || bytes.length < HEAD_BYTES) return bytes;
  const argsBytes = (bytes[16]! << 8) | bytes[17]!;
  const payload = bytes.subarray(HEAD_BYTES + argsBytes);
  if (dice.below(4) > 0) putU32(bytes, 24, payload.length === 0 ? 0 : crc32(payload));
  putU32(bytes, 0, crc32(bytes.subarray(4, HEAD_BYTES + argsBytes)));
  return bytes;
}
