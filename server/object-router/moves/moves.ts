/**
 * Everything that changes the owner of an object on purpose: moves in both directions, their policy, drain, takeover, the reconciler. One per router of a
 * cluster; the object-router forwards its peers' calls here and tells it of what it forwarded.
 */
import type { MoveObserver } from '../../core/cluster-observer.ts';
import { isEnvironmentError } from '../../core/errors.ts';
import type { FileId, RouterId, Term } from '../../core/ids.ts';
import type { FrozenEnd, MovePart, FollowPosition, MoveAnswer, MoveOutcome, MoveReason, ObjectTarget, OwnerHint, PeerService } from '../peer-port.ts';
import type { CededJournal } from './ceded-journal.ts';
import { Drain, NO_DRAIN } from './drain.ts';
import type { DrainState } from './drain.ts';
import { MoveGiver } from './move-giver.ts';
import { MoveHistory } from './move-history.ts';
import type { MoveSettings, MoveSurroundings } from './move-host.ts';
import { MovePolicy } from './move-policy.ts';
import { MoveReceiver } from './move-receiver.ts';
import type { MoveOrder, Received } from './move-receiver.ts';
import type { Pins } from './pins.ts';
import { Reconciler } from './reconciler.ts';
import { Takeover } from './takeover.ts';

const TICK_MS = 1_000;
/** Moves by themselves wait for their turn. */
const BUSY_MS = 250;

type MoveCalls = Pick<PeerService, 'moveAsk' | 'moveFetch' | 'moveFreeze' | 'moveConfirm' | 'moveAbort' | 'moveOffer'>;

export class Moves implements MoveCalls {
  readonly history: MoveHistory;
  readonly giver: MoveGiver;
  readonly receiver: MoveReceiver;
  readonly policy: MovePolicy;
  readonly pins: Pins;
  readonly journal: CededJournal;
  readonly takeover: Takeover;
  readonly reconciler: Reconciler;
  readonly #around: MoveSurroundings;
  readonly #settings: MoveSettings;
  /** Crossed a threshold and wait to be looked at. */
  readonly #candidates = new Set<FileId>();
  #drain: Drain | null = null;
  #stopTicks: (() => void) | null = null;
  #closed = false;

  /** `journal` and `pins` are closed by who opened them. */
  constructor(
    around: MoveSurroundings,
    parts: { readonly journal: CededJournal; readonly pins: Pins; readonly observer?: MoveObserver },
    settings: MoveSettings,
  ) {
    this.#around = around;
    this.#settings = settings;
    this.journal = parts.journal;
    this.pins = parts.pins;
    this.history = new MoveHistory(around.clock, around.logger, parts.observer ?? null);
    this.policy = new MovePolicy(around.clock, settings, (fileid) => parts.pins.has(fileid));
    this.giver = new MoveGiver(
      around,
      { journal: parts.journal, history: this.history, policy: (object, _asker, reason) => this.policy.mayGive(object, reason) },
      settings,
    );
    this.receiver = new MoveReceiver(around, this.history);
    this.takeover = new Takeover(around, this.history, parts.journal);
    this.reconciler = new Reconciler(around, (fileid) => this.giver.isGiving(fileid) || this.receiver.isReceiving(fileid));
    this.history.onEnd((record) => {
      if (record.phase === 'moved') this.policy.moved(record.fileid);
    });
  }

  /** Begins the periodic work. */
  start(): void {
    this.reconciler.start();
    this.#tick();
  }

  #tick(): void {
    this.#stopTicks = this.#around.clock.after(TICK_MS, () => {
      if (this.#closed) return;
      this.policy.decay(this.#around.host.all());
      this.#tick();
    });
  }

  /** Ends what runs: attempts end, switches are waited for. To be called while registry and peers still work. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#stopTicks?.();
    await Promise.all([this.#drain?.stop(), this.reconciler.stop(), this.giver.close(), this.receiver.close()]);
  }

  /** Begins to give everything away, or goes on with it. */
  drain(): void {
    if (this.#drain !== null || this.#closed) return;
    this.#drain = new Drain(this.#around, this.giver, this.history, this.#settings.movesMax);
    this.#drain.start();
  }

  /** Ends a drain; moves that it began are aborted where that is still possible. */
  async undrain(): Promise<void> {
    const drain = this.#drain;
    if (drain === null) return;
    const stopped = drain.stop();
    for (const move of this.history.running()) if (move.reason === 'drain') await this.giver.cancel(move.id, 'the drain was ended');
    await stopped;
    this.#drain = null;
  }

  get drainState(): DrainState {
    return this.#drain?.state ?? NO_DRAIN;
  }

  /** Ends a running move by the id in its record; the giver goes on. False: there is none, or the owner changes already. */
  async cancel(id: string): Promise<boolean> {
    const reason = 'it was cancelled by an operator';
    return this.receiver.cancel(id, reason) || (await this.giver.cancel(id, reason));
  }

  /** A forwarded READ or WRITE was answered. Returns at once: whether the object is asked for is decided outside of the I/O. */
  forwarded(object: { readonly fileid: FileId; readonly inodeGeneration: number }, kind: 'read' | 'write', hint: OwnerHint): void {
    if (!this.policy.count(object, kind, hint) || this.#closed || this.#candidates.has(object.fileid)) return;
    this.#candidates.add(object.fileid);
    this.#around.clock.soon(() => {
      this.#consider(object.fileid)
        .catch((error: unknown) => {
          if (!isEnvironmentError(error)) throw error;
          this.policy.refused(object.fileid);
        })
        .finally(() => this.#candidates.delete(object.fileid));
    });
  }

  async #consider(fileid: FileId): Promise<void> {
    if (!this.willReceive || this.receiver.isReceiving(fileid) || this.giver.isGiving(fileid)) {
      this.policy.postpone(fileid, BUSY_MS);
      return;
    }
    const inode = await this.#around.registry.namespace.inode(fileid, null);
    const candidate = inode === null ? null : this.policy.candidate(fileid, inode.class);
    if (candidate === null) {
      this.policy.postpone(fileid, BUSY_MS);
      return;
    }
    const { hint, inodeGeneration } = candidate;
    const received = await this.receive({ fileid, inodeGeneration, owner: hint.router, term: hint.term, reason: 'io' });
    if (received.kind === 'refused') this.policy.refused(fileid);
  }

  /** Whether this router takes another object now. */
  get willReceive(): boolean {
    return !this.#closed && this.#drain === null && this.receiver.running < this.#settings.movesMax;
  }

  /** As MoveReceiver.receive. Refused while this router does not know yet that the object, which it gave away, has arrived: it would let go of what comes back. */
  receive(order: MoveOrder): Promise<Received> {
    if (this.giver.isGiving(order.fileid)) return Promise.resolve({ kind: 'refused', reason: 'it is being given away here', retryable: true });
    return this.receiver.receive(order);
  }

  /** See MoveReceiver.receiving. */
  receiving(fileid: FileId): Promise<void> | null {
    return this.receiver.receiving(fileid);
  }

  moveAsk(target: ObjectTarget, from: RouterId, nonce: string, reason: MoveReason): Promise<MoveAnswer> {
    return this.giver.moveAsk(target, from, nonce, reason);
  }
  moveFetch(fileid: FileId, attempt: Term, from: FollowPosition, bytesMax: number, waitMs: number): Promise<MovePart | null> {
    return this.giver.moveFetch(fileid, attempt, from, bytesMax, waitMs);
  }
  moveFreeze(fileid: FileId, attempt: Term, from: FollowPosition): Promise<FrozenEnd | null> {
    return this.giver.moveFreeze(fileid, attempt, from);
  }
  moveConfirm(fileid: FileId, attempt: Term, lastSequence: number): Promise<MoveOutcome> {
    return this.giver.moveConfirm(fileid, attempt, lastSequence);
  }
  moveAbort(fileid: FileId, attempt: Term, reason: string): Promise<void> {
    return this.giver.moveAbort(fileid, attempt, reason);
  }

  async moveOffer(target: ObjectTarget, from: RouterId, reason: MoveReason): Promise<boolean> {
    if (!this.willReceive) return false;
    const { fileid, inodeGeneration, term } = target;
    this.receive({ fileid, inodeGeneration, owner: from, term, reason }).catch((error: unknown) => {
      throw error;
    });
    return true;
  }
}
