import { STORE_REQUEST_KINDS, type StoreObserver, type StoreOutcome, type StoreRequest, type StoreRequestKind } from './store-observer.ts';

/** What the operator of a store charges, in `currency`; 0: nothing. */
export interface StorePrices {
  readonly currency: string;
  /** PUT, LIST and requests on buckets. */
  readonly putPerThousand: number;
  /** GET and HEAD. */
  readonly getPerThousand: number;
  readonly deletePerThousand: number;
  /** 10^9 bytes read from the store. */
  readonly outPerGigabyte: number;
  /** 10^9 bytes stored for a month. */
  readonly storagePerGigabyteMonth: number;
}

/** Requests of one bucket, or of several together. Failed ones count: most are charged. */
export interface BucketUsage {
  /** null: several buckets together. */
  readonly bucket: string | null;
  readonly requests: Readonly<Partial<Record<StoreRequestKind, number>>>;
  /** Of these, how many failed, were aborted or had no answer in time. */
  readonly failed: number;
  /** Of objects written, as vferry hands them on: before compression. */
  readonly writtenBytes: number;
  readonly readBytes: number;
}

/** What the requests and the traffic of a row cost; storage is not in it. */
export function requestCost(usage: BucketUsage, prices: StorePrices): number {
  let cost = (usage.readBytes / 1e9) * prices.outPerGigabyte;
  for (const [kind, count] of Object.entries(usage.requests)) cost += (count / 1000) * pricePerThousand(kind as StoreRequestKind, prices);
  return cost;
}

function pricePerThousand(kind: StoreRequestKind, prices: StorePrices): number {
  switch (kind) {
    case 'get':
    case 'head':
      return prices.getPerThousand;
    case 'delete':
    case 'delete-many':
    case 'delete-bucket':
      return prices.deletePerThousand;
    default:
      return prices.putPerThousand;
  }
}

const COLUMN_FAILED = STORE_REQUEST_KINDS.length;
const COLUMN_WRITTEN = COLUMN_FAILED + 1;
const COLUMN_READ = COLUMN_FAILED + 2;
const COLUMNS = COLUMN_FAILED + 3;
const ROWS_FIRST = 64;
/** Row of everything whose bucket has none of its own. */
const ROW_OTHER = 0;

export interface StoreUsageSettings {
  /** Buckets with a row of their own; beyond it those with least traffic are added to the row of the others. 12 numbers each. */
  readonly bucketsMax: number;
  /** Buckets with time series of their own: a bound on the labels that a metrics database has to keep. */
  readonly seriesMax: number;
  /** How often a bucket without a series may take the place of one that has less traffic. */
  readonly rankEveryMs: number;
}

const DEFAULTS: StoreUsageSettings = { bucketsMax: 16_384, seriesMax: 500, rankEveryMs: 600_000 };

/** Counters by row, in one typed array: a row is found by its bucket. */
class CounterTable {
  #values = new Float64Array(ROWS_FIRST * COLUMNS);

  /** Makes sure that the row exists. */
  reach(row: number): void {
    if ((row + 1) * COLUMNS <= this.#values.length) return;
    const larger = new Float64Array(Math.max((row + 1) * COLUMNS, this.#values.length * 2));
    larger.set(this.#values);
    this.#values = larger;
  }

  add(row: number, column: number, amount: number): void {
    const at = row * COLUMNS + column;
    this.#values[at] = (this.#values[at] as number) + amount;
  }

  /** Adds a row to another and clears it. */
  fold(from: number, to: number): void {
    for (let column = 0; column < COLUMNS; column += 1) this.add(to, column, this.#values[from * COLUMNS + column] as number);
    this.clear(from);
  }

  clear(row: number): void {
    this.#values.fill(0, row * COLUMNS, (row + 1) * COLUMNS);
  }

  requests(row: number): number {
    let total = 0;
    for (let kind = 0; kind < COLUMN_FAILED; kind += 1) total += this.#values[row * COLUMNS + kind] as number;
    return total;
  }

  usage(row: number, bucket: string | null): BucketUsage {
    const at = row * COLUMNS;
    const requests: Partial<Record<StoreRequestKind, number>> = {};
    for (const [index, kind] of STORE_REQUEST_KINDS.entries()) {
      const count = this.#values[at + index] as number;
      if (count > 0) requests[kind] = count;
    }
    return {
      bucket,
      requests,
      failed: this.#values[at + COLUMN_FAILED] as number,
      writtenBytes: this.#values[at + COLUMN_WRITTEN] as number,
      readBytes: this.#values[at + COLUMN_READ] as number,
    };
  }
}

/**
 * Requests and bytes by bucket since the start: a volume has a bucket of its own, files and namespace share theirs, so this is what each volume
 * costs. Memory is bounded; the total is exact whatever the number of buckets.
 */
export class StoreUsage implements StoreObserver {
  readonly #settings: StoreUsageSettings;
  readonly #table = new CounterTable();
  readonly #rows = new Map<string, number>();
  readonly #freeRows: number[] = [];
  /** What is shown as time series: counted apart, so that none ever jumps when a bucket gets or loses its own. */
  readonly #seriesTable = new CounterTable();
  readonly #series = new Map<string, number>();
  #seriesTotals = new Map<string, number>();
  #rankedAtMs = -Infinity;
  readonly #totals = new CounterTable();

  constructor(settings: Partial<StoreUsageSettings> = {}) {
    this.#settings = { ...DEFAULTS, ...settings };
  }

  requestStarted(_request: StoreRequest): void {}

  requestDone(request: StoreRequest, _outcome: StoreOutcome, payloadBytes: number, _durationMs: number, error: Error | null): void {
    const failed = error === null ? 0 : 1;
    count(this.#totals, 0, request.kind, failed, payloadBytes);
    count(this.#table, this.#rowOf(request.bucket), request.kind, failed, payloadBytes);
    count(this.#seriesTable, this.#seriesOf(request.bucket), request.kind, failed, payloadBytes);
  }

  /** Requests of all kinds and buckets. */
  get requests(): number {
    return this.#totals.requests(0);
  }

  /** Everything together. */
  get total(): BucketUsage {
    return this.#totals.usage(0, null);
  }

  /** The `limit` buckets with the highest `weight`, highest first, and all others in one. */
  top(limit: number, weight: (usage: BucketUsage) => number): { buckets: BucketUsage[]; others: BucketUsage & { readonly bucketCount: number } } {
    const ranked = this.#buckets()
      .map((usage) => ({ usage, weight: weight(usage) }))
      .sort((a, b) => b.weight - a.weight)
      .map(({ usage }) => usage);
    const rest = ranked.slice(limit);
    return { buckets: ranked.slice(0, limit), others: { ...sum([...rest, this.#table.usage(ROW_OTHER, null)]), bucketCount: rest.length } };
  }

  /**
   * What to show as time series: at most `seriesMax` buckets and, as null, the rest. Every counter only grows while it is shown; each request is
   * in exactly one of them. Asked for at a scrape.
   */
  series(nowMs: number): BucketUsage[] {
    this.#rank(nowMs);
    const shown = [...this.#series].map(([bucket, row]) => this.#seriesTable.usage(row, bucket));
    return [...shown, this.#seriesTable.usage(ROW_OTHER, null)];
  }

  #buckets(): BucketUsage[] {
    return [...this.#rows].map(([bucket, row]) => this.#table.usage(row, bucket));
  }

  #rowOf(bucket: string): number {
    const known = this.#rows.get(bucket);
    if (known !== undefined) return known;
    if (this.#rows.size >= this.#settings.bucketsMax) this.#foldLeast();
    const row = this.#freeRows.pop() ?? this.#rows.size + 1;
    this.#table.reach(row);
    this.#rows.set(bucket, row);
    return row;
  }

  /** Makes room: the quarter of the buckets with fewest requests is told together from now on. */
  #foldLeast(): void {
    const byRequests = [...this.#rows].sort(([, a], [, b]) => this.#table.requests(a) - this.#table.requests(b));
    for (const [bucket, row] of byRequests.slice(0, Math.max(1, Math.floor(byRequests.length / 4)))) {
      this.#table.fold(row, ROW_OTHER);
      this.#rows.delete(bucket);
      this.#freeRows.push(row);
    }
  }

  #seriesOf(bucket: string): number {
    const known = this.#series.get(bucket);
    if (known !== undefined) return known;
    if (this.#series.size >= this.#settings.seriesMax) return ROW_OTHER;
    const row = this.#series.size + 1;
    this.#seriesTable.reach(row);
    this.#series.set(bucket, row);
    return row;
  }

  /** Buckets without a series that had more requests since the last ranking than some that have one take their places. */
  #rank(nowMs: number): void {
    if (this.#rows.size <= this.#series.size || nowMs - this.#rankedAtMs < this.#settings.rankEveryMs) return;
    this.#rankedAtMs = nowMs;
    const former = this.#seriesTotals;
    const totals = new Map([...this.#rows].map(([bucket, row]) => [bucket, this.#table.requests(row)]));
    this.#seriesTotals = totals;
    const recent = (bucket: string): number => Math.max(0, (totals.get(bucket) ?? 0) - (former.get(bucket) ?? 0));
    const outside = [...this.#rows.keys()].filter((bucket) => !this.#series.has(bucket)).sort((a, b) => recent(b) - recent(a));
    const inside = [...this.#series.keys()].sort((a, b) => recent(a) - recent(b));
    for (const [index, bucket] of outside.entries()) {
      const least = inside[index];
      if (least === undefined || recent(least) >= recent(bucket)) return;
      const row = this.#series.get(least) as number;
      this.#series.delete(least);
      this.#seriesTable.clear(row);
      this.#series.set(bucket, row);
    }
  }
}

function count(table: CounterTable, row: number, kind: StoreRequestKind, failed: number, payloadBytes: number): void {
  table.add(row, STORE_REQUEST_KINDS.indexOf(kind), 1);
  if (failed > 0) table.add(row, COLUMN_FAILED, failed);
  if (payloadBytes > 0) table.add(row, kind === 'put' ? COLUMN_WRITTEN : COLUMN_READ, payloadBytes);
}

function sum(rows: readonly BucketUsage[]): BucketUsage {
  const requests: Partial<Record<StoreRequestKind, number>> = {};
  let [failed, writtenBytes, readBytes] = [0, 0, 0];
  for (const row of rows) {
    for (const kind of STORE_REQUEST_KINDS) {
      const own = row.requests[kind];
      if (own !== undefined) requests[kind] = (requests[kind] ?? 0) + own;
    }
    failed += row.failed;
    writtenBytes += row.writtenBytes;
    readBytes += row.readBytes;
  }
  return { bucket: null, requests, failed, writtenBytes, readBytes };
}
