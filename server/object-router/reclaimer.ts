/**
 * Deletes what was removed: objects without a name keep their record as a tombstone until, after the grace time, every stored object and the bucket
 * are gone. Fails closed: any error leaves the tombstone for the next round (invariant 8).
 */
import { StoreError } from '../../backends/object-store.ts';
import type { ObjectStore } from '../../backends/object-store.ts';
import type { Inode } from '../../registry/inode.ts';
import type { Mutation, Namespace } from '../../registry/ports.ts';
import type { FileId, ObjectUuid } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import type { Clock } from '../core/time.ts';

const ROUND_MS_MAX = 30_000;
const PAGE = 500;

/** Names of an object on the backend. */
export interface ReclaimNames {
  /** Bucket, and the prefix of its names there; `ownBucket`: the bucket goes with it. */
  locate(inode: Inode, uuid: ObjectUuid): { readonly bucket: string; readonly prefix: string; readonly ownBucket: boolean };
}

export class Reclaimer {
  readonly #namespace: Namespace;
  readonly #store: ObjectStore;
  readonly #names: ReclaimNames;
  readonly #dropLocal: (uuid: ObjectUuid) => Promise<void>;
  readonly #ended: (fileid: FileId) => Promise<void>;
  readonly #mutation: () => Mutation;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #graceTimeMs: number;
  #pendingBytes = 0;
  #problem: Error | null = null;
  #running: Promise<void> | null = null;
  #stopped = false;

  constructor(
    components: {
      namespace: Namespace;
      store: ObjectStore;
      names: ReclaimNames;
      dropLocal: (uuid: ObjectUuid) => Promise<void>;
      /** Resolves when no upload of a removed object can still be under way. */
      ended: (fileid: FileId) => Promise<void>;
      mutation: () => Mutation;
      clock: Clock;
      logger: Logger;
    },
    graceTimeMs: number,
  ) {
    this.#namespace = components.namespace;
    this.#store = components.store;
    this.#names = components.names;
    this.#dropLocal = components.dropLocal;
    this.#ended = components.ended;
    this.#mutation = components.mutation;
    this.#clock = components.clock;
    this.#logger = components.logger;
    this.#graceTimeMs = graceTimeMs;
  }

  /** Bytes of removed objects that the backend still holds: they count as free. */
  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  get problem(): Error | null {
    return this.#problem;
  }

  start(): void {
    this.#round();
  }

  /** An object was just removed. */
  unlinked(inode: Inode): void {
    this.#pendingBytes += inode.usedBytes;
    if (inode.uuid !== null) {
      this.#dropLocal(inode.uuid).catch((error: unknown) =>
        this.#logger.error({ err: error, fileid: inode.fileid }, 'dropping the local data of a removed object failed'),
      );
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  #round(): void {
    if (this.#stopped) return;
    this.#running = this.#run()
      .then(
        () => {
          this.#problem = null;
        },
        (error: unknown) => {
          this.#problem = error as Error;
          this.#logger.warn({ err: error }, 'removed objects could not be deleted from the backend; it is tried again');
        },
      )
      .finally(() => {
        this.#running = null;
        this.#clock.after(Math.min(ROUND_MS_MAX, Math.max(500, this.#graceTimeMs / 4)), () => this.#round());
      });
  }

  async #run(): Promise<void> {
    let after = 0 as FileId;
    let waitingBytes = 0;
    for (;;) {
      const page = await this.#namespace.tombstones(after, PAGE);
      for (const { inode, sinceMs } of page) {
        if (this.#stopped) return;
        after = inode.fileid;
        if (this.#clock.wallMs() - sinceMs < this.#graceTimeMs) {
          waitingBytes += inode.usedBytes;
          // Done when it was removed, unless the router died in between: what is only here counts against the bound of dirty bytes.
          if (inode.uuid !== null) await this.#dropLocal(inode.uuid);
        } else await this.#reclaim(inode);
      }
      if (page.length < PAGE) break;
    }
    this.#pendingBytes = waitingBytes;
  }

  async #reclaim(inode: Inode): Promise<void> {
    if (inode.uuid !== null) {
      await this.#ended(inode.fileid);
      await this.#dropLocal(inode.uuid);
      const place = this.#names.locate(inode, inode.uuid);
      let after = '';
      for (;;) {
        const page = await this.#list(place.bucket, place.prefix, after);
        if (page.names.length > 0) await this.#store.deleteMany(place.bucket, page.names);
        after = page.names.at(-1) ?? after;
        if (!page.more) break;
      }
      if (place.ownBucket) await this.#store.deleteBucket(place.bucket);
    }
    await this.#namespace.dropTombstone(this.#mutation(), inode.fileid);
    this.#logger.debug({ fileid: inode.fileid, object: inode.uuid }, 'a removed object was deleted from the backend');
  }

  /** A bucket that was never made holds nothing. */
  async #list(bucket: string, prefix: string, after: string): Promise<{ names: string[]; more: boolean }> {
    try {
      return await this.#store.list(bucket, prefix, after, PAGE);
    } catch (error) {
      if (error instanceof StoreError && error.class === 'absent') return { names: [], more: false };
      throw error;
    }
  }
}
