/**
 * Port between the routers of a cluster: what one asks of another (design section 10). `server/peer/` carries it over HTTP/2 (docs/PEER-PROTOCOL.md), the
 * simulation hands it over in the process. The object-router implements `PeerService` and uses `PeerNetwork`.
 *
 * Every call to an object carries the term in which the caller believes the object to be owned; it is executed only by the owner of that very term, else the
 * answer is `not-owner` with what the asked router knows. Calls that change something carry the operation id of the client's call: an owner executes one
 * once, and a repetition joins the running one or gets its answer, for `REPETITION_WINDOW_MS` after it ended.
 *
 * Failures: ApplianceError `peer-unavailable` (retryable; for calls that change something the outcome is unknown: ask again with the same operation id;
 * also when it answered what is no answer), `peer-refused` (retryable; versions, vPools or certificates do not fit), and whatever the other side's service failed
 * with, by code (`peer-failed`: by a bug).
 * Buffers: request payloads belong to the network until the promise settles and are never modified; answers belong to the caller.
 */
import type { OwnerRecord } from '../../registry/ports.ts';
import type { FileId, Incarnation, RouterId, Term } from '../core/ids.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { Timestamp } from '../core/time.ts';
import type { Attributes, ReadAnswer, Result, SetAttributes, Stability, WccResult, WriteAnswer } from '../nfsd/file-system.ts';

/** Longer than any copy of a call may be under way: BEGIN_MS_MAX of the object-router, and what the wire takes. */
export const REPETITION_WINDOW_MS = 45_000;

/** The client for whom a router asks, after squashing. */
export interface PeerCaller {
  readonly uid: number;
  readonly gid: number;
  readonly gids: readonly number[];
  readonly address: string;
  /** Caller.operationId() of the client's call. */
  readonly operationId: string;
}

/** An object in a term of its ownership. */
export interface ObjectTarget {
  readonly fileid: FileId;
  readonly inodeGeneration: number;
  readonly term: Term;
}

/** Who owns an object, as far as somebody knows. */
export interface OwnerHint {
  readonly router: RouterId;
  readonly incarnation: Incarnation;
  readonly term: Term;
}

/** `not-owner`: not executed. `hint` null: ask the registry. */
export type Forwarded<T> = { readonly kind: 'done'; readonly result: T } | { readonly kind: 'not-owner'; readonly hint: OwnerHint | null };

/** Position in the log of an object: all bytes of earlier segments and `offsetBytes` of this one. */
export interface LogPosition {
  readonly segment: number;
  readonly offsetBytes: number;
}

/** A piece of a segment file, byte for byte (docs/formats/segment.md). */
export interface LogPiece {
  readonly segment: number;
  /** Term of the segment: the owner's, or an earlier one whose segments are not on the backend yet. */
  readonly term: Term;
  readonly offsetBytes: number;
  readonly bytes: Buffer;
  /** Size of the whole segment once it is sealed; null while it grows. */
  readonly sealedBytes: number | null;
}

/** What a router tells the one that it gives an object to, when it agrees. */
export interface MoveOffer {
  /** The record with `moving.attempt` reserved; its root says what of the object is on the backend. The checkpoint stays the same until the attempt ends. */
  readonly owner: OwnerRecord;
  /** First position that is to be fetched: below it everything is on the backend by the root. */
  readonly from: LogPosition;
  /** Bytes from there to the present end. */
  readonly behindBytes: number;
}

export type MoveAnswer =
  | { readonly kind: 'offer'; readonly offer: MoveOffer }
  | { readonly kind: 'refused'; readonly reason: string; readonly retryable: boolean };

export interface LogPieces {
  readonly pieces: readonly LogPiece[];
  /** Bytes that were written behind them when this was answered. */
  readonly behindBytes: number;
}

/** Up to where the receiver has what the giver has of the object. */
export interface FollowPosition extends LogPosition {
  /** Of the memory of completed calls: 0, or `next` of the last part. */
  readonly calls: number;
}

/** A part of the giver's memory of completed calls of the object (repetitions.ts): opaque, at most `CALLS_BYTES_MAX`. */
export interface CallsPart {
  readonly bytes: Buffer;
  /** Where the next part begins. */
  readonly next: number;
  /** At most so many calls are behind it. */
  readonly behind: number;
}

/** What the receiver does not have yet, or the beginning of it. */
export interface MovePart extends LogPieces {
  readonly calls: CallsPart;
}

/** The log's end when new I/O is held: everything up to it must be durable at the receiver before it confirms. */
export interface FrozenEnd {
  readonly lastSegment: number;
  readonly lastSequence: number;
  readonly end: LogPosition;
  readonly verifier: Uint8Array;
  /** What there is behind the position that the receiver named: of the log the beginning, to be fetched on if it is not all; of the calls all. */
  readonly rest: MovePart;
}

export const CALLS_BYTES_MAX = 2 * 1024 * 1024;

/** Answer to a confirmation: the object is the receiver's, or the attempt is over and the giver goes on. */
export type MoveOutcome = { readonly kind: 'moved'; readonly owner: OwnerRecord } | { readonly kind: 'aborted'; readonly reason: string };

/** Who hears how a call ended: exactly one of the two, once, perhaps before the call returned. In place of a promise, for the calls that are many. */
export interface CallEnd<T> {
  answered(answer: T): void;
  failed(error: Error): void;
}

/** What every router offers to its peers. */
export interface PeerService {
  getattr(target: ObjectTarget): MaybePromise<Forwarded<Result<{ attributes: Attributes }>>>;
  /** Attributes of many, in their order; null where this router is not the owner in that term or cannot say at once. At most 4,096 targets. */
  attributesOf(targets: readonly ObjectTarget[]): MaybePromise<readonly (Attributes | null)[]>;
  /** Reads at most `target.length` bytes into `target`. */
  read(target: ObjectTarget, caller: PeerCaller, offsetBytes: number, into: Buffer): MaybePromise<Forwarded<ReadAnswer>>;
  write(
    target: ObjectTarget,
    caller: PeerCaller,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stability: Stability,
  ): MaybePromise<Forwarded<WriteAnswer>>;
  /** As `read`; offered by services of other routers, not needed of one's own. */
  startRead?(target: ObjectTarget, caller: PeerCaller, offsetBytes: number, into: Buffer, end: CallEnd<Forwarded<ReadAnswer>>): void;
  /** As `write`; offered by services of other routers, not needed of one's own. `payloadCrc`: CRC-32 of the data. */
  startWrite?(
    target: ObjectTarget,
    caller: PeerCaller,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stability: Stability,
    payloadCrc: number,
    end: CallEnd<Forwarded<WriteAnswer>>,
  ): void;
  commit(target: ObjectTarget, caller: PeerCaller): MaybePromise<Forwarded<WccResult<{ verifier: Uint8Array }>>>;
  setattr(target: ObjectTarget, caller: PeerCaller, changes: SetAttributes, guardCtime: Timestamp | null): MaybePromise<Forwarded<WccResult>>;
  /** The last name of the object is gone, or the registry changed names, mode or owner: look at its inode now. Resolves when no older state is shown here any more. */
  inodeChanged(fileid: FileId): Promise<void>;

  /** Asks the owner for the object; `from` is the asking router. `nonce`: of the term that it will have. `pinned`: an operator wants it. */
  moveAsk(target: ObjectTarget, from: RouterId, nonce: string, reason: MoveReason): Promise<MoveAnswer>;
  /**
   * What there is from `from` on, at most about `bytesMax` of the log; waits up to `waitMs` for some. Null: the attempt is over. After a move the former owner
   * answers the new one for a while from its cache: exactly `bytesMax` of that segment at that place, null if it does not have them.
   */
  moveFetch(fileid: FileId, attempt: Term, from: FollowPosition, bytesMax: number, waitMs: number): Promise<MovePart | null>;
  /** Holds the object's I/O, ends its log with a sealed segment and says where, with what there is behind `from`. The hold ends by itself after `HOLD_MS_MAX`. Null: the attempt is over. */
  moveFreeze(fileid: FileId, attempt: Term, from: FollowPosition): Promise<FrozenEnd | null>;
  /** Everything up to the frozen end is durable at the asker: change the owner. */
  moveConfirm(fileid: FileId, attempt: Term, lastSequence: number): Promise<MoveOutcome>;
  /** The asker gives up: the giver goes on as if nothing had happened. */
  moveAbort(fileid: FileId, attempt: Term, reason: string): Promise<void>;
  /** Asks a router to fetch an object of ours (drain, `volume move`): it will ask back with moveAsk. False: it does not want it now. */
  moveOffer(target: ObjectTarget, from: RouterId, reason: MoveReason): Promise<boolean>;
}

export type MoveReason = 'io' | 'operator' | 'drain';

export const HOLD_MS_MAX = 2_000;

/** A router of the cluster as this one sees it. */
export interface Member {
  readonly id: RouterId;
  readonly incarnation: Incarnation;
  /** URLs as in RouterRecord. */
  readonly addresses: readonly string[];
  /** Its incarnation is dead for good: it left, was replaced, or its lease ran out and somebody said so in the registry. */
  readonly dead: boolean;
  /** Milliseconds since this router last saw its lease renewed. */
  readonly silentMs: number;
}

/** Who is in the cluster; kept up to date by somebody else. */
export interface Members {
  readonly self: RouterId;
  get(router: RouterId): Member | null;
  list(): readonly Member[];
  /** True when that incarnation is dead, replaced by another one, or unknown after the registry was asked. */
  isDead(router: RouterId, incarnation: Incarnation): boolean;
  /** Called when a router joined, came back or died. */
  onChange(listener: () => void): void;
}

export interface PeerNetwork {
  /** The service of another router. Calls reject with `peer-unavailable` at once while there is no way to it. */
  peer(router: RouterId): PeerService;
  /** Round trip and connection, for /status. */
  state(router: RouterId): { readonly connected: boolean; readonly roundTripMs: number | null; readonly problem: string | null };
}
