/**
 * A client as hypervisors are: it never gives a call up. No answer in time, or a connection that ends: the same call (same xid) goes out again, to the next router
 * of its list; JUKEBOX: a new call after a pause. Its user sees time pass and nothing else, and this keeps count of that time.
 */
import { randomInt } from 'node:crypto';

import { ApplianceError } from '../../server/core/errors.ts';
import type { Attributes, SetAttributes, Stability } from '../../server/nfsd/file-system.ts';
import { Status } from '../../server/nfsd/file-system.ts';
import type { NfsClient } from '../../server/nfsd/nfs-client.ts';
import { encodeSetAttributes, encodeUint64, NO_CHANGES } from '../../server/nfsd/nfs-wire.ts';
import { NfsProcedure } from '../../server/nfsd/procedure-table.ts';
import { decodeCommitResult } from '../../server/nfsd/procedures/commit.ts';
import { decodeCreateResult, encodeCreateHow } from '../../server/nfsd/procedures/create.ts';
import { decodeGetattrResult } from '../../server/nfsd/procedures/getattr.ts';
import { decodeLookupResult } from '../../server/nfsd/procedures/lookup.ts';
import { decodeReadResult } from '../../server/nfsd/procedures/read.ts';
import { decodeReaddirResult, encodeReaddirplusArgs } from '../../server/nfsd/procedures/readdir.ts';
import { decodeLinkResult, decodeRenameResult } from '../../server/nfsd/procedures/rename.ts';
import { encodeSetattrArgs } from '../../server/nfsd/procedures/setattr.ts';
import { decodeWccResult } from '../../server/nfsd/procedures/wcc-result.ts';
import { decodeWriteResult, encodeWriteArgs } from '../../server/nfsd/procedures/write.ts';
import { authSys } from '../../server/oncrpc/rpc-client.ts';
import type { RpcCredential } from '../../server/oncrpc/rpc-program.ts';
import type { XdrReader } from '../../server/oncrpc/xdr-reader.ts';
import type { XdrWriter } from '../../server/oncrpc/xdr-writer.ts';
import type { FileHandle, Found, Listed, NewAttributes, StoreClient } from '../store-client.ts';
import type { ClusterRouter } from './cluster-router.ts';

const JUKEBOX_PAUSE_MS = 100;
const CONNECT_PAUSE_MS = 50;

export interface WanderingOptions {
  /** In the order in which they are tried; one of them: it only reconnects. */
  readonly routers: readonly ClusterRouter[];
  /** Name of the host, part of what makes its calls its own. */
  readonly machineName: string;
  /** How long a call waits for its answer before it goes out again. Default 5 s. */
  readonly attemptMs?: number;
  /** When it gives up after all. Default 90 s. */
  readonly patienceMs?: number;
}

export class WanderingClient implements StoreClient {
  readonly root: FileHandle;
  /** Longest time from a call to its answer so far, resends included. */
  longestMs = 0;
  /** Calls that were told to come back. */
  jukebox = 0;
  /** Calls that went out again. */
  resends = 0;
  readonly #options: WanderingOptions;
  readonly #credential: RpcCredential;
  #connection: Promise<NfsClient>;
  #at = 0;
  #closed = false;

  private constructor(options: WanderingOptions, connection: NfsClient, root: FileHandle, credential: RpcCredential) {
    this.#options = options;
    this.#connection = Promise.resolve(connection);
    this.root = root;
    this.#credential = credential;
  }

  /** Connects to the first router and mounts there. */
  static async connect(options: WanderingOptions): Promise<WanderingClient> {
    const credential = authSys({ machineName: options.machineName });
    const [first] = options.routers;
    if (first === undefined) throw new Error('no routers');
    const connection = await first.nfs({ credential });
    const mounted = await connection.mount(`/${first.process.vpool}`);
    if (mounted.status !== 0) throw new Error(`MNT: status ${mounted.status}`);
    return new WanderingClient(options, connection, Uint8Array.from(mounted.handle), credential);
  }

  /** From now on it prefers this router: as a host whose address was moved. Calls under way end where they are. */
  async moveTo(router: ClusterRouter): Promise<void> {
    const old = this.#connection;
    this.#at = this.#options.routers.indexOf(router);
    this.#connection = router.nfs({ credential: this.#credential });
    await this.#connection;
    await (await old).close();
  }

  async getattr(object: FileHandle): Promise<{ status: number; attributes: Attributes | null }> {
    const result = await this.#call(NfsProcedure.GETATTR, (w) => w.opaque(object), decodeGetattrResult);
    return { status: result.status, attributes: result.status === Status.OK ? result.attributes : null };
  }

  async setattr(object: FileHandle, changes: NewAttributes): Promise<{ status: number }> {
    const args = { object, changes: { ...NO_CHANGES, ...changes }, guardCtime: null };
    return await this.#call(NfsProcedure.SETATTR, (w) => encodeSetattrArgs(w, args), decodeWccResult);
  }

  async lookup(directory: FileHandle, name: string): Promise<Found> {
    return found(await this.#call(NfsProcedure.LOOKUP, where(directory, name), decodeLookupResult));
  }

  async read(
    object: FileHandle,
    offsetBytes: number,
    countBytes: number,
  ): Promise<{ status: number; data: Buffer; eof: boolean; answeredBy: string }> {
    const encode = (w: XdrWriter): void => {
      w.opaque(object);
      encodeUint64(w, offsetBytes);
      w.uint32(countBytes);
    };
    const { result, answeredBy } = await this.#answer(NfsProcedure.READ, encode, decodeReadResult);
    return result.status === Status.OK ? { ...result, answeredBy } : { status: result.status, data: Buffer.alloc(0), eof: false, answeredBy };
  }

  async write(
    object: FileHandle,
    offsetBytes: number,
    data: Uint8Array,
    stability: Stability,
  ): Promise<{ status: number; countBytes: number; committed: Stability; verifier: string; answeredBy: string }> {
    const encode = (w: XdrWriter): void => encodeWriteArgs(w, object, offsetBytes, data, stability);
    const { result, answeredBy } = await this.#answer(NfsProcedure.WRITE, encode, decodeWriteResult, data.length + 256);
    if (result.status !== Status.OK) return { status: result.status, countBytes: 0, committed: 0, verifier: '', answeredBy };
    const verifier = Buffer.from(result.verifier).toString('hex');
    return { status: 0, countBytes: result.countBytes, committed: result.committed, verifier, answeredBy };
  }

  async commit(object: FileHandle): Promise<{ status: number; verifier: string }> {
    const encode = (w: XdrWriter): void => {
      w.opaque(object);
      encodeUint64(w, 0);
      w.uint32(0);
    };
    const result = await this.#call(NfsProcedure.COMMIT, encode, decodeCommitResult);
    return { status: result.status, verifier: result.status === Status.OK ? Buffer.from(result.verifier).toString('hex') : '' };
  }

  async create(directory: FileHandle, name: string, how: 'guarded' | 'unchecked', attributes: NewAttributes): Promise<Found> {
    const encode = (w: XdrWriter): void => {
      where(directory, name)(w);
      encodeCreateHow(w, { mode: how, attributes: { ...NO_CHANGES, ...attributes } });
    };
    return found(await this.#call(NfsProcedure.CREATE, encode, decodeCreateResult));
  }

  async mkdir(directory: FileHandle, name: string): Promise<Found> {
    const attributes: SetAttributes = { ...NO_CHANGES, mode: 0o755 };
    const encode = (w: XdrWriter): void => {
      where(directory, name)(w);
      encodeSetAttributes(w, attributes);
    };
    return found(await this.#call(NfsProcedure.MKDIR, encode, decodeCreateResult));
  }

  async remove(directory: FileHandle, name: string): Promise<{ status: number }> {
    return await this.#call(NfsProcedure.REMOVE, where(directory, name), decodeWccResult);
  }

  async rmdir(directory: FileHandle, name: string): Promise<{ status: number }> {
    return await this.#call(NfsProcedure.RMDIR, where(directory, name), decodeWccResult);
  }

  async rename(fromDirectory: FileHandle, fromName: string, toDirectory: FileHandle, toName: string): Promise<{ status: number }> {
    const encode = (w: XdrWriter): void => {
      where(fromDirectory, fromName)(w);
      where(toDirectory, toName)(w);
    };
    return await this.#call(NfsProcedure.RENAME, encode, decodeRenameResult);
  }

  async link(object: FileHandle, directory: FileHandle, name: string): Promise<{ status: number }> {
    const encode = (w: XdrWriter): void => {
      w.opaque(object);
      where(directory, name)(w);
    };
    return await this.#call(NfsProcedure.LINK, encode, decodeLinkResult);
  }

  async list(directory: FileHandle): Promise<Listed[]> {
    const listed: Listed[] = [];
    let cookie = 0n;
    let verifier: Uint8Array = Buffer.alloc(8);
    for (;;) {
      const encode = (w: XdrWriter): void => encodeReaddirplusArgs(w, directory, cookie, verifier, 65_536, 65_536);
      const page = await this.#call(NfsProcedure.READDIRPLUS, encode, (reader) => decodeReaddirResult(reader, true));
      if (page.status !== Status.OK) throw new Error(`READDIRPLUS: status ${page.status}`);
      for (const entry of page.entries) {
        cookie = entry.cookie;
        const name = entry.name.toString();
        if (name !== '.' && name !== '..') listed.push({ name, fileid: entry.fileid, attributes: entry.attributes });
      }
      verifier = Uint8Array.from(page.cookieVerifier);
      if (page.eof) return listed;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await (await ifMade(this.#connection))?.close();
  }

  async #call<T extends { readonly status: number }>(
    procedure: number,
    encode: (writer: XdrWriter) => void,
    decode: (reader: XdrReader) => T,
  ): Promise<T> {
    return (await this.#answer(procedure, encode, decode)).result;
  }

  async #answer<T extends { readonly status: number }>(
    procedure: number,
    encode: (writer: XdrWriter) => void,
    decode: (reader: XdrReader) => T,
    argsBytesMax = 16_384,
  ): Promise<{ readonly result: T; readonly answeredBy: string }> {
    const began = performance.now();
    const patienceMs = this.#options.patienceMs ?? 240_000;
    let xid = newXid();
    // What it took, when it took more than one call.
    let before = '';
    for (;;) {
      const using_ = this.#connection;
      const name = this.#options.routers[this.#at]?.name ?? '?';
      try {
        const connection = await using_;
        const reader = await connection.callNfs(procedure, encode, { xid, timeoutMs: this.#options.attemptMs ?? 5000, argsBytesMax });
        const result = decode(reader);
        this.longestMs = Math.max(this.longestMs, performance.now() - began);
        if (result.status !== Status.JUKEBOX) return { result, answeredBy: before === '' ? name : `${before}${name} xid ${xid.toString(16)}` };
        this.jukebox += 1;
        before += `${name} xid ${xid.toString(16)} JUKEBOX, `;
        xid = newXid();
        await pause(JUKEBOX_PAUSE_MS);
      } catch (error) {
        if (!(error instanceof ApplianceError) || !error.retryable || this.#closed) throw error;
        this.resends += 1;
        before += `${name} xid ${xid.toString(16)} ${error.code} after ${Math.round(performance.now() - began)} ms, `;
        await this.#moveOn(using_);
      }
      if (performance.now() - began > patienceMs)
        throw new Error(`procedure ${procedure} of ${this.#options.machineName}: no answer in ${patienceMs} ms: ${before}`);
    }
  }

  /** Connects to the next router, unless somebody did already. */
  async #moveOn(failed: Promise<NfsClient>): Promise<void> {
    if (this.#connection !== failed) return;
    const { routers } = this.#options;
    this.#at = (this.#at + 1) % routers.length;
    const router = routers[this.#at];
    if (router === undefined) throw new Error('no routers');
    const next = (async () => {
      await pause(CONNECT_PAUSE_MS);
      return await router.nfs({ credential: this.#credential });
    })();
    // The calls that wait for it learn why it could not be made; there may be none.
    next.catch(() => undefined);
    this.#connection = next;
    await (await ifMade(failed))?.close();
  }
}

/** Null: that router could not be reached, so there is nothing to close. */
async function ifMade(connection: Promise<NfsClient>): Promise<NfsClient | null> {
  try {
    return await connection;
  } catch (error) {
    if (error instanceof ApplianceError && error.retryable) return null;
    throw error;
  }
}

function where(directory: FileHandle, name: string): (writer: XdrWriter) => void {
  return (w) => {
    w.opaque(directory);
    w.opaque(Buffer.from(name));
  };
}

/** At random: two hosts with one address and name must differ in something. */
function newXid(): number {
  return randomInt(0x1_0000_0000);
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function found(result: { readonly status: number; readonly handle?: FileHandle | null; readonly attributes?: Attributes | null }): Found {
  if (result.status !== Status.OK) return { status: result.status, handle: new Uint8Array(0), attributes: null };
  return { status: Status.OK, handle: Uint8Array.from(result.handle ?? []), attributes: result.attributes ?? null };
}
