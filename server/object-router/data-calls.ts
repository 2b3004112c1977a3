/** READ, WRITE, COMMIT: inline files in their registry record, everything else through its open object. */
import { inlineVerifier } from '../../registry/inode.ts';
import type { Inode } from '../../registry/inode.ts';
import { failPoint } from '../core/fail-points.ts';
import { isPending } from '../core/maybe-promise.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { AttributedResult, Attributes, Caller, Handle, Stability, Wcc, WccResult } from '../nfsd/file-system.ts';
import { Stability as How, Status } from '../nfsd/file-system.ts';
import { mayDoIo, Permission, preAttributesOf } from './inode-attributes.ts';
import type { ServedObject } from './open-objects.ts';
import type { Found, RouterCore } from './router-core.ts';
import { NO_WCC } from './router-core.ts';

type ReadResult = AttributedResult<{ bytesRead: number; eof: boolean; attributes: Attributes | null }>;
type WriteResult = WccResult<{ countBytes: number; committed: Stability; verifier: Uint8Array }>;

export interface DataSettings {
  readonly fileSizeMaxBytes: number;
  readonly allWritesStable: boolean;
}

export class DataCalls {
  readonly #core: RouterCore;
  readonly #settings: DataSettings;

  constructor(core: RouterCore, settings: DataSettings) {
    this.#core = core;
    this.#settings = settings;
  }

  read(caller: Caller, handle: Handle, offsetBytes: number, target: Buffer): MaybePromise<ReadResult> {
    const served = this.#core.served(handle);
    if (served !== null) return this.#readServed(caller, served, offsetBytes, target);
    return this.#readSlowly(caller, Buffer.from(handle), offsetBytes, target);
  }

  #readServed(caller: Caller, served: ServedObject, offsetBytes: number, target: Buffer): MaybePromise<ReadResult> {
    if (served.unlinked) return { status: Status.STALE, attributes: null };
    if (!mayDoIo(served.inode, caller, Permission.READ) && !mayDoIo(served.inode, caller, Permission.EXECUTE)) {
      return { status: Status.ACCES, attributes: served.attributes() };
    }
    const bytesRead = served.driven.read(offsetBytes, target);
    if (!isPending(bytesRead)) return readDone(served, offsetBytes, bytesRead);
    served.users += 1;
    return bytesRead
      .then(
        (count): ReadResult => readDone(served, offsetBytes, count),
        (error: unknown): ReadResult => ({ status: this.#core.failure(error), attributes: served.attributes() }),
      )
      .finally(() => {
        served.users -= 1;
      });
  }

  async #readSlowly(caller: Caller, handle: Handle, offsetBytes: number, target: Buffer): Promise<ReadResult> {
    const found = await this.#core.findOpen(handle);
    if (typeof found === 'number') return { status: found, attributes: null };
    if (found.inode.type !== 'file') return { status: Status.INVAL, attributes: this.#core.attributes(found) };
    if (found.served !== null) return this.#readServed(caller, found.served, offsetBytes, target);
    if (!mayDoIo(found.inode, caller, Permission.READ) && !mayDoIo(found.inode, caller, Permission.EXECUTE)) {
      return { status: Status.ACCES, attributes: this.#core.attributes(found) };
    }
    const size = found.inode.sizeBytes;
    const bytesRead = Math.max(0, Math.min(target.length, size - offsetBytes));
    if (bytesRead > 0) {
      target.fill(0, 0, bytesRead);
      if (found.inode.inlineBytes !== null) target.set(found.inode.inlineBytes.subarray(offsetBytes, offsetBytes + bytesRead));
    }
    return { status: Status.OK, bytesRead, eof: offsetBytes + bytesRead >= size, attributes: this.#core.attributes(found) };
  }

  write(
    caller: Caller,
    handle: Handle,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stability: Stability,
  ): MaybePromise<WriteResult> {
    const served = this.#core.served(handle);
    if (served !== null) return this.#writeServed(caller, served, offsetBytes, countBytes, chunks, stability);
    // The operation id hashes the received call: before the first wait.
    caller.operationId();
    return this.#writeSlowly(caller, Buffer.from(handle), offsetBytes, countBytes, chunks, stability);
  }

  #writeServed(
    caller: Caller,
    served: ServedObject,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stability: Stability,
  ): MaybePromise<WriteResult> {
    if (served.unlinked) return { status: Status.STALE, wcc: NO_WCC };
    if (!mayDoIo(served.inode, caller, Permission.WRITE)) return { status: Status.ACCES, wcc: unchanged(served) };
    if (countBytes === 0) {
      return { status: Status.OK, wcc: unchanged(served), countBytes: 0, committed: How.FILE_SYNC, verifier: served.driven.verifier };
    }
    if (offsetBytes + countBytes > this.#settings.fileSizeMaxBytes) return { status: Status.FBIG, wcc: unchanged(served) };
    served.users += 1;
    const stable = stability !== How.UNSTABLE || this.#settings.allWritesStable;
    return served.driven.write(offsetBytes, countBytes, chunks, stable, this.#core.now()).then((change): WriteResult => {
      served.users -= 1;
      if (change.kind === 'refused') return { status: this.#core.failure(change.error), wcc: unchanged(served) };
      const wcc = { before: preAttributesOf(change.before), after: served.attributes() };
      return { status: Status.OK, wcc, countBytes, committed: change.stable ? How.FILE_SYNC : How.UNSTABLE, verifier: served.driven.verifier };
    });
  }

  async #writeSlowly(
    caller: Caller,
    handle: Handle,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stability: Stability,
  ): Promise<WriteResult> {
    for (;;) {
      const found = await this.#core.findOpen(handle);
      if (typeof found === 'number') return { status: found, wcc: NO_WCC };
      if (found.inode.type !== 'file') return { status: Status.INVAL, wcc: this.#core.unchanged(found) };
      if (found.served !== null) return this.#writeServed(caller, found.served, offsetBytes, countBytes, chunks, stability);
      if (!mayDoIo(found.inode, caller, Permission.WRITE)) return { status: Status.ACCES, wcc: this.#core.unchanged(found) };
      if (countBytes === 0) {
        return { status: Status.OK, wcc: this.#core.unchanged(found), countBytes, committed: How.FILE_SYNC, verifier: inlineVerifier(found.inode) };
      }
      if (offsetBytes + countBytes > this.#settings.fileSizeMaxBytes) return { status: Status.FBIG, wcc: this.#core.unchanged(found) };
      const written = await this.#writeInline(caller, found, offsetBytes, countBytes, chunks);
      if (written !== null) return written;
    }
  }

  /** Null: the file is not inline any more, look again. */
  async #writeInline(
    caller: Caller,
    found: Found,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
  ): Promise<WriteResult | null> {
    const { namespace } = this.#core.registry;
    const { fileid } = found.inode;
    if (offsetBytes + countBytes > namespace.inlineBytesMax) return this.#flip(found.inode);
    const outcome = await this.#core.guard(() =>
      namespace.writeInline(this.#core.mutation(caller, '|w'), fileid, offsetBytes, Buffer.concat(chunks, countBytes)),
    );
    if (typeof outcome === 'number') return { status: outcome, wcc: this.#core.unchanged(found) };
    switch (outcome.kind) {
      case 'written':
        return {
          status: Status.OK,
          wcc: this.#core.wcc(outcome.before, outcome.after),
          countBytes,
          committed: How.FILE_SYNC,
          verifier: inlineVerifier(found.inode),
        };
      case 'too-large':
        return this.#flip(outcome.inode);
      case 'class-changed':
        return null;
      case 'stale':
        return { status: Status.STALE, wcc: NO_WCC };
    }
  }

  async #flip(inode: Inode): Promise<WriteResult | null> {
    const status = await flipToFile(this.#core, inode);
    return status === null ? null : { status, wcc: this.#core.unchangedInode(inode) };
  }

  commit(caller: Caller, handle: Handle): MaybePromise<WccResult<{ verifier: Uint8Array }>> {
    const served = this.#core.served(handle);
    if (served !== null) return this.#commitServed(caller, served);
    return this.#commitSlowly(caller, Buffer.from(handle));
  }

  #commitServed(caller: Caller, served: ServedObject): MaybePromise<WccResult<{ verifier: Uint8Array }>> {
    if (served.unlinked) return { status: Status.STALE, wcc: NO_WCC };
    if (!mayDoIo(served.inode, caller, Permission.WRITE)) return { status: Status.ACCES, wcc: unchanged(served) };
    const committed = served.driven.commit(this.#core.now());
    if (!isPending(committed)) return this.#committed(served, committed);
    served.users += 1;
    return committed
      .then((outcome) => this.#committed(served, outcome))
      .finally(() => {
        served.users -= 1;
      });
  }

  #committed(served: ServedObject, outcome: null | { error: Error }): WccResult<{ verifier: Uint8Array }> {
    const wcc: Wcc = unchanged(served);
    return outcome === null ? { status: Status.OK, wcc, verifier: served.driven.verifier } : { status: this.#core.failure(outcome.error), wcc };
  }

  async #commitSlowly(caller: Caller, handle: Handle): Promise<WccResult<{ verifier: Uint8Array }>> {
    const found = await this.#core.findOpen(handle);
    if (typeof found === 'number') return { status: found, wcc: NO_WCC };
    if (found.inode.type !== 'file') return { status: Status.INVAL, wcc: this.#core.unchanged(found) };
    if (found.served !== null) return this.#commitServed(caller, found.served);
    return { status: Status.OK, wcc: this.#core.unchanged(found), verifier: inlineVerifier(found.inode) };
  }
}

function readDone(served: ServedObject, offsetBytes: number, bytesRead: number): ReadResult {
  const attributes = served.attributes();
  return { status: Status.OK, bytesRead, eof: offsetBytes + bytesRead >= attributes.sizeBytes, attributes };
}

function unchanged(served: ServedObject): Wcc {
  const after = served.attributes();
  return { before: preAttributesOf(after), after };
}

/** Makes an inline file an object of class file. Null when it is one now, else the status of the failure. */
export async function flipToFile(core: RouterCore, inode: Inode): Promise<ReturnType<RouterCore['failure']> | null> {
  const flipped = await core.guard(() => core.registry.namespace.flipToFile(core.mutation(null), inode.fileid));
  if (typeof flipped === 'number') return flipped;
  failPoint('flip.after-registry');
  return flipped.kind === 'stale' ? Status.STALE : null;
}
