/** `vferry status`: asks a running router over its admin port. */
import { type IncomingMessage, request } from 'node:http';

import type { ReadinessReport, StatusReport } from '../admin/admin-server.ts';
import { formatSize } from '../settings/kinds.ts';
import type { AdminSettings } from '../settings/settings.ts';
import { ExitCode } from './exit-code.ts';

const ANSWER_MS_MAX = 5000;
const ANSWER_CHARACTERS_MAX = 4 * 1024 * 1024;

export interface Printer {
  out(text: string): void;
  err(text: string): void;
}

/** Exit code 0: ready; 1: not ready; 2: no router answers there. */
export async function printStatus(admin: AdminSettings, json: boolean, print: Printer): Promise<ExitCode> {
  const host =
    admin.listen === '0.0.0.0' ? '127.0.0.1' : admin.listen === '::' ? '[::1]' : admin.listen.includes(':') ? `[${admin.listen}]` : admin.listen;
  const url = `http://${host}:${admin.port}/status`;
  let text: string;
  try {
    text = await get(url);
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

/** Body of a 200 answer. Not fetch: that refuses a list of ports (2049, 6000 ...), whatever listens there. */
async function get(url: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  request(url, { signal: AbortSignal.timeout(ANSWER_MS_MAX) }, resolve)
    .once('error', reject)
    .end();
  const response = await promise;
  if (response.statusCode !== 200) throw new Error(`it answers ${response.statusCode}`);
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) {
    text += String(chunk);
    if (text.length > ANSWER_CHARACTERS_MAX) throw new Error('its answer is too long');
  }
  return text;
}

/** Null unless it looks like a router's report; another program may have the port. */
function parseReport(text: string): StatusReport | null {
  try {
    const value = JSON.parse(text) as StatusReport;
    const looksRight = typeof value.ready === 'boolean' && Array.isArray(value.problems) && typeof value.phase === 'string';
    return looksRight ? value : null;
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
      ['backend', router.backend],
      ['space', `${roundSize(router.usedBytes)} used, ${roundSize(router.freeBytes)} free, ${router.inodes} inodes`],
      ['volumes', `${router.volumesOpen} open`],
      ['dirty', `${roundSize(router.dirtyBytes)} not on the backend yet`],
      ['clients', router.clients.length === 0 ? 'none' : router.clients.map((client) => `${client.address} (${client.connections})`).join(', ')],
    );
  }
  return rows.map(([name, text]) => `${name.padEnd(12)}${text}\n`).join('') + problemText(report);
}

function problemText(report: ReadinessReport): string {
  return report.problems.map((problem) => `${'problem'.padEnd(12)}${problem.code}: ${problem.message}\n`).join('');
}

/** Three significant digits: nobody needs the last byte here. */
function roundSize(bytes: number): string {
  let unit = 1;
  while (bytes / unit >= 1000 && unit < 2 ** 50) unit *= 1024;
  const rounded = Number((bytes / unit).toPrecision(3));
  return unit === 1 ? `${bytes}B` : `${rounded}${formatSize(unit).slice(1)}`;
}
