/**
 * Full segments of a log on their way to being sealed: index and footer are written behind the records, synced, and the file is closed. They become
 * sealed in the order of their numbers, however the disk answers: a segment whose records follow on some that a fault may still take back is not
 * sealed, and one that was forgotten before those are durable would never be known to be.
 */
import { toldToFail } from '../core/fail-points.ts';
import type { Logger } from '../core/logger.ts';
import type { OpenSegment } from './open-segment.ts';
import type { SegmentFiles } from './segment-files.ts';

/** What the log does about them. */
export interface SealingEvents {
  /** The seal is written; it is not durable yet. */
  written(segment: OpenSegment): void;
  /** The seal is durable, and everything before it: no fault takes the segment back. Its file is still open. */
  durable(): void;
  /** It is sealed, closed and none of these any more. */
  closed(segment: OpenSegment): void;
  /** A seal could not be written. */
  failed(error: Error): void;
}

export class Sealing {
  readonly #files: SegmentFiles;
  readonly #logger: Logger;
  readonly #events: SealingEvents;
  /** In order of number: first those that are sealed and being closed. */
  #segments: OpenSegment[] = [];

  constructor(components: { files: SegmentFiles; logger: Logger }, events: SealingEvents) {
    this.#files = components.files;
    this.#logger = components.logger;
    this.#events = events;
  }

  get isEmpty(): boolean {
    return this.#segments.length === 0;
  }

  has(number: number): boolean {
    for (let index = 0; index < this.#segments.length; index += 1) if (this.#segments[index]?.local.number === number) return true;
    return false;
  }

  /** Whether one with this number or a smaller one is here. */
  hasUpTo(number: number): boolean {
    return this.#segments.some((segment) => segment.local.number <= number);
  }

  /** Sequence up to which the log is durable: in these, and if they all are, in `current`, which follows them. At least `known`. */
  durableSequence(known: number, current: OpenSegment | null): number {
    let durable = known;
    for (let index = 0; index < this.#segments.length; index += 1) {
      const segment = this.#segments[index] as OpenSegment;
      durable = Math.max(durable, segment.syncedSequence);
      if (segment.syncedSequence < segment.lastSequence) return durable;
    }
    return current === null ? durable : Math.max(durable, current.syncedSequence);
  }

  /** Begins to seal a segment to which nothing is written any more. */
  begin(segment: OpenSegment, durableSequence: number): void {
    this.#segments.push(segment);
    const told = toldToFail('log.before-seal');
    if (told !== null) {
      this.#events.failed(told);
      return;
    }
    const buffers = segment.encodeSeal(durableSequence);
    const totalBytes = buffers.reduce((end, buffer) => end + buffer.length, segment.writeOffset);
    segment.write(segment.writeOffset, buffers, (error) => {
      // A fault took it out meanwhile.
      if (!this.#segments.includes(segment)) return;
      if (error !== null) {
        this.#events.failed(error);
        return;
      }
      segment.writeOffset = totalBytes;
      segment.sealWritten = true;
      this.#events.written(segment);
    });
  }

  /** Goes on with those whose seal is durable. */
  finish(): void {
    for (const segment of [...this.#segments]) {
      if (segment.sealed) continue;
      // The one before it failed, and took this one with it.
      if (!segment.sealDurable || !this.#segments.includes(segment)) return;
      this.#finishOne(segment);
    }
  }

  #finishOne(segment: OpenSegment): void {
    const told = toldToFail('log.after-seal');
    if (told !== null) {
      this.#events.failed(told);
      return;
    }
    segment.sealed = true;
    this.#events.durable();
    void this.#close(segment);
  }

  /** The seal is durable: what happens to the file from here on is no fault of the log. */
  async #close(segment: OpenSegment): Promise<void> {
    try {
      // The seal is found with or without the unused tail of the file; cutting it costs a journal commit, so only a large one is cut.
      if (this.#files.isWasteful(segment.writeOffset)) await segment.file.truncate(segment.writeOffset);
    } catch (error) {
      this.#logger.warn({ err: error, file: segment.local.path }, 'cutting a sealed segment to its size failed');
    }
    try {
      await segment.close();
    } catch (error) {
      this.#logger.warn({ err: error, file: segment.local.path }, 'closing a sealed segment failed');
    }
    this.#files.grow(segment.local, segment.writeOffset);
    this.#segments = this.#segments.filter((other) => other !== segment);
    this.#events.closed(segment);
  }

  /** After a fault: takes out, and returns, what is not sealed. */
  takeUnsealed(): OpenSegment[] {
    const unsealed = this.#segments.filter((segment) => !segment.sealed);
    this.#segments = this.#segments.filter((segment) => segment.sealed);
    return unsealed;
  }
}
