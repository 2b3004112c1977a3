/**
 * Values that occur again and again on the wire, kept with their bytes: a repetition costs a comparison or a copy instead of decoding or encoding. Values are
 * immutable. What is kept was decoded, and checked, once; equal bytes mean the same.
 */
import type { WireReader } from './wire-reader.ts';
import type { WireWriter } from './wire-writer.ts';

const PLACES = 16;

export class Repeated<T extends object> {
  readonly #values: (T | null)[] = Array.from({ length: PLACES }, () => null);
  readonly #bytes: readonly Buffer[];
  readonly #lengths = new Uint32Array(PLACES);

  /** `bytesMax`: of one value. */
  constructor(bytesMax: number) {
    this.#bytes = Array.from({ length: PLACES }, () => Buffer.alloc(bytesMax));
  }

  /** `bytes[start, end)` is what `value` looks like on the wire. `key`: a number that tells values apart, if badly; below 0, it is not kept. */
  keep(value: T, key: number, bytes: Buffer, start: number, end: number): void {
    if (key < 0) return;
    const place = key % PLACES;
    bytes.copy(this.#bytes[place]!, 0, start, end);
    this.#lengths[place] = end - start;
    this.#values[place] = value;
  }

  /** Writes the bytes of this very value, if they are kept under `key`. */
  write(writer: WireWriter, value: T, key: number): boolean {
    const place = key % PLACES;
    if (this.#values[place] !== value) return false;
    const length = this.#lengths[place]!;
    writer.ensure(length);
    this.#bytes[place]!.copy(writer.bytes, writer.at, 0, length);
    writer.at += length;
    return true;
  }

  /** The kept value whose bytes come next, behind which the reader is then; null: it is another one. */
  read(reader: WireReader, key: number): T | null {
    if (key < 0) return null;
    const place = key % PLACES;
    const value = this.#values[place]!;
    if (value === null) return null;
    const length = this.#lengths[place]!;
    if (reader.left < length) return null;
    const known = this.#bytes[place]!;
    const { bytes, at } = reader;
    for (let i = 0; i < length; i++) if (bytes[at + i] !== known[i]) return null;
    reader.at = at + length;
    return value;
  }
}
