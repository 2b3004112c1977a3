/** Conformance: owner records and routers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { FileId, Incarnation, RouterId, Term } from '../../server/core/ids.ts';
import { compareEpoch } from '../../server/core/ids.ts';
import { inlineVerifier } from '../inode.ts';
import type { OwnerOutcome, OwnerRecord, Root } from '../ports.ts';
import { bytesOf, INCARNATION, type OpenRegistry, OTHER_INCARNATION, OTHER_ROUTER, rejectsWith, ROUTER, VOLUME, World } from './world.ts';

const NONCE = 'c'.repeat(16);
const THIRD_INCARNATION = '7'.repeat(32) as Incarnation;

async function claim(world: World, fileid: FileId, expected: Term | null = null, nonce = NONCE): Promise<OwnerRecord> {
  const outcome = await world.ownership.claim(world.mutation(), fileid, ROUTER, expected, null, nonce);
  assert.ok(outcome.kind === 'done', outcome.kind);
  return outcome.owner;
}

const conflict = (owner: OwnerRecord): OwnerOutcome => ({ kind: 'conflict', owner });

export function ownershipConformance(name: string, open: OpenRegistry): void {
  test(`${name}: the first claim makes a record with an empty root, protection clean and a verifier`, async () => {
    await using world = await World.open(open);
    const inode = await world.file('v', VOLUME);
    assert.equal(await world.ownership.owner(inode.fileid), null);
    const owner = await claim(world, inode.fileid);
    assert.deepEqual(owner, {
      fileid: inode.fileid,
      uuid: inode.uuid,
      router: ROUTER,
      incarnation: INCARNATION,
      term: { generation: (await world.registry.outbox.position()).generation, counter: 1, nonce: NONCE },
      state: { kind: 'running' },
      moving: null,
      root: { checkpoint: null, uploadedSegment: 0, uploadedSequence: 0, closedEpochs: [] },
      protection: { kind: 'clean' },
      verifier: owner.verifier,
    });
    assert.equal(owner.verifier.byteLength, 8);
    assert.deepEqual(await world.ownership.owner(inode.fileid), owner);
    const other = await claim(world, (await world.file('w', VOLUME)).fileid);
    assert.notDeepEqual(other.verifier, owner.verifier);
    await world.reopen();
    assert.deepEqual(await world.ownership.owner(inode.fileid), owner);
    await world.assertSound();
  });

  test(`${name}: a file that was inline shows the verifier that it showed then`, async () => {
    await using world = await World.open(open);
    const inode = await world.file('f');
    await world.namespace.flipToFile(world.mutation(), inode.fileid);
    assert.deepEqual((await claim(world, inode.fileid)).verifier, new Uint8Array(inlineVerifier(inode)));
  });

  test(`${name}: a claim raises the term above every earlier one and keeps root, protection and verifier`, async () => {
    await using world = await World.open(open);
    const { fileid } = await world.file('v', VOLUME);
    const first = await claim(world, fileid);
    const root: Root = { checkpoint: 'checkpoint-1', uploadedSegment: 5, uploadedSequence: 50, closedEpochs: [] };
    await world.ownership.update(world.mutation(), fileid, first.term, {
      root,
      protection: { kind: 'unprotected' },
      state: { kind: 'halted', reason: 'test' },
      verifier: bytesOf('VERIFIER'),
    });
    const closing = { term: first.term, lastSegment: 7, lastSequence: 70 };
    const outcome = await world.ownership.claim(world.mutation(), fileid, ROUTER, first.term, closing, 'd'.repeat(16));
    assert.ok(outcome.kind === 'done');
    assert.ok(compareEpoch(outcome.owner.term, first.term) > 0);
    assert.deepEqual(outcome.owner.term.nonce, 'd'.repeat(16));
    assert.deepEqual(outcome.owner.root, { ...root, closedEpochs: [closing] });
    assert.deepEqual([outcome.owner.state, outcome.owner.protection], [{ kind: 'running' }, { kind: 'unprotected' }]);
    assert.deepEqual(outcome.owner.verifier, bytesOf('VERIFIER'));
    const third = await claim(world, fileid, outcome.owner.term);
    assert.deepEqual(third.root.closedEpochs, [closing], 'a term that wrote nothing leaves no range');
    await world.assertSound();
  });

  test(`${name}: a claim that expected another term is a conflict and shows the record`, async () => {
    await using world = await World.open(open);
    const { fileid } = await world.file('v', VOLUME);
    const owner = await claim(world, fileid);
    const sequence = await world.sequence();
    for (const expected of [null, { ...owner.term, nonce: 'e'.repeat(16) }, { ...owner.term, counter: 0 }, { ...owner.term, generation: 0 }]) {
      assert.deepEqual(await world.ownership.claim(world.mutation(), fileid, ROUTER, expected, null, NONCE), { kind: 'conflict', owner });
    }
    assert.equal(await world.sequence(), sequence);
  });

  test(`${name}: of concurrent claims one wins, the others are told the winner`, async () => {
    await using world = await World.open(open);
    const { fileid } = await world.file('v', VOLUME);
    const nonces = Array.from({ length: 8 }, (_, at) => at.toString(16).repeat(16));
    const outcomes = await Promise.all(nonces.map((nonce) => world.ownership.claim(world.mutation(), fileid, ROUTER, null, null, nonce)));
    const winner = outcomes.find((outcome) => outcome.kind === 'done');
    assert.ok(winner?.kind === 'done');
    for (const outcome of outcomes) assert.deepEqual(outcome, { kind: outcome === winner ? 'done' : 'conflict', owner: winner.owner });
  });

  test(`${name}: a living owner's record is nobody else's to claim; a dead one's is, with the claimant's incarnation`, async () => {
    await using world = await World.open(open);
    const { membership } = world.registry;
    const { fileid } = await world.file('v', VOLUME);
    const first = await claim(world, fileid);
    await membership.join(OTHER_ROUTER, OTHER_INCARNATION, [], 'test');
    const mutation = world.mutation({ incarnation: OTHER_INCARNATION });
    const take = (expected: Term, nonce: string): Promise<OwnerOutcome> =>
      world.ownership.claim(mutation, fileid, OTHER_ROUTER, expected, null, nonce);
    const sequence = await world.sequence();
    assert.deepEqual(await take(first.term, 'd'.repeat(16)), { kind: 'owner-alive', owner: first });
    assert.equal(await world.sequence(), sequence, 'nothing was changed');
    assert.equal(await membership.markDead(ROUTER, INCARNATION, 0), 'dead');
    const taken = await take(first.term, 'd'.repeat(16));
    assert.ok(taken.kind === 'done');
    assert.deepEqual([taken.owner.router, taken.owner.incarnation], [OTHER_ROUTER, OTHER_INCARNATION]);
    await rejectsWith(world.ownership.update(world.mutation(), fileid, first.term, { protection: { kind: 'unprotected' } }), 'incarnation-dead');
    await membership.join(ROUTER, THIRD_INCARNATION, [], 'test');
    const late = await world.ownership.update(world.mutation({ incarnation: THIRD_INCARNATION }), fileid, first.term, {
      protection: { kind: 'unprotected' },
    });
    assert.deepEqual(late, { kind: 'conflict', owner: taken.owner });
    await assert.rejects(world.ownership.claim(mutation, fileid, ROUTER, taken.owner.term, null, NONCE), { name: 'AssertionError' });
    await world.assertSound();
  });

  test(`${name}: an owner that left, or whose incarnation was replaced, may be claimed from; its own next incarnation may always claim`, async () => {
    await using world = await World.open(open);
    const { membership } = world.registry;
    const mine = await claim(world, (await world.file('v', VOLUME)).fileid);
    const other = await claim(world, (await world.file('w', VOLUME)).fileid);
    await membership.join(OTHER_ROUTER, OTHER_INCARNATION, [], 'test');
    await membership.join(ROUTER, THIRD_INCARNATION, [], 'test');
    const again = await world.ownership.claim(world.mutation({ incarnation: THIRD_INCARNATION }), mine.fileid, ROUTER, mine.term, null, NONCE);
    assert.ok(again.kind === 'done');
    const mutation = world.mutation({ incarnation: OTHER_INCARNATION });
    assert.equal((await world.ownership.claim(mutation, other.fileid, OTHER_ROUTER, other.term, null, NONCE)).kind, 'done', 'replaced');
    assert.equal((await world.ownership.claim(mutation, mine.fileid, OTHER_ROUTER, again.owner.term, null, NONCE)).kind, 'owner-alive');
    await membership.leave(ROUTER, THIRD_INCARNATION);
    assert.equal((await world.ownership.claim(mutation, mine.fileid, OTHER_ROUTER, again.owner.term, null, NONCE)).kind, 'done', 'left');
    await world.assertSound();
  });

  test(`${name}: a claim goes above the counter that its caller knows of`, async () => {
    await using world = await World.open(open);
    const { fileid } = await world.file('v', VOLUME);
    const made = await world.ownership.claim(world.mutation(), fileid, ROUTER, null, null, NONCE, 41);
    assert.ok(made.kind === 'done');
    assert.equal(made.owner.term.counter, 42);
    const next = await world.ownership.claim(world.mutation(), fileid, ROUTER, made.owner.term, null, NONCE, 7);
    assert.ok(next.kind === 'done');
    assert.equal(next.owner.term.counter, 43, 'a lower one moves nothing');
  });

  test(`${name}: a move reserves an epoch above all others, notes it, and leaves the owner as it is`, async () => {
    await using world = await World.open(open);
    const { fileid } = await world.file('v', VOLUME);
    const first = await claim(world, fileid);
    const begun = await world.ownership.beginMove(world.mutation(), fileid, first.term, OTHER_ROUTER, 'd'.repeat(16));
    assert.ok(begun.kind === 'done');
    const attempt = { generation: first.term.generation, counter: 2, nonce: 'd'.repeat(16) };
    assert.deepEqual(begun.owner, { ...first, moving: { from: ROUTER, to: OTHER_ROUTER, attempt } });
    const again = await world.ownership.beginMove(world.mutation(), fileid, first.term, OTHER_ROUTER, 'e'.repeat(16));
    assert.ok(again.kind === 'done');
    assert.equal(again.owner.moving?.attempt.counter, 3, 'the former attempt is burnt');
    const wrong = { ...first.term, nonce: 'e'.repeat(16) };
    assert.deepEqual(await world.ownership.beginMove(world.mutation(), fileid, wrong, OTHER_ROUTER, NONCE), conflict(again.owner));
    await world.registry.membership.join(OTHER_ROUTER, OTHER_INCARNATION, [], 'test');
    assert.deepEqual(
      await world.ownership.beginMove(world.mutation({ incarnation: OTHER_INCARNATION }), fileid, first.term, OTHER_ROUTER, NONCE),
      conflict(again.owner),
      'only the owner gives away',
    );
    assert.equal((await world.ownership.beginMove(world.mutation(), 999_999 as FileId, first.term, OTHER_ROUTER, NONCE)).kind, 'gone');
    await assert.rejects(world.ownership.beginMove(world.mutation(), fileid, first.term, ROUTER, NONCE), { name: 'AssertionError' });
    await world.assertSound();
  });

  test(`${name}: a transfer gives the record to the living incarnation of the router that it moves to, in the term reserved`, async () => {
    await using world = await World.open(open);
    const { fileid } = await world.file('v', VOLUME);
    const first = await claim(world, fileid);
    const root: Root = { checkpoint: 'c-1', uploadedSegment: 5, uploadedSequence: 50, closedEpochs: [] };
    await world.ownership.update(world.mutation(), fileid, first.term, { root, state: { kind: 'recovering', reason: 'test' } });
    let begun = await world.ownership.beginMove(world.mutation(), fileid, first.term, OTHER_ROUTER, 'd'.repeat(16));
    assert.ok(begun.kind === 'done' && begun.owner.moving !== null);
    let { attempt } = begun.owner.moving;
    const closing = { term: first.term, lastSegment: 7, lastSequence: 70 };
    const transfer = (of: Term, to: Term): Promise<OwnerOutcome> =>
      world.ownership.transfer(world.mutation(), fileid, of, to, closing, { kind: 'unprotected' });
    assert.deepEqual(await transfer(first.term, attempt), conflict(begun.owner), 'the other router never joined');
    await world.registry.membership.join(OTHER_ROUTER, OTHER_INCARNATION, [], 'test');
    assert.deepEqual(await transfer(first.term, attempt), conflict(begun.owner), 'who joined later knows nothing of the attempt');
    const again = async (): Promise<void> => {
      begun = await world.ownership.beginMove(world.mutation(), fileid, first.term, OTHER_ROUTER, 'd'.repeat(16));
      assert.ok(begun.kind === 'done' && begun.owner.moving !== null);
      ({ attempt } = begun.owner.moving);
    };
    await again();
    await world.registry.membership.leave(OTHER_ROUTER, OTHER_INCARNATION);
    assert.deepEqual(await transfer(first.term, attempt), conflict(begun.owner), 'the other router is dead');
    await world.registry.membership.join(OTHER_ROUTER, THIRD_INCARNATION, [], 'test');
    assert.deepEqual(await transfer(first.term, attempt), conflict(begun.owner), 'its next incarnation knows nothing of the attempt');
    await again();
    await world.ownership.update(world.mutation(), fileid, first.term, { moving: begun.owner.moving });
    await world.reopen();
    const sequence = await world.sequence();
    assert.deepEqual(await transfer(first.term, { ...attempt, nonce: NONCE }), conflict(begun.owner), 'another attempt');
    const late = world.mutation({ incarnation: THIRD_INCARNATION });
    assert.deepEqual(
      await world.ownership.transfer(late, fileid, first.term, attempt, closing, { kind: 'unprotected' }),
      conflict(begun.owner),
      'only the owner gives away',
    );
    await assert.rejects(transfer({ ...first.term, counter: 9 }, attempt), { name: 'AssertionError' }, 'closes a term that it does not end');
    assert.equal(await world.sequence(), sequence);
    const moved = await transfer(first.term, attempt);
    const expected: OwnerRecord = {
      ...first,
      router: OTHER_ROUTER,
      incarnation: THIRD_INCARNATION,
      term: attempt,
      root: { ...root, closedEpochs: [closing] },
      protection: { kind: 'unprotected' },
    };
    assert.deepEqual(moved, { kind: 'done', owner: expected });
    assert.deepEqual(await world.ownership.owner(fileid), expected);
    assert.deepEqual(await transfer(first.term, attempt), conflict(expected), 'once');
    assert.deepEqual(await world.ownership.ownedBy(ROUTER, 0 as FileId, 10), []);
    assert.deepEqual(await world.ownership.ownedBy(OTHER_ROUTER, 0 as FileId, 10), [expected]);
    await world.namespace.remove(world.mutation(), world.root, bytesOf('v'));
    assert.deepEqual(await world.ownership.transfer(world.mutation(), fileid, first.term, attempt, null, { kind: 'clean' }), { kind: 'gone' });
    await world.assertSound();
  });

  test(`${name}: an attempt that a claim or a later attempt ended cannot be transferred`, async () => {
    await using world = await World.open(open);
    const { fileid } = await world.file('v', VOLUME);
    const first = await claim(world, fileid);
    await world.registry.membership.join(OTHER_ROUTER, OTHER_INCARNATION, [], 'test');
    const begun = await world.ownership.beginMove(world.mutation(), fileid, first.term, OTHER_ROUTER, 'd'.repeat(16));
    assert.ok(begun.kind === 'done' && begun.owner.moving !== null);
    const { attempt } = begun.owner.moving;
    const next = await claim(world, fileid, first.term, 'e'.repeat(16));
    assert.equal(next.term.counter, attempt.counter + 1);
    assert.equal(next.moving, null);
    for (const term of [first.term, next.term]) {
      const late = await world.ownership.transfer(world.mutation(), fileid, term, attempt, null, { kind: 'clean' });
      assert.deepEqual(late, conflict(next));
    }
  });

  test(`${name}: update changes the fields given and leaves the others`, async () => {
    await using world = await World.open(open);
    const { fileid } = await world.file('v', VOLUME);
    const first = await claim(world, fileid);
    const moving = { from: ROUTER, to: OTHER_ROUTER, attempt: { generation: 1, counter: 9, nonce: 'f'.repeat(16) } };
    const steps = [
      { state: { kind: 'recovering', reason: 'missing segment 4' } },
      { protection: { kind: 'protected', replicas: [OTHER_ROUTER] } },
      { verifier: bytesOf('12345678') },
      { moving },
      {
        root: { checkpoint: 'c/1', uploadedSegment: 3, uploadedSequence: 33, closedEpochs: [{ term: first.term, lastSegment: 1, lastSequence: 2 }] },
      },
      { moving: null, state: { kind: 'running' } },
    ] as const;
    let expected: OwnerRecord = first;
    for (const fields of steps) {
      expected = { ...expected, ...fields };
      assert.deepEqual(await world.ownership.update(world.mutation(), fileid, first.term, fields), { kind: 'done', owner: expected });
      assert.deepEqual(await world.ownership.owner(fileid), expected);
    }
    const next = await claim(world, fileid, first.term);
    assert.equal(next.term.counter, 10, 'the number reserved for a move that never was is burnt');
    await world.assertSound();
  });

  test(`${name}: an uploaded mark never goes backwards`, async () => {
    await using world = await World.open(open);
    const { fileid } = await world.file('v', VOLUME);
    const { term } = await claim(world, fileid);
    const root = { checkpoint: null, uploadedSegment: 3, uploadedSequence: 33, closedEpochs: [] };
    const done = await world.ownership.update(world.mutation(), fileid, term, { root });
    assert.ok(done.kind === 'done');
    assert.deepEqual(await world.ownership.update(world.mutation(), fileid, term, { root: { ...root, uploadedSegment: 2 } }), {
      kind: 'conflict',
      owner: done.owner,
    });
    assert.equal((await world.ownership.update(world.mutation(), fileid, term, { root })).kind, 'done');
  });

  test(`${name}: what is unlinked or was never there is gone for claim and update; the tombstone keeps its record until it is dropped`, async () => {
    await using world = await World.open(open);
    const { fileid } = await world.file('v', VOLUME);
    const owner = await claim(world, fileid);
    await world.namespace.remove(world.mutation(), world.root, bytesOf('v'));
    assert.deepEqual(await world.ownership.claim(world.mutation(), fileid, ROUTER, owner.term, null, NONCE), { kind: 'gone' });
    assert.deepEqual(await world.ownership.update(world.mutation(), fileid, owner.term, { protection: { kind: 'clean' } }), { kind: 'gone' });
    assert.deepEqual(await world.ownership.claim(world.mutation(), 999_999 as FileId, ROUTER, null, null, NONCE), { kind: 'gone' });
    assert.deepEqual(await world.ownership.owner(fileid), owner);
    await world.assertSound();
    await world.namespace.dropTombstone(world.mutation(), fileid);
    assert.equal(await world.ownership.owner(fileid), null);
    await world.assertSound();
  });

  test(`${name}: an update out of bounds is the caller's bug and changes nothing`, async () => {
    await using world = await World.open(open);
    const { fileid } = await world.file('v', VOLUME);
    const owner = await claim(world, fileid);
    await assert.rejects(world.ownership.update(world.mutation(), fileid, owner.term, { verifier: bytesOf('short') }), { name: 'AssertionError' });
    assert.deepEqual(await world.ownership.owner(fileid), owner);
    assert.equal(world.registry.health(), null);
  });

  test(`${name}: ownedBy lists the records of one router in fileid order, in pages`, async () => {
    await using world = await World.open(open);
    await world.registry.membership.join(OTHER_ROUTER, OTHER_INCARNATION, [], 'test');
    const mine: OwnerRecord[] = [];
    for (let index = 0; index < 7; index += 1) {
      const { fileid } = await world.file(`v${index}`, VOLUME);
      if (index % 3 === 2) {
        await world.ownership.claim(world.mutation({ incarnation: OTHER_INCARNATION }), fileid, OTHER_ROUTER, null, null, NONCE);
      } else mine.push(await claim(world, fileid));
    }
    assert.deepEqual(await world.ownership.ownedBy(ROUTER, 0 as FileId, 100), mine);
    const page = await world.ownership.ownedBy(ROUTER, 0 as FileId, 2);
    assert.deepEqual(page, mine.slice(0, 2));
    assert.deepEqual(await world.ownership.ownedBy(ROUTER, page[1]?.fileid ?? (0 as FileId), 2), mine.slice(2, 4));
    assert.deepEqual(await world.ownership.ownedBy('f'.repeat(32) as RouterId, 0 as FileId, 2), []);
  });

  test(`${name}: join, renew, leave: one live incarnation per router, dead for good when replaced`, async () => {
    await using world = await World.open(open);
    const { membership } = world.registry;
    const joined = { id: ROUTER, incarnation: INCARNATION, addresses: ['127.0.0.1:1'], version: 'test', leaseCounter: 0, dead: false };
    assert.deepEqual(await membership.routers(), [joined]);
    assert.deepEqual(await membership.renew(ROUTER, INCARNATION), { ...joined, leaseCounter: 1 });
    assert.deepEqual(await membership.join(ROUTER, INCARNATION, ['127.0.0.1:1'], 'test'), { ...joined, leaseCounter: 1 }, 'a repeated join');
    const next = await membership.join(ROUTER, OTHER_INCARNATION, ['[::1]:2', 'x'], '2');
    assert.deepEqual(next, { id: ROUTER, incarnation: OTHER_INCARNATION, addresses: ['[::1]:2', 'x'], version: '2', leaseCounter: 0, dead: false });
    await rejectsWith(membership.renew(ROUTER, INCARNATION), 'incarnation-dead');
    await rejectsWith(membership.join(ROUTER, INCARNATION, [], 'test'), 'incarnation-dead');
    assert.deepEqual(await membership.routers(), [next]);
    await membership.leave(ROUTER, INCARNATION);
    assert.deepEqual(await membership.routers(), [next], 'a former incarnation has nothing to leave');
    await membership.leave(ROUTER, OTHER_INCARNATION);
    await membership.leave(ROUTER, OTHER_INCARNATION);
    assert.deepEqual(await membership.routers(), [{ ...next, dead: true }]);
    await world.reopen();
    await rejectsWith(world.registry.membership.renew(ROUTER, OTHER_INCARNATION), 'incarnation-dead');
    await rejectsWith(world.registry.membership.join(ROUTER, OTHER_INCARNATION, [], 'test'), 'incarnation-dead');
    await rejectsWith(world.registry.membership.renew('f'.repeat(32) as RouterId, '7'.repeat(32) as Incarnation), 'incarnation-dead');
  });

  test(`${name}: markDead takes an incarnation only if its lease counter has not moved`, async () => {
    await using world = await World.open(open);
    const { membership } = world.registry;
    await membership.join(OTHER_ROUTER, OTHER_INCARNATION, [], 'test');
    await membership.renew(OTHER_ROUTER, OTHER_INCARNATION);
    assert.equal(await membership.markDead(OTHER_ROUTER, OTHER_INCARNATION, 0), 'conflict');
    const renewed = await membership.renew(OTHER_ROUTER, OTHER_INCARNATION);
    assert.equal(await membership.markDead(OTHER_ROUTER, OTHER_INCARNATION, renewed.leaseCounter), 'dead');
    assert.equal(await membership.markDead(OTHER_ROUTER, OTHER_INCARNATION, 0), 'dead');
    await rejectsWith(membership.renew(OTHER_ROUTER, OTHER_INCARNATION), 'incarnation-dead');
    await rejectsWith(membership.join(OTHER_ROUTER, OTHER_INCARNATION, [], 'test'), 'incarnation-dead');
    assert.equal((await membership.routers()).find((router) => router.id === OTHER_ROUTER)?.dead, true);
  });

  test(`${name}: an incarnation belongs to one router`, async () => {
    await using world = await World.open(open);
    await rejectsWith(world.registry.membership.join(OTHER_ROUTER, INCARNATION, [], 'test'), 'incarnation-dead');
    assert.equal((await world.registry.membership.routers()).length, 1);
  });
}
