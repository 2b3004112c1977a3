/** esxi.md 10, checks 16 to 22; nfs-servers.md 4.3, lines 2, 3, 10 to 14, 18, 19, 24. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { compareTimestamp } from '../../core/time.ts';
import { authSys } from '../../oncrpc/rpc-client.ts';
import type { Handle, Wcc } from '../file-system.ts';
import { FileType, Stability, Status } from '../file-system.ts';
import { encodeSetAttributes, NO_CHANGES } from '../nfs-wire.ts';
import { NfsProcedure } from '../procedure-table.ts';
import {
  assertChanged,
  failed,
  GUARDED,
  listAll,
  made,
  MODE_0600,
  namesOf,
  newFile,
  succeeded,
  UNCHECKED,
  VMDK_BYTES_MAX,
} from './server-under-test.ts';
import type { SuiteOf } from './server-under-test.ts';

export function namespaceChecks(suite: SuiteOf): void {
  const attributesOf = async (object: Handle) => succeeded(await suite().client.getattr(object)).attributes;

  test('esxi 16: LOOKUP of . and .. gives handle and attributes, at the root too; missing is NOENT with the attributes of the directory', async () => {
    const { client, root } = suite();
    const rootAttributes = await attributesOf(root);
    for (const name of ['.', '..']) {
      const found = succeeded(await client.lookup(root, name));
      assert.deepEqual(found.handle, root);
      assert.equal(found.attributes?.fileid, rootAttributes.fileid);
    }
    const directory = await suite().directory();
    const sub = made(await client.mkdir(directory, 'sub')).handle;
    assert.deepEqual(succeeded(await client.lookup(sub, '..')).handle, directory);
    assert.deepEqual(succeeded(await client.lookup(sub, '.')).handle, sub);
    const missing = await client.lookup(sub, 'missing');
    failed(missing, Status.NOENT);
    assert.ok('attributes' in missing && missing.attributes?.type === FileType.DIR);
    const { handle } = await newFile(suite(), directory, 'file');
    failed(await client.lookup(handle, 'x'), Status.NOTDIR);
    failed(await client.lookup(handle, '.'), Status.NOTDIR);
  });

  test('RFC 1813 §3.2: empty names and names with a slash or NUL are ACCES, longer than 255 bytes NAMETOOLONG, everywhere (4.3/18)', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    const { handle } = await newFile(suite(), directory, 'file');
    const longest = 'n'.repeat(255);
    const bad: [string, number][] = [
      ['', Status.ACCES],
      ['a/b', Status.ACCES],
      ['a\0b', Status.ACCES],
      [`${longest}n`, Status.NAMETOOLONG],
      ['é'.repeat(128), Status.NAMETOOLONG],
    ];
    for (const [name, status] of bad) {
      const results = await Promise.all([
        client.lookup(directory, name),
        client.create(directory, name, GUARDED),
        client.mkdir(directory, name),
        client.symlink(directory, name, 'target'),
        client.mknodFifo(directory, name),
        client.remove(directory, name),
        client.rmdir(directory, name),
        client.rename(directory, name, directory, 'x'),
        client.rename(directory, 'file', directory, name),
        client.link(handle, directory, name),
      ]);
      for (const result of results) assert.equal(result.status, status, JSON.stringify(name));
      const wcc = results[1] as { wcc: Wcc };
      assert.ok(wcc.wcc.after !== null, 'errors carry the attributes of the directory');
    }
    for (const name of ['.', '..']) {
      failed(await client.create(directory, name, UNCHECKED), Status.EXIST);
      failed(await client.mkdir(directory, name), Status.EXIST);
      failed(await client.symlink(directory, name, 't'), Status.EXIST);
      failed(await client.link(handle, directory, name), Status.EXIST);
      failed(await client.remove(directory, name), Status.INVAL);
      failed(await client.rmdir(directory, name), name === '.' ? Status.INVAL : Status.EXIST);
      failed(await client.rename(directory, name, directory, 'x'), Status.INVAL);
      failed(await client.rename(directory, 'file', directory, name), Status.INVAL);
    }
    made(await client.create(directory, longest, GUARDED));
    assert.deepEqual(namesOf(await listAll(client, directory, 65_536)).sort(), ['file', longest]);
  });

  test('esxi 17: fileid is the same from CREATE, LOOKUP, GETATTR, READDIR and READDIRPLUS, not 0, and kept by RENAME and WRITE (4.3/2)', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    const file = await newFile(suite(), directory, 'a.vmx~');
    assert.notEqual(file.fileid, 0);
    succeeded(await client.write(file.handle, 0, Buffer.from('x'), Stability.FILE_SYNC));
    assert.equal((await client.rename(directory, 'a.vmx~', directory, 'a.vmx')).status, Status.OK);
    const found = succeeded(await client.lookup(directory, 'a.vmx'));
    assert.deepEqual(found.handle, file.handle);
    assert.equal(found.attributes?.fileid, file.fileid);
    assert.equal((await attributesOf(file.handle)).fileid, file.fileid);
    for (const plus of [false, true]) {
      const entry = (await listAll(client, directory, 65_536, plus)).find((e) => e.name.toString() === 'a.vmx');
      assert.equal(entry?.fileid, file.fileid);
      if (plus) {
        assert.equal(entry.attributes?.fileid, file.fileid);
        assert.deepEqual(entry.handle, file.handle);
      }
    }
    const little = Buffer.alloc(8);
    little.writeBigUInt64LE(BigInt(file.fileid));
    const lock = `.lck-${little.toString('hex')}`;
    made(await client.create(directory, lock, GUARDED));
    succeeded(await client.lookup(directory, lock));
    succeeded(await client.remove(directory, 'a.vmx'));
    const next = await newFile(suite(), directory, 'a.vmx');
    assert.notEqual(next.fileid, file.fileid);
    failed(await client.getattr(file.handle), Status.STALE);
  });

  test('esxi 18: GUARDED refuses what exists, UNCHECKED changes nothing but the size asked for, EXCLUSIVE repeats by verifier (4.3/10)', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    const file = await newFile(suite(), directory, 'file');
    assert.equal((await attributesOf(file.handle)).mode & 0o7777, 0o600);
    succeeded(await client.write(file.handle, 0, Buffer.from('contents'), Stability.FILE_SYNC));
    failed(await client.create(directory, 'file', GUARDED), Status.EXIST);
    const kept = made(await client.create(directory, 'file', { mode: 'unchecked', attributes: NO_CHANGES }));
    assert.deepEqual(kept, file);
    assert.equal(succeeded(await client.read(file.handle, 0, 100)).data.toString(), 'contents');
    const truncated = succeeded(await client.create(directory, 'file', { mode: 'unchecked', attributes: { ...NO_CHANGES, sizeBytes: 0 } }));
    assert.deepEqual(truncated.handle, file.handle);
    assert.equal(truncated.attributes?.sizeBytes, 0);
    assert.equal((await attributesOf(file.handle)).mode & 0o7777, 0o600);

    const verifier = Buffer.from('01ff02fe03fd04fc', 'hex');
    const exclusive = made(await client.create(directory, 'exclusive', { mode: 'exclusive', verifier }));
    assert.deepEqual(made(await client.create(directory, 'exclusive', { mode: 'exclusive', verifier })), exclusive);
    failed(await client.create(directory, 'exclusive', { mode: 'exclusive', verifier: Buffer.alloc(8, 7) }), Status.EXIST);
    failed(await client.create(directory, 'file', { mode: 'exclusive', verifier: Buffer.alloc(8) }), Status.EXIST);
    const { mtime, ctime } = await attributesOf(exclusive.handle);
    assert.ok(mtime.seconds > 1_577_836_800 && ctime.seconds > 1_577_836_800, 'times are not where the verifier is kept: later than 2020');
    succeeded(await client.setattr(exclusive.handle, { mode: 0o640, mtime: 'server' }));
    assert.equal((await attributesOf(exclusive.handle)).mode & 0o7777, 0o640);

    made(await client.mkdir(directory, 'sub'));
    for (const how of [GUARDED, UNCHECKED, { mode: 'exclusive', verifier } as const])
      failed(await client.create(directory, 'sub', how), Status.EXIST);
    failed(await client.mkdir(directory, 'file'), Status.EXIST);
    failed(await client.mkdir(directory, 'sub'), Status.EXIST);
    failed(await client.create(file.handle, 'x', GUARDED), Status.NOTDIR);
  });

  test('4.3/10: of many GUARDED creates of one name at once exactly one wins', async () => {
    const directory = await suite().directory();
    const clients = await Promise.all(Array.from({ length: 4 }, () => suite().connect()));
    try {
      for (let round = 0; round < 10; round++) {
        const results = await Promise.all(
          Array.from({ length: 32 }, (_, i) =>
            clients[i % 4]!.create(directory, `.lck-${round}`, { mode: 'guarded', attributes: { ...MODE_0600, uid: i } }),
          ),
        );
        assert.equal(results.filter((result) => result.status === Status.OK).length, 1);
        assert.equal(results.filter((result) => result.status === Status.EXIST).length, 31);
        const winner = results.find((result) => result.status === Status.OK);
        assert.deepEqual(succeeded(await clients[0]!.lookup(directory, `.lck-${round}`)).handle, made(winner!).handle);
      }
    } finally {
      await Promise.all(clients.map((client) => client.close()));
    }
  });

  test('esxi 19: a 62 TB disk is made by CREATE and SETATTR, takes no space, and reads as zeros up to its exact end (4.3/12, 4.3/27)', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    const { handle } = await newFile(suite(), directory, 'x-flat.vmdk');
    const { wcc } = succeeded(await client.setattr(handle, { sizeBytes: VMDK_BYTES_MAX }));
    assert.equal(wcc.after?.sizeBytes, VMDK_BYTES_MAX);
    const attributes = await attributesOf(handle);
    assert.equal(attributes.sizeBytes, VMDK_BYTES_MAX);
    assert.ok(attributes.usedBytes < 1024 * 1024);
    const end = succeeded(await client.read(handle, VMDK_BYTES_MAX - 4096, 4096));
    assert.ok(end.eof && end.data.equals(Buffer.alloc(4096)));
    succeeded(await client.write(handle, VMDK_BYTES_MAX - 512, Buffer.alloc(512, 7), Stability.FILE_SYNC));
    const last = succeeded(await client.read(handle, VMDK_BYTES_MAX - 513, 4096));
    assert.ok(last.eof && last.data.equals(Buffer.concat([Buffer.alloc(1), Buffer.alloc(512, 7)])));
    assert.equal((await attributesOf(handle)).sizeBytes, VMDK_BYTES_MAX);
    const entry = (await listAll(client, directory, 65_536)).find((e) => e.name.toString() === 'x-flat.vmdk');
    assert.equal(entry?.attributes?.sizeBytes ?? VMDK_BYTES_MAX, VMDK_BYTES_MAX);
    for (const sizeBytes of [2 ** 53, 2 ** 60]) {
      failed(await client.setattr(handle, { sizeBytes }), Status.FBIG);
      failed(await client.create(directory, `big-${sizeBytes}`, { mode: 'guarded', attributes: { ...NO_CHANGES, sizeBytes } }), Status.FBIG);
    }
    const tooBig = await client.callNfs(NfsProcedure.SETATTR, (w) => {
      w.opaque(handle);
      for (let i = 0; i < 3; i++) w.bool(false);
      w.bool(true);
      w.uint64(2n ** 64n - 1n);
      for (let i = 0; i < 3; i++) w.uint32(0);
    });
    assert.equal(tooBig.uint32(), Status.FBIG);
    assert.equal((await attributesOf(handle)).sizeBytes, VMDK_BYTES_MAX);
  });

  test('esxi 20: SETATTR sets sizes exactly, regrown parts are zeros, a wrong guard is NOT_SYNC, client times come back exactly (4.3/12, 4.3/13)', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    const { handle } = await newFile(suite(), directory, 'file');
    succeeded(await client.write(handle, 0, Buffer.alloc(10_000, 1), Stability.FILE_SYNC));
    const before = await attributesOf(handle);
    const shrunk = succeeded(await client.setattr(handle, { sizeBytes: 5001 }, before.ctime));
    assertChanged(shrunk.wcc, before);
    assert.equal(shrunk.wcc.after?.sizeBytes, 5001);
    failed(await client.setattr(handle, { sizeBytes: 1 }, before.ctime), Status.NOT_SYNC);
    failed(await client.setattr(handle, { mode: 0 }, { seconds: 1, nanoseconds: 1 }), Status.NOT_SYNC);
    assert.deepEqual(await attributesOf(handle), shrunk.wcc.after, 'a wrong guard changes nothing');
    succeeded(await client.setattr(handle, { sizeBytes: 9000 }));
    const { data, eof } = succeeded(await client.read(handle, 0, 10_000));
    assert.ok(eof && data.equals(Buffer.concat([Buffer.alloc(5001, 1), Buffer.alloc(3999)])));

    const atime = { seconds: 1_000_000_000, nanoseconds: 123_456_789 };
    const mtime = { seconds: 4_000_000_000, nanoseconds: 999_999_999 };
    const timed = succeeded(await client.setattr(handle, { atime, mtime }));
    assert.deepEqual([timed.wcc.after?.atime, timed.wcc.after?.mtime], [atime, mtime]);
    const after = await attributesOf(handle);
    assert.deepEqual([after.atime, after.mtime], [atime, mtime]);
    succeeded(await client.setattr(handle, { mtime: 'server', atime: 'server' }));
    const served = await attributesOf(handle);
    assert.ok(served.mtime.seconds < 4_000_000_000 && served.mtime.seconds > 1_577_836_800);
    failed(await client.setattr(handle, { mtime: { seconds: 1, nanoseconds: 1_000_000_000 } }), Status.INVAL);
    succeeded(await client.setattr(handle, { mode: 0o4755, uid: 1000, gid: 1001 }));
    const owned = await attributesOf(handle);
    assert.deepEqual([owned.mode & 0o7777, owned.uid, owned.gid], [0o4755, 1000, 1001]);
    assert.equal(owned.sizeBytes, 9000);
    failed(await client.setattr(directory, { sizeBytes: 0 }), Status.INVAL, Status.ISDIR);
  });

  test('esxi 21: ACCESS grants root everything, and never a bit that was not asked for (4.3/19)', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    const { handle } = await newFile(suite(), directory, 'file', { mode: 'guarded', attributes: { ...NO_CHANGES, mode: 0 } });
    for (const object of [directory, handle]) {
      for (const mask of [0x3f, 0x01, 0x20, 0]) assert.equal(succeeded(await client.access(object, mask)).granted, mask);
    }
    assert.equal(succeeded(await client.access(handle, 0xffff_ffff)).granted & ~0x3f, 0);
    const stranger = await suite().connect({ credential: authSys({ uid: 4711, gid: 4711 }) });
    try {
      assert.equal(succeeded(await stranger.access(handle, 0x3f)).granted, 0);
      const { attributes } = succeeded(await stranger.access(directory, 0x3f));
      assert.equal(attributes?.type, FileType.DIR);
    } finally {
      await stranger.close();
    }
  });

  test('esxi 22: names are bytes, listed as they were given, and case matters (4.3/18)', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    const names: (string | Buffer)[] = [
      '.lck-0102030405060708',
      '.vSphere-HA',
      '6a de 0e 50 80 32 76 68-e0 72',
      'x.vmx~',
      'Ünïcødé-日本',
      'A',
      'a',
      '#1',
      '...',
      ' ',
      Buffer.from([0xff, 0xfe, 0x01, 0x7f]),
      Buffer.from('e9', 'hex'),
    ];
    for (const name of names) made(await client.create(directory, name, GUARDED));
    const expected = names.map((name) => Buffer.from(name).toString('latin1')).sort();
    for (const plus of [true, false]) assert.deepEqual(namesOf(await listAll(client, directory, 4096, plus)).sort(), expected);
    for (const name of names) succeeded(await client.lookup(directory, name));
    failed(await client.lookup(directory, 'ünïcødé-日本'), Status.NOENT);
    for (const name of names) succeeded(await client.remove(directory, name));
    assert.deepEqual(namesOf(await listAll(client, directory, 4096)), []);
  });

  test('nlink of directories counts their subdirectories', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    assert.equal((await attributesOf(directory)).nlink, 2);
    made(await client.mkdir(directory, 'a'));
    assert.equal((await attributesOf(directory)).nlink, 3);
    succeeded(await client.rmdir(directory, 'a'));
    assert.equal((await attributesOf(directory)).nlink, 2);
  });

  test('4.3/13, 4.3/14: wcc_data of every change is from the same moment, and times only move forward', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    let before = await attributesOf(directory);
    const step = async (wcc: Wcc): Promise<void> => {
      assertChanged(wcc, before);
      before = await attributesOf(directory);
      assert.deepEqual(wcc.after, before);
    };
    await step(succeeded(await client.create(directory, 'a', GUARDED)).wcc);
    await step(succeeded(await client.mkdir(directory, 'b')).wcc);
    await step(succeeded(await client.symlink(directory, 'c', 't')).wcc);
    const { handle } = succeeded(await client.lookup(directory, 'a'));
    await step((await client.link(handle, directory, 'd')).directoryWcc);
    await step((await client.rename(directory, 'd', directory, 'e')).fromWcc);
    await step(succeeded(await client.remove(directory, 'e')).wcc);
    await step(succeeded(await client.rmdir(directory, 'b')).wcc);
    await step(succeeded(await client.setattr(directory, { mode: 0o700 })).wcc);
    let file = await attributesOf(handle);
    for (let i = 0; i < 20; i++) {
      const { wcc } = succeeded(await client.write(handle, i, Buffer.from('x'), Stability.FILE_SYNC));
      assertChanged(wcc, file);
      file = await attributesOf(handle);
      assert.ok(wcc.after !== null && compareTimestamp(file.mtime, wcc.after.mtime) >= 0);
    }
  });

  test('4.3/24: a call sent again, also on another connection, gets its first answer', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    const other = await suite().connect();
    let xid = 0x4000_0000 + (process.pid << 8);
    try {
      const twice = async <T>(call: (on: typeof client, xid: number) => Promise<T>): Promise<T> => {
        xid += 1;
        const first = await call(client, xid);
        assert.deepEqual(await call(client, xid), first);
        assert.deepEqual(await call(other, xid), first);
        return first;
      };
      const { handle } = made(await twice((on, x) => on.create(directory, 'file', GUARDED, { xid: x })));
      succeeded(await twice((on, x) => on.mkdir(directory, 'sub', {}, { xid: x })));
      assert.equal((await twice((on, x) => on.link(handle, directory, 'link', { xid: x }))).status, Status.OK);
      assert.equal((await twice((on, x) => on.rename(directory, 'link', directory, 'renamed', { xid: x }))).status, Status.OK);
      const { ctime } = await attributesOf(handle);
      succeeded(await twice((on, x) => on.setattr(handle, { mode: 0o640 }, ctime, { xid: x })));
      succeeded(await twice((on, x) => on.remove(directory, 'renamed', { xid: x })));
      succeeded(await twice((on, x) => on.rmdir(directory, 'sub', { xid: x })));
      // The same xid with another credential is another call.
      xid += 1;
      succeeded(await client.remove(directory, 'file', { xid }));
      failed(await other.remove(directory, 'file', { xid, credential: authSys({ machineName: 'H2' }) }), Status.NOENT);
    } finally {
      await other.close();
    }
  });

  test('changes by callers without the right to make them are refused', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    const { handle } = await newFile(suite(), directory, 'file');
    const stranger = await suite().connect({ credential: authSys({ uid: 4711, gid: 4711 }) });
    try {
      failed(await stranger.create(directory, 'x', GUARDED), Status.ACCES);
      failed(await stranger.remove(directory, 'file'), Status.ACCES);
      failed(await stranger.write(handle, 0, Buffer.from('x'), Stability.FILE_SYNC), Status.ACCES);
      failed(await stranger.read(handle, 0, 1), Status.ACCES);
      failed(await stranger.setattr(handle, { mode: 0o777 }), Status.PERM, Status.ACCES);
      failed(await stranger.setattr(handle, { uid: 4711 }), Status.PERM, Status.ACCES);
    } finally {
      await stranger.close();
    }
    succeeded(await client.lookup(directory, 'file'));
  });

  test('a sattr3 with an unknown time_how is GARBAGE_ARGS, the next call is served', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    const garbage = client.callNfs(NfsProcedure.MKDIR, (w) => {
      w.opaque(directory);
      w.string('x');
      encodeSetAttributes(w, NO_CHANGES);
      w.rewind(w.position - 4);
      w.uint32(3);
    });
    await assert.rejects(garbage, { name: 'RpcRejectedError' });
    failed(await client.lookup(directory, 'x'), Status.NOENT);
  });
}
