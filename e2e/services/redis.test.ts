import assert from 'node:assert/strict';
import { test } from 'node:test';

import { RedisService } from './redis.ts';

test('a primary keeps what it acknowledged over a crash, and is silent while it is paused', async (t) => {
  const { primary } = await RedisService.forTest(t);
  assert.equal(await primary.command('SET', 'key', 'value'), '+OK');
  await primary.kill();
  await assert.rejects(primary.command('PING'), /ECONNREFUSED/);
  await primary.start();
  assert.equal(await primary.command('GET', 'key'), 'value');
  primary.pause();
  const answer = primary.command('GET', 'key');
  assert.equal(await Promise.race([answer, new Promise((resolve) => setTimeout(resolve, 300, 'silence'))]), 'silence');
  primary.resume();
  assert.equal(await answer, 'value');
});

test('sentinels make a replica the primary when the primary dies', async (t) => {
  const { primary, replicas, sentinels } = await RedisService.forTest(t, { replicas: 2, sentinels: 3, downAfterMs: 1000 });
  await primary.command('SET', 'key', 'value');
  assert.equal(await primary.command('WAIT', '2', '5000'), ':2');
  await primary.kill();
  const promoted = await Promise.any(replicas.map((replica) => replica.waitForInfo('replication', 'role:master').then(() => replica)));
  assert.equal(await promoted.command('GET', 'key'), 'value');
  assert.equal(sentinels.length, 3);
});
