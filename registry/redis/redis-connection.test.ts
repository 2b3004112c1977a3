import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { test } from 'node:test';
import type { TestContext } from 'node:test';

import { errorCode } from '../../server/core/errors.ts';
import { systemClock } from '../../server/core/node-time.ts';
import { RedisConnection } from './redis-connection.ts';
import type { RedisAddress } from './redis-connection.ts';
import { redisSettings } from './testing/linked-registry.ts';

const COMPONENTS = { clock: systemClock, credentials: { username: null, password: null }, name: 'test' };

/** A Redis that takes `answerMs` to answer anything; Infinity: it accepts, and says nothing. */
async function slowRedis(t: TestContext, answerMs: number): Promise<RedisAddress> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('data', () => {
      if (answerMs !== Infinity) setTimeout(() => socket.write('+PONG\r\n'), answerMs).unref();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { host: '127.0.0.1', port: (server.address() as AddressInfo).port };
}

test('a Redis that is slow to answer can be connected to, as long as it answers a command in time', async (t) => {
  const address = await slowRedis(t, 700);
  const connection = await RedisConnection.open(address, { ...redisSettings([]), commandTimeoutMs: 60_000 }, COMPONENTS);
  assert.equal(connection.ended, false);
  connection.close();
});

test('a Redis that accepts and says nothing is given up', async (t) => {
  const address = await slowRedis(t, Infinity);
  await assert.rejects(
    RedisConnection.open(address, { ...redisSettings([]), commandTimeoutMs: 200 }, COMPONENTS),
    (error) => errorCode(error) === 'registry-unavailable',
  );
});

test('time in which this process stood still is no time in which Redis did not answer', async (t) => {
  const address = await slowRedis(t, 0);
  const opening = RedisConnection.open(address, { ...redisSettings([]), commandTimeoutMs: 60_000 }, COMPONENTS);
  const untilMs = systemClock.monotonicMs() + 700;
  while (systemClock.monotonicMs() < untilMs);
  (await opening).close();
});
