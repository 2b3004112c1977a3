/**
 * The extent map of one object: block number -> (row of the segment table, offset, crc32 of the block), in pages of 1024 blocks
 * that come and go between RAM, a local spill file and checkpoint objects (design section 6, decision 0002).
 *
 * Block numbers count 4 KiB blocks and are plain numbers below 2^34. One owner: nothing here may be called concurrently with
 * itself except where it waits, and what a wait allows is said at each method.
 */
import { assert } from '../core/assert.ts';
import { isPending, type MaybePromise } from '../core/maybe-promise.ts';
import { chooseRewrites } from './checkpoint-compaction.ts';
import { FrozenCheckpoint } from './frozen-checkpoint.ts';
import { DIRTY, FROZEN, IN_FLIGHT, PAGES_MAX, REWRITE } from './page-directory.ts';
import { ENTRY_WORDS, FRAME_WORDS, PAGE_BLOCKS } from './page-image.ts';
import { type PagePool, REFERENCED, SLAB_MASK, SLAB_SHIFT } from './page-pool.ts';
import { PageResidence, type PageSource } from './page-residence.ts';
import type { SegmentTable } from './segment-table.ts';

/** Bytes of a block. */
export const BLOCK_BYTES = 4096;
/** Blocks of the largest object: 64 TiB. */
export const BLOCKS_MAX = PAGES_MAX * PAGE_BLOCKS;

/** Pages that truncate, forEachMapped and verify handle at a time. */
const BATCH_PAGES = 8;
/** Slots of the directory looked at before others get their turn. */
const SCAN_SLOTS = 16_384;

/** A mapped block, for the cleaner and fsck. */
export type BlockVisitor = (block: number, row: number, offsetBytes: number, crc: number) => void;

/** Where a page's image lies, as a manifest says it. */
export interface PersistedPage {
  readonly page: number;
  readonly row: number;
  /** In units of 64 bytes. */
  readonly offsetUnits: number;
  readonly lengthBytes: number;
  readonly crc: number;
  readonly mapped: number;
}

export class ExtentMap {
  readonly table: SegmentTable;
  readonly #pool: PagePool;
  readonly #pages: PageResidence;
  #mappedBlocks = 0;
  #frozen: FrozenCheckpoint | null = null;
  #lastPage = -1;
  #lastSlot = -1;

  /** An empty map. `source` reads page images back by the table's rows of kind checkpoint. */
  constructor(components: { pool: PagePool; table: SegmentTable; source: PageSource }) {
    this.table = components.table;
    this.#pool = components.pool;
    this.#pages = new PageResidence(components.pool, components.table, components.source);
  }

  /** Mapped blocks: the object's used bytes are 4096 times this. */
  get mappedBlocks(): number {
    return this.#mappedBlocks;
  }

  /** Pages whose content no committed checkpoint has: what the next one has to write. */
  get dirtyPages(): number {
    return this.#pages.dirtyPages;
  }

  /** Pages in the directory, and its bytes; for metrics. */
  get directory(): { readonly pages: number; readonly memoryBytes: number } {
    return { pages: this.#pages.dir.count, memoryBytes: this.#pages.memoryBytes };
  }

  /** True between `beginCheckpoint` and its `commit` or `abandon`. */
  get checkpointing(): boolean {
    return this.#frozen !== null;
  }

  /** Gives frames and spill slots back; the map is dead then. Nothing is pinned or pending; a running checkpoint was ended. */
  close(): void {
    assert(this.#frozen === null, 'close during a checkpoint');
    this.#pages.close();
  }

  /**
   * Makes the pages of a range resident and holds them until `unpin` with the same range. The range is at most as many pages as
   * the pool has frames. Waits (FIFO) while too many pages are pinned; rejects, with nothing pinned, when a page cannot be loaded.
   */
  pin(startBlock: number, countBlocks: number): MaybePromise<void> {
    return this.#pin(startBlock, countBlocks, true);
  }

  /** As `pin`, but a page that maps nothing gets no frame: enough for `unmap` and reading. */
  pinExisting(startBlock: number, countBlocks: number): MaybePromise<void> {
    return this.#pin(startBlock, countBlocks, false);
  }

  #pin(startBlock: number, countBlocks: number, create: boolean): MaybePromise<void> {
    // Here and below: a message is only put together when it is needed, it would cost more than all the rest.
    if (!(countBlocks > 0 && startBlock >= 0 && startBlock + countBlocks <= BLOCKS_MAX)) assert(false, `blocks ${startBlock} + ${countBlocks}`);
    const first = Math.floor(startBlock / PAGE_BLOCKS);
    const last = Math.floor((startBlock + countBlocks - 1) / PAGE_BLOCKS);
    if (!this.#pool.tryTakeUnits(last - first + 1)) return this.#pinInTurn(first, last, create);
    return this.#pinPages(first, last, create);
  }

  async #pinInTurn(first: number, last: number, create: boolean): Promise<void> {
    await this.#pool.takeUnits(last - first + 1);
    await this.#pinPages(first, last, create);
  }

  #pinPages(first: number, last: number, create: boolean): MaybePromise<void> {
    // Claim all before waiting for any: a claimed page cannot leave while another one is loaded.
    let waits = false;
    for (let page = first; page <= last; page += 1) {
      let slot = this.#find(page);
      if (slot < 0) slot = this.#pages.dir.insert(page);
      this.#pages.claim(slot);
      if (!waits && !this.#pages.isAtHand(slot, create)) waits = !this.#makeResident(slot, create);
    }
    return waits ? this.#pinSlowly(first, last, create) : undefined;
  }

  /** True when the page could be had without waiting: it maps nothing, and a frame is free. */
  #makeResident(slot: number, create: boolean): boolean {
    if (this.#pages.dir.mapped[slot] !== 0) return false;
    const pending = this.#pages.ensureFrame(slot, create);
    if (!isPending(pending)) return true;
    // A rejection shows again when `#pinSlowly` asks for the same page.
    pending.catch(() => {});
    return false;
  }

  async #pinSlowly(first: number, last: number, create: boolean): Promise<void> {
    const waits: Promise<void>[] = [];
    for (let page = first; page <= last; page += 1) {
      const pending = this.#pages.ensureFrame(this.#find(page), create);
      if (isPending(pending)) waits.push(pending);
    }
    const failed = (await Promise.allSettled(waits)).find((result) => result.status === 'rejected');
    if (failed === undefined) return;
    this.#unpinPages(first, last);
    throw failed.reason;
  }

  /** Ends a `pin` or `pinExisting` of the same range. */
  unpin(startBlock: number, countBlocks: number): void {
    this.#unpinPages(Math.floor(startBlock / PAGE_BLOCKS), Math.floor((startBlock + countBlocks - 1) / PAGE_BLOCKS));
  }

  #unpinPages(first: number, last: number): void {
    for (let page = first; page <= last; page += 1) {
      const slot = this.#find(page);
      if (slot < 0) assert(false, `unpin of page ${page}, which is not there`);
      this.#pages.unclaim(slot);
    }
    this.#pool.giveUnits(last - first + 1);
  }

  #find(page: number): number {
    const { dir } = this.#pages;
    if (page === this.#lastPage && dir.page[this.#lastSlot] === page) return this.#lastSlot;
    const slot = dir.find(page);
    if (slot >= 0) {
      this.#lastPage = page;
      this.#lastSlot = slot;
    }
    return slot;
  }

  /**
   * Maps `countBlocks` blocks from `startBlock` to a run in `row`: block i lies at `offsetBytes` + 4096 i and has the CRC
   * `crcs[crcIndex + i]`. The range is pinned (`pin`). Synchronous.
   */
  set(startBlock: number, countBlocks: number, row: number, offsetBytes: number, crcs: Uint32Array | readonly number[], crcIndex: number): void {
    if (!this.table.holdsBlocks(row)) assert(false, `row ${row} holds no blocks`);
    const { dir } = this.#pages;
    let block = startBlock;
    let left = countBlocks;
    let offset = offsetBytes;
    let crcAt = crcIndex;
    while (left > 0) {
      const page = Math.floor(block / PAGE_BLOCKS);
      const from = block - page * PAGE_BLOCKS;
      const count = left < PAGE_BLOCKS - from ? left : PAGE_BLOCKS - from;
      const slot = this.#find(page);
      if (slot < 0 || dir.pins[slot] === 0 || dir.frame[slot]! < 0) assert(false, `set at block ${block}, which is not pinned`);
      this.#pages.beforeChange(slot);
      const frame = dir.frame[slot]!;
      const words = this.#pool.slabs[frame >> SLAB_SHIFT]!;
      let word = (frame & SLAB_MASK) * FRAME_WORDS + from * ENTRY_WORDS;
      let added = 0;
      let lastRow = 0;
      let run = 0;
      for (let index = 0; index < count; index += 1) {
        const old = words[word]!;
        if (old !== lastRow) {
          if (lastRow !== 0) this.table.adjustLive(lastRow, -run);
          lastRow = old;
          run = 0;
        }
        if (old === 0) added += 1;
        run += 1;
        words[word] = row;
        words[word + 1] = offset;
        words[word + 2] = crcs[crcAt]!;
        word += ENTRY_WORDS;
        offset += BLOCK_BYTES;
        crcAt += 1;
      }
      if (lastRow !== 0) this.table.adjustLive(lastRow, -run);
      this.table.adjustLive(row, count);
      dir.mapped[slot] = dir.mapped[slot]! + added;
      this.#mappedBlocks += added;
      block += count;
      left -= count;
    }
  }

  /** Makes `countBlocks` blocks holes. The range is pinned (`pin` or `pinExisting`). Synchronous. */
  unmap(startBlock: number, countBlocks: number): void {
    const { dir } = this.#pages;
    let block = startBlock;
    let left = countBlocks;
    while (left > 0) {
      const page = Math.floor(block / PAGE_BLOCKS);
      const from = block - page * PAGE_BLOCKS;
      const count = left < PAGE_BLOCKS - from ? left : PAGE_BLOCKS - from;
      const slot = this.#find(page);
      if (slot >= 0 && dir.mapped[slot] !== 0) this.#unmapInPage(slot, from, count);
      block += count;
      left -= count;
    }
  }

  #unmapInPage(slot: number, from: number, count: number): void {
    const { dir } = this.#pages;
    if (dir.pins[slot] === 0 || dir.frame[slot]! < 0) assert(false, `unmap in page ${dir.page[slot]}, which is not pinned`);
    const frame = dir.frame[slot]!;
    const words = this.#pool.slabs[frame >> SLAB_SHIFT]!;
    const first = (frame & SLAB_MASK) * FRAME_WORDS + from * ENTRY_WORDS;
    let removed = 0;
    let lastRow = 0;
    let run = 0;
    for (let word = first; word < first + count * ENTRY_WORDS; word += ENTRY_WORDS) {
      const old = words[word]!;
      if (old === 0) continue;
      if (removed === 0) this.#pages.beforeChange(slot);
      if (old !== lastRow) {
        if (lastRow !== 0) this.table.adjustLive(lastRow, -run);
        lastRow = old;
        run = 0;
      }
      run += 1;
      removed += 1;
      words[word] = 0;
      words[word + 1] = 0;
      words[word + 2] = 0;
    }
    if (lastRow !== 0) this.table.adjustLive(lastRow, -run);
    dir.mapped[slot] = dir.mapped[slot]! - removed;
    this.#mappedBlocks -= removed;
  }

  /**
   * Fills index 0 to `countBlocks` - 1 of the three arrays; row 0 (with offset and CRC 0) is a hole. False when some page is not
   * resident: the arrays are then half filled, and the caller awaits `load` and tries again, or uses `readLoading`.
   */
  read(startBlock: number, countBlocks: number, rows: Uint32Array, offsets: Uint32Array, crcs: Uint32Array): boolean {
    const { dir } = this.#pages;
    let block = startBlock;
    let at = 0;
    while (at < countBlocks) {
      const page = Math.floor(block / PAGE_BLOCKS);
      const from = block - page * PAGE_BLOCKS;
      const count = countBlocks - at < PAGE_BLOCKS - from ? countBlocks - at : PAGE_BLOCKS - from;
      const slot = this.#find(page);
      if (slot < 0 || dir.mapped[slot] === 0) {
        rows.fill(0, at, at + count);
        offsets.fill(0, at, at + count);
        crcs.fill(0, at, at + count);
      } else {
        const frame = dir.frame[slot]!;
        if (frame < 0) return false;
        const { state } = this.#pool;
        state[frame] = state[frame]! | REFERENCED;
        const words = this.#pool.slabs[frame >> SLAB_SHIFT]!;
        let word = (frame & SLAB_MASK) * FRAME_WORDS + from * ENTRY_WORDS;
        for (let index = at; index < at + count; index += 1) {
          rows[index] = words[word]!;
          offsets[index] = words[word + 1]!;
          crcs[index] = words[word + 2]!;
          word += ENTRY_WORDS;
        }
      }
      at += count;
      block += count;
    }
    return true;
  }

  /** Makes the pages of a range resident, not pinned: by the time the promise is looked at one may have left again. */
  async load(startBlock: number, countBlocks: number): Promise<void> {
    await this.pinExisting(startBlock, countBlocks);
    this.unpin(startBlock, countBlocks);
  }

  /** As `read`, but loads what is missing and holds it meanwhile, so that it needs no second try. */
  readLoading(startBlock: number, countBlocks: number, rows: Uint32Array, offsets: Uint32Array, crcs: Uint32Array): MaybePromise<void> {
    if (this.read(startBlock, countBlocks, rows, offsets, crcs)) return undefined;
    return this.#readPinned(startBlock, countBlocks, rows, offsets, crcs);
  }

  async #readPinned(startBlock: number, countBlocks: number, rows: Uint32Array, offsets: Uint32Array, crcs: Uint32Array): Promise<void> {
    await this.pinExisting(startBlock, countBlocks);
    const complete = this.read(startBlock, countBlocks, rows, offsets, crcs);
    this.unpin(startBlock, countBlocks);
    assert(complete, 'a pinned page is resident');
  }

  /**
   * Makes everything from `fromBlock` on a hole, some pages at a time, with turns for others between. Until it resolves the caller
   * sets nothing there; reads there see holes or old blocks. Rejects, part done and repeatable, when a page cannot be loaded.
   * After a crash in the middle: a map opened from a checkpoint taken meanwhile needs the truncate again.
   */
  async truncate(fromBlock: number): Promise<void> {
    const { dir } = this.#pages;
    const boundary = Math.floor(fromBlock / PAGE_BLOCKS);
    let batch: Promise<void>[] = [];
    for (let slot = 0, looked = 0; slot < dir.slotEnd; slot += 1, looked += 1) {
      if (looked === SCAN_SLOTS) {
        looked = 0;
        await this.#pool.yieldToLoop();
      }
      if (!dir.isUsed(slot) || dir.mapped[slot] === 0) continue;
      const page = dir.page[slot]!;
      if (page < boundary) continue;
      const from = Math.max(fromBlock, page * PAGE_BLOCKS);
      batch.push(this.#unmapLoading(from, (page + 1) * PAGE_BLOCKS - from));
      if (batch.length < BATCH_PAGES) continue;
      await allDone(batch);
      batch = [];
      await this.#pool.yieldToLoop();
    }
    await allDone(batch);
  }

  async #unmapLoading(startBlock: number, countBlocks: number): Promise<void> {
    await this.pinExisting(startBlock, countBlocks);
    this.unmap(startBlock, countBlocks);
    this.unpin(startBlock, countBlocks);
  }

  /**
   * Shows every mapped block to `visitor` in ascending order, a page at a time with turns for others between; a page shows its
   * content of that moment. Costs 4 bytes a page. Rejects when a page cannot be loaded.
   */
  async forEachMapped(visitor: BlockVisitor): Promise<void> {
    const { dir } = this.#pages;
    const pages = new Uint32Array(dir.count);
    let count = 0;
    for (let slot = 0; slot < dir.slotEnd; slot += 1) {
      if (!dir.isUsed(slot) || dir.mapped[slot] === 0) continue;
      pages[count] = dir.page[slot]!;
      count += 1;
    }
    const sorted = pages.subarray(0, count).sort();
    for (let index = 0; index < count; index += 1) {
      if (index % BATCH_PAGES === 0) await this.#pool.yieldToLoop();
      await this.#visitPage(sorted[index]!, visitor);
    }
  }

  async #visitPage(page: number, visitor: BlockVisitor): Promise<void> {
    const start = page * PAGE_BLOCKS;
    await this.pinExisting(start, PAGE_BLOCKS);
    try {
      const slot = this.#find(page);
      const number = this.#pages.dir.frame[slot]!;
      if (this.#pages.dir.mapped[slot] === 0 || number < 0) return;
      const words = this.#pool.frame(number);
      for (let index = 0, word = 0; index < PAGE_BLOCKS; index += 1, word += ENTRY_WORDS) {
        const row = words[word]!;
        if (row !== 0) visitor(start + index, row, words[word + 1]!, words[word + 2]!);
      }
    } finally {
      this.unpin(start, PAGE_BLOCKS);
    }
  }

  /** Recounts everything; messages, empty when all is well. Nobody changes the map meanwhile. Rejects when a page cannot be loaded. */
  async verify(): Promise<string[]> {
    const problems: string[] = [];
    const { dir } = this.#pages;
    const live = new Uint32Array(this.table.rowEnd);
    const mapped = new Map<number, number>();
    let total = 0;
    await this.forEachMapped((block, row) => {
      total += 1;
      live[row] = live[row]! + 1;
      const page = Math.floor(block / PAGE_BLOCKS);
      mapped.set(page, (mapped.get(page) ?? 0) + 1);
    });
    if (total !== this.#mappedBlocks) problems.push(`${total} blocks are mapped, the count says ${this.#mappedBlocks}`);
    for (let slot = 0; slot < dir.slotEnd; slot += 1) {
      if (!dir.isUsed(slot)) continue;
      const page = dir.page[slot]!;
      if (dir.find(page) !== slot) problems.push(`page ${page} cannot be found`);
      const counted = mapped.get(page) ?? 0;
      if (counted !== dir.mapped[slot]) problems.push(`page ${page} maps ${counted} blocks, the directory says ${dir.mapped[slot]}`);
      const row = dir.row[slot]!;
      if (row === 0) continue;
      if (this.table.holdsPages(row)) live[row] = live[row]! + 1;
      else problems.push(`page ${page} has its image in row ${row}, which is no checkpoint`);
    }
    for (const row of this.table.rows()) {
      if (live[row] !== this.table.live(row)) {
        problems.push(`${this.table.objectName(row)} has ${live[row]} references, the table says ${this.table.live(row)}`);
      }
      live[row] = 0;
    }
    for (const [row, count] of live.entries()) if (count > 0) problems.push(`${count} blocks point to row ${row}, which is not in use`);
    return problems;
  }

  /**
   * Call before `beginCheckpoint`: when the checkpoint objects have grown beyond twice what lives in them plus 16 MiB, marks the
   * pages of the emptiest to be written anew by the next checkpoint, which frees those objects. Loads nothing. Returns how many.
   */
  async prepareCheckpoint(): Promise<number> {
    assert(this.#frozen === null, 'one checkpoint at a time');
    const { dir } = this.#pages;
    const liveBytes = new Map<number, number>();
    for (let slot = 0, looked = 0; slot < dir.slotEnd; slot += 1, looked += 1) {
      if (looked === SCAN_SLOTS) {
        looked = 0;
        await this.#pool.yieldToLoop();
      }
      const row = dir.isUsed(slot) ? dir.row[slot]! : 0;
      if (row !== 0) liveBytes.set(row, (liveBytes.get(row) ?? 0) + dir.length[slot]!);
    }
    const rows = chooseRewrites([...liveBytes].map(([row, bytes]) => ({ row, liveBytes: bytes, sizeBytes: this.table.sizeBytes(row) })));
    if (rows.size === 0) return 0;
    let marked = 0;
    for (let slot = 0, looked = 0; slot < dir.slotEnd; slot += 1, looked += 1) {
      if (looked === SCAN_SLOTS) {
        looked = 0;
        await this.#pool.yieldToLoop();
      }
      if (!dir.isUsed(slot) || dir.mapped[slot] === 0 || !rows.has(dir.row[slot]!)) continue;
      if ((dir.flags[slot]! & (DIRTY | REWRITE)) !== 0) continue;
      dir.flags[slot] = dir.flags[slot]! | REWRITE;
      this.#pages.list(slot);
      marked += 1;
    }
    return marked;
  }

  /**
   * Freezes the content of this instant. Synchronous, a few nanoseconds a dirty page (and a copy of the table's live counts).
   * The map goes on; pages are copied before they change. One at a time: ended by its `commit` or `abandon`.
   */
  beginCheckpoint(): FrozenCheckpoint {
    assert(this.#frozen === null, 'one checkpoint at a time');
    const pages = this.#pages;
    const { dir } = pages;
    const list = pages.takeDirtyList();
    let count = 0;
    // The list itself becomes the checkpoint's: entries that are stale or repeated have no flag any more.
    for (let index = 0; index < list.length; index += 1) {
      const slot = list[index]!;
      const flags = dir.flags[slot]!;
      if ((flags & (DIRTY | REWRITE)) === 0) continue;
      const wasDirty = (flags & DIRTY) !== 0;
      const kept = flags & ~(DIRTY | REWRITE);
      if (dir.mapped[slot] === 0 && dir.row[slot] === 0) {
        // Made and emptied since the last checkpoint: nobody needs to know.
        dir.flags[slot] = kept;
        pages.dropIfUnused(slot);
        continue;
      }
      dir.flags[slot] = kept | IN_FLIGHT | (wasDirty && dir.mapped[slot] !== 0 ? FROZEN : 0);
      list[count] = slot;
      count += 1;
    }
    const frozen = new FrozenCheckpoint({
      pages,
      slots: list.subarray(0, count),
      mappedBlocks: this.#mappedBlocks,
      ended: () => (this.#frozen = null),
    });
    this.#frozen = frozen;
    return frozen;
  }

  /** Enters the pages of a manifest into an empty map (their rows are in the table, references counted). */
  adopt(page: PersistedPage): void {
    const { dir } = this.#pages;
    const slot = dir.insert(page.page);
    dir.mapped[slot] = page.mapped;
    dir.savedMapped[slot] = page.mapped;
    dir.row[slot] = page.row;
    dir.offset[slot] = page.offsetUnits;
    dir.length[slot] = page.lengthBytes;
    dir.crc[slot] = page.crc;
    this.#mappedBlocks += page.mapped;
  }

  /** Whether `adopt` has seen the page. */
  hasPage(page: number): boolean {
    return this.#pages.dir.find(page) >= 0;
  }

  /** Makes room in the directory for `adopt`. */
  reservePages(pages: number): void {
    this.#pages.dir.reserve(pages);
  }
}

async function allDone(promises: readonly Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(promises)).find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}
