import { systemClock } from '../../server/core/node-time.ts';
import type { Clock } from '../../server/core/time.ts';
import { abortedError } from '../abort.ts';
import type { SwiftGrant } from './swift-auth.ts';

/** A token in use, a secret, and the account that it is for. */
export interface SwiftSession {
  readonly token: string;
  readonly storageUrl: string;
}

interface Held extends SwiftSession {
  /** When to ask for the next one, and when this one ends; monotonic, null: not known, a 401 will say. */
  readonly renewAtMs: number | null;
  readonly endsAtMs: number | null;
}

/** A token is renewed when this is left of its life, at most a fifth of it. */
const EARLY_MS_MAX = 5 * 60 * 1000;
/** After an early renewal that failed, the next one. The token in hand still works meanwhile. */
const EARLY_AGAIN_MS = 5000;

/**
 * The token that all requests use. However many find it ended at the same time, one authentication runs, and all wait for that.
 * A token whose life is known is renewed before its end, with requests going on.
 */
export class SwiftSessions {
  readonly #grant: () => Promise<SwiftGrant>;
  readonly #clock: Clock;
  #held: Held | null = null;
  #renewal: Promise<Held> | null = null;
  #earlyNotBeforeMs = 0;

  /** `grant` authenticates; it must settle by itself. */
  constructor(grant: () => Promise<SwiftGrant>, clock: Clock = systemClock) {
    this.#grant = grant;
    this.#clock = clock;
  }

  /** The session to use now. @throws StoreError of `grant`, or `retry` when the signal fires. */
  current(signal: AbortSignal | undefined, what: string): Promise<SwiftSession> {
    const held = this.#held;
    if (held === null) return this.after(null, signal, what);
    const nowMs = this.#clock.monotonicMs();
    if (held.endsAtMs !== null && nowMs >= held.endsAtMs) return this.after(held, signal, what);
    if (held.renewAtMs !== null && nowMs >= held.renewAtMs && nowMs >= this.#earlyNotBeforeMs && this.#renewal === null) {
      // Its failure is no call's failure while the token lives; the call that finds it dead gets the error of the next attempt.
      this.#renew().catch(() => {
        this.#earlyNotBeforeMs = this.#clock.monotonicMs() + EARLY_AGAIN_MS;
      });
    }
    return Promise.resolve(held);
  }

  /** A session granted after `stale`, which was refused: the one that somebody got meanwhile, or the one being asked for now. @throws as `current`. */
  after(stale: SwiftSession | null, signal: AbortSignal | undefined, what: string): Promise<SwiftSession> {
    // By the token, not by the session: tempauth grants a token that lives a little longer once more.
    if (this.#held !== null && this.#held.token !== stale?.token) return Promise.resolve(this.#held);
    return untilAborted(this.#renewal ?? this.#renew(), signal, what);
  }

  #renew(): Promise<Held> {
    const askedMs = this.#clock.monotonicMs();
    const renewal = this.#grant()
      .then((grant) => {
        // tempauth gives a token that still lives out again, so an early renewal gains nothing: then its end shows as a 401.
        const lifeMs = grant.token === this.#held?.token ? null : grant.lifeMs;
        const endsAtMs = lifeMs === null ? null : askedMs + lifeMs;
        const renewAtMs = lifeMs === null ? null : askedMs + lifeMs - Math.min(EARLY_MS_MAX, lifeMs / 5);
        this.#held = { token: grant.token, storageUrl: grant.storageUrl, renewAtMs, endsAtMs };
        return this.#held;
      })
      .finally(() => {
        this.#renewal = null;
      });
    this.#renewal = renewal;
    return renewal;
  }
}

/** Others wait for `promise` too, so an abort ends only this wait. */
function untilAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined, what: string): Promise<T> {
  if (signal === undefined) return promise;
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(abortedError(signal, what));
  if (signal.aborted) onAbort();
  else signal.addEventListener('abort', onAbort, { once: true });
  return Promise.race([promise, aborted]).finally(() => signal.removeEventListener('abort', onAbort));
}
