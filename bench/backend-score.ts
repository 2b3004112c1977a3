/** What the benchmark of Storage Backends measures of one of them, and how it is judged and shown. */

/** What the router asked of the backend between two moments. */
export interface BackendTraffic {
  readonly puts: number;
  readonly gets: number;
  readonly heads: number;
  /** LIST, DELETE and requests on buckets. */
  readonly others: number;
  readonly writtenBytes: number;
  readonly readBytes: number;
}

/** A run of writes, from the first of them until all of it was on the backend. */
export interface WriteScore {
  readonly guestBytes: number;
  readonly operationsPerSecond: number;
  readonly megabytesPerSecond: number;
  /** From the last acknowledgement until nothing was dirty. */
  readonly drainMs: number;
  /** The router's count, before compression and encryption. */
  readonly traffic: BackendTraffic;
  /** What was added to the store, seen past the router. */
  readonly storedBytes: number;
}

export interface SequentialReadScore {
  /** Medians of the rounds. */
  readonly megabytesPerSecond: number;
  readonly plainMegabytesPerSecond: number;
  readonly guestBytes: number;
  readonly traffic: BackendTraffic;
}

export interface RandomReadScore {
  readonly operations: number;
  readonly operationsPerSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly traffic: BackendTraffic;
}

/** Latencies in us; null where no upload could be caught. */
export interface UploadEffect {
  readonly writeP99Us: number;
  readonly writeP99UploadingUs: number | null;
  readonly readP99Us: number;
  readonly readP99UploadingUs: number | null;
  /** How fast the backend took it meanwhile. */
  readonly uploadMegabytesPerSecond: number | null;
}

export interface BackendScore {
  readonly name: string;
  readonly sequentialWrite: WriteScore;
  readonly sequentialRead: SequentialReadScore;
  readonly randomRead: RandomReadScore;
  readonly randomWrite: WriteScore;
  readonly uploadEffect: UploadEffect;
}

export const GOALS = {
  writeAmplification: 1.05,
  putsPerGibibyte: 270,
  bytesPerColdRead: 65_536,
  shareOfPlainDownload: 0.8,
  p99DuringUpload: 2,
} as const;

function amplification(score: WriteScore): number {
  return score.storedBytes / score.guestBytes;
}

function putsPerGibibyte(score: WriteScore): number {
  return score.traffic.puts / (score.guestBytes / 2 ** 30);
}

function bytesPerColdRead(score: RandomReadScore): number {
  return score.traffic.readBytes / score.operations;
}

interface Row {
  readonly what: string;
  readonly goal: string;
  /** Text and, where there is a goal, whether it is met. */
  readonly of: (score: BackendScore) => { readonly text: string; readonly met?: boolean };
}

const ratio = (value: number): string => value.toFixed(3);
const whole = (value: number): string => value.toFixed(0);

function atMost(value: number, goal: number, text: (value: number) => string): { text: string; met: boolean } {
  return { text: text(value), met: value <= goal };
}

function p99Text(idleUs: number, uploadingUs: number | null): { text: string; met?: boolean } {
  if (uploadingUs === null) return { text: `${whole(idleUs)}; no upload to beside` };
  const times = uploadingUs / Math.max(1, idleUs);
  return { text: `${whole(idleUs)} -> ${whole(uploadingUs)} (${times.toFixed(1)}x)`, met: times <= GOALS.p99DuringUpload };
}

const ROWS: readonly Row[] = [
  {
    what: '1 MiB sequential write + COMMIT, MB/s',
    goal: '',
    of: ({ sequentialWrite }) => ({ text: whole(sequentialWrite.megabytesPerSecond) }),
  },
  {
    what: '... bytes added to the store per guest byte',
    goal: `<= ${GOALS.writeAmplification}`,
    of: ({ sequentialWrite }) => atMost(amplification(sequentialWrite), GOALS.writeAmplification, ratio),
  },
  {
    what: '... PUTs per GiB',
    goal: `<= ${GOALS.putsPerGibibyte}`,
    of: ({ sequentialWrite }) => atMost(putsPerGibibyte(sequentialWrite), GOALS.putsPerGibibyte, whole),
  },
  { what: '... by the router’s count, before encoding', goal: '', of: ({ sequentialWrite }) => countedText(sequentialWrite) },
  { what: '... requests: PUT / GET / HEAD', goal: '', of: ({ sequentialWrite }) => ({ text: requestsText(sequentialWrite.traffic) }) },
  { what: '... time to drain afterwards, s', goal: '', of: ({ sequentialWrite }) => ({ text: (sequentialWrite.drainMs / 1000).toFixed(1) }) },
  {
    what: '4 KiB random write FILE_SYNC, 32 outstanding, op/s',
    goal: '',
    of: ({ randomWrite }) => ({ text: whole(randomWrite.operationsPerSecond) }),
  },
  {
    what: '... bytes added to the store per guest byte',
    goal: `<= ${GOALS.writeAmplification}`,
    of: ({ randomWrite }) => atMost(amplification(randomWrite), GOALS.writeAmplification, ratio),
  },
  {
    what: '... PUTs per GiB',
    goal: `<= ${GOALS.putsPerGibibyte}`,
    of: ({ randomWrite }) => atMost(putsPerGibibyte(randomWrite), GOALS.putsPerGibibyte, whole),
  },
  { what: '... by the router’s count, before encoding', goal: '', of: ({ randomWrite }) => countedText(randomWrite) },
  { what: '... requests: PUT / GET / HEAD', goal: '', of: ({ randomWrite }) => ({ text: requestsText(randomWrite.traffic) }) },
  { what: '... time to drain afterwards, s', goal: '', of: ({ randomWrite }) => ({ text: (randomWrite.drainMs / 1000).toFixed(1) }) },
  {
    what: 'cold 1 MiB sequential read, 8 outstanding, MB/s',
    goal: '',
    of: ({ sequentialRead }) => ({ text: whole(sequentialRead.megabytesPerSecond) }),
  },
  { what: '... plain parallel download, MB/s', goal: '', of: ({ sequentialRead }) => ({ text: whole(sequentialRead.plainMegabytesPerSecond) }) },
  {
    what: '... share of the plain download',
    goal: `>= ${GOALS.shareOfPlainDownload}`,
    of: ({ sequentialRead }) => {
      const share = sequentialRead.megabytesPerSecond / sequentialRead.plainMegabytesPerSecond;
      return { text: share.toFixed(2), met: share >= GOALS.shareOfPlainDownload };
    },
  },
  {
    what: '... bytes fetched per byte read; GETs per MiB',
    goal: '',
    of: ({ sequentialRead: { traffic, guestBytes } }) => ({
      text: `${ratio(traffic.readBytes / guestBytes)}; ${(traffic.gets / (guestBytes / 2 ** 20)).toFixed(2)}`,
    }),
  },
  {
    what: 'cold 4 KiB random read, 8 outstanding, op/s (p50 / p99 ms)',
    goal: '',
    of: ({ randomRead }) => ({
      text: `${whole(randomRead.operationsPerSecond)} (${(randomRead.p50Us / 1000).toFixed(1)} / ${(randomRead.p99Us / 1000).toFixed(1)})`,
    }),
  },
  {
    what: '... bytes fetched per read',
    goal: `<= ${GOALS.bytesPerColdRead}`,
    of: ({ randomRead }) => atMost(bytesPerColdRead(randomRead), GOALS.bytesPerColdRead, whole),
  },
  { what: '... GETs per read', goal: '', of: ({ randomRead }) => ({ text: (randomRead.traffic.gets / randomRead.operations).toFixed(2) }) },
  {
    what: 'p99 of 4 KiB FILE_SYNC writes, us: idle backend -> upload at full speed',
    goal: `<= ${GOALS.p99DuringUpload}x`,
    of: ({ uploadEffect }) => p99Text(uploadEffect.writeP99Us, uploadEffect.writeP99UploadingUs),
  },
  {
    what: 'p99 of cached 4 KiB reads, us: idle backend -> upload at full speed',
    goal: `<= ${GOALS.p99DuringUpload}x`,
    of: ({ uploadEffect }) => p99Text(uploadEffect.readP99Us, uploadEffect.readP99UploadingUs),
  },
  {
    what: '... speed of that upload, MB/s',
    goal: '',
    of: ({ uploadEffect }) => ({ text: uploadEffect.uploadMegabytesPerSecond === null ? '-' : whole(uploadEffect.uploadMegabytesPerSecond) }),
  },
];

function countedText(score: WriteScore): { text: string } {
  return { text: ratio(score.traffic.writtenBytes / score.guestBytes) };
}

function requestsText(traffic: BackendTraffic): string {
  return `${traffic.puts} / ${traffic.gets} / ${traffic.heads}`;
}

/** Markdown; a cell that misses its goal says so. */
export function backendTable(scores: readonly BackendScore[]): string {
  const lines = [`| | goal | ${scores.map((score) => score.name).join(' | ')} |`, `|---|---|${scores.map(() => '--:').join('|')}|`];
  for (const row of ROWS) {
    const cells = scores.map((score) => {
      const { text, met } = row.of(score);
      return met === false ? `${text} **missed**` : text;
    });
    lines.push(`| ${row.what} | ${row.goal} | ${cells.join(' | ')} |`);
  }
  return lines.join('\n');
}

/** `backend: row`, of all goals that are missed. */
export function missedGoals(scores: readonly BackendScore[]): string[] {
  let parent = '';
  const missed: string[] = [];
  for (const row of ROWS) {
    if (!row.what.startsWith('...')) parent = row.what;
    const title = row.what.startsWith('...') ? `${parent}${row.what.slice(3)}` : row.what;
    for (const score of scores) if (row.of(score).met === false) missed.push(`${score.name}: ${title}`);
  }
  return missed;
}
