import { crc32 } from 'node:zlib';

import { assert } from '../core/assert.ts';

const CHUNK_BYTES = 256 * 1024;

/** Gathers bytes into chunks of 256 KiB at most, which it gives away. Keeps the position, and the CRC of a part if asked. */
export class ChunkWriter {
  #chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  #used = 0;
  #before = 0;
  readonly #full: Buffer[] = [];
  #crc = 0;
  /** First byte of the current chunk that the CRC does not cover yet; -1: no CRC wanted. */
  #crcFrom = -1;

  /** Bytes written so far. */
  get position(): number {
    return this.#before + this.#used;
  }

  /** crc32 of everything since `startCrc`. */
  get crc(): number {
    this.#updateCrc();
    return this.#crc;
  }

  startCrc(): void {
    this.#crc = 0;
    this.#crcFrom = this.#used;
  }

  #updateCrc(): void {
    if (this.#crcFrom < 0 || this.#crcFrom === this.#used) return;
    this.#crc = crc32(this.#chunk.subarray(this.#crcFrom, this.#used), this.#crc);
    this.#crcFrom = this.#used;
  }

  /** A region to be filled by the caller at once. */
  reserve(countBytes: number): Buffer {
    assert(countBytes <= CHUNK_BYTES, 'region is larger than a chunk');
    if (this.#used + countBytes > CHUNK_BYTES) this.#next();
    const region = this.#chunk.subarray(this.#used, this.#used + countBytes);
    this.#used += countBytes;
    return region;
  }

  /** Copies bytes. */
  write(bytes: Uint8Array): void {
    for (let from = 0; from < bytes.byteLength;) {
      if (this.#used === CHUNK_BYTES) this.#next();
      const count = Math.min(bytes.byteLength - from, CHUNK_BYTES - this.#used);
      this.#chunk.set(bytes.subarray(from, from + count), this.#used);
      this.#used += count;
      from += count;
    }
  }

  /** Zeros up to the next multiple of `unitBytes`. */
  align(unitBytes: number): void {
    const over = this.position % unitBytes;
    if (over !== 0) this.write(Buffer.alloc(unitBytes - over));
  }

  #next(): void {
    this.#updateCrc();
    this.#full.push(this.#chunk.subarray(0, this.#used));
    this.#before += this.#used;
    this.#chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES);
    this.#used = 0;
    if (this.#crcFrom >= 0) this.#crcFrom = 0;
  }

  /** Makes the last chunk a full one. */
  finish(): void {
    this.#updateCrc();
    this.#full.push(this.#chunk.subarray(0, this.#used));
    this.#before += this.#used;
    this.#chunk = Buffer.alloc(0);
    this.#used = 0;
    this.#crcFrom = -1;
  }

  /** Chunks that are full; they belong to the caller. */
  *drain(): Generator<Buffer> {
    for (let chunk = this.#full.shift(); chunk !== undefined; chunk = this.#full.shift()) yield chunk;
  }
}
