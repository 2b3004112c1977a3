/**
 * Asks the backend for what must be there (decision 0017). Whoever reads holds a name from a root, a table or an extent map, so an answer that is
 * absent, short or wrong says something about the store and not about the data: it is asked again. What is still not right after some attempts
 * is the client's to ask for later (JUKEBOX), and a problem that an operator sees. Only what was wrong at every look for a whole minute is damaged.
 */
import { StoreError } from '../../backends/object-store.ts';
import { ApplianceError } from '../core/errors.ts';
import type { Logger } from '../core/logger.ts';
import type { Clock } from '../core/time.ts';

/** Pauses between the looks of one call: a quarantined copy or a late replica is often there a moment later. */
const PAUSES_MS: readonly number[] = [100, 400, 1500];
/** As long as a WRITE waits at the dirty bound. */
const PATIENCE_MS = 15_000;
/** Places that are remembered as not right; more of them change nothing for whoever has to repair the store. */
const PLACES_MAX = 256;
/** A place that nobody met for so long is forgotten: it was overwritten, or its object is gone. */
const FORGET_AFTER_MS = 3_600_000;

/** What one look brought. `message` goes on where the name of the place ends. */
export type Look<T> =
  | { readonly kind: 'right'; readonly value: T }
  | { readonly kind: 'absent' }
  | { readonly kind: 'wrong'; readonly message: string };

/** Code of the error once a place counts as damaged. */
export type DamageCode = 'block-corrupt' | 'checkpoint-corrupt' | 'segment-corrupt';

/** A place that was not right when it was last asked for. */
interface Complaint {
  readonly kind: 'absent' | 'wrong';
  readonly message: string;
  readonly sinceMs: number;
  readonly lastMs: number;
}

/** A wait that may end before what it waits for does. */
export interface Patience {
  /** True: the caller was told to come back. What comes now must not touch anything of his. */
  readonly isOver: boolean;
}

export interface BackendReadsSettings {
  /** How long a place has to be wrong, at every look, before it is an error for good. 0: at once, for who only wants to know (fsck). */
  readonly damagedAfterMs: number;
}

export class BackendReads {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #settings: BackendReadsSettings;
  readonly #complaints = new Map<string, Complaint>();
  #wrongAnswers = 0;
  #absentAnswers = 0;

  constructor(components: { clock: Clock; logger: Logger }, settings: BackendReadsSettings = { damagedAfterMs: 60_000 }) {
    this.#clock = components.clock;
    this.#logger = components.logger;
    this.#settings = settings;
  }

  /** Answers that were wrong or absent although the object is named; each was asked for again. */
  statistics(): { readonly wrongAnswers: number; readonly absentAnswers: number } {
    return { wrongAnswers: this.#wrongAnswers, absentAnswers: this.#absentAnswers };
  }

  /** What an operator should know: places of the backend that reads could not get right. Null when there are none. */
  get problem(): { readonly message: string } | null {
    this.#forget();
    const [first] = this.#complaints.values();
    if (first === undefined) return null;
    const more = this.#complaints.size > 1 ? ` (and ${this.#complaints.size - 1} more)` : '';
    return { message: `${first.message}${more}` };
  }

  /**
   * Calls `look` until it is right, four times at most, in about two seconds. `place` says what is looked for, the same text for the same bytes.
   * @throws StoreError of class `retry` when it may be right later; ApplianceError `code` when it is damaged; what `look` throws,
   * but for StoreErrors of class `corrupt`, which are wrong answers.
   */
  async ask<T>(place: string, code: DamageCode, look: (attempt: number) => Promise<Look<T>>): Promise<T> {
    for (let attempt = 0; ; attempt += 1) {
      const answer = await lookOnce(look, attempt);
      if (answer.kind === 'right') {
        if (this.#complaints.size > 0 && this.#complaints.delete(place))
          this.#logger.info({ place }, 'what the backend did not have right is right now');
        return answer.value;
      }
      if (answer.kind === 'wrong') this.#wrongAnswers += 1;
      else this.#absentAnswers += 1;
      const pauseMs = PAUSES_MS[attempt];
      if (pauseMs === undefined) throw this.#complain(place, code, answer);
      await this.#clock.sleep(pauseMs);
    }
  }

  /**
   * Waits for `work`, but not longer than a call of a client should take (decision 0011): others wait behind it on its connection. Then it rejects with
   * a StoreError of class `retry`, and `work` goes on without a caller.
   */
  async patiently<T>(what: string, work: (patience: Patience) => Promise<T>): Promise<T> {
    const patience = { isOver: false };
    let cancel = (): void => {};
    const over = new Promise<never>((_resolve, reject) => {
      cancel = this.#clock.after(PATIENCE_MS, () => {
        patience.isOver = true;
        reject(new StoreError('retry', `${what}: no answer of the backend within ${PATIENCE_MS} ms`));
      });
    });
    try {
      return await Promise.race([work(patience), over]);
    } finally {
      cancel();
    }
  }

  /** Remembers what was not right and returns the error for it. */
  #complain(place: string, code: DamageCode, answer: Exclude<Look<unknown>, { kind: 'right' }>): ApplianceError {
    const nowMs = this.#clock.monotonicMs();
    const before = this.#complaints.get(place);
    const sinceMs = before?.kind === answer.kind && nowMs - before.lastMs < FORGET_AFTER_MS ? before.sinceMs : nowMs;
    const message = answer.kind === 'absent' ? `${place} is not visible on the backend` : `${place} ${answer.message}`;
    this.#complaints.delete(place);
    this.#complaints.set(place, { kind: answer.kind, message, sinceMs, lastMs: nowMs });
    for (const [oldest] of this.#complaints) {
      if (this.#complaints.size <= PLACES_MAX) break;
      this.#complaints.delete(oldest);
    }
    if (before === undefined) this.#logger.error({ place, answer: answer.kind }, `${message}; it is asked for again`);
    if (answer.kind === 'wrong' && nowMs - sinceMs >= this.#settings.damagedAfterMs) return new ApplianceError(code, `${message}; run vferry fsck`);
    return new StoreError('retry', message);
  }

  #forget(): void {
    const beforeMs = this.#clock.monotonicMs() - FORGET_AFTER_MS;
    for (const [place, complaint] of this.#complaints) if (complaint.lastMs < beforeMs) this.#complaints.delete(place);
  }
}

async function lookOnce<T>(look: (attempt: number) => Promise<Look<T>>, attempt: number): Promise<Look<T>> {
  try {
    return await look(attempt);
  } catch (error) {
    // A store that checks its own answers, or a layer that decodes them, found it before we could.
    if (error instanceof StoreError && error.class === 'corrupt') return { kind: 'wrong', message: `could not be read: ${error.message}` };
    throw error;
  }
}
