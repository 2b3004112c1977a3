/**
 * A router dies between the log and the answer: the change is there after its start, others see it and build on it, and then the client sends the call again, as it
 * has to. It was done, and is not done again: the second time would put the old bytes over the newer ones. One kind of change after the other; what else may die meanwhile
 * is in resent-after-kill.test.ts.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { GUARDED, made, succeeded } from '../../server/nfsd/conformance/server-under-test.ts';
import type { Handle } from '../../server/nfsd/file-system.ts';
import { Stability, Status } from '../../server/nfsd/file-system.ts';
import type { NfsClient } from '../../server/nfsd/nfs-client.ts';
import { encodeSetAttributes, NO_CHANGES } from '../../server/nfsd/nfs-wire.ts';
import { NfsProcedure } from '../../server/nfsd/procedure-table.ts';
import { encodeWriteArgs } from '../../server/nfsd/procedures/write.ts';
import { authSys } from '../../server/oncrpc/rpc-client.ts';
import type { XdrWriter } from '../../server/oncrpc/xdr-writer.ts';
import { scratchDirectory } from '../scratch.ts';
import type { ClusterRouter } from './cluster-router.ts';
import { Cluster, thresholds } from './cluster.ts';

const KIB = 1024;
const SIZE_BYTES = 64 * KIB;
const AGAIN_MS = 100;

interface Call {
  readonly procedure: number;
  readonly encode: (writer: XdrWriter) => void;
}

function write(object: Handle, data: Buffer, offsetBytes = 0): Call {
  return { procedure: NfsProcedure.WRITE, encode: (w) => encodeWriteArgs(w, object, offsetBytes, data, Stability.FILE_SYNC) };
}

function setSize(object: Handle, sizeBytes: number): Call {
  return {
    procedure: NfsProcedure.SETATTR,
    encode(w) {
      w.opaque(object);
      encodeSetAttributes(w, { ...NO_CHANGES, sizeBytes });
      w.uint32(0);
    },
  };
}

/** Status of the answer, which all of them begin with. */
async function send(client: NfsClient, { procedure, encode }: Call, xid: number): Promise<number> {
  return (await client.callNfs(procedure, encode, { xid, argsBytesMax: SIZE_BYTES + KIB })).uint32();
}

const bytes = (letter: string, countBytes: number): Buffer => Buffer.alloc(countBytes, letter);

describe('calls that were done and never answered', () => {
  const stack = new AsyncDisposableStack();
  let cluster: Cluster;
  let xid = 0x5000_0000 + (process.pid << 8);

  before(async () => {
    const scratch = stack.use(await scratchDirectory('unanswered'));
    cluster = stack.use(await Cluster.start({ directory: scratch.path, cluster: thresholds(0) }));
  });
  after(async () => {
    await stack.disposeAsync();
  });

  /** A connection of the host that changes things first, or of the other one. */
  const connect = (router: ClusterRouter, machineName = 'H1'): Promise<NfsClient> => router.nfs({ credential: authSys({ machineName, stamp: 7 }) });

  /** Reads until it is answered, and all of it. */
  const read = async (router: ClusterRouter, object: Handle): Promise<Buffer> => {
    const client = await connect(router, 'reader');
    try {
      for (;;) {
        const answer = await client.read(object, 0, SIZE_BYTES);
        if (answer.status !== Status.JUKEBOX) return Buffer.from(succeeded(answer).data);
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      }
    } finally {
      await client.close();
    }
  };

  const cases = [
    {
      what: 'a WRITE of some sectors of a volume',
      name: 'u-flat.vmdk',
      moves: false,
      old: (object: Handle) => write(object, bytes('a', SIZE_BYTES - 1024), 512),
      seen: Buffer.concat([bytes('0', 512), bytes('a', SIZE_BYTES - 1024), bytes('0', 512)]),
    },
    {
      what: 'a WRITE to a file that moves before it is sent again',
      name: 'w.vmsn',
      moves: true,
      old: (object: Handle) => write(object, bytes('a', SIZE_BYTES)),
      seen: bytes('a', SIZE_BYTES),
    },
    {
      what: 'a SETATTR(size) of a volume',
      name: 's-flat.vmdk',
      moves: false,
      old: (object: Handle) => setSize(object, 4 * KIB),
      seen: bytes('0', 4 * KIB),
    },
  ];
  for (const { what, name, moves, old, seen } of cases)
    test(`${what} is done once`, async () => {
      const [a, b] = cluster.pair;
      const first = await connect(a);
      const root = Buffer.from(succeeded(await first.mount(`/${a.process.vpool}`)).handle);
      const object = Buffer.from(made(await first.create(root, name, GUARDED)).handle);
      succeeded(await first.write(object, 0, bytes('0', SIZE_BYTES), Stability.FILE_SYNC));
      await first.close();

      await a.process.kill();
      await a.process.start({ VFERRY_FAIL_POINTS: 'log.after-write=kill@1' });
      const dying = await connect(a);
      xid += 1;
      const call = old(object);
      await assert.rejects(send(dying, call, xid), 'the router should have died before it answered');
      await dying.close();
      assert.equal((await a.process.exited()).signal, 'SIGKILL');

      await a.process.start();
      assert.ok((await read(b, object)).equals(seen), 'it is in the log, and others see it');
      const other = await connect(b, 'H2');
      succeeded(await other.write(object, 0, bytes('b', SIZE_BYTES), Stability.FILE_SYNC));
      await other.close();
      if (moves) await cluster.operator.move(`/${name}`, b);

      for (const router of cluster.pair) {
        const again = await connect(router);
        assert.equal(await send(again, call, xid), Status.OK);
        await again.close();
      }
      for (const router of cluster.pair) assert.ok((await read(router, object)).equals(bytes('b', SIZE_BYTES)), 'it was done twice');
    });
});
