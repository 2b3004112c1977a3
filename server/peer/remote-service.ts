/** PeerService of another router: each method becomes a call. */
import type { Clock } from '../core/time.ts';
import type { PeerService } from '../object-router/peer-port.ts';
import type { Answers } from './answer-codec.ts';
import { FrameKind } from './frame.ts';
import { PeerCall } from './peer-call.ts';
import type { PeerRequest } from './request-codec.ts';

/** The PeerService that makes `PeerCall`s and hands them to `send`. */
export function remoteService(clock: Clock, send: (call: PeerCall) => void): PeerService {
  function call<R extends PeerRequest>(request: R, into: Buffer | null = null): Promise<Answers[R['kind']]> {
    return new Promise((resolve, reject) => {
      send(new PeerCall(request, into, clock.monotonicMs(), { answered: resolve, failed: reject }));
    });
  }
  return {
    getattr: (target) => call({ kind: FrameKind.GETATTR, target }),
    attributesOf: (targets) => call({ kind: FrameKind.ATTRIBUTES_OF, targetsCount: targets.length, targets }),
    read: (target, caller, offsetBytes, into) => call({ kind: FrameKind.READ, target, caller, offsetBytes, countBytes: into.length }, into),
    write: (target, caller, offsetBytes, countBytes, chunks, stability) =>
      call({ kind: FrameKind.WRITE, target, caller, offsetBytes, stability, countBytes, chunks }),
    startRead: (target, caller, offsetBytes, into, end) =>
      send(new PeerCall({ kind: FrameKind.READ, target, caller, offsetBytes, countBytes: into.length }, into, clock.monotonicMs(), end)),
    startWrite: (target, caller, offsetBytes, countBytes, chunks, stability, payloadCrc, end) =>
      send(
        new PeerCall(
          { kind: FrameKind.WRITE, target, caller, offsetBytes, stability, countBytes, chunks },
          null,
          clock.monotonicMs(),
          end,
          payloadCrc,
        ),
      ),
    commit: (target, caller) => call({ kind: FrameKind.COMMIT, target, caller }),
    setattr: (target, caller, changes, guardCtime) => call({ kind: FrameKind.SETATTR, target, caller, changes, guardCtime }),
    inodeChanged: (fileid) => call({ kind: FrameKind.INODE_CHANGED, fileid }),
    moveAsk: (target, from, nonce, reason) => call({ kind: FrameKind.MOVE_ASK, target, from, nonce, reason }),
    moveFetch: (fileid, attempt, from, bytesMax, waitMs) => call({ kind: FrameKind.MOVE_FETCH, fileid, attempt, from, bytesMax, waitMs }),
    moveFreeze: (fileid, attempt, from) => call({ kind: FrameKind.MOVE_FREEZE, fileid, attempt, from }),
    moveConfirm: (fileid, attempt, lastSequence) => call({ kind: FrameKind.MOVE_CONFIRM, fileid, attempt, lastSequence }),
    moveAbort: (fileid, attempt, reason) => call({ kind: FrameKind.MOVE_ABORT, fileid, attempt, reason }),
    moveOffer: (target, from, reason) => call({ kind: FrameKind.MOVE_OFFER, target, from, reason }),
  };
}
