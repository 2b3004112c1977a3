/** Amounts for people: three significant digits are enough. */
import type { BackendTraffic } from '../router-port.ts';
import { formatSize } from '../settings/kinds.ts';

/** `1.23GiB`. */
export function roundSize(bytes: number): string {
  let unit = 1;
  while (bytes / unit >= 1000 && unit < 2 ** 50) unit *= 1024;
  const rounded = Number((bytes / unit).toPrecision(3));
  return unit === 1 ? `${bytes}B` : `${rounded}${formatSize(unit).slice(1)}`;
}

/** `0.0123 USD`. */
export function money(amount: number, currency: string): string {
  return `${amount >= 1000 ? Math.round(amount) : Number(amount.toPrecision(3))} ${currency}`;
}

/** `12 PUT, 30 GET, 2 failed, 48MiB written, 1MiB read`; kinds with most requests first. */
export function trafficText(traffic: BackendTraffic): string {
  const kinds = Object.entries(traffic.requests)
    .filter(([, count]) => count > 0)
    .sort(([, a], [, b]) => b - a);
  const parts = kinds.map(([kind, count]) => `${count} ${kind.toUpperCase()}`);
  if (parts.length === 0) return 'no requests';
  if (traffic.failed > 0) parts.push(`${traffic.failed} of them failed`);
  return [...parts, `${roundSize(traffic.writtenBytes)} written`, `${roundSize(traffic.readBytes)} read`].join(', ');
}

/** `, 0.02 USD so far, 1.5 USD a month at this pace`; nothing where nothing costs anything. */
export function costText(traffic: BackendTraffic, currency: string): string {
  if (traffic.cost === 0) return '';
  return `, ${money(traffic.cost, currency)} so far, ${money(traffic.costPerMonth, currency)} a month at this pace`;
}
