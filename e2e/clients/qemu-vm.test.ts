/** A virtual machine whose disks are on the datastore by nfs:// (libnfs inside QEMU): it boots from them and trusts them with its data. */
import { test } from 'node:test';

import { privateRouter } from './private-router.ts';
import { vmThroughTrouble } from './vm-trouble.ts';

test('a VM with its root and data disks on nfs:// verifies what it wrote, through a kill -9 of the router under it and after a reboot', async (t) => {
  const present = await privateRouter(t);
  const killAndStart = async (): Promise<void> => {
    await present.router.kill();
    await present.router.start();
  };
  await vmThroughTrouble(t, present, { underLoad: killAndStart, betweenBoots: killAndStart });
});
