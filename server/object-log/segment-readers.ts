/** Local files that are open for reading: the least recently used are closed, once nobody reads from them. */
import type { Disk, DiskFile } from '../core/disk.ts';
import type { Logger } from '../core/logger.ts';

const OPEN_FILES_MAX = 512;

interface OpenFile {
  path: string;
  file: DiskFile | null;
  opening: Promise<DiskFile>;
  users: number;
  doomed: boolean;
}

export class SegmentReaders {
  readonly #disk: Disk;
  readonly #logger: Logger;
  /** By path; the order is that of their last use. */
  readonly #open = new Map<string, OpenFile>();

  constructor(components: { disk: Disk; logger: Logger }) {
    this.#disk = components.disk;
    this.#logger = components.logger;
  }

  /** Reads `target.length` bytes of a file; short only at its end. */
  async read(path: string, offsetBytes: number, target: Uint8Array): Promise<number> {
    const open = this.#reader(path);
    open.users += 1;
    try {
      const file = open.file ?? (await open.opening);
      return await new Promise<number>((resolve, reject) =>
        file.read(offsetBytes, target, (error, bytesRead) => (error === null ? resolve(bytesRead) : reject(error))),
      );
    } finally {
      open.users -= 1;
      if (open.doomed && open.users === 0) await open.file?.close();
    }
  }

  /** Opens a file that somebody will read soon. One that cannot be opened is an error for who reads it. */
  expect(path: string): void {
    this.#reader(path);
  }

  /** The file at `former` has another name now: who reads it goes on, and who comes need not open it again. */
  renamed(former: string, path: string): void {
    this.forget(path);
    const open = this.#open.get(former);
    if (open === undefined) return;
    this.#open.delete(former);
    open.path = path;
    this.#open.set(path, open);
  }

  /** What is at this path from now on is another file, or none. Who reads the former one may go on. */
  forget(path: string): void {
    const open = this.#open.get(path);
    if (open === undefined) return;
    this.#open.delete(path);
    open.doomed = true;
    if (open.users === 0 && open.file !== null) this.#closeQuietly(open.file);
  }

  close(): void {
    for (const path of [...this.#open.keys()]) this.forget(path);
  }

  #reader(path: string): OpenFile {
    let open = this.#open.get(path);
    if (open !== undefined) {
      this.#open.delete(path);
      this.#open.set(path, open);
      return open;
    }
    const opening = this.#disk.open(path, 'read');
    open = { path, file: null, opening, users: 0, doomed: false };
    this.#open.set(path, open);
    const entry = open;
    opening.then(
      (file) => {
        entry.file = file;
        // Forgotten while it was being opened and nobody waits for it.
        if (entry.doomed && entry.users === 0) this.#closeQuietly(file);
      },
      () => {
        if (this.#open.get(entry.path) === entry) this.#open.delete(entry.path);
      },
    );
    for (const [oldest] of this.#open) {
      if (this.#open.size <= OPEN_FILES_MAX) break;
      this.forget(oldest);
    }
    return open;
  }

  #closeQuietly(file: DiskFile): void {
    file.close().catch((error: unknown) => this.#logger.error({ err: error, file: file.path }, 'closing a segment failed'));
  }
}
