/**
 * The records of a log that are in RAM: from their append until they are durable and applied, since a failed write or sync is made good from here.
 *
 * One list in sequence, without gaps, with three marks: before `head` everything is durable and let go of, before `applied`
 * everything was made visible and answered, before `unwritten` everything was handed to a write (head <= applied <= unwritten <= length; a fault sets `unwritten` back to the beginning, and applied records that it
 * moves are written once more). What was moved stays after that, until it is shown in its new place.
 */
import type { LogEvents } from './log-events.ts';
import type { LogRecord } from './log-record.ts';

/** Un-synced bytes at which unstable records wait like stable ones: they are all kept in memory. */
const UNSYNCED_BYTES_MAX = 64 * 1024 * 1024;
/** Records before `head` at which the list is cut. */
const HEAD_MAX = 512;

export class RecordQueue {
  #records: LogRecord[] = [];
  #head = 0;
  #applied = 0;
  #unwritten = 0;
  #nextSequence: number;
  #unsyncedBytes = 0;
  /** Moved records that are durable in their new place, oldest first. */
  readonly #toRelocate: LogRecord[] = [];

  constructor(nextSequence: number) {
    this.#nextSequence = nextSequence;
  }

  /** Sequence of the next record that is added. */
  get nextSequence(): number {
    return this.#nextSequence;
  }
  /** Payload of what is not durable. */
  get unsyncedBytes(): number {
    return this.#unsyncedBytes;
  }
  /** The list itself, for who writes a batch: from `unwritten` to `batchEnd`. Not to be modified. */
  get records(): readonly LogRecord[] {
    return this.#records;
  }
  get unwritten(): number {
    return this.#unwritten;
  }
  get isAllWritten(): boolean {
    return this.#unwritten === this.#records.length;
  }
  get isAllApplied(): boolean {
    return this.#applied === this.#unwritten;
  }
  get firstUnwritten(): LogRecord | undefined {
    return this.#records[this.#unwritten];
  }
  get firstUnapplied(): LogRecord | undefined {
    return this.#records[this.#applied];
  }
  /** First record that was handed to a write and is not applied. */
  get firstWrittenUnapplied(): LogRecord | undefined {
    return this.#applied < this.#unwritten ? this.#records[this.#applied] : undefined;
  }
  /** Records that a fault moved have not all got their new place: the map refers to a damaged segment. */
  get moving(): boolean {
    return this.#toRelocate.length > 0 || this.#records[this.#head]?.moved === true;
  }
  /** False: `pendingNewestFirst` has nothing. */
  get hasPending(): boolean {
    return this.#records.length > this.#applied || this.moving;
  }

  /** Records that are appended but not applied, and those that are being moved; newest first. */
  *pendingNewestFirst(): Iterable<LogRecord> {
    const from = this.moving ? this.#head : this.#applied;
    for (let index = this.#records.length - 1; index >= from; index -= 1) yield this.#records[index] as LogRecord;
    for (let index = this.#toRelocate.length - 1; index >= 0; index -= 1) yield this.#toRelocate[index] as LogRecord;
  }

  /** Gives a record its sequence. One that is not stable waits for durability all the same when too much does that already. */
  add(record: LogRecord): void {
    record.sequence = this.#nextSequence;
    this.#nextSequence += 1;
    if (this.#unsyncedBytes > UNSYNCED_BYTES_MAX) record.stable = true;
    this.#unsyncedBytes += record.payloadBytes;
    this.#records.push(record);
  }

  /** Where the batch ends that begins at `unwritten`: with the record that reaches `payloadBytesMax`, or the last one. */
  batchEnd(payloadBytesMax: number): number {
    let end = this.#unwritten;
    let payloadBytes = 0;
    while (end < this.#records.length && payloadBytes < payloadBytesMax) {
      payloadBytes += (this.#records[end] as LogRecord).payloadBytes;
      end += 1;
    }
    return end;
  }

  /** Everything before `end` was handed to a write. */
  handedOn(end: number): void {
    this.#unwritten = end;
  }

  /** Applies and answers what is ready, in sequence: up to `durable`, and what need not be durable up to `written`. */
  applyReady(durable: number, written: number, events: Pick<LogEvents, 'apply'>): void {
    while (this.#applied < this.#unwritten) {
      const record = this.#records[this.#applied] as LogRecord;
      if (record.sequence > (record.stable ? durable : written)) break;
      this.#applied += 1;
      events.apply(record);
      record.answer(null);
    }
  }

  /** Lets go of what is applied and durable. */
  releaseDurable(durable: number): void {
    while (this.#head < this.#applied) {
      const record = this.#records[this.#head] as LogRecord;
      if (record.sequence > durable) break;
      this.#unsyncedBytes -= record.payloadBytes;
      if (record.moved) this.#toRelocate.push(record);
      else record.release();
      this.#head += 1;
    }
    if (this.#head === this.#records.length) {
      this.#records = [];
      this.#head = this.#applied = this.#unwritten = 0;
    } else if (this.#head > HEAD_MAX) {
      this.#records.splice(0, this.#head);
      this.#applied -= this.#head;
      this.#unwritten -= this.#head;
      this.#head = 0;
    }
  }

  /** Moved records that are durable in their new place, oldest first. */
  get toRelocate(): readonly LogRecord[] {
    return this.#toRelocate;
  }

  /** The first of `toRelocate`, these, are shown in their new place. */
  relocated(records: readonly LogRecord[]): void {
    this.#toRelocate.splice(0, records.length);
    for (const record of records) record.release();
  }

  /** Answers everything that was not handed to a write with `error`; it never was in the log. */
  refuseUnwritten(error: Error): void {
    const refused = this.#records.splice(this.#unwritten);
    const first = refused[0];
    if (first === undefined) return;
    this.#nextSequence = first.sequence;
    for (const record of refused) {
      this.#unsyncedBytes -= record.payloadBytes;
      record.answer(error);
    }
  }

  /**
   * Begins anew behind `durable`, after a fault. Whoever waits for durability learns now that it did not come: those are `refused`, and the caller's to
   * answer. What was answered UNSTABLE, or is yet to be, is `kept`: it has new sequences, and is written again and durable before it counts.
   */
  startOver(durable: number): { kept: readonly LogRecord[]; refused: readonly LogRecord[] } {
    const kept: LogRecord[] = [];
    const refused: LogRecord[] = [];
    let moved = 0;
    for (let index = this.#head; index < this.#records.length; index += 1) {
      const record = this.#records[index] as LogRecord;
      if (record.sequence <= durable) continue;
      if (index < this.#applied) {
        if (!record.moved) record.move();
        kept.push(record);
        moved += 1;
      } else if (record.stable) refused.push(record);
      else kept.push(record);
    }
    this.#records = kept;
    this.#head = 0;
    this.#applied = moved;
    this.#unwritten = 0;
    this.#unsyncedBytes = kept.reduce((sum, record) => sum + record.payloadBytes, 0);
    this.#nextSequence = durable + 1;
    for (const record of kept) {
      record.sequence = this.#nextSequence;
      record.stable = true;
      this.#nextSequence += 1;
    }
    return { kept, refused };
  }
}
