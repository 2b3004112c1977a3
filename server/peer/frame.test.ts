import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import type { FileId, Incarnation, RouterId } from '../core/ids.ts';
import type { Attributes } from '../nfsd/file-system.ts';
import { decodeAnswer, decodeAnswerPayload, encodeAnswer } from './answer-codec.ts';
import type { Answers } from './answer-codec.ts';
import { FrameError } from './frame-error.ts';
import { FrameReader } from './frame-reader.ts';
import { EARLY_FLUSH_FRAMES, FrameSender } from './frame-sender.ts';
import { FrameKind, HEAD_BYTES } from './frame.ts';
import { getHello, getHelloAnswer, putHello, putHelloAnswer } from './hello.ts';
import type { HelloAnswer } from './hello.ts';
import { decodeRequest, encodeRequest, withPayload } from './request-codec.ts';
import type { CallKind, PeerRequest } from './request-codec.ts';
import { CollectingStream, frameBytes, framesOf, TurnClock } from './testing/collected-frames.ts';
import { bytesOf, GOLDEN_FRAMES } from './testing/golden-frames.ts';
import { WireReader } from './wire-reader.ts';
import { WireWriter } from './wire-writer.ts';

const SENT_MS = 0x0102_0304;
const target = { fileid: 0x1267 as FileId, inodeGeneration: 0x63, term: { generation: 1, counter: 5, nonce: '0011223344556677' } };
const caller = { uid: 1000, gid: 1000, gids: [4], address: '192.0.2.7', operationId: 'op' };
const attributes: Attributes = {
  type: 1,
  mode: 0o644,
  nlink: 1,
  uid: 1000,
  gid: 1000,
  sizeBytes: 0x1_0000_0005,
  usedBytes: 4096,
  fsid: 0xfedc_ba98_7654_3210n,
  fileid: 0x1267,
  atime: { seconds: 1, nanoseconds: 2 },
  mtime: { seconds: 3, nanoseconds: 4 },
  ctime: { seconds: 5, nanoseconds: 6 },
};
const routerB = 'b'.repeat(32) as RouterId;
const incarnationB = 'b1'.repeat(16) as Incarnation;

function head(kind: FrameKind, isAnswer: boolean, requestId: number, ageMs = 0): Parameters<typeof frameBytes>[0] {
  return { kind, isAnswer, requestId, ageMs, sentMs: SENT_MS };
}

/** Streams tell that a write ended a little later. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** The one frame of some bytes, which must be the whole of them. */
function oneFrame(bytes: Buffer): ReturnType<typeof framesOf>['frames'][0] {
  const { frames, isBetweenFrames } = framesOf([bytes]);
  assert.ok(frames.length === 1 && isBetweenFrames);
  return frames[0]!;
}

const GOLDEN_REQUESTS: readonly [keyof typeof GOLDEN_FRAMES, number, number, PeerRequest][] = [
  ['read', 9, 3, { kind: FrameKind.READ, target, caller, offsetBytes: 8192, countBytes: 4 }],
  ['write', 10, 0, { kind: FrameKind.WRITE, target, caller, offsetBytes: 8192, stability: 2, countBytes: 4, chunks: [Buffer.from('data')] }],
];

test('where READs have no CRCs they and their answers have none, and all else has', () => {
  const pushed = (bytes: Buffer, readsHaveCrc: boolean): number => {
    let frames = 0;
    const reader = new FrameReader({ begin: () => null, end: () => void (frames += 1) });
    reader.readsHaveCrc = readsHaveCrc;
    reader.push(bytes);
    return frames;
  };
  const frame = (kind: FrameKind, isAnswer: boolean, readsHaveCrc: boolean): Buffer =>
    frameBytes(head(kind, isAnswer, 1), Buffer.from([0]), [Buffer.from('bytes')], readsHaveCrc);
  for (const isAnswer of [false, true]) {
    assert.equal(pushed(frame(FrameKind.READ, isAnswer, false), false), 1);
    assert.throws(() => pushed(frame(FrameKind.READ, isAnswer, true), false), FrameError);
    assert.throws(() => pushed(frame(FrameKind.READ, isAnswer, false), true), FrameError);
    assert.deepEqual(frame(FrameKind.WRITE, isAnswer, false), frame(FrameKind.WRITE, isAnswer, true));
    for (const at of [0, HEAD_BYTES - 4])
      assert.throws(() => pushed(frame(FrameKind.WRITE, isAnswer, false).fill(0, at, at + 4), false), FrameError, `CRC at ${at}`);
  }
});

for (const [name, requestId, ageMs, request] of GOLDEN_REQUESTS) {
  test(`golden vector "${name}" is what we send, and decodes to the request`, () => {
    const golden = bytesOf(GOLDEN_FRAMES[name]);
    const frame = oneFrame(golden);
    assert.deepEqual([frame.head.requestId, frame.head.ageMs, frame.head.sentMs, frame.head.isAnswer], [requestId, ageMs, SENT_MS, false]);
    const decoded = decodeRequest(frame.head.kind as CallKind, new WireReader(frame.args), frame.payload.length);
    assert.deepEqual(frame.payload.length > 0 ? withPayload(decoded, [frame.payload]) : decoded, request);
    const args = new WireWriter();
    const payload = encodeRequest(request, args);
    assert.equal(frameBytes(head(request.kind, false, requestId, ageMs), args.written(), payload).toString('hex'), golden.toString('hex'));
  });
}

const GOLDEN_ANSWERS: readonly [keyof typeof GOLDEN_FRAMES, CallKind, number, unknown][] = [
  ['readAnswer', FrameKind.READ, 9, { kind: 'done', result: { status: 0, bytesRead: 4, eof: true, attributes } }],
  ['notOwner', FrameKind.WRITE, 10, { kind: 'not-owner', hint: { router: routerB, incarnation: incarnationB, term: target.term } }],
  [
    'frozen',
    FrameKind.MOVE_FREEZE,
    1,
    {
      lastSegment: 9,
      lastSequence: 90,
      end: { segment: 9, offsetBytes: 512 },
      verifier: Buffer.from('0123456789abcdef', 'hex'),
      rest: {
        pieces: [{ segment: 9, term: target.term, offsetBytes: 256, bytes: Buffer.from('log'), sealedBytes: 259 }],
        behindBytes: 0,
        calls: { bytes: Buffer.from('cc'), next: 77, behind: 0 },
      },
    },
  ],
];

for (const [name, kind, requestId, answer] of GOLDEN_ANSWERS) {
  test(`golden vector "${name}" is what we send, and decodes to the answer`, () => {
    const golden = bytesOf(GOLDEN_FRAMES[name]);
    const frame = oneFrame(golden);
    assert.deepEqual([frame.head.kind, frame.head.requestId, frame.head.isAnswer], [kind, requestId, true]);
    const decoded = decodeAnswer(kind, new WireReader(frame.args), frame.payload.length, 4);
    assert.deepEqual(decoded.kind === 'answer' ? decoded.answer : decodeAnswerPayload(kind, frame.payload, 0), answer);
    const args = new WireWriter();
    const payload = encodeAnswer(kind, answer as Answers[CallKind], args, Buffer.from('data'));
    assert.equal(frameBytes(head(kind, true, requestId), args.written(), payload).toString('hex'), golden.toString('hex'));
  });
}

test('golden vectors "hello", "welcome" and "refused" are what we send, and decode', () => {
  const hello = {
    versionFirst: 1,
    versionLast: 1,
    vpoolUuid: '0f'.repeat(16),
    router: 'a'.repeat(32) as RouterId,
    incarnation: 'a1'.repeat(16) as Incarnation,
    toRouter: routerB,
    toIncarnation: incarnationB,
    session: 7,
    lane: 1,
    stream: 0,
  };
  const frame = oneFrame(bytesOf(GOLDEN_FRAMES.hello));
  assert.deepEqual(getHello(new WireReader(frame.args)), hello);
  const args = new WireWriter();
  putHello(args, hello);
  assert.deepEqual(frameBytes(head(FrameKind.HELLO, false, 0), args.written(), []), bytesOf(GOLDEN_FRAMES.hello));
  const answers: readonly ['welcome' | 'refused', HelloAnswer][] = [
    ['welcome', { kind: 'welcome', version: 1, creditBytes: 32 * 1024 * 1024 }],
    ['refused', { kind: 'refused', refusal: 'vpool', message: 'other' }],
  ];
  for (const [name, answer] of answers) {
    const golden = bytesOf(GOLDEN_FRAMES[name]);
    assert.deepEqual(getHelloAnswer(new WireReader(oneFrame(golden).args)), answer);
    const written = new WireWriter();
    putHelloAnswer(written, answer);
    assert.deepEqual(frameBytes(head(FrameKind.HELLO, true, 0), written.written(), []), golden);
  }
});

const anyFrame = fc.record({
  args: fc.uint8Array({ maxLength: 200 }),
  payload: fc.oneof(fc.constant(new Uint8Array()), fc.uint8Array({ maxLength: 600 })),
  requestId: fc.nat({ max: 0xffff_ffff }),
});

test('frames are the same however the stream cuts them, into slices as into a buffer', () => {
  fc.assert(
    fc.property(
      fc.array(anyFrame, { maxLength: 6 }),
      fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1 }),
      fc.boolean(),
      (list, cuts, isInto) => {
        const stream = Buffer.concat(list.map(({ args, payload, requestId }) => frameBytes(head(FrameKind.READ, true, requestId), args, [payload])));
        const pieces: Buffer[] = [];
        for (let at = 0, i = 0; at < stream.length; i += 1) pieces.push(stream.subarray(at, (at += cuts[i % cuts.length]!)));
        const { frames, isBetweenFrames } = framesOf(pieces, isInto ? Buffer.alloc(600) : null);
        assert.ok(isBetweenFrames);
        assert.deepEqual(
          frames.map((frame) => [frame.head.requestId, frame.args.toString('hex'), frame.payload.toString('hex')]),
          list.map(({ args, payload, requestId }) => [requestId, Buffer.from(args).toString('hex'), Buffer.from(payload).toString('hex')]),
        );
      },
    ),
    { numRuns: 500 },
  );
});

test('a flipped bit anywhere in a frame is noticed', () => {
  const frame = frameBytes(head(FrameKind.WRITE, false, 77, 4), Buffer.from('arguments'), [Buffer.from('some payload')]);
  for (let bit = 0; bit < frame.length * 8; bit++) {
    const damaged = Buffer.from(frame);
    damaged[bit >> 3]! ^= 1 << (bit & 7);
    // More arguments than there are make the head wait for more: what comes next shows it.
    const isLonger = bit >> 3 === 16 || bit >> 3 === 17;
    assert.throws(() => framesOf(isLonger ? [damaged, Buffer.alloc(5000)] : [damaged]), FrameError, `bit ${bit}`);
  }
});

test('a cut frame is never a frame, and is known to be incomplete', () => {
  const frame = frameBytes(head(FrameKind.WRITE, false, 77), Buffer.from('arguments'), [Buffer.from('some payload')]);
  for (let length = 1; length < frame.length; length++) {
    const { frames, isBetweenFrames } = framesOf([frame.subarray(0, length)]);
    assert.deepEqual([frames.length, isBetweenFrames], [0, false]);
  }
});

test('lengths beyond the limits are refused from the head alone, before anything is stored', () => {
  for (const [at, bytes] of [
    [12, [0x01, 0x00, 0x00, 0x01]],
    [16, [0x10, 0x01]],
  ] as const) {
    const frame = frameBytes(head(FrameKind.WRITE, false, 1), Buffer.alloc(0), []);
    Buffer.from(bytes).copy(frame, at);
    assert.throws(() => framesOf([frame.subarray(0, HEAD_BYTES)]), FrameError);
  }
});

test('some frames leave together before the turn ends, the rest with its end; what comes while a write is under way leaves in the next one', async () => {
  const stream = new CollectingStream();
  const clock = new TurnClock();
  const sender = new FrameSender(stream, clock);
  const send = (id: number, payload: readonly Buffer[]): void => {
    sender.open().u8(id);
    sender.send(FrameKind.WRITE, false, id, 0, 0, payload);
  };
  const many = EARLY_FLUSH_FRAMES;
  for (let id = 1; id < many; id++) send(id, [Buffer.alloc(1000, id)]);
  assert.equal(stream.writes, 0);
  send(many, [Buffer.alloc(1000, many)]);
  assert.equal(stream.writes, 1);
  assert.equal(sender.unsentBytes, 0);
  send(many + 1, [Buffer.alloc(1000, 1)]);
  assert.equal(stream.writes, 1);
  stream.isHolding = true;
  clock.end();
  await turn();
  assert.equal(stream.writes, 2);
  for (let id = many + 2; id <= 100; id++) send(id, [Buffer.alloc(1000, id)]);
  const large = Buffer.alloc(20_000, 1);
  send(101, [large]);
  clock.end();
  await turn();
  assert.equal(stream.writes, 2);
  assert.ok(sender.unsentBytes > 100_000);
  stream.release();
  await turn();
  assert.equal(stream.writes, 3);
  assert.equal(sender.unsentBytes, 0);
  const { frames } = framesOf([stream.take()]);
  assert.deepEqual(
    frames.map((frame) => frame.head.requestId),
    Array.from({ length: 101 }, (_, index) => index + 1),
  );
  assert.ok(frames[100]!.payload.equals(large));
});

test('memory that frames are put together in is not used again before it was sent', async () => {
  const stream = new CollectingStream();
  const clock = new TurnClock();
  const sender = new FrameSender(stream, clock);
  const sent: number[] = [];
  stream.isHolding = true;
  // Several slabs, some of them while the first is still held by the stream.
  for (let round = 0; round < 40; round++) {
    for (let i = 0; i < 20; i++) {
      const id = round * 20 + i + 1;
      sent.push(id);
      sender.open().u32(id);
      sender.send(FrameKind.READ, true, id, 0, 0, [Buffer.alloc(4096, id)]);
    }
    clock.end();
    if (round % 3 !== 2) continue;
    stream.release();
    await turn();
    stream.isHolding = true;
  }
  stream.release();
  await turn();
  clock.end();
  await turn();
  const { frames } = framesOf([stream.take()]);
  assert.deepEqual(
    frames.map((frame) => frame.head.requestId),
    sent,
  );
  assert.ok(frames.every((frame) => frame.payload.every((byte) => byte === (frame.head.requestId & 0xff))));
});

test('a frame whose encoding throws is forgotten: what is in front of it and behind it is sent, and nothing else', async () => {
  const stream = new CollectingStream();
  const clock = new TurnClock();
  const sender = new FrameSender(stream, clock);
  const send = (id: number): void => {
    sender.open().u32(id);
    sender.send(FrameKind.WRITE, false, id, 0, 0, [Buffer.alloc(100, id)]);
  };
  send(1);
  const half = sender.open();
  half.u32(2);
  assert.throws(() => half.u16(0x1_0000));
  // The turn ends, with the frame in front of it.
  clock.end();
  await turn();
  assert.deepEqual(
    framesOf([stream.take()]).frames.map((frame) => frame.head.requestId),
    [1],
  );
  send(3);
  sender.open().raw(Buffer.alloc(2 ** 20));
  assert.throws(() => sender.send(FrameKind.WRITE, false, 4, 0, 0, []), /too long/);
  send(5);
  clock.end();
  await turn();
  const { frames, isBetweenFrames } = framesOf([stream.take()]);
  assert.deepEqual(
    frames.map(({ head: { requestId }, args, payload }) => [requestId, args.readUInt32BE(0), payload.every((byte) => byte === requestId)]),
    [
      [3, 3, true],
      [5, 5, true],
    ],
  );
  assert.deepEqual([isBetweenFrames, sender.unsentBytes], [true, 0]);
});
