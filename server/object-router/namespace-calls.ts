/** LOOKUP, CREATE, MKDIR, SYMLINK, REMOVE, RMDIR, RENAME, LINK, READDIR: one registry verb each (design section 4). */
import type { Inode } from '../../registry/inode.ts';
import type { CreateOutcome, DirectoryChange, NewInode, RemoveOutcome } from '../../registry/ports.ts';
import { failPoint } from '../core/fail-points.ts';
import type { FileId } from '../core/ids.ts';
import { isPending } from '../core/maybe-promise.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import type {
  AttributedResult,
  Attributes,
  Caller,
  Created,
  CreateHow,
  DirectoryEntry,
  ErrorStatus,
  FileSystem,
  Handle,
  Result,
  SetAttributes,
  Wcc,
  WccResult,
} from '../nfsd/file-system.ts';
import { Status } from '../nfsd/file-system.ts';
import type { AttributeCalls } from './attribute-calls.ts';
import { isPermitted, Permission } from './inode-attributes.ts';
import type { Found, RouterCore } from './router-core.ts';
import { NO_WCC } from './router-core.ts';

const COOKIE_DOT = 1;
const COOKIE_DOTDOT = 2;
const NO_VERIFIER: Buffer = Buffer.alloc(8);
const DOT = 0x2e;
const NOTHING: SetAttributes = { mode: null, uid: null, gid: null, sizeBytes: null, atime: null, mtime: null };

type LookupResult = AttributedResult<{ handle: Handle; attributes: Attributes | null; directoryAttributes: Attributes | null }>;
type ReaddirResult = Awaited<ReturnType<FileSystem['readdir']>>;

export class NamespaceCalls {
  readonly #core: RouterCore;
  readonly #attributes: AttributeCalls;
  readonly #isVolume: (name: Uint8Array) => boolean;
  /** Told about inodes whose last name is gone and whose data waits for deletion. */
  readonly #unlinked: (inode: Inode) => void;

  constructor(core: RouterCore, attributes: AttributeCalls, isVolume: (name: Uint8Array) => boolean, unlinked: (inode: Inode) => void) {
    this.#core = core;
    this.#attributes = attributes;
    this.#isVolume = isVolume;
    this.#unlinked = unlinked;
  }

  /** `path`: names joined by slashes, the first is the vPool. */
  async mount(path: string): Promise<Result<{ handle: Handle }>> {
    const { namespace, vpool } = this.#core.registry;
    const [first = '', ...rest] = path.split('/').filter((part) => part !== '');
    if (first !== vpool.name) return { status: Status.NOENT };
    const mounted = await this.#core.guard(async (): Promise<Result<{ handle: Handle }>> => {
      let inode = await namespace.inode(namespace.root, null);
      for (const part of rest) {
        if (inode === null) return { status: Status.NOENT };
        const outcome = await namespace.lookup(inode.fileid, Buffer.from(part, 'latin1'));
        if (outcome.kind === 'not-directory') return { status: Status.NOTDIR };
        inode = outcome.kind === 'found' ? outcome.inode : null;
      }
      if (inode === null) return { status: Status.NOENT };
      return inode.type === 'directory' ? { status: Status.OK, handle: this.#core.handleOf(inode) } : { status: Status.NOTDIR };
    });
    return typeof mounted === 'number' ? { status: mounted } : mounted;
  }

  lookup(caller: Caller, directory: Handle, name: Uint8Array): MaybePromise<LookupResult> {
    const found = this.#core.find(directory);
    if (isPending(found)) {
      const kept = Buffer.from(name);
      return found.then((inode) => this.#lookupIn(caller, inode, kept));
    }
    return this.#lookupIn(caller, found, name);
  }

  #lookupIn(caller: Caller, found: Found | ErrorStatus, name: Uint8Array): MaybePromise<LookupResult> {
    if (typeof found === 'number') return { status: found, attributes: null };
    const directory = found.inode;
    const attributes = this.#core.attributes(found);
    if (directory.type !== 'directory') return { status: Status.NOTDIR, attributes };
    if (!isPermitted(directory, caller, Permission.EXECUTE)) return { status: Status.ACCES, attributes };
    const { namespace } = this.#core.registry;
    const dots = name[0] === DOT ? (name.length === 1 ? 1 : name.length === 2 && name[1] === DOT ? 2 : 0) : 0;
    if (dots === 1) return this.#looked(directory, attributes);
    if (dots === 2) {
      const parent = this.#core.guard(() => namespace.inode(directory.parent ?? directory.fileid, null));
      const answer = (inode: Inode | null | ErrorStatus): LookupResult =>
        typeof inode === 'number'
          ? { status: inode, attributes }
          : inode === null
            ? { status: Status.STALE, attributes }
            : this.#looked(inode, attributes);
      return isPending(parent) ? parent.then(answer) : answer(parent);
    }
    const outcome = this.#core.guard(() => namespace.lookup(directory.fileid, name));
    const answer = (result: Awaited<typeof outcome>): MaybePromise<LookupResult> => {
      if (typeof result === 'number') return { status: result, attributes };
      switch (result.kind) {
        case 'found':
          return this.#lookedUp(result.inode, this.#core.attributesOfInode(result.directory));
        case 'absent':
          return { status: Status.NOENT, attributes: this.#core.attributesOfInode(result.directory) };
        case 'not-directory':
          return { status: Status.NOTDIR, attributes };
        case 'stale':
          return { status: Status.STALE, attributes: null };
      }
    };
    return isPending(outcome) ? outcome.then(answer) : answer(outcome);
  }

  #looked(inode: Inode, directoryAttributes: Attributes | null, attributes = this.#core.attributesOfInode(inode)): LookupResult {
    return { status: Status.OK, handle: this.#core.handleOf(inode), attributes, directoryAttributes };
  }

  /** An object whose owner knows more than its record is opened for its attributes: ESXi takes sizes from LOOKUP. */
  #lookedUp(inode: Inode, directoryAttributes: Attributes | null): MaybePromise<LookupResult> {
    const known = this.#core.attributesOfInode(inode);
    if (known !== null) return this.#looked(inode, directoryAttributes, known);
    if (this.#core.places.cluster !== null) {
      return this.#core.attributesOfInodes([inode]).then(([told]) => this.#looked(inode, directoryAttributes, told ?? null));
    }
    return this.#core.open(inode.fileid).then(() => this.#looked(inode, directoryAttributes));
  }

  /** Directory that a change is made in, or the reply that says why not. */
  async #changeable(caller: Caller, handle: Handle): Promise<Found | { status: ErrorStatus; wcc: Wcc }> {
    const found = await this.#core.find(handle);
    if (typeof found === 'number') return { status: found, wcc: NO_WCC };
    const wcc = this.#core.unchanged(found);
    if (found.inode.type !== 'directory') return { status: Status.NOTDIR, wcc };
    return isPermitted(found.inode, caller, Permission.WRITE | Permission.EXECUTE) ? found : { status: Status.ACCES, wcc };
  }

  async create(caller: Caller, directory: Handle, name: Uint8Array, how: CreateHow): Promise<WccResult<Created>> {
    const found = await this.#changeable(caller, directory);
    if ('status' in found) return found;
    const given = how.mode === 'exclusive' ? NOTHING : how.attributes;
    const { namespace } = this.#core.registry;
    const sizeBytes = given.sizeBytes ?? 0;
    const now = this.#core.now();
    const file: NewInode = {
      class: this.#isVolume(name) ? 'volume' : sizeBytes > namespace.inlineBytesMax ? 'file' : 'inline',
      mode: given.mode ?? 0o644,
      uid: given.uid ?? caller.uid,
      gid: given.gid ?? caller.gid,
      sizeBytes,
      atime: given.atime === 'server' ? now : given.atime,
      mtime: given.mtime === 'server' ? now : given.mtime,
      exclusiveVerifier: how.mode === 'exclusive' ? how.verifier : null,
    };
    const outcome = await this.#core.guard(() => namespace.createFile(this.#core.mutation(caller), found.inode.fileid, name, file));
    if (typeof outcome !== 'number' && outcome.kind === 'exists') return this.#createOnExisting(caller, how, outcome.inode, outcome.directory);
    return this.#created(found, outcome);
  }

  /** RFC 1813 §3.3.8: UNCHECKED takes what is there and sets the size if one is given; GUARDED refuses; EXCLUSIVE compares the verifier. */
  async #createOnExisting(caller: Caller, how: CreateHow, inode: Inode, directory: Inode): Promise<WccResult<Created>> {
    const wcc = this.#core.unchangedInode(directory);
    if (inode.type !== 'file' || how.mode === 'guarded') return { status: Status.EXIST, wcc };
    if (how.mode === 'exclusive' && (inode.exclusiveVerifier === null || !Buffer.from(inode.exclusiveVerifier).equals(how.verifier))) {
      return { status: Status.EXIST, wcc };
    }
    const handle = this.#core.handleOf(inode);
    // creat(2) truncates what is there and changes nothing else of it.
    if (how.mode === 'unchecked' && how.attributes.sizeBytes !== null) {
      const changed = await this.#attributes.setattr(caller, handle, { ...NOTHING, sizeBytes: how.attributes.sizeBytes }, null);
      if (changed.status !== Status.OK) return { status: changed.status, wcc };
    }
    const now = await this.#core.find(handle);
    if (typeof now === 'number') return { status: now, wcc };
    return { status: Status.OK, handle, attributes: this.#core.attributes(now), wcc };
  }

  #created(directory: Found, outcome: CreateOutcome | ErrorStatus): WccResult<Created> {
    if (typeof outcome === 'number') return { status: outcome, wcc: this.#core.unchanged(directory) };
    switch (outcome.kind) {
      case 'created': {
        const attributes = this.#core.attributesOfInode(outcome.inode);
        // A new inode has no owner yet: its record is exact.
        const exact = attributes ?? this.#core.attributes({ inode: outcome.inode, served: null });
        return { status: Status.OK, handle: this.#core.handleOf(outcome.inode), attributes: exact, wcc: this.#directoryWcc(outcome.directory) };
      }
      case 'exists':
        return { status: Status.EXIST, wcc: this.#core.unchangedInode(outcome.directory) };
      case 'stale':
        return { status: Status.STALE, wcc: NO_WCC };
      case 'not-directory':
        return { status: Status.NOTDIR, wcc: this.#core.unchanged(directory) };
    }
  }

  async mkdir(caller: Caller, directory: Handle, name: Uint8Array, given: SetAttributes): Promise<WccResult<Created>> {
    const found = await this.#changeable(caller, directory);
    if ('status' in found) return found;
    const outcome = await this.#core.guard(() =>
      this.#core.registry.namespace.createDirectory(this.#core.mutation(caller), found.inode.fileid, name, this.#newAttributes(caller, given, 0o755)),
    );
    return this.#created(found, outcome);
  }

  async symlink(caller: Caller, directory: Handle, name: Uint8Array, target: Uint8Array, given: SetAttributes): Promise<WccResult<Created>> {
    const found = await this.#changeable(caller, directory);
    if ('status' in found) return found;
    const outcome = await this.#core.guard(() =>
      this.#core.registry.namespace.createSymlink(
        this.#core.mutation(caller),
        found.inode.fileid,
        name,
        target,
        this.#newAttributes(caller, given, 0o777),
      ),
    );
    return this.#created(found, outcome);
  }

  #newAttributes(caller: Caller, given: SetAttributes, mode: number): Pick<NewInode, 'mode' | 'uid' | 'gid' | 'atime' | 'mtime'> {
    const now = this.#core.now();
    return {
      mode: given.mode ?? mode,
      uid: given.uid ?? caller.uid,
      gid: given.gid ?? caller.gid,
      atime: given.atime === 'server' ? now : given.atime,
      mtime: given.mtime === 'server' ? now : given.mtime,
    };
  }

  remove(caller: Caller, directory: Handle, name: Uint8Array): Promise<WccResult> {
    return this.#remove(caller, directory, (fileid) => this.#core.registry.namespace.remove(this.#core.mutation(caller), fileid, name));
  }

  rmdir(caller: Caller, directory: Handle, name: Uint8Array): Promise<WccResult> {
    return this.#remove(caller, directory, (fileid) => this.#core.registry.namespace.removeDirectory(this.#core.mutation(caller), fileid, name));
  }

  async #remove(caller: Caller, directory: Handle, verb: (fileid: FileId) => Promise<RemoveOutcome>): Promise<WccResult> {
    const found = await this.#changeable(caller, directory);
    if ('status' in found) return found;
    const outcome = await this.#core.guard(() => verb(found.inode.fileid));
    if (typeof outcome === 'number') return { status: outcome, wcc: this.#core.unchanged(found) };
    switch (outcome.kind) {
      case 'removed':
        await this.#lostName(outcome.inode);
        return { status: Status.OK, wcc: this.#directoryWcc(outcome.directory) };
      case 'absent':
        return { status: Status.NOENT, wcc: this.#core.unchangedInode(outcome.directory) };
      case 'is-directory':
        return { status: Status.ISDIR, wcc: this.#core.unchangedInode(outcome.directory) };
      case 'not-a-directory':
        return { status: Status.NOTDIR, wcc: this.#core.unchangedInode(outcome.directory) };
      case 'not-empty':
        return { status: Status.NOTEMPTY, wcc: this.#core.unchangedInode(outcome.directory) };
      case 'stale':
        return { status: Status.STALE, wcc: NO_WCC };
      case 'not-directory':
        return { status: Status.NOTDIR, wcc: this.#core.unchanged(found) };
    }
  }

  /** An inode lost a name. With the last one it is STALE for everybody before the reply (design section 5). */
  async #lostName(inode: Inode): Promise<void> {
    if (inode.state === 'live') {
      await this.#core.observe(inode);
      return;
    }
    failPoint('remove.after-registry');
    if (inode.class !== 'file' && inode.class !== 'volume') return;
    await this.#core.objects.unlink(inode.fileid);
    // From the reply on it is STALE through every router.
    await this.#core.places.inodeChanged(inode);
    this.#unlinked(inode);
  }

  async rename(
    caller: Caller,
    fromDirectory: Handle,
    fromName: Uint8Array,
    toDirectory: Handle,
    toName: Uint8Array,
  ): Promise<{ status: Status; fromWcc: Wcc; toWcc: Wcc }> {
    const from = await this.#changeable(caller, fromDirectory);
    if ('status' in from) return { status: from.status, fromWcc: from.wcc, toWcc: NO_WCC };
    const to = await this.#changeable(caller, toDirectory);
    if ('status' in to) return { status: to.status, fromWcc: this.#core.unchanged(from), toWcc: to.wcc };
    const outcome = await this.#core.guard(() =>
      this.#core.registry.namespace.rename(this.#core.mutation(caller), from.inode.fileid, fromName, to.inode.fileid, toName),
    );
    const unchanged = (status: Status, a: Inode, b: Inode): { status: Status; fromWcc: Wcc; toWcc: Wcc } => ({
      status,
      fromWcc: this.#core.unchangedInode(a),
      toWcc: this.#core.unchangedInode(b),
    });
    if (typeof outcome === 'number') return unchanged(outcome, from.inode, to.inode);
    switch (outcome.kind) {
      case 'renamed':
        await this.#core.observe(outcome.inode);
        if (outcome.replaced !== null) await this.#lostName(outcome.replaced);
        return { status: Status.OK, fromWcc: this.#directoryWcc(outcome.from), toWcc: this.#directoryWcc(outcome.to) };
      case 'unchanged':
        return unchanged(Status.OK, outcome.from, outcome.to);
      case 'absent':
        return unchanged(Status.NOENT, outcome.from, outcome.to);
      case 'target-not-empty':
        return unchanged(Status.NOTEMPTY, outcome.from, outcome.to);
      case 'target-exists':
        return unchanged(await this.#clashStatus(to.inode, toName), outcome.from, outcome.to);
      case 'invalid':
        return unchanged(Status.INVAL, outcome.from, outcome.to);
      case 'stale':
        return { status: Status.STALE, fromWcc: NO_WCC, toWcc: NO_WCC };
      case 'not-directory':
        return unchanged(Status.NOTDIR, from.inode, to.inode);
    }
  }

  /** A directory over something else is NOTDIR, something else over a directory ISDIR (POSIX rename). */
  async #clashStatus(directory: Inode, name: Uint8Array): Promise<Status> {
    const target = await this.#core.guard(async () => this.#core.registry.namespace.lookup(directory.fileid, name));
    if (typeof target === 'number' || target.kind !== 'found') return Status.EXIST;
    return target.inode.type === 'directory' ? Status.ISDIR : Status.NOTDIR;
  }

  async link(
    caller: Caller,
    object: Handle,
    directory: Handle,
    name: Uint8Array,
  ): Promise<{ status: Status; attributes: Attributes | null; directoryWcc: Wcc }> {
    const source = await this.#core.find(object);
    if (typeof source === 'number') return { status: source, attributes: null, directoryWcc: NO_WCC };
    const attributes = this.#core.attributes(source);
    const found = await this.#changeable(caller, directory);
    if ('status' in found) return { status: found.status, attributes, directoryWcc: found.wcc };
    const outcome = await this.#core.guard(() =>
      this.#core.registry.namespace.link(this.#core.mutation(caller), source.inode.fileid, found.inode.fileid, name),
    );
    if (typeof outcome === 'number') return { status: outcome, attributes, directoryWcc: this.#core.unchanged(found) };
    switch (outcome.kind) {
      case 'linked':
        await this.#core.observe(outcome.inode);
        return { status: Status.OK, attributes: this.#core.attributesOfInode(outcome.inode), directoryWcc: this.#directoryWcc(outcome.directory) };
      case 'exists':
        return { status: Status.EXIST, attributes, directoryWcc: this.#core.unchangedInode(outcome.directory) };
      case 'is-directory':
        return { status: Status.ISDIR, attributes, directoryWcc: this.#core.unchangedInode(outcome.directory) };
      case 'too-many-links':
        return { status: Status.MLINK, attributes, directoryWcc: this.#core.unchangedInode(outcome.directory) };
      case 'object-stale':
        return { status: Status.STALE, attributes: null, directoryWcc: this.#core.unchanged(found) };
      case 'stale':
        return { status: Status.STALE, attributes, directoryWcc: NO_WCC };
      case 'not-directory':
        return { status: Status.NOTDIR, attributes, directoryWcc: this.#core.unchanged(found) };
    }
  }

  async readdir(caller: Caller, directory: Handle, cookie: number, limit: number, wantAttributes: boolean): Promise<ReaddirResult> {
    const found = await this.#core.find(directory);
    if (typeof found === 'number') return { status: found, attributes: null };
    const attributes = this.#core.attributes(found);
    if (found.inode.type !== 'directory') return { status: Status.NOTDIR, attributes };
    if (!isPermitted(found.inode, caller, Permission.READ)) return { status: Status.ACCES, attributes };
    const { namespace } = this.#core.registry;
    const listed = await this.#core.guard(async () => {
      const entries: DirectoryEntry[] = [];
      if (cookie < COOKIE_DOT) entries.push(this.#entry(found.inode, Buffer.from('.'), COOKIE_DOT, wantAttributes));
      if (cookie < COOKIE_DOTDOT && entries.length < limit) {
        const parent = await namespace.inode(found.inode.parent ?? found.inode.fileid, null);
        if (parent !== null) entries.push(this.#entry(parent, Buffer.from('..'), COOKIE_DOTDOT, wantAttributes));
      }
      if (entries.length >= limit) return { entries, eof: false };
      const outcome = await namespace.entries(found.inode.fileid, Math.max(cookie, COOKIE_DOTDOT), limit - entries.length);
      if (outcome.kind !== 'entries') return null;
      const told = wantAttributes ? await this.#core.attributesOfInodes(outcome.entries.map((entry) => entry.inode)) : [];
      outcome.entries.forEach((entry, index) =>
        entries.push(this.#entry(entry.inode, entry.name, entry.cookie, wantAttributes, told[index] ?? null)),
      );
      return { entries, eof: outcome.eof };
    });
    if (typeof listed === 'number') return { status: listed, attributes };
    if (listed === null) return { status: Status.STALE, attributes: null };
    return { status: Status.OK, ...listed, attributes, cookieVerifier: NO_VERIFIER };
  }

  #entry(
    inode: Inode,
    name: Uint8Array,
    cookie: number,
    wantAttributes: boolean,
    attributes = wantAttributes ? this.#core.attributesOfInode(inode) : null,
  ): DirectoryEntry {
    return {
      fileid: inode.fileid,
      name,
      cookie,
      attributes,
      handle: wantAttributes ? this.#core.handleOf(inode) : null,
    };
  }

  #directoryWcc(change: DirectoryChange): Wcc {
    return this.#core.wcc(change.before, change.after);
  }
}
