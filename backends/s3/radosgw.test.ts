/** S3Store over real Ceph radosgw: conformance with conditional puts, and what a client meets when the gateway or the OSD fails. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';

import { type Scratch, scratchDirectory } from '../../e2e/scratch.ts';
import { CephService } from '../../e2e/services/ceph.ts';
import { bytes, objectStoreConformance, readAllOf, rejectsWith, retried } from '../conformance.ts';
import { StoreError } from '../object-store.ts';
import { PrefixLayoutStore } from '../prefix-layout/prefix-layout-store.ts';
import type { S3StoreConfig } from './s3-config.ts';
import { S3Store } from './s3-store.ts';

let scratch: Scratch;
let ceph: CephService;
before(async () => {
  scratch = await scratchDirectory('ceph');
  ceph = await CephService.start({ directory: scratch.path });
});
after(async () => {
  await ceph[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

function config(changes: Partial<S3StoreConfig> = {}): S3StoreConfig {
  return {
    kind: 's3',
    endpoint: ceph.s3Endpoint,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: ceph.accessKeyId, secretAccessKey: ceph.secretAccessKey, sessionToken: null },
    profile: null,
    caFile: null,
    conditionalPut: true,
    ...changes,
  };
}

objectStoreConformance('S3Store on radosgw', async () => {
  const store = new S3Store(config());
  return { store, close: () => store.close() };
});

objectStoreConformance(
  'S3Store on radosgw with all in one bucket',
  async () => {
    const store = new S3Store(config());
    return { store: new PrefixLayoutStore(store, 'all-in-one'), close: () => store.close() };
  },
  { bucketsAreReal: false },
);

/** A test with a store and a bucket of its own. */
function overRadosgw(sentence: string, body: (store: S3Store, bucket: string) => Promise<void>): void {
  test(sentence, async () => {
    const store = new S3Store(config());
    try {
      const bucket = `faults-${randomBytes(6).toString('hex')}`;
      // The service may not have come round yet from the fault of the test before, or its disk may be slow.
      await retried(() => store.createBucket(bucket));
      await body(store, bucket);
    } finally {
      await store.close();
    }
  });
}

overRadosgw(
  'of concurrent puts of one name from several clients exactly one is written, in every round, large bodies too',
  async (_store, bucket) => {
    const clients = Array.from({ length: 4 }, () => new S3Store(config()));
    try {
      for (let round = 0; round < 8; round += 1) {
        const sizeBytes = round < 6 ? 20 : 2 * 1024 * 1024;
        const bodies = Array.from({ length: 8 }, () => randomBytes(sizeBytes));
        const outcomes = await Promise.all(
          // A loser may be told to come again (500) before it is told that the name is taken.
          bodies.map((body, index) => retried(() => (clients[index % 4] as S3Store).put(bucket, `claim-${round}`, bytes(body)))),
        );
        assert.equal(outcomes.filter((outcome) => outcome === 'written').length, 1, `round ${round}: ${outcomes.join()}`);
        const winner = bodies[outcomes.indexOf('written')] as Buffer;
        assert.ok((await readAllOf(clients[round % 4] as S3Store, bucket, `claim-${round}`)).equals(winner));
      }
    } finally {
      for (const client of clients) await client.close();
    }
  },
);

overRadosgw('an access key without the right is denied, and no secret is in the message', async (store, bucket) => {
  const wrong = new S3Store(config({ credentials: { accessKeyId: ceph.accessKeyId, secretAccessKey: 'wrong-secret-7531', sessionToken: null } }));
  const stranger = new S3Store(config({ credentials: { accessKeyId: 'nobody', secretAccessKey: 'wrong-secret-7531', sessionToken: null } }));
  try {
    for (const [client, reason] of [
      [wrong, /SignatureDoesNotMatch/],
      [stranger, /InvalidAccessKeyId/],
    ] as const) {
      const error = await rejectsWith(client.put(bucket, 'object', bytes(Buffer.from('x'))), 'denied');
      assert.match(error.message, reason);
      assert.doesNotMatch(JSON.stringify([error.message, error.stack, error.cause]), /wrong-secret-7531/);
    }
    assert.deepEqual(await store.list(bucket, '', '', 10), { names: [], more: false });
  } finally {
    await wrong.close();
    await stranger.close();
  }
});

overRadosgw(
  'over its quota a put has no space, what is there can be read and deleted, and puts work when there is room again',
  async (store, bucket) => {
    await store.put(bucket, 'before', bytes(Buffer.from('before')));
    await ceph.fill(true);
    try {
      const error = await rejectsWith(store.put(bucket, 'object', bytes(Buffer.from('x'))), 'no-space');
      assert.match(error.message, /QuotaExceeded/);
      assert.equal((await readAllOf(store, bucket, 'before')).toString(), 'before');
      await store.delete(bucket, 'before');
    } finally {
      await ceph.fill(false);
    }
    assert.equal(await store.put(bucket, 'object', bytes(Buffer.from('x'))), 'written');
  },
);

/**
 * Puts objects, breaks the service in the middle, mends it, and looks at every object: it is whole, or it is not there and can be put again. The
 * fault is for a hasty client (told as such to `fault`); what is there afterwards is looked at by the patient `store`, the service may need long to
 * come round.
 */
async function putsAreWholeOver(store: S3Store, bucket: string, fault: (hasty: S3Store) => Promise<void>): Promise<void> {
  const hasty = new S3Store(config(), { connectWithinMs: 2000, inactiveMsMax: 3000 });
  try {
    // Where puts are too fast to be hit, the fault comes sooner.
    for (let delayMs = 30; !(await wereHit(hasty, store, bucket, delayMs, () => fault(hasty))); delayMs -= 10) {
      assert.ok(delayMs > 0, 'every put was over before the fault');
    }
  } finally {
    await hasty.close();
  }
}

/** One round. @returns whether the fault hit a put. */
async function wereHit(hasty: S3Store, patient: S3Store, bucket: string, delayMs: number, fault: () => Promise<void>): Promise<boolean> {
  const contents = Array.from({ length: 6 }, () => randomBytes(4 * 1024 * 1024));
  const running = contents.map((content, index) => hasty.put(bucket, `object-${delayMs}-${index}`, bytes(content)));
  const settled = Promise.allSettled(running);
  await new Promise((resolve) => setTimeout(resolve, delayMs));
  await fault();
  const outcomes = await settled;
  for (const outcome of outcomes) {
    if (outcome.status === 'rejected') assert.ok(outcome.reason instanceof StoreError && outcome.reason.class === 'retry', String(outcome.reason));
  }
  for (const [index, content] of contents.entries()) {
    const name = `object-${delayMs}-${index}`;
    const found = await retried(() => patient.get(bucket, name));
    if (found.kind === 'found') assert.ok(found.bytes.equals(content), `${name} is torn`);
    else assert.equal(outcomes[index]?.status, 'rejected', `${name} was written and is gone`);
    await retried(() => patient.put(bucket, name, bytes(content)));
    assert.ok((await retried(() => readAllOf(patient, bucket, name))).equals(content));
  }
  return outcomes.some((outcome) => outcome.status === 'rejected');
}

overRadosgw('a gateway that is killed in the middle of puts leaves no torn object', (store, bucket) =>
  putsAreWholeOver(store, bucket, async (hasty) => {
    await ceph.rgw.kill();
    await rejectsWith(hasty.head(bucket, 'object'), 'retry');
    await ceph.rgw.start();
  }),
);

overRadosgw('a gateway that stands still is given up after the time of inactivity, and leaves no torn object', (store, bucket) =>
  putsAreWholeOver(store, bucket, async (hasty) => {
    ceph.rgw.pause();
    const error = await rejectsWith(hasty.head(bucket, 'object'), 'retry');
    ceph.rgw.resume();
    assert.match(error.message, /TimeoutError/);
  }),
);

overRadosgw('an OSD that stands still makes requests time out, and nothing is lost when it goes on', (store, bucket) =>
  putsAreWholeOver(store, bucket, async (hasty) => {
    ceph.osd.pause();
    await rejectsWith(hasty.put(bucket, 'other', bytes(Buffer.from('x'))), 'retry');
    ceph.osd.resume();
  }),
);
