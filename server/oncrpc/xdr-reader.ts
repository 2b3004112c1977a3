/**
 * Decoding of XDR (RFC 4506) over the chunks in which a message arrived, without joining them: a 1 MiB WRITE comes in some sixteen
 * chunks, and concatenating them would cost more than everything else that happens to it.
 */
import { XdrError } from './xdr-error.ts';

const NO_CHUNKS: readonly Buffer[] = [];
const EMPTY = Buffer.alloc(0);

/** Bytes of a counted opaque, as slices of the received chunks: not copied, in order, none of them empty. */
export interface OpaqueChunks {
  readonly countBytes: number;
  readonly chunks: Buffer[];
}

/**
 * A cursor over a message. Everything it hands out is a slice of the message (valid as long as it is referenced) unless the item spans
 * chunks and had to be joined. Every method throws XdrError and leaves the position anywhere: a message that failed once is given up.
 */
export class XdrReader {
  #chunk: Buffer;
  #position: number;
  #end: number;
  /** Chunks behind the current one, from `#next` on. */
  #rest: readonly Buffer[];
  #next: number;
  /** Bytes in the chunks behind the current one. */
  #restBytes: number;

  /** Reads the concatenation of `chunks`; the array and the bytes are borrowed and must not change. */
  constructor(chunks: readonly Buffer[]) {
    this.#chunk = EMPTY;
    this.#position = 0;
    this.#end = 0;
    this.#rest = NO_CHUNKS;
    this.#next = 1;
    this.#restBytes = 0;
    this.resetChunks(chunks);
  }

  /** Points the reader at bytes [start, end) of one buffer: no allocation, for the many messages that lie within one chunk. */
  reset(buffer: Buffer, start: number, end: number): void {
    this.#chunk = buffer;
    this.#position = start;
    this.#end = end;
    this.#rest = NO_CHUNKS;
    this.#next = 1;
    this.#restBytes = 0;
  }

  /** Points the reader at a list of chunks, as the constructor does. */
  resetChunks(chunks: readonly Buffer[]): void {
    this.reset(chunks[0] ?? EMPTY, 0, chunks[0]?.length ?? 0);
    this.#rest = chunks;
    for (let i = 1; i < chunks.length; i++) this.#restBytes += chunks[i]!.length;
  }

  /** Lets go of the message, so that this reader does not keep it in memory. */
  release(): void {
    this.reset(EMPTY, 0, 0);
  }

  /** Bytes not read yet. */
  get remaining(): number {
    return this.#end - this.#position + this.#restBytes;
  }

  /** Unsigned 32-bit integer (RFC 4506 §4.2). */
  uint32(): number {
    return this.int32() >>> 0;
  }

  /** Signed 32-bit integer (RFC 4506 §4.1). */
  int32(): number {
    const at = this.#position;
    if (this.#end - at < 4) return this.#int32AcrossChunks();
    const chunk = this.#chunk;
    this.#position = at + 4;
    return (chunk[at]! << 24) | (chunk[at + 1]! << 16) | (chunk[at + 2]! << 8) | chunk[at + 3]!;
  }

  /** @throws XdrError `bad-bool` for anything but 0 and 1 (RFC 4506 §4.4). */
  bool(): boolean {
    const value = this.int32();
    if (value !== 0 && value !== 1) throw new XdrError('bad-bool');
    return value === 1;
  }

  /** Unsigned 64-bit integer (RFC 4506 §4.5), exact. */
  uint64(): bigint {
    const high = this.uint32();
    return (BigInt(high) << 32n) | BigInt(this.uint32());
  }

  /** Unsigned 64-bit integer as a number. @throws XdrError `unsafe-integer` above 2^53-1. */
  uint64AsNumber(): number {
    const high = this.uint32();
    const low = this.uint32();
    if (high > 0x1f_ffff) throw new XdrError('unsafe-integer');
    return high * 0x1_0000_0000 + low;
  }

  /** `countBytes` bytes of fixed-length opaque, and its padding to a multiple of four (RFC 4506 §4.9). The padding's value is not looked at. */
  fixed(countBytes: number): Buffer {
    const at = this.#position;
    const padded = countBytes + (-countBytes & 3);
    if (this.#end - at >= padded) {
      this.#position = at + padded;
      return this.#chunk.subarray(at, at + countBytes);
    }
    // Checked before anything is allocated: the count may come from a hostile length field.
    if (this.remaining < padded) throw new XdrError('truncated');
    const joined = Buffer.allocUnsafe(countBytes);
    let filled = 0;
    while (filled < countBytes) {
      const take = Math.min(countBytes - filled, this.#available());
      filled += this.#chunk.copy(joined, filled, this.#position, this.#position + take);
      this.#position += take;
    }
    this.#skip(padded - countBytes);
    return joined;
  }

  /** Variable-length opaque of at most `maxBytes` (RFC 4506 §4.10). */
  opaque(maxBytes: number): Buffer {
    const countBytes = this.uint32();
    if (countBytes > maxBytes) throw new XdrError('too-long');
    return this.fixed(countBytes);
  }

  /** Variable-length opaque of at most `maxBytes` as slices of the received chunks, nothing copied. */
  opaqueChunks(maxBytes: number): OpaqueChunks {
    const countBytes = this.uint32();
    if (countBytes > maxBytes) throw new XdrError('too-long');
    const padded = countBytes + (-countBytes & 3);
    if (this.remaining < padded) throw new XdrError('truncated');
    const chunks: Buffer[] = [];
    let left = countBytes;
    while (left > 0) {
      const take = Math.min(left, this.#available());
      chunks.push(this.#chunk.subarray(this.#position, this.#position + take));
      this.#position += take;
      left -= take;
    }
    this.#skip(padded - countBytes);
    return { countBytes, chunks };
  }

  /** A string of at most `maxBytes` bytes, one character per byte (latin1): names are bytes, whatever encoding the client means. */
  string(maxBytes: number): string {
    const countBytes = this.uint32();
    if (countBytes > maxBytes) throw new XdrError('too-long');
    const at = this.#position;
    const padded = countBytes + (-countBytes & 3);
    if (this.#end - at < padded) return this.fixed(countBytes).toString('latin1');
    this.#position = at + padded;
    return this.#chunk.toString('latin1', at, at + countBytes);
  }

  /** Moves behind `bytes` if they are what comes next and lie within one chunk; else moves nowhere. */
  skipIfEqual(bytes: Buffer): boolean {
    const at = this.#position;
    const length = bytes.length;
    if (this.#end - at < length) return false;
    const chunk = this.#chunk;
    for (let i = 0; i < length; i++) if (chunk[at + i] !== bytes[i]) return false;
    this.#position = at + length;
    return true;
  }

  /** @throws XdrError `trailing-bytes` unless everything was read. */
  assertEnd(): void {
    if (this.remaining !== 0) throw new XdrError('trailing-bytes');
  }

  #int32AcrossChunks(): number {
    if (this.remaining < 4) throw new XdrError('truncated');
    let value = 0;
    for (let i = 0; i < 4; i++) {
      this.#available();
      value = (value << 8) | this.#chunk[this.#position++]!;
    }
    return value;
  }

  /** Bytes left in the current chunk, stepping to the next one that has any. The caller made sure that there are bytes left. */
  #available(): number {
    while (this.#position === this.#end) {
      this.#chunk = this.#rest[this.#next++]!;
      this.#position = 0;
      this.#end = this.#chunk.length;
      this.#restBytes -= this.#end;
    }
    return this.#end - this.#position;
  }

  #skip(countBytes: number): void {
    let left = countBytes;
    while (left > 0) {
      const take = Math.min(left, this.#available());
      this.#position += take;
      left -= take;
    }
  }
}
