/** What people must know or act on in a cluster, from its status. None of it keeps this router from serving what it owns. */
import type { ClusterStatus } from './cluster-port.ts';
import type { Problem } from './router-port.ts';

const DAY_MS = 24 * 3600 * 1000;
/** Time enough for a month's round of maintenance. */
const CERTIFICATE_DAYS = 30;

/** `nowMs`: wall clock. */
export function clusterProblems(status: ClusterStatus, nowMs: number): Problem[] {
  const problems: Problem[] = [];
  const { certificateEndsAtMs, routers, drain } = status;
  if (certificateEndsAtMs !== null && certificateEndsAtMs - nowMs < CERTIFICATE_DAYS * DAY_MS) {
    const ends = new Date(certificateEndsAtMs).toISOString();
    const message =
      certificateEndsAtMs <= nowMs
        ? `this router's certificate ended at ${ends}: other routers refuse it`
        : `this router's certificate ends at ${ends}: other routers refuse it then, and it does not start any more`;
    problems.push({
      code: 'certificate',
      message: `${message}; renew it (vferry cluster renew, elsewhere than on the authority's host join) and restart`,
    });
  }
  for (const { id, state, peer, connection } of routers) {
    // A dead one cannot be connected to, and is no news.
    if (state === 'dead' || connection === null || connection.connected) continue;
    problems.push({
      code: 'peer',
      message: `no connection to router ${id} at ${peer ?? 'an unknown address'}, which is ${state}: what it owns is not served here${connection.problem === null ? '' : ` (${connection.problem})`}`,
    });
  }
  if (drain.phase === 'stuck') {
    problems.push({
      code: 'drain',
      message: `the drain of this router does not get on, ${drain.total - drain.done} objects are left: ${drain.problem ?? 'no reason is known'}`,
    });
  }
  return problems;
}
