/**
 * Where the pages of one extent map are: in a frame of the pool, in the spill file, in a checkpoint object. Loads them, holds them
 * in place, and keeps for a running checkpoint what it froze. The map above knows what the entries mean.
 *
 * The present content of a page is, in this order: nothing when it maps no block; its frame; its spill slot; its image.
 */
import { crc32 } from 'node:zlib';

import { assert } from '../core/assert.ts';
import { ApplianceError } from '../core/errors.ts';
import { isPending, type MaybePromise } from '../core/maybe-promise.ts';
import { DIRTY, FROZEN, IN_FLIGHT, PageDirectory } from './page-directory.ts';
import { decodeImage } from './page-image.ts';
import { type FrameOwner, MODIFIED, type PagePool } from './page-pool.ts';
import type { SegmentTable } from './segment-table.ts';

/** Page images are aligned to this, so that a 32-bit offset reaches 256 GiB of checkpoint object. */
export const IMAGE_ALIGN_BYTES = 64;

/** Reads parts of checkpoint objects by the row of the segment table that names them. */
export interface PageSource {
  /** Exactly `lengthBytes` bytes, owned by the caller. `crc`: what they should have; the caller checks it again. Rejects when they cannot be had now. */
  read(row: number, offsetBytes: number, lengthBytes: number, crc: number): Promise<Buffer>;
}

/** Frozen contents of pages that were changed since: what the running checkpoint still has to write. */
export interface Shelter {
  /** Copies in RAM at this moment. */
  readonly copies: number;
  keepCopy(slot: number, frame: Uint32Array): void;
  /** The spill slot belongs to the shelter from now on. */
  keepSpill(slot: number, spillSlot: number): void;
}

/** Up to this share of the pool is copied in RAM for a running checkpoint; beyond it, by way of the spill file. */
const COPIES_SHARE = 1 / 8;

export class PageResidence implements FrameOwner {
  readonly dir = new PageDirectory();
  readonly pool: PagePool;
  readonly table: SegmentTable;
  readonly #source: PageSource;
  readonly #loading = new Map<number, Promise<void>>();
  readonly #isRow: (row: number) => boolean;
  /** Slots that became dirty (or to be rewritten) since the last checkpoint; may hold stale and repeated ones. */
  #dirtyList = new Uint32Array(64);
  #dirtyEnd = 0;
  #dirtyCount = 0;
  /** The running checkpoint, if any. */
  shelter: Shelter | null = null;

  constructor(pool: PagePool, table: SegmentTable, source: PageSource) {
    this.pool = pool;
    this.table = table;
    this.#source = source;
    this.#isRow = (row) => table.holdsBlocks(row);
  }

  /** Pages whose content the last checkpoint does not have. */
  get dirtyPages(): number {
    return this.#dirtyCount;
  }

  /** Bytes of the directory and of the list of dirty pages. */
  get memoryBytes(): number {
    return this.dir.memoryBytes + this.#dirtyList.byteLength;
  }

  frameEvicted(slot: number): void {
    this.dir.frame[slot] = -1;
  }

  frameSpilled(slot: number, spillSlot: number): void {
    assert(this.dir.spill[slot] === -1, 'a page has one spill slot');
    this.dir.spill[slot] = spillSlot;
  }

  /** Holds a page in place from now on; its frame, if it has none, comes with `ensureFrame`. */
  claim(slot: number): void {
    const { dir } = this;
    const pins = dir.pins[slot]!;
    assert(pins < 0xffff, 'page is pinned 65,535 times');
    dir.pins[slot] = pins + 1;
    if (pins === 0 && dir.frame[slot]! >= 0) this.pool.setPinned(dir.frame[slot]!, true);
  }

  /** Takes a claim back. A page that maps nothing gives up its frame, and its slot when nothing else needs it. */
  unclaim(slot: number): void {
    const { dir } = this;
    const pins = dir.pins[slot]!;
    assert(pins > 0, 'unpin of a page that is not pinned');
    dir.pins[slot] = pins - 1;
    if (pins > 1) return;
    if (dir.mapped[slot] === 0) this.#vacate(slot);
    else if (dir.frame[slot]! >= 0) this.pool.setPinned(dir.frame[slot]!, false);
  }

  #vacate(slot: number): void {
    const { dir } = this;
    assert((dir.flags[slot]! & FROZEN) === 0, 'a frozen page is not empty');
    if (dir.frame[slot]! >= 0) this.pool.release(dir.frame[slot]!);
    dir.frame[slot] = -1;
    this.dropSpill(slot);
    this.dropIfUnused(slot);
  }

  /** Forgets the slot of a page that maps nothing, that no checkpoint knows, and that nobody holds. */
  dropIfUnused(slot: number): void {
    const { dir } = this;
    if (dir.mapped[slot] !== 0 || dir.row[slot] !== 0 || dir.pins[slot] !== 0 || (dir.flags[slot]! & IN_FLIGHT) !== 0) return;
    if (dir.frame[slot]! >= 0 || dir.spill[slot]! >= 0) return;
    if ((dir.flags[slot]! & DIRTY) !== 0) this.#dirtyCount -= 1;
    dir.remove(slot);
  }

  /** True when the page's content is at hand: resident, or empty and not to be written. */
  isAtHand(slot: number, forWriting: boolean): boolean {
    const { dir } = this;
    if (dir.frame[slot]! >= 0) return !forWriting || (dir.flags[slot]! & FROZEN) === 0 || !this.#mustSpillFrozen(slot);
    return dir.mapped[slot] === 0 && !forWriting;
  }

  #mustSpillFrozen(slot: number): boolean {
    return this.dir.spill[slot] === -1 && this.shelter !== null && this.shelter.copies >= this.pool.framesMax * COPIES_SHARE;
  }

  /** Makes the page of a claimed slot resident (the caller has a unit of the pool). `forWriting`: and fit to be changed. */
  ensureFrame(slot: number, forWriting: boolean): MaybePromise<void> {
    if (this.isAtHand(slot, forWriting)) return undefined;
    const { dir } = this;
    if (dir.frame[slot]! < 0 && dir.mapped[slot] === 0) {
      const frame = this.#loading.has(slot) ? -1 : this.pool.tryAcquire(this, slot);
      if (frame >= 0) {
        this.pool.frame(frame).fill(0);
        this.#attach(slot, frame);
        return undefined;
      }
    }
    return this.#ensureFrameSlowly(slot, forWriting);
  }

  async #ensureFrameSlowly(slot: number, forWriting: boolean): Promise<void> {
    const { dir } = this;
    while (dir.frame[slot]! < 0) {
      let loading = this.#loading.get(slot);
      if (loading === undefined) {
        loading = this.#load(slot).finally(() => this.#loading.delete(slot));
        this.#loading.set(slot, loading);
      }
      await loading;
    }
    // The copies of a running checkpoint are bounded: beyond the bound the frozen content goes by way of the spill file.
    if (forWriting && (dir.flags[slot]! & FROZEN) !== 0 && this.#mustSpillFrozen(slot)) await this.pool.spillNow(dir.frame[slot]!);
  }

  async #load(slot: number): Promise<void> {
    const acquired = this.pool.acquire(this, slot);
    const frame = isPending(acquired) ? await acquired : acquired;
    try {
      if (this.dir.mapped[slot] === 0) this.pool.frame(frame).fill(0);
      else await this.#readContent(slot, this.pool.frame(frame));
    } catch (error) {
      this.pool.release(frame);
      throw error;
    }
    this.#attach(slot, frame);
  }

  #attach(slot: number, frame: number): void {
    this.dir.frame[slot] = frame;
    this.pool.filled(frame, this.dir.pins[slot]! > 0);
  }

  /** Reads the content of a page that is not resident into `frame`. */
  async #readContent(slot: number, frame: Uint32Array): Promise<void> {
    const { dir, pool } = this;
    for (;;) {
      const spillSlot = dir.spill[slot]!;
      if (spillSlot < 0) break;
      const right = await pool.spill.read(spillSlot, frame);
      // A commit meanwhile makes the image the page's backing and gives the spill slot to others.
      if (dir.spill[slot] !== spillSlot) continue;
      if (!right) throw pool.spill.corrupt(spillSlot);
      return;
    }
    const page = dir.page[slot]!;
    const mapped = dir.savedMapped[slot]!;
    const row = dir.row[slot]!;
    const image = await this.readImage(slot);
    const complaint = decodeImage(image, page, mapped, frame, this.#isRow);
    if (complaint !== null) throw this.#corrupt(row, page, complaint);
  }

  /** The image of the last committed checkpoint, its CRC checked. @throws ApplianceError `checkpoint-corrupt` (later reads may be right). */
  async readImage(slot: number): Promise<Buffer> {
    const { dir } = this;
    const page = dir.page[slot]!;
    const row = dir.row[slot]!;
    const length = dir.length[slot]!;
    const expected = dir.crc[slot]!;
    assert(row !== 0, `page ${page} has no image`);
    const image = await this.#source.read(row, dir.offset[slot]! * IMAGE_ALIGN_BYTES, length, expected);
    if (image.byteLength !== length || crc32(image) !== expected) throw this.#corrupt(row, page, 'its CRC is wrong');
    return image;
  }

  #corrupt(row: number, page: number, complaint: string): ApplianceError {
    return new ApplianceError('checkpoint-corrupt', `page ${page} in ${this.table.objectName(row)}: ${complaint}`);
  }

  /** Call before a change to a claimed page with a frame: keeps the frozen content, invalidates copies, marks it dirty. */
  beforeChange(slot: number): void {
    const { dir } = this;
    const frame = dir.frame[slot]!;
    const flags = dir.flags[slot]!;
    if ((flags & FROZEN) !== 0) this.#keepFrozen(slot, frame);
    else if (dir.spill[slot]! >= 0) this.dropSpill(slot);
    if ((flags & DIRTY) === 0) this.markDirty(slot);
    if ((this.pool.state[frame]! & MODIFIED) === 0) this.pool.markModified(frame);
  }

  #keepFrozen(slot: number, frame: number): void {
    const { dir, shelter } = this;
    assert(shelter !== null, 'a frozen page belongs to a running checkpoint');
    dir.flags[slot] = dir.flags[slot]! & ~FROZEN;
    if (dir.spill[slot]! >= 0) {
      shelter.keepSpill(slot, dir.spill[slot]!);
      dir.spill[slot] = -1;
    } else {
      shelter.keepCopy(slot, this.pool.frame(frame).slice());
    }
  }

  dropSpill(slot: number): void {
    const spillSlot = this.dir.spill[slot]!;
    if (spillSlot < 0) return;
    this.pool.spill.free(spillSlot);
    this.dir.spill[slot] = -1;
  }

  markDirty(slot: number): void {
    this.dir.flags[slot] = this.dir.flags[slot]! | DIRTY;
    this.#dirtyCount += 1;
    this.list(slot);
  }

  /** Puts a slot on the list for the next checkpoint. */
  list(slot: number): void {
    if (this.#dirtyEnd === this.#dirtyList.length) this.#compactDirtyList();
    this.#dirtyList[this.#dirtyEnd] = slot;
    this.#dirtyEnd += 1;
  }

  /** Pages made and emptied again leave stale entries: without this the list would grow as long as no checkpoint runs. */
  #compactDirtyList(): void {
    const list = this.#dirtyList;
    const seen = new Uint8Array(this.dir.slotEnd);
    let end = 0;
    for (let index = 0; index < this.#dirtyEnd; index += 1) {
      const slot = list[index]!;
      if (seen[slot] !== 0 || !this.dir.isUsed(slot)) continue;
      seen[slot] = 1;
      list[end] = slot;
      end += 1;
    }
    this.#dirtyEnd = end;
    if (end * 2 <= list.length) return;
    this.#dirtyList = new Uint32Array(list.length * 2);
    this.#dirtyList.set(list);
  }

  /** Takes the list; the caller clears the flags of the slots on it. Entries may repeat or be stale: the flags tell. */
  takeDirtyList(): Uint32Array {
    const list = this.#dirtyList.subarray(0, this.#dirtyEnd);
    this.#dirtyList = new Uint32Array(64);
    this.#dirtyEnd = 0;
    this.#dirtyCount = 0;
    return list;
  }

  /** Gives frames and spill slots back. No promise is pending, nothing is pinned. */
  close(): void {
    const { dir } = this;
    assert(this.#loading.size === 0, 'a page is being loaded');
    for (let slot = 0; slot < dir.slotEnd; slot += 1) {
      if (!dir.isUsed(slot)) continue;
      assert(dir.pins[slot] === 0, `page ${dir.page[slot]} is pinned`);
      if (dir.frame[slot]! >= 0) this.pool.release(dir.frame[slot]!);
      dir.frame[slot] = -1;
      this.dropSpill(slot);
    }
  }
}
