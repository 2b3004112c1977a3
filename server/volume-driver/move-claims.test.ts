/** Which segments and terms count around a move: claims on the backend, and pieces of a log that are not what was offered. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { silentLogger } from '../core/logger.ts';
import type { Logger } from '../core/logger.ts';
import type { LogPiece } from '../object-router/peer-port.ts';
import { accepted, BLOCK, contents, KIB, Pair, refusedWith, write } from './testing/object-pair.ts';

test('a segment of a term that does not count is not read, whatever its number', async () => {
  const warnings: string[] = [];
  const logger: Logger = { ...silentLogger, warn: (_fields: unknown, message?: string) => warnings.push(String(message)), child: () => logger };
  const pair = await Pair.start('volume', { cacheBytes: 4096 * KIB }, logger);
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  accepted(await pair.run(write(object, 0, 1)));
  await pair.clean(object);
  accepted(await pair.run(write(object, 0, 2)));
  const { owner } = cluster.commons;
  assert.ok(owner !== null);
  // Somebody decided to go on without what only A had: B owns it from the last checkpoint on.
  a.kill(false);
  cluster.commons.owner = { ...owner, protection: { kind: 'clean' } };
  const taken = await pair.open(b);
  accepted(await pair.run(write(taken, 0, 3)));
  await pair.clean(taken);
  await cluster.restart(a);
  const stale = a.router.files.segmentsOf(owner.uuid);
  assert.ok(stale.some((segment) => segment.place === 'log'));
  // A has it as a cached one now, of the right number and the wrong term.
  for (const segment of stale) await pair.run(a.router.files.cede(segment));
  b.kill(false);
  const back = await pair.open(a);
  assert.equal((await pair.run(contents(back)))[0], 3);
  // Its CRC would have said so, too, and somebody would have been told that the disk is bad.
  assert.deepEqual(
    warnings.filter((message) => message.includes('CRC')),
    [],
  );
});

test('a takeover is claimed on the backend before the object is served; an own term is not', async () => {
  const pair = await Pair.start();
  const { a, b } = pair;
  const object = await pair.open(a);
  assert.deepEqual(await pair.stored(), [], 'the first term of a new object waits for its first upload');
  accepted(await pair.run(write(object, 0, 1)));
  await pair.clean(object);
  await refusedWith('not-owner', pair.open(b));
  a.kill(false);
  const claims = async (): Promise<string[]> => (await pair.stored()).filter((name) => name.includes('claim-'));
  const before = (await claims()).length;
  const taken = await pair.open(b);
  assert.equal((await claims()).length, before + 1);
  assert.deepEqual(await pair.run(contents(taken)), Buffer.alloc(BLOCK, 1));
  await pair.run(taken.close());
  const reopened = await pair.open(b);
  assert.equal((await claims()).length, before + 1, 'an own re-opening puts no claim');
  await pair.run(reopened.close());
});

test('a takeover whose claim the backend does not take fails, and the next attempt owes it still', async () => {
  const pair = await Pair.start();
  const { a, b } = pair;
  const object = await pair.open(a);
  accepted(await pair.run(write(object, 0, 1)));
  // Without a checkpoint nothing but the claim is asked of the backend.
  a.kill(true);
  pair.cluster.commons.owner = { ...pair.cluster.commons.owner!, protection: { kind: 'clean' } };
  pair.backend({ failBefore: 1 });
  await assert.rejects(pair.open(b));
  assert.equal(pair.cluster.commons.owner?.router, b.id, 'the registry says already that it is ours');
  await assert.rejects(pair.open(b), 'an own object by now, but its claim is owed');
  pair.backend({});
  const taken = await pair.open(b);
  assert.ok((await pair.stored()).some((name) => name.includes('claim-')));
  await pair.run(taken.close());
});

test('a new term is above every counter that the router knows of', async () => {
  const pair = await Pair.start();
  const { a, cluster } = pair;
  const object = await pair.run(a.router.driver.open(cluster.commons.inode, 4711));
  assert.ok(object.term.counter > 4711);
  await pair.run(object.close());
});

test('an epoch that somebody else claimed on the backend is not received', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  accepted(await pair.run(write(object, 0, 1)));
  await pair.clean(object);
  const { owner } = cluster.commons;
  assert.ok(owner !== null);
  const [bucket = ''] = (await cluster.commons.store.listBuckets('', 10)).names;
  const name = `claim-0-${owner.term.counter + 1}`;
  await cluster.commons.store.put(bucket, name, { kind: 'bytes', chunks: [Buffer.from('another one\n')] });
  await refusedWith('fenced', pair.run(cluster.begin(a, object, b)));
  accepted(await pair.run(write(object, 0, 2)));
  // That number is burnt; the next one is free.
  assert.equal((await pair.run(contents(await pair.move(a, object, b))))[0], 2);
});

test('what is no part of the log that was offered is refused, and the object stays where it is', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  const changes: ((piece: LogPiece) => LogPiece)[] = [
    (piece) => ({ ...piece, segment: piece.segment + 1 }),
    (piece) => ({ ...piece, offsetBytes: piece.offsetBytes + 1 }),
    (piece) => ({ ...piece, term: { ...piece.term, counter: piece.term.counter + 1 } }),
    (piece) => ({ ...piece, sealedBytes: (piece.sealedBytes ?? 0) + 1 }),
    (piece) => ({ ...piece, sealedBytes: null }),
    (piece) => ({ ...piece, bytes: Buffer.from(piece.bytes).fill(0, 200, 201) }),
    (piece) => ({ ...piece, bytes: Buffer.concat([piece.bytes, Buffer.alloc(64)]) }),
  ];
  for (const change of changes) {
    pair.backend({ failBefore: 1 });
    await pair.fill(object, 40);
    pair.backend({});
    const move = await pair.run(cluster.begin(a, object, b));
    const { pieces } = await pair.run(move.source.read(move.replica.position, 1024 * KIB, 0));
    const [first] = pieces;
    assert.ok(first !== undefined && first.sealedBytes === first.bytes.length);
    await refusedWith('replica-damaged', pair.run(move.replica.append([change(first)])));
    // Of what was refused nothing is used, whoever asks.
    const discarded = move.replica.discard();
    await refusedWith('replica-damaged', pair.run(move.replica.sync()));
    await pair.run(discarded);
    assert.deepEqual(pair.replicaFiles(b), []);
    move.source.thaw();
  }
  const moved = await pair.move(a, object, b);
  await pair.assertFilled(moved, 40);
});

test('a copy that does not fit the owner record is left for a recovery, which it serves', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  await pair.fill(object, 20);
  const move = await pair.copy(object);
  const end = await pair.run(cluster.freeze(move));
  const owner = await pair.run(cluster.transfer(move, end));
  move.source.cede();
  await refusedWith('replica-damaged', pair.run(move.replica.activate({ ...owner, root: { ...owner.root, checkpoint: 'ckp-another' } })));
  await pair.run(move.replica.discard());
  assert.ok(pair.replicaFiles(b).length > 0, 'whoever discards it now does not know what he has');
  const opened = await pair.open(b);
  await pair.assertFilled(opened, 20);
});

test('a giver that names another end of its log than it sends ends no process: the copy is left for a recovery', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  await pair.fill(object, 20);
  const move = await pair.copy(object);
  move.replica.prepare(7);
  const owner = await pair.run(cluster.transfer(move, await pair.run(cluster.freeze(move))));
  move.source.cede();
  await refusedWith('replica-damaged', pair.run(move.replica.activate(owner)));
  assert.deepEqual(b.disk.files('/vpool/log/'), []);
  await pair.assertFilled(await pair.open(b), 20);
});

test('an object on its way here is not opened beside its copy, and is when the copy is gone', async () => {
  const pair = await Pair.start();
  const { a, b, cluster } = pair;
  const object = await pair.open(a);
  accepted(await pair.run(write(object, 0, 1)));
  const move = await pair.run(cluster.begin(a, object, b));
  await refusedWith('object-held', pair.open(b));
  await pair.run(cluster.catchUp(move));
  const end = await pair.run(cluster.freeze(move));
  await pair.run(cluster.transfer(move, end));
  move.source.cede();
  await refusedWith('object-held', pair.open(b));
  await refusedWith(
    'replica-damaged',
    pair.run(move.replica.activate(cluster.commons.owner!).then((moved) => moved.close().then(() => move.replica.sync()))),
  );
  const opened = await pair.open(b);
  assert.deepEqual(await pair.run(contents(opened)), Buffer.alloc(BLOCK, 1));
});
