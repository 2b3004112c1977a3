/** A well-formed call of every procedure of NFS, MOUNT and port mapper, with the decoder of its results: seeds of fuzzing and tests. */
import type { XdrReader } from '../oncrpc/xdr-reader.ts';
import type { XdrWriter } from '../oncrpc/xdr-writer.ts';
import { encodeArgs } from './fake-call.ts';
import type { Handle } from './file-system.ts';
import { Stability } from './file-system.ts';
import { decodeExportList, decodeMountList, decodeMountResult, MountProcedure } from './mount-program.ts';
import { encodeSetAttributes, NO_CHANGES } from './nfs-wire.ts';
import { encodeBinding, encodeMapping, PortmapProcedure, RpcbindProcedure } from './portmap-program.ts';
import { NfsProcedure } from './procedure-table.ts';
import { decodeAccessResult } from './procedures/access.ts';
import { decodeCommitResult } from './procedures/commit.ts';
import { decodeCreateResult, encodeCreateHow } from './procedures/create.ts';
import { decodeFsinfoResult, decodeFsstatResult, decodePathconfResult } from './procedures/fsstat.ts';
import { decodeGetattrResult } from './procedures/getattr.ts';
import { decodeLookupResult } from './procedures/lookup.ts';
import { decodeReadResult } from './procedures/read.ts';
import { decodeReaddirResult, encodeReaddirArgs, encodeReaddirplusArgs } from './procedures/readdir.ts';
import { decodeReadlinkResult } from './procedures/readlink.ts';
import { decodeLinkResult, decodeRenameResult } from './procedures/rename.ts';
import { encodeSetattrArgs } from './procedures/setattr.ts';
import { decodeWccResult } from './procedures/wcc-result.ts';
import { decodeWriteResult, encodeWriteArgs } from './procedures/write.ts';

export interface GoldenCall {
  readonly version: number;
  readonly procedure: number;
  readonly args: Buffer;
  /** Decodes the whole results. @throws XdrError. */
  readonly decode: (results: XdrReader) => unknown;
}

/** What the calls are about: a directory, a file called `file` and a symbolic link in it. */
export interface GoldenObjects {
  readonly directory: Handle;
  readonly file: Handle;
  readonly link: Handle;
}

const ATTRIBUTES = { mode: 0o640, uid: 1, gid: 2, sizeBytes: 0, atime: 'server', mtime: { seconds: 1_700_000_000, nanoseconds: 5 } } as const;
const VERIFIER = Buffer.from('0102030405060708', 'hex');

/** One call or more of every NFSv3 procedure, NULL included. None of them fails on its own on fresh objects, but MKNOD, READLINK of a file and the like do. */
export function goldenNfsCalls({ directory, file, link }: GoldenObjects): GoldenCall[] {
  const call = (procedure: number, encode: (w: XdrWriter) => void, decode: GoldenCall['decode']): GoldenCall => ({
    version: 3,
    procedure,
    args: encodeArgs(encode),
    decode,
  });
  const where = (w: XdrWriter, name: string): void => {
    w.opaque(directory);
    w.string(name);
  };
  const range = (w: XdrWriter, countBytes: number): void => {
    w.opaque(file);
    w.uint64(4096n);
    w.uint32(countBytes);
  };
  const create = (name: string, how: Parameters<typeof encodeCreateHow>[1]): GoldenCall =>
    call(
      NfsProcedure.CREATE,
      (w) => {
        where(w, name);
        encodeCreateHow(w, how);
      },
      decodeCreateResult,
    );
  const mknod = (type: number, encodeRest: (w: XdrWriter) => void): GoldenCall =>
    call(
      NfsProcedure.MKNOD,
      (w) => {
        where(w, 'node');
        w.uint32(type);
        encodeRest(w);
      },
      decodeCreateResult,
    );
  return [
    call(
      NfsProcedure.NULL,
      () => undefined,
      () => undefined,
    ),
    call(NfsProcedure.GETATTR, (w) => w.opaque(file), decodeGetattrResult),
    call(
      NfsProcedure.SETATTR,
      (w) => encodeSetattrArgs(w, { object: file, changes: { ...ATTRIBUTES, sizeBytes: 12_345 }, guardCtime: null }),
      decodeWccResult,
    ),
    call(
      NfsProcedure.SETATTR,
      (w) => encodeSetattrArgs(w, { object: file, changes: NO_CHANGES, guardCtime: { seconds: 1, nanoseconds: 2 } }),
      decodeWccResult,
    ),
    call(NfsProcedure.LOOKUP, (w) => where(w, 'file'), decodeLookupResult),
    call(NfsProcedure.LOOKUP, (w) => where(w, '..'), decodeLookupResult),
    call(
      NfsProcedure.ACCESS,
      (w) => {
        w.opaque(file);
        w.uint32(0x3f);
      },
      decodeAccessResult,
    ),
    call(NfsProcedure.READLINK, (w) => w.opaque(link), decodeReadlinkResult),
    call(NfsProcedure.READ, (w) => range(w, 65_536), decodeReadResult),
    call(NfsProcedure.WRITE, (w) => encodeWriteArgs(w, file, 4096, Buffer.alloc(5001, 0x5a), Stability.UNSTABLE), decodeWriteResult),
    create('unchecked', { mode: 'unchecked', attributes: ATTRIBUTES }),
    create('guarded', { mode: 'guarded', attributes: NO_CHANGES }),
    create('exclusive', { mode: 'exclusive', verifier: VERIFIER }),
    call(
      NfsProcedure.MKDIR,
      (w) => {
        where(w, 'made');
        encodeSetAttributes(w, ATTRIBUTES);
      },
      decodeCreateResult,
    ),
    call(
      NfsProcedure.SYMLINK,
      (w) => {
        where(w, 'symlink');
        encodeSetAttributes(w, NO_CHANGES);
        w.string('../target');
      },
      decodeCreateResult,
    ),
    mknod(4, (w) => {
      encodeSetAttributes(w, NO_CHANGES);
      w.uint64(0n);
    }),
    mknod(7, (w) => encodeSetAttributes(w, NO_CHANGES)),
    mknod(1, () => undefined),
    call(NfsProcedure.REMOVE, (w) => where(w, 'guarded'), decodeWccResult),
    call(NfsProcedure.RMDIR, (w) => where(w, 'made'), decodeWccResult),
    call(
      NfsProcedure.RENAME,
      (w) => {
        where(w, 'unchecked');
        where(w, 'renamed');
      },
      decodeRenameResult,
    ),
    call(
      NfsProcedure.LINK,
      (w) => {
        w.opaque(file);
        where(w, 'linked');
      },
      decodeLinkResult,
    ),
    call(
      NfsProcedure.READDIR,
      (w) => encodeReaddirArgs(w, directory, 0, Buffer.alloc(8), 4096),
      (reader) => decodeReaddirResult(reader, false),
    ),
    call(
      NfsProcedure.READDIRPLUS,
      (w) => encodeReaddirplusArgs(w, directory, 1, Buffer.alloc(8), 1024, 8192),
      (reader) => decodeReaddirResult(reader, true),
    ),
    call(NfsProcedure.FSSTAT, (w) => w.opaque(directory), decodeFsstatResult),
    call(NfsProcedure.FSINFO, (w) => w.opaque(directory), decodeFsinfoResult),
    call(NfsProcedure.PATHCONF, (w) => w.opaque(directory), decodePathconfResult),
    call(NfsProcedure.COMMIT, (w) => range(w, 0), decodeCommitResult),
  ];
}

/** Every procedure of MOUNT, versions 1 and 3. */
export function goldenMountCalls(path: string): GoldenCall[] {
  const withPath = encodeArgs((w) => w.string(path));
  const nothing = Buffer.alloc(0);
  const ignore = (): undefined => undefined;
  return [
    { version: 3, procedure: MountProcedure.NULL, args: nothing, decode: ignore },
    { version: 3, procedure: MountProcedure.MNT, args: withPath, decode: decodeMountResult },
    { version: 3, procedure: MountProcedure.DUMP, args: nothing, decode: decodeMountList },
    { version: 3, procedure: MountProcedure.UMNT, args: withPath, decode: ignore },
    { version: 3, procedure: MountProcedure.UMNTALL, args: nothing, decode: ignore },
    { version: 3, procedure: MountProcedure.EXPORT, args: nothing, decode: decodeExportList },
    { version: 1, procedure: MountProcedure.UMNT, args: withPath, decode: ignore },
  ];
}

/** Every procedure of the port mapper, versions 2 to 4. */
export function goldenPortmapCalls(): GoldenCall[] {
  const mapping = encodeArgs((w) => encodeMapping(w, { program: 100_003, version: 3, protocol: 6, port: 2049 }));
  const binding = encodeArgs((w) => encodeBinding(w, { program: 100_003, version: 3, netid: 'tcp6', address: '::1.8.1', owner: 'superuser' }));
  const nothing = Buffer.alloc(0);
  const bool = (reader: XdrReader): boolean => reader.bool();
  const number = (reader: XdrReader): number => reader.uint32();
  const text = (reader: XdrReader): string => reader.string(255);
  const dump2 = (reader: XdrReader): void => {
    while (reader.bool()) reader.fixed(16);
  };
  const dump34 = (reader: XdrReader): void => {
    while (reader.bool()) {
      reader.fixed(8);
      for (let i = 0; i < 3; i++) reader.string(255);
    }
  };
  return [
    { version: 2, procedure: PortmapProcedure.SET, args: mapping, decode: bool },
    { version: 2, procedure: PortmapProcedure.UNSET, args: mapping, decode: bool },
    { version: 2, procedure: PortmapProcedure.GETPORT, args: mapping, decode: number },
    { version: 2, procedure: PortmapProcedure.DUMP, args: nothing, decode: dump2 },
    ...[3, 4].flatMap((version) => [
      { version, procedure: RpcbindProcedure.SET, args: binding, decode: bool },
      { version, procedure: RpcbindProcedure.UNSET, args: binding, decode: bool },
      { version, procedure: RpcbindProcedure.GETADDR, args: binding, decode: text },
      { version, procedure: RpcbindProcedure.DUMP, args: nothing, decode: dump34 },
      { version, procedure: RpcbindProcedure.GETTIME, args: nothing, decode: number },
    ]),
    { version: 4, procedure: RpcbindProcedure.GETVERSADDR, args: binding, decode: text },
  ];
}
