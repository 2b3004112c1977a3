/** Port of the drivers: what the object-router asks of an object that this router owns. */
import type { Inode } from '../../registry/inode.ts';
import type { OwnerRecord } from '../../registry/ports.ts';
import type { FileId, Term } from '../core/ids.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { Timestamp } from '../core/time.ts';
import type { OwnedAttributes } from './inode-attributes.ts';
import type { FrozenEnd, LogPiece, LogPieces, LogPosition, MoveOffer } from './peer-port.ts';

export interface OwnedSnapshot extends OwnedAttributes {}

export type ObjectChange =
  | { readonly kind: 'changed'; readonly before: Pick<OwnedSnapshot, 'sizeBytes' | 'mtime' | 'ctime'>; readonly stable: boolean }
  | { readonly kind: 'refused'; readonly error: Error };

/**
 * An object that is open here: all of its I/O goes through it. While it is frozen for a move, changes are refused with ApplianceError `object-held`: not executed, to
 * be tried again where the object is then.
 */
export interface DrivenObject {
  readonly fileid: FileId;
  /** 8 bytes. */
  readonly verifier: Uint8Array;
  attributes(): OwnedSnapshot;
  /** Reads into `target`; resolves with the bytes read, short only at the end of the object. */
  read(offsetBytes: number, target: Buffer): MaybePromise<number>;
  /**
   * `chunks` (not empty) belong to the object from now on. `call`: the four words that name the client's call; who recovers the object's log knows by them that
   * it was done (decision 0035). Not modified by the caller any more.
   */
  write(
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stable: boolean,
    now: Timestamp,
    call?: Uint32Array | null,
  ): Promise<ObjectChange>;
  commit(now: Timestamp): MaybePromise<null | { readonly kind: 'refused'; readonly error: Error }>;
  setAttributes(
    changes: { sizeBytes: number | null; atime: Timestamp | null; mtime: Timestamp | null },
    now: Timestamp,
    call?: Uint32Array | null,
  ): Promise<ObjectChange>;
  /**
   * A change that was completed is about to be answered once more, and copies of it may be under way for as long again: nobody who knows nothing of it may take the
   * object over meanwhile. Rejects as the registry does.
   */
  repeated(): MaybePromise<void>;
  /** The registry changed something of the inode at this time: ctime must not run back. */
  observeTime(time: Timestamp): void;
  /** Periodic work: seal what is old, upload, checkpoint, reclaim. */
  tick(): void;
  /** The backend works again after it did not: what waits because of it is tried at once. */
  backendRecovered(): void;
  /** Nothing of it is only here, and nothing waits: it may be closed and forgotten. */
  readonly isClean: boolean;
  /** Wall clock from which stored objects of it that nothing refers to may be deleted by `tick`; null: there are none. */
  readonly garbageDueMs: number | null;
  /** What keeps it from being safe or served, or null. */
  readonly problem: Error | null;
  /** Brings everything to the backend, as far as `deadlineMs` (monotonic) allows. */
  flush(deadlineMs: number): Promise<void>;
  /** Ends it in an orderly way; what is not on the backend stays in the local log. */
  close(): Promise<void>;

  /** Term in which this router owns it. */
  readonly term: Term;
  /**
   * Begins to give the object away (design section 10): from here to `end` nothing of its log is released or deleted and no checkpoint is made, so that the
   * receiver can build on the offer; writes and uploads go on. One at a time. @throws ApplianceError `object-busy` (a fault, damage that is being
   * repaired, another attempt).
   */
  giveAway(): Promise<MoveSource>;
}

/** Where a log ends for good. `termWrote` false: nothing was written in its last term, so there is no epoch to close. */
export interface FrozenLog extends Omit<FrozenEnd, 'rest'> {
  readonly termWrote: boolean;
}

/** The giver's side of a move. */
export interface MoveSource {
  /** Where the receiver begins and how much there is; `owner` is the caller's to add. */
  readonly offer: Omit<MoveOffer, 'owner'>;
  /** How long writes were slowed down so far, since they outran the copy. */
  readonly slowedMs: number;
  /** Bytes written from `from` on, in order, at most about `bytesMax`; waits up to `waitMs` for some. Rejects when the log had a fault: the attempt is over. */
  read(from: LogPosition, bytesMax: number, waitMs: number): Promise<LogPieces>;
  /**
   * Nothing is appended any more: writes that are not in the log yet are refused with `object-held`, what is in it becomes durable and is answered, the open
   * segment is sealed. Waits for the local disk only. Reads go on.
   */
  freeze(): Promise<FrozenLog>;
  /** The attempt is over and the object stays: appends, releases and checkpoints go on. */
  thaw(): void;
  /**
   * The object belongs to another router: nothing of it is uploaded, told to the registry or acknowledged here any more, whatever is under way. Local segments
   * become cache. The object is to be closed once its readers are done; closing does not wait for the backend. Returns what is left of it here, for its new owner.
   */
  cede(): CededSegments;
}

/** What a router still has of an object that it gave away: segments in its cache, until they are evicted. Holds on to nothing else of the object. */
export interface CededSegments {
  /** `lengthBytes` of a segment from `offsetBytes` on; null: they are not here. Unchecked: whoever asks knows term and CRCs. */
  read(segment: number, offsetBytes: number, lengthBytes: number): Promise<LogPiece | null>;
}

/** The router that gave an object to this one, as a source of what is not on the local disk: nearer than the backend, and never an authority. */
export interface FormerOwner {
  /** `lengthBytes` of a segment of that term, unchecked; null: it is not worth asking. Settles in a moment and never rejects. */
  read(segment: number, term: Term, offsetBytes: number, lengthBytes: number): Promise<FormerAnswer> | null;
}

/** Null: it does not have them. `late`: it may take longer than the backend, which is to be asked, too. */
export type FormerAnswer = Buffer | null | { readonly late: Promise<Buffer | null> };

/** The receiver's side of a move: a copy of an object's log that follows the owner's. Its segment files are apart from those of owned objects until `activate`. */
export interface Replica {
  /** Appends pieces in order to the local copy and to the extent map being built. Not durable yet. @throws ApplianceError `replica-damaged` when they are no log of this object. */
  append(pieces: readonly LogPiece[]): Promise<void>;
  /** Where the next piece begins. */
  readonly position: LogPosition;
  /** Makes everything that was appended durable. Resolves with the last sequence. */
  sync(): Promise<number>;
  /** The owner's log ends with this segment: begins to make ready what comes behind it. Waits for nothing, and nothing depends on it. */
  prepare(lastSegment: number): void;
  /** This router owns it now, by `owner`: opens it for I/O. No call to backend or registry. The write verifier stays. Then the replica is used up. */
  activate(owner: OwnerRecord): Promise<DrivenObject>;
  /** Drops the local copy. */
  discard(): Promise<void>;
}

export interface ObjectDriver {
  /** Opens an object of class file or volume: claims it, recovers its log. @throws ApplianceError `object-damaged` when acknowledged data is missing. */
  open(inode: Inode, counterMin?: number): Promise<DrivenObject>;
  /**
   * Begins to receive an object: puts the claim of the attempt on the backend, loads the checkpoint and what the root says is behind it there. `former` is asked for
   * what reads of the object need that is not here, as long as it is open.
   */
  receive(inode: Inode, offer: MoveOffer, former?: FormerOwner): Promise<Replica>;
}
