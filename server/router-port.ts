/**
 * Port between the `vferry` command and the composition root (`router.ts`): what `serve` starts, `/status` shows and SIGTERM stops.
 */
import type { RetryObserver, StoreObserver } from '../backends/store-observer.ts';
import type { Logger } from './core/logger.ts';
import type { MetricSink } from './core/metric-sink.ts';
import type { NfsObserver } from './nfsd/observer.ts';
import type { Settings } from './settings/settings.ts';

/** Something that people must know or act on. `code` is stable and for machines; `message` says what to do. */
export interface Problem {
  readonly code: string;
  readonly message: string;
}

/** Where the router listens. Ports are the real ones, also when the settings said 0. */
export interface RouterAddresses {
  /** IP address of NFS, MOUNT and port mapper. */
  readonly listen: string;
  readonly nfsPort: number;
  /** MOUNT is always on the NFS port; this is its own port where it has one, else the NFS port. */
  readonly mountPort: number;
  /** `own`: port 111 is ours. `registered`: with the system's rpcbind. `none`: clients must name the ports. */
  readonly portmap: 'own' | 'registered' | 'none';
}

/** A JSON document: what `/status` answers and `vferry status` prints. */
export interface RouterStatus {
  readonly vpool: string;
  readonly version: string;
  readonly routerId: string;
  readonly incarnation: string;
  /** ISO 8601, UTC. */
  readonly startedAt: string;
  readonly addresses: RouterAddresses;
  readonly backend: string;
  /** Volumes and files whose log is open in this process. */
  readonly volumesOpen: number;
  /** Acknowledged bytes that are not on the backend yet. */
  readonly dirtyBytes: number;
  readonly inodes: number;
  readonly usedBytes: number;
  readonly freeBytes: number;
  readonly clients: readonly { readonly address: string; readonly connections: number }[];
  readonly problems: readonly Problem[];
}

export interface Readiness {
  /** False: a client's operation would fail or wait; `problems` says why. True with problems: it serves, but something needs attention. */
  readonly ready: boolean;
  readonly problems: readonly Problem[];
}

export interface Router {
  readonly addresses: RouterAddresses;
  /** Cheap enough to be asked every second; does no I/O that can hang. */
  status(): RouterStatus;
  ready(): Readiness;
  /**
   * Stops taking calls, flushes, checkpoints, releases the data directory's lock. Calling it again joins the first call.
   * What does not fit into `deadlineMs` is left to the recovery at the next start: nothing acknowledged is lost either way.
   */
  close(deadlineMs: number): Promise<void>;
}

export interface RouterDependencies {
  readonly logger: Logger;
  readonly metrics: MetricSink;
  readonly nfsObserver: NfsObserver;
  /** For a MeteredStore below a RetryingStore, and for that. */
  readonly storeObserver: StoreObserver & RetryObserver;
  /** The router cannot go on (its incarnation is dead, its log is unusable): the process says why and stops with exit code 1. */
  readonly fatal: (error: Error) => void;
}

/**
 * Recovers what the last run left, then listens. Rejects with ApplianceError when the environment refuses: data directory locked by another
 * router or not writable, port taken, backend unreachable. Then nothing is left open.
 */
export type StartRouter = (settings: Settings, dependencies: RouterDependencies) => Promise<Router>;
