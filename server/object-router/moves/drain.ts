/**
 * Gives everything away that this router owns, for its maintenance: to living routers in turn, as many at a time as moves may run, until nothing is
 * left. What cannot be moved is tried again and reported. Begun anew it goes on with what is left, since the registry says what that is.
 */
import type { OwnerRecord } from '../../../registry/ports.ts';
import { isEnvironmentError } from '../../core/errors.ts';
import type { FileId, RouterId } from '../../core/ids.ts';
import { within } from './deadline.ts';
import type { MoveGiver } from './move-giver.ts';
import type { MoveHistory, MoveRecord } from './move-history.ts';
import type { MoveSurroundings } from './move-host.ts';

const PAGE = 500;
/** Pause between two looks at what is left. */
const ROUND_MS = 2_000;
const OFFER_MS_MAX = 5_000;
/** How long the router that said yes may take to ask. */
const ASKED_MS_MAX = 15_000;
const FAILED_MAX = 100;
/** Rounds without a single object that left, after which it is stuck. */
const VAIN_ROUNDS = 2;

export interface DrainState {
  readonly phase: 'none' | 'moving' | 'stuck' | 'drained';
  /** Wall clock. */
  readonly startedAtMs: number | null;
  readonly done: number;
  readonly total: number;
  readonly copiedBytes: number;
  readonly failed: readonly { readonly fileid: FileId; readonly reason: string }[];
  readonly problem: string | null;
}

export const NO_DRAIN: DrainState = { phase: 'none', startedAtMs: null, done: 0, total: 0, copiedBytes: 0, failed: [], problem: null };

export class Drain {
  readonly #around: MoveSurroundings;
  readonly #giver: MoveGiver;
  readonly #movesMax: number;
  readonly #startedAtMs: number;
  readonly #waiting = new Map<FileId, (record: MoveRecord) => void>();
  readonly #failed = new Map<FileId, string>();
  /** How many went to whom: the next goes to who got fewest. */
  readonly #given = new Map<RouterId, number>();
  #phase: 'moving' | 'stuck' | 'drained' = 'moving';
  #problem: string | null = null;
  #done = 0;
  #left = 0;
  #copiedBytes = 0;
  #stopped = false;
  #wake: (() => void) | null = null;
  #running: Promise<void> | null = null;

  constructor(around: MoveSurroundings, giver: MoveGiver, history: MoveHistory, movesMax: number) {
    this.#around = around;
    this.#giver = giver;
    this.#movesMax = movesMax;
    this.#startedAtMs = around.clock.wallMs();
    history.onEnd((record) => {
      if (record.role === 'giver') this.#waiting.get(record.fileid)?.(record);
    });
  }

  get state(): DrainState {
    const failed = [...this.#failed].slice(0, FAILED_MAX).map(([fileid, reason]) => ({ fileid, reason }));
    return {
      phase: this.#phase,
      startedAtMs: this.#startedAtMs,
      done: this.#done,
      total: this.#done + this.#left,
      copiedBytes: this.#copiedBytes,
      failed,
      problem: this.#problem,
    };
  }

  /** Once. */
  start(): void {
    this.#running = this.#run();
  }

  /** What is under way ends as it ends; nothing new is begun. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#wake?.();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { logger } = this.#around;
    logger.info({}, 'this router is being drained: everything that it owns moves to others');
    let vain = 0;
    while (!this.#stopped) {
      const before = this.#done;
      try {
        const left = await this.#owned();
        this.#left = left.length;
        if (left.length === 0 && this.#phase !== 'drained') {
          this.#phase = 'drained';
          this.#problem = null;
          this.#failed.clear();
          logger.info({ objects: this.#done }, 'this router is drained: it owns nothing');
        }
        if (left.length > 0) {
          if (this.#phase === 'drained') this.#phase = 'moving';
          await this.#round(left);
          vain = this.#done > before ? 0 : vain + 1;
          this.#note(vain >= VAIN_ROUNDS);
        }
      } catch (error) {
        if (!isEnvironmentError(error)) throw error;
        vain += 1;
        this.#problem = error.message;
        this.#note(vain >= VAIN_ROUNDS);
      }
      if (!this.#stopped && (this.#phase !== 'moving' || this.#done === before)) await this.#pause();
    }
  }

  #note(isStuck: boolean): void {
    const phase = isStuck ? 'stuck' : 'moving';
    if (phase === this.#phase) return;
    this.#phase = phase;
    if (isStuck) this.#around.logger.warn({ left: this.#left, problem: this.#problem }, 'draining this router does not get on; it is tried again');
    else this.#problem = null;
  }

  async #pause(): Promise<void> {
    const woken = new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    await Promise.race([woken, this.#around.clock.sleep(ROUND_MS)]);
    this.#wake = null;
  }

  /** Records of what is left; tombstones are for the reclaimer. */
  async #owned(): Promise<OwnerRecord[]> {
    const { registry, self } = this.#around;
    const found: OwnerRecord[] = [];
    let after = 0 as FileId;
    for (;;) {
      const page = await registry.ownership.ownedBy(self.router, after, PAGE);
      found.push(...page);
      after = page.at(-1)?.fileid ?? after;
      if (page.length < PAGE) return found;
    }
  }

  async #round(left: readonly OwnerRecord[]): Promise<void> {
    let next = 0;
    const worker = async (): Promise<void> => {
      for (;;) {
        const owner = left[next];
        next += 1;
        if (owner === undefined || this.#stopped) return;
        let problem: string | null;
        try {
          problem = await this.#give(owner);
        } catch (error) {
          if (!isEnvironmentError(error)) throw error;
          problem = error.message;
        }
        if (problem === null) {
          this.#failed.delete(owner.fileid);
          this.#left -= 1;
        } else {
          this.#failed.set(owner.fileid, problem);
          this.#problem = problem;
          // Nobody there to take anything: no use in asking for each.
          if (this.#targets().length === 0) return;
        }
      }
    };
    await Promise.all(Array.from({ length: this.#movesMax }, worker));
  }

  /** Living routers, the one that got fewest first. */
  #targets(): RouterId[] {
    const { members, self } = this.#around;
    return members
      .list()
      .filter((member) => member.id !== self.router && !member.dead && !members.isDead(member.id, member.incarnation))
      .map((member) => member.id)
      .sort((a, b) => (this.#given.get(a) ?? 0) - (this.#given.get(b) ?? 0));
  }

  /** Null: it is gone from here. Else why not. */
  async #give(owner: OwnerRecord): Promise<string | null> {
    const { registry, network, self, clock } = this.#around;
    const { fileid } = owner;
    const inode = await registry.namespace.inode(fileid, null);
    if (inode === null) return null;
    const targets = this.#targets();
    if (targets.length === 0) return 'there is no other living router';
    let problem = 'no other router takes anything now';
    for (const router of targets) {
      const ended = this.#nextEnd(fileid);
      try {
        // Counted before the answer: others ask at the same time.
        this.#given.set(router, (this.#given.get(router) ?? 0) + 1);
        const target = { fileid, inodeGeneration: inode.inodeGeneration, term: owner.term };
        const wanted = await within(
          clock,
          network.peer(router).moveOffer(target, self.router, 'drain'),
          OFFER_MS_MAX,
          `an answer of router ${router}`,
        );
        if (!wanted) {
          this.#given.set(router, (this.#given.get(router) ?? 1) - 1);
          continue;
        }
        const record = await ended.record;
        if (record !== null && record.phase === 'moved') {
          this.#done += 1;
          this.#copiedBytes += record.copiedBytes;
          return null;
        }
        const now = await registry.ownership.owner(fileid);
        if (now === null || now.router !== self.router) {
          this.#done += 1;
          return null;
        }
        problem = record?.problem ?? `router ${router} said yes and did not fetch it`;
      } catch (error) {
        if (!isEnvironmentError(error)) throw error;
        problem = error.message;
      } finally {
        ended.cancel();
      }
      if (this.#stopped) return problem;
    }
    return problem;
  }

  /** The end of the next move of this object; null when none begins in time. */
  #nextEnd(fileid: FileId): { readonly record: Promise<MoveRecord | null>; cancel(): void } {
    const { clock } = this.#around;
    let cancelTimer = (): void => undefined;
    const record = new Promise<MoveRecord | null>((resolve) => {
      const look = (): void => {
        cancelTimer = clock.after(ASKED_MS_MAX, () => (this.#giver.isGiving(fileid) ? look() : resolve(null)));
      };
      look();
      this.#waiting.set(fileid, resolve);
    });
    return {
      record,
      cancel: () => {
        cancelTimer();
        this.#waiting.delete(fileid);
      },
    };
  }
}
