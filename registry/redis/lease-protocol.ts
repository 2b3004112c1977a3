/** Messages between the main thread and the thread of the lease. Both ends are the same build. */
import type { RedisRegistrySettings } from './redis-settings.ts';

/** Taken from the lease at both ends: clocks of two machines do not run alike, and a reply takes its way. */
export const LEASE_MARGIN_MS = 1_000;
export const RENEW_EVERY_MS = 1_000;

export interface LeaseWorkerData {
  readonly redis: RedisRegistrySettings;
  readonly vpoolName: string;
  readonly router: string;
  readonly incarnation: string;
  /** Of a LeaseMemory. */
  readonly buffer: SharedArrayBuffer;
}

/** From the thread. */
export type LeaseMessage =
  /** It was replaced or marked dead, or nobody renewed it in time: over. */
  | { readonly kind: 'over'; readonly code: 'incarnation-dead' | 'lease-lapsed'; readonly message: string }
  | { readonly kind: 'failed'; readonly message: string; readonly durationMs: number }
  | { readonly kind: 'renewed'; readonly durationMs: number };
