/**
 * Writes the fields of messages: unsigned big-endian integers, fixed identifiers as bytes, counted text and bytes (docs/PEER-PROTOCOL.md). Values are our own,
 * so one that does not fit is a bug.
 */
import { assert } from '../core/assert.ts';

const TWO_32 = 0x1_0000_0000;

export class WireWriter {
  /** Everything written is in `bytes[.., at)`. Replaced by a larger one when it is full. */
  bytes: Buffer;
  at: number;

  constructor(bytes: Buffer = Buffer.allocUnsafe(256), at = 0) {
    this.bytes = bytes;
    this.at = at;
  }

  u8(value: number): void {
    const at = this.#take(1);
    this.bytes[at] = value;
  }

  u16(value: number): void {
    assert(value >= 0 && value <= 0xffff);
    const at = this.#take(2);
    this.bytes[at] = value >>> 8;
    this.bytes[at + 1] = value;
  }

  u32(value: number): void {
    assert(value >= 0 && value < TWO_32, 'a number does not fit in 32 bits');
    const at = this.#take(4);
    putU32(this.bytes, at, value);
  }

  /** An integer below 2^53, in 8 bytes. */
  u53(value: number): void {
    assert(Number.isSafeInteger(value) && value >= 0, 'a number that is no integer below 2^53');
    const at = this.#take(8);
    const high = Math.floor(value / TWO_32);
    putU32(this.bytes, at, high);
    putU32(this.bytes, at + 4, value - high * TWO_32);
  }

  bool(value: boolean): void {
    this.u8(value ? 1 : 0);
  }

  /** An identifier of lower-case hex digits, as `digits / 2` bytes. */
  hex(value: string, digits: number): void {
    assert(value.length === digits, `an identifier of ${value.length} digits where ${digits} are due`);
    const at = this.#take(digits >>> 1);
    for (let i = 0; i < digits; i += 2) this.bytes[at + (i >>> 1)] = (nibble(value.charCodeAt(i)) << 4) | nibble(value.charCodeAt(i + 1));
  }

  /** UTF-8 with its length in 2 bytes, at most `bytesMax` (cut there, never within a character). */
  text(value: string, bytesMax: number): void {
    if (value === '') {
      this.u16(0);
      return;
    }
    const text = value.length > bytesMax ? value.slice(0, bytesMax) : value;
    this.ensure(2 + text.length * 3);
    const start = this.at;
    let length = this.bytes.write(text, start + 2, 'utf8');
    if (length > bytesMax) {
      length = bytesMax;
      while (length > 0 && (this.bytes[start + 2 + length]! & 0xc0) === 0x80) length -= 1;
    }
    this.bytes[start] = length >>> 8;
    this.bytes[start + 1] = length;
    this.at = start + 2 + length;
  }

  /** As `text`, for what must not be cut: longer is a bug. */
  exactText(value: string, bytesMax: number): void {
    assert(value.length <= bytesMax, `a text of ${value.length} characters where ${bytesMax} are allowed`);
    const start = this.at;
    this.text(value, 0xffff);
    assert(this.at - start - 2 <= bytesMax, `a text of ${this.at - start - 2} bytes where ${bytesMax} are allowed`);
  }

  /** Exactly these bytes, without a length. */
  raw(value: Uint8Array): void {
    const at = this.#take(value.length);
    this.bytes.set(value, at);
  }

  /** Room for `count` more bytes. */
  ensure(count: number): void {
    if (this.at + count <= this.bytes.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.bytes.length * 2, this.at + count));
    this.bytes.copy(larger, 0, 0, this.at);
    this.bytes = larger;
  }

  /** What was written; shares memory with this writer. */
  written(): Buffer {
    return this.bytes.subarray(0, this.at);
  }

  #take(count: number): number {
    this.ensure(count);
    const at = this.at;
    this.at = at + count;
    return at;
  }
}

export function putU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

function nibble(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  assert(code >= 0x61 && code <= 0x66, 'an identifier with something that is no lower-case hex digit');
  return code - 0x57;
}
