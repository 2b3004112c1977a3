/** The datastore on real OpenStack Swift: clients and a VM, crashes, other encodings and layouts, what lies there afterwards. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';

import { stackOf } from '../test-stack.ts';
import { s3apiOf, startSwift } from './backend-fixture.ts';
import { BACKEND_PLANS, campaignOver } from './campaign-over.ts';
import { toolsOver, vmOver } from './clients-over.ts';
import { bucketsOver, prefixOver } from './names-over.ts';

test('a datastore on OpenStack Swift', async (t) => {
  const swift = await startSwift(stackOf(t));
  const { service } = swift;

  let containerIsGone = async (): Promise<void> => assert.fail('the test before it failed');
  await t.test('names are those of the documents; what is removed goes after the grace time', async () => {
    containerIsGone = await bucketsOver(t, swift);
  });

  await t.test('layout prefix keeps everything in one container', async (sub) => {
    await prefixOver(sub, swift, 'one-for-all');
  });

  await t.test('libnfs and QEMU bring back every byte, from the caches and from Swift', async (sub) => {
    await toolsOver(sub, swift, 'tools');
  });

  await t.test(
    'a VM boots from it, writes on while the router is killed and the object server is gone, and boots again from Swift alone',
    async (sub) => {
      await vmOver(sub, swift, 'vm', async () => {
        await service.stop('object');
        await new Promise((resolve) => setTimeout(resolve, 3000));
        await service.startPart('object');
      });
    },
  );

  await t.test('kills lose nothing that was acknowledged, and all of it is there without any local copy', async (sub) => {
    await campaignOver(sub, { backend: swift, vpool: 'crash', seed: 31 });
  });

  await t.test('the same with compression and encryption, in one container', async (sub) => {
    const environment = {
      VFERRY_VPOOL_BACKEND_COMPRESSION: 'zstd',
      VFERRY_VPOOL_BACKEND_ENCRYPTION: 'aes-256-gcm',
      VFERRY_VPOOL_BACKEND_KEY: createHash('sha256').update('a key for a test').digest('base64'),
      VFERRY_VPOOL_BACKEND_LAYOUT: 'prefix',
    };
    await campaignOver(sub, { backend: swift, vpool: 'sealed', seed: 32, plans: BACKEND_PLANS.slice(0, 6), environment });
  });

  await t.test('the same through the S3 API of Swift', async (sub) => {
    await campaignOver(sub, { backend: s3apiOf(swift), vpool: 's3api', seed: 33, plans: BACKEND_PLANS.slice(2, 6) });
  });

  await t.test('the container of a removed volume goes too', async () => {
    await containerIsGone();
  });
});
