/** Flags of the commands that need settings, and loading the settings from what was given. */
import { totalmem } from 'node:os';

import { type Command, Option } from 'commander';

import type { BackendSettings } from '../settings/backend-settings.ts';
import { type LoadedSettings, loadSettings } from '../settings/load.ts';
import type { Machine } from '../settings/resolve.ts';
import { settingKeys } from '../settings/schema.ts';
import { backendFlags } from './backend-url.ts';

/** Adds `--config` and a flag for every setting that has one. */
export function addSettingsOptions(command: Command): Command {
  command.option('--config <file>', 'settings file (YAML); also VFERRY_CONFIG');
  for (const { setting, variable } of settingKeys) {
    if (setting.flag === undefined) continue;
    const fallback = setting.fallbackText.replaceAll('`', '');
    command.addOption(new Option(setting.flag, `${setting.description} Default: ${fallback}. Also ${variable}.`.replaceAll('`', '')));
  }
  return command.option('--no-portmap', 'no port mapper: clients must name the ports. Like VFERRY_NFS_PORTMAP=off.');
}

/** Settings from the flags of `command`, `environment` and the settings file. @throws SettingsError */
export function settingsOf(command: Command, environment: Readonly<Record<string, string | undefined>>): LoadedSettings {
  const flags = new Map<string, string>();
  const labels = new Map<string, string>();
  for (const { key, setting, flagName } of settingKeys) {
    if (setting.flag === undefined || flagName === null) continue;
    const given: unknown = command.getOptionValue(new Option(setting.flag).attributeName());
    if (typeof given !== 'string') continue;
    flags.set(key, given);
    labels.set(key, flagName);
  }
  if (command.getOptionValue('portmap') === false) {
    flags.set('nfs.portmap', 'off');
    labels.set('nfs.portmap', '--no-portmap');
  }
  return loadSettings({ flags, flagLabels: labels, environment, configPath: configOf(command), machine: machine() });
}

/** The backend that the first argument of `command` names, or that of the settings. @throws SettingsError */
export function backendOf(command: Command, environment: Readonly<Record<string, string | undefined>>): BackendSettings {
  const [url] = command.args;
  if (url === undefined) return settingsOf(command, environment).settings.vpool.backend;
  const named = backendFlags(url, environment);
  const input = { flags: named.flags, flagLabels: named.labels, environment: named.environment, configPath: configOf(command), machine: machine() };
  return loadSettings(input).settings.vpool.backend;
}

function configOf(command: Command): string | null {
  const config: unknown = command.getOptionValue('config');
  return typeof config === 'string' ? config : null;
}

function machine(): Machine {
  return { workingDirectory: process.cwd(), memoryBytes: memoryBytes() };
}

/** Memory that this process may use: a container's limit counts where there is one. */
function memoryBytes(): number {
  const limit = process.constrainedMemory();
  return limit > 0 && limit < totalmem() ? limit : totalmem();
}
