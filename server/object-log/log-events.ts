/** What a log tells the object that it belongs to. */
import type { LocalSegment } from './local-segment.ts';
import type { LogRecord } from './log-record.ts';

export interface LogEvents {
  /** Makes a record's effect visible. Called once for each, in sequence. */
  apply(record: LogRecord): void;
  /** A segment is complete: index and footer are durable. */
  sealed(segment: LocalSegment, totalBytes: number, lastSequence: number): void;
  /** A new segment begins: the driver gives it a row in its segment table before any record of it is applied. */
  opened(segment: LocalSegment): void;
  /**
   * A write or sync failed. `damaged` segments hold records up to `durableSequence` and must be sealed by copy, once `relocated` was called. `kept`
   * will be written again in a new segment: those that are `moved` were applied already and keep their effect, the others are applied then.
   */
  fault(damaged: readonly LocalSegment[], durableSequence: number, kept: readonly LogRecord[]): void;
  /** After a fault, data answered UNSTABLE may be gone: resolves when the object has a new write verifier. Called again when it rejects. */
  renewVerifier(): Promise<void>;
  /** Records that a fault moved are durable in their new place: what still shows the former one must show that. Called again when it rejects. */
  relocate(records: readonly LogRecord[]): Promise<void>;
  /** Nothing refers to the damaged segments of a fault any more but for records up to its `durableSequence`. */
  relocated(): void;
}
