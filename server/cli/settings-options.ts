/** Flags of the commands that need settings, and loading the settings from what was given. */
import { totalmem } from 'node:os';

import { type Command, Option } from 'commander';

import { type LoadedSettings, loadSettings } from '../settings/load.ts';
import { settingKeys } from '../settings/schema.ts';

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
  const config: unknown = command.getOptionValue('config');
  return loadSettings({
    flags,
    flagLabels: labels,
    environment,
    configPath: typeof config === 'string' ? config : null,
    machine: { workingDirectory: process.cwd(), memoryBytes: memoryBytes() },
  });
}

/** Memory that this process may use: a container's limit counts where there is one. */
function memoryBytes(): number {
  const limit = process.constrainedMemory();
  return limit > 0 && limit < totalmem() ? limit : totalmem();
}
