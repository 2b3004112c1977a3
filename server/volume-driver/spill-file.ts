/**
 * The spill file: where page frames wait whose only copy would otherwise fill the RAM. Slots of one frame. Not durable and never
 * read by another process: it is removed when opened. Each slot's CRC is kept in memory, so a flipped bit is found.
 */
import { crc32 } from 'node:zlib';

import { assert } from '../core/assert.ts';
import type { Disk, DiskFile } from '../core/disk.ts';
import { ApplianceError, errorCode } from '../core/errors.ts';
import { FRAME_BYTES, frameBytes } from './page-image.ts';

export class SpillFile {
  readonly #disk: Disk;
  readonly #file: DiskFile;
  /** Frames that the file may hold. */
  readonly slotsMax: number;
  readonly #free: number[] = [];
  #slotEnd = 0;
  #crcs = new Uint32Array(64);

  private constructor(disk: Disk, file: DiskFile, slotsMax: number) {
    this.#disk = disk;
    this.#file = file;
    this.slotsMax = slotsMax;
  }

  /** Makes an empty file at `path`, whatever was there. Rejects with the disk's error. */
  static async open(disk: Disk, path: string, slotsMax: number): Promise<SpillFile> {
    try {
      await disk.unlink(path);
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') throw error;
    }
    return new SpillFile(disk, await disk.create(path), slotsMax);
  }

  /** Frames that lie in the file. */
  get usedSlots(): number {
    return this.#slotEnd - this.#free.length;
  }

  /** Closes and removes the file. Nothing may be under way. */
  async close(): Promise<void> {
    await this.#file.close();
    await this.#disk.unlink(this.#file.path);
  }

  /**
   * Writes a frame to a new slot. The frame is borrowed until `done`; when it was changed meanwhile, the caller frees the slot.
   * `done` may be called before this returns. Error `spill-full` at the bound, else the disk's.
   */
  write(frame: Uint32Array, done: (error: Error | null, slot: number) => void): void {
    const slot = this.#free.pop() ?? this.#slotEnd;
    if (slot === this.#slotEnd) {
      if (slot >= this.slotsMax) {
        const message = `${slot} pages of extent maps are spilled to ${this.#file.path}: checkpoints do not keep up; raise the bound or see why they are slow`;
        done(new ApplianceError('spill-full', message, { retryable: true }), -1);
        return;
      }
      this.#slotEnd += 1;
      if (slot >= this.#crcs.length) {
        const crcs = new Uint32Array(this.#crcs.length * 2);
        crcs.set(this.#crcs);
        this.#crcs = crcs;
      }
    }
    const bytes = frameBytes(frame);
    this.#crcs[slot] = crc32(bytes);
    this.#file.write(slot * FRAME_BYTES, [bytes], (error) => {
      if (error === null) done(null, slot);
      else {
        this.free(slot);
        done(error, -1);
      }
    });
  }

  /** Reads a slot into `frame` (borrowed until it resolves) and returns whether the CRC is right; it is not when the slot was freed meanwhile. */
  read(slot: number, frame: Uint32Array): Promise<boolean> {
    const bytes = frameBytes(frame);
    const expected = this.#crcs[slot]!;
    return new Promise((resolve, reject) => {
      this.#file.read(slot * FRAME_BYTES, bytes, (error, bytesRead) => {
        if (error !== null) reject(error);
        else resolve(bytesRead === FRAME_BYTES && crc32(bytes) === expected);
      });
    });
  }

  free(slot: number): void {
    assert(slot >= 0 && slot < this.#slotEnd, `spill slot ${slot}`);
    this.#free.push(slot);
  }

  /** What to throw when `read` answered false for a slot that is still held. */
  corrupt(slot: number): ApplianceError {
    return new ApplianceError(
      'spill-corrupt',
      `${this.#file.path}: slot ${slot} does not read back as written: the disk is failing; restart to recover from the log`,
    );
  }
}
