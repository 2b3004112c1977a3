/**
 * MOUNT (program 100005), RFC 1813 appendix I: version 3, and of versions 1 and 2 (RFC 1094 appendix A) what unmounting and listing need.
 *
 * The mount list is what the protocol makes of it: a hint for people. It is bounded and lost at a restart.
 */
import { assert } from '../core/assert.ts';
import type { Logger } from '../core/logger.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import { isPending } from '../core/maybe-promise.ts';
import type { DispatchRefusal, RpcCall, RpcProgram } from '../oncrpc/rpc-program.ts';
import type { XdrReader } from '../oncrpc/xdr-reader.ts';
import type { XdrWriter } from '../oncrpc/xdr-writer.ts';
import type { ExportAccess, ExportEntry } from './export-access.ts';
import type { Caller, FileSystem, Handle, Result } from './file-system.ts';
import { Status } from './file-system.ts';
import { HANDLE_BYTES_ENCODED_MAX, HANDLE_BYTES_MAX } from './nfs-wire.ts';

export const MOUNT_PROGRAM = 100_005;
export const MOUNT_VERSION = 3;

/** MNTPATHLEN and MNTNAMLEN, appendix I. */
const PATH_BYTES_MAX = 1024;
const COMPONENT_BYTES_MAX = 255;
/** Longest path that is read off the wire; longer is GARBAGE_ARGS. */
const PATH_WIRE_BYTES_MAX = 16 * 1024;
/** Longest list of mounts; the oldest is forgotten. */
const MOUNTS_MAX = 1024;

/** rpc auth_flavor, RFC 5531 §8.1. */
const AUTH_SYS = 1;

export const MountProcedure = { NULL: 0, MNT: 1, DUMP: 2, UMNT: 3, UMNTALL: 4, EXPORT: 5 } as const;
const PROCEDURE_NAMES = ['null', 'mnt', 'dump', 'umnt', 'umntall', 'export'];

/** mountstat3, appendix I. The numbers are those of nfsstat3. */
export const MountStatus = {
  OK: 0,
  PERM: 1,
  NOENT: 2,
  IO: 5,
  ACCES: 13,
  NOTDIR: 20,
  INVAL: 22,
  NAMETOOLONG: 63,
  NOTSUPP: 10004,
  SERVERFAULT: 10006,
} as const;
export type MountStatus = (typeof MountStatus)[keyof typeof MountStatus];

/** The nfsstat3 that `mount` of a FileSystem may give, as mountstat3. */
function mountStatus(status: number): MountStatus {
  for (const known of Object.values(MountStatus)) if (known === status) return known;
  return MountStatus.SERVERFAULT;
}

/**
 * A dirpath as its components joined: `vpool1`, `/vpool1`, `/vpool1/` and `//vpool1/.` are the same export (ESXi sends what was typed,
 * esxi.md 1.1). Null when it goes up (`..`), which no export path does, or contains NUL.
 */
export function normalizeMountPath(path: string): string | null {
  const components = path.split('/').filter((component) => component !== '' && component !== '.');
  return components.includes('..') || path.includes('\0') ? null : components.join('/');
}

export interface MountProgramComponents {
  readonly fileSystem: FileSystem;
  readonly access: ExportAccess;
  readonly logger: Logger;
}

export interface MountEntry {
  readonly hostname: string;
  readonly directory: string;
}

export class MountProgram implements RpcProgram {
  readonly program = MOUNT_PROGRAM;
  readonly versionFirst = 1;
  readonly versionLast = MOUNT_VERSION;
  readonly name = 'mount';
  readonly #fileSystem: FileSystem;
  readonly #access: ExportAccess;
  readonly #logger: Logger;
  /** `host path` -> entry, oldest first. */
  readonly #mounts = new Map<string, MountEntry>();

  constructor(components: MountProgramComponents) {
    this.#fileSystem = components.fileSystem;
    this.#access = components.access;
    this.#logger = components.logger;
  }

  procedureName(_version: number, procedure: number): string {
    return PROCEDURE_NAMES[procedure] ?? 'unknown';
  }

  /** All procedures repeat harmlessly. */
  isCached(): boolean {
    return false;
  }

  dispatch(call: RpcCall): MaybePromise<DispatchRefusal> {
    switch (call.procedure) {
      case MountProcedure.NULL:
        call.args.assertEnd();
        return finish(call, call.beginReply(0));
      case MountProcedure.MNT:
        // Handles of versions 1 and 2 have 32 bytes and belong to NFSv2, which is not served.
        return call.version === MOUNT_VERSION ? this.#mount(call) : 'procedure-unavailable';
      case MountProcedure.DUMP:
        call.args.assertEnd();
        return this.#dump(call);
      case MountProcedure.UMNT:
        return this.#unmount(call);
      case MountProcedure.UMNTALL:
        call.args.assertEnd();
        for (const [key, entry] of this.#mounts) if (entry.hostname === call.clientAddress) this.#mounts.delete(key);
        return finish(call, call.beginReply(0));
      case MountProcedure.EXPORT:
        call.args.assertEnd();
        return this.#export(call);
      default:
        return 'procedure-unavailable';
    }
  }

  /** mountres3 MOUNTPROC3_MNT(dirpath), appendix I §5.2.1. */
  #mount(call: RpcCall): MaybePromise<DispatchRefusal> {
    const wirePath = call.args.string(PATH_WIRE_BYTES_MAX);
    call.args.assertEnd();
    const path = normalizeMountPath(wirePath);
    if (path === null) return replyMount(call, MountStatus.INVAL);
    if (wirePath.length > PATH_BYTES_MAX || path.split('/').some((component) => component.length > COMPONENT_BYTES_MAX)) {
      return replyMount(call, MountStatus.NAMETOOLONG);
    }
    const exportName = path.split('/', 1)[0] ?? '';
    // Here and not at the first use: ESXi takes a mount that succeeded for usable (esxi.md 1.1).
    if (this.#access.decide(call.clientAddress, exportName) === 'denied') {
      this.#logger.warn(
        { client: call.clientAddress, path: wirePath },
        'mount refused: the client is in none of the networks allowed for this export',
      );
      return replyMount(call, MountStatus.ACCES);
    }
    const result = this.#fileSystem.mount(mountCaller(call), path);
    if (isPending(result)) return result.then((settled) => this.#mounted(call, path, settled));
    return this.#mounted(call, path, result);
  }

  #mounted(call: RpcCall, path: string, result: Result<{ handle: Handle }>): null {
    if (result.status !== Status.OK) return replyMount(call, mountStatus(result.status));
    const directory = `/${path}`;
    const key = `${call.clientAddress} ${directory}`;
    this.#mounts.delete(key);
    this.#mounts.set(key, { hostname: call.clientAddress, directory });
    for (const oldest of this.#mounts.keys()) {
      if (this.#mounts.size <= MOUNTS_MAX) break;
      this.#mounts.delete(oldest);
    }
    this.#logger.info({ client: call.clientAddress, path: directory }, 'mounted');
    return replyMount(call, MountStatus.OK, result.handle);
  }

  /** void MOUNTPROC3_UMNT(dirpath), appendix I §5.2.3: succeeds whatever the path is (a path without slash crashed another server). */
  #unmount(call: RpcCall): null {
    const path = normalizeMountPath(call.args.string(PATH_WIRE_BYTES_MAX));
    call.args.assertEnd();
    if (path !== null) this.#mounts.delete(`${call.clientAddress} /${path}`);
    return finish(call, call.beginReply(0));
  }

  /** mountlist MOUNTPROC3_DUMP(void): struct mountbody { name ml_hostname; dirpath ml_directory; mountlist ml_next; }. */
  #dump(call: RpcCall): null {
    const entries = [...this.#mounts.values()];
    let bytes = 4;
    for (const entry of entries) bytes += 4 + stringBytes(entry.hostname) + stringBytes(entry.directory);
    const writer = call.beginReply(bytes);
    for (const entry of entries) {
      writer.bool(true);
      writer.string(entry.hostname);
      writer.string(entry.directory);
    }
    writer.bool(false);
    return finish(call, writer);
  }

  /** exports MOUNTPROC3_EXPORT(void): struct exportnode { dirpath ex_dir; groups ex_groups; exports ex_next; }. */
  #export(call: RpcCall): null {
    const entries = this.#access.list();
    let bytes = 4;
    for (const entry of entries) bytes += 4 + stringBytes(entry.path) + entry.groups.reduce((sum, group) => sum + 4 + stringBytes(group), 4);
    const writer = call.beginReply(bytes);
    for (const entry of entries) {
      writer.bool(true);
      writer.string(entry.path);
      for (const group of entry.groups) {
        writer.bool(true);
        writer.string(group);
      }
      writer.bool(false);
    }
    writer.bool(false);
    return finish(call, writer);
  }
}

function stringBytes(text: string): number {
  return 4 + ((text.length + 3) & ~3);
}

function finish(call: RpcCall, writer: XdrWriter): null {
  call.finish(writer);
  return null;
}

function mountCaller(call: RpcCall): Caller {
  const { credential, clientAddress, xid } = call;
  return {
    uid: credential.uid,
    gid: credential.gid,
    gids: credential.gids,
    address: clientAddress,
    operationId: () => `${clientAddress}|${credential.machineName}|${credential.stamp}|${xid}|${call.messageHash()}`,
    writeIdentity: () => {
      assert(false, 'MOUNT writes nothing');
    },
  };
}

/** mountres3: union switch (mountstat3) { case MNT3_OK: struct { fhandle3 fhandle; int auth_flavors<>; }; default: void; } */
function replyMount(call: RpcCall, status: MountStatus, handle?: Handle): null {
  const writer = call.beginReply(4 + HANDLE_BYTES_ENCODED_MAX + 8);
  writer.uint32(status);
  if (status === MountStatus.OK && handle !== undefined) {
    writer.opaque(handle);
    // AUTH_SYS alone: NFS calls with AUTH_NONE are refused by default, and some clients take whatever comes first.
    writer.uint32(1);
    writer.uint32(AUTH_SYS);
  }
  return finish(call, writer);
}

/** What a client gets of MNT. */
export type MountResult =
  | { readonly status: 0; readonly handle: Buffer; readonly flavors: readonly number[] }
  | { readonly status: Exclude<MountStatus, 0> };

export function decodeMountResult(reader: XdrReader): MountResult {
  const status = reader.uint32() as MountStatus;
  if (status !== MountStatus.OK) return { status };
  const handle = Buffer.from(reader.opaque(HANDLE_BYTES_MAX));
  const flavors: number[] = [];
  for (let left = reader.uint32(); left > 0; left--) flavors.push(reader.uint32());
  return { status, handle, flavors };
}

export function decodeMountList(reader: XdrReader): MountEntry[] {
  const entries: MountEntry[] = [];
  while (reader.bool()) entries.push({ hostname: reader.string(255), directory: reader.string(PATH_BYTES_MAX) });
  return entries;
}

export function decodeExportList(reader: XdrReader): ExportEntry[] {
  const entries: ExportEntry[] = [];
  while (reader.bool()) {
    const path = reader.string(PATH_BYTES_MAX);
    const groups: string[] = [];
    while (reader.bool()) groups.push(reader.string(255));
    entries.push({ path, groups });
  }
  return entries;
}
