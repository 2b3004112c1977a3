/** Keys: every script names those that it touches, all in one slot, so that Redis Cluster and an ACL user can be had. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { Redis } from 'ioredis';

import { freePorts } from '../../e2e/free-port.ts';
import { againstModelConformance } from '../conformance/against-model.ts';
import { operationsConformance } from '../conformance/operations.ts';
import { outboxConformance } from '../conformance/outbox.ts';
import { ownershipConformance } from '../conformance/ownership.ts';
import * as attributeScripts from './attribute-scripts.ts';
import type { VerbScript } from './lua-pieces.ts';
import * as membershipScripts from './membership-scripts.ts';
import * as nameScripts from './name-scripts.ts';
import * as ownershipScripts from './ownership-scripts.ts';
import * as readScripts from './read-scripts.ts';
import { redisKeys } from './redis-keys.ts';
import * as roundScripts from './round-scripts.ts';
import { RedisProcess } from './testing/redis-process.ts';
import { TestRegistry } from './testing/test-registry.ts';

const redis = await RedisProcess.start(['--cluster-enabled', 'yes', '--cluster-port', String((await freePorts(1))[0])]);
const control = new Redis({ port: redis.port, host: '127.0.0.1' });
after(async () => {
  control.disconnect();
  await redis[Symbol.asyncDispose]();
});
await control.call('CLUSTER', 'ADDSLOTSRANGE', '0', '16383');
while (!(await control.cluster('INFO')).includes('cluster_state:ok')) await new Promise((resolve) => setTimeout(resolve, 20));
await control.call('ACL', 'SETUSER', 'vferry', 'on', '>secret', '~vf:{test-*', '+@all', '-@dangerous', '-@admin');

const modules = [attributeScripts, membershipScripts, nameScripts, ownershipScripts, readScripts, roundScripts];
const scripts = modules
  .flatMap((module): unknown[] => Object.values(module))
  .flatMap((value) => (typeof value === 'object' && value !== null && !('source' in value) ? (Object.values(value) as unknown[]) : [value]))
  .filter((value): value is VerbScript => typeof value === 'object' && value !== null && 'source' in value);

test('every script declares the keys that it touches, and no others', () => {
  assert.ok(scripts.length > 30, `${scripts.length} scripts`);
  for (const { name, source, keys } of scripts) {
    assert.equal(keys[0], 'meta', name);
    const declared = new Set([...source.matchAll(/local ([A-Z_]+) = KEYS/g)].map((match) => match[1]));
    const touched = new Set([...source.matchAll(/redis\.call\('\w+', ([A-Z_]+)/g)].map((match) => match[1]));
    assert.deepEqual(
      [...touched].filter((key) => !declared.has(key)),
      [],
      `${name} touches what it does not declare`,
    );
    for (const key of declared) assert.match(source, new RegExp(`\\b${key}\\b(?! = KEYS)`), `${name} declares ${key} in vain`);
    assert.equal(declared.size, keys.length);
  }
});

test('all keys of a vPool are in one slot, those of another vPool in another', async () => {
  const slots = await Promise.all(Object.values(redisKeys('vpool1')).map((key) => control.cluster('KEYSLOT', key)));
  assert.equal(new Set(slots).size, 1);
  assert.notEqual(await control.cluster('KEYSLOT', redisKeys('vpool2').meta), slots[0]);
});

// On a node of a Cluster, as a user who may touch nothing but vPools.
for (const conformance of [operationsConformance, ownershipConformance, outboxConformance, againstModelConformance]) {
  conformance('redis cluster, ACL user', () => TestRegistry.open(redis.port, 'vferry'));
}
