/** Effective settings as a YAML file that reads back as the same settings, each with a comment that says where it comes from. */
import { formatDuration, formatSize } from './kinds.ts';
import { type SettingKey, settingKeys } from './schema.ts';
import type { Settings } from './settings.ts';
import type { Origin } from './sources.ts';

const REDACTED = '********';

/** `origins`: where given keys come from; the others are marked `default`. Secrets are replaced by asterisks. */
export function printSettings(settings: Settings, origins: ReadonlyMap<string, Origin>): string {
  return yamlOf(({ key, setting }) => {
    const given = valueAt(settings, key);
    // A key of another kind of backend.
    if (given === undefined) return null;
    // Not given, and without a default: a comment reads back as the same.
    if (isAbsent(given) && setting.fallback === undefined) return `# ${lastOf(key)}: not set`;
    const value = setting.secret === true ? REDACTED : settingText(key, given);
    return `${lastOf(key)}: ${value} # ${origins.get(key)?.label ?? 'default'}`;
  });
}

/** What all routers of a cluster must have alike: sections, and single keys of others. */
const SHARED = /^(vpool|registry|exports)\.|^cluster\.(leaseMs|cleanAfterMs|volume\w+|file\w+|movesMax|cooldownMs|decayMs)$/;
/** Shown although they may be defaults: a cluster does not work without them being the same. */
const SHARED_ALWAYS = new Set(['vpool.name', 'vpool.backend.kind', 'registry.kind', 'cluster.leaseMs']);

/** What every host says for itself. */
const OWN = new Set(['cluster.listen', 'nfs.listen']);

/** The settings that another router of the cluster needs, as a settings file to be completed: secrets are not in it, but named, as addresses are. */
export function printSharedSettings(settings: Settings, origins: ReadonlyMap<string, Origin>): string {
  return yamlOf(({ key, setting }) => {
    if (OWN.has(key)) return `# ${lastOf(key)}: an address of this host`;
    const given = valueAt(settings, key);
    if (!SHARED.test(key) || given === undefined || isAbsent(given) || !(origins.has(key) || SHARED_ALWAYS.has(key))) return null;
    if (setting.secret === true) return `# ${lastOf(key)}: a secret; set it here too`;
    return `${lastOf(key)}: ${settingText(key, given)}${key.endsWith('File') ? ' # copy this file to this host' : ''}`;
  });
}

/** One line for each key that `lineOf` has one for, under the names of its sections. */
function yamlOf(lineOf: (entry: SettingKey) => string | null): string {
  const lines: string[] = [];
  let open: string[] = [];
  for (const entry of settingKeys) {
    const line = lineOf(entry);
    if (line === null) continue;
    const path = entry.key.split('.').slice(0, -1);
    for (const [depth, part] of path.entries()) {
      if (open[depth] === part) continue;
      lines.push(`${'  '.repeat(depth)}${part}:`);
      open = path.slice(0, depth + 1);
    }
    open = path;
    lines.push(`${'  '.repeat(path.length)}${line}`);
  }
  return `${lines.join('\n')}\n`;
}

function lastOf(key: string): string {
  return key.slice(key.lastIndexOf('.') + 1);
}

function isAbsent(value: unknown): boolean {
  return value === null || (Array.isArray(value) && value.length === 0);
}

/** The same as JSON: exact numbers, no origins. */
export function printSettingsJson(settings: Settings): string {
  const redacted = structuredClone(settings) as unknown as Record<string, unknown>;
  for (const { key, setting } of settingKeys) {
    if (setting.secret !== true) continue;
    const path = key.split('.');
    const name = path.pop() ?? '';
    let node: Record<string, unknown> | undefined = redacted;
    for (const part of path) node = node?.[part] as Record<string, unknown> | undefined;
    if (node !== undefined && node[name] !== undefined && node[name] !== null) node[name] = REDACTED;
  }
  return `${JSON.stringify(redacted, null, 2)}\n`;
}

/** Undefined for a key that these settings do not have. */
function valueAt(settings: Settings, key: string): unknown {
  let value: unknown = settings;
  for (const part of key.split('.')) value = (value as Record<string, unknown> | undefined)?.[part];
  return value;
}

/** A value as a person would write it. JSON strings are YAML strings. */
function settingText(key: string, value: unknown): string {
  if (value === null) return 'auto';
  if (typeof value === 'number' && key.endsWith('Ms')) return formatDuration(value);
  if (typeof value === 'number' && /Bytes(Max)?(PerConnection)?$/.test(key)) return formatSize(value);
  if (Array.isArray(value)) return `[${value.map((item) => JSON.stringify(item)).join(', ')}]`;
  // Unquoted only what YAML cannot take for something else (true, null, numbers).
  const plain = typeof value === 'string' && /^[A-Za-z/][A-Za-z0-9/._-]*$/.test(value) && !/^(true|false|null)$/i.test(value);
  return plain ? value : JSON.stringify(value);
}
