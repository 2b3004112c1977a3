/** A seeded generator (xoshiro128**, public domain algorithm by Blackman and Vigna): one seed, one run. */
export class SeededRandom {
  readonly #state = new Uint32Array(4);

  constructor(seed: number) {
    // splitmix32 spreads small seeds over the whole state.
    let word = seed >>> 0;
    for (let index = 0; index < 4; index += 1) {
      word = (word + 0x9e3779b9) >>> 0;
      let mixed = word ^ (word >>> 16);
      mixed = Math.imul(mixed, 0x21f0aaad);
      mixed ^= mixed >>> 15;
      mixed = Math.imul(mixed, 0x735a2d97);
      this.#state[index] = mixed ^ (mixed >>> 15);
    }
  }

  /** Uniform in [0, 2^32). */
  uint32(): number {
    const state = this.#state;
    const [a = 0, b = 0, c = 0, d = 0] = state;
    const scrambled = Math.imul(b, 5);
    const result = Math.imul((scrambled << 7) | (scrambled >>> 25), 9) >>> 0;
    state[2] = c ^ a;
    state[3] = d ^ b;
    state[1] = b ^ (c ^ a);
    state[0] = a ^ (d ^ b);
    state[2] = c ^ a ^ (b << 9);
    const last = d ^ b;
    state[3] = (last << 11) | (last >>> 21);
    return result;
  }

  /** Uniform in [0, `limit`), an integer. */
  below(limit: number): number {
    return Math.floor((this.uint32() / 0x1_0000_0000) * limit);
  }

  /** Uniform in [first, last], an integer. */
  between(first: number, last: number): number {
    return first + this.below(last - first + 1);
  }

  /** True with probability `share` (0 to 1). */
  chance(share: number): boolean {
    return this.uint32() / 0x1_0000_0000 < share;
  }

  pick<T>(choices: readonly T[]): T {
    const choice = choices[this.below(choices.length)];
    if (choice === undefined) throw new Error('pick: nothing to choose from');
    return choice;
  }
}
