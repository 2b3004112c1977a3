/**
 * Calls of the load generator, encoded once and patched afterwards (RFC 5531 §9, RFC 1813). Hand-made and independent of server/oncrpc,
 * so that a mistake there is not measured with itself.
 */
export const NfsProcedure = { NULL: 0, GETATTR: 1, LOOKUP: 3, READ: 6, WRITE: 7, CREATE: 8, REMOVE: 12, COMMIT: 21 } as const;
export const NFS_PROGRAM = 100003;
export const MOUNT_PROGRAM = 100005;
export const MNT_PROCEDURE = 1;

/** Record mark, RPC call header with AUTH_SYS (uid 0, gid 0, machine `bench`). */
export const CALL_HEADER_BYTES = 72;
export const XID_AT = 4;

/** `LAST_FRAGMENT | length`, RFC 5531 §11. */
const LAST_FRAGMENT = 0x80000000;

/** A whole record (mark included) whose xid is zero, with the places that the generator patches (-1: there is none). */
export interface CallTemplate {
  readonly bytes: Buffer;
  /** Of the 64-bit file offset. */
  readonly offsetAt: number;
  /** Of the payload of a WRITE. */
  readonly payloadAt: number;
  /** Of the eight digits in the name of a CREATE or REMOVE. */
  readonly digitsAt: number;
}

function call(program: number, procedure: number, args: readonly Buffer[], places: Partial<Omit<CallTemplate, 'bytes'>> = {}): CallTemplate {
  const header = Buffer.alloc(CALL_HEADER_BYTES);
  const argsBytes = args.reduce((sum, part) => sum + part.length, 0);
  header.writeUInt32BE(LAST_FRAGMENT + CALL_HEADER_BYTES - 4 + argsBytes, 0);
  const words = [0, 0, 2, program, 3, procedure, 1, 28, 0, 5];
  for (const [index, word] of words.entries()) header.writeUInt32BE(word, 4 + 4 * index);
  header.write('bench', 44, 'latin1');
  // uid, gid, no gids; the verifier is AUTH_NONE with no body: all zeros.
  return { bytes: Buffer.concat([header, ...args]), offsetAt: -1, payloadAt: -1, digitsAt: -1, ...places };
}

/** opaque<>, RFC 4506 §4.10. */
function opaque(bytes: Uint8Array): Buffer {
  const out = Buffer.alloc(4 + Math.ceil(bytes.length / 4) * 4);
  out.writeUInt32BE(bytes.length, 0);
  out.set(bytes, 4);
  return out;
}

function words(...values: number[]): Buffer {
  const out = Buffer.alloc(4 * values.length);
  for (const [index, value] of values.entries()) out.writeUInt32BE(value, 4 * index);
  return out;
}

export function mountCall(path: string): CallTemplate {
  return call(MOUNT_PROGRAM, MNT_PROCEDURE, [opaque(Buffer.from(path))]);
}

export function nullCall(): CallTemplate {
  return call(NFS_PROGRAM, NfsProcedure.NULL, []);
}

export function getattrCall(handle: Uint8Array): CallTemplate {
  return call(NFS_PROGRAM, NfsProcedure.GETATTR, [opaque(handle)]);
}

export function lookupCall(directory: Uint8Array, name: string): CallTemplate {
  return call(NFS_PROGRAM, NfsProcedure.LOOKUP, [opaque(directory), opaque(Buffer.from(name))]);
}

export function readCall(handle: Uint8Array, countBytes: number): CallTemplate {
  const file = opaque(handle);
  return call(NFS_PROGRAM, NfsProcedure.READ, [file, words(0, 0, countBytes)], { offsetAt: CALL_HEADER_BYTES + file.length });
}

/** `stability`: 0 UNSTABLE, 2 FILE_SYNC. The payload is 64-bit noise that no store can elide or compress away. */
export function writeCall(handle: Uint8Array, countBytes: number, stability: 0 | 2, seed: number): CallTemplate {
  const file = opaque(handle);
  const payload = Buffer.alloc(countBytes);
  let state = (seed | 1) >>> 0;
  for (let at = 0; at < countBytes; at += 4) {
    state = nextRandom(state);
    payload.writeUInt32BE(state, at);
  }
  const args = [file, words(0, 0, countBytes, stability, countBytes), payload];
  const offsetAt = CALL_HEADER_BYTES + file.length;
  return call(NFS_PROGRAM, NfsProcedure.WRITE, args, { offsetAt, payloadAt: offsetAt + 20 });
}

/** COMMIT of the whole file. */
export function commitCall(handle: Uint8Array): CallTemplate {
  return call(NFS_PROGRAM, NfsProcedure.COMMIT, [opaque(handle), words(0, 0, 0)]);
}

/** CREATE GUARDED of `<prefix>00000000.x`; the digits are patched. Mode 0644. */
export function createCall(directory: Uint8Array, prefix: string): CallTemplate {
  const where = opaque(directory);
  const args = [where, opaque(Buffer.from(`${prefix}00000000.x`)), words(1, 1, 0o644, 0, 0, 0, 0, 0)];
  return call(NFS_PROGRAM, NfsProcedure.CREATE, args, { digitsAt: CALL_HEADER_BYTES + where.length + 4 + prefix.length });
}

/** CREATE UNCHECKED of `name`, mode 0644. */
export function createNamedCall(directory: Uint8Array, name: string): CallTemplate {
  return call(NFS_PROGRAM, NfsProcedure.CREATE, [opaque(directory), opaque(Buffer.from(name)), words(0, 1, 0o644, 0, 0, 0, 0, 0)]);
}

export function removeCall(directory: Uint8Array, prefix: string): CallTemplate {
  const where = opaque(directory);
  return call(NFS_PROGRAM, NfsProcedure.REMOVE, [where, opaque(Buffer.from(`${prefix}00000000.x`))], {
    digitsAt: CALL_HEADER_BYTES + where.length + 4 + prefix.length,
  });
}

/** One step of xorshift32; `state` must not be 0. */
export function nextRandom(state: number): number {
  let x = state;
  x ^= x << 13;
  x ^= x >>> 17;
  x ^= x << 5;
  return x >>> 0;
}
