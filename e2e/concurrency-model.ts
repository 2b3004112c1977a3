/**
 * One register per 512-byte sector, and the question whether a READ may have seen what it saw. Time is a counter of events in this process:
 * a call begins before it is sent and ends after its answer came, so whatever the server did lies between.
 *
 * A read may not see a write when another one came wholly after it and was over before the read began. So of all the writes of a sector that were over by then only the one that
 * began last counts, and of those that were over before the oldest read under way began, one is kept: what a sector costs does not grow with its writes.
 */
import { fillStamp } from './crash/stamp.ts';

const SECTOR_BYTES = 512;

/** What is known of one write. */
export interface WriteHistory {
  /** Its number, the sequence of its stamps. */
  readonly write: number;
  readonly began: number;
  /** Null: neither answered nor seen. */
  readonly ended: number | null;
  readonly firstSector: number;
  readonly sectors: number;
}

export class RegisterModel {
  readonly object: number;
  /** Per sector the writes that are over, in the order of their ends; each began after all before it in the list. */
  readonly #replacements: number[][];
  /** By number; write 0 is the zeros of the beginning. */
  readonly #beginOf: number[] = [0];
  /** Infinity until it is answered or a read has seen it; then it does not change any more. */
  readonly #endOf: number[] = [0];
  readonly #firstSectorOf: number[] = [0];
  readonly #sectorsOf: number[];
  /** When the reads under way began, in that order. */
  readonly #reads = new Set<number>();
  readonly #expected = Buffer.alloc(SECTOR_BYTES);
  #now = 1;

  constructor(object: number, sectors: number) {
    this.object = object;
    this.#sectorsOf = [sectors];
    this.#replacements = Array.from({ length: sectors }, () => [0]);
  }

  /** Writes that are kept for `sector`: bounded by what is under way, for the test of that. */
  kept(sector: number): number {
    return this.#replacements[sector]?.length ?? 0;
  }

  /** Begins a write of whole sectors; returns its number, which is the sequence in its stamps. */
  beginWrite(firstSector: number, sectors: number): number {
    const write = this.#beginOf.length;
    this.#beginOf.push(this.#tick());
    this.#endOf.push(Number.POSITIVE_INFINITY);
    this.#firstSectorOf.push(firstSector);
    this.#sectorsOf.push(sectors);
    return write;
  }

  endWrite(write: number): void {
    this.#end(write, this.#tick());
  }

  payload(write: number, firstSector: number, sectors: number): Buffer {
    const data = Buffer.alloc(sectors * SECTOR_BYTES);
    fillStamp(data, this.object, write, firstSector * SECTOR_BYTES);
    return data;
  }

  /** Begins a READ; returns when, for `checkRead`, which is to be called once. */
  beginRead(): number {
    const began = this.#tick();
    this.#reads.add(began);
    return began;
  }

  /** Judges a READ of whole sectors that began at `began` and has just been answered: null, or which sector is wrong and how. */
  checkRead(began: number, firstSector: number, data: Buffer): { readonly sector: number; readonly problem: string } | null {
    const ended = this.#tick();
    try {
      for (let at = 0; at < data.length; at += SECTOR_BYTES) {
        const sector = firstSector + at / SECTOR_BYTES;
        const problem = this.#checkSector(began, ended, sector, data.subarray(at, at + SECTOR_BYTES));
        if (problem !== null) return { sector, problem };
      }
      return null;
    } finally {
      this.#reads.delete(began);
    }
  }

  /** All writes of a sector, in the order in which they began. Looks at every write there was: for messages. */
  history(sector: number): WriteHistory[] {
    const found: WriteHistory[] = [];
    for (let write = 0; write < this.#beginOf.length; write += 1) {
      if (!this.#touches(write, sector)) continue;
      const ended = this.#endOf[write] ?? 0;
      found.push({
        write,
        began: this.#beginOf[write] ?? 0,
        ended: ended === Number.POSITIVE_INFINITY ? null : ended,
        firstSector: this.#firstSectorOf[write] ?? 0,
        sectors: this.#sectorsOf[write] ?? 0,
      });
    }
    return found;
  }

  #tick(): number {
    this.#now += 1;
    return this.#now;
  }

  #touches(write: number, sector: number): boolean {
    const first = this.#firstSectorOf[write];
    return first !== undefined && sector >= first && sector < first + (this.#sectorsOf[write] ?? 0);
  }

  /** It has happened by now, `at`. The first time counts: what was seen happened before it was answered. */
  #end(write: number, at: number): void {
    if ((this.#endOf[write] ?? 0) !== Number.POSITIVE_INFINITY) return;
    this.#endOf[write] = at;
    const began = this.#beginOf[write] ?? 0;
    // Without a read under way every read to come begins after all of this.
    const [oldestRead = Number.POSITIVE_INFINITY] = this.#reads;
    const first = this.#firstSectorOf[write] ?? 0;
    for (let sector = first; sector < first + (this.#sectorsOf[write] ?? 0); sector += 1) {
      const writes = this.#replacements[sector];
      if (writes === undefined) continue;
      if (began > (this.#beginOf[writes.at(-1) ?? 0] ?? 0)) writes.push(write);
      // Of those that every read to come counts, the one that began last is enough.
      let superfluous = 0;
      while (superfluous + 1 < writes.length && (this.#endOf[writes[superfluous + 1] ?? 0] ?? 0) < oldestRead) superfluous += 1;
      if (superfluous > 0) writes.splice(0, superfluous);
    }
  }

  #checkSector(began: number, ended: number, sector: number, found: Buffer): string | null {
    const seen = found.readUInt32LE(0);
    if (!this.#touches(seen, sector)) return `holds write ${seen}, which never wrote it`;
    const expected = this.#expected;
    if (seen === 0) expected.fill(0);
    else fillStamp(expected, this.object, seen, sector * SECTOR_BYTES);
    if (!found.equals(expected)) return `is torn: begins with write ${seen}`;
    // Whatever was sent was sent before now, and a read is judged when it is answered: no write of the future can be seen.
    const writes = this.#replacements[sector] ?? [];
    let last = writes.length - 1;
    while (last >= 0 && (this.#endOf[writes[last] ?? 0] ?? 0) >= began) last -= 1;
    const other = writes[last];
    if (other !== undefined && (this.#beginOf[other] ?? 0) > (this.#endOf[seen] ?? 0)) {
      return `holds write ${seen}, but write ${other} came wholly after it and was over before the read began`;
    }
    // Who sees a write proves that it has happened: no later read may see what it replaced.
    this.#end(seen, ended);
    return null;
  }
}
