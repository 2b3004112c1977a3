/** What peers find here: the objects' service and the moves, once both are there. Until then, and again when the router stops, every call is refused as unavailable. */
import { ApplianceError } from '../core/errors.ts';
import type { FileId, RouterId, Term } from '../core/ids.ts';
import type { Timestamp } from '../core/time.ts';
import type { SetAttributes, Stability } from '../nfsd/file-system.ts';
import type { FollowPosition, MoveReason, ObjectTarget, PeerCaller, PeerService } from './peer-port.ts';

type Answer<Method extends keyof PeerService> = ReturnType<NonNullable<PeerService[Method]>>;
type MoveCalls = Pick<PeerService, 'moveAsk' | 'moveFetch' | 'moveFreeze' | 'moveConfirm' | 'moveAbort' | 'moveOffer'>;

export class PeerDesk implements PeerService {
  #objects: Omit<PeerService, keyof MoveCalls> | null = null;
  #moves: MoveCalls | null = null;

  open(objects: Omit<PeerService, keyof MoveCalls>, moves: MoveCalls): void {
    this.#objects = objects;
    this.#moves = moves;
  }

  close(): void {
    this.#objects = null;
    this.#moves = null;
  }

  #object(): Omit<PeerService, keyof MoveCalls> {
    return this.#objects ?? closed();
  }

  #move(): MoveCalls {
    return this.#moves ?? closed();
  }

  getattr(target: ObjectTarget): Answer<'getattr'> {
    return this.#object().getattr(target);
  }
  attributesOf(targets: readonly ObjectTarget[]): Answer<'attributesOf'> {
    return this.#object().attributesOf(targets);
  }
  read(target: ObjectTarget, caller: PeerCaller, offsetBytes: number, into: Buffer): Answer<'read'> {
    return this.#object().read(target, caller, offsetBytes, into);
  }
  write(
    target: ObjectTarget,
    caller: PeerCaller,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stability: Stability,
  ): Answer<'write'> {
    return this.#object().write(target, caller, offsetBytes, countBytes, chunks, stability);
  }
  commit(target: ObjectTarget, caller: PeerCaller): Answer<'commit'> {
    return this.#object().commit(target, caller);
  }
  setattr(target: ObjectTarget, caller: PeerCaller, changes: SetAttributes, guardCtime: Timestamp | null): Answer<'setattr'> {
    return this.#object().setattr(target, caller, changes, guardCtime);
  }
  async inodeChanged(fileid: FileId): Promise<void> {
    await this.#object().inodeChanged(fileid);
  }

  async moveAsk(target: ObjectTarget, from: RouterId, nonce: string, reason: MoveReason): Answer<'moveAsk'> {
    return this.#move().moveAsk(target, from, nonce, reason);
  }
  async moveFetch(fileid: FileId, attempt: Term, from: FollowPosition, bytesMax: number, waitMs: number): Answer<'moveFetch'> {
    return this.#move().moveFetch(fileid, attempt, from, bytesMax, waitMs);
  }
  async moveFreeze(fileid: FileId, attempt: Term, from: FollowPosition): Answer<'moveFreeze'> {
    return this.#move().moveFreeze(fileid, attempt, from);
  }
  async moveConfirm(fileid: FileId, attempt: Term, lastSequence: number): Answer<'moveConfirm'> {
    return this.#move().moveConfirm(fileid, attempt, lastSequence);
  }
  async moveAbort(fileid: FileId, attempt: Term, reason: string): Promise<void> {
    await this.#move().moveAbort(fileid, attempt, reason);
  }
  async moveOffer(target: ObjectTarget, from: RouterId, reason: MoveReason): Answer<'moveOffer'> {
    return this.#move().moveOffer(target, from, reason);
  }
}

function closed(): never {
  throw new ApplianceError('peer-unavailable', 'the router is starting or stopping', { retryable: true });
}
