import assert from 'node:assert/strict';
import { test } from 'node:test';

import { failPointError, watchFailPoints } from '../../core/fail-points.ts';
import type { FileId } from '../../core/ids.ts';
import { HOLD_MS_MAX } from '../peer-port.ts';
import type { Mishap } from './testing/move-world.ts';
import { MoveWorld, SETTINGS, routerId } from './testing/move-world.ts';

const DISK = 100 as FileId;

/** A volume at router a with some writes, and router b. */
async function pair(): Promise<MoveWorld> {
  const world = new MoveWorld(['a', 'b'], { ...SETTINGS, cooldownMs: 0 });
  await world.boot('a');
  await world.boot('b');
  world.addVolume(DISK);
  for (let number = 0; number < 5; number += 1) await world.clock.run(world.write('a', DISK, `first ${number}`));
  return world;
}

function order(world: MoveWorld, from: string): Parameters<ReturnType<MoveWorld['life']>['moves']['receiver']['receive']>[0] {
  const term = world.owners.get(DISK)?.term;
  assert.ok(term !== undefined);
  return { fileid: DISK, inodeGeneration: 1, owner: routerId(from), term, reason: 'operator' };
}

test('an object moves while clients of both routers write to it', async () => {
  const world = await pair();
  const writes = Array.from({ length: 40 }, async (_none, number) => {
    await world.clock.sleep(number);
    await world.write(number % 2 === 0 ? 'a' : 'b', DISK, `during ${number}`);
  });
  const received = await world.clock.run(world.life('b').moves.receiver.receive(order(world, 'a')));
  assert.deepEqual(received, { kind: 'moved' });
  await world.clock.run(Promise.all(writes));
  assert.deepEqual(world.servers(DISK), ['b']);
  assert.deepEqual(world.missing(DISK), []);
  assert.equal(world.told.get(DISK)?.length, 45);
  const owner = world.owners.get(DISK);
  assert.equal(owner?.router, routerId('b'));
  assert.equal(owner?.moving, null);
  assert.deepEqual(owner?.protection, { kind: 'unprotected' });
  assert.equal(world.life('a').moves.journal.entry(DISK)?.state, 'moved');
  const [given] = world.life('a').moves.history.ended();
  const [taken] = world.life('b').moves.history.ended();
  assert.equal(given?.phase, 'moved');
  assert.equal(taken?.phase, 'moved');
  assert.ok((given?.heldMs ?? 0) > 0);
  for (const step of ['freeze', 'tail', 'ceded', 'transfer'] as const) assert.ok(given?.stepsMs[step] !== undefined, step);
  for (const step of ['attach', 'copy', 'freeze', 'sync', 'confirm', 'activate'] as const) assert.ok(taken?.stepsMs[step] !== undefined, step);
});

test('what is left of an object at its former owner is for the new one, and for nobody else', async () => {
  const world = await pair();
  const former = world.owners.get(DISK)?.term;
  assert.deepEqual(await world.clock.run(world.life('b').moves.receiver.receive(order(world, 'a'))), { kind: 'moved' });
  const attempt = world.owners.get(DISK)?.term;
  assert.ok(former !== undefined && attempt !== undefined);
  const from = { segment: 3, offsetBytes: 10, calls: 0 };
  const part = await world.life('a').moves.moveFetch(DISK, attempt, from, 4, 0);
  assert.deepEqual(part?.pieces, [{ segment: 3, term: former, offsetBytes: 10, bytes: Buffer.alloc(4, 3), sealedBytes: null }]);
  assert.equal(await world.life('a').moves.moveFetch(DISK, former, from, 4, 0), null);
  assert.equal(await world.life('b').moves.moveFetch(DISK, attempt, from, 4, 0), null);
});

test('an object whose memory of completed calls does not fit in the hold stays where it is, and moves when it does', async () => {
  const world = await pair();
  world.tooManyCalls = true;
  const receive = (): Promise<unknown> => world.clock.run(world.life('b').moves.receiver.receive(order(world, 'a')));
  assert.equal(((await receive()) as { kind: string }).kind, 'refused');
  assert.match(world.life('a').moves.history.ended()[0]?.problem ?? '', /more calls were completed/);
  assert.deepEqual(world.servers(DISK), ['a']);
  world.tooManyCalls = false;
  assert.deepEqual(await receive(), { kind: 'moved' });
  assert.deepEqual(world.servers(DISK), ['b']);
  assert.deepEqual(world.missing(DISK), []);
});

test('a log whose disk hangs while it is frozen holds the object for seconds, not for as long as the disk', async () => {
  const world = await pair();
  const disk = Promise.withResolvers<void>();
  world.freezing = disk.promise;
  const beganMs = world.clock.monotonicMs();
  const received = await world.clock.run(world.life('b').moves.receiver.receive(order(world, 'a')));
  assert.notEqual(received.kind, 'moved');
  for (let waits = 0; world.life('a').holds.size > 0 && waits < 100; waits += 1) await world.clock.run(world.clock.sleep(100));
  const heldMs = world.clock.monotonicMs() - beganMs;
  assert.ok(world.life('a').holds.size === 0 && heldMs < 1.25 * HOLD_MS_MAX, `${heldMs} ms`);
  await world.clock.run(world.write('a', DISK, 'after the hold'));
  // The disk goes on, and so does the freeze that nobody waits for; the next attempt is another one.
  disk.resolve();
  world.freezing = null;
  await world.clock.run(world.clock.sleep(5000));
  await world.clock.run(world.write('a', DISK, 'after the disk'));
  assert.deepEqual(await world.clock.run(world.life('b').moves.receiver.receive(order(world, 'a'))), { kind: 'moved' });
  assert.deepEqual([world.servers(DISK), world.missing(DISK)], [['b'], []]);
});

test('an error of the fail point behind the change of owner leaves no object that nobody can open', async (t) => {
  const world = await pair();
  world.watching = true;
  let hits = 0;
  watchFailPoints((name) => {
    if (name !== 'move.take-confirmed') return;
    hits += 1;
    throw failPointError(name);
  });
  t.after(() => watchFailPoints(null));
  assert.deepEqual(await world.clock.run(world.life('b').moves.receiver.receive(order(world, 'a'))), { kind: 'moved' });
  await world.clock.run(world.write('b', DISK, 'afterwards'));
  assert.deepEqual([hits, world.servers(DISK), world.missing(DISK)], [1, ['b'], []]);
  assert.ok(world.events.includes('b disk activate'), 'the copy is not left behind for an opening to find');
});

test('an object that arrives is not adopted beside an opening that began while it was copied', async () => {
  const world = await pair();
  world.watching = true;
  const receiver = world.life('b');
  // What looks for garbage opens objects by a hint, and hears only from the registry that it is another router's.
  const tried = (async () => {
    while (!world.events.includes('b backend attach')) await world.clock.sleep(0.1);
    const opening = world.clock.sleep(500).then(() => {
      receiver.opening.delete(DISK);
      return null;
    });
    receiver.opening.set(DISK, opening);
    await opening;
  })();
  const received = await world.clock.run(receiver.moves.receiver.receive(order(world, 'a')));
  assert.deepEqual(received, { kind: 'moved' });
  await world.clock.run(tried);
  assert.deepEqual(world.servers(DISK), ['b']);
  assert.deepEqual(world.missing(DISK), []);
});

test('an object does not come back to a router that does not know yet whether it gave it away', async () => {
  const lost = async (at: number): Promise<MoveWorld> => {
    const world = await pair();
    world.watching = true;
    world.mishap = { at, what: { kind: 'lost', when: 'after', ms: 3_000 } };
    assert.deepEqual(await world.clock.run(world.life('b').moves.receive(order(world, 'a'))), { kind: 'moved' });
    return world;
  };
  const world = await lost((await lost(-1)).events.indexOf('a registry transfer'));
  assert.equal(world.life('a').moves.giver.isGiving(DISK), true);
  const back = (): Promise<unknown> => world.clock.run(world.life('a').moves.receive(order(world, 'b')));
  assert.deepEqual(await back(), { kind: 'refused', reason: 'it is being given away here', retryable: true });
  await world.clock.advance(5_000);
  assert.deepEqual(await back(), { kind: 'moved' });
  assert.deepEqual(world.servers(DISK), ['a']);
  assert.deepEqual(world.missing(DISK), []);
});

test('a copy that does not end where the owner says that its log ends is none, and neither is one that ends where the owner does not', async () => {
  const world = await pair();
  // Of a log that ends elsewhere than its giver says: nobody acknowledged more than what is there, but nobody knows what is wrong either.
  world.saysMoreRecords = 1;
  const received = await world.clock.run(world.life('b').moves.receiver.receive(order(world, 'a')));
  assert.equal(received.kind, 'refused');
  assert.match((received as { reason: string }).reason, /the copy ends with 5, the owner's log with 6/);
  assert.deepEqual([world.servers(DISK), world.missing(DISK)], [['a'], []]);
  world.saysMoreRecords = 0;
  // And a receiver that says that it has less than was written.
  const { giver } = world.life('a').moves;
  const answer = await world.clock.run(giver.moveAsk({ ...order(world, 'a') }, routerId('b'), '0'.repeat(16), 'operator'));
  assert.equal(answer.kind, 'offer');
  const attempt = world.owners.get(DISK)?.moving?.attempt;
  assert.ok(attempt !== undefined);
  const frozen = await world.clock.run(giver.moveFreeze(DISK, attempt, { segment: 1, offsetBytes: 0, calls: 1 }));
  assert.equal(frozen?.lastSequence, 5);
  const outcome = await world.clock.run(giver.moveConfirm(DISK, attempt, 4));
  assert.deepEqual(outcome, { kind: 'aborted', reason: 'the receiver confirmed up to 4, the log ends with 5' });
  await world.clock.run(world.write('a', DISK, 'afterwards'));
  assert.deepEqual([world.servers(DISK), world.missing(DISK)], [['a'], []]);
});

test('a copy is kept while the owner may still let go, though it did not say so in time and the registry does not know of it yet', async () => {
  const confirmed = async (mishap: Mishap | null): Promise<MoveWorld> => {
    const world = await pair();
    world.watching = true;
    // The same steps each time.
    const at = mishap === null ? -1 : (await confirmed(null)).events.indexOf('b peer moveConfirm');
    if (mishap !== null) world.mishap = { at, what: mishap };
    const received = await world.clock.run(world.life('b').moves.receiver.receive(order(world, 'a')));
    await world.clock.advance(5_000);
    // What a client was told is nowhere else: who threw the copy away could not open the object any more.
    await world.clock.run(world.write('b', DISK, 'afterwards'), 20_000);
    assert.deepEqual([received, world.servers(DISK), world.missing(DISK)], [{ kind: 'moved' }, ['b'], []]);
    return world;
  };
  const world = await confirmed({ kind: 'late', ms: 400 });
  // It was asked before the owner changed, and once more.
  const after = world.events.slice(world.events.indexOf('b peer moveConfirm'));
  assert.ok(after.indexOf('b registry owner') < after.indexOf('a registry transfer'), after.join('\n'));
});

/** A move under writes from both sides with a mishap at one event; everything is in order again afterwards. Returns the events of the move. */
async function moveWith(mishap: { readonly at: number; readonly what: Mishap } | null): Promise<readonly string[]> {
  const world = await pair();
  // So that the registry is asked for a sign of life.
  world.life('a').confirmedAgoMs = 500;
  world.mishap = mishap;
  world.watching = true;
  const writes = Array.from({ length: 24 }, async (_none, number) => {
    await world.clock.sleep(number * 2);
    await world.write(number % 2 === 0 ? 'a' : 'b', DISK, `during ${number}`);
  });
  let isRead = true;
  const stale: string[] = [];
  const readers = ['a', 'b'].map(async (name) => {
    for (let count = 0; isRead; count += 1) {
      const missing = await world.read(name, DISK);
      if (missing !== null && missing.length > 0) stale.push(`${name} did not show ${missing.join(', ')}`);
      await world.clock.sleep(count > 100 || missing === null ? 100 : 2);
    }
  });
  const moving = world.life('b').moves.receiver.receive(order(world, 'a'));
  void moving.then(() => {
    world.watching = false;
  });
  await world.clock.advance(mishap?.what.kind === 'kill' ? 1_500 : 7_000);
  world.watching = false;
  for (const name of ['a', 'b']) if (!world.life(name).alive) await world.boot(name);
  await world.clock.run(Promise.all(writes));
  await world.clock.advance(500);
  isRead = false;
  await world.clock.run(Promise.all(readers));
  // What is left of the attempt ends by itself.
  await world.clock.advance(15_000);
  await world.clock.run(world.write('a', DISK, 'last from a'));
  await world.clock.run(world.write('b', DISK, 'last from b'));
  const where = mishap === null ? 'without mishap' : `${world.events[mishap.at]} ${JSON.stringify(mishap.what)}`;
  assert.equal(world.told.get(DISK)?.length, 5 + 24 + 2, where);
  assert.deepEqual(stale, [], where);
  assert.equal(world.servers(DISK).length, 1, where);
  assert.deepEqual(world.missing(DISK), [], where);
  const owner = world.owners.get(DISK);
  assert.equal(owner?.state.kind, 'running', where);
  assert.equal(owner?.router, routerId(world.servers(DISK)[0] as string), where);
  for (const name of ['a', 'b']) {
    const { moves, holds } = world.life(name);
    assert.equal(moves.giver.running + moves.receiver.running, 0, where);
    assert.equal(holds.size, 0, where);
    assert.deepEqual(moves.history.running(), [], where);
  }
  // And it can move: to where it is not.
  const [server = ''] = world.servers(DISK);
  const other = server === 'a' ? 'b' : 'a';
  assert.deepEqual(await world.clock.run(world.life(other).moves.receiver.receive(order(world, server))), { kind: 'moved' }, where);
  await world.clock.run(world.write(server, DISK, 'after all'));
  assert.deepEqual(world.servers(DISK), [other], where);
  assert.deepEqual(world.missing(DISK), [], where);
  return world.events;
}

const MISHAPS: readonly Mishap[] = [
  { kind: 'kill', routers: ['a'] },
  { kind: 'kill', routers: ['b'] },
  { kind: 'kill', routers: ['a', 'b'] },
  { kind: 'lost', when: 'before', ms: 0 },
  { kind: 'lost', when: 'after', ms: 0 },
  { kind: 'lost', when: 'before', ms: 3_000 },
  { kind: 'lost', when: 'after', ms: 3_000 },
  { kind: 'lost', when: 'after', ms: 6_000 },
  { kind: 'late', ms: 1.5 },
  { kind: 'late', ms: 3 },
  { kind: 'late', ms: 400 },
  { kind: 'late', ms: 5_000 },
];

for (const what of MISHAPS) {
  test(`at every step of a move: ${JSON.stringify(what)}`, async () => {
    const events = await moveWith(null);
    assert.ok(events.length > 15, events.join('\n'));
    for (const needed of [
      'b peer moveAsk',
      'a registry beginMove',
      'a registry update',
      'b backend attach',
      'b peer moveFreeze',
      'a disk freeze',
      'b disk sync',
    ])
      assert.ok(events.includes(needed), needed);
    for (const needed of ['b peer moveConfirm', 'a registry transfer', 'b disk activate']) assert.ok(events.includes(needed), needed);
    for (let at = 0; at < events.length; at += 1) await moveWith({ at, what });
  });
}
