/** Moments of a recovery round that a real Redis shows too rarely: the replies come from a script. What rounds do is tested over real ones (rounds.test.ts, e2e/registry/). */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { silentLogger } from '../../server/core/logger.ts';
import { systemClock } from '../../server/core/node-time.ts';
import { IN_ROUND } from './generation-record.ts';
import type { Settled } from './lineage.ts';
import { RecoveryRounds } from './recovery-round.ts';
import type { RedisAnswer, RedisCommand, RedisConnection } from './redis-connection.ts';
import type { ScriptReply } from './redis-link.ts';

const IDENTITY = 'run-2';
const VPOOL_UUID = '1'.repeat(32);
const ROUTER = 'a'.repeat(32);
const OTHER = 'b'.repeat(32);

/** A Redis whose round another router ends as soon as `endsAfterEntries` looks at it were answered; `endedBy`: the process on which it ended. */
class ScriptedRound {
  readonly asked: string[] = [];
  #entries = 0;
  readonly #endsAfterEntries: number;
  readonly #endedBy: string;
  #late = false;
  #askedFor = false;

  readonly #waitsFor: readonly string[];

  constructor(endsAfterEntries: number, endedBy = IDENTITY, waitsFor: readonly string[] = [OTHER]) {
    this.#endsAfterEntries = endsAfterEntries;
    this.#endedBy = endedBy;
    this.#waitsFor = waitsFor;
  }

  connection(): RedisConnection {
    const run = (commands: readonly RedisCommand[]): Promise<RedisAnswer[]> => Promise.resolve(commands.map((command) => this.#answer(command)));
    return { address: { host: '127.0.0.1', port: 1 }, ended: false, run } as unknown as RedisConnection;
  }

  #answer(command: RedisCommand): RedisAnswer {
    const what = command.kind === 'script' ? command.script.name : command.words[0];
    this.asked.push(what);
    const ended = this.#entries > this.#endsAfterEntries;
    const reply = (value: ScriptReply): RedisAnswer => ({ kind: 'reply', reply: value });
    const text = (value: string): Buffer => Buffer.from(value);
    switch (what) {
      case 'readMeta': {
        const generation = this.#late ? '3' : ended ? '2' : IN_ROUND;
        return reply([text(generation), text(this.#late ? IDENTITY : ended ? this.#endedBy : 'run-1'), text('pool'), text(VPOOL_UUID)]);
      }
      case 'beginRound':
        if (ended) {
          this.#late = true;
          return reply([text('current'), text('3')]);
        }
        return reply([text('round'), text('1'), text('0'), 0]);
      case 'enterRound':
        this.#entries += 1;
        if (this.#entries > this.#endsAfterEntries) return { kind: 'refused', code: 'GENERATION', error: new Error('GENERATION 2') };
        return reply([
          text('10'),
          [text('from'), text('1'), text(`report ${ROUTER}`), text(JSON.stringify({ seen: 1, members: this.#waitsFor, hole: 0 }))],
          text('0'),
        ]);
      case 'finishRound':
        this.#entries = Infinity;
        return reply([text('current'), text('2')]);
      case 'HGETALL': {
        const first = ['1', '10', 'identity 1', 'run-1'];
        const second = this.#late ? ['2', '20', 'identity 2', this.#endedBy] : [];
        return reply(this.#askedFor ? [] : [...first, ...second].map(text));
      }
      case 'beginLateRound':
        this.#askedFor = true;
        return reply(1);
      default:
        return reply([]);
    }
  }
}

/** A Redis in a generation, with a hash of rounds behind it; it holds rounds, in which the other router has reported when this one looks. */
class SmallRegistry {
  readonly asked: string[] = [];
  /** Of each late round that was asked for. */
  readonly lateCuts: number[] = [];
  #rounds: readonly string[];
  #generation: number;
  #round: { readonly late: string; readonly cut: number } | null;
  #report = '';

  /** `round`: one that is under way when it begins. */
  constructor(generation: number, rounds: readonly string[], round: { readonly late: string; readonly cut: number } | null = null) {
    this.#generation = generation;
    this.#rounds = rounds;
    this.#round = round;
  }

  connection(): RedisConnection {
    const run = (commands: readonly RedisCommand[]): Promise<RedisAnswer[]> =>
      Promise.resolve(commands.map((command) => ({ kind: 'reply', reply: this.#answer(command) })));
    return { address: { host: '127.0.0.1', port: 1 }, ended: false, run } as unknown as RedisConnection;
  }

  #answer(command: RedisCommand): ScriptReply {
    const what = command.kind === 'script' ? command.script.name : command.words[0];
    const args = command.kind === 'script' ? command.args.map(String) : [];
    this.asked.push(what);
    const text = (value: string | number): Buffer => Buffer.from(String(value));
    switch (what) {
      case 'readMeta':
        return [this.#round === null ? this.#generation : IN_ROUND, IDENTITY, 'pool', VPOOL_UUID].map(text);
      case 'beginRound':
        return [text('round'), text(this.#generation), text(0), 0];
      case 'enterRound': {
        const { late, cut } = this.#round ?? assert.fail('no round');
        const reports = this.#report === '' ? [] : [`report ${ROUTER}`, this.#report];
        // For what this router would bring late, the log of the other does not reach back far enough.
        const other = JSON.stringify({ seen: this.#generation, members: [], hole: late === ROUTER ? 50 : 0 });
        return [text(cut), ['from', this.#generation, 'late', late, ...reports, `report ${OTHER}`, other].map(text), text(0)];
      }
      case 'reportInRound':
        this.#report = args[2] ?? '';
        return 1;
      case 'finishRound':
        this.#generation = Math.max(this.#generation + 1, Number(args[2]));
        this.#round = null;
        return [text('done'), text(this.#generation)];
      case 'HGETALL':
        return this.#rounds.map(text);
      case 'counters':
        return [this.#generation, 60, 0, 0].map(text);
      case 'scanInodes':
      case 'scanNames':
        return [text(0), []];
      case 'beginLateRound':
        this.lateCuts.push(Number(args[2]));
        this.#rounds = [...this.#rounds, String(this.#generation), '60', `identity ${this.#generation}`, IDENTITY];
        this.#round = { late: args[3] ?? '', cut: Number(args[2]) };
        this.#report = '';
        return 1;
      default:
        return [];
    }
  }
}

interface Knowledge {
  readonly settled?: readonly Settled[];
  readonly log?: { readonly dropped: number; readonly entriesAfter: (after: number, max: number) => Promise<readonly { sequence: number }[]> };
}

function rounds(knows: Knowledge = {}): { readonly rounds: RecoveryRounds; readonly seen: () => number; readonly settled: () => readonly Settled[] } {
  let settled: readonly Settled[] = knows.settled ?? [{ generation: 1, identity: 'run-1' }];
  // What this router changed is replayed before it reports; asked for afterwards there is some still.
  let asked = 0;
  const log = knows.log ?? { dropped: 0, entriesAfter: () => Promise.resolve((asked += 1) === 1 ? [] : [{ sequence: 11 }]) };
  const local = {
    get seen() {
      return { vpoolUuid: VPOOL_UUID, generation: settled.at(-1)?.generation ?? 0, settled };
    },
    settled: (_uuid: string, now: Settled) => {
      settled = [...settled, now];
      return Promise.resolve();
    },
    log: log as never,
    owned: () => [],
    self: () => null,
    members: () => [OTHER],
  };
  const made = new RecoveryRounds(
    { clock: systemClock, logger: silentLogger, observer: null, local, createArguments: () => [] },
    { vpoolName: 'pool', router: ROUTER, replicasMin: 0, commandTimeoutMs: 1000, leaseMs: 20_000, whenEmpty: 'refuse' },
  );
  return { rounds: made, seen: () => settled.at(-1)?.generation ?? 0, settled: () => settled };
}

const STATE = { identity: IDENTITY, connectedReplicas: 0, maxmemoryPolicy: 'noeviction', aofEnabled: true, record: null };

test('a round that another router ends between two looks at it is over, and not missed: no second one is held for what was reported in it', async () => {
  // The first look is from before the report, the second finds others missing, the third comes too late.
  const script = new ScriptedRound(2);
  const { rounds: ours, seen } = rounds();
  assert.equal(await ours.settle(script.connection(), STATE), 2);
  assert.equal(seen(), 2);
  assert.equal(script.asked.filter((what) => what === 'beginLateRound').length, 0, script.asked.join(' '));
  assert.equal(ours.counts.rounds, 1);
});

test('a round that ended on another primary than the one reported to may have ended without the report: it counts as missed', async () => {
  const script = new ScriptedRound(2, 'run-3');
  const { rounds: ours } = rounds();
  assert.equal(await ours.settle(script.connection(), STATE), 3);
  // Ended elsewhere, it is not taken for one that has what was reported here: asked again on the primary that there is.
  assert.equal(script.asked.filter((what) => what === 'beginRound').length, 2, script.asked.join(' '));
  assert.equal(script.asked.filter((what) => what === 'beginLateRound').length, 1, script.asked.join(' '));
});

test('who wants to end a round that has ended already has not ended it: it looks where that was', async () => {
  const script = new ScriptedRound(100, 'run-3', []);
  const { rounds: ours } = rounds();
  assert.equal(await ours.settle(script.connection(), STATE), 3);
  assert.equal(script.asked.filter((what) => what === 'finishRound').length, 1);
  assert.equal(script.asked.filter((what) => what === 'beginLateRound').length, 1, script.asked.join(' '));
});

const EMPTY_LOG = { dropped: 0, entriesAfter: () => Promise.resolve([]) };

test('a registry that went on from older data gets a generation above all seen, also from a router whose log has nothing for it', async () => {
  const registry = new SmallRegistry(2, ['1', '10', 'identity 1', 'run-1']);
  const settled = [1, 2, 3].map((generation) => ({ generation, identity: `run-${generation === 2 ? 'x' : generation}` }));
  const { rounds: ours, seen } = rounds({ settled, log: EMPTY_LOG });
  assert.equal(await ours.settle(registry.connection(), STATE), 4);
  assert.equal(seen(), 4);
});

test('a generation that an older version knew by its number only gets its process, without a round', async () => {
  const registry = new SmallRegistry(3, ['2', '10']);
  const { rounds: ours, settled } = rounds({ settled: [{ generation: 3, identity: null }], log: EMPTY_LOG });
  assert.equal(await ours.settle(registry.connection(), STATE), 3);
  assert.deepEqual(settled().at(-1), { generation: 3, identity: IDENTITY });
  assert.deepEqual(registry.lateCuts, []);
});

test('who could bring nothing in the round of another, since its log does not reach back so far, has brought nothing: it holds its own', async () => {
  // The late round of another goes back to 10, and the log of this one to 20: it brings nothing in it, not 40 either, which the round that it missed (cut 30) should have got.
  const registry = new SmallRegistry(2, ['1', '30', 'identity 1', 'run-1', '2', '60', 'identity 2', IDENTITY], { late: OTHER, cut: 10 });
  const log = { dropped: 20, entriesAfter: (after: number) => Promise.resolve(after < 40 ? [{ sequence: 40 }] : []) };
  const { rounds: ours } = rounds({ log });
  await ours.settle(registry.connection(), STATE);
  assert.deepEqual(registry.lateCuts, [30]);
});
