/**
 * A router stands still with calls in its socket buffers; their client sends them again through the other router, is answered, and changes the same thing once more.
 * When the first router goes on, it finds the old calls: they must change nothing, be it their owner that stood still or only the way to it.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';

import { ApplianceError } from '../../server/core/errors.ts';
import { GUARDED, made, succeeded } from '../../server/nfsd/conformance/server-under-test.ts';
import type { Handle } from '../../server/nfsd/file-system.ts';
import { Stability, Status } from '../../server/nfsd/file-system.ts';
import type { NfsClient } from '../../server/nfsd/nfs-client.ts';
import { encodeSetAttributes, NO_CHANGES } from '../../server/nfsd/nfs-wire.ts';
import { NfsProcedure } from '../../server/nfsd/procedure-table.ts';
import { encodeWriteArgs } from '../../server/nfsd/procedures/write.ts';
import type { XdrWriter } from '../../server/oncrpc/xdr-writer.ts';
import { scratchDirectory } from '../scratch.ts';
import { Cluster, thresholds } from './cluster.ts';
import { type TwoHosts, twoHosts } from './two-hosts.ts';

/** A call that changes something, as bytes: it can be sent anywhere, any number of times. */
interface Change {
  readonly procedure: number;
  readonly encode: (writer: XdrWriter) => void;
  readonly xid: number;
}

let xids = 0x4000_0000 + (process.pid << 8);

function change(procedure: number, encode: (writer: XdrWriter) => void): Change {
  xids += 1;
  return { procedure, encode, xid: xids };
}

function write(object: Handle, offsetBytes: number, data: Buffer): Change {
  return change(NfsProcedure.WRITE, (w) => encodeWriteArgs(w, object, offsetBytes, data, Stability.FILE_SYNC));
}

function setSize(object: Handle, sizeBytes: number): Change {
  return change(NfsProcedure.SETATTR, (w) => {
    w.opaque(object);
    encodeSetAttributes(w, { ...NO_CHANGES, sizeBytes });
    w.uint32(0);
  });
}

function remove(directory: Handle, name: string): Change {
  return change(NfsProcedure.REMOVE, (w) => {
    w.opaque(directory);
    w.opaque(Buffer.from(name));
  });
}

/** Status of the answer. All of them begin with it. */
async function send(client: NfsClient, { procedure, encode, xid }: Change): Promise<number> {
  return (await client.callNfs(procedure, encode, { xid, argsBytesMax: 1024 * 1024 + 1024 })).uint32();
}

/** Sends until it is answered with something else than JUKEBOX: those are new calls, as clients make them. */
async function persist(client: NfsClient, what: Change): Promise<number> {
  for (let call = what; ; call = { ...what, xid: (xids += 1) }) {
    const status = await send(client, call);
    if (status !== Status.JUKEBOX) return status;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

interface Scene {
  readonly cluster: Cluster;
  readonly hosts: TwoHosts;
}

interface Duplicates {
  /** What H1 sent through A, which stood still; sent again through B before `newer`. */
  readonly old: readonly Change[];
  readonly newer: readonly Change[];
  /** Judges what is there in the end, through a router. */
  readonly judge: (client: NfsClient) => Promise<void>;
}

/** Null when the connection ended, or the time, before an answer came. */
async function answeredOrLost<T>(answer: Promise<T>): Promise<T | null> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof ApplianceError && error.retryable) return null;
    throw error;
  }
}

async function standStill({ cluster, hosts }: Scene, stillMs: number, duplicates: Duplicates): Promise<void> {
  const [a] = cluster.pair;
  const late = await a.nfs({ credential: HOST });
  const elsewhere = await cluster.pair[1].nfs({ credential: HOST });
  try {
    // The connection is there and has been used.
    succeeded(await late.getattr(hosts.root));
    await a.pause();
    const paused = performance.now();
    const lates = duplicates.old.map((call) => answeredOrLost(send(late, call)));
    await new Promise((resolve) => setTimeout(resolve, 50));
    for (const call of duplicates.old) assert.equal(await persist(elsewhere, call), Status.OK);
    for (const call of duplicates.newer) assert.equal(await persist(elsewhere, call), Status.OK);
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, stillMs - (performance.now() - paused))));
    a.resume();
    // Whatever it answers, or that it closes the connection: it has had the calls then.
    await Promise.race([Promise.all(lates), new Promise((resolve) => setTimeout(resolve, 5000))]);
    await new Promise((resolve) => setTimeout(resolve, 500));
    assert.equal(await a.process.waitReady(), 'ready');
    for (const router of cluster.pair) {
      const fresh = await router.nfs();
      try {
        await duplicates.judge(fresh);
      } finally {
        await fresh.close();
      }
    }
  } finally {
    if (a.paused) a.resume();
    await Promise.all([late.close(), elsewhere.close()]);
  }
}

const HOST = { flavor: 'sys' as const, uid: 0, gid: 0, gids: [], machineName: 'H1', stamp: 7 };
const KIB = 1024;

/** Reads until it is answered: an object that just changed hands may ask for a moment. */
async function readAll(client: NfsClient, object: Handle, countBytes: number): Promise<Buffer> {
  for (;;) {
    const answer = await client.read(object, 0, countBytes);
    if (answer.status !== Status.JUKEBOX) return succeeded(answer).data;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Waits until all that has an owner is on the backend, and the registry says so. @throws Error with what is not, after a minute. */
async function allClean(cluster: Cluster): Promise<void> {
  const began = performance.now();
  for (;;) {
    const unclean = (await cluster.operator.volumes()).filter(({ protection }) => protection !== 'clean');
    if (unclean.length === 0) return;
    if (performance.now() - began > 240_000) throw new Error(`not clean after four minutes: ${JSON.stringify(unclean)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

describe('late duplicates', () => {
  const stack = new AsyncDisposableStack();
  let cluster: Cluster;
  let scene: Scene;

  before(async () => {
    const scratch = stack.use(await scratchDirectory('late-duplicates'));
    cluster = stack.use(await Cluster.start({ directory: scratch.path, cluster: thresholds(0), environment: { VFERRY_LOG_SEAL_AFTER_MS: '100ms' } }));
  });
  // A router that lost its lease closes its connections.
  beforeEach(async () => {
    scene = { cluster, hosts: await twoHosts(cluster) };
  });
  afterEach(async () => {
    await scene.hosts[Symbol.asyncDispose]();
  });
  after(async () => {
    await stack.disposeAsync();
  });

  /** A file that the given router owns (a small one: nobody), with `sizeBytes` of `0`. */
  const fileOf = async (owner: 'A' | 'B', name: string, sizeBytes: number): Promise<{ directory: Handle; handle: Handle }> => {
    const { hosts } = scene;
    const client = owner === 'A' ? hosts.h1 : hosts.h2;
    const directory = await hosts.directory();
    const handle = Buffer.from(made(await client.create(directory, name, GUARDED)).handle);
    succeeded(await client.write(handle, 0, Buffer.alloc(sizeBytes, '0'), Stability.FILE_SYNC));
    return { directory, handle };
  };

  for (const [who, owner, stillMs] of [
    ['the way to the owner stands still for a second', 'B', 1000],
    ['the way to the owner stands still until its lease is over', 'B', 10_000],
    ['the owner stands still until another one has taken over', 'A', 1000],
  ] as const) {
    test(`${who}: no old WRITE, SETATTR(size) or REMOVE comes over a newer change, of volumes, files, and what is in the registry`, async () => {
      const disk = await fileOf(owner, 'x-flat.vmdk', 64 * KIB);
      const sized = await fileOf(owner, 'y-flat.vmdk', 64 * KIB);
      const large = await fileOf(owner, 'x.vmsn', 64 * KIB);
      const lock = await fileOf(owner, '.lck-1', 84);
      const name = await fileOf(owner, 'x.vmx', 100);
      // What is not clean nobody else takes over.
      await allClean(scene.cluster);
      const blocks = (letter: string): Change[] =>
        Array.from({ length: 16 }, (_, index) => write(disk.handle, index * 4 * KIB, Buffer.alloc(4 * KIB, letter)));
      const all = (letter: string, bytes: number): Buffer => Buffer.alloc(bytes, letter);
      await standStill(scene, stillMs, {
        old: [
          ...blocks('a'),
          setSize(sized.handle, 4 * KIB),
          write(large.handle, 0, all('a', 64 * KIB)),
          write(lock.handle, 0, all('a', 84)),
          remove(name.directory, 'x.vmx'),
        ],
        newer: [
          ...blocks('b'),
          setSize(sized.handle, 32 * KIB),
          write(sized.handle, 0, all('b', 32 * KIB)),
          write(large.handle, 0, all('b', 64 * KIB)),
          write(lock.handle, 0, all('b', 84)),
          setSize(lock.handle, 80),
          change(NfsProcedure.CREATE, (w) => {
            w.opaque(name.directory);
            w.opaque(Buffer.from('x.vmx'));
            w.uint32(1);
            encodeSetAttributes(w, NO_CHANGES);
          }),
        ],
        judge: async (client) => {
          assert.ok((await readAll(client, disk.handle, 64 * KIB)).equals(all('b', 64 * KIB)), 'an old write came over a newer one');
          assert.ok((await readAll(client, sized.handle, 64 * KIB)).equals(all('b', 32 * KIB)), 'an old size came over a newer one');
          assert.ok((await readAll(client, large.handle, 64 * KIB)).equals(all('b', 64 * KIB)), 'an old write of a file came over a newer one');
          assert.ok((await readAll(client, lock.handle, 84)).equals(all('b', 80)), 'an old write of a lock came over a newer one');
          assert.equal((await client.lookup(name.directory, 'x.vmx')).status, Status.OK, 'an old REMOVE took the new file');
        },
      });
    });
  }
});
