/**
 * Brings the registry's outbox to the backend (invariant 7): batches of namespace changes as immutable objects, from which the namespace can be
 * rebuilt in sequence order when the registry is lost. Formats: docs/formats/namespace-archive.md.
 */
import type { ObjectStore } from '../../backends/object-store.ts';
import type { Outbox, OutboxEntry } from '../../registry/ports.ts';
import type { Logger } from '../core/logger.ts';
import type { Clock, Random } from '../core/time.ts';

const EVERY_MS = 3000;
const BATCH_ENTRIES = 2000;

export interface ArchiveWriter {
  /** Stores an object that must hold exactly this body, and reads it back. */
  put(bucket: string, name: string, body: { kind: 'bytes'; chunks: readonly Uint8Array[] }): Promise<void>;
}

export class NamespaceArchive {
  readonly #outbox: Outbox;
  readonly #store: ObjectStore;
  readonly #writer: ArchiveWriter;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #logger: Logger;
  readonly #bucket: string;
  #bucketMade = false;
  #problem: Error | null = null;
  #running: Promise<void> | null = null;
  #stopped = false;

  constructor(
    components: { outbox: Outbox; store: ObjectStore; writer: ArchiveWriter; clock: Clock; random: Random; logger: Logger },
    bucket: string,
  ) {
    this.#outbox = components.outbox;
    this.#store = components.store;
    this.#writer = components.writer;
    this.#clock = components.clock;
    this.#random = components.random;
    this.#logger = components.logger;
    this.#bucket = bucket;
  }

  get problem(): Error | null {
    return this.#problem;
  }

  start(): void {
    this.#clock.after(EVERY_MS, () => this.#round());
  }

  /** Archives what is pending, as far as the backend takes it, and ends. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  #round(): void {
    if (this.#stopped) return;
    this.#running = this.archive()
      .then(
        () => {
          this.#problem = null;
        },
        (error: unknown) => {
          const isNews = this.#problem === null;
          this.#problem = error as Error;
          this.#logger[isNews ? 'warn' : 'debug'](
            { err: error },
            'namespace changes could not be archived on the backend; they stay in the registry',
          );
        },
      )
      .finally(() => {
        this.#running = null;
        if (!this.#stopped) this.#clock.after(EVERY_MS, () => this.#round());
      });
  }

  /** Archives everything that is pending now. */
  async archive(): Promise<void> {
    for (;;) {
      const entries = await this.#outbox.pending(0, BATCH_ENTRIES);
      const first = entries[0];
      const last = entries.at(-1);
      if (first === undefined || last === undefined) return;
      if (!this.#bucketMade) {
        await this.#store.createBucket(this.#bucket);
        this.#bucketMade = true;
      }
      const sameGeneration = entries.filter((entry) => entry.generation === first.generation);
      const end = sameGeneration.at(-1) ?? last;
      // A batch that is sent again after a crash may say less (forgotten outcomes): names are never written twice, so it gets another one. Whoever
      // rebuilds goes by the sequences, of which every copy of a batch has the same.
      const name = `ns-${first.generation}-${pad(first.sequence)}-${pad(end.sequence)}-${this.#random.bytes(4).toString('hex')}`;
      await this.#writer.put(this.#bucket, name, { kind: 'bytes', chunks: [encodeBatch(sameGeneration)] });
      await this.#outbox.release(end.sequence);
      if (entries.length < BATCH_ENTRIES && sameGeneration.length === entries.length) return;
    }
  }
}

function encodeBatch(entries: readonly OutboxEntry[]): Buffer {
  const lines = entries.map((entry) => JSON.stringify({ ...entry, afterImage: JSON.parse(entry.afterImage) as unknown }));
  return Buffer.from(`${JSON.stringify({ format: 'vferry-namespace', version: 1, entries: entries.length })}\n${lines.join('\n')}\n`);
}

function pad(sequence: number): string {
  return String(sequence).padStart(16, '0');
}
