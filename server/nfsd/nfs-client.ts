/**
 * A typed client of NFSv3 and MOUNT v3 over RpcClients: for tests, the crash writer, benchmarks and health checks. One method is one
 * call; results are decoded, with their status, and nothing is retried or cached. Handles, names and data in results are views of the
 * reply that stay valid. RPC-level refusals and lost connections are thrown as RpcClient throws them; replies that do not decode are XdrErrors.
 */
import { authSys, RpcClient } from '../oncrpc/rpc-client.ts';
import type { RpcCallOptions } from '../oncrpc/rpc-client.ts';
import type { RpcCredential } from '../oncrpc/rpc-program.ts';
import type { XdrReader } from '../oncrpc/xdr-reader.ts';
import type { XdrWriter } from '../oncrpc/xdr-writer.ts';
import type { ExportEntry } from './export-access.ts';
import type { Attributes, CreateHow, Handle, Result, SetAttributes, Stability, WccResult, WriteAnswer } from './file-system.ts';
import { decodeExportList, decodeMountList, decodeMountResult, MOUNT_PROGRAM, MOUNT_VERSION, MountProcedure } from './mount-program.ts';
import type { MountEntry, MountResult } from './mount-program.ts';
import { encodeSetAttributes, encodeUint64, NFS_PROGRAM, NFS_VERSION, NO_CHANGES } from './nfs-wire.ts';
import { NfsProcedure } from './procedure-table.ts';
import { decodeAccessResult } from './procedures/access.ts';
import { decodeCommitResult } from './procedures/commit.ts';
import type { CommitResult } from './procedures/commit.ts';
import { decodeCreateResult, encodeCreateHow } from './procedures/create.ts';
import type { CreateResult } from './procedures/create.ts';
import { decodeFsinfoResult, decodeFsstatResult, decodePathconfResult } from './procedures/fsstat.ts';
import { decodeGetattrResult } from './procedures/getattr.ts';
import { decodeLookupResult } from './procedures/lookup.ts';
import { decodeReadResult } from './procedures/read.ts';
import type { ReadResult } from './procedures/read.ts';
import { decodeReaddirResult, encodeReaddirArgs, encodeReaddirplusArgs } from './procedures/readdir.ts';
import type { ReaddirResult } from './procedures/readdir.ts';
import { decodeReadlinkResult } from './procedures/readlink.ts';
import { decodeLinkResult, decodeRenameResult } from './procedures/rename.ts';
import type { LinkResult, RenameResult } from './procedures/rename.ts';
import { encodeSetattrArgs } from './procedures/setattr.ts';
import type { SetattrArgs } from './procedures/setattr.ts';
import { decodeWccResult } from './procedures/wcc-result.ts';
import { decodeWriteResult, encodeWriteArgs } from './procedures/write.ts';

const ZERO_VERIFIER = Buffer.alloc(8);
/** Room for the arguments besides data: two handles, two names or a path, attributes. */
const ARGS_BYTES_MAX = 16 * 1024;
const DEFAULT_DIRECTORY_BYTES = 64 * 1024;

/** A name: text is sent as UTF-8. */
export type Name = string | Uint8Array;

export interface NfsClientOptions {
  readonly host: string;
  readonly nfsPort: number;
  /** Default: the NFS port, where MOUNT is served too. */
  readonly mountPort?: number;
  /** Default: AUTH_SYS, uid 0. */
  readonly credential?: RpcCredential;
  readonly localAddress?: string;
  /** For every call; see RpcCallOptions. */
  readonly timeoutMs?: number;
}

function nameBytes(name: Name): Uint8Array {
  return typeof name === 'string' ? Buffer.from(name) : name;
}

function encodeWhere(writer: XdrWriter, directory: Handle, name: Name): void {
  writer.opaque(directory);
  writer.opaque(nameBytes(name));
}

export class NfsClient {
  /** The connection that NFS calls go over, for raw calls beside the typed ones. */
  readonly rpc: RpcClient;
  /** The one for MOUNT: the same, unless MOUNT has a port of its own. */
  readonly mountRpc: RpcClient;
  readonly #timeout: RpcCallOptions;

  private constructor(rpc: RpcClient, mountRpc: RpcClient, timeout: RpcCallOptions) {
    this.rpc = rpc;
    this.mountRpc = mountRpc;
    this.#timeout = timeout;
  }

  /** @throws ApplianceError `rpc-connect-failed`. */
  static async connect(options: NfsClientOptions): Promise<NfsClient> {
    const connection = {
      host: options.host,
      credential: options.credential ?? authSys(),
      ...(options.localAddress === undefined ? {} : { localAddress: options.localAddress }),
    };
    const rpc = await RpcClient.connect({ ...connection, port: options.nfsPort });
    const sharesPort = options.mountPort === undefined || options.mountPort === options.nfsPort;
    const timeout = options.timeoutMs === undefined ? {} : { timeoutMs: options.timeoutMs };
    try {
      return new NfsClient(rpc, sharesPort ? rpc : await RpcClient.connect({ ...connection, port: options.mountPort }), timeout);
    } catch (error) {
      await rpc.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.rpc.close();
    if (this.mountRpc !== this.rpc) await this.mountRpc.close();
  }

  /** Any NFS procedure with arguments of your own; `options` override the client's. */
  callNfs(procedure: number, encode: ((writer: XdrWriter) => void) | null, options: RpcCallOptions = {}): Promise<XdrReader> {
    return this.rpc.call(NFS_PROGRAM, NFS_VERSION, procedure, encode, { argsBytesMax: ARGS_BYTES_MAX, ...this.#timeout, ...options });
  }

  #callMount(procedure: number, encode: ((writer: XdrWriter) => void) | null): Promise<XdrReader> {
    return this.mountRpc.call(MOUNT_PROGRAM, MOUNT_VERSION, procedure, encode, { argsBytesMax: ARGS_BYTES_MAX, ...this.#timeout });
  }

  /** MNT. The path goes over the wire as it is, e.g. `/vpool1`. */
  async mount(path: string): Promise<MountResult> {
    return decodeMountResult(await this.#callMount(MountProcedure.MNT, (w) => w.opaque(Buffer.from(path))));
  }

  async unmount(path: string): Promise<void> {
    await this.#callMount(MountProcedure.UMNT, (w) => w.opaque(Buffer.from(path)));
  }

  async unmountAll(): Promise<void> {
    await this.#callMount(MountProcedure.UMNTALL, null);
  }

  async mounts(): Promise<MountEntry[]> {
    return decodeMountList(await this.#callMount(MountProcedure.DUMP, null));
  }

  async exports(): Promise<ExportEntry[]> {
    return decodeExportList(await this.#callMount(MountProcedure.EXPORT, null));
  }

  async null(): Promise<void> {
    await this.callNfs(NfsProcedure.NULL, null);
  }

  async getattr(object: Handle): Promise<Result<{ attributes: Attributes }>> {
    return decodeGetattrResult(await this.callNfs(NfsProcedure.GETATTR, (w) => w.opaque(object)));
  }

  async setattr(
    object: Handle,
    changes: Partial<SetAttributes>,
    guardCtime: SetattrArgs['guardCtime'] = null,
    options: RpcCallOptions = {},
  ): Promise<WccResult> {
    const args = { object, changes: { ...NO_CHANGES, ...changes }, guardCtime };
    return decodeWccResult(await this.callNfs(NfsProcedure.SETATTR, (w) => encodeSetattrArgs(w, args), options));
  }

  async lookup(directory: Handle, name: Name): Promise<ReturnType<typeof decodeLookupResult>> {
    return decodeLookupResult(await this.callNfs(NfsProcedure.LOOKUP, (w) => encodeWhere(w, directory, name)));
  }

  async access(object: Handle, mask: number): Promise<ReturnType<typeof decodeAccessResult>> {
    const encode = (w: XdrWriter): void => {
      w.opaque(object);
      w.uint32(mask);
    };
    return decodeAccessResult(await this.callNfs(NfsProcedure.ACCESS, encode));
  }

  async readlink(object: Handle): Promise<ReturnType<typeof decodeReadlinkResult>> {
    return decodeReadlinkResult(await this.callNfs(NfsProcedure.READLINK, (w) => w.opaque(object)));
  }

  async read(object: Handle, offsetBytes: number | bigint, countBytes: number): Promise<ReadResult> {
    return decodeReadResult(await this.callNfs(NfsProcedure.READ, (w) => encodeRange(w, object, offsetBytes, countBytes)));
  }

  /** `countOverride` puts a count on the wire that is not the data's length. */
  async write(object: Handle, offsetBytes: number | bigint, data: Uint8Array, stability: Stability, countOverride?: number): Promise<WriteAnswer> {
    const encode = (w: XdrWriter): void => encodeWriteArgs(w, object, offsetBytes, data, stability, countOverride);
    return decodeWriteResult(await this.callNfs(NfsProcedure.WRITE, encode, { argsBytesMax: data.length + 256 }));
  }

  async commit(object: Handle, offsetBytes: number | bigint = 0, countBytes = 0): Promise<CommitResult> {
    return decodeCommitResult(await this.callNfs(NfsProcedure.COMMIT, (w) => encodeRange(w, object, offsetBytes, countBytes)));
  }

  async create(directory: Handle, name: Name, how: CreateHow, options: RpcCallOptions = {}): Promise<CreateResult> {
    const encode = (w: XdrWriter): void => {
      encodeWhere(w, directory, name);
      encodeCreateHow(w, how);
    };
    return decodeCreateResult(await this.callNfs(NfsProcedure.CREATE, encode, options));
  }

  async mkdir(directory: Handle, name: Name, attributes: Partial<SetAttributes> = {}, options: RpcCallOptions = {}): Promise<CreateResult> {
    const encode = (w: XdrWriter): void => {
      encodeWhere(w, directory, name);
      encodeSetAttributes(w, { ...NO_CHANGES, ...attributes });
    };
    return decodeCreateResult(await this.callNfs(NfsProcedure.MKDIR, encode, options));
  }

  async symlink(directory: Handle, name: Name, target: Name, attributes: Partial<SetAttributes> = {}): Promise<CreateResult> {
    const encode = (w: XdrWriter): void => {
      encodeWhere(w, directory, name);
      encodeSetAttributes(w, { ...NO_CHANGES, ...attributes });
      w.opaque(nameBytes(target));
    };
    return decodeCreateResult(await this.callNfs(NfsProcedure.SYMLINK, encode));
  }

  /** A FIFO: servers without special files answer NOTSUPP. */
  async mknodFifo(directory: Handle, name: Name): Promise<CreateResult> {
    const encode = (w: XdrWriter): void => {
      encodeWhere(w, directory, name);
      w.uint32(7);
      encodeSetAttributes(w, NO_CHANGES);
    };
    return decodeCreateResult(await this.callNfs(NfsProcedure.MKNOD, encode));
  }

  async remove(directory: Handle, name: Name, options: RpcCallOptions = {}): Promise<WccResult> {
    return decodeWccResult(await this.callNfs(NfsProcedure.REMOVE, (w) => encodeWhere(w, directory, name), options));
  }

  async rmdir(directory: Handle, name: Name, options: RpcCallOptions = {}): Promise<WccResult> {
    return decodeWccResult(await this.callNfs(NfsProcedure.RMDIR, (w) => encodeWhere(w, directory, name), options));
  }

  async rename(fromDirectory: Handle, fromName: Name, toDirectory: Handle, toName: Name, options: RpcCallOptions = {}): Promise<RenameResult> {
    const encode = (w: XdrWriter): void => {
      encodeWhere(w, fromDirectory, fromName);
      encodeWhere(w, toDirectory, toName);
    };
    return decodeRenameResult(await this.callNfs(NfsProcedure.RENAME, encode, options));
  }

  async link(object: Handle, directory: Handle, name: Name, options: RpcCallOptions = {}): Promise<LinkResult> {
    const encode = (w: XdrWriter): void => {
      w.opaque(object);
      encodeWhere(w, directory, name);
    };
    return decodeLinkResult(await this.callNfs(NfsProcedure.LINK, encode, options));
  }

  async readdir(
    directory: Handle,
    cookie: number | bigint = 0,
    cookieVerifier: Uint8Array = ZERO_VERIFIER,
    countBytes = DEFAULT_DIRECTORY_BYTES,
  ): Promise<ReaddirResult> {
    const encode = (w: XdrWriter): void => encodeReaddirArgs(w, directory, cookie, cookieVerifier, countBytes);
    return decodeReaddirResult(await this.callNfs(NfsProcedure.READDIR, encode), false);
  }

  async readdirplus(
    directory: Handle,
    cookie: number | bigint = 0,
    cookieVerifier: Uint8Array = ZERO_VERIFIER,
    dirCountBytes = DEFAULT_DIRECTORY_BYTES,
    maxCountBytes = DEFAULT_DIRECTORY_BYTES,
  ): Promise<ReaddirResult> {
    const encode = (w: XdrWriter): void => encodeReaddirplusArgs(w, directory, cookie, cookieVerifier, dirCountBytes, maxCountBytes);
    return decodeReaddirResult(await this.callNfs(NfsProcedure.READDIRPLUS, encode), true);
  }

  async fsstat(object: Handle): Promise<ReturnType<typeof decodeFsstatResult>> {
    return decodeFsstatResult(await this.callNfs(NfsProcedure.FSSTAT, (w) => w.opaque(object)));
  }

  async fsinfo(object: Handle): Promise<ReturnType<typeof decodeFsinfoResult>> {
    return decodeFsinfoResult(await this.callNfs(NfsProcedure.FSINFO, (w) => w.opaque(object)));
  }

  async pathconf(object: Handle): Promise<ReturnType<typeof decodePathconfResult>> {
    return decodePathconfResult(await this.callNfs(NfsProcedure.PATHCONF, (w) => w.opaque(object)));
  }
}

/** READ3args and COMMIT3args: handle, offset, count. */
function encodeRange(writer: XdrWriter, object: Handle, offsetBytes: number | bigint, countBytes: number): void {
  writer.opaque(object);
  encodeUint64(writer, offsetBytes);
  writer.uint32(countBytes);
}
