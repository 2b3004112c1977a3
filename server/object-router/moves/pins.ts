/**
 * Objects that stay where they are, whatever is forwarded: an operator said so to the router that owns them. Kept in that router's data directory
 * (docs/formats/data-directory.md, pins.json): a pin says "not away from here", so it is nobody else's business.
 */
import { join } from 'node:path';

import type { Disk, DiskFile } from '../../core/disk.ts';
import { ApplianceError, errorCode } from '../../core/errors.ts';
import type { FileId } from '../../core/ids.ts';

const FILE_NAME = 'pins.json';
const FILE_BYTES_MAX = 4 * 1024 * 1024;
export const PINS_MAX = 65_536;

export class Pins {
  readonly #disk: Disk;
  readonly #directory: string;
  #pinned: ReadonlySet<number> = new Set();
  #last: Promise<void> = Promise.resolve();

  private constructor(disk: Disk, directory: string) {
    this.#disk = disk;
    this.#directory = directory;
  }

  /** @throws ApplianceError `data-unusable`: the file is not what this router wrote. */
  static async open(disk: Disk, directory: string): Promise<Pins> {
    const pins = new Pins(disk, directory);
    pins.#pinned = await pins.#load();
    return pins;
  }

  has(fileid: FileId): boolean {
    return this.#pinned.has(fileid);
  }

  list(): readonly FileId[] {
    return [...this.#pinned] as FileId[];
  }

  /** Durable when it resolves. @throws ApplianceError `pins-full`; rejects with system errors of the disk. */
  set(fileid: FileId, pinned: boolean): Promise<void> {
    const done = this.#last.then(async () => {
      if (this.#pinned.has(fileid) === pinned) return;
      const next = new Set(this.#pinned);
      if (pinned) next.add(fileid);
      else next.delete(fileid);
      if (next.size > PINS_MAX) throw new ApplianceError('pins-full', `no more than ${PINS_MAX} objects can be pinned at a router`);
      await this.#save(next);
      this.#pinned = next;
    });
    this.#last = done.catch(() => undefined);
    return done;
  }

  get #path(): string {
    return join(this.#directory, FILE_NAME);
  }

  async #load(): Promise<ReadonlySet<number>> {
    let file: DiskFile;
    try {
      file = await this.#disk.open(this.#path, 'read');
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return new Set();
      throw error;
    }
    try {
      const bytes = Buffer.alloc(Math.min(await file.size(), FILE_BYTES_MAX));
      const bytesRead = await new Promise<number>((resolve, reject) =>
        file.read(0, bytes, (error, count) => (error === null ? resolve(count) : reject(error))),
      );
      return parsePins(bytes.toString('utf8', 0, bytesRead), this.#path);
    } finally {
      await file.close();
    }
  }

  async #save(pinned: ReadonlySet<number>): Promise<void> {
    const temporary = `${this.#path}.tmp`;
    try {
      await this.#disk.unlink(temporary);
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') throw error;
    }
    const file = await this.#disk.create(temporary);
    try {
      const bytes = Buffer.from(`${JSON.stringify({ version: 1, pinned: [...pinned] })}\n`);
      await new Promise<void>((resolve, reject) => file.write(0, [bytes], (error) => (error === null ? resolve() : reject(error))));
      await new Promise<void>((resolve, reject) => file.sync((error) => (error === null ? resolve() : reject(error))));
    } finally {
      await file.close();
    }
    await this.#disk.rename(temporary, this.#path);
    await this.#disk.syncDirectory(this.#directory);
  }
}

function parsePins(text: string, path: string): ReadonlySet<number> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw new ApplianceError('data-unusable', `${path} is damaged: ${(error as Error).message}; remove it to go on without pins`, { cause: error });
  }
  const list =
    typeof parsed === 'object' && parsed !== null && 'version' in parsed && parsed.version === 1 && 'pinned' in parsed ? parsed.pinned : null;
  if (!Array.isArray(list) || list.length > PINS_MAX || !list.every((fileid) => Number.isSafeInteger(fileid) && fileid > 0)) {
    throw new ApplianceError('data-unusable', `${path} is not a list of pinned objects; remove it to go on without pins`);
  }
  return new Set(list as number[]);
}
