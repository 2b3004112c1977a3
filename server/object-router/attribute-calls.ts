/** GETATTR, SETATTR, ACCESS, READLINK, FSSTAT, FSINFO, PATHCONF. */
import type { Inode } from '../../registry/inode.ts';
import { errorCode } from '../core/errors.ts';
import { isPending } from '../core/maybe-promise.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import { compareTimestamp } from '../core/time.ts';
import type { Timestamp } from '../core/time.ts';
import type {
  AttributedResult,
  Attributes,
  Caller,
  ErrorStatus,
  FsInfo,
  FsStat,
  Handle,
  Result,
  SetAttributes,
  Wcc,
  WccResult,
} from '../nfsd/file-system.ts';
import { Status } from '../nfsd/file-system.ts';
import { answeredAgain, flipToFile } from './data-calls.ts';
import { grantedAccess, maySetAttributes, preAttributesOf } from './inode-attributes.ts';
import type { Rights } from './inode-attributes.ts';
import type { ServedObject } from './open-objects.ts';
import { peerCaller } from './peer-caller.ts';
import { wordsOfText } from './repetitions.ts';
import type { CallWords, Repetitions } from './repetitions.ts';
import type { RouterCore } from './router-core.ts';
import { NO_WCC } from './router-core.ts';

const MIB = 1024 * 1024;
const LINK_MAX = 32_000;
/** FSF3_LINK | FSF3_SYMLINK | FSF3_HOMOGENEOUS | FSF3_CANSETTIME, RFC 1813 §3.3.19. */
const PROPERTIES = 0x1b;
const FILES_MAX = 2 ** 40;

/** Space of the datastore, kept up to date by somebody else: answering must never wait for a backend. */
export interface Capacity {
  readonly totalBytes: number;
  readonly freeBytes: number;
}

export class AttributeCalls {
  readonly #core: RouterCore;
  readonly #capacity: () => Capacity;
  readonly #fileSizeMaxBytes: number;

  constructor(core: RouterCore, capacity: () => Capacity, fileSizeMaxBytes: number) {
    this.#core = core;
    this.#capacity = capacity;
    this.#fileSizeMaxBytes = fileSizeMaxBytes;
  }

  getattr(handle: Handle): MaybePromise<Result<{ attributes: Attributes }>> {
    const served = this.#core.served(handle);
    if (served !== null) return served.unlinked ? { status: Status.STALE } : { status: Status.OK, attributes: served.attributes() };
    const told = this.#core.askOwner(handle);
    if (told !== null) return told;
    return map(this.#core.find(handle), (found) =>
      typeof found === 'number' ? { status: found } : { status: Status.OK, attributes: this.#core.attributes(found) },
    );
  }

  access(caller: Caller, handle: Handle, mask: number): MaybePromise<AttributedResult<{ granted: number; attributes: Attributes | null }>> {
    return map(this.#core.find(handle), (found) =>
      typeof found === 'number'
        ? { status: found, attributes: null }
        : { status: Status.OK, granted: grantedAccess(found.inode, caller, mask), attributes: this.#core.attributes(found) },
    );
  }

  readlink(handle: Handle): MaybePromise<AttributedResult<{ target: Uint8Array; attributes: Attributes | null }>> {
    return map(this.#core.find(handle), (found) => {
      if (typeof found === 'number') return { status: found, attributes: null };
      const target = found.inode.symlinkTarget;
      const attributes = this.#core.attributes(found);
      return target === null ? { status: Status.INVAL, attributes } : { status: Status.OK, target, attributes };
    });
  }

  async setattr(caller: Caller, handle: Handle, changes: SetAttributes, guardCtime: Timestamp | null): Promise<WccResult> {
    const words = this.#core.places.cluster === null ? null : wordsOfText(caller.operationId());
    const answer = await this.#core.anywhere<WccResult>(
      handle,
      {
        isChange: true,
        here: (served) => this.changeServed(caller, served, changes, guardCtime, words),
        there: (remote) => remote.peer.setattr(remote.target, peerCaller(caller, caller.operationId()), changes, guardCtime),
        record: (inode) => this.#changeRecord(caller, inode, changes, guardCtime),
      },
      changes.sizeBytes !== null || changes.atime !== null || changes.mtime !== null,
    );
    return typeof answer === 'number' ? { status: answer, wcc: NO_WCC } : answer;
  }

  #refused(caller: Rights, inode: Inode, changes: SetAttributes): ErrorStatus | null {
    if (!maySetAttributes(inode, caller, changes)) return changes.sizeBytes === null ? Status.PERM : Status.ACCES;
    if (changes.sizeBytes !== null) {
      if (inode.type !== 'file') return inode.type === 'directory' ? Status.ISDIR : Status.INVAL;
      if (changes.sizeBytes > this.#fileSizeMaxBytes) return Status.FBIG;
    }
    return null;
  }

  /** SETATTR of an object that is open here. Null: not executed, because the object is being given away. */
  async changeServed(
    caller: Caller,
    served: ServedObject,
    changes: SetAttributes,
    guardCtime: Timestamp | null,
    words: CallWords | null,
  ): Promise<WccResult | null> {
    if (served.unlinked) return { status: Status.STALE, wcc: NO_WCC };
    const repetitions = this.#core.places.cluster?.repetitions ?? null;
    if (repetitions === null || words === null) return this.#changeOwned(caller, served, changes, guardCtime, null, null);
    const { fileid } = served.driven;
    const running = repetitions.running<WccResult | null>(fileid, words);
    if (running !== null) return running;
    if (repetitions.isDone(fileid, words))
      return answeredAgain(this.#core, served, repetitions, words, () => ({ status: Status.OK, wcc: unchangedOf(served) }));
    return repetitions.run(fileid, words, this.#changeOwned(caller, served, changes, guardCtime, words, repetitions));
  }

  /** All of it in the registry: directories, symlinks, inline files, and mode and owner of anything. */
  async #changeRecord(caller: Caller, inode: Inode, changes: SetAttributes, guardCtime: Timestamp | null): Promise<WccResult | null> {
    const refused = this.#refused(caller, inode, changes);
    if (refused !== null) return { status: refused, wcc: this.#core.unchanged({ inode, served: null }) };
    const { namespace } = this.#core.registry;
    if (inode.class === 'inline' && changes.sizeBytes !== null && changes.sizeBytes > namespace.inlineBytesMax) {
      if (guardCtime !== null && compareTimestamp(guardCtime, inode.ctime) !== 0)
        return { status: Status.NOT_SYNC, wcc: this.#core.unchangedInode(inode) };
      const status = await flipToFile(this.#core, inode);
      return status === null ? null : { status, wcc: this.#core.unchangedInode(inode) };
    }
    const now = this.#core.now();
    const recordChanges = {
      mode: changes.mode,
      uid: changes.uid,
      gid: changes.gid,
      sizeBytes: changes.sizeBytes,
      atime: changes.atime === 'server' ? now : changes.atime,
      mtime: changes.mtime === 'server' ? now : changes.mtime,
    };
    const outcome = await this.#core.guard(() =>
      namespace.setAttributes(this.#core.mutation(caller, '|s'), inode.fileid, recordChanges, guardCtime, inode.class),
    );
    if (typeof outcome === 'number') return { status: outcome, wcc: this.#core.unchangedInode(inode) };
    switch (outcome.kind) {
      case 'changed':
        await this.#core.observe(outcome.after);
        return { status: Status.OK, wcc: this.#core.wcc(outcome.before, outcome.after) };
      case 'guard-mismatch':
        return { status: Status.NOT_SYNC, wcc: this.#core.unchangedInode(outcome.inode) };
      case 'class-changed':
        return null;
      case 'stale':
        return { status: Status.STALE, wcc: NO_WCC };
    }
  }

  /** SETATTR runs at the owner: the registry's part by compare-and-set, size and times in the log (design section 5). */
  async #changeOwned(
    caller: Caller,
    served: ServedObject,
    changes: SetAttributes,
    guardCtime: Timestamp | null,
    call: CallWords | null,
    repetitions: Repetitions | null,
  ): Promise<WccResult | null> {
    const done = await this.#changeHere(caller, served, changes, guardCtime, call, repetitions);
    if (done !== 'half') return done;
    // Asked for as a whole it would meet its own guard. The rest follows the object to where it goes.
    const rest: SetAttributes = { mode: null, uid: null, gid: null, sizeBytes: changes.sizeBytes, atime: changes.atime, mtime: changes.mtime };
    const answer = await this.#core.anywhere<WccResult>(
      served.handle,
      {
        isChange: true,
        here: async (now) => {
          const ended = await this.#changeHere(caller, now, rest, null, call, repetitions);
          return ended === 'half' ? null : ended;
        },
        there: (remote) => remote.peer.setattr(remote.target, peerCaller(caller, caller.operationId()), rest, null),
        record: () => null,
      },
      true,
    );
    return typeof answer === 'number' ? { status: answer, wcc: NO_WCC } : answer;
  }

  /** Null: nothing was done, because the object is being given away. `half`: for the same reason only the registry's part was, and the guard holds no more. */
  async #changeHere(
    caller: Caller,
    served: ServedObject,
    changes: SetAttributes,
    guardCtime: Timestamp | null,
    call: CallWords | null,
    repetitions: Repetitions | null,
  ): Promise<WccResult | 'half' | null> {
    const before = served.attributes();
    const unchanged = { before: preAttributesOf(before), after: before };
    const refused = this.#refused(caller, served.inode, changes);
    if (refused !== null) return { status: refused, wcc: unchanged };
    if (guardCtime !== null && compareTimestamp(guardCtime, before.ctime) !== 0) return { status: Status.NOT_SYNC, wcc: unchanged };
    served.users += 1;
    served.changers += 1;
    let isHalf = false;
    try {
      if (changes.mode !== null || changes.uid !== null || changes.gid !== null) {
        const record = { mode: changes.mode, uid: changes.uid, gid: changes.gid, sizeBytes: null, atime: null, mtime: null };
        const outcome = await this.#core.guard(() =>
          this.#core.registry.namespace.setAttributes(this.#core.mutation(caller, '|s'), served.inode.fileid, record, null, served.inode.class),
        );
        if (typeof outcome === 'number') return { status: outcome, wcc: unchanged };
        if (outcome.kind !== 'changed') return { status: Status.STALE, wcc: NO_WCC };
        this.#core.objects.observe(outcome.after);
        isHalf = guardCtime !== null;
      }
      if (changes.sizeBytes !== null || changes.atime !== null || changes.mtime !== null) {
        const now = this.#core.now();
        const atime = changes.atime === 'server' ? now : changes.atime;
        const mtime = changes.mtime === 'server' ? now : changes.mtime;
        const outcome = await served.driven.setAttributes({ sizeBytes: changes.sizeBytes, atime, mtime }, now, call);
        if (outcome.kind === 'refused') {
          if (errorCode(outcome.error) === 'object-held') return isHalf ? 'half' : null;
          return { status: this.#core.failure(outcome.error), wcc: unchanged };
        }
      }
      // Before it counts as ended, and also without a lease, as a WRITE.
      if (call !== null) repetitions?.remember(served.driven.fileid, call);
      if (!this.#core.places.lease.valid) return await this.#core.places.noAnswer();
      return { status: Status.OK, wcc: { before: preAttributesOf(before), after: served.attributes() } };
    } finally {
      served.users -= 1;
      served.changers -= 1;
    }
  }

  fsstat(handle: Handle): MaybePromise<AttributedResult<{ stat: FsStat; attributes: Attributes | null }>> {
    return this.#about(handle, (attributes) => {
      const { totalBytes, freeBytes } = this.#capacity();
      const stat: FsStat = {
        totalBytes,
        freeBytes,
        availableBytes: freeBytes,
        totalFiles: FILES_MAX,
        freeFiles: FILES_MAX - 1,
        availableFiles: FILES_MAX - 1,
        invariantSeconds: 0,
      };
      return { status: Status.OK, stat, attributes };
    });
  }

  fsinfo(handle: Handle): MaybePromise<AttributedResult<{ info: FsInfo; attributes: Attributes | null }>> {
    return this.#about(handle, (attributes) => ({
      status: Status.OK,
      info: {
        readMaxBytes: MIB,
        readPreferredBytes: MIB,
        readMultipleBytes: 4096,
        writeMaxBytes: MIB,
        writePreferredBytes: MIB,
        writeMultipleBytes: 4096,
        readdirPreferredBytes: 65_536,
        fileSizeMaxBytes: this.#fileSizeMaxBytes,
        timeDelta: { seconds: 0, nanoseconds: 1000 },
        properties: PROPERTIES,
      },
      attributes,
    }));
  }

  pathconf(handle: Handle): MaybePromise<AttributedResult<{ linkMax: number; attributes: Attributes | null }>> {
    return this.#about(handle, (attributes) => ({ status: Status.OK, linkMax: LINK_MAX, attributes }));
  }

  #about<T>(
    handle: Handle,
    answer: (attributes: Attributes) => { status: 0 } & T,
  ): MaybePromise<({ status: 0 } & T) | { status: ErrorStatus; attributes: null }> {
    return map(this.#core.find(handle), (found) =>
      typeof found === 'number' ? { status: found, attributes: null } : answer(this.#core.attributes(found)),
    );
  }
}

function unchangedOf(served: ServedObject): Wcc {
  const after = served.attributes();
  return { before: preAttributesOf(after), after };
}

function map<T, U>(value: MaybePromise<T>, then: (value: T) => U): MaybePromise<U> {
  return isPending(value) ? value.then(then) : then(value);
}
