/** A client's call as one router tells another of it, and back. */
import { assert } from '../core/assert.ts';
import type { Caller } from '../nfsd/file-system.ts';
import type { PeerCaller } from './peer-port.ts';

/** What is sent of a caller. `operationId`: '' for what changes nothing. */
export function peerCaller(caller: Caller, operationId: string): PeerCaller {
  const { uid, gid, gids, address } = caller;
  return { uid, gid, gids, address, operationId };
}

/** Clients repeat themselves: the last one as PeerCaller, for what changes nothing. */
export class PeerCallers {
  #last: PeerCaller | null = null;

  of(caller: Caller): PeerCaller {
    const last = this.#last;
    if (last !== null && last.uid === caller.uid && last.gid === caller.gid && last.gids === caller.gids && last.address === caller.address)
      return last;
    this.#last = peerCaller(caller, '');
    return this.#last;
  }
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
    writeIdentity: () => {
      assert(false, 'a forwarded WRITE brings its identity');
    },
  };
}
