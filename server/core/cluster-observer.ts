/** What the parts of a cluster tell about their work; `server/metrics/cluster-metrics.ts` counts it. Synchronous, no allocation, must not throw. */

export const FORWARD_KINDS = ['getattr', 'attributes', 'read', 'write', 'commit', 'setattr', 'inode-changed'] as const;
export type ForwardKind = (typeof FORWARD_KINDS)[number];

/** not-owner: not executed, the asker looks again. unavailable: no answer, the outcome is unknown. failed: answered, with an error. */
export const FORWARD_OUTCOMES = ['done', 'not-owner', 'unavailable', 'failed'] as const;
export type ForwardOutcome = (typeof FORWARD_OUTCOMES)[number];

/** sent: this router asked another one. received: another one asked this router. */
export type ForwardDirection = 'sent' | 'received';

export interface ForwardObserver {
  /** One attempt at another router's object ended. `payloadBytes`: of READ and WRITE. */
  forwarded(kind: ForwardKind, direction: ForwardDirection, outcome: ForwardOutcome, latencyMs: number, payloadBytes: number): void;
}

/** given: this router was the owner. received: it became, or was to become, the owner. */
export type MoveDirection = 'given' | 'received';

/** Every `moveStarted` is followed by one of the others. */
export interface MoveObserver {
  moveStarted(direction: MoveDirection): void;
  /** `heldMs`: how long I/O was held; only the giver knows, else null. */
  moveDone(direction: MoveDirection, durationMs: number, heldMs: number | null, copiedBytes: number): void;
  /** Writers of an object that was being given outran its copy, and were slowed down for so long; before the move's end. */
  writersSlowed(slowedMs: number): void;
  /** `reason`: a short stable word such as an error code; the first 64 that occur are told apart. */
  moveAborted(direction: MoveDirection, reason: string): void;
  /** An object of a dead router was claimed here; `forced`: something acknowledged may have been given up. */
  takenOver(forced: boolean): void;
}

/** read, change: scripts. renew: the lease. */
export const REGISTRY_CALLS = ['read', 'change', 'renew'] as const;
export type RegistryCall = (typeof REGISTRY_CALLS)[number];

/** retried: the attempt failed and is made again. failed: the caller was told that it is unavailable. */
export const REGISTRY_OUTCOMES = ['ok', 'retried', 'failed'] as const;
export type RegistryOutcome = (typeof REGISTRY_OUTCOMES)[number];

export interface RegistryObserver {
  /** One attempt, with its WAIT. */
  roundTrip(call: RegistryCall, outcome: RegistryOutcome, durationMs: number): void;
  /** The registry had forgotten something, or is another one than before: what this router knew was put back. */
  recoveryRound(durationMs: number): void;
}

export type ClusterObserver = ForwardObserver & MoveObserver & RegistryObserver;
