/** Where the registry's Redis is and how it is reached. Holds secrets: never log it. Plain data: it is sent to the lease's thread. */
export interface RedisRegistrySettings {
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
  /** Replicas that must have a change before it is answered (WAIT). 0: a Redis of its own. */
  readonly replicasMin: number;
  /** How long one answer of Redis may take, the WAIT of a change included; replicas get half of it. */
  readonly commandTimeoutMs: number;
  /** A router's lease. */
  readonly leaseMs: number;
}
