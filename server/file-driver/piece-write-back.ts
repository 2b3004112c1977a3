/**
 * Write-back of files (design section 7): pieces of at most 1 MiB, each version of a piece a new immutable object in the vPool's shared bucket. The
 * piece table is the object's segment table and extent map: a block of a file is mapped to (piece, offset) exactly as a volume's block is to
 * (segment, offset), so reads, checkpoints, recovery and fsck know no difference.
 *
 * Piece object (docs/formats/piece.md): 64 bytes of header, 16 bytes a block {block u64, crc32 u32, zero u32}, then the blocks, 4 KiB each.
 */
import { crc32 } from 'node:zlib';

import { BLOCK_BYTES } from '../volume-driver/extent-map.ts';
import { formatObjectName } from '../volume-driver/object-names.ts';
import type { WriteBack, WriteBackObject } from '../volume-driver/write-back.ts';

const PIECE_BLOCKS = 256;
const HEADER_BYTES = 64;
const ENTRY_BYTES = 16;
const MAGIC = Buffer.from('VFPIECE1');
const RELOCATE_AFTER_BYTES = 64 * 1024 * 1024;
/** Pieces on their way at a time. */
const STORES_MAX = 4;

export class PieceWriteBack implements WriteBack {
  readonly relocateAfterBytes = RELOCATE_AFTER_BYTES;
  readonly #object: WriteBackObject;
  /** Numbers of pieces (of 256 blocks) with blocks in the log. */
  readonly #dirty = new Set<number>();
  /** Names are unique by term and number: every opening has a new term. */
  #lastNumber = 0;

  constructor(object: WriteBackObject) {
    this.#object = object;
  }

  touched(startBlock: number, blockCount: number): void {
    const last = Math.floor((startBlock + blockCount - 1) / PIECE_BLOCKS);
    for (let piece = Math.floor(startBlock / PIECE_BLOCKS); piece <= last; piece += 1) this.#dirty.add(piece);
  }

  async relocate(): Promise<void> {
    const pieces = [...this.#dirty].values();
    const failures: unknown[] = [];
    const lane = async (): Promise<void> => {
      for (let next = pieces.next(); failures.length === 0 && next.done !== true; next = pieces.next()) {
        // Out of the set before it is read: a block written from now on puts it back.
        this.#dirty.delete(next.value);
        try {
          await this.#relocate(next.value);
        } catch (error) {
          this.#dirty.add(next.value);
          failures.push(error);
        }
      }
    };
    await Promise.all(Array.from({ length: STORES_MAX }, lane));
    if (failures.length > 0) throw failures[0];
  }

  async #relocate(piece: number): Promise<void> {
    const { map, table } = this.#object;
    const first = piece * PIECE_BLOCKS;
    const rows = new Uint32Array(PIECE_BLOCKS);
    const offsets = new Uint32Array(PIECE_BLOCKS);
    const crcs = new Uint32Array(PIECE_BLOCKS);
    await map.readLoading(first, PIECE_BLOCKS, rows, offsets, crcs);
    const blocks: number[] = [];
    let inLog = false;
    for (let index = 0; index < PIECE_BLOCKS; index += 1) {
      const row = rows[index] as number;
      if (row === 0) continue;
      blocks.push(index);
      if (table.kind(row) === 'segment') inLog = true;
    }
    if (!inLog) return;

    const content = Buffer.allocUnsafe(blocks.length * BLOCK_BYTES);
    const wanted = blocks.map((index, at) => ({
      row: rows[index] as number,
      offsetBytes: offsets[index] as number,
      crc: crcs[index] as number,
      targetOffset: at * BLOCK_BYTES,
      from: 0,
      length: BLOCK_BYTES,
    }));
    await this.#object.reader.fetch(this.#object.uuid, table, wanted, content);

    this.#lastNumber += 1;
    const number = this.#lastNumber;
    const { term } = this.#object;
    const head = this.#encodeHead(
      piece,
      blocks.map((index) => ({ block: first + index, crc: crcs[index] as number })),
    );
    await this.#object.store(formatObjectName({ kind: 'piece', number, term }), [head, content]);
    const row = table.add({ kind: 'piece', bucket: '', objectUuid: '', term, number, sizeBytes: head.length + content.length });
    await map.pin(first, PIECE_BLOCKS);
    try {
      const now = { rows: new Uint32Array(PIECE_BLOCKS), offsets: new Uint32Array(PIECE_BLOCKS), crcs: new Uint32Array(PIECE_BLOCKS) };
      map.read(first, PIECE_BLOCKS, now.rows, now.offsets, now.crcs);
      blocks.forEach((index, at) => {
        // Written again meanwhile: the log has the newer one.
        if (now.rows[index] !== rows[index] || now.offsets[index] !== offsets[index]) return;
        map.set(first + index, 1, row, head.length + at * BLOCK_BYTES, crcs, index);
      });
    } finally {
      map.unpin(first, PIECE_BLOCKS);
    }
  }

  /**
   *   0  magic VFPIECE1    8  version u32 (1)   12  blocks u32   16  object uuid (16)   32  piece u64
   *  40  term generation u32   44  term counter u32   48  term nonce (8)   56  zero u32   60  CRC of header and entries, this field as zero
   */
  #encodeHead(piece: number, entries: readonly { block: number; crc: number }[]): Buffer {
    const head = Buffer.alloc(HEADER_BYTES + entries.length * ENTRY_BYTES);
    MAGIC.copy(head, 0);
    head.writeUInt32LE(1, 8);
    head.writeUInt32LE(entries.length, 12);
    head.write(this.#object.uuid, 16, 16, 'hex');
    head.writeBigUInt64LE(BigInt(piece), 32);
    head.writeUInt32LE(this.#object.term.generation, 40);
    head.writeUInt32LE(this.#object.term.counter, 44);
    head.write(this.#object.term.nonce, 48, 8, 'hex');
    entries.forEach((entry, index) => {
      const at = HEADER_BYTES + index * ENTRY_BYTES;
      head.writeBigUInt64LE(BigInt(entry.block), at);
      head.writeUInt32LE(entry.crc, at + 8);
    });
    head.writeUInt32LE(crc32(head), 60);
    return head;
  }
}
