/**
 * How much the writers of an object are slowed down so that its log can be copied (decision 0038): what is written stays below what was copied lately, and ever further
 * below it as long as the copy does not come nearer. So every copy comes to an end, whatever the guest does; one that is fast enough, or short, slows nobody down.
 */
import type { LogPosition } from '../object-router/peer-port.ts';
import type { WritePace } from './write-pace.ts';

/** A copy that takes no longer slows nobody down. */
const UNDISTURBED_MS = 1000;
/** Share of the speed of the copy that writers get at first. */
const WRITERS_SHARE = 0.5;
const WAIT_MS_MAX = 50;
/** What is behind must fall to this share of what it was within that time; else writers get half of what they got, and wait twice as long at most. */
const NEARER_SHARE = 0.75;
const NEARER_MS_MAX = 1000;
const HALVINGS_MAX = 4;
/** What is less says nothing of how fast it goes: there was no more. */
const SAMPLE_BYTES_MIN = 256 * 1024;
const SAMPLE_WEIGHT = 0.2;

export class CopyPace {
  readonly #pace: WritePace;
  /** What the part before ended with, when it was asked for, and its bytes. */
  #next: LogPosition | null = null;
  #askedAtMs = 0;
  #bytes = 0;
  #bytesPerMs = 0;
  #fromMs: number | null = null;
  #lowestBytes = Infinity;
  #lowestAtMs = 0;
  #halvings = 0;

  constructor(pace: WritePace) {
    this.#pace = pace;
  }

  /** The receiver asks for what comes from `from` on, behind which there is so much. */
  asked(nowMs: number, from: LogPosition, behindBytes: number): void {
    // It has what was sent before: only then is it a copy that goes on.
    const isNext = this.#bytes > 0 && from.segment === this.#next?.segment && from.offsetBytes === this.#next.offsetBytes;
    if (isNext) this.#copied(nowMs, Math.max(0.05, nowMs - this.#askedAtMs), behindBytes);
    this.#askedAtMs = nowMs;
    this.#bytes = 0;
  }

  /** What it gets. */
  sent(next: LogPosition, bytes: number): void {
    this.#next = next;
    this.#bytes = bytes;
  }

  #copied(nowMs: number, tookMs: number, behindBytes: number): void {
    if (this.#bytes >= SAMPLE_BYTES_MIN) {
      const sample = this.#bytes / tookMs;
      this.#bytesPerMs += (sample - this.#bytesPerMs) * (this.#bytesPerMs === 0 ? 1 : SAMPLE_WEIGHT);
    }
    this.#fromMs ??= nowMs;
    if (behindBytes < this.#lowestBytes * NEARER_SHARE) {
      this.#lowestBytes = behindBytes;
      this.#lowestAtMs = nowMs;
    } else if (nowMs - this.#lowestAtMs > NEARER_MS_MAX) {
      this.#halvings = Math.min(this.#halvings + 1, HALVINGS_MAX);
      this.#lowestBytes = behindBytes;
      this.#lowestAtMs = nowMs;
    }
    if (nowMs - this.#fromMs < UNDISTURBED_MS || this.#bytesPerMs === 0) return;
    const share = 2 ** this.#halvings;
    this.#pace.set((this.#bytesPerMs * WRITERS_SHARE) / share, WAIT_MS_MAX * share);
  }
}
