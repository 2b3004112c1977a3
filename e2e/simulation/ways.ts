/** The wires of a simulated world: who reaches whom, how long it takes, and what gets lost. */
import type { Random } from '../../server/core/time.ts';
import type { Schedule } from './schedule.ts';

/** One direction-less way between two places. */
export interface Way {
  /** Nothing passes. */
  cut: boolean;
  /** Probability that a message is lost, each way. */
  loss: number;
  /** Probability that a message comes late, behind others that were sent after it: it lay in the buffer of a connection that broke. */
  late: number;
  /** Bounds of the time a message takes. */
  delayMsMin: number;
  delayMsMax: number;
}

export function newWay(delayMsMin: number, delayMsMax: number): Way {
  return { cut: false, loss: 0, late: 0, delayMsMin, delayMsMax };
}

/** No buffer keeps a message longer. */
const LATE_MS_MAX = 12_000;

/** Messages in one direction of one connection come in their order, or not at all; those that are late, from connections before it. */
export class Lane {
  readonly #schedule: Schedule;
  readonly #random: Random;
  readonly #way: Way;
  #lastMs = 0;

  constructor(schedule: Schedule, random: Random, way: Way) {
    this.#schedule = schedule;
    this.#random = random;
    this.#way = way;
  }

  /** Delivers a message, unless it is lost. A way that is cut while the message travels loses it, too. */
  send(deliver: () => void): void {
    const way = this.#way;
    const lost = way.cut || this.#random.fraction() < way.loss;
    const delayMs = way.delayMsMin + this.#random.fraction() * (way.delayMsMax - way.delayMsMin);
    if (lost) return;
    if (way.late > 0 && this.#random.fraction() < way.late) {
      // Mostly soon, when what its sender did next is just done.
      const lateMs = this.#random.fraction() ** 2 * LATE_MS_MAX;
      this.#schedule.after(delayMs + lateMs, () => {
        if (!way.cut) deliver();
      });
      return;
    }
    const atMs = Math.max(this.#lastMs, this.#schedule.nowMs + delayMs);
    this.#lastMs = atMs;
    this.#schedule.after(atMs - this.#schedule.nowMs, () => {
      if (!way.cut) deliver();
    });
  }
}
