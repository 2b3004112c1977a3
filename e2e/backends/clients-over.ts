/** Real clients on a datastore whose data is on a given backend. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

import { type PrivateRouter, privateRouter } from '../clients/private-router.ts';
import { vmThroughTrouble } from '../clients/vm-trouble.ts';
import { run } from '../command.ts';
import { scratchFor } from '../scratch.ts';
import { NetworkPath } from '../services/network-path.ts';
import { stackOf } from '../test-stack.ts';
import type { Backend } from './backend-fixture.ts';
import { bytesFromBackend, coldRestart } from './cold-restart.ts';

const MIB = 1024 * 1024;
/** Segments of a size that these small disks have several of, uploaded soon. */
const SOON = { VFERRY_LOG_SEGMENT_BYTES: '4MiB', VFERRY_LOG_SEAL_AFTER_MS: '500ms' };

/** A router with the well-known ports on a private loopback, whose backend is on this machine's. */
async function privateRouterOn(t: TestContext, backend: Backend, vpool: string): Promise<PrivateRouter> {
  return await privateRouter(t, {
    vpool,
    environment: async (network) => {
      if (backend.port !== null) stackOf(t).use(await NetworkPath.into(network, backend.port));
      return { ...SOON, ...backend.environment() };
    },
  });
}

/** What happens to the object servers in the middle of a VM's life; resolves when all is well again. */
export type BreakBackend = () => Promise<void>;

/** A VM boots from the backend: its router is killed and its object servers break while it writes; the second boot finds no local copy of anything. */
export async function vmOver(t: TestContext, backend: Backend, vpool: string, breakBackend: BreakBackend): Promise<void> {
  const present = await privateRouterOn(t, backend, vpool);
  const { router } = present;
  await vmThroughTrouble(t, present, {
    underLoad: async () => {
      await router.kill();
      await router.start();
      await breakBackend();
    },
    betweenBoots: async () => {
      await coldRestart(router);
      assert.equal(await bytesFromBackend(router), 0);
    },
  });
  const readBytes = await bytesFromBackend(router);
  t.diagnostic(`${readBytes} bytes came from the backend for the second boot`);
  assert.ok(readBytes > 4 * MIB, `only ${readBytes} bytes came from the backend: the VM did not boot from it`);
}

/** libnfs and QEMU's tools bring back every byte, from caches and from the backend. */
export async function toolsOver(t: TestContext, backend: Backend, vpool: string): Promise<void> {
  const { router, prefix, url } = await privateRouterOn(t, backend, vpool);
  const scratch = await scratchFor(t, 'tools');
  const qemu = async (...args: string[]): Promise<string> => (await run([...prefix, ...args], { timeoutMs: 600_000 })).stdout.toString();

  const files = new Map<string, Buffer>([
    ['empty.vmx', Buffer.alloc(0)],
    ['small.vmx', randomBytes(139)],
    ['flips.log', randomBytes(4097)],
    ['file.vmsn', randomBytes(3 * MIB + 17)],
    ['disk-flat.vmdk', randomBytes(9 * MIB + 512)],
  ]);
  for (const [name, content] of files) {
    await writeFile(join(scratch, name), content);
    await run([...prefix, 'nfs-cp', join(scratch, name), `${url}/${name}`]);
  }
  const image = join(scratch, 'disk-flat.vmdk');
  await qemu('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', image, `${url}/copy.qcow2`);
  const flat = `${url}/io-flat.vmdk`;
  await qemu('qemu-img', 'create', '-f', 'raw', flat, '32M');
  const io = async (...commands: string[]): Promise<void> => {
    const output = await qemu('qemu-io', '-f', 'raw', ...commands.flatMap((command) => ['-c', command]), flat);
    assert.doesNotMatch(output, /Pattern verification failed/);
  };
  const reads = ['read -P 17 5M 512k', 'read -P 18 5632k 512', 'read -P 19 9999k 70000', 'read -P 0 20M 1M'];
  await io('write -P 17 5M 1M', 'write -P 18 5632k 512', 'write -P 19 9999k 70000', 'flush', ...reads);
  await qemu('qemu-img', 'bench', '-f', 'raw', '-w', '-c', '1000', '-d', '32', '-s', '4096', '-o', String(16 * MIB), '--flush-interval=100', flat);

  const check = async (): Promise<void> => {
    for (const [name, content] of files) {
      assert.ok((await run([...prefix, 'nfs-cat', `${url}/${name}`])).stdout.equals(content), `${name} through nfs-cat`);
    }
    await qemu('qemu-img', 'check', '-f', 'qcow2', `${url}/copy.qcow2`);
    assert.match(await qemu('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', image, `${url}/copy.qcow2`), /identical/);
    await io(...reads.slice(0, 3));
  };
  await check();
  await coldRestart(router);
  await check();
  assert.ok((await bytesFromBackend(router)) > 12 * MIB);
  // Once more from what the first reading left in the caches, after a kill.
  await router.kill();
  await router.start();
  await check();
  await router.stop();
  const checked = await router.fsck();
  assert.equal(checked.code, 0, checked.output);
}
