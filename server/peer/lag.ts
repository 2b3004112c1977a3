/**
 * How long frames were under way, from the sender's clock in their heads: against the fastest one seen. A frame that waited in a socket buffer while its sender
 * already gave up must not be executed (design section 10: late duplicates); nor what comes after a silence.
 */

/** Clocks drift apart: the fastest frame seen is forgotten by this much per millisecond, far slower than a queue builds up. */
const DRIFT_PER_MS = 0.0005;
const TWO_32 = 0x1_0000_0000;

export class Lag {
  /** Least (receiver's clock - sender's clock) so far, modulo 2^32 relative to the first one. */
  #reference = 0;
  #least = 0;
  #atMs = 0;
  #isEmpty = true;

  /** A frame that was sent at `sentMs` (the sender's clock modulo 2^32) came at `nowMs`: milliseconds that it was under way longer than the fastest. */
  of(sentMs: number, nowMs: number): number {
    const difference = nowMs - sentMs;
    if (this.#isEmpty) {
      this.#isEmpty = false;
      this.#reference = difference;
      this.#atMs = nowMs;
      return 0;
    }
    let offset = (difference - this.#reference) % TWO_32;
    if (offset >= TWO_32 / 2) offset -= TWO_32;
    else if (offset < -TWO_32 / 2) offset += TWO_32;
    this.#least = Math.min(this.#least + (nowMs - this.#atMs) * DRIFT_PER_MS, offset);
    this.#atMs = nowMs;
    return offset - this.#least;
  }
}
