/** What the parts of the object-router share: finding the object behind a handle, the context of registry verbs, errors. */
import type { Inode } from '../../registry/inode.ts';
import type { Mutation, Registry } from '../../registry/ports.ts';
import { errorCode } from '../core/errors.ts';
import type { FileId, Incarnation } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import { isPending } from '../core/maybe-promise.ts';
import type { Clock, Timestamp } from '../core/time.ts';
import { timestampOf } from '../core/time.ts';
import type { Attributes, Caller, ErrorStatus, Handle, Result, Wcc } from '../nfsd/file-system.ts';
import { Status } from '../nfsd/file-system.ts';
import { statusOfError } from './error-status.ts';
import type { HandleParts, Handles } from './handles.ts';
import { attributesOf, preAttributesOf } from './inode-attributes.ts';
import type { Everywhere, ObjectPlaces, Remote } from './object-places.ts';
import type { OpenObjects, ServedObject } from './open-objects.ts';

/** A verb of a client's call that was held up longer than this is not executed any more: before anybody may be told to come back (ObjectPlaces). */
const NOT_AFTER_MS = 30_000;
const REMOTES_MAX = 65_536;

export const NO_WCC: Wcc = { before: null, after: null };

/** An inode as the registry has it now, and what its owner knows better: its open object here, or attributes that another router told. */
export interface Found {
  readonly inode: Inode;
  readonly served: ServedObject | null;
  readonly told?: Attributes;
}

export interface RouterCoreComponents {
  readonly registry: Registry;
  readonly objects: OpenObjects;
  readonly handles: Handles;
  readonly places: ObjectPlaces;
  readonly clock: Clock;
  readonly logger: Logger;
}

export class RouterCore {
  readonly registry: Registry;
  readonly objects: OpenObjects;
  readonly handles: Handles;
  readonly places: ObjectPlaces;
  readonly clock: Clock;
  readonly fsid: bigint;
  readonly #logger: Logger;
  readonly #incarnation: Incarnation;
  /** Ways to other routers by fileid, with the handle that led there; forgotten all at once when full. */
  readonly #remotes = new Map<number, { readonly handle: Buffer; readonly remote: Remote }>();
  /** Objects that were not clean at the start are being opened: until that is done a closed object may know more than its record. */
  settled = false;

  constructor(components: RouterCoreComponents, identity: { fsid: bigint; incarnation: Incarnation }) {
    this.registry = components.registry;
    this.objects = components.objects;
    this.handles = components.handles;
    this.places = components.places;
    this.clock = components.clock;
    this.#logger = components.logger;
    this.fsid = identity.fsid;
    this.#incarnation = identity.incarnation;
  }

  now(): Timestamp {
    return timestampOf(this.clock.wallMs());
  }

  /** `step` tells the registry verbs of one call apart; null for what is idempotent. */
  mutation(caller: Caller | null, step = ''): Mutation {
    return {
      operationId: caller === null ? null : caller.operationId() + step,
      incarnation: this.#incarnation,
      now: this.now(),
      // What a client waits for must not take effect after it asked elsewhere.
      notAfterMs: caller === null || this.places.cluster === null ? Infinity : this.clock.wallMs() + NOT_AFTER_MS,
    };
  }

  /** The open object that a handle names, without asking anybody: the hot path. Null also while it is being given away, and without a lease. */
  served(handle: Handle): ServedObject | null {
    const served = this.objects.get(this.handles.peek(handle));
    return served !== undefined && served.ready && served.handle.equals(handle) && this.places.lease.valid ? served : null;
  }

  /** What a handle names. A status: BADHANDLE, STALE, or why it cannot be said now. */
  find(handle: Handle): MaybePromise<Found | ErrorStatus> {
    const served = this.served(handle);
    if (served !== null) return served.unlinked ? Status.STALE : { inode: served.inode, served };
    const parts = this.handles.decode(handle);
    if (parts === null) return Status.BADHANDLE;
    if (this.places.cluster !== null) return this.guard(() => this.#findAnywhere(parts));
    return this.guard(() => {
      const inode = this.registry.namespace.inode(parts.fileid, parts.inodeGeneration);
      return isPending(inode) ? inode.then((found) => this.#known(found)) : this.#known(inode);
    });
  }

  /** In a cluster: what the registry knows, and what the owner of an object says of it. */
  async #findAnywhere(parts: HandleParts): Promise<Found | ErrorStatus> {
    const { namespace } = this.registry;
    const inode = await namespace.inode(parts.fileid, parts.inodeGeneration);
    if (inode === null) return Status.STALE;
    if (inode.class === 'none' || inode.class === 'inline') return { inode, served: null };
    return this.places.run<Found>(parts, false, {
      here: (served) => ({ inode: served.inode, served }),
      there: async ({ peer, target }) => {
        const answer = await peer.getattr(target);
        if (answer.kind === 'not-owner') return answer;
        // Gone in between: the registry says so when it is asked again.
        return answer.result.status === Status.OK
          ? { kind: 'done', result: { inode, served: null, told: answer.result.attributes } }
          : { kind: 'not-owner', hint: null };
      },
      record: (found) => ({ inode: found, served: null }),
    });
  }

  #known(inode: Inode | null): MaybePromise<Found | ErrorStatus> {
    if (inode === null) return Status.STALE;
    if (inode.class === 'none' || inode.class === 'inline') return { inode, served: null };
    const served = this.objects.get(inode.fileid);
    if (served !== undefined) return served.unlinked ? Status.STALE : { inode: served.inode, served };
    if (this.settled && !this.objects.hasFailed(inode.fileid)) return { inode, served: null };
    return this.guard(async () => {
      const owner = await this.registry.ownership.owner(inode.fileid);
      if (owner === null || owner.protection.kind === 'clean') return { inode, served: null };
      const opened = await this.objects.open(inode.fileid);
      return opened === null ? Status.STALE : { inode: opened.inode, served: opened };
    });
  }

  /** The other router that is known to own what a handle names, without asking anybody: the hot path of forwarding. Null: look for it. */
  remote(handle: Handle): Remote | null {
    const { cluster } = this.places;
    const fileid = this.handles.peek(handle);
    const hint = cluster?.owners.get(fileid) ?? null;
    if (hint === null || !this.places.lease.valid) return null;
    if (this.objects.held(fileid) !== null || this.objects.get(fileid) !== undefined) return null;
    const known = this.#remotes.get(fileid);
    if (known !== undefined && known.remote.hint === hint && known.handle.equals(handle)) return this.places.lives(hint) ? known.remote : null;
    const parts = this.handles.decode(handle);
    const remote = parts === null ? null : this.places.remote(parts);
    if (remote === null) return null;
    if (this.#remotes.size >= REMOTES_MAX) this.#remotes.clear();
    this.#remotes.set(fileid, { handle: Buffer.from(handle), remote });
    return remote;
  }

  /** Does something where the object of a handle is; a status when that is BADHANDLE, STALE or has to wait. Opens what nobody has open. */
  async anywhere<T>(handle: Handle, everywhere: Everywhere<T>, open = true, startedMs = this.clock.monotonicMs()): Promise<T | ErrorStatus> {
    const parts = this.handles.decode(handle);
    if (parts === null) return Status.BADHANDLE;
    return this.guard<T>(() => this.places.run(parts, open, everywhere, startedMs));
  }

  /** GETATTR of what is known to be another router's, without asking the registry first; null when it is not. */
  askOwner(handle: Handle): Promise<Result<{ attributes: Attributes }>> | null {
    const { cluster } = this.places;
    if (cluster === null || cluster.owners.get(this.handles.peek(handle)) === null) return null;
    return this.anywhere<Result<{ attributes: Attributes }>>(
      handle,
      {
        here: (served) => ({ status: Status.OK, attributes: served.attributes() }),
        there: ({ peer, target }) => peer.getattr(target),
        record: (inode) => ({ status: Status.OK, attributes: attributesOf(inode, this.fsid, null) }),
      },
      false,
    ).then((answer) => (typeof answer === 'number' ? { status: answer } : answer));
  }

  /** Opens an object. */
  async open(fileid: FileId): Promise<Found | ErrorStatus> {
    return this.guard(async () => {
      const served = await this.objects.open(fileid);
      return served === null || served.unlinked ? Status.STALE : { inode: served.inode, served };
    });
  }

  /** Runs `work`; what the environment does wrong becomes a status, a bug stays a rejection. */
  guard<T>(work: () => MaybePromise<T | ErrorStatus>): MaybePromise<T | ErrorStatus> {
    try {
      const result = work();
      return isPending(result) ? result.catch((error: unknown) => this.failure(error)) : result;
    } catch (error) {
      return this.failure(error);
    }
  }

  /** Status of an error. Assertions and other bugs are thrown on. */
  failure(error: unknown): ErrorStatus {
    if (errorCode(error) === undefined && !(error instanceof Error && error.name === 'StoreError')) throw error;
    const status = statusOfError(error);
    if (status === Status.IO) this.#logger.error({ err: error }, 'an operation failed');
    else this.#logger.debug({ err: error, status }, 'an operation has to wait or was refused');
    return status;
  }

  attributes(found: Found): Attributes {
    return found.told ?? (found.served === null ? attributesOf(found.inode, this.fsid, null) : found.served.attributes());
  }

  /** Attributes of an inode that a registry verb gave; null when only an owner that is not open knows them. */
  attributesOfInode(inode: Inode): Attributes | null {
    if (inode.class === 'none' || inode.class === 'inline') return attributesOf(inode, this.fsid, null);
    const served = this.objects.get(inode.fileid);
    if (served !== undefined && served.ready) return served.unlinked ? null : served.attributes();
    if (this.places.cluster !== null) return null;
    return this.settled && !this.objects.hasFailed(inode.fileid) ? attributesOf(inode, this.fsid, null) : null;
  }

  /** As attributesOfInode for many, from whoever knows them: their owners are asked. Null where nobody says in time. */
  async attributesOfInodes(inodes: readonly Inode[]): Promise<(Attributes | null)[]> {
    const { cluster } = this.places;
    const known = inodes.map((inode) => this.attributesOfInode(inode));
    if (cluster === null) return known;
    const missing = inodes.filter((_, index) => known[index] === null);
    if (missing.length === 0) return known;
    const told = await this.places.attributesOf(missing, (inode) => attributesOf(inode, this.fsid, null));
    let next = 0;
    return known.map((attributes) => (attributes === null ? (told[next++] ?? null) : attributes));
  }

  /** The registry changed names, mode or owner of an inode: what serves it must say the same, here or elsewhere, before the client is answered. */
  async observe(inode: Inode): Promise<void> {
    if (this.objects.get(inode.fileid) !== undefined) this.objects.observe(inode);
    else if (this.places.cluster !== null && (inode.class === 'file' || inode.class === 'volume')) await this.places.inodeChanged(inode);
  }

  handleOf(inode: { readonly fileid: FileId; readonly inodeGeneration: number }): Buffer {
    return this.handles.encode(inode.fileid, inode.inodeGeneration);
  }

  /** wcc_data of a directory or another inode whose two images the registry gave. */
  wcc(before: Inode, after: Inode): Wcc {
    return { before: preAttributesOf(before), after: attributesOf(after, this.fsid, null) };
  }

  /** wcc_data of something that was not changed. */
  unchanged(found: Found | null): Wcc {
    if (found === null) return NO_WCC;
    const after = this.attributes(found);
    return { before: preAttributesOf(after), after };
  }

  unchangedInode(inode: Inode): Wcc {
    const after = this.attributesOfInode(inode);
    return after === null ? NO_WCC : { before: preAttributesOf(after), after };
  }
}
