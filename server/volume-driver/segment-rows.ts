/** Rows that the segments of an object have in its table, by number: of those that are not uploaded, and of the newest. */
import type { LocalSegment } from '../object-log/local-segment.ts';
import type { SegmentTable } from './segment-table.ts';

/** Rows of this many segments are remembered by number, and those of all that are not uploaded. */
export const SEGMENT_ROWS_KEPT = 64;

export class SegmentRows {
  readonly #table: SegmentTable;
  /** In order of number. */
  readonly #rows = new Map<number, number>();

  constructor(table: SegmentTable) {
    this.#table = table;
  }

  /** Gives a new segment a row. */
  open(segment: LocalSegment): void {
    const row = this.#table.add({ kind: 'segment', bucket: '', objectUuid: '', term: segment.term, number: segment.number, sizeBytes: 0 });
    this.#rows.set(segment.number, row);
    for (const [number, known] of this.#rows) {
      if (number >= segment.number - SEGMENT_ROWS_KEPT) break;
      // Not uploaded yet: its size is still to be entered.
      if (this.#table.isUsed(known) && this.#table.sizeBytes(known) === 0) continue;
      this.#rows.delete(number);
    }
  }

  /** A segment that has a row already. */
  adopt(number: number, row: number): void {
    this.#rows.set(number, row);
  }

  get(number: number): number | undefined {
    return this.#rows.get(number);
  }
}
