/**
 * The owner records of this router as the registry last confirmed them: what is put back when the registry turns out to have forgotten something (design
 * section 5, recovery round). Wraps the Ownership port; what is claimed or changed through it is remembered, what was given away is not.
 */
import type { OwnerOutcome, OwnerRecord, Ownership } from '../../registry/ports.ts';
import { compareEpoch } from '../core/ids.ts';
import type { FileId, RouterId, Term } from '../core/ids.ts';

export class OwnedRecords implements Ownership {
  readonly #inner: Ownership;
  readonly #self: RouterId;
  readonly #records = new Map<FileId, OwnerRecord>();
  /** Throws when this router knows of a later term than the one that it is about to end. */
  checkClaim: (fileid: FileId, expected: Term | null) => void = () => undefined;

  constructor(inner: Ownership, self: RouterId) {
    this.#inner = inner;
    this.#self = self;
  }

  /** Records of terms that this router won and did not give away. */
  all(): readonly OwnerRecord[] {
    return [...this.#records.values()];
  }

  owner(fileid: FileId): ReturnType<Ownership['owner']> {
    return this.#inner.owner(fileid);
  }

  ownedBy(router: RouterId, after: FileId, limit: number): Promise<OwnerRecord[]> {
    return this.#inner.ownedBy(router, after, limit);
  }

  async claim(...parameters: Parameters<Ownership['claim']>): Promise<OwnerOutcome> {
    this.checkClaim(parameters[1], parameters[3]);
    return this.#seen(parameters[1], await this.#inner.claim(...parameters));
  }

  async beginMove(...parameters: Parameters<Ownership['beginMove']>): Promise<OwnerOutcome> {
    return this.#seen(parameters[1], await this.#inner.beginMove(...parameters));
  }

  async transfer(...parameters: Parameters<Ownership['transfer']>): Promise<OwnerOutcome> {
    return this.#seen(parameters[1], await this.#inner.transfer(...parameters));
  }

  async update(...parameters: Parameters<Ownership['update']>): Promise<OwnerOutcome> {
    return this.#seen(parameters[1], await this.#inner.update(...parameters));
  }

  /** An object came here by another router's transfer: its record as the registry has it. */
  received(owner: OwnerRecord): void {
    this.#seen(owner.fileid, { kind: 'done', owner });
  }

  #seen(fileid: FileId, outcome: OwnerOutcome): OwnerOutcome {
    if (outcome.kind === 'gone') this.#records.delete(fileid);
    else {
      const { owner } = outcome;
      const known = this.#records.get(fileid);
      if (owner.router === this.#self && outcome.kind === 'done') this.#records.set(fileid, owner);
      // Somebody else's newer term: nothing of ours is to be put over it.
      else if (owner.router !== this.#self && known !== undefined && compareEpoch(owner.term, known.term) > 0) this.#records.delete(fileid);
    }
    return outcome;
  }
}
