/**
 * Back-pressure of a vPool's writes (invariant 10): acknowledged bytes that are not on the backend are bounded. From three quarters of the bound on
 * writes are admitted at a rate that falls smoothly to the speed at which the backend takes data, and below it as the bound comes near: the fill
 * settles short of the bound, and no write meets a wall. Volumes take turns by bytes. Nothing fails before a write has waited for its patience.
 */
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { Clock } from '../core/time.ts';

/** Share of the bound from which on writes are slowed down. */
const SLOW_FROM = 0.75;
/** From here on the speed of the backend is measured, so that it is known when it is needed. */
const MEASURE_FROM = 0.5;
/** Where the fill settles while writers want more than the backend takes. */
const SETTLES_AT = 0.9;
/** Room that is given out although nothing drains: what is left between SETTLES_AT and the bound lasts for about a minute and a half. */
const AWAY_LASTS_MS = 240_000;
/** The backend takes segments of many MiB, a slow one with long pauses between them: its speed is an average over some of them. */
const AVERAGE_MS_MIN = 5000;
const AVERAGE_MS_MAX = 120_000;
const AVERAGE_PAUSES = 4;
/** How much of the longest pause is remembered at every further arrival. */
const PAUSE_MEMORY = 0.9;
/** For so long the speed that was measured last is what is expected: an object that moves here with all that waits for the backend needs it at once. */
const KNOWN_MS_MAX = 600_000;
const TICK_MS = 50;
/** Credit that is kept while nobody wants it. */
const BURST_MS = 20;
/** What a volume may write before it is the next one's turn. */
const TURN_BYTES = 64 * 1024;
/** Writes that wait this long are a state that people must know of, not just a slower disk. */
const LATE_MS = 5000;

interface WaitingWrite {
  readonly bytes: number;
  readonly sinceMs: number;
  readonly deadlineMs: number;
  readonly settle: (admitted: boolean) => void;
  next: WaitingWrite | null;
}

/** Writes of one volume in order of arrival. */
interface VolumeQueue {
  first: WaitingWrite;
  last: WaitingWrite;
  /** Bytes that it may still write in this turn. */
  turnBytes: number;
  hasTurn: boolean;
}

export interface AdmissionStatistics {
  /** Writes that waited, or were refused. */
  readonly delayed: number;
  readonly delayedMs: number;
  /** Writes that waited for their patience and were asked to come back. */
  readonly refused: number;
}

export interface AdmissionSources {
  readonly clock: Clock;
  /** Acknowledged bytes that are not on the backend yet. */
  readonly dirtyBytes: () => number;
  /** All bytes that ever came to the backend, or need not any more: only grows. */
  readonly drainedBytes: () => number;
}

export class WriteAdmission {
  readonly #clock: Clock;
  readonly #dirtyBytes: () => number;
  readonly #drainedBytes: () => number;
  readonly #dirtyBytesMax: number;
  /** Volumes with waiting writes, in the order of their turns. */
  readonly #queues = new Map<object, VolumeQueue>();
  #waiting = 0;
  #waitingBytes = 0;
  /** Bytes that may pass now; negative while what passed last is not paid for. */
  #creditBytes = 0;
  #creditAtMs = 0;
  #cancelTick: (() => void) | null = null;
  #tickAtMs = Infinity;
  #measuredFromMs = 0;
  #measuredAtMs = 0;
  #measuredDrained = 0;
  #drainBytesPerMs = 0;
  /** What was measured when the fill was higher last, and until when. */
  #knownBytesPerMs = 0;
  #knownAtMs = -Infinity;
  /** When something arrived at the backend last, and the longest pause before that lately. */
  #arrivedAtMs = 0;
  #pauseMs = 0;
  #delayed = 0;
  #delayedMs = 0;
  #refused = 0;

  constructor(sources: AdmissionSources, dirtyBytesMax: number) {
    this.#clock = sources.clock;
    this.#dirtyBytes = sources.dirtyBytes;
    this.#drainedBytes = sources.drainedBytes;
    this.#dirtyBytesMax = dirtyBytesMax;
  }

  /** Writes that wait now. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Their payload. */
  get waitingBytes(): number {
    return this.#waitingBytes;
  }

  /** Share of the bound that is used. */
  get fill(): number {
    return this.#dirtyBytes() / this.#dirtyBytesMax;
  }

  /** So full that it matters how fast the backend takes data. */
  get isPressed(): boolean {
    return this.fill >= MEASURE_FROM;
  }

  /** What the backend takes, as last measured; 0 while the fill is low. */
  get drainBytesPerSecond(): number {
    return this.#drainBytesPerMs * 1000;
  }

  get statistics(): AdmissionStatistics {
    return { delayed: this.#delayed, delayedMs: this.#delayedMs, refused: this.#refused };
  }

  /** open: writes pass at once. slowed: they go at about the speed of the backend. stopped: some wait for seconds, or for room. */
  get condition(): 'open' | 'slowed' | 'stopped' {
    if (this.fill < SLOW_FROM) return 'open';
    if (this.#waiting === 0) return 'slowed';
    const oldestMs = this.#clock.monotonicMs() - this.#oldestSinceMs();
    return this.fill >= 1 || oldestMs > LATE_MS ? 'stopped' : 'slowed';
  }

  /** Whether a write may pass at once, unasked. */
  get isOpen(): boolean {
    const fill = this.#dirtyBytes() / this.#dirtyBytesMax;
    if (fill >= MEASURE_FROM && this.#cancelTick === null) this.#measure();
    return fill < SLOW_FROM && this.#waiting === 0;
  }

  /** Lets a write of `bytes` to `volume` (any object that stands for it) pass, now or later. `false`: it waited `patienceMs` and may not pass. */
  admit(volume: object, bytes: number, patienceMs: number): MaybePromise<boolean> {
    if (this.isOpen) return true;
    this.#earn();
    if (this.#waiting === 0 && this.#creditBytes >= 0 && this.fill < 1) {
      this.#creditBytes -= bytes;
      return true;
    }
    return new Promise((resolve) => {
      const sinceMs = this.#clock.monotonicMs();
      this.#enqueue(volume, { bytes, sinceMs, deadlineMs: sinceMs + patienceMs, settle: resolve, next: null });
      this.#tickBy(this.#dueMs());
    });
  }

  /** Lets all waiting writes of a volume pass: they will not be made here. */
  excuse(volume: object): void {
    for (let queue = this.#queues.get(volume); queue !== undefined; queue = this.#queues.get(volume)) this.#leave(volume, queue, true);
  }

  #enqueue(volume: object, write: WaitingWrite): void {
    this.#waiting += 1;
    this.#waitingBytes += write.bytes;
    const queue = this.#queues.get(volume);
    if (queue === undefined) this.#queues.set(volume, { first: write, last: write, turnBytes: 0, hasTurn: false });
    else {
      queue.last.next = write;
      queue.last = write;
    }
  }

  #leave(volume: object, queue: VolumeQueue, admitted: boolean): void {
    const write = queue.first;
    if (write.next === null) this.#queues.delete(volume);
    else queue.first = write.next;
    this.#waiting -= 1;
    this.#waitingBytes -= write.bytes;
    this.#delayed += 1;
    this.#delayedMs += this.#clock.monotonicMs() - write.sinceMs;
    if (!admitted) this.#refused += 1;
    write.settle(admitted);
  }

  #oldestSinceMs(): number {
    let oldestMs = Infinity;
    for (const { first } of this.#queues.values()) oldestMs = Math.min(oldestMs, first.sinceMs);
    return oldestMs;
  }

  /** Bytes per millisecond that may pass at this fill: without bound where slowing begins, what drains at SETTLES_AT, nothing at the bound. */
  #rate(): number {
    const { fill } = this;
    if (fill >= 1) return 0;
    if (fill <= SLOW_FROM) return Infinity;
    const settled = (SETTLES_AT - SLOW_FROM) / (1 - SETTLES_AT);
    return ((1 - fill) / (fill - SLOW_FROM)) * (settled * this.#drainBytesPerMs + this.#dirtyBytesMax / AWAY_LASTS_MS);
  }

  /** Credit for the time since the last look. */
  #earn(): void {
    const nowMs = this.#clock.monotonicMs();
    const elapsedMs = nowMs - this.#creditAtMs;
    this.#creditAtMs = nowMs;
    const rate = this.#rate();
    if (rate === Infinity) this.#creditBytes = 0;
    else this.#creditBytes = Math.min(this.#creditBytes + rate * elapsedMs, rate * BURST_MS);
  }

  /** When the next write may pass, as it looks now. */
  #dueMs(): number {
    const nowMs = this.#clock.monotonicMs();
    const rate = this.#rate();
    return this.#creditBytes >= 0 || rate === 0 ? nowMs + 1 : nowMs + Math.max(1, -this.#creditBytes / rate);
  }

  /** The one timer of all waiting writes and of the measurement. */
  #tickBy(atMs: number): void {
    const nowMs = this.#clock.monotonicMs();
    const wantedMs = Math.min(atMs, nowMs + TICK_MS);
    if (this.#cancelTick !== null && this.#tickAtMs <= wantedMs) return;
    this.#cancelTick?.();
    this.#tickAtMs = wantedMs;
    this.#cancelTick = this.#clock.after(wantedMs - nowMs, () => this.#tick());
  }

  #tick(): void {
    this.#cancelTick = null;
    const nowMs = this.#clock.monotonicMs();
    const formerBytesPerMs = this.#drainBytesPerMs;
    if (nowMs - this.#measuredAtMs >= TICK_MS) this.#sample(nowMs);
    this.#earn();
    this.#admitWaiting();
    for (const [volume, queue] of this.#queues)
      while (this.#queues.get(volume) === queue && queue.first.deadlineMs <= nowMs) this.#leave(volume, queue, false);
    if (this.#waiting > 0) this.#tickBy(this.fill >= 1 ? Infinity : this.#dueMs());
    else if (this.fill >= MEASURE_FROM) this.#tickBy(Infinity);
    else {
      // Without what ceased to wait just now: it may have gone away with its object.
      this.#knownBytesPerMs = formerBytesPerMs;
      this.#knownAtMs = nowMs;
      this.#drainBytesPerMs = 0;
    }
  }

  /** Deficit round robin: who writes little never waits behind all that another volume wants. */
  #admitWaiting(): void {
    const freeBytes = this.#dirtyBytesMax * SLOW_FROM - this.#dirtyBytes();
    let admittedBytes = 0;
    while (this.#waiting > 0) {
      // What is admitted here becomes dirty in a moment, and counts already.
      const isFree = admittedBytes < freeBytes;
      if (!isFree && (this.#creditBytes < 0 || this.fill >= 1)) return;
      const [next] = this.#queues;
      if (next === undefined) return;
      const [volume, queue] = next;
      if (!queue.hasTurn) {
        queue.hasTurn = true;
        queue.turnBytes += TURN_BYTES;
      }
      const { bytes } = queue.first;
      if (bytes > queue.turnBytes) {
        queue.hasTurn = false;
        this.#queues.delete(volume);
        this.#queues.set(volume, queue);
        continue;
      }
      queue.turnBytes -= bytes;
      admittedBytes += bytes;
      if (!isFree) this.#creditBytes -= bytes;
      this.#leave(volume, queue, true);
    }
  }

  #measure(): void {
    const nowMs = this.#clock.monotonicMs();
    const known = nowMs - this.#knownAtMs < KNOWN_MS_MAX ? this.#knownBytesPerMs : 0;
    // Something known counts as if it had been measured for a while.
    this.#measuredFromMs = known > 0 ? nowMs - AVERAGE_MS_MIN : nowMs;
    this.#measuredAtMs = nowMs;
    this.#measuredDrained = this.#drainedBytes();
    this.#arrivedAtMs = nowMs;
    this.#pauseMs = 0;
    this.#drainBytesPerMs = known;
    this.#creditAtMs = nowMs;
    this.#creditBytes = 0;
    this.#tickBy(Infinity);
  }

  #sample(nowMs: number): void {
    const drained = this.#drainedBytes();
    const elapsedMs = nowMs - this.#measuredAtMs;
    const rate = (drained - this.#measuredDrained) / elapsedMs;
    if (drained > this.#measuredDrained) {
      this.#pauseMs = Math.max(nowMs - this.#arrivedAtMs, this.#pauseMs * PAUSE_MEMORY);
      this.#arrivedAtMs = nowMs;
    }
    const averageMs = Math.min(AVERAGE_MS_MAX, Math.max(AVERAGE_MS_MIN, AVERAGE_PAUSES * this.#pauseMs));
    const weight = Math.min(1, elapsedMs / Math.min(averageMs, nowMs - this.#measuredFromMs));
    this.#drainBytesPerMs += (rate - this.#drainBytesPerMs) * weight;
    this.#measuredAtMs = nowMs;
    this.#measuredDrained = drained;
  }
}
