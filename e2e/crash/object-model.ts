/**
 * What an object may contain after a crash, byte for byte. The harness never has two writes under way that touch the same 512-byte sector, so all
 * writes of a sector are in one order, and after a crash the sector must hold what comes out of: everything durable, plus a prefix of the rest.
 *
 * A write is `sent` until its answer came, `unstable` when it was answered UNSTABLE, `durable` when it was answered DATA_SYNC or FILE_SYNC or a
 * COMMIT that covers it came back with the same verifier. One that was answered with an error counts as `sent` for ever: it may have been done.
 */
import { explainStamps, fillStamp } from './stamp.ts';

export const SECTOR_BYTES = 512;

export interface Change {
  readonly kind: 'write' | 'zeros' | 'truncate';
  readonly sequence: number;
  readonly offsetBytes: number;
  /** 0 for a truncate, which sets the size to `offsetBytes`. */
  readonly countBytes: number;
  /** It asks for DATA_SYNC or FILE_SYNC, so it can never make the verifier change. */
  readonly stable: boolean;
  state: 'sent' | 'unstable' | 'durable';
  /** Verifier of the answer, hex; '' before it. */
  verifier: string;
}

export interface VerificationResult {
  /** What must not be, in words; empty is good. */
  readonly violations: readonly string[];
  /** True when data that was answered UNSTABLE and never committed is gone: allowed, but the verifier must have changed. */
  readonly lostUnstable: boolean;
}

export class ObjectModel {
  readonly id: number;
  readonly capacityBytes: number;
  /** All durable changes before the oldest one in `#changes` are in here. */
  readonly #base: Buffer;
  #baseSizeBytes: number;
  /** In the order in which they were sent. */
  #changes: Change[] = [];
  #lastSequence = 0;

  /** An object with `sizeBytes` of zeros, durable. */
  constructor(id: number, capacityBytes: number, sizeBytes: number) {
    this.id = id;
    this.capacityBytes = capacityBytes;
    this.#base = Buffer.alloc(capacityBytes);
    this.#baseSizeBytes = sizeBytes;
  }

  get changes(): readonly Change[] {
    return this.#changes;
  }

  /** Whether no write under way touches a sector of the range, so that a new one or a read may start. */
  isFree(offsetBytes: number, countBytes: number): boolean {
    const first = Math.floor(offsetBytes / SECTOR_BYTES) * SECTOR_BYTES;
    const end = Math.ceil((offsetBytes + countBytes) / SECTOR_BYTES) * SECTOR_BYTES;
    return this.#changes.every(
      (change) =>
        change.state !== 'sent' || (change.kind !== 'truncate' && (change.offsetBytes >= end || change.offsetBytes + change.countBytes <= first)),
    );
  }

  /** Whether anything was sent UNSTABLE and is not committed: only then may the verifier change in a crash. */
  get hasUncommitted(): boolean {
    return this.#changes.some((change) => !change.stable && change.state !== 'durable');
  }

  get idle(): boolean {
    return this.#changes.every((change) => change.state !== 'sent');
  }

  begin(kind: Change['kind'], offsetBytes: number, countBytes: number, stable = true): Change {
    this.#lastSequence += 1;
    const change: Change = { kind, sequence: this.#lastSequence, offsetBytes, countBytes, stable, state: 'sent', verifier: '' };
    this.#changes.push(change);
    return change;
  }

  /** The bytes that `change` writes. */
  payload(change: Change): Buffer {
    const bytes = Buffer.alloc(change.countBytes);
    if (change.kind === 'write') fillStamp(bytes, this.id, change.sequence, change.offsetBytes);
    return bytes;
  }

  answered(change: Change, durable: boolean, verifier: string): void {
    change.state = durable ? 'durable' : 'unstable';
    change.verifier = verifier;
    this.#fold();
  }

  /** The unstable writes of now: what a COMMIT that is sent now will cover. */
  commitScope(): readonly Change[] {
    return this.#changes.filter((change) => change.state === 'unstable');
  }

  /** A COMMIT came back. Returns the writes it does not cover, because the verifier is another: the client would have to send them again. */
  committed(scope: readonly Change[], verifier: string): readonly Change[] {
    const stale: Change[] = [];
    for (const change of scope) {
      if (change.verifier === verifier) change.state = 'durable';
      else stale.push(change);
    }
    this.#fold();
    return stale;
  }

  /** Size now, when nothing is under way. */
  currentSizeBytes(): number {
    return this.#changes.reduce((sizeBytes, change) => sizeAfter(sizeBytes, change), this.#baseSizeBytes);
  }

  /** Content of a free range as a READ must give it now. */
  current(offsetBytes: number, countBytes: number): Buffer {
    const content = this.#apply(offsetBytes, countBytes, () => true);
    return content.subarray(0, Math.max(0, Math.min(countBytes, this.currentSizeBytes() - offsetBytes)));
  }

  /** Moves what is durable at the front of the list into the base, so that the list stays short. */
  #fold(): void {
    let folded = 0;
    for (const change of this.#changes) {
      if (change.state !== 'durable') break;
      this.#applyTo(this.#base, 0, change);
      this.#baseSizeBytes = sizeAfter(this.#baseSizeBytes, change);
      folded += 1;
    }
    if (folded > 0) this.#changes = this.#changes.slice(folded);
  }

  #apply(offsetBytes: number, countBytes: number, wanted: (change: Change, index: number) => boolean, changes = this.#changes): Buffer {
    const content = Buffer.alloc(countBytes);
    this.#base.copy(content, 0, offsetBytes, Math.min(offsetBytes + countBytes, this.capacityBytes));
    changes.forEach((change, index) => {
      if (wanted(change, index)) this.#applyTo(content, offsetBytes, change);
    });
    return content;
  }

  #applyTo(content: Buffer, contentOffset: number, change: Change): void {
    if (change.kind === 'truncate') {
      if (change.offsetBytes < contentOffset + content.length) content.fill(0, Math.max(0, change.offsetBytes - contentOffset));
      return;
    }
    const first = Math.max(change.offsetBytes, contentOffset);
    const end = Math.min(change.offsetBytes + change.countBytes, contentOffset + content.length);
    if (first >= end) return;
    const part = content.subarray(first - contentOffset, end - contentOffset);
    if (change.kind === 'zeros') part.fill(0);
    else fillStamp(part, this.id, change.sequence, first);
  }

  /**
   * Judges what was read back after a crash (`actual`: the whole object, its length the size that GETATTR said), then takes it as the new durable
   * state: what a recovered router once showed may not vanish later.
   */
  verifyAndAdopt(actual: Buffer): VerificationResult {
    const result = this.judge(actual);
    this.#adopt(actual);
    return result;
  }

  /** Judges only: for a router that lives, and may still do what it never answered. */
  judge(actual: Buffer): VerificationResult {
    const violations: string[] = [];
    let lostUnstable = false;
    const sizes = this.#possibleSizes();
    if (!sizes.has(actual.length)) violations.push(`object ${this.id}: size ${actual.length}, possible are ${[...sizes].join(', ')}`);

    const suspects = this.#suspectSectors(actual);
    for (const sector of suspects) {
      const offsetBytes = sector * SECTOR_BYTES;
      const found = actual.subarray(offsetBytes, Math.min(offsetBytes + SECTOR_BYTES, actual.length));
      const touching = this.#changes.filter((change) => touches(change, offsetBytes, found.length));
      const candidates = touching.map((_change, cut) => cut).concat(touching.length);
      const fits = (cut: number): boolean =>
        this.#apply(offsetBytes, found.length, (change, index) => index < cut || change.state === 'durable', touching).equals(found);
      // The longest prefix first: only when nothing that keeps all answered writes fits, something was lost.
      const fitting = candidates.filter(fits);
      if (fitting.length === 0) {
        violations.push(
          `object ${this.id}, sector at ${offsetBytes}: found ${explainStamps(found, offsetBytes)}; ` +
            `durable was ${explainStamps(
              this.#apply(offsetBytes, found.length, (change) => change.state === 'durable', touching),
              offsetBytes,
            )}; ` +
            `changes since: ${touching.map(describe).join('; ')}`,
        );
      } else {
        const lastUnstable = touching.findLastIndex((change) => change.state === 'unstable');
        if (fitting.every((cut) => cut <= lastUnstable)) lostUnstable = true;
      }
    }
    return { violations: violations.slice(0, 20), lostUnstable };
  }

  /** Sectors of `actual` that differ from the base, or that a change of uncertain fate touches. */
  #suspectSectors(actual: Buffer): number[] {
    const sectors = new Set<number>();
    const count = Math.ceil(actual.length / SECTOR_BYTES);
    const chunk = 256;
    for (let first = 0; first < count; first += chunk) {
      const from = first * SECTOR_BYTES;
      const to = Math.min((first + chunk) * SECTOR_BYTES, actual.length);
      if (this.#base.compare(actual, from, to, from, to) === 0) continue;
      for (let sector = first; sector < Math.min(first + chunk, count); sector += 1) {
        const end = Math.min((sector + 1) * SECTOR_BYTES, actual.length);
        if (this.#base.compare(actual, sector * SECTOR_BYTES, end, sector * SECTOR_BYTES, end) !== 0) sectors.add(sector);
      }
    }
    for (const change of this.#changes) {
      const end = change.kind === 'truncate' ? actual.length : Math.min(change.offsetBytes + change.countBytes, actual.length);
      for (let sector = Math.floor(change.offsetBytes / SECTOR_BYTES); sector * SECTOR_BYTES < end; sector += 1) sectors.add(sector);
    }
    return [...sectors].toSorted((a, b) => a - b);
  }

  #possibleSizes(): Set<number> {
    let sizes = new Set([this.#baseSizeBytes]);
    for (const change of this.#changes) {
      const after = new Set([...sizes].map((sizeBytes) => sizeAfter(sizeBytes, change)));
      sizes = change.state === 'durable' ? after : after.union(sizes);
    }
    return sizes;
  }

  #adopt(actual: Buffer): void {
    this.#base.fill(0);
    actual.copy(this.#base);
    this.#baseSizeBytes = actual.length;
    this.#changes = [];
  }
}

function touches(change: Change, offsetBytes: number, countBytes: number): boolean {
  if (change.kind === 'truncate') return change.offsetBytes < offsetBytes + countBytes;
  return change.offsetBytes < offsetBytes + countBytes && change.offsetBytes + change.countBytes > offsetBytes;
}

function sizeAfter(sizeBytes: number, change: Change): number {
  return change.kind === 'truncate' ? change.offsetBytes : Math.max(sizeBytes, change.offsetBytes + change.countBytes);
}

function describe(change: Change): string {
  return `${change.state} ${change.kind} ${change.sequence} of ${change.countBytes} at ${change.offsetBytes}`;
}
