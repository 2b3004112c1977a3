import { assert } from '../server/core/assert.ts';

/** An entry is four 32-bit words, so that a probe touches one cache line: segment id, byte offset, slot + 1 (0: free), heat. */
const WORDS = 4;
const SLOT = 2;
const HEAT = 3;

/**
 * Hash table (segment id, byte offset) -> (slot, heat) with open addressing in one Int32Array: no object, no allocation and
 * no tombstones (a removal shifts its followers back). It is at most half full, by construction.
 *
 * An entry number is valid until the next `insert` or `remove`.
 */
export class BlockIndex {
  readonly #words: Int32Array;
  readonly #mask: number;
  #count = 0;

  /** For at most `capacity` entries: 32 to 64 bytes of memory each. */
  constructor(capacity: number) {
    let entries = 4;
    while (entries < capacity * 2) entries *= 2;
    // Word numbers are kept in 32-bit integers.
    assert(entries * WORDS <= 2 ** 31, `an index of ${capacity} blocks is too large`);
    this.#words = new Int32Array(entries * WORDS);
    this.#mask = entries * WORDS - 1;
  }

  get count(): number {
    return this.#count;
  }

  /** The entry of a key, or -1. Both parts are 32-bit unsigned integers. */
  find(segmentId: number, offsetBytes: number): number {
    const words = this.#words;
    const segment = segmentId | 0;
    const offset = offsetBytes | 0;
    for (let entry = this.#home(segment, offset); ; entry = (entry + WORDS) & this.#mask) {
      if (words[entry + SLOT] === 0) return -1;
      if (words[entry] === segment && words[entry + 1] === offset) return entry;
    }
  }

  slot(entry: number): number {
    return (this.#words[entry + SLOT] as number) - 1;
  }

  heat(entry: number): number {
    return this.#words[entry + HEAT] as number;
  }

  setHeat(entry: number, heat: number): void {
    this.#words[entry + HEAT] = heat;
  }

  /** Adds a key that is not there, with heat 0. */
  insert(segmentId: number, offsetBytes: number, slot: number): void {
    const words = this.#words;
    assert(this.#count * 2 * WORDS < words.length, 'the index is full');
    let entry = this.#home(segmentId | 0, offsetBytes | 0);
    while (words[entry + SLOT] !== 0) entry = (entry + WORDS) & this.#mask;
    words[entry] = segmentId;
    words[entry + 1] = offsetBytes;
    words[entry + SLOT] = slot + 1;
    words[entry + HEAT] = 0;
    this.#count += 1;
  }

  /** Removes an entry. */
  remove(entry: number): void {
    const words = this.#words;
    const mask = this.#mask;
    let hole = entry;
    for (let next = (hole + WORDS) & mask; words[next + SLOT] !== 0; next = (next + WORDS) & mask) {
      const home = this.#home(words[next] as number, words[next + 1] as number);
      // A follower may fill the hole unless its home lies (cyclically) behind the hole: then a search would miss it.
      if (((next - home) & mask) < ((next - hole) & mask)) continue;
      words.copyWithin(hole, next, next + WORDS);
      hole = next;
    }
    words[hole + SLOT] = 0;
    this.#count -= 1;
  }

  #home(segment: number, offset: number): number {
    return (blockHash(segment, offset) * WORDS) & this.#mask;
  }
}

/** 32 well-mixed bits of a key. Offsets of neighbours differ by a constant, segment ids by one: both must spread. */
export function blockHash(segmentId: number, offsetBytes: number): number {
  let hash = Math.imul(segmentId, 0x9e3779b1) ^ Math.imul(offsetBytes ^ (offsetBytes >>> 15), 0x85ebca77);
  hash = Math.imul(hash ^ (hash >>> 16), 0x7feb352d);
  hash = Math.imul(hash ^ (hash >>> 15), 0x846ca68b);
  return hash ^ (hash >>> 16);
}
