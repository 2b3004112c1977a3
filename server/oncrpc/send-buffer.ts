/** Memory for replies: buffers from which regions are cut, kept in a bounded pool between uses. */

/** Regions up to this size share a slab; larger ones have a buffer of their own. */
export const SHARED_REGION_BYTES_MAX = 64 * 1024;
const SLAB_BYTES = 256 * 1024;
/** Room behind a power of two, so that a READ of 1 MiB with its header still fits the class of 1 MiB. */
const CLASS_SLACK_BYTES = 4096;
const SMALLEST_CLASS_SHIFT = 17;

/** A buffer of a pool. Its holder cuts regions from `used` on and counts in `pins` those not sent yet; at 0 it goes back. */
export class SendBuffer {
  readonly bytes: Buffer;
  used = 0;
  pins = 0;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }
}

/** Keeps at most `freeBytesMax` of unused buffers, by size class; what is more is left to the garbage collector. */
export class SendBufferPool {
  readonly #freeBytesMax: number;
  readonly #slabs: SendBuffer[] = [];
  /** Free buffers of 2^(17+i) + slack bytes. */
  readonly #classes: SendBuffer[][] = [];
  #freeBytes = 0;

  constructor(freeBytesMax: number) {
    this.#freeBytesMax = freeBytesMax;
  }

  get freeBytes(): number {
    return this.#freeBytes;
  }

  /** A slab for regions of at most SHARED_REGION_BYTES_MAX. Contents are undefined. */
  takeSlab(): SendBuffer {
    return this.#reuse(this.#slabs) ?? new SendBuffer(Buffer.allocUnsafeSlow(SLAB_BYTES));
  }

  /** A buffer of at least `sizeBytes`. Contents are undefined. */
  take(sizeBytes: number): SendBuffer {
    const index = classOf(sizeBytes);
    return this.#reuse(this.#classes[index]) ?? new SendBuffer(Buffer.allocUnsafeSlow(2 ** (SMALLEST_CLASS_SHIFT + index) + CLASS_SLACK_BYTES));
  }

  /** Takes a buffer back; nobody refers to its bytes any more. */
  give(buffer: SendBuffer): void {
    buffer.used = 0;
    const size = buffer.bytes.length;
    if (this.#freeBytes + size > this.#freeBytesMax) return;
    this.#freeBytes += size;
    if (size === SLAB_BYTES) this.#slabs.push(buffer);
    else (this.#classes[classOf(size)] ??= []).push(buffer);
  }

  #reuse(free: SendBuffer[] | undefined): SendBuffer | undefined {
    const buffer = free?.pop();
    if (buffer !== undefined) this.#freeBytes -= buffer.bytes.length;
    return buffer;
  }
}

function classOf(sizeBytes: number): number {
  const payload = Math.max(sizeBytes - CLASS_SLACK_BYTES, 1);
  return Math.max(32 - Math.clz32(payload - 1) - SMALLEST_CLASS_SHIFT, 0);
}
