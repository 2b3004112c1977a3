/**
 * What every ObjectStore must do, as tests (node:test). A store's own test file calls `objectStoreConformance`; a wrapper
 * passes it around any store. Buckets get unique names, so one real store can serve many runs.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';

import { type ObjectBody, type ObjectStore, StoreError, type StoreErrorClass } from './object-store.ts';

export interface OpenedStore {
  readonly store: ObjectStore;
  /** Ends the store and removes what it made. */
  close(): Promise<void>;
}

export interface ConformanceOptions {
  /**
   * False for a store that keeps all buckets in one: a bucket is there as long as it has objects, has no dot in its name, and
   * its name and an object's have a length together. Sentences about buckets are then replaced by what holds instead.
   */
  readonly bucketsAreReal: boolean;
  /** False for a store whose put replaces what has the name already (S3 without conditional writes): names are used once anyway. */
  readonly putTellsExisting: boolean;
}

/** Defines the conformance tests of the store that `open` makes; each test opens its own. */
export function objectStoreConformance(
  name: string,
  open: () => Promise<OpenedStore>,
  { bucketsAreReal = true, putTellsExisting = true }: Partial<ConformanceOptions> = {},
): void {
  /** What is legal as an object's name here besides the port's own rule. */
  const fits = (bucket: string, objectName: string): boolean =>
    bucketsAreReal || (!objectName.startsWith('.') && `${bucket}.${objectName}`.length <= 200);
  const longest = (bucket: string, letter: string): string => letter.repeat(bucketsAreReal ? 200 : 200 - 1 - bucket.length);
  const conforms = (sentence: string, body: (store: ObjectStore, bucket: string) => Promise<void>): void => {
    test(sentence, async () => {
      const opened = await open();
      try {
        const bucket = `conformance-${randomBytes(6).toString('hex')}`;
        await opened.store.createBucket(bucket);
        await body(opened.store, bucket);
      } finally {
        await opened.close();
      }
    });
  };

  describe(`${name} is an ObjectStore`, () => {
    conforms('an object is read back byte for byte, whole, by parts and by size', async (store, bucket) => {
      const content = randomBytes(300_000);
      assert.equal(await store.put(bucket, 'object', bytes(content)), 'written');
      assert.deepEqual(await readAllOf(store, bucket, 'object'), content);
      assert.deepEqual(await store.head(bucket, 'object'), { kind: 'found', sizeBytes: content.byteLength });
      for (const [offsetBytes, lengthBytes] of [
        [0, 1],
        [4096, 8192],
        [299_999, 1],
        [0, 300_000],
      ] as const) {
        const part = await store.get(bucket, 'object', { offsetBytes, lengthBytes });
        assert.ok(part.kind === 'found');
        assert.deepEqual(part.bytes, content.subarray(offsetBytes, offsetBytes + lengthBytes));
      }
    });

    conforms('a range past the end is cut there, possibly to nothing', async (store, bucket) => {
      await store.put(bucket, 'object', bytes(Buffer.from('0123456789')));
      const get = async (offsetBytes: number, lengthBytes: number): Promise<string> => {
        const outcome = await store.get(bucket, 'object', { offsetBytes, lengthBytes });
        return outcome.kind === 'found' ? outcome.bytes.toString('latin1') : 'absent';
      };
      assert.equal(await get(8, 100), '89');
      assert.equal(await get(10, 1), '');
      assert.equal(await get(2 ** 40, 4096), '');
      assert.equal(await get(3, 0), '');
    });

    conforms('an object is write-once: a second put answers exists and changes nothing, when the store can tell', async (store, bucket) => {
      assert.equal(await store.put(bucket, 'object', bytes(Buffer.from('first'))), 'written');
      const second = putTellsExisting ? 'second, and longer' : 'first';
      assert.equal(await store.put(bucket, 'object', bytes(Buffer.from(second))), putTellsExisting ? 'exists' : 'written');
      assert.equal((await readAllOf(store, bucket, 'object')).toString(), 'first');
    });

    conforms('of many concurrent puts of one name exactly one is written, when the store says that put is atomic', async (store, bucket) => {
      const outcomes = await Promise.all(Array.from({ length: 12 }, (_, index) => store.put(bucket, 'claim', bytes(Buffer.from(`writer ${index}`)))));
      if (!store.putIsAtomic) return;
      assert.equal(outcomes.filter((outcome) => outcome === 'written').length, 1);
      assert.equal((await readAllOf(store, bucket, 'claim')).toString(), `writer ${outcomes.indexOf('written')}`);
    });

    conforms('an empty object exists', async (store, bucket) => {
      assert.equal(await store.put(bucket, 'empty', { kind: 'bytes', chunks: [] }), 'written');
      assert.deepEqual(await store.head(bucket, 'empty'), { kind: 'found', sizeBytes: 0 });
      assert.equal((await readAllOf(store, bucket, 'empty')).byteLength, 0);
      if (putTellsExisting) assert.equal(await store.put(bucket, 'empty', bytes(Buffer.from('x'))), 'exists');
    });

    conforms('a body of many chunks, slices of larger buffers among them, becomes their concatenation', async (store, bucket) => {
      const slab = randomBytes(2 * 1024 * 1024);
      const chunks = [
        slab.subarray(5, 5),
        slab.subarray(0, 1),
        slab.subarray(1000, 66_536),
        new Uint8Array(slab.buffer, slab.byteOffset + 70_000, 1_500_000),
      ];
      await store.put(bucket, 'object', { kind: 'bytes', chunks });
      assert.deepEqual(await readAllOf(store, bucket, 'object'), Buffer.concat(chunks));
    });

    conforms('a body that is a part of a local file becomes exactly these bytes', async (store, bucket) => {
      await withDirectory(async (directory) => {
        const path = join(directory, 'segment');
        const content = randomBytes(3 * 1024 * 1024 + 77);
        await writeFile(path, content);
        await store.put(bucket, 'whole', { kind: 'file', path, offsetBytes: 0, lengthBytes: content.byteLength });
        await store.put(bucket, 'part', { kind: 'file', path, offsetBytes: 4096, lengthBytes: 2 * 1024 * 1024 + 1 });
        await store.put(bucket, 'none', { kind: 'file', path, offsetBytes: 10, lengthBytes: 0 });
        assert.deepEqual(await readAllOf(store, bucket, 'whole'), content);
        assert.deepEqual(await readAllOf(store, bucket, 'part'), content.subarray(4096, 4096 + 2 * 1024 * 1024 + 1));
        assert.equal((await readAllOf(store, bucket, 'none')).byteLength, 0);
      });
    });

    conforms('a local file that is missing or too short is corrupt, and leaves no object', async (store, bucket) => {
      await withDirectory(async (directory) => {
        const path = join(directory, 'short');
        await writeFile(path, Buffer.alloc(1000));
        await rejectsWith(store.put(bucket, 'a', { kind: 'file', path, offsetBytes: 500, lengthBytes: 501 }), 'corrupt');
        await rejectsWith(store.put(bucket, 'b', { kind: 'file', path: join(directory, 'gone'), offsetBytes: 0, lengthBytes: 1 }), 'corrupt');
        assert.deepEqual(await store.head(bucket, 'a'), { kind: 'absent' });
        assert.deepEqual(await store.list(bucket, '', '', 10), { names: [], more: false });
      });
    });

    conforms('the result of a get belongs to the caller, and a body is free again once the put settled', async (store, bucket) => {
      const body = Buffer.from('original');
      await store.put(bucket, 'object', bytes(body));
      body.fill(0);
      (await readAllOf(store, bucket, 'object')).fill(0);
      assert.equal((await readAllOf(store, bucket, 'object')).toString(), 'original');
    });

    conforms('a large object passes whole and by ranges', async (store, bucket) => {
      const content = randomBytes(9 * 1024 * 1024 + 3);
      await store.put(bucket, 'large', bytes(content));
      assert.ok(content.equals(await readAllOf(store, bucket, 'large')));
      const tail = await store.get(bucket, 'large', { offsetBytes: 9 * 1024 * 1024, lengthBytes: 4096 });
      assert.ok(tail.kind === 'found' && tail.bytes.equals(content.subarray(9 * 1024 * 1024)));
    });

    conforms('what is not there is absent to get and head, also in a bucket that is not there', async (store, bucket) => {
      for (const where of [bucket, `${bucket}-missing`]) {
        assert.deepEqual(await store.get(where, 'nothing'), { kind: 'absent' });
        assert.deepEqual(await store.get(where, 'nothing', { offsetBytes: 0, lengthBytes: 1 }), { kind: 'absent' });
        assert.deepEqual(await store.head(where, 'nothing'), { kind: 'absent' });
      }
    });

    if (bucketsAreReal) {
      conforms('a put into, and a list of, a bucket that is not there are rejected as absent', async (store, bucket) => {
        await rejectsWith(store.put(`${bucket}-missing`, 'object', bytes(Buffer.from('x'))), 'absent');
        await rejectsWith(store.list(`${bucket}-missing`, '', '', 10), 'absent');
      });
    } else {
      conforms('a bucket that was not made lists as empty, and a put makes it', async (store, bucket) => {
        assert.deepEqual(await store.list(`${bucket}-missing`, '', '', 10), { names: [], more: false });
        assert.equal(await store.put(`${bucket}-missing`, 'object', bytes(Buffer.from('x'))), 'written');
        assert.deepEqual(await store.list(`${bucket}-missing`, '', '', 10), { names: ['object'], more: false });
        assert.deepEqual(await store.list(bucket, '', '', 10), { names: [], more: false });
        await store.delete(`${bucket}-missing`, 'object');
      });
    }

    conforms('a delete removes one object; of an absent one, also in an absent bucket, it is success', async (store, bucket) => {
      await store.put(bucket, 'a', bytes(Buffer.from('a')));
      await store.put(bucket, 'b', bytes(Buffer.from('b')));
      await store.delete(bucket, 'a');
      await store.delete(bucket, 'a');
      await store.delete(`${bucket}-missing`, 'a');
      assert.deepEqual(await store.get(bucket, 'a'), { kind: 'absent' });
      assert.equal((await readAllOf(store, bucket, 'b')).toString(), 'b');
    });

    conforms('many objects are deleted by one call, absent ones among them, also in an absent bucket', async (store, bucket) => {
      const names = Array.from({ length: 30 }, (_, index) => `object-${index}`);
      await Promise.all([...names, 'kept'].map((name) => store.put(bucket, name, bytes(Buffer.from(name)))));
      await store.deleteMany(bucket, [...names, 'never-there', 'kept-not']);
      assert.deepEqual(await store.list(bucket, '', '', 100), { names: ['kept'], more: false });
      await store.deleteMany(bucket, names);
      await store.deleteMany(bucket, []);
      await store.deleteMany(`${bucket}-missing`, names);
      assert.equal((await readAllOf(store, bucket, 'kept')).toString(), 'kept');
    });

    conforms('a bucket can be made twice and deleted twice, but not deleted with objects in it', async (store, bucket) => {
      await store.createBucket(bucket);
      await store.put(bucket, 'object', bytes(Buffer.from('x')));
      await rejectsWith(store.deleteBucket(bucket), 'denied');
      assert.equal((await readAllOf(store, bucket, 'object')).toString(), 'x');
      await store.delete(bucket, 'object');
      await store.deleteBucket(bucket);
      await store.deleteBucket(bucket);
      const again = store.put(bucket, 'object', bytes(Buffer.from('x')));
      if (bucketsAreReal) await rejectsWith(again, 'absent');
      else assert.equal(await again, 'written');
    });

    conforms('a list gives names in byte order, by prefix, after a name, in pages', async (store, bucket) => {
      const names = ['a', 'a-1', 'a.1', 'a_1', 'A', 'Z', '0', '9z', 'aa', 'b', longest(bucket, 'n'), '-', '_', '.hidden'].filter((each) =>
        fits(bucket, each),
      );
      for (const name of names) await store.put(bucket, name, bytes(Buffer.from(name)));
      const sorted = [...names].sort((first, second) => Buffer.compare(Buffer.from(first), Buffer.from(second)));
      assert.deepEqual(await store.list(bucket, '', '', 100), { names: sorted, more: false });
      assert.deepEqual(await store.list(bucket, '', '', names.length), { names: sorted, more: false });
      assert.deepEqual(await store.list(bucket, 'a', '', 100), { names: ['a', 'a-1', 'a.1', 'a_1', 'aa'], more: false });
      assert.deepEqual(await store.list(bucket, 'a', 'a.1', 1), { names: ['a_1'], more: true });
      assert.deepEqual(await store.list(bucket, 'a', 'a_1', 1), { names: ['aa'], more: false });
      assert.deepEqual(await store.list(bucket, 'a', 'b', 10), { names: [], more: false });
      assert.deepEqual(await store.list(bucket, 'nothing', '', 10), { names: [], more: false });
      for (const limit of [1, 3, 5]) assert.deepEqual(await listAll((after) => store.list(bucket, '', after, limit), limit), sorted);
    });

    conforms('a list that starts again sees what was put and deleted since', async (store, bucket) => {
      for (const name of ['a', 'b', 'c']) await store.put(bucket, name, bytes(Buffer.from(name)));
      assert.deepEqual(await store.list(bucket, '', '', 1), { names: ['a'], more: true });
      await store.delete(bucket, 'b');
      await store.put(bucket, 'd', bytes(Buffer.from('d')));
      assert.deepEqual(await store.list(bucket, '', '', 10), { names: ['a', 'c', 'd'], more: false });
    });

    conforms('buckets are listed in byte order, after a name, in pages', async (store, bucket) => {
      const buckets = [bucket, `${bucket}-b`, bucketsAreReal ? `${bucket}.a` : `${bucket}-b-c`, `${bucket}0`].sort();
      for (const each of buckets) await store.createBucket(each);
      if (!bucketsAreReal) for (const each of buckets) await store.put(each, 'object', bytes(Buffer.from('x')));
      const ours = (await listAll((after) => store.listBuckets(after, 2), 2)).filter((each) => each.startsWith(bucket));
      assert.deepEqual(ours, buckets);
      const rest = await store.listBuckets(bucket, 3);
      assert.deepEqual(rest.names, buckets.slice(1));
      if (!bucketsAreReal) for (const each of buckets) await store.delete(each, 'object');
      for (const each of buckets) await store.deleteBucket(each);
    });

    conforms('every legal name works, the longest too', async (store, bucket) => {
      const legal = ['ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz', '0123456789', '-.-', '.a', '_', longest(bucket, 'x')].filter(
        (each) => fits(bucket, each),
      );
      for (const name of legal) assert.equal(await store.put(bucket, name, bytes(Buffer.from(name))), 'written');
      for (const name of legal) assert.equal((await readAllOf(store, bucket, name)).toString(), name);
    });

    conforms('hostile names of objects and buckets are denied by every call', async (store, bucket) => {
      const body = bytes(Buffer.from('x'));
      const together = bucketsAreReal ? [] : ['.a', `${longest(bucket, 'x')}x`];
      for (const hostile of [...together, '', '.', '..', '../x', 'a/b', '/etc/passwd', 'a\0b', 'a..b', 'ü', 'a b', 'a\n', 'x'.repeat(201)]) {
        await rejectsWith(store.put(bucket, hostile, body), 'denied');
        await rejectsWith(store.get(bucket, hostile), 'denied');
        await rejectsWith(store.head(bucket, hostile), 'denied');
        await rejectsWith(store.delete(bucket, hostile), 'denied');
        await rejectsWith(store.deleteMany(bucket, ['kept', hostile]), 'denied');
      }
      for (const hostile of [
        '',
        '.',
        '..',
        '../..',
        'ab',
        'UPPER',
        'a/b',
        'a\0bc',
        '-abc',
        'abc.',
        'a..b',
        'a_b',
        'x'.repeat(64),
        ...(bucketsAreReal ? [] : ['a.b']),
      ]) {
        await rejectsWith(store.createBucket(hostile), 'denied');
        await rejectsWith(store.deleteBucket(hostile), 'denied');
        await rejectsWith(store.put(hostile, 'object', body), 'denied');
        await rejectsWith(store.get(hostile, 'object'), 'denied');
        await rejectsWith(store.deleteMany(hostile, ['object']), 'denied');
        await rejectsWith(store.list(hostile, '', '', 10), 'denied');
      }
    });

    conforms('a call whose signal has fired is rejected as retry and does nothing', async (store, bucket) => {
      const signal = AbortSignal.abort(new Error('enough'));
      await store.put(bucket, 'object', bytes(Buffer.from('x')));
      await rejectsWith(store.put(bucket, 'other', bytes(Buffer.from('x')), signal), 'retry');
      await rejectsWith(store.get(bucket, 'object', undefined, signal), 'retry');
      await rejectsWith(store.head(bucket, 'object', signal), 'retry');
      await rejectsWith(store.delete(bucket, 'object', signal), 'retry');
      await rejectsWith(store.deleteMany(bucket, ['object'], signal), 'retry');
      await rejectsWith(store.list(bucket, '', '', 10, signal), 'retry');
      await rejectsWith(store.listBuckets('', 10, signal), 'retry');
      await rejectsWith(store.createBucket(`${bucket}-b`, signal), 'retry');
      await rejectsWith(store.deleteBucket(bucket, signal), 'retry');
      assert.deepEqual(await store.list(bucket, '', '', 10), { names: ['object'], more: false });
    });

    conforms('many calls run concurrently without mixing up their bytes', async (store, bucket) => {
      const contents = Array.from({ length: 40 }, (_, index) => randomBytes(1 + index * 997));
      await Promise.all(contents.map((content, index) => store.put(bucket, `object-${index}`, bytes(content))));
      const read = await Promise.all(contents.map((_, index) => readAllOf(store, bucket, `object-${index}`)));
      assert.deepEqual(read, contents);
    });
  });
}

/** Asserts that `promise` rejects with a StoreError of that class and a message. */
export async function rejectsWith(promise: Promise<unknown>, errorClass: StoreErrorClass): Promise<StoreError> {
  const error = await promise.then(
    (value) => assert.fail(`resolved with ${JSON.stringify(value)}, expected class ${errorClass}`),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof StoreError, `rejected with ${String(error)}`);
  assert.equal(error.class, errorClass, error.message);
  assert.notEqual(error.message, '');
  return error;
}

/** A body of one chunk. */
export function bytes(chunk: Uint8Array): ObjectBody {
  return { kind: 'bytes', chunks: [chunk] };
}

/** The whole object, which must be there. */
export async function readAllOf(store: ObjectStore, bucket: string, name: string): Promise<Buffer> {
  const outcome = await store.get(bucket, name);
  assert.ok(outcome.kind === 'found', `${bucket}/${name} is absent`);
  return outcome.bytes;
}

/**
 * Repeats `call` while it rejects with class `retry`, as RetryingStore does: for a real service that was just mended, on a machine that may be
 * slow. @throws Error at once for any other class, and after four minutes of retries.
 */
export async function retried<T>(call: () => Promise<T>): Promise<T> {
  const deadlineMs = performance.now() + 240_000;
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof StoreError) || error.class !== 'retry' || performance.now() > deadlineMs) throw error;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
}

/** Runs `body` with a new directory, and removes it. */
export async function withDirectory<T>(body: (directory: string) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), 'vferry-store-'));
  try {
    return await body(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function listAll(list: (after: string) => Promise<{ names: string[]; more: boolean }>, limit: number): Promise<string[]> {
  const all: string[] = [];
  for (;;) {
    const { names, more } = await list(all.at(-1) ?? '');
    assert.ok(names.length <= limit);
    assert.ok(!more || names.length > 0, 'an empty page that says more would be asked for again for ever');
    all.push(...names);
    if (!more) return all;
  }
}
