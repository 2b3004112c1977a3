/**
 * Record marking (RFC 5531 §11): a TCP stream of fragments, each with a four-byte header (top bit: last fragment of the record, the
 * rest: its length), back into records.
 *
 * A record stays as the slices of the socket's chunks in which it arrived. The size cap is checked against the header, before a
 * single byte of the fragment is kept.
 */
const EMPTY = Buffer.alloc(0);

/** What `next` found. After `too-long` or `too-many-fragments` the stream cannot be understood any more: close it. */
export type RecordState = 'record' | 'more' | 'too-long' | 'too-many-fragments';

/** Fragments of one record, empty ones included. Each costs a slice object, so a record of single bytes would cost 100 times its size. */
const FRAGMENTS_MAX = 4096;

/** Reassembles records. Pull style, so that its owner can stop between any two records: `push` chunks, then `next` until it says `more`. */
export class RecordReader {
  readonly #recordBytesMax: number;
  #chunk: Buffer = EMPTY;
  #position = 0;
  /** Chunks behind the current one: filled only while the owner does not call `next`. */
  #queue: Buffer[] = [];
  #parts: Buffer[] = [];
  #partsBytes = 0;
  #fragments = 0;
  #fragmentLeft = 0;
  #isLastFragment = false;
  #headerValue = 0;
  #headerBytes = 0;

  /** The record that `next` found: bytes [start, end) of `buffer` if it lies in one chunk (`chunks` is null), else the list of its chunks. */
  buffer: Buffer = EMPTY;
  start = 0;
  end = 0;
  chunks: Buffer[] | null = null;

  constructor(recordBytesMax: number) {
    this.#recordBytesMax = recordBytesMax;
  }

  /** Bytes of the record that is still arriving. */
  get partialBytes(): number {
    return this.#partsBytes;
  }

  /** True in the middle of a record or header, or while there are bytes that `next` has not looked at. */
  get isMidRecord(): boolean {
    return this.#partsBytes > 0 || this.#headerBytes > 0 || this.#fragments > 0 || this.#position < this.#chunk.length || this.#queue.length > 0;
  }

  /** Takes over a chunk; its bytes must not change afterwards. */
  push(chunk: Buffer): void {
    if (this.#position === this.#chunk.length && this.#queue.length === 0) {
      this.#chunk = chunk;
      this.#position = 0;
    } else {
      this.#queue.push(chunk);
    }
  }

  /** Looks for the next record and describes it in `buffer`, `start`, `end`, `chunks` (until the next call). */
  next(): RecordState {
    const chunk = this.#chunk;
    const at = this.#position;
    if (this.#fragments === 0 && this.#headerBytes === 0 && chunk.length - at >= 4) {
      // The usual case: a whole record in one fragment within one chunk.
      const header = (chunk[at]! << 24) | (chunk[at + 1]! << 16) | (chunk[at + 2]! << 8) | chunk[at + 3]!;
      const length = header & 0x7fff_ffff;
      if (header < 0 && length <= chunk.length - at - 4) {
        if (length > this.#recordBytesMax) return 'too-long';
        this.buffer = chunk;
        this.start = at + 4;
        this.end = this.#position = at + 4 + length;
        this.chunks = null;
        return 'record';
      }
    }
    return this.#nextInPieces();
  }

  /** Lets go of everything received. */
  clear(): void {
    this.#chunk = this.buffer = EMPTY;
    this.#position = this.start = this.end = 0;
    this.#queue = [];
    this.chunks = null;
    this.#reset();
  }

  #nextInPieces(): RecordState {
    for (;;) {
      if (this.#position === this.#chunk.length) {
        const chunk = this.#queue.shift();
        if (chunk === undefined) {
          // Nothing of it is needed any more: let go of the memory of an idle connection.
          this.#chunk = this.buffer = EMPTY;
          this.#position = 0;
          return 'more';
        }
        this.#chunk = chunk;
        this.#position = 0;
        continue;
      }
      if (this.#fragmentLeft === 0) {
        if (!this.#takeHeaderByte()) continue;
        const length = this.#headerValue & 0x7fff_ffff;
        this.#isLastFragment = this.#headerValue < 0;
        this.#headerBytes = 0;
        this.#headerValue = 0;
        if (this.#partsBytes + length > this.#recordBytesMax) return 'too-long';
        this.#fragments += 1;
        if (this.#fragments > FRAGMENTS_MAX) return 'too-many-fragments';
        this.#fragmentLeft = length;
      } else {
        this.#takePart();
      }
      if (this.#fragmentLeft === 0 && this.#isLastFragment) {
        this.#describeRecord();
        return 'record';
      }
    }
  }

  /** Returns true when the header is complete. */
  #takeHeaderByte(): boolean {
    this.#headerValue = (this.#headerValue << 8) | this.#chunk[this.#position]!;
    this.#position += 1;
    this.#headerBytes += 1;
    return this.#headerBytes === 4;
  }

  #takePart(): void {
    const at = this.#position;
    const take = Math.min(this.#fragmentLeft, this.#chunk.length - at);
    const part = this.#chunk.subarray(at, at + take);
    const last = this.#parts.at(-1);
    // Reads that follow one another in one receive slab are one slice: trickling bytes do not become a list of single bytes.
    if (last !== undefined && last.buffer === part.buffer && last.byteOffset + last.length === part.byteOffset) {
      this.#parts[this.#parts.length - 1] = Buffer.from(last.buffer, last.byteOffset, last.length + take);
    } else {
      this.#parts.push(part);
    }
    this.#position += take;
    this.#partsBytes += take;
    this.#fragmentLeft -= take;
  }

  #describeRecord(): void {
    this.buffer = this.#parts[0] ?? EMPTY;
    this.start = 0;
    this.end = this.#parts.length === 1 ? this.buffer.length : 0;
    this.chunks = this.#parts.length === 1 ? null : this.#parts;
    this.#reset();
  }

  #reset(): void {
    this.#parts = [];
    this.#partsBytes = 0;
    this.#fragments = 0;
    this.#fragmentLeft = 0;
    this.#isLastFragment = false;
    this.#headerBytes = 0;
    this.#headerValue = 0;
  }
}
