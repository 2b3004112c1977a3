/** Claim, move and update of owner records: compare-and-set on the term. */
import { assert, AssertionError } from '../../server/core/assert.ts';
import { type FileId, type RouterId, sameTerm, type Term } from '../../server/core/ids.ts';
import { jsonFromOwner, type OwnerEntry, ownerFromJson } from '../owner-record.ts';
import type { ClosedEpoch, OwnerOutcome, OwnerRecord, Protection, Root } from '../ports.ts';
import { corrupt } from '../record-check.ts';
import { withCopy } from './attribute-verbs.ts';
import type { Step } from './verb-step.ts';
import type { OwnerFields } from './worker-protocol.ts';

const EMPTY_ROOT: Root = { checkpoint: null, uploadedSegment: 0, uploadedSequence: 0, closedEpochs: [] };

export function claim(
  step: Step,
  fileid: FileId,
  router: RouterId,
  expected: Term | null,
  closing: ClosedEpoch | null,
  nonce: string,
  counterMin: number,
  verifier: Uint8Array,
): OwnerOutcome {
  const record = step.records.inode(fileid);
  if (record === null || record.inode.state !== 'live') return { kind: 'gone' };
  assert(record.inode.class === 'file' || record.inode.class === 'volume', `inode ${fileid} of class ${record.inode.class} has no owner`);
  assert(step.records.routerOf(step.mutation.incarnation) === router, 'a router claims for itself');
  const { uuid } = record.inode;
  if (uuid === null) return corrupt(`table inode ${fileid}`, 'a file without uuid');
  const entry = step.records.owner(fileid);
  if (entry === null) {
    // Nobody removes the owner record of a live inode, so a term that was seen and is gone cannot be.
    if (expected !== null)
      return corrupt(`table owner ${fileid}`, `there is no record, but the term ${expected.generation}.${expected.counter} was seen`);
    assert(closing === null, 'there is no old term to close');
  } else if (expected === null || !sameTerm(entry.owner.term, expected)) {
    return { kind: 'conflict', owner: entry.owner };
  } else if (entry.owner.router !== router && step.records.routerOf(entry.owner.incarnation) !== null) {
    return { kind: 'owner-alive', owner: entry.owner };
  }
  assert(closing === null || (expected !== null && sameTerm(closing.term, expected)), 'a claim closes the term that it ends');

  const counter = Math.max(entry?.counterMax ?? 0, counterMin) + 1;
  const root = entry?.owner.root ?? EMPTY_ROOT;
  const owner: OwnerRecord = {
    fileid,
    uuid,
    router,
    incarnation: step.mutation.incarnation,
    term: { generation: step.generation, counter, nonce },
    state: { kind: 'running' },
    moving: null,
    root: closing === null ? root : { ...root, closedEpochs: [...root.closedEpochs, closing] },
    protection: entry?.owner.protection ?? { kind: 'clean' },
    verifier: entry?.owner.verifier ?? verifier,
  };
  return store(step, { owner, counterMax: counter });
}

export function beginMove(step: Step, fileid: FileId, term: Term, to: RouterId, nonce: string): OwnerOutcome {
  const entry = heldEntry(step, fileid);
  if (entry === null) return { kind: 'gone' };
  const { owner } = entry;
  if (!sameTerm(owner.term, term) || owner.incarnation !== step.mutation.incarnation) return { kind: 'conflict', owner };
  assert(to !== owner.router, 'an object moves to another router');
  const counter = entry.counterMax + 1;
  const moving = { from: owner.router, to, attempt: { generation: step.generation, counter, nonce } };
  const receiver = step.records.router(to);
  const living = receiver === null || receiver.dead ? {} : { receiver: receiver.incarnation };
  return store(step, { owner: { ...owner, moving }, counterMax: counter, ...living });
}

export function transfer(step: Step, fileid: FileId, term: Term, attempt: Term, closing: ClosedEpoch | null, protection: Protection): OwnerOutcome {
  assert(closing === null || sameTerm(closing.term, term), 'a transfer closes the term that it ends');
  const entry = heldEntry(step, fileid);
  if (entry === null) return { kind: 'gone' };
  const { owner } = entry;
  const { moving, root } = owner;
  if (!sameTerm(owner.term, term) || owner.incarnation !== step.mutation.incarnation) return { kind: 'conflict', owner };
  if (moving === null || !sameTerm(moving.attempt, attempt)) return { kind: 'conflict', owner };
  const receiver = step.records.router(moving.to);
  if (receiver === null || receiver.dead || receiver.incarnation !== entry.receiver) return { kind: 'conflict', owner };
  return store(step, {
    owner: {
      ...owner,
      router: receiver.id,
      incarnation: receiver.incarnation,
      term: attempt,
      state: { kind: 'running' },
      moving: null,
      root: closing === null ? root : { ...root, closedEpochs: [...root.closedEpochs, closing] },
      protection,
    },
    counterMax: entry.counterMax,
  });
}

/** The owner record of a live inode; null when either is not there. */
function heldEntry(step: Step, fileid: FileId): OwnerEntry | null {
  const record = step.records.inode(fileid);
  return record === null || record.inode.state !== 'live' ? null : step.records.owner(fileid);
}

export function update(step: Step, fileid: FileId, term: Term, fields: OwnerFields): OwnerOutcome {
  const entry = heldEntry(step, fileid);
  if (entry === null) return { kind: 'gone' };
  const { owner } = entry;
  if (!sameTerm(owner.term, term)) return { kind: 'conflict', owner };
  if (fields.root !== undefined && fields.root.uploadedSegment < owner.root.uploadedSegment) return { kind: 'conflict', owner };
  const moving = fields.moving === undefined ? owner.moving : fields.moving;
  const sameAttempt = moving !== null && owner.moving !== null && moving.to === owner.moving.to && sameTerm(moving.attempt, owner.moving.attempt);
  const isClean = fields.protection?.kind === 'clean';
  const record = step.records.inode(fileid);
  if (record !== null && (isClean || fields.attributes !== undefined)) {
    const inode = fields.attributes === undefined ? record.inode : withCopy(record.inode, fields.attributes);
    // Noted when the object is clean: from here on the record is all that is asked.
    step.records.updateInode(record, { ...record, inode }, isClean);
  }
  return store(step, {
    owner: {
      ...owner,
      root: fields.root ?? owner.root,
      state: fields.state ?? owner.state,
      protection: fields.protection ?? owner.protection,
      verifier: fields.verifier ?? owner.verifier,
      moving,
    },
    // A number reserved for a move is never given out again, whatever becomes of the move.
    counterMax: Math.max(entry.counterMax, moving?.attempt.counter ?? 0),
    ...(sameAttempt && entry.receiver !== undefined ? { receiver: entry.receiver } : {}),
  });
}

function store(step: Step, entry: OwnerEntry): OwnerOutcome {
  // What a caller hands in must be readable again: a record out of bounds is the caller's bug, found here and not at the next start.
  try {
    ownerFromJson(jsonFromOwner(entry.owner), `owner record of ${entry.owner.fileid} to be stored`);
  } catch (error) {
    throw new AssertionError(error instanceof Error ? error.message : String(error));
  }
  step.records.putOwner(entry);
  return { kind: 'done', owner: entry.owner };
}
