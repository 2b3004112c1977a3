/** Names that move, go, and multiply: esxi.md 10, checks 25 and 26; nfs-servers.md 4.3, lines 9 and 20. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Handle } from '../file-system.ts';
import { FileType, Stability, Status } from '../file-system.ts';
import { NfsProcedure } from '../procedure-table.ts';
import { assertChanged, failed, GUARDED, listAll, made, namesOf, newFile, succeeded } from './server-under-test.ts';
import type { SuiteOf } from './server-under-test.ts';

export function renameChecks(suite: SuiteOf): void {
  const attributesOf = async (object: Handle) => succeeded(await suite().client.getattr(object)).attributes;

  test('esxi 25: RENAME replaces atomically and keeps handle and fileid; the victim is STALE; big disks and full directories move (4.3/20)', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    const sub = made(await client.mkdir(directory, 'sub')).handle;
    const old = await newFile(suite(), directory, 'x.vmx');
    const fresh = await newFile(suite(), directory, 'x.vmx~');
    succeeded(await client.write(fresh.handle, 0, Buffer.from('new'), Stability.FILE_SYNC));
    const before = await attributesOf(directory);
    const lookups = Array.from({ length: 20 }, () => client.lookup(directory, 'x.vmx'));
    const renamed = client.rename(directory, 'x.vmx~', directory, 'x.vmx');
    lookups.push(...Array.from({ length: 20 }, () => client.lookup(directory, 'x.vmx')));
    for (const lookup of await Promise.all(lookups)) {
      const { handle } = succeeded(lookup);
      assert.ok(Buffer.from(handle).equals(old.handle) || Buffer.from(handle).equals(fresh.handle));
    }
    const { status, fromWcc, toWcc } = await renamed;
    assert.equal(status, Status.OK);
    assertChanged(fromWcc, before);
    assert.ok(toWcc.after !== null);
    assert.deepEqual(succeeded(await client.lookup(directory, 'x.vmx')).handle, fresh.handle);
    failed(await client.lookup(directory, 'x.vmx~'), Status.NOENT);
    failed(await client.getattr(old.handle), Status.STALE);
    assert.equal((await attributesOf(fresh.handle)).fileid, fresh.fileid);

    assert.equal((await client.rename(directory, 'x.vmx', directory, 'x.vmx')).status, Status.OK);
    assert.equal((await client.rename(directory, 'missing', directory, 'y')).status, Status.NOENT);

    const disk = await newFile(suite(), directory, 'd-flat.vmdk');
    succeeded(await client.setattr(disk.handle, { sizeBytes: 2 ** 40 }));
    succeeded(await client.write(disk.handle, 2 ** 39, Buffer.from('block'), Stability.FILE_SYNC));
    assert.equal((await client.rename(directory, 'd-flat.vmdk', sub, 'renamed.vmdk')).status, Status.OK);
    assert.equal(succeeded(await client.read(disk.handle, 2 ** 39, 5)).data.toString(), 'block');
    assert.equal((await attributesOf(disk.handle)).fileid, disk.fileid);

    const target = made(await client.mkdir(directory, 'target')).handle;
    assert.equal((await client.rename(directory, 'sub', target, 'sub')).status, Status.OK);
    assert.deepEqual(succeeded(await client.lookup(sub, '..')).handle, target);
    assert.deepEqual(namesOf(await listAll(client, sub, 4096)), ['renamed.vmdk']);
    assert.equal((await client.rename(directory, 'target', sub, 'cycle')).status, Status.INVAL);
    assert.equal((await client.rename(directory, 'target', target, 'cycle')).status, Status.INVAL);
    made(await client.mkdir(directory, 'empty'));
    failed(await client.rename(directory, 'empty', directory, 'x.vmx'), Status.EXIST, Status.NOTDIR);
    failed(await client.rename(directory, 'x.vmx', directory, 'empty'), Status.EXIST, Status.ISDIR);
    failed(await client.rename(directory, 'empty', directory, 'target'), Status.EXIST, Status.NOTEMPTY);
    assert.equal((await client.rename(target, 'sub', directory, 'empty')).status, Status.OK);
    assert.deepEqual(succeeded(await client.lookup(directory, 'empty')).handle, sub);
  });

  test('esxi 26: what was removed is STALE; RMDIR of a full directory is NOTEMPTY, of a file NOTDIR, REMOVE of a directory ISDIR', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    const sub = made(await client.mkdir(directory, 'sub')).handle;
    const file = await newFile(suite(), sub, 'file');
    const before = await attributesOf(sub);
    failed(await client.rmdir(directory, 'sub'), Status.NOTEMPTY);
    failed(await client.remove(directory, 'sub'), Status.ISDIR);
    failed(await client.rmdir(sub, 'file'), Status.NOTDIR);
    assertChanged(succeeded(await client.remove(sub, 'file')).wcc, before);
    for (const result of [
      await client.getattr(file.handle),
      await client.read(file.handle, 0, 1),
      await client.write(file.handle, 0, Buffer.from('x'), Stability.FILE_SYNC),
      await client.commit(file.handle),
      await client.setattr(file.handle, { sizeBytes: 1 }),
      await client.access(file.handle, 1),
      await client.link(file.handle, directory, 'again'),
    ]) {
      failed(result, Status.STALE);
    }
    failed(await client.remove(sub, 'file'), Status.NOENT);
    succeeded(await client.rmdir(directory, 'sub'));
    failed(await client.rmdir(directory, 'sub'), Status.NOENT);
    failed(await client.create(sub, 'x', GUARDED), Status.STALE);
  });

  test('4.3/20: LINK gives a second name with the same handle; the last name takes the file along; MKNOD is NOTSUPP', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    const file = await newFile(suite(), directory, 'one');
    const { attributes, status } = await client.link(file.handle, directory, 'two');
    assert.equal(status, Status.OK);
    assert.equal(attributes?.nlink, 2);
    assert.deepEqual(succeeded(await client.lookup(directory, 'two')).handle, file.handle);
    assert.equal((await client.rename(directory, 'one', directory, 'two')).status, Status.OK, 'two names of one file: nothing happens');
    assert.equal((await attributesOf(file.handle)).nlink, 2);
    failed(await client.link(file.handle, directory, 'two'), Status.EXIST);
    failed(await client.link(directory, directory, 'three'), Status.ISDIR, Status.PERM, Status.INVAL);
    succeeded(await client.remove(directory, 'one'));
    assert.equal((await attributesOf(file.handle)).nlink, 1);
    succeeded(await client.remove(directory, 'two'));
    failed(await client.getattr(file.handle), Status.STALE);
    failed(await client.mknodFifo(directory, 'fifo'), Status.NOTSUPP);
    const regular = await client.callNfs(NfsProcedure.MKNOD, (w) => {
      w.opaque(directory);
      w.string('reg');
      w.uint32(FileType.REG);
    });
    assert.equal(regular.uint32(), Status.BADTYPE);
  });

  test('4.3/20: symbolic links keep their target bytes; READLINK of anything else is INVAL (4.3/9)', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    const target = Buffer.concat([Buffer.from('../ä '), Buffer.from([0xff])]);
    const { handle } = made(await client.symlink(directory, 'link', target));
    const attributes = await attributesOf(handle);
    assert.deepEqual([attributes.type, attributes.sizeBytes], [FileType.LNK, target.length]);
    assert.deepEqual(succeeded(await client.readlink(handle)).target, target);
    const file = await newFile(suite(), directory, 'file');
    failed(await client.readlink(file.handle), Status.INVAL);
    failed(await client.readlink(directory), Status.INVAL);
    failed(await client.symlink(directory, 'link', 'other'), Status.EXIST);
    succeeded(await client.remove(directory, 'link'));
  });
}
