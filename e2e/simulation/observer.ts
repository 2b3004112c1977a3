/**
 * Who answers for which object, and when (invariant 2): the answers of an object's terms must not overlap. What leaves a router as an answer that rests on
 * its ownership is noted with the term in which it was made.
 */
import { AsyncLocalStorage } from 'node:async_hooks';

import { compareEpoch, type FileId, type Incarnation, type RouterId, type Term } from '../../server/core/ids.ts';
import type { DrivenObject, ObjectDriver, Replica } from '../../server/object-router/driver-port.ts';

interface Handling {
  /** Objects that this call touched here, in which terms, and when last. */
  readonly touched: Map<FileId, { readonly term: Term; readonly atMs: number }>;
  /** Objects that it wrote to here, in which terms. */
  readonly wrote: Map<FileId, Term>;
}

interface LastAnswer {
  readonly term: Term;
  readonly router: RouterId;
  readonly incarnation: Incarnation;
  readonly atMs: number;
}

export class OwnershipObserver {
  readonly #nowMs: () => number;
  readonly #problem: (message: string) => void;
  readonly #handling = new AsyncLocalStorage<Handling>();
  /** First answer of the newest term. */
  readonly #newest = new Map<FileId, LastAnswer>();
  /** Terms that were claimed, by whom: from another router, they begin without its memory of completed calls. */
  readonly #claimed = new Map<FileId, { readonly term: Term; readonly router: string }[]>();
  /** First term in which a change was executed, and where, by object and number of the change. */
  readonly #executed = new Map<string, { readonly term: Term; readonly router: string }>();
  /** Changes that were executed again after a takeover from a dead router (decision 0028, 3), by object and number. */
  readonly #repeated = new Set<string>();
  /** Answers noted, and changes of owner seen in them. */
  answers = 0;
  changes = 0;

  readonly #trace: (line: string) => void;
  readonly #isClean: (fileid: FileId, term: Term) => boolean;

  /** `isClean`: whether the registry says of an object, in this term, that nothing of it is only on its owner's disk. */
  constructor(
    nowMs: () => number,
    problem: (message: string) => void,
    trace: (line: string) => void,
    isClean: (fileid: FileId, term: Term) => boolean,
  ) {
    this.#isClean = isClean;
    this.#nowMs = nowMs;
    this.#problem = problem;
    this.#trace = trace;
  }

  /**
   * Runs a call that a client or a peer made of a router. `reaches`: what it gives is an answer that rests on the objects that it touched, and somebody hears
   * it. `lease`: whether the router may still answer.
   */
  async watch<T>(
    router: RouterId,
    incarnation: Incarnation,
    reaches: (result: T) => boolean,
    lease: () => boolean,
    call: () => T | Promise<T>,
  ): Promise<T> {
    const handling: Handling = { touched: new Map(), wrote: new Map() };
    const result = await this.#handling.run(handling, async () => call());
    if (!reaches(result)) return result;
    for (const [fileid, { term, atMs }] of handling.touched) {
      if (!lease()) this.#problem(`${router.slice(0, 4)} answers for ${fileid} without a lease`);
      this.#answered(fileid, term, router, incarnation, atMs);
    }
    for (const [fileid, term] of handling.wrote) {
      // Who took it over would have it without that write, and could not tell.
      if (this.#isClean(fileid, term)) this.#problem(`${router.slice(0, 4)} answers a write of ${fileid}, which is clean in the registry`);
    }
    return result;
  }

  /** Who looked at an object before another term had answered for it may say what it saw: nobody can tell that from a slow answer. */
  #answered(fileid: FileId, term: Term, router: RouterId, incarnation: Incarnation, touchedMs: number): void {
    this.answers += 1;
    const newest = this.#newest.get(fileid);
    if (newest !== undefined) {
      const order = compareEpoch(term, newest.term);
      const where = `${router.slice(0, 4)} answers in term ${term.generation}.${term.counter}`;
      if (order < 0 && touchedMs > newest.atMs) {
        this.#problem(
          `two owners of ${fileid}: ${where}, after ${newest.router.slice(0, 4)} had answered in ${newest.term.generation}.${newest.term.counter} at ${newest.atMs.toFixed(1)} ms`,
        );
      }
      if (order === 0 && newest.incarnation !== incarnation)
        this.#problem(`two owners of ${fileid} in one term: ${where}, and so does ${newest.router.slice(0, 4)}`);
      if (order <= 0) return;
      this.changes += 1;
    }
    this.#newest.set(fileid, { term, router, incarnation, atMs: this.#nowMs() });
  }

  /** The driver, with everything that is done to its objects noted. */
  driver(router: string, driver: ObjectDriver): ObjectDriver {
    return {
      open: async (inode, ...more) => {
        const driven = await driver.open(inode, ...more);
        const claimed = this.#claimed.get(driven.fileid);
        const claim = { term: driven.term, router };
        if (claimed === undefined) this.#claimed.set(driven.fileid, [claim]);
        else claimed.push(claim);
        return this.#object(router, driven);
      },
      receive: async (inode, offer, former) => this.#replica(router, await driver.receive(inode, offer, former)),
    };
  }

  /** Whether a change, known by its number, was executed again after its owner was dead and another one took over: known not to be excluded. */
  wasRepeated(fileid: number, change: number): boolean {
    return this.#repeated.has(`${fileid} ${change}`);
  }

  get repeated(): number {
    return this.#repeated.size;
  }

  #execute(router: string, fileid: FileId, change: number, term: Term): void {
    const key = `${fileid} ${change}`;
    const first = this.#executed.get(key);
    if (first === undefined) {
      this.#executed.set(key, { term, router });
      return;
    }
    const claims = this.#claimed.get(fileid) ?? [];
    let owner = first.router;
    for (const claim of claims) {
      if (compareEpoch(claim.term, first.term) <= 0 || compareEpoch(claim.term, term) > 0) continue;
      if (claim.router !== owner) this.#repeated.add(key);
      owner = claim.router;
    }
  }

  #replica(router: string, replica: Replica): Replica {
    return proxied(replica, {
      activate: async (owner) => this.#object(router, await replica.activate(owner)),
    });
  }

  #object(router: string, driven: DrivenObject): DrivenObject {
    const { term } = driven;
    const name = `${router} ${driven.fileid} term ${term.generation}.${term.counter}`;
    this.#trace(`${name} is open`);
    // What is told of an object beside what was done to it is as old as that.
    const look = (): void => {
      if (this.#handling.getStore()?.touched.get(driven.fileid)?.term !== driven.term) touch();
    };
    const touch = (): void => {
      this.#handling.getStore()?.touched.set(driven.fileid, { term: driven.term, atMs: this.#nowMs() });
    };
    return proxied(driven, {
      attributes: () => {
        look();
        return driven.attributes();
      },
      read: (offsetBytes, target) => {
        touch();
        return driven.read(offsetBytes, target);
      },
      write: (offsetBytes, countBytes, chunks, stable, ...more) => {
        touch();
        const write = Buffer.from(chunks[0] ?? []).readUInt32LE(0);
        this.#execute(router, driven.fileid, write, driven.term);
        this.#trace(`${name} write ${write} at sector ${offsetBytes / 512}, ${countBytes / 512} sectors`);
        const change = driven.write(offsetBytes, countBytes, chunks, stable, ...more);
        const handling = this.#handling.getStore();
        void Promise.resolve(change).then(
          ({ kind }) => {
            if (kind !== 'refused') handling?.wrote.set(driven.fileid, driven.term);
          },
          () => undefined,
        );
        return change;
      },
      commit: (now) => {
        touch();
        return driven.commit(now);
      },
      setAttributes: (changes, ...more) => {
        touch();
        if (changes.sizeBytes !== null) this.#execute(router, driven.fileid, (changes.sizeBytes - 8192) / 512, driven.term);
        this.#trace(`${name} size ${changes.sizeBytes}`);
        return driven.setAttributes(changes, ...more);
      },
    });
  }
}

/** `target` with some of its methods replaced; everything else runs on `target` itself. */
function proxied<T extends object>(target: T, replaced: Partial<T>): T {
  return new Proxy(target, {
    get(_object, property) {
      if (Object.hasOwn(replaced, property)) return Reflect.get(replaced, property) as unknown;
      const value: unknown = Reflect.get(target, property, target);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}
