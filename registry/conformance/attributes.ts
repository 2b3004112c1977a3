/** Conformance: attributes, inline contents, the flip to class file, the owner's lazy copy, usage. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { FileId, Term } from '../../server/core/ids.ts';
import { compareTimestamp, type Timestamp } from '../../server/core/time.ts';
import type { Inode } from '../inode.ts';
import { bytesOf, INLINE, NO_CHANGES, type OpenRegistry, ROUTER, VOLUME, World } from './world.ts';

const T1: Timestamp = { seconds: 1_000, nanoseconds: 1 };
const T2: Timestamp = { seconds: 2_000, nanoseconds: 2 };

async function claimed(world: World, inode: Inode): Promise<Term> {
  const outcome = await world.ownership.claim(world.mutation(), inode.fileid, ROUTER, null, null, 'c'.repeat(16));
  assert.ok(outcome.kind === 'done');
  return outcome.owner.term;
}

export function attributesConformance(name: string, open: OpenRegistry): void {
  test(`${name}: setAttributes changes what is not null, and ctime`, async () => {
    await using world = await World.open(open);
    const before = await world.file('f');
    world.advanceWallMs(900);
    const first = await world.namespace.setAttributes(world.mutation(), before.fileid, { ...NO_CHANGES, mode: 0o170600, uid: 5 }, null, null);
    assert.deepEqual(first, { kind: 'changed', before, after: { ...before, mode: 0o600, uid: 5, ctime: world.now() } });
    assert.ok(first.kind === 'changed');
    world.advanceWallMs(900);
    const second = await world.namespace.setAttributes(
      world.mutation(),
      before.fileid,
      { ...NO_CHANGES, gid: 6, atime: T1, mtime: T2 },
      null,
      'inline',
    );
    assert.ok(second.kind === 'changed');
    assert.deepEqual(second.after, { ...first.after, gid: 6, atime: T1, mtime: T2, ctime: world.now() });
    assert.deepEqual(await world.find('f'), second.after);
  });

  test(`${name}: setAttributes works on directories, symlinks and owned objects, but for their size`, async () => {
    await using world = await World.open(open);
    const volume = await world.file('v', VOLUME);
    const d = await world.directory('d');
    for (const inode of [volume, d]) {
      const changed = await world.namespace.setAttributes(world.mutation(), inode.fileid, { ...NO_CHANGES, mode: 0o500 }, null, inode.class);
      assert.ok(changed.kind === 'changed' && changed.after.mode === 0o500);
      const sized = await world.namespace.setAttributes(world.mutation(), inode.fileid, { ...NO_CHANGES, sizeBytes: 10 }, null, null);
      assert.deepEqual(sized, { kind: 'class-changed', inode: changed.after });
    }
  });

  test(`${name}: setAttributes answers guard-mismatch, class-changed and stale without effect`, async () => {
    await using world = await World.open(open);
    const inode = await world.file('f');
    const sequence = await world.sequence();
    const changes = { ...NO_CHANGES, mode: 0o777 };
    const other = { seconds: inode.ctime.seconds, nanoseconds: inode.ctime.nanoseconds + 1 };
    assert.deepEqual(await world.namespace.setAttributes(world.mutation(), inode.fileid, changes, other, null), { kind: 'guard-mismatch', inode });
    assert.deepEqual(await world.namespace.setAttributes(world.mutation(), inode.fileid, changes, null, 'file'), { kind: 'class-changed', inode });
    assert.deepEqual(await world.namespace.setAttributes(world.mutation(), 999_999 as FileId, changes, null, null), { kind: 'stale' });
    const nothing = await world.namespace.setAttributes(world.mutation(), inode.fileid, NO_CHANGES, inode.ctime, 'inline');
    assert.deepEqual(nothing, { kind: 'changed', before: inode, after: inode });
    assert.equal(await world.sequence(), sequence);
    const guarded = await world.namespace.setAttributes(world.mutation(), inode.fileid, changes, inode.ctime, null);
    assert.equal(guarded.kind, 'changed');
  });

  test(`${name}: of two guarded changes with the same ctime one wins`, async () => {
    await using world = await World.open(open);
    const inode = await world.file('f');
    const outcomes = await Promise.all(
      [1, 2, 3].map((uid) => world.namespace.setAttributes(world.mutation(), inode.fileid, { ...NO_CHANGES, uid }, inode.ctime, null)),
    );
    assert.deepEqual(outcomes.map((outcome) => outcome.kind).sort(), ['changed', 'guard-mismatch', 'guard-mismatch']);
  });

  test(`${name}: times never run backwards, whatever the caller's clock says`, async () => {
    await using world = await World.open(open);
    const inode = await world.file('f');
    let last = inode;
    let directory = await world.live(world.root);
    const past = { seconds: 1, nanoseconds: 0 };
    for (let round = 0; round < 3; round += 1) {
      const changed = await world.namespace.setAttributes(world.mutation({ now: past }), inode.fileid, { ...NO_CHANGES, uid: round }, null, null);
      assert.ok(changed.kind === 'changed');
      assert.deepEqual(changed.after.ctime, { seconds: last.ctime.seconds, nanoseconds: last.ctime.nanoseconds + 1 });
      last = changed.after;
      const created = await world.namespace.createFile(world.mutation({ now: past }), world.root, bytesOf(`x${round}`), INLINE);
      assert.ok(created.kind === 'created');
      assert.ok(compareTimestamp(created.directory.after.mtime, directory.mtime) > 0);
      assert.ok(compareTimestamp(created.directory.after.ctime, directory.ctime) > 0);
      directory = created.directory.after;
    }
  });

  test(`${name}: the last time that fits on the wire does not overflow`, async () => {
    await using world = await World.open(open);
    const inode = await world.file('f');
    const end = { seconds: 0xffff_ffff, nanoseconds: 999_999_999 };
    await world.namespace.setAttributes(world.mutation(), inode.fileid, { ...NO_CHANGES, mtime: end }, null, null);
    const written = await world.namespace.writeInline(world.mutation(), inode.fileid, 0, bytesOf('x'));
    assert.ok(written.kind === 'written');
    assert.deepEqual(written.after.mtime, end);
  });

  test(`${name}: writeInline changes contents, size, mtime and ctime in one step`, async () => {
    await using world = await World.open(open);
    const before = await world.file('f');
    world.advanceWallMs(100);
    const first = await world.namespace.writeInline(world.mutation(), before.fileid, 0, bytesOf('hello'));
    const now = world.now();
    assert.ok(first.kind === 'written');
    assert.deepEqual(first.before, before);
    assert.deepEqual(first.after, { ...before, sizeBytes: 5, usedBytes: 512, inlineBytes: bytesOf('hello'), mtime: now, ctime: now });
    const second = await world.namespace.writeInline(world.mutation(), before.fileid, 7, bytesOf('xy'));
    assert.ok(second.kind === 'written');
    assert.deepEqual([second.after.sizeBytes, second.after.inlineBytes], [9, bytesOf('hello\0\0xy')]);
    const third = await world.namespace.writeInline(world.mutation(), before.fileid, 1, bytesOf('E'));
    assert.ok(third.kind === 'written');
    assert.deepEqual([third.after.sizeBytes, third.after.inlineBytes], [9, bytesOf('hEllo\0\0xy')]);
    await world.reopen();
    assert.deepEqual(await world.find('f'), third.after);
    const borrowed = Buffer.from('..ZZ..');
    const pending = world.namespace.writeInline(world.mutation(), before.fileid, 0, borrowed.subarray(2, 4));
    borrowed.fill(0);
    await pending;
    assert.deepEqual((await world.live(before.fileid)).inlineBytes, bytesOf('ZZllo\0\0xy'));
  });

  test(`${name}: writeInline fills the limit exactly and refuses one byte more, however long the write is`, async () => {
    await using world = await World.open(open);
    const max = world.namespace.inlineBytesMax;
    const inode = await world.file('f');
    const full = await world.namespace.writeInline(world.mutation(), inode.fileid, 0, new Uint8Array(max).fill(7));
    assert.ok(full.kind === 'written');
    assert.deepEqual([full.after.sizeBytes, full.after.usedBytes], [max, Math.ceil(max / 512) * 512]);
    for (const [offset, length] of [
      [max, 1],
      [1, max],
      [0, max + 1],
      [0, 1_000_000],
      [2 ** 52, 1],
    ] as const) {
      const refused = await world.namespace.writeInline(world.mutation(), inode.fileid, offset, new Uint8Array(length));
      assert.deepEqual(refused, { kind: 'too-large', inode: full.after });
    }
    assert.deepEqual(await world.live(inode.fileid), full.after);
  });

  test(`${name}: RFC 1813 §3.3.7: a write of 0 bytes succeeds and changes nothing`, async () => {
    await using world = await World.open(open);
    const inode = await world.file('f');
    const sequence = await world.sequence();
    assert.deepEqual(await world.namespace.writeInline(world.mutation(), inode.fileid, 1_000_000, new Uint8Array(0)), {
      kind: 'written',
      before: inode,
      after: inode,
    });
    assert.equal(await world.sequence(), sequence);
  });

  test(`${name}: writeInline of what is not inline answers class-changed, of what is gone stale`, async () => {
    await using world = await World.open(open);
    const volume = await world.file('v', VOLUME);
    const d = await world.directory('d');
    for (const inode of [volume, d]) {
      assert.deepEqual(await world.namespace.writeInline(world.mutation(), inode.fileid, 0, bytesOf('x')), { kind: 'class-changed', inode });
    }
    assert.deepEqual(await world.namespace.writeInline(world.mutation(), 999_999 as FileId, 0, bytesOf('x')), { kind: 'stale' });
  });

  test(`${name}: concurrent inline writes of different bytes all arrive`, async () => {
    await using world = await World.open(open);
    const inode = await world.file('f');
    await Promise.all(
      Array.from({ length: 50 }, (_, at) => world.namespace.writeInline(world.mutation(), inode.fileid, at, new Uint8Array([at + 1]))),
    );
    assert.deepEqual(
      (await world.live(inode.fileid)).inlineBytes,
      Uint8Array.from({ length: 50 }, (_, at) => at + 1),
    );
  });

  test(`${name}: the size of an inline file: shrinking forgets bytes, growing shows zeros, up to the limit`, async () => {
    await using world = await World.open(open);
    const inode = await world.file('f');
    await world.namespace.writeInline(world.mutation(), inode.fileid, 0, bytesOf('abcdef'));
    const size = async (sizeBytes: number): Promise<Inode> => {
      world.advanceWallMs(10);
      const outcome = await world.namespace.setAttributes(world.mutation(), inode.fileid, { ...NO_CHANGES, sizeBytes }, null, 'inline');
      assert.ok(outcome.kind === 'changed');
      assert.deepEqual([outcome.after.mtime, outcome.after.ctime], [world.now(), world.now()]);
      return outcome.after;
    };
    const cut = await size(3);
    assert.deepEqual([cut.sizeBytes, cut.inlineBytes], [3, bytesOf('abc')]);
    const grown = await size(world.namespace.inlineBytesMax);
    assert.deepEqual([grown.sizeBytes, grown.inlineBytes], [world.namespace.inlineBytesMax, bytesOf('abc')]);
    const written = await world.namespace.writeInline(world.mutation(), inode.fileid, 5, bytesOf('x'));
    assert.ok(written.kind === 'written');
    assert.deepEqual([written.after.sizeBytes, written.after.inlineBytes], [grown.sizeBytes, bytesOf('abc\0\0x')]);
    const empty = await size(0);
    assert.deepEqual([empty.sizeBytes, empty.usedBytes, empty.inlineBytes], [0, 0, new Uint8Array(0)]);
    const over = { ...NO_CHANGES, sizeBytes: world.namespace.inlineBytesMax + 1 };
    assert.deepEqual(await world.namespace.setAttributes(world.mutation(), inode.fileid, over, null, 'inline'), {
      kind: 'class-changed',
      inode: empty,
    });
    const stamped = await world.namespace.setAttributes(world.mutation(), inode.fileid, { ...NO_CHANGES, sizeBytes: 1, mtime: T1 }, null, null);
    assert.ok(stamped.kind === 'changed');
    assert.deepEqual(stamped.after.mtime, T1);
    await world.assertSound();
  });

  test(`${name}: flipToFile keeps the bytes as the base until the owner drops them`, async () => {
    await using world = await World.open(open);
    const inode = await world.file('f');
    await world.namespace.writeInline(world.mutation(), inode.fileid, 0, bytesOf('base'));
    const flipped = await world.namespace.flipToFile(world.mutation(), inode.fileid);
    assert.ok(flipped.kind === 'changed');
    assert.deepEqual(flipped.after, { ...flipped.before, class: 'file' });
    assert.deepEqual(flipped.after.inlineBytes, bytesOf('base'));
    assert.equal(flipped.after.uuid, inode.uuid);
    assert.deepEqual(await world.namespace.flipToFile(world.mutation(), inode.fileid), {
      kind: 'changed',
      before: flipped.after,
      after: flipped.after,
    });
    assert.deepEqual(await world.namespace.writeInline(world.mutation(), inode.fileid, 0, bytesOf('x')), {
      kind: 'class-changed',
      inode: flipped.after,
    });
    const term = await claimed(world, inode);
    await world.namespace.dropInlineBase(world.mutation(), inode.fileid, { ...term, nonce: 'd'.repeat(16) });
    assert.deepEqual((await world.live(inode.fileid)).inlineBytes, bytesOf('base'), 'another term drops nothing');
    await world.namespace.dropInlineBase(world.mutation(), inode.fileid, term);
    assert.deepEqual(await world.live(inode.fileid), { ...flipped.after, inlineBytes: null });
    await world.namespace.dropInlineBase(world.mutation(), inode.fileid, term);
    const volume = await world.file('v', VOLUME);
    assert.deepEqual(await world.namespace.flipToFile(world.mutation(), volume.fileid), { kind: 'class-changed', inode: volume });
    assert.deepEqual(await world.namespace.flipToFile(world.mutation(), 999_999 as FileId), { kind: 'stale' });
    await world.assertSound();
  });

  test(`${name}: putOwnedAttributes copies size, used and times of the owner's term and touches nothing else`, async () => {
    await using world = await World.open(open);
    const one = await world.file('one', VOLUME);
    const two = await world.file('two', VOLUME);
    const gone = await world.file('gone', VOLUME);
    const [termOne, termTwo, termGone] = [await claimed(world, one), await claimed(world, two), await claimed(world, gone)];
    await world.namespace.remove(world.mutation(), world.root, bytesOf('gone'));
    await world.namespace.setAttributes(world.mutation(), one.fileid, { ...NO_CHANGES, mode: 0o600, uid: 3, gid: 4 }, null, null);
    const before = await world.live(one.fileid);
    const sequence = await world.sequence();
    const future = { seconds: 4_000_000_000, nanoseconds: 9 };
    const copy = { sizeBytes: 70_000, usedBytes: 8_192, atime: T1, mtime: T2, ctime: future };
    await world.namespace.putOwnedAttributes(world.mutation(), [
      { fileid: one.fileid, term: termOne, ...copy },
      { fileid: two.fileid, term: { ...termTwo, counter: termTwo.counter + 1 }, ...copy },
      { fileid: gone.fileid, term: termGone, ...copy },
      { fileid: 999_999 as FileId, term: termOne, ...copy },
    ]);
    assert.deepEqual(await world.live(one.fileid), { ...before, ...copy });
    assert.deepEqual(await world.live(two.fileid), two, 'not the term of its owner: ignored');
    assert.deepEqual(await world.namespace.usage(), { inodes: 3, usedBytes: 4_096 + 8_192 });
    await world.namespace.putOwnedAttributes(world.mutation(), [{ fileid: one.fileid, term: termOne, ...copy, ctime: T1 }]);
    assert.deepEqual((await world.live(one.fileid)).ctime, future, 'ctime does not run backwards');
    await world.namespace.putOwnedAttributes(world.mutation(), []);
    assert.equal(await world.sequence(), sequence);
    await world.assertSound();
  });

  test(`${name}: a verb that fails half-way leaves nothing of its first half, and other verbs of the moment are not touched`, async () => {
    await using world = await World.open(open);
    const one = await world.file('one', VOLUME);
    const two = await world.file('two', VOLUME);
    const copy = { usedBytes: 8_192, atime: T1, mtime: T2, ctime: T2 };
    const batch = [
      { fileid: one.fileid, term: await claimed(world, one), sizeBytes: 70_000, ...copy },
      { fileid: two.fileid, term: await claimed(world, two), sizeBytes: -1, ...copy },
    ];
    const usage = await world.namespace.usage();
    const [failed, created] = await Promise.allSettled([world.namespace.putOwnedAttributes(world.mutation(), batch), world.file('three')]);
    assert.ok(failed.status === 'rejected' && failed.reason instanceof Error && failed.reason.name === 'AssertionError');
    assert.equal(created.status, 'fulfilled');
    assert.deepEqual(await world.live(one.fileid), one);
    assert.deepEqual(await world.namespace.usage(), { ...usage, inodes: usage.inodes + 1 });
    await world.assertSound();
  });

  test(`${name}: usage follows every change without a scan`, async () => {
    await using world = await World.open(open);
    const inode = await world.file('f');
    const d = await world.directory('d');
    await world.namespace.writeInline(world.mutation(), inode.fileid, 0, new Uint8Array(600));
    assert.deepEqual(await world.namespace.usage(), { inodes: 3, usedBytes: 4_096 + 4_096 + 1_024 });
    await world.namespace.link(world.mutation(), inode.fileid, d.fileid, bytesOf('g'));
    await world.namespace.remove(world.mutation(), world.root, bytesOf('f'));
    assert.deepEqual(await world.namespace.usage(), { inodes: 3, usedBytes: 4_096 + 4_096 + 1_024 });
    await world.namespace.remove(world.mutation(), d.fileid, bytesOf('g'));
    await world.namespace.removeDirectory(world.mutation(), world.root, bytesOf('d'));
    assert.deepEqual(await world.namespace.usage(), { inodes: 1, usedBytes: 4_096 });
    await world.reopen();
    assert.deepEqual(await world.namespace.usage(), { inodes: 1, usedBytes: 4_096 });
  });
}
