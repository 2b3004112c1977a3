/** Header and index of an encoded object (docs/formats/encoded-object.md): where its frames are, and what they are sealed with. */
import { StoreError } from '../object-store.ts';
import { ChecksumSeal, CRC_TAG_BYTES, EncryptingSeal, type FrameSeal, GCM_TAG_BYTES } from './frame-seal.ts';
import { IDENTITY_BYTES, type KeyRing, objectKey, PUBLIC_KEY, type RootKey } from './key-ring.ts';

/** Largest object before encoding. */
export const PLAIN_BYTES_MAX = 256 * 1024 * 1024;
/** Two of these, which a 4 KiB read may touch, and the longest header are less than 64 KiB. */
export const FRAME_BYTES_MIN = 24 * 1024;
/** 64 MiB in the smallest frames; a larger object has larger frames instead of more. */
const FRAMES_MAX = 2731;

/** Before the index. */
export const HEADER_BYTES = 64;
export const INDEX_ENTRY_BYTES = 4;
/** A first read of this size has header, index and tag of every object. */
export const FIRST_READ_BYTES = HEADER_BYTES + INDEX_ENTRY_BYTES * FRAMES_MAX + GCM_TAG_BYTES;

/** `\x89vferry-enc\r\n\x1a\n\0`: in no text, and not like the beginning of any other format of ours. */
const MAGIC = Buffer.from('897666657272792d656e630d0a1a0a00', 'hex');
/** Length of the magic: as much of an object as `looksEncoded` looks at. */
export const MAGIC_BYTES = MAGIC.byteLength;
/** So many equal bytes of the magic make an encoded object with a damaged magic, not a plain one. */
const MAGIC_LIKENESS = 8;
const VERSION = 1;
const COMPRESSED = 1;
const ENCRYPTED = 2;
const IDENTITY_OFFSET = 40;

/** What an encoder chooses, and all that a header says besides identity and index. */
export interface ObjectParameters {
  readonly isCompressed: boolean;
  /** Null: not encrypted. */
  readonly keyId: string | null;
  /** Size of the object as the caller knows it. */
  readonly plainBytes: number;
  /** Bytes before encoding in every frame but the last. */
  readonly frameBytes: number;
}

/** An object's frames. Frame n lies between `frameStart(layout, n)` and `frameStart(layout, n + 1)`, its tag at the end. */
export interface ObjectLayout {
  readonly parameters: ObjectParameters;
  readonly seal: FrameSeal;
  readonly frameCount: number;
  /** Where the first frame begins. */
  readonly framesOffset: number;
  /** Where the frames behind the first begin, and where the last ends; null: they all have the same size. */
  readonly frameEnds: Uint32Array | null;
  /** Size of the object as stored. */
  readonly storedBytes: number;
}

/** Parameters for an object of `plainBytes`. */
export function parametersFor(plainBytes: number, isCompressed: boolean, root: RootKey): ObjectParameters {
  let frameBytes = FRAME_BYTES_MIN;
  while (Math.ceil(plainBytes / frameBytes) > FRAMES_MAX) frameBytes *= 2;
  return { isCompressed, keyId: root.id, plainBytes, frameBytes };
}

export function frameCountOf(parameters: ObjectParameters): number {
  return Math.ceil(parameters.plainBytes / parameters.frameBytes);
}

/** Length of header and index, without the tag. */
export function sealedHeaderBytes(parameters: ObjectParameters): number {
  return HEADER_BYTES + (parameters.isCompressed ? INDEX_ENTRY_BYTES * frameCountOf(parameters) : 0);
}

export function tagBytesOf(keyId: string | null): number {
  return keyId === null ? CRC_TAG_BYTES : GCM_TAG_BYTES;
}

/** Writes a header without its identity at the beginning of `target`; returns what was written. */
export function writeParameters(target: Buffer, parameters: ObjectParameters): Buffer {
  target.fill(0, 0, IDENTITY_OFFSET);
  target.set(MAGIC, 0);
  target.writeUInt8(VERSION, 16);
  target.writeUInt8((parameters.isCompressed ? COMPRESSED : 0) | (parameters.keyId === null ? 0 : ENCRYPTED), 17);
  target.writeUInt32LE(parameters.frameBytes, 20);
  target.writeUInt32LE(parameters.plainBytes % 2 ** 32, 24);
  target.writeUInt32LE(Math.floor(parameters.plainBytes / 2 ** 32), 28);
  if (parameters.keyId !== null) target.write(parameters.keyId, 32, 'hex');
  return target.subarray(0, IDENTITY_OFFSET);
}

/** Writes the identity into a header; returns the seal that it leads to. */
export function writeIdentity(target: Buffer, identity: Buffer, root: RootKey, bucket: string, name: string): FrameSeal {
  target.set(identity, IDENTITY_OFFSET);
  return sealOf(root, identity, bucket, name);
}

/** True for an object that is encoded, or was before its first bytes were damaged. */
export function looksEncoded(bytes: Uint8Array): boolean {
  let alike = 0;
  for (let index = 0; index < MAGIC.byteLength; index += 1) if (bytes[index] === MAGIC[index]) alike += 1;
  return alike >= MAGIC_LIKENESS;
}

/**
 * Reads the beginning of an object: `FIRST_READ_BYTES` of it, or all if it has less. Null: it is not encoded.
 * @throws StoreError `corrupt` for a header that is damaged or of another object; `denied` for one of a later version, or when its key is missing.
 */
export function readHeader(bytes: Buffer, bucket: string, name: string, keys: KeyRing): ObjectLayout | null {
  if (!looksEncoded(bytes)) return null;
  const where = `${bucket}/${name}`;
  check(bytes.byteLength >= HEADER_BYTES, where, 'ends within its header');
  check(bytes.subarray(0, MAGIC.byteLength).equals(MAGIC), where, 'has a damaged magic');
  const version = bytes.readUInt8(16);
  if (version !== VERSION)
    throw new StoreError('denied', `${where} is an encoded object of version ${version}: this release reads version ${VERSION}`);
  const flags = bytes.readUInt8(17);
  check((flags & ~(COMPRESSED | ENCRYPTED)) === 0 && bytes.readUInt16LE(18) === 0, where, `has unknown flags ${flags}`);
  const isEncrypted = (flags & ENCRYPTED) !== 0;
  const keyId = bytes.toString('hex', 32, 40);
  check(isEncrypted || keyId === '0'.repeat(16), where, 'names a key, but is not encrypted');

  const parameters: ObjectParameters = {
    isCompressed: (flags & COMPRESSED) !== 0,
    keyId: isEncrypted ? keyId : null,
    plainBytes: bytes.readUInt32LE(24) + bytes.readUInt32LE(28) * 2 ** 32,
    frameBytes: bytes.readUInt32LE(20),
  };
  check(parameters.plainBytes <= PLAIN_BYTES_MAX, where, `says it has ${parameters.plainBytes} bytes`);
  check(
    parameters.frameBytes === parametersFor(parameters.plainBytes, false, PUBLIC_KEY).frameBytes,
    where,
    `has frames of ${parameters.frameBytes} bytes`,
  );
  const sealedBytes = sealedHeaderBytes(parameters);
  const tagBytes = tagBytesOf(parameters.keyId);
  check(bytes.byteLength >= sealedBytes + tagBytes, where, 'ends within its index');

  const root = isEncrypted ? keys.find(keyId) : PUBLIC_KEY;
  if (root === undefined) {
    throw new StoreError('denied', `${where} is encrypted with key ${keyId}, which is not among the keys of this vPool: add it to the key file`);
  }
  const seal = sealOf(root, bytes.subarray(IDENTITY_OFFSET, IDENTITY_OFFSET + IDENTITY_BYTES), bucket, name);
  check(
    seal.headerIsSealed(bytes.subarray(0, sealedBytes), bytes.subarray(sealedBytes, sealedBytes + tagBytes)),
    where,
    'has a header or index that is damaged, or of another object',
  );
  return layoutOf(parameters, seal, bytes, where);
}

/** The layout that a complete header describes. @throws StoreError `corrupt` for an index that cannot be. */
export function layoutOf(parameters: ObjectParameters, seal: FrameSeal, header: Buffer, where: string): ObjectLayout {
  const frameCount = frameCountOf(parameters);
  const framesOffset = sealedHeaderBytes(parameters) + seal.tagBytes;
  if (!parameters.isCompressed) {
    const storedBytes = framesOffset + parameters.plainBytes + frameCount * seal.tagBytes;
    return { parameters, seal, frameCount, framesOffset, frameEnds: null, storedBytes };
  }
  const frameEnds = new Uint32Array(frameCount);
  let end = framesOffset;
  for (let frame = 0; frame < frameCount; frame += 1) {
    const contentBytes = header.readUInt32LE(HEADER_BYTES + INDEX_ENTRY_BYTES * frame);
    check(contentBytes > 0 && contentBytes <= plainBytesOf(parameters, frame), where, `has ${contentBytes} bytes in frame ${frame}`);
    end += contentBytes + seal.tagBytes;
    frameEnds[frame] = end;
  }
  return { parameters, seal, frameCount, framesOffset, frameEnds, storedBytes: end };
}

/** Where a frame begins; for `frameCount` the end of the object. */
export function frameStart(layout: ObjectLayout, frame: number): number {
  if (frame === 0) return layout.framesOffset;
  if (layout.frameEnds !== null) return layout.frameEnds[frame - 1] as number;
  return Math.min(layout.storedBytes, layout.framesOffset + frame * (layout.parameters.frameBytes + layout.seal.tagBytes));
}

/** Bytes before encoding in a frame: all have the same size but the last. */
export function plainBytesOf(parameters: ObjectParameters, frame: number): number {
  return Math.min(parameters.frameBytes, parameters.plainBytes - frame * parameters.frameBytes);
}

function sealOf(root: RootKey, identity: Uint8Array, bucket: string, name: string): FrameSeal {
  const key = objectKey(root, identity, bucket, name);
  return root.id === null ? new ChecksumSeal(key) : new EncryptingSeal(key);
}

function check(condition: boolean, where: string, problem: string): asserts condition {
  if (!condition) throw new StoreError('corrupt', `${where} ${problem}`);
}
