/**
 * What moves of ownership (`moves.ts`) ask of the object-router around them, and of their surroundings (docs/decisions/0027-moves.md).
 */
import type { Inode } from '../../../registry/inode.ts';
import type { ClusterRegistry, OwnerRecord } from '../../../registry/ports.ts';
import type { FileId, Incarnation, RouterId } from '../../core/ids.ts';
import type { Logger } from '../../core/logger.ts';
import type { Clock, Random } from '../../core/time.ts';
import type { DrivenObject, ObjectDriver } from '../driver-port.ts';
import type { CallsPart, Members, PeerNetwork } from '../peer-port.ts';
import type { IoCount } from './io-count.ts';

/** An object that is open here: a ServedObject. */
export interface MovableObject {
  readonly driven: DrivenObject;
  readonly inode: Inode;
  readonly unlinked: boolean;
  /** READ and WRITE calls that clients of this very router made of it; the object-router adds to it, the policy lets it decay. */
  readonly ownIo: IoCount;
  /** The same of READ and WRITE calls that other routers sent here. */
  readonly peerIo: IoCount;
}

/** Operations of one object wait. */
export interface ObjectHold {
  /**
   * Resolves when no operation that changes the object runs any more: they ended, and are remembered, or were refused with `object-held` and wait. To be called
   * after MoveSource.freeze, which ends them. Reads that began before the hold may go on. Rejects with ApplianceError `object-busy` when one does not end in
   * HOLD_MS_MAX.
   */
  changesEnded(): Promise<void>;
  /** Waiting operations are routed again from the start: local, forwarded or opened, as the object is then. Once. */
  release(): void;
}

/** What the giver remembers of completed calls of an object that is on its way here. */
export interface ArrivingCalls {
  /** Takes a part; it outlives the process from here on. False: it is none, and nothing was taken. */
  add(bytes: Buffer): boolean;
  /**
   * All of it is here, and counts. To be called before the object can become this router's: one that was received may be opened from its log. An attempt that comes to
   * nothing does no harm: the calls were completed all the same.
   */
  remember(): void;
  /** Resolves when a power cut does not lose what came so far; it counts for nothing yet. So that the hold has less to wait for. */
  sync(): Promise<void>;
  /** Resolves when all of it outlives a power cut. To be called when the giver's log is frozen, and all of it durable there. */
  keep(): Promise<void>;
}

/** The object-router, as moves see it. All of it may be called at any time; nothing throws but where it says so. */
export interface MoveHost {
  /** The object if it is open here. */
  served(fileid: FileId): MovableObject | undefined;
  /** All that are. */
  all(): Iterable<MovableObject>;
  /**
   * From here on new operations of this object wait: reads, GETATTR, calls from peers and attempts to open it included, since none of them may be answered
   * while nobody knows whose the object is. Running ones go on; those refused with `object-held` wait like new ones. For objects that are not open, too.
   * Who waits longer than a client's patience gets JUKEBOX.
   */
  hold(fileid: FileId): ObjectHold;
  /** Resolves when no opening or closing of it is under way. To be called with the object on hold. */
  settled(fileid: FileId): Promise<void>;
  /** Not to be called with the object on hold. Opens an object that the registry says is ours, or that nobody owns, or that may be taken over: claims it. Null: it does not exist. Rejects as ObjectDriver.open does. */
  open(fileid: FileId): Promise<MovableObject | null>;
  /**
   * The object belongs to another router: it is no longer found here, is closed when its readers are done (closing does not wait for the backend), the
   * owner cache knows, repetitions of it are forgotten. Synchronous; held operations meet it when the hold is released.
   */
  moved(fileid: FileId, owner: OwnerRecord): void;
  /** What is remembered of completed calls of an object that is served here, from `from` on; `bytesMax` of it at most. */
  calls(fileid: FileId, from: number, bytesMax: number): CallsPart;
  /** What its dead owner did is given up: completed calls of it count as never done. Resolves when that outlives a power cut. */
  forgetCalls(fileid: FileId): Promise<void>;
  /** For what its giver remembers. */
  arriving(fileid: FileId): ArrivingCalls;
  /** The object is served here from now on. Synchronous. */
  adopt(driven: DrivenObject, inode: Inode, owner: OwnerRecord): void;
  /**
   * Stops serving an object whose term is over or in doubt, without asking the backend or answering its waiters with success; what is dirty stays in the local log.
   * Who asks for it next is routed anew: the registry is asked (no owner cache), and opening it claims a new term. Resolves when it is closed.
   */
  drop(fileid: FileId): Promise<void>;
  /** Somebody knows better than the owner cache. */
  ownerIs(owner: OwnerRecord): void;
}

/** Own identity in the cluster. */
export interface MoveSelf {
  readonly router: RouterId;
  readonly incarnation: Incarnation;
}

export interface MoveSurroundings {
  readonly host: MoveHost;
  readonly registry: ClusterRegistry;
  readonly members: Members;
  readonly network: PeerNetwork;
  readonly driver: ObjectDriver;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly self: MoveSelf;
}

/** Settings `cluster.*`. */
export interface MoveSettings {
  /** Forwarded operations after which a router asks for the object; 0: never. */
  readonly volumeReadThreshold: number;
  readonly volumeWriteThreshold: number;
  readonly fileReadThreshold: number;
  readonly fileWriteThreshold: number;
  /** Moves at a time, given and received apart. */
  readonly movesMax: number;
  /** An object that came or went is not moved again by itself for so long. */
  readonly cooldownMs: number;
  /** Counters of operations fall to 1/e in this time. */
  readonly decayMs: number;
}
