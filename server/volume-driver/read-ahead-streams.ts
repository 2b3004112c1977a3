/**
 * Finds sequential readers among the reads of one object. Random reads cost a look at a few numbers and leave nothing; a reader counts as sequential
 * after some reads that went on where the one before ended, a little out of order, since clients send several at once.
 */

/** Starts of streams that are watched; the least recently touched one is forgotten. */
const CANDIDATES = 8;
/** Streams that are known; a new one takes the place of the one that rests longest. */
const STREAMS_MAX = 8;
/** How far from its end a read may begin to belong to a candidate: reads that were sent together arrive in any order. */
const NEAR_BYTES = 64 * 1024;
/** The same for a stream: ahead of its end, over what the client had in its own cache, and behind it, for late ones. */
const AHEAD_BYTES = 4 * 1024 * 1024;
const BEHIND_BYTES = 16 * 1024 * 1024;
/** Reads that make a stream, and the bytes with which two are enough. */
const READS_MIN = 3;
const LARGE_READ_BYTES = 256 * 1024;

/** One sequential reader. Lives until another one takes its place or it is ended. */
export class Stream {
  /** Where its reads have come to. */
  endBytes: number;
  /** Bytes read since it began. */
  readBytes: number;
  largestReadBytes = 0;
  lastReadMs: number;
  /** Where reading ahead has come to, and how far ahead of `endBytes` it goes. */
  plannedBytes: number;
  windowBytes = 0;
  /** How often a reader waited for what was read ahead: it is not far enough ahead. */
  waits = 0;
  waitsSeen = 0;
  /** Where what it passed was let go last. */
  sweptBytes: number;
  /** Size of the object when it was read last. */
  sizeBytes = 0;
  /** Page of the extent map that was loaded last for it: one that left again at once is not loaded a second time. */
  loadedPage = -1;
  /** No reading ahead before this, after an error. */
  pausedUntilMs = 0;
  ended = false;

  constructor(endBytes: number, readBytes: number, nowMs: number) {
    this.endBytes = endBytes;
    this.readBytes = readBytes;
    this.lastReadMs = nowMs;
    this.plannedBytes = endBytes;
    this.sweptBytes = endBytes;
  }
}

export class SequentialStreams {
  /** In no order. */
  readonly streams: Stream[] = [];
  readonly #ends = new Float64Array(CANDIDATES).fill(-Infinity);
  readonly #reads = new Uint32Array(CANDIDATES);
  readonly #bytes = new Float64Array(CANDIDATES);
  readonly #touched = new Float64Array(CANDIDATES);
  #touches = 0;
  readonly #ended: (stream: Stream) => void;

  /** `ended`: a stream gave its place up. */
  constructor(ended: (stream: Stream) => void) {
    this.#ended = ended;
  }

  /** Takes note of a read. The stream that it belongs to, or null. */
  observe(offsetBytes: number, lengthBytes: number, nowMs: number): Stream | null {
    for (const stream of this.streams) {
      const distance = offsetBytes - stream.endBytes;
      if (distance > AHEAD_BYTES || distance < -BEHIND_BYTES) continue;
      stream.readBytes += lengthBytes;
      if (lengthBytes > stream.largestReadBytes) stream.largestReadBytes = lengthBytes;
      stream.lastReadMs = nowMs;
      if (offsetBytes + lengthBytes > stream.endBytes) stream.endBytes = offsetBytes + lengthBytes;
      return stream;
    }
    return this.#observeCandidate(offsetBytes, lengthBytes, nowMs);
  }

  #observeCandidate(offsetBytes: number, lengthBytes: number, nowMs: number): Stream | null {
    this.#touches += 1;
    const near = Math.max(NEAR_BYTES, 2 * lengthBytes);
    let oldest = 0;
    for (let index = 0; index < CANDIDATES; index += 1) {
      const end = this.#ends[index] as number;
      const distance = offsetBytes - end;
      if (distance <= near && distance >= -near) {
        this.#touched[index] = this.#touches;
        // The same again, or a late one: no step forward.
        if (offsetBytes + lengthBytes <= end) return null;
        this.#ends[index] = offsetBytes + lengthBytes;
        const reads = (this.#reads[index] = (this.#reads[index] as number) + 1);
        const bytes = (this.#bytes[index] = (this.#bytes[index] as number) + lengthBytes);
        if (reads < READS_MIN && lengthBytes < LARGE_READ_BYTES) return null;
        this.#ends[index] = -Infinity;
        const stream = new Stream(offsetBytes + lengthBytes, bytes, nowMs);
        stream.largestReadBytes = lengthBytes;
        return this.#begin(stream);
      }
      if ((this.#touched[index] as number) < (this.#touched[oldest] as number)) oldest = index;
    }
    this.#ends[oldest] = offsetBytes + lengthBytes;
    this.#reads[oldest] = 1;
    this.#bytes[oldest] = lengthBytes;
    this.#touched[oldest] = this.#touches;
    return null;
  }

  #begin(stream: Stream): Stream {
    if (this.streams.length >= STREAMS_MAX) {
      let resting = this.streams[0] as Stream;
      for (const other of this.streams) if (other.lastReadMs < resting.lastReadMs) resting = other;
      this.end(resting);
    }
    this.streams.push(stream);
    return stream;
  }

  /** Ends every stream that was not read since `sinceMs`. */
  endIdle(sinceMs: number): void {
    for (let index = this.streams.length - 1; index >= 0; index -= 1) {
      const stream = this.streams[index] as Stream;
      if (stream.lastReadMs < sinceMs) this.end(stream);
    }
  }

  end(stream: Stream): void {
    const index = this.streams.indexOf(stream);
    if (index < 0) return;
    this.streams.splice(index, 1);
    stream.ended = true;
    this.#ended(stream);
  }
}
