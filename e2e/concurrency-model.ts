/**
 * One register per 512-byte sector, and the question whether a READ may have seen what it saw. Time is a counter of events in this process:
 * a call begins before it is sent and ends after its answer came, so whatever the server did lies between.
 */
import { fillStamp } from './crash/stamp.ts';

const SECTOR_BYTES = 512;

export class RegisterModel {
  readonly object: number;
  /** Per sector the writes that touched it, by number; write 0 is the zeros of the beginning. */
  readonly #writesOf: number[][];
  readonly #beginOf: number[] = [0];
  /** Infinity until it is answered or a read has seen it. */
  readonly #endOf: number[] = [0];
  #now = 1;

  constructor(object: number, sectors: number) {
    this.object = object;
    this.#writesOf = Array.from({ length: sectors }, () => [0]);
  }

  now(): number {
    this.#now += 1;
    return this.#now;
  }

  /** Begins a write of whole sectors; returns its number, which is the sequence in its stamps. */
  beginWrite(firstSector: number, sectors: number): number {
    const write = this.#beginOf.length;
    this.#beginOf.push(this.now());
    this.#endOf.push(Number.POSITIVE_INFINITY);
    for (let sector = firstSector; sector < firstSector + sectors; sector += 1) this.#writesOf[sector]?.push(write);
    return write;
  }

  endWrite(write: number): void {
    this.#endOf[write] = Math.min(this.#endOf[write] ?? 0, this.now());
  }

  payload(write: number, firstSector: number, sectors: number): Buffer {
    const data = Buffer.alloc(sectors * SECTOR_BYTES);
    fillStamp(data, this.object, write, firstSector * SECTOR_BYTES);
    return data;
  }

  /** Judges a READ of whole sectors that began at `began` and has just been answered: null, or what is wrong. */
  checkRead(began: number, firstSector: number, data: Buffer): string | null {
    const ended = this.now();
    for (let at = 0; at < data.length; at += SECTOR_BYTES) {
      const sector = firstSector + at / SECTOR_BYTES;
      const problem = this.#checkSector(began, ended, sector, data.subarray(at, at + SECTOR_BYTES));
      if (problem !== null) return `sector ${sector}: ${problem}`;
    }
    return null;
  }

  #checkSector(began: number, ended: number, sector: number, found: Buffer): string | null {
    const writes = this.#writesOf[sector] ?? [];
    const seen = found.readUInt32LE(0);
    if (!writes.includes(seen)) return `holds write ${seen}, which never wrote it`;
    const expected = Buffer.alloc(SECTOR_BYTES);
    if (seen !== 0) fillStamp(expected, this.object, seen, sector * SECTOR_BYTES);
    if (!found.equals(expected)) return `is torn: begins with write ${seen}`;
    const seenBegin = this.#beginOf[seen] ?? 0;
    const seenEnd = this.#endOf[seen] ?? 0;
    if (seenBegin > ended) return `holds write ${seen}, which was sent after the read was answered`;
    for (const other of writes) {
      if ((this.#beginOf[other] ?? 0) > seenEnd && (this.#endOf[other] ?? 0) < began) {
        return `holds write ${seen}, but write ${other} came wholly after it and was over before the read began`;
      }
    }
    // Who sees a write proves that it has happened: no later read may see what it replaced.
    this.#endOf[seen] = Math.min(seenEnd, ended);
    return null;
  }
}
