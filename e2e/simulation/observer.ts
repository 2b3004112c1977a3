/**
 * Who answers for which object, and when (invariant 2): the answers of an object's terms must not overlap. What leaves a router as an answer that rests on
 * its ownership is noted with the term in which it was made.
 */
import { AsyncLocalStorage } from 'node:async_hooks';

import { compareEpoch, type FileId, type Incarnation, type RouterId, type Term } from '../../server/core/ids.ts';
import type { DrivenObject, ObjectDriver, Replica } from '../../server/object-router/driver-port.ts';

interface Handling {
  /** Objects that this call touched here, and the terms in which it did. */
  readonly touched: Map<FileId, Term>;
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
  readonly #last = new Map<FileId, LastAnswer>();
  /** Answers noted, and changes of owner seen in them. */
  answers = 0;
  changes = 0;

  readonly #trace: (line: string) => void;

  constructor(nowMs: () => number, problem: (message: string) => void, trace: (line: string) => void) {
    this.#nowMs = nowMs;
    this.#problem = problem;
    this.#trace = trace;
  }

  /** Runs a call that a client or a peer made of a router. `isAnswer`: what it gave rests on the objects that it touched. */
  async watch<T>(router: RouterId, incarnation: Incarnation, isAnswer: (result: T) => boolean, call: () => T | Promise<T>): Promise<T> {
    const handling: Handling = { touched: new Map() };
    const result = await this.#handling.run(handling, async () => call());
    if (isAnswer(result)) for (const [fileid, term] of handling.touched) this.#answered(fileid, term, router, incarnation);
    return result;
  }

  #answered(fileid: FileId, term: Term, router: RouterId, incarnation: Incarnation): void {
    this.answers += 1;
    const last = this.#last.get(fileid);
    if (last !== undefined) {
      const order = compareEpoch(term, last.term);
      if (order < 0) {
        this.#problem(
          `two owners of ${fileid}: ${router.slice(0, 4)} answers in term ${term.generation}.${term.counter}, after ` +
            `${last.router.slice(0, 4)} had answered in ${last.term.generation}.${last.term.counter} at ${last.atMs.toFixed(1)} ms`,
        );
        return;
      }
      if (order === 0 && last.incarnation !== incarnation) {
        this.#problem(`two owners of ${fileid} in one term ${term.generation}.${term.counter}: ${router.slice(0, 4)} and ${last.router.slice(0, 4)}`);
        return;
      }
      if (order > 0) this.changes += 1;
    }
    this.#last.set(fileid, { term, router, incarnation, atMs: this.#nowMs() });
  }

  /** The driver, with everything that is done to its objects noted. */
  driver(router: string, driver: ObjectDriver): ObjectDriver {
    return {
      open: async (inode) => this.#object(router, await driver.open(inode)),
      receive: async (inode, offer) => this.#replica(router, await driver.receive(inode, offer)),
    };
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
    const touch = (): void => {
      this.#handling.getStore()?.touched.set(driven.fileid, driven.term);
    };
    return proxied(driven, {
      attributes: () => {
        touch();
        return driven.attributes();
      },
      read: (offsetBytes, target) => {
        touch();
        return driven.read(offsetBytes, target);
      },
      write: (offsetBytes, countBytes, chunks, stable, now) => {
        touch();
        this.#trace(`${name} write ${Buffer.from(chunks[0] ?? []).readUInt32LE(0)} at sector ${offsetBytes / 512}, ${countBytes / 512} sectors`);
        return driven.write(offsetBytes, countBytes, chunks, stable, now);
      },
      commit: (now) => {
        touch();
        return driven.commit(now);
      },
      setAttributes: (changes, now) => {
        touch();
        this.#trace(`${name} size ${changes.sizeBytes}`);
        return driven.setAttributes(changes, now);
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
