/** Drain, takeover and reconciler: what brings owners to where they belong. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Inode } from '../../../registry/inode.ts';
import type { OwnerRecord } from '../../../registry/ports.ts';
import type { FileId, ObjectUuid, RouterId, Term } from '../../core/ids.ts';
import { MoveWorld, SETTINGS, routerId } from './testing/move-world.ts';
import type { Life, Mishap } from './testing/move-world.ts';

const DISK = 100 as FileId;

async function worldOf(...names: string[]): Promise<MoveWorld> {
  const world = new MoveWorld(names, { ...SETTINGS, cooldownMs: 0 });
  for (const name of names) await world.boot(name);
  return world;
}

async function write(world: MoveWorld, name: string, fileid: FileId, ...values: string[]): Promise<void> {
  for (const value of values) await world.clock.run(world.write(name, fileid, value));
}

/** A volume that is closed, and all of it on the backend. */
function closedAndClean(world: MoveWorld, life: Life, fileid: FileId): OwnerRecord {
  const inode: Inode = world.addVolume(fileid);
  const owner: OwnerRecord = {
    fileid,
    uuid: inode.uuid as ObjectUuid,
    router: life.router,
    incarnation: life.incarnation,
    term: { generation: 1, counter: 3, nonce: '3'.repeat(16) },
    state: { kind: 'running' },
    moving: null,
    root: { checkpoint: 'c', uploadedSegment: 1, uploadedSequence: 0, closedEpochs: [] },
    protection: { kind: 'clean' },
    verifier: Buffer.alloc(8),
  };
  world.owners.set(fileid, owner);
  world.counters.set(fileid, 3);
  return owner;
}

test('a drain moves everything to the other routers in turn, open or closed, and nothing comes back', async () => {
  const world = await worldOf('a', 'b', 'c');
  for (let number = 0; number < 6; number += 1) {
    world.addVolume((100 + number) as FileId);
    await write(world, 'a', (100 + number) as FileId, `one ${number}`, `two ${number}`);
  }
  const a = world.life('a');
  for (let number = 0; number < 4; number += 1) closedAndClean(world, a, (200 + number) as FileId);
  a.moves.drain();
  a.moves.drain();
  await world.clock.advance(10_000);
  const { phase, done, total, failed, problem } = a.moves.drainState;
  assert.deepEqual({ phase, done, total, failed, problem }, { phase: 'drained', done: 10, total: 10, failed: [], problem: null });
  const owners = [...world.owners.values()].map((owner) => world.nameOf(owner.router)).sort();
  assert.deepEqual(owners, [...'bbbbbccccc']);
  for (let number = 0; number < 6; number += 1) assert.deepEqual(world.missing((100 + number) as FileId), []);
  // What was closed and clean went without a copy, and is still not open.
  for (let number = 0; number < 4; number += 1) assert.deepEqual(world.servers((200 + number) as FileId), []);
  assert.ok(a.moves.history.ended().every((move) => move.phase === 'moved'));

  const term = world.owners.get(DISK)?.term;
  assert.ok(term !== undefined);
  const owner = world.servers(DISK)[0] as string;
  assert.equal(await a.moves.moveOffer({ fileid: DISK, inodeGeneration: 1, term }, routerId(owner), 'operator'), false, 'it receives nothing');
  for (let number = 0; number < 30; number += 1) await write(world, 'a', DISK, `through a ${number}`);
  assert.notEqual(world.owners.get(DISK)?.router, a.router, 'nor fetches what is forwarded');
  await world.clock.run(a.moves.undrain());
  assert.equal(a.moves.drainState.phase, 'none');
  for (let number = 0; number < 30; number += 1) await write(world, 'a', DISK, `again through a ${number}`);
  await world.clock.advance(5_000);
  assert.equal(world.owners.get(DISK)?.router, a.router, 'until the drain is ended');
});

test('what is closed and clean goes by its record: at every step of that one owner is left, who can be used', async () => {
  const mishaps: readonly Mishap[] = [
    { kind: 'kill', routers: ['a'] },
    { kind: 'kill', routers: ['b'] },
    { kind: 'lost', when: 'before', ms: 0 },
    { kind: 'lost', when: 'after', ms: 0 },
    { kind: 'lost', when: 'after', ms: 3_000 },
    { kind: 'late', ms: 1.5 },
    { kind: 'late', ms: 400 },
  ];
  const give = async (mishap: { readonly at: number; readonly what: Mishap } | null): Promise<readonly string[]> => {
    const world = await worldOf('a', 'b');
    const owner = closedAndClean(world, world.life('a'), DISK);
    world.mishap = mishap;
    world.watching = true;
    const order = { fileid: DISK, inodeGeneration: 1, owner: owner.router, term: owner.term, reason: 'operator' as const };
    void world.life('b').moves.receiver.receive(order);
    await world.clock.advance(5_000);
    world.watching = false;
    const where = mishap === null ? 'without mishap' : `${world.events[mishap.at]} ${JSON.stringify(mishap.what)}`;
    if (mishap === null) {
      assert.equal(world.owners.get(DISK)?.router, routerId('b'));
      assert.deepEqual(world.owners.get(DISK)?.protection, { kind: 'clean' });
      assert.deepEqual(world.servers(DISK), []);
      assert.equal(world.life('a').moves.journal.entry(DISK)?.state, 'moved');
    }
    for (const name of ['a', 'b']) if (!world.life(name).alive) await world.boot(name);
    await world.clock.advance(15_000);
    await write(world, 'a', DISK, 'from a');
    await write(world, 'b', DISK, 'from b');
    assert.deepEqual(world.missing(DISK), [], where);
    assert.deepEqual(world.servers(DISK), [world.nameOf(world.owners.get(DISK)?.router ?? routerId('?'))], where);
    for (const name of ['a', 'b']) assert.equal(world.life(name).holds.size, 0, where);
    return world.events;
  };
  const events = await give(null);
  assert.ok(events.includes('a registry transfer'), events.join(', '));
  assert.ok(!events.includes('b backend attach'), 'nothing is copied');
  for (const what of mishaps) for (let at = 0; at < events.length; at += 1) await give({ at, what });
});

test('an object that is removed while it moves ends the move at either side, whenever that is', async () => {
  const move = async (at: number | null): Promise<readonly string[]> => {
    const world = await worldOf('a', 'b');
    world.addVolume(DISK);
    await write(world, 'a', DISK, 'one', 'two');
    const owner = world.owners.get(DISK) as OwnerRecord;
    world.mishap = at === null ? null : { at, what: { kind: 'removed', fileid: DISK } };
    world.watching = true;
    const order = { fileid: DISK, inodeGeneration: 1, owner: owner.router, term: owner.term, reason: 'operator' as const };
    void world.life('b').moves.receiver.receive(order);
    await world.clock.advance(20_000);
    const where = at === null ? 'not removed' : world.events[at];
    for (const name of ['a', 'b']) {
      const { moves, holds } = world.life(name);
      assert.equal(moves.giver.running + moves.receiver.running, 0, where);
      assert.equal(holds.size, 0, where);
    }
    if (at !== null) assert.ok(!world.servers(DISK).includes('b'), `${where}: what is removed is not served by who receives it`);
    return world.events;
  };
  const events = await move(null);
  // Once it is served there, that it was removed is told as to any owner.
  const steps = events.indexOf('b disk activate');
  assert.ok(steps > 5);
  for (let at = 0; at < steps; at += 1) await move(at);
});

test('no more moves at a time than allowed, given or received, whoever asks', async () => {
  const world = await worldOf('a', 'b', 'c');
  for (let number = 0; number < 5; number += 1) {
    world.addVolume((100 + number) as FileId);
    await write(world, 'a', (100 + number) as FileId, 'one');
  }
  const orderOf = (number: number): { fileid: FileId; inodeGeneration: number; owner: RouterId; term: Term; reason: 'operator' } => {
    const owner = world.owners.get((100 + number) as FileId) as OwnerRecord;
    return { fileid: owner.fileid, inodeGeneration: 1, owner: owner.router, term: owner.term, reason: 'operator' };
  };
  const received = [0, 1, 2, 3].map((number) => world.life(number % 2 === 0 ? 'b' : 'c').moves.receiver.receive(orderOf(number)));
  const outcomes = await world.clock.run(Promise.all(received));
  assert.equal(outcomes.filter(({ kind }) => kind === 'moved').length, 2);
  for (const outcome of outcomes)
    if (outcome.kind === 'refused') assert.ok(outcome.retryable && outcome.reason.includes('cluster.movesMax'), outcome.reason);
  const b = world.life('b').moves;
  const offers = [1, 3, 4].map((number) => {
    const { fileid, term } = orderOf(number);
    return b.moveOffer({ fileid, inodeGeneration: 1, term }, routerId('a'), 'drain');
  });
  assert.deepEqual(await world.clock.run(Promise.all(offers)), [true, true, false]);
});

test('a drain without anybody to take something is stuck, says why, and goes on when somebody comes', async () => {
  const world = await worldOf('a', 'b');
  world.addVolume(DISK);
  await write(world, 'a', DISK, 'one');
  world.cut('a', 'b');
  const a = world.life('a');
  a.moves.drain();
  await world.clock.advance(20_000);
  assert.equal(a.moves.drainState.phase, 'stuck');
  assert.match(a.moves.drainState.problem ?? '', /peer is away/);
  assert.deepEqual(
    a.moves.drainState.failed.map(({ fileid }) => fileid),
    [DISK],
  );
  world.mend();
  await world.clock.advance(20_000);
  assert.equal(a.moves.drainState.phase, 'drained');
  assert.deepEqual(a.moves.drainState.failed, []);
  assert.deepEqual(world.servers(DISK), ['b']);
});

test('forwarded I/O moves an object once, and not while its owner uses it more', async () => {
  const world = await worldOf('a', 'b');
  world.addVolume(DISK);
  for (let number = 0; number < 30; number += 1) await write(world, 'a', DISK, `own ${number}`);
  for (let number = 0; number < 15; number += 1) await write(world, 'b', DISK, `forwarded ${number}`);
  assert.deepEqual(world.servers(DISK), ['a'], 'a used it more a moment ago');
  await world.clock.advance(20_000);
  for (let number = 0; number < 15; number += 1) await write(world, 'b', DISK, `more ${number}`);
  await world.clock.advance(2_000);
  assert.deepEqual(world.servers(DISK), ['b']);
  assert.deepEqual(world.missing(DISK), []);
  assert.equal(world.life('b').moves.history.ended().length, 1, 'asking in vain is not history');
});

test('two routers that use an object alike do not take it from each other all the time', async () => {
  const world = new MoveWorld(['a', 'b'], { ...SETTINGS, cooldownMs: 10_000 });
  await world.boot('a');
  await world.boot('b');
  world.addVolume(DISK);
  let over = false;
  const writer = async (name: string): Promise<void> => {
    for (let number = 0; !over; number += 1) await world.write(name, DISK, `${name} ${number}`);
  };
  const writers = [writer('a'), writer('b')];
  await world.clock.advance(30_000);
  over = true;
  await world.clock.run(Promise.all(writers));
  const moves = world.life('a').moves.history.ended().length;
  assert.ok(moves <= 3, `${moves} moves in 30 s`);
  assert.deepEqual(world.missing(DISK), []);
});

test('a clean object of a dead router is taken over at once, without force', async () => {
  const world = await worldOf('a', 'b');
  const owner = closedAndClean(world, world.life('a'), DISK);
  const { takeover, history } = world.life('b').moves;
  assert.equal((await world.clock.run(takeover.look(DISK))).kind, 'owner-alive');
  world.kill('a');
  world.dead.add(owner.incarnation);
  const look = await world.clock.run(takeover.look(DISK));
  assert.ok(look.kind === 'plan' && !look.plan.needsForce && look.plan.ownerDead);
  assert.deepEqual(await world.clock.run(takeover.take(owner, null)), { kind: 'taken' });
  assert.deepEqual(world.servers(DISK), ['b']);
  assert.equal(history.ended()[0]?.role, 'taker');
  assert.equal(history.ended()[0]?.problem, null);
});

test('an unprotected object of a dead router is marked and waits; by force it is cut where the backend ends, and that stays visible', async () => {
  const world = await worldOf('a', 'b', 'c');
  world.addVolume(DISK);
  await write(world, 'a', DISK, 'on the backend 1', 'on the backend 2', 'lost 1', 'lost 2');
  world.uploaded.set(DISK, ['on the backend 1', 'on the backend 2']);
  const before = world.owners.get(DISK) as OwnerRecord;
  const earlier = { generation: 1, counter: 0, nonce: '7'.repeat(16) };
  const root = { checkpoint: null, uploadedSegment: 1, uploadedSequence: 2, closedEpochs: [{ term: earlier, lastSegment: 2, lastSequence: 3 }] };
  const owner: OwnerRecord = { ...before, root, moving: null };
  world.owners.set(DISK, owner);
  world.kill('a');
  world.dead.add(owner.incarnation);
  await world.clock.advance(20_000);
  const marked = world.owners.get(DISK)?.state;
  assert.ok(marked?.kind === 'recovering' && marked.reason.includes('after record 2'), 'the record says so');
  assert.equal(world.life('b').moves.reconciler.totals.marked + world.life('c').moves.reconciler.totals.marked, 1, 'one router looks after the dead');
  const { takeover, history } = world.life('b').moves;
  const look = await world.clock.run(takeover.look(DISK));
  assert.ok(look.kind === 'plan' && look.plan.needsForce);
  assert.equal(look.plan.keptSequence, 2);
  assert.equal(look.plan.knownLostRecords, 1);
  assert.deepEqual(await world.clock.run(takeover.take(owner, null)), { kind: 'not-clean' });
  assert.deepEqual(await world.clock.run(takeover.take({ ...owner, term: earlier }, 'x')), { kind: 'changed' });
  // Of an attempt to receive it that was under way when its owner died.
  const { remembered } = world.logs.get('b') ?? assert.fail();
  remembered.add(DISK);
  let ownerWhenForgotten: string | undefined;
  remembered.delete = (fileid) => {
    ownerWhenForgotten = world.owners.get(DISK)?.router;
    return Set.prototype.delete.call(remembered, fileid);
  };
  assert.deepEqual(await world.clock.run(takeover.take(owner, 'two records')), { kind: 'taken' });
  assert.ok(!remembered.has(DISK), 'a call whose data is given up is not answered as done');
  assert.equal(ownerWhenForgotten, routerId('a'), 'nor by the next life of a router that dies right behind its claim');
  const taken = world.owners.get(DISK);
  assert.equal(taken?.router, routerId('b'));
  assert.equal(taken?.state.kind, 'running');
  assert.deepEqual(
    taken?.root.closedEpochs.slice(0, 2).map(({ lastSegment, lastSequence }) => [lastSegment, lastSequence]),
    [
      [1, 2],
      [1, 2],
    ],
  );
  assert.deepEqual(world.life('b').served.get(DISK)?.log.values, ['on the backend 1', 'on the backend 2']);
  assert.equal(history.ended()[0]?.problem, 'two records');
});

test('an unprotected object goes on by itself when its router is back', async () => {
  const world = await worldOf('a', 'b');
  world.addVolume(DISK);
  await write(world, 'a', DISK, 'one', 'two');
  world.kill('a');
  world.dead.add(world.life('a').incarnation);
  await world.clock.advance(20_000);
  assert.equal(world.owners.get(DISK)?.state.kind, 'recovering');
  await world.boot('a');
  await world.clock.advance(10_000);
  assert.deepEqual(world.servers(DISK), ['a'], 'the reconciler opens it, nobody asked for it');
  assert.deepEqual(world.missing(DISK), []);
});

test('what runs here and is owned by another router or term is stopped', async () => {
  const world = await worldOf('a', 'b');
  world.addVolume(DISK);
  await write(world, 'a', DISK, 'one');
  const owner = world.owners.get(DISK) as OwnerRecord;
  const b = world.life('b');
  world.owners.set(DISK, { ...owner, router: b.router, incarnation: b.incarnation, term: { generation: 1, counter: 50, nonce: '5'.repeat(16) } });
  await world.clock.advance(10_000);
  assert.ok(!world.servers(DISK).includes('a'));
  assert.equal(world.life('a').moves.reconciler.totals.stopped, 1);
  assert.equal(world.life('a').hints.get(DISK)?.router, b.router);
});

test('the hint of a move that nobody runs is cleared, not before it was seen twice', async () => {
  const world = await worldOf('a', 'b');
  world.addVolume(DISK);
  await write(world, 'a', DISK, 'one');
  const owner = world.owners.get(DISK) as OwnerRecord;
  const attempt = { generation: 1, counter: 9, nonce: '9'.repeat(16) };
  world.owners.set(DISK, { ...owner, moving: { from: owner.router, to: routerId('b'), attempt } });
  await world.clock.run(world.life('a').moves.reconciler.run());
  assert.notEqual(world.owners.get(DISK)?.moving, null);
  await world.clock.run(world.life('a').moves.reconciler.run());
  assert.equal(world.owners.get(DISK)?.moving, null);
  assert.deepEqual(world.servers(DISK), ['a']);
});
