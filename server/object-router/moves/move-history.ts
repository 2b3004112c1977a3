/** Moves that run and the last ones that ended, for people: what took how long, and why it did not work. In memory. */
import type { FileId, RouterId } from '../../core/ids.ts';
import type { Logger } from '../../core/logger.ts';
import type { Clock } from '../../core/time.ts';
import type { MoveReason } from '../peer-port.ts';

const ENDED_MAX = 256;

/**
 * Steps whose time is measured. Giver: freeze, repetitions, tail (the receiver's part of the hold), registry, ceded, transfer. Receiver: ask, attach (claim and
 * checkpoint), copy, freeze, tail, sync, confirm, activate.
 */
export type MoveStep =
  | 'ask'
  | 'attach'
  | 'copy'
  | 'registry'
  | 'freeze'
  | 'repetitions'
  | 'tail'
  | 'sync'
  | 'ceded'
  | 'transfer'
  | 'confirm'
  | 'activate';

export type MovePhase = 'preparing' | 'copying' | 'switching' | 'moved' | 'aborted';

/** One move as one of its two routers sees it. */
export interface MoveRecord {
  readonly id: string;
  readonly role: 'giver' | 'receiver';
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
  readonly problem: string | null;
}

/** A move under way: its parts write, others read it as a MoveRecord. */
export class RunningMove implements MoveRecord {
  readonly id: string;
  readonly role: 'giver' | 'receiver';
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
  #next = 1;
  /** By `role outcome`, since the start. */
  readonly counts = new Map<string, number>();
  copiedBytes = 0;

  constructor(clock: Clock, logger: Logger) {
    this.#clock = clock;
    this.#logger = logger;
  }

  begin(what: Pick<MoveRecord, 'role' | 'fileid' | 'from' | 'to' | 'reason'>): RunningMove {
    const move = new RunningMove(this.#clock, `${what.role === 'giver' ? 'g' : 'r'}${this.#next}`, what);
    this.#next += 1;
    this.#running.set(move.id, move);
    return move;
  }

  /** Once per move. `problem` null: the object moved. */
  end(move: RunningMove, problem: string | null): void {
    if (!this.#running.delete(move.id)) return;
    move.phase = problem === null ? 'moved' : 'aborted';
    move.problem = problem;
    move.endedAtMs = this.#clock.wallMs();
    this.#ended.unshift(move);
    if (this.#ended.length > ENDED_MAX) this.#ended.pop();
    const key = `${move.role} ${move.phase}`;
    this.counts.set(key, (this.counts.get(key) ?? 0) + 1);
    this.copiedBytes += move.copiedBytes;
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

function rounded(ms: number | null): number | null {
  return ms === null ? null : Math.round(ms * 10) / 10;
}
