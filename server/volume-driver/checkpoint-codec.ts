/**
 * Bytes of a checkpoint object: header, page images, manifest, footer (docs/formats/checkpoint.md). Pure functions over buffers;
 * all numbers are little endian. Decoders throw ApplianceError `checkpoint-corrupt` on anything that an encoder would not write.
 */
import { crc32 } from 'node:zlib';

import { assert } from '../core/assert.ts';
import { ApplianceError } from '../core/errors.ts';
import type { ObjectUuid, Term } from '../core/ids.ts';
import { isTerm, NUMBER_MAX, parseObjectName, type StoredKind } from './object-names.ts';
import { PAGES_MAX } from './page-directory.ts';
import { imageBytes, PAGE_BLOCKS } from './page-image.ts';
import { BUCKETS_MAX, ROWS_MAX, type TableRow, UUIDS_MAX } from './segment-table.ts';

export const CHECKPOINT_VERSION = 1;
export const ATTRIBUTES_BYTES_MAX = 64 * 1024;
export const FOOTER_BYTES = 64;
export const MANIFEST_HEAD_BYTES = 64;
export const PAGE_RECORD_BYTES = 20;
export const TERM_RECORD_BYTES = 24;
export const UUID_RECORD_BYTES = 16;
export const ROW_RECORD_BYTES = 40;
/** Bounds of lists that are read whole. */
export const TERMS_MAX = 1 << 20;
export const BUCKETS_BYTES_MAX = 1 << 20;
export const GARBAGE_BYTES_MAX = 1 << 28;

const HEADER_MAGIC = 'VFCKP001';
const MANIFEST_MAGIC = 'VFCKMAN1';
const FOOTER_MAGIC = 'VFCKEND1';
const HEADER_FIXED_BYTES = 128;
const KINDS: readonly StoredKind[] = ['segment', 'piece', 'checkpoint'];

/** What a checkpoint says of its object. */
export interface CheckpointHeader {
  readonly objectUuid: ObjectUuid;
  /** 32 lower-case hex digits. */
  readonly vpoolUuid: string;
  /** The term that wrote it. */
  readonly term: Term;
  /** Number of the checkpoint: names the object. */
  readonly number: number;
  /** Every record up to this sequence is in the map; none above it. */
  readonly sequence: number;
  /** Number of the first segment that holds records above `sequence`. */
  readonly nextSegment: number;
  readonly objectSizeBytes: number;
  readonly mappedBlocks: number;
  /** The driver's own: at most 64 KiB, opaque. */
  readonly attributes: Uint8Array;
  readonly createdMs: number;
}

/** A stored object that nothing references any more, waiting for its grace time. */
export interface GarbageEntry {
  /** '' = the object's own bucket. */
  readonly bucket: string;
  /** See object-names.ts. */
  readonly name: string;
  readonly sizeBytes: number;
  /** Wall clock, milliseconds. */
  readonly sinceMs: number;
}

export interface Footer {
  readonly headerBytes: number;
  readonly headerCrc: number;
  readonly objectBytes: number;
  readonly manifestOffsetBytes: number;
  readonly manifestBytes: number;
  readonly manifestCrc: number;
  /** Page images in this object. */
  readonly imageCount: number;
}

export interface ManifestHead {
  readonly pages: number;
  readonly rows: number;
  /** One more than the highest row. */
  readonly rowEnd: number;
  readonly terms: number;
  /** Without the implicit '' at index 0, as for buckets. */
  readonly uuids: number;
  readonly buckets: number;
  readonly bucketsBytes: number;
  readonly garbage: number;
  readonly garbageBytes: number;
}

/** A page in the directory. Row 0: this object itself. */
export interface PageRecord {
  readonly page: number;
  readonly row: number;
  readonly offsetUnits: number;
  readonly crc: number;
  readonly lengthBytes: number;
  readonly mapped: number;
}

export interface RowRecord {
  readonly row: number;
  readonly kind: StoredKind;
  readonly bucket: number;
  readonly uuid: number;
  readonly term: number;
  readonly number: number;
  readonly sizeBytes: number;
  readonly live: number;
}

/** The error for everything that is wrong with a stored checkpoint. */
export function corrupt(message: string): ApplianceError {
  return new ApplianceError('checkpoint-corrupt', message);
}

function check(condition: boolean, message: string): asserts condition {
  if (!condition) throw corrupt(message);
}

export function encodeHeader(header: CheckpointHeader): Buffer {
  assert(header.attributes.byteLength <= ATTRIBUTES_BYTES_MAX, `attributes have ${header.attributes.byteLength} bytes`);
  assert(isUuid(header.objectUuid) && isUuid(header.vpoolUuid) && isTerm(header.term), 'bad identity in a checkpoint header');
  assert(header.number <= NUMBER_MAX, `checkpoint number ${header.number}`);
  const end = HEADER_FIXED_BYTES + header.attributes.byteLength;
  const bytes = Buffer.alloc(end + 4);
  bytes.write(HEADER_MAGIC, 0, 'latin1');
  bytes.writeUInt32LE(CHECKPOINT_VERSION, 8);
  bytes.writeUInt32LE(bytes.byteLength, 12);
  bytes.write(header.objectUuid, 16, 'hex');
  bytes.write(header.vpoolUuid, 32, 'hex');
  writeTerm(bytes, 48, header.term);
  writeUint64(bytes, 72, header.number);
  writeUint64(bytes, 80, header.sequence);
  writeUint64(bytes, 88, header.nextSegment);
  writeUint64(bytes, 96, header.objectSizeBytes);
  writeUint64(bytes, 104, header.mappedBlocks);
  bytes.writeDoubleLE(header.createdMs, 112);
  bytes.writeUInt32LE(header.attributes.byteLength, 120);
  bytes.set(header.attributes, HEADER_FIXED_BYTES);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, end)), end);
  return bytes;
}

/** Reads a header of exactly these bytes. */
export function decodeHeader(bytes: Buffer): CheckpointHeader {
  check(bytes.byteLength >= HEADER_FIXED_BYTES + 4, 'header is too short');
  check(bytes.toString('latin1', 0, 8) === HEADER_MAGIC, 'header has no magic');
  check(bytes.readUInt32LE(8) === CHECKPOINT_VERSION, `version ${bytes.readUInt32LE(8)} is not known`);
  const attributesBytes = bytes.readUInt32LE(120);
  const end = HEADER_FIXED_BYTES + attributesBytes;
  check(bytes.byteLength === end + 4 && bytes.readUInt32LE(12) === bytes.byteLength, 'header has a wrong length');
  check(attributesBytes <= ATTRIBUTES_BYTES_MAX && bytes.readUInt32LE(124) === 0, 'header has bad fields');
  check(bytes.readUInt32LE(end) === crc32(bytes.subarray(0, end)), 'CRC of the header is wrong');
  const createdMs = bytes.readDoubleLE(112);
  const number = readUint64(bytes, 72);
  check(Number.isFinite(createdMs) && number <= NUMBER_MAX, 'header has bad fields');
  return {
    objectUuid: bytes.toString('hex', 16, 32) as ObjectUuid,
    vpoolUuid: bytes.toString('hex', 32, 48),
    term: readTerm(bytes, 48),
    number,
    sequence: readUint64(bytes, 80),
    nextSegment: readUint64(bytes, 88),
    objectSizeBytes: readUint64(bytes, 96),
    mappedBlocks: readUint64(bytes, 104),
    attributes: Buffer.from(bytes.subarray(HEADER_FIXED_BYTES, end)),
    createdMs,
  };
}

export function encodeFooter(footer: Footer): Buffer {
  const bytes = Buffer.alloc(FOOTER_BYTES);
  bytes.write(FOOTER_MAGIC, 0, 'latin1');
  bytes.writeUInt32LE(CHECKPOINT_VERSION, 8);
  bytes.writeUInt32LE(footer.headerBytes, 12);
  writeUint64(bytes, 16, footer.objectBytes);
  writeUint64(bytes, 24, footer.manifestOffsetBytes);
  writeUint64(bytes, 32, footer.manifestBytes);
  bytes.writeUInt32LE(footer.manifestCrc, 40);
  bytes.writeUInt32LE(footer.headerCrc, 44);
  bytes.writeUInt32LE(footer.imageCount, 48);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 60)), 60);
  return bytes;
}

/** Reads the footer of an object of `objectBytes` bytes. */
export function decodeFooter(bytes: Buffer, objectBytes: number): Footer {
  check(bytes.byteLength === FOOTER_BYTES && bytes.toString('latin1', 0, 8) === FOOTER_MAGIC, 'footer has no magic');
  check(bytes.readUInt32LE(60) === crc32(bytes.subarray(0, 60)), 'CRC of the footer is wrong');
  check(bytes.readUInt32LE(8) === CHECKPOINT_VERSION, `version ${bytes.readUInt32LE(8)} is not known`);
  check(bytes.readUInt32LE(52) === 0 && bytes.readUInt32LE(56) === 0, 'footer has bad fields');
  const footer: Footer = {
    headerBytes: bytes.readUInt32LE(12),
    objectBytes: readUint64(bytes, 16),
    manifestOffsetBytes: readUint64(bytes, 24),
    manifestBytes: readUint64(bytes, 32),
    manifestCrc: bytes.readUInt32LE(40),
    headerCrc: bytes.readUInt32LE(44),
    imageCount: bytes.readUInt32LE(48),
  };
  check(footer.objectBytes === objectBytes, `object has ${objectBytes} bytes, its footer says ${footer.objectBytes}`);
  check(
    footer.headerBytes >= HEADER_FIXED_BYTES + 4 && footer.headerBytes <= HEADER_FIXED_BYTES + 4 + ATTRIBUTES_BYTES_MAX,
    'header length is impossible',
  );
  check(footer.manifestOffsetBytes >= footer.headerBytes, 'manifest overlaps the header');
  check(footer.manifestBytes >= MANIFEST_HEAD_BYTES, 'manifest is too short');
  check(footer.manifestOffsetBytes + footer.manifestBytes + FOOTER_BYTES === objectBytes, 'parts do not add up to the object');
  return footer;
}

export function encodeManifestHead(head: ManifestHead): Buffer {
  const bytes = Buffer.alloc(MANIFEST_HEAD_BYTES);
  bytes.write(MANIFEST_MAGIC, 0, 'latin1');
  bytes.writeUInt32LE(head.pages, 8);
  bytes.writeUInt32LE(head.rows, 12);
  bytes.writeUInt32LE(head.rowEnd, 16);
  bytes.writeUInt32LE(head.terms, 20);
  bytes.writeUInt32LE(head.uuids, 24);
  bytes.writeUInt32LE(head.buckets, 28);
  bytes.writeUInt32LE(head.bucketsBytes, 32);
  bytes.writeUInt32LE(head.garbage, 36);
  bytes.writeUInt32LE(head.garbageBytes, 40);
  return bytes;
}

/** Reads the head of a manifest of `manifestBytes` bytes; its lists are as long as their counts, exactly. */
export function decodeManifestHead(bytes: Buffer, manifestBytes: number): ManifestHead {
  check(bytes.byteLength === MANIFEST_HEAD_BYTES && bytes.toString('latin1', 0, 8) === MANIFEST_MAGIC, 'manifest has no magic');
  for (let at = 44; at < MANIFEST_HEAD_BYTES; at += 4) check(bytes.readUInt32LE(at) === 0, 'manifest has bad fields');
  const head: ManifestHead = {
    pages: bytes.readUInt32LE(8),
    rows: bytes.readUInt32LE(12),
    rowEnd: bytes.readUInt32LE(16),
    terms: bytes.readUInt32LE(20),
    uuids: bytes.readUInt32LE(24),
    buckets: bytes.readUInt32LE(28),
    bucketsBytes: bytes.readUInt32LE(32),
    garbage: bytes.readUInt32LE(36),
    garbageBytes: bytes.readUInt32LE(40),
  };
  check(head.pages <= PAGES_MAX && head.rowEnd >= 1 && head.rowEnd <= ROWS_MAX && head.rows < head.rowEnd, 'manifest has impossible counts');
  check(head.terms <= TERMS_MAX && head.uuids < UUIDS_MAX && head.buckets < BUCKETS_MAX, 'manifest has impossible counts');
  check(head.bucketsBytes <= BUCKETS_BYTES_MAX && head.garbageBytes <= GARBAGE_BYTES_MAX, 'manifest has impossible counts');
  const expected =
    MANIFEST_HEAD_BYTES +
    head.terms * TERM_RECORD_BYTES +
    head.uuids * UUID_RECORD_BYTES +
    head.bucketsBytes +
    head.rows * ROW_RECORD_BYTES +
    head.pages * PAGE_RECORD_BYTES +
    head.garbageBytes;
  check(expected === manifestBytes, `manifest has ${manifestBytes} bytes, its counts make ${expected}`);
  return head;
}

export function encodePageRecord(target: Buffer, at: number, page: PageRecord): void {
  target.writeUInt32LE(page.page, at);
  target.writeUInt32LE(page.row, at + 4);
  target.writeUInt32LE(page.offsetUnits, at + 8);
  target.writeUInt32LE(page.crc, at + 12);
  target.writeUInt16LE(page.lengthBytes, at + 16);
  target.writeUInt16LE(page.mapped, at + 18);
}

/** Checks what one record can tell by itself; where it points is the caller's to check. */
export function decodePageRecord(source: Buffer, at: number): PageRecord {
  const page = source.readUInt32LE(at);
  const lengthBytes = source.readUInt16LE(at + 16);
  const mapped = source.readUInt16LE(at + 18);
  check(page < PAGES_MAX && mapped >= 1 && mapped <= PAGE_BLOCKS && lengthBytes === imageBytes(mapped), `page ${page} has bad fields`);
  return { page, row: source.readUInt32LE(at + 4), offsetUnits: source.readUInt32LE(at + 8), crc: source.readUInt32LE(at + 12), lengthBytes, mapped };
}

export function encodeTerms(terms: readonly Term[]): Buffer {
  const bytes = Buffer.alloc(terms.length * TERM_RECORD_BYTES);
  for (const [index, term] of terms.entries()) writeTerm(bytes, index * TERM_RECORD_BYTES, term);
  return bytes;
}

export function decodeTerms(bytes: Buffer): Term[] {
  const terms: Term[] = [];
  for (let at = 0; at < bytes.byteLength; at += TERM_RECORD_BYTES) terms.push(readTerm(bytes, at));
  return terms;
}

/** `uuids` without the '' at index 0. */
export function encodeUuids(uuids: readonly string[]): Buffer {
  const bytes = Buffer.alloc(uuids.length * UUID_RECORD_BYTES);
  for (const [index, uuid] of uuids.entries()) {
    assert(isUuid(uuid), `uuid ${uuid}`);
    bytes.write(uuid, index * UUID_RECORD_BYTES, 'hex');
  }
  return bytes;
}

/** With '' at index 0. */
export function decodeUuids(bytes: Buffer): string[] {
  const uuids = [''];
  for (let at = 0; at < bytes.byteLength; at += UUID_RECORD_BYTES) uuids.push(bytes.toString('hex', at, at + UUID_RECORD_BYTES));
  return uuids;
}

/** `buckets` without the '' at index 0. */
export function encodeBuckets(buckets: readonly string[]): Buffer {
  return Buffer.concat(
    buckets.map((bucket) => {
      const name = Buffer.from(bucket, 'utf8');
      assert(name.byteLength > 0 && name.byteLength <= BUCKET_BYTES_MAX, `bucket name ${bucket}`);
      const bytes = Buffer.alloc(2 + name.byteLength);
      bytes.writeUInt16LE(name.byteLength, 0);
      bytes.set(name, 2);
      return bytes;
    }),
  );
}

/** With '' at index 0. */
export function decodeBuckets(bytes: Buffer, count: number): string[] {
  const buckets = [''];
  const seen = new Set(buckets);
  let at = 0;
  for (let index = 0; index < count; index += 1) {
    check(at + 2 <= bytes.byteLength, 'bucket list is cut');
    const length = bytes.readUInt16LE(at);
    const end = at + 2 + length;
    check(length > 0 && length <= BUCKET_BYTES_MAX && end <= bytes.byteLength, 'bucket list is cut');
    const name = bytes.toString('utf8', at + 2, end);
    check(Buffer.byteLength(name) === length && !seen.has(name), 'bucket list has a bad name');
    buckets.push(name);
    seen.add(name);
    at = end;
  }
  check(at === bytes.byteLength, 'bucket list is too long');
  return buckets;
}

export const BUCKET_BYTES_MAX = 255;

export function encodeRowRecord(target: Buffer, at: number, row: RowRecord): void {
  target.fill(0, at, at + ROW_RECORD_BYTES);
  target.writeUInt32LE(row.row, at);
  target.writeUInt8(KINDS.indexOf(row.kind) + 1, at + 4);
  target.writeUInt16LE(row.bucket, at + 6);
  target.writeUInt32LE(row.uuid, at + 8);
  target.writeUInt32LE(row.term, at + 12);
  writeUint64(target, at + 16, row.number);
  writeUint64(target, at + 24, row.sizeBytes);
  target.writeUInt32LE(row.live, at + 32);
}

export function decodeRowRecord(source: Buffer, at: number): RowRecord {
  const row = source.readUInt32LE(at);
  const kind = KINDS[source.readUInt8(at + 4) - 1];
  const number = readUint64(source, at + 16);
  check(row > 0 && kind !== undefined && number <= NUMBER_MAX, `row ${row} has bad fields`);
  check(source.readUInt8(at + 5) === 0 && source.readUInt32LE(at + 36) === 0, `row ${row} has bad fields`);
  return {
    row,
    kind,
    bucket: source.readUInt16LE(at + 6),
    uuid: source.readUInt32LE(at + 8),
    term: source.readUInt32LE(at + 12),
    number,
    sizeBytes: readUint64(source, at + 24),
    live: source.readUInt32LE(at + 32),
  };
}

/** The row's fields with its indexes looked up. */
export function resolveRow(record: RowRecord, buckets: readonly string[], uuids: readonly string[], terms: readonly Term[]): TableRow {
  const bucket = buckets[record.bucket];
  const objectUuid = uuids[record.uuid];
  const term = terms[record.term];
  check(bucket !== undefined && objectUuid !== undefined && term !== undefined, `row ${record.row} points outside the lists`);
  return { kind: record.kind, bucket, objectUuid, term, number: record.number, sizeBytes: record.sizeBytes };
}

/** `bucketIndex` finds or makes the index of a bucket. */
export function encodeGarbage(entries: readonly GarbageEntry[], bucketIndex: (bucket: string) => number): Buffer {
  return Buffer.concat(
    entries.map((entry) => {
      assert(parseObjectName(entry.name) !== null, `garbage ${entry.name}`);
      const bytes = Buffer.alloc(20 + entry.name.length);
      bytes.writeUInt16LE(bucketIndex(entry.bucket), 0);
      bytes.writeUInt16LE(entry.name.length, 2);
      writeUint64(bytes, 4, entry.sizeBytes);
      bytes.writeDoubleLE(entry.sinceMs, 12);
      bytes.write(entry.name, 20, 'latin1');
      return bytes;
    }),
  );
}

export function decodeGarbage(bytes: Buffer, count: number, buckets: readonly string[]): GarbageEntry[] {
  const entries: GarbageEntry[] = [];
  let at = 0;
  for (let index = 0; index < count; index += 1) {
    check(at + 20 <= bytes.byteLength, 'garbage list is cut');
    const bucket = buckets[bytes.readUInt16LE(at)];
    const end = at + 20 + bytes.readUInt16LE(at + 2);
    check(end <= bytes.byteLength, 'garbage list is cut');
    const name = bytes.toString('latin1', at + 20, end);
    const sinceMs = bytes.readDoubleLE(at + 12);
    check(bucket !== undefined && parseObjectName(name) !== null && Number.isFinite(sinceMs), 'garbage list has a bad entry');
    entries.push({ bucket, name, sizeBytes: readUint64(bytes, at + 4), sinceMs });
    at = end;
  }
  check(at === bytes.byteLength, 'garbage list is too long');
  return entries;
}

/** True for 32 lower-case hex digits. */
export function isUuid(text: string): boolean {
  return /^[0-9a-f]{32}$/.test(text);
}

function writeTerm(bytes: Buffer, at: number, term: Term): void {
  writeUint64(bytes, at, term.generation);
  writeUint64(bytes, at + 8, term.counter);
  bytes.write(term.nonce, at + 16, 'hex');
}

function readTerm(bytes: Buffer, at: number): Term {
  return { generation: readUint64(bytes, at), counter: readUint64(bytes, at + 8), nonce: bytes.toString('hex', at + 16, at + 24) };
}

function writeUint64(bytes: Buffer, at: number, value: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, `${value} is not exact`);
  bytes.writeUInt32LE(value % 2 ** 32, at);
  bytes.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
}

function readUint64(bytes: Buffer, at: number): number {
  const value = bytes.readUInt32LE(at + 4) * 2 ** 32 + bytes.readUInt32LE(at);
  check(Number.isSafeInteger(value), 'a number is out of range');
  return value;
}
