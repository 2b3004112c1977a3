/** Fail points of a cluster whose routers share one process: something is to happen the moment that one router comes to one of them. */
import { type FailPoint, watchFailPoints } from '../../server/core/fail-points.ts';
import { ProcessTime } from './schedule.ts';
import type { Machine } from './simulated-router.ts';

interface Trap {
  /** Whether it went off. */
  readonly sprung: boolean;
  /** It does not any more. */
  disarm(): void;
}

interface ArmedTrap extends Trap {
  readonly machine: Machine;
  readonly point: FailPoint;
  readonly spring: () => void;
  hitsLeft: number;
  sprung: boolean;
}

export class StepTraps {
  readonly #armed = new Set<ArmedTrap>();

  /** From here to `close` the fail points of this process are those of the machines of one world. */
  open(): void {
    watchFailPoints((point) => this.#reached(point));
  }

  close(): void {
    watchFailPoints(null);
  }

  /** At the `hit`-th time that the machine comes to this point: `spring`, in the middle of its turn. What it throws is thrown there. */
  arm(machine: Machine, point: FailPoint, hit: number, spring: () => void): Trap {
    const trap: ArmedTrap = { machine, point, spring, hitsLeft: hit, sprung: false, disarm: () => void this.#armed.delete(trap) };
    this.#armed.add(trap);
    return trap;
  }

  #reached(point: FailPoint): void {
    if (this.#armed.size === 0) return;
    const time = ProcessTime.current;
    for (const trap of this.#armed) {
      if (trap.point !== point || !trap.machine.runs(time)) continue;
      trap.hitsLeft -= 1;
      if (trap.hitsLeft > 0) continue;
      trap.sprung = true;
      this.#armed.delete(trap);
      trap.spring();
      return;
    }
  }
}
