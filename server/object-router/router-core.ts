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
import type { Attributes, Caller, ErrorStatus, Handle, Wcc } from '../nfsd/file-system.ts';
import { Status } from '../nfsd/file-system.ts';
import { statusOfError } from './error-status.ts';
import type { Handles } from './handles.ts';
import { attributesOf, preAttributesOf } from './inode-attributes.ts';
import type { OpenObjects, ServedObject } from './open-objects.ts';

export const NO_WCC: Wcc = { before: null, after: null };

/** An inode as the registry has it now, and its open object when its owner knows better. */
export interface Found {
  readonly inode: Inode;
  readonly served: ServedObject | null;
}

export interface RouterCoreComponents {
  readonly registry: Registry;
  readonly objects: OpenObjects;
  readonly handles: Handles;
  readonly clock: Clock;
  readonly logger: Logger;
}

export class RouterCore {
  readonly registry: Registry;
  readonly objects: OpenObjects;
  readonly handles: Handles;
  readonly clock: Clock;
  readonly fsid: bigint;
  readonly #logger: Logger;
  readonly #incarnation: Incarnation;
  /** Objects that were not clean at the start are being opened: until that is done a closed object may know more than its record. */
  settled = false;

  constructor(components: RouterCoreComponents, identity: { fsid: bigint; incarnation: Incarnation }) {
    this.registry = components.registry;
    this.objects = components.objects;
    this.handles = components.handles;
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
      notAfterMs: Infinity,
    };
  }

  /** The open object that a handle names, without asking anybody: the hot path. */
  served(handle: Handle): ServedObject | null {
    const served = this.objects.get(this.handles.peek(handle));
    return served !== undefined && served.handle.equals(handle) ? served : null;
  }

  /** What a handle names. A status: BADHANDLE, STALE, or why it cannot be said now. */
  find(handle: Handle): MaybePromise<Found | ErrorStatus> {
    const served = this.served(handle);
    if (served !== null) return served.unlinked ? Status.STALE : { inode: served.inode, served };
    const parts = this.handles.decode(handle);
    if (parts === null) return Status.BADHANDLE;
    return this.guard(() => {
      const inode = this.registry.namespace.inode(parts.fileid, parts.inodeGeneration);
      return isPending(inode) ? inode.then((found) => this.#known(found)) : this.#known(inode);
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

  /** As `find`, and opened if it is an object of class file or volume. */
  async findOpen(handle: Handle): Promise<Found | ErrorStatus> {
    const found = await this.find(handle);
    if (typeof found === 'number' || found.served !== null || found.inode.class === 'none' || found.inode.class === 'inline') return found;
    return this.open(found.inode.fileid);
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
    return found.served === null ? attributesOf(found.inode, this.fsid, null) : found.served.attributes();
  }

  /** Attributes of an inode that a registry verb gave; null when only an owner that is not open knows them. */
  attributesOfInode(inode: Inode): Attributes | null {
    if (inode.class === 'none' || inode.class === 'inline') return attributesOf(inode, this.fsid, null);
    const served = this.objects.get(inode.fileid);
    if (served !== undefined) return served.unlinked ? null : served.attributes();
    return this.settled && !this.objects.hasFailed(inode.fileid) ? attributesOf(inode, this.fsid, null) : null;
  }

  handleOf(inode: Inode): Buffer {
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
