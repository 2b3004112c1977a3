/** Ownership and membership in Redis answer what SQLite answers, whatever was asked before: stale terms, dead routers, moves that were overtaken. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import fc from 'fast-check';

import { AssertionError } from '../../server/core/assert.ts';
import { ApplianceError } from '../../server/core/errors.ts';
import type { FileId, Incarnation, RouterId, Term } from '../../server/core/ids.ts';
import { timestampOf } from '../../server/core/time.ts';
import { bytesOf, INLINE, type RegistryUnderTest, VOLUME } from '../conformance/world.ts';
import type { ClosedEpoch, Mutation, OwnerOutcome, OwnerRecord } from '../ports.ts';
import { TestRegistry as SqliteTestRegistry } from '../sqlite/testing/test-registry.ts';
import { RedisProcess } from './testing/redis-process.ts';
import { TestRegistry } from './testing/test-registry.ts';

const redis = await RedisProcess.start();
after(() => redis[Symbol.asyncDispose]());

const ROUTERS = ['a', 'b', 'c'].map((digit) => digit.repeat(32) as RouterId);
const FILES = 3;

const router = fc.nat({ max: 2 });
/** The highest is one that never was. */
const file = fc.oneof({ weight: 9, arbitrary: fc.nat({ max: FILES - 1 }) }, { weight: 1, arbitrary: fc.constant(FILES) });
/** 3: whoever owns the file, as far as was seen. */
const owner = fc.oneof({ weight: 3, arbitrary: fc.constant(3) }, { weight: 1, arbitrary: fc.nat({ max: 2 }) });
/** Which of the terms seen of the file, the newest first; the highest number: none. */
const term = fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat({ max: 4 }) });
const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ verb: fc.constant('claim' as const), router, file, term, closing: fc.boolean(), counterMin: fc.nat({ max: 12 }) }),
  },
  { weight: 5, arbitrary: fc.record({ verb: fc.constant('beginMove' as const), router: owner, file, term, to: router }) },
  {
    weight: 6,
    arbitrary: fc.record({ verb: fc.constant('transfer' as const), router: owner, file, term, attempt: fc.nat({ max: 4 }), closing: fc.boolean() }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ verb: fc.constant('update' as const), router: owner, file, term, uploaded: fc.nat({ max: 3 }), what: fc.nat({ max: 4 }) }),
  },
  { weight: 1, arbitrary: fc.record({ verb: fc.constant('join' as const), router }) },
  { weight: 1, arbitrary: fc.record({ verb: fc.constant('leave' as const), router }) },
  { weight: 1, arbitrary: fc.record({ verb: fc.constant('markDead' as const), router, seen: fc.nat({ max: 1 }) }) },
  { weight: 1, arbitrary: fc.record({ verb: fc.constant('renew' as const), router }) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** One of the registries, driven by the same steps. */
class Side {
  readonly #under: RegistryUnderTest;
  readonly #incarnations: Incarnation[] = [];
  #joins = 0;
  #files: FileId[] = [];
  readonly #terms = new Map<FileId, Term[]>();
  readonly #attempts = new Map<FileId, Term>();
  readonly #owners = new Map<FileId, number>();

  constructor(under: RegistryUnderTest) {
    this.#under = under;
  }

  async begin(): Promise<void> {
    for (const index of ROUTERS.keys()) await this.#join(index);
    const { namespace } = this.#under.registry;
    for (let index = 0; index < FILES; index += 1) {
      const made = await namespace.createFile(this.#mutation(0), namespace.root, bytesOf(`f${index}`), index === 0 ? INLINE : VOLUME);
      assert.ok(made.kind === 'created');
      if (index === 0) await namespace.flipToFile(this.#mutation(0), made.inode.fileid);
      this.#files.push(made.inode.fileid);
    }
  }

  async #join(index: number): Promise<unknown> {
    this.#joins += 1;
    const incarnation = this.#joins.toString(16).padStart(32, '0') as Incarnation;
    const record = await this.#under.registry.membership.join(ROUTERS[index] as RouterId, incarnation, [`nfs://${index}`], 'test');
    this.#incarnations[index] = incarnation;
    return record;
  }

  #mutation(index: number): Mutation {
    return { operationId: null, incarnation: this.#incarnations[index] as Incarnation, now: timestampOf(this.#under.wallMs()), notAfterMs: Infinity };
  }

  /** The answer, or the kind of the failure, without what is random. */
  async run(next: Step, index: number): Promise<unknown> {
    try {
      return plain(await this.#run(next, index));
    } catch (error) {
      if (error instanceof AssertionError) return 'a bug of the caller';
      if (error instanceof ApplianceError) return error.code;
      throw error;
    }
  }

  async #run(next: Step, index: number): Promise<unknown> {
    const { ownership, membership } = this.#under.registry;
    const fileid = 'file' in next ? (this.#files[next.file] ?? (999_999 as FileId)) : (999_999 as FileId);
    const acting = next.router === 3 ? (this.#owners.get(fileid) ?? 0) : next.router;
    const id = ROUTERS[acting] as RouterId;
    const incarnation = this.#incarnations[acting] as Incarnation;
    const as = this.#mutation(acting);
    const nonce = index.toString(16).padStart(16, '0');
    switch (next.verb) {
      case 'join':
        return this.#join(acting);
      case 'leave':
        return membership.leave(id, incarnation);
      case 'renew':
        return membership.renew(id, incarnation);
      case 'markDead':
        return membership.markDead(id, incarnation, next.seen);
      default:
    }
    const terms = this.#terms.get(fileid) ?? [];
    const of = terms[next.term] ?? null;
    const never: Term = { generation: 1, counter: 77, nonce: 'f'.repeat(16) };
    const closingOf = (closed: Term | null): ClosedEpoch | null =>
      closed === null ? null : { term: closed, lastSegment: index, lastSequence: index };
    let outcome: OwnerOutcome;
    switch (next.verb) {
      case 'claim':
        outcome = await ownership.claim(as, fileid, id, of, next.closing ? closingOf(of) : null, nonce, next.counterMin);
        break;
      case 'beginMove':
        outcome = await ownership.beginMove(as, fileid, of ?? never, ROUTERS[next.to] as RouterId, nonce);
        break;
      case 'transfer': {
        const attempt = next.attempt > 0 ? (this.#attempts.get(fileid) ?? never) : never;
        outcome = await ownership.transfer(as, fileid, of ?? never, attempt, next.closing ? closingOf(of) : null, { kind: 'unprotected' });
        break;
      }
      case 'update': {
        const attempt = this.#attempts.get(fileid) ?? never;
        const fields = [
          {
            root: { checkpoint: next.uploaded === 1 ? null : `c${index}`, uploadedSegment: next.uploaded, uploadedSequence: index, closedEpochs: [] },
          },
          { state: { kind: 'halted', reason: `step ${index} \u00e4` } },
          { protection: { kind: 'protected', replicas: [id] }, verifier: bytesOf('VERIFIER') },
          { moving: { from: id, to: ROUTERS[(acting + 1) % 3] as RouterId, attempt } },
          { moving: null },
        ] as const;
        outcome = await ownership.update(as, fileid, of ?? never, fields[next.what] ?? {});
        break;
      }
    }
    if (outcome.kind === 'done') {
      const { owner } = outcome;
      this.#owners.set(fileid, ROUTERS.indexOf(owner.router));
      if (owner.moving !== null) this.#attempts.set(fileid, owner.moving.attempt);
      if (terms[0]?.counter !== owner.term.counter) this.#terms.set(fileid, [owner.term, ...terms]);
    }
    return outcome;
  }

  /** The files go, while some of them are owned and on the move. */
  async remove(): Promise<void> {
    const { namespace, membership } = this.#under.registry;
    await this.#join(0);
    for (let index = 1; index < FILES; index += 1) await namespace.remove(this.#mutation(0), namespace.root, bytesOf(`f${index}`));
    await namespace.dropTombstone(this.#mutation(0), this.#files[1] as FileId);
    await membership.renew(ROUTERS[0] as RouterId, this.#incarnations[0] as Incarnation);
  }

  async everything(): Promise<unknown> {
    const { ownership, membership } = this.#under.registry;
    const owned = [];
    for (const id of ROUTERS) owned.push((await ownership.ownedBy(id, 0 as FileId, 100)).map(plain));
    const problems: string[] = [];
    for await (const problem of this.#under.registry.verify()) problems.push(problem);
    return { owned, routers: await membership.routers(), problems, position: await this.#under.registry.outbox.position() };
  }
}

/** Uuids and verifiers are drawn by each registry. */
function plain(answer: unknown): unknown {
  if (typeof answer !== 'object' || answer === null) return answer;
  if ('owner' in answer) return { ...answer, owner: plain(answer.owner) };
  if (!('uuid' in answer)) return answer;
  const { uuid: _uuid, verifier, ...rest } = answer as OwnerRecord;
  return { ...rest, verifier: Buffer.from(verifier).toString('latin1') === 'VERIFIER' ? 'given' : 'drawn' };
}

/** Each outcome that the test must see at least once, whatever is drawn. */
const DIRECTED: Step[] = [
  { verb: 'claim', router: 0, file: 1, term: 4, closing: false, counterMin: 3 },
  { verb: 'claim', router: 1, file: 1, term: 0, closing: true, counterMin: 0 },
  { verb: 'beginMove', router: 3, file: 1, term: 0, to: 1 },
  { verb: 'transfer', router: 3, file: 1, term: 0, attempt: 0, closing: true },
  { verb: 'transfer', router: 3, file: 1, term: 0, attempt: 1, closing: true },
  { verb: 'claim', router: 0, file: 1, term: 1, closing: true, counterMin: 0 },
  { verb: 'beginMove', router: 3, file: 1, term: 1, to: 2 },
  { verb: 'update', router: 3, file: 1, term: 0, uploaded: 1, what: 0 },
  { verb: 'update', router: 3, file: 1, term: 1, uploaded: 1, what: 0 },
  { verb: 'claim', router: 0, file: FILES, term: 0, closing: false, counterMin: 0 },
];

test('random histories of ownership and membership are answered as SQLite answers them', async () => {
  const kinds = new Map<string, number>();
  const sameAnswers = fc.asyncProperty(fc.array(step, { minLength: 40, maxLength: 120 }), async (steps) => {
    await using inRedis = await TestRegistry.open(redis.port);
    await using inSqlite = await SqliteTestRegistry.open();
    const [left, right] = [new Side(inRedis), new Side(inSqlite)];
    await left.begin();
    await right.begin();
    for (const [index, next] of steps.entries()) {
      if (index === 90) for (const side of [left, right]) await side.remove();
      const [actual, expected] = [await left.run(next, index), await right.run(next, index)];
      assert.deepEqual(actual, expected, `step ${index}: ${JSON.stringify(next)}`);
      const kind = typeof expected === 'object' && expected !== null && 'kind' in expected ? String(expected.kind) : String(expected);
      kinds.set(`${next.verb} ${kind}`, (kinds.get(`${next.verb} ${kind}`) ?? 0) + 1);
    }
    assert.deepEqual(await left.everything(), await right.everything());
    assert.deepEqual(((await left.everything()) as { problems: string[] }).problems, []);
  });
  await fc.assert(sameAnswers, { seed: 20261122, numRuns: 9, endOnFailure: true, examples: [[DIRECTED]] });
  await fc.assert(sameAnswers, { numRuns: 4, endOnFailure: true });
  for (const needed of [
    'claim done',
    'claim conflict',
    'claim owner-alive',
    'claim gone',
    'beginMove done',
    'beginMove conflict',
    'transfer done',
    'transfer conflict',
    'update done',
    'update conflict',
  ]) {
    assert.ok((kinds.get(needed) ?? 0) > 0, `${needed} in ${JSON.stringify([...kinds])}`);
  }
});
