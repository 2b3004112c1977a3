/** `vferry backend usage`: what a running router asks of its backend, and what that costs, by volume. */
import type { BackendUsage, BucketTraffic } from '../router-port.ts';
import type { AdminSettings } from '../settings/settings.ts';
import { adminUrl, getText } from './admin-client.ts';
import { costText, money, roundSize, trafficText } from './amounts.ts';
import { ExitCode } from './exit-code.ts';
import { healthText, type Printer } from './status.ts';

/** Exit code 0, or 2: no router answers there. */
export async function printBackendUsage(admin: AdminSettings, json: boolean, print: Printer): Promise<ExitCode> {
  const url = adminUrl(admin, '/backend/usage');
  let usage: BackendUsage;
  try {
    usage = JSON.parse(await getText(url)) as BackendUsage;
    if (!Array.isArray(usage.buckets) || typeof usage.total?.cost !== 'number') throw new Error('its answer is not that of a vferry');
  } catch (error) {
    print.err(`No router answers at ${url}: ${(error as Error).message}\n`);
    return ExitCode.USAGE;
  }
  print.out(json ? `${JSON.stringify(usage, null, 2)}\n` : usageText(usage));
  return ExitCode.OK;
}

/** The report for people. */
export function usageText(usage: BackendUsage): string {
  const { currency } = usage;
  const lines = [
    ['backend', `${usage.backend}, ${healthText(usage.health)}`],
    ['since', `${usage.since}, ${Math.round(usage.seconds)} s`],
    ['total', `${trafficText(usage.total)}${costText(usage.total, currency)}`],
    [
      'stored',
      `${roundSize(usage.storage.usedBytes)}${usage.storage.costPerMonth === 0 ? '' : `, ${money(usage.storage.costPerMonth, currency)} a month`}`,
    ],
    ...usage.buckets.map((bucket) => [nameOf(bucket), `${trafficText(bucket)}${costText(bucket, currency)}`]),
  ];
  if (usage.others.bucketCount > 0)
    lines.push([`${usage.others.bucketCount} others`, `${trafficText(usage.others)}${costText(usage.others, currency)}`]);
  return lines.map(([name = '', text = '']) => `${name.padEnd(12)}${name.length < 12 ? '' : '  '}${text}\n`).join('');
}

function nameOf({ bucket, content, path }: BucketTraffic): string {
  return content === 'volume' || content === 'other' ? (path ?? bucket) : content;
}
