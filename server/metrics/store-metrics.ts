/** Requests to the Storage Backend by kind and outcome, bytes, latencies, retries. A request is rare and slow, so Maps will do. */
import {
  STORE_REQUEST_KINDS,
  type RetryObserver,
  type StoreObserver,
  type StoreOutcome,
  type StoreRequest,
  type StoreRequestKind,
} from '../../backends/store-observer.ts';
import { Histogram } from '../core/histogram.ts';
import { type MetricRegistry, type Sample, histogramSamples } from './metric-registry.ts';

const REQUESTS = 'vferry_backend_requests_total';
const LATENCY = 'vferry_backend_request_seconds';

export class StoreMetrics implements StoreObserver, RetryObserver {
  readonly #counts = new Map<StoreRequestKind, Map<StoreOutcome, number>>(STORE_REQUEST_KINDS.map((kind) => [kind, new Map()]));
  readonly #latencies = new Map<StoreRequestKind, Histogram>(STORE_REQUEST_KINDS.map((kind) => [kind, new Histogram()]));
  #inFlight = 0;
  #bytesPut = 0;
  #bytesGot = 0;
  #retries = 0;

  /** Announces the metrics at `registry`; only kinds and outcomes that occurred are exported. */
  constructor(registry: MetricRegistry) {
    registry.addSource('counter', REQUESTS, 'Requests to the storage backend, by kind and outcome.', '', () => this.#requests());
    registry.addSource('histogram', LATENCY, 'Time of requests to the storage backend, by kind.', '', () => this.#latency());
    registry.gaugeSource('vferry_backend_requests_in_flight', 'Requests to the storage backend under way.', () => this.#inFlight);
    registry.counterSource('vferry_backend_written_bytes_total', 'Bytes of objects written to the storage backend.', () => this.#bytesPut);
    registry.counterSource('vferry_backend_read_bytes_total', 'Bytes read from the storage backend.', () => this.#bytesGot);
    registry.counterSource('vferry_backend_retries_total', 'Attempts that failed and were made again.', () => this.#retries);
  }

  requestStarted(_request: StoreRequest): void {
    this.#inFlight += 1;
  }

  requestDone({ kind }: StoreRequest, outcome: StoreOutcome, payloadBytes: number, durationMs: number): void {
    this.#inFlight -= 1;
    const outcomes = this.#counts.get(kind);
    outcomes?.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    this.#latencies.get(kind)?.observe(durationMs);
    if (kind === 'put') this.#bytesPut += payloadBytes;
    else this.#bytesGot += payloadBytes;
  }

  willRetry(_what: string, _attempt: number, _delayMs: number, _error: Error): void {
    this.#retries += 1;
  }

  *#requests(): Generator<Sample> {
    for (const [kind, outcomes] of this.#counts) {
      for (const [outcome, value] of outcomes) yield { labels: { kind, outcome }, value };
    }
  }

  *#latency(): Generator<Sample> {
    for (const [kind, histogram] of this.#latencies) if (histogram.count > 0) yield* histogramSamples(LATENCY, { kind }, histogram);
  }
}
