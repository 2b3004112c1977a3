/**
 * Port between the `vferry` command and the composition root (`router.ts`): what `serve` starts, `/status` shows and SIGTERM stops.
 */
import type { RetryObserver, StoreObserver } from '../backends/store-observer.ts';
import type { ClusterControl } from './cluster-port.ts';
import type { ClusterObserver } from './core/cluster-observer.ts';
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

/** How the storage backend is. */
export interface BackendHealth {
  /** slow: it answers late, or some requests fail again and again. full, denied, down: it does not take what it is given. */
  readonly condition: 'up' | 'slow' | 'full' | 'denied' | 'down';
  /** ISO 8601, UTC. */
  readonly since: string;
  /** What was seen; null when it is up. */
  readonly message: string | null;
}

/** How a vPool's objects are kept on its backend. */
export interface BackendStorage {
  /** The one bucket of layout prefix; null: one for each volume. */
  readonly bucket: string | null;
  /** What keeps two owners of an object apart. */
  readonly fence: 'backend' | 'registry';
  /** Of new objects. */
  readonly compression: 'none' | 'zstd';
  /** Id of the key that new objects are encrypted with; null: they are not. */
  readonly encryptionKey: string | null;
}

/** Requests to the backend since the start of the router, and what they cost. */
export interface BackendTraffic {
  /** By kind: put, get, head, list, delete ... Kinds that did not occur are left out. Failed ones count: most are charged. */
  readonly requests: Readonly<Record<string, number>>;
  readonly failed: number;
  /** Before compression. */
  readonly writtenBytes: number;
  readonly readBytes: number;
  /** Of requests and bytes read, by the prices of the settings. */
  readonly cost: number;
  /** If it went on like this for a month of 30 days. */
  readonly costPerMonth: number;
}

/** Traffic of one bucket: a volume has its own, files and namespace share theirs. */
export interface BucketTraffic extends BackendTraffic {
  readonly bucket: string;
  readonly content: 'volume' | 'files' | 'namespace' | 'other';
  /** Of a volume; null when it was removed, or could not be found within the effort that a report is worth. */
  readonly path: string | null;
}

/** A JSON document: what `/backend/usage` answers and `vferry backend usage` prints. */
export interface BackendUsage {
  readonly backend: string;
  readonly health: BackendHealth;
  /** ISO 8601, UTC: when counting began. */
  readonly since: string;
  readonly seconds: number;
  readonly currency: string;
  readonly total: BackendTraffic;
  /** Those that cost most first, or with most requests where nothing costs anything. */
  readonly buckets: readonly BucketTraffic[];
  /** All others together. */
  readonly others: BackendTraffic & { readonly bucketCount: number };
  readonly storage: { readonly usedBytes: number; readonly costPerMonth: number };
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
  readonly backendStorage: BackendStorage;
  readonly backendHealth: BackendHealth;
  readonly backendTraffic: BackendTraffic & { readonly currency: string };
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
  /** Null for a router whose registry nobody else uses. */
  readonly cluster: ClusterControl | null;
  /** Cheap enough to be asked every second; does no I/O that can hang. */
  status(): RouterStatus;
  ready(): Readiness;
  /** What the backend is asked for, by bucket; at most `bucketsMax` of them. */
  backendUsage(bucketsMax: number): Promise<BackendUsage>;
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
  readonly clusterObserver: ClusterObserver;
  /** The router cannot go on (its incarnation is dead, its log is unusable): the process says why and stops with exit code 1. */
  readonly fatal: (error: Error) => void;
  /**
   * The router has no right to go on as what it is (its lease lapsed, it stood still, it was declared dead) and may come back as a new incarnation: the
   * process image is replaced at once, so that no socket, timer or thread of the old one does anything any more. Does not return.
   */
  readonly beginAnew: (error: Error) => never;
}

/**
 * Recovers what the last run left, then listens. Rejects with ApplianceError when the environment refuses: data directory locked by another
 * router or not writable, port taken, backend unreachable. Then nothing is left open.
 */
export type StartRouter = (settings: Settings, dependencies: RouterDependencies) => Promise<Router>;
