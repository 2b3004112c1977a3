/**
 * Every setting: key, kind, default, and what it is for. The file format, the environment variables, the flags, the messages and the table
 * in README.md all come from here. What depends on other settings or on the machine is decided in `resolve.ts`.
 */
import { z } from 'zod';

import { backend, backendSection, prices, s3, swift } from './backend-schema.ts';
import { cluster, clusterSection, redis, registry, registrySection } from './cluster-schema.ts';
import * as kinds from './kinds.ts';
import { type Setting, computed, section, setting } from './setting.ts';

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
const TIB = 2 ** 40;
const SECOND = 1000;
const HOUR = 3600 * SECOND;

/** Design section 1: these names are VM disks from the moment of their creation. */
const VOLUME_PATTERNS = ['*-flat.vmdk', '*-delta.vmdk', '*-sesparse.vmdk', '*.raw', '*.vswp'];

const vpool = {
  name: setting(kinds.poolName, 'vpool1', 'Name of the datastore; exported as `/<name>`.', { flag: '--vpool <name>' }),
  inlineBytesMax: setting(kinds.size(0, 64 * KIB), '4KiB', 'A file up to this size lives in its registry record.'),
  volumePatterns: setting(kinds.list(kinds.globPattern, 0, 100), VOLUME_PATTERNS, 'Names that make a new file a volume (random block I/O).'),
  allWritesStable: setting(kinds.boolean, false, 'Treat UNSTABLE writes as FILE_SYNC.'),
  durability: setting(kinds.choice('local'), 'local', 'When a write is acknowledged: on the local disk (fdatasync).'),
  graceTimeMs: setting(kinds.duration(0, 366 * 24 * HOUR), '24h', 'How long deleted data is kept before its space is freed.'),
  capacityBytes: setting(
    kinds.orAuto(kinds.size(MIB, 4096 * TIB)),
    'auto',
    'Size that the datastore shows; auto: what the backend directory has, 64 TiB on an object store.',
  ),
};

const nfs = {
  listen: setting(kinds.ipAddress, '127.0.0.1', 'Address of NFS, MOUNT and port mapper.', { flag: '--listen <address>' }),
  port: setting(kinds.port, 2049, 'Port of NFS; MOUNT answers there too.', { flag: '--nfs-port <port>' }),
  mountPort: setting(kinds.orAuto(kinds.port), 'auto', 'Port of MOUNT if it has its own; auto: the NFS port.', { flag: '--mount-port <port>' }),
  portmap: setting(
    kinds.choice('auto', 'off', 'required'),
    'auto',
    'Port mapper on port 111, or registration with a running rpcbind. required: neither is an error.',
  ),
  inflightBytesMaxPerConnection: setting(kinds.size(2 * MIB, GIB), '64MiB', 'Unanswered bytes above which a connection is not read any more.'),
  connectionsMax: setting(kinds.integer(1, 100_000), 1024, 'Connections above which new ones are closed.'),
};

const exports = {
  clients: computed(
    kinds.list(kinds.network, 1, 1000),
    'loopback only, if NFS listens on loopback; else it must be set',
    'Networks whose hosts may mount.',
    { flag: '--clients <networks>' },
  ),
  squash: setting(kinds.choice('none', 'root', 'all'), 'none', 'Whose uid becomes the anonymous one. ESXi needs none.'),
  anonymousUid: setting(kinds.integer(0, 2 ** 32 - 1), 65_534, 'Uid of squashed and AUTH_NONE callers.'),
  anonymousGid: setting(kinds.integer(0, 2 ** 32 - 1), 65_534, 'Gid of squashed and AUTH_NONE callers.'),
};

const cache = {
  ramBytes: computed(kinds.size(MIB, 8 * TIB), '512MiB, or 1/8 of the memory if that is less', 'Block cache in RAM.'),
  mapBytes: setting(kinds.size(MIB, 8 * TIB), '256MiB', 'Extent map pages in RAM, of all volumes together.'),
  ssdBytes: setting(kinds.size(0, 4096 * TIB), '16GiB', 'Uploaded segments kept on the local disk for reading.'),
};

const log = {
  segmentBytes: setting(kinds.size(4 * MIB, 64 * MIB), '16MiB', 'Size of a segment of the log: one object on the backend.'),
  dirtyBytesMax: setting(kinds.size(16 * MIB, 4096 * TIB), '4GiB', 'Bytes that may wait for upload; near it writes slow down.'),
  sealAfterMs: setting(kinds.duration(10, 24 * HOUR), '30s', 'An open segment this old is uploaded although it is not full.'),
  checkpointAfterBytes: setting(kinds.size(4 * MIB, TIB), '1GiB', 'Log of a volume after which its extent map is checkpointed.'),
};

const admin = {
  listen: computed(
    kinds.ipAddress,
    'the NFS address if that is loopback, else 127.0.0.1',
    'Address of health, metrics and status (HTTP, no authentication).',
    { flag: '--admin-listen <address>' },
  ),
  port: setting(kinds.port, 8080, 'Port of health, metrics and status.', { flag: '--admin-port <port>' }),
};

const logging = {
  level: setting(kinds.choice('debug', 'info', 'warn', 'error'), 'info', 'Least severe log lines to write.', { flag: '--log-level <level>' }),
  format: setting(kinds.choice('auto', 'human', 'json'), 'auto', 'Form of log lines; auto: human on a terminal, JSON elsewhere.', {
    flag: '--log-format <format>',
  }),
};

const data = setting(kinds.path, './data', 'Data directory.', { flag: '--data <directory>' });

/** Parses the merged sources. Its output is complete but for what `resolve.ts` computes. */
export const settingsSchema = z.strictObject({
  data: data.type,
  vpool: section(vpool, { backend: backendSection }),
  registry: registrySection,
  cluster: clusterSection,
  nfs: section(nfs, {}),
  exports: section(exports, {}),
  cache: section(cache, {}),
  log: section(log, {}),
  admin: section(admin, {}),
  logging: section(logging, {}),
});
export type ParsedSettings = z.output<typeof settingsSchema>;

/** A setting with its key (`nfs.port`), environment variable and flag. */
export interface SettingKey {
  readonly key: string;
  readonly variable: string;
  /** `--nfs-port`, or null. */
  readonly flagName: string | null;
  readonly setting: Setting<unknown>;
}

/** All settings in the order of the file. */
export const settingKeys: readonly SettingKey[] = [
  describe('data', data),
  ...under('vpool', vpool),
  ...under('vpool.backend', backend),
  ...under('vpool.backend.swift', swift),
  ...under('vpool.backend.s3', s3),
  ...under('vpool.backend.prices', prices),
  ...under('registry', registry),
  ...under('registry.redis', redis),
  ...under('cluster', cluster),
  ...under('nfs', nfs),
  ...under('exports', exports),
  ...under('cache', cache),
  ...under('log', log),
  ...under('admin', admin),
  ...under('logging', logging),
];

function under(prefix: string, settings: Record<string, Setting<unknown>>): SettingKey[] {
  return Object.entries(settings).map(([name, value]) => describe(`${prefix}.${name}`, value));
}

/** A variable is named like the flag if there is one, else like the key: one rule, one name. */
function describe(key: string, value: Setting<unknown>): SettingKey {
  const flagName = value.flag?.split(' ')[0] ?? null;
  const words = flagName === null ? key.replaceAll('.', '_').replace(/[A-Z]/g, '_$&') : flagName.slice(2).replaceAll('-', '_');
  return { key, variable: `VFERRY_${words.toUpperCase()}`, flagName, setting: value };
}
