/**
 * Duplicate request cache: replies of calls that must not run twice (CREATE, REMOVE, RENAME ...), for clients that lost the answer and
 * ask again, on the same connection or on a new one.
 *
 * A call is recognised by a hash over client address, xid, and the whole message with its credential, so neither another user nor
 * another procedure can meet its answer. While the first one runs, duplicates join it; afterwards they get its reply, byte for byte.
 */
import type { Clock } from '../core/time.ts';
import type { ServerCall } from './server-call.ts';

export interface DuplicateRequestCacheLimits {
  /** Completed replies kept; a power of two. */
  readonly entriesMax: number;
  /** Memory for their bytes. At either bound the oldest go, whatever their age. */
  readonly bytesMax: number;
  /** A reply older than this is forgotten: the same bytes are then a new call. */
  readonly ageMaxMs: number;
}

export const DUPLICATE_REQUEST_CACHE_LIMITS: DuplicateRequestCacheLimits = { entriesMax: 65_536, bytesMax: 64 * 1024 * 1024, ageMaxMs: 180_000 };

/** Identity of a call: 128 bits of its hash. `text` is the same bits as a string. */
export interface CallKey {
  readonly text: string;
  readonly words: Uint32Array;
}

/** The key of a call. */
export function keyOf(call: ServerCall): CallKey {
  const digest = call.digest(`${call.clientAddress} ${call.xid} `);
  const words = new Uint32Array(4);
  for (let i = 0; i < 4; i++) words[i] = digest.readUInt32LE(4 * i);
  return { text: digest.toString('latin1', 0, 16), words };
}

/** What to do with a call: run it (it is now the one that duplicates join), wait for the running one, or answer with a copy of `reply`. */
export type DuplicateVerdict = { readonly kind: 'run' } | { readonly kind: 'joined' } | { readonly kind: 'replay'; readonly reply: Buffer };

const RUN: DuplicateVerdict = { kind: 'run' };
const JOINED: DuplicateVerdict = { kind: 'joined' };

/** Piece in which memory for replies is allocated; a reply lies within one. */
const PIECE_BYTES = 256 * 1024;

/**
 * Completed entries live in a ring of typed arrays under an open-addressing index: they would otherwise be the biggest JavaScript heap
 * of the process, which makes every socket buffer dear (toolchain.md 7). The ring's order is the order of completion.
 */
export class DuplicateRequestCache {
  readonly #clock: Clock;
  readonly #ageMaxMs: number;
  /** Running calls and the duplicates that wait for them; bounded by the calls outstanding. */
  readonly #running = new Map<string, ServerCall[]>();

  readonly #mask: number;
  #head = 0;
  #count = 0;
  readonly #words: Uint32Array;
  readonly #completedMs: Float64Array;
  /** Position of the reply in the endless sequence of reply bytes; modulo the pieces' total it is a place in memory. */
  readonly #positions: Float64Array;
  readonly #lengths: Uint32Array;

  /** Entry number + 1, 0 = free. Twice as many slots as entries, linear probing. */
  readonly #index: Int32Array;
  readonly #indexMask: number;

  readonly #pieces: (Buffer | undefined)[];
  readonly #capacityBytes: number;
  #tailPosition = 0;

  constructor(limits: DuplicateRequestCacheLimits, clock: Clock) {
    this.#clock = clock;
    this.#ageMaxMs = limits.ageMaxMs;
    const entries = limits.entriesMax;
    this.#mask = entries - 1;
    this.#words = new Uint32Array(entries * 4);
    this.#completedMs = new Float64Array(entries);
    this.#positions = new Float64Array(entries);
    this.#lengths = new Uint32Array(entries);
    this.#index = new Int32Array(entries * 2);
    this.#indexMask = entries * 2 - 1;
    this.#pieces = Array.from({ length: Math.max(Math.floor(limits.bytesMax / PIECE_BYTES), 1) });
    this.#capacityBytes = this.#pieces.length * PIECE_BYTES;
  }

  /** Completed replies held. */
  get entries(): number {
    return this.#count;
  }

  /** Calls running. */
  get running(): number {
    return this.#running.size;
  }

  /** Memory allocated for replies, in bytes. */
  get replyBytes(): number {
    return this.#pieces.reduce((sum, piece) => sum + (piece?.length ?? 0), 0);
  }

  /** Decides about a call. `run` must be followed by `complete` or `forget` with the same key. */
  admit(call: ServerCall, key: CallKey): DuplicateVerdict {
    const joiners = this.#running.get(key.text);
    if (joiners !== undefined) {
      joiners.push(call);
      return JOINED;
    }
    this.#dropAged();
    const slot = this.#find(key.words);
    if (slot >= 0) return { kind: 'replay', reply: this.#reply(this.#index[slot]! - 1) };
    this.#running.set(key.text, []);
    return RUN;
  }

  /** The call is done: remembers a copy of `reply`. Returns the duplicates that wait for it. */
  complete(key: CallKey, reply: Buffer): readonly ServerCall[] {
    const joiners = this.forget(key);
    // A longer one cannot be kept; no procedure that needs this cache has such a reply.
    if (reply.length <= PIECE_BYTES) this.#store(key.words, reply);
    return joiners;
  }

  /** The call failed in a way that must not be repeated from memory. Returns the duplicates that wait for it. */
  forget(key: CallKey): readonly ServerCall[] {
    const joiners = this.#running.get(key.text) ?? [];
    this.#running.delete(key.text);
    return joiners;
  }

  #store(words: Uint32Array, reply: Buffer): void {
    const pieceLeft = PIECE_BYTES - (this.#tailPosition % PIECE_BYTES);
    if (reply.length > pieceLeft) this.#tailPosition += pieceLeft;
    const position = this.#tailPosition;
    this.#tailPosition += reply.length;
    // Whatever the ring of bytes is about to overwrite goes first.
    while (this.#count > 0 && this.#tailPosition - this.#positions[this.#head]! > this.#capacityBytes) this.#dropOldest();
    if (this.#count > this.#mask) this.#dropOldest();

    const pieceNumber = Math.floor(position / PIECE_BYTES) % this.#pieces.length;
    const piece = (this.#pieces[pieceNumber] ??= Buffer.allocUnsafeSlow(PIECE_BYTES));
    reply.copy(piece, position % PIECE_BYTES);

    const entry = (this.#head + this.#count) & this.#mask;
    this.#count += 1;
    this.#words.set(words, entry * 4);
    this.#completedMs[entry] = this.#clock.monotonicMs();
    this.#positions[entry] = position;
    this.#lengths[entry] = reply.length;
    let slot = words[0]! & this.#indexMask;
    while (this.#index[slot] !== 0) slot = (slot + 1) & this.#indexMask;
    this.#index[slot] = entry + 1;
  }

  #reply(entry: number): Buffer {
    const position = this.#positions[entry]!;
    const piece = this.#pieces[Math.floor(position / PIECE_BYTES) % this.#pieces.length]!;
    return piece.subarray(position % PIECE_BYTES, (position % PIECE_BYTES) + this.#lengths[entry]!);
  }

  /** Slot of the index that holds the key, or -1. */
  #find(words: Uint32Array): number {
    for (let slot = words[0]! & this.#indexMask; ; slot = (slot + 1) & this.#indexMask) {
      const entry = this.#index[slot]! - 1;
      if (entry < 0) return -1;
      const at = entry * 4;
      if (this.#words[at] === words[0] && this.#words[at + 1] === words[1] && this.#words[at + 2] === words[2] && this.#words[at + 3] === words[3]) {
        return slot;
      }
    }
  }

  #dropAged(): void {
    const oldestMs = this.#clock.monotonicMs() - this.#ageMaxMs;
    while (this.#count > 0 && this.#completedMs[this.#head]! < oldestMs) this.#dropOldest();
  }

  #dropOldest(): void {
    const entry = this.#head;
    this.#head = (this.#head + 1) & this.#mask;
    this.#count -= 1;
    let hole = this.#words[entry * 4]! & this.#indexMask;
    while (this.#index[hole] !== entry + 1) hole = (hole + 1) & this.#indexMask;
    // Deletion from linear probing: pull back every entry that could not have its place because of the one removed.
    for (let slot = (hole + 1) & this.#indexMask; this.#index[slot] !== 0; slot = (slot + 1) & this.#indexMask) {
      const home = this.#words[(this.#index[slot]! - 1) * 4]! & this.#indexMask;
      if (((slot - home) & this.#indexMask) >= ((slot - hole) & this.#indexMask)) {
        this.#index[hole] = this.#index[slot]!;
        hole = slot;
      }
    }
    this.#index[hole] = 0;
  }
}
