/** What Redis adds to the conformance suite: cost, exact numbers, Redis's clock, the memory of operations, lost answers. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { Redis } from 'ioredis';

import { ApplianceError } from '../../server/core/errors.ts';
import type { FileId, Incarnation } from '../../server/core/ids.ts';
import { systemRandom } from '../../server/core/node-time.ts';
import { timestampOf } from '../../server/core/time.ts';
import { bytesOf, INCARNATION, INLINE, NO_CHANGES, OTHER_INCARNATION, OTHER_ROUTER, rejectsWith, ROUTER, VOLUME } from '../conformance/world.ts';
import { decodeOutcome } from '../outcome-codec.ts';
import type { Mutation, Root } from '../ports.ts';
import type { EntryOf, LuaScript, RedisLink, ScriptArgument, ScriptReply } from './redis-link.ts';
import { RedisNamespace } from './redis-namespace.ts';
import { RedisOwnership } from './redis-ownership.ts';
import { RedisVerbs } from './redis-verbs.ts';
import { RedisProcess } from './testing/redis-process.ts';
import { TestRegistry } from './testing/test-registry.ts';

const redis = await RedisProcess.start();
const control = new Redis({ port: redis.port, host: '127.0.0.1' });
after(async () => {
  control.disconnect();
  await redis[Symbol.asyncDispose]();
});

async function joined(): Promise<TestRegistry> {
  const under = await TestRegistry.open(redis.port);
  await under.registry.membership.join(ROUTER, INCARNATION, [], 'test');
  return under;
}

let operations = 0;
function mutation(under: TestRegistry, fields: Partial<Mutation> = {}): Mutation {
  operations += 1;
  return { operationId: `10.0.0.1|${operations}`, incarnation: INCARNATION, now: timestampOf(under.wallMs()), notAfterMs: Infinity, ...fields };
}

async function assertSound(under: TestRegistry): Promise<void> {
  const problems: string[] = [];
  for await (const problem of under.registry.verify()) problems.push(problem);
  assert.deepEqual(problems, []);
}

test('every verb and every read costs one round trip', async () => {
  await using under = await joined();
  const { namespace, ownership, membership } = under.registry;
  const { root } = namespace;
  const attributes = { mode: 0o755, uid: 0, gid: 0, atime: null, mtime: null };
  const made = await namespace.createFile(mutation(under), root, bytesOf('v'), VOLUME);
  const inline = await namespace.createFile(mutation(under), root, bytesOf('i'), INLINE);
  assert.ok(made.kind === 'created' && inline.kind === 'created');
  const { fileid } = made.inode;
  const claimed = await ownership.claim(mutation(under), fileid, ROUTER, null, null, 'c'.repeat(16));
  assert.ok(claimed.kind === 'done');
  const { term } = claimed.owner;
  const owned = { fileid, term, sizeBytes: 1, usedBytes: 1, atime: { seconds: 1, nanoseconds: 1 }, mtime: { seconds: 1, nanoseconds: 1 } };
  const calls: Record<string, () => unknown> = {
    createFile: () => namespace.createFile(mutation(under), root, bytesOf('f'), INLINE),
    createDirectory: () => namespace.createDirectory(mutation(under), root, bytesOf('d'), attributes),
    createSymlink: () => namespace.createSymlink(mutation(under), root, bytesOf('s'), bytesOf('t'), attributes),
    link: () => namespace.link(mutation(under), fileid, root, bytesOf('l')),
    rename: () => namespace.rename(mutation(under), root, bytesOf('f'), root, bytesOf('g')),
    remove: () => namespace.remove(mutation(under), root, bytesOf('g')),
    removeDirectory: () => namespace.removeDirectory(mutation(under), root, bytesOf('d')),
    setAttributes: () => namespace.setAttributes(mutation(under), fileid, { ...NO_CHANGES, mode: 0o600 }, null, null),
    writeInline: () => namespace.writeInline(mutation(under), inline.inode.fileid, 0, bytesOf('x')),
    flipToFile: () => namespace.flipToFile(mutation(under), inline.inode.fileid),
    putOwnedAttributes: () => namespace.putOwnedAttributes(mutation(under), [{ ...owned, ctime: { seconds: 1, nanoseconds: 1 } }]),
    inode: () => namespace.inode(fileid, null),
    lookup: () => namespace.lookup(root, bytesOf('v')),
    entries: () => namespace.entries(root, 0, 1_000),
    usage: () => namespace.usage(),
    tombstones: () => namespace.tombstones(0 as FileId, 10),
    owner: () => ownership.owner(fileid),
    ownedBy: () => ownership.ownedBy(ROUTER, 0 as FileId, 10),
    claim: () => ownership.claim(mutation(under), fileid, ROUTER, null, null, 'c'.repeat(16)),
    beginMove: () => ownership.beginMove(mutation(under), fileid, term, OTHER_ROUTER, 'c'.repeat(16)),
    transfer: () => ownership.transfer(mutation(under), fileid, term, term, null, { kind: 'clean' }),
    update: () => ownership.update(mutation(under), fileid, term, { protection: { kind: 'unprotected' } }),
    renew: () => membership.renew(ROUTER, INCARNATION),
    routers: () => membership.routers(),
    markDead: () => membership.markDead(ROUTER, INCARNATION, 99),
  };
  for (const [verb, call] of Object.entries(calls)) {
    const before = under.link.calls;
    await call();
    assert.equal(under.link.calls - before, 1, verb);
  }
});

test('a router that is dead and owns nothing can be forgotten; it comes back as a new one, and its former life stays dead', async () => {
  await using under = await joined();
  const { namespace, ownership, membership } = under.registry;
  const ids = async (): Promise<string[]> => (await membership.routers()).map(({ id }) => id);
  await membership.join(OTHER_ROUTER, OTHER_INCARNATION, [], 'test');
  const made = await namespace.createFile(mutation(under), namespace.root, bytesOf('v'), VOLUME);
  assert.ok(made.kind === 'created');
  const { fileid } = made.inode;
  const claimed = await ownership.claim({ ...mutation(under), incarnation: OTHER_INCARNATION }, fileid, OTHER_ROUTER, null, null, 'c'.repeat(16));
  assert.ok(claimed.kind === 'done');
  assert.equal(await membership.forget(OTHER_ROUTER), 'alive');
  await membership.leave(OTHER_ROUTER, OTHER_INCARNATION);
  assert.equal(await membership.forget(OTHER_ROUTER), 'owner');
  assert.deepEqual(await ids(), [ROUTER, OTHER_ROUTER]);
  const taken = await ownership.claim(mutation(under), fileid, ROUTER, claimed.owner.term, null, 'd'.repeat(16));
  assert.ok(taken.kind === 'done');
  assert.equal(await membership.forget(OTHER_ROUTER), 'forgotten');
  assert.equal(await membership.forget(OTHER_ROUTER), 'forgotten', 'asked again because the answer was lost');
  assert.deepEqual(await ids(), [ROUTER]);
  await assertSound(under);
  await rejectsWith(membership.join(OTHER_ROUTER, OTHER_INCARNATION, [], 'test'), 'incarnation-dead');
  await membership.join(OTHER_ROUTER, '5'.repeat(32) as Incarnation, [], 'test');
  assert.deepEqual(await ids(), [ROUTER, OTHER_ROUTER]);
});

test('sizes of 64 TiB and counters up to 2^53 - 1 are exact, and names may have every byte', async () => {
  await using under = await joined();
  const { namespace, ownership } = under.registry;
  const { root } = namespace;
  const name = Uint8Array.from({ length: 254 }, (_, at) => (at < 46 ? at + 1 : at + 2));
  assert.ok(!name.includes(0) && !name.includes(0x2f) && name.includes(0xff));
  const times = { atime: { seconds: 0xffff_ffff, nanoseconds: 999_999_999 }, mtime: { seconds: 0, nanoseconds: 0 } };
  const file = {
    ...VOLUME,
    ...times,
    sizeBytes: 64 * 1024 ** 4,
    mode: 0o7777,
    uid: 0xffff_ffff,
    gid: 0xffff_fffe,
    exclusiveVerifier: bytesOf('\0\xff\r\n\0\0\0\0'),
  };
  const made = await namespace.createFile(mutation(under), root, name, file);
  assert.ok(made.kind === 'created');
  const { fileid } = made.inode;
  const { mode, uid, gid, sizeBytes, exclusiveVerifier } = file;
  assert.deepEqual(made.inode, { ...made.inode, mode, uid, gid, sizeBytes, exclusiveVerifier, ...times });
  assert.deepEqual(await namespace.inode(fileid, made.inode.inodeGeneration), made.inode);

  const claimed = await ownership.claim(mutation(under), fileid, ROUTER, null, null, 'c'.repeat(16), Number.MAX_SAFE_INTEGER - 10);
  assert.ok(claimed.kind === 'done');
  const { term } = claimed.owner;
  assert.equal(term.counter, Number.MAX_SAFE_INTEGER - 9);
  const huge = Number.MAX_SAFE_INTEGER;
  const root_: Root = {
    checkpoint: 'c/\u00e4',
    uploadedSegment: huge,
    uploadedSequence: huge,
    closedEpochs: [{ term: { ...term, generation: huge, counter: huge }, lastSegment: huge, lastSequence: huge }],
  };
  const updated = await ownership.update(mutation(under), fileid, term, { root: root_ });
  assert.deepEqual(updated, { kind: 'done', owner: { ...claimed.owner, root: root_ } });
  assert.deepEqual(await ownership.owner(fileid), { ...claimed.owner, root: root_ });
  const owned = { fileid, term, sizeBytes: huge, usedBytes: 2 ** 52 + 1, ...times, ctime: { seconds: 0xffff_ffff, nanoseconds: 1 } };
  await namespace.putOwnedAttributes(mutation(under), [owned]);
  const after_ = await namespace.inode(fileid, null);
  assert.deepEqual([after_?.sizeBytes, after_?.usedBytes, after_?.ctime], [huge, 2 ** 52 + 1, owned.ctime]);
  assert.equal((await namespace.usage()).usedBytes, 2 ** 52 + 1 + 4_096);

  await control.hset(under.keys.meta, 'next_fileid', String(huge - 1));
  const last = await namespace.createFile(mutation(under), root, bytesOf('last'), INLINE);
  assert.ok(last.kind === 'created' && last.inode.fileid === huge - 1);
  assert.deepEqual(await namespace.inode(last.inode.fileid, null), last.inode);
  await rejectsWith(namespace.createFile(mutation(under), root, bytesOf('more'), INLINE), 'registry-no-space');
  const listed = await namespace.entries(root, 0, 10);
  assert.ok(listed.kind === 'entries');
  assert.deepEqual(
    listed.entries.map((entry) => [entry.name, entry.inode.fileid]),
    [
      [name, fileid],
      [bytesOf('last'), huge - 1],
    ],
  );
  const { inode } = (await namespace.rename(mutation(under), root, name, root, bytesOf('plain'))) as { inode: { fileid: FileId } };
  assert.equal(inode.fileid, fileid);
  await assertSound(under);
});

test('a change that Redis executes later than its caller allowed is refused, though it was sent in time', async () => {
  await using under = await joined();
  const { namespace } = under.registry;
  const within = (ms: number): Mutation => mutation(under, { notAfterMs: under.wallMs() + ms });
  assert.equal((await namespace.createFile(within(200), namespace.root, bytesOf('in-time'), INLINE)).kind, 'created');
  await control.call('CLIENT', 'PAUSE', '400', 'ALL');
  await rejectsWith(namespace.createFile(within(200), namespace.root, bytesOf('late'), INLINE), 'registry-unavailable');
  assert.equal((await namespace.lookup(namespace.root, bytesOf('late'))).kind, 'absent');
  assert.equal(
    (await namespace.createFile(within(5_000), namespace.root, bytesOf('later'), INLINE)).kind,
    'created',
    'the slow reply spoiled nothing',
  );
});

test('an operation repeated through another router leaves its entry in that one’s outbox too', async () => {
  await using first = await joined();
  await using second = first.another();
  await second.registry.membership.join(OTHER_ROUTER, OTHER_INCARNATION, [], 'test');
  const once = mutation(first);
  const { root } = first.registry.namespace;
  const made = await first.registry.namespace.createFile(once, root, bytesOf('x'), INLINE);
  const again = await second.registry.namespace.createFile({ ...once, incarnation: OTHER_INCARNATION }, root, bytesOf('x'), INLINE);
  assert.deepEqual(again, made);
  assert.deepEqual([...second.link.entries], [...first.link.entries]);
  const [entry] = second.link.entries.values();
  assert.deepEqual(decodeOutcome('createFile', entry?.outcome, 'test'), made);
});

test('remembered operations are bounded: the oldest go first, and what a router does by itself pushes out nobody’s', async () => {
  await using under = await joined();
  const { namespace } = under.registry;
  await control.hset(under.keys.meta, 'operations_max', '400');
  const absent = (operationId: string | null): Promise<unknown> => namespace.remove(mutation(under, { operationId }), namespace.root, bytesOf('x'));
  const ids = Array.from({ length: 150 }, (_, at) => `10.0.0.${at}|1`);
  for (const id of ids) await absent(id);
  for (let from = 0; from < 1_000; from += 100) {
    under.advanceWallMs(61_000);
    await Promise.all(Array.from({ length: 100 }, () => absent(null)));
  }
  assert.ok((await control.hlen(under.keys.operations)) <= 400);
  await namespace.createFile(mutation(under), namespace.root, bytesOf('x'), INLINE);
  const forgotten: string[] = [];
  for (const id of ids.slice(-20)) if (((await absent(id)) as { kind: string }).kind !== 'absent') forgotten.push(id);
  assert.deepEqual(forgotten, [], 'the newest of others are still known');
  for (let at = 0; at < 500; at += 1) await absent(`10.1.0.${at}|1`);
  const known = await control.hlen(under.keys.operations);
  assert.ok(known <= 400, `${known} are remembered`);
  await assertSound(under);
});

test('remembered operations are bounded in bytes: large contents push out the oldest sooner', async () => {
  await using under = await joined();
  const { namespace } = under.registry;
  await control.hset(under.keys.meta, 'operation_bytes_max', '200000');
  const made = await namespace.createFile(mutation(under), namespace.root, bytesOf('f'), INLINE);
  assert.ok(made.kind === 'created');
  for (let at = 0; at < 200; at += 1) {
    await namespace.writeInline(mutation(under), made.inode.fileid, 0, new Uint8Array(4_000).fill(at));
    await namespace.remove(mutation(under), namespace.root, bytesOf('absent'));
  }
  const bytes = Number(await control.hget(under.keys.meta, 'operation_bytes'));
  assert.ok(bytes > 150_000 && bytes <= 200_000, `${bytes} bytes`);
  assert.ok((await control.hlen(under.keys.operations)) < 100);
  await assertSound(under);
});

/** A link that loses answers: what was sent is executed, its caller hears of an unknown outcome. */
class ForgetfulLink implements RedisLink {
  readonly #under: TestRegistry;
  readonly problem = null;
  readonly generation = 1;
  lose = 0;

  constructor(under: TestRegistry) {
    this.#under = under;
  }

  async change(script: LuaScript, keys: readonly string[], args: readonly ScriptArgument[], entryOf?: EntryOf): Promise<ScriptReply> {
    const lost = this.lose > 0;
    this.lose = Math.max(0, this.lose - 1);
    if (!lost) return this.#under.link.change(script, keys, args, entryOf);
    await this.#under.link.read(script, keys, args);
    throw new ApplianceError('registry-unavailable', 'the answer was lost', { retryable: true });
  }

  read(script: LuaScript, keys: readonly string[], args: readonly ScriptArgument[]): Promise<ScriptReply> {
    return this.#under.link.read(script, keys, args);
  }
}

test('a change whose answer was lost gets into the outbox all the same, with operation id and without, and is not executed twice', async () => {
  await using under = await joined();
  const link = new ForgetfulLink(under);
  const verbs = new RedisVerbs({ link, keys: under.keys, clock: under.clock, random: systemRandom });
  const namespace = new RedisNamespace({ verbs, random: systemRandom, inlineBytesMax: 4_096 });
  for (const operationId of ['10.0.0.1|x', null]) {
    link.lose = 2;
    const name = bytesOf(`lost ${String(operationId)}`);
    const before = under.link.entries.size;
    await rejectsWith(namespace.createFile(mutation(under, { operationId }), namespace.root, name, INLINE), 'registry-unavailable');
    const found = await namespace.lookup(namespace.root, name);
    assert.ok(found.kind === 'found', 'it was executed');
    for (let tries = 0; under.link.entries.size === before; tries += 1) {
      assert.ok(tries < 3000, 'its entry came');
      await under.clock.sleep(20);
    }
    const entry = [...under.link.entries.values()].at(-1);
    assert.equal(entry?.operationId, operationId);
    assert.match(entry?.afterImage ?? '', new RegExp(`"fileid":${found.inode.fileid},`));
    assert.equal((await under.registry.outbox.position()).sequence, entry?.sequence);
  }
  await assertSound(under);
});

test('a change whose request was lost is not executed by whoever asks what became of it', async () => {
  await using under = await joined();
  const calls: ScriptArgument[][] = [];
  let lost = true;
  const link: RedisLink = {
    problem: null,
    generation: 1,
    async change(script, keys, args, entryOf) {
      calls.push([...args]);
      if (!lost) return under.link.change(script, keys, args, entryOf);
      lost = false;
      throw new ApplianceError('registry-unavailable', 'the request was lost', { retryable: true });
    },
    read: (script, keys, args) => under.link.read(script, keys, args),
  };
  const verbs = new RedisVerbs({ link, keys: under.keys, clock: under.clock, random: systemRandom });
  const namespace = new RedisNamespace({ verbs, random: systemRandom, inlineBytesMax: 4_096 });
  await rejectsWith(namespace.createFile(mutation(under), namespace.root, bytesOf('x'), INLINE), 'registry-unavailable');
  for (let tries = 0; calls.length < 2; tries += 1) {
    assert.ok(tries < 3000);
    await under.clock.sleep(20);
  }
  await under.clock.sleep(20);
  assert.equal((await namespace.lookup(namespace.root, bytesOf('x'))).kind, 'absent');
  assert.equal(under.link.entries.size, 0);
});

test('a change of a router’s own that its caller gave up does not take effect behind the one that was asked for after it', async () => {
  await using under = await joined();
  const held: (() => Promise<ScriptReply>)[] = [];
  let isCut = false;
  const link: RedisLink = {
    problem: null,
    generation: 1,
    async change(script, keys, args, entryOf) {
      if (!isCut) return under.link.change(script, keys, args, entryOf);
      // In the buffer of a socket that nobody listens to any more; its kernel sends it again when the network is back.
      held.push(() => under.link.read(script, keys, args));
      await under.clock.sleep(60);
      throw new ApplianceError('registry-unavailable', 'the connection broke', { retryable: true });
    },
    read: (script, keys, args) => under.link.read(script, keys, args),
  };
  const verbs = new RedisVerbs({ link, keys: under.keys, clock: under.clock, random: systemRandom, patienceMs: 50 });
  const ownership = new RedisOwnership({ verbs, random: systemRandom });
  const internal = (): Mutation => mutation(under, { operationId: null });
  const made = await under.registry.namespace.createFile(mutation(under), under.registry.namespace.root, bytesOf('v'), VOLUME);
  assert.ok(made.kind === 'created');
  const { fileid } = made.inode;
  const claimed = await ownership.claim(internal(), fileid, ROUTER, null, null, 'c'.repeat(16));
  assert.ok(claimed.kind === 'done');
  const { term } = claimed.owner;
  isCut = true;
  await rejectsWith(ownership.update(internal(), fileid, term, { protection: { kind: 'clean' } }), 'registry-unavailable');
  isCut = false;
  const marked = await ownership.update(internal(), fileid, term, { protection: { kind: 'unprotected' } });
  assert.equal(marked.kind, 'done');
  await Promise.all(held.map((late) => late()));
  assert.equal((await ownership.owner(fileid))?.protection.kind, 'unprotected');
});

test('keys of another type, and records that are none, are registry-corrupt and stay in health', async () => {
  await using under = await joined();
  const { namespace } = under.registry;
  await control.hset(under.keys.inodes, String(namespace.root), 'nonsense');
  await rejectsWith(Promise.resolve(namespace.inode(namespace.root, null)), 'registry-corrupt');
  await rejectsWith(namespace.createFile(mutation(under), namespace.root, bytesOf('x'), INLINE), 'registry-corrupt');
  assert.notEqual(under.registry.health(), null);
  await control.del(under.keys.owners);
  await control.set(under.keys.owners, 'x');
  await rejectsWith(Promise.resolve(under.registry.ownership.owner(namespace.root)), 'registry-corrupt');
});

test('verify finds what does not agree', async () => {
  await using under = await joined();
  const { namespace, ownership } = under.registry;
  const made = await namespace.createFile(mutation(under), namespace.root, bytesOf('v'), VOLUME);
  assert.ok(made.kind === 'created');
  await ownership.claim(mutation(under), made.inode.fileid, ROUTER, null, null, 'c'.repeat(16));
  await assertSound(under);
  const dumps = new Map<string, Buffer>();
  for (const key of Object.values(under.keys)) {
    const dump = (await control.callBuffer('DUMP', key)) as Buffer | null;
    if (dump !== null) dumps.set(key, dump);
  }
  const { keys } = under;
  const fileid = String(made.inode.fileid);
  const damages: readonly [RegExp, () => Promise<unknown>][] = [
    [/names inode 65, which is not there/, () => control.hdel(keys.inodes, fileid)],
    [/65 has 1 links and 0 names/, () => control.del(keys.names)],
    [/is not in the listing/, () => control.del(keys.listing)],
    [/the root directory 64 is missing/, () => control.hdel(keys.inodes, '64')],
    [/at or above the fileid counter/, () => control.hset(keys.meta, 'next_fileid', '65')],
    [/is of change \d+, the last was 0/, () => control.hset(keys.meta, 'sequence', '0')],
    [/usage says 9 inodes/, () => control.hset(keys.meta, 'inodes', '9')],
    [/owner record 65 is not in the index/, () => control.del(keys.owned)],
    [/the index of owners has 65/, () => control.del(keys.owners)],
    [/names router a+, which never joined/, () => control.del(keys.routers)],
    [/66 is listed as a tombstone/, () => control.zadd(keys.tombstones, 66, '66')],
    [/the counter says 5 bytes of remembered operations/, () => control.hset(keys.meta, 'operation_bytes', '5')],
    [/remembered operations, their indexes have others/, () => control.zpopmin(keys.operationAge)],
    [/Redis operation "nonsense x"/, () => control.hset(keys.operations, 'nonsense x', 'y')],
  ];
  for (const [message, damage] of damages) {
    await damage();
    const problems: string[] = [];
    for await (const problem of under.registry.verify()) problems.push(problem);
    assert.ok(
      problems.some((problem) => message.test(problem)),
      `${String(message)} in ${JSON.stringify(problems)}`,
    );
    await control.del(...Object.values(keys));
    for (const [key, dump] of dumps) await control.callBuffer('RESTORE', key, 0, dump);
  }
  await assertSound(under);
});
