/** Counts the calls to objects that go through a PeerService, in one direction. The calls of moves are counted where moves are. */
import { assert } from '../core/assert.ts';
import type { ForwardDirection, ForwardKind, ForwardObserver, ForwardOutcome } from '../core/cluster-observer.ts';
import { errorCode } from '../core/errors.ts';
import type { FileId, RouterId, Term } from '../core/ids.ts';
import { isPending } from '../core/maybe-promise.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { Clock, Timestamp } from '../core/time.ts';
import { Status } from '../nfsd/file-system.ts';
import type { ReadAnswer, SetAttributes, Stability, WriteAnswer } from '../nfsd/file-system.ts';
import type { CallEnd, Forwarded, FollowPosition, MoveReason, ObjectTarget, PeerCaller, PeerService } from './peer-port.ts';

type Answer<Method extends keyof PeerService> = ReturnType<NonNullable<PeerService[Method]>>;

export class MeteredPeer implements PeerService {
  readonly #inner: PeerService;
  readonly #observer: ForwardObserver;
  readonly #clock: Clock;
  readonly #direction: ForwardDirection;

  constructor(inner: PeerService, observer: ForwardObserver, clock: Clock, direction: ForwardDirection) {
    this.#inner = inner;
    this.#observer = observer;
    this.#clock = clock;
    this.#direction = direction;
  }

  #meter<T>(
    kind: ForwardKind,
    payloadBytes: number,
    call: () => MaybePromise<T>,
    outcomeOf: (answer: T) => ForwardOutcome,
    startedMs = this.#clock.monotonicMs(),
  ): MaybePromise<T> {
    const ended = (outcome: ForwardOutcome): void =>
      this.#observer.forwarded(kind, this.#direction, outcome, this.#clock.monotonicMs() - startedMs, payloadBytes);
    const failed = (error: unknown): never => {
      ended(errorCode(error) === 'peer-unavailable' ? 'unavailable' : 'failed');
      throw error;
    };
    let answer: MaybePromise<T>;
    try {
      answer = call();
    } catch (error) {
      return failed(error);
    }
    if (isPending(answer)) {
      return answer.then((value) => {
        ended(outcomeOf(value));
        return value;
      }, failed);
    }
    ended(outcomeOf(answer));
    return answer;
  }

  getattr(target: ObjectTarget): Answer<'getattr'> {
    return this.#meter('getattr', 0, () => this.#inner.getattr(target), outcomeOfForwarded);
  }
  attributesOf(targets: readonly ObjectTarget[]): Answer<'attributesOf'> {
    return this.#meter('attributes', 0, () => this.#inner.attributesOf(targets), done);
  }
  read(target: ObjectTarget, caller: PeerCaller, offsetBytes: number, into: Buffer): Answer<'read'> {
    const startedMs = this.#clock.monotonicMs();
    const answer = this.#inner.read(target, caller, offsetBytes, into);
    if (isPending(answer)) return this.#meter('read', into.length, () => answer, outcomeOfForwarded, startedMs);
    this.#observer.forwarded('read', this.#direction, outcomeOfForwarded(answer), this.#clock.monotonicMs() - startedMs, into.length);
    return answer;
  }
  write(
    target: ObjectTarget,
    caller: PeerCaller,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stability: Stability,
  ): Answer<'write'> {
    return this.#meter('write', countBytes, () => this.#inner.write(target, caller, offsetBytes, countBytes, chunks, stability), outcomeOfForwarded);
  }
  startRead(target: ObjectTarget, caller: PeerCaller, offsetBytes: number, into: Buffer, end: CallEnd<Forwarded<ReadAnswer>>): void {
    const metered = new MeteredEnd('read', this.#direction, into.length, this.#observer, this.#clock, end);
    assert(this.#inner.startRead !== undefined, 'a peer that cannot be asked without a promise');
    this.#inner.startRead(target, caller, offsetBytes, into, metered);
  }
  startWrite(
    target: ObjectTarget,
    caller: PeerCaller,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stability: Stability,
    payloadCrc: number,
    end: CallEnd<Forwarded<WriteAnswer>>,
  ): void {
    const metered = new MeteredEnd('write', this.#direction, countBytes, this.#observer, this.#clock, end);
    assert(this.#inner.startWrite !== undefined, 'a peer that cannot be asked without a promise');
    this.#inner.startWrite(target, caller, offsetBytes, countBytes, chunks, stability, payloadCrc, metered);
  }
  commit(target: ObjectTarget, caller: PeerCaller): Answer<'commit'> {
    return this.#meter('commit', 0, () => this.#inner.commit(target, caller), outcomeOfForwarded);
  }
  setattr(target: ObjectTarget, caller: PeerCaller, changes: SetAttributes, guardCtime: Timestamp | null): Answer<'setattr'> {
    return this.#meter('setattr', 0, () => this.#inner.setattr(target, caller, changes, guardCtime), outcomeOfForwarded);
  }
  async inodeChanged(fileid: FileId): Promise<void> {
    await this.#meter('inode-changed', 0, () => this.#inner.inodeChanged(fileid), done);
  }

  moveAsk(target: ObjectTarget, from: RouterId, nonce: string, reason: MoveReason): Answer<'moveAsk'> {
    return this.#inner.moveAsk(target, from, nonce, reason);
  }
  moveFetch(fileid: FileId, attempt: Term, from: FollowPosition, bytesMax: number, waitMs: number): Answer<'moveFetch'> {
    return this.#inner.moveFetch(fileid, attempt, from, bytesMax, waitMs);
  }
  moveFreeze(fileid: FileId, attempt: Term, from: FollowPosition): Answer<'moveFreeze'> {
    return this.#inner.moveFreeze(fileid, attempt, from);
  }
  moveConfirm(fileid: FileId, attempt: Term, lastSequence: number): Answer<'moveConfirm'> {
    return this.#inner.moveConfirm(fileid, attempt, lastSequence);
  }
  moveAbort(fileid: FileId, attempt: Term, reason: string): Promise<void> {
    return this.#inner.moveAbort(fileid, attempt, reason);
  }
  moveOffer(target: ObjectTarget, from: RouterId, reason: MoveReason): Answer<'moveOffer'> {
    return this.#inner.moveOffer(target, from, reason);
  }
}

/** Counts a call when it has ended. */
class MeteredEnd<T extends { readonly status: number }> implements CallEnd<Forwarded<T>> {
  readonly #kind: ForwardKind;
  readonly #direction: ForwardDirection;
  readonly #payloadBytes: number;
  readonly #observer: ForwardObserver;
  readonly #clock: Clock;
  readonly #end: CallEnd<Forwarded<T>>;
  readonly #startedMs: number;

  constructor(
    kind: ForwardKind,
    direction: ForwardDirection,
    payloadBytes: number,
    observer: ForwardObserver,
    clock: Clock,
    end: CallEnd<Forwarded<T>>,
  ) {
    this.#kind = kind;
    this.#direction = direction;
    this.#payloadBytes = payloadBytes;
    this.#observer = observer;
    this.#clock = clock;
    this.#end = end;
    this.#startedMs = clock.monotonicMs();
  }

  answered(answer: Forwarded<T>): void {
    this.#ended(outcomeOfForwarded(answer));
    this.#end.answered(answer);
  }

  failed(error: Error): void {
    this.#ended(errorCode(error) === 'peer-unavailable' ? 'unavailable' : 'failed');
    this.#end.failed(error);
  }

  #ended(outcome: ForwardOutcome): void {
    this.#observer.forwarded(this.#kind, this.#direction, outcome, this.#clock.monotonicMs() - this.#startedMs, this.#payloadBytes);
  }
}

function done(): ForwardOutcome {
  return 'done';
}

function outcomeOfForwarded(answer: Forwarded<{ readonly status: number }>): ForwardOutcome {
  if (answer.kind === 'not-owner') return 'not-owner';
  return answer.result.status === Status.OK ? 'done' : 'failed';
}
