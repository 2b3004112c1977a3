/** Rows of the tables owner and router, for both connections. */
import type { Incarnation, ObjectUuid, RouterId } from '../../server/core/ids.ts';
import { jsonFromMoving, jsonFromProtection, jsonFromRoot, jsonFromState, movingFromJson, OBJECT_VERIFIER_BYTES } from '../owner-record.ts';
import { type OwnerEntry, protectionFromJson, rootFromJson, routerFromJson, stateFromJson } from '../owner-record.ts';
import type { RouterRecord } from '../ports.ts';
import { corrupt, HEX_16, HEX_32, integerOf, jsonOf, patternOf, recordOf } from '../record-check.ts';
import { fileidOf } from './inode-rows.ts';
import { checkRow } from './row-checksum.ts';

const OWNER_COLUMN_COUNT = 13;
export const OWNER_COLUMNS = 'fileid, uuid, router, incarnation, generation, counter, nonce, counter_max, state, moving, root, protection, verifier';

/** An owner record from the columns OWNER_COLUMNS and crc. @throws ApplianceError `registry-corrupt`. */
export function ownerFromRow(row: readonly unknown[]): OwnerEntry {
  const fileid = fileidOf(row[0], 'table owner');
  const where = `table owner ${fileid}`;
  const verifier = row[12];
  if (!(verifier instanceof Uint8Array) || verifier.byteLength !== OBJECT_VERIFIER_BYTES) {
    return corrupt(where, `verifier is not ${OBJECT_VERIFIER_BYTES} bytes`);
  }
  const counter = integerOf(row[5], 0, Number.MAX_SAFE_INTEGER, where, 'counter');
  const moving = jsonOf(row[9], where, 'moving');
  const receiver = moving === null ? undefined : recordOf(moving, where, 'moving')['receiver'];
  const entry: OwnerEntry = {
    owner: {
      fileid,
      uuid: patternOf(row[1], HEX_32, where, 'uuid') as ObjectUuid,
      router: patternOf(row[2], HEX_32, where, 'router') as RouterId,
      incarnation: patternOf(row[3], HEX_32, where, 'incarnation') as Incarnation,
      term: {
        generation: integerOf(row[4], 0, Number.MAX_SAFE_INTEGER, where, 'generation'),
        counter,
        nonce: patternOf(row[6], HEX_16, where, 'nonce'),
      },
      state: stateFromJson(jsonOf(row[8], where, 'state'), where),
      moving: movingFromJson(moving, where),
      root: rootFromJson(jsonOf(row[10], where, 'root'), where),
      protection: protectionFromJson(jsonOf(row[11], where, 'protection'), where),
      verifier,
    },
    counterMax: integerOf(row[7], counter, Number.MAX_SAFE_INTEGER, where, 'counter_max'),
    ...(receiver === undefined ? {} : { receiver: patternOf(receiver, HEX_32, where, 'receiver') as Incarnation }),
  };
  checkRow(row, 0, OWNER_COLUMN_COUNT, where);
  return entry;
}

/** Values in the order of OWNER_COLUMNS. */
export function ownerValues(entry: OwnerEntry): (number | string | Uint8Array)[] {
  const { owner } = entry;
  return [
    owner.fileid,
    owner.uuid,
    owner.router,
    owner.incarnation,
    owner.term.generation,
    owner.term.counter,
    owner.term.nonce,
    entry.counterMax,
    JSON.stringify(jsonFromState(owner.state)),
    JSON.stringify(owner.moving === null ? null : { ...jsonFromMoving(owner.moving), receiver: entry.receiver }),
    JSON.stringify(jsonFromRoot(owner.root)),
    JSON.stringify(jsonFromProtection(owner.protection)),
    owner.verifier,
  ];
}

const ROUTER_COLUMN_COUNT = 6;
export const ROUTER_COLUMNS = 'id, incarnation, addresses, version, lease_counter, dead';

/** A router record from the columns ROUTER_COLUMNS and crc. @throws ApplianceError `registry-corrupt`. */
export function routerFromRow(row: readonly unknown[]): RouterRecord {
  const where = `table router ${String(row[0])}`;
  checkRow(row, 0, ROUTER_COLUMN_COUNT, where);
  return routerFromJson(
    {
      id: row[0],
      incarnation: row[1],
      addresses: jsonOf(row[2], where, 'addresses'),
      version: row[3],
      leaseCounter: row[4],
      dead: row[5] === 1,
    },
    where,
  );
}

/** Values in the order of ROUTER_COLUMNS. */
export function routerValues(router: RouterRecord): (number | string)[] {
  return [router.id, router.incarnation, JSON.stringify(router.addresses), router.version, router.leaseCounter, router.dead ? 1 : 0];
}
