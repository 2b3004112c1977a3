/**
 * The registry as one open object sees it: its owner record under its term, its lazy attributes. Every step is retried while the registry is away;
 * a conflict means that somebody else owns the object now.
 */
import type { Inode } from '../../registry/inode.ts';
import type { Mutation, Namespace, OwnerRecord, Ownership } from '../../registry/ports.ts';
import { ApplianceError, errorCode } from '../core/errors.ts';
import type { FileId, Incarnation, Term } from '../core/ids.ts';
import type { Clock } from '../core/time.ts';
import { timestampOf } from '../core/time.ts';
import type { ObjectAttributes } from './applied-state.ts';

const RETRY_EVERY_MS = 100;

export class ObjectRecords {
  readonly #namespace: Namespace;
  readonly #ownership: Ownership;
  readonly #clock: Clock;
  readonly #incarnation: Incarnation;
  readonly #fileid: FileId;
  readonly #term: Term;
  #hasInlineBase: boolean;

  constructor(components: { namespace: Namespace; ownership: Ownership; clock: Clock }, incarnation: Incarnation, inode: Inode, term: Term) {
    this.#namespace = components.namespace;
    this.#ownership = components.ownership;
    this.#clock = components.clock;
    this.#incarnation = incarnation;
    this.#fileid = inode.fileid;
    this.#term = term;
    this.#hasInlineBase = inode.inlineBytes !== null;
  }

  /** Compare-and-set on the owner record. @throws ApplianceError `fenced` when the object is not ours any more. */
  async update(fields: Parameters<Ownership['update']>[3]): Promise<OwnerRecord> {
    for (;;) {
      try {
        const outcome = await this.#ownership.update(this.#mutation(), this.#fileid, this.#term, fields);
        if (outcome.kind === 'done') return outcome.owner;
        if (outcome.kind === 'gone') throw new ApplianceError('object-gone', `object ${this.#fileid} was removed`);
        throw new ApplianceError(
          'fenced',
          `object ${this.#fileid} is owned by ${outcome.owner.router} in epoch ${outcome.owner.term.generation}.${outcome.owner.term.counter} now`,
        );
      } catch (error) {
        if (errorCode(error) !== 'registry-unavailable') throw error;
        await this.#clock.sleep(RETRY_EVERY_MS);
      }
    }
  }

  /** The lazy copy of size, used and times. */
  async putAttributes(attributes: ObjectAttributes, usedBytes: number): Promise<void> {
    await this.#namespace.putOwnedAttributes(this.#mutation(), [
      {
        fileid: this.#fileid,
        term: this.#term,
        sizeBytes: attributes.sizeBytes,
        usedBytes,
        atime: attributes.atime,
        mtime: attributes.mtime,
        ctime: attributes.ctime,
      },
    ]);
  }

  /** A root covers everything that the object ever was: the inline bytes of a flipped file are not needed any more. */
  async checkpointed(): Promise<void> {
    if (!this.#hasInlineBase) return;
    await this.#namespace.dropInlineBase(this.#mutation(), this.#fileid, this.#term);
    this.#hasInlineBase = false;
  }

  #mutation(): Mutation {
    return { operationId: null, incarnation: this.#incarnation, now: timestampOf(this.#clock.wallMs()), notAfterMs: Infinity };
  }
}
