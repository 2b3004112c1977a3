/** `vferry status`: asks a running router over its admin port. */
import type { ReadinessReport, StatusReport } from '../admin/admin-server.ts';
import type { BackendHealth, BackendStorage } from '../router-port.ts';
import type { AdminSettings } from '../settings/settings.ts';
import { adminUrl, getText } from './admin-client.ts';
import { costText, roundSize, trafficText } from './amounts.ts';
import { clusterRows } from './cluster-text.ts';
import { ExitCode } from './exit-code.ts';

export interface Printer {
  out(text: string): void;
  err(text: string): void;
}

/** Exit code 0: ready; 1: not ready; 2: no router answers there. */
export async function printStatus(admin: AdminSettings, json: boolean, print: Printer): Promise<ExitCode> {
  const url = adminUrl(admin, '/status');
  let text: string;
  try {
    text = await getText(url);
  } catch (error) {
    print.err(`No router answers at ${url}: ${(error as Error).message}\n`);
    return ExitCode.USAGE;
  }
  const report = parseReport(text);
  if (report === null) {
    print.err(`What answers at ${url} is no vferry.\n`);
    return ExitCode.USAGE;
  }
  print.out(json ? `${JSON.stringify(report, null, 2)}\n` : statusText(report));
  return report.ready ? ExitCode.OK : ExitCode.FAILED;
}

/** Null unless it looks like a router's report; another program may have the port. */
function parseReport(text: string): StatusReport | null {
  try {
    const value = JSON.parse(text) as StatusReport;
    const looksRight = typeof value.ready === 'boolean' && Array.isArray(value.problems) && typeof value.phase === 'string';
    // A router of an earlier version knows no cluster.
    return looksRight ? { ...value, cluster: value.cluster ?? null } : null;
  } catch {
    return null;
  }
}

/** The report for people. */
export function statusText(report: StatusReport): string {
  const { router } = report;
  const rows: (readonly [string, string])[] = [['state', report.ready ? 'ready' : report.phase === 'running' ? 'NOT READY' : report.phase]];
  if (router !== null) {
    const { addresses } = router;
    rows.push(
      ['vpool', router.vpool],
      ['version', `${router.version}, router ${router.routerId}, incarnation ${router.incarnation}, since ${router.startedAt}`],
      ['listens on', `${addresses.listen}, NFS ${addresses.nfsPort}, MOUNT ${addresses.mountPort}, port mapper ${addresses.portmap}`],
      ['backend', `${router.backend}, ${healthText(router.backendHealth)}`],
      ['storage', storageText(router.backendStorage)],
      ['traffic', `${trafficText(router.backendTraffic)}${costText(router.backendTraffic, router.backendTraffic.currency)}`],
      ['space', `${roundSize(router.usedBytes)} used, ${roundSize(router.freeBytes)} free, ${router.inodes} inodes`],
      ['volumes', `${router.volumesOpen} open`],
      ['dirty', `${roundSize(router.dirtyBytes)} not on the backend yet`],
      ['clients', router.clients.length === 0 ? 'none' : router.clients.map((client) => `${client.address} (${client.connections})`).join(', ')],
    );
  }
  if (report.cluster !== null) rows.push(...clusterRows(report.cluster));
  return rows.map(([name, text]) => `${name.padEnd(12)}${text}\n`).join('') + problemText(report);
}

function storageText({ bucket, fence, compression, encryptionKey }: BackendStorage): string {
  const encoding = [
    compression === 'none' ? 'not compressed' : compression,
    encryptionKey === null ? 'not encrypted' : `encrypted with key ${encryptionKey}`,
  ];
  return `${bucket === null ? 'a bucket for each volume' : `all in bucket ${bucket}`}, fence ${fence}, ${encoding.join(', ')}`;
}

function problemText(report: ReadinessReport): string {
  return report.problems.map((problem) => `${'problem'.padEnd(12)}${problem.code}: ${problem.message}\n`).join('');
}

/** `up since 2026-11-22T10:00:00Z`, with the reason when it is not. */
export function healthText(health: BackendHealth): string {
  return `${health.condition} since ${health.since}${health.message === null ? '' : ` (${health.message})`}`;
}
