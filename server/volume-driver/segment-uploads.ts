/**
 * Sealed segments of one object on their way to the backend: several at a time, so that a store far away is used well, and handed on in the
 * order of their numbers without gaps, which is how a root covers them.
 */
import type { LocalSegment } from '../object-log/local-segment.ts';

export interface SealedSegment {
  readonly segment: LocalSegment;
  readonly totalBytes: number;
  readonly lastSequence: number;
}

export interface StoredSegment extends SealedSegment {
  /** Was not uploaded: nothing refers to it. */
  readonly dead: boolean;
}

export interface UploadRun {
  /** Last number that is dealt with. */
  readonly upTo: number;
  /** Numbers that need not go up. */
  readonly dead: ReadonlySet<number>;
  /** Stores one segment and reads it back. */
  readonly put: (segment: SealedSegment) => Promise<void>;
  /** Gets what is done, next numbers first; no further upload starts before it resolves, those under way go on. */
  readonly done: (segments: readonly StoredSegment[]) => Promise<void>;
  /** True: no further upload starts. */
  readonly enough: () => boolean;
}

interface Entry extends SealedSegment {
  state: 'waiting' | 'running' | 'stored' | 'dead';
}

export class SegmentUploads {
  readonly #concurrencyMax: number;
  /** By number. */
  readonly #entries: Entry[] = [];
  #highWater: number;
  #wake: () => void = () => undefined;

  /** `highWater`: last number that is on the backend, or need not be. */
  constructor(highWater: number, concurrencyMax: number) {
    this.#highWater = highWater;
    this.#concurrencyMax = concurrencyMax;
  }

  /** Last number of which it and all before it are stored, or need not be once the next root is there. */
  get highWater(): number {
    return this.#highWater;
  }

  /** Last number that is sealed. */
  get lastSealed(): number {
    return this.#entries.at(-1)?.segment.number ?? this.#highWater;
  }

  /** Numbers that are sealed and above the high-water. */
  get numbers(): number[] {
    return this.#entries.map((entry) => entry.segment.number);
  }

  /** Whether some have to wait for others: what is sealed now would not go up now. */
  get isBusy(): boolean {
    return this.#entries.length >= this.#concurrencyMax;
  }

  /** Whether the segment behind the high-water is there: one whose seal still has to be repaired holds up the rest. */
  get ready(): boolean {
    return this.#entries[0]?.segment.number === this.#highWater + 1;
  }

  add(sealed: SealedSegment): void {
    this.#entries.push({ ...sealed, state: 'waiting' });
    this.#entries.sort((a, b) => a.segment.number - b.segment.number);
    this.#wake();
  }

  /**
   * Uploads what is there and what comes meanwhile, until nothing is left to start and nothing is under way. After a failure nothing more starts;
   * what was stored is handed on, what was stored behind the failed one is remembered, and the first failure rejects. One run at a time.
   */
  async run(run: UploadRun): Promise<void> {
    const failures: unknown[] = [];
    let underWay = 0;
    for (;;) {
      while (underWay < this.#concurrencyMax && failures.length === 0 && !run.enough()) {
        const entry = this.#next(run.upTo);
        if (entry === null) break;
        if (run.dead.has(entry.segment.number)) {
          entry.state = 'dead';
          continue;
        }
        entry.state = 'running';
        underWay += 1;
        void run.put(entry).then(
          () => {
            entry.state = 'stored';
            underWay -= 1;
            this.#wake();
          },
          (error: unknown) => {
            entry.state = 'waiting';
            failures.push(error);
            underWay -= 1;
            this.#wake();
          },
        );
      }
      const woken = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      const done = this.#takeDone();
      if (done.length > 0) {
        try {
          await run.done(done);
        } catch (error) {
          failures.push(error);
        }
      } else if (underWay > 0) await woken;
      else break;
    }
    if (failures.length > 0) throw failures[0];
  }

  #next(upTo: number): Entry | null {
    let number = this.#highWater;
    for (const entry of this.#entries) {
      number += 1;
      if (entry.segment.number !== number || number > upTo) return null;
      if (entry.state === 'waiting') return entry;
    }
    return null;
  }

  #takeDone(): StoredSegment[] {
    const done: StoredSegment[] = [];
    for (let first = this.#entries[0]; first !== undefined; first = this.#entries[0]) {
      if (first.segment.number !== this.#highWater + 1 || (first.state !== 'stored' && first.state !== 'dead')) break;
      this.#entries.shift();
      this.#highWater = first.segment.number;
      done.push({ segment: first.segment, totalBytes: first.totalBytes, lastSequence: first.lastSequence, dead: first.state === 'dead' });
    }
    return done;
  }
}
