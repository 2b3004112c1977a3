import type { HostileFaults } from './hostile-store.ts';

/**
 * A store at its worst that still gets everything done in the end: every fault that the wrappers know, each rare enough for a request to succeed after a few
 * attempts. Lags are seconds, so that a test meets the moment when an object is there and not to be seen.
 */
export const HOSTILE_WEATHER: HostileFaults = {
  store: {
    visibleLagMsMax: 1500,
    listLagMsMax: 5000,
    halfVisibleMsMax: 2000,
    blindPut: 0.5,
    waver: 0.03,
    undeadMsMax: 10_000,
    bucketLagMsMax: 1000,
    applyLate: 0.03,
    applyLateMsMax: 8000,
    loseAnswer: 0.03,
    failBefore: 0.03,
    delay: 0.2,
    delayMsMax: 200,
    storm: 0.003,
    stormMs: 1500,
    truncateGet: 0.02,
    flipGet: 0.02,
  },
  http: {
    resetRequest: 0.02,
    loseAnswer: 0.02,
    resetBody: 0.02,
    shortBody: 0.02,
    flipBody: 0.02,
    flipRequest: 0.02,
    revokeTokens: 0.01,
    rateLimit: 0.02,
    tooMany: 0.01,
    unavailable: 0.01,
    retryAfterSeconds: 1,
  },
};
