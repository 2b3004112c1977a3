import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Workload } from './nfs-load.ts';
import { BLOCK_BYTES, NfsLoad } from './nfs-load.ts';
import { startWireServer } from './wire-server.testing.ts';

const MIB = 2 ** 20;
const BASE = { outstanding: 8, ioBytes: BLOCK_BYTES, stability: 'FILE_SYNC', regionBytes: MIB, seconds: 0.05, seed: 5 } as const;

test('every write carries its block number, every one of them is counted, and one COMMIT ends a sequential pass', async () => {
  await using server = await startWireServer({});
  await using load = await NfsLoad.connect('127.0.0.1', server.port);
  const root = await load.mount('/vpool1');
  const file = await load.open(root, 'x');
  const work: Workload = { ...BASE, kind: 'write-sequential', ioBytes: 65_536, stability: 'UNSTABLE' };
  const result = await load.run(work, root, file);
  assert.equal(result.operations, 16);
  assert.equal(result.payloadBytes, MIB);
  assert.equal(server.commits, 1);
  assert.deepEqual(
    server.writes.map((write) => write.offsetBytes).toSorted((a, b) => a - b),
    Array.from({ length: 16 }, (_, index) => index * 65_536),
  );
  for (const { offsetBytes, stamps } of server.writes)
    assert.deepEqual(
      stamps,
      Array.from({ length: 16 }, (_, block) => offsetBytes / 4096 + block),
    );
  assert.ok(server.outstandingMax <= 8);
});

test('a run of random I/O keeps exactly the asked number of calls outstanding and stays in its region', async () => {
  await using server = await startWireServer({});
  await using load = await NfsLoad.connect('127.0.0.1', server.port);
  const root = await load.mount('/vpool1');
  const file = await load.open(root, 'x');
  const result = await load.run({ ...BASE, kind: 'mix' }, root, file);
  assert.ok(result.operations > 20);
  assert.equal(server.outstandingMax, 8);
  assert.ok(server.writes.length > 0);
  for (const write of server.writes) assert.ok(write.offsetBytes + BLOCK_BYTES <= MIB);
});

test('every file that was created is removed, also at the end of the time', async () => {
  await using server = await startWireServer({});
  await using load = await NfsLoad.connect('127.0.0.1', server.port);
  const root = await load.mount('/vpool1');
  const file = await load.open(root, 'x');
  await load.run({ ...BASE, kind: 'create-remove', ioBytes: 0 }, root, file);
  assert.ok(server.created > 1);
  assert.equal(server.names.size, 1, 'only x is left');
});

for (const [fault, message] of [
  ['status', /READ: status 5/],
  ['short', /READ of 4096 bytes at block \d+: count 4000/],
  ['wrong-block', /returned the data of block/],
  ['xid', /which is not outstanding/],
  ['close', /closed the connection/],
] as const) {
  test(`a run fails when the server answers wrong: ${fault}`, async () => {
    await using server = await startWireServer({ fault });
    await using load = await NfsLoad.connect('127.0.0.1', server.port);
    const root = await load.mount('/vpool1');
    const file = await load.open(root, 'x');
    await assert.rejects(load.run({ ...BASE, kind: 'read-random' }, root, file), message);
  });
}
