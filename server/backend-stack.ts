/**
 * The Storage Backend as a router uses it (composition): threads, metering, retries and limits on top of each other, and beside them who says how
 * the backend is and what it costs.
 */
import { BACKEND_CONDITIONS, BackendState } from '../backends/backend-state.ts';
import { BackendWatch } from '../backends/backend-watch.ts';
import { HeldStore } from '../backends/held-store.ts';
import { LimitedStore } from '../backends/limited-store.ts';
import { MeteredStore } from '../backends/metered-store.ts';
import type { ObjectStore } from '../backends/object-store.ts';
import { RetryingStore } from '../backends/retrying-store.ts';
import type { RetryObserver, StoreObserver } from '../backends/store-observer.ts';
import { type BucketUsage, requestCost, type StorePrices, StoreUsage } from '../backends/store-usage.ts';
import { TcpReachable } from '../backends/tcp-reachable.ts';
import { UploadPace } from '../backends/upload-pace.ts';
import type { HostedStoreConfig } from '../backends/upload-thread/hosted-store.ts';
import { ThreadedStore } from '../backends/upload-thread/threaded-store.ts';
import type { Logger } from './core/logger.ts';
import type { MetricLabels, MetricSink } from './core/metric-sink.ts';
import type { Clock, Random } from './core/time.ts';

const MIB = 1024 * 1024;
/** A request that was under way in an outage, and for so long before its end and after it, has died with it. */
const DEAD_AFTER_MS = 3000;
const BYTES_IN_FLIGHT_MAX = 256 * MIB;
const WHOLE_GET_BYTES = 4 * MIB;
/** Name of an object that is asked for to see whether the backend answers. It need not exist. */
const PROBE_NAME = 'probe';

export interface BackendStackComponents {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly storeObserver: StoreObserver & RetryObserver;
}

export interface BackendStackSettings {
  readonly store: HostedStoreConfig;
  /** Requests at a time, reads and others each. */
  readonly concurrency: number;
  readonly prices: StorePrices;
  /** Bucket in which a probe looks for an object. */
  readonly probeBucket: string;
  /** Why nothing may be asked of the backend yet; null: everything may. */
  readonly held: () => Error | null;
}

export class BackendStack {
  readonly store: ObjectStore;
  readonly state: BackendState;
  readonly usage = new StoreUsage();
  readonly prices: StorePrices;
  readonly #threaded: ThreadedStore;
  readonly #limited: LimitedStore;
  readonly #clock: Clock;
  readonly #probe: ObjectStore;
  readonly #probeBucket: string;
  readonly #reachable: TcpReachable | null;
  #watch: BackendWatch | null = null;
  #cancelRestart: () => void = () => undefined;

  constructor(components: BackendStackComponents, settings: BackendStackSettings) {
    const { clock, random, logger } = components;
    this.#clock = clock;
    this.prices = settings.prices;
    this.state = new BackendState({ clock, logger });
    this.#threaded = new ThreadedStore({ clock, logger }, { store: settings.store });
    const pace = new UploadPace(settings.concurrency);
    const held = new HeldStore(this.#threaded, settings.held);
    const metered = new MeteredStore({ inner: held, observers: [components.storeObserver, this.usage, this.state, pace], clock });
    const retrying = new RetryingStore({ inner: metered, clock, random, observer: components.storeObserver, pacer: this.state });
    this.#limited = new LimitedStore(
      retrying,
      {
        concurrencyMax: settings.concurrency,
        bytesInFlightMax: BYTES_IN_FLIGHT_MAX,
        wholeGetBytes: WHOLE_GET_BYTES,
      },
      pace,
    );
    this.store = this.#limited;
    this.state.onRecovered(() => {
      const startedBeforeMs = clock.monotonicMs() - DEAD_AFTER_MS;
      this.#cancelRestart();
      this.#cancelRestart = clock.after(DEAD_AFTER_MS, () => retrying.restart(startedBeforeMs));
    });
    this.#probeBucket = settings.probeBucket;
    const url = endpointOf(settings.store);
    this.#reachable = url === null ? null : new TcpReachable(url, () => clock.monotonicMs());
    // A look at a directory is free, and is no request that anybody pays for.
    this.#probe = this.#reachable === null ? new MeteredStore({ inner: held, observers: [this.state], clock }) : metered;
  }

  get description(): string {
    return this.#threaded.description;
  }

  /** Watches the backend from now on. `troubled`: somebody waits for it, though no request does. */
  watch(troubled: () => boolean): void {
    const { state } = this;
    const reachable = this.#reachable;
    this.#watch = new BackendWatch({
      clock: this.#clock,
      state,
      probe: (signal) => this.#probe.head(this.#probeBucket, PROBE_NAME, signal),
      reachable: reachable === null ? null : (signal) => reachable.check(signal),
      wanted: () => state.pending > 0 || troubled(),
    });
    this.#watch.start();
  }

  /** What people must know of the backend now; null: it is well. */
  get problem(): string | null {
    const { condition, message } = this.state.report;
    return condition === 'up' ? null : `the backend is ${condition}${message === null ? '' : `: ${message}`}`;
  }

  announce(metrics: MetricSink): void {
    const { state, usage, prices } = this;
    metrics.gaugeSource('vferry_backend_up', 'Whether the storage backend takes requests: 1, or 0 while it is full, denied or down.', () =>
      state.condition === 'up' || state.condition === 'slow' ? 1 : 0,
    );
    for (const condition of BACKEND_CONDITIONS) {
      metrics.gaugeSource(
        'vferry_backend_state',
        'Condition of the storage backend: 1 for the present one.',
        () => Number(state.condition === condition),
        {
          state: condition,
        },
      );
    }
    metrics.counterSource('vferry_backend_state_changes_total', 'Changes of the condition of the storage backend.', () => state.changes);
    metrics.gaugeSource('vferry_backend_retries_waiting', 'Requests that wait for their next attempt.', () => state.waitingRetries);
    for (const lane of ['reads', 'others'] as const) {
      metrics.gaugeSource(
        'vferry_backend_running',
        'Requests let through to the backend, retries included.',
        () => this.#limited.lanes[lane].running,
        {
          lane,
        },
      );
      metrics.gaugeSource('vferry_backend_running_bytes', 'Their payload.', () => this.#limited.lanes[lane].runningBytes, { lane });
      metrics.gaugeSource('vferry_backend_queued', 'Requests that wait for their turn.', () => this.#limited.lanes[lane].queued, { lane });
    }
    metrics.gaugeSource('vferry_backend_thread_calls', 'Calls at the threads of the store.', () => this.#threaded.load.running, { state: 'running' });
    metrics.gaugeSource('vferry_backend_thread_calls', 'Calls at the threads of the store.', () => this.#threaded.load.queued, { state: 'queued' });
    const series = (): BucketUsage[] => usage.series(this.#clock.monotonicMs());
    metrics.counterSamples('vferry_backend_bucket_requests_total', 'Requests by bucket (a volume has its own) and kind.', () =>
      series().flatMap((row) => Object.entries(row.requests).map(([kind, value]) => ({ labels: { ...bucketLabel(row), kind }, value }))),
    );
    metrics.counterSamples('vferry_backend_bucket_written_bytes_total', 'Bytes of objects written, by bucket.', () =>
      series().map((row) => ({ labels: bucketLabel(row), value: row.writtenBytes })),
    );
    metrics.counterSamples('vferry_backend_bucket_read_bytes_total', 'Bytes read, by bucket.', () =>
      series().map((row) => ({ labels: bucketLabel(row), value: row.readBytes })),
    );
    metrics.counterSource(
      'vferry_backend_cost_total',
      'What requests and traffic cost since the start, by the prices of the settings; without storage.',
      () => requestCost(usage.total, prices),
      { currency: prices.currency },
    );
  }

  /** See ThreadedStore.close. */
  async close(): Promise<{ stuckThreads: number }> {
    this.#watch?.stop();
    this.#cancelRestart();
    return await this.#threaded.close();
  }
}

function bucketLabel(row: BucketUsage): MetricLabels {
  return { bucket: row.bucket ?? 'other' };
}

/** Where a service on the network listens; null for a directory. */
function endpointOf({ store }: HostedStoreConfig): string | null {
  switch (store.kind) {
    case 'directory':
      return null;
    case 'swift':
      return store.storageUrl ?? store.auth.url;
    case 's3':
      return store.endpoint ?? `https://s3.${store.region}.amazonaws.com`;
  }
}
