/**
 * Deletes what was removed: objects without a name keep their record as a tombstone until, after the grace time, every stored object and the bucket
 * are gone. Fails closed: any error leaves the tombstone for the next round (invariant 8).
 *
 * A listing is no proof of absence: it may lag behind puts, requests that were given up may still have their effect, and a bucket may be "not there"
 * for a moment. So on a store that is not known to be consistent a tombstone goes only after listings have been empty for the settle time.
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
/** Objects in a row that could not be deleted, after which a round ends: more of them would only wait for the same backend. */
const FAILURES_MAX = 3;
/** Empty listings, spread over the settle time, that are believed. */
const LOOKS_MIN = 3;

/** Names of an object on the backend. */
export interface ReclaimNames {
  /** Bucket, and the prefix of its names there; `ownBucket`: the bucket goes with it. */
  locate(inode: Inode, uuid: ObjectUuid): { readonly bucket: string; readonly prefix: string; readonly ownBucket: boolean };
}

export interface ReclaimSettings {
  /** What was removed stays on the backend so long. */
  readonly graceTimeMs: number;
  /** How long listings must have been empty before they are believed. 0: a listing shows what is there. */
  readonly settleMs: number;
}

export class Reclaimer {
  readonly #namespace: Namespace;
  readonly #store: ObjectStore;
  readonly #names: ReclaimNames;
  readonly #dropLocal: (uuid: ObjectUuid) => Promise<void>;
  readonly #unlink: (fileid: FileId) => Promise<void>;
  readonly #mayDelete: () => boolean;
  readonly #ended: (fileid: FileId) => Promise<void>;
  readonly #mutation: () => Mutation;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #settings: ReclaimSettings;
  /** Objects of which nothing is listed any more: since when (monotonic), and how often that was seen. After a restart it is seen anew. */
  readonly #empty = new Map<FileId, { readonly sinceMs: number; looks: number }>();
  #pendingBytes = 0;
  #problem: Error | null = null;
  #running: Promise<void> | null = null;
  #cancelNext: () => void = () => undefined;
  #stopped = false;

  constructor(
    components: {
      namespace: Namespace;
      store: ObjectStore;
      names: ReclaimNames;
      dropLocal: (uuid: ObjectUuid) => Promise<void>;
      /** Stops serving an object that another router removed, if its word of that was lost. */
      unlink: (fileid: FileId) => Promise<void>;
      /** False: another router of the cluster deletes from the backend. */
      mayDelete: () => boolean;
      /** Resolves when no upload of a removed object can still be under way. */
      ended: (fileid: FileId) => Promise<void>;
      mutation: () => Mutation;
      clock: Clock;
      logger: Logger;
    },
    settings: ReclaimSettings,
  ) {
    this.#namespace = components.namespace;
    this.#store = components.store;
    this.#names = components.names;
    this.#dropLocal = components.dropLocal;
    this.#unlink = components.unlink;
    this.#mayDelete = components.mayDelete;
    this.#ended = components.ended;
    this.#mutation = components.mutation;
    this.#clock = components.clock;
    this.#logger = components.logger;
    this.#settings = settings;
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

  /** The backend works again after it did not: what failed is tried now. */
  backendRecovered(): void {
    if (this.#problem === null || this.#running !== null) return;
    this.#cancelNext();
    this.#round();
  }

  #round(): void {
    if (this.#stopped) return;
    this.#running = this.#run()
      .then(
        () => {
          this.#problem = null;
        },
        (error: unknown) => {
          const isNews = this.#problem === null;
          this.#problem = error as Error;
          this.#logger[isNews ? 'warn' : 'debug']({ err: error }, 'removed objects could not be deleted from the backend; it is tried again');
        },
      )
      .finally(() => {
        this.#running = null;
        this.#cancelNext = this.#clock.after(this.#pauseMs(), () => this.#round());
      });
  }

  #pauseMs(): number {
    const pauseMs = Math.min(ROUND_MS_MAX, Math.max(500, this.#settings.graceTimeMs / 4));
    return this.#empty.size > 0 ? Math.min(pauseMs, Math.max(500, this.#settings.settleMs / 4)) : pauseMs;
  }

  async #run(): Promise<void> {
    let after = 0 as FileId;
    let waitingBytes = 0;
    let failure: unknown = null;
    let failuresInARow = 0;
    for (;;) {
      const page = await this.#namespace.tombstones(after, PAGE);
      for (const { inode, sinceMs } of page) {
        if (this.#stopped) return;
        after = inode.fileid;
        await this.#unlink(inode.fileid);
        if (this.#clock.wallMs() - sinceMs < this.#settings.graceTimeMs) {
          waitingBytes += inode.usedBytes;
          // Done when it was removed, unless the router died in between: what is only here counts against the bound of dirty bytes.
          if (inode.uuid !== null) await this.#dropLocal(inode.uuid);
          continue;
        }
        if (!this.#mayDelete()) continue;
        try {
          await this.#reclaim(inode);
          failuresInARow = 0;
        } catch (error) {
          // One that cannot be deleted must not keep the others from it.
          failure ??= error;
          failuresInARow += 1;
          if (failuresInARow >= FAILURES_MAX) throw failure;
        }
      }
      if (page.length < PAGE) break;
    }
    this.#pendingBytes = waitingBytes;
    if (failure !== null) throw failure;
  }

  async #reclaim(inode: Inode): Promise<void> {
    const { fileid, uuid } = inode;
    if (uuid !== null && !(await this.#isGone(inode, uuid))) return;
    await this.#namespace.dropTombstone(this.#mutation(), fileid);
    this.#empty.delete(fileid);
    this.#logger.debug({ fileid, object: uuid }, 'a removed object was deleted from the backend');
  }

  /** Deletes what is listed of the object. True when nothing of it is there, as far as the store can be believed. */
  async #isGone(inode: Inode, uuid: ObjectUuid): Promise<boolean> {
    const { fileid } = inode;
    const { settleMs } = this.#settings;
    const nowMs = this.#clock.monotonicMs();
    const empty = this.#empty.get(fileid);
    if (empty !== undefined && nowMs - empty.sinceMs < (settleMs * empty.looks) / (LOOKS_MIN - 1)) return false;
    await this.#ended(fileid);
    await this.#dropLocal(uuid);
    const place = this.#names.locate(inode, uuid);
    try {
      const found = await this.#deleteListed(place.bucket, place.prefix);
      if (settleMs > 0) {
        if (found) this.#empty.delete(fileid);
        else if (empty === undefined) this.#empty.set(fileid, { sinceMs: nowMs, looks: 1 });
        else empty.looks += 1;
        if ((this.#empty.get(fileid)?.looks ?? 0) < LOOKS_MIN) return false;
      }
      if (place.ownBucket) await this.#store.deleteBucket(place.bucket);
      return true;
    } catch (error) {
      // Also a bucket that is not empty although nothing is listed.
      this.#empty.delete(fileid);
      throw error;
    }
  }

  /** Whether anything was listed. */
  async #deleteListed(bucket: string, prefix: string): Promise<boolean> {
    let after = '';
    for (let found = false; ;) {
      const page = await this.#list(bucket, prefix, after);
      if (page.names.length > 0) await this.#store.deleteMany(bucket, page.names);
      found ||= page.names.length > 0;
      after = page.names.at(-1) ?? after;
      if (!page.more) return found;
    }
  }

  /** A bucket that is not there holds nothing, as far as can be seen now. */
  async #list(bucket: string, prefix: string, after: string): Promise<{ names: string[]; more: boolean }> {
    try {
      return await this.#store.list(bucket, prefix, after, PAGE);
    } catch (error) {
      if (error instanceof StoreError && error.class === 'absent') return { names: [], more: false };
      throw error;
    }
  }
}
