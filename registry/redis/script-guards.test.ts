/** Guards of the scripts that no history of the other tests reaches: each was taken out once, and only a test here saw it (decision 0033). */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { Redis } from 'ioredis';

import { AssertionError } from '../../server/core/assert.ts';
import type { FileId, Incarnation, Term } from '../../server/core/ids.ts';
import { timestampOf } from '../../server/core/time.ts';
import { bytesOf, INCARNATION, INLINE, OTHER_INCARNATION, OTHER_ROUTER, rejectsWith, ROUTER, VOLUME } from '../conformance/world.ts';
import { CLOSED_EPOCHS_MAX } from '../owner-record.ts';
import type { ClosedEpoch, Mutation, OwnerRecord } from '../ports.ts';
import { packOwner } from './packed-owner.ts';
import { RedisProcess } from './testing/redis-process.ts';
import { TestRegistry } from './testing/test-registry.ts';

const redis = await RedisProcess.start();
const control = new Redis({ port: redis.port, host: '127.0.0.1' });
after(async () => {
  control.disconnect();
  await redis[Symbol.asyncDispose]();
});

const NONCE = 'c'.repeat(16);
let operations = 0;

function mutation(under: TestRegistry, fields: Partial<Mutation> = {}): Mutation {
  operations += 1;
  return { operationId: `10.0.0.1|${operations}`, incarnation: INCARNATION, now: timestampOf(under.wallMs()), notAfterMs: Infinity, ...fields };
}

async function joined(): Promise<TestRegistry> {
  const under = await TestRegistry.open(redis.port);
  await under.registry.membership.join(ROUTER, INCARNATION, [], 'test');
  return under;
}

async function claimedVolume(under: TestRegistry): Promise<OwnerRecord> {
  const { namespace, ownership } = under.registry;
  const made = await namespace.createFile(mutation(under), namespace.root, bytesOf('v'), VOLUME);
  assert.ok(made.kind === 'created');
  const claimed = await ownership.claim(mutation(under), made.inode.fileid, ROUTER, null, null, NONCE);
  assert.ok(claimed.kind === 'done');
  return claimed.owner;
}

for (const checkpoint of [null, 'checkpoint/0000000000000001-1']) {
  test(`an owner record takes ${CLOSED_EPOCHS_MAX} closed epochs and no more, ${checkpoint === null ? 'without' : 'with'} a checkpoint`, async () => {
    await using under = await joined();
    const { ownership, membership } = under.registry;
    await membership.join(OTHER_ROUTER, OTHER_INCARNATION, [], 'test');
    const owner = await claimedVolume(under);
    const { fileid } = owner;
    const closedEpochs = Array.from({ length: CLOSED_EPOCHS_MAX - 1 }, (_, at): ClosedEpoch => ({
      term: { generation: 0, counter: at, nonce: NONCE },
      lastSegment: 1,
      lastSequence: 1,
    }));
    const many = { ...owner, root: { ...owner.root, checkpoint, closedEpochs } };
    await control.hset(under.keys.owners, String(fileid), packOwner({ owner: many, counterMax: owner.term.counter }, 1));

    const closing = (term: Term): ClosedEpoch => ({ term, lastSegment: 2, lastSequence: 2 });
    const last = await ownership.claim(mutation(under), fileid, ROUTER, owner.term, closing(owner.term), NONCE);
    assert.ok(last.kind === 'done' && last.owner.root.closedEpochs.length === CLOSED_EPOCHS_MAX);
    const { term } = last.owner;
    await rejectsWith(ownership.claim(mutation(under), fileid, ROUTER, term, closing(term), NONCE), 'registry-no-space');
    const begun = await ownership.beginMove(mutation(under), fileid, term, OTHER_ROUTER, NONCE);
    assert.ok(begun.kind === 'done' && begun.owner.moving !== null);
    const { attempt } = begun.owner.moving;
    await rejectsWith(ownership.transfer(mutation(under), fileid, term, attempt, closing(term), { kind: 'clean' }), 'registry-no-space');
    assert.deepEqual(await ownership.owner(fileid), begun.owner, 'what was refused changed nothing');
    // A term that wrote nothing closes none.
    const moved = await ownership.transfer(mutation(under), fileid, term, attempt, null, { kind: 'clean' });
    assert.ok(moved.kind === 'done' && moved.owner.router === OTHER_ROUTER);
  });
}

test('what has no owner by its class is not claimed', async () => {
  await using under = await joined();
  const { namespace, ownership } = under.registry;
  const made = await namespace.createFile(mutation(under), namespace.root, bytesOf('i'), INLINE);
  assert.ok(made.kind === 'created');
  await assert.rejects(async () => ownership.claim(mutation(under), made.inode.fileid, ROUTER, null, null, NONCE), AssertionError);
  assert.equal(await ownership.owner(made.inode.fileid), null);
});

test('an owner record that Redis forgot is not made anew by somebody who has seen a term of it: its root is not known', async () => {
  await using under = await joined();
  const { ownership } = under.registry;
  const { fileid, term } = await claimedVolume(under);
  await control.hdel(under.keys.owners, String(fileid));
  await rejectsWith(ownership.claim(mutation(under), fileid, ROUTER, term, null, NONCE), 'registry-unavailable');
  assert.equal(await ownership.owner(fileid), null);
  const closing = { term, lastSegment: 1, lastSequence: 1 };
  await assert.rejects(async () => ownership.claim(mutation(under), fileid, ROUTER, null, closing, NONCE), AssertionError);
  assert.equal(await ownership.owner(fileid), null);
});

test('a dead incarnation does not join again, even when it is among the dead no more', async () => {
  await using under = await joined();
  const { membership } = under.registry;
  await membership.leave(ROUTER, INCARNATION);
  await control.del(under.keys.dead);
  await rejectsWith(membership.join(ROUTER, INCARNATION, [], 'test'), 'incarnation-dead');
});

test('an incarnation that was said to be dead before it was ever seen never joins', async () => {
  await using under = await joined();
  const { membership } = under.registry;
  const late = '7'.repeat(32) as Incarnation;
  assert.equal(await membership.markDead(ROUTER, late, 0), 'dead');
  await rejectsWith(membership.join(ROUTER, late, [], 'test'), 'incarnation-dead');
  assert.equal((await membership.routers())[0]?.incarnation, INCARNATION, 'the living one goes on');
});

test('of dead incarnations the last 65,536 are remembered, by when they were first said to be dead', async () => {
  await using under = await joined();
  const { membership } = under.registry;
  const first = '8'.repeat(32) as Incarnation;
  assert.equal(await membership.markDead(ROUTER, first, 0), 'dead');
  // All before the next number that is given out.
  const score = Number(await control.zscore(under.keys.dead, first));
  for (let from = 0; from < 65_535; from += 4_369) {
    const members = Array.from({ length: 4_369 }, (_, at) => [score + (from + at + 1) / 131_072, (from + at).toString(16).padStart(32, '0')]);
    await control.zadd(under.keys.dead, ...members.flat());
  }
  // Again: it does not become the youngest by that.
  assert.equal(await membership.markDead(ROUTER, first, 0), 'dead');
  assert.equal(await control.zcard(under.keys.dead), 65_536);
  assert.equal(await membership.markDead(ROUTER, '9'.repeat(32) as Incarnation, 0), 'dead');
  assert.equal(await control.zcard(under.keys.dead), 65_536);
  assert.equal(await control.zscore(under.keys.dead, first), null);
});

test('a name of an inode that is not there is told as damage, whoever meets it, and nothing is changed over it', async () => {
  await using under = await joined();
  const { namespace } = under.registry;
  const { root } = namespace;
  const attributes = { mode: 0o755, uid: 0, gid: 0, atime: null, mtime: null };
  const inodes: Record<string, string> = {};
  for (const name of ['lost', 'kept', 'other']) {
    const made = await namespace.createFile(mutation(under), root, bytesOf(name), INLINE);
    assert.ok(made.kind === 'created');
    inodes[name] = String(made.inode.fileid);
  }
  await control.hdel(under.keys.inodes, inodes['lost'] as string);
  const before = await control.hgetall(under.keys.names);
  const calls: Record<string, () => unknown> = {
    lookup: () => namespace.lookup(root, bytesOf('lost')),
    createFile: () => namespace.createFile(mutation(under), root, bytesOf('lost'), INLINE),
    createDirectory: () => namespace.createDirectory(mutation(under), root, bytesOf('lost'), attributes),
    link: () => namespace.link(mutation(under), Number(inodes['kept']) as FileId, root, bytesOf('lost')),
    remove: () => namespace.remove(mutation(under), root, bytesOf('lost')),
    removeDirectory: () => namespace.removeDirectory(mutation(under), root, bytesOf('lost')),
    rename: () => namespace.rename(mutation(under), root, bytesOf('lost'), root, bytesOf('new')),
    renameOver: () => namespace.rename(mutation(under), root, bytesOf('other'), root, bytesOf('lost')),
  };
  for (const [verb, call] of Object.entries(calls)) {
    await assert.rejects(
      async () => call(),
      { code: 'registry-corrupt', message: /names (\d+, which is not a live inode|an inode that does not exist)/ },
      verb,
    );
  }
  assert.deepEqual(await control.hgetall(under.keys.names), before);
});
