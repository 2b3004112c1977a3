/**
 * The router that gave an object to this one, asked for what is not here: what its clients read a moment ago is on its disk still, while the backend may take
 * seconds (decision 0037). It is a cache and no more: who reads checks every block, and what does not come in a moment the backend is asked for.
 */
import { isEnvironmentError } from '../../core/errors.ts';
import type { FileId, Term } from '../../core/ids.ts';
import { sameTerm } from '../../core/ids.ts';
import type { Clock } from '../../core/time.ts';
import type { FormerAnswer, FormerOwner } from '../driver-port.ts';
import type { PeerService } from '../peer-port.ts';
import { within } from './deadline.ts';

/** Then the backend is asked, too. */
const LATE_MS = 25;
/** What did not come by then will not. */
const ANSWER_MS_MAX = 2_000;
/** After one that did not come others go straight to the backend for a while. */
const REST_MS = 5_000;
/** Half an hour after the last answer with data nothing of it is there, or of use. */
const USELESS_MS_MAX = 1_800_000;
/** Under way at a time: of small reads so many, of large ones so much. */
const ASKED_MAX = 64;
const ASKED_BYTES_MAX = 4 * 1024 * 1024;
/** Segments that it said it does not have, of a minute: with more of them it has hardly any. */
const ABSENT_MAX = 512;
const ABSENT_MS_MAX = 60_000;

export class AskedOwner implements FormerOwner {
  readonly #clock: Clock;
  readonly #peer: Pick<PeerService, 'moveFetch'>;
  readonly #fileid: FileId;
  readonly #attempt: Term;
  readonly #absent = new Set<number>();
  #absentFromMs = 0;
  #asked = 0;
  #askedBytes = 0;
  #restUntilMs = 0;
  #usefulAtMs: number;

  /** `attempt`: the term in which the object came. */
  constructor(clock: Clock, peer: Pick<PeerService, 'moveFetch'>, fileid: FileId, attempt: Term) {
    this.#clock = clock;
    this.#peer = peer;
    this.#fileid = fileid;
    this.#attempt = attempt;
    this.#usefulAtMs = clock.monotonicMs();
  }

  read(segment: number, term: Term, offsetBytes: number, lengthBytes: number): Promise<FormerAnswer> | null {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#absentFromMs > ABSENT_MS_MAX) {
      this.#absentFromMs = nowMs;
      this.#absent.clear();
    }
    if (this.#absent.has(segment) || this.#absent.size >= ABSENT_MAX) return null;
    if (nowMs < this.#restUntilMs || nowMs - this.#usefulAtMs > USELESS_MS_MAX) return null;
    if (this.#asked >= ASKED_MAX || this.#askedBytes + lengthBytes > ASKED_BYTES_MAX) return null;
    const answer = this.#ask(segment, term, offsetBytes, lengthBytes);
    return new Promise((resolve) => {
      const cancel = this.#clock.after(LATE_MS, () => resolve({ late: answer }));
      void answer.then((bytes) => {
        cancel();
        resolve(bytes);
      });
    });
  }

  async #ask(segment: number, term: Term, offsetBytes: number, lengthBytes: number): Promise<Buffer | null> {
    this.#asked += 1;
    this.#askedBytes += lengthBytes;
    try {
      const asked = this.#peer.moveFetch(this.#fileid, this.#attempt, { segment, offsetBytes, calls: 0 }, lengthBytes, 0);
      const part = await within(this.#clock, asked, ANSWER_MS_MAX, 'what the former owner has');
      const piece = part?.pieces[0];
      if (piece === undefined || piece.segment !== segment || !sameTerm(piece.term, term) || piece.offsetBytes !== offsetBytes) {
        this.#absent.add(segment);
        return null;
      }
      this.#usefulAtMs = this.#clock.monotonicMs();
      return piece.bytes;
    } catch (error) {
      if (!isEnvironmentError(error)) throw error;
      this.#restUntilMs = this.#clock.monotonicMs() + REST_MS;
      return null;
    } finally {
      this.#asked -= 1;
      this.#askedBytes -= lengthBytes;
    }
  }
}
