import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { endedRounds, type EndedRound, missingAbove, type Settled, type TakenPart } from './lineage.ts';

const A: Settled = { generation: 1, identity: 'a' };
const round = (generation: number, identity: string | null, cut: number): EndedRound => ({ of: { generation, identity }, cut });
const part = (identity: string, from: number, cut: number): TakenPart => ({ identity, from, cut });

test('who was there all the time misses nothing', () => {
  assert.equal(missingAbove([], A, [A], null), Infinity);
  assert.equal(missingAbove([round(1, 'a', 10)], { generation: 2, identity: 'b' }, [A, { generation: 2, identity: 'b' }], null), Infinity);
  assert.equal(missingAbove([round(1, 'a', 10)], { generation: 2, identity: 'b' }, [A], part('b', 1, 10)), Infinity);
});

test('who takes part in a round has not taken part in the one before it', () => {
  const rounds = [round(1, 'a', 10), round(2, 'b', 900)];
  assert.equal(missingAbove(rounds, { generation: 3, identity: 'c' }, [A], part('c', 2, 900)), 10);
  // Nor who takes part in one that is held for another router, from a later cut.
  assert.equal(missingAbove(rounds, { generation: 3, identity: 'b' }, [A], part('b', 2, 11)), 10);
  // But for who has brought all since the earlier cut: the late round of this router.
  assert.equal(missingAbove(rounds, { generation: 3, identity: 'b' }, [A], part('b', 2, 10)), Infinity);
});

test('a round that ended on another process than the one reported to is missed', () => {
  assert.equal(missingAbove([round(1, 'a', 10)], { generation: 2, identity: 'c' }, [A], part('b', 1, 10)), 10);
  assert.equal(missingAbove([round(1, 'a', 10), round(2, 'c', 50)], { generation: 3, identity: 'b' }, [A], part('b', 1, 10)), 10);
});

test('a generation that came from older data is another one than that of the same number', () => {
  const settled = [A, { generation: 2, identity: 'b' }];
  // Restored to generation 1: the next one is above all that were seen, or, by routers that had not seen it, the same number again.
  assert.equal(missingAbove([round(1, 'a', 10)], { generation: 3, identity: 'c' }, settled, null), 10);
  assert.equal(missingAbove([round(1, 'a', 10)], { generation: 2, identity: 'c' }, settled, null), 10);
  assert.equal(missingAbove([round(1, 'a', 10), round(2, 'c', 500)], { generation: 3, identity: 'd' }, settled, null), 10);
  // What it worked in last was kept: only what came after that counts.
  assert.equal(missingAbove([round(1, 'a', 10), round(2, 'b', 500)], { generation: 3, identity: 'd' }, settled, null), 500);
});

test('with nothing in common every round counts; what no version wrote down counts by its number', () => {
  assert.equal(missingAbove([round(4, 'x', 20), round(5, 'y', 40)], { generation: 6, identity: 'z' }, [A], null), 20);
  assert.equal(
    missingAbove([round(1, null, 10), round(2, null, 40)], { generation: 3, identity: 'c' }, [{ generation: 2, identity: null }], null),
    40,
  );
});

test('rounds are read in order, and nothing that is none', () => {
  const fields = new Map([
    ['10', '9000'],
    ['identity 10', 'j'],
    ['9', '80'],
  ]);
  assert.deepEqual(endedRounds(fields, 'rounds'), [round(9, null, 80), round(10, 'j', 9000)]);
  for (const [name, value] of [
    ['x', '1'],
    ['1', '-1'],
    ['1', ''],
    ['1', '99999999999999999999'],
    ['-1', '1'],
    ['9999999999999999', '1'],
  ] as const)
    assert.throws(() => endedRounds(new Map([[name, value]]), 'rounds'), { code: 'registry-corrupt' });
  assert.throws(() => endedRounds(new Map([['1', '1'], ['identity 1', 'x'.repeat(101)]]), 'rounds'), { code: 'registry-corrupt' }); // prettier-ignore
});

/** A Redis, and a router that keeps each change that it acknowledged: what the router would bring back is compared with what Redis really lacks. */
class World {
  generation = 1;
  process = 0;
  sequence = 0;
  /** Of the router, that are there. */
  has = new Set<number>();
  rounds: EndedRound[] = [];
  identity = 'process 0';
  readonly log: number[] = [];
  settled: Settled[] = [{ generation: 1, identity: 'process 0' }];
  seenByOthers = 1;
  takenPart: TakenPart | null = null;
  #backups: { generation: number; sequence: number; has: Set<number>; rounds: EndedRound[]; identity: string }[] = [];

  get #present(): Settled & { identity: string } {
    return { generation: this.generation, identity: this.identity };
  }

  #isSettled(): boolean {
    const newest = this.settled.at(-1);
    return newest?.generation === this.generation && newest.identity === this.identity;
  }

  change(byRouter: boolean): void {
    this.sequence += 1;
    if (!byRouter || !this.#isSettled()) return;
    this.log.push(this.sequence);
    this.has.add(this.sequence);
  }

  backUp(): void {
    const { generation, sequence, has, rounds, identity } = this;
    this.#backups.push({ generation, sequence, has: new Set(has), rounds: [...rounds], identity });
  }

  /** Another process, with the data of a backup or those of now; then a round, perhaps with the router. */
  restart(backup: number | null, withRouter: boolean): void {
    const from = backup === null ? null : this.#backups[backup % Math.max(1, this.#backups.length)];
    if (from !== null && from !== undefined) {
      Object.assign(this, { ...from, has: new Set(from.has), rounds: [...from.rounds] });
    }
    this.process += 1;
    this.#round(`process ${this.process}`, this.sequence, withRouter);
  }

  #round(identity: string, cut: number, withRouter: boolean): void {
    this.rounds.push({ of: { generation: this.generation, identity: this.identity }, cut: this.sequence });
    if (withRouter) {
      for (const sequence of this.log) if (sequence > cut) this.has.add(sequence);
      this.takenPart = { identity, from: this.generation, cut };
    }
    const seen = Math.max(this.seenByOthers, withRouter ? (this.settled.at(-1)?.generation ?? 0) : 0);
    this.generation = Math.max(this.generation, seen) + 1;
    this.seenByOthers = this.generation;
    this.identity = identity;
    this.sequence = Math.max(this.sequence, ...this.log) + 1000;
  }

  /** Other routers that had seen more are gone. */
  othersAnew(): void {
    this.seenByOthers = 1;
  }

  /** The router comes, and holds the rounds that it wants. */
  come(): void {
    for (let rounds = 0; ; rounds += 1) {
      assert.ok(rounds < 2, 'one late round is enough');
      const newest = this.settled.at(-1) as Settled;
      if (this.#isSettled()) return;
      const above = missingAbove(this.rounds, this.#present, this.settled, this.takenPart);
      const isBehind = this.generation <= newest.generation;
      if (!isBehind && !this.log.some((sequence) => sequence > above)) break;
      this.#round(this.identity, above, true);
    }
    assert.deepEqual(
      this.log.filter((sequence) => !this.has.has(sequence)),
      [],
      'all that it acknowledged is there when it goes on',
    );
    this.settled = [...this.settled, this.#present].slice(-24);
  }

  /** Its next life remembers no round. */
  restartRouter(): void {
    this.takenPart = null;
  }
}

test('whatever is restored, restarted and missed in whatever order: all that a router acknowledged is there when it goes on', () => {
  const step = fc.oneof(
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('change' as const), byRouter: fc.boolean() }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('come' as const) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('restart' as const), backup: fc.option(fc.nat(20)), withRouter: fc.boolean() }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('backUp' as const, 'restartRouter' as const, 'othersAnew' as const) }) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const world = new World();
      world.backUp();
      for (const one of steps) {
        if (one.kind === 'change') world.change(one.byRouter);
        else if (one.kind === 'restart') world.restart(one.backup, one.withRouter);
        else world[one.kind]();
      }
      world.come();
    }),
    { seed: 20_261_123, numRuns: 5_000 },
  );
});
