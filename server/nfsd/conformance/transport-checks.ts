/** esxi.md 10, checks 1 to 12, 15; nfs-servers.md 4.3, lines 1, 3, 16 to 19, 21, 22, 24 to 26. */
import assert from 'node:assert/strict';
import net from 'node:net';
import { test } from 'node:test';

import { authSys, callUdp, encodeCall, RpcClient, RpcRejectedError } from '../../oncrpc/rpc-client.ts';
import { encodeCredential } from '../../oncrpc/rpc-credential.ts';
import { Stability, Status } from '../file-system.ts';
import { MOUNT_PROGRAM, MountStatus } from '../mount-program.ts';
import { NFS_PROGRAM } from '../nfs-wire.ts';
import { encodeBinding, encodeMapping, PORTMAP_PROGRAM, PortmapProcedure, RpcbindProcedure } from '../portmap-program.ts';
import { FsProperty } from '../procedures/fsstat.ts';
import { parseUniversalAddress } from '../universal-address.ts';
import { failed, GUARDED, made, newFile, succeeded, VMDK_BYTES_MAX } from './server-under-test.ts';
import type { SuiteOf } from './server-under-test.ts';

async function refusalOf(call: Promise<unknown>): Promise<RpcRejectedError['refusal']> {
  try {
    await call;
  } catch (error) {
    assert.ok(error instanceof RpcRejectedError, String(error));
    return error.refusal;
  }
  return assert.fail('the call was executed');
}

export function transportChecks(suite: SuiteOf): void {
  const getport = async (program: number, version: number, protocol = 6): Promise<number> => {
    const { server } = suite();
    assert.ok(server.portmap !== null);
    const rpc = await RpcClient.connect({ host: server.host, port: server.portmap.port });
    try {
      const encode = (w: Parameters<typeof encodeMapping>[0]): void => encodeMapping(w, { program, version, protocol, port: 0 });
      return (await rpc.call(PORTMAP_PROGRAM, 2, PortmapProcedure.GETPORT, encode)).uint32();
    } finally {
      await rpc.close();
    }
  };

  test('esxi 1: the port mapper gives ports of MOUNT and NFS over TCP, 0 for NLM, NSM and NFS_ACL, an address to GETADDR (4.3/25, 4.3/26)', async () => {
    const { server } = suite();
    if (server.portmap === null) return;
    assert.equal(await getport(MOUNT_PROGRAM, 3), server.mountPort);
    assert.equal(await getport(NFS_PROGRAM, 3), server.nfsPort);
    for (const program of [100_021, 100_024, 100_227]) assert.equal(await getport(program, 1), 0);
    const rpc = await RpcClient.connect({ host: server.host, port: server.portmap.port });
    try {
      await rpc.call(PORTMAP_PROGRAM, 2, PortmapProcedure.NULL, null);
      for (const version of [3, 4]) {
        const reply = await rpc.call(PORTMAP_PROGRAM, version, RpcbindProcedure.GETADDR, (w) =>
          encodeBinding(w, { program: NFS_PROGRAM, version: 3, netid: 'tcp', address: `${server.host}.0.111`, owner: '' }),
        );
        assert.deepEqual(parseUniversalAddress(reply.string(255)), { host: server.host, port: server.nfsPort });
      }
    } finally {
      await rpc.close();
    }
    if (server.portmap.udp) {
      const reply = await callUdp(
        PORTMAP_PROGRAM,
        2,
        PortmapProcedure.GETPORT,
        (w) => encodeMapping(w, { program: NFS_PROGRAM, version: 3, protocol: 6, port: 0 }),
        { host: server.host, port: server.portmap.port, timeoutMs: 10_000 },
      );
      assert.equal(reply.uint32(), server.nfsPort);
    }
  });

  test('esxi 2: NULL is accepted; wrong versions, programs and procedures get their errors and the socket stays open', async () => {
    const { client, root } = suite();
    await client.null();
    await client.mountRpc.call(MOUNT_PROGRAM, 3, 0, null);
    for (const version of [2, 4]) {
      assert.deepEqual(await refusalOf(client.rpc.call(NFS_PROGRAM, version, 0, null)), { reason: 'program-mismatch', low: 3, high: 3 });
    }
    assert.deepEqual(await refusalOf(client.rpc.call(999, 1, 0, null)), { reason: 'program-unavailable' });
    assert.deepEqual(await refusalOf(client.callNfs(22, null)), { reason: 'procedure-unavailable' });
    assert.deepEqual(await refusalOf(client.callNfs(1, null)), { reason: 'garbage-args' });
    succeeded(await client.getattr(root));
  });

  test('esxi 3: every spelling of a path mounts the same handle with AUTH_SYS; unknown, file and denied host are told apart (4.3/25)', async () => {
    const { client, root, server } = suite();
    const name = server.exportName;
    for (const path of [`/${name}`, name, `/${name}/`, `//${name}/.`]) {
      const mounted = succeeded(await client.mount(path));
      assert.ok(mounted.handle.equals(root), path);
      assert.ok(mounted.flavors.includes(1), 'AUTH_SYS');
    }
    const sub = made(await client.mkdir(root, 'mount-sub')).handle;
    const file = await newFile(suite(), sub, 'file');
    assert.ok(succeeded(await client.mount(`/${name}/mount-sub`)).handle.equals(sub));
    assert.equal((await client.mount(`/${name}/mount-sub/file`)).status, MountStatus.NOTDIR);
    assert.equal((await client.mount(`/${name}/mount-sub/file/x`)).status, MountStatus.NOTDIR);
    assert.equal((await client.mount(`/${name}/none`)).status, MountStatus.NOENT);
    assert.equal((await client.mount('/none')).status, MountStatus.NOENT);
    assert.notEqual((await client.mount(`/${name}/..`)).status, MountStatus.OK);
    assert.equal((await client.mount(`/${name}/${'x'.repeat(256)}`)).status, MountStatus.NAMETOOLONG);
    assert.equal((await client.mount(`/${name}/${'y/'.repeat(600)}`)).status, MountStatus.NAMETOOLONG);
    succeeded(await client.getattr(file.handle));
    succeeded(await client.remove(sub, 'file'));
    succeeded(await client.rmdir(root, 'mount-sub'));
    if (server.deniedAddress === null) return;
    const denied = await suite().connect({ localAddress: server.deniedAddress });
    try {
      assert.equal((await denied.mount(`/${name}`)).status, MountStatus.ACCES);
      failed(await denied.getattr(root), Status.ACCES);
      failed(await denied.create(root, 'x', GUARDED), Status.ACCES);
      await denied.null();
    } finally {
      await denied.close();
    }
  });

  test('esxi 4: UMNT and UMNTALL always succeed, and handles work on', async () => {
    const { client, root, server } = suite();
    const other = await suite().connect();
    try {
      await other.unmount(`/${server.exportName}`);
      for (const path of [`/${server.exportName}`, server.exportName, server.exportName, '/none', '']) await client.unmount(path);
      await client.unmountAll();
      await client.mountRpc.call(MOUNT_PROGRAM, 1, 3, (w) => w.string(server.exportName));
    } finally {
      await other.close();
    }
    succeeded(await client.getattr(root));
  });

  test('esxi 5: EXPORT lists the export, DUMP lists mounts', async () => {
    const { client, server } = suite();
    assert.ok((await client.exports()).some((entry) => entry.path === `/${server.exportName}`));
    await client.mount(server.exportName);
    assert.ok((await client.mounts()).some((entry) => entry.directory === `/${server.exportName}`));
    await client.unmount(`/${server.exportName}/`);
    assert.ok(!(await client.mounts()).some((entry) => entry.directory === `/${server.exportName}`));
  });

  test('esxi 6: handles have at most 56 bytes, at any depth, and are the same on another connection (4.3/1)', async () => {
    const { client, root } = suite();
    const other = await suite().connect();
    try {
      let directory = await suite().directory();
      assert.ok(root.length <= 56 && directory.length <= 56);
      for (let depth = 0; depth < 20; depth++) directory = made(await client.mkdir(directory, 'd'.repeat(200))).handle;
      const { handle } = await newFile(suite(), directory, 'f'.repeat(255));
      assert.ok(directory.length <= 56 && handle.length <= 56);
      const elsewhere = succeeded(await other.lookup(directory, 'f'.repeat(255)));
      assert.deepEqual(elsewhere.handle, handle);
    } finally {
      await other.close();
    }
  });

  test('esxi 8: FSINFO, FSSTAT and PATHCONF say what ESXi needs (4.3/16, 4.3/17, 4.3/18)', async () => {
    const { client, root } = suite();
    const { info } = succeeded(await client.fsinfo(root));
    assert.ok(info.readMaxBytes >= 65_536 && info.writeMaxBytes >= 65_536 && info.readPreferredBytes <= info.readMaxBytes);
    assert.ok(info.readPreferredBytes >= 65_536 && info.writePreferredBytes >= 65_536 && info.readdirPreferredBytes >= 4096);
    assert.ok(info.readMultipleBytes >= 512 && info.writeMultipleBytes >= 512);
    assert.ok(info.fileSizeMaxBytes >= VMDK_BYTES_MAX);
    const wanted = FsProperty.HOMOGENEOUS | FsProperty.CANSETTIME | FsProperty.LINK | FsProperty.SYMLINK;
    assert.equal(info.properties & wanted, wanted);
    const directory = await suite().directory();
    const { handle } = await newFile(suite(), directory, 'f');
    for (const object of [root, directory, handle]) {
      const { stat } = succeeded(await client.fsstat(object));
      assert.ok(stat.totalBytes >= stat.freeBytes && stat.freeBytes >= stat.availableBytes && stat.availableBytes > 0);
      assert.ok(stat.totalFiles >= stat.freeFiles && stat.freeFiles >= stat.availableFiles && stat.availableFiles > 0);
      assert.equal(stat.invariantSeconds, 0);
      const { pathConf } = succeeded(await client.pathconf(object));
      const { linkMax, ...rest } = pathConf;
      assert.ok(linkMax >= 1);
      assert.deepEqual(rest, { nameMaxBytes: 255, noTrunc: true, chownRestricted: true, caseInsensitive: false, casePreserving: true });
    }
  });

  test('esxi 9: fragments cut at every byte, records of many fragments, 64 calls in one segment: every call is answered (4.3/21, 4.3/22)', async () => {
    const { root, server } = suite();
    const credential = encodeCredential(authSys());
    const call = (xid: number): Buffer => encodeCall(xid, NFS_PROGRAM, 3, 1, credential, (w) => w.opaque(root), 256);
    const whole = call(1).subarray(4);
    const messages: Buffer[] = [];
    let xid = 0;
    for (let cut = 1; cut < whole.length; cut++) {
      const message = Buffer.from(whole);
      message.writeUInt32BE(++xid, 0);
      messages.push(fragments(message, [cut]));
    }
    const bytewise = Buffer.from(whole);
    bytewise.writeUInt32BE(++xid, 0);
    messages.push(
      fragments(
        bytewise,
        Array.from({ length: whole.length - 1 }, (_, i) => i + 1),
      ),
    );
    for (let i = 0; i < 64; i++) messages.push(call(++xid));
    assert.deepEqual(
      await xidsAnswered(server.host, server.nfsPort, Buffer.concat(messages), xid),
      new Set(Array.from({ length: xid }, (_, i) => i + 1)),
    );
  });

  test('esxi 10: eight connections work on one handle, and closing one in the middle of a READ leaves the others alone', async () => {
    const directory = await suite().directory();
    const { handle } = await newFile(suite(), directory, 'shared');
    const clients = await Promise.all(Array.from({ length: 8 }, () => suite().connect()));
    try {
      await Promise.all(
        clients.map(async (client, i) => succeeded(await client.write(handle, i * 65_536, Buffer.alloc(65_536, i + 1), Stability.FILE_SYNC))),
      );
      const lost = clients[0]!.read(handle, 0, 8 * 65_536).then(
        () => 'answered',
        () => 'lost',
      );
      await clients[0]!.close();
      await lost;
      for (let round = 0; round < 4; round++) {
        await Promise.all(
          clients.slice(1).map(async (client, i) => {
            const { data } = succeeded(await client.read(handle, i * 65_536, 65_536));
            assert.ok(data.equals(Buffer.alloc(65_536, i + 1)));
          }),
        );
      }
    } finally {
      await Promise.all(clients.map((client) => client.close()));
    }
  });

  test('esxi 11: AUTH_NONE and a credential of garbage are refused without a disconnect; uid 0 with 16 groups has root rights', async () => {
    const { client, root } = suite();
    const none = { flavor: 'none', uid: 65_534, gid: 65_534, gids: [], machineName: '', stamp: 0 } as const;
    const refusal = await refusalOf(client.callNfs(1, (w) => w.opaque(root), { credential: none }));
    assert.equal(refusal.reason, 'auth-error');
    const gids = Array.from({ length: 16 }, (_, i) => i + 100);
    const many = await suite().connect({ credential: authSys({ gids, machineName: 'H1' }) });
    try {
      const directory = made(await many.mkdir(root, 'sixteen-groups', { mode: 0o700, uid: 4711 })).handle;
      succeeded(await many.create(directory, 'x', GUARDED));
      succeeded(await many.remove(directory, 'x'));
      succeeded(await many.rmdir(root, 'sixteen-groups'));
      // AUTH_SYS whose machine name is longer than the credential.
      const garbage = Buffer.from('00000001000000080000000000ffffff', 'hex');
      const record = encodeCall(77, NFS_PROGRAM, 3, 1, garbage, (w) => w.opaque(root), 256);
      many.rpc.sendRaw(record);
      succeeded(await many.getattr(root));
    } finally {
      await many.close();
    }
  });

  test('esxi 12: READ and WRITE of 4 MiB in one call, above rtmax and wtmax, are no error (4.3/7)', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    const { handle } = await newFile(suite(), directory, 'big');
    const data = Buffer.alloc(4 * 1024 * 1024, 'vferry 4 MiB ');
    assert.equal(succeeded(await client.write(handle, 0, data, Stability.FILE_SYNC)).countBytes, data.length);
    succeeded(await client.write(handle, data.length, Buffer.from('tail'), Stability.FILE_SYNC));
    let offsetBytes = 0;
    while (offsetBytes < data.length) {
      const read = succeeded(await client.read(handle, offsetBytes, data.length - offsetBytes));
      assert.ok(read.data.length > 0 && !read.eof, 'a short READ is not the end of the file');
      assert.ok(read.data.equals(data.subarray(offsetBytes, offsetBytes + read.data.length)));
      offsetBytes += read.data.length;
    }
    const huge = succeeded(await client.read(handle, data.length, 0xffff_ffff));
    assert.equal(huge.data.toString(), 'tail');
    assert.ok(huge.eof);
  });

  test('esxi 15: a mounted directory that is gone answers STALE on a socket that stays open', async () => {
    const { client, root, server } = suite();
    succeeded(await client.mkdir(root, 'removed-export'));
    const { handle } = succeeded(await client.mount(`/${server.exportName}/removed-export`));
    succeeded(await client.rmdir(root, 'removed-export'));
    for (let i = 0; i < 3; i++) failed(await client.getattr(handle), Status.STALE);
    failed(await client.fsstat(handle), Status.STALE);
    failed(await client.lookup(handle, 'x'), Status.STALE);
    failed(await client.create(handle, 'x', GUARDED), Status.STALE);
    succeeded(await client.getattr(root));
  });

  test('4.3/3: a handle of the wrong length or form is BADHANDLE, a forged one is never honoured', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    const { handle } = await newFile(suite(), directory, 'f');
    for (const bad of [
      Buffer.alloc(0),
      Buffer.from('x'),
      Buffer.alloc(handle.length),
      Buffer.alloc(64, 0xff),
      handle.subarray(1),
      Buffer.concat([handle, Buffer.alloc(1)]),
    ]) {
      failed(await client.getattr(bad), Status.BADHANDLE);
    }
    for (let i = 0; i < handle.length; i++) {
      const forged = Buffer.from(handle);
      forged[i]! ^= 1;
      failed(await client.getattr(forged), Status.BADHANDLE, Status.STALE);
      failed(await client.write(forged, 0, Buffer.from('x'), Stability.FILE_SYNC), Status.BADHANDLE, Status.STALE);
    }
  });

  test('4.3/22: a thousand calls outstanding on one connection are all answered, each with its own reply', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    const files = await Promise.all(Array.from({ length: 10 }, (_, i) => newFile(suite(), directory, `f${i}`)));
    const replies = await Promise.all(Array.from({ length: 1000 }, (_, i) => client.getattr(files[i % 10]!.handle)));
    replies.forEach((reply, i) => assert.equal(succeeded(reply).attributes.fileid, files[i % 10]!.fileid));
  });
}

/** A message as a record cut into fragments at the given positions. */
function fragments(message: Buffer, cuts: readonly number[]): Buffer {
  const edges = [0, ...cuts, message.length];
  const parts: Buffer[] = [];
  for (let i = 1; i < edges.length; i++) {
    const piece = message.subarray(edges[i - 1], edges[i]);
    const mark = Buffer.alloc(4);
    mark.writeUInt32BE((piece.length | (i === edges.length - 1 ? 0x8000_0000 : 0)) >>> 0);
    parts.push(mark, piece);
  }
  return Buffer.concat(parts);
}

/** Sends bytes and collects the xids of `count` replies that were accepted. */
function xidsAnswered(host: string, port: number, bytes: Buffer, count: number): Promise<Set<number>> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, host, () => socket.write(bytes));
    const xids = new Set<number>();
    let received = Buffer.alloc(0);
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`closed after ${xids.size} of ${count} replies`)));
    socket.on('data', (chunk) => {
      received = Buffer.concat([received, chunk]);
      while (received.length >= 4) {
        const length = received.readUInt32BE(0) & 0x7fff_ffff;
        if (received.length < 4 + length) return;
        // REPLY, MSG_ACCEPTED, SUCCESS, NFS3_OK
        if (received.readUInt32BE(12) === 0 && received.readUInt32BE(24) === 0 && received.readUInt32BE(28) === 0) xids.add(received.readUInt32BE(4));
        received = received.subarray(4 + length);
        if (xids.size === count) {
          socket.removeAllListeners('close');
          socket.destroy();
          resolve(xids);
        }
      }
    });
  });
}
