/** ESXi's lock files, esxi.md 3 and 10, checks 33, 36 to 38 as far as one router goes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { compareTimestamp } from '../../core/time.ts';
import { authSys } from '../../oncrpc/rpc-client.ts';
import { Stability, Status } from '../file-system.ts';
import { lockContents } from './contents.ts';
import { failed, GUARDED, made, newFile, succeeded } from './server-under-test.ts';
import type { SuiteOf } from './server-under-test.ts';

function lockName(fileid: number): string {
  const little = Buffer.alloc(8);
  little.writeBigUInt64LE(BigInt(fileid));
  return `.lck-${little.toString('hex')}`;
}

export function lockChecks(suite: SuiteOf): void {
  test('esxi 33: a lock is taken by GUARDED create, renewed by 84-byte writes that every reader sees at once', async () => {
    const { client: h1 } = suite();
    const h2 = await suite().connect({ credential: authSys({ machineName: 'H2' }) });
    try {
      const directory = await suite().directory();
      const disk = await newFile(suite(), directory, 'x-flat.vmdk');
      const name = lockName(disk.fileid);
      failed(await h1.lookup(directory, name), Status.NOENT);
      const lock = made(await h1.create(directory, name, GUARDED)).handle;
      failed(await h2.create(directory, name, GUARDED), Status.EXIST);
      let mtime = { seconds: 0, nanoseconds: 0 };
      for (let alive = 1; alive <= 20; alive++) {
        const contents = lockContents('H1', alive);
        const written = succeeded(await h1.write(lock, 0, contents, Stability.FILE_SYNC));
        assert.deepEqual([written.countBytes, written.committed], [84, Stability.FILE_SYNC]);
        const found = succeeded(await h2.lookup(directory, name));
        assert.deepEqual(found.handle, lock);
        const read = succeeded(await h2.read(found.handle, 0, 512));
        assert.ok(read.data.equals(contents) && read.eof);
        const attributes = read.attributes ?? succeeded(await h2.getattr(lock)).attributes;
        assert.equal(attributes.sizeBytes, 84);
        assert.ok(compareTimestamp(attributes.mtime, mtime) > 0, 'mtime moves with every renewal');
        mtime = attributes.mtime;
      }
    } finally {
      await h2.close();
    }
  });

  test('esxi 36: once the lock is broken the old owner can neither write nor see it', async () => {
    const { client: h1 } = suite();
    const h2 = await suite().connect({ credential: authSys({ machineName: 'H2' }) });
    try {
      const directory = await suite().directory();
      const lock = made(await h1.create(directory, '.lck-1', GUARDED)).handle;
      succeeded(await h1.write(lock, 0, lockContents('H1', 1), Stability.FILE_SYNC));
      succeeded(await h2.remove(directory, '.lck-1'));
      const mine = made(await h2.create(directory, '.lck-1', GUARDED)).handle;
      succeeded(await h2.write(mine, 0, lockContents('H2', 1), Stability.FILE_SYNC));
      failed(await h1.write(lock, 0, lockContents('H1', 2), Stability.FILE_SYNC), Status.STALE);
      failed(await h1.getattr(lock), Status.STALE);
      assert.ok(succeeded(await h2.read(mine, 0, 84)).data.equals(lockContents('H2', 1)));
    } finally {
      await h2.close();
    }
  });

  test('esxi 37: a released lock is gone for everybody at once and can be taken at once', async () => {
    const { client: h1 } = suite();
    const h2 = await suite().connect({ credential: authSys({ machineName: 'H2' }) });
    try {
      const directory = await suite().directory();
      for (let round = 0; round < 20; round++) {
        const [owner, other] = round % 2 === 0 ? [h1, h2] : [h2, h1];
        failed(await owner.lookup(directory, '.lck-2'), Status.NOENT);
        made(await owner.create(directory, '.lck-2', GUARDED));
        succeeded(await other.lookup(directory, '.lck-2'));
        succeeded(await owner.remove(directory, '.lck-2'));
        failed(await other.lookup(directory, '.lck-2'), Status.NOENT);
        failed(await other.remove(directory, '.lck-2'), Status.NOENT);
      }
    } finally {
      await h2.close();
    }
  });
}
