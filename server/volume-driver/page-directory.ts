/**
 * Directory of an extent map's pages: page number -> slot, and the state of each slot, in typed arrays (33 bytes a page plus 6
 * to 12 of hash table), so that a fully mapped 1 TiB volume costs about 10 MB and an empty one of 62 TB nothing.
 *
 * The arrays are public to the map and its checkpoints in this folder; they are replaced when they grow, so nobody keeps one
 * across an insert. Slot numbers are stable until `remove`.
 */
import { assert } from '../core/assert.ts';

/** Pages of the largest volume, 64 TiB. */
export const PAGES_MAX = 2 ** 24;

/** Slot flags. */
/** Differs from the image of the last committed checkpoint. */
export const DIRTY = 1;
/** The running checkpoint needs the content that the page has now: copy before changing it. */
export const FROZEN = 2;
/** Belongs to the running checkpoint: the slot must stay until it ends. */
export const IN_FLIGHT = 4;
/** Equal to its image, which the next checkpoint shall write anew all the same (compaction). */
export const REWRITE = 8;

export class PageDirectory {
  #hash = new Int32Array(64);
  #shift = 32 - 6;
  #count = 0;
  #slotEnd = 0;
  #freeHead = -1;

  /** Page number. */
  page = new Uint32Array(32);
  /** Frame of the pool, or -1. */
  frame = new Int32Array(32);
  /** Mapped blocks, 0 to 1024. */
  mapped = new Uint16Array(32);
  flags = new Uint8Array(32);
  /** How many hold the page in place. */
  pins = new Uint16Array(32);
  /** Slot of the spill file with exactly the present content, or -1. */
  spill = new Int32Array(32);
  /** Image of the last committed checkpoint: table row (0 = none; the row also tells whether a slot is in use, see `isUsed`). */
  row = new Uint32Array(32);
  /** ... its offset in units of 64 bytes. */
  offset = new Uint32Array(32);
  /** ... its length in bytes. */
  length = new Uint16Array(32);
  /** ... its crc32. */
  crc = new Uint32Array(32);
  /** ... its number of mapped blocks. */
  savedMapped = new Uint16Array(32);

  /** Pages with a slot. */
  get count(): number {
    return this.#count;
  }

  /** One more than the highest slot ever used: slots to iterate. */
  get slotEnd(): number {
    return this.#slotEnd;
  }

  get memoryBytes(): number {
    return this.#hash.length * 4 + this.page.length * (4 + 4 + 2 + 1 + 2 + 4 + 4 + 4 + 2 + 4 + 2);
  }

  /** Makes room for `pages` at once. */
  reserve(pages: number): void {
    if (pages > this.page.length) this.#growSlots(pages);
    let bits = 32 - this.#shift;
    while (pages * 1.5 > 2 ** bits) bits += 1;
    if (bits > 32 - this.#shift) this.#rehash(bits);
  }

  /** Slot of a page, or -1. */
  find(page: number): number {
    const hash = this.#hash;
    const mask = hash.length - 1;
    for (let at = Math.imul(page, 0x9e3779b1) >>> this.#shift; ; at = (at + 1) & mask) {
      const slot = hash[at]! - 1;
      if (slot < 0 || this.page[slot] === page) return slot;
    }
  }

  /** A slot for a page that has none: empty, no image, no frame. */
  insert(page: number): number {
    assert(page >= 0 && page < PAGES_MAX, `page ${page}`);
    if ((this.#count + 1) * 1.5 > this.#hash.length) this.#rehash(33 - this.#shift);
    let slot = this.#freeHead;
    if (slot >= 0) this.#freeHead = this.frame[slot]!;
    else {
      slot = this.#slotEnd;
      if (slot === this.page.length) this.#growSlots(Math.ceil(slot * (slot < 65_536 ? 2 : 1.25)));
      this.#slotEnd += 1;
    }
    this.page[slot] = page;
    this.frame[slot] = -1;
    this.mapped[slot] = 0;
    this.flags[slot] = 0;
    this.pins[slot] = 0;
    this.spill[slot] = -1;
    this.row[slot] = 0;
    this.#count += 1;
    this.#enter(slot);
    return slot;
  }

  /** Forgets a page; its slot may be given to another. */
  remove(slot: number): void {
    const hash = this.#hash;
    const mask = hash.length - 1;
    let at = Math.imul(this.page[slot]!, 0x9e3779b1) >>> this.#shift;
    while (hash[at] !== slot + 1) {
      assert(hash[at] !== 0, `slot ${slot} is not in the directory`);
      at = (at + 1) & mask;
    }
    // Backward shift: close the gap, so that look-ups need no tombstones.
    for (let next = (at + 1) & mask; hash[next] !== 0; next = (next + 1) & mask) {
      const home = Math.imul(this.page[hash[next]! - 1]!, 0x9e3779b1) >>> this.#shift;
      if (((next - home) & mask) >= ((next - at) & mask)) {
        hash[at] = hash[next]!;
        at = next;
      }
    }
    hash[at] = 0;
    this.#count -= 1;
    this.page[slot] = NO_PAGE;
    this.flags[slot] = 0;
    this.mapped[slot] = 0;
    this.row[slot] = 0;
    this.frame[slot] = this.#freeHead;
    this.#freeHead = slot;
  }

  /** True when a slot below `slotEnd` holds a page. */
  isUsed(slot: number): boolean {
    return this.page[slot] !== NO_PAGE;
  }

  #enter(slot: number): void {
    const hash = this.#hash;
    const mask = hash.length - 1;
    let at = Math.imul(this.page[slot]!, 0x9e3779b1) >>> this.#shift;
    while (hash[at] !== 0) at = (at + 1) & mask;
    hash[at] = slot + 1;
  }

  #rehash(bits: number): void {
    this.#hash = new Int32Array(2 ** bits);
    this.#shift = 32 - bits;
    for (let slot = 0; slot < this.#slotEnd; slot += 1) if (this.isUsed(slot)) this.#enter(slot);
  }

  #growSlots(capacity: number): void {
    this.page = into(new Uint32Array(capacity), this.page);
    this.frame = into(new Int32Array(capacity), this.frame);
    this.mapped = into(new Uint16Array(capacity), this.mapped);
    this.flags = into(new Uint8Array(capacity), this.flags);
    this.pins = into(new Uint16Array(capacity), this.pins);
    this.spill = into(new Int32Array(capacity), this.spill);
    this.row = into(new Uint32Array(capacity), this.row);
    this.offset = into(new Uint32Array(capacity), this.offset);
    this.length = into(new Uint16Array(capacity), this.length);
    this.crc = into(new Uint32Array(capacity), this.crc);
    this.savedMapped = into(new Uint16Array(capacity), this.savedMapped);
  }
}

const NO_PAGE = 0xffff_ffff;

function into<T extends Uint8Array | Uint16Array | Uint32Array | Int32Array>(to: T, from: T): T {
  to.set(from);
  return to;
}
