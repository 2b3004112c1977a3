import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { test } from 'node:test';

import { CommandChild } from './testing/child.ts';

const ANY_PORTS = ['--nfs-port', '0', '--admin-port', '0', '--log-format', 'json'];

/** Admin URL, as soon as the router is ready. */
async function adminUrl(child: CommandChild): Promise<string> {
  await child.until(/"msg":"ready"/);
  return (await child.until(/"admin":"(http:[^"]+)"/))[1] ?? '';
}

for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
  test(`${signal} closes the router and exits 0`, async () => {
    await using child = new CommandChild(['serve', ...ANY_PORTS]);
    await adminUrl(child);
    child.process.kill(signal);
    const finished = await child.finished();
    assert.deepEqual([finished.code, finished.signal], [0, null]);
    assert.match(finished.stdout, /fake router closed/);
    assert.match(finished.stdout, /"msg":"stopped"/);
  });
}

test('a close that hangs is given up after less than 5 s with exit code 1', async (t) => {
  await using child = new CommandChild(['serve', ...ANY_PORTS], { closeDelayMs: 60_000 });
  await adminUrl(child);
  child.process.kill('SIGTERM');
  const finished = await child.finished();
  assert.equal(finished.code, 1);
  const tookMs = Number(/"tookMs":(\d+),"msg":"shutdown not complete in time/.exec(finished.stdout)?.[1]);
  // By the clock it is 4700 ms and what the machine adds.
  t.diagnostic(`given up after ${tookMs} ms`);
  assert.ok(tookMs < 60_000, `${tookMs} ms`);
  assert.doesNotMatch(finished.stdout, /fake router closed/);
});

test('a second signal stops at once with exit code 1; the same signal twice from one Ctrl-C does not', async () => {
  await using child = new CommandChild(['serve', ...ANY_PORTS], { closeDelayMs: 60_000, afterwards: 'three-signals' });
  const finished = await child.finished();
  assert.equal(finished.code, 1);
  assert.match(finished.stdout, /a second signal stops at once[^]*alive after the same signal twice[^]*"level":"fatal".*stopped at once/);
});

test('a signal during the start stops cleanly when the start is done', async () => {
  await using child = new CommandChild(['serve', ...ANY_PORTS], { startDelayMs: 'until-told' });
  await child.until(/"msg":"starting"/);
  child.process.kill('SIGTERM');
  await child.until(/"signal":"SIGTERM"/);
  child.process.kill('SIGUSR2');
  const finished = await child.finished();
  assert.equal(finished.code, 0);
  assert.match(finished.stdout, /fake router closed/);
});

test('a signal during a start that takes longer than the deadline exits 0: the next start does the same work', async () => {
  await using child = new CommandChild(['serve', ...ANY_PORTS], { startDelayMs: 60_000 });
  await child.until(/"msg":"starting"/);
  child.process.kill('SIGTERM');
  const finished = await child.finished();
  assert.equal(finished.code, 0);
  assert.match(finished.stdout, /stopped before the start was complete/);
});

for (const [afterwards, text] of [
  ['throw', 'a bug, thrown'],
  ['reject', 'a bug, rejected'],
  ['assert', 'the epoch only grows'],
] as const) {
  test(`a bug (${afterwards}) ends the process with a fatal log line and exit code 70`, async () => {
    await using child = new CommandChild(['serve', ...ANY_PORTS], { afterwards });
    const finished = await child.finished();
    assert.equal(finished.code, 70);
    const fatal = finished.stdout.split('\n').find((line) => line.includes('"level":"fatal"')) ?? '';
    const line = JSON.parse(fatal) as { err: { message: string; stack: string } };
    assert.equal(line.err.message, text);
    assert.match(line.err.stack, /fake-router-main\.ts/);
    assert.doesNotMatch(finished.stdout, /fake router closed/);
  });
}

test('a router that cannot go on ends the process at once with exit code 1 and the reason', async () => {
  await using child = new CommandChild(['serve', ...ANY_PORTS], { afterwards: 'fatal' });
  const finished = await child.finished();
  assert.equal(finished.code, 1);
  assert.match(finished.stdout, /cannot go on: another router has taken over/);
});

test('a router that cannot start is a clear log line and exit code 1', async () => {
  await using child = new CommandChild(['serve', '--data', '/tmp/vferry-x', ...ANY_PORTS], { startFails: true });
  const finished = await child.finished();
  assert.equal(finished.code, 1);
  assert.match(finished.stdout, /"code":"data-locked".*cannot serve: another router runs on \/tmp\/vferry-x; stop it first/);
});

test('a taken admin port is a clear log line and exit code 1', async () => {
  const taken = createServer();
  const { promise, resolve } = Promise.withResolvers<void>();
  taken.listen(0, '127.0.0.1', () => resolve());
  await promise;
  try {
    const { port } = taken.address() as { port: number };
    await using child = new CommandChild(['serve', '--nfs-port', '0', '--admin-port', String(port), '--log-format', 'json']);
    const finished = await child.finished();
    assert.equal(finished.code, 1);
    assert.match(finished.stdout, new RegExp(`cannot listen on 127.0.0.1:${port}.*EADDRINUSE.*admin.port`));
  } finally {
    taken.close();
  }
});

test('health answers from the first moment, readiness follows the router, metrics have its numbers', async () => {
  await using child = new CommandChild(['serve', ...ANY_PORTS], { startDelayMs: 'until-told', closeDelayMs: 60_000 });
  const url = (await child.until(/"admin":"(http:[^"]+)","msg":"starting"/))[1] ?? '';
  const starting = await fetch(`${url}/readyz`);
  assert.equal(starting.status, 503);
  assert.match(await starting.text(), /"code":"starting"/);
  assert.deepEqual(await (await fetch(`${url}/healthz`)).json(), { alive: true, phase: 'starting' });
  child.process.kill('SIGUSR2');
  await adminUrl(child);
  const ready = await fetch(`${url}/readyz`);
  assert.equal(ready.status, 200);
  assert.deepEqual(await ready.json(), { ready: true, problems: [] });
  const metrics = await (await fetch(`${url}/metrics`)).text();
  assert.match(metrics, /^vferry_nfs_operations_total\{procedure="read",status="ok"\} 1$/m);
  assert.match(metrics, /^vferry_dirty_bytes 42$/m);
  assert.match(metrics, /^nodejs_eventloop_lag_p99_seconds /m);
  assert.match(metrics, /^process_resident_memory_bytes /m);
  child.process.kill('SIGTERM');
  await child.until(/"signal":"SIGTERM"/);
  assert.match(await (await fetch(`${url}/readyz`)).text(), /"code":"stopping"/);
});

test('a log reader that stops reading does not stop the router, and lost lines are counted', async () => {
  await using child = new CommandChild(['serve', ...ANY_PORTS], { afterwards: 'chatter' }, {}, false);
  // The first lines say where the admin port is; from then on nobody reads.
  const first: string = await new Promise((resolve) => {
    let text = '';
    const onData = (chunk: Buffer): void => {
      text += chunk.toString();
      if (!text.includes('"msg":"ready"')) return;
      child.process.stdout?.off('data', onData);
      child.process.stdout?.pause();
      resolve(text);
    };
    child.process.stdout?.on('data', onData);
  });
  const url = /"admin":"(http:[^"]+)"/.exec(first)?.[1] ?? '';
  for (;;) {
    const metrics = await (await fetch(`${url}/metrics`, { signal: AbortSignal.timeout(240_000) })).text();
    if (Number(/^vferry_log_lines_dropped_total (\d+)$/m.exec(metrics)?.[1]) > 0) break;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  child.process.kill('SIGTERM');
  assert.equal((await child.finished()).code, 0);
});

test('the last words of a fatal bug come out past a backlog of log lines', async () => {
  await using child = new CommandChild(['serve', ...ANY_PORTS], { afterwards: 'chatter-then-throw' });
  const finished = await child.finished();
  assert.equal(finished.code, 70);
  assert.match(finished.stdout, /^\{"level":"fatal".*stopped by a bug.*\}$/m);
});

test('human log lines and the banner with mount commands, when asked for', async () => {
  await using child = new CommandChild(['serve', '--nfs-port', '5049', '--admin-port', '0', '--log-format', 'human', '--vpool', 'gold']);
  await child.until(/Ctrl-C/);
  assert.match(child.stdout, /INFO {2}ready {2}listen=127\.0\.0\.1 nfsPort=5049/);
  assert.match(child.stdout, /WARN {2}no port mapper on port 111/);
  assert.match(child.stdout, /mount -t nfs -o vers=3,proto=tcp,nolock,hard,port=5049,mountport=5049,mountproto=tcp 127\.0\.0\.1:\/gold \/mnt/);
});

test('a router that begins anew does so under its process id, with nothing of its former life open, and counts it', async () => {
  await using child = new CommandChild(['serve', '--nfs-port', '0', '--admin-port', '0', '--log-format', 'json'], { afterwards: 'begin-anew' });
  await child.until(/"code":"lease-lapsed".*"msg":"begins anew: the lease lapsed"/);
  await child.until(/begins anew[^]*"msg":"starting"[^]*"msg":"ready"/);
  const pids = [...child.stdout.matchAll(/"pid":(\d+).*"msg":"starting"/g)].map((match) => match[1]);
  assert.deepEqual(pids, [String(child.process.pid), String(child.process.pid)]);
  const url = [...child.stdout.matchAll(/"admin":"(http:[^"]*)".*"msg":"ready"/g)].at(-1)?.[1] ?? '';
  assert.match(await (await fetch(`${url}/metrics`)).text(), /^vferry_begun_anew_total 1$/m);
  child.process.kill('SIGTERM');
  assert.equal((await child.finished()).code, 0);
});
