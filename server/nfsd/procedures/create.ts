/** CREATE, MKDIR, SYMLINK and MKNOD, RFC 1813 §3.3.8 to §3.3.11: their results are the same. */
import { isPending } from '../../core/maybe-promise.ts';
import { XdrError } from '../../oncrpc/xdr-error.ts';
import type { XdrReader } from '../../oncrpc/xdr-reader.ts';
import type { XdrWriter } from '../../oncrpc/xdr-writer.ts';
import type { Attributes, Created, CreateHow, Handle, SetAttributes, WccResult } from '../file-system.ts';
import { Status } from '../file-system.ts';
import { decodeName, newNameError } from '../names.ts';
import { refuse } from '../nfs-call.ts';
import type { NfsCall, NfsContext } from '../nfs-call.ts';
import {
  decodeHandle,
  decodePostOpAttributes,
  decodePostOpHandle,
  decodeSetAttributes,
  decodeStatus,
  decodeWcc,
  encodePostOpAttributes,
  encodePostOpHandle,
  encodeSetAttributes,
  encodeWcc,
  errorStatus,
  HANDLE_BYTES_ENCODED_MAX,
  PATH_BYTES_MAX,
  POST_OP_ATTR_BYTES_MAX,
  VERIFIER_BYTES,
  WCC_DATA_BYTES_MAX,
} from '../nfs-wire.ts';
import { setAttributesError } from './setattr.ts';

/** What a client learns: handle and attributes are optional on the wire. */
export type CreateResult = WccResult<{ handle: Handle | null; attributes: Attributes | null }>;

/** createmode3: enum { UNCHECKED = 0, GUARDED = 1, EXCLUSIVE = 2 } */
const UNCHECKED = 0;
const GUARDED = 1;
const EXCLUSIVE = 2;

/** createhow3: union switch (createmode3 mode) { case UNCHECKED: case GUARDED: sattr3 obj_attributes; case EXCLUSIVE: createverf3 verf; } */
export function decodeCreateHow(reader: XdrReader): CreateHow {
  switch (reader.uint32()) {
    case UNCHECKED:
      return { mode: 'unchecked', attributes: decodeSetAttributes(reader) };
    case GUARDED:
      return { mode: 'guarded', attributes: decodeSetAttributes(reader) };
    case EXCLUSIVE:
      return { mode: 'exclusive', verifier: reader.fixed(VERIFIER_BYTES) };
    default:
      throw new XdrError('bad-discriminant');
  }
}

export function encodeCreateHow(writer: XdrWriter, how: CreateHow): void {
  if (how.mode === 'exclusive') {
    writer.uint32(EXCLUSIVE);
    writer.fixed(how.verifier);
  } else {
    writer.uint32(how.mode === 'guarded' ? GUARDED : UNCHECKED);
    encodeSetAttributes(writer, how.attributes);
  }
}

/** CREATE3args: struct { diropargs3 where; createhow3 how; } */
export function serveCreate(context: NfsContext, call: NfsCall): void | Promise<void> {
  const directory = decodeHandle(call.args);
  const name = decodeName(call.args);
  const how = decodeCreateHow(call.args);
  call.args.assertEnd();
  const error = newNameError(name) ?? (how.mode === 'exclusive' ? null : setAttributesError(how.attributes));
  if (error !== null) return refuse(context, call, error, directory);
  return settle(call, context.fileSystem.create(call, directory, name, how));
}

/** MKDIR3args: struct { diropargs3 where; sattr3 attributes; } */
export function serveMkdir(context: NfsContext, call: NfsCall): void | Promise<void> {
  const directory = decodeHandle(call.args);
  const name = decodeName(call.args);
  const attributes = withoutSize(decodeSetAttributes(call.args));
  call.args.assertEnd();
  const error = newNameError(name) ?? setAttributesError(attributes);
  if (error !== null) return refuse(context, call, error, directory);
  return settle(call, context.fileSystem.mkdir(call, directory, name, attributes));
}

/** SYMLINK3args: struct { diropargs3 where; symlinkdata3 symlink; } with symlinkdata3: struct { sattr3 symlink_attributes; nfspath3 symlink_data; } */
export function serveSymlink(context: NfsContext, call: NfsCall): void | Promise<void> {
  const directory = decodeHandle(call.args);
  const name = decodeName(call.args);
  const attributes = withoutSize(decodeSetAttributes(call.args));
  const target = call.args.opaque(0xffff);
  call.args.assertEnd();
  const error = newNameError(name) ?? setAttributesError(attributes) ?? (target.length > PATH_BYTES_MAX ? Status.NAMETOOLONG : null);
  if (error !== null) return refuse(context, call, error, directory);
  // The null string names nothing; a NUL would end the path early in every client.
  if (target.length === 0 || target.includes(0)) return refuse(context, call, Status.INVAL, directory);
  return settle(call, context.fileSystem.symlink(call, directory, name, target, attributes));
}

/** Size has no meaning for what is made here (RFC 1813 §3.3.9, §3.3.10). */
function withoutSize(attributes: SetAttributes): SetAttributes {
  return attributes.sizeBytes === null ? attributes : { ...attributes, sizeBytes: null };
}

/**
 * MKNOD3args: struct { diropargs3 where; mknoddata3 what; }. RFC 1813 §3.3.11: a server that has no special files answers NOTSUPP, and
 * BADTYPE for types that MKNOD never makes.
 */
export function serveMknod(context: NfsContext, call: NfsCall): void | Promise<void> {
  const reader = call.args;
  const directory = decodeHandle(reader);
  const name = decodeName(reader);
  const type = reader.uint32();
  if (type === 3 || type === 4) {
    // devicedata3: struct { sattr3 dev_attributes; specdata3 spec; }
    decodeSetAttributes(reader);
    reader.fixed(8);
  } else if (type === 6 || type === 7) decodeSetAttributes(reader);
  else if (type < 1 || type > 7) throw new XdrError('bad-discriminant');
  reader.assertEnd();
  const possible = type === 3 || type === 4 || type === 6 || type === 7;
  return refuse(context, call, newNameError(name) ?? (possible ? Status.NOTSUPP : Status.BADTYPE), directory);
}

function settle(call: NfsCall, result: WccResult<Created> | Promise<WccResult<Created>>): void | Promise<void> {
  if (isPending(result)) return result.then((settled) => reply(call, settled));
  reply(call, result);
}

/** CREATE3resok: struct { post_op_fh3 obj; post_op_attr obj_attributes; wcc_data dir_wcc; }; resfail: wcc_data. */
function reply(call: NfsCall, result: WccResult<Created>): void {
  const writer = call.begin(4 + 4 + HANDLE_BYTES_ENCODED_MAX + POST_OP_ATTR_BYTES_MAX + WCC_DATA_BYTES_MAX);
  writer.uint32(result.status);
  if (result.status === Status.OK) {
    encodePostOpHandle(writer, result.handle);
    encodePostOpAttributes(writer, result.attributes);
  }
  encodeWcc(writer, result.wcc);
  call.finish(result.status);
}

export function decodeCreateResult(reader: XdrReader): CreateResult {
  const status = decodeStatus(reader);
  if (status !== Status.OK) return { status: errorStatus(status), wcc: decodeWcc(reader) };
  return { status, handle: decodePostOpHandle(reader), attributes: decodePostOpAttributes(reader), wcc: decodeWcc(reader) };
}
