/** Reports of a cluster for people. */
import type { ClusterStatus, DrainReport, MoveReport, RouterReport, TakeoverPlan, VolumeReport } from '../cluster-port.ts';
import { roundSize } from './amounts.ts';

const SHORT_ID = 12;
const BAR_COLUMNS = 30;

/** Ids are long; this much of one tells routers apart for people. Commands take any unique beginning. */
export function shortId(id: string): string {
  return id.slice(0, SHORT_ID);
}

/** Columns as wide as their widest cell, two spaces between; the first row is the heading. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
  return rows
    .map((row) => `${row.map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column] ?? 0))).join('  ')}\n`)
    .join('');
}

export function routersText(routers: readonly RouterReport[]): string {
  const rows = routers.map((router) => [
    `${shortId(router.id)}${router.self ? ' *' : ''}`,
    router.state,
    router.nfs ?? '-',
    router.peer ?? '-',
    connectionText(router),
    router.objects === null
      ? '-'
      : `${router.objects}${router.recovering === null || router.recovering === 0 ? '' : ` (${router.recovering} recovering)`}`,
    router.state === 'silent' || router.state === 'dead' ? `${Math.round(router.silentMs / 1000)} s ago` : 'now',
    router.version,
  ]);
  return table([['router', 'state', 'nfs', 'peers', 'connection', 'objects', 'seen', 'version'], ...rows]);
}

function connectionText({ self, connection }: Pick<RouterReport, 'self' | 'connection'>): string {
  if (self || connection === null) return '-';
  if (!connection.connected) return connection.problem === null ? 'down' : `down: ${connection.problem}`;
  return connection.roundTripMs === null ? 'up' : `up, ${connection.roundTripMs.toFixed(2)} ms`;
}

export function volumesText(volumes: readonly VolumeReport[]): string {
  const rows = volumes.map((volume) => [
    String(volume.fileid),
    shortId(volume.router),
    stateText(volume),
    volume.protection,
    roundSize(volume.sizeBytes),
    volume.pinned === true ? 'pinned' : '',
    volume.path ?? `(${volume.class} without a name)`,
  ]);
  return table([['fileid', 'router', 'state', 'protection', 'size', '', 'path'], ...rows]);
}

function stateText({ state, reason, moving }: VolumeReport): string {
  if (moving !== null) return `moving to ${shortId(moving.to)}`;
  return reason === null ? state : `${state}: ${reason}`;
}

export function movesText(moves: readonly MoveReport[], now: Date): string {
  const rows = moves.map((move) => [
    move.id,
    String(move.fileid),
    `${shortId(move.from)} -> ${shortId(move.to)}`,
    move.reason,
    move.phase,
    tookText(move, now),
    roundSize(move.copiedBytes),
    move.heldMs === null ? '-' : `${move.heldMs.toFixed(1)} ms`,
    `${move.path ?? ''}${move.problem === null ? '' : ` (${move.problem})`}`,
  ]);
  return table([['id', 'fileid', 'from -> to', 'reason', 'phase', 'time', 'copied', 'held', 'path'], ...rows]);
}

function tookText({ startedAt, endedAt }: MoveReport, now: Date): string {
  const ended = endedAt === null ? now.getTime() : Date.parse(endedAt);
  return `${((ended - Date.parse(startedAt)) / 1000).toFixed(1)} s`;
}

/** One line without line end: `[=====>    ]  5 of 12 objects, 1.2GiB copied, 300MiB to go`. */
export function drainText(report: DrainReport): string {
  if (report.phase === 'none') return 'not draining';
  const parts = [`${report.done} of ${report.total} objects`, `${roundSize(report.copiedBytes)} copied`];
  if (report.behindBytes > 0) parts.push(`${roundSize(report.behindBytes)} to go`);
  if (report.phase === 'drained') parts.push('drained');
  if (report.problem !== null) parts.push(report.problem);
  return `${bar(report.total === 0 ? Number(report.phase === 'drained') : report.done / report.total)} ${parts.join(', ')}`;
}

function bar(fraction: number): string {
  const filled = Math.max(0, Math.min(BAR_COLUMNS, Math.floor(fraction * BAR_COLUMNS)));
  return `[${'='.repeat(filled)}${filled < BAR_COLUMNS ? '>' : ''}${' '.repeat(Math.max(0, BAR_COLUMNS - filled - 1))}]`;
}

/** What a takeover would do, in words that leave no doubt. */
export function planText({ volume, ownerDead, ownerSilentMs, needsForce, keptSequence, givenUp }: TakeoverPlan): string {
  const name = volume.path ?? `object ${volume.fileid}`;
  const silent = ownerSilentMs === null ? 'has not been seen by this router' : `was last seen ${Math.round(ownerSilentMs / 1000)} s ago`;
  const lines = [
    `${name} (fileid ${volume.fileid}) belongs to router ${volume.router}, which is ${ownerDead ? 'dead' : 'not known to be dead'} and ${silent}.`,
    `Its protection is ${volume.protection}; what the backend has is everything up to sequence ${keptSequence} of its log.`,
  ];
  if (givenUp.length > 0) lines.push('Given up for good:', ...givenUp.map((line) => `  - ${line}`));
  else lines.push('Nothing is given up.');
  if (needsForce) lines.push('If that router comes back, the object comes back whole, by itself, unless it is taken over now.');
  return lines.map((line) => `${line}\n`).join('');
}

/** Rows of `vferry status`. */
export function clusterRows(cluster: ClusterStatus): (readonly [string, string])[] {
  const { owned } = cluster;
  const lease = cluster.leaseLeftMs <= 0 ? 'LEASE LAPSED' : `lease ${(cluster.leaseLeftMs / 1000).toFixed(1)} s left`;
  const rows: (readonly [string, string])[] = [
    [
      'registry',
      `${cluster.registry}, generation ${cluster.generation}, ${lease}${cluster.registryProblem === null ? '' : `, ${cluster.registryProblem}`}`,
    ],
    ['peers', `at ${cluster.peerAddress}, ${cluster.encrypted ? encryptionText(cluster) : 'PLAIN TEXT'}`],
    ...cluster.routers
      .filter((router) => !router.self)
      .map((router) => ['router', `${shortId(router.id)} ${router.state}, ${router.peer ?? 'no address'}, ${connectionText(router)}`] as const),
    [
      'objects',
      `${owned.clean} clean, ${owned.unprotected} unprotected, ${owned.protected} protected, ${cluster.recovering} recovering, ${cluster.movesRunning} moving`,
    ],
  ];
  if (cluster.drain.phase !== 'none') rows.push(['drain', drainText(cluster.drain)]);
  return rows;
}

function encryptionText({ certificateEndsAtMs }: ClusterStatus): string {
  return certificateEndsAtMs === null ? 'TLS' : `TLS, certificate until ${new Date(certificateEndsAtMs).toISOString()}`;
}
