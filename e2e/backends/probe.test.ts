/** `vferry backend test` and `vpool create` on real services, what they find out about each, and what a router makes of a backend that is not there or not its own. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { makeStore } from '../../backends/make-store.ts';
import type { ProbeReport } from '../../backends/probe/probe-report.ts';
import { run } from '../command.ts';
import { allWell, problemsOf } from '../faults/problem.ts';
import { RouterProcess } from '../router-process.ts';
import { scratchFor } from '../scratch.ts';
import { stackOf } from '../test-stack.ts';
import { type Backend, s3apiOf, startCeph, startSwift } from './backend-fixture.ts';

const MAIN = join(import.meta.dirname, '..', '..', 'server', 'main.ts');

async function vferry(args: readonly string[], environment: Readonly<Record<string, string>>) {
  const inherited = { AWS_ACCESS_KEY_ID: '', AWS_SECRET_ACCESS_KEY: '', ST_USER: '', ST_KEY: '' };
  return await run([process.execPath, MAIN, ...args], { environment: { ...inherited, ...environment }, allowedCodes: [0, 1, 2], timeoutMs: 600_000 });
}

/** The report of a test by URL. */
async function tested(url: string, environment: Readonly<Record<string, string>>): Promise<ProbeReport & { readonly code: number }> {
  const { code, stdout } = await vferry(['backend', 'test', url, '--json', '--quick'], environment);
  return { code, ...(JSON.parse(stdout.toString()) as ProbeReport) };
}

async function bucketsOf(backend: Backend): Promise<string[]> {
  assert.ok(backend.store !== null);
  await using made = await makeStore({ store: backend.store, layout: { kind: 'buckets' }, encoding: null });
  return (await made.store.listBuckets('', 1000)).names;
}

test('probes of real services', async (t) => {
  const swift = await startSwift(stackOf(t));
  const s3api = s3apiOf(swift);
  const { service } = swift;
  const st = { ST_USER: service.user, ST_KEY: service.key };

  await t.test('Swift is fit, with the registry as fence, and nothing is left there', async () => {
    const report = await tested(`swift+${service.authUrl}`, st);
    assert.deepEqual([report.code, report.verdict, report.fence], [0, 'fit', 'registry'], JSON.stringify(report));
    assert.ok(Math.abs(report.figures.clockSkewMs ?? Infinity) < 30_000);
    assert.ok((report.figures.uploadBytesPerSecond ?? 0) > 0 && (report.figures.downloadBytesPerSecond ?? 0) > 0);
    assert.deepEqual(await bucketsOf(swift), []);
  });

  await t.test("Swift's S3 API refuses conditional puts: fit, but the registry alone is the fence", async () => {
    const report = await tested(`s3+${service.s3Endpoint}`, { AWS_ACCESS_KEY_ID: service.user, AWS_SECRET_ACCESS_KEY: service.key });
    assert.deepEqual([report.code, report.verdict, report.fence, report.conditionalPut], [0, 'fit-but', 'registry', false], JSON.stringify(report));
    assert.match(report.findings[0]?.text ?? '', /^it refuses the header If-None-Match/);
    assert.deepEqual(await bucketsOf(s3api), []);
  });

  await t.test('credentials that are wrong, or may do nothing, are unfit and in no output', async () => {
    for (const [url, environment] of [
      [`swift+${service.authUrl}`, { ST_USER: service.powerlessUser.user, ST_KEY: service.powerlessUser.key }],
      [`s3+${service.s3Endpoint}`, { AWS_ACCESS_KEY_ID: service.user, AWS_SECRET_ACCESS_KEY: 'hunter2' }],
    ] as const) {
      const { code, stdout, stderr } = await vferry(['backend', 'test', url], environment);
      assert.equal(code, 1);
      assert.match(stdout.toString(), /^unfit, because it cannot make a bucket: /);
      assert.doesNotMatch(`${stdout.toString()}${stderr}`, /hunter2|reading/);
    }
  });

  await t.test('vpool create makes what serve serves; without its identity object the backend is refused', async (sub) => {
    const data = await scratchFor(sub, 'data');
    const environment = swift.environment();
    const created = await vferry(['vpool', 'create', '--data', data, '--vpool', 'made'], environment);
    assert.equal(created.code, 0, created.stderr);
    assert.match(created.stdout.toString(), /^fit\n/);
    const file = readFileSync(join(data, 'vpools', 'made', 'vpool.json'), 'utf8');
    assert.doesNotMatch(file, new RegExp(service.key));
    const { uuid } = JSON.parse(file) as { uuid: string };

    const router = await RouterProcess.forTest(sub, { dataDirectory: data, vpool: 'made', environment });
    await router.stop();
    assert.equal((await router.fsck()).code, 0);
    assert.ok(swift.store !== null);
    await using made = await makeStore({ store: swift.store, layout: { kind: 'buckets' }, encoding: null });
    await made.store.delete(`vf-made-${uuid.slice(0, 8)}-ns`, `vpool-${uuid}`);
    router.launch();
    assert.equal((await router.exited()).code, 1);
    assert.match(
      router.log,
      /cannot serve: swift http.* answers, but has no vf-made-[0-9a-f]{8}-ns\/vpool-[0-9a-f]{32}: it is not the backend of vPool made/,
    );
  });

  await t.test('a router starts while Swift is away, says so, and recovers by itself', async (sub) => {
    const router = await RouterProcess.forTest(sub, { vpool: 'away', environment: swift.environment() });
    await router.stop();
    await service.stop('proxy');
    try {
      await router.start();
      const told = await router.waitForReadyz((answer) => answer.status === 200 && problemsOf(answer).codes.includes('backend'));
      sub.diagnostic(told.body);
    } finally {
      await service.startPart('proxy');
    }
    await router.waitForReadyz(allWell);
  });

  await t.test('radosgw is fit, and the fence itself, by its S3 API; not by its Swift API', async (sub) => {
    const ceph = await startCeph(stackOf(sub));
    const keys = { AWS_ACCESS_KEY_ID: ceph.service.accessKeyId, AWS_SECRET_ACCESS_KEY: ceph.service.secretAccessKey };
    const bySwift = await tested(`swift+${ceph.service.swiftAuthUrl}`, { ST_USER: ceph.service.swiftUser, ST_KEY: ceph.service.swiftKey });
    assert.deepEqual([bySwift.code, bySwift.verdict, bySwift.fence], [0, 'fit', 'registry'], JSON.stringify(bySwift));
    const before = await bucketsOf(ceph);
    const report = await tested(`s3+${ceph.service.s3Endpoint}/one-for-all`, keys);
    assert.deepEqual([report.code, report.verdict, report.fence, report.conditionalPut], [0, 'fit', 'backend', true], JSON.stringify(report));
    assert.deepEqual(await bucketsOf(ceph), before);
  });
});
