/** Answers of PeerService on the wire (docs/PEER-PROTOCOL.md, "Answers"). */
import { ApplianceError } from '../core/errors.ts';
import type { Attributes, ReadAnswer, Result, WccResult, WriteAnswer } from '../nfsd/file-system.ts';
import type { Forwarded, FrozenEnd, MovePart, MoveAnswer, MoveOutcome } from '../object-router/peer-port.ts';
import { FrameError } from './frame-error.ts';
import { FrameKind } from './frame.ts';
import {
  decodeFrozenEnd,
  decodeMovePart,
  decodeMoveAnswer,
  decodeMoveOutcome,
  encodeFrozenEnd,
  encodeMovePart,
  encodeMoveAnswer,
  encodeMoveOutcome,
} from './move-codec.ts';
import {
  ATTRIBUTES_BYTES,
  getAttributes,
  getAttributesOrNull,
  getHint,
  getStability,
  getStatus,
  getVerifier,
  getWcc,
  putAttributes,
  putAttributesOrNull,
  putHint,
  putStability,
  putStatus,
  putVerifier,
  putWcc,
} from './object-codec.ts';
import { FETCH_BYTES_MAX, TARGETS_MAX } from './request-codec.ts';
import type { CallKind } from './request-codec.ts';
import { WireReader } from './wire-reader.ts';
import { WireWriter } from './wire-writer.ts';

/** What a call is answered with, by its kind. */
export interface Answers {
  [FrameKind.GETATTR]: Forwarded<Result<{ attributes: Attributes }>>;
  [FrameKind.ATTRIBUTES_OF]: readonly (Attributes | null)[];
  [FrameKind.READ]: Forwarded<ReadAnswer>;
  [FrameKind.WRITE]: Forwarded<WriteAnswer>;
  [FrameKind.COMMIT]: Forwarded<WccResult<{ verifier: Uint8Array }>>;
  [FrameKind.SETATTR]: Forwarded<WccResult>;
  [FrameKind.INODE_CHANGED]: void;
  [FrameKind.MOVE_ASK]: MoveAnswer;
  [FrameKind.MOVE_FETCH]: MovePart | null;
  [FrameKind.MOVE_FREEZE]: FrozenEnd | null;
  [FrameKind.MOVE_CONFIRM]: MoveOutcome;
  [FrameKind.MOVE_ABORT]: void;
  [FrameKind.MOVE_OFFER]: boolean;
}

/** First byte of the arguments of an answer. */
const DONE = 0;
const NOT_OWNER = 1;
const FAILED = 2;

const CODE_BYTES_MAX = 64;
const MESSAGE_BYTES_MAX = 1024;
const CODE = /^[A-Za-z0-9_-]{1,64}$/;
const OWNER_BYTES_MAX = 4 * 1024 * 1024;
const NOTHING: readonly Uint8Array[] = [];

/**
 * Writes the arguments of an answer; answers its payload, by reference. `readBytes`: where READ read into.
 */
export function encodeAnswer<K extends CallKind>(kind: K, answer: Answers[K], args: WireWriter, readBytes: Buffer | null): readonly Uint8Array[] {
  switch (kind) {
    case FrameKind.GETATTR: {
      const result = putForwarded(args, answer as Answers[typeof FrameKind.GETATTR]);
      if (result === null) return NOTHING;
      putStatus(args, result.status);
      if (result.status === 0) putAttributes(args, result.attributes);
      return NOTHING;
    }
    case FrameKind.READ: {
      const result = putForwarded(args, answer as Answers[typeof FrameKind.READ]);
      if (result === null) return NOTHING;
      putStatus(args, result.status);
      putAttributesOrNull(args, result.attributes);
      if (result.status !== 0) return NOTHING;
      args.bool(result.eof);
      return result.bytesRead === 0 ? NOTHING : [readBytes!.subarray(0, result.bytesRead)];
    }
    case FrameKind.WRITE: {
      const result = putForwarded(args, answer as Answers[typeof FrameKind.WRITE]);
      if (result === null) return NOTHING;
      putStatus(args, result.status);
      putWcc(args, result.wcc);
      if (result.status !== 0) return NOTHING;
      args.u32(result.countBytes);
      putStability(args, result.committed);
      putVerifier(args, result.verifier);
      return NOTHING;
    }
    case FrameKind.COMMIT: {
      const result = putForwarded(args, answer as Answers[typeof FrameKind.COMMIT]);
      if (result === null) return NOTHING;
      putStatus(args, result.status);
      putWcc(args, result.wcc);
      if (result.status === 0) putVerifier(args, result.verifier);
      return NOTHING;
    }
    case FrameKind.SETATTR: {
      const result = putForwarded(args, answer as Answers[typeof FrameKind.SETATTR]);
      if (result === null) return NOTHING;
      putStatus(args, result.status);
      putWcc(args, result.wcc);
      return NOTHING;
    }
    default:
      return encodeControlAnswer(kind, answer, args);
  }
}

function encodeControlAnswer(kind: CallKind, answer: unknown, args: WireWriter): readonly Uint8Array[] {
  args.u8(DONE);
  switch (kind) {
    case FrameKind.ATTRIBUTES_OF:
      return encodeAttributesList(answer as Answers[typeof FrameKind.ATTRIBUTES_OF]);
    case FrameKind.MOVE_ASK:
      return [encodeMoveAnswer(answer as MoveAnswer)];
    case FrameKind.MOVE_FETCH:
      return encodeMovePart(answer as MovePart | null);
    case FrameKind.MOVE_FREEZE:
      return encodeFrozenEnd(answer as FrozenEnd | null);
    case FrameKind.MOVE_CONFIRM:
      return [encodeMoveOutcome(answer as MoveOutcome)];
    case FrameKind.MOVE_OFFER:
      args.bool(answer as boolean);
      return NOTHING;
    default:
      return NOTHING;
  }
}

/** Writes the arguments of an answer that says that the call failed. */
export function encodeFailure(error: ApplianceError, args: WireWriter): void {
  args.u8(FAILED);
  args.exactText(CODE.test(error.code) ? error.code : 'peer-failed', CODE_BYTES_MAX);
  args.bool(error.retryable);
  args.text(error.message, MESSAGE_BYTES_MAX);
}

/** An answer as far as its arguments say it. `payload`: the rest is in the payload (`decodeAnswerPayload`; for READ the bytes themselves). */
export type DecodedAnswer =
  | { readonly kind: 'answer'; readonly answer: unknown }
  | { readonly kind: 'failed'; readonly error: ApplianceError }
  | { readonly kind: 'payload' };

const IN_PAYLOAD: DecodedAnswer = { kind: 'payload' };

/**
 * Reads the arguments of the answer to a call of `kind` that asked for at most `bytesMax` bytes (READ, and how many targets for ATTRIBUTES_OF).
 * @throws FrameError also when a payload of `payloadBytes` is none for it.
 */
export function decodeAnswer(kind: CallKind, args: WireReader, payloadBytes: number, bytesMax: number): DecodedAnswer {
  const outcome = args.member(FAILED);
  let decoded: DecodedAnswer;
  let payloadBytesMax = 0;
  if (outcome === FAILED) {
    decoded = { kind: 'failed', error: decodeFailure(args) };
  } else if (outcome === NOT_OWNER) {
    if (!isForwarded(kind)) throw new FrameError(`not-owner to a call of kind ${kind}`);
    decoded = { kind: 'answer', answer: { kind: 'not-owner', hint: getHint(args) } };
  } else {
    decoded = decodeResult(kind, args, payloadBytes);
    if (decoded === IN_PAYLOAD) payloadBytesMax = payloadBytesMaxOf(kind);
    else if (kind === FrameKind.READ) payloadBytesMax = bytesMax;
  }
  args.assertEnd();
  if (payloadBytes > payloadBytesMax)
    throw new FrameError(`an answer of kind ${kind} with ${payloadBytes} bytes of payload, limit ${payloadBytesMax}`);
  return decoded;
}

function payloadBytesMaxOf(kind: CallKind): number {
  switch (kind) {
    case FrameKind.ATTRIBUTES_OF:
      return TARGETS_MAX * (1 + ATTRIBUTES_BYTES);
    case FrameKind.MOVE_FETCH:
      // `bytesMax` is about: a piece may be a whole record longer.
      return FETCH_BYTES_MAX * 2;
    default:
      return OWNER_BYTES_MAX;
  }
}

/** What the payload of an answer says. `payload` belongs to the answer from now on. */
export function decodeAnswerPayload(kind: CallKind, payload: Buffer, targetsCount: number): unknown {
  switch (kind) {
    case FrameKind.ATTRIBUTES_OF:
      return decodeAttributesList(payload, targetsCount);
    case FrameKind.MOVE_ASK:
      return decodeMoveAnswer(payload);
    case FrameKind.MOVE_FETCH:
      return decodeMovePart(payload);
    case FrameKind.MOVE_FREEZE:
      return decodeFrozenEnd(payload);
    case FrameKind.MOVE_CONFIRM:
      return decodeMoveOutcome(payload);
    default:
      throw new FrameError(`a payload for a call of kind ${kind}`);
  }
}

function isForwarded(kind: CallKind): boolean {
  return kind === FrameKind.GETATTR || kind === FrameKind.READ || kind === FrameKind.WRITE || kind === FrameKind.COMMIT || kind === FrameKind.SETATTR;
}

function decodeResult(kind: CallKind, args: WireReader, payloadBytes: number): DecodedAnswer {
  switch (kind) {
    case FrameKind.GETATTR: {
      const status = getStatus(args);
      return done(status === 0 ? { status, attributes: getAttributes(args) } : { status });
    }
    case FrameKind.READ: {
      const status = getStatus(args);
      const attributes = getAttributesOrNull(args);
      if (status !== 0 && payloadBytes > 0) throw new FrameError('bytes for a READ that failed');
      return done(status === 0 ? { status, bytesRead: payloadBytes, eof: args.bool(), attributes } : { status, attributes });
    }
    case FrameKind.WRITE: {
      const status = getStatus(args);
      const wcc = getWcc(args);
      return done(
        status === 0 ? { status, wcc, countBytes: args.u32(), committed: getStability(args), verifier: getVerifier(args) } : { status, wcc },
      );
    }
    case FrameKind.COMMIT: {
      const status = getStatus(args);
      const wcc = getWcc(args);
      return done(status === 0 ? { status, wcc, verifier: getVerifier(args) } : { status, wcc });
    }
    case FrameKind.SETATTR:
      return done({ status: getStatus(args), wcc: getWcc(args) });
    case FrameKind.MOVE_OFFER:
      return { kind: 'answer', answer: args.bool() };
    case FrameKind.INODE_CHANGED:
    case FrameKind.MOVE_ABORT:
      return { kind: 'answer', answer: undefined };
    default:
      return IN_PAYLOAD;
  }
}

function done(result: object): DecodedAnswer {
  return { kind: 'answer', answer: { kind: 'done', result } };
}

function putForwarded<T>(args: WireWriter, answer: Forwarded<T>): T | null {
  if (answer.kind === 'done') {
    args.u8(DONE);
    return answer.result;
  }
  args.u8(NOT_OWNER);
  putHint(args, answer.hint);
  return null;
}

function decodeFailure(args: WireReader): ApplianceError {
  const code = args.text(CODE_BYTES_MAX);
  if (!CODE.test(code)) throw new FrameError('a failure whose code is none');
  const retryable = args.bool();
  return new ApplianceError(code, args.text(MESSAGE_BYTES_MAX), { retryable });
}

function encodeAttributesList(list: readonly (Attributes | null)[]): readonly Uint8Array[] {
  const writer = new WireWriter(Buffer.allocUnsafe(Math.max(list.length * (1 + ATTRIBUTES_BYTES), 1)));
  for (let i = 0; i < list.length; i++) putAttributesOrNull(writer, list[i]!);
  return [writer.written()];
}

function decodeAttributesList(payload: Buffer, count: number): (Attributes | null)[] {
  const reader = new WireReader(payload);
  const list: (Attributes | null)[] = [];
  for (let i = 0; i < count; i++) list.push(getAttributesOrNull(reader));
  reader.assertEnd();
  return list;
}
