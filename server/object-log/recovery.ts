/**
 * Finds the end of an object's log after its owner went away: which segments exist, which records count, and whether anything that was
 * acknowledged is missing (design section 6, Recovery). It only reads; the caller closes the epoch in the registry, applies the records, and
 * then seals what was left open.
 */
import type { Root } from '../../registry/ports.ts';
import type { Disk } from '../core/disk.ts';
import { errorCode } from '../core/errors.ts';
import { failPoint } from '../core/fail-points.ts';
import { compareEpoch } from '../core/ids.ts';
import type { ObjectUuid, Term } from '../core/ids.ts';
import type { LocalSegment } from './local-segment.ts';
import { RecordFlag, RecordKind } from './segment-codec.ts';
import type { DecodedRecord } from './segment-codec.ts';
import type { SegmentFiles } from './segment-files.ts';
import { readSealed, scanEveryRecord, scanLocalSegment } from './segment-scan.ts';
import type { SegmentBytes, SegmentScan } from './segment-scan.ts';

export interface FoundSegment {
  readonly number: number;
  readonly term: Term;
  /** Null: only the backend has it. */
  readonly local: LocalSegment | null;
  readonly scan: SegmentScan;
  /** The records of it that count, all with a sequence above the checkpoint's. */
  readonly records: readonly DecodedRecord[];
  /** Last sequence of it that counts, also when it lies below the checkpoint's. */
  readonly lastSequence: number;
}

export type LogEnd =
  | {
      readonly kind: 'found';
      readonly segments: readonly FoundSegment[];
      readonly lastSegment: number;
      readonly lastSequence: number;
      /** Records up to this one are proven to be durable; those behind it were found, perhaps in the page cache only. */
      readonly provenSequence: number;
      /** Data answered UNSTABLE may be missing: the write verifier must change. */
      readonly unstableOpen: boolean;
      /** Local files that do not belong to the object's history: of a fenced term, or behind the end. */
      readonly leftovers: readonly LocalSegment[];
    }
  /** Acknowledged data is missing or damaged. Nothing may be cut, nothing served. */
  | { readonly kind: 'damaged'; readonly reason: string };

/** Where segments come from that are not on the local disk. */
export interface RemoteSegments {
  /** A segment that the root says is on the backend; waits until it is visible. `scan`: what its index says, when that was looked at already. */
  open(number: number, term: Term): Promise<SegmentBytes & { readonly scan?: SegmentScan }>;
}

/** Segments of the backend whose indexes are asked for ahead: each takes some requests one after the other. */
const REMOTE_SCANS_AHEAD = 7;

/** Term that segment `number` belongs to: that of the first closed epoch that reaches it, else the current owner's. */
export function termOfSegment(root: Root, ownerTerm: Term, number: number): Term {
  for (const epoch of root.closedEpochs) if (number <= epoch.lastSegment) return epoch.term;
  return ownerTerm;
}

export async function findLogEnd(
  /** `turn`: waited for before the records of each segment are gone through; a large log has hundred thousands. */
  components: { disk: Disk; files: SegmentFiles; remote: RemoteSegments; turn?: () => Promise<void> },
  object: { uuid: ObjectUuid; ownerTerm: Term; root: Root },
  from: { segment: number; sequence: number; unstableOpen: boolean },
  /** Segments behind this one are not looked for: they are all on the backend up to it. */
  upTo = Infinity,
): Promise<LogEnd> {
  failPoint('recovery.before-scan');
  const { root, ownerTerm } = object;
  const leftovers: LocalSegment[] = [];
  const locals = new Map<number, LocalSegment>();
  for (const local of components.files.segmentsOf(object.uuid)) {
    if (local.number < from.segment || local.number > upTo) continue;
    const term = termOfSegment(root, ownerTerm, local.number);
    if (compareEpoch(term, local.term) !== 0 || term.nonce !== local.term.nonce) leftovers.push(local);
    else {
      // There twice: in `log/` is what was not released, and so the original.
      const double = locals.get(local.number);
      if (double !== undefined) leftovers.push(double.place === 'log' ? local : double);
      if (double === undefined || double.place !== 'log') locals.set(local.number, local);
    }
  }
  for (const local of locals.values()) components.files.prefer(local);
  // An epoch that wrote nothing says so, and its predecessor's end counts.
  const closed = root.closedEpochs.filter((epoch) => epoch.lastSegment <= upTo);
  const lastNumber = Math.min(upTo, Math.max(root.uploadedSegment, ...closed.map((epoch) => epoch.lastSegment), ...locals.keys()));

  const scanned: { number: number; term: Term; local: LocalSegment | null; scan: SegmentScan }[] = [];
  /** Highest sequence that something proves to have been durable. */
  let proven = Math.max(root.uploadedSegment <= upTo ? root.uploadedSequence : 0, ...closed.map((epoch) => epoch.lastSequence));
  const remoteScans = new Map<number, Promise<SegmentScan>>();
  const scanRemote = (number: number): Promise<SegmentScan> => {
    let scan = remoteScans.get(number);
    if (scan === undefined) {
      scan = remoteScan(components.remote, number, termOfSegment(root, ownerTerm, number), object.uuid);
      // Whoever comes to that segment sees it.
      scan.catch(() => undefined);
      remoteScans.set(number, scan);
    }
    return scan;
  };
  for (let number = from.segment; number <= lastNumber; number += 1) {
    const term = termOfSegment(root, ownerTerm, number);
    for (let ahead = number; ahead <= Math.min(root.uploadedSegment, lastNumber, number + REMOTE_SCANS_AHEAD); ahead += 1)
      if (!locals.has(ahead)) void scanRemote(ahead);
    let local = locals.get(number) ?? null;
    let scan: SegmentScan | null = null;
    if (local !== null) {
      try {
        scan = await scanLocalSegment(components.disk, components.files, local);
      } catch (error) {
        // A cached copy may be evicted while we look; the backend has it, too.
        if (errorCode(error) !== 'ENOENT' || number > root.uploadedSegment) throw error;
        local = null;
      }
    }
    if (scan === null && number <= root.uploadedSegment) scan = await scanRemote(number);
    if (scan === null) {
      // A later segment is made only when this one's name is durable: the file was there.
      return damaged(`segment ${number} is neither on the local disk nor on the backend, although segment ${lastNumber} should follow it`);
    }
    // What the backend has whole need not be read from a damaged local file.
    const complete = scan.sealed && !scan.headerDamaged;
    if (!complete && local !== null && number <= root.uploadedSegment) scan = await scanRemote(number);
    proven = Math.max(proven, scan.durableSequence);
    remoteScans.delete(number);
    scanned.push({ number, term, local, scan });
  }

  const segments: FoundSegment[] = [];
  let expected = from.sequence + 1;
  let lastSegment = Math.max(from.segment - 1, 0);
  let unstableOpen = from.unstableOpen;
  /** From this index of `segments` on there is a gap before the records; a fault that moved records closes it with a later segment. */
  let gapAt = -1;
  let gap: string | null = null;
  for (const { number, term, local, scan: known } of scanned) {
    if (known.records.length > 0) await components.turn?.();
    let scan = known;
    // The seal of the last segments may have reached the disk without the records before it: nobody was told that those are durable.
    if (!scan.verified && local !== null && number > root.uploadedSegment && (scan.records.at(-1)?.sequence ?? 0) > proven) {
      const reread = await scanEveryRecord(components.disk, components.files, local);
      if (reread.headerDamaged || reread.header === null) return damaged(`the header of ${local.path} cannot be read twice`);
      scan = reread;
    }
    // A first write that failed leaves part of a header, and no records. With a record that continues the log behind it, it is damage; one that is on
    // the backend already is of the file's earlier life.
    const first = scan.firstSequence;
    if (scan.headerDamaged && (first === undefined || (first !== null && first <= expected && first > root.uploadedSequence))) {
      return damaged(
        `the header of ${local?.path ?? `segment ${number}`} is damaged; restore that file or take the object over from its last checkpoint`,
      );
    }
    if (scan.header === null) {
      // Never begun: an empty link when later segments follow (a fault skipped it), nothing at all at the end.
      segments.push({ number, term, local, scan, records: [], lastSequence: Math.max(expected - 1, 0) });
      continue;
    }
    const closedAt = root.closedEpochs.find((epoch) => epoch.lastSegment === number);
    const limit = closedAt === undefined ? Infinity : closedAt.lastSequence;
    if (scan.header.baseSequence > expected) {
      // Begun when the records before it were on their way to the disk, and never got there. They may have been written again behind it.
      if (gapAt < 0) {
        gapAt = segments.length;
        gap = `records ${expected} to ${scan.header.baseSequence - 1} are missing before ${local?.path ?? `segment ${number}`}`;
      }
      segments.push({ number, term, local, scan, records: [], lastSequence: Math.max(expected - 1, 0) });
      continue;
    }
    gapAt = -1;
    gap = null;
    // A segment of the same term that begins earlier than this one ended (a fault moved its records): the newer one counts.
    const base = scan.header.baseSequence;
    if (base < expected && base > from.sequence) {
      for (let index = segments.length - 1; index >= 0; index -= 1) {
        const before = segments[index] as FoundSegment;
        if (before.lastSequence < base) break;
        segments[index] = { ...before, records: before.records.filter((record) => record.sequence < base), lastSequence: base - 1 };
      }
      expected = base;
    }
    const records: DecodedRecord[] = [];
    let last = Math.max(expected - 1, 0);
    for (const record of scan.records) {
      if (record.sequence > limit) break;
      if (record.sequence < expected) continue;
      if (record.sequence !== expected) break;
      records.push(record);
      last = record.sequence;
      expected += 1;
      if ((record.flags & RecordFlag.UNSTABLE) !== 0) unstableOpen = true;
      else if (record.kind === RecordKind.COMMIT_MARK) unstableOpen = false;
    }
    segments.push({ number, term, local, scan, records, lastSequence: last });
    lastSegment = number;
    if (limit !== Infinity && expected - 1 < limit && limit > from.sequence) {
      return damaged(`segment ${number} ends at record ${expected - 1}, but its epoch was closed at ${limit}`);
    }
  }
  while (segments.length > 0 && (segments.at(-1)?.scan.header === null || (gapAt >= 0 && segments.length > gapAt))) {
    const beyond = segments.pop() as FoundSegment;
    if (beyond.local !== null) leftovers.push(beyond.local);
  }
  if (proven >= expected) {
    return damaged(
      `record ${expected} is missing or damaged although records up to ${proven} were durable${gap === null ? '' : ` (${gap})`}; nothing was cut off`,
    );
  }
  return { kind: 'found', segments, lastSegment, lastSequence: expected - 1, provenSequence: proven, unstableOpen, leftovers };
}

function damaged(reason: string): LogEnd {
  return { kind: 'damaged', reason };
}

async function remoteScan(remote: RemoteSegments, number: number, term: Term, uuid: ObjectUuid): Promise<SegmentScan> {
  const bytes = await remote.open(number, term);
  const scan = bytes.scan ?? (await readSealed(bytes, { uuid, number, term }));
  if (scan !== null) return scan;
  return { header: null, records: [], sealed: false, verified: true, endOffset: 0, durableSequence: 0, headerDamaged: true };
}
