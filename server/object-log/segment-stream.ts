/**
 * Reads a segment while its bytes arrive, in pieces that may end anywhere: header, records with their payload CRCs, seal (docs/formats/segment.md).
 * What comes from another router is hostile until it was read here: a segment that is not exactly the one expected, gap-free behind what came before
 * it, is `replica-damaged`.
 */
import { ApplianceError } from '../core/errors.ts';
import {
  BLOCK_BYTES,
  decodeFooter,
  decodeRecord,
  decodeSegmentHeader,
  RECORD_BLOCKS_MAX,
  RECORD_HEADER_BYTES,
  recordHeadBytes,
  RecordKind,
  SEAL_FOOTER_BYTES,
  SEGMENT_HEADER_BYTES,
  verifyPayload,
} from './segment-codec.ts';
import type { DecodedRecord, SegmentHeader } from './segment-codec.ts';
import { isOf, SCAN_BYTES_MAX } from './segment-scan.ts';
import type { SegmentIdentity } from './segment-scan.ts';

const NOTHING = Buffer.alloc(0);

export class SegmentStream {
  readonly #identity: SegmentIdentity;
  readonly #vpoolUuid: string;
  #header: SegmentHeader | null = null;
  /** Bytes that are no whole record yet, and where in the segment they begin. */
  #pending: Buffer = NOTHING;
  #pendingAt = 0;
  #nextSequence: number;
  #sealed = false;

  /** `nextSequence`: of the first record that the object has from this segment on. */
  constructor(identity: SegmentIdentity, vpoolUuid: string, nextSequence: number) {
    this.#identity = identity;
    this.#vpoolUuid = vpoolUuid;
    this.#nextSequence = nextSequence;
  }

  /** Bytes taken so far. */
  get bytes(): number {
    return this.#pendingAt + this.#pending.length;
  }

  /** The seal was read: nothing may follow. */
  get sealed(): boolean {
    return this.#sealed;
  }

  /** Sequence of the last whole record, here or in what came before. */
  get lastSequence(): number {
    return this.#nextSequence - 1;
  }

  /** Takes the next bytes and returns the records that are whole now, in order. `bytes` is not kept, only copied. @throws ApplianceError `replica-damaged`. */
  take(bytes: Buffer): DecodedRecord[] {
    if (this.#sealed) throw this.#damaged('goes on behind its seal');
    if (this.bytes + bytes.length > SCAN_BYTES_MAX) throw this.#damaged('is larger than a segment may be');
    const window = this.#pending.length === 0 ? bytes : Buffer.concat([this.#pending, bytes]);
    const records: DecodedRecord[] = [];
    let at = 0;
    if (this.#header === null) {
      if (window.length < SEGMENT_HEADER_BYTES) {
        this.#keep(window, 0);
        return records;
      }
      this.#header = this.#readHeader(window);
      at = SEGMENT_HEADER_BYTES;
    }
    for (let length = this.#recordBytes(window, at); length > 0; length = this.#recordBytes(window, at)) {
      const record = decodeRecord(window, at, this.#header.term, this.#header.salt);
      if (record === null) throw this.#damaged(`has no valid record at ${this.#pendingAt + at}`);
      if (record.kind === RecordKind.SEAL) {
        this.#checkSeal(window, at, record);
        at = record.endOffset + SEAL_FOOTER_BYTES;
        if (at < window.length) throw this.#damaged('goes on behind its seal');
        this.#sealed = true;
        break;
      }
      if (record.sequence !== this.#nextSequence) throw this.#damaged(`has record ${record.sequence} where ${this.#nextSequence} should be`);
      if (!verifyPayload(window, record)) throw this.#damaged(`has a block in record ${record.sequence} that does not match its CRC`);
      records.push({ ...record, payloadOffset: this.#pendingAt + record.payloadOffset, endOffset: this.#pendingAt + record.endOffset });
      this.#nextSequence += 1;
      at = record.endOffset;
    }
    this.#keep(window, at);
    return records;
  }

  #readHeader(window: Buffer): SegmentHeader {
    const header = decodeSegmentHeader(window.subarray(0, SEGMENT_HEADER_BYTES));
    if (header === null || !isOf(header, this.#identity) || header.vpoolUuid !== this.#vpoolUuid)
      throw this.#damaged('does not begin with its header');
    if (header.baseSequence !== this.#nextSequence)
      throw this.#damaged(`begins with record ${header.baseSequence}, but ${this.#nextSequence} should follow`);
    return header;
  }

  /** Bytes of the record at `at` if all of them are there (of a seal: with the footer), else 0. */
  #recordBytes(window: Buffer, at: number): number {
    const left = window.length - at;
    if (left < RECORD_HEADER_BYTES) return 0;
    const kindAndFlags = window.readUInt32LE(at + 4);
    const kind = (kindAndFlags & 0xff) as RecordKind;
    const blocks = window.readUInt32LE(at + 24);
    const payloadBytes = window.readUInt32LE(at + 28);
    // Nobody waits for what a damaged head promises.
    const possible = kind === RecordKind.DATA ? blocks <= RECORD_BLOCKS_MAX && payloadBytes === blocks * BLOCK_BYTES : payloadBytes < SCAN_BYTES_MAX;
    if (!possible) throw this.#damaged(`has no valid record at ${this.#pendingAt + at}`);
    const headBytes = recordHeadBytes({ kind, flags: (kindAndFlags >>> 8) & 0xff, blockCount: blocks });
    const length = headBytes + payloadBytes + (kind === RecordKind.SEAL ? SEAL_FOOTER_BYTES : 0);
    return left < length ? 0 : length;
  }

  #checkSeal(window: Buffer, at: number, seal: DecodedRecord): void {
    const footer = decodeFooter(window.subarray(0, seal.endOffset + SEAL_FOOTER_BYTES), this.#header?.salt ?? 0);
    const totalBytes = this.#pendingAt + seal.endOffset + SEAL_FOOTER_BYTES;
    const right = footer !== null && footer.sealOffset === this.#pendingAt + at && footer.totalBytes === totalBytes;
    if (!right || seal.sequence !== this.lastSequence) throw this.#damaged(`has no valid seal at ${this.#pendingAt + at}`);
  }

  /** What is left of the window must outlive the caller's buffer. */
  #keep(window: Buffer, at: number): void {
    this.#pendingAt += at;
    this.#pending = at === window.length ? NOTHING : Buffer.from(window.subarray(at));
  }

  #damaged(what: string): ApplianceError {
    const { uuid, number } = this.#identity;
    return new ApplianceError('replica-damaged', `segment ${number} of object ${uuid}, as another router sent it, ${what}`, { retryable: true });
  }
}
