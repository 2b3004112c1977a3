/** Owner records of a vPool in Redis. Semantics in `registry/ports.ts`. */
import { assert, AssertionError } from '../../server/core/assert.ts';
import { ApplianceError } from '../../server/core/errors.ts';
import type { FileId, Incarnation, ObjectUuid, RouterId, Term } from '../../server/core/ids.ts';
import type { Random } from '../../server/core/time.ts';
import { jsonFromOwner, OBJECT_VERIFIER_BYTES, ownerFromJson } from '../owner-record.ts';
import type { ClosedEpoch, Mutation, OwnerOutcome, OwnerRecord, Ownership, Protection, Root } from '../ports.ts';
import { corrupt, HEX_16, HEX_32 } from '../record-check.ts';
import { checkedCopy, isCount, ownBytes } from '../verb-arguments.ts';
import { BEGIN_MOVE_SCRIPT, CLAIM_SCRIPT, OWNED_BY_SCRIPT, OWNER_SCRIPT, TRANSFER_SCRIPT, UPDATE_SCRIPT } from './ownership-scripts.ts';
import { orderedInteger64, packCopy } from './packed-inode.ts';
import { packClosedEpoch, packMoving, packProtection, packRoot, packState, packTerm, unpackOwner } from './packed-owner.ts';
import { bytesOrNull, listOfReply, type RedisVerbs } from './redis-verbs.ts';

const EMPTY_ROOT: Root = { checkpoint: null, uploadedSegment: 0, uploadedSequence: 0, closedEpochs: [] };
const RUNNING = packState({ kind: 'running' });
const CLEAN = packProtection({ kind: 'clean' });

export interface RedisOwnershipComponents {
  readonly verbs: RedisVerbs;
  readonly random: Random;
}

export class RedisOwnership implements Ownership {
  readonly #verbs: RedisVerbs;
  readonly #random: Random;

  constructor(components: RedisOwnershipComponents) {
    this.#verbs = components.verbs;
    this.#random = components.random;
  }

  async owner(fileid: FileId): Promise<OwnerRecord | null> {
    const reply = await this.#verbs.read(OWNER_SCRIPT, [String(fileid)]);
    return this.#verbs.checked(() => {
      const packed = bytesOrNull(reply, 'Redis owner');
      if (packed === null) return null;
      const { owner } = unpackOwner(packed, 'Redis owner');
      return owner.fileid === fileid ? owner : corrupt(`Redis owner ${fileid}`, `the record is of ${owner.fileid}`);
    });
  }

  async ownedBy(router: RouterId, after: FileId, limit: number): Promise<OwnerRecord[]> {
    assert(HEX_32.test(router) && isCount(limit), 'a router id has 32 hex digits');
    const reply = await this.#verbs.read(OWNED_BY_SCRIPT, [router, orderedInteger64(after), limit]);
    return this.#verbs.checked(() =>
      listOfReply(reply, 'Redis owned').map((element) => {
        const packed = bytesOrNull(element, 'Redis owned') ?? corrupt(`Redis owned ${router}`, 'lists an object without owner record');
        const { owner } = unpackOwner(packed, 'Redis owner');
        return owner.router === router ? owner : corrupt(`Redis owner ${owner.fileid}`, `listed for ${router}, but owned by ${owner.router}`);
      }),
    );
  }

  async claim(
    mutation: Mutation,
    fileid: FileId,
    router: RouterId,
    expected: Term | null,
    closing: ClosedEpoch | null,
    nonce: string,
    counterMin = 0,
  ): Promise<OwnerOutcome> {
    assert(isCount(counterMin), 'a counter is a count');
    assert(HEX_16.test(nonce) && HEX_32.test(router), 'a nonce has 16 hex digits, a router id 32');
    assert(closing === null || (expected !== null && sameBytes(closing.term, expected)), 'a claim closes the term that it ends');
    return this.#verbs.mutate('claim', CLAIM_SCRIPT, mutation, [
      String(fileid),
      router,
      expected === null ? '' : packTerm(expected),
      closing === null ? '' : packClosedEpoch(closing),
      nonce,
      counterMin,
      this.#random.bytes(OBJECT_VERIFIER_BYTES),
      RUNNING,
      CLEAN,
      packRoot(EMPTY_ROOT),
    ]);
  }

  async beginMove(mutation: Mutation, fileid: FileId, term: Term, to: RouterId, nonce: string): Promise<OwnerOutcome> {
    assert(HEX_16.test(nonce) && HEX_32.test(to), 'a nonce has 16 hex digits, a router id 32');
    return this.#verbs.mutate('beginMove', BEGIN_MOVE_SCRIPT, mutation, [String(fileid), packTerm(term), to, nonce]);
  }

  async transfer(
    mutation: Mutation,
    fileid: FileId,
    term: Term,
    attempt: Term,
    closing: ClosedEpoch | null,
    protection: Protection,
  ): Promise<OwnerOutcome> {
    assert(closing === null || sameBytes(closing.term, term), 'a transfer closes the term that it ends');
    checkFields(fileid, { protection });
    return this.#verbs.mutate('transfer', TRANSFER_SCRIPT, mutation, [
      String(fileid),
      packTerm(term),
      packTerm(attempt),
      closing === null ? '' : packClosedEpoch(closing),
      packProtection(protection),
      RUNNING,
    ]);
  }

  async update(mutation: Mutation, fileid: FileId, term: Term, fields: Parameters<Ownership['update']>[3]): Promise<OwnerOutcome> {
    checkFields(fileid, fields);
    const { root, state, protection, verifier, moving, attributes } = fields;
    return this.#verbs.mutate('update', UPDATE_SCRIPT, mutation, [
      String(fileid),
      packTerm(term),
      root === undefined ? '' : packRoot(root),
      state === undefined ? '' : packState(state),
      protection === undefined ? '' : packProtection(protection),
      verifier === undefined ? '' : ownBytes(verifier),
      moving === undefined ? '' : moving === null ? '-' : packMoving(moving),
      attributes === undefined ? '' : packCopy(checkedCopy(attributes)),
    ]);
  }
}

function sameBytes(a: Term, b: Term): boolean {
  return packTerm(a).equals(packTerm(b));
}

/** What a caller hands in must be readable again. @throws AssertionError */
function checkFields(fileid: FileId, fields: Parameters<Ownership['update']>[3]): void {
  const record: OwnerRecord = {
    fileid,
    uuid: '0'.repeat(32) as ObjectUuid,
    router: '0'.repeat(32) as RouterId,
    incarnation: '0'.repeat(32) as Incarnation,
    term: { generation: 1, counter: 1, nonce: '0'.repeat(16) },
    state: fields.state ?? { kind: 'running' },
    moving: fields.moving ?? null,
    root: fields.root ?? EMPTY_ROOT,
    protection: fields.protection ?? { kind: 'clean' },
    verifier: fields.verifier ?? new Uint8Array(OBJECT_VERIFIER_BYTES),
  };
  try {
    ownerFromJson(jsonFromOwner(record), `owner record of ${fileid} to be stored`);
  } catch (error) {
    if (error instanceof ApplianceError) throw new AssertionError(error.message);
    throw error;
  }
}
