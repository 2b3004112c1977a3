/** Requests of PeerService on the wire (docs/PEER-PROTOCOL.md, "Calls"). Arguments fit in ARGS_BYTES_MAX; what may be longer is payload. */
import { assert } from '../core/assert.ts';
import type { FileId, RouterId, Term } from '../core/ids.ts';
import type { Timestamp } from '../core/time.ts';
import type { SetAttributes, Stability } from '../nfsd/file-system.ts';
import type { FollowPosition, MoveReason, ObjectTarget, PeerCaller } from '../object-router/peer-port.ts';
import { FrameError } from './frame-error.ts';
import { FrameKind } from './frame.ts';
import { getFollowPosition, getReason, putFollowPosition, putReason } from './move-codec.ts';
import {
  getCaller,
  getFileid,
  getRouter,
  getSetAttributes,
  getStability,
  getTarget,
  getTerm,
  getTimeOrNull,
  putCaller,
  putFileid,
  putRouter,
  putSetAttributes,
  putStability,
  putTarget,
  putTerm,
  putTimeOrNull,
  ATTRIBUTES_BYTES,
  TARGET_BYTES,
} from './object-codec.ts';
import { BULK_LANE, CALL_BYTES, CONTROL_LANE, DATA_LANE } from './peer-settings.ts';
import { WireReader } from './wire-reader.ts';
import { WireWriter } from './wire-writer.ts';

/** Bytes of one READ or WRITE. */
export const IO_BYTES_MAX = 4 * 1024 * 1024;
/** Bytes that one MOVE_FETCH may ask for. */
export const FETCH_BYTES_MAX = 8 * 1024 * 1024;
export const TARGETS_MAX = 4096;
const WAIT_MS_MAX = 60_000;
const ABORT_REASON_BYTES_MAX = 1024;

/** Requests in the order of FrameKind. */
export type PeerRequest =
  | { readonly kind: typeof FrameKind.GETATTR; readonly target: ObjectTarget }
  | { readonly kind: typeof FrameKind.ATTRIBUTES_OF; readonly targetsCount: number; readonly targets: readonly ObjectTarget[] }
  | {
      readonly kind: typeof FrameKind.READ;
      readonly target: ObjectTarget;
      readonly caller: PeerCaller;
      readonly offsetBytes: number;
      readonly countBytes: number;
    }
  | {
      readonly kind: typeof FrameKind.WRITE;
      readonly target: ObjectTarget;
      readonly caller: PeerCaller;
      readonly offsetBytes: number;
      readonly stability: Stability;
      readonly countBytes: number;
      /** `countBytes` together: the payload. */
      readonly chunks: readonly Uint8Array[];
    }
  | { readonly kind: typeof FrameKind.COMMIT; readonly target: ObjectTarget; readonly caller: PeerCaller }
  | {
      readonly kind: typeof FrameKind.SETATTR;
      readonly target: ObjectTarget;
      readonly caller: PeerCaller;
      readonly changes: SetAttributes;
      readonly guardCtime: Timestamp | null;
    }
  | { readonly kind: typeof FrameKind.INODE_CHANGED; readonly fileid: FileId }
  | {
      readonly kind: typeof FrameKind.MOVE_ASK;
      readonly target: ObjectTarget;
      readonly from: RouterId;
      readonly nonce: string;
      readonly reason: MoveReason;
    }
  | {
      readonly kind: typeof FrameKind.MOVE_FETCH;
      readonly fileid: FileId;
      readonly attempt: Term;
      readonly from: FollowPosition;
      readonly bytesMax: number;
      readonly waitMs: number;
    }
  | { readonly kind: typeof FrameKind.MOVE_FREEZE; readonly fileid: FileId; readonly attempt: Term; readonly from: FollowPosition }
  | { readonly kind: typeof FrameKind.MOVE_CONFIRM; readonly fileid: FileId; readonly attempt: Term; readonly lastSequence: number }
  | { readonly kind: typeof FrameKind.MOVE_ABORT; readonly fileid: FileId; readonly attempt: Term; readonly reason: string }
  | { readonly kind: typeof FrameKind.MOVE_OFFER; readonly target: ObjectTarget; readonly from: RouterId; readonly reason: MoveReason };

/** Kinds that name a call of PeerService. */
export type CallKind = PeerRequest['kind'];

const NO_PAYLOAD: readonly Uint8Array[] = [];

/** Writes the arguments; answers the payload, by reference. */
export function encodeRequest(request: PeerRequest, args: WireWriter): readonly Uint8Array[] {
  switch (request.kind) {
    case FrameKind.GETATTR:
      putTarget(args, request.target);
      return NO_PAYLOAD;
    case FrameKind.ATTRIBUTES_OF:
      return encodeTargets(request.targets);
    case FrameKind.READ:
      putTarget(args, request.target);
      putCaller(args, request.caller);
      args.u53(request.offsetBytes);
      args.u32(request.countBytes);
      return NO_PAYLOAD;
    case FrameKind.WRITE:
      putTarget(args, request.target);
      putCaller(args, request.caller);
      args.u53(request.offsetBytes);
      putStability(args, request.stability);
      return request.chunks;
    case FrameKind.COMMIT:
      putTarget(args, request.target);
      putCaller(args, request.caller);
      return NO_PAYLOAD;
    case FrameKind.SETATTR:
      putTarget(args, request.target);
      putCaller(args, request.caller);
      putSetAttributes(args, request.changes);
      putTimeOrNull(args, request.guardCtime);
      return NO_PAYLOAD;
    case FrameKind.INODE_CHANGED:
      putFileid(args, request.fileid);
      return NO_PAYLOAD;
    case FrameKind.MOVE_ASK:
      putTarget(args, request.target);
      putRouter(args, request.from);
      args.hex(request.nonce, 16);
      putReason(args, request.reason);
      return NO_PAYLOAD;
    case FrameKind.MOVE_FETCH:
      putFileid(args, request.fileid);
      putTerm(args, request.attempt);
      putFollowPosition(args, request.from);
      args.u32(Math.min(request.bytesMax, FETCH_BYTES_MAX));
      args.u32(Math.min(request.waitMs, WAIT_MS_MAX));
      return NO_PAYLOAD;
    case FrameKind.MOVE_FREEZE:
      putFileid(args, request.fileid);
      putTerm(args, request.attempt);
      putFollowPosition(args, request.from);
      return NO_PAYLOAD;
    case FrameKind.MOVE_CONFIRM:
      putFileid(args, request.fileid);
      putTerm(args, request.attempt);
      args.u53(request.lastSequence);
      return NO_PAYLOAD;
    case FrameKind.MOVE_ABORT:
      putFileid(args, request.fileid);
      putTerm(args, request.attempt);
      args.text(request.reason, ABORT_REASON_BYTES_MAX);
      return NO_PAYLOAD;
    case FrameKind.MOVE_OFFER:
      putTarget(args, request.target);
      putRouter(args, request.from);
      putReason(args, request.reason);
      return NO_PAYLOAD;
  }
}

/**
 * Reads the arguments of a request. What its payload holds is added by `withPayload` when that is there: until then `chunks` and `targets` are empty.
 * @throws FrameError also when a payload of `payloadBytes` is none for this kind.
 */
export function decodeRequest(kind: CallKind, args: WireReader, payloadBytes: number): PeerRequest {
  const request = decodeArguments(kind, args, payloadBytes);
  args.assertEnd();
  const payloadBytesMax = kind === FrameKind.WRITE ? IO_BYTES_MAX : kind === FrameKind.ATTRIBUTES_OF ? TARGETS_MAX * TARGET_BYTES : 0;
  if (payloadBytes > payloadBytesMax)
    throw new FrameError(`a request of kind ${kind} with ${payloadBytes} bytes of payload, limit ${payloadBytesMax}`);
  return request;
}

/** Of a call that changes something: without a name it would be any other one without, and answered as done. */
function changing(caller: PeerCaller): PeerCaller {
  if (caller.operationId === '') throw new FrameError('a change without an operation id');
  return caller;
}

function decodeArguments(kind: CallKind, args: WireReader, payloadBytes: number): PeerRequest {
  switch (kind) {
    case FrameKind.GETATTR:
      return { kind, target: getTarget(args) };
    case FrameKind.ATTRIBUTES_OF:
      return { kind, targetsCount: payloadBytes / TARGET_BYTES, targets: [] };
    case FrameKind.READ: {
      const request = { kind, target: getTarget(args), caller: getCaller(args), offsetBytes: args.u53(), countBytes: args.u32() };
      if (request.countBytes > IO_BYTES_MAX) throw new FrameError(`a READ of ${request.countBytes} bytes`);
      return request;
    }
    case FrameKind.WRITE:
      return {
        kind,
        target: getTarget(args),
        caller: changing(getCaller(args)),
        offsetBytes: args.u53(),
        stability: getStability(args),
        countBytes: payloadBytes,
        chunks: NO_PAYLOAD,
      };
    case FrameKind.COMMIT:
      return { kind, target: getTarget(args), caller: getCaller(args) };
    case FrameKind.SETATTR:
      return { kind, target: getTarget(args), caller: changing(getCaller(args)), changes: getSetAttributes(args), guardCtime: getTimeOrNull(args) };
    case FrameKind.INODE_CHANGED:
      return { kind, fileid: getFileid(args) };
    case FrameKind.MOVE_ASK:
      return { kind, target: getTarget(args), from: getRouter(args), nonce: args.hex(16), reason: getReason(args) };
    case FrameKind.MOVE_FETCH: {
      const request = {
        kind,
        fileid: getFileid(args),
        attempt: getTerm(args),
        from: getFollowPosition(args),
        bytesMax: args.u32(),
        waitMs: args.u32(),
      };
      if (request.bytesMax > FETCH_BYTES_MAX || request.waitMs > WAIT_MS_MAX) throw new FrameError('a MOVE_FETCH beyond the limits');
      return request;
    }
    case FrameKind.MOVE_FREEZE:
      return { kind, fileid: getFileid(args), attempt: getTerm(args), from: getFollowPosition(args) };
    case FrameKind.MOVE_CONFIRM:
      return { kind, fileid: getFileid(args), attempt: getTerm(args), lastSequence: args.u53() };
    case FrameKind.MOVE_ABORT:
      return { kind, fileid: getFileid(args), attempt: getTerm(args), reason: args.text(ABORT_REASON_BYTES_MAX) };
    case FrameKind.MOVE_OFFER:
      return { kind, target: getTarget(args), from: getRouter(args), reason: getReason(args) };
  }
}

/** The request with what its payload holds. `payload` belongs to the request from now on. */
export function withPayload(request: PeerRequest, payload: readonly Buffer[]): PeerRequest {
  if (request.kind === FrameKind.WRITE) return { ...request, chunks: payload };
  if (request.kind === FrameKind.ATTRIBUTES_OF) return { ...request, targets: decodeTargets(payload) };
  return request;
}

function encodeTargets(targets: readonly ObjectTarget[]): readonly Uint8Array[] {
  assert(targets.length <= TARGETS_MAX, `attributes of ${targets.length} objects at once`);
  const writer = new WireWriter(Buffer.allocUnsafe(targets.length * TARGET_BYTES));
  for (let i = 0; i < targets.length; i++) putTarget(writer, targets[i]!);
  return [writer.written()];
}

function decodeTargets(payload: readonly Buffer[]): ObjectTarget[] {
  const bytes = payload.length === 1 ? payload[0]! : Buffer.concat(payload);
  if (bytes.length % TARGET_BYTES !== 0) throw new FrameError(`${bytes.length} bytes of targets`);
  const reader = new WireReader(bytes);
  const targets: ObjectTarget[] = [];
  while (reader.left > 0) targets.push(getTarget(reader));
  return targets;
}

/** Bytes of the request and of what it may bring back: what it takes from the credit of its stream. Both ends count the same. */
export function chargeOf(request: PeerRequest): number {
  switch (request.kind) {
    case FrameKind.READ:
    case FrameKind.WRITE:
      return CALL_BYTES + request.countBytes;
    case FrameKind.MOVE_FETCH:
      return CALL_BYTES + request.bytesMax;
    case FrameKind.ATTRIBUTES_OF:
      return CALL_BYTES + request.targetsCount * (TARGET_BYTES + ATTRIBUTES_BYTES);
    default:
      return CALL_BYTES;
  }
}

/** Where a request goes: the number of its lane. */
export function laneOf(kind: CallKind): number {
  return kind === FrameKind.READ || kind === FrameKind.WRITE ? DATA_LANE : kind === FrameKind.MOVE_FETCH ? BULK_LANE : CONTROL_LANE;
}
