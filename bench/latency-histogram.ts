/**
 * Latencies in a typed array: 32 buckets per octave (3 % wide), from 1 us to over an hour. Recording allocates nothing.
 */
const BUCKETS_PER_OCTAVE = 32;
const OCTAVES = 32;

/** Counts by latency; can be added to another one, and sent between processes as its plain `counts`. */
export class LatencyHistogram {
  readonly counts: Float64Array;
  #maxUs = 0;

  constructor(counts: Float64Array = new Float64Array(BUCKETS_PER_OCTAVE * OCTAVES), maxUs = 0) {
    this.counts = counts;
    this.#maxUs = maxUs;
  }

  get maxUs(): number {
    return this.#maxUs;
  }

  record(latencyMs: number): void {
    const us = latencyMs * 1000;
    if (us > this.#maxUs) this.#maxUs = us;
    this.counts[bucketOf(us)]! += 1;
  }

  add(other: LatencyHistogram): void {
    for (let i = 0; i < this.counts.length; i++) this.counts[i]! += other.counts[i]!;
    this.#maxUs = Math.max(this.#maxUs, other.#maxUs);
  }

  /** Latency in us below which `fraction` of the samples lie (upper edge of the bucket, never above the largest sample); 0 when there are none. */
  quantileUs(fraction: number): number {
    let total = 0;
    for (const count of this.counts) total += count;
    if (total === 0) return 0;
    let left = Math.ceil(total * fraction);
    for (let i = 0; i < this.counts.length; i++) {
      left -= this.counts[i]!;
      if (left <= 0) return Math.min(upperEdgeUs(i), this.#maxUs);
    }
    return this.#maxUs;
  }
}

function bucketOf(us: number): number {
  const value = Math.min(us, 0xffffffff) >>> 0;
  if (value < BUCKETS_PER_OCTAVE) return value;
  // The five bits behind the leading one choose the bucket within the octave.
  const exponent = 31 - Math.clz32(value);
  return (exponent - 4) * BUCKETS_PER_OCTAVE + ((value >>> (exponent - 5)) & (BUCKETS_PER_OCTAVE - 1));
}

function upperEdgeUs(bucket: number): number {
  if (bucket < BUCKETS_PER_OCTAVE) return bucket + 1;
  const exponent = Math.floor(bucket / BUCKETS_PER_OCTAVE) + 4;
  return (BUCKETS_PER_OCTAVE + (bucket % BUCKETS_PER_OCTAVE) + 1) * 2 ** (exponent - 5);
}
