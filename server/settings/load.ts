/** Reads, merges, validates and completes the settings: flags win over the environment, that over the file, that over the defaults. */
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';

import type { z } from 'zod';

import { type Machine, resolveSettings } from './resolve.ts';
import { settingKeys, settingsSchema } from './schema.ts';
import { SettingsError } from './settings-error.ts';
import type { Settings } from './settings.ts';
import { similarWord } from './similar-word.ts';
import { type Origin, type RawTree, type Source, environmentSource, fileSource, flagSource, hint, mergeSources } from './sources.ts';

export interface SettingsInput {
  /** Flags that were given, by key (`nfs.port`), with what to call them in messages. */
  readonly flags: ReadonlyMap<string, string>;
  readonly flagLabels: ReadonlyMap<string, string>;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Settings file, or null. `VFERRY_CONFIG` counts when it is null. */
  readonly configPath: string | null;
  readonly machine: Machine;
}

export interface LoadedSettings {
  readonly settings: Settings;
  /** Where each key that was given comes from; all others have their defaults. */
  readonly origins: ReadonlyMap<string, Origin>;
}

/** @throws SettingsError with every problem found. */
export function loadSettings(input: SettingsInput): LoadedSettings {
  const configPath = input.configPath ?? input.environment['VFERRY_CONFIG'] ?? null;
  const sources: Source[] = [];
  const problems: string[] = [];
  for (const read of [
    () => (configPath === null ? null : fileSource(configPath, readConfig(configPath))),
    () => environmentSource(input.environment),
    () => flagSource(input.flags, input.flagLabels),
  ]) {
    try {
      const source = read();
      if (source !== null) sources.push(source);
    } catch (error) {
      if (!(error instanceof SettingsError)) throw error;
      problems.push(...error.problems);
    }
  }
  const { tree, origins } = mergeSources(sources);
  const parsed = settingsSchema.safeParse(tree);
  if (!parsed.success) problems.push(...parsed.error.issues.flatMap((issue) => explain(issue, tree, origins)));
  if (problems.length > 0 || !parsed.success) throw new SettingsError(problems);
  // A relative path means what it means to the person who wrote it: beside the file, or where the command was typed.
  const baseOf = (key: string): string =>
    origins.get(key)?.kind === 'file' && configPath !== null ? dirname(configPath) : input.machine.workingDirectory;
  return { settings: resolveSettings(parsed.data, origins, baseOf, input.machine), origins };
}

function readConfig(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new SettingsError([`${path}: cannot read the settings file: ${(error as Error).message}`]);
  }
}

function explain(issue: z.core.$ZodIssue, tree: RawTree, origins: ReadonlyMap<string, Origin>): string[] {
  const path = issue.path.map(String);
  const key = path.join('.');
  const where = origins.get(key)?.label;
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((name) => {
      const full = [...path, name].join('.');
      const siblings = keysUnder(key);
      return `${origins.get(full)?.label ?? where}: unknown key ${full}${hint(similarWord(name, siblings))}; allowed here: ${siblings.join(', ')}`;
    });
  }
  let given: unknown = tree;
  for (const part of path) given = (given as RawTree | undefined)?.[part];
  const entry = settingKeys.find((candidate) => candidate.key === key);
  // Somebody may have written a secret where its section should be.
  const shown = settingKeys.some((candidate) => candidate.setting.secret === true && candidate.key.startsWith(`${key}.`))
    ? 'no section'
    : show(given);
  if (entry === undefined) return [`${where}: ${key} is ${shown}; it must be a section with the keys ${keysUnder(key).join(', ')}`];
  return [`${where}: ${key} is ${entry.setting.secret === true ? 'set' : show(given)}; it must be ${issue.message}`];
}

/** Names directly under a section (`''` = the top). */
function keysUnder(prefix: string): string[] {
  const start = prefix === '' ? '' : `${prefix}.`;
  const names = settingKeys.filter((entry) => entry.key.startsWith(start)).map((entry) => entry.key.slice(start.length).split('.')[0] ?? '');
  return [...new Set(names)];
}

function show(value: unknown): string {
  if (value === null || value === undefined) return 'empty';
  // Credentials in a URL are refused, and not repeated.
  const text = JSON.stringify(value).replaceAll(/:\/\/[^/@"]*@/g, '://********@');
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
