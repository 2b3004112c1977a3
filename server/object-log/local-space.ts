/** Free space of the local disk, and whether the directory of the segments is still there: looked at once a second, counted in between. */
import { join } from 'node:path';

import type { Disk } from '../core/disk.ts';
import { ApplianceError, errorCode } from '../core/errors.ts';

export class LocalSpace {
  readonly #disk: Disk;
  readonly #directory: string;
  /** Free space that must remain on the file system; below it no new segment is started. */
  readonly #reserveBytes: number;
  #freeBytes = Infinity;
  #problem: string | null = null;
  #gone: ApplianceError | null = null;

  constructor(components: { disk: Disk }, settings: { directory: string; reserveBytes: number }) {
    this.#disk = components.disk;
    this.#directory = settings.directory;
    this.#reserveBytes = settings.reserveBytes;
  }

  /** Free bytes of the file system at the last look, less what was made and plus what was deleted since. */
  get freeBytes(): number {
    return this.#freeBytes;
  }

  /** What is wrong with the local disk, or null. */
  get problem(): string | null {
    return this.#problem;
  }

  /** Why nothing may be written now although open files would take it: the directory is not there any more. Null when it is. */
  get gone(): Error | null {
    return this.#gone;
  }

  /** Less is free than is comfortable. */
  get isShort(): boolean {
    return this.#freeBytes < this.#reserveBytes * 2;
  }

  /** Whether with so much less there would still be `reserves` times the reserve, and more. */
  wouldLeave(bytes: number, reserves: number): boolean {
    return this.#freeBytes - bytes > this.#reserveBytes * reserves;
  }

  /** Bytes that were allocated since the last look. The next one is up to a second away. */
  took(bytes: number): void {
    this.#freeBytes -= bytes;
  }
  gave(bytes: number): void {
    this.#freeBytes += bytes;
  }

  /** Looks now. What goes wrong is a `problem`. */
  async look(): Promise<void> {
    try {
      // Files that are open can be written for ever after their directory went; what is acknowledged then would be lost with this process.
      await this.#disk.size(join(this.#directory, 'log'));
      this.#gone = null;
      this.#freeBytes = (await this.#disk.space(this.#directory)).freeBytes;
      this.#problem =
        this.#freeBytes < this.#reserveBytes ? `only ${this.#freeBytes} bytes are free in ${this.#directory}; writes slow down or stop` : null;
    } catch (error) {
      this.#problem = `${this.#directory} cannot be examined: ${(error as Error).message}`;
      if (errorCode(error) === 'ENOENT' || errorCode(error) === 'ENOTDIR') {
        this.#gone = new ApplianceError('EIO', `${this.#directory} has vanished: bring the data directory back, or stop this router`, {
          retryable: true,
        });
      }
    }
  }

  /** @throws ApplianceError `ENOSPC` when no file may be begun: the reserve would be touched. */
  async requireRoom(): Promise<void> {
    if (this.#freeBytes < this.#reserveBytes) await this.look();
    if (this.#freeBytes >= this.#reserveBytes) return;
    throw new ApplianceError(
      'ENOSPC',
      `${this.#directory} has ${this.#freeBytes} bytes free, less than the reserve of ${this.#reserveBytes}; free space on that file system`,
      { retryable: true },
    );
  }
}
