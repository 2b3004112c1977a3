/**
 * `pool/`: files in which the next segments start, since a file that has its blocks is twice as fast to sync. `free-N.seg` is filled with zeros and was
 * never used; `used-N.seg` is an evicted segment. They are a convenience: a segment that finds none starts in a hole.
 */
import { join } from 'node:path';

import type { Disk } from '../core/disk.ts';
import type { Logger } from '../core/logger.ts';
import type { LocalSpace } from './local-space.ts';

/** Files that are made ahead of need at first; doubled whenever a segment found none. */
const FILES_FIRST = 2;
const FILL_BYTES = 1024 * 1024;

export interface ReadyFilesSettings {
  readonly directory: string;
  /** Size of each. */
  readonly fileBytes: number;
  readonly filesMax: number;
  /** Whether evicted segments may be overwritten. */
  readonly recycle: boolean;
}

export class ReadyFiles {
  readonly #disk: Disk;
  readonly #logger: Logger;
  readonly #space: LocalSpace;
  readonly #settings: ReadyFilesSettings;
  /** Their paths; the last one is used next. */
  readonly #paths: string[] = [];
  #counter = 0;
  #target: number;
  #filling = false;

  constructor(components: { disk: Disk; logger: Logger; space: LocalSpace }, settings: ReadyFilesSettings) {
    this.#disk = components.disk;
    this.#logger = components.logger;
    this.#space = components.space;
    this.#settings = settings;
    this.#target = Math.min(FILES_FIRST, settings.filesMax);
  }

  /** Files of the last run are used again where recycling is allowed. */
  async learn(): Promise<void> {
    for (const name of await this.#disk.list(this.#settings.directory)) {
      const path = join(this.#settings.directory, name);
      // Without recycling an evicted segment may be the backend's object, too.
      if (/^free-\d+\.seg$/.test(name) || (this.#settings.recycle && /^used-\d+\.seg$/.test(name))) this.#paths.push(path);
      else await this.#disk.unlink(path);
      this.#counter = Math.max(this.#counter, Number(/^(?:free|used)-(\d{1,12})\.seg$/.exec(name)?.[1] ?? 0));
    }
  }

  /** Path of a file, the caller's from now on, or undefined; then there will be more of them. */
  take(): string | undefined {
    const ready = this.#paths.pop();
    if (ready === undefined) this.#target = Math.min(this.#settings.filesMax, this.#target * 2);
    return ready;
  }

  /** One that was taken and is not needed. */
  putBack(path: string): void {
    this.#paths.push(path);
  }

  /** Whether a segment of `bytes` that nobody needs would make another one: it is large enough, and there is room for it. */
  wants(bytes: number): boolean {
    return this.#settings.recycle && bytes >= this.#settings.fileBytes * 0.8 && this.#paths.length < this.#settings.filesMax;
  }

  /** Makes one of the file at `path`. */
  async recycle(path: string): Promise<void> {
    const target = join(this.#settings.directory, `used-${++this.#counter}.seg`);
    await this.#disk.rename(path, target);
    this.#paths.push(target);
  }

  /** Deletes them while the disk is short, but for those that let a writer go on where no new file may be begun. */
  async makeRoom(): Promise<void> {
    while (this.#space.isShort && this.#paths.length > FILES_FIRST) {
      await this.#disk.unlink(this.#paths.pop() as string);
      this.#space.gave(this.#settings.fileBytes);
    }
  }

  /** Makes files in the background while there are too few, the disk has room, and less than a MiB is written to it: `appendedBytes`. One after the other. */
  fillSoon(appendedBytes: () => number): void {
    if (this.#filling || !this.#mayFill(appendedBytes())) return;
    this.#filling = true;
    this.#fill(appendedBytes).then(
      () => (this.#filling = false),
      (error: unknown) => {
        this.#filling = false;
        this.#logger.warn({ err: error }, 'preallocating segment files failed; new segments grow as they are written');
      },
    );
  }

  /** Files of real zeros: a hole would have to be allocated at the first sync, which is what preallocation is to avoid. */
  async #fill(appendedBytes: () => number): Promise<void> {
    const { directory, fileBytes } = this.#settings;
    const zeros = Buffer.alloc(FILL_BYTES);
    while (this.#mayFill(appendedBytes())) {
      const path = join(directory, `free-${++this.#counter}.seg`);
      const file = await this.#disk.create(path);
      let complete = false;
      try {
        for (let at = 0; at < fileBytes; at += FILL_BYTES) {
          const part = zeros.subarray(0, Math.min(FILL_BYTES, fileBytes - at));
          await new Promise<void>((resolve, reject) => file.write(at, [part], (error) => (error === null ? resolve() : reject(error))));
        }
        await new Promise<void>((resolve, reject) => file.sync((error) => (error === null ? resolve() : reject(error))));
        complete = true;
      } finally {
        await file.close();
        if (!complete) await this.#disk.unlink(path);
      }
      this.#paths.push(path);
      this.#space.took(fileBytes);
    }
  }

  /** None is made beside writes, nor from space that somebody could need soon. */
  #mayFill(appendedBytes: number): boolean {
    return appendedBytes < FILL_BYTES && this.#paths.length < this.#target && this.#space.wouldLeave(this.#settings.fileBytes, 4);
  }
}
