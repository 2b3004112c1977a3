import { settingKeys } from '../schema.ts';

/** The settings table of README.md, made from the schema. */
export function settingsTable(): string {
  const rows = settingKeys.map(({ key, variable, flagName, setting }) => {
    const given = setting.fallback === undefined || setting.fallbackText.includes('`') ? setting.fallbackText : `\`${setting.fallbackText}\``;
    const flags = [flagName, key === 'nfs.portmap' ? '--no-portmap' : null].filter((flag) => flag !== null).map((flag) => `\`${flag}\` `);
    // How to write sizes and times is said once, above the table.
    const allowed = setting.kind.allowed.replace(/: (bytes|milliseconds), or .*/, '');
    const cells = [`\`${key}\``, given, `${setting.description} Allowed: ${allowed}.`, `${flags.join('')}\`${variable}\``];
    return `| ${cells.map((cell) => cell.replaceAll('|', '\\|').replace(/(?<!`[^`]*)\*/g, '\\*')).join(' | ')} |`;
  });
  return ['| key | default | meaning | flag, variable |', '| --- | --- | --- | --- |', ...rows].join('\n');
}
