/**
 * The owner's memory of calls that changed an object (design section 10 [!]): a call that comes again, over another socket or through another router, joins
 * the one that runs or is answered as done, for REPETITION_WINDOW_MS after it ended. Without it a WRITE that was stuck somewhere would put old bytes over
 * newer ones. It goes with the object when that moves.
 *
 * It outlives the process: what is remembered is in the page cache (`RepetitionJournal`) before the answer that it belongs to leaves. A kill keeps that; of a power
 * cut it outlives what was `keep`t, before the log of it got out of the reach of a recovery. A machine does not come back while copies of a call are under way (see RepetitionFile).
 *
 * Completed calls live in typed arrays: a ring in the order of completion with hash chains through it, since as objects they would be the largest heap of
 * the process (toolchain.md 7). At the bound the oldest go, whatever their age.
 */
import { createHash } from 'node:crypto';

import { assert } from '../core/assert.ts';
import type { Clock } from '../core/time.ts';
import { ArrivedCalls, CALL_ENTRY_BYTES, KEY_WORDS } from './arrived-calls.ts';
import { REPETITION_WINDOW_MS } from './peer-port.ts';

const ENTRIES_MAX = 2 ** 19;
/** Of the calls that a log has the newest: nothing that was not answered before the process ended is further from its end. */
const RECOVERED_MAX = 2 ** 16;

/** 128 bits that name a call. */
export type CallWords = Uint32Array;

/** A call that an earlier life of the process completed. */
export interface RememberedCall {
  /** Below 0: no call, but the word that all calls of object `-fileid` before it are forgotten. */
  readonly fileid: number;
  readonly words: CallWords;
}

/** A part of what is remembered of an object: entries of CALL_ENTRY_BYTES. */
export interface RememberedPart {
  readonly bytes: Buffer;
  readonly next: number;
  readonly behind: number;
}

/** Keeps what a process remembered for its next life. */
export interface RepetitionJournal {
  /** Calls of earlier lives that ended within the window, in the order in which they were appended. */
  load(): Iterable<RememberedCall>;
  /** `entries`: JOURNAL_ENTRY_BYTES each, the caller's again when it returns; then a kill of the process does not lose them. Throws system errors. */
  append(entries: Buffer): void;
  /** Running number of the entry that is appended next. */
  readonly end: number;
  /** What entries with numbers below `end` say of calls of this object is durable in its log: a later life believes them also after a power cut. Throws system errors. */
  prove(fileid: number, end: number): void;
  /**
   * Resolves when a power cut does not lose what was appended before the call. Also when that failed: the journal says so to whom it concerns, and calls that are done again
   * are a smaller evil than an object that nothing of goes to the backend.
   */
  sync(): Promise<void>;
}

/** Key, fileid (float64 LE) as in RememberedCall. */
export const JOURNAL_ENTRY_BYTES = KEY_WORDS * 4 + 8;
const JOURNAL_BATCH_MAX = 512;
/** Key of the word that calls are forgotten: it has none. */
const FORGOTTEN: CallWords = new Uint32Array(KEY_WORDS);

const HEX: readonly string[] = Array.from({ length: 0x1_0000 }, (_, value) => value.toString(16).padStart(4, '0'));

/** Words of an operation id in text: 32 hex digits are taken as they are, so that they name the same call here as at the router that sent them. */
export function wordsOfHex(text: string, into: CallWords): boolean {
  if (text.length !== 32) return false;
  for (let word = 0; word < KEY_WORDS; word += 1) {
    let value = 0;
    for (let at = word * 8; at < word * 8 + 8; at += 1) {
      const code = text.charCodeAt(at);
      const digit = code >= 0x30 && code <= 0x39 ? code - 0x30 : code >= 0x61 && code <= 0x66 ? code - 0x57 : -1;
      if (digit < 0) return false;
      value = value * 16 + digit;
    }
    into[word] = value;
  }
  return true;
}

/** Inverse of wordsOfHex. */
export function hexOfWords(words: CallWords): string {
  let text = '';
  for (let word = 0; word < KEY_WORDS; word += 1) {
    const value = words[word] as number;
    text += (HEX[value >>> 16] as string) + (HEX[value & 0xffff] as string);
  }
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
  /** Running number of the entry at `#head`; above all counts of what arrived, so that one number says how far a memory was read. */
  #firstIndex = 2 ** 32;
  /** Entries with lower numbers say nothing of that object: it was another router's meanwhile. */
  readonly #forgottenBefore = new Map<number, number>();
  /** Of objects that came from other routers. */
  readonly #arrived = new Map<number, ArrivedCalls>();
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
    for (const { fileid, words } of journal?.load() ?? []) {
      if (fileid < 0) this.#forgetBefore(-fileid);
      else this.#keep(fileid, words);
    }
  }

  /** Completed calls that are remembered. */
  get size(): number {
    return this.#count;
  }

  /** Whether this call ended well here not long ago. */
  isDone(fileid: number, words: CallWords): boolean {
    this.#forgetOld();
    for (let slot = (this.#heads[this.#chain(fileid, words)] as number) - 1; slot >= 0; slot = (this.#next[slot] as number) - 1) {
      if (this.#fileids[slot] !== fileid || !this.#is(slot, words)) continue;
      // Chains have the newest first.
      if (this.#firstIndex + ((slot - this.#head) & this.#mask) >= (this.#forgottenBefore.get(fileid) ?? 0)) return true;
      break;
    }
    if (this.#arrived.size === 0) return false;
    return this.#arrived.get(fileid)?.has(words, this.#clock.monotonicMs() - REPETITION_WINDOW_MS) ?? false;
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

  /**
   * Resolves when what is remembered of an object outlives a power cut. `durable` makes the log durable up to where it is when that is called: an entry whose change is
   * not in the log any more would have a write answered that was never done.
   */
  async keep(fileid: number, durable: () => Promise<void>): Promise<void> {
    const journal = this.#journal;
    if (journal === null) return;
    this.#flush();
    const { end } = journal;
    await durable();
    journal.prove(fileid, end);
    await journal.sync();
  }

  /** Resolves when what was written down so far, the word that an object is forgotten included, outlives a power cut. Nothing is believed for that. */
  async sync(): Promise<void> {
    this.#flush();
    await this.#journal?.sync();
  }

  /** A call that ended now. */
  remember(fileid: number, words: CallWords): void {
    this.#keep(fileid, words);
    this.#note(fileid, words);
  }

  #note(fileid: number, words: CallWords): void {
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

  /**
   * What is remembered of an object behind `from` (0: all of it), the oldest first, at most `bytesMax`: for the router that it moves to. `next`: where to go on.
   * `behind`: at most so many are left then.
   */
  after(fileid: number, from: number, bytesMax: number): RememberedPart {
    this.#forgetOld();
    const nowMs = this.#clock.monotonicMs();
    const sinceMs = nowMs - REPETITION_WINDOW_MS;
    const room = Math.floor(bytesMax / CALL_ENTRY_BYTES);
    const arrived = this.#arrived.get(fileid);
    const arrivedCount = arrived?.count ?? 0;
    const end = this.#firstIndex + this.#count;
    const begin = Math.max(this.#firstIndex, this.#forgottenBefore.get(fileid) ?? 0);
    const most = Math.max(0, arrivedCount - from) + Math.max(0, end - Math.max(begin, from));
    const bytes = Buffer.allocUnsafe(Math.min(room, most) * CALL_ENTRY_BYTES);
    const put = (at: number, endedMs: number): number => bytes.writeUInt32LE(Math.min(0xffff_ffff, Math.max(0, Math.round(nowMs - endedMs))), at);
    let at = 0;
    let next = from;
    for (; arrived !== undefined && next < arrivedCount && at < bytes.length; next += 1) {
      if (arrived.endedMs(next) >= sinceMs) at = put(arrived.writeKey(next, bytes, at), arrived.endedMs(next));
    }
    if (next >= arrivedCount) {
      next = Math.max(next, begin);
      for (; next < end && at < bytes.length; next += 1) {
        const slot = (this.#head + next - this.#firstIndex) & this.#mask;
        if (this.#fileids[slot] !== fileid) continue;
        for (let word = 0; word < KEY_WORDS; word += 1) at = bytes.writeUInt32LE(this.#words[slot * KEY_WORDS + word] as number, at);
        at = put(at, this.#endedMs[slot] as number);
      }
    }
    const behind = next < arrivedCount ? arrivedCount - next + end - begin : Math.max(0, end - next);
    return { bytes: bytes.subarray(0, at), next, behind };
  }

  /** For what another router remembers of an object that may come here: it counts for nothing until all of it has `arrived`. */
  arriving(fileid: number): ArrivedCalls {
    // What an attempt brought that came to nothing may have been given up since; and what was believed after a power cut, of when the object was here before.
    this.forget(fileid);
    return new ArrivedCalls(this.#clock, fileid);
  }

  /** Takes bytes of `after` of another router. It outlives the process from here on. False: they are none, and nothing was taken. */
  arrive(calls: ArrivedCalls, bytes: Buffer): boolean {
    const isTaken = calls.add(bytes, (words) => this.#note(calls.fileid, words));
    this.#flush();
    return isTaken;
  }

  /** All of it is here and counts, instead of what arrived of that object before. */
  arrived(calls: ArrivedCalls): void {
    const sinceMs = this.#clock.monotonicMs() - REPETITION_WINDOW_MS;
    this.#arrived.delete(calls.fileid);
    let entries = calls.count;
    for (const [fileid, { newestMs, count }] of this.#arrived) {
      if (newestMs < sinceMs) this.#arrived.delete(fileid);
      else entries += count;
    }
    // At the bound what came first goes first, as in the ring.
    for (const [fileid, { count }] of this.#arrived) {
      if (entries <= this.#mask + 1) break;
      this.#arrived.delete(fileid);
      entries -= count;
    }
    if (calls.count > 0) this.#arrived.set(calls.fileid, calls);
  }

  /** The object is another router's, or some of its data is given up: what is remembered of it here says nothing any more, nor in the next life of the process. */
  forget(fileid: number): void {
    this.#arrived.delete(fileid);
    this.#forgetBefore(fileid);
    this.#noteForgotten(fileid);
  }

  #noteForgotten(fileid: number): void {
    this.#note(-fileid, FORGOTTEN);
    this.#flush();
  }

  #forgetBefore(fileid: number): void {
    for (const [other, before] of this.#forgottenBefore) if (before <= this.#firstIndex) this.#forgottenBefore.delete(other);
    // Its entries keep their places: to look for them would take as long as the memory is.
    this.#forgottenBefore.set(fileid, this.#firstIndex + this.#count);
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
    this.#firstIndex += 1;
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
