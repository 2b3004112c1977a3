/**
 * The owner's memory of calls that changed an object (design section 10 [!]): a call that comes again, over another socket or through another router, joins
 * the one that runs or is answered as done, for REPETITION_WINDOW_MS after it ended. Without it a WRITE that was stuck somewhere would put old bytes over
 * newer ones. It goes with the object when that moves.
 *
 * It outlives the process: what is remembered is in the page cache (`RepetitionJournal`) before the answer that it belongs to leaves. A kill keeps that; a power
 * cut does not, but a machine does not come back while copies of a call are under way (see RepetitionFile).
 *
 * Completed calls live in typed arrays: a ring in the order of completion with hash chains through it, since as objects they would be the largest heap of
 * the process (toolchain.md 7). At the bound the oldest go, whatever their age.
 */
import { createHash } from 'node:crypto';

import { assert } from '../core/assert.ts';
import type { Clock } from '../core/time.ts';
import { REPETITION_WINDOW_MS, REPETITIONS_BYTES_MAX } from './peer-port.ts';

const ENTRIES_MAX = 2 ** 19;
/** Of the calls that a log has the newest: nothing that was not answered before the process ended is further from its end. */
const RECOVERED_MAX = 2 ** 16;
const KEY_WORDS = 4;
/** Exported entry: key, age in milliseconds. */
const ENTRY_BYTES = KEY_WORDS * 4 + 4;

/** 128 bits that name a call. */
export type CallWords = Uint32Array;

/** A call that an earlier life of the process completed. */
export interface RememberedCall {
  readonly fileid: number;
  readonly words: CallWords;
}

/** Keeps what a process remembered for its next life. */
export interface RepetitionJournal {
  /** Calls of earlier lives that ended within the window. */
  load(): Iterable<RememberedCall>;
  /** `entries`: JOURNAL_ENTRY_BYTES each, the caller's again when it returns; then a kill of the process does not lose them. Throws system errors. */
  append(entries: Buffer): void;
}

/** Key, fileid (float64 LE). */
export const JOURNAL_ENTRY_BYTES = KEY_WORDS * 4 + 8;
const JOURNAL_BATCH_MAX = 512;

/** Words of an operation id in text: 32 hex digits are taken as they are, so that they name the same call here as at the router that sent them. */
export function wordsOfHex(text: string, into: CallWords): boolean {
  if (text.length !== 32) return false;
  for (let word = 0; word < KEY_WORDS; word += 1) {
    const value = Number.parseInt(text.slice(word * 8, word * 8 + 8), 16);
    if (!(value >= 0)) return false;
    into[word] = value;
  }
  return true;
}

/** Inverse of wordsOfHex. */
export function hexOfWords(words: CallWords): string {
  let text = '';
  for (let word = 0; word < KEY_WORDS; word += 1) text += (words[word] as number).toString(16).padStart(8, '0');
  return text;
}

/** Words of any other operation id. */
export function wordsOfText(text: string): CallWords {
  const digest = createHash('sha256').update(text).digest();
  return Uint32Array.from({ length: KEY_WORDS }, (_, word) => digest.readUInt32LE(word * 4));
}

export class Repetitions {
  readonly #clock: Clock;
  readonly #mask: number;
  readonly #words: Uint32Array;
  readonly #fileids: Float64Array;
  readonly #endedMs: Float64Array;
  /** Next slot of the same chain, plus one; 0 ends it. */
  readonly #next: Int32Array;
  readonly #heads: Int32Array;
  #head = 0;
  #count = 0;
  readonly #journal: RepetitionJournal | null;
  readonly #batch = Buffer.alloc(JOURNAL_BATCH_MAX * JOURNAL_ENTRY_BYTES);
  #batched = 0;
  /** By `fileid key`. Bounded by the calls in execution. */
  readonly #running = new Map<string, Promise<unknown>>();

  /** `entriesMax`: a power of two; 40 bytes each. */
  constructor(clock: Clock, entriesMax = ENTRIES_MAX, journal: RepetitionJournal | null = null) {
    this.#clock = clock;
    this.#journal = journal;
    this.#mask = entriesMax - 1;
    this.#words = new Uint32Array(entriesMax * KEY_WORDS);
    this.#fileids = new Float64Array(entriesMax);
    this.#endedMs = new Float64Array(entriesMax);
    this.#next = new Int32Array(entriesMax);
    this.#heads = new Int32Array(entriesMax);
    // As if they had ended now, which only keeps them longer.
    for (const { fileid, words } of journal?.load() ?? []) this.#keep(fileid, words);
  }

  /** Completed calls that are remembered. */
  get size(): number {
    return this.#count;
  }

  /** Whether this call ended well here not long ago. */
  isDone(fileid: number, words: CallWords): boolean {
    this.#forgetOld();
    for (let slot = (this.#heads[this.#chain(fileid, words)] as number) - 1; slot >= 0; slot = (this.#next[slot] as number) - 1) {
      if (this.#fileids[slot] === fileid && this.#is(slot, words)) return true;
    }
    return false;
  }

  /** The same call while it runs. */
  running<T>(fileid: number, words: CallWords): Promise<T> | null {
    if (this.#running.size === 0) return null;
    return (this.#running.get(`${fileid} ${hexOfWords(words)}`) as Promise<T> | undefined) ?? null;
  }

  /**
   * `call` runs now, and whoever repeats it joins it until it settles. It is for the call to `remember` that it did something, before it settles and before anybody
   * can learn that it ended. One that fails had no effect, or one that may be had again.
   */
  run<T>(fileid: number, words: CallWords, call: Promise<T>): Promise<T> {
    const key = `${fileid} ${hexOfWords(words)}`;
    const running = call.then(
      (result) => {
        this.#running.delete(key);
        return result;
      },
      (error: unknown) => {
        this.#running.delete(key);
        throw error;
      },
    );
    this.#running.set(key, running);
    return running;
  }

  /** Calls that the log of an object has, found when it was recovered. */
  recovered(fileid: number, calls: readonly CallWords[]): void {
    for (const words of calls.slice(-RECOVERED_MAX)) if (!this.isDone(fileid, words)) this.remember(fileid, words);
  }

  /** A call that ended now. */
  remember(fileid: number, words: CallWords): void {
    this.#keep(fileid, words);
    if (this.#journal === null) return;
    // The answer goes out when this turn's microtasks are done, at the earliest: theirs come behind this one.
    if (this.#batched === 0) queueMicrotask(() => this.#flush());
    let at = this.#batched * JOURNAL_ENTRY_BYTES;
    for (let word = 0; word < KEY_WORDS; word += 1) at = this.#batch.writeUInt32LE(words[word] as number, at);
    this.#batch.writeDoubleLE(fileid, at);
    this.#batched += 1;
    if (this.#batched === JOURNAL_BATCH_MAX) this.#flush();
  }

  #flush(): void {
    if (this.#batched === 0) return;
    const entries = this.#batch.subarray(0, this.#batched * JOURNAL_ENTRY_BYTES);
    this.#batched = 0;
    this.#journal?.append(entries);
  }

  #keep(fileid: number, words: CallWords): void {
    if (this.#count > this.#mask) this.#forgetOldest();
    const slot = (this.#head + this.#count) & this.#mask;
    this.#count += 1;
    this.#words.set(words, slot * KEY_WORDS);
    this.#fileids[slot] = fileid;
    this.#endedMs[slot] = this.#clock.monotonicMs();
    const chain = this.#chain(fileid, words);
    this.#next[slot] = this.#heads[chain] as number;
    this.#heads[chain] = slot + 1;
  }

  /** What is remembered of an object, the newest that fit: for the router that it moves to. */
  export(fileid: number): Buffer {
    this.#forgetOld();
    const nowMs = this.#clock.monotonicMs();
    const slots: number[] = [];
    for (let index = this.#count - 1; index >= 0 && (slots.length + 1) * ENTRY_BYTES <= REPETITIONS_BYTES_MAX; index -= 1) {
      const slot = (this.#head + index) & this.#mask;
      if (this.#fileids[slot] === fileid) slots.push(slot);
    }
    const bytes = Buffer.allocUnsafe(slots.length * ENTRY_BYTES);
    let at = 0;
    for (let index = slots.length - 1; index >= 0; index -= 1) {
      const slot = slots[index] as number;
      for (let word = 0; word < KEY_WORDS; word += 1) at = bytes.writeUInt32LE(this.#words[slot * KEY_WORDS + word] as number, at);
      at = bytes.writeUInt32LE(Math.min(0xffff_ffff, Math.max(0, Math.round(nowMs - (this.#endedMs[slot] as number)))), at);
    }
    return bytes;
  }

  /** Takes over what another router remembered. False: these are no such bytes, and nothing was taken. */
  import(fileid: number, bytes: Buffer): boolean {
    if (bytes.length % ENTRY_BYTES !== 0 || bytes.length > REPETITIONS_BYTES_MAX) return false;
    const words = new Uint32Array(KEY_WORDS);
    for (let at = 0; at < bytes.length; at += ENTRY_BYTES) {
      for (let word = 0; word < KEY_WORDS; word += 1) words[word] = bytes.readUInt32LE(at + word * 4);
      // Their ages would not be in the order of the ring: as if they had ended now, which only keeps them longer.
      if (bytes.readUInt32LE(at + KEY_WORDS * 4) <= REPETITION_WINDOW_MS && !this.isDone(fileid, words)) this.remember(fileid, words);
    }
    return true;
  }

  /** The object is another router's: what is remembered of it here says nothing any more. */
  forget(fileid: number): void {
    for (let index = 0; index < this.#count; index += 1) {
      const slot = (this.#head + index) & this.#mask;
      // It keeps its place in ring and chain; no object has this number.
      if (this.#fileids[slot] === fileid) this.#orphan(slot);
    }
  }

  #orphan(slot: number): void {
    this.#unchain(slot);
    this.#fileids[slot] = -1;
    const chain = this.#chain(-1, this.#words.subarray(slot * KEY_WORDS, slot * KEY_WORDS + KEY_WORDS));
    this.#next[slot] = this.#heads[chain] as number;
    this.#heads[chain] = slot + 1;
  }

  #chain(fileid: number, words: CallWords): number {
    let hash = (words[0] as number) ^ Math.imul(words[1] as number, 0x9e37_79b1) ^ Math.imul(words[2] as number, 0x85eb_ca6b);
    hash ^= Math.imul(words[3] as number, 0xc2b2_ae35) ^ Math.imul(fileid | 0, 0x27d4_eb2f);
    hash ^= hash >>> 15;
    return hash & this.#mask;
  }

  #is(slot: number, words: CallWords): boolean {
    const at = slot * KEY_WORDS;
    return this.#words[at] === words[0] && this.#words[at + 1] === words[1] && this.#words[at + 2] === words[2] && this.#words[at + 3] === words[3];
  }

  #forgetOld(): void {
    const before = this.#clock.monotonicMs() - REPETITION_WINDOW_MS;
    while (this.#count > 0 && (this.#endedMs[this.#head] as number) < before) this.#forgetOldest();
  }

  #forgetOldest(): void {
    const slot = this.#head;
    this.#unchain(slot);
    this.#head = (slot + 1) & this.#mask;
    this.#count -= 1;
  }

  #unchain(slot: number): void {
    const chain = this.#chain(this.#fileids[slot] as number, this.#words.subarray(slot * KEY_WORDS, slot * KEY_WORDS + KEY_WORDS));
    if (this.#heads[chain] === slot + 1) {
      this.#heads[chain] = this.#next[slot] as number;
      return;
    }
    let before = (this.#heads[chain] as number) - 1;
    while (before >= 0 && this.#next[before] !== slot + 1) before = (this.#next[before] as number) - 1;
    assert(before >= 0, 'every remembered call is in its chain');
    this.#next[before] = this.#next[slot] as number;
  }
}
