/**
 * A virtual machine whose disks are on the datastore by nfs:// (libnfs inside QEMU): it boots from them and trusts them with its data, while things
 * happen to the router.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

import { run } from '../command.ts';
import { scratchFor } from '../scratch.ts';
import { bootGuest } from './guest/boot-guest.ts';
import { makeVmImage } from './guest/vm-image.ts';
import type { PrivateRouter } from './private-router.ts';

const BLOCKS = 60;

/**
 * First boot: writes files (synced) and stamped blocks to the second disk with O_DIRECT, among them while the router is dead; verifies with cold caches.
 * Later boots: verify only. /vm/written tells them apart.
 */
const VM_SCRIPT = `set -eu
fail() { echo "FAILED: $*"; exit 1; }
block() { yes "round $1 block $2 of the second disk" | head -c 262144 > /tmp/block; }
write_block() { block "$1" "$2"; dd if=/tmp/block of=/dev/vdb bs=256k seek="$2" oflag=direct conv=notrunc 2> /dev/null; }
verify_disk() {
  i=0
  while [ $i -lt ${BLOCKS} ]; do
    block "$1" $i
    dd if=/dev/vdb bs=256k skip=$i count=1 iflag=direct 2> /dev/null | cmp - /tmp/block || fail "block $i is not of round $1"
    i=$((i + 1))
  done
}
verify_files() { echo 3 > /proc/sys/vm/drop_caches; sha256sum -c /vm/manifest > /tmp/checked || fail "$(grep -v ': OK' /tmp/checked)"; }

grep '^/dev/vda / ext4 rw' /proc/mounts > /dev/null || fail "the root is not the disk: $(cat /proc/mounts)"
if [ ! -e /vm/written ]; then
  mkdir /vm/files
  i=0
  while [ $i -lt 40 ]; do dd if=/dev/urandom of=/vm/files/$i bs=10007 count=$i 2> /dev/null; i=$((i + 1)); done
  sha256sum /vm/files/* > /vm/manifest
  sync
  i=0; while [ $i -lt ${BLOCKS} ]; do write_block 1 $i; i=$((i + 1)); done
  echo 'please make trouble'
  # The first writes of this round meet a router that is alive, dead or recovering; the VM must only see time pass.
  i=0; while [ $i -lt ${BLOCKS} ]; do write_block 2 $i; i=$((i + 1)); done
  read answer
  [ "$answer" = 'trouble is over' ] || fail "answer: $answer"
  : > /vm/written
  sync
  echo ok written
fi
verify_files
verify_disk 2
echo ok verified
`;

export interface VmTrouble {
  /** Runs while the VM writes; resolves when the router serves again. */
  readonly underLoad: () => Promise<void>;
  /** Between the first boot and the second; the router serves when it resolves. */
  readonly betweenBoots: () => Promise<void>;
}

/** Two boots of a VM with its root and its data disk on the datastore. It must see nothing of the trouble but that time passes. */
export async function vmThroughTrouble(t: TestContext, { prefix, url }: PrivateRouter, trouble: VmTrouble): Promise<void> {
  const scratch = await scratchFor(t, 'vm');
  const image = join(scratch, 'root.raw');
  await makeVmImage(scratch, image, 64, VM_SCRIPT);
  const rootDisk = `${url}/vm-flat.vmdk`;
  const dataDisk = `${url}/vm_1-flat.vmdk`;
  await run([...prefix, 'qemu-img', 'convert', '-f', 'raw', '-O', 'raw', image, rootDisk]);
  await run([...prefix, 'qemu-img', 'create', '-f', 'raw', dataDisk, '16M']);
  const drives = [rootDisk, dataDisk].map((disk) => `if=virtio,format=raw,cache=none,file=${disk}`);

  let made: Promise<void> | null = null;
  const first = await bootGuest({
    rootDevice: '/dev/vda',
    drives,
    prefix,
    timeoutS: 600,
    onLine: (line, send) => {
      if (line !== 'please make trouble') return;
      made = (async () => {
        await trouble.underLoad();
        send('trouble is over');
      })();
      // Judged below; until then a router that does not come back shows as a guest that is too slow.
      made.catch(() => undefined);
    },
  });
  assert.equal(first.status, 0, `${first.lines.join('\n')}\n${first.console.slice(-2000)}`);
  assert.deepEqual(
    first.lines.filter((line) => line.startsWith('ok ')),
    ['ok written', 'ok verified'],
  );
  await made;

  await trouble.betweenBoots();
  const second = await bootGuest({ rootDevice: '/dev/vda', drives, prefix, timeoutS: 600 });
  assert.equal(second.status, 0, `${second.lines.join('\n')}\n${second.console.slice(-2000)}`);
  assert.deepEqual(
    second.lines.filter((line) => line.startsWith('ok ')),
    ['ok verified'],
  );

  // The file system of the guest is whole as seen from outside, too.
  const copy = join(scratch, 'copy.raw');
  await run([...prefix, 'qemu-img', 'convert', '-f', 'raw', '-O', 'raw', rootDisk, copy]);
  await run(['e2fsck', '-f', '-n', copy]);
}
