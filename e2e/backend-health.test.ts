/** How the backend is and what it costs, as seen from outside: states, recovery, nothing asked while idle. How long each took is printed. */
import assert from 'node:assert/strict';
import { existsSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import type { BackendUsage, RouterStatus } from '../server/router-port.ts';
import { startSwift } from './backends/backend-fixture.ts';
import { run } from './command.ts';
import { allWell } from './faults/problem.ts';
import { SteadyLoad } from './faults/steady-load.ts';
import { metric } from './metrics-page.ts';
import { RouterProcess, WAIT_MS_MAX } from './router-process.ts';
import { stackOf } from './test-stack.ts';

const MIB = 1024 * 1024;
const SOON_SEALED = { VFERRY_LOG_SEAL_AFTER_MS: '200ms', VFERRY_LOG_SEGMENT_BYTES: '4MiB' };

async function pause(milliseconds: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, milliseconds));
}

async function statusOf(router: RouterProcess): Promise<RouterStatus> {
  const { router: status } = JSON.parse((await router.http('/status')).body) as { router: RouterStatus };
  return status;
}

/** Milliseconds until `isSo`. @throws Error with the last status when it does not come in time. */
async function timeUntil(router: RouterProcess, isSo: (status: RouterStatus) => boolean): Promise<number> {
  const started = performance.now();
  for (;;) {
    const status = await statusOf(router);
    const tookMs = Math.round(performance.now() - started);
    if (isSo(status)) return tookMs;
    assert.ok(tookMs < WAIT_MS_MAX, `after ${tookMs} ms: ${JSON.stringify(status.backendHealth)}, ${status.dirtyBytes} dirty\n${router.logTail()}`);
    await pause(20);
  }
}

const isDrained = ({ dirtyBytes }: RouterStatus): boolean => dirtyBytes === 0;

/** The router is left alone for a while, and asks its backend for nothing. */
async function asksNothing(router: RouterProcess, milliseconds: number): Promise<void> {
  // What follows the drain: the checkpoint, the archive of the namespace, garbage.
  await timeUntil(router, isDrained);
  let before = -1;
  for (let settled = 0; settled < 3;) {
    await pause(1500);
    const now = metric((await router.http('/metrics')).body, 'vferry_backend_requests_total');
    settled = now === before ? settled + 1 : 0;
    before = now;
  }
  await pause(milliseconds);
  const page = (await router.http('/metrics')).body;
  assert.equal(metric(page, 'vferry_backend_requests_total'), before);
  assert.equal(metric(page, 'vferry_backend_up'), 1);
}

test('an idle volume makes no requests; what it was written with is counted, by volume, and has its price', async (t) => {
  const router = await RouterProcess.forTest(t, {
    environment: { ...SOON_SEALED, VFERRY_VPOOL_BACKEND_PRICES_PUT_PER_THOUSAND: '5', VFERRY_VPOOL_BACKEND_PRICES_CURRENCY: 'EUR' },
  });
  const load = await SteadyLoad.create(router, 1, 16 * MIB);
  await load.run(({ written }) => written >= 256);
  await asksNothing(router, 2500);
  const usage = JSON.parse((await router.http('/backend/usage')).body) as BackendUsage;
  const [volume] = usage.buckets.filter(({ content }) => content === 'volume');
  assert.ok(volume !== undefined);
  assert.match(volume.path ?? '', /^\/.*-flat\.vmdk$/);
  const written = volume.writtenBytes / (256 * 65_536);
  assert.ok(written > 0.9 && written < 1.1, `${written} bytes on the backend for each byte written`);
  assert.ok((volume.requests['put'] ?? 0) >= 4, JSON.stringify(volume));
  assert.equal(usage.currency, 'EUR');
  const priced = (kind: string): number => volume.requests[kind] ?? 0;
  assert.ok(Math.abs(volume.cost - ((priced('put') + priced('list') + priced('create-bucket')) * 5) / 1000) < 1e-9);
  const page = (await router.http('/metrics')).body;
  assert.equal(metric(page, 'vferry_backend_bucket_requests_total', { bucket: volume.bucket, kind: 'put' }), volume.requests['put']);
  assert.equal(metric(page, 'vferry_backend_bucket_requests_total'), metric(page, 'vferry_backend_requests_total'));
  assert.ok(Math.abs(metric(page, 'vferry_backend_cost_total', { currency: 'EUR' }) - usage.total.cost) < 1e-9);
  t.diagnostic(`${JSON.stringify(volume.requests)} for 16 MiB written`);
  const main = join(import.meta.dirname, '..', 'server', 'main.ts');
  const command = [process.execPath, main, 'backend', 'usage', '--admin-port', String(router.adminPort)];
  const told = (await run(command)).stdout.toString();
  assert.match(told, /-flat\.vmdk {2}.* PUT.* EUR so far, .* EUR a month at this pace$/m);
});

test('a directory that is not there any more is told by itself, by status and metrics, and one line of the log; so is its return', async (t) => {
  const router = await RouterProcess.forTest(t, { environment: SOON_SEALED });
  const backend = join(router.dataDirectory, 'backend');
  assert.ok(existsSync(backend));
  renameSync(backend, `${backend}.gone`);
  const seenMs = await timeUntil(router, ({ backendHealth }) => backendHealth.condition === 'down');
  const page = (await router.http('/metrics')).body;
  assert.equal(metric(page, 'vferry_backend_up'), 0);
  assert.equal(metric(page, 'vferry_backend_state', { state: 'down' }), 1);
  assert.equal(metric(page, 'vferry_backend_state'), 1);
  await pause(1500);
  renameSync(`${backend}.gone`, backend);
  const backMs = await timeUntil(router, ({ backendHealth }) => backendHealth.condition === 'up');
  assert.deepEqual(linesOf(router), ['the backend is down', 'the backend is well again']);
  t.diagnostic(`seen after ${seenMs} ms, its return after ${backMs} ms`);
});

function linesOf(router: RouterProcess): string[] {
  return [...router.log.matchAll(/"(?:msg|message)":"(the backend is [^"]*)"/g)].map((match) => match[1] ?? '');
}

test('over real Swift', async (t) => {
  const swift = await startSwift(stackOf(t));
  const router = await RouterProcess.forTest(t, { environment: { ...SOON_SEALED, ...swift.environment() } });
  const load = await SteadyLoad.create(router, 1, 32 * MIB);
  const writeSome = async (): Promise<void> => void (await load.run(({ written }) => written >= 64));
  await writeSome();

  await t.test('an idle volume makes no requests', async () => {
    await asksNothing(router, 2500);
  });

  await t.test('a proxy that has died is told although nobody asks for anything; when it is back all is well', async () => {
    await swift.service.stop('proxy');
    const seenMs = await timeUntil(router, ({ backendHealth }) => backendHealth.condition === 'down');
    await swift.service.startPart('proxy');
    const backMs = await timeUntil(router, ({ backendHealth }) => backendHealth.condition === 'up');
    t.diagnostic(`idle, proxy dead: seen after ${seenMs} ms, well ${backMs} ms after it was back`);
  });

  await t.test('what waits for a proxy that was away for long goes up as soon as it is back, not when its turn comes', async () => {
    await swift.service.stop('proxy');
    await writeSome();
    const seenMs = await timeUntil(router, ({ backendHealth }) => backendHealth.condition === 'down');
    // Long enough for pauses of many seconds.
    await pause(5000);
    const { dirtyBytes } = await statusOf(router);
    await swift.service.startPart('proxy');
    const backMs = await timeUntil(router, isDrained);
    await router.waitForReadyz(allWell);
    t.diagnostic(`dirty, proxy dead: seen after ${seenMs} ms; ${dirtyBytes} bytes drained ${backMs} ms after it was back`);
  });

  await t.test('a proxy that hangs is told when it is needed, and well when it goes on', async () => {
    swift.service.pause('proxy');
    await writeSome();
    const seenMs = await timeUntil(router, ({ backendHealth }) => backendHealth.condition !== 'up');
    const { backendHealth } = await statusOf(router);
    await timeUntil(router, ({ backendHealth: health }) => health.condition === 'down');
    swift.service.resume('proxy');
    const backMs = await timeUntil(router, isDrained);
    await router.waitForReadyz(allWell);
    t.diagnostic(
      `proxy hangs: ${backendHealth.condition} after ${seenMs} ms (${backendHealth.message ?? ''}), drained ${backMs} ms after it went on`,
    );
  });

  await t.test('a full device is told, though it is read all the time; there is room again: it drains', async () => {
    await swift.service.fill(true);
    await writeSome();
    const seenMs = await timeUntil(router, ({ backendHealth }) => backendHealth.condition === 'down' || backendHealth.condition === 'full');
    const { backendHealth } = await statusOf(router);
    await swift.service.fill(false);
    const backMs = await timeUntil(router, isDrained);
    t.diagnostic(
      `full device: ${backendHealth.condition} after ${seenMs} ms (${backendHealth.message ?? ''}), drained ${backMs} ms after there was room`,
    );
  });

  assert.deepEqual(await load.verify(), []);
  t.diagnostic(linesOf(router).join('; '));
});
