/**
 * When which object has something to delete on the backend: an object that is closed and clean would otherwise not be looked at before somebody uses it.
 * Only a hint, kept in a local file: what may be deleted the object's own checkpoint says (design section 6, Cleaner). A lost file costs space until
 * the object is used again, nothing else.
 */
import type { FileId } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';

/** Where the hints are kept between runs. */
export interface HintFile {
  /** Null: there is none. */
  read(): Promise<string | null>;
  /** Replaces it as a whole. */
  write(text: string): Promise<void>;
}

export class GarbageSchedule {
  readonly #file: HintFile;
  readonly #logger: Logger;
  readonly #due = new Map<number, number>();
  #changed = false;
  #writing: Promise<void> | null = null;

  private constructor(file: HintFile, logger: Logger) {
    this.#file = file;
    this.#logger = logger;
  }

  static async open(file: HintFile, logger: Logger): Promise<GarbageSchedule> {
    const schedule = new GarbageSchedule(file, logger);
    const text = await file.read();
    if (text === null) return schedule;
    let parsed: unknown = null;
    try {
      parsed = JSON.parse(text);
    } catch (error) {
      logger.warn({ err: error }, 'the file of garbage hints is damaged; deleted data is freed when its object is used again');
    }
    if (typeof parsed !== 'object' || parsed === null || !('version' in parsed) || parsed.version !== 1) return schedule;
    if (!('due' in parsed) || !Array.isArray(parsed.due)) return schedule;
    for (const pair of parsed.due as unknown[]) {
      if (!Array.isArray(pair) || pair.length !== 2) continue;
      const [fileid, dueMs] = pair as unknown[];
      if (typeof fileid === 'number' && Number.isSafeInteger(fileid) && fileid > 0 && typeof dueMs === 'number') schedule.#due.set(fileid, dueMs);
    }
    return schedule;
  }

  /** `dueMs`: wall clock from which the object has something to delete; null: nothing. Costs a look-up when nothing changed. */
  note(fileid: FileId, dueMs: number | null): void {
    const known = this.#due.get(fileid);
    if (dueMs === null) {
      if (known === undefined) return;
      this.#due.delete(fileid);
    } else {
      if (known === dueMs) return;
      this.#due.set(fileid, dueMs);
    }
    this.#changed = true;
  }

  /** At most `limit` objects whose time has come. */
  dueAt(nowMs: number, limit: number): FileId[] {
    const found: FileId[] = [];
    for (const [fileid, dueMs] of this.#due) {
      if (dueMs > nowMs) continue;
      found.push(fileid as FileId);
      if (found.length >= limit) break;
    }
    return found;
  }

  /** Writes the file if anything changed and no write is under way. */
  save(): Promise<void> {
    if (!this.#changed || this.#writing !== null) return this.#writing ?? Promise.resolve();
    this.#changed = false;
    this.#writing = this.#file
      .write(JSON.stringify({ version: 1, due: [...this.#due] }))
      .catch((error: unknown) => {
        this.#changed = true;
        this.#logger.warn({ err: error }, 'the file of garbage hints could not be written; it is tried again');
      })
      .finally(() => {
        this.#writing = null;
      });
    return this.#writing;
  }
}
