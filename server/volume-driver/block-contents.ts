/**
 * What the blocks of an object hold. Two views: what READ shows, which is what was applied; and what is to be there once everything appended is
 * applied, which is what a write that covers a block in part is merged with.
 */
import type { BlockCache } from '../../cache/block-cache.ts';
import type { ObjectUuid } from '../core/ids.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { ObjectLog } from '../object-log/object-log.ts';
import { BLOCK_BYTES, RecordKind } from '../object-log/segment-codec.ts';
import type { AppliedState } from './applied-state.ts';
import type { BlockReader, MissingBlock } from './block-reader.ts';
import type { ExtentMap } from './extent-map.ts';
import { PAGE_BLOCKS } from './page-image.ts';
import type { ReadAhead } from './read-ahead.ts';
import type { SegmentTable } from './segment-table.ts';
import { copyChunks, mergeEdges, ZERO_BLOCK } from './write-plan.ts';

const SCRATCH_BLOCKS = 1088;
/** Pages that so many blocks can lie on. */
const LOAD_PAGES_MAX = Math.ceil(SCRATCH_BLOCKS / PAGE_BLOCKS) + 1;
/** Where map.read puts its answer; used before anything waits, so one set serves all objects. */
const scratchRows = new Uint32Array(SCRATCH_BLOCKS);
const scratchOffsets = new Uint32Array(SCRATCH_BLOCKS);
const scratchCrcs = new Uint32Array(SCRATCH_BLOCKS);

export class BlockContents {
  readonly #uuid: ObjectUuid;
  readonly #map: ExtentMap;
  readonly #table: SegmentTable;
  readonly #applied: AppliedState;
  readonly #reader: BlockReader;
  readonly #readAhead: ReadAhead;
  readonly #cache: BlockCache;
  #log: ObjectLog | null = null;
  /** Loads of pages of the map for reads, by first page and number of pages. */
  readonly #loads = new Map<number, Promise<void>>();

  constructor(
    components: {
      map: ExtentMap;
      table: SegmentTable;
      applied: AppliedState;
      reader: BlockReader;
      readAhead: ReadAhead;
      cache: BlockCache;
    },
    uuid: ObjectUuid,
  ) {
    this.#uuid = uuid;
    this.#map = components.map;
    this.#table = components.table;
    this.#applied = components.applied;
    this.#reader = components.reader;
    this.#readAhead = components.readAhead;
    this.#cache = components.cache;
  }

  /** The log is made after the object. */
  attachLog(log: ObjectLog): void {
    this.#log = log;
  }

  /**
   * Reads into `target` from `offsetBytes`; returns the bytes read, short only at the end. Synchronous when everything is in RAM.
   * Rejects as BlockReader.fetch does.
   */
  read(offsetBytes: number, target: Buffer): MaybePromise<number> {
    const length = Math.min(target.length, this.#applied.attributes.sizeBytes - offsetBytes);
    if (length <= 0) return 0;
    const first = Math.floor(offsetBytes / BLOCK_BYTES);
    const count = Math.floor((offsetBytes + length - 1) / BLOCK_BYTES) - first + 1;
    if (count > SCRATCH_BLOCKS) return this.#readInParts(offsetBytes, target.subarray(0, length));
    if (!this.#map.read(first, count, scratchRows, scratchOffsets, scratchCrcs)) {
      const loaded = this.#reader.reads.patiently(`map of object ${this.#uuid}`, () => this.#loadPages(first, count));
      return loaded.then(() => this.read(offsetBytes, target));
    }
    const missing = this.#fromCache(offsetBytes, length, first, count, target);
    if (missing === null) {
      if (this.#readAhead.active) this.#readAhead.observe(offsetBytes, length, this.#applied.attributes.sizeBytes);
      return length;
    }
    const fetched = this.#reader.fetch(this.#uuid, this.#table, missing, target, this.#readAhead);
    this.#readAhead.observe(offsetBytes, length, this.#applied.attributes.sizeBytes);
    return fetched.then(() => length);
  }

  /** Who was told to come back finds the load that he began still under way, and joins it: one for the same pages, however long it takes. */
  #loadPages(first: number, count: number): Promise<void> {
    const firstPage = Math.floor(first / PAGE_BLOCKS);
    const lastPage = Math.floor((first + count - 1) / PAGE_BLOCKS);
    const key = firstPage * LOAD_PAGES_MAX + lastPage - firstPage;
    let loading = this.#loads.get(key);
    if (loading === undefined) {
      loading = this.#map.load(first, count).finally(() => this.#loads.delete(key));
      this.#loads.set(key, loading);
    }
    return loading;
  }

  /** Copies what is in RAM or zero; returns what is not, or null. Uses the scratch arrays that map.read filled. */
  #fromCache(offsetBytes: number, length: number, first: number, count: number, target: Buffer): MissingBlock[] | null {
    let missing: MissingBlock[] | null = null;
    const end = offsetBytes + length;
    for (let index = 0; index < count; index += 1) {
      const blockStart = (first + index) * BLOCK_BYTES;
      const from = offsetBytes > blockStart ? offsetBytes - blockStart : 0;
      const to = end < blockStart + BLOCK_BYTES ? end - blockStart : BLOCK_BYTES;
      const targetOffset = blockStart + from - offsetBytes;
      const row = scratchRows[index] as number;
      if (row === 0) {
        target.fill(0, targetOffset, targetOffset + to - from);
        continue;
      }
      const offset = scratchOffsets[index] as number;
      if (this.#cache.get(this.#table.globalId(row), offset, target, targetOffset, from, to - from)) continue;
      missing ??= [];
      missing.push({ row, offsetBytes: offset, crc: scratchCrcs[index] as number, targetOffset, from, length: to - from });
    }
    return missing;
  }

  async #readInParts(offsetBytes: number, target: Buffer): Promise<number> {
    const partBytes = (SCRATCH_BLOCKS - 2) * BLOCK_BYTES;
    let total = 0;
    while (total < target.length) {
      const bytes = await this.read(offsetBytes + total, target.subarray(total, total + partBytes));
      if (bytes === 0) break;
      total += bytes;
    }
    return total;
  }

  /** Resolves when no load of pages is under way, also none that nobody waits for any more. */
  async loadsEnded(): Promise<void> {
    while (this.#loads.size > 0) await Promise.allSettled(this.#loads.values());
  }

  /** Chunks of whole blocks, edges merged with what is there; null when an edge is not in RAM. */
  wholeBlocksInRam(
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    first: number,
    last: number,
  ): readonly Uint8Array[] | null {
    const headPartial = offsetBytes % BLOCK_BYTES !== 0;
    const tailPartial = (offsetBytes + countBytes) % BLOCK_BYTES !== 0;
    if (!headPartial && !tailPartial) return chunks;
    const headBase = headPartial ? this.#inRam(first) : null;
    if (headPartial && headBase === null) return null;
    const tailBase = !tailPartial ? null : first === last && headBase !== null ? headBase : this.#inRam(last);
    if (tailPartial && tailBase === null) return null;
    return mergeEdges(offsetBytes, countBytes, chunks, first, last, headBase, tailBase);
  }

  /** As wholeBlocksInRam, from wherever the edges are. Only under a lock of the blocks: nobody appends to them meanwhile. Rejects as BlockReader.fetch does. */
  async wholeBlocks(
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    first: number,
    last: number,
  ): Promise<readonly Uint8Array[]> {
    const headBase = offsetBytes % BLOCK_BYTES === 0 ? null : await this.content(first);
    const tailBase =
      (offsetBytes + countBytes) % BLOCK_BYTES === 0 ? null : first === last && headBase !== null ? headBase : await this.content(last);
    return mergeEdges(offsetBytes, countBytes, chunks, first, last, headBase, tailBase);
  }

  /** Content of a block as of everything appended, in a buffer of its own; null when it is not in RAM. */
  #inRam(block: number): Buffer | null {
    const pending = this.#pendingBlock(block);
    if (pending !== null) return pending;
    if (!this.#map.read(block, 1, scratchRows, scratchOffsets, scratchCrcs)) return null;
    const row = scratchRows[0] as number;
    if (row === 0) return Buffer.from(ZERO_BLOCK);
    const target = Buffer.allocUnsafe(BLOCK_BYTES);
    return this.#cache.get(this.#table.globalId(row), scratchOffsets[0] as number, target, 0, 0, BLOCK_BYTES) ? target : null;
  }

  #pendingBlock(block: number): Buffer | null {
    const log = this.#log;
    if (log === null || !log.hasPending) return null;
    for (const record of log.pendingNewestFirst()) {
      if (block < record.startBlock || block >= record.startBlock + record.blockCount) continue;
      if (record.kind === RecordKind.ZERO) return Buffer.from(ZERO_BLOCK);
      if (record.kind !== RecordKind.DATA) continue;
      const target = Buffer.allocUnsafe(BLOCK_BYTES);
      copyChunks(record.chunks, (block - record.startBlock) * BLOCK_BYTES, BLOCK_BYTES, target, 0);
      return target;
    }
    return null;
  }

  /** Content of a block as of everything appended, in a buffer of its own. Only under a lock of the block. Rejects as BlockReader.fetch does. */
  async content(block: number): Promise<Buffer> {
    for (;;) {
      const inRam = this.#inRam(block);
      if (inRam !== null) return inRam;
      await this.#map.load(block, 1);
      if (!this.#map.read(block, 1, scratchRows, scratchOffsets, scratchCrcs)) continue;
      const row = scratchRows[0] as number;
      if (row === 0) return Buffer.from(ZERO_BLOCK);
      const target = Buffer.allocUnsafe(BLOCK_BYTES);
      const wanted = {
        row,
        offsetBytes: scratchOffsets[0] as number,
        crc: scratchCrcs[0] as number,
        targetOffset: 0,
        from: 0,
        length: BLOCK_BYTES,
      };
      await this.#reader.fetch(this.#uuid, this.#table, [wanted], target);
      return target;
    }
  }
}
