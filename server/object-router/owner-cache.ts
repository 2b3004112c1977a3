/** Who owned which object when this router last heard of it: a hint, never a right. The owner checks the term of everything it is sent. */
import { compareEpoch } from '../core/ids.ts';
import type { OwnerHint } from './peer-port.ts';

const HINTS_MAX = 65_536;

export class OwnerCache {
  readonly #hints = new Map<number, OwnerHint>();

  get(fileid: number): OwnerHint | null {
    return this.#hints.get(fileid) ?? null;
  }

  /** What the registry or the owner itself said. An older term than the known one is not news. */
  learn(fileid: number, hint: OwnerHint): void {
    const known = this.#hints.get(fileid);
    if (known !== undefined && compareEpoch(hint.term, known.term) < 0) return;
    this.#hints.delete(fileid);
    if (this.#hints.size >= HINTS_MAX) {
      const [oldest] = this.#hints.keys();
      if (oldest !== undefined) this.#hints.delete(oldest);
    }
    this.#hints.set(fileid, hint);
  }

  forget(fileid: number): void {
    this.#hints.delete(fileid);
  }

  /** Forgets one hint, if it is still the one that turned out to be wrong. */
  disprove(fileid: number, hint: OwnerHint): void {
    if (this.#hints.get(fileid) === hint) this.#hints.delete(fileid);
  }

  clear(): void {
    this.#hints.clear();
  }
}
