/**
 * The segment table of one object: what the `row` of an extent map entry means (design section 6).
 *
 * Rows live in growing typed arrays; bucket names, object uuids and terms are interned, since a volume has few of each. Row 0
 * is the hole and never used. The table counts references: mapped blocks for segments and pieces, pages of the last committed
 * checkpoint for checkpoint objects. A count is a hint for the cleaner; nothing is deleted on it alone (invariant 8).
 */
import { assert } from '../core/assert.ts';
import type { Term } from '../core/ids.ts';
import type { StoredKind } from './object-names.ts';
import { formatObjectName, isTerm, NUMBER_MAX } from './object-names.ts';

/** Hands out process-wide unique numbers for rows: keys of the RAM block cache. Below 2^32, never 0. */
export interface RowIds {
  next(): number;
}

/** Ids from 1 up. */
export function countingRowIds(): RowIds {
  let last = 0;
  return {
    next() {
      last += 1;
      assert(last < 2 ** 32, 'row ids ran out');
      return last;
    },
  };
}

/** What is known of one stored object. */
export interface TableRow {
  readonly kind: StoredKind;
  /** Bucket that holds it; '' = the object's own. */
  readonly bucket: string;
  /** Uuid (32 hex digits) of the object that wrote it; '' = this one. */
  readonly objectUuid: string;
  readonly term: Term;
  readonly number: number;
  /** Bytes of the stored object; of the open segment: as last told. */
  readonly sizeBytes: number;
}

/** Most rows of a table: 64 TiB of 4 MiB segments. `add` beyond it is a bug of who does not clean. */
export const ROWS_MAX = 2 ** 24;
/** Most different buckets and writing objects of a table. */
export const BUCKETS_MAX = 0xffff;
export const UUIDS_MAX = 1 << 20;

const KIND_CODE: Record<StoredKind, number> = { segment: 1, piece: 2, checkpoint: 3 };
const KINDS: readonly (StoredKind | null)[] = [null, 'segment', 'piece', 'checkpoint'];
const FREE = 0;
/** Freed while frozen: still in the snapshot that a checkpoint writes, free after it. */
const DOOMED = 0x80;
const CHECKPOINT = 3;

/** The rows at the instant of a checkpoint. */
export interface FrozenTable {
  /** Rows below this index that `isFrozenRow` takes part in the checkpoint. */
  readonly rowEnd: number;
  /** Live counts of that instant, by row. */
  readonly live: Uint32Array;
}

export class SegmentTable {
  readonly #ids: RowIds;
  readonly #buckets: string[] = [''];
  readonly #bucketIndex = new Map([['', 0]]);
  readonly #uuids: string[] = [''];
  readonly #uuidIndex = new Map([['', 0]]);
  readonly #terms: Term[] = [];
  readonly #termIndex = new Map<string, number>();
  #rowEnd = 1;
  #used = 0;
  #miscounts = 0;
  #kind = new Uint8Array(16);
  #bucket = new Uint16Array(16);
  #uuid = new Uint32Array(16);
  #term = new Uint32Array(16);
  #number = new Float64Array(16);
  #size = new Float64Array(16);
  #live = new Uint32Array(16);
  #globalId = new Uint32Array(16);
  readonly #freeRows: number[] = [];
  readonly #doomed: number[] = [];
  #frozen: FrozenTable | null = null;

  constructor(ids: RowIds) {
    this.#ids = ids;
  }

  /** One more than the highest row that was ever used. */
  get rowEnd(): number {
    return this.#rowEnd;
  }

  /** Rows in use. */
  get usedRows(): number {
    return this.#used;
  }

  /** Bytes of the arrays. */
  get memoryBytes(): number {
    return this.#kind.length * (1 + 2 + 4 + 4 + 8 + 8 + 4 + 4);
  }

  /** Interned lists, in index order; for the checkpoint. Index 0 of buckets and uuids is ''. */
  get lists(): { readonly buckets: readonly string[]; readonly uuids: readonly string[]; readonly terms: readonly Term[] } {
    return { buckets: this.#buckets, uuids: this.#uuids, terms: this.#terms };
  }

  /** Adds a row with no references and returns its index; reuses freed rows. */
  add(fields: TableRow): number {
    // While a checkpoint is being written, a reused row would show up in its snapshot as what it was not.
    const reused = this.#frozen === null ? this.#freeRows.pop() : undefined;
    const row = reused ?? this.#rowEnd;
    this.#put(row, fields, 0);
    return row;
  }

  /** Puts a row read from a checkpoint at its old index. The row is free. */
  restore(row: number, fields: TableRow, live: number): void {
    assert(this.#frozen === null && row >= this.#rowEnd, 'rows are restored in order, before any use');
    for (let free = this.#rowEnd; free < row; free += 1) this.#freeRows.push(free);
    this.#put(row, fields, live);
  }

  #put(row: number, fields: TableRow, live: number): void {
    assert(row > 0 && row < ROWS_MAX, `segment table is full: ${row} rows`);
    assert(fields.number >= 0 && fields.number <= NUMBER_MAX && Number.isSafeInteger(fields.number), `number ${fields.number}`);
    assert(Number.isSafeInteger(fields.sizeBytes) && fields.sizeBytes >= 0, `size ${fields.sizeBytes}`);
    if (row >= this.#kind.length) this.#grow(row + 1);
    if (row >= this.#rowEnd) this.#rowEnd = row + 1;
    this.#kind[row] = KIND_CODE[fields.kind];
    this.#bucket[row] = intern(this.#buckets, this.#bucketIndex, fields.bucket, BUCKETS_MAX);
    this.#uuid[row] = intern(this.#uuids, this.#uuidIndex, fields.objectUuid, UUIDS_MAX);
    this.#term[row] = this.#internTerm(fields.term);
    this.#number[row] = fields.number;
    this.#size[row] = fields.sizeBytes;
    this.#live[row] = live;
    this.#globalId[row] = this.#ids.next();
    this.#used += 1;
  }

  #grow(rows: number): void {
    const capacity = Math.max(rows, Math.ceil(this.#kind.length * (this.#kind.length < 65_536 ? 2 : 1.25)));
    this.#kind = copyOf(this.#kind, new Uint8Array(capacity));
    this.#bucket = copyOf(this.#bucket, new Uint16Array(capacity));
    this.#uuid = copyOf(this.#uuid, new Uint32Array(capacity));
    this.#term = copyOf(this.#term, new Uint32Array(capacity));
    this.#number = copyOf(this.#number, new Float64Array(capacity));
    this.#size = copyOf(this.#size, new Float64Array(capacity));
    this.#live = copyOf(this.#live, new Uint32Array(capacity));
    this.#globalId = copyOf(this.#globalId, new Uint32Array(capacity));
  }

  #internTerm(term: Term): number {
    assert(isTerm(term), `term ${term.generation}.${term.counter}.${term.nonce}`);
    const key = `${term.generation}.${term.counter}.${term.nonce}`;
    let index = this.#termIndex.get(key);
    if (index === undefined) {
      index = this.#terms.length;
      this.#terms.push({ generation: term.generation, counter: term.counter, nonce: term.nonce });
      this.#termIndex.set(key, index);
    }
    return index;
  }

  /** Gives a row without references back. While a checkpoint is being written the index is not reused. */
  free(row: number): void {
    assert(this.isUsed(row), `free of row ${row}, which is not in use`);
    assert(this.#live[row] === 0, `free of row ${row}, which has ${this.#live[row]} references`);
    this.#used -= 1;
    if (this.#frozen !== null && row < this.#frozen.rowEnd) {
      this.#kind[row] = this.#kind[row]! | DOOMED;
      this.#doomed.push(row);
    } else {
      this.#kind[row] = FREE;
      this.#freeRows.push(row);
    }
  }

  isUsed(row: number): boolean {
    const kind = this.#kind[row];
    return row > 0 && row < this.#rowEnd && kind !== undefined && kind !== FREE && kind < DOOMED;
  }

  /** True when extent map entries may point to the row: a segment or piece in use. */
  holdsBlocks(row: number): boolean {
    const kind = this.#kind[row];
    return row > 0 && (kind === 1 || kind === 2);
  }

  /** True when pages may point to the row: a checkpoint object in use. */
  holdsPages(row: number): boolean {
    return row > 0 && this.#kind[row] === CHECKPOINT;
  }

  kind(row: number): StoredKind {
    const kind = this.isUsed(row) || this.isFrozenRow(row) ? KINDS[this.#kind[row]! & ~DOOMED] : null;
    assert(kind !== null && kind !== undefined, `row ${row} is not in use`);
    return kind;
  }

  bucket(row: number): string {
    return this.#buckets[this.#bucket[row]!]!;
  }

  objectUuid(row: number): string {
    return this.#uuids[this.#uuid[row]!]!;
  }

  term(row: number): Term {
    return this.#terms[this.#term[row]!]!;
  }

  number(row: number): number {
    return this.#number[row]!;
  }

  sizeBytes(row: number): number {
    return this.#size[row]!;
  }

  /** The open segment grew, or was sealed. */
  setSizeBytes(row: number, sizeBytes: number): void {
    assert(this.isUsed(row) && Number.isSafeInteger(sizeBytes) && sizeBytes >= 0, `size ${sizeBytes} of row ${row}`);
    this.#size[row] = sizeBytes;
  }

  /** Process-wide unique number of what this row holds; a reused row gets a new one. */
  globalId(row: number): number {
    return this.#globalId[row]!;
  }

  /** Everything known of a row in use. */
  row(row: number): TableRow {
    return {
      kind: this.kind(row),
      bucket: this.bucket(row),
      objectUuid: this.objectUuid(row),
      term: this.term(row),
      number: this.number(row),
      sizeBytes: this.sizeBytes(row),
    };
  }

  /** Name of the stored object within its bucket (docs/formats/object-names.md). */
  objectName(row: number): string {
    return formatObjectName({ kind: this.kind(row), number: this.number(row), term: this.term(row) });
  }

  /** References to the row: mapped blocks, or pages of the last committed checkpoint. */
  live(row: number): number {
    return this.#live[row]!;
  }

  /**
   * Counts references. Counts that came with a checkpoint are as hostile as the rest of it and cannot be checked without reading
   * every page, so a count that would fall below zero stays there and is told by `miscounts`.
   */
  adjustLive(row: number, delta: number): void {
    const next = this.#live[row]! + delta;
    if (next >= 0) this.#live[row] = next;
    else this.#miscount(row);
  }

  #miscount(row: number): void {
    this.#live[row] = 0;
    this.#miscounts += 1;
  }

  /** How often a count would have fallen below zero: not 0 means that some count is wrong, and that `ExtentMap.verify` is due. */
  get miscounts(): number {
    return this.#miscounts;
  }

  /** Rows in use, ascending. Rows may be freed while iterating. */
  *rows(): Generator<number> {
    for (let row = 1; row < this.#rowEnd; row += 1) if (this.isUsed(row)) yield row;
  }

  /** Rows in use to which nothing points now, ascending. Rows may be freed while iterating. */
  *unreferencedRows(): Generator<number> {
    for (let row = 1; row < this.#rowEnd; row += 1) if (this.#live[row] === 0 && this.isUsed(row)) yield row;
  }

  /** Indexes into `lists` of a row, for the checkpoint. */
  indexes(row: number): { readonly bucket: number; readonly uuid: number; readonly term: number } {
    return { bucket: this.#bucket[row]!, uuid: this.#uuid[row]!, term: this.#term[row]! };
  }

  /** Holds the rows of this instant for a checkpoint until `thaw`. Costs a copy of the live counts (4 bytes a row). */
  freeze(): FrozenTable {
    assert(this.#frozen === null, 'one checkpoint at a time');
    this.#frozen = { rowEnd: this.#rowEnd, live: this.#live.slice(0, this.#rowEnd) };
    return this.#frozen;
  }

  /** True for a row that was in use when the table was frozen. */
  isFrozenRow(row: number): boolean {
    // A row below rowEnd cannot be reused while frozen, so what is there, doomed or not, was there.
    return this.#frozen !== null && row > 0 && row < this.#frozen.rowEnd && this.#kind[row] !== FREE;
  }

  thaw(): void {
    assert(this.#frozen !== null, 'not frozen');
    this.#frozen = null;
    for (const row of this.#doomed) {
      this.#kind[row] = FREE;
      this.#freeRows.push(row);
    }
    this.#doomed.length = 0;
  }
}

function intern(list: string[], index: Map<string, number>, text: string, max: number): number {
  const found = index.get(text);
  if (found !== undefined) return found;
  assert(list.length < max, 'too many different buckets or objects');
  index.set(text, list.length);
  return list.push(text) - 1;
}

function copyOf<T extends Uint8Array | Uint16Array | Uint32Array | Float64Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
