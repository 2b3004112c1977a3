/** Completes parsed settings: defaults that depend on other settings or on the machine, and rules across keys. */
import { resolve } from 'node:path';

import { formatSize, isLoopback } from './kinds.ts';
import { resolveBackend } from './resolve-backend.ts';
import { resolveCluster, resolveRegistry } from './resolve-cluster.ts';
import type { ParsedSettings } from './schema.ts';
import { SettingsError } from './settings-error.ts';
import type { Settings } from './settings.ts';
import type { Origin } from './sources.ts';

/** What the defaults depend on besides other settings. */
export interface Machine {
  readonly workingDirectory: string;
  readonly memoryBytes: number;
}

const RAM_CACHE_BYTES = 512 * 2 ** 20;
const LOOPBACK_NETWORKS = ['127.0.0.0/8', '::1/128'];

/** `baseOf`: directory that a relative path under this key is relative to. @throws SettingsError when keys contradict each other. */
export function resolveSettings(
  parsed: ParsedSettings,
  origins: ReadonlyMap<string, Origin>,
  baseOf: (key: string) => string,
  machine: Machine,
): Settings {
  const data = resolve(baseOf('data'), parsed.data);
  const problems: string[] = [];
  const given = { labelOf: (key: string) => origins.get(key)?.label, baseOf };
  const settings: Settings = {
    data,
    vpool: {
      ...parsed.vpool,
      backend: resolveBackend(parsed.vpool.backend, data, given, problems),
    },
    registry: resolveRegistry(parsed.registry, given, problems),
    cluster: resolveCluster(parsed, data, given, problems),
    nfs: { ...parsed.nfs, mountPort: parsed.nfs.mountPort !== 0 && parsed.nfs.mountPort === parsed.nfs.port ? null : parsed.nfs.mountPort },
    exports: { ...parsed.exports, clients: parsed.exports.clients ?? (isLoopback(parsed.nfs.listen) ? LOOPBACK_NETWORKS : []) },
    cache: {
      ...parsed.cache,
      ramBytes: parsed.cache.ramBytes ?? Math.max(2 ** 20, Math.min(RAM_CACHE_BYTES, Math.floor(machine.memoryBytes / 8))),
    },
    log: parsed.log,
    admin: { ...parsed.admin, listen: parsed.admin.listen ?? (isLoopback(parsed.nfs.listen) ? parsed.nfs.listen : '127.0.0.1') },
    logging: parsed.logging,
  };
  problems.push(...contradictions(settings, machine, (key) => origins.get(key)?.label ?? 'settings'));
  if (problems.length > 0) throw new SettingsError(problems);
  return settings;
}

function contradictions(settings: Settings, machine: Machine, origin: (key: string) => string): string[] {
  const problems: string[] = [];
  const { nfs, admin, log, cache, vpool } = settings;
  if (settings.exports.clients.length === 0) {
    problems.push(
      `${origin('nfs.listen')}: exports.clients must be set when nfs.listen is ${nfs.listen}, which other machines can reach: ` +
        'list the networks of your hypervisors, for example --clients 192.168.10.0/24',
    );
  }
  if (admin.port !== 0 && admin.listen === nfs.listen) {
    if (admin.port === nfs.port)
      problems.push(`${origin('admin.port')}: admin.port is ${admin.port}, which is nfs.port already; it must be another one`);
    if (admin.port === nfs.mountPort) {
      problems.push(`${origin('admin.port')}: admin.port is ${admin.port}, which is nfs.mountPort already; it must be another one`);
    }
  }
  if (vpool.backend.kind === 'directory' && vpool.backend.path === settings.data) {
    problems.push(
      `${origin('vpool.backend.path')}: vpool.backend.path is the data directory ${settings.data}; it must be another directory, or one inside it`,
    );
  }
  if (settings.registry.kind === 'redis' && vpool.backend.kind === 'directory' && `${vpool.backend.path}/`.startsWith(`${settings.data}/`)) {
    problems.push(
      `${origin('vpool.backend.path')}: vpool.backend.path is ${vpool.backend.path}, inside the data directory of this router; ` +
        'with a registry of kind redis it must be a directory that all routers share',
    );
  }
  if (log.dirtyBytesMax < 4 * log.segmentBytes) {
    problems.push(
      `${origin('log.dirtyBytesMax')}: log.dirtyBytesMax is ${formatSize(log.dirtyBytesMax)}; ` +
        `it must be at least four segments (log.segmentBytes), ${formatSize(4 * log.segmentBytes)}`,
    );
  }
  if (log.checkpointAfterBytes < log.segmentBytes) {
    problems.push(
      `${origin('log.checkpointAfterBytes')}: log.checkpointAfterBytes is ${formatSize(log.checkpointAfterBytes)}; ` +
        `it must be at least one segment (log.segmentBytes), ${formatSize(log.segmentBytes)}`,
    );
  }
  for (const key of ['ramBytes', 'mapBytes'] as const) {
    if (cache[key] > machine.memoryBytes) {
      problems.push(
        `${origin(`cache.${key}`)}: cache.${key} is ${formatSize(cache[key])}; it must be less than the memory of this machine, ${formatSize(machine.memoryBytes)}`,
      );
    }
  }
  return problems;
}
