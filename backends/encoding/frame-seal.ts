/** What follows each frame and the header of an encoded object: a GCM tag, or a CRC-32 when it is not encrypted. */
import { createCipheriv, createDecipheriv } from 'node:crypto';
import { crc32 } from 'node:zlib';

/** Seals and opens the frames of one object. All buffers stay the caller's. */
export interface FrameSeal {
  readonly tagBytes: number;
  /** Seals `content` in place and writes its tag. */
  sealFrame(frame: number, content: Buffer, tag: Buffer): void;
  /** The content, perhaps `content` itself; null when these are not the bytes that were sealed as this frame. */
  openFrame(frame: number, content: Buffer, tag: Buffer): Buffer | null;
  sealHeader(header: Buffer, tag: Buffer): void;
  headerIsSealed(header: Buffer, tag: Buffer): boolean;
}

/** Length of the tag of an encrypted object's frames. */
export const GCM_TAG_BYTES = 16;
/** Length of the checksum of another object's frames. */
export const CRC_TAG_BYTES = 4;

const CIPHER = 'aes-256-gcm';
const NONCE_BYTES = 12;
/** Of the header. Frames count from zero and never get here. */
const HEADER_NONCE = Buffer.alloc(NONCE_BYTES, 0xff);
const NOTHING = new Uint8Array(0);

/** AES-256-GCM. The key belongs to one content of one object, so the number of the frame is nonce enough. */
export class EncryptingSeal implements FrameSeal {
  readonly tagBytes = GCM_TAG_BYTES;
  readonly #key: Buffer;
  readonly #nonce = Buffer.alloc(NONCE_BYTES);

  constructor(objectKey: Buffer) {
    this.#key = objectKey;
  }

  sealFrame(frame: number, content: Buffer, tag: Buffer): void {
    this.#nonce.writeUInt32LE(frame);
    const cipher = createCipheriv(CIPHER, this.#key, this.#nonce);
    content.set(cipher.update(content));
    cipher.final();
    tag.set(cipher.getAuthTag());
  }

  openFrame(frame: number, content: Buffer, tag: Buffer): Buffer | null {
    this.#nonce.writeUInt32LE(frame);
    const decipher = createDecipheriv(CIPHER, this.#key, this.#nonce, { authTagLength: GCM_TAG_BYTES });
    decipher.setAuthTag(tag);
    const opened = decipher.update(content);
    return isAuthentic(decipher) ? opened : null;
  }

  sealHeader(header: Buffer, tag: Buffer): void {
    const cipher = createCipheriv(CIPHER, this.#key, HEADER_NONCE);
    cipher.setAAD(header);
    cipher.update(NOTHING);
    cipher.final();
    tag.set(cipher.getAuthTag());
  }

  headerIsSealed(header: Buffer, tag: Buffer): boolean {
    const decipher = createDecipheriv(CIPHER, this.#key, HEADER_NONCE, { authTagLength: GCM_TAG_BYTES });
    decipher.setAuthTag(tag);
    decipher.setAAD(header);
    decipher.update(NOTHING);
    return isAuthentic(decipher);
  }
}

/** CRC-32 that starts from the object's key and the number of the frame: bytes of another object, version or place do not fit. */
export class ChecksumSeal implements FrameSeal {
  readonly tagBytes = CRC_TAG_BYTES;
  readonly #seed: number;
  readonly #frame = Buffer.alloc(4);

  constructor(objectKey: Buffer) {
    this.#seed = crc32(objectKey);
  }

  sealFrame(frame: number, content: Buffer, tag: Buffer): void {
    tag.writeUInt32LE(this.#crcOfFrame(frame, content));
  }

  openFrame(frame: number, content: Buffer, tag: Buffer): Buffer | null {
    return tag.readUInt32LE() === this.#crcOfFrame(frame, content) ? content : null;
  }

  sealHeader(header: Buffer, tag: Buffer): void {
    tag.writeUInt32LE(crc32(header, this.#seed));
  }

  headerIsSealed(header: Buffer, tag: Buffer): boolean {
    return tag.readUInt32LE() === crc32(header, this.#seed);
  }

  #crcOfFrame(frame: number, content: Buffer): number {
    this.#frame.writeUInt32LE(frame);
    return crc32(content, crc32(this.#frame, this.#seed));
  }
}

/** `final` throws for a wrong tag, and for nothing else here. */
function isAuthentic(decipher: { final(): Buffer }): boolean {
  try {
    decipher.final();
    return true;
  } catch {
    return false;
  }
}
