/**
 * What clients did to one register and saw of it, and whether one order of it all explains that (linearizability, with writes that may be lost until they are
 * durable). Time is the world's; a call lasts from its first sending to its last answer, so whatever the routers did of it lies between.
 */

interface WriteHistory {
  readonly beginMs: number;
  /** It has had its effect by then, if it ever has one. */
  effectMs: number;
  /** From then on it is there for sure, until something comes after it. */
  durableMs: number;
  isUnclear: boolean;
}

export class RegisterHistory {
  /** By number of the write; write 0 is what was there in the beginning. */
  readonly #writes = new Map<number, WriteHistory>([[0, { beginMs: -1, effectMs: 0, durableMs: 0, isUnclear: false }]]);
  /** In the order in which they began. */
  readonly #order: number[] = [0];

  begin(nowMs: number, write: number): void {
    this.#writes.set(write, { beginMs: nowMs, effectMs: Infinity, durableMs: Infinity, isUnclear: false });
    this.#order.push(write);
  }

  #of(write: number): WriteHistory {
    const history = this.#writes.get(write);
    if (history === undefined) throw new Error(`write ${write} never began`);
    return history;
  }

  /** The call was answered JUKEBOX and is made anew: it may have had its effect, and has it once more then. */
  unclear(write: number): void {
    const history = this.#of(write);
    history.isUnclear = true;
    history.effectMs = Infinity;
  }

  /** Answered: it may be lost as long as it is not durable. */
  answered(nowMs: number, write: number): void {
    const history = this.#of(write);
    history.isUnclear = false;
    history.effectMs = Math.min(history.effectMs, nowMs);
  }

  durable(nowMs: number, write: number): void {
    this.answered(nowMs, write);
    const history = this.#of(write);
    history.durableMs = Math.min(history.durableMs, nowMs);
  }

  /** A read that began at `beganMs` and has just been answered saw this write. `proves`: what is seen cannot be lost any more. Null, or what is wrong. */
  seen(beganMs: number, nowMs: number, write: number, proves: boolean): string | null {
    const history = this.#writes.get(write);
    if (history === undefined) return `it holds write ${write}, which never wrote it`;
    const { beginMs, effectMs } = history;
    if (beginMs > nowMs) return `it holds write ${write}, which was sent after the answer`;
    for (let at = this.#order.length - 1; at >= 0; at -= 1) {
      const number = this.#order[at] as number;
      const other = this.#writes.get(number) as WriteHistory;
      if (other.beginMs <= effectMs) break;
      if (other.durableMs < beganMs) {
        return (
          `it holds write ${write} (sent ${ms(beginMs)}, over by ${ms(effectMs)}), but write ${number} came wholly after it ` +
          `(sent ${ms(other.beginMs)}) and was there for sure from ${ms(other.durableMs)}, before the read began (${ms(beganMs)})`
        );
      }
    }
    if (!history.isUnclear) history.effectMs = Math.min(effectMs, nowMs);
    if (proves) history.durableMs = Math.min(history.durableMs, nowMs);
    return null;
  }
}

function ms(time: number): string {
  return Number.isFinite(time) ? `${time.toFixed(1)} ms` : 'never';
}
