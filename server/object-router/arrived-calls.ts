/**
 * Completed calls of one object that another router remembered before it moved here (`Repetitions`), with the times at which they ended. They come in portions
 * while the object is copied, so that the moment in which its I/O is held has only the last ones to take.
 */
import type { Clock } from '../core/time.ts';
import { REPETITION_WINDOW_MS } from './peer-port.ts';

export const KEY_WORDS = 4;
/** A remembered call on its way: key, age in milliseconds. */
export const CALL_ENTRY_BYTES = KEY_WORDS * 4 + 4;
const ENTRIES_FIRST = 64;
/** What a router can remember of one object at most: its own memory, and as much that came to it. At the bound the oldest half goes, as in the giver's ring. */
const ENTRIES_MAX = 2 ** 20;

export class ArrivedCalls {
  readonly fileid: number;
  readonly #clock: Clock;
  readonly #entriesMax: number;
  #words = new Uint32Array(ENTRIES_FIRST * KEY_WORDS);
  #endedMs = new Float64Array(ENTRIES_FIRST);
  /** Next entry of the same chain, plus one; 0 ends it. */
  #next = new Int32Array(ENTRIES_FIRST);
  #heads = new Int32Array(ENTRIES_FIRST);
  #count = 0;
  #newestMs = -Infinity;

  /** `entriesMax`: a power of two. */
  constructor(clock: Clock, fileid: number, entriesMax = ENTRIES_MAX) {
    this.#clock = clock;
    this.fileid = fileid;
    this.#entriesMax = entriesMax;
  }

  get count(): number {
    return this.#count;
  }

  /** When the last of them ended (monotonic). */
  get newestMs(): number {
    return this.#newestMs;
  }

  /** False: these are no remembered calls, and nothing was taken. `taken` is called with the words of each that is kept; they change afterwards. */
  add(bytes: Buffer, taken: (words: Uint32Array) => void): boolean {
    const added = bytes.length / CALL_ENTRY_BYTES;
    if (!Number.isInteger(added) || added > this.#entriesMax / 2) return false;
    // An object that is written to is copied for longer than its calls are remembered.
    if (this.#count + added > this.#entriesMax) this.#dropOldest(this.#count - this.#entriesMax / 2);
    this.#grow(this.#count + added);
    const nowMs = this.#clock.monotonicMs();
    for (let at = 0; at < bytes.length; at += CALL_ENTRY_BYTES) {
      const ageMs = bytes.readUInt32LE(at + KEY_WORDS * 4);
      if (ageMs > REPETITION_WINDOW_MS) continue;
      const slot = this.#count;
      this.#count += 1;
      for (let word = 0; word < KEY_WORDS; word += 1) this.#words[slot * KEY_WORDS + word] = bytes.readUInt32LE(at + word * 4);
      const endedMs = nowMs - ageMs;
      this.#endedMs[slot] = endedMs;
      if (endedMs > this.#newestMs) this.#newestMs = endedMs;
      this.#enchain(slot);
      taken(this.#words.subarray(slot * KEY_WORDS, slot * KEY_WORDS + KEY_WORDS));
    }
    return true;
  }

  /** Whether this call is among them and ended at `sinceMs` or later. */
  has(words: Uint32Array, sinceMs: number): boolean {
    if (this.#newestMs < sinceMs) return false;
    for (let slot = (this.#heads[this.#chain(words, 0)] as number) - 1; slot >= 0; slot = (this.#next[slot] as number) - 1) {
      const at = slot * KEY_WORDS;
      if (
        this.#words[at] === words[0] &&
        this.#words[at + 1] === words[1] &&
        this.#words[at + 2] === words[2] &&
        this.#words[at + 3] === words[3] &&
        (this.#endedMs[slot] as number) >= sinceMs
      )
        return true;
    }
    return false;
  }

  endedMs(slot: number): number {
    return this.#endedMs[slot] as number;
  }

  /** Writes the key of an entry; returns the position behind it. */
  writeKey(slot: number, into: Buffer, at: number): number {
    let end = at;
    for (let word = 0; word < KEY_WORDS; word += 1) end = into.writeUInt32LE(this.#words[slot * KEY_WORDS + word] as number, end);
    return end;
  }

  #grow(entries: number): void {
    let room = this.#endedMs.length;
    if (entries <= room) return;
    while (room < entries) room *= 2;
    const words = new Uint32Array(room * KEY_WORDS);
    words.set(this.#words);
    this.#words = words;
    const endedMs = new Float64Array(room);
    endedMs.set(this.#endedMs);
    this.#endedMs = endedMs;
    this.#next = new Int32Array(room);
    this.#heads = new Int32Array(room);
    for (let slot = 0; slot < this.#count; slot += 1) this.#enchain(slot);
  }

  #dropOldest(entries: number): void {
    this.#words.copyWithin(0, entries * KEY_WORDS, this.#count * KEY_WORDS);
    this.#endedMs.copyWithin(0, entries, this.#count);
    this.#count -= entries;
    this.#heads.fill(0);
    for (let slot = 0; slot < this.#count; slot += 1) this.#enchain(slot);
  }

  #enchain(slot: number): void {
    const chain = this.#chain(this.#words, slot * KEY_WORDS);
    this.#next[slot] = this.#heads[chain] as number;
    this.#heads[chain] = slot + 1;
  }

  #chain(words: Uint32Array, at: number): number {
    let hash = (words[at] as number) ^ Math.imul(words[at + 1] as number, 0x9e37_79b1) ^ Math.imul(words[at + 2] as number, 0x85eb_ca6b);
    hash ^= Math.imul(words[at + 3] as number, 0xc2b2_ae35);
    hash ^= hash >>> 15;
    return hash & (this.#heads.length - 1);
  }
}
