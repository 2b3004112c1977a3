import { assert } from '../server/core/assert.ts';

/** First-in-first-out queue of slot numbers in a ring of fixed size. */
export class SlotQueue {
  readonly #ring: Int32Array;
  #head = 0;
  #count = 0;

  constructor(capacity: number) {
    this.#ring = new Int32Array(capacity);
  }

  get count(): number {
    return this.#count;
  }

  push(slot: number): void {
    assert(this.#count < this.#ring.length, 'the slot queue is full');
    let tail = this.#head + this.#count;
    if (tail >= this.#ring.length) tail -= this.#ring.length;
    this.#ring[tail] = slot;
    this.#count += 1;
  }

  /** Takes the oldest slot; there must be one. */
  shift(): number {
    assert(this.#count > 0, 'the slot queue is empty');
    const slot = this.#ring[this.#head] as number;
    this.#head += 1;
    if (this.#head === this.#ring.length) this.#head = 0;
    this.#count -= 1;
    return slot;
  }
}
