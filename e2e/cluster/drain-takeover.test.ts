/** What an operator does about routers that go: a drain before maintenance while VMs run, and a takeover by force after a router is lost for good. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TestContext } from 'node:test';

import type { DrainReport, TakeoverOutcome, TakeoverPlan } from '../../server/cluster-port.ts';
import { Stability } from '../../server/nfsd/file-system.ts';
import { WAIT_MS_MAX } from '../router-process.ts';
import { StampedVolume } from '../stamped-volume.ts';
import { stackOf } from '../test-stack.ts';
import type { ClusterRouter } from './cluster-router.ts';
import { Cluster, thresholds } from './cluster.ts';
import { WanderingClient } from './wandering-client.ts';

const KIB = 1024;

async function ask(router: ClusterRouter, method: string, path: string, body?: object): Promise<{ status: number; json: unknown }> {
  const request = (): Promise<Response> =>
    fetch(`http://127.0.0.1:${router.process.adminPort}${path}`, {
      method,
      signal: AbortSignal.timeout(WAIT_MS_MAX),
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    });
  const began = performance.now();
  for (;;) {
    try {
      const response = await request();
      return { status: response.status, json: await response.json() };
    } catch (error) {
      // A router that stood still for longer than its lease begins anew, and so does what it was asked; all of this may be asked twice.
      if (!(error instanceof TypeError) || performance.now() - began > WAIT_MS_MAX) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

/** A host that only knows this router, and comes back to it when it begins anew. */
async function hostOf(t: TestContext, name: string, router: ClusterRouter): Promise<WanderingClient> {
  return stackOf(t).use(await WanderingClient.connect({ routers: [router], machineName: name, patienceMs: WAIT_MS_MAX }));
}

async function until<T>(look: () => Promise<T>, wanted: (value: T) => boolean): Promise<T> {
  const began = performance.now();
  for (;;) {
    const value = await look();
    if (wanted(value)) return value;
    if (performance.now() - began > WAIT_MS_MAX) throw new Error(`after ${WAIT_MS_MAX} ms: ${JSON.stringify(value)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test('a drain takes everything away from a router while its clients write, to the others in turn, and it stays empty until the drain is ended', async (t) => {
  const cluster = await Cluster.forTest(t, { routers: 3, cluster: { ...thresholds(50), cooldownMs: 0 } });
  const [a] = cluster.pair;
  const client = await hostOf(t, 'H1', a);
  const volumes = await Promise.all([1, 2, 3, 4].map((id) => StampedVolume.create(client, id, 256 * KIB)));
  for (const volume of volumes) assert.equal(await volume.write(client, 0, 8 * KIB, Stability.FILE_SYNC), 0);
  for (const volume of volumes) await cluster.operator.waitForOwner(`/${volume.name}`, a);

  let over = false;
  let writes = 0;
  const load = Promise.all(
    volumes.map(async (volume) => {
      for (let number = 0; !over; number += 1) {
        assert.equal(await volume.write(client, (number % 32) * 8 * KIB, 8 * KIB, Stability.FILE_SYNC), 0);
        writes += 1;
      }
    }),
  );
  let drains = 0;
  const report = await until(
    async () => {
      const now = (await ask(a, 'GET', '/cluster/drain')).json as DrainReport;
      // Once, unless the router began anew in the middle of it.
      if (now.phase === 'none') {
        assert.equal((await ask(a, 'POST', '/cluster/drain')).status, 200);
        drains += 1;
      }
      return now;
    },
    ({ phase }) => phase === 'drained',
  );
  assert.deepEqual([report.done, report.failed, report.problem], [report.total, [], null]);
  if (drains === 1) assert.equal(report.total, 4);
  const before = writes;
  // More than the threshold: forwarded I/O must not bring anything back.
  await until(
    async () => writes,
    (count) => count > before + 600,
  );
  const idOfA = await cluster.operator.idOf(a);
  const owners = (await cluster.operator.volumes()).map(({ router }) => router);
  assert.equal(owners.length, 4);
  assert.ok(!owners.includes(idOfA as never), `${owners.join()} of ${idOfA}`);
  // A router that began anew got nothing meanwhile, or does not know any more that it is drained.
  if (![0, 1, 2].some((index) => cluster.router(index).process.log.includes('begins anew'))) {
    assert.equal(new Set(owners).size, 2, 'both others got some');
    assert.equal(await cluster.operator.beginMove(`/${volumes[0]?.name}`, a), false, 'nothing is moved to a router that is drained');
  }
  assert.equal((await ask(a, 'DELETE', '/cluster/drain')).status, 200);
  // Its clients' I/O brings them back by itself.
  await Promise.all(volumes.map((volume) => cluster.operator.waitForOwner(`/${volume.name}`, a)));
  over = true;
  await load;
  for (const volume of volumes) assert.deepEqual(await volume.verify(client), []);
});

test('what a lost router had not brought to the backend is named, given up by force only, and does not come back with the router', async (t) => {
  const cluster = await Cluster.forTest(t, {
    routers: 2,
    cluster: thresholds(0),
    environment: { VFERRY_LOG_SEGMENT_BYTES: '4MiB', VFERRY_LOG_SEAL_AFTER_MS: '1h', VFERRY_LOG_CHECKPOINT_AFTER_BYTES: '1GiB' },
  });
  const [a, b] = cluster.pair;
  const atA = await hostOf(t, 'H1', a);
  const volume = await StampedVolume.create(atA, 1, 16 * 1024 * KIB);
  const path = `/${volume.name}`;
  // Whole segments go to the backend, the rest stays in the open one.
  for (let offset = 0; offset < 10 * 1024 * KIB; offset += 256 * KIB)
    await atA.write(volume.handle, offset, Buffer.alloc(256 * KIB, 1), Stability.FILE_SYNC);
  const query = `/cluster/takeover?object=${encodeURIComponent(path)}`;
  const forget = async (): Promise<[number, { code?: string; message?: string }]> => {
    const { status, json } = await ask(b, 'DELETE', `/cluster/routers/${await cluster.operator.idOf(a)}`);
    return [status, json as { code?: string; message?: string }];
  };
  assert.deepEqual([(await forget())[0], (await forget())[1].code], [409, 'router-alive']);
  assert.deepEqual(((await ask(b, 'GET', query)).json as { code: string }).code, 'owner-alive');
  await until(
    async () => (await a.process.http('/status')).body,
    (body) => (JSON.parse(body) as { router: { dirtyBytes: number } }).router.dirtyBytes < 4 * 1024 * KIB,
  );
  await a.process.kill();
  const plan = await until(
    async () => (await ask(b, 'GET', query)).json as TakeoverPlan,
    ({ kind }) => kind === 'plan',
  );
  assert.ok(plan.needsForce && plan.ownerDead && plan.keptSequence > 0);
  assert.match(plan.givenUp.join('\n'), new RegExp(`acknowledged after record ${plan.keptSequence} `));
  await cluster.operator.waitFor(path, ({ state, reason }) => state === 'recovering' && (reason ?? '').includes('goes on by itself'));
  const body = { object: path, term: plan.volume.term };
  assert.equal(((await ask(b, 'POST', '/cluster/takeover', { ...body, force: false })).json as { code: string }).code, 'not-clean');
  const [status, refused] = await forget();
  assert.deepEqual([status, refused.code], [409, 'owns-objects']);
  assert.ok(refused.message?.includes(`${path} (unprotected)`), refused.message);
  const taken = (await ask(b, 'POST', '/cluster/takeover', { ...body, force: true })).json as TakeoverOutcome;
  assert.equal(taken.kind, 'taken', JSON.stringify(taken));
  await cluster.operator.waitForOwner(path, b);

  const atB = await hostOf(t, 'H2', b);
  const content = async (client: WanderingClient): Promise<Buffer> => (await volume.read(client)).content;
  const kept = await content(atB);
  const bytes = kept.indexOf(0);
  assert.ok(bytes >= 3 * 1024 * KIB && bytes < 10 * 1024 * KIB, `${bytes} bytes were kept`);
  assert.ok(kept.subarray(bytes).every((byte) => byte === 0));
  assert.equal((await atB.write(volume.handle, bytes, Buffer.alloc(4 * KIB, 2), Stability.FILE_SYNC)).status, 0);
  kept.fill(2, bytes, bytes + 4 * KIB);

  const listed = async (): Promise<number> => ((await ask(b, 'GET', '/cluster/routers')).json as { routers: unknown[] }).routers.length;
  assert.deepEqual([await listed(), (await forget())[0], await listed()], [2, 200, 1]);
  assert.deepEqual([(await forget())[0], (await forget())[1].code], [404, 'no-such-router']);
  // Whoever comes back after all is a member again.
  await a.process.start();
  assert.equal(await listed(), 2);
  const again = await hostOf(t, 'H3', a);
  assert.ok((await content(again)).equals(kept), 'through the router that is back');
  await cluster.operator.move(path, a);
  assert.equal((await again.write(volume.handle, bytes + 4 * KIB, Buffer.alloc(4 * KIB, 3), Stability.FILE_SYNC)).status, 0);
  kept.fill(3, bytes + 4 * KIB, bytes + 8 * KIB);
  assert.ok((await content(again)).equals(kept), 'and there, with what it had once put aside');
  assert.match(a.process.log, /orphans/);
});
