/**
 * prom-client behind the MetricSink port. Values stay in the parts' own fields and Float64Arrays; they are read at scrape time.
 * prom-client's own counters and histograms cost 70 to 500 ns per call (toolchain.md 4), which the NFS path cannot pay.
 */
import { type Metric, Registry, collectDefaultMetrics } from 'prom-client';

import { assert } from '../core/assert.ts';
import { Histogram } from '../core/histogram.ts';
import type { MetricLabels, MetricSample, MetricSink } from '../core/metric-sink.ts';

/** Exported buckets: 2^4 to 2^26 µs (16 µs to 67 s), one an octave. */
const BUCKET_EXPONENT_FIRST = 4;
const BUCKET_EXPONENT_LAST = 26;

/** One line of the exposition. */
export interface Sample extends MetricSample {
  /** Name of the line when it is not the family's: `x_bucket`, `x_sum`, `x_count`. */
  readonly metricName?: string;
}

type Kind = 'counter' | 'gauge' | 'histogram';

/** Lines of one metric name; sources are added, never removed: parts live as long as the process. */
interface Family {
  readonly help: string;
  readonly kind: Kind;
  /** By identity. */
  readonly sources: Map<string, () => Iterable<Sample>>;
}

export class MetricRegistry implements MetricSink {
  readonly #registry = new Registry();
  readonly #families = new Map<string, Family>();

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** The exposition in Prometheus text format. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }

  /** Adds what prom-client knows of the process: event loop delay, RSS, heap, garbage collection, CPU, file descriptors. */
  addProcessMetrics(): void {
    collectDefaultMetrics({ register: this.#registry });
  }

  histogram(name: string, help: string, labels: MetricLabels = {}): Histogram {
    assert(name.endsWith('_seconds'), `${name}: histograms are exported in seconds`);
    const histogram = new Histogram();
    this.addSource('histogram', name, help, JSON.stringify(labels), () => histogramSamples(name, labels, histogram));
    return histogram;
  }

  gaugeSource(name: string, help: string, read: () => number, labels: MetricLabels = {}): void {
    this.addSource('gauge', name, help, JSON.stringify(labels), () => [{ labels, value: read() }]);
  }

  counterSource(name: string, help: string, read: () => number, labels: MetricLabels = {}): void {
    assert(name.endsWith('_total'), `${name}: names of counters end in _total`);
    this.addSource('counter', name, help, JSON.stringify(labels), () => [{ labels, value: read() }]);
  }

  counterSamples(name: string, help: string, read: () => Iterable<MetricSample>): void {
    assert(name.endsWith('_total'), `${name}: names of counters end in _total`);
    this.addSource('counter', name, help, '', read);
  }

  /** For recorders with many label sets of their own. `identity` tells sources of one name apart. */
  addSource(kind: Kind, name: string, help: string, identity: string, source: () => Iterable<Sample>): void {
    assert(/^[a-z][a-z0-9_]*$/.test(name), `${name}: not a metric name`);
    let family = this.#families.get(name);
    if (family === undefined) {
      family = { help, kind, sources: new Map() };
      this.#families.set(name, family);
      this.#registry.registerMetric(exported(name, family));
    }
    assert(family.kind === kind, `${name} is a ${family.kind}`);
    assert(!family.sources.has(identity), `metric ${name} ${identity} is announced twice`);
    family.sources.set(identity, source);
  }
}

/** What prom-client asks of a metric at a scrape is its `get`; the types want its classes. */
function exported(name: string, family: Family): Metric {
  const metric = {
    name,
    help: family.help,
    type: family.kind,
    aggregator: 'sum',
    reset: () => undefined,
    get: () => ({
      name,
      help: family.help,
      type: family.kind,
      aggregator: 'sum',
      values: [...family.sources.values()].flatMap((source) => [...source()]),
    }),
  };
  return metric as unknown as Metric;
}

/** Cumulative buckets, sum and count of a Histogram, in seconds. */
export function* histogramSamples(name: string, labels: MetricLabels, histogram: Histogram): Generator<Sample> {
  const count = histogram.count;
  for (let exponent = BUCKET_EXPONENT_FIRST; exponent <= BUCKET_EXPONENT_LAST; exponent++) {
    yield { metricName: `${name}_bucket`, labels: { ...labels, le: String(2 ** exponent / 1e6) }, value: histogram.countUpToMicros(exponent) };
  }
  yield { metricName: `${name}_bucket`, labels: { ...labels, le: '+Inf' }, value: count };
  yield { metricName: `${name}_sum`, labels, value: histogram.sumMs / 1000 };
  yield { metricName: `${name}_count`, labels, value: count };
}
