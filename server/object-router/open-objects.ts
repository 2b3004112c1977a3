/**
 * The objects that are open in this router: one Map look-up by fileid leads an I/O to its object. Opens on demand, looks after what is open, closes
 * what is idle, and turns away what was removed.
 */
import type { Inode } from '../../registry/inode.ts';
import type { Namespace } from '../../registry/ports.ts';
import { assert } from '../core/assert.ts';
import { ApplianceError, errorCode, isEnvironmentError } from '../core/errors.ts';
import type { FileId } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import type { Clock } from '../core/time.ts';
import type { Attributes } from '../nfsd/file-system.ts';
import type { DrivenObject, ObjectDriver } from './driver-port.ts';
import type { GarbageSchedule } from './garbage-schedule.ts';
import { attributesOf } from './inode-attributes.ts';
import { IoCount } from './moves/io-count.ts';

/** Objects kept open although they are idle. */
const OPEN_MAX = 4096;
const TICK_MS = 1000;
/** Closed objects opened in a second because something of theirs may be deleted. */
const GARBAGE_OPENS_PER_TICK = 4;
/** Objects flushed at a time when the router stops. */
const FLUSH_AT_ONCE = 16;
/** How long objects may take to close once flushing is over; all that is left to do then is to sync logs. */
const CLOSE_MS_MAX = 1000;
/** Objects that could not be opened and are tried again at a time: each may have to read its whole open segment. */
const REOPENS_MAX = 4;
/** How soon an object that could not be opened may be tried again: a client's retries must not make it worse. */
const RETRY_OPEN_MS = 500;

/** An open object with what the registry says of its inode. */
export class ServedObject {
  readonly driven: DrivenObject;
  readonly handle: Buffer;
  inode: Inode;
  /** Removed: everybody gets STALE. */
  unlinked = false;
  /** False: it is held for a move, or not served here any more. Operations wait for `OpenObjects.held` and look again where the object is. */
  ready = true;
  /** Operations of this router's own clients, for the comparison with those that other routers forward. */
  readonly ownIo = new IoCount();
  readonly peerIo = new IoCount();
  /** Changes under way: a move waits for them. */
  changers = 0;
  /** Operations under way: it is not closed meanwhile. */
  users = 0;
  lastUse = 0;
  readonly #fsid: bigint;

  constructor(driven: DrivenObject, inode: Inode, handle: Buffer, fsid: bigint) {
    this.driven = driven;
    this.inode = inode;
    this.handle = handle;
    this.#fsid = fsid;
  }

  attributes(): Attributes {
    return attributesOf(this.inode, this.#fsid, this.driven.attributes());
  }
}

interface FailedOpen {
  readonly error: Error;
  readonly atMs: number;
}

export class OpenObjects {
  readonly #driver: ObjectDriver;
  readonly #namespace: Namespace;
  readonly #garbage: GarbageSchedule;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #cededCounter: (fileid: FileId) => number;
  readonly #isElsewhere: (fileid: FileId) => Promise<boolean>;
  readonly #handleOf: (inode: Inode) => Buffer;
  readonly #fsid: bigint;
  readonly #served = new Map<number, ServedObject>();
  readonly #opening = new Map<number, Promise<ServedObject | null>>();
  readonly #closing = new Map<number, Promise<void>>();
  readonly #failed = new Map<number, FailedOpen>();
  /** Those of them that are to be tried again, and how many are. */
  readonly #reopen = new Set<number>();
  #reopening = 0;
  /** Objects that are held for a move, open or not. */
  readonly #holds = new Map<number, PromiseWithResolvers<void>>();
  /** Fileids that were unlinked while they were being opened or closed. */
  readonly #gone = new Set<number>();
  #useCounter = 0;
  #stopTicks: (() => void) | null = null;
  #closed = false;

  constructor(
    components: {
      driver: ObjectDriver;
      namespace: Namespace;
      garbage: GarbageSchedule;
      clock: Clock;
      logger: Logger;
      /** Terms up to this counter were given away by this router and are never served again, whatever the registry says; 0: none. */
      cededCounter?: (fileid: FileId) => number;
      /** Whether the registry says that another router owns it. Default: nobody else does. */
      isElsewhere?: (fileid: FileId) => Promise<boolean>;
    },
    identity: { fsid: bigint; handleOf: (inode: Inode) => Buffer },
  ) {
    this.#driver = components.driver;
    this.#namespace = components.namespace;
    this.#garbage = components.garbage;
    this.#clock = components.clock;
    this.#logger = components.logger;
    this.#cededCounter = components.cededCounter ?? (() => 0);
    this.#isElsewhere = components.isElsewhere ?? (() => Promise.resolve(false));
    this.#handleOf = identity.handleOf;
    this.#fsid = identity.fsid;
    this.#scheduleTick();
  }

  get count(): number {
    return this.#served.size;
  }

  /** The object if it is open; the hot path. */
  get(fileid: number): ServedObject | undefined {
    return this.#served.get(fileid);
  }

  /** The last attempt to open it failed: what is true of it nobody knows. */
  hasFailed(fileid: number): boolean {
    return this.#failed.has(fileid);
  }

  /** What keeps open objects, or those that could not be opened, from being served or safe. */
  *problems(): Iterable<{ fileid: number; error: Error; closed: boolean }> {
    for (const [fileid, failed] of this.#failed) yield { fileid, error: failed.error, closed: true };
    for (const { driven } of this.#served.values())
      if (driven.problem !== null) yield { fileid: driven.fileid, error: driven.problem, closed: false };
  }

  /** The backend works again after it did not: nobody waits any longer. */
  backendRecovered(): void {
    for (const { driven, unlinked } of this.#served.values()) if (!unlinked && !driven.isClean) driven.backendRecovered();
    for (const [fileid, { error }] of this.#failed) if (error.name === 'StoreError') this.#reopen.add(fileid);
    this.#reopenNext();
  }

  /** All at once they would not fit in memory. Clients who ask for one do not wait for its turn. */
  #reopenNext(): void {
    while (this.#reopening < REOPENS_MAX && !this.#closed) {
      const [fileid] = this.#reopen;
      if (fileid === undefined) return;
      this.#reopen.delete(fileid);
      if (!this.#failed.has(fileid) || this.#opening.has(fileid)) continue;
      this.#reopening += 1;
      this.open(fileid as FileId)
        .catch(() => null)
        .finally(() => {
          this.#reopening -= 1;
          this.#reopenNext();
        });
    }
  }

  /** Opens an object of class file or volume; null when it does not exist any more. Rejects as ObjectDriver.open does. */
  async open(fileid: FileId): Promise<ServedObject | null> {
    const open = this.#served.get(fileid);
    if (open !== undefined) return open.unlinked ? null : open;
    const opening = this.#opening.get(fileid);
    if (opening !== undefined) return opening;
    const held = this.held(fileid);
    if (held !== null) {
      // Whose it is is being settled; it may be served here by then, without having been opened.
      await held;
      return this.open(fileid);
    }
    const failed = this.#failed.get(fileid);
    if (failed !== undefined && this.#clock.monotonicMs() - failed.atMs < RETRY_OPEN_MS) throw failed.error;
    if (this.#closed) throw new ApplianceError('object-closing', 'the router is shutting down', { retryable: true });
    const promise = this.#open(fileid);
    this.#opening.set(fileid, promise);
    try {
      const served = await promise;
      this.#failed.delete(fileid);
      return served;
    } catch (error) {
      const code = errorCode(error);
      if (code === 'object-gone') {
        this.#failed.delete(fileid);
        return null;
      }
      // It is another router's (taken over, perhaps, while it could not be opened here): nothing is wrong with it.
      if (code === 'not-owner' || code === 'fenced' || (code === 'object-recovering' && (await this.#isOthers(fileid)))) {
        this.#failed.delete(fileid);
        throw error;
      }
      if (!this.#failed.has(fileid)) this.#logger.error({ err: error, fileid }, 'an object could not be opened');
      this.#failed.set(fileid, { error: error as Error, atMs: this.#clock.monotonicMs() });
      throw error;
    } finally {
      this.#opening.delete(fileid);
    }
  }

  async #isOthers(fileid: FileId): Promise<boolean> {
    try {
      return await this.#isElsewhere(fileid);
    } catch (error) {
      // Asked again with the next attempt; until then it stays a problem.
      if (!isEnvironmentError(error)) throw error;
      return false;
    }
  }

  async #open(fileid: FileId): Promise<ServedObject | null> {
    await this.#closing.get(fileid);
    const inode = await this.#namespace.inode(fileid, null);
    if (inode === null) return null;
    const driven = await this.#driver.open(inode, this.#cededCounter(fileid));
    // Names and modes may have changed while the log was recovered.
    const current = await this.#namespace.inode(fileid, null);
    if (current === null || this.#gone.delete(fileid)) {
      await driven.close();
      return null;
    }
    return this.#serve(driven, current);
  }

  #serve(driven: DrivenObject, inode: Inode): ServedObject {
    // A kill may have lost the owner's copy of a ctime that a change of names or mode moved; the registry's is durable.
    driven.observeTime(inode.ctime);
    const served = new ServedObject(driven, inode, this.#handleOf(inode), this.#fsid);
    served.lastUse = ++this.#useCounter;
    served.ready = !this.#holds.has(driven.fileid);
    this.#served.set(driven.fileid, served);
    return served;
  }

  /** Operations of this object wait from here on, whether it is open or not, until the returned function is called. */
  hold(fileid: FileId): () => void {
    assert(!this.#holds.has(fileid), `object ${fileid} is held once`);
    const held = Promise.withResolvers<void>();
    this.#holds.set(fileid, held);
    const served = this.#served.get(fileid);
    if (served !== undefined) served.ready = false;
    return () => {
      if (this.#holds.get(fileid) !== held) return;
      this.#holds.delete(fileid);
      const now = this.#served.get(fileid);
      if (now !== undefined) now.ready = true;
      held.resolve();
    };
  }

  /** Resolves when its hold is over; null: it is not held. */
  held(fileid: number): Promise<void> | null {
    return this.#holds.get(fileid)?.promise ?? null;
  }

  /** Resolves when no opening or closing of it is under way. */
  async settled(fileid: FileId): Promise<void> {
    for (;;) {
      const busy = this.#opening.get(fileid) ?? this.#closing.get(fileid);
      if (busy === undefined) return;
      await Promise.allSettled([busy]);
    }
  }

  /** Serves an object that was received from another router. */
  adopt(driven: DrivenObject, inode: Inode): ServedObject {
    assert(!this.#served.has(inode.fileid) && !this.#opening.has(inode.fileid), `object ${inode.fileid} is served once`);
    this.#failed.delete(inode.fileid);
    return this.#serve(driven, inode);
  }

  /**
   * The object is not served here any more: it is another router's, or its term is over. It is closed once its readers are done, without telling anybody
   * anything; resolves then.
   */
  async giveUp(fileid: FileId): Promise<void> {
    this.#failed.delete(fileid);
    this.#reopen.delete(fileid);
    this.#garbage.note(fileid, null);
    const served = this.#served.get(fileid);
    if (served === undefined) return;
    this.#served.delete(fileid);
    served.ready = false;
    const closing = (async (): Promise<void> => {
      while (served.users > 0) await this.#clock.sleep(2);
      await served.driven.close();
    })()
      .catch((error: unknown) => this.#logger.error({ err: error, fileid }, 'closing an object that is not served here any more failed'))
      .finally(() => this.#closing.delete(fileid));
    this.#closing.set(fileid, closing);
    await closing;
  }

  /** Objects that are open here. */
  *all(): Iterable<ServedObject> {
    yield* this.#served.values();
  }

  /** The registry changed this inode: what is open must say the same. */
  observe(inode: Inode): void {
    const served = this.#served.get(inode.fileid);
    if (served === undefined) return;
    served.inode = inode;
    served.driven.observeTime(inode.ctime);
  }

  /** The last name is gone: from now on STALE. What still runs of it (an upload that hangs) ends by itself; `ended` tells when. */
  async unlink(fileid: FileId): Promise<void> {
    if (this.#opening.has(fileid)) {
      this.#gone.add(fileid);
      await this.#opening.get(fileid)?.catch(() => null);
      this.#gone.delete(fileid);
    }
    this.#failed.delete(fileid);
    const served = this.#served.get(fileid);
    if (served === undefined) return;
    served.unlinked = true;
    this.#garbage.note(fileid, null);
    this.#close(served).catch((error: unknown) => this.#logger.error({ err: error, fileid }, 'closing a removed object failed'));
  }

  /** Resolves when nothing of a removed object runs here any more. */
  async ended(fileid: FileId): Promise<void> {
    await this.#closing.get(fileid)?.catch(() => undefined);
  }

  async #close(served: ServedObject): Promise<void> {
    const { fileid } = served.driven;
    const running = this.#closing.get(fileid);
    if (running !== undefined) return running;
    const closing = (async (): Promise<void> => {
      while (served.users > 0) await this.#clock.sleep(2);
      if (!served.unlinked && (!served.driven.isClean || !served.ready) && !this.#closed) return;
      if (this.#served.get(fileid) !== served) return;
      this.#served.delete(fileid);
      served.ready = false;
      await served.driven.close();
    })().finally(() => this.#closing.delete(fileid));
    this.#closing.set(fileid, closing);
    await closing;
  }

  #scheduleTick(): void {
    this.#stopTicks = this.#clock.after(TICK_MS, () => {
      this.#tick();
      if (!this.#closed) this.#scheduleTick();
    });
  }

  #tick(): void {
    let idle = this.#served.size - OPEN_MAX;
    const nowMs = this.#clock.wallMs();
    const candidates: ServedObject[] = [];
    for (const served of this.#served.values()) {
      if (served.unlinked) continue;
      const dueMs = served.driven.garbageDueMs;
      this.#garbage.note(served.driven.fileid, dueMs);
      if (!served.driven.isClean || (dueMs !== null && dueMs <= nowMs)) served.driven.tick();
      else if (idle > 0 && served.users === 0) candidates.push(served);
    }
    candidates.sort((a, b) => a.lastUse - b.lastUse);
    for (const served of candidates) {
      if (idle <= 0) break;
      idle -= 1;
      this.#close(served).catch((error: unknown) =>
        this.#logger.error({ err: error, fileid: served.driven.fileid }, 'closing an idle object failed'),
      );
    }
    for (const fileid of this.#garbage.dueAt(nowMs, GARBAGE_OPENS_PER_TICK)) {
      if (this.#served.has(fileid)) continue;
      // Opening it puts it among those that are looked after; one that is gone has nothing to delete any more, its tombstone has.
      this.open(fileid).then(
        (served) => {
          if (served === null) this.#garbage.note(fileid, null);
        },
        (error: unknown) => {
          const code = errorCode(error);
          if (code !== 'not-owner' && code !== 'object-recovering') return;
          // The router that owns it deletes it. Nobody asked for it here: a crash left the hint.
          this.#garbage.note(fileid, null);
          this.#failed.delete(fileid);
        },
      );
    }
    void this.#garbage.save();
    for (const [fileid, failed] of this.#failed) {
      // Nobody asks for it any more, but what is wrong must not stay unseen, nor its data un-uploaded.
      if (this.#clock.monotonicMs() - failed.atMs > 10_000) this.#reopen.add(fileid);
    }
    this.#reopenNext();
  }

  /**
   * Flushes and closes everything, as far as `deadlineMs` (monotonic) allows. What is acknowledged is durable in the local logs already; what does not
   * reach the backend in time is uploaded after the next start.
   */
  async close(deadlineMs: number): Promise<void> {
    this.#closed = true;
    this.#stopTicks?.();
    const untilDeadline = (): Promise<void> => this.#clock.sleep(Math.max(0, deadlineMs - this.#clock.monotonicMs()));
    await Promise.race([Promise.allSettled(this.#opening.values()), untilDeadline()]);
    const all = [...this.#served.values()];
    const dirty = all.filter((served) => !served.driven.isClean);
    const flushSome = async (): Promise<void> => {
      for (let served = dirty.pop(); served !== undefined && this.#clock.monotonicMs() < deadlineMs; served = dirty.pop()) {
        const { driven } = served;
        await driven.flush(deadlineMs).catch((error: unknown) => {
          // The others still have time; this one goes on after the next start.
          this.#logger.warn({ err: error, fileid: driven.fileid }, 'an object could not be brought to the backend before the stop');
        });
      }
    };
    await Promise.race([Promise.allSettled(Array.from({ length: FLUSH_AT_ONCE }, flushSome)), untilDeadline()]);
    for (const { driven } of all) this.#garbage.note(driven.fileid, driven.garbageDueMs);
    await Promise.race([this.#garbage.save(), this.#clock.sleep(CLOSE_MS_MAX)]);
    this.#served.clear();
    const closing = all.map(({ driven }) =>
      driven.close().catch((error: unknown) => this.#logger.error({ err: error, fileid: driven.fileid }, 'closing an object at the stop failed')),
    );
    await Promise.race([Promise.all(closing), this.#clock.sleep(CLOSE_MS_MAX)]);
  }
}
