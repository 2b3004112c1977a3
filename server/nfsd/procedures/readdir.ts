/** READDIR and READDIRPLUS, RFC 1813 §3.3.16, §3.3.17: pages cut by computed XDR sizes. */
import { isPending } from '../../core/maybe-promise.ts';
import type { XdrReader } from '../../oncrpc/xdr-reader.ts';
import type { XdrWriter } from '../../oncrpc/xdr-writer.ts';
import type { Attributes, AttributedResult, DirectoryEntry, Handle } from '../file-system.ts';
import { Status } from '../file-system.ts';
import type { NfsCall, NfsContext } from '../nfs-call.ts';
import {
  decodeHandle,
  decodePostOpAttributes,
  decodePostOpHandle,
  decodeStatus,
  decodeUint64Clamped,
  encodePostOpAttributes,
  encodePostOpHandle,
  encodeUint64,
  errorStatus,
  FATTR3_BYTES,
  NAME_WIRE_BYTES_MAX,
  VERIFIER_BYTES,
} from '../nfs-wire.ts';

type FileSystemReaddirResult = AttributedResult<{
  entries: readonly DirectoryEntry[];
  eof: boolean;
  attributes: Attributes | null;
  cookieVerifier: Uint8Array;
}>;

/** An entry as a client sees it: other servers' cookies use all 64 bits. */
export interface ClientDirectoryEntry {
  readonly fileid: number;
  readonly name: Buffer;
  readonly cookie: bigint;
  readonly attributes: Attributes | null;
  readonly handle: Handle | null;
}
export type ReaddirResult = AttributedResult<{
  entries: readonly ClientDirectoryEntry[];
  eof: boolean;
  attributes: Attributes | null;
  cookieVerifier: Uint8Array;
}>;

/** entry3 with a name of one byte: value_follows, fileid, name, cookie. */
const ENTRY_BYTES_MIN = 4 + 8 + 8 + 8;
/** entryplus3 with attributes, a handle of 16 bytes and a name of one byte. Entries may be shorter: then a page is not full. */
const ENTRY_PLUS_BYTES_MIN = ENTRY_BYTES_MIN + 4 + FATTR3_BYTES + 8 + 16;
/** entryplus3 without what dircount does not count: fileid, name and cookie. */
const ENTRY_INFORMATION_BYTES_MIN = 8 + 8 + 8;
/** End of the list, eof. */
const TAIL_BYTES = 8;

/** READDIR3args: struct { nfs_fh3 dir; cookie3 cookie; cookieverf3 cookieverf; count3 count; }; count limits READDIR3resok. */
export function serveReaddir(context: NfsContext, call: NfsCall): void | Promise<void> {
  const args = call.args;
  const directory = decodeHandle(args);
  const cookie = decodeUint64Clamped(args);
  const verifier = args.fixed(VERIFIER_BYTES);
  const pageBytes = Math.min(args.uint32(), context.readdirBytesMax);
  args.assertEnd();
  const limit = Math.floor(pageBytes / ENTRY_BYTES_MIN) + 1;
  const result = context.fileSystem.readdir(call, directory, cookie, verifier, limit, false);
  if (isPending(result)) return result.then((settled) => reply(call, settled, false, pageBytes, pageBytes));
  reply(call, result, false, pageBytes, pageBytes);
}

/**
 * READDIRPLUS3args: struct { nfs_fh3 dir; cookie3 cookie; cookieverf3 cookieverf; count3 dircount; count3 maxcount; }: maxcount limits
 * READDIRPLUS3resok, dircount the fileids, names and cookies in it. dircount never stops the first entry: a listing must go on.
 */
export function serveReaddirplus(context: NfsContext, call: NfsCall): void | Promise<void> {
  const args = call.args;
  const directory = decodeHandle(args);
  const cookie = decodeUint64Clamped(args);
  const verifier = args.fixed(VERIFIER_BYTES);
  const informationBytes = args.uint32();
  const pageBytes = Math.min(args.uint32(), context.readdirBytesMax);
  args.assertEnd();
  const limit = Math.floor(Math.min(pageBytes / ENTRY_PLUS_BYTES_MIN, informationBytes / ENTRY_INFORMATION_BYTES_MIN)) + 1;
  const result = context.fileSystem.readdir(call, directory, cookie, verifier, limit, true);
  if (isPending(result)) return result.then((settled) => reply(call, settled, true, pageBytes, informationBytes));
  reply(call, result, true, pageBytes, informationBytes);
}

/**
 * READDIR3resok: struct { post_op_attr dir_attributes; cookieverf3 cookieverf; dirlist3 reply; } with dirlist3: struct { entry3 *entries;
 * bool eof; }; resfail: post_op_attr. The limits count resok, not the status before it.
 */
function reply(call: NfsCall, result: FileSystemReaddirResult, plus: boolean, pageBytes: number, informationBytes: number): void {
  if (result.status !== Status.OK) return call.fail(result.status, result.attributes);
  const { entries } = result;
  const headBytes = (result.attributes === null ? 4 : 4 + FATTR3_BYTES) + VERIFIER_BYTES;
  let leftBytes = pageBytes - headBytes - TAIL_BYTES;
  let leftInformationBytes = informationBytes;
  let count = 0;
  for (const entry of entries) {
    const informationBytesOfEntry = 8 + 4 + ((entry.name.length + 3) & ~3) + 8;
    const entryBytes = 4 + informationBytesOfEntry + (plus ? plusBytes(entry) : 0);
    if (entryBytes > leftBytes || (plus && count > 0 && informationBytesOfEntry > leftInformationBytes)) break;
    leftBytes -= entryBytes;
    leftInformationBytes -= informationBytesOfEntry;
    count += 1;
  }
  // An empty page that is not the end would be asked for again for ever.
  if (leftBytes < 0 || (count === 0 && (entries.length > 0 || !result.eof))) return call.fail(Status.TOOSMALL, result.attributes);
  const writer = call.begin(4 + pageBytes - leftBytes);
  writer.uint32(Status.OK);
  encodePostOpAttributes(writer, result.attributes);
  writer.fixed(result.cookieVerifier);
  for (let i = 0; i < count; i++) encodeEntry(writer, entries[i]!, plus);
  writer.bool(false);
  writer.bool(result.eof && count === entries.length);
  call.finish(Status.OK);
}

function plusBytes(entry: DirectoryEntry): number {
  return (entry.attributes === null ? 4 : 4 + FATTR3_BYTES) + (entry.handle === null ? 4 : 8 + ((entry.handle.length + 3) & ~3));
}

/** entry3: struct { fileid3 fileid; filename3 name; cookie3 cookie; entry3 *nextentry; }; entryplus3 adds post_op_attr and post_op_fh3. */
function encodeEntry(writer: XdrWriter, entry: DirectoryEntry, plus: boolean): void {
  writer.bool(true);
  writer.uint64FromNumber(entry.fileid);
  writer.opaque(entry.name);
  writer.uint64FromNumber(entry.cookie);
  if (!plus) return;
  encodePostOpAttributes(writer, entry.attributes);
  encodePostOpHandle(writer, entry.handle);
}

export function encodeReaddirArgs(writer: XdrWriter, directory: Handle, cookie: number | bigint, verifier: Uint8Array, countBytes: number): void {
  writer.opaque(directory);
  encodeUint64(writer, cookie);
  writer.fixed(verifier);
  writer.uint32(countBytes);
}

export function encodeReaddirplusArgs(
  writer: XdrWriter,
  directory: Handle,
  cookie: number | bigint,
  verifier: Uint8Array,
  dirCountBytes: number,
  maxCountBytes: number,
): void {
  encodeReaddirArgs(writer, directory, cookie, verifier, dirCountBytes);
  writer.uint32(maxCountBytes);
}

/** Names and handles are views of the reply. */
export function decodeReaddirResult(reader: XdrReader, plus: boolean): ReaddirResult {
  const status = decodeStatus(reader);
  const attributes = decodePostOpAttributes(reader);
  if (status !== Status.OK) return { status: errorStatus(status), attributes };
  const cookieVerifier = reader.fixed(VERIFIER_BYTES);
  const entries: ClientDirectoryEntry[] = [];
  while (reader.bool()) {
    entries.push({
      fileid: decodeUint64Clamped(reader),
      name: reader.opaque(NAME_WIRE_BYTES_MAX),
      cookie: reader.uint64(),
      attributes: plus ? decodePostOpAttributes(reader) : null,
      handle: plus ? decodePostOpHandle(reader) : null,
    });
  }
  return { status, attributes, cookieVerifier, entries, eof: reader.bool() };
}
