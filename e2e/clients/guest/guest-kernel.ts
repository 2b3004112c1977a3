/**
 * Debian's cloud kernel and a small initramfs for it, made once under `.cache/guest/` (3 s) and made again when missing. Nothing is installed:
 * the package is downloaded and unpacked. Needs the Debian packages apt, dpkg, kmod and busybox-static.
 */
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';

import { run } from '../../command.ts';
import { type ArchiveEntry, cpioArchive } from './cpio.ts';

const CACHE = join(import.meta.dirname, '..', '..', '..', '.cache', 'guest');
/** Part of the file names: raise it when the way they are made changes. */
const RECIPE = 'v2';
const MODULES = ['nfsv3', 'virtio_pci', 'virtio_net', 'virtio_console', 'virtio_blk', 'loop'];

export interface GuestKernel {
  readonly kernelPath: string;
  /** Uncompressed cpio; more archives may be appended to it. */
  readonly initramfsPath: string;
}

/** Busybox: the whole user space of a guest. */
export const BUSYBOX = '/bin/busybox';

/** The kernel and initramfs, made when they are not there yet. */
export async function guestKernel(): Promise<GuestKernel> {
  const kernelPath = join(CACHE, `vmlinuz-${RECIPE}`);
  const initramfsPath = join(CACHE, `initramfs-${RECIPE}.cpio`);
  if (existsSync(kernelPath) && existsSync(initramfsPath)) return { kernelPath, initramfsPath };
  await mkdir(CACHE, { recursive: true });
  // Test files run as processes side by side: each makes its own and the last rename wins, whole at any time.
  const work = await mkdtemp(join(CACHE, 'making-'));
  try {
    const root = await unpackKernelPackage(work);
    const [release] = await readdir(join(root, 'lib', 'modules'));
    if (release === undefined) throw new Error('the kernel package has no modules');
    const initramfs = await makeInitramfs(root, release);
    await writeFile(join(work, 'initramfs'), initramfs);
    await rename(join(work, 'initramfs'), initramfsPath);
    await rename(join(root, 'boot', `vmlinuz-${release}`), kernelPath);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return { kernelPath, initramfsPath };
}

async function unpackKernelPackage(work: string): Promise<string> {
  // The meta package depends on the present kernel: linux-image-6.1.0-NN-cloud-amd64.
  const dependencies = (await run(['apt-cache', 'depends', 'linux-image-cloud-amd64'])).stdout.toString();
  const name = /Depends: (linux-image-[\w.-]+)/.exec(dependencies)?.[1];
  if (name === undefined) throw new Error(`apt knows no cloud kernel (apt-get update?):\n${dependencies}`);
  await run(['apt-get', 'download', '-o', 'APT::Sandbox::User=root', name], { cwd: work, timeoutMs: 300_000 });
  const archive = (await readdir(work)).find((file) => file.endsWith('.deb'));
  if (archive === undefined) throw new Error(`apt-get download ${name} left no package`);
  const root = join(work, 'root');
  await run(['dpkg', '-x', join(work, archive), root]);
  return root;
}

async function makeInitramfs(root: string, release: string): Promise<Buffer> {
  await run(['depmod', '-b', root, release]);
  const paths: string[] = [];
  for (const module of MODULES) {
    const listing = (await run(['modprobe', '--show-depends', '-d', root, '-S', release, module])).stdout.toString();
    for (const match of listing.matchAll(/^insmod (\S+)/gm)) {
      const path = match[1] ?? '';
      if (!paths.includes(path)) paths.push(path);
    }
  }
  const entries: ArchiveEntry[] = ['bin', 'dev', 'proc', 'sys', 'mnt', 'tmp', 'job', 'modules', 'etc'].map((path) => ({ kind: 'directory', path }));
  entries.push({ kind: 'character-device', path: 'dev/console', major: 5, minor: 1 });
  entries.push({ kind: 'file', path: 'bin/busybox', content: await readFile(BUSYBOX), executable: true });
  entries.push({ kind: 'symlink', path: 'bin/sh', target: 'busybox' });
  for (const path of paths) entries.push({ kind: 'file', path: `modules/${basename(path)}`, content: await readFile(path) });
  entries.push({ kind: 'file', path: 'init', content: initScript(paths.map((path) => basename(path))), executable: true });
  return cpioArchive(entries);
}

/**
 * The first process of the guest: loads the modules in order of dependency, brings the network up as QEMU's user networking expects it and runs
 * /job/script with its input and output on the virtio port. `reboot -f` ends QEMU (-no-reboot). When the job names a root device instead, it boots on
 * into the /sbin/init of that, which does the same for itself.
 */
function initScript(modules: readonly string[]): string {
  return `#!/bin/sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
for module in ${modules.join(' ')}; do insmod /modules/$module || echo "insmod $module failed"; done
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
  ip link set eth0 up
  ip addr add 10.0.2.15/24 dev eth0
  ip route add default via 10.0.2.2
fi
# devtmpfs names the port of the first virtio-serial device; it appears a moment after the module.
for wait in 1 2 3 4 5 6 7 8 9 10; do [ -e /dev/vport1p1 ] || [ -e /dev/vport0p1 ] && break; sleep 0.1; done
if [ -e /job/root ]; then
  mount -t ext4 "$(cat /job/root)" /mnt || { echo 'no root'; reboot -f; }
  mount --move /dev /mnt/dev
  mount --move /proc /mnt/proc
  mount --move /sys /mnt/sys
  exec switch_root /mnt /sbin/init
fi
port=$(ls /dev/vport*p1)
exec 3<>$port
sh /job/script <&3 >&3 2>&1
echo "EXIT $?" >&3
sync
sleep 0.1
reboot -f
`;
}
