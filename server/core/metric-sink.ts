/**
 * Where parts of the router announce their numbers; `server/metrics/` exports them to Prometheus.
 *
 * Sources are read when somebody scrapes, never pushed: a part keeps plain number fields and gives a callback that reads them, so a
 * metric costs the hot path nothing but its own addition. Callbacks are synchronous, cheap, and do no I/O. Names follow Prometheus:
 * snake case, unit last, `vferry_` in front. Asking for the same name and labels twice is a bug (assertion).
 */
import type { Histogram } from './histogram.ts';

export type MetricLabels = Readonly<Record<string, string>>;

/** One number of a metric that has many label sets, which come and go. */
export interface MetricSample {
  readonly labels: MetricLabels;
  readonly value: number;
}

export interface MetricSink {
  /** A histogram to observe durations in; exported in seconds, so `name` ends in `_seconds`. */
  histogram(name: string, help: string, labels?: MetricLabels): Histogram;
  /** A number that goes up and down: bytes in use, queue length. */
  gaugeSource(name: string, help: string, read: () => number, labels?: MetricLabels): void;
  /** A number that only grows while the process lives; `name` ends in `_total`. */
  counterSource(name: string, help: string, read: () => number, labels?: MetricLabels): void;
  /** Like `counterSource`, for as many label sets as `read` returns; the caller bounds them. */
  counterSamples(name: string, help: string, read: () => Iterable<MetricSample>): void;
}
