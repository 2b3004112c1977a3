/** The bytes of a file in memory: 4 KiB blocks, absent where nothing but zeros was written. */

const BLOCK_BYTES = 4096;
const ZEROS = Buffer.alloc(BLOCK_BYTES);

export class SparseContent {
  readonly #blocks = new Map<number, Buffer>();

  /** Bytes of memory that the contents take. */
  get usedBytes(): number {
    return this.#blocks.size * BLOCK_BYTES;
  }

  /** Bytes that writing here would add, at most. */
  growthBytes(offsetBytes: number, countBytes: number): number {
    if (countBytes === 0) return 0;
    let missing = 0;
    const last = Math.floor((offsetBytes + countBytes - 1) / BLOCK_BYTES);
    for (let block = Math.floor(offsetBytes / BLOCK_BYTES); block <= last; block++) if (!this.#blocks.has(block)) missing += 1;
    return missing * BLOCK_BYTES;
  }

  /** Fills `target` from `offsetBytes` on. */
  read(offsetBytes: number, target: Buffer): void {
    let done = 0;
    while (done < target.length) {
      const at = offsetBytes + done;
      const within = at % BLOCK_BYTES;
      const count = Math.min(BLOCK_BYTES - within, target.length - done);
      const block = this.#blocks.get(Math.floor(at / BLOCK_BYTES));
      if (block === undefined) target.fill(0, done, done + count);
      else block.copy(target, done, within, within + count);
      done += count;
    }
  }

  /** Copies `bytes` in; a block that is all zeros afterwards is dropped. */
  write(offsetBytes: number, bytes: Uint8Array): void {
    let done = 0;
    while (done < bytes.length) {
      const at = offsetBytes + done;
      const index = Math.floor(at / BLOCK_BYTES);
      const within = at % BLOCK_BYTES;
      const count = Math.min(BLOCK_BYTES - within, bytes.length - done);
      const piece = bytes.subarray(done, done + count);
      let block = this.#blocks.get(index);
      if (block === undefined && !ZEROS.subarray(0, count).equals(piece)) {
        block = Buffer.alloc(BLOCK_BYTES);
        this.#blocks.set(index, block);
      }
      if (block !== undefined) {
        block.set(piece, within);
        if (block[0] === 0 && block.equals(ZEROS)) this.#blocks.delete(index);
      }
      done += count;
    }
  }

  /** Drops what lies at and behind `sizeBytes`, so that growing again shows zeros. */
  truncate(sizeBytes: number): void {
    const keep = Math.floor(sizeBytes / BLOCK_BYTES);
    const within = sizeBytes % BLOCK_BYTES;
    for (const [index, block] of this.#blocks) {
      if (index > keep || (index === keep && within === 0)) this.#blocks.delete(index);
      else if (index === keep) block.fill(0, within);
    }
  }
}
