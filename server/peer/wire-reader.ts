/** Reads the fields of messages as WireWriter writes them. Nothing is trusted: what does not fit is a FrameError. */
import { FrameError } from './frame-error.ts';

const TWO_32 = 0x1_0000_0000;

export class WireReader {
  /** What is read, from `at` on. */
  bytes: Buffer;
  at: number;
  #end: number;

  constructor(bytes: Buffer, start = 0, end = bytes.length) {
    this.bytes = bytes;
    this.at = start;
    this.#end = end;
  }

  /** Starts over with other bytes. */
  load(bytes: Buffer, start: number, end: number): void {
    this.bytes = bytes;
    this.at = start;
    this.#end = end;
  }

  get left(): number {
    return this.#end - this.at;
  }

  /** The byte `offset` behind the place, with `count` bytes still to come; -1 if they are not there. */
  peek(count: number, offset: number): number {
    return this.at + count > this.#end ? -1 : this.bytes[this.at + offset]!;
  }

  u8(): number {
    return this.bytes[this.#take(1)]!;
  }

  u16(): number {
    const at = this.#take(2);
    return (this.bytes[at]! << 8) | this.bytes[at + 1]!;
  }

  u32(): number {
    return getU32(this.bytes, this.#take(4));
  }

  u53(): number {
    const at = this.#take(8);
    const high = getU32(this.bytes, at);
    if (high > 0x1f_ffff) throw new FrameError('a number above 2^53');
    return high * TWO_32 + getU32(this.bytes, at + 4);
  }

  u64(): bigint {
    return this.bytes.readBigUInt64BE(this.#take(8));
  }

  bool(): boolean {
    return this.member(1) === 1;
  }

  /** A number from 0 to `max`. */
  member(max: number): number {
    const value = this.u8();
    if (value > max) throw new FrameError(`${value} where at most ${max} has a meaning`);
    return value;
  }

  /** A count of things of at least `bytesEach` bytes, which must all be there. */
  count(max: number, bytesEach: number): number {
    const count = this.u32();
    if (count > max || count * bytesEach > this.left) throw new FrameError(`a list of ${count}, limit ${max}, with ${this.left} bytes left`);
    return count;
  }

  hex(digits: number): string {
    const bytes = digits >>> 1;
    const at = this.#take(bytes);
    return this.bytes.toString('hex', at, at + bytes);
  }

  text(bytesMax: number): string {
    const length = this.u16();
    if (length > bytesMax) throw new FrameError(`a text of ${length} bytes, limit ${bytesMax}`);
    if (length === 0) return '';
    const at = this.#take(length);
    return this.bytes.toString('utf8', at, at + length);
  }

  /** The next `count` bytes, shared with the message. */
  view(count: number): Buffer {
    const at = this.#take(count);
    return this.bytes.subarray(at, at + count);
  }

  /** The next `count` bytes, the caller's own. */
  copy(count: number): Buffer {
    return Buffer.from(this.view(count));
  }

  assertEnd(): void {
    if (this.at !== this.#end) throw new FrameError(`${this.left} bytes behind the message`);
  }

  #take(count: number): number {
    const at = this.at;
    if (at + count > this.#end) throw new FrameError('a message that ends too early');
    this.at = at + count;
    return at;
  }
}

export function getU32(bytes: Uint8Array, at: number): number {
  return bytes[at]! * 0x100_0000 + ((bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!);
}
