/** The datastore on real S3, that of Ceph's radosgw: clients and a VM, crashes, both layouts, faults. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { stackOf } from '../test-stack.ts';
import { startCeph } from './backend-fixture.ts';
import { campaignOver } from './campaign-over.ts';
import { toolsOver, vmOver } from './clients-over.ts';
import { faultsOver } from './faults-over.ts';
import { bucketsOver, prefixOver } from './names-over.ts';

test('a datastore on S3', async (t) => {
  const ceph = await startCeph(stackOf(t));
  const { rgw, osd } = ceph.service;

  await t.test('names are those of the documents, and what is removed is gone after the grace time', async (sub) => {
    await prefixOver(sub, ceph, 'one-for-all');
  });

  let bucketIsGone = async (): Promise<void> => assert.fail('the test before it failed');
  await t.test('layout buckets gives each volume its own', async () => {
    bucketIsGone = await bucketsOver(t, ceph);
  });

  await t.test('libnfs and QEMU bring back every byte, from the caches and from S3', async (sub) => {
    await toolsOver(sub, ceph, 'tools');
  });

  await t.test('a VM boots from it, writes on while the router is killed and the gateway is gone, and boots again from S3 alone', async (sub) => {
    await vmOver(sub, ceph, 'vm', async () => {
      await rgw.kill();
      await new Promise((resolve) => setTimeout(resolve, 3000));
      await rgw.start();
    });
  });

  await t.test('kills lose nothing that was acknowledged, and all of it is there without any local copy', async (sub) => {
    await campaignOver(sub, { backend: ceph, vpool: 'crash', seed: 41 });
  });

  await t.test('the bucket of a removed volume goes too', async () => {
    await bucketIsGone();
  });

  await faultsOver(t, ceph, 'faults', [
    { name: 'the gateway is killed', breakIt: () => rgw.kill(), repairIt: () => rgw.start() },
    { name: 'the gateway stands still', breakIt: () => rgw.pause(), repairIt: () => rgw.resume() },
    // The gateway hears of a quota a moment later.
    { name: 'the quota is reached', breakIt: () => ceph.service.fill(true), repairIt: () => ceph.service.fill(false) },
    { name: 'the store below the gateway stands still', breakIt: () => osd.pause(), repairIt: () => osd.resume() },
  ]);
});
