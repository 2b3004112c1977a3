/** Encoding of XDR (RFC 4506) straight into the bytes that will be sent. */
import { assert } from '../core/assert.ts';

/** A cursor over one region of a buffer. Writing behind the region's end is a bug (the room was asked for too small): AssertionError. */
export class XdrWriter {
  #buffer: Buffer;
  #start: number;
  #offset: number;
  #end: number;

  /** Writes into bytes [start, end) of `buffer`. Alignment counts from `start`. */
  constructor(buffer: Buffer, start = 0, end: number = buffer.length) {
    this.#buffer = buffer;
    this.#start = start;
    this.#offset = start;
    this.#end = end;
  }

  /** Begins anew in another region. */
  reset(buffer: Buffer, start: number, end: number): void {
    this.#buffer = buffer;
    this.#start = start;
    this.#offset = start;
    this.#end = end;
  }

  /** Bytes written so far. */
  get position(): number {
    return this.#offset - this.#start;
  }

  /** Where the next byte goes, as an index into the buffer. */
  get endOffset(): number {
    return this.#offset;
  }

  /** Room left, in bytes. */
  get remaining(): number {
    return this.#end - this.#offset;
  }

  /** What was written so far: a view, not a copy. */
  written(): Buffer {
    return this.#buffer.subarray(this.#start, this.#offset);
  }

  /** Unsigned 32-bit integer. */
  uint32(value: number): void {
    const at = this.#take(4);
    const buffer = this.#buffer;
    buffer[at] = value >>> 24;
    buffer[at + 1] = value >>> 16;
    buffer[at + 2] = value >>> 8;
    buffer[at + 3] = value;
  }

  /** Signed 32-bit integer. */
  int32(value: number): void {
    this.uint32(value);
  }

  bool(value: boolean): void {
    this.uint32(value ? 1 : 0);
  }

  /** Unsigned 64-bit integer. */
  uint64(value: bigint): void {
    this.uint32(Number(value >> 32n));
    this.uint32(Number(value & 0xffff_ffffn));
  }

  /** Unsigned 64-bit integer from a whole number of at most 2^53-1. */
  uint64FromNumber(value: number): void {
    const high = Math.floor(value / 0x1_0000_0000);
    this.uint32(high);
    this.uint32(value - high * 0x1_0000_0000);
  }

  /** Fixed-length opaque: the bytes, then zeros up to a multiple of four. */
  fixed(bytes: Uint8Array): void {
    const at = this.#take(bytes.length);
    this.#buffer.set(bytes, at);
    this.pad();
  }

  /** Variable-length opaque: count, bytes, padding. */
  opaque(bytes: Uint8Array): void {
    this.uint32(bytes.length);
    this.fixed(bytes);
  }

  /** A string of one byte per character (latin1), as XdrReader.string gives it. */
  string(value: string): void {
    this.uint32(value.length);
    const at = this.#take(value.length);
    this.#buffer.write(value, at, 'latin1');
    this.pad();
  }

  /**
   * `countBytes` bytes to be filled by the caller before the message is finished; the position moves behind them. Uninitialised:
   * whatever the caller leaves untouched goes over the wire. Follow with `pad` where the type is opaque.
   */
  reserve(countBytes: number): Buffer {
    const at = this.#take(countBytes);
    return this.#buffer.subarray(at, at + countBytes);
  }

  /** As `reserve`, for bytes that are there already. */
  skip(countBytes: number): void {
    this.#take(countBytes);
  }

  /** Forgets everything written at and behind `position`. */
  rewind(position: number): void {
    assert(position >= 0 && position <= this.position, 'XdrWriter: rewind to what was never written');
    this.#offset = this.#start + position;
  }

  /** Zeros up to the next multiple of four. */
  pad(): void {
    const count = (this.#start - this.#offset) & 3;
    const at = this.#take(count);
    for (let i = 0; i < count; i++) this.#buffer[at + i] = 0;
  }

  #take(countBytes: number): number {
    const at = this.#offset;
    if (this.#end - at < countBytes) assert(false, `XdrWriter: ${countBytes} bytes do not fit into the ${this.#end - at} left`);
    this.#offset = at + countBytes;
    return at;
  }
}
