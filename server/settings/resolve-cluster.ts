/** Completes the parsed settings of registry and cluster, and says what contradicts. */
import { resolve } from 'node:path';

import type { ClusterSettings, RedisSettings, RegistrySettings } from './cluster-settings.ts';
import { formatDuration, isLoopback } from './kinds.ts';
import type { Given } from './resolve-backend.ts';
import type { ParsedSettings } from './schema.ts';

const REDIS = 'registry.redis';

/** A lease is renewed each second, a second of it is not used since clocks do not run alike, and an object is given away only while 3 s are left. */
const LEASE_OVERHEAD_MS = 5000;

/** What has no default: given with another kind of registry it would be without effect, and a second router would make a datastore of its own. */
const REDIS_ONLY = ['urls', 'sentinelName', 'username', 'password', 'passwordFile', 'sentinelPassword', 'caFile', 'certFile', 'keyFile'] as const;

/** `problems` gets one line for each contradiction; what is returned then is not to be used. */
export function resolveRegistry(parsed: ParsedSettings['registry'], given: Given, problems: string[]): RegistrySettings {
  const add = (key: string, message: string): void => {
    problems.push(`${given.labelOf(`${REDIS}.${key}`) ?? 'settings'}: ${REDIS}.${key} ${message}`);
  };
  const isGiven = (key: string): boolean => given.labelOf(`${REDIS}.${key}`) !== undefined;
  const { redis } = parsed;
  if (parsed.kind === 'sqlite') {
    for (const key of REDIS_ONLY)
      if (isGiven(key)) add(key, 'is for a registry of kind redis, but registry.kind is sqlite; remove it or set registry.kind: redis');
  } else contradictionsOfRedis(redis, add);
  const absolute = (key: string, path: string | undefined): string | null =>
    path === undefined ? null : resolve(given.baseOf(`${REDIS}.${key}`), path);
  const resolved: RedisSettings = {
    urls: redis.urls ?? [],
    mode: redis.mode,
    sentinelName: redis.sentinelName ?? null,
    username: redis.username ?? null,
    password: redis.password ?? null,
    passwordFile: absolute('passwordFile', redis.passwordFile),
    sentinelPassword: redis.sentinelPassword ?? null,
    caFile: absolute('caFile', redis.caFile),
    certFile: absolute('certFile', redis.certFile),
    keyFile: absolute('keyFile', redis.keyFile),
    replicasMin: redis.replicasMin ?? (redis.mode === 'standalone' ? 0 : 1),
    commandTimeoutMs: redis.commandTimeoutMs,
  };
  return { kind: parsed.kind, redis: resolved };
}

function contradictionsOfRedis(redis: ParsedSettings['registry']['redis'], add: (key: string, message: string) => void): void {
  if (redis.urls === undefined) add('urls', 'must be set with a registry of kind redis, for example [redis://192.168.10.5:6379]');
  const urls = redis.urls ?? [];
  const encrypted = urls.some((url) => url.startsWith('rediss:'));
  if (encrypted && urls.some((url) => url.startsWith('redis:'))) add('urls', 'mixes redis:// and rediss://; all must be of one kind');
  if (redis.mode === 'standalone' && urls.length > 1) {
    add('urls', `has ${urls.length} URLs, but registry.redis.mode is standalone, which has one; set mode to sentinel or cluster`);
  }
  if (redis.mode === 'sentinel') {
    if (redis.sentinelName === undefined) add('sentinelName', 'must be set with mode sentinel: the name of the primary, for example mymaster');
  } else {
    for (const key of ['sentinelName', 'sentinelPassword'] as const) {
      if (redis[key] !== undefined) add(key, `is for registry.redis.mode sentinel, but the mode is ${redis.mode}`);
    }
  }
  if (redis.password !== undefined && redis.passwordFile !== undefined) add('password', `and ${REDIS}.passwordFile are both set; remove one of them`);
  if (redis.username !== undefined && redis.password === undefined && redis.passwordFile === undefined) {
    add('password', 'must be set (or registry.redis.passwordFile) with registry.redis.username');
  }
  if (urls.length > 0 && !encrypted) {
    for (const key of ['caFile', 'certFile', 'keyFile'] as const) {
      if (redis[key] !== undefined) add(key, 'is for rediss:// (TLS), but registry.redis.urls has redis://');
    }
  }
  if (redis.certFile !== undefined && redis.keyFile === undefined) add('keyFile', 'must be set with registry.redis.certFile');
  if (redis.keyFile !== undefined && redis.certFile === undefined) add('certFile', 'must be set with registry.redis.keyFile');
}

/** `data`: the data directory, absolute. `problems` as in `resolveRegistry`; contradictions count only with a registry that routers share. */
export function resolveCluster(parsed: ParsedSettings, data: string, given: Given, problems: string[]): ClusterSettings {
  const { cluster, registry } = parsed;
  const loopback = isLoopback(cluster.listen);
  const add = (key: string, message: string): void => {
    if (registry.kind === 'redis') problems.push(`${given.labelOf(`cluster.${key}`) ?? 'settings'}: cluster.${key} ${message}`);
  };
  if (cluster.certificates === 'none' && !loopback) {
    add(
      'certificates',
      `is none, but cluster.listen is ${cluster.listen}, which other machines can reach; make certificates with vferry cluster init`,
    );
  }
  if (cluster.advertise === null && (cluster.listen === '0.0.0.0' || cluster.listen === '::')) {
    add('advertise', `must be set when cluster.listen is ${cluster.listen}: the address and port that other routers reach this one at`);
  }
  if (cluster.port !== 0) {
    for (const [name, listen, port] of [
      ['nfs.port', parsed.nfs.listen, parsed.nfs.port],
      ['nfs.mountPort', parsed.nfs.listen, parsed.nfs.mountPort],
      ['admin.port', parsed.admin.listen ?? '127.0.0.1', parsed.admin.port],
    ] as const) {
      if (port === cluster.port && listen === cluster.listen) add('port', `is ${port}, which is ${name} already; it must be another one`);
    }
  }
  const { commandTimeoutMs } = registry.redis;
  const leaseMsMin = LEASE_OVERHEAD_MS + commandTimeoutMs;
  if (cluster.leaseMs < leaseMsMin) {
    add(
      'leaseMs',
      `is ${formatDuration(cluster.leaseMs)}; it must be at least ${formatDuration(leaseMsMin)} with registry.redis.commandTimeoutMs ${formatDuration(commandTimeoutMs)}, or one lost answer ends it`,
    );
  }
  const directory = cluster.certificates ?? (loopback ? 'none' : resolve(data, 'cluster'));
  return { ...cluster, certificates: directory === 'none' ? 'none' : resolve(given.baseOf('cluster.certificates'), directory) };
}
