/** esxi 39: what two hosts send when a machine with many disks goes from one to the other: locks are given up and taken, the last writes are looked at. */
import assert from 'node:assert/strict';

import { lockContents } from '../../server/nfsd/conformance/contents.ts';
import { GUARDED, made, succeeded } from '../../server/nfsd/conformance/server-under-test.ts';
import type { Handle } from '../../server/nfsd/file-system.ts';
import { Stability, Status } from '../../server/nfsd/file-system.ts';
import type { NfsClient } from '../../server/nfsd/nfs-client.ts';
import { lockName, Timings } from './two-hosts.ts';

const MIB = 1024 * 1024;

interface Disk {
  readonly name: string;
  readonly handle: Handle;
  readonly fileid: number;
  readonly lock: string;
  /** The first MiB as the machine knows it. */
  readonly contents: Buffer;
}

export class VmotionReplay {
  readonly #directory: Handle;
  readonly #disks: readonly Disk[];
  readonly timings = new Timings();
  #writes = 0;

  private constructor(directory: Handle, disks: readonly Disk[]) {
    this.#directory = directory;
    this.#disks = disks;
  }

  /** A machine of `host`, switched on: its disks exist and it holds their locks. */
  static async powerOn(host: NfsClient, directory: Handle, disks: number): Promise<VmotionReplay> {
    const all = await Promise.all(
      Array.from({ length: disks }, async (_, index): Promise<Disk> => {
        const name = `vm_${index}-flat.vmdk`;
        const { handle, fileid } = made(await host.create(directory, name, GUARDED));
        succeeded(await host.setattr(handle, { sizeBytes: 4 * MIB }));
        const disk = { name, handle: Buffer.from(handle), fileid, lock: lockName(fileid), contents: Buffer.alloc(MIB) };
        await takeLock(host, directory, disk, 'first');
        return disk;
      }),
    );
    return new VmotionReplay(directory, all);
  }

  /** `count` writes of 4 KiB by the machine on `host`, `lanes` at a time; only of what no other lane writes. */
  async work(host: NfsClient, count: number, lanes = 16): Promise<void> {
    const lane = async (index: number): Promise<void> => {
      for (let done = 0; done < count / lanes; done += 1) {
        const disk = this.#disks[(index + done * lanes) % this.#disks.length]!;
        await this.#write(host, disk, ((done * 7) % 16) * lanes + index);
      }
    };
    await Promise.all(Array.from({ length: lanes }, (_, index) => lane(index)));
  }

  /** Moves from a host to another; resolves with the milliseconds in which the machine stood still. */
  async move(from: NfsClient, to: NfsClient, toName: string): Promise<number> {
    return await this.timings.measure(async () => {
      const began = performance.now();
      await Promise.all(
        this.#disks.map(async (disk) => {
          const lock = succeeded(await from.lookup(this.#directory, disk.lock)).handle;
          assert.equal(succeeded(await from.read(lock, 0, 84)).data.length, 84);
          await this.#write(from, disk, 255);
          succeeded(await from.remove(this.#directory, disk.lock));
        }),
      );
      await Promise.all(
        this.#disks.map(async (disk) => {
          const found = succeeded(await to.lookup(this.#directory, disk.name));
          assert.deepEqual(found.handle, disk.handle);
          const { attributes } = succeeded(await to.getattr(disk.handle));
          assert.deepEqual([attributes.fileid, attributes.sizeBytes], [disk.fileid, 4 * MIB]);
          await takeLock(to, this.#directory, disk, toName);
          assert.ok(succeeded(await to.read(disk.handle, 0, MIB)).data.equals(disk.contents), `${disk.name} is not as the last host left it`);
          await this.#write(to, disk, 254);
        }),
      );
      return performance.now() - began;
    });
  }

  async #write(host: NfsClient, disk: Disk, block: number): Promise<void> {
    this.#writes += 1;
    const bytes = Buffer.alloc(4096);
    bytes.fill(`${disk.name} block ${block} write ${this.#writes} `);
    const { countBytes } = succeeded(await host.write(disk.handle, block * 4096, bytes, Stability.FILE_SYNC));
    assert.equal(countBytes, 4096);
    bytes.copy(disk.contents, block * 4096);
  }
}

async function takeLock(host: NfsClient, directory: Handle, disk: Disk, name: string): Promise<void> {
  assert.equal((await host.lookup(directory, disk.lock)).status, Status.NOENT, 'the lock is still there');
  const { handle } = made(await host.create(directory, disk.lock, GUARDED));
  succeeded(await host.write(handle, 0, lockContents(name, 1), Stability.FILE_SYNC));
}
