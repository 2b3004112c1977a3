/** Incarnations of routers: joined, renewed, dead for good. */
import { ApplianceError } from '../../server/core/errors.ts';
import type { Incarnation, RouterId } from '../../server/core/ids.ts';
import type { RouterRecord } from '../ports.ts';
import type { Records } from './records.ts';

/** The error of every verb that a dead incarnation calls. */
export function incarnationDead(incarnation: Incarnation): ApplianceError {
  return new ApplianceError('incarnation-dead', `incarnation ${incarnation} was replaced, left or was marked dead; it must stop`);
}

export function join(records: Records, router: RouterId, incarnation: Incarnation, addresses: readonly string[], version: string): RouterRecord {
  const holder = records.routerOf(incarnation);
  if (records.isDead(incarnation) || (holder !== null && holder !== router)) throw incarnationDead(incarnation);
  const former = records.router(router);
  const same = former !== null && former.incarnation === incarnation;
  if (same && former.dead) throw incarnationDead(incarnation);
  if (former !== null && !same) records.bury(router, former.incarnation);
  const record: RouterRecord = { id: router, incarnation, addresses, version, leaseCounter: same ? former.leaseCounter : 0, dead: false };
  records.putRouter(record);
  return record;
}

export function renew(records: Records, router: RouterId, incarnation: Incarnation): RouterRecord {
  const former = records.router(router);
  if (former === null || former.incarnation !== incarnation || former.dead) throw incarnationDead(incarnation);
  const record: RouterRecord = { ...former, leaseCounter: former.leaseCounter + 1 };
  records.putRouter(record);
  return record;
}

export function markDead(records: Records, router: RouterId, incarnation: Incarnation, leaseCounterSeen: number): 'dead' | 'conflict' {
  const former = records.router(router);
  // Replaced or never here: either way it is not alive.
  if (former === null || former.incarnation !== incarnation || former.dead) {
    records.bury(router, incarnation);
    return 'dead';
  }
  if (former.leaseCounter !== leaseCounterSeen) return 'conflict';
  kill(records, former);
  return 'dead';
}

export function leave(records: Records, router: RouterId, incarnation: Incarnation): null {
  const former = records.router(router);
  if (former !== null && former.incarnation === incarnation && !former.dead) kill(records, former);
  return null;
}

function kill(records: Records, router: RouterRecord): void {
  records.bury(router.id, router.incarnation);
  records.putRouter({ ...router, dead: true });
}
