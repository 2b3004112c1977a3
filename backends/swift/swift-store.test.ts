/** SwiftStore over real OpenStack Swift: conformance, and what a client meets when parts of the cluster fail. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';

import { type Scratch, scratchDirectory } from '../../e2e/scratch.ts';
import { SwiftService } from '../../e2e/services/swift.ts';
import { bytes, objectStoreConformance, readAllOf, rejectsWith, retried } from '../conformance.ts';
import type { SwiftStoreConfig } from './swift-config.ts';
import { SwiftStore } from './swift-store.ts';

let scratch: Scratch;
let swift: SwiftService;
before(async () => {
  scratch = await scratchDirectory('swift');
  swift = await SwiftService.start({ directory: scratch.path });
});
after(async () => {
  await swift[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

function config(service: SwiftService, user = service.user, key = service.key): SwiftStoreConfig {
  const auth = { version: 1, url: service.authUrl, user, key } as const;
  return { kind: 'swift', auth, region: null, endpointInterface: 'public', storageUrl: null, caFile: service.caFile };
}

objectStoreConformance('SwiftStore', async () => {
  const store = new SwiftStore(config(swift));
  return { store, close: () => store.close() };
});

/** A test with a store and a bucket of its own. */
function overSwift(sentence: string, body: (store: SwiftStore, bucket: string) => Promise<void>): void {
  test(sentence, async () => {
    const store = new SwiftStore(config(swift));
    try {
      const bucket = `faults-${randomBytes(6).toString('hex')}`;
      // The service may not have come round yet from the fault of the test before.
      await retried(() => store.createBucket(bucket));
      await body(store, bucket);
    } finally {
      await store.close();
    }
  });
}

const authentications = (): number => readFileSync(join(swift.directory, 'log', 'proxy.log'), 'utf8').split(' GET /auth/v1.0 ').length - 1;

describe('SwiftStore over a Swift that fails', () => {
  overSwift('a byte that flips on the disk is never in what is read; with no other replica the object is gone', async (store, bucket) => {
    const content = randomBytes(200_000);
    await store.put(bucket, 'object', bytes(content));
    swift.flipByte(bucket, 'object', 123_456);
    // Swift's first answer is 200 with the damaged bytes, which sets the file aside; the second is 404.
    assert.deepEqual(await store.get(bucket, 'object'), { kind: 'absent' });
    assert.equal(await store.put(bucket, 'object', bytes(content)), 'written');
    assert.deepEqual(await readAllOf(store, bucket, 'object'), content);
  });

  overSwift('tokens that all end at once, as when memcached loses them, cost one authentication and no call', async (store, bucket) => {
    await store.put(bucket, 'object', bytes(Buffer.from('x')));
    await swift.forgetTokens();
    const countBefore = authentications();
    const body = randomBytes(1024 * 1024);
    await Promise.all([
      ...Array.from({ length: 25 }, () => readAllOf(store, bucket, 'object')),
      ...Array.from({ length: 25 }, (_, index) => store.put(bucket, `new-${index}`, bytes(body))),
    ]);
    assert.equal(authentications() - countBefore, 1);
  });

  overSwift('while memcached is down every call is class retry, not denied, and goes on when it is back', async (store, bucket) => {
    await store.put(bucket, 'object', bytes(Buffer.from('x')));
    await swift.stop('memcached');
    try {
      await rejectsWith(store.get(bucket, 'object'), 'retry');
      await rejectsWith(store.put(bucket, 'other', bytes(Buffer.from('x'))), 'retry');
      await rejectsWith(store.list(bucket, '', '', 10), 'retry');
      const fresh = new SwiftStore(config(swift));
      await rejectsWith(fresh.head(bucket, 'object'), 'retry');
      await fresh.close();
    } finally {
      await swift.startPart('memcached');
    }
    assert.equal((await retried(() => readAllOf(store, bucket, 'object'))).toString(), 'x');
  });

  overSwift('without an object server nothing is absent: reads and writes are class retry, lists work', async (store, bucket) => {
    await store.put(bucket, 'object', bytes(Buffer.from('x')));
    await swift.stop('object');
    try {
      for (const name of ['object', 'never-there']) {
        await rejectsWith(store.get(bucket, name), 'retry');
        await rejectsWith(store.head(bucket, name), 'retry');
        await rejectsWith(store.delete(bucket, name), 'retry');
      }
      await rejectsWith(store.put(bucket, 'other', bytes(randomBytes(2 * 1024 * 1024))), 'retry');
      assert.deepEqual(await store.list(bucket, '', '', 10), { names: ['object'], more: false });
    } finally {
      await swift.startPart('object');
    }
    assert.equal((await retried(() => readAllOf(store, bucket, 'object'))).toString(), 'x');
  });

  overSwift('a frozen object server is class retry, for many calls at a time, and an abort does not wait for it', async (store, bucket) => {
    await store.put(bucket, 'object', bytes(Buffer.from('x')));
    // For longer than the abort can take on any machine the proxy waits for the server.
    await swift.tune({ nodeTimeoutSeconds: 300 });
    swift.pause('object');
    try {
      const controller = new AbortController();
      const aborted = rejectsWith(store.get(bucket, 'object', undefined, controller.signal), 'retry');
      await new Promise((resolve) => setTimeout(resolve, 200));
      controller.abort(new Error('enough'));
      assert.match((await aborted).message, /aborted/);
      await swift.tune({ nodeTimeoutSeconds: 2 });
      const calls = Array.from({ length: 8 }, (_, index) => rejectsWith(store.put(bucket, `new-${index}`, bytes(randomBytes(1024 * 1024))), 'retry'));
      await Promise.all(calls);
    } finally {
      swift.resume('object');
      await swift.tune({ nodeTimeoutSeconds: 10 });
    }
    assert.equal((await retried(() => readAllOf(store, bucket, 'object'))).toString(), 'x');
  });

  overSwift('a frozen proxy is given up', async (store, bucket) => {
    const impatient = new SwiftStore(config(swift), { silenceMsMax: 500 });
    await retried(() => impatient.head(bucket, 'object'));
    swift.pause('proxy');
    try {
      assert.match((await rejectsWith(impatient.head(bucket, 'object'), 'retry')).message, /silent/);
      await rejectsWith(impatient.put(bucket, 'object', bytes(randomBytes(20 * 1024 * 1024))), 'retry');
    } finally {
      swift.resume('proxy');
    }
    assert.deepEqual(await retried(() => store.head(bucket, 'object')), { kind: 'absent' });
    await impatient.close();
  });

  overSwift('a proxy that dies under a put leaves no part of the object, and a new one is found', async (store, bucket) => {
    const body = randomBytes(32 * 1024 * 1024);
    await store.put(bucket, 'before', bytes(Buffer.from('x')));
    const put = rejectsWith(store.put(bucket, 'object', bytes(body)), 'retry');
    await new Promise((resolve) => setTimeout(resolve, 30));
    await swift.stop('proxy');
    try {
      await put;
      await rejectsWith(store.head(bucket, 'before'), 'retry');
    } finally {
      await swift.startPart('proxy');
    }
    assert.deepEqual(await retried(() => store.get(bucket, 'object')), { kind: 'absent' });
    assert.equal(await retried(() => store.put(bucket, 'object', bytes(body))), 'written');
    assert.ok((await readAllOf(store, bucket, 'object')).equals(body));
  });

  overSwift('a put while the container server is down counts: it is read at once, and listed later', async (store, bucket) => {
    await store.put(bucket, 'before', bytes(Buffer.from('x')));
    await swift.stop('container');
    try {
      assert.equal(await retried(() => store.put(bucket, 'object', bytes(Buffer.from('y')))), 'written');
      assert.equal((await retried(() => readAllOf(store, bucket, 'object'))).toString(), 'y');
      await rejectsWith(store.list(bucket, '', '', 10), 'retry');
      await rejectsWith(store.createBucket(`${bucket}-b`), 'retry');
    } finally {
      await swift.startPart('container');
    }
    const listed = await retried(() => store.list(bucket, '', '', 10));
    assert.deepEqual(listed.names, ['before']);
    await swift.updateListings();
    assert.deepEqual(await retried(() => store.list(bucket, '', '', 10)), { names: ['before', 'object'], more: false });
  });

  overSwift('a full device is class retry for puts; deletes work, and with room again so do puts', async (store, bucket) => {
    await store.put(bucket, 'object', bytes(Buffer.from('x')));
    await swift.fill(true);
    try {
      await rejectsWith(store.put(bucket, 'other', bytes(randomBytes(1024 * 1024))), 'retry');
      await retried(() => store.delete(bucket, 'object'));
    } finally {
      await swift.fill(false);
    }
    assert.equal(await retried(() => store.put(bucket, 'other', bytes(Buffer.from('x')))), 'written');
  });

  overSwift('a quota that is used up is class no-space', async (store, bucket) => {
    const { headers } = await fetch(swift.authUrl, { headers: { 'X-Auth-User': swift.user, 'X-Auth-Key': swift.key } });
    const answer = await fetch(`${swift.storageUrl}/${bucket}`, {
      method: 'POST',
      headers: { 'X-Auth-Token': headers.get('x-auth-token') ?? '', 'X-Container-Meta-Quota-Bytes': '1000' },
    });
    assert.equal(answer.status, 204);
    assert.equal(await store.put(bucket, 'fits', bytes(Buffer.alloc(1000))), 'written');
    await rejectsWith(store.put(bucket, 'too-much', bytes(Buffer.alloc(1001))), 'no-space');
    await rejectsWith(store.put(bucket, 'far-too-much', bytes(Buffer.alloc(5_000_000))), 'no-space');
  });

  overSwift('who may not, and who is not known, is denied', async (_store, bucket) => {
    const { user, key } = swift.powerlessUser;
    const powerless = new SwiftStore(config(swift, user, key));
    assert.match((await rejectsWith(powerless.put(bucket, 'object', bytes(Buffer.from('x'))), 'denied')).message, /403/);
    await rejectsWith(powerless.list(bucket, '', '', 10), 'denied');
    await powerless.close();
    const unknown = new SwiftStore(config(swift, 'test:nobody', 'very-secret'));
    const error = await rejectsWith(unknown.head(bucket, 'object'), 'denied');
    assert.match(error.message, /wrong user, key/);
    assert.doesNotMatch(error.message, /very-secret/);
    await unknown.close();
  });

  overSwift('a rate limit (498) is class retry, and puts that are retried all arrive', async (store, bucket) => {
    // A container that is empty, or known to memcached as such, has no limit.
    await store.put(bucket, 'first', bytes(Buffer.from('x')));
    await swift.tune({ ratelimit: 5 });
    await swift.forgetTokens();
    try {
      let limited = 0;
      const put = async (name: string): Promise<unknown> => {
        const outcome = store.put(bucket, name, bytes(Buffer.from(name)));
        outcome.catch((error: unknown) => {
          limited += 1;
          assert.match(String(error), /498/);
        });
        return await outcome;
      };
      // Where a machine is too slow for the limit, more at a time meet it.
      let count = 1;
      for (let atOnce = 15; limited === 0; atOnce *= 2) {
        assert.ok(atOnce < 1000, 'no limit was met');
        const names = Array.from({ length: atOnce }, (_, index) => `object-${atOnce}-${index}`);
        const outcomes = await Promise.all(names.map((name) => retried(() => put(name))));
        assert.ok(outcomes.every((outcome) => outcome === 'written'));
        count += atOnce;
      }
      assert.equal((await retried(() => store.list(bucket, '', '', 1000))).names.length, count);
    } finally {
      await swift.tune({ ratelimit: null });
    }
  });

  overSwift('tokens that live five seconds do not show in 50 concurrent streams of calls', async (store, bucket) => {
    await store.put(bucket, 'object', bytes(Buffer.from('x')));
    const readAll = (): Promise<unknown> => Promise.all(Array.from({ length: 50 }, () => readAllOf(store, bucket, 'object')));
    await readAll();
    const slowestFromMs = performance.now();
    await readAll();
    // No token helps who is answered later than it lives: on a slow machine they live longer.
    const tokenLifeSeconds = Math.max(5, Math.ceil((10 * (performance.now() - slowestFromMs)) / 1000));
    await swift.tune({ tokenLifeSeconds });
    // A long-lived token of before would be given out again.
    await swift.forgetTokens();
    try {
      await retried(() => store.head(bucket, 'object'));
      const countBefore = authentications();
      const renewals = (): number => authentications() - countBefore;
      const startedMs = performance.now();
      let over = false;
      const stream = async (): Promise<void> => {
        while (!over) assert.equal((await readAllOf(store, bucket, 'object')).toString(), 'x');
      };
      const streams = Promise.all(Array.from({ length: 50 }, stream));
      const enough = async (): Promise<void> => {
        while (!over && renewals() < 2) await new Promise((resolve) => setTimeout(resolve, 250));
      };
      try {
        await Promise.race([streams, enough()]);
      } finally {
        over = true;
      }
      await streams;
      const seconds = Math.ceil((performance.now() - startedMs) / 1000);
      // For each token there is an early renewal, which brings it again, and one that counts; memcached may forget it a second early.
      assert.ok(renewals() <= 2 + seconds, `${renewals()} authentications in ${seconds} s`);
    } finally {
      await swift.tune({ tokenLifeSeconds: 86_400 });
    }
  });
});

test('over TLS the certificate must be good, and its CA is a file; of three replicas the damaged ones are passed over', async () => {
  await using directory = await scratchDirectory('swift-tls');
  await using service = await SwiftService.start({ directory: directory.path, tls: true, replicas: 3 });
  const store = new SwiftStore(config(service));
  await store.createBucket('bucket');
  const body = randomBytes(3 * 1024 * 1024);
  assert.equal(await store.put('bucket', 'object', bytes(body)), 'written');
  assert.ok((await readAllOf(store, 'bucket', 'object')).equals(body));
  // Two of three, each in its own way: whichever Swift asks first.
  for (const replica of [0, 1]) service.flipByte('bucket', 'object', 1_000_000 + replica, replica);
  assert.equal(service.dataFiles('bucket', 'object').length, 3);
  for (let turn = 0; turn < 20; turn += 1) assert.ok((await retried(() => readAllOf(store, 'bucket', 'object'))).equals(body));
  await store.close();
  await writeFile(join(directory.path, 'broken.crt'), '-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n');
  for (const [caFile, message] of [
    [join(directory.path, 'broken.crt'), /holds no certificate/],
    [null, /the certificate of 127\.0\.0\.1:\d+ is not good: .*; is the right CA file set\?/],
    [join(directory.path, 'etc', 'proxy.crt'), /is not good/],
    [join(directory.path, 'etc', 'proxy.key'), /holds no certificate/],
    [join(directory.path, 'etc', 'missing.crt'), /cannot read the CA file/],
  ] as const) {
    const distrusting = new SwiftStore({ ...config(service), caFile });
    assert.match((await rejectsWith(distrusting.head('bucket', 'object'), 'denied')).message, message);
    await distrusting.close();
  }
});
