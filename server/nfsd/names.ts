/** Filenames as RFC 1813 §3.2 and PATHCONF (no_trunc, name_max 255) want them checked. Names are bytes, never decoded. */
import type { XdrReader } from '../oncrpc/xdr-reader.ts';
import type { ErrorStatus } from './file-system.ts';
import { Status } from './file-system.ts';
import { NAME_BYTES_MAX, NAME_WIRE_BYTES_MAX } from './nfs-wire.ts';

const SLASH = 0x2f;
const DOT = 0x2e;

/** filename3, RFC 1813 §2.5. Borrowed from the received record; not checked yet. */
export function decodeName(reader: XdrReader): Uint8Array {
  return reader.opaque(NAME_WIRE_BYTES_MAX);
}

/** `.` or `..`. */
export function isDotName(name: Uint8Array): boolean {
  return name[0] === DOT && (name.length === 1 || (name.length === 2 && name[1] === DOT));
}

/**
 * What is wrong with a name, or null. RFC 1813 §3.2: the null string and characters that the server cannot handle are ACCES; too long
 * is NAMETOOLONG.
 */
export function nameError(name: Uint8Array): ErrorStatus | null {
  if (name.length === 0) return Status.ACCES;
  if (name.length > NAME_BYTES_MAX) return Status.NAMETOOLONG;
  for (let i = 0; i < name.length; i++) {
    const byte = name[i];
    if (byte === SLASH || byte === 0) return Status.ACCES;
  }
  return null;
}

/** Same for the name of something to be made: `.` and `..` exist already (RFC 1813 §3.3.9). */
export function newNameError(name: Uint8Array): ErrorStatus | null {
  return nameError(name) ?? (isDotName(name) ? Status.EXIST : null);
}

/** Same for a name to be removed: `.` and `..` are INVAL (RFC 1813 §3.3.13, §3.3.14). */
export function oldNameError(name: Uint8Array): ErrorStatus | null {
  return nameError(name) ?? (isDotName(name) ? Status.INVAL : null);
}
