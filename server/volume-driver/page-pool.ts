/**
 * The page frames that all extent maps of the process share: a fixed number of them, in slabs allocated as needed.
 *
 * - A frame is evicted by CLOCK when it is unpinned and its content exists elsewhere (a checkpoint image or a spill slot).
 * - Frames whose only copy they are (`dirty`) are spilled to a local file in the background when they are more than their share
 *   of the pool, and by `acquire` when it finds nothing to evict.
 * - Pins are bounded by units: who pins takes one for each page before it pins any (FIFO), and there are as many units as
 *   frames. So whoever has a unit gets a frame in the end, whatever the others do: no deadlock, only waiting.
 *
 * `slabs` and `state` are public to the extent maps in this folder, which touch them on the hot path.
 */
import { assert } from '../core/assert.ts';
import type { Disk } from '../core/disk.ts';
import { isPending, type MaybePromise } from '../core/maybe-promise.ts';
import { FRAME_BYTES, FRAME_WORDS } from './page-image.ts';
import { SpillFile } from './spill-file.ts';

/** State bits of a frame. */
export const PINNED = 1;
/** Used since the clock hand came by. */
export const REFERENCED = 2;
/** The content exists nowhere else. */
export const MODIFIED = 4;
/** Being filled by who acquired it. */
const FILLING = 8;
/** Being written to the spill file. */
const SPILLING = 16;
/** What is being written to the spill file will not be wanted: the content changed meanwhile, or has come to exist elsewhere. */
const STALE = 32;

/** A frame's words: `slabs[frame >> SLAB_SHIFT]` from `(frame & SLAB_MASK) * FRAME_WORDS`. Few big arrays stay in the CPU's caches, a view per frame does not. */
export const SLAB_SHIFT = 6;
const SLAB_FRAMES = 1 << SLAB_SHIFT;
export const SLAB_MASK = SLAB_FRAMES - 1;
const SPILL_BATCH = 8;
/** Background spills under way at most. */
const SPILLS_MAX = 16;
const SPILL_SCAN_MAX = 64;

/** Who has pages in frames. Called by the pool, synchronously. */
export interface FrameOwner {
  /** The slot's frame was given to another. */
  frameEvicted(slot: number): void;
  /** The frame's content of this moment is in `spillSlot`, which now belongs to the owner. */
  frameSpilled(slot: number, spillSlot: number): void;
}

export interface PagePoolLimits {
  /** RAM for frames; at least 16 of 12 KiB. */
  readonly bytesMax: number;
  /** Share of the frames that may be dirty before spilling starts; 0 to 1. Default one half. */
  readonly dirtyShareMax?: number;
  /** Bound of the spill file. Beyond it acquiring fails with `spill-full` (retryable). Default 16 GiB. */
  readonly spillBytesMax?: number;
}

export class PagePool {
  /** The frames' memory; see SLAB_SHIFT. */
  readonly slabs: Uint32Array[] = [];
  /** State bits by frame. */
  readonly state: Uint8Array;
  readonly framesMax: number;
  /** Gives other work of the event loop its turn. */
  readonly yieldToLoop: () => Promise<void>;
  readonly spill: SpillFile;
  readonly #dirtyMax: number;
  readonly #owner: (FrameOwner | null)[] = [];
  readonly #slot: Uint32Array;
  readonly #free: number[] = [];
  readonly #spilling = new Map<number, Promise<void>>();
  #allocated = 0;
  #hand = 0;
  #spillHand = 0;
  #dirty = 0;
  #units: number;
  readonly #unitQueue: { units: number; resolve: () => void }[] = [];
  #change: { promise: Promise<void>; resolve: () => void } | null = null;
  #spillError: Error | null = null;
  #evictions = 0;
  #spills = 0;

  private constructor(spill: SpillFile, yieldToLoop: () => Promise<void>, limits: PagePoolLimits) {
    this.spill = spill;
    this.yieldToLoop = yieldToLoop;
    this.framesMax = Math.floor(limits.bytesMax / FRAME_BYTES);
    assert(this.framesMax >= 16, 'a page pool has at least 16 frames');
    this.#dirtyMax = Math.floor(this.framesMax * (limits.dirtyShareMax ?? 0.5));
    this.state = new Uint8Array(this.framesMax);
    this.#slot = new Uint32Array(this.framesMax);
    this.#units = this.framesMax;
  }

  /** Makes a pool with an empty spill file at `spillPath` (one that is there is removed). */
  static async open(components: { disk: Disk; spillPath: string; yieldToLoop: () => Promise<void> }, limits: PagePoolLimits): Promise<PagePool> {
    const slotsMax = Math.floor((limits.spillBytesMax ?? 16 * 2 ** 30) / FRAME_BYTES);
    return new PagePool(await SpillFile.open(components.disk, components.spillPath, slotsMax), components.yieldToLoop, limits);
  }

  /** Removes the spill file. All maps are closed, all their promises settled. */
  async close(): Promise<void> {
    while (this.#spilling.size > 0) await Promise.allSettled(this.#spilling.values());
    await this.spill.close();
  }

  /** For metrics and health. `spillError`: why the last spill failed, null when it did not. */
  get stats(): {
    readonly framesAllocated: number;
    readonly framesUsed: number;
    readonly framesDirty: number;
    readonly spilledPages: number;
    readonly evictions: number;
    readonly spills: number;
    readonly unitsFree: number;
    readonly spillError: Error | null;
  } {
    return {
      framesAllocated: this.#allocated,
      framesUsed: this.#allocated - this.#free.length,
      framesDirty: this.#dirty,
      spilledPages: this.spill.usedSlots,
      evictions: this.#evictions,
      spills: this.#spills,
      unitsFree: this.#units,
      spillError: this.#spillError,
    };
  }

  /** Half of the spill file is used: time for checkpoints, which make spilled pages clean. */
  get isPressed(): boolean {
    return this.spill.usedSlots * 2 > this.spill.slotsMax;
  }

  /** Takes units at once, or answers false. */
  tryTakeUnits(units: number): boolean {
    if (this.#unitQueue.length > 0 || this.#units < units) return false;
    this.#units -= units;
    return true;
  }

  /** Takes units when it is this caller's turn. */
  takeUnits(units: number): Promise<void> {
    assert(units <= this.framesMax, `${units} pages pinned at once, the pool has ${this.framesMax}`);
    return new Promise((resolve) => {
      this.#unitQueue.push({ units, resolve });
      this.#serveUnits();
    });
  }

  giveUnits(units: number): void {
    this.#units += units;
    assert(this.#units <= this.framesMax, 'more units given than taken');
    if (this.#unitQueue.length > 0) this.#serveUnits();
  }

  #serveUnits(): void {
    for (let first = this.#unitQueue[0]; first !== undefined && first.units <= this.#units; first = this.#unitQueue[0]) {
      this.#unitQueue.shift();
      this.#units -= first.units;
      first.resolve();
    }
  }

  /** A frame with old content for `slot` of `owner`, or -1 when none is free or clean. It stays put until `filled` or `release`. */
  tryAcquire(owner: FrameOwner, slot: number): number {
    let frame = this.#free.pop() ?? -1;
    if (frame < 0 && this.#allocated < this.framesMax) frame = this.#allocate();
    if (frame < 0) frame = this.#evict();
    if (frame < 0) return -1;
    this.state[frame] = FILLING;
    this.#owner[frame] = owner;
    this.#slot[frame] = slot;
    return frame;
  }

  /** As `tryAcquire`, but spills or waits when it must. The caller has a unit. Rejects when spilling fails. */
  acquire(owner: FrameOwner, slot: number): MaybePromise<number> {
    const frame = this.tryAcquire(owner, slot);
    return frame >= 0 ? frame : this.#acquireSlowly(owner, slot);
  }

  async #acquireSlowly(owner: FrameOwner, slot: number): Promise<number> {
    for (;;) {
      const spills = this.#spillSome(SPILL_BATCH, this.framesMax);
      const frame = this.tryAcquire(owner, slot);
      if (frame >= 0) {
        await Promise.allSettled(spills);
        return frame;
      }
      if (spills.length > 0) await Promise.all(spills);
      else await this.#nextChange();
      const later = this.tryAcquire(owner, slot);
      if (later >= 0) return later;
    }
  }

  /** A view of a frame's words; not for the hot path. */
  frame(frame: number): Uint32Array {
    const from = (frame & SLAB_MASK) * FRAME_WORDS;
    return this.slabs[frame >> SLAB_SHIFT]!.subarray(from, from + FRAME_WORDS);
  }

  #allocate(): number {
    const first = this.#allocated;
    const count = Math.min(SLAB_FRAMES, this.framesMax - first);
    this.slabs.push(new Uint32Array(count * FRAME_WORDS));
    this.#allocated += count;
    for (let index = 0; index < count; index += 1) this.#owner.push(null);
    for (let index = count - 1; index > 0; index -= 1) this.#free.push(first + index);
    return first;
  }

  #evict(): number {
    const count = this.#allocated;
    const { state } = this;
    for (let step = 0; step < 2 * count; step += 1) {
      const frame = this.#hand;
      this.#hand = frame + 1 === count ? 0 : frame + 1;
      const bits = state[frame]!;
      if (bits === REFERENCED) state[frame] = 0;
      else if (bits === 0) {
        const owner = this.#owner[frame];
        if (owner === null || owner === undefined) continue; // on the free list, or about to be
        this.#evictions += 1;
        this.#owner[frame] = null;
        owner.frameEvicted(this.#slot[frame]!);
        return frame;
      }
    }
    return -1;
  }

  /** The frame holds the slot's page now. */
  filled(frame: number, pinned: boolean): void {
    this.state[frame] = (this.state[frame]! & MODIFIED) | REFERENCED | (pinned ? PINNED : 0);
    if (!pinned) this.#changed();
  }

  /** The slot's first pin came, or its last one went. */
  setPinned(frame: number, pinned: boolean): void {
    if (pinned) this.state[frame] = this.state[frame]! | PINNED | REFERENCED;
    else {
      this.state[frame] = this.state[frame]! & ~PINNED;
      if (this.#change !== null) this.#changed();
    }
  }

  /** The owner gives the frame up; its content is forgotten. */
  release(frame: number): void {
    this.markClean(frame);
    this.#owner[frame] = null;
    // While it is being written its memory must not become another page: `#spilled` frees it.
    if ((this.state[frame]! & SPILLING) === 0) {
      this.state[frame] = 0;
      this.#free.push(frame);
    }
    this.#changed();
  }

  /** The content changes: no copy elsewhere is valid. May start spills of other frames. */
  markModified(frame: number): void {
    const bits = this.state[frame]!;
    if ((bits & MODIFIED) !== 0) return;
    this.state[frame] = bits | MODIFIED | REFERENCED | ((bits & SPILLING) === 0 ? 0 : STALE);
    this.#dirty += 1;
    // Two for each one that gets dirty: the share falls back without a long pause anywhere.
    if (this.#dirty > this.#dirtyMax && this.#spilling.size < SPILLS_MAX) {
      for (const spill of this.#spillSome(2, SPILL_SCAN_MAX)) {
        // A failure is kept in `spillError`, the frame stays dirty, and the `acquire` that needs room fails with it.
        spill.catch(() => {});
      }
    }
  }

  /** The content exists elsewhere now. */
  markClean(frame: number): void {
    const bits = this.state[frame]!;
    if ((bits & SPILLING) !== 0) this.state[frame] = bits | STALE;
    if ((bits & MODIFIED) === 0) return;
    this.state[frame] = this.state[frame]! & ~MODIFIED;
    this.#dirty -= 1;
    this.#changed();
  }

  /** Writes a frame's present content to a spill slot, pinned or not. Rejects with the disk's error. */
  spillNow(frame: number): MaybePromise<void> {
    const running = this.#spilling.get(frame);
    if (running !== undefined) return running;
    if ((this.state[frame]! & MODIFIED) === 0) return undefined;
    return this.#spillFrame(frame);
  }

  #spillSome(count: number, scanMax: number): Promise<void>[] {
    const spills: Promise<void>[] = [];
    const frames = this.#allocated;
    let started = 0;
    for (let step = 0; step < Math.min(frames, scanMax) && started < count; step += 1) {
      const frame = this.#spillHand;
      this.#spillHand = frame + 1 >= frames ? 0 : frame + 1;
      if ((this.state[frame]! & ~REFERENCED) !== MODIFIED) continue;
      started += 1;
      const spill = this.#spillFrame(frame);
      if (isPending(spill)) spills.push(spill);
    }
    return spills;
  }

  /** Sync when the disk answers at once. */
  #spillFrame(frame: number): MaybePromise<void> {
    this.state[frame] = (this.state[frame]! & ~MODIFIED) | SPILLING;
    this.#dirty -= 1;
    let settle: ((error: Error | null) => void) | null = null;
    let outcome: Error | null | undefined;
    this.spill.write(this.frame(frame), (error, slot) => {
      this.#spilled(frame, error, slot);
      outcome = error;
      settle?.(error);
    });
    if (outcome === null) return undefined;
    if (outcome !== undefined) return Promise.reject(outcome);
    const promise = new Promise<void>((resolve, reject) => {
      settle = (error) => {
        this.#spilling.delete(frame);
        if (error === null) resolve();
        else reject(error);
      };
    });
    this.#spilling.set(frame, promise);
    return promise;
  }

  #spilled(frame: number, error: Error | null, spillSlot: number): void {
    const owner = this.#owner[frame];
    const stale = (this.state[frame]! & STALE) !== 0;
    const bits = this.state[frame]! & ~(SPILLING | STALE);
    this.state[frame] = bits;
    this.#spillError = error;
    if (owner === null || owner === undefined) {
      // Released while it was being written.
      this.state[frame] = 0;
      this.#free.push(frame);
      if (error === null) this.spill.free(spillSlot);
    } else if (stale) {
      // Whether the frame is modified says its bit; the slot may hold a mixture of two contents.
      if (error === null) this.spill.free(spillSlot);
    } else if (error !== null) {
      this.state[frame] = bits | MODIFIED;
      this.#dirty += 1;
    } else {
      this.#spills += 1;
      owner.frameSpilled(this.#slot[frame]!, spillSlot);
    }
    this.#changed();
  }

  #changed(): void {
    const change = this.#change;
    this.#change = null;
    change?.resolve();
  }

  #nextChange(): Promise<void> {
    this.#change ??= Promise.withResolvers<void>();
    return this.#change.promise;
  }
}
