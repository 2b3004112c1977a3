/**
 * Makes what runs here and what the registry says the same again, whatever went wrong (design section 5): an object that is ours and has something that is
 * only here is opened; one that runs here and is not ours is stopped; hints of moves that ended are cleared, which burns their numbers; objects of dead
 * routers that cannot be taken over are marked, for people, until their router is back. Nothing waits for a human.
 */
import type { Mutation, OwnerRecord } from '../../../registry/ports.ts';
import { isEnvironmentError } from '../../core/errors.ts';
import type { FileId, RouterId, Term } from '../../core/ids.ts';
import { sameTerm } from '../../core/ids.ts';
import { timestampOf } from '../../core/time.ts';
import type { MoveSurroundings } from './move-host.ts';

const PAGE = 500;
const ROUND_MS = 5_000;
/** Of a round's length, per object, so that many objects do not make the registry busy. */
const ROUND_MS_PER_OBJECT = 5;
const ROUND_MS_MAX = 60_000;
/** After a member came or died: others notice it at the same time. */
const CHANGED_MS = 200;
const OPENS_MAX = 4;

export interface Reconciliation {
  readonly opened: number;
  readonly stopped: number;
  readonly cleared: number;
  readonly marked: number;
}

export class Reconciler {
  readonly #around: MoveSurroundings;
  readonly #isMoving: (fileid: FileId) => boolean;
  /** `moving` hints that nobody here knows of, as they were seen in the last round. */
  #strange = new Map<FileId, Term>();
  /** Objects of this router that the last round saw. */
  #count = 0;
  #cancelTimer: () => void = () => undefined;
  #running: Promise<Reconciliation> | null = null;
  #again = false;
  #stopped = false;
  /** Since the start. */
  readonly totals = { rounds: 0, opened: 0, stopped: 0, cleared: 0, marked: 0 };

  /** `isMoving`: a move of that object is given or received here. */
  constructor(around: MoveSurroundings, isMoving: (fileid: FileId) => boolean) {
    this.#around = around;
    this.#isMoving = isMoving;
  }

  start(): void {
    this.#around.members.onChange(() => this.#schedule(CHANGED_MS));
    this.#schedule(ROUND_MS);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancelTimer();
    await this.#running?.catch(() => null);
  }

  #schedule(delayMs: number): void {
    if (this.#stopped) return;
    this.#cancelTimer();
    this.#cancelTimer = this.#around.clock.after(delayMs, () => {
      this.run()
        .catch((error: unknown) => {
          if (!isEnvironmentError(error)) throw error;
          this.#around.logger.debug({ err: error }, 'what runs here could not be compared with the registry; it is tried again');
        })
        .finally(() => this.#schedule(Math.min(ROUND_MS_MAX, ROUND_MS + this.#count * ROUND_MS_PER_OBJECT)));
    });
  }

  /** One round; joins the one that runs. Rejects as the registry does. */
  run(): Promise<Reconciliation> {
    if (this.#running !== null) {
      this.#again = true;
      return this.#running;
    }
    this.#running = this.#round().finally(() => {
      this.#running = null;
      if (this.#again) this.#schedule(CHANGED_MS);
      this.#again = false;
    });
    return this.#running;
  }

  async #round(): Promise<Reconciliation> {
    const { host, members, self } = this.#around;
    const opens: OwnerRecord[] = [];
    const strange = new Map<FileId, Term>();
    const own = new Map<FileId, Term>();
    let cleared = 0;
    for await (const owner of this.#ownedBy(self.router)) {
      const { fileid } = owner;
      own.set(fileid, owner.term);
      if (this.#isMoving(fileid)) continue;
      if (owner.moving !== null) {
        const seen = this.#strange.get(fileid);
        if (seen === undefined || !sameTerm(seen, owner.moving.attempt)) strange.set(fileid, owner.moving.attempt);
        else if (await this.#clear(owner)) cleared += 1;
      }
      if (host.served(fileid) === undefined && (owner.protection.kind !== 'clean' || owner.state.kind === 'recovering')) opens.push(owner);
    }
    this.#strange = strange;
    this.#count = own.size;
    const stopped = await this.#stop(own);
    const opened = await this.#open(opens);
    let marked = 0;
    if (this.#isFirst()) {
      for (const member of members.list()) {
        if (member.id !== self.router && members.isDead(member.id, member.incarnation)) marked += await this.#mark(member.id);
      }
    }
    this.totals.rounds += 1;
    this.totals.opened += opened;
    this.totals.stopped += stopped;
    this.totals.cleared += cleared;
    this.totals.marked += marked;
    return { opened, stopped, cleared, marked };
  }

  async *#ownedBy(router: RouterId): AsyncIterable<OwnerRecord> {
    let after = 0 as FileId;
    for (;;) {
      const page = await this.#around.registry.ownership.ownedBy(router, after, PAGE);
      yield* page;
      after = page.at(-1)?.fileid ?? after;
      if (page.length < PAGE || this.#stopped) return;
    }
  }

  async #clear(owner: OwnerRecord): Promise<boolean> {
    const outcome = await this.#around.registry.ownership.update(this.#mutation(), owner.fileid, owner.term, { moving: null });
    return outcome.kind === 'done';
  }

  /** What runs here in a term that is over. */
  async #stop(own: ReadonlyMap<FileId, Term>): Promise<number> {
    const { host, registry, logger } = this.#around;
    let stopped = 0;
    for (const object of [...host.all()]) {
      const { fileid, term } = object.driven;
      const known = own.get(fileid);
      if (object.unlinked || this.#isMoving(fileid) || (known !== undefined && sameTerm(known, term))) continue;
      // It may have come while the pages were read.
      const owner = await registry.ownership.owner(fileid);
      if (owner === null || sameTerm(owner.term, term) || host.served(fileid) !== object || this.#isMoving(fileid)) continue;
      logger.warn(
        { fileid, term, owner: owner.router, ownerTerm: owner.term },
        'an object ran here that the registry says is in another term; it is stopped',
      );
      await host.drop(fileid);
      host.ownerIs(owner);
      stopped += 1;
    }
    return stopped;
  }

  /** What is ours and may have something that is only here. A failure is known to whoever opens objects, and this comes again. */
  async #open(opens: readonly OwnerRecord[]): Promise<number> {
    const { host } = this.#around;
    let next = 0;
    let opened = 0;
    const worker = async (): Promise<void> => {
      for (;;) {
        const owner = opens[next];
        next += 1;
        if (owner === undefined || this.#stopped) return;
        if (host.served(owner.fileid) !== undefined || this.#isMoving(owner.fileid)) continue;
        try {
          if ((await host.open(owner.fileid)) !== null) opened += 1;
        } catch (error) {
          if (!isEnvironmentError(error)) throw error;
        }
      }
    };
    await Promise.all(Array.from({ length: OPENS_MAX }, worker));
    return opened;
  }

  /** Of the living routers the one with the lowest id looks after the dead. */
  #isFirst(): boolean {
    const { members, self } = this.#around;
    return members.list().every((member) => member.id >= self.router || members.isDead(member.id, member.incarnation));
  }

  async #mark(router: RouterId): Promise<number> {
    const { registry, members, logger } = this.#around;
    let marked = 0;
    for await (const owner of this.#ownedBy(router)) {
      if (owner.protection.kind === 'clean' || owner.state.kind !== 'running' || !members.isDead(router, owner.incarnation)) continue;
      const reason =
        `router ${router} is away and has writes of it, after record ${owner.root.uploadedSequence}, that are not on the backend; ` +
        'it goes on by itself when that router is back';
      const outcome = await registry.ownership.update(this.#mutation(), owner.fileid, owner.term, { state: { kind: 'recovering', reason } });
      if (outcome.kind !== 'done') continue;
      marked += 1;
      logger.warn({ fileid: owner.fileid, router }, 'an object waits for its router: it has writes that are not on the backend');
    }
    return marked;
  }

  #mutation(): Mutation {
    const { clock, self } = this.#around;
    return { operationId: null, incarnation: self.incarnation, now: timestampOf(clock.wallMs()), notAfterMs: Infinity };
  }
}
