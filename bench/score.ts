/** From single runs to the numbers of a case, and from those to the table. */
import type { BenchCase } from './cases.ts';
import { LatencyHistogram } from './latency-histogram.ts';
import type { LoadResult } from './nfs-load.ts';

/** One server in one case, over all rounds. */
export interface Score {
  /** Median of the rounds. */
  readonly operationsPerSecond: number;
  readonly megabytesPerSecond: number;
  /** Over all operations of all rounds. */
  readonly p50Us: number;
  readonly p99Us: number;
  readonly maxUs: number;
  /** The generator's own CPU, in percent of one core. */
  readonly generatorPercent: number;
  /** Operations per second of the slowest and the fastest round. */
  readonly spread: readonly [number, number];
}

export interface CaseScore {
  readonly bench: BenchCase;
  readonly vferry: Score | null;
  readonly ganesha: Score | null;
  /** The generator against the bare record loop. */
  readonly ceiling: Score;
  /** A server that was still busy with earlier work when a round began. */
  readonly unsettledRounds: number;
  /** CPU that neither the servers nor the generator used, in percent of one core: kernel threads of the disk, and whatever else runs here. */
  readonly foreignPercent: number;
}

export function scoreOf(runs: readonly LoadResult[]): Score {
  const histogram = new LatencyHistogram();
  for (const run of runs) histogram.add(new LatencyHistogram(run.latencyCounts, run.latencyMaxUs));
  const rates = runs.map((run) => (run.operations / run.elapsedMs) * 1000);
  return {
    operationsPerSecond: median(rates),
    megabytesPerSecond: median(runs.map((run) => run.payloadBytes / run.elapsedMs / 1000)),
    p50Us: histogram.quantileUs(0.5),
    p99Us: histogram.quantileUs(0.99),
    maxUs: histogram.maxUs,
    spread: [Math.min(...rates), Math.max(...rates)],
    generatorPercent: median(runs.map((run) => (run.cpuMs / run.elapsedMs) * 100)),
  };
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return 0;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export interface Verdict {
  readonly ratio: number | null;
  /** vferry's p99 over Ganesha's. */
  readonly p99Ratio: number | null;
  /** Goals that were missed, in words; empty when all are met or none is set. */
  readonly missed: readonly string[];
}

export function judge(score: CaseScore): Verdict {
  const { bench, vferry, ganesha } = score;
  if (vferry === null || ganesha === null) return { ratio: null, p99Ratio: null, missed: [] };
  const ratio = vferry.operationsPerSecond / ganesha.operationsPerSecond;
  const p99Ratio = vferry.p99Us / ganesha.p99Us;
  const missed: string[] = [];
  if (bench.goal !== null && ratio < bench.goal) missed.push(`ratio ${ratio.toFixed(2)} < ${bench.goal}`);
  if (bench.work.outstanding === 32 && p99Ratio > 1) missed.push(`p99 ${p99Ratio.toFixed(2)} times Ganesha's`);
  return { ratio, p99Ratio, missed };
}

/** The generator bounds what was measured when it would hardly be faster with nothing behind it. */
export function isGeneratorTooSlow(score: CaseScore): boolean {
  const best = Math.max(score.vferry?.operationsPerSecond ?? 0, score.ganesha?.operationsPerSecond ?? 0);
  return score.ceiling.operationsPerSecond < 1.15 * best;
}

const COLUMNS = [
  'case',
  'vferry op/s',
  'Ganesha op/s',
  'ratio',
  'goal',
  'MB/s',
  'p50 us',
  'p99 us',
  'max ms',
  'p99 ratio',
  'ceiling op/s',
  'met',
] as const;

/** Markdown table; pairs are vferry / Ganesha. */
export function table(scores: readonly CaseScore[]): string {
  const lines = [`| ${COLUMNS.join(' | ')} |`, `|---|${'--:|'.repeat(COLUMNS.length - 2)}---|`];
  for (const score of scores) lines.push(`| ${cells(score).join(' | ')} |`);
  return lines.join('\n');
}

/** The same, one case, for a terminal. */
export function summaryLine(score: CaseScore): string {
  const [title, ours, theirs, ratio, goal, megabytes, p50, p99, max, , ceiling, met] = cells(score);
  return (
    `${title!.padEnd(40)} ${ours!.padStart(8)} ${theirs!.padStart(8)} op/s  x${ratio!.padStart(5)} (${goal}) ${megabytes!.padStart(11)} MB/s  ` +
    `p50 ${p50} p99 ${p99} us max ${max} ms  ceiling ${ceiling}  generator ${generatorPercents(score)} %, others ${score.foreignPercent.toFixed(0)} %, rounds ${spreads(score)}  ${met}${score.unsettledRounds > 0 ? `  (${score.unsettledRounds} rounds began beside background work)` : ''}`
  );
}

function spreads(score: CaseScore): string {
  return [score.vferry, score.ganesha].map((one) => (one === null ? '-' : one.spread.map((rate) => rate.toFixed(0)).join('-'))).join(' / ');
}

function generatorPercents(score: CaseScore): string {
  return [score.vferry, score.ganesha, score.ceiling].map((one) => (one === null ? '-' : one.generatorPercent.toFixed(0))).join('/');
}

function cells(score: CaseScore): string[] {
  const { bench, vferry, ganesha, ceiling } = score;
  const verdict = judge(score);
  const pair = (pick: (one: Score) => string): string => [vferry, ganesha].map((one) => (one === null ? '-' : pick(one))).join(' / ');
  const rate = (one: Score | null): string => (one === null ? '-' : one.operationsPerSecond.toFixed(0));
  const isGoal = bench.goal !== null || bench.work.outstanding === 32;
  let met = verdict.missed.join('; ');
  if (met === '') met = isGoal && verdict.ratio !== null ? 'yes' : '';
  if (isGeneratorTooSlow(score)) met += ' (generator-bound)';
  return [
    bench.title,
    rate(vferry),
    rate(ganesha),
    verdict.ratio?.toFixed(2) ?? '-',
    bench.goal === null ? '-' : String(bench.goal),
    bench.work.ioBytes === 0 ? '-' : pair((one) => one.megabytesPerSecond.toFixed(0)),
    pair((one) => one.p50Us.toFixed(0)),
    pair((one) => one.p99Us.toFixed(0)),
    pair((one) => (one.maxUs / 1000).toFixed(1)),
    verdict.p99Ratio?.toFixed(2) ?? '-',
    rate(ceiling),
    met.trim(),
  ];
}
