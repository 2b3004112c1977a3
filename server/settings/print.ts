/** Effective settings as a YAML file that reads back as the same settings, each with a comment that says where it comes from. */
import { formatDuration, formatSize } from './kinds.ts';
import { settingKeys } from './schema.ts';
import type { Settings } from './settings.ts';
import type { Origin } from './sources.ts';

const REDACTED = '********';

/** `origins`: where given keys come from; the others are marked `default`. Secrets are replaced by asterisks. */
export function printSettings(settings: Settings, origins: ReadonlyMap<string, Origin>): string {
  const lines: string[] = [];
  let open: string[] = [];
  for (const { key, setting } of settingKeys) {
    const given = valueAt(settings, key);
    // A key of another kind of backend.
    if (given === undefined) continue;
    const path = key.split('.');
    const name = path.pop() ?? '';
    for (const [depth, part] of path.entries()) {
      if (open[depth] === part) continue;
      lines.push(`${'  '.repeat(depth)}${part}:`);
      open = path.slice(0, depth + 1);
    }
    open = path;
    const indent = '  '.repeat(path.length);
    // Not given, and without a default: a comment reads back as the same.
    if ((given === null || (Array.isArray(given) && given.length === 0)) && setting.fallback === undefined) {
      lines.push(`${indent}# ${name}: not set`);
      continue;
    }
    const value = setting.secret === true ? REDACTED : settingText(key, given);
    lines.push(`${indent}${name}: ${value} # ${origins.get(key)?.label ?? 'default'}`);
  }
  return `${lines.join('\n')}\n`;
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
