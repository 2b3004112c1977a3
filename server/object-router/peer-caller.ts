/** A client's call as one router tells another of it, and back. */
import { assert } from '../core/assert.ts';
import type { Caller } from '../nfsd/file-system.ts';
import type { PeerCaller } from './peer-port.ts';

/** What is sent of a caller. `operationId`: '' for what changes nothing. */
export function peerCaller(caller: Caller, operationId: string): PeerCaller {
  const { uid, gid, gids, address } = caller;
  return { uid, gid, gids, address, operationId };
}

/** The client of another router as a Caller here. */
export function forwardedCaller(from: PeerCaller): Caller {
  const { uid, gid, gids, address, operationId } = from;
  return {
    uid,
    gid,
    gids,
    address,
    operationId: () => operationId,
    writeIdentity: () => assert(false, 'a forwarded WRITE brings its identity'),
  };
}
