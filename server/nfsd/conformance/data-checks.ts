/** esxi.md 10, checks 27 to 31, 13; nfs-servers.md 4.3, lines 4 to 9, 11, 27. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Stability, Status } from '../file-system.ts';
import type { Handle } from '../file-system.ts';
import type { NfsClient } from '../nfs-client.ts';
import { pattern, readAll } from './contents.ts';
import { failed, newFile, succeeded, UNCHECKED, VMDK_BYTES_MAX } from './server-under-test.ts';
import type { SuiteOf } from './server-under-test.ts';

export function dataChecks(suite: SuiteOf): void {
  const sizeOf = async (object: Handle): Promise<number> => succeeded(await suite().client.getattr(object)).attributes.sizeBytes;

  for (const name of ['descriptor.vmdk', 'disk-flat.vmdk']) {
    test(`esxi 27 (${name}): READ tells the end of the file exactly, with data and without (4.3/8)`, async () => {
      const { client } = suite();
      const { handle } = await newFile(suite(), await suite().directory(), name);
      const contents = pattern(139, 1);
      assert.deepEqual(readShape(await client.read(handle, 0, 512)), [0, true]);
      assert.deepEqual(readShape(await client.read(handle, 0, 0)), [0, true]);
      succeeded(await client.write(handle, 0, contents, Stability.FILE_SYNC));
      const whole = succeeded(await client.read(handle, 0, 512));
      assert.ok(whole.data.equals(contents) && whole.eof);
      assert.equal(whole.attributes?.sizeBytes, 139);
      const cases: [number | bigint, number, number, boolean][] = [
        [0, 139, 139, true],
        [0, 138, 138, false],
        [138, 1, 1, true],
        [139, 512, 0, true],
        [139, 0, 0, true],
        [138, 0, 0, false],
        [4096, 4096, 0, true],
        [2 ** 32 - 1, 1, 0, true],
        [2 ** 32 + 1, 1, 0, true],
        [VMDK_BYTES_MAX, 512, 0, true],
        [2n ** 53n - 1n, 2, 0, true],
        [2n ** 53n + 1n, 1, 0, true],
        [2n ** 63n - 2n, 1, 0, true],
        [2n ** 63n - 1n, 0, 0, true],
      ];
      for (const [offset, count, length, eof] of cases) {
        assert.deepEqual(readShape(await client.read(handle, offset, count)), [length, eof], `READ(${offset}, ${count})`);
      }
      failed(await client.read(handle, 2n ** 63n - 1n, 1), Status.INVAL);
      failed(await client.read(handle, 2n ** 64n - 1n, 0xffff_ffff), Status.INVAL);
    });

    test(`4.3/8 (${name}): bytes behind a shrunk end never come back`, async () => {
      const { client } = suite();
      const { handle } = await newFile(suite(), await suite().directory(), name);
      succeeded(await client.write(handle, 0, Buffer.alloc(20_000, 0xaa), Stability.FILE_SYNC));
      succeeded(await client.setattr(handle, { sizeBytes: 5000 }));
      const read = succeeded(await client.read(handle, 4096, 8192));
      assert.ok(read.eof && read.data.equals(Buffer.alloc(904, 0xaa)));
      succeeded(await client.write(handle, 10_000, Buffer.from('end'), Stability.FILE_SYNC));
      assert.ok((await readAll(client, handle, 0, 20_000)).equals(Buffer.concat([Buffer.alloc(5000, 0xaa), Buffer.alloc(5000), Buffer.from('end')])));
    });

    test(`esxi 28 (${name}): FILE_SYNC writes of 512 bytes to 1 MiB, aligned and not, are whole, FILE_SYNC and read back (4.3/4, 4.3/5)`, async () => {
      const { client } = suite();
      const { handle } = await newFile(suite(), await suite().directory(), name);
      const model = Buffer.alloc(3 * 1024 * 1024);
      let end = 0;
      let verifier: Uint8Array | null = null;
      const writes: [number, number][] = [
        [0, 512],
        [512, 4096],
        [1, 511],
        [4095, 2],
        [4096, 65_536],
        [100_001, 77_777],
        [65_536, 1024 * 1024],
        [1_500_000, 1024 * 1024],
        [3, 1],
        [2_000_000, 4096],
      ];
      for (const [i, [offset, length]] of writes.entries()) {
        const data = pattern(length, i);
        const reply = succeeded(await client.write(handle, offset, data, Stability.FILE_SYNC));
        assert.equal(reply.countBytes, length);
        assert.equal(reply.committed, Stability.FILE_SYNC);
        verifier ??= reply.verifier;
        assert.deepEqual(reply.verifier, verifier);
        data.copy(model, offset);
        end = Math.max(end, offset + length);
        assert.equal(reply.wcc.after?.sizeBytes, end);
      }
      assert.ok((await readAll(client, handle, 0, model.length)).equals(model.subarray(0, end)));
      assert.ok((await readAll(client, handle, 99_999, 3)).equals(model.subarray(99_999, 100_002)));
    });

    test(`esxi 29 (${name}): UNSTABLE writes and COMMIT share one verifier; the data are there (4.3/5, 4.3/6)`, async () => {
      const { client } = suite();
      const { handle } = await newFile(suite(), await suite().directory(), name);
      const verifiers: Uint8Array[] = [];
      for (let i = 0; i < 8; i++) {
        const reply = succeeded(await client.write(handle, i * 70_000, pattern(70_000, i), Stability.UNSTABLE));
        assert.equal(reply.countBytes, 70_000);
        verifiers.push(reply.verifier);
      }
      const commits: [number | bigint, number][] = [
        [0, 0],
        [0, 70_000],
        [70_000, 1],
        [10_000_000, 4096],
        [0, 0xffff_ffff],
        [2n ** 63n - 1n, 0],
        [2n ** 64n - 1n, 0],
      ];
      for (const [offset, count] of commits) verifiers.push(succeeded(await client.commit(handle, offset, count)).verifier);
      for (const verifier of verifiers) assert.deepEqual(Buffer.from(verifier), Buffer.from(verifiers[0]!));
      for (let i = 0; i < 8; i++) assert.ok((await readAll(client, handle, i * 70_000, 70_000)).equals(pattern(70_000, i)));
    });

    test(`4.3/7 (${name}): WRITE checks its counts and ranges; a WRITE of nothing changes nothing (4.3/27)`, async () => {
      const { client } = suite();
      const { handle } = await newFile(suite(), await suite().directory(), name);
      const ten = Buffer.alloc(10, 1);
      failed(await client.write(handle, 0, ten, Stability.FILE_SYNC, 9), Status.INVAL);
      failed(await client.write(handle, 0, ten, Stability.FILE_SYNC, 11), Status.INVAL);
      const mismatch = await client.write(handle, 0, ten, Stability.FILE_SYNC, 0xffff_ffff);
      failed(mismatch, Status.INVAL);
      assert.equal(mismatch.wcc.after?.sizeBytes, 0, 'errors carry the attributes');
      for (const offset of [2n ** 53n - 5n, 2n ** 53n + 1n, 2n ** 63n - 5n, 2n ** 63n - 1n, 2n ** 64n - 1n]) {
        failed(await client.write(handle, offset, ten, Stability.FILE_SYNC), Status.FBIG);
      }
      failed(await client.write(handle, 2n ** 63n, Buffer.alloc(0), Stability.FILE_SYNC), Status.OK, Status.FBIG);
      await assert.rejects(client.write(handle, 0, ten, 3 as Stability), { name: 'RpcRejectedError' }, 'no such stable_how');
      assert.equal(await sizeOf(handle), 0);
      for (const stability of [Stability.UNSTABLE, Stability.DATA_SYNC, Stability.FILE_SYNC]) {
        const nothing = succeeded(await client.write(handle, 1000, Buffer.alloc(0), stability));
        assert.equal(nothing.countBytes, 0);
        const reply = succeeded(await client.write(handle, 0, ten, stability));
        assert.ok(reply.committed >= stability);
        assert.equal(reply.verifier.length, 8);
      }
      assert.equal(await sizeOf(handle), 10);
      for (const offset of [2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1])
        succeeded(await client.write(handle, offset, Buffer.from([offset & 0xff]), Stability.FILE_SYNC));
      assert.deepEqual(succeeded(await client.read(handle, 2 ** 32 - 1, 10)).data, Buffer.from([0xff, 0, 1]));
      assert.equal(await sizeOf(handle), 2 ** 32 + 2);
    });
  }

  test('4.3/9: READ, WRITE and COMMIT of a directory or a symbolic link are refused as INVAL or ISDIR', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    const { handle } = succeeded(await client.symlink(directory, 'link', 'target'));
    for (const object of [directory, handle!]) {
      failed(await client.read(object, 0, 1), Status.INVAL, Status.ISDIR);
      failed(await client.write(object, 0, Buffer.from('x'), Stability.FILE_SYNC), Status.INVAL, Status.ISDIR);
      failed(await client.commit(object), Status.INVAL, Status.ISDIR);
    }
  });

  test('esxi 30: 16 writers and readers on overlapping blocks: no sector is torn, everyone reads at least what was acknowledged to him', async () => {
    const { handle } = await newFile(suite(), await suite().directory(), 'contended-flat.vmdk');
    const blocks = 64;
    const clients = await Promise.all(Array.from({ length: 16 }, () => suite().connect()));
    try {
      // Writer w owns the blocks b with b % 16 = w, so that what is acknowledged is known; readers look at all of them.
      const acknowledged = new Uint32Array(blocks);
      const issued = new Uint32Array(blocks);
      const stamp = (block: number, sequence: number): Buffer => {
        const bytes = Buffer.alloc(4096);
        for (let sector = 0; sector < 4096; sector += 512) {
          bytes.fill(sequence & 0xff, sector, sector + 512);
          bytes.writeUInt32LE(block, sector);
          bytes.writeUInt32LE(sequence, sector + 4);
        }
        return bytes;
      };
      const write = async (client: NfsClient, writer: number): Promise<void> => {
        for (let i = 0; i < 40; i++) {
          const block = writer + 16 * (i % 4);
          const sequence = ++issued[block]!;
          succeeded(await client.write(handle, block * 4096, stamp(block, sequence), i % 2 === 0 ? Stability.FILE_SYNC : Stability.UNSTABLE));
          acknowledged[block] = sequence;
          const other = (block * 7 + i) % blocks;
          const least = acknowledged[other]!;
          const { data } = succeeded(await client.read(handle, other * 4096, 4096));
          for (let sector = 0; sector + 512 <= data.length; sector += 512) {
            const seen = data.readUInt32LE(sector + 4);
            assert.ok(seen >= least && seen <= issued[other]!, `block ${other}: ${seen}, acknowledged ${least}, issued ${issued[other]}`);
            if (seen > 0) assert.ok(data.subarray(sector, sector + 512).equals(stamp(other, seen).subarray(sector, sector + 512)), 'a torn sector');
          }
          if (data.length < 4096) assert.equal(least, 0);
        }
      };
      await Promise.all(clients.map((client, writer) => write(client, writer)));
    } finally {
      await Promise.all(clients.map((client) => client.close()));
    }
  });

  test('esxi 31: zeros take no space, a sparse write only its own', async () => {
    const { client, options } = suite();
    const { handle } = await newFile(suite(), await suite().directory(), 'zeros-flat.vmdk');
    const zeros = Buffer.alloc(1024 * 1024);
    for (let offset = 0; offset < options.regionBytes; offset += zeros.length)
      succeeded(await client.write(handle, offset, zeros, Stability.UNSTABLE));
    succeeded(await client.commit(handle));
    const empty = succeeded(await client.getattr(handle)).attributes;
    assert.equal(empty.sizeBytes, options.regionBytes);
    assert.ok(empty.usedBytes <= options.regionBytes / 64, `${empty.usedBytes} bytes used for zeros`);
    succeeded(await client.write(handle, 2 ** 40, pattern(1024 * 1024, 5), Stability.FILE_SYNC));
    const { usedBytes } = succeeded(await client.getattr(handle)).attributes;
    assert.ok(usedBytes >= 1024 * 1024 && usedBytes <= empty.usedBytes + 2 * 1024 * 1024, `${usedBytes} bytes used for 1 MiB`);
  });

  test('READ, LOOKUP, ACCESS and COMMIT change no attribute', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    for (const name of ['descriptor.vmdk', 'disk-flat.vmdk']) {
      const { handle } = await newFile(suite(), directory, name);
      succeeded(await client.write(handle, 0, pattern(100, 1), Stability.FILE_SYNC));
      const before = succeeded(await client.getattr(handle)).attributes;
      succeeded(await client.read(handle, 0, 100));
      succeeded(await client.lookup(directory, name));
      succeeded(await client.access(handle, 0x3f));
      succeeded(await client.commit(handle));
      assert.deepEqual(succeeded(await client.getattr(handle)).attributes, before);
    }
  });

  test('a file written in pieces, truncated by CREATE and written again has only the new contents', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    for (const length of [100, 5000, 300_000]) {
      const { handle } = await newFile(suite(), directory, `rewritten-${length}`);
      succeeded(await client.write(handle, 0, pattern(length, 1), Stability.FILE_SYNC));
      const how = {
        mode: 'unchecked',
        attributes: { ...(UNCHECKED.mode === 'unchecked' ? UNCHECKED.attributes : undefined)!, sizeBytes: 0 },
      } as const;
      succeeded(await client.create(directory, `rewritten-${length}`, how));
      assert.equal(await sizeOf(handle), 0);
      succeeded(await client.write(handle, 10, Buffer.from('new'), Stability.FILE_SYNC));
      assert.ok((await readAll(client, handle, 0, length)).equals(Buffer.concat([Buffer.alloc(10), Buffer.from('new')])));
    }
  });
}

function readShape(result: Awaited<ReturnType<NfsClient['read']>>): [number, boolean] {
  const { data, eof } = succeeded(result);
  return [data.length, eof];
}
