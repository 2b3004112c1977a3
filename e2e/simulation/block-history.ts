/** The histories of an object's sectors: each is a register, and every write stamps what it writes with its number. */
import { explainStamps, fillStamp } from '../crash/stamp.ts';
import { RegisterHistory } from './register-history.ts';

export const SECTOR_BYTES = 512;

interface UnstableWrite {
  readonly write: number;
  readonly firstSector: number;
  readonly sectors: number;
  readonly verifier: string;
  readonly answeredMs: number;
}

export class BlockHistory {
  readonly object: number;
  readonly sectors: number;
  /** Writes that may come back, and why they may is somebody else's business. */
  excused: (write: number) => boolean = () => false;
  readonly #registers: RegisterHistory[];
  readonly #stable = new Set<number>();
  #unstable: UnstableWrite[] = [];
  #writes = 0;

  constructor(object: number, sectors: number) {
    this.object = object;
    this.sectors = sectors;
    this.#registers = Array.from({ length: sectors }, () => new RegisterHistory());
  }

  /** Begins a write; returns its number. */
  begin(nowMs: number, firstSector: number, sectors: number, stable: boolean): number {
    this.#writes += 1;
    const write = this.#writes;
    if (stable) this.#stable.add(write);
    for (let sector = firstSector; sector < firstSector + sectors; sector += 1) this.#registers[sector]?.begin(nowMs, write);
    return write;
  }

  /** The bytes that a write puts there. */
  payload(write: number, firstSector: number, sectors: number): Buffer {
    const data = Buffer.alloc(sectors * SECTOR_BYTES);
    fillStamp(data, this.object, write, firstSector * SECTOR_BYTES);
    return data;
  }

  /** See RegisterHistory.unclear. */
  unclear(write: number, firstSector: number, sectors: number): void {
    for (let sector = firstSector; sector < firstSector + sectors; sector += 1) this.#registers[sector]?.unclear(write);
  }

  answeredStable(nowMs: number, write: number, firstSector: number, sectors: number): void {
    for (let sector = firstSector; sector < firstSector + sectors; sector += 1) this.#registers[sector]?.durable(nowMs, write);
  }

  answeredUnstable(nowMs: number, write: number, firstSector: number, sectors: number, verifier: string): void {
    for (let sector = firstSector; sector < firstSector + sectors; sector += 1) this.#registers[sector]?.answered(nowMs, write);
    this.#unstable.push({ write, firstSector, sectors, verifier, answeredMs: nowMs });
  }

  /** A COMMIT that was sent at `beganMs` was answered with this verifier: what was answered with the same one before it is there for good. */
  committed(beganMs: number, nowMs: number, verifier: string): void {
    this.#unstable = this.#unstable.filter((unstable) => {
      if (unstable.answeredMs > beganMs) return true;
      if (unstable.verifier === verifier) this.answeredStable(nowMs, unstable.write, unstable.firstSector, unstable.sectors);
      return false;
    });
  }

  /** Judges a READ of whole sectors that began at `beganMs` and was answered just now: null, or what is wrong. */
  check(beganMs: number, nowMs: number, firstSector: number, data: Buffer): string | null {
    for (let at = 0; at + SECTOR_BYTES <= data.length; at += SECTOR_BYTES) {
      const sector = firstSector + at / SECTOR_BYTES;
      const found = data.subarray(at, at + SECTOR_BYTES);
      const seen = found.readUInt32LE(0);
      const expected = Buffer.alloc(SECTOR_BYTES);
      if (seen !== 0) fillStamp(expected, this.object, seen, sector * SECTOR_BYTES);
      if (!found.equals(expected))
        return `sector ${sector} of object ${this.object} is torn or foreign: ${explainStamps(found, sector * SECTOR_BYTES)}`;
      const problem = this.#registers[sector]?.seen(beganMs, nowMs, seen, this.#stable.has(seen)) ?? null;
      if (problem !== null && !this.excused(seen)) return `sector ${sector} of object ${this.object}: ${problem}`;
    }
    return null;
  }
}
