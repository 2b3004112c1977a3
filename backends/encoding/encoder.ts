/** Makes an encoded object out of a body: frames that are compressed on their own, then sealed. */
import { createHash } from 'node:crypto';
import { constants, crc32, zstdCompressSync } from 'node:zlib';

import { assert } from '../../server/core/assert.ts';
import { throwIfAborted } from '../abort.ts';
import { bodySizeBytes, forEachStep } from '../object-body.ts';
import { type ObjectBody, StoreError } from '../object-store.ts';
import { objectIdentity, PUBLIC_KEY, type RootKey } from './key-ring.ts';
import {
  frameCountOf,
  frameStart,
  HEADER_BYTES,
  INDEX_ENTRY_BYTES,
  layoutOf,
  type ObjectLayout,
  type ObjectParameters,
  parametersFor,
  PLAIN_BYTES_MAX,
  plainBytesOf,
  sealedHeaderBytes,
  tagBytesOf,
  writeIdentity,
  writeParameters,
} from './object-header.ts';
import { nextTurn, STEP_BYTES } from './turn.ts';

/** A run of frames that are stored as they are without a try ends after so many: what comes may be different data. */
const UNTRIED_FRAMES_MAX = 7;

export interface EncodedObject {
  /** The object as it is stored. */
  readonly bytes: Buffer;
  readonly layout: ObjectLayout;
}

/** The window is what a decoder must have memory for; no frame is larger. */
const COMPRESSION = { params: { [constants.ZSTD_c_compressionLevel]: 1, [constants.ZSTD_c_windowLog]: 17 } };

/**
 * Encodes a body for `bucket`/`name`. The same body, name, key and version of zstd give the same bytes. Takes memory for the result; other calls of
 * the thread get their turn after each MiB.
 * @throws StoreError `denied` for a body that is too large, `retry` when aborted, and those of a file body.
 */
export async function encodeObject(
  bucket: string,
  name: string,
  body: ObjectBody,
  isCompressed: boolean,
  root: RootKey,
  signal: AbortSignal | undefined,
): Promise<EncodedObject> {
  const what = `encode ${bucket}/${name}`;
  const plainBytes = bodySizeBytes(body);
  if (plainBytes > PLAIN_BYTES_MAX) throw new StoreError('denied', `${what}: ${plainBytes} bytes, an object has at most ${PLAIN_BYTES_MAX}`);
  const writer = new FrameWriter(parametersFor(plainBytes, isCompressed, root), root);
  let sincePause = 0;
  await forEachStep(body, (bytes) => {
    writer.append(bytes);
    sincePause += bytes.byteLength;
    if (sincePause < STEP_BYTES) return undefined;
    sincePause = 0;
    throwIfAborted(signal, what);
    return nextTurn();
  });
  throwIfAborted(signal, what);
  return writer.finish(bucket, name);
}

/** Cuts bytes into frames and puts them behind the room for the header. */
class FrameWriter {
  readonly #parameters: ObjectParameters;
  readonly #root: RootKey;
  readonly #frameCount: number;
  readonly #tagBytes: number;
  readonly #target: Buffer;
  /** Bytes of a frame that is not complete yet; one that comes whole does not pass through here. */
  readonly #partial: Buffer;
  readonly #digest: ContentDigest;
  #partialBytes = 0;
  #frame = 0;
  #position: number;
  /** Frames that did not shrink since one did, at most `UNTRIED_FRAMES_MAX`, and how many more are not tried at all. */
  #failures = 0;
  #untried = 0;

  constructor(parameters: ObjectParameters, root: RootKey) {
    this.#parameters = parameters;
    this.#root = root;
    this.#frameCount = frameCountOf(parameters);
    this.#tagBytes = tagBytesOf(parameters.keyId);
    this.#position = sealedHeaderBytes(parameters) + this.#tagBytes;
    // Room for frames that do not shrink. Pages that are never touched take no memory.
    this.#target = Buffer.allocUnsafeSlow(this.#position + parameters.plainBytes + this.#frameCount * this.#tagBytes);
    this.#partial = Buffer.allocUnsafeSlow(Math.min(parameters.frameBytes, parameters.plainBytes));
    this.#digest = root === PUBLIC_KEY ? new CrcDigest() : new ShaDigest();
  }

  append(bytes: Uint8Array): void {
    let done = 0;
    while (done < bytes.byteLength) {
      assert(this.#frame < this.#frameCount, 'the body is longer than it said');
      const wanted = plainBytesOf(this.#parameters, this.#frame);
      const taken = Math.min(bytes.byteLength - done, wanted - this.#partialBytes);
      const part = bytes.subarray(done, done + taken);
      done += taken;
      if (taken === wanted) {
        this.#writeFrame(part);
        continue;
      }
      this.#partial.set(part, this.#partialBytes);
      this.#partialBytes += taken;
      if (this.#partialBytes < wanted) continue;
      this.#partialBytes = 0;
      this.#writeFrame(this.#partial.subarray(0, wanted));
    }
  }

  /** Seals everything. */
  async finish(bucket: string, name: string): Promise<EncodedObject> {
    assert(this.#frame === this.#frameCount && this.#partialBytes === 0, 'the body is shorter than it said');
    const bytes = this.#target.subarray(0, this.#position);
    const sealedBytes = sealedHeaderBytes(this.#parameters);
    const written = writeParameters(bytes, this.#parameters);
    this.#digest.update(bytes.subarray(HEADER_BYTES, sealedBytes));
    const identity = objectIdentity(this.#root, written, bucket, name, this.#digest.value());
    const seal = writeIdentity(bytes, identity, this.#root, bucket, name);
    const layout = layoutOf(this.#parameters, seal, bytes, `${bucket}/${name}`);
    assert(layout.storedBytes === bytes.byteLength, 'frames and index disagree');
    seal.sealHeader(bytes.subarray(0, sealedBytes), bytes.subarray(sealedBytes, sealedBytes + this.#tagBytes));
    let sincePause = 0;
    for (let frame = 0; frame < this.#frameCount; frame += 1) {
      const tagStart = frameStart(layout, frame + 1) - this.#tagBytes;
      seal.sealFrame(frame, bytes.subarray(frameStart(layout, frame), tagStart), bytes.subarray(tagStart, tagStart + this.#tagBytes));
      sincePause += this.#parameters.frameBytes;
      if (sincePause < STEP_BYTES) continue;
      sincePause = 0;
      await nextTurn();
    }
    return { bytes, layout };
  }

  /** Smaller bytes for a frame, or `plain` itself. Where frames do not shrink, only some are tried, which costs a fifth of the time. */
  #compressed(plain: Uint8Array): Uint8Array {
    if (this.#untried > 0) {
      this.#untried -= 1;
      return plain;
    }
    const compressed = zstdCompressSync(plain, COMPRESSION);
    if (compressed.byteLength < plain.byteLength) {
      this.#failures = 0;
      return compressed;
    }
    this.#failures = Math.min(UNTRIED_FRAMES_MAX, this.#failures + 1);
    this.#untried = this.#failures;
    return plain;
  }

  #writeFrame(plain: Uint8Array): void {
    let content = plain;
    if (this.#parameters.isCompressed) {
      content = this.#compressed(plain);
      this.#target.writeUInt32LE(content.byteLength, HEADER_BYTES + INDEX_ENTRY_BYTES * this.#frame);
    }
    this.#digest.update(content);
    this.#target.set(content, this.#position);
    this.#position += content.byteLength + this.#tagBytes;
    this.#frame += 1;
  }
}

/**
 * Digest of frames, as compressed and before they are sealed, and index. Not of what the body was before that: another version of zstd makes other
 * bytes of the same body, and they must never meet the same key and nonces.
 */
interface ContentDigest {
  update(bytes: Uint8Array): void;
  value(): Buffer;
}

class ShaDigest implements ContentDigest {
  readonly #hash = createHash('sha256');

  update(bytes: Uint8Array): void {
    this.#hash.update(bytes);
  }

  value(): Buffer {
    return this.#hash.digest();
  }
}

/** Where nothing is encrypted, only accidents have to be found. */
class CrcDigest implements ContentDigest {
  #crc = 0;

  update(bytes: Uint8Array): void {
    this.#crc = crc32(bytes, this.#crc);
  }

  value(): Buffer {
    const value = Buffer.alloc(4);
    value.writeUInt32LE(this.#crc);
    return value;
  }
}
