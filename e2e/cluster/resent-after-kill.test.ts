/**
 * A call had its effect, its client was not told, and the router that did it is dead. Everybody sees the effect; somebody changes the same thing once more; then the old
 * call comes again, from its client or from wherever a copy of it was stuck. It was done, and must not be done again over the newer change.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';

import { GUARDED, made, succeeded } from '../../server/nfsd/conformance/server-under-test.ts';
import type { Handle } from '../../server/nfsd/file-system.ts';
import { Stability, Status } from '../../server/nfsd/file-system.ts';
import type { NfsClient } from '../../server/nfsd/nfs-client.ts';
import { NfsProcedure } from '../../server/nfsd/procedure-table.ts';
import { encodeWriteArgs } from '../../server/nfsd/procedures/write.ts';
import { scratchDirectory } from '../scratch.ts';
import type { ClusterRouter } from './cluster-router.ts';
import { Cluster, thresholds } from './cluster.ts';
import { twoHosts } from './two-hosts.ts';

const KIB = 1024;
const SECTOR = 512;
const HOST = { flavor: 'sys' as const, uid: 0, gid: 0, gids: [], machineName: 'H1', stamp: 7 };
const AWAY_MS_MAX = 30_000;

/** Asks until it is not asked to come back. */
async function settled<T extends { readonly status: number }>(call: () => Promise<T>): Promise<T> {
  for (;;) {
    const answer = await call();
    if (answer.status !== Status.JUKEBOX) return answer;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function letterAt(client: NfsClient, object: Handle, offsetBytes: number): Promise<string> {
  return succeeded(await settled(() => client.read(object, offsetBytes, 1))).data.toString('latin1');
}

describe('a call that was done by a router that died', () => {
  const stack = new AsyncDisposableStack();
  let cluster: Cluster;
  let scene: AsyncDisposableStack;
  let disk: Handle;
  let name = '';
  let xid = 0x3141_0000;

  before(async () => {
    const scratch = stack.use(await scratchDirectory('resent-after-kill'));
    cluster = stack.use(await Cluster.start({ directory: scratch.path, cluster: thresholds(0) }));
  });
  /** A volume that B owns. */
  beforeEach(async () => {
    scene = new AsyncDisposableStack();
    xid += 1;
    await using hosts = await twoHosts(cluster);
    name = `x-${xid}-flat.vmdk`;
    disk = Buffer.from(made(await hosts.h2.create(hosts.root, name, GUARDED)).handle);
    succeeded(await hosts.h2.write(disk, 0, Buffer.alloc(8 * KIB, '0'), Stability.FILE_SYNC));
  });
  afterEach(async () => {
    await scene.disposeAsync();
  });
  after(async () => {
    await stack.disposeAsync();
  });

  const connect = async (router: ClusterRouter, asH1: boolean): Promise<NfsClient> => {
    const client = await router.nfs(asH1 ? { credential: HOST } : {});
    scene.defer(() => client.close());
    return client;
  };
  /** The call: sectors 1 to 8, so that both blocks are read and written as a whole. The same bytes each time. */
  const send = async (client: NfsClient): Promise<{ status: number }> => {
    const encode = (w: Parameters<typeof encodeWriteArgs>[0]): void =>
      encodeWriteArgs(w, disk, SECTOR, Buffer.alloc(4 * KIB, 'a'), Stability.FILE_SYNC);
    return { status: (await client.callNfs(NfsProcedure.WRITE, encode, { xid, argsBytesMax: 8 * KIB })).uint32() };
  };
  const gone = async (router: ClusterRouter): Promise<void> => {
    const began = performance.now();
    while (router.process.running) {
      assert.ok(performance.now() - began < AWAY_MS_MAX, `${router.name} dies at its fail point`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  /** What it did is seen; another host changes one of its sectors; it comes again by both ways. */
  const comesAgain = async (): Promise<void> => {
    const [a, b] = cluster.pair;
    const other = await connect(b, false);
    assert.equal(await letterAt(other, disk, SECTOR), 'a', 'what it did is there');
    succeeded(await settled(() => other.write(disk, 2 * SECTOR, Buffer.alloc(SECTOR, 'b'), Stability.FILE_SYNC)));
    for (const router of [a, b]) {
      const again = await connect(router, true);
      assert.equal((await settled(() => send(again))).status, Status.OK);
      assert.equal(await letterAt(again, disk, 2 * SECTOR), 'b', 'an old write came over a newer one');
      assert.equal(await letterAt(again, disk, SECTOR), 'a');
    }
  };

  // First, while this is the only object that there is to recover.
  test('before it was answered, and its next life in the recovery: the log still says so', async () => {
    const [, b] = cluster.pair;
    await b.process.kill();
    await b.process.start({ VFERRY_FAIL_POINTS: 'log.after-sync=kill@1' });
    await assert.rejects(send(await connect(b, true)));
    await gone(b);
    // It dies in its start, or a moment after it was ready.
    await b.process.start({ VFERRY_FAIL_POINTS: 'recovery.after-close=kill@1' }).catch(() => undefined);
    await gone(b);
    await b.process.start();
    await comesAgain();
  });

  test('and the object moved: a receiver that dies before it has it open knows what the giver did', async () => {
    const [a, b] = cluster.pair;
    await a.process.kill();
    await a.process.start({ VFERRY_FAIL_POINTS: 'move.take-confirmed=kill@1' });
    assert.equal((await settled(async () => send(await connect(b, true)))).status, Status.OK);
    const dead = gone(a);
    // Nobody moves anything to a router that is not known to live again yet, so it is asked for until it begins; the router that is asked dies of it.
    while (a.process.running) {
      cluster.operator.beginMove(`/${name}`, a).catch(() => undefined);
      await Promise.race([dead, new Promise((resolve) => setTimeout(resolve, 1000))]);
    }
    await dead;
    await a.process.start();
    await comesAgain();
  });
});
