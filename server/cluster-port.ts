/**
 * Port between the operator (admin API, `vferry router|volume|move`) and the parts of a router that know the cluster. All reports are JSON documents: ids
 * and times are strings, sizes are bytes, what is not known is null.
 *
 * What the environment does to a call (registry or peer away) rejects with ApplianceError; what the caller asked wrongly is a `Refusal`. Nothing here
 * waits for a move to end: what was started is looked at with `moves` and `drainReport`.
 */
import type { FileId, Incarnation, RouterId } from './core/ids.ts';

/** `path`: within the datastore, with a leading slash, as clients see it: `/vm1/vm1-flat.vmdk`. */
export type ObjectReference = { readonly kind: 'fileid'; readonly fileid: FileId } | { readonly kind: 'path'; readonly path: string };

/** Nothing was done. `message`: for people, with what to do. `retryable`: the same call may succeed later. */
export interface Refusal {
  readonly kind: 'refused';
  readonly code:
    | 'no-such-object'
    /** It has no owner: an inline file, a directory, or an object that nobody has opened since it was made. */
    | 'no-owner'
    | 'no-such-router'
    | 'router-unavailable'
    | 'owner-unavailable'
    /** For a takeover: the owner lives. */
    | 'owner-alive'
    | 'pinned'
    | 'draining'
    | 'busy'
    /** For forgetting a router: it lives. */
    | 'router-alive'
    /** For forgetting a router: there are objects whose owner it is. */
    | 'owns-objects'
    /** For a takeover without force: something acknowledged may be lost. */
    | 'not-clean'
    /** It is not as it was when the caller looked. */
    | 'changed';
  readonly message: string;
  readonly retryable: boolean;
}

/** A router of the cluster as the one that was asked sees it. */
export interface RouterReport {
  readonly id: RouterId;
  readonly incarnation: Incarnation;
  readonly self: boolean;
  /** silent: its lease was not renewed for longer than usual. dead: its lease ended, or it left; its clean objects are for others. */
  readonly state: 'running' | 'draining' | 'drained' | 'silent' | 'dead';
  readonly version: string;
  /** `host:port`; null where it listens on none that is known. */
  readonly nfs: string | null;
  readonly peer: string | null;
  readonly admin: string | null;
  /** Since its lease was last seen renewed. */
  readonly silentMs: number;
  /** Null for the router itself. */
  readonly connection: { readonly connected: boolean; readonly roundTripMs: number | null; readonly problem: string | null } | null;
  /** Objects that the registry says are its, and those of them that are not served; null when that was not counted. */
  readonly objects: number | null;
  readonly recovering: number | null;
}

/** An object of class file or volume that has an owner. */
export interface VolumeReport {
  readonly fileid: FileId;
  /** Null when it has no name any more, or none was found within the effort that a report is worth. */
  readonly path: string | null;
  readonly class: 'file' | 'volume';
  readonly sizeBytes: number;
  readonly router: RouterId;
  /** `reason` of a state that is not running: for people. */
  readonly state: 'running' | 'recovering' | 'halted';
  readonly reason: string | null;
  readonly protection: 'clean' | 'unprotected' | 'protected';
  readonly moving: { readonly from: RouterId; readonly to: RouterId } | null;
  /** It stays where it is whatever is forwarded; a drain or an operator still moves it. Null when only its owner knows and does not answer. */
  readonly pinned: boolean | null;
  /** Term, as text: for `takeover`. */
  readonly term: string;
}

export interface VolumePage {
  readonly volumes: readonly VolumeReport[];
  /** For the next page; null: this was the last. */
  readonly next: string | null;
}

export interface VolumeQuery {
  /** Null: of all routers, dead ones too. */
  readonly router: RouterId | null;
  /** `next` of the page before, or null. */
  readonly after: string | null;
  /** 1 to 1,000. */
  readonly limit: number;
}

export type MovePhase =
  /** The receiver claims the attempt and loads the checkpoint. */
  | 'preparing'
  /** The log is copied while the giver serves. */
  | 'copying'
  /** I/O is held, the owner changes. */
  | 'switching'
  | 'moved'
  | 'aborted';

/** A move that the asked router gives or receives. */
export interface MoveReport {
  /** Unique within the router. */
  readonly id: string;
  readonly fileid: FileId;
  readonly path: string | null;
  readonly from: RouterId;
  readonly to: RouterId;
  readonly reason: 'io' | 'operator' | 'drain';
  readonly phase: MovePhase;
  /** ISO 8601, UTC. */
  readonly startedAt: string;
  readonly endedAt: string | null;
  readonly copiedBytes: number;
  /** What is still to be copied, as far as it is known; grows while clients write. */
  readonly behindBytes: number;
  /** How long I/O was held; null while it was not. */
  readonly heldMs: number | null;
  /** What its steps took, as far as it got: names as in `MoveStep` (server/object-router/moves/move-history.ts). Giver and receiver measure different ones. */
  readonly stepsMs: Readonly<Record<string, number>>;
  /** Why it was aborted. */
  readonly problem: string | null;
}

export interface MovesReport {
  readonly running: readonly MoveReport[];
  /** Newest first, bounded. */
  readonly history: readonly MoveReport[];
}

export type MoveStarted =
  /** `move` null: it runs between two other routers, or has not begun yet; look at the volume. */
  { readonly kind: 'started'; readonly move: MoveReport | null } | { readonly kind: 'already-there' } | Refusal;

/** Everything goes to other routers; until `undrain` (or a restart of the process) this one receives nothing. */
export interface DrainReport {
  /** none: it is not drained. stuck: nothing could be moved for a while, `problem` says why; it goes on trying. */
  readonly phase: 'none' | 'moving' | 'stuck' | 'drained';
  /** ISO 8601, UTC. */
  readonly startedAt: string | null;
  /** Objects moved (or released) since the start, and all that there were or came. */
  readonly done: number;
  readonly total: number;
  readonly copiedBytes: number;
  /** Still to be copied, of the moves that run. */
  readonly behindBytes: number;
  /** Objects that could not be moved at the last attempt, with the reason; at most 100. */
  readonly failed: readonly { readonly fileid: FileId; readonly path: string | null; readonly reason: string }[];
  readonly problem: string | null;
}

/** What a takeover would do, and what would be given up. */
export interface TakeoverPlan {
  readonly kind: 'plan';
  readonly volume: VolumeReport;
  /** How long the owner has been silent, and whether its incarnation is dead for good. */
  readonly ownerSilentMs: number | null;
  readonly ownerDead: boolean;
  /** True: acknowledged data may be given up, `force` is needed. False: nothing is lost. */
  readonly needsForce: boolean;
  /** The state that would be served: everything up to this sequence of the log is on the backend. */
  readonly keptSequence: number;
  /** One sentence each, for people: exactly what would be given up, as far as anybody alive knows. Empty if nothing. */
  readonly givenUp: readonly string[];
}

export type TakeoverOutcome = { readonly kind: 'taken'; readonly volume: VolumeReport } | Refusal;

/** Cheap enough for /status: no call to anybody. */
export interface ClusterStatus {
  /** Where the registry is, without secrets: `redis 192.168.10.5:6379 (sentinel mymaster)`. */
  readonly registry: string;
  readonly registryProblem: string | null;
  readonly generation: number;
  /** Until the lease lapses unless it is renewed. */
  readonly leaseLeftMs: number;
  /** `host:port` that the others are told. */
  readonly peerAddress: string;
  /** False: plain text, on loopback. */
  readonly encrypted: boolean;
  /** When this router's certificate ends: wall clock; null: plain text. */
  readonly certificateEndsAtMs: number | null;
  readonly routers: readonly Pick<RouterReport, 'id' | 'self' | 'state' | 'peer' | 'silentMs' | 'connection'>[];
  /** Objects open here, by protection. */
  readonly owned: { readonly clean: number; readonly unprotected: number; readonly protected: number };
  /** Objects of this router that wait for something before they are served. */
  readonly recovering: number;
  readonly movesRunning: number;
  readonly drain: DrainReport;
}

export type RouterForgotten = { readonly kind: 'forgotten'; readonly router: RouterId } | Refusal;

export interface ClusterControl {
  status(): ClusterStatus;
  routers(): Promise<readonly RouterReport[]>;
  volumes(query: VolumeQuery): Promise<VolumePage>;
  volume(object: ObjectReference): Promise<VolumeReport | Refusal>;
  moves(): MovesReport;
  /** Begins to move an object to a router; this one need not be part of it. A pin does not hinder. */
  move(object: ObjectReference, to: RouterId): Promise<MoveStarted>;
  /** Aborts a running move of this router; the giver goes on. False: there is none, or the owner is changing already. */
  cancelMove(id: string): Promise<boolean>;
  /** Begins to drain this router, or joins what runs. */
  drain(): Promise<DrainReport | Refusal>;
  /** Ends a drain, wherever it is: moves under way are aborted, what was moved stays where it is. Does nothing without a drain. */
  undrain(): Promise<DrainReport>;
  drainReport(): DrainReport;
  /** Takes a router that does not come back out of the list: refused while it lives, and while it owns objects, which the message names. */
  forgetRouter(router: RouterId): Promise<RouterForgotten>;
  /** Until it is unpinned, no forwarded I/O moves the object away from this router, which must own it (`owner-unavailable`). */
  pin(object: ObjectReference, pinned: boolean): Promise<VolumeReport | Refusal>;
  takeoverPlan(object: ObjectReference): Promise<TakeoverPlan | Refusal>;
  /** Takes over what `takeoverPlan` showed in `volume.term`: `changed` when it has another term now, `not-clean` when it needs `force` and has none. */
  takeover(object: ObjectReference, term: string, force: boolean): Promise<TakeoverOutcome>;
}
