/** NFS calls by procedure and status, latencies, bytes and calls in flight: a few array additions per call. */
import { Histogram } from '../core/histogram.ts';
import { Status } from '../nfsd/file-system.ts';
import type { NfsObserver } from '../nfsd/observer.ts';
import { type MetricRegistry, type Sample, histogramSamples } from './metric-registry.ts';

/** RFC 1813 §3.3, by number. */
const PROCEDURES = [
  'null',
  'getattr',
  'setattr',
  'lookup',
  'access',
  'readlink',
  'read',
  'write',
  'create',
  'mkdir',
  'symlink',
  'mknod',
  'remove',
  'rmdir',
  'rename',
  'link',
  'readdir',
  'readdirplus',
  'fsstat',
  'fsinfo',
  'pathconf',
  'commit',
] as const;
/** Row for numbers that are no procedure: a client can send any. */
const UNKNOWN_PROCEDURE = PROCEDURES.length;

/** Columns of a row: refused, small statuses, statuses from 10001, and whatever else. */
const SMALL_STATUSES = 100;
const LARGE_STATUS_FIRST = 10_000;
const LARGE_STATUSES = 20;
const COLUMN_OTHER = 1 + SMALL_STATUSES + LARGE_STATUSES;
const COLUMNS = COLUMN_OTHER + 1;

const STATUS_NAMES = new Map<number, string>(Object.entries(Status).map(([name, status]) => [columnOf(status), name.toLowerCase()]));
STATUS_NAMES.set(0, 'refused');

const OPERATIONS = 'vferry_nfs_operations_total';
const LATENCY = 'vferry_nfs_operation_seconds';

export class NfsMetrics implements NfsObserver {
  readonly #counts = new Float64Array((PROCEDURES.length + 1) * COLUMNS);
  readonly #latencies: readonly Histogram[] = Array.from({ length: PROCEDURES.length + 1 }, () => new Histogram());
  #inFlight = 0;
  #bytesRead = 0;
  #bytesWritten = 0;

  /** Announces the metrics at `registry`; only procedures and statuses that occurred are exported. */
  constructor(registry: MetricRegistry) {
    registry.addSource('counter', OPERATIONS, 'NFS calls finished, by procedure and NFS status (refused: at the RPC level).', '', () =>
      this.#operations(),
    );
    registry.addSource('histogram', LATENCY, 'Time from the call being decoded to its reply being queued, by procedure.', '', () => this.#latency());
    registry.gaugeSource('vferry_nfs_operations_in_flight', 'NFS calls that are being worked on.', () => this.#inFlight);
    registry.counterSource('vferry_nfs_read_bytes_total', 'Bytes of data sent in answers to READ.', () => this.#bytesRead);
    registry.counterSource('vferry_nfs_written_bytes_total', 'Bytes of data received in WRITE.', () => this.#bytesWritten);
  }

  started(_procedure: number): void {
    this.#inFlight += 1;
  }

  finished(procedure: number, status: number, latencyMs: number, bytesRead: number, bytesWritten: number): void {
    this.#inFlight -= 1;
    const row = procedure < PROCEDURES.length ? procedure : UNKNOWN_PROCEDURE;
    const index = row * COLUMNS + columnOf(status);
    this.#counts[index] = (this.#counts[index] ?? 0) + 1;
    this.#latencies[row]?.observe(latencyMs);
    this.#bytesRead += bytesRead;
    this.#bytesWritten += bytesWritten;
  }

  *#operations(): Generator<Sample> {
    for (const [index, value] of this.#counts.entries()) {
      if (value === 0) continue;
      yield { labels: { procedure: procedureName(Math.floor(index / COLUMNS)), status: STATUS_NAMES.get(index % COLUMNS) ?? 'other' }, value };
    }
  }

  *#latency(): Generator<Sample> {
    for (const [row, histogram] of this.#latencies.entries()) {
      if (histogram.count > 0) yield* histogramSamples(LATENCY, { procedure: procedureName(row) }, histogram);
    }
  }
}

function columnOf(status: number): number {
  if (status >= -1 && status < SMALL_STATUSES) return status + 1;
  const large = status - LARGE_STATUS_FIRST;
  return large >= 0 && large < LARGE_STATUSES ? 1 + SMALL_STATUSES + large : COLUMN_OTHER;
}

function procedureName(row: number): string {
  return PROCEDURES[row] ?? 'unknown';
}
