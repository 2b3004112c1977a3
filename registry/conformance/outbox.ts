/** Conformance: the outbox has every change, once, in order, with enough to make the records again. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { decodeAfterImage } from '../after-image.ts';
import { decodeOutcome } from '../outcome-codec.ts';
import type { OutboxEntry } from '../ports.ts';
import { Replay } from './replay.ts';
import { bytesOf, INLINE, NO_CHANGES, type OpenRegistry, OTHER_INCARNATION, OTHER_ROUTER, ROUTER, VOLUME, World } from './world.ts';

/** All entries, in pages. */
export async function outboxOf(world: World): Promise<OutboxEntry[]> {
  const all: OutboxEntry[] = [];
  for (let after = 0; ;) {
    const page = await world.registry.outbox.pending(after, 100);
    if (page.length === 0) return all;
    all.push(...page);
    after = page.at(-1)?.sequence ?? after;
  }
}

export function outboxConformance(name: string, open: OpenRegistry): void {
  test(`${name}: every change has its outbox entry, in sequence order without a gap, with verb, operation id and answer`, async () => {
    await using world = await World.open(open);
    const { outbox } = world.registry;
    const start = await outbox.position();
    assert.equal(start.sequence, 0);
    assert.deepEqual(await outbox.pending(0, 10), []);
    const created = await world.namespace.createFile(world.mutation({ operationId: '10.0.0.1|a' }), world.root, bytesOf('f'), INLINE);
    assert.ok(created.kind === 'created');
    await world.namespace.createFile(world.mutation({ operationId: '10.0.0.1|b' }), world.root, bytesOf('f'), INLINE);
    await world.namespace.writeInline(world.mutation(), created.inode.fileid, 0, bytesOf('hi'));
    await world.namespace.remove(world.mutation({ operationId: '10.0.0.1|c' }), world.root, bytesOf('f'));
    const entries = await outbox.pending(0, 10);
    assert.deepEqual(
      entries.map((entry) => [entry.generation, entry.sequence, entry.operationId, entry.verb]),
      [
        [start.generation, 1, '10.0.0.1|a', 'createFile'],
        [start.generation, 2, null, 'writeInline'],
        [start.generation, 3, '10.0.0.1|c', 'remove'],
      ],
    );
    assert.deepEqual(decodeOutcome('createFile', entries[0]?.outcome, 'test'), created);
    assert.equal(entries[1]?.outcome, null);
    assert.deepEqual(await outbox.position(), { generation: start.generation, sequence: 3 });
    const first = decodeAfterImage(entries[0]?.afterImage, 'test');
    assert.deepEqual(
      first.inodes.map((record) => record.inode),
      [created.inode, created.directory.after],
    );
    assert.deepEqual(
      first.entries.map((entry) => [entry.directory, entry.fileid, entry.name]),
      [[world.root, created.inode.fileid, bytesOf('f')]],
    );
    const last = decodeAfterImage(entries[2]?.afterImage, 'test');
    assert.deepEqual(last.droppedInodes, [created.inode.fileid]);
    assert.deepEqual(last.droppedEntries, [{ directory: world.root, name: bytesOf('f') }]);
  });

  test(`${name}: released entries are forgotten, the sequence goes on`, async () => {
    await using world = await World.open(open);
    const { outbox } = world.registry;
    for (let index = 0; index < 5; index += 1) await world.file(`f${index}`);
    assert.deepEqual(await outbox.pending(0, 0), []);
    await outbox.release(3);
    assert.deepEqual(
      (await outbox.pending(0, 10)).map((entry) => entry.sequence),
      [4, 5],
    );
    await outbox.release(2);
    await world.reopen();
    assert.deepEqual(
      (await world.registry.outbox.pending(4, 10)).map((entry) => entry.sequence),
      [5],
    );
    await world.registry.outbox.release(1_000);
    assert.deepEqual(await world.registry.outbox.pending(0, 10), []);
    await world.file('next');
    assert.deepEqual(
      (await world.registry.outbox.pending(0, 10)).map((entry) => entry.sequence),
      [6],
    );
    await world.assertSound();
  });

  test(`${name}: a long outbox is given in one list, in order, and not beyond the limit`, async () => {
    await using world = await World.open(open);
    await Promise.all(Array.from({ length: 300 }, (_, index) => world.file(`f${index}`)));
    for (const limit of [1, 63, 64, 65, 128, 299, 300, 1_000]) {
      const sequences = (await world.registry.outbox.pending(7, limit)).map((entry) => entry.sequence);
      assert.deepEqual(
        sequences,
        Array.from({ length: Math.min(limit, 293) }, (_, at) => 8 + at),
      );
    }
  });

  test(`${name}: the entry that says that an object is clean has what its owner told of size and times`, async () => {
    await using world = await World.open(open);
    const volume = await world.file('v', VOLUME);
    const owned = await world.ownership.claim(world.mutation(), volume.fileid, ROUTER, null, null, 'c'.repeat(16));
    assert.ok(owned.kind === 'done');
    const { term } = owned.owner;
    await world.ownership.update(world.mutation(), volume.fileid, term, { protection: { kind: 'unprotected' } });
    const time = { seconds: 9, nanoseconds: 8 };
    const told = { fileid: volume.fileid, term, sizeBytes: 777, usedBytes: 512, atime: time, mtime: time, ctime: world.now() };
    await world.namespace.putOwnedAttributes(world.mutation(), [told]);
    const before = await outboxOf(world);
    assert.deepEqual(decodeAfterImage(before.at(-1)?.afterImage, 'test').inodes, []);
    await world.ownership.update(world.mutation(), volume.fileid, term, { protection: { kind: 'clean' } });
    const [entry, ...more] = (await outboxOf(world)).slice(before.length);
    assert.deepEqual(more, []);
    const image = decodeAfterImage(entry?.afterImage, 'test');
    assert.deepEqual(
      image.inodes.map(({ inode }) => inode),
      [await world.live(volume.fileid)],
    );
    assert.deepEqual([image.inodes[0]?.inode.sizeBytes, image.owners[0]?.owner.protection], [777, { kind: 'clean' }]);
  });

  test(`${name}: size and times that come with the word that an object is clean are in the same change, or with a term that is over in none`, async () => {
    await using world = await World.open(open);
    const volume = await world.file('v', VOLUME);
    const owned = await world.ownership.claim(world.mutation(), volume.fileid, ROUTER, null, null, 'c'.repeat(16));
    assert.ok(owned.kind === 'done');
    const { term } = owned.owner;
    const [atime, mtime] = [
      { seconds: 9, nanoseconds: 8 },
      { seconds: 7, nanoseconds: 6 },
    ];
    const attributes = { sizeBytes: 777, usedBytes: 512, atime, mtime, ctime: { seconds: 1, nanoseconds: 0 } };
    const clean = { protection: { kind: 'clean' }, attributes } as const;
    const before = await outboxOf(world);
    const late = await world.ownership.update(world.mutation(), volume.fileid, { ...term, nonce: 'd'.repeat(16) }, clean);
    assert.equal(late.kind, 'conflict');
    assert.equal((await world.live(volume.fileid)).sizeBytes, volume.sizeBytes);
    const usedBefore = (await world.namespace.usage()).usedBytes;
    assert.equal((await world.ownership.update(world.mutation(), volume.fileid, term, clean)).kind, 'done');
    const after = await world.live(volume.fileid);
    // The registry's ctime is the later one.
    assert.deepEqual([after.sizeBytes, after.usedBytes, after.atime, after.mtime, after.ctime], [777, 512, atime, mtime, volume.ctime]);
    assert.equal((await world.namespace.usage()).usedBytes, usedBefore - volume.usedBytes + 512);
    const [entry, ...more] = (await outboxOf(world)).slice(before.length);
    assert.deepEqual(more, []);
    const image = decodeAfterImage(entry?.afterImage, 'test');
    assert.deepEqual([image.inodes.map(({ inode }) => inode), image.owners[0]?.owner.protection], [[after], { kind: 'clean' }]);
    // Without that word they are a lazy copy: nothing is noted of them.
    await world.ownership.update(world.mutation(), volume.fileid, term, {
      protection: { kind: 'unprotected' },
      attributes: { ...attributes, sizeBytes: 778 },
    });
    assert.equal((await world.live(volume.fileid)).sizeBytes, 778);
    assert.deepEqual(decodeAfterImage((await outboxOf(world)).at(-1)?.afterImage, 'test').inodes, []);
  });

  test(`${name}: ownership, too, is made again from the outbox; applying an entry twice is harmless`, async () => {
    await using world = await World.open(open);
    const volume = await world.file('v', VOLUME);
    const gone = await world.file('w', VOLUME);
    const owned = await world.ownership.claim(world.mutation(), volume.fileid, ROUTER, null, null, 'c'.repeat(16));
    assert.ok(owned.kind === 'done');
    const { term } = owned.owner;
    await world.ownership.claim(world.mutation(), gone.fileid, ROUTER, null, null, 'd'.repeat(16));
    await world.ownership.update(world.mutation(), volume.fileid, term, {
      root: { checkpoint: 'x', uploadedSegment: 1, uploadedSequence: 2, closedEpochs: [{ term, lastSegment: 1, lastSequence: 2 }] },
      moving: { from: ROUTER, to: ROUTER, attempt: { ...term, counter: 5 } },
    });
    const moved = await world.file('m', VOLUME);
    const before = await world.ownership.claim(world.mutation(), moved.fileid, ROUTER, null, null, 'e'.repeat(16));
    assert.ok(before.kind === 'done');
    await world.registry.membership.join(OTHER_ROUTER, OTHER_INCARNATION, [], 'test');
    const begun = await world.ownership.beginMove(world.mutation(), moved.fileid, before.owner.term, OTHER_ROUTER, 'f'.repeat(16));
    assert.ok(begun.kind === 'done' && begun.owner.moving !== null);
    const { attempt } = begun.owner.moving;
    const given = await world.ownership.transfer(world.mutation(), moved.fileid, before.owner.term, attempt, null, { kind: 'unprotected' });
    assert.equal(given.kind, 'done');
    await world.namespace.setAttributes(world.mutation(), volume.fileid, { ...NO_CHANGES, mode: 0o600 }, null, null);
    await world.namespace.remove(world.mutation(), world.root, bytesOf('w'));
    await world.namespace.dropTombstone(world.mutation(), gone.fileid);
    const replay = new Replay();
    for (const entry of await outboxOf(world)) {
      replay.apply(entry);
      replay.applyImage(entry);
    }
    await replay.assertEqual(world);
    assert.equal(replay.owners.get(volume.fileid)?.counterMax, 5);
  });
}
