/** Settings of the Object Registry and of the cluster (`registry.*`, `cluster.*`). What depends on what is decided in `resolve-cluster.ts`. */
import * as kinds from './kinds.ts';
import { computed, section, setting } from './setting.ts';

const NONE = '-';
const SECRET = { secret: true };
const SECOND = 1000;
const DAY = 24 * 3600 * SECOND;
const THRESHOLD_MAX = 2 ** 31 - 1;

export const registry = {
  kind: setting(
    kinds.choice('sqlite', 'redis'),
    'sqlite',
    'Where namespace and ownership are: embedded, for one router; or in Redis, for a cluster.',
  ),
};

export const redis = {
  urls: computed(kinds.list(kinds.redisUrl, 1, 32), 'must be set with kind redis', 'Redis; mode sentinel: all Sentinels; mode cluster: some nodes.'),
  mode: setting(kinds.choice('standalone', 'sentinel', 'cluster'), 'standalone', 'What the URLs name.'),
  sentinelName: computed(kinds.text(255), 'must be set with mode sentinel', 'Name of the primary at the Sentinels.'),
  username: computed(kinds.text(255), "Redis's default user", 'ACL user.'),
  password: computed(kinds.secretText(4096), NONE, 'Password of the user.', SECRET),
  passwordFile: computed(kinds.filePath, NONE, 'File with the password in its first line.'),
  sentinelPassword: computed(kinds.secretText(4096), NONE, 'Password of the Sentinels.', SECRET),
  caFile: computed(kinds.filePath, "the system's CAs", 'PEM file with the CAs to trust (`rediss://`).'),
  certFile: computed(kinds.filePath, NONE, 'PEM file with a client certificate (`rediss://`).'),
  keyFile: computed(kinds.filePath, NONE, 'PEM file with its key.'),
  replicasMin: computed(kinds.integer(0, 8), '0 with mode standalone, else 1', 'Replicas that must have a change before it is answered.'),
  commandTimeoutMs: setting(kinds.duration(50, 30 * SECOND), '1s', 'Without an answer for this long a command is tried again.'),
};

export const cluster = {
  listen: setting(kinds.ipAddress, '127.0.0.1', 'Address for the other routers.'),
  port: setting(kinds.port, 2050, 'Port for the other routers.'),
  advertise: setting(kinds.orAuto(kinds.hostAndPort), 'auto', 'Where other routers reach this one; auto: the address and port it listens on.'),
  certificates: computed(
    kinds.path,
    '`none` if the address is loopback, else `<data>/cluster`',
    'Directory with the certificates (`vferry cluster init`, `join`); none: plain text, on loopback only.',
  ),
  leaseMs: setting(
    kinds.duration(6 * SECOND, 60 * SECOND),
    '7s',
    'How long a router serves its objects without its registry, and how long others wait at least before they take them over.',
  ),
  cleanAfterMs: setting(
    kinds.duration(100, DAY),
    '30s',
    'Rest after the last write before an object counts as clean and may be taken over. Less than 30s is for tests: an old copy of a write could be done over newer data.',
  ),
  volumeReadThreshold: setting(kinds.integer(0, THRESHOLD_MAX), 1024, 'Forwarded reads after which a volume follows its client; 0: never.'),
  volumeWriteThreshold: setting(kinds.integer(0, THRESHOLD_MAX), 1024, 'Forwarded writes after which a volume follows its client; 0: never.'),
  fileReadThreshold: setting(kinds.integer(0, THRESHOLD_MAX), 1024, 'Forwarded reads after which a file follows its client; 0: never.'),
  fileWriteThreshold: setting(kinds.integer(0, THRESHOLD_MAX), 1024, 'Forwarded writes after which a file follows its client; 0: never.'),
  movesMax: setting(kinds.integer(1, 64), 2, 'Moves that a router takes part in at a time.'),
  cooldownMs: setting(kinds.duration(0, DAY), '1m', 'How long an object stays after a move, whatever is forwarded.'),
  decayMs: setting(kinds.duration(SECOND, DAY), '1m', 'Time after which a forwarded operation counts 1/e, somewhat more than a third.'),
};

export const registrySection = section(registry, { redis: section(redis, {}) });
export const clusterSection = section(cluster, {});
