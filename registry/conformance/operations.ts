/** Conformance: operation ids make verbs exactly-once; dead incarnations change nothing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Incarnation } from '../../server/core/ids.ts';
import {
  bytesOf,
  INCARNATION,
  INLINE,
  NO_CHANGES,
  type OpenRegistry,
  OTHER_INCARNATION,
  OTHER_ROUTER,
  rejectsWith,
  ROUTER,
  VOLUME,
  World,
} from './world.ts';

const MINUTES = 60_000;

export function operationsConformance(name: string, open: OpenRegistry): void {
  test(`${name}: every verb with the same operation id answers its first outcome and has no second effect`, async () => {
    await using world = await World.open(open);
    const d = await world.directory('d');
    const target = await world.file('target');
    await world.file('doomed', VOLUME);
    await world.directory('doomed-d');
    await world.file('a');
    const attributes = { mode: 0o755, uid: 0, gid: 0, atime: null, mtime: null };
    let count = 0;
    const twice = async (call: (operationId: string) => Promise<unknown>): Promise<void> => {
      const operationId = `10.0.0.1|host|${count++}`;
      const first = await call(operationId);
      const sequence = await world.sequence();
      world.advanceWallMs(1_000);
      assert.deepEqual(await call(operationId), first);
      await world.reopen();
      assert.deepEqual(await call(operationId), first);
      assert.equal(await world.sequence(), sequence);
    };
    const as = (operationId: string): ReturnType<World['mutation']> => world.mutation({ operationId });
    await twice((id) => world.namespace.createFile(as(id), world.root, bytesOf('f'), { ...INLINE, exclusiveVerifier: bytesOf('12345678') }));
    await twice((id) => world.namespace.createFile(as(id), world.root, bytesOf('f'), INLINE));
    await twice((id) => world.namespace.createDirectory(as(id), world.root, bytesOf('dir'), attributes));
    await twice((id) => world.namespace.createSymlink(as(id), world.root, bytesOf('s'), bytesOf('\xfe'), attributes));
    await twice((id) => world.namespace.remove(as(id), world.root, bytesOf('doomed')));
    await twice((id) => world.namespace.remove(as(id), world.root, bytesOf('doomed')));
    await twice((id) => world.namespace.removeDirectory(as(id), world.root, bytesOf('doomed-d')));
    await twice((id) => world.namespace.rename(as(id), world.root, bytesOf('a'), d.fileid, bytesOf('b')));
    await twice((id) => world.namespace.rename(as(id), world.root, bytesOf('f'), d.fileid, bytesOf('b')));
    await twice((id) => world.namespace.rename(as(id), target.fileid, bytesOf('f'), d.fileid, bytesOf('b')));
    await twice((id) => world.namespace.link(as(id), target.fileid, d.fileid, bytesOf('second')));
    await twice((id) => world.namespace.link(as(id), d.fileid, d.fileid, bytesOf('third')));
    await twice((id) => world.namespace.setAttributes(as(id), target.fileid, { ...NO_CHANGES, mode: 0o777 }, null, 'inline'));
    await twice((id) => world.namespace.setAttributes(as(id), target.fileid, NO_CHANGES, { seconds: 0, nanoseconds: 0 }, null));
    await twice((id) => world.namespace.writeInline(as(id), target.fileid, 0, bytesOf('\x00\xffdata')));
    await twice((id) => world.namespace.writeInline(as(id), target.fileid, 0, new Uint8Array(1_000_000)));
    await twice((id) => world.namespace.flipToFile(as(id), target.fileid));
    await twice((id) => world.ownership.claim(as(id), target.fileid, ROUTER, null, null, 'c'.repeat(16)));
    const owner = await world.ownership.owner(target.fileid);
    assert.ok(owner !== null);
    await world.registry.membership.join(OTHER_ROUTER, OTHER_INCARNATION, [], 'test');
    await twice((id) => world.ownership.beginMove(as(id), target.fileid, owner.term, OTHER_ROUTER, 'd'.repeat(16)));
    const attempt = (await world.ownership.owner(target.fileid))?.moving?.attempt;
    assert.ok(attempt !== undefined);
    await twice((id) => world.ownership.transfer(as(id), target.fileid, owner.term, attempt, null, { kind: 'unprotected' }));
    await twice((id) => world.namespace.dropTombstone(as(id), target.fileid));
    await world.assertSound();
  });

  test(`${name}: a repeated call finds its answer though the world went on: REMOVE is not executed again`, async () => {
    await using world = await World.open(open);
    await world.file('x');
    const operationId = '10.0.0.1|h|1';
    const first = await world.namespace.remove(world.mutation({ operationId }), world.root, bytesOf('x'));
    const again = await world.file('x');
    assert.deepEqual(await world.namespace.remove(world.mutation({ operationId }), world.root, bytesOf('x')), first);
    assert.deepEqual(await world.find('x'), again);
  });

  test(`${name}: duplicates that are under way at the same time join: one effect, equal answers`, async () => {
    await using world = await World.open(open);
    const mutation = world.mutation({ operationId: '10.0.0.1|h|1' });
    const outcomes = await Promise.all(Array.from({ length: 10 }, () => world.namespace.createFile(mutation, world.root, bytesOf('x'), INLINE)));
    for (const outcome of outcomes) assert.deepEqual(outcome, outcomes[0]);
    assert.equal(outcomes[0]?.kind, 'created');
    assert.equal(await world.sequence(), 1);
  });

  test(`${name}: one id may be used by several verbs of one call: each is remembered on its own`, async () => {
    await using world = await World.open(open);
    const mutation = world.mutation({ operationId: '10.0.0.1|h|1' });
    const created = await world.namespace.createFile(mutation, world.root, bytesOf('x'), INLINE);
    assert.ok(created.kind === 'created');
    const flipped = await world.namespace.flipToFile(mutation, created.inode.fileid);
    assert.equal(flipped.kind, 'changed');
    assert.deepEqual(await world.namespace.createFile(mutation, world.root, bytesOf('x'), INLINE), created);
    assert.deepEqual(await world.namespace.flipToFile(mutation, created.inode.fileid), flipped);
    const both = world.mutation({ operationId: '10.0.0.1|h|2' });
    assert.equal((await world.namespace.remove(both, world.root, bytesOf('x'))).kind, 'removed');
    assert.equal((await world.namespace.createFile(both, world.root, bytesOf('x'), INLINE)).kind, 'created');
    assert.equal((await world.namespace.remove(both, world.root, bytesOf('x'))).kind, 'removed');
    assert.notEqual(await world.find('x'), null);
  });

  test(`${name}: a remembered answer is given even past the not-after time`, async () => {
    await using world = await World.open(open);
    const operationId = '10.0.0.1|h|1';
    const first = await world.namespace.createFile(world.mutation({ operationId }), world.root, bytesOf('x'), INLINE);
    const late = world.mutation({ operationId, notAfterMs: world.wallMs() - 1 });
    assert.deepEqual(await world.namespace.createFile(late, world.root, bytesOf('x'), INLINE), first);
  });

  test(`${name}: answers are kept for 15 minutes after they were last asked for, and the last 1024 of a client for longer`, async () => {
    await using world = await World.open(open);
    const refused = (id: string): Promise<unknown> => world.namespace.remove(world.mutation({ operationId: id }), world.root, bytesOf('x'));
    const absent = await refused('10.0.0.2|other');
    assert.deepEqual(absent, { kind: 'absent', directory: await world.live(world.root) });
    await refused('10.0.0.1|old');
    await refused('10.0.0.1|touched');
    await world.file('x');
    world.advanceWallMs(14 * MINUTES);
    assert.deepEqual(await refused('10.0.0.1|touched'), absent, 'within 15 minutes');
    world.advanceWallMs(2 * MINUTES);
    // 2,000 newer operations of the client push what is older than 15 minutes out.
    for (let first = 0; first < 2_000; first += 500) {
      await Promise.all(
        Array.from({ length: 500 }, (_, at) =>
          world.namespace.remove(world.mutation({ operationId: `10.0.0.1|${first + at}` }), world.root, bytesOf('never-there')),
        ),
      );
    }
    assert.deepEqual(await refused('10.0.0.1|touched'), absent, 'asked for 2 minutes ago');
    assert.deepEqual(await refused('10.0.0.2|other'), absent, 'among the last of its client');
    assert.notEqual(await world.find('x'), null);
    const executed = await refused('10.0.0.1|old');
    assert.deepEqual([(executed as { kind: string }).kind, await world.find('x')], ['removed', null], 'forgotten, so executed');
    await world.assertSound();
  });

  test(`${name}: an incarnation that never joined, was replaced, left or was marked dead is refused for every verb`, async () => {
    await using world = await World.open(open);
    const { membership } = world.registry;
    const attempt = (incarnation: Incarnation): Promise<unknown> =>
      world.namespace.createFile(world.mutation({ incarnation, operationId: null }), world.root, bytesOf('x'), INLINE);
    await rejectsWith(attempt('9'.repeat(32) as Incarnation), 'incarnation-dead');
    await membership.join(OTHER_ROUTER, OTHER_INCARNATION, [], 'test');
    const next = '3'.repeat(32) as Incarnation;
    await membership.join(OTHER_ROUTER, next, [], 'test');
    await rejectsWith(attempt(OTHER_INCARNATION), 'incarnation-dead');
    await rejectsWith(world.namespace.putOwnedAttributes(world.mutation({ incarnation: OTHER_INCARNATION }), [putOwned(world)]), 'incarnation-dead');
    assert.equal(await membership.markDead(OTHER_ROUTER, next, 0), 'dead');
    await rejectsWith(attempt(next), 'incarnation-dead');
    await world.reopen();
    await rejectsWith(attempt(next), 'incarnation-dead');
    await world.registry.membership.leave(ROUTER, INCARNATION);
    await rejectsWith(attempt(INCARNATION), 'incarnation-dead');
    assert.deepEqual(await world.names(), []);
    assert.equal(await world.sequence(), 0);
  });

  test(`${name}: a dead incarnation is refused even an answer that is remembered`, async () => {
    await using world = await World.open(open);
    const mutation = world.mutation({ operationId: '10.0.0.1|h|1' });
    await world.namespace.createFile(mutation, world.root, bytesOf('x'), INLINE);
    await world.registry.membership.leave(ROUTER, INCARNATION);
    await rejectsWith(world.namespace.createFile(mutation, world.root, bytesOf('x'), INLINE), 'incarnation-dead');
    await world.registry.membership.join(ROUTER, OTHER_INCARNATION, [], 'test');
    const outcome = await world.namespace.createFile({ ...mutation, incarnation: OTHER_INCARNATION }, world.root, bytesOf('x'), INLINE);
    assert.equal(outcome.kind, 'created', 'the router that came back answers the retransmission');
  });
}

function putOwned(world: World): Parameters<World['namespace']['putOwnedAttributes']>[1][number] {
  const term = { generation: 1, counter: 1, nonce: 'c'.repeat(16) };
  return { fileid: world.root, term, sizeBytes: 1, usedBytes: 1, atime: world.now(), mtime: world.now(), ctime: world.now() };
}
