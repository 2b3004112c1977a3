/** A Redis that forgets: restored from an older append-only file, or emptied. What routers acknowledged comes back, or the namespace waits; owned objects go on. */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import type { NewInode } from '../../registry/ports.ts';
import { Member } from '../../registry/redis/testing/linked-registry.ts';
import type { FileId } from '../../server/core/ids.ts';
import { systemClock } from '../../server/core/node-time.ts';
import { compareTimestamp } from '../../server/core/time.ts';
import { scratchFor } from '../scratch.ts';
import { stackOf } from '../test-stack.ts';
import { NamespaceLoad } from './namespace-load.ts';
import { LEASE_MS, RestorableRedis, until } from './restorable-redis.ts';

const INLINE: NewInode = { class: 'inline', mode: 0o644, uid: 0, gid: 0, sizeBytes: 0, atime: null, mtime: null, exclusiveVerifier: null };
const VOLUME: NewInode = { ...INLINE, class: 'volume', sizeBytes: 1_048_576 };

function name(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text));
}

async function create(member: Member, text: string, file: NewInode): Promise<FileId> {
  const { namespace } = member.registry;
  const outcome = await namespace.createFile(member.mutation(), namespace.root, name(text), file);
  assert.ok(outcome.kind === 'created');
  return outcome.inode.fileid;
}

async function kindOf(member: Member, text: string): Promise<string> {
  const { namespace } = member.registry;
  return (await until(() => namespace.lookup(namespace.root, name(text)))).kind;
}

test('restored from an older append-only file right after changes of every kind: all that was acknowledged is back, what was removed stays so', async (t) => {
  const redis = await RestorableRedis.forTest(t);
  const options = { ...redis.options, settings: { ...redis.options.settings, leaseMs: 20_000 } };
  const a = stackOf(t).use(await Member.joined(options));
  const b = stackOf(t).use(await Member.joined(options));
  const { namespace, ownership } = a.registry;
  const kept = await create(a, 'kept', INLINE);
  await create(a, 'removed', INLINE);
  await create(b, 'renamed', INLINE);
  const moved = await create(a, 'moved', VOLUME);
  const claimed = await ownership.claim(a.mutation(), moved, a.router, null, null, 'a'.repeat(16));
  assert.ok(claimed.kind === 'done');
  const late = await create(b, 'late', VOLUME);
  await redis.backUp();

  await namespace.remove(a.mutation(), namespace.root, name('removed'));
  await namespace.rename(b.mutation(), namespace.root, name('renamed'), namespace.root, name('target'));
  const lock = await create(b, 'lock', INLINE);
  await namespace.writeInline(a.mutation(), kept, 0, name('written by a'));
  await b.registry.namespace.writeInline(b.mutation(), kept, 8, name('by b'));
  const repeated = b.mutation('10.0.0.1|x');
  const first = await b.registry.namespace.createFile(repeated, namespace.root, name('once'), INLINE);
  const attempt = await ownership.beginMove(a.mutation(), moved, claimed.owner.term, b.router, 'b'.repeat(16));
  assert.ok(attempt.kind === 'done' && attempt.owner.moving !== null);
  const transferred = await ownership.transfer(a.mutation(), moved, claimed.owner.term, attempt.owner.moving.attempt, null, { kind: 'clean' });
  assert.ok(transferred.kind === 'done' && transferred.owner.router === b.router);
  const claim = await b.registry.ownership.claim(b.mutation(), late, b.router, null, null, 'c'.repeat(16));
  assert.ok(claim.kind === 'done');
  b.owned.push(transferred.owner, claim.owner);

  await redis.restore();
  assert.equal(await kindOf(a, 'removed'), 'absent');
  assert.equal(await kindOf(a, 'renamed'), 'absent');
  assert.equal(await kindOf(b, 'target'), 'found');
  assert.equal(await kindOf(a, 'lock'), 'found');
  const inode = await namespace.inode(kept, null);
  assert.equal(Buffer.from(inode?.inlineBytes ?? []).toString(), 'written by b');
  const again = await a.registry.namespace.createFile({ ...repeated, incarnation: a.incarnation }, namespace.root, name('once'), INLINE);
  assert.deepEqual(again, first, 'a remembered operation is remembered still');
  assert.deepEqual(await ownership.owner(moved), transferred.owner);
  assert.deepEqual(await ownership.owner(late), claim.owner);
  const next = await create(a, 'next', INLINE);
  assert.ok(next > lock + 2 ** 31, 'numbers that may have been given out are not given out again');
  assert.equal(a.registry.counts().generation, 2);
  assert.equal(b.registry.counts().generation, 2);
  for await (const problem of a.registry.verify()) assert.fail(problem);
  assert.deepEqual([...a.lapses, ...b.lapses], []);
});

test('restored again and again under load, also in the middle of a recovery round: nothing acknowledged is lost, nothing is executed twice', async (t) => {
  const redis = await RestorableRedis.forTest(t);
  const options = { ...redis.options, settings: { ...redis.options.settings, leaseMs: 20_000 } };
  const routers = [stackOf(t).use(await Member.joined(options)), stackOf(t).use(await Member.joined(options))];
  const load = new NamespaceLoad(routers, 3, 7);
  load.start();
  for (let round = 0; round < 3; round += 1) {
    await load.more(50);
    await redis.backUp();
    await load.more(150);
    await redis.restore();
    // The routers are at it.
    await systemClock.sleep(40 * round);
    await redis.service.primary.kill();
    if (round === 1) await redis.restore();
    else await redis.service.primary.start();
  }
  await load.more(100);
  await load.stop();
  await load.verify();
  t.diagnostic(
    `generation ${routers[0]?.registry.counts().generation}, brought back ${routers.map(({ registry }) => registry.counts().replayed).join(' and ')}`,
  );
});

test('a router whose Redis was restored while it was away replays its log when it starts; what it acknowledged is back', async (t) => {
  const redis = await RestorableRedis.forTest(t);
  const a = stackOf(t).use(await Member.joined(redis.options));
  const directory = await scratchFor(t, 'router-b');
  const b = await Member.joined({ ...redis.options, directory });
  await redis.backUp();
  await create(b, 'by b', INLINE);
  await create(a, 'by a', INLINE);
  await b[Symbol.asyncDispose]();
  await redis.restore();
  assert.equal(await kindOf(a, 'by a'), 'found');
  const restarted = stackOf(t).use(await Member.joined({ ...redis.options, directory, router: b.router }));
  assert.equal(await kindOf(restarted, 'by b'), 'found');
  assert.equal(await kindOf(a, 'by b'), 'found');
});

test('restored to before what the routers still have: nothing proves what is missing, so the namespace waits for a newer file; leases go on', async (t) => {
  const redis = await RestorableRedis.forTest(t);
  const outbox = { fileBytes: 500, keptMs: 0, keptFilesMin: 1, bytesMax: 1_000_000 };
  const a = stackOf(t).use(await Member.joined({ ...redis.options, outbox }));
  const b = stackOf(t).use(await Member.joined(redis.options));
  await redis.backUp('old');
  for (let index = 0; index < 8; index += 1) await create(a, `archived ${index}`, INLINE);
  await a.registry.outbox.pending(0, 100);
  await a.registry.outbox.release((await a.registry.outbox.position()).sequence);
  await redis.backUp('new');
  await create(b, 'last', INLINE);
  await redis.restore('old');
  const startedMs = systemClock.monotonicMs();
  while (systemClock.monotonicMs() - startedMs < LEASE_MS + 2_000) {
    for (const { registry } of [a, b]) {
      await assert.rejects(async () => registry.namespace.lookup(registry.namespace.root, name('last')), { code: 'registry-unavailable' });
      assert.equal(registry.lease.valid, true);
    }
  }
  for (const { registry } of [a, b]) assert.match(registry.health() ?? '', /restore a newer append-only file/);
  await redis.restore('new');
  assert.equal(await kindOf(a, 'last'), 'found');
  assert.equal(await kindOf(b, 'archived 7'), 'found');
  assert.deepEqual([...a.lapses, ...b.lapses], []);
});

test('a router that missed a round brings back what nobody touched since, and nothing that was removed or replaced', async (t) => {
  const redis = await RestorableRedis.forTest(t);
  const a = stackOf(t).use(await Member.joined(redis.options));
  const directory = await scratchFor(t, 'router-b');
  const b = await Member.joined({ ...redis.options, directory });
  const { namespace } = a.registry;
  await redis.backUp();
  for (const text of ['untouched', 'removed by a', 'made again by a']) await create(b, text, INLINE);
  await namespace.remove(a.mutation(), namespace.root, name('removed by a'));
  await b[Symbol.asyncDispose]();
  await redis.restore();
  assert.equal(await kindOf(a, 'made again by a'), 'absent', 'b has it, and is not there');
  const again = await create(a, 'made again by a', INLINE);
  const restarted = stackOf(t).use(await Member.joined({ ...redis.options, directory, router: b.router }));
  for (const member of [a, restarted]) {
    assert.equal(await kindOf(member, 'untouched'), 'found');
    assert.equal(await kindOf(member, 'removed by a'), 'absent');
    const found = await until(() => member.registry.namespace.lookup(namespace.root, name('made again by a')));
    assert.ok(found.kind === 'found' && found.inode.fileid === again);
  }
});

/** Ends this life of a router; its disk stays. */
async function away(member: Member): Promise<void> {
  await member[Symbol.asyncDispose]();
}

test('a router that missed a round and takes part in the next one brings back what it had in the one it missed', async (t) => {
  const redis = await RestorableRedis.forTest(t);
  const a = stackOf(t).use(await Member.joined(redis.options));
  const directory = await scratchFor(t, 'router-b');
  const b = await Member.joined({ ...redis.options, directory });
  await redis.backUp();
  await create(b, 'by b', INLINE);
  await away(b);
  await redis.restore();
  assert.equal(await kindOf(a, 'by b'), 'absent', 'b has it, and is not there');
  assert.equal(a.registry.counts().generation, 2);
  // Again another process, and b comes while the round is under way.
  await redis.service.primary.kill();
  const coming = Member.joined({ ...redis.options, directory, router: b.router });
  await redis.service.primary.start();
  const restarted = stackOf(t).use(await coming);
  for (const member of [a, restarted]) assert.equal(await kindOf(member, 'by b'), 'found');
});

test('a router that saw more generations than Redis has of its past brings back what it had in those that are gone', async (t) => {
  const redis = await RestorableRedis.forTest(t);
  const a = stackOf(t).use(await Member.joined(redis.options));
  const directory = await scratchFor(t, 'router-b');
  const b = await Member.joined({ ...redis.options, directory });
  await create(b, 'there', INLINE);
  await redis.backUp();
  await redis.restore();
  await create(b, 'in generation 2', INLINE);
  for (const member of [a, b]) {
    assert.equal(await kindOf(member, 'in generation 2'), 'found');
    assert.equal(member.registry.counts().generation, 2);
  }
  await away(b);
  await redis.restore();
  assert.equal(await kindOf(a, 'in generation 2'), 'absent', 'b has it, and is not there');
  assert.equal(a.registry.counts().generation, 3);
  const restarted = stackOf(t).use(await Member.joined({ ...redis.options, directory, router: b.router }));
  for (const member of [a, restarted]) for (const text of ['there', 'in generation 2']) assert.equal(await kindOf(member, text), 'found');
});

test('two generations of the same number are told apart: a router brings what it had in the one that is gone', async (t) => {
  const redis = await RestorableRedis.forTest(t);
  const directories = [await scratchFor(t, 'router-a'), await scratchFor(t, 'router-b')] as const;
  const firstA = await Member.joined({ ...redis.options, directory: directories[0] });
  const firstB = await Member.joined({ ...redis.options, directory: directories[1] });
  await redis.backUp();
  await away(firstA);
  await redis.restore();
  // It ends without a, which never sees this generation 2.
  const one = await until(() => create(firstB, 'in the first generation 2', INLINE));
  assert.equal(firstB.registry.counts().generation, 2);
  await away(firstB);
  await redis.restore();
  const a = stackOf(t).use(await Member.joined({ ...redis.options, directory: directories[0], router: firstA.router }));
  const two = await create(a, 'in the second one', INLINE);
  assert.notEqual(one, two, 'a fileid is of one file');
  assert.equal(a.registry.counts().generation, 2);
  const b = stackOf(t).use(await Member.joined({ ...redis.options, directory: directories[1], router: firstB.router }));
  for (const member of [a, b])
    for (const text of ['in the first generation 2', 'in the second one']) assert.equal(await kindOf(member, text), 'found');
  assert.ok(b.registry.counts().generation > 2);
});

test('restored to an older file, then to a newer one of another past: what was acknowledged in the one between is there', async (t) => {
  const redis = await RestorableRedis.forTest(t);
  const a = stackOf(t).use(await Member.joined(redis.options));
  const b = await Member.joined(redis.options);
  await redis.backUp('old');
  await redis.service.primary.kill();
  await redis.service.primary.start();
  for (let index = 0; index < 5; index += 1) await until(() => create(b, `b${index}`, INLINE));
  await redis.restore('old');
  for (const member of [a, b]) assert.equal(await kindOf(member, 'b4'), 'found');
  await redis.backUp('newer');
  await away(b);
  await redis.restore('old');
  await until(() => create(a, 'by a', INLINE));
  await redis.restore('newer');
  for (const text of ['b4', 'by a']) assert.equal(await kindOf(a, text), 'found');
});

test('what two routers did without each other in the same directories and with the same files is put together', async (t) => {
  const redis = await RestorableRedis.forTest(t);
  const a = stackOf(t).use(await Member.joined(redis.options));
  const directory = await scratchFor(t, 'router-b');
  const b = await Member.joined({ ...redis.options, directory });
  const { namespace } = a.registry;
  const { root } = namespace;
  const attributes = { mode: 0o755, uid: 0, gid: 0, atime: null, mtime: null };
  const made = await namespace.createDirectory(a.mutation(), root, name('d'), attributes);
  const gone = await namespace.createDirectory(a.mutation(), root, name('removed by a'), attributes);
  assert.ok(made.kind === 'created' && gone.kind === 'created');
  const d = made.inode.fileid;
  const linked = await create(a, 'linked', INLINE);
  await create(a, 'linked and removed', INLINE);
  const second = await namespace.lookup(root, name('linked and removed'));
  assert.ok(second.kind === 'found');
  await redis.backUp();
  const byB = b.registry.namespace;
  await byB.createFile(b.mutation(), d, name('by b'), INLINE);
  await byB.createDirectory(b.mutation(), d, name('directory of b'), attributes);
  await byB.link(b.mutation(), linked, d, name('link of b'));
  await byB.link(b.mutation(), second.inode.fileid, d, name('link to what a removes'));
  const lonely = await byB.createFile(b.mutation(), gone.inode.fileid, name('in what a removes'), INLINE);
  assert.ok(lonely.kind === 'created');
  await away(b);
  await redis.restore();
  await until(() => namespace.createFile(a.mutation(), d, name('by a'), INLINE));
  const before = await namespace.lookup(root, name('d'));
  await namespace.writeInline(a.mutation(), linked, 0, name('text'));
  await namespace.remove(a.mutation(), root, name('linked and removed'));
  await namespace.removeDirectory(a.mutation(), root, name('removed by a'));
  const again = stackOf(t).use(await Member.joined({ ...redis.options, directory, router: b.router }));
  const problems: string[] = [];
  await until(async () => {
    for await (const problem of again.registry.verify()) problems.push(problem);
  });
  assert.deepEqual(problems, []);
  const listed: string[] = [];
  for (let cookie = 0, eof = false; !eof;) {
    const page = await until(() => namespace.entries(d, cookie, 1));
    assert.ok(page.kind === 'entries');
    for (const entry of page.entries) {
      listed.push(Buffer.from(entry.name).toString());
      ({ cookie } = entry);
    }
    ({ eof } = page);
  }
  assert.deepEqual(listed.toSorted(), ['by a', 'by b', 'directory of b', 'link of b']);
  const after = await namespace.lookup(root, name('d'));
  assert.ok(before.kind === 'found' && after.kind === 'found' && compareTimestamp(after.inode.mtime, before.inode.mtime) > 0, 'clients look again');
  const found = await namespace.lookup(d, name('link of b'));
  assert.ok(found.kind === 'found' && found.inode.nlink === 2 && Buffer.from(found.inode.inlineBytes ?? []).toString() === 'text');
  assert.equal(await kindOf(a, `recovered-${lonely.inode.fileid}`), 'found');
});

for (const how of ['FLUSHALL', 'an empty Redis in its place'] as const) {
  test(`${how}: leases and owned objects go on, the namespace is not served as if it were empty, and is back when the data are restored`, async (t) => {
    const redis = await RestorableRedis.forTest(t);
    const a = stackOf(t).use(await Member.joined(redis.options));
    const b = stackOf(t).use(await Member.joined(redis.options));
    await create(a, 'there', INLINE);
    await redis.backUp();
    await create(b, 'there too', INLINE);
    if (how === 'FLUSHALL') assert.equal(await redis.service.primary.command('FLUSHALL'), '+OK');
    else {
      await redis.service.primary.command('CONFIG', 'SET', 'appendonly', 'no');
      await redis.service.primary.kill();
      await rm(join(redis.home, 'appendonlydir'), { recursive: true });
      await redis.service.primary.start();
    }
    const startedMs = systemClock.monotonicMs();
    while (systemClock.monotonicMs() - startedMs < LEASE_MS + 1_000) {
      for (const { registry } of [a, b]) {
        await assert.rejects(async () => registry.namespace.lookup(registry.namespace.root, name('there')), { code: 'registry-unavailable' });
        await assert.rejects(async () => registry.namespace.entries(registry.namespace.root, 0, 10), { code: 'registry-unavailable' });
        assert.equal(registry.lease.valid, true, 'what is owned goes on');
      }
    }
    assert.match(a.registry.health() ?? '', /restore the append-only file/);
    for (const whenEmpty of ['refuse', 'create'] as const)
      await assert.rejects(Member.open({ ...redis.options, whenEmpty }), { code: 'registry-void' });
    await redis.restore();
    assert.equal(await kindOf(a, 'there'), 'found');
    assert.equal(await kindOf(a, 'there too'), 'found');
    assert.doesNotMatch(a.registry.health() ?? '', /restore/);
    assert.deepEqual([...a.lapses, ...b.lapses], []);
  });
}
