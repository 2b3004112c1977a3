/** The checks of esxi.md 10 that cross from router A to router B (marked with two arrows there) and break nothing. What one router must do for itself: conformance.test.ts. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { compareTimestamp } from '../../server/core/time.ts';
import { lockContents, pattern } from '../../server/nfsd/conformance/contents.ts';
import { failed, GUARDED, listAll, made, namesOf, succeeded, VMDK_BYTES_MAX } from '../../server/nfsd/conformance/server-under-test.ts';
import type { Handle } from '../../server/nfsd/file-system.ts';
import { Stability, Status } from '../../server/nfsd/file-system.ts';
import type { NfsClient } from '../../server/nfsd/nfs-client.ts';
import { connectStore } from '../datastore-client.ts';
import { RegisterLoad } from '../register-load.ts';
import { scratchDirectory } from '../scratch.ts';
import { Cluster, thresholds } from './cluster.ts';
import { lockRace } from './lock-race.ts';
import { lockName, Timings, type TwoHosts, twoHosts } from './two-hosts.ts';

const MIB = 1024 * 1024;

describe('two routers of one datastore', () => {
  const stack = new AsyncDisposableStack();
  let cluster: Cluster;
  let hosts: TwoHosts;

  before(async () => {
    const scratch = stack.use(await scratchDirectory('esxi-shared'));
    cluster = stack.use(await Cluster.start({ directory: scratch.path, cluster: thresholds(0) }));
    hosts = stack.use(await twoHosts(cluster));
  });
  after(async () => {
    await stack.disposeAsync();
  });

  const newFile = async (directory: Handle, name: string, client = hosts.h1): Promise<{ handle: Handle; fileid: number }> => {
    const { handle, fileid } = made(await client.create(directory, name, GUARDED));
    return { handle: Buffer.from(handle), fileid };
  };

  for (const name of ['small.vmx', 'large.vmsn', 'disk-flat.vmdk']) {
    test(`esxi 6 (${name}): a handle of A works in every procedure of B, with the same results`, async () => {
      const { h1, h2, root } = hosts;
      const directory = await hosts.directory();
      const { handle, fileid } = await newFile(directory, name);
      assert.ok(handle.length <= 56);
      const bytes = pattern(name === 'small.vmx' ? 139 : 300_000, 5);
      succeeded(await h1.write(handle, 0, bytes, Stability.FILE_SYNC));
      const onA = succeeded(await h1.getattr(handle)).attributes;
      assert.deepEqual(succeeded(await h2.getattr(handle)).attributes, onA);
      assert.deepEqual(succeeded(await h2.lookup(directory, name)).handle, handle);
      assert.equal(succeeded(await h2.access(handle, 0x3f)).granted, succeeded(await h1.access(handle, 0x3f)).granted);
      const read = succeeded(await h2.read(handle, 0, 400_000));
      assert.ok(read.data.equals(bytes) && read.eof);
      const written = succeeded(await h2.write(handle, 50, Buffer.from('through B'), Stability.FILE_SYNC));
      assert.deepEqual(written.verifier, succeeded(await h1.commit(handle)).verifier);
      assert.deepEqual(succeeded(await h2.commit(handle)).verifier, written.verifier);
      assert.equal(succeeded(await h1.read(handle, 50, 9)).data.toString(), 'through B');
      succeeded(await h2.setattr(handle, { sizeBytes: 59, mode: 0o640, mtime: { seconds: 1_600_000_000, nanoseconds: 7 } }));
      const after = succeeded(await h1.getattr(handle)).attributes;
      assert.deepEqual([after.sizeBytes, after.mode & 0o777, after.fileid], [59, 0o640, fileid]);
      assert.deepEqual(after.mtime, { seconds: 1_600_000_000, nanoseconds: 7 });
      assert.deepEqual(succeeded(await h2.getattr(handle)).attributes, after);
      for (const object of [root, directory]) {
        const [fromA, fromB] = [succeeded(await h1.fsinfo(object)), succeeded(await h2.fsinfo(object))];
        assert.deepEqual({ ...fromB, attributes: null }, { ...fromA, attributes: null });
        assert.deepEqual(succeeded(await h2.pathconf(object)).pathConf, succeeded(await h1.pathconf(object)).pathConf);
        assert.deepEqual(succeeded(await h2.getattr(object)).attributes, succeeded(await h1.getattr(object)).attributes);
      }
      assert.equal(succeeded(await h2.fsstat(root)).status, Status.OK);
    });
  }

  test('esxi 17: fileids given out by both at once are unique and the same everywhere, and survive RENAME through the other router', async () => {
    const { h1, h2 } = hosts;
    const directory = await hosts.directory();
    const given = new Map<string, number>();
    const create = async (client: NfsClient, prefix: string): Promise<void> => {
      for (let index = 0; index < 400; index += 50) {
        const names = Array.from({ length: 50 }, (_, i) => `${prefix}-${index + i}`);
        const all = await Promise.all(names.map((name) => client.create(directory, name, GUARDED)));
        for (const [i, name] of names.entries()) given.set(name, made(all[i]!).fileid);
      }
    };
    await Promise.all([create(h1, 'a'), create(h2, 'b')]);
    assert.equal(new Set(given.values()).size, 800);
    for (const client of [h1, h2]) {
      for (const entry of await listAll(client, directory, 65_536)) {
        const name = entry.name.toString();
        if (given.has(name)) assert.equal(entry.fileid, given.get(name), name);
      }
    }
    assert.equal((await h2.rename(directory, 'a-0', directory, 'renamed')).status, Status.OK);
    assert.equal(succeeded(await h1.lookup(directory, 'renamed')).attributes?.fileid, given.get('a-0'));
    const fileid = given.get('a-0') ?? 0;
    assert.equal(Buffer.from(lockName(fileid).slice(5), 'hex').readBigUInt64LE(), BigInt(fileid));
  });

  test('esxi 19: the size of a 62 TB disk, set through A, is seen through B at once, and its end reads as zeros there', async () => {
    const { h1, h2 } = hosts;
    const directory = await hosts.directory();
    for (const [one, other] of [
      [h1, h2],
      [h2, h1],
    ] as const) {
      const { handle } = await newFile(directory, `x-${one === h1 ? 'a' : 'b'}-flat.vmdk`, one);
      succeeded(await one.setattr(handle, { sizeBytes: VMDK_BYTES_MAX }));
      const { attributes } = succeeded(await other.getattr(handle));
      assert.equal(attributes.sizeBytes, VMDK_BYTES_MAX);
      assert.ok(attributes.usedBytes < MIB);
      const read = succeeded(await other.read(handle, VMDK_BYTES_MAX - 4096, 8192));
      assert.ok(read.eof && read.data.equals(Buffer.alloc(4096)));
    }
  });

  test('esxi 20: sizes, guards and times set through B hold at A, which serves the object', async () => {
    const { h1, h2 } = hosts;
    const directory = await hosts.directory();
    const { handle } = await newFile(directory, 'x-flat.vmdk');
    succeeded(await h1.write(handle, 0, Buffer.alloc(20_000, 0xaa), Stability.FILE_SYNC));
    succeeded(await h2.setattr(handle, { sizeBytes: 5000 }));
    succeeded(await h2.setattr(handle, { sizeBytes: 9000 }));
    assert.ok(succeeded(await h1.read(handle, 4096, 8192)).data.equals(Buffer.concat([Buffer.alloc(904, 0xaa), Buffer.alloc(4000)])));
    const { ctime } = succeeded(await h1.getattr(handle)).attributes;
    failed(await h2.setattr(handle, { sizeBytes: 1 }, { seconds: ctime.seconds - 1, nanoseconds: 0 }), Status.NOT_SYNC);
    succeeded(await h2.setattr(handle, { sizeBytes: 1 }, ctime));
    const { attributes } = succeeded(await h1.getattr(handle));
    assert.equal(attributes.sizeBytes, 1);
    assert.ok(compareTimestamp(attributes.ctime, ctime) > 0);
  });

  test('esxi 23: a walk that hops between A and B with every page gives each name once', async () => {
    const { h1, h2 } = hosts;
    const directory = await hosts.directory();
    for (let index = 0; index < 1000; index += 100) {
      await Promise.all(Array.from({ length: 100 }, (_, i) => h1.create(directory, `f-${index + i}`, GUARDED)));
    }
    const names: string[] = [];
    let cookie = 0n;
    let verifier: Uint8Array = Buffer.alloc(8);
    for (let page = 0; ; page += 1) {
      const client = page % 2 === 0 ? h1 : h2;
      const { entries, eof, cookieVerifier } = succeeded(await client.readdirplus(directory, cookie, verifier, 4096, 4096));
      names.push(...namesOf(entries));
      if (eof) {
        assert.ok(page > 10);
        break;
      }
      cookie = entries.at(-1)!.cookie;
      verifier = Buffer.from(cookieVerifier);
    }
    assert.equal(names.length, 1000);
    assert.equal(new Set(names).size, 1000);
  });

  test('esxi 24: a walk through B neither skips nor repeats names that nobody touches while A creates and removes others', async () => {
    const { h1, h2 } = hosts;
    const directory = await hosts.directory();
    await Promise.all(Array.from({ length: 200 }, (_, i) => h1.create(directory, `stay-${i}`, GUARDED)));
    let walking = true;
    const churn = (async () => {
      for (let i = 0; walking; i += 1) {
        succeeded(await h1.create(directory, `go-${i}`, GUARDED));
        succeeded(await h1.remove(directory, `go-${i}`));
      }
    })();
    for (let round = 0; round < 3; round += 1) {
      const stayed = namesOf(await listAll(h2, directory, 4096)).filter((name) => name.startsWith('stay-'));
      assert.equal(stayed.length, 200);
      assert.equal(new Set(stayed).size, 200);
    }
    walking = false;
    await churn;
  });

  test('esxi 25: RENAME over through B of what A serves: readers at A see old or new, never nothing, and then the old is STALE', async () => {
    const { h1, h2 } = hosts;
    const directory = await hosts.directory();
    let old = await newFile(directory, 'x.vmx');
    for (let round = 0; round < 20; round += 1) {
      // Both sizes: in the registry, and served by A.
      const bytes = pattern(round % 2 === 0 ? 139 : 20_000, round);
      const fresh = await newFile(directory, 'x.vmx~');
      succeeded(await h1.write(fresh.handle, 0, bytes, Stability.FILE_SYNC));
      const lookups = Array.from({ length: 8 }, () => h1.lookup(directory, 'x.vmx'));
      const renamed = h2.rename(directory, 'x.vmx~', directory, 'x.vmx');
      lookups.push(...Array.from({ length: 8 }, () => h1.lookup(directory, 'x.vmx')));
      for (const lookup of await Promise.all(lookups)) {
        const { handle } = succeeded(lookup);
        assert.ok(Buffer.from(handle).equals(old.handle) || Buffer.from(handle).equals(fresh.handle));
      }
      assert.equal((await renamed).status, Status.OK);
      failed(await h1.read(old.handle, 0, 10), Status.STALE);
      failed(await h1.getattr(old.handle), Status.STALE);
      failed(await h2.write(old.handle, 0, Buffer.from('x'), Stability.FILE_SYNC), Status.STALE);
      assert.deepEqual(succeeded(await h1.lookup(directory, 'x.vmx')).handle, fresh.handle);
      assert.ok(succeeded(await h2.read(fresh.handle, 0, 30_000)).data.equals(bytes));
      old = fresh;
    }
  });

  for (const name of ['x-flat.vmdk', 'x.vmsn', 'x.vmx']) {
    test(`esxi 26 (${name}): REMOVE through B of what A serves under I/O: from its reply on A answers STALE`, async () => {
      const { h1, h2 } = hosts;
      const directory = await hosts.directory();
      const bytes = pattern(name === 'x.vmx' ? 100 : 65_536, 1);
      for (let round = 0; round < 10; round += 1) {
        const { handle } = await newFile(directory, name);
        succeeded(await h1.write(handle, 0, bytes, Stability.FILE_SYNC));
        let removed = false;
        const io = Array.from({ length: 4 }, async (_, lane) => {
          for (;;) {
            const late = removed;
            const result =
              lane % 2 === 0 ? await h1.write(handle, 0, bytes.subarray(0, 100), Stability.FILE_SYNC) : await h1.read(handle, 0, bytes.length);
            if (late) failed(result, Status.STALE);
            if (result.status === Status.STALE) return;
            assert.equal(result.status, Status.OK);
          }
        });
        succeeded(await h2.remove(directory, name));
        removed = true;
        failed(await h1.getattr(handle), Status.STALE);
        await Promise.all(io);
        failed(await h1.lookup(directory, name), Status.NOENT);
      }
    });
  }

  test('esxi 27: a file of 139 bytes ends where it ends, through B too', async () => {
    const { h1, h2 } = hosts;
    const directory = await hosts.directory();
    for (const name of ['x.vmdk', 'x-flat.vmdk']) {
      const { handle } = await newFile(directory, name);
      succeeded(await h1.write(handle, 0, pattern(139, 1), Stability.FILE_SYNC));
      for (const [offset, count, length, eof] of [
        [0, 512, 139, true],
        [139, 512, 0, true],
        [0, 139, 139, true],
        [0, 138, 138, false],
        [4096, 512, 0, true],
      ] as const) {
        const read = succeeded(await h2.read(handle, offset, count));
        assert.deepEqual([read.data.length, read.eof], [length, eof], `${name}: READ(${offset}, ${count})`);
      }
    }
  });

  test('esxi 29: UNSTABLE writes through A and B and a COMMIT through either share one verifier', async () => {
    const { h1, h2 } = hosts;
    const directory = await hosts.directory();
    for (const name of ['y.vmsn', 'y-flat.vmdk']) {
      const { handle } = await newFile(directory, name);
      const verifiers = new Set<string>();
      for (let index = 0; index < 16; index += 1) {
        const client = index % 2 === 0 ? h1 : h2;
        const { verifier } = succeeded(await client.write(handle, index * 8192, pattern(8192, index), Stability.UNSTABLE));
        verifiers.add(Buffer.from(verifier).toString('hex'));
      }
      for (const client of [h1, h2]) verifiers.add(Buffer.from(succeeded(await client.commit(handle)).verifier).toString('hex'));
      assert.equal(verifiers.size, 1);
      for (let index = 0; index < 16; index += 1) {
        assert.ok(succeeded(await h1.read(handle, index * 8192, 8192)).data.equals(pattern(8192, index)));
      }
    }
  });

  test('esxi 30: 16 connections to A and B with 16 requests each on overlapping blocks see only what registers can show', async (t) => {
    const [a, b] = cluster.pair;
    const clients = await Promise.all(Array.from({ length: 16 }, (_, index) => connectStore(index % 2 === 0 ? a.process : b.process)));
    try {
      const load = await RegisterLoad.create(clients[0]!, 20_261_122);
      const began = performance.now();
      await load.run(clients, 16, 6000);
      await load.check(clients[1]!);
      t.diagnostic(`${Math.round(6000 / ((performance.now() - began) / 1000))} operations/s checked`);
    } finally {
      await Promise.all(clients.map((client) => client[Symbol.asyncDispose]()));
    }
  });

  test('esxi 31: zeros written through B take no space, a sparse write only its own, and both routers say so', async () => {
    const { h1, h2 } = hosts;
    const directory = await hosts.directory();
    const { handle } = await newFile(directory, 'z-flat.vmdk');
    succeeded(await h1.setattr(handle, { sizeBytes: 64 * MIB }));
    for (let index = 0; index < 16; index += 1) succeeded(await h2.write(handle, index * MIB, Buffer.alloc(MIB), Stability.FILE_SYNC));
    assert.ok(succeeded(await h1.getattr(handle)).attributes.usedBytes < 64 * 1024);
    succeeded(await h2.write(handle, 32 * MIB, pattern(65_536, 3), Stability.FILE_SYNC));
    const used = succeeded(await h1.getattr(handle)).attributes.usedBytes;
    assert.ok(used >= 65_536 && used < 256 * 1024, `${used} bytes used`);
    assert.equal(succeeded(await h2.getattr(handle)).attributes.usedBytes, used);
  });

  test('esxi 32: heartbeats that two hosts write through A are seen through B in time and contents, at once', async () => {
    const { h1, h2 } = hosts;
    const directory = await hosts.directory();
    const beats = [await newFile(directory, 'host-1-hb'), await newFile(directory, 'host-2-hb')];
    const last = beats.map(() => ({ seconds: 0, nanoseconds: 0 }));
    for (let beat = 1; beat <= 20; beat += 1) {
      for (const [index, { handle }] of beats.entries()) {
        succeeded(await h1.write(handle, 0, lockContents(`host-${index}`, beat), Stability.FILE_SYNC));
        const { mtime } = succeeded(await h2.getattr(handle)).attributes;
        assert.ok(compareTimestamp(mtime, last[index]!) > 0, 'mtime moves with every beat');
        last[index] = mtime;
        assert.ok(succeeded(await h2.read(handle, 0, 512)).data.equals(lockContents(`host-${index}`, beat)));
      }
    }
  });

  test('esxi 33: a lock is taken through A, renewed there, and each renewal is read through B; acknowledged in time', async (t) => {
    const { h1, h2 } = hosts;
    const directory = await hosts.directory();
    const disk = await newFile(directory, 'x-flat.vmdk');
    const name = lockName(disk.fileid);
    failed(await h1.lookup(directory, name), Status.NOENT);
    const lock = await newFile(directory, name);
    failed(await h2.create(directory, name, GUARDED), Status.EXIST);
    const timings = new Timings();
    for (let alive = 1; alive <= 100; alive += 1) {
      const contents = lockContents('H1', alive);
      const written = succeeded(await timings.measure(() => h1.write(lock.handle, 0, contents, Stability.FILE_SYNC)));
      assert.deepEqual([written.countBytes, written.committed], [84, Stability.FILE_SYNC]);
      const read = succeeded(await h2.read(lock.handle, 0, 512));
      assert.ok(read.data.equals(contents) && read.eof);
    }
    t.diagnostic(`renewals: ${timings}`);
    assert.ok(timings.p99 < 10_000 && timings.max < 50_000, String(timings));
  });

  test('esxi 34: of two hosts that create one lock at A and B at once exactly one wins, and both see the winner', async (t) => {
    await lockRace(hosts, 200);
    t.diagnostic('200 rounds; 1000 in the soak');
  });

  test('esxi 35: a lock renewed through A is never read old through B', async () => {
    const { h1, h2 } = hosts;
    const directory = await hosts.directory();
    const { handle } = await newFile(directory, '.lck-35');
    succeeded(await h1.write(handle, 0, lockContents('H1', 0), Stability.FILE_SYNC));
    let acknowledged = 0;
    let renewing = true;
    const renewals = (async () => {
      for (let alive = 1; alive <= 300; alive += 1) {
        succeeded(await h1.write(handle, 0, lockContents('H1', alive), Stability.FILE_SYNC));
        acknowledged = alive;
      }
      renewing = false;
    })();
    const reads = Array.from({ length: 4 }, async () => {
      while (renewing) {
        const atLeast = acknowledged;
        const { data } = succeeded(await h2.read(handle, 0, 84));
        const seen = data.readUInt32LE(0);
        assert.ok(seen >= atLeast, `read ${seen} after ${atLeast} was acknowledged`);
        assert.ok(data.equals(lockContents('H1', seen)));
      }
    });
    await Promise.all([renewals, ...reads]);
  });

  test('esxi 36: a lock that H2 broke through B can neither be renewed nor seen by H1 through A', async () => {
    const { h1, h2 } = hosts;
    const directory = await hosts.directory();
    for (let round = 0; round < 20; round += 1) {
      const lock = await newFile(directory, '.lck-36');
      succeeded(await h1.write(lock.handle, 0, lockContents('H1', round), Stability.FILE_SYNC));
      for (let look = 0; look < 2; look += 1) {
        assert.ok(succeeded(await h2.read(lock.handle, 0, 84)).data.equals(lockContents('H1', round)));
      }
      succeeded(await h2.remove(directory, '.lck-36'));
      const mine = await newFile(directory, '.lck-36', h2);
      succeeded(await h2.write(mine.handle, 0, lockContents('H2', round), Stability.FILE_SYNC));
      failed(await h1.write(lock.handle, 0, lockContents('H1', round + 1), Stability.FILE_SYNC), Status.STALE);
      failed(await h1.getattr(lock.handle), Status.STALE);
      assert.ok(succeeded(await h2.read(mine.handle, 0, 84)).data.equals(lockContents('H2', round)));
      assert.ok(succeeded(await h1.read(mine.handle, 0, 84)).data.equals(lockContents('H2', round)));
      succeeded(await h1.remove(directory, '.lck-36'));
    }
  });

  test('esxi 37: a lock released through one router is gone on the other at once, and can be taken there at once', async () => {
    const { h1, h2 } = hosts;
    const directory = await hosts.directory();
    for (let round = 0; round < 50; round += 1) {
      const [owner, other] = round % 2 === 0 ? [h1, h2] : [h2, h1];
      failed(await other.lookup(directory, '.lck-37'), Status.NOENT);
      made(await owner.create(directory, '.lck-37', GUARDED));
      succeeded(await other.lookup(directory, '.lck-37'));
      succeeded(await owner.remove(directory, '.lck-37'));
      failed(await other.lookup(directory, '.lck-37'), Status.NOENT);
      made(await other.create(directory, '.lck-37', GUARDED));
      succeeded(await other.remove(directory, '.lck-37'));
      failed(await owner.remove(directory, '.lck-37'), Status.NOENT);
    }
  });

  test('two hosts with one address, one name and the same call numbers race for a lock: each gets its own answer', async () => {
    const directory = await hosts.directory();
    const [a, b] = cluster.pair;
    // Same machine name and stamp too: only the connections differ. A second host with the very same call is a repetition by all that is on the wire,
    // so what they send differs as it does in ESXi: in the contents of the lock.
    const one = await a.nfs();
    const other = await b.nfs();
    try {
      for (let round = 0; round < 50; round += 1) {
        const xid = 0x1000 + round;
        const how = (mode: number) => ({ mode: 'guarded' as const, attributes: { ...GUARDED_ATTRIBUTES, mode } });
        const results = await Promise.all([
          one.create(directory, `.lck-${round}`, how(0o600), { xid }),
          other.create(directory, `.lck-${round}`, how(0o644), { xid }),
        ]);
        assert.deepEqual(
          results.map(({ status }) => status).toSorted((x, y) => x - y),
          [Status.OK, Status.EXIST],
        );
        const winner = results[0].status === Status.OK ? 0o600 : 0o644;
        assert.equal((succeeded(await hosts.h1.lookup(directory, `.lck-${round}`)).attributes?.mode ?? 0) & 0o777, winner);
      }
    } finally {
      await Promise.all([one.close(), other.close()]);
    }
  });
});

const GUARDED_ATTRIBUTES = GUARDED.mode === 'exclusive' ? assert.fail() : GUARDED.attributes;
