import assert from 'node:assert/strict';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test, type TestContext } from 'node:test';

import { VirtualClock } from '../virtual-clock.ts';
import { clockSkewMs } from './server-time.ts';

/** URL of a server that answers so; it goes with the test. */
async function serverFor(t: TestContext, answer: RequestListener): Promise<string> {
  const server: Server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/auth/v1.0`;
}

const never = (): AbortSignal => new AbortController().signal;

test('the skew is that of the Date header, whatever the status', async (t) => {
  const clock = new VirtualClock();
  for (const skewMs of [0, 3_600_000, -3_600_000]) {
    const url = await serverFor(t, (request, response) => {
      assert.equal(request.method, 'HEAD');
      response.writeHead(401, { date: new Date(clock.wallMs() + skewMs).toUTCString() }).end();
    });
    const found = (await clockSkewMs(clock, url, null, never())) ?? Number.NaN;
    assert.ok(Math.abs(found - skewMs) <= 500, `${found} instead of ${skewMs}`);
  }
});

test('an answer without a date, or with nonsense, says nothing', async (t) => {
  const clock = new VirtualClock();
  const silent = await serverFor(t, (_, response) => {
    response.sendDate = false;
    response.end();
  });
  assert.equal(await clockSkewMs(clock, silent, null, never()), null);
  const nonsense = await serverFor(t, (_, response) => response.writeHead(200, { date: 'yesterday' }).end());
  assert.equal(await clockSkewMs(clock, nonsense, null, never()), null);
});

test('nobody there, and nobody who answers, reject', async (t) => {
  const clock = new VirtualClock();
  await assert.rejects(clockSkewMs(clock, 'http://127.0.0.1:1/', null, never()), /ECONNREFUSED/);
  const controller = new AbortController();
  const hanging = await serverFor(t, () => controller.abort());
  await assert.rejects(clockSkewMs(clock, hanging, null, controller.signal), { name: 'AbortError' });
  await assert.rejects(clockSkewMs(clock, 'https://127.0.0.1:1/', '/nonexistent/ca.pem', never()), /ENOENT/);
});
