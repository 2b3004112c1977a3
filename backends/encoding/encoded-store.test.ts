import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';

import { bytes, objectStoreConformance, readAllOf, rejectsWith, withDirectory } from '../conformance.ts';
import { DirectoryStore } from '../directory/directory-store.ts';
import { MemoryStore } from '../memory/memory-store.ts';
import type { ByteRange, GetOutcome, ObjectStore } from '../object-store.ts';
import { PrefixLayoutStore } from '../prefix-layout/prefix-layout-store.ts';
import { EncodedStore } from './encoded-store.ts';
import { compressible, FIRST_KEY, incompressible, MODES, RecordingStore, SECOND_KEY } from './encoding.fixture.ts';

const MIB = 2 ** 20;

for (const [mode, config] of Object.entries(MODES)) {
  objectStoreConformance(`EncodedStore with ${mode} over memory`, () =>
    Promise.resolve({ store: new EncodedStore(new MemoryStore(), config), close: () => Promise.resolve() }),
  );
}

objectStoreConformance(
  'EncodedStore over one bucket',
  () =>
    Promise.resolve({
      store: new EncodedStore(new PrefixLayoutStore(new MemoryStore(), 'the-bucket'), MODES.both),
      close: () => Promise.resolve(),
    }),
  { bucketsAreReal: false },
);

async function get(store: ObjectStore, name: string, range?: ByteRange): Promise<Buffer> {
  const outcome = await store.get('bucket', name, range);
  assert.ok(outcome.kind === 'found');
  return outcome.bytes;
}

async function memory(): Promise<RecordingStore> {
  const inner = new RecordingStore();
  await inner.createBucket('bucket');
  return inner;
}

describe('what is stored', () => {
  test('compressed it is smaller, encrypted nothing of it can be seen, and what does not shrink grows by little', async () => {
    const content = compressible(MIB);
    const sizes: Record<string, number> = {};
    for (const [mode, config] of Object.entries(MODES)) {
      const inner = await memory();
      const store = new EncodedStore(inner, config);
      await store.put('bucket', 'text', bytes(content));
      await store.put('bucket', 'noise', bytes(incompressible(MIB)));
      const text = await readAllOf(inner, 'bucket', 'text');
      sizes[mode] = text.byteLength;
      assert.equal(text.includes(content.subarray(5000, 5020)), mode === 'nothing', mode);
      assert.ok((await readAllOf(inner, 'bucket', 'noise')).byteLength <= MIB * 1.001 + 100, mode);
    }
    assert.equal(sizes['nothing'], MIB);
    assert.ok((sizes['zstd'] ?? 0) < MIB / 2);
    assert.ok((sizes['both'] ?? 0) < MIB / 2);
  });

  test('the same object is the same bytes again, so an overwrite by a repeated put changes nothing', async () => {
    for (const config of Object.values(MODES)) {
      const stored: Buffer[] = [];
      for (const chunkBytes of [1, 30_000, MIB]) {
        const inner = await memory();
        const content = compressible(100_000);
        const chunks = Array.from({ length: Math.ceil(content.byteLength / chunkBytes) }, (_, index) =>
          content.subarray(index * chunkBytes, (index + 1) * chunkBytes),
        );
        await new EncodedStore(inner, config).put('bucket', 'object', { kind: 'bytes', chunks });
        stored.push(await readAllOf(inner, 'bucket', 'object'));
      }
      assert.deepEqual(stored[1], stored[0]);
      assert.deepEqual(stored[2], stored[0]);
    }
  });

  test('data that shrinks is compressed also behind data that does not, a few frames later', async () => {
    const inner = await memory();
    const [noise, text] = [incompressible(MIB), compressible(MIB)];
    await new EncodedStore(inner, MODES.zstd).put('bucket', 'alone', bytes(text));
    await new EncodedStore(inner, MODES.zstd).put('bucket', 'behind', { kind: 'bytes', chunks: [noise, text] });
    const [alone, behind] = [await readAllOf(inner, 'bucket', 'alone'), await readAllOf(inner, 'bucket', 'behind')];
    assert.ok(behind.byteLength < MIB + alone.byteLength + 8 * 24 * 1024, `${behind.byteLength} bytes`);
    assert.deepEqual(await get(new EncodedStore(inner, MODES.zstd), 'behind'), Buffer.concat([noise, text]));
  });

  test('no two contents, names, buckets or keys meet the same key stream', async () => {
    const content = Buffer.alloc(60_000, 7);
    const other = Buffer.from(content);
    other[59_999] = 8;
    const streams = new Set<string>();
    for (const [bucket, name, body, key] of [
      ['bucket', 'object', content, FIRST_KEY],
      ['bucket', 'object', other, FIRST_KEY],
      ['bucket', 'object', content.subarray(1), FIRST_KEY],
      ['bucket', 'object2', content, FIRST_KEY],
      ['bucket2', 'object', content, FIRST_KEY],
      ['bucket', 'object', content, SECOND_KEY],
    ] as const) {
      const inner = new MemoryStore();
      await inner.createBucket(bucket);
      await new EncodedStore(inner, { compression: 'none', encryptWith: key.id, keys: [key] }).put(bucket, name, bytes(body));
      const stored = await readAllOf(inner, bucket, name);
      // The plaintext of both whole frames is the same: equal bytes would be an equal key stream.
      for (const frame of [0, 1]) streams.add(stored.toString('hex', 80 + frame * (24_576 + 16), 80 + frame * (24_576 + 16) + 32));
    }
    assert.equal(streams.size, 12);
  });

  test('without compression and encryption for new objects, bodies pass as they are, files as files', async () => {
    await withDirectory(async (directory) => {
      const path = join(directory, 'segment');
      await writeFile(path, incompressible(50_000));
      const bodies: string[] = [];
      const inner = new (class extends MemoryStore {
        override put(...call: Parameters<MemoryStore['put']>): Promise<'written' | 'exists'> {
          bodies.push(call[2].kind);
          return super.put(...call);
        }
      })();
      await inner.createBucket('bucket');
      const store = new EncodedStore(inner, MODES.nothing);
      await store.put('bucket', 'file', { kind: 'file', path, offsetBytes: 0, lengthBytes: 50_000 });
      assert.deepEqual(bodies, ['file']);
      assert.deepEqual(await readAllOf(inner, 'bucket', 'file'), incompressible(50_000));
      assert.deepEqual(await store.head('bucket', 'file'), { kind: 'found', sizeBytes: 50_000 });
    });
  });

  test('a body that looks like an encoded object is wrapped, and comes back as it was', async () => {
    await withDirectory(async (directory) => {
      const encoded = await memory();
      await new EncodedStore(encoded, MODES.both).put('bucket', 'object', bytes(compressible(5000)));
      const content = await readAllOf(encoded, 'bucket', 'object');
      const path = join(directory, 'file');
      await writeFile(path, content);
      const inner = await memory();
      const store = new EncodedStore(inner, MODES.nothing);
      await store.put('bucket', 'object', { kind: 'bytes', chunks: [content.subarray(0, 3), content.subarray(3)] });
      await store.put('bucket', 'file', { kind: 'file', path, offsetBytes: 0, lengthBytes: content.byteLength });
      for (const name of ['object', 'file']) {
        assert.notDeepEqual(await readAllOf(inner, 'bucket', name), content);
        assert.deepEqual(await get(store, name), content);
        assert.deepEqual(await get(new EncodedStore(inner, MODES.nothing), name, { offsetBytes: 10, lengthBytes: 9 }), content.subarray(10, 19));
      }
    });
  });

  test('an object of 256 MiB passes, one that is larger is denied', async () => {
    const content = Buffer.alloc(256 * MIB);
    content.write('the end', 256 * MIB - 7);
    const inner = await memory();
    const store = new EncodedStore(inner, MODES.both);
    await store.put('bucket', 'large', { kind: 'bytes', chunks: [content] });
    assert.ok((await get(store, 'large')).equals(content));
    assert.equal((await get(new EncodedStore(inner, MODES.both), 'large', { offsetBytes: 256 * MIB - 7, lengthBytes: 100 })).toString(), 'the end');
    await rejectsWith(store.put('bucket', 'larger', { kind: 'bytes', chunks: [content, Buffer.alloc(1)] }), 'denied');
  });

  test('over a directory everything is as over memory', async () => {
    await withDirectory(async (path) => {
      const inner = new DirectoryStore({ kind: 'directory', path, vpoolUuid: '0'.repeat(32), initialize: true });
      const store = new EncodedStore(inner, MODES.both);
      await store.createBucket('bucket');
      const content = compressible(3 * MIB + 5);
      await store.put('bucket', 'object', bytes(content));
      const later = new EncodedStore(inner, MODES.both);
      assert.deepEqual(await later.head('bucket', 'object'), { kind: 'found', sizeBytes: content.byteLength });
      assert.ok((await get(later, 'object')).equals(content));
      assert.deepEqual(await get(later, 'object', { offsetBytes: 2 * MIB, lengthBytes: 4096 }), content.subarray(2 * MIB, 2 * MIB + 4096));
    });
  });
});

describe('what a read costs', () => {
  test('a cold read of 4 KiB takes at most two requests and 64 KiB, a warm one takes one request', async () => {
    for (const [sizeBytes, modes] of [
      [16 * MIB, ['zstd', 'aes', 'both']],
      [64 * MIB, ['both']],
    ] as const) {
      const content = randomBytes(sizeBytes);
      for (const mode of modes) {
        const inner = await memory();
        await new EncodedStore(inner, MODES[mode]).put('bucket', 'segment', bytes(content));
        for (const offsetBytes of [0, 24 * 1024 - 2048, sizeBytes / 2 + 77, sizeBytes - 4096]) {
          const store = new EncodedStore(inner, MODES[mode]);
          inner.bytesRead = 0;
          inner.takeCalls();
          assert.deepEqual(await get(store, 'segment', { offsetBytes, lengthBytes: 4096 }), content.subarray(offsetBytes, offsetBytes + 4096));
          assert.ok(inner.takeCalls().length <= 2);
          assert.ok(inner.bytesRead <= 64 * 1024, `${mode}: ${inner.bytesRead} bytes`);
          await get(store, 'segment', { offsetBytes, lengthBytes: 4096 });
          assert.equal(inner.takeCalls().length, 1);
        }
      }
    }
  });

  test('a small object is read by one request, by a range too', async () => {
    const inner = await memory();
    await new EncodedStore(inner, MODES.both).put('bucket', 'object', bytes(compressible(8000)));
    const store = new EncodedStore(inner, MODES.both);
    assert.deepEqual(await get(store, 'object', { offsetBytes: 7000, lengthBytes: 5000 }), compressible(8000).subarray(7000));
    assert.deepEqual(inner.takeCalls(), ['get 0+11004']);
  });

  test('the head after a put reads nothing; another instance reads the header once', async () => {
    for (const config of [MODES.zstd, MODES.aes, MODES.both]) {
      const inner = await memory();
      const store = new EncodedStore(inner, config);
      await store.put('bucket', 'object', bytes(compressible(MIB)));
      assert.deepEqual(await store.head('bucket', 'object'), { kind: 'found', sizeBytes: MIB });
      assert.deepEqual(inner.takeCalls(), ['head']);
      const other = new EncodedStore(inner, config);
      assert.deepEqual(await other.head('bucket', 'object'), { kind: 'found', sizeBytes: MIB });
      assert.deepEqual(await other.head('bucket', 'object'), { kind: 'found', sizeBytes: MIB });
      assert.deepEqual(inner.takeCalls(), ['head', 'get 0+11004', 'head']);
    }
  });

  test('many reads of an object that is not known read its header once', async () => {
    const inner = await memory();
    await new EncodedStore(inner, MODES.both).put('bucket', 'object', bytes(incompressible(MIB)));
    const store = new EncodedStore(inner, MODES.both);
    await Promise.all(Array.from({ length: 20 }, (_, index) => get(store, 'object', { offsetBytes: 100_000 + index * 4096, lengthBytes: 4096 })));
    assert.equal(inner.takeCalls().filter((call) => call === 'get 0+11004').length, 1);
  });

  test('a read that waits for a header which somebody else reads can be aborted, and goes on when that one is', async () => {
    const held = Promise.withResolvers<void>();
    let isFirst = true;
    const inner = new (class extends MemoryStore {
      override async get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
        if (isFirst) {
          isFirst = false;
          await held.promise;
        }
        return super.get(bucket, name, range, signal);
      }
    })();
    await inner.createBucket('bucket');
    const content = incompressible(MIB);
    await new EncodedStore(inner, MODES.both).put('bucket', 'object', bytes(content));
    const store = new EncodedStore(inner, MODES.both);
    const range = { offsetBytes: 500_000, lengthBytes: 4096 };
    const [first, second] = [new AbortController(), new AbortController()];
    const reads = [
      store.get('bucket', 'object', range, first.signal),
      store.get('bucket', 'object', range, second.signal),
      get(store, 'object', range),
    ];
    second.abort();
    await rejectsWith(reads[1] as Promise<unknown>, 'retry');
    first.abort();
    held.resolve();
    await rejectsWith(reads[0] as Promise<unknown>, 'retry');
    assert.deepEqual(await reads[2], content.subarray(500_000, 504_096));
  });

  test('what is kept of headers is bounded, and what was used last stays', async () => {
    const inner = await memory();
    const store = new EncodedStore(inner, MODES.both, 10_000);
    for (let index = 0; index < 20; index += 1) await store.put('bucket', `object-${index}`, bytes(compressible(50_000)));
    const isKnown = async (index: number): Promise<boolean> => {
      inner.takeCalls();
      await store.head('bucket', `object-${index}`);
      return inner.takeCalls().length === 1;
    };
    assert.ok(await isKnown(19));
    assert.ok(await isKnown(12));
    assert.ok(!(await isKnown(0)));
    for (let index = 1; index < 8; index += 1) {
      assert.ok(await isKnown(12));
      assert.ok(!(await isKnown(index)));
    }
  });
});

describe('mixed objects', () => {
  test('whatever was written under other settings is read, whole, by ranges and by size', async () => {
    const inner = await memory();
    const keys = [SECOND_KEY, FIRST_KEY];
    const content = compressible(200_000);
    for (const [mode, config] of Object.entries(MODES)) await new EncodedStore(inner, { ...config, keys }).put('bucket', mode, bytes(content));
    await new EncodedStore(inner, { compression: 'zstd', encryptWith: SECOND_KEY.id, keys }).put('bucket', 'second', bytes(content));
    await inner.put('bucket', 'before', bytes(content));
    for (const config of Object.values(MODES)) {
      const store = new EncodedStore(inner, { ...config, keys });
      for (const name of [...Object.keys(MODES), 'second', 'before']) {
        for (const range of [
          undefined,
          { offsetBytes: 0, lengthBytes: 10 },
          { offsetBytes: 123_456, lengthBytes: 50_000 },
          { offsetBytes: 199_999, lengthBytes: 9 },
        ]) {
          const expected = range === undefined ? content : content.subarray(range.offsetBytes, range.offsetBytes + range.lengthBytes);
          assert.deepEqual(await get(new EncodedStore(inner, { ...config, keys }), name, range), expected);
          assert.deepEqual(await get(store, name, range), expected);
        }
        assert.deepEqual(await store.head('bucket', name), { kind: 'found', sizeBytes: 200_000 });
      }
    }
  });

  test('after a rotation new objects are written with the new key, and old ones are read with theirs', async () => {
    const inner = await memory();
    const content = compressible(60_000);
    await new EncodedStore(inner, MODES.both).put('bucket', 'old', bytes(content));
    const rotated = new EncodedStore(inner, { compression: 'zstd', encryptWith: SECOND_KEY.id, keys: [SECOND_KEY, FIRST_KEY] });
    await rotated.put('bucket', 'new', bytes(content));
    for (const name of ['old', 'new']) assert.deepEqual(await get(rotated, name), content);
    const firstOnly = new EncodedStore(inner, MODES.both);
    assert.deepEqual(await get(firstOnly, 'old'), content);
    await rejectsWith(firstOnly.get('bucket', 'new'), 'denied');
  });

  test('a key that is missing is denied by its id', async () => {
    const inner = await memory();
    await new EncodedStore(inner, MODES.both).put('bucket', 'object', bytes(compressible(60_000)));
    for (const config of [MODES.zstd, { compression: 'none', encryptWith: SECOND_KEY.id, keys: [SECOND_KEY] } as const]) {
      const store = new EncodedStore(inner, config);
      for (const call of [
        store.get('bucket', 'object'),
        store.get('bucket', 'object', { offsetBytes: 50_000, lengthBytes: 1 }),
        store.head('bucket', 'object'),
      ]) {
        const { message } = await rejectsWith(call, 'denied');
        assert.match(message, new RegExp(`bucket/object is encrypted with key ${FIRST_KEY.id}, which is not among the keys`));
      }
    }
  });

  test('a configuration whose keys do not fit is a bug', () => {
    assert.throws(
      () => new EncodedStore(new MemoryStore(), { compression: 'none', encryptWith: FIRST_KEY.id, keys: [SECOND_KEY] }),
      /is not among the keys/,
    );
    assert.throws(
      () => new EncodedStore(new MemoryStore(), { compression: 'none', encryptWith: null, keys: [{ id: FIRST_KEY.id, secret: SECOND_KEY.secret }] }),
      /has another id/,
    );
  });

  test('where everything must be encrypted, what is not is corrupt', async () => {
    const inner = await memory();
    await inner.put('bucket', 'plain', bytes(compressible(60_000)));
    await inner.put('bucket', 'short', bytes(Buffer.from('{}')));
    await new EncodedStore(inner, MODES.zstd).put('bucket', 'zstd', bytes(compressible(60_000)));
    const store = new EncodedStore(inner, { ...MODES.both, refuseUnencrypted: true });
    await store.put('bucket', 'fine', bytes(compressible(60_000)));
    for (const name of ['plain', 'short', 'zstd']) {
      for (const call of [store.get('bucket', name), store.get('bucket', name, { offsetBytes: 1, lengthBytes: 1 }), store.head('bucket', name)]) {
        assert.match((await rejectsWith(call, 'corrupt')).message, /is not encrypted/);
      }
    }
    assert.deepEqual(await get(store, 'fine'), compressible(60_000));
  });
});

describe('another version of an object', () => {
  test('a header that is kept and no longer fits is read again', async () => {
    const inner = await memory();
    const [writer, reader] = [new EncodedStore(inner, MODES.both), new EncodedStore(inner, MODES.both)];
    await writer.put('bucket', 'object', bytes(compressible(100_000, 1)));
    await get(reader, 'object', { offsetBytes: 50_000, lengthBytes: 10 });
    for (const [seed, length] of [
      [2, 100_000],
      [3, 200_000],
      [4, 52_000],
    ] as const) {
      await writer.delete('bucket', 'object');
      await writer.put('bucket', 'object', bytes(compressible(length, seed)));
      assert.deepEqual(await get(reader, 'object', { offsetBytes: 51_000, lengthBytes: 10 }), compressible(length, seed).subarray(51_000, 51_010));
      assert.deepEqual(await reader.head('bucket', 'object'), { kind: 'found', sizeBytes: length });
    }
    await writer.delete('bucket', 'object');
    await inner.put('bucket', 'object', bytes(incompressible(100_000)));
    assert.deepEqual(await get(reader, 'object', { offsetBytes: 50_000, lengthBytes: 10 }), incompressible(100_000).subarray(50_000, 50_010));
  });

  test('an answer that was cut off before it says anything is not taken for a plain object', async () => {
    let cuts = 0;
    const inner = new (class extends MemoryStore {
      override async get(bucket: string, name: string, range?: ByteRange): Promise<GetOutcome> {
        const outcome = await super.get(bucket, name, range);
        if (outcome.kind === 'absent' || cuts === 0) return outcome;
        cuts -= 1;
        return { kind: 'found', bytes: outcome.bytes.subarray(0, 7) };
      }
    })();
    await inner.createBucket('bucket');
    const content = incompressible(100_000);
    await new EncodedStore(inner, MODES.both).put('bucket', 'object', bytes(content));
    for (const range of [undefined, { offsetBytes: 0, lengthBytes: 5 }, { offsetBytes: 50_000, lengthBytes: 10 }]) {
      const store = new EncodedStore(inner, MODES.both);
      cuts = 1;
      const expected = range === undefined ? content : content.subarray(range.offsetBytes, range.offsetBytes + range.lengthBytes);
      assert.deepEqual(await get(store, 'object', range), expected);
      cuts = 2;
      await rejectsWith(new EncodedStore(inner, MODES.both).get('bucket', 'object', range), 'corrupt');
    }
    await inner.put('bucket', 'short', bytes(Buffer.from('{}')));
    assert.deepEqual(await get(new EncodedStore(inner, MODES.both), 'short'), Buffer.from('{}'));
    assert.deepEqual(await get(new EncodedStore(inner, MODES.both), 'short', { offsetBytes: 1, lengthBytes: 5 }), Buffer.from('}'));
  });

  test('a bit that flipped on the way once does no harm', async () => {
    let flips = 0;
    const inner = new (class extends MemoryStore {
      override async get(bucket: string, name: string, range?: ByteRange): Promise<GetOutcome> {
        const outcome = await super.get(bucket, name, range);
        if (outcome.kind === 'found' && flips > 0) {
          flips -= 1;
          const at = outcome.bytes.byteLength >> 1;
          outcome.bytes[at] = (outcome.bytes[at] ?? 0) ^ 16;
        }
        return outcome;
      }
    })();
    await inner.createBucket('bucket');
    const content = incompressible(100_000);
    const store = new EncodedStore(inner, MODES.both);
    await store.put('bucket', 'object', bytes(content));
    flips = 1;
    assert.deepEqual(await get(store, 'object', { offsetBytes: 50_000, lengthBytes: 10 }), content.subarray(50_000, 50_010));
    flips = 1;
    assert.deepEqual(await get(store, 'object'), content);
    flips = 2;
    await rejectsWith(store.get('bucket', 'object'), 'corrupt');
    assert.deepEqual(await get(store, 'object'), content);
  });
});
