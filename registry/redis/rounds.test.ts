/** Recovery rounds: a Redis that forgot changes gets them back from the routers' outboxes, in any order, as often as they like. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, test } from 'node:test';

import fc from 'fast-check';
import { Redis } from 'ioredis';

import type { FileId, Incarnation, Term } from '../../server/core/ids.ts';
import { systemRandom } from '../../server/core/node-time.ts';
import { timestampOf } from '../../server/core/time.ts';
import { decodeAfterImage } from '../after-image.ts';
import { bytesOf, INCARNATION, INLINE, OTHER_INCARNATION, OTHER_ROUTER, ROUTER, textOf, VOLUME } from '../conformance/world.ts';
import { decodeOutcome, isVerb } from '../outcome-codec.ts';
import type { Mutation, OutboxEntry, OwnerRecord } from '../ports.ts';
import { createVpoolArguments } from './create-vpool.ts';
import type { VerbScript } from './lua-pieces.ts';
import { packChanges, packOutcome } from './packed-outcome.ts';
import { packOwner, unpackOwner } from './packed-owner.ts';
import type { LuaScript, ScriptArgument, ScriptReply } from './redis-link.ts';
import { ENTER_ROUND, RENEW_IN_ROUND, REPORT_IN_ROUND, roundKeys } from './round-member-scripts.ts';
import {
  ASSERT_OWNER_SCRIPT,
  BEGIN_ROUND_SCRIPT,
  CREATE_VPOOL_SCRIPT,
  FINISH_ROUND_SCRIPT,
  READ_META_SCRIPT,
  REPLAY_ENTRY_SCRIPT,
  ROUND_JUMP,
} from './round-scripts.ts';
import { RedisProcess } from './testing/redis-process.ts';
import { TestRegistry } from './testing/test-registry.ts';

const redis = await RedisProcess.start();
const control = new Redis({ port: redis.port, host: '127.0.0.1' });
after(async () => {
  control.disconnect();
  await redis[Symbol.asyncDispose]();
});

/** Two routers with outboxes of their own. */
interface Pool extends AsyncDisposable {
  readonly a: TestRegistry;
  readonly b: TestRegistry;
}

async function openPool(): Promise<Pool> {
  const a = await TestRegistry.open(redis.port);
  const b = a.another();
  await a.registry.membership.join(ROUTER, INCARNATION, [], 'test');
  await b.registry.membership.join(OTHER_ROUTER, OTHER_INCARNATION, [], 'test');
  return {
    a,
    b,
    async [Symbol.asyncDispose]() {
      await a[Symbol.asyncDispose]();
      await b[Symbol.asyncDispose]();
    },
  };
}

let operations = 0;
function mutation(under: TestRegistry, incarnation: Incarnation = INCARNATION): Mutation {
  operations += 1;
  return { operationId: `10.0.0.1|${operations}`, incarnation, now: timestampOf(under.wallMs()), notAfterMs: Infinity };
}

/** Everything that the vPool's keys hold. */
async function remember(under: TestRegistry): Promise<Map<string, Buffer>> {
  const kept = new Map<string, Buffer>();
  for (const key of Object.values(under.keys)) {
    const dump = (await control.callBuffer('DUMP', key)) as Buffer | null;
    if (dump !== null) kept.set(key, dump);
  }
  return kept;
}

/** Redis is as it was: it forgot what came since. */
async function forget(under: TestRegistry, kept: ReadonlyMap<string, Buffer>): Promise<void> {
  await control.del(...Object.values(under.keys));
  for (const [key, dump] of kept) await control.callBuffer('RESTORE', key, 0, dump);
}

function call(under: TestRegistry, script: VerbScript, args: readonly ScriptArgument[]): Promise<ScriptReply> {
  return under.link.read(
    script,
    script.keys.map((key) => under.keys[key]),
    args,
  );
}

function texts(reply: ScriptReply): string[] {
  assert.ok(Array.isArray(reply));
  return reply.map((element) => (Buffer.isBuffer(element) ? element.toString() : String(element)));
}

function replay(under: TestRegistry, identity: string, entry: OutboxEntry): Promise<ScriptReply> {
  const { verb, operationId, outcome } = entry;
  const remembered = operationId !== null && outcome !== null && isVerb(verb);
  return call(under, REPLAY_ENTRY_SCRIPT, [
    identity,
    entry.sequence,
    packChanges(decodeAfterImage(entry.afterImage, 'test'), entry.sequence),
    remembered ? `${verb} ${operationId}` : '',
    remembered ? packOutcome(verb, decodeOutcome(verb, outcome, 'test')) : '',
    under.clock.wallMs(),
    entry.generation,
  ]);
}

async function finish(pool: Pool, identity: string, generationMin = 1): Promise<number> {
  const [kind, generation] = texts(await call(pool.a, FINISH_ROUND_SCRIPT, [identity, generationMin]));
  assert.equal(kind, 'done');
  pool.a.link.generation = Number(generation);
  pool.b.link.generation = Number(generation);
  return Number(generation);
}

async function assertSound(under: TestRegistry): Promise<void> {
  const problems: string[] = [];
  for await (const problem of under.registry.verify()) problems.push(problem);
  assert.deepEqual(problems, []);
}

/** Names, inodes, owners, tombstones and usage, as plain as JSON. */
async function contents(under: TestRegistry): Promise<unknown> {
  const { namespace, ownership } = under.registry;
  const directories: FileId[] = [namespace.root];
  const found: unknown[] = [];
  for (let directory = directories.pop(); directory !== undefined; directory = directories.pop()) {
    const listed = await namespace.entries(directory, 0, 1_000);
    assert.ok(listed.kind === 'entries');
    for (const { name, cookie, inode } of listed.entries) {
      found.push([directory, textOf(name), cookie, inode]);
      if (inode.type === 'directory') directories.push(inode.fileid);
    }
    found.push(listed.directory);
  }
  const owners = [...(await ownership.ownedBy(ROUTER, 0 as FileId, 1_000)), ...(await ownership.ownedBy(OTHER_ROUTER, 0 as FileId, 1_000))];
  return { found, owners, tombstones: await namespace.tombstones(0 as FileId, 1_000), usage: await namespace.usage() };
}

const NAMES = ['a', 'b', 'c', '\xff'];
const step = fc.record({
  verb: fc.constantFrom('file', 'volume', 'directory', 'remove', 'remove', 'rename', 'rename', 'link', 'claim', 'update', 'move', 'drop', 'write'),
  other: fc.boolean(),
  name: fc.constantFrom(...NAMES),
  toName: fc.constantFrom(...NAMES),
  place: fc.nat({ max: 10 }),
  to: fc.nat({ max: 10 }),
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** Runs steps, each through one of the routers; what a step aims at may be absent. */
async function run(pool: Pool, steps: readonly Step[], seen: FileId[], salt: string): Promise<void> {
  for (const [index, next] of steps.entries()) {
    const under = next.other ? pool.b : pool.a;
    const [router, incarnation] = next.other ? [OTHER_ROUTER, OTHER_INCARNATION] : [ROUTER, INCARNATION];
    const { namespace, ownership } = under.registry;
    const at = (place: number): FileId => seen[place % seen.length] ?? namespace.root;
    const directory = at(next.place);
    const object = at(next.to);
    const as = mutation(under, incarnation);
    const attributes = { mode: 0o755, uid: 0, gid: 0, atime: null, mtime: null };
    const nonce = `${salt}${index.toString(16).padStart(4, '0')}`.slice(-16).padStart(16, '0');
    switch (next.verb) {
      case 'file':
      case 'volume': {
        const made = await namespace.createFile(as, directory, bytesOf(next.name), next.verb === 'file' ? INLINE : VOLUME);
        if (made.kind === 'created') seen.push(made.inode.fileid);
        break;
      }
      case 'directory': {
        const made = await namespace.createDirectory(as, directory, bytesOf(next.name), attributes);
        if (made.kind === 'created') seen.push(made.inode.fileid);
        break;
      }
      case 'remove': {
        const removed = await namespace.remove(as, directory, bytesOf(next.name));
        if (removed.kind === 'is-directory') await namespace.removeDirectory(mutation(under, incarnation), directory, bytesOf(next.name));
        break;
      }
      case 'rename':
        await namespace.rename(as, directory, bytesOf(next.name), object, bytesOf(next.toName));
        break;
      case 'link':
        await namespace.link(as, object, directory, bytesOf(next.name));
        break;
      case 'claim':
      case 'update':
      case 'move': {
        const inode = await namespace.inode(object, null);
        if (inode?.class !== 'volume') break;
        const owner = await ownership.owner(object);
        if (next.verb === 'claim' || owner === null) await ownership.claim(as, object, router, owner?.term ?? null, null, nonce);
        else if (next.verb === 'update') {
          const root = { ...owner.root, uploadedSegment: owner.root.uploadedSegment + 1 };
          await ownership.update(as, object, owner.term, { root });
        } else if (owner.incarnation === incarnation) {
          const to = next.other ? ROUTER : OTHER_ROUTER;
          const begun = await ownership.beginMove(as, object, owner.term, to, nonce);
          assert.ok(begun.kind === 'done' && begun.owner.moving !== null);
          const closing = { term: owner.term, lastSegment: 1, lastSequence: 2 };
          await ownership.transfer(mutation(under, incarnation), object, owner.term, begun.owner.moving.attempt, closing, { kind: 'unprotected' });
        }
        break;
      }
      case 'drop':
        await namespace.dropTombstone(as, object);
        break;
      case 'write':
        await namespace.writeInline(as, object, 0, bytesOf(next.name));
        break;
    }
  }
}

test('whatever Redis forgot, replaying all outboxes in any order and twice gives it back', async () => {
  let brought = 0;
  const givenBack = fc.asyncProperty(
    fc.array(step, { maxLength: 40 }),
    fc.array(step, { minLength: 10, maxLength: 60 }),
    fc.infiniteStream(fc.nat({ max: 1_000_000 })),
    async (before, forgotten, order) => {
      await using pool = await openPool();
      const seen: FileId[] = [pool.a.registry.namespace.root];
      await run(pool, before, seen, 'a'.repeat(12));
      const kept = await remember(pool.a);
      await run(pool, forgotten, seen, 'b'.repeat(12));
      const expected = await contents(pool.a);
      const { sequence } = await pool.a.registry.outbox.position();
      await assertSound(pool.a);

      await forget(pool.a, kept);
      const identity = `run-${randomBytes(4).toString('hex')}`;
      assert.equal(texts(await call(pool.a, BEGIN_ROUND_SCRIPT, [identity]))[0], 'round');
      const entries = [...pool.a.link.entries.values(), ...pool.b.link.entries.values()];
      const shuffled = [...entries, ...entries].map((entry) => ({ entry, rank: order.next().value as number }));
      shuffled.sort((x, y) => x.rank - y.rank);
      for (const { entry } of shuffled) brought += Number(await replay(pool.a, identity, entry));
      const generation = await finish(pool, identity);
      assert.equal(generation, 2);
      assert.deepEqual(await contents(pool.a), expected);
      await assertSound(pool.a);
      const position = await pool.a.registry.outbox.position();
      assert.ok(position.sequence >= sequence + ROUND_JUMP);
      const made = await pool.b.registry.namespace.createFile(
        mutation(pool.b, OTHER_INCARNATION),
        pool.a.registry.namespace.root,
        bytesOf('after the round'),
        INLINE,
      );
      assert.ok(made.kind === 'created' && made.inode.fileid > ROUND_JUMP);
      assert.ok(!seen.includes(made.inode.fileid));
    },
  );
  await fc.assert(givenBack, { seed: 20261122, numRuns: 15, endOnFailure: true });
  await fc.assert(givenBack, { numRuns: 5, endOnFailure: true });
  assert.ok(brought > 100, `${brought} records were brought back`);
});

test('an answer that Redis forgot is given again after the round, and nothing is executed twice', async () => {
  await using pool = await openPool();
  const { namespace } = pool.a.registry;
  const kept = await remember(pool.a);
  const as = mutation(pool.a);
  const first = await namespace.createFile(as, namespace.root, bytesOf('x'), INLINE);
  const removal = mutation(pool.a);
  const removed = await namespace.remove(removal, namespace.root, bytesOf('x'));
  await forget(pool.a, kept);
  await call(pool.a, BEGIN_ROUND_SCRIPT, ['run-2']);
  for (const entry of pool.a.link.entries.values()) await replay(pool.a, 'run-2', entry);
  await finish(pool, 'run-2');
  const sent = { ...as, incarnation: OTHER_INCARNATION };
  assert.deepEqual(await pool.b.registry.namespace.createFile(sent, namespace.root, bytesOf('x'), INLINE), first, 'even through another router');
  assert.deepEqual(await namespace.remove(removal, namespace.root, bytesOf('x')), removed);
  assert.equal((await namespace.lookup(namespace.root, bytesOf('x'))).kind, 'absent');
});

test('during a round every other script fails with GENERATION; a former generation fails after it', async () => {
  await using pool = await openPool();
  const { namespace } = pool.a.registry;
  await call(pool.a, BEGIN_ROUND_SCRIPT, ['run-2']);
  const refused = { code: 'registry-unavailable', message: /GENERATION round/ };
  await assert.rejects(namespace.createFile(mutation(pool.a), namespace.root, bytesOf('x'), INLINE), refused);
  await assert.rejects(Promise.resolve(namespace.inode(namespace.root, null)), refused);
  await assert.rejects(pool.b.registry.membership.renew(OTHER_ROUTER, OTHER_INCARNATION), refused);
  await finish(pool, 'run-2', 7);
  assert.equal(pool.a.link.generation, 7, 'above what a router has seen');
  pool.b.link.generation = 1;
  await assert.rejects(pool.b.registry.membership.renew(OTHER_ROUTER, OTHER_INCARNATION), { message: /GENERATION 7/ });
  assert.deepEqual(texts(await call(pool.a, FINISH_ROUND_SCRIPT, ['run-2', 1])), ['current', '7'], 'one round, one end');
  assert.deepEqual(texts(await call(pool.a, BEGIN_ROUND_SCRIPT, ['run-2'])), ['current', '7'], 'nothing to do on a Redis that is known');
});

test('another failover in the middle of a round begins it anew; what belongs to the former one is refused', async () => {
  await using pool = await openPool();
  await call(pool.a, BEGIN_ROUND_SCRIPT, ['run-2']);
  const [kind, from] = texts(await call(pool.b, BEGIN_ROUND_SCRIPT, ['run-3']));
  assert.deepEqual([kind, from], ['round', '1']);
  await assert.rejects(
    replay(pool.a, 'run-2', { generation: 1, sequence: 1, operationId: null, verb: 'remove', afterImage: '{"version":1}', outcome: null }),
    /GENERATION round/,
  );
  assert.deepEqual(texts(await call(pool.a, FINISH_ROUND_SCRIPT, ['run-2', 1])), ['current', 'round']);
  assert.equal(await finish(pool, 'run-3'), 2);
});

test('a registry is made once; a Redis that lost only its meta key is not made anew', async () => {
  await using pool = await openPool();
  const fresh = createVpoolArguments(
    { vpoolName: 'x', vpoolUuid: '1'.repeat(32) as never, identity: 'run-9', generation: 1, wallMs: 0 },
    systemRandom,
  );
  const make = async (): Promise<string> => String(await call(pool.a, CREATE_VPOOL_SCRIPT, fresh));
  const meta = texts(await call(pool.a, READ_META_SCRIPT, []));
  assert.equal(await make(), 'exists');
  assert.deepEqual(texts(await call(pool.a, READ_META_SCRIPT, [])).slice(0, 8), meta.slice(0, 8));
  await control.del(pool.a.keys.meta);
  assert.deepEqual(texts(await call(pool.a, BEGIN_ROUND_SCRIPT, ['run-9'])), ['void']);
  assert.equal(await make(), 'remains');
  await assert.rejects(Promise.resolve(pool.a.registry.namespace.usage()), { message: /GENERATION none/ });
  await control.del(...Object.values(pool.a.keys));
  assert.equal(await make(), 'created');
});

test('an owner puts its record right: the higher epoch wins, one of the same term stays as it is', async () => {
  await using pool = await openPool();
  const { namespace, ownership } = pool.a.registry;
  const made = await namespace.createFile(mutation(pool.a), namespace.root, bytesOf('v'), VOLUME);
  assert.ok(made.kind === 'created');
  const { fileid } = made.inode;
  const claimed = await ownership.claim(mutation(pool.a), fileid, ROUTER, null, null, 'c'.repeat(16));
  assert.ok(claimed.kind === 'done');
  const { owner } = claimed;
  const say = async (record: OwnerRecord): Promise<[string, OwnerRecord | null]> => {
    const reply = await call(pool.b, ASSERT_OWNER_SCRIPT, ['', packOwner({ owner: record, counterMax: record.term.counter }, 0)]);
    assert.ok(Array.isArray(reply));
    const packed = reply[1] as Buffer | undefined;
    return [String(reply[0]), packed === undefined ? null : unpackOwner(packed, 'test').owner];
  };
  // Its answer was lost: the owner does not know yet that it is unprotected, and will be told so when it asks again.
  const updated = await ownership.update(mutation(pool.a), fileid, owner.term, { protection: { kind: 'unprotected' } });
  assert.ok(updated.kind === 'done');
  assert.deepEqual(await say(owner), ['done', updated.owner], 'what the owner does not know is not undone');
  const higher: OwnerRecord = {
    ...owner,
    router: OTHER_ROUTER,
    incarnation: OTHER_INCARNATION,
    term: { ...owner.term, counter: 9, nonce: 'd'.repeat(16) },
  };
  assert.deepEqual(await say(higher), ['done', higher]);
  assert.deepEqual(await say(owner), ['conflict', higher], 'a lower epoch is never obeyed');
  assert.deepEqual(
    await say({ ...higher, term: { ...higher.term, nonce: 'e'.repeat(16) } }),
    ['conflict', higher],
    'another nonce of the same epoch',
  );
  assert.deepEqual(await ownership.owner(fileid), higher);
  assert.deepEqual(await ownership.ownedBy(ROUTER, 0 as FileId, 10), []);
  const next = await pool.b.registry.ownership.claim(mutation(pool.b, OTHER_INCARNATION), fileid, OTHER_ROUTER, higher.term, null, 'f'.repeat(16));
  assert.ok(next.kind === 'done' && next.owner.term.counter === 10);
  assert.deepEqual(await say({ ...higher, uuid: '9'.repeat(32) as never, term: { ...higher.term, counter: 99 } }), ['gone', null], 'another object');
  await namespace.remove(mutation(pool.a), namespace.root, bytesOf('v'));
  assert.deepEqual(await say({ ...higher, term: { ...higher.term, counter: 99 } }), ['gone', null]);
  await assertSound(pool.a);
});

test('a name that was removed and given to another inode is listed once, in whatever order that is replayed', async () => {
  await using pool = await openPool();
  const { namespace } = pool.a.registry;
  await namespace.createFile(mutation(pool.a), namespace.root, bytesOf('x'), INLINE);
  const kept = await remember(pool.a);
  pool.a.link.entries.clear();
  await namespace.remove(mutation(pool.a), namespace.root, bytesOf('x'));
  await namespace.createFile(mutation(pool.a), namespace.root, bytesOf('x'), INLINE);
  const expected = await contents(pool.a);
  await forget(pool.a, kept);
  await call(pool.a, BEGIN_ROUND_SCRIPT, ['run-2']);
  for (const entry of [...pool.a.link.entries.values()].toReversed()) await replay(pool.a, 'run-2', entry);
  await finish(pool, 'run-2');
  assert.deepEqual(await contents(pool.a), expected);
  await assertSound(pool.a);
});

test('what was removed for good has no owner again after the round', async () => {
  await using pool = await openPool();
  const { namespace, ownership } = pool.a.registry;
  const made = await namespace.createFile(mutation(pool.a), namespace.root, bytesOf('v'), VOLUME);
  assert.ok(made.kind === 'created');
  const { fileid } = made.inode;
  assert.equal((await ownership.claim(mutation(pool.a), fileid, ROUTER, null, null, 'c'.repeat(16))).kind, 'done');
  const kept = await remember(pool.a);
  pool.a.link.entries.clear();
  await namespace.remove(mutation(pool.a), namespace.root, bytesOf('v'));
  await namespace.dropTombstone(mutation(pool.a), fileid);
  const expected = await contents(pool.a);
  await forget(pool.a, kept);
  await call(pool.a, BEGIN_ROUND_SCRIPT, ['run-2']);
  for (const entry of pool.a.link.entries.values()) await replay(pool.a, 'run-2', entry);
  await finish(pool, 'run-2');
  assert.equal(await ownership.owner(fileid), null);
  assert.deepEqual(await contents(pool.a), expected);
  await assertSound(pool.a);
});

test('an owner puts nothing right in a generation or a round that is not the present one, and nobody takes part in a round that is over', async () => {
  await using pool = await openPool();
  const { namespace, ownership } = pool.a.registry;
  const made = await namespace.createFile(mutation(pool.a), namespace.root, bytesOf('v'), VOLUME);
  assert.ok(made.kind === 'created');
  const claimed = await ownership.claim(mutation(pool.a), made.inode.fileid, ROUTER, null, null, 'c'.repeat(16));
  assert.ok(claimed.kind === 'done');
  const { owner } = claimed;
  const higher = packOwner({ owner: { ...owner, term: { ...owner.term, counter: 9 } }, counterMax: 9 }, 0);
  const say = (generation: number, identity: string): Promise<ScriptReply> => {
    const names = ASSERT_OWNER_SCRIPT.keys.map((key) => pool.b.keys[key]);
    pool.b.link.generation = generation;
    return pool.b.link.read(ASSERT_OWNER_SCRIPT, names, [identity, higher]);
  };
  await assert.rejects(say(7, 'run-1'), /GENERATION 1/);
  await call(pool.a, BEGIN_ROUND_SCRIPT, ['run-2']);
  await assert.rejects(say(1, 'run-1'), /GENERATION round/);
  const [, vpoolName = ''] = /\{(.*)\}/.exec(pool.a.keys.meta) ?? [];
  const names = roundKeys(vpoolName);
  const takePart = (script: LuaScript, identity: string): Promise<unknown> =>
    control.eval(script.source, names.length, ...names, identity, ROUTER, INCARNATION, '1');
  const members = [ENTER_ROUND, REPORT_IN_ROUND, RENEW_IN_ROUND];
  for (const script of members) await assert.rejects(takePart(script, 'run-1'), /GENERATION round/);
  for (const script of members) await takePart(script, 'run-2');
  const [, its = ''] = names;
  await control.hdel(its, `report ${ROUTER}`);
  await assert.rejects(control.eval(REPORT_IN_ROUND.source, names.length, ...names, 'run-2', ROUTER, '{}', '7'), /GENERATION another round/);
  assert.equal(await control.hexists(its, `report ${ROUTER}`), 0, 'a report for another round is none for this one');
  const [, round = ''] = names;
  const keys = FINISH_ROUND_SCRIPT.keys.map((key) => pool.a.keys[key]);
  const end = async (): Promise<string[]> =>
    texts((await control.eval(FINISH_ROUND_SCRIPT.source, keys.length, ...keys, '', 'run-2', 1)) as ScriptReply);
  assert.deepEqual(await end(), ['done', '2']);
  assert.equal(await control.exists(round), 0, 'it goes with the round');
  for (const script of members) await assert.rejects(takePart(script, 'run-2'), /GENERATION 2/);
  await control.hset(round, 'late', ROUTER);
  assert.deepEqual(await end(), ['current', '2']);
  assert.equal(await control.exists(round), 1, 'another round stays');
  for (const under of [pool.a, pool.b]) under.link.generation = 2;
  assert.deepEqual(await ownership.owner(owner.fileid), owner);
});

test('a Redis that forgot a whole round and what came after it gives out no fileid again', async () => {
  await using pool = await openPool();
  const { namespace } = pool.a.registry;
  const kept = await remember(pool.a);
  await call(pool.a, BEGIN_ROUND_SCRIPT, ['run-2']);
  await finish(pool, 'run-2');
  const create = async (name: string): Promise<FileId> => {
    const made = await namespace.createFile(mutation(pool.a), namespace.root, bytesOf(name), INLINE);
    assert.ok(made.kind === 'created');
    return made.inode.fileid;
  };
  const fileids = [await create('x'), await create('y')];
  assert.ok(fileids[0]! > ROUND_JUMP);
  await forget(pool.a, kept);
  await call(pool.a, BEGIN_ROUND_SCRIPT, ['run-3']);
  for (const entry of pool.a.link.entries.values()) await replay(pool.a, 'run-3', entry);
  await finish(pool, 'run-3', 3);
  assert.ok(!fileids.includes(await create('z')));
  assert.ok((await create('w')) > 3 * ROUND_JUMP, 'beyond what was forgotten and replayed by nobody');
  await assertSound(pool.a);
});

test('what was given out in generations that Redis forgot and nobody replays is below all that comes, numbers and sequences', async () => {
  await using pool = await openPool();
  const { namespace } = pool.a.registry;
  const kept = await remember(pool.a);
  for (const [index, run] of ['run-2', 'run-3', 'run-4'].entries()) {
    await call(pool.a, BEGIN_ROUND_SCRIPT, [run]);
    await finish(pool, run, index + 2);
  }
  const create = async (name: string): Promise<FileId> => {
    const made = await namespace.createFile(mutation(pool.a), namespace.root, bytesOf(name), INLINE);
    assert.ok(made.kind === 'created');
    return made.inode.fileid;
  };
  const sequence = async (): Promise<number> => Number(await control.hget(pool.a.keys.meta, 'sequence'));
  const forgotten = { fileid: await create('x'), sequence: await sequence() };
  await forget(pool.a, kept);
  await call(pool.a, BEGIN_ROUND_SCRIPT, ['run-5']);
  await finish(pool, 'run-5', 5);
  assert.ok((await create('y')) > forgotten.fileid);
  assert.ok((await sequence()) > forgotten.sequence);
});

test('two generations of the same number, of which neither knows the other, give out different fileids and sequences', async () => {
  await using pool = await openPool();
  const { namespace } = pool.a.registry;
  const kept = await remember(pool.a);
  const given = async (run: string, name: string): Promise<{ fileid: FileId; sequence: number }> => {
    await call(pool.a, BEGIN_ROUND_SCRIPT, [run]);
    await finish(pool, run);
    const made = await namespace.createFile(mutation(pool.a), namespace.root, bytesOf(name), INLINE);
    assert.ok(made.kind === 'created');
    return { fileid: made.inode.fileid, sequence: Number(await control.hget(pool.a.keys.meta, 'sequence')) };
  };
  const one = await given('run-2', 'x');
  await forget(pool.a, kept);
  const other = await given('run-3', 'y');
  assert.equal(pool.a.link.generation, 2);
  // Not by one or two only: each goes on from there.
  assert.ok(Math.abs(Number(one.fileid) - Number(other.fileid)) > 1000);
  assert.ok(Math.abs(one.sequence - other.sequence) > 1000);
});

test('a counter that was given out in what Redis forgot is never given out again', async () => {
  await using pool = await openPool();
  const { namespace, ownership } = pool.a.registry;
  const made = await namespace.createFile(mutation(pool.a), namespace.root, bytesOf('v'), VOLUME);
  assert.ok(made.kind === 'created');
  const { fileid } = made.inode;
  const claimed = await ownership.claim(mutation(pool.a), fileid, ROUTER, null, null, 'c'.repeat(16));
  assert.ok(claimed.kind === 'done');
  const kept = await remember(pool.a);
  const burnt = await ownership.beginMove(mutation(pool.a), fileid, claimed.owner.term, OTHER_ROUTER, 'd'.repeat(16));
  assert.ok(burnt.kind === 'done');
  await forget(pool.a, kept);
  await call(pool.a, BEGIN_ROUND_SCRIPT, ['run-2']);
  for (const entry of pool.a.link.entries.values()) await replay(pool.a, 'run-2', entry);
  await finish(pool, 'run-2');
  const owner = await ownership.owner(fileid);
  assert.deepEqual(owner, burnt.owner);
  const next = await ownership.claim(mutation(pool.a), fileid, ROUTER, claimed.owner.term, null, 'e'.repeat(16));
  assert.ok(next.kind === 'done');
  assert.deepEqual([next.owner.term.generation, next.owner.term.counter], [2, 3]);
});

for (const order of ['the higher epoch first', 'the higher number first'] as const) {
  test(`a number given out in a history that lost its term to another is never given out again: ${order}`, async () => {
    await using pool = await openPool();
    const { namespace, ownership } = pool.a.registry;
    const made = await namespace.createFile(mutation(pool.a), namespace.root, bytesOf('v'), VOLUME);
    assert.ok(made.kind === 'created');
    const { fileid } = made.inode;
    const claimed = await ownership.claim(mutation(pool.a), fileid, ROUTER, null, null, 'c'.repeat(16));
    assert.ok(claimed.kind === 'done');
    const { term } = claimed.owner;
    const lastEntry = (): OutboxEntry => [...pool.a.link.entries.values()].at(-1) as OutboxEntry;
    const attempt = async (nonce: string): Promise<Term> => {
      const begun = await ownership.beginMove(mutation(pool.a), fileid, term, OTHER_ROUTER, nonce.repeat(16));
      assert.ok(begun.kind === 'done' && begun.owner.moving !== null);
      return begun.owner.moving.attempt;
    };
    const kept = await remember(pool.a);
    const transferred = await ownership.transfer(mutation(pool.a), fileid, term, await attempt('d'), null, { kind: 'clean' });
    assert.ok(transferred.kind === 'done' && transferred.owner.term.counter === 2);
    const higherEpoch = lastEntry();
    // What a Redis answered that had forgotten the transfer, and is forgotten itself.
    await forget(pool.a, kept);
    pool.a.link.entries.clear();
    await attempt('e');
    assert.equal((await attempt('f')).counter, 3);
    const higherNumber = lastEntry();
    await forget(pool.a, kept);
    await call(pool.a, BEGIN_ROUND_SCRIPT, ['run-2']);
    const entries = order === 'the higher epoch first' ? [higherEpoch, higherNumber] : [higherNumber, higherEpoch];
    for (const entry of entries) await replay(pool.a, 'run-2', entry);
    await finish(pool, 'run-2');
    assert.deepEqual(await ownership.owner(fileid), transferred.owner);
    const next = await pool.b.registry.ownership.claim(
      mutation(pool.b, OTHER_INCARNATION),
      fileid,
      OTHER_ROUTER,
      transferred.owner.term,
      null,
      '1'.repeat(16),
    );
    assert.ok(next.kind === 'done');
    assert.equal(next.owner.term.counter, 4);
  });
}
