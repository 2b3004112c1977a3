/** Conformance: names are made, looked up, listed and removed atomically. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { FileId } from '../../server/core/ids.ts';
import { compareTimestamp } from '../../server/core/time.ts';
import { bytesOf, createdInode, INLINE, type OpenRegistry, rejectsWith, textOf, VOLUME, World } from './world.ts';

export function namesConformance(name: string, open: OpenRegistry): void {
  test(`${name}: a new vPool has a root directory, its own parent, with mode 0755, two links and nothing in it`, async () => {
    await using world = await World.open(open);
    const root = await world.live(world.root);
    assert.deepEqual(
      [root.type, root.class, root.state, root.mode, root.uid, root.gid, root.nlink, root.parent, root.sizeBytes],
      ['directory', 'none', 'live', 0o755, 0, 0, 2, world.root, 4096],
    );
    assert.ok(root.fileid > 63);
    assert.deepEqual(await world.names(), []);
    assert.deepEqual(await world.namespace.usage(), { inodes: 1, usedBytes: 4096 });
    await world.assertSound();
  });

  test(`${name}: createFile makes an inode with what was asked and answers the directory before and after`, async () => {
    await using world = await World.open(open);
    const before = await world.live(world.root);
    world.advanceWallMs(1_000);
    const outcome = await world.namespace.createFile(world.mutation(), world.root, bytesOf('vm.vmx'), {
      ...INLINE,
      mode: 0o7640,
      sizeBytes: 12,
      atime: { seconds: 5, nanoseconds: 6 },
      exclusiveVerifier: bytesOf('12345678'),
    });
    assert.ok(outcome.kind === 'created');
    const { inode, directory } = outcome;
    assert.deepEqual(directory.before, before);
    assert.deepEqual(directory.after, await world.live(world.root));
    assert.deepEqual([directory.after.mtime, directory.after.ctime], [world.now(), world.now()]);
    assert.deepEqual(directory.after.atime, before.atime);
    assert.deepEqual(
      [inode.type, inode.class, inode.state, inode.mode, inode.uid, inode.gid, inode.nlink],
      ['file', 'inline', 'live', 0o7640, 1000, 100, 1],
    );
    assert.deepEqual([inode.sizeBytes, inode.usedBytes, inode.parent, inode.symlinkTarget], [12, 0, null, null]);
    assert.deepEqual([inode.atime, inode.mtime, inode.ctime], [{ seconds: 5, nanoseconds: 6 }, world.now(), world.now()]);
    assert.deepEqual(inode.exclusiveVerifier, bytesOf('12345678'));
    assert.deepEqual(inode.inlineBytes, new Uint8Array(0));
    assert.match(String(inode.uuid), /^[0-9a-f]{32}$/);
    assert.deepEqual(await world.find('vm.vmx'), inode);
    assert.deepEqual(await world.namespace.inode(inode.fileid, inode.inodeGeneration), inode);
    assert.equal(await world.namespace.inode(inode.fileid, inode.inodeGeneration + 1), null);
    assert.deepEqual(await world.namespace.lookup(world.root, bytesOf('vm.vmx')), { kind: 'found', inode, directory: directory.after });
  });

  test(`${name}: a volume has a size, an identity of its own and no inline bytes`, async () => {
    await using world = await World.open(open);
    const one = await world.file('a-flat.vmdk', VOLUME);
    const two = await world.file('b-flat.vmdk', VOLUME);
    assert.deepEqual([one.class, one.sizeBytes, one.usedBytes, one.inlineBytes], ['volume', 1_048_576, 0, null]);
    assert.notEqual(one.uuid, two.uuid);
    assert.notEqual(one.fileid, two.fileid);
    assert.notEqual(one.inodeGeneration, two.inodeGeneration);
  });

  test(`${name}: a taken name answers exists with the inode that has it, and changes nothing`, async () => {
    await using world = await World.open(open);
    const first = await world.file('x', { exclusiveVerifier: bytesOf('abcdefgh') });
    const sequence = await world.sequence();
    const directory = await world.live(world.root);
    world.advanceWallMs(1_000);
    assert.deepEqual(await world.namespace.createFile(world.mutation(), world.root, bytesOf('x'), VOLUME), {
      kind: 'exists',
      inode: first,
      directory,
    });
    const attributes = { mode: 0o755, uid: 0, gid: 0, atime: null, mtime: null };
    assert.equal((await world.namespace.createDirectory(world.mutation(), world.root, bytesOf('x'), attributes)).kind, 'exists');
    assert.equal((await world.namespace.createSymlink(world.mutation(), world.root, bytesOf('x'), bytesOf('y'), attributes)).kind, 'exists');
    assert.equal((await world.namespace.link(world.mutation(), first.fileid, world.root, bytesOf('x'))).kind, 'exists');
    assert.deepEqual(await world.live(world.root), directory);
    assert.equal(await world.sequence(), sequence);
  });

  test(`${name}: of N concurrent creates of one name exactly one wins, and the others see its inode`, async () => {
    await using world = await World.open(open);
    const outcomes = await Promise.all(
      Array.from({ length: 40 }, (_, index) =>
        world.namespace.createFile(world.mutation({ operationId: `c${index}|1` }), world.root, bytesOf('lock'), INLINE),
      ),
    );
    const winners = outcomes.filter((outcome) => outcome.kind === 'created');
    assert.equal(winners.length, 1);
    const winner = winners[0];
    assert.ok(winner?.kind === 'created');
    for (const outcome of outcomes)
      assert.ok(outcome.kind === 'created' || (outcome.kind === 'exists' && outcome.inode.fileid === winner.inode.fileid));
    assert.deepEqual(await world.names(), ['lock']);
  });

  test(`${name}: names are bytes: case and every byte but NUL and slash count, up to 255 of them`, async () => {
    await using world = await World.open(open);
    const odd = ['Disk', 'disk', 'DISK', 'd\xefsk', '\x01', ' ', '...', 'é'.normalize('NFD'), 'é'.normalize('NFC'), 'n'.repeat(255)];
    for (const text of odd) await world.file(text);
    assert.deepEqual(
      await world.names(),
      odd.map((text) => textOf(bytesOf(text))),
    );
    for (const text of odd) assert.notEqual(await world.find(text), null);
    assert.equal(await world.find('dISK'), null);
    const borrowed = Buffer.from('xxNAMExx');
    const pending = world.namespace.createFile(world.mutation(), world.root, borrowed.subarray(2, 6), INLINE);
    borrowed.fill(0);
    await pending;
    assert.notEqual(await world.find('NAME'), null, 'a name is copied when the verb is called');
  });

  test(`${name}: impossible names are refused as the caller's bug`, async () => {
    await using world = await World.open(open);
    for (const text of ['', '.', '..', 'a/b', 'a\0b', 'n'.repeat(256)]) {
      await assert.rejects(world.namespace.createFile(world.mutation(), world.root, bytesOf(text), INLINE), { name: 'AssertionError' });
    }
    assert.deepEqual(await world.names(), []);
    await world.assertSound();
  });

  test(`${name}: createDirectory and createSymlink make what they say; a directory counts its subdirectories`, async () => {
    await using world = await World.open(open);
    const attributes = { mode: 0o700, uid: 7, gid: 8, atime: { seconds: 1, nanoseconds: 2 }, mtime: { seconds: 3, nanoseconds: 4 } };
    const made = await world.namespace.createDirectory(world.mutation(), world.root, bytesOf('vm1'), attributes);
    assert.ok(made.kind === 'created');
    assert.deepEqual(
      [made.inode.type, made.inode.nlink, made.inode.parent, made.inode.mode, made.inode.sizeBytes],
      ['directory', 2, world.root, 0o700, 4096],
    );
    assert.deepEqual([made.inode.atime, made.inode.mtime, made.inode.uuid], [attributes.atime, attributes.mtime, null]);
    assert.equal(made.directory.after.nlink, 3);
    const symlink = createdInode(
      await world.namespace.createSymlink(world.mutation(), made.inode.fileid, bytesOf('s'), bytesOf('../\xff'), attributes),
    );
    assert.deepEqual(
      [symlink.type, symlink.class, symlink.sizeBytes, symlink.symlinkTarget, symlink.nlink],
      ['symlink', 'none', 4, bytesOf('../\xff'), 1],
    );
    const empty = createdInode(await world.namespace.createSymlink(world.mutation(), made.inode.fileid, bytesOf('e'), new Uint8Array(0), attributes));
    assert.deepEqual(empty.symlinkTarget, new Uint8Array(0));
    assert.equal((await world.live(made.inode.fileid)).nlink, 2);
    await world.assertSound();
  });

  test(`${name}: verbs in something that is no live directory answer stale or not-directory`, async () => {
    await using world = await World.open(open);
    const file = await world.file('f');
    const gone = await world.directory('gone');
    await world.namespace.removeDirectory(world.mutation(), world.root, bytesOf('gone'));
    const sequence = await world.sequence();
    const attributes = { mode: 0o755, uid: 0, gid: 0, atime: null, mtime: null };
    const x = bytesOf('x');
    for (const [directory, expected] of [
      [gone.fileid, { kind: 'stale' }],
      [999_999 as FileId, { kind: 'stale' }],
      [file.fileid, { kind: 'not-directory', inode: file }],
    ] as const) {
      assert.deepEqual(await world.namespace.lookup(directory, x), expected);
      assert.deepEqual(await world.namespace.entries(directory, 0, 10), expected);
      assert.deepEqual(await world.namespace.createFile(world.mutation(), directory, x, INLINE), expected);
      assert.deepEqual(await world.namespace.createDirectory(world.mutation(), directory, x, attributes), expected);
      assert.deepEqual(await world.namespace.createSymlink(world.mutation(), directory, x, x, attributes), expected);
      assert.deepEqual(await world.namespace.remove(world.mutation(), directory, x), expected);
      assert.deepEqual(await world.namespace.removeDirectory(world.mutation(), directory, x), expected);
      assert.deepEqual(await world.namespace.link(world.mutation(), file.fileid, directory, x), expected);
    }
    assert.equal(await world.sequence(), sequence);
  });

  test(`${name}: remove takes one name; the last one ends an inline file at once and leaves a volume as a tombstone`, async () => {
    await using world = await World.open(open);
    const small = await world.file('small');
    const volume = await world.file('volume', VOLUME);
    world.advanceWallMs(500);
    const removed = await world.namespace.remove(world.mutation(), world.root, bytesOf('small'));
    assert.ok(removed.kind === 'removed');
    assert.deepEqual(
      [removed.inode.fileid, removed.inode.nlink, removed.inode.state, removed.inode.ctime],
      [small.fileid, 0, 'unlinked', world.now()],
    );
    assert.deepEqual(removed.directory.after, await world.live(world.root));
    assert.equal(await world.inode(small.fileid), null);
    assert.deepEqual(await world.namespace.tombstones(0 as FileId, 10), []);

    const unlinked = await world.namespace.remove(world.mutation(), world.root, bytesOf('volume'));
    assert.ok(unlinked.kind === 'removed');
    assert.equal(await world.inode(volume.fileid), null, 'its handle is stale');
    assert.deepEqual(await world.namespace.tombstones(0 as FileId, 10), [{ inode: unlinked.inode, sinceMs: Math.floor(world.wallMs()) }]);
    assert.deepEqual(await world.namespace.tombstones(volume.fileid, 10), []);
    assert.deepEqual(await world.namespace.usage(), { inodes: 1, usedBytes: 4096 });
    await world.reopen();
    assert.equal((await world.namespace.tombstones(0 as FileId, 10)).length, 1);
    await world.namespace.dropTombstone(world.mutation(), volume.fileid);
    await world.namespace.dropTombstone(world.mutation(), volume.fileid);
    assert.deepEqual(await world.namespace.tombstones(0 as FileId, 10), []);
    await world.assertSound();
  });

  test(`${name}: dropTombstone never takes a live inode`, async () => {
    await using world = await World.open(open);
    const volume = await world.file('volume', VOLUME);
    await world.namespace.dropTombstone(world.mutation(), volume.fileid);
    assert.deepEqual(await world.find('volume'), volume);
  });

  test(`${name}: remove and removeDirectory refuse the other's kind, absent names and directories with something in them`, async () => {
    await using world = await World.open(open);
    await world.file('f');
    const d = await world.directory('d');
    await world.file('inside', {}, d.fileid);
    const directory = await world.live(world.root);
    const { namespace } = world;
    assert.deepEqual(await namespace.remove(world.mutation(), world.root, bytesOf('d')), { kind: 'is-directory', directory });
    assert.deepEqual(await namespace.remove(world.mutation(), world.root, bytesOf('none')), { kind: 'absent', directory });
    assert.deepEqual(await namespace.removeDirectory(world.mutation(), world.root, bytesOf('f')), { kind: 'not-a-directory', directory });
    assert.deepEqual(await namespace.removeDirectory(world.mutation(), world.root, bytesOf('none')), { kind: 'absent', directory });
    assert.deepEqual(await namespace.removeDirectory(world.mutation(), world.root, bytesOf('d')), { kind: 'not-empty', directory });
    assert.deepEqual(await world.live(world.root), directory);
    await namespace.remove(world.mutation(), d.fileid, bytesOf('inside'));
    const removed = await namespace.removeDirectory(world.mutation(), world.root, bytesOf('d'));
    assert.ok(removed.kind === 'removed');
    assert.deepEqual([removed.inode.state, removed.directory.before.nlink, removed.directory.after.nlink], ['unlinked', 3, 2]);
    assert.equal(await world.inode(d.fileid), null);
    await world.assertSound();
  });

  test(`${name}: a number and a name that were removed come back as something else: numbers are never used twice`, async () => {
    await using world = await World.open(open);
    const seen = new Set<number>();
    for (let round = 0; round < 5; round += 1) {
      const inode = await world.file('again');
      assert.ok(!seen.has(inode.fileid));
      seen.add(inode.fileid);
      await world.namespace.remove(world.mutation(), world.root, bytesOf('again'));
      if (round % 2 === 1) await world.reopen();
    }
  });

  test(`${name}: link gives a file another name; it lives until its last one`, async () => {
    await using world = await World.open(open);
    const d = await world.directory('d');
    const file = await world.file('one', VOLUME);
    world.advanceWallMs(500);
    const linked = await world.namespace.link(world.mutation(), file.fileid, d.fileid, bytesOf('two'));
    assert.ok(linked.kind === 'linked');
    assert.deepEqual(linked.inode, { ...file, nlink: 2, ctime: world.now() });
    assert.deepEqual(linked.directory.after, await world.live(d.fileid));
    assert.deepEqual(await world.find('two', d.fileid), linked.inode);
    const removed = await world.namespace.remove(world.mutation(), world.root, bytesOf('one'));
    assert.ok(removed.kind === 'removed');
    assert.deepEqual([removed.inode.nlink, removed.inode.state], [1, 'live']);
    assert.ok(compareTimestamp(removed.inode.ctime, linked.inode.ctime) > 0);
    assert.deepEqual(await world.find('two', d.fileid), removed.inode);
    await world.namespace.remove(world.mutation(), d.fileid, bytesOf('two'));
    assert.equal(await world.inode(file.fileid), null);
    await world.assertSound();
  });

  test(`${name}: link refuses directories and objects that are gone`, async () => {
    await using world = await World.open(open);
    const d = await world.directory('d');
    const directory = await world.live(world.root);
    assert.deepEqual(await world.namespace.link(world.mutation(), d.fileid, world.root, bytesOf('x')), { kind: 'is-directory', directory });
    assert.deepEqual(await world.namespace.link(world.mutation(), 999_999 as FileId, world.root, bytesOf('x')), { kind: 'object-stale' });
    const volume = await world.file('v', VOLUME);
    await world.namespace.remove(world.mutation(), world.root, bytesOf('v'));
    assert.deepEqual(await world.namespace.link(world.mutation(), volume.fileid, world.root, bytesOf('x')), { kind: 'object-stale' });
  });

  test(`${name}: a file has at most 32000 names`, async () => {
    await using world = await World.open(open);
    const file = await world.file('f');
    for (let first = 1; first < 32_000; first += 1_000) {
      const last = Math.min(first + 1_000, 32_000);
      await Promise.all(
        Array.from({ length: last - first }, (_, at) => world.namespace.link(world.mutation(), file.fileid, world.root, bytesOf(`f${first + at}`))),
      );
    }
    assert.equal((await world.live(file.fileid)).nlink, 32_000);
    const refused = await world.namespace.link(world.mutation(), file.fileid, world.root, bytesOf('one-more'));
    assert.deepEqual(refused, { kind: 'too-many-links', directory: await world.live(world.root) });
    assert.equal((await world.list()).length, 32_000);
    await world.assertSound();
  });

  test(`${name}: a verb past its not-after time has no effect`, async () => {
    await using world = await World.open(open);
    const late = world.mutation({ notAfterMs: world.wallMs() - 1 });
    await rejectsWith(world.namespace.createFile(late, world.root, bytesOf('x'), INLINE), 'registry-unavailable');
    assert.deepEqual(await world.names(), []);
    await world.namespace.createFile(world.mutation({ notAfterMs: world.wallMs() + 60_000 }), world.root, bytesOf('x'), INLINE);
    assert.deepEqual(await world.names(), ['x']);
  });

  test(`${name}: a listing goes on behind a cookie, with the inodes of that instant`, async () => {
    await using world = await World.open(open);
    for (let index = 0; index < 25; index += 1) await world.file(`f${index}`);
    const all = await world.list();
    assert.deepEqual(
      all.map((entry) => textOf(entry.name)),
      Array.from({ length: 25 }, (_, index) => `f${index}`),
    );
    assert.ok(all.every((entry) => entry.cookie >= 3 && Number.isSafeInteger(entry.cookie)));
    for (const limit of [1, 7, 24, 25, 26]) assert.deepEqual(await world.list(world.root, limit), all);
    const exact = await world.namespace.entries(world.root, 0, 25);
    assert.ok(exact.kind === 'entries' && exact.eof && exact.directory.fileid === world.root);
    const behind = await world.namespace.entries(world.root, all[24]?.cookie ?? 0, 10);
    assert.ok(behind.kind === 'entries' && behind.eof && behind.entries.length === 0);
    for (const entry of all) assert.deepEqual(entry.inode, await world.live(entry.inode.fileid));
    const far = await world.namespace.entries(world.root, Number.MAX_SAFE_INTEGER, 10);
    assert.ok(far.kind === 'entries' && far.eof && far.entries.length === 0);
  });

  test(`${name}: a listing under change neither skips nor repeats a name that stays, replaced ones included`, async () => {
    await using world = await World.open(open);
    for (let index = 0; index < 60; index += 1) await world.file(`stay${index}`);
    for (let index = 0; index < 20; index += 1) await world.file(`go${index}`);
    const seen: string[] = [];
    let after = 0;
    for (let step = 0; ; step += 1) {
      const page = await world.namespace.entries(world.root, after, 3);
      assert.ok(page.kind === 'entries');
      seen.push(...page.entries.map((entry) => textOf(entry.name)));
      if (page.eof) break;
      after = page.entries.at(-1)?.cookie ?? after;
      if (step >= 20) continue;
      await world.namespace.remove(world.mutation(), world.root, bytesOf(`go${step}`));
      await world.file(`new${step}`);
      await world.namespace.rename(world.mutation(), world.root, bytesOf(`new${step}`), world.root, bytesOf(`stay${59 - step}`));
    }
    const stayed = seen.filter((text) => text.startsWith('stay'));
    assert.equal(stayed.length, 60);
    assert.equal(new Set(stayed).size, 60);
    assert.equal(new Set(seen).size, seen.length);
  });

  test(`${name}: what was answered is there after closing and opening again`, async () => {
    await using world = await World.open(open);
    const d = await world.directory('d');
    const file = await world.file('f', { exclusiveVerifier: bytesOf('\x00\xff345678') }, d.fileid);
    const root = await world.live(world.root);
    const { vpool } = world.registry;
    await world.reopen();
    assert.deepEqual(world.registry.vpool, vpool);
    assert.deepEqual(await world.live(world.root), root);
    assert.deepEqual(await world.find('f', d.fileid), file);
    await world.assertSound();
  });
}
