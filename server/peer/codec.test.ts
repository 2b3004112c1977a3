/** Every message comes out of the wire as it went in, whatever the wire does to its pieces; anything else is refused as a whole. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { ApplianceError } from '../core/errors.ts';
import { decodeAnswer, decodeAnswerPayload, encodeAnswer, encodeFailure } from './answer-codec.ts';
import type { Answers } from './answer-codec.ts';
import { FrameError } from './frame-error.ts';
import { ARGS_BYTES_MAX, FrameKind } from './frame.ts';
import { chargeOf, decodeRequest, encodeRequest, withPayload } from './request-codec.ts';
import type { CallKind, PeerRequest } from './request-codec.ts';
import { anyAnswer, anyFailure, anyRequest } from './testing/arbitrary-messages.ts';
import { CALLER, TARGET } from './testing/two-ends.ts';
import { WireReader } from './wire-reader.ts';
import { WireWriter } from './wire-writer.ts';

function throughTheWire(request: PeerRequest): PeerRequest {
  const args = new WireWriter();
  const payload = Buffer.concat(encodeRequest(request, args));
  assert.ok(args.at <= ARGS_BYTES_MAX);
  const decoded = decodeRequest(request.kind, new WireReader(args.written()), payload.length);
  return payload.length > 0 ? withPayload(decoded, [payload]) : decoded;
}

function answerThroughTheWire(kind: CallKind, answer: unknown): unknown {
  const args = new WireWriter();
  const readBytes = Buffer.alloc(500, 3);
  const payload = Buffer.concat(encodeAnswer(kind, answer as Answers[CallKind], args, readBytes));
  assert.ok(args.at <= ARGS_BYTES_MAX);
  const decoded = decodeAnswer(kind, new WireReader(args.written()), payload.length, readBytes.length);
  assert.notEqual(decoded.kind, 'failed');
  if (decoded.kind === 'answer') return decoded.answer;
  return decodeAnswerPayload(kind, payload, Array.isArray(answer) ? answer.length : 0);
}

test('every request comes out as it went in, with the same charge at both ends', () => {
  fc.assert(
    fc.property(anyRequest, (request) => {
      const decoded = throughTheWire(request);
      assert.deepEqual(decoded, request);
      assert.equal(chargeOf(decoded), chargeOf(request));
    }),
    { numRuns: 1000 },
  );
});

test('every answer comes out as it went in: statuses, attributes with a 64-bit fsid, wcc, verifiers, owners, pieces of a log', () => {
  fc.assert(
    fc.property(anyAnswer, ({ kind, answer }) => assert.deepEqual(answerThroughTheWire(kind, answer), answer)),
    { numRuns: 1500 },
  );
});

test('a failure keeps its code, whether it may be tried again, and its message', () => {
  fc.assert(
    fc.property(anyFailure, (failure) => {
      const args = new WireWriter();
      encodeFailure(failure, args);
      const decoded = decodeAnswer(FrameKind.COMMIT, new WireReader(args.written()), 0, 0);
      assert.ok(decoded.kind === 'failed' && decoded.error instanceof ApplianceError);
      assert.deepEqual([decoded.error.code, decoded.error.message, decoded.error.retryable], [failure.code, failure.message, failure.retryable]);
    }),
  );
});

test('messages that are too long for the wire are cut between characters; what must be whole is a bug when it is too long', () => {
  const args = new WireWriter();
  encodeFailure(new ApplianceError('x', 'ü'.repeat(5000)), args);
  const decoded = decodeAnswer(FrameKind.COMMIT, new WireReader(args.written()), 0, 0);
  assert.ok(decoded.kind === 'failed');
  assert.equal(decoded.error.message, 'ü'.repeat(512));
  const tooLong = { kind: FrameKind.COMMIT, target: TARGET, caller: { ...CALLER, operationId: 'x'.repeat(3000) } } as const;
  assert.throws(() => encodeRequest(tooLong, new WireWriter()), { name: 'AssertionError' });
});

test('a change must have an operation id: without one it would be answered as done when any other without one was', () => {
  const caller = { ...CALLER, operationId: '' };
  const changes = { mode: 1, uid: null, gid: null, sizeBytes: null, atime: null, mtime: null };
  const chunks = [Buffer.from('x')];
  const write = { kind: FrameKind.WRITE, target: TARGET, offsetBytes: 0, countBytes: 1, stability: 2, chunks } as const;
  const setattr = { kind: FrameKind.SETATTR, target: TARGET, changes, guardCtime: null } as const;
  for (const request of [write, setattr]) {
    assert.throws(() => throughTheWire({ ...request, caller }), { name: 'FrameError' });
    assert.equal(throughTheWire({ ...request, caller: CALLER }).kind, request.kind);
  }
  assert.equal(throughTheWire({ kind: FrameKind.COMMIT, target: TARGET, caller }).kind, FrameKind.COMMIT);
});

test('the longest arguments fit in a frame', () => {
  const caller = { ...CALLER, gids: Array.from({ length: 16 }, () => 7), address: 'f'.repeat(64), operationId: 'x'.repeat(2048) };
  const changes = { mode: 1, uid: 2, gid: 3, sizeBytes: 4, atime: { seconds: 1, nanoseconds: 2 }, mtime: { seconds: 1, nanoseconds: 2 } };
  const request = { kind: FrameKind.SETATTR, target: TARGET, caller, changes, guardCtime: { seconds: 1, nanoseconds: 2 } } as const;
  assert.deepEqual(throughTheWire(request), request);
});

test('cut, extended or changed arguments are refused or decode to something valid; never anything else', () => {
  fc.assert(
    fc.property(anyRequest, fc.nat(), fc.nat({ max: 255 }), fc.constantFrom('cut', 'extend', 'change'), (request, place, value, damage) => {
      const args = new WireWriter();
      const payload = Buffer.concat(encodeRequest(request, args));
      let bytes = Buffer.from(args.written());
      if (damage === 'cut' && bytes.length > 0) bytes = bytes.subarray(0, place % bytes.length);
      else if (damage === 'extend') bytes = Buffer.concat([bytes, Buffer.from([value])]);
      else if (bytes.length > 0) bytes[place % bytes.length] = value;
      let decoded: PeerRequest;
      try {
        decoded = decodeRequest(request.kind, new WireReader(bytes), payload.length);
      } catch (error) {
        assert.ok(error instanceof FrameError, String(error));
        return;
      }
      // Only a changed byte, or nothing changed at all (no arguments to cut), can be understood; what is understood can be sent again.
      assert.ok(damage === 'change' || args.at === 0, damage);
      assert.doesNotThrow(() => encodeRequest(payload.length > 0 ? withPayload(decoded, [payload]) : decoded, new WireWriter()));
    }),
    { numRuns: 1500 },
  );
});

test('requests beyond the limits are refused: 4 MiB of data, 4,096 targets, payloads where none belong, fileids that no object has', () => {
  const cases: readonly [CallKind, (args: WireWriter) => void, number][] = [
    [
      FrameKind.WRITE,
      (args) =>
        void encodeRequest({ kind: FrameKind.WRITE, target: TARGET, caller: CALLER, offsetBytes: 0, stability: 2, countBytes: 0, chunks: [] }, args),
      4 * 1024 * 1024 + 1,
    ],
    [
      FrameKind.READ,
      (args) => void encodeRequest({ kind: FrameKind.READ, target: TARGET, caller: CALLER, offsetBytes: 0, countBytes: 4 * 1024 * 1024 + 1 }, args),
      0,
    ],
    [FrameKind.ATTRIBUTES_OF, () => {}, 4097 * 40],
    [FrameKind.GETATTR, (args) => void encodeRequest({ kind: FrameKind.GETATTR, target: TARGET }, args), 1],
    [FrameKind.INODE_CHANGED, (args) => args.u53(63), 0],
  ];
  for (const [kind, write, payloadBytes] of cases) {
    const args = new WireWriter();
    write(args);
    assert.throws(() => decodeRequest(kind, new WireReader(args.written()), payloadBytes), FrameError, `kind ${kind}`);
  }
});

test('answers beyond what was asked are refused: more bytes than READ asked for, bytes with a failed READ, attributes that are too many or too few', () => {
  const args = new WireWriter();
  encodeAnswer(FrameKind.READ, { kind: 'done', result: { status: 0, bytesRead: 100, eof: false, attributes: null } }, args, Buffer.alloc(100));
  assert.doesNotThrow(() => decodeAnswer(FrameKind.READ, new WireReader(args.written()), 100, 100));
  assert.throws(() => decodeAnswer(FrameKind.READ, new WireReader(args.written()), 101, 100), FrameError);
  const failed = new WireWriter();
  encodeAnswer(FrameKind.READ, { kind: 'done', result: { status: 5, attributes: null } }, failed, null);
  assert.throws(() => decodeAnswer(FrameKind.READ, new WireReader(failed.written()), 4, 100), FrameError);
  assert.throws(() => decodeAnswerPayload(FrameKind.ATTRIBUTES_OF, Buffer.from([0, 0]), 3), FrameError);
  assert.throws(() => decodeAnswerPayload(FrameKind.ATTRIBUTES_OF, Buffer.from([0, 0]), 1), FrameError);
  assert.throws(() => decodeAnswerPayload(FrameKind.ATTRIBUTES_OF, Buffer.from([2]), 1), FrameError);
});

test('not-owner to a call that has no owner is no answer', () => {
  const args = new WireWriter();
  args.u8(1);
  args.bool(false);
  assert.deepEqual(decodeAnswer(FrameKind.COMMIT, new WireReader(args.written()), 0, 0), {
    kind: 'answer',
    answer: { kind: 'not-owner', hint: null },
  });
  assert.throws(() => decodeAnswer(FrameKind.INODE_CHANGED, new WireReader(args.written()), 0, 0), FrameError);
});
