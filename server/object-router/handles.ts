/**
 * File handles (invariant 4): 32 bytes, the same from every router and for the object's whole life.
 *
 *   0  version 1        1..3  zero        4..7  tag of the vPool (made of its uuid)
 *   8  fileid (u64)    16  inode generation (u64)    24  MAC (8 bytes of HMAC-SHA-256 over the rest with the vPool's handle key)
 */
import { createHmac } from 'node:crypto';

import type { FileId } from '../core/ids.ts';

export const HANDLE_BYTES = 32;
const MAC_AT = 24;
/** Handles whose MAC was found right lately; forgotten all at once when full. */
const VERIFIED_MAX = 65_536;

export interface HandleParts {
  readonly fileid: FileId;
  readonly inodeGeneration: number;
}

export class Handles {
  readonly #prefix: Buffer;
  readonly #key: Uint8Array;
  readonly #verified = new Map<string, HandleParts>();

  /** `vpoolTag`: 4 bytes that tell handles of one vPool from another's. `key`: secret of the vPool. */
  constructor(vpoolTag: Uint8Array, key: Uint8Array) {
    this.#prefix = Buffer.alloc(8);
    this.#prefix[0] = 1;
    this.#prefix.set(vpoolTag, 4);
    this.#key = key;
  }

  /** A new handle, owned by the caller. */
  encode(fileid: FileId, inodeGeneration: number): Buffer {
    const handle = Buffer.alloc(HANDLE_BYTES);
    this.#prefix.copy(handle);
    handle.writeBigUInt64BE(BigInt(fileid), 8);
    handle.writeBigUInt64BE(BigInt(inodeGeneration), 16);
    this.#mac(handle).copy(handle, MAC_AT);
    return handle;
  }

  /** The parts of a handle that this vPool made, or null: BADHANDLE. */
  decode(handle: Uint8Array): HandleParts | null {
    if (handle.length !== HANDLE_BYTES) return null;
    const bytes = Buffer.from(handle.buffer, handle.byteOffset, HANDLE_BYTES);
    const text = bytes.toString('latin1');
    const known = this.#verified.get(text);
    if (known !== undefined) return known;
    if (!bytes.subarray(0, 8).equals(this.#prefix) || !bytes.subarray(MAC_AT).equals(this.#mac(bytes))) return null;
    const parts = { fileid: Number(bytes.readBigUInt64BE(8)) as FileId, inodeGeneration: Number(bytes.readBigUInt64BE(16)) };
    if (this.#verified.size >= VERIFIED_MAX) this.#verified.clear();
    this.#verified.set(text, parts);
    return parts;
  }

  /** Number in a handle without checking it: to find the object whose own handle is then compared byte by byte. -1 when it is none of ours. */
  peek(handle: Uint8Array): number {
    if (handle.length !== HANDLE_BYTES) return -1;
    const high = ((handle[9] as number) << 16) | ((handle[10] as number) << 8) | (handle[11] as number);
    const low = ((handle[12] as number) << 24) | ((handle[13] as number) << 16) | ((handle[14] as number) << 8) | (handle[15] as number);
    return high * 0x1_0000_0000 + (low >>> 0);
  }

  #mac(handle: Buffer): Buffer {
    return createHmac('sha256', this.#key).update(handle.subarray(0, MAC_AT)).digest().subarray(0, 8);
  }
}
