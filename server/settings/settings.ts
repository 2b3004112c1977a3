import type { BackendSettings } from './backend-settings.ts';
import type { ClusterSettings, RegistrySettings } from './cluster-settings.ts';

/**
 * Validated, complete settings of a router: what every other part gets its options from. How they are read from flags, environment and
 * file is in `sources.ts` and `load.ts`; allowed values are in `schema.ts`.
 */
export interface Settings {
  /** Absolute path of the data directory: router identity, registry, segments, spill files. Locked by the running router. */
  readonly data: string;
  readonly vpool: VpoolSettings;
  readonly registry: RegistrySettings;
  readonly cluster: ClusterSettings;
  readonly nfs: NfsSettings;
  readonly exports: ExportSettings;
  readonly cache: CacheSettings;
  readonly log: ObjectLogSettings;
  readonly admin: AdminSettings;
  readonly logging: LoggingSettings;
}

export interface VpoolSettings {
  /** Exported as `/<name>`. */
  readonly name: string;
  readonly backend: BackendSettings;
  /** A file up to this many bytes lives in its registry record. */
  readonly inlineBytesMax: number;
  /** Names that make a new file a volume: globs with `*` and `?`. */
  readonly volumePatterns: readonly string[];
  /** Treat UNSTABLE writes as FILE_SYNC. */
  readonly allWritesStable: boolean;
  readonly durability: 'local';
  /** How long deleted data is kept before its space is freed. */
  readonly graceTimeMs: number;
  /** What FSSTAT shows as the size of the datastore; null: what the backend directory has, or a fixed size on an object store. */
  readonly capacityBytes: number | null;
}

export interface NfsSettings {
  /** IP address. */
  readonly listen: string;
  /** 0: any free port. */
  readonly port: number;
  /** Own port of MOUNT beside the NFS port; null: only on the NFS port. 0: any free port. */
  readonly mountPort: number | null;
  /** auto: own port 111 where permitted, else register with a running rpcbind, else none. required: like auto, but none is an error at start. */
  readonly portmap: 'auto' | 'off' | 'required';
  /** Above this many bytes of unanswered calls a connection is not read any more (TCP back-pressure). */
  readonly inflightBytesMaxPerConnection: number;
  readonly connectionsMax: number;
}

export interface ExportSettings {
  /** Networks in CIDR notation whose hosts may mount. Never empty. */
  readonly clients: readonly string[];
  /** none: callers keep their uid (ESXi and libvirt need uid 0). root: uid 0 becomes anonymous. all: everybody does. */
  readonly squash: 'none' | 'root' | 'all';
  readonly anonymousUid: number;
  readonly anonymousGid: number;
}

export interface CacheSettings {
  /** Block cache in RAM. */
  readonly ramBytes: number;
  /** Extent map pages in RAM, all volumes together. */
  readonly mapBytes: number;
  /** Segments kept on the local disk for reading after they were uploaded. */
  readonly ssdBytes: number;
}

/** The object log: segments on the local disk. */
export interface ObjectLogSettings {
  readonly segmentBytes: number;
  /** Bytes that are acknowledged and not yet on the backend; near it writes slow down. */
  readonly dirtyBytesMax: number;
  /** An open segment older than this is sealed and uploaded although it is not full. */
  readonly sealAfterMs: number;
  /** Bytes of log after which an extent map is checkpointed. */
  readonly checkpointAfterBytes: number;
}

export interface AdminSettings {
  /** IP address of health, metrics and status over HTTP. */
  readonly listen: string;
  /** 0: any free port. */
  readonly port: number;
}

export interface LoggingSettings {
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  /** auto: human on a terminal, JSON elsewhere. */
  readonly format: 'auto' | 'human' | 'json';
}
