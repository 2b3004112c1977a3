/** What the product is for: a running virtual machine moves to another host, its disk follows, and it notices nothing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { run } from '../command.ts';
import { scratchFor } from '../scratch.ts';
import { stackOf } from '../test-stack.ts';
import { Cluster, thresholds } from './cluster.ts';
import { LiveVm, type VmReport } from './live-vm.ts';

const DISK = '/vm-flat.vmdk';
const DISK_MIB = 32;
/** Forwarded reads or writes after which a disk follows its machine. */
const THRESHOLD = 200;

test('a VM under verified I/O migrates from A to B and back; its disk follows it each time, and it sees neither an error nor an old block', async (t) => {
  const cluster = await Cluster.forTest(t, { portMapper: true, nfsPort: 2049, cluster: { ...thresholds(THRESHOLD), cooldownMs: 1000 } });
  const [a, b] = cluster.pair;
  const { operator } = cluster;
  const scratch = await scratchFor(t, 'live-vm');
  await run(['qemu-img', 'create', '-f', 'raw', `${a.url}${DISK}`, `${DISK_MIB}M`]);
  const vm = stackOf(t).use(await LiveVm.boot(scratch, `${a.url}${DISK}`, DISK_MIB));
  const well = (report: VmReport): VmReport => {
    assert.deepEqual([report.errors, report.wrong], [0, 0], vm.lines.join('\n'));
    return report;
  };
  const steady = async (ms: number): Promise<VmReport> => {
    await new Promise((resolve) => setTimeout(resolve, ms));
    return well(await vm.report());
  };
  const atHome = await steady(3000);
  t.diagnostic(`at home on A: ${atHome.operations} operations, longest ${atHome.longestMs.toFixed(1)} ms`);
  await operator.waitForOwner(DISK, a);

  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    const before = await operator.forwarded(to);
    const moved = await vm.migrate(`${to.url}${DISK}`);
    const switched = well(await vm.report());
    t.diagnostic(
      `${from.name} to ${to.name}: QEMU stopped the VM for ${moved.downtimeMs} ms (${moved.totalMs} ms in all), longest I/O ${switched.longestMs.toFixed(1)} ms`,
    );
    await operator.waitForOwner(DISK, to);
    const followed = well(await vm.report());
    const forwarded = (await operator.forwarded(to)) - before;
    t.diagnostic(
      `${from.name} to ${to.name}: the disk followed after ${forwarded} forwarded operations, longest I/O ${followed.longestMs.toFixed(1)} ms`,
    );
    assert.ok(forwarded > 0, 'nothing was forwarded: the disk moved before the threshold');
    const after = await steady(2000);
    t.diagnostic(`at home on ${to.name}: ${after.operations} operations, longest ${after.longestMs.toFixed(1)} ms`);
    assert.ok(after.operations > 0);
  }
  await vm.verifyAndEnd();
});
