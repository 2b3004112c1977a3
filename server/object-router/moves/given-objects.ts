/** What this router still has of the objects that it gave away, for their new owners: they read from here what is not on the backend's way soon enough (decision 0037). */
import type { FileId, Term } from '../../core/ids.ts';
import { sameTerm } from '../../core/ids.ts';
import type { Clock } from '../../core/time.ts';
import type { CededSegments } from '../driver-port.ts';
import type { FollowPosition, MovePart } from '../peer-port.ts';

const OBJECTS_MAX = 4096;
/** Asked for by nobody for so long. */
const IDLE_MS_MAX = 600_000;

interface Given {
  readonly attempt: Term;
  readonly segments: CededSegments;
  lastAskedMs: number;
}

export class GivenObjects {
  readonly #clock: Clock;
  /** The one that was given longest ago first. */
  readonly #given = new Map<FileId, Given>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** `attempt`: the term in which the object has its new owner. */
  add(fileid: FileId, attempt: Term, segments: CededSegments): void {
    const nowMs = this.#clock.monotonicMs();
    this.#given.delete(fileid);
    this.#given.set(fileid, { attempt, segments, lastAskedMs: nowMs });
    for (const [oldest, { lastAskedMs }] of this.#given) {
      if (this.#given.size <= OBJECTS_MAX && nowMs - lastAskedMs < IDLE_MS_MAX) break;
      this.#given.delete(oldest);
    }
  }

  /** `lengthBytes` at `from` as the only piece; null: they are not here, or it was not in that attempt that the object was given. */
  async read(fileid: FileId, attempt: Term, from: FollowPosition, lengthBytes: number): Promise<MovePart | null> {
    const given = this.#given.get(fileid);
    if (given === undefined || !sameTerm(given.attempt, attempt) || lengthBytes === 0) return null;
    given.lastAskedMs = this.#clock.monotonicMs();
    const piece = await given.segments.read(from.segment, from.offsetBytes, lengthBytes);
    return piece === null ? null : { pieces: [piece], behindBytes: 0, calls: { bytes: Buffer.alloc(0), next: from.calls, behind: 0 } };
  }
}
