/** Names of a vPool's keys in Redis (docs/formats/redis.md). All carry one hash tag: one slot of a Redis Cluster, one script may touch them all. */

/** Key names by what they hold. */
export interface RedisKeys {
  /** Hash: identity and counters. First key of every script. */
  readonly meta: string;
  /** Hash: fileid -> packed inode. */
  readonly inodes: string;
  /** Hash: `<directory>/<name>` -> packed entry. */
  readonly names: string;
  /** Sorted set, all scores 0: directory, cookie, fileid, name. */
  readonly listing: string;
  /** Sorted set: fileids of unlinked inodes whose data waits for deletion; the score is the fileid. */
  readonly tombstones: string;
  /** Hash: fileid -> packed owner record. */
  readonly owners: string;
  /** Sorted set, all scores 0: router, fileid. */
  readonly owned: string;
  /** Hash: router id -> packed router record. */
  readonly routers: string;
  /** Hash: living incarnation -> router id. */
  readonly living: string;
  /** Sorted set: dead incarnations, the score is an ordinal. */
  readonly dead: string;
  /** Hash: `<verb> <operation id>` -> packed remembered outcome. */
  readonly operations: string;
  /** Sorted set: fields of `operations`, the score is the ordinal of when they were last asked for. */
  readonly operationAge: string;
  /** Sorted set, all scores 0: client, NUL, ordinal. */
  readonly operationClients: string;
  /** Hash, during a recovery round: record -> sequence of the change that dropped it. */
  readonly drops: string;
  /** Hash, during a recovery round: who takes part in it (round-member-scripts.ts). */
  readonly round: string;
}

export type RedisKey = keyof RedisKeys;

/** `vpoolName`: letters, digits, ".", "_", "-" (settings see to it), so it cannot break out of the hash tag. */
export function redisKeys(vpoolName: string): RedisKeys {
  const key = (name: string): string => `vf:{${vpoolName}}:${name}`;
  return {
    meta: key('meta'),
    inodes: key('inodes'),
    names: key('names'),
    listing: key('listing'),
    tombstones: key('tombstones'),
    owners: key('owners'),
    owned: key('owned'),
    routers: key('routers'),
    living: key('living'),
    dead: key('dead'),
    operations: key('operations'),
    operationAge: key('operation-age'),
    operationClients: key('operation-clients'),
    drops: key('drops'),
    round: key('round'),
  };
}
