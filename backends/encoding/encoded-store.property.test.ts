/** Ranged reads against a plain model, and objects that were damaged by accident or by somebody who knows the format. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';

import fc from 'fast-check';

import { bytes, readAllOf, rejectsWith } from '../conformance.ts';
import { MemoryStore } from '../memory/memory-store.ts';
import { type GetOutcome, StoreError } from '../object-store.ts';
import { fuzzEncodedObjects } from './encoded-object.fuzz.ts';
import { EncodedStore } from './encoded-store.ts';
import type { EncodingConfig } from './encoding-config.ts';
import { compressible, incompressible, MODES, SECOND_KEY } from './encoding.fixture.ts';
import { ChecksumSeal } from './frame-seal.ts';
import { IDENTITY_BYTES, objectKey, PUBLIC_KEY } from './key-ring.ts';

const FRAME = 24 * 1024;
const MODE_NAMES = ['zstd', 'aes', 'both'] as const;

/** Parts that shrink and parts that do not, so that frames of both kinds follow each other. */
const contents = fc
  .array(fc.record({ shrinks: fc.boolean(), lengthBytes: fc.oneof(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: 3 * FRAME })) }), {
    maxLength: 4,
  })
  .map((parts) =>
    Buffer.concat(
      parts.map(({ shrinks, lengthBytes }, index) => (shrinks ? compressible(lengthBytes, index + 1) : incompressible(lengthBytes, index + 1))),
    ),
  );

/** Stores bytes as they are, under the name that everything here has. */
async function holding(stored: Buffer): Promise<MemoryStore> {
  const inner = new MemoryStore();
  await inner.createBucket('bucket');
  await inner.put('bucket', 'object', bytes(stored));
  return inner;
}

async function encoded(config: EncodingConfig, content: Buffer, name = 'object'): Promise<Buffer> {
  const inner = new MemoryStore();
  await inner.createBucket('bucket');
  await new EncodedStore(inner, config).put('bucket', name, bytes(content));
  return readAllOf(inner, 'bucket', name);
}

/** Runs `call`; only a StoreError that says what is wrong with the object may come out. */
async function outcomeOf<T>(call: Promise<T>): Promise<T | 'refused'> {
  try {
    return await call;
  } catch (error) {
    assert.ok(error instanceof StoreError, String(error));
    assert.ok(error.class === 'corrupt' || error.class === 'denied', error.message);
    return 'refused';
  }
}

async function neverWrong(stored: Buffer, content: Buffer, config: EncodingConfig, offsets: readonly number[]): Promise<number> {
  const inner = await holding(stored);
  let refused = 0;
  const right = (outcome: GetOutcome | 'refused', expected: Buffer): void => {
    if (outcome === 'refused') {
      refused += 1;
      return;
    }
    assert.ok(outcome.kind === 'found' && outcome.bytes.equals(expected), 'wrong bytes were given out');
  };
  const store = new EncodedStore(inner, { ...config, refuseUnencrypted: config.encryptWith !== null });
  right(await outcomeOf(store.get('bucket', 'object')), content);
  for (const offsetBytes of offsets) {
    const part = await outcomeOf(store.get('bucket', 'object', { offsetBytes, lengthBytes: 5000 }));
    right(part, content.subarray(offsetBytes, offsetBytes + 5000));
  }
  const head = await outcomeOf(store.head('bucket', 'object'));
  if (head === 'refused') refused += 1;
  else assert.deepEqual(head, { kind: 'found', sizeBytes: content.byteLength });
  return refused;
}

test('every range of every object in every mode is what the plain object has there', async () => {
  await fc.assert(
    fc.asyncProperty(
      contents,
      fc.constantFrom('nothing', ...MODE_NAMES),
      fc.array(fc.tuple(fc.double({ min: 0, max: 1.1, noNaN: true }), fc.integer({ min: 0, max: 60_000 })), { minLength: 1, maxLength: 5 }),
      async (content, mode, ranges) => {
        const inner = new MemoryStore();
        await inner.createBucket('bucket');
        await new EncodedStore(inner, MODES[mode]).put('bucket', 'object', bytes(content));
        const warm = new EncodedStore(inner, MODES[mode]);
        for (const [fraction, lengthBytes] of ranges) {
          const offsetBytes = Math.floor(fraction * content.byteLength);
          for (const store of [warm, new EncodedStore(inner, MODES[mode])]) {
            const outcome = await store.get('bucket', 'object', { offsetBytes, lengthBytes });
            assert.ok(outcome.kind === 'found');
            assert.deepEqual(outcome.bytes, content.subarray(offsetBytes, offsetBytes + lengthBytes));
            assert.equal(outcome.bytes.buffer.byteLength, outcome.bytes.byteLength);
          }
        }
        assert.deepEqual(await readAllOf(warm, 'bucket', 'object'), content);
        assert.deepEqual(await warm.head('bucket', 'object'), { kind: 'found', sizeBytes: content.byteLength });
      },
    ),
    { numRuns: 60 },
  );
});

describe('a damaged object', () => {
  test('is refused or right in a round of the fuzzer, which sees both', async () => {
    const counts = await fuzzEncodedObjects(1, 300);
    assert.ok(counts.refused > 200 && counts.right > 50, JSON.stringify(counts));
  });

  test('gives its own bytes or is refused, whatever bits flip, bytes get lost or are added', async () => {
    await fc.assert(
      fc.asyncProperty(
        contents,
        fc.constantFrom(...MODE_NAMES),
        fc.oneof(
          fc.record({ kind: fc.constant('flip' as const), at: fc.double({ min: 0, max: 1, noNaN: true }), bits: fc.integer({ min: 1, max: 255 }) }),
          fc.record({ kind: fc.constant('flip-header' as const), at: fc.integer({ min: 0, max: 90 }), bits: fc.integer({ min: 1, max: 255 }) }),
          fc.record({ kind: fc.constant('cut' as const), at: fc.double({ min: 0, max: 1, noNaN: true }) }),
          fc.record({ kind: fc.constant('add' as const), count: fc.integer({ min: 1, max: 100 }) }),
          fc.record({ kind: fc.constant('zero' as const), at: fc.double({ min: 0, max: 1, noNaN: true }), count: fc.integer({ min: 1, max: 5000 }) }),
        ),
        async (content, mode, damage) => {
          const whole = await encoded(MODES[mode], content);
          let stored = Buffer.from(whole);
          switch (damage.kind) {
            case 'flip':
            case 'flip-header': {
              const at = damage.kind === 'flip' ? Math.floor(damage.at * (stored.byteLength - 1)) : Math.min(damage.at, stored.byteLength - 1);
              stored[at] = (stored[at] ?? 0) ^ damage.bits;
              break;
            }
            case 'cut':
              stored = stored.subarray(0, Math.floor(damage.at * (stored.byteLength - 1)));
              // What is left of the magic says too little to tell it from a plain object.
              if (stored.byteLength < 8 && mode === 'zstd') return;
              break;
            case 'add':
              stored = Buffer.concat([stored, Buffer.alloc(damage.count, 1)]);
              break;
            case 'zero': {
              // Behind the magic: without it, an object that may be plain is plain.
              const at = Math.max(16, Math.floor(damage.at * stored.byteLength));
              stored.fill(0, at, Math.min(stored.byteLength, at + damage.count));
            }
          }
          const offsets = [0, Math.floor(content.byteLength / 2), Math.max(0, content.byteLength - 1)];
          const refused = await neverWrong(stored, content, MODES[mode], offsets);
          assert.ok(refused > 0 || stored.equals(whole), `${damage.kind} was not noticed by any call`);
        },
      ),
      { numRuns: 250 },
    );
  });

  test('that is cut off or longer is noticed by its size, and by reading all of it', async () => {
    for (const mode of MODE_NAMES) {
      const stored = await encoded(MODES[mode], compressible(50_000));
      for (const damaged of [stored.subarray(0, -1), Buffer.concat([stored, Buffer.alloc(1)])]) {
        const store = new EncodedStore(await holding(damaged), MODES[mode]);
        await rejectsWith(store.head('bucket', 'object'), 'corrupt');
        await rejectsWith(store.get('bucket', 'object'), 'corrupt');
      }
    }
  });

  test('a frame in the place of another, of the same or another object, is refused', async () => {
    const content = incompressible(4 * FRAME);
    for (const mode of MODE_NAMES) {
      const stored = await encoded(MODES[mode], content);
      const tagBytes = mode === 'zstd' ? 4 : 16;
      const start = 64 + (mode === 'aes' ? 0 : 4 * 4) + tagBytes;
      const frame = (index: number, of = stored): Buffer => of.subarray(start + index * (FRAME + tagBytes), start + (index + 1) * (FRAME + tagBytes));
      const swapped = Buffer.concat([stored.subarray(0, start), frame(0), frame(2), frame(1), frame(3)]);
      const other = await encoded(MODES[mode], content, 'other');
      const version = Buffer.from(content);
      version[0] = (version[0] ?? 0) ^ 1;
      const before = await encoded(MODES[mode], version);
      for (const forged of [
        swapped,
        Buffer.concat([stored.subarray(0, start), frame(0), frame(1, other), frame(2), frame(3)]),
        Buffer.concat([stored.subarray(0, start), frame(0), frame(1, before), frame(2), frame(3)]),
      ]) {
        const store = new EncodedStore(await holding(forged), MODES[mode]);
        assert.match((await rejectsWith(store.get('bucket', 'object'), 'corrupt')).message, /bucket\/object has a frame 1 that is damaged/);
        await rejectsWith(store.get('bucket', 'object', { offsetBytes: FRAME + 5, lengthBytes: 1 }), 'corrupt');
        const untouched = await store.get('bucket', 'object', { offsetBytes: 3 * FRAME, lengthBytes: FRAME });
        assert.ok(untouched.kind === 'found' && untouched.bytes.equals(content.subarray(3 * FRAME)));
      }
    }
  });

  test('an object under the name of another is refused by every call', async () => {
    for (const mode of MODE_NAMES) {
      const store = new EncodedStore(await holding(await encoded(MODES[mode], compressible(50_000), 'other')), MODES[mode]);
      await rejectsWith(store.get('bucket', 'object'), 'corrupt');
      await rejectsWith(store.get('bucket', 'object', { offsetBytes: 0, lengthBytes: 1 }), 'corrupt');
      await rejectsWith(store.head('bucket', 'object'), 'corrupt');
    }
  });

  test('an object of the right name under another key, with the id of ours, is refused', async () => {
    const stored = await encoded({ compression: 'none', encryptWith: SECOND_KEY.id, keys: [SECOND_KEY] }, compressible(50_000));
    stored.set(Buffer.from(MODES.aes.keys[0]?.id ?? '', 'hex'), 32);
    await rejectsWith(new EncodedStore(await holding(stored), MODES.aes).get('bucket', 'object'), 'corrupt');
  });
});

describe('an object made by somebody who knows the format and needs no key', () => {
  /** A compressed object with right checksums. Of `frames` only their bytes as stored are given, and what the index says of them. */
  function forge(plainBytes: number, frames: readonly { content: Buffer; saidBytes?: number }[], frameBytes = FRAME, flags = 1): Buffer {
    const header = Buffer.alloc(64 + (flags === 1 ? 4 * frames.length : 0));
    header.write('897666657272792d656e630d0a1a0a00', 'hex');
    header[16] = 1;
    header[17] = flags;
    header.writeUInt32LE(frameBytes, 20);
    header.writeBigUInt64LE(BigInt(plainBytes), 24);
    header.fill(7, 40, 40 + IDENTITY_BYTES);
    if (flags === 1)
      for (const [index, { content, saidBytes }] of frames.entries()) header.writeUInt32LE(saidBytes ?? content.byteLength, 64 + 4 * index);
    const seal = new ChecksumSeal(objectKey(PUBLIC_KEY, header.subarray(40, 64), 'bucket', 'object'));
    const tag = (): Buffer => Buffer.alloc(4);
    const headerTag = tag();
    seal.sealHeader(header, headerTag);
    const parts = [header, headerTag];
    for (const [index, { content }] of frames.entries()) {
      const frameTag = tag();
      seal.sealFrame(index, content, frameTag);
      parts.push(content, frameTag);
    }
    return Buffer.concat(parts);
  }

  async function refusal(stored: Buffer): Promise<string> {
    const store = new EncodedStore(await holding(stored), MODES.both);
    await rejectsWith(store.get('bucket', 'object', { offsetBytes: 0, lengthBytes: 10 }), 'corrupt');
    return (await rejectsWith(store.get('bucket', 'object'), 'corrupt')).message;
  }

  test('the forger of these tests is able to make a good one', async () => {
    const content = compressible(30_000);
    const frames = [{ content: zstdCompressSync(content.subarray(0, FRAME)) }, { content: content.subarray(FRAME) }];
    assert.deepEqual(await readAllOf(new EncodedStore(await holding(forge(30_000, frames)), MODES.both), 'bucket', 'object'), content);
  });

  test('sizes and indexes that cannot be are refused before anything is allocated for them', async () => {
    const frame = { content: Buffer.alloc(100, 1) };
    assert.match(await refusal(forge(2 ** 53 - 1, [frame])), /says it has 9007199254740991 bytes/);
    assert.match(await refusal(forge(256 * 2 ** 20 + 1, [frame], 98_304)), /says it has 268435457 bytes/);
    assert.match(await refusal(forge(100, [frame], 2 ** 31)), /frames of 2147483648 bytes/);
    assert.match(await refusal(forge(100, [frame], 0)), /frames of 0 bytes/);
    assert.match(await refusal(forge(FRAME * 2000, [frame])), /ends within its index/);
    assert.match(await refusal(forge(100, [{ ...frame, saidBytes: 0 }])), /0 bytes in frame 0/);
    assert.match(await refusal(forge(100, [{ ...frame, saidBytes: 101 }])), /101 bytes in frame 0/);
    assert.match(await refusal(forge(100, [{ ...frame, saidBytes: 2 ** 32 - 1 }])), /4294967295 bytes in frame 0/);
    assert.match(await refusal(forge(100, [frame], FRAME, 4)), /unknown flags 4/);
  });

  test('frames that are no zstd, too long, too short, or want a large window, are refused', async () => {
    assert.match(await refusal(forge(1000, [{ content: Buffer.alloc(500, 1) }])), /cannot be decompressed/);
    assert.match(await refusal(forge(1000, [{ content: zstdCompressSync(Buffer.alloc(2 ** 26)).subarray(0, 999) }])), /cannot be decompressed/);
    assert.match(await refusal(forge(1000, [{ content: zstdCompressSync(Buffer.alloc(1001)) }])), /cannot be decompressed/);
    assert.match(await refusal(forge(1000, [{ content: zstdCompressSync(Buffer.alloc(999)) }])), /999 bytes in frame 0 instead of 1000/);
    // Without its size in the frame, a decoder takes memory for the window that the sixth byte asks for: here 128 MiB.
    const asked = zstdCompressSync(Buffer.alloc(1000), { params: { [constants.ZSTD_c_contentSizeFlag]: 0 } });
    asked[5] = (27 - 10) << 3;
    assert.deepEqual(zstdDecompressSync(asked), Buffer.alloc(1000));
    assert.match(await refusal(forge(1000, [{ content: asked }])), /cannot be decompressed/);
  });

  test('nothing but a StoreError comes out, whatever header and frames say', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(fc.integer({ min: 0, max: 3 * FRAME }), fc.maxSafeNat()),
        fc.array(
          fc.record({ content: fc.uint8Array({ minLength: 1, maxLength: 200 }), saidBytes: fc.option(fc.nat({ max: 300 }), { nil: undefined }) }),
          { maxLength: 3 },
        ),
        fc.constantFrom(0, 1, 2, 3),
        async (plainBytes, frames, flags) => {
          const made = frames.map(({ content, saidBytes }) => ({ content: Buffer.from(content), ...(saidBytes === undefined ? {} : { saidBytes }) }));
          const store = new EncodedStore(await holding(forge(plainBytes, made, FRAME, flags)), MODES.both);
          await outcomeOf(store.get('bucket', 'object'));
          await outcomeOf(store.get('bucket', 'object', { offsetBytes: 1, lengthBytes: 50_000 }));
          await outcomeOf(store.head('bucket', 'object'));
        },
      ),
      { numRuns: 200 },
    );
  });
});
