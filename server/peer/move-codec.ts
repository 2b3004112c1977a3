/** Wire forms of what moves exchange: positions, pieces of a log, owner records (docs/PEER-PROTOCOL.md, "Moves"). */
import type { ClosedEpoch, OwnerRecord, Protection } from '../../registry/ports.ts';
import type { ObjectUuid, RouterId } from '../core/ids.ts';
import { CALLS_BYTES_MAX } from '../object-router/peer-port.ts';
import type { FollowPosition, FrozenEnd, LogPiece, LogPosition, MoveAnswer, MoveOutcome, MovePart, MoveReason } from '../object-router/peer-port.ts';
import { FrameError } from './frame-error.ts';
import { getFileid, getIncarnation, getRouter, getTerm, getVerifier, putFileid, putRouter, putTerm, putVerifier } from './object-codec.ts';
import { WireReader } from './wire-reader.ts';
import { WireWriter } from './wire-writer.ts';

export const REASON_BYTES_MAX = 16 * 1024;
const CHECKPOINT_BYTES_MAX = 4096;
const CLOSED_EPOCHS_MAX = 65_536;
const REPLICAS_MAX = 16;
const PIECES_MAX = 4096;
const TERM_BYTES = 24;
const CLOSED_EPOCH_BYTES = TERM_BYTES + 16;
const PIECE_HEAD_BYTES = 8 + TERM_BYTES + 8 + 1 + 4;
const REASONS: readonly MoveReason[] = ['io', 'operator', 'drain'];
const STATES = ['running', 'recovering', 'halted'] as const;
const PROTECTIONS = ['clean', 'unprotected', 'protected'] as const;

export function putReason(writer: WireWriter, reason: MoveReason): void {
  writer.u8(REASONS.indexOf(reason));
}

export function getReason(reader: WireReader): MoveReason {
  return REASONS[reader.member(REASONS.length - 1)]!;
}

export function putPosition(writer: WireWriter, position: LogPosition): void {
  writer.u53(position.segment);
  writer.u53(position.offsetBytes);
}

export function getPosition(reader: WireReader): LogPosition {
  return { segment: reader.u53(), offsetBytes: reader.u53() };
}

export function putFollowPosition(writer: WireWriter, position: FollowPosition): void {
  putPosition(writer, position);
  writer.u53(position.calls);
}

export function getFollowPosition(reader: WireReader): FollowPosition {
  return { ...getPosition(reader), calls: reader.u53() };
}

export function putOwner(writer: WireWriter, owner: OwnerRecord): void {
  putFileid(writer, owner.fileid);
  writer.hex(owner.uuid, 32);
  putRouter(writer, owner.router);
  writer.hex(owner.incarnation, 32);
  putTerm(writer, owner.term);
  writer.u8(STATES.indexOf(owner.state.kind));
  if (owner.state.kind !== 'running') writer.text(owner.state.reason, REASON_BYTES_MAX);
  writer.bool(owner.moving !== null);
  if (owner.moving !== null) {
    putRouter(writer, owner.moving.from);
    putRouter(writer, owner.moving.to);
    putTerm(writer, owner.moving.attempt);
  }
  const { checkpoint, uploadedSegment, uploadedSequence, closedEpochs } = owner.root;
  writer.bool(checkpoint !== null);
  if (checkpoint !== null) writer.exactText(checkpoint, CHECKPOINT_BYTES_MAX);
  writer.u53(uploadedSegment);
  writer.u53(uploadedSequence);
  writer.u32(closedEpochs.length);
  for (const epoch of closedEpochs) {
    putTerm(writer, epoch.term);
    writer.u53(epoch.lastSegment);
    writer.u53(epoch.lastSequence);
  }
  writer.u8(PROTECTIONS.indexOf(owner.protection.kind));
  if (owner.protection.kind === 'protected') {
    writer.u8(owner.protection.replicas.length);
    for (const replica of owner.protection.replicas) putRouter(writer, replica);
  }
  putVerifier(writer, owner.verifier);
}

export function getOwner(reader: WireReader): OwnerRecord {
  return {
    fileid: getFileid(reader),
    uuid: reader.hex(32) as ObjectUuid,
    router: getRouter(reader),
    incarnation: getIncarnation(reader),
    term: getTerm(reader),
    state: getState(reader),
    moving: reader.bool() ? { from: getRouter(reader), to: getRouter(reader), attempt: getTerm(reader) } : null,
    root: {
      checkpoint: reader.bool() ? reader.text(CHECKPOINT_BYTES_MAX) : null,
      uploadedSegment: reader.u53(),
      uploadedSequence: reader.u53(),
      closedEpochs: getClosedEpochs(reader),
    },
    protection: getProtection(reader),
    verifier: getVerifier(reader),
  };
}

function getState(reader: WireReader): OwnerRecord['state'] {
  const kind = STATES[reader.member(STATES.length - 1)]!;
  return kind === 'running' ? { kind } : { kind, reason: reader.text(REASON_BYTES_MAX) };
}

function getClosedEpochs(reader: WireReader): ClosedEpoch[] {
  const epochs: ClosedEpoch[] = [];
  for (let count = reader.count(CLOSED_EPOCHS_MAX, CLOSED_EPOCH_BYTES); count > 0; count--)
    epochs.push({ term: getTerm(reader), lastSegment: reader.u53(), lastSequence: reader.u53() });
  return epochs;
}

function getProtection(reader: WireReader): Protection {
  const kind = PROTECTIONS[reader.member(PROTECTIONS.length - 1)]!;
  if (kind !== 'protected') return { kind };
  const replicas: RouterId[] = [];
  for (let count = reader.member(REPLICAS_MAX); count > 0; count--) replicas.push(getRouter(reader));
  return { kind, replicas };
}

/** Answer to MOVE_ASK as payload. */
export function encodeMoveAnswer(answer: MoveAnswer): Buffer {
  const writer = new WireWriter();
  writer.bool(answer.kind === 'offer');
  if (answer.kind === 'offer') {
    putOwner(writer, answer.offer.owner);
    putPosition(writer, answer.offer.from);
    writer.u53(answer.offer.behindBytes);
  } else {
    writer.bool(answer.retryable);
    writer.text(answer.reason, REASON_BYTES_MAX);
  }
  return writer.written();
}

export function decodeMoveAnswer(payload: Buffer): MoveAnswer {
  const reader = new WireReader(payload);
  let answer: MoveAnswer;
  if (reader.bool()) {
    answer = { kind: 'offer', offer: { owner: getOwner(reader), from: getPosition(reader), behindBytes: reader.u53() } };
  } else {
    const retryable = reader.bool();
    answer = { kind: 'refused', reason: reader.text(REASON_BYTES_MAX), retryable };
  }
  reader.assertEnd();
  return answer;
}

function partBytes(part: MovePart): number {
  return 33 + part.pieces.length * (PIECE_HEAD_BYTES + 8);
}

/** Heads of everything; what they speak of follows behind, by reference: the bytes of all pieces, then the calls. */
function putPart(writer: WireWriter, part: MovePart): void {
  writer.u53(part.behindBytes);
  writer.u32(part.pieces.length);
  for (const piece of part.pieces) {
    writer.u53(piece.segment);
    putTerm(writer, piece.term);
    writer.u53(piece.offsetBytes);
    writer.bool(piece.sealedBytes !== null);
    if (piece.sealedBytes !== null) writer.u53(piece.sealedBytes);
    writer.u32(piece.bytes.length);
  }
  writer.u53(part.calls.next);
  writer.u53(part.calls.behind);
  writer.u32(part.calls.bytes.length);
}

/** The last of a payload, of which the part's bytes are slices. */
function getPart(reader: WireReader): MovePart {
  const behindBytes = reader.u53();
  const heads: { piece: Omit<LogPiece, 'bytes'>; lengthBytes: number }[] = [];
  for (let count = reader.count(PIECES_MAX, PIECE_HEAD_BYTES); count > 0; count--) {
    const piece = {
      segment: reader.u53(),
      term: getTerm(reader),
      offsetBytes: reader.u53(),
      sealedBytes: reader.bool() ? reader.u53() : null,
    };
    heads.push({ piece, lengthBytes: reader.u32() });
  }
  const calls = { next: reader.u53(), behind: reader.u53() };
  const callsBytes = reader.u32();
  const pieces = heads.map(({ piece, lengthBytes }): LogPiece => ({ ...piece, bytes: reader.view(lengthBytes) }));
  if (callsBytes > CALLS_BYTES_MAX) throw new FrameError(`${callsBytes} bytes of completed calls`);
  return { pieces, behindBytes, calls: { ...calls, bytes: reader.view(callsBytes) } };
}

/** Answer to MOVE_FETCH as payload. */
export function encodeMovePart(answer: MovePart | null): Uint8Array[] {
  const writer = new WireWriter(Buffer.allocUnsafe(1 + (answer === null ? 0 : partBytes(answer))));
  writer.bool(answer !== null);
  if (answer === null) return [writer.written()];
  putPart(writer, answer);
  return [writer.written(), ...answer.pieces.map((piece) => piece.bytes), answer.calls.bytes];
}

/** The bytes of the pieces and calls are slices of `payload`. */
export function decodeMovePart(payload: Buffer): MovePart | null {
  const reader = new WireReader(payload);
  const part = reader.bool() ? getPart(reader) : null;
  reader.assertEnd();
  return part;
}

/** Answer to MOVE_FREEZE as payload. */
export function encodeFrozenEnd(answer: FrozenEnd | null): Uint8Array[] {
  const writer = new WireWriter(Buffer.allocUnsafe(64 + (answer === null ? 0 : partBytes(answer.rest))));
  writer.bool(answer !== null);
  if (answer === null) return [writer.written()];
  writer.u53(answer.lastSegment);
  writer.u53(answer.lastSequence);
  putPosition(writer, answer.end);
  putVerifier(writer, answer.verifier);
  putPart(writer, answer.rest);
  return [writer.written(), ...answer.rest.pieces.map((piece) => piece.bytes), answer.rest.calls.bytes];
}

export function decodeFrozenEnd(payload: Buffer): FrozenEnd | null {
  const reader = new WireReader(payload);
  let answer: FrozenEnd | null = null;
  if (reader.bool()) {
    answer = {
      lastSegment: reader.u53(),
      lastSequence: reader.u53(),
      end: getPosition(reader),
      verifier: getVerifier(reader),
      rest: getPart(reader),
    };
  }
  reader.assertEnd();
  return answer;
}

/** Answer to MOVE_CONFIRM as payload. */
export function encodeMoveOutcome(outcome: MoveOutcome): Buffer {
  const writer = new WireWriter();
  writer.bool(outcome.kind === 'moved');
  if (outcome.kind === 'moved') putOwner(writer, outcome.owner);
  else writer.text(outcome.reason, REASON_BYTES_MAX);
  return writer.written();
}

export function decodeMoveOutcome(payload: Buffer): MoveOutcome {
  const reader = new WireReader(payload);
  const outcome: MoveOutcome = reader.bool()
    ? { kind: 'moved', owner: getOwner(reader) }
    : { kind: 'aborted', reason: reader.text(REASON_BYTES_MAX) };
  reader.assertEnd();
  return outcome;
}
