/** What the backend is asked for and costs, for people (composition): counters of the backend stack with the names that the registry knows. */
import { type BucketUsage, requestCost, type StorePrices, type StoreUsage } from '../backends/store-usage.ts';
import type { Registry } from '../registry/ports.ts';
import { objectPaths } from './object-router/object-paths.ts';
import type { BackendHealth, BackendTraffic, BackendUsage, BucketTraffic } from './router-port.ts';

const SECONDS_PER_MONTH = 30 * 86_400;
/** Names that are looked at to tell the paths of the volumes in a report. */
const NAMES_MAX = 20_000;

export interface UsageOf {
  readonly backend: string;
  readonly health: BackendHealth;
  readonly usage: StoreUsage;
  readonly prices: StorePrices;
  /** Milliseconds, wall clock: when counting began, and now. */
  readonly sinceMs: number;
  readonly nowMs: number;
  readonly usedBytes: number;
}

/** Which buckets of a vPool hold what. */
export interface BucketNames {
  readonly files: string;
  readonly namespace: string;
  /** Uuid of the volume that has this bucket for its own; null: none. */
  uuidOf(bucket: string): string | null;
}

export function trafficOf(usage: BucketUsage, prices: StorePrices, seconds: number): BackendTraffic {
  const { requests, failed, writtenBytes, readBytes } = usage;
  const cost = requestCost(usage, prices);
  return { requests, failed, writtenBytes, readBytes, cost, costPerMonth: (cost / Math.max(1, seconds)) * SECONDS_PER_MONTH };
}

/** The `bucketsMax` buckets that cost most, and all others together. */
export async function backendUsage(of: UsageOf, names: BucketNames, registry: Registry, bucketsMax: number): Promise<BackendUsage> {
  const { usage, prices } = of;
  const seconds = (of.nowMs - of.sinceMs) / 1000;
  // Where nothing is charged, requests are what a store suffers from.
  const { buckets, others } = usage.top(
    bucketsMax,
    (row) => requestCost(row, prices) * 1e12 + Object.values(row.requests).reduce((a, b) => a + b, 0),
  );
  const uuids = new Set<string>();
  for (const { bucket } of buckets) {
    const uuid = bucket === null ? null : names.uuidOf(bucket);
    if (uuid !== null) uuids.add(uuid);
  }
  const paths = await objectPaths(registry.namespace, uuids, NAMES_MAX);
  return {
    backend: of.backend,
    health: of.health,
    since: new Date(of.sinceMs).toISOString(),
    seconds,
    currency: prices.currency,
    total: trafficOf(usage.total, prices, seconds),
    buckets: buckets.map((row) => bucketTraffic(row, trafficOf(row, prices, seconds), names, paths)),
    others: { ...trafficOf(others, prices, seconds), bucketCount: others.bucketCount },
    storage: { usedBytes: of.usedBytes, costPerMonth: (of.usedBytes / 1e9) * prices.storagePerGigabyteMonth },
  };
}

function bucketTraffic(row: BucketUsage, traffic: BackendTraffic, names: BucketNames, paths: ReadonlyMap<string, string>): BucketTraffic {
  const bucket = row.bucket ?? '';
  const uuid = names.uuidOf(bucket);
  const content = bucket === names.files ? 'files' : bucket === names.namespace ? 'namespace' : uuid === null ? 'other' : 'volume';
  return { bucket, content, path: uuid === null ? null : (paths.get(uuid) ?? null), ...traffic };
}
