/**
 * RAM cache of 4 KiB blocks, keyed by where they are stored: (segment id, byte offset in the segment). A stored location never
 * changes its bytes, so nothing is ever invalidated; what is overwritten or deleted just is not asked for any more.
 *
 * Eviction is S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023), in short: a new block
 * enters a small queue (a tenth of the cache); at its end it moves to the main queue only if it was read twice meanwhile,
 * otherwise it leaves and only a trace of its key remains; a block that comes back while its trace is there goes to the main
 * queue at once; the main queue gives blocks that were read another round. So a sequential scan, or read-ahead, passes through
 * the small queue and leaves the hot blocks alone, and a hit costs no move in a list: it raises a counter.
 *
 * Memory: slabs of 64 MiB, made when first needed up to the limit, never given back; plus about 60 bytes a block of tables.
 * No call allocates. Not shared between threads.
 */
import { assert } from '../server/core/assert.ts';
import { blockHash, BlockIndex } from './block-index.ts';
import { SlotQueue } from './slot-queue.ts';

export const BLOCK_BYTES = 4096;

/** A block's read counter stops here: enough to tell hot from warm, little enough to be forgotten in three rounds. */
const HEAT_MAX = 3;
/** Reads in the small queue that earn a block a place in the main queue. One is what read-ahead and its reader do to every block. */
const HEAT_TO_STAY = 2;
/** An eviction looks at no more blocks than this before it takes the next one, hot or not: its cost is bounded. */
const EVICTION_STEPS_MAX = 256;
/** Remembered dropped segments; a power of two. Older ones are forgotten, which only means that their blocks age as all others do. */
const DROPPED_SEGMENTS = 4096;

export interface BlockCacheSettings {
  /** Bytes of blocks at most; below one block the cache is off. */
  readonly limitBytes: number;
  /** Bytes allocated at a time: a power of two of at least one block. Default 64 MiB. */
  readonly slabBytes?: number;
}

export interface BlockCacheStatistics {
  readonly hits: number;
  readonly misses: number;
  readonly evictions: number;
  /** Bytes of cached blocks. */
  readonly bytes: number;
  /** Bytes of slabs allocated so far. */
  readonly allocatedBytes: number;
  readonly limitBytes: number;
}

export class BlockCache {
  readonly #capacity: number;
  readonly #slabBlocks: number;
  readonly #slabShift: number;
  readonly #slabs: Buffer[] = [];
  readonly #index: BlockIndex;
  readonly #small: SlotQueue;
  readonly #main: SlotQueue;
  readonly #smallTarget: number;
  readonly #slotSegment: Int32Array;
  readonly #slotOffset: Int32Array;
  /** Hashes of keys that left the small queue, each at the place its own low bits give: a newer one with the same place replaces it. */
  readonly #traces: Int32Array;
  readonly #dropped = new Float64Array(DROPPED_SEGMENTS).fill(-1);
  #slotsUsed = 0;
  #hits = 0;
  #misses = 0;
  #evictions = 0;

  constructor(settings: BlockCacheSettings) {
    const slabBytes = settings.slabBytes ?? 64 * 1024 * 1024;
    this.#slabBlocks = slabBytes / BLOCK_BYTES;
    this.#slabShift = Math.log2(this.#slabBlocks);
    assert(Number.isInteger(this.#slabShift), `slab of ${slabBytes} bytes is not a power of two of at least one block`);
    this.#capacity = Math.max(0, Math.floor(settings.limitBytes / BLOCK_BYTES));
    this.#index = new BlockIndex(this.#capacity);
    this.#small = new SlotQueue(this.#capacity);
    this.#main = new SlotQueue(this.#capacity);
    this.#smallTarget = Math.max(1, Math.floor(this.#capacity / 10));
    this.#slotSegment = new Int32Array(this.#capacity);
    this.#slotOffset = new Int32Array(this.#capacity);
    let traces = 1;
    while (traces < this.#capacity) traces *= 2;
    this.#traces = new Int32Array(traces);
  }

  /**
   * Copies `lengthBytes` of a block, from byte `from` of it, to `target` at `targetOffset`. False, and nothing copied, when
   * the block is not here. Counts as a read for eviction.
   */
  get(segmentId: number, offsetBytes: number, target: Uint8Array, targetOffset: number, from: number, lengthBytes: number): boolean {
    const entry = this.#index.find(segmentId, offsetBytes);
    if (entry < 0) {
      this.#misses += 1;
      return false;
    }
    this.#hits += 1;
    const heat = this.#index.heat(entry);
    if (heat < HEAT_MAX) this.#index.setHeat(entry, heat + 1);
    const slot = this.#index.slot(entry);
    const start = (slot & (this.#slabBlocks - 1)) * BLOCK_BYTES + from;
    assert(from >= 0 && lengthBytes >= 0 && from + lengthBytes <= BLOCK_BYTES, 'a part of one block');
    const copied = (this.#slabs[slot >>> this.#slabShift] as Buffer).copy(target, targetOffset, start, start + lengthBytes);
    assert(copied === lengthBytes, 'the target is too short');
    return true;
  }

  /** Whether `get` would find the block now. Does not count as a read. */
  has(segmentId: number, offsetBytes: number): boolean {
    return this.#index.find(segmentId, offsetBytes) >= 0;
  }

  /** Keeps a copy of the 4 KiB at `sourceOffset` of `source` (borrowed for the call). A block that is here already is left as it is. */
  put(segmentId: number, offsetBytes: number, source: Uint8Array, sourceOffset: number): void {
    assert(sourceOffset >= 0 && sourceOffset + BLOCK_BYTES <= source.byteLength, 'the source holds a whole block');
    const slot = this.#admit(segmentId, offsetBytes);
    if (slot < 0) return;
    const slab = this.#slabs[slot >>> this.#slabShift] as Buffer;
    Buffer.prototype.copy.call(source, slab, (slot & (this.#slabBlocks - 1)) * BLOCK_BYTES, sourceOffset, sourceOffset + BLOCK_BYTES);
  }

  /** Like `put`, for a block that begins at `chunkOffset` of `chunks[chunkIndex]` and goes on in the chunks behind it (of any size). */
  putChunks(segmentId: number, offsetBytes: number, chunks: readonly Uint8Array[], chunkIndex: number, chunkOffset: number): void {
    let available = -chunkOffset;
    for (let index = chunkIndex; index < chunks.length && available < BLOCK_BYTES; index += 1) available += (chunks[index] as Uint8Array).byteLength;
    assert(chunkOffset >= 0 && available >= BLOCK_BYTES, 'the chunks hold a whole block');
    const slot = this.#admit(segmentId, offsetBytes);
    if (slot < 0) return;
    const slab = this.#slabs[slot >>> this.#slabShift] as Buffer;
    let position = (slot & (this.#slabBlocks - 1)) * BLOCK_BYTES;
    const end = position + BLOCK_BYTES;
    let from = chunkOffset;
    for (let index = chunkIndex; position < end; index += 1) {
      const chunk = chunks[index] as Uint8Array;
      if (from < chunk.byteLength) {
        const count = Math.min(chunk.byteLength - from, end - position);
        Buffer.prototype.copy.call(chunk, slab, position, from, from + count);
        position += count;
        from = 0;
      } else {
        from -= chunk.byteLength;
      }
    }
  }

  /** Says that nobody will ask for this segment again: its blocks are the next to go when eviction meets them, however hot. Costs O(1). */
  dropSegment(segmentId: number): void {
    this.#dropped[segmentId & (DROPPED_SEGMENTS - 1)] = segmentId;
  }

  /** Counters since construction, and sizes now. */
  statistics(): BlockCacheStatistics {
    return {
      hits: this.#hits,
      misses: this.#misses,
      evictions: this.#evictions,
      bytes: this.#index.count * BLOCK_BYTES,
      allocatedBytes: this.#slabs.reduce((sum, slab) => sum + slab.byteLength, 0),
      limitBytes: this.#capacity * BLOCK_BYTES,
    };
  }

  /** A slot for a block that is not here, entered in index and queue and to be filled by the caller; -1 when it is here or the cache is off. */
  #admit(segmentId: number, offsetBytes: number): number {
    assert(segmentId >>> 0 === segmentId && offsetBytes >>> 0 === offsetBytes, 'segment id and offset are 32-bit unsigned');
    if (this.#capacity === 0 || this.#index.find(segmentId, offsetBytes) >= 0) return -1;
    // Looked up before the eviction, which leaves a trace itself and may overwrite this one.
    const returning = this.#hasTrace(segmentId, offsetBytes);
    const slot = this.#slotsUsed < this.#capacity ? this.#freshSlot() : this.#evict();
    this.#slotSegment[slot] = segmentId;
    this.#slotOffset[slot] = offsetBytes;
    this.#index.insert(segmentId, offsetBytes, slot);
    (returning ? this.#main : this.#small).push(slot);
    return slot;
  }

  #freshSlot(): number {
    const slot = this.#slotsUsed;
    if (slot >>> this.#slabShift === this.#slabs.length) {
      this.#slabs.push(Buffer.allocUnsafeSlow(Math.min(this.#slabBlocks, this.#capacity - slot) * BLOCK_BYTES));
    }
    this.#slotsUsed += 1;
    return slot;
  }

  #evict(): number {
    for (let step = 1; ; step += 1) {
      const fromSmall = this.#small.count > this.#smallTarget || this.#main.count === 0;
      const slot = fromSmall ? this.#small.shift() : this.#main.shift();
      const segmentId = this.#slotSegment[slot] as number;
      const offsetBytes = this.#slotOffset[slot] as number;
      const entry = this.#index.find(segmentId, offsetBytes);
      const heat = this.#index.heat(entry);
      const stays = heat >= (fromSmall ? HEAT_TO_STAY : 1) && step < EVICTION_STEPS_MAX && !this.#isDropped(segmentId >>> 0);
      if (stays) {
        this.#index.setHeat(entry, fromSmall ? 0 : heat - 1);
        this.#main.push(slot);
        continue;
      }
      this.#index.remove(entry);
      if (fromSmall) this.#leaveTrace(segmentId, offsetBytes);
      this.#evictions += 1;
      return slot;
    }
  }

  #isDropped(segmentId: number): boolean {
    return this.#dropped[segmentId & (DROPPED_SEGMENTS - 1)] === segmentId;
  }

  #leaveTrace(segmentId: number, offsetBytes: number): void {
    const hash = blockHash(segmentId, offsetBytes);
    this.#traces[hash & (this.#traces.length - 1)] = hash;
  }

  #hasTrace(segmentId: number, offsetBytes: number): boolean {
    const hash = blockHash(segmentId, offsetBytes);
    return this.#traces[hash & (this.#traces.length - 1)] === hash;
  }
}
