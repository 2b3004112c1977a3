/**
 * Where an object is (design section 4): open here, at another router, or with nobody, so that its record says all. Sends what a client asks for to that
 * place and follows the object when it moves meanwhile: an operation is held or sent again, never failed, because the owner changes.
 */
import type { Inode } from '../../registry/inode.ts';
import type { OwnerRecord, Registry } from '../../registry/ports.ts';
import { ApplianceError, errorCode } from '../core/errors.ts';
import type { FileId } from '../core/ids.ts';
import { sameTerm } from '../core/ids.ts';
import type { Lease } from '../core/lease.ts';
import type { Clock } from '../core/time.ts';
import type { Attributes } from '../nfsd/file-system.ts';
import { Status } from '../nfsd/file-system.ts';
import { statusOfError } from './error-status.ts';
import type { OpenObjects, ServedObject } from './open-objects.ts';
import type { OwnerCache } from './owner-cache.ts';
import type { Forwarded, Members, ObjectTarget, OwnerHint, PeerNetwork, PeerService } from './peer-port.ts';
import type { Repetitions } from './repetitions.ts';

/** A client that waited this long is asked to come back (libnfs gives a call up after 60 s). Long, since not every client takes that for less than an error. */
const PATIENCE_MS = 40_000;
/**
 * At this age a call that changes something is not begun any more (design section 10 [!]). Who is told to come back comes with another xid, which no memory of
 * completed calls can tell from the first one: by then, PATIENCE_MS, no copy of the call may be on its way anywhere, or it would put old bytes over newer ones.
 * The wire takes 8 s at most: 5 until it is sent, 3 on its way.
 */
const BEGIN_MS_MAX = 30_000;
/** A look at the registry, one at what it said, and one more for what changed meanwhile. */
const LOOKS_AT_ONCE = 3;
const RETRY_MS_FIRST = 5;
const RETRY_MS_MAX = 250;
/** For attributes in a directory listing: rather none than a listing that hangs. */
const LISTING_PATIENCE_MS = 500;
const TARGETS_MAX = 4096;
/** Owners that are still to be told of a change that was answered, and how often that is tried. */
const LATE_MAX = 1024;
const LATE_RETRY_MS = 2000;

/** What a router of a cluster has besides what every router has. */
export interface ClusterParts {
  readonly members: Members;
  readonly network: PeerNetwork;
  readonly owners: OwnerCache;
  readonly repetitions: Repetitions;
  /** A forwarded READ or WRITE was answered: for the decision to move the object here. Returns at once. */
  forwarded(object: { readonly fileid: FileId; readonly inodeGeneration: number }, kind: 'read' | 'write', hint: OwnerHint): void;
}

/** What a handle names. */
export interface ObjectKey {
  readonly fileid: FileId;
  readonly inodeGeneration: number;
}

export interface Remote {
  readonly peer: PeerService;
  readonly target: ObjectTarget;
  readonly hint: OwnerHint;
}

export type Place =
  | { readonly kind: 'here'; readonly served: ServedObject }
  | { readonly kind: 'there'; readonly remote: Remote }
  /** Its record says all that is to be known: a directory, a symlink, an inline file, or an object that nobody has open and that nothing is missing of. */
  | { readonly kind: 'record'; readonly inode: Inode };

/** What is done where the object is. `here` answers null when it was not done because the object is being given away. */
export interface Everywhere<T> {
  /** It must not be done late: an older state would be put over a newer one. */
  readonly isChange?: true;
  here(served: ServedObject): T | null | Promise<T | null>;
  there(remote: Remote): Forwarded<T> | Promise<Forwarded<T>>;
  record(inode: Inode): T | null | Promise<T | null>;
}

export class ObjectPlaces {
  readonly cluster: ClusterParts | null;
  readonly lease: Lease;
  readonly #registry: Registry;
  readonly #objects: OpenObjects;
  readonly #clock: Clock;
  /** Objects whose owner is gone and whose data is not all on the backend, and why they wait: until their router is back. */
  readonly recovering = new Map<FileId, string>();
  #late = 0;

  constructor(components: { registry: Registry; objects: OpenObjects; clock: Clock; lease: Lease; cluster: ClusterParts | null }) {
    this.#registry = components.registry;
    this.#objects = components.objects;
    this.#clock = components.clock;
    this.lease = components.lease;
    this.cluster = components.cluster;
  }

  /**
   * Where it is now. `open`: one that nobody serves is opened here, instead of `record`. A status: STALE. Rejects with ApplianceError
   * `object-recovering`, `lease-lapsed` and as registry and driver do.
   */
  async find(object: ObjectKey, open: boolean): Promise<Place | typeof Status.STALE> {
    const { fileid, inodeGeneration } = object;
    const startedMs = this.#clock.monotonicMs();
    for (let looks = 0; ; looks += 1) {
      if (looks > LOOKS_AT_ONCE) {
        // What is known here and what the registry says do not fit: it is being repaired, or somebody is about to be declared dead.
        await this.#clock.sleep(Math.min(RETRY_MS_MAX, RETRY_MS_FIRST * looks));
        if (this.#clock.monotonicMs() - startedMs > PATIENCE_MS) {
          throw new ApplianceError('peer-unavailable', `nobody could say where object ${fileid} is`, { retryable: true });
        }
      }
      this.checkLease();
      const held = this.#objects.held(fileid);
      if (held !== null) {
        await this.#patiently(fileid, held);
        continue;
      }
      const served = this.#objects.get(fileid);
      if (served !== undefined) {
        if (served.unlinked || served.inode.inodeGeneration !== inodeGeneration) return Status.STALE;
        return { kind: 'here', served };
      }
      const known = this.remote(object);
      if (known !== null) return { kind: 'there', remote: known };
      const inode = await this.#registry.namespace.inode(fileid, inodeGeneration);
      if (inode === null) return Status.STALE;
      if (inode.class === 'none' || inode.class === 'inline') return { kind: 'record', inode };
      const owner = await this.#registry.ownership.owner(fileid);
      const whose = this.#whose(owner);
      if (!open && owner?.protection.kind === 'clean' && !this.#objects.hasFailed(fileid)) {
        // Whoever owns it had written nothing that the record does not know when the owner's record was read: what the inode says after that is true.
        this.recovering.delete(fileid);
        const now = await this.#registry.namespace.inode(fileid, inodeGeneration);
        return now === null ? Status.STALE : { kind: 'record', inode: now };
      }
      if (whose === 'other') {
        this.recovering.delete(fileid);
        this.cluster?.owners.learn(fileid, owner as OwnerRecord);
        continue;
      }
      if (whose === 'dead' && owner !== null && owner.protection.kind !== 'clean') throw this.#wait(owner);
      this.recovering.delete(fileid);
      if (!open && owner === null) return { kind: 'record', inode };
      try {
        if ((await this.#objects.open(fileid)) === null) return Status.STALE;
      } catch (error) {
        const code = errorCode(error);
        if (code !== 'not-owner' && code !== 'fenced') throw error;
        // Somebody else was faster.
        await this.#clock.sleep(RETRY_MS_FIRST);
      }
    }
  }

  /** A hold that does not end is for the client to come back to. */
  async #patiently(fileid: FileId, held: Promise<void>): Promise<void> {
    const over = Promise.withResolvers<'over'>();
    const cancel = this.#clock.after(PATIENCE_MS, () => over.resolve('over'));
    const outcome = await Promise.race([held, over.promise]);
    cancel();
    if (outcome === 'over')
      throw new ApplianceError('object-held', `object ${fileid} is changing its owner for longer than a client waits`, { retryable: true });
  }

  #whose(owner: OwnerRecord | null): 'nobody' | 'mine' | 'other' | 'dead' {
    if (owner === null) return 'nobody';
    const { cluster } = this;
    if (cluster === null || owner.router === cluster.members.self) return 'mine';
    return cluster.members.isDead(owner.router, owner.incarnation) ? 'dead' : 'other';
  }

  #wait(owner: OwnerRecord): ApplianceError {
    const reason = `its router ${owner.router} is away and has writes that are not on the backend; it goes on by itself when that router is back`;
    this.recovering.set(owner.fileid, reason);
    return new ApplianceError('object-recovering', `object ${owner.fileid}: ${reason}`, { retryable: true });
  }

  /** The cached owner, if it is another router that lives: where an operation is sent without asking anybody. */
  remote(object: ObjectKey): Remote | null {
    const { cluster } = this;
    const hint = cluster?.owners.get(object.fileid) ?? null;
    if (cluster === null || hint === null) return null;
    if (!this.lives(hint)) {
      if (hint.router !== cluster.members.self) cluster.owners.disprove(object.fileid, hint);
      return null;
    }
    return { peer: cluster.network.peer(hint.router), target: { ...object, term: hint.term }, hint };
  }

  /** Whether it names another router that is not dead. */
  lives({ router, incarnation }: OwnerHint): boolean {
    const { members } = this.cluster as ClusterParts;
    return router !== members.self && !members.isDead(router, incarnation);
  }

  /**
   * What a change is answered that was done, perhaps, without a lease at its end: nothing, ever. JUKEBOX would bring it again under another xid, which no memory
   * could tell from the first. The process image is about to be replaced, and with it the client's connection.
   */
  noAnswer(): Promise<never> {
    return new Promise(() => undefined);
  }

  /** @throws ApplianceError `lease-lapsed`. */
  checkLease(): void {
    if (!this.lease.valid) throw new ApplianceError('lease-lapsed', 'this router lost its lease and is starting anew', { retryable: true });
  }

  /** Does something where the object is, wherever it goes meanwhile. Null from `record`: look again. Rejects as `find`, or when it took too long. */
  async run<T>(object: ObjectKey, open: boolean, everywhere: Everywhere<T>, startedMs = this.#clock.monotonicMs()): Promise<T | typeof Status.STALE> {
    let waitMs = RETRY_MS_FIRST;
    const isOver = (): boolean => this.#clock.monotonicMs() - startedMs > PATIENCE_MS;
    for (;;) {
      let place: Place | typeof Status.STALE;
      try {
        place = await this.find(object, open);
      } catch (error) {
        // Its router may just be starting again: a client is told to come back only when that takes long (and not before, see BEGIN_MS_MAX).
        if (isOver() || !this.#isWorthWaiting(error)) throw error;
        await this.#clock.sleep(RETRY_MS_MAX);
        continue;
      }
      if (typeof place === 'number') return place;
      if (everywhere.isChange === true && this.cluster !== null && this.#clock.monotonicMs() - startedMs > BEGIN_MS_MAX) {
        await this.#clock.sleep(Math.max(0, startedMs + PATIENCE_MS - this.#clock.monotonicMs()));
        throw new ApplianceError('peer-unavailable', `object ${object.fileid} was not reached in time`, { retryable: true });
      }
      if (place.kind === 'there') {
        const answer = await this.#ask(place.remote, object, (remote) => everywhere.there(remote));
        if (answer !== null) return answer.result;
      } else {
        const done = place.kind === 'here' ? await everywhere.here(place.served) : await everywhere.record(place.inode);
        // An answer that rests on ownership is given only by who owns it when it is given.
        if (!this.lease.valid && everywhere.isChange === true) return this.noAnswer();
        this.checkLease();
        if (done !== null) return done;
        // Refused because it is about to be held, or is given up just now.
        if (place.kind === 'here' && this.#objects.held(object.fileid) === null) await this.#clock.sleep(1);
      }
      if (isOver()) {
        throw new ApplianceError('peer-unavailable', `object ${object.fileid} could not be reached for ${PATIENCE_MS} ms`, { retryable: true });
      }
      if (place.kind === 'there') {
        await this.#clock.sleep(waitMs);
        waitMs = Math.min(RETRY_MS_MAX, waitMs * 2);
      }
    }
  }

  #isWorthWaiting(error: unknown): boolean {
    const code = errorCode(error);
    if (code === 'object-recovering') return true;
    return this.cluster !== null && statusOfError(error) === Status.JUKEBOX && code !== 'lease-lapsed' && code !== 'object-closing';
  }

  /** Null: it has to be looked for again. */
  async #ask<T>(
    remote: Remote,
    object: ObjectKey,
    there: (remote: Remote) => Forwarded<T> | Promise<Forwarded<T>>,
  ): Promise<{ readonly result: T } | null> {
    const cluster = this.cluster as ClusterParts;
    let answer: Forwarded<T>;
    try {
      answer = await there(remote);
    } catch (error) {
      if (errorCode(error) !== 'peer-unavailable') throw error;
      // It may have lost the object, or be dead: the registry knows.
      cluster.owners.disprove(object.fileid, remote.hint);
      return null;
    }
    if (answer.kind === 'done') return answer;
    this.notOwner(remote, answer.hint);
    return null;
  }

  /** The asked router is not the owner in that term; `hint`: what it knows. */
  notOwner({ target, hint: wrong }: Remote, hint: OwnerHint | null): void {
    const cluster = this.cluster as ClusterParts;
    cluster.owners.disprove(target.fileid, wrong);
    if (hint !== null && !sameTerm(hint.term, wrong.term)) cluster.owners.learn(target.fileid, hint);
  }

  /** Attributes of an inode that the registry gave, from whoever knows them; null when nobody says in time. */
  async attributesOf(inodes: readonly Inode[], ofRecord: (inode: Inode) => Attributes): Promise<(Attributes | null)[]> {
    const { cluster } = this;
    const answers: (Attributes | null)[] = Array.from({ length: inodes.length }, () => null);
    const asked = new Map<PeerService, { readonly index: number; readonly target: ObjectTarget }[]>();
    await Promise.all(
      inodes.map(async (inode, index) => {
        try {
          const place = await this.find(inode, false);
          if (typeof place === 'number') return;
          if (place.kind === 'here') answers[index] = place.served.attributes();
          else if (place.kind === 'record') answers[index] = ofRecord(place.inode);
          else {
            const { peer, target } = place.remote;
            const list = asked.get(peer);
            if (list === undefined) asked.set(peer, [{ index, target }]);
            else list.push({ index, target });
          }
        } catch (error) {
          if (errorCode(error) === undefined) throw error;
        }
      }),
    );
    if (cluster === null || asked.size === 0) return answers;
    const asking = [...asked].map(async ([peer, wanted]) => {
      for (let from = 0; from < wanted.length; from += TARGETS_MAX) {
        const part = wanted.slice(from, from + TARGETS_MAX);
        try {
          const got = await peer.attributesOf(part.map(({ target }) => target));
          part.forEach(({ index }, at) => {
            answers[index] = got[at] ?? null;
          });
        } catch (error) {
          if (errorCode(error) === undefined) throw error;
        }
      }
    });
    await Promise.race([Promise.all(asking), this.#clock.sleep(LISTING_PATIENCE_MS)]);
    return answers;
  }

  /**
   * The registry changed names, mode or state of an object: its owner must know before the client is answered. Resolves when the owner confirmed, or cannot
   * serve it any more; or after PATIENCE_MS, when the owner lives and only the way to it is cut. The change is done, and a client that were told to come back would
   * find nothing to remove or rename: by then the owner has found the tombstone itself (InodeWatch), and is told the rest when it can be reached, or finds it.
   */
  async inodeChanged(inode: Inode): Promise<void> {
    if (this.cluster === null) return;
    let isLate = false;
    const over = Promise.withResolvers<'late'>();
    const cancel = this.#clock.after(PATIENCE_MS, () => over.resolve('late'));
    const telling = this.#tell(this.cluster, inode.fileid, () => isLate);
    try {
      if ((await Promise.race([telling, over.promise])) !== 'late') return;
    } finally {
      cancel();
    }
    isLate = true;
    this.#late += 1;
    telling
      .catch((error: unknown) => {
        // It cannot be told any more: this router is on its way out.
        if (errorCode(error) === undefined) throw error;
      })
      .finally(() => {
        this.#late -= 1;
      });
  }

  async #tell(cluster: ClusterParts, fileid: FileId, isLate: () => boolean): Promise<void> {
    let known: OwnerRecord | null = null;
    for (let waitMs = RETRY_MS_FIRST; ; waitMs = Math.min(RETRY_MS_MAX, waitMs * 2)) {
      // A tombstone that was dropped meanwhile takes the record with it; who served the object still has to be told.
      const owner: OwnerRecord | null = (await this.#owner(fileid)) ?? known;
      known = owner;
      if (owner === null || owner.router === cluster.members.self) return;
      if (cluster.members.isDead(owner.router, owner.incarnation)) return;
      try {
        await cluster.network.peer(owner.router).inodeChanged(fileid);
        return;
      } catch (error) {
        // The owner may not reach the registry just now.
        if (!this.#isWorthWaiting(error)) throw error;
      }
      if (isLate() && (!this.lease.valid || this.#late > LATE_MAX)) return;
      await this.#clock.sleep(isLate() ? LATE_RETRY_MS : waitMs);
    }
  }

  /** Tombstones keep their owner record: also asked for what is unlinked. */
  async #owner(fileid: FileId): Promise<OwnerRecord | null> {
    for (;;) {
      try {
        return await this.#registry.ownership.owner(fileid);
      } catch (error) {
        if (errorCode(error) !== 'registry-unavailable') throw error;
        await this.#clock.sleep(RETRY_MS_MAX);
      }
    }
  }
}
