/**
 * Brings segments back to the local disk that are read from the backend again and again. What was uploaded leaves the SSD cache when it is the
 * least recently used; this is the way back. It costs one request and the whole segment, so it is done only once the reads of the segment have
 * cost as much: on average a read never fetches more than 64 KiB for it, and a single pass over a volume brings nothing back.
 *
 * One segment at a time for the vPool. The copy is checked whole, and durable, before anybody sees it; what goes wrong is tried again much later.
 */
import type { ObjectStore } from '../../backends/object-store.ts';
import type { Disk, DiskFile } from '../core/disk.ts';
import { isEnvironmentError } from '../core/errors.ts';
import type { ObjectUuid } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import type { Clock } from '../core/time.ts';
import { verifyPayload } from '../object-log/segment-codec.ts';
import type { SegmentFiles } from '../object-log/segment-files.ts';
import { readSealed } from '../object-log/segment-scan.ts';
import type { SegmentIdentity } from '../object-log/segment-scan.ts';
import type { SegmentTable } from './segment-table.ts';
import type { StorageNames } from './storage-names.ts';

/** A read of a few KiB has paid for so much of a segment. */
const BYTES_PER_READ = 48 * 1024;
/** And so often the segment as a whole was fetched by large ones: the second pass has begun. */
const PASSES = 1.25;
/** Segments whose reads are counted; the one counted first is forgotten first. */
const COUNTED_MAX = 8192;
/** Largest segment that is held in memory for it. */
const SEGMENT_BYTES_MAX = 160 * 1024 * 1024;
const WRITE_BYTES = 1024 * 1024;
/** No other attempt for so long after one that failed. */
const PAUSE_MS = 30_000;

interface Count {
  requests: number;
  bytes: number;
}

/** What is read and where it goes. */
interface Wanted {
  readonly bucket: string;
  readonly name: string;
  readonly identity: SegmentIdentity & { readonly uuid: ObjectUuid };
  readonly sizeBytes: number;
  /** False once nobody will read it any more. */
  readonly isNeeded: () => boolean;
}

export interface SegmentRecallComponents {
  readonly store: ObjectStore;
  readonly files: SegmentFiles;
  readonly disk: Disk;
  readonly clock: Clock;
  readonly logger: Logger;
}

export class SegmentRecall {
  readonly #components: SegmentRecallComponents;
  /** By segment id. */
  readonly #counts = new Map<number, Count>();
  #running: Promise<void> | null = null;
  readonly #closing = new AbortController();
  #pausedUntilMs = 0;
  #scratch = 0;
  #recalled = 0;
  #failures = 0;

  constructor(components: SegmentRecallComponents) {
    this.#components = components;
  }

  /** Segments brought back, and attempts that failed. */
  statistics(): { readonly recalled: number; readonly failures: number } {
    return { recalled: this.#recalled, failures: this.#failures };
  }

  /** Takes note of a request to the backend for `bytes` of the segment in `row`; may begin to bring it back. `uuid`: whose table it is. */
  fetched(uuid: ObjectUuid, names: StorageNames, table: SegmentTable, row: number, bytes: number): void {
    if (table.kind(row) !== 'segment') return;
    const segmentId = table.globalId(row);
    let count = this.#counts.get(segmentId);
    if (count === undefined) {
      count = { requests: 0, bytes: 0 };
      this.#counts.set(segmentId, count);
      if (this.#counts.size > COUNTED_MAX) for (const oldest of this.#counts.keys()) if (this.#counts.delete(oldest)) break;
    }
    count.requests += 1;
    count.bytes += bytes;
    const sizeBytes = table.sizeBytes(row);
    if (count.requests * BYTES_PER_READ < sizeBytes && count.bytes < sizeBytes * PASSES) return;
    const { files, clock } = this.#components;
    if (this.#running !== null || this.#closing.signal.aborted || clock.monotonicMs() < this.#pausedUntilMs) return;
    if (sizeBytes === 0 || sizeBytes > SEGMENT_BYTES_MAX || !files.mayKeep(sizeBytes)) return;
    this.#counts.delete(segmentId);
    const owner = (table.objectUuid(row) === '' ? uuid : table.objectUuid(row)) as ObjectUuid;
    this.#start({
      bucket: names.bucket(owner, table.bucket(row)),
      name: names.object(owner, table.bucket(row), table.objectName(row)),
      identity: { uuid: owner, number: table.number(row), term: table.term(row) },
      sizeBytes,
      isNeeded: () => table.isUsed(row) && table.globalId(row) === segmentId,
    });
  }

  /** Stops; what is under way leaves no file behind. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
  }

  #start(wanted: Wanted): void {
    this.#running = this.#recall(wanted)
      .then(
        (problem) => {
          if (problem !== null) this.#failed(wanted, problem);
        },
        (error: unknown) => {
          if (!isEnvironmentError(error)) throw error;
          this.#failed(wanted, error.message);
        },
      )
      .finally(() => {
        this.#running = null;
      });
  }

  /** The reads go to the backend as before. */
  #failed(wanted: Wanted, problem: string): void {
    this.#failures += 1;
    this.#pausedUntilMs = this.#components.clock.monotonicMs() + PAUSE_MS;
    this.#components.logger.info({ bucket: wanted.bucket, name: wanted.name, problem }, 'a segment could not be brought back to the local disk');
  }

  /** What went wrong, or null. */
  async #recall(wanted: Wanted): Promise<string | null> {
    const { store, files } = this.#components;
    const answer = await store.get(wanted.bucket, wanted.name, undefined, this.#closing.signal);
    if (answer.kind === 'absent') return 'it is not visible on the backend';
    if (!(await this.#isRight(answer.bytes, wanted))) return 'it does not match its CRCs';
    if (this.#closing.signal.aborted || !wanted.isNeeded() || !files.mayKeep(answer.bytes.length)) return null;
    this.#scratch += 1;
    const path = files.scratchPath(`recall-${this.#scratch}`);
    await this.#write(path, answer.bytes);
    if (await files.adopt(wanted.identity, path, answer.bytes.length)) this.#recalled += 1;
    return null;
  }

  async #isRight(bytes: Buffer, wanted: Wanted): Promise<boolean> {
    if (bytes.length !== wanted.sizeBytes) return false;
    const read = (offsetBytes: number, lengthBytes: number): Promise<Buffer> =>
      Promise.resolve(bytes.subarray(offsetBytes, offsetBytes + lengthBytes));
    const sealed = await readSealed({ sizeBytes: bytes.length, read }, wanted.identity);
    if (sealed === null) return false;
    for (const record of sealed.records) {
      if (!verifyPayload(bytes, record)) return false;
      // A record of 1 MiB is 0.2 ms: clients get their turn in between.
      if (record.blockCount >= 16) await new Promise<void>((resolve) => this.#components.clock.soon(resolve));
    }
    return true;
  }

  async #write(path: string, bytes: Buffer): Promise<void> {
    const { disk } = this.#components;
    const file = await disk.create(path);
    let complete = false;
    try {
      for (let at = 0; at < bytes.length; at += WRITE_BYTES) await write(file, at, bytes.subarray(at, at + WRITE_BYTES));
      await new Promise<void>((resolve, reject) => file.sync((error) => (error === null ? resolve() : reject(error))));
      complete = true;
    } finally {
      await file.close();
      if (!complete) await disk.unlink(path);
    }
  }
}

function write(file: DiskFile, offsetBytes: number, bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => file.write(offsetBytes, [bytes], (error) => (error === null ? resolve() : reject(error))));
}
