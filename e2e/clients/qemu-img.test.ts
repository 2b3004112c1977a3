/** qemu-img and qemu-io on nfs:// URLs (Debian: qemu-utils, qemu-block-extra): how KVM hosts use the datastore without a mount. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { open, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { run } from '../command.ts';
import { scratchFor } from '../scratch.ts';
import { privateRouter } from './private-router.ts';

const MIB = 1024 * 1024;

/** A sparse image: data at the start, in the middle (not aligned to a block) and in the last sector. */
async function makeImage(path: string, sizeBytes: number): Promise<void> {
  await using file = await open(path, 'wx');
  await file.truncate(sizeBytes);
  await file.write(randomBytes(3 * MIB), 0, 3 * MIB, 0);
  await file.write(randomBytes(300_000), 0, 300_000, 21 * MIB + 1536);
  await file.write(randomBytes(512), 0, 512, sizeBytes - 512);
}

interface MapEntry {
  readonly start: number;
  readonly length: number;
  readonly data: boolean;
}

test('qemu-img creates, converts, compares, maps, checks, resizes and benches images on nfs://', async (t) => {
  const { prefix, url, router } = await privateRouter(t);
  const scratch = await scratchFor(t, 'qemu-img');
  const image = join(scratch, 'source.raw');
  await makeImage(image, 64 * MIB);
  const qemu = async (...args: string[]): Promise<string> => (await run([...prefix, ...args], { timeoutMs: 600_000 })).stdout.toString();
  const flat = `${url}/disk-flat.vmdk`;
  const qcow = `${url}/disk.qcow2`;

  await t.test('create makes an image of the asked size without data', async () => {
    await qemu('qemu-img', 'create', '-f', 'raw', `${url}/empty-flat.vmdk`, '8G');
    const info = JSON.parse(await qemu('qemu-img', 'info', '-f', 'raw', '--output=json', `${url}/empty-flat.vmdk`)) as Record<string, number>;
    assert.equal(info['virtual-size'], 8 * 1024 * MIB);
    await qemu('qemu-io', '-f', 'raw', '-c', `read -P 0 ${8 * 1024 - 1}M 1M`, `${url}/empty-flat.vmdk`);
  });

  await t.test('convert to a raw volume and back, compare says identical at every step', async () => {
    await qemu('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', image, flat);
    assert.match(await qemu('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', image, flat), /identical/);
    await qemu('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', flat, join(scratch, 'back.raw'));
    assert.match(await qemu('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', image, join(scratch, 'back.raw')), /identical/);
  });

  await t.test('map covers the image without gap', async () => {
    const map = JSON.parse(await qemu('qemu-img', 'map', '-f', 'raw', '--output=json', flat)) as MapEntry[];
    let end = 0;
    for (const entry of map) {
      assert.equal(entry.start, end);
      end += entry.length;
    }
    assert.equal(end, 64 * MIB);
    assert.equal(map[0]?.data, true);
  });

  await t.test('convert to qcow2 on nfs:// passes check, before and after a kill of the router', async () => {
    await qemu('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', flat, qcow);
    await qemu('qemu-img', 'check', '-f', 'qcow2', qcow);
    await router.kill();
    await router.start();
    await qemu('qemu-img', 'check', '-f', 'qcow2', qcow);
    assert.match(await qemu('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', image, qcow), /identical/);
    assert.match(await qemu('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', image, flat), /identical/);
  });

  await t.test('resize shrinks and grows a volume, and what is regrown reads as zeros', async () => {
    await qemu('qemu-img', 'resize', '-f', 'raw', '--shrink', flat, '2M');
    await qemu('qemu-img', 'resize', '-f', 'raw', flat, '64M');
    await qemu('qemu-io', '-f', 'raw', '-c', 'read -P 0 2M 62M', flat);
    const expected = join(scratch, 'expected.raw');
    await writeFile(expected, (await readFile(image)).subarray(0, 2 * MIB));
    await truncate(expected, 64 * MIB);
    assert.match(await qemu('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', expected, flat), /identical/);
  });

  await t.test('qemu-io reads back patterns written unaligned, with flush, and across a restart', async () => {
    const writes = ['write -P 17 5M 1M', 'write -P 18 5632k 512', 'write -P 19 9999k 70000', 'flush'];
    const reads = ['read -P 17 5M 512k', 'read -P 18 5632k 512', 'read -P 17 5767680 256', 'read -P 19 9999k 70000'];
    const io = async (commands: readonly string[]): Promise<string> =>
      await qemu('qemu-io', '-f', 'raw', ...commands.flatMap((command) => ['-c', command]), flat);
    assert.doesNotMatch(await io([...writes, ...reads]), /Pattern verification failed/);
    await router.stop();
    await router.start();
    assert.doesNotMatch(await io(reads), /Pattern verification failed/);
  });

  await t.test('bench at depth 64 ends without an error', async () => {
    await qemu('qemu-img', 'bench', '-f', 'raw', '-w', '-c', '2000', '-d', '64', '-s', '4096', '--flush-interval=100', flat);
    await qemu('qemu-img', 'bench', '-f', 'raw', '-c', '2000', '-d', '64', '-s', '65536', flat);
  });
});
