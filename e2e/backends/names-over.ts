/** What lies on a backend, seen past the router: names as docs/formats/object-names.md says, and nothing any more of what was removed. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';

import { makeStore } from '../../backends/make-store.ts';
import { type ObjectStore, StoreError } from '../../backends/object-store.ts';
import { Stability, Status } from '../../server/nfsd/file-system.ts';
import { connectStore } from '../datastore-client.ts';
import { RouterProcess } from '../router-process.ts';
import type { FileHandle, StoreClient } from '../store-client.ts';
import { stackOf } from '../test-stack.ts';
import type { Backend } from './backend-fixture.ts';
import { drained } from './cold-restart.ts';

const MIB = 1024 * 1024;
const OBJECT = /^(?:(?:seg|ckp|obj)-\d{10}-\d+-\d+-[0-9a-f]{16}|claim-\d+-\d+)$/;
const SETTINGS = {
  VFERRY_LOG_SEGMENT_BYTES: '4MiB',
  VFERRY_LOG_SEAL_AFTER_MS: '300ms',
  VFERRY_VPOOL_GRACE_TIME_MS: '1s',
};

/** All names of the buckets that are `vf-<word>-...`, by bucket. */
async function listing(store: ObjectStore, word: string): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>();
  const buckets = await store.listBuckets('', 1000);
  assert.equal(buckets.more, false);
  for (const bucket of buckets.names.filter((name) => name.startsWith(`vf-${word}-`))) {
    try {
      const page = await store.list(bucket, '', '', 1000);
      assert.equal(page.more, false);
      found.set(bucket, page.names);
    } catch (error) {
      // It went between the two listings.
      if (!(error instanceof StoreError) || error.class !== 'absent') throw error;
    }
  }
  return found;
}

async function write(client: StoreClient, name: string, sizeBytes: number): Promise<FileHandle> {
  const created = await client.create(client.root, name, 'guarded', { mode: 0o600 });
  assert.equal(created.status, Status.OK);
  const data = Buffer.alloc(Math.min(sizeBytes, MIB), name);
  for (let at = 0; at < sizeBytes; at += data.length) {
    const answer = await client.write(created.handle, at, data.subarray(0, Math.min(data.length, sizeBytes - at)), Stability.FILE_SYNC);
    assert.equal(answer.status, Status.OK);
  }
  return created.handle;
}

async function until(what: string, isSo: () => Promise<boolean>, timeoutMs = 240_000): Promise<void> {
  const started = performance.now();
  while (!(await isSo())) {
    if (performance.now() - started > timeoutMs) throw new Error(`${what}: not within ${timeoutMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

/**
 * Layout buckets: one bucket for each volume, one for all files, one for the archive. What it resolves with waits until the bucket of the removed
 * volume is gone, which takes a minute: listings may lag. The router lives as long as `owner`.
 */
export async function bucketsOver(owner: TestContext, backend: Backend): Promise<() => Promise<void>> {
  assert.ok(backend.store !== null);
  const made = stackOf(owner).use(await makeStore({ store: backend.store, layout: { kind: 'buckets' }, encoding: null }));
  const environment = { ...SETTINGS, ...backend.environment(), VFERRY_VPOOL_BACKEND_LAYOUT: 'buckets' };
  const router = await RouterProcess.forTest(owner, { vpool: 'Two.Buckets_here', environment });
  await using client = await connectStore(router);
  await write(client, 'one-flat.vmdk', 5 * MIB);
  await write(client, 'two-flat.vmdk', MIB);
  await write(client, 'state.vmsn', 100_000);
  await drained(router);

  // `Two.Buckets_here` in lower case, without what a bucket may not have, cut to 16.
  const word = 'two-buckets-here';
  const isVolume = (bucket: string): boolean => /^vf-two-buckets-here-[0-9a-f]{32}$/.test(bucket);
  const bucketNamed = (found: Map<string, string[]>, ending: string): string =>
    [...found.keys()].find((bucket) => new RegExp(`^vf-${word}-[0-9a-f]{8}-${ending}$`).test(bucket)) ?? '';
  await until('checkpoints and the archive', async () => {
    const found = await listing(made.store, word);
    const volumes = [...found].filter(([bucket]) => isVolume(bucket));
    const complete = volumes.length === 2 && volumes.every(([, names]) => names.some((name) => name.startsWith('ckp-')));
    const files = found.get(bucketNamed(found, 'files')) ?? [];
    const archive = found.get(bucketNamed(found, 'ns')) ?? [];
    return complete && files.some((name) => name.includes('.ckp-')) && archive.some((name) => name.startsWith('ns-'));
  });
  const found = await listing(made.store, word);
  assert.equal(found.size, 4, [...found.keys()].join(', '));
  for (const [bucket, names] of found) {
    if (!isVolume(bucket)) continue;
    for (const name of names) assert.match(name, OBJECT, `in ${bucket}`);
    assert.ok(names.some((name) => name.startsWith('seg-')) && names.some((name) => name.startsWith('claim-')), names.join(', '));
  }
  const files = found.get(bucketNamed(found, 'files')) ?? [];
  assert.equal(new Set(files.map((name) => name.slice(0, 33))).size, 1);
  for (const name of files) {
    assert.match(name.slice(0, 33), /^[0-9a-f]{32}\.$/);
    assert.match(name.slice(33), OBJECT);
  }
  assert.ok(
    files.some((name) => name.slice(33).startsWith('obj-')),
    files.join(', '),
  );
  const archive = found.get(bucketNamed(found, 'ns')) ?? [];
  assert.ok(
    archive.some((name) => /^ns-\d+-\d{16}-\d{16}-[0-9a-f]{8}$/.test(name)),
    archive.join(', '),
  );

  for (const name of ['one-flat.vmdk', 'state.vmsn']) assert.equal((await client.remove(client.root, name)).status, Status.OK);
  const volumes = async (): Promise<(readonly string[])[]> =>
    [...(await listing(made.store, word))].filter(([bucket]) => isVolume(bucket)).map(([, names]) => names);
  await until('the objects of the removed volume and of the removed file are gone', async () => {
    const after = await listing(made.store, word);
    return after.get(bucketNamed(after, 'files'))?.length === 0 && (await volumes()).filter((names) => names.length > 0).length === 1;
  });
  return () => until('the bucket of the removed volume is gone', async () => (await volumes()).length === 1);
}

/** Layout prefix: the same names behind the names of their buckets, in one bucket. */
export async function prefixOver(t: TestContext, backend: Backend, bucket: string): Promise<void> {
  assert.ok(backend.store !== null);
  await using made = await makeStore({ store: backend.store, layout: { kind: 'buckets' }, encoding: null });
  const layout = { VFERRY_VPOOL_BACKEND_LAYOUT: 'prefix', VFERRY_VPOOL_BACKEND_BUCKET: bucket };
  const router = await RouterProcess.forTest(t, { vpool: 'prefixed', environment: { ...SETTINGS, ...backend.environment(), ...layout } });
  await using client = await connectStore(router);
  await write(client, 'one-flat.vmdk', 5 * MIB);
  await write(client, 'state.vmsn', 100_000);
  await drained(router);
  const names = async (): Promise<string[]> => (await made.store.list(bucket, '', '', 1000)).names;
  const ofVolume = (all: readonly string[]): string[] => all.filter((name) => /^vf-prefixed-[0-9a-f]{32}\./.test(name));
  const ofFiles = (all: readonly string[]): string[] => all.filter((name) => /^vf-prefixed-[0-9a-f]{8}-files\./.test(name));
  await until('checkpoints', async () => {
    const all = await names();
    return ofVolume(all).some((name) => name.includes('.ckp-')) && ofFiles(all).some((name) => name.includes('.ckp-'));
  });
  const all = await names();
  for (const name of ofVolume(all)) assert.match(name.slice(name.indexOf('.') + 1), OBJECT);
  for (const name of ofFiles(all)) assert.match(name.slice(name.indexOf('.') + 34), OBJECT);
  for (const name of all) assert.match(name, /^vf-prefixed-[0-9a-f]+(-files|-ns)?\./);
  assert.deepEqual([...(await listing(made.store, 'prefixed')).keys()], [], 'buckets of their own');

  for (const name of ['one-flat.vmdk', 'state.vmsn']) assert.equal((await client.remove(client.root, name)).status, Status.OK);
  await until('all that was removed is gone', async () => {
    const left = await names();
    return ofVolume(left).length === 0 && ofFiles(left).length === 0;
  });
}
