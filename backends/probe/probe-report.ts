/** What a probe found out about a store (`probe.ts`): for people, for `vpool.json`, and as JSON. */
export interface ProbeReport {
  /** fit-but: it works, with a weakness that the findings name. unfit: a vPool must not be made there. */
  readonly verdict: 'fit' | 'fit-but' | 'unfit';
  readonly findings: readonly ProbeFinding[];
  /** Whether the backend itself keeps two owners of an object apart, or only the registry does. */
  readonly fence: 'backend' | 'registry';
  /** S3: whether `If-None-Match: *` is to be used. */
  readonly conditionalPut: boolean;
  readonly figures: ProbeFigures;
}

export interface ProbeFinding {
  /** unfit: the reason to refuse it. but: a weakness. note: good to know. */
  readonly weight: 'unfit' | 'but' | 'note';
  readonly text: string;
}

/** null: not measured. */
export interface ProbeFigures {
  /** Until a new object could be read; 0: at once. */
  readonly readAfterWriteMs: number | null;
  /** Until a new object was listed. */
  readonly listAfterWriteMs: number | null;
  /** Their clock minus ours, to about a second. */
  readonly clockSkewMs: number | null;
  /** Median of 4 KiB, one after the other. */
  readonly putMs: number | null;
  readonly getMs: number | null;
  /** Several large objects at a time. */
  readonly uploadBytesPerSecond: number | null;
  readonly downloadBytesPerSecond: number | null;
}

const FENCES = {
  backend: 'backend: creating an object only if it is absent is atomic',
  registry: 'registry: the backend cannot keep two owners apart',
} as const;

/** Several lines, each with a line end; the first is the verdict. */
export function probeText(report: ProbeReport): string {
  const reasons = (weight: ProbeFinding['weight']): string[] =>
    report.findings.filter((finding) => finding.weight === weight).map(({ text }) => text);
  const why = reasons(report.verdict === 'unfit' ? 'unfit' : 'but');
  const verdict = { fit: 'fit', 'fit-but': 'fit, but', unfit: 'unfit, because' }[report.verdict];
  const { figures } = report;
  const rows: (readonly [string, string | null])[] = [
    ['fence', report.verdict === 'unfit' ? null : FENCES[report.fence]],
    [
      'latency',
      figures.putMs === null || figures.getMs === null
        ? null
        : `${milliseconds(figures.putMs)} put, ${milliseconds(figures.getMs)} get (4 KiB, median)`,
    ],
    [
      'throughput',
      figures.uploadBytesPerSecond === null || figures.downloadBytesPerSecond === null
        ? null
        : `${perSecond(figures.uploadBytesPerSecond)} up, ${perSecond(figures.downloadBytesPerSecond)} down`,
    ],
    ['visible', figures.readAfterWriteMs === null ? null : `${delay(figures.readAfterWriteMs)} to get, ${delay(figures.listAfterWriteMs)} to list`],
    [
      'clock',
      figures.clockSkewMs === null
        ? null
        : `${Math.abs(Math.round(figures.clockSkewMs / 1000))} s ${figures.clockSkewMs < 0 ? 'behind' : 'ahead of'} this machine's`,
    ],
  ];
  return [
    why.length === 1 ? `${verdict} ${why[0]}` : why.length === 0 ? verdict : `${verdict}:\n${why.map((text) => `  - ${text}`).join('\n')}`,
    ...rows.flatMap(([name, text]) => (text === null ? [] : [`${name.padEnd(12)}${text}`])),
    ...reasons('note').map((text) => `${'note'.padEnd(12)}${text}`),
    '',
  ].join('\n');
}

function milliseconds(ms: number): string {
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

function delay(ms: number | null): string {
  return ms === null ? 'not' : ms === 0 ? 'at once' : `after ${milliseconds(ms)}`;
}

function perSecond(bytes: number): string {
  return `${(bytes / 1e6).toPrecision(3)} MB/s`;
}
