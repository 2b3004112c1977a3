/**
 * Claims objects whose router is dead (design section 9). What is clean, whoever needs it next takes over by opening it. The rest waits for its router,
 * unless an operator gives up what is not on the backend: then the dead term is closed where the backend's part of it ends.
 */
import type { Inode } from '../../../registry/inode.ts';
import type { ClosedEpoch, Mutation, OwnerRecord, Root } from '../../../registry/ports.ts';
import type { FileId } from '../../core/ids.ts';
import { sameTerm } from '../../core/ids.ts';
import { timestampOf } from '../../core/time.ts';
import type { CededJournal } from './ceded-journal.ts';
import type { MoveHistory } from './move-history.ts';
import type { MoveSurroundings } from './move-host.ts';

/** What a takeover would do. */
export interface TakeoverPlan {
  readonly owner: OwnerRecord;
  readonly inode: Inode;
  readonly ownerDead: boolean;
  readonly ownerSilentMs: number | null;
  readonly needsForce: boolean;
  /** Everything up to this sequence is on the backend and will be served. */
  readonly keptSequence: number;
  /** Records behind it that are known for certain to have been written: those of earlier terms. */
  readonly knownLostRecords: number;
}

export type TakeoverLook =
  | { readonly kind: 'plan'; readonly plan: TakeoverPlan }
  | { readonly kind: 'no-owner' }
  | { readonly kind: 'gone' }
  | { readonly kind: 'owner-alive'; readonly owner: OwnerRecord; readonly silentMs: number | null };

export type TakeoverEnd =
  | { readonly kind: 'taken' }
  | { readonly kind: 'changed' }
  | { readonly kind: 'gone' }
  | { readonly kind: 'not-clean' }
  | { readonly kind: 'owner-alive' };

export class Takeover {
  readonly #around: MoveSurroundings;
  readonly #history: MoveHistory;
  readonly #journal: CededJournal;

  constructor(around: MoveSurroundings, history: MoveHistory, journal: CededJournal) {
    this.#around = around;
    this.#history = history;
    this.#journal = journal;
  }

  /** What a takeover would do now. Changes nothing. */
  async look(fileid: FileId): Promise<TakeoverLook> {
    const { registry, members, host, self } = this.#around;
    const inode = await registry.namespace.inode(fileid, null);
    if (inode === null) return { kind: 'gone' };
    const owner = await registry.ownership.owner(fileid);
    if (owner === null) return { kind: 'no-owner' };
    const member = members.get(owner.router);
    const ownerSilentMs = member === null || member.incarnation !== owner.incarnation ? null : member.silentMs;
    const ownerDead = owner.router !== self.router && members.isDead(owner.router, owner.incarnation);
    // Taken over by force here, and stopped in the middle; or given away, to a router that is gone, by a change of owner that the registry has forgotten.
    const isUnfit = owner.state.kind !== 'running' || this.#journal.hasForgotten(fileid, owner.term);
    const isStuckHere = owner.router === self.router && host.served(fileid) === undefined && isUnfit;
    if (!ownerDead && !isStuckHere) return { kind: 'owner-alive', owner, silentMs: ownerSilentMs };
    const needsForce = owner.protection.kind !== 'clean' || this.#journal.hasForgotten(fileid, owner.term);
    const keptSequence = owner.root.uploadedSequence;
    const knownLostRecords = needsForce ? Math.max(0, ...owner.root.closedEpochs.map((epoch) => epoch.lastSequence - keptSequence)) : 0;
    return { kind: 'plan', plan: { owner, inode, ownerDead, ownerSilentMs, needsForce, keptSequence, knownLostRecords } };
  }

  /** Does what `look` showed, as long as the object still has that term. `givenUp`: that, for people; null: without force. */
  async take(owner: OwnerRecord, givenUp: string | null): Promise<TakeoverEnd> {
    const { host, logger } = this.#around;
    const now = await this.look(owner.fileid);
    if (now.kind === 'gone') return now;
    if (now.kind === 'owner-alive') return sameTerm(now.owner.term, owner.term) ? { kind: 'owner-alive' } : { kind: 'changed' };
    if (now.kind !== 'plan' || !sameTerm(now.plan.owner.term, owner.term)) return { kind: 'changed' };
    if (!now.plan.needsForce) {
      const opened = await host.open(owner.fileid);
      if (opened === null) return { kind: 'gone' };
      this.#history.takenOver(owner, this.#around.self.router, null);
      return { kind: 'taken' };
    }
    if (givenUp === null) return { kind: 'not-clean' };
    logger.warn(
      { fileid: owner.fileid, from: owner.router, keptSequence: now.plan.keptSequence, givenUp },
      'an object is taken over by force: what its router had not brought to the backend is given up',
    );
    // A move that did not come to its end may have brought them: one that is sent again would be answered as done, and its data is not there. Before the claim: a life
    // of this router that dies behind it leaves an object that the next one opens.
    await host.forgetCalls(owner.fileid);
    const claimed = await this.#claim(now.plan.owner);
    if (claimed !== 'done') return { kind: claimed };
    this.#history.takenOver(owner, this.#around.self.router, givenUp);
    return (await host.open(owner.fileid)) === null ? { kind: 'gone' } : { kind: 'taken' };
  }

  async #claim(owner: OwnerRecord): Promise<'done' | 'changed' | 'gone' | 'owner-alive'> {
    const { registry, random, self } = this.#around;
    const { fileid, root } = owner;
    const given = this.#journal.entry(fileid);
    if (given !== undefined && this.#journal.hasForgotten(fileid, owner.term)) await this.#journal.write({ ...given, state: 'kept' });
    const closing: ClosedEpoch = { term: owner.term, lastSegment: root.uploadedSegment, lastSequence: root.uploadedSequence };
    const nonce = random.bytes(8).toString('hex');
    const counterMin = this.#journal.cededCounter(fileid);
    const claimed = await registry.ownership.claim(this.#mutation(), fileid, self.router, owner.term, closing, nonce, counterMin);
    if (claimed.kind !== 'done') return claimed.kind === 'conflict' ? 'changed' : claimed.kind;
    // Until this is done the object cannot be opened, by anybody: earlier terms are said to go further than the backend. A takeover that ended here is repeated.
    const cut = await registry.ownership.update(this.#mutation(), fileid, claimed.owner.term, {
      root: cutRoot(claimed.owner.root),
      // Clients must send again what they believe to be written, as far as they still have it.
      verifier: random.bytes(8),
    });
    if (cut.kind === 'gone') return 'gone';
    return cut.kind === 'done' ? 'done' : 'changed';
  }

  #mutation(): Mutation {
    const { clock, self } = this.#around;
    return { operationId: null, incarnation: self.incarnation, now: timestampOf(clock.wallMs()), notAfterMs: Infinity };
  }
}

/** No term goes further than what is on the backend. */
function cutRoot(root: Root): Root {
  return {
    ...root,
    closedEpochs: root.closedEpochs.map((epoch) => ({
      term: epoch.term,
      lastSegment: Math.min(epoch.lastSegment, root.uploadedSegment),
      lastSequence: Math.min(epoch.lastSequence, root.uploadedSequence),
    })),
  };
}
