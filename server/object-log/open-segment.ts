/** The segment that a log is written to: its file, what is put into it, and how far it is written and synced. */
import { crc32 } from 'node:zlib';

import type { DiskFile } from '../core/disk.ts';
import type { LocalSegment } from './local-segment.ts';
import { LogRecord } from './log-record.ts';
import {
  encodeFooter,
  encodeRecordHead,
  RecordKind,
  recordHeadBytes,
  SEAL_FOOTER_BYTES,
  SEGMENT_HEADER_BYTES,
  SegmentIndex,
} from './segment-codec.ts';
import type { PreparedSegment } from './segment-files.ts';

const ZEROS = Buffer.alloc(1024 * 1024);
/** Batches up to this size fill a hole file ahead of themselves; larger ones allocate enough at a time. */
const SMALL_BATCH_BYTES_MAX = 256 * 1024;

/** What is known of it while it is written; its file is closed by `close`, once nothing uses it. */
export class OpenSegment {
  readonly file: DiskFile;
  readonly local: LocalSegment;
  readonly index = new SegmentIndex();
  /** Where the next batch, or the seal, goes; the end of the file once it is sealed. */
  writeOffset = 0;
  payloadBytes = 0;
  lastSequence: number;
  writtenSequence: number;
  syncedSequence: number;
  syncing = false;
  sealWritten = false;
  /** Its seal is durable, perhaps before that of the segment before it. */
  sealDurable = false;
  /** So is everything before it: no fault can take it back. */
  sealed = false;
  openedAtMs: number;
  readonly #salt: number;
  readonly #header: Buffer;
  readonly #holeBytes: number;
  /** Bytes of a hole file that have blocks of the disk by now. */
  #filledBytes = 0;
  /** Calls under way: a file is not closed before they end, since its number may be given to another one. */
  #calls = 0;
  #closing: ((value: void) => void) | null = null;

  constructor(prepared: PreparedSegment, salt: number, header: Buffer, baseSequence: number, openedAtMs: number) {
    this.file = prepared.file;
    this.local = prepared.segment;
    this.#holeBytes = prepared.holeBytes;
    this.#salt = salt;
    this.#header = header;
    this.lastSequence = baseSequence - 1;
    this.writtenSequence = baseSequence - 1;
    this.syncedSequence = baseSequence - 1;
    this.openedAtMs = openedAtMs;
  }

  /**
   * Puts records [from, end) behind what is there, which tells each of them its place; returns what is to be written at the former `writeOffset`. Payload
   * is not copied: it stays the records'. `durableSequence`: of the log, at this moment.
   */
  encodeBatch(records: readonly LogRecord[], from: number, end: number, durableSequence: number): Uint8Array[] {
    const { term } = this.local;
    let headBytes = 0;
    for (let index = from; index < end; index += 1) headBytes += recordHeadBytes(records[index] as LogRecord);
    const heads = Buffer.allocUnsafe(headBytes);
    const buffers: Uint8Array[] = this.writeOffset === 0 ? [this.#header] : [];
    let offset = this.writeOffset === 0 ? SEGMENT_HEADER_BYTES : this.writeOffset;
    let payloadBytes = 0;
    let headAt = 0;
    for (let index = from; index < end; index += 1) {
      const record = records[index] as LogRecord;
      const payloadCrc = record.times === null ? 0 : crc32(record.times);
      const headEnd = encodeRecordHead(heads, headAt, record, term, this.#salt, durableSequence, payloadCrc);
      buffers.push(heads.subarray(headAt, headEnd));
      offset += headEnd - headAt;
      headAt = headEnd;
      record.segmentNumber = this.local.number;
      record.payloadOffset = offset;
      const chunks = record.chunks;
      for (let chunk = 0; chunk < chunks.length; chunk += 1) buffers.push(chunks[chunk] as Uint8Array);
      offset += record.payloadBytes;
      payloadBytes += record.payloadBytes;
      this.index.add(record, record.payloadOffset, record.times);
      this.lastSequence = record.sequence;
    }
    if (payloadBytes <= SMALL_BATCH_BYTES_MAX) {
      const zeros = this.#zerosBehind(offset);
      if (zeros !== null) buffers.push(zeros);
    }
    this.writeOffset = offset;
    this.payloadBytes += payloadBytes;
    return buffers;
  }

  /** The end of the segment, to be written at `writeOffset`, which stays: index and footer. */
  encodeSeal(durableSequence: number): Uint8Array[] {
    const payload = Buffer.from(this.index.payload());
    const head = Buffer.allocUnsafe(recordHeadBytes({ kind: RecordKind.SEAL, flags: 0, blockCount: 0 }));
    const seal = new LogRecord(RecordKind.SEAL, 0, this.index.count, null, [payload], payload.length, null);
    // The seal is not a record of the object: it repeats the last sequence.
    seal.sequence = this.lastSequence;
    encodeRecordHead(head, 0, seal, this.local.term, this.#salt, durableSequence, crc32(payload));
    const indexOffset = this.writeOffset + head.length;
    const totalBytes = indexOffset + payload.length + SEAL_FOOTER_BYTES;
    const footer = encodeFooter(
      {
        sealOffset: this.writeOffset,
        indexOffset,
        indexBytes: payload.length,
        entryCount: this.index.count,
        lastSequence: this.lastSequence,
        totalBytes,
      },
      this.#salt,
    );
    return [head, payload, footer];
  }

  /**
   * Zeros to be written behind a small batch that ends at `endOffset`, or null. In a hole file every sync would allocate blocks, and that is a
   * commit of the journal: twice as slow (docs/PERFORMANCE.md). So one batch allocates for the next few hundred records.
   */
  #zerosBehind(endOffset: number): Buffer | null {
    if (endOffset <= this.#filledBytes || endOffset >= this.#holeBytes) return null;
    this.#filledBytes = Math.min(endOffset + ZEROS.length, this.#holeBytes);
    return ZEROS.subarray(0, this.#filledBytes - endOffset);
  }

  write(offsetBytes: number, buffers: readonly Uint8Array[], done: (error: Error | null) => void): void {
    this.#calls += 1;
    this.file.write(offsetBytes, buffers, (error) => {
      this.#ended();
      done(error);
    });
  }

  sync(done: (error: Error | null) => void): void {
    this.#calls += 1;
    this.file.sync((error) => {
      this.#ended();
      done(error);
    });
  }

  #ended(): void {
    this.#calls -= 1;
    if (this.#calls === 0 && this.#closing !== null) this.#closing();
  }

  /** Closes the file when nothing uses it any more. */
  async close(): Promise<void> {
    if (this.#calls > 0) await new Promise<void>((resolve) => (this.#closing = resolve));
    await this.file.close();
  }
}
