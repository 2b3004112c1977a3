/**
 * Latency histogram for hot paths: `observe` is a few nanoseconds, allocates nothing and takes no label. `server/metrics/` exports it.
 *
 * Log-linear: two buckets an octave from 1 µs to 2^31 µs (36 minutes), so a quantile is at most a third off. Values are milliseconds, as
 * `Clock.monotonicMs` gives them; negative ones and NaN (a clock that jumped) count as 0.
 */
const OCTAVES = 31;
const BUCKETS = OCTAVES * 2;

export class Histogram {
  readonly #counts = new Float64Array(BUCKETS);
  #sumMs = 0;
  #maxMs = 0;

  /** Counts one duration. */
  observe(durationMs: number): void {
    const valueMs = durationMs > 0 ? durationMs : 0;
    this.#sumMs += valueMs;
    if (valueMs > this.#maxMs) this.#maxMs = valueMs;
    // Upper bounds are inclusive, as Prometheus wants them: exactly 8 µs belongs to the bucket that ends there.
    const micros = Math.min(Math.ceil(valueMs * 1000), 0x7fff_ffff) - 1;
    const index = micros < 1 ? 0 : bucketOf(micros);
    this.#counts[index] = (this.#counts[index] ?? 0) + 1;
  }

  /** Number of observations. */
  get count(): number {
    let total = 0;
    for (const count of this.#counts) total += count;
    return total;
  }

  get sumMs(): number {
    return this.#sumMs;
  }

  get maxMs(): number {
    return this.#maxMs;
  }

  /** How many observations were at most 2^`exponent` µs (`exponent` 0 to 31). */
  countUpToMicros(exponent: number): number {
    let total = 0;
    const end = Math.min(exponent * 2, BUCKETS);
    for (let index = 0; index < end; index++) total += this.#counts[index] ?? 0;
    return exponent === 0 ? (this.#counts[0] ?? 0) : total;
  }

  /** An upper bound in milliseconds of the `fraction` quantile (0.99 = p99), at most a third above it; 0 without observations. */
  quantileMs(fraction: number): number {
    const wanted = this.count * fraction;
    if (wanted === 0) return 0;
    let seen = 0;
    for (let index = 0; index < BUCKETS; index++) {
      seen += this.#counts[index] ?? 0;
      if (seen >= wanted) return Math.min(upperMicros(index) / 1000, this.#maxMs);
    }
    return this.#maxMs;
  }
}

/** Bucket of `micros` = ceil(µs) - 1, from 1 up: twice the octave, plus one in its upper half. */
function bucketOf(micros: number): number {
  const octave = 31 - Math.clz32(micros);
  return octave * 2 + (octave === 0 ? 1 : (micros >> (octave - 1)) & 1);
}

/** Inclusive upper bound of a bucket in µs. */
function upperMicros(index: number): number {
  const octave = index >> 1;
  if (octave === 0) return index + 1;
  return (index & 1) === 0 ? 1.5 * 2 ** octave : 2 ** (octave + 1);
}
