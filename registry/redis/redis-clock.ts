/**
 * What time it is at Redis, for not-after times: a script is refused when Redis executes it later than its caller allowed, whatever held it up on the way
 * (a paused router, a socket's buffer, a slow failover), so the time must be Redis's own. Nobody's clocks need to agree: every reply brings Redis's `TIME`, and
 * this router's monotonic clock carries it on from there.
 *
 * The guess is never ahead of Redis, and behind by at most the round trip of the sample it rests on: a deadline is met early by that much, never late. When
 * Redis's clock is stepped, one change may be judged by the difference until its own reply corrects the guess; refused ones are asked again by their callers.
 */
import type { Clock } from '../../server/core/time.ts';

/** A slower reply replaces a sample only when that is older than this. */
const SAMPLE_KEPT_MS = 10_000;
const ROUND_TRIP_GOOD_MS = 50;

export class RedisClock {
  readonly #clock: Pick<Clock, 'monotonicMs' | 'wallMs'>;
  #redisMs = 0;
  #takenMs: number | null = null;

  constructor(clock: Pick<Clock, 'monotonicMs' | 'wallMs'>) {
    this.#clock = clock;
  }

  /** Whether a reply was seen: before that, nothing is known of Redis's clock. */
  get known(): boolean {
    return this.#takenMs !== null;
  }

  /** What is known is of another Redis, or was found to be wrong. */
  forget(): void {
    this.#takenMs = null;
  }

  /** A reply came just now with Redis's clock in it, asked for at `sentMs` of the monotonic clock. */
  sample(redisMs: number, sentMs: number): void {
    const nowMs = this.#clock.monotonicMs();
    if (this.#takenMs !== null && nowMs - sentMs > ROUND_TRIP_GOOD_MS && nowMs - this.#takenMs < SAMPLE_KEPT_MS) return;
    this.#redisMs = redisMs;
    this.#takenMs = nowMs;
  }

  /** The argument of a script for a not-after time of the caller's wall clock: Redis's milliseconds, empty for never. */
  deadline(notAfterMs: number): string {
    if (notAfterMs === Infinity) return '';
    const remainingMs = notAfterMs - this.#clock.wallMs();
    if (remainingMs < 0) return '0';
    return String(Math.max(0, Math.floor(this.#redisMs + this.#clock.monotonicMs() - (this.#takenMs ?? 0) + remainingMs)));
  }
}
