/** Validated, complete settings of the Object Registry. Holds secrets: never log it. */
export interface RegistrySettings {
  /** sqlite: embedded, one router. redis: shared by the routers of a cluster. */
  readonly kind: 'sqlite' | 'redis';
  /** Complete only with kind redis; else `urls` is empty. */
  readonly redis: RedisSettings;
}

export interface RedisSettings {
  /** `redis://host:port` or `rediss://host:port` (TLS), all of one scheme. One with mode standalone; Sentinels with mode sentinel; some nodes with mode cluster. */
  readonly urls: readonly string[];
  readonly mode: 'standalone' | 'sentinel' | 'cluster';
  /** Name of the primary at the Sentinels; set with mode sentinel, else null. */
  readonly sentinelName: string | null;
  /** ACL user; null: the default user. */
  readonly username: string | null;
  /** At most one of `password` and `passwordFile` (absolute; its first line) is set. */
  readonly password: string | null;
  readonly passwordFile: string | null;
  readonly sentinelPassword: string | null;
  /** Absolute; null: the system's CAs. */
  readonly caFile: string | null;
  /** Absolute; client certificate and its key, both or none. */
  readonly certFile: string | null;
  readonly keyFile: string | null;
  /** Replicas that must have a change before it is answered (WAIT). */
  readonly replicasMin: number;
  readonly commandTimeoutMs: number;
}

/** What a router is to the others. Without effect while `registry.kind` is sqlite. */
export interface ClusterSettings {
  /** IP address for peers. */
  readonly listen: string;
  /** 0: any free port. */
  readonly port: number;
  /** `host:port` that other routers reach this one at; null: `listen` and the port that it got. */
  readonly advertise: string | null;
  /** Absolute path of the directory with `ca.pem`, `router.pem`, `router-key.pem`; or `none`: plain text, and then `listen` is loopback. */
  readonly certificates: string;
  readonly leaseMs: number;
  /** Rest after the last write before an object is said to be clean: longer than a copy of a call can wait at another router (decision 0028). */
  readonly cleanAfterMs: number;
  /** Forwarded operations, less what decayed, after which an object follows its client; 0: never. */
  readonly volumeReadThreshold: number;
  readonly volumeWriteThreshold: number;
  readonly fileReadThreshold: number;
  readonly fileWriteThreshold: number;
  /** Moves at a time that this router takes part in. */
  readonly movesMax: number;
  /** Rest of an object after a move. */
  readonly cooldownMs: number;
  /** Time after which a counted operation counts 1/e, somewhat more than a third. */
  readonly decayMs: number;
}
