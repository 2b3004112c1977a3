/**
 * Memory that a socket receives into. Reads follow one another in a slab; a slab that is full is left behind to whoever still holds
 * slices of it, and never used again. So small calls cost no allocation each, and payloads need no copy.
 */
const SMALL_SLAB_BYTES = 64 * 1024;
const LARGE_SLAB_BYTES = 256 * 1024;
const ROOM_BYTES_MIN = 16 * 1024;

export class ReceiveSlab {
  #slab: Buffer = Buffer.allocUnsafeSlow(SMALL_SLAB_BYTES);
  #used = 0;
  #wasFilled = false;

  /** Room for the next read. */
  room(): Buffer {
    if (this.#slab.length - this.#used < ROOM_BYTES_MIN) {
      // A read that filled all its room has more behind it: bigger reads for bulk, small slabs for small calls.
      this.#slab = Buffer.allocUnsafeSlow(this.#wasFilled ? LARGE_SLAB_BYTES : SMALL_SLAB_BYTES);
      this.#used = 0;
    }
    return this.#slab.subarray(this.#used);
  }

  /** The `countBytes` that were read into the room given last. */
  taken(countBytes: number): Buffer {
    const start = this.#used;
    this.#used += countBytes;
    this.#wasFilled = this.#used === this.#slab.length;
    return this.#slab.subarray(start, this.#used);
  }
}
