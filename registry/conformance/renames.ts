/** Conformance: RENAME. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { FileId } from '../../server/core/ids.ts';
import { compareTimestamp } from '../../server/core/time.ts';
import type { RenameOutcome } from '../ports.ts';
import { bytesOf, type OpenRegistry, VOLUME, World } from './world.ts';

function rename(world: World, from: FileId, fromName: string, to: FileId, toName: string): Promise<RenameOutcome> {
  return world.namespace.rename(world.mutation(), from, bytesOf(fromName), to, bytesOf(toName));
}

export function renamesConformance(name: string, open: OpenRegistry): void {
  test(`${name}: rename moves a name between directories in one step and keeps the inode`, async () => {
    await using world = await World.open(open);
    const d = await world.directory('d');
    const file = await world.file('a', VOLUME);
    const root = await world.live(world.root);
    world.advanceWallMs(700);
    const outcome = await rename(world, world.root, 'a', d.fileid, 'b');
    assert.ok(outcome.kind === 'renamed');
    assert.deepEqual(outcome.inode, { ...file, ctime: world.now() });
    assert.equal(outcome.replaced, null);
    assert.deepEqual([outcome.from.before, outcome.to.before], [root, d]);
    assert.deepEqual([outcome.from.after, outcome.to.after], [await world.live(world.root), await world.live(d.fileid)]);
    assert.deepEqual([outcome.from.after.mtime, outcome.to.after.mtime], [world.now(), world.now()]);
    assert.equal(await world.find('a'), null);
    assert.deepEqual(await world.find('b', d.fileid), outcome.inode);
    await world.assertSound();
  });

  test(`${name}: rename within one directory answers the same change twice`, async () => {
    await using world = await World.open(open);
    await world.file('a');
    const outcome = await rename(world, world.root, 'a', world.root, 'b');
    assert.ok(outcome.kind === 'renamed');
    assert.deepEqual(outcome.from, outcome.to);
    assert.ok(compareTimestamp(outcome.from.after.mtime, outcome.from.before.mtime) > 0);
    assert.deepEqual(await world.names(), ['b']);
    await world.assertSound();
  });

  test(`${name}: rename over a file replaces it: its last name is gone, its tombstone stays while it has data`, async () => {
    await using world = await World.open(open);
    const source = await world.file('new', VOLUME);
    const target = await world.file('old', VOLUME);
    const outcome = await rename(world, world.root, 'new', world.root, 'old');
    assert.ok(outcome.kind === 'renamed');
    assert.deepEqual([outcome.replaced?.fileid, outcome.replaced?.state, outcome.replaced?.nlink], [target.fileid, 'unlinked', 0]);
    assert.equal((await world.find('old'))?.fileid, source.fileid);
    assert.equal(await world.inode(target.fileid), null);
    assert.deepEqual(
      (await world.namespace.tombstones(0 as FileId, 10)).map((tombstone) => tombstone.inode.fileid),
      [target.fileid],
    );
    assert.deepEqual(await world.names(), ['old']);
    await world.assertSound();
  });

  test(`${name}: rename over one of several names of a file takes only that one`, async () => {
    await using world = await World.open(open);
    const target = await world.file('one');
    await world.namespace.link(world.mutation(), target.fileid, world.root, bytesOf('two'));
    await world.file('new');
    const outcome = await rename(world, world.root, 'new', world.root, 'one');
    assert.ok(outcome.kind === 'renamed');
    assert.deepEqual([outcome.replaced?.nlink, outcome.replaced?.state], [1, 'live']);
    assert.equal((await world.find('two'))?.fileid, target.fileid);
    await world.assertSound();
  });

  test(`${name}: RFC 1813 §3.3.14: two names of the same file: rename does nothing and succeeds`, async () => {
    await using world = await World.open(open);
    const file = await world.file('one');
    await world.namespace.link(world.mutation(), file.fileid, world.root, bytesOf('two'));
    const root = await world.live(world.root);
    const sequence = await world.sequence();
    assert.deepEqual(await rename(world, world.root, 'one', world.root, 'two'), { kind: 'unchanged', from: root, to: root });
    assert.deepEqual(await rename(world, world.root, 'one', world.root, 'one'), { kind: 'unchanged', from: root, to: root });
    assert.deepEqual(await world.names(), ['one', 'two']);
    assert.equal(await world.sequence(), sequence);
  });

  test(`${name}: a directory moves with everything below it; parents count their subdirectories`, async () => {
    await using world = await World.open(open);
    const a = await world.directory('a');
    const b = await world.directory('b');
    const child = await world.directory('child', a.fileid);
    const file = await world.file('f', {}, child.fileid);
    const outcome = await rename(world, a.fileid, 'child', b.fileid, 'moved');
    assert.ok(outcome.kind === 'renamed');
    assert.equal(outcome.inode.parent, b.fileid);
    assert.deepEqual([outcome.from.after.nlink, outcome.to.after.nlink], [2, 3]);
    assert.deepEqual(await world.find('f', child.fileid), file);
    await world.assertSound();
  });

  test(`${name}: a directory replaces an empty directory, never one with something in it`, async () => {
    await using world = await World.open(open);
    const a = await world.directory('a');
    const empty = await world.directory('empty');
    const full = await world.directory('full');
    await world.file('inside', {}, full.fileid);
    const root = await world.live(world.root);
    assert.deepEqual(await rename(world, world.root, 'a', world.root, 'full'), { kind: 'target-not-empty', from: root, to: root });
    const outcome = await rename(world, world.root, 'a', world.root, 'empty');
    assert.ok(outcome.kind === 'renamed');
    assert.deepEqual([outcome.replaced?.fileid, outcome.replaced?.state], [empty.fileid, 'unlinked']);
    assert.equal(outcome.to.after.nlink, root.nlink - 1);
    assert.equal((await world.find('empty'))?.fileid, a.fileid);
    assert.equal(await world.inode(empty.fileid), null);
    await world.assertSound();
  });

  test(`${name}: a directory from elsewhere replaces an empty one: link counts of both parents are right`, async () => {
    await using world = await World.open(open);
    const a = await world.directory('a');
    const b = await world.directory('b');
    await world.directory('x', a.fileid);
    await world.directory('y', b.fileid);
    const outcome = await rename(world, a.fileid, 'x', b.fileid, 'y');
    assert.ok(outcome.kind === 'renamed');
    assert.deepEqual([outcome.from.after.nlink, outcome.to.after.nlink], [2, 3]);
    await world.assertSound();
  });

  test(`${name}: RFC 1813 §3.3.14: a file over a directory or the reverse answers target-exists`, async () => {
    await using world = await World.open(open);
    await world.directory('d');
    await world.file('f');
    const root = await world.live(world.root);
    assert.deepEqual(await rename(world, world.root, 'f', world.root, 'd'), { kind: 'target-exists', from: root, to: root });
    assert.deepEqual(await rename(world, world.root, 'd', world.root, 'f'), { kind: 'target-exists', from: root, to: root });
    assert.deepEqual(await world.names(), ['d', 'f']);
  });

  test(`${name}: a directory cannot move into itself or below`, async () => {
    await using world = await World.open(open);
    const a = await world.directory('a');
    const b = await world.directory('b', a.fileid);
    const c = await world.directory('c', b.fileid);
    for (const target of [a, b, c]) {
      assert.equal((await rename(world, world.root, 'a', target.fileid, 'x')).kind, 'invalid');
    }
    assert.equal((await rename(world, b.fileid, 'c', world.root, 'a')).kind, 'target-not-empty');
    await world.assertSound();
  });

  test(`${name}: two renames that would form a cycle together: exactly one is done`, async () => {
    await using world = await World.open(open);
    const a = await world.directory('a');
    const b = await world.directory('b');
    const outcomes = await Promise.all([rename(world, world.root, 'a', b.fileid, 'a'), rename(world, world.root, 'b', a.fileid, 'b')]);
    assert.equal(outcomes.filter((outcome) => outcome.kind === 'renamed').length, 1);
    await world.assertSound();
  });

  test(`${name}: rename says which directory is stale or none, and whether the source is absent`, async () => {
    await using world = await World.open(open);
    const file = await world.file('f');
    const missing = 999_999 as FileId;
    const root = await world.live(world.root);
    assert.deepEqual(await rename(world, missing, 'f', world.root, 'g'), { kind: 'stale', which: 'from' });
    assert.deepEqual(await rename(world, world.root, 'f', missing, 'g'), { kind: 'stale', which: 'to' });
    assert.deepEqual(await rename(world, file.fileid, 'f', world.root, 'g'), { kind: 'not-directory', which: 'from' });
    assert.deepEqual(await rename(world, world.root, 'f', file.fileid, 'g'), { kind: 'not-directory', which: 'to' });
    assert.deepEqual(await rename(world, world.root, 'none', world.root, 'f'), { kind: 'absent', from: root, to: root });
    assert.deepEqual(await world.names(), ['f']);
  });
}
