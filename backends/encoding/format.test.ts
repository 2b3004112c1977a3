/** Golden vectors, and a reader that was written from docs/formats/encoded-object.md alone. */
import assert from 'node:assert/strict';
import { createDecipheriv, createHash, createHmac, hkdfSync } from 'node:crypto';
import { test } from 'node:test';
import { crc32, zstdDecompressSync } from 'node:zlib';

import { bytes, readAllOf, rejectsWith } from '../conformance.ts';
import { MemoryStore } from '../memory/memory-store.ts';
import { EncodedStore } from './encoded-store.ts';
import type { EncodingConfig } from './encoding-config.ts';
import { compressible, FIRST_KEY, incompressible, MODES } from './encoding.fixture.ts';

const BUCKET = 'vf-vpool1-00112233445566778899aabbccddeeff';
const NAME = 'seg-0000000042-1-23-00ff00ff00ff00ff';
const WRAPPED = Buffer.concat([Buffer.from('897666657272792d656e630d0a1a0a00', 'hex'), Buffer.from(' and more')]);

/** What each mode makes of a content. Those that are exact must never change; zstd may compress otherwise one day, but must always be read. */
const VECTORS: readonly { mode: keyof typeof MODES; content: Buffer; stored: string; isExact: boolean }[] = [
  {
    mode: 'aes',
    content: Buffer.from('The quick brown fox jumps over the lazy dog'),
    stored:
      '897666657272792d656e630d0a1a0a0001020000006000002b00000000000000292b18d8ca1c9df279182e85aa19c71a39088081cd4f67b904f24c93ee3a996484138ea3814364636b5c8d144722817cc950b47a8d9a37994758679183fd324c66cd00db8c6960aadca63989700933750db9ac8855dafe6dfa0e349efb8183428a18ccd1f650b0d640fdc6',
    isExact: true,
  },
  {
    mode: 'aes',
    content: Buffer.alloc(0),
    stored:
      '897666657272792d656e630d0a1a0a0001020000006000000000000000000000292b18d8ca1c9df2aa2c01cb140f98b6451c8e31be6f1013fd8ddba38007c264619b3947f72ab79070f28291cfed6e5d',
    isExact: true,
  },
  {
    mode: 'nothing',
    content: WRAPPED,
    stored:
      '897666657272792d656e630d0a1a0a000100000000600000190000000000000000000000000000009f2487b28b2916b49a8d2f3b6deacd31a2ebfc7907e8b3ace17f13e5897666657272792d656e630d0a1a0a0020616e64206d6f726569e8a595',
    isExact: true,
  },
  {
    mode: 'zstd',
    content: Buffer.from('abcd'.repeat(100)),
    stored:
      '897666657272792d656e630d0a1a0a0001010000006000009001000000000000000000000000000014cd360f1d2e69490bfc62218867d266e366814a12972678150000003fa30bc828b52ffd6090005d00002061626364010089ab8e08b2d73e81',
    isExact: false,
  },
  {
    mode: 'both',
    content: Buffer.from('abcd'.repeat(100)),
    stored:
      '897666657272792d656e630d0a1a0a0001030000006000009001000000000000292b18d8ca1c9df25d56bea6c5eacc44ce4e2d6d4f3882f2777685a0a9857f4015000000bb146a301af9b15fd20fd2b178be287512cf380cb5d4139b22f71faae91e34b87e8d02da6998e0574fb361e6a9126a37fcde695e98',
    isExact: false,
  },
];

async function encoded(config: EncodingConfig, content: Buffer): Promise<Buffer> {
  const inner = new MemoryStore();
  await inner.createBucket(BUCKET);
  await new EncodedStore(inner, config).put(BUCKET, NAME, bytes(content));
  return readAllOf(inner, BUCKET, NAME);
}

async function decoded(config: EncodingConfig, stored: Buffer): Promise<Buffer> {
  const inner = new MemoryStore();
  await inner.createBucket(BUCKET);
  await inner.put(BUCKET, NAME, bytes(stored));
  return readAllOf(new EncodedStore(inner, config), BUCKET, NAME);
}

/** Reads an object as the page says it. */
function readByThePage(object: Buffer, secret: Uint8Array): Buffer {
  assert.equal(object.toString('hex', 0, 16), '897666657272792d656e630d0a1a0a00');
  assert.equal(object[16], 1);
  const isCompressed = ((object[17] ?? 0) & 1) === 1;
  const isEncrypted = ((object[17] ?? 0) & 2) === 2;
  const frameBytes = object.readUInt32LE(20);
  const plainBytes = Number(object.readBigUInt64LE(24));
  const frames = Math.ceil(plainBytes / frameBytes);
  const tagBytes = isEncrypted ? 16 : 4;
  const derived = (purpose: string): Buffer =>
    Buffer.from(hkdfSync('sha256', isEncrypted ? secret : Buffer.alloc(32), '', `vferry encoded object 1: ${purpose}`, 32));
  const key = createHmac('sha256', derived('object key')).update(object.subarray(40, 64)).update(`${BUCKET}/${NAME}`).digest();
  const open = (nonce: Buffer, content: Buffer, tag: Buffer, additional: Buffer): Buffer => {
    const decipher = createDecipheriv('aes-256-gcm', key, nonce);
    decipher.setAAD(additional);
    decipher.setAuthTag(tag);
    return Buffer.concat([decipher.update(content), decipher.final()]);
  };
  let position = 64 + (isCompressed ? 4 * frames : 0);
  const header = object.subarray(0, position);
  const headerTag = object.subarray(position, position + tagBytes);
  if (isEncrypted) open(Buffer.alloc(12, 0xff), Buffer.alloc(0), headerTag, header);
  else assert.equal(headerTag.readUInt32LE(), crc32(header, crc32(key)));
  position += tagBytes;
  const parts: Buffer[] = [];
  const contents: Buffer[] = [];
  for (let frame = 0; frame < frames; frame += 1) {
    const plain = Math.min(frameBytes, plainBytes - frame * frameBytes);
    const length = isCompressed ? object.readUInt32LE(64 + 4 * frame) : plain;
    const content = object.subarray(position, position + length);
    const tag = object.subarray(position + length, position + length + tagBytes);
    const nonce = Buffer.alloc(12);
    nonce.writeUInt32LE(frame);
    if (!isEncrypted) assert.equal(tag.readUInt32LE(), crc32(content, crc32(nonce.subarray(0, 4), crc32(key))));
    const opened = isEncrypted ? open(nonce, content, tag, Buffer.alloc(0)) : content;
    contents.push(opened);
    parts.push(length === plain ? opened : zstdDecompressSync(opened));
    position += length + tagBytes;
  }
  assert.equal(position, object.byteLength);
  // Only a writer needs this: the same content under the same name has the same identity.
  const content = Buffer.concat([...contents, header.subarray(64)]);
  const crc = Buffer.alloc(4);
  crc.writeUInt32LE(crc32(content));
  const digest = isEncrypted ? createHash('sha256').update(content).digest() : crc;
  const identity = createHmac('sha256', derived('identity')).update(header.subarray(0, 40)).update(`${BUCKET}/${NAME}`).update(digest).digest();
  assert.deepEqual(header.subarray(40, 64), identity.subarray(0, 24));
  return Buffer.concat(parts);
}

test('golden vectors are read, and written where that is exact', async () => {
  for (const { mode, content, stored, isExact } of VECTORS) {
    const made = (await encoded(MODES[mode], content)).toString('hex');
    if (isExact) assert.equal(made, stored, mode);
    assert.deepEqual(await decoded(MODES.both, Buffer.from(stored, 'hex')), content);
    assert.deepEqual(readByThePage(Buffer.from(stored, 'hex'), FIRST_KEY.secret), content);
  }
});

test('a reader written from the page alone reads objects of many frames of every kind', async () => {
  for (const content of [compressible(100_000), incompressible(24_576 * 3), Buffer.concat([compressible(30_000), incompressible(40_000)])]) {
    for (const mode of ['zstd', 'aes', 'both'] as const) {
      const object = await encoded(MODES[mode], content);
      assert.ok(readByThePage(object, FIRST_KEY.secret).equals(content), mode);
    }
  }
});

test('an object of 64 MiB has frames of 24 KiB, a larger one frames of 48 or 96 KiB', async () => {
  for (const [sizeBytes, frameBytes] of [
    [1, 24_576],
    [64 * 2 ** 20, 24_576],
    [65 * 2 ** 20, 49_152],
    [200 * 2 ** 20, 98_304],
  ] as const) {
    const object = await encoded(MODES.zstd, Buffer.alloc(sizeBytes));
    assert.equal(object.readUInt32LE(20), frameBytes);
  }
});

test('an object of a later version is denied, not guessed at', async () => {
  const object = await encoded(MODES.both, compressible(1000));
  object[16] = 2;
  const inner = new MemoryStore();
  await inner.createBucket(BUCKET);
  await inner.put(BUCKET, NAME, bytes(object));
  const { message } = await rejectsWith(new EncodedStore(inner, MODES.both).get(BUCKET, NAME), 'denied');
  assert.match(message, /encoded object of version 2: this release reads version 1/);
});
