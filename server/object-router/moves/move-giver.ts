/**
 * Gives objects away: the owner's side of a move (design section 10). Implements the move* part of PeerService but moveOffer.
 *
 * One attempt per object. Whatever fails before the registry is asked to change the owner ends the attempt, and the object is served as before. It is asked
 * only when the journal says so, durably; from then on the term E is never served again here: either the registry says that the owner changed, or, once it says
 * that it did not, a new term is claimed, which a change that is still on its way cannot overtake.
 */
import type { Mutation, OwnerRecord } from '../../../registry/ports.ts';
import { ApplianceError, isEnvironmentError } from '../../core/errors.ts';
import { failPoint, reached } from '../../core/fail-points.ts';
import type { FileId, Incarnation, RouterId, Term } from '../../core/ids.ts';
import { compareEpoch, sameTerm } from '../../core/ids.ts';
import { timestampOf } from '../../core/time.ts';
import type { MoveSource } from '../driver-port.ts';
import { CALLS_BYTES_MAX, HOLD_MS_MAX } from '../peer-port.ts';
import type { FollowPosition, FrozenEnd, LogPieces, MoveAnswer, MoveOutcome, MovePart, MoveReason, ObjectTarget, PeerService } from '../peer-port.ts';
import type { CededJournal } from './ceded-journal.ts';
import { within } from './deadline.ts';
import { GivenObjects } from './given-objects.ts';
import type { MoveHistory, RunningMove } from './move-history.ts';
import type { MovableObject, MoveSurroundings, ObjectHold } from './move-host.ts';

/** An asker that fetches nothing for so long is gone. */
const SILENT_MS_MAX = 10_000;
const WATCH_MS = 1_000;
/** What must be left of the lease when the owner changes: the answer must arrive within it. */
const LEASE_MS_MIN = 3_000;
/** The registry is asked for a sign of life when the last one is older. */
const CONFIRMED_MS_MAX = 100;
const CONFIRM_WAIT_MS = 250;
const RESOLVE_MS_FIRST = 20;
const RESOLVE_MS_MAX = 500;
/** How long after its confirmation is a change of owner refused by the registry if it comes late. */
const TRANSFER_MS_MAX = 10_000;
const OUTCOMES_MAX = 256;
/** Of the memory of completed calls that goes with one part of the log: what takes the receiver about a millisecond. */
const CALLS_PART_BYTES = 64 * 1024;
/** Of the log's end that comes with the answer to the freeze; what is left is fetched. */
const REST_BYTES_MAX = 1024 * 1024;

/** The answer of moveAsk when the object was closed and nothing of it is only here: the asker owns it already. */
export const GIVEN_BY_RECORD = 'given: all of it is on the backend';

/** Decides whether an object may be given away; made by the policy. Null: it may. */
export type GivePolicy = (
  object: MovableObject,
  asker: RouterId,
  reason: MoveReason,
) => { readonly reason: string; readonly retryable: boolean } | null;

interface Attempt {
  readonly object: MovableObject;
  readonly source: MoveSource;
  /** With `moving`. */
  readonly owner: OwnerRecord;
  readonly number: Term;
  readonly to: RouterId;
  readonly toIncarnation: Incarnation;
  readonly move: RunningMove;
  phase: 'copying' | 'freezing' | 'frozen' | 'switching' | 'over';
  lastProgressMs: number;
  hold: ObjectHold | null;
  heldFromMs: number;
  frozenAtMs: number;
  freezing: Promise<FrozenEnd | null> | null;
  /** The entry in the journal that says that it may be the receiver's; settles with what went wrong, or null. */
  ceding: Promise<Error | null> | null;
  frozen: FrozenEnd | null;
  /** The term that ends wrote something: its epoch is to be closed. */
  termWrote: boolean;
  switching: Promise<MoveOutcome> | null;
  ending: Promise<void> | null;
  cancelTimer: () => void;
}

type Transferred = { readonly kind: 'moved'; readonly owner: OwnerRecord } | { readonly kind: 'stays' };

export class MoveGiver implements Pick<PeerService, 'moveAsk' | 'moveFetch' | 'moveFreeze' | 'moveConfirm' | 'moveAbort'> {
  readonly #around: MoveSurroundings;
  readonly #journal: CededJournal;
  readonly #history: MoveHistory;
  readonly #policy: GivePolicy;
  readonly #movesMax: number;
  readonly #attempts = new Map<FileId, Attempt>();
  /** Asked for and not decided yet. */
  readonly #deciding = new Set<FileId>();
  /** How the last attempts ended, for who asks again: by `fileid counter nonce`. */
  readonly #outcomes = new Map<string, MoveOutcome>();
  readonly #given: GivenObjects;
  #closed = false;

  constructor(
    around: MoveSurroundings,
    parts: { readonly journal: CededJournal; readonly history: MoveHistory; readonly policy: GivePolicy },
    settings: { readonly movesMax: number },
  ) {
    this.#around = around;
    this.#journal = parts.journal;
    this.#history = parts.history;
    this.#policy = parts.policy;
    this.#movesMax = settings.movesMax;
    this.#given = new GivenObjects(around.clock);
  }

  /** Moves that are being given. */
  get running(): number {
    return this.#attempts.size + this.#deciding.size;
  }

  isGiving(fileid: FileId): boolean {
    return this.#attempts.has(fileid) || this.#deciding.has(fileid);
  }

  async moveAsk(target: ObjectTarget, from: RouterId, nonce: string, reason: MoveReason): Promise<MoveAnswer> {
    const { fileid } = target;
    const running = this.#attempts.get(fileid);
    if (running !== undefined && running.to === from && running.phase !== 'switching') await this.#end(running, 'the receiver began anew');
    if (this.isGiving(fileid)) return refused('it is being given away already', true);
    if (this.#closed) return refused('this router is stopping', true);
    if (this.running >= this.#movesMax) return refused(`${this.running} moves run already, and no more at a time (cluster.movesMax)`, true);
    this.#deciding.add(fileid);
    try {
      return await this.#decide(target, from, nonce, reason);
    } catch (error) {
      if (!isEnvironmentError(error)) throw error;
      return refused(error.message, true);
    } finally {
      this.#deciding.delete(fileid);
    }
  }

  async #decide(target: ObjectTarget, from: RouterId, nonce: string, reason: MoveReason): Promise<MoveAnswer> {
    const { fileid } = target;
    const { host, registry, members, self } = this.#around;
    failPoint('move.give-asked');
    const asker = members.get(from);
    if (from === self.router || asker === null || asker.dead || members.isDead(from, asker.incarnation)) {
      return refused(`router ${from} is no living member of the cluster`, true);
    }
    const weak = this.#weakness();
    if (weak !== null) return refused(weak, true);
    let object = host.served(fileid);
    if (object === undefined) {
      const owner = await registry.ownership.owner(fileid);
      if (owner === null || owner.router !== self.router) return refused('it is not owned here', true);
      if (reason !== 'io' && owner.incarnation === self.incarnation && owner.protection.kind === 'clean') {
        const given = await this.#giveRecord(fileid, from, asker.incarnation, nonce, reason);
        if (given !== null) return given;
      }
      object = (await host.open(fileid)) ?? undefined;
    }
    if (object === undefined || object.unlinked) return refused('it was removed', false);
    const refusal = this.#policy(object, from, reason);
    if (refusal !== null) return { kind: 'refused', ...refusal };
    return await this.#begin(object, from, asker.incarnation, nonce, reason);
  }

  async #begin(object: MovableObject, to: RouterId, toIncarnation: Incarnation, nonce: string, reason: MoveReason): Promise<MoveAnswer> {
    const { host, clock, self, registry } = this.#around;
    const { fileid, term } = object.driven;
    // Before the record is read: from here on the root only grows by uploads, which the receiver may have twice.
    const source = await object.driven.giveAway();
    try {
      const reserved = await registry.ownership.beginMove(this.#mutation(), fileid, term, to, nonce);
      failPoint('move.give-reserved');
      const number = reserved.kind === 'done' ? reserved.owner.moving?.attempt : undefined;
      if (reserved.kind !== 'done' || number === undefined || host.served(fileid) !== object || object.unlinked || this.#closed) {
        source.thaw();
        return refused(reserved.kind === 'gone' ? 'it was removed' : 'it changed hands meanwhile', reserved.kind !== 'gone');
      }
      const move = this.#history.begin({ role: 'giver', fileid, from: self.router, to, reason });
      this.#history.agreed(move);
      move.behindBytes = source.offer.behindBytes;
      const attempt: Attempt = {
        object,
        source,
        owner: reserved.owner,
        number,
        to,
        toIncarnation,
        move,
        phase: 'copying',
        lastProgressMs: clock.monotonicMs(),
        hold: null,
        heldFromMs: 0,
        frozenAtMs: 0,
        freezing: null,
        ceding: null,
        frozen: null,
        termWrote: true,
        switching: null,
        ending: null,
        cancelTimer: () => undefined,
      };
      this.#attempts.set(fileid, attempt);
      this.#watch(attempt);
      return { kind: 'offer', offer: { ...source.offer, owner: reserved.owner } };
    } catch (error) {
      source.thaw();
      throw error;
    }
  }

  /** Ends the attempt when its asker falls silent or dies. */
  #watch(attempt: Attempt): void {
    const { clock, members } = this.#around;
    attempt.cancelTimer = clock.after(WATCH_MS, () => {
      if (attempt.phase !== 'copying') return;
      if (members.isDead(attempt.to, attempt.toIncarnation)) this.#endInBackground(attempt, `router ${attempt.to} died`);
      else if (clock.monotonicMs() - attempt.lastProgressMs > SILENT_MS_MAX) {
        this.#endInBackground(attempt, `router ${attempt.to} asked for nothing for ${SILENT_MS_MAX} ms`);
      } else this.#watch(attempt);
    });
  }

  #find(fileid: FileId, number: Term): Attempt | null {
    const attempt = this.#attempts.get(fileid);
    return attempt !== undefined && sameTerm(attempt.number, number) ? attempt : null;
  }

  async moveFetch(fileid: FileId, number: Term, from: FollowPosition, bytesMax: number, waitMs: number): Promise<MovePart | null> {
    const attempt = this.#find(fileid, number);
    if (attempt === null) return await this.#given.read(fileid, number, from, bytesMax);
    if (attempt.phase === 'over' || attempt.phase === 'switching') return null;
    const { clock, host } = this.#around;
    attempt.lastProgressMs = clock.monotonicMs();
    if (attempt.move.phase === 'preparing') attempt.move.phase = 'copying';
    let got: LogPieces;
    try {
      got = await attempt.source.read(from, bytesMax, waitMs);
    } catch (error) {
      if (!isEnvironmentError(error)) throw error;
      await this.#end(attempt, `its log cannot be read: ${error.message}`);
      return null;
    }
    if (isOver(attempt)) return null;
    attempt.lastProgressMs = clock.monotonicMs();
    for (const piece of got.pieces) attempt.move.copiedBytes += piece.bytes.length;
    attempt.move.behindBytes = got.behindBytes;
    noteSlowed(attempt);
    return { ...got, calls: host.calls(fileid, from.calls, CALLS_PART_BYTES) };
  }

  async moveFreeze(fileid: FileId, number: Term, from: FollowPosition): Promise<FrozenEnd | null> {
    const attempt = this.#find(fileid, number);
    if (attempt === null || attempt.phase === 'over' || attempt.phase === 'switching') return null;
    attempt.freezing ??= this.#freeze(attempt, from);
    return await attempt.freezing;
  }

  async #freeze(attempt: Attempt, from: FollowPosition): Promise<FrozenEnd | null> {
    const { host, clock } = this.#around;
    const { fileid } = attempt.object.driven;
    attempt.phase = 'freezing';
    attempt.move.phase = 'switching';
    attempt.cancelTimer();
    try {
      failPoint('move.give-before-freeze');
      const weak = this.#weakness();
      if (weak !== null) return await this.#endWith(attempt, weak);
      await attempt.move.measure('registry', () => this.#confirmRegistry(attempt));
      if (isOver(attempt)) return null;
      attempt.heldFromMs = clock.monotonicMs();
      const hold = host.hold(fileid);
      attempt.hold = hold;
      attempt.cancelTimer = clock.after(HOLD_MS_MAX, () => {
        if (attempt.phase !== 'switching') this.#endInBackground(attempt, `the switch took longer than ${HOLD_MS_MAX} ms`);
      });
      // Beside the freeze and the receiver's part, since it is a sync of the disk. An entry of an attempt that ends does no harm: later terms are above it.
      attempt.ceding = this.#cede(attempt.owner, attempt.number, attempt.to, 'ceding').then(
        () => null,
        (error: unknown) => (error instanceof Error ? error : new Error(String(error))),
      );
      const end = await attempt.move.measure('freeze', () => attempt.source.freeze());
      if (isOver(attempt)) return null;
      await attempt.move.measure('changes', () => hold.changesEnded());
      if (isOver(attempt)) return null;
      const log = await attempt.move.measure('read', () => attempt.source.read(from, REST_BYTES_MAX, 0));
      if (isOver(attempt)) return null;
      const calls = host.calls(fileid, from.calls, CALLS_BYTES_MAX);
      // A call that is forgotten could be done twice.
      if (calls.behind > 0) return await this.#endWith(attempt, 'more calls were completed since the last part than fit in a hold');
      failPoint('move.give-frozen');
      const { termWrote, ...frozenEnd } = end;
      attempt.frozen = { ...frozenEnd, rest: { ...log, calls } };
      for (const piece of log.pieces) attempt.move.copiedBytes += piece.bytes.length;
      attempt.termWrote = termWrote;
      attempt.frozenAtMs = clock.monotonicMs();
      attempt.phase = 'frozen';
      return attempt.frozen;
    } catch (error) {
      if (!isEnvironmentError(error)) throw error;
      return await this.#endWith(attempt, error.message);
    }
  }

  async #endWith(attempt: Attempt, problem: string): Promise<null> {
    // Not awaited: the end waits for the freeze, which is what runs here.
    this.#endInBackground(attempt, problem);
    return null;
  }

  async moveConfirm(fileid: FileId, number: Term, lastSequence: number): Promise<MoveOutcome> {
    const attempt = this.#find(fileid, number);
    if (attempt === null) return await this.#outcomeOf(fileid, number);
    if (attempt.switching === null) {
      if (attempt.phase !== 'frozen' || attempt.frozen === null) {
        await this.#end(attempt, 'it was confirmed without having been frozen');
        return aborted(attempt);
      }
      if (attempt.frozen.lastSequence !== lastSequence) {
        await this.#end(attempt, `the receiver confirmed up to ${lastSequence}, the log ends with ${attempt.frozen.lastSequence}`);
        return aborted(attempt);
      }
      attempt.phase = 'switching';
      attempt.cancelTimer();
      const { move } = attempt;
      move.stepsMs.tail = this.#around.clock.monotonicMs() - attempt.frozenAtMs;
      attempt.switching = this.#switch(attempt);
    }
    return await attempt.switching;
  }

  /** Of an attempt that is not under way: it ended, or this is another life of the router than the one that began it. */
  async #outcomeOf(fileid: FileId, number: Term): Promise<MoveOutcome> {
    const known = this.#outcomes.get(keyOf(fileid, number));
    if (known !== undefined) return known;
    const owner = await this.#around.registry.ownership.owner(fileid);
    if (owner !== null && sameTerm(owner.term, number)) return { kind: 'moved', owner };
    if (owner !== null && compareEpoch(owner.term, number) <= 0 && owner.moving !== null && sameTerm(owner.moving.attempt, number)) {
      // It could still happen: the receiver must not give up its copy. Its number is burnt here and now, so that it cannot.
      const burnt = await this.#around.registry.ownership.update(this.#mutation(), fileid, owner.term, { moving: null });
      if (burnt.kind === 'conflict' && sameTerm(burnt.owner.term, number)) return { kind: 'moved', owner: burnt.owner };
    }
    return { kind: 'aborted', reason: 'there is no such attempt' };
  }

  async moveAbort(fileid: FileId, number: Term, reason: string): Promise<void> {
    const attempt = this.#find(fileid, number);
    if (attempt !== null && attempt.phase !== 'switching') await this.#end(attempt, `the receiver gave up: ${reason}`);
  }

  /** Ends a move that an operator does not want any more. False: there is none, or the owner changes already. */
  async cancel(id: string, reason: string): Promise<boolean> {
    for (const attempt of this.#attempts.values()) {
      if (attempt.move.id !== id || attempt.phase === 'switching') continue;
      await this.#end(attempt, reason);
      return true;
    }
    return false;
  }

  /** Ends what can be ended and waits for the switches that run. No new attempts. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(
      [...this.#attempts.values()].map((attempt) => (attempt.switching !== null ? attempt.switching : this.#end(attempt, 'the router is stopping'))),
    );
  }

  // ---- before the switch ----

  #endInBackground(attempt: Attempt, problem: string): void {
    this.#end(attempt, problem).catch((error: unknown) =>
      this.#around.logger.error({ err: error, fileid: attempt.object.driven.fileid }, 'a move could not be ended'),
    );
  }

  /** The attempt is over, the object stays and is served as if nothing had been. Not from the switch on. */
  #end(attempt: Attempt, problem: string): Promise<void> {
    attempt.ending ??= this.#thaw(attempt, problem);
    return attempt.ending;
  }

  async #thaw(attempt: Attempt, problem: string): Promise<void> {
    const { fileid } = attempt.object.driven;
    attempt.phase = 'over';
    attempt.cancelTimer();
    // What a freeze waits for is mostly over in a moment. Where the local disk hangs there are no writes anyway, but reads are not to wait for it longer than any hold
    // lasts: it ends by itself then.
    if (attempt.freezing !== null) {
      const leftMs = attempt.heldFromMs + HOLD_MS_MAX - this.#around.clock.monotonicMs();
      await Promise.race([attempt.freezing.catch(() => null), this.#around.clock.sleep(Math.max(0, leftMs))]);
    }
    attempt.source.thaw();
    this.#release(attempt);
    this.#forget(attempt, { kind: 'aborted', reason: problem }, problem);
    if (this.#closed) return;
    await this.#burn(attempt.owner).catch((error: unknown) => {
      // Only a hint for people; the reconciler clears it.
      if (!isEnvironmentError(error)) throw error;
      this.#around.logger.debug({ err: error, fileid }, 'the hint of a move that ended could not be cleared');
    });
  }

  async #burn(owner: OwnerRecord): Promise<void> {
    await this.#around.registry.ownership.update(this.#mutation(), owner.fileid, owner.term, { moving: null });
  }

  #release(attempt: Attempt): void {
    if (attempt.hold === null) return;
    attempt.hold.release();
    attempt.hold = null;
    attempt.move.heldMs = this.#around.clock.monotonicMs() - attempt.heldFromMs;
  }

  #forget(attempt: Attempt, outcome: MoveOutcome, problem: string | null): void {
    const { fileid } = attempt.object.driven;
    noteSlowed(attempt);
    if (this.#attempts.get(fileid) === attempt) this.#attempts.delete(fileid);
    this.#outcomes.set(keyOf(fileid, attempt.number), outcome);
    if (this.#outcomes.size > OUTCOMES_MAX) {
      const [oldest] = this.#outcomes.keys();
      if (oldest !== undefined) this.#outcomes.delete(oldest);
    }
    this.#history.end(attempt.move, problem);
  }

  /** Why this router may not give anything away now, or null. */
  #weakness(): string | null {
    const { registry } = this.#around;
    if (!registry.lease.valid || registry.lease.leftMs < LEASE_MS_MIN) return `only ${Math.round(registry.lease.leftMs)} ms are left of the lease`;
    const problem = registry.health();
    return problem === null ? null : `the registry is not well: ${problem}`;
  }

  /** The registry must have answered a moment ago, or answer now. */
  async #confirmRegistry(attempt: Attempt): Promise<void> {
    const { registry, clock } = this.#around;
    if (registry.confirmedAgoMs < CONFIRMED_MS_MAX) return;
    const { fileid, term } = attempt.object.driven;
    const asked = registry.ownership.update(this.#mutation(), fileid, term, { moving: attempt.owner.moving });
    const outcome = await within(clock, asked, CONFIRM_WAIT_MS, 'an answer of the registry');
    if (outcome.kind !== 'done') throw ended('the registry says that the object is not ours any more');
  }

  // ---- the switch ----

  async #switch(attempt: Attempt): Promise<MoveOutcome> {
    const { members, clock } = this.#around;
    const { driven } = attempt.object;
    const { move } = attempt;
    const frozen = attempt.frozen as FrozenEnd;
    try {
      const weak = this.#weakness();
      if (weak !== null) throw ended(weak);
      const receiver = members.get(attempt.to);
      if (receiver === null || receiver.dead || receiver.incarnation !== attempt.toIncarnation) throw ended(`router ${attempt.to} was started anew`);
      await move.measure('registry', () => this.#confirmRegistry(attempt));
      failPoint('move.give-before-ceded');
      const failed = await move.measure('ceded', () => attempt.ceding ?? Promise.resolve(null));
      if (failed !== null) throw failed;
    } catch (error) {
      if (!isEnvironmentError(error)) throw error;
      await this.#end(attempt, error.message);
      return aborted(attempt);
    }
    const closing = attempt.termWrote ? { term: driven.term, lastSegment: frozen.lastSegment, lastSequence: frozen.lastSequence } : null;
    const transferred = await move.measure('transfer', () =>
      this.#transfer(driven.fileid, driven.term, attempt.number, (mutation) =>
        this.#around.registry.ownership.transfer(mutation, driven.fileid, driven.term, attempt.number, closing, { kind: 'unprotected' }),
      ),
    );
    if (transferred.kind === 'stays') return await this.#claimAnew(attempt);
    const { owner } = transferred;
    this.#given.add(driven.fileid, attempt.number, attempt.source.cede());
    this.#around.host.moved(driven.fileid, owner);
    reached('move.give-after-cede');
    this.#release(attempt);
    move.heldMs = clock.monotonicMs() - attempt.heldFromMs;
    const outcome: MoveOutcome = { kind: 'moved', owner };
    attempt.phase = 'over';
    this.#forget(attempt, outcome, null);
    this.#note(attempt.owner, attempt.number, attempt.to, 'moved');
    return outcome;
  }

  #cede(owner: OwnerRecord, to: Term, router: RouterId, state: 'ceding' | 'moved' | 'kept'): Promise<void> {
    return this.#journal.write({ fileid: owner.fileid, uuid: owner.uuid, from: owner.term, to, router, state, atMs: this.#around.clock.wallMs() });
  }

  /** For people and for what may be forgotten; nothing rests on it. */
  #note(owner: OwnerRecord, to: Term, router: RouterId, state: 'moved' | 'kept'): void {
    this.#cede(owner, to, router, state).catch((error: unknown) =>
      this.#around.logger.warn({ err: error, fileid: owner.fileid }, 'how a move ended could not be written to the journal'),
    );
  }

  /** Changes the owner, and asks until it is known whether that worked. Nobody knows whose the object is meanwhile. */
  async #transfer(
    fileid: FileId,
    term: Term,
    number: Term,
    transfer: (mutation: Mutation) => ReturnType<MoveSurroundings['registry']['ownership']['transfer']>,
  ): Promise<Transferred> {
    const { registry, clock, logger } = this.#around;
    try {
      failPoint('move.give-after-ceded');
      const outcome = await transfer(this.#mutation(TRANSFER_MS_MAX));
      failPoint('move.give-after-transfer');
      if (outcome.kind === 'done') return { kind: 'moved', owner: outcome.owner };
    } catch (error) {
      if (!isEnvironmentError(error)) throw error;
      logger.warn({ err: error, fileid }, 'whether an object changed its owner is not known; the registry is asked until it says so');
    }
    for (let waitMs = RESOLVE_MS_FIRST; ; waitMs = Math.min(RESOLVE_MS_MAX, waitMs * 2)) {
      try {
        const owner = await registry.ownership.owner(fileid);
        if (owner === null || sameTerm(owner.term, term)) return { kind: 'stays' };
        if (sameTerm(owner.term, number) || compareEpoch(owner.term, term) > 0) return { kind: 'moved', owner };
        return { kind: 'stays' };
      } catch (error) {
        if (!isEnvironmentError(error)) throw error;
      }
      // With the lease the whole router ends, and its next life asks the registry.
      if (!registry.lease.valid) throw ended(`the lease lapsed before it was known whether object ${fileid} changed its owner`);
      await clock.sleep(waitMs);
    }
  }

  /** The owner did not change, but might yet: only a new term is safe from that. */
  async #claimAnew(attempt: Attempt): Promise<MoveOutcome> {
    const { host, registry, clock, logger } = this.#around;
    const { fileid, term } = attempt.object.driven;
    await host.drop(fileid);
    attempt.phase = 'over';
    this.#release(attempt);
    let owner: OwnerRecord | null = null;
    for (let waitMs = RESOLVE_MS_FIRST; ; waitMs = Math.min(RESOLVE_MS_MAX, waitMs * 2)) {
      try {
        if ((await host.open(fileid)) === null) break;
      } catch (error) {
        if (!isEnvironmentError(error)) throw error;
        logger.warn({ err: error, fileid }, 'an object whose move failed is not served again yet');
      }
      try {
        owner = await registry.ownership.owner(fileid);
        if (owner === null || !sameTerm(owner.term, term)) break;
      } catch (error) {
        if (!isEnvironmentError(error)) throw error;
      }
      if (!registry.lease.valid) throw ended(`the lease lapsed before object ${fileid} was claimed again`);
      await clock.sleep(waitMs);
    }
    if (owner !== null && sameTerm(owner.term, attempt.number)) {
      const outcome: MoveOutcome = { kind: 'moved', owner };
      host.ownerIs(owner);
      this.#forget(attempt, outcome, null);
      this.#note(attempt.owner, attempt.number, attempt.to, 'moved');
      return outcome;
    }
    const problem = 'the registry did not change the owner; the object was claimed again';
    this.#forget(attempt, { kind: 'aborted', reason: problem }, problem);
    this.#note(attempt.owner, attempt.number, attempt.to, 'kept');
    return { kind: 'aborted', reason: problem };
  }

  // ---- objects that are closed and clean ----

  /** Null: it is not as it was thought to be. */
  async #giveRecord(fileid: FileId, to: RouterId, toIncarnation: Incarnation, nonce: string, reason: MoveReason): Promise<MoveAnswer | null> {
    const { host, registry, self, members } = this.#around;
    const hold = host.hold(fileid);
    let move: RunningMove | null = null;
    let released = false;
    try {
      await host.settled(fileid);
      if (host.served(fileid) !== undefined) return null;
      const owner = await registry.ownership.owner(fileid);
      if (owner === null || owner.incarnation !== self.incarnation || owner.protection.kind !== 'clean' || owner.state.kind !== 'running')
        return null;
      const reserved = await registry.ownership.beginMove(this.#mutation(), fileid, owner.term, to, nonce);
      const number = reserved.kind === 'done' ? reserved.owner.moving?.attempt : undefined;
      if (number === undefined || members.get(to)?.incarnation !== toIncarnation) return null;
      move = this.#history.begin({ role: 'giver', fileid, from: self.router, to, reason });
      this.#history.agreed(move);
      move.phase = 'switching';
      await this.#cede(owner, number, to, 'ceding');
      // Closed, clean: nothing of its last term is behind the checkpoint, as when it is opened anew.
      const transferred = await this.#transfer(fileid, owner.term, number, (mutation) =>
        registry.ownership.transfer(mutation, fileid, owner.term, number, null, { kind: 'clean' }),
      );
      if (transferred.kind === 'moved') {
        host.moved(fileid, transferred.owner);
        this.#history.end(move, null);
        this.#note(owner, number, to, 'moved');
        return refused(GIVEN_BY_RECORD, false);
      }
      hold.release();
      released = true;
      await host.open(fileid);
      this.#history.end(move, 'the registry did not change the owner; the object was claimed again');
      this.#note(owner, number, to, 'kept');
      return null;
    } catch (error) {
      if (move !== null) this.#history.end(move, error instanceof Error ? error.message : String(error));
      throw error;
    } finally {
      if (!released) hold.release();
    }
  }

  #mutation(validMs = Infinity): Mutation {
    const { clock, self } = this.#around;
    const wallMs = clock.wallMs();
    return { operationId: null, incarnation: self.incarnation, now: timestampOf(wallMs), notAfterMs: wallMs + validMs };
  }
}

/** Ends the attempt with its message. */
function ended(message: string): ApplianceError {
  return new ApplianceError('move-ended', message, { retryable: true });
}

/** TypeScript forgets at an await what others may have changed; this reads it anew. */
function isOver(attempt: Attempt): boolean {
  return attempt.phase === 'over';
}

/** In the report of the move only where it was so. */
function noteSlowed({ source, move }: Attempt): void {
  if (source.slowedMs > 0) move.stepsMs.slowed = source.slowedMs;
}

function refused(reason: string, retryable: boolean): MoveAnswer {
  return { kind: 'refused', reason, retryable };
}

function aborted(attempt: Attempt): MoveOutcome {
  return { kind: 'aborted', reason: attempt.move.problem ?? 'the attempt is over' };
}

function keyOf(fileid: FileId, number: Term): string {
  return `${fileid} ${number.generation}.${number.counter} ${number.nonce}`;
}
