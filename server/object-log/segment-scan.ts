/**
 * Reads what a segment holds, and repairs what a crash or a failed disk left unfinished (docs/formats/segment.md).
 *
 * A sealed segment is known by its index. An unsealed one is read record by record, payload CRCs included, up to the first thing that is no
 * valid record of its term in sequence. What lies behind that is looked through: a later record that says the missing one was durable proves
 * damage in the middle, which is never cut off silently.
 */
import { join } from 'node:path';
import { crc32 } from 'node:zlib';

import type { Disk } from '../core/disk.ts';
import { compareEpoch } from '../core/ids.ts';
import type { Term } from '../core/ids.ts';
import type { Random } from '../core/time.ts';
import type { LocalSegment } from './local-segment.ts';
import {
  decodeFooter,
  decodeIndex,
  decodeRecord,
  decodeSegmentHeader,
  encodeFooter,
  encodeRecordHead,
  encodeSegmentHeader,
  RECORD_HEADER_BYTES,
  readUint53,
  RECORD_MAGIC,
  RecordKind,
  SEAL_FOOTER_BYTES,
  SEGMENT_HEADER_BYTES,
  SegmentIndex,
  verifyPayload,
} from './segment-codec.ts';
import type { DecodedRecord, SegmentHeader } from './segment-codec.ts';
import type { SegmentFiles } from './segment-files.ts';

/** Largest segment file that is read as a whole. */
export const SCAN_BYTES_MAX = 160 * 1024 * 1024;

export interface SegmentScan {
  /** Null: the file never became a segment (or its header is damaged); it has no records then. */
  readonly header: SegmentHeader | null;
  readonly records: readonly DecodedRecord[];
  readonly sealed: boolean;
  /** The payload of every record was read and is right. False: the index says that the records are there, which is sure only once the seal was synced. */
  readonly verified: boolean;
  /** Bytes that count: of a sealed segment all of it, else up to the end of the last valid record. */
  readonly endOffset: number;
  /** Highest `durableSequence` that any valid record of this file states, those behind the end included. */
  readonly durableSequence: number;
  /** The first bytes are neither a header nor what a new or recycled file begins with: something was here. */
  readonly headerDamaged: boolean;
  /** With a damaged header: sequence of the first record, as far as that can be told without one; null when nothing looks like a record of this term. */
  readonly firstSequence?: number | null;
}

const EMPTY: SegmentScan = { header: null, records: [], sealed: false, verified: true, endOffset: 0, durableSequence: 0, headerDamaged: false };

/** Which segment a file has to be: a recycled one still holds a whole valid segment of its earlier life. */
export interface SegmentIdentity {
  readonly uuid: string;
  readonly number: number;
  readonly term: Term;
}

/** Whether a header is that of this segment. */
export function isOf(header: SegmentHeader, identity: SegmentIdentity): boolean {
  return (
    header.objectUuid === identity.uuid &&
    header.number === identity.number &&
    header.term.nonce === identity.term.nonce &&
    compareEpoch(header.term, identity.term) === 0
  );
}

/** Reads ranges of a segment wherever it is; short at its end. */
export interface SegmentBytes {
  readonly sizeBytes: number;
  read(offsetBytes: number, lengthBytes: number): Promise<Buffer>;
}

/** A local file as SegmentBytes. */
export function localSegmentBytes(files: SegmentFiles, segment: LocalSegment, sizeBytes: number): SegmentBytes {
  return {
    sizeBytes,
    async read(offsetBytes, lengthBytes) {
      const target = Buffer.allocUnsafe(lengthBytes);
      return target.subarray(0, await files.read(segment, offsetBytes, target));
    },
  };
}

/**
 * The index of a sealed segment of exactly `bytes.sizeBytes`, or null when it has no valid seal at its end. `turn`: waited for before it is decoded, which takes some
 * milliseconds of the event loop.
 */
export async function readSealed(bytes: SegmentBytes, identity: SegmentIdentity, turn?: () => Promise<void>): Promise<SegmentScan | null> {
  if (bytes.sizeBytes < SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES + SEAL_FOOTER_BYTES) return null;
  const header = decodeSegmentHeader(await bytes.read(0, SEGMENT_HEADER_BYTES));
  if (header === null || !isOf(header, identity)) return null;
  const footer = decodeFooter(await bytes.read(bytes.sizeBytes - SEAL_FOOTER_BYTES, SEAL_FOOTER_BYTES), header.salt);
  if (footer === null || footer.totalBytes !== bytes.sizeBytes) return null;
  const head = await bytes.read(footer.sealOffset, footer.indexOffset - footer.sealOffset + footer.indexBytes);
  await turn?.();
  const seal = decodeRecord(head, 0, header.term, header.salt);
  if (seal === null || seal.kind !== RecordKind.SEAL || seal.blockCount !== footer.entryCount) return null;
  const records = decodeIndex(head.subarray(seal.payloadOffset, seal.endOffset), footer.entryCount);
  if (records === null) return null;
  return { header, records, sealed: true, verified: false, endOffset: bytes.sizeBytes, durableSequence: seal.durableSequence, headerDamaged: false };
}

/** Reads a local segment: by its index when it is sealed, record by record otherwise. */
export async function scanLocalSegment(disk: Disk, files: SegmentFiles, segment: LocalSegment): Promise<SegmentScan> {
  const sizeBytes = await disk.size(segment.path);
  const sealed = await readSealed(localSegmentBytes(files, segment, sizeBytes), segment);
  if (sealed !== null) return sealed;
  return scanEveryRecord(disk, files, segment);
}

/** Reads a local segment record by record, whatever its index says. */
export async function scanEveryRecord(disk: Disk, files: SegmentFiles, segment: LocalSegment): Promise<SegmentScan> {
  const sizeBytes = await disk.size(segment.path);
  const bytes = await localSegmentBytes(files, segment, sizeBytes).read(0, Math.min(sizeBytes, SCAN_BYTES_MAX));
  return scanBytes(bytes, segment);
}

/** Reads the bytes of a segment file record by record. */
export function scanBytes(bytes: Buffer, identity: SegmentIdentity): SegmentScan {
  const first = bytes.subarray(0, SEGMENT_HEADER_BYTES);
  const header = decodeSegmentHeader(first);
  if (header === null) {
    if (first.every((byte) => byte === 0)) return EMPTY;
    return { ...EMPTY, headerDamaged: true, firstSequence: sequenceOfRecord(bytes, SEGMENT_HEADER_BYTES, identity.term) };
  }
  if (!isOf(header, identity)) return EMPTY;
  const records: DecodedRecord[] = [];
  let at = SEGMENT_HEADER_BYTES;
  let next = header.baseSequence;
  let durableSequence = 0;
  for (;;) {
    const record = decodeRecord(bytes, at, header.term, header.salt);
    if (record === null) break;
    if (record.kind === RecordKind.SEAL) {
      const footer = decodeFooter(bytes.subarray(0, record.endOffset + SEAL_FOOTER_BYTES), header.salt);
      const sealed = footer !== null && footer.sealOffset === at && record.sequence === next - 1;
      if (!sealed) break;
      durableSequence = Math.max(durableSequence, record.durableSequence);
      return { header, records, sealed, verified: true, endOffset: record.endOffset + SEAL_FOOTER_BYTES, durableSequence, headerDamaged: false };
    }
    if (record.sequence !== next || !verifyPayload(bytes, record)) break;
    durableSequence = Math.max(durableSequence, record.durableSequence);
    records.push(record);
    at = record.endOffset;
    next += 1;
  }
  return {
    header,
    records,
    sealed: false,
    verified: true,
    endOffset: at,
    durableSequence: Math.max(durableSequence, durableBehind(bytes, at + 1, header)),
    headerDamaged: false,
  };
}

/** Sequence of what looks like a record of `term` at `at`; without the segment's salt its CRC says nothing. */
function sequenceOfRecord(bytes: Buffer, at: number, term: Term): number | null {
  if (at + RECORD_HEADER_BYTES > bytes.length || !bytes.subarray(at, at + 4).equals(RECORD_MAGIC)) return null;
  if (bytes.readUInt32LE(at + 56) !== term.generation || bytes.readUInt32LE(at + 60) !== term.counter) return null;
  const sequence = readUint53(bytes, at + 8);
  return Number.isNaN(sequence) ? null : sequence;
}

/** Highest `durableSequence` of any valid record behind `from`, wherever it starts: evidence against a torn tail. */
function durableBehind(bytes: Buffer, from: number, header: SegmentHeader): number {
  let durable = 0;
  for (let at = bytes.indexOf(RECORD_MAGIC, from); at >= 0; at = bytes.indexOf(RECORD_MAGIC, at + 1)) {
    const record = decodeRecord(bytes, at, header.term, header.salt);
    if (record === null) continue;
    durable = Math.max(durable, record.durableSequence);
  }
  return durable;
}

/**
 * Gives a segment that was not sealed its index and footer, keeping records up to `lastSequence`: written to a new file that takes the old one's
 * name when it is durable, so that neither a crash here nor a disk that failed a sync can make things worse. Returns the sealed size.
 *
 * One that is sealed, and of which everything counts, stays as it is to the byte: it may be on the backend already, under a name that is written once.
 *
 * `saysDurable`: what the seal states as durable, its last record if not given. A recovery that has yet to remember the calls in it states less, so that another one
 * reads the heads of the records again, which have their names (decision 0035).
 */
export async function sealByCopy(
  components: { disk: Disk; files: SegmentFiles; random: Random; vpoolUuid: string },
  segment: LocalSegment,
  scan: SegmentScan,
  lastSequence: number,
  saysDurable = Infinity,
): Promise<number> {
  const { disk, files } = components;
  // Numbers have no gaps: a segment that a fault kept from beginning becomes an empty one, and so does one that begins behind what counts, since all
  // of it was written again elsewhere. It gets a header of its own, or it would say that the records before it are somewhere.
  const usable = scan.header !== null && scan.header.baseSequence <= lastSequence + 1 ? scan.header : null;
  const header = usable ?? {
    vpoolUuid: components.vpoolUuid,
    objectUuid: segment.uuid,
    term: segment.term,
    number: segment.number,
    salt: components.random.bytes(4).readUInt32LE(0),
    baseSequence: lastSequence + 1,
    createdWallMs: 0,
    cut: scan.header?.cut ?? null,
  };
  const source = usable === null ? encodeSegmentHeader(header) : await localSegmentBytes(files, segment, scan.endOffset).read(0, scan.endOffset);
  const kept = usable === null ? [] : scan.records.filter((record) => record.sequence <= lastSequence);
  const last = kept.at(-1);
  const end = last === undefined ? SEGMENT_HEADER_BYTES : last.endOffset;
  const salt = header.salt;
  const index = new SegmentIndex();
  for (const record of kept) {
    const times = record.kind === RecordKind.ATTRIBUTES ? source.subarray(record.payloadOffset, record.endOffset) : null;
    index.add(record, record.payloadOffset, times);
  }
  const payload = index.payload();
  const head = Buffer.alloc(RECORD_HEADER_BYTES);
  const sequence = last?.sequence ?? header.baseSequence - 1;
  const seal = {
    kind: RecordKind.SEAL,
    flags: 0,
    sequence,
    startBlock: 0,
    blockCount: index.count,
    newSizeBytes: 0,
    seconds: 0,
    nanoseconds: 0,
    crcs: new Uint32Array(0),
    payloadBytes: payload.length,
    call: null,
  };
  encodeRecordHead(head, 0, seal, segment.term, salt, Math.min(sequence, saysDurable), crc32(payload));
  const indexOffset = end + head.length;
  const totalBytes = indexOffset + payload.length + SEAL_FOOTER_BYTES;
  const footer = encodeFooter(
    { sealOffset: end, indexOffset, indexBytes: payload.length, entryCount: index.count, lastSequence: sequence, totalBytes },
    salt,
  );
  const isWhole = usable !== null && scan.sealed && kept.length === scan.records.length;
  const path = join(segment.path, '..', '..', 'pool', `rebuild-${segment.uuid}-${segment.number}.tmp`);
  await disk.unlink(path).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  });
  const file = await disk.create(path);
  try {
    await new Promise<void>((resolve, reject) =>
      file.write(0, isWhole ? [source] : [source.subarray(0, end), head, payload, footer], (error) => (error === null ? resolve() : reject(error))),
    );
    await new Promise<void>((resolve, reject) => file.sync((error) => (error === null ? resolve() : reject(error))));
  } finally {
    await file.close();
  }
  const copiedBytes = isWhole ? source.length : totalBytes;
  await files.replace(segment, path, copiedBytes);
  return copiedBytes;
}
