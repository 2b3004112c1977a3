/** A disk of its own for a router's data or backend, as small or as bad as a test wants it. */
import { join } from 'node:path';

import { MountNamespace } from '../mount-namespace.ts';
import { scratchDirectory } from '../scratch.ts';

export interface SmallDisk {
  readonly namespace: MountNamespace;
  /** Where it is mounted; empty but for `lost+found` and the filler. */
  readonly path: string;
  /** Takes away `mebibytes` of its space. */
  fill(mebibytes: number): Promise<void>;
  /** Gives them back. */
  free(): Promise<void>;
  /**
   * Cuts it off, as a power failure does: from here on it takes nothing, and what was not synced is gone after `repair` (ext4 stops writing back
   * when it is told to abort). What it cannot show is a missing fsync of a directory: ext4 makes names durable along with any file that is synced.
   */
  cut(): Promise<void>;
  /** Mounts it again; nobody may use it at that moment. */
  repair(): Promise<void>;
}

/** An ext4 file system of `mebibytes` in a file. It survives the router, not the test. */
export async function smallDisk(stack: AsyncDisposableStack, mebibytes: number): Promise<SmallDisk> {
  const scratch = stack.use(await scratchDirectory('disk')).path;
  const namespace = stack.use(await MountNamespace.create());
  const path = join(scratch, 'mounted');
  await namespace.shell(
    `mkdir ${path}; truncate -s ${mebibytes}M ${scratch}/image; mkfs.ext4 -q -m 0 ${scratch}/image; mount -o loop ${scratch}/image ${path}`,
  );
  return {
    namespace,
    path,
    async fill(size) {
      await namespace.shell(`fallocate -l ${size}M ${path}/filler`);
    },
    async free() {
      await namespace.shell(`rm ${path}/filler`);
    },
    async cut() {
      await namespace.shell(`echo not synced > ${path}/canary; mount -o remount,abort ${path}`);
    },
    async repair() {
      await namespace.shell(`umount ${path}; mount -o loop ${scratch}/image ${path}`);
      const survived = await namespace.shell(`cat ${path}/canary 2> /dev/null || true; rm -f ${path}/canary`);
      if (survived !== '') throw new Error('the cut did not take along what was not synced: it proves nothing');
    },
  };
}

export interface ThinDisk {
  readonly namespace: MountNamespace;
  readonly path: string;
  /** Gives the disk `mebibytes` of real space in all. */
  grow(mebibytes: number): Promise<void>;
}

/**
 * A file system that believes it has `mebibytes`, on a device that has only `realMebibytes`: as on an overcommitted thin pool, writes fail
 * at the next sync, when the page cache meets the device, not when they are made. No journal, so that it goes on when there is space again.
 */
export async function thinDisk(stack: AsyncDisposableStack, mebibytes: number, realMebibytes: number): Promise<ThinDisk> {
  const scratch = stack.use(await scratchDirectory('thin-disk')).path;
  const namespace = stack.use(await MountNamespace.create());
  const [backing, path] = [join(scratch, 'backing'), join(scratch, 'mounted')];
  await namespace.shell(
    `mkdir ${backing} ${path}; mount -t tmpfs -o size=${realMebibytes}m tmpfs ${backing}; truncate -s ${mebibytes}M ${backing}/image; ` +
      `mkfs.ext4 -q -m 0 -O ^has_journal ${backing}/image; mount -o loop,errors=continue ${backing}/image ${path}`,
  );
  return {
    namespace,
    path,
    async grow(size) {
      await namespace.shell(`mount -o remount,size=${size}m ${backing}`);
    },
  };
}
