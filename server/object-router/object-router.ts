/**
 * The FileSystem that nfsd serves: every operation goes to the owner of its object (design section 4): the registry for the namespace
 * and inline files, the open object here or another router for the rest. Handles and names that outlive the call are copied here.
 */
import type { Inode } from '../../registry/inode.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { Timestamp } from '../core/time.ts';
import type { Caller, CreateHow, FileSystem, Handle, Later, ReadAnswer, SetAttributes, Stability, WriteAnswer } from '../nfsd/file-system.ts';
import { AttributeCalls } from './attribute-calls.ts';
import type { Capacity } from './attribute-calls.ts';
import { DataCalls } from './data-calls.ts';
import { NamespaceCalls } from './namespace-calls.ts';
import type { RouterCore } from './router-core.ts';
import { volumeMatcher } from './volume-patterns.ts';

export interface ObjectRouterSettings {
  readonly volumePatterns: readonly string[];
  readonly allWritesStable: boolean;
  readonly fileSizeMaxBytes: number;
}

type Answer<Method extends keyof FileSystem> = ReturnType<FileSystem[Method]>;

export class ObjectRouter implements FileSystem {
  /** Also for what other routers forward (object-service.ts). */
  readonly attributes: AttributeCalls;
  readonly data: DataCalls;
  readonly #namespace: NamespaceCalls;

  constructor(components: { core: RouterCore; capacity: () => Capacity; unlinked: (inode: Inode) => void }, settings: ObjectRouterSettings) {
    this.attributes = new AttributeCalls(components.core, components.capacity, settings.fileSizeMaxBytes);
    this.data = new DataCalls(components.core, settings);
    this.#namespace = new NamespaceCalls(components.core, this.attributes, volumeMatcher(settings.volumePatterns), components.unlinked);
  }

  mount(_caller: Caller, path: string): Answer<'mount'> {
    return this.#namespace.mount(path);
  }
  getattr(_caller: Caller, object: Handle): Answer<'getattr'> {
    return this.attributes.getattr(object);
  }
  setattr(caller: Caller, object: Handle, changes: SetAttributes, guardCtime: Timestamp | null): Answer<'setattr'> {
    caller.operationId();
    return this.attributes.setattr(caller, Buffer.from(object), changes, guardCtime);
  }
  lookup(caller: Caller, directory: Handle, name: Uint8Array): Answer<'lookup'> {
    return this.#namespace.lookup(caller, directory, name);
  }
  access(caller: Caller, object: Handle, mask: number): Answer<'access'> {
    return this.attributes.access(caller, object, mask);
  }
  readlink(_caller: Caller, object: Handle): Answer<'readlink'> {
    return this.attributes.readlink(object);
  }
  read(caller: Caller, object: Handle, offsetBytes: number, target: Buffer): MaybePromise<ReadAnswer>;
  read(caller: Caller, object: Handle, offsetBytes: number, target: Buffer, later: Later<ReadAnswer>): MaybePromise<ReadAnswer> | null;
  read(caller: Caller, object: Handle, offsetBytes: number, target: Buffer, later: Later<ReadAnswer> | null = null): MaybePromise<ReadAnswer> | null {
    return this.data.read(caller, object, offsetBytes, target, later);
  }
  write(
    caller: Caller,
    object: Handle,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stability: Stability,
  ): MaybePromise<WriteAnswer>;
  write(
    caller: Caller,
    object: Handle,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stability: Stability,
    later: Later<WriteAnswer>,
  ): MaybePromise<WriteAnswer> | null;
  write(
    caller: Caller,
    object: Handle,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stability: Stability,
    later: Later<WriteAnswer> | null = null,
  ): MaybePromise<WriteAnswer> | null {
    return this.data.write(caller, object, offsetBytes, countBytes, chunks, stability, later);
  }
  /** The whole object is committed, whatever the range: its log has one order. */
  commit(caller: Caller, object: Handle): MaybePromise<Awaited<Answer<'commit'>>> {
    return this.data.commit(caller, object);
  }
  create(caller: Caller, directory: Handle, name: Uint8Array, how: CreateHow): Answer<'create'> {
    caller.operationId();
    const kept: CreateHow = how.mode === 'exclusive' ? { mode: 'exclusive', verifier: Buffer.from(how.verifier) } : how;
    return this.#namespace.create(caller, Buffer.from(directory), Buffer.from(name), kept);
  }
  mkdir(caller: Caller, directory: Handle, name: Uint8Array, attributes: SetAttributes): Answer<'mkdir'> {
    caller.operationId();
    return this.#namespace.mkdir(caller, Buffer.from(directory), Buffer.from(name), attributes);
  }
  symlink(caller: Caller, directory: Handle, name: Uint8Array, target: Uint8Array, attributes: SetAttributes): Answer<'symlink'> {
    caller.operationId();
    return this.#namespace.symlink(caller, Buffer.from(directory), Buffer.from(name), Buffer.from(target), attributes);
  }
  remove(caller: Caller, directory: Handle, name: Uint8Array): Answer<'remove'> {
    caller.operationId();
    return this.#namespace.remove(caller, Buffer.from(directory), Buffer.from(name));
  }
  rmdir(caller: Caller, directory: Handle, name: Uint8Array): Answer<'rmdir'> {
    caller.operationId();
    return this.#namespace.rmdir(caller, Buffer.from(directory), Buffer.from(name));
  }
  rename(caller: Caller, fromDirectory: Handle, fromName: Uint8Array, toDirectory: Handle, toName: Uint8Array): Answer<'rename'> {
    caller.operationId();
    return this.#namespace.rename(caller, Buffer.from(fromDirectory), Buffer.from(fromName), Buffer.from(toDirectory), Buffer.from(toName));
  }
  link(caller: Caller, object: Handle, directory: Handle, name: Uint8Array): Answer<'link'> {
    caller.operationId();
    return this.#namespace.link(caller, Buffer.from(object), Buffer.from(directory), Buffer.from(name));
  }
  readdir(caller: Caller, directory: Handle, cookie: number, _verifier: Uint8Array, limit: number, wantAttributes: boolean): Answer<'readdir'> {
    return this.#namespace.readdir(caller, Buffer.from(directory), cookie, limit, wantAttributes);
  }
  fsstat(_caller: Caller, object: Handle): Answer<'fsstat'> {
    return this.attributes.fsstat(object);
  }
  fsinfo(_caller: Caller, object: Handle): Answer<'fsinfo'> {
    return this.attributes.fsinfo(object);
  }
  pathconf(_caller: Caller, object: Handle): Answer<'pathconf'> {
    return this.attributes.pathconf(object);
  }
}
