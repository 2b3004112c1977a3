/** A bootable root disk: ext4 with busybox, an init that runs `/vm/script` and nothing else. Needs e2fsprogs and busybox-static. */
import { copyFile, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { run } from '../../command.ts';
import { BUSYBOX } from './guest-kernel.ts';

const INIT = `#!/bin/sh
export PATH=/bin:/sbin
mount -t tmpfs tmp /tmp
exec 3<>$(ls /dev/vport*p1)
sh /vm/script <&3 >&3 2>&1
echo "EXIT $?" >&3
sync
mount -o remount,ro /
sleep 0.1
reboot -f
`;

/** Makes the image at `imagePath` out of a tree in `workDirectory`. `script` runs at every boot, as in `GuestOptions.script`. */
export async function makeVmImage(workDirectory: string, imagePath: string, sizeMiB: number, script: string): Promise<void> {
  const root = join(workDirectory, 'vm-root');
  for (const directory of ['bin', 'sbin', 'dev', 'proc', 'sys', 'tmp', 'vm']) await mkdir(join(root, directory), { recursive: true });
  await copyFile(BUSYBOX, join(root, 'bin', 'busybox'));
  const applets = (await run([BUSYBOX, '--list'])).stdout.toString().split('\n');
  for (const applet of applets.filter((name) => name !== '' && name !== 'busybox')) await symlink('busybox', join(root, 'bin', applet));
  await writeFile(join(root, 'sbin', 'init'), INIT, { mode: 0o755 });
  await writeFile(join(root, 'vm', 'script'), script);
  await run(['truncate', '-s', `${sizeMiB}M`, imagePath]);
  await run(['mkfs.ext4', '-q', '-d', root, imagePath]);
}
