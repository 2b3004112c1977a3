/** Encoded objects that were damaged at random: never other bytes than those that were put, never another error than a StoreError. */
import assert from 'node:assert/strict';

import { SeededRandom } from '../../e2e/random.ts';
import { MemoryStore } from '../memory/memory-store.ts';
import { type ByteRange, StoreError } from '../object-store.ts';
import { EncodedStore } from './encoded-store.ts';
import { compressible, incompressible, MODES } from './encoding.fixture.ts';
import { ChecksumSeal } from './frame-seal.ts';
import { objectKey, PUBLIC_KEY } from './key-ring.ts';
import { looksEncoded } from './object-header.ts';

const BUCKET = 'bucket';
const NAME = 'object';

/** Damages `iterations` objects of all modes; half of those that are not encrypted get checksums that are right again, as somebody would make them. */
export async function fuzzEncodedObjects(seed: number, iterations: number): Promise<{ refused: number; right: number }> {
  const random = new SeededRandom(seed);
  const counts = { refused: 0, right: 0 };
  for (let iteration = 0; iteration < iterations; iteration += 1) {
    const mode = random.pick(['zstd', 'aes', 'both'] as const);
    const content = randomContent(random);
    const config = { ...MODES[mode], refuseUnencrypted: mode !== 'zstd' };
    const inner = new MemoryStore();
    await inner.createBucket(BUCKET);
    await new EncodedStore(inner, config).put(BUCKET, NAME, { kind: 'bytes', chunks: [content] });
    const whole = await inner.get(BUCKET, NAME);
    assert.ok(whole.kind === 'found');
    let stored: Buffer = Buffer.from(whole.bytes);
    for (let count = random.between(1, 4); count > 0; count -= 1) stored = damaged(random, stored);
    const isForged = mode === 'zstd' && random.chance(0.5);
    if (isForged) mendChecksums(stored);
    await inner.delete(BUCKET, NAME);
    await inner.put(BUCKET, NAME, { kind: 'bytes', chunks: [stored] });

    const mustBeRight = !isForged && (mode !== 'zstd' || looksEncoded(stored));
    const store = new EncodedStore(inner, config);
    for (const range of [undefined, randomRange(random, content.byteLength), randomRange(random, content.byteLength)]) {
      const read = await readOrRefused(store, range);
      const expected = range === undefined ? content : content.subarray(range.offsetBytes, range.offsetBytes + range.lengthBytes);
      const isRight = read === null || (read.bytes.equals(expected) && read.sizeBytes === content.byteLength);
      if (mustBeRight) assert.ok(isRight, `seed ${seed}, iteration ${iteration}: wrong bytes or another size were given out`);
      counts[read === null ? 'refused' : 'right'] += 1;
    }
  }
  return counts;
}

function randomContent(random: SeededRandom): Buffer {
  const parts: Buffer[] = [];
  for (let count = random.below(4); count > 0; count -= 1) {
    const length = random.chance(0.5) ? random.below(200) : random.below(60_000);
    parts.push(random.chance(0.5) ? compressible(length, random.below(1000)) : incompressible(length, random.below(1000)));
  }
  return Buffer.concat(parts);
}

function randomRange(random: SeededRandom, sizeBytes: number): ByteRange {
  return { offsetBytes: random.below(sizeBytes + 100), lengthBytes: random.below(30_000) };
}

/** One accident. Half of them happen to header and index. */
function damaged(random: SeededRandom, stored: Buffer): Buffer {
  const limit = random.chance(0.5) ? Math.min(stored.byteLength, 100) : stored.byteLength;
  const at = random.below(Math.max(1, limit));
  const length = random.below(random.chance(0.5) ? 8 : 30_000);
  switch (random.below(6)) {
    case 0:
      if (at < stored.byteLength) stored[at] = (stored[at] ?? 0) ^ (1 << random.below(8));
      return stored;
    case 1:
      if (at + 4 <= stored.byteLength) stored.writeUInt32LE(random.pick([0, 1, 0x7fffffff, 0xffffffff, random.uint32()]), at);
      return stored;
    case 2:
      return Buffer.concat([stored.subarray(0, at), stored.subarray(at + length)]);
    case 3:
      return Buffer.concat([stored.subarray(0, at), stored.subarray(0, length), stored.subarray(at)]);
    case 4:
      stored.copy(stored, at, random.below(Math.max(1, stored.byteLength)), stored.byteLength);
      return stored;
    default:
      return Buffer.from(stored.subarray(0, stored.byteLength - Math.min(length, stored.byteLength)));
  }
}

/** Makes the checksums of an object that is not encrypted right, as far as its header and index make sense. */
function mendChecksums(stored: Buffer): void {
  if (stored.byteLength < 68) return;
  const frameBytes = stored.readUInt32LE(20);
  const plainBytes = stored.readUInt32LE(24);
  const frames = frameBytes === 0 ? 0 : Math.min(1000, Math.ceil(plainBytes / frameBytes));
  const isCompressed = ((stored[17] ?? 0) & 1) === 1;
  const seal = new ChecksumSeal(objectKey(PUBLIC_KEY, stored.subarray(40, 64), BUCKET, NAME));
  let position = 64 + (isCompressed ? 4 * frames : 0);
  if (position + 4 > stored.byteLength) return;
  seal.sealHeader(stored.subarray(0, position), stored.subarray(position, position + 4));
  position += 4;
  for (let frame = 0; frame < frames; frame += 1) {
    const length = isCompressed ? stored.readUInt32LE(64 + 4 * frame) : Math.min(frameBytes, plainBytes - frame * frameBytes);
    if (position + length + 4 > stored.byteLength) return;
    seal.sealFrame(frame, stored.subarray(position, position + length), stored.subarray(position + length, position + length + 4));
    position += length + 4;
  }
}

async function readOrRefused(store: EncodedStore, range: ByteRange | undefined): Promise<{ bytes: Buffer; sizeBytes: number } | null> {
  try {
    const outcome = await store.get(BUCKET, NAME, range);
    const head = await store.head(BUCKET, NAME);
    assert.ok(outcome.kind === 'found' && head.kind === 'found');
    return { bytes: outcome.bytes, sizeBytes: head.sizeBytes };
  } catch (error) {
    if (error instanceof StoreError && (error.class === 'corrupt' || error.class === 'denied')) return null;
    throw error;
  }
}
