/** The segment that a log is written to: its file, and how far it is written and synced. */
import type { DiskFile } from '../core/disk.ts';
import { SegmentIndex } from './segment-codec.ts';
import type { LocalSegment, PreparedSegment } from './segment-files.ts';

const ZEROS = Buffer.alloc(1024 * 1024);

/** What is known of it while it is written; its file is closed by `close`, once nothing uses it. */
export class OpenSegment {
  readonly file: DiskFile;
  readonly local: LocalSegment;
  readonly salt: number;
  readonly header: Buffer;
  readonly index = new SegmentIndex();
  writeOffset = 0;
  /** Bytes of a hole file that have blocks of the disk by now. */
  filledBytes = 0;
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
  readonly #holeBytes: number;
  /** Calls under way: a file is not closed before they end, since its number may be given to another one. */
  #calls = 0;
  #closing: ((value: void) => void) | null = null;

  constructor(prepared: PreparedSegment, salt: number, header: Buffer, baseSequence: number, openedAtMs: number) {
    this.file = prepared.file;
    this.local = prepared.segment;
    this.#holeBytes = prepared.holeBytes;
    this.salt = salt;
    this.header = header;
    this.lastSequence = baseSequence - 1;
    this.writtenSequence = baseSequence - 1;
    this.syncedSequence = baseSequence - 1;
    this.openedAtMs = openedAtMs;
  }

  /**
   * Zeros to be written behind a small batch that ends at `endOffset`, or null. In a hole file every sync would allocate blocks, and that is a
   * commit of the journal: twice as slow (docs/PERFORMANCE.md). So one batch allocates for the next few hundred records.
   */
  zerosBehind(endOffset: number): Buffer | null {
    if (endOffset <= this.filledBytes || endOffset >= this.#holeBytes) return null;
    this.filledBytes = Math.min(endOffset + ZEROS.length, this.#holeBytes);
    return ZEROS.subarray(0, this.filledBytes - endOffset);
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
