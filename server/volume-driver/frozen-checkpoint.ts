/**
 * A checkpoint under way: the content of the extent map and its table at one instant, held while the map goes on changing.
 *
 * What it has to write of a frozen page is, in this order: the sheltered copy or spill slot, when the page changed since; the page
 * as it is now (flag FROZEN); its old image, when it is only to be written anew.
 */
import { crc32 } from 'node:zlib';

import { assert } from '../core/assert.ts';
import {
  type CheckpointHeader,
  encodeBuckets,
  encodeFooter,
  encodeGarbage,
  encodeHeader,
  encodeManifestHead,
  encodePageRecord,
  encodeRowRecord,
  encodeTerms,
  encodeUuids,
  FOOTER_BYTES,
  type GarbageEntry,
  PAGE_RECORD_BYTES,
  ROW_RECORD_BYTES,
} from './checkpoint-codec.ts';
import { ChunkWriter } from './chunk-writer.ts';
import { DIRTY, FROZEN, IN_FLIGHT } from './page-directory.ts';
import { encodeImage, FRAME_WORDS, imageBytes } from './page-image.ts';
import { IMAGE_ALIGN_BYTES, type PageResidence, type Shelter } from './page-residence.ts';
import type { FrozenTable } from './segment-table.ts';

/** What the driver says of the instant of `beginCheckpoint`; the number of mapped blocks is the map's own. */
export type CheckpointDescription = Omit<CheckpointHeader, 'mappedBlocks'> & { readonly garbage: readonly GarbageEntry[] };

/** Images or records after which others get their turn. */
const TURN_IMAGES = 8;
const TURN_RECORDS = 3_000;

export class FrozenCheckpoint implements Shelter {
  readonly mappedBlocks: number;
  readonly #pages: PageResidence;
  readonly #ended: () => void;
  readonly #table: FrozenTable;
  readonly #slots: Uint32Array;
  readonly #mapped: Uint16Array;
  readonly #wasDirty: Uint8Array;
  /** Where the images went. */
  readonly #offsetUnits: Uint32Array;
  readonly #crc: Uint32Array;
  readonly #copies = new Map<number, Uint32Array>();
  readonly #spills = new Map<number, number>();
  #state: 'frozen' | 'encoding' | 'encoded' | 'ended' = 'frozen';
  #objectBytes = 0;

  /** Made by `ExtentMap.beginCheckpoint` only. `slots` have the flag IN_FLIGHT; those that were dirty and not empty FROZEN. */
  constructor(parts: { pages: PageResidence; slots: Uint32Array; mappedBlocks: number; ended: () => void }) {
    const { pages, slots } = parts;
    this.#pages = pages;
    this.#slots = slots;
    this.#ended = parts.ended;
    this.mappedBlocks = parts.mappedBlocks;
    this.#table = pages.table.freeze();
    this.#mapped = new Uint16Array(slots.length);
    this.#wasDirty = new Uint8Array(slots.length);
    this.#offsetUnits = new Uint32Array(slots.length);
    this.#crc = new Uint32Array(slots.length);
    for (let index = 0; index < slots.length; index += 1) {
      const slot = slots[index]!;
      this.#mapped[index] = pages.dir.mapped[slot]!;
      this.#wasDirty[index] = pages.dir.mapped[slot] === 0 || (pages.dir.flags[slot]! & FROZEN) !== 0 ? 1 : 0;
    }
    pages.shelter = this;
  }

  /** Pages that the checkpoint writes or forgets. */
  get pageCount(): number {
    return this.#slots.length;
  }

  /** Size of the object, once `encode` has given its last chunk. */
  get objectBytes(): number {
    assert(this.#state === 'encoded', 'the checkpoint is not encoded');
    return this.#objectBytes;
  }

  get copies(): number {
    return this.#copies.size;
  }

  keepCopy(slot: number, frame: Uint32Array): void {
    this.#copies.set(slot, frame);
  }

  keepSpill(slot: number, spillSlot: number): void {
    this.#spills.set(slot, spillSlot);
  }

  /**
   * The bytes of the checkpoint object, in chunks that belong to the caller. Once only. Throws when a page cannot be read back;
   * the caller then abandons the checkpoint, as it does when it stops early.
   */
  async *encode(description: CheckpointDescription): AsyncGenerator<Uint8Array> {
    assert(this.#state === 'frozen', 'a checkpoint is encoded once');
    this.#state = 'encoding';
    const out = new ChunkWriter();
    const header = encodeHeader({ ...description, mappedBlocks: this.mappedBlocks });
    const headerCrc = crc32(header);
    out.write(header);
    const frame = new Uint32Array(FRAME_WORDS);
    let imageCount = 0;
    for (let index = 0; index < this.#slots.length; index += 1) {
      if (index % TURN_IMAGES === TURN_IMAGES - 1) await this.#pages.pool.yieldToLoop();
      if (this.#mapped[index] === 0) continue;
      out.align(IMAGE_ALIGN_BYTES);
      const units = out.position / IMAGE_ALIGN_BYTES;
      assert(units < 2 ** 32, 'checkpoint object is larger than 256 GiB');
      this.#offsetUnits[index] = units;
      await this.#writeImage(index, frame, out);
      imageCount += 1;
      yield* out.drain();
    }
    const manifestOffsetBytes = out.position;
    out.startCrc();
    for await (const _ of this.#writeManifest(description, out)) yield* out.drain();
    const manifestCrc = out.crc;
    const manifestBytes = out.position - manifestOffsetBytes;
    this.#objectBytes = out.position + FOOTER_BYTES;
    out.write(
      encodeFooter({
        headerBytes: header.byteLength,
        headerCrc,
        objectBytes: this.#objectBytes,
        manifestOffsetBytes,
        manifestBytes,
        manifestCrc,
        imageCount,
      }),
    );
    this.#state = 'encoded';
    out.finish();
    yield* out.drain();
  }

  async #writeImage(index: number, scratch: Uint32Array, out: ChunkWriter): Promise<void> {
    const { dir, pool } = this.#pages;
    const slot = this.#slots[index]!;
    const mapped = this.#mapped[index]!;
    const page = dir.page[slot]!;
    const copy = this.#copies.get(slot);
    let frame = copy ?? scratch;
    if (copy === undefined && !this.#spills.has(slot)) {
      if ((dir.flags[slot]! & FROZEN) === 0) {
        const image = await this.#pages.readImage(slot);
        assert(image.byteLength === imageBytes(mapped), 'an image that is only written anew has not changed');
        this.#crc[index] = dir.crc[slot]!;
        out.write(image);
        return;
      }
      if (dir.frame[slot]! >= 0) {
        frame = pool.frame(dir.frame[slot]!);
      }
    }
    if (frame === scratch) {
      // The slot may pass from the page to the shelter while it is read; it is not freed before we are done.
      const spillSlot = this.#spills.get(slot) ?? dir.spill[slot]!;
      assert(spillSlot >= 0, `page ${page} has no content to write`);
      if (!(await pool.spill.read(spillSlot, scratch))) throw pool.spill.corrupt(spillSlot);
    }
    this.#crc[index] = encodeImage(out.reserve(imageBytes(mapped)), page, mapped, frame);
    dir.flags[slot] = dir.flags[slot]! & ~FROZEN;
    this.#copies.delete(slot);
    this.#freeSpill(slot);
  }

  #freeSpill(slot: number): void {
    const spillSlot = this.#spills.get(slot);
    if (spillSlot === undefined) return;
    this.#spills.delete(slot);
    this.#pages.pool.spill.free(spillSlot);
  }

  /** Yields when it is time to hand chunks on. */
  async *#writeManifest(description: CheckpointDescription, out: ChunkWriter): AsyncGenerator<void> {
    const { dir, table, pool } = this.#pages;
    const { lists } = table;
    // References to checkpoint objects as they are once this one is committed.
    const pageCounts = new Uint32Array(this.#table.rowEnd);
    let pages = 0;
    for (let slot = 0; slot < dir.slotEnd; slot += 1) {
      if (!this.#keepsImage(slot)) continue;
      pages += 1;
      pageCounts[dir.row[slot]!] = pageCounts[dir.row[slot]!]! + 1;
    }
    for (const mapped of this.#mapped) if (mapped > 0) pages += 1;
    let rows = 0;
    let rowEnd = 1;
    for (let row = 1; row < this.#table.rowEnd; row += 1) {
      if (!table.isFrozenRow(row)) continue;
      rows += 1;
      rowEnd = row + 1;
    }
    const buckets = [...lists.buckets];
    const garbage = encodeGarbage(description.garbage, (bucket) => {
      const found = buckets.indexOf(bucket);
      return found >= 0 ? found : buckets.push(bucket) - 1;
    });
    const bucketBytes = encodeBuckets(buckets.slice(1));
    out.write(
      encodeManifestHead({
        pages,
        rows,
        rowEnd,
        terms: lists.terms.length,
        uuids: lists.uuids.length - 1,
        buckets: buckets.length - 1,
        bucketsBytes: bucketBytes.byteLength,
        garbage: description.garbage.length,
        garbageBytes: garbage.byteLength,
      }),
    );
    out.write(encodeTerms(lists.terms));
    out.write(encodeUuids(lists.uuids.slice(1)));
    out.write(bucketBytes);
    let turn = 0;
    const record = Buffer.alloc(ROW_RECORD_BYTES);
    for (let row = 1; row < rowEnd; row += 1) {
      if (!table.isFrozenRow(row)) continue;
      const kind = table.kind(row);
      const live = kind === 'checkpoint' ? pageCounts[row]! : this.#table.live[row]!;
      encodeRowRecord(record, 0, { row, kind, ...table.indexes(row), number: table.number(row), sizeBytes: table.sizeBytes(row), live });
      out.write(record);
      turn += 1;
      if (turn % TURN_RECORDS === 0) {
        yield;
        await pool.yieldToLoop();
      }
    }
    for (let slot = 0; slot < dir.slotEnd; slot += 1) {
      if (!this.#keepsImage(slot)) continue;
      this.#writePage(out, dir.page[slot]!, dir.row[slot]!, dir.offset[slot]!, dir.crc[slot]!, dir.savedMapped[slot]!);
      turn += 1;
      if (turn % TURN_RECORDS === 0) {
        yield;
        await pool.yieldToLoop();
      }
    }
    for (let index = 0; index < this.#slots.length; index += 1) {
      if (this.#mapped[index] === 0) continue;
      this.#writePage(out, dir.page[this.#slots[index]!]!, 0, this.#offsetUnits[index]!, this.#crc[index]!, this.#mapped[index]!);
      turn += 1;
      if (turn % TURN_RECORDS === 0) {
        yield;
        await pool.yieldToLoop();
      }
    }
    out.write(garbage);
    yield;
  }

  /** Pages whose old image stays: locations only change at a commit, so this is the same at every instant of the encoding. */
  #keepsImage(slot: number): boolean {
    const { dir } = this.#pages;
    return dir.row[slot] !== 0 && (dir.flags[slot]! & IN_FLIGHT) === 0;
  }

  #writePage(out: ChunkWriter, page: number, row: number, offsetUnits: number, crc: number, mapped: number): void {
    encodePageRecord(out.reserve(PAGE_RECORD_BYTES), 0, { page, row, offsetUnits, crc, lengthBytes: imageBytes(mapped), mapped });
  }

  /**
   * The object is stored for good as the table's row `row` (kind checkpoint, added by the caller after `beginCheckpoint`): pages
   * now have their images there. Synchronous. Rows of older checkpoints that lost their last page are in `table.unreferencedRows()`.
   */
  commit(row: number): void {
    const { dir, table, pool } = this.#pages;
    assert(this.#state === 'encoded', 'commit of a checkpoint that is not encoded');
    assert(table.holdsPages(row), `row ${row} is no checkpoint`);
    this.#state = 'ended';
    for (let index = 0; index < this.#slots.length; index += 1) {
      const slot = this.#slots[index]!;
      const mapped = this.#mapped[index]!;
      if (dir.row[slot] !== 0) table.adjustLive(dir.row[slot]!, -1);
      if (mapped > 0) {
        table.adjustLive(row, 1);
        dir.row[slot] = row;
        dir.offset[slot] = this.#offsetUnits[index]!;
        dir.length[slot] = imageBytes(mapped);
        dir.crc[slot] = this.#crc[index]!;
        dir.savedMapped[slot] = mapped;
      } else dir.row[slot] = 0;
      dir.flags[slot] = dir.flags[slot]! & ~IN_FLIGHT;
      if ((dir.flags[slot] & DIRTY) === 0) {
        if (dir.frame[slot]! >= 0) pool.markClean(dir.frame[slot]!);
        this.#pages.dropSpill(slot);
      }
      this.#pages.dropIfUnused(slot);
    }
    this.#end();
  }

  /** The checkpoint came to nothing: its pages are dirty again. At any time before `commit`; a running `encode` was stopped. */
  abandon(): void {
    const { dir } = this.#pages;
    assert(this.#state !== 'ended', 'the checkpoint has ended');
    this.#state = 'ended';
    for (let index = 0; index < this.#slots.length; index += 1) {
      const slot = this.#slots[index]!;
      dir.flags[slot] = dir.flags[slot]! & ~(IN_FLIGHT | FROZEN);
      if (this.#wasDirty[index] === 1 && (dir.flags[slot] & DIRTY) === 0) this.#pages.markDirty(slot);
      this.#pages.dropIfUnused(slot);
    }
    for (const slot of [...this.#spills.keys()]) this.#freeSpill(slot);
    this.#copies.clear();
    this.#end();
  }

  #end(): void {
    this.#pages.shelter = null;
    this.#pages.table.thaw();
    this.#ended();
  }
}
