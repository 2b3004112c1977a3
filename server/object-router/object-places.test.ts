import assert from 'node:assert/strict';
import { test } from 'node:test';

import { VirtualClock } from '../../backends/virtual-clock.ts';
import type { Inode } from '../../registry/inode.ts';
import type { OwnerRecord, Registry } from '../../registry/ports.ts';
import { ApplianceError, errorCode } from '../core/errors.ts';
import type { FileId, Incarnation, RouterId, Term } from '../core/ids.ts';
import { ObjectPlaces } from './object-places.ts';
import type { Everywhere } from './object-places.ts';
import type { OpenObjects, ServedObject } from './open-objects.ts';
import { OwnerCache } from './owner-cache.ts';
import type { Forwarded, Members, OwnerHint, PeerNetwork, PeerService } from './peer-port.ts';
import { Repetitions } from './repetitions.ts';

const [SELF, A, B] = ['0', 'a', 'b'].map((digit) => digit.repeat(32) as RouterId) as [RouterId, RouterId, RouterId];
const FILEID = 100 as FileId;
const KEY = { fileid: FILEID, inodeGeneration: 7 };

function term(counter: number): Term {
  return { generation: 1, counter, nonce: String(counter).padStart(16, '0') };
}

function incarnation(router: RouterId, life = 1): Incarnation {
  return `${router.slice(1)}${life}` as Incarnation;
}

function ownedBy(router: RouterId, counter: number, protection: 'clean' | 'unprotected' = 'unprotected', life = 1): OwnerRecord {
  return { fileid: FILEID, router, incarnation: incarnation(router, life), term: term(counter), protection: { kind: protection } } as OwnerRecord;
}

/** What a peer answers to the n-th call. */
type Answers = (call: number, hint: OwnerHint) => Forwarded<string> | Error;

class World {
  readonly clock = new VirtualClock();
  readonly lease = { valid: true, leftMs: 7000 };
  readonly owners = new OwnerCache();
  owner: OwnerRecord | null = null;
  readonly dead = new Set<string>();
  readonly opened: FileId[] = [];
  readonly asked: string[] = [];
  held: Promise<void> | null = null;
  served: ServedObject | undefined;
  peer: PeerService | null = null;
  /** What opening it here gives. */
  openWith: () => ServedObject = () => ({ unlinked: false, ready: true, inode: { inodeGeneration: 7 } }) as ServedObject;
  readonly places: ObjectPlaces;
  lookups = 0;

  constructor() {
    const inode = { fileid: FILEID, inodeGeneration: 7, class: 'volume', state: 'live' } as Inode;
    const registry = {
      namespace: { inode: () => inode },
      ownership: {
        owner: () => {
          this.lookups += 1;
          return this.owner;
        },
      },
    } as unknown as Registry;
    const objects = {
      held: () => this.held,
      get: () => this.served,
      hasFailed: () => false,
      open: (fileid: FileId) => {
        this.opened.push(fileid);
        this.served = this.openWith();
        return Promise.resolve(this.served);
      },
    } as unknown as OpenObjects;
    const members = { self: SELF, isDead: (_router: RouterId, life: Incarnation) => this.dead.has(life) } as unknown as Members;
    const network = { peer: (router: RouterId) => this.peer ?? ({ router } as unknown as PeerService) } as unknown as PeerNetwork;
    const repetitions = new Repetitions(this.clock, 16);
    this.places = new ObjectPlaces({
      registry,
      objects,
      clock: this.clock,
      lease: this.lease,
      cluster: { members, network, owners: this.owners, repetitions, forwarded: () => undefined },
    });
  }

  run(answers: Answers, more: Partial<Everywhere<string>> = {}): Promise<string | number> {
    let calls = 0;
    return this.clock.run(
      this.places.run<string>(KEY, true, {
        here: () => 'here',
        there: ({ hint }) => {
          this.asked.push(`${hint.router[0]} ${hint.term.counter}`);
          const answer = answers(calls, hint);
          calls += 1;
          if (answer instanceof Error) throw answer;
          return answer;
        },
        record: () => 'record',
        ...more,
      }),
    );
  }
}

const DONE: Forwarded<string> = { kind: 'done', result: 'there' };
const LOST = new ApplianceError('peer-unavailable', 'no answer', { retryable: true });

test('an object of nobody is opened here, one of another router is asked for there, and then without the registry', async () => {
  const world = new World();
  assert.equal(await world.run(() => DONE), 'here');
  assert.deepEqual(world.opened, [FILEID]);
  const other = new World();
  other.owner = ownedBy(A, 3);
  assert.equal(await other.run(() => DONE), 'there');
  assert.equal(await other.run(() => DONE), 'there');
  assert.deepEqual([other.asked, other.lookups, other.opened], [['a 3', 'a 3'], 1, []]);
});

test('who is not the owner says who is, and that one is asked; a hint that is no news sends to the registry', async () => {
  const world = new World();
  world.owners.learn(FILEID, { router: A, incarnation: incarnation(A), term: term(3) });
  const hint = { router: B, incarnation: incarnation(B), term: term(4) };
  assert.equal(await world.run((_call, asked) => (asked.router === A ? { kind: 'not-owner', hint } : DONE)), 'there');
  assert.deepEqual([world.asked, world.lookups], [['a 3', 'b 4'], 0]);
  const stubborn = new World();
  stubborn.owner = ownedBy(B, 5);
  stubborn.owners.learn(FILEID, { router: A, incarnation: incarnation(A), term: term(3) });
  const old = { router: A, incarnation: incarnation(A), term: term(3) };
  assert.equal(await stubborn.run((_call, asked) => (asked.router === A ? { kind: 'not-owner', hint: old } : DONE)), 'there');
  assert.deepEqual([stubborn.asked, stubborn.lookups], [['a 3', 'b 5'], 1]);
});

test('a lost peer is asked again as long as it is the owner; dead and clean, the object is opened here', async () => {
  const world = new World();
  world.owner = ownedBy(A, 3);
  assert.equal(await world.run((call) => (call < 4 ? LOST : DONE)), 'there');
  assert.equal(world.asked.length, 5);
  const dying = new World();
  dying.owner = ownedBy(A, 3);
  const answer = await dying.run((call) => {
    if (call === 2) {
      dying.dead.add(incarnation(A));
      dying.owner = ownedBy(A, 3, 'clean');
    }
    return LOST;
  });
  assert.deepEqual([answer, dying.opened], ['here', [FILEID]]);
});

test('what only a dead router has is waited for, told as recovering, and opened by nobody else', async () => {
  const world = new World();
  world.owner = ownedBy(A, 3);
  world.dead.add(incarnation(A));
  world.clock.after(20_000, () => {
    assert.deepEqual([...world.places.recovering.keys()], [FILEID]);
    world.owner = ownedBy(A, 4, 'unprotected', 2);
  });
  assert.equal(await world.run(() => DONE), 'there');
  assert.deepEqual([world.opened, world.asked, world.places.recovering.size], [[], ['a 4'], 0]);
});

test('a change is not begun any more at an age at which a copy of it could meet its successor, and is refused only when no copy can be left', async () => {
  for (const isChange of [true, undefined] as const) {
    const world = new World();
    world.owner = ownedBy(A, 3);
    world.dead.add(incarnation(A));
    world.clock.after(31_000, () => {
      world.owner = ownedBy(A, 4, 'unprotected', 2);
    });
    const outcome = world.run(() => DONE, isChange === undefined ? {} : { isChange });
    if (isChange === undefined) assert.equal(await outcome, 'there');
    else {
      await assert.rejects(outcome, (error) => errorCode(error) === 'peer-unavailable');
      assert.ok(world.clock.monotonicMs() >= 40_000, `${world.clock.monotonicMs()} ms`);
      assert.deepEqual(world.asked, []);
    }
  }
});

test('what was done here without a lease at its end is not answered', async () => {
  const world = new World();
  const done = world.run(() => DONE, {
    here: () => {
      world.lease.valid = false;
      return 'here';
    },
  });
  await assert.rejects(done, (error) => errorCode(error) === 'lease-lapsed');
});

test('a change that was done without a lease at its end is never answered: the client would send it again under another name', async () => {
  const world = new World();
  let answered = false;
  const done = world.places.run<string>(KEY, true, {
    isChange: true,
    here: () => {
      world.lease.valid = false;
      return 'here';
    },
    there: () => DONE,
    record: () => 'record',
  });
  const note = (): void => {
    answered = true;
  };
  done.then(note, note);
  for (let turn = 0; turn < 50; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(answered, false);
});

test('an operation waits for the end of a hold and looks anew where the object is then', async () => {
  const world = new World();
  world.served = world.openWith();
  const hold = Promise.withResolvers<void>();
  world.held = hold.promise;
  world.clock.after(80, () => {
    world.held = null;
    world.served = undefined;
    world.owner = ownedBy(B, 4);
    hold.resolve();
  });
  assert.equal(await world.run(() => DONE), 'there');
  assert.deepEqual(world.asked, ['b 4']);
});

test('a registry that says less than is known here is asked again in peace, not for ever', async () => {
  const world = new World();
  world.owner = ownedBy(A, 2);
  world.owners.learn(FILEID, { router: SELF, incarnation: incarnation(SELF), term: term(5) });
  await assert.rejects(
    world.run(() => DONE),
    (error) => errorCode(error) === 'peer-unavailable',
  );
  assert.ok(world.lookups < 500, `${world.lookups} look-ups`);
  assert.deepEqual([world.asked, world.opened], [[], []]);
});

test('a change whose owner cannot be reached is answered after 40 s, since it is done; the owner is told when it can be reached, unless it died', async () => {
  for (const end of ['reached', 'died'] as const) {
    const world = new World();
    world.owner = ownedBy(A, 3);
    let isCut = true;
    let told = 0;
    const peer = {
      inodeChanged: () => {
        if (isCut) return Promise.reject(LOST);
        told += 1;
        return Promise.resolve();
      },
    };
    world.peer = peer as unknown as PeerService;
    const beganMs = world.clock.monotonicMs();
    await world.clock.run(world.places.inodeChanged({ fileid: FILEID } as Inode));
    assert.equal(world.clock.monotonicMs() - beganMs, 40_000);
    await world.clock.run(world.clock.sleep(60_000));
    assert.equal(told, 0);
    if (end === 'died') world.dead.add(incarnation(A));
    else isCut = false;
    await world.clock.run(world.clock.sleep(5_000));
    isCut = false;
    await world.clock.run(world.clock.sleep(5_000));
    assert.equal(told, end === 'died' ? 0 : 1);
  }
});

test('a change is answered when its owner confirmed it, or died, and not before', async () => {
  const world = new World();
  world.owner = ownedBy(A, 3);
  const confirmed = Promise.withResolvers<void>();
  world.peer = { inodeChanged: () => confirmed.promise } as unknown as PeerService;
  let isAnswered = false;
  const answered = world.places.inodeChanged({ fileid: FILEID } as Inode).then(() => {
    isAnswered = true;
  });
  await world.clock.run(world.clock.sleep(20_000));
  assert.equal(isAnswered, false);
  confirmed.resolve();
  await world.clock.run(answered);
  const dying = new World();
  dying.owner = ownedBy(A, 3);
  dying.peer = { inodeChanged: () => Promise.reject(LOST) } as unknown as PeerService;
  const waiting = dying.places.inodeChanged({ fileid: FILEID } as Inode);
  await dying.clock.run(dying.clock.sleep(9_000));
  dying.dead.add(incarnation(A));
  const beganMs = dying.clock.monotonicMs();
  await dying.clock.run(waiting);
  assert.ok(dying.clock.monotonicMs() - beganMs < 1_000);
});
