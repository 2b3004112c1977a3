/** S3Store over the S3 API of real OpenStack Swift: no conditional put, and a multi-object delete that wants a Content-MD5. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { type Scratch, scratchDirectory } from '../../e2e/scratch.ts';
import { SwiftService } from '../../e2e/services/swift.ts';
import { bytes, objectStoreConformance, readAllOf, rejectsWith, retried } from '../conformance.ts';
import type { S3StoreConfig } from './s3-config.ts';
import { S3Store } from './s3-store.ts';

let scratch: Scratch;
let swift: SwiftService;
before(async () => {
  scratch = await scratchDirectory('s3api');
  // With TLS: what differs from plain HTTP is covered here, the rest by radosgw.
  swift = await SwiftService.start({ directory: scratch.path, tls: true });
});
after(async () => {
  await swift[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

function config(changes: Partial<S3StoreConfig> = {}): S3StoreConfig {
  return {
    kind: 's3',
    endpoint: swift.s3Endpoint,
    region: swift.s3Region,
    forcePathStyle: true,
    credentials: { accessKeyId: swift.user, secretAccessKey: swift.key, sessionToken: null },
    profile: null,
    caFile: swift.caFile,
    conditionalPut: false,
    ...changes,
  };
}

objectStoreConformance(
  "S3Store on Swift's s3api",
  async () => {
    const store = new S3Store(config());
    return { store, close: () => store.close() };
  },
  { putTellsExisting: false },
);

function proxyLog(): string {
  return readFileSync(join(swift.directory, 'log', 'proxy.log'), 'utf8');
}

/** A test with a store and a bucket of its own. */
function overS3api(
  sentence: string,
  body: (store: S3Store, bucket: string) => Promise<void>,
  changes: () => Partial<S3StoreConfig> = () => ({}),
): void {
  test(sentence, async () => {
    const store = new S3Store(config(changes()));
    try {
      const bucket = `s3api-${randomBytes(6).toString('hex')}`;
      await store.createBucket(bucket);
      await body(store, bucket);
    } finally {
      await store.close();
    }
  });
}

overS3api(
  'a conditional put that the service does not know is denied with the reason, and leaves no object',
  async (store, bucket) => {
    const error = await rejectsWith(store.put(bucket, 'object', bytes(Buffer.from('x'))), 'denied');
    assert.match(error.message, /does not support If-None-Match/);
    assert.deepEqual(await store.head(bucket, 'object'), { kind: 'absent' });
  },
  () => ({ conditionalPut: true }),
);

overS3api('sixty objects are deleted in one request', async (store, bucket) => {
  const names = Array.from({ length: 60 }, (_, index) => `object-${index}`);
  for (let start = 0; start < names.length; start += 30) {
    await Promise.all(names.slice(start, start + 30).map((name) => store.put(bucket, name, bytes(Buffer.from(name)))));
  }
  const logged = proxyLog().length;
  await store.deleteMany(bucket, names);
  assert.deepEqual(await store.list(bucket, '', '', 10), { names: [], more: false });
  const requests = proxyLog().slice(logged).split('\n');
  assert.equal(requests.filter((line) => line.includes(`POST /${bucket}`)).length, 1, requests.join('\n').slice(0, 3000));
});

test('a certificate of an unknown authority is refused, and the message says so', async () => {
  const store = new S3Store(config({ caFile: null }));
  try {
    const error = await rejectsWith(store.listBuckets('', 1), 'denied');
    assert.match(error.message, /UNABLE_TO_VERIFY_LEAF_SIGNATURE|SELF_SIGNED_CERT_IN_CHAIN/);
  } finally {
    await store.close();
  }
});

test('a wrong secret is denied, and is not in the message', async () => {
  const store = new S3Store(config({ credentials: { accessKeyId: swift.user, secretAccessKey: 'wrong-secret-7531', sessionToken: null } }));
  try {
    const error = await rejectsWith(store.listBuckets('', 1), 'denied');
    assert.match(error.message, /SignatureDoesNotMatch/);
    assert.doesNotMatch(JSON.stringify([error.message, error.stack, error.cause]), /wrong-secret-7531/);
  } finally {
    await store.close();
  }
});

overS3api('a put that is under way when the proxy dies leaves no torn object, and works when it is repeated', async (store, bucket) => {
  const content = randomBytes(8 * 1024 * 1024);
  const put = store.put(bucket, 'object', bytes(content));
  // Whatever becomes of it.
  put.catch(() => undefined);
  await new Promise((resolve) => setTimeout(resolve, 5));
  await swift.stop('proxy');
  await put.catch((error: unknown) => assert.match(String(error), /put .*ECONN|put .*EPIPE|put .*socket/));
  await swift.startPart('proxy');
  const found = await retried(() => store.get(bucket, 'object'));
  if (found.kind === 'found') assert.ok(found.bytes.equals(content));
  assert.equal(await retried(() => store.put(bucket, 'object', bytes(content))), 'written');
  assert.ok((await retried(() => readAllOf(store, bucket, 'object'))).equals(content));
});
