/**
 * What clients did to one register and saw of it, and whether one order of it all explains that (linearizability, with writes that may be lost until they are
 * durable). Time is the world's; a call lasts from its first sending to its last answer, so whatever the routers did of it lies between.
 */

export class RegisterHistory {
  /** By number of the write; write 0 is what was there in the beginning. */
  readonly #beginOf: number[] = [-1];
  /** It has had its effect by then, if it ever has one. */
  readonly #effectOf: number[] = [0];
  /** From then on it is there for sure, until something comes after it. */
  readonly #durableOf: number[] = [0];
  readonly #unclear = new Set<number>();

  begin(nowMs: number, write: number): void {
    this.#beginOf[write] = nowMs;
    this.#effectOf[write] = Infinity;
    this.#durableOf[write] = Infinity;
  }

  /** The call was answered JUKEBOX and is made anew: it may have had its effect, and has it once more then. */
  unclear(write: number): void {
    this.#unclear.add(write);
    this.#effectOf[write] = Infinity;
  }

  /** Answered: it may be lost as long as it is not durable. */
  answered(nowMs: number, write: number): void {
    this.#unclear.delete(write);
    this.#effectOf[write] = Math.min(this.#effectOf[write] ?? 0, nowMs);
  }

  durable(nowMs: number, write: number): void {
    this.answered(nowMs, write);
    this.#durableOf[write] = Math.min(this.#durableOf[write] ?? 0, nowMs);
  }

  /** A read that began at `beganMs` and has just been answered saw this write. `proves`: what is seen cannot be lost any more. Null, or what is wrong. */
  seen(beganMs: number, nowMs: number, write: number, proves: boolean): string | null {
    const begin = this.#beginOf[write];
    const effect = this.#effectOf[write];
    if (begin === undefined || effect === undefined) return `it holds write ${write}, which never wrote it`;
    if (begin > nowMs) return `it holds write ${write}, which was sent after the answer`;
    for (let other = 0; other < this.#beginOf.length; other += 1) {
      const otherBegin = this.#beginOf[other];
      if (otherBegin !== undefined && otherBegin > effect && (this.#durableOf[other] as number) < beganMs) {
        return (
          `it holds write ${write} (sent ${ms(begin)}, over by ${ms(effect)}), but write ${other} came wholly after it ` +
          `(sent ${ms(otherBegin)}) and was there for sure from ${ms(this.#durableOf[other] as number)}, before the read began (${ms(beganMs)})`
        );
      }
    }
    if (!this.#unclear.has(write)) this.#effectOf[write] = Math.min(effect, nowMs);
    if (proves) this.#durableOf[write] = Math.min(this.#durableOf[write] as number, nowMs);
    return null;
  }
}

function ms(time: number): string {
  return Number.isFinite(time) ? `${time.toFixed(1)} ms` : 'never';
}
