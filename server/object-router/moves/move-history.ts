/** Moves that run and the last ones that ended, for people: what took how long, and why it did not work. In memory. */
import type { OwnerRecord } from '../../../registry/ports.ts';
import type { MoveDirection, MoveObserver } from '../../core/cluster-observer.ts';
import type { FileId, RouterId } from '../../core/ids.ts';
import type { Logger } from '../../core/logger.ts';
import type { Clock } from '../../core/time.ts';
import type { MoveReason } from '../peer-port.ts';

const ENDED_MAX = 256;

/**
 * Steps whose time is measured. Giver: slowed (writers that outran the copy, while it ran), registry, freeze (of the log), changes (that end), read (of the log's end), tail (the receiver's part of the hold), ceded,
 * transfer. Receiver: ask, attach (claim and checkpoint), copy, freeze, tail, sync, confirm, activate.
 */
export type MoveStep =
  | 'ask'
  | 'attach'
  | 'copy'
  | 'slowed'
  | 'registry'
  | 'freeze'
  | 'changes'
  | 'read'
  | 'tail'
  | 'sync'
  | 'ceded'
  | 'transfer'
  | 'confirm'
  | 'activate';

/** `taker`: its router was dead. */
export type MoveRole = 'giver' | 'receiver' | 'taker';

export type MovePhase = 'preparing' | 'copying' | 'switching' | 'moved' | 'aborted';

/** One move as one of its two routers sees it. */
export interface MoveRecord {
  readonly id: string;
  readonly role: MoveRole;
  readonly fileid: FileId;
  readonly from: RouterId;
  readonly to: RouterId;
  readonly reason: MoveReason;
  readonly phase: MovePhase;
  /** Wall clock. */
  readonly startedAtMs: number;
  readonly endedAtMs: number | null;
  readonly copiedBytes: number;
  readonly behindBytes: number;
  /** How long I/O was held (giver), or how long the receiver saw it held. */
  readonly heldMs: number | null;
  readonly stepsMs: Readonly<Partial<Record<MoveStep, number>>>;
  /** Why it was aborted; of a takeover by force: what was given up. */
  readonly problem: string | null;
}

/** A move under way: its parts write, others read it as a MoveRecord. */
export class RunningMove implements MoveRecord {
  readonly id: string;
  readonly role: MoveRole;
  readonly fileid: FileId;
  readonly from: RouterId;
  readonly to: RouterId;
  readonly reason: MoveReason;
  phase: MovePhase = 'preparing';
  readonly startedAtMs: number;
  endedAtMs: number | null = null;
  copiedBytes = 0;
  behindBytes = 0;
  heldMs: number | null = null;
  readonly stepsMs: Partial<Record<MoveStep, number>> = {};
  problem: string | null = null;
  /** Giver and receiver agreed upon it. */
  isAgreed = false;
  readonly #clock: Clock;

  constructor(clock: Clock, id: string, what: Pick<MoveRecord, 'role' | 'fileid' | 'from' | 'to' | 'reason'>) {
    this.#clock = clock;
    this.id = id;
    this.role = what.role;
    this.fileid = what.fileid;
    this.from = what.from;
    this.to = what.to;
    this.reason = what.reason;
    this.startedAtMs = clock.wallMs();
  }

  /** Adds the time that `action` takes, however it ends. */
  async measure<T>(step: MoveStep, action: () => Promise<T>): Promise<T> {
    const startedMs = this.#clock.monotonicMs();
    try {
      return await action();
    } finally {
      this.stepsMs[step] = (this.stepsMs[step] ?? 0) + this.#clock.monotonicMs() - startedMs;
    }
  }
}

export class MoveHistory {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #running = new Map<string, RunningMove>();
  readonly #ended: MoveRecord[] = [];
  readonly #listeners: ((record: MoveRecord) => void)[] = [];
  readonly #beginListeners: ((record: MoveRecord) => void)[] = [];
  #next = 1;
  readonly #observer: MoveObserver | null;

  constructor(clock: Clock, logger: Logger, observer: MoveObserver | null) {
    this.#clock = clock;
    this.#logger = logger;
    this.#observer = observer;
  }

  begin(what: Pick<MoveRecord, 'role' | 'fileid' | 'from' | 'to' | 'reason'>): RunningMove {
    const move = new RunningMove(this.#clock, `${what.role}-${this.#next}`, what);
    this.#next += 1;
    this.#running.set(move.id, move);
    return move;
  }

  /** It was agreed upon: from here on it counts. */
  agreed(move: RunningMove): void {
    move.isAgreed = true;
    this.#observer?.moveStarted(directionOf(move));
    for (const listener of this.#beginListeners) listener(move);
  }

  onAgreed(listener: (record: MoveRecord) => void): void {
    this.#beginListeners.push(listener);
  }

  /** Once per move. `problem` null: the object moved. `code`: a short word for why it did not. */
  end(move: RunningMove, problem: string | null, code = 'ended'): void {
    if (!this.#running.delete(move.id)) return;
    move.phase = problem === null ? 'moved' : 'aborted';
    move.problem = problem;
    move.endedAtMs = this.#clock.wallMs();
    if (move.stepsMs.slowed !== undefined) this.#observer?.writersSlowed(move.stepsMs.slowed);
    if (problem !== null && move.isAgreed) this.#observer?.moveAborted(directionOf(move), code);
    else if (problem === null)
      this.#observer?.moveDone(directionOf(move), move.endedAtMs - move.startedAtMs, move.role === 'giver' ? move.heldMs : null, move.copiedBytes);
    this.#keep(move);
    const fields = {
      fileid: move.fileid,
      move: move.id,
      role: move.role,
      from: move.from,
      to: move.to,
      reason: move.reason,
      copiedBytes: move.copiedBytes,
      heldMs: rounded(move.heldMs),
      totalMs: rounded(move.endedAtMs - move.startedAtMs),
      steps: Object.fromEntries(Object.entries(move.stepsMs).map(([step, ms]) => [step, rounded(ms)])),
    };
    if (problem === null) this.#logger.info(fields, 'an object moved');
    else this.#logger.warn({ ...fields, problem }, 'a move ended without effect');
    for (const listener of this.#listeners) listener(move);
  }

  #keep(move: MoveRecord): void {
    this.#ended.unshift(move);
    if (this.#ended.length > ENDED_MAX) this.#ended.pop();
  }

  /** An object of a dead router was claimed here. `givenUp`: by force; null: nothing was lost. */
  takenOver(owner: OwnerRecord, to: RouterId, givenUp: string | null): void {
    const move = this.begin({ role: 'taker', fileid: owner.fileid, from: owner.router, to, reason: 'operator' });
    this.#running.delete(move.id);
    move.phase = 'moved';
    move.problem = givenUp;
    move.endedAtMs = this.#clock.wallMs();
    this.#keep(move);
    this.#observer?.takenOver(givenUp !== null);
    this.#logger.warn({ fileid: owner.fileid, from: owner.router, givenUp }, 'an object of a dead router was taken over');
  }

  /** A move that did not even begin, and that nobody asked for: it is not remembered. */
  forget(move: RunningMove): void {
    this.#running.delete(move.id);
  }

  onEnd(listener: (record: MoveRecord) => void): void {
    this.#listeners.push(listener);
  }

  running(): readonly MoveRecord[] {
    return [...this.#running.values()];
  }

  /** Newest first. */
  ended(): readonly MoveRecord[] {
    return this.#ended;
  }
}

function directionOf(move: RunningMove): MoveDirection {
  return move.role === 'giver' ? 'given' : 'received';
}

function rounded(ms: number | null): number | null {
  return ms === null ? null : Math.round(ms * 10) / 10;
}
