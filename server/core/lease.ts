/**
 * A router's right to act as the owner of its objects (design section 5): renewed in the registry, over at a point of its own monotonic clock. Whoever
 * answers for an owned object checks it when the operation starts and again in the turn that gives the answer.
 */
export interface Lease {
  /** False: nothing that rests on ownership may be answered any more, reads included. Cheap: asked twice per operation. Never true again once false. */
  readonly valid: boolean;
  /** Milliseconds until it lapses unless it is renewed; Infinity for a single router, 0 when it lapsed. */
  readonly leftMs: number;
}

/** Of a router whose registry nobody else uses. */
export const ENDLESS_LEASE: Lease = { valid: true, leftMs: Infinity };
