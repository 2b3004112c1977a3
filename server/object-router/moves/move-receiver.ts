/**
 * Fetches objects from their owners: the receiver's side of a move (design section 10).
 *
 * It copies the owner's log while the owner serves, until next to nothing is behind; then the owner holds the object's I/O, the rest is fetched and
 * synced, and the owner is told to let go. From the moment that this was asked the copy is given up only when it is certain that the owner did not change
 * and never will by this attempt: the registry knows, and the copy may be the only place where the end of the log can be served from.
 */
import type { Inode } from '../../../registry/inode.ts';
import type { OwnerRecord } from '../../../registry/ports.ts';
import { ApplianceError, isEnvironmentError } from '../../core/errors.ts';
import { failPoint, reached } from '../../core/fail-points.ts';
import type { FileId, RouterId, Term } from '../../core/ids.ts';
import { sameTerm } from '../../core/ids.ts';
import type { DrivenObject, Replica } from '../driver-port.ts';
import { HOLD_MS_MAX } from '../peer-port.ts';
import type { FollowPosition, FrozenEnd, LogPosition, MoveOffer, MovePart, MoveReason, PeerService } from '../peer-port.ts';
import { AskedOwner } from './asked-owner.ts';
import { within } from './deadline.ts';
import { GIVEN_BY_RECORD } from './move-giver.ts';
import type { MoveHistory, RunningMove } from './move-history.ts';
import type { ArrivingCalls, MoveSurroundings, ObjectHold } from './move-host.ts';

const FETCH_BYTES_MIN = 1024 * 1024;
/** Of one part while much is behind: between two busy routers a part takes as long whatever its size, and guests write on. */
const FETCH_BYTES_MAX = 8 * 1024 * 1024;
/** What all moves together fetch in a second: guests share disk and wire with them. */
const BYTES_PER_SECOND_MAX = 512 * 1024 * 1024;
/** Little enough behind to hold the guest for it. */
const BEHIND_BYTES_MAX = 512 * 1024;
/** Less than that is not worth another part before the hold; and there it ends, since where a part takes longer the next one finds no less. */
const REST_BYTES_WANTED = 64 * 1024;
const APPROACH_MS_MAX = 50;
/** A guest that writes faster is followed as long as the hold would not be longer than this. */
const TAIL_MS_MAX = 40;
/** What is behind must reach a new low within this time, or it is given up: the guest writes faster than its log can be copied. */
const CATCH_UP_MS_MAX = 60_000;
const ASK_MS_MAX = 30_000;
const FETCH_MS_MAX = 10_000;
/** Then the registry is asked as well: it may have changed already, and everybody waits. Asking the giver again joins what runs there. */
const CONFIRM_MS_MAX = 750;
const RESOLVE_MS_FIRST = 20;
const RESOLVE_MS_MAX = 1_000;

export type Received =
  | { readonly kind: 'moved' }
  /** The giver does not want to, or it came to nothing; nothing changed. */
  | { readonly kind: 'refused'; readonly reason: string; readonly retryable: boolean };

export interface MoveOrder {
  readonly fileid: FileId;
  readonly inodeGeneration: number;
  readonly owner: RouterId;
  /** As far as it is known; the offer has the true one. */
  readonly term: Term;
  readonly reason: MoveReason;
}

/** An object on its way here. */
interface Copy {
  readonly fileid: FileId;
  readonly attempt: Term;
  readonly peer: PeerService;
  readonly replica: Replica;
  readonly calls: ArrivingCalls;
  /** Up to where the calls are here. */
  callsAt: number;
  readonly move: RunningMove;
}

export class MoveReceiver {
  readonly #around: MoveSurroundings;
  readonly #history: MoveHistory;
  readonly #running = new Map<FileId, { readonly move: RunningMove; readonly done: Promise<Received>; cancelled: string | null }>();
  /** When the next bytes may be fetched (monotonic). */
  #paceMs = 0;
  #closed = false;

  constructor(around: MoveSurroundings, history: MoveHistory) {
    this.#around = around;
    this.#history = history;
  }

  /** Moves that are being received. */
  get running(): number {
    return this.#running.size;
  }

  isReceiving(fileid: FileId): boolean {
    return this.#running.has(fileid);
  }

  /**
   * Settles when this object is no longer being received, null when it is not. Whoever finds that the registry says it is ours waits for this before opening it,
   * and whoever is told that its inode changed before concluding that it is not served here.
   */
  receiving(fileid: FileId): Promise<void> | null {
    const running = this.#running.get(fileid);
    return running === undefined
      ? null
      : running.done.then(
          () => undefined,
          () => undefined,
        );
  }

  /** Joins what runs. Rejects only for bugs. */
  receive(order: MoveOrder): Promise<Received> {
    const running = this.#running.get(order.fileid);
    if (running !== undefined) return running.done;
    if (this.#closed) return Promise.resolve({ kind: 'refused', reason: 'this router is stopping', retryable: true });
    const move = this.#history.begin({
      role: 'receiver',
      fileid: order.fileid,
      from: order.owner,
      to: this.#around.self.router,
      reason: order.reason,
    });
    const done = this.#receive(order, move).then(
      (received) => {
        this.#running.delete(order.fileid);
        if (received.kind === 'moved') this.#history.end(move, null);
        // Routers that follow their clients' I/O ask often in vain.
        else if (!move.isAgreed && order.reason === 'io') this.#history.forget(move);
        else this.#history.end(move, received.reason);
        return received;
      },
      (error: unknown) => {
        this.#running.delete(order.fileid);
        this.#history.end(move, error instanceof Error ? error.message : String(error));
        throw error;
      },
    );
    this.#running.set(order.fileid, { move, done, cancelled: null });
    return done;
  }

  /** Gives a running move up, as long as the owner was not told to let go. False: there is none, or it is too late. */
  cancel(id: string, reason: string): boolean {
    for (const running of this.#running.values()) {
      if (running.move.id !== id || running.move.phase === 'switching') continue;
      running.cancelled = reason;
      return true;
    }
    return false;
  }

  /** Gives up what can be given up and waits for the rest. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const running of this.#running.values()) running.cancelled ??= 'the router is stopping';
    await Promise.allSettled([...this.#running.values()].map(({ done }) => done));
  }

  async #receive(order: MoveOrder, move: RunningMove): Promise<Received> {
    const { clock, network, self, random } = this.#around;
    const peer = network.peer(order.owner);
    const nonce = random.bytes(8).toString('hex');
    try {
      failPoint('move.take-before-ask');
      const answer = await move.measure('ask', () =>
        within(clock, peer.moveAsk(order, self.router, nonce, order.reason), ASK_MS_MAX, `an answer of router ${order.owner}`),
      );
      if (answer.kind === 'refused') {
        if (answer.reason !== GIVEN_BY_RECORD) return answer;
        this.#history.agreed(move);
        await this.#forget(order.fileid);
        return { kind: 'moved' };
      }
      this.#history.agreed(move);
      const { offer } = answer;
      const attempt = offer.owner.moving?.attempt;
      if (attempt === undefined || !isOffer(offer, order, self.router, nonce)) {
        return refused(`router ${order.owner} offered what was not asked for`, false);
      }
      return await this.#follow(order, peer, offer, attempt, move);
    } catch (error) {
      if (!isEnvironmentError(error)) throw error;
      return refused(error.message, true);
    }
  }

  /** The registry says that it is ours, whatever was known before. */
  async #forget(fileid: FileId): Promise<void> {
    const owner = await this.#around.registry.ownership.owner(fileid);
    if (owner !== null) this.#around.host.ownerIs(owner);
  }

  async #follow(order: MoveOrder, peer: PeerService, offer: MoveOffer, attempt: Term, move: RunningMove): Promise<Received> {
    const { host, clock } = this.#around;
    const { fileid } = order;
    let replica: Replica | null = null;
    let copy: Copy;
    let hold: ObjectHold | null = null;
    try {
      let frozen: FrozenEnd;
      try {
        failPoint('move.take-offered');
        // It may have been here a moment ago.
        await host.settled(fileid);
        replica = await this.#attach(order, offer, attempt, peer, move);
        failPoint('move.take-attached');
        copy = { fileid, attempt, peer, replica, calls: host.arriving(fileid), callsAt: 0, move };
        const copied = copy;
        move.phase = 'copying';
        await move.measure('copy', () => this.#catchUp(order, copied, offer.behindBytes));
        failPoint('move.take-caught-up');
        this.#check(order);
        move.phase = 'switching';
        const startedMs = clock.monotonicMs();
        frozen = await this.#freeze(copied);
        // Its file is there when those who were held want to write.
        copied.replica.prepare(frozen.lastSegment);
        // From here on operations wait here as well as there, and nobody opens what arrives.
        hold = host.hold(fileid);
        // One that began before (what looks for garbage goes by a hint) ends now: it is not adopted beside it.
        await within(clock, host.settled(fileid), HOLD_MS_MAX, 'an opening here that is under way');
        await this.#tail(copied, frozen);
        move.heldMs = clock.monotonicMs() - startedMs;
        failPoint('move.take-before-confirm');
      } catch (error) {
        if (!isEnvironmentError(error)) throw error;
        await this.#abort(fileid, peer, attempt, replica, error.message);
        return refused(error.message, true);
      }
      const owner = await this.#confirm(order, peer, offer.owner.term, attempt, frozen, move);
      if (typeof owner === 'string') {
        await this.#discard(fileid, replica);
        return refused(owner, true);
      }
      return await this.#activate(replica, owner, move);
    } finally {
      hold?.release();
    }
  }

  async #attach(order: MoveOrder, offer: MoveOffer, attempt: Term, peer: PeerService, move: RunningMove): Promise<Replica> {
    const { registry, driver, clock } = this.#around;
    const inode = await registry.namespace.inode(order.fileid, order.inodeGeneration);
    if (inode === null || inode.uuid !== offer.owner.uuid) throw new ApplianceError('object-gone', `object ${order.fileid} was removed`);
    // A checkpoint may take long to load: the giver is asked for nothing, so that it sees that somebody is there.
    let attached = false;
    const keepAlive = async (): Promise<void> => {
      for (;;) {
        await clock.sleep(FETCH_MS_MAX / 4);
        if (attached) return;
        await peer.moveFetch(order.fileid, attempt, { ...offer.from, calls: Number.MAX_SAFE_INTEGER }, 1, 0).catch(() => null);
      }
    };
    void keepAlive();
    try {
      return await move.measure('attach', () => driver.receive(inode, offer, new AskedOwner(clock, peer, order.fileid, attempt)));
    } finally {
      attached = true;
    }
  }

  /** Copies until a hold would be short. */
  async #catchUp(order: MoveOrder, copy: Copy, behindBytes: number): Promise<void> {
    const { clock } = this.#around;
    const { move, replica } = copy;
    let behind = behindBytes;
    let lowest = Infinity;
    let lowestAtMs = clock.monotonicMs();
    let synced = false;
    let lastSyncMs = 0;
    let bytesPerMs = 0;
    let closeAtMs = Infinity;
    move.behindBytes = behind;
    for (;;) {
      this.#check(order);
      const startedMs = clock.monotonicMs();
      const got = await this.#fetch(copy, Math.min(Math.max(behind, FETCH_BYTES_MIN), FETCH_BYTES_MAX));
      const tookMs = Math.max(0.05, clock.monotonicMs() - startedMs);
      if (got.bytes > 0) bytesPerMs = bytesPerMs === 0 ? got.bytes / tookMs : bytesPerMs * 0.8 + (got.bytes / tookMs) * 0.2;
      behind = got.behindBytes;
      move.behindBytes = behind;
      const isShort = behind <= BEHIND_BYTES_MAX || (bytesPerMs > 0 && behind / bytesPerMs + lastSyncMs <= TAIL_MS_MAX);
      const isClose = isShort && got.callsBehind === 0;
      if (isClose && synced) {
        // What was written while the last part was on its way: the next one has less of that.
        closeAtMs = Math.min(closeAtMs, startedMs);
        if (behind <= REST_BYTES_WANTED || clock.monotonicMs() - closeAtMs > APPROACH_MS_MAX) return;
        continue;
      }
      if (isClose) {
        // Now, so that the sync within the hold has only the last moments to write.
        const syncedFromMs = clock.monotonicMs();
        await Promise.all([replica.sync(), copy.calls.sync()]);
        lastSyncMs = clock.monotonicMs() - syncedFromMs;
        synced = true;
        continue;
      }
      if (behind > BEHIND_BYTES_MAX * 8) synced = false;
      if (behind < lowest * 0.9) {
        lowest = behind;
        lowestAtMs = clock.monotonicMs();
      } else if (clock.monotonicMs() - lowestAtMs > CATCH_UP_MS_MAX) {
        throw new ApplianceError(
          'move-ended',
          `${behind} bytes are behind after ${CATCH_UP_MS_MAX} ms: it is written faster than its log can be copied`,
          {
            retryable: true,
          },
        );
      }
    }
  }

  async #fetch(
    copy: Copy,
    bytesMax = FETCH_BYTES_MIN,
  ): Promise<{ readonly bytes: number; readonly behindBytes: number; readonly callsBehind: number }> {
    const { clock } = this.#around;
    const { fileid, attempt, peer } = copy;
    const fetched = await within(clock, peer.moveFetch(fileid, attempt, positionOf(copy), bytesMax, 0), FETCH_MS_MAX, 'bytes of the log');
    if (fetched === null) throw new ApplianceError('move-ended', 'the owner ended the attempt', { retryable: true });
    this.#remember(copy, fetched);
    const bytes = await this.#append(copy, fetched);
    await this.#pace(bytes);
    return { bytes, behindBytes: fetched.behindBytes, callsBehind: fetched.calls.behind };
  }

  #remember(copy: Copy, { calls }: MovePart): void {
    if (!copy.calls.add(calls.bytes))
      throw new ApplianceError('move-ended', `what the owner remembers of completed calls of object ${copy.fileid} is none`, { retryable: true });
    copy.callsAt = calls.next;
  }

  /** Returns the bytes of the log that came. */
  async #append({ replica, move }: Copy, { pieces }: MovePart): Promise<number> {
    let bytes = 0;
    for (const piece of pieces) bytes += piece.bytes.length;
    if (pieces.length > 0) await replica.append(pieces);
    move.copiedBytes += bytes;
    return bytes;
  }

  async #pace(bytes: number): Promise<void> {
    const { clock } = this.#around;
    const nowMs = clock.monotonicMs();
    this.#paceMs = Math.max(this.#paceMs, nowMs) + (bytes / BYTES_PER_SECOND_MAX) * 1000;
    if (this.#paceMs - nowMs > 20) await clock.sleep(this.#paceMs - nowMs);
  }

  /** The owner's I/O is held from here on. */
  async #freeze(copy: Copy): Promise<FrozenEnd> {
    const { clock } = this.#around;
    const { fileid, attempt, peer, move } = copy;
    const frozen = await move.measure('freeze', () => within(clock, peer.moveFreeze(fileid, attempt, positionOf(copy)), HOLD_MS_MAX, 'the hold'));
    if (frozen === null) throw new ApplianceError('move-ended', 'the owner ended the attempt', { retryable: true });
    this.#remember(copy, frozen.rest);
    // Before the object can be ours, however it is opened then, and by whichever life of this process.
    copy.calls.remember();
    failPoint('move.take-frozen');
    return frozen;
  }

  /** Takes what was left, fetches what did not come with the answer, and makes all of it durable. */
  async #tail(copy: Copy, frozen: FrozenEnd): Promise<void> {
    const { clock } = this.#around;
    const { replica, move } = copy;
    const untilMs = clock.monotonicMs() + HOLD_MS_MAX;
    // The owner's log is durable up to its end, and this router may be without power a moment after the object is its own: beside the rest, not behind it (decision 0035).
    const kept = copy.calls.keep();
    // Awaited behind the sync; an attempt that ends before that is over for a reason of its own.
    kept.catch(() => undefined);
    await move.measure('tail', async () => {
      await this.#append(copy, frozen.rest);
      while (isBefore(replica.position, frozen.end)) {
        const got = await this.#fetch(copy);
        if (got.bytes === 0 && isBefore(replica.position, frozen.end)) {
          throw new ApplianceError('move-ended', 'the owner has less than it said', { retryable: true });
        }
        if (clock.monotonicMs() > untilMs) throw new ApplianceError('move-ended', 'the hold is over', { retryable: true });
      }
    });
    const lastSequence = await move.measure('sync', async () => {
      const synced = await replica.sync();
      await kept;
      return synced;
    });
    if (lastSequence !== frozen.lastSequence) {
      throw new ApplianceError('replica-damaged', `the copy ends with ${lastSequence}, the owner's log with ${frozen.lastSequence}`, {
        retryable: true,
      });
    }
    move.behindBytes = 0;
  }

  /** The record by which the object is ours, or why it is not and never will be by this attempt. */
  async #confirm(
    order: MoveOrder,
    peer: PeerService,
    term: Term,
    attempt: Term,
    frozen: FrozenEnd,
    move: RunningMove,
  ): Promise<OwnerRecord | string> {
    const { clock, registry, members, logger } = this.#around;
    const { fileid } = order;
    const startedMs = clock.monotonicMs();
    let reason = 'the owner went on';
    try {
      for (let waitMs = RESOLVE_MS_FIRST; ; waitMs = Math.min(RESOLVE_MS_MAX, waitMs * 2)) {
        let definite = false;
        try {
          const outcome = await within(clock, peer.moveConfirm(fileid, attempt, frozen.lastSequence), CONFIRM_MS_MAX, 'the change of owner');
          if (outcome.kind === 'moved' && sameTerm(outcome.owner.term, attempt) && outcome.owner.router === this.#around.self.router)
            return outcome.owner;
          if (outcome.kind === 'aborted') {
            definite = true;
            reason = outcome.reason;
          }
        } catch (error) {
          if (!isEnvironmentError(error)) throw error;
          logger.warn({ err: error, fileid, from: order.owner }, 'the owner did not say whether it let go; the registry is asked');
        }
        try {
          const owner = await registry.ownership.owner(fileid);
          if (owner !== null && sameTerm(owner.term, attempt)) return owner;
          // Only this term with this attempt can still become ours.
          if (owner === null || !sameTerm(owner.term, term)) return reason;
          if (definite || owner.moving === null || !sameTerm(owner.moving.attempt, attempt)) return reason;
          // The registry refuses whatever a dead incarnation may still have sent.
          if (members.isDead(owner.router, owner.incarnation)) return `router ${owner.router} died before it let go`;
        } catch (error) {
          if (!isEnvironmentError(error)) throw error;
          if (definite) return reason;
        }
        if (!registry.lease.valid) throw new ApplianceError('lease-lapsed', `the lease lapsed before it was known whether object ${fileid} is ours`);
        await clock.sleep(waitMs);
      }
    } finally {
      const tookMs = clock.monotonicMs() - startedMs;
      move.stepsMs.confirm = tookMs;
      move.heldMs = (move.heldMs ?? 0) + tookMs;
    }
  }

  async #activate(replica: Replica, owner: OwnerRecord, move: RunningMove): Promise<Received> {
    const { host, clock, logger } = this.#around;
    const { fileid } = owner;
    const startedMs = clock.monotonicMs();
    let driven: DrivenObject;
    try {
      reached('move.take-confirmed');
      // Read after the change: whoever changes it later asks us, and waits for `receiving`.
      const [opened, inode] = await Promise.allSettled([replica.activate(owner), this.#inode(fileid)]);
      if (opened.status === 'rejected') throw opened.reason as unknown;
      driven = opened.value;
      if (inode.status === 'rejected' || inode.value === null) {
        await driven.close();
        host.ownerIs(owner);
        if (inode.status === 'rejected') throw inode.reason as unknown;
        return { kind: 'moved' };
      }
      driven.observeTime(inode.value.ctime);
      host.adopt(driven, inode.value, owner);
      failPoint('move.take-activated');
    } catch (error) {
      if (!isEnvironmentError(error)) throw error;
      // It is ours all the same: opening it recovers the copied log, which stays where it is.
      logger.error({ err: error, fileid }, 'an object that was received could not be activated; it is opened from its log');
      host.ownerIs(owner);
      return { kind: 'moved' };
    } finally {
      move.stepsMs.activate = clock.monotonicMs() - startedMs;
      move.heldMs = (move.heldMs ?? 0) + clock.monotonicMs() - startedMs;
    }
    return { kind: 'moved' };
  }

  /** The registry answered a moment ago; if it does not now, the object waits for it as it would for any opening. */
  async #inode(fileid: FileId): Promise<Inode | null> {
    const { registry, clock } = this.#around;
    for (let waitMs = RESOLVE_MS_FIRST; ; waitMs = Math.min(RESOLVE_MS_MAX, waitMs * 2)) {
      try {
        return await registry.namespace.inode(fileid, null);
      } catch (error) {
        if (!isEnvironmentError(error) || !registry.lease.valid) throw error;
      }
      await clock.sleep(waitMs);
    }
  }

  /** Before the confirmation was sent: the giver goes on, at once if it hears of it. */
  async #abort(fileid: FileId, peer: PeerService, attempt: Term, replica: Replica | null, reason: string): Promise<void> {
    const told = within(this.#around.clock, peer.moveAbort(fileid, attempt, reason), HOLD_MS_MAX, 'the end of the attempt').catch(
      (error: unknown) => {
        // It finds out by itself.
        if (!isEnvironmentError(error)) throw error;
      },
    );
    if (replica !== null) await this.#discard(fileid, replica);
    await told;
  }

  async #discard(fileid: FileId, replica: Replica): Promise<void> {
    try {
      await replica.discard();
    } catch (error) {
      if (!isEnvironmentError(error)) throw error;
      this.#around.logger.warn({ err: error, fileid }, 'the copy of a log could not be dropped; the next start drops it');
    }
  }

  #check(order: MoveOrder): void {
    const cancelled = this.#running.get(order.fileid)?.cancelled ?? null;
    if (cancelled !== null) throw new ApplianceError('move-ended', cancelled, { retryable: true });
    if (!this.#around.registry.lease.valid) throw new ApplianceError('lease-lapsed', 'the lease lapsed', { retryable: true });
  }
}

function positionOf({ replica, callsAt }: Copy): FollowPosition {
  return { ...replica.position, calls: callsAt };
}

function refused(reason: string, retryable: boolean): Received {
  return { kind: 'refused', reason, retryable };
}

/** Peers are known, but what they say is checked. */
function isOffer(offer: MoveOffer, order: MoveOrder, self: RouterId, nonce: string): boolean {
  const { owner } = offer;
  return (
    owner.fileid === order.fileid &&
    owner.router === order.owner &&
    owner.moving !== null &&
    owner.moving.to === self &&
    owner.moving.attempt.nonce === nonce &&
    offer.from.segment >= 0 &&
    offer.from.offsetBytes >= 0
  );
}

function isBefore(position: LogPosition, end: LogPosition): boolean {
  return position.segment < end.segment || (position.segment === end.segment && position.offsetBytes < end.offsetBytes);
}
