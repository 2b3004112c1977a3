/** Forwarded operations, moves, registry round trips, peers, lease: array additions when something happens, the rest is read at a scrape. */
import type { ClusterStatus } from '../cluster-port.ts';
import { assert } from '../core/assert.ts';
import {
  FORWARD_KINDS,
  FORWARD_OUTCOMES,
  REGISTRY_CALLS,
  REGISTRY_OUTCOMES,
  type ClusterObserver,
  type ForwardDirection,
  type ForwardKind,
  type ForwardOutcome,
  type MoveDirection,
  type RegistryCall,
  type RegistryOutcome,
} from '../core/cluster-observer.ts';
import { Histogram } from '../core/histogram.ts';
import type { MetricSample } from '../core/metric-sink.ts';
import { type MetricRegistry, type Sample, histogramSamples } from './metric-registry.ts';

const DIRECTIONS: readonly ForwardDirection[] = ['sent', 'received'];
const MOVE_DIRECTIONS: readonly MoveDirection[] = ['given', 'received'];
/** Words of aborted moves that are told apart; later ones are `other`. */
const ABORT_REASONS_MAX = 64;

const FORWARD_LATENCY = 'vferry_forward_seconds';
const REGISTRY_LATENCY = 'vferry_registry_call_seconds';
const MOVE_DURATION = 'vferry_move_seconds';

interface MoveCounts {
  started: number;
  done: number;
  copiedBytes: number;
  readonly aborted: Map<string, number>;
  readonly duration: Histogram;
}

export class ClusterMetrics implements ClusterObserver {
  readonly #forwarded = new Float64Array(FORWARD_KINDS.length * DIRECTIONS.length * FORWARD_OUTCOMES.length);
  readonly #forwardedBytes = new Float64Array(DIRECTIONS.length);
  readonly #forwardLatencies = Array.from({ length: FORWARD_KINDS.length * DIRECTIONS.length }, () => new Histogram());
  readonly #moves: Readonly<Record<MoveDirection, MoveCounts>> = { given: newMoveCounts(), received: newMoveCounts() };
  readonly #stall: Histogram;
  readonly #registryCalls = new Float64Array(REGISTRY_CALLS.length * REGISTRY_OUTCOMES.length);
  readonly #registryLatencies = REGISTRY_CALLS.map(() => new Histogram());
  readonly #recovery: Histogram;
  #slowedMs = 0;
  readonly #takeovers = { forced: 0, clean: 0 };

  /** Announces the metrics at `registry`. `status`: null while there is no cluster; then only what happened is exported. */
  constructor(registry: MetricRegistry, status: () => ClusterStatus | null) {
    registry.counterSamples('vferry_forwarded_operations_total', 'Operations on objects of another router, by kind, direction, outcome.', () =>
      this.#forwardedSamples(),
    );
    registry.counterSamples('vferry_forwarded_bytes_total', 'Data of forwarded READ and WRITE, by direction.', () => this.#byteSamples());
    registry.addSource('histogram', FORWARD_LATENCY, 'Time of a forwarded operation, by kind and direction.', '', () => this.#forwardSeconds());
    registry.counterSamples('vferry_moves_started_total', 'Moves begun, by direction.', () => this.#moveSamples(({ started }) => started));
    registry.counterSamples('vferry_moves_done_total', 'Moves after which the owner had changed, by direction.', () =>
      this.#moveSamples(({ done }) => done),
    );
    registry.counterSamples('vferry_moves_aborted_total', 'Moves given up, by direction and reason.', () => this.#abortSamples());
    registry.counterSamples('vferry_moved_bytes_total', 'Log copied by moves that were done, by direction.', () =>
      this.#moveSamples(({ copiedBytes }) => copiedBytes),
    );
    registry.addSource('gauge', 'vferry_moves_running', 'Moves under way, by direction.', '', () => this.#movesRunning());
    registry.addSource('histogram', MOVE_DURATION, 'Time of a move that was done, by direction.', '', () => this.#moveSeconds());
    this.#stall = registry.histogram('vferry_move_stall_seconds', 'How long I/O was held for the change of owner, of moves that this router gave.');
    registry.counterSource(
      'vferry_move_slowed_seconds_total',
      'How long writers were slowed down because they outran the copy of their object.',
      () => this.#slowedMs / 1000,
    );
    registry.counterSamples('vferry_takeovers_total', 'Objects of dead routers claimed; forced: something may have been given up.', () =>
      this.#takeoverSamples(),
    );
    registry.counterSamples('vferry_registry_calls_total', 'Attempts at the shared registry, by call and outcome.', () => this.#registrySamples());
    registry.addSource('histogram', REGISTRY_LATENCY, 'Time of an attempt at the shared registry, by call.', '', () => this.#registrySeconds());
    this.#recovery = registry.histogram('vferry_registry_recovery_seconds', 'Rounds that put back what the registry had forgotten.');
    watch(registry, status);
  }

  forwarded(kind: ForwardKind, direction: ForwardDirection, outcome: ForwardOutcome, latencyMs: number, payloadBytes: number): void {
    const way = direction === 'sent' ? 0 : 1;
    const row = FORWARD_KINDS.indexOf(kind) * DIRECTIONS.length + way;
    const index = row * FORWARD_OUTCOMES.length + FORWARD_OUTCOMES.indexOf(outcome);
    this.#forwarded[index] = (this.#forwarded[index] ?? 0) + 1;
    this.#forwardedBytes[way] = (this.#forwardedBytes[way] ?? 0) + payloadBytes;
    this.#forwardLatencies[row]?.observe(latencyMs);
  }

  moveStarted(direction: MoveDirection): void {
    this.#moves[direction].started += 1;
  }

  moveDone(direction: MoveDirection, durationMs: number, heldMs: number | null, copiedBytes: number): void {
    const counts = this.#moves[direction];
    counts.done += 1;
    counts.copiedBytes += copiedBytes;
    counts.duration.observe(durationMs);
    if (heldMs !== null) this.#stall.observe(heldMs);
  }

  writersSlowed(slowedMs: number): void {
    this.#slowedMs += slowedMs;
  }

  moveAborted(direction: MoveDirection, reason: string): void {
    const { aborted } = this.#moves[direction];
    const word = aborted.has(reason) || aborted.size < ABORT_REASONS_MAX ? reason : 'other';
    aborted.set(word, (aborted.get(word) ?? 0) + 1);
  }

  takenOver(forced: boolean): void {
    this.#takeovers[forced ? 'forced' : 'clean'] += 1;
  }

  roundTrip(call: RegistryCall, outcome: RegistryOutcome, durationMs: number): void {
    const row = REGISTRY_CALLS.indexOf(call);
    const index = row * REGISTRY_OUTCOMES.length + REGISTRY_OUTCOMES.indexOf(outcome);
    this.#registryCalls[index] = (this.#registryCalls[index] ?? 0) + 1;
    this.#registryLatencies[row]?.observe(durationMs);
  }

  recoveryRound(durationMs: number): void {
    this.#recovery.observe(durationMs);
  }

  *#forwardedSamples(): Generator<MetricSample> {
    for (const [index, value] of this.#forwarded.entries()) {
      if (value === 0) continue;
      const row = Math.floor(index / FORWARD_OUTCOMES.length);
      yield { labels: { ...forwardLabels(row), outcome: nth(FORWARD_OUTCOMES, index % FORWARD_OUTCOMES.length) }, value };
    }
  }

  *#forwardSeconds(): Generator<Sample> {
    for (const [row, histogram] of this.#forwardLatencies.entries()) {
      if (histogram.count > 0) yield* histogramSamples(FORWARD_LATENCY, forwardLabels(row), histogram);
    }
  }

  *#byteSamples(): Generator<MetricSample> {
    for (const [way, value] of this.#forwardedBytes.entries()) if (value > 0) yield { labels: { direction: nth(DIRECTIONS, way) }, value };
  }

  *#moveSamples(read: (counts: MoveCounts) => number): Generator<MetricSample> {
    for (const direction of MOVE_DIRECTIONS) {
      const counts = this.#moves[direction];
      if (counts.started > 0) yield { labels: { direction }, value: read(counts) };
    }
  }

  *#abortSamples(): Generator<MetricSample> {
    for (const direction of MOVE_DIRECTIONS) {
      for (const [reason, value] of this.#moves[direction].aborted) yield { labels: { direction, reason }, value };
    }
  }

  *#movesRunning(): Generator<Sample> {
    for (const direction of MOVE_DIRECTIONS) {
      const { started, done, aborted } = this.#moves[direction];
      let ended = done;
      for (const count of aborted.values()) ended += count;
      yield { labels: { direction }, value: started - ended };
    }
  }

  *#moveSeconds(): Generator<Sample> {
    for (const direction of MOVE_DIRECTIONS) {
      const { duration } = this.#moves[direction];
      if (duration.count > 0) yield* histogramSamples(MOVE_DURATION, { direction }, duration);
    }
  }

  *#takeoverSamples(): Generator<MetricSample> {
    for (const [kind, value] of Object.entries(this.#takeovers)) if (value > 0) yield { labels: { forced: String(kind === 'forced') }, value };
  }

  *#registrySamples(): Generator<MetricSample> {
    for (const [index, value] of this.#registryCalls.entries()) {
      if (value === 0) continue;
      const labels = {
        call: nth(REGISTRY_CALLS, Math.floor(index / REGISTRY_OUTCOMES.length)),
        outcome: nth(REGISTRY_OUTCOMES, index % REGISTRY_OUTCOMES.length),
      };
      yield { labels, value };
    }
  }

  *#registrySeconds(): Generator<Sample> {
    for (const [row, histogram] of this.#registryLatencies.entries()) {
      if (histogram.count > 0) yield* histogramSamples(REGISTRY_LATENCY, { call: nth(REGISTRY_CALLS, row) }, histogram);
    }
  }
}

/** What the router knows of its cluster now. */
function watch(registry: MetricRegistry, status: () => ClusterStatus | null): void {
  const gauge = (name: string, help: string, read: (now: ClusterStatus) => Iterable<Sample>): void => {
    registry.addSource('gauge', name, help, '', () => {
      const now = status();
      return now === null ? [] : read(now);
    });
  };
  gauge('vferry_lease_left_seconds', 'Until the lease lapses unless it is renewed.', (now) => [{ labels: {}, value: now.leaseLeftMs / 1000 }]);
  gauge('vferry_registry_generation', 'Generation of the shared registry; grows when it forgot something.', (now) => [
    { labels: {}, value: now.generation },
  ]);
  gauge('vferry_registry_up', '1 while the shared registry answers.', (now) => [{ labels: {}, value: now.registryProblem === null ? 1 : 0 }]);
  gauge('vferry_owned_objects', 'Objects open on this router, by protection.', (now) =>
    Object.entries(now.owned).map(([protection, value]) => ({ labels: { protection }, value })),
  );
  gauge('vferry_recovering_objects', 'Objects of this router that wait for something before they are served.', (now) => [
    { labels: {}, value: now.recovering },
  ]);
  gauge('vferry_drain_objects_left', 'Objects that a drain still has to move; 0 without one.', (now) => [
    { labels: {}, value: now.drain.total - now.drain.done },
  ]);
  gauge('vferry_routers', 'Routers of the cluster as this one sees them, by state.', (now) => {
    const byState = new Map<string, number>();
    for (const { state } of now.routers) byState.set(state, (byState.get(state) ?? 0) + 1);
    return [...byState].map(([state, value]) => ({ labels: { state }, value }));
  });
  gauge('vferry_peer_connected', '1 while there is a connection to the other router.', (now) =>
    now.routers.flatMap(({ id, connection }) => (connection === null ? [] : [{ labels: { router: id }, value: connection.connected ? 1 : 0 }])),
  );
  gauge('vferry_peer_round_trip_seconds', 'Last measured round trip to the other router.', (now) =>
    now.routers.flatMap(({ id, connection }) =>
      connection === null || connection.roundTripMs === null ? [] : [{ labels: { router: id }, value: connection.roundTripMs / 1000 }],
    ),
  );
  gauge('vferry_certificate_end_timestamp_seconds', 'When the certificate of this router ends (Unix time).', (now) =>
    now.certificateEndsAtMs === null ? [] : [{ labels: {}, value: now.certificateEndsAtMs / 1000 }],
  );
}

function newMoveCounts(): MoveCounts {
  return { started: 0, done: 0, copiedBytes: 0, aborted: new Map(), duration: new Histogram() };
}

function forwardLabels(row: number): { kind: string; direction: string } {
  return { kind: nth(FORWARD_KINDS, Math.floor(row / DIRECTIONS.length)), direction: nth(DIRECTIONS, row % DIRECTIONS.length) };
}

function nth<T>(list: readonly T[], index: number): T {
  const item = list[index];
  assert(item !== undefined, `no element ${index}`);
  return item;
}
